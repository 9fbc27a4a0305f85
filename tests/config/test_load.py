"""Loading: the contract's file, what wins over what, and what never shows."""

import logging
from pathlib import Path

import pydantic
import pytest
import yaml

from bridge import config
from bridge.config import (
    Settings,
    kafka_settings,
    load,
    require_runnable,
    spool_settings,
    unsupported,
)
from bridge.config_problems import keys
from bridge.errors import ConfigError

# Section 7 of the contract with the outside, word for word.
CONTRACT = """\
environment: prod
instance: bridge-0                      # default: host name
kafka:
  bootstrap_servers: 127.0.0.1:9092
  security_protocol: PLAINTEXT          # SSL, SASL_PLAINTEXT, SASL_SSL; sasl_mechanism, sasl_username, …
  compression: zstd
delivery: at_least_once                 # default: all accounted for, see the docs; or exactly_once
create_topics: true
replication_factor: 1
schema_registry: {url: null}
subscriptions:
  - market: spot
    symbols: ["BTC/USDT", "ETHUSDT"]    # unified or exchange names; or "*", with quote: [USDT]
    channels: [trade, book-ticker, depth, kline_1m, ticker]
  - market: usdm
    symbols: "*"
    quote: [USDT]
    channels: [agg-trade, mark-price@1s, liquidation]
accounts:
  - {name: main, market: spot}
endpoints:                              # a simulator, a proxy; plain ws/http only to loopback
  spot: {stream: "ws://127.0.0.1:9443", rest: "http://127.0.0.1:9080", ws_api: "ws://127.0.0.1:9444"}
shards: 1                               # partitions of the shard topic; many processes share them
http: {host: 127.0.0.1, port: 9464}     # /metrics /healthz /readyz /status /connections
"""
SMALL = {"environment": "prod", "kafka": {"bootstrap_servers": "127.0.0.1:9092"}}
SECRET = "hunter2"


def written(tmp_path: Path, content: object) -> Path:
    """Return a configuration file with this content."""
    file = tmp_path / "bridge.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_a_stream_endpoint_is_one_url_or_one_for_each_leg(tmp_path: Path) -> None:
    """Both forms load, from the file and from a variable."""
    urls = ["ws://127.0.0.1:1", "ws://127.0.0.1:2/"]
    file = written(
        tmp_path, SMALL | {"endpoints": {"spot": {"stream": urls}, "usdm": {"stream": "wss://proxy:1/"}}}
    )
    endpoints = load(file, {"BRIDGE_ENDPOINTS__COINM__STREAM": '["wss://a", "wss://b"]'}).endpoints
    assert endpoints.spot.stream == ("ws://127.0.0.1:1", "ws://127.0.0.1:2")
    assert endpoints.usdm.stream == "wss://proxy:1"
    assert endpoints.coinm.stream == ("wss://a", "wss://b")
    one = load(file, {"BRIDGE_ENDPOINTS__SPOT__STREAM": "ws://127.0.0.1:3"}).endpoints
    assert one.spot.stream == "ws://127.0.0.1:3"


def test_the_contracts_file_loads_as_it_is(tmp_path: Path) -> None:
    """The file the contract promises to work gives its values."""
    settings = load(written(tmp_path, CONTRACT), {})
    spot, usdm = settings.subscriptions
    assert (settings.environment, settings.instance, settings.replication_factor) == ("prod", "bridge-0", 1)
    assert spot.symbols == ("BTC/USDT", "ETHUSDT")
    assert spot.channels == ("trade", "book-ticker", "depth", "kline_1m", "ticker")
    assert (usdm.symbols, usdm.quote) == ("*", ("USDT",))
    assert settings.endpoints.spot.rest == "http://127.0.0.1:9080"
    assert settings.endpoints.usdm.rest is None
    assert (settings.accounts[0].name, settings.accounts[0].market) == ("main", "spot")
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9464)


def test_the_example_file_can_be_run() -> None:
    """The example in the repository is a configuration that ``run`` takes."""
    example = Path(__file__).parents[2] / "examples" / "bridge.yaml"
    require_runnable(load(example, {}))


def test_defaults_stand_in_for_what_is_not_said(tmp_path: Path) -> None:
    """Keys that are left out have the documented defaults."""
    settings = load(written(tmp_path, SMALL), {})
    assert (settings.kafka.client, settings.kafka.linger_ms, settings.kafka.batch_bytes) == (
        "aiokafka",
        5,
        262_144,
    )
    assert settings.buffer_bytes == 268_435_456
    assert settings.connection.rotate_after_seconds == 82_800
    assert settings.topics.partitions == 6
    assert settings.instance


def test_a_section_with_all_keys_commented_out_has_its_defaults(tmp_path: Path) -> None:
    """A section heading with nothing under it is as good as none."""
    file = written(tmp_path, yaml.safe_dump(SMALL) + "http:\n#  port: 1\n")
    assert load(file, {}).http.port == 9464


def test_variables_win_over_the_file_and_overrides_over_variables(tmp_path: Path) -> None:
    """The file, then the environment, then the command line: the later has its way, key by key."""
    file = written(tmp_path, SMALL | {"http": {"host": "127.0.0.2", "port": 1}, "shards": 2})
    environ = {"BRIDGE_HTTP__PORT": "2", "BRIDGE_SHARDS": "3", "BRIDGE_METRICS__PER_SYMBOL": "true"}
    settings = load(file, environ, overrides={"http": {"port": 4}})
    assert (settings.http.host, settings.http.port, settings.shards) == ("127.0.0.2", 4, 3)
    assert settings.metrics.per_symbol is True


def test_variables_alone_are_enough() -> None:
    """Without a file, variables can say everything, lists as JSON or YAML."""
    settings = load(
        None,
        {
            "BRIDGE_ENVIRONMENT": "testnet",
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1, b:2",
            "BRIDGE_SUBSCRIPTIONS": '[{"market": "spot", "symbols": "*", "channels": ["trade"]}]',
            "BRIDGE_TOPICS__RETENTION_DAYS__RAW": "3",
            "BRIDGE_ENDPOINTS__SPOT__STREAM": "ws://localhost:1/",
            "BRIDGE_LOG__LEVEL": "debug",
        },
    )
    assert (settings.environment, settings.kafka.bootstrap_servers) == ("testnet", "a:1,b:2")
    assert settings.subscriptions[0].symbols == "*"
    assert settings.topics.retention_days.raw == 3
    assert settings.endpoints.spot.stream == "ws://localhost:1"
    assert settings.log.level == "DEBUG"


def test_every_key_has_its_variable() -> None:
    """Whatever the default of a key, the variable that says the same as text is taken."""
    needed = {"BRIDGE_ENVIRONMENT": "prod", "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1"}
    plain = load(None, needed | {"BRIDGE_INSTANCE": "one"})
    for key in keys(Settings):
        value: object = plain
        for part in key.split("."):
            value = getattr(value, part)
        said = "[]" if value == () else str(value)
        if value is None or key in {"subscriptions", "instance"}:
            continue
        name = f"BRIDGE_{key.replace('.', '__').upper()}"
        assert load(None, needed | {"BRIDGE_INSTANCE": "one", name: said}) == plain, name


def test_a_number_of_a_choice_may_come_as_text() -> None:
    """What a variable says of a choice of numbers counts as the number."""
    environ = {"BRIDGE_ENVIRONMENT": "prod", "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1"}
    assert load(None, environ | {"BRIDGE_BOOKS__DEPTH": "500"}).books.depth == 500


def test_a_variable_may_hold_a_section_within_a_section() -> None:
    """The key of a section may itself be a section, given as JSON or YAML."""
    settings = load(
        None,
        {
            "BRIDGE_ENVIRONMENT": "prod",
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1",
            "BRIDGE_ENDPOINTS__SPOT": '{"stream": "ws://localhost:1", "rest": "http://localhost:2"}',
            "BRIDGE_TOPICS__RETENTION_DAYS": "{raw: 3}",
        },
    )
    assert settings.endpoints.spot.stream == "ws://localhost:1"
    assert settings.endpoints.spot.rest == "http://localhost:2"
    assert settings.topics.retention_days.raw == 3


def test_a_variable_may_say_null(tmp_path: Path) -> None:
    """``null`` in a variable is nothing, as it is in the file, and wins over what the file says."""
    file = written(tmp_path, SMALL | {"schema_registry": {"url": "https://registry:8081"}})
    assert load(file, {"BRIDGE_SCHEMA_REGISTRY__URL": "null"}).schema_registry.url is None


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """Compose files and charts set variables to nothing where a value is optional."""
    assert load(written(tmp_path, SMALL), {"BRIDGE_HTTP__PORT": "", "BINANCE_PRO_ENV": ""}).http.port == 9464


def test_variables_of_a_kubernetes_service_are_left_alone(tmp_path: Path) -> None:
    """A service called bridge puts its own BRIDGE_ variables into each pod; they are no settings."""
    environ = {
        "BRIDGE_CONFIG": "/etc/bridge.yaml",
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_PORT": "tcp://10.0.0.1:9464",
        "BRIDGE_HTTP_PORT": "tcp://10.0.0.1:9464",
        "BRIDGE_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "BRIDGE_TEST_BOOTSTRAP_SERVERS": "localhost:1",
    }
    assert load(written(tmp_path, SMALL), environ).http.port == 9464


def test_sources_of_the_environment_that_agree_are_fine(tmp_path: Path) -> None:
    """The environment may be said more than once, in the same words."""
    assert load(written(tmp_path, SMALL), {"BINANCE_PRO_ENV": "prod"}, "prod").environment == "prod"


@pytest.mark.parametrize("source", ["option", "variable"])
def test_the_environment_may_come_from_outside_the_file(tmp_path: Path, source: str) -> None:
    """A file without an environment takes the option's or the variable's."""
    file = written(tmp_path, {"kafka": SMALL["kafka"]})
    settings = load(file, {}, "demo") if source == "option" else load(file, {"BINANCE_PRO_ENV": "demo"})
    assert settings.environment == "demo"


def test_servers_may_be_a_list(tmp_path: Path) -> None:
    """A list of servers reads as the comma-separated text."""
    settings = load(written(tmp_path, SMALL | {"kafka": {"bootstrap_servers": ["a:1", "[::1]:2"]}}), {})
    assert settings.kafka.bootstrap_servers == "a:1,[::1]:2"


@pytest.mark.parametrize("url", ["ws://localhost:1", "ws://127.3.2.1:1", "ws://[::1]:1", "wss://example.com"])
def test_plain_sockets_are_for_this_machine(tmp_path: Path, url: str) -> None:
    """Plain ``ws`` to any loopback address and ``wss`` to anywhere need no permission."""
    file = written(tmp_path, SMALL | {"endpoints": {"spot": {"stream": url}}})
    assert load(file, {}).endpoints.spot.stream == url


def test_plain_sockets_elsewhere_need_permission(tmp_path: Path) -> None:
    """With ``allow_insecure`` plain ``ws`` may go anywhere."""
    content = SMALL | {"endpoints": {"spot": {"stream": "ws://simulator:1"}}, "allow_insecure": True}
    assert load(written(tmp_path, content), {}).endpoints.spot.stream == "ws://simulator:1"


def test_symbol_less_channels_need_no_symbols(tmp_path: Path) -> None:
    """Channels of a whole market are subscribed to without naming symbols."""
    content = SMALL | {"subscriptions": [{"market": "usdm", "channels": ["ticker@arr", "contract-info"]}]}
    assert load(written(tmp_path, content), {}).subscriptions[0].symbols == ()


def test_the_same_channel_of_other_symbols_is_not_a_repeat(tmp_path: Path) -> None:
    """Two subscriptions may share a channel as long as the symbols differ."""
    one = {"market": "spot", "symbols": ["BTC/USDT"], "channels": ["trade"]}
    content = SMALL | {"subscriptions": [one, one | {"symbols": ["ETHUSDT"]}, one | {"market": "usdm"}]}
    assert len(load(written(tmp_path, content), {}).subscriptions) == 3


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """Settings are frozen, sections too."""
    settings = load(written(tmp_path, SMALL), {})
    for part, name in ((settings, "shards"), (settings.http, "port")):
        with pytest.raises(pydantic.ValidationError):
            setattr(part, name, 1)


def test_a_password_never_shows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the text form of the settings nor their dump nor the log holds a password."""
    kafka = {"bootstrap_servers": "b:1", "security_protocol": "SASL_SSL", "sasl_username": "u"}
    caplog.set_level(logging.DEBUG)
    settings = load(written(tmp_path, SMALL | {"kafka": kafka | {"sasl_password": SECRET}}), {})
    clients = kafka_settings(settings)
    assert clients.password() == SECRET
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(clients), caplog.text):
        assert SECRET not in shown


def test_an_error_carries_no_trace_of_the_file(tmp_path: Path) -> None:
    """The error has no cause whose text could hold what the file says."""
    content = SMALL | {"kafka": {"sasl_password": SECRET, "linger_ms": "x"}}
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, content), {})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert SECRET not in repr(caught.value)


def test_kafka_clients_get_the_section(tmp_path: Path) -> None:
    """The Kafka part is handed its own record; the password file stays a file, to be read afresh."""
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    kafka = {
        "bootstrap_servers": "b:1",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "u",
        "sasl_password_file": str(password),
        "client": "librdkafka",
    }
    clients = kafka_settings(load(written(tmp_path, SMALL | {"kafka": kafka, "buffer_bytes": 9_000_000}), {}))
    assert (clients.client, clients.buffer_bytes, clients.sasl_mechanism) == (
        "librdkafka",
        9_000_000,
        "SCRAM-SHA-512",
    )
    password.write_text("rotated\n")
    assert clients.password() == "rotated"


def test_plain_kafka_gets_no_mechanism(tmp_path: Path) -> None:
    """Without SASL the clients are told of no mechanism, whatever its default."""
    assert kafka_settings(load(written(tmp_path, SMALL), {})).sasl_mechanism is None


def test_what_is_not_supported_yet_loads_and_is_named(tmp_path: Path) -> None:
    """Settings of later versions parse; each is named before anything runs."""
    content = SMALL | {
        "schema_registry": {"url": "https://registry"},
    }
    settings = load(written(tmp_path, content), {})
    keys = {sentence.partition(":")[0] for sentence in unsupported(settings)}
    assert keys == {"schema_registry.url"}
    with pytest.raises(ConfigError, match="a schema registry is not supported in this version"):
        require_runnable(settings)


def test_a_spool(tmp_path: Path) -> None:
    """The spool is as configured, and there is none where no directory is named."""
    assert spool_settings(load(written(tmp_path, SMALL | {"spool": {"sync_ms": 500}}), {})) is None
    content = SMALL | {"spool": {"directory": "/var/spool/bridge", "max_bytes": 100_000_000}}
    spool = spool_settings(load(written(tmp_path, content), {}))
    assert spool is not None
    assert (spool.directory, spool.max_bytes, spool.sync_ms) == (Path("/var/spool/bridge"), 100_000_000, 1000)


def test_nothing_is_read_beside_what_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is not looked at: ``load`` is a function of its arguments."""
    monkeypatch.setenv("BRIDGE_HTTP__PORT", "1")
    monkeypatch.setenv("BRIDGE_NONSENSE__KEY", "1")
    monkeypatch.setenv("BINANCE_PRO_ENV", "demo")
    assert load(written(tmp_path, SMALL), {}).http.port == 9464


def test_every_key_is_explained() -> None:
    """Each key has a description, from which the reference page and the schema are made."""
    schema = Settings.model_json_schema()
    for name, model in {"": schema, **schema["$defs"]}.items():
        for key, about in model["properties"].items():
            # A required section is a bare reference; its description is the section's own.
            described = schema["$defs"][about["$ref"].rpartition("/")[2]] if set(about) == {"$ref"} else about
            assert described.get("description", "").endswith("."), f"{name}.{key}"


def test_the_module_says_where_defaults_are() -> None:
    """Defaults that the models leave to the catalogue are None, not a second copy."""
    assert set(config.RetentionDays().model_dump().values()) == {None}
