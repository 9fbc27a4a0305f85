"""The asynchronous client."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from bridge.errors import UsageError
from bridge.schema import structure as schema_of
from bridge.sdk import records as r
from bridge.sdk.book import LiveBook
from bridge.sdk.book_feed import Books
from bridge.sdk.book_followed import Wish
from bridge.sdk.names import names
from bridge.sdk.reading import Filter, GapMarker, Records, channels_of, decoder
from bridge.sdk.record import Record
from bridge.sdk.source import CaughtUp, Request
from bridge.sdk.table import OrderTable, Table
from bridge.sdk.table_feed import Tables
from bridge.sdk.times import milliseconds
from bridge.sdk.topics import check_market

if TYPE_CHECKING:
    from types import TracebackType

    from bridge.model import Market
    from bridge.sdk.names import Names
    from bridge.sdk.source import Reading, Source
    from bridge.sdk.table import TableOptions
    from bridge.sdk.times import When
    from bridge.sdk.topics import Topics

T = TypeVar("T", bound=Record)


class Structure(Generic[T]):
    """The records of one structure: call it to read them, ``client.trades("BTC/USDT", start="-15m")``."""

    def __init__(self, client: Client, structure: str, class_: type[T]) -> None:
        self._client, self._structure, self._class = client, structure, class_

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
    ) -> Records[T]: ...

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
    ) -> Records[T | CaughtUp | GapMarker]: ...

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
        markers: bool = False,
    ) -> Records[Any]:
        """Return an asynchronous iterator of records.

        Args:
            symbols: unified symbols (``BTC/USDT``: only the partitions that can hold them are read) or exchange
                symbols (``BTCUSDT``: all partitions are read; both spot and usdm may have it). None for all. Of
                balances and ledger entries: currency codes (``USDT``).
            start: from when on; None is live, from now. Without ``end`` history runs into live with no seam.
            end: up to when, exclusive; then the iteration ends. ``"now"`` is all that is there already.
            market: ``spot``, ``usdm`` or ``coinm`` only.
            channel: records of one channel only (``agg-trade``).
            account: names of accounts, of records that are of one; None for all.
            late: with ``end``: how long after it the topic is searched for records that were written late, as a
                gap's backfill is (``"1h"``); ``"all"`` searches to the topic's present end.
            markers: let :class:`CaughtUp` (history has met live) and :class:`GapMarker` come between records.

        Raises:
            UsageError: an argument can't be understood.
        """
        return self._client.records(
            self._structure,
            symbols,
            start=start,
            end=end,
            market=market,
            channel=channel,
            account=account,
            late=late,
            markers=markers,
        )

    async def next(
        self,
        symbol: str,
        *,
        timeout: float | None = None,
        market: Market | None = None,
        channel: str | None = None,
        account: Names = None,
    ) -> T:
        """Wait for the next record of ``symbol`` and return it.

        Raises:
            TimeoutError: none came within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                async with self(symbol, market=market, channel=channel, account=account) as records:
                    async for record in records:
                        return record
        except TimeoutError:
            raise TimeoutError(f"no {self._structure} of {symbol} came within {timeout:g} s") from None
        raise UsageError(f"the source ended before a {self._structure} of {symbol} came")


class Client:
    """Reads what one bridge environment publishes. Made by :func:`bridge.sdk.connect`.

    Args:
        source: where the records come from.
        topics: the topics of its environment.
    """

    def __init__(self, source: Source, topics: Topics) -> None:
        self._source, self._topics = source, topics
        self._decoder = decoder()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readings: set[Reading] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._books: Books | None = None
        self._tables: Tables | None = None

    @property
    def topics(self) -> Topics:
        """The topics it reads: their environment and namespace."""
        return self._topics

    @property
    def trades(self) -> Structure[r.Trade]:
        """Public trades and aggregate trades; ``channel="trade"`` or ``"agg-trade"`` tells them apart."""
        return Structure(self, "trade", r.Trade)

    @property
    def tickers(self) -> Structure[r.Ticker]:
        """Statistics of rolling windows."""
        return Structure(self, "ticker", r.Ticker)

    @property
    def ohlcv(self) -> Structure[r.Ohlcv]:
        """Candles, as they grow and when they close (``closed``); all timeframes."""
        return Structure(self, "ohlcv", r.Ohlcv)

    @property
    def order_books(self) -> Structure[r.OrderBook]:
        """Snapshots and deltas of order books, as published."""
        return Structure(self, "order-book", r.OrderBook)

    @property
    def bids_asks(self) -> Structure[r.BidAsk]:
        """Best bid and ask, at each change."""
        return Structure(self, "bid-ask", r.BidAsk)

    @property
    def mark_prices(self) -> Structure[r.MarkPrice]:
        """Mark and index prices."""
        return Structure(self, "mark-price", r.MarkPrice)

    @property
    def funding_rates(self) -> Structure[r.FundingRate]:
        """Funding rates of perpetual contracts."""
        return Structure(self, "funding-rate", r.FundingRate)

    @property
    def liquidations(self) -> Structure[r.Liquidation]:
        """Forced orders."""
        return Structure(self, "liquidation", r.Liquidation)

    @property
    def markets(self) -> Structure[r.Instrument]:
        """Instruments, at the bridge's start and at each change."""
        return Structure(self, "market", r.Instrument)

    @property
    def orders(self) -> Structure[r.Order]:
        """Own orders, at each event; the newest state of each is in ``table("order")``."""
        return Structure(self, "order", r.Order)

    @property
    def my_trades(self) -> Structure[r.MyTrade]:
        """Fills of own orders, each once."""
        return Structure(self, "my-trade", r.MyTrade)

    @property
    def balances(self) -> Structure[r.Balance]:
        """Own balances, at each change; the newest of each currency is in ``table("balance")``."""
        return Structure(self, "balance", r.Balance)

    @property
    def positions(self) -> Structure[r.Position]:
        """Own positions, at each change; the newest state of each is in ``table("position")``."""
        return Structure(self, "position", r.Position)

    @property
    def ledger(self) -> Structure[r.LedgerEntry]:
        """What came to own accounts and went from them other than by trades on spot."""
        return Structure(self, "ledger", r.LedgerEntry)

    @property
    def account_events(self) -> Structure[r.AccountEvent]:
        """What else the exchange tells of own accounts: order lists, margin calls, settings."""
        return Structure(self, "account-event", r.AccountEvent)

    @property
    def gaps(self) -> Structure[r.Gap]:
        """What is missing, and what became of it."""
        return Structure(self, "gap", r.Gap)

    def lifecycle(self, *, start: When | None = None, end: When | None = None) -> Records[r.Lifecycle]:
        """Return what happened to bridges and their connections."""
        return self.records("lifecycle", start=start, end=end)

    def dead_letters(self, *, start: When | None = None, end: When | None = None) -> Records[r.DeadLetter]:
        """Return what could not go on its way, with the reason."""
        return self.records("dead-letter", start=start, end=end)

    def raw(
        self,
        market: Market,
        channel: str,
        symbols: Names = None,
        *,
        start: When | None = None,
        end: When | None = None,
    ) -> Records[r.Raw]:
        """Return messages exactly as the exchange sent them.

        Args:
            market: ``spot``, ``usdm`` or ``coinm``.
            channel: the channel (``agg-trade``), or ``api`` for answers to requests.
            symbols: exchange symbols (``BTCUSDT``), or stream names where a stream has no symbol; None for all.
            start: as for :class:`Structure`.
            end: as for :class:`Structure`.
        """
        topic = self._topics.raw(market, channel)
        wanted = names(symbols, "symbols")
        unified = next((s for s in wanted or () if "/" in s), None)
        if unified is not None:
            raise UsageError(
                f"raw topics are keyed by exchange symbol; give that (BTCUSDT) instead of {unified!r}"
            )
        request = Request(
            topics=(topic,),
            keys=None if wanted is None else frozenset(s.encode() for s in wanted),
            start=start,
            end=end,
        )
        return self._records(request, Filter())

    def records(
        self,
        structure: str,
        symbols: Names = None,
        *,
        start: When | None = None,
        end: When | None = None,
        market: Market | None = None,
        channel: str | None = None,
        account: Names = None,
        late: str = "1h",
        markers: bool = False,
    ) -> Records[Any]:
        """Return records of any structure by its name (``trade``); for the arguments see :class:`Structure`.

        Raises:
            UsageError: no such structure, or an argument can't be understood.
        """
        topic, unified = self._topics.structure(structure), schema_of(structure).unified
        wanted, accounts = names(symbols, "symbols"), names(account, "account")
        if wanted is not None and structure == "lifecycle":
            raise UsageError("lifecycle records have no symbol; leave symbols out")
        _check_account(structure, accounts)
        if market is not None:
            check_market(market)
        gap_channels = (channels_of(structure) or None) if markers and unified else None
        request = Request(
            topics=(topic,) if gap_channels is None else (topic, self._topics.structure("gap")),
            keys=_keys(structure, wanted, accounts),
            start=start,
            end=end,
            late=None if late == "all" else milliseconds(f"+{late}", now=0, what="late"),
        )
        filter_ = Filter(
            symbols=wanted, market=market, channel=channel, accounts=accounts, gap_channels=gap_channels
        )
        return self._records(request, filter_, markers=markers)

    async def watch_trade(
        self, symbol: str, *, timeout: float | None = None, market: Market | None = None
    ) -> r.Trade:
        """Wait for the next trade of ``symbol``; TimeoutError after ``timeout`` seconds."""
        return await self.trades.next(symbol, timeout=timeout, market=market)

    async def watch_ticker(
        self, symbol: str, *, timeout: float | None = None, market: Market | None = None
    ) -> r.Ticker:
        """Wait for the next ticker of ``symbol``; TimeoutError after ``timeout`` seconds."""
        return await self.tickers.next(symbol, timeout=timeout, market=market)

    async def watch_bid_ask(
        self, symbol: str, *, timeout: float | None = None, market: Market | None = None
    ) -> r.BidAsk:
        """Wait for the next best bid and ask of ``symbol``; TimeoutError after ``timeout`` seconds."""
        return await self.bids_asks.next(symbol, timeout=timeout, market=market)

    async def watch_mark_price(
        self, symbol: str, *, timeout: float | None = None, market: Market | None = None
    ) -> r.MarkPrice:
        """Wait for the next mark price of ``symbol``; TimeoutError after ``timeout`` seconds."""
        return await self.mark_prices.next(symbol, timeout=timeout, market=market)

    async def order_book(
        self,
        symbol: str,
        *,
        market: Market | None = None,
        timeout: float | None = 30,
        snapshot_interval: float = 60,
        max_silence: float | None = None,
        stale_ok: bool = False,
    ) -> LiveBook:
        """Return a live order book, in sync, which is kept current in the background.

        It starts from the newest whole snapshot there is, or waits for the next one. Where the book can't be
        proven to be the exchange's any more it says so until the next snapshot; see :class:`LiveBook`.

        Args:
            symbol: unified symbol (``BTC/USDT``), or the exchange's own (``BTCUSDT``) together with ``market``.
            market: ``spot``, ``usdm`` or ``coinm``.
            timeout: seconds that it may take; None is without a limit.
            snapshot_interval: the bridge's ``snapshot_interval_seconds``: how far to look back at first.
            max_silence: seconds without any record after which the book is lost; None is without a limit, as a
                quiet symbol may have no change for hours.
            stale_ok: let levels be read while the book is not in sync.

        Raises:
            TimeoutError: it was not in sync in time; says what was found and what would help.
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
            UsageError: an argument can't be understood.
        """
        if not symbol:
            raise UsageError("symbol is empty; give one symbol")
        if market is not None:
            check_market(market)
        elif "/" not in symbol:
            raise UsageError(
                f"several markets may have {symbol!r}; add market, or give the unified symbol (BTC/USDT)"
            )
        for name, seconds in (("snapshot_interval", snapshot_interval), ("max_silence", max_silence)):
            if seconds is not None and seconds <= 0:
                raise UsageError(f"{name} is {seconds:g}; give seconds above 0")
        if self._books is None:
            self._books = Books(self._source, self._topics, self._decoder)
        wish = Wish(snapshot_interval, timeout, max_silence)
        followed = await self._books.follow(symbol, market, wish)
        return LiveBook(followed, stale_ok=stale_ok)

    @overload
    async def table(self, structure: Literal["order"], **options: Unpack[TableOptions]) -> OrderTable: ...
    @overload
    async def table(
        self, structure: Literal["balance"], **options: Unpack[TableOptions]
    ) -> Table[r.Balance]: ...
    @overload
    async def table(
        self, structure: Literal["position"], **options: Unpack[TableOptions]
    ) -> Table[r.Position]: ...
    @overload
    async def table(
        self, structure: Literal["market"], **options: Unpack[TableOptions]
    ) -> Table[r.Instrument]: ...
    @overload
    async def table(
        self, structure: Literal["ticker"], **options: Unpack[TableOptions]
    ) -> Table[r.Ticker]: ...
    @overload
    async def table(
        self, structure: Literal["bid-ask"], **options: Unpack[TableOptions]
    ) -> Table[r.BidAsk]: ...
    @overload
    async def table(
        self, structure: Literal["mark-price"], **options: Unpack[TableOptions]
    ) -> Table[r.MarkPrice]: ...
    @overload
    async def table(
        self, structure: Literal["funding-rate"], **options: Unpack[TableOptions]
    ) -> Table[r.FundingRate]: ...
    @overload
    async def table(self, structure: str, **options: Unpack[TableOptions]) -> Table[Any]: ...

    async def table(
        self,
        structure: str,
        *,
        account: Names = None,
        market: Market | None = None,
        timeout: float | None = 30,
        stale_ok: bool = False,
    ) -> Table[Any]:
        """Return the current state of a structure, which is kept current in the background.

        It has the newest record of each identity: of each order, of each currency's balance, of each position, of
        each symbol's ticker. The compacted topic ``state.<structure>`` is read to its present end first.

        Args:
            structure: ``order``, ``balance``, ``position``, ``ticker``, ``bid-ask``, ``mark-price``,
                ``funding-rate`` or ``market``.
            account: names of accounts, of records that are of one; None for all.
            market: ``spot``, ``usdm`` or ``coinm`` only.
            timeout: seconds that loading may take; None is without a limit.
            stale_ok: let rows be read while the table is not kept current.

        Raises:
            TimeoutError: the topic was not read to its end in time.
            TopicMismatch: the topic does not exist.
            KafkaUnavailable: no broker answers.
            UsageError: an argument can't be understood.
        """
        accounts = names(account, "account")
        self._topics.state(structure)
        _check_account(structure, accounts)
        if market is not None:
            check_market(market)
        if self._tables is None:
            self._tables = Tables(self._source, self._topics, self._decoder)
        tables = self._tables
        feed = await tables.load(structure, Filter(market=market, accounts=accounts), timeout)
        return (OrderTable if structure == "order" else Table)(feed, tables, stale_ok=stale_ok)

    def _records(self, request: Request, filter_: Filter, *, markers: bool = False) -> Records[Any]:
        for name, when in (("start", request.start), ("end", request.end)):
            if when is not None:
                milliseconds(when, now=0, what=name)
        reading = self._source.read(request)
        records: Records[Any] = Records(reading, self._decoder, filter_, markers=markers)
        self._readings.add(reading)
        weakref.finalize(records, self._abandon, reading).atexit = False
        return records

    def _abandon(self, reading: Reading) -> None:
        """Close ``reading``, whose iterator nobody holds any more."""
        if self._loop is not None and not self._loop.is_closed() and reading in self._readings:
            self._loop.call_soon_threadsafe(self._close_soon, reading)

    def _close_soon(self, reading: Reading) -> None:
        self._readings.discard(reading)
        task = asyncio.ensure_future(reading.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Stop every reading, end every book and every table, and close the connections."""
        if self._books is not None:
            await self._books.aclose()
            self._books = None
        if self._tables is not None:
            await self._tables.aclose()
            self._tables = None
        while self._readings:
            await self._readings.pop().close()
        await asyncio.gather(*self._closing)
        await self._source.close()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _check_account(structure: str, accounts: frozenset[str] | None) -> None:
    if accounts is not None and all(field.name != "account" for field in schema_of(structure).fields):
        raise UsageError(f"{structure} records are of no account; leave account out")


def _keys(
    structure: str, symbols: frozenset[str] | None, accounts: frozenset[str] | None
) -> frozenset[bytes] | None:
    """Return the keys that the wanted records have; None where they can't be told.

    Raises:
        UsageError: what is keyed by currency code was asked for by symbol.
    """
    keyed = accounts if structure == "account-event" else symbols
    if structure in {"balance", "ledger"}:
        symbol = next((name for name in symbols or () if "/" in name), None)
        if symbol is not None:
            raise UsageError(
                f"{structure} records are of a currency; give its code (USDT) instead of {symbol!r}"
            )
    elif structure != "account-event":
        by_symbol = schema_of(structure).unified or structure == "gap"
        if not by_symbol or not all("/" in name for name in symbols or ()):
            return None
    return None if keyed is None else frozenset(name.encode() for name in keyed)
