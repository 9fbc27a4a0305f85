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
_GENERATION = 30_000


class DoesNotFit(UnexpectedMessage):
    """A number that ``decimal(38, 18)`` cannot hold exactly."""


def unscaled(text: str) -> int:
    """Return the number in ``text`` times 10**18, exactly.

    Raises:
        UnexpectedMessage: the text is not a decimal number.
        DoesNotFit: it has more than 18 decimals (other than zeros) or more than 20 digits before the point.
    """
    digits = text.replace(".", "", 1)
    # The form nearly all numbers have; isdecimal alone would take other scripts' digits too.
    if digits.isdecimal() and digits.isascii():
        whole = text.find(".") if len(digits) < len(text) else len(text)
        decimals = len(digits) - whole
        if 0 < whole <= _WHOLE_DIGITS and decimals <= SCALE:
            return int(digits) * _SHIFTS[decimals]
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
    if 0 <= number < LIMIT:
        size = (number.bit_length() + 8) >> 3
        return _LENGTHS[size] + number.to_bytes(size)
    if -LIMIT < number < 0:
        size = ((~number).bit_length() + 8) >> 3
        return _LENGTHS[size] + number.to_bytes(size, signed=True)
    raise DoesNotFit(f"{Decimal(number).scaleb(-SCALE):E} does not fit decimal({PRECISION}, {SCALE})")


class DecimalTable(dict[str | None, bytes]):
    """``table[text]`` is the Avro encoding of a ``decimal`` field.

    It is kept in two generations: what was not asked for in the last one is forgotten with it, so memory stays bounded.
    Where it is asked often, ask through ``table.__getitem__`` bound once: subscripting a subclass of dict is slow.
    """

    __slots__ = ("_older",)

    def __init__(self) -> None:
        super().__init__()
        self._older: dict[str | None, bytes] = {}

    def __missing__(self, text: str | None) -> bytes:
        """Convert ``text``, unless that was done in the last generation."""
        value = self._older.get(text)
        if value is None:
            value = self.encoded(text)
        if len(self) >= _GENERATION:
            self._older = dict(self)
            self.clear()
        self[text] = value
        return value

    def encoded(self, text: str | None) -> bytes:
        """Return the encoding of ``text``."""
        if text is None:
            raise UnexpectedMessage("a number is missing")
        return _encoded(text)


class NullableDecimals(DecimalTable):
    """The same for ``["null", decimal]``: None and empty text are null."""

    __slots__ = ()

    def encoded(self, text: str | None) -> bytes:
        """Return the encoding of ``text``, the union's branch included."""
        return b"\x02" + _encoded(text) if text else b"\x00"


class NonzeroDecimals(DecimalTable):
    """The same, where zero means that there is none: null, too."""

    __slots__ = ()

    def encoded(self, text: str | None) -> bytes:
        """Return the encoding of ``text``, the union's branch included."""
        value = _encoded(text) if text else ZERO
        return b"\x00" if value == ZERO else b"\x02" + value


def _encoded(text: str) -> bytes:
    """Convert a number; the form that nearly all have goes without a further call."""
    whole, _, fraction = text.partition(".")
    digits, decimals = whole + fraction, len(fraction)
    if (
        0 < len(whole) <= _WHOLE_DIGITS
        and decimals <= SCALE
        and digits.isdecimal()  # other scripts' digits are decimal, too
        and digits.isascii()
    ):
        number = int(digits) * _SHIFTS[decimals]
        size = (number.bit_length() + 8) >> 3
        return _LENGTHS[size] + number.to_bytes(size)
    return decimal_bytes(unscaled(text))


class UnscaledTable(dict[str, int]):
    """``table[text]`` is the unscaled integer of ``text``."""

    __slots__ = ()

    def __missing__(self, text: str) -> int:
        """Read ``text``; most often its encoding is there already, and cheaper to read."""
        if len(self) >= _GENERATION:
            self.clear()
        number = self[text] = int.from_bytes(DECIMALS[text][1:], signed=True)
        return number


ZERO = decimal_bytes(0)
"""The encoding of zero."""
DECIMALS = DecimalTable()
NULLABLE_DECIMALS = NullableDecimals()
NONZERO_DECIMALS = NonzeroDecimals()
UNSCALED = UnscaledTable()


def remembered() -> int:
    """Return how many numbers are remembered."""
    return len(DECIMALS) + len(NULLABLE_DECIMALS) + len(NONZERO_DECIMALS) + len(UNSCALED)


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
