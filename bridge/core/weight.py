"""The request weight of one IP: what is used, how long to wait for room. Pure.

Spot has 6,000 a minute; usdm and coinm share 2,400 (one architecture since 2026-06). Windows are calendar
minutes in UTC. The exchange's own figure (``X-MBX-USED-WEIGHT-1M``) is the truth: other processes of the same
IP count too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Market

Family = Literal["spot", "futures"]

WEIGHT_PER_MINUTE: Mapping[Family, int] = {"spot": 6000, "futures": 2400}
_WINDOW_SECONDS = 60
#: What is never spent: our clock and the exchange's differ a little, and others may share the IP.
_SPENDABLE = 0.9
#: Backfill and market looks leave the rest to snapshots that live data waits for.
_SPENDABLE_IN_BACKGROUND = 0.6
#: After the turn of the minute, for clocks that differ.
_MARGIN_SECONDS = 0.5


def family(market: Market) -> Family:
    """Return whose budget ``market`` draws on."""
    return "spot" if market == "spot" else "futures"


class WeightBudget:
    """The weight of one family of hosts. Times are seconds since the epoch: windows are calendar minutes."""

    __slots__ = ("_banned", "_held_until", "_window", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._window = -1
        self._held_until = 0.0
        self._banned = False

    def reserve(self, now: float, weight: int, *, background: bool = False) -> float:
        """Take ``weight`` and return 0, or take nothing and return the seconds after which to ask again."""
        if now < self._held_until:
            return self._held_until - now
        self._banned = False
        self._turn(now)
        spendable = self.limit * (_SPENDABLE_IN_BACKGROUND if background else _SPENDABLE)
        # A request heavier than the whole share still gets its turn, alone at the start of a minute.
        if self.used > 0 and self.used + weight > spendable:
            return (self._window + 1) * _WINDOW_SECONDS - now + _MARGIN_SECONDS
        self.used += weight
        return 0.0

    def observed(self, now: float, used: int) -> None:
        """Take over the exchange's figure; the higher one counts, as it lacks our requests under way."""
        self._turn(now)
        self.used = max(self.used, used)

    def refused(self, now: float, retry_after: float, *, banned: bool) -> None:
        """Hold all requests for ``retry_after`` seconds: the exchange answered 429 or 418 (``banned``)."""
        self._held_until = max(self._held_until, now + retry_after)
        self._banned = self._banned or banned

    def banned(self, now: float) -> bool:
        """Whether a ban (418) holds requests at ``now``."""
        return self._banned and now < self._held_until

    def _turn(self, now: float) -> None:
        window = int(now // _WINDOW_SECONDS)
        # A clock that steps back opens no new window, but one that jumped ahead and was set right must not
        # freeze the old figure for long either.
        if window > self._window or window < self._window - 1:
            self._window = window
            self.used = 0


class _RateLimit(msgspec.Struct):
    rateLimitType: str  # noqa: N815 - the exchange's own name
    interval: str
    intervalNum: int  # noqa: N815
    limit: int


class _ExchangeInfo(msgspec.Struct):
    rateLimits: list[_RateLimit]  # noqa: N815


_decode_info = msgspec.json.Decoder(_ExchangeInfo).decode


def weight_limit(exchange_info: bytes) -> int | None:
    """Return the request weight per minute an exchangeInfo answer states, or None where it states none."""
    try:
        info = _decode_info(exchange_info)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for limit in info.rateLimits:
        if (limit.rateLimitType, limit.interval, limit.intervalNum) == (
            "REQUEST_WEIGHT",
            "MINUTE",
            1,
        ) and limit.limit > 0:
            return limit.limit
    return None


_SPOT = {
    "ping": 1, "time": 1, "exchangeInfo": 20, "trades": 25, "historicalTrades": 25,
    "historicalBlockTrades": 25, "aggTrades": 4, "klines": 2, "uiKlines": 2, "avgPrice": 2, "referencePrice":
    2, "account": 20, "order": 4, "allOrders": 20, "myTrades": 20, "account/apiRestrictions": 1,
}  # fmt: skip
_FUTURES = {
    "ping": 1, "time": 1, "exchangeInfo": 1, "trades": 5, "historicalTrades": 200, "aggTrades": 20,
    "openInterest": 1, "fundingRate": 1, "fundingInfo": 1, "constituents": 2, "indexInfo": 1, "rpiDepth": 20,
    "account": 5, "balance": 5, "positionRisk": 5, "order": 1, "algoOrder": 1, "allAlgoOrders": 5, "allOrders": 5,
    "userTrades": 5, "income": 30, "listenKey": 1,
}  # fmt: skip
#: With a symbol (or pair), and without.
_SPOT_BY_SYMBOL = {
    "ticker/24hr": (2, 80), "ticker/price": (2, 4), "ticker/bookTicker": (2, 4), "ticker": (4, 200),
    "ticker/tradingDay": (4, 200), "openOrders": (6, 80),
}  # fmt: skip
_FUTURES_BY_SYMBOL = {
    "premiumIndex": (1, 10), "ticker/24hr": (1, 40), "ticker/bookTicker": (2, 5), "ticker/price": (2, 5),
    "assetIndex": (1, 10), "openOrders": (1, 40), "openAlgoOrders": (1, 40),
}  # fmt: skip
_UNKNOWN = 20


def weight_of(market: Market, path: str, params: Mapping[str, object]) -> int:
    """Return what a request costs, by the exchange's tables; 20 where they don't say.

    Where usdm and coinm differ, the higher. Sources: facts sheets, spot sections 6.4, 7.2, 7.4, derivatives section 7.
    """
    name = "/".join(path.rstrip("/").split("/")[3:])  # "/api/v3/ticker/24hr" -> "ticker/24hr"
    limit = _number(params.get("limit"))
    if name == "depth":
        return _depth(market, limit)
    if market != "spot" and name.lower().endswith("klines"):
        return 5 if limit is None else _step(limit, ((100, 1), (500, 2), (1000, 5)), 10)
    by_symbol = (_SPOT_BY_SYMBOL if market == "spot" else _FUTURES_BY_SYMBOL).get(name)
    if by_symbol is not None:
        return by_symbol["symbol" not in params and "pair" not in params]
    return (_SPOT if market == "spot" else _FUTURES).get(name, _UNKNOWN)


def _depth(market: Market, limit: int | None) -> int:
    if market == "spot":
        return _step(limit or 100, ((100, 5), (500, 25), (1000, 50)), 250)
    return _step(limit or 500, ((50, 2), (100, 5), (500, 10)), 20)


def _step(value: int, steps: tuple[tuple[int, int], ...], beyond: int) -> int:
    return next((weight for upper, weight in steps if value <= upper), beyond)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else None
