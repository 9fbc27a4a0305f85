"""A Kafka cluster as a source of records."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from bridge.errors import ConfigError, TopicMismatch, UsageError
from bridge.kafka.partitioner import partition_for
from bridge.kafka.reader import DISORDER_MS, PartitionReader, partitions_for
from bridge.kafka.settings import KafkaSettings
from bridge.sdk.source import CaughtUp, Fetched
from bridge.sdk.times import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka import TopicPartition

    from bridge.kafka.reader import End, Start
    from bridge.sdk.source import Request

_QUEUED_BATCHES = 8
_NAME = "bridge-sdk"


def settings_of(bootstrap_servers: str, options: Mapping[str, Any]) -> KafkaSettings:
    """Return how to reach Kafka.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    known = [field.name for field in fields(KafkaSettings) if field.name != "bootstrap_servers"]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"connect() has no option {name!r}; {hint}")
    given = dict(options)
    if isinstance(given.get("sasl_password"), str):
        given["sasl_password"] = SecretStr(given["sasl_password"])
    return KafkaSettings(bootstrap_servers=bootstrap_servers, **given)


class KafkaSource:
    """The topics of a cluster.

    Args:
        settings: where it is.
        timeout: seconds it may take to answer when a reading begins.
    """

    def __init__(self, settings: KafkaSettings, timeout: float = 10) -> None:
        self._settings, self._timeout = settings, timeout
        self._counts: dict[str, int] = {}
        self._counting = asyncio.Lock()

    def read(self, request: Request) -> KafkaReading:
        """Return a reading, not yet open."""
        return KafkaReading(self._settings, request, self._timeout)

    async def partition(self, topic: str, key: bytes) -> int:
        """Return the partition of a key; see :meth:`bridge.sdk.source.Source.partition`."""
        async with self._counting:
            if topic not in self._counts:
                places = await _places(self._settings, {topic: None}, self._timeout)
                self._counts[topic] = len(places)
        return partition_for(key, self._counts[topic])

    async def close(self) -> None:
        """Nothing is shared between readings."""


class KafkaReading:
    """One reading. A task of its own fetches ahead, so that giving up waiting for a record loses none."""

    def __init__(self, settings: KafkaSettings, request: Request, timeout: float) -> None:
        self._settings, self._request, self._timeout = settings, request, timeout
        self._queue: asyncio.Queue[Sequence[Fetched | CaughtUp] | BaseException] = asyncio.Queue(
            _QUEUED_BATCHES
        )
        self._task: asyncio.Task[None] | None = None
        self._places: list[TopicPartition] = []
        self._next: dict[TopicPartition, int] = {}
        self._end_ms: int | None = None

    @property
    def places(self) -> Sequence[TopicPartition]:
        """The partitions that are read."""
        return self._places

    async def open(self) -> None:
        """Fix where to read from; see :meth:`bridge.sdk.source.Reading.open`."""
        request, now = self._request, _now()
        start: Start = (
            "latest" if request.start is None else milliseconds(request.start, now=now, what="start")
        )
        if request.end not in {None, "now"}:
            self._end_ms = milliseconds(request.end, now=now, what="end")
        end: End = "now" if request.end == "now" else "never"
        live_seconds = None
        if self._end_ms is not None and self._end_ms > now:
            live_seconds = (self._end_ms - now) / 1000
        elif self._end_ms is not None:
            end = self._stop(self._end_ms)
        if request.start is None and end != "never":
            raise UsageError("there is an end but no start, which would be now; give one, 'earliest' perhaps")
        self._places = await _places(
            self._settings, dict.fromkeys(request.topics, request.keys), self._timeout
        )
        reader = await self._reader_of(start, end).__aenter__()
        self._next = dict(reader.positions)
        self._task = asyncio.create_task(
            self._pump(reader, live_seconds), name=f"{_NAME} {request.topics[0]}"
        )

    def _reader_of(self, start: Start, end: End) -> PartitionReader:
        return PartitionReader(
            self._settings,
            self._places,
            start=start,
            end=end,
            name=_NAME,
            timeout=self._timeout,
        )

    def _stop(self, end_ms: int) -> End:
        """Return the end to ask the reader for: it looks a little further by itself, ``late`` may be more."""
        late = self._request.late
        return "now" if late is None else end_ms + max(0, late - DISORDER_MS)

    async def fetch(self) -> Sequence[Fetched | CaughtUp]:
        """Return the next records; see :meth:`bridge.sdk.source.Reading.fetch`."""
        found = await self._queue.get()
        if isinstance(found, BaseException):
            self._queue.put_nowait(found)  # so that whoever asks again hears it again
            raise found
        if not found:
            self._queue.put_nowait(())
        return found

    async def close(self) -> None:
        """Stop fetching and close the connections."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(())  # whoever still waits for records learns that there will be none

    async def _pump(self, reader: PartitionReader, live_seconds: float | None) -> None:
        """Forward everything up to the end; one that is ``live_seconds`` ahead is waited for, then read up to."""
        try:
            try:
                async with asyncio.timeout(live_seconds):
                    await self._forward(reader)
            except TimeoutError:
                assert self._end_ms is not None
                await reader.__aexit__()
                reader = self._reader_of(self._next, self._stop(self._end_ms))
                await reader.__aenter__()
                await self._forward(reader)
            await self._queue.put(())
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for records
            await self._queue.put(error)
        finally:
            await reader.__aexit__()

    async def _forward(self, reader: PartitionReader) -> None:
        keys, end = self._request.keys, self._end_ms
        async for place, records in reader:
            if not records:
                await self._queue.put((CaughtUp(_now()),))
                continue
            wanted = records
            if keys is not None:
                wanted = [record for record in wanted if record.key in keys]
            if end is not None:
                wanted = [record for record in wanted if record.timestamp < end]
            if wanted:
                await self._queue.put(wanted)
            self._next[place] = records[-1].offset + 1


async def _places(
    settings: KafkaSettings, topics: Mapping[str, Iterable[bytes] | None], timeout: float
) -> list[TopicPartition]:
    try:
        return await partitions_for(settings, topics, timeout=timeout)
    except TopicMismatch as error:
        raise TopicMismatch(
            f"{error} at {settings.bootstrap_servers}. A bridge makes the topics of its subscriptions when it "
            "starts (create_topics: true), or `binance-bridge topics apply` does; or is the environment another?"
        ) from None


def _now() -> int:
    return time.time_ns() // 1_000_000
