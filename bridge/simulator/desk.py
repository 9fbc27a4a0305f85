"""Answers requests, REST and WebSocket API alike, within the budget of request weight. No sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.simulator import wire
from bridge.simulator.limits import WeightBudget, refusal_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Market
    from bridge.simulator.exchange import Exchange
    from bridge.simulator.limits import Limits, Verdict

# WebSocket API methods and the REST paths that answer the same
_SPOT_METHODS = {
    "ping": "ping",
    "time": "time",
    "exchangeInfo": "exchangeInfo",
    "executionRules": "executionRules",
    "depth": "depth",
    "trades.recent": "trades",
    "trades.historical": "historicalTrades",
    "trades.aggregate": "aggTrades",
    "blockTrades.historical": "historicalBlockTrades",
    "klines": "klines",
    "uiKlines": "uiKlines",
    "avgPrice": "avgPrice",
    "ticker": "ticker",
    "ticker.24hr": "ticker/24hr",
    "ticker.tradingDay": "ticker/tradingDay",
    "ticker.price": "ticker/price",
    "ticker.book": "ticker/bookTicker",
    "referencePrice": "referencePrice",
    "referencePrice.calculation": "referencePrice/calculation",
}
_FUTURES_METHODS = {"depth": "depth", "ticker.price": "ticker/price", "ticker.book": "ticker/bookTicker"}
_PREFIX: dict[Market, str] = {"spot": "/api/v3/", "usdm": "/fapi/v1/", "coinm": "/dapi/v1/"}


class Reply(NamedTuple):
    """The answer to an HTTP request."""

    status: int
    body: bytes
    headers: dict[str, str]


class Desk:
    """Answers requests and counts their weight by address; both futures markets share one budget.

    Attributes:
        answered: how many requests were answered, by HTTP status.
    """

    def __init__(self, exchange: Exchange, limits: Limits) -> None:
        self.exchange, self.limits = exchange, limits
        self.answered: dict[int, int] = {}
        self._budgets: dict[tuple[bool, str], WeightBudget] = {}

    def rest(
        self, market: Market, address: str, method: str, path: str, params: Mapping[str, str], *, now_ms: int
    ) -> Reply:
        """Answer one REST request of ``address``."""
        answer = self.exchange.rest(market, method, path, params, now_ms)
        verdict = self._budget(market, address).charge(answer.weight, now_ms)
        headers = {"X-MBX-USED-WEIGHT": str(verdict.used), "X-MBX-USED-WEIGHT-1M": str(verdict.used)}
        self._count(verdict.status if verdict.status != 200 else answer.status)
        if verdict.status == 200:
            return Reply(answer.status, answer.body, headers)
        code, message = refusal_message(verdict, self.limits.weight(market), address)
        headers["Retry-After"] = str(verdict.retry_after)
        return Reply(verdict.status, wire.compact({"code": code, "msg": message}), headers)

    def connect(self, market: Market, address: str, now_ms: int) -> Verdict:
        """Charge the handshake of a WebSocket API connection."""
        return self._budget(market, address).charge(2 if market == "spot" else 5, now_ms)

    def ws_api(
        self, market: Market, address: str, text: str, *, show_limits: bool, now_ms: int
    ) -> tuple[bytes, int]:
        """Answer one WebSocket API request; return the text and its status."""
        request, refusal = _read(text)
        if refusal is not None:
            return refusal, 400
        params = dict(request.get("params") or {})
        show_limits = bool(params.pop("returnRateLimits", show_limits))
        name = str(request["method"]).removeprefix("v3/").removeprefix("v1/")
        path = (_SPOT_METHODS if market == "spot" else _FUTURES_METHODS).get(name)
        budget = self._budget(market, address)
        reply: dict[str, object] = {"id": request.get("id")}
        if path is None:
            verdict = budget.charge(1, now_ms)
            reply |= {"status": 400, "error": {"code": -1020, "msg": "This operation is not supported."}}
        else:
            texts = {
                key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()
            }
            answer = self.exchange.rest(market, "GET", _PREFIX[market] + path, texts, now_ms)
            verdict = budget.charge(answer.weight, now_ms)
            content = "result" if answer.status == 200 else "error"
            reply |= {"status": answer.status, content: json.loads(answer.body)}
        if verdict.status != 200:
            reply = {"id": request.get("id")} | self._refused(market, address, verdict, now_ms)
        if show_limits:
            reply["rateLimits"] = [_rate_limit(self.limits.weight(market), verdict.used)]
        status = int(str(reply["status"]))
        self._count(status)
        return wire.compact(reply), status

    def ban(self, market: Market | None, status: int, seconds: float, now_ms: int) -> None:
        """Refuse the requests of every address for ``seconds``, on ``market`` or all of them."""
        groups = {True, False} if market is None else {market == "spot"}
        known = {address for _, address in self._budgets} | {"127.0.0.1"}
        for group in groups:
            for address in known:
                self._of(group, address).ban(status, seconds, now_ms)

    def _refused(self, market: Market, address: str, verdict: Verdict, now_ms: int) -> dict[str, object]:
        code, message = refusal_message(verdict, self.limits.weight(market), address)
        data = {"serverTime": now_ms, "retryAfter": verdict.until_ms}
        return {"status": verdict.status, "error": {"code": code, "msg": message, "data": data}}

    def _budget(self, market: Market, address: str) -> WeightBudget:
        return self._of(market == "spot", address)

    def _of(self, spot: bool, address: str) -> WeightBudget:
        budget = self._budgets.get((spot, address))
        if budget is None:
            limit = self.limits.weight("spot" if spot else "usdm")
            budget = WeightBudget(limit, self.limits.refusals_before_ban, self.limits.ban_seconds)
            self._budgets[spot, address] = budget
        return budget

    def _count(self, status: int) -> None:
        self.answered[status] = self.answered.get(status, 0) + 1


def _read(text: str) -> tuple[dict[str, Any], bytes | None]:
    """Return the request, or the answer to what is not one."""
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return {}, _bad(None, -1135, "Invalid JSON Request")
    if not isinstance(request.get("method"), str):
        message = "Mandatory parameter 'method' was not sent, was empty/null, or malformed."
        return request, _bad(request.get("id"), -1102, message)
    if not isinstance(request.get("params") or {}, dict):
        return request, _bad(request.get("id"), -1135, "Invalid JSON Request")
    return request, None


def _bad(request_id: object, code: int, message: str) -> bytes:
    return wire.compact({"id": request_id, "status": 400, "error": {"code": code, "msg": message}})


def _rate_limit(limit: int, used: int) -> dict[str, object]:
    return {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": limit,
        "count": used,
    }
