"""The exchange's limits, as plain counters that are told the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bridge.model import Market

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the exchange grants. The defaults are Binance's; tests shorten the times.

    Attributes:
        spot_messages: messages a second from a client on a spot stream connection, pings and pongs included.
        futures_messages: the same on futures.
        streams: streams of one connection.
        connects: handshakes of one address in ``connects_seconds``.
        connects_seconds: see above.
        ping_seconds: how often the server pings.
        pong_seconds: how long it waits for the answer.
        lifetime_seconds: how long a connection lives.
        spot_weight: request weight a minute of one address on spot.
        futures_weight: the same on both futures markets together.
        refusals_before_ban: how many requests may ignore a 429 before the address is banned.
        ban_seconds: how long a ban lasts.
        listen_key_seconds: how long a listen key lives without being kept alive.
        buffer_bytes: how much may wait for a client that reads too slowly, before it is disconnected.
    """

    spot_messages: int = 5
    futures_messages: int = 10
    streams: int = 1024
    connects: int = 300
    connects_seconds: float = 300.0
    ping_seconds: float = 20.0
    pong_seconds: float = 60.0
    lifetime_seconds: float = 86_400.0
    spot_weight: int = 6000
    futures_weight: int = 2400
    refusals_before_ban: int = 10
    ban_seconds: int = 120
    listen_key_seconds: float = 3600.0
    buffer_bytes: int = 64 << 20

    def messages(self, market: Market) -> int:
        """Return how many messages a second a client of ``market`` may send."""
        return self.spot_messages if market == "spot" else self.futures_messages

    def weight(self, market: Market) -> int:
        """Return the request weight a minute that ``market`` grants."""
        return self.spot_weight if market == "spot" else self.futures_weight


class SlidingWindow:
    """Allows ``most`` things in any ``seconds``."""

    __slots__ = ("_most", "_seconds", "_times")

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._times: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count one more at ``now`` (seconds); False where it is one too many."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self._most


class Verdict(NamedTuple):
    """What the budget says to a request.

    Attributes:
        status: 200, 429 or 418.
        used: weight used in the current minute.
        retry_after: seconds to wait, 0 where it may pass.
        until_ms: when that is, epoch milliseconds.
    """

    status: int
    used: int
    retry_after: int = 0
    until_ms: int = 0


@dataclass(slots=True)
class WeightBudget:
    """Request weight of one address: minutes of the clock, 429 beyond the limit, 418 for who goes on."""

    limit: int
    refusals_before_ban: int
    ban_seconds: int
    used: int = 0
    _minute: int = -1
    _refusals: int = 0
    _until_ms: int = 0
    _status: int = 200

    def charge(self, weight: int, now_ms: int) -> Verdict:
        """Count a request of ``weight`` at ``now_ms``; refused ones count too."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += weight
        if now_ms >= self._until_ms:
            self._status = 200
            if self.used > self.limit:
                self._status, self._until_ms, self._refusals = 429, (minute + 1) * MINUTE_MS, 0
        if self._status == 200:
            return Verdict(200, self.used)
        self._refusals += 1
        if self._status == 429 and self._refusals > self.refusals_before_ban:
            self._status, self._until_ms = 418, now_ms + self.ban_seconds * 1000
        return self._refusal(now_ms)

    def ban(self, status: int, seconds: float, now_ms: int) -> None:
        """Refuse everything with ``status`` (429 or 418) for ``seconds``."""
        self._status, self._until_ms, self._refusals = status, now_ms + int(seconds * 1000), 0

    def _refusal(self, now_ms: int) -> Verdict:
        seconds = max(1, -(-(self._until_ms - now_ms) // 1000))
        return Verdict(self._status, self.used, seconds, self._until_ms)


def refusal_message(verdict: Verdict, limit: int, address: str) -> tuple[int, str]:
    """Return Binance's code and text for a 429 or 418."""
    advice = "Please use WebSocket Streams for live updates to avoid"
    if verdict.status == 418:
        return -1003, f"Way too much request weight used; IP banned until {verdict.until_ms}. {advice} bans."
    text = f"Too many requests; current limit of IP({address}) is {limit} requests per minute."
    return -1003, f"{text} {advice} polling the API."
