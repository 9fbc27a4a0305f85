"""How an order meets the market: what it takes from a book, and whether a trade reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from bridge.simulator.accounts.venue import Level


def best_levels(side: str, bids: Sequence[Level], asks: Sequence[Level]) -> Sequence[Level]:
    """Return the side of the book that an order takes from."""
    return asks if side == "BUY" else bids


def take(
    levels: Iterable[Level], side: str, limit: Decimal | None, quantity: Decimal
) -> list[tuple[Decimal, Decimal]]:
    """Return price and quantity of each fill of an order that takes up to ``quantity`` not beyond ``limit``."""
    fills: list[tuple[Decimal, Decimal]] = []
    for price, offered in levels:
        if quantity <= 0 or (limit is not None and not reached(side, limit, price)):
            break
        taken = min(offered, quantity)
        fills.append((price, taken))
        quantity -= taken
    return fills


def reached(side: str, limit: Decimal, price: Decimal) -> bool:
    """Tell whether a trade at ``price`` is as good as ``limit`` or better for an order of ``side``."""
    return price <= limit if side == "BUY" else price >= limit
