"""What is known of an account, learned from events and answers."""

import json

import pytest

from bridge.core.account_progress import AccountProgress, Balance, OrderId, OrderRow, SymbolProgress


def told(*events):
    """Return what is known after these events."""
    progress = AccountProgress()
    for event in events:
        progress.event(json.dumps(event).encode())
    return progress


def report(**fields):
    """Return an executionReport; letters mean other things elsewhere (``o`` is a text, ``B`` a number)."""
    base = {"e": "executionReport", "s": "BTCUSDT", "i": 7, "o": "LIMIT", "X": "NEW", "t": -1, "B": "3.0"}
    return {"subscriptionId": 0, "event": {**base, **fields}}


def update(**fields):
    """Return an ORDER_TRADE_UPDATE, on coinm with the account's alias as ``i``."""
    base = {"s": "BTCUSD_PERP", "i": 9, "o": "LIMIT", "X": "NEW", "t": 0}
    return {"e": "ORDER_TRADE_UPDATE", "i": "alias", "o": {**base, **fields}}


def test_spot_reports_tell_orders_and_trades():
    """Newest order and trade of a symbol, and what is open; -1 is no trade, and 0 is one."""
    progress = told(report(), report(i=8, X="PARTIALLY_FILLED", t=0), report(i=7, X="CANCELED"))
    assert progress.symbols == {"BTCUSDT": SymbolProgress(8, 0)}
    assert progress.open_orders == {OrderId("BTCUSDT", 8)}


def test_futures_updates_tell_orders_and_trades():
    """The same from the inner object; there 0 is no trade."""
    progress = told(update(), update(X="FILLED", t=55), update(i=10))
    assert progress.symbols == {"BTCUSD_PERP": SymbolProgress(10, 55)}
    assert progress.open_orders == {OrderId("BTCUSD_PERP", 10)}


def test_conditional_orders_are_kept_apart():
    """They have ids of their own, and are open until they triggered or ended."""

    def algo(number, status):
        return {"e": "ALGO_UPDATE", "o": {"aid": number, "s": "ETHUSDT", "X": status, "ai": ""}}

    progress = told(algo(1, "NEW"), algo(2, "NEW"), algo(1, "TRIGGERING"), algo(2, "CANCELED"))
    assert (progress.open_algos, progress.open_orders) == ({OrderId("ETHUSDT", 1)}, set())
    assert progress.symbols == {"ETHUSDT": SymbolProgress()}


def test_balances_are_kept_as_text():
    """An account position replaces the assets that it lists."""
    position = {"e": "outboundAccountPosition", "B": [{"a": "ETH", "f": "1.50", "l": "0.0"}]}
    progress = told({"subscriptionId": 0, "event": position})
    assert progress.balances == {"ETH": Balance("1.50", "0.0")}


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b'{"e":"executionReport"}', b'{"e":"newThing","s":1}']
)
def test_what_is_no_event_teaches_nothing(payload):
    """Garbage, half an event and unknown ones are somebody else's business."""
    progress = AccountProgress()
    progress.event(payload)
    assert progress == AccountProgress()


def test_ids_never_go_back():
    """An older order or trade that is told late changes nothing of the newest."""
    progress = told(report(i=9, t=100, X="FILLED"), report(i=3, t=50, X="FILLED"))
    assert progress.symbols["BTCUSDT"] == SymbolProgress(9, 100)


def test_a_copy_stays_as_it_was():
    """What is learned afterwards does not change what was known."""
    progress = told(report())
    before = progress.copy()
    progress.order_row(OrderRow("BTCUSDT", 20, "NEW"))
    progress.trade("BTCUSDT", 5)
    progress.balances["BTC"] = Balance("1", "0")
    assert before == told(report())
