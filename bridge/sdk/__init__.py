"""Consume what a bridge publishes: typed records, exact decimals, live and from any time.

::

    from bridge.sdk import connect

    async with connect("localhost:9092", environment="prod") as client:
        async for trade in client.trades("BTC/USDT", start="-15m"):  # history, then live, without a seam
            print(trade.datetime, trade.side, trade.amount, trade.price)

:mod:`bridge.sdk.sync` is the same without ``await``, for notebooks; :mod:`bridge.sdk.testing` feeds a client
from a list or a file. docs/how-to/consume.md goes through all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.sdk.book import Cost, Depth, LiveBook
from bridge.sdk.book_state import Change
from bridge.sdk.client import Client, Structure
from bridge.sdk.reading import GapMarker, Records
from bridge.sdk.record import Record
from bridge.sdk.records import (
    AccountEvent,
    Balance,
    BidAsk,
    Coverage,
    DeadLetter,
    FundingRate,
    Gap,
    Instrument,
    LedgerEntry,
    Level,
    Lifecycle,
    Liquidation,
    MarkPrice,
    MyTrade,
    Ohlcv,
    Order,
    OrderBook,
    Position,
    Raw,
    Ticker,
    Trade,
)
from bridge.sdk.source import CaughtUp
from bridge.sdk.table import OrderTable, Table
from bridge.sdk.topics import Topics

if TYPE_CHECKING:
    from bridge.model import Environment

__all__ = [
    "AccountEvent",
    "Balance",
    "BidAsk",
    "CaughtUp",
    "Change",
    "Client",
    "Cost",
    "Coverage",
    "DeadLetter",
    "Depth",
    "FundingRate",
    "Gap",
    "GapMarker",
    "Instrument",
    "LedgerEntry",
    "Level",
    "Lifecycle",
    "Liquidation",
    "LiveBook",
    "MarkPrice",
    "MyTrade",
    "Ohlcv",
    "Order",
    "OrderBook",
    "OrderTable",
    "Position",
    "Raw",
    "Record",
    "Records",
    "Structure",
    "Table",
    "Ticker",
    "Topics",
    "Trade",
    "connect",
]


def connect(
    bootstrap_servers: str,
    *,
    environment: Environment,
    namespace: str = "binance",
    timeout: float = 10,
    **kafka_options: Any,
) -> Client:
    """Return a client for the records of one environment; use it with ``async with``.

    Args:
        bootstrap_servers: ``host:port``, several separated by commas.
        environment: ``prod``, ``demo`` or ``testnet``.
        namespace: first part of the topics' names; another one for what a replay has written beside live.
        timeout: seconds that Kafka may take to answer when a reading begins.
        kafka_options: ``security_protocol``, ``sasl_mechanism``, ``sasl_username``, ``sasl_password``,
            ``ssl_cafile``, ``ssl_certfile``, ``ssl_keyfile``, as in the bridge's own configuration.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    from bridge.sdk.kafka import KafkaSource, settings_of

    source = KafkaSource(settings_of(bootstrap_servers, kafka_options), timeout)
    return Client(source, Topics(environment, namespace))
