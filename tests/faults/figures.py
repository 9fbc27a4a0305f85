"""What a fault run comes to: counted, timed, printed as a table, and kept as JSON and Markdown."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.accounting import Account, Evidence
    from tests.faults.nemesis import Kill

_MICROS = 1_000_000


@dataclass(slots=True, kw_only=True)
class Figures:
    """Counts of one run, or of several added up.

    Attributes:
        name: what was run.
        seeds: the seeds of the plans.
        seconds: how long faults went on.
        events: of the exchange, with ids and without.
        with_ids: of these, trades, aggregate trades, book changes, closed candles: each is accounted for by itself.
        published: of those with ids, in a unified topic.
        recovered: of the published, from the exchange's history.
        in_gaps: named by a gap record and not published.
        outside: before the first published of their stream or after the last.
        lost, duplicated, inversions, other: broken promises.
        late: records with a lower ``writerEpoch``, which readers drop.
        faults: blows that landed, by kind.
        left_out: blows that found their target down already.
        takeovers: seconds from the end of a process to the first message that its successor published, by shard.
    """

    name: str
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    events: int = 0
    with_ids: int = 0
    published: int = 0
    recovered: int = 0
    in_gaps: int = 0
    outside: int = 0
    lost: int = 0
    duplicated: int = 0
    inversions: int = 0
    other: int = 0
    late: int = 0
    raw_messages: int = 0
    connections: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    takeovers: list[float] = field(default_factory=list)

    def count(self, told: Account) -> None:
        """Add what the oracle counted."""
        kinds = told.convictions()
        self.events += told.events + told.frames
        self.with_ids += told.events
        self.published += told.published
        self.recovered += told.recovered
        self.in_gaps += told.in_gaps
        self.outside += told.outside
        self.late += told.late
        self.raw_messages += told.raw_messages
        self.connections += told.connections
        self.lost += kinds["lost"]
        self.duplicated += kinds["repeated"]
        self.inversions += kinds["disordered"]
        self.other += sum(kinds.values()) - kinds["lost"] - kinds["repeated"] - kinds["disordered"]

    def add(self, other: Figures) -> None:
        """Add another run's."""
        for name, value in other.shown().items():
            if name != "name":
                setattr(self, name, getattr(self, name) + value)

    def shown(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What is shown, line by line."""
        times = sorted(self.takeovers)
        shown = f"{median(times):.1f} s, {times[-1]:.1f} s ({len(times)})" if times else "none"
        kinds = sorted(self.faults.items(), key=lambda kind: (" " not in kind[0], kind[0]))
        return [
            ("seeds", ", ".join(map(str, self.seeds))),
            ("time under faults", f"{self.seconds:,.0f} s"),
            ("faults", f"{sum(self.faults.values()):,}"),
            *((f"– {kind}", f"{count:,}") for kind, count in kinds),
            ("connections", f"{self.connections:,}"),
            ("events of the exchange", f"{self.events:,}"),
            ("– with ids", f"{self.with_ids:,}"),
            ("published", f"{self.published:,}"),
            ("– of these recovered by backfill", f"{self.recovered:,}"),
            ("named by a gap record instead", f"{self.in_gaps:,}"),
            ("before the first or after the last published", f"{self.outside:,}"),
            ("lost", f"{self.lost:,}"),
            ("duplicated", f"{self.duplicated:,}"),
            ("out of order", f"{self.inversions:,}"),
            ("other broken promises", f"{self.other:,}"),
            ("late records of replaced writers, left out", f"{self.late:,}"),
            ("take-over: median, longest (count)", shown),
        ]

    def table(self) -> str:
        """Return the table for a terminal."""
        width = max(len(name) for name, _ in self.rows)
        return "\n".join([self.name, *(f"  {name:<{width}}  {value:>12}" for name, value in self.rows)])

    def keep(self, directory: Path) -> None:
        """Write ``<name>.json`` and ``<name>.md`` below ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = self.name.replace(" ", "-").replace(",", "")
        (directory / f"{stem}.json").write_text(json.dumps(self.shown(), indent=2) + "\n")
        lines = [
            f"| {self.name} | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in self.rows),
        ]
        (directory / f"{stem}.md").write_text("\n".join(lines) + "\n")


def takeovers(evidence: Evidence, kills: Sequence[Kill]) -> list[float]:
    """Return for each shard of a process that was cut off how long it took until the next owner published.

    Counted in seconds from the blow to the receipt of the first message that went out under a higher epoch. A shard
    is known by the epochs of its owners and by the next one.
    """
    owners = {r["connectionId"]: r["instance"] for r in evidence.lifecycle if r["connectionId"] is not None}
    reigns = list(_reigns(evidence.raw, owners))
    found = []
    for kill in kills:
        shards: dict[tuple[int, int, str | None], int] = {}
        for one, successor in reigns:
            if one.owner == kill.instance and one.last <= kill.at < successor.first:
                shard = one.epoch, successor.epoch, successor.owner
                shards[shard] = min(successor.first, shards.get(shard, successor.first))
        found += [(until - kill.at) / _MICROS for until in shards.values()]
    return found


class _Reign(NamedTuple):
    """The time in which a stream was published under one epoch."""

    epoch: int
    owner: str | None
    first: int
    last: int


def _reigns(raw: Iterable[Mapping[str, Any]], owners: Mapping[int, str]) -> Iterator[tuple[_Reign, _Reign]]:
    """Yield each reign over a stream with the one that followed it."""
    streams: dict[tuple[str, str], dict[int, _Reign]] = defaultdict(dict)
    for record in raw:
        if record["kind"] == "stream" and record["symbol"] is not None:
            at, epoch = record["receivedAt"], record["writerEpoch"]
            reigns = streams[record["market"], record["stream"]]
            one = reigns.get(epoch) or _Reign(epoch, owners.get(record["connectionId"]), at, at)
            reigns[epoch] = one._replace(first=min(one.first, at), last=max(one.last, at))
    for reigns in streams.values():
        yield from itertools.pairwise(sorted(reigns.values()))
