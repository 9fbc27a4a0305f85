"""How to reach Kafka, in one frozen record that both clients understand."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
ClientName = Literal["aiokafka", "librdkafka"]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class _NoPackets(logging.Filter):
    """Keeps aiokafka from writing whole requests, a SASL password among them, at DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG


logging.getLogger("aiokafka.conn").addFilter(_NoPackets())


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Where what cannot reach Kafka is kept meanwhile.

    Attributes:
        directory: belongs to one process; made if it is not there.
        max_bytes: most bytes of its files.
        sync_ms: the time after which a record that is not acknowledged is in a file, and synced to the disk.
    """

    directory: Path
    max_bytes: int = 10 * 1024**3
    sync_ms: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Where Kafka is, how to prove who we are, and how to send.

    Attributes:
        bootstrap_servers: ``host:port``, several separated by commas.
        security_protocol: Kafka's own names.
        sasl_mechanism: how a SASL listener checks us; needed with ``SASL_*``.
        sasl_username: user of the SASL listener.
        sasl_password: the password, a file that holds it, or a function that returns it. A file or function
            is read again for each new client, so a rotated password is found without a restart.
        ssl_cafile: PEM file of the authorities to trust; None means the system's.
        ssl_certfile: PEM file of our own certificate, where the broker asks for one.
        ssl_keyfile: PEM file of its key, where ``ssl_certfile`` does not hold it.
        compression: codec of record batches.
        request_timeout_ms: how long a broker may take to answer one request.
        linger_ms: how long a record may wait for company in its batch.
        batch_bytes: size of a record batch before compression at which it is sealed.
        buffer_bytes: bytes queued and not acknowledged at which the publisher says it is full.
        client: which client library carries the producer port.

    Raises:
        ConfigError: the fields do not fit each other; names the key of the ``kafka`` section.
    """

    bootstrap_servers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | Path | Callable[[], str] | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    compression: Compression = "zstd"
    request_timeout_ms: int = 10_000
    linger_ms: int = 5
    batch_bytes: int = 262_144
    buffer_bytes: int = 256 * 1024 * 1024
    client: ClientName = "aiokafka"

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise ConfigError("kafka.bootstrap_servers is empty; name at least one broker as host:port")
        if self.security_protocol not in _PROTOCOLS:
            shown = f"kafka.security_protocol is {self.security_protocol!r}"
            raise ConfigError(f"{shown}; use one of {_PROTOCOLS}")
        if isinstance(self.sasl_password, str):
            raise ConfigError("kafka.sasl_password must be a SecretStr, a Path or a function, not text")
        if self.security_protocol.startswith("SASL_"):
            self._check_sasl()

    def _check_sasl(self) -> None:
        if self.sasl_mechanism not in _MECHANISMS:
            raise ConfigError(
                f"kafka.sasl_mechanism is {self.sasl_mechanism!r} but kafka.security_protocol is "
                f"{self.security_protocol}; use one of {_MECHANISMS}"
            )
        for name in ("sasl_username", "sasl_password"):
            if getattr(self, name) is None:
                needed_by = f"kafka.security_protocol {self.security_protocol}"
                raise ConfigError(f"kafka.{name} is missing; {needed_by} needs it")

    @property
    def servers(self) -> list[str]:
        """The bootstrap servers, one by one."""
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    def password(self) -> str | None:
        """Return the password, read afresh from its file or function.

        Raises:
            ConfigError: the file cannot be read.
        """
        source = self.sasl_password
        if source is None:
            return None
        if isinstance(source, SecretStr):
            return source.get_secret_value()
        if not isinstance(source, Path):
            return source()
        try:
            return source.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"kafka.sasl_password_file {source}: {error.strerror}") from None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None where the protocol has no TLS.

        Raises:
            ConfigError: a file cannot be read or is not what it should be.
        """
        if not self.security_protocol.endswith("SSL"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"kafka.ssl_cafile {self.ssl_cafile}: {error.strerror or error}") from None
        if self.ssl_certfile is not None:
            try:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            except (OSError, ssl.SSLError) as error:
                shown = f"kafka.ssl_certfile {self.ssl_certfile} with kafka.ssl_keyfile {self.ssl_keyfile}"
                raise ConfigError(f"{shown}: {error.strerror or error}") from None
        return context

    def aiokafka_options(self) -> dict[str, Any]:
        """Return what any aiokafka client takes to connect. Never print it: the password is there."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
            "request_timeout_ms": self.request_timeout_ms,
        }
        if self.sasl_mechanism is not None:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.password(),
            }
        return options

    def librdkafka_options(self) -> dict[str, Any]:
        """Return what librdkafka takes to connect. Never print it: the password is there."""
        options: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.servers),
            "security.protocol": self.security_protocol,
            "socket.timeout.ms": self.request_timeout_ms,
            "ssl.ca.location": self.ssl_cafile,
            "ssl.certificate.location": self.ssl_certfile,
            "ssl.key.location": self.ssl_keyfile or self.ssl_certfile,
        }
        if self.sasl_mechanism is not None:
            options |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.password(),
            }
        return {name: value for name, value in options.items() if value is not None}
