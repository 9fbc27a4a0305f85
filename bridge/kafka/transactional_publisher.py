"""The producer port with transactions: what is appended between two commits is stored as one, or not at all.

Records queue on the event loop. Every ``interval_ms`` those queued become one transaction, which a thread of its own
carries (:mod:`bridge.kafka.transactional_producer`); what comes meanwhile waits for the next one. Records are kept
until their commit is known, so an aborted transaction is done again with the same records in the same order.
``docs/adr/0013-transactions.md`` says why so.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from bridge.errors import ConfigError, DeliveryFailed, KafkaUnavailable
from bridge.kafka import client as kafka_client
from bridge.kafka.outbox import MAX_RECORD_BYTES, Buffer, Buffered, Unspooled
from bridge.kafka.partition_counts import PartitionCounts
from bridge.kafka.partitioner import partition_for
from bridge.kafka.publisher import Hooks
from bridge.kafka.transactional_producer import (
    BESIDE_POISON,
    COLLATERAL,
    POISON,
    TROUBLES,
    Attempt,
    Ended,
    Record,
    Refusal,
    TransactionalProducer,
    record_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import KafkaSettings
    from bridge.model import Header

_TRANSACTION_BYTES = 16 * 1024 * 1024
_PARTS = 8
_RETRY_SECONDS = 0.1
_RETRY_MAX_SECONDS = 2.0
_MAY_SEND_SECONDS = 0.25
_LANES_KEPT = 200_000

Outcome: TypeAlias = Literal["committed", "aborted"]
_T = TypeVar("_T")


def _ignore(*_: object) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionHooks(Hooks):
    """What a transactional publisher tells beside the rest, under the same rules.

    Attributes:
        before_commit: the records queued become a transaction now; what is appended in this call is their last part.
            Called whenever anything is queued, never from within ``append``.
        on_transaction: ``(outcome, records, record_bytes, seconds)`` of each transaction, from its begin to its end.
            One that was aborted is done again.
        on_fenced: ``(reason)``: another process owns the transactional id now. Nothing more is published.
        on_lost: ``(reason)``: whether the last transaction was committed is not known, or the producer failed for
            good. Nothing more is published; the next owner of the id finds out from the topics.
    """

    before_commit: Callable[[], None] = _ignore
    on_transaction: Callable[[Outcome, int, int, float], None] = _ignore
    on_fenced: Callable[[str], None] = _ignore
    on_lost: Callable[[str], None] = _ignore


class _Lane:
    """The way into one partition."""

    __slots__ = ("_header_list", "_headers", "_publisher", "last_offset", "partition", "topic")

    def __init__(self, publisher: TransactionalPublisher, topic: str, partition: int) -> None:
        self._publisher, self.topic, self.partition = publisher, topic, partition
        self.last_offset = -1
        self._headers: Sequence[Header] = ()
        self._header_list: list[tuple[str, bytes]] = []

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        """Queue one record, in order. Never blocks; what is queued is counted against the buffer."""
        if headers is not self._headers:
            self._header_list = [(name, content) for name, content in headers]
            self._headers = headers if isinstance(headers, tuple) else (None,)
        self._publisher.appended(
            Record(self.topic, self.partition, timestamp_ms, key, value, self._header_list)
        )


@dataclass(slots=True)
class _Transaction:
    """The records of one transaction, kept until its end is known.

    Attributes:
        records: in the order in which they were appended.
        size: their bytes.
        queued_at: monotonic seconds at which the first record of each topic was appended.
        refused: indices of records that Kafka will never take.
        batch_limits: bytes that may share a batch, for partitions that refused one: to find out which record it was.
        skewed: librdkafka's sequence has a hole after a refused batch, for which the next attempt fails as well.
        watched: whether to ask about each record.
    """

    records: list[Record] = field(default_factory=list)
    size: int = 0
    queued_at: dict[str, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    batch_limits: dict[tuple[str, int], int] = field(default_factory=dict)
    skewed: bool = False
    watched: bool = False

    def left(self) -> Iterator[Record]:
        """Yield the records that were not refused."""
        return (record for index, record in enumerate(self.records) if index not in self.refused)

    def by_topic(self) -> dict[str, int]:
        """Return how many records each topic would get."""
        counts: dict[str, int] = {}
        for record in self.left():
            counts[record.topic] = counts.get(record.topic, 0) + 1
        return counts


class _Thread:
    """Runs one call after another, apart from the event loop; a call that hangs holds up nobody's exit."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[[], _T]) -> asyncio.Future[_T]:
        """Return what ``function()`` will give."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # it is _T where there is no error
            else:
                future.set_exception(error)

        def run() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - handed on to who waits for it
                failure = error
            with suppress(RuntimeError):  # the loop may be gone by then
                loop.call_soon_threadsafe(settle, result, failure)

        self._calls.put(run)
        return future

    def end(self) -> None:
        """Let the thread end after the calls it was given."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


@dataclass(slots=True)
class _Carrier:
    """What carries transactions out, while there is one."""

    thread: _Thread
    producer: TransactionalProducer

    def close(self) -> asyncio.Future[None]:
        """Abort what is under way and end all connections, in the background."""
        self.producer.give_up.set()
        closed = self.thread.call(self.producer.close)
        self.thread.end()
        return closed


class TransactionalPublisher(Buffered, Unspooled):
    """Exactly once, in order, in transactions. See :class:`~bridge.kafka.publisher.KafkaPublisher`.

    Args:
        settings: where Kafka is and how to send; ``client`` is not looked at.
        hooks: whom to tell what.
        transactional_id: whose transactions these are; a new owner fences the one before.
        transaction_timeout_ms: how long the coordinator lets a transaction stay open, so the longest time for which a
            dead owner holds up ``read_committed`` readers. At least twice ``request_timeout_ms``.
        interval_ms: from the begin of one transaction to that of the next.
        name: client id, as broker logs and quotas show it.

    Attributes:
        may_send: looked at before each transaction.

    Raises:
        ConfigError: the transaction timeout is too short.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        hooks: TransactionHooks | None = None,
        *,
        transactional_id: str,
        transaction_timeout_ms: int = 30_000,
        interval_ms: int = 100,
        name: str = "bridge",
    ) -> None:
        if transaction_timeout_ms < 2 * settings.request_timeout_ms:
            raise ConfigError(
                f"transactions may stay open for {transaction_timeout_ms} ms, which must be at least twice "
                f"the request timeout, {settings.request_timeout_ms} ms"
            )
        self.may_send: Callable[[], bool] = lambda: True
        self._settings, self._hooks, self._name = settings, hooks or TransactionHooks(), name
        self._id, self._timeout_ms = transactional_id, transaction_timeout_ms
        self._interval = interval_ms / 1000
        self._buffer = Buffer(settings.buffer_bytes, self._hooks.on_full)
        self._counts = PartitionCounts(settings)
        self._places: dict[tuple[str, int], _Lane] = {}
        self._lanes: dict[tuple[str, bytes], _Lane] = {}
        self._batch_limits: dict[tuple[str, int], int] = {}  # of partitions that take only small batches
        self._open = _Transaction()
        self._sealed: deque[_Transaction] = deque()
        self._sealing = False
        self._hurried = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  # something was committed, refused, discarded, or all is over
        self._appended = 0
        self._done = 0
        self._discards = 0
        self._over: str | None = None
        self._carrier: _Carrier | None = None
        self._runner: asyncio.Task[None] | None = None
        self._troubles: set[tuple[TroubleKind, str]] = set()

    # The port.

    async def start(self, *, timeout: float = 10.0) -> None:
        """Connect and take the transactional id within ``timeout`` seconds.

        From its return on nothing of a former owner can reach the topics, and what it left open is aborted.

        Raises:
            KafkaUnavailable: names the servers and each one's true reason, or why the id is not given.
            ConfigError: a certificate or password file cannot be read.
        """
        deadline = monotonic() + timeout
        # librdkafka tells a wrong password or certificate only in its log, so aiokafka's client looks first.
        probe = await kafka_client.connect(self._settings, name=self._name, timeout=timeout)
        await kafka_client.close(probe, timeout=1)
        carrier = _Carrier(_Thread(f"transactions {self._id}"), self._new_producer())
        try:
            await carrier.thread.call(partial(carrier.producer.take, max(deadline - monotonic(), 0.1)))
        except BaseException:
            await asyncio.wait([carrier.close()], timeout=1)
            raise
        self._carrier = carrier
        self._runner = asyncio.create_task(self._run(carrier), name=f"transactions {self._id}")

    async def refresh(self, topics: Iterable[str]) -> None:
        """Learn the partitions of ``topics``, before the first :meth:`lane` into them."""
        if self._runner is None:
            raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: not connected")
        await self._counts.refresh(topics)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions that :meth:`refresh` saw first."""
        return self._counts[topic]

    def lane(self, topic: str, key: bytes) -> _Lane:
        """Return the lane of ``key`` in ``topic``."""
        lane = self._lanes.get((topic, key))
        if lane is None:
            place = topic, partition_for(key, self._counts[topic])
            lane = self._places.get(place)
            if lane is None:
                lane = self._places[place] = _Lane(self, *place)
            if len(self._lanes) >= _LANES_KEPT:
                self._lanes.clear()
            self._lanes[topic, key] = lane
        return lane

    def position(self, topic: str, key: bytes) -> tuple[int, int]:
        """Return the partition of ``key`` in ``topic``, and an offset that nothing committed later lies before."""
        lane = self.lane(topic, key)
        return lane.partition, lane.last_offset

    def undelivered(self) -> list[tuple[str, int]]:
        """Return topic and number of records queued and not known to be committed, for topics that have any."""
        totals: dict[str, int] = {}
        for transaction in (*self._sealed, self._open):
            for topic, count in transaction.by_topic().items():
                totals[topic] = totals.get(topic, 0) + count
        return sorted(totals.items())

    async def settle(self) -> None:
        """Return once every record appended before the call is committed, or refused for good.

        Raises:
            DeliveryFailed: that cannot be any more: discarded, fenced, lost or stopped.
        """
        goal, discards = self._appended, self._discards
        self._hurry()
        while self._done < goal:
            if self._over is not None:
                raise DeliveryFailed(f"nothing more is published: {self._over}")
            self._changed.clear()
            await self._changed.wait()
            if self._discards != discards:
                raise DeliveryFailed("what waited for Kafka was discarded")

    def discard(self) -> list[tuple[str, int]]:
        """Drop everything queued and abort what is under way; return topic and number of records, sorted.

        A transaction whose commit is on its way just now may still be stored; its answer is ignored. Later
        records go as ever.
        """
        dropped = self.undelivered()
        if not dropped:
            return []
        if self._sealed and self._carrier is not None:
            self._carrier.producer.give_up.set()
        self._sealed.clear()
        self._open = _Transaction()
        self._done = self._appended
        self._discards += 1
        self._buffer.release(self._buffer.bytes)
        self._changed.set()
        return dropped

    async def flush(self, timeout: float) -> int:
        """Commit what is queued; return how many records were not committed in ``timeout`` seconds."""
        self._hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._done < self._appended and self._over is None:
                    self._changed.clear()
                    await self._changed.wait()
        return sum(records for _, records in self.undelivered())

    async def stop(self, timeout: float) -> list[tuple[str, int]]:
        """Commit what is queued, or abort, and close every connection, all within ``timeout`` seconds.

        Returns:
            What is not known to be committed. No transaction is left open, unless no coordinator answers: then it
            is aborted when its time is over.
        """
        if self._runner is None or self._carrier is None:
            return self.undelivered()
        closing = min(2.0, timeout / 3)
        await self.flush(timeout - closing)
        runner, self._runner = self._runner, None
        carrier, self._carrier = self._carrier, None
        runner.cancel()
        await asyncio.wait([runner, carrier.close()], timeout=closing)
        self._end("stopped")
        return self.undelivered()

    # What is queued, and when it goes.

    def appended(self, record: Record) -> None:
        """Queue one record."""
        transaction, size = self._open, record_bytes(record)
        if not transaction.records:
            self._wake.set()
        transaction.records.append(record)
        transaction.size += size
        if record.topic not in transaction.queued_at:
            transaction.queued_at[record.topic] = monotonic()
        self._appended += 1
        self._buffer.bytes += size
        if self._buffer.full:
            self._buffer.check()
        if transaction.size >= _TRANSACTION_BYTES and not self._sealing:
            # Not here and now: the caller may be between two records that belong together.
            self._sealing = True
            asyncio.get_running_loop().call_soon(self._seal)

    def _hurry(self) -> None:
        """Let what is queued go without waiting for the interval."""
        if self._open.records and self._over is None:
            self._hurried = True
            self._wake.set()

    def _seal(self) -> None:
        """Make one transaction of what is queued."""
        self._sealing = False
        if not self._open.records or self._over is not None:
            return
        self._hooks.before_commit()
        self._sealed.append(self._open)
        self._open = _Transaction()
        self._wake.set()

    async def _run(self, carrier: _Carrier) -> None:
        try:
            began = 0.0
            while self._over is None:
                await self._wake.wait()
                self._wake.clear()
                while (self._open.records or self._sealed) and self._over is None:
                    await self._until_due(began + self._interval)
                    await self._leave()
                    if not self._sealed:
                        self._hurried = False
                        self._seal()
                    began = monotonic()
                    if self._sealed:
                        await self._deliver(carrier, self._sealed[0])
        except Exception as error:
            self._end(f"{type(error).__name__}: {error}")
            self._hooks.on_lost(f"the publisher failed: {type(error).__name__}: {error}")
            raise

    async def _until_due(self, due: float) -> None:
        """Wait for the interval's end, or until somebody waits for what is queued or enough of it is there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(due - monotonic(), 0)):
                while not self._hurried and not self._sealed:
                    await self._wake.wait()
                    self._wake.clear()

    async def _leave(self) -> None:
        while not self.may_send():  # noqa: ASYNC110 - nobody tells when it changes
            await asyncio.sleep(_MAY_SEND_SECONDS)

    def _new_producer(self) -> TransactionalProducer:
        return TransactionalProducer(
            self._settings,
            name=self._name,
            transactional_id=self._id,
            transaction_timeout_ms=self._timeout_ms,
            on_trouble=partial(self._from_thread, asyncio.get_running_loop(), self._tell, "unavailable", ""),
        )

    # One transaction, as often as it takes.

    async def _deliver(self, carrier: _Carrier, transaction: _Transaction) -> None:
        failures = 0
        while self._sealed and self._sealed[0] is transaction and self._over is None:
            await self._leave()
            began = monotonic()
            attempt = await self._attempt(carrier, transaction)
            if isinstance(attempt, Ended):
                carrier.thread.call(carrier.producer.close)  # lest librdkafka goes on trying
                if attempt.renewable:
                    failures += 1
                    await self._renew(carrier, failures)
                    continue
                self._end(attempt.reason)
                (self._hooks.on_fenced if attempt.fenced else self._hooks.on_lost)(attempt.reason)
                return
            self._tell_transaction(transaction, attempt, monotonic() - began)
            if not self._sealed or self._sealed[0] is not transaction:
                return  # discarded meanwhile
            if attempt.committed:
                self._committed(transaction, attempt)
            elif not self._examine(transaction, attempt.refusals):
                failures += 1
                await _pause(failures)

    async def _renew(self, carrier: _Carrier, failures: int) -> None:
        """Take the id again with a new producer. Only as long as we may send: nobody else may own it then."""
        while self._over is None:
            await _pause(failures)
            await self._leave()
            carrier.producer = self._new_producer()
            seconds = self._settings.request_timeout_ms / 1000
            try:
                await carrier.thread.call(partial(carrier.producer.take, seconds))
            except KafkaUnavailable as error:
                self._tell("unavailable", "", str(error))
                carrier.thread.call(carrier.producer.close)
                failures += 1
            else:
                return

    async def _attempt(self, carrier: _Carrier, transaction: _Transaction) -> Attempt | Ended:
        """Carry a transaction out in the thread; say so when it takes longer than one request may."""
        too_large = {
            i for i, record in enumerate(transaction.records) if len(record.value) > MAX_RECORD_BYTES
        }
        for index in sorted(too_large - transaction.refused):
            self._poison(transaction, index, f"larger than {MAX_RECORD_BYTES} bytes")
        carrier.producer.give_up.clear()
        future = carrier.thread.call(
            partial(
                carrier.producer.attempt,
                transaction.records,
                skipped=frozenset(transaction.refused),
                batch_limits=self._batch_limits | transaction.batch_limits,
                watched=transaction.watched,
                on_abort=partial(
                    self._from_thread, asyncio.get_running_loop(), self._tell_refusals, transaction
                ),
            )
        )
        seconds = self._settings.request_timeout_ms / 1000
        await asyncio.wait([future], timeout=seconds)
        if not future.done():
            self._tell("unavailable", "", f"a transaction has taken more than {seconds:g} s")
        return await future

    def _committed(self, transaction: _Transaction, attempt: Attempt) -> None:
        """Let go of what is stored."""
        self._sealed.popleft()
        self._notice_limits(transaction)
        for index, offset in attempt.offsets:
            record = transaction.records[index]
            lane = self._places[record.topic, record.partition]
            if 0 <= offset <= lane.last_offset:
                text = f"partition {record.partition} begins again at offset {offset}"
                self._hooks.on_trouble("topic-recreated", record.topic, text)
            lane.last_offset = offset
        self._done += len(transaction.records) - len(transaction.refused)
        self._buffer.release(sum(map(record_bytes, transaction.left())))
        self._recovered()
        for topic, (count, size, newest) in _sums(transaction.left()).items():
            self._hooks.on_delivered(topic, count, size, transaction.queued_at[topic], newest)
        self._changed.set()

    def _notice_limits(self, transaction: _Transaction) -> None:
        """Remember partitions whose batches had to be made smaller though no record was to blame."""
        blamed = {transaction.records[index][:2] for index in transaction.refused}
        for place, limit in transaction.batch_limits.items():
            if place not in blamed:
                self._batch_limits[place] = limit

    def _examine(self, transaction: _Transaction, refusals: Sequence[Refusal]) -> bool:
        """See why a transaction was aborted; return whether to try again at once."""
        poison = [refusal for refusal in refusals if refusal.code in POISON and refusal.at >= 0]
        others = [r for r in refusals if r.code not in POISON and r.code not in COLLATERAL]
        skewed = transaction.skewed
        transaction.skewed = bool(poison) or not (others or transaction.watched)
        self._tell_refusals(transaction, others)
        if transaction.watched and not poison and not others and not skewed:
            others = list(refusals[:1])
            self._tell("refused", "", "transactions are aborted for a reason that librdkafka does not tell")
        if not transaction.watched:
            transaction.watched = True
            return not others
        named = any(refusal.code == BESIDE_POISON for refusal in refusals)
        by_place: dict[tuple[str, int], list[Refusal]] = {}
        for refusal in poison:
            by_place.setdefault(transaction.records[refusal.at][:2], []).append(refusal)
        for place, refused in by_place.items():
            if named or len(refused) == 1:
                for refusal in refused:
                    self._poison(transaction, refusal.at, refusal.text)
            else:
                whole = sum(record_bytes(transaction.records[refusal.at]) for refusal in refused)
                transaction.batch_limits[place] = whole // _PARTS
        return not others

    def _poison(self, transaction: _Transaction, index: int, error: str) -> None:
        record = transaction.records[index]
        transaction.refused.add(index)
        self._done += 1
        self._buffer.release(record_bytes(record))
        self._changed.set()
        self._hooks.on_poison(
            record.topic, record.key, record.value, record.timestamp_ms, tuple(record.headers), error
        )

    # Telling.

    def _tell_transaction(self, transaction: _Transaction, attempt: Attempt, seconds: float) -> None:
        count = len(transaction.records) - len(transaction.refused)
        outcome: Outcome = "committed" if attempt.committed else "aborted"
        self._hooks.on_transaction(outcome, count, transaction.size, seconds)

    def _tell_refusals(self, transaction: _Transaction, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            if refusal.code in COLLATERAL | POISON:
                continue
            kind = TROUBLES.get(refusal.code, "refused")
            if refusal.at < 0:
                self._tell(kind, "", refusal.text)
            else:
                record = transaction.records[refusal.at]
                self._tell(kind, record.topic, f"partition {record.partition}: {refusal.text}")

    def _end(self, reason: str) -> None:
        """Publish nothing more."""
        if self._over is None:
            self._over = reason
        self._changed.set()

    def _from_thread(
        self, loop: asyncio.AbstractEventLoop, told: Callable[..., None], *values: object
    ) -> None:
        with suppress(RuntimeError):  # the loop may be gone by then
            loop.call_soon_threadsafe(told, *values)

    def _tell(self, kind: TroubleKind, topic: str, text: str) -> None:
        """Report a trouble, once until it is over."""
        if (kind, topic) not in self._troubles:
            self._troubles.add((kind, topic))
            self._hooks.on_trouble(kind, topic, text)

    def _recovered(self) -> None:
        """Report the end of what hindered: a transaction was committed."""
        over, self._troubles = self._troubles, set()
        for kind, topic in sorted(over):
            self._hooks.on_trouble("recovered", topic, f"{kind} is over")


async def _pause(failures: int) -> None:
    await asyncio.sleep(min(_RETRY_SECONDS * 2 ** min(failures, 10), _RETRY_MAX_SECONDS))


def _sums(records: Iterable[Record]) -> dict[str, tuple[int, int, int]]:
    """Return number, bytes and latest timestamp of the records of each topic."""
    sums: dict[str, tuple[int, int, int]] = {}
    for record in records:
        count, size, newest = sums.get(record.topic, (0, 0, 0))
        sums[record.topic] = count + 1, size + record_bytes(record), max(newest, record.timestamp_ms)
    return sums
