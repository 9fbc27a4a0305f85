"""What every connection's life has in common: its states, signs of life, pace, age and end. Pure.

The sessions of public and of private connections say what is asked of the exchange; they have one of these each. Rule:
everything that decides the state is in :data:`TRANSITIONS`. A trigger that a state doesn't list is ignored.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.core.keep_alive import KeepAlive, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.core.connection_settings import ConnectionSettings


class State(Enum):
    """Where a connection is in its life."""

    CONNECTING = auto()
    SUBSCRIBING = auto()
    LIVE = auto()
    ROTATING = auto()  # delivers on, while its successor is being proven
    CLOSING = auto()
    CLOSED = auto()


class Trigger(Enum):
    """What moves a connection from one state to the next."""

    OPENED = auto()
    SUBSCRIBED = auto()
    ROTATE = auto()
    CLOSE = auto()
    LOST = auto()


TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.CONNECTING: {
        Trigger.OPENED: State.SUBSCRIBING,
        Trigger.CLOSE: State.CLOSING,
        Trigger.LOST: State.CLOSED,
    },
    State.SUBSCRIBING: {
        Trigger.SUBSCRIBED: State.LIVE,
        Trigger.ROTATE: State.ROTATING,
        Trigger.CLOSE: State.CLOSING,
        Trigger.LOST: State.CLOSED,
    },
    State.LIVE: {
        Trigger.ROTATE: State.ROTATING,
        Trigger.CLOSE: State.CLOSING,
        Trigger.LOST: State.CLOSED,
    },
    State.ROTATING: {
        Trigger.CLOSE: State.CLOSING,
        Trigger.LOST: State.CLOSED,
    },
    State.CLOSING: {Trigger.LOST: State.CLOSED},
    State.CLOSED: {},
}

RECONNECT = 4000
"""Our own close code: nobody but logs reads it."""
_ABNORMAL = 1006
_CARRYING = frozenset({State.SUBSCRIBING, State.LIVE, State.ROTATING})

SessionEvent = Literal[
    "connection.subscribed",
    "connection.subscription-rejected",
    "connection.stale",
    "stream.silent",
    "connection.closed",
]


class Send(NamedTuple):
    """Send a text message."""

    payload: bytes


class Ping(NamedTuple):
    """Send a ping."""


class Close(NamedTuple):
    """Close the socket; ``abort`` where the peer is gone and no closing handshake will come."""

    code: int
    reason: str
    abort: bool = False


class Tell(NamedTuple):
    """Emit a lifecycle event of this connection."""

    event: SessionEvent
    streams: tuple[str, ...] = ()
    code: int | None = None
    reason: str | None = None


class Rotate(NamedTuple):
    """Open a successor; close this connection once that one is proven."""

    reason: str
    deaf: str | None = None


class ConnectionLife:
    """The life of one connection.

    Args:
        settings: times.
        frames_per_second: the pace on this host.
        lifetime_seconds: age at which the connection asks to be rotated (jitter is the caller's).
        names: what it carries, for events.

    Attributes:
        state: where it is.
        pace: how fast frames may leave; whoever returns one spends a slot of it.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        frames_per_second: int,
        lifetime_seconds: float,
        names: Callable[[], tuple[str, ...]],
    ) -> None:
        self.state = State.CONNECTING
        self.pace = Pace(frames_per_second)
        self._alive = KeepAlive(settings.ping_seconds, settings.pong_seconds)
        self._lifetime, self._names = lifetime_seconds, names
        self._opened_at = 0.0
        self._closing: str | None = None

    @property
    def carrying(self) -> bool:
        """Whether data may come: open and not closing."""
        return self.state in _CARRYING

    def move(self, trigger: Trigger) -> bool:
        """Go to the next state; return whether there is one."""
        target = TRANSITIONS[self.state].get(trigger)
        if target is None:
            return False
        self.state = target
        return True

    def opened(self, now: float) -> bool:
        """Note that the handshake is done; return whether that was waited for."""
        self._opened_at = now
        self._alive.opened(now)
        return self.move(Trigger.OPENED)

    def active(self, now: float) -> None:
        """Note that anything at all came from the peer."""
        self._alive.active(now)

    def pinged(self, now: float) -> None:
        """Note that the peer pinged and the shell answered: the pong counts into the pace."""
        self._alive.active(now)
        self.pace.spend(now)

    def quiet(self, now: float) -> float:
        """Return for how long nothing came."""
        return self._alive.quiet(now)

    def rotate(self, reason: str, deaf: str | None = None) -> list[Rotate]:
        """Ask for a successor, once; the connection carries on until it is closed."""
        return [Rotate(reason, deaf)] if self.move(Trigger.ROTATE) else []

    def aged(self, now: float) -> list[Rotate]:
        """Ask for a successor where the connection is old."""
        age = now - self._opened_at
        return self.rotate(f"age of {age:.0f} s") if age >= self._lifetime else []

    def close(self, code: int, reason: str, *, abort: bool = False) -> list[Close]:
        """Close the connection."""
        if not self.move(Trigger.CLOSE):
            return []
        self._closing = reason
        return [Close(code, reason, abort)]

    def lost(self, code: int | None, reason: str) -> list[Tell]:
        """Note that the socket is closed, by whomever. Where we closed it, our reason is the one told."""
        if not self.move(Trigger.LOST):
            return []
        return [Tell("connection.closed", self._names(), code, self._closing or reason)]

    def stale(self, now: float) -> list[Tell | Close]:
        """End a connection whose peer is gone: nothing at all came since our last ping."""
        if not self._alive.gone(now):
            return []
        return self.gone(f"no frame, ping or pong for {self.quiet(now):.1f} s")

    def gone(self, reason: str) -> list[Tell | Close]:
        """End a connection whose peer is known to be gone."""
        told = Tell("connection.stale", self._names(), None, reason)
        return [told, *self.close(_ABNORMAL, reason, abort=True)]

    def keep_alive(self, now: float) -> list[Ping]:
        """Ping where it is time and the pace allows."""
        if not self._alive.due(now) or self.pace.wait(now) > 0:
            return []
        self.pace.spend(now)
        self._alive.pinged(now)
        return [Ping()]
