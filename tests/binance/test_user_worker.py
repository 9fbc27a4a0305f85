"""Workers that listen to accounts, over real sockets against the simulator's private side."""

from __future__ import annotations

import pytest

from tests.binance.private import key, rig
from tests.binance.scripted import until


@pytest.mark.parametrize("kind", ["hmac", "rsa", "ed"])
async def test_every_kind_of_key_is_let_in_on_spot(kind):
    """Ed25519 logs on, the others subscribe with a signature; events come with account, connection and numbers."""
    async with rig() as found:
        await found.started(key(kind))
        (entered,) = found.story.told("authentication.succeeded")
        how = "by session.logon" if kind == "ed" else "by a signed subscription"
        assert (entered.account, entered.market, entered.reason) == ("main", "spot", how)
        found.place("first")
        await until(lambda: len(found.inbox.events()) == 2)
        assert found.inbox.kinds() == ["executionReport", "outboundAccountPosition"]
        first, second = [one for one in found.inbox.calls if hasattr(one, "sequence")]
        assert (first.account, first.market, first.connection_id) == ("main", "spot", entered.connection_id)
        # the answers before them are counted and not delivered: they hold the key
        assert (first.sequence, second.sequence) == ((2, 3) if kind == "ed" else (1, 2))
        assert first.payload.startswith(b'{"subscriptionId":0,"event":{"e":"executionReport"')


@pytest.mark.parametrize("market", ["usdm", "coinm"])
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
