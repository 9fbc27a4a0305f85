"""From a WebSocket to Kafka: the bridge beside its peers and the limit, in one run."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import peers  # noqa: E402 - the checkout comes first
from benchmarks.frames import prepared  # noqa: E402
from benchmarks.measure import SERVERS_CORE, Client, FailedError, Figures, Load, measured  # noqa: E402
from benchmarks.ours import Ours  # noqa: E402

BUILD = ROOT / "build/benchmarks"


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


def rows(*, quick: bool) -> list[Row]:
    """Return what to compare."""
    ours = [
        Row(Ours("ours, picows", "picows"), 300_000),
        Row(Ours("ours, websockets", "websockets"), 300_000),
    ]
    limits = [Row(client, 1_000_000) for client in peers.limits()]
    others = [Row(peers.Go(), 500_000), *(Row(client, 200_000) for client in peers.naive())]
    others += [
        Row(peers.Cryptofeed("cryptofeed", tuned=False), 720_000, rate=12_000, warm_seconds=45),
        Row(peers.Cryptofeed("cryptofeed, tuned", tuned=True), 200_000),
        Row(peers.Ccxt(), 30_000, rate=1_000, warm_seconds=10),
    ]
    if quick:
        return [Row(ours[0].client, 200_000), Row(limits[0].client, 500_000)]
    return ours + limits + others


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="the bridge and the limit alone, some seconds each"
    )
    parser.add_argument("--passes", type=int, default=None)
    parser.add_argument("--only", action="append", help="a row, by its name; may be given again")
    parser.add_argument("--symbols", type=int, default=400)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="messages a second; 0: as fast as they are taken"
    )
    asked = parser.parse_args()
    os.sched_setaffinity(0, {SERVERS_CORE})
    chosen = [row for row in rows(quick=asked.quick) if not asked.only or row.client.name in asked.only]
    frames = prepared(BUILD / "corpus", symbols=asked.symbols, count=500_000 if asked.quick else 1_000_000)
    for row in chosen:
        row.client.prepare()
    found: dict[str, list[Figures]] = {row.client.name: [] for row in chosen}
    for number in range(asked.passes or (1 if asked.quick else 3)):
        for row in chosen:
            directory = BUILD / "runs" / "-".join(row.client.name.replace(",", "").split())
            shutil.rmtree(directory, ignore_errors=True)
            load = Load(
                frames, asked.symbols, rate=row.rate or asked.rate, count=row.messages, warm_seconds=row.warm_seconds
            )  # fmt: skip
            try:
                figures = measured(row.client, load, directory)
            except FailedError as error:
                print(f"pass {number + 1}: {row.client.name} failed: {error}", flush=True)
                continue
            found[row.client.name].append(figures)
            print(
                f"pass {number + 1}: {row.client.name:<24} {figures.cpu_us:7.2f} µs CPU a message "
                f"{figures.per_second:9,.0f} messages/s {figures.core_share:5.0%} of the core "
                f"{figures.missing:7,} missing {figures.memory_bytes >> 20:5} MiB "
                f"raw {figures.raw:,} unified {figures.unified:,} lost {figures.lost_connections}", flush=True,
            )  # fmt: skip
            for line in figures.warnings:
                print("    ", line)
    base = [f.cpu_us for f in next(iter(found.values()))]
    for name, each in found.items():
        if each and base:
            cpu = [f.cpu_us for f in each]
            ratio = statistics.median(base) / statistics.median(cpu)
            print(
                f"{name:<24} {statistics.median(cpu):7.2f} [{min(cpu):.2f}–{max(cpu):.2f}] µs; {ratio:.2f} × ours"
            )


if __name__ == "__main__":
    main()
