"""The levels of order books, all numbers of a message at once: from the exchange's JSON to integers, and on to Avro.

A message has some fifty numbers, and most of what it costs is theirs. The exchange writes all prices of a message with
the same decimals, and all quantities. Where that is proven, by a look at the text as a whole, the numbers are cut out
and converted by a few calls for all of them; any other text is read number by number, with the same result. And what is
the same for all, scaling and writing them, is done to the array as a whole, which is one long integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class
from typing import TYPE_CHECKING

import msgspec

from bridge.core.decimals import LIMIT, SCALE, decimal_bytes, unscaled
from bridge.core.varint import size_bytes
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = b"0123456789"
_ALIKE = bytes.maketrans(_DIGITS, b"0" * 10)
_MARKS = b'[]".'
_NOTHING = b"[]"
_MALFORMED = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_decode = msgspec.json.Decoder(list[tuple[str, str]]).decode


@dataclass(frozen=True, slots=True)  # its fields are quicker to read than a tuple's
class _Form:
    """How levels look whose prices have the same decimals, and whose quantities have.

    Attributes:
        skeleton: a level without its digits, and the comma behind it.
        price_end: how each price ends, each digit a 0: from the digit on that has to be before the point.
        amount_end: how each quantity ends.
        price_zeros: what gives prices the decimals that quantities have.
        amount_zeros: the other way round.
        factor: what makes the digits the number times 10**18.
    """

    skeleton: bytes
    price_end: bytes
    amount_end: bytes
    price_zeros: bytes
    amount_zeros: bytes
    factor: int

    @classmethod
    def of(cls, price: int, amount: int) -> _Form:
        """Return the form of so many decimals; with none, there is no point."""
        points = [b"." if decimals else b"" for decimals in (price, amount)]
        return cls(
            skeleton=b'["%b","%b"],' % tuple(points),
            price_end=b"0" + points[0] + b"0" * price + b'","',
            amount_end=b"0" + points[1] + b"0" * amount + b'"]',
            price_zeros=b"0" * (amount - price),
            amount_zeros=b"0" * (price - amount),
            factor=10 ** (SCALE - max(price, amount)),
        )

    def fits(self, text: bytes) -> bool:
        """Return whether all levels in ``text``, which is JSON, are of this form."""
        skeleton, alike = text.translate(None, _DIGITS), text.translate(_ALIKE)
        count = len(skeleton) // len(self.skeleton)
        return (
            skeleton[1:-1] + b"," == self.skeleton * count
            and alike.count(self.price_end) == count
            and alike.count(self.amount_end) == count
        )

    def read(self, text: bytes) -> tuple[list[int], int]:
        """Return the numbers of levels of this form, and the factor that makes them those times 10**18."""
        if self.price_zeros:
            text = text.replace(b'","', self.price_zeros + b'","')
        elif self.amount_zeros:
            text = text.replace(b'"]', self.amount_zeros + b'"]')
        try:
            return list(map(int, text.translate(None, _MARKS).split(b","))), self.factor
        except ValueError:  # thousands of digits
            return _one_by_one(text), 1


_FORMS = [[_Form.of(price, amount) for amount in range(SCALE + 1)] for price in range(SCALE + 1)]


class LevelsReader:
    """Reads the levels of one side of one stream; remembers their form, which hardly ever changes.

    And what it read last: a book wants the numbers that its record was made of.
    """

    __slots__ = ("_factor", "_form", "_levels", "_numbers")

    def __init__(self) -> None:
        self._form = _FORMS[8][8]  # that of spot
        self._levels: msgspec.Raw | bytes | None = None
        self._numbers: list[int] = []
        self._factor = 1

    def encoded(self, levels: msgspec.Raw | bytes) -> bytes:
        """Return the Avro encoding: :func:`levels_bytes` of :func:`read_levels`, and their errors."""
        self._look(levels)
        return levels_bytes(self._numbers, self._factor)

    def read(self, levels: msgspec.Raw | bytes) -> list[int]:
        """See :func:`read_levels`."""
        if levels is not self._levels:
            self._look(levels)
        factor = self._factor
        return [number * factor for number in self._numbers]

    def _look(self, levels: msgspec.Raw | bytes) -> None:
        self._levels = None  # until it is read
        text, form = bytes(levels), self._form
        if form.fits(text):
            self._numbers, self._factor = form.read(text)
        elif text == _NOTHING:
            self._numbers = []
        else:
            found = _form_of(text)
            if found is None:
                self._numbers, self._factor = _one_by_one(text), 1
            else:
                self._form = found
                self._numbers, self._factor = found.read(text)
        self._levels = levels


def read_levels(levels: msgspec.Raw | bytes) -> list[int]:
    """Return price, quantity, price, quantity … of ``[["price","quantity"],…]``, each times 10**18, exactly.

    That they have no more than 38 digits is left to :func:`levels_bytes`, which sees the largest.

    Args:
        levels: what msgspec found to be a JSON value.

    Raises:
        UnexpectedMessage: it is no such array, or one of the numbers is none.
        DoesNotFit: one has more than 18 decimals.
    """
    return LevelsReader().read(levels)


def _form_of(text: bytes) -> _Form | None:
    """Return the form of all levels in ``text``; None where they have none in common."""
    price, _, amount = text[3 : text.find(b'"]')].partition(b'","')
    decimals = len(price.partition(b".")[2]), len(amount.partition(b".")[2])
    if max(decimals) > SCALE:
        return None
    form = _FORMS[decimals[0]][decimals[1]]
    return form if form.fits(text) else None


def _one_by_one(text: bytes) -> list[int]:
    try:
        rows = _decode(text)
    except _MALFORMED as error:
        raise UnexpectedMessage(f"not levels of price and quantity: {error}") from error
    return [unscaled(number) for number in chain.from_iterable(rows)]


def levels_bytes(numbers: list[int], factor: int = 1) -> bytes:
    """Return the Avro encoding of an array of ``Level`` records.

    All numbers of an array are written with the same length, that of the largest: leading zeros are as valid in Avro as
    they are cheap in a compressed batch.

    Args:
        numbers: price, quantity, price, quantity …
        factor: what makes them those times 10**18.

    Raises:
        DoesNotFit: a number has more than 38 digits.
    """
    if not numbers:
        return b"\x00"
    largest, count = max(numbers) * factor, len(numbers)
    size = max((largest.bit_length() + 8) >> 3, _LEAST_SIZE)
    if largest < LIMIT and count <= _MOST_AT_ONCE:
        try:
            return _array_of(size, count).encoded(numbers, factor)
        except StructError:  # a number below zero, or of more than 64 bits
            pass
    scaled = [number * factor for number in numbers]
    length = size_bytes(size)
    try:
        if largest >= LIMIT:
            raise OverflowError  # noqa: TRY301 - the other way says which
        body = length + length.join(map(int.to_bytes, scaled, repeat(size)))
    except OverflowError:  # a number below zero
        body = b"".join(map(decimal_bytes, scaled))
    return b"".join((size_bytes(count // 2), body, b"\x00"))


_LEAST_SIZE = 7  # with the length before it, the width of what Struct packs
_MOST_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of so many numbers of the same length, which is one number itself: one multiplication scales them all.

    Attributes:
        pack: puts the numbers where they are in the array.
        frame: the array with all numbers 0.
        length: its bytes.
    """

    pack: Callable[..., bytes]
    frame: int
    length: int

    @classmethod
    def of(cls, size: int, count: int) -> _Array:
        """Return the array of ``count`` numbers of ``size`` bytes each."""
        frame = b"".join((size_bytes(count // 2), (size_bytes(size) + bytes(size)) * count, b"\x00"))
        places = f"{size - _LEAST_SIZE}xQ" * count
        return cls(Struct(f">{places}x").pack, int.from_bytes(frame), len(frame))

    def encoded(self, numbers: list[int], factor: int) -> bytes:
        """Return the array of these numbers times ``factor``."""
        return (int.from_bytes(self.pack(*numbers)) * factor + self.frame).to_bytes(self.length)


_array_of = lru_cache(maxsize=1_000)(_Array.of)
