"""The bridge with a spool while Kafka is away, under load and with a small buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.test_kafka_away import BUFFER_BYTES, _finish, _settings
from tests.integration.processes import bridge, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

RATE = 2_000
SYNC_MS = 500


def test_an_outage_costs_nothing_with_a_spool(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """An outage of many times what the buffer holds closes no connection and loses no event."""
    kafka, truth, spool = own_kafka(), tmp_path / "truth.jsonl", tmp_path / "spool"
    with simulator(tmp_path, "--symbols", "8", "--rate", str(RATE), "--ground-truth", str(truth)) as exchange:
        settings = _settings(
            kafka, exchange, buffer_bytes=BUFFER_BYTES, spool={"directory": str(spool), "sync_ms": SYNC_MS}
        )
        with bridge(tmp_path, settings) as running:
            until(running.ready, "the bridge is ready")
            until(lambda: running.messages() > 3_000, "it works")
            kafka.kill(1)
            had = running.messages()
            until(lambda: running.messages() > had + 20_000, "much came meanwhile")
            assert sum(path.stat().st_size for path in spool.glob("*.segment")) > 2 * BUFFER_BYTES
            kafka.restart(1)
            until(running.ready, "it is ready again")
            found, evidence = _finish(exchange, running, kafka, truth)
    assert found.in_gaps == 0
    assert not [e for e in evidence.lifecycle if "buffer full" in (e["reason"] or "")]
    assert not list(spool.glob("*.segment"))


def test_a_bridge_killed_while_kafka_is_away(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """What a killed bridge had received a sync window before is in the topics once the next one has started."""
    kafka, spool = own_kafka(), tmp_path / "spool"
    with simulator(tmp_path, "--symbols", "8", "--rate", str(RATE)) as exchange:
        settings = _settings(kafka, exchange, spool={"directory": str(spool), "sync_ms": SYNC_MS})
        with bridge(tmp_path, settings) as running:
            until(running.ready, "the bridge is ready")
            until(lambda: running.messages() > 3_000, "it works")
            kafka.kill(1)
            had = running.messages()
            until(lambda: running.messages() > had + 10_000, "much came meanwhile")
            exchange.stop_market()
            until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
            received = {int(one["id"], 16): one["messages"] for one in running.connections()}
            until(running.drained, "all of it is in files")
            running.popen.kill()
            running.wait(60)
        kafka.restart(1)
        with bridge(tmp_path, settings) as running:
            until(
                lambda: running.alive() and "wait since before the start" in running.err, "it found the files"
            )
            until(lambda: not list(spool.glob("*.segment")), "all of it is published")
    topics = read(kafka.bootstrap_servers, "prod")
    stored = [one.record for topic in topics if ".raw." in topic for one in topics[topic]]
    messages = [(one["connectionId"], one["connectionSequence"]) for one in stored if one["kind"] == "stream"]
    assert len(messages) == len(set(messages))
    assert sum(received.values()) > 10_000
    for connection, count in received.items():
        assert {number for found, number in messages if found == connection} == set(range(count))
