"""``binance-bridge replay``: derive unified records again from raw."""

import re
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, settings_from
from bridge.cli.output import print_json, print_table
from bridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from bridge.replay.job import ReplayProgress

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


def replay(
    *,
    into: Annotated[
        str, typer.Option(help="First part of the target topics' names; binance is the live namespace.")
    ],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First event time; default: all there is.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Event time to stop before.")] = None,
    market: Annotated[list[str] | None, typer.Option(help="A market; may be repeated.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="A symbol; may be repeated.")] = None,
    structure: Annotated[list[str] | None, typer.Option(help="A unified structure; may be repeated.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the progress of an earlier run of the same request.")
    ] = False,
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    json: JsonOption = False,
) -> None:
    """Derive unified records again from raw, by the very functions that live uses, into another namespace.

    Times are such as 2026-11-01T00:00Z or -2h. Run again with the same arguments, it goes on where it was.

    Example: binance-bridge replay --config bridge.yaml --from -1h --into rederived --structure trade
    """
    from bridge import logs
    from bridge.cli.run import run_loop
    from bridge.config import kafka_settings
    from bridge.model import MARKETS, Market
    from bridge.replay.job import ReplayRequest
    from bridge.replay.job import replay as carry_out
    from bridge.sdk.times import milliseconds

    settings = settings_from(config, environment)
    logs.configure(settings.log.level, settings.log.format)
    if not _NAMESPACE.fullmatch(into):
        raise UsageError(f"--into {into!r} is no name for topics; use letters, digits, - and _")
    markets: list[Market] = [known for known in MARKETS if market is None or known in market]
    if market is not None and set(market) - set(MARKETS):
        raise UsageError(f"--market is one of {', '.join(MARKETS)}")
    now = int(time.time() * 1000)
    request = ReplayRequest(
        environment=settings.environment,
        into=into,
        start_ms=None if from_ is None else milliseconds(from_, now=now, what="--from"),
        end_ms=None if to is None else milliseconds(to, now=now, what="--to"),
        markets=tuple(markets),
        symbols=tuple(symbol or ()),
        structures=tuple(structure or ()),
        hold_ms=settings.sequence.hold_ms,
        snapshot_interval_ms=settings.snapshot_interval_seconds * 1000,
    )
    found: list[ReplayProgress] = []

    async def main() -> None:
        bar = _bar()
        show = next(bar)
        try:
            found.append(
                await carry_out(
                    kafka_settings(settings),
                    request,
                    partitions=settings.topics.partitions,
                    replication_factor=settings.replication_factor,
                    restart=restart,
                    on_progress=show,
                )
            )
        finally:
            bar.close()

    run_loop(main())
    _tell(found[0], json=json)


def _bar() -> "Generator[Callable[[ReplayProgress], None]]":
    """Give a function that shows progress: a bar where a terminal watches, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("replay", total=None)
        yield lambda done: progress.update(task, total=done.total, completed=done.read)


def _tell(done: "ReplayProgress", *, json: bool) -> None:
    rows = [
        ("run", done.run_id),
        ("raw records read", done.read),
        ("of them done by an earlier run", done.resumed),
        ("unified records published", done.records),
        ("topics read", len(done.topics)),
    ]
    if json:
        print_json(
            {
                "run": done.run_id, "read": done.read, "resumed": done.resumed, "records": done.records,
                "topics": done.topics,
            }
        )  # fmt: skip
    else:
        print_table(("what", "how much"), rows)
