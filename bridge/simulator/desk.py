"""Answers requests, REST and WebSocket API alike, within the budget of request weight. No sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.model import MARKETS
from bridge.simulator import wire
from bridge.simulator.accounts.sessions import Session
from bridge.simulator.limits import WeightBudget, refusal_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.desk import HttpRequest, PrivateAnswer, PrivateDesk
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
        sessions: the WebSocket API connections by number.
        skews: how far each market's clock is ahead of exchange time, milliseconds.
        answered: how many requests were answered, by HTTP status.
    """

    def __init__(
        self, exchange: Exchange, limits: Limits, private: PrivateDesk, sessions: dict[int, Session]
    ) -> None:
        self.exchange, self.limits, self._private, self.sessions = exchange, limits, private, sessions
        self.skews: dict[Market, int] = dict.fromkeys(MARKETS, 0)
        self._opened = 0
        self.answered: dict[int, int] = {}
        self._budgets: dict[tuple[bool, str], WeightBudget] = {}

    def rest(
        self, market: Market, address: str, method: str, path: str, params: Mapping[str, str], *, now_ms: int
    ) -> Reply:
        """Answer one public REST request of ``address``."""
        answer = self.exchange.rest(market, method, path, params, now_ms + self.skews[market])
        verdict = self._budget(market, address).charge(answer.weight, now_ms)
        headers = _used(verdict.used)
        self._count(verdict.status if verdict.status != 200 else answer.status)
        if verdict.status == 200:
            return Reply(answer.status, answer.body, headers)
        code, message = refusal_message(verdict, self.limits.weight(market), address)
        headers["Retry-After"] = str(verdict.retry_after)
        return Reply(verdict.status, wire.compact({"code": code, "msg": message}), headers)

    def private_rest(self, market: Market, request: HttpRequest, *, now_ms: int) -> Reply | None:
        """Answer one private REST request; None where it is public.

        It is charged before it is carried out: what is refused for its weight does not happen.
        """
        weight = self._private.rest_weight(market, request)
        if weight is None:
            return None
        budget = self._budget(market, request.address)
        verdict = budget.charge(weight, now_ms)
        if verdict.status != 200:
            self._count(verdict.status)
            code, message = refusal_message(verdict, self.limits.weight(market), request.address)
            headers = {**_used(verdict.used), "Retry-After": str(verdict.retry_after)}
            return Reply(verdict.status, wire.compact({"code": code, "msg": message}), headers)
        answer = self._private.rest(market, request, now_ms, now_ms + self.skews[market])
        if answer.free:
            budget.used -= weight
        self._count(answer.status)
        return Reply(answer.status, wire.compact(answer.content), {**_used(budget.used), **answer.headers})

    def open_session(
        self,
        market: Market,
        address: str,
        now_ms: int,
        send: Callable[[bytes], None],
        abort: Callable[[], None],
        *,
        show_limits: bool,
    ) -> Session:
        """Note a WebSocket API connection; :meth:`close_session` forgets it."""
        self._opened += 1
        session = Session(self._opened, market, address, now_ms, send, abort, show_limits)
        self.sessions[session.number] = session
        return session

    def close_session(self, session: Session) -> None:
        """Forget a WebSocket API connection."""
        self.sessions.pop(session.number, None)

    def connect(self, market: Market, address: str, now_ms: int) -> Verdict:
        """Charge the handshake of a WebSocket API connection."""
        return self._budget(market, address).charge(2 if market == "spot" else 5, now_ms)

    def ws_api(self, session: Session, text: str, *, now_ms: int) -> tuple[bytes, int]:
        """Answer one WebSocket API request; return the text and its status."""
        market, address = session.market, session.address
        request, refusal = _read(text)
        if refusal is not None:
            return refusal, 400
        params = dict(request.get("params") or {})
        show_limits = bool(params.pop("returnRateLimits", session.show_limits))
        name = str(request["method"]).removeprefix("v3/").removeprefix("v1/")
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
        budget = self._budget(market, address)
        reply: dict[str, object] = {"id": request.get("id")}
        counts: tuple[dict[str, object], ...] = ()
        path = (_SPOT_METHODS if market == "spot" else _FUTURES_METHODS).get(name)
        private_weight = self._private.method_weight(market, name, texts)
        if private_weight is not None:
            verdict = budget.charge(private_weight, now_ms)
            if verdict.status == 200:
                answer = self._private.ws_api(session, name, texts, now_ms, now_ms + self.skews[market])
                reply |= _private_reply(session, answer)
                counts = answer.limits
                if answer.free:
                    budget.used -= private_weight
                    verdict = verdict._replace(used=budget.used)
        elif path is None:
            verdict = budget.charge(1, now_ms)
            reply |= {"status": 400, "error": {"code": -1020, "msg": "This operation is not supported."}}
        else:
            told_ms = now_ms + self.skews[market]
            public = self.exchange.rest(market, "GET", _PREFIX[market] + path, texts, told_ms)
            verdict = budget.charge(public.weight, now_ms)
            content = "result" if public.status == 200 else "error"
            reply |= {"status": public.status, content: json.loads(public.body)}
        if verdict.status != 200:
            reply = {"id": request.get("id")} | self._refused(market, address, verdict, now_ms)
        if show_limits:
            reply["rateLimits"] = [*counts, _rate_limit(self.limits.weight(market), verdict.used)]
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


def _private_reply(session: Session, answer: PrivateAnswer) -> dict[str, object]:
    if answer.before is not None:
        session.send(wire.compact(answer.before))
    return {"status": answer.status, "result" if answer.status == 200 else "error": answer.content}


def _used(weight: int) -> dict[str, str]:
    return {"X-MBX-USED-WEIGHT": str(weight), "X-MBX-USED-WEIGHT-1M": str(weight)}


def _read(text: str) -> tuple[dict[str, Any], bytes | None]:
    """Return the request, or the answer to what is not one."""
    try:
        # a number keeps the text it was signed with
        request = json.loads(text, parse_float=str)
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
