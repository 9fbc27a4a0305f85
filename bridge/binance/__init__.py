"""The only place that talks to Binance: WebSocket connections and REST. Knows nothing of Kafka."""
