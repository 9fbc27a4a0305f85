"""Current-state tables: which record is a row, how rows are found, and how a table is kept current."""

from __future__ import annotations

import ast
import asyncio
import gc
import re
import uuid
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalogue import catalogue
from bridge.core.account_records import FUTURES, PRIVATE
from bridge.core.derive import Writer
from bridge.core.user_events import AccountDeriver
from bridge.core.wire import Decoder
from bridge.errors import DecodeError, NotInSync, TopicMismatch, UsageError
from bridge.kafka.publisher import create_publisher
from bridge.kafka.settings import KafkaSettings
from bridge.schema import schemas
from bridge.sdk import (
    AccountEvent,
    Balance,
    CaughtUp,
    LedgerEntry,
    MyTrade,
    Order,
    OrderTable,
    Position,
    Ticker,
    Topics,
    connect,
    testing,
)
from bridge.sdk import sync as sync_sdk
from bridge.sdk.records import TYPES
from bridge.sdk.table_state import TableState
from bridge.sdk.topics import stateful
from tests.core.account_histories import RECEIVED_AT, improvised, instruments
from tests.sdk.broker import writer
from tests.sdk.test_kafka import example

SECOND = 1_000_000
T0 = 1_793_491_200 * SECOND


def order(number=1, status="open", at=0, symbol="BTC/USDT", **fields):
    """Return order ``number`` as it was ``at`` seconds after T0."""
    usual = {
        "exchangeSymbol": symbol.replace("/", "").partition(":")[0],
        "channel": "user",
        "account": "main",
        "id": str(number),
        "clientOrderId": f"mine-{number}",
        "receivedAt": T0 + at * SECOND + 500,
    }
    usual |= {"status": status, "lastUpdateTimestamp": T0 + at * SECOND}
    return testing.record(Order, symbol=symbol, **usual | fields)


def balance(currency="USDT", free="0", at=0, **fields):
    """Return a balance as it was ``at`` seconds after T0."""
    usual = {"exchangeSymbol": currency, "channel": "user", "account": "main", "currency": currency}
    usual |= {"timestamp": T0 + at * SECOND, "lastUpdateTimestamp": T0 + at * SECOND}
    return testing.record(Balance, symbol=currency, free=free, **usual | fields)


def position(symbol="BTC/USDT:USDT", side="BOTH", contracts="1", at=0, **fields):
    """Return a position as it was ``at`` seconds after T0."""
    usual = {
        "exchangeSymbol": symbol.replace("/", "").partition(":")[0],
        "channel": "user",
        "account": "main",
    }
    usual |= {"market": "usdm", "positionSide": side, "lastUpdateTimestamp": T0 + at * SECOND}
    return testing.record(Position, symbol=symbol, contracts=contracts, **usual | fields)


def state(*records):
    """Return a table's rows after records of one identity."""
    found = TableState(lambda _: True)
    for each in records:
        found.take("key", each)
    return found


# Which record is the row


MOMENTS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(0, 3))


@settings(deadline=None)
@given(st.lists(MOMENTS, min_size=1, max_size=12), st.integers(0, 12))
def test_the_row_is_the_newest_of_those_that_were_still_writers(moments, deleted_at):
    """Of what came from no replaced writer the row is the newest by update time, sequence, and place."""
    given_ = [
        order(writerEpoch=epoch, at=at, sequence=sequence, price=str(n))
        for n, (epoch, at, sequence) in enumerate(moments)
    ]
    found = TableState(lambda _: True)
    expected, epoch = None, 0
    for n, record in enumerate(given_):
        if n == deleted_at:
            assert found.delete("key") == (expected is not None)
            expected = None
        changed = found.take("key", record)
        before = expected
        if record.writerEpoch >= epoch:
            epoch = record.writerEpoch
            times = (record.lastUpdateTimestamp, getattr(expected, "lastUpdateTimestamp", 0))
            both = expected is not None and record.sequence is not None and expected.sequence is not None
            same_but_earlier = times[0] == times[1] and both and record.sequence < expected.sequence
            if times[0] >= times[1] and not same_but_earlier:
                expected = record
        assert changed == (expected is not before)
        assert found.rows.get("key") == expected
    assert found.seen.records == len(given_)


def test_a_writer_that_was_replaced_replaces_nothing():
    """A lower epoch is dropped and counted, be it newer by its own time, and brings no deleted row back."""
    found = state(order(at=1, writerEpoch=4), order(at=9, status="closed", writerEpoch=3))
    assert (found.rows["key"].status, found.seen.dropped) == ("open", 1)
    found.delete("key")
    assert not found.take("key", order(at=9, writerEpoch=3))
    assert (found.rows, found.seen.deleted, found.seen.dropped) == ({}, 1, 2)


def test_an_older_state_of_a_later_writer_does_not_count():
    """A take-over may tell again what was before; from then on the writer before is not heard."""
    found = state(
        order(at=5, writerEpoch=1), order(at=4, writerEpoch=2), order(at=6, status="closed", writerEpoch=1)
    )
    assert (found.rows["key"].lastUpdateTimestamp, found.rows["key"].status) == (T0 + 5 * SECOND, "open")
    assert (found.seen.older, found.seen.dropped) == (1, 1)


def test_times_of_two_channels_are_not_compared():
    """Tickers and mini-tickers share a row, their times are of different things: the later record counts."""
    first = testing.record(Ticker, symbol="BTC/USDT", channel="mini-ticker", timestamp=T0 + 9, writerEpoch=7)
    second = testing.record(Ticker, symbol="BTC/USDT", channel="ticker", timestamp=T0, writerEpoch=2)
    assert state(first, second).rows == {"key": second}


def test_names_follow_the_rows():
    """A row is found by each of its names as long as it has them."""
    found = TableState(lambda _: True)
    found.take("a", order(1))
    found.take("b", order(2))
    assert found.named("BTC/USDT") == ["a", "b"]
    found.take("a", order(1, at=1, clientOrderId="amended", symbol="ETH/USDT"))
    assert [found.named(name) for name in ("BTC/USDT", "mine-1", "amended")] == [["b"], [], ["a"]]
    found.delete("a")
    found.fail("b", DecodeError("it is none"))
    assert found._by_name == {}


# How rows are found


async def test_rows_are_found_by_identity_and_by_name():
    """An identity is exact; a symbol, currency, id or client order id will do where one row alone has it."""
    given_ = [order(1), order(2), order(3, symbol="ETH/USDT", market="usdm", conditional=True)]
    async with testing.connect(given_) as client:
        orders = await client.table("order")
        assert list(orders) == ["main:spot:BTCUSDT:1", "main:spot:BTCUSDT:2", "main:usdm:ETHUSDT:algo-3"]
        assert dict(orders) == dict(zip(orders, given_, strict=True))
        for name in ("main:spot:BTCUSDT:2", "2", "mine-2"):
            assert orders[name] == given_[1]
            assert name in orders
        assert orders["ETHUSDT"] == orders["ETH/USDT"] == given_[2]
        assert "BTC/USDT" in orders
        with pytest.raises(
            UsageError,
            match="2 rows of the order table are 'BTC/USDT': main:spot:BTCUSDT:1, main:spot:BTCUSDT:2",
        ):
            orders["BTC/USDT"]
        for name in ("XRP/USDT", "", 5):
            assert name not in orders
        with pytest.raises(KeyError, match="XRP/USDT"):
            orders["XRP/USDT"]


async def test_one_row_is_got_by_its_fields():
    """``get`` finds the row of an account, a market or any other field, and refuses to choose among several."""
    given_ = [
        balance(free="1"),
        balance(free="2", account="other"),
        balance(free="3", market="usdm"),
        balance("BTC", free="4"),
    ]
    async with testing.connect(given_) as client:
        balances = await client.table("balance")
        assert balances.get("USDT", account="main", market="usdm") == given_[2]
        assert balances.get("main:spot:USDT", account="main") == given_[0]
        assert balances.get("main:spot:USDT", account="other") is None
        assert balances.get(account="other") == given_[1]
        assert balances.get("XRP") is None
        assert balances.get("XRP", 0) == 0
        assert balances.get(symbol="BTC", market="spot").free == 4
        with pytest.raises(UsageError, match="2 rows of the balance table are 'USDT' with account='main'"):
            balances.get("USDT", account="main")
        with pytest.raises(UsageError, match="balance records have no field 'markt'; did you mean market"):
            balances.get("USDT", markt="spot")
        with pytest.raises(UsageError, match="4 rows of the balance table are anything"):
            balances.get()


async def test_rows_are_chosen_by_fields_and_tests():
    """``where`` takes values, several values, and functions; ``open`` leaves out what is done with."""
    states = ("open", "canceling", "closed", "canceled", "rejected", "expired", "PENDING_NEW")
    given_ = [order(n, status, amount=str(n)) for n, status in enumerate(states)]
    async with testing.connect([*given_, order(9, account="other")]) as client:
        orders = await client.table("order", account="main")
        assert orders.where() == given_
        assert orders.where(status="closed") == [given_[2]]
        assert orders.where(lambda o: o.amount > 2, status=("closed", "canceled")) == [given_[3]]
        assert orders.open() == [given_[0], given_[1], given_[6]]
        assert orders.open(lambda o: o.amount < 5, market="spot") == given_[:2]
        with pytest.raises(UsageError, match="no field 'state'"):
            orders.open(state="open")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["main:spot", "other:spot", "main:usdm"]),
        ({"account": "main"}, ["main:spot", "main:usdm"]),
        ({"account": ["main", "other"], "market": "spot"}, ["main:spot", "other:spot"]),
        ({"account": "nobody"}, []),
    ],
)
async def test_a_table_is_of_the_accounts_and_markets_asked_for(options, expected):
    """Records of others are no rows."""
    given_ = [balance(), balance(account="other"), balance(market="usdm")]
    async with testing.connect(given_) as client:
        balances = await client.table("balance", **options)
        assert list(balances) == [f"{key}:USDT" for key in expected]
        assert balances.seen.records == len(expected)


async def test_public_structures_have_tables_too():
    """Tickers are rows by symbol."""
    async with testing.connect([testing.record(Ticker, symbol="BTC/USDT", last="1.5")]) as client:
        tickers = await client.table("ticker")
        assert {symbol: row.last for symbol, row in tickers.items()} == {"BTC/USDT": Decimal("1.5")}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["trade"], {}, "no current state is kept of trade records; it is of ticker, bid-ask"),
        (["orders"], {}, "no structure 'orders'"),
        (["order"], {"account": ""}, "account is empty"),
        (["order"], {"market": "moon"}, "market is 'moon'"),
        (["ticker"], {"account": "main"}, "ticker records are of no account"),
    ],
)
async def test_wrong_arguments_are_named(arguments, options, message):
    """A table that can't be is refused at once."""
    async with testing.connect(live=True) as client:
        with pytest.raises(UsageError, match=message):
            await client.table(*arguments, **options)


# How it is kept current


async def test_a_table_follows_what_comes():
    """It starts with all that was, counts each change, and who waits for one goes on."""
    async with testing.connect([order(1), order(1, at=1, filled="1"), order(2)], live=True) as client:
        orders = await client.table("order")
        assert isinstance(orders, OrderTable)
        assert (len(orders), orders["1"].filled, orders.caught_up, orders.reason) == (2, 1, True, None)
        version = orders.version
        waiting = asyncio.ensure_future(orders.changed())
        await asyncio.sleep(0)
        await client.feed(order(2, at=1, status="closed"))
        assert await waiting == version + 1
        assert await orders.changed(version) == version + 1
        assert [each.id for each in orders.open()] == ["1"]
        assert orders.receivedAt == T0 + SECOND + 500
        assert orders.age > 0
        assert repr(orders) == "<OrderTable of order, 2 rows>"


async def test_what_changes_nothing_is_no_change():
    """Records of others, older ones and repeats wake nobody."""
    async with testing.connect([balance(free="1", at=5)], live=True) as client:
        balances = await client.table("balance", account="main")
        version = balances.version
        await client.feed(balance(account="other"), balance(free="2", at=4), balance(free="1", at=5))
        await client.feed(balance(free="3", at=6))
        assert await balances.changed(version) == version + 1
        assert (balances["USDT"].free, balances.seen.older) == (3, 1)


async def test_a_deletion_is_honoured():
    """A record without a value removes the row; a later one makes it anew."""
    async with testing.connect([order(1), order(2)], live=True) as client:
        orders, others = await client.table("order"), await client.table("order", account="other")
        version = orders.version
        await client.delete(order(1), order(7))
        assert await orders.changed(version) == version + 1
        assert (list(orders), orders.seen.deleted) == (["main:spot:BTCUSDT:2"], 1)
        await client.feed(order(1))
        await orders.changed(version + 1)
        assert len(orders) == 2
        assert others.version == 0


async def test_going_through_rows_is_not_disturbed_by_changes():
    """Rows are gone through as they were when that began."""
    async with testing.connect([order(1), order(2)], live=True) as client:
        orders = await client.table("order")
        seen = []
        for row in orders.values():
            await client.delete(order(1), order(2))
            if not seen:
                await orders.changed()
            seen.append(row.id)
        assert seen == ["1", "2"]
        assert len(orders) == 0


async def test_a_value_that_is_no_record_has_no_row():
    """The identity's row is gone rather than outdated, asking for it tells why, and the next record heals it."""
    async with testing.connect([balance(free="1"), balance("BTC")], live=True) as client:
        balances, others = await client.table("balance"), await client.table("balance", account="other")
        version = balances.version
        memory = client._memory
        memory._append(Topics("prod").state("balance"), b"main:spot:USDT", 0, b"poison")
        memory._append(Topics("prod").state("balance"), b"main:spot:BTC", 0, testing.encode(order(1)))
        await memory.wake()
        assert await balances.changed(version + 1) == version + 2
        assert len(balances) == 0
        assert set(balances.unreadable) == {"main:spot:USDT", "main:spot:BTC"}
        with pytest.raises(DecodeError, match=r"state\.balance, partition \d, offset \d: .*706f"):
            balances["USDT"]
        with pytest.raises(DecodeError, match="it is a order"):
            balances["main:spot:BTC"]
        await client.feed(balance(free="2", at=1), balance("BTC", at=1))
        await balances.changed(version + 3)
        assert (balances["USDT"].free, balances.unreadable, others.unreadable) == (2, {}, {})


async def test_a_table_that_was_closed_is_not_served():
    """After its own end, or the client's, rows are only read where stale ones will do."""
    async with testing.connect([balance(free="1")], live=True) as client:
        closed, kept = await client.table("balance"), await client.table("balance", stale_ok=True)
        async with await client.table("balance") as third:
            waiting = asyncio.ensure_future(third.changed())
            await asyncio.sleep(0)
        with pytest.raises(NotInSync, match="the balance table has ended"):
            await waiting
        await closed.aclose()
        await client.feed(balance(free="2", at=1))
        await kept.changed()
        assert (closed.caught_up, closed.reason, kept.caught_up) == (False, "it was closed", True)
        for view in (
            lambda: closed["USDT"], lambda: "USDT" in closed, lambda: list(closed), lambda: len(closed),
            lambda: closed.get("USDT"), closed.where, closed.items, closed.values,
        ):  # fmt: skip
            with pytest.raises(
                NotInSync, match=r"balance table is not kept current: it was closed\. stale_ok"
            ):
                view()
        closed.stale_ok = True
        assert closed["USDT"].free == 1
        assert repr(closed) == "<Table of balance, 1 rows, not kept current: it was closed>"
    assert (kept["USDT"].free, kept.reason) == (2, "it was closed")


async def test_a_source_that_ends_leaves_the_table_as_it_is():
    """Fed from a list, a table has all of it; no change will come."""
    async with testing.connect([balance(free="1")]) as client:
        balances = await client.table("balance")
        with pytest.raises(NotInSync, match="the balance table has ended"):
            await balances.changed()
        assert (balances["USDT"].free, balances.reason, balances.caught_up) == (1, None, True)


async def test_a_reader_that_fails_says_so():
    """Its error is the reason that the table is not kept current, and comes to who waits; another table can be had."""
    async with testing.connect([balance(free="1")], live=True) as client:
        balances = await client.table("balance")
        memory = client._memory
        whole = memory.log

        class Broken(list):
            def __getitem__(self, _):
                raise TopicMismatch("it is gone")

        memory.log = Broken(whole)
        await client.feed(balance(free="2", at=1))
        with pytest.raises(TopicMismatch):
            await balances.changed()
        with pytest.raises(NotInSync, match="its reader failed: it is gone"):
            balances["USDT"]
        with pytest.raises(TopicMismatch):
            await client.table("balance")
        assert client._tables._feeds == {balances._feed}
        memory.log = whole
        assert (await client.table("balance"))["USDT"].free == 1


async def test_loading_that_takes_too_long_says_how_far_it_came():
    """The time-out names the table, the topic and the rows read so far, and leaves nothing behind."""
    before = asyncio.all_tasks()
    async with testing.connect([balance()], live=True) as client:
        reading = type(client._memory.read(None))
        fetch = reading.fetch

        async def slowly(self):
            found = [each for each in await fetch(self) if not isinstance(each, CaughtUp)]
            return found or await asyncio.get_running_loop().create_future()

        reading.fetch = slowly
        try:
            with pytest.raises(
                TimeoutError,
                match=r"balance table was not loaded within 0\.05 s: 1 rows of binance\.prod\.state\.bal",
            ):
                await client.table("balance", timeout=0.05)
        finally:
            reading.fetch = fetch
        assert not client._tables._feeds
        assert asyncio.all_tasks() == before


async def test_a_table_lets_go_of_its_reading():
    """However a table ends, the reading it opened is closed."""
    async with testing.connect([balance()], live=True) as client:
        memory, readings = client._memory, []
        read = memory.read

        def kept(request):
            readings.append(read(request))
            return readings[-1]

        memory.read = kept
        await (await client.table("balance")).aclose()
        assert [reading._closed for reading in readings] == [True]
        table = await client.table("balance")
    assert [reading._closed for reading in readings] == [True, True]
    assert table.reason == "it was closed"


@pytest.mark.parametrize("turns", range(1, 8))
async def test_closing_the_client_while_a_table_loads(turns):
    """Whichever step of loading the close meets, who waits for the table gets it or is told; no task is left."""
    before = asyncio.all_tasks()
    async with testing.connect([balance()], live=True) as client:
        waiting = asyncio.ensure_future(client.table("balance"))
        for _ in range(turns):
            await asyncio.sleep(0)
    (came,) = await asyncio.gather(waiting, return_exceptions=True)
    told = str(came) if isinstance(came, NotInSync) else came.reason
    assert told in {"the balance table was not loaded: it was closed", "it was closed"}
    assert asyncio.all_tasks() == before


async def test_a_table_that_nobody_holds_is_closed():
    """Its reader ends without waiting for the client's end."""
    before = asyncio.all_tasks()
    async with testing.connect([balance()], live=True) as client:
        assert (await client.table("balance"))["USDT"].free == 0
        (reader,) = asyncio.all_tasks() - before
        gc.collect()
        await asyncio.wait([reader], timeout=60)
        assert reader.done()
        assert not client._tables._feeds


def test_without_await():
    """The synchronous client's table has the same views."""
    given_ = [order(1), order(2, status="closed"), order(3, symbol="ETH/USDT")]
    with sync_sdk.Client(testing.connect(given_, live=True)) as client:
        with client.table("order", account="main") as orders:
            assert isinstance(orders, sync_sdk.OrderTable)
            assert (orders.structure, orders.caught_up, orders.reason) == ("order", True, None)
            assert (len(orders), orders["3"], orders.get("ETH/USDT")) == (3, given_[2], given_[2])
            assert list(orders.items()) == list(zip(orders, given_, strict=True))
            assert list(orders.values()) == orders.where() == given_
            assert orders.open(symbol="BTC/USDT") == [given_[0]]
            assert ("mine-1" in orders, "mine-9" in orders, orders.get("9", "none")) == (True, False, "none")
            assert (orders.unreadable, orders.seen.records, orders.receivedAt) == ({}, 3, T0 + 500)
            assert orders.age > 0
            assert "3 rows" in repr(orders)
            version = orders.version
            client._loop.run(client._client.feed(order(1, at=1, status="canceled")))
            assert orders.changed(version, timeout=180) == version + 1
            with pytest.raises(TimeoutError):
                orders.changed(timeout=0.01)
        assert (orders.stale_ok, orders.caught_up) == (False, False)
        with pytest.raises(NotInSync):
            orders["1"]
        orders.stale_ok = True
        assert orders["1"].status == "canceled"
        assert type(client.table("balance")) is sync_sdk.Table


# Streams of accounts


async def test_streams_of_accounts_are_chosen_by_account():
    """Each private structure has its iterator; ``account`` chooses among its records."""
    event = testing.record(AccountEvent, account="main", event="margin-call")
    given_ = {
        "orders": order(1),
        "my_trades": testing.record(MyTrade, symbol="BTC/USDT", account="main"),
        "balances": balance(),
        "positions": position(),
        "ledger": testing.record(LedgerEntry, symbol="USDT", account="main"),
        "account_events": event,
    }
    others = [
        testing.record(type(r), **{n: getattr(r, n) for n in r.__struct_fields__} | {"account": "other"})
        for r in given_.values()
    ]
    async with testing.connect([*others, *given_.values()]) as client:
        for (name, expected), other in zip(given_.items(), others, strict=True):
            stream = getattr(client, name)
            assert [record async for record in stream(account="main")] == [expected]
            assert [record async for record in stream(account=["main", "other"])] == [other, expected]
            assert [record async for record in stream()] == [other, expected]
            assert [record async for record in stream(account="nobody")] == []


async def test_only_keys_that_can_hold_the_records_are_read():
    """Balances are read by currency, orders by symbol, account events by account."""
    async with testing.connect() as client:
        for records, keys in (
            (client.balances("USDT"), {b"USDT"}),
            (client.ledger(["USDT", "BTC"]), {b"USDT", b"BTC"}),
            (client.orders("BTC/USDT", account="main"), {b"BTC/USDT"}),
            (client.orders("BTCUSDT"), None),
            (client.orders(account="main"), None),
            (client.account_events(account="main"), {b"main"}),
            (client.account_events("BTC/USDT"), None),
        ):
            assert records._reading._request.keys == keys


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.balances("BTC/USDT"), "balance records are of a currency; give its code"),
        (lambda c: c.trades(account="main"), "trade records are of no account; leave account out"),
        (lambda c: c.orders(account=[]), "account is empty"),
    ],
)
async def test_wrong_arguments_of_streams_are_named(call, message):
    """What can't be chosen by account or symbol is refused when it is asked for."""
    async with testing.connect() as client:
        with pytest.raises(UsageError, match=message):
            call(client)


async def test_writers_are_told_apart_by_account_and_market():
    """Accounts share the keys of symbols and currencies, but not the epochs of their writers."""
    given_ = [
        balance(free="1", writerEpoch=7),
        balance(free="2", writerEpoch=3, account="other"),
        balance(free="3", writerEpoch=2, market="usdm"),
        balance(free="4", writerEpoch=6),
    ]
    async with testing.connect(given_) as client:
        records = client.balances("USDT")
        assert [int(record.free) async for record in records] == [1, 2, 3]
        assert records.dropped == 1


async def test_markers_of_accounts_need_no_gaps():
    """Accounts have no streams with gaps: only ``CaughtUp`` comes."""
    async with testing.connect([order(1)], live=True) as client:
        records = client.orders(start="earliest", markers=True)
        assert await anext(records) == order(1)
        assert isinstance(await anext(records), CaughtUp)
        assert records._reading._request.topics == ("binance.prod.unified.order",)


async def test_orders_lie_where_they_last_changed():
    """By time an order is found where it changed, as in Kafka, not where it was placed."""
    given_ = [order(1, at=4, timestamp=T0 + 9 * SECOND), order(2, at=6, timestamp=T0)]
    async with testing.connect(given_) as client:
        records = client.orders(start=T0 + 5 * SECOND, end=T0 + 8 * SECOND)
        assert [record.id async for record in records] == ["2"]


async def test_waiting_for_the_next_record_of_an_account():
    """``next`` passes over other accounts."""
    async with testing.connect(live=True) as client:
        waiting = asyncio.ensure_future(client.orders.next("BTC/USDT", account="main", timeout=180))
        await client.feed(order(1, account="other"), order(2))
        assert (await waiting).id == "2"


# The page


PAGE = (Path(__file__).parents[2] / "docs/how-to/orders-and-balances.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[str(n) for n in range(len(BLOCKS))])
async def test_each_block_of_the_page_runs(block):
    """Each Python block compiles, and those that take a client or tables run with one fed from memory."""
    code = compile(block, "orders-and-balances.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "localhost" in block:
        return
    given_ = [
        order(1, price="84000", amount="1", remaining="0.5"),
        testing.record(MyTrade, symbol="BTC/USDT", account="main", amount="1", timestamp=T0),
        balance("USDT", "7"), balance("BTC"), position(side="LONG"), position(side="SHORT", contracts="0"),
    ]  # fmt: skip
    live = "changed" in block or "while" in block
    async with testing.connect(given_, live=live) as client:
        orders, balances = await client.table("order"), await client.table("balance")
        names = {"client": client, "orders": orders, "balances": balances, "asyncio": asyncio}
        if live:
            asyncio.get_running_loop().call_later(0.01, lambda: asyncio.ensure_future(play(client)))
        running = eval(code, names)
        if running is not None:
            await running


async def play(client):
    """Let the order be closed."""
    await client.feed(order(1, at=1, status="closed"))


def test_every_name_of_the_page_is_there():
    """Each method of the client and of tables that the page names exists, and so does each topic."""
    for name in re.findall(r"client\.(\w+)", PAGE):
        assert hasattr(testing.TestClient, name), name
    for name in re.findall(r"(?:orders|balances|table)\.(\w+)", PAGE):
        assert hasattr(OrderTable, name), name
    for structure in re.findall(r"`state\.([\w-]+)`", PAGE):
        assert structure in stateful()


# From Kafka


NAMESPACE, ENVIRONMENT = "table-test", "testnet"


class Bridge:
    """Writes what a bridge writes of an account, with its publisher."""

    def __init__(self, publisher, topics, account, market, epoch=0):
        self.publisher, self.topics = publisher, topics
        self.deriver = AccountDeriver(
            catalogue().accounts, schemas(), ENVIRONMENT, account, market, Writer("live", epoch), instruments(market)
        )  # fmt: skip
        self.decoder = Decoder(schemas().values(), TYPES)
        self.published, self.rows = [], {}
        self._number = 0

    async def take(self, events):
        """Derive and publish events; return once Kafka has all of it."""
        for event in events:
            self._number += 1
            taken = self.deriver.take(event, connection_id=7, number=self._number, received_at=RECEIVED_AT)
            assert taken.letters == ()
            for record in taken.records:
                self.append(self.topics.structure(record.structure), record.key, record.time_ms, record.value)
                self.published.append(self.decoder.decode(record.value))
                if record.state is not None:
                    self.append(
                        self.topics.state(record.structure), record.state, record.time_ms, record.value
                    )
                    self.rows[record.structure, record.state.decode()] = self.published[-1]
        assert await self.publisher.flush(180) == 0

    def append(self, topic, key, time_ms, value):
        """Queue a record."""
        self.publisher.lane(topic, key).append(time_ms, key, value)

    def expected(self, structure):
        """Return what a table must hold."""
        return {key: row for (of, key), row in self.rows.items() if of == structure}


@pytest.fixture
def topics():
    """Topics that no other test has."""
    return Topics(ENVIRONMENT, f"{NAMESPACE}-{uuid.uuid4().hex[:8]}")


@pytest.fixture
async def write(kafka, topics):
    """Give a foreign writer; the topics are there once it is."""
    named = [f"unified.{structure}" for structure in PRIVATE + FUTURES]
    named += ["state.order", "state.balance", "state.position"]
    async with writer(kafka.bootstrap_servers, topics, named) as ready:
        yield ready


@pytest.fixture
async def publisher(kafka, write, topics):
    """The bridge's own publisher."""
    ready = create_publisher(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
    await ready.start()
    try:
        names = [topics.structure(structure) for structure in PRIVATE + FUTURES]
        await ready.refresh([*names, *(topics.state(s) for s in ("order", "balance", "position"))])
        yield ready
    finally:
        await ready.stop(5)


async def until(table, condition):
    """Wait until ``condition`` holds of the table."""
    async with asyncio.timeout(180):
        while not condition(table):
            await table.changed()


@pytest.mark.kafka
@pytest.mark.parametrize("market", ["spot", "usdm"])
async def test_an_account_from_kafka(kafka, publisher, topics, market):
    """What the publisher wrote is what streams and tables give, of each account, before and while it happens."""
    history = improvised(market, seed=4, steps=60).events
    half = len(history) // 2
    main, other = (Bridge(publisher, topics, name, market) for name in ("main", "other"))
    await main.take(history[:half])
    await other.take(history[: half // 2])
    async with connect(
        kafka.bootstrap_servers, environment=ENVIRONMENT, namespace=topics.namespace
    ) as client:
        structures = ["order", "balance"] + (["position"] if market == "usdm" else [])
        tables = {s: await client.table(s, account="main", timeout=180) for s in structures}
        for structure, table in tables.items():
            assert dict(table) == main.expected(structure)
            assert len(table) > 0
        async with client.orders(account="main") as live:
            before = len(main.published)
            await main.take(history[half:])
            news = [record for record in main.published[before:] if isinstance(record, Order)]
            found = [await anext(live) for _ in news]
        for symbol in {record.symbol for record in news}:
            assert [r for r in found if r.symbol == symbol] == [r for r in news if r.symbol == symbol]
        for structure, table in tables.items():
            await until(table, lambda t, s=structure: dict(t) == main.expected(s))
        both = await client.table("order", timeout=180)
        assert dict(both) == main.expected("order") | other.expected("order")
        assert {o.id for o in both.open()} == {
            o.id for o in dict(both).values() if o.status in {"open", "canceling"}
        }
        trades = client.my_trades(account="main", start="earliest", end="now")
        assert sorted([record.id async for record in trades], key=int) == sorted(
            [record.id for record in main.published if isinstance(record, MyTrade)], key=int
        )


@pytest.mark.kafka
async def test_late_writers_and_deletions_from_kafka(kafka, publisher, write, topics):
    """A bridge that was replaced changes no row; a record without a value deletes one, for new tables too."""
    history = improvised("spot", seed=5, steps=25).events
    old, new = (Bridge(publisher, topics, "main", "spot", epoch) for epoch in (1, 2))
    await new.take(history)
    await old.take(history)
    key = next(iter(new.expected("order")))
    await write.send(topics.state("order"), key.encode(), None, RECEIVED_AT // 1000)
    await write._producer.flush()
    expected = new.expected("order")
    del expected[key]
    async with connect(
        kafka.bootstrap_servers, environment=ENVIRONMENT, namespace=topics.namespace
    ) as client:
        orders = await client.table("order", timeout=180)
        assert dict(orders) == expected
        assert orders.seen.dropped > 0
        assert orders.seen.deleted == 1
        records = client.orders(start="earliest", end="now")
        assert [record.writerEpoch async for record in records] == [2] * (
            sum(isinstance(record, Order) for record in new.published)
        )
        assert records.dropped == sum(isinstance(record, Order) for record in old.published)


@pytest.mark.kafka
async def test_the_example_that_follows_an_account(kafka):
    """``examples/follow_account.py`` prints what an account has and asks for, and again when an order changes."""
    topics, account = Topics(ENVIRONMENT), uuid.uuid4().hex[:8]
    given_ = {"account": account, "price": "84000", "amount": "1", "remaining": "0.25", "side": "buy"}
    async with writer(kafka.bootstrap_servers, topics, ["state.order", "state.balance"]) as ready:

        async def write(record):
            _, key = ready._memory._state_place(record)
            await ready.send(topics.state(record.structure), key, testing.encode(record), T0 // 1000)
            await ready._producer.flush()

        await write(balance("USDT", account=account, total="7.5"))
        await write(balance("BTC", account=account, total="0"))
        await write(order(1, **given_))
        arguments = (kafka.bootstrap_servers, ENVIRONMENT, account, "--count", "2")
        async with example("follow_account.py", *arguments) as process:
            lines = [(await process.stdout.readline()).decode() for _ in range(2)]
            assert lines == ["USDT 7.5 | 1 open orders\n", "  BTC/USDT buy 0.25 of 1 @ 84000\n"]
            await write(order(1, "canceled", at=1, **given_))
            assert (await process.stdout.read()).decode() == "USDT 7.5 | 0 open orders\n"


@pytest.mark.kafka
async def test_a_topic_that_is_missing_is_named(kafka):
    """A table whose topic is not there fails at once and names the mend."""
    async with connect(kafka.bootstrap_servers, environment="prod", namespace=NAMESPACE) as client:
        with pytest.raises(
            TopicMismatch, match=r"table-test\.prod\.state\.balance .*binance-bridge topics apply"
        ):
            await client.table("balance")


@pytest.mark.kafka
def test_without_await_from_kafka(kafka):
    """The synchronous client loads a table from a real broker."""
    topics = Topics(ENVIRONMENT, f"{NAMESPACE}-{uuid.uuid4().hex[:8]}")

    async def prepare():
        async with writer(kafka.bootstrap_servers, topics, ["state.balance"]) as ready:
            for each in (balance(free="1"), balance(free="2", at=1)):
                await ready.send(topics.state("balance"), b"main:spot:USDT", testing.encode(each), T0 // 1000)
            await ready._producer.flush()

    asyncio.run(prepare())
    options = {"environment": ENVIRONMENT, "namespace": topics.namespace}
    with sync_sdk.connect(kafka.bootstrap_servers, **options) as client:
        balances = client.table("balance", timeout=180)
        assert {key: row.free for key, row in balances.items()} == {"main:spot:USDT": 2}
