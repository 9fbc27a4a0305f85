"""How long after a frame was sent its raw record can be read (``read_uncommitted``), at a steady rate."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.frames import loaded, unframed
from benchmarks.measure import Client, FailedError, Load, Run, begun

if TYPE_CHECKING:
    from pathlib import Path

RATE = 15_000
_WARM_SECONDS = 14.0
_LAST_SECONDS = 15.0
_PAYLOAD = b'{"stream":"'


class Latency(NamedTuple):
    """Milliseconds from the frame's sending to the record's reading.

    Attributes:
        client: whose.
        p50, p99, worst: of them.
        records: how many were found.
        samples: all of them, in order of sending.
    """

    client: str
    p50: float
    p99: float
    worst: float
    records: int
    samples: list[float]


def latency(client: Client, load: Load, directory: Path) -> Latency:
    """Do one paced run."""
    with ExitStack() as stack:
        run = begun(stack, client, load, directory)
        arrivals = _read(run)
        log = directory / "sent.csv"
        run.firehose.ask(f"log {log}")
        sent = _sent(log)
        frames = loaded(load.frames, run.firehose.now_ms)
    numbers = {
        unframed(frame): number for number, (_, frame) in enumerate(frames.each()) if number < len(sent)
    }
    began = sent[0] + int(_WARM_SECONDS * 1e6)
    samples = []
    for arrived, value in arrivals:
        number = numbers.get(value[value.index(_PAYLOAD) :])
        if number is not None and sent[number] >= began:
            samples.append((arrived - sent[number]) / 1000)
    if len(samples) < 2:
        raise FailedError("no record was read of what was sent after the warm-up")
    cuts = statistics.quantiles(samples, n=100)
    return Latency(client.name, cuts[49], cuts[98], max(samples), len(samples), samples)


def _sent(log: Path) -> list[int]:
    """Return when each message was sent, microseconds."""
    times: list[int] = []
    for line in log.read_text().splitlines():
        micros, upto = map(int, line.split(","))
        times += [micros] * (upto - len(times))
    return times


def _read(run: Run) -> list[tuple[int, bytes]]:
    """Send everything; return when which raw value was read."""
    consumer = Consumer(
        {
            "bootstrap.servers": run.place.bootstrap_servers,
            "group.id": "latency",
            "isolation.level": "read_uncommitted",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "fetch.min.bytes": 1,
        }
    )
    try:
        topics = consumer.list_topics(timeout=30).topics
        consumer.assign(
            [
                TopicPartition(name, number, OFFSET_BEGINNING)
                for name, topic in topics.items()
                if run.launch.raw and name.startswith(run.launch.raw)
                for number in topic.partitions
            ]
        )
        consumer.consume(1, 1.0)
        run.start()
        found: list[tuple[int, bytes]] = []
        quiet, status = time.monotonic() + _LAST_SECONDS, {"sent": 0, "planned": 1}
        while time.monotonic() < quiet or status["sent"] < status["planned"]:
            messages = consumer.consume(2000, 0.001)
            if messages:
                now = time.time_ns() // 1000
                found += [(now, value) for m in messages if (value := m.value()) and _PAYLOAD in value]
                quiet = time.monotonic() + _LAST_SECONDS
            elif time.monotonic() > quiet - _LAST_SECONDS / 2:
                run.process.require_alive()
                status = run.firehose.ask("status")
        return found
    finally:
        consumer.close()
