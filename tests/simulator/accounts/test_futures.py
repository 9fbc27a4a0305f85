"""Futures accounts: what orders and positions do, what is told of it in Binance's shapes, and that money adds up."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.simulator.accounts import futures_views
from bridge.simulator.accounts.futures_orders import value_of
from bridge.simulator.accounts.improvise import improvise
from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused
from tests.simulator.accounts.stage import EXAMPLES, NOW, Cast, limit, market, shape

SYMBOLS = {"usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}


def funded(**options: Any) -> Cast:
    """Return an account with 10 000 USDT in usdm and 2 BTC in coinm."""
    cast = Cast(**options)
    cast.account.usdm.credit("USDT", Decimal(10_000), "DEPOSIT", NOW)
    cast.account.coinm.credit("BTC", Decimal(2), "DEPOSIT", NOW)
    cast.told.clear()
    return cast


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return execution types, reasons, statuses, or event types where they are none of these."""
    return [
        f"{e['o']['x']} {e['o']['X']}"
        if e["e"] == "ORDER_TRADE_UPDATE"
        else e["o"]["X"]
        if e["e"] == "ALGO_UPDATE"
        else e["a"]["m"]
        if e["e"] == "ACCOUNT_UPDATE"
        else e["e"]
        for e in events
    ]


def test_a_position_opens_turns_and_closes() -> None:
    """Fills move the position through zero; gains and fees go to wallet and ledger."""
    cast = funded(scripted=True)
    usdm = cast.account.usdm
    for side, quantity, price in (("BUY", "0.2", "80000"), ("SELL", "0.3", "81000"), ("BUY", "0.1", "80500")):
        order = usdm.place(limit(side, quantity, price), NOW)
        usdm.fill(order, Decimal(quantity), Decimal(price), NOW, maker=True)
    assert [str(trade.realised) for trade in usdm.trades] == ["0", "200.00000000", "50.00000000"]
    fees = Decimal("0.0002") * (16_000 + 24_300 + 8_050)
    assert usdm.wallets["USDT"].balance == 10_000 + 250 - fees
    assert sum(entry.amount for entry in usdm.income) == usdm.wallets["USDT"].balance
    position = usdm.positions["BTCUSDT", "BOTH"]
    assert (position.amount, position.cost, position.entry, position.realised) == (0, 0, 0, 250)
    opened, turned = cast.events("ACCOUNT_UPDATE")[:2]
    assert (opened["a"]["P"][0]["pa"], opened["a"]["P"][0]["ep"]) == ("0.2", "80000")
    assert (turned["a"]["P"][0]["pa"], turned["a"]["P"][0]["ep"], turned["a"]["P"][0]["cr"]) == (
        "-0.1",
        "81000",
        "200",
    )


def test_inverse_contracts_settle_in_the_coin() -> None:
    """On coinm quantity is contracts, and gain, fee and wallet are of the coin."""
    cast = funded(scripted=True)
    coinm = cast.account.coinm
    for side, price in (("BUY", "80000"), ("SELL", "100000")):
        order = coinm.place(limit(side, "80", price, symbol="BTCUSD_PERP"), NOW)
        coinm.fill(order, Decimal(80), Decimal(price), NOW, maker=False)
    bought, sold = coinm.trades
    assert (bought.value, sold.value, sold.realised) == (Decimal("0.1"), Decimal("0.08"), Decimal("0.02"))
    assert coinm.wallets["BTC"].balance == 2 + Decimal("0.02") - Decimal("0.0005") * Decimal("0.18")
    assert sold.row()["baseQty"] == "0.08000000"


def test_one_fill_makes_three_events() -> None:
    """A usdm fill is told lightly, then by account, then by order; coinm has no light one."""
    cast = funded()
    cast.account.usdm.place(market("BUY", "0.1"), NOW)
    assert kinds(cast.events()) == ["NEW NEW", "TRADE_LITE", "ORDER", "TRADE FILLED"]
    cast.account.coinm.place(market("BUY", "1", symbol="BTCUSD_PERP"), NOW)
    assert kinds(cast.events()) == ["NEW NEW", "ORDER", "TRADE FILLED"]


def stop(**more: str) -> Params:
    """Return the parameters of a stop that closes a long position."""
    fields = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET"}
    return Params({**fields, "quantity": "0.1", "triggerPrice": "79000", "clientAlgoId": "stop", **more})


def test_a_conditional_order_triggers_into_a_plain_one() -> None:
    """An algo order lives apart, then becomes an order with its own id that fills; it ends FINISHED."""
    cast = funded()
    usdm = cast.account.usdm
    usdm.place(market("BUY", "0.1"), NOW)
    cast.events()
    algo = usdm.place_algo(stop(reduceOnly="true"), NOW)
    assert (kinds(cast.events()), len(usdm.orders)) == (["NEW"], 1)
    cast.stage.print("79000", "1")
    usdm.match(NOW)
    events = cast.events()
    assert kinds(events) == [
        "TRIGGERING", "TRIGGERED", "NEW NEW", "TRADE_LITE", "ORDER", "TRADE FILLED", "FINISHED",
    ]  # fmt: skip
    placed, done = events[2]["o"], events[-1]["o"]
    assert (placed["o"], placed["ot"], placed["c"]) == ("MARKET", "STOP_MARKET", "stop")
    assert (done["ai"], done["ap"], done["aq"], done["act"]) == (str(placed["i"]), "78999", "0.1", "MARKET")
    assert algo.row()["algoStatus"] == "FINISHED"


def test_a_trigger_the_account_cannot_have_is_rejected() -> None:
    """A reduce-only stop without a position is rejected when it triggers, with the reason."""
    cast = funded()
    cast.account.usdm.place_algo(stop(reduceOnly="true"), NOW)
    cast.stage.print("78000", "1")
    cast.account.usdm.match(NOW)
    last = cast.events()[-1]["o"]
    assert (last["X"], last["rm"], last["ai"]) == ("REJECTED", "ReduceOnly Order is rejected.", "")


def test_a_stop_of_coinm_is_a_plain_order() -> None:
    """On coinm a stop is an order that expires into itself; on usdm the endpoint refuses it."""
    cast = funded()
    params = stop(symbol="BTCUSD_PERP", quantity="5", stopPrice="79000")
    order = cast.account.coinm.place(params, NOW)
    cast.stage.print("79000", "1")
    cast.account.coinm.match(NOW)
    events = cast.events()
    assert kinds(events) == ["NEW NEW", "EXPIRED EXPIRED", "NEW NEW", "ORDER", "TRADE FILLED"]
    assert {e["o"]["i"] for e in events if "o" in e} == {order.order_id}
    assert (events[1]["o"]["er"], events[2]["o"]["o"]) == ("8", "MARKET")
    with pytest.raises(Refused) as caught:
        cast.account.usdm.place(stop(), NOW)
    assert caught.value.code == -4120


def test_a_trailing_stop_follows_the_price() -> None:
    """A trailing stop triggers when the price comes back by its rate from the best one."""
    cast = funded()
    trailing = stop(type="TRAILING_STOP_MARKET", callbackRate="1", activationPrice="81000")
    algo = cast.account.usdm.place_algo(trailing, NOW)
    for price, status in (("80500", "NEW"), ("82000", "NEW"), ("81200", "NEW"), ("81180", "FINISHED")):
        cast.stage.print(price, "1")
        cast.account.usdm.match(NOW)
        assert algo.status == status, price
    events = [e["o"] for e in cast.events("ALGO_UPDATE")]
    assert [(e["X"], e["ia"]) for e in events[:2]] == [("NEW", False), ("NEW", True)]


def test_funding_is_paid_by_longs_and_got_by_shorts() -> None:
    """Funding is amount times mark price times rate; only isolated positions are shown with it."""
    cast = funded()
    usdm, coinm = cast.account.usdm, cast.account.coinm
    usdm.place(market("BUY", "0.1"), NOW)
    coinm.set_margin_type("BTCUSD_PERP", True, NOW)
    coinm.place(market("SELL", "80", symbol="BTCUSD_PERP"), NOW)
    cast.events()
    assert usdm.fund("BTCUSDT", Decimal("0.0001"), NOW) == Decimal("-0.8")
    assert coinm.fund("BTCUSD_PERP", Decimal("0.0001"), NOW) == Decimal("0.00001")
    crossed, isolated = cast.events()
    assert (crossed["a"]["B"][0]["bc"], crossed["a"]["P"], crossed["a"]["S"]) == (
        "-0.80000000",
        [],
        "BTCUSDT",
    )
    assert [p["mt"] for p in isolated["a"]["P"]] == ["isolated"]
    assert [entry.kind for entry in usdm.income][-1] == "FUNDING_FEE"


def test_liquidation_closes_everything() -> None:
    """Open orders expire, the position is closed by the exchange's own order, and no wallet stays below zero."""
    cast = funded()
    usdm = cast.account.usdm
    usdm.place(market("BUY", "1"), NOW)
    usdm.place(limit("BUY", "0.1", "70000"), NOW)
    cast.events()
    usdm.call_margin(NOW)
    usdm.liquidate("BTCUSDT", Decimal(60_000), NOW)
    events = cast.events()
    assert kinds(events) == [
        "MARGIN_CALL", "EXPIRED EXPIRED", "NEW NEW", "TRADE_LITE", "ORDER", "CALCULATED FILLED", "INSURANCE_CLEAR",
    ]  # fmt: skip
    assert events[1]["o"]["er"] == "5"
    assert events[5]["o"]["c"].startswith("autoclose-")
    assert (usdm.positions["BTCUSDT", "BOTH"].amount, usdm.wallets["USDT"].balance) == (0, 0)


def test_hedged_positions_are_kept_apart() -> None:
    """In hedge mode long and short of one contract are two positions; orders must name their side."""
    cast = funded()
    usdm = cast.account.usdm
    usdm.set_hedged(True)
    with pytest.raises(Refused) as caught:
        usdm.place(market("BUY", "0.1"), NOW)
    assert caught.value.code == -4061
    usdm.place(market("BUY", "0.1", positionSide="LONG"), NOW)
    usdm.place(market("SELL", "0.2", positionSide="SHORT"), NOW)
    assert {side: p.amount for (_, side), p in usdm.positions.items()} == {
        "LONG": Decimal("0.1"),
        "SHORT": Decimal("-0.2"),
    }


REFUSED = [
    (market("BUY", "100"), -2019),
    (market("BUY", "0.1", reduceOnly="true"), -2022),
    (limit("BUY", "0.1", "80001", timeInForce="GTX"), -5022),
    (limit("BUY", "0.1", "80000.05"), -4014),
    (limit("BUY", "0.0001", "80000"), -1111),
    (market("BUY", "1", symbol="BTCUSD_PERP"), -1121),
]


@pytest.mark.parametrize(("params", "code"), REFUSED)
def test_refused_orders_change_nothing(params: Params, code: int) -> None:
    """What the exchange refuses has a code, no event and no order."""
    cast = funded()
    with pytest.raises(Refused) as caught:
        cast.account.usdm.place(params, NOW)
    assert (caught.value.code, cast.events(), cast.account.usdm.orders) == (code, [], {})


def test_events_have_the_documented_shape() -> None:
    """Each kind of event has the documented keys, in their order, with the documented kinds of values."""
    cast = funded(scripted=True)
    usdm = cast.account.usdm
    order = usdm.place(limit("BUY", "0.2", "80000"), NOW)
    usdm.fill(
        order, Decimal("0.1"), Decimal(80_000), NOW, maker=False, commission=("USDT", Decimal("0.00057"))
    )
    _, light, account, trade = cast.events()
    assert shape(light) == shape(EXAMPLES["TRADE_LITE"])
    assert shape(account) == shape(EXAMPLES["ACCOUNT_UPDATE:ORDER"])
    assert shape(trade) == shape(EXAMPLES["ORDER_TRADE_UPDATE"])
    usdm.fund("BTCUSDT", Decimal("0.0001"), NOW)
    assert shape(cast.events()[0]) == shape(EXAMPLES["ACCOUNT_UPDATE:FUNDING_FEE"])
    usdm.call_margin(NOW)
    assert shape(cast.events()[0]) == shape(EXAMPLES["MARGIN_CALL"])
    usdm.set_leverage("BTCUSDT", 25, NOW)
    assert shape(cast.events()[0]) == shape(EXAMPLES["ACCOUNT_CONFIG_UPDATE"])
    usdm.place_algo(stop(), NOW)
    assert shape(cast.events()[0]) == shape(EXAMPLES["ALGO_UPDATE"])
    for kind, key in (("STRATEGY_UPDATE", "su"), ("GRID_UPDATE", "gu")):
        usdm.tell_bot(kind, key, EXAMPLES[kind][key], NOW)
        assert shape(cast.events()[0]) == shape(EXAMPLES[kind])


def test_coinm_events_differ_as_documented() -> None:
    """Coinm shows the account's alias and the margin asset, and lacks what only usdm has."""
    cast = funded(scripted=True)
    order = cast.account.coinm.place(limit("BUY", "2", "80000", symbol="BTCUSD_PERP"), NOW)
    cast.account.coinm.fill(order, Decimal(1), Decimal(80_000), NOW, maker=True)
    _, account, trade = cast.events()
    usdm = EXAMPLES["ORDER_TRADE_UPDATE"]
    assert (account["i"], trade["i"]) == (cast.account.coinm.alias, cast.account.coinm.alias)
    assert set(trade["o"]) == set(usdm["o"]) - {"si", "ss", "gtd"} | {"ma"}


@pytest.mark.parametrize("market_", ["usdm", "coinm"])
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 120), scripted=st.booleans())
def test_money_and_positions_add_up(market_: str, seed: int, steps: int, scripted: bool) -> None:
    """The ledger makes the wallet, fills make positions, and gains with what is open are the fills' worth, exactly."""
    cast = Cast(scripted=scripted)
    side, symbol, random = cast.account.futures(market_), SYMBOLS[market_], Random(seed)
    for step in range(steps):
        cast.stage.print(str(80_000 + random.randrange(-3000, 3000)), "3", NOW + step)
        improvise(random, cast.account, market_, symbol, NOW + step)
    side.match(NOW + steps)
    assert {asset: wallet.balance for asset, wallet in side.wallets.items()} == {
        asset: sum((i.amount for i in side.income if i.asset == asset), Decimal(0)) for asset in side.wallets
    }
    signed = [(1 if t.side == "BUY" else -1, t) for t in side.trades]
    assert sum(p.amount for p in side.positions.values()) == sum(s * t.quantity for s, t in signed)
    flow = sum(s * t.value for s, t in signed) * (1 if market_ == "coinm" else -1)
    open_cost = sum(p.cost * (1 if p.amount > 0 else -1) for p in side.positions.values())
    gained = sum((t.realised for t in side.trades), Decimal(0))
    assert gained == flow + open_cost * (-1 if market_ == "coinm" else 1)
    told: dict[str, str] = {}
    amounts: dict[str, str] = {}
    for event in cast.events("ACCOUNT_UPDATE"):
        told |= {row["a"]: row["wb"] for row in event["a"]["B"]}
        amounts |= {row["s"]: row["pa"] for row in event["a"]["P"]}
    assert {asset: Decimal(text) for asset, text in told.items()} == {
        asset: wallet.balance for asset, wallet in side.wallets.items() if asset in told
    }
    assert all(Decimal(amounts[p.terms.symbol]) == p.amount for p in side.positions.values() if p.cost)
    for position in side.positions.values():
        mark = cast.stage.price
        value = value_of(position.terms, abs(position.amount), mark)
        gap = (value - position.cost) * (1 if position.amount > 0 else -1)
        assert position.unrealised(mark) == (-gap if market_ == "coinm" else gap)
    json.dumps([cast.account.state(), futures_views.account(side)])
