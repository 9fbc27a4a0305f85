"""From a WebSocket to Kafka: the bridge beside its peers and the limit, in one run."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.frames import prepared  # noqa: E402 - the checkout comes first
from benchmarks.measure import SERVERS_CORE, Client, FailedError, Figures, Load, measured  # noqa: E402
from benchmarks.ours import Ours  # noqa: E402

BUILD = ROOT / "build/benchmarks"


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--symbols", type=int, default=400)
    parser.add_argument("--messages", type=int, default=1_000_000)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {SERVERS_CORE})
    frames = prepared(BUILD / "corpus", symbols=asked.symbols, count=asked.messages)
    load = Load(frames, asked.symbols)
    for client in (Ours("ours, picows", "picows"), Ours("ours, websockets", "websockets")):
        directory = BUILD / "runs" / client.name.replace(" ", "-").replace(",", "")
        shutil.rmtree(directory, ignore_errors=True)
        f = measured(client, load, directory)
        print(client.name, f"{f.cpu_us:.2f} us {f.per_second:,.0f}/s core {f.core_share:.0%} missing {f.missing}", f)


if __name__ == "__main__":
    main()
