"""``binance-bridge demo``, as ``make demo`` runs it: a Kafka of its own, the simulator, the bridge, a consumer."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.processes import Process, get, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kafka


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Process]:
    """The demo as a process."""
    process = Process("demo", tmp_path, "demo")
    try:
        yield process
    finally:
        process.end()


def _shows(process: Process, text: str) -> bool:
    assert process.alive(), f"the demo ended: {process.out[-2000:]} {process.err[-2000:]}"
    return text in process.out


def _left(process: Process) -> str:
    """Processes of its session, or nothing."""
    command = ["ps", "-o", "pid=,args=", "-s", str(process.popen.pid)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def test_the_demo_shows_the_system_until_it_is_interrupted(demo: Process) -> None:
    """It names a status page that is there, shows records, and ends with its summary and nothing left behind."""
    until(lambda: _shows(demo, "status page: "), "the status page is named")
    page = re.search(r"status page: (http://\S+)", demo.out)
    assert page is not None
    assert get(page[1])[0] == 200
    until(lambda: _shows(demo, "trade "), "a record is shown")
    demo.popen.send_signal(signal.SIGINT)
    assert demo.wait(180) == 0, demo.err
    for row in (
        "messages in: spot trade", "records out: binance.demo.unified.trade", "gaps found", "gap events filled",
        "reconnects", "latency p50", "latency p99",
    ):  # fmt: skip
        assert row in demo.out
    assert not _left(demo)


def test_a_demo_that_is_interrupted_at_once_has_not_failed(demo: Process) -> None:
    """Whoever ends it before a message has come is not told that the exchange can't be reached."""
    until(lambda: _shows(demo, "starting the exchange simulator"), "Kafka is there")
    demo.popen.send_signal(signal.SIGINT)
    assert demo.wait(180) == 0, demo.err
    assert "reachable" not in demo.err
    assert not _left(demo)
