"""A made-up exchange: seeded, without clock or I/O, coherent, in Binance's exact payloads."""

from bridge.simulator.market.exchange import MarketExchange

__all__ = ["MarketExchange"]
