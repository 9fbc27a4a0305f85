"""A real broker for tests: ``kafka`` is shared by the whole session, ``own_kafka`` belongs to one test.

With pytest-xdist all workers share one broker too: the first that needs it starts it and, at its end, waits
for the others to let go of it.
"""

from __future__ import annotations

import fcntl
import re
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from bridge.local.broker import Broker, RunningBroker, broker
from bridge.local.files import locked
from bridge.local.kafka import LocalKafka

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class OwnKafka(Protocol):
    """Starts a broker of the test's own; it is stopped after the test."""

    def __call__(self, nodes: int = 1, *, properties: Mapping[str, str] = ...) -> LocalKafka: ...


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One broker for the whole session; don't stop it, and name topics and groups by ``unique``."""
    if hasattr(request.config, "workerinput"):
        with shared_broker(tmp_path_factory.getbasetemp().parent) as shared:
            yield shared
    else:
        with broker() as alone:
            yield alone


@pytest.fixture
def own_kafka() -> Iterator[OwnKafka]:
    """``own_kafka(3)`` starts a local Kafka that only this test uses, to be killed, frozen and restarted."""
    with ExitStack() as stack:

        def start(nodes: int = 1, *, properties: Mapping[str, str] | None = None) -> LocalKafka:
            return stack.enter_context(LocalKafka(nodes, properties=properties or {}))

        yield start


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name nobody else uses, for topics, groups and transactional ids; it tells the test's own name."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]
    return f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topic_prefix(unique: str) -> str:
    """``unique`` with a dot, to put before the names of topics."""
    return f"{unique}."


@contextmanager
def shared_broker(directory: Path) -> Iterator[Broker]:
    """Give a broker that all processes with the same ``directory`` share.

    Each user holds a shared lock on ``users``. The process that started the broker asks for the exclusive one
    at its end, so it waits until nobody else uses the broker.
    """
    address = directory / "kafka-address"
    with (directory / "kafka-users").open("a") as users, ExitStack() as stack:
        while True:
            with locked(directory / "kafka-start"):
                if not address.exists():
                    ours = stack.enter_context(broker())
                    address.write_text(ours.bootstrap_servers)
                    break
                if _try_share(users.fileno()):
                    yield RunningBroker(address.read_text())
                    return
            # Its owner is ending it. Wait for that, then look again.
            fcntl.flock(users, fcntl.LOCK_SH)
            fcntl.flock(users, fcntl.LOCK_UN)
        try:
            yield ours
        finally:
            fcntl.flock(users, fcntl.LOCK_EX)
            address.unlink()
            stack.close()


def _try_share(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
