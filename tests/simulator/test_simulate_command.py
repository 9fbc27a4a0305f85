"""The command ``binance-bridge simulate`` as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

CAPTURE = Path(__file__).parents[1] / "captures" / "spot.jsonl.gz"


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bridge", "simulate", *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """It prints its endpoints on one line, serves, and on a signal writes its ground truth and exits 0."""
    truth = tmp_path / "truth.jsonl"
    command = _command("--capture", CAPTURE, "--speed", "0", "--ground-truth", truth)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoints = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{endpoints['http']}/state", timeout=60) as answer:
            state = json.load(answer)
        process.send_signal(number)
        assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == 0
    assert set(endpoints) == {"spot", "usdm", "coinm", "http"}
    assert set(endpoints["usdm"]) == {"stream", "rest", "ws_api"}
    assert state["replay"]["spot"] == {"started": False, "sent": 0, "total": 265, "done": False}
    assert truth.is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_more_signals_change_nothing(number: signal.Signals) -> None:
    """Signals that come while it stops, to the very end of the process, leave its exit status 0."""
    with subprocess.Popen(_command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        while process.poll() is None:
            process.send_signal(number)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--capture", "none.gz"], "capture none.gz: No such file or directory"),
        (["--faults", "none.yaml"], "fault plan none.yaml"),
        (["--capture", CAPTURE, "--ground-truth", "none/truth.jsonl"], "none/truth.jsonl"),
    ],
)
def test_wrong_usage_is_one_message(arguments: list[object], message: str) -> None:
    """A wrong argument ends with exit status 2 and one line that names it."""
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_one_message() -> None:
    """A port that is in use ends with exit status 2 and one line that names it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            _command("--capture", CAPTURE, "--http-port", port),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert str(port) in done.stderr
