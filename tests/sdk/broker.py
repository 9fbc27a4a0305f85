"""Writes records to a real broker with writers that are not ours: fastavro and aiokafka's own producer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.sdk import testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.sdk import Record, Topics

PARTITIONS = 6


class Writer:
    """Writes records to the topics of one environment."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics) -> None:
        self._producer, self._memory = producer, testing._Memory(topics, None, ended=True)

    async def write(self, *records: Record) -> None:
        """Write records to their topics, each with its key and time, and wait until they are there."""
        for record in records:
            topic, key = self._memory._place(record)
            await self.send(topic, key, testing.encode(record), testing._millis(record))
        await self._producer.flush()

    async def send(self, topic: str, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        """Queue one value as it is."""
        await self._producer.send(topic, value, key, timestamp_ms=timestamp_ms)


@asynccontextmanager
async def writer(bootstrap_servers: str, named: Topics, topics: list[str]) -> AsyncIterator[Writer]:
    """Give a writer; its topics are made where they are missing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        names = [named.of(topic) for topic in topics]
        response = await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
        assert {code for _, code, *_ in response.topic_errors} <= {0, 36}  # 36: it exists
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        yield Writer(producer, named)
    finally:
        await producer.stop()
