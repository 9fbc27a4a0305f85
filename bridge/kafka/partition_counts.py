"""How many partitions each topic has: seen once at the start, so that a key never moves."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from bridge.errors import TopicMismatch
from bridge.kafka.topics import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.kafka.settings import KafkaSettings

_PATIENCE_SECONDS = 2.0  # a topic that was created a moment ago may not have reached every broker


class PartitionCounts:
    """The number of partitions of each topic, as it was when first seen."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._counts: dict[str, int] = {}

    async def refresh(self, topics: Iterable[str]) -> None:
        """Look ``topics`` up.

        Raises:
            TopicMismatch: names the topics that are missing, or whose number of partitions changed since.
            KafkaUnavailable: no broker answers.
        """
        wanted = set(topics)
        deadline = monotonic() + _PATIENCE_SECONDS
        async with Cluster(self._settings) as cluster:
            shapes = await cluster.shapes(wanted)
            while wanted - shapes.keys() and monotonic() < deadline:
                await asyncio.sleep(0.1)
                shapes = await cluster.shapes(wanted)
        missing = sorted(wanted - shapes.keys())
        if missing:
            text = "topics missing, or hidden from this user"
            raise TopicMismatch(f"{text}: {', '.join(missing)}; `binance-bridge topics apply` creates them")
        for topic, (found, _) in shapes.items():
            seen = self._counts.setdefault(topic, found)
            if seen != found:
                raise TopicMismatch(
                    f"topic {topic} has {found} partitions and had {seen} when first seen; "
                    "keys stay where they were until a restart"
                )

    def __getitem__(self, topic: str) -> int:
        """Return the number of partitions that was seen first.

        Raises:
            TopicMismatch: the topic was not looked up.
        """
        count = self._counts.get(topic)
        if count is None:
            raise TopicMismatch(f"topic {topic} was not looked up; call refresh() with it first")
        return count
