"""Workers that listen to accounts, over real sockets against the simulator's private side."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from bridge.binance.hosts import HOSTS, Hosts
from bridge.core.account_progress import AccountProgress
from bridge.errors import ConfigError
from bridge.simulator import Limits
from tests.binance.private import HMAC_KEY, Inbox, hasty, key, rig
from tests.binance.scripted import until

MARKETS = ["spot", "usdm", "coinm"]
FUTURES = ["usdm", "coinm"]


@pytest.mark.parametrize("kind", ["hmac", "rsa", "ed"])
async def test_every_kind_of_key_is_let_in_on_spot(kind):
    """Ed25519 logs on, the others subscribe with a signature; events come with account, connection and numbers."""
    async with rig() as found:
        await found.started(key(kind))
        (entered,) = found.told("succeeded")
        how = "by session.logon" if kind == "ed" else "by a signed subscription"
        assert (entered.account, entered.market, entered.reason) == ("main", "spot", how)
        found.place("first")
        await until(lambda: len(found.inbox.events()) == 2)
        assert found.inbox.kinds() == ["executionReport", "outboundAccountPosition"]
        first, second = found.inbox.messages()
        assert (first.account, first.market, first.connection_id) == ("main", "spot", entered.connection_id)
        # the answers before them are counted and not delivered: they hold the key
        assert (first.sequence, second.sequence) == ((2, 3) if kind == "ed" else (1, 2))
        assert first.payload.startswith(b'{"subscriptionId":0,"event":{"e":"executionReport"')


@pytest.mark.parametrize("market", FUTURES)
async def test_futures_are_listened_to_by_listen_key(market):
    """A listen key is made and used on the market's own path; events come bare, the key never shows."""
    async with rig() as found:
        worker = await found.started(market=market)
        found.place("first", market=market)
        await until(found.inbox.kinds)
        assert found.inbox.kinds()[0] == "ORDER_TRADE_UPDATE"
        (view,) = worker.connections()
        assert view.url.endswith("/private/ws/<listen key>" if market == "usdm" else "/ws/<listen key>")
        assert (view.state, view.streams) == ("live", ("main",))


async def test_the_stream_comes_first_and_rest_second():
    """REST is asked when the account is in; its answers come exactly, with what was asked and when."""
    async with rig() as found:
        found.place("before")
        await found.started()
        kinds = [type(one).__name__ for one in found.inbox.calls]
        assert kinds == ["tuple", *["PrivateAnswer"] * 4, "tuple"]
        names = found.story.names()
        assert names.index("authentication.succeeded") < len(names)
        answers = found.inbox.answers()
        assert [one.endpoint for one in answers] == [
            "/api/v3/account",
            "/api/v3/openOrders",
            "/api/v3/allOrders",
            "/api/v3/myTrades",
        ]
        assert answers[2].params == {"symbol": "BTCUSDT", "limit": 1000}
        assert json.loads(answers[1].payload)[0]["clientOrderId"] == "before"
        connection_id = found.told("succeeded")[0].connection_id
        for one in answers:
            assert (one.account, one.market, one.connection_id) == ("main", "spot", connection_id)
            assert abs(one.received_at - one.asked_at) < 60_000_000
        assert found.inbox.calls[0] == ("reconciling", "main", connection_id)
        assert found.inbox.calls[-1] == ("reconciled", "main", connection_id, True)


async def test_several_accounts_share_a_connection():
    """Each account's events are its own, though they come on one connection; each is reconciled by itself."""
    async with rig() as found:
        worker = await found.started(key("ed"), key("other"))
        (view,) = worker.connections()
        assert view.streams == ("main", "other")
        assert {one.reason for one in found.told("succeeded")} == {"by a signed subscription"}
        found.place("mine", account="main")
        found.place("theirs", account="other")
        await until(lambda: len(found.inbox.events("main")) == len(found.inbox.events("other")) == 2)
        assert [one["c"] for one in found.inbox.events("main") if "c" in one] == ["mine"]
        assert [one["c"] for one in found.inbox.events("other") if "c" in one] == ["theirs"]
        assert found.open_connections() == 1


async def test_a_refused_account_leaves_its_neighbour_alone():
    """One account's key is revoked: it waits and comes back on the same connection; the other hears nothing."""
    async with rig() as found:
        found.fault("revoke-key", account="other")
        worker = found.worker(key(), key("other"))
        await worker.start()
        await until(lambda: found.inbox.completed("main") and len(found.told("failed")) >= 2)
        assert {one.account for one in found.told("failed")} == {"other"}
        assert len(found.story.told("connection.started")) == 1
        found.simulator.accounts.named("other").keys["only"].revoked = False
        await until(lambda: found.inbox.completed("other"))
        assert len(found.story.told("connection.started")) == 1
        found.place("theirs", account="other")
        await until(lambda: found.inbox.events("other"))


REFUSED = [
    ({"fault": "revoke-key"}, "look in API Management", -2015),
    ({"fault": "deny-address"}, "not allowed from", -2015),
    ({"fault": "withdraw-permission"}, "lacks a permission", -2015),
]


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize(("fault", "words", "code"), REFUSED)
async def test_a_refused_key_waits_longer_each_time_without_a_connection(market, fault, words, code):
    """Attempts grow apart, nothing stays open between them, and the words name culprit and mend; mended, it is in."""
    own = hasty(retry_minimum_seconds=0.05, retry_maximum_seconds=0.4)
    async with rig(own) as found:
        inject = {**fault, "account": "main", "key": "hmac"}
        found.simulator.inject(inject)
        worker = found.worker(market=market)
        await worker.start()
        await until(lambda: len(found.told("failed")) >= 4)
        failed = found.told("failed")[:4]
        assert [one.retry_in for one in failed] == [0.05, 0.1, 0.2, 0.4]
        assert [one.attempt for one in failed] == [1, 2, 3, 4]
        for one in failed:
            assert words in one.reason
            assert f"code {code}" in one.reason
            assert (one.account, one.market) == ("main", market)
        open_now = 0
        for name in found.story.names():
            open_now += {"connection.started": 1, "connection.closed": -1}.get(name, 0)
            assert open_now in (0, 1)  # the one of an attempt is closed before the next one
        assert found.told("succeeded") == []
        api_key = found.simulator.accounts.named("main").keys["hmac"]
        api_key.revoked, api_key.addresses = False, ()
        api_key.permissions.add("reading")
        await until(found.inbox.completed)


async def test_a_wrong_secret_and_a_malformed_key_are_told_apart():
    """-1022 and -2014 have their own words."""
    async with rig() as found:
        found.simulator.add_key("main", {"name": "hmac", "key": HMAC_KEY, "secret": "another secret"})
        await found.worker().start()
        await until(lambda: found.told("failed"))
        assert "does not belong to the API key" in found.told("failed")[0].reason
    async with rig() as found:
        found.simulator.accounts.named("main").keys["hmac"].revoked = True
        short = key("hmac")
        object.__setattr__(short, "api_key", type(short.api_key)("short"))
        await found.worker(short).start()
        await until(lambda: found.told("failed"))
        assert "the API key is malformed" in found.told("failed")[0].reason


async def test_a_clock_that_is_off_is_measured_and_corrected():
    """Half a minute of difference is no trouble: requests are signed by the exchange's clock."""
    async with rig() as found:
        found.fault("clock-skew", milliseconds=30_000)
        await found.started()
        assert found.told("failed") == []
        assert 29 < found.signed.clocks["spot"].offset_seconds < 31
        assert 29 < found.story.metric("clock_offset_seconds", market="spot") < 31


@pytest.mark.parametrize("milliseconds", [30_000, -30_000])
async def test_a_clock_that_jumps_is_measured_anew(milliseconds):
    """After -1021 the clock is measured and the login tried once more, without a word of failure."""
    async with rig() as found:
        await found.started()
        found.fault("clock-skew", milliseconds=milliseconds)
        found.cut()
        await until(lambda: len(found.told("succeeded")) == 2 and found.inbox.completed() == 2)
        assert found.told("failed") == []
        assert abs(found.signed.clocks["spot"].offset_seconds * 1000 - milliseconds) < 1000


async def test_a_clock_that_cannot_be_mended_is_told():
    """Where the exchange tells one time and checks by another, the words name the clock."""
    async with rig() as found:
        exact = found.signed.timing
        found.signed.timing = lambda market: {**exact(market), "timestamp": 1}
        await found.worker().start()
        await until(lambda: found.told("failed"))
        assert "the clock is off" in found.told("failed")[0].reason


@pytest.mark.parametrize("kind", ["hmac", "ed"])
async def test_a_key_revoked_in_mid_stream_is_noticed(kind):
    """The exchange drops the stream without a word; the next look finds out: expired, then failed until mended."""
    async with rig(hasty(probe_seconds=0.05)) as found:
        await found.started(key(kind))
        found.fault("revoke-key", account="main", key=kind)
        await until(lambda: found.told("expired") and found.told("failed"))
        assert found.told("expired")[0].account == "main"
        found.simulator.accounts.named("main").keys[kind].revoked = False
        await until(lambda: found.inbox.completed() == 2)


@pytest.mark.parametrize("market", FUTURES)
async def test_a_key_revoked_in_mid_stream_is_noticed_by_keeping_alive(market):
    """On futures it is the extension of the listen key that is refused."""
    async with rig(hasty(keep_alive_seconds=0.05)) as found:
        await found.started(market=market)
        found.fault("revoke-key", account="main", key="hmac")
        await until(lambda: found.told("expired") and found.told("failed"))
        found.simulator.accounts.named("main").keys["hmac"].revoked = False
        await until(lambda: found.inbox.completed() == 2)


async def test_a_stream_the_exchange_ends_is_opened_again():
    """``eventStreamTerminated`` goes to the inbox, the account expires and is let in again, and is reconciled."""
    async with rig() as found:
        await found.started()
        found.fault("terminate-user-streams", account="main")
        await until(lambda: found.inbox.completed() == 2)
        assert found.inbox.kinds() == ["eventStreamTerminated"]
        (expired,) = found.told("expired")
        assert (expired.account, expired.reason) == ("main", "the exchange ended the user data stream")
        assert len(found.told("succeeded")) == 2


@pytest.mark.parametrize("market", FUTURES)
async def test_a_listen_key_that_expires_is_renewed(market):
    """``listenKeyExpired`` ends the silent connection; a new key is made, and REST tells what came between."""
    async with rig() as found:
        await found.started(market=market)
        found.fault("expire-keys", account="main", market=market)
        found.place("between", market=market)
        await until(lambda: found.inbox.completed() == 2)
        assert found.inbox.kinds()[0] == "listenKeyExpired"
        expired = next(one for one in found.inbox.messages() if b"listenKeyExpired" in one.payload)
        shown = json.loads(expired.payload)["listenKey"]
        assert set(shown) == {"*"}
        assert len(shown) == 64
        orders = json.loads(found.inbox.answers("openOrders")[-1].payload)
        assert [one["clientOrderId"] for one in orders] == ["between"]
        assert found.told("expired")[0].reason == "the listen key expired"


async def test_a_listen_key_is_kept_alive():
    """Extended in time, a listen key outlives its lifetime many times over."""
    limits = Limits(listen_key_seconds=1.0)
    async with rig(hasty(keep_alive_seconds=0.2), limits) as found:
        await found.started(market="usdm")
        asked = found.simulator.state()["requests"]["200"]
        await until(lambda: found.simulator.state()["requests"]["200"] >= asked + 10)  # 2 s and more
        assert found.told("expired") == []
        found.place("after", market="usdm")
        await until(found.inbox.kinds)


@pytest.mark.parametrize("market", FUTURES)
async def test_a_listen_key_ended_elsewhere_is_noticed(market):
    """Another program deletes the key: nothing is told, and the next extension finds out."""
    async with rig(hasty(keep_alive_seconds=0.05)) as found:
        await found.started(market=market)
        await found.signed.close_listen_key(key(), market)
        await until(lambda: found.inbox.completed() == 2)
        assert found.told("expired")[0].reason == "the listen key does not exist any more"


async def test_a_listen_key_outlives_the_worker():
    """Stopping leaves the account's key alive: other programs may be on it."""
    async with rig() as found:
        worker = await found.started(market="usdm")
        before = await found.signed.keep_listen_key(key(), "usdm")
        await worker.stop()
        assert await found.signed.keep_listen_key(key(), "usdm") == before


@pytest.mark.parametrize("market", MARKETS)
async def test_a_rotation_makes_before_it_breaks(market):
    """The successor is in before the old connection goes; an event of the overlap comes on both, none is lost."""
    async with rig(overlap_seconds=60.0) as found:
        worker = await found.started(market=market)
        assert worker.rotate() == 1
        assert worker.rotate() == 0  # it is under way
        await until(lambda: len(found.told("succeeded")) == 2)
        old, new = worker.connections()
        assert (old.state, new.state) == ("rotating", "live")
        found.place("both", market=market)
        await until(lambda: len({one.connection_id for one in found.inbox.messages()}) == 2)
        assert "connection.closed" not in found.story.names()
        assert found.story.told("connection.rotating")[0].reason.startswith("asked to rotate; successor ")


@pytest.mark.parametrize("market", MARKETS)
async def test_after_the_overlap_the_old_connection_is_closed(market):
    """One connection is left, and says why the old one went."""
    async with rig() as found:
        worker = await found.started(market=market)
        worker.rotate()
        await until(lambda: found.story.told("connection.closed") and found.inbox.completed() == 2)
        (closed,) = found.story.told("connection.closed")
        assert (closed.code, closed.reason.startswith("replaced by ")) == (1000, True)
        await until(lambda: len(worker.connections()) == found.open_connections() == 1)


async def test_a_server_that_shuts_down_is_left_in_time():
    """``serverShutdown`` of the WebSocket API names no account; a successor is opened at once."""
    async with rig() as found:
        await found.started()
        found.fault("shutdown", market="spot", seconds=60)
        await until(lambda: len(found.told("succeeded")) == 2)
        assert "serverShutdown" in found.story.told("connection.rotating")[0].reason
        assert found.inbox.kinds() == ["serverShutdown"]


@pytest.mark.parametrize("market", MARKETS)
async def test_old_age_rotates(market):
    """At its age a connection is replaced, before the exchange ends it."""
    async with rig(rotate_after_seconds=0.3, rotate_jitter_seconds=0.0) as found:
        await found.started(market=market)
        await until(lambda: len(found.story.told("connection.rotating")) >= 2)
        assert found.story.told("connection.rotating")[0].reason.startswith("age of ")
        assert found.story.told("connection.retrying") == []


async def test_a_successor_that_is_refused_leaves_the_old_connection():
    """While no successor is let in, the old connection delivers on."""
    async with rig() as found:
        worker = await found.started()
        api_key = found.simulator.accounts.named("main").keys["hmac"]
        api_key.addresses = ("192.0.2.1",)  # new logins are refused; the stream that is there stays
        worker.rotate()
        await until(lambda: len(found.told("failed")) >= 2)
        found.place("meanwhile")
        await until(found.inbox.kinds)
        api_key.addresses = ()
        await until(lambda: len(found.told("succeeded")) == 2)


async def test_a_successor_that_loses_its_account_is_replaced_itself():
    """The new stream is ended while both overlap: the old one delivers on until another successor is in."""
    async with rig(overlap_seconds=0.5) as found:
        worker = await found.started()
        worker.rotate()
        await until(lambda: len(found.told("succeeded")) == 2)
        newest = list(found.simulator._streams.sessions.values())[-1]
        newest.terminate(0, found.simulator.clock.now_ms())
        found.place("meanwhile")
        await until(lambda: len(found.told("succeeded")) == 3 and len(worker.connections()) == 1)
        assert found.told("expired") == []
        assert "meanwhile" in json.dumps(found.inbox.events())
        found.inbox.calls.clear()
        found.place("after")
        await until(found.inbox.kinds)


async def test_a_key_that_may_too_much_is_told(caplog):
    """Once the account is in, what its key may do beyond reading is said loudly, by the exchange's names."""
    async with rig() as found:
        found.simulator.accounts.named("main").keys["hmac"].permissions.update(("withdrawals", "spot"))
        await found.started()
        await until(lambda: "may do more than reading" in caplog.text)
        assert "(enableWithdrawals, enableSpotAndMarginTrading)" in caplog.text


async def test_test_networks_are_not_asked_for_permissions():
    """Only the exchange itself has ``apiRestrictions``; testnet would refuse the question."""
    async with rig() as found:
        worker = await found.started(key(environment="testnet"))
        await until(lambda: not worker._background)
        # the time, the subscription, the account, its open orders
        assert found.simulator.state()["requests"] == {"200": 4}


async def test_a_key_that_was_accepted_before_is_told_to_be_deleted():
    """The exchange says the same to every refused key; that this one was good from anywhere tells more."""
    async with rig(hasty(probe_seconds=0.05)) as found:
        worker = await found.started()
        await until(lambda: worker._accounts["main"]._permissions is not None)
        found.fault("revoke-key", account="main", key="hmac")
        await until(lambda: found.told("failed"))
        assert "it was deleted, or may read no longer; make a new one" in found.told("failed")[0].reason


async def test_refused_handshakes_are_not_stormed():
    """429 holds every attempt of the process for a minute at least."""
    async with rig() as found:
        found.fault("refuse-connections", status=429, seconds=60)
        worker = found.worker()
        await worker.start()
        await until(lambda: found.story.told("connection.retrying"))
        (retrying,) = found.story.told("connection.retrying")
        assert (retrying.code, retrying.retry_in >= 60.0) == (429, True)


@pytest.mark.parametrize("market", MARKETS)
async def test_a_pause_closes_and_a_resume_opens(market):
    """While paused nothing is open; after it the account is reconciled, as it was away."""
    async with rig() as found:
        worker = await found.started(market=market)
        await worker.pause("the buffer is full")
        assert found.story.told("connection.closed")[0].reason == "the buffer is full"
        await until(lambda: not found.open_connections())
        found.place("away", market=market)
        await worker.resume()
        await until(lambda: found.inbox.completed() == 2)
        assert "away" in found.inbox.answers("allOrders")[-1].payload.decode()


async def test_a_stop_leaves_nothing():
    """No task and no connection of the worker is left."""
    async with rig() as found:
        before = asyncio.all_tasks()
        worker = await found.started()
        worker.rotate()
        await worker.stop()
        assert worker.connections() == []
        await until(lambda: not found.open_connections())
        left = [task.get_name() for task in asyncio.all_tasks() - before if not task.done()]
        assert not [name for name in left if "account" in name or "connection" in name or "reconcile" in name]


async def test_a_key_that_was_mended_is_read_anew():
    """After a refusal the key is read again, and a changed one needs no restart; another environment's is not taken."""
    async with rig() as found:
        found.fault("revoke-key", account="main", key="hmac")
        offered = [key("ed", environment="testnet"), key("ed")]
        worker = found.worker(reload=lambda _: offered.pop(0) if len(offered) > 1 else offered[0])
        await worker.start()
        await until(found.inbox.completed)
        assert len(found.told("failed")) == 2
        assert found.told("succeeded")[0].reason == "by session.logon"


async def test_an_inbox_that_fails_ends_the_connection_loudly():
    """What the inbox could not take is not accounted for: the connection is replaced, and REST tells it again."""

    class Broken(Inbox):
        def received(self, message):
            if not self.calls or self.calls[-1] != "broke":
                self.calls.append("broke")
                raise RuntimeError("inbox")
            super().received(message)

    async with rig() as found:
        inbox = Broken()
        await found.worker(inbox=inbox).start()
        await until(inbox.completed)
        found.place("first")
        await until(lambda: inbox.completed() == 2)
        (closed,) = found.story.told("connection.closed")
        assert closed.reason == "the inbox failed: RuntimeError"


async def test_rest_that_fails_is_asked_again():
    """A reconciliation that found no host is said to be incomplete, and begins again from the same point."""
    async with rig() as found:
        await found.started(progress={"main": AccountProgress()})
        reachable = found.rest.hosts["spot"]
        found.rest.hosts["spot"] = replace(reachable, rest="http://127.0.0.1:9")
        found.cut()
        found.place("away")
        await until(lambda: sum(one[0] == "reconciled" and not one[3] for one in found.inbox.calls) >= 2)
        assert found.inbox.completed() == 1
        found.rest.hosts["spot"] = reachable
        await until(lambda: found.inbox.completed() == 2)
        assert "away" in found.inbox.answers("openOrders")[-1].payload.decode()


async def test_workers_that_cannot_be_are_refused():
    """A key of another environment's hosts, two accounts on a futures connection, spot without a WebSocket API."""
    async with rig() as found:
        with pytest.raises(ConfigError, match="a private connection carries one account"):
            found.worker(key(), key("other"), market="usdm")
        found.rest.hosts["spot"] = Hosts("ws://127.0.0.1:9", "http://127.0.0.1:9", None)
        with pytest.raises(ConfigError, match="no WebSocket API is known"):
            found.worker()
        found.rest.hosts["spot"] = HOSTS["prod"]["spot"]
        with pytest.raises(ConfigError, match="is a host of prod, and the environment is testnet"):
            found.worker(key(environment="testnet"))
