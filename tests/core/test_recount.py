"""Counting a stream again, and holding ledger and gap records against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.coverage import Covered, Ledger
from bridge.core.recount import Account, Carried, Counted, Told, in_time, ledger_finding
from bridge.core.series import Place
from bridge.core.spans import Span
from tests.core.test_coverage import STREAM, gap, ledger

if TYPE_CHECKING:
    import random

TIME = Covered("spot", "ticker", "btcusdt@ticker", "BTCUSDT", "BTC/USDT", "time")


def counted(*spans, epoch=0, live=True, into=None, at=1000):
    """Count records, a span each; their event times are their ids."""
    made = into or Counted()
    for first, last in spans:
        made.record(Place(Span(first, last), first, last), epoch=epoch, live=live, received_at=at)
    return made


def ids(first, last):
    """Return a span an id."""
    return [(n, n) for n in range(first, last + 1)]


def account(made, record=None, *gaps, whole=True):
    """Return an account of what was counted, a coverage record and gap records."""
    told = [Told(1, one) for one in gaps]
    return Account(
        STREAM, ledger=record, told=told, early=len(told), counted=made, whole_topic=whole
    )  # fmt: skip


def test_all_there_and_agreed():
    """Published, and the ledger says so: nothing is amiss."""
    found = account(counted(*ids(1, 50)), ledger(1, 50).record(9, 0)).finding(ledgers=True)
    assert found.whole
    assert (found.first, found.last, found.published, found.counted["events"]) == (1, 50, 50, 50)


def test_a_hole_that_nobody_named_is_unexplained():
    """Whatever the ledger claims."""
    made = counted(*ids(1, 20), *ids(24, 50))
    found = account(made, ledger(1, 50).record(9, 0)).finding(ledgers=True)
    assert found.unexplained == ((21, 23),)
    assert not found.whole


def test_what_the_ledger_claims_beyond_the_topic_is_unexplained():
    """Records that were acknowledged and are gone."""
    found = account(counted(*ids(1, 20)), ledger(1, 50).record(9, 0)).finding(ledgers=True)
    assert found.unexplained == ((21, 50),)


def test_the_head_of_a_whole_topic_must_be_there():
    """Unless retention has deleted it: then the count begins at the oldest live record."""
    made = counted(*ids(11, 50))
    record = ledger(1, 50).record(9, 0)
    assert account(made, record).finding(ledgers=True).unexplained == ((1, 10),)
    cut = account(made, record, whole=False).finding(ledgers=True)
    assert cut.whole
    assert cut.first == 11
    assert "counted from 11 on" in cut.remarks[0]
    counted((5, 5), live=False, into=made)  # what was recovered lies behind, and stays longer
    assert account(made, record, whole=False).finding(ledgers=True).whole


def test_named_holes_are_explained():
    """Open and unrecoverable ones are holes all the same; a filled one is there."""
    gaps = [gap(11, 12), gap(21, 22, "unrecoverable"), gap(31, 32, "filled")]
    made = counted(*ids(1, 10), *ids(13, 20), *ids(23, 30), *ids(33, 50))
    counted((31, 31), (32, 32), live=False, into=made)
    found = account(made, ledger(1, 50, *gaps).record(9, 0), *gaps).finding(ledgers=True)
    assert (found.unexplained, found.both, found.disagreements) == ((), (), ())
    assert (found.open, found.unrecoverable, found.gaps_filled, found.recovered) == (2, 2, 1, 2)
    assert (found.counted["events"], found.counted["backfilled"]) == (46, 2)
    assert not found.whole


def test_filled_but_not_there():
    """A gap record that claims what the topic lacks convicts itself."""
    gaps = [gap(11, 12, "filled")]
    made = counted(*ids(1, 10), *ids(13, 50))
    found = account(made, ledger(1, 50, *gaps).record(9, 0), *gaps).finding(ledgers=True)
    assert found.unexplained == ((11, 12),)


def test_published_and_named_missing():
    """Each event has one place: the topic, or a gap."""
    gaps = [gap(11, 12)]
    found = account(counted(*ids(1, 50)), ledger(1, 50, *gaps).record(9, 0), *gaps).finding(ledgers=True)
    assert found.both == ((11, 12),)


def test_a_ledger_that_differs_from_the_gap_records():
    """Holes only one of them knows, and one whose fate they tell differently."""
    gaps = [gap(11, 12), gap(21, 22, "unrecoverable")]
    made = counted(*ids(1, 10), *ids(13, 20), *ids(23, 50))
    other = ledger(1, 50, gap(21, 22), gap(31, 31))
    found = account(made, other.record(9, 0), *gaps).finding(ledgers=True)
    assert found.disagreements == (
        "open in the ledger, not so in any gap record: 21..22, 31..31",
        "missing by gap records, published by the ledger: 11..12",
    )


def test_a_ledger_may_be_a_little_older_than_the_gap_records():
    """What it said when it was written is held against what they said then."""
    notes = [gap(11, 12), gap(11, 12, "filled")]
    made = counted(*ids(1, 10), *ids(13, 50))
    counted((11, 11), (12, 12), live=False, into=made)
    late = Account(
        STREAM, ledger=ledger(1, 50, notes[0]).record(9, 0), told=[Told(8, notes[0]), Told(10, notes[1])],
        early=2, counted=made,
    )  # fmt: skip
    assert late.finding(ledgers=True).whole


def test_a_stream_without_a_ledger():
    """Is a disagreement where there is a coverage topic."""
    found = account(counted(*ids(1, 5)))
    assert found.finding(ledgers=False).whole
    assert found.finding(ledgers=True).disagreements == ("it has no coverage record",)


def test_copies_and_zombies_are_told_apart():
    """The same event twice; a replaced writer's records, before or behind its successor's copy, count as nothing."""
    made = counted(*ids(1, 10), epoch=3)
    counted((10, 10), epoch=3, into=made)
    counted(*ids(9, 20), epoch=4, into=made)  # 9 and 10: epoch 3 had gone on
    counted((21, 21), (15, 15), epoch=3, into=made)  # wakes up
    counted((12, 12), epoch=4, live=False, into=made)
    assert (made.events, made.duplicates, made.zombies) == (20, 2, 4)
    assert list(made.published) == [(1, 20)]


def test_messages_that_make_no_record_take_their_id():
    """Raw shows them; the unified topic leaves them out, and that is no hole."""
    made = counted(*ids(1, 10), *ids(12, 20))
    made.silent_message(11, 11)
    made.silent_message(11, 11)
    found = account(made, ledger(1, 20).record(9, 0)).finding(ledgers=True)
    assert found.whole
    assert found.counted["withoutRecord"] == 1


def test_an_open_candle_begins_a_stream_but_is_no_event():
    """Only the closed candle counts."""
    made = Counted()
    made.record(Place(None, 60_000, 61_000), epoch=0, live=True, received_at=1)
    made.record(Place(Span(60_000, 119_999), 60_000, 120_001), epoch=0, live=True, received_at=2)
    made.record(Place(None, 120_000, 121_000), epoch=0, live=True, received_at=3)
    assert (made.start, made.last, made.events) == (60_000, 119_999, 1)


def test_the_exchange_counts_anew():
    """Ids far back of clearly newer events: what was before is another series."""
    made = Counted()
    for n in range(1000, 1010):
        made.record(Place(Span(n, n), n, 1_000_000 + n), epoch=0, live=True, received_at=5)
    for n in range(5, 10):
        made.record(Place(Span(n, n), n, 1_020_000 + n), epoch=0, live=True, received_at=9)
    assert (made.earlier_series, list(made.published), made.began_at) == (1, [(5, 9)], 9)
    anew = ledger(1000, 1009)
    anew.begin(5, at=9)
    anew.reached(9)
    assert account(made, anew.record(10, 0), gap(1003, 1004, at=6)).finding(ledgers=True).whole
    old = account(made, ledger(5, 9).record(10, 0)).finding(ledgers=True)
    assert "series" in old.disagreements[0]


def test_streams_known_by_time():
    """Raw says from when to when; a message within a stretch without connections is a disagreement."""
    told = Ledger(TIME)
    told.begin(1000)
    told.reached(9000)
    dark = gap(2000, 3000, "unrecoverable", times=True, cause="disconnected")
    told.note(dark)
    one = Account(TIME, ledger=told.record(9, 0), told=[Told(1, dark)], early=1, carried=Carried())
    for at in (1000, 2000, 3000, 9000):
        one.carried.message(at, one.dark())
    found = one.finding(ledgers=True)
    assert (found.disagreements, found.unrecoverable, found.counted["events"]) == ((), 999, 4)
    one.carried.message(2500, one.dark())
    assert "1 messages came within a stretch" in one.finding(ledgers=True).disagreements[0]


def test_a_restarts_stretch_may_hold_messages():
    """It begins at the earlier owner's last word, not at its end."""
    dark = gap(2000, 3000, "unrecoverable", times=True, cause="restart")
    one = Account(TIME, told=[Told(1, dark)], carried=Carried())
    assert list(one.dark()) == []


def test_a_range_of_time_cuts_a_ledger():
    """Candles and times are cut; gaps of ids count where they were found in the range."""
    candles = Ledger(Covered("spot", "kline", "btcusdt@kline_1m", "BTCUSDT", "BTC/USDT", "candle"))
    candles.begin(60_000)
    candles.reached(599_999)
    candles.note(gap(120_000_000, 239_999_999, times=True))
    cut = in_time(ledger_finding(candles.record(9, 0)), 180_000, 300_000)
    assert (cut.first, cut.last, cut.published, cut.open) == (180_000, 299_999, 60_000, 60_000)
    assert in_time(ledger_finding(candles.record(9, 0)), 600_000, None) is None
    holed = ledger(1, 100, gap(11, 12, at=5_000), gap(21, 22, at=8_000))
    cut = in_time(ledger_finding(holed.record(9, 0)), 6, 10)
    assert (cut.open, cut.published) == (2, None)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["there", "open", "unrecoverable", "filled", "lost"]), min_size=2, max_size=80),
    st.randoms(use_true_random=False),
)
def test_each_fate_is_found(fates, chance: random.Random):
    """Whatever is published, recovered late, named or lost without a word: the recount says which is which."""
    fates = ["there", *fates, "there"]
    made, late, gaps = Counted(), [], []
    for n, fate in enumerate(fates, 1):
        if fate == "there":
            counted((n, n), into=made)
        elif fate != "lost":
            gaps.append(gap(n, n, fate))
        if fate == "filled":
            late.append((n, n))
        if late and chance.random() < 0.5:
            counted(late.pop(chance.randrange(len(late))), live=False, into=made)
    counted(*late, live=False, into=made)
    record = ledger(1, len(fates), *gaps).record(9, 0)
    found = account(made, record, *gaps).finding(ledgers=True)
    lost = [n for n, fate in enumerate(fates, 1) if fate == "lost"]
    assert [n for span in found.unexplained for n in range(span.first, span.last + 1)] == lost
    assert (found.open, found.unrecoverable) == (fates.count("open"), fates.count("unrecoverable"))
    assert found.published == fates.count("there") + fates.count("filled")
    assert (found.both, found.disagreements) == ((), ())
    assert found.whole == ({*fates} <= {"there", "filled"})
