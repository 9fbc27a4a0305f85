"""Plays back recorded traffic: the recorded REST answers, and every message byte for byte in its order.

A capture is JSON lines, gzipped or not, each with ``kind`` and ``at`` (seconds): ``connect`` has a ``url``,
``rest`` a ``url`` and the ``body`` of the answer, ``message`` the ``message``'s text as received. The market
follows from the host of the URLs.

Playing starts once every stream that has messages was subscribed, so that none is missed, or
:data:`START_AFTER_MS` after the first subscription.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from bridge.errors import ConfigError
from bridge.simulator.exchange import Answer, Emission
from bridge.simulator.wire import compact, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bridge.model import Market

START_AFTER_MS = 10_000
_AT_ONCE = 256
_COMBINED = re.compile(r'^\{"stream":"([^"\\]+)","data":(.*)\}$', re.DOTALL)
_HOSTS: tuple[tuple[str, Market], ...] = (
    ("fapi", "usdm"),
    ("fstream", "usdm"),
    ("dapi", "coinm"),
    ("dstream", "coinm"),
    ("api", "spot"),
    ("stream", "spot"),
)
_WEIGHTS: dict[str, int] = {"exchangeInfo": 20, "depth": 50}
_IDS: dict[str, tuple[str, str]] = {"aggTrade": ("a", "a"), "trade": ("t", "t"), "depthUpdate": ("U", "u")}


class Progress(NamedTuple):
    """How far a replay is."""

    started: bool
    sent: int
    total: int

    @property
    def done(self) -> bool:
        """Whether every message was played."""
        return self.sent == self.total


class CaptureExchange:
    """A recorded exchange of one or more markets.

    Args:
        paths: one capture per market.
        speed: how many times faster than recorded; 0 as fast as clients take it.

    Raises:
        ConfigError: a file cannot be read, is not a capture, or two are of one market.
    """

    def __init__(self, paths: Sequence[Path], speed: float = 1.0) -> None:
        self.tapes: dict[Market, Tape] = {}
        for path in paths:
            tape = Tape.read(path, speed)
            if tape.market in self.tapes:
                raise ConfigError(
                    f"capture {path}: there is another capture of {tape.market}; give one per market"
                )
            self.tapes[tape.market] = tape

    def advance(self, until_ms: int) -> Iterator[Emission]:
        """Yield what is due; at speed 0 a part of what is left at each call, so that clients keep up."""
        for tape in self.tapes.values():
            yield from tape.due(until_ms)

    def track(self, market: Market, stream: str) -> bool:
        """Note that ``stream`` was subscribed."""
        if not well_formed(stream):
            return False
        if market in self.tapes:
            self.tapes[market].subscribed.add(stream)
        return True

    def rest(self, market: Market, method: str, path: str, params: Mapping[str, str], now_ms: int) -> Answer:
        """Answer from the recording; ``ping`` and ``time`` are made up, other lists are empty."""
        endpoint = path.strip("/").split("/", 2)[-1]
        if method != "GET":
            return Answer(405, compact({"code": -1000, "msg": "A capture answers GET only."}), 1)
        if endpoint == "ping":
            return Answer(200, b"{}", 1)
        if endpoint == "time":
            return Answer(200, compact({"serverTime": now_ms}), 1)
        tape = self.tapes.get(market)
        if tape is None:
            return Answer(404, compact({"code": -1000, "msg": f"No capture of {market}."}), 1)
        return tape.answer(endpoint, params)

    def progress(self) -> dict[Market, Progress]:
        """Return how far each market's replay is."""
        return {market: tape.progress for market, tape in self.tapes.items()}


class Tape:
    """The recording of one market and how far it was played."""

    def __init__(self, market: Market, speed: float) -> None:
        self.market, self.speed = market, speed
        self.subscribed: set[str] = set()
        self.streams: set[str] = set()
        self._messages: list[tuple[float, Emission]] = []
        self._answers: dict[tuple[str, str], list[bytes]] = {}
        self._sent = 0
        self._first_subscription_ms: int | None = None
        self._started_ms: int | None = None

    @classmethod
    def read(cls, path: Path, speed: float) -> Tape:
        """Read a capture file."""
        try:
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
            return cls._of(lines, path, speed)
        except OSError as error:
            raise ConfigError(f"capture {path}: {error.strerror or error}") from error
        except (EOFError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"capture {path}: not a capture: {type(error).__name__}: {error}") from error

    @classmethod
    def _of(cls, lines: list[dict[str, Any]], path: Path, speed: float) -> Tape:
        urls = [line["url"] for line in lines if line["kind"] in ("connect", "rest")]
        if not urls:
            raise ConfigError(f"capture {path}: no URL in it tells the market")
        tape = cls(_market_of(urls[0], path), speed)
        for line in lines:
            if line["kind"] == "rest":
                tape._record_answer(line["url"], line["body"])
            elif line["kind"] == "message":
                tape._record_message(line["message"], float(line["at"]), path)
        return tape

    @property
    def progress(self) -> Progress:
        """How far the replay is."""
        return Progress(self._started_ms is not None, self._sent, len(self._messages))

    def due(self, until_ms: int) -> Iterator[Emission]:
        """Yield the messages that are due at ``until_ms``."""
        if self._started_ms is None and not self._start(until_ms):
            return
        assert self._started_ms is not None
        last = len(self._messages) if self.speed else min(self._sent + _AT_ONCE, len(self._messages))
        played = (until_ms - self._started_ms) / 1000 * self.speed
        first = self._messages[0][0] if self._messages else 0.0
        while self._sent < last:
            at, emission = self._messages[self._sent]
            if self.speed and at - first > played:
                return
            self._sent += 1
            yield emission

    def answer(self, endpoint: str, params: Mapping[str, str]) -> Answer:
        """Answer a request: recorded answers in their order, the last one ever after."""
        symbol = params.get("symbol", "")
        recorded = self._answers.get((endpoint, symbol))
        if recorded:
            body = recorded.pop(0) if len(recorded) > 1 else recorded[0]
            return Answer(200, body, _WEIGHTS.get(endpoint, 1))
        known = {key[1] for key in self._answers if key[0] == "depth"}
        if (symbol and symbol not in known) or (endpoint == "depth" and not symbol):
            return Answer(400, b'{"code":-1121,"msg":"Invalid symbol."}', 1)
        return Answer(200, b"[]", 1)

    def _start(self, until_ms: int) -> bool:
        if not self.subscribed:
            return False
        if self._first_subscription_ms is None:
            self._first_subscription_ms = until_ms
        waited = until_ms - self._first_subscription_ms
        if self.streams <= self.subscribed or waited >= START_AFTER_MS:
            self._started_ms = until_ms
        return self._started_ms is not None

    def _record_answer(self, url: str, body: str) -> None:
        parts = urlsplit(url)
        endpoint = parts.path.strip("/").split("/", 2)[-1]
        symbol = dict(parse_qsl(parts.query)).get("symbol", "")
        self._answers.setdefault((endpoint, symbol), []).append(body.encode())

    def _record_message(self, text: str, at: float, path: Path) -> None:
        match = _COMBINED.match(text)
        if match is None:
            raise ConfigError(f"capture {path}: not a message of a combined stream: {text[:80]!r}")
        stream, data = match[1], match[2]
        first, last, event_time = _identity(json.loads(data))
        self.streams.add(stream)
        event_ms = int(at * 1000) if event_time is None else event_time
        emission = Emission(self.market, stream, data.encode(), first, last, event_ms, text.encode())
        self._messages.append((at, emission))


def _market_of(url: str, path: Path) -> Market:
    host = urlsplit(url).hostname or ""
    for prefix, market in _HOSTS:
        if host.startswith(prefix):
            return market
    raise ConfigError(f"capture {path}: {host!r} is no host of Binance")


def _identity(payload: object) -> tuple[int | None, int | None, int | None]:
    """Return first id, last id and event time of a payload, where it has them."""
    if not isinstance(payload, dict):
        return None, None, None
    kind, time = payload.get("e"), payload.get("E")
    first, last = _IDS.get(str(kind), ("u", "u"))
    return payload.get(first), payload.get(last), time
