import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.connection_life import (
    TRANSITIONS,
    Close,
    Ping,
    Rotate,
    Send,
    State,
    Tell,
    Trigger,
)
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.keep_alive import Pace
from bridge.core.session import Answer, AskMarket, Refusal, Session, Shutdown, read_control
from bridge.model import Stream, StreamState

SETTINGS = ConnectionSettings()


def stream(name, first=10.0):
    """Return a stream of that name."""
    return Stream("spot", "trade", name, name.split("@")[0].upper(), "", first, None)


class Rig:
    """A session with a clock, its states, and everything it ever said."""

    def __init__(self, *names, options=SETTINGS, pace=4, lifetime=82_800.0, patience=None, others=None):
        self.now = 100.0
        self.states = {}
        self.session = Session(
            options,
            control_frames_per_second=pace,
            lifetime_seconds=lifetime,
            states=self.states,
            patience=patience,
            others=others,
        )
        self.said = []
        self.add(*names)

    def take(self, effects):
        """Note effects with their time."""
        self.said += [(self.now, effect) for effect in effects]
        return effects

    def add(self, *names):
        """Add streams, states first as the shell does."""
        for name in names:
            self.states.setdefault(name.encode(), StreamState(stream(name)))
        return self.take(self.session.add(self.now, [stream(name) for name in names]))

    def open(self):
        """Finish the handshake."""
        return self.take(self.session.opened(self.now))

    def answer(self, **fields):
        """Deliver a control message."""
        return self.take(self.session.control(self.now, json.dumps(fields).encode()))

    def run(self, seconds, *, alive=True):
        """Let time pass as the shell does; a live peer answers pings with something."""
        end = self.now + seconds
        while self.now < end:
            self.now += max(self.session.wake_in(self.now), 0.01)
            effects = self.take(self.session.tick(self.now))
            if alive and any(isinstance(effect, Ping) for effect in effects):
                self.session.active(self.now)

    def sent(self):
        """Return the control frames sent so far."""
        return [json.loads(effect.payload) for _, effect in self.said if isinstance(effect, Send)]

    def all(self, kind):
        """Return the effects of a kind so far."""
        return [effect for _, effect in self.said if isinstance(effect, kind)]

    def told(self, event):
        """Return the lifecycle events of that name so far."""
        return [effect for effect in self.all(Tell) if effect.event == event]


def test_it_subscribes_when_opened_and_is_live_once_answered():
    """Connecting, Subscribing, Live; the subscribed event names the streams."""
    rig = Rig("a@trade", "b@trade")
    assert rig.session.state is State.CONNECTING
    rig.open()
    assert rig.session.state is State.SUBSCRIBING
    assert rig.sent() == [{"method": "SUBSCRIBE", "params": ["a@trade", "b@trade"], "id": 1}]
    rig.answer(result=None, id=1)
    assert rig.session.state is State.LIVE
    assert rig.told("connection.subscribed") == [Tell("connection.subscribed", ("a@trade", "b@trade"))]
    assert rig.session.subscribed


def test_many_streams_go_in_paced_frames():
    """950 streams make ten frames of at most 100 names, never more than four in a second."""
    rig = Rig(*[f"s{number}@trade" for number in range(950)])
    rig.open()
    rig.run(4)
    assert [len(frame["params"]) for frame in rig.sent()] == [100] * 9 + [50]
    times = [now for now, effect in rig.said if isinstance(effect, Send)]
    assert all(later - earlier >= 1 - 1e-6 for earlier, later in zip(times, times[4:], strict=False))
    assert all(later - earlier >= 0.25 - 1e-6 for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": 2, "msg": "Invalid request: invalid stream", "id": 1},
        {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 1},
        {"error": {"code": 2, "msg": "Invalid request: invalid stream"}},
    ],
)
def test_a_refusal_is_read_in_every_form_the_exchange_uses(refusal):
    """Flat, nested, and without id: the stream is named with the code and the exchange's words."""
    rig = Rig("bad@trade")
    rig.open()
    rig.answer(**refusal)
    assert rig.told("connection.subscription-rejected") == [
        Tell("connection.subscription-rejected", ("bad@trade",), 2, "Invalid request: invalid stream")
    ]
    assert rig.session.streams == {}
    assert rig.session.state is State.LIVE


def test_one_bad_name_is_found_among_many_and_the_others_are_subscribed():
    """A refused frame is halved until the culprit stands alone."""
    names = [f"s{number}@trade" for number in range(50)]
    rig = Rig(*names)
    rig.open()
    answered = 0
    while answered < len(rig.sent()) or not rig.session.subscribed:
        for frame in rig.sent()[answered:]:
            answered += 1
            if "s17@trade" in frame["params"]:
                rig.answer(error={"code": 2, "msg": "Invalid request: invalid stream"}, id=frame["id"])
            else:
                rig.answer(result=None, id=frame["id"])
        rig.run(0.3)
    assert [told.streams for told in rig.told("connection.subscription-rejected")] == [("s17@trade",)]
    (subscribed,) = rig.told("connection.subscribed")
    assert sorted(subscribed.streams) == sorted(set(names) - {"s17@trade"})


def test_too_many_subscriptions_rejects_the_whole_frame_at_once():
    """Code 4 is about the number, not about a name: halving would only provoke the exchange."""
    rig = Rig("a@trade", "b@trade")
    rig.open()
    rig.answer(error={"code": 4, "msg": "Too many subscriptions"})
    assert rig.told("connection.subscription-rejected")[0].streams == ("a@trade", "b@trade")
    rig.run(2)
    assert len(rig.sent()) == 1


def test_a_name_too_long_for_a_frame_is_rejected_by_ourselves():
    """A 10 kB symbol is named as rejected and does not keep others from being subscribed."""
    rig = Rig("a@trade", "x" * 10_000)
    rig.open()
    assert rig.told("connection.subscription-rejected")[0].streams == ("x" * 10_000,)
    assert rig.sent()[0]["params"] == ["a@trade"]


def test_an_unanswered_subscribe_is_sent_once_more_then_the_connection_is_given_up():
    """Five seconds without answer: again, with a new id; five more: close, to be opened anew."""
    rig = Rig("a@trade")
    rig.open()
    rig.run(6)
    assert [frame["id"] for frame in rig.sent()] == [1, 2]
    assert rig.session.carrying
    rig.run(6)
    (close,) = rig.all(Close)
    assert "SUBSCRIBE" in close.reason
    assert rig.session.state is State.CLOSING


@pytest.mark.parametrize("late", [1, 2])
def test_a_late_answer_to_either_attempt_counts(late):
    """The first attempt may have been slow rather than lost."""
    rig = Rig("a@trade")
    rig.open()
    rig.run(6)
    rig.answer(result=None, id=late)
    rig.run(30)
    assert rig.session.state is State.LIVE
    assert rig.all(Close) == []
    assert len(rig.told("connection.subscribed")) == 1


def test_answers_to_nothing_are_ignored():
    """Unknown ids, text ids and errors out of the blue change nothing."""
    rig = Rig("a@trade")
    rig.open()
    for fields in (
        {"result": None, "id": 77},
        {"result": None, "id": "abc"},
        {"code": 2, "msg": "x", "id": 9},
    ):
        assert rig.answer(**fields) == []
    assert rig.session.state is State.SUBSCRIBING


def test_streams_come_and_go_on_a_live_connection():
    """Adding and removing send their own frames and events, and nothing twice."""
    rig = Rig("a@trade")
    rig.open()
    rig.answer(result=None, id=1)
    rig.add("b@trade", "a@trade")
    rig.run(1)
    rig.answer(result=None, id=2)
    rig.take(rig.session.remove(rig.now, ["a@trade", "unknown@trade"]))
    rig.run(1)
    assert [(frame["method"], frame["params"]) for frame in rig.sent()] == [
        ("SUBSCRIBE", ["a@trade"]),
        ("SUBSCRIBE", ["b@trade"]),
        ("UNSUBSCRIBE", ["a@trade"]),
    ]
    assert [told.streams for told in rig.told("connection.subscribed")] == [("a@trade",), ("b@trade",)]
    assert list(rig.session.streams) == ["b@trade"]


def test_a_stream_removed_while_its_subscribe_is_unanswered_ends_nothing():
    """The retry of a SUBSCRIBE whose streams are all gone is dropped, and the connection lives on."""
    rig = Rig("a@trade")
    rig.open()
    rig.take(rig.session.remove(rig.now, ["a@trade"]))
    rig.run(2)
    rig.answer(result=None, id=2)
    rig.run(30)
    assert rig.all(Close) == []
    assert rig.told("connection.subscribed") == []


@pytest.mark.parametrize(
    "payload",
    [
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        b'{"event":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_server_shutdown_asks_for_a_successor_at_once(payload):
    """All three forms rotate, once, and the connection carries on meanwhile."""
    rig = Rig("a@trade")
    rig.open()
    assert rig.take(rig.session.control(rig.now, payload)) == [Rotate("serverShutdown")]
    assert rig.session.state is State.ROTATING
    assert rig.session.control(rig.now, payload) == []
    assert rig.session.carrying


def test_age_asks_for_a_successor():
    """Before the exchange's 24 hours are over, rotation is due."""
    rig = Rig("a@trade", lifetime=60)
    rig.open()
    rig.answer(result=None, id=1)
    rig.run(59)
    assert rig.all(Rotate) == []
    rig.run(2)
    assert [rotate.reason for rotate in rig.all(Rotate)] == ["age of 60 s"]


def test_a_peer_that_is_gone_is_noticed_within_22_seconds():
    """No frame, ping or pong after our ping: stale, and cut off without a closing handshake."""
    rig = Rig()
    rig.open()
    rig.run(23, alive=False)
    stale = next(now for now, effect in rig.said if isinstance(effect, Tell))
    assert stale - 100 <= 22.5
    assert rig.told("connection.stale")[0].reason.startswith("no frame, ping or pong for 22")
    assert rig.all(Close)[0].abort


def test_a_peer_that_only_pings_is_alive():
    """The exchange's own ping is a sign of life like any frame."""
    rig = Rig()
    rig.open()
    for _ in range(20):
        rig.run(5, alive=False)
        rig.session.pinged(rig.now)
    assert rig.told("connection.stale") == []


def test_pongs_count_into_the_pace():
    """Right after answering a ping, a SUBSCRIBE waits its turn."""
    rig = Rig()
    rig.open()
    rig.session.pinged(rig.now)
    assert not any(isinstance(effect, Send) for effect in rig.add("a@trade"))
    rig.run(0.3)
    assert len(rig.sent()) == 1


def test_an_acknowledged_but_silent_stream_is_told_subscribed_again_and_then_replaced():
    """REST shows movement, the stream none: told, UNSUBSCRIBE and SUBSCRIBE, told, a new connection."""
    rig = Rig("a@trade")
    rig.open()
    acknowledged = 0
    for _ in range(400):
        for frame in rig.sent()[acknowledged:]:
            acknowledged += 1
            rig.answer(result=None, id=frame["id"])
        asked = len(rig.all(AskMarket))
        rig.run(0.5)
        for ask in rig.all(AskMarket)[asked:]:
            rig.session.market_answered(rig.now, ask.stream.name, int(rig.now))
    assert [(frame["method"], frame["params"]) for frame in rig.sent()] == [
        ("SUBSCRIBE", ["a@trade"]),
        ("UNSUBSCRIBE", ["a@trade"]),
        ("SUBSCRIBE", ["a@trade"]),
    ]
    assert [told.streams for told in rig.told("stream.silent")] == [("a@trade",)] * 2
    assert rig.all(Rotate) == [Rotate("stream a@trade is silent", "a@trade")]


class BesideAnother(Rig):
    """A session of one leg, live, whose other leg has a frame of every stream each second."""

    def __init__(self, *names):
        super().__init__(*names, others=lambda _name: int(self.now) * 1_000_000)
        self.open()
        self.answer(result=None, id=1)
        for _ in range(10):
            self.frame(*names)
            self.run(0.5)

    def frame(self, *names):
        """Let a frame of each stream come here as well."""
        self.session.active(self.now)
        for name in names:
            state = self.states[name.encode()]
            state.frames += 1
            state.last_received_at = int(self.now * 1_000_000)


def test_a_stream_the_other_leg_has_and_this_one_not_is_subscribed_again_within_ten_seconds():
    """Its neighbours flow on: one stream is told and mended, without a look at REST."""
    rig = BesideAnother("a@trade", "b@trade")
    before = rig.now
    while not rig.told("stream.silent") and rig.now < before + 60:
        rig.frame("b@trade")
        rig.run(0.5)
    assert rig.now - before < 10
    (told,) = rig.told("stream.silent")
    assert told.streams == ("a@trade",)
    assert "while the other leg had frames; subscribing again" in told.reason
    assert rig.all(AskMarket) == []
    rig.run(3)
    assert [frame["method"] for frame in rig.sent()][-2:] == ["UNSUBSCRIBE", "SUBSCRIBE"]


def test_a_connection_that_says_nothing_while_the_other_leg_does_is_stale_within_ten_seconds():
    """Nothing at all comes: the connection is given up as a whole, sooner than by its pings."""
    rig = BesideAnother("a@trade", "b@trade")
    rig.run(9.9, alive=False)
    (told,) = rig.told("connection.stale")
    assert told.streams == ("a@trade", "b@trade")
    assert "while the other leg had frames" in told.reason
    assert rig.told("stream.silent") == []
    assert [close.abort for close in rig.all(Close)] == [True]


def test_closing_and_losing_end_it():
    """Close asks the shell once; lost tells the end once, with code and reason."""
    rig = Rig("a@trade")
    rig.open()
    assert rig.session.close(1000, "bye") == [Close(1000, "bye")]
    assert rig.session.close(1000, "bye") == []
    assert rig.session.lost(1000, "bye") == [Tell("connection.closed", ("a@trade",), 1000, "bye")]
    assert rig.session.lost(1006, "") == []
    assert rig.session.state is State.CLOSED
    assert rig.session.tick(rig.now + 100) == []


def test_the_table_ends_in_closed_from_every_state():
    """Every state knows what a lost socket means, and nothing leaves Closed."""
    assert set(TRANSITIONS) == set(State)
    for state, ways in TRANSITIONS.items():
        if state is State.CLOSED:
            assert ways == {}
        else:
            assert ways[Trigger.LOST] is State.CLOSED


@pytest.mark.parametrize(
    ("payload", "meaning"),
    [
        (b'{"result":null,"id":3}', Answer(3)),
        (b'{"result":["a@trade"],"id":3}', Answer(3)),
        (b'{"id":"x","result":null}', Answer("x")),
        (b'{"code":3,"msg":"Invalid JSON"}', Refusal(None, 3, "Invalid JSON")),
        (b'{"error":{"code":4,"msg":"Too many"},"id":5}', Refusal(5, 4, "Too many")),
        (b'{"e":"serverShutdown"}', Shutdown()),
        (b'{"e":"trade","id":5}', None),
        (b'{"stream":"a@trade","data":{"id":3,"result":null}}', None),
        (b'{"data":{},"stream":"a@trade"}', None),
        (b'{"id":true,"result":null}', None),
        (b"[1,2]", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b'{"id":' + b"9" * 5000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"x":' * 20_000, None),
    ],
)
def test_control_messages_are_told_from_everything_else(payload, meaning):
    """Answers, refusals and shutdowns are read; data and garbage are not taken for them."""
    assert read_control(payload) == meaning


@given(st.binary(max_size=200))
def test_no_bytes_raise(payload):
    """Whatever the peer sends, reading it only ever says yes or None."""
    read_control(payload)


@given(st.lists(st.floats(0, 0.7), max_size=60), st.integers(1, 5))
def test_the_pace_holds_in_every_second(pauses, per_second):
    """However often one asks, no second sees more frames than allowed."""
    pace, now, sent = Pace(per_second), 0.0, []
    for pause in pauses:
        now += pause
        if pace.wait(now) <= 0:
            pace.spend(now)
            sent.append(now)
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in zip(sent, sent[per_second:], strict=False))


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 15)),
    st.tuples(st.just("ticks"), st.integers(1, 20)),
    st.tuples(st.just("open"), st.none()),
    st.tuples(st.just("active"), st.none()),
    st.tuples(st.just("pinged"), st.none()),
    st.tuples(st.just("add"), st.lists(st.sampled_from("abcdefgh"), max_size=6)),
    st.tuples(st.just("remove"), st.lists(st.sampled_from("abcdefgh"), max_size=6)),
    st.tuples(st.just("frame"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("accept"), st.integers(0, 30)),
    st.tuples(st.just("refuse"), st.integers(0, 30)),
    st.tuples(st.just("garbage"), st.binary(max_size=40)),
    st.tuples(
        st.just("market"), st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 9)))
    ),
    st.tuples(st.just("rotate"), st.none()),
    st.tuples(st.just("shutdown"), st.none()),
    st.tuples(st.just("close"), st.none()),
    st.tuples(st.just("lost"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_no_sequence_of_inputs_raises_or_exceeds_the_pace(steps):
    """In any order nothing raises, no second sees over four frames of ours, and closed stays silent."""
    options = ConnectionSettings(subscribe_names=2, acknowledgement_seconds=2, rotate_after_seconds=50)
    rig = Rig(options=options, lifetime=50)
    session, ended = rig.session, None
    for step, value in steps:
        if step == "wait":
            rig.now += value
        elif step == "ticks":
            for _ in range(value):
                rig.now += max(0.0, session.wake_in(rig.now))
                rig.take(session.tick(rig.now))
        elif step == "open":
            rig.open()
        elif step == "active":
            session.active(rig.now)
        elif step == "pinged":
            session.pinged(rig.now)
            rig.said.append((rig.now, "pong"))
        elif step == "add":
            rig.add(*(f"{letter}@trade" for letter in value))
        elif step == "remove":
            rig.take(session.remove(rig.now, [f"{letter}@trade" for letter in value]))
        elif step == "frame":
            rig.states.setdefault(
                f"{value}@trade".encode(), StreamState(stream(f"{value}@trade"))
            ).frames += 1
        elif step == "accept":
            rig.answer(result=None, id=value)
        elif step == "refuse":
            rig.answer(error={"code": value % 5, "msg": "no"}, id=value or None)
        elif step == "garbage":
            rig.take(session.control(rig.now, value))
        elif step == "market":
            rig.take(session.market_answered(rig.now, f"{value[0]}@trade", value[1]))
        elif step == "rotate":
            rig.take(session.rotate("asked"))
        elif step == "shutdown":
            rig.take(session.control(rig.now, b'{"e":"serverShutdown"}'))
        elif step == "close":
            rig.take(session.close(1000, "asked"))
        else:
            rig.take(session.lost(1006, "gone"))
        if session.state is State.CLOSED and ended is None:
            ended = len(rig.said)
    spent = [
        (now, effect) for now, effect in rig.said if isinstance(effect, (Send, Ping)) or effect == "pong"
    ]
    for index, (now, effect) in enumerate(spent):
        if effect != "pong" and index >= 4:
            assert now - spent[index - 4][0] >= 1 - 1e-6
    assert len(rig.all(Rotate)) <= 1
    assert len(rig.all(Close)) <= 1
    assert len(rig.told("connection.closed")) <= 1
    if ended is not None:
        assert all(effect == "pong" for _, effect in rig.said[ended:])
