"""Bad configuration: exit status 2 and one message that names the key and the mend."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.cli import main

GOOD = """\
environment: prod
kafka: {bootstrap_servers: "127.0.0.1:9092"}
subscriptions:
  - {market: spot, symbols: [BTCUSDT], channels: [trade]}
"""
HEAD = 'environment: prod\nkafka: {bootstrap_servers: "127.0.0.1:9092"}\n'
TAIL = "subscriptions:\n  - {market: spot, symbols: [BTCUSDT], channels: [trade]}\n"
SECRET = "hunter2"


@dataclass(frozen=True)
class Bad:
    name: str
    text: str
    says: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def kafka(more: str) -> str:
    """Return a configuration with more in its kafka section."""
    return f'environment: prod\nkafka: {{bootstrap_servers: "b:9092", {more}}}\n{TAIL}'


def top(more: str) -> str:
    """Return a configuration with more at its end."""
    return GOOD + more + "\n"


def subscribed(text: str) -> str:
    """Return a configuration with these subscriptions."""
    return f"{HEAD}subscriptions: [{text}]\n"


def on_spot(channel: str) -> str:
    """Return a configuration with one channel of spot."""
    return subscribed(f'{{market: spot, symbols: [BTCUSDT], channels: ["{channel}"]}}')


CASES = [
    # The file itself.
    Bad("not YAML", "environment: prod\nkafka: [", ("line 2", "is not YAML", "key: value")),
    Bad("a tab", "environment: prod\nkafka:\n\tlinger_ms: 5\n", ("line 3, column 1", "tab", "spaces")),
    Bad("a list at the top", "- environment: prod\n", ("found a list at the top", "environment: prod")),
    Bad("text at the top", "prod\n", ('found "prod" at the top',)),
    Bad("not UTF-8", "\udcff", ("is not UTF-8 text, at byte 0",)),
    Bad("key twice", GOOD + "shards: 1\nshards: 2\n", ("line 6: shards: is given twice", "keep one")),
    Bad("key twice in a section", kafka("linger_ms: 1, linger_ms: 2"), ("linger_ms: is given twice",)),
    Bad("secret that begins with *", kafka(f"sasl_password: *{SECRET}"), ("line 2", "in quotes")),
    Bad(
        "a star that is not in quotes",
        subscribed("{market: spot, symbols: *, channels: [trade]}"),
        ("line 3, column", "begins with *", "in quotes"),
    ),
    Bad("two documents", GOOD + "---\nshards: 2\n", ("line 5", "a second document; keep one")),
    Bad("secret that begins with !", f"kafka:\n  sasl_password: !{SECRET}\n", ("line 2", "in quotes")),
    # Missing.
    Bad("empty file", "", ("environment: is missing", "BINANCE_PRO_ENV", "kafka: is missing")),
    Bad(
        "no environment",
        GOOD.replace("environment: prod\n", ""),
        ("environment: is missing", "--environment"),
    ),
    Bad("no kafka", "environment: prod\n" + TAIL, ("kafka: is missing",)),
    Bad(
        "no bootstrap servers",
        f"environment: prod\nkafka: {{}}\n{TAIL}",
        ("kafka.bootstrap_servers: is missing",),
    ),
    Bad("no subscriptions", HEAD, ("subscriptions: is missing; expected at least one",)),
    Bad("empty subscriptions", HEAD + "subscriptions: []\n", ("subscriptions: found an empty list",)),
    Bad("null subscriptions", HEAD + "subscriptions:\n", ("subscriptions: found nothing; expected a list",)),
    Bad(
        "no market",
        subscribed("{symbols: [BTCUSDT], channels: [trade]}"),
        ("subscriptions[0].market: is missing",),
    ),
    Bad(
        "no channels", subscribed("{market: spot, symbols: [X]}"), ("subscriptions[0].channels: is missing",)
    ),
    Bad(
        "no symbols",
        subscribed("{market: spot, channels: [trade]}"),
        ("subscriptions[0].symbols: is missing, and trade is read by symbol", '"*"'),
    ),
    # Unknown keys, at each level.
    Bad("unknown section", top("kafak: {}"), ("kafak: is not a known key (did you mean kafka?)",)),
    Bad("unknown key", kafka("compresion: zstd"), ("kafka.compresion: ", "(did you mean compression?)")),
    Bad("key at the wrong level", top("linger_ms: 5"), ("linger_ms: is not a known key", "kafka.linger_ms?")),
    Bad(
        "key like none", top("zzzz: 5"), ("zzzz: is not a known key; expected one of environment, instance",)
    ),
    Bad(
        "unknown key of a subscription",
        subscribed("{market: spot, symbol: [BTCUSDT], channels: [trade]}"),
        ("subscriptions[0].symbol: ", "(did you mean symbols?)"),
    ),
    Bad(
        "unknown key two levels down",
        top("endpoints: {spot: {streams: x}}"),
        ("endpoints.spot.streams: ", "stream?"),
    ),
    Bad(
        "unknown market's endpoints",
        top("endpoints: {options: {}}"),
        ("endpoints.options: is not a known key",),
    ),
    Bad("mistyped secret key", kafka(f"sasl_pasword: {SECRET}"), ("kafka.sasl_pasword: ", "sasl_password?")),
    # Wrong types.
    Bad(
        "section as text",
        f"environment: prod\nkafka: {SECRET}\n{TAIL}",
        ("kafka: found text; expected a mapping",),
    ),
    Bad("section as a list", top("http: [9464]"), ("http: found a list; expected a mapping",)),
    Bad("port as a word", top("http: {port: many}"), ('http.port: found "many"; expected a whole number',)),
    Bad("port as a truth", top("http: {port: yes}"), ("http.port: found true; expected a whole number",)),
    Bad("port as a fraction", top("http: {port: 80.5}"), ("http.port: found 80.5; expected a whole number",)),
    Bad(
        "truth as a word",
        top("create_topics: maybe"),
        ('create_topics: found "maybe"; expected true or false',),
    ),
    Bad("number for text", top("instance: 7"), ("instance: found 7; expected text",)),
    Bad(
        "subscriptions as a mapping",
        HEAD + "subscriptions: {market: spot}\n",
        ("subscriptions: found a mapping", "a list"),
    ),
    Bad(
        "channels as text",
        subscribed("{market: spot, symbols: [X], channels: trade}"),
        ("[0].channels: ", "[trade]"),
    ),
    Bad(
        "symbols as text",
        subscribed("{market: spot, symbols: X, channels: [trade]}"),
        ("[0].symbols: ", '"*" for all'),
    ),
    Bad(
        "symbol as a number",
        subscribed("{market: spot, symbols: [1], channels: [trade]}"),
        ("[0].symbols: found 1",),
    ),
    # Values out of range.
    Bad("port too large", top("http: {port: 70000}"), ("http.port: found 70000; expected at most 65535",)),
    Bad("negative size", top("buffer_bytes: -1"), ("buffer_bytes: found -1; expected at least 1048576",)),
    Bad("negative linger", kafka("linger_ms: -5"), ("kafka.linger_ms: found -5; expected at least 0",)),
    Bad("no shard", top("shards: 0"), ("shards: found 0; expected at least 1",)),
    Bad(
        "no replica",
        top("replication_factor: 0"),
        ("replication_factor: found 0; expected 1 to 100, or -1 for",),
    ),
    Bad("no retention", top("topics: {retention_days: {raw: 0}}"), ("topics.retention_days.raw: found 0",)),
    Bad(
        "too many streams", top("connection: {streams_per_connection: 2000}"), ("found 2000", "at most 1024")
    ),
    Bad(
        "rotation after the 24 h close",
        top("connection: {rotate_after_seconds: 86000, overlap_seconds: 300}"),
        ("connection.rotate_after_seconds: found 86000 with overlap_seconds 300", "at most 86000 together"),
    ),
    Bad(
        "buffer below a batch",
        f'environment: prod\nbuffer_bytes: 1048576\nkafka: {{bootstrap_servers: "b:1", batch_bytes: 2000000}}\n{TAIL}',
        ("buffer_bytes: found 1048576; expected at least kafka.batch_bytes, 2000000",),
    ),
    # Choices.
    Bad(
        "environment",
        GOOD.replace("prod", "production"),
        ('environment: found "production"', "prod, demo, testnet"),
    ),
    Bad(
        "market",
        subscribed("{market: futures, symbols: [X], channels: [trade]}"),
        ("[0].market: ", "spot, usdm, coinm"),
    ),
    Bad("compression", kafka("compression: zsdt"), ("kafka.compression: ", "none (did you mean zstd?)")),
    Bad("security protocol", kafka("security_protocol: TLS"), ("kafka.security_protocol: ", "SASL_SSL")),
    Bad(
        "mechanism",
        kafka("sasl_mechanism: GSSAPI"),
        ('kafka.sasl_mechanism: found "GSSAPI"', "SCRAM-SHA-512"),
    ),
    Bad("client", kafka("client: confluent"), ("kafka.client: ", "aiokafka, librdkafka")),
    Bad("delivery", top("delivery: maybe_once"), ("delivery: ", "at_least_once")),
    Bad("log level", top("log: {level: LOUD}"), ('log.level: found "LOUD"', "DEBUG, INFO")),
    Bad(
        "transport",
        top("connection: {transport: carrier}"),
        ("connection.transport: ", "websockets, picows, auto"),
    ),
    Bad("instance with a blank", top("instance: my bridge"), ("instance: ", "letters, digits")),
    # Addresses.
    Bad(
        "server without a port",
        kafka("").replace("b:9092", "kafka"),
        ('bootstrap_servers: found "kafka"', "host:port"),
    ),
    Bad(
        "server with port 0", kafka("").replace("b:9092", "kafka:0"), ('found "kafka:0"; expected host:port',)
    ),
    Bad(
        "server as a URL",
        kafka("").replace("b:9092", "kafka://b:1"),
        ('found "kafka://b:1"; expected host:port',),
    ),
    Bad(
        "scheme",
        top('endpoints: {spot: {stream: "https://x"}}'),
        ("endpoints.spot.stream: ", "wss://host:port"),
    ),
    Bad(
        "REST scheme",
        top('endpoints: {spot: {rest: "ftp://x"}}'),
        ("endpoints.spot.rest: ", "https://host:port"),
    ),
    Bad(
        "three URLs for two legs",
        top('endpoints: {spot: {stream: ["wss://a", "wss://b", "wss://c"]}}'),
        ("endpoints.spot.stream: found a list of 3", "one URL, or two"),
    ),
    Bad(
        "second leg that is no stream URL",
        top('endpoints: {spot: {stream: ["wss://a", "https://b"]}}'),
        ("endpoints.spot.stream: ", "wss://host:port"),
    ),
    Bad(
        "second leg not encrypted",
        top('endpoints: {usdm: {stream: ["wss://a", "ws://10.0.0.1:9443"]}}'),
        ("endpoints.usdm.stream: ", "not encrypted"),
    ),
    Bad(
        "two URLs where one is asked for",
        top('endpoints: {spot: {rest: ["https://a", "https://b"]}}'),
        ("endpoints.spot.rest: ", "text"),
    ),
    Bad("three legs", top("connection: {redundancy: 3}"), ("connection.redundancy: found 3", "at most 2")),
    Bad("no URL", top("endpoints: {spot: {rest: nowhere}}"), ('endpoints.spot.rest: found "nowhere"',)),
    Bad(
        "plain ws to another machine",
        top('endpoints: {usdm: {stream: "ws://10.0.0.1:9443"}}'),
        ("endpoints.usdm.stream: ", "not encrypted", "wss://, or allow_insecure: true"),
    ),
    Bad(
        "plain http to a name that only looks like loopback",
        top('endpoints: {spot: {rest: "http://127.0.0.1.example.com"}}'),
        ("endpoints.spot.rest: ", "https://, or allow_insecure: true"),
    ),
    Bad(
        "password in a URL",
        top(f'endpoints: {{spot: {{rest: "https://me:{SECRET}@proxy"}}}}'),
        ("endpoints.spot.rest: found a URL with a user name or password",),
    ),
    Bad(
        "token in a URL",
        top(f'endpoints: {{spot: {{rest: "https://proxy/?token={SECRET}"}}}}'),
        ("endpoints.spot.rest: found a URL with a query",),
    ),
    # Kafka's security.
    Bad(
        "SASL without user and password",
        kafka("security_protocol: SASL_SSL"),
        ("kafka.sasl_username: is missing", "kafka.sasl_password: is missing", "BRIDGE_KAFKA__SASL_PASSWORD"),
    ),
    Bad(
        "SASL without password",
        kafka("security_protocol: SASL_SSL, sasl_username: me"),
        ("kafka.sasl_password: is missing; SASL_SSL needs it",),
    ),
    Bad(
        "password without SASL",
        kafka(f"sasl_username: me, sasl_password: {SECRET}"),
        ("kafka.sasl_password: is set, but security_protocol PLAINTEXT does not use it", "SASL_SSL"),
    ),
    Bad(
        "password and password file",
        kafka(
            f"security_protocol: SASL_SSL, sasl_username: u, sasl_password: {SECRET}, sasl_password_file: '{__file__}'"
        ),
        ("kafka.sasl_password_file: and sasl_password are both set; keep one",),
    ),
    Bad(
        "password file missing",
        kafka("security_protocol: SASL_SSL, sasl_username: u, sasl_password_file: /no/where"),
        ('kafka.sasl_password_file: cannot read "/no/where", no such file', "readable file"),
    ),
    Bad(
        "password as a number",
        kafka("security_protocol: SASL_SSL, sasl_password: 123456789"),
        ("found a value; expected text",),
    ),
    Bad(
        "authority file missing",
        kafka("security_protocol: SSL, ssl_cafile: /no/ca.pem"),
        ('kafka.ssl_cafile: cannot read "/no/ca.pem"',),
    ),
    Bad(
        "certificate is a folder",
        kafka("security_protocol: SSL, ssl_certfile: /"),
        ('kafka.ssl_certfile: cannot read "/", is a directory',),
    ),
    Bad(
        "key without certificate",
        kafka(f"security_protocol: SSL, ssl_keyfile: '{__file__}'"),
        ("kafka.ssl_certfile: is missing",),
    ),
    Bad(
        "authority without SSL",
        kafka(f"ssl_cafile: '{__file__}'"),
        ("kafka.ssl_cafile: is set, but security_protocol",),
    ),
    # Subscriptions.
    Bad(
        "no channel",
        subscribed("{market: spot, symbols: [X], channels: []}"),
        ("[0].channels: found an empty list",),
    ),
    Bad(
        "no symbol",
        subscribed("{market: spot, symbols: [], channels: [trade]}"),
        ("[0].symbols: found an empty list",),
    ),
    Bad(
        "all symbols and some",
        subscribed('{market: spot, symbols: ["*", BTCUSDT], channels: [trade]}'),
        ('[0].symbols: found "*" beside other symbols',),
    ),
    Bad(
        "quote with a list",
        subscribed("{market: spot, symbols: [BTCUSDT], quote: [USDT], channels: [trade]}"),
        ("[0].quote: is set, but symbols is a list",),
    ),
    Bad(
        "a contract on spot",
        subscribed('{market: spot, symbols: [ETHUSDT, "BTC/USDT:USDT"], channels: [trade]}'),
        ('subscriptions[0].symbols[1]: found "BTC/USDT:USDT", a contract', "expected BTC/USDT", "usdm"),
    ),
    Bad("unknown channel", on_spot("trades"), ("subscriptions[0].channels[0]: ", "'trade'?")),
    Bad(
        "channel of another market",
        on_spot("mark-price"),
        ("subscriptions[0].channels[0]: spot has no channel",),
    ),
    Bad("no channel at all", on_spot("Trade!"), ("[0].channels[0]: ", "is not a channel")),
    Bad("interval", on_spot("kline_7m"), ("[0].channels[0]: kline has no interval '7m'; there are ", "1m")),
    Bad("interval missing", on_spot("kline"), ("[0].channels[0]: kline wants its interval",)),
    Bad("levels", on_spot("partial-depth_7"), ("[0].channels[0]: ", "5, 10, 20")),
    Bad("window", on_spot("rolling-ticker_2h"), ("[0].channels[0]: ", "1h, 4h, 1d")),
    Bad(
        "speed", on_spot("depth@7ms"), ("[0].channels[0]: depth has no speed '7ms' on spot; there are 100ms",)
    ),
    Bad(
        "speed of a channel without",
        on_spot("trade@100ms"),
        ("[0].channels[0]: trade has one speed only", "remove @100ms"),
    ),
    Bad(
        "option of a channel without",
        on_spot("trade_5"),
        ("[0].channels[0]: trade takes no option", "remove _5"),
    ),
    Bad("all-market form where there is none", on_spot("trade@arr"), ("[0].channels[0]: ", "remove @arr")),
    Bad(
        "channel twice",
        subscribed("{market: spot, symbols: [X], channels: [trade, trade]}"),
        ('[0].channels: found "trade" twice',),
    ),
    Bad(
        "channel twice in other words",
        subscribed("{market: spot, symbols: [X], channels: [depth, depth@100ms]}"),
        ("[0].channels[1]: found depth@100ms, the same as depth",),
    ),
    Bad(
        "symbol twice in other words",
        subscribed("{market: spot, symbols: [BTC/USDT, BTCUSDT], channels: [trade]}"),
        ("[0].symbols[1]: found BTCUSDT, the same as BTC/USDT",),
    ),
    Bad(
        "subscription twice",
        subscribed(
            "{market: spot, symbols: [BTCUSDT], channels: [trade]}, "
            "{market: spot, symbols: [BTC/USDT], channels: [ticker, trade]}"
        ),
        ("subscriptions[1]: found trade of BTC/USDT, which subscriptions[0] has already",),
    ),
    # Accounts, and what this version cannot do.
    Bad(
        "account name",
        top("accounts: [{name: Main Account, market: spot}]"),
        ("accounts[0].name: ", "a small letter"),
    ),
    Bad(
        "account twice",
        top("accounts: [{name: main, market: spot}, {name: main, market: spot}]"),
        ("accounts[1]: main of spot is given twice",),
    ),
    Bad(
        "transactions that end before a request may",
        kafka("request_timeout_ms: 20000") + "delivery: exactly_once\ntransactions: {timeout_ms: 30000}\n",
        ("transactions.timeout_ms: found 30000; expected at least twice kafka.request_timeout_ms, 40000",),
    ),
    Bad(
        "registry",
        top('schema_registry: {url: "https://r"}'),
        ("schema_registry.url: ", "not supported in this version"),
    ),
    Bad(
        "spool with the other client",
        kafka("client: librdkafka") + "spool: {directory: /var/spool}\n",
        ("spool.directory: is set, but kafka.client librdkafka has no spool; expected aiokafka",),
    ),
    Bad(
        "spool with transactions",
        top("delivery: exactly_once\nspool: {directory: /var/spool}"),
        ("spool.directory: is set, but with delivery: exactly_once", "or no directory"),
    ),
    Bad(
        "spool that gives batches no time",
        kafka("linger_ms: 100") + "spool: {directory: /var/spool, sync_ms: 200}\n",
        ("spool.sync_ms: found 200; expected at least four times kafka.linger_ms, 400",),
    ),
    # Variables and options.
    Bad(
        "bad value in a variable",
        GOOD,
        ("http.port: ", '"abc"', "(set by BRIDGE_HTTP__PORT)"),
        {"BRIDGE_HTTP__PORT": "abc"},
    ),
    Bad(
        "unknown variable",
        GOOD,
        ("BRIDGE_HTTP__PROT: ", "did you mean BRIDGE_HTTP__PORT?"),
        {"BRIDGE_HTTP__PROT": "1"},
    ),
    Bad(
        "one underscore for two",
        GOOD,
        ("BRIDGE_KAFKA_LINGER_MS: ", "did you mean BRIDGE_KAFKA__LINGER_MS?"),
        {"BRIDGE_KAFKA_LINGER_MS": "1"},
    ),
    Bad(
        "a list that is none",
        GOOD,
        ("subscriptions: is not YAML or JSON", "BRIDGE_SUBSCRIPTIONS"),
        {"BRIDGE_SUBSCRIPTIONS": "[{"},
    ),
    Bad(
        "secret in a variable beside a password file",
        kafka(f"security_protocol: SASL_SSL, sasl_username: u, sasl_password_file: '{__file__}'"),
        ("kafka.sasl_password_file: and sasl_password are both set",),
        {"BRIDGE_KAFKA__SASL_PASSWORD": SECRET},
    ),
    Bad(
        "file and option disagree",
        GOOD,
        ("environment: ", "says prod and --environment says demo"),
        {},
        ("--environment", "demo"),
    ),
    Bad(
        "file and variable disagree",
        GOOD,
        ("says prod and BINANCE_PRO_ENV says demo",),
        {"BINANCE_PRO_ENV": "demo"},
    ),
    Bad(
        "variables disagree",
        GOOD.replace("environment: prod\n", ""),
        ("BRIDGE_ENVIRONMENT says testnet and BINANCE_PRO_ENV says demo; make them agree",),
        {"BINANCE_PRO_ENV": "demo", "BRIDGE_ENVIRONMENT": "testnet"},
    ),
]


@pytest.fixture(autouse=True)
def no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tester's own variables out."""
    for name in [n for n in os.environ if n.startswith("BRIDGE_") or n == "BINANCE_PRO_ENV"]:
        monkeypatch.delenv(name)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line, which must fail with status 2, and return what it said."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    assert (exit_.value.code, out) == (2, "")
    assert err.startswith("binance-bridge: ")
    assert err.count("binance-bridge: ") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_configuration_is_refused_with_one_message(
    case: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad configuration ends with status 2 and a message naming the key and the mend, never a secret."""
    file = tmp_path / "bad.yaml"
    file.write_bytes(case.text.encode(errors="surrogateescape"))
    for name, value in case.environ.items():
        monkeypatch.setenv(name, value)

    message = refused(["config", "check", "--config", str(file), *case.options], capsys)

    for text in case.says:
        assert text in message
    assert SECRET not in message


def test_each_case_has_its_own_name() -> None:
    """The table has no case twice, and as many as were promised."""
    assert len({case.name for case in CASES}) == len(CASES) >= 30


def test_the_table_starts_from_a_good_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the cases are made of is itself accepted."""
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    with pytest.raises(SystemExit) as exit_:
        main(["config", "check", str(file)])
    assert (exit_.value.code, capsys.readouterr().out) == (0, "ok: prod, 1 subscription\n")


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is named together with the option to set."""
    message = refused(["config", "check", str(tmp_path / "none.yaml")], capsys)
    assert "none.yaml: cannot be read, no such file or directory" in message
    assert "--config" in message


def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder in the place of the file is refused."""
    assert "cannot be read, is a directory" in refused(["config", "check", str(tmp_path)], capsys)


def test_every_problem_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All problems of a file are told at once, a line each."""
    file = tmp_path / "bad.yaml"
    file.write_text(
        "environment: live\nkafka: {linger_ms: -1}\nshard: 2\nhttp: {port: 0.5}\n"
        "subscriptions: [{market: spot, symbols: [BTCUSDT], channels: [trade, kline_7m, depht]}]\n"
    )
    lines = refused(["config", "check", str(file)], capsys).splitlines()
    assert lines[0].endswith("bad.yaml: 7 problems")
    assert sorted(line.strip().partition(": ")[0] for line in lines[1:]) == [
        "environment",
        "http.port",
        "kafka.bootstrap_servers",
        "kafka.linger_ms",
        "shard",
        "subscriptions[0].channels[1]",
        "subscriptions[0].channels[2]",
    ]
