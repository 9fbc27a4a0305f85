"""Snapshot and changes joined: the rule of each market, case by case, and any interleaving."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.book_sync import (
    BookSync,
    Change,
    DepthRequest,
    Due,
    Happening,
    Lost,
    Synced,
    Wanted,
    book_of,
    depth_request,
)
from bridge.core.decimals import ONE
from bridge.core.levels import read_levels
from bridge.model import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 1_000_000
BIDS = [("100", "1"), ("99", "1")]
ASKS = [("101", "1"), ("102", "1")]


def flat(rows: Sequence[Any]) -> list[int]:
    """Return rows as a change has them."""
    return read_levels(json.dumps(rows, separators=(",", ":")).encode())


def spot(first: int, last: int, **rows: Any) -> Change:
    """Return a change as spot's rule reads it: it follows U - 1."""
    return Change(first - 1, last, flat(rows.get("bids", [("98", str(last))])), flat(rows.get("asks", [])))


def futures(previous: int, first: int, last: int, **rows: Any) -> Change:
    """Return a change as the futures' rule reads it: it follows pu; U plays no part."""
    assert previous < first <= last
    return Change(previous, last, flat(rows.get("bids", [("98", str(last))])), flat(rows.get("asks", [])))


def snapshot(last: int, bids: Sequence[Any] = BIDS, asks: Sequence[Any] = ASKS) -> bytes:
    """Return an answer of REST."""
    return json.dumps({"lastUpdateId": last, "bids": bids, "asks": asks}).encode()


def kinds(happened: Sequence[Happening]) -> list[str]:
    """Return what happened, in short."""
    return ["publish" if h is Due.PUBLISH else type(h).__name__.lower() for h in happened]


@dataclass
class Talk:
    """A synchroniser and what it told."""

    sync: BookSync = field(default_factory=lambda: BookSync(60 * SECOND))
    at: int = 0

    def feed(self, *steps: Change | bytes) -> list[Happening]:
        """Feed changes and snapshots; return what the last one made happen."""
        happened: Sequence[Happening] = []
        for step in steps:
            self.at += 1
            if isinstance(step, Change):
                happened = self.sync.change(step, self.at)
            else:
                happened = self.sync.answer(step, 1000, self.at)
        return list(happened)

    def reason(self, *steps: Change | bytes) -> str:
        """Feed; return the reason of the wish for a snapshot that it must end in."""
        last = self.feed(*steps)[-1]
        assert isinstance(last, Wanted), last
        return last.reason


@pytest.mark.parametrize(
    ("changes", "last", "expected"),
    [
        # the snapshot lies within the first change that is needed: U <= L <= u
        ([spot(10, 12), spot(13, 15)], 11, ["synced", "publish"]),
        # U = L + 1: contiguous, though "within [U, u]" would refuse it (facts, corrected 2025-11-12)
        ([spot(10, 12), spot(13, 15)], 12, ["synced", "publish"]),
        # U0 = L + 1 for the very first change: nothing lies between
        ([spot(10, 12)], 9, ["synced", "publish"]),
        # L = u of the newest: the snapshot is the book of now
        ([spot(10, 12)], 12, ["synced", "publish"]),
        # L < U0 - 1: older than the first change kept; ask again, go on keeping
        ([spot(10, 12)], 8, ["wanted"]),
        # L > u: ahead of every change (a quiet symbol); wait for one
        ([spot(10, 12)], 13, []),
        # a change that reaches over another (two connections) changes nothing
        ([spot(10, 12), spot(11, 15)], 13, ["synced", "publish"]),
    ],
)
def test_spot_rule(changes: list[Change], last: int, expected: list[str]) -> None:
    """U <= L + 1 <= u, for the first change that is not wholly in the snapshot."""
    talk = Talk()
    assert kinds(talk.feed(changes[0])) == ["wanted"]
    assert kinds(talk.feed(*changes[1:], snapshot(last))) == expected
    if expected == ["synced", "publish"]:
        assert talk.sync.sequence == changes[-1].last


@pytest.mark.parametrize(
    ("changes", "last", "expected"),
    [
        # U <= L <= u of the first change that is not dropped (u < L)
        ([futures(10, 15, 30), futures(30, 45, 60)], 50, ["synced", "publish"]),
        # L = u: that change is in the snapshot, the next has pu = L and U > L
        ([futures(10, 15, 30), futures(30, 45, 60)], 30, ["synced", "publish"]),
        # L between pu and U: ids jump, and by pu nothing lies there; the words of the rule would ask for ever
        ([futures(10, 15, 30), futures(30, 45, 60)], 40, ["synced", "publish"]),
        ([futures(10, 15, 30)], 12, ["synced", "publish"]),
        # L < pu of the first change kept: too old
        ([futures(10, 15, 30)], 9, ["wanted"]),
        # ahead of every change
        ([futures(10, 15, 30)], 31, []),
    ],
)
def test_futures_rule(changes: list[Change], last: int, expected: list[str]) -> None:
    """A change is applied to a snapshot with pu <= L <= u, and to a change whose u is its pu."""
    talk = Talk()
    talk.feed(*changes)
    assert kinds(talk.feed(snapshot(last))) == expected


def test_book_is_snapshot_and_changes() -> None:
    """Changes that the snapshot holds are not applied again; those after it are, in order."""
    talk = Talk()
    talk.feed(
        spot(10, 12, bids=[("99", "7")], asks=[("103", "1")]),
        spot(13, 14, bids=[("99", "8")]),
        spot(15, 15, bids=[("99", "9"), ("100", "0")]),
    )
    synced, due = talk.feed(snapshot(13))
    assert synced == Synced(sequence=15, bids=1, asks=2, changes=2, refreshed=False)
    assert due is Due.PUBLISH
    assert talk.sync.book is not None
    assert talk.sync.book.bids.levels.get(99 * ONE, 0) == 9 * ONE
    assert talk.sync.book.best_ask == 101 * ONE
    assert talk.feed(spot(16, 16, bids=[("100", "3")])) == []
    assert talk.sync.book.best_bid == 100 * ONE


@pytest.mark.parametrize("last", [14, 15, 17])
def test_snapshot_ahead_waits_for_its_change(last: int) -> None:
    """A quiet symbol's snapshot is provisional: the next change proves it, and only then is it published."""
    talk = Talk()
    assert talk.feed(spot(10, 12), snapshot(last)) == []
    assert talk.sync.book is None
    happened = talk.feed(spot(13, 17))
    assert kinds(happened) == ["synced", "publish"]
    assert talk.sync.sequence == 17
    if last < 17:
        assert talk.sync.book is not None
        assert talk.sync.book.bids.levels.get(98 * ONE, 0) == 17 * ONE


def test_changes_behind_a_snapshot_ahead_are_not_applied() -> None:
    """They are in it."""
    talk = Talk()
    assert talk.feed(spot(10, 12), snapshot(17), spot(13, 14), spot(15, 16)) == []
    assert kinds(talk.feed(spot(17, 17))) == ["synced", "publish"]
    assert talk.sync.book is not None
    assert talk.sync.book.bids.levels.get(98 * ONE, 0) == 0


def test_snapshot_ahead_across_a_hole_is_proven_too_old() -> None:
    """When the next change starts beyond it, a new one is wanted; when it covers the hole, the book is in sync."""
    talk = Talk()
    reason = talk.reason(spot(10, 12), snapshot(14), spot(17, 18))
    assert reason == "the snapshot of 14 is older than 16"
    assert kinds(talk.feed(snapshot(17))) == ["synced", "publish"]
    talk = Talk()
    talk.feed(spot(10, 12), snapshot(17))
    assert kinds(talk.feed(spot(16, 18))) == ["synced", "publish"]


def test_snapshot_far_ahead_is_given_up() -> None:
    """A series that does not get there is another one."""
    talk = Talk()
    talk.feed(spot(1, 1), snapshot(10_000))
    happened = [h for n in range(2, 400) for h in talk.feed(spot(n, n))]
    assert [h.reason for h in happened if isinstance(h, Wanted)] == [
        "the snapshot of 10000 is far ahead of the stream"
    ]


def test_hole_in_the_changes_loses_the_book() -> None:
    """It is told with what is missing, a snapshot is wanted, and the next one joins."""
    talk = Talk()
    talk.feed(spot(10, 12), snapshot(11), spot(13, 13))
    happened = talk.feed(spot(15, 16))
    reason = "updates 14 to 14 are missing"
    assert happened == [Lost(reason, 13), Wanted(reason, "resync")]
    assert talk.sync.book is None
    assert talk.reason(snapshot(13)) == "the snapshot of 13 is older than 14"
    assert kinds(talk.feed(snapshot(14))) == ["synced", "publish"]


def test_hole_while_waiting_needs_no_new_request() -> None:
    """What was kept before it is of no use; the answer under way may still do."""
    talk = Talk()
    talk.feed(spot(10, 12))
    assert talk.feed(spot(14, 15)) == []
    assert talk.reason(snapshot(12)) == "the snapshot of 12 is older than 13"
    assert kinds(talk.feed(snapshot(13))) == ["synced", "publish"]


def test_futures_chain_is_pu() -> None:
    """U does not follow the u before it, and need not; pu must."""
    talk = Talk()
    talk.feed(futures(10, 15, 30), snapshot(20))
    assert talk.feed(futures(30, 55, 60)) == []
    assert kinds(talk.feed(futures(61, 70, 80))) == ["lost", "wanted"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"bids": [("101", "1")]}, "locked: bid 101, ask 101"),
        ({"asks": [("99.5", "1")]}, "crossed: bid 100, ask 99.5"),
        ({"bids": [("100", "-1")]}, "a level of -1 at 100"),
        ({"bids": [("100", "0"), ("99", "0"), ("98", "0")]}, "no bids are left"),
    ],
)
def test_impossible_book_is_not_served(rows: dict[str, Any], reason: str) -> None:
    """A change that leaves one is the end of being in sync."""
    talk = Talk()
    talk.feed(spot(10, 12), snapshot(11))
    happened = talk.feed(spot(13, 13, **{"bids": [], **rows}))
    assert happened == [Lost(reason, 12), Wanted(reason, "resync")]
    assert kinds(talk.feed(spot(14, 14), snapshot(13))) == ["synced", "publish"]


def test_one_sided_market_is_served_when_the_exchange_says_so() -> None:
    """An empty side in the snapshot is the exchange's word, and staying empty is nothing new."""
    talk = Talk()
    happened = talk.feed(spot(10, 12, bids=[]), snapshot(12, bids=[]))
    assert happened[0] == Synced(12, 0, 2, 0, refreshed=False)
    assert talk.feed(spot(13, 13, bids=[], asks=[("103", "1")])) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (snapshot(12, bids=[("101", "1")]), "the snapshot is locked: bid 101, ask 101"),
        (
            snapshot(12, bids=[("-5", "1")]),
            "the snapshot cannot be understood: a level of 1 at -5 in a snapshot",
        ),
        (b"", "the snapshot cannot be understood: Input data was truncated"),
        (
            b'{"code":-1003}',
            "the snapshot cannot be understood: Object missing required field `lastUpdateId`",
        ),
        (b"\xff", "the snapshot cannot be understood"),
        (b"[" * 100_000, "the snapshot cannot be understood"),
    ],
)
def test_bad_snapshot_is_asked_for_again(body: bytes, reason: str) -> None:
    """The state stays as it was, and a good one joins."""
    talk = Talk()
    assert talk.reason(spot(10, 12), body).startswith(reason)
    assert kinds(talk.feed(snapshot(12))) == ["synced", "publish"]


def test_snapshot_that_the_changes_cross_is_asked_for_again() -> None:
    """One of the two is wrong."""
    talk = Talk()
    talk.feed(spot(10, 12), spot(13, 13, bids=[("101", "1")]))
    assert talk.reason(snapshot(12)) == "locked: bid 101, ask 101"
    assert kinds(talk.feed(snapshot(13))) == ["synced", "publish"]


def test_change_that_made_no_record_breaks_the_book() -> None:
    """Consumers did not get it either; a snapshot that has it mends both."""
    talk = Talk()
    talk.feed(spot(10, 12), snapshot(11))
    happened = talk.sync.unusable(12, 14, "an update made no record")
    assert happened == [Lost("an update made no record", 12), Wanted("an update made no record", "resync")]
    assert talk.reason(spot(15, 15), snapshot(13)) == "the snapshot of 13 is older than 14"
    assert kinds(talk.feed(snapshot(14))) == ["synced", "publish"]


def test_unusable_change_may_be_the_first_or_the_one_waited_for() -> None:
    """No state of the synchroniser is at odds with it."""
    talk = Talk()
    assert kinds(talk.sync.unusable(9, 10, "bad")) == ["wanted"]
    assert kinds(talk.feed(snapshot(10))) == ["synced", "publish"]
    talk = Talk()
    talk.feed(spot(10, 12), snapshot(14))
    assert talk.sync.unusable(12, 15, "bad") == []
    assert talk.reason(spot(16, 17)) == "the snapshot of 14 is older than 15"


def test_series_that_begins_anew_loses_the_book() -> None:
    """The exchange may count anew; a snapshot of the old series is of no use."""
    talk = Talk()
    talk.feed(spot(1000, 1002), snapshot(1001))
    assert kinds(talk.feed(spot(5, 6))) == ["lost", "wanted"]
    assert kinds(talk.feed(snapshot(6))) == ["synced", "publish"]
    talk = Talk()
    talk.feed(spot(1000, 1002), snapshot(1005))
    assert talk.reason(spot(5, 6)) == "the exchange counts anew: 6 after 1002"
    assert kinds(talk.feed(snapshot(6))) == ["synced", "publish"]


def test_answers_nobody_waits_for_change_nothing() -> None:
    """Before the stream has begun, and while in sync."""
    talk = Talk()
    assert talk.feed(snapshot(11)) == []
    talk.feed(spot(10, 12), snapshot(11))
    book = talk.sync.book
    assert talk.feed(snapshot(12, bids=[("1", "1")])) == []
    assert talk.sync.book is book


def test_what_is_kept_is_bounded() -> None:
    """Of changes only the newest are kept, by number and by levels; an answer for older ones is too old."""
    talk = Talk()
    for n in range(1, 1001):
        talk.feed(spot(n, n))
    assert talk.reason(snapshot(700)) == "the snapshot of 700 is older than 744"
    assert kinds(talk.feed(snapshot(744))) == ["synced", "publish"]
    talk = Talk()
    rows = [(f"50.{n:04}", "1") for n in range(3000)]
    for n in range(1, 11):
        talk.feed(spot(n, n, bids=rows))
    assert talk.reason(snapshot(5)) == "the snapshot of 5 is older than 7"
    talk.feed(spot(11, 11, bids=rows * 4))
    assert talk.reason(snapshot(10)) == "the snapshot of 10 is older than 11"
    assert kinds(talk.feed(snapshot(11))) == ["synced", "publish"]


def test_snapshots_come_at_their_interval() -> None:
    """With the first change after it; not before, and not while out of sync."""
    sync = BookSync(10 * SECOND)
    sync.change(spot(1, 1), 0)
    assert kinds(sync.answer(snapshot(1), 1000, 1 * SECOND)) == ["synced", "publish"]
    assert not sync.change(spot(2, 2), 11 * SECOND - 1)
    assert kinds(sync.change(spot(3, 3), 11 * SECOND)) == ["publish"]
    assert not sync.change(spot(4, 4), 12 * SECOND)
    assert kinds(sync.change(spot(6, 6), 40 * SECOND)) == ["lost", "wanted"]
    assert not sync.change(spot(7, 7), 60 * SECOND)


DEEP_BIDS = [(str(1000 - n), "1") for n in range(100)]
DEEP_ASKS = [(str(1001 + n), "1") for n in range(100)]


def _deep(sync: BookSync) -> None:
    sync.change(spot(1, 1, bids=[]), 0)
    assert kinds(sync.answer(snapshot(1, DEEP_BIDS, DEEP_ASKS), 100, 1)) == ["synced", "publish"]


def test_book_that_runs_out_of_known_levels_is_refreshed() -> None:
    """It goes on being served while the new snapshot is on its way, and is published anew when that has joined."""
    sync = BookSync(60 * SECOND)
    _deep(sync)
    gone = [(str(1000 - n), "0") for n in range(80)]
    happened = sync.change(spot(2, 2, bids=gone), 2)
    assert happened == [Wanted("bids come near the depth of the snapshot", "refresh")]
    assert not sync.change(spot(3, 3, bids=[("919", "5")]), 3)
    assert sync.book is not None
    fresh = [(str(920 - n), "1") for n in range(100)]
    happened = sync.answer(snapshot(2, fresh, DEEP_ASKS), 100, 4)
    assert happened == [Synced(3, 100, 100, 1, refreshed=True), Due.PUBLISH]
    assert sync.book.bids.levels.get(919 * ONE, 0) == 5 * ONE
    assert sync.book.bids.edge == 821 * ONE
    assert not sync.change(spot(4, 4), 5)


def test_refreshed_book_that_differs_is_told() -> None:
    """The exchange's snapshot is right; that the one served before was not is no secret."""
    sync = BookSync(60 * SECOND)
    _deep(sync)
    sync.change(spot(2, 2, bids=[(str(1000 - n), "0") for n in range(80)]), 2)
    fresh = [(str(920 - n), "2") for n in range(100)]
    lost, synced, due = sync.answer(snapshot(2, fresh, DEEP_ASKS), 100, 4)
    assert lost == Lost("it differs from the exchange's snapshot: bid 920", 2)
    assert (synced, due) == (Synced(2, 100, 100, 0, refreshed=False), Due.PUBLISH)


def test_book_beyond_its_depth_is_lost() -> None:
    """A market that runs further than the snapshot reached cannot be proven any more."""
    sync = BookSync(60 * SECOND)
    _deep(sync)
    gone = [(str(1000 - n), "0") for n in range(100)]
    happened = sync.change(spot(2, 2, bids=[*gone, ("850", "1")]), 2)
    assert happened == [
        Lost("the best bid is beyond the depth of the snapshot", 1),
        Wanted("the best bid is beyond the depth of the snapshot", "resync"),
    ]


def test_hole_while_refreshing_is_a_resync() -> None:
    """The wish becomes more urgent."""
    sync = BookSync(60 * SECOND)
    _deep(sync)
    sync.change(spot(2, 2, bids=[(str(1000 - n), "0") for n in range(80)]), 2)
    happened = sync.change(spot(4, 4), 3)
    assert happened == [Lost("updates 3 to 3 are missing", 2), Wanted("updates 3 to 3 are missing", "resync")]


@pytest.mark.parametrize(
    ("endpoint", "request_"),
    [
        ("/api/v3/depth?symbol=BTCUSDT&limit=1000", DepthRequest("BTCUSDT", 1000)),
        ("/fapi/v1/depth?limit=500&symbol=%E5%B8%81%E5%AE%89USDT", DepthRequest("币安USDT", 500)),
        ("/dapi/v1/depth?symbol=BTCUSD_PERP&limit=100", DepthRequest("BTCUSD_PERP", 100)),
        ("/api/v3/depth?symbol=BTCUSDT&limit=10", None),
        ("/api/v3/depth?symbol=BTCUSDT", None),
        ("/api/v3/depth?limit=1000", None),
        ("/api/v3/depth", None),
        ("/fapi/v1/rpiDepth?symbol=BTCUSDT&limit=1000", None),
        ("/api/v3/exchangeInfo", None),
    ],
)
def test_answers_for_books_are_known_by_their_request(endpoint: str, request_: DepthRequest | None) -> None:
    """A look at the market with a handful of levels is none."""
    assert depth_request(endpoint) == request_


@pytest.mark.parametrize(
    ("channel", "symbol", "interval", "made"),
    [
        ("depth", "BTCUSDT", 1, True),
        ("depth", "BTCUSDT", None, False),
        ("partial-depth", "BTCUSDT", 1, False),
        ("rpi-depth", "BTCUSDT", 1, False),
        ("depth", None, 1, False),
    ],
)
def test_only_full_depth_makes_books(
    channel: str, symbol: str | None, interval: int | None, made: bool
) -> None:
    """Partial depth names its depth in snapshots of its own."""
    stream = Stream("spot", channel, "x", symbol, "", 1.0, None)
    assert (book_of(stream, interval) is not None) == made


# Any interleaving

_PRICES = 24


@dataclass(frozen=True)
class Past:
    """What an exchange did: changes, and its true book after each update."""

    changes: tuple[Change, ...]
    books: dict[int, tuple[dict[str, str], dict[str, str]]]


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Return a past of an exchange whose book is never crossed: bids on even prices below the asks'."""
    jumping = draw(st.booleans())
    last = draw(st.integers(1, 50))
    bids, asks = {"10": "1"}, {"50": "1"}
    books = {last: (dict(bids), dict(asks))}
    changes: list[Change] = []
    for _ in range(draw(st.integers(1, 12))):
        previous = last
        touched: tuple[dict[str, str], dict[str, str]] = ({}, {})
        for _ in range(draw(st.integers(1, 3))):
            side = draw(st.integers(0, 1))
            level = str(draw(st.integers(11, 20)) + 40 * side)
            amount = draw(st.sampled_from(["0", "1", "2.0", "3"]))
            last += draw(st.integers(1, 5)) if jumping else 1
            touched[side][level] = amount
            levels = (bids, asks)[side]
            levels.pop(level, None)
            if amount != "0":
                levels[level] = amount
            books[last] = (dict(bids), dict(asks))
        changes.append(Change(previous, last, *(flat(list(side.items())) for side in touched)))
    return Past(tuple(changes), books)


_steps = st.lists(st.one_of(st.just("next"), st.just("lose"), st.integers(0, 40)), max_size=60)


@given(pasts(), _steps)
@example(Past((), {0: ({}, {})}), [])
def test_any_interleaving_is_true_or_out_of_sync(past: Past, steps: list[str | int]) -> None:
    """Whatever is lost and whichever snapshot comes when, a book in sync is the exchange's."""
    sync = BookSync(2)
    at, index, newest = 0, 0, -1
    moments = sorted(past.books)
    for step in steps:
        at += 1
        happened: Sequence[Happening] = ()
        if step == "lose":
            index += 1
        elif step == "next" and index < len(past.changes):
            happened = sync.change(past.changes[index], at)
            newest = past.changes[index].last
            index += 1
        elif isinstance(step, int):
            moment = moments[step % len(moments)]
            bids, asks = past.books[moment]
            happened = sync.answer(snapshot(moment, list(bids.items()), list(asks.items())), 1000, at)
        if Due.PUBLISH in happened:
            assert sync.book is not None
            assert sync.sequence == newest, "a snapshot is published behind the newest change, or not at all"
        if sync.book is not None:
            bids, asks = past.books[sync.sequence]
            found = sync.book.top(_PRICES)
            assert {level.price: level.amount for level in found[0]} == _unscaled(bids)
            assert {level.price: level.amount for level in found[1]} == _unscaled(asks)
    # From here on nothing goes wrong: the book must come into sync.
    rest = past.changes[index:]
    for change in rest:
        at += 1
        sync.change(change, at)
    if rest and sync.book is None:
        bids, asks = past.books[rest[-1].last]
        sync.answer(snapshot(rest[-1].last, list(bids.items()), list(asks.items())), 1000, at)
        assert sync.book is not None
        assert sync.sequence == rest[-1].last


def _unscaled(side: dict[str, str]) -> dict[int, int]:
    return {int(price) * ONE: int(float(amount)) * ONE for price, amount in side.items()}
