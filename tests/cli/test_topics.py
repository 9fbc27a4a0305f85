"""``binance-bridge topics`` against a real broker."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.kafka_fixture import OwnKafka

ROOT = Path(__file__).parents[2]


async def topics(*arguments: str) -> tuple[int | None, str, str]:
    """Run ``binance-bridge topics``; return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "topics", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(300):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def written(tmp_path: Path, servers: str, **more: object) -> str:
    """Return the path of a configuration with one trade stream."""
    file = tmp_path / "bridge.yaml"
    content = {
        "environment": "testnet",
        "kafka": {"bootstrap_servers": servers},
        "subscriptions": [{"market": "spot", "symbols": ["BTCUSDT"], "channels": ["trade"]}],
        "topics": {"partitions": 2},
    }
    file.write_text(yaml.safe_dump(content | more))
    return str(file)


@pytest.mark.kafka
async def test_topics_are_planned_then_made_then_clean(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """``plan`` ends with 1 until ``apply`` has made the cluster so, and with 1 again where it must not act."""
    servers = await asyncio.to_thread(lambda: own_kafka().bootstrap_servers)
    file = written(tmp_path, servers)

    status, out, err = await topics("plan", "--config", file, "--json")
    wanted = {topic["name"] for topic in json.loads(out)["create"]}
    assert (status, err) == (1, "")
    assert {
        "binance.testnet.raw.spot.trade",
        "binance.testnet.unified.trade",
        "binance.testnet.gaps",
    } <= wanted

    status, out, err = await topics("apply", "--config", file)
    assert (status, err) == (0, "")
    assert f"{len(wanted)} to create" in out

    status, out, _ = await topics("plan", "--config", file, "--json")
    assert status == 0
    assert set(json.loads(out)["unchanged"]) == wanted

    fewer = written(tmp_path, servers, topics={"partitions": 1})
    for command in ("plan", "apply"):
        status, out, _ = await topics(command, "--config", fewer)
        assert status == 1
        assert "! binance.testnet.unified.trade: has 2 partitions, 1 are wanted" in out


async def test_topics_are_rendered_without_a_cluster(tmp_path: Path) -> None:
    """``render`` prints a Strimzi resource for each topic and asks nobody."""
    file = written(tmp_path, "127.0.0.1:1", replication_factor=3)
    status, out, err = await topics("render", "--config", file, "--cluster", "mine")
    assert (status, err) == (0, "")
    found = {resource["spec"]["topicName"]: resource for resource in yaml.safe_load_all(out)}
    trade = found["binance.testnet.unified.trade"]
    assert (trade["kind"], trade["spec"]["partitions"], trade["spec"]["replicas"]) == ("KafkaTopic", 2, 3)
    assert trade["metadata"]["labels"] == {"strimzi.io/cluster": "mine"}


async def test_a_broker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """Without a broker, ``plan`` fails with the address and no traceback."""
    status, out, err = await topics("plan", "--config", written(tmp_path, "127.0.0.1:1"))
    assert (status, out) == (1, "")
    assert err.startswith("binance-bridge: ")
    assert "127.0.0.1:1" in err
    assert "Traceback" not in err
