"""What REST is asked, and what it teaches; every answer here is made up by a small exchange."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.account_progress import AccountProgress, Balance, OrderId, SymbolProgress
from bridge.core.private_settings import PrivateSettings
from bridge.core.reconciliation import reconciliation
from bridge.errors import UnexpectedMessage

NOW_MS = 1_795_305_600_000
DAY_MS = 86_400_000


class Exchange:
    """Answers by the rules of the documentation. ``missing`` paths are refused."""

    def __init__(self, *, missing=()):
        self.balances, self.orders, self.trades, self.income, self.positions = [], [], [], [], []
        self.algos = []
        self.missing = set(missing)
        self.asked = []

    def order(self, order_id, status="NEW", symbol="BTCUSDT"):
        self.orders.append({"symbol": symbol, "orderId": order_id, "status": status})

    def trade(self, trade_id, symbol="BTCUSDT"):
        self.trades.append({"symbol": symbol, "id": trade_id})

    def answer(self, path, params):
        mine = [one for one in self.orders if one["symbol"] == params.get("symbol", one["symbol"])]
        trades = [one for one in self.trades if one["symbol"] == params.get("symbol")]
        answers = {
            "account": lambda: {"balances": self.balances, "positions": []},
            "balance": list,
            "positionRisk": lambda: self.positions,
            "openOrders": lambda: [one for one in mine if one["status"] == "NEW"],
            "openAlgoOrders": lambda: [one for one in self.algos if one["algoStatus"] == "NEW"],
            "allAlgoOrders": lambda: [one for one in self.algos if one["symbol"] == params["symbol"]],
            "order": lambda: next(one for one in mine if one["orderId"] == params["orderId"]),
            "algoOrder": lambda: next(one for one in self.algos if one["algoId"] == params["algoId"]),
            "allOrders": lambda: page(mine, "orderId", params.get("orderId"), params["limit"]),
            "myTrades": lambda: page(trades, "id", params.get("fromId"), params["limit"]),
            "userTrades": lambda: page(trades, "id", params.get("fromId"), params["limit"]),
            "income": lambda: self._income(**params),
        }
        return answers[path.rpartition("/")[2]]()

    def _income(self, startTime, limit, page):  # noqa: N803 - the exchange's own names
        late = [one for one in self.income if one["time"] >= startTime]
        return late[(page - 1) * limit : page * limit]

    def reconcile(self, before=None, market="spot", progress=None, pairs=None, page=1000):
        """Run a reconciliation to its end; return what is known then."""
        before = before or AccountProgress()
        progress = progress or before.copy()
        own = PrivateSettings(page=page)
        steps = reconciliation(market, before, progress, own, now_ms=NOW_MS, pairs=pairs or {})
        answer = None
        self.asked = []
        while True:
            try:
                question = steps.send(answer)
            except StopIteration:
                return progress
            self.asked.append((question.path, dict(question.params)))
            if question.path in self.missing:
                assert question.optional
                answer = None
            else:
                answer = json.dumps(self.answer(question.path, question.params)).encode()

    def paths(self):
        return [path for path, _ in self.asked]


def page(rows, name, first, limit):
    """Return the oldest rows from an id on, or the newest."""
    rows = sorted(rows, key=lambda row: row[name])
    return rows[-limit:] if first is None else [row for row in rows if row[name] >= first][:limit]


def test_spot_asks_for_the_account_then_orders_then_what_each_symbol_did():
    """With nothing known, open orders say which symbols to ask about, from the newest back."""
    exchange = Exchange()
    exchange.order(5)
    exchange.order(3, "FILLED")
    exchange.trade(70)
    progress = exchange.reconcile()
    assert exchange.asked == [
        ("/api/v3/account", {}),
        ("/api/v3/openOrders", {}),
        ("/api/v3/allOrders", {"symbol": "BTCUSDT", "limit": 1000}),
        ("/api/v3/myTrades", {"symbol": "BTCUSDT", "limit": 1000}),
    ]
    assert progress.symbols == {"BTCUSDT": SymbolProgress(5, 70)}
    assert progress.open_orders == {OrderId("BTCUSDT", 5)}


def test_known_symbols_are_asked_from_the_newest_order_and_after_the_newest_trade():
    """The newest order may have changed, so it is asked for again; a trade never changes."""
    exchange = Exchange()
    before = AccountProgress({"BTCUSDT": SymbolProgress(5, 70)})
    exchange.reconcile(before)
    assert exchange.asked[2:] == [
        ("/api/v3/allOrders", {"symbol": "BTCUSDT", "limit": 1000, "orderId": 5}),
        ("/api/v3/myTrades", {"symbol": "BTCUSDT", "limit": 1000, "fromId": 71}),
    ]


def test_what_came_on_the_new_stream_does_not_hide_what_was_before():
    """Order 9 came on the stream already; 6 to 8, from while nobody listened, are asked for all the same."""
    exchange = Exchange()
    for number in range(5, 10):
        exchange.order(number)
    before = AccountProgress({"BTCUSDT": SymbolProgress(5, None)})
    progress = before.copy()
    progress.order("BTCUSDT", 9, is_open=True)
    exchange.reconcile(before, progress=progress)
    assert ("/api/v3/allOrders", {"symbol": "BTCUSDT", "limit": 1000, "orderId": 5}) in exchange.asked
    assert progress.open_orders == {OrderId("BTCUSDT", number) for number in range(5, 10)}


def test_orders_that_are_open_no_longer_are_asked_for_one_by_one():
    """An old order that ended while nobody listened is neither open nor among the newest."""
    exchange = Exchange()
    exchange.order(2, "FILLED")
    exchange.order(5, "CANCELED")
    before = AccountProgress({"BTCUSDT": SymbolProgress(5, 70)})
    before.open_orders = {OrderId("BTCUSDT", 2), OrderId("BTCUSDT", 5)}
    progress = exchange.reconcile(before)
    assert exchange.paths().count("/api/v3/order") == 1  # order 5 is in allOrders from 5 on
    assert ("/api/v3/order", {"symbol": "BTCUSDT", "orderId": 2}) in exchange.asked
    assert progress.open_orders == set()


def test_an_order_the_exchange_archived_is_forgotten():
    """A refusal of the question is an answer as well: the order is gone."""
    exchange = Exchange(missing=["/api/v3/order"])
    before = AccountProgress({"BTCUSDT": SymbolProgress(5, 70)}, {OrderId("BTCUSDT", 2)})
    assert exchange.reconcile(before).open_orders == set()


def test_assets_that_changed_say_which_symbols_traded():
    """A trade on a symbol never seen before changes both of its assets; what only moved to an order does not count."""
    exchange = Exchange()
    rows = [("BTC", "1.10", "0.0"), ("USDT", "900", "0"), ("BNB", "3.0", "2.000"), ("ETH", "0", "0")]
    exchange.balances = [{"asset": a, "free": free, "locked": held} for a, free, held in rows]
    before = AccountProgress(
        balances={"BTC": Balance("1", "0"), "USDT": Balance("1000", "0"), "BNB": Balance("5.00", "0")}
    )
    pairs = {"BTCUSDT": ("BTC", "USDT"), "BNBUSDT": ("BNB", "USDT"), "ETHBTC": ("ETH", "BTC")}
    progress = exchange.reconcile(before, pairs=pairs)
    assert [params["symbol"] for path, params in exchange.asked if path.endswith("myTrades")] == ["BTCUSDT"]
    assert progress.balances["USDT"] == Balance("900", "0")


def test_at_the_first_time_no_change_is_seen():
    """Without balances from before everything would have changed: nothing is asked for it."""
    exchange = Exchange()
    exchange.balances = [{"asset": a, "free": "1", "locked": "0"} for a in ("BTC", "USDT")]
    exchange.reconcile(pairs={"BTCUSDT": ("BTC", "USDT")})
    assert exchange.paths() == ["/api/v3/account", "/api/v3/openOrders"]


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(1, 7),
)
def test_paging_by_id_leaves_nothing_out(orders, trades, known, page_size):
    """However many there are and however small a page: everything after what is known is asked for, and learned."""
    exchange = Exchange()
    for number in range(1, orders + 1):
        exchange.order(number, "FILLED")
    for number in range(1, trades + 1):
        exchange.trade(number)
    before = AccountProgress({"BTCUSDT": SymbolProgress(min(known, orders), min(known, trades))})
    seen = set()
    answer = exchange.answer

    def noting(path, params):
        rows = answer(path, params)
        if path.endswith(("allOrders", "myTrades")):
            seen.update((path, row.get("orderId", row.get("id"))) for row in rows)
        return rows

    exchange.answer = noting
    progress = exchange.reconcile(before, page=page_size)
    assert {n for path, n in seen if path.endswith("myTrades")} == set(range(known + 1, trades + 1))
    assert {n for path, n in seen if path.endswith("allOrders")} >= set(range(known + 1, orders + 1))
    assert progress.symbols["BTCUSDT"] == SymbolProgress(orders, trades)


@pytest.mark.parametrize(("market", "prefix", "version"), [("usdm", "/fapi", "v3"), ("coinm", "/dapi", "v1")])
def test_futures_ask_for_the_account_and_learn_symbols_from_income(market, prefix, version):
    """Positions, open orders and income name the symbols; usdm also lists orders of all symbols."""
    exchange = Exchange()
    exchange.positions = [{"symbol": "A", "positionAmt": "-1"}, {"symbol": "FLAT", "positionAmt": "0.0"}]
    exchange.income = [{"symbol": "B", "time": NOW_MS - 5}, {"symbol": "", "time": NOW_MS - 3}]
    exchange.order(4, symbol="C")
    exchange.order(9, "EXPIRED", symbol="D")
    progress = exchange.reconcile(market=market)
    assert exchange.paths()[:6] == [
        f"{prefix}/{version}/account",
        f"{prefix}/{version}/balance",
        f"{prefix}/{version}/positionRisk",
        f"{prefix}/v1/openOrders",
        f"{prefix}/v1/openAlgoOrders",
        f"{prefix}/v1/income",
    ]
    assert exchange.asked[5][1] == {"startTime": NOW_MS - 7 * DAY_MS, "limit": 1000, "page": 1}
    asked = [params["symbol"] for path, params in exchange.asked if path.endswith("userTrades")]
    assert asked == (["A", "B", "C", "D"] if market == "usdm" else ["A", "B", "C"])
    assert progress.income_ms == NOW_MS - 3


def test_income_is_paged_from_the_newest_known():
    """Pages are asked for until one is not full; what is known of the same millisecond comes again."""
    exchange = Exchange()
    exchange.income = [{"symbol": "A", "time": NOW_MS - 10 + number} for number in range(5)]
    progress = exchange.reconcile(AccountProgress(income_ms=NOW_MS - 10), "usdm", page=2)
    pages = [params for path, params in exchange.asked if path.endswith("income")]
    assert [(one["startTime"], one["page"]) for one in pages] == [(NOW_MS - 10, n) for n in (1, 2, 3)]
    assert progress.income_ms == NOW_MS - 6


def test_conditional_orders_that_are_gone_are_asked_for():
    """A conditional order that is open no longer is asked for by its own id."""
    exchange = Exchange()
    exchange.algos = [
        {"symbol": "A", "algoId": 1, "algoStatus": "FINISHED"},
        {"symbol": "A", "algoId": 2, "algoStatus": "NEW"},
    ]
    before = AccountProgress(open_algos={OrderId("A", 1), OrderId("A", 2)})
    progress = exchange.reconcile(before, "usdm")
    assert ("/fapi/v1/algoOrder", {"algoId": 1}) in exchange.asked
    assert exchange.asked[-1] == ("/fapi/v1/allAlgoOrders", {"symbol": "A", "limit": 1000})
    assert progress.open_algos == {OrderId("A", 2)}


def test_what_usdm_refuses_without_a_symbol_is_done_without():
    """The list of all symbols' orders is young; where it is refused the rest goes on."""
    exchange = Exchange(missing=["/fapi/v1/allOrders"])
    exchange.order(4, symbol="C")
    progress = exchange.reconcile(market="usdm")
    assert "C" in progress.symbols


def test_an_answer_of_another_shape_is_an_error():
    """What can't be read is said, with the path and nothing of the answer."""
    steps = reconciliation(
        "spot", AccountProgress(), AccountProgress(), PrivateSettings(), now_ms=NOW_MS, pairs={}
    )
    next(steps)
    with pytest.raises(UnexpectedMessage, match="/api/v3/account: the answer is not what is documented"):
        steps.send(b'{"balances":{"secret":1}}')
