"""The local Kafka: a real one that starts in seconds, stands faults, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.errors import KafkaUnavailable, UsageError
from bridge.local import kafka as module
from bridge.local.files import Scratch
from bridge.local.kafka import LocalKafka
from bridge.local.process import free_ports

pytestmark = pytest.mark.kafka


async def create(servers, topic, *, replicas=1):
    """Create a topic of one partition and return the node that leads it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, replicas)])
        while True:
            (described,) = await admin.describe_topics([topic])
            if described["error_code"] == 0 and described["partitions"][0]["leader"] > 0:
                return described["partitions"][0]["leader"]
    finally:
        await admin.close()


async def topics(servers):
    """Return the names of all topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def send(servers, topic, *values):
    """Send values with all acknowledgements, each after the one before; their time is in 2017."""
    async with AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, max_request_size=1 << 25
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, timestamp_ms=1_500_000_000_000)


async def receive(servers, topic, count):
    """Return the first ``count`` values of a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(180):
        return [(await consumer.getone()).value for _ in range(count)]


async def test_shared_broker_takes_records(kafka, unique):
    """Records sent to the session's broker come back, the largest of 30 MiB too."""
    await create(kafka.bootstrap_servers, unique)
    large = bytes(30 << 20)
    await send(kafka.bootstrap_servers, unique, b"small", large)
    assert await receive(kafka.bootstrap_servers, unique, 2) == [b"small", large]


async def test_two_brokers_side_by_side_and_no_trace(kafka, unique, tmp_path, monkeypatch):
    """A second broker knows nothing of the first, outlives the thread that started it, and leaves nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    second = LocalKafka()
    await asyncio.to_thread(second.start)
    (pid,) = second.pids
    servers = second.bootstrap_servers
    await create(servers, unique)
    assert await topics(servers) == {unique}
    assert unique not in await topics(kafka.bootstrap_servers)
    second.stop()
    assert not psutil.pid_exists(pid)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(servers.rpartition(":")[2])))


async def test_topics_are_not_made_by_use(kafka, unique):
    """A client that asks for an unknown topic does not create it."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(producer.partitions_for(f"{unique}-unknown"), 0.3)
    assert f"{unique}-unknown" not in await topics(kafka.bootstrap_servers)


async def test_frozen_node_keeps_clients_waiting(own_kafka, unique):
    """A frozen node answers nothing, and answers all of it once it goes on."""
    kafka = own_kafka()
    await create(kafka.bootstrap_servers, unique)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        assert (await producer.send_and_wait(unique, b"first")).offset == 0
        kafka.suspend(1)
        delivery = await producer.send(unique, b"kept waiting")
        await asyncio.wait([delivery], timeout=0.3)
        assert not delivery.done()
        kafka.resume(1)
        assert (await delivery).offset == 1


async def test_three_nodes_survive_a_kill(own_kafka, unique):
    """With a partition's leader killed, writing with all acknowledgements goes on, and nothing is lost."""
    kafka = own_kafka(3)
    leader = await create(kafka.bootstrap_servers, unique, replicas=3)
    addresses = kafka.bootstrap_servers
    await send(addresses, unique, b"before")
    kafka.kill(leader)
    assert len(kafka.pids) == 2
    await send(addresses, unique, b"without")
    kafka.restart(leader)
    assert len(kafka.pids) == 3
    assert kafka.bootstrap_servers == addresses
    await send(addresses, unique, b"after")
    assert await receive(addresses, unique, 3) == [b"before", b"without", b"after"]


async def test_given_directory_keeps_data(unique, tmp_path):
    """A cluster on a directory of the caller's finds its data again after a stop."""
    with LocalKafka(directory=tmp_path / "kept") as kafka:
        await create(kafka.bootstrap_servers, unique)
        await send(kafka.bootstrap_servers, unique, b"value")
    with LocalKafka(directory=tmp_path / "kept") as kafka:
        assert await receive(kafka.bootstrap_servers, unique, 1) == [b"value"]


def test_parent_killed_broker_dies(tmp_path, monkeypatch):
    """``kill -9`` of a broker's parent ends the broker, and its files go with the next scratch folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "from bridge.local.kafka import *; k = LocalKafka(); k.start(); print(*k.pids, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with parent:
        node = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        node.wait(60)
    assert len(list(tmp_path.iterdir())) == 1
    scratch = Scratch()
    assert list(tmp_path.iterdir()) == [scratch.path]
    scratch.remove()


def test_failed_start_shows_the_log(tmp_path, monkeypatch):
    """A broker that does not start says why, and leaves nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kafka = LocalKafka(properties={"log.retention.bytes": "plenty"})
    with pytest.raises(KafkaUnavailable, match=r"ended while it started(?s:.*)log\.retention\.bytes"):
        kafka.start()
    assert kafka.pids == ()
    assert list(tmp_path.iterdir()) == []


def test_port_taken_meanwhile(monkeypatch):
    """A port that somebody takes between choosing and using it only costs a second start."""
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        offers = [(squatter.getsockname()[1], *free_ports(1)), free_ports(2)]
        chosen = iter(offers)
        monkeypatch.setattr(module, "free_ports", lambda _: next(chosen))
        with LocalKafka() as kafka:
            assert kafka.bootstrap_servers == f"127.0.0.1:{offers[1][0]}"


@pytest.mark.parametrize("count", [0, 2, 4])
def test_number_of_nodes(count):
    """A cluster has one node or three."""
    with pytest.raises(UsageError, match=f"not {count}"):
        LocalKafka(count)
