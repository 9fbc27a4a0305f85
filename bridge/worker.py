"""One shard at work: its pipeline, its connections, and the checkpoints that tell its next owner where to go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from aiokafka.structs import TopicPartition

from bridge.binance.transport import ABNORMAL
from bridge.core.conversions import micros
from bridge.core.schema import encode
from bridge.cursor import checkpoint_key
from bridge.errors import DeliveryFailed
from bridge.kafka.partitioner import partition_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from bridge.account_cursor import Published
    from bridge.account_desk import AccountDesk
    from bridge.binance.connection import ConnectionView
    from bridge.catalogue import Catalogue, ChosenStream, TopicNames
    from bridge.core.instruments import Instruments
    from bridge.core.schema import Schema
    from bridge.core.standing import Standing, StreamKey
    from bridge.cursor import Found
    from bridge.kafka.publisher import KafkaPublisher
    from bridge.model import Market, Stream
    from bridge.pipeline import Pipeline
    from bridge.telemetry import Lifecycle, Telemetry

log = logging.getLogger("bridge")

_Places: TypeAlias = "dict[TopicPartition, int]"

_MOST_BEHIND = 10_000
"""Records of a partition that a new owner reads in vain for a stream that stands still."""

_AT_ONCE = 20
"""Streams looked at, or checkpoints written, before messages have their turn again."""


class Pool(Protocol):
    """The connections of a market: one pool, or one for each leg."""

    async def start(self) -> None:
        """Begin to open connections."""

    async def pause(self, reason: str) -> None:
        """Close all connections and open none until :meth:`resume`."""

    async def resume(self) -> None:
        """Open the connections again."""

    async def stop(self, timeout: float) -> None:
        """Close everything within ``timeout`` seconds."""

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection."""


def shard_of(market: Market, name: str, shards: int) -> int:
    """Return the shard of a stream; ``name`` is its exchange symbol, or its own name where it has none."""
    return partition_for(f"{market}:{name}".encode(), shards)


class Surroundings(NamedTuple):
    """What all workers of a process have in common.

    Attributes:
        schemas: the schemas.
        names: the names of the topics.
        catalogue: the declarations.
        telemetry: told of everything that happens.
        now: the wall clock, microseconds.
        checkpoint_seconds: time between two checkpoints of a stream that goes on.
        in_transactions: workers' publishers write in transactions, and call :meth:`ShardWorker.before_commit`.
        spawn: runs something beside; a failure ends the bridge.
    """

    schemas: Mapping[str, Schema]
    names: TopicNames
    catalogue: Catalogue
    telemetry: Telemetry
    now: Callable[[], int]
    checkpoint_seconds: float
    in_transactions: bool
    spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]]


class _Look(NamedTuple):
    """Where a stream stood, and its partitions, at one moment.

    Attributes:
        standing: how far it was published.
        places: nothing acknowledged later lies before these offsets.
        at: microseconds.
    """

    standing: Standing
    places: _Places
    at: int


class ShardWorker:
    """Owns a shard's streams: derives them, and keeps checkpoints of how far they are published.

    Args:
        shard: number of the shard.
        epoch: its epoch.
        pipeline: its pipeline, writing with that epoch.
        publisher: where the pipeline's records go.
        around: what workers have in common.

    Attributes:
        pools: its connections, by market, once they are opened.
        desks: its accounts, by market, once it goes on with them.
        complete: the markets of which all streams and accounts are carried.
        streams: names of its streams, by market, once it goes on with them.
    """

    def __init__(
        self, shard: int, epoch: int, pipeline: Pipeline, publisher: KafkaPublisher, around: Surroundings
    ) -> None:
        self.shard, self.epoch, self.pipeline, self.publisher = shard, epoch, pipeline, publisher
        self._around = around
        self.pools: dict[Market, Pool] = {}
        self.desks: dict[Market, AccountDesk] = {}
        self.complete: set[Market] = set()
        self.streams: dict[Market, set[str]] = {}
        self._chosen: dict[Market, Sequence[ChosenStream]] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._written: dict[StreamKey, _Places] = {}
        self._told = asyncio.Event()
        self._writing = asyncio.Lock()
        self._due = 0
        self._keeper: asyncio.Task[None] | None = None
        pipeline.on_unsettled = self._told.set
        around.telemetry.listeners[self._listener] = self._follow

    @property
    def _listener(self) -> str:
        return f"shard {self.shard}, epoch {self.epoch}"

    # Life

    def prepare(
        self, market: Market, table: Instruments, chosen: Iterable[ChosenStream]
    ) -> set[TopicPartition]:
        """Make ready for streams; return the partitions that they, and their gaps, are published in."""
        self.pipeline.use(market, table)
        places: set[TopicPartition] = set()
        for one in chosen:
            self.pipeline.add(one)
            for topic, key in self.pipeline.outlets(one.stream):
                places.add(TopicPartition(topic, self.publisher.position(topic, key)[0]))
        return places

    def resume(self, market: Market, chosen: Sequence[ChosenStream], found: Found) -> None:
        """Go on with streams where their last owner stopped; once for a market."""
        self._chosen[market] = chosen
        self.streams[market] = {one.stream.name for one in chosen}
        self._ends.update(found.ends)
        now = self._around.now()
        for one in chosen:
            resumption = found.resumptions.get((market, one.stream.name))
            if resumption is not None:
                self.pipeline.resume(one.stream, resumption, now)

    async def open(
        self, market: Market, pool: Callable[[ShardWorker, Market, Sequence[ChosenStream]], Pool]
    ) -> None:
        """Open the connections of a market that :meth:`resume` went on with; does nothing where they are."""
        if market in self.pools:
            return
        # Before the first message, so that whoever takes over next finds every one behind it.
        await self.checkpoint(everything=True)
        await self.publisher.settle()
        if self._keeper is None:
            keeping = self._keep_in_transactions() if self._around.in_transactions else self._keep()
            self._keeper = self._around.spawn(keeping, f"checkpoints of shard {self.shard}")
        self.pools[market] = pool(self, market, self._chosen[market])
        await self.pools[market].start()

    async def listen(self, market: Market, desk: AccountDesk, published: Iterable[Published]) -> None:
        """Go on with the shard's accounts of a market where Kafka has them, and begin to listen."""
        desk.go_on_from(published)
        self.desks[market] = desk
        await desk.start()

    async def quiesce(self) -> None:
        """Take nothing in until :meth:`go_on`, and have everything that was taken in acknowledged."""
        self._hold()
        self._due = 0
        await self.checkpoint()
        await self.publisher.settle()

    def go_on(self) -> None:
        """Take in again what comes, and what came meanwhile."""
        self.pipeline.release()
        for desk in self.desks.values():
            desk.release()

    def _hold(self) -> None:
        self.pipeline.hold()
        for desk in self.desks.values():
            desk.hold()

    def _connections(self) -> list[Pool]:
        return [*self.pools.values(), *self.desks.values()]

    async def drain(self, seconds: float) -> None:
        """Close the connections, derive everything that came, and have it acknowledged as far as ``seconds`` allow."""
        await asyncio.gather(*(pool.stop(seconds / 2) for pool in self._connections()))
        await self._end_keeper()
        for desk in self.desks.values():
            desk.release()
        self.pipeline.drain()
        # A stop waits for no answer. One that still came would meet gaps that a replay, which derives what is held
        # only behind the last raw record, has not found yet.
        self.pipeline.hold()
        with contextlib.suppress(TimeoutError, DeliveryFailed):
            async with asyncio.timeout(seconds / 2):
                await self.checkpoint(everything=True)
        self._around.telemetry.listeners.pop(self._listener, None)

    async def halt(self) -> None:
        """Derive nothing more and write no checkpoint: the shard has, or may have, another owner."""
        self._hold()
        self._around.telemetry.listeners.pop(self._listener, None)
        await self._end_keeper()

    async def abandon(self, seconds: float = 5.0) -> None:
        """Halt, and close the connections."""
        await self.halt()
        await asyncio.gather(*(pool.stop(seconds) for pool in self._connections()))

    async def _end_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    def _follow(self, event: Lifecycle) -> None:
        """Tell the pipeline which connection carries what: with none, there is a hole."""
        if event.connection_id is None:
            return
        if event.event == "connection.subscribed":
            self.pipeline.subscribed(event.connection_id, event.streams, self._around.now())
        elif event.event == "connection.closed":
            self.pipeline.closed(event.connection_id, clean=event.code not in {None, ABNORMAL})

    # Checkpoints

    async def _keep(self) -> None:
        """Write checkpoints now and then, and gap records as soon as what they say is true."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._around.checkpoint_seconds
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._told.wait()
            self._told.clear()
            try:
                if loop.time() >= due:
                    await self.checkpoint()
                    due = loop.time() + self._around.checkpoint_seconds
                else:
                    await self._tell_settled()
            except DeliveryFailed:
                return  # what waited was discarded, for the shard may have another owner: this one ends

    async def _keep_in_transactions(self) -> None:
        """Write checkpoints also while nothing else is published that would bring them about."""
        while True:
            await asyncio.sleep(self._around.checkpoint_seconds)
            self.before_commit()

    async def checkpoint(self, *, everything: bool = False) -> None:
        """Write how far the streams are published, once that is acknowledged."""
        async with self._writing:
            # With thousands of streams it takes tenths of a second: messages are not to wait for it.
            looks: list[_Look] = []
            for number, stream in enumerate(self._streams()):
                looks += self._look(stream, always=everything)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self._settle_and_tell()
            for number, look in enumerate(looks):
                self._write(look)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _tell_settled(self) -> None:
        async with self._writing:
            await self._settle_and_tell()

    async def _settle_and_tell(self) -> None:
        count = self.pipeline.unsettled
        await self.publisher.settle()
        if count:
            self.pipeline.tell(count)
            await self.publisher.settle()

    def before_commit(self) -> None:
        """Queue gap records, and checkpoints of just this state: they go in one transaction with the data."""
        self.pipeline.tell(self.pipeline.unsettled)
        now = self._around.now()
        if now >= self._due:
            self._due = now + int(self._around.checkpoint_seconds * 1_000_000)
            for stream in self._streams():
                for look in self._look(stream):
                    self._write(look)

    def _streams(self) -> list[Stream]:
        """Return the streams that it goes on with; a checkpoint of others would say that nothing was published."""
        return [one.stream for chosen in self._chosen.values() for one in chosen]

    def _look(self, stream: Stream, *, always: bool = False) -> list[_Look]:
        """Return where a stream stands, if a checkpoint is to say so: it went on, or much was published beside it."""
        now, places = self._around.now(), self._places(stream)
        before = self._written.get((stream.market, stream.name), {})
        behind = any(offset - before.get(place, offset) > _MOST_BEHIND for place, offset in places.items())
        standing = self.pipeline.standing(stream, now, always=always or behind)
        return [] if standing is None else [_Look(standing, places, now)]

    def _places(self, stream: Stream) -> _Places:
        """Return for each partition of a stream an offset that nothing acknowledged from now on lies before."""
        places: _Places = {}
        for topic, key in self.pipeline.outlets(stream):
            partition, offset = self.publisher.position(topic, key)
            place = TopicPartition(topic, partition)
            places[place] = max(offset, self._ends.get(place, 0))
        return places

    def _record(self, look: _Look) -> dict[str, Any]:
        standing, places, now = look
        stream, tail = standing.stream, standing.tail
        closes = tail is not None and tail.close_time
        coverage = (
            b"" if standing.coverage is None else encode(self._around.schemas["coverage"], standing.coverage)
        )
        return {
            "market": stream.market, "channel": stream.channel, "stream": stream.name,
            "exchangeSymbol": stream.symbol, "symbol": standing.symbol, "shard": self.shard,
            "writerEpoch": self.epoch, "at": now,
            "lastSequence": None if tail is None else tail.last,
            "lastEventTime": None if tail is None or not tail.event_ms else micros(tail.event_ms),
            "closeTime": micros(tail.close_time) if tail is not None and closes else None,
            "closed": tail is not None and tail.closed,
            "carriedUntil": standing.carried_until,
            "places": [
                {"topic": place.topic, "partition": place.partition, "offset": offset}
                for place, offset in places.items()
            ],
            "coverage": coverage,
        }  # fmt: skip

    def _write(self, look: _Look) -> None:
        """Queue a stream's checkpoint, and its coverage record."""
        around, standing, now = self._around, look.standing, look.at
        stream = standing.stream
        self._written[stream.market, stream.name] = look.places
        record = self._record(look)
        key = checkpoint_key(stream.market, stream.name)
        lane = self.publisher.lane(around.names.of("control", "checkpoints"), key)
        lane.append(now // 1000, key, encode(around.schemas["checkpoint"], record))
        if standing.coverage is not None:
            key = standing.coverage_key
            lane = self.publisher.lane(around.names.of("coverage"), key)
            lane.append(now // 1000, key, record["coverage"])
