"""What a message costs from the socket's callback to a sealed batch, without sockets and Kafka, for development.

``python benchmarks/hot_path.py`` prints CPU time per message, the least of several passes. ``--instructions`` counts
instructions by valgrind instead: the same work always gives the same count, whatever else the machine does, so a change
of one per cent shows. ``--kinds`` tells each kind of message by itself; ``--profile`` says in which functions time
goes.

The market is :mod:`benchmarks.corpus`; everything that a bridge switches on by default is on: raw and unified records,
sequence checks, exact decimals, standings, counts, zstd.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.corpus import CHANNELS, SUFFIXES, Corpus  # noqa: E402 - the checkout comes first
from benchmarks.in_process import BEGAN_AT, WAKE_UP, made_ready  # noqa: E402
from bridge.catalogue import TopicNames  # noqa: E402
from bridge.kafka.outbox import BatchFormat, Buffer, Outbox  # noqa: E402
from bridge.kafka.partitioner import partition_for  # noqa: E402
from bridge.kafka.settings import KafkaSettings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.structs import TopicPartition

    from bridge.model import Leg
    from bridge.pipeline import Pipeline

PARTITIONS = 12
MESSAGES = 100_000
COUNTED = 10_000
COUNTED_SYMBOLS = 40
WARM_UP = 30_000
"""Messages before the counted ones: of 40 symbols so many show most of the numbers that come again."""


class Broker:
    """A publisher whose broker acknowledges every batch as soon as it is sealed."""

    def __init__(self) -> None:
        settings = KafkaSettings(bootstrap_servers="none")
        self._format = BatchFormat(settings.batch_bytes, settings.compression)
        self._buffer = Buffer(settings.buffer_bytes)
        self._outboxes: dict[tuple[str, int], Outbox] = {}

    @property
    def buffered_bytes(self) -> int:
        """Bytes in open batches."""
        return self._buffer.bytes

    def lane(self, topic: str, key: bytes) -> Outbox:
        """Return the lane of a key."""
        place = (topic, partition_for(key, PARTITIONS))
        if place not in self._outboxes:
            self._outboxes[place] = Outbox(
                self._place(*place), self._format, self._buffer, on_open=_ignore, on_sealed=self._sealed
            )
        return self._outboxes[place]

    @staticmethod
    def _place(topic: str, partition: int) -> TopicPartition:
        from aiokafka.structs import TopicPartition

        return TopicPartition(topic, partition)

    @staticmethod
    def _sealed(outbox: Outbox) -> None:
        while outbox.sealed:
            outbox.acknowledge()


def _ignore(outbox: Outbox) -> None:
    del outbox


def wake_ups(payloads: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Return the messages as they come: several at a time."""
    return [payloads[at : at + WAKE_UP] for at in range(0, len(payloads), WAKE_UP)]


def run(pipeline: Pipeline, leg: Leg, batches: Sequence[Sequence[bytes]]) -> float:
    """Push messages through; return the seconds of CPU time it took."""
    began, received_at = time.process_time(), BEGAN_AT
    for batch in batches:
        received_at += 250
        pipeline.receive(leg, received_at, batch)
    return time.process_time() - began


def payloads_of(count: int, symbols: int, suffix: str | None = None) -> list[bytes]:
    """Return messages of the corpus, of one kind where ``suffix`` names it."""
    found: list[bytes] = []
    corpus = Corpus(symbols=symbols)
    while len(found) < count:
        found += [m.payload for m in corpus.messages(count) if suffix is None or m.stream.endswith(suffix)]
    return found[:count]


def timed(count: int, symbols: int, passes: int, suffix: str | None = None) -> float:
    """Return microseconds of CPU time per message, the least of several passes after a warm-up."""
    pipeline, leg = made_ready(Broker(), TopicNames("prod"), symbols)
    payloads = payloads_of(count * (passes + 1), symbols, suffix)
    gc.collect()
    gc.freeze()
    figures = []
    for number in range(passes + 1):
        batches = wake_ups(payloads[number * count : (number + 1) * count])
        figures.append(run(pipeline, leg, batches) / count * 1e6)
    return min(figures[1:])


def counted(symbols: int, suffix: str | None = None) -> float:
    """Return instructions per message: what so many more messages add to a run."""
    with tempfile.NamedTemporaryFile() as corpus:
        corpus.write(b"\n".join(payloads_of(WARM_UP + COUNTED, symbols, suffix)))
        corpus.flush()
        few, many = (_instructions(number, symbols, corpus.name) for number in (WARM_UP, WARM_UP + COUNTED))
    return (many - few) / COUNTED


def _instructions(count: int, symbols: int, corpus: str) -> int:
    command = [
        "valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
        sys.executable, __file__, "--once", corpus, "--messages", str(count), "--symbols", str(symbols),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def once(corpus: Path, count: int, symbols: int) -> None:
    """Push the first ``count`` messages of a file through."""
    pipeline, leg = made_ready(Broker(), TopicNames("prod"), symbols)
    run(pipeline, leg, wake_ups(corpus.read_bytes().split(b"\n")[:count]))


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=MESSAGES, help="of a pass")
    parser.add_argument("--symbols", type=int, default=400)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        once(asked.once, asked.messages, asked.symbols)
    elif asked.instructions and asked.kinds:
        for channel, suffix in zip(CHANNELS, SUFFIXES, strict=True):
            print(f"{channel:>12} {counted(COUNTED_SYMBOLS, suffix):9,.0f} instructions a message")
    elif asked.instructions:
        print(f"{counted(COUNTED_SYMBOLS):,.0f} instructions a message")
    elif asked.kinds:
        for channel, suffix in zip(CHANNELS, SUFFIXES, strict=True):
            print(f"{channel:>12} {timed(20_000, asked.symbols, asked.passes, suffix):6.2f} µs a message")
    elif asked.profile:
        pipeline, leg = made_ready(Broker(), TopicNames("prod"), asked.symbols)
        batches = wake_ups(payloads_of(asked.messages, asked.symbols))
        profile = cProfile.Profile()
        profile.runcall(run, pipeline, leg, batches)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    else:
        print(f"{timed(asked.messages, asked.symbols, asked.passes):.2f} µs of CPU time a message")


if __name__ == "__main__":
    main()
