"""The exchange's clock, as far as it can be known from here: measured, then carried on by the monotonic clock."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from bridge.binance.clock import Clock
from bridge.binance.rest import Outgoing
from bridge.core.clock_offset import ExchangeTime, Sample, measured
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.binance.rest import RestClient
    from bridge.core.private_settings import PrivateSettings
    from bridge.model import Market
    from bridge.telemetry import Telemetry

log = logging.getLogger("bridge")

_PATHS: Mapping[Market, str] = {"spot": "/api/v3/time", "usdm": "/fapi/v1/time", "coinm": "/dapi/v1/time"}
_LOUD_SECONDS = 0.5


class _Time(msgspec.Struct):
    serverTime: int  # noqa: N815 - the exchange's own name


_decode = msgspec.json.Decoder(_Time).decode


class ExchangeClock:
    """The clock of one market's hosts.

    Args:
        rest: whom to ask for the time.
        market: whose.
        own: how often to measure.
        telemetry: shows the offset.
        clock: our clocks.
    """

    def __init__(
        self,
        rest: RestClient,
        market: Market,
        own: PrivateSettings,
        telemetry: Telemetry,
        clock: Clock | None = None,
    ) -> None:
        self._rest, self._market, self._own, self._telemetry = rest, market, own, telemetry
        self._clock = clock or Clock()
        self._time: ExchangeTime | None = None
        self._measuring = asyncio.Lock()

    @property
    def offset_seconds(self) -> float:
        """How far the exchange's clock is ahead of this machine's; 0 before the first measurement."""
        return (self.now_micros() - self._clock.micros()) / 1e6

    def now_micros(self) -> int:
        """Return the exchange's time, microseconds since the epoch; ours before the first measurement."""
        if self._time is None:
            return self._clock.micros()
        return self._time.now_micros(self._clock.monotonic())

    def least_micros(self) -> int:
        """Return what the exchange's time is at least; ours before the first measurement."""
        if self._time is None:
            return self._clock.micros()
        return self._time.least_micros(self._clock.monotonic())

    async def ready(self) -> None:
        """Measure, unless that was done not long ago.

        Raises:
            SourceError: the exchange doesn't tell its time.
        """
        if not self._fresh(self._own.clock_seconds):
            await self.measure()

    async def measure(self) -> None:
        """Measure anew. Who comes while another measures takes over what that one finds.

        Raises:
            SourceError: the exchange doesn't tell its time.
        """
        asked_at = self._clock.monotonic()
        async with self._measuring:
            if self._time is not None and self._time.at >= asked_at:
                return
            self._time = measured([await self._sample() for _ in range(self._own.clock_samples)])
        offset = self.offset_seconds
        self._telemetry.metrics.clock_offset_seconds.labels(self._market).set(offset)
        if abs(offset) > _LOUD_SECONDS:
            log.warning(
                "this machine's clock is %.1f s %s the exchange's (%s): requests are corrected for it, times of "
                "receipt are not; let NTP set it",
                abs(offset),
                "behind" if offset > 0 else "ahead of",
                self._market,
            )

    def _fresh(self, seconds: float) -> bool:
        return self._time is not None and self._clock.monotonic() - self._time.at < seconds

    async def _sample(self) -> Sample:
        path = _PATHS[self._market]
        asked_at = 0.0

        def prepare() -> Outgoing:
            nonlocal asked_at
            asked_at = self._clock.monotonic()
            return Outgoing(path)

        reply = await self._rest.send(self._market, f"{self._market} GET {path}()", 1, prepare)
        heard_at = self._clock.monotonic()
        try:
            return Sample(asked_at, heard_at, _decode(reply.body).serverTime)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise UnexpectedMessage(f"{self._market} {path}: the answer is no time") from None
