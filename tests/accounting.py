"""The oracle: what the exchange made, what Kafka holds, and whether the one accounts for the other.

The simulator's ground truth is one side, the records of a bridge's topics, decoded, are the other. :func:`account`
returns what it counted and every broken promise it found; nothing here is shared with the bridge.

What is promised, stream by stream:

* on every connection, the messages are numbered from 0 without hole or repeat, and raw holds them byte for byte;
* every event made while a connection carried its stream (from the acknowledgement to the connection's last message)
  is in raw, unless the simulator itself held it back (``skip``, ``mute``, and ``reorder`` at a connection's end);
* streams with ids (trades, aggregate trades, depth) and closed candles: each event between the first and the last one
  published is published exactly once and in order by key, or named by exactly one gap; what comes before or
  after lies outside of every connection's life, which lifecycle tells;
  (snapshots among a book's changes are no events, and left out here);
* other streams: every frame in raw has its record, unless a newer one was received before it; what no connection
  carried lies in a stretch that a gap record names, or before the first or after the last frame;
* what is no event of the exchange (garbage) has exactly one dead letter, and nothing else has one.

Where processes were killed or frozen (``crashed`` names them), the promises on ids, candles and gaps stay as they are,
for what a reader sees who drops records of a lower ``writerEpoch`` than an earlier one of the same stream. What such a
process had received and not delivered may be missing from raw; on its connections that nobody told the end of raw is
not asked to be whole. Nor is it, with or without a crash, on those that were closed as a shard went to another owner:
what comes in the pause of a rebalance is the next owner's to find.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

# Times of two processes on one machine: the simulator notes an event once per tick, a bridge receives it soon after.
_CLOCK_SLACK_MICROS = 100_000
_RESUBSCRIBE_SECONDS = 3.0
# A shard that goes to another owner: its connections are closed, then lifecycle tells of it. And so long a broker that
# is down may keep what its owner had received before a crash.
_LET_GO_MICROS = 30_000_000
_WITHHELD = frozenset({"skip", "mute"})

Name = tuple[str, str]
"""Market and stream."""


class Event(NamedTuple):
    """Something that the exchange made."""

    n: int
    at_ms: int
    market: str
    stream: str
    first: int | None
    last: int | None
    data: str

    @property
    def text(self) -> bytes:
        """The message that carries it on a combined connection."""
        return f'{{"stream":"{self.stream}","data":{self.data}}}'.encode()


@dataclass(slots=True)
class Truth:
    """The ground truth: every event of every stream, in the order made, and what faults touched which of them."""

    streams: dict[Name, list[Event]] = field(default_factory=dict)
    touched: dict[int, set[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, events: Iterable[Event], touched: Mapping[int, set[str]] | None = None) -> Truth:
        """Return the truth of some events."""
        truth = cls(touched=dict(touched or {}))
        for event in events:
            truth.streams.setdefault((event.market, event.stream), []).append(event)
        return truth

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what the simulator wrote."""
        truth = cls()
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                if "n" in found:
                    event = Event(
                        found["n"], found["at_ms"], found["market"], found["stream"], found["first_id"],
                        found["last_id"], found["data"],
                    )  # fmt: skip
                    truth.streams.setdefault((event.market, event.stream), []).append(event)
                elif "fault" in found and "event" in found:
                    truth.touched.setdefault(found["event"], set()).add(found["fault"])
                elif "fault" in found:
                    truth.faults[found["fault"]] += 1
        return truth


@dataclass(slots=True)
class Evidence:
    """What the topics hold: records by topic, in offset order within each partition.

    Attributes:
        raw: records of all raw topics.
        unified: structure and record of all unified topics.
        gaps: gap records.
        dead_letters: dead letters.
        lifecycle: lifecycle records, in order.
    """

    raw: Sequence[dict[str, Any]] = ()
    unified: Sequence[tuple[str, dict[str, Any]]] = ()
    gaps: Sequence[dict[str, Any]] = ()
    dead_letters: Sequence[dict[str, Any]] = ()
    lifecycle: Sequence[dict[str, Any]] = ()

    @classmethod
    def of(cls, topics: Mapping[str, Iterable[Any]]) -> Evidence:
        """Return what is in topics of one environment, as ``tests.integration.reading.read`` gives them."""
        raw, unified = [], []
        others: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for topic, stored in topics.items():
            layer, _, structure = topic.split(".", 2)[2].partition(".")
            if layer == "raw":
                raw += [one.record for one in stored]
            elif layer == "unified":
                unified += [(structure, one.record) for one in stored]
            else:
                others[layer] += [one.record for one in stored] if layer in _READ else []
        return cls(raw, unified, others["gaps"], others["dead-letter"], others["lifecycle"])


_READ = frozenset({"gaps", "dead-letter", "lifecycle"})


class Problem(NamedTuple):
    """A broken promise."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"


@dataclass(slots=True)
class Account:
    """What was found.

    Attributes:
        events: events of streams with ids and closed candles.
        published: of these, in a unified topic.
        recovered: of these, in a gap that was filled.
        in_gaps: named by a gap record and not published.
        outside: of these, before the first connection or after the last.
        frames: events of other streams.
        late: records left out because a later writer had taken over.
        broken: connections that ended with their process, or with its right to write.
        problems: broken promises; empty when all is accounted for.
    """

    events: int = 0
    published: int = 0
    recovered: int = 0
    in_gaps: int = 0
    outside: int = 0
    frames: int = 0
    raw_messages: int = 0
    connections: int = 0
    late: int = 0
    broken: int = 0
    problems: list[Problem] = field(default_factory=list)

    def convictions(self) -> Counter[str]:
        """Return how many problems there are of each kind."""
        return Counter(problem.kind for problem in self.problems)

    def __str__(self) -> str:
        counted = (
            f"{self.events} events with ids: {self.published} published ({self.recovered} recovered), "
            f"{self.in_gaps} in gap records, "
            f"{self.outside} outside of any connection; {self.frames} events without ids; "
            f"{self.raw_messages} raw messages on {self.connections} connections ({self.broken} broken); "
            f"{self.late} late records left out; {len(self.problems)} problems"
        )
        kinds = self.convictions()
        shown: dict[str, int] = Counter()
        lines = [counted, *(f"{count} × {kind}" for kind, count in kinds.items())]
        for problem in self.problems:
            shown[problem.kind] += 1
            if shown[problem.kind] <= 5:
                lines.append(str(problem))
        return "\n  ".join(lines)


class _Kind(NamedTuple):
    """What is known of a stream by its name."""

    channel: str
    structure: str
    rule: str  # ids, candle or newest


_KINDS: tuple[tuple[re.Pattern[str], _Kind], ...] = (
    (re.compile(r".+@aggTrade"), _Kind("agg-trade", "trade", "ids")),
    (re.compile(r".+@trade"), _Kind("trade", "trade", "ids")),
    (re.compile(r".+@depth(@\d+ms)?"), _Kind("depth", "order-book", "ids")),
    (re.compile(r".+@kline_\w+"), _Kind("kline", "ohlcv", "candle")),
    (re.compile(r".+@bookTicker"), _Kind("book-ticker", "bid-ask", "newest")),
    (re.compile(r".+@markPrice(@1s)?"), _Kind("mark-price", "mark-price", "newest")),
    (re.compile(r".+@ticker"), _Kind("ticker", "ticker", "newest")),
    (re.compile(r".+@miniTicker"), _Kind("mini-ticker", "ticker", "newest")),
    (re.compile(r".+@depth\d+(@\d+ms)?"), _Kind("partial-depth", "order-book", "newest")),
)


def kind_of(stream: str) -> _Kind | None:
    """Return what a stream of one symbol is; None for those that are only checked in raw."""
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(stream)), None)


class _Span(NamedTuple):
    """What a gap names: ids or times, both ends included."""

    first: int
    last: int
    filled: bool


class _Arrival(NamedTuple):
    """A message in raw that is an event of the exchange."""

    event: Event
    connection: int
    number: int
    received_at: int


@dataclass(slots=True)
class _Carried:
    """What a connection carried: from which message on each stream, and the events it brought first and last."""

    subscribed: dict[Name, int] = field(default_factory=dict)
    arrivals: list[_Arrival] = field(default_factory=list)
    by_number: list[int] = field(default_factory=list)
    numbered: list[int] = field(default_factory=list)
    lowest: list[int] = field(default_factory=list)
    highest: int = -1

    def covers(self, name: Name, n: int) -> bool:
        """Whether it brought messages from before and after event ``n``, its stream being subscribed."""
        since = self.subscribed.get(name)
        if since is None:
            return False
        at = bisect.bisect_right(self.by_number, since)
        return at < len(self.numbered) and self.lowest[at] <= n <= self.highest

    def close(self, touched: Mapping[int, set[str]]) -> None:
        """Make ready for :meth:`covers`; an event that was held back and came late tells nothing of when."""
        self.arrivals.sort(key=lambda a: a.number)
        prompt = [a for a in self.arrivals if "reorder" not in touched.get(a.event.n, ())]
        self.by_number = [a.number for a in prompt]
        self.numbered = [a.event.n for a in prompt]
        self.highest = max(self.numbered, default=-1)
        lowest = list(self.numbered)
        for index in range(len(lowest) - 2, -1, -1):
            lowest[index] = min(lowest[index], lowest[index + 1])
        self.lowest = lowest


def account(
    truth: Truth,
    evidence: Evidence,
    *,
    crashed: Collection[str] = (),
    cut_off: Iterable[tuple[str, int]] = (),
) -> Account:
    """Hold the topics against the ground truth.

    Args:
        truth: what the exchange made.
        evidence: what the topics hold.
        crashed: the bridge instances that were killed, or frozen for longer than their session.
        cut_off: which of them when, microseconds, where that is known.
    """
    return _Oracle(truth, evidence, frozenset(crashed), cut_off).run()


class _Oracle:
    def __init__(
        self,
        truth: Truth,
        evidence: Evidence,
        crashed: frozenset[str],
        cut_off: Iterable[tuple[str, int]] = (),
    ) -> None:
        self.truth, self.evidence, self.crashed, self.cut_off = truth, evidence, crashed, cut_off
        self.broken: set[int] = set()
        self.epochs: dict[tuple[str, Name], int] = {}
        self.account = Account()
        self.connections: dict[int, _Carried] = defaultdict(_Carried)
        self.arrivals: dict[Name, list[_Arrival]] = defaultdict(list)
        self.garbage: list[dict[str, Any]] = []
        self.gaps: dict[Name, list[dict[str, Any]]] = defaultdict(list)
        self.silent: dict[tuple[int, str], list[int]] = defaultdict(list)
        self.records: dict[Name, list[dict[str, Any]]] = defaultdict(list)

    def run(self) -> Account:
        self._crashes()
        self._numbers()
        self._recognise()
        self._subscriptions()
        self._sort_records()
        self._sort_gaps()
        self._raw_is_whole()
        for name, events in self.truth.streams.items():
            kind = kind_of(name[1])
            if kind is not None and kind.rule == "ids":
                self._ids(name, kind, events)
            elif kind is not None and kind.rule == "candle":
                self._candles(name, events)
            else:
                self._frames(name, kind, events)
        self._dead_letters()
        self._lives()
        self.account.broken = len(self.broken)
        return self.account

    def _tell(self, kind: str, where: object, text: str) -> None:
        self.account.problems.append(Problem(kind, str(where), text))

    def _crashes(self) -> None:
        """Find the connections whose messages need not all be in raw, for they were no longer their owner's to write.

        Nobody told their end, as their process crashed; or they were closed as a shard went to another owner, or just
        before the crash: that it was told does not mean that all before it had reached its own partition.
        """
        owners: dict[int, str] = {}
        ends: dict[int, int] = {}
        let_go: dict[str, list[int]] = defaultdict(list)
        for instance, at in self.cut_off:
            let_go[instance].append(at)
        for told in self.evidence.lifecycle:
            connection, instance = told["connectionId"], told["instance"]
            if connection is not None:
                owners[connection] = instance
                if told["event"] == "connection.closed":
                    ends[connection] = told["at"]
            elif told["event"] == "shard.revoked":
                let_go[instance].append(told["at"])
        for connection in {r["connectionId"] for r in self.evidence.raw}:
            owner, end = owners.get(connection), ends.get(connection)
            if end is None:
                # The first words of a connection may have been lost with its process, too.
                if self.crashed and (owner is None or owner in self.crashed):
                    self.broken.add(connection)
            elif any(0 <= at - end <= _LET_GO_MICROS for at in let_go[owner or ""]):
                self.broken.add(connection)

    def _in_time(self, record: Mapping[str, Any], where: str, name: Name) -> bool:
        """Whether no later writer had taken over before a record was written."""
        epoch = record["writerEpoch"]
        newest = self.epochs.get((where, name), epoch)
        if epoch >= newest:
            self.epochs[where, name] = epoch
            return True
        self.account.late += 1
        if not self.crashed:
            self._tell("late writer", name, f"epoch {epoch} after {newest}, though no process crashed")
        return False

    # Raw

    def _numbers(self) -> None:
        """Messages are numbered from 0 without hole or repeat, and stand in that order by topic and key."""
        numbers: dict[int, list[int]] = defaultdict(list)
        newest: dict[tuple[Any, ...], int] = {}
        for raw in self.evidence.raw:
            if raw["kind"] != "stream":
                continue
            connection, number = raw["connectionId"], raw["connectionSequence"]
            numbers[connection].append(number)
            place = connection, raw["market"], raw["channel"], raw["symbol"] or raw["stream"]
            if number <= newest.get(place, -1):
                self._tell("raw disordered", place, f"{number} after {newest[place]}")
            newest[place] = number
        for connection, seen in numbers.items():
            counted = Counter(seen)
            missing = sorted(set(range(max(seen) + 1)) - counted.keys())
            if missing and connection not in self.broken:
                self._tell(
                    "raw missing", f"{connection:016x}", f"message {missing[0]} and {len(missing) - 1} more"
                )
            for number, count in counted.items():
                if count > 1:
                    self._tell("raw repeated", f"{connection:016x}", f"message {number} {count} times")
            self.account.raw_messages += len(seen)
        self.account.connections = len(numbers)

    def _recognise(self) -> None:
        """Find the event of each message in raw; what is none is garbage."""
        made: dict[tuple[str, bytes], list[Event]] = defaultdict(list)
        for events in self.truth.streams.values():
            for event in events:
                made[event.market, event.text].append(event)
        for raw in self.evidence.raw:
            if raw["kind"] != "stream" or raw["channel"] == "control":
                continue
            found = made.get((raw["market"], raw["payload"]))
            if not found:
                self.garbage.append(raw)
                continue
            # The same text twice: the one made last before it was received.
            event = max((e for e in found if e.at_ms * 1000 <= raw["receivedAt"]), default=found[0])
            arrival = _Arrival(event, raw["connectionId"], raw["connectionSequence"], raw["receivedAt"])
            self.connections[arrival.connection].arrivals.append(arrival)
            self.arrivals[event.market, event.stream].append(arrival)
        for carried in self.connections.values():
            carried.close(self.truth.touched)

    def _subscriptions(self) -> None:
        for told in self.evidence.lifecycle:
            connection, market = told["connectionId"], told["market"]
            if told["event"] == "connection.subscribed" and connection in self.connections:
                for stream in told["streams"]:
                    since = told["lastSequence"] if told["lastSequence"] is not None else -1
                    self.connections[connection].subscribed.setdefault((market, stream), since)
            if told["event"] == "stream.silent":
                for stream in told["streams"]:
                    self.silent[connection, stream].append(told["at"])

    def _raw_is_whole(self) -> None:
        """What was made while a connection carried the stream is in raw of that connection."""
        for connection, carried in self.connections.items():
            if connection in self.broken:
                continue
            had = {a.event.n for a in carried.arrivals}
            for name in carried.subscribed:
                events = self.truth.streams.get(name, [])
                for index, event in enumerate(events):
                    if event.n in had or not carried.covers(name, event.n):
                        continue
                    touched = self.truth.touched.get(event.n, set())
                    later = next((e.n for e in events[index + 1 :] if e.n not in self.truth.touched), None)
                    if touched & _WITHHELD or self._resubscribing(connection, event):
                        continue
                    if "reorder" in touched and later not in had:
                        continue
                    self._tell(
                        "not in raw", f"{name} on {connection:016x}", f"event {event.n} {_shown(event)}"
                    )

    def _resubscribing(self, connection: int, event: Event) -> bool:
        return any(
            -_CLOCK_SLACK_MICROS <= event.at_ms * 1000 - at <= _RESUBSCRIBE_SECONDS * 1e6
            for at in self.silent.get((connection, event.stream), ())
        )

    def _carried(self, name: Name, n: int) -> bool:
        return any(carried.covers(name, n) for carried in self.connections.values())

    # Unified

    def _sort_records(self) -> None:
        streams: dict[tuple[str, str, str, str], Name] = {}
        for name in self.truth.streams:
            kind = kind_of(name[1])
            if kind is not None:
                option = name[1].partition("kline_")[2]
                streams[name[0], kind.channel, name[1].partition("@")[0].upper(), option] = name
        for structure, record in self.evidence.unified:
            if record.get("origin") == "snapshot":
                continue  # a whole book, of the bridge's making
            option = record["timeframe"] if structure == "ohlcv" else ""
            place = record["market"], record.get("channel"), record.get("exchangeSymbol", "").upper(), option
            name = streams.get(place)  # type: ignore[arg-type]
            if name is None or kind_of(name[1]).structure != structure:  # type: ignore[union-attr]
                continue
            if record.get("type") == "snapshot" and kind_of(name[1]).rule == "ids":  # type: ignore[union-attr]
                continue
            # What is recovered belongs to the past, whoever writes it; see docs/explanation/accounting.md.
            if record["origin"] == "backfill" or self._in_time(record, structure, name):
                self.records[name].append(record)

    def _sort_gaps(self) -> None:
        """Keep the newest record of each gap; of these no two may name the same."""
        newest: dict[str, dict[str, Any]] = {}
        for gap in self.evidence.gaps:
            if not self._in_time(gap, "gap", (gap["market"], gap["stream"])):
                continue
            before = newest.get(gap["id"])
            if before is not None and before["status"] != "open":
                self._tell("named twice", gap["id"], f"{before['status']}, then {gap['status']} again")
            newest[gap["id"]] = gap
        for gap in newest.values():
            self.gaps[gap["market"], gap["stream"]].append(gap)
        for name, gaps in self.gaps.items():
            for first, last in (("firstSequence", "lastSequence"), ("startTime", "endTime")):
                spans = sorted((g[first], g[last]) for g in gaps if g[first] is not None)
                for span in spans:
                    if span[1] < span[0]:
                        self._tell("empty gap", name, f"{first} {span[0]} to {span[1]}")
                for before_, after in itertools.pairwise(spans):
                    if after[0] < before_[1] or (first == "firstSequence" and after[0] == before_[1]):
                        self._tell("named twice", name, f"gaps {before_} and {after} overlap")

    def _spans(self, name: Name, first: str, last: str) -> list[_Span]:
        found = [
            _Span(g[first], g[last], g["status"] == "filled") for g in self.gaps[name] if g[first] is not None
        ]
        return sorted(found)

    def _ids(self, name: Name, kind: _Kind, events: list[Event]) -> None:
        records = self.records[name]
        expected = {_id(kind, e): e for e in events if '"X":"NA"' not in e.data}
        published = self._in_order(name, [(r["sequence"], r["origin"] == "backfill") for r in records])
        spans = self._spans(name, "firstSequence", "lastSequence")
        starts = [span.first for span in spans]
        for record in records:
            event = expected.get(record["sequence"])
            if event is None:
                self._tell("invented", name, f"{record['sequence']} was never made")
            elif not _VALUES[kind.structure](record, json.loads(event.data, parse_float=str)):
                self._tell("altered", name, f"{record['sequence']} is not what was made: {event.data}")
        ends = (min(published), max(published)) if published else None
        for number, event in expected.items():
            first = event.first if kind.channel == "depth" and event.first is not None else number
            at = bisect.bisect_right(starts, number) - 1
            span = spans[at] if at >= 0 and number <= spans[at].last else None
            if span is not None and first < span.first:
                self._tell("half named", name, f"{_shown(event)} begins before {span}")
            if not self._settled(name, _shown(event), event, number in published, span):
                if ends is not None and ends[0] < number < ends[1]:
                    self._tell("lost", name, f"{_shown(event)} is neither published nor in a gap")
                elif self._died_before(ends and number < ends[0]):
                    self.account.outside += 1
                elif self._carried(name, event.n) and not self._unseen(
                    name, event, first=ends and number < ends[0]
                ):
                    self._tell(
                        "lost", name, f"{_shown(event)} came on a connection, outside of all published"
                    )
                else:
                    self.account.outside += 1

    def _settled(self, name: Name, shown: str, event: Event, published: bool, span: _Span | None) -> bool:
        """Count an event that is published or named by a gap; False where it is neither."""
        self.account.events += 1
        if published:
            self.account.published += 1
            if span is not None and not span.filled:
                self._tell("published and named", name, f"{shown} and {span}")
            self.account.recovered += span is not None
        elif span is not None:
            self.account.in_gaps += 1
            if span.filled:
                self._tell("lost", name, f"{shown} is not published, though {span} is said to be filled")
        return published or span is not None

    def _died_before(self, first: object) -> bool:
        """Whether a process may have received it, and died, before anything of the stream was published."""
        return bool(first) and bool(self.crashed)

    def _unseen(self, name: Name, event: Event, *, first: bool | None) -> bool:
        """Whether nothing could show it: held back by the simulator, or swapped behind what came first of all.

        Or swapped behind what came last: its connection was gone before it was its turn.
        """
        touched = self.truth.touched.get(event.n, set())
        if touched & _WITHHELD:
            return True
        return "reorder" in touched and (
            bool(first) or all(a.event.n != event.n for a in self.arrivals[name])
        )

    def _in_order(self, name: Name, numbers: Sequence[tuple[int, bool]]) -> set[int]:
        """Look for repeats, and for disorder among what came live; what is recovered comes later. Return them all."""
        seen: set[int] = set()
        newest = -1
        for number, recovered in numbers:
            if number in seen:
                self._tell("repeated", name, f"{number} is published again")
            elif number < newest and not recovered:
                self._tell("disordered", name, f"{number} after {newest}")
            seen.add(number)
            newest = newest if recovered else max(newest, number)
        return seen

    def _candles(self, name: Name, events: list[Event]) -> None:
        """Each candle closes once; updates in between are samples, checked in raw only."""
        records = self.records[name]
        closed = self._in_order(
            name, [(r["timestamp"], r["origin"] == "backfill") for r in records if r["closed"]]
        )
        spans = self._spans(name, "startTime", "endTime")
        times = [r["timestamp"] for r in records if r["origin"] != "backfill"]
        if times != sorted(times):
            self._tell("disordered", name, "a candle after a later one")
        for event in events:
            candle = json.loads(event.data)["k"]
            opened = candle["t"] * 1000
            if not candle["x"]:
                continue
            span = next((span for span in spans if span.first <= opened <= span.last), None)
            if not self._settled(name, f"candle {opened}", event, opened in closed, span):
                if times and times[0] <= opened < times[-1]:
                    self._tell("lost", name, f"candle {opened} closed and is neither published nor in a gap")
                elif self._died_before(times and opened < times[0]):
                    self.account.outside += 1
                elif self._carried(name, event.n) and not self._unseen(name, event, first=False):
                    self._tell("lost", name, f"candle {opened} closed on a connection")
                else:
                    self.account.outside += 1

    def _frames(self, name: Name, kind: _Kind | None, events: list[Event]) -> None:
        arrivals = self.arrivals[name]
        self.account.frames += len(events)
        if kind is not None:
            self._derived(name, arrivals)
        had = {a.event.n for a in arrivals}
        last = max(had, default=-1)
        first = min(had, default=last)
        spans = [
            (g["startTime"] - self._lag(name, g["startTime"]), g["endTime"])
            for g in self.gaps[name]
            if g["startTime"] is not None
        ]
        for event in events:
            # Before the first frame and after the last one lifecycle tells the stretch; within a connection's
            # life _raw_is_whole asks for it.
            if event.n in had or not first < event.n < last or self.truth.touched.get(event.n):
                continue
            at = event.at_ms * 1000
            if self._carried(name, event.n):
                continue
            if not any(a - _CLOCK_SLACK_MICROS <= at <= b + _CLOCK_SLACK_MICROS for a, b in spans):
                self._tell(
                    "unnamed", name, f"event {event.n} came on no connection and no gap names its time {at}"
                )

    def _lag(self, name: Name, at: int) -> int:
        """How long before ``at`` the last message was made that connections with the stream had brought by then.

        A connection's end is told by when it was read, and a busy machine reads late.
        """
        lasts = []
        for carried in self.connections.values():
            count = bisect.bisect_right(carried.arrivals, at, key=lambda a: a.received_at)
            if name in carried.subscribed and count:
                lasts.append(carried.arrivals[count - 1])
        last = max(lasts, key=lambda a: a.received_at, default=None)
        return 0 if last is None else max(0, last.received_at - last.event.at_ms * 1000)

    def _derived(self, name: Name, arrivals: list[_Arrival]) -> None:
        """Each frame has its record once, unless a newer one was received no later."""
        published = Counter((r["connectionId"], r["connectionSequence"]) for r in self.records[name])
        by_event: dict[int, list[_Arrival]] = defaultdict(list)
        for arrival in arrivals:
            by_event[arrival.event.n].append(arrival)
        for n, times in by_event.items():
            count = sum(published[a.connection, a.number] for a in times)
            if count > 1:
                self._tell("repeated", name, f"event {n} is published {count} times")
        newest = {n: min(a.received_at for a in times) for n, times in by_event.items()}
        soonest_later = float("inf")
        in_raw = {(a.connection, a.number) for a in arrivals}
        # A crash may take an event's record and leave its raw, or take its raw and leave its record.
        orphans = sum(place[0] in self.broken and place not in in_raw for place in published)
        for n in sorted(newest, reverse=True):
            found = by_event[n]
            told = any(published[a.connection, a.number] for a in found)
            if not told and newest[n] < soonest_later and not all(a.connection in self.broken for a in found):
                if orphans:
                    orphans -= 1
                else:
                    self._tell("lost", name, f"event {n} is in raw and has no record")
            soonest_later = min(soonest_later, newest[n])
        values = [r["sequence"] for r in self.records[name] if r["sequence"] is not None]
        if values != sorted(values):
            self._tell("disordered", name, "a value older than the one before")

    # Garbage and lives

    def _dead_letters(self) -> None:
        letters = Counter(
            (d["connectionId"], d["connectionSequence"], d["payload"]) for d in self.evidence.dead_letters
        )
        expected = Counter((g["connectionId"], g["connectionSequence"], g["payload"]) for g in self.garbage)
        for place, count in (expected - letters).items():
            if place[0] in self.broken:
                continue
            self._tell(
                "no dead letter", f"{place[0]:016x}", f"message {place[1]} × {count}: {place[2][:80]!r}"
            )
        for place, count in (letters - expected).items():
            if place[0] in self.broken:
                continue
            self._tell("needless dead letter", place[0], f"message {place[1]} × {count}: {place[2][:80]!r}")

    def _lives(self) -> None:
        """Every connection with messages was told to start and to close, with the number of its last message."""
        last: dict[int, int] = {}
        for raw in self.evidence.raw:
            if raw["kind"] == "stream":
                last[raw["connectionId"]] = max(last.get(raw["connectionId"], -1), raw["connectionSequence"])
        told: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
        for event in self.evidence.lifecycle:
            if event["connectionId"] is not None:
                told[event["connectionId"]][event["event"]] = event
        for connection, number in last.items():
            if connection in self.broken:
                continue
            events = told[connection]
            if "connection.started" not in events or "connection.closed" not in events:
                self._tell(
                    "untold", f"{connection:016x}", f"lifecycle tells only {', '.join(events) or 'nothing'}"
                )
            elif events["connection.closed"]["lastSequence"] != number:
                closed = events["connection.closed"]["lastSequence"]
                self._tell(
                    "miscounted", f"{connection:016x}", f"closed at message {closed}, raw has {number}"
                )


def _id(kind: _Kind, event: Event) -> int:
    number = event.last if kind.channel == "depth" else event.first
    assert number is not None
    return number


def _shown(event: Event) -> str:
    return f"{event.first}..{event.last}" if event.last != event.first else f"{event.first}"


def _trade_values(record: dict[str, Any], data: dict[str, Any]) -> bool:
    return (
        record["price"] == Decimal(data["p"])
        and record["amount"] == Decimal(data["q"])
        and record["side"] == ("sell" if data["m"] else "buy")
        and record["timestamp"] == data["T"] * 1000
    )


def _book_values(record: dict[str, Any], data: dict[str, Any]) -> bool:
    def levels(side: str) -> list[tuple[Decimal, Decimal]]:
        return [(Decimal(price), Decimal(amount)) for price, amount in data[side]]

    return record["firstSequence"] == data["U"] and all(
        [(level["price"], level["amount"]) for level in record[side]] == levels(wire)
        for side, wire in (("bids", "b"), ("asks", "a"))
    )


_VALUES: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], bool]] = {
    "trade": _trade_values,
    "order-book": _book_values,
}


def outages(lifecycle: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the reasons that connections closed for, for a report."""
    yield from (str(e["reason"]) for e in lifecycle if e["event"] == "connection.closed")
