"""The workers of all accounts of a process, and who shares a connection with whom."""

from __future__ import annotations

import asyncio
import random as random_module
from typing import TYPE_CHECKING

from bridge.binance.signed_rest import SignedRest
from bridge.binance.user_worker import UserWorker

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

    from bridge.binance.clock import Clock
    from bridge.binance.connection import ConnectionView
    from bridge.binance.rest import RestClient
    from bridge.binance.signing import AccountKey
    from bridge.core.account_progress import AccountProgress
    from bridge.core.backoff import AttemptBudget
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.private_settings import PrivateSettings
    from bridge.model import Market, PrivateInbox
    from bridge.telemetry import Telemetry


class PrivateStreams:
    """Listens to accounts; to its user it is what a pool is for public streams.

    Args:
        accounts: name and market of each, as configured.
        keys: what each account signs with, by name; one key serves all markets of its account.
        inbox: takes events and answers.
        rest: sends private requests, within the weight that all share.
        settings: times and sizes of connections.
        own: times and sizes of private streams.
        telemetry: told of everything that happens.
        budget: attempts to connect; the one of the process.
        progress: what is known of accounts from before, by name and market.
        pairs: base and quote asset of spot symbols, as known at the moment of asking.
        reload: reads an account's key anew, once it was refused.
        clock: the clocks.
        random: draws between 0 and 1, for jitter.
        tls: TLS settings other than the system's.

    Attributes:
        rest: private REST of all accounts.

    Raises:
        ConfigError: as :class:`~bridge.binance.user_worker.UserWorker`.
    """

    def __init__(
        self,
        accounts: Iterable[tuple[str, Market]],
        keys: Mapping[str, AccountKey],
        *,
        inbox: PrivateInbox,
        rest: RestClient,
        settings: ConnectionSettings,
        own: PrivateSettings,
        telemetry: Telemetry,
        budget: AttemptBudget,
        progress: Mapping[tuple[str, Market], AccountProgress] | None = None,
        pairs: Callable[[], Mapping[str, tuple[str, str]]] = dict,
        reload: Callable[[str], AccountKey] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.rest = SignedRest(rest, own, telemetry, clock)
        known = progress or {}
        self._workers = [
            UserWorker(
                market,
                [keys[name] for name in names],
                inbox=inbox,
                rest=self.rest,
                hosts=rest.hosts[market],
                settings=settings,
                own=own,
                telemetry=telemetry,
                budget=budget,
                progress={name: known[name, market] for name in names if (name, market) in known},
                pairs=pairs,
                reload=reload,
                clock=clock,
                random=random,
                tls=tls,
            )
            for market, names in _shared(accounts, own.accounts_per_connection)
        ]

    async def start(self) -> None:
        """Begin. Returns at once; lifecycle events and ``connections()`` tell more."""
        for worker in self._workers:
            await worker.start()

    async def stop(self) -> None:
        """Close everything; when it returns, no task and no connection is left."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def pause(self, reason: str) -> None:
        """Close all connections and open none until :meth:`resume`; each one's end tells ``reason``."""
        await asyncio.gather(*(worker.pause(reason) for worker in self._workers))

    async def resume(self) -> None:
        """Open the connections again."""
        await asyncio.gather(*(worker.resume() for worker in self._workers))

    def rotate(self, connection_id: str | None = None) -> int:
        """Replace one connection (its id as shown), or all, make before break; return how many were asked."""
        return sum(worker.rotate(connection_id) for worker in self._workers)

    def connections(self) -> list[ConnectionView]:
        """Return what may be shown of each connection."""
        return [view for worker in self._workers for view in worker.connections()]

    def absent(self) -> list[str]:
        """Return the accounts that are on no connection at the moment."""
        return [account for worker in self._workers for account in worker.absent()]


def _shared(
    accounts: Iterable[tuple[str, Market]], per_connection: int
) -> list[tuple[Market, tuple[str, ...]]]:
    """Return who is on which connection. Futures have a connection for each listen key."""
    by_market: dict[Market, list[str]] = {}
    for name, market in accounts:
        by_market.setdefault(market, []).append(name)
    return [
        (market, tuple(names[first : first + size]))
        for market, names in by_market.items()
        for size in [per_connection if market == "spot" else 1]
        for first in range(0, len(names), size)
    ]
