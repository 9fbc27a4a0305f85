"""The producer port on aiokafka's client.

aiokafka's own producer cannot be used: after one failed batch its idempotent sequence is lost for good, it
wraps wrongly at 2**31, it packs requests that brokers cut off, and its end can hang. So this one sends its
requests itself, through aiokafka's client, which keeps connections and metadata. One batch per partition is
on its way at a time, and keeps its sequence until it is acknowledged or replaced by smaller ones.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition

from bridge.errors import BridgeError, DeliveryFailed, KafkaUnavailable, TopicMismatch
from bridge.kafka import client as kafka_client
from bridge.kafka.outbox import MAX_RECORD_BYTES, BatchFormat, Buffer, Buffered, Identity, Outbox, SealedBatch
from bridge.kafka.partitioner import partition_for
from bridge.kafka.publisher import Hooks
from bridge.kafka.spooling import Port, Spooling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import KafkaSettings, SpoolSettings

log = logging.getLogger("bridge")

_REQUEST_BYTES = 32 * 1024 * 1024
_WATCH_SECONDS = 1.0
_WATCHDOG_SECONDS = 60.0
_METADATA_PATIENCE_SECONDS = 2.0
_RETRY_SECONDS = 0.1
_RETRY_MAX_SECONDS = 2.0
_MAY_SEND_SECONDS = 0.25
_LANES_KEPT = 200_000
_UNTIL_TOLD = float("inf")

# Error codes: kafka.apache.org/protocol#protocol_error_codes. aiokafka does not know all of them.
_DELIVERED = frozenset({0, 46})
_TOO_LARGE = frozenset({10, 18})
_POISON = _TOO_LARGE | {32, 87}
_STALE_METADATA = frozenset({3, 5, 6, 9, 13, 56, 72, 74, 75, 100})
_IDENTITY_LOST = frozenset({45, 47, 49, 59, 90})
_TROUBLES: dict[int, TroubleKind] = {
    **dict.fromkeys((3, 100), "topic-missing"),
    **dict.fromkeys((5, 6, 7, 9, 19, 20, 72, 74, 75), "no-leader"),
    **dict.fromkeys((13, 56), "unavailable"),
    **dict.fromkeys((29, 31, 53), "authorization"),
}
_LOADING = 14
_NOT_YET = frozenset({_LOADING, 15, 16, 51})
_QUIET_AT_FIRST = frozenset({5, 6, 7, 13, 45, 59, 72, 74, 75})
"""A failover or a new identity shows these once or twice; only when they stay are they trouble."""
_UNKNOWN_TO_AIOKAFKA = {
    32: "InvalidTimestamp",
    72: "ListenerNotFound",
    74: "FencedLeaderEpoch",
    75: "UnknownLeaderEpoch",
    87: "InvalidRecord",
    89: "ThrottlingQuotaExceeded",
    90: "ProducerFenced",
    100: "UnknownTopicId",
}


class _Result(NamedTuple):
    """A broker's answer for one partition."""

    code: int
    offset: int


def _shown(code: int) -> str:
    return f"{_UNKNOWN_TO_AIOKAFKA.get(code) or for_code(code).__name__}, error {code}"


class AiokafkaPublisher(Buffered):
    """Idempotent, ``acks=all``, in order. See :class:`~bridge.kafka.publisher.KafkaPublisher`."""

    def __init__(
        self,
        settings: KafkaSettings,
        hooks: Hooks | None = None,
        *,
        name: str = "bridge",
        watchdog_seconds: float = _WATCHDOG_SECONDS,
        spool: SpoolSettings | None = None,
    ) -> None:
        self.may_send: Callable[[], bool] = lambda: True
        self._settings, self._hooks, self._name = settings, hooks or Hooks(), name
        self._format = BatchFormat(settings.batch_bytes, settings.compression)
        self._buffer = Buffer(settings.buffer_bytes, self._hooks.on_full)
        self._linger = settings.linger_ms / 1000
        self._watchdog_seconds = watchdog_seconds
        self._counts: dict[str, int] = {}
        self._outboxes: dict[TopicPartition, Outbox] = {}
        self._lanes: dict[tuple[str, bytes], Outbox] = {}
        self._client: kafka_client.Client | None = None
        self._cluster_id: str | None = None
        self._identity: Identity | None = None  # of partitions that have none yet; None until it is asked for
        self._asking: asyncio.Task[None] | None = None
        self._lingering: list[Outbox] = []  # have an open batch that waits for company
        self._ready: dict[Outbox, None] = {}  # have something to send now, in the order they got it
        self._busy: set[int] = set()  # brokers with a request on its way
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._pump_timer: asyncio.TimerHandle | None = None
        self._pump_due = 0.0  # when the timer is to fire; uvloop's handles do not tell
        self._flushing = 0
        self._progress_at = 0.0
        self._acknowledged = asyncio.Event()
        self._discards = 0
        self._troubles: set[tuple[TroubleKind, str]] = set()
        self._spooling: Spooling | None = None
        if spool is not None:
            port = Port(self._tell, self._spool_recovered, self._pump, self._acknowledged.set)
            self._spooling = Spooling(spool, self._outboxes, self._buffer, self._format, port)

    # The port.

    async def start(self, *, timeout: float = 10.0) -> None:
        """Connect within ``timeout`` seconds."""
        if self._spooling is not None:
            await self._spooling.open()
        try:
            client = await self._connect(monotonic() + timeout, timeout)
        except BaseException:
            if self._spooling is not None:
                await self._spooling.close(timeout=1)
            raise
        self._client, self._cluster_id = client, client.cluster_id
        self._progress_at = monotonic()
        self._watcher = asyncio.create_task(self._watch(), name="kafka publisher watch")

    async def _connect(self, deadline: float, timeout: float) -> kafka_client.Client:
        client = await kafka_client.connect(self._settings, name=self._name, timeout=timeout)
        try:
            self._identity = await self._first_identity(client, deadline)
        except BaseException:
            await kafka_client.close(client, timeout=1)
            raise
        return client

    async def refresh(self, topics: Iterable[str]) -> None:
        """Learn the partitions of ``topics``, before the first :meth:`lane` into them."""
        wanted = set(topics)
        client = self._client
        if client is None:
            raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: not connected")
        client.set_topics(wanted | self._counts.keys())
        deadline = monotonic() + _METADATA_PATIENCE_SECONDS
        while True:
            if not await client.force_metadata_update():
                raise KafkaUnavailable(
                    f"{self._settings.bootstrap_servers}: no broker answers for its metadata"
                )
            found = {topic: client.cluster.partitions_for_topic(topic) for topic in wanted}
            missing = sorted(topic for topic, partitions in found.items() if partitions is None)
            # A topic that was created a moment ago may not have reached every broker.
            if not missing or monotonic() > deadline:
                break
            await asyncio.sleep(_RETRY_SECONDS)
        if missing:
            text = "topics missing, or hidden from this user"
            raise TopicMismatch(f"{text}: {', '.join(missing)}; `binance-bridge topics apply` creates them")
        for topic, partitions in found.items():
            seen = self._counts.setdefault(topic, len(partitions))
            if seen != len(partitions):
                raise TopicMismatch(self._count_changed(topic, len(partitions)))

    def partitions(self, topic: str) -> int:
        """Return the number of partitions that :meth:`refresh` saw first."""
        count = self._counts.get(topic)
        if count is None:
            raise TopicMismatch(f"topic {topic} was not looked up; call refresh() with it first")
        return count

    def lane(self, topic: str, key: bytes) -> Outbox:
        """Return the lane of ``key`` in ``topic``."""
        outbox = self._lanes.get((topic, key))
        if outbox is None:
            outbox = self._outbox(TopicPartition(topic, partition_for(key, self.partitions(topic))))
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes.clear()
            self._lanes[topic, key] = outbox
        return outbox

    def _outbox(self, place: TopicPartition) -> Outbox:
        outbox = self._outboxes.get(place)
        if outbox is None:
            outbox = self._outboxes[place] = Outbox(
                place, self._format, self._buffer, on_open=self._on_open, on_sealed=self._on_sealed
            )
        return outbox

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the spool's files; 0 without a spool."""
        return self._spooling.used_bytes if self._spooling is not None else 0

    def recoverable(self) -> list[tuple[str, int]]:
        """Return topic and number of records that an earlier process left in the spool, sorted."""
        return self._spooling.recoverable() if self._spooling is not None else []

    async def recover(self, keep: Callable[[str], bool]) -> list[tuple[str, int]]:
        """Publish what an earlier process left in the spool, before all that is queued."""
        if self._spooling is None:
            return []
        concerned = [self._outbox(place) for place in self._spooling.places() if keep(place.topic)]
        for outbox in concerned:
            outbox.paused = True
        try:
            await self.refresh({outbox.place.topic for outbox in concerned})
            while any(outbox.in_flight or outbox.unsure for outbox in concerned):
                self._acknowledged.clear()
                await self._acknowledged.wait()
            dropped = await self._spooling.recover(keep, self._outbox)
        finally:
            for outbox in concerned:
                outbox.paused = False
        self._ready.update(dict.fromkeys(outbox for outbox in self._outboxes.values() if outbox.sealed))
        self._pump()
        return dropped

    def position(self, topic: str, key: bytes) -> tuple[int, int]:
        """Return the partition of ``key`` in ``topic``, and an offset that nothing acknowledged later lies before."""
        outbox = self.lane(topic, key)
        return outbox.place.partition, outbox.last_offset

    def undelivered(self) -> list[tuple[str, int]]:
        """Return topic and number of records queued and not acknowledged, for topics that have any."""
        return self._totals(lambda outbox: outbox.queued)

    def _totals(self, records: Callable[[Outbox], int]) -> list[tuple[str, int]]:
        """Return topic and sum of what ``records`` finds in its partitions, where there are any."""
        totals: dict[str, int] = {}
        for outbox in self._outboxes.values():
            if found := records(outbox):
                totals[outbox.place.topic] = totals.get(outbox.place.topic, 0) + found
        return sorted(totals.items())

    async def settle(self) -> None:
        """Return once every record appended before the call is acknowledged, or refused for good."""
        waiting = {outbox: outbox.done + outbox.queued for outbox in self._outboxes.values() if outbox.queued}
        for outbox in waiting:
            outbox.seal()
            self._ready[outbox] = None
        self._pump()
        discards = self._discards
        while waiting:
            self._acknowledged.clear()
            await self._acknowledged.wait()
            if self._discards != discards:
                raise DeliveryFailed("what waited for Kafka was discarded")
            waiting = {outbox: goal for outbox, goal in waiting.items() if outbox.done < goal}

    def discard(self) -> list[tuple[str, int]]:
        """Drop everything queued and not acknowledged; return topic and number of records, sorted."""
        dropped = self.undelivered()
        for outbox in self._outboxes.values():
            if outbox.unsure:
                self._identity = None
            outbox.discard()
        if self._spooling is not None:
            self._spooling.discarded()
        if dropped:
            self._discards += 1
            self._acknowledged.set()
        return dropped

    async def flush(self, timeout: float) -> int:
        """Send what is queued; return how many records were not acknowledged in ``timeout`` seconds."""
        self._flushing += 1
        try:
            self._linger_over()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while any(outbox.queued for outbox in self._outboxes.values()):
                        self._acknowledged.clear()
                        await self._acknowledged.wait()
        finally:
            self._flushing -= 1
        return sum(records for _, records in self.undelivered())

    async def stop(self, timeout: float) -> list[tuple[str, int]]:
        """Flush and close every connection within ``timeout`` seconds; return what was not delivered."""
        closing = min(1.0, timeout / 6)
        writing = min(5.0, timeout / 4) if self._spooling is not None else 0.0
        if self._watcher is not None:
            await self.flush(timeout - 3 * closing - writing)
        for timer in (self._linger_timer, self._pump_timer):
            if timer is not None:
                timer.cancel()
        if self._watcher is not None:
            await _end({self._watcher}, timeout=closing)
            self._watcher = None
        await self._disconnect(timeout=closing)
        if self._spooling is None:
            return self.undelivered()
        await self._spooling.close(timeout=writing)
        return self._totals(lambda outbox: outbox.queued - outbox.stored)

    # What becomes ready to send.

    def _on_open(self, outbox: Outbox) -> None:
        """Give the first record of a batch time to find company."""
        self._lingering.append(outbox)
        if self._linger_timer is None:
            wait = 0.0 if self._flushing else self._linger
            self._linger_timer = asyncio.get_running_loop().call_later(wait, self._linger_over)

    def _linger_over(self) -> None:
        """Let every open batch go, so that all of one broker share a request."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        lingering, self._lingering = self._lingering, []
        for outbox in lingering:
            outbox.due = True
            self._ready[outbox] = None
        self._pump()

    def _on_sealed(self, outbox: Outbox) -> None:
        """Take notice of a batch that is full, outside of the append that filled it."""
        self._ready[outbox] = None
        self._pump_in(0.0)

    def _pump_in(self, seconds: float) -> None:
        """Look for what can be sent, that much later or earlier."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._pump_timer is not None:
            if self._pump_due <= due:
                return
            self._pump_timer.cancel()
        self._pump_timer, self._pump_due = loop.call_later(seconds, self._pump_on_time), due

    def _pump_on_time(self) -> None:
        self._pump_timer = None
        self._pump()

    def _pump(self) -> None:
        """Give every idle broker one request with the next batch of each of its partitions that has one."""
        client = self._client
        if client is None:
            return
        if not self.may_send():
            self._pump_in(_MAY_SEND_SECONDS)
            return
        now = monotonic()
        loads: dict[int, list[Outbox]] = {}
        sizes: dict[int, int] = {}
        for outbox in list(self._ready):
            if outbox.in_flight or outbox.held_until > now or (outbox.paused and not outbox.unsure):
                continue
            leader = client.cluster.leader_for_partition(outbox.place)
            if leader is None or leader == -1:
                self._no_leader(client, outbox)
                continue
            if leader in self._busy:
                continue
            batch = self._next(client, outbox)
            if batch is None:
                continue
            size = sizes.get(leader, 0) + len(batch.data)
            if leader in loads and size > _REQUEST_BYTES:
                continue
            sizes[leader] = size
            loads.setdefault(leader, []).append(outbox)
            del self._ready[outbox]
        for leader, outboxes in loads.items():
            self._send(client, leader, outboxes)

    def _next(self, client: kafka_client.Client, outbox: Outbox) -> SealedBatch | None:
        """Return the batch that this partition may send now, if it has one and is known to the broker."""
        batch = outbox.head()
        if batch is None:
            del self._ready[outbox]
        elif outbox.identity is None and self._identity is None:
            self._ask(client)
            batch = None
        elif not batch.loaded:
            if self._spooling is not None:
                self._spooling.want(outbox)
            batch = None
        elif batch.record_bytes > MAX_RECORD_BYTES:
            self._isolate(outbox, f"larger than {MAX_RECORD_BYTES} bytes", too_large=False)
            self._pump_in(0.0)
            batch = None
        return batch

    def _no_leader(self, client: kafka_client.Client, outbox: Outbox) -> None:
        client.force_metadata_update()
        text = f"partition {outbox.place.partition} has no leader"
        self._hold(outbox, "no-leader", text, quiet_attempts=3)

    # Sending.

    def _send(self, client: kafka_client.Client, leader: int, outboxes: list[Outbox]) -> None:
        topics: dict[str, list[tuple[int, bytearray]]] = {}
        load = {outbox: outbox.sealed[0] for outbox in outboxes}
        for outbox, batch in load.items():
            outbox.identity = outbox.identity or self._identity
            assert outbox.identity is not None
            batch.stamp(outbox.identity, outbox.sequence)
            outbox.in_flight = True
            if self._spooling is not None:
                self._spooling.sending(outbox, batch)
            topics.setdefault(outbox.place.topic, []).append((outbox.place.partition, batch.data))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=self._settings.request_timeout_ms,
            topics=list(topics.items()),
        )
        self._busy.add(leader)
        task = asyncio.create_task(self._exchange(client, leader, request, load), name="kafka produce")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(
        self,
        client: kafka_client.Client,
        leader: int,
        request: ProduceRequest,
        load: dict[Outbox, SealedBatch],
    ) -> None:
        """Send one request and settle each of its batches by the answer, or by there being none."""
        results: dict[tuple[str, int], _Result] | None = {}
        lost = f"broker {leader} left it out of its answer"
        try:
            results = await self._answers(client, leader, request, load)
        except kafka_client.LOST as error:
            client.force_metadata_update()
            lost = f"broker {leader}: {type(error).__name__}: {error}".rstrip(": ")
        finally:
            self._busy.discard(leader)
            for outbox in load:
                outbox.in_flight = False
        for outbox, batch in load.items():
            result = results.get(outbox.place) if results is not None else None
            if results is None or outbox.first is not batch:  # not sent, or discarded meanwhile
                self._ready[outbox] = None
                self._acknowledged.set()
            elif result is None:
                self._hold(outbox, "unavailable", lost, quiet_attempts=1)
            elif result.code in _DELIVERED:
                self._delivered(outbox, result.offset)
            else:
                self._failed(client, outbox, result.code)
        self._pump()

    async def _answers(
        self,
        client: kafka_client.Client,
        leader: int,
        request: ProduceRequest,
        load: dict[Outbox, SealedBatch],
    ) -> dict[tuple[str, int], _Result] | None:
        """Send a request; return the answer of each partition, or None where it may not be sent any more."""
        if not await client.ready(leader):
            raise NodeNotReadyError
        # A connection takes its time: what was allowed or wanted before may not be any more.
        if not self.may_send() or any(outbox.first is not batch for outbox, batch in load.items()):
            return None
        for outbox in load:
            outbox.unsure = True
        response: Any = await client.send(leader, request)
        return {
            (topic, partition): _Result(code, offset)
            for topic, answers in response.topics
            for partition, code, offset, *_ in answers
        }

    def _delivered(self, outbox: Outbox, offset: int) -> None:
        batch = outbox.acknowledge()
        outbox.attempts = 0
        if self._spooling is not None:
            self._spooling.done(outbox, batch)
        if outbox.sealed or outbox.due:
            self._ready[outbox] = None
        self._progress_at = monotonic()
        self._acknowledged.set()
        topic = outbox.place.topic
        if self._troubles:
            self._recovered(topic)
        if 0 <= offset <= outbox.last_offset:
            text = f"partition {outbox.place.partition} begins again at offset {offset}"
            self._hooks.on_trouble("topic-recreated", topic, text)
        outbox.last_offset = offset if offset >= 0 else outbox.last_offset
        self._hooks.on_delivered(
            topic, batch.records, batch.record_bytes, batch.queued_at, batch.newest_event_ms
        )

    def _failed(self, client: kafka_client.Client, outbox: Outbox, code: int) -> None:
        """Settle a batch that the broker did not take: again, in halves, by a new identity, or never."""
        if code in _STALE_METADATA:
            client.force_metadata_update()
        kind = _TROUBLES.get(code, "refused")
        text = f"partition {outbox.place.partition}: {_shown(code)}"
        if code in _POISON:
            self._ready[outbox] = None
            self._isolate(outbox, _shown(code), too_large=code in _TOO_LARGE)
        elif code in _IDENTITY_LOST or (kind == "refused" and outbox.attempts >= 2):
            self._renew(client, outbox, text)
        else:
            self._hold(outbox, kind, text, quiet_attempts=2 if code in _QUIET_AT_FIRST else 0)

    def _isolate(self, outbox: Outbox, error: str, *, too_large: bool) -> None:
        """Find the record that the broker refuses: halve the batch, or take it out once it is alone."""
        if outbox.sealed[0].records > 1:
            outbox.halve(too_large=too_large)
            return
        batch = outbox.drop()
        if self._spooling is not None:
            self._spooling.done(outbox, batch)
        (record,) = batch.unpack()
        self._acknowledged.set()
        self._hooks.on_poison(
            outbox.place.topic, record.key, record.value, record.timestamp_ms, record.headers, error
        )

    def _hold(self, outbox: Outbox, kind: TroubleKind, text: str, *, quiet_attempts: int = 0) -> None:
        """Send the same batch again after a pause, which grows with each failure in a row."""
        outbox.attempts += 1
        pause = min(_RETRY_SECONDS * 2 ** min(outbox.attempts - 1, 10), _RETRY_MAX_SECONDS)
        outbox.held_until = monotonic() + pause
        self._ready[outbox] = None
        self._pump_in(pause + 0.001)
        if outbox.attempts > quiet_attempts:
            self._tell(kind, "" if kind == "unavailable" else outbox.place.topic, text)

    def _renew(self, client: kafka_client.Client, outbox: Outbox, text: str) -> None:
        """Give the partition a producer id of its own: the broker no longer accepts the old one's sequence.

        The batch was refused just now. Had it been taken in an earlier attempt whose answer was lost, the
        broker would have known it; only a broker that lost its memory of us can so take one batch twice.
        """
        outbox.held_until = _UNTIL_TOLD
        task = asyncio.create_task(self._renewed(client, outbox, text), name="kafka producer id")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renewed(self, client: kafka_client.Client, outbox: Outbox, text: str) -> None:
        try:
            code, identity = await self._ask_identity(client)
            if code == 0:
                outbox.identity, outbox.sequence = identity, 0
        except kafka_client.LOST as error:
            text = f"{text}; and no new producer id: {error!r}"
        finally:
            self._hold(outbox, "refused", text, quiet_attempts=2)

    def _ask(self, client: kafka_client.Client) -> None:
        """Get a producer id for all partitions that have none, unless that is under way."""
        if self._asking is None:
            task = self._asking = asyncio.create_task(self._asked(client), name="kafka producer id")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _asked(self, client: kafka_client.Client) -> None:
        pause = _RETRY_MAX_SECONDS
        try:
            code, identity = await self._ask_identity(client)
            if code == 0:
                self._identity, pause = identity, 0.0
            else:
                self._tell("refused", "", f"no new producer id: {_shown(code)}")
        except kafka_client.LOST as error:
            self._tell("unavailable", "", f"no new producer id: {error!r}")
        finally:
            # Let no other ask before its time.
            asyncio.get_running_loop().call_later(pause, self._may_ask)

    def _may_ask(self) -> None:
        self._asking = None
        self._pump()

    async def _first_identity(self, client: kafka_client.Client, deadline: float) -> Identity:
        """Return a producer id; a cluster that has only just come up may take a while to give one."""
        while True:
            try:
                code, identity = await self._ask_identity(client)
            except kafka_client.LOST as error:
                code, reason = _LOADING, repr(error)
            else:
                reason = _shown(code)
            if code == 0:
                return identity
            if code not in _NOT_YET or monotonic() > deadline:
                servers = self._settings.bootstrap_servers
                raise KafkaUnavailable(
                    f"{servers} gives no producer id: {reason}; may this user write at all?"
                )
            await asyncio.sleep(_RETRY_SECONDS)

    async def _ask_identity(self, client: kafka_client.Client) -> tuple[int, Identity]:
        """Ask any broker for a producer id of our own; return its error code and the id."""
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=2**31 - 1)
        response: Any = await client.send(client.get_random_node(), request)
        return response.error_code, Identity(response.producer_id, response.producer_epoch)

    # Watching.

    async def _watch(self) -> None:
        """See each second that queued records make progress, and that topics are still what they were."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if not self.may_send() or not any(outbox.queued for outbox in self._outboxes.values()):
                self._progress_at = monotonic()
            if self._client is None or monotonic() - self._progress_at > self._watchdog_seconds:
                await self._reconnect()
            if self._client is not None:
                self._check_topics(self._client)
            for outbox in self._outboxes.values():
                if outbox.sealed and not outbox.in_flight:
                    self._ready[outbox] = None
            self._pump()

    async def _reconnect(self) -> None:
        """Begin anew from the bootstrap servers, with passwords read afresh; sequences go on."""
        silent = monotonic() - self._progress_at
        log.warning("kafka: nothing acknowledged for %.0f s; connecting anew", silent)
        await self._disconnect(timeout=1)
        patience = self._settings.request_timeout_ms / 1000
        try:
            client = await kafka_client.connect(self._settings, name=self._name, timeout=patience)
            client.set_topics(self._counts)
            await client.force_metadata_update()
            if client.cluster_id != self._cluster_id:
                # Another cluster may have given our producer id to somebody else.
                self._identity = None
                for outbox in self._outboxes.values():
                    outbox.identity, outbox.sequence, outbox.last_offset = None, 0, -1
        except (BridgeError, *kafka_client.LOST) as error:
            self._tell("unavailable", "", str(error))
            return
        self._client, self._cluster_id = client, client.cluster_id
        self._progress_at = monotonic()

    async def _disconnect(self, *, timeout: float) -> None:
        client, self._client = self._client, None
        await _end(self._tasks, timeout=timeout)
        if client is not None:
            await kafka_client.close(client, timeout=timeout)

    def _check_topics(self, client: kafka_client.Client) -> None:
        for topic, count in self._counts.items():
            found = client.cluster.partitions_for_topic(topic)
            if found is None:
                self._tell("topic-missing", topic, "the cluster no longer has it, or hides it from this user")
            elif len(found) != count:
                self._tell("partitions-changed", topic, self._count_changed(topic, len(found)))

    def _count_changed(self, topic: str, found: int) -> str:
        return (
            f"topic {topic} has {found} partitions and had {self._counts[topic]} when first seen; "
            "keys stay where they were until a restart"
        )

    def _tell(self, kind: TroubleKind, topic: str, text: str) -> None:
        """Report a trouble, once until it is over."""
        if (kind, topic) not in self._troubles:
            self._troubles.add((kind, topic))
            self._hooks.on_trouble(kind, topic, text)

    def _recovered(self, topic: str) -> None:
        """Report the end of what hindered ``topic``, or all topics: a batch was acknowledged."""
        self._end_troubles(
            {t for t in self._troubles if t[1] in ("", topic) and t[0] != "partitions-changed"}
        )

    def _spool_recovered(self) -> None:
        """Report that the spool works again, or that it has room."""
        if self._troubles:
            self._end_troubles(self._troubles & {("spool", "spool")})

    def _end_troubles(self, over: set[tuple[TroubleKind, str]]) -> None:
        self._troubles -= over
        for kind, where in sorted(over):
            self._hooks.on_trouble("recovered", where, f"{kind} is over")


async def _end(tasks: Iterable[asyncio.Task[None]], *, timeout: float) -> None:
    """Cancel ``tasks`` and wait for them, though no longer than ``timeout`` seconds."""
    pending = list(tasks)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=timeout)
