"""The status page: one HTML page without outside resources, rendered here from a status report.

It is whole without JavaScript; the script of the template only fetches it again every two seconds.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bridge.status import BookStatus, LifecycleStatus, StatusReport

_TEMPLATE = files("bridge").joinpath("status_page.html").read_text(encoding="utf-8")
_LOUD = ("rejected", "stale", "silent", "retrying", "failed", "expired", "resync")


def _fingerprint(tag: str) -> str:
    inside = re.search(f"<{tag}>(.*?)</{tag}>", _TEMPLATE, re.DOTALL)
    assert inside is not None, f"status_page.html has no <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_fingerprint('style')}; script-src {_fingerprint('script')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: its own style and script, and nothing else."""


def render(report: StatusReport) -> str:
    """Return the page."""
    title = f"{report['environment']} · {report['instance']} · Binance bridge"
    sections = "\n".join((_figures(report), _markets(report), _topics(report), _lifecycle(report)))
    before, after = _TEMPLATE.split("{{page}}")
    return f"{before.replace('{{title}}', escape(title))}{_head(report)}<main>{sections}</main>{after}"


def _head(report: StatusReport) -> str:
    state = "good" if report["ready"] else "bad"
    word = "Ready" if report["ready"] else "Not ready"
    reason = f" <span>{escape(report['reason'])}</span>" if report["reason"] and not report["ready"] else ""
    environment, instance, version, started = (
        escape(text)
        for text in (report["environment"], report["instance"], report["version"], report["started_at"])
    )
    up = f"up {duration(report['uptime_seconds'])} since <time>{started}</time>"
    facts = f"<b>{environment}</b> · {instance} · version {version} · {up}"
    return (
        f'<header><h1>Binance bridge</h1><span class="state {state}" role="status">{word}</span>{reason}'
        f'<p class="facts">{facts}</p></header>'
    )


def _figures(report: StatusReport) -> str:
    markets, latency, gaps, buffer = report["markets"], report["latency_ms"], report["gaps"], report["buffer"]
    rate = sum(market["messages_per_second"] for market in markets)
    share = buffer["bytes"] / buffer["limit"] if buffer["limit"] else 0.0
    meter = f'<meter min="0" max="1" high="0.8" value="{share:.4f}">{share:.0%}</meter>'
    cards = [
        _figure("Messages per second", f"{rate:,.1f}", f"{sum(m['messages'] for m in markets):,} in all"),
        _figure("Latency p50", _milliseconds(latency["p50"]), f"p99 {_milliseconds(latency['p99'])}"),
        _figure("Buffer", size(buffer["bytes"]), f"of {size(buffer['limit'])}{meter}", bad=share > 0.8),
        _figure(
            "Open gaps",
            f"{gaps['open']:,}",
            f"{gaps['found']:,} found, {gaps['recovered']:,} events recovered",
            bad=gaps["open"] > 0,
        ),
        *_books(report["books"]),
        _figure("Dead letters", f"{report['dead_letters']:,}", "records", bad=report["dead_letters"] > 0),
    ]
    return f'<dl class="figures">{"".join(cards)}</dl>'


def _books(books: BookStatus) -> list[str]:
    """Return the figure of the order books, where any are kept."""
    if not books["kept"]:
        return []
    seconds = math.ceil(books["estimate_seconds"])
    waiting = f", {books['waiting']:,} wait" if books["waiting"] else ""
    note = f"in sync{waiting}{f' about {duration(seconds)}' if waiting and seconds else ''}"
    bad = books["synced"] < books["kept"]
    return [_figure("Order books", f"{books['synced']:,} of {books['kept']:,}", note, bad=bad)]


def _figure(name: str, value: str, note: str, *, bad: bool = False) -> str:
    style = "figure bad" if bad else "figure"
    return f'<div class="{style}"><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>'


def _markets(report: StatusReport) -> str:
    rows = [
        (
            escape(m["market"]),
            f"{m['connections']:,}",
            f"{m['streams_live']:,} of {m['streams']:,}",
            f"{m['messages']:,}",
            f"{m['messages_per_second']:,.1f}",
            f"{m['reconnects']:,}",
            f"{report['request_weight'].get(m['market'], 0):,}",
        )
        for m in report["markets"]
    ]
    columns = ("Market", "Connections", "Live streams", "Messages", "Per second", "Reconnects", "Weight used")
    return _table("Markets", columns, rows, "No market is subscribed to.")


def _topics(report: StatusReport) -> str:
    rows = [
        (f"<code>{escape(topic['topic'])}</code>", f"{topic['records']:,}", size(topic["bytes"]))
        for topic in sorted(report["topics"], key=lambda topic: topic["topic"])
    ]
    return _table("Topics", ("Topic", "Records", "Bytes"), rows, "Nothing has been published yet.")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> str:
    """Return a section with a table: the first column names the row, the others are numbers."""
    head = f'<th scope="col">{columns[0]}</th>'
    head += "".join(f'<th scope="col" class="number">{name}</th>' for name in columns[1:])
    body = ""
    for first, *others in rows:
        cells = "".join(f'<td class="number">{cell}</td>' for cell in others)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return _section(title, head, body, empty)


def _section(title: str, head: str, body: str, empty: str) -> str:
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    content = table if body else f'<p class="empty">{empty}</p>'
    return f'<section aria-label="{title}"><h2>{title}</h2>{content}</section>'


def _lifecycle(report: StatusReport) -> str:
    head = '<th scope="col">Time</th><th scope="col">Event</th><th scope="col">What</th>'
    body = "".join(_event(event) for event in report["lifecycle"])
    return _section("Lifecycle, newest first", head, body, "Nothing has happened yet.")


def _event(event: LifecycleStatus) -> str:
    loud = ' class="loud"' if event["event"].endswith(_LOUD) else ""
    what = event["text"].removeprefix(event["event"]).strip()
    return (
        f"<tr><td><time>{escape(event['at'])}</time></td><td{loud}>{escape(event['event'])}</td>"
        f'<td class="text"><code>{escape(what)}</code></td></tr>'
    )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"


def duration(seconds: float) -> str:
    """Return ``2 d 3 h``, ``3 h 5 min``, ``5 min 7 s`` or ``7 s``."""
    whole = int(seconds)
    units = (("d", whole // 86_400), ("h", whole // 3_600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((index for index, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2])


def size(count: float) -> str:
    """Return ``512 B``, ``1.5 KiB``, ``256.0 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
