"""Kafka transactions by librdkafka, one at a time: blocking calls, made by one thread.

librdkafka speaks the first version of the protocol (``EndTxn`` up to version 1): the epoch stays the same from one
transaction to the next, so a request to commit that a broker left lying may end a *later* transaction, when the
broker wakes up. So a commit that is not answered within one request's time is never followed by another
transaction of the same producer: its outcome is :class:`Ended`, and whoever takes the transactional id next
fences all that is still under way.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.errors import ConfigError, KafkaUnavailable
from bridge.kafka.outbox import MAX_RECORD_BYTES

try:
    from confluent_kafka import KafkaError, KafkaException, Producer
except ImportError:
    raise ConfigError(
        "transactions need librdkafka, which is not installed; pip install 'binance-kafka-bridge[librdkafka]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import KafkaSettings

_SLICE_SECONDS = 0.2
_PAUSE_SECONDS = 0.1
_ABORT_SECONDS = 300.0
_RECORDS_AT_ONCE = 128
_RECORD_OVERHEAD_BYTES = 64

POISON = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    }
)
"""Error codes of batches that Kafka will never take, because of one of their records or of their size."""

BESIDE_POISON: int = KafkaError._INVALID_DIFFERENT_RECORD  # noqa: SLF001 - confluent-kafka's name for it
"""Error code of a good record in a batch where the broker named the bad ones."""

COLLATERAL = frozenset(
    {
        BESIDE_POISON,
        KafkaError._FATAL,  # noqa: SLF001 - the same
        KafkaError._PURGE_QUEUE,  # noqa: SLF001 - the same
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001 - the same
        KafkaError._STATE,  # noqa: SLF001 - the same
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    }
)
"""Error codes of records that failed only because another one did."""

TROUBLES: dict[int, TroubleKind] = {
    KafkaError._UNKNOWN_TOPIC: "topic-missing",  # noqa: SLF001 - the same
    KafkaError._UNKNOWN_PARTITION: "topic-missing",  # noqa: SLF001 - the same
    KafkaError.UNKNOWN_TOPIC_OR_PART: "topic-missing",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "authorization",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "authorization",
    KafkaError._MSG_TIMED_OUT: "no-leader",  # noqa: SLF001 - the same
}
"""What the other error codes mean to the port; those not named are a refusal."""

_FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - the same
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
_FAILED_BEFORE_ITS_END = KafkaError._INCONSISTENT  # noqa: SLF001 - the same


class Record(NamedTuple):
    """One record and where it goes."""

    topic: str
    partition: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def record_bytes(record: Record) -> int:
    """Return what a record takes up, its frame and our own bookkeeping estimated."""
    return len(record.key) + len(record.value) + _RECORD_OVERHEAD_BYTES


class Refusal(NamedTuple):
    """One record was not stored: which one, by its index in the transaction (-1: not known), and why."""

    at: int
    code: int
    text: str


class Attempt(NamedTuple):
    """How one transaction fared.

    Attributes:
        committed: it is in the topics; otherwise it was aborted, and nothing of it is.
        refusals: why it was aborted, as far as it is known.
        offsets: the offsets of the records that were asked for, by index.
    """

    committed: bool
    refusals: tuple[Refusal, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()


class Ended(NamedTuple):
    """The producer must not go on.

    Attributes:
        reason: why, in words.
        fenced: somebody else took the transactional id, or the coordinator took it from us (time-out); otherwise the
            outcome of the last commit is not known, or the producer failed for good.
        renewable: the producer is useless, but nothing of this transaction was committed and the id was ours still.
    """

    reason: str
    fenced: bool
    renewable: bool = False


class _EndedError(Exception):
    """Carries the end up to :meth:`TransactionalProducer.attempt`."""

    def __init__(self, reason: str, *, fenced: bool, renewable: bool = False) -> None:
        self.ended = Ended(reason, fenced, renewable)
        super().__init__(reason)


class TransactionalProducer:
    """Owns one transactional id from :meth:`take` on. All methods block and belong to one thread.

    Args:
        settings: where Kafka is and how to send.
        name: client id, as broker logs and quotas show it.
        transactional_id: whose transactions these are.
        transaction_timeout_ms: how long the coordinator lets a transaction stay open.
        on_trouble: called with a text when no broker answers.

    Attributes:
        give_up: set by any thread: abort what is under way, soon.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        name: str,
        transactional_id: str,
        transaction_timeout_ms: int,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.give_up = threading.Event()
        self._id = transactional_id
        self._request_seconds = settings.request_timeout_ms / 1000
        self._timeout_seconds = transaction_timeout_ms / 1000
        self._on_trouble = on_trouble
        self._refusals: list[Refusal] = []
        self._offsets: list[tuple[int, int]] = []
        self._servers = settings.bootstrap_servers
        self._producer: Any = Producer(
            {
                **settings.librdkafka_options(),
                "client.id": name,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": transaction_timeout_ms,
                # Half of it: then a transaction that makes no progress is aborted by us, which keeps the id, and not
                # by the coordinator, which takes it from us.
                "message.timeout.ms": transaction_timeout_ms // 2,
                "compression.type": settings.compression,
                "linger.ms": settings.linger_ms,
                "batch.size": settings.batch_bytes,
                "message.max.bytes": MAX_RECORD_BYTES,
                "request.timeout.ms": settings.request_timeout_ms,
                "queue.buffering.max.messages": 0,
                "queue.buffering.max.kbytes": 2**31 - 1,
                "topic.metadata.refresh.interval.ms": 30_000,
                "error_cb": self._on_error,
                "log_level": 0,  # what matters is raised, and told
                "logger": logging.getLogger("bridge.librdkafka"),
            }
        )

    def take(self, timeout: float) -> None:
        """Take the transactional id within ``timeout`` seconds: a former owner is fenced, what it left open is aborted.

        Raises:
            KafkaUnavailable: says why not.
        """
        deadline = monotonic() + timeout
        while True:
            try:
                self._producer.init_transactions(max(deadline - monotonic(), 0.1))
            except KafkaException as error:
                reason = error.args[0]
                if not reason.retriable() or monotonic() > deadline or self.give_up.is_set():
                    raise KafkaUnavailable(self._not_taken(reason, timeout)) from None
                sleep(_PAUSE_SECONDS)
            else:
                return

    def attempt(
        self,
        records: Sequence[Record],
        *,
        skipped: Collection[int] = (),
        batch_limits: Mapping[tuple[str, int], int],
        watched: bool = False,
        on_abort: Callable[[tuple[Refusal, ...]], None],
    ) -> Attempt | Ended:
        """Put ``records`` into one transaction and end it, by a commit if all is well and by an abort otherwise.

        Args:
            records: in the order in which their partitions get them.
            skipped: indices of records to leave out.
            batch_limits: for topic and partition, how many bytes may share a batch; a larger record goes alone.
            watched: whether to hear of each record, to know which are refused; otherwise of each partition's last.
            on_abort: called with what is known before an abort, which may take long.

        Returns:
            How it fared. After :class:`Ended` nothing but :meth:`close` may be called.
        """
        self._refusals, self._offsets = [], []
        try:
            committed = self._committed(records, skipped, batch_limits, watched=watched)
            if not committed:
                self._ask_why()
                on_abort(tuple(self._refusals))
                self._abort()
        except _EndedError as error:
            return error.ended
        return Attempt(committed, tuple(self._refusals), tuple(self._offsets) if committed else ())

    def _committed(
        self,
        records: Sequence[Record],
        skipped: Collection[int],
        batch_limits: Mapping[tuple[str, int], int],
        *,
        watched: bool,
    ) -> bool:
        """Return whether it was committed; otherwise it must be aborted."""
        try:
            self._producer.begin_transaction()
            if self._produce(records, skipped, batch_limits, watched=watched) and self._drain():
                self._commit()
                return True
        except KafkaException as error:
            self._raise_if_over(error.args[0])
            self._refusals.append(_refusal(-1, error.args[0]))
        return False

    def close(self) -> None:
        """End every connection. A transaction that is open is aborted by the coordinator, or by the next owner."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException):
                producer.purge(blocking=False)
                producer.poll(0)
        # Its end is that of its last reference. Its own close() would first send an abort, which may wait for long
        # and, where a commit is still under way, is not ours to send.

    def _produce(
        self,
        records: Sequence[Record],
        skipped: Collection[int],
        batch_limits: Mapping[tuple[str, int], int],
        *,
        watched: bool,
    ) -> bool:
        """Hand all records over; return False where one was refused meanwhile."""
        produce = self._producer.produce
        last = {record[:2]: index for index, record in enumerate(records) if index not in skipped}
        reported = range(len(records)) if watched else frozenset(last.values())
        together: dict[tuple[str, int], int] = {}
        for index, (topic, partition, timestamp, key, value, headers) in enumerate(records):
            if index in skipped:
                continue
            if batch_limits and (topic, partition) in batch_limits:
                size = record_bytes(records[index])
                sum_ = together.get((topic, partition), 0) + size
                if sum_ > batch_limits[topic, partition]:
                    together.clear()
                    sum_ = size
                    if not self._drain():
                        return False
                together[topic, partition] = sum_
            heard = {"on_delivery": partial(self._reported, index)} if index in reported else {}
            try:
                produce(topic, value, key, partition, timestamp=timestamp, headers=headers, **heard)
            except KafkaException as error:
                self._refusals.append(_refusal(index, error.args[0]))
                return False
            if index % _RECORDS_AT_ONCE == 0:
                sleep(0)  # the event loop's thread may be waiting for the interpreter
        return True

    def _drain(self) -> bool:
        """Wait until all that was handed over is acknowledged; return False where one was refused."""
        while len(self._producer) and not self._refusals and not self.give_up.is_set():
            self._producer.flush(_SLICE_SECONDS)
        return not self._refusals and not self.give_up.is_set()

    def _reported(self, index: int, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._offsets.append((index, message.offset()))
        else:
            self._refusals.append(_refusal(index, error))

    def _commit(self) -> None:
        """Commit what is all acknowledged; anything but a plain yes in time leaves the outcome open."""
        began = monotonic()
        try:
            self._producer.commit_transaction(self._request_seconds)
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == _FAILED_BEFORE_ITS_END:
                raise
            self._raise_if_over(reason)
            took = f"no commit within {monotonic() - began:.1f} s"
            raise _EndedError(f"{took}, so its outcome is not known: {reason.str()}", fenced=False) from None

    def _ask_why(self) -> None:
        """Learn why records were purged that did not fail by themselves: a commit that cannot be says it.

        Nothing is sent for it: librdkafka refuses to commit once a record failed.
        """
        if self._refusals and all(refusal.code in COLLATERAL for refusal in self._refusals):
            try:
                self._producer.commit_transaction(_SLICE_SECONDS)
            except KafkaException as error:
                self._raise_if_over(error.args[0])
                self._refusals.append(_refusal(-1, error.args[0]))

    def _abort(self) -> None:
        """Abort. While partitions have too few replicas for the marks of it, it takes as long as that lasts."""
        deadline = monotonic() + _ABORT_SECONDS
        while True:
            try:
                self._producer.abort_transaction(_SLICE_SECONDS)
            except KafkaException as error:
                reason = error.args[0]
                if reason.code() == KafkaError.INVALID_TXN_STATE:
                    # No partition let itself be added (no permission, no topic), so the coordinator knows of nothing
                    # to abort, which librdkafka takes as its end. A coordinator looks at who asks before it says so.
                    raise _EndedError(self._in_words(reason), fenced=False, renewable=True) from None
                self._raise_if_over(reason)
                # librdkafka gives up a request to abort after three times, and then waits for its answer for ever.
                if "EndTxn" in reason.str() or monotonic() > deadline:
                    raise _EndedError(f"no abort: {reason.str()}", fenced=False) from None
                sleep(_PAUSE_SECONDS)  # and no poll(), which would raise here what the next call says as well
            else:
                return

    def _raise_if_over(self, error: KafkaError) -> None:
        if error.code() in _FENCED:
            text = (
                f"{error.str()}: another process took transactional id {self._id}, "
                f"or a transaction of ours was open for longer than {self._timeout_seconds:g} s"
            )
            raise _EndedError(text, fenced=True) from None
        if error.fatal():
            raise _EndedError(self._in_words(error), fenced=False) from None

    def _in_words(self, error: KafkaError) -> str:
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"this user may not use transactional id {self._id}; it needs the ACLs Describe and Write on it"
        return f"{error.name()}: {error.str()}"

    def _not_taken(self, error: KafkaError, timeout: float) -> str:
        reason = self._in_words(error)
        if error.code() == KafkaError._TIMED_OUT:  # noqa: SLF001 - confluent-kafka's name for it
            reason = f"not within {timeout:g} s ({error.str()}); is the transaction coordinator up?"
        return f"{self._servers}: no transactions as {self._id}: {reason}"

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - confluent-kafka's name for it
            self._on_trouble(error.str())


def _refusal(at: int, error: KafkaError) -> Refusal:
    return Refusal(at, error.code(), f"{error.name()}: {error.str()}")
