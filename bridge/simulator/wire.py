"""Binance's stream protocol, without sockets: URLs, control messages, wrappers, WebSocket frames.

Rules and texts are those of Binance's WebSocket stream documentation for spot and futures; what only field
reports tell (error objects come nested, a wrong path is acknowledged and silent, control messages over 4088
bytes vanish) is taken from them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.model import Market

Path = Literal["", "public", "market", "private"]
TimeUnit = Literal["MILLISECOND", "MICROSECOND"]
ErrorForm = Literal["nested", "flat"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONGEST_CONTROL_MESSAGE = 4088
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")

_PUBLIC_KIND = re.compile(r"@(depth|rpiDepth|bookTicker$|trade$)|^!bookTicker$")
_WELL_FORMED = re.compile(r"^(!\S+|[^\s@/]+(@[^\s@]+)+|tradingSession)$")
_LISTEN_KEY = re.compile(r"^[A-Za-z0-9]{32,128}$")
_STRING_ID = re.compile(r"^[A-Za-z0-9]{0,36}$")
_BAD_ID = "Invalid request: request ID must be an unsigned integer"
_BAD_NAME = "Invalid request: property name must be a string"


def well_formed(stream: str) -> bool:
    """Tell whether ``stream`` looks like a stream name; anything else is refused with code 2."""
    return _WELL_FORMED.match(stream) is not None


def path_of(stream: str) -> Path:
    """Return the USDⓈ-M host's path that serves ``stream``: public for books and trades, else market."""
    return "public" if _PUBLIC_KIND.search(stream) else "market"


class Target(NamedTuple):
    """What a client asked for by the URL it connected to.

    Attributes:
        path: the USDⓈ-M host's path; "" elsewhere and on unrouted URLs.
        combined: whether payloads come wrapped with their stream's name.
        streams: the streams of the URL.
        unit: the unit of time fields.
        listen_key: the key of a private stream, None on public ones.
    """

    path: Path
    combined: bool
    streams: tuple[str, ...]
    unit: TimeUnit
    listen_key: str | None


class Refusal(NamedTuple):
    """Why a WebSocket handshake is refused."""

    status: int
    body: str


def parse_target(market: Market, resource: str) -> Target | Refusal:
    """Read the URL's path and query, percent-encoded as it came.

    A path that does not exist is a 404; on spot a wrong ``timeUnit`` is a 400 with Binance's code -1194.
    """
    parts = urlsplit(resource)
    segments = [unquote(segment) for segment in parts.path.strip("/").split("/")]
    query = parse_qsl(parts.query, keep_blank_values=True)
    path: Path = ""
    if market == "usdm" and segments[0] in ("public", "market", "private"):
        path = segments.pop(0)  # type: ignore[assignment]  # the line above says which
    if not segments or segments[0] not in ("ws", "stream") or (segments[0] == "stream" and len(segments) > 1):
        return Refusal(404, "Not Found")
    combined = segments[0] == "stream"
    names = [name for name in segments[1:] if name]
    if combined:
        names += [name for key, value in query if key == "streams" for name in value.split("/") if name]
    unit = _time_unit(market, query)
    if unit is None:
        message = "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
        return Refusal(400, json.dumps({"code": -1194, "msg": message}))
    keys = [name for name in names if market != "spot" and _LISTEN_KEY.match(name)]
    keys += [value for key, value in query if key == "listenKey"]
    return Target(path, combined, tuple(n for n in names if n not in keys), unit, keys[0] if keys else None)


def listened(resource: str) -> dict[str, frozenset[str]]:
    """Return the listen keys of a private stream's URL, each with the events it wants; all events where none.

    ``/ws/<key>``, or ``?listenKey=<key>&events=A/B``, several times on combined streams.
    """
    parts = urlsplit(resource)
    found = {name: frozenset[str]() for name in parts.path.split("/") if _LISTEN_KEY.match(name)}
    latest = ""
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "listenKey":
            latest = value
            found[latest] = frozenset()
        elif key == "streams":
            found |= {name: frozenset() for name in value.split("/") if _LISTEN_KEY.match(name)}
        elif key == "events" and latest:
            found[latest] = frozenset(value.split("/"))
    return found


def _time_unit(market: Market, query: Sequence[tuple[str, str]]) -> TimeUnit | None:
    asked = dict(query).get("timeUnit") if market == "spot" else None
    if asked is None or asked in ("MILLISECOND", "millisecond"):
        return "MILLISECOND"
    return "MICROSECOND" if asked in ("MICROSECOND", "microsecond") else None


class Outcome(NamedTuple):
    """What a control message leads to.

    Attributes:
        reply: the text to send back, None where the exchange says nothing.
        subscribed: names that were not subscribed before.
        unsubscribed: names that are no longer.
        close: code and reason to close the connection with, after the reply.
    """

    reply: bytes | None = None
    subscribed: tuple[str, ...] = ()
    unsubscribed: tuple[str, ...] = ()
    close: tuple[int, str] | None = None


class _Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    def __init__(self, code: int, message: str, request_id: object = None) -> None:
        self.code, self.message, self.request_id = code, message, request_id


@dataclass(slots=True)
class Session:
    """The protocol state of one stream connection: what it subscribed to and how payloads are wrapped.

    Attributes:
        market: the market of the host.
        path: the path of a USDⓈ-M host, else "".
        combined: whether payloads are wrapped.
        streams: the subscribed names in the order they came.
        most_streams: how many streams a connection may carry.
        error_form: ``nested`` as seen on the wire, ``flat`` as printed in the documentation.
        accepts: says whether the exchange takes a name for a stream's (it may be of nothing).
    """

    market: Market
    path: Path = ""
    combined: bool = False
    streams: dict[str, None] = field(default_factory=dict)
    most_streams: int = 1024
    error_form: ErrorForm = "nested"
    accepts: Callable[[str], bool] = well_formed

    def delivers(self, stream: str) -> bool:
        """Tell whether this connection carries ``stream``: on USDⓈ-M only its own path does."""
        return self.market != "usdm" or path_of(stream) == (self.path or "public")

    def handle(self, text: str) -> Outcome:
        """Answer one control message."""
        if self.market == "spot" and len(text.encode()) > LONGEST_CONTROL_MESSAGE:
            return Outcome()
        try:
            request = _parse(text)
            method = _method(request, text)
            request_id = _request_id(request)
            return self._perform(method, request.get("params"), request_id)
        except _Refused as refused:
            closes = refused.code == 4 and self.market != "spot"
            return Outcome(
                self._error(refused.code, refused.message, refused.request_id),
                close=(1008, "Too many subscriptions") if closes else None,
            )

    def reject(self, text: str) -> Outcome:
        """Answer a SUBSCRIBE as if its streams were malformed and add none; handle anything else."""
        try:
            request = _parse(text)
            if request.get("method") == "SUBSCRIBE":
                return Outcome(self._error(2, "Invalid request: invalid stream", _request_id(request)))
        except _Refused:
            pass
        return self.handle(text)

    def _perform(self, method: str, params: object, request_id: object) -> Outcome:
        if method == "SUBSCRIBE":
            return self._subscribe(_names(params, request_id), request_id)
        if method == "UNSUBSCRIBE":
            gone = tuple(name for name in dict.fromkeys(_names(params, request_id)) if name in self.streams)
            for name in gone:
                del self.streams[name]
            return Outcome(_result(None, request_id), unsubscribed=gone)
        if method == "LIST_SUBSCRIPTIONS":
            if params:
                raise _Refused(2, "Invalid request: too many parameters", request_id)
            return Outcome(_result(list(self.streams), request_id))
        return self._property(method, params, request_id)

    def _subscribe(self, names: list[str], request_id: object) -> Outcome:
        if not all(well_formed(name) and self.accepts(name) for name in names):
            raise _Refused(2, "Invalid request: invalid stream", request_id)
        fresh = tuple(name for name in dict.fromkeys(names) if name not in self.streams)
        if len(self.streams) + len(fresh) > self.most_streams:
            raise _Refused(4, "Too many subscriptions", request_id)
        self.streams.update(dict.fromkeys(fresh))
        return Outcome(_result(None, request_id), subscribed=fresh)

    def _property(self, method: str, params: object, request_id: object) -> Outcome:
        values = params if isinstance(params, list) else []
        if not values or not isinstance(values[0], str):
            raise _Refused(2, _BAD_NAME, request_id)
        if len(values) > (2 if method == "SET_PROPERTY" else 1):
            raise _Refused(2, "Invalid request: too many parameters", request_id)
        if values[0] != "combined":
            raise _Refused(0, "Unknown property", request_id)
        if method == "GET_PROPERTY":
            return Outcome(_result(self.combined, request_id))
        if len(values) < 2 or not isinstance(values[1], bool):
            raise _Refused(1, "Invalid value type: expected Boolean", request_id)
        self.combined = values[1]
        return Outcome(_result(None, request_id))

    def _error(self, code: int, message: str, request_id: object) -> bytes:
        error: dict[str, object] = {"code": code, "msg": message}
        if self.error_form == "flat":
            return compact({**error, "id": request_id} if code == 0 else error)
        return compact({"error": error, "id": request_id})


def _parse(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        line, column = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (1, 1)
        raise _Refused(3, f"Invalid JSON: expected value at line {line} column {column}") from error
    if not isinstance(request, dict):
        raise _missing_method(text)
    return request


def _missing_method(text: str) -> _Refused:
    return _Refused(2, f"Invalid request: missing field `method` at line 1 column {len(text)}")


def _method(request: dict[str, Any], text: str) -> str:
    method = request.get("method")
    if method in METHODS:
        return str(method)
    if not isinstance(method, str):
        raise _missing_method(text)
    # serde, which Binance parses with, names the column behind the value
    value = json.dumps(method, ensure_ascii=False)
    column = text.find(value, text.find('"method"') + 8) + len(value)
    known = ", ".join(f"`{name}`" for name in METHODS)
    position = f"line 1 column {column}"
    raise _Refused(2, f"Invalid request: unknown variant {method}, expected one of {known} at {position}")


def _request_id(request: dict[str, Any]) -> object:
    found = request.get("id", ...)
    if found is None or (type(found) is int and -(2**63) <= found < 2**63):
        return found
    if isinstance(found, str) and _STRING_ID.match(found):
        return found
    raise _Refused(2, _BAD_ID)


def _names(params: object, request_id: object) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        raise _Refused(2, "Invalid request: invalid stream", request_id)
    return params


def _result(result: object, request_id: object) -> bytes:
    return compact({"result": result, "id": request_id})


def compact(value: object) -> bytes:
    """Return ``value`` as JSON the way Binance prints it: no blanks, UTF-8 as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def wrap(stream: str, data: bytes) -> bytes:
    """Return the combined stream's message around a payload."""
    return b'{"stream":"%b","data":%b}' % (stream.encode(), data)


def server_shutdown(kind: Literal["raw", "combined", "ws_api"], now_ms: int) -> bytes:
    """Return the ``serverShutdown`` event in the shape of its kind of connection."""
    event = b'{"e":"serverShutdown","E":%d}' % now_ms
    if kind == "raw":
        return event
    return wrap("!serverShutdown", event) if kind == "combined" else b'{"event":%b}' % event


def in_microseconds(data: bytes) -> bytes:
    """Return a spot payload with its time fields in microseconds; ids, which share their letters, stay."""
    payload = json.loads(data)
    for event in payload if isinstance(payload, list) else [payload]:
        _scale(event, ("E", "T", "O", "C"))
        if event.get("e") == "referencePrice":
            _scale(event, ("t",))
        if isinstance(event.get("k"), dict):
            _scale(event["k"], ("t", "T"))
    return compact(payload)


def _scale(fields: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if isinstance(fields.get(name), int):
            fields[name] *= 1000


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole WebSocket frame from server to client (RFC 6455, section 5.2): unmasked, final."""
    return frame_header(opcode, len(payload)) + payload


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of a final, unmasked frame of ``length`` bytes."""
    first = 0x80 | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
