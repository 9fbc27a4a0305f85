"""Where a shard's new owner goes on: claims and checkpoints, and what was published behind them, read from Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.structs import TopicPartition

from bridge.core.coverage import Ledger, covered
from bridge.core.resumption import Reading, Resumption
from bridge.core.sequence import Tail
from bridge.core.series import Series, place_of, series_of
from bridge.core.spans import Span
from bridge.core.wire import Decoder
from bridge.errors import DecodeError
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.schema import schemas

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.catalogue import Catalogue, ChosenStream, TopicNames
    from bridge.core.compile import CompiledChannel
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Market

_CLAIM = b"shard:"


class Claim(NamedTuple):
    """A process took a shard over.

    Attributes:
        epoch: the shard's epoch since then: the offset of the record.
        instance: bridge instance.
        process: random number of the process.
    """

    epoch: int
    instance: str
    process: int


class Control(NamedTuple):
    """What ``control.checkpoints`` says.

    Attributes:
        claims: the newest claim of each shard of our bridges.
        checkpoints: the newest checkpoint of each stream, encoded.
    """

    claims: Mapping[int, Claim]
    checkpoints: Mapping[bytes, bytes]


def claim_key(bridge: str, shard: int) -> bytes:
    """Return the key of a claim; ``bridge`` is the name that processes sharing the work have in common."""
    return _CLAIM + f"{bridge}:{shard}".encode()


def checkpoint_key(market: Market, stream: str) -> bytes:
    """Return the key of a stream's checkpoint."""
    return f"{market}:{stream}".encode()


async def read_control(
    settings: KafkaSettings, topic: str, bridge: str, *, read_committed: bool = False
) -> Control:
    """Read ``control.checkpoints`` to its end.

    Raises:
        TopicMismatch: the topic is missing.
        KafkaUnavailable: no broker serves us.
    """
    newest: dict[bytes, tuple[int, bytes]] = {}
    places = await partitions_for(settings, {topic: None})
    reader = PartitionReader(settings, places, end="now", name="bridge-cursor", read_committed=read_committed)
    async with reader:
        async for _, records in reader:
            for record in records:
                if record.key is not None and record.value is not None:
                    newest[record.key] = (record.offset, record.value)
    decode = Decoder([schemas()["shard-claim"]]).decode
    claims: dict[int, Claim] = {}
    own = claim_key(bridge, 0)[:-1]
    for key in [key for key in newest if key.startswith(_CLAIM)]:
        offset, value = newest.pop(key)
        if key.startswith(own):
            claim = decode(value)
            # Epoch 0 is that of a bridge without shards.
            claims[claim["shard"]] = Claim(offset + 1, claim["instance"], claim["process"])
    return Control(claims, {key: value for key, (_, value) in newest.items()})


class Found(NamedTuple):
    """What a new owner goes on with.

    Attributes:
        resumptions: where each stream goes on that was carried before.
        ends: the end of each partition that streams are published in.
    """

    resumptions: Mapping[tuple[Market, str], Resumption]
    ends: Mapping[TopicPartition, int]


class CursorReader:
    """Finds where streams go on.

    Args:
        settings: where Kafka is.
        catalogue: the declarations.
        names: names of the topics.
        read_committed: leave out what was never committed.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        catalogue: Catalogue,
        names: TopicNames,
        *,
        read_committed: bool = False,
    ) -> None:
        self._settings, self._catalogue, self._names = settings, catalogue, names
        self._read_committed = read_committed
        self._decode = Decoder(schemas().values()).decode

    async def find(
        self, control: Control, streams: Iterable[ChosenStream], places: Iterable[TopicPartition]
    ) -> Found:
        """Return where streams go on.

        Args:
            control: what the checkpoints say.
            streams: the streams.
            places: the partitions that they, and their gaps, are published in.
        """
        ends = await self._ends(places)
        readings: dict[tuple[Market, str], Reading] = {}
        by_series: dict[Series, tuple[CompiledChannel, Reading, dict[TopicPartition, int]]] = {}
        starts: dict[TopicPartition, int] = {}
        floors: dict[tuple[str, str], dict[TopicPartition, int]] = {}
        for chosen in streams:
            stream = chosen.stream
            value = control.checkpoints.get(checkpoint_key(stream.market, stream.name))
            if value is None:
                continue
            checkpoint = self._decode(value)
            compiled = self._catalogue.channel(stream.market, stream.channel)
            reading = readings[stream.market, stream.name] = _reading(
                checkpoint, compiled, chosen, self._decode
            )
            offsets = {TopicPartition(p["topic"], p["partition"]): p["offset"] for p in checkpoint["places"]}
            floors[stream.market, stream.name] = offsets
            for place, offset in offsets.items():
                if place in ends:
                    starts[place] = min(starts.get(place, offset), offset)
            if stream.symbol is not None:
                zone = chosen.choice.speed if chosen.choice.speed.startswith(("+", "-")) else ""
                option = chosen.choice.option if compiled.candle is not None else ""
                series = Series(stream.market, stream.channel, stream.symbol, option, zone)
                by_series[series] = (compiled, reading, offsets)
        await self._read(starts, by_series, readings, floors)
        return Found({key: reading.finish() for key, reading in readings.items()}, ends)

    async def _ends(self, places: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        reader = PartitionReader(
            self._settings, places, start="latest", end="now", name="bridge-cursor",
            read_committed=self._read_committed,
        )  # fmt: skip
        async with reader:
            return dict(reader.ends)

    async def _read(
        self,
        starts: Mapping[TopicPartition, int],
        by_series: Mapping[Series, tuple[CompiledChannel, Reading, dict[TopicPartition, int]]],
        readings: Mapping[tuple[Market, str], Reading],
        floors: Mapping[tuple[str, str], dict[TopicPartition, int]],
    ) -> None:
        gaps = self._names.of("gaps")
        reader = PartitionReader(
            self._settings,
            starts,
            start=starts,
            end="now",
            name="bridge-cursor",
            read_committed=self._read_committed,
        )
        async with reader:
            async for place, records in reader:
                for record in records:
                    try:
                        value = self._decode(record.value or b"")
                    except DecodeError:
                        continue
                    if place.topic == gaps:
                        key = (value["market"], value["stream"])
                        reading = readings.get(key)
                        if reading is not None and record.offset >= floors[key].get(place, 0):
                            reading.gap(value)
                        continue
                    found = by_series.get(series_of(value))
                    if found is not None and record.offset >= found[2].get(place, 0):
                        _take(found[1], found[0], value, record.timestamp_ms)


def _take(reading: Reading, compiled: CompiledChannel, value: Mapping[str, Any], time_ms: int) -> None:
    place = place_of(compiled, value)
    if place is None:
        return
    live = value["origin"] == "live"
    at = time_ms if place.event_ms is None else place.event_ms
    if compiled.candle is not None:
        span = Span(place.first, value["closeTime"] // 1000)
        reading.candle(span, at, closed=place.span is not None, live=live)
    elif place.span is not None:
        reading.event(place.span, at, live=live)


def _reading(
    checkpoint: Mapping[str, Any], compiled: CompiledChannel, chosen: ChosenStream, decode: Any
) -> Reading:
    stream, tail = chosen.stream, None
    if checkpoint["lastSequence"] is not None:
        tail = Tail(
            checkpoint["lastSequence"],
            (checkpoint["lastEventTime"] or 0) // 1000,
            (checkpoint["closeTime"] or 0) // 1000,
            checkpoint["closed"],
        )
    coverage = checkpoint["coverage"]
    ledger = (
        Ledger.restore(decode(coverage))
        if coverage
        else Ledger(covered(compiled, stream, stream.symbol or stream.name))
    )
    return Reading(ledger, tail, checkpoint["carriedUntil"])
