"""A live order book, as users see it: the newest whole snapshot with every change since, each link proven."""

from __future__ import annotations

import time
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

from bridge.errors import BookTooThin, NotInSync, UsageError
from bridge.sdk.record import as_millis, as_text
from bridge.sdk.shapes import Number, converter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from bridge.sdk.book_followed import Followed, Updates
    from bridge.sdk.book_state import BookState, Seen
    from bridge.sdk.records import Level

Side: TypeAlias = Literal["buy", "sell"]
Exact: TypeAlias = Decimal | int | str
"""A number that is exact."""

_EXACT = Context(prec=400, traps=[Inexact, InvalidOperation])
"""Sums and products of any records' numbers (38 digits), without rounding."""
_QUOTIENT = Context(prec=38, traps=[InvalidOperation])
"""Quotients are rounded to as many digits as a record's number has."""
_TWO = Decimal(2)
_DIGITS = 60
"""The most digits of numbers that users give, and of powers of ten."""


class Depth(NamedTuple):
    """The levels within a range of prices, best first.

    Attributes:
        bids: bids.
        asks: asks.
    """

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def bid_amount(self) -> Decimal:
        """What all the bids add up to, exact."""
        return _sum(level.amount for level in self.bids)

    @property
    def ask_amount(self) -> Decimal:
        """What all the asks add up to, exact."""
        return _sum(level.amount for level in self.asks)


class Cost(NamedTuple):
    """What it would cost to fill an amount at once.

    Attributes:
        total: price × amount over the levels taken, exact.
        average: ``total`` / amount, rounded to 38 digits.
        worst: the price of the last level taken.
    """

    total: Decimal
    average: Decimal
    worst: Decimal


class LiveBook:
    """The order book of one symbol, kept current in the background. Made by ``client.order_book``.

    Reading levels, or what is derived from them, while the book is not in sync raises :class:`NotInSync`,
    unless ``stale_ok`` is set, of the book or in the call: then they are those the book had when it was lost.
    Numbers are exact decimals. Close it by :meth:`aclose` or ``async with``; the client's end closes it too.

    Attributes:
        stale_ok: whether levels may be read while the book is not in sync.
    """

    def __init__(self, followed: Followed, *, stale_ok: bool = False) -> None:
        self.stale_ok = stale_ok
        self._followed = followed

    def __repr__(self) -> str:
        shown = f"at {self.sequence}" if self.in_sync else f"not in sync: {self.reason}"
        return f"<LiveBook {self.symbol} {shown}>"

    @property
    def symbol(self) -> str:
        """Unified symbol."""
        return self._followed.state.symbol

    @property
    def market(self) -> str | None:
        """Its market."""
        return self._followed.state.market

    @property
    def in_sync(self) -> bool:
        """Whether the levels are proven to be the exchange's, as of :attr:`sequence`."""
        return self._followed.state.in_sync

    @property
    def reason(self) -> str | None:
        """Why the book is not in sync; None while it is."""
        return self._followed.state.reason

    @property
    def sequence(self) -> int | None:
        """Update id of the last change applied."""
        return self._followed.state.sequence

    @property
    def timestamp(self) -> int | None:
        """The exchange's time of the last change, microseconds; None where a spot snapshot was the last."""
        return self._followed.state.timestamp

    @property
    def receivedAt(self) -> int | None:  # noqa: N802 - the records' own name
        """When the bridge received the last change, microseconds."""
        return self._followed.state.received_at

    @property
    def age(self) -> float | None:
        """Seconds since then, by this machine's clock."""
        at = self._followed.state.received_at
        return None if at is None else time.time() - at / 1e6

    @property
    def seen(self) -> Seen:
        """What was read of the symbol, in numbers."""
        return self._followed.state.seen

    @property
    def version(self) -> int:
        """Grows with every change; see :meth:`changed`."""
        return self._followed.version

    @property
    def best_bid(self) -> Level | None:
        """The highest bid; None where there are none."""
        return self._checked().bids.best

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask; None where there are none."""
        return self._checked().asks.best

    @property
    def mid(self) -> Decimal | None:
        """Half way between best bid and best ask, exact; None where a side is empty."""
        best = self._best()
        return None if best is None else _EXACT.divide(_EXACT.add(best[0].price, best[1].price), _TWO)

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid, exact; None where a side is empty."""
        best = self._best()
        return None if best is None else _EXACT.subtract(best[1].price, best[0].price)

    @property
    def microprice(self) -> Decimal | None:
        """The mid weighted by the amounts of the other side, rounded to 38 digits; None where a side is empty."""
        best = self._best()
        if best is None:
            return None
        bid, ask = best
        weighted = _EXACT.add(_EXACT.multiply(bid.price, ask.amount), _EXACT.multiply(ask.price, bid.amount))
        return _QUOTIENT.divide(weighted, _EXACT.add(bid.amount, ask.amount))

    def bids(self, limit: int | None = None, *, stale_ok: bool = False) -> tuple[Level, ...]:
        """Return the best bids, best first; None is all of them."""
        return self._checked(stale_ok=stale_ok).bids.top(_checked_limit(limit))

    def asks(self, limit: int | None = None, *, stale_ok: bool = False) -> tuple[Level, ...]:
        """Return the best asks, best first; None is all of them."""
        return self._checked(stale_ok=stale_ok).asks.top(_checked_limit(limit))

    def depth(self, low: Exact | None = None, high: Exact | None = None, *, stale_ok: bool = False) -> Depth:
        """Return the levels with prices from ``low`` to ``high``, both included; None is without a bound."""
        state = self._checked(stale_ok=stale_ok)
        lowest = None if low is None else _decimal(low, "low")
        highest = None if high is None else _decimal(high, "high")
        return Depth(state.bids.between(lowest, highest), state.asks.between(lowest, highest))

    def cost(self, side: Side, amount: Exact, *, stale_ok: bool = False) -> Cost:
        """Return what an order of ``amount`` would cost if it took the levels one after the other.

        Fees are left out. On coinm amounts are contracts, and ``total`` is price × contracts.

        Args:
            side: ``buy`` takes asks, ``sell`` takes bids.
            amount: how much, in the unit of the levels' amounts.
            stale_ok: see :class:`LiveBook`.

        Raises:
            BookTooThin: there is less than ``amount``; says how much.
            NotInSync: see :class:`LiveBook`.
            UsageError: the side or the amount makes no sense.
        """
        if side not in {"buy", "sell"}:
            raise UsageError(f"side is {side!r}; it is buy or sell")
        wanted = _decimal(amount, "amount")
        if wanted <= 0:
            raise UsageError(f"amount is {wanted}; it must be above 0")
        state = self._checked(stale_ok=stale_ok)
        return _cost(state, side, wanted)

    def as_ccxt(
        self, limit: int | None = None, number: Number = float, *, stale_ok: bool = False
    ) -> dict[str, Any]:
        """Return CCXT's OrderBook: ``[price, amount]`` lists, best first, time in milliseconds.

        Args:
            limit: levels a side; None is all of them.
            number: ``float``, or ``Decimal`` or ``str``, which are exact.
            stale_ok: see :class:`LiveBook`.
        """
        state, of = self._checked(stale_ok=stale_ok), converter(number)
        count = _checked_limit(limit)
        return {
            "symbol": state.symbol,
            "bids": [[of(price), of(amount)] for price, amount in state.bids.top(count)],
            "asks": [[of(price), of(amount)] for price, amount in state.asks.top(count)],
            "timestamp": as_millis(state.timestamp),
            "datetime": as_text(state.timestamp),
            "nonce": state.sequence,
        }

    def updates(self) -> Updates:
        """Return an asynchronous iterator of the changes from now on; it ends with the book.

        Whoever falls more than 10,000 changes behind gets the whole book as one ``snapshot`` instead of them.
        """
        return self._followed.updates()

    async def changed(self, since: int | None = None) -> int:
        """Wait for a change, and return the book's :attr:`version` then.

        Args:
            since: a version seen before; where the book has changed since, it returns at once.

        Raises:
            NotInSync: the book was closed, or its source ended: no change will come.
            BridgeError: its reader failed.
        """
        return await self._followed.changed(since)

    async def aclose(self) -> None:
        """Stop following the book."""
        await self._followed.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _checked(self, *, stale_ok: bool = False) -> BookState:
        state = self._followed.state
        if not (state.in_sync or stale_ok or self.stale_ok):
            raise NotInSync(
                f"the order book of {state.symbol} is not in sync: {state.reason}. The next whole snapshot heals "
                "it; stale_ok=True reads it as it was"
            )
        return state

    def _best(self) -> tuple[Level, Level] | None:
        state = self._checked()
        bid, ask = state.bids.best, state.asks.best
        return None if bid is None or ask is None else (bid, ask)


def _cost(state: BookState, side: Side, wanted: Decimal) -> Cost:
    left, total = wanted, Decimal(0)
    levels = state.asks if side == "buy" else state.bids
    for price, amount in levels:
        taken = min(left, amount)
        total = _EXACT.add(total, _EXACT.multiply(price, taken))
        left = _EXACT.subtract(left, taken)
        if not left:
            return Cost(total, _QUOTIENT.divide(total, wanted), price)
    have = _sum(level.amount for level in levels)
    raise BookTooThin(
        f"the {'asks' if side == 'buy' else 'bids'} of {state.symbol} add up to {have:f}, less than {wanted:f}"
    )


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def _decimal(value: Exact, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise UsageError(f"{what} is {value!r}; give a Decimal, an integer or text, which are exact")
    try:
        found = Decimal(value)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or max(abs(found.adjusted()), len(found.as_tuple().digits)) > _DIGITS:
        raise UsageError(f"{what} is {value!r}; give a number")
    return found


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it is at least 1, or None for all levels")
    return limit
