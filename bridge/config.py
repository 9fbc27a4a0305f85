"""The configuration: one YAML file, every key also as ``BRIDGE_<SECTION>__<KEY>``.

It enters once: ``load(file, environ)`` gives frozen :class:`Settings`; nothing else reads the environment.
The defaults stand here and nowhere else; the reference page and the JSON schema are made from these models
(:mod:`bridge.config_reference`), which is why the attributes' docstrings are written for users.
"""

import socket
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge import config_sources, config_values
from bridge.config_problems import Problem, Problems, shown, told
from bridge.config_values import (
    DIGITS,
    SYMBOLS,
    UPPER_CASE,
    BootstrapServers,
    HttpUrl,
    ReadableFile,
    StreamUrl,
    StreamUrls,
    Whole,
)
from bridge.errors import ConfigError
from bridge.model import Environment, Market

if TYPE_CHECKING:
    from bridge.kafka.settings import KafkaSettings, SpoolSettings

_HELD_BACK = "in this version"

Days: TypeAlias = Annotated[Whole, Field(ge=1, le=36_500)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class Kafka(Section):
    """How to reach Kafka."""

    bootstrap_servers: BootstrapServers
    """`host:port` of one or more brokers, separated by commas, or a list."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are spoken to."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the bridge proves who it is; used with `SASL_PLAINTEXT` and `SASL_SSL`."""
    sasl_username: str | None = None
    """User name; required with SASL."""
    sasl_password: SecretStr | None = None
    """Password; required with SASL, here or by `sasl_password_file`."""
    sasl_password_file: ReadableFile | None = None
    """A mounted file that holds the password; read again for each new connection."""
    ssl_cafile: ReadableFile | None = None
    """PEM file of the authorities to trust; without it, the system's."""
    ssl_certfile: ReadableFile | None = None
    """PEM file of the client's certificate."""
    ssl_keyfile: ReadableFile | None = None
    """PEM file of its private key, where `ssl_certfile` does not hold it."""
    compression: Literal["zstd", "lz4", "snappy", "gzip", "none"] = "zstd"
    """Compression of record batches."""
    client: Literal["aiokafka", "librdkafka"] = "aiokafka"
    """The Kafka client; `librdkafka` needs the extra of that name."""
    linger_ms: Annotated[Whole, Field(ge=0, le=5_000)] = 5
    """How long a batch may wait for more records."""
    request_timeout_ms: Annotated[Whole, Field(ge=1_000, le=600_000)] = 10_000
    """How long a request to a broker may take."""
    batch_bytes: Annotated[Whole, Field(ge=1_024, le=104_857_600)] = 262_144
    """Largest record batch; keep it under the topics' `max.message.bytes`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        Problems.raise_if(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        protocol = self.security_protocol
        if not protocol.startswith("SASL"):
            yield from self._unused("SASL_SSL", "sasl_username", "sasl_password", "sasl_password_file")
        elif not self.sasl_username:
            yield Problem("sasl_username", f"is missing; {protocol} needs a user name")
        if protocol.startswith("SASL") and self.sasl_password is None and self.sasl_password_file is None:
            ways = "here, as sasl_password_file or as BRIDGE_KAFKA__SASL_PASSWORD"
            yield Problem("sasl_password", f"is missing; {protocol} needs it, {ways}")
        if not protocol.endswith("SSL"):
            yield from self._unused("SSL or SASL_SSL", "ssl_cafile", "ssl_certfile", "ssl_keyfile")
        if self.sasl_password is not None and self.sasl_password_file is not None:
            yield Problem("sasl_password_file", "and sasl_password are both set; keep one of the two")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            yield Problem("ssl_certfile", "is missing; ssl_keyfile is of no use without its certificate")

    def _unused(self, wanted: str, *names: str) -> Iterator[Problem]:
        for name in names:
            if getattr(self, name) is not None:
                why = f"security_protocol {self.security_protocol} does not use it"
                yield Problem(name, f"is set, but {why}; expected security_protocol {wanted}")


class Subscription(Section):
    """What to read of one market."""

    market: Market
    """The market: `spot`, `usdm` (USDⓈ-M futures) or `coinm` (COIN-M futures)."""
    channels: Annotated[tuple[str, ...], config_values.distinct_list("channel")]
    """What to read: a channel of the catalogue with its option and speed, such as `trade`, `kline_1m`, \
`partial-depth_20@100ms`, `mark-price@1s`, or `ticker@arr` for the all-market form."""
    symbols: Annotated[Literal["*"] | tuple[str, ...], SYMBOLS] = ()
    """Unified or exchange names, or `"*"` for all; channels that have no symbol do without."""
    quote: Annotated[tuple[str, ...] | None, config_values.distinct_list("quote asset")] = None
    """With `symbols: "*"`: only symbols quoted in these assets."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        Problems.raise_if(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.quote is not None and self.symbols != "*":
            yield Problem("quote", 'is set, but symbols is a list; expected symbols: "*", or no quote')
        names: dict[object, str] = {}
        for index, symbol in enumerate(self.symbols):
            yield from _repeated(names, config_values.plain_symbol(symbol), symbol, f"symbols[{index}]")
            pair, contract, _ = symbol.partition(":")
            if contract and self.market == "spot":
                text = f"found {shown(symbol)}, a contract; expected {pair}, or market usdm or coinm"
                yield Problem(f"symbols[{index}]", text)
        choices: dict[object, str] = {}
        needy = None
        for index, channel in enumerate(self.channels):
            try:
                choice = config_values.channel_choice(self.market, channel)
            except ConfigError as error:
                yield Problem(f"channels[{index}]", str(error))
                continue
            yield from _repeated(choices, choice, channel, f"channels[{index}]")
            needy = channel if needy is None and not choice.all else needy
        if needy is not None and not self.symbols:
            expected = 'expected a list such as ["BTC/USDT"], or "*" for all'
            yield Problem("symbols", f"is missing, and {needy} is read by symbol; {expected}")


def _repeated(seen: dict[object, str], meaning: object, text: str, key: str) -> Iterator[Problem]:
    """Find two ways of writing the same thing in one list: ``depth`` and ``depth@100ms``."""
    other = seen.setdefault(meaning, text)
    if other != text:
        yield Problem(key, f"found {text}, the same as {other}; remove one of the two")


class Account(Section):
    """A Binance account whose private events to read."""

    name: Annotated[
        str,
        config_values.pattern(r"[a-z][a-z0-9_-]{0,31}", "a small letter, then small letters, digits, - or _"),
    ]
    """Its name in topics and in the names of its key variables: `BINANCE_<ENV>_<NAME>_API_KEY`."""
    market: Market
    """The market: `spot`, `usdm` or `coinm`."""


class Private(Section):
    """How accounts are listened to."""

    recv_window_ms: Annotated[Whole, Field(ge=1, le=60_000)] = 5_000
    """How old a signed request may be, in milliseconds, when the exchange takes it. Times follow the exchange's \
clock, whatever this machine's says, so only a slow way to the exchange needs more."""
    accounts_per_connection: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    """Spot accounts that share a connection to the WebSocket API; with one each no account feels another's trouble."""


class MarketEndpoints(Section):
    """Where one market is reached, other than at Binance's own address."""

    stream: StreamUrls | None = None
    """Base URL of the WebSocket streams, `wss://` or `ws://`; or a list of two, the second of which is for the \
second leg (`connection.redundancy: 2`), and else where connections go when the first can't be reached."""
    rest: HttpUrl | None = None
    """Base URL of the REST API, `https://` or `http://`."""
    ws_api: StreamUrl | None = None
    """Base URL of the WebSocket API, `wss://` or `ws://`."""


class Endpoints(Section):
    """Where to reach the markets: a simulator, a proxy.

    Plain `ws` and `http` are for loopback only, unless `allow_insecure` is on.
    """

    spot: MarketEndpoints = MarketEndpoints()
    """Spot."""
    usdm: MarketEndpoints = MarketEndpoints()
    """USDⓈ-M futures."""
    coinm: MarketEndpoints = MarketEndpoints()
    """COIN-M futures."""


class SchemaRegistry(Section):
    """A Confluent-compatible schema registry."""

    url: HttpUrl | None = None
    """Base URL; without it records use Avro single-object encoding and need no server."""


class Connection(Section):
    """How connections to the exchange are opened and kept."""

    streams_per_connection: Annotated[Whole, Field(ge=1, le=1_024)] = 200
    """Most streams on one connection; the exchange allows 1024."""
    rotate_after_seconds: Annotated[Whole, Field(ge=10, le=86_000)] = 82_800
    """Age at which a connection is replaced; the exchange closes it at 24 h."""
    overlap_seconds: Annotated[Whole, Field(ge=1, le=300)] = 10
    """How long the old and the new connection run side by side at a rotation."""
    redundancy: Annotated[Whole, Field(ge=1, le=2)] = 1
    """Connections that carry each stream: with 2, a second one to another host where the market has one. What comes \
first counts; a lost connection then costs nothing. Raw topics hold what both received."""
    transport: Literal["websockets", "picows", "auto"] = "websockets"
    """WebSocket library; `picows` needs the extra `fast`, `auto` takes it where it is installed."""
    max_message_bytes: Annotated[Whole, Field(ge=65_536, le=268_435_456)] = 16_777_216
    """Largest message taken from the exchange."""
    connections_per_5_minutes: Annotated[Whole, Field(ge=1, le=300)] = 150
    """Budget for opening connections; the exchange bans an IP beyond 300."""
    time_unit: Literal["millisecond", "microsecond"] = "millisecond"
    """Unit of spot's times on the wire."""


class Sequencing(Section):
    """How gaps in a stream's ids are found."""

    hold_ms: Annotated[Whole, Field(ge=0, le=60_000)] = 250
    """How long events after a hole are held back for the missing ones before a gap is recorded."""


class Books(Section):
    """Order books: snapshots of REST joined with the streams of channel `depth`."""

    enabled: bool = True
    """Keep books and publish their snapshots; otherwise changes alone are published."""
    depth: Annotated[Literal[100, 500, 1000, 5000], DIGITS] = 1000
    """Levels a side to ask for; what it costs grows with it. Futures give 1000 at most."""
    weight_share: Annotated[float, Field(ge=0.01, le=0.6)] = 0.5
    """Share of the exchange's request weight per minute that may be spent on snapshots."""


class Gaps(Section):
    """Filling of gaps from REST."""

    fill: bool = True
    """Fill gaps; otherwise they are named only."""
    weight_share: Annotated[float, Field(ge=0.01, le=0.6)] = 0.3
    """Share of the exchange's request weight per minute that may be spent on it."""
    attempts: Annotated[Whole, Field(ge=1, le=100)] = 5
    """Requests for one gap that may fail before it is unrecoverable; waiting for request weight does not count."""


class RetentionDays(Section):
    """Days that records are kept; without a value, what the topic catalogue says."""

    raw: Days | None = None
    """Raw topics of public streams."""
    user: Days | None = None
    """Raw topics of private events."""
    unified: Days | None = None
    """Unified topics."""
    lifecycle: Days | None = None
    """The lifecycle topic."""
    gaps: Days | None = None
    """The gaps topic."""
    dead_letter: Days | None = None
    """The dead-letter topic."""
    signals: Days | None = None
    """The topic of requests to running bridges."""


class Topics(Section):
    """How topics are laid out when the bridge or `topics apply` creates them."""

    partitions: Annotated[Whole, Field(ge=1, le=10_000)] = 6
    """Partitions of each raw and unified topic."""
    retention_days: RetentionDays = RetentionDays()
    """Days that records are kept, by kind of topic."""


class Metrics(Section):
    """What `/metrics` tells."""

    per_symbol: bool = False
    """Label metrics with the symbol too; costs memory for every symbol."""


class Log(Section):
    """What is logged, to standard error."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UPPER_CASE] = "INFO"
    """Least severity."""
    format: Literal["text", "json"] = "text"
    """Lines for people or JSON objects for machines."""


class Spool(Section):
    """A file queue for when Kafka is away."""

    directory: Path | None = None
    """Folder of the queue, for this process alone; made if it is not there. Without it, the queue is in memory \
(`buffer_bytes`)."""
    max_bytes: Annotated[Whole, Field(ge=67_108_864, le=1_099_511_627_776)] = 10_737_418_240
    """Most bytes of its files; beyond it records wait in memory."""
    sync_ms: Annotated[Whole, Field(ge=20, le=60_000)] = 1_000
    """The sync window: what is not acknowledged that long after it was queued is in a file, and synced to the disk."""


class Transactions(Section):
    """How records are committed with `delivery: exactly_once`."""

    interval_ms: Annotated[Whole, Field(ge=10, le=10_000)] = 100
    """From the begin of one transaction of a shard to that of the next; its records are seen when it is committed."""
    timeout_ms: Annotated[Whole, Field(ge=2_000, le=900_000)] = 30_000
    """How long Kafka lets a transaction stay open, so how long at most a dead process holds up readers that nobody \
succeeds; at least twice `kafka.request_timeout_ms`, and no more than the brokers' `transaction.max.timeout.ms`."""


class Http(Section):
    """The HTTP endpoint.

    `/metrics`, `/healthz`, `/readyz`, `/status`, `/connections`, and the status page at `/`.
    """

    host: Annotated[str, config_values.pattern(r"[^\s/@]+", "a host name or address to listen on")] = (
        "127.0.0.1"
    )
    """Address to listen on; `0.0.0.0` in a container."""
    port: Annotated[Whole, Field(ge=0, le=65_535)] = 9464
    """Port to listen on; 0 takes a free one."""


class Settings(BaseSettings):
    """The whole configuration of one bridge process. Frozen; made by :func:`load`."""

    model_config = SettingsConfigDict(
        env_prefix=config_sources.PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )

    environment: Environment
    """`prod`, `demo` or `testnet`; also by `--environment` or `BINANCE_PRO_ENV`, which must agree."""
    instance: Annotated[
        str, config_values.pattern(r"[A-Za-z0-9._-]{1,200}", "letters, digits, . _ and -, at most 200")
    ] = Field(default_factory=socket.gethostname)
    """Name of this process, unique among the bridges of one cluster. Set, it is also its name in the group that shares
    out the shards: restarted within `session_timeout_seconds` it gets its own back."""
    name: Annotated[
        str, config_values.pattern(r"[A-Za-z0-9._-]{1,100}", "letters, digits, . _ and -, at most 100")
    ] = "bridge"
    """Name that all processes sharing this work have in common; bridges with other subscriptions need another."""
    kafka: Kafka
    """How to reach Kafka."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """`exactly_once` is the same in Kafka transactions: readers with `read_committed` see each record once, after its \
commit. Needs the extra `librdkafka`."""
    create_topics: bool = True
    """Create missing topics at start; otherwise say exactly which are missing and stop."""
    replication_factor: config_values.Replicas = -1
    """Replicas of each created topic; -1 leaves it to the cluster's `default.replication.factor`."""
    schema_registry: SchemaRegistry = SchemaRegistry()
    """A schema registry (not supported in this version)."""
    subscriptions: tuple[Subscription, ...] = ()
    """What to read."""
    accounts: tuple[Account, ...] = ()
    """Accounts whose private events to read; their keys come from `BINANCE_<ENV>_…` variables or a `.env` file."""
    private: Private = Private()
    """Private streams (with `accounts`)."""
    endpoints: Endpoints = Endpoints()
    """Where to reach the markets, other than at Binance."""
    allow_insecure: bool = False
    """Allow plain `ws` and `http` to other machines."""
    shards: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    """Partitions of the shard topic: how many processes can share the work."""
    session_timeout_seconds: Annotated[Whole, Field(ge=6, le=300)] = 10
    """How long a process may be silent before others take its shards over."""
    checkpoint_interval_seconds: Annotated[Whole, Field(ge=1, le=300)] = 5
    """Time between two checkpoints, and coverage records, of a stream; a new owner reads so much again."""
    buffer_bytes: Annotated[Whole, Field(ge=1_048_576, le=1_099_511_627_776)] = 268_435_456
    """Most bytes queued for Kafka; beyond it connections are closed, and the gap recorded."""
    connection: Connection = Connection()
    """Connections to the exchange."""
    sequence: Sequencing = Sequencing()
    """Gap detection."""
    state_interval_ms: Annotated[Whole, Field(ge=0, le=3_600_000)] = 1_000
    """Least time between two records of one key on a state topic."""
    books: Books = Books()
    """Order books."""
    gaps: Gaps = Gaps()
    """Filling of gaps."""
    snapshot_interval_seconds: Annotated[Whole, Field(ge=1, le=86_400)] = 60
    """Time between two order book snapshots of one symbol."""
    markets_refresh_seconds: Annotated[Whole, Field(ge=10, le=86_400)] = 300
    """Time between two looks at the exchange's list of instruments."""
    topics: Topics = Topics()
    """Layout of created topics."""
    metrics: Metrics = Metrics()
    """Metrics."""
    stop_timeout_seconds: Annotated[Whole, Field(ge=1, le=3_600)] = 30
    """How long a stop may take to drain."""
    log: Log = Log()
    """Logging."""
    spool: Spool = Spool()
    """A file queue for what cannot reach Kafka."""
    transactions: Transactions = Transactions()
    """Kafka transactions of `delivery: exactly_once`."""
    http: Http = Http()
    """The HTTP endpoint."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing by itself: :func:`load` hands over what the file and the environment say."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        Problems.raise_if(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        yield from _insecure(self)
        yield from _doubled(self)
        if "subscriptions" in self.model_fields_set and not self.subscriptions and not self.accounts:
            yield Problem("subscriptions", "found an empty list; expected at least one subscription")
        lifetime = self.connection.rotate_after_seconds + self.connection.overlap_seconds
        if lifetime > 86_000:
            yield Problem(
                "connection.rotate_after_seconds",
                f"found {self.connection.rotate_after_seconds} with overlap_seconds "
                f"{self.connection.overlap_seconds}; expected at most 86000 together: "
                "the exchange closes at 86400",
            )
        yield from _spool_problems(self)
        yield from _transaction_problems(self)
        if self.buffer_bytes < self.kafka.batch_bytes:
            yield Problem(
                "buffer_bytes",
                f"found {self.buffer_bytes}; expected at least kafka.batch_bytes, {self.kafka.batch_bytes}",
            )


def _insecure(settings: Settings) -> Iterator[Problem]:
    """Plain ``ws`` and ``http`` only to loopback, unless it is asked for."""
    if settings.allow_insecure:
        return
    for market in Endpoints.model_fields:
        endpoints: MarketEndpoints = getattr(settings.endpoints, market)
        for name in MarketEndpoints.model_fields:
            given: str | tuple[str, ...] | None = getattr(endpoints, name)
            for text in (given,) if isinstance(given, str) else given or ():
                url = config_values.split_url(text)
                if (
                    url is not None
                    and url.scheme in {"ws", "http"}
                    and not config_values.is_loopback(url.hostname or "")
                ):
                    yield Problem(
                        f"endpoints.{market}.{name}",
                        f"found {shown(text)}, which is not encrypted and not this machine; "
                        f"expected {url.scheme}s://, or allow_insecure: true",
                    )


def _spool_problems(settings: Settings) -> Iterator[Problem]:
    """A spool needs the client that has one, and a window in which batches can find company."""
    spool, kafka = settings.spool, settings.kafka
    if spool.directory is None:
        return
    if kafka.client != "aiokafka":
        yield Problem(
            "spool.directory", f"is set, but kafka.client {kafka.client} has no spool; expected aiokafka"
        )
    if settings.delivery == "exactly_once":
        yield Problem(
            "spool.directory",
            "is set, but with delivery: exactly_once records wait in memory for their transaction; "
            "expected delivery: at_least_once, or no directory",
        )
    if spool.sync_ms < 4 * kafka.linger_ms:
        yield Problem(
            "spool.sync_ms",
            f"found {spool.sync_ms}; expected at least four times kafka.linger_ms, {4 * kafka.linger_ms}",
        )


def _transaction_problems(settings: Settings) -> Iterator[Problem]:
    """A request must be able to fail, and be made again, while its transaction is open."""
    least = 2 * settings.kafka.request_timeout_ms
    if settings.delivery == "exactly_once" and settings.transactions.timeout_ms < least:
        yield Problem(
            "transactions.timeout_ms",
            f"found {settings.transactions.timeout_ms}; expected at least twice kafka.request_timeout_ms, {least}",
        )


def _doubled(settings: Settings) -> Iterator[Problem]:
    """The same stream in two subscriptions, or the same account twice."""
    first: dict[tuple[str, object, str], int] = {}
    for index, subscription in enumerate(settings.subscriptions):
        market = subscription.market
        for channel in subscription.channels:
            choice = config_values.channel_choice(market, channel)
            for symbol in [""] if choice.all else subscription.symbols:
                earlier = first.setdefault((market, choice, config_values.plain_symbol(symbol)), index)
                if earlier != index:
                    what = f"{channel} of {symbol or market}, which subscriptions[{earlier}] has already"
                    yield Problem(f"subscriptions[{index}]", f"found {what}; remove it from one of the two")
    accounts: set[tuple[str, str]] = set()
    for index, account in enumerate(settings.accounts):
        if (account.name, account.market) in accounts:
            yield Problem(
                f"accounts[{index}]",
                f"{account.name} of {account.market} is given twice; remove one of the two",
            )
        accounts.add((account.name, account.market))


def load(
    path: Path | None,
    environ: Mapping[str, str],
    environment: str | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the configuration: the file, then ``BRIDGE_…`` variables, then ``overrides``; the later wins.

    Args:
        path: the YAML file, or None where variables say everything.
        environ: the process's environment variables.
        environment: what ``--environment`` says.
        overrides: nested keys set by other options of the command line.

    Raises:
        ConfigError: names every problem found: the key, what was found (never a secret), what would be right.
    """
    data, problems = config_sources.gather(Settings, path, environ, environment, overrides or {})
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        problems += told(error, Settings, config_sources.variables(Settings, environ))
        raise ConfigError(config_sources.message(path, problems)) from None
    if problems:
        raise ConfigError(config_sources.message(path, problems))
    return settings


def kafka_settings(settings: Settings) -> "KafkaSettings":
    """Return the ``kafka`` section as the Kafka clients take it."""
    from bridge.kafka.settings import KafkaSettings

    kafka = settings.kafka
    with_sasl = kafka.security_protocol.startswith("SASL")
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism if with_sasl else None,
        sasl_username=kafka.sasl_username,
        sasl_password=kafka.sasl_password_file or kafka.sasl_password,
        ssl_cafile=_text(kafka.ssl_cafile),
        ssl_certfile=_text(kafka.ssl_certfile),
        ssl_keyfile=_text(kafka.ssl_keyfile),
        compression=kafka.compression,
        request_timeout_ms=kafka.request_timeout_ms,
        linger_ms=kafka.linger_ms,
        batch_bytes=kafka.batch_bytes,
        buffer_bytes=settings.buffer_bytes,
        client=kafka.client,
    )


def spool_settings(settings: Settings) -> "SpoolSettings | None":
    """Return the ``spool`` section as the publisher takes it; None where there is to be no spool."""
    from bridge.kafka.settings import SpoolSettings

    spool = settings.spool
    if spool.directory is None:
        return None
    return SpoolSettings(directory=spool.directory, max_bytes=spool.max_bytes, sync_ms=spool.sync_ms)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def unsupported(settings: Settings) -> list[str]:
    """Return one sentence for each setting that this version understands but cannot carry out yet."""
    found = []
    if settings.delivery == "exactly_once" and find_spec("confluent_kafka") is None:
        found.append(
            "delivery: exactly_once needs librdkafka, which is not installed; "
            "pip install 'binance-kafka-bridge[librdkafka]', or use at_least_once"
        )
    if settings.schema_registry.url is not None:
        found.append(f"schema_registry.url: a schema registry is not supported {_HELD_BACK}; set it to null")
    return found


def require_runnable(settings: Settings) -> None:
    """Refuse what ``run`` cannot carry out.

    Raises:
        ConfigError: names each unsupported setting, or that nothing is subscribed to.
    """
    problems = unsupported(settings)
    if not settings.subscriptions and not settings.accounts:
        problems.append(
            "subscriptions: is missing; expected at least one, such as "
            "{market: spot, symbols: [BTCUSDT], channels: [trade]}, or accounts"
        )
    if problems:
        raise ConfigError("\n".join(problems))
