"""cryptofeed's own Kafka backend: as it comes, or tuned to one topic. Runs in an environment of its own."""

from __future__ import annotations

import argparse

from cryptofeed import FeedHandler
from cryptofeed.backends.kafka import BookKafka, CandlesKafka, KafkaCallback, TickerKafka, TradeKafka
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import CANDLES, L2_BOOK, TICKER, TRADES
from cryptofeed.exchanges import Binance

BACKENDS = {TICKER: TickerKafka, TRADES: TradeKafka, L2_BOOK: BookKafka, CANDLES: CandlesKafka}


def tuned(backend: type[KafkaCallback]) -> type[KafkaCallback]:
    """Return a backend that writes to one topic by symbol."""

    class Tuned(backend):  # type: ignore[valid-type, misc]
        def topic(self, data: dict[str, str]) -> str:  # noqa: ARG002 - one for all
            return "unified.all"

        def partition_key(self, data: dict[str, str]) -> bytes:
            return data["symbol"].encode()

    return Tuned


async def open_plain(connection: WSAsyncConn) -> None:
    """Open a connection without TLS, which all others do without too; its constructor insists on ``wss``."""
    connection.address = connection.address.replace("wss://", "ws://")
    await open_encrypted(connection)


open_encrypted = WSAsyncConn._open  # noqa: SLF001
WSAsyncConn._open = open_plain  # noqa: SLF001


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    asked = parser.parse_args()
    Binance.websocket_endpoints = [WebsocketEndpoint(asked.url.replace("ws://", "wss://"))]
    routes = Routes("/api/v3/exchangeInfo", l2book="/api/v3/depth?symbol={}&limit={}")
    Binance.rest_endpoints = [RestEndpoint(asked.rest_url, routes=routes)]
    options = {"bootstrap_servers": asked.bootstrap_servers}
    if asked.tuned:
        more = {"overflow": "block", "batch_max": 5000, "max_batch_size": 256 * 1024, "linger_ms": 5}
        callbacks = {channel: tuned(backend)(**options, **more) for channel, backend in BACKENDS.items()}
    else:
        callbacks = {channel: backend(**options) for channel, backend in BACKENDS.items()}
    symbols = [f"S{number:03}-USDT" for number in range(asked.symbols)]
    handler = FeedHandler(config={"log": {"filename": "cryptofeed.log", "level": "INFO"}, "uvloop": True})
    handler.add_feed(
        Binance(symbols=symbols, channels=list(BACKENDS), callbacks=callbacks, candle_closed_only=False)
    )
    handler.run()


if __name__ == "__main__":
    main()
