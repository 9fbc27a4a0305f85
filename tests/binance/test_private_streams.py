"""The workers of all accounts of a process."""

from __future__ import annotations

import pytest

from bridge.binance.pool import attempt_budget
from bridge.binance.private_streams import PrivateStreams
from bridge.core.account_progress import AccountProgress, SymbolProgress
from tests.binance.private import hasty, key, rig
from tests.binance.scripted import until

ACCOUNTS = [("main", "spot"), ("other", "spot"), ("main", "usdm"), ("other", "usdm"), ("main", "coinm")]


def streams(found, own, **options):
    """Return the workers of five accounts, not started."""
    return PrivateStreams(
        ACCOUNTS,
        {"main": key(), "other": key("other")},
        inbox=found.inbox,
        rest=found.rest,
        settings=found.settings,
        own=own,
        telemetry=found.story.telemetry,
        budget=attempt_budget(found.settings),
        random=lambda: 0.0,
        **options,
    )


@pytest.mark.parametrize(("together", "connections"), [(1, 5), (2, 4)])
async def test_every_account_is_listened_to_on_every_market(together, connections):
    """Spot accounts share connections as far as they may, futures have one each; one call ends all of them."""
    own = hasty(accounts_per_connection=together)
    async with rig(own) as found:
        private = streams(found, own)
        await private.start()
        try:
            await until(lambda: sum(found.inbox.completed(name) for name in ("main", "other")) == 5)
            views = private.connections()
            assert len(views) == found.open_connections() == connections
            shared = [view.streams for view in views if view.market == "spot"]
            assert shared == ([("main",), ("other",)] if together == 1 else [("main", "other")])
            assert private.rotate(views[0].connection_id) == 1
            assert private.rotate() == connections - 1
            await until(lambda: len(found.story.told("connection.closed")) == connections)
            await private.pause("the buffer is full")
            await until(lambda: not found.open_connections())
            await private.resume()
            await until(lambda: len(private.connections()) == connections)
        finally:
            await private.stop()
        assert private.connections() == []
        await until(lambda: not found.open_connections())


async def test_what_is_known_is_known_of_one_market():
    """Progress from before is handed to the worker of its account and market, and to no other."""
    async with rig() as found:
        known = AccountProgress({"BTCUSDT": SymbolProgress(7, 70)})
        private = streams(found, hasty(), progress={("main", "spot"): known})
        await private.start()
        try:
            await until(lambda: sum(found.inbox.completed(name) for name in ("main", "other")) == 5)
        finally:
            await private.stop()
        asked = [one.params for one in found.inbox.answers("allOrders") if "symbol" in one.params]
        assert asked == [{"symbol": "BTCUSDT", "limit": 1000, "orderId": 7}]
