"""WebSocket API connections as the private side sees them: who is logged on, and who listens to which account.

Rules and texts are those of Binance's WebSocket API documentation. What ``session.logon`` says to an HMAC or RSA key
is not documented; the code here is the one that futures give for the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.simulator.accounts.guard import check_signature, check_time, identify
from bridge.simulator.accounts.keys import ws_payload
from bridge.simulator.accounts.refusal import Refused, malformed, missing
from bridge.simulator.wire import compact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey, Permission
    from bridge.simulator.accounts.registry import Registry, UserEvent

_MOST_ACTIVE = 1000
_MOST_EVER = 65_535
SESSION_METHODS = frozenset({"session.logon", "session.status", "session.logout"})
STREAM_METHODS = frozenset(
    {
        "session.subscriptions",
        "userDataStream.subscribe",
        "userDataStream.subscribe.signature",
        "userDataStream.unsubscribe",
    }
)
REVOKED = {
    "id": None,
    "status": 401,
    "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
}
"""What a session hears whose key no longer holds."""


@dataclass(slots=True)
class Subscription:
    """An account that a connection listens to."""

    account: str
    key: ApiKey
    by_logon: bool


@dataclass(slots=True, eq=False)
class Session:
    """One WebSocket API connection.

    Attributes:
        number: counts the simulator's WebSocket API connections from 1.
        market: of the host.
        address: of the client.
        connected_ms: when it was opened.
        send: sends a text.
        abort: resets the TCP connection.
        show_limits: what the URL said on rate limits in replies.
        key: the key that is logged on.
        authorized_ms: since when.
        subscriptions: by id.
    """

    number: int
    market: Market
    address: str
    connected_ms: int
    send: Callable[[bytes], None]
    abort: Callable[[], None]
    show_limits: bool = True
    key: ApiKey | None = None
    authorized_ms: int | None = None
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    _next_id: int = 0

    def shown(self) -> dict[str, object]:
        """Return what ``GET /state`` shows of it; no key."""
        return {
            "id": self.number,
            "market": self.market,
            "account": None if self.key is None else self.key.account,
            "subscriptions": {str(i): s.account for i, s in self.subscriptions.items()},
        }

    def status(self, told_ms: int) -> dict[str, object]:
        """Return the answer of ``session.status``."""
        return {
            "apiKey": None if self.key is None else self.key.key,
            "authorizedSince": self.authorized_ms,
            "connectedSince": self.connected_ms,
            "returnRateLimits": self.show_limits,
            "serverTime": told_ms,
            "userDataStream": bool(self.subscriptions),
        }

    def deliver(self, event: UserEvent) -> None:
        """Send an event to whichever subscription is for its account."""
        for number, subscription in self.subscriptions.items():
            if subscription.account == event.account:
                self.send(b'{"subscriptionId":%d,"event":%b}' % (number, event.data))

    def subscribe(self, key: ApiKey, *, by_logon: bool) -> int:
        """Listen to a key's account; return the subscription's id.

        Raises:
            Refused: -2035 it is listened to already; -2042 no ids are left.
        """
        if any(subscription.account == key.account for subscription in self.subscriptions.values()):
            raise Refused(-2035, "User Data Stream subscription already active.")
        if len(self.subscriptions) >= _MOST_ACTIVE or self._next_id >= _MOST_EVER:
            raise Refused(-2042, "Subscription ID limit reached.")
        number = self._next_id
        self._next_id += 1
        self.subscriptions[number] = Subscription(key.account, key, by_logon)
        return number

    def terminate(self, number: int, now_ms: int) -> None:
        """End a subscription and say so."""
        del self.subscriptions[number]
        self.send(compact({"subscriptionId": number, "event": {"e": "eventStreamTerminated", "E": now_ms}}))

    def drop_forbidden(self) -> None:
        """Drop subscriptions whose key no longer holds; the client is not told before it asks for something."""
        kept = {n: one for n, one in self.subscriptions.items() if one.key.allows("reading", self.address)}
        self.subscriptions = kept

    def log_off_forbidden(self) -> bool:
        """Log off a key that no longer holds; return whether it did."""
        self.drop_forbidden()
        if self.key is None or self.key.allows("reading", self.address):
            return False
        self.key = self.authorized_ms = None
        return True


class SessionDesk:
    """Answers what is about a connection itself: logging on and off, listening.

    Args:
        registry: the accounts.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def authenticate(
        self, session: Session, params: Mapping[str, str], permission: Permission, told_ms: int
    ) -> ApiKey:
        """Return the key of a request: its own, or the one that is logged on.

        Raises:
            Refused: there is none, or it does not hold.
        """
        if "apiKey" not in params and session.key is not None:
            key = identify(self._registry, session.market, session.key.key, session.address, permission)
            check_time(params, told_ms)
            return key
        if not params.get("apiKey"):
            raise missing("apiKey")
        key = identify(self._registry, session.market, params["apiKey"], session.address, permission)
        check_time(params, told_ms)
        check_signature(key, ws_payload(params), params.get("signature"))
        return key

    def answer(
        self, session: Session, method: str, params: Mapping[str, str], now_ms: int, told_ms: int
    ) -> object:
        """Answer a method of :data:`SESSION_METHODS` or :data:`STREAM_METHODS`.

        Args:
            session: the connection.
            method: the method's name.
            params: its parameters as text.
            now_ms: exchange time.
            told_ms: what the exchange believes and tells the time to be.

        Raises:
            Refused: it is refused.
        """
        match method:
            case "session.logon":
                self._log_on(session, params, now_ms, told_ms)
            case "session.logout":
                for number in [n for n, one in session.subscriptions.items() if one.by_logon]:
                    session.terminate(number, now_ms)
                session.key = session.authorized_ms = None
            case "session.subscriptions":
                return [{"subscriptionId": number} for number in session.subscriptions]
            case "userDataStream.subscribe":
                if session.key is None:
                    raise missing("apiKey")
                return {"subscriptionId": session.subscribe(session.key, by_logon=True)}
            case "userDataStream.subscribe.signature":
                if "apiKey" not in params:
                    raise missing("apiKey")
                key = self.authenticate(session, params, "reading", told_ms)
                return {"subscriptionId": session.subscribe(key, by_logon=False)}
            case "userDataStream.unsubscribe":
                _unsubscribe(session, params, now_ms)
                return {}
            case _:
                pass
        return session.status(told_ms)

    def _log_on(self, session: Session, params: Mapping[str, str], now_ms: int, told_ms: int) -> None:
        if not params.get("apiKey"):
            raise missing("apiKey")
        key = identify(self._registry, session.market, params["apiKey"], session.address, "reading")
        if key.kind != "ED25519":
            raise Refused(-4056, f"{key.kind} API key is not supported.")
        check_time(params, told_ms)
        check_signature(key, ws_payload(params), params.get("signature"))
        session.key, session.authorized_ms = key, now_ms


def _unsubscribe(session: Session, params: Mapping[str, str], now_ms: int) -> None:
    asked = params.get("subscriptionId")
    if asked is None:
        for number in list(session.subscriptions):
            session.terminate(number, now_ms)
        return
    if not asked.isdecimal():
        raise malformed("subscriptionId", "^[0-9]{1,5}$")
    if int(asked) not in session.subscriptions:
        raise Refused(-2036, "User Data Stream subscription not active.")
    session.terminate(int(asked), now_ms)
