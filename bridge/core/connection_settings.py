"""Every setting of the connections to Binance, with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bridge.model import Market

TransportName = Literal["websockets", "picows"]

#: The exchange closes (spot) or drops (futures) a connection that carries more.
MAX_STREAMS_PER_CONNECTION = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How connections to Binance behave. Times in seconds, sizes in bytes.

    Attributes:
        transport: the WebSocket implementation; ``picows`` is faster and optional.
        streams_per_connection: how many streams one connection carries at most (the exchange allows 1024).
        subscribe_names: names in one SUBSCRIBE frame.
        subscribe_bytes: size of one SUBSCRIBE frame; over 4,088 the exchange ignores it without a word.
        spot_control_frames_per_second: frames we send per connection, pings and pongs included (limit: 5).
        futures_control_frames_per_second: the same for usdm and coinm (documented 10, measured less).
        tick_seconds: how often a connection looks at its clocks.
        open_seconds: time for TCP, TLS and the WebSocket handshake together.
        acknowledgement_seconds: time for the answer to a SUBSCRIBE before it is sent once more, then given
            up.
        send_seconds: time for one frame to leave; a peer that doesn't read is cut off after it.
        close_seconds: time for the closing handshake before the socket is cut off.
        ping_seconds: time between our own pings.
        pong_seconds: a connection with no frame, ping or pong for this long after our ping is stale.
        rotate_after_seconds: age at which a connection is replaced; the exchange ends it at 24 h.
        rotate_jitter_seconds: up to this much earlier, so that connections do not rotate together.
        overlap_seconds: how long old and new connection both deliver once the new one is proven.
        prove_seconds: how long a new connection may wait for the first frames of quiet streams.
        retry_minimum_seconds: least wait before an attempt to connect again.
        retry_maximum_seconds: most wait that growing back-off reaches.
        settled_seconds: data must have flowed for this long before back-off starts from the minimum again.
        attempts_burst: connection attempts allowed at once, per IP.
        attempts_per_second: refill; burst + 300 s of refill = 150, half of the exchange's 300 per 5 minutes.
        max_message_bytes: larger messages end the connection (1009).
        cadence_factor: a stream with a promised cadence is suspect after this many missed frames,
        cadence_margin_seconds: plus this.
        learned_factor: a stream without one is suspect after this many times its usual longest silence,
        learned_minimum_seconds: but not before this.
        market_look_seconds: least time between two questions to REST about one stream; doubles each time,
        market_look_maximum_seconds: up to this.
        market_looks: questions one connection may have open at once.
        market_look_spacing_seconds: least time between two questions of all connections of a market.
        market_grace_seconds: time a stream gets to deliver what REST already shows.
        other_leg_seconds: with redundancy, a stream is silent when frames this far apart came on the other leg and
            none on this one.
        deaf_patience_maximum: a stream that stayed deaf over this many connections is asked about ever more
            rarely, by powers of two up to this one.
        rest_seconds: time for one REST answer.
        rest_attempts: attempts of one GET (time-outs, connection errors, 5xx, short 429).
        rest_wait_seconds: longest wait for request weight before ``RateLimited`` is raised instead.
    """

    transport: TransportName = "websockets"

    streams_per_connection: int = 200
    subscribe_names: int = 100
    subscribe_bytes: int = 3_500
    spot_control_frames_per_second: int = 4
    futures_control_frames_per_second: int = 5

    tick_seconds: float = 0.5
    open_seconds: float = 10.0
    acknowledgement_seconds: float = 5.0
    send_seconds: float = 5.0
    close_seconds: float = 3.0
    ping_seconds: float = 12.0
    pong_seconds: float = 10.0

    rotate_after_seconds: float = 23 * 3600.0
    rotate_jitter_seconds: float = 1800.0
    overlap_seconds: float = 5.0
    prove_seconds: float = 30.0

    retry_minimum_seconds: float = 0.5
    retry_maximum_seconds: float = 60.0
    settled_seconds: float = 30.0
    attempts_burst: int = 30
    attempts_per_second: float = 0.4

    max_message_bytes: int = 16 * 1024 * 1024

    cadence_factor: float = 3.0
    cadence_margin_seconds: float = 2.0
    learned_factor: float = 8.0
    learned_minimum_seconds: float = 30.0
    market_look_seconds: float = 3.0
    market_look_maximum_seconds: float = 300.0
    market_looks: int = 2
    market_look_spacing_seconds: float = 0.25
    market_grace_seconds: float = 2.0
    other_leg_seconds: float = 5.0
    deaf_patience_maximum: int = 64

    rest_seconds: float = 10.0
    rest_attempts: int = 4
    rest_wait_seconds: float = 90.0

    def control_frames_per_second(self, market: Market) -> int:
        """Return how many frames per second we may send on one connection of ``market``."""
        return (
            self.spot_control_frames_per_second
            if market == "spot"
            else self.futures_control_frames_per_second
        )
