"""Money and quantities: exact decimals, printed the way the exchange prints them."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

ZERO = Decimal(0)
SMALLEST = Decimal("0.00000001")
"""No balance, fee or gain is finer than this."""


def text(amount: Decimal, digits: int = 8) -> str:
    """Return ``amount`` with exactly ``digits`` decimals."""
    return f"{amount + 0:.{digits}f}"


def plain(amount: Decimal, digits: int = 8) -> str:
    """Return ``amount`` rounded to ``digits`` decimals, without trailing zeros: ``84700.1``, ``0``."""
    rounded = round(amount, digits)
    return f"{rounded.normalize():f}" if rounded else "0"


def down(amount: Decimal) -> Decimal:
    """Return ``amount`` cut to the smallest unit."""
    return amount.quantize(SMALLEST, ROUND_DOWN)


def nearest(amount: Decimal) -> Decimal:
    """Return ``amount`` rounded to the smallest unit, halves away from zero."""
    return amount.quantize(SMALLEST, ROUND_HALF_UP)
