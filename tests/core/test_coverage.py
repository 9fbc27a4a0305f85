"""The ledger of a stream: begin, reach, gaps of every fate, in any order, twice, as a record and back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalogue import catalogue
from bridge.core import coverage
from bridge.core.coverage import Covered, Ledger, by_of, gap_span
from bridge.core.schema import encode
from bridge.core.spans import Span, Spans
from bridge.core.wire import Decoder
from bridge.schema import structure

if TYPE_CHECKING:
    import random

STREAM = Covered("spot", "agg-trade", "btcusdt@aggTrade", "BTCUSDT", "BTC/USDT", "sequence")
STATUSES = ("open", "filled", "unrecoverable")


def gap(first, last, status="open", *, id_=None, epoch=0, at=1, recovered=None, times=False, **fields):
    """Return a gap record; the id is market, stream and first position, as the bridge's are."""
    known = recovered if recovered is not None else (last - first + 1 if status == "filled" else 0)
    record = {
        "id": f"spot:btcusdt@aggTrade:{first if id_ is None else id_}", "symbol": "BTC/USDT", "market": "spot",
        "exchangeSymbol": "BTCUSDT", "channel": "agg-trade", "stream": "btcusdt@aggTrade",
        "firstSequence": None if times else first, "lastSequence": None if times else last,
        "startTime": first if times else None, "endTime": last if times else None, "detectedAt": at,
        "cause": "sequence", "status": status, "recovered": known, "source": "/p" if status == "filled" else None,
        "connectionId": 1, "connectionSequence": 2, "writerEpoch": epoch,
        "reason": "gone" if status == "unrecoverable" else None,
    }  # fmt: skip
    return record | fields


def ledger(first=1, last=100, *notes):
    """Return a ledger that began, reached and noted."""
    made = Ledger(STREAM)
    made.begin(first, at=1)
    made.reached(last)
    for one in notes:
        made.note(one)
    return made


def content(ledger):
    """Return all that a ledger says."""
    return ledger.record(5, 5)


def test_without_gaps_all_is_published():
    """From where it begins to where it reached, one range."""
    assert ledger(10, 19).ranges == [(10, 19)]
    assert content(ledger(10, 19))["published"] == 10


def test_before_anything_is_reached_nothing_is_published():
    """A stream that has begun, but whose first event is not acknowledged, claims nothing."""
    begun = Ledger(STREAM)
    begun.begin(10)
    assert begun.ranges == []
    assert (content(begun)["last"], content(begun)["published"]) == (9, 0)


def test_an_open_gap_is_a_hole_until_it_is_filled():
    """A later record with the same id replaces the earlier."""
    holed = ledger(1, 100, gap(11, 20))
    assert holed.ranges == [(1, 10), (21, 100)]
    holed.note(gap(11, 20, "filled"))
    assert holed.ranges == [(1, 100)]
    assert (holed.totals.filled, holed.totals.recovered) == (1, 10)


def test_parts_of_a_gap_have_each_their_fate():
    """As gap filling tells them: the first part keeps the id, the others are named by where they begin."""
    holed = ledger(1, 100, gap(11, 20))
    for part in (gap(11, 12), gap(13, 17, "filled"), gap(18, 18, "unrecoverable"), gap(19, 20)):
        holed.note(part)
    assert holed.ranges == [(1, 10), (13, 17), (21, 100)]
    assert [(h.first, h.last, h.status) for h in holed.holes] == [
        (11, 12, "open"), (18, 18, "unrecoverable"), (19, 20, "open"),
    ]  # fmt: skip


def test_what_a_crash_left_untold_of_a_gap_stays_open():
    """A part that shrank under the old id leaves the rest a hole until its own record comes."""
    holed = ledger(1, 100, gap(11, 20), gap(11, 12, "filled"))
    assert [(h.first, h.last, h.status) for h in holed.holes] == [(13, 20, "open")]


def test_a_gap_beyond_what_is_reached_waits():
    """A gap may be told before the message behind it is acknowledged; then the hole is there."""
    early = ledger(1, 10, gap(11, 20))
    assert early.ranges == [(1, 10)]
    early.reached(30)
    assert early.ranges == [(1, 10), (21, 30)]


def test_a_lower_epoch_has_no_say():
    """What a zombie writes of a gap that its successor ended changes nothing."""
    holed = ledger(1, 100, gap(11, 20, epoch=3), gap(11, 20, "filled", epoch=4))
    before = content(holed)
    holed.note(gap(11, 20, epoch=3))
    assert content(holed) == before


def test_a_seam_that_nobody_named_is_a_hole():
    """A fresh start beyond what was reached does not claim what lies between; a gap record then names it."""
    seam = ledger(1, 100)
    seam.begin(151)
    seam.reached(200)
    seam.begin(151)
    assert seam.series == 0
    [hole] = seam.holes
    assert (hole.first, hole.last, hole.reason) == (101, 150, coverage.UNNAMED)
    seam.note(gap(101, 150, "unrecoverable", cause="restart"))
    [hole] = seam.holes
    assert (hole.status, hole.reason) == ("unrecoverable", "gone")
    seam.note(gap(11, 12))
    seam.begin(211)
    assert [h.first for h in seam.holes] == [11, 101, 201]


def test_a_known_gap_is_no_seam():
    """Where a gap record already names what lies between, it stays as it is."""
    seam = ledger(1, 100, gap(101, 150, cause="restart"))
    seam.begin(151)
    assert [h.cause for h in seam.holes] == ["restart"]
    assert [h.reason for h in seam.holes] == [None]


def test_the_exchange_counts_anew():
    """A new series begins empty; what the old one lacked stays told, and its late gap records are not the new one's."""
    anew = ledger(1000, 2000, gap(1100, 1109), gap(1200, 1200, "unrecoverable"))
    anew.begin(5, at=100)
    anew.reached(50)
    assert anew.ranges == [(5, 50)]
    assert (anew.series, anew.earlier) == (1, 11)
    assert not anew.note(gap(1100, 1109, "filled", at=1))
    assert anew.note(gap(7, 8, at=101))
    assert anew.ranges == [(5, 6), (9, 50)]
    assert content(Ledger.restore(content(anew))) == content(anew)


def test_the_exchange_may_count_anew_from_the_very_same_id():
    """A later message with the first id is another series; the same one told again is not."""
    anew = ledger(1, 50)
    anew.begin(1, at=1)
    anew.begin(1)
    assert (anew.series, anew.last) == (0, 50)
    anew.begin(1, at=99)
    anew.begin(1, at=99)
    assert (anew.series, anew.last) == (1, 0)


def test_candles_meet_at_the_millisecond_behind_a_close():
    """Positions are milliseconds from open to close; the record's microseconds are cut."""
    candles = Ledger(Covered("spot", "kline", "btcusdt@kline_1m", "BTCUSDT", "BTC/USDT", "candle"))
    candles.begin(60_000)
    candles.reached(299_999)
    candles.note(gap(120_000_000, 179_999_999, times=True))
    assert candles.ranges == [(60_000, 119_999), (180_000, 299_999)]


def test_a_stretch_of_time_leaves_its_ends():
    """The last sign of life before and the first message behind are not missing."""
    dark = Ledger(Covered("spot", "ticker", "btcusdt@ticker", "BTCUSDT", "BTC/USDT", "time"))
    dark.begin(1_000_000)
    dark.reached(9_000_000)
    dark.note(gap(2_000_000, 3_000_000, "unrecoverable", times=True))
    assert dark.ranges == [(1_000_000, 2_000_000), (3_000_000, 9_000_000)]
    assert gap_span("time", gap(5, 6, times=True)) is None
    assert gap_span("sequence", gap(5, 6, times=True)) is None


@pytest.mark.parametrize(
    ("market", "channel", "symbol", "by"),
    [
        ("spot", "agg-trade", "BTCUSDT", "sequence"), ("usdm", "depth", "BTCUSDT", "sequence"),
        ("spot", "kline", "BTCUSDT", "candle"), ("spot", "book-ticker", "BTCUSDT", "time"),
        ("usdm", "mark-price", None, "time"),
    ],
)  # fmt: skip
def test_the_declared_rule_says_what_positions_are(market, channel, symbol, by):
    """Ids, candles, or time where messages tell nothing of what is missing."""
    assert by_of(catalogue().channel(market, channel), symbol) == by


def test_only_what_is_new_is_to_be_written():
    """Repeats leave ``changed`` as it was."""
    written = ledger(1, 100, gap(11, 20))
    written.changed = False
    written.begin(1)
    written.reached(100)
    written.note(gap(11, 20))
    assert not written.changed
    written.reached(101)
    assert written.changed


def test_it_stays_bounded():
    """The lowest settled gaps go into the totals; an open one stays, and can still end."""
    many = ledger(1, 100_000, gap(5, 9))
    for n in range(1, 1000):
        many.note(gap(n * 10 + 11, n * 10 + 11, "unrecoverable" if n % 2 else "filled"))
    record = content(many)
    assert len(record["gaps"]) == coverage.MOST_SETTLED + 1
    assert (record["gapsFilled"], record["gapsUnrecoverable"], record["recovered"]) == (499, 500, 499)
    assert (record["open"], record["unrecoverable"], record["published"]) == (5, 500, 100_000 - 505)
    assert content(Ledger.restore(record)) == record
    for part in (gap(5, 5, "filled"), gap(6, 9, "unrecoverable"), gap(6, 9, "unrecoverable")):
        many.note(part)
    record = content(many)
    assert (record["open"], record["unrecoverable"], record["recovered"]) == (0, 504, 500)
    assert not many.note(gap(21, 21))


def test_its_key_is_market_stream_and_symbol():
    """With ``:`` between them; the symbol is empty where there is none."""
    assert STREAM.key == b"spot:btcusdt@aggTrade:BTCUSDT"
    assert STREAM._replace(stream="!ticker@arr", exchange_symbol=None).key == b"spot:!ticker@arr:"


# Whatever happens

SIZES = st.lists(st.integers(1, 30), min_size=2, max_size=24)


@st.composite
def histories(draw):
    """Gaps as they come: found open behind each other, then ended in parts; with the newest fate of each position."""
    notes, fates, at = [], {}, 1
    for index, size in enumerate(draw(SIZES)):
        first, at = at, at + size
        if index % 2 == 0:
            continue
        notes.append((gap(first, at - 1), index))
        fates |= dict.fromkeys(range(first, at), "open")
        cuts = sorted(draw(st.sets(st.integers(first, at - 1), max_size=4)) | {first})
        for begin, end in itertools.pairwise([*cuts, at]):
            status = draw(st.sampled_from(STATUSES))
            notes.append((gap(begin, end - 1, status), index))
            fates |= dict.fromkeys(range(begin, end), status)
    return notes, fates, at - 1


@settings(deadline=None)
@given(histories(), st.integers(0, 60))
def test_ranges_and_holes_partition_what_is_reached(history, short):
    """Each position from begin to reached is published, or in exactly one hole, as the newest record says."""
    notes, fates, end = history
    reached = max(0, end - short)
    made = ledger(1, reached, *[note for note, _ in notes])
    seen = [n for first, last in made.ranges for n in range(first, last + 1)]
    holes = {n: h.status for h in made.holes for n in range(h.first, h.last + 1)}
    assert seen == [n for n in range(1, reached + 1) if fates.get(n, "filled") == "filled"]
    assert holes == {n: fate for n, fate in fates.items() if fate != "filled"}
    record = content(made)
    assert record["published"] == len(seen)
    assert record["open"] + record["unrecoverable"] == len(holes)


@settings(deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_records_of_different_gaps_come_in_any_order(history, chance: random.Random):
    """Gaps commute with each other, records of one gap keep theirs; each may come twice."""
    notes, _, end = history
    queues: dict[int, list] = {}
    for note, index in notes:
        queues.setdefault(index, []).append(note)
    mixed = Ledger(STREAM)
    mixed.begin(1, at=1)
    while queues:
        index = chance.choice(list(queues))
        note = queues[index].pop(0)
        for _ in range(chance.choice((1, 2))):
            mixed.note(note)
        if not queues[index]:
            del queues[index]
        mixed.reached(chance.randint(0, end))
    mixed.reached(end)
    assert content(mixed) == content(ledger(1, end, *[note for note, _ in notes]))


@settings(deadline=None)
@given(histories(), st.integers(1, 3))
def test_a_record_gives_the_ledger_back(history, most):
    """Through Avro and back it says the same, also where gaps were merged, and goes on the same."""
    notes, fates, end = history
    schema = structure("coverage")
    before, coverage.MOST_SETTLED = coverage.MOST_SETTLED, most
    try:
        half = len(notes) // 2
        made = ledger(1, end, *[note for note, _ in notes[:half]])
        again = Ledger.restore(Decoder([schema]).decode(encode(schema, content(made))))
        assert content(again) == content(made)
        for note, _ in notes[half:]:
            made.note(note)
            again.note(note)
        assert content(again) == content(made)
        lost = sum(fate == "unrecoverable" for fate in fates.values())
        assert content(made)["unrecoverable"] == lost
        assert content(made)["recovered"] == sum(fate == "filled" for fate in fates.values())
    finally:
        coverage.MOST_SETTLED = before


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 12))))
def test_spans_are_the_set_they_stand_for(steps):
    """Adding, removing, asking what is there and what is not: as a set of numbers would."""
    spans, numbers = Spans(), set()
    for add, first, size in steps:
        these = set(range(first, first + size))
        if add:
            assert spans.add(first, first + size - 1) == len(these & numbers)
            numbers |= these
        else:
            spans.remove(first, first + size - 1)
            numbers -= these
    assert spans == Spans((n, n) for n in sorted(numbers))
    assert spans.count == len(numbers)
    inside = [n for first, last in spans.within(10, 50) for n in range(first, last + 1)]
    outside = [n for first, last in spans.outside(10, 50) for n in range(first, last + 1)]
    assert inside == sorted(numbers & set(range(10, 51)))
    assert outside == sorted(set(range(10, 51)) - numbers)
    assert all(isinstance(one, Span) for one in spans)
    other, others = Spans([(5, 20), (30, 40)]), {*range(5, 21), *range(30, 41)}
    assert spans.minus(other) == Spans((n, n) for n in sorted(numbers - others))
    assert spans.intersection(other) == Spans((n, n) for n in sorted(numbers & others))
    assert spans.plus(other) == Spans((n, n) for n in sorted(numbers | others))
