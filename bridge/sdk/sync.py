"""The SDK without ``await``: for notebooks and scripts.

::

    from bridge.sdk.sync import connect

    with connect("localhost:9092", environment="prod") as client:
        for trade in client.trades("BTC/USDT", start="-1h", end="now"):
            print(trade.price)

A thread of the client's own runs the asynchronous one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from bridge import sdk
from bridge.sdk.record import Record
from bridge.sdk.records import Envelope, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, ItemsView, Iterator, ValuesView
    from decimal import Decimal
    from types import TracebackType

    from bridge.errors import DecodeError
    from bridge.model import Environment, Market
    from bridge.sdk import records as r
    from bridge.sdk.book import Cost, Depth, Exact, Side
    from bridge.sdk.book_state import Change, Seen
    from bridge.sdk.names import Names
    from bridge.sdk.reading import GapMarker
    from bridge.sdk.shapes import Number
    from bridge.sdk.source import CaughtUp
    from bridge.sdk.table import TableOptions
    from bridge.sdk.table_state import Seen as TableSeen
    from bridge.sdk.times import When

T = TypeVar("T")
R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=Envelope)
D = TypeVar("D")


class Records(Generic[T]):
    """An iterator of typed records; see :class:`bridge.sdk.Records`."""

    def __init__(self, records: sdk.Records[T], loop: _Loop) -> None:
        self._records, self._loop = records, loop
        self._batch: deque[T] = deque()

    @property
    def dropped(self) -> int:
        """Records left out so far because a later writer had taken over (lower ``writerEpoch``)."""
        return self._records.dropped

    def ready(self) -> Self:
        """Fix where reading begins: whatever is written from now on will come."""
        self._loop.run(self._records.ready())
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._batch:
            self._batch.extend(self._loop.run(self._records.batch()))
        if not self._batch:
            raise StopIteration
        return self._batch.popleft()

    def close(self) -> None:
        """Stop reading."""
        self._batch.clear()
        self._loop.run(self._records.aclose())


class Structure(Generic[R]):
    """The records of one structure; see :class:`bridge.sdk.Structure` for the arguments."""

    def __init__(self, structure: sdk.Structure[R], loop: _Loop) -> None:
        self._structure, self._loop = structure, loop

    @overload
    def __call__(
        self,
        symbols: Names = None,
        *,
        start: When | None = None,
        end: When | None = None,
        market: Market | None = None,
        channel: str | None = None,
        account: Names = None,
        late: str = "1h",
        markers: Literal[False] = False,
    ) -> Records[R]: ...

    @overload
    def __call__(
        self,
        symbols: Names = None,
        *,
        start: When | None = None,
        end: When | None = None,
        market: Market | None = None,
        channel: str | None = None,
        account: Names = None,
        late: str = "1h",
        markers: Literal[True],
    ) -> Records[R | CaughtUp | GapMarker]: ...

    def __call__(self, symbols: Names = None, *, markers: Any = False, **options: Any) -> Records[Any]:
        """Return an iterator of records; for the arguments see :class:`bridge.sdk.Structure`."""
        return self._loop.call(lambda: self._structure(symbols, markers=markers, **options))

    def next(
        self,
        symbol: str,
        *,
        timeout: float | None = None,
        market: Market | None = None,
        channel: str | None = None,
        account: Names = None,
    ) -> R:
        """Wait for the next record of ``symbol`` and return it; TimeoutError after ``timeout`` seconds."""
        return self._loop.run(
            self._structure.next(symbol, timeout=timeout, market=market, channel=channel, account=account)
        )


class LiveBook:
    """A live order book; see :class:`bridge.sdk.LiveBook`. Each view is taken between two changes, never amid one."""

    def __init__(self, book: sdk.LiveBook, loop: _Loop) -> None:
        self._book, self._loop = book, loop

    def __repr__(self) -> str:
        return repr(self._book)

    @property
    def symbol(self) -> str:
        """Unified symbol."""
        return self._book.symbol

    @property
    def market(self) -> str | None:
        """Its market."""
        return self._book.market

    @property
    def in_sync(self) -> bool:
        """Whether the levels are proven to be the exchange's, as of :attr:`sequence`."""
        return self._book.in_sync

    @property
    def reason(self) -> str | None:
        """Why the book is not in sync; None while it is."""
        return self._book.reason

    @property
    def stale_ok(self) -> bool:
        """Whether levels may be read while the book is not in sync."""
        return self._book.stale_ok

    @stale_ok.setter
    def stale_ok(self, value: bool) -> None:
        self._book.stale_ok = value

    @property
    def sequence(self) -> int | None:
        """Update id of the last change applied."""
        return self._book.sequence

    @property
    def timestamp(self) -> int | None:
        """The exchange's time of the last change, microseconds."""
        return self._book.timestamp

    @property
    def receivedAt(self) -> int | None:  # noqa: N802 - the records' own name
        """When the bridge received the last change, microseconds."""
        return self._book.receivedAt

    @property
    def age(self) -> float | None:
        """Seconds since then, by this machine's clock."""
        return self._book.age

    @property
    def seen(self) -> Seen:
        """What was read of the symbol, in numbers."""
        return self._book.seen

    @property
    def version(self) -> int:
        """Grows with every change; see :meth:`changed`."""
        return self._book.version

    @property
    def best_bid(self) -> r.Level | None:
        """The highest bid; None where there are none."""
        return self._loop.read(lambda: self._book.best_bid)

    @property
    def best_ask(self) -> r.Level | None:
        """The lowest ask; None where there are none."""
        return self._loop.read(lambda: self._book.best_ask)

    @property
    def mid(self) -> Decimal | None:
        """Half way between best bid and best ask, exact; None where a side is empty."""
        return self._loop.read(lambda: self._book.mid)

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid, exact; None where a side is empty."""
        return self._loop.read(lambda: self._book.spread)

    @property
    def microprice(self) -> Decimal | None:
        """The mid weighted by the amounts of the other side; None where a side is empty."""
        return self._loop.read(lambda: self._book.microprice)

    def bids(self, limit: int | None = None, *, stale_ok: bool = False) -> tuple[r.Level, ...]:
        """Return the best bids, best first; None is all of them."""
        return self._loop.read(lambda: self._book.bids(limit, stale_ok=stale_ok))

    def asks(self, limit: int | None = None, *, stale_ok: bool = False) -> tuple[r.Level, ...]:
        """Return the best asks, best first; None is all of them."""
        return self._loop.read(lambda: self._book.asks(limit, stale_ok=stale_ok))

    def depth(self, low: Exact | None = None, high: Exact | None = None, *, stale_ok: bool = False) -> Depth:
        """Return the levels with prices from ``low`` to ``high``, both included; None is without a bound."""
        return self._loop.read(lambda: self._book.depth(low, high, stale_ok=stale_ok))

    def cost(self, side: Side, amount: Exact, *, stale_ok: bool = False) -> Cost:
        """Return what an order of ``amount`` would cost; see :meth:`bridge.sdk.LiveBook.cost`."""
        return self._loop.read(lambda: self._book.cost(side, amount, stale_ok=stale_ok))

    def as_ccxt(
        self, limit: int | None = None, number: Number = float, *, stale_ok: bool = False
    ) -> dict[str, Any]:
        """Return CCXT's OrderBook; see :meth:`bridge.sdk.LiveBook.as_ccxt`."""
        return self._loop.read(lambda: self._book.as_ccxt(limit, number, stale_ok=stale_ok))

    def changed(self, since: int | None = None, *, timeout: float | None = None) -> int:
        """Wait for a change and return the version then; TimeoutError after ``timeout`` seconds."""
        return self._loop.changed(self._book, since, timeout)

    def updates(self) -> Iterator[Change]:
        """Return an iterator of the changes from now on; it ends with the book."""
        updates = self._loop.read(self._book.updates)

        async def following() -> Change | None:
            return await anext(updates, None)

        return iter(lambda: self._loop.run(following()), None)

    def close(self) -> None:
        """Stop following the book."""
        self._loop.run(self._book.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Table(Mapping[str, E]):
    """A current-state table; see :class:`bridge.sdk.Table`. Each view is taken between two changes, never amid one."""

    def __init__(self, table: sdk.Table[E], loop: _Loop) -> None:
        self._table, self._loop = table, loop

    def __repr__(self) -> str:
        return repr(self._table)

    @property
    def structure(self) -> str:
        """Name of the structure (``balance``)."""
        return self._table.structure

    @property
    def caught_up(self) -> bool:
        """Whether it has all that lay in the topic at first, and is kept current since."""
        return self._table.caught_up

    @property
    def reason(self) -> str | None:
        """Why the table is not kept current any more; None while it is."""
        return self._table.reason

    @property
    def stale_ok(self) -> bool:
        """Whether rows may be read while the table is not kept current."""
        return self._table.stale_ok

    @stale_ok.setter
    def stale_ok(self, value: bool) -> None:
        self._table.stale_ok = value

    @property
    def receivedAt(self) -> int | None:  # noqa: N802 - the records' own name
        """When the bridge received the newest of what was read, microseconds."""
        return self._table.receivedAt

    @property
    def age(self) -> float | None:
        """Seconds since then, by this machine's clock."""
        return self._table.age

    @property
    def version(self) -> int:
        """Grows with every row that changes; see :meth:`changed`."""
        return self._table.version

    @property
    def seen(self) -> TableSeen:
        """What was read of the topic, in numbers."""
        return self._table.seen

    @property
    def unreadable(self) -> Mapping[str, DecodeError]:
        """The error of each identity whose newest value is no record."""
        return self._loop.read(lambda: self._table.unreadable)

    def __getitem__(self, name: str) -> E:
        """Return a row; see :meth:`bridge.sdk.Table.__getitem__`."""
        return self._loop.read(lambda: self._table[name])

    def __contains__(self, name: object) -> bool:
        return self._loop.read(lambda: name in self._table)

    def __iter__(self) -> Iterator[str]:
        return self._loop.read(lambda: iter(self._table))

    def __len__(self) -> int:
        return self._loop.read(lambda: len(self._table))

    def items(self) -> ItemsView[str, E]:
        """Return identities and rows, all of one moment."""
        return self._loop.read(self._table.items)

    def values(self) -> ValuesView[E]:
        """Return the rows, all of one moment."""
        return self._loop.read(self._table.values)

    @overload
    def get(self, name: str | None = None, /, **fields: Any) -> E | None: ...
    @overload
    def get(self, name: str | None, default: D, /, **fields: Any) -> E | D: ...

    def get(self, name: str | None = None, default: Any = None, /, **fields: Any) -> Any:
        """Return the one row that is so; see :meth:`bridge.sdk.Table.get`."""
        return self._loop.read(lambda: self._table.get(name, default, **fields))

    def where(self, *tests: Callable[[E], bool], **fields: Any) -> list[E]:
        """Return the rows that are so; see :meth:`bridge.sdk.Table.where`."""
        return self._loop.read(lambda: self._table.where(*tests, **fields))

    def changed(self, since: int | None = None, *, timeout: float | None = None) -> int:
        """Wait until a row changes and return the version then; TimeoutError after ``timeout`` seconds."""
        return self._loop.changed(self._table, since, timeout)

    def close(self) -> None:
        """Stop keeping it current."""
        self._loop.run(self._table.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OrderTable(Table[Order]):
    """The newest state of each order; see :class:`Table`."""

    def __init__(self, table: sdk.OrderTable, loop: _Loop) -> None:
        super().__init__(table, loop)
        self._orders = table

    def open(self, *tests: Callable[[Order], bool], **fields: Any) -> list[Order]:
        """Return the orders that are not done with; for the arguments see :meth:`bridge.sdk.Table.where`."""
        return self._loop.read(lambda: self._orders.open(*tests, **fields))


class Client:
    """Reads what one bridge environment publishes; see :class:`bridge.sdk.Client`."""

    def __init__(self, client: sdk.Client) -> None:
        self._client = client
        self._loop = _Loop()

    @property
    def trades(self) -> Structure[r.Trade]:
        """Public trades and aggregate trades."""
        return Structure(self._client.trades, self._loop)

    @property
    def tickers(self) -> Structure[r.Ticker]:
        """Statistics of rolling windows."""
        return Structure(self._client.tickers, self._loop)

    @property
    def ohlcv(self) -> Structure[r.Ohlcv]:
        """Candles."""
        return Structure(self._client.ohlcv, self._loop)

    @property
    def order_books(self) -> Structure[r.OrderBook]:
        """Snapshots and deltas of order books."""
        return Structure(self._client.order_books, self._loop)

    @property
    def bids_asks(self) -> Structure[r.BidAsk]:
        """Best bid and ask."""
        return Structure(self._client.bids_asks, self._loop)

    @property
    def mark_prices(self) -> Structure[r.MarkPrice]:
        """Mark and index prices."""
        return Structure(self._client.mark_prices, self._loop)

    @property
    def funding_rates(self) -> Structure[r.FundingRate]:
        """Funding rates."""
        return Structure(self._client.funding_rates, self._loop)

    @property
    def liquidations(self) -> Structure[r.Liquidation]:
        """Forced orders."""
        return Structure(self._client.liquidations, self._loop)

    @property
    def markets(self) -> Structure[r.Instrument]:
        """Instruments."""
        return Structure(self._client.markets, self._loop)

    @property
    def orders(self) -> Structure[r.Order]:
        """Own orders, at each event."""
        return Structure(self._client.orders, self._loop)

    @property
    def my_trades(self) -> Structure[r.MyTrade]:
        """Fills of own orders."""
        return Structure(self._client.my_trades, self._loop)

    @property
    def balances(self) -> Structure[r.Balance]:
        """Own balances, at each change."""
        return Structure(self._client.balances, self._loop)

    @property
    def positions(self) -> Structure[r.Position]:
        """Own positions, at each change."""
        return Structure(self._client.positions, self._loop)

    @property
    def ledger(self) -> Structure[r.LedgerEntry]:
        """What came to own accounts and went from them other than by trades on spot."""
        return Structure(self._client.ledger, self._loop)

    @property
    def account_events(self) -> Structure[r.AccountEvent]:
        """What else the exchange tells of own accounts."""
        return Structure(self._client.account_events, self._loop)

    @property
    def gaps(self) -> Structure[r.Gap]:
        """What is missing, and what became of it."""
        return Structure(self._client.gaps, self._loop)

    def lifecycle(self, **times: When | None) -> Records[r.Lifecycle]:
        """Return what happened to bridges and their connections (``start``, ``end``)."""
        return self._loop.call(lambda: self._client.lifecycle(**times))

    def dead_letters(self, **times: When | None) -> Records[r.DeadLetter]:
        """Return what could not go on its way (``start``, ``end``)."""
        return self._loop.call(lambda: self._client.dead_letters(**times))

    def raw(
        self, market: Market, channel: str, symbols: Names = None, **times: When | None
    ) -> Records[r.Raw]:
        """Return messages exactly as the exchange sent them (``start``, ``end``)."""
        return self._loop.call(lambda: self._client.raw(market, channel, symbols, **times))

    def records(self, structure: str, symbols: Names = None, **options: Any) -> Records[Any]:
        """Return records of any structure by its name."""
        return self._loop.call(lambda: self._client.records(structure, symbols, **options))

    def watch_ticker(
        self, symbol: str, *, timeout: float | None = None, market: Market | None = None
    ) -> r.Ticker:
        """Wait for the next ticker of ``symbol``; TimeoutError after ``timeout`` seconds."""
        return self.tickers.next(symbol, timeout=timeout, market=market)

    def order_book(
        self,
        symbol: str,
        *,
        market: Market | None = None,
        timeout: float | None = 30,
        snapshot_interval: float = 60,
        max_silence: float | None = None,
        stale_ok: bool = False,
    ) -> LiveBook:
        """Return a live order book, in sync; for the arguments see :meth:`bridge.sdk.Client.order_book`."""
        book = self._loop.run(
            self._client.order_book(
                symbol,
                market=market,
                timeout=timeout,
                snapshot_interval=snapshot_interval,
                max_silence=max_silence,
                stale_ok=stale_ok,
            )
        )
        return LiveBook(book, self._loop)

    @overload
    def table(self, structure: Literal["order"], **options: Unpack[TableOptions]) -> OrderTable: ...
    @overload
    def table(self, structure: Literal["balance"], **options: Unpack[TableOptions]) -> Table[r.Balance]: ...
    @overload
    def table(self, structure: Literal["position"], **options: Unpack[TableOptions]) -> Table[r.Position]: ...
    @overload
    def table(self, structure: Literal["market"], **options: Unpack[TableOptions]) -> Table[r.Instrument]: ...
    @overload
    def table(self, structure: Literal["ticker"], **options: Unpack[TableOptions]) -> Table[r.Ticker]: ...
    @overload
    def table(self, structure: Literal["bid-ask"], **options: Unpack[TableOptions]) -> Table[r.BidAsk]: ...
    @overload
    def table(
        self, structure: Literal["mark-price"], **options: Unpack[TableOptions]
    ) -> Table[r.MarkPrice]: ...
    @overload
    def table(
        self, structure: Literal["funding-rate"], **options: Unpack[TableOptions]
    ) -> Table[r.FundingRate]: ...
    @overload
    def table(self, structure: str, **options: Unpack[TableOptions]) -> Table[Any]: ...

    def table(self, structure: str, **options: Unpack[TableOptions]) -> Table[Any]:
        """Return the current state of a structure; for the arguments see :meth:`bridge.sdk.Client.table`."""
        table = self._loop.run(self._client.table(structure, **options))
        return (
            OrderTable(table, self._loop) if isinstance(table, sdk.OrderTable) else Table(table, self._loop)
        )

    def close(self) -> None:
        """Stop every reading, end every book and every table, close the connections and end the thread."""
        self._loop.stop(self._client.aclose())

    def __enter__(self) -> Self:
        self._loop.start()
        self._loop.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(bootstrap_servers: str, *, environment: Environment, **options: Any) -> Client:
    """Return a client; use it with ``with``. For the arguments see :func:`bridge.sdk.connect`."""
    return Client(sdk.connect(bootstrap_servers, environment=environment, **options))


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bridge-sdk", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` there and wait for what it returns; Ctrl-C cancels it."""
        assert self._loop is not None, "use the client with `with`"
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def read(self, view: Callable[[], T]) -> T:
        """Return what ``view`` gives, called there between two steps."""

        async def call() -> T:
            return view()

        return self.run(call())

    def changed(
        self, watched: sdk.LiveBook | sdk.Table[Any], since: int | None, timeout: float | None
    ) -> int:
        """Wait there for a change; TimeoutError after ``timeout`` seconds."""

        async def wait() -> int:
            async with asyncio.timeout(timeout):
                return await watched.changed(since)

        return self.run(wait())

    def call(self, make: Any) -> Records[Any]:
        return Records(make(), self)

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Run ``last`` and end the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            last.close()
            return
        try:
            self.run(last)
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
