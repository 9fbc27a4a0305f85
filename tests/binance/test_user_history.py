"""Scripted histories while streams break at every step: what the inbox was told is the whole truth."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bridge.core.account_progress import AccountProgress, SymbolProgress
from tests.binance.private import Inbox, key, rig
from tests.binance.scripted import until

MARKETS = ["spot", "usdm", "coinm"]
#: Where the stream is cut: an event of telemetry or a call of the inbox, and which of its kind.
MOMENTS = [
    ("connection.opening", 1),
    ("connection.started", 1),
    ("authentication.succeeded", 1),
    ("reconciling", 1),
    *[("answered", number) for number in range(1, 6)],
    ("reconciled", 1),
    *[("received", number) for number in range(1, 7)],
]


class Saboteur(Inbox):
    """An inbox that calls ``strike`` at one moment, once."""

    def __init__(self, moment, strike):
        super().__init__()
        self.moment, self.strike = moment, strike
        self.seen = {}

    def happened(self, name):
        self.seen[name] = self.seen.get(name, 0) + 1
        if (name, self.seen[name]) == self.moment:
            self.strike()

    def received(self, message):
        super().received(message)
        self.happened("received")

    def reconciling(self, *told):
        super().reconciling(*told)
        self.happened("reconciling")

    def answered(self, answer):
        super().answered(answer)
        self.happened("answered")

    def reconciled(self, *told, complete):
        super().reconciled(*told, complete=complete)
        self.happened("reconciled")


class Told:
    """Everything an inbox was told of orders and trades, from streams and from REST."""

    def __init__(self, inbox):
        self.orders, self.trades, self.balances = set(), set(), set()
        for event in inbox.events():
            kind = event["e"]
            inner = event["o"] if kind == "ORDER_TRADE_UPDATE" else event
            if kind in ("executionReport", "ORDER_TRADE_UPDATE"):
                self.orders.add((inner["i"], inner["X"]))
                if inner["t"] > (-1 if kind == "executionReport" else 0):
                    self.trades.add(inner["t"])
            for row in event.get("B", ()) if kind == "outboundAccountPosition" else ():
                self.balances.add((row["a"], float(row["f"]), float(row["l"])))
            for row in event["a"]["B"] if kind == "ACCOUNT_UPDATE" else ():
                self.balances.add((row["a"], float(row["wb"])))
        for answer in inbox.answers():
            self._answer(answer.endpoint.rpartition("/")[2], json.loads(answer.payload))

    def _answer(self, name, body):
        if name in ("openOrders", "allOrders", "order"):
            rows = body if isinstance(body, list) else [body]
            self.orders.update((row["orderId"], row["status"]) for row in rows)
        elif name in ("myTrades", "userTrades"):
            self.trades.update(row["id"] for row in body)
        elif name == "account" and "accountType" in body:
            rows = body["balances"]
            self.balances.update((row["asset"], float(row["free"]), float(row["locked"])) for row in rows)
        elif name == "balance":
            self.balances.update((row["asset"], float(row["balance"])) for row in body)


def truth(found, market):
    """Return orders with their last status, trades and balances, as the exchange knows them."""
    state = found.simulator.accounts.named("main").state()[market]
    orders = {(row["orderId"], row["status"]) for row in state["orders"]}
    trades = {row["id"] for row in state["trades"]}
    if market == "spot":
        balances = {(row["asset"], float(row["free"]), float(row["locked"])) for row in state["balances"]}
    else:
        balances = {(row["asset"], float(row["balance"])) for row in state["balances"]}
    return orders, trades, balances


def is_whole(found, inbox, market):
    """Whether the inbox was told everything that is true at the end."""
    told, (orders, trades, balances) = Told(inbox), truth(found, market)
    return orders <= told.orders and trades <= told.trades and balances <= told.balances


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}-{moment[1]}")
async def test_nothing_is_missed_wherever_the_stream_breaks(market, moment):
    """Orders end, fill and begin while nobody listens, and every one of them is told in the end, as is each balance."""
    async with rig() as found:

        def strike():
            found.cut()
            # in the same turn: nobody can be back yet
            found.play("fill", market=market, order="old")
            found.play("cancel", market=market, order="given-up")
            found.place("new", market=market)
            found.play("fill", market=market, order="new")

        inbox = Saboteur(moment, strike)
        found.story.telemetry.listeners["saboteur"] = lambda event: inbox.happened(event.event)
        found.place("old", market=market)
        found.place("given-up", market=market)
        # spot tells by symbol: at the very first start one has to be named, or have an open order
        known = AccountProgress({"BTCUSDT": SymbolProgress()} if market == "spot" else {})
        worker = found.worker(market=market, inbox=inbox, progress={"main": known})
        await worker.start()
        await until(inbox.completed)
        for number in range(4):
            found.place(f"live-{number}", market=market)
        found.play("fill", market=market, order="live-0")
        found.play("cancel", market=market, order="live-1")
        if moment[0] == "answered" and inbox.seen["answered"] < moment[1]:
            found.cut()  # the answer is one of a second reconciliation
        await until(lambda: inbox.seen.get(moment[0], 0) >= moment[1])
        await until(lambda: is_whole(found, inbox, market))


@pytest.mark.parametrize("market", MARKETS)
async def test_breaks_that_follow_each_other_hide_nothing(market):
    """REST is away when the stream is back, and the stream breaks again: the first hole is still asked about."""
    async with rig() as found:
        worker = await found.started(market=market)
        found.place("before", market=market)
        await until(found.inbox.kinds)
        reachable = found.rest.hosts[market]
        if market == "spot":  # futures need REST for the listen key itself
            found.rest.hosts[market] = replace(reachable, rest="http://127.0.0.1:9")
        found.cut()
        found.place("first-hole", market=market)
        found.play(
            "fill", market=market, order="first-hole"
        )  # not open any more: only its number tells of it
        await until(lambda: len(found.told("succeeded")) == 2)
        found.place("on-the-stream", market=market)
        found.play("fill", market=market, order="on-the-stream")
        await until(lambda: json.dumps(found.inbox.events()).count("on-the-stream") >= 2)
        found.cut()
        found.place("second-hole", market=market)
        found.rest.hosts[market] = reachable
        await until(lambda: is_whole(found, found.inbox, market))
        assert worker.progress("main").open_orders


async def test_accounts_that_share_a_connection_are_each_whole():
    """The connection of two accounts breaks; what each did meanwhile is told for it, and not for the other."""
    async with rig() as found:
        await found.started(key(), key("other"))
        found.cut()
        found.place("mine", account="main")
        found.place("theirs", account="other")
        await until(lambda: all(found.inbox.completed(account) == 2 for account in ("main", "other")))
        for account, client_id in (("main", "mine"), ("other", "theirs")):
            orders = json.loads(found.inbox.answers("openOrders", account)[-1].payload)
            assert [one["clientOrderId"] for one in orders] == [client_id]


async def test_conditional_orders_that_come_and_go_are_told():
    """They have a list of their own: one was cancelled and one came and went while nobody listened."""
    conditional = {"market": "usdm", "algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL"}
    terms = {"type": "STOP_MARKET", "quantity": "0.1", "triggerPrice": "60000"}
    async with rig() as found:
        await found.started(market="usdm")
        found.play("place-algo", **conditional, **terms, clientAlgoId="old")
        await until(lambda: "ALGO_UPDATE" in found.inbox.kinds())
        found.cut()
        found.play("cancel-algo", market="usdm", order="old")
        found.play("place-algo", **conditional, **terms, clientAlgoId="between")
        found.play("cancel-algo", market="usdm", order="between")
        await until(lambda: found.inbox.completed() == 2)
        (gone,) = found.inbox.answers("algoOrder")
        assert json.loads(gone.payload)["clientAlgoId"] == "old"
        newest = json.loads(found.inbox.answers("allAlgoOrders")[-1].payload)
        assert {one["clientAlgoId"]: one["algoStatus"] for one in newest} == {
            "old": "CANCELED",
            "between": "CANCELED",
        }
