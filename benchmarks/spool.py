"""What the spool costs: a minute of 20,000 messages/s, two records each, while Kafka is away, and how fast it drains.

``python benchmarks/spool.py`` starts a local Kafka, freezes it, appends 2.4 million records as fast as they go (400
symbols, a raw and a unified record each, over 24 partitions), and prints bytes on disk, memory, how long the event
loop stood still at most, and the drain rate once Kafka is back. ``--seconds`` changes how much, ``--rate 20000``
appends in real time, ``--directory`` says where the files go.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bridge.kafka.aiokafka_publisher import AiokafkaPublisher  # noqa: E402 - the checkout comes first
from bridge.kafka.publisher import Hooks  # noqa: E402
from bridge.kafka.settings import KafkaSettings, SpoolSettings  # noqa: E402
from bridge.local.kafka import LocalKafka  # noqa: E402
from tests.kafka.cluster import create_topic  # noqa: E402

MESSAGES_PER_SECOND = 20_000
SYMBOLS = [f"SYM{number}USDT".encode() for number in range(400)]
TOPICS = {"raw": 12, "unified": 12}


def memory_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def until(condition: Callable[[], object]) -> None:
    """Return once ``condition()`` holds."""
    while not condition():  # noqa: ASYNC110 - nobody tells when it holds
        await asyncio.sleep(0.002)


class LoopLag:
    """How long the event loop stood still at most, in seconds, since the last look."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - began - 0.005)

    def look(self) -> float:
        """Return the worst so far and begin anew."""
        worst, self.worst = self.worst, 0.0
        return worst


def messages() -> list[tuple[bytes, bytes, bytes]]:
    """Return key, raw and unified value of messages that compress about as real trades do."""
    chance = random.Random(1)
    made = []
    for _ in range(20_000):
        symbol = chance.choice(SYMBOLS)
        trade, price, amount = chance.randrange(10**10), chance.random() * 1e5, chance.random()
        raw = b'{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%.8f","q":"%.8f","T":%d,"m":true,"M":true}' % (
            1_790_000_000_000 + chance.randrange(10**6), symbol, trade, price, amount, chance.randrange(10**12),
        )  # fmt: skip
        unified = symbol + chance.randbytes(60) + bytes(60)
        made.append((symbol, raw + bytes(80), unified))
    return made


async def append(publisher: AiokafkaPublisher, seconds: int, rate: int, lag: LoopLag) -> None:
    """Append the messages of so many seconds, a thousandth of them at a time."""
    lanes = {(topic, key): publisher.lane(topic, key) for topic in TOPICS for key in SYMBOLS}
    made = messages()
    began, cpu, now_ms, slowest = time.perf_counter(), time.process_time(), int(time.time() * 1000), 0.0
    total = seconds * MESSAGES_PER_SECOND
    done = 0
    while done < total:
        step_began = time.perf_counter()
        for key, raw, unified in made[done % len(made) : done % len(made) + 200]:
            lanes["raw", key].append(now_ms, key, raw)
            lanes["unified", key].append(now_ms, key, unified)
        done += 200
        slowest = max(slowest, time.perf_counter() - step_began)
        ahead = done / rate - (time.perf_counter() - began) if rate else 0.0
        await asyncio.sleep(max(ahead, 0.0))
        await until(lambda: not publisher.full)
    took = time.perf_counter() - began
    cpu = time.process_time() - cpu
    print(f"appended {2 * total:,} records in {took:.1f} s, {2 * total / took:,.0f} a second, ", end="")
    print(f"{cpu / total / 2 * 1e6:.1f} µs of CPU time each; ", end="")
    print(
        f"200 messages took at most {slowest * 1000:.0f} ms, the loop stood still at most {lag.look() * 1000:.0f} ms"
    )


async def measure(seconds: int, rate: int, directory: Path) -> None:
    """Run it all and print the figures."""
    with LocalKafka() as broker:
        for topic, partitions in TOPICS.items():
            await create_topic(broker.bootstrap_servers, topic, partitions)
        delivered = 0

        def on_delivered(_topic: str, records: int, *_: object) -> None:
            nonlocal delivered
            delivered += records

        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        publisher = AiokafkaPublisher(
            settings, Hooks(on_delivered=on_delivered), spool=SpoolSettings(directory=directory)
        )
        await publisher.start()
        await publisher.refresh(TOPICS)
        lag = LoopLag()
        before = memory_mib()
        broker.suspend(1)
        await append(publisher, seconds, rate, lag)
        outboxes = publisher._outboxes.values()  # noqa: SLF001 - nothing public tells how many batches there are
        await until(lambda: all(outbox.queued == outbox.stored for outbox in outboxes))
        batches = sum(len(outbox.sealed) for outbox in outboxes)
        print(f"on disk {publisher.spooled_bytes / 2**20:,.0f} MiB in {batches:,} batches, ", end="")
        print(f"{publisher.spooled_bytes / (2 * seconds * MESSAGES_PER_SECOND):.0f} bytes a record")
        print(f"memory {before:.0f} MiB before, {memory_mib():.0f} MiB now; ", end="")
        print(f"counted against buffer_bytes {publisher.buffered_bytes / 2**20:.1f} MiB")
        lag.look()
        broker.resume(1)
        await until(lambda: delivered)
        began, cpu, first = time.perf_counter(), time.process_time(), delivered
        await publisher.settle()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        drained = delivered - first
        print(f"drained {delivered:,} records in {took:.1f} s, {drained / took:,.0f} a second, ", end="")
        print(f"{cpu / drained * 1e6:.1f} µs of CPU time each; ", end="")
        print(f"the loop stood still at most {lag.look() * 1000:.0f} ms; memory {memory_mib():.0f} MiB")
        await publisher.stop(10)
        lag.task.cancel()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=0, help="messages a second; 0 for as fast as they go")
    parser.add_argument("--directory", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        uvloop.run(measure(chosen.seconds, chosen.rate, chosen.directory or Path(temporary)))


if __name__ == "__main__":
    main()
