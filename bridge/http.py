"""The HTTP endpoint: metrics, health, state and the status page. Read only; tells no secret."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Self

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from bridge import status_page
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prometheus_client import CollectorRegistry

    from bridge.status import ConnectionReport, StatusReport

log = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "binance-bridge",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


class HttpEndpoint:
    """Serves what a bridge process tells about itself.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which :attr:`port` tells after :meth:`start`.
        registry: the metrics of ``/metrics``.
        status: the report of ``/status`` and the status page.
        ready: whether the bridge does its work, and why (not); ``/readyz`` answers 200 or 503.
        live: whether the process is worth keeping, and why (not); ``/healthz`` answers 200 or 503.
        connections: the open connections of ``/connections``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        status: Callable[[], StatusReport],
        ready: Callable[[], tuple[bool, str]],
        live: Callable[[], tuple[bool, str]],
        connections: Callable[[], list[ConnectionReport]],
    ) -> None:
        self.host = host
        self.port = port
        self._registry = registry
        self._status = status
        self._ready = ready
        self._live = live
        self._connections = connections
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the status page."""
        return base_url(self.host, self.port)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        application = web.Application(middlewares=[_guarded])
        application.router.add_get("/", self._page)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/status", self._status_json)
        application.router.add_get("/connections", self._connections_json)
        # A scraper that never goes away must not hold up the end of the process.
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            reason = (error.strerror or str(error)).lower().rpartition(": ")[2]
            raise ConfigError(
                f"http: cannot listen on {self.host}:{self.port}, {reason}; set http.host and http.port"
            ) from None
        self._runner = runner
        self.port = int(runner.addresses[0][1])
        log.info("status page: %s", self.url)

    async def stop(self) -> None:
        """Stop listening and end open requests. Does nothing when not started."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _page(self, _request: web.Request) -> web.Response:
        page = status_page.render(self._status())
        return web.Response(
            text=page, content_type="text/html", headers={"Content-Security-Policy": status_page.POLICY}
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # With metrics per symbol this takes tens of milliseconds, for which receiving must not wait.
        body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _verdict(*self._live())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(*self._ready())

    async def _status_json(self, _request: web.Request) -> web.Response:
        return _json(self._status())

    async def _connections_json(self, _request: web.Request) -> web.Response:
        return _json(self._connections())


def base_url(host: str, port: int) -> str:
    """Return the URL that reaches an endpoint listening on ``host`` from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared only
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _verdict(good: bool, reason: str) -> web.Response:
    return web.Response(text=f"{reason or ('ok' if good else 'not ok')}\n", status=200 if good else 503)


def _json(value: object) -> web.Response:
    return web.json_response(value, dumps=lambda found: json.dumps(found, ensure_ascii=False))


@web.middleware
async def _guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Put the protective headers on every answer, refusals and failures included."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        allowed = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
        response = web.Response(status=refusal.status, text=f"{refusal.reason}\n", headers=allowed)
    except Exception:
        log.exception("answering %s failed", request.path)
        response = web.Response(status=500, text="the bridge could not answer; its log has the reason\n")
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", _NOTHING)
    return response
