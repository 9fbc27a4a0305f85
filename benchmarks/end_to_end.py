"""From a WebSocket to Kafka: the bridge beside its peers and the limit, in one run.

``python benchmarks/end_to_end.py`` compares all of them in three interleaved passes, measures added latency and writes
``build/benchmarks/report.md``. ``--quick`` is the bridge and the limit alone, some seconds each; ``--only`` names rows.
What takes long is asked for: ``--exactly-once``, ``--cold-start``, ``--memory``, ``--growth``, ``--readers`` (the SDK
and replay, :mod:`benchmarks.readers`), or ``--all`` of it. With few ``--messages`` and ``--seconds`` it only shows that
it works.

Peers are installed below ``build/benchmarks`` when they are first needed; that wants ``go`` and ``python3.13``. The
market is :mod:`benchmarks.corpus`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import experiments, peers, readers, report  # noqa: E402 - the checkout comes first
from benchmarks.frames import prepared  # noqa: E402
from benchmarks.latency import RATE, latency  # noqa: E402
from benchmarks.measure import CLIENT_CORE, SERVERS_CORE, Client, FailedError, Load, measured  # noqa: E402
from benchmarks.ours import Ours, exactly_once  # noqa: E402

BUILD = ROOT / "build/benchmarks"
COMMIT_INTERVALS_MS = (50, 100, 250, 1_000)
_LATENCY_SECONDS, _GROWTH_SECONDS = 30, 12
_GROWTH_MESSAGES = 50_000


class Row(NamedTuple):
    """A client and its load.

    Attributes:
        client: the client.
        messages: how many it is given: some seconds' worth.
        rate: messages a second where it is paced, as it gives no backpressure.
        warm_seconds: how long it may warm up.
    """

    client: Client
    messages: int
    rate: float = 0.0
    warm_seconds: float = 0.0


def rows() -> list[Row]:
    """Return what to compare; the first is the base of ratios."""
    return [
        Row(Ours("ours, picows", "picows"), 1_000_000),
        Row(Ours("ours, websockets", "websockets"), 1_000_000),
        *(Row(client, 1_000_000) for client in peers.limits()),
        Row(peers.Go(), 1_000_000),
        *(Row(client, 200_000) for client in peers.naive()),
        Row(peers.Cryptofeed("cryptofeed", tuned=False), 720_000, rate=12_000, warm_seconds=45),
        Row(peers.Cryptofeed("cryptofeed, tuned", tuned=True), 200_000),
        Row(peers.Ccxt(), 30_000, rate=1_000, warm_seconds=10),
    ]


def quick_rows() -> list[Row]:
    """Return the bridge and the limit, with a second or five of work."""
    return [Row(Ours("ours, picows", "picows"), 200_000), Row(peers.limits()[0], 500_000)]


def chosen_rows(asked: argparse.Namespace) -> list[Row]:
    """Return the rows that the command line asks for."""
    found = quick_rows() if asked.quick else rows()
    if asked.exactly_once:
        found += [Row(exactly_once(interval), 300_000) for interval in COMMIT_INTERVALS_MS]
    return [row for row in found if not asked.only or row.client.name in asked.only]


def compare(chosen: list[Row], asked: argparse.Namespace, results: report.Results) -> None:
    """Do all passes, one client after the other."""
    for row in chosen:
        row.client.prepare()
        results.rows[row.client.name] = []
    count = asked.messages or max(row.messages for row in chosen)
    frames = prepared(BUILD / "corpus", symbols=asked.symbols, count=count)
    for number in range(asked.passes or (1 if asked.quick else 3)):
        for row in chosen:
            messages = asked.messages or row.messages
            load = Load(
                frames, asked.symbols, row.rate or asked.rate, messages, warm_seconds=row.warm_seconds
            )
            try:
                figures = measured(row.client, load, _directory(row.client))
            except FailedError as error:
                print(f"pass {number + 1}: {row.client.name} failed: {error}", flush=True)
                continue
            results.rows[row.client.name].append(figures)
            print(f"pass {number + 1}: {report.line(figures)}", flush=True)
            for line in figures.warnings:
                print(f"        {line}", flush=True)


def latencies(chosen: list[Row], asked: argparse.Namespace, results: report.Results) -> None:
    """Measure added latency of those that publish raw records and keep up with the rate."""
    count = RATE * (asked.seconds or _LATENCY_SECONDS)
    frames = prepared(BUILD / "corpus", symbols=asked.symbols, count=count)
    load = Load(frames, asked.symbols, RATE, count)
    for client in [row.client for row in chosen if isinstance(row.client, (Ours, peers.Go, peers.Script))]:
        try:
            found = latency(client, load, _directory(client))
        except FailedError as error:
            print(f"{client.name} failed: {error}", flush=True)
            continue
        results.latencies.append(found)
        print(report.latency_line(found), flush=True)


def go_on(asked: argparse.Namespace, results: report.Results) -> None:
    """Measure what takes long, as far as it is asked for."""
    if asked.cold_start:
        for _ in range(asked.passes or 3):
            results.cold_starts.append(experiments.cold_start(BUILD, asked.symbols))
            print(results.cold_starts[-1], flush=True)
    if asked.memory:
        for point in experiments.memory(BUILD, asked.memory_minutes * 60):
            results.memory.append(point)
            print(f"{point.seconds:6.0f} s {point.mib:6.0f} MiB", flush=True)
    if asked.growth is not None:
        seconds = (asked.seconds or _GROWTH_SECONDS, asked.seconds or _LATENCY_SECONDS)
        for grown in experiments.growth(BUILD, asked.growth or experiments.GROWS, *seconds, asked.points):
            results.growth.append(grown)
            print(f"{report.line(grown.figures)}, p50 {grown.p50}, p99 {grown.p99}", flush=True)
    if asked.readers:
        results.readers = read(asked)
        print(results.readers, flush=True)


def read(asked: argparse.Namespace) -> str:
    """Measure the SDK and replay; return the tables."""
    wanted = readers.arguments_of(["--core", str(CLIENT_CORE), "--passes", str(asked.passes or 3)])
    wanted.symbols, wanted.messages = asked.symbols, asked.messages or wanted.messages
    found = readers.tables(wanted)
    if asked.growth is not None:
        wanted.passes, wanted.points, wanted.messages = 1, asked.points, asked.messages or _GROWTH_MESSAGES
        found += "\n\n" + readers.growth_table(wanted)
    return found


def _directory(client: Client) -> Path:
    directory = BUILD / "runs" / "-".join(client.name.replace(",", "").split())
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the bridge and the limit alone, no report")
    parser.add_argument("--only", action="append", help="a row, by its name; may be given again")
    parser.add_argument("--passes", type=int, default=0, help="3, or 1 with --quick")
    parser.add_argument("--symbols", type=int, default=400)
    parser.add_argument("--messages", type=int, default=0, help="of each row, instead of its own number")
    parser.add_argument("--seconds", type=int, default=0, help="of latency's runs (30) and growth's (12)")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="messages a second; 0: as fast as they are taken"
    )
    parser.add_argument("--exactly-once", action="store_true", help="rows of transactions too")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--no-comparison", action="store_true")
    parser.add_argument("--cold-start", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-minutes", type=float, default=5.0)
    parser.add_argument("--growth", nargs="*", choices=experiments.GROWS, help="all of them if none is named")
    parser.add_argument("--readers", action="store_true")
    parser.add_argument("--all", action="store_true", help="what takes long, too")
    parser.add_argument("--points", type=int, help="the first so many of each curve of growth")
    parser.add_argument("--output", type=Path, default=BUILD, help="where the report goes")
    asked = parser.parse_args()
    if asked.all:
        asked.exactly_once = asked.cold_start = asked.memory = asked.readers = True
        asked.growth = asked.growth or []  # which is all of them
    return asked


def main() -> None:
    """Measure what the command line asks for."""
    asked = arguments()
    os.sched_setaffinity(0, {SERVERS_CORE})
    results = report.Results()
    chosen = chosen_rows(asked)
    if not asked.no_comparison:
        compare(chosen, asked, results)
        print(report.table(results.rows))
    if not (asked.quick or asked.no_latency):
        latencies(chosen, asked, results)
    go_on(asked, results)
    if not asked.quick:
        print(report.write(results, asked.output))


if __name__ == "__main__":
    main()
