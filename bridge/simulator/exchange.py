"""What the simulator's server asks of an exchange: a market made up from a seed, or a recorded one.

An exchange has no clock and does no I/O. Time is an argument, so the same seed and the same calls give the
same events, byte for byte. Two of them exist: :mod:`bridge.simulator.market` invents prices, and
:mod:`bridge.simulator.capture` plays back recorded traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Market


class Emission(NamedTuple):
    """One event of one stream.

    Attributes:
        market: the market it belongs to.
        stream: the stream's name, as it was tracked (``btcusdt@aggTrade``).
        data: the payload's JSON as UTF-8, without the combined-stream wrapper, times in milliseconds.
        first_id: the event's first id (``U``, or the id itself), None where the stream has no ids.
        last_id: the event's last id (``u``, or the id itself), None where the stream has no ids.
        event_time_ms: when it happened, in exchange time; milliseconds since the epoch.
        text: the recorded message with its wrapper, where there is one; combined connections get it as it is.
    """

    market: Market
    stream: str
    data: bytes
    first_id: int | None
    last_id: int | None
    event_time_ms: int
    text: bytes | None = None


class Answer(NamedTuple):
    """The answer to a REST request (the WebSocket API maps onto the same one).

    Attributes:
        status: HTTP status; 200, or 4xx with Binance's ``{"code":…,"msg":…}`` in the body.
        body: JSON as UTF-8.
        weight: request weight it costs.
    """

    status: int
    body: bytes
    weight: int


class Exchange(Protocol):
    """A market that makes events as time goes on and answers requests about itself."""

    def advance(self, until_ms: int) -> Iterator[Emission]:
        """Yield every event of every tracked stream up to ``until_ms`` (exclusive of later ones), in order.

        The caller exhausts the iterator before it calls anything else. ``until_ms`` never goes back.
        """

    def track(self, market: Market, stream: str) -> bool:
        """Start making the events of ``stream``, and never stop; calling again changes nothing.

        Returns False where the name is malformed (``btcusdt``, ``btcusdt@nonsense`` is not: the exchange
        acknowledges it). Unknown symbols, wrong case and unknown kinds return True and never have an event.
        """

    def rest(self, market: Market, method: str, path: str, params: Mapping[str, str], now_ms: int) -> Answer:
        """Answer a public REST request such as ``GET /fapi/v1/depth``.

        Answers from the state of the last ``advance``; ``now_ms`` is for ``serverTime`` alone. An unknown
        path is a 404 with weight 1; an unknown symbol a 400 with code -1121.
        """
