"""Read given partitions in batches, from an offset or a time to an end or for ever. No consumer group.

Times are those of the records, which are event times where events have them. They are only nearly in order,
so a range of time is read a little beyond its end and filtered: what comes out is exactly the records whose
time lies within, as long as none is later than its neighbours by more than ``DISORDER_MS``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bridge.errors import KafkaUnavailable, TopicMismatch
from bridge.kafka import client as kafka_client
from bridge.kafka.partitioner import partition_for
from bridge.kafka.topics import Cluster
from bridge.kafka.unpacking import unpack_with
from bridge.model import Fetched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from bridge.kafka.settings import KafkaSettings

log = logging.getLogger("bridge")

DISORDER_MS = 60_000
"""How much later than a following record's time a record's may be, in milliseconds."""

Start: TypeAlias = 'Literal["earliest", "latest"] | int | Mapping[TopicPartition, int]'
"""Where to begin: an end of the topic, a time in milliseconds since the epoch, or an offset per partition."""

End: TypeAlias = 'Literal["never", "now"] | int'
"""Where to stop: never, at the ends as they are at the start, or before a time in milliseconds (and at those
ends at the latest)."""

_WAIT_MS = 500
_FETCH_BYTES = 16 * 1024 * 1024
_PARTITION_FETCH_BYTES = 1024 * 1024


def _fetched(place: TopicPartition, found: Any) -> Fetched:
    return Fetched(
        place.topic,
        place.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        tuple(found.headers),
    )


class ReadBatch(NamedTuple):
    """Records of one partition, in its order."""

    place: TopicPartition
    records: list[Fetched]


async def partitions_for(
    settings: KafkaSettings, topics: Mapping[str, Iterable[bytes] | None], *, timeout: float = 10.0
) -> list[TopicPartition]:
    """Return the partitions that can hold the given keys.

    Args:
        settings: where Kafka is.
        topics: the keys of interest for each topic; None for all of them.
        timeout: seconds to connect.

    Raises:
        TopicMismatch: names the topics that are missing.
        KafkaUnavailable: no broker serves us.
    """
    async with Cluster(settings, timeout=timeout) as cluster:
        shapes = await cluster.shapes(topics)
    absent = sorted(topics.keys() - shapes.keys())
    if absent:
        raise TopicMismatch(f"topics missing, or hidden from this user: {', '.join(absent)}")
    found: list[TopicPartition] = []
    for topic, keys in topics.items():
        count, _ = shapes[topic]
        numbers = range(count) if keys is None else sorted({partition_for(key, count) for key in keys})
        found += [TopicPartition(topic, number) for number in numbers]
    return found


class PartitionReader:
    """Gives what partitions hold, batch by batch; an asynchronous context manager and iterator.

    ::

        async with PartitionReader(settings, places, start="earliest", end="now") as reader:
            async for place, records in reader:
                ...

    The iteration ends when every partition has reached its end. Without an end it goes on, and the moment it
    has given everything that was there at the start it gives one batch without records, so that a loop comes
    round to look at :attr:`caught_up`.

    Args:
        settings: where Kafka is.
        places: the partitions; :func:`partitions_for` finds those of keys.
        start: where to begin.
        end: where to stop.
        name: client id, as broker logs and quotas show it.
        batch_records: the most records in one round of batches.
        timeout: seconds to connect and to look up offsets.

    Records of transactions that were aborted are left out; those of one that is open are waited for.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        places: Iterable[TopicPartition],
        *,
        start: Start = "earliest",
        end: End = "never",
        name: str = "bridge-reader",
        batch_records: int = 5000,
        timeout: float = 10.0,
    ) -> None:
        self._settings, self._places = settings, list(dict.fromkeys(places))
        self._start, self._end = start, end
        self._name, self._batch_records, self._timeout = name, batch_records, timeout
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._stops: dict[TopicPartition, int] = {}
        self._behind: set[TopicPartition] = set()
        self._reading: set[TopicPartition] = set()
        self._held: set[TopicPartition] = set()
        self._lost = 0

    @property
    def caught_up(self) -> bool:
        """Whether every record that was there at the start has been given."""
        return not self._behind

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """Offset of the next record of each partition, counting what has been given."""
        return self._positions

    @property
    def ends(self) -> Mapping[TopicPartition, int]:
        """Offset after the newest record of each partition, as it was at the start."""
        return self._ends

    @property
    def lost(self) -> int:
        """How many offsets Kafka deleted (retention) before they could be read."""
        return self._lost

    @property
    def unfinished(self) -> frozenset[TopicPartition]:
        """The partitions that have not given everything up to their end."""
        return frozenset(self._reading)

    def hold(self, place: TopicPartition) -> None:
        """Give nothing more of a partition until :meth:`release`; never hold all that are unfinished."""
        self._held.add(place)

    def release(self, place: TopicPartition) -> None:
        """Give what a partition holds again."""
        self._held.discard(place)

    async def __aenter__(self) -> Self:
        """Connect and find the offsets.

        Raises:
            KafkaUnavailable: no broker serves us; names each and its reason.
            TopicMismatch: a partition does not exist; names it.
        """
        await self._check_places()
        self._consumer = AIOKafkaConsumer(
            **self._settings.aiokafka_options(),
            client_id=self._name,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
        )
        try:
            async with asyncio.timeout(self._timeout):
                await self._consumer.start()
                unpack_with(self._consumer, _fetched)
                await self._find_offsets()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._close()
            servers = self._settings.bootstrap_servers
            raise KafkaUnavailable(f"{servers}: offsets could not be looked up: {error!r}") from None
        except BaseException:
            await self._close()
            raise
        self._assign()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def __aiter__(self) -> AsyncIterator[ReadBatch]:
        assert self._consumer is not None, "use it by `async with`"
        told = self._end != "never" or not self._places
        while True:
            if not told and self.caught_up:
                told = True
                yield ReadBatch(self._places[0], [])
            if not self._reading:
                return
            for place, found in (await self._fetch()).items():
                records = self._wanted(place, found)
                if records:
                    # Before the records are given, so that whoever stops at them knows where to go on.
                    self._positions[place] = records[-1].offset + 1
                    yield ReadBatch(place, records)
            await self._note_positions()

    async def _check_places(self) -> None:
        async with Cluster(self._settings, timeout=self._timeout) as cluster:
            shapes = await cluster.shapes({place.topic for place in self._places})
        absent = [
            f"{place.topic}/{place.partition}"
            for place in self._places
            if place.partition >= shapes.get(place.topic, (0, 0))[0]
        ]
        if absent:
            raise TopicMismatch(f"partitions missing, or hidden from this user: {', '.join(absent)}")

    async def _find_offsets(self) -> None:
        """Find where each partition begins, ends, and is to be read from and to."""
        places = self._places
        if not places:
            # aiokafka trips over a task of its own when it is stopped before that began.
            await asyncio.sleep(0)
            return
        first = await self._consumer.beginning_offsets(places)
        self._ends = await self._find_ends(places)
        self._positions = await self._starts(first)
        self._stops = {}
        if self._end == "now":
            self._stops = dict(self._ends)
        elif self._end != "never":
            after = await self._offsets_at(self._end + DISORDER_MS)
            self._stops = {place: min(after[place], self._ends[place]) for place in places}

    async def _find_ends(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of all records, whether or not a transaction before them is open still.

        A consumer of committed records is told the place of the first open transaction: committed ones may lie behind
        it, of whoever else writes to the partition.
        """
        looking = AIOKafkaConsumer(
            **self._settings.aiokafka_options(), client_id=self._name, enable_auto_commit=False
        )
        try:
            await looking.start()
            found: dict[TopicPartition, int] = await looking.end_offsets(places)
        finally:
            await kafka_client.close(looking, timeout=2)
        return found

    async def _starts(self, first: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        if self._start == "earliest":
            return dict(first)
        if self._start == "latest":
            return dict(self._ends)
        if isinstance(self._start, int):
            return await self._offsets_at(self._start)
        starts = {place: self._start.get(place, first[place]) for place in self._places}
        self._lost = sum(max(0, first[place] - start) for place, start in starts.items())
        return {place: max(start, first[place]) for place, start in starts.items()}

    async def _offsets_at(self, time_ms: int) -> dict[TopicPartition, int]:
        """Return the first offset at or after a time; the end where there is none."""
        found = await self._consumer.offsets_for_times(dict.fromkeys(self._places, max(0, time_ms)))
        ends = self._ends
        return {p: found[p].offset if found.get(p) is not None else ends[p] for p in self._places}

    def _assign(self) -> None:
        """Begin to fetch. Without an await between: aiokafka else begins to look for positions of its own."""
        stops = self._stops
        self._behind = {p for p in self._places if self._positions[p] < stops.get(p, self._ends[p])}
        self._reading = {p for p in self._places if p not in stops or self._positions[p] < stops[p]}
        if self._reading:
            self._consumer.assign(sorted(self._reading))
            for place in self._reading:
                self._consumer.seek(place, self._positions[place])

    async def _fetch(self) -> dict[TopicPartition, list[Fetched]]:
        try:
            found: dict[TopicPartition, list[Fetched]] = await self._consumer.getmany(
                *(self._reading - self._held), timeout_ms=_WAIT_MS, max_records=self._batch_records
            )
        except OffsetOutOfRangeError as error:
            await self._skip_deleted(list(error.args[0]))
            return {}
        return found

    def _wanted(self, place: TopicPartition, found: list[Fetched]) -> list[Fetched]:
        """Return what lies before the stop and within the times asked for."""
        stop = self._stops.get(place)
        if stop is not None and found and found[-1].offset >= stop:
            found = [record for record in found if record.offset < stop]
        if isinstance(self._start, int):
            found = [record for record in found if record.timestamp >= self._start]
        if isinstance(self._end, int):
            found = [record for record in found if record.timestamp < self._end]
        return found

    async def _note_positions(self) -> None:
        """Move on, also over what is no record: markers of transactions, holes that compaction left."""
        for place in list(self._reading):
            position = self._positions[place] = await self._consumer.position(place)
            stop = self._stops.get(place)
            if position >= (self._ends[place] if stop is None else stop):
                self._behind.discard(place)
                if stop is not None:
                    self._positions[place] = stop
                    self._reading.discard(place)
                    self._consumer.pause(place)

    async def _skip_deleted(self, places: list[TopicPartition]) -> None:
        """Go on at the oldest record there still is, where retention was faster than we."""
        first = await self._consumer.beginning_offsets(places)
        for place in places:
            missed = first[place] - self._positions[place]
            self._lost += max(0, missed)
            log.warning(
                "kafka: %d records of %s/%d were deleted unread", missed, place.topic, place.partition
            )
            self._positions[place] = first[place]
            self._consumer.seek(place, first[place])

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await kafka_client.close(consumer, timeout=2)
