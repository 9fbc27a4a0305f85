"""The life of one connection to private events, without the socket and without keys. Pure.

On spot it is a connection to the WebSocket API: accounts log in by frames, one after the other, so that an event with a
subscription id nobody has told us yet can only belong to the account whose answer is due. On futures the listen key in
the URL is the login. A connection carries every account it was made for, or those of them that are let in.

Inputs are methods that take ``now`` (monotonic seconds) and return effects, values the shell carries out in order, as
with :class:`~bridge.core.session.Session`, whose states these are: SUBSCRIBING here means that accounts log in. No
input raises, whatever the order.

Source: facts sheets, spot sections 2.4 and 5.2, derivatives section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, NamedTuple

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
from bridge.core.refusals import ALREADY_SUBSCRIBED, BAD_TIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.private_settings import PrivateSettings

Entry = Literal["logon", "signature", "url"]
"""How an account gets in: ``session.logon`` (Ed25519, alone on its connection), a signed subscription, the URL."""

SignedMethod = Literal["session.logon", "userDataStream.subscribe.signature"]
LISTEN_KEY_EXPIRED = "listenKeyExpired"

_SHUTDOWN = "serverShutdown"
_ENDS = {
    LISTEN_KEY_EXPIRED: "the listen key expired",
    "eventStreamTerminated": "the exchange ended the user data stream",
}


class SendSigned(NamedTuple):
    """Sign a request for an account, and send it."""

    request_id: int
    account: str
    method: SignedMethod


class Entered(NamedTuple):
    """The account's events come from now on."""

    account: str


class Refused(NamedTuple):
    """The exchange doesn't let the account in."""

    account: str
    code: int | None
    message: str


class OffClock(NamedTuple):
    """The exchange finds the time of the account's login wrong: measure its clock anew, then call ``login``. Once."""

    account: str


class Expired(NamedTuple):
    """The account's events come no longer, though the connection may stay open."""

    account: str
    reason: str


UserEffect = Send | SendSigned | Ping | Close | Tell | Rotate | Entered | Refused | OffClock | Expired


class UserEvent(NamedTuple):
    """A private event.

    Attributes:
        kind: its type, ``e``.
        subscription: of the WebSocket API; None on futures.
    """

    kind: str
    subscription: int | None


class Reply(NamedTuple):
    """The answer to a request, or a refusal that answers none (``request_id`` None)."""

    request_id: int | None
    status: int
    code: int | None
    message: str
    result: bytes


class _Error(msgspec.Struct):
    code: int | None = None
    msg: str = ""


class _Event(msgspec.Struct):
    e: str = ""


class _Message(msgspec.Struct):
    id: int | str | None = None
    status: int | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None
    subscriptionId: int | None = None  # noqa: N815 - the exchange's own name
    event: _Event | None = None
    e: str | None = None


class _Subscription(msgspec.Struct):
    subscriptionId: int  # noqa: N815


_decode = msgspec.json.Decoder(_Message).decode
_decode_one = msgspec.json.Decoder(_Subscription).decode
_decode_list = msgspec.json.Decoder(list[_Subscription]).decode
_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_message(payload: bytes) -> UserEvent | Reply | None:
    """Say what a message of a private connection is; None for garbage."""
    try:
        message = _decode(payload)
    except _ERRORS:
        return None
    if message.event is not None:
        return UserEvent(message.event.e, message.subscriptionId)
    if message.e is not None:
        return UserEvent(message.e, None)
    if message.status is None and message.error is None:
        return None
    error = message.error or _Error()
    number = message.id if isinstance(message.id, int) else None
    return Reply(number, message.status or 0, error.code, error.msg, bytes(message.result))


class _Step(Enum):
    WAITING = auto()
    HELD = auto()  # until the exchange's clock was measured anew
    LOGGING_ON = auto()
    SUBSCRIBING = auto()
    IN = auto()
    OUT = auto()


@dataclass(slots=True, eq=False)
class _Login:
    account: str
    entry: Entry
    step: _Step = _Step.WAITING
    subscription: int | None = None
    off_clock: bool = False


class UserSession:
    """One connection. See the module's own words.

    Args:
        settings: times of connections.
        own: times of private streams.
        accounts: who is to be listened to, and how each gets in.
        frames_per_second: the pace on this host.
        lifetime_seconds: age at which the connection asks to be rotated.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        own: PrivateSettings,
        *,
        accounts: Mapping[str, Entry],
        frames_per_second: int,
        lifetime_seconds: float,
    ) -> None:
        self._settings, self._own = settings, own
        self._logins = {account: _Login(account, entry) for account, entry in accounts.items()}
        self._life = ConnectionLife(
            settings,
            frames_per_second=frames_per_second,
            lifetime_seconds=lifetime_seconds,
            names=lambda: tuple(self._logins),
        )
        self._next_id = 1
        self._asked: _Login | None = None
        self._asked_id = 0
        self._asked_at = 0.0
        self._probe_id = 0
        self._probed_at = 0.0

    # What the shell asks.

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._life.state

    @property
    def carrying(self) -> bool:
        """Whether events may come: open and not closing."""
        return self._life.carrying

    @property
    def accounts(self) -> tuple[str, ...]:
        """Every account it was asked to carry."""
        return tuple(self._logins)

    @property
    def entered(self) -> tuple[str, ...]:
        """The accounts whose events come."""
        return tuple(one.account for one in self._logins.values() if one.step is _Step.IN)

    @property
    def settled(self) -> bool:
        """Whether every account is in or was refused."""
        return self.carrying and all(one.step in (_Step.IN, _Step.OUT) for one in self._logins.values())

    def account_of(self, event: UserEvent) -> str | None:
        """Return whose event it is; None where it is the connection's, or nobody's."""
        if event.kind == _SHUTDOWN:
            return None
        if event.subscription is None:
            by_url = [one.account for one in self._logins.values() if one.entry == "url"]
            return by_url[0] if by_url else None
        for one in self._logins.values():
            if one.subscription == event.subscription:
                return one.account
        asked = self._asked
        return asked.account if asked is not None and asked.step is _Step.SUBSCRIBING else None

    def wake_in(self, now: float) -> float:
        """Return after how many seconds ``tick`` is due at the latest."""
        waiting = self._asked is None and any(one.step is _Step.WAITING for one in self._logins.values())
        tick = self._settings.tick_seconds
        return min(tick, max(self._life.pace.wait(now), 0.001)) if waiting and self.carrying else tick

    # Inputs.

    def opened(self, now: float) -> list[UserEffect]:
        """The handshake is done: let the accounts in."""
        if not self._life.opened(now):
            return []
        self._probed_at = now
        effects: list[UserEffect] = []
        for one in self._logins.values():
            if one.entry == "url":
                one.step = _Step.IN
                effects.append(Entered(one.account))
        return effects + self._pump(now)

    def active(self, now: float) -> None:
        """Anything at all came from the peer."""
        self._life.active(now)

    def pinged(self, now: float) -> None:
        """The peer pinged and the shell answered."""
        self._life.pinged(now)

    def login(self, now: float, account: str, entry: Entry) -> list[UserEffect]:
        """Let in an account that is out or held, or was not among the first ones. Without effect on any other."""
        one = self._logins.setdefault(account, _Login(account, entry, _Step.OUT))
        if one.step not in (_Step.OUT, _Step.HELD) or one.entry == "url":
            return []
        one.off_clock = one.step is _Step.HELD
        one.step = _Step.WAITING
        return self._pump(now)

    def expire(self, account: str, reason: str) -> list[UserEffect]:
        """Note that an account's events come no longer, as is known from elsewhere."""
        return self._out(account, reason) if self.carrying else []

    def message(self, now: float, message: UserEvent | Reply | None) -> list[UserEffect]:
        """Take a message, as :func:`read_message` read it."""
        self.active(now)
        if not self.carrying:
            return []
        if isinstance(message, UserEvent):
            return self._happened(message)
        return [] if message is None else self._replied(now, message)

    def rotate(self, reason: str) -> list[UserEffect]:
        """Ask for a successor, once; the connection carries on until it is closed."""
        return [*self._life.rotate(reason)]

    def close(self, code: int, reason: str) -> list[UserEffect]:
        """Close the connection."""
        return [*self._life.close(code, reason)]

    def lost(self, code: int | None, reason: str) -> list[UserEffect]:
        """The socket is closed, by whomever. Where we closed it, our reason is the one told."""
        return [*self._life.lost(code, reason)]

    def tick(self, now: float) -> list[UserEffect]:
        """Time passed: keep alive, go on with logins, look after subscriptions."""
        if not self.carrying:
            return []
        stale = self._life.stale(now)
        if stale:
            return [*stale]
        if (self._asked is not None or self._probe_id) and self._late(now):
            patience = self._settings.acknowledgement_seconds
            return self.close(RECONNECT, f"no answer for {patience:g} s")
        return [*self._life.keep_alive(now), *self._pump(now), *self._probe(now), *self._life.aged(now)]

    # Steps.

    def _happened(self, event: UserEvent) -> list[UserEffect]:
        if event.kind == _SHUTDOWN:
            return self.rotate(_SHUTDOWN)
        ends = _ENDS.get(event.kind)
        return [] if ends is None else self._out(self.account_of(event), ends)

    def _replied(self, now: float, reply: Reply) -> list[UserEffect]:
        if reply.request_id is None:
            return self._revoked(reply)
        if reply.request_id == self._probe_id:
            return self._probed(reply)
        if self._asked is not None and reply.request_id == self._asked_id:
            return self._answered(now, self._asked, reply)
        return []

    def _late(self, now: float) -> bool:
        return now - self._asked_at >= self._settings.acknowledgement_seconds

    def _pump(self, now: float) -> list[UserEffect]:
        """Let the next account in, once the one before is."""
        waiting = next((one for one in self._logins.values() if one.step is _Step.WAITING), None)
        if waiting is None:
            return self._settle()
        if self._asked is not None or self._probe_id or not self.carrying or self._life.pace.wait(now) > 0:
            return []
        number = self._number(now)
        self._asked, self._asked_id = waiting, number
        if waiting.entry == "logon":
            waiting.step = _Step.LOGGING_ON
            return [SendSigned(number, waiting.account, "session.logon")]
        waiting.step = _Step.SUBSCRIBING
        return [SendSigned(number, waiting.account, "userDataStream.subscribe.signature")]

    def _settle(self) -> list[UserEffect]:
        if self.settled and self.entered and self._life.move(Trigger.SUBSCRIBED):
            return [Tell("connection.subscribed", self.entered)]
        return []

    def _number(self, now: float) -> int:
        self._life.pace.spend(now)
        self._asked_at = now
        number = self._next_id
        self._next_id += 1
        return number

    def _answered(self, now: float, one: _Login, reply: Reply) -> list[UserEffect]:
        self._asked = None
        if reply.code is not None or reply.status != 200:
            return self._turned_away(now, one, reply)
        if one.step is _Step.LOGGING_ON:
            one.step = _Step.SUBSCRIBING
            self._asked, self._asked_id = one, self._number(now)
            return [Send(b'{"id":%d,"method":"userDataStream.subscribe"}' % self._asked_id)]
        try:
            one.subscription = _decode_one(reply.result).subscriptionId
        except _ERRORS:
            one.step = _Step.OUT
            return [Refused(one.account, None, "the answer to subscribing has no subscriptionId")]
        one.step = _Step.IN
        return [Entered(one.account), *self._pump(now)]

    def _turned_away(self, now: float, one: _Login, reply: Reply) -> list[UserEffect]:
        if (
            reply.code == ALREADY_SUBSCRIBED
        ):  # what we believe and what the exchange believes differ: begin anew
            return self.close(RECONNECT, f"{one.account} is subscribed already")
        if reply.code == BAD_TIME and not one.off_clock:
            one.step = _Step.HELD
            return [OffClock(one.account), *self._pump(now)]
        one.step = _Step.OUT
        return [Refused(one.account, reply.code, reply.message), *self._pump(now)]

    def _probe(self, now: float) -> list[UserEffect]:
        """Ask whether our subscriptions stand. A session whose key was deleted hears of it with its next request."""
        listening = any(one.subscription is not None for one in self._logins.values())
        due = now - self._probed_at >= self._own.probe_seconds
        if (
            not listening
            or not due
            or self._asked is not None
            or self._probe_id
            or self._life.pace.wait(now) > 0
        ):
            return []
        self._probed_at = now
        self._probe_id = self._number(now)
        return [Send(b'{"id":%d,"method":"session.subscriptions"}' % self._probe_id)]

    def _probed(self, reply: Reply) -> list[UserEffect]:
        self._probe_id = 0
        try:
            standing = {one.subscriptionId for one in _decode_list(reply.result)}
        except _ERRORS:
            return []  # refused, for its weight perhaps: the next one will tell
        effects: list[UserEffect] = []
        for one in self._logins.values():
            if one.step is _Step.IN and one.subscription is not None and one.subscription not in standing:
                effects += self._out(
                    one.account, "the exchange dropped the subscription: is the key still good?"
                )
        return effects

    def _revoked(self, reply: Reply) -> list[UserEffect]:
        """Take a refusal that answers no request: the session's key is accepted no longer."""
        effects: list[UserEffect] = []
        for one in self._logins.values():
            if one.entry == "logon" and one.step is not _Step.OUT:
                effects += self._out(
                    one.account, f"the session's key is accepted no longer (code {reply.code})"
                )
        return effects

    def _out(self, account: str | None, reason: str) -> list[UserEffect]:
        one = self._logins.get(account or "")
        if one is None or one.step is _Step.OUT:
            return []
        if self._asked is one:
            self._asked = None
        one.step, one.subscription = _Step.OUT, None
        return [Expired(one.account, reason)]
