"""The partition reader against a real Kafka."""

import asyncio
import socket
from dataclasses import replace

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from confluent_kafka import Producer
from pydantic import SecretStr

from bridge.errors import KafkaUnavailable, TopicMismatch
from bridge.kafka.partitioner import partition_for
from bridge.kafka.publisher import create_publisher
from bridge.kafka.reader import PartitionReader, partitions_for
from bridge.kafka.settings import KafkaSettings
from bridge.model import Fetched, Header
from tests.kafka.cluster import admin, create_topic

pytestmark = pytest.mark.kafka

KEYS = [b"BTCUSDT", b"ETHUSDT", b"XRPUSDT"]
SECOND = 1000
TEN_MINUTES = 600


@pytest.fixture
def unused_port():
    """Give a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def settings(kafka):
    """Give the settings that reach the shared broker."""
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
async def topic(settings, unique):
    """A topic of four partitions, one of them empty, with a record a second for ten minutes."""
    await create_topic(settings.bootstrap_servers, unique, 4)
    await write(settings, unique, range(TEN_MINUTES))
    return unique


async def write(settings, topic, seconds):
    """Publish one record for each of ``seconds``."""
    publisher = create_publisher(settings)
    await publisher.start()
    try:
        await publisher.refresh([topic])
        for second in seconds:
            key = KEYS[second % 3]
            publisher.lane(topic, key).append(second * SECOND, key, b"%d" % second)
        assert await publisher.flush(120) == 0
    finally:
        await publisher.stop(5)


async def values(reader):
    """Return the seconds that ``reader`` gives until its end."""
    return sorted([int(record.value) async for _, records in reader for record in records])


async def test_no_partitions_at_all(settings):
    """Reading nothing to its end ends at once, and leaves nothing open: aiokafka must not cancel its user."""
    async with PartitionReader(settings, [], start={}, end="now") as reader:
        assert await values(reader) == []


async def test_everything_up_to_now(settings, topic):
    """Reading to the present end gives every record of every partition once, in order, and ends."""
    places = await partitions_for(settings, {topic: None})
    assert len(places) == 4
    seen = {}
    async with PartitionReader(settings, places, end="now") as reader:
        async for place, records in reader:
            seen.setdefault(place, []).extend(record.offset for record in records)
        assert reader.caught_up
        assert reader.positions == reader.ends
    assert sum(map(len, seen.values())) == TEN_MINUTES
    assert all(offsets == list(range(len(offsets))) for offsets in seen.values())


async def test_a_record_is_given_whole(settings, unique):
    """With its place, time, key and headers, and not as the client library has it."""
    await create_topic(settings.bootstrap_servers, unique, 1)
    publisher = create_publisher(settings)
    await publisher.start()
    try:
        await publisher.refresh([unique])
        publisher.lane(unique, b"k").append(
            1000, b"k", b"v", (Header("run-id", b"live"), Header("empty", b""))
        )
        assert await publisher.flush(120) == 0
    finally:
        await publisher.stop(5)
    place = TopicPartition(unique, 0)
    async with PartitionReader(settings, [place], end="now") as reader:
        found = [batch async for batch in reader]
    headers = (("run-id", b"live"), ("empty", b""))
    assert found == [(place, [Fetched(unique, 0, 0, 1000, b"k", b"v", headers)])]


async def test_only_the_partitions_of_keys(settings, topic):
    """The partitions of keys are those the publisher chose."""
    places = await partitions_for(settings, {topic: [KEYS[1]]})
    assert places == [TopicPartition(topic, partition_for(KEYS[1], 4))]
    async with PartitionReader(settings, places, end="now") as reader:
        found = {r.key async for _, records in reader for r in records}
    assert KEYS[1] in found


async def test_a_range_of_time(settings, topic):
    """A range of time gives the records whose time lies in it, its end not included."""
    places = await partitions_for(settings, {topic: None})
    async with PartitionReader(settings, places, start=100 * SECOND, end=200 * SECOND) as reader:
        assert await values(reader) == list(range(100, 200))


async def test_a_time_after_everything(settings, topic):
    """A start later than every record gives nothing and ends."""
    places = await partitions_for(settings, {topic: None})
    async with PartitionReader(settings, places, start=10**12, end="now") as reader:
        assert await values(reader) == []
        assert reader.caught_up


async def test_from_offsets(settings, topic):
    """Reading goes on where an earlier reader stood."""
    places = await partitions_for(settings, {topic: None})
    async with PartitionReader(settings, places, end="now", batch_records=10) as reader:
        seen = []
        async for _, records in reader:
            seen += [int(record.value) for record in records]
            if len(seen) > 100:
                break
        stood = dict(reader.positions)
    async with PartitionReader(settings, places, start=stood, end="now") as reader:
        assert sorted(seen + await values(reader)) == list(range(TEN_MINUTES))


async def test_history_meets_live(settings, topic):
    """A reader without an end says when it has caught up, and then gives what comes."""
    places = await partitions_for(settings, {topic: None})
    seen, before = [], None
    async with asyncio.timeout(120), PartitionReader(settings, places) as reader:
        async for _, records in reader:
            seen += [int(record.value) for record in records]
            if reader.caught_up and before is None:
                before = len(seen)
                await write(settings, topic, range(TEN_MINUTES, TEN_MINUTES + 30))
            if len(seen) == TEN_MINUTES + 30:
                break
    assert before == TEN_MINUTES
    assert sorted(seen) == list(range(TEN_MINUTES + 30))


async def test_an_empty_topic_is_caught_up_at_once(settings, unique):
    """Where there is nothing to read, a live reader says at once that it has caught up."""
    await create_topic(settings.bootstrap_servers, unique, 2)
    async with PartitionReader(settings, await partitions_for(settings, {unique: None})) as reader:
        batch = await anext(aiter(reader))
        assert reader.caught_up
        assert batch.records == []
    async with PartitionReader(settings, [TopicPartition(unique, 0)], end="now") as reader:
        assert await values(reader) == []


async def test_records_that_were_deleted_are_counted(settings, topic):
    """Offsets that retention took away are skipped and counted, not waited for."""
    place = TopicPartition(topic, partition_for(KEYS[0], 4))
    async with admin(settings.bootstrap_servers) as client:
        await client.delete_records({place: RecordsToDelete(before_offset=50)})
    async with PartitionReader(settings, [place], start={place: 0}, end="now") as reader:
        count = len(await values(reader))
        assert reader.lost == 50
        assert count == reader.ends[place] - 50


async def test_a_missing_topic_is_named(settings, unique):
    """A topic or partition that does not exist is an error that names it, and is not created."""
    with pytest.raises(TopicMismatch, match=unique):
        await partitions_for(settings, {unique: None})
    with pytest.raises(TopicMismatch, match=f"{unique}/7"):
        async with PartitionReader(settings, [TopicPartition(unique, 7)]):
            pass


async def test_a_broker_that_asks_for_no_login(settings):
    """A login where the port takes none is an error in words, without the password."""
    login = replace(
        settings, security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u",
        sasl_password=SecretStr("hunter2"),
    )  # fmt: skip
    with pytest.raises(KafkaUnavailable, match=r"asks for no login; is kafka\.security_protocol") as caught:
        async with PartitionReader(login, [TopicPartition("t", 0)]):
            pass
    assert "hunter2" not in str(caught.value)


async def test_no_broker(unused_port):
    """Without a broker the error names the server."""
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{unused_port}")
    with pytest.raises(KafkaUnavailable, match=f"127.0.0.1:{unused_port}: connection refused"):
        async with PartitionReader(settings, [TopicPartition("t", 0)]):
            pass


async def test_committed_records_behind_an_open_transaction(settings, unique):
    """The end of a reader of committed records is that of all records, though somebody's transaction is open still."""
    await create_topic(settings.bootstrap_servers, unique, 1)
    other = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": unique})
    await asyncio.to_thread(other.init_transactions, 60)
    other.begin_transaction()
    other.produce(unique, b"from another", b"key")
    assert await asyncio.to_thread(other.flush, 60) == 0
    await write(settings, unique, range(3))
    places = await partitions_for(settings, {unique: None})
    async with PartitionReader(settings, places, end="now") as reader:
        await asyncio.to_thread(other.commit_transaction, 60)
        async with asyncio.timeout(120):
            found = [record.value async for _, records in reader for record in records]
    assert found == [b"from another", b"0", b"1", b"2"]
