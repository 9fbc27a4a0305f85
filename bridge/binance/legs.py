"""Redundancy: two connections carry each stream, to different hosts where the market has two.

Each leg is a :class:`~bridge.binance.pool.ConnectionPool` of its own, with its own hosts, back-off and rotation, so
that nothing that befalls one touches the other. Both deliver to the same ``Receive``: the sequencers take what comes
first and drop the rest, as they do while a rotation overlaps. The legs share the budget of attempts, which the
exchange counts per IP, and the looks at REST.
"""

from __future__ import annotations

import asyncio
import random as random_module
from typing import TYPE_CHECKING

from bridge.binance.pool import ConnectionPool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from bridge.binance.clock import Clock
    from bridge.binance.connection import ConnectionView
    from bridge.binance.hosts import Hosts
    from bridge.binance.rest import RestClient
    from bridge.core.backoff import AttemptBudget
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.model import Market, Receive, Stream
    from bridge.telemetry import Telemetry


class RedundantPools:
    """The connections of one market, on one leg or two; to its user it is one pool.

    Args:
        market: whose streams these are.
        streams: the streams wanted at first.
        redundancy: how many connections carry each stream: 1 or 2.
        hosts: the market's base URLs; each leg takes its own of them (:meth:`~bridge.binance.hosts.Hosts.legs`).
        settings, receive, telemetry, rest, budget, clock, random, tls: as the pool takes them.

    Attributes:
        pools: the pool of each leg, the first leg's first.
    """

    def __init__(
        self,
        market: Market,
        streams: Iterable[Stream],
        *,
        redundancy: int,
        settings: ConnectionSettings,
        receive: Receive,
        telemetry: Telemetry,
        rest: RestClient,
        hosts: Hosts,
        budget: AttemptBudget,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        wanted = list(streams)
        self.market = market
        self.pools = tuple(
            ConnectionPool(
                market,
                wanted,
                settings=settings,
                receive=receive,
                telemetry=telemetry,
                rest=rest,
                hosts=own,
                budget=budget,
                clock=clock,
                random=random,
                tls=tls,
                leg=number,
            )
            for number, own in enumerate(hosts.legs(redundancy), start=1)
        )
        if len(self.pools) == 2:
            first, second = self.pools
            first.others, second.others = second.newest, first.newest
            second.look = first.look  # one pace of questions for the market

    async def start(self) -> None:
        """Begin to open connections; see :meth:`ConnectionPool.start`."""
        for pool in self.pools:
            await pool.start()

    async def add(self, streams: Iterable[Stream]) -> None:
        """Carry more streams on every leg."""
        added = list(streams)
        for pool in self.pools:
            await pool.add(added)

    async def remove(self, streams: Iterable[Stream]) -> None:
        """Carry streams no longer, on no leg."""
        removed = list(streams)
        for pool in self.pools:
            await pool.remove(removed)

    def rotate(self, connection_id: str | None = None) -> int:
        """Replace one connection (its id as shown), or all of all legs; return how many were asked."""
        return sum(pool.rotate(connection_id) for pool in self.pools)

    async def pause(self, reason: str) -> None:
        """Close all connections and open none until :meth:`resume`."""
        await asyncio.gather(*(pool.pause(reason) for pool in self.pools))

    async def resume(self) -> None:
        """Open the connections again."""
        await asyncio.gather(*(pool.resume() for pool in self.pools))

    async def stop(self, timeout: float = 10.0) -> None:
        """Close everything; see :meth:`ConnectionPool.stop`."""
        await asyncio.gather(*(pool.stop(timeout) for pool in self.pools))

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection of all legs."""
        return [view for pool in self.pools for view in pool.connections()]
