"""Listens to accounts of one market: lets them in, keeps them in, and hands on everything that happens on them.

A worker has one connection (two while it rotates), with one account on it, or several on spot. It closes a connection
on which nobody is in before it tries again. Its waits are its own: after a key was refused they begin at five seconds
and double, as nothing mends a key within seconds; after a connection that broke they are those of every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as random_module
import secrets
from typing import TYPE_CHECKING

from pydantic import SecretStr

from bridge.binance.admission import Admission
from bridge.binance.clock import Clock
from bridge.binance.hosts import require_environment, shown
from bridge.binance.listen_key import keep_alive
from bridge.binance.reconciler import Reconciler
from bridge.binance.transport import OpenFailed, opener
from bridge.binance.user_connection import UserConnection, Way
from bridge.binance.waiting import attempt_allowed, first_of
from bridge.core.backoff import Backoff
from bridge.core.refusals import problem
from bridge.core.rotation import lifetime
from bridge.core.user_session import Entered, Expired, OffClock, Refused, UserSession
from bridge.errors import ConfigError, RateLimited, RequestRefused, SourceError
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from bridge.binance.connection import ConnectionView
    from bridge.binance.hosts import Hosts
    from bridge.binance.signed_rest import SignedRest
    from bridge.binance.signing import AccountKey
    from bridge.binance.user_connection import AccountChange
    from bridge.core.account_progress import AccountProgress
    from bridge.core.backoff import AttemptBudget
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.private_settings import PrivateSettings
    from bridge.core.refusals import Problem
    from bridge.core.user_session import Entry
    from bridge.model import Market, PrivateInbox, UserMessage
    from bridge.telemetry import LifecycleEvent, Telemetry

log = logging.getLogger("bridge")

_NORMAL, _GOING_AWAY = 1000, 1001
_BY: Mapping[Entry, str] = {
    "logon": "by session.logon",
    "signature": "by a signed subscription",
    "url": "by listen key",
}
#: usdm serves private streams on a path of their own; on any other an acknowledged stream stays silent.
_STREAM_PATHS: Mapping[Market, str] = {"usdm": "/private/ws/", "coinm": "/ws/"}


class _TurnedAwayError(SourceError):
    """A key was refused before there was a connection."""

    def __init__(self, refusal: Problem) -> None:
        self.refusal = refusal
        super().__init__(refusal.text)


class UserWorker:
    """Listens to one account, or several that share a connection.

    Args:
        market: of the accounts.
        keys: what each account signs with; more than one only on spot.
        inbox: takes events and answers.
        rest: private REST.
        hosts: the market's base URLs.
        settings: times and sizes of connections.
        own: times and sizes of private streams.
        telemetry: told of everything that happens.
        budget: attempts to connect; the one of the process.
        progress: what is known of accounts from before, by name.
        pairs: base and quote asset of spot symbols, as known at the moment of asking.
        reload: reads an account's key anew, once it was refused.
        clock: the clocks.
        random: draws between 0 and 1, for jitter.
        tls: TLS settings other than the system's.

    Raises:
        ConfigError: a key is of another environment than a host, several accounts are to share a futures connection, or
            the market has no WebSocket API where one is needed.
    """

    def __init__(
        self,
        market: Market,
        keys: Sequence[AccountKey],
        *,
        inbox: PrivateInbox,
        rest: SignedRest,
        hosts: Hosts,
        settings: ConnectionSettings,
        own: PrivateSettings,
        telemetry: Telemetry,
        budget: AttemptBudget,
        progress: Mapping[str, AccountProgress] | None = None,
        pairs: Callable[[], Mapping[str, tuple[str, str]]] = dict,
        reload: Callable[[str], AccountKey] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        _check(market, keys, hosts)
        self.market = market
        self._inbox, self._rest, self._hosts = inbox, rest, hosts
        self._settings, self._own, self._telemetry, self._budget = settings, own, telemetry, budget
        self._clock, self._random, self._tls = clock or Clock(), random, tls
        self._open_transport = opener(settings.transport)
        self._accounts = {
            key.account: Admission(
                market,
                key,
                rest=rest,
                own=own,
                telemetry=telemetry,
                reload=reload,
                clock=self._clock,
                random=random,
            )
            for key in keys
        }
        known = progress or {}
        self._reconcilers = {
            name: Reconciler(
                market,
                admission,
                inbox=inbox,
                rest=rest,
                settings=settings,
                own=own,
                progress=known.get(name),
                pairs=pairs,
                clock=self._clock,
                random=random,
            )
            for name, admission in self._accounts.items()
        }
        self._connections: list[UserConnection] = []
        self._backoff = Backoff(settings, random)
        self._running = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    # What the wiring asks.

    async def start(self) -> None:
        """Begin. Returns at once; lifecycle events tell more."""
        self._running.set()
        name = f"accounts {', '.join(self._accounts)} of {self.market}"
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=name)

    async def stop(self) -> None:
        """Close everything. Listen keys are left alive: other programs of the account may be on them."""
        self._running.clear()
        tasks = [task for task in (self._task, *self._background) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._close_all(_NORMAL, "the bridge stops")
        for connection in list(self._connections):
            self._gone(connection)

    async def pause(self, reason: str) -> None:
        """Close the connection and open none until :meth:`resume`; its end tells ``reason``."""
        self._running.clear()
        await self._close_all(_GOING_AWAY, reason)

    async def resume(self) -> None:
        """Open the connection again."""
        if self._task is not None:
            self._running.set()

    def rotate(self, connection_id: str | None = None) -> int:
        """Replace the connection, make before break; return how many were asked."""
        asked = [
            one
            for one in self._connections
            if one.carrying and connection_id in (None, one.shown_id) and not one.rotation.is_set()
        ]
        for connection in asked:
            connection.rotate("asked to rotate")
        return len(asked)

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection."""
        return [connection.view() for connection in self._connections]

    def absent(self) -> list[str]:
        """Return the accounts that are on no connection at the moment."""
        return [name for name, account in self._accounts.items() if not account.is_in]

    def progress(self, account: str) -> AccountProgress:
        """Return what is known of an account."""
        return self._reconcilers[account].progress

    # The life of the connection.

    async def _supervise(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as error:
                wait = self._backoff.failed()
                log.exception("the worker of %s failed; again in %.1f s", ", ".join(self._accounts), wait)
                for connection in list(self._connections):
                    connection.cut()
                    self._gone(connection)
                self._tell("connection.retrying", reason=type(error).__name__, retry_in=wait)
                await asyncio.sleep(wait)

    async def _run(self) -> None:
        current = await self._establish()
        while True:
            await first_of(current.closed, current.rotation)
            if current.rotation.is_set() and current.carrying:
                current = await self._replace(current)
                continue
            await self._ended(current)
            current = await self._establish()

    async def _ended(self, connection: UserConnection) -> None:
        """Wait out a connection that ended, then back off."""
        await connection.wait_closed()
        self._gone(connection)
        if self._running.is_set():
            await self._retry("the connection ended", connection)

    async def _replace(self, old: UserConnection) -> UserConnection:
        """Open a successor, let the accounts in on it, overlap, and let the old connection go."""
        while True:
            successor = await self._establish(replaced=old)
            await first_of(old.closed, successor.closed, timeout=self._settings.overlap_seconds)
            if not successor.closed.is_set() or not old.carrying:
                break
            await self._ended(successor)
        reason = f"replaced by {successor.shown_id}: {old.rotation_reason}"
        self._in_background(self._retire(old, reason), f"retire {old.shown_id}")
        return successor

    async def _retire(self, old: UserConnection, reason: str) -> None:
        await old.close(_NORMAL, reason)
        self._gone(old)

    async def _establish(self, replaced: UserConnection | None = None) -> UserConnection:
        """Open a connection on which at least one account is in, however often it takes."""
        while True:
            await self._running.wait()
            connection = await self._attempt(await self._due(), replaced)
            if connection is None:
                continue
            await first_of(connection.settled, connection.closed)
            if connection.entered:
                for one in self._accounts.values():
                    if one.due.is_set():  # it may have become so meanwhile; without effect on who is in
                        connection.login(one.name, self._entry(one))
                return connection
            if connection.closed.is_set():
                await self._ended(connection)
            else:
                await connection.close(_NORMAL, "no account was let in")
                self._gone(connection)

    async def _attempt(
        self, accounts: Sequence[Admission], replaced: UserConnection | None
    ) -> UserConnection | None:
        """Try to open a connection; where that fails, say so, wait, and return None."""
        try:
            return await self._open(accounts, replaced)
        except _TurnedAwayError as error:
            self._hold_off(accounts[0], error.refusal, None)
        except OpenFailed as error:
            if error.failure.bars_ip:
                self._budget.hold(self._clock.monotonic() + error.failure.least_seconds)
            wait = self._backoff.failed(error.failure)
            await self._retry(str(error), code=error.failure.status, wait=wait)
        except SourceError as error:
            least = error.retry_after if isinstance(error, RateLimited) else 0.0
            await self._retry(str(error), wait=max(self._backoff.failed(), least))
        return None

    async def _due(self) -> list[Admission]:
        """Wait until an account may be tried, and return all that may."""
        await first_of(*(one.due for one in self._accounts.values()))
        return [one for one in self._accounts.values() if one.due.is_set()]

    async def _open(
        self, accounts: Sequence[Admission], replaced: UserConnection | None
    ) -> UserConnection | None:
        """Open one connection; None where connections are no longer wanted.

        Raises:
            _TurnedAwayError: the key was refused.
            SourceError: it could not be opened.
        """
        way = await self._way(accounts[0])
        await attempt_allowed(self._budget, self._clock)
        if not self._running.is_set():
            self._budget.give_back()
            return None
        connection = self._make(way, accounts)
        if replaced is not None:
            self._tell(
                "connection.rotating",
                replaced,
                reason=f"{replaced.rotation_reason}; successor {connection.shown_id}",
            )
        self._connections.append(connection)
        try:
            await connection.open()
        except BaseException:
            connection.cut()
            self._gone(connection)
            raise
        if not self._running.is_set():
            await connection.close(_GOING_AWAY, "paused")
            self._gone(connection)
            return None
        if way.listen_key is not None:
            self._in_background(self._keep(accounts[0], connection, way.listen_key), "keep a listen key")
        return connection

    async def _way(self, account: Admission) -> Way:
        if self.market == "spot":
            await self._rest.clocks["spot"].ready()
            base = self._hosts.ws_api or ""
            return Way(SecretStr(f"{base}?returnRateLimits=false"), shown(base))
        try:
            key = await self._rest.create_listen_key(account.key, self.market)
        except RequestRefused as error:
            refusal = problem(error.code, str(error))
            if not refusal.of_key:
                raise
            raise _TurnedAwayError(refusal) from None
        path = _STREAM_PATHS[self.market]
        base = self._hosts.stream.rstrip("/") + path
        return Way(SecretStr(base + key.get_secret_value()), f"{shown(base)}<listen key>", key)

    def _make(self, way: Way, accounts: Sequence[Admission]) -> UserConnection:
        settings = self._settings
        session = UserSession(
            settings,
            self._own,
            accounts={one.name: self._entry(one) for one in accounts},
            frames_per_second=settings.control_frames_per_second(self.market),
            lifetime_seconds=lifetime(
                settings.rotate_after_seconds, self._random() * settings.rotate_jitter_seconds
            ),
        )
        return UserConnection(
            secrets.randbits(63),
            self.market,
            way,
            session,
            settings,
            open_transport=self._open_transport,
            sign=self._sign,
            receive=self._receive,
            changed=self._changed,
            telemetry=self._telemetry,
            clock=self._clock,
            tls=self._tls,
        )

    def _entry(self, account: Admission) -> Entry:
        if self.market != "spot":
            return "url"
        return "logon" if account.key.kind == "ED25519" and len(self._accounts) == 1 else "signature"

    # What happens to accounts.

    def _sign(self, account: str) -> Mapping[str, str | int]:
        return self._accounts[account].key.signed_params(self._rest.timing("spot"))

    def _receive(self, message: UserMessage, is_in: bool) -> None:
        self._inbox.received(message)
        if is_in:
            self._reconcilers[message.account].received(message)

    def _changed(self, connection: UserConnection, change: AccountChange) -> None:
        account = self._accounts[change.account]
        match change:
            case Entered():
                account.entered(connection.connection_id, _BY[self._entry(account)])
                self._watch(self._reconcilers[account.name].begin(connection.connection_id))
                self._in_background(account.check_permissions(), f"permissions of {account.name}")
            case OffClock():
                self._in_background(self._once_more(account, connection), f"clock for {account.name}")
            case Refused(_, code, message):
                self._hold_off(account, problem(code, message), connection)
            case Expired(_, reason):
                self._expired(account, connection, reason)

    def _expired(self, account: Admission, connection: UserConnection, reason: str) -> None:
        wait = self._own.retry_minimum_seconds
        if not self._is_in(
            account
        ):  # while a rotation overlaps it may be in elsewhere: then nothing is missed
            if account.settled():
                self._backoff.reset()
            wait = account.expired(connection.connection_id, reason)
            self._leave(account)
        account.due.clear()
        self._in_background(self._let_in_after(account, account.wait(wait)), f"let {account.name} in again")
        if not connection.entered:
            self._in_background(connection.close(_NORMAL, f"nobody is in: {reason}"), "close")

    def _is_in(self, account: Admission) -> bool:
        return any(account.name in one.entered for one in self._connections)

    def _hold_off(self, account: Admission, refusal: Problem, connection: UserConnection | None) -> None:
        account.due.clear()
        connection_id = None if connection is None else connection.connection_id
        waiting = account.refused(refusal, connection_id)
        self._in_background(self._let_in_after(account, waiting), f"hold off {account.name}")

    async def _once_more(self, account: Admission, connection: UserConnection) -> None:
        """Measure the exchange's clock anew, and try the login once more."""
        try:
            await self._rest.clocks[self.market].measure()
        except SourceError as error:
            log.debug("the clock of %s can't be measured: %s", self.market, error)
        connection.login(account.name, self._entry(account))

    async def _let_in_after(self, account: Admission, waiting: Coroutine[None, None, None]) -> None:
        """Wait, then let an account in where others are; where nobody is, a new connection is on its way."""
        await waiting
        for connection in self._connections:
            if connection.carrying and connection.entered:
                connection.login(account.name, self._entry(account))

    def _leave(self, account: Admission) -> None:
        account.left()
        self._reconcilers[account.name].stop()

    async def _keep(self, account: Admission, connection: UserConnection, key: SecretStr) -> None:
        gone = await keep_alive(self._rest, account, self.market, key, connection.closed, self._own)
        if gone is not None:
            connection.expire(account.name, gone)

    # Steps.

    def _gone(self, connection: UserConnection) -> None:
        """Forget a connection; accounts that are on no other are out."""
        with contextlib.suppress(ValueError):
            self._connections.remove(connection)
        for account in self._accounts.values():
            if account.is_in and not self._is_in(account):
                if account.settled():
                    self._backoff.reset()
                self._leave(account)

    async def _close_all(self, code: int, reason: str) -> None:
        connections = list(self._connections)
        await asyncio.gather(*(connection.close(code, reason) for connection in connections))

    async def _retry(
        self,
        reason: str,
        connection: UserConnection | None = None,
        *,
        code: int | None = None,
        wait: float | None = None,
    ) -> None:
        wait = self._backoff.failed() if wait is None else wait
        self._tell("connection.retrying", connection, code=code, reason=reason, retry_in=wait)
        await asyncio.sleep(wait)

    def _in_background(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        return self._watch(asyncio.get_running_loop().create_task(work, name=name))

    def _watch(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
            for connection in list(self._connections):
                connection.cut()  # what was to happen did not: begin anew

    def _tell(
        self,
        event: LifecycleEvent,
        connection: UserConnection | None = None,
        *,
        code: int | None = None,
        reason: str,
        retry_in: float | None = None,
    ) -> None:
        self._telemetry.emit(
            Lifecycle(
                event=event,
                connection_id=None if connection is None else connection.connection_id,
                market=self.market,
                streams=tuple(self._accounts),
                attempt=self._backoff.attempt or None,
                code=code,
                reason=reason,
                retry_in=retry_in,
                account=next(iter(self._accounts)) if len(self._accounts) == 1 else None,
            )
        )


def _check(market: Market, keys: Sequence[AccountKey], hosts: Hosts) -> None:
    if market != "spot" and len(keys) > 1:
        raise ConfigError(f"{market}: a private connection carries one account")
    if market == "spot" and hosts.ws_api is None:
        raise ConfigError("spot: no WebSocket API is known here, and private events come from there only")
    for key in keys:
        require_environment(key.environment, hosts.stream, hosts.rest, hosts.ws_api)
