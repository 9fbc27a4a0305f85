"""Plots of ``results.json``; prints the names of the files written. Runs where matplotlib is installed."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib import ticker


def main() -> None:
    """Draw what there is."""
    results: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    directory = Path(sys.argv[2])
    rows = {name: each for name, each in results["rows"].items() if each}
    if rows:
        _save(directory / "cpu.png", _cpu, rows)
    if results["latencies"]:
        _save(directory / "latency.png", _latency, results["latencies"])
    if results["memory"]:
        _save(directory / "memory.png", _memory, results["memory"])
    for of in sorted({point["of"] for point in results["growth"]}):
        _save(directory / f"growth-{of}.png", _growth, [p for p in results["growth"] if p["of"] == of])


def _save(file: Path, draw: Any, data: Any) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.5))
    draw(axes, data)
    if len(figure.axes) == 1:
        figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(file.name)


def _cpu(axes: Any, rows: dict[str, list[dict[str, float]]]) -> None:
    names = list(rows)[::-1]
    each = [[run["cpu_us"] for run in rows[name]] for name in names]
    middles = [statistics.median(values) for values in each]
    errors = [
        [middle - min(values) for middle, values in zip(middles, each, strict=True)],
        [max(values) - middle for middle, values in zip(middles, each, strict=True)],
    ]
    axes.errorbar(
        middles, names, xerr=errors, fmt="o"
    )  # points: the length of a bar says nothing on such an axis
    axes.set_xscale("log")
    axes.grid(axis="x", which="both", alpha=0.3)
    for name, middle in zip(names, middles, strict=True):
        axes.annotate(f"{middle:.3g}", (middle, name), xytext=(8, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("CPU µs a message (log)")


def _latency(axes: Any, latencies: list[dict[str, Any]]) -> None:
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for latency in latencies:
        samples = sorted(latency["samples"])
        shares = [100 * number / len(samples) for number in range(len(samples))]
        axes.plot(samples, shares, label=latency["client"])
    axes.set_xscale("log")
    _numbered(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.set_xlabel("ms from a frame's sending to the raw record's reading")
    axes.set_ylabel("% of messages")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _memory(axes: Any, points: list[dict[str, float]]) -> None:
    axes.plot([p["seconds"] for p in points], [p["mib"] for p in points])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("s")
    axes.set_ylabel("resident MiB")


def _growth(axes: Any, points: list[dict[str, Any]]) -> None:
    """Draw CPU on the left and, beside it, latency where it was measured or else memory."""
    figure, by_rate = axes.figure, points[0]["of"] == "rate"
    axes.set_position([0.09, 0.15, 0.38, 0.78])
    beside = figure.add_axes([0.6, 0.15, 0.38, 0.78])
    values = [p["value"] for p in points]
    axes.plot(values, [p["cpu_us"] for p in points], "o-", label="CPU µs a message")
    if by_rate:  # otherwise the rate is the same throughout, and so is the line
        axes.plot(values, [100 * p["core_share"] for p in points], "s-", label="% of the core")
        _logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)
    timely = [p for p in points if p["p50"] is not None]
    if timely:
        at = [p["value"] for p in timely]
        beside.plot(at, [p["p50"] for p in timely], "^-", label="p50, ms")
        beside.plot(at, [p["p99"] for p in timely], "v-", label="p99, ms")
        _logarithmic(beside)
    else:
        beside.plot(values, [p["memory_mib"] for p in points], "D-", label="resident MiB")
        beside.set_ylim(bottom=0)
    for one in (axes, beside):
        one.set_xscale("log")
        names = [f"{value // 1000}k" if by_rate else f"{value:,}" for value in values]
        one.set_xticks(values, names, fontsize=7)
        one.minorticks_off()
        one.set_xlabel("messages/s offered" if by_rate else points[0]["of"])
        one.grid(alpha=0.3)
        one.legend(fontsize=8)


def _logarithmic(axes: Any) -> None:
    """Give the vertical axis a logarithmic scale with a number at every 1, 2 and 5."""
    axes.set_yscale("log")
    _numbered(axes.yaxis)


def _numbered(axis: Any) -> None:
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


if __name__ == "__main__":
    main()
