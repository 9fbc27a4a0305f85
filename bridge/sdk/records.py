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


class OrderListLeg(msgspec.Struct, frozen=True, gc=False):
    """Part ``OrderListLeg`` of a record.

    Attributes:
        id: Order id.
        clientOrderId: Client order id.
    """

    id: str
    clientOrderId: str


class AccountEvent(Envelope, frozen=True, gc=False):
    """What else the exchange tells of an account.

    Order lists, locks, margin calls, settings, trading bots, and ends of its event stream. CCXT has no such
    structure. Key: the account.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: Event time (E). Microseconds.
        event: order-list, external-lock, stream-terminated, listen-key-expired, margin-call, leverage,
            multi-assets-mode, trigger-rejected, strategy or grid.
        exchangeEvent: The exchange's name of the event (e).
        transactionTime: Transaction time (T, ut). Microseconds.
        reason: Reason, where the event gives one (r).
        status: Status: of an order list (L), of a strategy (ss).
        currency: Currency code of an external lock.
        amount: Quantity: of an external lock (d; negative unlocks), of the position of a margin call (pa,
            signed).
        orderListId: Order list (g).
        contingencyType: Contingency of an order list (c): OCO, OTO.
        listStatusType: What happened to an order list (l): EXEC_STARTED, UPDATED, ALL_DONE, RESPONSE.
        listClientOrderId: Client id of an order list (C).
        orders: Legs of an order list (O).
        orderId: Order whose trigger was rejected (i).
        leverage: New leverage of the symbol (l).
        multiAssetsMargin: Margin in several assets is on (j).
        positionSide: Position of a margin call (ps): BOTH, LONG or SHORT.
        marginMode: Its margin mode (mt): cross or isolated.
        markPrice: Its mark price (mp).
        unrealizedPnl: Its unrealized profit (up).
        maintenanceMargin: Maintenance margin it needs (mm).
        isolatedWallet: Its isolated wallet (iw). Null when zero.
        crossWalletBalance: Cross wallet balance (cw) of a margin call.
        strategyId: Trading bot (si).
        strategyType: Its type (st), such as GRID.
        strategyCode: Why it changed (c): a code of 8001 to 8015.
        realizedPnl: Realized profit of a grid (r).
        unmatchedAverage: Average price of a grid's unmatched quantity (up).
        unmatchedAmount: A grid's unmatched quantity (uq).
        unmatchedFee: Its commission (uf).
        matchedPnl: Profit of a grid's matched quantity (mp).
    """

    structure: ClassVar[str] = "account-event"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int
    event: str
    exchangeEvent: str
    transactionTime: int | None
    reason: str | None
    status: str | None
    currency: str | None
    amount: Decimal | None
    orderListId: int | None
    contingencyType: str | None
    listStatusType: str | None
    listClientOrderId: str | None
    orders: tuple[OrderListLeg, ...]
    orderId: str | None
    leverage: int | None
    multiAssetsMargin: bool | None
    positionSide: str | None
    marginMode: str | None
    markPrice: Decimal | None
    unrealizedPnl: Decimal | None
    maintenanceMargin: Decimal | None
    isolatedWallet: Decimal | None
    crossWalletBalance: Decimal | None
    strategyId: int | None
    strategyType: str | None
    strategyCode: int | None
    realizedPnl: Decimal | None
    unmatchedAverage: Decimal | None
    unmatchedAmount: Decimal | None
    unmatchedFee: Decimal | None
    matchedPnl: Decimal | None


class Balance(Envelope, frozen=True, gc=False):
    """What an account has of one currency.

    CCXT structure Balance, one currency a record.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: Event time (E); of answers the update time, or when REST was asked where they have
            none. Microseconds.
        currency: Currency code.
        free: Free to use: spot f; futures availableBalance, which only REST has.
        used: Locked by orders (l); spot only.
        total: Spot free + used; futures the wallet balance (wb), without unrealized profit.
        debt: Always null.
        eventTime: Event time (E): when the exchange sent it. Null in answers of REST. Microseconds.
        lastUpdateTimestamp: When the exchange last changed it: spot u (of the account), futures T; REST:
            updateTime. A record with an older one is never written behind a newer. Microseconds.
        reason: Why it changed (m): DEPOSIT, ORDER, FUNDING_FEE, …; futures events only.
        change: Change but for profit and commission (bc); futures events only.
        crossWalletBalance: Wallet balance without what isolated positions hold (cw); futures only.
        unrealizedPnl: Unrealized profit of cross positions (crossUnPnl); futures, REST only.
        marginBalance: Wallet balance with unrealized profit; futures, REST only.
        initialMargin: Margin that positions and orders hold; futures, REST only.
        maintenanceMargin: Maintenance margin of the positions; futures, REST only.
    """

    structure: ClassVar[str] = "balance"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int
    currency: str
    free: Decimal | None
    used: Decimal | None
    total: Decimal | None
    debt: Decimal | None
    eventTime: int | None
    lastUpdateTimestamp: int
    reason: str | None
    change: Decimal | None
    crossWalletBalance: Decimal | None
    unrealizedPnl: Decimal | None
    marginBalance: Decimal | None
    initialMargin: Decimal | None
    maintenanceMargin: Decimal | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.balance`."""
        return shapes.balance(self, number)


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


class Place(msgspec.Struct, frozen=True, gc=False):
    """Part ``Place`` of a record.

    Attributes:
        topic: Topic.
        partition: Partition.
        offset: Whatever this record does not claim lies here or behind.
    """

    topic: str
    partition: int
    offset: int


class Checkpoint(Record, frozen=True, gc=False):
    """How far a stream is published.

    Where its shard's next owner goes on. Topic binance.<env>.control.checkpoints; key: market and stream. All
    it claims is acknowledged before it is written, or in the same transaction.

    Attributes:
        market: The market.
        channel: Raw channel.
        stream: Stream name.
        exchangeSymbol: The exchange's symbol; null where the stream has none.
        symbol: Unified symbol; the stream's name where it has none.
        shard: Shard of the stream when it was written.
        writerEpoch: Epoch of the owner that wrote it.
        at: When the owner looked. Microseconds.
        lastSequence: Last published id of the stream; of candles the open time of the newest, in
            milliseconds. Null before the first, and where the stream has no ids.
        lastEventTime: Event time of that message. Microseconds.
        closeTime: Of candles: close time of the newest. Microseconds.
        closed: Of candles: whether the newest is closed.
        carriedUntil: When a connection last carried the stream; null before the first time. Microseconds.
        places: Where to read on for what was published later.
        coverage: The stream's coverage record, encoded, at the same moment.
    """

    structure: ClassVar[str] = "checkpoint"
    time_field: ClassVar[str] = "timestamp"

    market: Market
    channel: str
    stream: str
    exchangeSymbol: str | None
    symbol: str
    shard: int
    writerEpoch: int
    at: int
    lastSequence: int | None
    lastEventTime: int | None
    closeTime: int | None
    closed: bool
    carriedUntil: int | None
    places: tuple[Place, ...]
    coverage: bytes


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


class LedgerEntry(Envelope, frozen=True, gc=False):
    """A change of what an account has, other than by trades on spot.

    Deposits and withdrawals, transfers, funding, and on futures realized profit and commission. CCXT
    structure LedgerEntry.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: When it happened (T; REST: time). Microseconds.
        id: Transaction id (tranId); REST only, unique by exchangeType.
        direction: in or out.
        referenceId: Trade id, of profit and commission.
        referenceAccount: Always null.
        type: CCXT: transaction (a deposit or withdrawal of spot; which, the event does not tell),
            transfer, fee (funding), trade (profit), commission, settlement, …; the exchange's own where
            CCXT has no word.
        currency: Currency code.
        amount: How much, not signed.
        before: Always null.
        after: Wallet balance after it; futures events only.
        status: Always null.
        fee: Always null.
        eventTime: Event time (E): when the exchange sent it. Null in answers of REST. Microseconds.
        exchangeType: The exchange's own type: reason (m) of events, incomeType of REST. Null on spot.
        instrument: Unified symbol of the contract that caused it; futures only.
        information: What REST says besides (info).
    """

    structure: ClassVar[str] = "ledger"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int
    id: str | None
    direction: str
    referenceId: str | None
    referenceAccount: str | None
    type: str
    currency: str
    amount: Decimal
    before: Decimal | None
    after: Decimal | None
    status: str | None
    fee: Fee | None
    eventTime: int | None
    exchangeType: str | None
    instrument: str | None
    information: str | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.ledger`."""
        return shapes.ledger(self, number)


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


class MyTrade(Envelope, frozen=True, gc=False):
    """A fill of an account's order.

    CCXT structure Trade, as of watchMyTrades. Each fill is told once, whether the user stream or REST told of
    it first.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: When it traded (T). Microseconds.
        id: Trade id (t), the public trade's; null for allocations. Unique by symbol and order.
        order: Order id (i).
        type: Type of the order in lower case (o), as CCXT has it. Null where REST told of the fill.
        side: Side of the order (S).
        takerOrMaker: maker where the order rested (m), else taker.
        price: Price (L).
        amount: Quantity (l): base currency; on coinm contracts.
        cost: Quote value (spot Y; linear price × amount). Inverse: amount × contractSize / price, in base
            currency, truncated at 18 decimals (REST: baseQty).
        fee: Commission (n, N); negative is a rebate. Null where the message names none.
        fees: The same as a list.
        eventTime: Event time (E): when the exchange sent it. Null in answers of REST. Microseconds.
        clientOrderId: Client order id of the order (c). Null where REST told of the fill.
        orderListId: Order list of the order (g); spot only.
        executionType: TRADE; CALCULATED for a liquidation. Null where REST told of the fill.
        positionSide: BOTH, LONG or SHORT (ps); futures only.
        realizedPnl: Profit the fill realized, before commission (rp); futures only.
        marginAsset: Currency code of the profit (ma); coinm only.
        allocationId: Allocation id (a) of a fill by smart order routing; spot only.
        matchType: How it was matched (b); spot only.
    """

    structure: ClassVar[str] = "my-trade"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int
    id: str | None
    order: str
    type: str | None
    side: Side
    takerOrMaker: str
    price: Decimal
    amount: Decimal
    cost: Decimal | None
    fee: Fee | None
    fees: tuple[Fee, ...]
    eventTime: int | None
    clientOrderId: str | None
    orderListId: int | None
    executionType: str | None
    positionSide: str | None
    realizedPnl: Decimal | None
    marginAsset: str | None
    allocationId: str | None
    matchType: str | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.my_trade`."""
        return shapes.my_trade(self, number)


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


class Fill(msgspec.Struct, frozen=True, gc=False):
    """Part ``Fill`` of a record.

    Attributes:
        id: Trade id; null where the fill is an allocation.
        timestamp: When it traded. Microseconds.
        price: Price.
        amount: Quantity: base currency; on coinm contracts.
        cost: Quote value; of inverse contracts base value, truncated at 18 decimals.
        takerOrMaker: taker or maker.
        fee: Commission; null where the message names none.
    """

    id: str | None
    timestamp: int
    price: Decimal
    amount: Decimal
    cost: Decimal | None
    takerOrMaker: str
    fee: Fee | None


class Order(Envelope, frozen=True, gc=False):
    """An order of an account as an event or an answer of REST shows it.

    CCXT structure Order. Plain orders and, on futures, conditional orders: these have ids of their own, see
    conditional.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: When it was placed (O; REST: time). Of futures orders only the first event tells it;
            where it is known from before, it is kept. Microseconds.
        lastTradeTimestamp: When it last filled; kept where known from before. Null where REST alone tells
            of it. Microseconds.
        lastUpdateTimestamp: When it last changed (T; REST: updateTime). The Kafka record's time.
            Microseconds.
        id: Order id (i); of conditional orders algo id (aid). Unique by symbol.
        clientOrderId: Client order id; of a canceled one that of the order (C), not of the request.
        status: CCXT: open, closed, canceled, canceling, rejected, expired; another word where the
            exchange has a new one. A conditional order that has triggered is open; one that is done with
            is closed, whether its order filled or not.
        type: CCXT: limit or market, which is what it does once it triggers; exchangeType has the
            exchange's own.
        timeInForce: GTC, IOC, FOK, GTD, …; PO for post only (GTX).
        postOnly: Never takes: LIMIT_MAKER or GTX.
        reduceOnly: Only reduces a position (R); futures only.
        side: Its side (S).
        price: Limit price (p); of market orders their average price. Null when zero.
        average: Average price of its fills (futures ap); spot cost / filled, truncated at 18 decimals.
            Null before the first.
        amount: Quantity (q): base currency; on coinm contracts. Null where it closes the whole position
            or buys for a quote quantity.
        filled: What has filled (z).
        remaining: amount - filled.
        triggerPrice: Price that triggers it (P, sp, tp). Null when zero, and for trailing stops.
        stopPrice: Same as triggerPrice.
        takeProfitPrice: triggerPrice of a take-profit order.
        stopLossPrice: Always null, as in CCXT.
        cost: Spot: what has been paid (Z). Linear: average × filled. Inverse: filled × contractSize /
            average, in base currency. REST has it exact on futures.
        fee: Commission of the fill that this event tells of; null where it tells of none or there was
            none.
        fees: The same as a list.
        trades: The fill that this event tells of; empty where it tells of none. All fills of an order are
            in my-trade.
        eventTime: Event time (E): when the exchange sent it. Null in answers of REST. Microseconds.
        exchangeStatus: The exchange's own status (X), such as EXPIRED_IN_MATCH.
        executionType: What happened (x): NEW, TRADE, CANCELED, REPLACED, AMENDMENT, … Null in answers of
            REST and for conditional orders.
        exchangeType: The exchange's own type (o), such as STOP_LOSS_LIMIT.
        originalType: Type before it triggered (ot); futures only.
        rejectReason: Why it was rejected (r; conditional orders rm).
        expiryReason: Why it expired (eR, er); null where it did not.
        conditional: An order of the futures' algo service: its id is an algo id.
        requestClientOrderId: Client order id of the request that canceled it (c); spot only.
        orderListId: Order list it is a leg of (g); spot only.
        quoteAmount: Quote quantity asked for (Q); spot market orders. Null when zero.
        icebergAmount: Visible quantity (F); spot only. Null when zero.
        working: It is on the book (w, isWorking); spot only.
        workingTime: Since when it is on the book (W); spot only. Microseconds.
        selfTradePreventionMode: What happens where it would trade with the account itself (V).
        strategyId: Id given when it was placed (j); spot only.
        strategyType: Type given when it was placed (J); spot only.
        trailingDelta: Trailing distance in basis points (d); spot only.
        trailingTime: When trailing began (D); spot only. Microseconds.
        preventedMatchId: Match that was prevented (v); spot only.
        preventedAmount: Quantity prevented in all (A); spot only.
        lastPreventedAmount: Quantity prevented by this event (B); spot only.
        tradeGroupId: Trade group of the prevented match (u); spot only.
        counterOrderId: Order that it would have traded with (U); spot only.
        counterSymbol: Unified symbol of that order (Cs); spot only.
        preventedExecutionAmount: What would have filled (pl); spot only.
        preventedExecutionPrice: At what price (pL); spot only.
        preventedExecutionCost: For how much quote currency (pY); spot only.
        matchType: How it was matched (b), such as ONE_PARTY_TRADE_REPORT; spot only.
        allocationId: Allocation that filled it (a); spot only.
        workingFloor: Where it works (k), such as SOR; spot only.
        usedSor: Smart order routing was used (uS); spot only.
        pegPriceType: What its price is pegged to (gP); spot only.
        pegOffsetType: Type of the offset (gOT); spot only.
        pegOffsetValue: The offset (gOV); spot only.
        peggedPrice: Price it is pegged at (gp); spot only.
        positionSide: BOTH, LONG or SHORT (ps); futures only.
        workingType: Which price triggers it (wt); futures only.
        closePosition: It closes the whole position (cp); futures only.
        priceProtect: Price protection (pP); futures only.
        priceMatch: Price match mode (pm); futures only. Null for NONE.
        goodTillTime: When a GTD order is canceled (gtd); usdm only. Microseconds.
        activationPrice: Price that starts trailing (AP); trailing stops of futures.
        callbackRate: Trailing distance in percent (cr); trailing stops of futures.
        modifyId: Id of the request that amended it (M); futures only.
        marginAsset: Currency code of its margin (ma); coinm only.
        algoType: Kind of conditional order (at).
        triggeredOrderId: Order that a conditional one became (ai).
        triggeredOrderType: Type of that order (act).
        triggerTime: When a conditional order triggered (tt). Microseconds.
        trailingActive: A conditional trailing stop trails (ia).
    """

    structure: ClassVar[str] = "order"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int | None
    lastTradeTimestamp: int | None
    lastUpdateTimestamp: int
    id: str
    clientOrderId: str | None
    status: str
    type: str | None
    timeInForce: str | None
    postOnly: bool | None
    reduceOnly: bool | None
    side: Side
    price: Decimal | None
    average: Decimal | None
    amount: Decimal | None
    filled: Decimal | None
    remaining: Decimal | None
    triggerPrice: Decimal | None
    stopPrice: Decimal | None
    takeProfitPrice: Decimal | None
    stopLossPrice: Decimal | None
    cost: Decimal | None
    fee: Fee | None
    fees: tuple[Fee, ...]
    trades: tuple[Fill, ...]
    eventTime: int | None
    exchangeStatus: str
    executionType: str | None
    exchangeType: str | None
    originalType: str | None
    rejectReason: str | None
    expiryReason: str | None
    conditional: bool
    requestClientOrderId: str | None
    orderListId: int | None
    quoteAmount: Decimal | None
    icebergAmount: Decimal | None
    working: bool | None
    workingTime: int | None
    selfTradePreventionMode: str | None
    strategyId: int | None
    strategyType: int | None
    trailingDelta: int | None
    trailingTime: int | None
    preventedMatchId: int | None
    preventedAmount: Decimal | None
    lastPreventedAmount: Decimal | None
    tradeGroupId: int | None
    counterOrderId: str | None
    counterSymbol: str | None
    preventedExecutionAmount: Decimal | None
    preventedExecutionPrice: Decimal | None
    preventedExecutionCost: Decimal | None
    matchType: str | None
    allocationId: str | None
    workingFloor: str | None
    usedSor: bool | None
    pegPriceType: str | None
    pegOffsetType: str | None
    pegOffsetValue: int | None
    peggedPrice: Decimal | None
    positionSide: str | None
    workingType: str | None
    closePosition: bool | None
    priceProtect: bool | None
    priceMatch: str | None
    goodTillTime: int | None
    activationPrice: Decimal | None
    callbackRate: Decimal | None
    modifyId: str | None
    marginAsset: str | None
    algoType: str | None
    triggeredOrderId: str | None
    triggeredOrderType: str | None
    triggerTime: int | None
    trailingActive: bool | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.order`."""
        return shapes.order(self, number)


class Position(Envelope, frozen=True, gc=False):
    """A position of a futures account.

    CCXT structure Position.

    Attributes:
        account: Name of the account in the configuration.
        timestamp: Event time (E); of answers the update time, or when REST was asked where they have
            none. Microseconds.
        id: Always null.
        contracts: Size, not signed (pa): base currency; on coinm contracts. 0 where flat.
        contractSize: Contract size of the instrument.
        side: long or short; null where flat.
        hedged: Long and short positions are kept apart (ps is not BOTH).
        entryPrice: Average entry price (ep).
        markPrice: Mark price; REST only. Null when zero.
        lastPrice: Always null.
        exitPrice: Always null.
        liquidationPrice: Liquidation price; REST only. Null when zero.
        notional: Value at the mark price, not signed; REST only.
        leverage: Leverage; REST of coinm and version 2 of usdm only.
        unrealizedPnl: Unrealized profit (up).
        realizedPnl: Profit realized so far, before commission (cr); events only.
        marginMode: cross or isolated (mt); where REST does not say it (usdm), by the position's margin,
            and null where flat.
        isolated: marginMode is isolated.
        collateral: Margin of an isolated position with its profit (isolatedMargin); REST only. Null when
            zero.
        positionMargin: Always null.
        initialMargin: Margin that the position and its orders hold; usdm, REST only.
        initialMarginPercentage: Always null.
        maintenanceMargin: Maintenance margin; usdm, REST only.
        maintenanceMarginPercentage: Always null.
        marginRatio: Always null.
        percentage: Always null.
        stopLossPrice: Always null.
        takeProfitPrice: Always null.
        lastUpdateTimestamp: When it last changed (T; REST: updateTime). A record with an older one is
            never written behind a newer. Microseconds.
        eventTime: Event time (E): when the exchange sent it. Null in answers of REST. Microseconds.
        positionSide: BOTH, LONG or SHORT (ps).
        breakEvenPrice: Price at which closing pays for the commission (bep).
        isolatedWallet: Wallet of an isolated position (iw). Null when zero.
        marginAsset: Currency code of its margin (ma).
        reason: Why it changed (m): ORDER, MARGIN_TYPE_CHANGE, …; events only.
    """

    structure: ClassVar[str] = "position"
    time_field: ClassVar[str] = "timestamp"

    account: str
    timestamp: int
    id: str | None
    contracts: Decimal
    contractSize: Decimal | None
    side: str | None
    hedged: bool
    entryPrice: Decimal | None
    markPrice: Decimal | None
    lastPrice: Decimal | None
    exitPrice: Decimal | None
    liquidationPrice: Decimal | None
    notional: Decimal | None
    leverage: Decimal | None
    unrealizedPnl: Decimal | None
    realizedPnl: Decimal | None
    marginMode: str | None
    isolated: bool | None
    collateral: Decimal | None
    positionMargin: Decimal | None
    initialMargin: Decimal | None
    initialMarginPercentage: Decimal | None
    maintenanceMargin: Decimal | None
    maintenanceMarginPercentage: Decimal | None
    marginRatio: Decimal | None
    percentage: Decimal | None
    stopLossPrice: Decimal | None
    takeProfitPrice: Decimal | None
    lastUpdateTimestamp: int
    eventTime: int | None
    positionSide: str
    breakEvenPrice: Decimal | None
    isolatedWallet: Decimal | None
    marginAsset: str | None
    reason: str | None

    def as_ccxt(self, number: Number = float) -> dict[str, Any]:
        """Return CCXT's dictionary; see :func:`bridge.sdk.shapes.position`."""
        return shapes.position(self, number)


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


class ShardClaim(Record, frozen=True, gc=False):
    """A process takes over a shard.

    Topic binance.<env>.control.checkpoints; key: shard:<name of the bridges>:<number>. The record's own
    offset there, plus one, is the shard's epoch: writerEpoch of everything the process publishes for it.

    Attributes:
        shard: The shard.
        instance: Bridge instance.
        process: Random number of the process.
        version: Bridge version.
        at: When it was written. Microseconds.
    """

    structure: ClassVar[str] = "shard-claim"
    time_field: ClassVar[str] = "timestamp"

    shard: int
    instance: str
    process: int
    version: str
    at: int


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
    "account-event": AccountEvent,
    "balance": Balance,
    "bid-ask": BidAsk,
    "checkpoint": Checkpoint,
    "coverage": Coverage,
    "dead-letter": DeadLetter,
    "funding-rate": FundingRate,
    "gap": Gap,
    "ledger": LedgerEntry,
    "lifecycle": Lifecycle,
    "liquidation": Liquidation,
    "mark-price": MarkPrice,
    "market": Instrument,
    "my-trade": MyTrade,
    "ohlcv": Ohlcv,
    "order-book": OrderBook,
    "order": Order,
    "position": Position,
    "raw": Raw,
    "shard-claim": ShardClaim,
    "ticker": Ticker,
    "trade": Trade,
}
"""The class of each structure."""

TYPES: dict[str, Callable[..., Any]] = {
    "AccountEvent": AccountEvent,
    "Balance": Balance,
    "BidAsk": BidAsk,
    "Checkpoint": Checkpoint,
    "Coverage": Coverage,
    "CoverageGap": CoverageGap,
    "CoverageRange": CoverageRange,
    "DeadLetter": DeadLetter,
    "Fee": Fee,
    "Fill": Fill,
    "FundingRate": FundingRate,
    "Gap": Gap,
    "Instrument": Instrument,
    "LedgerEntry": LedgerEntry,
    "Level": Level,
    "Lifecycle": Lifecycle,
    "Limits": Limits,
    "Liquidation": Liquidation,
    "MarkPrice": MarkPrice,
    "MyTrade": MyTrade,
    "Ohlcv": Ohlcv,
    "Order": Order,
    "OrderBook": OrderBook,
    "OrderListLeg": OrderListLeg,
    "Place": Place,
    "Position": Position,
    "Precision": Precision,
    "Range": Range,
    "Raw": Raw,
    "ShardClaim": ShardClaim,
    "Ticker": Ticker,
    "Trade": Trade,
}
"""Every class by the name of its Avro record, for :class:`bridge.core.wire.Decoder`."""
