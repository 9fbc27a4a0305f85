"""Where a stream's next owner goes on: what lies behind the checkpoint, with every hole that a crash can leave."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.coverage import Covered, Ledger
from bridge.core.gap_filling import Stretch
from bridge.core.resumption import Reading
from bridge.core.sequence import Missing, Tail
from bridge.core.spans import Span
from tests.core.test_coverage import STREAM, gap

CANDLES = Covered("spot", "kline", "btcusdt@kline_1m", "BTCUSDT", "BTC/USDT", "candle")
BOOK_TICKERS = Covered("spot", "book-ticker", "btcusdt@bookTicker", "BTCUSDT", "BTC/USDT", "time")


def reading(first=1, last=10, *notes, stream=STREAM, tail=None, epoch=1):
    """Return a reading behind a checkpoint of a stream that was published from ``first`` to ``last``."""
    ledger = Ledger(stream)
    ledger.begin(first, at=1)
    ledger.reached(last)
    for one in notes:
        ledger.note(one)
    return Reading(ledger, Tail(last, 7) if tail is None else tail, None, epoch)


def live(read, *ids, epoch=1):
    """Let events be published, each as it came."""
    for number in ids:
        read.event(Span(number, number), number, live=True, epoch=epoch)


def recovered(read, *ids, epoch=1):
    """Let events be published that were asked for."""
    for number in ids:
        read.event(Span(number, number), 0, live=False, epoch=epoch)


def test_nothing_behind_the_checkpoint_changes_nothing():
    """Where the owner died right behind it, its successor goes on with just that."""
    found = reading().finish()
    assert (found.tail, found.missing, found.open, found.ledger.last) == (Tail(10, 7), (), (), 10)


def test_what_was_published_later_is_read_on():
    """The tail is the last live event in the topic, with its time."""
    read = reading()
    live(read, 9, 10, 11, 12)
    found = read.finish()
    assert (found.tail, found.missing, found.ledger.last) == (Tail(12, 12), (), 12)
    assert found.ledger.ranges == [(1, 12)]


def test_a_hole_that_nobody_named_is_missing():
    """A gap record that was not acknowledged, though events behind the gap were: the topic shows it all the same."""
    read = reading()
    live(read, 11, 15)
    found = read.finish()
    assert (found.tail, found.missing) == (Tail(15, 15), (Missing(12, 14),))


def test_a_gap_whose_end_was_never_published_is_behind_the_tail():
    """The gap record was acknowledged, the event that showed it was not: the successor goes on behind the gap."""
    read = reading()
    read.gap(gap(11, 14))
    found = read.finish()
    assert (found.tail, found.missing) == (Tail(14, 7), ())
    assert [(one.first, one.last) for one in found.open] == [(11, 14)]


def test_what_was_recovered_without_a_word_is_told():
    """Events that fill a gap, acknowledged before the record that says so: the successor knows them."""
    read = reading(1, 20, gap(11, 14))
    recovered(read, 11, 12)
    found = read.finish()
    assert [(one.first, one.last) for one in found.open] == [(11, 14)]
    assert found.recovered == (Stretch(11, 11, 1), Stretch(12, 12, 1))
    assert found.tail == Tail(20, 7)


def test_what_is_read_twice_counts_once():
    """The batch at the checkpoint is read again, with gap records that ended since: the later record holds."""
    read = reading(1, 20, gap(11, 14), gap(11, 14, "filled"))
    read.gap(gap(11, 14))
    read.gap(gap(11, 14, "filled"))
    recovered(read, 11, 12, 13, 14)
    found = read.finish()
    assert (found.open, found.missing, found.ledger.totals.recovered) == ((), (), 4)


def test_a_replaced_writer_publishes_nothing_that_counts():
    """Readers drop what has a lower epoch behind a higher one, so for a successor it is not there either."""
    read = reading()
    live(read, 11, epoch=2)
    live(read, 12, 13, epoch=1)
    live(read, 15, epoch=2)
    found = read.finish()
    assert (found.tail, found.missing) == (Tail(15, 15), (Missing(12, 14),))


def test_a_lower_epoch_than_the_checkpoint_has_no_say():
    """The checkpoint's own epoch counts too."""
    read = reading(epoch=5)
    live(read, 11, 12, epoch=4)
    assert read.finish().tail == Tail(10, 7)


def test_a_stream_that_began_behind_the_checkpoint():
    """Its first checkpoint was before its first event: the ledger begins with what is there."""
    read = Reading(Ledger(STREAM), None, None, 1)
    live(read, 5, 6, 8)
    found = read.finish()
    assert (found.ledger.first, found.ledger.last, found.tail) == (5, 8, Tail(8, 8))
    assert found.missing == (Missing(7, 7),)


def test_a_stream_without_any_event_has_no_tail():
    """It begins anew with its first event, and nothing is missing."""
    found = Reading(Ledger(STREAM), None, None, 1).finish()
    assert (found.tail, found.missing, found.ledger.first) == (None, (), None)


def test_a_stream_that_is_known_by_time_has_no_tail():
    """What it lacks is the stretch since it was last carried."""
    ledger = Ledger(BOOK_TICKERS)
    ledger.begin(100, 100)
    ledger.reached(900)
    found = Reading(ledger, None, 900, 1).finish()
    assert (found.tail, found.missing, found.carried_until) == (None, (), 900)


def test_the_end_of_a_stretch_without_connections_is_a_sign_of_life():
    """The owner had told of it and died before its next checkpoint: what its successor tells begins behind it."""
    ledger = Ledger(BOOK_TICKERS)
    ledger.begin(100, 100)
    ledger.reached(900)
    read = Reading(ledger, None, 900, 1)
    read.gap(gap(900, 1_500, "unrecoverable", times=True))
    found = read.finish()
    assert found.carried_until == 1_500
    assert [(one.first, one.last) for one in found.ledger.gaps] == [(901, 1_499)]


def test_an_open_candle_is_gone_on_with():
    """The newest candle is not closed: it is neither published nor missing."""
    read = reading(0, 59_999, stream=CANDLES, tail=Tail(0, 5, 59_999, closed=True))
    read.candle(Span(60_000, 119_999), 70_000, closed=False, live=True, epoch=1)
    found = read.finish()
    assert (found.tail, found.missing) == (Tail(60_000, 70_000, 119_999), ())
    assert found.ledger.last == 59_999


def test_a_candle_that_did_not_close_in_the_topic_is_missing():
    """A later one was published: milliseconds tell which."""
    read = reading(0, 59_999, stream=CANDLES, tail=Tail(0, 5, 59_999, closed=True))
    read.candle(Span(60_000, 119_999), 70_000, closed=False, live=True, epoch=1)
    read.candle(Span(120_000, 179_999), 180_001, closed=True, live=True, epoch=1)
    found = read.finish()
    assert found.missing == (Missing(None, None, 60_000, 119_999),)
    assert found.tail == Tail(120_000, 180_001, 179_999, closed=True)


# Whatever is lost with the owner


@dataclass
class Owner:
    """What an owner does, in order: to each partition it appends; both are cut off where it dies."""

    trades: list = field(default_factory=list)
    gaps: list = field(default_factory=list)
    needs: list = field(
        default_factory=list
    )  # of each gap record: how many trades are acknowledged before it
    open: list = field(default_factory=list)
    next: int = 1

    def publish(self) -> None:
        self.trades.append((self.next, True))
        self.next += 1

    def lose(self, count: int) -> None:
        """Find that events did not come, by the one behind."""
        span = self.next, self.next + count - 1
        self.tell(gap(*span), 0)
        self.open.append(span)
        self.next += count
        self.publish()

    def fill(self, count: int) -> None:
        """Recover the first events of the oldest gap, then say so, by its parts."""
        if not self.open:
            return
        first, last = self.open.pop(0)
        upto = min(last, first + count - 1)
        self.trades += [(number, False) for number in range(first, upto + 1)]
        self.tell(gap(first, upto, "filled"), len(self.trades))
        if upto < last:
            self.tell(gap(upto + 1, last), len(self.trades))
            self.open.insert(0, (upto + 1, last))

    def tell(self, record, needs: int) -> None:
        self.gaps.append(record)
        self.needs.append(needs)

    def checkpoint(self) -> tuple[Ledger, Tail | None, int, int]:
        """Return what a checkpoint now says, and how long the partitions are."""
        ledger = Ledger(STREAM)
        if self.next > 1:
            ledger.begin(1, at=1)
            for record in self.gaps:
                ledger.note(record)
            ledger.reached(self.next - 1)
        return ledger, Tail(self.next - 1) if self.next > 1 else None, len(self.trades), len(self.gaps)


ACTS = st.lists(
    st.one_of(
        st.just(("publish", ())),
        st.tuples(st.just("lose"), st.tuples(st.integers(1, 4))),
        st.tuples(st.just("fill"), st.tuples(st.integers(1, 5))),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(acts=ACTS, data=st.data())
def test_each_event_has_one_fate_wherever_the_owner_died(acts, data):
    """Published, or named by a gap, or found missing: of every event up to the tail exactly one, and none beyond."""
    owner = Owner()
    owner.publish()
    at = data.draw(st.integers(0, len(acts)), label="checkpoint after")
    for name, arguments in acts[:at]:
        getattr(owner, name)(*arguments)
    ledger, tail, trades_at, gaps_at = owner.checkpoint()
    for name, arguments in acts[at:]:
        getattr(owner, name)(*arguments)
    gaps = data.draw(st.integers(gaps_at, len(owner.gaps)), label="gap records acknowledged")
    needed = max([trades_at, *owner.needs[:gaps]])
    trades = data.draw(st.integers(needed, len(owner.trades)), label="trades acknowledged")
    again = data.draw(st.integers(0, 3), label="records read again")

    read = Reading(ledger, tail, None, 1)
    for record in owner.gaps[max(0, gaps_at - again) : gaps]:
        read.gap(record)
    for number, came in owner.trades[max(0, trades_at - again) : trades]:
        read.event(Span(number, number), number, live=came, epoch=1)
    found = read.finish()

    published = {number for number, _ in owner.trades[:trades]}
    told = {number for span in found.recovered for number in range(span.first, span.last + 1)}
    named = {
        number
        for one in found.ledger.gaps
        if one.status != "filled"
        for number in range(one.first, one.last + 1)
    } - told  # the successor says of these that they are filled
    missing = {number for one in found.missing for number in range(one.first, one.last + 1)}
    assert found.tail is not None
    everything = set(range(1, found.tail.last + 1))
    assert published | named | missing == everything
    assert not published & named
    assert not published & missing
    assert not named & missing
