"""The end of a partition that nothing lies behind which may still appear there.

A consumer sees a partition up to its high watermark. What the leader has beyond it (a follower stands still just now)
is hidden, and appears later: also what a writer left that is dead by then. Its successor must not read past it.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from bridge.errors import KafkaUnavailable
from bridge.kafka import client as kafka_client

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from bridge.kafka.settings import KafkaSettings

_CONSUMER, _ANYBODY = -1, -2
"""Who asks, by Kafka's numbers: to anybody but a consumer a leader tells the end of its log, not the high watermark."""
_LATEST = -1
_LOOK_SECONDS = 0.1


async def settled_ends(
    settings: KafkaSettings, places: Iterable[TopicPartition], *, timeout: float = 10.0
) -> Mapping[TopicPartition, int]:
    """Return the end of each partition's log as it is now, once consumers can see all that lies before it.

    Args:
        settings: where Kafka is.
        places: the partitions.
        timeout: seconds for all of it.

    Raises:
        KafkaUnavailable: no broker serves us, a partition has no leader, or its followers do not keep up.
    """
    deadline = monotonic() + timeout
    waiting = set(places)
    client = await kafka_client.connect(settings, name="bridge-cursor", timeout=timeout)
    try:
        client.set_topics({place.topic for place in waiting})
        await client.force_metadata_update()
        ends: dict[TopicPartition, int] = {}
        while True:
            for place, end in (await _ends(client, waiting, _ANYBODY)).items():
                # A new leader may lack what was never committed.
                ends[place] = min(end, ends.get(place, end))
            visible = await _ends(client, waiting & ends.keys(), _CONSUMER)
            waiting -= {place for place, end in visible.items() if end >= ends[place]}
            if not waiting:
                return ends
            if monotonic() > deadline:
                listed = ", ".join(f"{place.topic}/{place.partition}" for place in sorted(waiting)[:3])
                raise KafkaUnavailable(
                    f"{settings.bootstrap_servers}: {len(waiting)} partitions have no settled end "
                    f"({listed}): no leader, or followers that stand still"
                )
            await asyncio.sleep(_LOOK_SECONDS)
            client.force_metadata_update()
    finally:
        await kafka_client.close(client, timeout=1)


async def _ends(
    client: kafka_client.Client, places: Collection[TopicPartition], asking: int
) -> dict[TopicPartition, int]:
    """Ask each leader for the ends of its partitions; leave out those that have none now."""
    by_leader: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for place in places:
        leader = client.cluster.leader_for_partition(place)
        if leader is not None and leader != -1:
            topics = by_leader.setdefault(leader, {})
            topics.setdefault(place.topic, []).append((place.partition, _LATEST))
    answers = [_ask(client, leader, topics, asking) for leader, topics in by_leader.items()]
    found: dict[TopicPartition, int] = {}
    for one in await asyncio.gather(*answers):
        found |= one
    return found


async def _ask(
    client: kafka_client.Client, leader: int, topics: Mapping[str, list[tuple[int, int]]], asking: int
) -> dict[TopicPartition, int]:
    try:
        response = await client.send(leader, OffsetRequest(asking, 0, list(topics.items())))
    except kafka_client.LOST:
        return {}
    return {
        TopicPartition(topic, partition): offset
        for topic, answers in response.topics
        for partition, code, _, offset in answers
        if code == 0
    }
