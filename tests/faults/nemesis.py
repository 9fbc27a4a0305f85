"""What goes wrong in a run, by a seed, and the hand that does it: to bridges, to brokers and to the exchange.

The plan follows from its seed alone, so a printed seed gives the same plan again; when exactly a blow lands among the
events is the machine's to say. A blow that finds its target down already is left out, and counted as such; the first of
its kind waits for its target instead.
"""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, get_args

from tests.integration.processes import BridgeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.integration.processes import SimulatorProcess

Kind: TypeAlias = Literal[
    "kill bridge", "pause bridge", "freeze bridge", "kill broker", "freeze broker", "exchange"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_POLL_SECONDS = 0.05


class Blow(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        at: seconds from the start of the run.
        kind: what happens. ``pause`` is shorter than a session, ``freeze`` longer.
        target: number of the bridge or broker, from 0.
        seconds: how long it stays down.
        renamed: whether the bridge comes back as another instance, as a pod of a deployment does.
        fault: what the exchange is to do.
    """

    at: float
    kind: Kind
    target: int = 0
    seconds: float = 0.0
    renamed: bool = False
    fault: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        if self.fault is not None:
            return f"{self.at:7.2f} s  exchange: {' '.join(f'{k}={v}' for k, v in self.fault.items())}"
        back = " and comes back as another" if self.renamed else ""
        return f"{self.at:7.2f} s  {self.kind} {self.target} for {self.seconds:.1f} s{back}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Mean seconds between two blows of a kind; 0 for none of it.

    Attributes:
        kill_bridge: SIGKILL, restarted after up to two sessions.
        pause_bridge: SIGSTOP for less than a session.
        freeze_bridge: SIGSTOP for longer than a session.
        kill_broker: SIGKILL, restarted soon.
        freeze_broker: SIGSTOP for up to eight seconds.
        exchange: everything the exchange can do wrong; of each kind as often as :data:`EXCHANGE` says, times this.
        session: seconds after which a silent bridge has lost its shards.
    """

    kill_bridge: float = 0.0
    pause_bridge: float = 0.0
    freeze_bridge: float = 0.0
    kill_broker: float = 0.0
    freeze_broker: float = 0.0
    exchange: float = 0.0
    session: float = 6.0

    def of(self, kind: Kind) -> float:
        """Return the mean seconds between two blows of ``kind``."""
        found: float = getattr(self, kind.replace(" ", "_"))
        return found


EXCHANGE: tuple[tuple[float, Mapping[str, Any]], ...] = (
    (3, {"fault": "skip", "stream": "*@aggTrade", "count": 3}),
    (3, {"fault": "skip", "stream": "*@trade", "count": 2}),
    (4, {"fault": "skip", "stream": "*@depth*", "count": 2}),
    (5, {"fault": "skip", "stream": "*@kline*", "count": 2}),
    (2, {"fault": "duplicate", "count": 5}),
    (2, {"fault": "reorder", "stream": "*@aggTrade", "count": 3, "seconds": 1}),
    (2, {"fault": "reorder", "stream": "*@trade", "count": 3, "seconds": 1}),
    (3, {"fault": "reorder", "stream": "*@depth*", "count": 2, "seconds": 1}),
    (9, {"fault": "garbage", "count": 2}),
    (7, {"fault": "drop"}),
    (16, {"fault": "disconnect-mid-frame"}),
    (11, {"fault": "stall", "seconds": 2}),
    (19, {"fault": "mute", "seconds": 2, "count": 2}),
    (29, {"fault": "half-open", "seconds": 300}),
    (31, {"fault": "rotate"}),
    (41, {"fault": "shutdown", "market": "spot", "seconds": 2}),
    (23, {"fault": "ban", "status": 429, "seconds": 2}),
    (37, {"fault": "refuse-connections", "seconds": 2}),
    (43, {"fault": "reject-subscriptions", "seconds": 1}),
)
"""Mean seconds between two of each fault of the exchange."""


def plan(seed: int, seconds: float, pace: Pace, *, bridges: int, brokers: int) -> tuple[Blow, ...]:
    """Return what happens in a run of ``seconds``; a longer run begins with the same blows."""
    blows: list[Blow] = []
    for kind in KINDS:
        if kind != "exchange" and pace.of(kind) > 0:
            times = _times(Random(f"{seed} times of {kind}"), pace.of(kind), seconds)
            random = Random(f"{seed} {kind}")
            blows += [_blow(random, at, kind, pace.session, bridges, brokers) for at in times]
    if pace.exchange > 0:
        for number, (every, fault) in enumerate(EXCHANGE):
            random = Random(f"{seed} exchange {number}")
            times = _times(random, every * pace.exchange, seconds)
            blows += (Blow(at, "exchange", fault=fault) for at in times)
    return tuple(sorted(blows, key=lambda blow: (blow.at, blow.kind)))


def _times(random: Random, every: float, seconds: float) -> list[float]:
    """Return times as far apart as ``every`` on average, off by up to a half; the first comes early."""
    steps = (every * random.uniform(0.5, 1.5) for _ in itertools.count())
    found = itertools.accumulate(steps, initial=every * random.uniform(0.3, 0.8))
    return list(itertools.takewhile(lambda at: at < seconds, found))


def _blow(random: Random, at: float, kind: Kind, session: float, bridges: int, brokers: int) -> Blow:
    low, high = {
        "kill bridge": (0.0, 2 * session),
        "pause bridge": (0.1 * session, 0.6 * session),
        "freeze bridge": (1.5 * session, 2.5 * session),
        "kill broker": (0.5, 4.0),
        "freeze broker": (1.0, 8.0),
    }[kind]
    target = random.randrange(brokers if kind.endswith("broker") else bridges)
    renamed = kind == "kill bridge" and random.random() < 0.5
    return Blow(at, kind, target, random.uniform(low, high), renamed)


class Kill(NamedTuple):
    """A bridge was killed, or frozen for longer than its session.

    Attributes:
        instance: which.
        at: microseconds since the epoch.
    """

    instance: str
    at: int


@dataclass(slots=True)
class _Member:
    """One place in the fleet: a process, started again whenever it is gone."""

    number: int
    generation: int = 0
    process: BridgeProcess | None = None
    frozen: bool = False
    down_until: float | None = None  # killed by us, to be started then

    @property
    def name(self) -> str:
        return f"bridge-{self.number}" + (f"-{self.generation}" if self.generation else "")


class Fleet:
    """Bridge processes that share the shards, and a supervisor that starts again what ended.

    Args:
        directory: where configurations and logs go.
        count: how many.
        settings: their configuration.
        variant: what to run in place of the bridge as it is, by its name in :mod:`tests.faults.variants`.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        settings: dict[str, Any],
        *,
        variant: str | None = None,
    ) -> None:
        self._directory, self._settings, self._variant = directory, settings, variant
        self.members = [_Member(number) for number in range(count)]
        self.kills: list[Kill] = []
        self.ended: list[tuple[str, int, str]] = []
        """What ended by itself: instance, exit status, the last line it logged."""

    def __enter__(self) -> Self:
        for member in self.members:
            self._start(member)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.end()

    @property
    def running(self) -> list[BridgeProcess]:
        """The processes that there are."""
        return [member.process for member in self.members if member.process is not None]

    @property
    def crashed(self) -> frozenset[str]:
        """The instances whose work was cut off at some time."""
        return frozenset(kill.instance for kill in self.kills) | {name for name, _, _ in self.ended}

    def kill(self, number: int, seconds: float, *, renamed: bool) -> bool:
        """SIGKILL one; it is started again later. False where it is down already."""
        member = self.members[number]
        if member.process is None:
            return False
        self.kills.append(Kill(member.name, time.time_ns() // 1000))
        member.process.end()
        member.process, member.frozen = None, False
        member.generation += renamed
        member.down_until = time.monotonic() + seconds
        return True

    def freeze(self, number: int, *, lost: bool) -> Callable[[], None] | None:
        """SIGSTOP one; return what lets it go on, or None where it is down or frozen already."""
        member = self.members[number]
        process = member.process
        if process is None or member.frozen or not process.alive():
            return None
        if lost:
            self.kills.append(Kill(member.name, time.time_ns() // 1000))
        process.popen.send_signal(signal.SIGSTOP)
        member.frozen = True

        def go_on() -> None:
            if member.process is process:
                member.frozen = False
                process.popen.send_signal(signal.SIGCONT)

        return go_on

    def mend(self, now: float = float("inf")) -> None:
        """Start what was killed long enough ago, and what ended by itself."""
        for member in self.members:
            process = member.process
            if process is not None and not process.alive():
                last = (process.err.strip().splitlines() or [""])[-1]
                self.ended.append((member.name, process.popen.returncode, last))
                member.process, member.down_until = None, None
            if member.process is None and (member.down_until is None or now >= member.down_until):
                self._start(member)

    def _start(self, member: _Member) -> None:
        member.process, member.frozen, member.down_until = None, False, None
        member.process = BridgeProcess(
            self._directory, self._settings, name=member.name, variant=self._variant
        )


@dataclass(slots=True)
class Nemesis:
    """Carries a plan out.

    Attributes:
        done: how many blows of each kind landed, those of the exchange by their fault.
        left_out: how many found their target down already.
    """

    fleet: Fleet
    kafka: LocalKafka
    exchange: SimulatorProcess
    done: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    _hurt: int | None = None  # the broker that is down or frozen: of three, one at a time
    _undo: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, blows: Sequence[Blow], seconds: float) -> None:
        """Do what is planned at its time, for ``seconds``; in the end everything runs again."""
        began = time.monotonic()
        left = [(blow.at, next(self._numbers), blow) for blow in blows]
        heapq.heapify(left)
        with ThreadPoolExecutor(1) as restarts:
            restarting: Future[None] | None = None
            while (now := time.monotonic() - began) < seconds or self._undo or restarting is not None:
                while left and left[0][0] <= now:
                    blow = heapq.heappop(left)[2]
                    if not self._do(blow, now):
                        heapq.heappush(left, (now + 1.0, next(self._numbers), blow))
                while self._undo and self._undo[0][0] <= now:
                    heapq.heappop(self._undo)[2]()
                if self._hurt is not None and self._hurt < 0 and restarting is None:
                    restarting = restarts.submit(self.kafka.restart, -self._hurt)
                if restarting is not None and restarting.done():
                    restarting.result()
                    restarting = self._hurt = None
                self.fleet.mend(time.monotonic())
                time.sleep(_POLL_SECONDS)
        self.fleet.mend()

    def _do(self, blow: Blow, now: float) -> bool:
        """Strike; return False where the blow is to wait for its target."""
        if blow.fault is not None:
            self.exchange.faults(dict(blow.fault))
            self.done[str(blow.fault["fault"])] += 1
            return True
        undo = self._bridge(blow) if blow.kind.endswith("bridge") else self._broker(blow)
        if undo is None:
            first = not self.done[blow.kind]
            self.left_out[blow.kind] += not first
            return not first
        self.done[blow.kind] += 1
        heapq.heappush(self._undo, (now + blow.seconds, next(self._numbers), undo))
        return True

    def _bridge(self, blow: Blow) -> Callable[[], None] | None:
        if blow.kind == "kill bridge":
            killed = self.fleet.kill(blow.target, blow.seconds, renamed=blow.renamed)
            return (lambda: None) if killed else None
        return self.fleet.freeze(blow.target, lost=blow.kind == "freeze bridge")

    def _broker(self, blow: Blow) -> Callable[[], None] | None:
        if self._hurt is not None:
            return None
        self._hurt = node = blow.target + 1
        if blow.kind == "kill broker":
            self.kafka.kill(node)
            return lambda: self._mark(-node)
        self.kafka.suspend(node)
        return lambda: self._thaw(node)

    def _mark(self, hurt: int) -> None:
        self._hurt = hurt

    def _thaw(self, node: int) -> None:
        self.kafka.resume(node)
        self._hurt = None
