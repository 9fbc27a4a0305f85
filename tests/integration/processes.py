"""The system under test as users run it: ``binance-bridge`` processes, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bridge.local.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.05


def until(condition: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """Ask again and again until ``condition`` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(_POLL_SECONDS)


def get(url: str, *, timeout: float = 60.0) -> tuple[int, str]:
    """Return status and body of a GET; status 0 where nothing answers."""
    return _exchange(urllib.request.Request(url), timeout)


def post(url: str, body: object) -> Any:
    """Post JSON and return the JSON answered."""
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    status, text = _exchange(request, 60.0)
    assert status == 200, text
    return json.loads(text)


def _exchange(request: urllib.request.Request, timeout: float) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def command(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``binance-bridge`` to its end."""
    return subprocess.run(
        _argv(arguments), check=False, capture_output=True, text=True, cwd=cwd, timeout=300,
        env=_environment(variables),
    )  # fmt: skip


def _argv(arguments: tuple[str, ...], variant: str | None = None) -> list[str]:
    program = ["bridge"] if variant is None else ["tests.faults.variants", variant]
    return [sys.executable, "-m", *program, *arguments]


def _environment(variables: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BRIDGE_", "BINANCE_"))}
    return {**kept, "COLUMNS": "200", "PYTHONPATH": str(_ROOT), **variables}


class Process:
    """A ``binance-bridge`` process with its output in files; with one part exchanged where a variant is named."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *arguments: str,
        variant: str | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.popen = subprocess.Popen(
                _argv(arguments, variant), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory,
                env=_environment(variables or {}), start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        """What it printed."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it logged."""
        return self._err.read_text()

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        with Path(f"/proc/{self.popen.pid}/statm").open() as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Return its exit status, which must come in time."""
        return self.popen.wait(seconds)

    def alive(self) -> bool:
        """Whether it runs; when not, the test should say why."""
        return self.popen.poll() is None

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(60)


class SimulatorProcess(Process):
    """``binance-bridge simulate``."""

    def __init__(
        self, directory: Path, *arguments: str, name: str = "simulator", variant: str | None = None
    ) -> None:
        super().__init__(name, directory, "simulate", *arguments, variant=variant)
        line = until(self._ready, "the simulator's endpoints")
        self.endpoints: dict[str, Any] = json.loads(line)
        self.control = self.endpoints.pop("http")

    def _ready(self) -> str:
        assert self.alive(), f"the simulator ended: {self.err}"
        return self.out if self.out.endswith("\n") else ""

    def state(self) -> dict[str, Any]:
        """What ``GET /state`` tells."""
        return json.loads(get(f"{self.control}/state")[1])

    def faults(self, *faults: dict[str, Any]) -> None:
        """Plan faults, or do those without a time at once."""
        post(f"{self.control}/faults", list(faults))

    def stop_market(self) -> None:
        """Let no further event happen, and write the ground truth."""
        post(f"{self.control}/stop-market", None)


class BridgeProcess(Process):
    """``binance-bridge run``."""

    def __init__(
        self,
        directory: Path,
        settings: dict[str, Any],
        *,
        name: str = "bridge",
        variant: str | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.port = free_ports(1)[0]
        settings = {"instance": name, "http": {"port": self.port}, "replication_factor": 1, **settings}
        self.environment = settings["environment"]
        self.config = directory / f"{name}.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        super().__init__(
            name, directory, "run", "--config", str(self.config), variant=variant, variables=variables
        )

    @property
    def url(self) -> str:
        """Its HTTP endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether ``/readyz`` says so; fails the test when the process has ended."""
        assert self.alive(), f"the bridge ended with {self.popen.returncode}: {self.err[-3000:]}"
        return get(f"{self.url}/readyz")[0] == 200

    def status(self) -> dict[str, Any]:
        """The report of ``/status``."""
        return json.loads(get(f"{self.url}/status")[1])

    def connections(self) -> list[dict[str, Any]]:
        """The report of ``/connections``."""
        return json.loads(get(f"{self.url}/connections")[1])

    def messages(self) -> int:
        """How many stream messages it has received."""
        return sum(market["messages"] for market in self.status()["markets"])

    def drained(self) -> bool:
        """Whether nothing is queued for Kafka."""
        return self.status()["buffer"]["bytes"] == 0

    def has_all_of(self, exchange: SimulatorProcess) -> bool:
        """Whether everything that an exchange sent, whose market stands still, has arrived on its connection."""
        there = exchange.state()["connections"]
        sent = sorted(one["messages_sent"] for one in there)
        return not any(one["backlog_bytes"] for one in there) and sent == sorted(
            one["messages"] for one in self.connections()
        )


@contextmanager
def simulator(
    directory: Path, *arguments: str, name: str = "simulator", variant: str | None = None
) -> Iterator[SimulatorProcess]:
    """Run a simulator for the block."""
    process = SimulatorProcess(directory, *arguments, name=name, variant=variant)
    try:
        yield process
    finally:
        process.end()


@contextmanager
def bridge(directory: Path, settings: dict[str, Any], *, name: str = "bridge") -> Iterator[BridgeProcess]:
    """Run a bridge for the block; killed at its end when it still runs."""
    process = BridgeProcess(directory, settings, name=name)
    try:
        yield process
    finally:
        process.end()
