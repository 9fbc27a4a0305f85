"""Signs of life of one connection, and how fast frames may leave on it. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import deque


class Pace:
    """At most ``per_second`` frames in any second, evenly spaced: the server's window is not ours."""

    __slots__ = ("_per_second", "_sent")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._sent: deque[float] = deque(maxlen=per_second)

    def wait(self, now: float) -> float:
        """Return how long the next frame has to wait."""
        if not self._sent:
            return 0.0
        spaced = self._sent[-1] + 1.0 / self._per_second - now
        full = self._sent[0] + 1.0 - now if len(self._sent) == self._per_second else 0.0
        return max(0.0, spaced, full)

    def spend(self, now: float) -> None:
        """Count a frame that leaves now."""
        self._sent.append(now)


class KeepAlive:
    """Says when a ping is due, and when the peer is gone: nothing at all came since our last ping.

    Args:
        ping_seconds: time between our pings.
        pong_seconds: time for any sign of life after one.
    """

    __slots__ = ("_active_at", "_awaiting", "_ping_seconds", "_pinged_at", "_pong_seconds")

    def __init__(self, ping_seconds: float, pong_seconds: float) -> None:
        self._ping_seconds, self._pong_seconds = ping_seconds, pong_seconds
        self._active_at = 0.0
        self._pinged_at = 0.0
        self._awaiting = False

    def opened(self, now: float) -> None:
        """Begin: the handshake is done."""
        self._active_at = self._pinged_at = now

    def active(self, now: float) -> None:
        """Note a frame, a ping or a pong."""
        self._active_at = now
        self._awaiting = False

    def pinged(self, now: float) -> None:
        """Note that our ping leaves."""
        self._pinged_at = now
        self._awaiting = True

    def quiet(self, now: float) -> float:
        """Return for how long nothing came."""
        return now - self._active_at

    def due(self, now: float) -> bool:
        """Whether it is time for a ping."""
        return not self._awaiting and now - self._pinged_at >= self._ping_seconds

    def gone(self, now: float) -> bool:
        """Whether the peer is gone."""
        return self._awaiting and now - self._pinged_at >= self._pong_seconds
