"""Golden cases: what each stream's messages become."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.catalogue import catalogue
from bridge.model import Leg, StreamState
from tests.derived import KeepingPublisher, endpoint, pipeline, read

CASES = Path(__file__).parents[1] / "cases"
FILES = sorted(p for p in CASES.rglob("*.yaml"))
RECEIVED_AT = 1_795_305_700_000_000
WAY_BACK = {"origin", "writerEpoch", "connectionId", "connectionSequence", "receivedAt", "channel", "market"}


def _load(path: Path) -> dict[str, Any]:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(case, dict)
    return case


def _plain(value: Any) -> Any:
    """Return a read value as cases write it, without what is null or empty."""
    if isinstance(value, Decimal):
        return value.normalize() if value else Decimal(0)
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    if isinstance(value, dict):
        plain = {k: _plain(v) for k, v in value.items()}
        return {k: v for k, v in plain.items() if v is not None and v not in ({}, [])}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _expected(value: Any, got: Any) -> Any:
    """Return an expected value in the form of what was got: decimals are written as text."""
    if isinstance(got, Decimal) and not isinstance(value, bool):
        assert isinstance(value, str), f"decimals are written as text: {value!r}"
        number = Decimal(value)
        return number.normalize() if number else Decimal(0)
    if isinstance(value, dict) and isinstance(got, dict):
        return {k: _expected(v, got.get(k)) for k, v in value.items()}
    if isinstance(value, list) and isinstance(got, list) and len(value) == len(got):
        return [_expected(v, g) for v, g in zip(value, got, strict=True)]
    return value


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(CASES).with_suffix("")) for p in FILES])
def test_message_becomes_its_records(path: Path) -> None:
    """The records are exactly those of the case, and the raw record holds the bytes as received."""
    case = _load(path)
    market = case["market"]
    publisher = KeepingPublisher()
    pipe = pipeline(publisher)
    info = (CASES / "exchange-info" / f"{market}.json").read_bytes()
    instruments = pipe.exchange_info(market, RECEIVED_AT, info, pipe.api_answer(market, endpoint(market), 1, info))
    symbols = [case["symbol"]] if case.get("symbol") else []
    [chosen] = catalogue().choose(market, [case["channel"]], symbols, None, instruments)
    assert chosen.stream.name == case["stream"]
    pipe.add(chosen)
    leg = Leg(0x0123456789ABCDEF, market, {chosen.stream.name.encode(): StreamState(chosen.stream)})
    published = len(publisher.kept)

    frame = f'{{"stream":"{case["stream"]}","data":{case["payload"]}}}'.encode()
    pipe.receive(leg, RECEIVED_AT, [frame])

    raw, *derived = publisher.kept[published:]
    assert read(raw.value)[1]["payload"] == frame
    assert not publisher.of("dead-letter")
    got = [(*read(k.value), k) for k in derived]
    assert [structure for structure, _, _ in got] == [r["structure"] for r in case["records"]]
    for (_, record, kept), wanted in zip(got, case["records"], strict=True):
        assert kept.key.decode() == wanted["key"]
        assert kept.timestamp_ms == wanted["timestamp"]
        assert record["market"] == market
        fields = _plain({k: v for k, v in record.items() if k not in WAY_BACK})
        assert fields == _expected(wanted["fields"], fields)


def test_every_stream_of_the_catalogue_has_a_case() -> None:
    """A declaration without a case is not done."""
    covered = {(case["market"], case["channel"].split("_")[0].split("@")[0]) for case in map(_load, FILES)}
    assert sorted(set(catalogue().channels) - covered) == []
