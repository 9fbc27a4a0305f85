"""Reads what is covered from the topics: the ledgers as they stand, or everything again, to compare.

The recount reads each partition once: first coverage and gaps, then the unified topics of streams with ids and of
candles, and the raw topics of the others (and of channels whose messages do not all make a record), then what came
to the gaps meanwhile. So it may run beside a live bridge.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge import schema
from bridge.catalogue import Catalogue, TopicNames, catalogue
from bridge.core.coverage import Covered, by_of
from bridge.core.recount import Account, Carried, Counted, Finding, Told, in_time, ledger_finding
from bridge.core.series import Series, has_silent, place_of, series_of, silent_place
from bridge.core.spans import Spans
from bridge.core.wire import Decoder
from bridge.errors import DecodeError, TopicMismatch
from bridge.kafka.partitioner import partition_for
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.kafka.topics import Cluster
from bridge.model import MARKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiokafka import TopicPartition

    from bridge.core.compile import CompiledChannel
    from bridge.kafka.reader import End, Start
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Environment, Fetched, Market

log = logging.getLogger("bridge")

StreamName = tuple[str, str]
"""Market and stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRequest:
    """What is asked.

    Attributes:
        environment: whose topics.
        namespace: first part of their names.
        markets: which markets.
        symbols: unified or exchange symbols; empty for all.
        channels: which channels; empty for all.
        start_ms: from when, milliseconds; None from the beginning.
        end_ms: before when; None for all there is now.
    """

    environment: Environment
    namespace: str = "binance"
    markets: tuple[Market, ...] = MARKETS
    symbols: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    start_ms: int | None = None
    end_ms: int | None = None

    def wants(self, record: Mapping[str, Any], symbols: Iterable[str | None]) -> bool:
        """Return whether a record of some market and channel is asked for."""
        if record["market"] not in self.markets or (self.channels and record["channel"] not in self.channels):
            return False
        return not self.symbols or not self.symbols.isdisjoint(symbols)


@dataclass(slots=True)
class RecountProgress:
    """How far a recount is.

    Attributes:
        total: records to read, about (offsets).
        read: records read.
        undecodable: of these, records that are none of ours.
        topics: the topics.
    """

    total: int = 0
    read: int = 0
    undecodable: int = 0
    topics: list[str] = field(default_factory=list)


async def ledgers(settings: KafkaSettings, request: CoverageRequest) -> list[Finding]:
    """Return what the coverage topic says of each stream, by market, channel and stream.

    Raises:
        TopicMismatch: there is no coverage topic.
        KafkaUnavailable: no broker answers.
    """
    recount = _Recount(settings, request, lambda _: None)
    if not await recount.read_ledgers():
        raise TopicMismatch(f"topic missing, or hidden from this user: {recount.names.of('coverage')}")
    found = (
        in_time(ledger_finding(account.ledger), request.start_ms, request.end_ms)
        for account in recount.accounts.values()
        if account.ledger is not None
    )
    return sorted((one for one in found if one is not None), key=lambda one: one.stream)


async def recount(
    settings: KafkaSettings,
    request: CoverageRequest,
    on_progress: Callable[[RecountProgress], None] = lambda _: None,
) -> list[Finding]:
    """Count everything again, and hold it against coverage and gaps; by market, channel and stream.

    Raises:
        TopicMismatch: there is nothing to count.
        KafkaUnavailable: no broker answers.
    """
    return await _Recount(settings, request, on_progress).run()


class _Recount:
    def __init__(
        self,
        settings: KafkaSettings,
        request: CoverageRequest,
        on_progress: Callable[[RecountProgress], None],
    ) -> None:
        self.settings, self.request, self.on_progress = settings, request, on_progress
        self.catalogue: Catalogue = catalogue()
        self.names = TopicNames(request.environment, request.namespace)
        self.decoder = Decoder(schema.schemas().values())
        self.progress = RecountProgress()
        self.accounts: dict[StreamName, Account] = {}
        self._by_series: dict[Series, list[Account]] = {}
        self._counted: dict[Series, Counted] = {}
        self._dark: dict[StreamName, Spans] = {}
        self._gaps_at: dict[TopicPartition, int] = {}
        self._symbols: set[str] = set(request.symbols)
        self._cut: set[tuple[str, int]] = set()
        self._shapes: dict[str, int] = {}

    async def run(self) -> list[Finding]:
        unified, raw = self._topics()
        families = [self.names.of(family) for family in ("coverage", "gaps", "dead-letter")]
        async with Cluster(self.settings) as cluster:
            self._shapes = {
                name: count
                for name, (count, _) in (await cluster.shapes([*unified, *raw, *families])).items()
            }
        self.progress.topics = sorted(self._shapes)
        if self._shapes.keys().isdisjoint([*unified, *raw]):
            raise TopicMismatch(f"nothing to count: none of {', '.join([*unified, *raw])} exists")
        with_ledgers = await self.read_ledgers()
        await self._read_gaps()
        for account in self.accounts.values():
            account.early = len(account.told)
        self._dark = {name: a.dark() for name, a in self.accounts.items() if a.carried is not None}
        await self._read_data(unified, raw)
        await self._read_gaps()
        return self._findings(ledgers=with_ledgers)

    # What is to be read

    def _topics(self) -> tuple[list[str], list[str]]:
        """Return the unified and the raw topics that have something to count."""
        unified: set[str] = set()
        raw: set[str] = set()
        for (market, channel), compiled in self.catalogue.channels.items():
            if market not in self.request.markets or (
                self.request.channels and channel not in self.request.channels
            ):
                continue
            by_position = compiled.link is not None or compiled.candle is not None
            if by_position and compiled.structures:
                unified |= {self.names.unified(structure) for structure in compiled.structures}
            if not by_position or not compiled.structures or has_silent(compiled):
                raw.add(self.names.raw(market, channel))
        return sorted(unified), sorted(raw)

    async def _read(
        self,
        topics: Iterable[str],
        take: Callable[[str, Fetched, dict[str, Any]], None],
        start: Start,
        end: End,
    ) -> dict[TopicPartition, int]:
        """Give each record of topics that exist, decoded; return where each partition was read to."""
        there = dict.fromkeys(name for name in topics if name in self._shapes)
        places = await partitions_for(self.settings, there) if there else []
        reader = PartitionReader(self.settings, places, start=start, end=end, name="bridge-coverage")
        async with reader:
            self.progress.total += sum(max(0, reader.ends[p] - reader.positions[p]) for p in places)
            if start == "earliest":
                self._cut |= {place for place in places if reader.positions[place]}
            async for place, records in reader:
                self.progress.read += len(records)
                for record in records:
                    if record.value is None:
                        continue
                    try:
                        decoded = self.decoder.decode(record.value)
                    except DecodeError as error:
                        self.progress.undecodable += 1
                        log.warning("left out of the count: %s/%d %d: %s", *place, record.offset, error)
                        continue
                    take(place.topic, record, decoded)
                self.on_progress(self.progress)
            return dict(reader.positions)

    # Ledgers and gaps

    async def read_ledgers(self) -> bool:
        """Read the coverage topic; return whether there is one."""
        topic = self.names.of("coverage")
        if topic not in self._shapes:
            async with Cluster(self.settings) as cluster:
                shapes = await cluster.shapes([topic])
            self._shapes |= {name: count for name, (count, _) in shapes.items()}
        if topic not in self._shapes:
            return False
        newest: dict[bytes | None, dict[str, Any]] = {}

        def take(_topic: str, record: Fetched, decoded: dict[str, Any]) -> None:
            before = newest.get(record.key)
            if before is None or before["writerEpoch"] <= decoded["writerEpoch"]:
                newest[record.key] = decoded

        await self._read([topic], take, "earliest", "now")
        for ledger in newest.values():
            known = (ledger["market"], ledger["channel"]) in self.catalogue.channels
            if known and self.request.wants(
                ledger, (ledger["symbol"], ledger["exchangeSymbol"], ledger["stream"])
            ):
                self._account(ledger, ledger["by"]).ledger = ledger
        return True

    async def _read_gaps(self) -> None:
        topic = self.names.of("gaps")
        start: Start = self._gaps_at or "earliest"
        self._gaps_at = await self._read([topic], self._gap, start, "now")

    def _gap(self, _topic: str, record: Fetched, gap: dict[str, Any]) -> None:
        if not self.request.wants(gap, (gap["symbol"], gap["exchangeSymbol"], gap["stream"])):
            return
        compiled = self.catalogue.channels.get((gap["market"], gap["channel"]))
        if compiled is None:
            return  # a channel of another version
        by = by_of(compiled, gap["exchangeSymbol"])
        self._account(gap, by).told.append(Told(record.timestamp * 1000, gap))

    def _compiled(self, market: Market, channel: str) -> CompiledChannel:
        return self.catalogue.channel(market, channel)

    def _account(self, record: Mapping[str, Any], by: Any) -> Account:
        """Return the account of the stream that a coverage or a gap record names."""
        name = record["market"], record["stream"]
        account = self.accounts.get(name)
        if account is None:
            symbol = record["exchangeSymbol"]
            stream = Covered(record["market"], record["channel"], name[1], symbol, record["symbol"], by)
            account = self.accounts[name] = Account(stream)
            self._symbols |= {symbol or name[1]}
            if by == "time":
                account.carried = Carried()
            else:
                series = self.catalogue.series(record["market"], record["channel"], name[1], symbol)
                self._by_series.setdefault(series or Series(*name, symbol or ""), []).append(account)
        return account

    # Data

    async def _read_data(self, unified: list[str], raw: list[str]) -> None:
        request = self.request
        start: Start = "earliest" if request.start_ms is None else request.start_ms
        end: End = "now" if request.end_ms is None else request.end_ms
        letters = self.names.of("dead-letter")
        layers = (
            dict.fromkeys(unified, self._unified) | dict.fromkeys(raw, self._raw) | {letters: self._letter}
        )

        def take(topic: str, _: Fetched, decoded: dict[str, Any]) -> None:
            layers[topic](decoded)

        await self._read(layers, take, start, end)

    def _unified(self, record: dict[str, Any]) -> None:
        if not self.request.wants(record, (record["symbol"], record["exchangeSymbol"])):
            return
        compiled = self.catalogue.channels.get((record["market"], record["channel"]))
        place = None if compiled is None else place_of(compiled, record)
        if place is None:
            return
        # A replay's records of history came on no connection.
        live = record["origin"] == "live" or (record["origin"] == "replay" and record["connectionId"] != 0)
        series = series_of(record)
        self._count_of(series, record["symbol"]).record(
            place, epoch=record["writerEpoch"], live=live, received_at=record["receivedAt"]
        )

    def _count_of(self, series: Series, symbol: str) -> Counted:
        counted = self._counted.get(series)
        if counted is None:
            counted = self._counted[series] = Counted()
            candles = self._compiled(series.market, series.channel).candle is not None  # type: ignore[arg-type]
            counted.may_begin_anew = not candles
            if series not in self._by_series:
                account = self._unknown(series, symbol)
                self._by_series[series] = [account]
        return counted

    def _unknown(self, series: Series, symbol: str) -> Account:
        """Return the account of a stream that neither a ledger nor a gap names; its speed is not known."""
        market: Market = series.market  # type: ignore[assignment]
        compiled = self._compiled(market, series.channel)
        pattern = compiled.declaration.markets[market].stream or series.channel
        parts = dict.fromkeys(("interval", "levels", "window"), series.option)
        name = pattern.format(
            symbol=series.symbol.lower(), pair=series.symbol.lower().partition("_")[0], contract_type="*",
            speed=f"@{series.zone}" if series.zone else "",
            **parts,
        )  # fmt: skip
        by = by_of(compiled, series.symbol)
        account = Account(Covered(market, series.channel, name, series.symbol, symbol, by))
        return self.accounts.setdefault((series.market, name), account)

    def _raw(self, record: dict[str, Any]) -> None:
        name = record["market"], record["stream"]
        symbol = record["symbol"] or name[1]
        asked = self.request.symbols if symbol in self._symbols else ()
        if record["kind"] != "stream" or not self.request.wants(record, asked):
            return
        compiled = self.catalogue.channels.get((record["market"], record["channel"]))
        if compiled is None:
            return
        by = by_of(compiled, record["symbol"])
        if by == "time":
            account = self._account(record | {"exchangeSymbol": record["symbol"], "symbol": symbol}, by)
            assert account.carried is not None
            account.carried.message(record["receivedAt"], self._dark.get(name, _NONE))
        elif compiled.link is not None:
            self._raw_with_ids(compiled, record)

    def _raw_with_ids(self, compiled: CompiledChannel, record: dict[str, Any]) -> None:
        """Count a message of a channel without records, or one that makes none (``drop``)."""
        place = silent_place(compiled, record["payload"])
        series = self.catalogue.series(
            record["market"], record["channel"], record["stream"], record["symbol"]
        )
        if place is not None and place.span is not None and series is not None:
            self._count_of(series, record["symbol"]).silent_message(*place.span)

    def _letter(self, letter: dict[str, Any]) -> None:
        account = self.accounts.get((letter["market"], letter["stream"]))
        if account is not None:
            account.dead_letters += 1

    # The end

    def _findings(self, *, ledgers: bool) -> list[Finding]:
        for series, accounts in self._by_series.items():
            for account in accounts:
                account.counted = self._counted.get(series, Counted())
        start, end = self.request.start_ms, self.request.end_ms
        found: list[Finding | None] = []
        for account in self.accounts.values():
            account.start, account.end = (None if ms is None else ms * 1000 for ms in (start, end))
            account.whole_topic = start is None and self._place(account) not in self._cut
            if (start, end) == (None, None) or not account.empty:
                found.append(account.finding(ledgers=ledgers))
            elif account.ledger is not None:
                found.append(in_time(ledger_finding(account.ledger), start, end))
        return sorted((one for one in found if one is not None), key=lambda one: one.stream)

    def _place(self, account: Account) -> tuple[str, int]:
        """Return the partition that holds what is counted of a stream."""
        stream = account.stream
        compiled = self._compiled(stream.market, stream.channel)
        if stream.by == "time" or not compiled.structures:
            topic, key = (
                self.names.raw(stream.market, stream.channel),
                stream.exchange_symbol or stream.stream,
            )
        else:
            topic, key = self.names.unified(compiled.structures[0]), stream.symbol
        return topic, partition_for(key.encode(), max(1, self._shapes.get(topic, 0)))


_NONE = Spans()
