"""``binance-bridge status``: one page of the state of a running bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bridge.cli.endpoint import ask, endpoint_url
from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, UrlOption  # noqa: TC001 - typer reads them
from bridge.cli.output import print_json, print_table
from bridge.status_page import duration, size

if TYPE_CHECKING:
    from bridge.status import StatusReport


def status(
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    url: UrlOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """One page of the state of a running bridge, from its HTTP endpoint.

    Example: binance-bridge status --url http://127.0.0.1:9464
    """
    report = ask(endpoint_url(url, config, environment), "status")
    if json:
        print_json(report)
    else:
        _print(cast("StatusReport", report))


def _print(report: StatusReport) -> None:
    ready = "ready" if report["ready"] else f"NOT READY: {report['reason']}"
    print(
        f"{report['instance']} · {report['environment']} · version {report['version']} · "
        f"up {duration(report['uptime_seconds'])} · {ready}"
    )
    latency, gaps, buffer = report["latency_ms"], report["gaps"], report["buffer"]
    print_table(
        ("market", "connections", "live", "streams", "messages", "per second", "reconnects"),
        [
            (
                m["market"], m["connections"], m["streams_live"], m["streams"], m["messages"],
                m["messages_per_second"], m["reconnects"],
            )
            for m in report["markets"]
        ],
    )  # fmt: skip
    print_table(
        ("topic", "records", "bytes"), [(t["topic"], t["records"], t["bytes"]) for t in report["topics"]]
    )
    print(f"latency       p50 {_ms(latency['p50'])}, p99 {_ms(latency['p99'])}")
    print(f"buffer        {size(buffer['bytes'])} of {size(buffer['limit'])}")
    print(f"gaps          {gaps['open']} open, {gaps['found']} found, {gaps['recovered']} events recovered")
    books = report["books"]
    wait = f"; {books['waiting']} wait about {books['estimate_seconds']:,.0f} s" if books["waiting"] else ""
    print(f"order books   {books['synced']} of {books['kept']} in sync{wait}")
    print(f"dead letters  {report['dead_letters']:,}")
    weights = ", ".join(f"{market} {used:,}" for market, used in report["request_weight"].items())
    print(f"weight used   {weights or '–'}")
    print_table(("time", "lifecycle, newest first"), [(e["at"], e["text"]) for e in report["lifecycle"][:10]])


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"
