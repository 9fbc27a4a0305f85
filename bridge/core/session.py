"""The life of one WebSocket connection to Binance, without the socket. Pure.

Inputs are methods; most take ``now`` (monotonic seconds). They return effects, values the shell carries out
in order:

========================  =====================================================================
``opened``                the handshake is done
``control``               bytes of a message that is no stream data: answers and ``!serverShutdown``
``active``                a frame, ping or pong came; returns nothing, as it is called for each wake-up
``pinged``                the shell answered a ping: the pong counts into the pace
``tick``                  time passed; call it at least every ``wake_in`` seconds
``add``, ``remove``       streams to carry from now on, or no longer
``market_answered``       REST's answer to ``AskMarket``
``rotate``, ``close``     someone wants the connection replaced, or gone
``lost``                  the socket is closed
========================  =====================================================================

Rule 1: everything that decides the state is in :data:`~bridge.core.connection_life.TRANSITIONS`.
Rule 2: no input raises, whatever the order.
Rule 3: in no second more control frames leave (SUBSCRIBE and its kin, pings, pongs) than the exchange allows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.core.connection_life import (
    RECONNECT,
    Close,
    ConnectionLife,
    Ping,
    Rotate,
    Send,
    State,
    Tell,
    Trigger,
)
from bridge.core.liveness import MARKET_MOVED, Ask, Deaf, Liveness, Marker, Silent
from bridge.core.spread import Method, batches, control_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bridge.core.connection_settings import ConnectionSettings
    from bridge.model import Stream, StreamState


class AskMarket(NamedTuple):
    """Ask REST whether the stream's market moves; the answer goes to ``market_answered``."""

    stream: Stream


Effect = Send | Ping | Close | Tell | AskMarket | Rotate


class Answer(NamedTuple):
    """The exchange accepted a request."""

    request_id: int | str | None


class Refusal(NamedTuple):
    """The exchange refused a request."""

    request_id: int | str | None
    code: int | None
    message: str


class Shutdown(NamedTuple):
    """The exchange announces that the server stops."""


TOO_MANY_SUBSCRIPTIONS = 4
_SHUTDOWN = "serverShutdown"
_CONTROL_MAX_BYTES = 256 * 1024


class _Error(msgspec.Struct):
    code: int | None = None
    msg: str = ""


class _Event(msgspec.Struct):
    e: str = ""


class _Control(msgspec.Struct):
    id: int | str | None = None
    error: _Error | None = None
    code: int | None = None
    msg: str | None = None
    e: str | None = None
    stream: str | None = None
    event: _Event | None = None


_decode = msgspec.json.Decoder(_Control).decode


def read_control(payload: bytes) -> Answer | Refusal | Shutdown | None:
    """Say what a message that is no stream data means; None for anything else, garbage included.

    Errors come flat (``{"code":2,"msg":…}``, as documented) and nested (``{"error":{"code":2,…},"id":1}``, as
    seen); ``serverShutdown`` comes raw, in the combined wrapper, and in the WebSocket API's ``event``.
    """
    if len(payload) > _CONTROL_MAX_BYTES:
        return None
    try:
        message = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    event = message.e if message.event is None else message.event.e
    if message.stream == f"!{_SHUTDOWN}" or event == _SHUTDOWN:
        return Shutdown()
    if message.stream is not None or event is not None:
        return None
    error = message.error or (_Error(message.code, message.msg or "") if message.code is not None else None)
    if error is not None:
        return Refusal(message.id, error.code, error.msg)
    # {"result":null,"id":1}: null and absent look alike, the id tells an answer from anything else.
    return Answer(message.id) if message.id is not None else None


@dataclass(slots=True, eq=False)
class _Request:
    method: Method
    names: tuple[str, ...]
    attempt: int = 1
    sent_at: float = 0.0
    ids: list[int] = field(default_factory=list)


class Session:
    """One connection. See the module's own words for the rules.

    Args:
        settings: times and sizes.
        control_frames_per_second: the pace on this host.
        lifetime_seconds: age at which the connection asks to be rotated (jitter is the caller's).
        states: the leg's stream states by UTF-8 name; the caller puts each stream in before it adds it here.
        patience: see :class:`~bridge.core.liveness.Liveness`,
        others: as well.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        control_frames_per_second: int,
        lifetime_seconds: float,
        states: Mapping[bytes, StreamState],
        patience: Mapping[str, int] | None = None,
        others: Callable[[str], int] | None = None,
    ) -> None:
        self.streams: dict[str, Stream] = {}
        self._settings = settings
        self._life = ConnectionLife(
            settings,
            frames_per_second=control_frames_per_second,
            lifetime_seconds=lifetime_seconds,
            names=lambda: tuple(self.streams),
        )
        self._states = states
        self._liveness = Liveness(settings, patience, others)
        self._queue: deque[_Request] = deque()
        self._in_flight: dict[int, _Request] = {}
        self._next_id = 1
        self._answered: list[str] = []

    # What the shell asks.

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._life.state

    @property
    def carrying(self) -> bool:
        """Whether data may come: open and not closing."""
        return self._life.carrying

    @property
    def subscribed(self) -> bool:
        """Whether every SUBSCRIBE so far has its answer."""
        return self.carrying and not self._subscribing()

    def unproven(self) -> tuple[str, ...]:
        """Return the acknowledged streams of which no frame has come yet."""
        return self._liveness.unproven()

    def wake_in(self, now: float) -> float:
        """Return after how many seconds ``tick`` is due at the latest."""
        tick = self._settings.tick_seconds
        return min(tick, max(self._life.pace.wait(now), 0.001)) if self._queue and self.carrying else tick

    # Inputs.

    def opened(self, now: float) -> list[Effect]:
        """The handshake is done: subscribe to everything added so far."""
        if not self._life.opened(now):
            return []
        effects = self._ask("SUBSCRIBE", self.streams)
        return effects + self._pump(now)

    def active(self, now: float) -> None:
        """Anything at all came from the peer."""
        self._life.active(now)

    def pinged(self, now: float) -> None:
        """The peer pinged and the shell answered."""
        self._life.pinged(now)

    def add(self, now: float, streams: Iterable[Stream]) -> list[Effect]:
        """Carry more streams. A name already carried is left alone."""
        added = {stream.name: stream for stream in streams if stream.name not in self.streams}
        self.streams.update(added)
        if not self.carrying:
            return []
        effects = self._ask("SUBSCRIBE", added)
        return effects + self._pump(now)

    def remove(self, now: float, names: Iterable[str]) -> list[Effect]:
        """Carry streams no longer. A name not carried is left alone."""
        removed = [name for name in names if self.streams.pop(name, None) is not None]
        for name in removed:
            self._liveness.forget(name)
        if not self.carrying:
            return []
        effects = self._ask("UNSUBSCRIBE", removed)
        return effects + self._pump(now)

    def control(self, now: float, payload: bytes) -> list[Effect]:
        """Take a message that is no stream data."""
        self.active(now)
        if not self.carrying:
            return []
        match read_control(payload):
            case Answer(request_id):
                return self._accepted(now, request_id)
            case Refusal() as refusal:
                return self._refused(now, refusal)
            case Shutdown():
                return self.rotate(_SHUTDOWN)
            case None:
                return []

    def market_answered(self, now: float, name: str, marker: Marker | None) -> list[Effect]:
        """Take REST's answer to :class:`AskMarket`; None where it could not say."""
        self._liveness.answered(now, name, marker)
        return []

    def rotate(self, reason: str, deaf: str | None = None) -> list[Effect]:
        """Ask for a successor, once; the connection carries on until it is closed."""
        return [*self._life.rotate(reason, deaf)]

    def close(self, code: int, reason: str, *, abort: bool = False) -> list[Effect]:
        """Close the connection."""
        return self._ended([*self._life.close(code, reason, abort=abort)])

    def lost(self, code: int | None, reason: str) -> list[Effect]:
        """The socket is closed, by whomever. Where we closed it, our reason is the one told."""
        return [*self._life.lost(code, reason)]

    def tick(self, now: float) -> list[Effect]:
        """Time passed: keep alive, pace out what waits, and look for whatever should have come."""
        if not self.carrying:
            return []
        ended = self._ended([*self._life.stale(now)]) or self._overdue(now)
        if ended:
            return ended
        effects = [*self._life.keep_alive(now), *self._pump(now), *self._look(now)]
        return [*effects, *self._life.aged(now)]

    # Steps.

    def _ended(self, effects: list[Effect]) -> list[Effect]:
        """Ask for nothing any more where the connection is closed with these effects."""
        if effects:
            self._queue.clear()
            self._in_flight.clear()
        return effects

    def _subscribing(self) -> bool:
        return any(request.method == "SUBSCRIBE" for request in (*self._queue, *self._in_flight.values()))

    def _ask(self, method: Method, names: Iterable[str]) -> list[Effect]:
        frames, oversized = batches(
            method, names, self._settings.subscribe_names, self._settings.subscribe_bytes
        )
        self._queue.extend(_Request(method, batch) for batch in frames)
        if not oversized or method != "SUBSCRIBE":
            return []
        return self._reject(oversized, None, "the name does not fit a control frame")

    def _pump(self, now: float) -> list[Effect]:
        """Send what waits, as far as the pace allows. A pace slot is spent for each frame returned."""
        effects: list[Effect] = []
        while self._queue and self._life.pace.wait(now) <= 0:
            request = self._queue.popleft()
            # Names removed again while they waited; their UNSUBSCRIBE follows and does no harm.
            if request.method == "SUBSCRIBE":
                request.names = tuple(name for name in request.names if name in self.streams)
                if not request.names:
                    self._withdraw(request)
                    continue
            self._life.pace.spend(now)
            request.sent_at = now
            request.ids.append(self._next_id)
            self._in_flight[self._next_id] = request
            effects.append(Send(control_frame(request.method, request.names, self._next_id)))
            self._next_id += 1
        return effects + self._settle()

    def _settle(self) -> list[Effect]:
        """Say what was subscribed, once nothing is under way any more."""
        if self._subscribing():
            return []
        self._life.move(Trigger.SUBSCRIBED)
        if not self._answered:
            return []
        names, self._answered = tuple(self._answered), []
        return [Tell("connection.subscribed", names)]

    def _take(self, request_id: int | str | None) -> _Request | None:
        """Find the request an answer belongs to; one without id answers the oldest."""
        if request_id is None and self._in_flight:
            request_id = min(self._in_flight)
        if not isinstance(request_id, int) or request_id not in self._in_flight:
            return None
        request = self._in_flight[request_id]
        self._withdraw(request)
        return request

    def _withdraw(self, request: _Request) -> None:
        for used in request.ids:
            self._in_flight.pop(used, None)
        if request in self._queue:  # it waited to be sent a second time
            self._queue.remove(request)

    def _accepted(self, now: float, request_id: int | str | None) -> list[Effect]:
        request = self._take(request_id)
        if request is not None and request.method == "SUBSCRIBE":
            for name in request.names:
                state = self._states.get(name.encode())
                if name in self.streams and state is not None:
                    self._liveness.acknowledged(now, state)
                    self._answered.append(name)
        return self._pump(now)

    def _refused(self, now: float, refusal: Refusal) -> list[Effect]:
        request, code = self._take(refusal.request_id), refusal.code
        if request is None or request.method != "SUBSCRIBE":
            return self._pump(now)
        if len(request.names) > 1 and code != TOO_MANY_SUBSCRIPTIONS:
            # One bad name refuses its whole frame: halve it until the culprit stands alone.
            middle = len(request.names) // 2
            halves = (request.names[:middle], request.names[middle:])
            self._queue.extend(_Request("SUBSCRIBE", half) for half in halves)
            return self._pump(now)
        rejected = self._reject(request.names, code, refusal.message)
        return rejected + self._pump(now)

    def _reject(self, names: Sequence[str], code: int | None, message: str) -> list[Effect]:
        for name in names:
            self.streams.pop(name, None)
            self._liveness.forget(name)
        return [Tell("connection.subscription-rejected", tuple(names), code, message[:200])]

    def _overdue(self, now: float) -> list[Effect]:
        """Send a request without an answer once more; without one again, give the connection up."""
        patience = self._settings.acknowledgement_seconds
        late = {
            id(request): request for request in self._in_flight.values() if now - request.sent_at >= patience
        }
        for request in late.values():
            if request in self._queue:
                continue
            if request.attempt > 1:
                return self.close(RECONNECT, f"no answer to {request.method} for {2 * patience:g} s")
            request.attempt += 1
            self._queue.append(request)
        return []

    def _look(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        quiet = self._life.quiet(now)
        for finding in self._liveness.tick(now):
            match finding:
                case Silent(_, _, proof) if (
                    proof != MARKET_MOVED and quiet >= self._settings.other_leg_seconds
                ):
                    # Not one stream, the whole connection says nothing: subscribing again would go nowhere.
                    gone = self._life.gone(f"no frame, ping or pong for {quiet:.1f} s while {proof}")
                    return self._ended([*gone])
                case Ask(stream):
                    effects.append(AskMarket(stream))
                case Silent(stream, seconds, proof):
                    reason = f"no frame for {seconds:.0f} s while {proof}; subscribing again"
                    effects.append(Tell("stream.silent", (stream.name,), None, reason))
                    # SUBSCRIBE alone is answered and ignored for a name the exchange believes subscribed.
                    effects += self._ask("UNSUBSCRIBE", [stream.name])
                    effects += self._ask("SUBSCRIBE", [stream.name])
                case Deaf(stream, seconds, _):
                    reason = (
                        f"still no frame {seconds:.0f} s after subscribing again; replacing the connection"
                    )
                    effects.append(Tell("stream.silent", (stream.name,), None, reason))
                    effects += self.rotate(f"stream {stream.name} is silent", stream.name)
        return effects
