"""ccxt.pro's ``watch_*``, a hundred symbols a call, and JSON by aiokafka. Runs in an environment of its own."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any

import ccxt.pro
import orjson
import uvloop
from aiokafka import AIOKafkaProducer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SYMBOLS_PER_CALL = 100


async def published(
    watch: Callable[[], Awaitable[Any]], records: Callable[[Any], list[tuple[str, Any]]], topic: str,
    producer: AIOKafkaProducer,
) -> None:  # fmt: skip
    """Publish what a call gives, again and again."""
    while True:
        received = await watch()
        now = time.time_ns() // 1000
        for symbol, record in records(received):
            value = orjson.dumps({"receivedAt": now, "record": record}, default=dict)
            await producer.send(topic, value, key=symbol.encode())


def by_symbol(tickers: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return tickers one by one."""
    return list(tickers.items())


def trades(found: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return trades one by one."""
    return [(trade["symbol"], trade) for trade in found]


def book(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return a book."""
    return [(found["symbol"], {**found, "bids": list(found["bids"][:40]), "asks": list(found["asks"][:40])})]


def candles(found: dict[str, dict[str, list[Any]]]) -> list[tuple[str, Any]]:
    """Return candles one by one."""
    return [(symbol, candle) for symbol, each in found.items() for all_ in each.values() for candle in all_]


async def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--symbols", type=int, required=True)
    asked = parser.parse_args()
    producer = AIOKafkaProducer(
        bootstrap_servers=asked.bootstrap_servers, max_batch_size=256 * 1024, linger_ms=5
    )
    await producer.start()
    exchange = ccxt.pro.binance(
        {
            "enableRateLimit": False,
            "options": {"fetchMarkets": {"types": ["spot"]}, "watchOrderBookLimit": 100},
        }
    )
    exchange.urls["api"]["public"] = f"{asked.rest_url}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"{asked.url}/ws"
    await exchange.load_markets()
    symbols = [f"S{number:03}/USDT" for number in range(asked.symbols)]
    jobs = []
    for at in range(0, len(symbols), SYMBOLS_PER_CALL):
        mine = symbols[at : at + SYMBOLS_PER_CALL]
        pairs = [[symbol, "1m"] for symbol in mine]
        jobs += [
            published(lambda mine=mine: exchange.watch_bids_asks(mine), by_symbol, "unified.bid-ask", producer),
            published(lambda mine=mine: exchange.watch_trades_for_symbols(mine), trades, "unified.trade", producer),
            published(
                lambda mine=mine: exchange.watch_order_book_for_symbols(mine), book, "unified.order-book", producer
            ),
            published(lambda pairs=pairs: exchange.watch_ohlcv_for_symbols(pairs), candles, "unified.ohlcv", producer),
            published(lambda mine=mine: exchange.watch_tickers(mine), by_symbol, "unified.ticker", producer),
        ]  # fmt: skip
    await asyncio.gather(*jobs)


if __name__ == "__main__":
    uvloop.run(main())
