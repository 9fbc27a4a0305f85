"""How long after a frame was sent, and received, its raw record can be read (``read_uncommitted``), at a steady rate.

One partition of each topic is read, so that what the reader and the broker spend on reading stays small beside what is
measured: they share a core with the firehose. Keys are spread by hash, so a partition is a fair sample.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.frames import loaded, unframed
from benchmarks.measure import Client, FailedError, Load, Run, begun
from benchmarks.ours import Ours
from bridge.core.wire import Decoder
from bridge.schema import schemas

if TYPE_CHECKING:
    from pathlib import Path

RATE = 15_000
_WARM_SHARE = 0.5
_STILL_SECONDS = 1.5
_LAST_SECONDS = 15.0  # what has not come by then does not come: a busy machine halts a client for seconds
_PAYLOAD = b'{"stream":"'
_PARTITION = 0


class Latency(NamedTuple):
    """Milliseconds from the frame's sending to the record's reading.

    Attributes:
        client: whose.
        p50, p99, worst: of them.
        received_p50, received_p99: the same from the frame's receipt, which our raw records tell; None of others.
        records: how many were found.
        samples: all of them, in order of sending.
    """

    client: str
    p50: float
    p99: float
    worst: float
    received_p50: float | None
    received_p99: float | None
    records: int
    samples: list[float]


def latency(client: Client, load: Load, directory: Path) -> Latency:
    """Do one paced run; what was sent in its first half warms up."""
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
    began = sent[int(len(sent) * _WARM_SHARE)]
    found = [
        (arrived, sent[number], value)
        for arrived, value in arrivals
        if (number := numbers.get(value[value.index(_PAYLOAD) :])) is not None and sent[number] >= began
    ]
    if len(found) < 2:
        raise FailedError("no record was read of what was sent after the warm-up")
    samples = [(arrived - at) / 1000 for arrived, at, _ in found]
    p50, p99 = _percentiles(samples)
    received = _percentiles(_since_receipt(found)) if isinstance(client, Ours) else (None, None)
    return Latency(client.name, p50, p99, max(samples), *received, len(samples), samples)


def _percentiles(samples: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(samples, n=100)
    return cuts[49], cuts[98]


def _since_receipt(found: list[tuple[int, int, bytes]]) -> list[float]:
    """Return milliseconds from ``receivedAt`` of our raw records to their reading."""
    decode = Decoder(schemas().values()).decode
    return [(arrived - decode(value)["receivedAt"]) / 1000 for arrived, _, value in found]


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
                TopicPartition(name, _PARTITION, OFFSET_BEGINNING)
                for name in topics
                if run.launch.raw and name.startswith(run.launch.raw)
            ]
        )
        consumer.consume(1, 1.0)
        run.start()
        found: list[tuple[int, bytes]] = []
        last = time.monotonic()
        while True:
            messages = consumer.consume(2000, 0.001)
            if messages:
                now, last = time.time_ns() // 1000, time.monotonic()
                found += [(now, value) for m in messages if (value := m.value()) and _PAYLOAD in value]
            elif (still := time.monotonic() - last) > _STILL_SECONDS:
                run.process.require_alive()
                status = run.firehose.ask("status")
                whole = status["sent"] >= status["planned"]
                if whole and (still > _LAST_SECONDS or run.sample().raw >= status["sent"]):
                    return found
    finally:
        consumer.close()
