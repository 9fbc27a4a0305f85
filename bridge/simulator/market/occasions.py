"""What happens now and then: block trades, new leverage brackets, a contract that settles and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.exchange import Emission
from bridge.simulator.market.payloads import FuturesPayloads

if TYPE_CHECKING:
    from random import Random

    from bridge.model import Market
    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.world import World

_ALWAYS_TRADING = 6
"""Contracts at the head of a market that never change their status."""
_AWAY_MS = 30_000


class Occasions:
    """Draws, once a second, whether something rare happens.

    Attributes:
        contract_info: the tracked streams that tell of changed contracts.
    """

    def __init__(self, random: Random, world: World) -> None:
        self._random, self._world = random, world
        self._spot = list(world.listings["spot"].values())
        last = [list(world.listings[market].values())[_ALWAYS_TRADING:][-1:] for market in _FUTURES]
        self._changeable = [listing for found in last for listing in found]
        self._away: dict[Listing, int] = {}
        self.contract_info: list[tuple[Market, str]] = []

    def each_second(self, now: int) -> None:
        """Let happen what is drawn for the second that begins at ``now``."""
        bits = self._random.getrandbits(96)
        if not bits & 31:
            self._spot[(bits >> 32 & 0xFFFF) * len(self._spot) >> 16].trade_block(bits >> 48, now)
        if not bits >> 5 & 31:
            futures = self._world.futures
            listing = futures[(bits >> 32 & 0xFFFF) * len(futures) >> 16]
            self._tell(listing, _brackets(bits >> 48), now)
        for listing, since in list(self._away.items()):
            if now - since >= _AWAY_MS:
                del self._away[listing]
                self._change(listing, "TRADING", now)
        if self._changeable and not bits >> 10 & 63:
            listing = self._changeable[bits >> 16 & 0xFF & len(self._changeable) - 1]
            if listing not in self._away:
                self._away[listing] = now
                self._change(listing, "PRE_SETTLE", now)

    def _change(self, listing: Listing, status: str, now: int) -> None:
        listing.status = status
        self._tell(listing, "", now)

    def _tell(self, listing: Listing, brackets: str, now: int) -> None:
        payloads = listing.payloads
        if not self.contract_info or not isinstance(payloads, FuturesPayloads):
            return
        data = payloads.contract_info(now, listing.status, listing.onboard_ms, brackets)
        for market, stream in self.contract_info:
            self._world.out.append(Emission(market, stream, data, None, None, now))


_FUTURES: tuple[Market, ...] = ("usdm", "coinm")


def _brackets(bits: int) -> str:
    leverage, cap = 20 + (bits & 3) * 25, 5_000 * (1 + (bits >> 2 & 7))
    return (
        f'[{{"bs":1,"bnf":0,"bnc":{cap},"mmr":0.01,"cf":0,"mi":21,"ma":{leverage}}},'
        f'{{"bs":2,"bnf":{cap},"bnc":{cap * 5},"mmr":0.025,"cf":{cap * 15 // 1000},"mi":1,"ma":20}}]'
    )
