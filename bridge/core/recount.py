"""Counts a stream again from the records of its topics, and holds ledger and gap records against it. Pure.

Records may come out of the order of their ids (what was recovered comes behind younger ones), twice, and from a
writer that had been replaced (its epoch is lower than one seen before, or than that of another copy): such a zombie's
records count as nothing published, for readers drop them. What is kept of a stream is spans, so memory grows with
its holes and its writers, not with its records.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from bridge.core.coverage import Gap, Ledger, gap_span
from bridge.core.spans import Span, Spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bridge.core.coverage import Covered, Status
    from bridge.core.series import Place

NEW_SERIES_AFTER_MS = 5_000
"""A live id not beyond the last, whose event is this much newer than that one's: the exchange counts anew."""
MOST_TOLD = 20
"""Stretches that one disagreement lists."""


class Counted:
    """What the topics hold of one stream.

    Attributes:
        events: events published, each once.
        backfilled: of these, recovered later.
        duplicates: further copies of the same event.
        zombies: records of a writer that had been replaced.
        without_record: messages that make no record, though they count in the stream.
        earlier_series: how often the exchange began to count anew.
        began_at: receipt of the first message of the series, microseconds.
        start: first position of the first live record.
        published: the positions of records.
        silent: those of messages that make none.
        may_begin_anew: whether the exchange may begin to count anew; not with candles.
    """

    __slots__ = (
        "_by_epoch", "_event_ms", "_last", "backfilled", "began_at", "duplicates", "earlier_series", "events",
        "may_begin_anew", "published", "silent", "start", "without_record", "zombies",
    )  # fmt: skip

    def __init__(self) -> None:
        self.events = self.backfilled = self.duplicates = self.zombies = self.without_record = 0
        self.earlier_series = self.began_at = 0
        self.may_begin_anew = True
        self._fresh()

    def _fresh(self) -> None:
        self.published, self.silent = Spans(), Spans()
        self._by_epoch: dict[int, Spans] = {}
        self.start: int | None = None
        self._last: int | None = None
        self._event_ms = 0

    def record(self, place: Place, *, epoch: int, live: bool, received_at: int) -> None:
        """Count a unified record.

        Args:
            place: where it stands.
            epoch: its writer's.
            live: whether it came of a stream, not of history.
            received_at: microseconds.
        """
        newest = max(self._by_epoch, default=epoch)
        if live and epoch < newest:
            self.zombies += place.span is not None
            return
        if live:
            self._live(place, received_at)
        own = self._by_epoch.setdefault(epoch, Spans())
        if place.span is None:
            return
        if self.published.add(*place.span) < place.span.last - place.span.first + 1:
            self.events += 1
            self.backfilled += not live
        elif self._has_lower(place.span, epoch):
            self.zombies += 1  # the earlier copy: its writer went on behind what its successor had read
        else:
            self.duplicates += 1
        own.add(*place.span)

    def silent_message(self, first: int, last: int) -> None:
        """Count a message of raw that takes positions, but makes no record."""
        if not self.silent.add(first, last):
            self.without_record += 1

    @property
    def last(self) -> int | None:
        """The last position that is published (or, where nothing makes records, received); None without any."""
        return max((span.last for span in self.published or self.silent), default=None)

    def _live(self, place: Place, received_at: int) -> None:
        """Follow the stream's own order; see whether a new series begins."""
        last = place.first if place.span is None else place.span.last
        if (
            self.may_begin_anew
            and self._last is not None
            and place.span is not None
            and last <= self._last
            and place.event_ms is not None
            and self._event_ms
            and place.event_ms >= self._event_ms + NEW_SERIES_AFTER_MS
        ):
            self.earlier_series += 1
            self._fresh()
        if self.start is None:
            self.start, self.began_at = place.first, received_at
        if self._last is None or last > self._last:
            self._last, self._event_ms = last, place.event_ms or 0

    def _has_lower(self, span: Span, epoch: int) -> bool:
        return any(
            lower < epoch and any(True for _ in spans.within(*span))
            for lower, spans in self._by_epoch.items()
        )


@dataclass(slots=True)
class Carried:
    """What raw holds of a stream that is known by time.

    Attributes:
        messages: how many.
        first: receipt of the first, microseconds; None without any.
        last: receipt of the last.
        within_holes: messages received within a stretch that gap records call missing.
    """

    messages: int = 0
    first: int | None = None
    last: int | None = None
    within_holes: int = 0

    def message(self, received_at: int, holes: Spans) -> None:
        """Count a raw record."""
        self.messages += 1
        if self.first is None or received_at < self.first:
            self.first = received_at
        if self.last is None or received_at > self.last:
            self.last = received_at
        if holes and any(True for _ in holes.within(received_at, received_at)):
            self.within_holes += 1


class Told(NamedTuple):
    """A gap record as it was read.

    Attributes:
        at: its Kafka time, microseconds.
        record: its fields.
    """

    at: int
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of one stream. Spans and counts are positions: see :mod:`bridge.core.coverage`.

    Attributes:
        stream: the stream.
        first: where it begins; None where nothing is known.
        last: how far it reaches.
        published: how many positions are published; None where a range of time can't tell.
        gaps: the gaps that concern the range.
        open: positions that are missing and may be filled.
        unrecoverable: positions that are missing for good.
        gaps_filled: gaps, or parts of one, that were filled.
        recovered: events recovered.
        earlier_missing: positions that earlier series lack.
        updated_at: when the ledger was written, microseconds; None without one.
        counted: what the topics hold; None without a recount.
        unexplained: neither published nor named by a gap record.
        both: published, and named missing.
        disagreements: what ledger, gap records and topics do not agree on.
        remarks: what else is to be known.
    """

    stream: Covered
    first: int | None
    last: int | None
    published: int | None
    gaps: tuple[Gap, ...]
    open: int
    unrecoverable: int
    gaps_filled: int
    recovered: int
    earlier_missing: int = 0
    updated_at: int | None = None
    counted: Mapping[str, int] | None = None
    unexplained: tuple[Span, ...] = ()
    both: tuple[Span, ...] = ()
    disagreements: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing and all agree."""
        return not (
            self.open or self.unrecoverable or self.earlier_missing or self.unexplained or self.both
            or self.disagreements
        )  # fmt: skip


@dataclass(slots=True)
class Account:
    """All that was read of one stream.

    Attributes:
        stream: the stream.
        ledger: its coverage record; None without one.
        told: its gap records, in order.
        early: how many of them were read before the stream's own topics.
        counted: what its unified topic holds; None where it is known by time.
        carried: what its raw topic holds; None where ids tell.
        whole_topic: whether the topic still has its oldest records, and all were read.
        dead_letters: how many name it.
        start: from when the topic was read, microseconds; None from its beginning.
        end: up to when; None to its end.
    """

    stream: Covered
    ledger: Mapping[str, Any] | None = None
    told: list[Told] = field(default_factory=list)
    early: int = 0
    counted: Counted | None = None
    carried: Carried | None = None
    whole_topic: bool = True
    dead_letters: int = 0
    start: int | None = None
    end: int | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was counted of it."""
        if self.carried is not None:
            return not self.carried.messages
        return self.counted is None or not (self.counted.published or self.counted.silent)

    def dark(self) -> Spans:
        """Return in which stretches no connection carried the stream, as the gap records so far have it.

        A restart's is left out: it begins where the earlier owner last said how far it was, not where it ended.
        """
        told = [one for one in self.told if one.record["cause"] != "restart"]
        return _holes(_named(self.stream, told, 0, 0), ("open", "unrecoverable"))

    def finding(self, *, ledgers: bool) -> Finding:
        """Hold everything against everything.

        Args:
            ledgers: whether there is a coverage topic, so that each stream has to have its record.
        """
        if self.carried is not None:
            return _by_time(self, self.carried, ledgers=ledgers)
        return _by_position(self, self.counted or Counted(), ledgers=ledgers)


def ledger_finding(record: Mapping[str, Any]) -> Finding:
    """Return what a coverage record says by itself."""
    ledger = Ledger.restore(record)
    return Finding(
        stream=ledger.stream, first=ledger.first, last=ledger.last, published=record["published"], gaps=ledger.gaps,
        open=record["open"], unrecoverable=record["unrecoverable"], gaps_filled=record["gapsFilled"],
        recovered=record["recovered"], earlier_missing=record["earlierMissing"], updated_at=record["updatedAt"],
    )  # fmt: skip


def in_time(finding: Finding, start_ms: int | None, end_ms: int | None) -> Finding | None:
    """Return what of a ledger concerns a range of time (milliseconds); None where the stream lies outside.

    Candles and streams without ids are cut to it. Ids have no time: of their gaps those count that were found in
    the range, and how much was published is not known.
    """
    if start_ms is None and end_ms is None:
        return finding
    scale = {"sequence": 1000, "candle": 1, "time": 1000}[finding.stream.by]
    low = 0 if start_ms is None else start_ms * scale
    high = (1 << 62) if end_ms is None else end_ms * scale - 1
    if finding.stream.by == "sequence":
        gaps = tuple(gap for gap in finding.gaps if low <= gap.detected_at <= high)
        return _counting(finding, gaps, published=None)
    assert finding.first is not None
    assert finding.last is not None
    first, last = max(low, finding.first), min(high, finding.last)
    if first > last:
        return None
    gaps = tuple(
        gap._replace(first=max(gap.first, first), last=min(gap.last, last))
        for gap in finding.gaps
        if gap.first <= last and gap.last >= first
    )
    missing = sum(gap.size for gap in gaps if gap.status != "filled")
    return _counting(finding, gaps, published=last - first + 1 - missing, first=first, last=last)


def _counting(finding: Finding, gaps: tuple[Gap, ...], **changes: Any) -> Finding:
    return replace(finding, gaps=gaps, earlier_missing=0, **_sums(gaps), **changes)


class _Sums(TypedDict):
    open: int
    unrecoverable: int
    gaps_filled: int
    recovered: int


def _sums(gaps: Iterable[Gap]) -> _Sums:
    found = list(gaps)
    return {
        "open": sum(gap.size for gap in found if gap.status == "open"),
        "unrecoverable": sum(gap.size for gap in found if gap.status == "unrecoverable"),
        "gaps_filled": sum(gap.status == "filled" for gap in found),
        "recovered": sum(gap.recovered for gap in found if gap.status == "filled"),
    }


# By id or candle


def _by_position(account: Account, counted: Counted, *, ledgers: bool) -> Finding:
    ledger = None if account.ledger is None else Ledger.restore(account.ledger)
    remarks: list[str] = []
    first, last = _bounds(account, counted, ledger, remarks)
    if first is None or last is None:
        if ledger is None:
            return _nothing(account, ledgers=ledgers)
        empty = ledger.first is not None and ledger.last < ledger.first
        remarks.append("nothing is published yet" if empty else "the topic holds nothing of it any more")
        found = ledger_finding(account.ledger or {})
        return _counting(found, found.gaps, remarks=tuple(remarks))
    since = counted.began_at if counted.earlier_series else 0
    told, early = (
        [one for one in these if one.record["detectedAt"] >= since]
        for these in (account.told, account.told[: account.early])
    )
    named = _named(account.stream, told, first, last)
    versions = [named, _named(account.stream, early, first, last)]
    missing = [
        _holes(version, ("open", "unrecoverable")).intersection(Spans([(first, last)]))
        for version in versions
    ]
    there = counted.published.plus(counted.silent)
    unexplained = Spans([(first, last)]).minus(there).minus(missing[0].plus(missing[1]))
    both = there.intersection(missing[0]).intersection(missing[1])
    disagreements: list[str] = []
    if ledger is None:
        if ledgers:
            disagreements.append("it has no coverage record")
    else:
        if ledger.first is not None and counted.published and next(iter(there)).first < ledger.first:
            before = there.intersection(Spans([(first, ledger.first - 1)]))
            disagreements += _told("published before the ledger begins", before)
        at_time = [one for one in told if one.at <= ledger_time(account)]
        versions.append(_named(account.stream, at_time, first, last))
        disagreements += _differences(
            ledger, versions, Span(max(first, ledger.since), min(last, ledger.last))
        )
        if account.whole_topic and counted.earlier_series != ledger.series:
            disagreements.append(
                f"the ledger is of series {ledger.series}, the topic shows {counted.earlier_series} earlier ones"
            )
        if ledger.last < last:
            remarks.append(f"published up to {last}, the ledger tells of {ledger.last}")
    gaps = tuple(_cut(gap, first, last) for gap in named.gaps if gap.first <= last and gap.last >= first)
    return Finding(
        stream=account.stream, first=first, last=last, gaps=gaps, **_sums(gaps),
        published=there.intersection(Spans([(first, last)])).count,
        earlier_missing=0 if ledger is None else ledger.earlier,
        updated_at=None if account.ledger is None else account.ledger["updatedAt"],
        counted={
            "events": counted.events, "backfilled": counted.backfilled, "duplicates": counted.duplicates,
            "zombies": counted.zombies, "withoutRecord": counted.without_record,
            "earlierSeries": counted.earlier_series, "deadLetters": account.dead_letters,
        },
        unexplained=tuple(unexplained), both=tuple(both), disagreements=tuple(disagreements),
        remarks=tuple(remarks),
    )  # fmt: skip


def ledger_time(account: Account) -> int:
    """Return when the ledger of an account was written, microseconds; 0 without one."""
    return 0 if account.ledger is None else int(account.ledger["updatedAt"])


def _bounds(
    account: Account, counted: Counted, ledger: Ledger | None, remarks: list[str]
) -> tuple[int | None, int | None]:
    """Return from where to where a stream is to be accounted for."""
    lowest = next(iter(counted.published or counted.silent), None)
    first, last = (
        counted.start if lowest is None else min(lowest.first, counted.start or lowest.first),
        counted.last,
    )
    if counted.start is not None and not account.whole_topic:
        first = counted.start
        remarks.append(f"counted from {first} on: what is before it was deleted, or not asked for")
    if ledger is not None and ledger.first is not None and account.whole_topic:
        first = ledger.first if first is None else min(first, ledger.first)
    if ledger is not None and account.end is None and (last is not None or account.whole_topic):
        last = ledger.last if last is None else max(last, ledger.last)
    if first is not None and last is not None and last < first:
        return None, None
    return first, last


def _named(stream: Covered, told: Sequence[Told], first: int, last: int) -> Ledger:
    """Return the ledger that gap records alone make."""
    ledger = Ledger(stream, bounded=False)
    spans = (gap_span(stream.by, one.record) for one in told)
    ledger.begin(min([first, *(span.first for span in spans if span is not None)]))
    ledger.reached(last)
    for one in told:
        ledger.note(one.record)
    return ledger


def _holes(ledger: Ledger, statuses: tuple[Status, ...]) -> Spans:
    return Spans((gap.first, gap.last) for gap in ledger.gaps if gap.status in statuses)


def _differences(ledger: Ledger, versions: Sequence[Ledger], within: Span) -> list[str]:
    """Return where a ledger differs from what gap records say; they may have been written a little earlier or later."""
    if within.first > within.last:
        return []
    here = Spans([within])
    found: list[str] = []
    statuses: tuple[Status, ...] = ("open", "unrecoverable")
    for status in statuses:
        ours, theirs = _holes(ledger, (status,)).intersection(here), Spans()
        for version in versions:
            theirs = theirs.plus(_holes(version, (status,)))
        found += _told(f"{status} in the ledger, not so in any gap record", ours.minus(theirs))
    named = here
    for version in versions:
        named = named.intersection(_holes(version, statuses))
    found += _told("missing by gap records, published by the ledger", named.minus(_holes(ledger, statuses)))
    return found


def _told(what: str, spans: Spans) -> list[str]:
    if not spans:
        return []
    listed = [f"{first}..{last}" for first, last in list(spans)[:MOST_TOLD]]
    more = f" and {len(spans) - MOST_TOLD} more" if len(spans) > MOST_TOLD else ""
    return [f"{what}: {', '.join(listed)}{more}"]


def _cut(gap: Gap, first: int, last: int) -> Gap:
    return gap._replace(first=max(gap.first, first), last=min(gap.last, last))


def _nothing(account: Account, *, ledgers: bool) -> Finding:
    """Return the finding of a stream that gap records alone name, or whose first event is still to come."""
    named = _named(account.stream, account.told, 0, 0)
    remarks = ("nothing of it is in its topic",)
    whole = account.whole_topic and account.end is None
    disagreements = ("gap records name it, nothing else does",) if ledgers and whole and named.gaps else ()
    return Finding(
        stream=account.stream, first=None, last=None, published=0, gaps=named.gaps, **_sums(named.gaps),
        remarks=remarks, disagreements=disagreements,
    )  # fmt: skip


# By time


def _by_time(account: Account, carried: Carried, *, ledgers: bool) -> Finding:
    ledger = None if account.ledger is None else Ledger.restore(account.ledger)
    remarks: list[str] = []
    bounds = _carried_bounds(account, carried, ledger, remarks)
    if bounds is None:
        return _nothing(account, ledgers=ledgers)
    first, last = bounds
    named = _named(account.stream, account.told, first, last)
    gaps = tuple(_cut(gap, first, last) for gap in named.gaps if gap.first <= last and gap.last >= first)
    disagreements: list[str] = []
    if carried.within_holes:
        disagreements.append(
            f"{carried.within_holes} messages came within a stretch that gap records call missing"
        )
    if ledger is None:
        if ledgers:
            disagreements.append("it has no coverage record")
    else:
        at_time = [one for one in account.told if one.at <= ledger_time(account)]
        versions = [
            named,
            _named(account.stream, account.told[: account.early], first, last),
            _named(account.stream, at_time, first, last),
        ]
        disagreements += _differences(
            ledger, versions, Span(max(first, ledger.since), min(last, ledger.last))
        )
        if carried.first is not None and ledger.first is not None and carried.first < ledger.first:
            disagreements.append("messages came before the ledger begins")
        if carried.last is not None and carried.last > ledger.last:
            remarks.append("messages came behind what the ledger tells of")
    missing = Spans((gap.first, gap.last) for gap in gaps if gap.status != "filled")
    return Finding(
        stream=account.stream, first=first, last=last, gaps=gaps, **_sums(gaps),
        published=last - first + 1 - missing.count,
        earlier_missing=0 if ledger is None else ledger.earlier,
        updated_at=None if account.ledger is None else account.ledger["updatedAt"],
        counted={"events": carried.messages, "deadLetters": account.dead_letters},
        disagreements=tuple(disagreements), remarks=tuple(remarks),
    )  # fmt: skip


def _carried_bounds(
    account: Account, carried: Carried, ledger: Ledger | None, remarks: list[str]
) -> Span | None:
    """Return from when to when a stream is to be accounted for."""
    begins, ends = [carried.first], [carried.last]
    if ledger is not None and ledger.first is not None:
        if account.whole_topic or account.start is not None:
            begins.append(max(ledger.first, account.start or 0))
        ends.append(ledger.last if account.end is None else min(ledger.last, account.end))
    first = min((at for at in begins if at is not None), default=None)
    last = max((at for at in ends if at is not None), default=None)
    if first is None or last is None or first > last:
        return None
    if not account.whole_topic and account.start is None:
        remarks.append("counted from the oldest message that is left")
    return Span(first, last)
