"""What the benchmarks' report says of made-up figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import report
from benchmarks.experiments import ColdStart, Growth, Memory
from benchmarks.latency import Latency
from benchmarks.measure import Figures

if TYPE_CHECKING:
    from pathlib import Path


def figures(
    client: str, cpu_us: float, *, sent: int = 1_000, raw: int = 1_000, unified: int = 1_000
) -> Figures:
    """Return the figures of a run that took ``cpu_us`` for each message published."""
    published = min(raw or unified, sent)
    return Figures(
        client=client, seconds=0.5, cpu_seconds=cpu_us * published / 1e6, raw=raw, unified=unified, sent=sent,
        memory_bytes=100 << 20, lost_connections=0,
    )  # fmt: skip


def cells(table: str) -> dict[str, list[str]]:
    """Return the cells of a table by the row's first."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {first: rest for first, *rest in rows}


@pytest.fixture
def results() -> report.Results:
    """Return results of every kind."""
    ours = [figures("ours", 10), figures("ours", 12), figures("ours", 11)]
    return report.Results(
        rows={"ours": ours, "peer": [figures("peer", 44, raw=0)], "broken": []},
        latencies=[
            Latency("ours", 9.04, 28.0, 31.0, 8.5, 27.5, 3, [8.0, 9.0, 31.0]),
            Latency("peer", 20.0, 40.0, 41.0, None, None, 2, [20.0, 41.0]),
        ],
        cold_starts=[ColdStart(400, 3.5, 1.25, 3.25)],
        memory=[Memory(0.0, 200.0), Memory(60.0, 210.0)],
        growth=[
            Growth("rate", 1_000, figures("1000 rate", 200), 7.0, 19.0),
            Growth("rate", 2_000, figures("2000 rate", 150), None, None),
            Growth("symbols", 10, figures("10 symbols", 50)),
        ],
    )


def test_ratios_are_of_medians_to_the_first_row(results: report.Results) -> None:
    """And the spread is shown."""
    found = cells(report.table(results.rows))

    assert found["ours"][0] == "11.00 [10.00–12.00]"
    assert found["ours"][1] == "90,909"
    assert found["ours"][-1] == "1.00"
    assert found["peer"][-1] == "4.00"


def test_a_row_says_how_many_records_a_message_makes(results: report.Results) -> None:
    """Peers without raw records make one."""
    found = cells(report.table(results.rows))

    assert (found["ours"][-2], found["peer"][-2]) == ("2", "1")


def test_what_was_sent_and_not_published_is_missing() -> None:
    """And cost is by what was published."""
    lossy = figures("peer", 40, sent=1_000, raw=0, unified=810)

    assert lossy.missing == 190
    assert lossy.cpu_us == pytest.approx(40)
    assert cells(report.table({"peer": [lossy]}))["peer"][3] == "19.0%"


def test_snapshots_asked_for_meanwhile_are_no_messages() -> None:
    """They are raw records all the same."""
    assert figures("ours", 10, sent=1_000, raw=1_400, unified=1_000).messages == 1_000


def test_a_client_that_gave_no_figures_is_named(results: report.Results) -> None:
    """It does not vanish from the table."""
    assert cells(report.table(results.rows))["broken"][0] == "failed"


def test_if_the_first_fails_the_next_is_the_base() -> None:
    """Ratios are to what there is."""
    found = cells(report.table({"ours": [], "peer": [figures("peer", 44)]}))

    assert found["peer"][-1] == "1.00"


def test_the_report_has_all_that_was_measured(
    results: report.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Markdown for people, and in JSON for programs."""
    monkeypatch.setattr(report, "plotted", lambda _results, _directory: ["cpu.png"])

    text = report.write(results, tmp_path / "new").read_text()

    assert report.table(results.rows) in text
    assert "| ours | 9.0 | 28.0 | 31.0 | 8.5 | 27.5 | 3 |" in text
    assert "| peer | 20.0 | 40.0 | 41.0 |  |  | 2 |" in text
    assert "| 400 | 3.50 | 1.25 | 3.25 |" in text
    assert "| 60 | 210 |" in text
    assert "| rate | 1,000 | 200.00 | 40% | 100 | 0 | 7.0 | 19.0 |" in text
    assert "| symbols | 10 | 50.00 |" in text
    assert "![cpu.png](cpu.png)" in text
    data = json.loads((tmp_path / "new/results.json").read_text())
    assert [run["cpu_us"] for run in data["rows"]["ours"]] == pytest.approx([10, 12, 11])
    assert [point["of"] for point in data["growth"]] == ["rate", "rate", "symbols"]
    assert data["latencies"][0]["samples"] == [8.0, 9.0, 31.0]
