"""The ledger of one stream: where it begins, how far it reaches, and the holes that gap records name. Pure.

Positions are whole numbers: ids (``sequence``), milliseconds from a candle's open to its close, both included
(``candle``; the next candle opens one later), or microseconds of receipt (``time``). An event takes a span of them:
an id; the update ids behind the change before (depth); the milliseconds of a closed candle.

What gap records say is kept by position: of two that name the same one, the later holds, unless its writer's epoch
is lower. So records of stretches that do not overlap may come in any order, a record may come twice, and a record
whose sister parts are still to come leaves their stretch as it was.

A ledger is bounded: of the gaps that are not open it tells the newest :data:`MOST_SETTLED` by position. The lowest of
more goes into the totals, and ``since`` moves behind it; what is open stays, wherever it lies.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bridge.core.spans import Span, Spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bridge.core.compile import CompiledChannel
    from bridge.model import Market, Stream

By = Literal["sequence", "candle", "time"]
Status = Literal["open", "filled", "unrecoverable"]

MOST_SETTLED = 100
"""Gaps of one stream, filled or unrecoverable, that are told one by one."""

UNNAMED = "no gap record names it"
"""Reason of a hole that the ledger found by itself."""


class Covered(NamedTuple):
    """Which stream a ledger is of.

    Attributes:
        market: the market.
        channel: the channel.
        stream: the stream's name.
        exchange_symbol: the exchange's symbol; None where the stream has none.
        symbol: the unified symbol; the stream's name where it has none.
        by: what its positions are.
    """

    market: Market
    channel: str
    stream: str
    exchange_symbol: str | None
    symbol: str
    by: By

    @property
    def key(self) -> bytes:
        """The key of its record in the ``coverage`` topic."""
        return f"{self.market}:{self.stream}:{self.exchange_symbol or ''}".encode()


class Gap(NamedTuple):
    """A stretch that gap records name.

    Attributes:
        first: first position.
        last: last position, inclusive.
        status: open, filled or unrecoverable.
        gap: id of the record.
        cause: its cause.
        reason: why it is unrecoverable.
        detected_at: microseconds.
        recovered: events recovered.
        source: where from.
        epoch: of the record's writer.
    """

    first: int
    last: int
    status: Status
    gap: str
    cause: str
    reason: str | None
    detected_at: int
    recovered: int
    source: str | None
    epoch: int

    @property
    def size(self) -> int:
        """How many positions it has."""
        return self.last - self.first + 1


class Totals(NamedTuple):
    """Gaps that are not open.

    Attributes:
        filled: how many were filled.
        recovered: how many events that recovered.
        unrecoverable: how many are unrecoverable.
        lost: how many positions these have.
    """

    filled: int = 0
    recovered: int = 0
    unrecoverable: int = 0
    lost: int = 0

    def plus(self, gaps: Iterable[Gap], sign: int = 1) -> Totals:
        """Return the totals with some gaps more (or less)."""
        filled, recovered, unrecoverable, lost = self
        for gap in gaps:
            if gap.status == "filled":
                filled, recovered = filled + sign, recovered + sign * gap.recovered
            elif gap.status == "unrecoverable":
                unrecoverable, lost = unrecoverable + sign, lost + sign * gap.size
        return Totals(filled, recovered, unrecoverable, lost)


def by_of(compiled: CompiledChannel, symbol: str | None) -> By:
    """Return what the positions of a channel's stream are; ``symbol`` is None for a stream of all symbols."""
    if symbol is not None and compiled.link is not None:
        return "sequence"
    if symbol is not None and compiled.candle is not None:
        return "candle"
    return "time"


def covered(compiled: CompiledChannel, stream: Stream, symbol: str) -> Covered:
    """Return what a stream's ledger is of; ``symbol`` is the unified symbol, or the stream's name."""
    by = by_of(compiled, stream.symbol)
    return Covered(stream.market, stream.channel, stream.name, stream.symbol, symbol, by)


def gap_span(by: By, gap: Mapping[str, Any]) -> Span | None:
    """Return the positions that a record of ``avro/gap.avsc`` names; None where it names none.

    Of a stretch of time the ends are the last sign of life before it and the first message behind: not missing.
    """
    if by == "sequence":
        first, last = gap["firstSequence"], gap["lastSequence"]
    else:
        first, last = gap["startTime"], gap["endTime"]
    if first is None or last is None:
        return None
    if by == "candle":
        first, last = first // 1000, last // 1000
    elif by == "time":
        first, last = first + 1, last - 1
    return Span(first, last) if first <= last else None


class Ledger:
    """What of one stream is published, and what is missing.

    Args:
        stream: the stream.
        bounded: False tells all gaps one by one, however many.

    Attributes:
        stream: the stream.
        series: how often the exchange began to count anew.
        began_at: receipt of the first message of the series, microseconds; 0 where it is not known.
        first: where coverage begins; None before :meth:`begin`.
        since: from where on ranges and gaps are told one by one.
        last: how far it reaches; ``first`` - 1 while nothing is published.
        merged: the gaps before ``since`` that are not open.
        earlier: positions that earlier series lack.
        changed: whether something is new; whoever wrote the record sets it back.
    """

    __slots__ = (
        "_begun", "_bounded", "_gaps", "began_at", "changed", "earlier", "first", "last", "merged", "series",
        "since", "stream",
    )  # fmt: skip

    def __init__(self, stream: Covered, *, bounded: bool = True) -> None:
        self.stream = stream
        self._bounded = bounded
        self.series = self.began_at = self.earlier = 0
        self.first: int | None = None
        self._begun: tuple[int, int] | None = None
        self.since = self.last = 0
        self.merged = Totals()
        self.changed = False
        self._gaps: list[Gap] = []

    # What happens

    def begin(self, first: int, at: int = 0) -> None:
        """Take note of the position where the stream begins; nothing happens where that is known.

        A position that was published already means that the exchange counts anew. One beyond all that was reached
        leaves a hole that nobody named: it is kept as open, until a gap record names it.

        Args:
            first: the first position of the stream's first event.
            at: when that was received, microseconds.
        """
        known = first == self.first and (at in {0, self.began_at} or self.last < first)
        if known or (first, at) == self._begun:
            return
        self._begun = first, at
        if self.first is not None and first > self.last:
            self._unnamed(first - 1, at)
            return
        if self.first is not None:
            self.earlier += self.merged.lost + sum(g.size for g in self._gaps if g.status != "filled")
            self.series += 1
            self.merged = Totals()
            self._gaps.clear()
        self.first = self.since = first
        self.last, self.began_at = first - 1, at
        self.changed = True

    def reached(self, last: int) -> None:
        """Take note that everything up to ``last`` is published, or named by a gap record."""
        if last > self.last and self.first is not None:
            self.last = last
            self.changed = True

    def note(self, gap: Mapping[str, Any]) -> bool:
        """Take a record of ``avro/gap.avsc``; return whether it says anything of the stream that goes on now."""
        span = gap_span(self.stream.by, gap)
        if self.first is None or span is None or (self.series and gap["detectedAt"] < self.began_at):
            return False
        found = Gap(
            span.first, span.last, gap["status"], gap["id"], gap["cause"], gap["reason"], gap["detectedAt"],
            gap["recovered"], gap["source"], gap["writerEpoch"],
        )  # fmt: skip
        stretches = _cut(found, self._told(span))
        for stretch in stretches:
            self._put(stretch)
        self._merge()
        return bool(stretches)

    # What is there

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """All gaps that are open, and the newest of the others, in order of position."""
        return tuple(self._gaps)

    @property
    def holes(self) -> Iterator[Gap]:
        """The gaps that are not filled."""
        return (gap for gap in self._gaps if gap.status != "filled")

    @property
    def ranges(self) -> list[Span]:
        """What is published from ``since`` to ``last``, in order."""
        holes = Spans((hole.first, hole.last) for hole in self.holes)
        return list(holes.outside(self.since, self.last))

    @property
    def totals(self) -> Totals:
        """All gaps of the series that are not open."""
        return self.merged.plus(self._gaps)

    # As a record

    def record(self, at: int, epoch: int) -> dict[str, Any]:
        """Return the fields of ``avro/coverage.avsc``; only once it has begun.

        Args:
            at: the present, microseconds.
            epoch: the writer's.
        """
        assert self.first is not None, "a ledger without a beginning says nothing"
        stream, totals = self.stream, self.totals
        reached = Spans((hole.first, hole.last) for hole in self.holes).within(self.first, self.last)
        lacking = self.merged.lost + sum(span.last - span.first + 1 for span in reached)
        return {
            "market": stream.market, "channel": stream.channel, "stream": stream.stream,
            "exchangeSymbol": stream.exchange_symbol, "symbol": stream.symbol, "by": stream.by,
            "series": self.series, "beganAt": self.began_at, "first": self.first, "since": self.since,
            "last": self.last, "ranges": [span._asdict() for span in self.ranges],
            "gaps": [_gap_fields(gap) for gap in self._gaps],
            "published": self.last - self.first + 1 - lacking,
            "open": sum(gap.size for gap in self._gaps if gap.status == "open"),
            "unrecoverable": totals.lost, "gapsFilled": totals.filled,
            "gapsUnrecoverable": totals.unrecoverable, "recovered": totals.recovered,
            "earlierMissing": self.earlier, "writerEpoch": epoch, "updatedAt": at,
        }  # fmt: skip

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Ledger:
        """Return the ledger that a record of ``avro/coverage.avsc`` is of."""
        ledger = cls(
            Covered(
                record["market"], record["channel"], record["stream"], record["exchangeSymbol"],
                record["symbol"], record["by"],
            )
        )  # fmt: skip
        ledger.series, ledger.began_at = record["series"], record["beganAt"]
        ledger.first, ledger.since, ledger.last = record["first"], record["since"], record["last"]
        ledger._gaps = [_gap(fields) for fields in record["gaps"]]
        totals = Totals(
            record["gapsFilled"], record["recovered"], record["gapsUnrecoverable"], record["unrecoverable"]
        )
        ledger.merged = totals.plus(ledger._gaps, -1)
        ledger.earlier = record["earlierMissing"]
        return ledger

    # Gaps by position

    def _told(self, span: Span) -> list[Span]:
        """Return what of ``span`` is told one by one: what is open before ``since``, and all behind it."""
        low, high = self._touching(span.first, min(span.last, self.since - 1))
        told = [
            Span(max(gap.first, span.first), min(gap.last, span.last, self.since - 1))
            for gap in self._gaps[low:high]
            if gap.status == "open"
        ]
        told.append(Span(max(span.first, self.since), span.last))
        return [one for one in told if one.first <= one.last]

    def _touching(self, first: int, last: int) -> tuple[int, int]:
        """Return from and before which index gaps have positions from ``first`` to ``last``."""
        low = bisect_left(self._gaps, first, key=lambda gap: gap.last)
        return low, max(low, bisect_right(self._gaps, last, key=lambda gap: gap.first))

    def _put(self, new: Gap) -> None:
        """Let ``new`` hold at its positions, but for those where a later writer has spoken."""
        low, high = self._touching(new.first - 1, new.last + 1)  # neighbours too: they may be joined
        pieces: list[Gap] = []
        room = Spans([(new.first, new.last)])
        for old in self._gaps[low:high]:
            if old.epoch > new.epoch or old.last < new.first or old.first > new.last:
                pieces.append(old)
                room.remove(old.first, old.last)
            else:
                rest = [(old.first, new.first - 1), (new.last + 1, old.last)]
                pieces += _cut(old, [span for span in rest if span[0] <= span[1]])
        pieces += _cut(new, room)
        joined = _joined(sorted(pieces, key=lambda gap: gap.first))
        if joined != self._gaps[low:high]:
            self._gaps[low:high] = joined
            self.changed = True

    def _unnamed(self, last: int, at: int) -> None:
        first = self.last + 1
        if first <= last:
            name = f"{self.stream.market}:{self.stream.stream}:{first}"
            self._put(Gap(first, last, "open", name, "restart", UNNAMED, at, 0, None, -1))

    def _merge(self) -> None:
        """Move the lowest of too many settled gaps into the totals."""
        if not self._bounded:
            return
        settled = [gap for gap in self._gaps if gap.status != "open"]
        surplus = settled[: max(0, len(settled) - MOST_SETTLED)]
        if surplus:
            self.since = max(self.since, surplus[-1].last + 1)
        surplus = [gap for gap in settled if gap.last < self.since]
        if surplus:
            gone = set(surplus)
            self.merged = self.merged.plus(surplus)
            self._gaps = [gap for gap in self._gaps if gap not in gone]
            self.changed = True


def _cut(gap: Gap, spans: Iterable[tuple[int, int]]) -> list[Gap]:
    """Return a gap's pieces; the first of them has what was recovered."""
    return [
        gap._replace(first=first, last=last, recovered=0 if n else gap.recovered)
        for n, (first, last) in enumerate(spans)
    ]


def _joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Join neighbours that the same record left."""
    joined: list[Gap] = []
    for gap in gaps:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.last + 1 == gap.first
            and before[2:] == gap[2:]
            and gap.status != "filled"
        ):
            joined[-1] = before._replace(last=gap.last)
        else:
            joined.append(gap)
    return joined


def _gap_fields(gap: Gap) -> dict[str, Any]:
    return {
        "first": gap.first, "last": gap.last, "status": gap.status, "gap": gap.gap, "cause": gap.cause,
        "reason": gap.reason, "detectedAt": gap.detected_at, "recovered": gap.recovered, "source": gap.source,
        "writerEpoch": gap.epoch,
    }  # fmt: skip


def _gap(fields: Mapping[str, Any]) -> Gap:
    return Gap(
        fields["first"], fields["last"], fields["status"], fields["gap"], fields["cause"], fields["reason"],
        fields["detectedAt"], fields["recovered"], fields["source"], fields["writerEpoch"],
    )  # fmt: skip
