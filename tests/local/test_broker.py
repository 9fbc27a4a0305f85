"""Which broker tests and demo get, and the command that runs one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import psutil
import pytest

from bridge.local.broker import BOOTSTRAP_SERVERS, broker, docker_answers
from tests.kafka_fixture import shared_broker

COMMAND = [sys.executable, "-c", "import typer; from bridge.cli.broker import broker; typer.run(broker)"]


@contextmanager
def engine(path, answer):
    """Listen at a Unix socket and answer one request, as a Docker engine would."""

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_given_broker_comes_first(monkeypatch):
    """``BRIDGE_TEST_BOOTSTRAP_SERVERS`` is used as it is, and nothing is started."""
    monkeypatch.setenv(BOOTSTRAP_SERVERS, "kafka-1:9092,kafka-2:9092")
    before = psutil.Process().children()
    with broker(3) as given:
        assert given.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
        assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 503 Unavailable\r\n\r\n", False), (b"", False)],
)
def test_docker_engine_must_answer(tmp_path, monkeypatch, answer, expected):
    """Docker counts only where its engine answers, not where just its socket is."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with engine(tmp_path / "docker.sock", answer):
        assert docker_answers() is expected


def test_no_docker_socket(tmp_path, monkeypatch):
    """Without an engine's socket there is no engine."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert not docker_answers()


def test_shared_broker_ends_after_its_last_user(tmp_path, monkeypatch):
    """The worker that started the shared broker keeps it until the others are done; then it is gone."""
    monkeypatch.setenv(BOOTSTRAP_SERVERS, "kafka:9092")
    started, let_go = threading.Event(), threading.Event()

    def own():
        with shared_broker(tmp_path):
            started.set()
            let_go.wait()

    owner = threading.Thread(target=own)
    owner.start()
    started.wait()
    with shared_broker(tmp_path) as shared:
        let_go.set()
        owner.join(0.2)
        assert owner.is_alive()
        assert shared.bootstrap_servers == "kafka:9092"
    owner.join()
    assert not (tmp_path / "kafka-address").exists()
    with shared_broker(tmp_path):
        assert (tmp_path / "kafka-address").exists()


@pytest.mark.kafka
def test_command_runs_until_it_is_told_to_stop(tmp_path):
    """``broker`` prints one line of JSON when ready, and on SIGTERM ends with 0 and leaves nothing."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment) as command:
        host, port = json.loads(command.stdout.readline())["bootstrap_servers"].split(":")
        socket.create_connection((host, int(port))).close()
        nodes = psutil.Process(command.pid).children()
        command.send_signal(signal.SIGTERM)
        assert command.wait(180) == 0
        assert command.stdout.read() == ""
    assert [node for node in nodes if node.is_running()] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kafka
def test_command_may_be_stopped_while_it_starts(tmp_path):
    """SIGINT before the broker is ready also ends the command with 0 and leaves nothing."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment) as command:
        while not (nodes := psutil.Process(command.pid).children()):
            assert command.poll() is None
        command.send_signal(signal.SIGINT)
        assert command.wait(180) == 0
        assert command.stdout.read() == ""
    assert [node for node in nodes if node.is_running()] == []
    assert list(tmp_path.iterdir()) == []
