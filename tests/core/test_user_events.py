"""Bytes of private events and of REST's answers: whatever they are, they become records or a dead letter, exactly."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.catalogue import catalogue
from bridge.core import account_conversions as conversions
from bridge.core.account_compile import compile_source
from bridge.core.declaration import AccountEndpoint, AccountRecord, AccountSource
from bridge.core.wire import Decoder
from bridge.errors import ContractError, UnexpectedMessage
from bridge.model import MARKETS
from bridge.schema import schemas
from tests.core.account_histories import RECEIVED_AT, SYMBOL, deriver
from tests.core.test_account_cases import ASKED_AT, FILES
from tests.derived import read

if TYPE_CHECKING:
    from bridge.core.user_events import Taken
    from bridge.model import Market

moderate = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CASES = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES]
unsigned = st.builds(
    lambda whole, fraction: f"{whole}.{fraction}" if fraction else str(whole),
    st.integers(0, 10**20 - 1),
    st.text("0123456789", max_size=18),
)
exact = st.one_of(unsigned, unsigned.map(lambda text: f"-{text}"))


def _taken(market: Market, payload: bytes, endpoint: str | None) -> Taken:
    account = deriver(market)
    if endpoint is None:
        return account.take(payload, connection_id=7, number=3, received_at=RECEIVED_AT)
    return account.answer(endpoint, payload, number=3, asked_at=ASKED_AT, received_at=RECEIVED_AT)


def _ways(market: Market) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *(path for on, path in catalogue().accounts.answers if on == market)])


def _check_letters(taken: Taken, payload: bytes) -> None:
    assert read(taken.raw.value)[1]["payload"] == payload
    for letter in taken.letters:
        assert letter.record["payload"] == payload
        assert letter.record["reason"] in {"parse", "unify", "unknown"}
        assert letter.record["topic"].split(".")[0] in {"raw", "unified"}
    for record in taken.records:
        assert read(record.value)[0] == record.structure


@moderate
@given(st.sampled_from(MARKETS), st.data())
def test_any_bytes_are_kept_and_raise_nothing(market: Market, data: st.DataObject) -> None:
    """What is no event is a dead letter and stands in raw; nothing is raised."""
    payload = data.draw(st.binary(max_size=200))
    taken = _taken(market, payload, data.draw(_ways(market)))
    _check_letters(taken, payload)
    assert taken.records == ()


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8) | exact,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def _meddled(value: Any, data: st.DataObject) -> Any:
    """Return a JSON value with one thing in it replaced, or left out."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 3)):
        name = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 4)) == 0:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: _meddled(value[name], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 3)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], _meddled(value[at], data), *value[at + 1 :]]
    return data.draw(_values)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([case for case in CASES if case.get("letter") != "parse"]), st.data())
def test_a_message_with_one_thing_wrong_raises_nothing(case: dict[str, Any], data: st.DataObject) -> None:
    """One value of a real message replaced by anything, or missing: records and dead letters, never an exception."""
    payload = json.dumps(_meddled(json.loads(case["payload"]), data)).encode()
    _check_letters(_taken(case["market"], payload, case.get("endpoints", [None])[0]), payload)


@pytest.mark.parametrize(
    ("payload", "structure", "field", "endpoint"),
    [
        ('{"e":"balanceUpdate","E":1,"a":"BTC","d":"%s","T":1}', "ledger", "amount", None),
        ('{"e":"externalLockUpdate","E":1,"a":"BTC","d":"%s","T":1}', "account-event", "amount", None),
        ('{"e":"outboundAccountPosition","E":1,"u":1,"B":[{"a":"X","f":"%s","l":"0"}]}', "balance", "free", None),
        (
            ('[{"symbol":"A","id":1,"orderId":1,"orderListId":-1,"price":"%s","qty":"1","quoteQty":"1","commission":"0",'
            '"commissionAsset":"B","time":1,"isBuyer":true,"isMaker":true}]'),
            "my-trade",
            "price",
            "/api/v3/myTrades",
        ),
    ],
)  # fmt: skip
def test_any_number_survives_exactly(payload: str, structure: str, field: str, endpoint: str | None) -> None:
    """Up to 20 digits before the point and 18 behind it come out as they went in."""

    @moderate
    @given(exact)
    def check(number: str) -> None:
        taken = _taken("spot", (payload % number).encode(), endpoint)
        [record] = taken.records
        found, values = read(record.value)
        assert (found, taken.letters) == (structure, ())
        wanted = Decimal(number) if field != "amount" or structure != "ledger" else abs(Decimal(number))
        assert values[field] == wanted

    check()


@moderate
@given(unsigned, unsigned, unsigned, exact)
def test_any_numbers_of_an_order_survive_exactly(
    price: str, amount: str, filled: str, commission: str
) -> None:
    """An order's and a fill's numbers are those of the event; zero prices and quantities are null."""
    event = {
        "e": "ORDER_TRADE_UPDATE", "E": 1, "T": 1,
        "o": {
            "s": SYMBOL["usdm"], "c": "c", "S": "BUY", "o": "LIMIT", "f": "GTC", "q": amount, "p": price, "ap": "0",
            "sp": "0", "x": "TRADE", "X": "FILLED", "i": 1, "l": filled, "z": filled, "L": "1", "N": "BNB",
            "n": commission, "T": 1, "t": 1, "m": True, "R": False, "ot": "LIMIT", "ps": "BOTH", "cp": False, "rp": "0",
                "pP": False,
        },
    }  # fmt: skip
    taken = _taken("usdm", json.dumps(event).encode(), None)
    found = {record.structure: read(record.value)[1] for record in taken.records}
    order, fill = found["order"], found["my-trade"]
    assert [order[name] for name in ("price", "amount", "filled")] == [
        Decimal(text) or None if name != "filled" else Decimal(text)
        for name, text in (("price", price), ("amount", amount), ("filled", filled))
    ]
    assert (fill["amount"], fill["fee"]["cost"]) == (Decimal(filled), Decimal(commission))


def test_a_record_that_fails_leaves_the_others() -> None:
    """Where a fill's cost does not fit, order and fill are dead letters and the ledger has its entry."""
    case = next(c for c in CASES if '"eth-501"' in c["payload"])
    payload = case["payload"].replace('"L":"3000.40"', f'"L":"{"9" * 20}"')
    taken = _taken("usdm", payload.encode(), None)
    assert [record.structure for record in taken.records] == ["ledger", "ledger"]
    assert [(n.record["reason"], n.record["topic"]) for n in taken.letters] == [
        ("unify", "unified.order"),
        ("unify", "unified.my-trade"),
    ]
    assert "does not fit decimal(38, 18)" in taken.letters[0].record["error"]


def test_what_could_not_be_made_is_not_taken_for_known() -> None:
    """After a dead letter the same state, told in a form that fits, is published."""
    account = deriver("spot")
    for free, letters in (("1e", 1), ("1", 0)):
        payload = (
            f'{{"e":"outboundAccountPosition","E":1,"u":1,"B":[{{"a":"X","f":"{free}","l":"0"}}]}}'.encode()
        )
        taken = account.take(payload, connection_id=7, number=0, received_at=RECEIVED_AT)
        assert (len(taken.letters), len(taken.records)) == (letters, 1 - letters)


def test_replay_tells_the_same_with_its_own_origin() -> None:
    """Derived again from raw, records are the same byte for byte but for their origin."""
    for case in CASES:
        endpoint = case.get("endpoints", [None])[0]
        live = _taken(case["market"], case["payload"].encode(), endpoint)
        again = deriver(case["market"], "replay")
        payload = case["payload"].encode()
        taken = (
            again.take(payload, connection_id=7, number=3, received_at=RECEIVED_AT)
            if endpoint is None
            else again.answer(endpoint, payload, number=3, asked_at=ASKED_AT, received_at=RECEIVED_AT)
        )
        assert [(r.key, r.state, r.time_ms, read(r.value)[1]) for r in taken.records] == [
            (r.key, r.state, r.time_ms, read(r.value)[1] | {"origin": "replay"}) for r in live.records
        ]


def test_raw_of_an_answer_has_what_replay_needs() -> None:
    """When it was asked, and the symbol it was asked of alone, stand in the raw record."""
    taken = deriver("usdm").answer(
        "/fapi/v1/allOrders",
        b"[]",
        number=4,
        asked_at=ASKED_AT,
        received_at=RECEIVED_AT,
        params={"symbol": "BTCUSDT"},
    )
    record = read(taken.raw.value)[1]
    assert (record["kind"], record["stream"], record["symbol"]) == ("rest", "/fapi/v1/allOrders", "BTCUSDT")
    assert int(record["eventTime"].timestamp() * 1_000_000) == ASKED_AT
    assert taken.raw.time_ms == ASKED_AT // 1000


def test_an_event_of_the_future_gets_its_time_of_receipt() -> None:
    """Kafka would refuse a record an hour ahead of its clock; the fields keep what the exchange said."""
    ahead = RECEIVED_AT // 1000 + 7_200_000
    payload = f'{{"e":"balanceUpdate","E":{ahead},"a":"BTC","d":"1","T":{ahead}}}'.encode()
    taken = _taken("spot", payload, None)
    assert [r.time_ms for r in (taken.raw, *taken.records)] == [RECEIVED_AT // 1000] * 2
    assert int(read(taken.records[0].value)[1]["timestamp"].timestamp() * 1000) == ahead


def test_an_unknown_endpoint_is_kept() -> None:
    """An answer that nobody declared stands in raw and is a dead letter."""
    taken = deriver("spot").answer("/api/v3/myAllocations", b"[]", number=0, asked_at=1, received_at=1)
    assert [n.record["reason"] for n in taken.letters] == ["unknown"]
    assert (taken.event, taken.records) == ("/api/v3/myAllocations", ())


def test_only_the_accounts_own_records_are_resumed() -> None:
    """Records of other accounts and markets in the same topics say nothing of this one."""
    case = next(c for c in CASES if '"eth-501"' in c["payload"])
    published = _taken("usdm", case["payload"].encode(), None)
    decode = Decoder(schemas().values()).decode
    for account, market, wanted in (("main", "usdm", 0), ("other", "usdm", 4), ("main", "coinm", 4)):
        again = deriver("usdm")
        for record in published.records:
            again.resume(record.structure, decode(record.value) | {"account": account, "market": market})
        taken = again.take(case["payload"].encode(), connection_id=7, number=0, received_at=RECEIVED_AT)
        assert len(taken.records) == wanted


# Words of the exchange


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (conversions.order_status("PENDING_NEW"), "open"),
        (conversions.order_status("SOMETHING_NEW"), "something_new"),
        (conversions.futures_status("EXPIRED", "8"), "open"),
        (conversions.futures_status("EXPIRED", "2"), "expired"),
        (conversions.futures_status("EXPIRED", None), "expired"),
        (conversions.spot_type("TAKE_PROFIT"), "market"),
        (conversions.futures_type("TAKE_PROFIT"), "limit"),
        (conversions.futures_type("LIQUIDATION"), "liquidation"),
        (conversions.time_in_force("RPI"), "RPI"),
        (conversions.ledger_type("COIN_SWAP_DEPOSIT"), "deposit"),
        (conversions.ledger_type("SOMETHING_NEW"), "SOMETHING_NEW"),
        (conversions.margin_mode("CROSSED"), "cross"),
        (conversions.margin_mode_by(None, "0", "1"), "cross"),
        (conversions.margin_mode_by(None, "0.5", "-1"), "isolated"),
        (conversions.margin_mode_by(None, "0", "0"), None),
        (conversions.margin_mode_by("isolated", "0", "0"), "isolated"),
        (conversions.held_side("BOTH", "0"), None),
        (conversions.direction("0"), "out"),
    ],
)
def test_words_mean_what_ccxt_says(told: str | None, meant: str | None) -> None:
    """By CCXT's tables for Binance and the deviations of docs/reference/records.md; new words pass."""
    assert told == meant


@pytest.mark.parametrize("text", ["", "1.5", "-1", "١٢٣", "1" * 20, "x"])
def test_a_time_as_text_is_digits(text: str) -> None:
    """Anything else is no time, whatever Python's int would take."""
    with pytest.raises(UnexpectedMessage, match="is not a time"):
        conversions.given_time(text)


# Declarations


def _source(**changes: Any) -> AccountSource:
    record = {"structure": "ledger", "currency": "a"} | changes.pop("record", {})
    fields = {"timestamp": "T", "direction": "direction(d)", "type": "=x", "amount": "magnitude(d)"}
    made = AccountRecord(**({"fields": fields | changes.pop("fields", {})} | record))
    given: dict[str, Any] = {"summary": "x", "markets": ("spot",), "event": "x", "records": (made,)}
    return AccountSource(**(given | changes))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_source(event=None), "wants either event or endpoints"),
        (_source(endpoints={"/x": AccountEndpoint(origin="snapshot")}), "wants either event or endpoints"),
        (_source(record={"structure": "trade"}), "no unified structure 'trade' of accounts"),
        (_source(fields={"prize": "p"}), "avro/ledger.avsc has no field prize"),
        (_source(fields={"amount": "magnitudes(d)"}), "ledger.amount: no conversion 'magnitudes'"),
        (_source(fields={"amount": "magnitude()"}), "ledger.amount: magnitude() wants 1 keys, not none"),
        (_source(fields={"direction": "magnitude(d)"}), "ledger.direction: magnitude() gives int"),
        (_source(fields={"timestamp": "known_time(T)"}), "known_time() may give None"),
        (_source(fields={"amount": "T"}), "T is read both as int and as text"),
        (_source(fields={"amount": "a.b"}), "can't both be values"),
        (_source(fields={"amount": "=5"}), "amount is a decimal; a constant can't be given"),
        (_source(fields={"type": "T | asked()"}), "asked() is a time; the field is a string"),
        (_source(fields={"fee": "d"}), "fee is a record; name a conversion for it"),
        (_source(record={"fields": {"timestamp": "T"}}), "ledger.direction: may not be null"),
    ],
)  # fmt: skip
def test_wrong_declaration_is_named(source: AccountSource, message: str) -> None:
    """The bridge refuses to start, and says where the mistake is."""
    with pytest.raises(ContractError, match=rf"^topics/account/x\.yaml.*{re.escape(message)}"):
        compile_source("x", source, "spot", schemas())
