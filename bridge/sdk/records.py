"""The record class of each structure.

Written by ``python -m bridge.sdk.generate`` from ``avro/``: change it there.
"""

# ruff: noqa: N815, TC003 - names are those of avro/; typing.get_type_hints finds Decimal here

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import msgspec

from bridge.sdk import shapes
from bridge.sdk.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.sdk.shapes import Number

Market: TypeAlias = Literal["spot", "usdm", "coinm"]
Origin: TypeAlias = Literal["live", "backfill", "snapshot", "replay"]
GapStatus: TypeAlias = Literal["open", "filled", "unrecoverable"]
Reason: TypeAlias = Literal["parse", "unify", "unknown", "publish"]
Environment: TypeAlias = Literal["prod", "demo", "testnet"]
Side: TypeAlias = Literal["buy", "sell"]
PriceType: TypeAlias = Literal["trade", "mark", "index"]
BookType: TypeAlias = Literal["snapshot", "delta"]
Kind: TypeAlias = Literal["stream", "wsApi", "rest", "archive"]


class Envelope(Record, frozen=True, gc=False):
    """What every unified record begins with.

    Attributes:
        symbol: Unified (CCXT) symbol, such as BTC/USDT or BTC/USDT:USDT; the exchange's own where the
            instrument is not known yet. The record's key.
        market: Where it was traded: spot, usdm (USDⓈ-M futures) or coinm (COIN-M futures).
        exchangeSymbol: The exchange's own symbol, such as BTCUSDT.
        channel: Raw channel the record was derived from, such as agg-trade.
        origin: live: from a stream as it came; backfill: fetched later to fill a gap; snapshot: the state
            when asked; replay: derived again from raw.
        writerEpoch: Grows with every take-over of a shard: a reader can drop a zombie's late records. 0
            without sharding.
        connectionId: Connection the message came on; shown as hexadecimal. With connectionSequence the
            way back to the raw record.
        connectionSequence: Number of the message on its connection, counting every message from 0.
        receivedAt: When the message reached the bridge. Microseconds.
        sequence: The exchange's own id of the event in its stream; null where it has none.
    """

    symbol: str
    market: Market
    exchangeSymbol: str
    channel: str
    origin: Origin
    writerEpoch: int
    connectionId: int
    connectionSequence: int
    receivedAt: int
    sequence: int | None


class BidAsk(Envelope, frozen=True, gc=False):
    """Best bid and ask, each time either changes.

    CCXT structure Ticker of watchBidsAsks.

    Attributes:
        timestamp: Event time (E); null on spot, whose message has no time. Microseconds.
        bid: Best bid (b); null when zero.
        bidVolume: Quantity at the best bid (B); coinm: contracts.
        ask: Best ask (a); null when zero.
        askVolume: Quantity at the best ask (A); coinm: contracts.
        transactionTime: Matching time (T); futures only. Microseconds.
    """

    structure: ClassVar[str] = "bid-ask"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int | None
    bid: Decimal | None
    bidVolume: Decimal | None
    ask: Decimal | None
    askVolume: Decimal | None
    transactionTime: int | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.bid_ask`."""
        return shapes.bid_ask(self, number)


class CoverageRange(msgspec.Struct, frozen=True, gc=False):
    """Part ``CoverageRange`` of a record.

    Attributes:
        first: First position.
        last: Last position, inclusive.
    """

    first: int
    last: int


class CoverageGap(msgspec.Struct, frozen=True, gc=False):
    """Part ``CoverageGap`` of a record.

    Attributes:
        first: First position.
        last: Last position, inclusive.
        status: As the newest gap record says.
        gap: id of the gap record.
        cause: As in the gap record.
        reason: Why it is unrecoverable.
        detectedAt: receivedAt of the message that showed it. Microseconds.
        recovered: How many events were recovered.
        source: Where from.
        writerEpoch: Of the gap record.
    """

    first: int
    last: int
    status: GapStatus
    gap: str
    cause: str
    reason: str | None
    detectedAt: int
    recovered: int
    source: str | None
    writerEpoch: int


class Coverage(Record, frozen=True, gc=False):
    """The ledger of one stream.

    What of it is published and what is not. From since to last, ranges and the gaps that are not filled make
    up everything, without overlap; what lies before since is in the totals. Positions are ids where by is
    sequence, milliseconds from a candle's open to its close (both included) where it is candle, microseconds
    of receipt where it is time. Key: market, stream and exchange symbol with : between them
    (spot:btcusdt@trade:BTCUSDT); the symbol is empty where the stream has none.

    Attributes:
        market: The market.
        channel: Raw channel.
        stream: Stream name.
        exchangeSymbol: The exchange's symbol; null where the stream has none.
        symbol: Unified symbol; the stream name where it has none.
        by: What positions are: sequence, candle or time.
        series: How often the exchange began to count anew; all positions are of the newest series.
        beganAt: receivedAt of the first message of the series; 0 where it is not known. Microseconds.
        first: Position where coverage of the series begins.
        since: Position from which on ranges and gaps are told one by one.
        last: Position that it reaches to; first - 1 while nothing is published.
        ranges: What is published from since to last, in order.
        gaps: All that are open, and the newest of the others, in order of position.
        published: How many positions from first to last are published.
        open: How many positions are missing and may yet be filled.
        unrecoverable: How many positions are missing for good.
        gapsFilled: How many gaps, or parts of one, were filled.
        gapsUnrecoverable: How many gaps, or parts of one, are unrecoverable.
        recovered: How many events were recovered.
        earlierMissing: How many positions earlier series lack.
        writerEpoch: See ``avro/``.
        updatedAt: When the record was made. Microseconds.
    """

    structure: ClassVar[str] = "coverage"
    time_field: ClassVar[str] = "updatedAt"

    market: Market
    channel: str
    stream: str
    exchangeSymbol: str | None
    symbol: str
    by: str
    series: int
    beganAt: int
    first: int
    since: int
    last: int
    ranges: tuple[CoverageRange, ...]
    gaps: tuple[CoverageGap, ...]
    published: int
    open: int
    unrecoverable: int
    gapsFilled: int
    gapsUnrecoverable: int
    recovered: int
    earlierMissing: int
    writerEpoch: int
    updatedAt: int


class DeadLetter(Record, frozen=True, gc=False):
    """A message or record that could not go on its way, with the reason.

    The raw record is kept all the same. Key: the key of the failed record.

    Attributes:
        at: When it failed: receivedAt of a message. Microseconds.
        reason: parse: not what the stream promises; unify: a value does not fit the record; unknown: no
            such stream in the catalogue; publish: Kafka refused the record.
        error: What is wrong and where.
        topic: Topic the record was meant for.
        market: The market.
        channel: Raw channel.
        stream: Stream name.
        symbol: Exchange symbol.
        connectionId: See ``avro/``.
        connectionSequence: See ``avro/``.
        writerEpoch: See ``avro/``.
        payload: The failed bytes: the message as received, or the record's value.
    """

    structure: ClassVar[str] = "dead-letter"
    time_field: ClassVar[str] = "at"

    at: int
    reason: Reason
    error: str
    topic: str
    market: Market | None
    channel: str | None
    stream: str | None
    symbol: str | None
    connectionId: int | None
    connectionSequence: int | None
    writerEpoch: int
    payload: bytes


class FundingRate(Envelope, frozen=True, gc=False):
    """Funding rate of a perpetual contract, as it stands.

    CCXT structure FundingRate.

    Attributes:
        timestamp: Event time (E). Microseconds.
        fundingRate: Rate of the current period (r).
        fundingTimestamp: Next funding time (T); null when none. Microseconds.
        markPrice: Mark price (p).
        indexPrice: Index price (i).
        interestRate: Not in the stream: null.
        estimatedSettlePrice: Estimated settlement price (P).
        nextFundingRate: Not in the stream: null.
        nextFundingTimestamp: Not in the stream: null. Microseconds.
        previousFundingRate: Not in the stream: null.
        previousFundingTimestamp: Not in the stream: null. Microseconds.
        interval: Funding interval; not in the stream: null.
    """

    structure: ClassVar[str] = "funding-rate"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    fundingRate: Decimal | None
    fundingTimestamp: int | None
    markPrice: Decimal | None
    indexPrice: Decimal | None
    interestRate: Decimal | None
    estimatedSettlePrice: Decimal | None
    nextFundingRate: Decimal | None
    nextFundingTimestamp: int | None
    previousFundingRate: Decimal | None
    previousFundingTimestamp: int | None
    interval: str | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.funding_rate`."""
        return shapes.funding_rate(self, number)


class Gap(Record, frozen=True, gc=False):
    """A stretch of a stream that is missing.

    Of the newest records of each id, exactly one names each missing event: a later record with the same id
    replaces the earlier, and may cover less where parts of a stretch fare differently.

    Attributes:
        id: Identity of the gap: market, stream and first missing id or time.
        symbol: Unified symbol; the record's key.
        market: The market.
        exchangeSymbol: The exchange's symbol.
        channel: Raw channel.
        stream: Stream name.
        firstSequence: First missing id, inclusive; null where the stream has no ids.
        lastSequence: Last missing id, inclusive.
        startTime: Start of the stretch where it is known by time only. Microseconds.
        endTime: End of the stretch. Microseconds.
        detectedAt: receivedAt of the message that showed it. Microseconds.
        cause: sequence: ids are missing; disconnected, overflow, restart: no connection delivered the
            stream in the stretch; dead-letter: it came but made no record.
        status: open until it is filled or known to be unrecoverable; unrecoverable at once where the
            exchange keeps no history.
        recovered: How many events were recovered.
        source: Where from: path of the endpoint.
        connectionId: Connection that showed it.
        connectionSequence: Message that showed it.
        writerEpoch: See ``avro/``.
        reason: Why it is unrecoverable.
    """

    structure: ClassVar[str] = "gap"
    time_field: ClassVar[str] = "detectedAt"

    id: str
    symbol: str
    market: Market
    exchangeSymbol: str | None
    channel: str
    stream: str
    firstSequence: int | None
    lastSequence: int | None
    startTime: int | None
    endTime: int | None
    detectedAt: int
    cause: str
    status: GapStatus
    recovered: int
    source: str | None
    connectionId: int | None
    connectionSequence: int | None
    writerEpoch: int
    reason: str | None


class Lifecycle(Record, frozen=True, gc=False):
    """Something that happened to the bridge, a shard, a connection or a request.

    Topic binance.<env>.lifecycle; key: connection id, else bridge instance.

    Attributes:
        event: What happened, such as connection.started; docs/reference/lifecycle.md lists them.
        at: When it happened. Microseconds.
        instance: Bridge instance.
        version: Bridge version.
        environment: See ``avro/``.
        connectionId: The connection concerned; shown as hexadecimal.
        market: Its market.
        streams: Stream names concerned; of a private connection its accounts.
        attempt: Which attempt in a row, from 1.
        code: WebSocket close code or HTTP status.
        reason: Why, in words.
        nextRetryAt: When the next attempt is due. Microseconds.
        messages: Messages received on the connection so far.
        lastSequence: connectionSequence of the last message; of book.synced and book.resync the book's
            last update id.
        shard: The shard concerned.
        requestId: The request concerned.
        account: The account concerned, by its name in the configuration.
    """

    structure: ClassVar[str] = "lifecycle"
    time_field: ClassVar[str] = "at"

    event: str
    at: int
    instance: str
    version: str
    environment: Environment
    connectionId: int | None
    market: Market | None
    streams: tuple[str, ...]
    attempt: int | None
    code: int | None
    reason: str | None
    nextRetryAt: int | None
    messages: int | None
    lastSequence: int | None
    shard: int | None
    requestId: str | None
    account: str | None


class Liquidation(Envelope, frozen=True, gc=False):
    """A forced order.

    A sample, not a log: the exchange sends at most one a second and symbol. CCXT structure Liquidation.

    Attributes:
        timestamp: Order trade time (o.T). Microseconds.
        side: Side of the liquidation order: sell closes a long.
        contracts: Quantity filled in all (o.z).
        contractSize: Contract size of the instrument.
        price: Average fill price (o.ap).
        baseValue: contracts × contractSize; inverse: contracts × contractSize / price. Truncated at 18
            decimals.
        quoteValue: contracts × contractSize × price; inverse: contracts × contractSize. Truncated at 18
            decimals.
        eventTime: Event time (E): when the exchange sent it. Null where the message has none.
            Microseconds.
        orderPrice: Price of the order (o.p).
        originalAmount: Quantity of the order (o.q).
        lastAmount: Quantity of the last fill (o.l).
        orderType: Order type (o.o).
        timeInForce: Time in force (o.f).
        status: Order status (o.X).
    """

    structure: ClassVar[str] = "liquidation"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    side: Side
    contracts: Decimal | None
    contractSize: Decimal | None
    price: Decimal
    baseValue: Decimal | None
    quoteValue: Decimal | None
    eventTime: int | None
    orderPrice: Decimal
    originalAmount: Decimal
    lastAmount: Decimal
    orderType: str
    timeInForce: str
    status: str

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.liquidation`."""
        return shapes.liquidation(self, number)


class MarkPrice(Envelope, frozen=True, gc=False):
    """Mark and index price.

    CCXT's ticker of watchMarkPrice.

    Attributes:
        timestamp: Event time (E). Microseconds.
        markPrice: Mark price (p); null on index-only channels.
        indexPrice: Index price (i).
        estimatedSettlePrice: Estimated settlement price (P); means something in the last hour before
            settlement.
        averageMarkPrice: Moving average of the mark price (ap).
    """

    structure: ClassVar[str] = "mark-price"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    markPrice: Decimal | None
    indexPrice: Decimal | None
    estimatedSettlePrice: Decimal | None
    averageMarkPrice: Decimal | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.mark_price`."""
        return shapes.mark_price(self, number)


class Precision(msgspec.Struct, frozen=True, gc=False):
    """Part ``Precision`` of a record.

    Attributes:
        amount: Step size.
        price: Tick size.
        base: Smallest unit of the base asset.
        quote: Smallest unit of the quote asset.
    """

    amount: Decimal | None
    price: Decimal | None
    base: Decimal | None
    quote: Decimal | None


class Range(msgspec.Struct, frozen=True, gc=False):
    """Part ``Range`` of a record.

    Attributes:
        min: Smallest.
        max: Largest.
    """

    min: Decimal | None
    max: Decimal | None


class Limits(msgspec.Struct, frozen=True, gc=False):
    """Part ``Limits`` of a record.

    Attributes:
        amount: LOT_SIZE.
        price: PRICE_FILTER.
        cost: NOTIONAL or MIN_NOTIONAL.
        leverage: Always null.
        market: MARKET_LOT_SIZE.
    """

    amount: Range
    price: Range
    cost: Range
    leverage: Range
    market: Range


class Instrument(Envelope, frozen=True, gc=False):
    """An instrument, from exchangeInfo.

    Published at start and whenever it changes. CCXT structure Market.

    Attributes:
        timestamp: When the exchange answered. Microseconds.
        id: Exchange symbol.
        lowercaseId: Exchange symbol as in stream names.
        base: Unified base currency.
        quote: Unified quote currency.
        settle: Unified settlement currency; contracts only.
        baseId: The exchange's base asset.
        quoteId: The exchange's quote asset.
        settleId: The exchange's margin asset; contracts only.
        type: spot, swap or future.
        subType: linear or inverse; contracts only.
        spot: See ``avro/``.
        margin: Whether margin trading is allowed.
        swap: See ``avro/``.
        future: See ``avro/``.
        option: See ``avro/``.
        index: Always false: an index is not traded.
        active: Whether the instrument trades now.
        contract: See ``avro/``.
        linear: See ``avro/``.
        inverse: See ``avro/``.
        contractSize: Quote currency (coinm) or base units (usdm: 1) of one contract.
        expiry: Delivery time of dated contracts. Microseconds.
        strike: Options only: null.
        optionType: Options only: null.
        taker: CCXT's default taker fee of the market.
        maker: CCXT's default maker fee of the market.
        percentage: Fees are a share of the cost.
        tierBased: See ``avro/``.
        feeSide: See ``avro/``.
        precision: Tick mode: the smallest steps.
        limits: See ``avro/``.
        created: onboardDate. Microseconds.
        status: The exchange's own status.
        contractType: The exchange's own contract type.
        pair: The exchange's pair of a contract.
    """

    structure: ClassVar[str] = "market"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    id: str
    lowercaseId: str
    base: str
    quote: str
    settle: str | None
    baseId: str
    quoteId: str
    settleId: str | None
    type: str
    subType: str | None
    spot: bool
    margin: bool | None
    swap: bool
    future: bool
    option: bool
    index: bool | None
    active: bool
    contract: bool
    linear: bool | None
    inverse: bool | None
    contractSize: Decimal | None
    expiry: int | None
    strike: Decimal | None
    optionType: str | None
    taker: Decimal | None
    maker: Decimal | None
    percentage: bool
    tierBased: bool
    feeSide: str | None
    precision: Precision
    limits: Limits
    created: int | None
    status: str | None
    contractType: str | None
    pair: str | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.instrument`."""
        return shapes.instrument(self, number)


class Ohlcv(Envelope, frozen=True, gc=False):
    """A candle, as it grows and when it is closed.

    CCXT structure OHLCV.

    Attributes:
        timestamp: Open time of the candle (k.t). Microseconds.
        timeframe: Interval (k.i), such as 1m; 1M is a month.
        open: First price.
        high: Highest price.
        low: Lowest price.
        close: Last price.
        volume: k.v: base currency; on coinm contracts.
        eventTime: Event time (E): when the exchange sent it. Null where the message has none.
            Microseconds.
        closed: True once: the candle will not change again (k.x).
        closeTime: Inclusive end of the candle (k.T). Microseconds.
        baseVolume: Volume in base currency, on every market (coinm: k.q).
        quoteVolume: Volume in quote currency (k.q); null on coinm.
        contracts: Volume in contracts; coinm only.
        trades: Number of trades; on index and mark price candles the number of samples.
        takerBuyBaseVolume: Base volume bought by takers (k.V; coinm: k.Q).
        takerBuyQuoteVolume: Quote volume bought by takers (k.Q); null on coinm.
        firstTradeId: First trade (k.f); null without trades and on index and mark price candles.
        lastTradeId: Last trade (k.L); null without trades and on index and mark price candles.
        priceType: What the prices are of.
        contractType: Contract type of continuous candles, such as PERPETUAL.
        timeZone: Offset of the candle's boundaries where not UTC, such as +08:00.
    """

    structure: ClassVar[str] = "ohlcv"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    timeframe: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    eventTime: int | None
    closed: bool
    closeTime: int
    baseVolume: Decimal | None
    quoteVolume: Decimal | None
    contracts: Decimal | None
    trades: int
    takerBuyBaseVolume: Decimal | None
    takerBuyQuoteVolume: Decimal | None
    firstTradeId: int | None
    lastTradeId: int | None
    priceType: PriceType
    contractType: str | None
    timeZone: str | None

    def as_ccxt(self, number: Number = float) -> list[Any]:
        """Return CCXT's list; see :func:`bridge.sdk.shapes.ohlcv`."""
        return shapes.ohlcv(self, number)


class Level(NamedTuple):
    """Part ``Level`` of a record.

    Attributes:
        price: Price.
        amount: Absolute quantity at the price; 0 removes the level.
    """

    price: Decimal
    amount: Decimal


class OrderBook(Envelope, frozen=True, gc=False):
    """An order book, or a change of one.

    From any snapshot on, applying the deltas in order gives the exchange's book.

    Attributes:
        timestamp: Event time (E) of the message; null on spot partial depth, which has none.
            Microseconds.
        type: snapshot: the whole book to its depth; delta: levels that changed.
        bids: Bids; best first in a snapshot.
        asks: Asks; best first in a snapshot.
        firstSequence: First update id of the change (U).
        previousSequence: Last update id of the change before, on futures (pu).
        depth: Levels a side where the snapshot is limited (partial depth); null for the full book.
        transactionTime: Transaction time (T); futures only. Microseconds.
    """

    structure: ClassVar[str] = "order-book"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int | None
    type: BookType
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    firstSequence: int | None
    previousSequence: int | None
    depth: int | None
    transactionTime: int | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.order_book`."""
        return shapes.order_book(self, number)


class Raw(Record, frozen=True, gc=False):
    """One message exactly as received.

    Topic binance.<env>.raw.<market>.<channel>; key: the exchange symbol, or the stream name where a stream
    has no symbol.

    Attributes:
        environment: Which Binance: prod, demo or testnet.
        market: The market of the connection.
        channel: The channel, such as agg-trade; unknown where the stream is not in the catalogue; control
            for answers to SUBSCRIBE and its kin.
        stream: Stream name as subscribed (btcusdt@aggTrade); for REST and the WebSocket API the endpoint,
            without any signature.
        symbol: The exchange symbol, where the stream has one.
        connectionId: Connection the message came on, a random 63-bit number; shown as hexadecimal.
        writerEpoch: Grows with every take-over of a shard. 0 without sharding.
        kind: How it came.
        connectionSequence: Number of the message on its connection, counting every message from 0.
        receivedAt: When the message reached the bridge. All messages of one wake-up of the event loop
            carry one time. Microseconds.
        eventTime: Event time of the message, where it has one and could be parsed. Microseconds.
        payload: The bytes exactly as received, never re-serialised.
    """

    structure: ClassVar[str] = "raw"
    time_field: ClassVar[str] = "receivedAt"

    environment: Environment
    market: Market
    channel: str
    stream: str
    symbol: str | None
    connectionId: int
    writerEpoch: int
    kind: Kind
    connectionSequence: int
    receivedAt: int
    eventTime: int | None
    payload: bytes


class Ticker(Envelope, frozen=True, gc=False):
    """Statistics of a rolling window.

    CCXT structure Ticker.

    Attributes:
        timestamp: End of the window (C); event time (E) where there is none. Microseconds.
        high: Highest price (h); null when zero.
        low: Lowest price (l); null when zero.
        bid: Best bid (b); spot full ticker only.
        bidVolume: Quantity at the best bid (B).
        ask: Best ask (a); spot full ticker only.
        askVolume: Quantity at the best ask (A).
        vwap: Volume-weighted average price (w); else quoteVolume / baseVolume, truncated at 18 decimals.
        open: First price (o); null when zero.
        close: Last price (c); null when zero.
        last: Same as close.
        previousClose: Price of the trade before the window (x); spot full ticker only.
        change: Price change (p); else close - open.
        percentage: Price change in percent (P); else change / open × 100, truncated at 18 decimals.
        average: (open + close) / 2, truncated to the decimals of the tick size.
        baseVolume: Volume in base currency (v; inverse: q).
        quoteVolume: Volume in quote currency (q; inverse: contracts × contract size).
        markPrice: Always null here: see mark-price.
        indexPrice: Always null here: see mark-price.
        eventTime: Event time (E): when the exchange sent it. Null where the message has none.
            Microseconds.
        window: Length of the window: 24h, 1h, 4h, 1d.
        windowOpenTime: Start of the window (O). Microseconds.
        windowCloseTime: End of the window (C). Microseconds.
        firstTradeId: First trade of the window (F); null when there was none.
        lastTradeId: Last trade of the window (L); null when there was none.
        trades: Number of trades in the window (n).
        lastAmount: Quantity of the last trade (Q).
        contracts: Volume in contracts (v); coinm only.
    """

    structure: ClassVar[str] = "ticker"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    high: Decimal | None
    low: Decimal | None
    bid: Decimal | None
    bidVolume: Decimal | None
    ask: Decimal | None
    askVolume: Decimal | None
    vwap: Decimal | None
    open: Decimal | None
    close: Decimal | None
    last: Decimal | None
    previousClose: Decimal | None
    change: Decimal | None
    percentage: Decimal | None
    average: Decimal | None
    baseVolume: Decimal | None
    quoteVolume: Decimal | None
    markPrice: Decimal | None
    indexPrice: Decimal | None
    eventTime: int | None
    window: str
    windowOpenTime: int | None
    windowCloseTime: int | None
    firstTradeId: int | None
    lastTradeId: int | None
    trades: int | None
    lastAmount: Decimal | None
    contracts: Decimal | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.ticker`."""
        return shapes.ticker(self, number)


class Fee(msgspec.Struct, frozen=True, gc=False):
    """Part ``Fee`` of a record.

    Attributes:
        currency: Currency of the fee.
        cost: Amount; negative is a rebate.
        rate: Rate.
    """

    currency: str | None
    cost: Decimal | None
    rate: Decimal | None


class Trade(Envelope, frozen=True, gc=False):
    """A public trade, or an aggregate trade (fills of one taker order at one price), by channel.

    CCXT structure Trade.

    Attributes:
        timestamp: Trade time (T). Microseconds.
        id: Trade id (t), aggregate trade id (a) or block trade id (t), by channel.
        order: Always null on public trades.
        type: Always null on public trades.
        side: Side of the taker: m true means the buyer was the maker, so the taker sold.
        takerOrMaker: Always null on public trades.
        price: Price (p).
        amount: Quantity (q): base currency; on coinm contracts.
        cost: Spot and linear: price × amount. Inverse: amount × contractSize / price, in base currency.
            Truncated at 18 decimals; null where price is zero or the contract size is not known.
        fee: Always of nulls on public trades, as in CCXT.
        fees: Always empty on public trades.
        eventTime: Event time (E): when the exchange sent it. Null where the message has none.
            Microseconds.
        firstTradeId: First trade merged (f); aggregate trades only.
        lastTradeId: Last trade merged (l); aggregate trades only.
        amountExcludingRpi: Quantity without retail-price-improvement orders (nq); usdm aggregate trades
            only.
    """

    structure: ClassVar[str] = "trade"
    time_field: ClassVar[str] = "timestamp"

    timestamp: int
    id: str | None
    order: str | None
    type: str | None
    side: Side | None
    takerOrMaker: str | None
    price: Decimal
    amount: Decimal
    cost: Decimal | None
    fee: Fee | None
    fees: tuple[Fee, ...]
    eventTime: int | None
    firstTradeId: int | None
    lastTradeId: int | None
    amountExcludingRpi: Decimal | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.trade`."""
        return shapes.trade(self, number)


CLASSES: dict[str, type[Record]] = {
    "bid-ask": BidAsk,
    "coverage": Coverage,
    "dead-letter": DeadLetter,
    "funding-rate": FundingRate,
    "gap": Gap,
    "lifecycle": Lifecycle,
    "liquidation": Liquidation,
    "mark-price": MarkPrice,
    "market": Instrument,
    "ohlcv": Ohlcv,
    "order-book": OrderBook,
    "raw": Raw,
    "ticker": Ticker,
    "trade": Trade,
}
"""The class of each structure."""

TYPES: dict[str, Callable[..., Any]] = {
    "BidAsk": BidAsk,
    "Coverage": Coverage,
    "CoverageGap": CoverageGap,
    "CoverageRange": CoverageRange,
    "DeadLetter": DeadLetter,
    "Fee": Fee,
    "FundingRate": FundingRate,
    "Gap": Gap,
    "Instrument": Instrument,
    "Level": Level,
    "Lifecycle": Lifecycle,
    "Limits": Limits,
    "Liquidation": Liquidation,
    "MarkPrice": MarkPrice,
    "Ohlcv": Ohlcv,
    "OrderBook": OrderBook,
    "Precision": Precision,
    "Range": Range,
    "Raw": Raw,
    "Ticker": Ticker,
    "Trade": Trade,
}
"""Every class by the name of its Avro record, for :class:`bridge.core.wire.Decoder`."""
