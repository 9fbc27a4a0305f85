"""Where a shard's new owner goes on: claims and checkpoints, and what was published behind them, read from Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.structs import TopicPartition

from bridge.core.coverage import Ledger, covered
from bridge.core.resumption import Reading, Resumption
from bridge.core.sequence import Tail
from bridge.core.series import place_of, series_of, silent_place
from bridge.core.spans import Span
from bridge.core.wire import Decoder
from bridge.errors import DecodeError
from bridge.kafka.log_ends import settled_ends
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.schema import schemas

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.catalogue import Catalogue, TopicNames
    from bridge.core.compile import CompiledChannel
    from bridge.core.series import Series
    from bridge.core.standing import StreamKey
    from bridge.kafka.reader import Start
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Market, Stream

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


class Found(NamedTuple):
    """What a new owner goes on with.

    Attributes:
        resumptions: where each stream goes on that was carried before.
        ends: the end of each partition that streams are published in.
    """

    resumptions: Mapping[StreamKey, Resumption]
    ends: Mapping[TopicPartition, int]


class _Behind(NamedTuple):
    """A stream of which is read what lies behind its checkpoint.

    Attributes:
        compiled: its channel.
        reading: what takes the records.
        offsets: from where on, by partition.
    """

    compiled: CompiledChannel
    reading: Reading
    offsets: Mapping[TopicPartition, int]


class CursorReader:
    """Finds where streams go on.

    Args:
        settings: where Kafka is.
        catalogue: the declarations.
        names: names of the topics.
        bridge: name that processes sharing the work have in common.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        catalogue: Catalogue,
        names: TopicNames,
        bridge: str,
    ) -> None:
        self._settings, self._catalogue, self._bridge = settings, catalogue, bridge
        self._control, self._gaps = names.of("control", "checkpoints"), names.of("gaps")
        self._decode = Decoder(schemas().values()).decode

    async def control(self) -> Control:
        """Read ``control.checkpoints`` to its end.

        Raises:
            TopicMismatch: the topic is missing.
            KafkaUnavailable: no broker serves us.
        """
        newest: dict[bytes, tuple[int, bytes]] = {}
        places = await partitions_for(self._settings, {self._control: None})
        async with self._reader(places, "earliest") as reader:
            async for _, records in reader:
                for record in records:
                    if record.key is not None and record.value is not None:
                        newest[record.key] = (record.offset, record.value)
        claims: dict[int, Claim] = {}
        own = claim_key(self._bridge, 0)[:-1]
        for key in [key for key in newest if key.startswith(_CLAIM)]:
            offset, value = newest.pop(key)
            if key.startswith(own):
                claim = self._decode(value)
                # Epoch 0 is that of a bridge without shards.
                claims[claim["shard"]] = Claim(offset + 1, claim["instance"], claim["process"])
        return Control(claims, {key: value for key, (_, value) in newest.items()})

    async def find(
        self, control: Control, streams: Iterable[Stream], places: Iterable[TopicPartition]
    ) -> Found:
        """Return where streams go on.

        Args:
            control: what the checkpoints say.
            streams: the streams.
            places: the partitions that they, and their gaps, are published in.

        Raises:
            TopicMismatch: a topic is missing, or has too few partitions.
            KafkaUnavailable: no broker serves us.
        """
        # What a dead owner's partitions hold beyond what consumers see yet would appear behind us.
        ends = await settled_ends(self._settings, places)
        behind: dict[StreamKey, _Behind] = {}
        by_series: dict[Series, _Behind] = {}
        for stream in streams:
            value = control.checkpoints.get(checkpoint_key(stream.market, stream.name))
            if value is not None:
                one = behind[stream.market, stream.name] = self._behind(stream, self._decode(value))
                series = self._catalogue.series(stream.market, stream.channel, stream.name, stream.symbol)
                if series is not None and stream.symbol is not None:
                    by_series[series] = one
        await self._read(ends, behind, by_series)
        return Found({key: one.reading.finish() for key, one in behind.items()}, ends)

    def _behind(self, stream: Stream, checkpoint: Mapping[str, Any]) -> _Behind:
        compiled = self._catalogue.channel(stream.market, stream.channel)
        tail = None
        if checkpoint["lastSequence"] is not None:
            tail = Tail(
                checkpoint["lastSequence"],
                (checkpoint["lastEventTime"] or 0) // 1000,
                (checkpoint["closeTime"] or 0) // 1000,
                checkpoint["closed"],
            )
        if checkpoint["coverage"]:
            ledger = Ledger.restore(self._decode(checkpoint["coverage"]))
        else:
            ledger = Ledger(covered(compiled, stream, checkpoint["symbol"]))
        offsets = {TopicPartition(p["topic"], p["partition"]): p["offset"] for p in checkpoint["places"]}
        reading = Reading(ledger, tail, checkpoint["carriedUntil"], checkpoint["writerEpoch"])
        return _Behind(compiled, reading, offsets)

    def _reader(self, places: Iterable[TopicPartition], start: Start) -> PartitionReader:
        return PartitionReader(self._settings, places, start=start, end="now", name="bridge-cursor")

    async def _read(
        self,
        ends: Mapping[TopicPartition, int],
        behind: Mapping[StreamKey, _Behind],
        by_series: Mapping[Series, _Behind],
    ) -> None:
        """Give each stream what lies behind its checkpoint."""
        starts: dict[TopicPartition, int] = {}
        for one in behind.values():
            for place, offset in one.offsets.items():
                if place in ends:
                    starts[place] = min(starts.get(place, offset), offset)
        async with self._reader(starts, starts) as reader:
            async for place, records in reader:
                for record in records:
                    try:
                        value = self._decode(record.value or b"")
                    except DecodeError:
                        continue  # not ours: another's record, or another version's
                    named = "stream" in value
                    found = (
                        behind.get((value["market"], value["stream"]))
                        if named
                        else by_series.get(series_of(value))
                    )
                    if found is None or record.offset < found.offsets.get(place, 0):
                        continue
                    if place.topic == self._gaps:
                        found.reading.gap(value)
                    elif named:
                        _take_raw(found, value)
                    else:
                        _take(found, value, record.timestamp)


def _take(stream: _Behind, value: Mapping[str, Any], time_ms: int) -> None:
    """Take a unified record."""
    compiled, reading = stream.compiled, stream.reading
    place = place_of(compiled, value)
    if place is None:
        return
    live, epoch = value["origin"] == "live", value["writerEpoch"]
    at = time_ms if place.event_ms is None else place.event_ms
    if compiled.candle is not None:
        span = Span(place.first, value["closeTime"] // 1000)
        reading.candle(span, at, closed=place.span is not None, live=live, epoch=epoch)
    elif place.span is not None:
        reading.event(place.span, at, live=live, epoch=epoch)


def _take_raw(stream: _Behind, value: Mapping[str, Any]) -> None:
    """Take a raw record: of messages that take ids and make no record it is all there is."""
    place = silent_place(stream.compiled, value["payload"]) if value["kind"] == "stream" else None
    if place is not None and place.span is not None:
        stream.reading.event(place.span, place.event_ms or 0, live=True, epoch=value["writerEpoch"])
