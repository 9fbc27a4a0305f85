"""The producer port: what the wiring asks of Kafka, whichever client library carries it.

``create_publisher`` gives the one that the settings name. ``docs/adr/0004-producer-port.md`` says why there
are two, and why neither is the library's own producer as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from bridge.errors import ConfigError
from bridge.model import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridge.kafka.settings import KafkaSettings, SpoolSettings

TroubleKind = Literal[
    "unavailable",  # brokers do not answer
    "no-leader",  # a partition has no leader, or too few replicas
    "authorization",  # the user may not write
    "topic-missing",  # deleted while running
    "topic-recreated",  # offsets began again
    "partitions-changed",  # the number of partitions is not the one seen at start
    "spool",  # its files cannot be written or read, or are full
    "refused",  # any other refusal of a batch
    "recovered",  # the trouble of this topic, or of all brokers, is over
]


OnPoison: TypeAlias = "Callable[[str, bytes, bytes, int, Sequence[tuple[str, bytes]], str], None]"
"""``(topic, key, value, timestamp_ms, headers, error)`` of a record that Kafka will never accept."""

OnDelivered: TypeAlias = "Callable[[str, int, int, float, int], None]"
"""``(topic, records, record_bytes, queued_at, newest_event_ms)`` of an acknowledged batch.

``record_bytes`` is their size before compression, keys and framing included; ``queued_at`` is when
the oldest was queued, in monotonic seconds; ``newest_event_ms`` is the latest record timestamp.
"""


def _ignore(*_: object) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a publisher tells. Each is called on the event loop's thread and must neither block nor raise.

    Attributes:
        on_poison: a record that Kafka will never take; it is out of the queue, all others go on in order.
        on_delivered: a batch was acknowledged.
        on_trouble: ``(kind, topic, text)``: something hinders delivery; once per kind and topic until it ends
            with ``recovered``. ``topic`` is "" where all are concerned, "spool" where it is the spool's files.
            Records stay queued meanwhile.
        on_full: the buffer reached its limit; :meth:`KafkaPublisher.wait_below` tells when it fell again.
    """

    on_poison: OnPoison = _ignore
    on_delivered: OnDelivered = _ignore
    on_trouble: Callable[[TroubleKind, str, str], None] = _ignore
    on_full: Callable[[], None] = _ignore


class KafkaPublisher(Publisher, Protocol):
    """The producer port in full: what the wiring asks of it. One event loop owns it."""

    @property
    def limit_bytes(self) -> int:
        """Bytes from which on it is full."""

    @property
    def full(self) -> bool:
        """Whether :attr:`buffered_bytes` reached the limit. Appending still works: nothing is dropped."""

    may_send: Callable[[], bool]
    """Looked at before anything is sent; while it says False all stays queued. Says True unless it is set.

    Once it says True again sending goes on within a second or so. What librdkafka was handed before, it sends.
    """

    async def wait_below(self, fraction: float) -> None:
        """Return once no more than ``fraction`` of the limit is queued."""

    async def start(self, *, timeout: float = 10.0) -> None:
        """Connect within ``timeout`` seconds.

        Raises:
            KafkaUnavailable: names the servers and each one's true reason.
            ConfigError: a certificate or password file cannot be read.
        """

    async def refresh(self, topics: Iterable[str]) -> None:
        """Learn the partitions of ``topics``, before the first :meth:`lane` into them.

        Raises:
            TopicMismatch: names the topics that are missing, or whose number of partitions changed since.
            KafkaUnavailable: no broker answers.
        """

    def partitions(self, topic: str) -> int:
        """Return the number of partitions that :meth:`refresh` saw first.

        Raises:
            TopicMismatch: the topic was not refreshed.
        """

    def position(self, topic: str, key: bytes) -> tuple[int, int]:
        """Return the partition of ``key`` in ``topic``, and an offset there: nothing acknowledged later lies before it.

        The offset is -1 while nothing was acknowledged.
        """

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the spool's files; 0 without a spool."""

    def recoverable(self) -> list[tuple[str, int]]:
        """Return topic and number of records that an earlier process left in the spool, sorted; after :meth:`start`."""

    async def recover(self, keep: Callable[[str], bool]) -> list[tuple[str, int]]:
        """Publish what an earlier process left in the spool, before all that is queued.

        Until it is called nothing is written to a spool that holds such records. It returns once they are queued,
        for which it waits where something newer is on its way to one of their partitions.

        Args:
            keep: whether a topic's records are still wanted; the others are dropped.

        Returns:
            Topic and number of the records that were dropped, sorted.

        Raises:
            TopicMismatch: names the topics to keep that are missing. Nothing was dropped.
        """

    def undelivered(self) -> list[tuple[str, int]]:
        """Return topic and number of records queued and not acknowledged, for topics that have any."""

    async def settle(self) -> None:
        """Return once every record appended before the call is acknowledged, or refused for good.

        Open batches go without waiting for company (librdkafka's for its ``linger_ms``); what is appended later
        does not delay it.

        Raises:
            DeliveryFailed: :meth:`discard` was called meanwhile, so some may never arrive.
        """

    def discard(self) -> list[tuple[str, int]]:
        """Drop everything queued and not acknowledged; return topic and number of records, sorted.

        What is on its way just now may still arrive; its answer is ignored. Later records go as ever.
        """

    async def flush(self, timeout: float) -> int:
        """Send what is queued; return how many records were not acknowledged within ``timeout`` seconds."""

    async def stop(self, timeout: float) -> list[tuple[str, int]]:
        """Flush and close every connection within ``timeout`` seconds; return what was not delivered.

        With a spool, what could not be delivered goes there, and only what is not there is returned.
        """


def create_publisher(
    settings: KafkaSettings,
    hooks: Hooks | None = None,
    *,
    name: str = "bridge",
    spool: SpoolSettings | None = None,
) -> KafkaPublisher:
    """Return a publisher on the client library that ``settings.client`` names. Call ``start`` next.

    Args:
        settings: where Kafka is and how to send.
        hooks: whom to tell what.
        name: client id, as broker logs and quotas show it.
        spool: files for when Kafka is away; None keeps all in memory.

    Raises:
        ConfigError: the client library is not installed, or has no spool.
    """
    hooks = hooks or Hooks()
    if settings.client == "librdkafka":
        if spool is not None:
            raise ConfigError("spool.directory is set, which needs kafka.client: aiokafka; found librdkafka")
        from bridge.kafka.librdkafka_publisher import LibrdkafkaPublisher

        return LibrdkafkaPublisher(settings, hooks, name=name)
    from bridge.kafka.aiokafka_publisher import AiokafkaPublisher

    return AiokafkaPublisher(settings, hooks, name=name, spool=spool)
