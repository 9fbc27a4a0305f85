"""Spot accounts: what orders do, what is told of it in Binance's own shapes, and that money adds up."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.simulator.accounts.amounts import plain
from bridge.simulator.accounts.improvise import improvise
from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused
from bridge.simulator.accounts.spot_requests import oco_legs, oto_legs
from tests.simulator.accounts.stage import EXAMPLES, NOW, Cast, limit, market, shape


def funded(**options: Any) -> Cast:
    """Return an account with 100 000 USDT and 2 BTC."""
    cast = Cast(**options)
    cast.account.spot.deposit("USDT", Decimal(100_000), NOW)
    cast.account.spot.deposit("BTC", Decimal(2), NOW)
    cast.told.clear()
    return cast


def balances(cast: Cast) -> dict[str, tuple[str, str]]:
    """Return free and locked of each asset."""
    return {a: (plain(b.free), plain(b.locked)) for a, b in cast.account.spot.balances.items()}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return execution types, or event types where they are none."""
    return [f"{e['x']} {e['X']}" if "x" in e else e["e"] for e in events]


def test_an_order_rests_fills_partly_and_is_cancelled() -> None:
    """A resting order locks its price, fills with the market's trades at its own price, and frees the rest."""
    cast = funded()
    order = cast.account.spot.place(limit("BUY", "0.5", "79000", newClientOrderId="mine"), NOW)
    assert balances(cast)["USDT"] == ("60500", "39500")
    cast.stage.print("78990", "0.2", NOW + 5)
    cast.account.spot.match(NOW + 5)
    cast.account.spot.cancel(order, NOW + 9, "bye")
    events = cast.events()
    assert kinds(events) == [
        "NEW NEW", "outboundAccountPosition", "TRADE PARTIALLY_FILLED", "outboundAccountPosition",
        "CANCELED CANCELED", "outboundAccountPosition",
    ]  # fmt: skip
    trade, cancelled, last = events[2], events[4], events[5]
    assert (trade["l"], trade["L"], trade["Y"], trade["m"], trade["n"], trade["N"], trade["T"]) == (
        "0.20000000", "79000.00000000", "15800.00000000", True, "0.00020000", "BTC", NOW + 5,
    )  # fmt: skip
    assert (cancelled["c"], cancelled["C"], cancelled["z"]) == ("bye", "mine", "0.20000000")
    assert last["B"] == [{"a": "USDT", "f": "84200.00000000", "l": "0.00000000"}]
    assert [t["id"] for t in (trade.row() for trade in cast.account.spot.trades)] == [trade["t"]]


def test_a_market_order_takes_what_the_book_has_and_expires() -> None:
    """A market order beyond the book fills, expires for the rest, and balances come once, at the end."""
    cast = funded(offered="1.5")
    cast.account.spot.place(market("SELL", "2"), NOW)
    events = cast.events()
    assert kinds(events) == [
        "NEW NEW",
        "TRADE PARTIALLY_FILLED",
        "EXPIRED EXPIRED",
        "outboundAccountPosition",
    ]
    assert events[2]["eR"] == "INSUFFICIENT_LIQUIDITY"
    for event, example in zip(events[:3], ("0", "1", "2"), strict=True):
        event.pop("eR", None)  # newer than the example
        assert shape(event) == shape(EXAMPLES[f"market order:{example}"])


@pytest.mark.parametrize(
    ("time_in_force", "executed", "reason"),
    [("IOC", "1", "UNFILLED_IOC_QUANTITY_EXPIRED"), ("FOK", "0", "UNFILLED_FOK_ORDER_EXPIRED")],
)
def test_times_in_force(time_in_force: str, executed: str, reason: str) -> None:
    """IOC takes what is there, FOK all or nothing; neither leaves anything locked."""
    cast = funded()
    order = cast.account.spot.place(limit("BUY", "1.2", "80001", timeInForce=time_in_force), NOW)
    assert (order.status, order.executed, order.expiry_reason) == ("EXPIRED", Decimal(executed), reason)
    assert cast.account.spot.balances["USDT"].locked == 0


def test_a_stop_waits_and_then_takes() -> None:
    """A stop-loss does nothing before its price, then enters the book and takes."""
    cast = funded()
    stop = Params(
        {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "1", "stopPrice": "79500"}
    )
    order = cast.account.spot.place(stop, NOW)
    assert (order.working, cast.events("executionReport")[0]["w"]) == (False, False)
    cast.stage.print("79600", "1")
    cast.account.spot.match(NOW)
    assert cast.events() == []
    cast.stage.print("79500", "1")
    cast.account.spot.match(NOW)
    assert kinds(cast.events()) == ["NEW NEW", "TRADE FILLED", "outboundAccountPosition"]
    assert order.fills[0].price == Decimal(79_499)


def test_a_stop_that_is_filled_fills_no_more_than_its_quantity() -> None:
    """A fill lets a waiting stop go; what it then takes by itself is not filled again."""
    cast = funded()
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "1", "stopPrice": "79500"}
    order = cast.account.spot.place(Params(stop), NOW)
    cast.account.spot.fill(order, Decimal(1), Decimal(79_500), NOW, maker=False)
    assert (order.status, order.executed, len(order.fills)) == ("FILLED", 1, 1)
    assert balances(cast)["BTC"] == ("1", "0")


def test_one_leg_of_an_oco_ends_the_other() -> None:
    """When the limit leg of an OCO fills, the stop leg expires, the list is done, and nothing stays locked."""
    cast = funded()
    params = Params(
        {
            "symbol": "BTCUSDT", "side": "SELL", "quantity": "1", "aboveType": "LIMIT_MAKER", "abovePrice": "81000",
            "belowType": "STOP_LOSS_LIMIT", "belowStopPrice": "79000", "belowPrice": "78900",
            "belowTimeInForce": "GTC", "listClientOrderId": "list",
        }
    )  # fmt: skip
    listed = cast.account.spot.place_list(params, "OCO", oco_legs(params), NOW)
    assert balances(cast)["BTC"] == ("1", "1")
    placed = cast.events()
    assert kinds(placed) == ["NEW NEW", "NEW NEW", "listStatus", "outboundAccountPosition"]
    assert shape(placed[2]) == shape(EXAMPLES["listStatus"]["event"])
    assert shape(listed.row()) == shape(EXAMPLES["orderList"])
    cast.stage.print("81000", "3")
    cast.account.spot.match(NOW)
    events = cast.events()
    assert kinds(events) == ["EXPIRED EXPIRED", "listStatus", "TRADE FILLED", "outboundAccountPosition"]
    assert (events[0]["eR"], events[1]["l"], events[1]["L"]) == ("OCO_TRIGGER", "ALL_DONE", "ALL_DONE")
    assert balances(cast)["BTC"][1] == "0"


def oto(**changes: str) -> Params:
    """Return the parameters of a buy order with a sell order behind it."""
    return Params(
        {
            "symbol": "BTCUSDT", "workingType": "LIMIT", "workingSide": "BUY", "workingPrice": "79000",
            "workingQuantity": "0.5", "workingTimeInForce": "GTC", "pendingType": "LIMIT", "pendingSide": "SELL",
            "pendingPrice": "82000", "pendingQuantity": "0.4", "pendingTimeInForce": "GTC", **changes,
        }
    )  # fmt: skip


def test_the_pending_leg_of_an_oto_waits_for_the_working_one() -> None:
    """The second order is placed when the first is filled, and expires when the first ends unfilled."""
    cast = funded()
    params = oto()
    listed = cast.account.spot.place_list(params, "OTO", oto_legs(params), NOW)
    working, pending = listed.orders
    assert (working.status, pending.status, pending.working) == ("NEW", "PENDING_NEW", False)
    cast.stage.print("78000", "9")
    cast.account.spot.match(NOW)
    assert (working.status, pending.status, pending.working) == ("FILLED", "NEW", True)
    assert listed.status == "EXECUTING"
    cast.account.spot.cancel(pending, NOW)
    assert listed.status == "ALL_DONE"
    cast.stage.price = Decimal(80_000)
    second = cast.account.spot.place_list(params, "OTO", oto_legs(params), NOW)
    cast.account.spot.expire(second.orders[0], NOW, "EXCHANGE_CANCELED")
    assert [o.expiry_reason for o in second.orders] == ["EXCHANGE_CANCELED", "OTO_PHASE_ONE_EXPIRED"]
    assert all(balance.locked == 0 for balance in cast.account.spot.balances.values())


REFUSED = [
    (limit("BUY", "10", "79000"), -2010),
    (limit("BUY", "0.5", "79000.001"), -1013),
    (limit("BUY", "0.000001", "79000"), -1013),
    (limit("LEND", "0.5", "79000"), -1117),
    (limit("BUY", "0.5", "79000", type="LIMITED"), -1116),
    (limit("BUY", "0.5", "79000", timeInForce="GTX"), -1115),
    (limit("BUY", "0.5", "79000", symbol="NONE"), -1121),
    (limit("BUY", "half", "79000"), -1100),
    (limit("BUY", "0.5", "80001", type="LIMIT_MAKER"), -2010),
    (
        Params(
            {
                "symbol": "BTCUSDT",
                "side": "SELL",
                "type": "STOP_LOSS",
                "quantity": "1",
                "stopPrice": "80000",
            }
        ),
        -2010,
    ),
]


@pytest.mark.parametrize(("params", "code"), REFUSED)
def test_refused_orders_change_nothing(params: Params, code: int) -> None:
    """What the exchange refuses has a code, no event, no order and no lock."""
    cast = funded()
    with pytest.raises(Refused) as caught:
        cast.account.spot.place(params, NOW)
    assert caught.value.code == code
    assert (cast.events(), cast.account.spot.orders) == ([], {})
    assert all(balance.locked == 0 for balance in cast.account.spot.balances.values())


def example(name: str) -> Any:
    """Return the documentation's event without its wrapper."""
    return EXAMPLES[name]["event"]


def test_events_have_the_documented_shape() -> None:
    """Each kind of event has the documented keys, in their order, with the documented kinds of values."""
    cast = funded(scripted=True)
    spot = cast.account.spot
    base = example("executionReport:NEW")
    del base["v"]  # the example's prevented match id belongs to self-trade prevention
    order = spot.place(limit("BUY", "0.5", "79000"), NOW)
    assert shape(cast.events("executionReport")) == [shape(base)]
    spot.amend(order, Decimal("0.4"), NOW)
    assert shape(cast.events("executionReport")) == [shape(example("executionReport:REPLACED"))]
    spot.fill(order, Decimal("0.1"), Decimal(79_000), NOW, maker=True)
    trade, position = cast.events()
    assert shape(trade) == shape(example("executionReport:TRADE"))
    assert shape(position) == shape(example("outboundAccountPosition"))
    spot.prevent(order, Decimal("0.1"), Decimal(79_000), NOW, 37)
    prevented = cast.events("executionReport")[0]
    documented = example("executionReport:TRADE_PREVENTION")
    assert set(prevented) == set(documented)
    assert {k: shape(v) for k, v in prevented.items()} == {k: shape(v) for k, v in documented.items()}
    spot.cancel(order, NOW, "cancel")
    assert shape(cast.events("executionReport")) == [shape(example("executionReport:CANCELED"))]
    other = spot.place(limit("BUY", "0.5", "79000", strategyId="1", strategyType="1000000"), NOW)
    assert shape(cast.events("executionReport")) == [shape(example("executionReport:strategy"))]
    spot.expire(other, NOW, "EXCHANGE_CANCELED")
    expired = cast.events("executionReport")[0]
    assert set(expired) == set(example("executionReport:EXPIRED")) | {"W", "j", "J"}
    spot.reject(limit("BUY", "0.5", "79000"), NOW, "INSUFFICIENT_BALANCES")
    assert shape(cast.events("executionReport")) == [shape(example("executionReport:REJECTED"))]
    trailing = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS_LIMIT", "timeInForce": "GTC"}
    spot.place(Params({**trailing, "quantity": "1", "price": "70000", "trailingDelta": "100"}), NOW)
    assert shape(cast.events("executionReport")) == [shape(example("executionReport:trailing"))]
    spot.deposit("BTC", Decimal(1), NOW)
    assert shape(cast.events("balanceUpdate")) == [shape(example("balanceUpdate"))]
    spot.lock("BTC", Decimal("0.5"), NOW)
    assert shape(cast.events("externalLockUpdate")) == [shape(example("externalLockUpdate"))]


def test_answers_have_the_documented_shape() -> None:
    """Answers to placing, cancelling, amending and asking have the documented keys and kinds of values."""
    cast = funded(scripted=True)
    spot = cast.account.spot
    order = spot.place(limit("BUY", "0.5", "79000"), NOW)
    assert shape(order.row()) == shape(EXAMPLES["order"])
    spot.fill(order, Decimal("0.1"), Decimal(79_000), NOW, maker=True)
    assert shape(order.reply("ACK", NOW)) == shape(EXAMPLES["order ACK"])
    assert shape(order.reply("RESULT", NOW)) == shape(EXAMPLES["order RESULT"])
    full = order.reply("FULL", NOW)
    assert set(full) == set(EXAMPLES["order FULL"])
    assert shape(full["fills"]) == shape(EXAMPLES["order FULL"]["fills"])
    assert shape(order.cancelled("bye", NOW)) == shape(EXAMPLES["order cancelled"])
    assert shape(order.amended("old", 75, NOW)) == shape(EXAMPLES["order amended"])
    assert shape(spot.row(7)) == shape(EXAMPLES["account"])
    assert shape([trade.row() for trade in spot.trades]) == shape(EXAMPLES["myTrades"])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 120), scripted=st.booleans())
def test_money_adds_up(seed: int, steps: int, scripted: bool) -> None:
    """Deposits, trades and fees make the balances, open orders the locks, and the newest events say so."""
    cast = Cast(scripted=scripted)
    random = Random(seed)
    for step in range(steps):
        if not scripted and random.randrange(3) == 0:
            cast.stage.print(str(80_000 + random.randrange(-3000, 3000)), "0.3", NOW + step)
        improvise(random, cast.account, "spot", "BTCUSDT", NOW + step)
    cast.account.spot.match(NOW + steps)
    events = cast.events()
    total: dict[str, Decimal] = {}
    locked: dict[str, Decimal] = {}
    told: dict[str, tuple[Decimal, Decimal]] = {}
    for event in events:
        match event["e"]:
            case "balanceUpdate":
                total[event["a"]] = total.get(event["a"], Decimal(0)) + Decimal(event["d"])
            case "externalLockUpdate":
                locked[event["a"]] = locked.get(event["a"], Decimal(0)) + Decimal(event["d"])
            case "outboundAccountPosition":
                told |= {row["a"]: (Decimal(row["f"]), Decimal(row["l"])) for row in event["B"]}
            case "executionReport" if event["x"] == "TRADE":
                sign = 1 if event["S"] == "BUY" else -1
                for asset, change in (
                    ("BTC", sign * Decimal(event["l"])),
                    ("USDT", -sign * Decimal(event["Y"])),
                    (event["N"], -Decimal(event["n"])),
                ):
                    total[asset] = total.get(asset, Decimal(0)) + change
    shared: dict[int, tuple[str, Decimal]] = {}
    for order in cast.account.spot.open_orders():
        asset, price = (
            ("USDT", order.price or order.stop_price) if order.side == "BUY" else ("BTC", Decimal(1))
        )
        unlocked = order.type == "MARKET" or order.status == "PENDING_NEW"
        held = Decimal(0) if unlocked else order.remaining * price
        # the legs of an OCO lock together what the dearer one needs
        group = order.list_id if order.list_id > 0 and not unlocked else -order.order_id
        shared[group] = (asset, max(held, shared.get(group, (asset, held))[1]))
    for asset, held in shared.values():
        locked[asset] = locked.get(asset, Decimal(0)) + held
    have = cast.account.spot.balances
    assert {a: b.free + b.locked for a, b in have.items()} == {a: total.get(a, Decimal(0)) for a in have}
    assert {a: b.locked for a, b in have.items()} == {a: locked.get(a, Decimal(0)) for a in have}
    assert {a: (b.free, b.locked) for a, b in have.items() if b.free or b.locked} == {
        a: v for a, v in told.items() if any(v)
    }
    assert all(b.free >= 0 and b.locked >= 0 for b in have.values())
    for listed in cast.account.spot.lists.values():
        alive = any(order.open for order in listed.orders)
        assert (listed.status == "EXECUTING") == alive or listed.contingency == "OCO"
    ids = [(e["s"], e["I"]) for e in events if e["e"] == "executionReport"]
    assert ids == sorted(set(ids))
    json.dumps(cast.account.state())
