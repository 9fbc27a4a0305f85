"""All connections of one market: spread, opened within the budget, replaced before and after they break.

A :class:`_Seat` is the place of one connection. It runs in its own task, opens its connection, and when that
one ends opens another, after back-off. For a rotation it opens the successor beside it, waits until that is
proven and has overlapped for a while, then closes the old one in the background: make before break. Seats
share nothing but the budget of attempts, so that one broken connection disturbs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as random_module
import secrets
from typing import TYPE_CHECKING

from bridge.binance.clock import Clock
from bridge.binance.connection import Connection, ConnectionView
from bridge.binance.market_look import MarketLook
from bridge.binance.transport import OpenFailed, opener
from bridge.binance.waiting import attempt_allowed, first_of
from bridge.core.backoff import AttemptBudget, Backoff
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.rotation import lifetime
from bridge.core.spread import Plan, Seat, spread
from bridge.model import Leg
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from bridge.binance.hosts import Hosts
    from bridge.binance.rest import RestClient
    from bridge.model import Market, Receive, Stream
    from bridge.telemetry import LifecycleEvent, Telemetry

__all__ = ["ConnectionPool", "ConnectionView", "attempt_budget"]

log = logging.getLogger("bridge")

_NORMAL, _GOING_AWAY = 1000, 1001
_PROOF_POLL_SECONDS = 0.05
_OBSERVE_SECONDS = 5.0


def attempt_budget(settings: ConnectionSettings | None = None) -> AttemptBudget:
    """Return the budget of connection attempts. One per process: the exchange counts per IP."""
    settings = settings or ConnectionSettings()
    return AttemptBudget(settings.attempts_burst, settings.attempts_per_second)


class ConnectionPool:
    """The connections of one market.

    Args:
        market: whose streams these are.
        streams: the streams wanted at first.
        settings: times and sizes.
        receive: takes the messages of all connections.
        telemetry: told of everything that happens.
        rest: asked whether silent markets move.
        hosts: the market's base URLs.
        budget: attempts to connect; the same object for all pools of the process (:func:`attempt_budget`).
        clock: the clocks.
        random: draws between 0 and 1, for jitter.
        tls: TLS settings other than the system's.
        leg: 1 or 2; with ``others``, the second leg's rotations lie half an age from the first's.
        others: when the newest frame of a stream came on the other leg's pool (its :meth:`newest`); None where this
            pool alone carries the streams. See :class:`~bridge.binance.legs.RedundantPools`.
    """

    def __init__(
        self,
        market: Market,
        streams: Iterable[Stream],
        *,
        settings: ConnectionSettings,
        receive: Receive,
        telemetry: Telemetry,
        rest: RestClient,
        hosts: Hosts,
        budget: AttemptBudget,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        tls: ssl.SSLContext | None = None,
        leg: int = 1,
        others: Callable[[str], int] | None = None,
    ) -> None:
        self.market = market
        self.settings = settings
        self.receive = receive
        self.telemetry = telemetry
        self.hosts = hosts
        self.budget = budget
        self.clock = clock or Clock()
        self.random = random
        self.tls = tls
        self.leg = leg
        self.others = others
        self.open_transport = opener(settings.transport)
        self.look = MarketLook(rest, self.clock.monotonic, settings.market_look_spacing_seconds)
        #: Streams found deaf, and on how many connections in a row.
        self.deaf: dict[str, int] = {}
        #: Set while connections are wanted; cleared by ``pause``.
        self.running = asyncio.Event()
        self._wanted = {stream.name: stream for stream in streams}
        self._plan: Plan = {}
        self._seats: dict[Seat, _Seat] = {}
        self._seat_of: dict[str, _Seat] = {}
        self._began_at = self.clock.monotonic()
        self._background: set[asyncio.Task[None]] = set()
        self._started = False
        self._observer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to open connections. Returns at once; lifecycle events and ``connections()`` tell more."""
        self._started = True
        self.running.set()
        self._respread()
        self._observer = asyncio.get_running_loop().create_task(
            self._observe(), name=f"observe {self.market}"
        )

    async def add(self, streams: Iterable[Stream]) -> None:
        """Carry more streams, on connections that have room, else on new ones. None that runs is moved."""
        self._wanted.update((stream.name, stream) for stream in streams)
        self._respread()

    async def remove(self, streams: Iterable[Stream]) -> None:
        """Carry streams no longer. A connection left without any is closed."""
        for stream in streams:
            self._wanted.pop(stream.name, None)
            self.deaf.pop(stream.name, None)
        self._respread()

    def rotate(self, connection_id: str | None = None) -> int:
        """Replace one connection (its id as shown), or all, make before break; return how many were asked."""
        asked = 0
        for seat in self._seats.values():
            for connection in seat.connections:
                if connection_id in (None, connection.leg.shown_id) and connection.carrying:
                    connection.rotate("asked to rotate")
                    asked += 1
        return asked

    async def pause(self, reason: str) -> None:
        """Close all connections and open none until :meth:`resume`; each one's end tells ``reason``."""
        self.running.clear()
        connections = [one for seat in self._seats.values() for one in seat.connections]
        await asyncio.gather(*(connection.close(_GOING_AWAY, reason) for connection in connections))

    async def resume(self) -> None:
        """Open the connections again."""
        if self._started:
            self.running.set()

    async def stop(self, timeout: float = 10.0) -> None:
        """Close everything. When it returns, no task and no connection is left.

        Args:
            timeout: seconds for closing handshakes; what is not closed then is cut off.
        """
        self._started = False
        self.running.clear()
        seats, self._seats, self._plan, self._seat_of = list(self._seats.values()), {}, {}, {}
        closing = [asyncio.ensure_future(seat.stop("the bridge stops")) for seat in seats]
        closing += self._background
        if self._observer is not None:
            self._observer.cancel()
            closing.append(self._observer)
        if not closing:
            return
        _, late = await asyncio.wait(closing, timeout=timeout)
        for seat in seats:
            for connection in seat.connections:
                connection.cut()
        if late:
            await asyncio.wait(late)

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection."""
        return [connection.view() for seat in self._seats.values() for connection in seat.connections]

    def newest(self, name: str) -> int:
        """Return when the newest frame of a stream came, microseconds since the epoch; 0 where none did."""
        seat = self._seat_of.get(name)
        return 0 if seat is None else seat.newest(name.encode())

    def lifetime(self) -> float:
        """Return after how many seconds a connection that opens now asks to be rotated."""
        settings = self.settings
        return lifetime(
            settings.rotate_after_seconds,
            self.random() * settings.rotate_jitter_seconds,
            self.clock.monotonic() - self._began_at,
            None if self.others is None else (self.leg - 1) / 2,
        )

    def in_background(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run something to its end beside the seats; ``stop`` waits for it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _observe(self) -> None:
        """Keep the metric of the longest current silence, by channel."""
        gauge = self.telemetry.metrics.update_gap_max_seconds
        while True:
            await asyncio.sleep(_OBSERVE_SECONDS)
            now = self.clock.micros()
            newest: dict[str, tuple[str, int]] = {}
            for seat in self._seats.values():
                for state in [one for each in seat.connections for one in each.leg.streams.values()]:
                    name, last = state.stream.name, state.last_received_at
                    if last and name in self._wanted and last > newest.get(name, ("", 0))[1]:
                        newest[name] = (state.stream.channel, last)
            silences: dict[str, float] = {}
            for name, (channel, here) in newest.items():
                last = here if self.others is None else max(here, self.others(name))
                silences[channel] = max(silences.get(channel, 0.0), (now - last) / 1e6)
            for channel, seconds in silences.items():
                gauge.labels(self.market, channel).set(seconds)

    def _respread(self) -> None:
        if not self._started:
            return
        self._plan = spread(self._plan, self._wanted.values(), self.settings.streams_per_connection)
        for place in [place for place in self._seats if place not in self._plan]:
            seat = self._seats.pop(place)
            self.in_background(seat.stop("no streams left"), f"close seat {place}")
        for place, streams in self._plan.items():
            known = self._seats.get(place)
            if known is None:
                self._seats[place] = _Seat(self, place, streams)
            else:
                known.carry(streams)
        self._seat_of = {
            name: self._seats[place] for place, streams in self._plan.items() for name in streams
        }


class _Seat:
    """The place of one connection and its task."""

    def __init__(self, pool: ConnectionPool, place: Seat, streams: dict[str, Stream]) -> None:
        self.connections: list[Connection] = []
        self._pool = pool
        self._place = place
        self._streams = dict(streams)
        self._backoff = Backoff(pool.settings, pool.random)
        self._in_vain = 0  # attempts in a row that led to no data: each goes to the next host
        self._stopping = False
        name = f"seat {place.market}/{place.path}#{place.number}"
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=name)

    def carry(self, streams: dict[str, Stream]) -> None:
        """Carry exactly these streams from now on, on every connection of the seat."""
        gone = [name for name in self._streams if name not in streams]
        new = [stream for name, stream in streams.items() if name not in self._streams]
        self._streams = dict(streams)
        for connection in self.connections:
            connection.remove(gone)
            connection.add(new)

    def newest(self, name: bytes) -> int:
        """Return when the newest frame of a stream came; 0 where none did."""
        newest = 0
        for connection in self.connections:
            state = connection.leg.streams.get(name)
            if state is not None and state.last_received_at > newest:
                newest = state.last_received_at
        return newest

    async def stop(self, reason: str) -> None:
        """End the seat: its task, then its connections."""
        self._stopping = True
        self._task.cancel()
        await asyncio.wait([self._task])
        await asyncio.gather(*(connection.close(_NORMAL, reason) for connection in list(self.connections)))

    async def _supervise(self) -> None:
        while True:
            try:
                await self._run()
            except Exception as error:
                wait = self._backoff.failed()
                log.exception("a seat of %s failed; again in %.1f s", self._place.market, wait)
                for connection in list(self.connections):
                    connection.cut()
                    self._forget(connection)
                self._tell("connection.retrying", reason=type(error).__name__, retry_in=wait)
                await asyncio.sleep(wait)

    async def _run(self) -> None:
        current = await self._establish()
        while True:
            await first_of(current.closed, current.rotation)
            if not current.closed.is_set():
                current = await self._replace(current)
                continue
            await self._ended(current)
            current = await self._establish()

    async def _ended(self, connection: Connection) -> None:
        """Wait out a connection that ended, then back off."""
        await connection.wait_closed()
        self._forget(connection)
        self._in_vain = self._in_vain + 1 if connection.first_data_at is None else 0
        self._learn(connection)
        if self._pool.running.is_set():
            wait = self._backoff.failed()
            self._tell("connection.retrying", connection, reason="the connection ended", retry_in=wait)
            await asyncio.sleep(wait)

    async def _replace(self, old: Connection) -> Connection:
        """Open a successor, prove it, overlap, and let the old connection go in the background."""
        self._learn(old)
        self._in_vain = 0
        if old.deaf is not None:
            self._pool.deaf[old.deaf] = self._pool.deaf.get(old.deaf, 0) + 1
        while True:
            successor = await self._establish(replaced=old)
            if await self._proven(successor) and await self._overlapped(old, successor):
                break
            await self._ended(successor)
        reason = f"replaced by {successor.leg.shown_id}: {old.rotation_reason}"
        self._pool.in_background(self._retire(old, reason), f"retire {old.leg.shown_id}")
        return successor

    def _learn(self, connection: Connection) -> None:
        """Start back-off anew if data had flowed for a while; forget that streams were deaf that are not."""
        flowing_since, clock = connection.first_data_at, self._pool.clock
        settled = self._pool.settings.settled_seconds
        if flowing_since is not None and clock.monotonic() - flowing_since >= settled:
            self._backoff.reset()
        for state in connection.leg.streams.values():
            if state.frames:
                self._pool.deaf.pop(state.stream.name, None)

    async def _retire(self, old: Connection, reason: str) -> None:
        await old.close(_NORMAL, reason)
        self._forget(old)

    async def _proven(self, successor: Connection) -> bool:
        """Wait for its first frames: all, or, of quiet streams, those that come in time. False: it ended."""
        clock, settings = self._pool.clock, self._pool.settings
        deadline = clock.monotonic() + settings.prove_seconds
        while not successor.closed.is_set():
            if successor.proven or (successor.subscribed and clock.monotonic() >= deadline):
                return True
            await first_of(successor.closed, timeout=_PROOF_POLL_SECONDS)
        return False

    async def _overlapped(self, old: Connection, successor: Connection) -> bool:
        """Let both deliver for a while. False: the successor ended in it, so the old one stays."""
        if not old.closed.is_set():
            await first_of(old.closed, successor.closed, timeout=self._pool.settings.overlap_seconds)
        return old.closed.is_set() or not successor.closed.is_set()

    async def _establish(self, replaced: Connection | None = None) -> Connection:
        """Open a connection, however often it takes."""
        while True:
            await self._pool.running.wait()
            await attempt_allowed(self._pool.budget, self._pool.clock)
            if not self._pool.running.is_set():
                self._pool.budget.give_back()
                continue
            connection = self._make()
            if replaced is not None:
                reason = f"{replaced.rotation_reason}; successor {connection.leg.shown_id}"
                self._tell("connection.rotating", replaced, reason=reason)
            self.connections.append(connection)
            try:
                await connection.open(self._streams.values())
            except OpenFailed as error:
                self._forget(connection)
                self._in_vain += 1
                wait = self._backoff.failed(error.failure)
                if error.failure.bars_ip:
                    self._pool.budget.hold(self._pool.clock.monotonic() + error.failure.least_seconds)
                self._tell(
                    "connection.retrying",
                    connection,
                    code=error.failure.status,
                    reason=str(error),
                    retry_in=wait,
                )
                await asyncio.sleep(wait)
            except BaseException:
                connection.cut()
                self._forget(connection)
                raise
            else:
                if self._pool.running.is_set():
                    return connection
                await connection.close(_GOING_AWAY, "paused")
                self._forget(connection)

    def _make(self) -> Connection:
        pool = self._pool
        return Connection(
            Leg(secrets.randbits(63), pool.market),
            pool.hosts.stream_url(self._place.path, self._in_vain),
            pool.settings,
            open_transport=pool.open_transport,
            receive=pool.receive,
            telemetry=pool.telemetry,
            look=pool.look,
            lifetime_seconds=pool.lifetime(),
            patience=pool.deaf,
            others=pool.others,
            number=pool.leg,
            clock=pool.clock,
            tls=pool.tls,
        )

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self.connections.remove(connection)

    def _tell(
        self,
        event: LifecycleEvent,
        connection: Connection | None = None,
        *,
        code: int | None = None,
        reason: str,
        retry_in: float | None = None,
    ) -> None:
        self._pool.telemetry.emit(
            Lifecycle(
                event=event,
                connection_id=connection.leg.connection_id if connection else None,
                market=self._place.market,
                streams=tuple(self._streams),
                attempt=self._backoff.attempt or None,
                code=code,
                reason=reason,
                retry_in=retry_in,
            )
        )
