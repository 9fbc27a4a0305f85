"""Longs and texts are those of Avro."""

import io

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.varint import consecutive_long_bytes, long_bytes, nullable_long_bytes, text_bytes

LONG = parse_schema("long")
STRING = parse_schema("string")


def _written(schema: object, value: object) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, schema, value)
    return out.getvalue()


@given(st.integers(-(2**63), 2**63 - 1))
def test_longs_are_those_of_fastavro(number: int) -> None:
    """Every 64-bit number is encoded as the reference does."""
    assert long_bytes(number) == _written(LONG, number)
    assert nullable_long_bytes(number) == b"\x02" + long_bytes(number)


@given(st.integers(0, 2**40) | st.integers(8100, 8300) | st.integers(16300, 16500), st.integers(0, 20_000))
@example(0, 20_000)
def test_numbers_that_follow_each_other(first: int, count: int) -> None:
    """All at once are what each is, whatever borders they cross."""
    assert consecutive_long_bytes(first, count, b"-") == [long_bytes(first + n) + b"-" for n in range(count)]


@given(st.text())
def test_texts_are_those_of_fastavro(text: str) -> None:
    """Length in bytes, then UTF-8."""
    assert text_bytes(text) == _written(STRING, text)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_what_does_not_fit_is_refused(number: int) -> None:
    """No silent wrap."""
    with pytest.raises(OverflowError):
        long_bytes(number)


def test_none_is_null() -> None:
    """The first branch of the union."""
    assert nullable_long_bytes(None) == b"\x00"
