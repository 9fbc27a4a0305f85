"""The simulator as a whole: its servers, its clock and the task that lets time pass."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypedDict

from bridge.errors import ConfigError
from bridge.model import MARKETS
from bridge.simulator.account_sabotage import AccountSabotage
from bridge.simulator.accounts.desk import PrivateDesk
from bridge.simulator.accounts.history import History
from bridge.simulator.accounts.listen_keys import ListenKeys
from bridge.simulator.accounts.plan import AccountsPlan, add_key, open_account, parse_account, parse_script
from bridge.simulator.accounts.registry import Registry
from bridge.simulator.accounts.script import Script
from bridge.simulator.capture import CaptureExchange
from bridge.simulator.control import control_app
from bridge.simulator.desk import Desk
from bridge.simulator.faults import Fault, Schedule, from_mapping, parse_plan
from bridge.simulator.ground_truth import GroundTruth
from bridge.simulator.hub import Doors, Hub
from bridge.simulator.interference import Interference
from bridge.simulator.limits import Limits
from bridge.simulator.requests import WsApi, listen_http, rest_app
from bridge.simulator.sabotage import Sabotage
from bridge.simulator.user_faults import UserFaults
from bridge.simulator.user_streams import UserStreams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from aiohttp import web

    from bridge.simulator.accounts.plan import Made
    from bridge.simulator.accounts.registry import UserEvent
    from bridge.simulator.accounts.venue import Venue
    from bridge.simulator.exchange import Exchange
    from bridge.simulator.faults import Planned
    from bridge.simulator.wire import ErrorForm

log = logging.getLogger("bridge.simulator")

_FULL_BACKLOG = 1 << 20


class MarketEndpoints(TypedDict):
    """Where one market's hosts are, without paths."""

    stream: str
    rest: str
    ws_api: str


class Endpoints(TypedDict):
    """Where a simulator listens; ``http`` is its control endpoint."""

    spot: MarketEndpoints
    usdm: MarketEndpoints
    coinm: MarketEndpoints
    http: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """What a simulator is to be.

    Attributes:
        seed: makes market, faults and choices repeat.
        symbols: how many symbols each market trades.
        rate: orders placed, withdrawn and taken a second, over all symbols of all markets.
        captures: recordings to replay in place of a made-up market; one per market.
        speed: of a replay: 1 as recorded, N times as fast, 0 as fast as clients read.
        faults: the fault plan.
        accounts: the accounts there are from the start, and what happens on them.
        ground_truth: file to write the ground truth to; None for none.
        host: address to listen on.
        http_port: port of the control endpoint; 0 for a free one.
        base_port: first of nine ports in a row: stream, REST, WebSocket API of spot, then usdm, then coinm;
            0 for free ones.
        limits: what the exchange grants.
        error_form: how stream control errors are printed.
        tick_seconds: how often time passes.
        start_ms: exchange time at the start, epoch milliseconds; None for the wall clock's.
    """

    seed: int = 1
    symbols: int = 10
    rate: float = 100.0
    captures: tuple[Path, ...] = ()
    speed: float = 1.0
    faults: tuple[Planned, ...] = ()
    accounts: AccountsPlan = field(default_factory=AccountsPlan)
    ground_truth: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 0
    base_port: int = 0
    limits: Limits = field(default_factory=Limits)
    error_form: ErrorForm = "nested"
    tick_seconds: float = 0.005
    start_ms: int | None = None


class ExchangeClock:
    """Exchange time: runs with the real one, and stands still while paused."""

    def __init__(self, start_ms: int | None) -> None:
        self._start_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
        self._start = time.monotonic()
        self._paused_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether time passes."""
        return self._paused_at is None

    def now_ms(self) -> int:
        """Return exchange time, epoch milliseconds."""
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return self._start_ms + int((now - self._start) * 1000)

    def pause(self) -> None:
        """Let time stand still."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Let time go on from where it stood."""
        if self._paused_at is not None:
            self._start += time.monotonic() - self._paused_at
            self._paused_at = None


class Simulator:
    """An exchange on loopback, as an async context manager.

    Args:
        settings: what it is to be.
        exchange: the market; None makes one up, or replays the captures of the settings.
        venue: what accounts trade on; None for the made-up market, where it is one.

    Attributes:
        endpoints: where clients connect, as ``binance-bridge simulate`` prints it; there once it is entered.
        ground_truth: what it writes of everything that happens.
        accounts: the accounts.
        clock: exchange time.
    """

    endpoints: Endpoints

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        exchange: Exchange | None = None,
        venue: Venue | None = None,
    ) -> None:
        self.settings = settings or SimulatorSettings()
        self.clock = ExchangeClock(self.settings.start_ms)
        self.ground_truth = GroundTruth(self.settings.ground_truth)
        self._exchange = exchange or _exchange_of(self.settings, self.clock.now_ms())
        limits = self.settings.limits
        self._hub = Hub(self._exchange, limits, self.settings.error_form, Doors(limits), self._note)
        seed = self.settings.seed
        self.accounts = Registry(venue or _venue_of(self._exchange), seed, self._user_event)
        self._listen_keys = ListenKeys(self.accounts.make_text, int(limits.listen_key_seconds * 1000))
        self._history = History(Script(self.accounts), self._note)
        self._streams = UserStreams(self._hub.clients, self._listen_keys)
        private = PrivateDesk(self.accounts, self._listen_keys)
        self._desk = Desk(self._exchange, limits, private, self._streams.sessions)
        self._apis = [WsApi(m, self._desk, self._hub.doors, limits, self.clock.now_ms) for m in MARKETS]
        self._interference = Interference(self._touched)
        self._user_faults = UserFaults(self._touched_user)
        account_sabotage = AccountSabotage(
            self.accounts,
            self._listen_keys,
            self._streams,
            self._user_faults,
            self._desk.skews,
            self.clock.now_ms,
        )
        self._sabotage = Sabotage(
            self._hub,
            self._desk,
            self._apis,
            self._interference,
            account_sabotage,
            seed=seed,
            now_ms=self.clock.now_ms,
        )
        self._schedule = Schedule(self.settings.faults, self.settings.seed)
        self._stack = contextlib.AsyncExitStack()
        self._started = 0.0
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self.ground_truth)
        try:
            self._open_accounts()
            await self._listen()
        except BaseException:
            await self._stack.aclose()
            raise
        self._started = self._now()
        self._pump = asyncio.create_task(self._let_time_pass())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pump is not None
        self._pump.cancel()
        await self._sabotage.stop()
        for client in tuple(self._hub.clients.values()):
            if not client.healthy:
                client.abort()
        self.note_accounts()
        await self._stack.aclose()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump

    async def wait(self) -> None:
        """Run until cancelled; raises what broke the market, should anything."""
        assert self._pump is not None
        await asyncio.shield(self._pump)

    def inject(self, fault: Fault | Mapping[str, object]) -> dict[str, object]:
        """Do a fault now; return its ground-truth line, with the numbers of the connections it hit.

        Raises:
            ConfigError: the mapping is no fault.
        """
        return self._sabotage.inject(fault if isinstance(fault, Fault) else from_mapping(fault))

    def plan(self, faults: object) -> int:
        """Plan faults as from a plan file, their times counted from now; return how many.

        Those without a time happen at once.

        Raises:
            ConfigError: an entry is wrong.
        """
        planned = parse_plan(faults)
        self._schedule.add(planned, self._now() - self._started)
        self._inject_due()
        return len(planned)

    def open_account(self, found: object) -> dict[str, object]:
        """Open an account as a plan describes it; return its name and keys, with the secrets made up for them.

        Raises:
            ConfigError: the description is wrong, or there is one of that name.
        """
        planned = parse_account(found)
        account, keys = open_account(self.accounts, planned, self.clock.now_ms())
        return {"name": account.name, "keys": [_handed_out(made) for made in keys]}

    def add_key(self, account: str, found: object) -> dict[str, object]:
        """Give an account another key, or one in place of one of the same name; return it.

        Raises:
            ConfigError: the description is wrong, or there is no such account.
        """
        return _handed_out(add_key(self.accounts, account, found, self.clock.now_ms()))

    def play(self, found: object) -> dict[str, object]:
        """Take the steps of a script: those without a time at once, the others that many seconds from now.

        Returns the ground-truth lines of those taken at once, and how many wait.

        Raises:
            ConfigError: a step is none; then nothing is done.
        """
        steps, now_ms = parse_script(found), self.clock.now_ms()
        taken = [self._history.take(step, now_ms) for step in steps if step.at is None]
        self._history.add((step for step in steps if step.at is not None), now_ms)
        return {"taken": taken, "waiting": self._history.waiting}

    def note_accounts(self) -> None:
        """Write the state of every account into the ground truth."""
        for account in self.accounts.accounts.values():
            self._note({"account": account.name, "state": account.state()})

    def stop_market(self) -> None:
        """Freeze exchange time: no further events; connections stay up."""
        self.clock.pause()

    def resume(self) -> None:
        """Let exchange time go on from where it stood."""
        self.clock.resume()

    def state(self) -> dict[str, object]:
        """Return what ``GET /state`` shows."""
        replay = self._exchange.progress() if isinstance(self._exchange, CaptureExchange) else {}
        return {
            "seconds": round(self._now() - self._started, 3),
            "exchange_time_ms": self.clock.now_ms(),
            "running": self.clock.running,
            "failed": self._failure(),
            "events": self.ground_truth.events,
            "requests": {str(status): count for status, count in sorted(self._desk.answered.items())},
            "connections": [client.shown() for client in self._hub.clients.values()],
            "sessions": [session.shown() for session in self._streams.sessions.values()],
            "accounts": list(self.accounts.accounts),
            "user_events": self.accounts.events,
            "script": {
                "taken": self._history.taken,
                "refused": self._history.refused,
                "waiting": self._history.waiting,
            },
            "faults": list(self._sabotage.done),
            "replay": {market: {**p._asdict(), "done": p.done} for market, p in replay.items()},
            "done": bool(replay) and all(p.done for p in replay.values()),
        }

    async def _listen(self) -> None:
        base = self.settings.base_port
        hosts = [
            await self._listen_market(api, base + 3 * position if base else 0)
            for position, api in enumerate(self._apis)
        ]
        control = await self._http(control_app(self), self.settings.http_port)
        self.endpoints = {"spot": hosts[0], "usdm": hosts[1], "coinm": hosts[2], "http": control}

    async def _listen_market(self, api: WsApi, base: int) -> MarketEndpoints:
        """Open a market's three hosts, on ports from ``base`` or free ones where it is 0."""
        host, market = self.settings.host, api.market
        streams = await self._hub.listen(market, host, base)
        await self._stack.enter_async_context(streams)
        rest = await self._http(rest_app(market, self._desk, self.clock.now_ms), base and base + 1)
        requests = await api.listen(host, base and base + 2)
        await self._stack.enter_async_context(requests)
        return {
            "stream": f"ws://{host}:{streams.sockets[0].getsockname()[1]}",
            "rest": rest,
            "ws_api": f"ws://{host}:{requests.sockets[0].getsockname()[1]}",
        }

    async def _http(self, app: web.Application, port: int) -> str:
        runner, found = await listen_http(app, self.settings.host, port)
        self._stack.push_async_callback(runner.cleanup)
        return f"http://{self.settings.host}:{found}"

    async def _let_time_pass(self) -> None:
        flush_at = 0.0
        while True:
            await asyncio.sleep(0 if self._hurried() else self.settings.tick_seconds)
            self._inject_due()
            now = self._now()
            if self.clock.running and not (self.settings.speed == 0 and self._hub.backlog() > _FULL_BACKLOG):
                self._advance(now)
            for held in self._user_faults.overdue(now):
                self._streams.deliver(held)
            if self._interference.active:
                for late in self._interference.overdue(now):
                    self._hub.deliver(late)
            self._hub.flush()
            for client in tuple(self._hub.clients.values()):
                client.tend(now, self.clock.now_ms())
            if now >= flush_at:
                flush_at = now + 1.0
                self.ground_truth.flush()

    def _advance(self, now: float) -> None:
        at_ms = self.clock.now_ms()
        for emission in self._exchange.advance(at_ms):
            number = self.ground_truth.event(emission, at_ms)
            if not self._interference.active:
                self._hub.deliver(emission)
                continue
            for passed in self._interference.apply(emission, number, now):
                self._hub.deliver(passed)
        self._advance_accounts(at_ms)

    def _advance_accounts(self, at_ms: int) -> None:
        self.accounts.match(at_ms)
        self._history.advance(at_ms)
        for key in self._listen_keys.overdue(at_ms):
            self._note({"listen-key": "expired", "user": key.account, "market": key.market})
            self._streams.expire(key, at_ms)

    def _open_accounts(self) -> None:
        plan, now_ms = self.settings.accounts, self.clock.now_ms()
        for planned in plan.accounts:
            open_account(self.accounts, planned, now_ms, plan.folder)
        self._history.add(plan.script, now_ms)

    def _user_event(self, event: UserEvent) -> None:
        self.ground_truth.user_event(event, self.clock.now_ms())
        for passed in self._user_faults.apply(event, self._now()):
            self._streams.deliver(passed)

    def _hurried(self) -> bool:
        """Whether a replay without pace is under way and nobody lags behind."""
        if self.settings.speed or not isinstance(self._exchange, CaptureExchange):
            return False
        under_way = any(p.started and not p.done for p in self._exchange.progress().values())
        return under_way and self._hub.backlog() < _FULL_BACKLOG

    def _inject_due(self) -> None:
        for _, fault in self._schedule.take(self._now() - self._started):
            self._sabotage.inject(fault)

    def _touched(self, fault: Fault, number: int) -> None:
        self._note({"fault": fault.fault, "event": number})

    def _touched_user(self, fault: Fault, number: int) -> None:
        self._note({"fault": fault.fault, "user_event": number})

    def _note(self, line: dict[str, object]) -> None:
        self.ground_truth.note(line if "at_ms" in line else {**line, "at_ms": self.clock.now_ms()})

    def _failure(self) -> str | None:
        if self._pump is None or not self._pump.done() or self._pump.cancelled():
            return None
        return repr(self._pump.exception())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _exchange_of(settings: SimulatorSettings, now_ms: int) -> Exchange:
    if settings.captures:
        return CaptureExchange(settings.captures, settings.speed)
    if settings.symbols < 1 or settings.rate <= 0:
        raise ConfigError("a simulated market needs at least one symbol and a rate above 0")
    from bridge.simulator.market import MarketExchange

    return MarketExchange(settings.seed, settings.symbols, settings.rate, now_ms)


def _venue_of(exchange: Exchange) -> Venue | None:
    """Return the made-up market as accounts see it; a recorded one has nothing to trade on."""
    if isinstance(exchange, CaptureExchange):
        return None
    from bridge.simulator.accounts.made_up_venue import MadeUpVenue
    from bridge.simulator.market import MarketExchange

    return MadeUpVenue(exchange.world) if isinstance(exchange, MarketExchange) else None


def _handed_out(made: Made) -> dict[str, object]:
    """Return a key as the exchange shows it when it is made: the only time that its secret is seen."""
    key = made.key
    shown: dict[str, object] = {
        "name": key.name,
        "key": key.key,
        "kind": key.kind,
        "permissions": sorted(key.permissions),
        "addresses": list(key.addresses),
    }
    return shown if made.secret is None else {**shown, "secret": made.secret}
