"""Golden cases of accounts: what each private event and each answer of REST becomes."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bridge import contracts
from bridge.catalogue import catalogue
from tests.core.account_histories import RECEIVED_AT, deriver
from tests.core.test_cases import CONNECTION, NUMBER, ROOT, _expected, _plain
from tests.derived import read

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.core.user_events import AccountDeriver, Taken

FOLDER = ROOT / "tests/account-cases"
FILES = sorted(FOLDER.rglob("*.yaml"))
ASKED_AT = 1_795_305_690_000_000
KEYS = {"source", "market", "payload", "records", "endpoints", "letter"}
ENVELOPE = {
    "market", "account", "channel", "origin", "writerEpoch", "connectionId", "connectionSequence", "receivedAt",
}  # fmt: skip


def _load(path: Path) -> dict[str, Any]:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(case, dict)
    assert set(case) <= KEYS
    return case


def _fed(case: dict[str, Any], account: AccountDeriver, endpoint: str | None) -> Taken:
    payload = case["payload"].encode()
    if endpoint is None:
        return account.take(payload, connection_id=CONNECTION, number=NUMBER, received_at=RECEIVED_AT)
    return account.answer(endpoint, payload, number=NUMBER, asked_at=ASKED_AT, received_at=RECEIVED_AT)


def _ways() -> list[Any]:
    return [
        pytest.param(
            path, endpoint, id=f"{path.relative_to(FOLDER).with_suffix('')} {endpoint or ''}".strip()
        )
        for path in FILES
        for endpoint in _load(path).get("endpoints", [None])
    ]


@pytest.mark.parametrize(("path", "endpoint"), _ways())
def test_message_becomes_its_records(path: Path, endpoint: str | None) -> None:
    """The records are exactly those of the case, lead back to the message, and raw holds it as received."""
    case = _load(path)
    _check(case, deriver(case["market"]), endpoint)


def _check(case: dict[str, Any], account: AccountDeriver, endpoint: str | None) -> None:
    market = case["market"]
    taken = _fed(case, account, endpoint)
    structure, raw = read(taken.raw.value)
    assert (structure, taken.raw.key, taken.raw.state) == ("raw", b"main", None)
    assert raw["payload"] == case["payload"].encode()
    assert (raw["market"], raw["channel"], raw["stream"]) == (market, "user", taken.event)
    assert raw["connectionId"] == (CONNECTION if endpoint is None else 0)
    assert [letter.record["reason"] for letter in taken.letters] == (
        [case["letter"]] if "letter" in case else []
    )
    assert [record.structure for record in taken.records] == [w["structure"] for w in case["records"]]
    for record, wanted in zip(taken.records, case["records"], strict=True):
        structure, values = read(record.value)
        assert structure == record.structure
        assert record.key.decode() == wanted["key"]
        assert (None if record.state is None else record.state.decode()) == wanted.get("state")
        assert record.time_ms == wanted["timestamp"]
        origin = "live"
        if endpoint is not None:
            origin = catalogue().accounts.answers[market, endpoint].declaration.endpoints[endpoint].origin
        received_at = (values["receivedAt"] - datetime(1970, 1, 1, tzinfo=UTC)) // datetime.resolution
        assert received_at == RECEIVED_AT
        assert {
            "market": market, "account": "main", "channel": "user", "origin": origin, "writerEpoch": 0,
            "connectionId": CONNECTION if endpoint is None else 0, "connectionSequence": NUMBER,
        }.items() <= values.items()  # fmt: skip
        fields = _plain({name: value for name, value in values.items() if name not in ENVELOPE})
        assert fields == _expected(wanted["fields"], fields)


def test_everything_declared_has_a_case() -> None:
    """A declaration without a case is not done; neither is an endpoint without one."""
    events, answers = set(), set()
    for case in map(_load, FILES):
        answers |= {(case["market"], endpoint) for endpoint in case.get("endpoints", [])}
        if "endpoints" not in case and case.get("letter") != "parse":
            message = json.loads(case["payload"])
            events.add((case["market"], message.get("event", message)["e"]))
    assert sorted(catalogue().accounts.events.keys() - events) == []
    assert sorted(catalogue().accounts.answers.keys() - answers) == []


def test_how_to_add_an_event_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's declaration, put among the others, makes the records of the page's case; the declaration is all."""
    page = (ROOT / "docs/how-to/add-a-user-event.md").read_text(encoding="utf-8")
    declaration, case = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for folder in ("avro", "topics"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(contracts, "root", lambda: tmp_path)
    (tmp_path / "topics/account/bonus-update.yaml").write_text(declaration, encoding="utf-8")
    account = deriver("usdm", sources=catalogue.__wrapped__().accounts)
    _check(yaml.safe_load(case), account, None)
