"""The REST client: requests within the request weight, retried where that is safe.

It knows no keys. :mod:`~bridge.binance.signed_rest` prepares private requests, and sends them through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from bridge.binance.clock import Clock
from bridge.binance.transport import USER_AGENT, hush
from bridge.core.backoff import Backoff
from bridge.core.connection_settings import ConnectionSettings
from bridge.core.weight import WEIGHT_PER_MINUTE, WeightBudget, family, weight_limit, weight_of
from bridge.errors import ConnectionLost, RateLimited, RequestRefused, SourceError
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from bridge.binance.hosts import Hosts
    from bridge.core.weight import Family
    from bridge.model import Market
    from bridge.telemetry import Telemetry


_USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"
_KEPT_HEADERS = (_USED_WEIGHT, "Retry-After", "Content-Type", "Date")
_OK, _TEAPOT, _TOO_MANY, _FIREWALL, _SERVER_ERROR = 200, 418, 429, 403, 500
#: Where the host doesn't say how long: 429 ends with the minute, a ban lasts two at least, a firewall longer.
_RETRY_AFTER_SECONDS = {_TOO_MANY: 60.0, _TEAPOT: 120.0, _FIREWALL: 300.0}
_TOLD_CHARACTERS = 200


class Reply(NamedTuple):
    """An answer with status 200.

    Attributes:
        status: the HTTP status.
        body: the bytes of the answer, exactly (decompressed).
        headers: those that matter: used weight, content type, date.
    """

    status: int
    body: bytes
    headers: Mapping[str, str]


def _as_it_is(message: str) -> str:
    return message


class Outgoing(NamedTuple):
    """A request, made anew for each attempt.

    Attributes:
        target: path and query as they are sent; may hold a signature, and is never shown.
        method: GET, POST, PUT or DELETE. All of them may be repeated: none places an order.
        headers: more headers; may hold a key, and are never shown.
        scrub: takes out of the exchange's words what must not be shown.
    """

    target: str
    method: str = "GET"
    headers: Mapping[str, str] = {}
    scrub: Callable[[str], str] = _as_it_is


class _Error(msgspec.Struct):
    code: int | None = None
    msg: str = ""


_decode_error = msgspec.json.Decoder(_Error).decode


class RestClient:
    """One client for all markets of an environment, as the weight is per IP.

    Use as ``async with RestClient(…) as rest``, or call :meth:`close`.

    Args:
        hosts: the base URLs.
        telemetry: counts requests, tells of refusals.
        settings: times and attempts.
        clock: the clocks.
        random: draws between 0 and 1, for back-off.
        tls: TLS settings other than the system's.

    Attributes:
        on_reply: called with market, path and query, time of receipt (microseconds) and body of each answer
            with status 200, before it is returned; the wiring publishes the ``api`` records there.
        budgets: the request weight, by family of hosts.
    """

    def __init__(
        self,
        hosts: Mapping[Market, Hosts],
        telemetry: Telemetry,
        settings: ConnectionSettings | None = None,
        *,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.on_reply: Callable[[Market, str, int, bytes], None] | None = None
        self.budgets: dict[Family, WeightBudget] = {
            name: WeightBudget(limit) for name, limit in WEIGHT_PER_MINUTE.items()
        }
        self._hosts = hosts
        self._telemetry = telemetry
        self._settings = settings or ConnectionSettings()
        self._clock = clock or Clock()
        self._random = random
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None

    @property
    def hosts(self) -> Mapping[Market, Hosts]:
        """Whom it asks."""
        return self._hosts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the client can't be used any more."""
        if self._http is not None:
            await self._http.close()

    async def get(
        self,
        market: Market,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        background: bool = False,
    ) -> Reply:
        """GET a public resource.

        Waits for room in the request weight; tries again after time-outs, connection errors and 5xx.

        Args:
            market: whose host to ask.
            path: the whole path, such as ``/api/v3/aggTrades``.
            params: the query; values are percent-encoded here.
            background: whether live work goes first (backfill, market looks).

        Raises:
            RateLimited: the IP is refused for longer than ``rest_wait_seconds``, or banned.
            RequestRefused: the exchange answered with an error.
            ConnectionLost: no answer, after all attempts.
        """
        query = dict(params or {})
        target = f"{path}?{urlencode(query, quote_via=quote)}" if query else path
        endpoint = f"{market} GET {path}({', '.join(query)})"
        weight = weight_of(market, path, query)
        reply = await self.send(market, endpoint, weight, lambda: Outgoing(target), background=background)
        if path.endswith("/exchangeInfo"):
            limit = weight_limit(reply.body)
            if limit is not None:
                self.budgets[family(market)].limit = limit
        if self.on_reply is not None:
            self.on_reply(market, target, self._clock.micros(), reply.body)
        return reply

    async def send(
        self,
        market: Market,
        endpoint: str,
        weight: int,
        prepare: Callable[[], Outgoing],
        *,
        background: bool = False,
    ) -> Reply:
        """Send a request as ``get`` does, without telling ``on_reply``.

        Args:
            market: whose host to ask.
            endpoint: what errors and events call it; names of parameters, never values.
            weight: what it costs.
            prepare: makes the request; called just before each attempt leaves, so that its time is fresh.
            background: whether live work goes first.

        Raises:
            RateLimited: the IP is refused for longer than ``rest_wait_seconds``, or banned.
            RequestRefused: the exchange answered with an error.
            ConnectionLost: no answer, after all attempts.
        """
        backoff = Backoff(self._settings, self._random)
        while True:
            await self._room(market, endpoint, weight, background=background)
            try:
                return await self._once(market, prepare(), endpoint)
            except SourceError as error:
                wait = backoff.failed()
                if backoff.attempt >= self._settings.rest_attempts or not self._retryable(error):
                    self._rejected(market, error)
                    raise
            await asyncio.sleep(wait)

    def _retryable(self, error: SourceError) -> bool:
        if isinstance(error, RateLimited):
            return not error.banned and error.retry_after <= self._settings.rest_wait_seconds
        return not isinstance(error, RequestRefused) or error.status >= _SERVER_ERROR

    async def _room(self, market: Market, endpoint: str, weight: int, *, background: bool) -> None:
        budget = self.budgets[family(market)]
        waited = 0.0
        while (wait := budget.reserve(self._now(), weight, background=background)) > 0:
            waited += wait
            banned = budget.banned(self._now())
            if banned or waited > self._settings.rest_wait_seconds:
                raise RateLimited(endpoint, wait, banned=banned)
            await asyncio.sleep(wait)

    async def _once(self, market: Market, request: Outgoing, endpoint: str) -> Reply:
        url = URL(self._hosts[market].rest + request.target, encoded=True)
        waiters = self._telemetry.metrics.waiters
        failure = ""
        waiters.inc()
        try:
            async with self._session().request(
                request.method, url, headers=request.headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = getattr(error, "strerror", None) or type(error).__name__
        finally:
            waiters.dec()
        if failure:  # raised out here, as the library's errors hold the whole URL, and a context is kept
            raise ConnectionLost(f"{endpoint}: {failure}")
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        self._weigh(market, headers)
        if response.status != _OK:
            raise self._error(market, endpoint, response.status, headers, body, request.scrub)
        self._telemetry.metrics.requests_resolved_total.labels(market).inc()
        return Reply(response.status, body, headers)

    def _weigh(self, market: Market, headers: Mapping[str, str]) -> None:
        used = headers.get(_USED_WEIGHT, "")
        if used.isdecimal():
            budget = self.budgets[family(market)]
            budget.observed(self._now(), int(used))
            self._telemetry.metrics.request_weight_used.labels(market).set(budget.used)

    def _error(
        self,
        market: Market,
        endpoint: str,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        scrub: Callable[[str], str],
    ) -> SourceError:
        told = _Error()
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            told = _decode_error(body)
        if status in _RETRY_AFTER_SECONDS:
            given = headers.get("Retry-After", "")
            wait = float(given) if given.isdecimal() else _RETRY_AFTER_SECONDS[status]
            self.budgets[family(market)].refused(self._now(), wait, banned=status == _TEAPOT)
            if status != _FIREWALL:
                return RateLimited(endpoint, wait, banned=status == _TEAPOT)
        message = scrub(told.msg)[:_TOLD_CHARACTERS] or "no message"
        return RequestRefused(endpoint, status, told.code, message)

    def _rejected(self, market: Market, error: SourceError) -> None:
        status = error.status if isinstance(error, RequestRefused) else None
        self._telemetry.emit(
            Lifecycle(event="request.rejected", market=market, code=status, reason=str(error))
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            hush("aiohttp", "aiohttp.client", "aiohttp.internal")
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=20, ssl=self._tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=self._settings.rest_seconds),
                trust_env=False,
            )
        return self._http

    def _now(self) -> float:
        return self._clock.micros() / 1e6
