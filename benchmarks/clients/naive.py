"""The bridge one writes at home in an evening: websockets, json, dictionaries, fastavro, two sends a message."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import time
from typing import Any

import fastavro
import websockets
from aiokafka import AIOKafkaProducer

SUFFIXES = ("@bookTicker", "@aggTrade", "@trade", "@depth@100ms", "@kline_1m", "@ticker")
STREAMS_PER_CONNECTION = 200


def record(name: str, *fields: str) -> Any:
    """Return a schema: each field is ``name`` of a text or ``name:type``."""
    parts = [field.partition(":") for field in fields]
    return fastavro.parse_schema(
        {"type": "record", "name": name, "fields": [{"name": n, "type": t or "string"} for n, _, t in parts]}
    )


BOOK = fastavro.parse_schema(
    {
        "type": "record",
        "name": "OrderBook",
        "fields": [
            {"name": "symbol", "type": "string"},
            {"name": "receivedAt", "type": "long"},
            {"name": "sequence", "type": "long"},
            {"name": "firstSequence", "type": "long"},
            {"name": "timestamp", "type": "long"},
            {"name": "bids", "type": {"type": "array", "items": {"type": "array", "items": "string"}}},
            {"name": "asks", "type": {"type": "array", "items": {"type": "array", "items": "string"}}},
        ],
    }
)
BID_ASK = record(
    "BidAsk", "symbol", "receivedAt:long", "sequence:long", "bid", "bidVolume", "ask", "askVolume"
)
TRADE = record(
    "Trade", "symbol", "receivedAt:long", "id:long", "timestamp:long", "side", "price", "amount", "eventTime:long",
    "firstTradeId:long", "lastTradeId:long",
)  # fmt: skip
OHLCV = record(
    "Ohlcv", "symbol", "receivedAt:long", "timestamp:long", "timeframe", "open", "high", "low", "close", "volume",
    "eventTime:long", "closed:boolean", "closeTime:long", "quoteVolume", "trades:long", "takerBuyBaseVolume",
    "takerBuyQuoteVolume", "firstTradeId:long", "lastTradeId:long",
)  # fmt: skip
TICKER = record(
    "Ticker", "symbol", "receivedAt:long", "timestamp:long", "high", "low", "bid", "bidVolume", "ask", "askVolume",
    "vwap", "open", "close", "previousClose", "change", "percentage", "baseVolume", "quoteVolume", "eventTime:long",
    "windowOpenTime:long", "windowCloseTime:long", "firstTradeId:long", "lastTradeId:long", "trades:long", "lastAmount",
)  # fmt: skip


def convert(kind: str, m: dict[str, Any], now: int) -> tuple[str, str, Any, dict[str, Any]]:
    """Return channel, structure, schema and record of a message."""
    base = {"symbol": m["s"].removesuffix("USDT") + "/USDT", "receivedAt": now}
    if kind == "bookTicker":
        more = {"sequence": m["u"], "bid": m["b"], "bidVolume": m["B"], "ask": m["a"], "askVolume": m["A"]}
        return "book-ticker", "bid-ask", BID_ASK, base | more
    if kind in ("aggTrade", "trade"):
        more = {
            "id": m["a"] if kind == "aggTrade" else m["t"], "timestamp": m["T"], "side": "sell" if m["m"] else "buy",
            "price": m["p"], "amount": m["q"], "eventTime": m["E"], "firstTradeId": m.get("f", 0),
            "lastTradeId": m.get("l", 0),
        }  # fmt: skip
        return "agg-trade" if kind == "aggTrade" else "trade", "trade", TRADE, base | more
    if kind.startswith("depth"):
        more = {
            "sequence": m["u"],
            "firstSequence": m["U"],
            "timestamp": m["E"],
            "bids": m["b"],
            "asks": m["a"],
        }
        return "depth", "order-book", BOOK, base | more
    if kind.startswith("kline"):
        k = m["k"]
        more = {
            "timestamp": k["t"], "timeframe": k["i"], "open": k["o"], "high": k["h"], "low": k["l"], "close": k["c"],
            "volume": k["v"], "eventTime": m["E"], "closed": k["x"], "closeTime": k["T"], "quoteVolume": k["q"],
            "trades": k["n"], "takerBuyBaseVolume": k["V"], "takerBuyQuoteVolume": k["Q"], "firstTradeId": k["f"],
            "lastTradeId": k["L"],
        }  # fmt: skip
        return "kline", "ohlcv", OHLCV, base | more
    more = {
        "timestamp": m["C"], "high": m["h"], "low": m["l"], "bid": m["b"], "bidVolume": m["B"], "ask": m["a"],
        "askVolume": m["A"], "vwap": m["w"], "open": m["o"], "close": m["c"], "previousClose": m["x"],
        "change": m["p"], "percentage": m["P"], "baseVolume": m["v"], "quoteVolume": m["q"], "eventTime": m["E"],
        "windowOpenTime": m["O"], "windowCloseTime": m["C"], "firstTradeId": m["F"], "lastTradeId": m["L"],
        "trades": m["n"], "lastAmount": m["Q"],
    }  # fmt: skip
    return "ticker", "ticker", TICKER, base | more


async def read(url: str, names: list[str], producer: AIOKafkaProducer) -> None:
    """Bridge a connection."""
    async with websockets.connect(f"{url}/stream", compression=None) as connection:
        await connection.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        async for text in connection:
            message = json.loads(text)
            if "stream" not in message:
                continue
            now = time.time_ns() // 1000
            data, (_, _, kind) = message["data"], message["stream"].partition("@")
            channel, structure, schema, unified = convert(kind, data, now)
            key = data["s"].encode()
            out = io.BytesIO()
            fastavro.schemaless_writer(out, schema, unified)
            raw = text.encode() if isinstance(text, str) else text
            await producer.send(f"raw.{channel}", raw, key=key)
            await producer.send(f"unified.{structure}", out.getvalue(), key=key)


async def main() -> None:
    """Bridge until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--symbols", type=int, required=True)
    asked = parser.parse_args()
    producer = AIOKafkaProducer(
        bootstrap_servers=asked.bootstrap_servers, enable_idempotence=True, acks="all", linger_ms=5
    )
    await producer.start()
    names = [f"s{number:03}usdt{suffix}" for number in range(asked.symbols) for suffix in SUFFIXES]
    await asyncio.gather(
        *(
            read(asked.url, names[at : at + STREAMS_PER_CONNECTION], producer)
            for at in range(0, len(names), STREAMS_PER_CONNECTION)
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
