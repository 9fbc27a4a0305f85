"""How many orders an account placed: windows of the clock, as the exchange counts them."""

from __future__ import annotations

from typing import NamedTuple

from bridge.simulator.accounts.refusal import Refused

_SECONDS = {"SECOND": 1, "MINUTE": 60, "DAY": 86_400}


class OrderLimit(NamedTuple):
    """So many orders in ``number`` intervals."""

    interval: str
    number: int
    limit: int

    @property
    def window_ms(self) -> int:
        """The length of its window."""
        return _SECONDS[self.interval] * self.number * 1000

    @property
    def header(self) -> str:
        """The response header that shows the count."""
        return f"X-MBX-ORDER-COUNT-{self.number}{self.interval[0]}"


SPOT = (OrderLimit("SECOND", 10, 100), OrderLimit("DAY", 1, 200_000))
FUTURES = (OrderLimit("SECOND", 10, 300), OrderLimit("MINUTE", 1, 1_200))


class OrderCounts:
    """Counts the orders of one account on one market."""

    def __init__(self, limits: tuple[OrderLimit, ...]) -> None:
        self.limits = limits
        self._counts = [(-1, 0) for _ in limits]

    def add(self, now_ms: int) -> None:
        """Count one order.

        Raises:
            Refused: -1015, it is one too many.
        """
        for at, limit in enumerate(self.limits):
            count = self._count(at, now_ms)
            if count >= limit.limit:
                window = f"{limit.number} {limit.interval}"
                message = f"Too many new orders; current limit is {limit.limit} orders per {window}."
                raise Refused(-1015, message, 429)
        self._counts = [
            (now_ms // limit.window_ms, self._count(at, now_ms) + 1) for at, limit in enumerate(self.limits)
        ]

    def rows(self, now_ms: int) -> list[dict[str, object]]:
        """Return the answer of ``GET /api/v3/rateLimit/order``."""
        return [
            {
                "rateLimitType": "ORDERS",
                "interval": limit.interval,
                "intervalNum": limit.number,
                "limit": limit.limit,
                "count": self._count(at, now_ms),
            }
            for at, limit in enumerate(self.limits)
        ]

    def headers(self, now_ms: int) -> dict[str, str]:
        """Return the response headers."""
        return {limit.header: str(self._count(at, now_ms)) for at, limit in enumerate(self.limits)}

    def _count(self, at: int, now_ms: int) -> int:
        window, count = self._counts[at]
        return count if window == now_ms // self.limits[at].window_ms else 0
