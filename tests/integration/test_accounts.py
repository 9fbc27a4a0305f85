"""Accounts from the exchange to Kafka, by real processes: their true history and state, whatever breaks; no secret."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.processes import BridgeProcess, get, post, simulator, until
from tests.integration.reading import decode, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.integration.processes import SimulatorProcess
    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka

KEY, SECRET = "PlantedAccountKey" + "K" * 47, "PlantedAccountSecret" + "S" * 44
WRONG = "PlantedWrongSecret" + "W" * 46
PLAN = {
    "accounts": [
        {
            "name": "main",
            "keys": [{"name": "only", "key": KEY, "secret": SECRET}],
            "fills": "script",
            "spot": {"USDT": "10000000", "BTC": "2"},
            "usdm": {"USDT": "1000000"},
            "coinm": {"BTC": "100"},
        }
    ]
}
MARKETS = ("spot", "usdm", "coinm")
SYMBOLS = {"spot": "BTCUSDT", "usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}
VARIABLES = {"BINANCE_PROD_MAIN_API_KEY": KEY, "BINANCE_PROD_MAIN_API_SECRET": SECRET}


class Scene:
    """An exchange with an account, a Kafka, and bridges one after another."""

    def __init__(self, directory: Path, exchange: SimulatorProcess, kafka: LocalKafka) -> None:
        self.directory, self.exchange, self.kafka = directory, exchange, kafka
        self.bridge: BridgeProcess | None = None
        self.cutting = False
        self._number = 0

    def start(self, *, variables: dict[str, str] | None = None, ready: bool = True, **more: Any) -> None:
        """Start a bridge and wait until it listens."""
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers, "request_timeout_ms": 3000},
            "endpoints": self.exchange.endpoints,
            "accounts": [{"name": "main", "market": market} for market in MARKETS],
            "session_timeout_seconds": 6,
            "checkpoint_interval_seconds": 1,
            "log": {"level": "DEBUG"},
            **more,
        }
        self.bridge = BridgeProcess(self.directory, settings, variables=variables or VARIABLES)
        if ready:
            until(self.bridge.ready, "the bridge listens")

    def kill(self) -> None:
        """SIGKILL."""
        assert self.bridge is not None
        self.bridge.end()

    def do(self, what: str, **step: Any) -> None:
        """Take a step of a script at once; the exchange must take it. While ``cutting``, right after a cut."""
        if self.cutting:
            self.exchange.faults({"fault": "drop-private"})
        answer = post(f"{self.exchange.control}/script", {"do": what, **step})
        assert not [one for one in answer["taken"] if "refused" in one], answer

    def place(self, market: str) -> str:
        """Place an order that rests, and return its client order id."""
        self._number += 1
        name = f"order-{self._number}"
        quantity = "1" if market == "coinm" else "0.1"
        self.do(
            "place", market=market, symbol=SYMBOLS[market], side="BUY", type="LIMIT", timeInForce="GTC",
            quantity=quantity, price="70000", newClientOrderId=name,
        )  # fmt: skip
        return name

    def happen(self) -> None:
        """Let an order fill, one be canceled and one rest, on each market, and money come in."""
        for market in MARKETS:
            filled, canceled = self.place(market), self.place(market)
            self.do("fill", market=market, order=filled, quantity="1" if market == "coinm" else "0.04")
            self.do("cancel", market=market, order=canceled)
            self.place(market)
            self.do("deposit", market=market, asset="BTC" if market == "coinm" else "USDT", amount="5")

    def truth(self) -> dict[str, Any]:
        """What REST would show of the account, by market."""
        return json.loads(get(f"{self.exchange.control}/accounts/main")[1])

    def records(self, *topics: str) -> list[tuple[str, dict[str, Any]]]:
        """Return topic and record of everything in topics that end so."""
        return [
            (stored.topic, decode(stored.value)[1] | {"key": stored.key})
            for topic, found in read(
                self.kafka.bootstrap_servers, "prod", only=lambda topic: topic.endswith(topics)
            ).items()
            for stored in found
        ]


@pytest.fixture
def scene(own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Scene]:
    """A scene without a bridge so far."""
    plan = tmp_path / "accounts.yaml"
    plan.write_text(yaml.safe_dump(PLAN))
    with simulator(tmp_path, "--symbols", "2", "--rate", "5", "--accounts", str(plan)) as exchange:
        found = Scene(tmp_path, exchange, own_kafka())
        try:
            yield found
        finally:
            if found.bridge is not None:
                found.bridge.end()


def _fills(scene: Scene) -> tuple[Counter[Any], Counter[Any]]:
    """Return the fills in Kafka and those of the exchange, each with how often it is there."""
    stored = Counter(
        (record["market"], record["exchangeSymbol"], record["id"])
        for _, record in scene.records(".unified.my-trade")
    )
    true = Counter(
        (market, row["symbol"], str(row["id"]))
        for market in MARKETS
        for row in scene.truth()[market]["trades"]
    )
    return stored, true


def _orders(scene: Scene) -> tuple[dict[Any, str], dict[Any, str]]:
    """Return the status of each order: the newest of the state topic, and the exchange's."""
    stored = {
        (record["market"], record["exchangeSymbol"], record["id"]): record["exchangeStatus"]
        for _, record in scene.records(".state.order")
    }
    true = {
        (market, row["symbol"], str(row["orderId"])): row["status"]
        for market in MARKETS
        for row in scene.truth()[market]["orders"]
    }
    return stored, true


def _balances(scene: Scene) -> tuple[dict[Any, Decimal], dict[Any, Decimal]]:
    """Return what there is of each asset: the newest of the state topic, and the exchange's."""
    stored = {
        (record["market"], record["exchangeSymbol"]): record["total"]
        for _, record in scene.records(".state.balance")
    }
    true = {}
    for market in MARKETS:
        for row in scene.truth()[market]["balances"]:
            whole = Decimal(row["free"]) + Decimal(row["locked"]) if market == "spot" else row["balance"]
            true[market, row["asset"]] = Decimal(whole)
    return {key: stored.get(key, Decimal(0)) for key in true}, true


def _agree(scene: Scene) -> bool:
    return all(stored == true for stored, true in (_fills(scene), _orders(scene), _balances(scene)))


@pytest.mark.parametrize(
    "delivery", ["at_least_once", pytest.param("exactly_once", marks=pytest.mark.faults)]
)
def test_the_true_history_and_state_are_in_kafka(scene: Scene, delivery: str) -> None:
    """Through broken streams, a killed bridge and its successor: each fill once, each order and balance as it is."""
    options = {"delivery": delivery, "transactions": {"timeout_ms": 10_000}}
    scene.start(**options)
    scene.happen()
    until(lambda: _agree(scene), "what happened is there")
    scene.exchange.faults({"fault": "drop-private"})
    scene.happen()
    until(lambda: _agree(scene), "what happened around a broken stream is there")
    scene.exchange.faults({"fault": "lose-user-events", "count": 3}, {"fault": "duplicate-user-events"})
    scene.happen()
    scene.exchange.faults({"fault": "drop-private"})
    until(lambda: _agree(scene), "what the stream lost is there")
    scene.kill()
    scene.happen()
    scene.start(**options)
    until(lambda: _agree(scene), "what happened without a bridge is there")
    scene.happen()
    until(lambda: _agree(scene), "it goes on")
    scene.cutting = True
    scene.happen()
    scene.cutting = False
    until(lambda: _agree(scene), "what happened while every step cut the streams is there", 300)
    assert scene.bridge is not None
    scene.bridge.terminate()
    assert scene.bridge.wait(120) == 0
    assert _agree(scene), (_fills(scene), _orders(scene), _balances(scene))
    fills, _ = _fills(scene)
    assert set(fills.values()) == {1}
    origins = {record["origin"] for _, record in scene.records(".unified.my-trade")}
    assert origins == {"live", "backfill"}
    raw = scene.records(".raw.spot.user", ".raw.usdm.user", ".raw.coinm.user")
    assert {record["key"] for _, record in raw} == {"main"}
    assert {record["kind"] for _, record in raw} == {"wsApi", "stream", "rest"}
    letters = [record for _, record in scene.records(".dead-letter")]
    assert letters == []


@pytest.mark.faults
def test_nothing_secret_shows_anywhere(scene: Scene) -> None:
    """At level DEBUG, with every refusal made to happen, no key, signature or listen key is in any output or topic."""
    scene.start(variables={**VARIABLES, "BINANCE_PROD_MAIN_API_SECRET": WRONG}, ready=False)
    assert scene.bridge is not None
    refused = scene.bridge
    until(lambda: "authentication.failed" in refused.err, "the wrong secret is refused")
    shown = [refused.out, refused.err, *(get(f"{refused.url}{path}")[1] for path in _PATHS)]
    refused.terminate()
    assert refused.wait(120) == 0
    scene.start()
    running = scene.bridge
    scene.happen()
    for fault in FAULTS:
        scene.exchange.faults(fault)
        scene.happen()
        until(lambda: _agree(scene) and running.ready(), f"it is well again after {fault['fault']}")
    shown += [running.out, running.err, *(get(f"{running.url}{path}")[1] for path in _PATHS)]
    shown += [json.dumps(running.connections()), json.dumps(running.status())]
    topics = read(scene.kafka.bootstrap_servers, "prod").values()
    shown += [f"{one.key} {one.value!r} {one.headers!r}" for stored in topics for one in stored]
    text = "\n".join(shown)
    assert "authentication.succeeded" in text
    for planted in (KEY, SECRET, WRONG):
        assert planted not in text
    assert not re.search(r"signature=(?!\*)", text)
    assert not re.search(r"[?&]listenKey=[^*]", text)
    listened = {
        name for connection in scene.exchange.state()["connections"] for name in connection["streams"]
    }
    assert not [name for name in listened if len(name) > 40 and name in text]


FAULTS = (
    {"fault": "expire-keys"},
    {"fault": "revoke-key", "seconds": 2},
    {"fault": "withdraw-permission", "seconds": 2},
    {"fault": "clock-skew", "seconds": 2},
    {"fault": "refuse-connections", "seconds": 2},
)
_PATHS = ("/metrics", "/healthz", "/readyz", "/status", "/connections", "/")
