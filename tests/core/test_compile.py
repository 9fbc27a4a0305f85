"""The compiled core: what it encodes is what the message says, whatever the message; and what it refuses."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
import yaml
from fastavro import schemaless_writer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.catalogue import CONTROL, UNKNOWN, catalogue
from bridge.core.compile import CompiledChannel, compile_channel
from bridge.core.conversions import CONVERSIONS
from bridge.core.declaration import Channel, OnMarket, Record, Sequence
from bridge.core.derive import Writer, envelope
from bridge.core.event_time import event_milliseconds, record_milliseconds
from bridge.core.instruments import Instrument, Instruments, parse_exchange_info
from bridge.core.levels import LevelsReader
from bridge.core.varint import long_bytes
from bridge.errors import ContractError, UnexpectedMessage
from bridge.model import Header, Leg, Market, StreamState
from bridge.schema import schemas
from tests.derived import KeepingPublisher, pipeline, read

if TYPE_CHECKING:
    from collections import abc

CASES = Path(__file__).parents[1] / "cases"
UNIFIED = sorted((market, name) for (market, name), c in catalogue().channels.items() if c.structures)
WRITER = Writer("live", 0)
RECEIVED_AT = 1_795_305_700_000_000
ONE = 10**18
moderate = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def _info(market: Market) -> bytes:
    return (CASES / "exchange-info" / f"{market}.json").read_bytes()


@cache
def _instruments(market: Market) -> Instruments:
    return parse_exchange_info(market, _info(market))[1]


# Messages, made from the wire types that the declaration reads

exact = st.builds(
    lambda whole, fraction: f"{whole}" + (f".{fraction}" if fraction else ""),
    st.integers(0, 10**20 - 1),
    st.text("0123456789", max_size=17),
)
signed = st.one_of(exact, exact.map(lambda text: f"-{text}"))
priced = st.builds(
    lambda whole, fraction: f"{whole}" + (f".{fraction}" if fraction else ""),
    st.one_of(st.just(0), st.integers(1, 10**6)),
    st.text("0123456789", max_size=8),
)
times = st.one_of(st.integers(1, 4_102_444_800_000), st.integers(10**14, 4_102_444_800_000_000))
ids = st.integers(-1, 2**62)


@dataclass(frozen=True)
class Reading:
    """What the declaration says of a wire key.

    Attributes:
        times: keys read as a time.
        names: keys read as text that is no number.
        sides: keys read as BUY or SELL.
        counted: keys that a conversion computes with.
    """

    times: frozenset[str]
    names: frozenset[str]
    sides: frozenset[str]
    counted: frozenset[str]


def _maps(compiled: CompiledChannel) -> list[dict[str, str]]:
    records = compiled.declaration.records
    return [
        {k: v for k, v in {**r.fields, **getattr(r, compiled.market)}.items() if v is not None}
        for r in records
    ]


def _call(expression: str) -> tuple[str, list[str]]:
    name, _, rest = expression.partition("(")
    return name, [k.strip() for k in rest.rstrip(")").split(",") if k.strip()]


def _reading(compiled: CompiledChannel) -> Reading:
    times_, names, sides, counted = set(), set(), set(), set()
    if compiled.declaration.event_time:
        times_.add(compiled.declaration.event_time)
    for record, fields in zip(compiled.declaration.records, _maps(compiled), strict=True):
        kinds = {f.name: f.kind for f in schemas()[record.structure].fields}
        for field, expression in fields.items():
            name, keys = _call(expression)
            if "(" not in expression:
                if kinds[field] == "timestamp":
                    times_.add(expression)
                elif kinds[field] == "string":
                    names.add(expression)
            elif name == "known_time":
                times_.update(keys)
            elif name == "lower":
                sides.update(keys)
            elif name in CONVERSIONS:
                counted.update(keys)
    return Reading(frozenset(times_), frozenset(names), frozenset(sides), frozenset(counted))


def _messages(compiled: CompiledChannel, symbol: str) -> st.SearchStrategy[dict[str, Any]]:
    frame = compiled.decode.__self__.type  # type: ignore[attr-defined]
    [data] = msgspec.structs.fields(frame)
    return _struct(data.type, "", compiled, _reading(compiled), symbol)


def _struct(
    type_: Any, path: str, compiled: CompiledChannel, reading: Reading, symbol: str
) -> st.SearchStrategy[dict[str, Any]]:
    required, optional = {}, {}
    for field in msgspec.structs.fields(type_):
        key = f"{path}{field.encode_name}"
        types = [t for t in get_args(field.type) if t is not NoneType] or [field.type]
        value = _value(
            types[0] if NoneType in get_args(field.type) else field.type, key, compiled, reading, symbol
        )
        if field.required:
            required[field.encode_name] = value
        else:
            optional[field.encode_name] = st.one_of(st.none(), value) if field.type is not int else value
    return st.fixed_dictionaries(required, optional=optional)


def _value(
    type_: Any, key: str, compiled: CompiledChannel, reading: Reading, symbol: str
) -> st.SearchStrategy[Any]:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _struct(type_, f"{key}.", compiled, reading, symbol)
    if type_ is bool:
        return st.booleans()
    if type_ is int:
        return times if key in reading.times else ids
    if type_ is not str:
        assert type_ is msgspec.Raw
        return st.lists(st.tuples(exact, exact).map(list), max_size=4)
    known: dict[str | None, st.SearchStrategy[Any]] = {
        **dict.fromkeys(reading.counted, priced),
        **dict.fromkeys(reading.names, st.text(st.characters(codec="utf-8"), max_size=8)),
        **dict.fromkeys(reading.sides, st.sampled_from(["BUY", "SELL"])),
        **dict.fromkeys(compiled.declaration.drop, st.just("MARKET")),
        compiled.declaration.symbol: st.just(symbol),
    }
    return known.get(key, signed)


# What the fields have to say of it, in fractions

Exact = Fraction | None


def _truncated(value: Exact) -> Exact:
    if value is None:
        return None
    scaled = abs(value) * ONE
    return Fraction(scaled.numerator // scaled.denominator, ONE) * (-1 if value < 0 else 1)


def _ratio(a: Exact, b: Exact) -> Exact:
    return _truncated(a / b) if a is not None and b else None


def _percent(first: Fraction, last: Fraction) -> Exact:
    ratio = _ratio(last - first, first)
    return ratio * 100 if first and last and ratio is not None else None


def _conversion(name: str, arguments: list[Any], instrument: Instrument) -> Any:
    """Return what a conversion has to give, by the rules of docs/reference/records.md."""
    size = None if instrument.contract_size is None else Fraction(instrument.contract_size, ONE)
    if name in {"text", "lower", "known", "known_time", "taker_side"}:
        [value] = arguments
        return {
            "text": lambda: str(value),
            "lower": lambda: str(value).lower(),
            "known": lambda: None if value is None or value < 0 else value,
            "known_time": lambda: _instant(value) if value and value > 0 else None,
            "taker_side": lambda: "sell" if value else "buy",
        }[name]()
    if name == "nonzero":
        return Decimal(arguments[0]) or None if arguments[0] else None
    numbers = [Fraction(a or 0) for a in arguments]
    first, second = (*numbers, Fraction(0), Fraction(0))[:2]
    value = None if size is None else first * size
    inverse = instrument.inverse
    tick = 10**instrument.price_decimals
    known = bool(first and second)
    return {
        "contract_size": lambda: size,
        "contracts_value": lambda: value,
        "cost": lambda: _ratio(second * (size or 0), first) if inverse else _truncated(first * second),
        "base_value": lambda: _ratio(value, second) if inverse else value,
        "quote_value": lambda: value if inverse else _truncated((value or 0) * second),
        "vwap": lambda: _ratio(first, second) or None,
        "inverse_vwap": lambda: _ratio(value, second) or None,
        "change": lambda: second - first if known else None,
        "percentage": lambda: _percent(first, second),
        "given_percentage": lambda: first or _percent(second, Fraction(arguments[2])),
        "average": lambda: Fraction(int((first + second) / 2 * tick), tick) if known else None,
    }[name]()


def _instant(time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time * 1000 if time < 10**14 else time)


def _at(message: dict[str, Any], key: str) -> Any:
    value: Any = message
    for part in key.split("."):
        value = value.get(part)
    return value


def _wanted(expression: str, kind: str, message: dict[str, Any], instrument: Instrument) -> Any:
    """Return what a field has to hold."""
    if expression.startswith("="):
        return expression[1:]
    name, keys = _call(expression)
    if name == "levels":
        return [{"price": Decimal(p), "amount": Decimal(q)} for p, q in _at(message, keys[0])]
    if "(" in expression:
        return _conversion(name, [_at(message, k) for k in keys], instrument)
    value = _at(message, expression)
    if value is None or (kind == "decimal" and value == ""):
        return None
    return _instant(value) if kind == "timestamp" else Decimal(value) if kind == "decimal" else value


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Fraction):
        return isinstance(got, Decimal) and Fraction(got) == wanted
    return bool(got == wanted)


def _chosen(compiled: CompiledChannel) -> tuple[Instrument, tuple[bytes, ...]]:
    table = _instruments(compiled.market)
    instrument = table.get("BTCUSD_PERP" if compiled.market == "coinm" else "BTCUSDT")
    on = compiled.declaration.markets[compiled.market]
    text = compiled.channel + (f"_{on.option.values[0]}" if on.option else "") + ("" if on.stream else "@arr")
    choice = catalogue().parse_channel(compiled.market, text)
    return instrument, catalogue().constants(compiled, choice)


def _derived(
    compiled: CompiledChannel,
    message: Any,
    instrument: Instrument,
    *,
    prefixes: abc.Sequence[bytes],
    stamp: bytes = b"",
    constants: abc.Sequence[bytes] = (),
) -> list[tuple[int, int, bytes]]:
    """Return the records of a message: which of the declared ones, its Kafka time, its value."""
    queued: list[tuple[int, int, bytes]] = []

    def lane(index: int) -> abc.Callable[[int, bytes, bytes, tuple[Header, ...]], None]:
        return lambda time, _key, value, _headers: queued.append((index, time, value))

    publish = compiled.bind(
        stream="x", symbol=compiled.symbol(message) or "", instrument=instrument, constants=constants,
        prefixes=prefixes, lanes=[lane(index) for index in range(len(prefixes))],
        sides=[LevelsReader().encoded for _ in range(compiled.sides)], key=b"", headers=(),
    )  # fmt: skip
    assert publish(message, stamp, RECEIVED_AT // 1000) is bool(queued)
    return queued


@pytest.mark.parametrize(("market", "name"), UNIFIED)
@moderate
@given(data=st.data())
def test_records_say_what_the_message_says(market: Market, name: str, data: st.DataObject) -> None:
    """Every field, read by fastavro, is the message's; and fastavro writes the same bytes, but for levels."""
    compiled = catalogue().channel(market, name)
    instrument, constants = _chosen(compiled)
    message = data.draw(_messages(compiled, instrument.id))
    decoded = compiled.decode(json.dumps({"data": message, "stream": "x"}).encode()).data
    prefixes = tuple(
        schemas()[s].header + envelope(schemas()[s], instrument, name, WRITER, 7) for s in compiled.structures
    )
    stamp = long_bytes(3) + long_bytes(RECEIVED_AT)
    derived = _derived(compiled, decoded, instrument, prefixes=prefixes, stamp=stamp, constants=constants)

    maps = _maps(compiled)
    due = [
        n
        for n, r in enumerate(compiled.declaration.records)
        if r.when is None or _at(message, r.when) is not None
    ]
    assert [index for index, _, _ in derived] == due
    for index, time, value in derived:
        structure, record = read(value)
        schema = schemas()[structure]
        assert structure == compiled.structures[index]
        declared = compiled.declaration.records[index]
        keys = (declared.time or maps[index].get("timestamp") or "").split(" | ")
        told = next((at for key in keys if key and (at := _at(message, key))), None)
        assert time == record_milliseconds(event_milliseconds(told), RECEIVED_AT)
        for field in schema.fields:
            if (expression := maps[index].get(field.name)) is not None:
                if expression in {"option()", "zone()"}:
                    continue  # of the stream, not of the message: golden cases have them
                wanted = _wanted(expression, field.kind, message, instrument)
                assert _same(record[field.name], wanted), (field.name, record[field.name], wanted)
        out = io.BytesIO()
        schemaless_writer(out, schema.parsed, record, strict=True)
        if structure != "order-book":  # levels may have leading zeros, which fastavro does not write
            assert schema.header + out.getvalue() == value


# Whatever comes as a frame

STREAMS = {
    "spot": ("trade", "depth", "kline_1m", "mini-ticker@arr", "book-ticker", "partial-depth_5", "avg-price"),
    "usdm": ("agg-trade", "depth", "liquidation@arr", "mark-price@arr", "ticker", "contract-info"),
    "coinm": ("agg-trade", "index-price", "mini-ticker", "liquidation", "continuous-kline_1m"),
}
PAYLOADS = {
    case["stream"]: case["payload"]
    for case in (yaml.safe_load(p.read_text(encoding="utf-8")) for p in sorted(CASES.rglob("*.yaml")))
}
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6), exact, times,
        st.sampled_from(["BTCUSDT", "BTCUSD_PERP", "", "1e400", "NaN", "-1", "BUY", "NA"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("eEsaptqTmUubBkxiolhcvVfLnSXr"), inner, max_size=10),
    ),
    max_leaves=20,
)  # fmt: skip


@st.composite
def _frames(draw: st.DrawFn, names: list[str]) -> bytes:
    name = draw(st.sampled_from(names))
    whole = f'{{"stream":"{name}","data":{PAYLOADS.get(name, "{}")}}}'.encode()
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.binary(max_size=60))
    if kind == 1:
        return json.dumps(draw(json_values), ensure_ascii=draw(st.booleans())).encode(
            "utf-8", "surrogatepass"
        )
    if kind == 2:
        return f'{{"stream":"{name}","data":{json.dumps(draw(json_values))}}}'.encode()
    if kind == 3:  # some bytes changed, lost or doubled
        at = draw(st.integers(0, len(whole)))
        return whole[:at] + draw(st.binary(max_size=3)) + whole[at + draw(st.integers(0, 5)) :]
    message = json.loads(whole)
    target = message["data"][0] if isinstance(message["data"], list) else message["data"]
    target[draw(st.sampled_from([*target, "new"]))] = draw(json_values)
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_frame_is_kept_and_nothing_raises(market: Market, data: st.DataObject) -> None:
    """One raw record has the exact bytes, whatever they are; what is not understood is a dead letter too."""
    symbol = "BTCUSD_PERP" if market == "coinm" else "BTCUSDT"
    publisher = KeepingPublisher()
    pipe = pipeline(publisher)
    pipe.exchange_info(market, RECEIVED_AT, _info(market), 0)
    chosen = catalogue().choose(market, STREAMS[market], [symbol], None, pipe.instruments[market])
    leg = Leg(1, market, {c.stream.name.encode(): StreamState(c.stream) for c in chosen})
    for one in chosen:
        pipe.add(one)
    publisher.kept.clear()
    frames = data.draw(st.lists(_frames([c.stream.name for c in chosen]), min_size=1, max_size=3))

    pipe.receive(leg, RECEIVED_AT, frames)
    pipe.drain()

    raw = [k.record for k in publisher.kept if ".raw." in k.topic]
    assert [r["payload"] for r in raw] == frames
    assert [r["connectionSequence"] for r in raw] == list(range(len(frames)))
    derived = {k.record["connectionSequence"] for k in publisher.kept if ".unified." in k.topic}
    letters = {k.record["connectionSequence"]: k.record for k in publisher.of("dead-letter")}
    for number, (frame, record) in enumerate(zip(frames, raw, strict=True)):
        if number in letters:
            assert letters[number]["payload"] == frame
            assert letters[number]["error"]
        else:
            # What is no JSON can't have been understood; strings that nobody reads are not looked into.
            json.loads(frame.decode("utf-8", "replace"), strict=False)
            assert record["channel"] != UNKNOWN
        assert record["channel"] != CONTROL or number not in derived
    assert pipe.counts.dead_letters == len(publisher.of("dead-letter"))


@settings(max_examples=40, deadline=None)
@example("BTCUSDT\\ud800")
@given(st.text(max_size=12))
def test_odd_symbols_in_an_array_make_records_or_dead_letters(symbol: str) -> None:
    """A row of a symbol nobody knows is a record of that name."""
    publisher = KeepingPublisher()
    pipe = pipeline(publisher)
    [chosen] = catalogue().choose("spot", ["mini-ticker@arr"], [], None, Instruments("spot", ()))
    pipe.add(chosen)
    row = {
        "e": "24hrMiniTicker",
        "E": 1,
        "s": symbol,
        "c": "1",
        "o": "1",
        "h": "1",
        "l": "1",
        "v": "1",
        "q": "1",
    }
    frame = json.dumps({"stream": "!miniTicker@arr", "data": [row]}).encode()
    leg = Leg(1, "spot", {b"!miniTicker@arr": StreamState(chosen.stream)})

    pipe.receive(leg, RECEIVED_AT, [frame])

    raw, *rest = publisher.kept
    assert raw.record["payload"] == frame
    [record] = rest
    assert record.topic.endswith("dead-letter") or record.record["symbol"] == symbol


# Declarations that do not fit

TRADE = Record(
    structure="trade",
    fields={"timestamp": "T", "price": "p", "amount": "q", "side": "taker_side(m)", "cost": "cost(p, q)"},
)
MARKET = OnMarket(stream="{symbol}@trade")


def _declared(record: Record, **changes: Any) -> Channel:
    given_ = {"summary": "", "markets": {"spot": MARKET}, "records": (record,), **changes}
    return Channel(**given_)


def _with(**fields: str) -> Record:
    return replace_fields(TRADE, {**TRADE.fields, **fields})


def replace_fields(record: Record, fields: dict[str, str]) -> Record:
    """Return the record with another field map."""
    return msgspec.structs.replace(record, fields=fields)


UNFIT: list[tuple[str, Channel, str]] = [
    ("unknown structure", _declared(Record(structure="trades", fields={})), "no unified structure 'trades'"),
    ("not a unified structure", _declared(Record(structure="raw", fields={})), "no unified structure 'raw'"),
    ("unknown field", _declared(_with(prize="p")), r"avro/trade.avsc has no field prize"),
    ("field of the envelope", _declared(_with(symbol="s")), r"avro/trade.avsc has no field symbol"),
    (
        "missing source",
        _declared(replace_fields(TRADE, {"timestamp": "T", "price": "p"})),
        r"trade.amount: avro/trade.avsc wants amount; the declaration has no source for it",
    ),
    ("unknown conversion", _declared(_with(cost="costs(p, q)")), r"trade.cost: no conversion 'costs'"),
    ("too few keys", _declared(_with(cost="cost(p)")), r"trade.cost: cost\(\) wants 2 keys, not p"),
    ("too many keys", _declared(_with(id="text(a, b)")), r"trade.id: text\(\) wants 1 keys, not a, b"),
    ("two wire types", _declared(_with(id="text(p)")), r"trade.id|trade.price: p is read both as"),
    ("leaf and branch", _declared(_with(amount="p.q")), r"trade.amount: p.q and p can't both be values"),
    ("text for a number", _declared(_with(cost="taker_side(m)")), r"trade.cost: taker_side\(\) gives str"),
    ("number for text", _declared(_with(id="cost(p, q)")), r"trade.id: cost\(\) gives int"),
    (
        "null where it may not be",
        _declared(_with(price="change(o, c)")),
        r"trade.price: change\(\) may give None",
    ),
    ("levels for a decimal", _declared(_with(price="levels(b)")), r"trade.price: no conversion 'levels'"),
    (
        "nonzero for what is required",
        _declared(_with(price="nonzero(p)")),
        r"trade.price: no conversion 'nonzero'",
    ),
    ("unknown symbol of an enum", _declared(_with(side="=short")), r"trade.side: side has no symbol 'short'"),
    ("constant decimal", _declared(_with(price="=1")), r"trade.price: price is a decimal"),
    ("key for an array", _declared(_with(fees="x")), r"trade.fees: fees is a array"),
    (
        "rule without its key",
        _declared(TRADE, sequence=Sequence(rule="contiguous")),
        "the sequence rule wants id",
    ),
    (
        "linked without last",
        _declared(TRADE, sequence=Sequence(rule="linked", first="U")),
        "the sequence rule wants last",
    ),
]


@pytest.mark.parametrize(("declaration", "message"), [u[1:] for u in UNFIT], ids=[u[0] for u in UNFIT])
def test_declaration_that_does_not_fit_says_where(declaration: Channel, message: str) -> None:
    """The error names the file and the field."""
    with pytest.raises(ContractError, match=rf"topics/streams/my-trade\.yaml: .*{message}"):
        compile_channel("trade", declaration, "spot", schemas(), "my-trade")


def test_fitting_declaration_compiles() -> None:
    """The table above changes one thing each in a declaration that fits."""
    compiled = compile_channel("trade", _declared(TRADE), "spot", schemas())
    assert compiled.structures == ("trade",)
    assert compiled.link is None


def test_value_outside_an_enum_is_unexpected() -> None:
    """A side the schema does not know is no reason to stop, and says what it is."""
    compiled = catalogue().channel("usdm", "liquidation")
    payload = json.loads(PAYLOADS["btcusdt@forceOrder"])
    payload["o"]["S"] = "BOTH"
    instrument, _ = _chosen(compiled)
    message = compiled.decode(json.dumps({"data": payload}).encode()).data
    with pytest.raises(UnexpectedMessage, match="'both' is none of buy, sell"):
        _derived(compiled, message, instrument, prefixes=[b""])


def test_zero_is_null_where_it_means_none() -> None:
    """CCXT's omit_zero for prices, and empty text for any number; a volume of zero is a volume."""
    compiled = catalogue().channel("spot", "book-ticker")
    instrument, _ = _chosen(compiled)
    message = compiled.decode(
        b'{"data":{"u":1,"s":"BTCUSDT","b":"0.00000000","B":"0.00000000","a":"","A":""}}'
    ).data
    schema = schemas()["bid-ask"]
    prefix = schema.header + envelope(schema, instrument, "book-ticker", WRITER, 1)
    stamp = long_bytes(0) + long_bytes(0)
    [(_, _, value)] = _derived(compiled, message, instrument, prefixes=[prefix], stamp=stamp)
    found = read(value)[1]
    assert (found["bid"], found["bidVolume"], found["ask"], found["askVolume"]) == (None, 0, None, None)


def test_unknown_contract_size_leaves_values_out() -> None:
    """Before exchangeInfo lists a contract, nothing is computed with a guessed size."""
    compiled = catalogue().channel("coinm", "agg-trade")
    known, _ = _chosen(compiled)
    message = compiled.decode(f'{{"data":{PAYLOADS["btcusd_perp@aggTrade"]}}}'.encode()).data
    schema = schemas()["trade"]
    stranger = replace(known, contract_size=None)
    prefix = schema.header + envelope(schema, stranger, "agg-trade", WRITER, 1)
    stamp = long_bytes(0) + long_bytes(0)
    [(_, _, value)] = _derived(compiled, message, stranger, prefixes=[prefix], stamp=stamp)
    assert read(value)[1]["cost"] is None
