"""What only the publisher on aiokafka's client has: sequences of its own, and a library pinned by its inside."""

import asyncio
import inspect

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection
from pydantic import SecretStr

from bridge.errors import KafkaUnavailable, TopicMismatch
from bridge.kafka.aiokafka_publisher import AiokafkaPublisher
from bridge.kafka.settings import KafkaSettings
from tests.kafka.cluster import create_topic, read_all
from tests.kafka.test_publisher_conformance import KEYS, Heard, Numbers, running


def test_the_inside_we_rely_on():
    """The parts of aiokafka that we override or reach into are those of the pinned version."""
    assert aiokafka.__version__ == "0.14.0"
    assert list(inspect.signature(AIOKafkaClient._metadata_update).parameters) == [
        "self", "cluster_metadata", "topics",
    ]  # fmt: skip
    assert list(inspect.signature(AIOKafkaClient._get_conn).parameters) == [
        "self",
        "node_id",
        "group",
        "no_hint",
    ]
    assert list(inspect.signature(AIOKafkaClient.send).parameters) == ["self", "node_id", "request", "group"]
    assert inspect.iscoroutinefunction(AIOKafkaClient._metadata_update)
    assert "self._writer = " in inspect.getsource(AIOKafkaConnection)
    assert "self._conns = {}" in inspect.getsource(AIOKafkaClient)
    for name in (
        "leader_for_partition",
        "partitions_for_topic",
        "update_metadata",
        "failed_update",
        "brokers",
    ):
        assert callable(getattr(ClusterMetadata, name))


@pytest.mark.kafka
async def test_sequences_wrap(kafka, unique):
    """A partition goes on past 2**31 records of one producer: the broker accepts the wrap to 0."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with running("aiokafka", kafka.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        outbox = publisher.lane(unique, b"KEY0")
        outbox.sequence = 2**31 - 100
        for _ in range(4):
            numbers.append(5)
            assert await publisher.flush(120) == 0
        assert outbox.sequence == 140
        assert not heard.troubles
        await numbers.check(kafka.bootstrap_servers)


@pytest.mark.kafka
async def test_a_lost_identity_is_replaced(kafka, unique):
    """When the broker no longer accepts our sequence the partition gets a new producer id and loses nothing."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with running("aiokafka", kafka.bootstrap_servers, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(5)
        assert await publisher.flush(120) == 0
        outbox = publisher.lane(unique, b"KEY0")
        before, outbox.sequence = outbox.identity, outbox.sequence + 1000
        numbers.append(5)
        assert await publisher.flush(120) == 0
        assert outbox.identity.producer_id != before.producer_id
        await numbers.check(kafka.bootstrap_servers)


@pytest.mark.kafka
async def test_settling_does_not_wait_for_company(kafka, unique):
    """Settling sends what an open batch holds, however long it might linger."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running("aiokafka", kafka.bootstrap_servers, unique, linger_ms=3_600_000) as (publisher, _):
        numbers = Numbers(publisher, unique)
        for _ in range(2):
            numbers.append(3)
            async with asyncio.timeout(60):
                await publisher.settle()
        await numbers.check(kafka.bootstrap_servers)


@pytest.mark.kafka
async def test_leave_that_ends_before_the_request_goes(kafka, unique):
    """A request that is made but not on its way is held back when leave to send ends, and goes later."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running("aiokafka", kafka.bootstrap_servers, unique) as (publisher, _):
        answers = iter([True])
        publisher.may_send = lambda: next(answers, False)
        numbers = Numbers(publisher, unique)
        numbers.append(3)
        assert await publisher.flush(1) == 3 * len(KEYS)
        assert await read_all(kafka.bootstrap_servers, unique) == []
        publisher.may_send = lambda: True
        async with asyncio.timeout(60):
            await publisher.settle()
        await numbers.check(kafka.bootstrap_servers)


@pytest.mark.kafka
@pytest.mark.faults
async def test_a_partition_with_too_few_replicas_is_held(own_kafka, unique):
    """A partition whose replicas are too few holds its records, tells so, and goes on once they are back."""
    broker = own_kafka(3)
    await create_topic(broker.bootstrap_servers, unique, 1, 3, min_insync_replicas="3")
    options = {"request_timeout_ms": 2000}
    async with running("aiokafka", broker.bootstrap_servers, unique, **options) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.3)
        broker.kill(3)
        await numbers.keep_on(1)
        await heard.until(lambda: ("no-leader", unique) in {trouble[:2] for trouble in heard.troubles})
        await asyncio.to_thread(broker.restart, 3)
        assert await publisher.flush(120) == 0
        assert ("recovered", unique) in {trouble[:2] for trouble in heard.troubles}
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.kafka
@pytest.mark.faults
async def test_the_watchdog_connects_anew(own_kafka, unique):
    """When nothing is acknowledged for long the client is replaced, and what is stored stays without repeats."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    heard = Heard()
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1500)
    publisher = AiokafkaPublisher(settings, heard.hooks, watchdog_seconds=2)
    await publisher.start()
    try:
        await publisher.refresh([unique])
        first = publisher._client
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.3)
        broker.suspend(1)
        async with asyncio.timeout(120):
            while publisher._client is first:
                await numbers.keep_on(0.5)
        broker.resume(1)
        assert await publisher.flush(120) == 0
        assert publisher._client is not first
        await numbers.check(broker.bootstrap_servers)
    finally:
        await publisher.stop(5)


@pytest.mark.kafka
@pytest.mark.faults
async def test_many_partitions_behind_one_broker(own_kafka, unique):
    """A backlog far over what one request may hold is sent in several, though every partition has a full batch."""
    broker = own_kafka(properties={"socket.request.max.bytes": str(40 * 1024 * 1024)})
    await create_topic(broker.bootstrap_servers, unique, 100)
    options = {"compression": "none", "batch_bytes": 900_000, "request_timeout_ms": 3000}
    async with running("aiokafka", broker.bootstrap_servers, unique, **options) as (publisher, heard):
        broker.suspend(1)
        value = b"." * 10_000
        for number in range(8000):
            key = b"%d" % number
            publisher.lane(unique, key).append(number, key, value)
        assert publisher.buffered_bytes > 80_000_000
        broker.resume(1)
        assert await publisher.flush(120) == 0
        assert sum(records for _, records, *_ in heard.delivered) == 8000


PLAIN_LOGIN = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="bridge" password="right" user_bridge="right";'
    ),
    "auto.create.topics.enable": "true",
}


@pytest.mark.kafka
@pytest.mark.faults
async def test_a_login(own_kafka, unique, caplog):
    """A wrong password, mechanism or protocol is named as such; the right one works; no password is told."""
    broker = own_kafka(properties=PLAIN_LOGIN)
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "bridge"}

    async def start(**changes):
        options = {**login, "sasl_password": SecretStr("right"), **changes}
        publisher = AiokafkaPublisher(KafkaSettings(bootstrap_servers=broker.bootstrap_servers, **options))
        try:
            await publisher.start(timeout=60)
            # The broker makes topics that are asked for; we must not ask it to.
            with pytest.raises(TopicMismatch, match=unique):
                await publisher.refresh([unique])
        finally:
            await publisher.stop(2)

    await start()
    await start()
    for changes, message in (
        ({"sasl_password": SecretStr("wr0ng-1")}, "login of user 'bridge' by PLAIN refused"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "it does not know kafka.sasl_mechanism SCRAM-SHA-256"),
        ({"security_protocol": "PLAINTEXT"}, "it closed the connection; is kafka.security_protocol"),
    ):
        with pytest.raises(KafkaUnavailable, match=message) as raised:
            await start(**changes)
        assert "wr0ng-1" not in str(raised.value) + caplog.text


async def test_stop_before_start():
    """A publisher that was never started stops at once."""
    publisher = AiokafkaPublisher(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    async with asyncio.timeout(9):
        assert await publisher.stop(10) == []


@pytest.mark.kafka
async def test_a_lane_is_kept(kafka, unique):
    """The same key gives the same lane, and keys of one partition share it."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with running("aiokafka", kafka.bootstrap_servers, unique) as (publisher, _):
        assert publisher.lane(unique, b"a") is publisher.lane(unique, b"a")
        assert publisher.lane(unique, b"a") is publisher.lane(unique, b"b")
    assert await read_all(kafka.bootstrap_servers, unique) == []
