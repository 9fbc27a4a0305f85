"""Binance streams as exact, accounted-for Avro records in Kafka.

A bridge process connects to Binance's public and private streams, keeps every message as received in
*raw* topics, derives CCXT-shaped *unified* records from them with exact decimals, and tells what happened
to its connections on a *lifecycle* topic. Downstream services read them with :mod:`bridge.sdk`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("binance-kafka-bridge")
except PackageNotFoundError:  # a checkout on PYTHONPATH that was never installed
    __version__ = "0+checkout"
