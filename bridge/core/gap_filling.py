"""What streams still miss, and how an answer of REST's history fills it. Pure.

An answer decides, id by id (or candle by candle): what is among its rows is recovered; what is not, though a later
row is there, does not exist and is unrecoverable; what lies beyond its last row stays open, for history may lag.
Nothing outside of an open gap is ever recovered, and nothing twice.

Gaps and answers in the order of their receipt decide everything but one: :meth:`GapFilling.give_up`, after errors
that left no answer. A replay, which sees no errors, leaves such a gap open; so that it fills no more than the live
bridge did, pages of such a stream reach over one gap only from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from bridge.core.derive import Failure, Item
from bridge.core.history import Page, StreamHistory, asked
from bridge.core.notices import Notice, gap_id, missing_notice, restart_notice, resumed_notice
from bridge.core.varint import long_bytes
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.derive import StreamDeriver
    from bridge.core.history import Place, Row, Rows
    from bridge.core.resumption import Resumption
    from bridge.core.sequence import Missing
    from bridge.model import Market

MOST_OPEN = 1000
"""Gaps of one stream that are kept open; beyond it a gap is unrecoverable at once."""

MOST_FRUITLESS = 5
"""Answers that end before what is missing; then the exchange's history does not have it."""

Status = Literal["open", "filled", "unrecoverable"]


class GapOutlet(Protocol):
    """Where gap records and failures go."""

    def gap(self, deriver: StreamDeriver, told: Sequence[Notice]) -> None:
        """Publish gap records: one that was found, or what became of the parts of one."""

    def failed(self, deriver: StreamDeriver, failure: Failure) -> None:
        """Take note of a row that made no record."""


class Stretch(NamedTuple):
    """Events that follow each other.

    Attributes:
        first: first id, or open time in milliseconds.
        last: last id, or close time.
        events: how many.
    """

    first: int
    last: int
    events: int


class Answer(NamedTuple):
    """An answer of REST.

    Attributes:
        received_at: microseconds.
        number: ``connectionSequence`` of its raw record.
        path: the endpoint.
    """

    received_at: int
    number: int
    path: str


@dataclass(slots=True)
class OpenGap:
    """A stretch that is missing.

    Attributes:
        first: first missing id, or open time in milliseconds.
        last: last missing id, or the last millisecond.
        notice: the newest record that names it.
        fruitless: answers that decided nothing of it.
    """

    first: int
    last: int
    notice: Notice
    fruitless: int = 0


class Part(NamedTuple):
    """A stretch of a gap whose fate is one."""

    first: int
    last: int
    status: Status
    recovered: int = 0
    reason: str | None = None


@dataclass(slots=True)
class StreamGaps:
    """The open gaps of one stream, in the order found.

    Attributes:
        deriver: the stream.
        history: where its past is.
        gaps: what is open.
        alone: pages reach over one gap only (see the module).
    """

    deriver: StreamDeriver
    history: StreamHistory
    gaps: list[OpenGap] = field(default_factory=list)
    alone: bool = False

    def next_page(self) -> Page | None:
        """Return what to ask for next: the oldest gap, and those behind it that the same page can hold."""
        if not self.gaps:
            return None
        history, (head, *others) = self.history, self.gaps
        last = head.last
        for gap in others:
            reach = history.page(head.first, gap.last).last
            if self.alone or gap.first <= last or reach < gap.last:
                break
            last = gap.last
        return history.page(head.first, last)


class GapFilling:
    """The gaps of all streams of a bridge, or of a replay."""

    def __init__(self, outlet: GapOutlet) -> None:
        self._outlet = outlet
        self._by_place: dict[Place, StreamGaps] = {}
        self._by_stream: dict[tuple[Market, str], StreamGaps] = {}
        self.open = 0

    def of(self, market: Market, stream: str) -> StreamGaps | None:
        """Return the gaps of a stream whose past can be had."""
        return self._by_stream.get((market, stream))

    def found(self, deriver: StreamDeriver, missing: Missing, item: Item) -> bool:
        """Publish a gap that a message showed; return whether it can be filled."""
        return self.told(deriver, missing_notice(deriver, missing, item))

    def told(self, deriver: StreamDeriver, notice: Notice) -> bool:
        """Publish a gap; return whether it can be filled."""
        reason = self._why_not(deriver)
        if reason is not None:
            notice.record.update(status="unrecoverable", reason=reason)
        self._outlet.gap(deriver, [notice])
        if reason is not None:
            return False
        self._streams(deriver).gaps.append(_open_gap(notice))
        self.open += 1
        return True

    def asked(self, market: Market, endpoint: str) -> StreamDeriver | None:
        """Return the stream whose open gaps an answer of an endpoint may fill."""
        found = asked(market, endpoint)
        stream = None if found is None else self._by_place.get(found[0])
        return None if stream is None or not stream.gaps else stream.deriver

    def answer(self, market: Market, endpoint: str, received_at: int, number: int, body: bytes) -> None:
        """Take an answer of REST that was kept raw, whoever asked for it."""
        found = asked(market, endpoint)
        stream = None if found is None else self._by_place.get(found[0])
        if found is None or stream is None or not stream.gaps:
            return
        page, answer = found[1], Answer(received_at, number, stream.history.path)
        try:
            rows = stream.history.rows(body)
        except UnexpectedMessage:
            rows = None
        if rows is not None:
            for payload, error in rows.bad:
                item = _item(None, payload, answer)
                self._outlet.failed(stream.deriver, Failure("parse", error, item))
        self._decide(stream, page, rows, answer)

    def give_up(self, market: Market, stream: str, page: Page, reason: str, at: int) -> None:
        """End the gap that a page begins with: it can't be asked for (``at`` in microseconds)."""
        gaps = self._by_stream[market, stream]
        gap = _at(gaps, page.first)
        if gap is not None:
            gaps.alone = True
            self._end(gaps, gap, [Part(gap.first, gap.last, "unrecoverable", reason=reason)], at, None)

    def take_over(self, deriver: StreamDeriver, resumption: Resumption, at: int) -> bool:
        """Go on with what earlier owners of a stream miss; return whether any of it can be filled.

        Args:
            deriver: the stream.
            resumption: where it goes on.
            at: now, microseconds.
        """
        fillable = False
        for missing in resumption.missing:
            fillable |= self.told(deriver, restart_notice(deriver, missing, at))
        for record in resumption.open:
            notice = resumed_notice(deriver, record, at)
            if notice.record["id"] != record.gap:
                # The rest of a gap, of which nobody wrote a record of its own.
                self._outlet.gap(deriver, [notice])
            fillable |= self.resume(deriver, notice, resumption.recovered, at)
        return fillable

    def resume(self, deriver: StreamDeriver, notice: Notice, recovered: Sequence[Stretch], at: int) -> bool:
        """Take over a gap that an earlier owner of the stream left open; return whether it can be filled.

        Args:
            deriver: the stream.
            notice: the newest record that names the gap.
            recovered: what the unified topic already holds, in order: the earlier owner had it published and ended
                before it said so.
            at: now, microseconds.
        """
        if isinstance(deriver.history, str):
            return False
        stream, gap = self._streams(deriver), _open_gap(notice)
        stream.gaps.append(gap)
        self.open += 1
        parts = _split(gap, recovered)
        if any(part.status == "filled" for part in parts):
            self._end(stream, gap, parts, at, stream.history.path)
        return True

    # Streams

    def _why_not(self, deriver: StreamDeriver) -> str | None:
        if isinstance(deriver.history, str):
            return deriver.history
        if len(self._streams(deriver).gaps) >= MOST_OPEN:
            return f"{MOST_OPEN} gaps of the stream are open already"
        return None

    def _streams(self, deriver: StreamDeriver) -> StreamGaps:
        key, history = (deriver.stream.market, deriver.stream.name), deriver.history
        assert not isinstance(history, str)
        found = self._by_stream.get(key)
        if found is None:
            found = self._by_stream[key] = self._by_place[history.place] = StreamGaps(deriver, history)
        return found

    # Answers

    def _decide(self, stream: StreamGaps, page: Page, rows: Rows | None, answer: Answer) -> None:
        head = _at(stream, page.first)
        found = [] if rows is None else sorted(rows.rows, key=lambda row: row.first)
        top = max((row.last for row in found), default=page.first - 1)
        for gap in list(stream.gaps):
            # The head is open wherever its page was asked for; of others the page says how far they concern it.
            first, last = max(gap.first, page.first), gap.last if gap is head else min(gap.last, page.last)
            if first > last:
                continue
            parts = self._parts(stream, gap, (first, min(last, top)), found, answer)
            if any(part.status != "open" for part in parts):
                self._end(stream, gap, parts, answer.received_at, answer.path)
            elif gap is head:
                gap.fruitless += 1
                if gap.fruitless >= MOST_FRUITLESS:
                    reason = f"not in {MOST_FRUITLESS} answers of {answer.path}"
                    lost = Part(gap.first, gap.last, "unrecoverable", reason=reason)
                    self._end(stream, gap, [lost], answer.received_at, None)

    def _parts(
        self, stream: StreamGaps, gap: OpenGap, decided: tuple[int, int], rows: Sequence[Row], answer: Answer
    ) -> list[Part]:
        """Recover what an answer has of a gap; return the gap's parts, in order.

        Args:
            stream: the stream.
            gap: the gap.
            decided: the stretch that the answer decides.
            rows: its rows in order.
            answer: the answer.
        """
        first, last = decided
        if first > last:
            return [Part(gap.first, gap.last, "open")]
        nonexistent = f"not among the rows of {answer.path}"
        parts = [Part(gap.first, first - 1, "open")] if gap.first < first else []
        recover = stream.deriver.recovery(gap.notice.record["id"])
        at = first
        for row in rows:
            if row.first < at or row.last > last:
                continue
            if row.first > at:
                parts.append(Part(at, row.first - 1, "unrecoverable", reason=nonexistent))
            if recover(_item(row.message, row.payload, answer)):
                part = Part(row.first, row.last, "filled", 1)
            else:
                reason = f"a row of {answer.path} made no record: see the dead letter"
                part = Part(row.first, row.last, "unrecoverable", reason=reason)
            parts.append(part)
            at = row.last + 1
        if at <= last:
            parts.append(Part(at, last, "unrecoverable", reason=nonexistent))
        if last < gap.last:
            parts.append(Part(last + 1, gap.last, "open"))
        return _joined(parts)

    def _end(
        self, stream: StreamGaps, gap: OpenGap, parts: Sequence[Part], at: int, source: str | None
    ) -> None:
        """Publish what became of a gap, a record a part; what is open of it stays."""
        told = [_part_notice(gap, part, at, source) for part in parts]
        self._outlet.gap(stream.deriver, told)
        rest = [
            OpenGap(part.first, part.last, notice)
            for part, notice in zip(parts, told, strict=True)
            if part.status == "open"
        ]
        index = stream.gaps.index(gap)
        stream.gaps[index : index + 1] = rest
        self.open += len(rest) - 1


def _open_gap(notice: Notice) -> OpenGap:
    record = notice.record
    if record["firstSequence"] is not None:
        return OpenGap(record["firstSequence"], record["lastSequence"], notice)
    return OpenGap(record["startTime"] // 1000, record["endTime"] // 1000, notice)


def _split(gap: OpenGap, recovered: Sequence[Stretch]) -> list[Part]:
    """Return the parts of a gap of which some stretches are recovered."""
    parts: list[Part] = []
    at = gap.first
    for first, last, events in recovered:
        if first < at or last > gap.last:
            continue
        if first > at:
            parts.append(Part(at, first - 1, "open"))
        parts.append(Part(first, last, "filled", events))
        at = last + 1
    if at <= gap.last:
        parts.append(Part(at, gap.last, "open"))
    return _joined(parts)


def _at(stream: StreamGaps, first: int) -> OpenGap | None:
    return next((gap for gap in stream.gaps if gap.first <= first <= gap.last), None)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join neighbours of one fate."""
    joined: list[Part] = []
    for part in parts:
        before = joined[-1] if joined else None
        if before is not None and before.status == part.status and before.reason == part.reason:
            joined[-1] = before._replace(last=part.last, recovered=before.recovered + part.recovered)
        else:
            joined.append(part)
    return joined


def _part_notice(gap: OpenGap, part: Part, at: int, source: str | None) -> Notice:
    """Return the record of a part: what it says replaces what an earlier record with its id said."""
    before = gap.notice.record
    record: dict[str, Any] = {
        **before, "status": part.status, "recovered": part.recovered, "reason": part.reason,
        "source": source if part.status == "filled" else None,
    }  # fmt: skip
    names, scale = ("firstSequence", "lastSequence"), 1
    if before["firstSequence"] is None:
        names, scale = ("startTime", "endTime"), 1000
    if part.first != gap.first:
        record[names[0]] = part.first * scale
        record["id"] = gap_id(before["market"], before["stream"], part.first * scale)
    if part.last != gap.last:
        record[names[1]] = part.last * scale
    return Notice("gap", gap.notice.key, at, record)


def _item(message: Any, payload: bytes, answer: Answer) -> Item:
    stamp = long_bytes(answer.number) + long_bytes(answer.received_at)
    return Item(message, payload, answer.received_at, None, 0, answer.number, stamp)
