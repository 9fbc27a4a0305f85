"""Decimals survive exactly, or are refused."""

import io
from decimal import Decimal

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.core.decimals import (
    DECIMALS,
    NONZERO_DECIMALS,
    NULLABLE_DECIMALS,
    ONE,
    DecimalTable,
    DoesNotFit,
    decimal_bytes,
    divide,
    multiply,
    unscaled,
)
from bridge.errors import UnexpectedMessage

SCHEMA = parse_schema({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18})
LARGEST = 10**38 - 1

texts = st.builds(
    lambda sign, whole, fraction: f"{sign}{whole}" + (f".{fraction}" if fraction else ""),
    st.sampled_from(["", "-"]),
    st.integers(0, 10**20 - 1),
    st.text("0123456789", max_size=18),
)


@given(texts)
def test_any_decimal_text_survives_exactly(text: str) -> None:
    """Text in the exchange's form reads back as the same number, by an independent reader."""
    assert schemaless_reader(io.BytesIO(DECIMALS[text]), SCHEMA) == Decimal(text)


@given(st.one_of(texts, st.sampled_from(["0", "0.000", "-0", "0e3", "", None])))
def test_a_number_that_may_be_null(text: str | None) -> None:
    """None and empty text are null, and of prices zero is, too."""
    number = Decimal(text) if text else None
    nullable, nonzero = (
        schemaless_reader(io.BytesIO(table[text]), parse_schema(["null", SCHEMA]))
        for table in (NULLABLE_DECIMALS, NONZERO_DECIMALS)
    )
    assert nullable == number
    assert nonzero == (number or None)


@pytest.mark.parametrize("table", [DECIMALS, NULLABLE_DECIMALS, NONZERO_DECIMALS])
def test_what_is_no_number_is_never_remembered(table: DecimalTable) -> None:
    """Asked again, it is refused again."""
    for _ in range(2):
        with pytest.raises(UnexpectedMessage, match="'x' is not a decimal number"):
            _ = table["x"]


@given(st.integers(-LARGEST, LARGEST))
def test_bytes_are_those_of_fastavro(number: int) -> None:
    """The encoding is the shortest one, byte for byte as fastavro writes it.

    But for the lowest number of a length (-128), to which fastavro gives a byte more than it needs; Java does not.
    """
    assume(number >= 0 or (-number & (-number - 1)) != 0)
    out = io.BytesIO()
    schemaless_writer(out, SCHEMA, Decimal(f"{number}E-18"))
    assert decimal_bytes(number) == out.getvalue()


@given(st.text(max_size=30))
def test_other_text_is_refused_by_its_own_error(text: str) -> None:
    """Whatever the text, it converts to what Decimal says or raises UnexpectedMessage; nothing else."""
    try:
        number = unscaled(text)
    except UnexpectedMessage:
        return
    assert text.isascii()
    assert Decimal(number) == Decimal(text).scaleb(18)


@pytest.mark.parametrize(
    "text", ["", "abc", "1_0", " 1", "1 ", "NaN", "Infinity", "-", "１２", ".5", "1e9999", "0x1"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    """Python would take some of these as numbers; the exchange never sends them."""
    with pytest.raises(UnexpectedMessage, match="not a decimal number"):
        unscaled(text)


@pytest.mark.parametrize("text", ["100000000000000000000", "0.0000000000000000001", "1E+30", "1E-19"])
def test_what_does_not_fit_is_refused(text: str) -> None:
    """Digits are never dropped to make a number fit."""
    with pytest.raises(DoesNotFit):
        unscaled(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1E-8", 10**10),
        ("1.50000000000000000000000", 15 * 10**17),
        ("1e2", 10**20),
        ("-0.0", 0),
        ("0E-30", 0),
    ],
)
def test_unusual_forms_are_exact(text: str, number: int) -> None:
    """Exponents and long tails of zeros mean what they say."""
    assert unscaled(text) == number


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_products_and_quotients_truncate_toward_zero(a: int, b: int) -> None:
    """As CCXT's Precise does, at 18 decimals."""
    exact = a * b
    assert multiply(a, b) == (abs(exact) // ONE) * (1 if exact >= 0 else -1)
    quotient = divide(a, b)
    if b == 0:
        assert quotient is None
    else:
        assert quotient == (abs(a) * ONE // abs(b)) * (1 if (a < 0) == (b < 0) else -1)
