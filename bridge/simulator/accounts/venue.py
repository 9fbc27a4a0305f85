"""What accounts need to know of the market they trade on: terms, books, trades and mark prices."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge.simulator.accounts.amounts import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.model import Market

_SPOT_DIGITS = 8


class Terms(NamedTuple):
    """Terms of one symbol.

    Attributes:
        market: where it is traded.
        symbol: the exchange symbol.
        base: base asset.
        quote: quote asset.
        margin: asset a contract settles in.
        pair: the contract's pair; the symbol itself on spot.
        tick: the price's step.
        step: the quantity's step (coinm: contracts).
        contract_size: quote units per contract (coinm), else 1.
    """

    market: Market
    symbol: str
    base: str
    quote: str
    margin: str
    pair: str
    tick: Decimal
    step: Decimal
    contract_size: Decimal = Decimal(1)

    def price(self, amount: Decimal) -> str:
        """Return a price's text: eight decimals on spot, the tick's on futures."""
        return text(amount, _SPOT_DIGITS if self.market == "spot" else _decimals(self.tick))

    def quantity(self, amount: Decimal) -> str:
        """Return a quantity's text: eight decimals on spot, the step's on futures."""
        return text(amount, _SPOT_DIGITS if self.market == "spot" else _decimals(self.step))


class Level(NamedTuple):
    """One price level of a book."""

    price: Decimal
    quantity: Decimal


class Print(NamedTuple):
    """A trade of the market."""

    price: Decimal
    quantity: Decimal
    time_ms: int


class Venue(Protocol):
    """A market to trade on. Private orders never move it."""

    def terms(self, market: Market, symbol: str) -> Terms | None:
        """Return the terms of a symbol, None where it is not listed."""

    def symbols(self, market: Market) -> Sequence[str]:
        """Return what ``market`` lists."""

    def book(self, market: Market, symbol: str) -> tuple[Sequence[Level], Sequence[Level]]:
        """Return bids and asks, best first."""

    def position(self, market: Market, symbol: str) -> int:
        """Return where the tape stands, to read on from with :meth:`prints`."""

    def prints(self, market: Market, symbol: str, since: int) -> Iterator[Print]:
        """Yield the trades from tape position ``since`` on."""

    def last_price(self, market: Market, symbol: str) -> Decimal:
        """Return the price of the last trade."""

    def mark_price(self, symbol: str) -> Decimal:
        """Return a contract's mark price."""


def _decimals(step: Decimal) -> int:
    exponent = step.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)
