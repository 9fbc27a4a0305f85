"""Transactions under faults: what any ``read_committed`` reader sees, and what an owner of an id is told."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr

from bridge.errors import ConfigError, DeliveryFailed, KafkaUnavailable
from bridge.kafka.settings import KafkaSettings
from bridge.kafka.transactional_publisher import TransactionalPublisher, TransactionHooks
from tests.kafka.cluster import admin, create_topic, read_all
from tests.kafka.test_aiokafka_publisher import PLAIN_LOGIN
from tests.kafka.transaction_holder import RECORDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = [f"KEY{number}".encode() for number in range(12)]
QUICK = {"request_timeout_ms": 3000}
TIMEOUT_MS = 8000

pytestmark = pytest.mark.kafka


@dataclass
class Heard:
    """Everything that one publisher told."""

    ended: list[str] = field(default_factory=list)
    transactions: list[tuple] = field(default_factory=list)
    troubles: list[tuple[str, str, str]] = field(default_factory=list)
    delivered: list[tuple] = field(default_factory=list)
    poison: list[tuple] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hooks(self, before_commit=lambda: None) -> TransactionHooks:
        """The hooks that write it down."""

        def note(into: list, first: str | None = None):
            def called(*values: object) -> None:
                into.append(values if first is None else f"{first}: {values[0]}")
                self.changed.set()

            return called

        return TransactionHooks(
            before_commit=before_commit,
            on_fenced=note(self.ended, "fenced"),
            on_lost=note(self.ended, "lost"),
            on_transaction=note(self.transactions),
            on_trouble=note(self.troubles),
            on_delivered=note(self.delivered),
            on_poison=note(self.poison),
        )

    async def until(self, condition) -> None:
        """Wait until ``condition()`` holds."""
        async with asyncio.timeout(90):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(
    bootstrap: str, *topics: str, transactional_id: str, before_commit=lambda: None, **options: object
) -> AsyncIterator[tuple[TransactionalPublisher, Heard]]:
    """Give a started publisher that knows ``topics``."""
    heard = Heard()
    publisher = TransactionalPublisher(
        KafkaSettings(bootstrap_servers=bootstrap, **QUICK, **options),
        heard.hooks(before_commit),
        transactional_id=transactional_id,
        transaction_timeout_ms=TIMEOUT_MS,
        interval_ms=50,
    )
    await publisher.start(timeout=60)
    try:
        await publisher.refresh(topics)
        yield publisher, heard
    finally:
        await publisher.stop(10)


class Tail:
    """librdkafka's ``read_committed`` consumer, reading along from the beginning in a thread."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.values: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "tail",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 500,
                "logger": _Silent(),
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.is_set():
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                self.values[message.partition()].append((message.key(), message.value()))
        self._consumer.close()

    async def read(self, count: int) -> dict[int, list[tuple[bytes, bytes]]]:
        """Wait until as many records were read, and return them by partition."""
        async with asyncio.timeout(90):
            while sum(map(len, self.values.values())) < count:  # noqa: ASYNC110 - it grows in a thread
                await asyncio.sleep(0.1)
        self._ended.set()
        await asyncio.to_thread(self._thread.join)
        return dict(self.values)


class _Silent:
    """A logger that writes nothing."""

    def log(self, *_: object) -> None:
        """Ignore it."""


class Shard:
    """What the wiring does: numbers each key's records, checkpoints them, and takes over from Kafka after a loss.

    ``read_committed`` readers must see every number of every key once and in order, whatever happens.
    """

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap, self.topic, self.checkpoints = bootstrap, name, f"{name}-checkpoints"
        self.next: dict[bytes, int] = dict.fromkeys(KEYS, 0)
        self.heard = Heard()
        self.takeovers: list[str] = []
        self.troubles: list[tuple[str, str, str]] = []
        self.began_ms = int(time() * 1000)
        self.publisher: TransactionalPublisher | None = None

    async def prepare(self, **config: str) -> None:
        """Make the topics, read along, and begin."""
        await create_topic(self.bootstrap, self.topic, 3, 3, **config)
        await create_topic(self.bootstrap, self.checkpoints, 1, 3)
        self.tail = Tail(self.bootstrap, self.topic, 3)
        await self.take_over()

    async def take_over(self) -> None:
        """Own the id, by a publisher that begins where Kafka's records end."""
        async with asyncio.timeout(120):
            while True:
                self.heard = Heard(troubles=self.troubles)
                publisher = TransactionalPublisher(
                    KafkaSettings(bootstrap_servers=self.bootstrap, **QUICK),
                    self.heard.hooks(self._checkpoint),
                    transactional_id=self.topic,
                    transaction_timeout_ms=TIMEOUT_MS,
                    interval_ms=50,
                )
                try:
                    await publisher.start(timeout=5)
                    await publisher.refresh([self.topic, self.checkpoints])
                    self.next = await self._stored()
                    claims = [record.value for record in await read_all(self.bootstrap, self.checkpoints)]
                except (KafkaUnavailable, KafkaError, TimeoutError):
                    await publisher.stop(1)
                else:
                    break
        if claims:
            claim = {key.encode(): number for key, number in json.loads(claims[-1]).items()}
            assert claim == self.next, "the checkpoint of a transaction says what that transaction holds"
        self.publisher = publisher

    async def _stored(self) -> dict[bytes, int]:
        numbers = dict.fromkeys(KEYS, 0)
        for record in await read_all(self.bootstrap, self.topic):
            numbers[record.key] = int(record.value) + 1
        return numbers

    def _checkpoint(self) -> None:
        state = {key.decode(): number for key, number in self.next.items()}
        self.publisher.lane(self.checkpoints, b"shard").append(
            self.began_ms, b"shard", json.dumps(state).encode()
        )

    def append(self) -> None:
        """Append the next record of each key."""
        for key in KEYS:
            number = self.next[key]
            self.next[key] += 1
            self.publisher.lane(self.topic, key).append(self.began_ms + number, key, b"%d" % number)

    async def keep_on(self, seconds: float) -> None:
        """Append a little every 10 ms for a while, taking over whenever that is called for."""
        until = monotonic() + seconds
        while monotonic() < until:
            self.append()
            await asyncio.sleep(0.01)
            await self._again_if_ended()

    async def _again_if_ended(self) -> None:
        if self.heard.ended:
            self.takeovers += self.heard.ended
            await self.publisher.stop(1)
            await self.take_over()

    async def settle(self) -> None:
        """Have everything stored."""
        async with asyncio.timeout(120):
            while True:
                self.append()
                with suppress(DeliveryFailed):
                    await self.publisher.settle()
                    return
                await self._again_if_ended()

    async def check(self) -> None:
        """Both kinds of reader see each number of each key once, in order, and the same in each partition."""
        await self.settle()
        assert await self.publisher.stop(20) == []
        stored: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        numbers: dict[bytes, list[int]] = defaultdict(list)
        for record in await read_all(self.bootstrap, self.topic):
            stored[record.partition].append((record.key, record.value))
            numbers[record.key].append(int(record.value))
        assert {key: len(found) for key, found in numbers.items()} == self.next
        assert all(found == list(range(len(found))) for found in numbers.values())
        assert await self.tail.read(sum(self.next.values())) == stored


async def _leader(bootstrap: str, topic: str, partition: int = 0) -> int:
    async with admin(bootstrap) as client:
        [described] = await client.describe_topics([topic])
        return next(p["leader"] for p in described["partitions"] if p["partition"] == partition)


async def _coordinator(bootstrap: str, transactional_id: str) -> int:
    """Return the broker that coordinates an id: the leader of the partition that Java's hash of the id gives."""
    number = 0
    for character in transactional_id:
        number = (31 * number + ord(character)) & 0xFFFFFFFF
    if number >= 2**31:
        number -= 2**32
    return await _leader(bootstrap, "__transaction_state", abs(number) % 3)


async def _until_out_of_sync(bootstrap: str, node: int, *topics: str) -> None:
    """Wait until no partition of ``topics`` waits for a replica on ``node`` any more."""
    async with admin(bootstrap) as client, asyncio.timeout(90):
        while True:
            with suppress(KafkaError):  # it may ask the very node
                described = await client.describe_topics(list(topics))
                if not any(node in p["isr"] for topic in described for p in topic["partitions"]):
                    return
            await asyncio.sleep(0.1)


# In quiet weather.


async def test_checkpoints_are_part_of_their_transaction(kafka, unique):
    """What is appended in ``before_commit`` is the last part of the very transaction, and hooks tell its size."""
    await create_topic(kafka.bootstrap_servers, unique, 1)

    def checkpoint() -> None:
        publisher.lane(unique, b"mark").append(1, b"mark", b"%d" % sum(appended))

    appended: list[int] = []
    options = {"transactional_id": unique, "before_commit": checkpoint}
    async with running(kafka.bootstrap_servers, unique, **options) as (publisher, heard):
        for count in (3, 5):
            for _ in range(count):
                publisher.lane(unique, b"key").append(1, b"key", b"x")
            appended.append(count)
            assert await publisher.flush(30) == 0
        assert (
            await publisher.flush(30) == 0
        )  # nothing is queued, so there is no transaction and no checkpoint
        assert [(outcome, records) for outcome, records, *_ in heard.transactions] == [
            ("committed", 4),
            ("committed", 6),
        ]
        assert [(topic, records) for topic, records, *_ in heard.delivered] == [(unique, 4), (unique, 6)]
        assert all(size > 0 and seconds > 0 for *_, size, seconds in heard.transactions)
    stored = [record.value for record in await read_all(kafka.bootstrap_servers, unique)]
    assert stored == [b"x"] * 3 + [b"3"] + [b"x"] * 5 + [b"8"]


async def test_a_new_owner_fences_the_old(kafka, unique):
    """The old owner is told that it is fenced, publishes nothing more and says what it has left."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with running(kafka.bootstrap_servers, unique, transactional_id=unique) as (old, told):
        old.lane(unique, b"key").append(1, b"key", b"old")
        await old.settle()
        async with running(kafka.bootstrap_servers, unique, transactional_id=unique) as (new, heard):
            old.lane(unique, b"key").append(1, b"key", b"too late")
            with pytest.raises(DeliveryFailed, match=unique):
                await old.settle()
            new.lane(unique, b"key").append(1, b"key", b"new")
            await new.settle()
            assert not heard.ended
        assert len(told.ended) == 1
        assert told.ended[0].startswith("fenced: ")
        assert await old.flush(5) == 1
        assert await old.stop(5) == [(unique, 1)]
    assert [r.value for r in await read_all(kafka.bootstrap_servers, unique)] == [b"old", b"new"]


def test_a_transaction_timeout_that_is_too_short():
    """A transaction may not end before one request may."""
    with pytest.raises(ConfigError, match="at least twice"):
        TransactionalPublisher(
            KafkaSettings(bootstrap_servers="x:1"), transactional_id="x", transaction_timeout_ms=1000
        )


# With a process that is killed or frozen between its last acknowledgement and its commit.


@asynccontextmanager
async def holder(bootstrap: str, topic: str, timeout_ms: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give a process with an open transaction, all of whose records the brokers have."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kafka.transaction_holder", bootstrap, topic, topic, str(timeout_ms),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert await _line(process) == "committed"
        assert await _line(process) == "open"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(90):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def test_a_killed_owner_leaves_nothing(kafka, unique):
    """Of a process killed before its commit nothing is seen, and readers wait no longer than until the next owner."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with holder(kafka.bootstrap_servers, unique, 600_000) as process:
        process.kill()
        await process.wait()
        tail = Tail(kafka.bootstrap_servers, unique, 1)
        # Far within the old owner's transaction timeout.
        async with running(kafka.bootstrap_servers, unique, transactional_id=unique) as (publisher, _):
            before = [int(record.value) for record in await read_all(kafka.bootstrap_servers, unique)]
            assert before == list(range(RECORDS))
            for number in range(RECORDS, 2 * RECORDS):
                publisher.lane(unique, b"key").append(number, b"key", b"%d" % number)
            await publisher.settle()
    expected = [b"%d" % number for number in range(2 * RECORDS)]
    assert [record.value for record in await read_all(kafka.bootstrap_servers, unique)] == expected
    assert [value for _, value in (await tail.read(2 * RECORDS))[0]] == expected


async def test_a_zombie_is_fenced(kafka, unique):
    """An owner that was frozen while another took over commits nothing when it wakes up, and says why."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with holder(kafka.bootstrap_servers, unique, 600_000) as process:
        process.send_signal(signal.SIGSTOP)
        async with running(kafka.bootstrap_servers, unique, transactional_id=unique) as (publisher, heard):
            process.send_signal(signal.SIGCONT)
            process.stdin.write(b"\n")
            told = await _line(process)
            assert told.startswith("fenced: ")
            assert unique in told
            publisher.lane(unique, b"key").append(1, b"key", b"new")
            await publisher.settle()
            assert not heard.ended
    stored = [record.value for record in await read_all(kafka.bootstrap_servers, unique)]
    assert stored == [b"%d" % number for number in range(RECORDS)] + [b"new"]


async def test_a_transaction_that_is_open_for_too_long(kafka, unique):
    """An owner frozen for longer than its transaction timeout holds readers up no longer, and is told on waking."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with holder(kafka.bootstrap_servers, unique, 4000) as process:
        process.send_signal(signal.SIGSTOP)
        # Reading to the end waits for the coordinator to abort.
        assert len(await read_all(kafka.bootstrap_servers, unique)) == RECORDS
        process.send_signal(signal.SIGCONT)
        process.stdin.write(b"\n")
        told = await _line(process)
        assert told.startswith("fenced: ")
        assert "4 s" in told
    assert len(await read_all(kafka.bootstrap_servers, unique)) == RECORDS


# Under faults of the brokers.


@pytest.mark.faults
async def test_killed_brokers(own_kafka, unique):
    """The coordinator killed, and then a leader: each record once, in order, for both kinds of readers."""
    broker = own_kafka(3)
    shard = Shard(broker.bootstrap_servers, unique)
    await shard.prepare()
    await shard.keep_on(0.5)
    for find in (_coordinator, _leader):
        node = await find(broker.bootstrap_servers, unique)
        broker.kill(node)
        await shard.keep_on(6)
        await asyncio.to_thread(broker.restart, node)
        await shard.keep_on(1)
    await shard.check()


@pytest.mark.faults
@pytest.mark.parametrize("find", [_leader, _coordinator], ids=["leader", "coordinator"])
async def test_a_frozen_broker(own_kafka, unique, find):
    """A broker frozen for longer than a request may take, and woken up again, makes no record come twice."""
    broker = own_kafka(3)
    shard = Shard(broker.bootstrap_servers, unique)
    await shard.prepare()
    await shard.keep_on(0.5)
    for seconds in (1.5, 7):
        node = await find(broker.bootstrap_servers, unique)
        broker.suspend(node)
        await shard.keep_on(seconds)
        broker.resume(node)
        await shard.keep_on(2)
    await shard.check()


@pytest.mark.faults
async def test_too_few_replicas_for_a_while(own_kafka, unique):
    """While a partition has too few replicas all is held, and told; afterwards each record is there once."""
    broker = own_kafka(3)
    shard = Shard(broker.bootstrap_servers, unique)
    await shard.prepare(min_insync_replicas="3")
    await shard.keep_on(0.5)
    coordinator = await _coordinator(broker.bootstrap_servers, unique)
    node = next(number for number in (1, 2, 3) if number != coordinator)
    # Nothing is under way: a commit that the dead replica holds up would be in doubt, which is another story.
    await shard.settle()
    broker.kill(node)
    await _until_out_of_sync(broker.bootstrap_servers, node, unique, "__transaction_state")
    async with asyncio.timeout(90):
        # Of which of the transaction's topics is told: of the first whose time runs out.
        while not any(kind == "no-leader" for kind, *_ in shard.troubles):
            await shard.keep_on(0.2)
    await asyncio.to_thread(broker.restart, node)
    await shard.check()
    assert not shard.takeovers
    assert "recovered" in {kind for kind, *_ in shard.troubles}


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_stop_without_a_broker(own_kafka, unique, fault):
    """Stopping with no broker there ends by its deadline and tells what is not known to be stored."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 1)
    async with running(broker.bootstrap_servers, unique, transactional_id=unique) as (publisher, _):
        publisher.lane(unique, b"key").append(1, b"key", b"before")
        await publisher.settle()
        (broker.kill if fault == "killed" else broker.suspend)(1)
        publisher.lane(unique, b"key").append(1, b"key", b"after")
        assert await publisher.flush(0.5) == 1
        stopping = asyncio.create_task(publisher.stop(3))
        done, _ = await asyncio.wait([stopping], timeout=30)
        assert done
        assert stopping.result() == [(unique, 1)]


# With permissions.


def _acl(kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, "User:bridge", "*", operation, permission)


def _as_admin(bootstrap: str) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "admin",
        }
    )


def _create_topic(bootstrap: str, name: str) -> None:
    client = _as_admin(bootstrap)
    client.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def _change(bootstrap: str, *bindings: AclBinding, remove: bool = False) -> None:
    client = _as_admin(bootstrap)
    if remove:
        names = (
            "restype",
            "name",
            "resource_pattern_type",
            "principal",
            "host",
            "operation",
            "permission_type",
        )
        filters = [AclBindingFilter(*(getattr(binding, name) for name in names)) for binding in bindings]
        futures = client.delete_acls(filters)
    else:
        futures = client.create_acls(list(bindings))
    for future in futures.values():
        future.result(30)


@pytest.mark.faults
async def test_permissions_withdrawn(own_kafka, unique):
    """Without the right to write to a topic all is held until it is back; without that to the id all is over."""
    broker = own_kafka(
        properties={
            **PLAIN_LOGIN,
            "listener.name.plaintext.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                'username="admin" password="admin" user_admin="admin" user_bridge="right";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
        }
    )
    servers = broker.bootstrap_servers
    allow, deny = AclPermissionType.ALLOW, AclPermissionType.DENY
    topic_write = _acl(ResourceType.TOPIC, unique, AclOperation.WRITE, allow)
    no_topic_write = _acl(ResourceType.TOPIC, unique, AclOperation.WRITE, deny)
    await asyncio.to_thread(_create_topic, servers, unique)
    await asyncio.to_thread(_change, servers, topic_write)
    login = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "bridge",
        "sasl_password": SecretStr("right"),
    }
    with pytest.raises(KafkaUnavailable, match=f"may not use transactional id {unique}; it needs the ACLs"):
        async with running(servers, unique, transactional_id=unique, **login):
            pass
    id_write = _acl(ResourceType.TRANSACTIONAL_ID, unique, AclOperation.WRITE, allow)
    await asyncio.to_thread(_change, servers, id_write)
    async with running(servers, unique, transactional_id=unique, **login) as (publisher, heard):
        publisher.lane(unique, b"key").append(1, b"key", b"1")
        await publisher.settle()
        await asyncio.to_thread(_change, servers, no_topic_write)
        publisher.lane(unique, b"key").append(1, b"key", b"2")
        await heard.until(lambda: "authorization" in {kind for kind, *_ in heard.troubles})
        await asyncio.to_thread(_change, servers, no_topic_write, remove=True)
        async with asyncio.timeout(90):
            await publisher.settle()
        assert heard.troubles[-1][0] == "recovered"
        assert not heard.ended
        await asyncio.to_thread(_change, servers, id_write, remove=True)
        publisher.lane(unique, b"key").append(1, b"key", b"3")
        with pytest.raises(DeliveryFailed, match=f"may not use transactional id {unique}"):
            await publisher.settle()
        assert heard.ended[0].startswith("lost: ")
