"""One history of an account out of live events and REST's answers, however they come together."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.model import MARKETS
from tests.core.account_histories import Answer, History, Published, Reader, improvised

if TYPE_CHECKING:
    from bridge.model import Market

_UNTOLD = object()
moderate = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _truth(history: History) -> Reader:
    """Return what a single undisturbed connection gives."""
    reader = Reader(history.market)
    for event in history.events:
        reader.event(event)
    return reader


def _order(one: Published) -> tuple[Any, ...]:
    r = one.record
    filled = _UNTOLD if r["conditional"] and r["origin"] != "live" else r["filled"]
    return (r["exchangeStatus"], filled, r["amount"], r["triggerPrice"])


def _balance(one: Published) -> tuple[Any, ...]:
    r = one.record
    return (
        (r["total"], r["used"], r["crossWalletBalance"])
        if r["market"] == "spot"
        else (r["total"], r["crossWalletBalance"])
    )


def _position(one: Published) -> tuple[Any, ...]:
    r = one.record
    return (r["contracts"], r["side"], r["entryPrice"])


_STATES = {"order": _order, "balance": _balance, "position": _position}


def _by_state(reader: Reader, structure: str) -> dict[bytes, list[tuple[Any, ...]]]:
    found: dict[bytes, list[tuple[Any, ...]]] = {}
    for one in reader.of(structure):
        assert one.state is not None
        found.setdefault(one.state, []).append(_STATES[structure](one))
    return found


def _fills(reader: Reader) -> Counter[tuple[Any, ...]]:
    names = ("symbol", "id", "order", "side", "price", "amount", "cost", "takerOrMaker", "fee")
    return Counter(tuple(str(one.record[name]) for name in names) for one in reader.of("my-trade"))


def _entries(reader: Reader) -> Counter[tuple[Any, ...]]:
    names = ("currency", "direction", "amount", "referenceId")
    return Counter(tuple(one.record[name] for name in names) for one in reader.of("ledger"))


def _is_within(part: list[Any], whole: list[Any]) -> bool:
    """Tell whether a list is another one with some left out."""
    rest = iter(whole)
    return all(any(_agree(item, other) for other in rest) for item in part)


def _agree(told: tuple[Any, ...], true: tuple[Any, ...]) -> bool:
    """Tell whether a state is the true one; REST does not say how much of a conditional order has filled."""
    return all(a == b or a is _UNTOLD for a, b in zip(told, true, strict=True))


class _Meddler:
    """Delivers a history as an unkind network would.

    Connections come and go, are late, say things twice or never; REST is asked at any moment and answers later.
    """

    def __init__(self, history: History, seed: int) -> None:
        self.history, self.random = history, Random(seed)
        self.reader = Reader(history.market)
        self.legs: dict[int, list[bytes]] = {1: []}
        self.pending: list[Answer] = []
        self.opened = 1

    def run(self) -> Reader:
        for step, answers in zip(self.history.steps, self.history.answers, strict=True):
            self.happen(step)
            if self.random.random() < 0.3:
                self.pending += answers
            if self.random.random() < 0.1:
                self.restart()
            for _ in range(self.random.randrange(8)):
                self.deliver()
        while any(self.legs.values()) or self.pending:
            self.deliver()
        for answer in self.history.answers[-1]:
            self.reader.answer(answer._replace(asked_at=answer.asked_at + 1000))
        return self.reader

    def restart(self) -> None:
        """Let the process die and come back: its connections and what it asked are lost."""
        self.legs.clear()
        self.pending.clear()
        self.reader.restart()

    def happen(self, events: list[bytes]) -> None:
        if self.random.random() < 0.2 and self.legs:
            self.legs.pop(self.random.choice(list(self.legs)))
        for leg in self.legs:
            self.legs[leg] = self.legs[leg] + events
        if self.random.random() < 0.3 and len(self.legs) < 3:
            self.opened += 1
            self.legs[self.opened] = events[self.random.randrange(len(events) + 1) :]

    def deliver(self) -> None:
        ready = [leg for leg, queue in self.legs.items() if queue]
        if self.pending and (not ready or self.random.random() < 0.2):
            self.reader.answer(self.pending.pop(self.random.randrange(len(self.pending))))
        elif ready:
            leg = self.random.choice(ready)
            event = self.legs[leg].pop(0)
            for _ in range(2 if self.random.random() < 0.2 else 1):
                self.reader.event(event, leg)


@pytest.mark.parametrize("market", MARKETS)
@moderate
@given(seed=st.integers(0, 10**6), network=st.integers(0, 10**6), steps=st.integers(1, 25))
def test_any_delivery_gives_the_true_history(market: Market, seed: int, network: int, steps: int) -> None:
    """Events lost, repeated and late, old answers, restarts: fills once, states never back, the last ones true."""
    history = improvised(market, seed, steps, pause_ms=3)
    truth, reader = _truth(history), _Meddler(history, network).run()
    assert _fills(reader) == _fills(truth)
    if market != "spot":
        assert _entries(reader) == _entries(truth)
    for structure in _STATES:
        told, true = _by_state(reader, structure), _by_state(truth, structure)
        assert told.keys() <= true.keys()
        for name in true.keys() - told.keys():
            assert not true[name][-1][0], "what was never heard of is nothing"
        for name, states in told.items():
            assert _agree(states[-1], true[name][-1]), (structure, name)
            if structure == "order":
                assert _is_within(states, true[name]), (name, states, true[name])
    for structure in ("order", "balance", "position"):
        times: dict[bytes | None, Any] = {}
        for one in reader.of(structure):
            assert (
                times.get(one.state, one.record["lastUpdateTimestamp"]) <= one.record["lastUpdateTimestamp"]
            )
            times[one.state] = one.record["lastUpdateTimestamp"]


@pytest.mark.parametrize("market", MARKETS)
@moderate
@given(seed=st.integers(0, 10**6), network=st.integers(0, 10**6), steps=st.integers(1, 25))
def test_answers_about_what_is_known_add_nothing(market: Market, seed: int, network: int, steps: int) -> None:
    """Where every event came, REST asked at any step, and a restart at any step, leave the history as it was."""
    history = improvised(market, seed, steps, pause_ms=3)
    truth, random = _truth(history), Random(network)
    reader = Reader(market)
    for step, answers in zip(history.steps, history.answers, strict=True):
        for event in step:
            reader.event(event)
        for answer in answers:
            if random.random() < 0.3:
                reader.answer(answer)
        if random.random() < 0.1:
            reader.restart()
    assert [(p.structure, p.record) for p in reader.published] == [
        (p.structure, p.record | {"connectionSequence": q.record["connectionSequence"]})
        for p, q in zip(truth.published, reader.published, strict=True)
    ]
