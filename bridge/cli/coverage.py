"""``binance-bridge coverage``: what of each stream is published, and what is missing."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, settings_from
from bridge.cli.output import number, print_json, print_table
from bridge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from bridge.core.coverage import By, Gap
    from bridge.core.recount import Finding
    from bridge.coverage import CoverageRequest, RecountProgress
    from bridge.kafka.settings import KafkaSettings

_MOST_SHOWN = 50


def coverage(
    *,
    symbol: Annotated[
        list[str] | None, typer.Option(help="Only BTC/USDT, or BTCUSDT; may be repeated.")
    ] = None,
    market: Annotated[
        list[str] | None, typer.Option(help="Only spot, usdm or coinm; may be repeated.")
    ] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only this channel; may be repeated.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when: -1h, 2026-11-01T00:00Z.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Up to when, exclusive.")] = None,
    recount: Annotated[
        bool, typer.Option("--recount", help="Count again from the topics, and compare.")
    ] = False,
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka; default: from the configuration.")
    ] = None,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="First part of topic names.")] = "binance",
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    json: JsonOption = False,
) -> None:
    """Report per stream what is published, missing, filled and unrecoverable.

    Exit status 1 where something is missing, or where ledger, gap records and topics do not agree. With a range of
    time, ids are known only by --recount, which reads the records of the range.

    Example: binance-bridge coverage --config bridge.yaml --symbol BTC/USDT --recount
    """
    from bridge import logs
    from bridge.catalogue import catalogue
    from bridge.cli.run import run_loop
    from bridge.config import kafka_settings
    from bridge.coverage import CoverageRequest
    from bridge.model import MARKETS, Market
    from bridge.sdk.times import milliseconds

    overrides = {"kafka": {"bootstrap_servers": bootstrap_servers}} if bootstrap_servers else None
    settings = settings_from(config, environment, overrides)
    logs.configure(settings.log.level, settings.log.format)
    markets: list[Market] = [known for known in MARKETS if market is None or known in market]
    if market is not None and set(market) - set(MARKETS):
        raise UsageError(f"--market is one of {', '.join(MARKETS)}")
    known = {name for on, name in catalogue().channels if on in markets}
    for name in channel or ():
        if name not in known:
            raise UsageError(f"--channel {name!r} is none of {', '.join(sorted(known))}")
    now = int(time.time() * 1000)
    request = CoverageRequest(
        environment=settings.environment,
        namespace=namespace,
        markets=tuple(markets),
        symbols=frozenset(symbol or ()),
        channels=frozenset(channel or ()),
        start_ms=None if from_ is None else milliseconds(from_, now=now, what="--from"),
        end_ms=None if to is None else milliseconds(to, now=now, what="--to"),
    )
    if request.start_ms is not None and request.end_ms is not None and request.start_ms >= request.end_ms:
        raise UsageError("--from is not before --to")
    found: list[Finding] = []

    async def main() -> None:
        found.extend(await _find(kafka_settings(settings), request, recount=recount))

    run_loop(main())
    _tell(found, request, recount=recount, json=json)
    if not found:
        print("binance-bridge: no stream is covered that was asked for", file=sys.stderr)
    if not found or not all(finding.whole for finding in found):
        raise typer.Exit(1)


async def _find(
    settings: "KafkaSettings", request: "CoverageRequest", *, recount: bool
) -> "Sequence[Finding]":
    from bridge import coverage as topics

    if not recount:
        return await topics.ledgers(settings, request)
    bar = _bar()
    try:
        return await topics.recount(settings, request, next(bar))
    finally:
        bar.close()


def _bar() -> "Generator[Callable[[RecountProgress], None]]":
    """Give a function that shows progress: a bar where a terminal watches, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("recount", total=None)
        yield lambda done: progress.update(task, total=done.total, completed=done.read)


def _tell(found: "Sequence[Finding]", request: "CoverageRequest", *, recount: bool, json: bool) -> None:
    if json:
        print_json(
            {
                "environment": request.environment, "from": request.start_ms, "to": request.end_ms,
                "recount": recount, "whole": bool(found) and all(one.whole for one in found),
                "streams": [_as_json(one) for one in found],
            }
        )  # fmt: skip
        return
    columns = ["stream", "from", "to", "published", "open", "unrecoverable", "gaps filled", "recovered"]
    if recount:
        columns += ["events", "twice", "zombies", "unexplained", "agrees"]
    print_table(columns, [_row(one, recount=recount) for one in found])
    missing = [
        (
            f"{one.stream.market} {one.stream.stream}",
            *_bounds(one.stream.by, gap),
            gap.status,
            gap.cause,
            gap.reason,
        )
        for one in found
        for gap in one.gaps
        if gap.status != "filled"
    ]
    if missing:
        print_table(("missing", "from", "to", "status", "cause", "reason"), missing[:_MOST_SHOWN])
        if len(missing) > _MOST_SHOWN:
            print(f"{len(missing) - _MOST_SHOWN} more are missing: --json lists them all")
    for one in found:
        for text in _texts(one):
            print(f"{one.stream.market} {one.stream.stream}: {text}")


def _row(one: "Finding", *, recount: bool) -> list[object]:
    by = one.stream.by
    counted = one.counted or {}
    row: list[object] = [
        f"{one.stream.market} {one.stream.stream}", _position(by, one.first), _position(by, one.last),
        _amount(by, one.published), _amount(by, one.open), _amount(by, one.unrecoverable), one.gaps_filled,
        one.recovered,
    ]  # fmt: skip
    if recount:
        unexplained = sum(span.last - span.first + 1 for span in one.unexplained)
        row += [
            counted.get("events"), counted.get("duplicates", 0), counted.get("zombies", 0),
            _amount(by, unexplained), not (one.unexplained or one.both or one.disagreements),
        ]  # fmt: skip
    return row


def _bounds(by: "By", gap: "Gap") -> tuple[str, str]:
    return _position(by, gap.first), _position(by, gap.last)


def _position(by: "By", position: int | None) -> str:
    """Return a position for people: an id as it is, a time as text."""
    from bridge.sdk.record import as_text

    if position is None or by == "sequence":
        return "" if position is None else str(position)
    return as_text(position * 1000 if by == "candle" else position) or str(position)


def _amount(by: "By", positions: int | None) -> str:
    """Return how many ids, or how much time."""
    if positions is None or by == "sequence":
        return number(positions)
    return f"{positions / (1e3 if by == 'candle' else 1e6):,.3f} s" if positions else "0"


def _texts(one: "Finding") -> list[str]:
    texts = list(one.disagreements) + list(one.remarks)
    by = one.stream.by
    for what, spans in (("unexplained", one.unexplained), ("published and called missing", one.both)):
        texts += [f"{what}: {_position(by, span.first)}..{_position(by, span.last)}" for span in spans[:5]]
        if len(spans) > 5:
            texts.append(f"{what}: {len(spans) - 5} more stretches")
    if one.earlier_missing:
        texts.append(f"before the exchange counted anew, {number(one.earlier_missing)} ids were missing")
    return texts


def _as_json(one: "Finding") -> dict[str, Any]:
    stream = one.stream
    return {
        "market": stream.market, "channel": stream.channel, "stream": stream.stream,
        "exchangeSymbol": stream.exchange_symbol, "symbol": stream.symbol, "by": stream.by,
        "first": one.first, "last": one.last, "published": one.published, "open": one.open,
        "unrecoverable": one.unrecoverable, "gapsFilled": one.gaps_filled, "recovered": one.recovered,
        "earlierMissing": one.earlier_missing, "updatedAt": one.updated_at, "whole": one.whole,
        "gaps": [gap._asdict() for gap in one.gaps], "counted": None if one.counted is None else dict(one.counted),
        "unexplained": [list(span) for span in one.unexplained], "both": [list(span) for span in one.both],
        "disagreements": list(one.disagreements), "remarks": list(one.remarks),
    }  # fmt: skip
