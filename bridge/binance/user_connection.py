"""One connection to private events: drives a :class:`~bridge.core.user_session.UserSession` over a transport.

What is secret of it (the URL of a futures stream holds the listen key) is never shown: not by its view, not by events,
not by errors.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.binance.clock import Clock
from bridge.binance.connection import ConnectionView
from bridge.binance.driver import Driver
from bridge.core.connection_life import Close, Ping, Rotate, Send, Tell
from bridge.core.user_session import (
    LISTEN_KEY_EXPIRED,
    Entered,
    Expired,
    OffClock,
    Refused,
    Reply,
    SendSigned,
    UserEvent,
    read_message,
)
from bridge.model import UserMessage
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import SecretStr

    from bridge.binance.transport import Open
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.user_session import Entry, UserEffect, UserSession
    from bridge.model import Market
    from bridge.telemetry import LifecycleEvent, Telemetry

log = logging.getLogger("bridge")

AccountChange = Entered | Refused | OffClock | Expired


class Way(NamedTuple):
    """Where a connection goes.

    Attributes:
        url: the whole URL.
        shown: the URL without what is secret of it.
        listen_key: of a futures stream; None on spot.
    """

    url: SecretStr
    shown: str
    listen_key: SecretStr | None = None


class UserConnection:
    """One connection, from opening to its end; never used twice.

    Args:
        connection_id: random, 63 bits.
        market: of its host.
        way: where it goes.
        session: what decides.
        settings: times and sizes.
        open_transport: how to open a WebSocket.
        sign: returns the signed parameters of a request for an account; called when the request is about to leave.
        receive: takes the events; told, too, whether the account is in (else the answer to its login is due yet).
        changed: told when an account got in, was refused, or is out.
        telemetry: told of everything else that happens.
        clock: the clocks.
        tls: TLS settings other than the system's.

    Attributes:
        closed: set when the socket is gone.
        rotation: set when it asks for a successor,
        rotation_reason: and why.
        settled: set when every account of the moment is in or was refused.
    """

    def __init__(
        self,
        connection_id: int,
        market: Market,
        way: Way,
        session: UserSession,
        settings: ConnectionSettings,
        *,
        open_transport: Open,
        sign: Callable[[str], Mapping[str, str | int]],
        receive: Callable[[UserMessage, bool], None],
        changed: Callable[[UserConnection, AccountChange], None],
        telemetry: Telemetry,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connection_id, self.market = connection_id, market
        self.rotation, self.settled = asyncio.Event(), asyncio.Event()
        self.rotation_reason = ""
        self._way, self._session, self._settings = way, session, settings
        self._open_transport, self._sign = open_transport, sign
        self._receive, self._changed = receive, changed
        self._telemetry, self._clock, self._tls = telemetry, clock or Clock(), tls
        self._driver = Driver(
            self.shown_id,
            settings,
            tick=lambda: self._do(self._session.tick(self._clock.monotonic())),
            wake_in=lambda: self._session.wake_in(self._clock.monotonic()),
        )
        self.closed = self._driver.closed
        self._opened_at = 0
        self._ended_early: tuple[int, str] | None = None
        self._messages = 0
        self._last_received_at = 0

    # What the worker asks.

    @property
    def shown_id(self) -> str:
        """The connection id as people see it."""
        return f"{self.connection_id:016x}"

    @property
    def carrying(self) -> bool:
        """Whether events may come on it."""
        return self._session.carrying

    @property
    def entered(self) -> tuple[str, ...]:
        """The accounts whose events come on it."""
        return self._session.entered if self._session.carrying else ()

    def view(self) -> ConnectionView:
        """Return what may be shown of it."""
        return ConnectionView(
            connection_id=self.shown_id,
            market=self.market,
            url=self._way.shown,
            state=self._session.state.name.lower(),
            streams=self._session.accounts,
            opened_at=self._opened_at,
            messages=self._messages,
            last_received_at=self._last_received_at,
        )

    async def open(self) -> None:
        """Connect, and begin to let the accounts in.

        Raises:
            OpenFailed: nothing was opened; ``connection.started`` was not told.
        """
        self._tell("connection.opening", reason=self._way.shown)
        url = self._way.url.get_secret_value()
        transport = await self._open_transport(url, self, self._settings, self._tls)
        self._opened_at = self._clock.micros()
        self._tell("connection.started", reason=self._way.shown)
        self._driver.begin(transport)
        self._do(self._session.opened(self._clock.monotonic()))
        if self._ended_early is not None:
            self.ended(*self._ended_early)

    def login(self, account: str, entry: Entry) -> None:
        """Let in an account that is out."""
        self._do(self._session.login(self._clock.monotonic(), account, entry))

    def expire(self, account: str, reason: str) -> None:
        """Note that an account's events come no longer."""
        self._do(self._session.expire(account, reason))

    def rotate(self, reason: str) -> None:
        """Ask for a successor, as age would."""
        self._do(self._session.rotate(reason))

    async def close(self, code: int, reason: str) -> None:
        """Close, waiting at most ``close_seconds`` for the peer; when it returns, nothing is left."""
        self._do(self._session.close(code, reason))
        await self._driver.close()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone and every task of the connection has ended."""
        await self._driver.wait_closed()

    def cut(self) -> None:
        """Cut the socket off, without a closing handshake."""
        self._driver.cut()

    # What the transport tells.

    def frames(self, payloads: list[bytes]) -> None:
        """Hand the events of one wake-up on, and see to what is for the session."""
        received_at = self._last_received_at = self._clock.micros()
        now = self._clock.monotonic()
        for payload in payloads:
            sequence = self._messages
            self._messages += 1
            message = read_message(payload)
            try:
                self._hand_on(message, sequence, received_at, payload)
            except Exception as error:
                # The inbox promises not to raise. If it does, its messages are not accounted for: end this
                # connection loudly rather than go on with a hole.
                log.exception("connection %s: the inbox of private events failed", self.shown_id)
                self._do(self._session.close(1011, f"the inbox failed: {type(error).__name__}"))
                return
            self._do(self._session.message(now, message))

    def pinged(self) -> None:
        """Count the pong into the pace."""
        self._session.pinged(self._clock.monotonic())

    def ponged(self) -> None:
        """Note the sign of life."""
        self._session.active(self._clock.monotonic())

    def ended(self, code: int, reason: str) -> None:
        """Note the end of the socket, after the last frame."""
        if not self._opened_at:
            self._ended_early = (code, reason)
            return
        self._do(self._session.lost(code, reason))
        self._driver.ended()

    # Steps.

    def _hand_on(
        self, message: UserEvent | Reply | None, sequence: int, received_at: int, payload: bytes
    ) -> None:
        """Hand an event to the inbox. What is nobody's is the only account's, where there is only one."""
        if isinstance(message, Reply) or not self._session.carrying:
            return
        account = None if message is None else self._session.account_of(message)
        if account is None:
            account = self._only
        if account is None:
            return
        plain = message is not None and message.kind != LISTEN_KEY_EXPIRED
        if self._way.listen_key is not None and not plain:
            secret = self._way.listen_key.get_secret_value().encode()
            payload = payload.replace(secret, b"*" * len(secret))
        told = UserMessage(account, self.market, self.connection_id, sequence, received_at, payload)
        self._receive(told, account in self._session.entered)

    @property
    def _only(self) -> str | None:
        accounts = self._session.accounts
        return accounts[0] if len(accounts) == 1 else None

    def _do(self, effects: Iterable[UserEffect]) -> None:
        for effect in effects:
            match effect:
                case Send() | Ping() | Close():
                    self._driver.put(effect)
                case SendSigned(number, account, method):
                    request = {"id": number, "method": method, "params": self._sign(account)}
                    self._driver.put(Send(msgspec.json.encode(request)))
                case Tell(event, streams, code, reason):
                    self._tell(event, streams, code=code, reason=reason)
                case Rotate(reason):
                    self.rotation_reason = reason
                    self.rotation.set()
                case Entered() | Refused() | OffClock() | Expired():
                    self._changed(self, effect)
        if self._session.settled:
            self.settled.set()
        else:
            self.settled.clear()

    def _tell(
        self,
        event: LifecycleEvent,
        streams: tuple[str, ...] | None = None,
        *,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        accounts = self._session.accounts
        self._telemetry.emit(
            Lifecycle(
                event=event,
                connection_id=self.connection_id,
                market=self.market,
                streams=accounts if streams is None else streams,
                code=code,
                reason=reason,
                messages=self._messages,
                last_sequence=self._messages - 1 if self._messages else None,
                account=self._only,
            )
        )
