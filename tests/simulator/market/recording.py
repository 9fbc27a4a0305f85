"""A stretch of made-up market, with everything it emitted."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bridge.simulator.market import MarketExchange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.model import Market
    from bridge.simulator.exchange import Emission

START = 1_795_305_590_000
"""Ten seconds before a full hour, on 2026-11-21."""
FULL_HOUR = START + 10_000

Streams = dict["Market", list[str]]


class Recording:
    """An exchange and what it emitted, by market and stream."""

    def __init__(
        self, streams: Streams, *, seed: int = 1, symbols: int = 4, rate: float = 400, **settings: Any
    ) -> None:
        self.exchange = MarketExchange(seed, symbols, rate, START, **settings)
        self.emissions: list[Emission] = []
        self._by_stream: dict[tuple[Market, str], list[Emission]] = defaultdict(list)
        self._decoded: dict[tuple[Market, str], list[Any]] = defaultdict(list)
        for market, names in streams.items():
            for name in names:
                assert self.exchange.track(market, name)

    def run(self, until_ms: int) -> Recording:
        """Move on to ``until_ms`` and keep what happens."""
        for emission in self.exchange.advance(until_ms):
            self.emissions.append(emission)
            self._by_stream[emission.market, emission.stream].append(emission)
        return self

    def of(self, market: Market, stream: str) -> list[Emission]:
        """Return the emissions of one stream."""
        return self._by_stream[market, stream]

    def payloads(self, market: Market, stream: str) -> list[Any]:
        """Return the decoded payloads of one stream; tests read them and change nothing."""
        decoded = self._decoded[market, stream]
        decoded += [json.loads(emission.data) for emission in self.of(market, stream)[len(decoded) :]]
        return list(decoded)

    def get(self, market: Market, path: str, **params: object) -> Any:
        """Return the decoded body of a REST answer that must be 200."""
        answer = self.exchange.rest(market, "GET", path, {k: str(v) for k, v in params.items()}, START)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def refused(self, market: Market, path: str, **params: object) -> tuple[int, int]:
        """Return status and code of a REST request that must fail."""
        answer = self.exchange.rest(market, "GET", path, {k: str(v) for k, v in params.items()}, START)
        body = json.loads(answer.body)
        assert body["msg"]
        return answer.status, body["code"]


def of_symbols(symbols: Iterable[str], kinds: Iterable[str]) -> list[str]:
    """Return the stream names of every kind for every symbol."""
    kinds = list(kinds)
    return [f"{symbol.lower()}@{kind}" for symbol in symbols for kind in kinds]
