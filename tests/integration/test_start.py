"""What a user sees who starts the bridge when something is not there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from bridge.local.process import free_ports
from tests.integration.processes import bridge, command, get, simulator, until
from tests.integration.reading import topics_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.integration.processes import BridgeProcess, SimulatorProcess

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """A small exchange."""
    with simulator(tmp_path_factory.mktemp("exchange"), "--symbols", "2", "--rate", "20") as running:
        yield running


def _settings(bootstrap_servers: str, endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "environment": "testnet",
        "kafka": {"bootstrap_servers": bootstrap_servers},
        "endpoints": endpoints,
        "subscriptions": [
            {"market": "coinm", "symbols": "*", "channels": ["index-price-kline_1m", "mark-price"]}
        ],
        **more,
    }


def _last_line(process: BridgeProcess) -> str:
    """Its one message: nothing but log lines may stand before it."""
    assert "Traceback" not in process.err
    lines = [line for line in process.err.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(lines) == 1, process.err
    return lines[0]


def test_missing_topics_are_named_each(
    cluster: LocalKafka, exchange: SimulatorProcess, tmp_path: Path
) -> None:
    """Without leave to create topics the bridge ends with status 1 and names every topic that is missing."""
    settings = _settings(cluster.bootstrap_servers, exchange.endpoints, create_topics=False)
    before = topics_of(cluster.bootstrap_servers, "testnet")
    with bridge(tmp_path, settings) as running:
        assert running.wait(120) == 1
        message = _last_line(running)
        planned = command("topics", "plan", "--json", "--config", str(running.config), cwd=tmp_path)
    assert planned.returncode == 1
    needed = {topic["name"] for topic in json.loads(planned.stdout)["create"]}
    assert "binance.testnet.raw.coinm.index-price-kline" in needed
    named = set(re.findall(r"binance\.testnet\.[a-z0-9.-]+[a-z0-9]", message))
    assert named == needed
    assert "topics apply" in message
    assert topics_of(cluster.bootstrap_servers, "testnet") == before


def test_a_symbol_that_is_not_there_names_the_nearest(
    cluster: LocalKafka, exchange: SimulatorProcess, tmp_path: Path
) -> None:
    """A misspelt symbol ends the bridge with status 2 and the name that was meant."""
    wrong = [{"market": "spot", "symbols": ["BTC/USTD"], "channels": ["trade"]}]
    settings = _settings(cluster.bootstrap_servers, exchange.endpoints, subscriptions=wrong)
    with bridge(tmp_path, settings) as running:
        assert running.wait(120) == 2
        message = _last_line(running)
    assert "BTC/USTD" in message
    assert "BTC/USDT" in message
    assert "subscriptions" in message


def test_kafka_that_does_not_answer_is_one_clear_message(exchange: SimulatorProcess, tmp_path: Path) -> None:
    """With nobody at bootstrap_servers the bridge ends with status 1 and says where it looked."""
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with bridge(tmp_path, _settings(nobody, exchange.endpoints)) as running:
        assert running.wait(120) == 1
        assert nobody in _last_line(running)


def test_an_exchange_that_does_not_answer_is_waited_for(cluster: LocalKafka, tmp_path: Path) -> None:
    """The bridge stays alive, says on /readyz whom it waits for, and still ends by SIGTERM with status 0."""
    rest, stream, ws_api = free_ports(3)
    nobody = {
        "rest": f"http://127.0.0.1:{rest}", "stream": f"ws://127.0.0.1:{stream}",
        "ws_api": f"ws://127.0.0.1:{ws_api}",
    }  # fmt: skip
    with bridge(tmp_path, _settings(cluster.bootstrap_servers, {"coinm": nobody})) as running:

        def excuse() -> str:
            status, text = get(f"{running.url}/readyz")
            assert status in (0, 503)
            return text if str(rest) in text or "exchangeInfo" in text else ""

        told = until(excuse, "/readyz names the exchange")
        assert "coinm" in told
        assert get(f"{running.url}/healthz")[0] == 200
        running.terminate()
        assert running.wait(60) == 0
    assert "Traceback" not in running.err


def test_a_market_that_does_not_answer_holds_up_no_other(
    cluster: LocalKafka, exchange: SimulatorProcess, tmp_path: Path
) -> None:
    """While one market is out of reach the others' messages come in, and /readyz names the one that is missing."""
    rest = free_ports(1)[0]
    endpoints = {**exchange.endpoints, "coinm": {"rest": f"http://127.0.0.1:{rest}"}}
    settings = _settings(cluster.bootstrap_servers, endpoints)
    symbols = {"symbols": "*", "channels": ["agg-trade"]}
    settings["subscriptions"] = [{"market": market, **symbols} for market in ("coinm", "usdm", "spot")]
    with bridge(tmp_path, settings) as running:

        def messages() -> bool:
            markets = json.loads(get(f"{running.url}/status")[1] or "{}").get("markets", ())
            return {m["market"] for m in markets if m["messages"]} == {"usdm", "spot"}

        until(messages, "both other markets' messages")
        status, text = get(f"{running.url}/readyz")
        assert status == 503
        assert "coinm" in text
        running.terminate()
        assert running.wait(60) == 0
