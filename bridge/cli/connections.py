"""``binance-bridge connections``: the open connections of a running bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urlsplit

import typer

from bridge.cli.endpoint import ask, endpoint_url
from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, UrlOption  # noqa: TC001 - typer reads them
from bridge.cli.output import print_json, print_table
from bridge.status_page import duration

if TYPE_CHECKING:
    from bridge.status import ConnectionReport


def connections(
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    url: UrlOption = None,
    *,
    streams: Annotated[bool, typer.Option("--streams", help="List every stream of each connection.")] = False,
    json: JsonOption = False,
) -> None:
    """Open connections of a running bridge with what each carries.

    Example: binance-bridge connections --url http://127.0.0.1:9464 --streams
    """
    found = cast("list[ConnectionReport]", ask(endpoint_url(url, config, environment), "connections"))
    if json:
        print_json(found)
    elif not found:
        print("no open connection")
    elif streams:
        print_table(
            ("connection", "market", "stream", "channel", "frames", "silent s"),
            [
                (c["id"], c["market"], s["name"], s["channel"], s["frames"], s["silent_seconds"])
                for c in found
                for s in c["streams"]
            ],
        )
    else:
        columns = (
            "connection",
            "market",
            "leg",
            "host",
            "state",
            "age",
            "messages",
            "streams",
            "with data",
            "carries",
        )
        print_table(columns, [_row(connection) for connection in found])


def _row(connection: ConnectionReport) -> tuple[object, ...]:
    streams = connection["streams"]
    return (
        connection["id"],
        connection["market"],
        connection["leg"],
        urlsplit(connection["url"]).netloc,
        connection["state"],
        duration(connection["age_seconds"]),
        connection["messages"],
        len(streams),
        sum(stream["frames"] > 0 for stream in streams),
        ", ".join(sorted({stream["channel"] for stream in streams})),
    )
