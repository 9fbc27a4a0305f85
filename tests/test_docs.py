"""The examples of the README and the tutorial are run; links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bridge.config import load
from bridge.local.process import free_ports
from tests.integration.processes import Process, SimulatorProcess, command, get, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.local.broker import Broker

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {
        page
        for pattern in ("*.md", "*/README.md", "docs/**/*.md", "tests/*/README.md")
        for page in ROOT.glob(pattern)
    }
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or folder of the repository."""
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_pages_are_reached_from_the_map() -> None:
    """Every page of docs/ stands in docs/README.md, decisions by their folder."""
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = [p.relative_to(ROOT / "docs") for p in ROOT.glob("docs/**/*.md")]
    assert [
        str(p) for p in pages if p.parts[0] != "adr" and p.name != "README.md" and f"]({p})" not in text
    ] == []


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_configurations_load(page: str, tmp_path: Path) -> None:
    """Each YAML example is a whole configuration."""
    examples = blocks((ROOT / page).read_text(encoding="utf-8"), "yaml")
    assert examples
    for example in examples:
        file = tmp_path / "bridge.yaml"
        file.write_text(example, encoding="utf-8")
        assert load(file, {}).subscriptions


class Running:
    """A bridge between a simulator and a broker, configured as the README says."""

    def __init__(self, kafka: Broker, folder: Path, simulator: SimulatorProcess) -> None:
        settings: dict[str, Any] = yaml.safe_load(blocks(README, "yaml")[0])
        settings["kafka"]["bootstrap_servers"] = kafka.bootstrap_servers
        settings["endpoints"] = simulator.endpoints
        settings["http"] = {"port": free_ports(1)[0]}
        settings["environment"] = "testnet"  # the shared broker's prod topics are other tests'
        self.servers, self.folder = kafka.bootstrap_servers, folder
        self.url = f"http://127.0.0.1:{settings['http']['port']}"
        (folder / "bridge.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.process: Process | None = None


@pytest.fixture(scope="module")
def running(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A simulated exchange, and a place for the bridge."""
    folder = tmp_path_factory.mktemp("readme")
    simulator = SimulatorProcess(folder, "--symbols", "5", "--rate", "200")
    found = Running(kafka, folder, simulator)
    try:
        yield found
    finally:
        for process in (found.process, simulator):
            if process is not None:
                process.end()


@pytest.mark.kafka
def test_readme_commands_run(running: Running) -> None:
    """The README's commands do what its comments say, in its order."""
    lines = [shlex.split(line, comments=True) for line in blocks(README, "sh")[1].splitlines()]
    commands = {line[1]: line[1:] for line in lines}
    assert list(commands) == ["topics", "run", "status", "tail"]

    planned = command(*commands["topics"], cwd=running.folder)
    assert planned.returncode == 1, "there is something to create"
    assert "binance.testnet.unified.trade" in planned.stdout

    running.process = Process("bridge", running.folder, *commands["run"])
    until(lambda: get(f"{running.url}/readyz")[0] == 200, "the bridge is ready")

    status = command(*commands["status"], cwd=running.folder)
    assert status.returncode == 0
    assert "usdm" in status.stdout

    tail = command(*commands["tail"], "--limit", "3", cwd=running.folder)
    assert tail.returncode == 0, tail.stderr
    assert tail.stdout.count("BTC/USDT") == 3


@pytest.mark.kafka
def test_readme_consumer_runs(running: Running) -> None:
    """The README's consumer prints trades."""
    assert running.process is not None, "the test before starts the bridge"
    [example] = blocks(README, "python")
    body = example.replace("localhost:9092", running.servers).replace('"prod"', '"testnet"')
    indented = "\n    ".join(line for line in body.splitlines() if not line.startswith("from "))
    script = (
        "import asyncio\nfrom bridge.sdk import connect\n\n"
        f"async def main():\n    {indented}\n            break\n\nasyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Z (buy|sell) \d", done.stdout)


@pytest.mark.kafka
def test_bridge_stops_as_the_readme_says(running: Running) -> None:
    """SIGTERM drains and ends with status 0."""
    assert running.process is not None
    running.process.terminate()
    assert running.process.wait(120) == 0, running.process.err


def test_tutorial_commands_exist() -> None:
    """Each command of the tutorial is known, with its options."""
    for block in blocks(TUTORIAL, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("binance-bridge"):
                options = [w for w in words if w.startswith("--")]
                shown = command(*words[1 : 3 if words[1] in {"config", "topics"} else 2], "--help", cwd=ROOT)
                assert shown.returncode == 0
                assert [o for o in options if o not in shown.stdout] == []
