"""The spool with a real Kafka that is away for a while: nothing lost, nothing twice, every key in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigError
from bridge.kafka.aiokafka_publisher import AiokafkaPublisher
from bridge.kafka.outbox import BatchFormat, Record
from bridge.kafka.publisher import create_publisher
from bridge.kafka.settings import KafkaSettings, SpoolSettings
from bridge.kafka.spool import Spool, Stamp, Write
from tests.kafka.cluster import create_topic, read_all
from tests.kafka.test_publisher_conformance import KEYS, Heard, Numbers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def spooling(
    bootstrap: str,
    directory: Path,
    *topics: str,
    sync_ms: int = 100,
    max_bytes: int = 10**9,
    **options: object,
) -> AsyncIterator[tuple[AiokafkaPublisher, Heard]]:
    """Give a started publisher with a spool, which has recovered nothing yet."""
    heard = Heard()
    publisher = AiokafkaPublisher(
        KafkaSettings(bootstrap_servers=bootstrap, **{"request_timeout_ms": 2000, **options}),
        heard.hooks,
        spool=SpoolSettings(directory=directory, sync_ms=sync_ms, max_bytes=max_bytes),
    )
    await publisher.start()
    try:
        await publisher.refresh(topics)
        yield publisher, heard
    finally:
        await publisher.stop(5)


async def until(condition, timeout: float = 60) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - nobody tells when it holds
            await asyncio.sleep(0.01)


def in_memory(publisher) -> int:
    """Return how many records are neither acknowledged nor in a file."""
    return sum(outbox.queued - outbox.stored for outbox in publisher._outboxes.values())


async def settled(publisher) -> None:
    """Wait until all is delivered."""
    async with asyncio.timeout(60):
        await publisher.settle()


def test_the_other_client_has_none(tmp_path):
    """With librdkafka a spool is a configuration error that names both settings."""
    settings = KafkaSettings(bootstrap_servers="localhost:1", client="librdkafka")
    with pytest.raises(ConfigError, match=r"spool\.directory is set, which needs kafka\.client: aiokafka"):
        create_publisher(settings, spool=SpoolSettings(directory=tmp_path))


async def test_in_quiet_weather_nothing_is_written(kafka, unique, tmp_path):
    """While Kafka answers promptly the spool stays empty."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with spooling(kafka.bootstrap_servers, tmp_path, unique, sync_ms=60_000) as (publisher, _):
        numbers = Numbers(publisher, unique)
        await numbers.keep_on(0.5)
        await settled(publisher)
        assert publisher.spooled_bytes == 0
        await numbers.check(kafka.bootstrap_servers)


@pytest.mark.faults
async def test_a_broker_away_costs_nothing(own_kafka, unique, tmp_path):
    """Far more than the buffer holds is queued while the broker is away, without it ever being full."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    options = {"compression": "none", "buffer_bytes": 2_000_000, "batch_bytes": 50_000}
    async with spooling(broker.bootstrap_servers, tmp_path, unique, **options) as (publisher, heard):
        numbers = Numbers(publisher, unique, padding=1000)
        numbers.append(10)
        await settled(publisher)
        broker.kill(1)
        for _ in range(60):
            numbers.append(20)
            await until(lambda: publisher.buffered_bytes < 1_000_000)
        await until(lambda: in_memory(publisher) == 0)
        # What is in memory now are the batches of three partitions that were on their way, at most.
        assert publisher.buffered_bytes <= 3 * 60_000
        assert publisher.spooled_bytes > 12_000_000
        restart = asyncio.create_task(asyncio.to_thread(broker.restart, 1))
        while not restart.done():
            numbers.append(1)
            await asyncio.sleep(0.01)
        await restart
        await settled(publisher)
        assert heard.full == 0
        assert "spool" not in heard.kinds()
        assert publisher.buffered_bytes == 0
        await until(lambda: publisher.spooled_bytes == 0)
        assert sum(records for _, records, *_ in heard.delivered) == sum(numbers.next.values())
        await numbers.check(broker.bootstrap_servers)


class Child:
    """A ``spool_process`` and what it said last under each word."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: dict[str, int] = {}
        self.changed = asyncio.Event()
        self.listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, servers: str, topic: str, directory: Path, base: int) -> Child:
        """Start it, to append from ``base`` on."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.kafka.spool_process", servers, topic, str(directory), str(base)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def _listen(self) -> None:
        async for line in self.process.stdout:
            word, _, number = line.decode().strip().partition(" ")
            self.said[word] = int(number or 0)
            self.changed.set()

    async def until(self, word: str, at_least: int = 0) -> None:
        """Wait until it says ``word`` with that number or more."""
        async with asyncio.timeout(60):
            while self.said.get(word, -1) < at_least:
                self.changed.clear()
                await self.changed.wait()

    async def kill(self) -> None:
        """Kill it at once; everything it said until then is heard."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self.listening


@pytest.mark.faults
async def test_a_killed_process_loses_nothing_that_was_written(own_kafka, unique, tmp_path):
    """Killed while the broker is away, and again while it drains: what was in a file is there, once, in order."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 4)
    safe: dict[int, int] = {}
    child = await Child.start(broker.bootstrap_servers, unique, tmp_path, 0)
    try:
        await child.until("delivered", 500)
        broker.kill(1)
        await child.until("appended", child.said["appended"] + 400)
        await child.until("safe", child.said["appended"])
        await child.kill()
        safe[0] = child.said["safe"]
        for base in (1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000):
            child = await Child.start(broker.bootstrap_servers, unique, tmp_path, base)
            if base == 1_000_000:
                await asyncio.to_thread(broker.restart, 1)
            await child.until("delivered", base // 10_000)
            if base == 2_000_000:
                broker.suspend(1)
                await child.until("safe", base + 100)
            await child.kill()
            if base == 2_000_000:
                broker.resume(1)
            safe[base] = child.said.get("safe", base)
        child = await Child.start(broker.bootstrap_servers, unique, tmp_path, 9_000_000)
        await child.until("appended", 9_000_100)
        child.process.stdin.write(b"flush\n")
        assert await asyncio.wait_for(child.process.wait(), 60) == 0
        await child.listening
        safe[9_000_000] = child.said["safe"]
    finally:
        await child.kill()
    stored = defaultdict(list)
    for record in await read_all(broker.bootstrap_servers, unique):
        stored[record.key].append(int(record.value))
    assert set(stored) == set(KEYS)
    for key in KEYS:
        assert stored[key] == sorted(set(stored[key]))
        for base, end in safe.items():
            assert set(range(base, end)) <= set(stored[key])
    assert safe[0] > 400
    assert not list(tmp_path.glob("*.segment"))


@pytest.mark.faults
async def test_what_a_stop_leaves_is_recovered_or_dropped(own_kafka, unique, tmp_path):
    """A stop without a broker keeps all in files; the next start publishes what is wanted, before anything new."""
    broker = own_kafka()
    other = f"{unique}-other"
    for topic in (unique, other):
        await create_topic(broker.bootstrap_servers, topic, 3)
    async with spooling(broker.bootstrap_servers, tmp_path, unique, other) as (publisher, _):
        numbers, unwanted = Numbers(publisher, unique), Numbers(publisher, other)
        assert publisher.recoverable() == []
        numbers.append(5)
        unwanted.append(5)
        await settled(publisher)
        broker.suspend(1)
        numbers.append(30)
        await until(lambda: in_memory(publisher) == 0)
        unwanted.append(20)
        numbers.append(10)
        assert await publisher.stop(4) == []
    broker.resume(1)
    async with spooling(broker.bootstrap_servers, tmp_path, unique, other) as (publisher, heard):
        # What was on its way to a broker that only slept may be stored by now; the broker knows it again.
        left = dict(publisher.recoverable())
        assert left == {unique: 40 * len(KEYS), other: 20 * len(KEYS)}
        assert await publisher.recover(lambda topic: topic == unique) == [(other, 20 * len(KEYS))]
        assert publisher.recoverable() == []
        numbers.publisher = publisher
        numbers.append(10)
        await settled(publisher)
        await numbers.check(broker.bootstrap_servers)
        assert len(await read_all(broker.bootstrap_servers, other)) == 5 * len(KEYS)
        assert not heard.troubles
        await until(lambda: publisher.spooled_bytes == 0)


async def test_a_stamp_is_of_its_own_batch(kafka, unique, tmp_path):
    """A batch that was never sent does not pass for one that went by memory since the spool was last empty."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    home, crashed = tmp_path / "home", tmp_path / "crashed"
    leave = False
    async with spooling(kafka.bootstrap_servers, home, unique, sync_ms=1000) as (publisher, _):
        publisher.may_send = lambda: leave
        numbers = Numbers(publisher, unique)
        numbers.append(1)
        await until(lambda: in_memory(publisher) == 0)
        leave = True
        await settled(publisher)
        numbers.append(1)
        await settled(publisher)
        leave = False
        numbers.append(1)
        await until(lambda: in_memory(publisher) == 0)
        shutil.copytree(home, crashed)
        publisher.discard()
    async with spooling(kafka.bootstrap_servers, crashed, unique) as (publisher, _):
        assert publisher.recoverable() == [(unique, len(KEYS))]
        await publisher.recover(lambda _: True)
        await settled(publisher)
        await numbers.check(kafka.bootstrap_servers)


async def test_the_rest_of_a_batch(kafka, unique, tmp_path):
    """Of a batch that was cut and partly published before a crash, the rest is published, and only that."""
    await create_topic(kafka.bootstrap_servers, unique, 1)
    spool = Spool(tmp_path, 10**9)
    async with spooling(kafka.bootstrap_servers, tmp_path / "none", unique) as (publisher, _):
        place = publisher.lane(unique, b"k").place
    for first in (0, 10):
        records = [Record(number, b"k", b"%d" % number, ()) for number in range(first, first + 10)]
        data = BatchFormat(1, "none").seal(records, 0.0).data
        writes = [Write(place, spool.take_number(place), 10, len(data), data)]
        spool.commit(writes, spool.write(writes))
    spool.note(place, Stamp(0, 3, 2))
    spool.close()
    async with spooling(kafka.bootstrap_servers, tmp_path, unique) as (publisher, heard):
        assert publisher.recoverable() == [(unique, 17)]
        assert await publisher.recover(lambda _: True) == []
        await settled(publisher)
        stored = await read_all(kafka.bootstrap_servers, unique)
        assert [int(record.value) for record in stored] == list(range(3, 20))
        assert [records for _, records, *_ in heard.delivered] == [2, 5, 10]


@pytest.mark.faults
async def test_poison_in_the_spool(own_kafka, unique, tmp_path):
    """A record that the topic never takes comes out of the spool alone; its neighbours arrive once, in order."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 2, max_message_bytes="3000")
    async with spooling(broker.bootstrap_servers, tmp_path, unique) as (publisher, heard):
        broker.suspend(1)
        numbers = Numbers(publisher, unique)
        for _ in range(3):
            numbers.append(20)
            publisher.lane(unique, KEYS[0]).append(7, KEYS[0], os.urandom(5000))
            numbers.append(20)
            await until(lambda: in_memory(publisher) == 0)
        broker.resume(1)
        await settled(publisher)
        assert len(heard.poison) == 3
        await numbers.check(broker.bootstrap_servers)
        await until(lambda: publisher.spooled_bytes == 0)


@pytest.mark.faults
async def test_a_full_spool(own_kafka, unique, tmp_path):
    """Beyond its limit the rest waits in memory, which is told, until the publisher is full; nothing is lost."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    options = {
        "compression": "none",
        "buffer_bytes": 1_000_000,
        "max_bytes": 2_000_000,
        "batch_bytes": 20_000,
    }
    async with spooling(broker.bootstrap_servers, tmp_path, unique, **options) as (publisher, heard):
        broker.suspend(1)
        numbers = Numbers(publisher, unique, padding=1000)
        async with asyncio.timeout(60):
            while not publisher.full:
                numbers.append(2)
                await asyncio.sleep(0.005)
        assert [text for kind, _, text in heard.troubles if kind == "spool"] == [
            "spool.max_bytes, 2000000, is reached; records wait in memory, as long as buffer_bytes lasts"
        ]
        assert 1_500_000 < publisher.spooled_bytes <= 2_000_000
        assert publisher.buffered_bytes >= 1_000_000
        assert heard.full == 1
        broker.resume(1)
        await settled(publisher)
        await heard.until(lambda: ("recovered", "spool", "spool is over") in heard.troubles)
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_a_directory_that_is_taken_away(own_kafka, unique, tmp_path):
    """When the files cannot be written, records wait in memory, which is told; once they can, they are written."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    directory = tmp_path / "spool"
    async with spooling(broker.bootstrap_servers, directory, unique) as (publisher, heard):
        numbers = Numbers(publisher, unique)
        broker.suspend(1)
        directory.rename(tmp_path / "away")
        numbers.append(30)
        await heard.until(lambda: "spool" in heard.kinds())
        assert f"{directory} cannot be written: No such file or directory" in heard.troubles[-1][-1]
        numbers.append(30)
        assert in_memory(publisher) == 60 * len(KEYS)
        (tmp_path / "away").rename(directory)
        await until(lambda: in_memory(publisher) == 0)
        await heard.until(lambda: ("recovered", "spool", "spool is over") in heard.troubles)
        broker.resume(1)
        await settled(publisher)
        await numbers.check(broker.bootstrap_servers)


@pytest.mark.faults
async def test_what_is_discarded_leaves_the_spool(own_kafka, unique, tmp_path):
    """A discard empties the spool too, also for the next process; what is appended later arrives."""
    broker = own_kafka()
    await create_topic(broker.bootstrap_servers, unique, 3)
    async with spooling(broker.bootstrap_servers, tmp_path, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(5)
        await settled(publisher)
        publisher.may_send = lambda: False
        numbers.append(30)
        await until(lambda: in_memory(publisher) == 0)
        assert publisher.discard() == [(unique, 30 * len(KEYS))]
        for key in KEYS:
            numbers.next[key] -= 30
        await until(lambda: publisher.spooled_bytes == 0)
        numbers.append(5)
        await until(lambda: in_memory(publisher) == 0)
        assert await publisher.stop(2) == []
    async with spooling(broker.bootstrap_servers, tmp_path, unique) as (publisher, _):
        assert publisher.recoverable() == [(unique, 5 * len(KEYS))]
        await publisher.recover(lambda _: True)
        await settled(publisher)
        await numbers.check(broker.bootstrap_servers)


async def test_what_is_recovered_goes_first(kafka, unique, tmp_path):
    """What is recovered goes before all that is queued, though something was sent already; nothing is repeated."""
    await create_topic(kafka.bootstrap_servers, unique, 3)
    async with spooling(kafka.bootstrap_servers, tmp_path, unique) as (publisher, _):
        numbers = Numbers(publisher, unique)
        numbers.append(5)
        await settled(publisher)
        publisher.may_send = lambda: False
        numbers.append(5)
        assert await publisher.stop(2) == []
    async with spooling(kafka.bootstrap_servers, tmp_path, unique) as (publisher, _):
        assert publisher.recoverable() == [(unique, 5 * len(KEYS))]
        publisher.lane(unique, b"sent").append(1, b"sent", b"")
        sending = asyncio.create_task(publisher.settle())
        await asyncio.sleep(0)
        numbers.publisher = publisher
        numbers.append(5)
        assert await publisher.recover(lambda _: True) == []
        numbers.append(5)
        await settled(publisher)
        await sending
        await numbers.check(kafka.bootstrap_servers)
        assert len(await read_all(kafka.bootstrap_servers, unique)) == 20 * len(KEYS) + 1
