"""Recorded traffic of all three markets through simulator, bridge process and Kafka, read by other means."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bridge import __version__
from tests.integration.processes import bridge, command, get, simulator, until
from tests.integration.reading import Stored, read, topics_of

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from bridge.local.kafka import LocalKafka

pytestmark = pytest.mark.kafka

CAPTURES = Path(__file__).parents[1] / "captures"
MARKETS = ("spot", "usdm", "coinm")
CHANNELS = {"depth@100ms": "depth", "bookTicker": "book-ticker", "kline_1m": "kline", "aggTrade": "agg-trade"}
STRUCTURES = {"depth": "order-book", "book-ticker": "bid-ask", "kline": "ohlcv", "agg-trade": "trade"}
INFO = {"spot": "/api/v3/exchangeInfo", "usdm": "/fapi/v1/exchangeInfo", "coinm": "/dapi/v1/exchangeInfo"}
ASSETS = ("baseAsset", "quoteAsset", "marginAsset")
CURRENCIES = {"BCHSV": "BSV", "YOYO": "YOYOW"}  # as CCXT renames them
WEEK, MONTH, QUARTER = 7 * 86_400_000, 30 * 86_400_000, 90 * 86_400_000


class Message(NamedTuple):
    """A recorded message."""

    market: str
    channel: str
    stream: str
    text: str
    data: dict[str, Any]

    @property
    def symbol(self) -> str:
        return self.data["s"]


class Capture:
    """A recording: its messages, its exchangeInfo, and the unified symbols as CCXT names them."""

    def __init__(self, market: str) -> None:
        self.market = market
        self.path = CAPTURES / f"{market}.jsonl.gz"
        with gzip.open(self.path, "rt") as file:
            lines = [json.loads(line) for line in file]
        (self.info,) = (o["body"] for o in lines if o["kind"] == "rest" and "exchangeInfo" in o["url"])
        self.messages = [self._message(o["message"]) for o in lines if o["kind"] == "message"]
        self.instruments = {i["symbol"]: i for i in json.loads(self.info)["symbols"]}
        (self.url,) = (o["url"] for o in lines if o["kind"] == "connect")
        self.symbols = sorted({s.split("@")[0].upper() for s in self.url.partition("streams=")[2].split("/")})

    def _message(self, text: str) -> Message:
        frame = json.loads(text, parse_float=str)
        channel = CHANNELS[frame["stream"].partition("@")[2]]
        return Message(self.market, channel, frame["stream"], text, frame["data"])

    def unified(self, symbol: str) -> str:
        """The CCXT symbol: BTC/USDT, BTC/USDT:USDT, BTC/USD:BTC-211231."""
        of = self.instruments[symbol]
        base, quote, margin = (CURRENCIES.get(name, name) for name in map(of.get, ASSETS))
        name = f"{base}/{quote}"
        if self.market == "spot":
            return name
        name += f":{margin}"
        if of["contractType"] in ("PERPETUAL", ""):
            return name
        return name + datetime.fromtimestamp(of["deliveryDate"] / 1000, UTC).strftime("-%y%m%d")


@dataclass
class Run:
    """What one run left behind."""

    captures: dict[str, Capture]
    topics: dict[str, list[Stored]]
    pages: dict[str, tuple[int, str]]
    commands: dict[str, CompletedProcess[str]]
    exit_status: int
    connections_after: list[Any]

    def of(self, *parts: str) -> list[Stored]:
        """The records of a topic."""
        return self.topics[".".join(("binance", "prod", *parts))]


@pytest.fixture(scope="module")
def run(cluster: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All three captures, as fast as they go, through one bridge that is then stopped by SIGTERM."""
    directory = tmp_path_factory.mktemp("captures")
    captures = {market: Capture(market) for market in MARKETS}
    arguments = [word for c in captures.values() for word in ("--capture", str(c.path))]
    total = sum(len(c.messages) for c in captures.values())
    with simulator(directory, *arguments, "--speed", "0") as exchange:
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": cluster.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "subscriptions": [
                {"market": m, "symbols": c.symbols, "channels": ["depth", "book-ticker", "kline_1m", "agg-trade"]}
                for m, c in captures.items()
            ],
        }  # fmt: skip
        with bridge(directory, settings) as running:
            until(running.ready, "the bridge is ready")
            until(lambda: exchange.state()["done"], "the captures are played")
            until(lambda: running.messages() >= total and running.drained(), "everything is published")
            # counters that are brought up to date once a second
            until(lambda: _settled(get(f"{running.url}/metrics")[1], total), "metrics are up to date")
            pages = {
                p: get(f"{running.url}/{p}")
                for p in ("metrics", "healthz", "readyz", "status", "connections", "")
            }
            commands = {
                "status": command("status", "--json", "--url", running.url, cwd=directory),
                "connections": command("connections", "--json", "--url", running.url, cwd=directory),
            }
            running.terminate()
            exit_status = running.wait(120)
            commands["plan"] = command("topics", "plan", "--config", str(running.config), cwd=directory)
            until(lambda: not exchange.state()["connections"], "the exchange sees no connection any more")
            left = exchange.state()["connections"]
    return Run(captures, read(cluster.bootstrap_servers, "prod"), pages, commands, exit_status, left)


def _settled(metrics: str, messages: int) -> bool:
    samples = [line.rpartition(" ")[::2] for line in metrics.splitlines()]
    received = sum(
        float(n) for name, n in samples if name.startswith("binance_bridge_messages_received_total")
    )
    return received >= messages and ("binance_bridge_buffer_bytes", "0.0") in samples


def test_it_ends_well(run: Run) -> None:
    """SIGTERM ends the bridge with status 0 and leaves no connection at the exchange."""
    assert run.exit_status == 0
    assert run.connections_after == []


@pytest.mark.parametrize("market", MARKETS)
def test_raw_holds_every_message_byte_for_byte_and_in_order(run: Run, market: str) -> None:
    """The raw topics' payloads, put in order by connection and sequence, are the capture; by key so are offsets."""
    by_connection: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
    for channel in STRUCTURES:
        for stored in run.of("raw", market, channel):
            raw = stored.record
            text = raw["payload"].decode()
            by_connection[raw["connectionId"]].append((raw["connectionSequence"], raw["stream"], text))
            by_key[channel, stored.key].append(text)
            assert raw["channel"] == channel
    streams_of = {c: {stream for _, stream, _ in seen} for c, seen in by_connection.items()}
    for connection, seen in by_connection.items():
        sent = [m.text for m in run.captures[market].messages if m.stream in streams_of[connection]]
        assert [text for _, _, text in sorted(seen)] == sent
    expected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for message in run.captures[market].messages:
        expected[message.channel, message.symbol].append(message.text)
    assert by_key == expected
    assert sum(map(len, by_connection.values())) == len(run.captures[market].messages)


@pytest.mark.parametrize("market", MARKETS)
def test_raw_tells_where_each_message_came_from(run: Run, market: str) -> None:
    """Environment, market, stream, symbol, kind, event time and receipt stand in each raw record."""
    for channel in STRUCTURES:
        for stored in run.of("raw", market, channel):
            raw = stored.record
            frame = json.loads(raw["payload"])
            event = frame["data"].get("E")
            assert {k: raw[k] for k in ("environment", "market", "stream", "symbol", "eventTime", "kind")} == {
                "environment": "prod", "market": market, "stream": frame["stream"], "symbol": frame["data"]["s"],
                "eventTime": None if event is None else event * 1000, "kind": "stream",
            }  # fmt: skip
            assert stored.key == frame["data"]["s"]
            assert stored.timestamp == (raw["receivedAt"] // 1000 if event is None else event)


def test_connection_sequences_have_no_hole(run: Run) -> None:
    """Over all raw topics, the messages of each connection are numbered from 0 without a hole or a repeat."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for topic, stored in run.topics.items():
        if ".raw." in topic:
            for raw in (s.record for s in stored):
                if raw["kind"] == "stream":
                    numbers[raw["connectionId"]].append(raw["connectionSequence"])
    assert len(numbers) >= 3
    for seen in numbers.values():
        assert sorted(seen) == list(range(len(seen)))


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("channel", STRUCTURES)
def test_every_message_gives_its_unified_record(run: Run, market: str, channel: str) -> None:
    """Each message gives the record that the test derives by itself, all fields, in the capture's order by key."""
    capture = run.captures[market]
    where = {raw["payload"]: raw for raw in (s.record for s in run.of("raw", market, channel))}
    expected: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in capture.messages:
        if message.channel == channel:
            raw = where[message.text.encode()]
            symbol = capture.unified(message.symbol)
            expected[symbol].append(
                {
                    "symbol": symbol, "market": market, "exchangeSymbol": message.symbol, "channel": channel,
                    "origin": "live", "writerEpoch": 1, "connectionId": raw["connectionId"],
                    "connectionSequence": raw["connectionSequence"], "receivedAt": raw["receivedAt"],
                    **DERIVE[channel](message.data, market, capture.instruments[message.symbol]),
                }
            )  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stored in run.of("unified", STRUCTURES[channel]):
        record = stored.record
        if (record["market"], record["channel"], record["origin"]) == (market, channel, "live"):
            found[stored.key].append(record)
            assert stored.key == record["symbol"]
    assert {k: len(v) for k, v in found.items()} == {k: len(v) for k, v in expected.items()}
    for symbol, records in expected.items():
        for got, wanted in zip(found[symbol], records, strict=True):
            assert got == wanted


def _agg_trade(data: dict[str, Any], market: str, instrument: dict[str, Any]) -> dict[str, Any]:
    price, amount = Decimal(data["p"]), Decimal(data["q"])
    return {
        "sequence": data["a"], "id": str(data["a"]), "timestamp": data["T"] * 1000, "eventTime": data["E"] * 1000,
        "side": "sell" if data["m"] else "buy", "price": price, "amount": amount,
        "cost": _cost(price, amount, market, instrument), "firstTradeId": data["f"], "lastTradeId": data["l"],
        "order": None, "type": None, "takerOrMaker": None, "fees": [], "amountExcludingRpi": None,
        "fee": {"currency": None, "cost": None, "rate": None},
    }  # fmt: skip


def _cost(price: Decimal, amount: Decimal, market: str, instrument: dict[str, Any]) -> Decimal:
    with localcontext(prec=80):
        cost = price * amount if market != "coinm" else amount * instrument["contractSize"] / price
        return cost.quantize(Decimal("1e-18"), ROUND_DOWN)


def _book_ticker(data: dict[str, Any], market: str, instrument: dict[str, Any]) -> dict[str, Any]:
    return {
        "sequence": data["u"], "timestamp": data["E"] * 1000 if "E" in data else None,
        "bid": Decimal(data["b"]) or None, "bidVolume": Decimal(data["B"]),
        "ask": Decimal(data["a"]) or None, "askVolume": Decimal(data["A"]),
        "transactionTime": data["T"] * 1000 if "T" in data else None,
    }  # fmt: skip


def _depth(data: dict[str, Any], market: str, instrument: dict[str, Any]) -> dict[str, Any]:
    def levels(side: str) -> list[dict[str, Decimal]]:
        return [{"price": Decimal(price), "amount": Decimal(amount)} for price, amount in data[side]]

    return {
        "sequence": data["u"], "timestamp": data["E"] * 1000, "type": "delta", "bids": levels("b"), "asks": levels("a"),
        "firstSequence": data["U"], "previousSequence": data.get("pu"), "depth": None,
        "transactionTime": data["T"] * 1000 if "T" in data else None,
    }  # fmt: skip


def _kline(data: dict[str, Any], market: str, instrument: dict[str, Any]) -> dict[str, Any]:
    k = data["k"]
    inverse = market == "coinm"
    return {
        "sequence": None, "timestamp": k["t"] * 1000, "timeframe": "1m", "eventTime": data["E"] * 1000,
        "open": Decimal(k["o"]), "high": Decimal(k["h"]), "low": Decimal(k["l"]), "close": Decimal(k["c"]),
        "volume": Decimal(k["v"]), "closed": k["x"], "closeTime": k["T"] * 1000, "trades": k["n"],
        "baseVolume": Decimal(k["q" if inverse else "v"]), "quoteVolume": None if inverse else Decimal(k["q"]),
        "contracts": Decimal(k["v"]) if inverse else None,
        "takerBuyBaseVolume": Decimal(k["Q" if inverse else "V"]),
        "takerBuyQuoteVolume": None if inverse else Decimal(k["Q"]),
        "firstTradeId": k["f"] if k["f"] >= 0 else None, "lastTradeId": k["L"] if k["L"] >= 0 else None,
        "priceType": "trade", "contractType": None, "timeZone": None,
    }  # fmt: skip


DERIVE = {"agg-trade": _agg_trade, "book-ticker": _book_ticker, "depth": _depth, "kline": _kline}


def test_kafka_time_is_the_events_own_and_headers_tell_the_version(run: Run) -> None:
    """Seeking by time means event time: a unified record's timestamp is its exchange time, or the time of receipt."""
    for structure in STRUCTURES.values():
        for stored in run.of("unified", structure):
            record = stored.record
            own = record["eventTime"] if structure == "ohlcv" else record["timestamp"]
            assert stored.timestamp == (record["receivedAt"] if own is None else own) // 1000
            assert stored.headers == (("version", __version__.encode()),)


def test_each_key_has_one_partition(run: Run) -> None:
    """All records of a key are in one partition, and keys spread over several."""
    for topic, stored in run.topics.items():
        places: dict[str, set[int]] = defaultdict(set)
        for one in stored:
            places[one.key].add(one.partition)
        assert all(len(partitions) == 1 for partitions in places.values()), topic
    assert len({s.partition for s in run.of("unified", "bid-ask")}) > 1


def test_nothing_is_missing_and_nothing_failed(run: Run) -> None:
    """A sound recording leaves no gap and no dead letter."""
    assert [s.record for s in run.of("gaps")] == []
    assert [s.record for s in run.of("dead-letter")] == []


@pytest.mark.parametrize("market", MARKETS)
def test_the_answers_are_kept_and_every_instrument_is_published(run: Run, market: str) -> None:
    """The api topic has exchangeInfo as received; each of its instruments is a market record, also as state."""
    capture = run.captures[market]
    answers = [s for s in run.of("raw", market, "api") if s.key == INFO[market]]
    assert [(s.key, s.record["payload"].decode()) for s in answers] == [(INFO[market], capture.info)]
    for topic in (("unified", "market"), ("state", "market")):
        found = Counter((s.record["id"], s.key) for s in run.of(*topic) if s.record["market"] == market)
        assert found == Counter((symbol, capture.unified(symbol)) for symbol in capture.instruments)


def test_state_holds_the_newest_value(run: Run) -> None:
    """The last record of each key in the state topic is the last one of its history."""
    last = {s.key: s.value for s in run.of("unified", "bid-ask")}
    assert {s.key: s.value for s in run.of("state", "bid-ask")} == last


def test_topics_are_those_of_the_contract(run: Run, cluster: LocalKafka) -> None:
    """The topics of the enabled channels, and no others, with the contract's names."""
    expected = {
        *(f"raw.{market}.{channel}" for market in MARKETS for channel in (*STRUCTURES, "api", "unknown")),
        *(f"unified.{structure}" for structure in (*STRUCTURES.values(), "market")),
        "state.bid-ask", "state.market", "lifecycle", "gaps", "coverage", "dead-letter",
        "control.shards", "control.signals", "control.checkpoints",
    }  # fmt: skip
    found = {name.removeprefix("binance.prod.") for name in topics_of(cluster.bootstrap_servers, "prod")}
    assert found == expected


@pytest.mark.parametrize(
    ("topic", "policy", "retention"),
    [
        ("raw.spot.depth", "delete", WEEK), ("raw.spot.api", "delete", WEEK), ("unified.trade", "delete", MONTH),
        ("state.bid-ask", "compact", None), ("lifecycle", "delete", MONTH), ("gaps", "delete", QUARTER),
        ("coverage", "compact", None), ("dead-letter", "delete", MONTH), ("control.signals", "delete", WEEK),
        ("control.checkpoints", "compact", None),
    ],
)  # fmt: skip
def test_topics_have_the_contracts_policies(
    run: Run, cluster: LocalKafka, topic: str, policy: str, retention: int | None
) -> None:
    """Each kind of topic is cleaned up as the contract says."""
    from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    resource = ConfigResource(ResourceType.TOPIC, f"binance.prod.{topic}")
    config = admin.describe_configs([resource])[resource].result(60)
    assert config["cleanup.policy"].value == policy
    if retention is not None:
        assert int(config["retention.ms"].value) == retention


def test_lifecycle_tells_the_whole_life(run: Run) -> None:
    """From bridge.started to bridge.stopped, each connection opens, subscribes to its streams and closes."""
    events = [s.record for s in run.of("lifecycle")]
    names = [e["event"] for e in events]
    assert names[0] == "bridge.started"
    assert names[-2:] == ["connection.closed", "bridge.stopped"]
    carried: set[tuple[str, str]] = set()
    lives: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if event["connectionId"] is not None:
            lives[event["connectionId"]].append(event["event"])
        if event["event"] == "connection.subscribed":
            carried |= {(event["market"], stream) for stream in event["streams"]}
    for life in lives.values():
        assert life[0] == "connection.opening"
        assert life[-1] == "connection.closed"
        assert {"connection.started", "connection.subscribed", "connection.first-message"} < set(life)
    wanted = {(m, s) for m, c in run.captures.items() for s in c.url.partition("streams=")[2].split("/")}
    assert carried == wanted


def test_the_endpoint_answers(run: Run) -> None:
    """Health, readiness, state, connections and the status page answer while it runs."""
    assert {page: status for page, (status, _) in run.pages.items()} == dict.fromkeys(run.pages, 200)
    status = json.loads(run.pages["status"][1])
    assert (status["environment"], status["ready"], status["version"]) == ("prod", True, __version__)
    carried = {s["name"] for c in json.loads(run.pages["connections"][1]) for s in c["streams"]}
    wanted = {s for c in run.captures.values() for s in c.url.partition("streams=")[2].split("/")}
    assert carried == wanted
    published = {t["topic"]: t["records"] for t in status["topics"]}
    for topic, stored in run.topics.items():
        if ".raw." in topic or ".unified." in topic:
            assert published.get(topic, 0) == len(stored), topic


def test_metrics_are_those_of_the_contract(run: Run) -> None:
    """Every metric of the contract is served, and those that count say what happened."""
    metrics = run.pages["metrics"][1]
    names = {line.split()[2] for line in metrics.splitlines() if line.startswith("# TYPE ")}
    expected = {
        "connections_open", "connection_first_update_seconds", "update_gap_max_seconds", "reconnects_total",
        "requests_rejected_total", "requests_resolved_total", "waiters", "cache_entries", "messages_received_total",
        "message_bytes_total", "records_published_total", "record_bytes_total", "publish_latency_seconds",
        "event_lag_seconds", "dead_letters_total", "gaps_total", "gap_events_recovered_total",
        "book_resyncs_total", "books_synced", "transactions_total", "transaction_seconds", "buffer_bytes",
        "shards_owned", "request_weight_used", "build_info",
    }  # fmt: skip
    assert {f"binance_bridge_{name}" for name in expected} <= names
    samples = dict(
        line.rpartition(" ")[::2] for line in metrics.splitlines() if line.startswith("binance_bridge_")
    )
    for market, capture in run.captures.items():
        counted = Counter(m.channel for m in capture.messages)
        for channel, count in counted.items():
            label = f'binance_bridge_messages_received_total{{channel="{channel}",market="{market}"}}'
            assert float(samples[label]) == count
        assert float(samples[f'binance_bridge_connections_open{{market="{market}"}}']) >= 1
        assert float(samples[f'binance_bridge_request_weight_used{{market="{market}"}}']) > 0
    assert not any("BTC" in name or "usdt" in name.lower() for name in samples), "a symbol in a label"


def test_the_command_line_reports_on_it(run: Run) -> None:
    """status, connections and topics plan answer with exit status 0."""
    assert {name: (c.returncode, c.stderr) for name, c in run.commands.items()} == dict.fromkeys(
        run.commands, (0, "")
    )
    assert json.loads(run.commands["status"].stdout)["environment"] == "prod"
    assert json.loads(run.commands["connections"].stdout)
