"""The benchmark commands from beginning to end, with so little to do that their figures mean nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.kafka, pytest.mark.benchmarks]


def ran(script: str, *arguments: str) -> str:
    """Run a benchmark; return what it prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "failed" not in done.stdout
    return done.stdout


def figures(text: str, what: str) -> dict[str, list[str]]:
    """Return the rows below the table's head that begins with ``what``, by their first cell."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"| {what}"))
    found: dict[str, list[str]] = {}
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        found[first] = rest
    return found


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the client and the servers have a core each")
def test_one_command_measures_all_and_reports_it(tmp_path: Path) -> None:
    """Each row publishes all that it was sent, and the report and the plots show every measurement."""
    ran(
        "end_to_end.py", "--all", "--only", "ours, picows", "--only", "limit", "--passes", "1", "--messages", "5000",
        "--symbols", "10", "--seconds", "2", "--memory-minutes", "0.05", "--points", "1", "--output", str(tmp_path),
    )  # fmt: skip

    results = json.loads((tmp_path / "results.json").read_text())
    clients = ["ours, picows", "limit"]
    assert list(results["rows"]) == clients
    for client, [run] in results["rows"].items():
        assert (run["sent"], run["lost_connections"]) == (5_000, 0), client
        assert run["raw"] >= 5_000, client
        assert run["unified"] > 4_900, client  # the corpus has candles that say nothing new
        assert run["cpu_us"] > 0
    assert [latency["client"] for latency in results["latencies"]] == clients
    for latency in results["latencies"]:
        assert 0 < latency["p50"] <= latency["p99"]
        assert (latency["received_p50"] is None) == (latency["client"] == "limit")
    assert len(results["cold_starts"]) == 1
    assert len(results["memory"]) > 2
    assert [(point["of"], point["value"], point["missing"]) for point in results["growth"]] == [
        ("shards", 1, 0), ("symbols", 10, 0), ("rate", 1_000, 0),
    ]  # fmt: skip
    report = (tmp_path / "report.md").read_text()
    assert figures(report, "client | CPU")["limit"][0].endswith("]")
    assert "sdk" in figures(report, "trade, ")
    assert "replay" in figures(report, "messages, ")
    plots = sorted(file.name for file in tmp_path.glob("*.png"))
    assert plots == sorted(
        ["cpu.png", "latency.png", "memory.png", "growth-rate.png", "growth-shards.png", "growth-symbols.png"]
    )
    assert all(f"![{name}]({name})" in report for name in plots)


def test_books() -> None:
    """It prints its figures."""
    assert "µs" in ran("books.py")


def test_the_sdk_s_books() -> None:
    """It prints its figures."""
    assert "µs" in ran("sdk_book.py", "--deltas", "200")


def test_the_spool() -> None:
    """It prints its figures."""
    found = ran("spool.py", "--seconds", "1", "--rate", "2000")
    appended, drained = re.findall(r"(?:appended|drained) ([\d,]+) records", found)
    assert appended == drained


def test_transactions() -> None:
    """It prints its figures."""
    found = figures(ran("transactions.py", "--rate", "500", "--seconds", "1"), "way")
    assert len(found) == 6
    assert all(float(row[1]) > 0 for row in found.values())
