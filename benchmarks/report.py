"""What was measured, as a table, a report in Markdown and plots, below ``build/benchmarks``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.environments import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.experiments import ColdStart, Growth, Memory
    from benchmarks.latency import Latency
    from benchmarks.measure import Figures


@dataclass(slots=True)
class Results:
    """All that was measured in one run; the first client is the base of ratios."""

    rows: dict[str, list[Figures]] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    readers: str = ""

    def data(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {
            "rows": {
                name: [{**asdict(f), "cpu_us": f.cpu_us, "per_second": f.per_second} for f in each]
                for name, each in self.rows.items()
            },
            "latencies": [latency._asdict() for latency in self.latencies],
            "cold_starts": [start._asdict() for start in self.cold_starts],
            "memory": [point._asdict() for point in self.memory],
            "growth": [
                {
                    "of": g.of,
                    "value": g.value,
                    "cpu_us": g.figures.cpu_us,
                    "core_share": g.figures.core_share,
                    "memory_mib": g.figures.memory_bytes / (1 << 20),
                    "missing": g.figures.missing,
                    "p50": g.p50,
                    "p99": g.p99,
                }
                for g in self.growth
            ],
            "readers": self.readers,
        }  # fmt: skip


def line(figures: Figures) -> str:
    """Return one run in a line."""
    return (
        f"{figures.client:<24} {figures.cpu_us:7.2f} µs CPU a message, {figures.per_second:9,.0f} messages/s, "
        f"{figures.core_share:4.0%} of the core, {figures.missing:,} missing, {figures.memory_bytes >> 20} MiB"
    )


def latency_line(found: Latency) -> str:
    """Return one client's latency in a line."""
    since = (
        ""
        if found.received_p50 is None
        else f"; from receipt {found.received_p50:.1f}, {found.received_p99:.1f}"
    )
    return f"{found.client:<24} p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms{since}"


def spread(values: Sequence[float], form: str = ",.2f") -> str:
    """Return ``median [least–most]``."""
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def table(rows: dict[str, list[Figures]]) -> str:
    """Return the comparison as a table of Markdown."""
    base = next((statistics.median(f.cpu_us for f in each) for each in rows.values() if each), None)
    lines = [
        "| client | CPU µs a message | messages a CPU second | messages/s seen | missing | records | CPU by ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in rows.items():
        if not each or base is None:
            lines.append(f"| {name} | failed | | | | | |")
            continue
        cpu = [f.cpu_us for f in each]
        both = all(f.raw and f.unified for f in each)
        lines.append(
            f"| {name} | {spread(cpu)} | {statistics.median(f.per_cpu_second for f in each):,.0f} "
            f"| {spread([f.per_second for f in each], ',.0f')} "
            f"| {statistics.median(f.missing / max(f.sent, 1) for f in each):.1%} | {2 if both else 1} "
            f"| {statistics.median(cpu) / base:.2f} |"
        )
    return "\n".join(lines)


def write(results: Results, directory: Path) -> Path:
    """Write ``report.md``, ``results.json`` and the plots; return the report's path."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Benchmarks, end to end",
        _circumstances(),
    ]
    if results.rows:
        parts += ["## Side by side", table(results.rows)]
    warned = {name: f.warnings for name, each in results.rows.items() for f in each if f.warnings}
    if warned:
        told = [f"{name}: {text}" for name, texts in warned.items() for text in texts]
        parts += ["What clients warned of:", "```\n" + "\n".join(told) + "\n```"]
    if results.latencies:
        rows = [
            f"| {x.client} | {x.p50:.1f} | {x.p99:.1f} | {x.worst:.1f} | {_shown(x.received_p50)} "
            f"| {_shown(x.received_p99)} | {x.records:,} |"
            for x in results.latencies
        ]
        parts += [
            "## Added latency, ms from a frame's sending to the raw record's reading",
            "\n".join(
                [
                    "| client | p50 | p99 | worst | from receipt: p50 | p99 | records |",
                    "|---|---|---|---|---|---|---|",
                    *rows,
                ]
            ),
        ]
    if results.cold_starts:
        rows = [
            f"| {x.symbols} | {x.wall_seconds:.2f} | {x.cpu_seconds:.2f} | {x.subscribed_seconds:.2f} |"
            for x in results.cold_starts
        ]
        head = "| symbols | s to the first record | s of CPU | s to the last subscription |"
        parts += ["## Cold start", "\n".join([head, "|---|---|---|---|", *rows])]
    if results.memory:
        rows = [f"| {x.seconds:.0f} | {x.mib:.0f} |" for x in results.memory]
        parts += ["## Memory, 1,500 symbols × 5 channels", "\n".join(["| s | MiB |", "|---|---|", *rows])]
    if results.growth:
        parts += ["## Growth", _growth(results)]
    if results.readers:
        parts += ["## Reading and replay, CPU time", results.readers]
    results_file = directory / "results.json"
    results_file.write_text(json.dumps(results.data(), indent=1))
    parts += [f"![{name}]({name})" for name in plotted(results_file, directory)]
    report = directory / "report.md"
    report.write_text("\n\n".join(parts) + "\n")
    return report


def _shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f}"


def _circumstances() -> str:
    machine = f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}; client on one core, firehose, broker and controller on "
        "the other. Medians of passes [least–most]; only figures of one run can be compared."
    )


def _growth(results: Results) -> str:
    lines = [
        "| of | value | CPU µs a message | of the core | MiB | missing | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for g in results.growth:
        f = g.figures
        load = f"{f.cpu_us:.2f} | {f.core_share:.0%} | {f.memory_bytes >> 20} | {f.missing:,}"
        lines.append(f"| {g.of} | {g.value:,} | {load} | {_shown(g.p50)} | {_shown(g.p99)} |")
    return "\n".join(lines)


def plotted(results: Path, directory: Path) -> list[str]:
    """Draw the plots in matplotlib's own environment; return the files' names."""
    for old in directory.glob("*.png"):
        old.unlink()
    script = Path(__file__).with_name("plots.py")
    done = subprocess.run(
        [str(environment("plots")), str(script), str(results), str(directory)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()
