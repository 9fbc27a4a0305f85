"""The catalogue: channels as they are configured, the streams they mean, and the pages made from it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import contracts, reference
from bridge.catalogue import Catalogue, TopicNames, catalogue, select
from bridge.config import load
from bridge.core.declaration import (
    AccountEndpoint,
    AccountRecord,
    AccountSource,
    Backfill,
    Channel,
    OnMarket,
    Record,
    Sequence,
    Topic,
)
from bridge.core.instruments import Instruments, parse_exchange_info
from bridge.errors import ConfigError, ContractError
from bridge.model import MARKETS, Market
from bridge.schema import schemas
from bridge.topics import topic_specs

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]


def _instruments(market: Market) -> Instruments:
    body = (ROOT / "tests/cases/exchange-info" / f"{market}.json").read_bytes()
    return parse_exchange_info(market, body)[1]


TABLES: dict[Market, Instruments] = {market: _instruments(market) for market in MARKETS}


def _names(market: Market, channels: list[str], symbols: list[str]) -> list[str]:
    return [c.stream.name for c in catalogue().choose(market, channels, symbols, None, TABLES[market])]


# Channels of a configuration


@pytest.mark.parametrize(
    ("market", "channel", "symbol", "name"),
    [
        ("spot", "agg-trade", "BTC/USDT", "btcusdt@aggTrade"),
        ("spot", "trade", "BTCUSDT", "btcusdt@trade"),
        ("spot", "block-trade", "BTCUSDT", "btcusdt@blockTrade"),
        ("spot", "kline_1s", "BTCUSDT", "btcusdt@kline_1s"),
        ("spot", "kline_1M", "BTCUSDT", "btcusdt@kline_1M"),
        ("spot", "kline_1h@utc", "BTCUSDT", "btcusdt@kline_1h"),
        ("spot", "kline_1h@+08:00", "BTCUSDT", "btcusdt@kline_1h@+08:00"),
        ("spot", "mini-ticker", "BTCUSDT", "btcusdt@miniTicker"),
        ("spot", "mini-ticker@arr", "BTCUSDT", "!miniTicker@arr"),
        ("spot", "ticker", "BTCUSDT", "btcusdt@ticker"),
        ("spot", "rolling-ticker_4h", "BTCUSDT", "btcusdt@ticker_4h"),
        ("spot", "rolling-ticker_4h@arr", "BTCUSDT", "!ticker_4h@arr"),
        ("spot", "book-ticker", "币安人生USDT", "币安人生usdt@bookTicker"),
        ("spot", "avg-price", "BTCUSDT", "btcusdt@avgPrice"),
        ("spot", "partial-depth_20", "BTCUSDT", "btcusdt@depth20@100ms"),
        ("spot", "partial-depth_20@1000ms", "BTCUSDT", "btcusdt@depth20"),
        ("spot", "depth", "BTCUSDT", "btcusdt@depth@100ms"),
        ("spot", "depth@1000ms", "BTCUSDT", "btcusdt@depth"),
        ("spot", "reference-price", "BTCUSDT", "btcusdt@referencePrice"),
        ("usdm", "mark-price", "BTC/USDT:USDT", "btcusdt@markPrice@1s"),
        ("usdm", "mark-price@3s", "BTCUSDT", "btcusdt@markPrice"),
        ("usdm", "mark-price@arr", "BTCUSDT", "!markPrice@arr@1s"),
        ("usdm", "mark-price@arr@3s", "BTCUSDT", "!markPrice@arr"),
        ("usdm", "mark-price@3s@arr", "BTCUSDT", "!markPrice@arr"),
        ("usdm", "continuous-kline_1m", "ETH/USDT:USDT-261225", "ethusdt_current_quarter@continuousKline_1m"),
        ("usdm", "continuous-kline_1m", "XAUUSDT", "xauusdt_tradifi_perpetual@continuousKline_1m"),
        ("usdm", "ticker@arr", "BTCUSDT", "!ticker@arr"),
        ("usdm", "book-ticker@arr", "BTCUSDT", "!bookTicker"),
        ("usdm", "liquidation", "BTCUSDT", "btcusdt@forceOrder"),
        ("usdm", "liquidation@arr", "BTCUSDT", "!forceOrder@arr"),
        ("usdm", "depth", "BTCUSDT", "btcusdt@depth@100ms"),
        ("usdm", "depth@250ms", "BTCUSDT", "btcusdt@depth"),
        ("usdm", "depth@500ms", "BTCUSDT", "btcusdt@depth@500ms"),
        ("usdm", "partial-depth_5@250ms", "BTCUSDT", "btcusdt@depth5"),
        ("usdm", "rpi-depth", "BTCUSDT", "btcusdt@rpiDepth@500ms"),
        ("usdm", "composite-index", "DEFIUSDT", "defiusdt@compositeIndex"),
        ("usdm", "contract-info", "BTCUSDT", "!contractInfo"),
        ("usdm", "asset-index", "BTCUSDT", "!assetIndex@arr"),
        ("usdm", "trading-session", "BTCUSDT", "tradingSession"),
        ("coinm", "index-price", "BTCUSD_PERP", "btcusd@indexPrice@1s"),
        ("coinm", "index-price-kline_1m", "BTC/USD:BTC-261225", "btcusd@indexPriceKline_1m"),
        ("coinm", "mark-price-kline_1m", "BTC/USD:BTC", "btcusd_perp@markPriceKline_1m"),
    ],
)
def test_channel_means_its_stream(market: Market, channel: str, symbol: str, name: str) -> None:
    """The names are those of Binance's documentation; the fastest speed is the default."""
    assert _names(market, [channel], [symbol]) == [name]


@pytest.mark.parametrize(
    ("market", "channel", "message"),
    [
        ("spot", "trades", "spot has no channel 'trades'; did you mean 'trade'?"),
        ("spot", "xyz", "spot has no channel 'xyz'; there are agg-trade, avg-price"),
        ("spot", "mark-price", "spot has no channel 'mark-price'"),
        ("usdm", "block-trade", "usdm has no channel 'block-trade'"),
        ("spot", "Trade", "'Trade' is not a channel; did you mean 'trade'?"),
        ("usdm", "aggTrade", "'aggTrade' is not a channel; did you mean 'agg-trade'?"),
        ("usdm", "!!!", "'!!!' is not a channel; expected such as trade"),
        ("spot", "", "'' is not a channel"),
        ("spot", "kline", "kline wants its interval; there are 1s, 1m"),
        ("spot", "kline_7m", "kline has no interval '7m'; there are 1s, 1m"),
        ("usdm", "kline_1s", "kline has no interval '1s'; there are 1m"),
        ("spot", "trade_1m", "trade takes no option on spot; remove _1m"),
        ("spot", "depth@250ms", "depth has no speed '250ms' on spot; there are 100ms, 1000ms"),
        ("spot", "trade@100ms", "trade has one speed only on spot; remove @100ms"),
        ("spot", "depth@100ms@1000ms", "'depth@100ms@1000ms' names 2 speeds"),
        ("spot", "ticker@arr", "spot has no all-market stream of ticker; remove @arr"),
        ("spot", "partial-depth_7", "partial-depth has no levels '7'; there are 5, 10, 20"),
    ],
)
def test_wrong_channel_says_what_there_is(market: Market, channel: str, message: str) -> None:
    """Names the mend, as configuration errors do."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        catalogue().parse_channel(market, channel)


@settings(deadline=None)
@given(st.sampled_from(MARKETS), st.text(max_size=20))
def test_any_channel_text_is_a_choice_or_an_error(market: Market, text: str) -> None:
    """Nothing but ConfigError is raised, whatever stands in the configuration."""
    try:
        choice = catalogue().parse_channel(market, text)
    except ConfigError:
        return
    assert choice.channel in text


def test_one_stream_is_chosen_once() -> None:
    """Both names of a symbol, a channel twice, and pairs that contracts share."""
    assert _names("spot", ["trade", "trade"], ["BTCUSDT", "BTC/USDT"]) == ["btcusdt@trade"]
    assert _names("coinm", ["index-price"], ["BTCUSD_PERP", "BTCUSD_261225"]) == ["btcusd@indexPrice@1s"]
    assert _names("spot", ["depth", "depth@100ms", "depth@1000ms"], ["BTCUSDT"]) == [
        "btcusdt@depth@100ms", "btcusdt@depth",
    ]  # fmt: skip


def test_all_symbols_are_those_that_trade() -> None:
    """``*`` leaves out what is halted; quote narrows it."""
    assert "YOYOBTC" not in {i.id for i in select(TABLES["spot"], "*", None)}
    assert {i.id for i in select(TABLES["spot"], "*", ["BTC"])} == {"ETHBTC", "BNBBTC"}
    assert {i.id for i in select(TABLES["usdm"], "*", ["USDC"])} == {"BTCUSDC"}
    with pytest.raises(ConfigError, match="no symbol of spot trades against EUR, GBP; check quote"):
        select(TABLES["spot"], "*", ["GBP", "EUR"])


@pytest.mark.parametrize(
    ("symbol", "hint"),
    [("BTCUSD", "did you mean BTCUSDT?"), ("BTC/USTD", "did you mean BTC/USDT?"), ("Q", "'Q'")],
)
def test_unknown_symbol_names_the_nearest(symbol: str, hint: str) -> None:
    """A slip of the finger is told at once."""
    with pytest.raises(ConfigError, match=re.escape(hint)):
        select(TABLES["spot"], [symbol], None)


def test_continuous_candles_are_of_running_contract_types() -> None:
    """A contract that is settling has none."""
    info = json.loads((ROOT / "tests/cases/exchange-info/usdm.json").read_text(encoding="utf-8"))
    for row in info["symbols"]:
        if row["symbol"] == "OMGUSDT":
            row["contractType"] = "PERPETUAL_DELIVERING"
        if row["symbol"] == "IOTAUSDT":
            row["contractType"] = ""
    table = parse_exchange_info("usdm", json.dumps(info).encode())[1]
    symbols = ["BTCUSDT", "IOTAUSDT"]
    chosen = catalogue().choose("usdm", ["continuous-kline_1m"], symbols, None, table)
    assert [c.stream.name for c in chosen] == ["btcusdt_perpetual@continuousKline_1m"]


def _every_choice() -> list[tuple[Market, str]]:
    found: list[tuple[Market, str]] = []
    for (market, name), compiled in sorted(catalogue().channels.items()):
        on = compiled.declaration.markets[market]
        for option in [f"_{v}" for v in on.option.values] if on.option else [""]:
            for speed in [f"@{s}" for s in on.speeds] or [""]:
                found += [(market, f"{name}{option}{speed}")] if on.stream else []
                found += [(market, f"{name}{option}{speed}@arr")] if on.all else []
    return found


@pytest.mark.parametrize("market", MARKETS)
def test_every_stream_is_found_again_by_its_name(market: Market) -> None:
    """Replay knows a stream by its raw records: market, channel, name and symbol give the same stream again."""
    symbol = {"spot": "币安人生USDT", "usdm": "ETHUSDT_261225", "coinm": "BTCUSD_PERP"}[market]
    names = set()
    for on_market, text in _every_choice():
        if on_market == market:
            [chosen] = catalogue().choose(market, [text], [symbol], None, TABLES[market])
            stream = chosen.stream
            again = catalogue().named(market, stream.channel, stream.name, stream.symbol)
            assert again is not None
            assert again.stream == stream
            assert again.choice == chosen.choice
            names.add(stream.name)
    assert len(names) == len([m for m, _ in _every_choice() if m == market])


def test_streams_the_catalogue_does_not_declare_are_not_found() -> None:
    """A renamed channel, a withdrawn option, an endpoint: nothing to derive from."""
    named = catalogue().named
    assert named("spot", "gone", "btcusdt@gone", "BTCUSDT") is None
    assert named("spot", "kline", "btcusdt@kline_7m", "BTCUSDT") is None
    assert named("spot", "ticker", "!ticker@arr", None) is None
    assert named("spot", "trade", "btcusdt@aggTrade", "BTCUSDT") is None
    assert named("usdm", "depth", "btcusdt@depth@1000ms", "BTCUSDT") is None


# Declarations


def test_every_usdm_stream_has_the_path_that_serves_it() -> None:
    """On the wrong path it would be acknowledged and silent: books and raw trades are public, all else is market."""
    paths = {name: catalogue().on_market("usdm", name).path for name in catalogue().names("usdm")}
    public = {"book-ticker", "depth", "partial-depth", "rpi-depth", "trade"}
    assert {n for n, path in paths.items() if path == "public"} == public
    assert {n for n, path in paths.items() if path == "market"} == set(paths) - public
    assert {catalogue().on_market(m, n).path for m, n in catalogue().channels if m != "usdm"} == {""}


def test_every_public_stream_of_binance_has_a_channel() -> None:
    """By the names of Binance's documentation as of November 2026."""
    spot = "aggTrade trade blockTrade kline miniTicker ticker bookTicker avgPrice depth referencePrice"
    futures = "aggTrade trade markPrice kline continuousKline miniTicker ticker bookTicker forceOrder depth"
    streams = {
        "spot": spot.split(),
        "usdm": [
            *futures.split(),
            "rpiDepth",
            "compositeIndex",
            "assetIndex",
            "contractInfo",
            "tradingSession",
        ],
        "coinm": [*futures.split(), "indexPrice", "indexPriceKline", "markPriceKline", "contractInfo"],
    }
    for market, wanted in streams.items():
        patterns = [
            pattern
            for (on_market, _), compiled in catalogue().channels.items()
            if on_market == market
            for on in [compiled.declaration.markets[on_market]]
            for pattern in (on.stream, on.all)
            if pattern is not None
        ]
        found = {re.split(r"[_{@]", p.split("@")[1] if "}@" in p else p.lstrip("!"))[0] for p in patterns}
        assert set(wanted) <= found, market


def test_every_private_event_of_binance_is_declared() -> None:
    """By the names of Binance's documentation as of November 2026; portfolio margin has its own streams."""
    spot = "outboundAccountPosition balanceUpdate executionReport listStatus eventStreamTerminated externalLockUpdate"
    futures = (
        "ORDER_TRADE_UPDATE ALGO_UPDATE ACCOUNT_UPDATE MARGIN_CALL ACCOUNT_CONFIG_UPDATE STRATEGY_UPDATE GRID_UPDATE "
        "listenKeyExpired"
    )
    wanted = {
        "spot": spot.split(),
        "usdm": [*futures.split(), "TRADE_LITE", "CONDITIONAL_ORDER_TRIGGER_REJECT"],
        "coinm": futures.split(),
    }
    for market, names in wanted.items():
        assert set(names) <= {name for on, name in catalogue().accounts.events if on == market}, market


def test_topics_are_named_by_the_contract() -> None:
    """binance.<environment>.<layer>…, or another namespace for replay."""
    names = TopicNames("testnet")
    assert names.raw("usdm", "agg-trade") == "binance.testnet.raw.usdm.agg-trade"
    assert names.unified("bid-ask") == "binance.testnet.unified.bid-ask"
    assert names.state("ticker") == "binance.testnet.state.ticker"
    assert names.of("control", "shards") == "binance.testnet.control.shards"
    assert TopicNames("prod", "mine").of("gaps") == "mine.prod.gaps"


def test_topic_families_keep_what_the_contract_says() -> None:
    """Retention in days and compaction."""
    families = catalogue().topics.families
    days = {
        n: int(f.config["retention.ms"]) // 86_400_000
        for n, f in families.items()
        if "retention.ms" in f.config
    }
    assert days == {
        "raw": 7, "raw.api": 7, "raw.user": 30, "unified": 30, "lifecycle": 30, "gaps": 90,
        "dead-letter": 30, "control.signals": 7,
    }  # fmt: skip
    compacted = {n for n, f in families.items() if f.config["cleanup.policy"] == "compact"}
    assert compacted == {"state", "coverage", "control.checkpoints"}
    assert set(catalogue().topics.state) <= {s for s in schemas() if schemas()[s].unified}
    for structure, channels in catalogue().topics.state.items():
        if "user" in channels:
            assert structure in {s for market in MARKETS for s in catalogue().accounts.structures(market)}
        for channel in set(channels) - {"api", "user"}:
            assert any(
                structure in compiled.structures
                for (_, name), compiled in catalogue().channels.items()
                if name == channel
            ), channel


def _changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Callable[[str], str]
) -> Catalogue:
    for folder in ("avro", "topics"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    target = tmp_path / file
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    target.write_text(change(before), encoding="utf-8")
    monkeypatch.setattr(contracts, "root", lambda: tmp_path)
    return catalogue.__wrapped__()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("trade.yaml", lambda t: t.replace("price: p", "prize: p"), "avro/trade.avsc has no field prize"),
        (
            "trade.yaml",
            lambda t: t.replace("price: p", "price: costs(p)"),
            "trade.price: no conversion 'costs'",
        ),
        ("trade.yaml", lambda t: t.replace("drop:", "drip:"), "unknown field `drip`"),
        (
            "trade.yaml",
            lambda t: t.replace("rule: contiguous", "rule: ascending"),
            "Invalid enum value 'ascending'",
        ),
        ("trade.yaml", lambda t: t.replace("  spot:", "  options:"), "options"),
        ("trade.yaml", lambda t: t + "\n  - {", "while parsing"),
        ("trade.yaml", lambda _: "", "Expected `object`, got `null`"),
        (
            "trade.zz.yaml",
            lambda _: "summary: x\nmarkets:\n  spot: {}\n",
            "trade is declared twice for spot",
        ),
        (
            "partial-depth.spot.yaml",
            lambda t: t.replace("bids: levels(bids)", "bids: bids"),
            "order-book.bids",
        ),
        ("../topics.yaml", lambda t: t.replace("partitions: 1", "partitions: one"), "Expected `int"),
        ("../account/trade-lite.yaml", lambda t: t.replace("event:", "evens:"), "unknown field `evens`"),
        (
            "../account/trade-lite.zz.yaml",
            lambda _: "summary: x\nmarkets: [usdm]\nevent: TRADE_LITE\n",
            "TRADE_LITE is declared twice for usdm",
        ),
    ],
)
def test_wrong_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: Callable[[str], str], message: str
) -> None:
    """The bridge refuses to start, and says where the mistake is."""
    where = f"topics/streams/{file}".replace("streams/../", "")
    with pytest.raises(ContractError, match=f"{re.escape(where)}: .*{re.escape(message)}") as raised:
        _changed(tmp_path, monkeypatch, f"topics/streams/{file}", change)
    assert "\n\n" not in str(raised.value)


# Pages


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_page_is_current(name: str) -> None:
    """The tables are those of the files now; make them anew with ``python -m bridge.reference``."""
    page = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert page == reference.current(page)
    assert page.count("<!-- table:") == page.count("<!-- end -->") > 0


def test_reference_pages_leave_nothing_out() -> None:
    """Every structure, field, channel, stream name and family of topics stands there."""
    records, topics = ((reference.FOLDER / name).read_text(encoding="utf-8") for name in reference.PAGES)
    for structure, schema in schemas().items():
        part = records.partition(f"<!-- table: fields {structure} -->")[2].partition("<!-- end -->")[0]
        for field in schema.fields:
            assert f"| `{field.name}` |" in part or (schema.unified and f"| `{field.name}` |" in records), (
                field.name
            )
        if schema.unified and structure != "market":
            assert f"<!-- table: sources {structure} -->" in records
    for market, name in catalogue().channels:
        part = topics.partition(f"<!-- table: channels {market} -->")[2].partition("<!-- end -->")[0]
        on = catalogue().on_market(market, name)
        assert re.search(rf"^\| `{name}(_<\w+>)?` \|", part, re.MULTILINE), name
        assert all(f"`{pattern}`" in part for pattern in (on.stream, on.all) if pattern is not None)
        if not catalogue().channel(market, name).structures:
            assert f"`{name}`" in records.partition("## Channels that are kept raw")[2].partition("\n## ")[0]
    accounts = catalogue().accounts
    for _, name in [*accounts.events, *accounts.answers]:
        assert f"`{name}`" in topics, name
    for family in catalogue().topics.families:
        assert family.split(".")[0] in topics


def test_unknown_table_is_an_error() -> None:
    """A slip in a page is told."""
    with pytest.raises(ContractError, match="no table 'fieldz trade'"):
        reference.current("<!-- table: fieldz trade -->\n<!-- end -->")


@pytest.mark.parametrize(
    "type_",
    [Channel, OnMarket, Sequence, Backfill, Record, Topic, AccountSource, AccountEndpoint, AccountRecord],
)
def test_every_key_of_the_declarations_is_explained(type_: type) -> None:
    """topics/README.md names each key and each sequence rule."""
    page = (ROOT / "topics/README.md").read_text(encoding="utf-8")
    for key in type_.__struct_fields__:
        assert f"`{key}`" in page, key
    for rule in get_args(Sequence.__annotations__["rule"]):
        assert f"`{rule}`" in page, rule


@pytest.mark.parametrize(
    ("channel", "kept"), [("ticker", True), ("mini-ticker", True), ("rolling-ticker_1h", False)]
)
def test_a_state_topic_is_for_channels_that_write_it(channel: str, kept: bool) -> None:
    """What no enabled channel would write to is not created."""
    environ = {
        "BRIDGE_ENVIRONMENT": "testnet",
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": "a:1",
        "BRIDGE_SUBSCRIPTIONS": f"[{{market: spot, symbols: '*', channels: [{channel}]}}]",
    }
    names = {spec.name for spec in topic_specs(catalogue(), load(None, environ))}
    assert "binance.testnet.unified.ticker" in names
    assert ("binance.testnet.state.ticker" in names) == kept
