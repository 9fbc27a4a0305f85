"""What transactions cost: CPU per record, and how much later a ``read_committed`` reader has it, by commit interval.

``python benchmarks/transactions.py`` starts a local Kafka and sends at a fixed rate, by the plain publisher and by the
transactional one at several intervals, all in one run. The reader is a process of its own. ``--rate`` and ``--seconds``
change how much.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import uvloop
from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bridge.kafka.publisher import KafkaPublisher, create_publisher  # noqa: E402 - the checkout comes first
from bridge.kafka.settings import KafkaSettings  # noqa: E402
from bridge.kafka.transactional_publisher import TransactionalPublisher  # noqa: E402
from bridge.local.kafka import LocalKafka  # noqa: E402
from bridge.model import Header  # noqa: E402
from tests.kafka.cluster import create_topic  # noqa: E402

PARTITIONS = 12
KEYS = [b"SYM%dUSDT" % number for number in range(400)]
HEADERS = (Header("schema", b"\x00" * 8), Header("run-id", b"live"))
PADDING = os.urandom(260)
TICK = 0.01


class Figures(NamedTuple):
    """What one way of sending came to: records per second of CPU, and milliseconds until the reader had them."""

    per_cpu_second: float
    median_ms: float
    late_ms: float


async def measure(
    make: Callable[[], KafkaPublisher], servers: str, topic: str, rate: int, seconds: float
) -> Figures:
    """Send for a while, and read along in another process."""
    await create_topic(servers, topic, PARTITIONS)
    publisher = make()
    await publisher.start(timeout=60)
    await publisher.refresh([topic])
    for number in range(2000):  # connections, caches, the consumer's first look
        _append(publisher, topic, number)
    await publisher.settle()
    count = int(rate * seconds)
    reader = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--read", servers, topic, str(count), stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    await reader.stdout.readline()
    began, cpu, sent = time.monotonic(), time.process_time(), 0
    while sent < count:
        due = min(count, int((time.monotonic() - began) * rate))
        for number in range(sent, due):
            _append(publisher, topic, number)
        sent = due
        await asyncio.sleep(TICK)
    await publisher.settle()
    cpu = time.process_time() - cpu
    middle, late = (await reader.stdout.readline()).split()
    await reader.wait()
    await publisher.stop(10)
    return Figures(count / cpu, float(middle), float(late))


def _append(publisher: KafkaPublisher, topic: str, number: int) -> None:
    key = KEYS[number % len(KEYS)]
    now = time.time_ns()
    publisher.lane(topic, key).append(now // 1_000_000, key, now.to_bytes(8, "big") + PADDING, HEADERS)


def read(servers: str, topic: str, count: int) -> None:
    """Print median and 99th percentile, in milliseconds, of how long after their append records were read."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
        }
    )
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place)[1]
    consumer.assign(places)
    consumer.consume(1, 1)
    print("ready", flush=True)
    delays: list[float] = []
    while len(delays) < count:
        messages = consumer.consume(1000, 0.01)
        now = time.time_ns()
        delays += [(now - int.from_bytes(message.value()[:8], "big")) / 1e6 for message in messages]
    delays.sort()
    print(median(delays), delays[len(delays) * 99 // 100], flush=True)
    consumer.close()


async def compare(servers: str, rate: int, seconds: float) -> None:
    """Measure each way once and print the table."""
    plain = KafkaSettings(bootstrap_servers=servers)
    ways: dict[str, Callable[[], KafkaPublisher]] = {
        "plain (aiokafka)": lambda: create_publisher(plain),
        "plain (librdkafka)": lambda: create_publisher(
            KafkaSettings(bootstrap_servers=servers, client="librdkafka")
        ),
    }
    for interval in (50, 100, 250, 1000):
        ways[f"{interval} ms"] = lambda interval=interval: TransactionalPublisher(  # type: ignore[misc]
            plain, transactional_id=f"benchmark-{interval}", interval_ms=interval
        )
    await measure(ways["plain (aiokafka)"], servers, "warm-up", rate, min(seconds, 3))
    found: dict[str, Figures] = {}
    for number, (name, make) in enumerate(ways.items()):
        found[name] = await measure(make, servers, f"way-{number}", rate, seconds)
    base = found["plain (aiokafka)"]
    print(f"{rate} records/s for {seconds:g} s; ratios to plain (aiokafka)")
    print("| way | records per CPU second | ratio | median ms | added | 99 % ms | added |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, one in found.items():
        print(
            f"| {name} | {one.per_cpu_second:,.0f} | {one.per_cpu_second / base.per_cpu_second:.2f} "
            f"| {one.median_ms:.0f} | {one.median_ms - base.median_ms:+.0f} "
            f"| {one.late_ms:.0f} | {one.late_ms - base.late_ms:+.0f} |"
        )


def main() -> None:
    """Read along, or start a Kafka and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--read", nargs=3, metavar=("SERVERS", "TOPIC", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        servers, topic, count = arguments.read
        read(servers, topic, int(count))
        return
    with LocalKafka() as kafka:
        uvloop.run(compare(kafka.bootstrap_servers, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
