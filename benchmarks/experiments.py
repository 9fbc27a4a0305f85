"""What else is measured of our bridge: its start, its memory, and how both grow."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.corpus import CHANNELS
from benchmarks.frames import prepared
from benchmarks.latency import latency
from benchmarks.measure import FailedError, Figures, Load, begun, measured
from benchmarks.ours import Ours

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

FIVE = CHANNELS[:5]
"""The channels of the memory's measurement."""
MEMORY_SYMBOLS, MEMORY_RATE = 1_500, 2_000
_POLL_SECONDS = 0.02
_COLD_RATE, _COLD_MESSAGES = 5_000, 50_000


class ColdStart(NamedTuple):
    """From the process's start to the first record in Kafka."""

    symbols: int
    wall_seconds: float
    cpu_seconds: float
    subscribed_seconds: float


def cold_start(build: Path, symbols: int = 400) -> ColdStart:
    """Start a bridge with messages flowing as soon as all streams are subscribed to."""
    frames = prepared(build / "corpus", symbols=symbols, count=_COLD_MESSAGES)
    load = Load(frames, symbols, _COLD_RATE)
    with ExitStack() as stack:
        run = begun(stack, Ours("ours"), load, build / "runs/cold-start", settled=False)
        began = run.process.started_at
        subscribed = time.monotonic() - began
        run.start()
        while True:
            run.topics.look()
            now = run.sample()
            if now.raw:
                return ColdStart(symbols, now.wall - began, now.cpu, subscribed)
            time.sleep(_POLL_SECONDS)


class Memory(NamedTuple):
    """Resident memory at a time after the first message."""

    seconds: float
    mib: float


def memory(build: Path, seconds: float) -> Iterator[Memory]:
    """Yield resident memory over time, of 1,500 symbols and five channels at 2,000 messages a second."""
    count = int(seconds * MEMORY_RATE)
    frames = prepared(build / "corpus", symbols=MEMORY_SYMBOLS, count=count)
    with ExitStack() as stack:
        client = Ours("ours", channels=FIVE)
        run = begun(stack, client, Load(frames, MEMORY_SYMBOLS, MEMORY_RATE), build / "runs/memory")
        began = time.monotonic()
        yield Memory(0.0, run.process.memory_bytes() / (1 << 20))
        run.start()
        while (elapsed := time.monotonic() - began) < seconds:
            time.sleep(max(1.0, seconds / 60))
            run.process.require_alive()
            yield Memory(elapsed, run.process.memory_bytes() / (1 << 20))


class Growth(NamedTuple):
    """A point of a curve.

    Attributes:
        of: what grows: ``shards``, ``symbols`` or ``rate``.
        value: how far.
        figures: the run's.
        p50, p99: added latency in ms; None where it was not measured.
    """

    of: str
    value: int
    figures: Figures
    p50: float | None = None
    p99: float | None = None


GROWS = ("shards", "symbols", "rate")
SHARDS = (1, 2, 4, 8)
SYMBOLS = (10, 30, 100, 300, 1_000, 3_000)
RATES = (1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 70_000, 100_000)
_STEADY_RATE = 10_000
_CORPORA = (100_000, 500_000, 1_000_000)
"""Sizes, so that runs share them; the firehose sends no more than there is."""


def growth(
    build: Path, wanted: Collection[str], seconds: int, latency_seconds: int, points: int | None = None
) -> Iterator[Growth]:
    """Yield how CPU, memory and latency grow with what is wanted of :data:`GROWS`.

    Args:
        build: where corpora and runs are kept.
        wanted: which curves.
        seconds: of a run.
        latency_seconds: of one that measures latency, its warm-up included.
        points: the first so many of each curve; None for all.
    """
    plan = [
        *(("shards", value, value, 400, _STEADY_RATE) for value in SHARDS[:points]),
        *(("symbols", value, 1, value, _STEADY_RATE) for value in SYMBOLS[:points]),
        *(("rate", value, 1, 400, value) for value in RATES[:points]),
    ]
    for of, value, processes, symbols, rate in plan:
        if of not in wanted:
            continue
        client = Ours(f"{value} {of}", processes=processes)
        most = max(seconds, latency_seconds) * rate
        corpus = next((count for count in _CORPORA if count >= most), _CORPORA[-1])
        frames = prepared(build / "corpus", symbols=symbols, count=corpus)
        load = Load(frames, symbols, rate, seconds * rate)
        directory = build / "runs/growth"
        try:
            figures = measured(client, load, directory)
        except FailedError as error:
            print(f"{client.name}: {error}", flush=True)
            continue
        found = None
        if of == "rate":
            longer = Load(frames, symbols, rate, latency_seconds * rate)
            try:
                found = latency(client, longer, directory)
            except FailedError as error:  # such as one that is behind from the start
                print(f"{client.name}, latency: {error}", flush=True)
        yield Growth(of, value, figures, found and found.p50, found and found.p99)
