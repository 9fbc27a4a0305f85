"""What the tests here do to a cluster beside publishing: make topics, read everything back."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Properties of a cluster in which everybody may do everything but what is :func:`denied`."""


class Stored(NamedTuple):
    """A record as a consumer finds it."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp: int
    headers: tuple


@asynccontextmanager
async def admin(bootstrap: str, request_timeout_ms: int = 40_000) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an admin client; where a broker stands still, let it wait less than it does by default."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=request_timeout_ms)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create_topic(
    bootstrap: str, name: str, partitions: int = 3, replication: int = 1, **config: str
) -> None:
    """Create one topic; ``_`` in the name of a setting stands for a dot."""
    async with admin(bootstrap) as client:
        options = {key.replace("_", "."): value for key, value in config.items()}
        response = await client.create_topics(
            [NewTopic(name, partitions, replication, topic_configs=options)]
        )
        assert [code for _, code, *_ in response.topic_errors] == [0]


async def read_all(bootstrap: str, topic: str) -> list[Stored]:
    """Return every committed record of ``topic`` up to its present end, in offset order within each partition."""
    options = {"bootstrap_servers": bootstrap, "enable_auto_commit": False, "request_timeout_ms": 5000}
    looking = AIOKafkaConsumer(**options)
    consumer = AIOKafkaConsumer(**options, isolation_level="read_committed")
    await looking.start()
    await consumer.start()
    try:
        async with asyncio.timeout(180):
            # The consumer's own look at a topic it never heard of.
            looking._client.add_topic(topic)
            await looking._client.force_metadata_update()
            places = [TopicPartition(topic, p) for p in sorted(looking.partitions_for_topic(topic))]
            starts = await looking.beginning_offsets(places)
            # A commit is visible a moment after its answer, so the end to reach is that of all records.
            ends = await looking.end_offsets(places)
            # Seek in the same step: aiokafka begins to reset positions to the end as soon as it may.
            consumer.assign(places)
            for place in places:
                consumer.seek(place, starts[place])
            found: list[Stored] = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [
                        Stored(r.partition, r.offset, r.key, r.value, r.timestamp, tuple(r.headers))
                        for r in records
                    ]
            return found
    finally:
        await looking.stop()
        await consumer.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: Kafka does not tell when its metadata changes."""
    async with asyncio.timeout(120):
        for pause in itertools.repeat(0.05):
            if await condition():
                return
            await asyncio.sleep(pause)


async def extend_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Give a topic more partitions."""
    async with admin(bootstrap) as client:
        await client.create_partitions({name: NewPartitions(partitions)})

        async def extended() -> bool:
            return len((await client.describe_topics([name]))[0]["partitions"]) == partitions

        await until(extended)


@asynccontextmanager
async def recreate_topic(bootstrap: str, name: str, partitions: int) -> AsyncIterator[None]:
    """Delete a topic before the block and create it again after it."""
    async with admin(bootstrap) as client:
        await client.delete_topics([name])

        async def gone() -> bool:
            return name not in await client.list_topics()

        await until(gone)
    yield
    await create_topic(bootstrap, name, partitions)


@contextmanager
def denied(bootstrap: str, kind: ResourceType, name: str, operation: AclOperation) -> Iterator[None]:
    """Within the block nobody may do ``operation``."""
    rule = (kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, AclPermissionType.DENY)
    client = AdminClient({"bootstrap.servers": bootstrap})
    for future in client.create_acls([AclBinding(*rule)]).values():
        future.result(60)
    yield
    for future in client.delete_acls([AclBindingFilter(*rule)]).values():
        future.result(60)
