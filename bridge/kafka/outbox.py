"""What waits for Kafka: per partition one open record batch and the sealed ones behind it. No I/O.

A sealed batch keeps its bytes until the broker acknowledged it. Producer id, epoch and sequence are written
into those bytes only when they are sent, so a batch can be sent again, by the same identity or by another, as
often as it takes, and always in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from bridge.kafka import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka.structs import TopicPartition

    from bridge.kafka.settings import Compression
    from bridge.model import Header

MAX_RECORD_BYTES = 32 * 1024 * 1024
"""No larger record is ever sent: a broker drops a connection whose request is over its limit, 100 MiB."""

_CODECS: dict[Compression, int] = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_ZSTD = _CODECS["zstd"]
_BATCH_HEADER_BYTES = 61

# Offsets within a record batch, version 2: kafka.apache.org/documentation/#recordbatch
_LENGTH = Struct(">i")
_LENGTH_AT = 8
_LENGTH_COVERS_FROM = 12
_CRC = Struct(">I")
_CRC_AT = 17
_CRC_COVERS_FROM = 21
_CODEC_AT = 22
_MAX_TIMESTAMP = Struct(">q")
_MAX_TIMESTAMP_AT = 35
_PRODUCER = Struct(">qhi")
_PRODUCER_AT = 43


class Identity(NamedTuple):
    """Who sends, as the broker knows it: the key of its duplicate check."""

    producer_id: int
    epoch: int


class Record(NamedTuple):
    """One queued record, read back out of its batch."""

    timestamp_ms: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def next_sequence(sequence: int, records: int) -> int:
    """Return the sequence after ``records`` more; wraps from 2**31 - 1 to 0 as Java's and the broker's do."""
    return (sequence + records) & 0x7FFFFFFF


@dataclass(slots=True)
class Buffer:
    """Counts the bytes queued and not acknowledged, over all partitions.

    Attributes:
        limit_bytes: from here on the publisher is full.
        bytes: what is queued: sealed batches by their compressed size, open ones by that of their records.
        on_full: called once when the limit is reached, and again only after the level fell below it.
        look_bytes: from here on :meth:`check` is called; the limit, unless :meth:`watch` asks for less.
    """

    limit_bytes: int
    on_full: Callable[[], None] | None = None
    bytes: int = 0
    look_bytes: int = 0
    _on_level: Callable[[], None] | None = None
    _said_full: bool = False
    _waiters: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.look_bytes = self.limit_bytes

    def watch(self, level_bytes: int, on_level: Callable[[], None]) -> None:
        """Call ``on_level`` whenever something is queued while that many bytes are."""
        self.look_bytes, self._on_level = min(level_bytes, self.limit_bytes), on_level

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.bytes >= self.limit_bytes

    def check(self) -> None:
        """Say so if the limit was reached since the last look."""
        if self._on_level is not None and self.bytes >= self.look_bytes:
            self._on_level()
        if self.full and not self._said_full:
            self._said_full = True
            if self.on_full is not None:
                self.on_full()

    def release(self, freed: int) -> None:
        """Take ``freed`` bytes off and wake who waited for the level that is now reached."""
        self.bytes -= freed
        self._said_full = self._said_full and self.full
        if self._waiters:
            waiting, self._waiters = self._waiters, []
            for level, waiter in waiting:
                if self.bytes > level:
                    self._waiters.append((level, waiter))
                elif not waiter.done():
                    waiter.set_result(None)

    async def wait_below(self, fraction: float) -> None:
        """Return once no more than ``fraction`` of the limit is queued."""
        level = fraction * self.limit_bytes
        if self.bytes > level:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((level, waiter))
            await waiter


class Buffered:
    """How full a publisher is: that part of the producer port which is the same for all."""

    _buffer: Buffer

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued and not yet acknowledged; in a transaction, not yet committed."""
        return self._buffer.bytes

    @property
    def limit_bytes(self) -> int:
        """Bytes from which on it is full."""
        return self._buffer.limit_bytes

    @property
    def full(self) -> bool:
        """Whether :attr:`buffered_bytes` reached the limit."""
        return self._buffer.full

    async def wait_below(self, fraction: float) -> None:
        """Return once no more than ``fraction`` of the limit is queued."""
        await self._buffer.wait_below(fraction)


class Unspooled:
    """That part of the producer port which is about a spool, where there is none."""

    @property
    def spooled_bytes(self) -> int:
        """0: there are no files."""
        return 0

    def recoverable(self) -> list[tuple[str, int]]:
        """Return nothing: an earlier process left nothing."""
        return []

    async def recover(self, keep: Callable[[str], bool]) -> list[tuple[str, int]]:
        """Do nothing: an earlier process left nothing."""
        del keep
        return []


class SealedBatch:
    """Records in Kafka's own bytes, ready to be sent and sent again.

    Attributes:
        records: how many records it holds.
        record_bytes: their size before compression.
        queued_at: monotonic seconds at which the oldest was queued.
        size: bytes of the record batch.
        number: its number in the spool, among the batches of its partition; -1 while it has none.
        skip: how many records of the spool's batch lie before it, where it is only a part of that.
        rest: how many lie behind it.
        stored: whether the spool's file holds it.
        waiting: whether it is queued still.
    """

    __slots__ = (
        "_data",
        "number",
        "queued_at",
        "record_bytes",
        "records",
        "rest",
        "size",
        "skip",
        "stored",
        "waiting",
    )

    def __init__(
        self, data: bytearray | None, records: int, record_bytes: int, queued_at: float, size: int = 0
    ) -> None:
        self._data, self.records, self.record_bytes, self.queued_at = data, records, record_bytes, queued_at
        self.size = size if data is None else len(data)
        self.number, self.skip, self.rest = -1, 0, 0
        self.stored, self.waiting = False, True

    @property
    def data(self) -> bytearray:
        """The record batch, which must be in memory."""
        assert self._data is not None
        return self._data

    @property
    def loaded(self) -> bool:
        """Whether the record batch is in memory."""
        return self._data is not None

    def put(self, data: bytearray | None) -> None:
        """Take the record batch into memory, or leave it to the spool."""
        self._data = data

    @property
    def part(self) -> bool:
        """Whether the spool's batch of this number holds more than these records."""
        return bool(self.skip or self.rest)

    @property
    def newest_event_ms(self) -> int:
        """The latest record timestamp, milliseconds since the epoch."""
        newest: int = _MAX_TIMESTAMP.unpack_from(self.data, _MAX_TIMESTAMP_AT)[0]
        return newest

    def stamp(self, identity: Identity, sequence: int) -> None:
        """Write who sends it, and the sequence of its first record."""
        _PRODUCER.pack_into(self.data, _PRODUCER_AT, identity.producer_id, identity.epoch, sequence)
        _CRC.pack_into(self.data, _CRC_AT, calc_crc32c(memoryview(self.data)[_CRC_COVERS_FROM:]))

    def unpack(self) -> list[Record]:
        """Return its records, in order."""
        batch: Any = DefaultRecordBatch(bytes(self.data))
        return [Record(r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]


class BatchFormat(NamedTuple):
    """How batches are built: size in bytes before compression, and codec."""

    batch_bytes: int
    compression: Compression

    def builder(self) -> Any:
        """Return an empty builder of a record batch; :meth:`built` says what it has built."""
        return DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0 if self.compression == "zstd" else _CODECS[self.compression],
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=self.batch_bytes,
        )

    def built(self, builder: Any) -> bytearray:
        """Return the batch of a builder, whose checksum is right once it is stamped.

        zstd is ours: see :mod:`bridge.kafka.zstd`.
        """
        data: bytearray = builder.build()
        if self.compression == "zstd":
            packed = zstd.compress(memoryview(data)[_BATCH_HEADER_BYTES:])
            if len(packed) < len(data) - _BATCH_HEADER_BYTES:
                data[_BATCH_HEADER_BYTES:] = packed
                data[_CODEC_AT] |= _ZSTD
                _LENGTH.pack_into(data, _LENGTH_AT, len(data) - _LENGTH_COVERS_FROM)
        return data

    def seal(self, records: Sequence[Record], queued_at: float) -> SealedBatch:
        """Return one batch of ``records``, whatever their size."""
        builder = self._replace(batch_bytes=2**31 - 1).builder()
        for offset, record in enumerate(records):
            builder.append(offset, record.timestamp_ms, record.key, record.value, list(record.headers))
        record_bytes = builder.size() - _BATCH_HEADER_BYTES
        return SealedBatch(self.built(builder), len(records), record_bytes, queued_at)


class Outbox:
    """The records of one partition that Kafka has not acknowledged; also the ``Lane`` to it.

    Attributes:
        place: topic and partition.
        sealed: batches that take no more records; the first is the next to send, or is being sent.
        sequence: the sequence of the first record of ``sealed[0]``.
        identity: who sends; None until the first batch is sent.
        due: whether the open batch has lingered long enough.
        paused: whether nothing new may be sent, only ``sealed[0]`` again where it is ``unsure``.
        in_flight: whether a batch is on its way, or was when it was discarded, and its answer is not here yet.
        unsure: whether the broker may have ``sealed[0]`` already, under this identity and sequence.
        done: how many records were acknowledged, or dropped because the broker will never take them.
        held_until: monotonic seconds before which nothing is sent.
        attempts: how often in a row sending failed.
        last_offset: the newest offset the broker gave, -1 before the first.
    """

    __slots__ = (
        "_add",
        "_buffer",
        "_builder",
        "_count",
        "_format",
        "_header_list",
        "_headers",
        "_in_sealed",
        "_on_open",
        "_on_sealed",
        "_opened_at",
        "attempts",
        "done",
        "due",
        "held_until",
        "identity",
        "in_flight",
        "last_offset",
        "paused",
        "place",
        "sealed",
        "sequence",
        "unsure",
    )

    def __init__(
        self,
        place: TopicPartition,
        batch_format: BatchFormat,
        buffer: Buffer,
        *,
        on_open: Callable[[Outbox], None],
        on_sealed: Callable[[Outbox], None],
    ) -> None:
        self.place = place
        self.sealed: deque[SealedBatch] = deque()
        self.sequence = 0
        self.identity: Identity | None = None
        self.due = False
        self.paused = False
        self.in_flight = False
        self.unsure = False
        self.done = 0
        self.held_until = 0.0
        self.attempts = 0
        self.last_offset = -1
        self._format, self._buffer = batch_format, buffer
        self._on_open, self._on_sealed = on_open, on_sealed
        self._builder: Any = None
        self._add: Callable[..., Any] = self._open
        self._count = 0
        self._in_sealed = 0
        self._opened_at = 0.0
        self._headers: Sequence[Header] = ()
        self._header_list: list[tuple[str, bytes]] = []

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        """Queue one record, in order. Never blocks; what is queued is counted against the buffer."""
        if headers is not self._headers:
            self._take_headers(headers)
        add = self._add  # by itself: a call of a slot's value is slow
        added = add(self._count, timestamp_ms, key, value, self._header_list)
        if added is None:
            self.seal()
            self._on_sealed(self)
            added = self._add(0, timestamp_ms, key, value, self._header_list)
        self._count += 1
        buffer = self._buffer
        buffer.bytes += added.size
        # Not only when a batch is sealed: open batches of many partitions can hold far more than the limit.
        if buffer.bytes >= buffer.look_bytes:
            buffer.check()

    def _take_headers(self, headers: Sequence[Header]) -> None:
        """Turn headers into what the builder takes; a tuple that comes again is found by its identity."""
        self._header_list = [(name, value) for name, value in headers]
        self._headers = headers if isinstance(headers, tuple) else (None,)

    def _open(
        self, offset: int, timestamp_ms: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]
    ) -> Any:
        """Stand in for the builder's own ``append`` while there is none: make one."""
        builder = self._format.builder()
        added = builder.append(offset, timestamp_ms, key, value, headers)
        self._builder, self._add = builder, builder.append
        self._opened_at, self.due = monotonic(), False
        self._on_open(self)
        return added

    def seal(self) -> None:
        """Close and compress the open batch, if there is one."""
        if self._builder is None:
            return
        builder, self._builder, self.due = self._builder, None, False
        count, self._count = self._count, 0
        self._add = self._open
        record_bytes = builder.size() - _BATCH_HEADER_BYTES
        data = self._format.built(builder)
        self._buffer.bytes += len(data) - record_bytes
        self._buffer.check()
        self.sealed.append(SealedBatch(data, count, record_bytes, self._opened_at))
        self._in_sealed += count

    def head(self) -> SealedBatch | None:
        """Return the next batch to send, sealing the open one if need be; None when nothing waits."""
        if not self.sealed:
            self.seal()
        return self.sealed[0] if self.sealed else None

    @property
    def first(self) -> SealedBatch | None:
        """The first sealed batch, if there is one."""
        return self.sealed[0] if self.sealed else None

    def acknowledge(self) -> SealedBatch:
        """Take the first batch off: the broker has it."""
        batch = self.drop()
        self.sequence = next_sequence(self.sequence, batch.records)
        return batch

    def drop(self) -> SealedBatch:
        """Take the first batch off: the broker will never take it, so its sequence is free for the next."""
        batch = self.sealed.popleft()
        batch.waiting = False
        self.unsure = False
        self.done += batch.records
        self._in_sealed -= batch.records
        self._buffer.release(batch.size if batch.loaded else 0)
        return batch

    def discard(self) -> int:
        """Drop all that is queued; return how many records. Where one may have arrived the identity goes too."""
        dropped, freed = self.queued, sum(batch.size for batch in self.sealed if batch.loaded)
        if self._builder is not None:
            freed += self._builder.size() - _BATCH_HEADER_BYTES
        self._builder, self._add, self._count, self.due = None, self._open, 0, False
        for batch in self.sealed:
            batch.waiting = False
        self.sealed.clear()
        self._in_sealed = self.attempts = 0
        if self.unsure:
            # Under the old one the broker would take the next batch for the one it may have.
            self.identity, self.sequence, self.unsure = None, 0, False
        self._buffer.release(freed)
        return dropped

    def halve(self, *, too_large: bool) -> None:
        """Put two halves in the place of the first batch, which holds two records or more.

        With ``too_large`` the topic takes no batches of that size, so the next ones are made smaller too.
        """
        whole = self.sealed.popleft()
        if too_large:
            self._format = self._format._replace(batch_bytes=max(whole.record_bytes // 2, 1))
        records = whole.unpack()
        middle = len(records) // 2
        halves = [self._format.seal(half, whole.queued_at) for half in (records[:middle], records[middle:])]
        whole.waiting = False
        if whole.number >= 0:
            for half in halves:
                half.number, half.stored = whole.number, whole.stored
            halves[0].skip, halves[0].rest = whole.skip, whole.rest + halves[1].records
            halves[1].skip, halves[1].rest = whole.skip + halves[0].records, whole.rest
        self.sealed.extendleft(reversed(halves))
        self._buffer.bytes += sum(len(half.data) for half in halves)
        self._buffer.release(whole.size)

    # For the spool.

    @property
    def open_since(self) -> float:
        """Monotonic seconds at which the open batch got its first record; infinite when there is none."""
        return float("inf") if self._builder is None else self._opened_at

    @property
    def stored(self) -> int:
        """How many of the queued records are in the spool's files."""
        return sum(batch.records for batch in self.sealed if batch.stored)

    def not_stored(self) -> list[SealedBatch]:
        """Return the sealed batches that no file holds, oldest first: always the last of the queue."""
        found: list[SealedBatch] = []
        for batch in reversed(self.sealed):
            if batch.stored or batch.part:
                break
            found.append(batch)
        found.reverse()
        return found

    def unload(self, batch: SealedBatch) -> None:
        """Leave a stored batch's bytes to the spool."""
        batch.put(None)
        self._buffer.release(batch.size)

    def load(self, batch: SealedBatch, data: bytearray) -> None:
        """Take a batch's bytes from the spool."""
        batch.put(data)
        self._buffer.bytes += batch.size
        self._buffer.check()

    def restore(self, batches: Sequence[SealedBatch]) -> None:
        """Queue batches of an earlier process before all that is queued."""
        self.sealed.extendleft(reversed(batches))
        self._in_sealed += sum(batch.records for batch in batches)
        self._buffer.bytes += sum(batch.size for batch in batches if batch.loaded)

    @property
    def queued(self) -> int:
        """How many records wait or are on their way."""
        return self._count + self._in_sealed
