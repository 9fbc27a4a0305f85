"""One history of an account out of live events and REST's answers, however they come together."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.account_records import Draft
from bridge.core.account_state import AccountState
from bridge.core.remembered import Remembered
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


@pytest.mark.parametrize("crowded", [False, True], ids=["apart", "crowded"])
@pytest.mark.parametrize("market", MARKETS)
@moderate
@given(seed=st.integers(0, 10**6), network=st.integers(0, 10**6), steps=st.integers(1, 25))
def test_any_delivery_gives_the_true_history(
    market: Market, crowded: bool, seed: int, network: int, steps: int
) -> None:
    """Events lost, repeated and late, old answers, restarts: fills once, states never back, the last ones true."""
    history = improvised(market, seed, steps, crowded=crowded)
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
            if structure == "order" and not crowded:
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
    history = improvised(market, seed, steps)
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


# Rules, one by one


def _state_draft(structure: str, connection: int = 1, asked_at: int = 0, **values: Any) -> Draft:
    """Return a draft with what the rules look at."""
    usual: dict[str, Any] = {
        "symbol": "BTC/USDT",
        "exchangeSymbol": "BTCUSDT",
        "timestamp": 1,
        "lastUpdateTimestamp": 1,
    }
    usual |= {
        "order": {
            "id": "1",
            "conditional": False,
            "status": "open",
            "exchangeStatus": "NEW",
            "filled": 0,
            "amount": 9,
        },
        "balance": {"currency": "BTC", "free": 1, "used": 0, "total": 1},
        "position": {"positionSide": "BOTH", "contracts": 1, "side": "long", "entryPrice": 5},
        "my-trade": {"id": "7", "order": "1"},
        "ledger": {"currency": "USDT", "direction": "out", "amount": 5, "exchangeType": "FUNDING_FEE"},
        "account-event": {"event": "leverage"},
    }[structure]
    return Draft(structure, usual | values, "live" if connection else "snapshot", connection, asked_at)


def _accepted(state: AccountState, *drafts: Draft) -> list[bool]:
    return [state.accept(draft) is not None for draft in drafts]


def test_an_order_that_is_done_with_stays_so() -> None:
    """Nothing of an order follows its end, however new it says it is."""
    done = _state_draft("order", status="canceled", exchangeStatus="CANCELED", lastUpdateTimestamp=5)
    late = _state_draft("order", lastUpdateTimestamp=9)
    again = _state_draft("order", 0, 9, status="expired", exchangeStatus="EXPIRED", lastUpdateTimestamp=9)
    state = AccountState()
    assert _accepted(state, _state_draft("order"), done, late, again, done) == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert state.open_orders() == []


def test_what_filled_never_shrinks() -> None:
    """A row of a database that lags, though its update time is newer, does not take a fill back."""
    state = AccountState()
    filled = _state_draft("order", filled=3, exchangeStatus="PARTIALLY_FILLED", lastUpdateTimestamp=5)
    assert _accepted(state, filled, _state_draft("order", 0, 9, lastUpdateTimestamp=7)) == [True, False]


def test_open_orders_are_told_with_their_kind() -> None:
    """A plain and a conditional order of one id are two; both are open until they end."""
    state = AccountState()
    assert _accepted(state, _state_draft("order"), _state_draft("order", conditional=True)) == [True, True]
    assert [tuple(order) for order in state.open_orders()] == [
        ("BTCUSDT", "1", False),
        ("BTCUSDT", "1", True),
    ]


def test_when_an_order_was_placed_is_kept() -> None:
    """Later events of futures do not tell it; a row that is no news may have told it."""
    state = AccountState()
    state.accept(_state_draft("order", timestamp=None, lastUpdateTimestamp=5))
    assert state.accept(_state_draft("order", 0, 9, timestamp=2, lastUpdateTimestamp=5)) is None
    news = state.accept(_state_draft("order", timestamp=None, lastUpdateTimestamp=6))
    assert news is not None
    assert news.values["timestamp"] == 2


def test_rest_asked_within_a_change_s_millisecond_is_not_believed() -> None:
    """Between two changes of one millisecond it may say what was before; asked later it says what is."""
    state = AccountState()
    assert _accepted(
        state,
        _state_draft("balance", lastUpdateTimestamp=5000),
        _state_draft("balance", 0, 5000, free=2, total=2, lastUpdateTimestamp=5000),
        _state_draft("balance", 0, 6000, free=3, total=3, lastUpdateTimestamp=5000),
    ) == [True, False, True]


def test_rest_asked_later_puts_right_what_came_late() -> None:
    """REST told the last of two changes in one millisecond, then the first came: asked again, the last one holds."""
    state = AccountState()
    last = {"free": 2, "total": 2, "lastUpdateTimestamp": 5000}
    assert _accepted(
        state,
        _state_draft("balance", 0, 5000, **last),
        _state_draft("balance", lastUpdateTimestamp=5000),
        _state_draft("balance", 0, 9000, **last),
        _state_draft("balance", 0, 9500, **last),
    ) == [True, True, True, False]


def test_a_connection_that_lags_does_not_take_a_state_back() -> None:
    """In one millisecond only a connection that told what is known goes on from there, even to a state seen before."""
    ahead = [_state_draft("balance", 2, free=free, total=free) for free in (2, 1, 2)]
    behind = _state_draft("balance", 1, free=7, total=7)
    state = AccountState()
    assert _accepted(state, ahead[0], behind, *ahead[1:]) == [True, False, True, True]


def test_what_a_whole_answer_leaves_out_is_nothing() -> None:
    """Positions are flat and balances zero, unless they changed since it was asked; what is listed stays."""
    state = AccountState()
    for symbol, at in (("A", 10), ("B", 10), ("C", 30)):
        state.accept(_state_draft("position", exchangeSymbol=symbol, lastUpdateTimestamp=at))
    listed = [_state_draft("position", 0, 20, exchangeSymbol="A")]
    [gone] = state.left_out("position", listed, 20)
    assert (gone.values["exchangeSymbol"], gone.values["contracts"], gone.values["side"]) == ("B", 0, None)
    assert (gone.values["lastUpdateTimestamp"], gone.origin) == (20, "snapshot")
    assert _accepted(state, gone) == [True]
    assert state.left_out("position", listed, 25) == []
    assert state.left_out("balance", [], 25) == []


def test_nothing_that_was_never_anything_makes_no_record() -> None:
    """A zero balance in an answer is news only where there was something before."""
    zero = {"free": 0, "total": 0}
    state = AccountState()
    assert _accepted(
        state,
        _state_draft("balance", 0, 9, **zero),
        _state_draft("balance", lastUpdateTimestamp=10),
        _state_draft("balance", 0, 30, **zero, lastUpdateTimestamp=20),
    ) == [False, True, True]


def test_a_trade_with_oneself_is_two_fills() -> None:
    """Both orders have a fill of the same trade id."""
    state = AccountState()
    fills = [_state_draft("my-trade", order=order) for order in ("1", "2", "1")]
    assert _accepted(state, *fills) == [True, True, False]


def test_an_allocation_is_a_fill_of_its_own() -> None:
    """Without a trade id the allocation id tells fills apart."""
    state = AccountState()
    fills = [_state_draft("my-trade", id=None, allocationId=id_) for id_ in ("1", "2", "1")]
    assert _accepted(state, *fills) == [True, True, False]


def test_an_entry_and_its_row_are_one_whichever_comes_first() -> None:
    """Events have no id: amount, contract and ten seconds decide, one to one."""
    event = _state_draft("ledger", timestamp=1_000_000)
    row = _state_draft("ledger", 0, 9, id="a", timestamp=9_000_000)
    for first, second in ((event, row), (row, event)):
        assert _accepted(AccountState(), first, second, second, first) == [True, False, False, False]
    state = AccountState()
    others = [
        _state_draft("ledger", 0, 9, id="b", timestamp=12_000_000),
        _state_draft("ledger", 0, 9, id="c", timestamp=1_000_000, amount=6),
        _state_draft("ledger", 0, 9, id="d", timestamp=1_000_000, direction="in"),
    ]
    assert _accepted(state, event, *others) == [True, True, True, True]
    assert _accepted(state, row, row._replace(values=row.values | {"id": "e"})) == [False, True]


def test_entries_of_different_contracts_are_not_one() -> None:
    """Two contracts paid the same funding at once; where an event names none, the row's counts for it."""
    state = AccountState()
    assert _accepted(
        state,
        _state_draft("ledger", instrument="BTC/USDT:USDT"),
        _state_draft("ledger", 0, 9, id="a", instrument="ETH/USDT:USDT"),
        _state_draft("ledger", 0, 9, id="b", instrument="BTC/USDT:USDT"),
    ) == [True, True, False]


def test_an_account_event_is_told_once() -> None:
    """The same at the same time is a repeat, at another time an event."""
    state = AccountState()
    events = [_state_draft("account-event", timestamp=at) for at in (1, 1, 2)]
    assert _accepted(state, *events) == [True, False, True]


@moderate
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 8))
def test_memory_is_bounded_and_old_names_never_come_back(times: list[int], most: int) -> None:
    """The oldest are forgotten; whatever is as old as what was forgotten counts as known."""
    remembered, added = Remembered(most), set()
    for name in times:
        if remembered.add(name, name):
            assert name not in added
            added.add(name)
        assert len(remembered) <= most
    assert all(name in remembered for name in sorted(added)[-most:])
