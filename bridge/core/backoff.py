"""How long to wait before connecting again, and how often connecting is allowed at all. Pure.

A handshake that succeeds proves nothing: a host that accepts and closes at once would otherwise be asked
thousands of times, and Binance bans an IP that opens more than 300 connections in five minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.private_settings import PrivateSettings

#: Least waits by what the host said. 429 and 418 prolong themselves when they are ignored; a firewall (403),
#: a barred country (451) and a certificate that doesn't hold don't mend within seconds.
_LEAST_SECONDS = {429: 60.0, 418: 300.0, 403: 300.0, 451: 900.0}
_LEAST_SECONDS_TLS = 120.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection could not be opened.

    Attributes:
        status: HTTP status of the refused handshake, where there was one.
        retry_after: what the host asked us to wait, in seconds.
        tls: whether the certificate or TLS itself was the reason.
    """

    status: int | None = None
    retry_after: float | None = None
    tls: bool = False

    @property
    def bars_ip(self) -> bool:
        """Whether the refusal concerns the whole IP, not this connection alone."""
        return self.status in (418, 429, 403)

    @property
    def least_seconds(self) -> float:
        """The least wait this failure calls for; 0 for an ordinary one."""
        least = _LEAST_SECONDS.get(self.status or 0, _LEAST_SECONDS_TLS if self.tls else 0.0)
        return max(least, self.retry_after or 0.0)


class Backoff:
    """Full-jitter exponential back-off of one seat: each wait lies between the minimum and a growing ceiling.

    Attributes:
        attempt: failures in a row.
    """

    __slots__ = ("_maximum", "_minimum", "_random", "attempt")

    def __init__(self, settings: ConnectionSettings, random: Callable[[], float]) -> None:
        self._minimum = settings.retry_minimum_seconds
        self._maximum = settings.retry_maximum_seconds
        self._random = random
        self.attempt = 0

    def failed(self, failure: Failure | None = None) -> float:
        """Count a failure and return the seconds to wait before the next attempt."""
        self.attempt += 1
        ceiling = min(self._maximum, self._minimum * 2.0 ** min(self.attempt, 32))
        drawn = self._minimum + self._random() * max(0.0, ceiling - self._minimum)
        if failure is None:
            return drawn
        # The jitter on top keeps many seats from coming back in the same moment.
        return max(drawn, failure.least_seconds * (1.0 + 0.25 * self._random()))

    def reset(self) -> None:
        """Forget earlier failures. Only for a connection on which data has flowed for a while."""
        self.attempt = 0


class LoginBackoff:
    """The wait after a key was refused: doubles with each refusal in a row, and is never shorter than the minimum.

    Nothing mends a refused key within seconds, and asking fast with one gets an IP banned.

    Attributes:
        attempt: refusals in a row.
    """

    __slots__ = ("_maximum", "_minimum", "_random", "attempt")

    def __init__(self, settings: PrivateSettings, random: Callable[[], float]) -> None:
        self._minimum = settings.retry_minimum_seconds
        self._maximum = settings.retry_maximum_seconds
        self._random = random
        self.attempt = 0

    def failed(self) -> float:
        """Count a refusal and return the seconds to wait, with up to a quarter more so that accounts spread."""
        wait = min(self._maximum, self._minimum * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return wait * (1.0 + 0.25 * self._random())

    def reset(self) -> None:
        """Forget earlier refusals. Only where events have been listened to for a while."""
        self.attempt = 0


class AttemptBudget:
    """A token bucket over connection attempts, shared by all pools of a process because the limit is per IP.

    In any stretch of T seconds at most ``burst + per_second * T`` attempts start.
    """

    __slots__ = ("_burst", "_held_until", "_per_second", "_tokens", "_updated_at")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._tokens = float(burst)
        self._updated_at: float | None = None
        self._held_until = 0.0

    def reserve(self, now: float) -> float:
        """Take one attempt and return after how many seconds it may be made (0: now)."""
        if self._updated_at is not None:
            grown = max(0.0, now - self._updated_at) * self._per_second
            self._tokens = min(self._burst, self._tokens + grown)
        self._updated_at = now if self._updated_at is None else max(now, self._updated_at)
        self._tokens -= 1.0
        wait = 0.0 if self._tokens >= 0 else -self._tokens / self._per_second
        return max(wait, self.held(now))

    def give_back(self) -> None:
        """Return a reserved attempt that was never made."""
        self._tokens = min(self._burst, self._tokens + 1.0)

    def hold(self, until: float) -> None:
        """Allow no attempt before ``until``: the host refused this IP."""
        self._held_until = max(self._held_until, until)

    def held(self, now: float) -> float:
        """Return for how many seconds more attempts are held."""
        return max(0.0, self._held_until - now)
