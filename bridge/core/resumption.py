"""What a new owner of a stream finds in the topics: how far it was published, and what nobody named. Pure.

A checkpoint claims what is published up to a moment. What was published behind it may have holes of its own: a batch
of one partition was acknowledged, that of another was not, then the owner died. So everything behind the checkpoint
is read again, and each position up to the last one is published, named by a gap record, or missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.core.gap_filling import Stretch
from bridge.core.sequence import Missing, Tail
from bridge.core.spans import Span, Spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.core.coverage import Gap, Ledger


class Resumption(NamedTuple):
    """Where a stream goes on.

    Attributes:
        ledger: its ledger.
        tail: what its sequencer goes on behind; None where it never had a message, or is known by time alone.
        carried_until: when a connection last carried it, microseconds; None where that is not known.
        missing: what is neither published nor named by a gap record.
        open: gaps that are to be filled still.
        recovered: what of the stream's past was published behind the checkpoint, in order.
    """

    ledger: Ledger
    tail: Tail | None
    carried_until: int | None
    missing: tuple[Missing, ...] = ()
    open: tuple[Gap, ...] = ()
    recovered: tuple[Stretch, ...] = ()


class Reading:
    """Takes what lies behind the checkpoint of one stream, in the order of its partition.

    What a writer wrote live after another had taken its place does not count: readers drop it.

    Args:
        ledger: the ledger as the checkpoint has it.
        tail: its tail.
        carried_until: its time, microseconds.
        epoch: that of its writer.
    """

    def __init__(self, ledger: Ledger, tail: Tail | None, carried_until: int | None, epoch: int) -> None:
        self._ledger, self._carried_until, self._epoch = ledger, carried_until, epoch
        self._spans = Spans()
        self._recovered: set[Stretch] = set()
        self._newest = tail
        self._first: int | None = None
        self._notices: list[Mapping[str, Any]] = []

    def event(self, span: Span, event_ms: int, *, live: bool, epoch: int) -> None:
        """Take an event with an id that is published.

        Args:
            span: its positions (:mod:`bridge.core.coverage`).
            event_ms: its time, milliseconds.
            live: it came on the stream itself.
            epoch: its writer's.
        """
        if live and self._is_late(epoch):
            return
        self._published(span, live=live)
        if live and (self._newest is None or span.last > self._newest.last):
            self._newest = Tail(span.last, event_ms)

    def candle(self, span: Span, event_ms: int, *, closed: bool, live: bool, epoch: int) -> None:
        """Take a candle, from open to close in milliseconds; one that grows still says only that it was seen."""
        if live and self._is_late(epoch):
            return
        if closed:
            self._published(span, live=live)
        elif self._first is None:
            self._first = span.first
        newest = self._newest
        if newest is None or span.first > newest.last or (span.first == newest.last and not newest.closed):
            self._newest = Tail(span.first, event_ms if live else 0, span.last, closed)

    def gap(self, record: Mapping[str, Any]) -> None:
        """Take a gap record of the stream."""
        self._notices.append(record)

    def _is_late(self, epoch: int) -> bool:
        self._epoch = max(self._epoch, epoch)
        return epoch < self._epoch

    def _published(self, span: Span, *, live: bool) -> None:
        self._spans.add(span.first, span.last)
        if self._first is None or (live and span.first < self._first):
            self._first = span.first
        if not live:
            self._recovered.add(Stretch(span.first, span.last, 1))

    def finish(self) -> Resumption:
        """Return where the stream goes on."""
        ledger = self._ledger
        if ledger.first is None and self._first is not None:
            ledger.begin(self._first)
        base = ledger.last if ledger.first is not None else 0
        for record in self._notices:
            ledger.note(record)
        tail = self._newest
        if ledger.stream.by == "time":
            return Resumption(ledger, None, self._carried())
        if tail is None:
            return Resumption(ledger, None, self._carried_until)
        candles = ledger.stream.by == "candle"
        reached = (tail.close_time if tail.closed else tail.last - 1) if candles else tail.last
        named = max((gap.last for gap in ledger.gaps), default=0)
        end = max(reached, named, base)
        known = Spans([*self._spans, *(Span(gap.first, gap.last) for gap in ledger.gaps)])
        missing = tuple(
            Missing(None, None, hole.first, hole.last) if candles else Missing(hole.first, hole.last)
            for hole in known.outside(base + 1, end)
        )
        ledger.reached(end)
        if end > reached:
            tail = Tail(end, 0, end, closed=True) if candles else Tail(end, tail.event_ms)
        opened = tuple(gap for gap in ledger.gaps if gap.status == "open")
        return Resumption(ledger, tail, self._carried_until, missing, opened, tuple(sorted(self._recovered)))

    def _carried(self) -> int | None:
        """Return when a connection last carried a stream that is known by time: at the end of a gap one did again."""
        ends = [record["endTime"] for record in self._notices if record["endTime"] is not None]
        return max([*ends, *(() if self._carried_until is None else (self._carried_until,))], default=None)
