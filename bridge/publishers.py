"""The publishers of a process: its own, and with ``delivery: exactly_once`` one with transactions for each shard."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from bridge.kafka.publisher import Hooks, KafkaPublisher, create_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.kafka.publisher import TroubleKind
    from bridge.kafka.settings import KafkaSettings, SpoolSettings
    from bridge.kafka.transactional_publisher import TransactionalPublisher

OnTransaction: TypeAlias = "Callable[[str, float], None]"
"""``(outcome, seconds)`` of a transaction."""

_DISMISS_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transactions:
    """How the publishers of shards carry transactions.

    Attributes:
        prefix: of the transactional ids; the number of the shard comes behind it.
        interval_ms: from the begin of one transaction to that of the next.
        timeout_ms: how long the coordinator lets one stay open.
        on_transaction: told of the end of each.
    """

    prefix: str
    interval_ms: int
    timeout_ms: int
    on_transaction: OnTransaction


class Publishers:
    """Everything that a process publishes with.

    Args:
        settings: where Kafka is and how to send. Its ``buffer_bytes`` is shared by all publishers.
        hooks: whom to tell what.
        may_send: looked at before anything is sent.
        shards: how many shards there are at most.
        spool: files for when Kafka is away.
        transactions: how shards publish in transactions; None where they publish by :attr:`own`.

    Attributes:
        own: what the process publishes by itself; with transactions, what belongs to no shard.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        hooks: Hooks,
        *,
        may_send: Callable[[], bool],
        shards: int,
        spool: SpoolSettings | None = None,
        transactions: Transactions | None = None,
    ) -> None:
        self._transactions, self._hooks, self._may_send = transactions, hooks, may_send
        self._troubled: dict[str, set[int | None]] = {}
        self.limit_bytes = settings.buffer_bytes
        if transactions is not None:
            settings = replace(settings, buffer_bytes=settings.buffer_bytes // (shards + 1))
        self._settings = settings
        own_hooks = replace(hooks, on_trouble=partial(self._tell, None))
        self.own: KafkaPublisher = create_publisher(settings, own_hooks, spool=spool)
        self.own.may_send = may_send
        self._topics: Sequence[str] = ()
        self._of_shards: dict[int, TransactionalPublisher] = {}

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued and not acknowledged, of all publishers."""
        return sum(publisher.buffered_bytes for publisher in self._all())

    def _all(self) -> list[KafkaPublisher]:
        return [self.own, *self._of_shards.values()]

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnavailable: names the servers and each one's true reason.
            ConfigError: a certificate or password file cannot be read.
        """
        await self.own.start()

    async def refresh(self, topics: Sequence[str]) -> None:
        """Learn the partitions of all topics, for the publishers of shards too.

        Raises:
            TopicMismatch: names the topics that are missing.
            KafkaUnavailable: no broker answers.
        """
        self._topics = topics
        await self.own.refresh(topics)

    async def of(
        self, shard: int, *, before_commit: Callable[[], None], on_ended: Callable[[str], None]
    ) -> KafkaPublisher:
        """Return the publisher of a shard, started. From then on nothing of an earlier owner's transactions arrives.

        Args:
            shard: its number.
            before_commit: a transaction is closed now; what is published in this call is its last part.
            on_ended: ``(reason)``: the shard's publisher publishes nothing more.

        Raises:
            KafkaUnavailable: no broker answers, or the transactional id is not given.
            TopicMismatch: names the topics that are missing.
        """
        if self._transactions is None:
            return self.own
        publisher = self._of_shards.get(shard)
        if publisher is None:
            publisher = self._with_transactions(shard, self._transactions, before_commit, on_ended)
            await publisher.start()
            try:
                await publisher.refresh(self._topics)
            except BaseException:
                await publisher.stop(_DISMISS_SECONDS)
                raise
            self._of_shards[shard] = publisher
        return publisher

    def _with_transactions(
        self,
        shard: int,
        transactions: Transactions,
        before_commit: Callable[[], None],
        on_ended: Callable[[str], None],
    ) -> TransactionalPublisher:
        from bridge.kafka.transactional_publisher import TransactionalPublisher, TransactionHooks

        def ended(reason: str) -> None:
            if self._of_shards.get(shard) is publisher:
                on_ended(reason)

        def closing() -> None:
            if self._of_shards.get(shard) is publisher:
                before_commit()

        publisher = TransactionalPublisher(
            self._settings,
            TransactionHooks(
                **{
                    **{one.name: getattr(self._hooks, one.name) for one in fields(Hooks)},
                    "on_trouble": partial(self._tell, shard),
                },
                before_commit=closing,
                on_transaction=lambda outcome, _, __, seconds: transactions.on_transaction(outcome, seconds),
                on_fenced=ended,
                on_lost=ended,
            ),
            transactional_id=f"{transactions.prefix}-{shard}",
            transaction_timeout_ms=transactions.timeout_ms,
            interval_ms=transactions.interval_ms,
        )
        publisher.may_send = self._may_send
        return publisher

    async def dismiss(self, shard: int) -> int:
        """Publish nothing more of a shard by its own publisher; return how many records are dropped for it."""
        publisher = self._of_shards.pop(shard, None)
        if publisher is None:
            return 0
        dropped = sum(records for _, records in publisher.discard())
        await publisher.stop(_DISMISS_SECONDS)
        self._tell(shard, "recovered", "", "its publisher is gone")
        return dropped

    def _tell(self, shard: int | None, kind: TroubleKind, topic: str, text: str) -> None:
        """Pass a trouble on. What several publishers have is over with the last of them, or when that is gone."""
        if kind != "recovered":
            self._troubled.setdefault(topic, set()).add(shard)
            self._hooks.on_trouble(kind, topic, text)
            return
        for one in [topic] if topic else list(self._troubled):
            having = self._troubled.get(one)
            if having is not None and shard in having:
                having.discard(shard)
                if not having:
                    del self._troubled[one]
                    self._hooks.on_trouble("recovered", one, text)

    def discard(self) -> None:
        """Drop everything queued, of all publishers."""
        for publisher in self._all():
            publisher.discard()

    async def wait_below(self, fraction: float) -> None:
        """Return once no publisher holds more than ``fraction`` of what it may."""
        await asyncio.gather(*(publisher.wait_below(fraction) for publisher in self._all()))

    async def stop(self, timeout: float) -> list[tuple[str, int]]:
        """Deliver what is queued and close all connections within ``timeout`` seconds.

        Returns:
            Topic and number of the records that were not delivered, sorted.
        """
        undelivered: Counter[str] = Counter()
        for left in await asyncio.gather(*(publisher.stop(timeout) for publisher in self._all())):
            undelivered.update(dict(left))
        self._of_shards.clear()
        return sorted(undelivered.items())
