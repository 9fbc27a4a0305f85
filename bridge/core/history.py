"""The past of a stream as REST has it: which page to ask for, and its rows as the stream's own messages. Pure.

What ``topics/streams/`` declares under ``backfill`` decides; a row becomes the very type that a message of the stream
decodes to, so the same compiled encoder makes its records.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from bridge.core.compile import UNDECODABLE
from bridge.errors import ContractError, UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.core.compile import CompiledChannel
    from bridge.core.declaration import Backfill
    from bridge.model import Market, Stream

_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode

Place = tuple[str, str, frozenset[tuple[str, str]]]
"""Market, path and what a query says besides the page: which stream's past an answer is of."""


class Page(NamedTuple):
    """A stretch of the past to ask for, or one that was asked for.

    Attributes:
        first: first id, or open time in milliseconds.
        last: the last one it can hold.
        limit: most rows.
    """

    first: int
    last: int
    limit: int


class Row(NamedTuple):
    """An event of the past.

    Attributes:
        first: its id, or its open time in milliseconds.
        last: its id, or its close time.
        message: as the stream's decoder gives it.
        payload: the row's bytes.
    """

    first: int
    last: int
    message: Any
    payload: bytes


class Rows(NamedTuple):
    """What an answer holds.

    Attributes:
        rows: those that could be read, in the answer's order.
        bad: bytes of those that could not, and what is wrong with each.
    """

    rows: list[Row]
    bad: list[tuple[bytes, str]]


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """Where REST has the past of one stream.

    Attributes:
        path: the endpoint.
        by: see :class:`~bridge.core.declaration.Backfill`.
        limit: most rows a page.
        fixed: the query but for the page.
        place: what answers are known by.
        message: row → message.
        span: message → first and last of what it covers (see :class:`Row`).
    """

    path: str
    by: str
    limit: int
    fixed: Mapping[str, str]
    place: Place
    message: Callable[[Any], Any]
    span: Callable[[Any], tuple[int, int]]

    def query(self, page: Page) -> dict[str, str | int]:
        """Return the query that asks for a page."""
        query: dict[str, str | int] = {**self.fixed, self.by: page.first}
        if self.by == "startTime":
            query["endTime"] = page.last
        return query | {"limit": page.limit}

    def page(self, first: int, last: int) -> Page:
        """Return the page that begins with ``first`` and reaches to ``last`` if it can."""
        if self.by == "startTime":
            return Page(first, last, self.limit)
        return Page(first, min(last, first + self.limit - 1), min(self.limit, last - first + 1))

    def rows(self, body: bytes) -> Rows:
        """Return the rows of an answer.

        Raises:
            UnexpectedMessage: it is not an array.
        """
        try:
            raw_rows = _rows(body)
        except UNDECODABLE as error:
            raise UnexpectedMessage(f"{self.path}: {error}") from error
        rows: list[Row] = []
        bad: list[tuple[bytes, str]] = []
        for raw in raw_rows:
            payload = bytes(raw)
            try:
                message = self.message(msgspec.json.decode(payload))
            except (*UNDECODABLE, LookupError, TypeError) as error:
                bad.append((payload, f"a row of {self.path}: {type(error).__name__}: {error}"))
            else:
                rows.append(Row(*self.span(message), message, payload))
        return Rows(rows, bad)


def asked(market: Market, endpoint: str) -> tuple[Place, Page] | None:
    """Return which stream's past an endpoint with its query asks for, and which page; None where it is none."""
    path, _, query = endpoint.partition("?")
    params = dict(parse_qsl(query))
    begin = params.pop("fromId", None) or params.pop("startTime", None)
    limit, end = params.pop("limit", ""), params.pop("endTime", None)
    if begin is None or not (begin.isdecimal() and limit.isdecimal() and (end or "0").isdecimal()):
        return None
    first, most = int(begin), int(limit)
    page = Page(first, first + most - 1 if end is None else int(end), most)
    return (market, path, frozenset(params.items())), page


def stream_history(compiled: CompiledChannel, stream: Stream, option: str, zone: str) -> StreamHistory | str:
    """Return where the past of a stream is to be had, or why nowhere.

    Args:
        compiled: the stream's channel.
        stream: the stream.
        option: its option (``1m``).
        zone: its time zone (``+08:00``), or "".

    Raises:
        ContractError: the declaration does not fit the message.
    """
    declared = compiled.declaration.backfill.get(stream.market)
    if declared is None or stream.symbol is None:
        return "the exchange keeps no history of it"
    if declared.path is None:
        return declared.reason or "it is not asked for"
    values = {"option()": option, "zone()": zone.removeprefix("+")}
    fixed = {declared.symbol: stream.symbol}
    for name, source in declared.params.items():
        value = values.get(source, source.removeprefix("="))
        if value:
            fixed[name] = value
    return StreamHistory(
        path=declared.path,
        by=declared.by,
        limit=declared.limit,
        fixed=fixed,
        place=(stream.market, declared.path, frozenset(fixed.items())),
        message=_message(compiled, declared, stream.symbol, values),
        span=_span(compiled),
    )


def _span(compiled: CompiledChannel) -> Callable[[Any], tuple[int, int]]:
    link, candle = compiled.link, compiled.candle
    if link is not None:
        return lambda message: (link(message)[1],) * 2
    if candle is None:
        raise ContractError(f"topics/streams/{compiled.channel}.yaml: backfill wants ids or candles")
    return lambda message: candle(message)[:2]


def _message(
    compiled: CompiledChannel, declared: Backfill, symbol: str, values: Mapping[str, str]
) -> Callable[[Any], Any]:
    """Return what makes a message of a row."""
    fields = dict(declared.fields)
    if compiled.declaration.symbol is not None:
        fields.setdefault(compiled.declaration.symbol, f"={symbol}")
    places: list[tuple[tuple[str, ...], str | int]] = []
    constants: list[tuple[tuple[str, ...], Any]] = []
    for key, source in fields.items():
        path = tuple(key.split("."))
        if isinstance(source, str) and (source in values or source.startswith("=")):
            text = values.get(source, source.removeprefix("="))
            constants.append((path, text == "true" if text in {"true", "false"} else text))
        else:
            places.append((path, source))
    missing = _required(compiled.message) - fields.keys()
    if missing:
        where = f"topics/streams/{compiled.channel}.yaml: backfill: {declared.path}"
        raise ContractError(f"{where}: no source for {', '.join(sorted(missing))} of the message")

    def message(row: Any) -> Any:
        tree: dict[str, Any] = {}
        for path, value in constants:
            _set(tree, path, value)
        for path, place in places:
            if isinstance(place, int) or place in row:
                _set(tree, path, row[place])
        return msgspec.convert(tree, compiled.message)

    return message


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *inner, leaf = path
    for part in inner:
        tree = tree.setdefault(part, {})
    tree[leaf] = value


@cache
def _required(message: Any, prefix: str = "") -> frozenset[str]:
    """Return the wire keys a message type can't do without, nested ones with dots."""
    keys: set[str] = set()
    for field in msgspec.structs.fields(message):
        if not field.required:
            continue
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            keys |= _required(field.type, f"{prefix}{field.encode_name}.")
        else:
            keys.add(prefix + field.encode_name)
    return frozenset(keys)
