"""The life of a connection to private events, without sockets and keys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.connection_life import Close, Ping, Rotate, Send, State, Tell
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.private_settings import PrivateSettings
from bridge.core.user_session import (
    Entered,
    Expired,
    OffClock,
    Refused,
    Reply,
    SendSigned,
    UserEvent,
    UserSession,
    read_message,
)

SIGNED, LOGON = "userDataStream.subscribe.signature", "session.logon"


class Peer:
    """A session and a clock; what it wants done is kept."""

    def __init__(self, accounts=None, pace=1000, **own):
        self.session = UserSession(
            ConnectionSettings(),
            PrivateSettings(**own),
            accounts={"main": "signature"} if accounts is None else accounts,
            frames_per_second=pace,
            lifetime_seconds=3600,
        )
        self.now = 100.0

    def opened(self):
        return self.session.opened(self.now)

    def hears(self, message, after=0.01):
        self.now += after
        return self.session.message(self.now, read_message(json.dumps(message).encode()))

    def answered(self, number, result):
        return self.hears({"id": number, "status": 200, "result": result})

    def refused(self, number, code, message="no"):
        return self.hears({"id": number, "status": 400, "error": {"code": code, "msg": message}})

    def tick(self, after):
        self.now += after
        return self.session.tick(self.now)

    def live(self, subscription=0):
        """Open, and let the only account in by signature."""
        self.opened()
        return self.answered(1, {"subscriptionId": subscription})


def event(kind, subscription=0):
    """Return an event as spot sends it."""
    return {"subscriptionId": subscription, "event": {"e": kind, "E": 1}}


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"subscriptionId":3,"event":{"e":"executionReport"}}', UserEvent("executionReport", 3)),
        (b'{"event":{"e":"serverShutdown","E":1}}', UserEvent("serverShutdown", None)),
        (b'{"e":"ACCOUNT_UPDATE","a":{}}', UserEvent("ACCOUNT_UPDATE", None)),
        (b'{"id":1,"status":200,"result":{"a":1}}', Reply(1, 200, None, "", b'{"a":1}')),
        (
            b'{"id":null,"status":401,"error":{"code":-2015,"msg":"no"}}',
            Reply(None, 401, -2015, "no", b""),
        ),
        (b'{"something":"else"}', None),
        (b"[1]", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_messages_are_told_apart(payload, found):
    """Events of both kinds of host, answers and refusals; anything else is nothing."""
    assert read_message(payload) == found


def test_a_signed_subscription_lets_an_account_in():
    """One signed request, and its answer names the subscription by which events are known."""
    peer = Peer()
    assert peer.opened() == [SendSigned(1, "main", SIGNED)]
    assert not peer.session.settled
    assert peer.answered(1, {"subscriptionId": 5}) == [
        Entered("main"),
        Tell("connection.subscribed", ("main",)),
    ]
    assert (peer.session.state, peer.session.entered) == (State.LIVE, ("main",))
    assert peer.session.account_of(UserEvent("executionReport", 5)) == "main"
    assert peer.session.account_of(UserEvent("executionReport", 6)) is None


def test_a_logon_is_followed_by_the_subscription():
    """An Ed25519 key logs the session on; then the stream is asked for, unsigned."""
    peer = Peer({"main": "logon"})
    assert peer.opened() == [SendSigned(1, "main", LOGON)]
    assert peer.answered(1, {"apiKey": "…"}) == [Send(b'{"id":2,"method":"userDataStream.subscribe"}')]
    assert Entered("main") in peer.answered(2, {"subscriptionId": 0})


def test_a_listen_key_in_the_url_is_the_login():
    """On futures the account is in as soon as the connection is open, and nothing is sent."""
    peer = Peer({"main": "url"})
    assert peer.opened() == [Entered("main"), Tell("connection.subscribed", ("main",))]
    assert peer.session.account_of(UserEvent("ACCOUNT_UPDATE", None)) == "main"
    assert peer.hears({"e": "listenKeyExpired", "listenKey": "…"}) == [
        Expired("main", "the listen key expired")
    ]
    assert peer.session.entered == ()


def test_accounts_are_let_in_one_after_the_other():
    """An event whose subscription nobody told us yet is then of the account whose answer is due."""
    peer = Peer({"one": "signature", "two": "signature"})
    assert peer.opened() == [SendSigned(1, "one", SIGNED)]
    assert peer.session.account_of(UserEvent("executionReport", 0)) == "one"
    assert peer.answered(1, {"subscriptionId": 0}) == [Entered("one"), SendSigned(2, "two", SIGNED)]
    assert peer.session.account_of(UserEvent("executionReport", 1)) == "two"
    assert peer.session.account_of(UserEvent("executionReport", 0)) == "one"
    assert peer.answered(2, {"subscriptionId": 1})[-1] == Tell("connection.subscribed", ("one", "two"))


def test_a_refused_account_does_not_keep_others_out():
    """The refusal is told, the next account goes on, and the refused one may be let in later."""
    peer = Peer({"one": "signature", "two": "signature"})
    peer.opened()
    assert peer.refused(1, -2015, "Invalid API-key") == [
        Refused("one", -2015, "Invalid API-key"),
        SendSigned(2, "two", SIGNED),
    ]
    peer.answered(2, {"subscriptionId": 0})
    assert peer.session.settled
    assert peer.session.entered == ("two",)
    assert peer.session.login(peer.now + 1, "one", "signature") == [SendSigned(3, "one", SIGNED)]
    assert not peer.session.settled
    assert peer.session.login(peer.now + 2, "two", "signature") == []
    assert peer.answered(3, {"subscriptionId": 1}) == [Entered("one")]


def test_an_account_may_join_later():
    """An account that was not among the first ones is let in on the same connection."""
    peer = Peer()
    peer.live()
    assert peer.session.login(peer.now + 1, "late", "signature") == [SendSigned(2, "late", SIGNED)]
    assert peer.answered(2, {"subscriptionId": 1}) == [Entered("late")]
    assert peer.session.accounts == ("main", "late")


def test_a_wrong_time_is_measured_once_then_refused():
    """-1021 holds the login until the clock was measured; the second one is a refusal."""
    peer = Peer()
    peer.opened()
    assert peer.refused(1, -1021) == [OffClock("main")]
    assert not peer.session.settled
    assert peer.session.login(peer.now + 1, "main", "signature") == [SendSigned(2, "main", SIGNED)]
    assert peer.refused(2, -1021) == [Refused("main", -1021, "no")]
    assert peer.session.settled
    # the next login starts anew
    peer.session.login(peer.now + 2, "main", "signature")
    assert peer.refused(3, -1021) == [OffClock("main")]


def test_a_subscription_the_exchange_believes_in_begins_anew():
    """-2035 means that both sides disagree: the connection is replaced."""
    peer = Peer()
    peer.opened()
    (close,) = peer.refused(1, -2035)
    assert isinstance(close, Close)
    assert peer.session.state is State.CLOSING


def test_an_answer_that_never_comes_ends_the_connection():
    """A login is never sent twice on one connection: nobody knows whether the first one took."""
    peer = Peer()
    peer.opened()
    assert peer.tick(4.9) == []
    (close,) = peer.tick(0.2)
    assert (close.code, close.reason) == (4000, "no answer for 5 s")


def test_subscriptions_are_looked_after():
    """Once in a while the exchange is asked what stands; what doesn't is told."""
    peer = Peer(probe_seconds=10)
    peer.live()
    assert peer.tick(9.0) == []
    assert peer.tick(1.1) == [Send(b'{"id":2,"method":"session.subscriptions"}')]
    assert peer.answered(2, [{"subscriptionId": 0}]) == []
    assert peer.tick(10.1) == [Ping()]  # each at its pace
    assert peer.tick(0.1) == [Send(b'{"id":3,"method":"session.subscriptions"}')]
    (expired,) = peer.answered(3, [])
    assert isinstance(expired, Expired)
    assert peer.session.entered == ()


def test_a_refused_look_proves_nothing():
    """A look that is refused for its weight leaves everybody in."""
    peer = Peer(probe_seconds=10)
    peer.live()
    peer.tick(10.1)
    assert peer.refused(2, -1003) == []
    assert peer.session.entered == ("main",)


def test_a_revoked_session_is_over():
    """The refusal that answers no request is for the key that is logged on."""
    peer = Peer({"main": "logon"})
    peer.opened()
    peer.answered(1, {})
    peer.answered(2, {"subscriptionId": 0})
    (expired,) = peer.hears({"id": None, "status": 401, "error": {"code": -2015, "msg": "no"}})
    assert (expired.account, "-2015" in expired.reason) == ("main", True)


def test_a_terminated_stream_is_over():
    """``eventStreamTerminated`` ends the one subscription it names."""
    peer = Peer({"one": "signature", "two": "signature"})
    peer.opened()
    peer.answered(1, {"subscriptionId": 0})
    peer.answered(2, {"subscriptionId": 1})
    assert peer.hears(event("eventStreamTerminated", 1)) == [
        Expired("two", "the exchange ended the user data stream")
    ]
    assert peer.session.entered == ("one",)


def test_a_shutdown_or_age_asks_for_a_successor_once():
    """``serverShutdown`` of the WebSocket API, and age, ask to rotate; events go on meanwhile."""
    peer = Peer()
    peer.live()
    assert peer.hears({"event": {"e": "serverShutdown", "E": 1}}) == [Rotate("serverShutdown")]
    assert Rotate not in map(type, peer.tick(3601))
    assert peer.session.carrying
    aged = Peer()
    aged.live()
    aged.session.active(aged.now + 3600)
    assert [type(one) for one in aged.tick(3600)] == [Ping, Rotate]


def test_a_peer_that_is_gone_is_cut_off():
    """Nothing at all since our ping: stale, and no closing handshake is waited for."""
    peer = Peer()
    peer.live()
    assert peer.tick(12.0) == [Ping()]
    stale, close = peer.tick(10.0)
    assert (stale.event, close.abort) == ("connection.stale", True)
    assert peer.session.lost(1006, "reset")[0].reason == stale.reason


INPUTS = st.one_of(
    st.tuples(st.just("tick"), st.floats(0, 20)),
    st.tuples(st.just("login"), st.sampled_from(["one", "two", "three"])),
    st.tuples(st.just("expire"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("rotate"), st.none()),
    st.tuples(st.just("answer"), st.tuples(st.integers(1, 9), st.integers(0, 3))),
    st.tuples(st.just("list"), st.tuples(st.integers(1, 9), st.lists(st.integers(0, 3), max_size=3))),
    st.tuples(
        st.just("refuse"),
        st.tuples(st.one_of(st.none(), st.integers(1, 9)), st.sampled_from([-2015, -1021, -2035, -1003])),
    ),
    st.tuples(
        st.just("event"),
        st.tuples(
            st.sampled_from(["x", "listenKeyExpired", "eventStreamTerminated", "serverShutdown"]),
            st.one_of(st.none(), st.integers(0, 3)),
        ),
    ),
    st.tuples(st.just("close"), st.none()),
    st.tuples(st.just("lost"), st.none()),
    st.tuples(st.just("opened"), st.none()),
)


DEEDS = {
    "tick": lambda peer, value: peer.tick(value),
    "login": lambda peer, value: peer.session.login(peer.now, value, "signature"),
    "expire": lambda peer, value: peer.session.expire(value, "gone"),
    "rotate": lambda peer, _: peer.session.rotate("asked"),
    "answer": lambda peer, value: peer.answered(value[0], {"subscriptionId": value[1]}),
    "list": lambda peer, value: peer.answered(value[0], [{"subscriptionId": one} for one in value[1]]),
    "refuse": lambda peer, value: peer.refused(*value),
    "event": lambda peer, value: peer.session.message(peer.now, UserEvent(*value)),
    "close": lambda peer, _: peer.session.close(1000, "bye"),
    "lost": lambda peer, _: peer.session.lost(1006, "gone"),
    "opened": lambda peer, _: peer.opened(),
}


@given(st.sampled_from(["signature", "logon", "url"]), st.lists(INPUTS, max_size=40))
def test_whatever_happens_it_holds(entry, inputs):
    """Nothing raises; nobody is let in or out twice in a row; at most one login is under way; the pace is kept."""
    peer = Peer({"one": entry, "two": "signature"}, pace=4)
    sent, is_in = [], set()
    for kind, value in [("opened", None), *inputs]:
        for effect in DEEDS[kind](peer, value):
            match effect:
                case Entered(account):
                    assert account not in is_in
                    is_in.add(account)
                case Expired(account, _):
                    is_in.discard(account)
                case Refused(account):
                    assert account not in is_in
                case Send() | SendSigned() | Ping():
                    sent.append(peer.now)
                case _:
                    pass
        assert set(peer.session.entered) == is_in
        assert peer.session.wake_in(peer.now) > 0
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[4:], strict=False))
