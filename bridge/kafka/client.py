"""A connected aiokafka client: with the true reason when there is none, and an end that never hangs."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from bridge.errors import KafkaUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.kafka.settings import KafkaSettings

LOST = (KafkaError, OSError, TimeoutError, KeyError)
"""What sending a request raises when no answer came; KeyError where aiokafka forgot the connection."""

_METADATA_MAX_AGE_MS = 30_000


class Client(AIOKafkaClient):  # type: ignore[misc]  # aiokafka has no types for it
    """aiokafka's client, which never creates a topic by asking for it, and knows which cluster it is on.

    Attributes:
        cluster_id: the cluster's own id, None before the first metadata.
    """

    cluster_id: str | None = None

    async def _metadata_update(self, cluster_metadata: Any, topics: Sequence[str]) -> bool:
        """Ask any broker for metadata; return whether one answered.

        aiokafka's own asks with permission to create missing topics, which brokers give by default.
        """
        request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        for node in nodes:
            connection = await self._get_conn(node)
            if connection is None:
                continue
            try:
                metadata = await connection.send(request)
            except (KafkaError, TimeoutError):
                continue
            if metadata.brokers:
                self.cluster_id = getattr(metadata, "cluster_id", None)
                cluster_metadata.update_metadata(metadata)
                return True
        cluster_metadata.failed_update(None)
        return False


async def connect(settings: KafkaSettings, *, name: str, timeout: float) -> Client:
    """Return a client that has reached the cluster and knows its brokers.

    Args:
        settings: where Kafka is.
        name: client id, as broker logs and quotas show it.
        timeout: seconds for all of it.

    Raises:
        KafkaUnavailable: names each server and why it would not serve us.
        ConfigError: a certificate or password file cannot be read.
    """
    options = settings.aiokafka_options()
    first = await _first_that_answers(settings, options, timeout)
    others = [server for server in options["bootstrap_servers"] if server != first]
    options["bootstrap_servers"] = [first, *others]
    client = Client(**options, client_id=name, metadata_max_age_ms=_METADATA_MAX_AGE_MS)
    try:
        async with asyncio.timeout(timeout):
            await client.bootstrap()
            if not await client.force_metadata_update():
                raise KafkaConnectionError("no broker of the cluster answers at the address it advertises")
    except (KafkaError, OSError, TimeoutError) as error:
        await close(client, timeout=1)
        raise KafkaUnavailable(_sentence(settings, {first: _reason(error, settings, timeout)})) from None
    except asyncio.CancelledError:
        await close(client, timeout=1)
        raise
    return client


async def close(client: AIOKafkaClient | AIOKafkaConsumer, *, timeout: float) -> None:
    """Close a client or consumer within ``timeout`` seconds, whatever its brokers do.

    Closing a socket waits until its last bytes are sent; to a broker that stands still, for ever. So what is
    left after the time is cut off.
    """
    sockets = client._client if isinstance(client, AIOKafkaConsumer) else client  # noqa: SLF001 - no public way to cut one
    transports = [c._writer.transport for c in sockets._conns.values() if c._writer is not None]  # noqa: SLF001 - the same
    try:
        async with asyncio.timeout(timeout):
            await (client.stop() if isinstance(client, AIOKafkaConsumer) else client.close())
    except TimeoutError:
        for transport in transports:
            transport.abort()
        await asyncio.sleep(0)


async def _first_that_answers(settings: KafkaSettings, options: dict[str, Any], timeout: float) -> str:
    """Return the first of the bootstrap servers that takes a connection and answers a request."""
    servers: list[str] = options["bootstrap_servers"]
    attempts = {asyncio.create_task(_try(server, options, timeout)): server for server in servers}
    reasons: dict[str, str] = {}
    try:
        pending = set(attempts)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    return attempts[attempt]
                reasons[attempts[attempt]] = _reason(error, settings, timeout)
    finally:
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
    raise KafkaUnavailable(_sentence(settings, {server: reasons[server] for server in servers}))


async def _try(server: str, options: dict[str, Any], timeout: float) -> None:
    """Connect to one server, log in and ask for its brokers. aiokafka itself only logs why it could not."""
    [(host, port, _)] = collect_hosts(server)
    rest = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    async with asyncio.timeout(timeout):
        connection = await create_conn(host, port, **rest)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()


def _sentence(settings: KafkaSettings, reasons: dict[str, str]) -> str:
    listed = "; ".join(f"{server}: {reason}" for server, reason in reasons.items())
    return f"no Kafka broker serves us by {settings.security_protocol} ({listed})"


def _reason(error: BaseException, settings: KafkaSettings, timeout: float) -> str:
    """Say in words why there is no connection, and what to look at. Never holds a password."""
    login = f"login of user {settings.sasl_username!r} by {settings.sasl_mechanism}"
    texts: tuple[tuple[type[BaseException], str], ...] = (
        (ssl.SSLCertVerificationError, f"its certificate is not trusted ({error}); see kafka.ssl_cafile"),
        (
            ssl.SSLError,
            f"TLS failed ({error}); does this port speak TLS, and does it ask for our certificate?",
        ),
        (ConnectionRefusedError, "connection refused; nothing listens there"),
        (socket.gaierror, "the host name is not known; see kafka.bootstrap_servers"),
        (TimeoutError, f"no answer within {timeout:g} s"),
        (SaslAuthenticationFailed, f"{login} refused; see kafka.sasl_username and kafka.sasl_password"),
        (UnsupportedSaslMechanismError, f"it does not know kafka.sasl_mechanism {settings.sasl_mechanism}"),
        (IllegalSaslStateError, "it asks for no login; is kafka.security_protocol the one of this port?"),
        (ConnectionResetError, "it closed the connection; is kafka.security_protocol the one of this port?"),
    )
    if isinstance(error, KafkaConnectionError) and error.__cause__ is not None:
        error = ConnectionResetError()
    for kind, text in texts:
        if isinstance(error, kind):
            return text
    return f"{type(error).__name__}: {error}"
