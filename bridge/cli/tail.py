"""``binance-bridge tail``: the records of topics, decoded, a line each."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.options import ConfigOption, EnvironmentOption, settings_from
from bridge.cli.output import cut, padded
from bridge.cli.record_lines import summary
from bridge.config import kafka_settings
from bridge.errors import DecodeError, UsageError
from bridge.model import ENVIRONMENTS
from bridge.sdk import jsonlines
from bridge.sdk.kafka import KafkaReading
from bridge.sdk.reading import Filter, decode, decoder
from bridge.sdk.record import as_text
from bridge.sdk.source import CaughtUp, Fetched, Request
from bridge.sdk.times import milliseconds
from bridge.sdk.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bridge.kafka.settings import KafkaSettings
    from bridge.sdk import Record

_CONNECT_SECONDS = 10.0
_WHOLE_NAME_PARTS = 3
_KEY_COLUMNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What to print, and how."""

    request: Request
    filter: Filter
    limit: int | None
    as_json: bool
    raw_payload: bool


def tail(
    topics: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOPIC]...", help="Topics, whole or without environment: unified.trade."),
    ] = None,
    structure: Annotated[
        list[str] | None,
        typer.Option("--structure", "-s", metavar="NAME", help="Or structures: trade, ticker, lifecycle, …"),
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", metavar="SYMBOL", help="Only BTC/USDT, or BTCUSDT.")
    ] = None,
    market: Annotated[str | None, typer.Option(metavar="MARKET", help="Only spot, usdm or coinm.")] = None,
    channel: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="Only what came of this channel: agg-trade.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From when: -15m, 2026-11-01T00:00Z, earliest, now."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Up to when, exclusive; then end.")
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--no-follow", help="Go on with what comes, or end with what is there."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N records.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines: decimals as text, times in microseconds.")
    ] = False,
    raw_payload: Annotated[
        bool, typer.Option("--raw-payload", help="Only payloads of raw and dead-letter, as received.")
    ] = False,
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka; default: from the configuration.")
    ] = None,
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="First part of topic names, where a replay wrote elsewhere.")
    ] = "binance",
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
) -> None:
    """Print or follow decoded records of topics, from a time, for symbols.

    Without --from it follows what comes from now on. With --no-follow or --to it begins at the earliest record,
    if --from does not say otherwise. It shows all that lies in a topic: the late records of a replaced writer,
    which the SDK drops, too.

    Example: binance-bridge tail --structure trade --symbol BTC/USDT --from -15m --config bridge.yaml
    """
    if follow and to is not None:
        raise UsageError("--follow goes on for ever and --to ends; give one of them")
    overrides = {"kafka": {"bootstrap_servers": bootstrap_servers}} if bootstrap_servers else None
    settings = settings_from(config, environment or _environment_of(topics or [], config), overrides)
    named = Topics(settings.environment, namespace)
    ends = to is not None or follow is False
    all_topics = _topics(named, topics or [], structure or [], market, channel)
    request = Request(
        topics=all_topics,
        keys=_keys(all_topics, symbol or []),
        start=from_ or ("earliest" if ends else None),
        end=to or ("now" if ends else None),
    )
    for option, when in (("--from", request.start), ("--to", request.end)):
        if when is not None:
            milliseconds(when, now=0, what=option)
    wanted = Filter(symbols=frozenset(symbol) if symbol else None, market=market, channel=channel)
    asked = _Asked(request=request, filter=wanted, limit=limit, as_json=as_json, raw_payload=raw_payload)
    try:
        asyncio.run(_print(kafka_settings(settings), asked))
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # who reads us (`| head`) has enough; let the flush at exit go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _environment_of(topics: Sequence[str], config: Path | None) -> str | None:
    """Return the environment that the name of a whole topic tells, where nothing else would."""
    if config is not None or "BINANCE_PRO_ENV" in os.environ:
        return None
    return next((topic.split(".")[1] for topic in topics if _is_whole(topic)), None)


def _is_whole(topic: str) -> bool:
    parts = topic.split(".")
    return len(parts) >= _WHOLE_NAME_PARTS and parts[1] in ENVIRONMENTS


def _topics(
    named: Topics, topics: Sequence[str], structures: Sequence[str], market: str | None, channel: str | None
) -> tuple[str, ...]:
    found = [topic if _is_whole(topic) else named.of(topic) for topic in topics]
    for structure in structures:
        if structure != "raw":
            found.append(named.structure(structure))
        elif market is not None and channel is not None:
            found.append(named.raw(market, channel))
        else:
            raise UsageError("raw records lie in a topic per market and channel; give --market and --channel")
    if not found:
        raise UsageError("name topics (unified.trade, gaps, …) or give --structure (trade, lifecycle, …)")
    return tuple(dict.fromkeys(found))


def _keys(topics: Sequence[str], symbols: Sequence[str]) -> frozenset[bytes] | None:
    """Return the record keys that ``symbols`` have in ``topics``, so that only their partitions are read.

    Unified topics are keyed by unified symbol, raw ones by exchange symbol. None where symbols are not the keys.

    Raises:
        UsageError: unified symbols of a raw topic, which knows none.
    """
    layers = {".".join(topic.split(".")[2:3]) for topic in topics}
    unified = [symbol for symbol in symbols if "/" in symbol]
    if unified and "raw" in layers:
        raise UsageError(f"raw topics know exchange symbols only; give --symbol BTCUSDT, not {unified[0]}")
    by_key = (layers <= {"unified", "gaps"} and len(unified) == len(symbols)) or layers == {"raw"}
    return frozenset(symbol.encode() for symbol in symbols) if symbols and by_key else None


async def _print(settings: KafkaSettings, asked: _Asked) -> None:
    reading = KafkaReading(settings, asked.request, _CONNECT_SECONDS)
    await reading.open()
    printed = 0
    try:
        while found := await reading.fetch():
            lines = _lines(found, asked)
            if asked.limit is not None:
                lines = lines[: asked.limit - printed]
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
            printed += len(lines)
            if printed == asked.limit:
                break
    finally:
        await reading.close()


_DECODER = decoder()


def _lines(found: Sequence[Fetched | CaughtUp], asked: _Asked) -> list[bytes]:
    lines = []
    for fetched in found:
        if isinstance(fetched, CaughtUp):
            continue
        record: Record | None = None
        problem = "deleted" if fetched.value is None else None
        try:
            record = None if fetched.value is None else decode(_DECODER, fetched)
        except DecodeError as error:
            problem = str(error.__cause__)
        if record is None:
            wanted = asked.filter == Filter() and not asked.raw_payload
        else:
            wanted = asked.filter.wants(record) and (not asked.raw_payload or hasattr(record, "payload"))
        if wanted:
            lines.append(_line(fetched, record, problem, asked) + b"\n")
    return lines


def _line(fetched: Fetched, record: Record | None, problem: str | None, asked: _Asked) -> bytes:
    if asked.raw_payload:
        payload: bytes = getattr(record, "payload", b"")
        return payload
    if asked.as_json:
        return jsonlines.line(_as_json(fetched, record, problem)).encode()
    what = problem if record is None else summary(record)
    topic = ".".join(fetched.topic.split(".")[2:])
    key = padded(_text(fetched.key) or "-", _KEY_COLUMNS)
    text = f"{as_text(fetched.timestamp * 1000)} {topic:18} {key} {what}"
    if sys.stdout.isatty():
        text = cut(text, shutil.get_terminal_size().columns)
    return text.encode()


def _as_json(fetched: Fetched, record: Record | None, problem: str | None) -> dict[str, Any]:
    """Return one line's object; :func:`bridge.sdk.testing.load` reads it back."""
    place = {
        "topic": fetched.topic,
        "partition": fetched.partition,
        "offset": fetched.offset,
        "timestamp": fetched.timestamp,
        "key": _text(fetched.key),
        "headers": {name: _text(value) for name, value in fetched.headers},
    }
    if record is not None:
        return place | {"structure": record.structure, "value": jsonlines.plain(record)}
    value = None if fetched.value is None else base64.b64encode(fetched.value).decode()
    return place | {"structure": None, "problem": problem, "valueBase64": value}


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
