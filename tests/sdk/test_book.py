"""The live order book: its rules, its views, and how it is followed from memory and from a real Kafka."""

from __future__ import annotations

import ast
import asyncio
import gc
import re
import time
import uuid
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from bridge.errors import BookTooThin, NotInSync, TopicMismatch, UsageError
from bridge.sdk import Gap, Level, Lifecycle, OrderBook, Topics, connect, testing
from bridge.sdk import sync as sync_sdk
from bridge.sdk.book_state import BookState, Ladder
from tests.sdk.broker import writer
from tests.sdk.test_kafka import example

NAMESPACE = "sdk-book-test"
ENVIRONMENT = "testnet"
SECOND = 1_000_000
T0 = 1_793_491_200 * SECOND
PLAIN = testing.record(OrderBook)


def levels(*rows):
    """Return levels of texts or numbers: ``"price amount"``."""
    return tuple(Level(*map(Decimal, row.split())) for row in rows)


def record(kind, number, bids=(), asks=(), at=None, **fields):
    """Return a record of BTC/USDT up to update ``number``, by default so many milliseconds after T0."""
    moment = T0 + number * 1000 if at is None else at
    usual = {
        "symbol": "BTC/USDT",
        "exchangeSymbol": "BTCUSDT",
        "channel": "depth",
        "receivedAt": moment + 500,
    }
    usual |= {"timestamp": moment, "type": kind, "sequence": number}
    return structs.replace(PLAIN, bids=levels(*bids), asks=levels(*asks), **usual | fields)


def snapshot(number, bids=("100 1", "99 2"), asks=("101 1", "102 3"), **fields):
    """Return a whole snapshot."""
    return record("snapshot", number, bids, asks, **{"origin": "snapshot"} | fields)


def delta(first, last, bids=(), asks=(), **fields):
    """Return a change of spot."""
    return record("delta", last, bids, asks, firstSequence=first, **fields)


def futures(previous, last, bids=(), asks=(), **fields):
    """Return a change of a future."""
    usual = {"market": "usdm", "firstSequence": previous + 5, "previousSequence": previous}
    return record("delta", last, bids, asks, **usual | fields)


def state(*records, market=None):
    """Return a book that has taken ``records``."""
    book = BookState("BTC/USDT", market)
    for each in records:
        book.take(each)
    return book


def shown(book):
    """Return the levels as texts."""
    return [[f"{price:f} {amount:f}" for price, amount in side] for side in (book.bids, book.asks)]


# One side of a book


PRICES = st.integers(1, 40).map(lambda n: Decimal(n).scaleb(-17))
AMOUNTS = st.sampled_from([Decimal(0), Decimal("0.00"), Decimal("1e-18"), Decimal("1.10"), Decimal(10) ** 19])


@given(
    st.booleans(),
    st.lists(st.builds(Level, PRICES, AMOUNTS)),
    st.lists(st.lists(st.builds(Level, PRICES, AMOUNTS), max_size=8), max_size=8),
    PRICES,
    PRICES,
)
@settings(max_examples=80, deadline=None)
def test_a_side_is_what_a_naive_one_is(descending, first, changes, low, high):
    """Whatever levels are set and removed, all views of a side are those of a dict that is sorted each time."""
    ladder, naive = Ladder(descending=descending), {}
    ladder.replace(first)
    naive = {price: amount for price, amount in first if amount}
    for change in [[], *changes]:
        ladder.apply(change)
        for price, amount in change:
            naive.pop(price, None)
            if amount:
                naive[price] = amount
        expected = tuple(Level(p, naive[p]) for p in sorted(naive, reverse=descending))
        assert ladder.top() == tuple(ladder) == expected
        assert ladder.best == (expected[0] if expected else None)
        assert ladder.top(3) == expected[:3]
        assert ladder.between(low, high) == tuple(each for each in expected if low <= each.price <= high)
        assert ladder.between(None, None) == expected
        assert len(ladder) == len(expected)
        assert ladder.holds(expected)
        assert not ladder.holds((*expected, Level(Decimal(99), Decimal(1))))


# Its rules


class Event(NamedTuple):
    """A change the exchange made, and its book after it."""

    record: OrderBook
    bids: dict
    asks: dict

    def __repr__(self):
        return brief(self.record)


class Delivered(NamedTuple):
    """A record that reaches a consumer."""

    record: OrderBook

    def __repr__(self):
        return brief(self.record)


def brief(made):
    """Return a record in a few words: hypothesis refuses to print long examples."""
    link = made.firstSequence if made.previousSequence is None else f"({made.previousSequence})"
    return f"{made.type} {link}-{made.sequence}"


@st.composite
def histories(draw):
    """Return a true book's snapshot record at any moment, and all changes with the true book after each."""
    future = draw(st.booleans())
    bids, asks, last = {Decimal(50): Decimal(1)}, {Decimal(60): Decimal(1)}, draw(st.integers(0, 5))
    events = []
    for _ in range(draw(st.integers(1, 12))):
        first = last + 1 + (draw(st.integers(0, 3)) if future else 0)
        new = first + draw(st.integers(0, 4))
        change = {}
        for name, side, low in (("bids", bids, 41), ("asks", asks, 55)):
            rows = draw(st.dictionaries(st.integers(low, low + 13), st.integers(0, 2), max_size=3))
            change[name] = [f"{price} {amount}" for price, amount in rows.items()]
            for price, amount in rows.items():
                side.pop(Decimal(price), None)
                if amount:
                    side[Decimal(price)] = Decimal(amount)
            if not side:  # no side of this exchange is ever empty
                change[name].append(f"{low} 7")
                side[Decimal(low)] = Decimal(7)
        made = futures(last, new, **change, firstSequence=first) if future else delta(first, new, **change)
        events.append(Event(made, dict(bids), dict(asks)))
        last = new
    return events


@st.composite
def deliveries(draw):
    """Return what reaches a consumer of it: snapshots in their place, repeats, losses."""
    events = draw(histories())
    found = []
    for event in events:
        if draw(st.integers(0, 9)):
            found.append(Delivered(event.record))
        if not draw(st.integers(0, 3)):
            rows = [[f"{p} {a}" for p, a in side.items()] for side in (event.bids, event.asks)]
            whole = snapshot(event.record.sequence, *rows, market=event.record.market)
            found.append(Delivered(whole))
        if found and not draw(st.integers(0, 4)):
            found.append(draw(st.sampled_from(found)))
    return events, found


@given(deliveries())
@settings(max_examples=150, deadline=None)
def test_a_book_is_the_true_one_or_not_in_sync(delivery):
    """Whatever is lost or repeated, a book that says it is in sync is the exchange's at its sequence."""
    events, found = delivery
    truth = {event.record.sequence: event for event in events}
    book = state()
    for each in found:
        book.take(each.record)
        if book.in_sync:
            true = truth[book.sequence]
            assert dict(book.bids) == true.bids
            assert dict(book.asks) == true.asks
        else:
            assert book.reason


@given(histories(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_book_starts_anywhere(events, data):
    """From any snapshot on with nothing lost the book is in sync and true to the end."""
    place = data.draw(st.integers(0, len(events) - 1))
    start = events[place]
    rows = [[f"{p} {a}" for p, a in side.items()] for side in (start.bids, start.asks)]
    whole = snapshot(start.record.sequence, *rows, market=start.record.market)
    book = state(*[e.record for e in events[:place]], whole, *[e.record for e in events[max(0, place - 2) :]])
    assert book.in_sync
    assert (dict(book.bids), dict(book.asks)) == (events[-1].bids, events[-1].asks)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([snapshot(10), delta(11, 12), delta(14, 15)], "changes 13 to 13 are missing"),
        ([snapshot(10, market="usdm"), futures(10, 20), futures(25, 30)], "follows 25, the book is at 20"),
        ([snapshot(10), delta(11, 11, ["101 1"])], "to 11: locked, bid 101, ask 101"),
        ([snapshot(10), delta(11, 11, [], ["99.5 1"])], "to 11: crossed, bid 100, ask 99.5"),
        ([snapshot(10), delta(11, 11, ["98 -1"])], "amount -1 at price 98"),
        ([snapshot(10), delta(11, 11, ["0 1"])], "amount 1 at price 0"),
        ([snapshot(10), delta(11, 11, [], ["101 0", "102 0"])], "no asks are left"),
        ([snapshot(10), delta(11, 11, ["100 0", "99 0"])], "no bids are left"),
        ([snapshot(10), delta(None, 11)], "the change after 10 does not say what it follows"),
        (
            [snapshot(10), record("delta", 11, sequence=None)],
            "the change after 10 does not say what it follows",
        ),
        ([snapshot(10), delta(3, 4, at=T0 + 60 * SECOND)], "counts anew: 4 came after 10"),
        ([snapshot(10, sequence=None)], "a snapshot has no sequence"),
        ([snapshot(10, ["100 1"], ["100 1"])], "snapshot at 10 is wrong: locked, bid 100, ask 100"),
        ([snapshot(10, ["100 1", "103 1"])], "snapshot at 10 is wrong: crossed, bid 103, ask 101"),
        ([snapshot(10, ["100 -1"])], "snapshot at 10 is wrong: amount -1 at price 100"),
        ([delta(11, 12)], "no whole snapshot has come yet"),
        ([snapshot(10, depth=20, channel="partial-depth")], "no whole snapshot has come yet"),
    ],
)
def test_what_cannot_be_right_loses_the_book(records, reason):
    """A break is told with its reason, changes do not heal it, and the next sound snapshot does."""
    book = state(*records)
    assert not book.in_sync
    assert reason in book.reason
    market = records[0].market
    assert book.take(delta(16, 17, market=market)) is None
    assert not book.in_sync
    assert book.take(snapshot(20, market=market)).type == "snapshot"
    assert book.in_sync
    assert book.reason is None


def test_what_is_no_part_of_the_book_leaves_it_alone():
    """Partial depth, another market, changes the book has already, and changes that overlap it don't disturb it."""
    partial = record("snapshot", 50, ["1 1"], ["2 1"], depth=5, channel="partial-depth")
    other = futures(12, 15, ["1 1"])
    changes = [delta(8, 10, ["100 9"]), delta(9, 12, ["100 5"]), delta(3, 11, ["100 7"])]
    book = state(snapshot(10), partial, *changes, other)
    assert book.in_sync
    assert (book.sequence, shown(book)) == (12, [["100 5", "99 2"], ["101 1", "102 3"]])
    assert (book.seen.partial, book.seen.markets) == (1, {"usdm"})


def test_a_change_of_a_future_may_reach_back_behind_the_snapshot():
    """A future's change that covers the snapshot's update is applied, as the exchange's rule has it."""
    book = state(snapshot(10, market="usdm"), futures(6, 14, ["100 4"]), futures(14, 22, ["100 3"]))
    assert book.in_sync
    assert shown(book)[0] == ["100 3", "99 2"]


def test_a_writer_that_was_replaced_is_not_heard():
    """Records with a lower epoch than one before are left out, snapshots too, and the book stays in sync."""
    zombies = [delta(12, 12, ["100 7"], writerEpoch=1), snapshot(99, ["5 5"], writerEpoch=1)]
    book = state(
        snapshot(10, writerEpoch=1), delta(11, 11, writerEpoch=2), *zombies, delta(12, 12, writerEpoch=2)
    )
    assert book.in_sync
    assert (book.sequence, book.seen.dropped) == (12, 2)


def test_a_replay_into_the_topic_does_not_disturb_a_live_book():
    """Replayed records beside live ones are left out; where there is nothing else they make the book."""
    replayed = [snapshot(3, origin="replay"), delta(4, 5, origin="replay")]
    assert state(*replayed).sequence == 5
    book = state(snapshot(10), *replayed, delta(11, 11))
    assert book.in_sync
    assert book.sequence == 11


def test_a_snapshot_is_taken_in_its_place():
    """A newer one replaces the book, one written twice does not take it back, one that counts anew does."""
    book = state(snapshot(10), delta(11, 20))
    assert book.take(snapshot(10)) is None
    assert book.sequence == 20
    book.take(snapshot(20, ["100 1", "98 2"]))
    assert book.seen.differing == 1
    assert shown(book)[0] == ["100 1", "98 2"]
    book.take(snapshot(5, at=T0 + SECOND))
    assert (book.in_sync, book.sequence) == (True, 5)


def test_a_snapshot_without_time_keeps_the_time_of_the_book():
    """A periodic snapshot at the book's own sequence has no newer time to tell."""
    book = state(snapshot(10, timestamp=None))
    assert book.timestamp is None
    book.take(delta(11, 11))
    book.take(snapshot(11, timestamp=None))
    assert book.timestamp == T0 + 11_000
    assert book.seen.differing == 0


def test_an_empty_side_of_a_snapshot_is_a_book():
    """A symbol that nobody sells is in sync, with no asks; zero amounts in a snapshot are no levels."""
    book = state(snapshot(10, ["100 1", "99 0"], []))
    assert book.in_sync
    assert shown(book) == [["100 1"], []]


def gap(**fields):
    """Return a gap of the depth stream."""
    usual = {"symbol": "BTC/USDT", "channel": "depth", "cause": "sequence", "detectedAt": T0 + 60 * SECOND}
    return testing.record(Gap, **usual | fields)


def resync(at, *streams, event="book.resync", **fields):
    """Return the bridge's news of a book."""
    usual = {"market": "spot", "at": at, "streams": streams or ("btcusdt@depth@100ms",), "reason": "crossed"}
    return testing.record(Lifecycle, event=event, **usual | fields)


@pytest.mark.parametrize(
    ("news", "reason"),
    [
        (gap(firstSequence=13, lastSequence=20), "changes 13 to 20 are missing (sequence)"),
        (gap(firstSequence=3, lastSequence=12), None),
        (gap(firstSequence=13, lastSequence=20, channel="trade"), None),
        (gap(firstSequence=13, lastSequence=20, symbol="ETH/USDT"), None),
        (gap(firstSequence=13, lastSequence=20, market="usdm"), None),
        (gap(firstSequence=13, lastSequence=20, status="filled"), None),
        (gap(firstSequence=13, lastSequence=20, writerEpoch=-1), None),
        (gap(startTime=T0, cause="disconnected"), "missing since 2026-11-01T00:00:00.000Z (disconnected)"),
        (gap(startTime=T0, detectedAt=T0 + 5000, cause="disconnected"), None),
        (resync(T0 + SECOND), "the bridge resynchronises its book: crossed"),
        (resync(T0 + 10_400), None),
        (resync(T0, lastSequence=10), "the bridge resynchronises its book: crossed"),
        (resync(T0 + 60 * SECOND, lastSequence=9), None),
        (resync(T0 + SECOND, "ethusdt@depth"), None),
        (resync(T0 + SECOND, "btcusdt@trade"), None),
        (resync(T0 + SECOND, market="usdm"), None),
        (resync(T0 + SECOND, event="book.synced"), None),
    ],
)
def test_news_of_the_bridge_lose_the_book_unless_it_is_beyond_them(news, reason):
    """Gaps and resynchronisations count where they are about what the book stands on, and only there."""
    book = state(snapshot(10), delta(11, 12))
    change = book.told(news)
    assert book.in_sync == (reason is None)
    if reason is not None:
        assert change.type == "lost"
        assert reason in book.reason


# Its views


async def test_views_are_exact():
    """Best prices, mid, spread, microprice, depth and cost have every digit."""
    tiny = "0.000000000000000001"
    given = snapshot(
        7,
        [f"9999999999999999999.{'9' * 18} 3", "1.5 2"],
        [f"10000000000000000000.{'0' * 17}2 1", f"10000000000000000001 {tiny}"],
    )
    async with testing.connect([given]) as client:
        book = await client.order_book("BTC/USDT")
        assert book.best_bid == given.bids[0]
        assert book.best_ask == given.asks[0]
        assert book.spread == Decimal("0.000000000000000003")
        assert f"{book.mid:f}" == "10000000000000000000.0000000000000000005"
        assert book.microprice > book.mid, "most want to buy"
        assert book.depth("1", 2) == (given.bids[1:], ())
        assert book.depth(low="10000000000000000000.5").ask_amount == Decimal(tiny)
        assert book.depth().bid_amount == 5
        assert book.bids(1) == given.bids[:1]
        assert book.asks() == given.asks
        bought = book.cost("buy", f"1.{tiny[2:]}")
        assert f"{bought.total:f}" == "10000000000000000010.000000000000000003"
        assert bought.worst == given.asks[1].price
        assert book.as_ccxt(1, str) == {
            "symbol": "BTC/USDT",
            "bids": [["9999999999999999999.999999999999999999", "3"]],
            "asks": [["10000000000000000000.000000000000000002", "1"]],
            "timestamp": T0 // 1000 + 7,
            "datetime": "2026-11-01T00:00:00.007Z",
            "nonce": 7,
        }
        assert book.as_ccxt()["bids"][1] == [1.5, 2.0]


async def test_cost_walks_the_levels():
    """Filling takes level after level; what is not there is told, and nonsense refused."""
    async with testing.connect([snapshot(1)]) as client:
        book = await client.order_book("BTC/USDT")
        assert book.cost("buy", 2) == (Decimal(203), Decimal("101.5"), Decimal(102))
        assert book.cost("sell", "0.5") == (Decimal(50), Decimal(100), Decimal(100))
        assert book.cost("sell", 3).total == 298
        assert f"{book.cost('sell', 3).average:f}" == f"99.{'3' * 36}"
        with pytest.raises(BookTooThin, match=r"bids of BTC/USDT add up to 3, less than 3\.1"):
            book.cost("sell", "3.1")
        for arguments in (
            ("hold", 1),
            ("buy", 0),
            ("buy", 0.1),
            ("buy", "one"),
            ("buy", "1e999"),
            ("buy", True),
        ):
            with pytest.raises(UsageError):
                book.cost(*arguments)
        with pytest.raises(UsageError, match="limit is 0"):
            book.bids(0)


async def test_an_empty_side_has_no_middle():
    """Where one side is empty there is no mid, spread nor microprice, and nothing to be had."""
    async with testing.connect([snapshot(1, [])]) as client:
        book = await client.order_book("BTC/USDT")
        assert (book.best_bid, book.mid, book.spread, book.microprice) == (None, None, None, None)
        assert book.best_ask.price == 101
        with pytest.raises(BookTooThin):
            book.cost("sell", 1)


# Following it, from memory


async def test_a_book_follows_what_comes():
    """It starts from the newest snapshot among what is there and is kept current; other symbols pass by."""
    other = snapshot(999, ["5 5"], [], symbol="ETH/USDT", exchangeSymbol="ETHUSDT")
    history = [snapshot(5, ["50 1"], ["51 1"]), delta(6, 9), snapshot(9), delta(10, 12, ["100 5"]), other]
    async with testing.connect(history, live=True) as client:
        book = await client.order_book("BTC/USDT")
        assert (book.symbol, book.market, book.in_sync, book.sequence) == ("BTC/USDT", "spot", True, 12)
        assert book.best_bid == levels("100 5")[0]
        assert book.timestamp == T0 + 12_000
        assert book.receivedAt == T0 + 12_500
        assert book.age == pytest.approx(time.time() - book.receivedAt / 1e6, abs=60)
        version = book.version
        await client.feed(delta(13, 14, ["100.5 1"]))
        assert await book.changed(version) > version
        assert book.best_bid.price == Decimal("100.5")
        assert repr(book) == "<LiveBook BTC/USDT at 14>"


async def test_a_book_that_is_lost_is_not_served():
    """After a break levels raise with the reason, unless stale ones are asked for; a snapshot heals it."""
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        version = book.version
        await client.feed(delta(12, 13, ["100 5"]))
        await book.changed(version)
        assert not book.in_sync
        views = ("best_bid", "best_ask", "mid", "spread", "microprice")
        calls = (book.bids, book.asks, book.depth, book.as_ccxt, lambda: book.cost("buy", 1))
        for read in (*(lambda name=name: getattr(book, name) for name in views), *calls):
            with pytest.raises(NotInSync, match="BTC/USDT is not in sync: changes 10 to 11 are missing"):
                read()
        assert book.sequence == 9
        assert book.bids(1, stale_ok=True) == levels("100 1")
        assert book.cost("buy", 1, stale_ok=True).total == 101
        book.stale_ok = True
        assert book.mid == Decimal("100.5")
        book.stale_ok = False
        await client.feed(snapshot(20))
        await book.changed(version + 1)
        assert book.mid == Decimal("100.5")


async def test_updates_tell_every_change():
    """Updates give deltas, breaks and snapshots as they come, and end with the book."""
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        updates = book.updates()
        await client.feed(delta(10, 10, ["100 0"]), delta(12, 12), delta(13, 13), snapshot(20))
        found = [await anext(updates) for _ in range(3)]
        await client.feed(gap(lastSequence=30))
        found.append(await anext(updates))
        assert [change.type for change in found] == ["delta", "lost", "snapshot", "lost"]
        assert found[0].bids == levels("100 0")
        assert found[1].reason == "changes 11 to 11 are missing"
        assert found[2].asks == book.asks(stale_ok=True)
        assert [change.sequence for change in found] == [10, 10, 20, 20]
        await book.aclose()
        assert [change.reason async for change in updates] == ["it was closed"]
        with pytest.raises(NotInSync):
            await book.changed()


async def test_who_falls_behind_gets_the_whole_book():
    """Beyond 10,000 changes that nobody fetches they are given up for one snapshot; then it goes on."""
    async with testing.connect([snapshot(0)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        updates, slow = book.updates(), book.updates()
        await client.feed(*[delta(n, n, [f"99.5 {n}"]) for n in range(1, 10_006)])
        for _ in range(10_005):
            await anext(updates)
        change = await anext(slow)
        assert (change.type, change.sequence) == ("snapshot", 10_005)
        assert change.bids == book.bids()
        await client.feed(delta(10_006, 10_006))
        assert (await anext(slow)).sequence == 10_006


async def test_iterators_that_nobody_holds_are_forgotten():
    """A loop left early costs the book nothing more."""
    async with testing.connect([snapshot(0)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        await client.feed(delta(1, 1))
        async for _ in book.updates():
            break
        gc.collect()
        assert not book._followed._updates


async def test_books_of_a_partition_share_a_reader_and_leave_it():
    """Many books read each partition once; the last one that is closed closes the reader."""
    symbols = [f"S{n}/USDT" for n in range(40)]
    history = [snapshot(n, symbol=s, exchangeSymbol=f"S{n}USDT") for n, s in enumerate(symbols)]
    async with testing.connect(history, live=True) as client:
        books = await asyncio.gather(*[client.order_book(s) for s in symbols])
        assert [book.sequence for book in books] == list(range(40))
        assert len(client._books._feeds) == 4, "partitions of a client in memory"
        twin = await client.order_book("S7/USDT")
        await client.feed(delta(8, 8, symbol="S7/USDT"))
        assert [await b.changed(1) for b in (books[7], twin)] == [2, 2]
        await books[7].aclose()
        await books[7].aclose()
        await client.feed(delta(9, 9, symbol="S7/USDT"))
        await twin.changed(2)
        assert (books[7].in_sync, twin.in_sync, twin.sequence) == (False, True, 9)
        async with twin:
            pass
        for book in books:
            await book.aclose()
        assert not client._books._feeds


async def test_the_exchanges_own_symbol_needs_its_market():
    """With a market the exchange's name will do, also one of two markets; without it is refused."""
    both = [snapshot(3), snapshot(4, symbol="BTC/USDT:USDT", market="usdm")]
    async with testing.connect(both, live=True) as client:
        for market, symbol in (("spot", "BTC/USDT"), ("usdm", "BTC/USDT:USDT")):
            book = await client.order_book("BTCUSDT", market=market)
            assert (book.symbol, book.market) == (symbol, market)
        names = [client.order_book(s, market="coinm", timeout=180) for s in ("A", "B")]
        waiting = asyncio.gather(*names)
        for name in ("B", "A"):
            await client.feed(snapshot(5, symbol=f"{name}/USD:{name}", exchangeSymbol=name, market="coinm"))
        assert [book.symbol for book in await waiting] == ["A/USD:A", "B/USD:B"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"symbol": "BTCUSDT"}, "add market"),
        ({"symbol": ""}, "symbol is empty"),
        ({"symbol": "BTC/USDT", "market": "moon"}, "market is 'moon'"),
        ({"symbol": "BTC/USDT", "snapshot_interval": 0}, "snapshot_interval is 0"),
        ({"symbol": "BTC/USDT", "max_silence": 0}, "max_silence is 0"),
    ],
)
async def test_wrong_arguments_are_named(arguments, message):
    """An argument that can't be understood is refused at once."""
    async with testing.connect() as client:
        with pytest.raises(UsageError, match=message):
            await client.order_book(**arguments)


@contextmanager
def standing_still():
    """Let no time pass for the event loop: nothing runs out, however long this takes."""
    loop = asyncio.get_running_loop()
    at = loop.time()
    loop.time = lambda: at
    try:
        yield
    finally:
        del loop.time


async def turns(number):
    """Let the event loop turn so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("history", "arguments", "message"),
    [
        ([], {}, "unified.order-book has nothing of it; is its name right"),
        (
            [delta(1, 1), delta(2, 2)],
            {},
            "has 2 changes of it but no whole snapshot; a bridge that .* every 60 s",
        ),
        (
            [record("snapshot", 1, depth=5)],
            {},
            "has 1 partial-depth snapshots of it, which are no whole book",
        ),
        (
            [snapshot(1, ["200 1"])],
            {},
            "the snapshot at 1 is wrong: crossed, .*The next whole snapshot heals it",
        ),
        ([snapshot(1), delta(5, 5)], {}, "changes 2 to 4 are missing"),
        ([snapshot(1)], {"market": "usdm"}, "has of it is of spot, not usdm"),
        ([snapshot(1)], {"symbol": "XUSDT", "market": "usdm"}, "has had nothing of it on usdm"),
    ],
)
async def test_where_there_is_no_book_it_is_told_what_there_is(history, arguments, message):
    """A time-out says what was found instead and what would help; the end of the source says the same."""
    arguments = {"symbol": "BTC/USDT"} | arguments
    async with testing.connect(history, live=True) as client:
        with standing_still():
            asking = asyncio.ensure_future(client.order_book(**arguments, timeout=0.05))
            await turns(500)  # all of the history is read
        with pytest.raises(TimeoutError, match=rf"within 0\.05 s: .*{message}"):
            await asking
        assert not client._books._feeds
    if "XUSDT" not in arguments["symbol"]:
        async with testing.connect(history) as client:
            with pytest.raises(NotInSync, match=rf"before the source ended: .*{message}"):
                await client.order_book(**arguments)


async def test_the_next_snapshot_is_waited_for():
    """Where none is found far enough back the book begins with the next one, news from then on included."""
    history = [delta(n, n) for n in range(1, 5)]
    async with testing.connect(history, live=True) as client:
        waiting = asyncio.ensure_future(client.order_book("BTC/USDT"))
        await client.feed(delta(5, 5))
        await client.feed(snapshot(6), delta(7, 7))
        book = await waiting
        while book.sequence != 7:
            await book.changed()
        await client.feed(resync(T0 + 60 * SECOND))
        await book.changed()
        assert book.reason == "the bridge resynchronises its book: crossed"


@pytest.mark.parametrize("seconds", [80, 400, 30_000, 2_000_000])
async def test_a_snapshot_further_back_is_found(seconds):
    """Reading back goes as far as is needed: a book that does not change has no new snapshot."""
    others = [snapshot(n, symbol="ETH/USDT", at=T0 + n * SECOND) for n in (1, seconds // 2, seconds)]
    async with testing.connect([snapshot(1), delta(2, 2), *others], live=True) as client:
        assert (await client.order_book("BTC/USDT", timeout=180)).sequence == 2


class Stuck:
    """A source that never comes to the end of what it reads back; live records come."""

    def __init__(self, memory):
        self.memory, self.partition, self.close = memory, memory.partition, memory.close
        self.opened, self.closed = 0, asyncio.Event()

    def read(self, request):
        return self.memory.read(request) if request.end is None else StuckReading(self)


class StuckReading:
    """One reading that never ends."""

    def __init__(self, source):
        self.source = source

    async def open(self):
        self.source.opened += 1

    async def fetch(self):
        await asyncio.Event().wait()

    async def close(self):
        self.source.opened -= 1
        self.source.closed.set()


async def test_reading_back_ends_when_nobody_waits_any_more():
    """A search goes on for those who wait, and ends when each has given up or has a new snapshot."""
    async with testing.connect(live=True) as client:
        source = client._source = Stuck(client._memory)
        patient = asyncio.ensure_future(client.order_book("BTC/USDT"))
        with standing_still():
            hasty = asyncio.ensure_future(client.order_book("BTC/USDT", timeout=0.02))
            await turns(100)
        with pytest.raises(TimeoutError):
            await hasty
        assert source.opened == 1
        await client.feed(delta(6, 6), snapshot(7), delta(8, 8))
        assert (await patient).sequence in {7, 8}
        async with asyncio.timeout(180):
            await source.closed.wait()
        assert source.opened == 0


async def test_a_change_just_before_the_time_read_from_is_found():
    """A snapshot at the edge of what was read misses a change with an older time: then it is read further back."""
    edge = T0 + 925 * SECOND  # 75 s, the first span, before the newest record
    history = [
        snapshot(1, at=T0 + 920 * SECOND),
        delta(2, 2, at=T0 + 921 * SECOND),
        snapshot(2, at=edge),
        delta(3, 3, ["100 3"], at=edge - 1000),
        delta(4, 4, at=T0 + 1000 * SECOND),
    ]
    async with testing.connect(history, live=True) as client:
        book = await client.order_book("BTC/USDT", timeout=180)
        assert (book.sequence, book.best_bid) == (4, levels("100 3")[0])


async def test_a_book_need_not_believe_in_silence():
    """Where nothing comes for longer than is allowed the book is lost, until the next snapshot."""
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT", max_silence=0.1)
        changes = book.updates()
        async with asyncio.timeout(60):
            lost = await anext(changes)
        assert lost.type == "lost"
        assert re.search(r"nothing has come for \d s; is the bridge running", lost.reason)
        await client.feed(snapshot(10))
        assert (await anext(changes)).type == "snapshot"


async def test_a_value_that_is_no_record_loses_the_book():
    """Poison in the topic may have been a change, so the book is lost until the next snapshot, and says where."""
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        log = client._memory.log
        log.append(msgspec.structs.replace(log[0], offset=1, value=b"poison"))
        await client.feed(delta(10, 10))
        await book.changed()
        assert "partition 0, offset 1" in re.sub(r"partition \d", "partition 0", book.reason)
        await client.feed(snapshot(11))
        await book.changed()
        assert book.in_sync


async def test_closing_the_client_ends_its_books():
    """With the client its books end, those still waiting for a snapshot too, and no task is left."""
    before = asyncio.all_tasks()
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        changes = book.updates()
        waiting = [
            asyncio.ensure_future(client.order_book(*a, market="spot")) for a in (("ETH/USDT",), ("ETHUSDT",))
        ]
        await asyncio.sleep(0.01)
    assert [change.type async for change in changes] == ["lost"]
    assert repr(book) == "<LiveBook BTC/USDT not in sync: it was closed>"
    for each in waiting:
        with pytest.raises(NotInSync):
            await each
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("turns", range(1, 12))
async def test_closing_the_client_while_a_book_opens(turns: int):
    """Whichever step of opening the close meets, who waits for the book is told that it is not in sync."""
    before = asyncio.all_tasks()
    async with testing.connect([snapshot(9)], live=True) as client:
        waiting = asyncio.ensure_future(client.order_book("ETH/USDT", market="spot"))
        for _ in range(turns):
            await asyncio.sleep(0)
    with pytest.raises(NotInSync):
        await waiting
    assert asyncio.all_tasks() == before


async def test_a_reader_that_fails_says_so():
    """An error of the reader ends the book with it, and the next book has a new reader."""
    async with testing.connect([snapshot(9)], live=True) as client:
        book = await client.order_book("BTC/USDT")
        updates = book.updates()
        memory = client._memory
        broken = memory.log

        class Broken(list):
            def __getitem__(self, _):
                raise TopicMismatch("it is gone")

        memory.log = Broken(broken)
        await client.feed(delta(10, 10))
        assert (await anext(updates)).reason == "its reader failed: it is gone"
        with pytest.raises(TopicMismatch):
            await anext(updates)
        with pytest.raises(TopicMismatch):
            await book.changed()
        memory.log = [*broken, *[each for each in list.__iter__(memory.log) if each not in broken]]
        assert (await client.order_book("BTC/USDT")).sequence == 10


def test_without_await():
    """The synchronous client's book has the same views and changes."""
    with sync_sdk.Client(testing.connect([snapshot(9), delta(10, 12)], live=True)) as client:
        with client.order_book("BTC/USDT") as book:
            assert (book.symbol, book.market, book.in_sync, book.reason) == ("BTC/USDT", "spot", True, None)
            assert (book.sequence, book.timestamp, book.receivedAt) == (12, T0 + 12_000, T0 + 12_500)
            assert (book.mid, book.spread, book.microprice) == (Decimal("100.5"), 1, Decimal("100.5"))
            assert (book.best_bid, book.best_ask) == (book.bids()[0], book.asks()[0])
            assert book.depth(low=100) == (levels("100 1"), levels("101 1", "102 3"))
            assert book.cost("buy", 1).total == 101
            assert book.as_ccxt(1)["bids"] == [[100.0, 1.0]]
            assert book.age is not None
            assert book.seen.snapshots == 1
            assert "at 12" in repr(book)
            updates, version = book.updates(), book.version
            client._loop.run(client._client.feed(delta(13, 13), delta(15, 15)))
            assert [next(updates).type for _ in range(2)] == ["delta", "lost"]
            assert book.changed(version, timeout=180) == version + 2
            with pytest.raises(TimeoutError):
                book.changed(timeout=0.01)
            with pytest.raises(NotInSync):
                book.bids()
            assert not book.stale_ok
            book.stale_ok = True
            assert book.best_bid.price == 100
        assert [change.reason for change in updates] == ["it was closed"]


PAGE = (Path(__file__).parents[2] / "docs/how-to/follow-a-book.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[str(n) for n in range(len(BLOCKS))])
async def test_each_block_of_the_page_runs(block, capsys):
    """Each Python block compiles, and those that take a client or a book run with one fed from memory."""
    code = compile(block, "follow-a-book.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "localhost" in block:
        return
    history = [snapshot(1), snapshot(1, symbol="ETH/USDT", exchangeSymbol="ETHUSDT")]
    async with testing.connect(history, live=True) as client:
        book = await client.order_book("BTC/USDT")
        if "changed(version)" in block or "updates()" in block:
            asyncio.get_running_loop().call_later(0.01, lambda: asyncio.ensure_future(play(client)))
        elif "NotInSync" in block:
            await client.feed(delta(11, 12))
            await book.changed()
        running = eval(code, {"client": client, "book": book, "asyncio": asyncio})
        if running is not None:
            await running
        if "NotInSync" in block:
            assert "not in sync: changes 2 to 10 are missing" in capsys.readouterr().out


async def play(client):
    """Let a change come, and then the end."""
    await client.feed(delta(2, 2, ["100 2"]))
    await client.finish()


# Following it, from Kafka


@pytest.fixture
async def write(kafka):
    """Give a writer of the topics that books are followed from."""
    topics = ["unified.order-book", "gaps", "lifecycle"]
    async with writer(kafka.bootstrap_servers, Topics(ENVIRONMENT, NAMESPACE), topics) as ready:
        yield ready


@pytest.fixture
async def client(kafka):
    """Give a client of the shared broker."""
    async with connect(kafka.bootstrap_servers, environment=ENVIRONMENT, namespace=NAMESPACE) as connected:
        yield connected


@pytest.fixture
def symbol():
    """A unified symbol that no other test has."""
    return f"{uuid.uuid4().hex[:10].upper()}/USDT"


class Present:
    """Makes records of a symbol with present times."""

    def __init__(self, symbol):
        self.names = {"symbol": symbol, "exchangeSymbol": symbol.replace("/", "")}

    def __call__(self, made, seconds_ago=0.0):
        at = time.time_ns() // 1000 - round(seconds_ago * SECOND)
        names = {name: value for name, value in self.names.items() if name in type(made).__struct_fields__}
        times = (
            {"timestamp": at, "receivedAt": at + 500} if isinstance(made, OrderBook) else {"detectedAt": at}
        )
        return testing.record(
            type(made), **{n: getattr(made, n) for n in made.__struct_fields__} | names | times
        )


async def until(book, condition):
    """Wait until ``condition`` holds of the book."""
    async with asyncio.timeout(180):
        while not condition(book):
            await book.changed()


@pytest.mark.kafka
async def test_a_book_from_kafka(write, client, symbol):
    """It starts in the middle from the newest snapshot, follows, breaks, and is healed by the next snapshot."""
    present = Present(symbol)
    old = [present(snapshot(1, ["1 1"], ["2 1"]), 30), present(delta(2, 9), 29)]
    await write.write(*old, present(snapshot(9), 2), present(delta(10, 12, ["100 5"]), 1))
    async with await client.order_book(symbol, timeout=180) as book:
        assert (book.sequence, book.bids(1)) == (12, levels("100 5"))
        assert book.seen.snapshots == 2
        assert 0 < book.age < 300
        await write.write(present(delta(13, 14, [], ["100.5 0.000000000000000001"])))
        await until(book, lambda b: b.sequence == 14)
        assert book.best_ask == levels("100.5 0.000000000000000001")[0]
        await write.write(present(delta(16, 17)))
        await until(book, lambda b: not b.in_sync)
        assert book.reason == "changes 15 to 15 are missing"
        await write.write(present(delta(18, 18)), present(snapshot(18)), present(delta(19, 19, ["98 1"])))
        await until(book, lambda b: b.sequence == 19)
        assert shown(book._followed.state) == [["100 1", "99 2", "98 1"], ["101 1", "102 3"]]
        await write.write(present(gap(firstSequence=20, lastSequence=25)))
        await until(book, lambda b: not b.in_sync)
        assert "changes 20 to 25 are missing" in book.reason


@pytest.mark.kafka
async def test_a_book_begins_without_a_seam(write, client, symbol):
    """While a writer goes on, books that start at any moment, later ones on a running reader, miss nothing."""
    symbols = [f"{symbol[:-5]}{n}/USDT" for n in range(6)]
    presents = [Present(each) for each in symbols]
    await write.write(*[present(snapshot(0)) for present in presents])
    done = asyncio.Event()
    last = 0

    async def produce():
        nonlocal last
        while not done.is_set():
            last += 1
            await write.write(*[present(delta(last, last, [f"99.5 {last}"])) for present in presents])

    producing = asyncio.create_task(produce())
    try:
        books = [await client.order_book(symbols[0], timeout=180)]
        books += await asyncio.gather(*[client.order_book(each, timeout=180) for each in symbols[1:]])
    finally:
        done.set()
        await producing
    for book in books:
        await until(book, lambda b: b.sequence == last)
        assert book.in_sync
        assert book.best_bid == Level(Decimal(100), Decimal(1))
        assert book.bids(2)[1].amount == last
        assert book.seen.deltas == last, "each change once"


@pytest.mark.kafka
async def test_an_exchange_symbol_is_found_in_kafka(write, client, symbol):
    """The exchange's own name finds the book in whichever partition it is, also where it comes only later."""
    present = Present(symbol)
    waiting = asyncio.ensure_future(client.order_book(symbol.replace("/", ""), market="spot", timeout=180))
    while not waiting.done():
        await write.write(present(snapshot(1)))
        await asyncio.wait([waiting], timeout=0.2)
    assert (await waiting).symbol == symbol


@pytest.mark.kafka
async def test_a_topic_that_is_missing_is_named(kafka):
    """Without the order books' topic the error names it and its mend."""
    async with connect(kafka.bootstrap_servers, environment="demo", namespace="sdk-no-book") as client:
        with pytest.raises(TopicMismatch, match=r"sdk-no-book\.demo\.unified\.order-book .*topics apply"):
            await client.order_book("BTC/USDT")


@pytest.mark.kafka
async def test_the_example_that_follows_a_book(kafka, symbol):
    """``examples/follow_book.py`` prints the top of the book at each change, and that it is lost."""
    present = Present(symbol)
    topics = Topics(ENVIRONMENT)
    async with writer(kafka.bootstrap_servers, topics, ["unified.order-book", "gaps"]) as ready:
        await ready.write(present(snapshot(9)))
        arguments = (kafka.bootstrap_servers, ENVIRONMENT, symbol, "--count", "3")
        async with example("follow_book.py", *arguments) as process:
            first = (await process.stdout.readline()).decode()
            assert re.fullmatch(r"\S+Z 1 @ 100 \| 1 @ 101  mid 100\.5, spread 1\n", first)
            await ready.write(present(delta(10, 10, ["100.5 2"])))
            assert "2 @ 100.5 | 1 @ 101" in (await process.stdout.readline()).decode()
            await ready.write(present(delta(12, 12)))
            assert (await process.stdout.read()).decode() == "— not in sync: changes 11 to 11 are missing\n"
