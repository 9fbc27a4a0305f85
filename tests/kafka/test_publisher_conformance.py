"""What every implementation of the producer port must do, against a real Kafka, under faults."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise
from time import monotonic, time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import uvloop
from confluent_kafka.admin import AclOperation, ResourceType

from bridge.errors import DeliveryFailed, KafkaUnavailable, TopicMismatch
from bridge.kafka.publisher import Hooks, create_publisher
from bridge.kafka.settings import KafkaSettings
from bridge.kafka.transactional_publisher import TransactionalPublisher, TransactionHooks
from bridge.model import Header
from tests.kafka.cluster import (
    AUTHORIZER,
    admin,
    create_topic,
    denied,
    extend_topic,
    read_all,
    recreate_topic,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.kafka.publisher import KafkaPublisher

KEYS = [f"KEY{number}".encode() for number in range(12)]

pytestmark = pytest.mark.kafka


@pytest.fixture(params=["aiokafka", "librdkafka", "transactions"])
def client(request):
    """Name the implementation under test: on one of two client libraries, or with transactions."""
    return request.param


@pytest.fixture(params=["aiokafka", "librdkafka"])
def resending_client(request):
    """Name an implementation that sends again, however long it takes.

    A commit that a broker's fault leaves in doubt ends the one with transactions: test_transactional_publisher.py
    has the same faults, with an owner that takes over.
    """
    return request.param


@dataclass
class Heard:
    """Everything a publisher told."""

    poison: list[tuple] = field(default_factory=list)
    delivered: list[tuple] = field(default_factory=list)
    troubles: list[tuple[str, str, str]] = field(default_factory=list)
    full: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def hooks(self) -> Hooks:
        """The hooks that write it down."""

        def note(into: list) -> object:
            def called(*values: object) -> None:
                into.append(values)
                self.changed.set()

            return called

        def on_full() -> None:
            self.full += 1
            self.changed.set()

        return Hooks(
            on_poison=note(self.poison),
            on_delivered=note(self.delivered),
            on_trouble=note(self.troubles),
            on_full=on_full,
        )

    async def until(self, condition, timeout: float = 180) -> None:
        """Wait until ``condition()`` holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def kinds(self) -> set[str]:
        """Return the kinds of trouble told so far."""
        return {kind for kind, *_ in self.troubles}


def create(client: str, bootstrap: str, hooks: Hooks | None = None, **settings: object) -> KafkaPublisher:
    """Return a publisher that is not started."""
    if client == "transactions":
        options = KafkaSettings(bootstrap_servers=bootstrap, **settings)
        heard = {one.name: getattr(hooks or Hooks(), one.name) for one in fields(Hooks)}
        return TransactionalPublisher(
            options, TransactionHooks(**heard), transactional_id=f"conformance-{uuid4().hex}"
        )
    return create_publisher(KafkaSettings(bootstrap_servers=bootstrap, client=client, **settings), hooks)


@asynccontextmanager
async def running(
    client: str, bootstrap: str, *topics: str, **settings: object
) -> AsyncIterator[tuple[KafkaPublisher, Heard]]:
    """Give a started publisher that knows ``topics``."""
    heard = Heard()
    publisher = create(client, bootstrap, heard.hooks, **settings)
    await publisher.start()
    try:
        await publisher.refresh(topics)
        yield publisher, heard
    finally:
        await publisher.stop(5)


class Numbers:
    """Appends records that carry, per key, the numbers 0, 1, 2 and so on, and later checks what is stored."""

    def __init__(self, publisher: KafkaPublisher, topic: str, padding: int = 0) -> None:
        self.publisher, self.topic, self.padding = publisher, topic, b"." * padding
        self.next: dict[bytes, int] = defaultdict(int)
        # A broker that crashed forgets producers whose newest record is older than a day, by its own time.
        self.began_ms = int(time() * 1000)

    def append(self, rounds: int) -> None:
        """Append one record for each key, ``rounds`` times."""
        for _ in range(rounds):
            for key in KEYS:
                number = self.next[key]
                self.next[key] += 1
                lane = self.publisher.lane(self.topic, key)
                lane.append(self.began_ms + number, key, b"%d" % number + self.padding)

    async def keep_on(self, seconds: float) -> None:
        """Append a little for every 10 ms of a while: the traffic under which a fault happens."""
        began, rounds = monotonic(), 0
        while (passed := monotonic() - began) < seconds:
            due = int(passed / 0.01) + 1 - rounds
            self.append(due)
            rounds += due
            await asyncio.sleep(0.01)

    async def check(self, bootstrap: str, *, again: bool = False) -> None:
        """Compare with what is stored: nothing lost, nothing twice, every key in order.

        With ``again`` the end of what was there by then may have come a second time, in order too.
        """
        stored: dict[bytes, list[int]] = defaultdict(list)
        for record in await read_all(bootstrap, self.topic):
            if record.key in self.next:
                stored[record.key].append(int(record.value.rstrip(b".")))
        if again:
            for numbers in stored.values():
                assert all(later <= number + 1 for number, later in pairwise(numbers)), (
                    "a repeat is in order, too"
                )
            stored = defaultdict(list, {k: list(dict.fromkeys(v)) for k, v in stored.items()})
        assert {k: len(v) for k, v in stored.items()} == dict(self.next)
        assert all(numbers == list(range(len(numbers))) for numbers in stored.values())


# In quiet weather.


async def test_records_arrive_as_they_are(kafka, client, unique):
    """Key, value, time and headers arrive exactly, in the partition that Kafka's partitioner gives."""
    await create_topic(kafka.bootstrap_servers, unique, 7)
    headers = (Header("version", b"1"), Header("run", b"\x00\xff"))
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, _):
        assert publisher.partitions(unique) == 7
        for number, key in enumerate([b"foobar", b"21", "币安人生USDT".encode()]):
            publisher.lane(unique, key).append(1_700_000_000_000 + number, key, b"\x00" * number, headers)
        publisher.lane(unique, b"21").append(5, b"21", b"without headers")
        assert await publisher.flush(120) == 0
        assert publisher.buffered_bytes == 0
    stored = {(r.key, r.timestamp, r.value): r for r in await read_all(kafka.bootstrap_servers, unique)}
    assert set(stored) == {
        (b"foobar", 1_700_000_000_000, b""),
        (b"21", 1_700_000_000_001, b"\x00"),
        ("币安人生USDT".encode(), 1_700_000_000_002, b"\x00\x00"),
        (b"21", 5, b"without headers"),
    }
    assert stored[b"foobar", 1_700_000_000_000, b""].headers == tuple(map(tuple, headers))
    assert stored[b"21", 5, b"without headers"].headers == ()
    # The hashes are those of Apache Kafka's own test: -790332482 and -973932308.
    assert stored[b"foobar", 1_700_000_000_000, b""].partition == (-790332482 & 0x7FFFFFFF) % 7
    assert stored[b"21", 5, b"without headers"].partition == (-973932308 & 0x7FFFFFFF) % 7


async def test_order_under_load(kafka, client, unique):
    """Many records over many batches keep the order of each key, and each is told of once."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique, padding=200)
        for _ in range(20):
            numbers.append(200)
            await asyncio.sleep(0)
        assert await publisher.flush(120) == 0
        await numbers.check(kafka.bootstrap_servers)
        assert sum(records for _, records, *_ in heard.delivered) == sum(numbers.next.values())
        assert {topic for topic, *_ in heard.delivered} == {unique}
        assert max(newest for *_, newest in heard.delivered) == numbers.began_ms + 3999
        assert all(0 < monotonic() - queued_at < 300 for *_, queued_at, _ in heard.delivered)
        assert not heard.troubles


def test_under_uvloop(kafka, client, unique):
    """The same holds on uvloop, on which the bridge runs."""
    uvloop.run(test_order_under_load(kafka, client, unique))


async def test_poison_among_good_records(kafka, client, unique):
    """Records larger than the topic takes come back one by one; all others are stored in order."""
    await create_topic(kafka.bootstrap_servers, unique, 3, max_message_bytes="3000")
    poison = os.urandom(5000)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        for _ in range(3):
            numbers.append(20)
            publisher.lane(unique, KEYS[0]).append(7, KEYS[0], poison, (Header("h", b"v"),))
            numbers.append(20)
        assert await publisher.flush(120) == 0
        assert publisher.buffered_bytes == 0
        await numbers.check(kafka.bootstrap_servers)
    assert [(t, k, v, ms, tuple(map(tuple, h))) for t, k, v, ms, h, _ in heard.poison] == [
        (unique, KEYS[0], poison, 7, (("h", b"v"),))
    ] * 3
    assert "TooLarge" in heard.poison[0][-1] or "TOO_LARGE" in heard.poison[0][-1]


async def test_times_that_the_topic_refuses(kafka, client, unique):
    """A record whose time the topic does not take comes back; its neighbours are stored in order."""
    await create_topic(kafka.bootstrap_servers, unique, 1, message_timestamp_before_max_ms="3600000")
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        numbers.append(2)
        publisher.lane(unique, KEYS[0]).append(1_500_000_000_000, KEYS[0], b"of 2017")
        numbers.append(2)
        assert await publisher.flush(120) == 0
        await numbers.check(kafka.bootstrap_servers)
    assert [(value, timestamp) for _, _, value, timestamp, *_ in heard.poison] == [
        (b"of 2017", 1_500_000_000_000)
    ]


async def test_batches_larger_than_the_topic_takes(kafka, client, unique):
    """Where only a batch is too large and none of its records is, every record is stored, in order."""
    await create_topic(kafka.bootstrap_servers, unique, 1, max_message_bytes="3000")
    async with running(client, kafka.bootstrap_servers, unique, compression="none") as (publisher, heard):
        numbers = Numbers(publisher, unique, padding=500)
        numbers.append(20)
        assert await publisher.flush(120) == 0
        await numbers.check(kafka.bootstrap_servers)
    assert not heard.poison


async def test_a_missing_topic_is_named(kafka, client, unique):
    """A topic that does not exist is an error that names it, and is not created by the question."""
    async with running(client, kafka.bootstrap_servers) as (publisher, _):
        with pytest.raises(TopicMismatch, match=unique):
            await publisher.refresh([unique])
        async with admin(kafka.bootstrap_servers) as asking:
            assert unique not in await asking.list_topics()
        with pytest.raises(TopicMismatch, match=unique):
            publisher.lane(unique, b"key")


async def test_a_changed_number_of_partitions(kafka, client, unique):
    """When partitions are added keys stay where they were, and the next look at the topic is refused."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(1)
        await extend_topic(kafka.bootstrap_servers, unique, 4)
        with pytest.raises(TopicMismatch, match=f"{unique} has 4 partitions and had 1"):
            await publisher.refresh([unique])
        numbers.append(1)
        assert await publisher.flush(120) == 0
        await numbers.check(kafka.bootstrap_servers)
        assert {r.partition for r in await read_all(kafka.bootstrap_servers, unique)} == {0}


async def test_nobody_listens(client):
    """Where nothing listens the start fails within a moment and names server and reason."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{probe.getsockname()[1]}"
        publisher = create(client, server)
        began = monotonic()
        with pytest.raises(KafkaUnavailable, match=f"{server}: connection refused"):
            await publisher.start(timeout=90)
        assert monotonic() - began < 30
        assert await publisher.stop(1) == []


async def test_something_else_listens(client):
    """A server that never answers is given up at the deadline."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        publisher = create(client, f"127.0.0.1:{silent.getsockname()[1]}")
        began = monotonic()
        with pytest.raises(KafkaUnavailable, match="no answer within 1 s"):
            await publisher.start(timeout=1)
        assert monotonic() - began < 9, "sooner than by the deadline it has by default"
        assert await publisher.stop(1) == []


async def test_the_port_speaks_no_tls(kafka, client):
    """TLS to a port without it fails at the start, and the error says so."""
    with pytest.raises(KafkaUnavailable, match=r"by SSL .*(TLS failed|security_protocol)"):
        async with running(client, kafka.bootstrap_servers, security_protocol="SSL"):
            pass


async def test_stop_twice(kafka, client, unique):
    """Stopping delivers what is queued, and stopping again is nothing."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(10)
        assert await publisher.stop(10) == []
        assert await publisher.stop(10) == []
        await numbers.check(kafka.bootstrap_servers)


async def test_settling(kafka, client, unique):
    """Settling ends once what was appended before is stored or refused for good, whatever is appended meanwhile."""
    await create_topic(kafka.bootstrap_servers, unique, 3, max_message_bytes="3000")
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, heard):
        await publisher.settle()
        numbers = Numbers(publisher, unique)
        numbers.append(50)
        publisher.lane(unique, KEYS[0]).append(7, KEYS[0], os.urandom(5000))
        numbers.append(50)
        settling = asyncio.create_task(publisher.settle())
        async with asyncio.timeout(180):
            while not settling.done():
                if sum(records for _, records in publisher.undelivered()) < 2000:
                    numbers.append(
                        1
                    )  # there is always something, and no more than a busy broker keeps up with
                await asyncio.sleep(0.002)
        await settling
        assert len(heard.poison) == 1
        stored = defaultdict(int)
        for record in await read_all(kafka.bootstrap_servers, unique):
            stored[record.key] += 1
        assert all(stored[key] >= 100 for key in KEYS)
        async with asyncio.timeout(180):
            await publisher.settle()
        assert publisher.undelivered() == []
        await numbers.check(kafka.bootstrap_servers)


async def test_nothing_is_sent_without_leave(kafka, client, unique):
    """While it may not send, all stays queued; once it may, all goes, in order and once."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        numbers.append(5)
        await publisher.settle()
        leave = False
        publisher.may_send = lambda: leave
        numbers.append(20)
        assert await publisher.flush(1.5) == 20 * len(KEYS)
        assert publisher.undelivered() == [(unique, 20 * len(KEYS))]
        assert len(await read_all(kafka.bootstrap_servers, unique)) == 5 * len(KEYS)
        leave = True
        async with asyncio.timeout(180):
            await publisher.settle()
        await numbers.check(kafka.bootstrap_servers)
        assert not heard.troubles


# Under faults.


@pytest.mark.faults
async def test_what_is_discarded(own_kafka, client, unique):
    """What is discarded is told by topic and not sent again; what follows arrives whole, once and in order.

    The broker takes what was on its way after all, so the following must not pass for its repeat.
    """
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    async with running(client, broker.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        numbers.append(10)
        await publisher.settle()
        broker.suspend(1)
        numbers.append(10)
        settling = asyncio.create_task(publisher.settle())
        assert await publisher.flush(1) == 10 * len(KEYS)  # by now a part of it is on its way
        numbers.append(10)
        assert publisher.discard() == [(unique, 20 * len(KEYS))]
        assert publisher.discard() == []
        assert (publisher.undelivered(), publisher.buffered_bytes) == ([], 0)
        with pytest.raises(DeliveryFailed):
            await settling
        numbers.append(10)
        broker.resume(1)
        async with asyncio.timeout(180):
            await publisher.settle()
        assert publisher.buffered_bytes == 0
        assert sum(records for _, records, *_ in heard.delivered) == 20 * len(KEYS)
        stored = defaultdict(list)
        for record in await read_all(broker.bootstrap_servers, unique):
            stored[record.key].append(int(record.value))
        whole, never = {*range(10), *range(30, 40)}, set(range(20, 30))
        for key in KEYS:
            assert stored[key] == sorted(set(stored[key]))
            assert whole <= set(stored[key])
            assert not never & set(stored[key])


@pytest.mark.faults
async def test_a_frozen_broker(own_kafka, resending_client, unique):
    """A broker frozen for longer than the request timeout costs nothing: none lost, none twice, in order."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    options = {"request_timeout_ms": 2000}
    async with running(resending_client, broker.bootstrap_servers, unique, **options) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.5)
        broker.suspend(1)
        await numbers.keep_on(7)
        assert publisher.undelivered()[0][1] > 1000
        await heard.until(lambda: "unavailable" in heard.kinds())
        broker.resume(1)
        await numbers.keep_on(0.5)
        assert await publisher.flush(120) == 0
        await heard.until(lambda: "recovered" in heard.kinds())
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_a_killed_broker_comes_back(own_kafka, resending_client, unique):
    """A broker killed with data queued, away for longer than the request timeout, gets all of it once."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    options = {"request_timeout_ms": 2000}
    async with running(resending_client, broker.bootstrap_servers, unique, **options) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.5)
        broker.kill(1)
        await numbers.keep_on(5)
        await heard.until(lambda: "unavailable" in heard.kinds())
        restart = asyncio.create_task(asyncio.to_thread(broker.restart, 1))
        await numbers.keep_on(1)
        await restart
        assert await publisher.flush(120) == 0
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_a_killed_leader(own_kafka, resending_client, unique):
    """With three brokers the loss of a leader is passed over to the next one: none lost, none twice."""
    broker = own_kafka(3)
    await create_topic(broker.bootstrap_servers, unique, 6, 3)
    options = {"request_timeout_ms": 3000}
    async with running(resending_client, broker.bootstrap_servers, unique, **options) as (publisher, _):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.5)
        broker.kill(2)
        await numbers.keep_on(8)
        await asyncio.to_thread(broker.restart, 2)
        await numbers.keep_on(1)
        assert await publisher.flush(120) == 0
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_a_full_disk(own_kafka, resending_client, unique):
    """A leader that can write no more ends, and the next one gets everything: none lost, none twice.

    But for librdkafka, which may end its producer over the failed batch: the next producer cannot know what was stored
    of all that had no answer (ADR 4).
    """
    again = resending_client == "librdkafka"
    broker = own_kafka(3)
    await create_topic(broker.bootstrap_servers, unique, 6, 3)
    options = {"request_timeout_ms": 3000}
    async with running(resending_client, broker.bootstrap_servers, unique, **options) as (publisher, _):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.5)
        full = broker.pids[1]
        # To the broker a file that may not grow and a disk without room are the same IOException.
        _, most = resource.prlimit(full, resource.RLIMIT_FSIZE)
        resource.prlimit(full, resource.RLIMIT_FSIZE, (0, most))
        async with asyncio.timeout(180):
            while full in broker.pids:
                await numbers.keep_on(0.2)
        await numbers.keep_on(1)
        assert await publisher.flush(120) == 0
        await numbers.check(broker.bootstrap_servers, again=again)
        await asyncio.to_thread(broker.restart, 2)  # with room again
        await numbers.keep_on(0.5)
        assert await publisher.flush(120) == 0
        await numbers.check(broker.bootstrap_servers, again=again)


@pytest.mark.faults
async def test_permission_withdrawn(own_kafka, client, unique):
    """Without the right to write a topic its records are held, the trouble named; with it they are all there."""
    broker = await asyncio.to_thread(own_kafka, properties=AUTHORIZER)
    await create_topic(broker.bootstrap_servers, unique, 3)
    async with running(client, broker.bootstrap_servers, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        numbers.append(10)
        await publisher.settle()
        with denied(broker.bootstrap_servers, ResourceType.TOPIC, unique, AclOperation.WRITE):
            numbers.append(10)
            await heard.until(
                lambda: ("authorization", unique) in {trouble[:2] for trouble in heard.troubles}
            )
            assert publisher.undelivered() == [(unique, 10 * len(KEYS))]
        async with asyncio.timeout(180):
            await publisher.settle()
        await heard.until(lambda: "recovered" in heard.kinds())
        assert not heard.poison
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_the_buffer_is_bounded(own_kafka, client, unique):
    """With the broker away the publisher says once that it is full, still takes records, and says when it is not."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    options = {"request_timeout_ms": 2000, "buffer_bytes": 2_000_000, "compression": "none"}
    async with running(client, broker.bootstrap_servers, unique, **options) as (publisher, heard):
        assert publisher.limit_bytes == 2_000_000
        broker.suspend(1)
        numbers = Numbers(publisher, unique, padding=1000)
        while not publisher.full:
            numbers.append(1)
        assert publisher.buffered_bytes >= 2_000_000
        numbers.append(200)
        await heard.until(lambda: heard.full)
        waiting = asyncio.create_task(publisher.wait_below(0.5))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        broker.resume(1)
        async with asyncio.timeout(120):
            await waiting
        assert publisher.buffered_bytes <= 1_000_000
        assert await publisher.flush(120) == 0
        assert heard.full == 1
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_stop_without_a_broker(own_kafka, client, unique, fault):
    """Stopping with no broker there ends by its deadline and tells what was not delivered."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    async with running(client, broker.bootstrap_servers, unique) as (publisher, _):
        numbers = Numbers(publisher, unique, padding=10_000)
        (broker.kill if fault == "killed" else broker.suspend)(1)
        numbers.append(100)
        await asyncio.sleep(0.3)
        began = monotonic()
        assert await publisher.stop(3) == [(unique, 100 * len(KEYS))]
        assert monotonic() - began < 20


@pytest.mark.faults
async def test_a_topic_that_is_made_anew(own_kafka, client, unique):
    """A topic deleted under way holds its records until it is there again; the break is told."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 1)
    async with running(client, broker.bootstrap_servers, unique) as (publisher, heard):
        lane = publisher.lane(unique, b"key")
        for number in range(50):
            lane.append(number, b"key", b"before")
        assert await publisher.flush(120) == 0
        async with recreate_topic(broker.bootstrap_servers, unique, 1):
            for number in range(20):
                lane.append(number, b"key", b"%d" % number)
            await heard.until(lambda: "topic-missing" in heard.kinds())
        assert await publisher.flush(120) == 0
        stored = [int(record.value) for record in await read_all(broker.bootstrap_servers, unique)]
        assert stored == list(range(20))
        assert "recovered" in heard.kinds()
        assert "topic-recreated" in heard.kinds()


async def test_cancelling_a_flush_loses_nothing(kafka, client, unique):
    """A flush that is given up leaves the records queued, and they arrive."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with running(client, kafka.bootstrap_servers, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(50)
        flushing = asyncio.create_task(publisher.flush(10))
        await asyncio.sleep(0)
        flushing.cancel()
        with suppress(asyncio.CancelledError):
            await flushing
        assert await publisher.flush(120) == 0
        await numbers.check(kafka.bootstrap_servers)
