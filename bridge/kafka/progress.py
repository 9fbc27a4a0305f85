"""How far a run has come, kept in Kafka: committed offsets of a consumer group that nobody joins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from bridge.errors import KafkaUnavailable
from bridge.kafka import client as kafka_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka import TopicPartition

    from bridge.kafka.settings import KafkaSettings


class Progress:
    """The committed offsets of one run. An asynchronous context manager.

    Args:
        settings: where Kafka is.
        run: names the run; the same name finds the same offsets again.
        places: the partitions the run reads.
    """

    def __init__(self, settings: KafkaSettings, run: str, places: Iterable[TopicPartition]) -> None:
        self._settings, self._places = settings, tuple(places)
        self._consumer = AIOKafkaConsumer(
            **settings.aiokafka_options(), group_id=run, enable_auto_commit=False, client_id="bridge-progress"
        )

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except KafkaError as error:
            await kafka_client.close(self._consumer, timeout=1)
            raise KafkaUnavailable(f"{self._settings.bootstrap_servers}: {error!r}") from None
        self._consumer.assign(self._places)
        return self

    async def __aexit__(self, *_: object) -> None:
        await kafka_client.close(self._consumer, timeout=5)

    async def load(self) -> dict[TopicPartition, int]:
        """Return the committed offset of each partition that has one."""
        found = {place: await self._consumer.committed(place) for place in self._places}
        return {place: offset for place, offset in found.items() if offset is not None}

    async def save(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets: everything before them is done."""
        if offsets:
            await self._consumer.commit(dict(offsets))
