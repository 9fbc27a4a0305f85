"""Test doubles around the pure core: lanes that remember, and an independent reader of what they got."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastavro import schemaless_reader

from bridge.catalogue import Catalogue, TopicNames, catalogue
from bridge.core.derive import Writer
from bridge.errors import DeliveryFailed
from bridge.kafka.partitioner import partition_for
from bridge.pipeline import Pipeline
from bridge.schema import schemas
from bridge.telemetry import Telemetry

if TYPE_CHECKING:
    from bridge.model import Market

BY_HEADER = {schema.header: schema for schema in schemas().values()}


class Kept(NamedTuple):
    """A record as it was queued."""

    topic: str
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def record(self) -> dict[str, Any]:
        """The value, read by fastavro."""
        return read(self.value)[1]


def read(value: bytes) -> tuple[str, dict[str, Any]]:
    """Return structure and record of a value, read by fastavro; nothing may be left over."""
    schema = BY_HEADER[value[:10]]
    rest = io.BytesIO(value[10:])
    record = schemaless_reader(rest, schema.parsed)
    assert not rest.read(), "bytes left over"
    assert isinstance(record, dict)
    return schema.structure, record


@dataclass
class KeptLane:
    """A lane that remembers what it was given."""

    topic: str
    kept: list[Kept]

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Any = ()) -> None:
        """Remember a record."""
        self.kept.append(Kept(self.topic, timestamp_ms, key, value, tuple(headers)))


@dataclass
class KeepingPublisher:
    """A publisher without Kafka."""

    kept: list[Kept] = field(default_factory=list)
    buffered_bytes: int = 0

    def lane(self, topic: str, key: bytes) -> KeptLane:
        """Return a lane of the topic."""
        return KeptLane(topic, self.kept)

    def of(self, *parts: str) -> list[Kept]:
        """Return what went to the topic ``binance.prod.<parts>``."""
        topic = ".".join(("binance", "prod", *parts))
        return [k for k in self.kept if k.topic == topic]


@dataclass
class SettlingPublisher(KeepingPublisher):
    """A publisher that acknowledges at once, or when it is told to."""

    at_once: bool = True
    acknowledged: int = 0
    beyond: int = 0
    """How many records others have published to each partition."""
    discards: int = 0
    waiting: int = 0
    """How many wait for an acknowledgement."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def position(self, topic: str, key: bytes) -> tuple[int, int]:
        """Return a partition, and how many records of its topic are acknowledged."""
        done = [kept for kept in self.kept[: self.acknowledged] if kept.topic == topic]
        return partition_for(key, 3), len(done) + self.beyond - 1

    def acknowledge(self) -> None:
        """Let all that is queued be acknowledged."""
        self.acknowledged = len(self.kept)
        self._changed.set()

    async def settle(self) -> None:
        """Return once all that is queued now is acknowledged."""
        goal, discards = len(self.kept), self.discards
        if self.at_once:
            self.acknowledge()
        while self.acknowledged < goal:
            self._changed.clear()
            self.waiting += 1
            try:
                await self._changed.wait()
            finally:
                self.waiting -= 1
            if self.discards != discards:
                raise DeliveryFailed("what waited for Kafka was discarded")

    def discard(self) -> list[tuple[str, int]]:
        """Drop what is not acknowledged."""
        dropped = Counter(kept.topic for kept in self.kept[self.acknowledged :])
        del self.kept[self.acknowledged :]
        self.discards += 1
        self._changed.set()
        return sorted(dropped.items())


def pipeline(
    publisher: KeepingPublisher,
    *,
    hold_ms: int = 250,
    streams: Catalogue | None = None,
    snapshot_interval_ms: int | None = None,
) -> Pipeline:
    """Return a live pipeline that publishes to ``publisher``; with order books where an interval is given."""
    return Pipeline(
        catalogue=streams or catalogue(),
        schemas=schemas(),
        names=TopicNames("prod"),
        publisher=publisher,
        telemetry=Telemetry(),
        writer=Writer("live", 0),
        hold_ms=hold_ms,
        state_interval_ms=1000,
        snapshot_interval_ms=snapshot_interval_ms,
    )


def endpoint(market: Market) -> str:
    """Return the path of exchangeInfo."""
    return {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}[market] + "/exchangeInfo"
