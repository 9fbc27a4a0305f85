"""Random valid values of Avro schemas, for property tests."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

from hypothesis import strategies as st

from bridge.schema import schemas

LONG = st.integers(-(2**63), 2**63 - 1)
_UNSCALED = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.integers(-(10**24), 10**24),
    st.integers(0, 10**6).map(lambda n: n * 10**17),
)
_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=40),
    "boolean": st.booleans(),
    "long": LONG,
    "int": st.integers(-(2**31), 2**31 - 1),
    "timestamp-micros": st.one_of(
        st.integers(1_700_000_000_000_000, 1_900_000_000_000_000), st.integers(-(10**15), 10**17)
    ),
    "decimal": _UNSCALED.map(lambda n: Decimal(n).scaleb(-18, Context(prec=40))),
}


def values(structure: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of values that fastavro can write with the structure's schema."""
    return _value(schemas()[structure].text, {})


def _value(type_: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(type_, list):
        return st.one_of(*(st.none() if t == "null" else _value(t, named) for t in type_))
    if isinstance(type_, str):
        return named[type_] if type_ in named else _PLAIN[type_]
    kind = type_.get("logicalType", type_["type"])
    if kind == "array":
        return st.lists(_value(type_["items"], named), max_size=3)
    if kind == "enum":
        named[type_["name"]] = st.sampled_from(type_["symbols"])
        return named[type_["name"]]
    if kind == "record":
        fields = {f["name"]: _value(f["type"], named) for f in type_["fields"]}
        named[type_["name"]] = st.fixed_dictionaries(fields)
        return named[type_["name"]]
    return _PLAIN[kind]
