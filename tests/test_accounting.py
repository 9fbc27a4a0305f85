"""The oracle has teeth: a sound run passes, and each planted fault is convicted of itself."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.accounting import Account, Event, Evidence, Truth, account

if TYPE_CHECKING:
    from collections.abc import Callable

START_MS = 1_800_000_000_000
TRADES, BOOK, QUOTES, CANDLES = (
    "btcusdt@aggTrade",
    "btcusdt@depth@100ms",
    "btcusdt@bookTicker",
    "btcusdt@kline_1s",
)
FIRST, SECOND = 0xA, 0xB


class World:
    """A hundred ticks of four streams, what a sound bridge makes of them, and hands to break it with.

    Connection A carries ticks 0 to 49, connection B ticks 45 to 99: an overlap as in a rotation.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.touched: dict[int, set[str]] = {}
        for tick in range(100):
            self._make(
                TRADES,
                tick,
                tick,
                {"a": tick, "p": "1.5", "q": str(tick + 1), "m": False, "T": START_MS + tick},
            )
            self._make(
                BOOK, 2 * tick, 2 * tick + 1, {"U": 2 * tick, "u": 2 * tick + 1, "b": [["1", "2"]], "a": []}
            )
            self._make(QUOTES, tick, tick, {"u": tick})
            self._make(CANDLES, None, None, {"k": {"t": START_MS + 1000 * tick, "x": True}})
        self.raw: list[dict[str, Any]] = []
        for connection, ticks in ((FIRST, range(50)), (SECOND, range(45, 100))):
            self._control(connection, ticks[0])
            for event in self.events:
                if event.n // 4 in ticks:
                    self._receive(connection, event)
        self.unified = [self._record(raw) for raw in self._without_repeats()]
        self.gaps: list[dict[str, Any]] = []
        self.dead_letters: list[dict[str, Any]] = []
        self.lifecycle = []
        for connection in (FIRST, SECOND):
            last = max(r["connectionSequence"] for r in self.raw if r["connectionId"] == connection)
            for event, number in (("started", None), ("subscribed", 0), ("closed", last)):
                self.lifecycle.append(self._told(f"connection.{event}", connection, number))

    def judge(self) -> Account:
        """Ask the oracle."""
        truth = Truth.of(self.events, self.touched)
        return account(truth, Evidence(self.raw, self.unified, self.gaps, self.dead_letters, self.lifecycle))

    def convicted(self) -> set[str]:
        """Return the kinds of problems it found."""
        return {problem.kind for problem in self.judge().problems}

    # Hands

    def unpublish(self, stream: str, tick: int) -> dict[str, Any]:
        """Take the unified record of an event away and return it."""
        event = self.event(stream, tick)
        (place,) = [(structure, r) for structure, r in self.unified if r["from"] == event.n]
        self.unified.remove(place)
        return place[1]

    def lose(self, stream: str, tick: int) -> None:
        """Take an event away from raw too: it came on no connection, as if skipped."""
        event = self.event(stream, tick)
        self.unpublish(stream, tick)
        self.touched[event.n] = {"skip"}
        for raw in [r for r in self.raw if r["payload"] == event.text]:
            self.raw.remove(raw)
            for other in self.raw:
                if (
                    other["connectionId"] == raw["connectionId"]
                    and other["connectionSequence"] > raw["connectionSequence"]
                ):
                    other["connectionSequence"] -= 1
                    for _, record in self.unified:
                        if record["from"] == other["from"] and record["connectionId"] == raw["connectionId"]:
                            record["connectionSequence"] = other["connectionSequence"]
            for told in self.lifecycle:
                if told["event"] == "connection.closed" and told["connectionId"] == raw["connectionId"]:
                    told["lastSequence"] -= 1

    def gap(self, stream: str, first: int, last: int) -> None:
        """Record a gap of ids."""
        self.gaps.append(
            {
                "market": "spot", "stream": stream, "firstSequence": first, "lastSequence": last,
                "startTime": None, "endTime": None, "status": "open", "id": f"{stream}:{first}:{len(self.gaps)}",
                "writerEpoch": 0,
            }
        )  # fmt: skip

    def gap_of_time(self, stream: str, start: int, end: int) -> None:
        """Record a gap of times, in ticks."""
        self.gap(stream, 0, 0)
        at = (START_MS * 1000 + t for t in (start * 1_000_000, end * 1_000_000))
        self.gaps[-1] |= {
            "firstSequence": None,
            "lastSequence": None,
            "startTime": next(at),
            "endTime": next(at),
        }

    def event(self, stream: str, tick: int) -> Event:
        """The event of a stream at a tick."""
        return next(e for e in self.events if e.stream == stream and e.n // 4 == tick)

    # Making

    def _make(self, stream: str, first: int | None, last: int | None, data: dict[str, Any]) -> None:
        n = len(self.events)
        text = json.dumps({**data, "n": n})
        self.events.append(Event(n, START_MS + 1000 * (n // 4), "spot", stream, first, last, text))

    def _number(self, connection: int) -> int:
        return sum(r["connectionId"] == connection for r in self.raw)

    def _control(self, connection: int, tick: int) -> None:
        self._add(
            connection, "control", "", None, (START_MS + 1000 * tick) * 1000, b'{"result":null,"id":1}', -1
        )

    def _receive(self, connection: int, event: Event) -> None:
        at = event.at_ms * 1000 + 500 + (connection == SECOND)
        self._add(connection, "any", event.stream, "BTCUSDT", at, event.text, event.n)

    def _add(
        self, connection: int, channel: str, stream: str, symbol: str | None, at: int, payload: bytes, n: int
    ) -> None:
        self.raw.append(
            {
                "kind": "stream", "market": "spot", "channel": channel, "stream": stream, "symbol": symbol,
                "connectionId": connection, "connectionSequence": self._number(connection), "receivedAt": at,
                "payload": payload, "from": n,
            }
        )  # fmt: skip

    def _without_repeats(self) -> list[dict[str, Any]]:
        first: dict[int, dict[str, Any]] = {}
        for raw in self.raw:
            if raw["from"] >= 0:
                first.setdefault(raw["from"], raw)
        return [first[n] for n in sorted(first)]

    def _record(self, raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        event = self.events[raw["from"]]
        data = json.loads(event.data)
        common = {
            "market": "spot", "exchangeSymbol": "BTCUSDT", "connectionId": raw["connectionId"],
            "connectionSequence": raw["connectionSequence"], "sequence": event.last, "from": event.n,
            "origin": "live", "writerEpoch": 0,
        }  # fmt: skip
        if event.stream == TRADES:
            values = {
                "price": Decimal(data["p"]),
                "amount": Decimal(data["q"]),
                "side": "buy",
                "timestamp": data["T"] * 1000,
            }
            return "trade", {**common, "channel": "agg-trade", **values}
        if event.stream == BOOK:
            bids = [{"price": Decimal(1), "amount": Decimal(2)}]
            return "order-book", {
                **common,
                "channel": "depth",
                "firstSequence": event.first,
                "bids": bids,
                "asks": [],
            }
        if event.stream == QUOTES:
            return "bid-ask", {**common, "channel": "book-ticker"}
        candle = {"timeframe": "1s", "timestamp": data["k"]["t"] * 1000, "closed": True}
        return "ohlcv", {**common, "channel": "kline", **candle}

    @staticmethod
    def _told(event: str, connection: int, last: int | None) -> dict[str, Any]:
        return {
            "event": event, "connectionId": connection, "market": "spot", "lastSequence": last, "at": 0,
            "instance": "bridge-0", "streams": [TRADES, BOOK, QUOTES, CANDLES],
        }  # fmt: skip


SOUND = World()


@pytest.fixture
def world() -> World:
    """A sound run, to be broken."""
    return copy.deepcopy(SOUND)


def test_a_sound_run_is_accounted_for(world: World) -> None:
    """Nothing is found where nothing is wrong, and everything is counted."""
    found = world.judge()
    assert found.problems == []
    assert (found.events, found.published, found.frames) == (300, 300, 100)
    assert (found.raw_messages, found.connections) == (4 * 105 + 2, 2)


def test_an_event_that_a_gap_names_is_accounted_for(world: World) -> None:
    """Lost on the way and named once is what was promised."""
    for stream in (TRADES, QUOTES):
        world.lose(stream, 20)
    world.gap(TRADES, 20, 20)
    found = world.judge()
    assert found.problems == []
    assert found.in_gaps == 1


def test_a_gap_that_was_filled_is_accounted_for(world: World) -> None:
    """What is recovered comes after its time, once, and the newest record of the gap says so."""
    record = world.unpublish(TRADES, 20)
    world.unified.append(("trade", record | {"origin": "backfill"}))
    world.gap(TRADES, 20, 20)
    world.gaps.append(world.gaps[0] | {"status": "filled"})
    found = world.judge()
    assert found.problems == []
    assert (found.recovered, found.in_gaps) == (1, 0)


def _lose_a_trade(world: World) -> None:
    world.lose(TRADES, 20)


def _lose_a_book_change(world: World) -> None:
    world.lose(BOOK, 20)


def _lose_a_candle(world: World) -> None:
    world.lose(CANDLES, 20)


def _do_not_derive_a_quote(world: World) -> None:
    world.unpublish(QUOTES, 20)


def _lose_the_last_trade_after_it_came(world: World) -> None:
    world.unpublish(TRADES, 99)


def _lose_a_trade_before_the_first_published(world: World) -> None:
    world.unpublish(TRADES, 0)


def _publish_twice(world: World) -> None:
    record = next(u for u in world.unified if u[1]["from"] == world.event(TRADES, 20).n)
    world.unified.append(copy.deepcopy(record))


def _publish_a_quote_twice(world: World) -> None:
    record = next(u for u in world.unified if u[1]["from"] == world.event(QUOTES, 20).n)
    world.unified.append(copy.deepcopy(record))


def _swap_two_trades(world: World) -> None:
    places = [i for i, (_, r) in enumerate(world.unified) if r["channel"] == "agg-trade"]
    first, second = places[20], places[21]
    world.unified[first], world.unified[second] = world.unified[second], world.unified[first]


def _name_twice(world: World) -> None:
    world.lose(TRADES, 20)
    world.lose(TRADES, 21)
    world.gap(TRADES, 20, 21)
    world.gap(TRADES, 21, 21)


def _name_what_is_published(world: World) -> None:
    world.gap(BOOK, 40, 41)


def _fill_a_gap_without_its_events(world: World) -> None:
    world.lose(TRADES, 20)
    world.gap(TRADES, 20, 20)
    world.gaps.append(world.gaps[0] | {"status": "filled"})


def _recover_what_came_live(world: World) -> None:
    record = next(r for _, r in world.unified if r["from"] == world.event(TRADES, 20).n)
    world.unified.append(("trade", record | {"origin": "backfill"}))


def _recover_and_leave_the_gap_open(world: World) -> None:
    record = world.unpublish(TRADES, 20)
    world.unified.append(("trade", record | {"origin": "backfill"}))
    world.gap(TRADES, 20, 20)


def _fill_a_gap_twice(world: World) -> None:
    test_a_gap_that_was_filled_is_accounted_for(world)
    world.gaps.append(world.gaps[-1])


def _name_half_an_event(world: World) -> None:
    world.lose(BOOK, 20)
    world.gap(BOOK, 41, 41)


def _invent(world: World) -> None:
    record = copy.deepcopy(world.unified[0][1]) | {"sequence": 1000}
    world.unified.append(("trade", record))


def _alter_an_amount(world: World) -> None:
    world.unified[0][1]["amount"] += Decimal("0.000000000000000001")


def _alter_a_level(world: World) -> None:
    next(r for s, r in world.unified if s == "order-book")["bids"][0]["price"] += 1


def _leave_a_hole_in_raw(world: World) -> None:
    del world.raw[30]


def _repeat_a_raw_record(world: World) -> None:
    world.raw.append(copy.deepcopy(world.raw[30]))


def _swap_raw_records(world: World) -> None:
    world.raw[30], world.raw[34] = world.raw[34], world.raw[30]


def _never_receive_on_a_live_connection(world: World) -> None:
    world.lose(QUOTES, 20)
    del world.touched[world.event(QUOTES, 20).n]


def _receive_what_is_no_event(world: World) -> None:
    world.raw[30]["payload"] = b"upstream connect error"


def _complain_of_a_sound_message(world: World) -> None:
    raw = world.raw[30]
    world.dead_letters.append({k: raw[k] for k in ("connectionId", "connectionSequence", "payload")})


def _close_without_a_word(world: World) -> None:
    world.lifecycle.pop()


def _miscount_a_connection(world: World) -> None:
    world.lifecycle[-1]["lastSequence"] -= 1


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (_lose_a_trade, "lost"),
        (_lose_a_book_change, "lost"),
        (_lose_a_candle, "lost"),
        (_do_not_derive_a_quote, "lost"),
        (_lose_the_last_trade_after_it_came, "lost"),
        (_lose_a_trade_before_the_first_published, "lost"),
        (_publish_twice, "repeated"),
        (_publish_a_quote_twice, "repeated"),
        (_swap_two_trades, "disordered"),
        (_name_twice, "named twice"),
        (_name_what_is_published, "published and named"),
        (_name_half_an_event, "half named"),
        (_fill_a_gap_without_its_events, "lost"),
        (_recover_what_came_live, "repeated"),
        (_recover_and_leave_the_gap_open, "published and named"),
        (_fill_a_gap_twice, "named twice"),
        (_invent, "invented"),
        (_alter_an_amount, "altered"),
        (_alter_a_level, "altered"),
        (_leave_a_hole_in_raw, "raw missing"),
        (_repeat_a_raw_record, "raw repeated"),
        (_swap_raw_records, "raw disordered"),
        (_never_receive_on_a_live_connection, "not in raw"),
        (_receive_what_is_no_event, "no dead letter"),
        (_complain_of_a_sound_message, "needless dead letter"),
        (_close_without_a_word, "untold"),
        (_miscount_a_connection, "miscounted"),
    ],
    ids=lambda one: one.__name__.strip("_") if callable(one) else one,
)
def test_each_fault_is_convicted(world: World, fault: Callable[[World], None], verdict: str) -> None:
    """A planted fault is found, and called by its name."""
    fault(world)
    assert verdict in world.convicted()


def _darken(world: World) -> None:
    """Let no connection carry ticks 50 to 59."""
    gone = [e.n for e in world.events if 50 <= e.n // 4 < 60]
    sequence = 0
    raws = [r for r in world.raw if r["connectionId"] == FIRST]
    seconds = [r for r in world.raw if r["connectionId"] == SECOND and not 0 <= r["from"] < 240]
    for raw in seconds:
        raw["connectionSequence"] = sequence
        sequence += 1
    world.raw = raws + seconds
    world.unified = [u for u in world.unified if u[1]["from"] not in gone]
    numbers = {r["from"]: r["connectionSequence"] for r in seconds}
    for _, record in world.unified:
        if record["connectionId"] == SECOND:
            record["connectionSequence"] = numbers[record["from"]]
    world.lifecycle[-1]["lastSequence"] = sequence - 1
    world.gap(TRADES, 50, 59)
    world.gap(BOOK, 100, 119)
    world.gap_of_time(CANDLES, 50, 59)


def test_a_message_swapped_behind_the_end_of_its_connection_is_outside(world: World) -> None:
    """The simulator held it back for its turn, and the connection was gone by then: nothing came behind it."""
    world.lose(TRADES, 99)
    world.touched[world.event(TRADES, 99).n] = {"reorder"}
    assert world.convicted() == set()
    assert world.judge().outside == 1


def test_a_swapped_message_that_came_and_is_not_published_is_lost(world: World) -> None:
    """That it was swapped is no excuse once it is in raw."""
    world.unpublish(TRADES, 99)
    world.touched[world.event(TRADES, 99).n] = {"reorder"}
    assert "lost" in world.convicted()


def test_a_stretch_without_a_connection_has_to_be_named(world: World) -> None:
    """For a stream without ids the time is to be named by a gap record; where it is, all is well."""
    _darken(world)
    assert world.convicted() == {"unnamed"}
    world.gap_of_time(QUOTES, 49, 60)
    found = world.judge()
    assert found.problems == []
    assert found.in_gaps == 30


def test_a_stretch_named_in_part_is_not_named(world: World) -> None:
    """Each event in it counts."""
    _darken(world)
    world.gap_of_time(QUOTES, 49, 57)
    assert world.convicted() == {"unnamed"}


def test_a_stretch_begins_with_the_last_message_however_late_it_was_read(world: World) -> None:
    """A connection read three seconds late names what was made after its last message, and no more."""
    _darken(world)
    for raw in world.raw:
        if raw["connectionId"] == FIRST and raw["from"] // 4 >= 47:
            raw["receivedAt"] = (START_MS + 52_000) * 1000
    world.gap_of_time(QUOTES, 54, 60)
    assert world.convicted() == {"unnamed"}
    world.gaps.pop()
    world.gap_of_time(QUOTES, 52, 60)
    assert world.judge().problems == []


def test_what_comes_after_every_connection_is_outside(world: World) -> None:
    """Events after the last message of the last connection are lifecycle's to tell."""
    n = len(world.events)
    world.events.append(Event(n, START_MS + 200_000, "spot", TRADES, 100, 100, json.dumps({"a": 100})))
    found = world.judge()
    assert found.problems == []
    assert found.outside == 1


# Crashes


def _crash(world: World) -> None:
    """Let the first process die: nobody told its connection's end, a few of its last raw records never arrived."""
    world.lifecycle = [
        told
        for told in world.lifecycle
        if (told["connectionId"], told["event"]) != (FIRST, "connection.closed")
    ]
    world.lifecycle.insert(0, world._told("connection.opening", FIRST, None))
    tail = [r for r in world.raw if r["connectionId"] == FIRST][-6:]
    for raw in (tail[0], tail[3]):
        world.raw.remove(raw)
    for _, record in world.unified:
        record["writerEpoch"] = 1 if record["connectionId"] == FIRST else 2


def _judged(world: World) -> Account:
    evidence = Evidence(world.raw, world.unified, world.gaps, world.dead_letters, world.lifecycle)
    return account(Truth.of(world.events, world.touched), evidence, crashed={"bridge-0"})


def _write_late(world: World, stream: str, tick: int) -> None:
    """Let the process that died get a record through after its successor's."""
    event = world.event(stream, tick)
    structure, record = next(u for u in world.unified if u[1]["from"] == event.n)
    world.unified.append((structure, copy.deepcopy(record) | {"writerEpoch": 1}))


def test_what_a_crash_leaves_undone_is_excused(world: World) -> None:
    """Holes in raw and an end that nobody told are excused of a process that crashed, and of no other."""
    _crash(world)
    found = _judged(world)
    assert found.problems == []
    assert (found.broken, found.late) == (1, 0)
    assert world.convicted() >= {"raw missing", "untold"}


def test_an_end_that_was_told_just_before_the_crash_excuses_too(world: World) -> None:
    """Lifecycle has a partition of its own: what came before on the connection may be lost with the process."""
    world.raw = [raw for raw in world.raw if raw["connectionSequence"] not in {20, 21}]
    ends = [told["at"] for told in world.lifecycle if told["event"] == "connection.closed"]
    evidence = Evidence(world.raw, world.unified, world.gaps, world.dead_letters, world.lifecycle)
    truth = Truth.of(world.events, world.touched)
    for at, broken in ((max(ends) + 1_000_000, 2), (max(ends) + 60_000_000, 0), (min(ends) - 1, 0)):
        found = account(truth, evidence, crashed={"bridge-0"}, cut_off=[("bridge-0", at)])
        assert found.broken == broken
        assert ("raw missing" in found.convictions()) == (not broken)


def test_a_late_record_of_a_replaced_writer_is_left_out(world: World) -> None:
    """A lower epoch behind a higher one is counted and dropped; where nothing crashed it is a fault."""
    _crash(world)
    _write_late(world, TRADES, 48)
    found = _judged(world)
    assert found.problems == []
    assert found.late == 1
    assert "late writer" in world.convicted()


def _lose_what_lay_between_two_owners(world: World) -> None:
    world.lose(TRADES, 49)


def _repeat_after_the_take_over(world: World) -> None:
    _write_late(world, TRADES, 48)
    world.unified[-1][1]["writerEpoch"] = 2


def _name_what_the_dead_had_published(world: World) -> None:
    world.gap(TRADES, 48, 49)


def _forget_to_publish_after_the_take_over(world: World) -> None:
    world.unpublish(TRADES, 99)


def _recover_twice(world: World) -> None:
    record = world.unpublish(TRADES, 49)
    world.unified += [("trade", record | {"origin": "backfill"})] * 2


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (_lose_what_lay_between_two_owners, "lost"),
        (_repeat_after_the_take_over, "repeated"),
        (_name_what_the_dead_had_published, "published and named"),
        (_forget_to_publish_after_the_take_over, "lost"),
        (_recover_twice, "repeated"),
    ],
    ids=lambda one: one.__name__.strip("_") if callable(one) else one,
)
def test_a_crash_excuses_no_event(world: World, fault: Callable[[World], None], verdict: str) -> None:
    """Each event with an id is asked for all the same."""
    _crash(world)
    fault(world)
    assert verdict in {problem.kind for problem in _judged(world).problems}
