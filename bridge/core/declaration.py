"""What the files of ``topics/`` declare, as typed values. ``topics/README.md`` explains each key."""

from __future__ import annotations

from typing import Literal

import msgspec


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base: an unknown key is an error."""


class Option(Declared, frozen=True):
    """An option in the channel's text: ``kline_<interval>``.

    Attributes:
        name: its name in the stream pattern.
        values: what the exchange offers.
    """

    name: str
    values: tuple[str, ...]


class OnMarket(Declared, frozen=True):
    """How a channel looks on one market.

    Attributes:
        stream: pattern of the stream name: ``{symbol}``, ``{pair}``, ``{contract_type}``, the option and ``{speed}``.
            None where the channel exists for all instruments at once only.
        all: pattern of the all-market stream's name, where there is one.
        rows: the all-market stream carries an array with a row an instrument.
        path: the path of the futures host that serves it.
        option: the option, where the market has one.
        speeds: the speeds the exchange offers and the suffix of each; the first is the fastest and the default.
        cadence_seconds: how often a frame is promised; None where frames come with events.
        first_frame_seconds: how long the first frame may take after the acknowledgement.
    """

    stream: str | None = None
    all: str | None = None
    rows: bool = False
    path: str = ""
    option: Option | None = None
    speeds: dict[str, str] = {}
    cadence_seconds: float | None = None
    first_frame_seconds: float = 60.0


class Sequence(Declared, frozen=True):
    """How to see that a message is new, repeated or that some are missing.

    Attributes:
        rule: ``contiguous``: ``id`` grows by one; ``linked``: an event names the one before it (``first``/``last``,
            futures ``previous``); ``candle``: open times follow each other; ``newest``: ``id`` never goes back.
        id: wire key of the id or, for ``newest``, of what never goes back.
        first: wire key of the first update id of an event.
        last: wire key of its last update id.
        previous: wire key of the last update id of the event before; where it is missing ``first`` - 1 is.
    """

    rule: Literal["contiguous", "linked", "candle", "newest"]
    id: str | None = None
    first: str | None = None
    last: str | None = None
    previous: str | None = None


class Record(Declared, frozen=True):
    """One unified record derived from a message.

    Attributes:
        structure: the schema in ``avro/``.
        fields: schema field → wire key, ``function(wire keys)`` or ``=constant``.
        spot: the same for spot alone, over ``fields``; null takes a field away.
        usdm: the same for usdm alone.
        coinm: the same for coinm alone.
        when: wire key that must not be empty for the record to exist.
        time: wire key of the Kafka record's time where it is not that of the field ``timestamp``.
    """

    structure: str
    fields: dict[str, str]
    spot: dict[str, str | None] = {}
    usdm: dict[str, str | None] = {}
    coinm: dict[str, str | None] = {}
    when: str | None = None
    time: str | None = None


class Backfill(Declared, frozen=True):
    """Where REST has the past of a channel on one market, and how to read it.

    Attributes:
        path: the endpoint; None where the past can't be had.
        reason: why not.
        by: how it is paged: ``fromId`` from an id on, ``startTime`` over a range of open times.
        limit: most rows a page.
        symbol: the query's name for what the stream is of.
        params: the rest of the query, from the stream: ``option()``, ``zone()``, or ``=constant``.
        fields: wire key of the message → where a row has it (its key, or its position), ``option()`` or
            ``=constant``. The symbol is the stream's.
    """

    path: str | None = None
    reason: str | None = None
    by: Literal["fromId", "startTime"] = "fromId"
    limit: int = 1000
    symbol: str = "symbol"
    params: dict[str, str] = {}
    fields: dict[str, str | int] = {}


class Channel(Declared, frozen=True):
    """One channel: one kind of Binance stream on the markets that have it.

    Attributes:
        summary: what it is, in a sentence.
        markets: how it looks on each market.
        symbol: wire key of the exchange symbol in a message, checked against the subscription; None without one.
        event_time: wire key of the event time, where messages have one.
        sequence: the rule that finds gaps and repeats; None where there is nothing to go by.
        drop: wire key → value: messages that make no unified record though they count in the sequence.
        records: the unified records; none where the channel is kept raw only.
        refreshes_markets: a message means that exchangeInfo has changed.
        backfill: by market, where what is missing can be had; a market left out has no such history.
    """

    summary: str
    markets: dict[Literal["spot", "usdm", "coinm"], OnMarket]
    symbol: str | None = "s"
    event_time: str | None = "E"
    sequence: Sequence | None = None
    drop: dict[str, str] = {}
    records: tuple[Record, ...] = ()
    refreshes_markets: bool = False
    backfill: dict[Literal["spot", "usdm", "coinm"], Backfill] = {}


class AccountEndpoint(Declared, frozen=True):
    """An endpoint of REST whose answers are read.

    Attributes:
        origin: ``snapshot`` where it tells the state as it is, ``backfill`` where it tells history.
        whole: an answer that was not asked of one symbol lists everything there is: what it leaves out is nothing.
    """

    origin: Literal["snapshot", "backfill"]
    whole: bool = False


class AccountRecord(Record, frozen=True):
    """One kind of unified record that an event or an answer makes.

    Attributes:
        each: wire key of the array that makes a record a row; keys of ``fields`` are then the row's, those of the
            message begin with ``^``. None: the message, or each row of an answer, makes one.
        symbol: wire key of the exchange symbol the record is of.
        currency: source of the asset it is of, where it is of one.
        where: wire key → the values with which the record exists.
        unless_zero: wire key of a decimal that must not be zero for the record to exist.
    """

    each: str | None = None
    symbol: str | None = None
    currency: str | None = None
    where: dict[str, tuple[str, ...]] = {}
    unless_zero: str | None = None


class AccountSource(Declared, frozen=True):
    """A kind of private event, or answers of REST of one shape.

    Attributes:
        summary: what it is, in a sentence.
        markets: where it exists.
        event: the event's name (``e``).
        endpoints: path → how its answers are taken.
        records: what it makes; none where it is kept raw.
    """

    summary: str
    markets: tuple[Literal["spot", "usdm", "coinm"], ...]
    event: str | None = None
    endpoints: dict[str, AccountEndpoint] = {}
    records: tuple[AccountRecord, ...] = ()


class Topic(Declared, frozen=True):
    """Retention and shape of one family of topics.

    Attributes:
        key: what the record key is, for readers.
        partitions: how many; None means the configured number.
        config: Kafka's own topic configuration.
    """

    key: str
    partitions: int | None = None
    config: dict[str, str] = {}


class Topics(Declared, frozen=True):
    """``topics/topics.yaml``."""

    families: dict[str, Topic]
    state: dict[str, tuple[str, ...]]
