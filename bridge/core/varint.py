"""Avro's ``long``: zigzag, then 7 bits a byte, least significant first."""

from __future__ import annotations

from typing import Final

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
    return _PAIRS[rest & 0x3FFF] + _TAILS[rest >> 14]


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
_TAILS = _Tails()


def size_bytes(size: int) -> bytes:
    """Return the Avro encoding of the length of something: as :func:`long_bytes`, for numbers from 0 on."""
    return _SHORT[size << 1] if size < 0x2000 else long_bytes(size)


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
