"""Avro's ``long``: zigzag, then 7 bits a byte, least significant first."""

from __future__ import annotations

# All 14-bit values as two bytes that both say "more follows": a long is built two bytes at a time.
_PAIRS = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))
_SHORT = tuple(bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14))  # fmt: skip


def long_bytes(number: int) -> bytes:
    """Return the Avro encoding of ``number``.

    Raises:
        OverflowError: ``number`` does not fit 64 bits.
    """
    rest = number << 1 if number >= 0 else (~number << 1) | 1
    if rest < 0x4000:
        return _SHORT[rest]
    if rest >> 64:
        raise OverflowError(f"{number} does not fit a long")
    head = b""
    while rest >= 0x4000:
        head += _PAIRS[rest & 0x3FFF]
        rest >>= 14
    return head + _SHORT[rest]


def nullable_long_bytes(number: int | None) -> bytes:
    """Return the Avro encoding of a ``["null", "long"]`` field."""
    return b"\x00" if number is None else b"\x02" + long_bytes(number)


def text_bytes(text: str) -> bytes:
    """Return the Avro encoding of a ``string``."""
    data = text.encode()
    return long_bytes(len(data)) + data
