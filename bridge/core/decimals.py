"""Exact decimals: text as Binance sends it, to Avro's ``decimal(38, 18)``. Nothing passes through a float.

The unscaled integer of a number is the number times 10**18. Prices and quantities repeat, so each text is
converted once and remembered in a bounded table.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from bridge.core.varint import long_bytes
from bridge.errors import UnexpectedMessage

PRECISION = 38
SCALE = 18
ONE: int = 10**SCALE
LIMIT: int = 10**PRECISION

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_LONGEST_TEXT = 80
_WHOLE_DIGITS = PRECISION - SCALE
_SHIFTS: tuple[int, ...] = tuple(10 ** (SCALE - decimals) for decimals in range(SCALE + 1))
_LENGTHS = tuple(long_bytes(size) for size in range(17))
_REMEMBERED = 200_000


class DoesNotFit(UnexpectedMessage):
    """A number that ``decimal(38, 18)`` cannot hold exactly."""


def unscaled(text: str) -> int:
    """Return the number in ``text`` times 10**18, exactly.

    Raises:
        UnexpectedMessage: the text is not a decimal number.
        DoesNotFit: it has more than 18 decimals (other than zeros) or more than 20 digits before the point.
    """
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    # The form nearly all numbers have; isdigit alone would take other scripts' digits too.
    if (
        whole
        and len(whole) <= _WHOLE_DIGITS
        and len(fraction) <= SCALE
        and digits.isdigit()
        and digits.isascii()
    ):
        return int(digits) * _SHIFTS[len(fraction)]
    return _unusual(text)


def _unusual(text: str) -> int:
    """Handle signs, exponents and more decimals than usual; slow and rare."""
    if not _NUMBER.fullmatch(text) or len(text) > _LONGEST_TEXT:
        raise UnexpectedMessage(f"{_shown(text)} is not a decimal number")
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation as error:  # pragma: no cover - the pattern lets only numbers through
        raise UnexpectedMessage(f"{_shown(text)} is not a decimal number") from error
    shift = SCALE + int(exponent)
    number = int("".join(map(str, digits)))
    if shift < 0:
        number, rest = divmod(number, 10**-shift)
        if rest:
            raise DoesNotFit(f"{_shown(text)} has more than {SCALE} decimals")
    elif number:
        number *= 10 ** min(shift, PRECISION + SCALE)
    if number >= LIMIT:
        raise DoesNotFit(f"{_shown(text)} does not fit decimal({PRECISION}, {SCALE})")
    return -number if sign else number


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")


def decimal_bytes(number: int) -> bytes:
    """Return Avro ``bytes`` (length, then the shortest big-endian two's complement) of an unscaled integer.

    Raises:
        DoesNotFit: more than 38 digits.
    """
    if not -LIMIT < number < LIMIT:
        raise DoesNotFit(f"{Decimal(number).scaleb(-SCALE):E} does not fit decimal({PRECISION}, {SCALE})")
    size = ((number if number >= 0 else ~number).bit_length() + 8) >> 3
    return _LENGTHS[size] + number.to_bytes(size, "big", signed=True)


class _Table(dict[str, bytes]):
    """Texts already converted; forgets all when it has grown too large, so memory stays bounded."""

    __slots__ = ()

    def _remember(self, text: str, value: bytes) -> bytes:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = value
        return value


class DecimalTable(_Table):
    """``table[text]`` is the Avro encoding of a ``decimal`` field."""

    __slots__ = ()

    def __missing__(self, text: str) -> bytes:
        """Convert ``text`` for the first time."""
        return self._remember(text, decimal_bytes(unscaled(text)))


class NullableDecimalTable(_Table):
    """``table[text]`` is the Avro encoding of a ``["null", decimal]`` field; None and "" are null."""

    __slots__ = ()

    def __missing__(self, text: str | None) -> bytes:
        """Convert ``text`` for the first time."""
        if not text:
            return b"\x00"
        return self._remember(text, b"\x02" + decimal_bytes(unscaled(text)))


class NonzeroDecimalTable(_Table):
    """The same for a price, where zero says "none" (CCXT's omit_zero)."""

    __slots__ = ()

    def __missing__(self, text: str | None) -> bytes:
        """Convert ``text`` for the first time."""
        if not text:
            return b"\x00"
        number = unscaled(text)
        return self._remember(text, b"\x02" + decimal_bytes(number) if number else b"\x00")


class UnscaledTable(dict[str, int]):
    """``table[text]`` is the unscaled integer of ``text``."""

    __slots__ = ()

    def __missing__(self, text: str) -> int:
        """Convert ``text`` for the first time."""
        if len(self) >= _REMEMBERED:
            self.clear()
        number = self[text] = unscaled(text)
        return number


DECIMALS = DecimalTable()
NULLABLE_DECIMALS = NullableDecimalTable()
NONZERO_DECIMALS = NonzeroDecimalTable()
UNSCALED = UnscaledTable()


def multiply(a: int, b: int) -> int:
    """Return the product of two unscaled integers, truncated toward zero at 18 decimals."""
    product = a * b
    return product // ONE if product >= 0 else -(-product // ONE)


def divide(a: int, b: int) -> int | None:
    """Return the quotient of two unscaled integers, truncated toward zero at 18 decimals; None for b = 0."""
    if b == 0:
        return None
    quotient = abs(a) * ONE // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient
