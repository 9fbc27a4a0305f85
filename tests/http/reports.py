"""Reports of a made-up bridge."""

from bridge.status import ConnectionReport, StatusReport


def status_report() -> StatusReport:
    """Return the report of a bridge at work."""
    return {
        "version": "0.1.0",
        "instance": "bridge-0",
        "environment": "testnet",
        "started_at": "2026-11-01T10:00:00Z",
        "uptime_seconds": 93_784.5,
        "ready": True,
        "reason": "",
        "markets": [
            {
                "market": "spot",
                "connections": 2,
                "streams": 310,
                "streams_live": 308,
                "messages": 48_123_456,
                "messages_per_second": 3_121.4,
                "reconnects": 1,
            }
        ],
        "topics": [{"topic": "binance.testnet.unified.trade", "records": 1_234_567, "bytes": 99_912_345}],
        "buffer": {"bytes": 1_048_576, "limit": 268_435_456},
        "gaps": {"open": 1, "found": 7, "recovered": 1_234},
        "books": {"kept": 400, "synced": 371, "waiting": 29, "estimate_seconds": 12.5},
        "dead_letters": 3,
        "latency_ms": {"p50": 12.34, "p99": None},
        "request_weight": {"spot": 312},
        "lifecycle": [
            {
                "at": "2026-11-01T10:00:05Z",
                "event": "connection.retrying",
                "text": "connection.retrying market=spot reason='lost' retry_in=0.5s",
            }
        ],
    }


def connection_reports() -> list[ConnectionReport]:
    """Return the connections of that bridge."""
    return [
        {
            "id": "00ab34cd12ef9012",
            "market": "spot",
            "leg": 2,
            "url": "wss://data-stream.binance.vision/stream",
            "state": "subscribed",
            "opened_at": "2026-11-01T10:00:00Z",
            "age_seconds": 812.2,
            "messages": 12_345,
            "streams": [
                {"name": "btcusdt@trade", "channel": "trade", "frames": 12, "silent_seconds": 0.2},
                {"name": "币安人生usdt@depth", "channel": "depth", "frames": 0, "silent_seconds": None},
            ],
        }
    ]
