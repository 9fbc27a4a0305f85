"""Golden cases: what each stream's messages become."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge import contracts
from bridge.catalogue import Catalogue, catalogue
from bridge.model import Leg, StreamState
from tests.derived import KeepingPublisher, endpoint, pipeline

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/cases"
FILES = sorted(p for p in CASES.rglob("*.yaml"))
RECEIVED_AT = 1_795_305_700_000_000
CONNECTION = 0x0123456789ABCDEF
NUMBER = 41
KEYS = {"source", "market", "channel", "symbol", "stream", "payload", "records"}


def _load(path: Path) -> dict[str, Any]:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(case, dict)
    assert set(case) | {"symbol"} == KEYS
    return case


def _time(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


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
    """The records are exactly those of the case, lead back to the message, and raw holds it as received."""
    _check(_load(path), catalogue())


def _check(case: dict[str, Any], streams: Catalogue) -> None:
    market = case["market"]
    publisher = KeepingPublisher()
    pipe = pipeline(publisher, streams=streams)
    info = (CASES / "exchange-info" / f"{market}.json").read_bytes()
    instruments = pipe.exchange_info(
        market, RECEIVED_AT, info, pipe.api_answer(market, endpoint(market), 1, info)
    )
    symbols = [case["symbol"]] if case.get("symbol") else []
    [chosen] = streams.choose(market, [case["channel"]], symbols, None, instruments)
    assert chosen.stream.name == case["stream"]
    pipe.add(chosen)
    leg = Leg(CONNECTION, market, {chosen.stream.name.encode(): StreamState(chosen.stream)}, NUMBER)
    published = len(publisher.kept)

    frame = f'{{"stream":"{case["stream"]}","data":{case["payload"]}}}'.encode()
    pipe.receive(leg, RECEIVED_AT, [frame])

    raw, *derived = publisher.kept[published:]
    way_back = {
        "market": market, "channel": chosen.stream.channel, "writerEpoch": 0, "connectionId": CONNECTION,
        "connectionSequence": NUMBER, "receivedAt": _time(RECEIVED_AT),
    }  # fmt: skip
    assert raw.topic == f"binance.prod.raw.{market}.{chosen.stream.channel}"
    assert raw.record["payload"] == frame
    assert way_back.items() <= raw.record.items()
    assert raw.key.decode() == (chosen.stream.symbol or case["stream"])
    assert not publisher.of("dead-letter")
    assert [k.topic for k in derived] == [f"binance.prod.unified.{r['structure']}" for r in case["records"]]
    for kept, wanted in zip(derived, case["records"], strict=True):
        assert kept.key.decode() == wanted["key"]
        assert kept.timestamp_ms == wanted["timestamp"]
        assert (way_back | {"origin": "live"}).items() <= kept.record.items()
        fields = _plain({k: v for k, v in kept.record.items() if k not in {*way_back, "origin"}})
        assert fields == _expected(wanted["fields"], fields)


def test_every_stream_of_the_catalogue_has_a_case() -> None:
    """A declaration without a case is not done; where there is an all-market stream, it has one of its own."""
    covered = set()
    for case in map(_load, FILES):
        name = case["channel"].split("_")[0].split("@")[0]
        covered.add((case["market"], name, "symbol" in case))
    wanted = set()
    for (market, name), compiled in catalogue().channels.items():
        on = compiled.declaration.markets[market]
        wanted |= {(market, name, True)} if on.stream else set()
        wanted |= {(market, name, False)} if on.all else set()
    assert sorted(wanted - covered) == []


def test_how_to_add_a_stream_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's declaration, put among the others, makes the records of the page's case; the declaration is all."""
    page = (ROOT / "docs/how-to/add-a-stream.md").read_text(encoding="utf-8")
    declaration, case = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for folder in ("avro", "topics"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(contracts, "root", lambda: tmp_path)
    assert len(catalogue.__wrapped__().channels) == len(catalogue().channels)
    (tmp_path / "topics/streams/last-trade.yaml").write_text(declaration, encoding="utf-8")
    _check(yaml.safe_load(case), catalogue.__wrapped__())
