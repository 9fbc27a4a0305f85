"""Answers private requests, REST and WebSocket API alike. No sockets, no request weight: those are the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from bridge.simulator.accounts import futures_endpoints, order_counts, spot_endpoints
from bridge.simulator.accounts.calls import Call, Endpoint
from bridge.simulator.accounts.guard import check_signature, check_time, identify
from bridge.simulator.accounts.keys import rest_payload
from bridge.simulator.accounts.order_counts import OrderCounts
from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused
from bridge.simulator.accounts.sessions import REVOKED, SESSION_METHODS, STREAM_METHODS, SessionDesk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey, Permission
    from bridge.simulator.accounts.listen_keys import ListenKeys
    from bridge.simulator.accounts.registry import Account, Registry
    from bridge.simulator.accounts.sessions import Session

_ENDPOINTS: dict[Market, Mapping[tuple[str, str], Endpoint]] = {
    "spot": spot_endpoints.ENDPOINTS,
    "usdm": futures_endpoints.USDM,
    "coinm": futures_endpoints.COINM,
}
_METHODS: dict[Market, Mapping[str, tuple[str, str]]] = {
    "spot": spot_endpoints.METHODS,
    "usdm": futures_endpoints.USDM_METHODS,
    "coinm": futures_endpoints.COINM_METHODS,
}
_SESSION_WEIGHT = 2


class HttpRequest(NamedTuple):
    """A REST request as it came.

    Attributes:
        method: in capitals.
        path: decoded.
        query: raw, without ``?``.
        body: raw form body.
        key: of the header ``X-MBX-APIKEY``.
        address: the client's.
    """

    method: str
    path: str
    query: str
    body: str
    key: str | None
    address: str

    @property
    def params(self) -> dict[str, str]:
        """The decoded parameters; of duplicates the query's."""
        return dict(parse_qsl(self.body, keep_blank_values=True)) | dict(
            parse_qsl(self.query, keep_blank_values=True)
        )


class PrivateAnswer(NamedTuple):
    """What is answered.

    Attributes:
        status: HTTP status.
        content: JSON, the result or the error.
        headers: of an HTTP response.
        limits: rows of order counts, of a WebSocket API response.
        free: the weight is given back.
        before: a message to send before the answer (a session that was revoked).
    """

    status: int
    content: object
    headers: Mapping[str, str] = {}
    limits: tuple[dict[str, object], ...] = ()
    free: bool = False
    before: Mapping[str, object] | None = None


class PrivateDesk:
    """Answers private requests.

    Args:
        registry: the accounts.
        listen_keys: the keys of futures' private streams.
    """

    def __init__(self, registry: Registry, listen_keys: ListenKeys) -> None:
        self._registry, self._listen_keys = registry, listen_keys
        self._sessions = SessionDesk(registry)

    def rest_weight(self, market: Market, request: HttpRequest) -> int | None:
        """Return what a request costs; None where it is not private."""
        endpoint = _ENDPOINTS[market].get((request.method, request.path))
        return None if endpoint is None else _cost(endpoint, Params(request.params))

    def rest(self, market: Market, request: HttpRequest, now_ms: int, told_ms: int) -> PrivateAnswer:
        """Answer a private request.

        Args:
            market: of the host.
            request: for which :meth:`rest_weight` is not None.
            now_ms: exchange time.
            told_ms: what the exchange believes the time to be.
        """
        endpoint, params = _ENDPOINTS[market][request.method, request.path], request.params
        try:
            permission = _permission(market, endpoint)
            key = identify(self._registry, market, request.key, request.address, permission)
            if endpoint.security != "KEY":
                check_time(params, told_ms)
                check_signature(key, *rest_payload(request.query, request.body))
            return self._carry_out(market, endpoint, key, params, now_ms)
        except Refused as refused:
            return PrivateAnswer(refused.status, refused.body)

    def method_weight(self, market: Market, method: str, params: Mapping[str, str]) -> int | None:
        """Return what a WebSocket API request costs; None where it is not private."""
        if method in SESSION_METHODS or (market == "spot" and method in STREAM_METHODS):
            return _SESSION_WEIGHT
        path = _METHODS[market].get(method)
        return None if path is None else _cost(_ENDPOINTS[market][path], Params(params))

    def ws_api(
        self, session: Session, method: str, params: Mapping[str, str], now_ms: int, told_ms: int
    ) -> PrivateAnswer:
        """Answer a private WebSocket API request, one for which :meth:`method_weight` is not None."""
        before = REVOKED if session.log_off_forbidden() else None
        try:
            if method in SESSION_METHODS or method in STREAM_METHODS:
                result = self._sessions.answer(session, method, params, now_ms, told_ms)
                return PrivateAnswer(200, result, before=before)
            endpoint = _ENDPOINTS[session.market][_METHODS[session.market][method]]
            permission = _permission(session.market, endpoint)
            if endpoint.security == "KEY":
                text = params.get("apiKey") or (session.key.key if session.key is not None else None)
                key = identify(self._registry, session.market, text, session.address, permission)
            else:
                key = self._sessions.authenticate(session, params, permission, told_ms)
            answer = self._carry_out(session.market, endpoint, key, params, now_ms)
            return answer._replace(before=before)
        except Refused as refused:
            return PrivateAnswer(refused.status, refused.body, before=before)

    def _carry_out(
        self, market: Market, endpoint: Endpoint, key: ApiKey, params: Mapping[str, str], now_ms: int
    ) -> PrivateAnswer:
        account = self._registry.named(key.account)
        counts = _counts(account, market)
        if endpoint.orders:
            counts.add(now_ms)
        call = Call(market, account, key, Params(params), now_ms, self._listen_keys)
        try:
            content, status = endpoint.answer(call), 200
        except Refused as refused:
            content, status = refused.body, refused.status
        if not endpoint.orders:
            return PrivateAnswer(status, content)
        return PrivateAnswer(
            status, content, counts.headers(now_ms), tuple(counts.rows(now_ms)), free=status == 200
        )


def _counts(account: Account, market: Market) -> OrderCounts:
    limits = order_counts.SPOT if market == "spot" else order_counts.FUTURES
    return account.counts.setdefault(market, OrderCounts(limits))


def _permission(market: Market, endpoint: Endpoint) -> Permission:
    if endpoint.security != "TRADE":
        return "reading"
    return "spot" if market == "spot" else "futures"


def _cost(endpoint: Endpoint, params: Params) -> int:
    try:
        return endpoint.cost(params)
    except Refused:
        return 1
