"""One fault run from beginning to end: three brokers, an exchange, a fleet of bridges, a plan; then the reckoning."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge.coverage import CoverageRequest, recount
from bridge.kafka.settings import KafkaSettings
from bridge.sdk import connect
from tests.accounting import Account, Evidence, Truth, account
from tests.faults.figures import Figures, takeovers
from tests.faults.nemesis import Fleet, Nemesis, Pace, plan
from tests.integration.processes import simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from bridge.model import Environment
    from bridge.sdk.record import Record
    from tests.integration.processes import BridgeProcess, SimulatorProcess

BROKERS = 3
ENVIRONMENT: Environment = "testnet"
HEAL_SECONDS = 120.0
HEAL_SHARE = 3.0
"""Gaps are filled within the exchange's request weight: what a long round left takes as long again, or longer."""
QUIET_SECONDS = 12.0
"""The market goes on for so long after the last fault: what every stream lost has to show."""

CHANNELS = {
    "spot": ["agg-trade", "trade", "depth", "kline_1s", "kline_1m", "book-ticker"],
    "usdm": ["agg-trade", "trade", "depth", "kline_1m"],
    "coinm": ["agg-trade", "depth", "kline_1m"],
}
_STRUCTURES = ("trade", "order-book", "ohlcv")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What to run.

    Attributes:
        name: of the table of figures.
        seed: of the plan and the exchange.
        seconds: how long faults go on.
        pace: how many.
        bridges: processes.
        rate: orders a second on the exchange.
        symbols: of each market.
        variant: a name in :mod:`tests.faults.variants`; none is the bridge as it is.
        settings: more configuration.
    """

    name: str
    seed: int
    seconds: float
    pace: Pace
    bridges: int = 2
    rate: float = 500.0
    symbols: int = 3
    variant: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        figures: counted.
        told: what the oracle says of the topics.
        through_sdk: what it says of what the SDK makes of them.
        recount: where the coverage ledgers, the gap records and the topics do not agree.
        ended: bridges that ended by themselves: instance, exit status, last line logged.
    """

    figures: Figures
    told: Account
    through_sdk: Account
    recount: list[str]
    ended: list[tuple[str, int, str]]


def run(trial: Trial, kafka: LocalKafka, directory: Path) -> Outcome:
    """Run it, print what is done and what came of it, and hold the topics against the ground truth."""
    directory.mkdir(parents=True, exist_ok=True)
    truth = directory / "truth.jsonl"
    blows = plan(trial.seed, trial.seconds, trial.pace, bridges=trial.bridges, brokers=BROKERS)
    print(f"{trial.name}: seed {trial.seed}, {trial.seconds:g} s, {len(blows)} blows; {trial.pace}")
    (directory / "plan.txt").write_text("\n".join(map(str, blows)) + "\n")
    arguments = ("--seed", str(trial.seed), "--symbols", str(trial.symbols), "--rate", str(trial.rate))
    with (
        simulator(
            directory, *arguments, "--ground-truth", str(truth), variant="generous-exchange"
        ) as exchange,
        Fleet(directory, trial.bridges, _settings(trial, kafka, exchange), variant=trial.variant) as fleet,
    ):
        until(lambda: all(one.ready() for one in fleet.running), "the bridges are ready", HEAL_SECONDS)
        nemesis = Nemesis(fleet, kafka, exchange)
        nemesis.run(blows, trial.seconds)
        healing = HEAL_SECONDS + HEAL_SHARE * trial.seconds
        until(lambda: _healed(fleet), "all bridges are well again", healing)
        time.sleep(QUIET_SECONDS)
        _end(fleet, exchange)
    outcome = _reckon(trial, fleet, nemesis, kafka.bootstrap_servers, truth)
    print(outcome.told)
    print(outcome.figures.table())
    for name, status, last in fleet.ended:
        print(f"{name} ended by itself with status {status}: {last}")
    return outcome


def _settings(trial: Trial, kafka: LocalKafka, exchange: SimulatorProcess) -> dict[str, Any]:
    return {
        "environment": ENVIRONMENT,
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "request_timeout_ms": 3000},
        "endpoints": exchange.endpoints,
        "replication_factor": BROKERS,
        "subscriptions": [{"market": m, "symbols": "*", "channels": own} for m, own in CHANNELS.items()],
        "topics": {"partitions": 3},
        **trial.settings,
    }


def _healed(fleet: Fleet) -> bool:
    """Whether every bridge runs, is ready and misses nothing that it could still get."""
    fleet.mend()
    return all(one.alive() and one.ready() and one.status()["gaps"]["open"] == 0 for one in fleet.running)


def _end(fleet: Fleet, exchange: SimulatorProcess) -> None:
    """End the market, let everything that happened reach Kafka, and stop the bridges as an operator does."""
    exchange.stop_market()
    until(
        lambda: not any(c["backlog_bytes"] for c in exchange.state()["connections"]), "the exchange sent all"
    )
    until(lambda: _settled(fleet.running), "everything is received", 60)
    until(lambda: _healed(fleet), "no gap is open", HEAL_SECONDS)
    until(lambda: all(one.drained() for one in fleet.running), "everything is published", 60)
    for one in fleet.running:
        one.terminate()
    for one in fleet.running:
        assert one.wait(60) == 0, one.err[-3000:]


def _settled(bridges: list[BridgeProcess]) -> bool:
    """Whether no message came for a second; nothing tells when the last has left a socket's buffer."""
    had = [one.messages() for one in bridges]
    time.sleep(1.0)
    return had == [one.messages() for one in bridges]


def _reckon(trial: Trial, fleet: Fleet, nemesis: Nemesis, bootstrap_servers: str, truth: Path) -> Outcome:
    true, evidence = Truth.read(truth), Evidence.of(read(bootstrap_servers, ENVIRONMENT))
    told = account(true, evidence, crashed=fleet.crashed, cut_off=fleet.kills)
    figures = Figures(name=trial.name, seeds=[trial.seed], seconds=trial.seconds)
    figures.count(told)
    figures.faults, figures.left_out = nemesis.done, sum(nemesis.left_out.values())
    figures.takeovers = takeovers(evidence, fleet.kills)
    recounted = asyncio.run(_recount(bootstrap_servers))
    if told.problems or recounted:
        _keep_evidence(truth.parent, [*map(str, told.problems), *recounted], evidence)
    seen = Evidence(unified=asyncio.run(_through_sdk(bootstrap_servers)), gaps=evidence.gaps)
    through_sdk = account(true, seen, crashed=fleet.crashed)
    return Outcome(figures, told, through_sdk, recounted, fleet.ended)


async def _recount(bootstrap_servers: str) -> list[str]:
    request = CoverageRequest(environment=ENVIRONMENT)
    found = await recount(KafkaSettings(bootstrap_servers=bootstrap_servers), request)
    return [
        f"{one.stream.market} {one.stream.stream}: {text}"
        for one in found
        for text in (
            *one.disagreements,
            *(f"unexplained: {span.first}..{span.last}" for span in one.unexplained),
            *(f"published and called missing: {span.first}..{span.last}" for span in one.both),
        )
    ]


def _keep_evidence(directory: Path, problems: list[str], evidence: Evidence) -> None:
    """Write what was found, and what it was found in: Kafka is gone when somebody looks into it."""
    (directory / "problems.txt").write_text("\n".join(problems) + "\n")
    for name, records in (
        ("lifecycle", evidence.lifecycle),
        ("gaps", evidence.gaps),
        ("unified", [{"structure": s, **r, "bids": None, "asks": None} for s, r in evidence.unified]),
    ):
        with (directory / f"{name}.jsonl").open("w") as lines:
            lines.writelines(json.dumps(record, default=str) + "\n" for record in records)


async def _through_sdk(bootstrap_servers: str) -> list[tuple[str, dict[str, Any]]]:
    """Return what a consumer gets of everything published, in the shape of the records themselves."""
    found = []
    async with connect(bootstrap_servers, environment=ENVIRONMENT) as client:
        for structure in _STRUCTURES:
            reading = client.records(structure, start="earliest", end="now", late="all")
            async with reading as records:
                found += [(structure, _fields(record)) async for record in records]
    return found


def _fields(record: Record) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    for side in ("bids", "asks"):
        if side in fields:
            fields[side] = [{"price": level.price, "amount": level.amount} for level in fields[side]]
    return fields
