"""The end that a successor reads to, against real brokers of which some stand still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiokafka.structs import TopicPartition
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Partition

from bridge.errors import KafkaUnavailable
from bridge.kafka.log_ends import settled_ends
from bridge.kafka.settings import KafkaSettings
from tests.integration.reading import consumer
from tests.kafka.cluster import create_topic

if TYPE_CHECKING:
    from bridge.local.broker import Broker
    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka


def _produce(bootstrap_servers: str, topic: str, count: int, acks: int | str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": acks, "log_level": 0})
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=0)
    assert producer.flush(60) == 0


def _leader(bootstrap_servers: str, topic: str) -> tuple[int, str]:
    """Return the node that leads the topic's only partition, and its address."""
    found = Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0}).list_topics(topic, timeout=60)
    leader = found.topics[topic].partitions[0].leader
    return leader, f"{found.brokers[leader].host}:{found.brokers[leader].port}"


def _seen(bootstrap_servers: str, topic: str) -> int:
    """Return the end that a consumer sees."""
    reader = consumer(bootstrap_servers)
    try:
        end: int = reader.get_watermark_offsets(Partition(topic, 0), timeout=60)[1]
    finally:
        reader.close()
    return end


async def test_ends_are_those_of_the_partitions(kafka: Broker, unique: str) -> None:
    """Empty or not; what is asked for nothing has none."""
    await create_topic(kafka.bootstrap_servers, unique, 2)
    await asyncio.to_thread(_produce, kafka.bootstrap_servers, unique, 5, "all")
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    places = [TopicPartition(unique, 0), TopicPartition(unique, 1)]
    assert dict(await settled_ends(settings, places, timeout=60)) == {places[0]: 5, places[1]: 0}
    assert dict(await settled_ends(settings, [], timeout=60)) == {}


async def test_a_partition_that_is_not_there_is_told(kafka: Broker, unique: str) -> None:
    """By its name, when the time is up."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    with pytest.raises(KafkaUnavailable, match=unique):
        await settled_ends(settings, [TopicPartition(unique, 0)], timeout=0.5)


@pytest.mark.faults
async def test_what_followers_do_not_have_yet_is_waited_for(own_kafka: OwnKafka, unique: str) -> None:
    """A consumer does not see it, but may soon: there is no end before that is decided."""
    kafka = own_kafka(3)
    await create_topic(kafka.bootstrap_servers, unique, 1, 3)
    place = TopicPartition(unique, 0)
    leader, server = await asyncio.to_thread(_leader, kafka.bootstrap_servers, unique)
    followers = {1, 2, 3} - {leader}
    for node in followers:
        kafka.suspend(node)
    await asyncio.to_thread(_produce, server, unique, 3, 1)
    settings = KafkaSettings(bootstrap_servers=server, request_timeout_ms=3_000)
    assert await asyncio.to_thread(_seen, server, unique) == 0
    ends = asyncio.create_task(settled_ends(settings, [place], timeout=300))
    with pytest.raises(KafkaUnavailable, match="followers"):
        await settled_ends(settings, [place], timeout=20)
    assert not ends.done()
    for node in followers:
        kafka.resume(node)
    async with asyncio.timeout(300):
        found = await ends
    # A follower that leads now lacks the records for ever; else they are there.
    assert await asyncio.to_thread(_seen, server, unique) == found[place]
    assert found[place] in {0, 3}
