"""Levels read and written all at once say what they say one by one."""

from __future__ import annotations

import io
import json
from decimal import Context, Decimal
from typing import Any

import msgspec
import pytest
from fastavro import parse_schema, schemaless_reader
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.core import levels
from bridge.core.decimals import LIMIT, ONE, unscaled
from bridge.core.levels import LevelsReader, levels_bytes, read_levels
from bridge.errors import UnexpectedMessage

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
ARRAY = parse_schema(
    {
        "type": "array",
        "items": {
            "type": "record",
            "name": "Level",
            "fields": [{"name": name, "type": DECIMAL} for name in ("price", "amount")],
        },
    }
)


def _number(decimals: int) -> st.SearchStrategy[str]:
    whole = st.one_of(st.integers(0, 99_999), st.integers(0, 10**20 - 1)).map(str)
    if not decimals:
        return whole
    fraction = st.text("0123456789", min_size=decimals, max_size=decimals)
    return st.tuples(whole, fraction).map(".".join)


@st.composite
def uniform(draw: st.DrawFn) -> list[list[str]]:
    """Return levels as the exchange writes them: prices with the same decimals, quantities with the same."""
    price, amount = (_number(draw(st.integers(0, 18))) for _ in range(2))
    return draw(st.lists(st.tuples(price, amount).map(list), min_size=1, max_size=12))


def compact(value: Any) -> bytes:
    """Return JSON as the exchange writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def one_by_one(text: bytes) -> list[int] | None:
    """Return what the text says, by a way that shares nothing with the quick one; None where it is refused."""
    try:
        rows = json.loads(text)
        assert type(rows) is list
        assert all(type(row) is list and [type(n) for n in row] == [str, str] for row in rows)
        return [unscaled(number) for row in rows for number in row]
    except (ValueError, AssertionError, TypeError, UnexpectedMessage):
        return None


def is_json(text: bytes | bytearray) -> bool:
    """Return whether it is a JSON value, as msgspec has found before levels are read."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def read(text: bytes) -> list[int] | None:
    """Return what is read; None where it is refused, then or when it is written."""
    try:
        numbers = read_levels(text)
        levels_bytes(numbers)
    except UnexpectedMessage:
        return None
    return numbers


def remembering(before: bytes, text: bytes) -> list[int] | None:
    """Return what is read by a reader that has just read what was ``before``."""
    reader = LevelsReader()
    reader.read(msgspec.Raw(before))
    try:
        numbers = reader.read(msgspec.Raw(text))
        levels_bytes(numbers)
    except UnexpectedMessage:
        return None
    return numbers


@given(uniform())
def test_uniform_levels_go_the_quick_way(rows: list[list[str]]) -> None:
    """Every number is exact, and none was looked at by itself."""
    text = compact(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(levels, "_decode")
        assert read_levels(text) == one_by_one(text)


@given(st.lists(st.one_of(uniform(), st.just([])), min_size=1, max_size=4))
def test_a_reader_follows_where_the_form_changes(sides: list[list[list[str]]]) -> None:
    """What it remembers of the message before changes nothing."""
    reader = LevelsReader()
    for rows in sides:
        text = compact(rows)
        levels = msgspec.Raw(text)
        assert reader.read(levels) == one_by_one(text)
        assert reader.encoded(levels) == LevelsReader().encoded(msgspec.Raw(text))


@given(uniform())
def test_what_is_encoded_is_what_is_read(rows: list[list[str]]) -> None:
    """Scaling all numbers at once gives what scaling each gives."""
    levels = msgspec.Raw(compact(rows))
    reader = LevelsReader()
    assert reader.encoded(levels) == levels_bytes(reader.read(levels)) == levels_bytes(read_levels(levels))


def test_a_read_that_failed_is_not_remembered() -> None:
    """The same bytes are refused again, after others were read."""
    reader, wrong = LevelsReader(), msgspec.Raw(b'[["1","x"]]')
    reader.read(msgspec.Raw(b'[["1","2"]]'))
    for take in (reader.read, reader.encoded, reader.read):
        with pytest.raises(UnexpectedMessage):
            take(wrong)


@given(uniform(), st.data())
def test_any_change_of_the_text_is_read_or_refused_alike(rows: list[list[str]], data: st.DataObject) -> None:
    """A character more, less or other: what comes out is what a plain reading gives."""
    text = bytearray(compact(rows))
    at = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(
        st.sampled_from([b"", b".", b'"', b",", b"0", b"-", b"[", b"]", b" ", b"e", b'","', b'"],["'])
    )
    text[at : at + data.draw(st.integers(0, 2))] = piece
    assume(is_json(text))
    assert read(bytes(text)) == one_by_one(bytes(text))
    assert remembering(compact(rows), bytes(text)) == read(bytes(text))


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'[["1.50","2"],["1.5","2"]]',  # decimals that differ
        b'[["1.5","2.25"],["12.","3.25"],[".75","4.25"]]',  # as many points and digits, elsewhere
        b'[["-1.5","2.25"]]',
        b'[["1.5e3","2.25"]]',
        b'[["1.5", "2.25"]]',
        b'[["1.5","2.25"],["","3.25"]]',
        b'[["",""]]',
        b'[[".",""]]',
        b'[["1.5","2.25","3.25"]]',
        b'[["1.5"]]',
        b'["1.5","2.25"]',
        b"[[1.5,2.25]]",
        b"null",
        b"{}",
        b'"1.5"',
        b'[["\\u0031.5","2.25"]]',
        '[["١.5","2.25"]]'.encode(),
        b'[["1.5\xff","2.25"]]',
        b'[["%b","2.25"]]' % (b"1" * 5000),
        b'[["%b.5","2.25"]]' % (b"0" * 5000),
        b'[["1.%b","2.25"]]' % (b"0" * 19),
        b'[["1.%b1","2.25"]]' % (b"0" * 18),
        b'[["%b.5","2.25"]]' % (b"1" * 21),
    ],
)  # fmt: skip
def test_other_texts(text: bytes) -> None:
    """What is not of the usual form is read number by number, or refused."""
    assert read(text) == one_by_one(text)


def test_a_refusal_says_what_is_wrong() -> None:
    """The number, or the form."""
    with pytest.raises(UnexpectedMessage, match="'x' is not a decimal number"):
        read_levels(b'[["1","x"]]')
    with pytest.raises(UnexpectedMessage, match="not levels of price and quantity: Expected `array`"):
        read_levels(b"7")


_unscaled = st.one_of(st.integers(0, 10**24), st.integers(1 - LIMIT, LIMIT - 1))


@given(st.lists(st.tuples(_unscaled, _unscaled), max_size=140))
def test_fastavro_reads_what_is_written(rows: list[tuple[int, int]]) -> None:
    """Each number exactly, negative ones included, and nothing behind them."""
    file = io.BytesIO(levels_bytes([number for row in rows for number in row]))
    found: Any = schemaless_reader(file, ARRAY)
    assert not file.read()
    exact = Context(prec=40)
    told = [tuple(Decimal(number).scaleb(-18, exact) for number in row) for row in rows]
    assert [(level["price"], level["amount"]) for level in found] == told


@pytest.mark.parametrize("number", [LIMIT, -LIMIT, 1 << 127])
def test_numbers_of_more_than_38_digits_are_refused(number: int) -> None:
    """Whatever else is there."""
    with pytest.raises(UnexpectedMessage, match="does not fit"):
        levels_bytes([ONE, number])
