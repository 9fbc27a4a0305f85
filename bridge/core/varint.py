"""Avro's ``long``: zigzag, then 7 bits a byte, least significant first."""

from __future__ import annotations

from typing import Final

# All 14-bit values as two bytes that both say "more follows": a long is built two bytes at a time.
_PAIRS = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))
_HEADS = _PAIRS[::2]  # the same of what is not negative, by its 13 lowest bits
_SHORT = tuple(bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14))  # fmt: skip

SIZES = _SHORT[::2]
"""The encodings of 0 to 8191."""


def long_bytes(number: int) -> bytes:
    """Return the Avro encoding of ``number``.

    Raises:
        OverflowError: ``number`` does not fit 64 bits.
    """
    if number >= 0x2000:  # nearly all are
        return _HEADS[number & 0x1FFF] + _tail(number >> 13)
    if number >= 0:
        return SIZES[number]
    rest = (~number << 1) | 1
    return _SHORT[rest] if rest < 0x4000 else _PAIRS[rest & 0x3FFF] + _tail(rest >> 14)


def consecutive_long_bytes(first: int, count: int, suffix: bytes) -> list[bytes]:
    """Return :func:`long_bytes` of ``count`` numbers from ``first`` (0 or more) on, each with ``suffix`` behind it."""
    found: list[bytes] = []
    while count:
        if first < 0x2000:
            heads, behind = SIZES[first : first + count], suffix
        else:
            at = first & 0x1FFF
            heads, behind = _HEADS[at : at + count], _tail(first >> 13) + suffix
        found += [head + behind for head in heads]
        first, count = first + len(heads), count - len(heads)
    return found


class _Tails(dict[int, bytes]):
    """What follows the first two bytes of a long. Ids and times that follow each other share it: it is remembered."""

    def __missing__(self, rest: int) -> bytes:
        """Encode ``rest`` for the first time."""
        if rest >> 50:
            raise OverflowError(f"a number of {rest.bit_length() + 14} bits does not fit a long")
        if len(self) >= _REMEMBERED:
            self.clear()
        tail, more = b"", rest
        while more >= 0x4000:
            tail += _PAIRS[more & 0x3FFF]
            more >>= 14
        tail = self[rest] = tail + _SHORT[more]
        return tail


_REMEMBERED: Final = 20_000
_tail = _Tails().__getitem__  # subscripting a subclass of dict is slow


def size_bytes(size: int) -> bytes:
    """Return the Avro encoding of the length of something: as :func:`long_bytes`, for numbers from 0 on."""
    return SIZES[size] if size < len(SIZES) else long_bytes(size)


def nullable_long_bytes(number: int | None) -> bytes:
    """Return the Avro encoding of a ``["null", "long"]`` field."""
    return b"\x00" if number is None else b"\x02" + long_bytes(number)


def text_bytes(text: str) -> bytes:
    """Return the Avro encoding of a ``string``."""
    data = text.encode()
    return long_bytes(len(data)) + data


def number_text_bytes(number: int) -> bytes:
    """Return the Avro encoding of a ``string`` that is a number in decimal digits."""
    data = b"%d" % number
    return _SHORT[len(data) << 1] + data
