"""The producer port on librdkafka, by confluent-kafka's plain ``Producer``.

librdkafka builds the batches. We keep each record until it is delivered, so that a producer that failed for good
can be replaced by a new one that gets the same records again, in order: ``enable.gapless.guarantee`` makes every
failure such an end, for without it librdkafka sends on after a failed batch and what is sent again comes late.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.structs import TopicPartition

from bridge.errors import ConfigError, DeliveryFailed, KafkaUnavailable
from bridge.kafka import client as kafka_client
from bridge.kafka.outbox import MAX_RECORD_BYTES, Buffer, Buffered, Unspooled
from bridge.kafka.partition_counts import PartitionCounts
from bridge.kafka.partitioner import partition_for
from bridge.kafka.publisher import Hooks

try:
    from confluent_kafka import KafkaError, KafkaException, Producer
except ImportError:
    raise ConfigError(
        "kafka.client is librdkafka, which is not installed; pip install 'binance-kafka-bridge[librdkafka]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Header

log = logging.getLogger("bridge")

_POLL_SECONDS = 0.01
_REPLACE_SECONDS = 0.05
_REPLACE_MAX_SECONDS = 2.0
_DRAIN_SECONDS = 30.0
_RECORD_OVERHEAD_BYTES = 64
_WINDOW_MAX = 4096
_WINDOW_PATIENCE = 30
_LANES_KEPT = 200_000

_POISON = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    }
)
_COLLATERAL = frozenset(
    {
        KafkaError._FATAL,  # noqa: SLF001 - confluent-kafka's name for librdkafka's own errors
        KafkaError._GAPLESS_GUARANTEE,  # noqa: SLF001 - the same
        KafkaError._PURGE_QUEUE,  # noqa: SLF001 - the same
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001 - the same
    }
)
"""Errors of records that failed only because another one did."""

_TROUBLES: dict[int, TroubleKind] = {
    KafkaError._UNKNOWN_TOPIC: "topic-missing",  # noqa: SLF001 - the same
    KafkaError._UNKNOWN_PARTITION: "topic-missing",  # noqa: SLF001 - the same
    KafkaError.UNKNOWN_TOPIC_OR_PART: "topic-missing",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "authorization",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "authorization",
}


class _Queued(NamedTuple):
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Sequence[Header]
    queued_at: float


class _Outbox:
    """The records of one partition that Kafka has not acknowledged; also the ``Lane`` to it.

    Attributes:
        place: topic and partition.
        queued: every record not acknowledged, oldest first.
        handed: how many of them the producer has.
        done: how many records were acknowledged, or taken out because Kafka will never take them.
        report: what librdkafka calls with its report on the oldest record it was handed and has not reported on.
        window: how many may be on their way at once, to find out which of them is refused; 0 for any number.
        refused: how many were refused since the producer was made.
        passed: how many windows of this size were delivered in a row.
        last_offset: the newest offset the broker gave, -1 before the first.
    """

    __slots__ = (
        "_publisher",
        "done",
        "handed",
        "last_offset",
        "passed",
        "place",
        "queued",
        "refused",
        "report",
        "window",
    )

    def __init__(self, publisher: LibrdkafkaPublisher, place: TopicPartition) -> None:
        self._publisher, self.place = publisher, place
        self.queued: deque[_Queued] = deque()
        self.handed = 0
        self.done = 0
        self.window = 0
        self.refused = 0
        self.passed = 0
        self.last_offset = -1
        self.report: Callable[..., None] = partial(publisher.reported, self, publisher.generation)

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        """Queue one record, in order. Never blocks; what is queued is counted against the buffer."""
        record = _Queued(timestamp_ms, key, value, headers, monotonic())
        self.queued.append(record)
        self._publisher.appended(self, record)

    def discard(self) -> None:
        """Drop all that is queued, and hear no more of what was handed over."""
        self.queued.clear()
        self.handed = self.refused = 0
        self.report = partial(self._publisher.reported, self, self._publisher.generation)


class _Delivered:
    """Counts what one round of reports says of one topic."""

    __slots__ = ("newest_event_ms", "queued_at", "record_bytes", "records")

    def __init__(self) -> None:
        self.records, self.record_bytes, self.queued_at, self.newest_event_ms = 0, 0, float("inf"), 0

    def add(self, record: _Queued, size: int) -> None:
        """Count one record."""
        self.records += 1
        self.record_bytes += size
        self.queued_at = min(self.queued_at, record.queued_at)
        self.newest_event_ms = max(self.newest_event_ms, record.timestamp_ms)


def _size(record: _Queued) -> int:
    return len(record.key) + len(record.value) + _RECORD_OVERHEAD_BYTES


class LibrdkafkaPublisher(Buffered, Unspooled):
    """Idempotent, ``acks=all``, in order. See :class:`~bridge.kafka.publisher.KafkaPublisher`.

    Attributes:
        may_send: looked at before a record is handed to librdkafka; what it has already, it sends.
        generation: counts the calls of :meth:`discard`; reports on records from before the last one are ignored.
    """

    def __init__(self, settings: KafkaSettings, hooks: Hooks | None = None, *, name: str = "bridge") -> None:
        self.may_send: Callable[[], bool] = lambda: True
        self.generation = 0
        self._settings, self._hooks, self._name = settings, hooks or Hooks(), name
        self._buffer = Buffer(settings.buffer_bytes, self._hooks.on_full)
        self._counts = PartitionCounts(settings)
        self._outboxes: dict[TopicPartition, _Outbox] = {}
        self._lanes: dict[tuple[str, bytes], _Outbox] = {}
        self._producer: Any = None
        self._produce: Callable[..., None] | None = None  # None while nothing may be handed over
        self._waiting: dict[_Outbox, None] = {}  # have records that the producer does not have
        self._delivered: dict[str, _Delivered] = {}
        self._poller: asyncio.Task[None] | None = None
        self._failures = 0
        self._acknowledged = asyncio.Event()
        self._troubles: set[tuple[TroubleKind, str]] = set()

    # The port.

    async def start(self, *, timeout: float = 10.0) -> None:
        """Connect within ``timeout`` seconds."""
        # librdkafka tells a wrong password or certificate only in its log, so aiokafka's client looks first.
        probe = await kafka_client.connect(self._settings, name=self._name, timeout=timeout)
        await kafka_client.close(probe, timeout=1)
        self._create()
        self._poller = asyncio.create_task(self._poll(), name="kafka publisher poll")

    async def refresh(self, topics: Iterable[str]) -> None:
        """Learn the partitions of ``topics``, before the first :meth:`lane` into them."""
        if self._poller is None:
            raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: not connected")
        await self._counts.refresh(topics)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions that :meth:`refresh` saw first."""
        return self._counts[topic]

    def lane(self, topic: str, key: bytes) -> _Outbox:
        """Return the lane of ``key`` in ``topic``."""
        outbox = self._lanes.get((topic, key))
        if outbox is None:
            place = TopicPartition(topic, partition_for(key, self._counts[topic]))
            outbox = self._outboxes.get(place)
            if outbox is None:
                outbox = self._outboxes[place] = _Outbox(self, place)
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes.clear()
            self._lanes[topic, key] = outbox
        return outbox

    def position(self, topic: str, key: bytes) -> tuple[int, int]:
        """Return the partition of ``key`` in ``topic``, and an offset that nothing acknowledged later lies before."""
        outbox = self.lane(topic, key)
        return outbox.place.partition, outbox.last_offset

    def undelivered(self) -> list[tuple[str, int]]:
        """Return topic and number of records queued and not acknowledged, for topics that have any."""
        totals: dict[str, int] = {}
        for outbox in self._outboxes.values():
            if outbox.queued:
                totals[outbox.place.topic] = totals.get(outbox.place.topic, 0) + len(outbox.queued)
        return sorted(totals.items())

    async def settle(self) -> None:
        """Return once every record appended before the call is acknowledged, or refused for good."""
        generation = self.generation
        waiting = {outbox: outbox.done + len(outbox.queued) for outbox in self._outboxes.values()}
        while waiting := {outbox: goal for outbox, goal in waiting.items() if outbox.done < goal}:
            self._acknowledged.clear()
            await self._acknowledged.wait()
            if self.generation != generation:
                raise DeliveryFailed("what waited for Kafka was discarded")

    def discard(self) -> list[tuple[str, int]]:
        """Drop everything queued and not acknowledged; return topic and number of records, sorted."""
        dropped = self.undelivered()
        if not dropped:
            return []
        self.generation += 1
        for outbox in self._outboxes.values():
            self._buffer.release(sum(map(_size, outbox.queued)))
            outbox.discard()
        self._waiting.clear()
        self._acknowledged.set()
        # The producer may have half of a batch on its way: only a new one begins with a clean sequence.
        self._produce = None
        if self._producer is not None:
            with suppress(KafkaException, RuntimeError):  # it may be ending already
                self._producer.purge(blocking=False)
        return dropped

    async def flush(self, timeout: float) -> int:
        """Send what is queued; return how many records were not acknowledged in ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(outbox.queued for outbox in self._outboxes.values()):
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        return sum(records for _, records in self.undelivered())

    async def stop(self, timeout: float) -> list[tuple[str, int]]:
        """Flush and close every connection within ``timeout`` seconds; return what was not delivered."""
        if self._poller is None:
            return self.undelivered()
        closing = min(1.0, timeout / 4)
        await self.flush(timeout - 2 * closing)
        poller, self._poller = self._poller, None
        poller.cancel()
        await asyncio.wait([poller], timeout=closing)
        left = self.undelivered()
        producer, self._producer, self._produce = self._producer, None, None
        await _discard(producer, timeout=closing)
        return left

    # Towards librdkafka.

    def _create(self) -> None:
        """Make a new producer and let it have what is queued."""
        self._producer = Producer(
            {
                **self._settings.librdkafka_options(),
                "client.id": self._name,
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "compression.type": self._settings.compression,
                "linger.ms": self._settings.linger_ms,
                "batch.size": self._settings.batch_bytes,
                "message.max.bytes": MAX_RECORD_BYTES,
                "message.timeout.ms": 0,
                "request.timeout.ms": self._settings.request_timeout_ms,
                # Ours is the bound in bytes: no more than that is ever handed over.
                "queue.buffering.max.messages": 0,
                "queue.buffering.max.kbytes": 2**31 - 1,
                "topic.metadata.refresh.interval.ms": 30_000,
                "error_cb": self._on_error,
                "log_level": 3,
                "logger": logging.getLogger("bridge.librdkafka"),
            }
        )
        self._produce = self._producer.produce
        for outbox in self._outboxes.values():
            outbox.handed = 0
            if outbox.refused:
                outbox.window, outbox.refused, outbox.passed = max(1, outbox.refused // 2), 0, 0
            if outbox.queued:
                self._waiting[outbox] = None

    def appended(self, outbox: _Outbox, record: _Queued) -> None:
        """Hand a new record over at once, if none before it waits."""
        self._buffer.bytes += _size(record)
        self._buffer.check()
        waits = outbox.window or len(outbox.queued) - outbox.handed > 1
        if waits or not self._hand_over(outbox, record):
            self._waiting[outbox] = None

    def _hand_over(self, outbox: _Outbox, record: _Queued) -> bool:
        """Give one record to the producer; return whether it took it."""
        if self._produce is None or len(record.value) > MAX_RECORD_BYTES or not self.may_send():
            return False
        place = outbox.place
        try:
            self._produce(
                place.topic,
                record.value,
                record.key,
                place.partition,
                on_delivery=outbox.report,
                timestamp=record.timestamp_ms,
                headers=[(name, value) for name, value in record.headers],
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._failed(outbox, error.args[0])
            return False
        outbox.handed += 1
        return True

    def _hand_over_waiting(self) -> None:
        for outbox in list(self._waiting):
            # A window is handed over whole, and the next one only when all of it was delivered.
            allowed = len(outbox.queued)
            if outbox.window:
                allowed = 0 if outbox.handed else outbox.window
            while outbox.handed < min(allowed, len(outbox.queued)):
                record = outbox.queued[outbox.handed]
                if len(record.value) > MAX_RECORD_BYTES:
                    if outbox.handed:
                        break
                    self._poison(outbox, f"larger than {MAX_RECORD_BYTES} bytes")
                elif not self._hand_over(outbox, record):
                    break
            if outbox.handed == len(outbox.queued):
                del self._waiting[outbox]

    # Back from librdkafka, all of it called by poll().

    def reported(self, outbox: _Outbox, generation: int, error: KafkaError | None, message: Any) -> None:
        """Note that a record was delivered, or that its producer is at its end."""
        if generation != self.generation:
            return
        if error is not None:
            self._failed(outbox, error)
            return
        record = outbox.queued.popleft()
        outbox.handed -= 1
        outbox.done += 1
        if outbox.window and not outbox.handed:
            self._widen(outbox)
        size = _size(record)
        self._delivered.setdefault(outbox.place.topic, _Delivered()).add(record, size)
        self._buffer.release(size)
        offset = message.offset()
        if 0 <= offset <= outbox.last_offset:
            text = f"partition {outbox.place.partition} begins again at offset {offset}"
            self._hooks.on_trouble("topic-recreated", outbox.place.topic, text)
        outbox.last_offset = offset

    def _widen(self, outbox: _Outbox) -> None:
        """Let more records go at once, after a while without a refusal."""
        outbox.passed += 1
        if outbox.passed == _WINDOW_PATIENCE:
            outbox.passed = 0
            outbox.window = outbox.window * 2 if outbox.window < _WINDOW_MAX else 0

    def _failed(self, outbox: _Outbox, error: KafkaError) -> None:
        """Hand nothing more over: the producer is replaced once it has reported on all it has."""
        self._produce = None
        code = error.code()
        if code in _COLLATERAL:
            return
        if code not in _POISON:
            place = outbox.place
            self._tell(
                _TROUBLES.get(code, "refused"), place.topic, f"partition {place.partition}: {error.str()}"
            )
            self._failures += 1
        elif outbox.window == 1:
            self._poison(outbox, error.name())
        else:
            outbox.refused += 1

    def _poison(self, outbox: _Outbox, error: str) -> None:
        record = outbox.queued.popleft()
        outbox.handed = 0
        outbox.done += 1
        self._buffer.release(_size(record))
        self._acknowledged.set()
        headers = tuple((name, value) for name, value in record.headers)
        self._hooks.on_poison(
            outbox.place.topic, record.key, record.value, record.timestamp_ms, headers, error
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - confluent-kafka's name for it
            self._tell("unavailable", "", error.str())

    # Watching.

    async def _poll(self) -> None:
        while True:
            self._serve()
            if self._produce is None:
                await self._replace()
            self._hand_over_waiting()
            await asyncio.sleep(_POLL_SECONDS)

    def _serve(self) -> None:
        """Let librdkafka call us back."""
        try:
            self._producer.poll(0)
        except KafkaException:
            # A fatal error is raised here and not given to error_cb; the records concerned are reported on too.
            self._produce = None
        self._tell_delivered()

    async def _replace(self) -> None:
        """Wait until the producer has reported on all it has, then go on with a new one."""
        deadline = monotonic() + _DRAIN_SECONDS
        while len(self._producer) and monotonic() < deadline:
            self._serve()
            await asyncio.sleep(_POLL_SECONDS)
        if self._failures:
            await asyncio.sleep(min(_REPLACE_SECONDS * 2 ** min(self._failures, 10), _REPLACE_MAX_SECONDS))
        await _discard(self._producer, timeout=1.0)
        self._create()

    def _tell_delivered(self) -> None:
        if not self._delivered:
            return
        delivered, self._delivered = self._delivered, {}
        self._failures = 0
        self._acknowledged.set()
        for topic, total in delivered.items():
            if self._troubles:
                self._recovered(topic)
            self._hooks.on_delivered(
                topic, total.records, total.record_bytes, total.queued_at, total.newest_event_ms
            )

    def _tell(self, kind: TroubleKind, topic: str, text: str) -> None:
        """Report a trouble, once until it is over."""
        if (kind, topic) not in self._troubles:
            self._troubles.add((kind, topic))
            self._hooks.on_trouble(kind, topic, text)

    def _recovered(self, topic: str) -> None:
        """Report the end of what hindered ``topic``, or all topics: a record was acknowledged."""
        over = {trouble for trouble in self._troubles if trouble[1] in ("", topic)}
        self._troubles -= over
        for kind, where in sorted(over):
            self._hooks.on_trouble("recovered", where, f"{kind} is over")


async def _discard(producer: Any, *, timeout: float) -> None:
    """End a producer within ``timeout`` seconds; what librdkafka cannot end by then is left to a daemon thread."""
    with suppress(KafkaException):
        producer.purge(blocking=False)
        producer.poll(0)
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        producer.close()
        with suppress(RuntimeError):  # the loop may be gone by then
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=close, name="librdkafka close", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await closed.wait()
