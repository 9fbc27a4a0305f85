"""Finds orders the way both kinds of account do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from bridge.simulator.accounts.refusal import no_order

if TYPE_CHECKING:
    from collections.abc import Reversible


class _Named(Protocol):
    @property
    def symbol(self) -> str: ...
    @property
    def client_id(self) -> str: ...


_Order = TypeVar("_Order", bound=_Named)


def newest_named(orders: Reversible[_Order], client_id: str, symbol: str | None = None) -> _Order:
    """Return the newest order with a client id; of one symbol or of all.

    Args:
        orders: oldest first.
        client_id: the client id.
        symbol: the exchange symbol; any where None.

    Raises:
        Refused: there is none.
    """
    for order in reversed(orders):
        if order.client_id == client_id and symbol in (None, order.symbol):
            return order
    raise no_order()
