"""The plan of faults, the figures and the variants, without a bridge."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.accounting import Evidence
from tests.faults.figures import Figures, takeovers
from tests.faults.nemesis import KINDS, Kill, Pace, plan

if TYPE_CHECKING:
    from pathlib import Path

PACE = Pace(kill_bridge=9, pause_bridge=11, freeze_bridge=20, kill_broker=15, freeze_broker=15, exchange=1)


def test_a_seed_gives_the_same_plan_again() -> None:
    """The seed alone decides, and a longer run begins with the blows of a shorter one."""
    short, again = (plan(7, 60, PACE, bridges=3, brokers=3) for _ in range(2))
    longer = plan(7, 120, PACE, bridges=3, brokers=3)
    assert short == again == longer[: len(short)]
    assert plan(8, 60, PACE, bridges=3, brokers=3) != short


def test_a_plan_has_every_kind_of_blow() -> None:
    """Also a short run meets each kind, on each bridge and each broker if it is long enough."""
    blows = plan(7, 200, PACE, bridges=3, brokers=3)
    assert {blow.kind for blow in plan(7, 20, PACE, bridges=3, brokers=3)} == set(KINDS)
    for kind in ("kill bridge", "kill broker", "freeze broker"):
        assert {blow.target for blow in blows if blow.kind == kind} == {0, 1, 2}
    assert all(0 <= blow.at < 200 for blow in blows)
    frozen = [blow.seconds for blow in blows if blow.kind == "freeze bridge"]
    paused = [blow.seconds for blow in blows if blow.kind == "pause bridge"]
    assert max(paused) < PACE.session < min(frozen)


def test_figures_add_up_and_are_kept(tmp_path: Path) -> None:
    """Two runs make one table, in JSON and in Markdown."""
    first = Figures(name="a run", seeds=[1], events=5, faults=Counter(drop=2), takeovers=[1.0])
    first.add(
        Figures(
            name="another",
            seeds=[2],
            events=7,
            faults=Counter({"drop": 1, "kill bridge": 4}),
            takeovers=[3.0],
        )
    )
    assert first.seeds == [1, 2]
    first.keep(tmp_path)
    kept = json.loads((tmp_path / "a-run.json").read_text())
    assert (kept["events"], kept["faults"]) == (12, {"drop": 3, "kill bridge": 4})
    assert "| take-over: median, longest (count) | 2.0 s, 3.0 s (2) |" in (tmp_path / "a-run.md").read_text()
    assert "– kill bridge" in first.table()
    assert {field.name for field in dataclasses.fields(Figures)} == set(kept)


def test_a_take_over_is_timed_from_the_blow_to_the_next_owners_first_message() -> None:
    """By shard, known by its epochs; streams of other owners tell nothing of it."""

    def message(connection: int, stream: str, epoch: int, at: int) -> dict[str, object]:
        return {
            "kind": "stream", "market": "spot", "stream": stream, "symbol": stream, "connectionId": connection,
            "writerEpoch": epoch, "receivedAt": at * 1_000_000,
        }  # fmt: skip

    raw = [
        message(1, "a", 5, 9), message(1, "b", 5, 10), message(2, "c", 6, 9),
        message(2, "a", 7, 15), message(2, "b", 7, 14), message(2, "c", 6, 20),
    ]  # fmt: skip
    lifecycle = [{"connectionId": 1, "instance": "one"}, {"connectionId": 2, "instance": "two"}]
    evidence = Evidence(raw=raw, lifecycle=lifecycle)
    assert takeovers(evidence, [Kill("one", 11_000_000)]) == [3.0]
    assert takeovers(evidence, [Kill("two", 11_000_000)]) == []
