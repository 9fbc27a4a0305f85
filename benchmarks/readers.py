"""What reading costs: the SDK beside what consumers are usually written with, and replay beside live.

``python benchmarks/readers.py`` starts a local Kafka and lets a bridge's pipeline and publisher fill its topics (12
partitions, zstd) with the records of :mod:`benchmarks.corpus`. Each way then reads them in a process of its own, pinned
to one core, the ways taking turns for several passes. It prints microseconds of CPU time per record or message, the
median of the passes and their spread, and ratios of the medians. Readers are measured from when they are connected.

* ``sdk``: ``async for record in client.trades(start="earliest", end="now")``, and so for the other structures;
  ``sdk-batches`` takes ``batch()`` instead.
* ``aiokafka``: ``getmany()`` and ``fastavro.schemaless_reader``, which gives dictionaries; ``librdkafka``:
  confluent-kafka's ``consume()`` with the same.
* ``replay``: the job of ``binance-bridge replay``, of all raw topics into another namespace. ``live``: a pipeline and
  publisher that are handed the same messages, several at a time, without a socket; they publish raw and unified.

The books of both wait for snapshots all the while: the corpus has none.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import uvloop

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.corpus import CHANNELS, Corpus  # noqa: E402 - the checkout comes first
from benchmarks.in_process import BEGAN_AT, WAKE_UP, made_ready  # noqa: E402
from bridge.catalogue import TopicNames, catalogue  # noqa: E402
from bridge.kafka.publisher import create_publisher  # noqa: E402
from bridge.kafka.settings import KafkaSettings  # noqa: E402
from bridge.kafka.topics import Cluster, Plan, TopicSpec, apply  # noqa: E402
from bridge.local.kafka import LocalKafka  # noqa: E402
from bridge.replay.job import ReplayProgress, ReplayRequest, replay  # noqa: E402
from bridge.schema import schemas, structure  # noqa: E402
from bridge.sdk import connect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.kafka.publisher import KafkaPublisher

PARTITIONS = 12
PER_MS = 20.0
"""Messages a millisecond: what makes a replay's window of seconds as full as a busy bridge does."""
STRUCTURES = ("trade", "bid-ask", "order-book")
HEADER_BYTES = 10
GROWTH = (10, 100, 1_000, 3_000)
READERS = ("sdk", "sdk-batches", "aiokafka", "librdkafka")
DERIVERS = ("replay", "live")

Measured = dict[str, tuple[int, float]]
"""By what was read: how many records, and the seconds of CPU time they took."""


# Live: fills the topics, and is what replay is compared with


async def live(servers: str, messages: int, symbols: int, namespace: str) -> Measured:
    """Publish the corpus as a bridge does."""
    corpus = Corpus(symbols=symbols, per_ms=PER_MS)
    payloads = [message.payload for message in corpus.messages(messages)]
    names = TopicNames("prod", namespace)
    publisher = await publisher_into(servers, names)
    pipeline, leg = made_ready(publisher, names, symbols, books=True)
    began, at = time.process_time(), BEGAN_AT
    for first in range(0, messages, WAKE_UP):
        at += int(WAKE_UP / PER_MS * 1000)
        pipeline.receive(leg, at, payloads[first : first + WAKE_UP])
        if publisher.buffered_bytes > publisher.limit_bytes // 2:
            await publisher.wait_below(0.25)
        await asyncio.sleep(0)
    pipeline.drain()
    await publisher.settle()
    spent = time.process_time() - began
    await publisher.stop(60)
    return {"messages": (messages, spent)}


async def publisher_into(servers: str, names: TopicNames) -> KafkaPublisher:
    """Return a publisher that knows the topics of a namespace, which are created."""
    settings = KafkaSettings(bootstrap_servers=servers)
    raw = [channel.partition("_")[0].partition("@")[0] for channel in CHANNELS]
    unified = [name for name, schema in schemas().items() if schema.unified]
    topics = [*(names.raw("spot", c) for c in (*raw, "api")), *(names.unified(s) for s in unified)]
    topics += [names.of(family) for family in ("gaps", "dead-letter")]
    topics += [names.state(s) for s in catalogue().topics.state]
    async with Cluster(settings) as cluster:
        await apply(Plan(create=tuple(TopicSpec(topic, PARTITIONS, 1) for topic in topics)), cluster)
    publisher = create_publisher(settings)
    await publisher.start()
    await publisher.refresh(topics)
    return publisher


async def replayed(servers: str, into: str) -> Measured:
    """Replay all that there is; what it takes to begin is not counted, for live it is not either."""
    settings = KafkaSettings(bootstrap_servers=servers)
    request = ReplayRequest(environment="prod", into=into, markets=("spot",))
    began: list[float] = []

    def note(_: ReplayProgress) -> None:
        if not began:
            began.append(time.process_time())

    done = await replay(settings, request, partitions=PARTITIONS, replication_factor=1, on_progress=note)
    messages = done.read - 1  # one is the answer about instruments
    return {"messages": (messages, time.process_time() - began[0])}


# Readers


async def by_sdk(servers: str, *, batches: bool) -> Measured:
    """Read typed records."""
    found: Measured = {}
    async with connect(servers, environment="prod") as client:
        for name in STRUCTURES:
            records = await client.records(name, start="earliest", end="now").ready()
            count, began = 0, time.process_time()
            if batches:
                while batch := await records.batch():
                    for _ in batch:
                        count += 1
            else:
                async for _ in records:
                    count += 1
            found[name] = (count, time.process_time() - began)
    return found


async def by_aiokafka(servers: str) -> Measured:
    """Read dictionaries."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    decode, found = dictionaries(), {}
    for name in STRUCTURES:
        places = [TopicPartition(TopicNames("prod").unified(name), number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        await consumer.start()
        ends = await consumer.end_offsets(places)
        left = sum(ends.values())
        count, began = 0, time.process_time()
        consumer.assign(places)
        await consumer.seek_to_beginning()
        while left:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                left -= len(batch)
                for message in batch:
                    decode(name, message.value)
                    count += 1
        await consumer.stop()
        found[name] = (count, time.process_time() - began)
    return found


def by_librdkafka(servers: str) -> Measured:
    """Read dictionaries by confluent-kafka."""
    from confluent_kafka import Consumer, TopicPartition

    decode, found = dictionaries(), {}
    for name in STRUCTURES:
        topic = TopicNames("prod").unified(name)
        consumer = Consumer(
            {"bootstrap.servers": servers, "group.id": "benchmark", "enable.auto.commit": False}
        )
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        left = sum(consumer.get_watermark_offsets(place)[1] for place in places)
        count, began = 0, time.process_time()
        consumer.assign(places)
        while left:
            batch = consumer.consume(1000, 0.5)
            left -= len(batch)
            for message in batch:
                decode(name, message.value())
                count += 1
        consumer.close()
        found[name] = (count, time.process_time() - began)
    return found


def dictionaries() -> Callable[[str, bytes], Any]:
    """Return what decodes a value of a structure as fastavro does."""
    from fastavro import parse_schema, schemaless_reader

    parsed = {name: parse_schema(structure(name).text) for name in STRUCTURES}

    def decode(name: str, value: bytes) -> Any:
        return schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), parsed[name])

    return decode


# The comparison


def work(way: str, arguments: argparse.Namespace) -> Measured:
    """Do one way's work in this process."""
    servers, namespace = arguments.servers, arguments.namespace
    if way == "live":
        return uvloop.run(live(servers, arguments.messages, arguments.symbols, namespace))
    if way == "replay":
        return uvloop.run(replayed(servers, namespace))
    if way == "librdkafka":
        return by_librdkafka(servers)
    if way == "aiokafka":
        return asyncio.run(by_aiokafka(servers))
    return asyncio.run(by_sdk(servers, batches=way == "sdk-batches"))


def measured(way: str, servers: str, arguments: argparse.Namespace, namespace: str) -> Measured:
    """Return what a process of its own found, pinned to one core."""
    command = [
        sys.executable, __file__, "--way", way, "--servers", servers, "--namespace", namespace,
        "--messages", str(arguments.messages), "--symbols", str(arguments.symbols), "--core", str(arguments.core),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def passes_of(arguments: argparse.Namespace) -> list[dict[str, Measured]]:
    """Fill a Kafka and measure every way in turn."""
    with LocalKafka() as kafka:
        servers = kafka.bootstrap_servers
        measured("live", servers, arguments, "binance")
        ways = ways_of(arguments)
        passes: list[dict[str, Measured]] = []
        for number in range(arguments.passes):
            turn = ways if number % 2 == 0 else ways[::-1]
            passes.append({way: measured(way, servers, arguments, f"{way}-{number}") for way in turn})
    return passes


def ways_of(arguments: argparse.Namespace) -> list[str]:
    """Return the ways that are asked for."""
    return [way for way in (*READERS, *DERIVERS) if arguments.only is None or way in arguments.only]


def growth_table(arguments: argparse.Namespace) -> str:
    """Return what a record or message costs, µs of CPU time, by the number of symbols."""
    found: dict[tuple[str, str], list[str]] = {}
    grown = GROWTH[: arguments.points]
    for symbols in grown:
        arguments.symbols = symbols
        passes = passes_of(arguments)
        for way in ways_of(arguments):
            for what in passes[0][way]:
                middle = median(cost(one[way][what]) for one in passes)
                found.setdefault((what, way), []).append(f"{middle:.1f}")
    lines = [
        "| what | way | " + " | ".join(f"{symbols:,} symbols" for symbols in grown) + " |",
        "| --- " * (2 + len(grown)) + "|",
        *(f"| {what} | {way} | {' | '.join(costs)} |" for (what, way), costs in sorted(found.items())),
    ]
    return "\n".join(lines)


def tables(arguments: argparse.Namespace) -> str:
    """Measure every way in turn, and return the tables."""
    passes, ways = passes_of(arguments), ways_of(arguments)
    found: list[str] = []
    for what, unit, base in [(name, "record", "aiokafka") for name in STRUCTURES] + [
        ("messages", "message", "live")
    ]:
        shown = [way for way in ways if what in passes[0][way]]
        costs = {way: [cost(one[way][what]) for one in passes] for way in shown}
        if costs:
            found.append(table(f"{what}, {passes[0][shown[0]][what][0]:,}", unit, costs, base))
    return "\n\n".join(found)


def cost(found: Sequence[float]) -> float:
    """Return microseconds per record."""
    count, seconds = found
    return seconds / count * 1e6


def table(title: str, unit: str, costs: dict[str, list[float]], base: str) -> str:
    """Return the ways' medians and spreads, and how many times the base's speed each has."""
    lines = [
        f"| {title} | µs a {unit} | least, most | {unit}s a CPU second | × {base} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way, found in costs.items():
        middle = median(found)
        ratio = f"{median(costs[base]) / middle:.2f}" if base in costs else "-"
        spread = f"{min(found):.2f}, {max(found):.2f}"
        lines.append(f"| {way} | {middle:.2f} | {spread} | {1e6 / middle:,.0f} | {ratio} |")
    return "\n".join(lines)


def arguments_of(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--symbols", type=int, default=400)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="by the number of symbols instead")
    parser.add_argument("--points", type=int, help="the first so many numbers of symbols")
    parser.add_argument("--only", nargs="+", choices=(*READERS, *DERIVERS), help="measure these ways alone")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="where the ways run")
    parser.add_argument("--way", choices=(*READERS, *DERIVERS), help=argparse.SUPPRESS)
    parser.add_argument("--servers", help=argparse.SUPPRESS)
    parser.add_argument("--namespace", help=argparse.SUPPRESS)
    return parser.parse_args(command_line)


def main() -> None:
    """Do one way's work, or start a Kafka and compare."""
    arguments = arguments_of()
    if arguments.way:
        os.sched_setaffinity(0, {arguments.core})
        print(json.dumps(work(arguments.way, arguments)))
        return
    print(growth_table(arguments) if arguments.growth else tables(arguments))


if __name__ == "__main__":
    main()
