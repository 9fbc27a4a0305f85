"""Decoding, against fastavro as an independent reader and writer."""

from __future__ import annotations

import contextlib
import decimal
import io
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.schema import MARKER
from bridge.core.wire import Decoder
from bridge.errors import DecodeError
from bridge.schema import schemas, structure
from bridge.sdk.records import CLASSES, TYPES, Level
from tests.sdk.values import values

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STRUCTURES = sorted(schemas())
DICTS = Decoder(schemas().values())
TYPED = Decoder(schemas().values(), TYPES)


@pytest.fixture(autouse=True, scope="module")
def precise() -> Any:
    """Let fastavro and the tests count with more digits than Python's default."""
    with decimal.localcontext(prec=60):
        yield


def written(name: str, value: dict[str, Any]) -> bytes:
    """Return a record written by fastavro."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schemas()[name].parsed, value)
    return schemas()[name].header + body.getvalue()


def plain(value: Any) -> Any:
    """Undo what differs by intent: fastavro reads times as datetimes and arrays as lists."""
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("name", STRUCTURES)
def test_reads_what_fastavro_reads(name):
    """Of any valid record the compiled decoder gives what fastavro's reader gives."""

    @settings(max_examples=20, deadline=None)
    @given(st.lists(values(name), min_size=1, max_size=3))
    def check(several):
        for value in several:
            data = written(name, value)
            expected = fastavro.schemaless_reader(io.BytesIO(data[10:]), schemas()[name].parsed)
            assert plain(DICTS.decode(data)) == plain(expected) == plain(value)

    check()


@pytest.mark.parametrize("name", STRUCTURES)
def test_decodes_into_the_class_of_the_structure(name):
    """The same bytes become the structure's class, with each field in its attribute."""

    @settings(max_examples=20, deadline=None)
    @given(values(name))
    def check(value):
        record = TYPED.decode(written(name, value))
        assert type(record) is CLASSES[name]
        for field in schemas()[name].fields:
            if field.kind not in {"record", "array"}:
                assert getattr(record, field.name) == value[field.name]

    check()


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_record_that_is_cut_or_has_more_is_refused(name):
    """Each prefix of a record, and a record with bytes behind it, is a DecodeError."""

    @settings(max_examples=6, deadline=None)
    @given(values(name), st.binary(min_size=1, max_size=3))
    def check(value, more):
        data = written(name, value)
        TYPED.decode(data)
        for end in range(len(data)):
            with pytest.raises(DecodeError):
                TYPED.decode(data[:end])
        with pytest.raises(DecodeError, match="follow it"):
            TYPED.decode(data + more)

    check()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(STRUCTURES), st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_decode_error(name, data):
    """Whatever follows a known header, and whatever stands alone, is a record or a DecodeError."""
    for value in (data, schemas()[name].header + data):
        with contextlib.suppress(DecodeError):
            TYPED.decode(value)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_changed_byte_raises_nothing_but_decode_error(data):
    """A record with a byte changed is another record or a DecodeError."""
    name = data.draw(st.sampled_from(STRUCTURES))
    value = bytearray(written(name, data.draw(values(name))))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        TYPED.decode(bytes(value))


@settings(max_examples=20, deadline=None)
@given(values("order-book"), st.integers(1, 2**40))
def test_array_blocks_that_say_their_size_are_read(value, size):
    """An array written in blocks of negative count and size (as other writers do) is read the same."""
    value = {**value, "bids": [], "asks": [{"price": decimal.Decimal(2), "amount": decimal.Decimal(1)}]}
    marks = {"firstSequence": None, "previousSequence": None, "depth": None, "transactionTime": None}
    whole = written("order-book", value | marks)
    two, one = (fastavro_decimal(n) for n in (2, 1))
    plain_block = b"\x02" + two + one + b"\x00" + b"\x00" * 4
    assert whole.endswith(plain_block)
    sized = whole.removesuffix(plain_block) + b"\x01" + zigzag(size) + plain_block[1:]
    assert TYPED.decode(sized) == TYPED.decode(whole)


_numbers = st.one_of(
    st.integers(0, 10**19),
    st.integers(0, 10**18).map(lambda number: number * 10**10),  # of eight decimals, as the exchange has them
    st.sampled_from(
        [
            *(0, 8, 0x1010, 0x10_1010_1010, 0x0808_0808_0808_0808, 10**10, -(10**10), -1, 2**63 * 10**10),
            *((2**64 - 1) * 10**10, 2**64 * 10**10, (2**64 + 1) * 10**10, 10**38 - 1, 10**38 - 10**10),
        ]
    ),
)
_rows = st.lists(st.tuples(_numbers, _numbers), max_size=8)


@settings(max_examples=300, deadline=None)
@given(values("order-book"), _rows, _rows, st.sampled_from([1, 1, 1, 20]))
def test_levels_of_one_length_are_read_as_those_of_many(value, bids, asks, times):
    """Written as short as may be, as fastavro does, or all with the length of the largest: the same numbers.

    Some of them look like the length of what follows, some have more decimals or digits than the quick way takes.
    """
    sides = [rows * times for rows in (bids, asks)]
    exact = decimal.Context(prec=38)
    levels = [tuple(Level(*(Decimal(n).scaleb(-18, exact) for n in row)) for row in rows) for rows in sides]
    marks = {"firstSequence": None, "previousSequence": None, "depth": None, "transactionTime": None}
    shown = [[{"price": one.price, "amount": one.amount} for one in side] for side in levels]
    whole = TYPED.decode(written("order-book", {**value, **marks, "bids": shown[0], "asks": shown[1]}))
    assert [whole.bids, whole.asks] == levels
    nothing = written("order-book", {**value, **marks, "bids": [], "asks": []})
    head, tail = nothing[: -len(b"\x00" * 6)], b"\x00" * 4
    alike = head + b"".join(of_one_length([n for row in rows for n in row]) for rows in sides) + tail
    read = TYPED.decode(alike)
    assert [read.bids, read.asks] == levels
    assert str(read) == str(whole)  # not one zero more behind the point
    for end in range(len(head), len(alike), times):
        with pytest.raises(DecodeError):
            TYPED.decode(alike[:end])


NO_LEVELS = {
    "symbol": "BTC/USDT", "market": "spot", "exchangeSymbol": "BTCUSDT", "channel": "depth", "origin": "live",
    "writerEpoch": 1, "connectionId": 1, "connectionSequence": 1, "receivedAt": 1, "sequence": None,
    "timestamp": None, "type": "delta", "bids": [], "asks": [], "firstSequence": None, "previousSequence": None,
    "depth": None, "transactionTime": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "numbers",
    [
        [2**64 * 10**10, 10**10],  # too long for the quick way, which would see its lowest bits
        [
            1,
            10**16 + -(256**8) % 10**10,
        ],  # of 7 bytes each; side by side a multiple of 10**10, though neither is
        [10**16 + 1, 10**16 + -(256**8) % 10**10],
        [-(10**10), 10**10],
    ],
)
def test_levels_that_look_as_if_they_could_be_read_at_once(numbers):
    """Each number is exact all the same."""
    head = written("order-book", NO_LEVELS)[: -len(b"\x00" * 6)]
    read = TYPED.decode(head + of_one_length(numbers) + b"\x00" + b"\x00" * 4)
    assert read.bids == (tuple(Decimal(n).scaleb(-18, decimal.Context(prec=38)) for n in numbers),)


def of_one_length(numbers: list[int]) -> bytes:
    """Return an array of levels in which all numbers have the length of the longest."""
    if not numbers:
        return b"\x00"
    size = max((max(n, ~n).bit_length() + 8) // 8 for n in numbers)
    each = (bytes((2 * size,)) + n.to_bytes(size, "big", signed=True) for n in numbers)
    return zigzag(len(numbers) // 2) + b"".join(each) + b"\x00"


def fastavro_decimal(number: int) -> bytes:
    """Return a decimal written by fastavro."""
    body = io.BytesIO()
    type_ = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
    fastavro.schemaless_writer(body, type_, decimal.Decimal(number))
    return body.getvalue()


def zigzag(number: int) -> bytes:
    """Return a long written by fastavro."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, "long", number)
    return body.getvalue()


def test_decimals_come_without_trailing_zeros():
    """A decimal of scale 18 shows no more digits than it has."""
    for text in (
        "84211.37",
        "0",
        "-0.000000000000000001",
        "80000",
        "99999999999999999999.999999999999999999",
    ):
        assert str(TYPED.decode(liquidation(text)).price) in {text, f"{decimal.Decimal(text):f}", "-1E-18"}
        assert f"{TYPED.decode(liquidation(text)).price:f}" == text


def liquidation(price: str) -> bytes:
    """Return a liquidation at ``price``, written by fastavro."""
    schema = structure("liquidation")
    value = {f.name: {"decimal": decimal.Decimal(0), "string": ""}.get(f.kind, 0) for f in schema.fields}
    value |= {f.name: f.symbols[0] for f in schema.fields if f.symbols} | {"price": decimal.Decimal(price)}
    return written("liquidation", value | {f.name: None for f in schema.fields if f.nullable})


def test_the_confluent_format_is_read_by_the_ids_that_are_given():
    """Magic byte 0 and a schema id lead to the schema the mapping names."""
    data = liquidation("1")
    framed = b"\x00" + struct.pack(">I", 77) + data[10:]
    with_registry = Decoder(schemas().values(), TYPES, {77: structure("liquidation")})
    assert with_registry.decode(framed) == TYPED.decode(data)
    assert with_registry.identify(framed) == (structure("liquidation"), 5)
    assert with_registry.decode(data) == TYPED.decode(data)


@pytest.mark.parametrize(
    ("value", "ids", "message"),
    [
        (b"", None, "begins with nothing"),
        (b"\x00\x00", None, "neither Avro single-object"),
        (b"\x00\x00\x00\x00\x07abc", None, "schema id 7 of a schema registry; none is configured"),
        (b"\x00\x00\x00\x00\x07abc", {}, "id 7 is none of this version's schemas"),
        (MARKER + b"\x01" * 8, None, "fingerprint 0101010101010101"),
        (MARKER, None, r"fingerprint \(missing\)"),
        (b'{"e":"trade"}', None, "begins with 7b22"),
    ],
)
def test_an_unknown_framing_says_what_it_is(value, ids, message):
    """What can't be identified is refused with what was found."""
    with pytest.raises(DecodeError, match=message):
        Decoder(schemas().values(), TYPES, ids).decode(value)
