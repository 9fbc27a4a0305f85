"""One replay: reads raw topics over a range of time, derives, publishes, and keeps its progress in Kafka.

Killed at any moment and started again with the same arguments, it goes on where it was: it derives from the start
again, without publishing, until it is where it had come to, so that its sequencers know what they knew. What was
published after the last saved progress is published again.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from bridge import schema
from bridge.catalogue import Catalogue, TopicNames, catalogue
from bridge.collector import seldom
from bridge.core.instruments import Answer, InstrumentHistory, parse_exchange_info
from bridge.core.wire import Decoder
from bridge.errors import DecodeError, DeliveryFailed, TopicMismatch, UnexpectedMessage, UsageError
from bridge.kafka import topics as kafka_topics
from bridge.kafka.progress import Progress
from bridge.kafka.publisher import KafkaPublisher, create_publisher
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.kafka.topics import TopicSpec
from bridge.model import MARKETS, Market
from bridge.replay.merge import Merge, Written
from bridge.replay.rederive import API, RawRecord, Rederiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiokafka import TopicPartition

    from bridge.core.standing import StreamKey
    from bridge.kafka.reader import End, Start
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Environment, Fetched, RawKind

log = logging.getLogger("bridge")

_Written: TypeAlias = "Written[TopicPartition, RawRecord | None]"

SAVE_EVERY_RECORDS = 50_000
_FLUSH_SECONDS = 60.0
_PAUSE_ABOVE = 0.8
_MOST_WAITING = 20_000
_EVER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What to replay.

    Attributes:
        environment: whose topics.
        into: namespace of the topics to write, in place of ``binance``.
        start_ms: first event time, milliseconds; None from the beginning.
        end_ms: event time to stop before; None for all there is now.
        markets: which markets.
        symbols: unified or exchange symbols; empty for all.
        structures: unified structures; empty for all.
        hold_ms: as the live bridge's ``sequence.hold_ms``.
        snapshot_interval_ms: as the live bridge's ``snapshot_interval_seconds``, in milliseconds.
    """

    environment: Environment
    into: str
    start_ms: int | None = None
    end_ms: int | None = None
    markets: tuple[Market, ...] = MARKETS
    symbols: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    hold_ms: int = 250
    snapshot_interval_ms: int = 60_000

    @property
    def run_id(self) -> str:
        """The same request has the same id: that is how a second run finds the progress of the first."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(slots=True)
class ReplayProgress:
    """How far it is.

    Attributes:
        run_id: names the run.
        total: raw records to read, about (offsets of the range).
        read: raw records read so far.
        resumed: raw records that an earlier run had done already.
        records: unified records published by this run.
        topics: topics read.
    """

    run_id: str
    total: int = 0
    read: int = 0
    resumed: int = 0
    records: int = 0
    topics: list[str] = field(default_factory=list)


async def replay(
    settings: KafkaSettings,
    request: ReplayRequest,
    *,
    partitions: int,
    replication_factor: int,
    restart: bool = False,
    on_progress: Callable[[ReplayProgress], None] = lambda _: None,
) -> ReplayProgress:
    """Carry out a replay.

    Args:
        settings: where Kafka is.
        request: what to replay.
        partitions: of each topic that has to be created.
        replication_factor: of each topic that has to be created.
        restart: forget the progress of an earlier run.
        on_progress: told now and then.

    Raises:
        TopicMismatch: there is nothing raw to derive from; names what is missing.
        UsageError: no such structure or symbol.
        KafkaUnavailable: no broker answers.
        DeliveryFailed: Kafka did not take everything.
    """
    job = _Job(settings, request, partitions, replication_factor)
    with seldom():
        return await job.run(restart, on_progress)


class _Job:
    def __init__(
        self, settings: KafkaSettings, request: ReplayRequest, partitions: int, replication_factor: int
    ) -> None:
        self.settings, self.request = settings, request
        self.catalogue: Catalogue = catalogue()
        self.source = TopicNames(request.environment)
        self.target = TopicNames(request.environment, request.into)
        self.decoder = Decoder([schema.structure("raw")], {"Raw": _raw_record})
        self.shape = (partitions, replication_factor)
        self.newest_epochs: dict[StreamKey, int] = {}
        self.structures = self._structures()

    def _structures(self) -> frozenset[str]:
        unified = {name for name, s in schema.schemas().items() if s.unified}
        for name in self.request.structures:
            if name not in unified:
                raise UsageError(f"no unified structure {name!r}; there are {', '.join(sorted(unified))}")
        return frozenset(self.request.structures or unified)

    async def run(self, restart: bool, on_progress: Callable[[ReplayProgress], None]) -> ReplayProgress:
        progress = ReplayProgress(self.request.run_id)
        progress.topics = await self._topics()
        history = {market: await self._history(market) for market in self.request.markets}
        wanted = self._symbols(history)
        places = await partitions_for(self.settings, dict.fromkeys(progress.topics))
        async with AsyncExitStack() as stack:
            saved = await stack.enter_async_context(
                Progress(self.settings, f"binance-bridge.replay.{self.request.run_id}", places)
            )
            done = {} if restart else await saved.load()
            publisher = await self._publisher()
            try:
                rederiver = Rederiver(
                    catalogue=self.catalogue,
                    schemas=schema.schemas(),
                    names=self.target,
                    publisher=publisher,
                    structures=self.structures,
                    symbols=wanted,
                    history=history,
                    hold_ms=self.request.hold_ms,
                    run_id=self.request.run_id,
                    snapshot_interval_ms=self.request.snapshot_interval_ms,
                )
                if not done and "market" in self.structures:
                    for market in self.request.markets:
                        rederiver.markets(
                            market,
                            self._micros(self.request.start_ms, 0),
                            self._micros(self.request.end_ms, _EVER),
                        )
                await self._read(places, rederiver, publisher, saved, done, progress, on_progress)
            finally:
                left = await publisher.stop(_FLUSH_SECONDS)
            if left:
                raise DeliveryFailed(
                    f"Kafka did not take {sum(n for _, n in left)} records; run it again to go on"
                )
        return progress

    async def _read(
        self,
        places: list[TopicPartition],
        rederiver: Rederiver,
        publisher: KafkaPublisher,
        saved: Progress,
        done: dict[TopicPartition, int],
        progress: ReplayProgress,
        on_progress: Callable[[ReplayProgress], None],
    ) -> None:
        start: Start = "earliest" if self.request.start_ms is None else self.request.start_ms
        end: End = "now" if self.request.end_ms is None else self.request.end_ms
        merge: Merge[TopicPartition, RawRecord | None] = Merge()
        held: set[TopicPartition] = set()
        since_save = 0
        async with PartitionReader(
            self.settings, places, start=start, end=end, name="bridge-replay"
        ) as reader:
            progress.total = sum(max(0, reader.ends[p] - reader.positions[p]) for p in places)
            async for place, records in reader:
                merge.push(place, self._ordered(place, records))
                if merge.waiting(place) > _MOST_WAITING:
                    reader.hold(place)
                    held.add(place)
                since_save += self._derive(merge.due(reader.unfinished, held), rederiver, done, progress)
                for one in [one for one in held if merge.waiting(one) <= _MOST_WAITING // 2]:
                    reader.release(one)
                    held.discard(one)
                on_progress(progress)
                if publisher.buffered_bytes > _PAUSE_ABOVE * publisher.limit_bytes:
                    await publisher.wait_below(_PAUSE_ABOVE / 2)
                if since_save >= SAVE_EVERY_RECORDS:
                    since_save = 0
                    await self._save(
                        publisher, saved, {place: merge.behind(place) for place in merge.reached}
                    )
            self._derive(merge.due(()), rederiver, done, progress)
            reached = merge.reached
            rederiver.output.muted = bool(done) and all(done.get(p, 0) >= end for p, end in reached.items())
            rederiver.drain()
            progress.records = rederiver.output.records
            await self._save(publisher, saved, reached)
        on_progress(progress)

    def _ordered(self, place: TopicPartition, records: list[Fetched]) -> Iterator[_Written]:
        """Yield records with what orders them: as the bridges received them."""
        for record in records:
            raw = self._raw(record.value)
            if raw is None:
                yield Written(place, record.offset, 0, (0,), None)
                continue
            order = (raw.received_at, raw.connection_id, raw.number)
            yield Written(place, record.offset, raw.epoch, order, None if self._is_late(raw) else raw)

    def _is_late(self, raw: RawRecord) -> bool:
        """Whether a stream had a later owner already when this came: then readers drop it.

        It shows in the order of the partition alone: by its receipt such a record is the older one.
        """
        if raw.channel == API:
            return False
        key = (raw.market, raw.stream)
        newest = self.newest_epochs.get(key, 0)
        if raw.epoch > newest:
            self.newest_epochs[key] = raw.epoch
        return raw.epoch < newest

    def _derive(
        self,
        due: list[_Written],
        rederiver: Rederiver,
        done: dict[TopicPartition, int],
        progress: ReplayProgress,
    ) -> int:
        """Derive what is due; return how many raw records that was."""
        symbols = self._raw_symbols
        for written in due:
            if done:
                rederiver.output.muted = muted = written.offset < done.get(written.place, 0)
                progress.resumed += muted
            raw = written.item
            if raw is not None and (symbols is None or raw.symbol is None or raw.symbol in symbols):
                rederiver.take(raw)
        progress.read += len(due)
        progress.records = rederiver.output.records
        return len(due)

    def _raw(self, value: bytes | None) -> RawRecord | None:
        """Decode a raw record; what is none (another producer's) is left out and told."""
        try:
            record: RawRecord = self.decoder.decode(value or b"")
        except DecodeError as error:
            log.warning("left out of the replay: %s", error)
            return None
        return record

    @staticmethod
    async def _save(publisher: KafkaPublisher, saved: Progress, derived: dict[TopicPartition, int]) -> None:
        undelivered = await publisher.flush(_FLUSH_SECONDS)
        if undelivered:
            raise DeliveryFailed(f"Kafka did not take {undelivered} records; run it again to go on")
        await saved.save(derived)

    async def _topics(self) -> list[str]:
        """Return the raw topics that exist and give wanted structures."""
        names = [
            self.source.raw(market, name)
            for (market, name), compiled in sorted(self.catalogue.channels.items())
            if market in self.request.markets and self.structures & set(compiled.structures)
        ]
        answers = [self.source.raw(market, API) for market in self.request.markets]
        if self.structures.isdisjoint(self.catalogue.answered):
            answers = []
        async with kafka_topics.Cluster(self.settings) as cluster:
            found = await cluster.shapes([*names, *answers])
        if found.keys().isdisjoint(names) and "market" not in self.structures:
            raise TopicMismatch(f"no raw topic to derive from: none of {', '.join(names)} exists")
        return sorted(found)

    async def _history(self, market: Market) -> InstrumentHistory:
        """Read the exchangeInfo answers that the bridge kept."""
        history = InstrumentHistory()
        topic = self.source.raw(market, API)
        async with kafka_topics.Cluster(self.settings) as cluster:
            if not await cluster.shapes([topic]):
                return history
        places = await partitions_for(self.settings, {topic: None})
        async with PartitionReader(
            self.settings, places, start="earliest", end="now", name="bridge-replay"
        ) as reader:
            async for batch in reader:
                for record in batch.records:
                    raw = self._raw(record.value)
                    if raw is None or not raw.stream.partition("?")[0].endswith("/exchangeInfo"):
                        continue
                    try:
                        server_time, table = parse_exchange_info(market, raw.payload)
                    except UnexpectedMessage:
                        continue
                    history.add(Answer(raw.received_at, server_time, raw.number, table, raw.epoch))
        return history

    def _symbols(self, history: dict[Market, InstrumentHistory]) -> frozenset[str] | None:
        """Return the wanted unified symbols; note the wanted exchange symbols for the raw side."""
        self._raw_symbols: frozenset[str] | None = None
        if not self.request.symbols:
            return None
        tables = [answer.table for one in history.values() for answer in one.answers]
        unified: set[str] = set()
        exchange: set[str] = set()
        for name in self.request.symbols:
            found = [i for table in tables if (i := table.find(name)) is not None]
            if not found:
                raise UsageError(
                    f"symbol {name!r} is in none of the exchangeInfo answers kept in the api topics"
                )
            unified |= {i.symbol for i in found}
            exchange |= {i.id for i in found} | {i.pair for i in found}
        self._raw_symbols = frozenset(exchange)
        return frozenset(unified)

    async def _publisher(self) -> KafkaPublisher:
        """Create the target topics that are missing, and start a publisher that knows them."""
        partitions, replicas = self.shape
        families = self.catalogue.topics.families
        specs = [
            TopicSpec(self.target.unified(s), partitions, replicas, dict(families["unified"].config))
            for s in sorted(self.structures)
        ] + [
            TopicSpec(
                self.target.of(family),
                families[family].partitions or partitions,
                replicas,
                dict(families[family].config),
            )
            for family in ("gaps", "dead-letter")
        ]
        async with kafka_topics.Cluster(self.settings) as cluster:
            missing = set(await kafka_topics.missing(specs, cluster))
            await kafka_topics.apply(
                kafka_topics.Plan(create=tuple(s for s in specs if s.name in missing)), cluster
            )
        publisher = create_publisher(self.settings, name="bridge-replay")
        await publisher.start()
        await publisher.refresh([spec.name for spec in specs])
        return publisher

    @staticmethod
    def _micros(time_ms: int | None, default: int) -> int:
        return default if time_ms is None else time_ms * 1000


def _raw_record(
    _environment: Environment,
    market: Market,
    channel: str,
    stream: str,
    symbol: str | None,
    connection_id: int,
    epoch: int,
    _kind: RawKind,
    number: int,
    received_at: int,
    _event_time: int | None,
    payload: bytes,
) -> RawRecord:
    """Return what is needed of the fields of ``avro/raw.avsc``, which come in their order."""
    return RawRecord(market, channel, stream, symbol, connection_id, number, received_at, epoch, payload)
