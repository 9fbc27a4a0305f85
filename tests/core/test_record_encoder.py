"""The quick encoder of records without decimals, against fastavro."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.schema import encode, load
from bridge.schema import schemas
from tests.sdk.values import values

QUICK = sorted(name for name, schema in schemas().items() if schema.encoder is not None)


def by_fastavro(name: str, record: dict[str, Any]) -> bytes:
    """Return the record as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schemas()[name].parsed, record, strict=True)
    return schemas()[name].header + out.getvalue()


def test_what_is_written_by_the_hundred_is_quick() -> None:
    """Checkpoints and ledgers of every stream, every few seconds."""
    assert {"checkpoint", "coverage", "gap", "lifecycle", "dead-letter"} <= set(QUICK)
    assert "trade" not in QUICK


@pytest.mark.parametrize("name", QUICK)
def test_bytes_are_those_of_fastavro(name: str) -> None:
    """Of any valid record, by the quick way alone."""
    encoder = schemas()[name].encoder
    assert encoder is not None

    @settings(max_examples=40, deadline=None)
    @given(values(name))
    def check(record: dict[str, Any]) -> None:
        assert schemas()[name].header + encoder(record) == by_fastavro(name, record)

    check()


@pytest.mark.parametrize("name", QUICK)
def test_what_is_no_record_is_refused_as_by_fastavro(name: str) -> None:
    """A field that is missing, one too many, one of another type: fastavro's error, or its bytes."""

    @settings(max_examples=20, deadline=None)
    @given(values(name), st.data())
    def check(record: dict[str, Any], data: st.DataObject) -> None:
        field = data.draw(st.sampled_from(sorted(record)))
        wrong = data.draw(
            st.sampled_from(
                [
                    {key: value for key, value in record.items() if key != field},
                    {**record, "more": 1},
                    {**record, field: object()},
                    {**record, field: 1 << 70},
                ]
            )
        )
        try:
            expected = by_fastavro(name, wrong)
        except Exception as error:  # noqa: BLE001 - whatever it raises
            with pytest.raises(type(error)):
                encode(schemas()[name], wrong)
        else:
            assert encode(schemas()[name], wrong) == expected

    check()


def test_types_without_code_are_left_to_fastavro() -> None:
    """Decimals, maps, other unions."""
    for type_ in ('{"type":"map","values":"long"}', '["null","long","string"]', '"double"'):
        text = f'{{"type":"record","name":"X","fields":[{{"name":"a","type":{type_}}}]}}'
        schema = load("x", text)
        assert schema.encoder is None
    assert encode(schema, {"a": 1.5}).endswith(b"\x00\x00\x00\x00\x00\x00\xf8\x3f")
