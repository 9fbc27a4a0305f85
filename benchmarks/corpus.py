"""The market that benchmarks are run on: seeded spot messages, each written as Binance writes it.

400 symbols whose shares follow Zipf's law (exponent 1), and of the messages 55 % ``bookTicker``, 25 % ``aggTrade``
and ``trade``, 15 % ``depth@100ms`` of 10 to 40 levels, 3 % ``kline_1m`` and 2 % ``ticker``; some 280 bytes each.
Prices walk by ticks, quantities are mostly of few digits: of 300,000 messages, nine in ten numbers were there before,
about as many as of the recorded traffic of as many messages a symbol. Ids follow each other without a hole, so
whoever checks them finds nothing missing.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANNELS = ("book-ticker", "agg-trade", "trade", "depth@100ms", "kline_1m", "ticker")
"""What to subscribe to, in the bridge's terms."""

SUFFIXES = ("@bookTicker", "@aggTrade", "@trade", "@depth@100ms", "@kline_1m", "@ticker")
"""The same in the exchange's, in the same order."""

SHARES = (0.55, 0.125, 0.125, 0.15, 0.03, 0.02)
_MINUTE_MS = 60_000


class Message(NamedTuple):
    """One message of the exchange: the stream's name and the whole payload, its wrapper included."""

    stream: str
    payload: bytes


def symbol_names(count: int) -> list[str]:
    """Return the symbols, the most traded first."""
    return [f"S{number:03}USDT" for number in range(count)]


def exchange_info(symbols: int) -> bytes:
    """Return what spot's ``exchangeInfo`` says of them, as far as a bridge reads it."""
    listed = [
        {
            "symbol": name,
            "status": "TRADING",
            "baseAsset": name.removesuffix("USDT"),
            "quoteAsset": "USDT",
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "isSpotTradingAllowed": True,
            "permissionSets": [["SPOT"]],
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": "0.000001",
                    "maxPrice": "1000000",
                    "tickSize": "0.000001",
                },
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000000", "stepSize": "0.00001"},
            ],
        }
        for name in symbol_names(symbols)
    ]
    answer = {"timezone": "UTC", "serverTime": 1_760_000_000_000, "rateLimits": [], "symbols": listed}
    return json.dumps(answer).encode()


@dataclass(slots=True)
class _Symbol:
    """Where the market of a symbol stands. Prices count ticks, quantities lots."""

    name: str
    decimals: int
    lot_decimals: int
    price: int
    ids: dict[str, int] = field(default_factory=dict)
    open_price: int = 0
    volume: int = 1

    def next_id(self, kind: str, step: int = 1) -> int:
        """Return the next id of a kind."""
        found = self.ids[kind] = self.ids.get(kind, 1_000_000_000) + step
        return found

    def shown_price(self, ticks: int) -> str:
        """Return a price as spot writes it: eight decimals."""
        whole, rest = divmod(ticks * 10 ** (8 - self.decimals), 10**8)
        return f"{whole}.{rest:08}"

    def shown_quantity(self, lots: int) -> str:
        """Return a quantity as spot writes it."""
        whole, rest = divmod(lots * 10 ** (8 - self.lot_decimals), 10**8)
        return f"{whole}.{rest:08}"


class Corpus:
    """An endless run of messages.

    Args:
        symbols: how many.
        seed: the same seed gives the same messages.
        start_ms: the event time of the first, milliseconds.
        per_ms: how many messages share a millisecond.
    """

    def __init__(
        self, *, symbols: int = 400, seed: int = 1, start_ms: int = 1_760_000_000_000, per_ms: float = 100.0
    ) -> None:
        self._random = random.Random(seed)
        self._symbols = [self._listed(name) for name in symbol_names(symbols)]
        self._weights = list(accumulate(1 / rank for rank in range(1, symbols + 1)))
        self._start, self._per_ms = start_ms, per_ms
        self._kinds: list[Callable[[_Symbol, int], str]] = [
            self._book_ticker, self._agg_trade, self._trade, self._depth, self._kline, self._ticker,
        ]  # fmt: skip

    def messages(self, count: int) -> Iterator[Message]:
        """Yield the next messages."""
        chosen = self._random.choices(self._symbols, cum_weights=self._weights, k=count)
        kinds = self._random.choices(range(len(SHARES)), weights=SHARES, k=count)
        for number, (symbol, kind) in enumerate(zip(chosen, kinds, strict=True)):
            symbol.price = max(1000, symbol.price + self._random.choice((-1, 0, 0, 0, 1)))
            stream = symbol.name.lower() + SUFFIXES[kind]
            data = self._kinds[kind](symbol, self._start + int(number / self._per_ms))
            yield Message(stream, f'{{"stream":"{stream}","data":{data}}}'.encode())
        self._start += int(count / self._per_ms)

    def _listed(self, name: str) -> _Symbol:
        pick = self._random
        symbol = _Symbol(name, pick.randint(1, 6), pick.randint(0, 5), pick.randint(10_000, 900_000))
        symbol.open_price = symbol.price
        return symbol

    def _quantity(self, symbol: _Symbol) -> str:
        digits = self._random.choice((1, 2, 3, 3, 4, 4, 5))
        return symbol.shown_quantity(self._random.randrange(10 ** (digits - 1), 10**digits))

    def _book_ticker(self, s: _Symbol, now: int) -> str:  # noqa: ARG002 - spot's has no time
        return (
            f'{{"u":{s.next_id("u")},"s":"{s.name}","b":"{s.shown_price(s.price)}","B":"{self._quantity(s)}",'
            f'"a":"{s.shown_price(s.price + 1)}","A":"{self._quantity(s)}"}}'
        )

    def _agg_trade(self, s: _Symbol, now: int) -> str:
        first = s.next_id("f")
        return (
            f'{{"e":"aggTrade","E":{now},"s":"{s.name}","a":{s.next_id("a")},"p":"{s.shown_price(s.price)}",'
            f'"q":"{self._quantity(s)}","f":{first},"l":{s.next_id("f", 2)},"T":{now - 1},"m":{self._flag()},"M":true}}'
        )

    def _trade(self, s: _Symbol, now: int) -> str:
        return (
            f'{{"e":"trade","E":{now},"s":"{s.name}","t":{s.next_id("t")},"p":"{s.shown_price(s.price)}",'
            f'"q":"{self._quantity(s)}","T":{now - 1},"m":{self._flag()},"M":true}}'
        )

    def _depth(self, s: _Symbol, now: int) -> str:
        levels = self._random.randint(10, 40)
        bids = self._random.randint(0, levels)
        first = s.ids.get("d", 1_000_000_000) + 1
        return (
            f'{{"e":"depthUpdate","E":{now},"s":"{s.name}","U":{first},"u":{s.next_id("d", levels)},'
            f'"b":[{self._levels(s, bids, -1)}],"a":[{self._levels(s, levels - bids, 1)}]}}'
        )

    def _levels(self, s: _Symbol, count: int, side: int) -> str:
        distances = sorted(self._random.sample(range(200), count))
        quantities = ("0.00000000" if self._random.random() < 0.3 else self._quantity(s) for _ in distances)
        return ",".join(
            f'["{s.shown_price(s.price + side * distance)}","{quantity}"]'
            for distance, quantity in zip(distances, quantities, strict=True)
        )

    def _kline(self, s: _Symbol, now: int) -> str:
        opened = now - now % _MINUTE_MS
        s.volume += self._random.randrange(1, 1000)
        volume = s.shown_quantity(s.volume)
        return (
            f'{{"e":"kline","E":{now},"s":"{s.name}","k":{{"t":{opened},"T":{opened + _MINUTE_MS - 1},"s":"{s.name}",'
            f'"i":"1m","f":{s.ids.get("t", 0)},"L":{s.ids.get("t", 0) + 9},"o":"{s.shown_price(s.open_price)}",'
            f'"c":"{s.shown_price(s.price)}","h":"{s.shown_price(s.price + 40)}","l":"{s.shown_price(s.price - 40)}",'
            f'"v":"{volume}","n":100,"x":false,"q":"{volume}","V":"{volume}","Q":"{volume}","B":"0"}}}}'
        )

    def _ticker(self, s: _Symbol, now: int) -> str:
        s.volume += self._random.randrange(1, 1000)
        volume, price = s.shown_quantity(s.volume), s.shown_price(s.price)
        return (
            f'{{"e":"24hrTicker","E":{now},"s":"{s.name}","p":"{s.shown_price(40)}","P":"0.{self._random.randrange(1000):03}",'
            f'"w":"{price}","x":"{s.shown_price(s.open_price)}","c":"{price}","Q":"{self._quantity(s)}","b":"{price}",'
            f'"B":"{self._quantity(s)}","a":"{s.shown_price(s.price + 1)}","A":"{self._quantity(s)}",'
            f'"o":"{s.shown_price(s.open_price)}","h":"{s.shown_price(s.price + 40)}",'
            f'"l":"{s.shown_price(s.price - 40)}","v":"{volume}","q":"{volume}",'
            f'"O":{now - 86_400_000},"C":{now},"F":{s.ids.get("t", 0)},'
            f'"L":{s.ids.get("t", 0) + 9},"n":10}}'
        )

    def _flag(self) -> str:
        return self._random.choice(("true", "false"))
