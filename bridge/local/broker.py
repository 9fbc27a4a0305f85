"""A broker for demo and tests, the nearest at hand."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from bridge.local.kafka import ONE_NODE, LocalKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOTSTRAP_SERVERS = "BRIDGE_TEST_BOOTSTRAP_SERVERS"

#: A Docker engine on a busy machine takes its time; one that isn't there refuses at once.
_ANSWER_SECONDS = 10.0

log = logging.getLogger("bridge")


class Broker(Protocol):
    """What every broker has; a :class:`~bridge.local.kafka.LocalKafka` also takes faults."""

    @property
    def bootstrap_servers(self) -> str:
        """``host:port``, several with commas between."""


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that somebody else looks after."""

    bootstrap_servers: str


@contextmanager
def broker(nodes: int = 1) -> Iterator[Broker]:
    """Give a broker for the time of a ``with`` block.

    In this order: the one that ``BRIDGE_TEST_BOOTSTRAP_SERVERS`` names, whatever its number of nodes; for one
    node a container, where a Docker engine answers and testcontainers is installed; a :class:`LocalKafka`.

    Raises:
        KafkaUnavailable: none of them can be had.
    """
    given = os.environ.get(BOOTSTRAP_SERVERS)
    if given:
        yield RunningBroker(given)
        return
    with ExitStack() as stack:
        found = _container(stack) if nodes == 1 and docker_answers() else None
        yield found or stack.enter_context(LocalKafka(nodes))


def docker_answers() -> bool:
    """Whether a Docker engine listens at ``DOCKER_HOST``, or at its usual socket where that is not set."""
    url = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    try:
        if url.scheme != "unix":
            socket.create_connection((url.hostname or "", url.port or 2375), timeout=_ANSWER_SECONDS).close()
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_ANSWER_SECONDS)
            probe.connect(url.path)
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return probe.recv(12).endswith(b" 200")
    except OSError:
        return False


def _container(stack: ExitStack) -> Broker | None:
    """Start a Kafka container; ``None`` where testcontainers is not installed or the image can't be had."""
    try:
        from docker.errors import DockerException
        from testcontainers.community.kafka import KafkaContainer
    except ImportError:
        return None
    try:
        container = KafkaContainer().with_kraft()
        for name, value in ONE_NODE.items():
            container.with_env(f"KAFKA_{name.replace('.', '_').upper()}", value)
        stack.enter_context(container)
    except DockerException as error:
        log.warning("no Kafka container (%s); running Kafka without Docker", error)
        return None
    return RunningBroker(container.get_bootstrap_server())
