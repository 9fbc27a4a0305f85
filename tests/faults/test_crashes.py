"""Bridges, brokers and the exchange break at once, by a seed; afterwards every event is asked for.

``make test-faults`` runs a round of each; ``make soak-faults`` goes on until so many events were made and so many
processes were killed (``BRIDGE_FAULT_EVENTS``, ``BRIDGE_FAULT_KILLS``). Each round has its own cluster and seed.
``BRIDGE_FAULT_SEED`` repeats the round of a printed seed.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bridge.local.kafka import LocalKafka
from tests.faults.figures import Figures
from tests.faults.nemesis import KINDS, Pace
from tests.faults.trial import BROKERS, Trial, run

if TYPE_CHECKING:
    from tests.faults.trial import Outcome
    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SEED = int(os.environ.get("BRIDGE_FAULT_SEED", "20261123"))
SECONDS = float(os.environ.get("BRIDGE_FAULT_ROUND_SECONDS", "60"))
RATE = float(os.environ.get("BRIDGE_FAULT_RATE", "400"))
EVENTS = int(os.environ.get("BRIDGE_FAULT_EVENTS", "0"))
KILLS = int(os.environ.get("BRIDGE_FAULT_KILLS", "0"))
KEPT_IN = Path(__file__).parents[2] / "build" / "faults"

PACE = Pace(kill_bridge=14, pause_bridge=18, freeze_bridge=30, kill_broker=28, freeze_broker=22, exchange=1)
SETTINGS = {"shards": 4, "session_timeout_seconds": 6}
EXACTLY_ONCE = {"delivery": "exactly_once", "transactions": {"timeout_ms": 10_000}}
MUTANTS = {
    "no-gap-filling": {"lost"},
    "no-sequencer": {"repeated", "disordered"},
    "not-idempotent": {"repeated"},
}


def _trial(name: str, seed: int, variant: str | None, seconds: float = SECONDS, **settings: Any) -> Trial:
    return Trial(
        name=name, seed=seed, seconds=seconds, pace=PACE, rate=RATE, variant=variant,
        settings={**SETTINGS, **settings},
    )  # fmt: skip


def _passed(outcome: Outcome) -> None:
    """Fail with what the oracle found, and how to find it again."""
    again = f"BRIDGE_FAULT_SEED={outcome.figures.seeds[0]} make test-faults PYTEST_ARGS='-k crashes'"
    assert not outcome.told.problems, f"{outcome.told}\n{again}"
    assert not outcome.through_sdk.problems, f"through the SDK: {outcome.through_sdk}\n{again}"
    assert outcome.recount == [], again
    assert not outcome.ended, again


def test_every_event_is_accounted_for(tmp_path: Path) -> None:
    """Whatever breaks, and while answers of brokers get lost: each event is published once, in order, or named once."""
    total = Figures(name="at least once")
    try:
        for seed in itertools.count(SEED):
            with LocalKafka(BROKERS) as kafka:
                outcome = run(_trial(total.name, seed, "lost-answers"), kafka, tmp_path / str(seed))
            total.add(outcome.figures)
            _passed(outcome)
            if total.events >= EVENTS and total.faults["kill bridge"] >= KILLS:
                break
    finally:
        print(total.table())
        total.keep(KEPT_IN)
    assert total.recovered > 100
    assert {*KINDS, "drop", "skip", "ban"} - {"exchange"} <= total.faults.keys()
    assert total.takeovers


def test_every_event_is_seen_once_with_transactions(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """With ``exactly_once`` a reader that knows of no epochs sees each event once, in order, or it is named once."""
    trial = _trial("exactly once", SEED, None, **EXACTLY_ONCE)
    outcome = run(trial, own_kafka(BROKERS), tmp_path)
    outcome.figures.keep(KEPT_IN)
    _passed(outcome)
    assert outcome.told.late == 0
    assert outcome.figures.takeovers


@pytest.mark.skipif(bool(EVENTS), reason="a long run tests the bridge, not the oracle")
@pytest.mark.parametrize(("mutant", "verdict"), MUTANTS.items(), ids=MUTANTS)
def test_the_oracle_convicts_a_mutant(
    own_kafka: OwnKafka, tmp_path: Path, mutant: str, verdict: set[str]
) -> None:
    """On half the plan that the true bridge passes, a bridge that lacks one part breaks what that part promises."""
    outcome = run(_trial(mutant, SEED, mutant, SECONDS / 2), own_kafka(BROKERS), tmp_path)
    assert verdict <= outcome.told.convictions().keys(), str(outcome.told)
