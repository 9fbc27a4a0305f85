"""One run: a broker, the firehose and a client, each a process of its own; what the client did in the middle of it.

The client has core 1 to itself; the firehose, the broker and this process share core 0. Every run has a broker of its
own, so that none finds another's records, checkpoints or warm caches.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from bridge.local.kafka import LocalKafka

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
SERVERS_CORE, CLIENT_CORE = 0, 1
HEAP_MB = 1024
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=4", f"-Xms{HEAP_MB}m", "-Xmn600m")
"""As a broker that runs for weeks: all of Java's compiler, and a heap that has its size. Without, it starts quicker."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_POLL_SECONDS = 0.05
_START_SECONDS = 240.0
_DRAIN_SECONDS = 90.0
_METADATA_SECONDS = 30.0
_TOPICS_A_REQUEST = 500
_SETTLED_SECONDS = 20.0
_STILL_SECONDS = 1.5
_LOST_SECONDS = 15.0  # what has not come by then does not come: a busy machine halts a client for seconds
_REST_SHARE = 0.2  # of a core, below which a client has nothing more to do


class FailedError(Exception):
    """A run that gave no figures, and why."""


class Load(NamedTuple):
    """What is sent.

    Attributes:
        frames: the file of the corpus.
        symbols: how many the exchange has.
        rate: messages a second; 0 is as fast as they are taken.
        messages: at most so many; 0 is all there are.
        seconds: how long to send at most.
        warm_seconds: with it, only what comes after so many seconds is measured, until sending ends; without,
            everything from the first message sent to the last record acknowledged.
    """

    frames: Path
    symbols: int
    rate: float = 0.0
    messages: int = 0
    seconds: float = 30.0
    warm_seconds: float = 0.0


@dataclass(frozen=True)
class Launch:
    """How a client is started.

    Attributes:
        command: its command line.
        others: command lines of further processes that share its work.
        environment: variables beside our own.
        streams: how many streams it will have subscribed to when it is ready.
        raw, unified: prefixes of the topics it writes; an empty one says that it has none.
        topics: topics to create beforehand,
        partitions: with so many partitions.
    """

    command: Sequence[str]
    streams: int
    raw: str
    unified: str | tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    topics: Sequence[str] = ()
    partitions: int = 6
    others: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """What a client is told when it is started."""

    bootstrap_servers: str
    port: int
    directory: Path
    symbols: int

    @property
    def stream_url(self) -> str:
        """Where the streams are."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self.port}"


class Client:
    """A way to bring the streams to Kafka."""

    name: str

    def prepare(self) -> None:
        """Install or build what it needs, once."""

    def launch(self, place: Place) -> Launch:
        """Say how it is started."""
        raise NotImplementedError


class Sample(NamedTuple):
    """Where a run stands."""

    wall: float
    cpu: float
    raw: int
    unified: int
    memory_bytes: int

    @property
    def of_streams(self) -> int:
        """Records of what was sent: raw also has the snapshots that a bridge goes on to ask REST for."""
        return self.unified or self.raw


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run gave."""

    client: str
    seconds: float
    cpu_seconds: float
    raw: int
    unified: int
    sent: int
    memory_bytes: int
    lost_connections: int
    warnings: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        """Messages published: markers of transactions and a book's snapshots are none."""
        return min(self.raw or self.unified, self.sent)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a message."""
        return self.cpu_seconds / max(self.messages, 1) * 1e6

    @property
    def per_cpu_second(self) -> float:
        """Messages a CPU second."""
        return self.messages / max(self.cpu_seconds, 1e-9)

    @property
    def per_second(self) -> float:
        """Messages a second as the clock on the wall has it."""
        return self.messages / max(self.seconds, 1e-9)

    @property
    def core_share(self) -> float:
        """Share of the core used."""
        return self.cpu_seconds / max(self.seconds, 1e-9)

    @property
    def missing(self) -> int:
        """Messages sent and not published."""
        return self.sent - self.messages


class FirehoseProcess:
    """The firehose, spoken to by its standard input and output."""

    def __init__(self, load: Load) -> None:
        #: Event time of the first message.
        self.now_ms = int(time.time() * 1000)
        command = [
            sys.executable,
            str(ROOT / "benchmarks/firehose.py"),
            str(load.frames),
            "--symbols",
            str(load.symbols),
            "--now-ms",
            str(self.now_ms),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port: int = self._answer()["port"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command; return what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Topics:
    """How many records there are, by prefix of the topic."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self._partitions: list[TopicPartition] = []

    def create(self, names: Iterable[str], partitions: int) -> None:
        """Create topics."""
        new = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names]
        for at in range(0, len(new), _TOPICS_A_REQUEST):
            for future in self._admin.create_topics(new[at : at + _TOPICS_A_REQUEST]).values():
                future.result(60)

    def look(self) -> None:
        """Find the topics and partitions there are."""
        topics = self._admin.list_topics(timeout=30).topics
        self._partitions = [
            TopicPartition(name, number) for name, topic in topics.items() for number in topic.partitions
        ]

    def ends(self, *prefixes: str | tuple[str, ...]) -> tuple[int, ...]:
        """Return how many records the topics of each prefix have together; an empty one counts none."""
        wanted = [p for p in self._partitions if any(x and p.topic.startswith(x) for x in prefixes)]
        if not wanted:
            return (0,) * len(prefixes)
        found = self._newest(wanted)
        return tuple(
            sum(end for p, end in found.items() if prefix and p.topic.startswith(prefix))
            for prefix in prefixes
        )

    def _newest(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        deadline = time.monotonic() + _METADATA_SECONDS
        while True:
            try:
                futures = self._admin.list_offsets({p: OffsetSpec.latest() for p in partitions})  # type: ignore[no-untyped-call]
                return {p: future.result(30).offset for p, future in futures.items()}
            except KafkaException:  # a topic made just now has no leader yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)


class ClientProcess:
    """The client, pinned to its core; several processes count as one."""

    def __init__(self, launch: Launch, directory: Path) -> None:
        self.started_at = time.monotonic()
        self._logs: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate((launch.command, *launch.others)):
            self._logs.append(directory / f"client-{number}.log")
            with self._logs[-1].open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        ["taskset", "-c", str(CLIENT_CORE), *command], stdin=subprocess.DEVNULL, stdout=log,
                        stderr=subprocess.STDOUT, cwd=directory, start_new_session=True,
                        env={**_clean_environment(), **launch.environment},
                    )
                )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def require_alive(self) -> None:
        """Fail with its log's tail where it has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise FailedError(f"ended with {process.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the end of what it wrote."""
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in self._logs)

    def warnings(self) -> tuple[str, ...]:
        """Return the first lines of its log that warn."""
        lines = [line for log in self._logs for line in log.read_text(errors="replace").splitlines()]
        return tuple(line[:300] for line in lines if re.search("WARN|ERROR|Traceback", line))[:10]

    def cpu_seconds(self) -> float:
        """Return user and system time so far."""
        return sum(self._ticks(process.pid) for process in self._processes) / _TICKS

    def memory_bytes(self) -> int:
        """Return resident memory."""
        files = [Path(f"/proc/{process.pid}/statm") for process in self._processes]
        return sum(int(file.read_text().split()[1]) for file in files) * _PAGE

    @staticmethod
    def _ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


def _clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BRIDGE_", "BINANCE_", "PYTHON"))}
    return {**kept, "PYTHONUNBUFFERED": "1"}


@dataclass(slots=True)
class Run:
    """A run under way: everything is started and subscribed, nothing sent."""

    client: Client
    load: Load
    launch: Launch
    place: Place
    kafka: LocalKafka
    firehose: FirehoseProcess
    process: ClientProcess
    topics: Topics

    def sample(self) -> Sample:
        """Return where it stands."""
        self.process.require_alive()
        raw, unified = self.topics.ends(self.launch.raw, self.launch.unified)
        return Sample(time.monotonic(), self.process.cpu_seconds(), raw, unified, self.process.memory_bytes())

    def start(self) -> None:
        """Let the messages flow."""
        self.firehose.ask(f"start {self.load.rate} {self.load.messages}")

    def drained(self) -> Sample:
        """Wait until no record comes any more and the client is at rest; return where it stood at the last record."""
        last, sent = self.sample(), self.firehose.ask("status")["sent"]
        now, deadline = last, time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            now = self.sample()
            still = now.wall - last.wall
            if now.of_streams != last.of_streams:
                last = now
            elif still > _STILL_SECONDS:
                whole = (now.raw or now.unified) >= sent
                at_rest = now.cpu - last.cpu < _REST_SHARE * still
                if whole or (at_rest and still > _LOST_SECONDS):
                    break
                self.topics.look()
        return last._replace(raw=now.raw)  # the last raw record may have come after the last unified one


def begun(stack: ExitStack, client: Client, load: Load, directory: Path, *, settled: bool = True) -> Run:
    """Start everything and wait until the client has subscribed to what it will."""
    directory.mkdir(parents=True, exist_ok=True)
    firehose = stack.enter_context(FirehoseProcess(load))
    kafka = stack.enter_context(LocalKafka(heap_mb=HEAP_MB, java_options=_JAVA_OPTIONS if settled else ()))
    place = Place(kafka.bootstrap_servers, firehose.port, directory, load.symbols)
    launch = client.launch(place)
    topics = Topics(kafka.bootstrap_servers)
    topics.create(launch.topics, launch.partitions)
    process = stack.enter_context(ClientProcess(launch, directory))
    run = Run(client, load, launch, place, kafka, firehose, process, topics)
    deadline = time.monotonic() + _START_SECONDS
    while (status := firehose.ask("status"))["streams"] < launch.streams:
        process.require_alive()
        if time.monotonic() > deadline:
            raise FailedError(
                f"subscribed to {status['streams']} of {launch.streams} streams: {process.log_tail()}"
            )
        time.sleep(_POLL_SECONDS)
    if settled:
        time.sleep(_SETTLED_SECONDS if launch.others else 1.0)  # several processes share the work out first
    topics.look()
    return run


def measured(client: Client, load: Load, directory: Path) -> Figures:
    """Do one run from beginning to end: everything from the first message sent to the last record acknowledged."""
    with ExitStack() as stack:
        run = begun(stack, client, load, directory)
        first = run.sample()
        run.start()
        sent = 0
        if load.warm_seconds:
            time.sleep(load.warm_seconds)
            run.topics.look()
            sent, first = run.firehose.ask("status")["sent"], run.sample()
        deadline = time.monotonic() + load.seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            status = run.firehose.ask("status")
            if status["sent"] >= status["planned"] or status["lost_connections"]:
                break
        if load.warm_seconds:
            last = run.sample()
            status = run.firehose.ask("stop")
        else:
            run.firehose.ask("stop")
            run.topics.look()
            last = run.drained()
            status = run.firehose.ask("status")
        return Figures(
            client=client.name, seconds=last.wall - first.wall, cpu_seconds=last.cpu - first.cpu,
            raw=last.raw - first.raw, unified=last.unified - first.unified, sent=status["sent"] - sent,
            memory_bytes=last.memory_bytes, lost_connections=status["lost_connections"],
            warnings=run.process.warnings(),
        )  # fmt: skip
