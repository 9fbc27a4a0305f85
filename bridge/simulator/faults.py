"""The fault plan: what goes wrong, when, and to whom. Parsing and timing only; the doing is the server's.

A plan is a YAML or JSON list. Each entry names a fault and its time: ``at`` seconds after the start, or
``every`` so many seconds on average (each interval is off by up to a quarter, by the seed)::

    - {every: 5, fault: drop}
    - {at: 12, fault: stall, market: usdm, seconds: 3}
    - {every: 2, until: 30, fault: skip, stream: "*@aggTrade", count: 4}
"""

from __future__ import annotations

import difflib
import heapq
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from random import Random
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from bridge.errors import ConfigError
from bridge.model import MARKETS
from bridge.simulator.accounts.keys import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bridge.model import Market
    from bridge.simulator.accounts.keys import Permission

FaultName = Literal[
    "drop", "half-open", "stall", "rotate", "shutdown", "expire-keys", "disconnect-mid-frame", "garbage",
    "oversize",
    "duplicate", "reorder", "skip", "mute",
    "ban", "reject-subscriptions", "refuse-connections",
    "revoke-key", "withdraw-permission", "deny-address", "clock-skew", "terminate-user-streams", "drop-private",
    "lose-user-events", "duplicate-user-events", "stall-user-events",
]  # fmt: skip
GarbageKind = Literal["text", "truncated", "unknown-event", "binary"]
EVENT_FAULTS: frozenset[str] = frozenset({"duplicate", "reorder", "skip", "mute"})
USER_EVENT_FAULTS: frozenset[str] = frozenset(
    {"lose-user-events", "duplicate-user-events", "stall-user-events"}
)
ACCOUNT_FAULTS: frozenset[str] = frozenset(
    {
        "revoke-key", "withdraw-permission", "deny-address", "clock-skew", "terminate-user-streams", "drop-private",
    }
)  # fmt: skip
FAULTS: tuple[FaultName, ...] = get_args(FaultName)
GARBAGE: tuple[GarbageKind, ...] = get_args(GarbageKind)
ALL = 1 << 62
FOR_GOOD = 0.0
"""Seconds of a fault that does not end."""


@dataclass(frozen=True, slots=True)
class _Takes:
    """Which settings a fault takes besides ``market``, with what they are when not given."""

    stream: bool = False
    count: int | None = None
    seconds: float | None = None
    status: tuple[int, ...] = ()
    kind: bool = False
    account: bool = False
    key: bool = False
    event: bool = False
    permission: bool = False
    milliseconds: int | None = None

    def knows(self, setting: str) -> bool:
        """Tell whether it takes a setting; one that is 0 by default is taken, too."""
        usual = getattr(self, setting, None)
        return usual is not None and usual is not False and usual != ()


_TAKES: dict[FaultName, _Takes] = {
    "drop": _Takes(stream=True, count=1),
    "half-open": _Takes(stream=True, count=1, seconds=300.0),
    "stall": _Takes(stream=True, count=1, seconds=5.0),
    "rotate": _Takes(stream=True, count=1),
    "shutdown": _Takes(stream=True, count=ALL, seconds=1.0),
    "expire-keys": _Takes(count=ALL, account=True),
    "disconnect-mid-frame": _Takes(stream=True, count=1),
    "garbage": _Takes(stream=True, count=1, kind=True),
    "oversize": _Takes(stream=True, count=1),
    "duplicate": _Takes(stream=True, count=1),
    "reorder": _Takes(stream=True, count=1, seconds=5.0),
    "skip": _Takes(stream=True, count=1),
    "mute": _Takes(stream=True, count=1, seconds=30.0),
    "ban": _Takes(seconds=30.0, status=(418, 429)),
    "reject-subscriptions": _Takes(count=ALL, seconds=10.0),
    "refuse-connections": _Takes(count=ALL, seconds=10.0, status=(503, 403, 429)),
    "revoke-key": _Takes(account=True, key=True, seconds=FOR_GOOD),
    "withdraw-permission": _Takes(account=True, key=True, permission=True, seconds=FOR_GOOD),
    "deny-address": _Takes(account=True, key=True, seconds=FOR_GOOD),
    "clock-skew": _Takes(milliseconds=10_000, seconds=FOR_GOOD),
    "terminate-user-streams": _Takes(account=True),
    "drop-private": _Takes(account=True, count=ALL),
    "lose-user-events": _Takes(account=True, event=True, count=1),
    "duplicate-user-events": _Takes(account=True, event=True, count=1),
    "stall-user-events": _Takes(account=True, event=True, seconds=5.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        fault: which one.
        market: only there; None for all markets.
        stream: shell pattern; only streams, or connections that carry a stream, whose name matches.
        count: how many connections, events or requests it hits; :data:`ALL` for all of them.
        seconds: how long it lasts; how long a stalled, half-open or shut down connection has to wait.
        status: HTTP status of a ban (418 or 429) or a refused handshake (503, 403, 429).
        kind: of a garbage frame; None lets the seed choose.
        account: shell pattern; only these accounts.
        key: shell pattern; only API keys of these names.
        event: shell pattern; only user events of these types.
        permission: what a key may no longer do.
        milliseconds: how far the exchange's clock is ahead; negative where it is behind.
    """

    fault: FaultName
    market: Market | None = None
    stream: str = "*"
    count: int = 1
    seconds: float = 0.0
    status: int = 0
    kind: GarbageKind | None = None
    account: str = "*"
    key: str = "*"
    event: str = "*"
    permission: Permission = "reading"
    milliseconds: int = 0

    def concerns(self, market: Market, stream: str) -> bool:
        """Tell whether the fault is for ``stream`` of ``market``."""
        return self.market in (None, market) and (self.stream == "*" or fnmatchcase(stream, self.stream))

    def shown(self) -> dict[str, object]:
        """Return what is set, for the ground truth and ``GET /state``."""
        takes = _TAKES[self.fault]
        shown: dict[str, object] = {"fault": self.fault, "market": self.market}
        if takes.stream:
            shown["stream"] = self.stream
        if takes.count is not None:
            shown["count"] = "all" if self.count == ALL else self.count
        if takes.seconds is not None:
            shown["seconds"] = self.seconds
        if takes.status:
            shown["status"] = self.status
        if takes.kind:
            shown["kind"] = self.kind
        for name in ("account", "key", "event", "permission"):
            if getattr(takes, name):
                shown[name] = getattr(self, name)
        if takes.milliseconds is not None:
            shown["milliseconds"] = self.milliseconds
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault and its time: once ``at``, or ``every`` so often ``until``; at once where neither is set.

    All are seconds from the start of the plan.
    """

    fault: Fault
    at: float | None = None
    every: float | None = None
    until: float | None = None


def read_plan(path: Path) -> tuple[Planned, ...]:
    """Read a plan file.

    Raises:
        ConfigError: it cannot be read or an entry is wrong; names the entry, the key and the mend.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"fault plan {path}: {str(error).splitlines()[0]}") from error
    planned = parse_plan([] if found is None else found, str(path))
    for number, entry in enumerate(planned):
        if entry.at is None and entry.every is None:
            raise ConfigError(f"fault plan {path}[{number}]: needs 'at' or 'every', seconds from the start")
    return planned


def parse_plan(found: object, where: str = "faults") -> tuple[Planned, ...]:
    """Check a plan that was read from YAML or JSON: a list of entries, or one entry.

    Raises:
        ConfigError: as :func:`read_plan`.
    """
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: must be a list of faults, found {type(found).__name__}")
    return tuple(_Entry(f"{where}[{number}]", entry).planned() for number, entry in enumerate(entries))


class _Entry:
    """One entry of a plan while it is checked."""

    def __init__(self, where: str, entry: object) -> None:
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: must be a mapping such as {{at: 5, fault: drop}}, found {entry!r}")
        self.where, self.entry = where, entry
        self.name: FaultName = self._one_of("fault", FAULTS, entry.get("fault"))
        self.takes = _TAKES[self.name]
        self._check_keys()

    def planned(self) -> Planned:
        at, every = self._seconds("at", None), self._seconds("every", None)
        if at is not None and every is not None:
            raise ConfigError(f"{self.where}: has both 'at' and 'every'; keep one")
        if every == 0:
            raise ConfigError(f"{self.where}.every: must be greater than 0")
        return Planned(fault=self._fault(), at=at, every=every, until=self._seconds("until", None))

    def _fault(self) -> Fault:
        market = self.entry.get("market")
        status = self.entry.get("status", self.takes.status[0] if self.takes.status else 0)
        kind = self.entry.get("kind")
        return Fault(
            fault=self.name,
            market=None if market is None else self._one_of("market", MARKETS, market),
            stream=self._pattern("stream"),
            count=self._count(),
            seconds=self._seconds("seconds", self.takes.seconds) or 0.0,
            status=self._one_of("status", self.takes.status, status) if self.takes.status else 0,
            kind=None if kind is None else self._one_of("kind", GARBAGE, kind),
            account=self._pattern("account"),
            key=self._pattern("key"),
            event=self._pattern("event"),
            permission=self._one_of("permission", PERMISSIONS, self.entry.get("permission", "reading")),
            milliseconds=self._milliseconds(),
        )

    def _check_keys(self) -> None:
        known = {"fault", "market", "at", "every", "until"}
        known |= {f.name for f in fields(Fault) if self.takes.knows(f.name)}
        for key in self.entry:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"{self.name} takes {', '.join(sorted(known))}"
                )
                raise ConfigError(f"{self.where}.{key}: unknown key; {hint}")

    def _one_of(self, key: str, choices: tuple[Any, ...], value: object) -> Any:
        if value in choices and not isinstance(value, bool):
            return value
        near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "one of " + ", ".join(map(str, choices))
        raise ConfigError(f"{self.where}.{key}: {value!r} is not known; {hint}")

    def _pattern(self, name: str) -> str:
        pattern = self.entry.get(name, "*")
        if not isinstance(pattern, str) or not pattern:
            example = "*@aggTrade" if name == "stream" else "*"
            raise ConfigError(
                f"{self.where}.{name}: must be a pattern such as '{example}', found {pattern!r}"
            )
        return pattern

    def _milliseconds(self) -> int:
        found = self.entry.get("milliseconds", self.takes.milliseconds or 0)
        if type(found) is not int:
            raise ConfigError(f"{self.where}.milliseconds: must be a whole number, found {found!r}")
        return found

    def _count(self) -> int:
        count = self.entry.get("count", self.takes.count)
        if count == "all":
            return ALL
        if count is None:
            return 1
        if type(count) is not int or count < 1:
            raise ConfigError(f"{self.where}.count: must be a whole number from 1, or 'all', found {count!r}")
        return count

    def _seconds(self, key: str, default: float | None) -> float | None:
        value = self.entry.get(key, default)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{self.where}.{key}: must be seconds from 0, found {value!r}")
        return float(value)


class Schedule:
    """Says when planned faults are due. The same seed and plan give the same times."""

    def __init__(self, planned: Iterable[Planned] = (), seed: int = 1) -> None:
        self._random = Random(seed)  # noqa: S311 - jitter that has to repeat, nothing secret
        self._due: list[tuple[float, int, Planned, float]] = []
        self._added = 0
        self.add(planned, 0.0)

    def add(self, planned: Iterable[Planned], now: float) -> None:
        """Plan more faults, their times counted from ``now``."""
        for entry in planned:
            self._push(now + (self._interval(entry) if entry.every else entry.at or 0.0), entry, now)

    def take(self, now: float) -> list[tuple[float, Fault]]:
        """Return what became due up to ``now``, with its time, in order."""
        taken: list[tuple[float, Fault]] = []
        while self._due and self._due[0][0] <= now:
            at, _, entry, start = heapq.heappop(self._due)
            taken.append((at, entry.fault))
            if entry.every:
                self._push(at + self._interval(entry), entry, start)
        return taken

    def _interval(self, entry: Planned) -> float:
        assert entry.every is not None
        return entry.every * self._random.uniform(0.75, 1.25)

    def _push(self, at: float, entry: Planned, start: float) -> None:
        if entry.until is None or at - start <= entry.until:
            heapq.heappush(self._due, (at, self._added, entry, start))
            self._added += 1


def from_mapping(fault: Mapping[str, object]) -> Fault:
    """Return the fault a mapping describes.

    Raises:
        ConfigError: as :func:`read_plan`; also where it has a time.
    """
    (planned,) = parse_plan([dict(fault)])
    if planned.at is not None or planned.every is not None:
        raise ConfigError("faults[0]: a fault that happens at once takes no 'at' or 'every'")
    return planned.fault
