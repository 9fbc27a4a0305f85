"""Which topics a configuration needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bridge.catalogue import catalogue
from bridge.config import Settings
from bridge.topics import topic_specs

if TYPE_CHECKING:
    from bridge.kafka.topics import TopicSpec

_BARE: dict[str, Any] = {
    "environment": "testnet",
    "kafka": {"bootstrap_servers": "127.0.0.1:9092"},
    "subscriptions": [{"market": "spot", "symbols": ["BTCUSDT"], "channels": ["trade"]}],
}


def _specs(*accounts: tuple[str, str], **settings: Any) -> dict[str, TopicSpec]:
    made = [{"name": name, "market": market} for name, market in accounts]
    specs = topic_specs(catalogue(), Settings.model_validate(_BARE | {"accounts": made} | settings))
    return {spec.name.removeprefix("binance.testnet."): spec for spec in specs}


def test_private_topics_exist_for_configured_accounts_only() -> None:
    """Without accounts none of them, with them those of their markets; futures have positions besides."""
    without = set(_specs())
    spot = {
        "raw.spot.user", "unified.order", "unified.my-trade", "unified.balance", "unified.ledger",
        "unified.account-event", "state.order", "state.balance",
    }  # fmt: skip
    assert set(_specs(("main", "spot"), ("other", "spot"))) - without == spot
    futures = (spot - {"raw.spot.user"}) | {
        "raw.usdm.api", "raw.usdm.user", "unified.position", "state.position",
    }  # fmt: skip
    assert set(_specs(("main", "usdm"))) - without == futures
    assert not without & (spot | futures)


def test_private_topics_are_kept_as_the_contract_says() -> None:
    """Thirty days of raw private events, compacted states; retention can be set."""
    specs = _specs(("main", "coinm"))
    assert specs["raw.coinm.user"].config["retention.ms"] == str(30 * 86_400_000)
    assert specs["state.position"].config["cleanup.policy"] == "compact"
    shorter = _specs(("main", "coinm"), topics={"retention_days": {"user": 3}})
    assert shorter["raw.coinm.user"].config["retention.ms"] == str(3 * 86_400_000)
    assert shorter["raw.spot.trade"].config["retention.ms"] == str(7 * 86_400_000)


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
def test_what_an_account_makes_has_its_topics(market: Any) -> None:
    """Every structure that is declared for a market's accounts is among those that get topics."""
    sources = catalogue().accounts
    made = {
        record.structure
        for (on, _), compiled in [*sources.events.items(), *sources.answers.items()]
        if on == market
        for record in compiled.declaration.records
    }
    assert made == set(sources.structures(market))
