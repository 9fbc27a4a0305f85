"""Where Binance listens: base URLs per environment and market, and how configuration replaces them.

Sources: facts sheets, spot section 1.1 and derivatives section 1.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bridge.errors import ConfigError
from bridge.model import MARKETS, Environment, Market

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Hosts:
    """The base URLs of one market.

    Attributes:
        stream: WebSocket streams, without path (``wss://stream.binance.com:9443``).
        rest: REST, without ``/api/v3`` and the like.
        ws_api: the WebSocket API with its path, or None where none is known.
        stream_fallbacks: further stream hosts, tried in turn when the first can't be reached.
        second_stream: where the second leg goes, for redundancy; None where the market has one host only.
        microseconds: ask for times in microseconds; spot alone can.
    """

    stream: str
    rest: str
    ws_api: str | None
    stream_fallbacks: tuple[str, ...] = ()
    second_stream: str | None = None
    microseconds: bool = False

    def legs(self, count: int) -> tuple[Hosts, ...]:
        """Return the hosts of each of ``count`` (1 or 2) legs: the same market, another stream host first.

        A leg whose own hosts can't be reached goes to the other's: two connections to one host are still
        more than one. Where a market has a single host, both legs go there.
        """
        own = (self.stream, *self.stream_fallbacks)
        second = self.stream if self.second_stream is None else self.second_stream
        first_leg = tuple(dict.fromkeys((*own, second)))
        second_leg = tuple(dict.fromkeys((second, *reversed(own))))
        ways = (first_leg, second_leg)[:count]
        return tuple(replace(self, stream=way[0], stream_fallbacks=way[1:]) for way in ways)

    def stream_url(self, path: str, attempt: int = 0) -> str:
        """Return the combined-stream URL of a path (``public``, ``market`` or "").

        Combined always: partial depth, diff depth and RPI depth differ by the stream's name alone.
        ``attempt`` walks through the fallbacks.
        """
        bases = (self.stream, *self.stream_fallbacks)
        base = bases[attempt % len(bases)].rstrip("/")
        query = "?timeUnit=MICROSECOND" if self.microseconds else ""
        return f"{base}/{path}/stream{query}" if path else f"{base}/stream{query}"


HOSTS: Mapping[Environment, Mapping[Market, Hosts]] = {
    "prod": {
        "spot": Hosts(
            stream="wss://stream.binance.com:9443",
            rest="https://api.binance.com",
            ws_api="wss://ws-api.binance.com:443/ws-api/v3",
            stream_fallbacks=("wss://stream.binance.com:443",),
            second_stream="wss://data-stream.binance.vision",
        ),
        "usdm": Hosts(
            stream="wss://fstream.binance.com",
            rest="https://fapi.binance.com",
            ws_api="wss://ws-fapi.binance.com/ws-fapi/v1",
        ),
        "coinm": Hosts(
            stream="wss://dstream.binance.com",
            rest="https://dapi.binance.com",
            ws_api="wss://ws-dapi.binance.com/ws-dapi/v1",
        ),
    },
    "demo": {
        "spot": Hosts(
            stream="wss://demo-stream.binance.com:9443",
            rest="https://demo-api.binance.com",
            ws_api="wss://demo-ws-api.binance.com/ws-api/v3",
            stream_fallbacks=("wss://demo-stream.binance.com",),
            second_stream="wss://demo-stream.binance.com",
        ),
        "usdm": Hosts(
            stream="wss://demo-fstream.binance.com", rest="https://demo-fapi.binance.com", ws_api=None
        ),
        "coinm": Hosts(
            stream="wss://demo-dstream.binance.com", rest="https://demo-dapi.binance.com", ws_api=None
        ),
    },
    "testnet": {
        "spot": Hosts(
            stream="wss://stream.testnet.binance.vision:9443",
            rest="https://testnet.binance.vision",
            ws_api="wss://ws-api.testnet.binance.vision/ws-api/v3",
            stream_fallbacks=("wss://stream.testnet.binance.vision",),
            second_stream="wss://stream.testnet.binance.vision",
        ),
        "usdm": Hosts(
            stream="wss://fstream.binancefuture.com",
            second_stream="wss://stream.binancefuture.com",
            rest="https://testnet.binancefuture.com",
            ws_api="wss://testnet.binancefuture.com/ws-fapi/v1",
        ),
        "coinm": Hosts(
            stream="wss://dstream.binancefuture.com",
            rest="https://testnet.binancefuture.com",
            ws_api="wss://testnet.binancefuture.com/ws-dapi/v1",
        ),
    },
}

#: Binance's domains, the narrower first. Hosts of demo are those of prod with the prefix ``demo-``.
_DOMAINS: tuple[tuple[str, Environment], ...] = (
    ("testnet.binance.vision", "testnet"),
    ("binancefuture.com", "testnet"),
    ("binance.vision", "prod"),
    ("binance.com", "prod"),
)

_SCHEMES = {"stream": ("wss", "ws"), "rest": ("https", "http"), "ws_api": ("wss", "ws")}


def hosts_of(
    environment: Environment,
    endpoints: Mapping[str, Mapping[str, str | Sequence[str] | None]] | None = None,
    *,
    allow_insecure: bool = False,
) -> dict[Market, Hosts]:
    """Return the hosts of every market, with those of configuration in place of the exchange's own.

    Args:
        environment: which exchange.
        endpoints: ``{"spot": {"stream": "ws://127.0.0.1:9443", "rest": …, "ws_api": …}}``; what is left out
            or None stays the exchange's own. ``stream`` may be two URLs: of the first and the second leg.
        allow_insecure: allow ``ws`` and ``http`` to more than loopback.

    Raises:
        ConfigError: an endpoint is unknown, no base URL, another environment's, or unencrypted beyond loopback; names
            the key.
    """
    found = dict(HOSTS[environment])
    for market, given in (endpoints or {}).items():
        if market not in found:
            raise ConfigError(f"endpoints.{market} is no market{_nearest(market, MARKETS)}")
        for name, url in given.items():
            key = f"endpoints.{market}.{name}"
            if name not in _SCHEMES:
                raise ConfigError(f"{key} is unknown{_nearest(name, tuple(_SCHEMES))}")
            if url is not None:
                urls = [_checked(key, name, one, allow_insecure) for one in _listed(key, name, url)]
                _require_own(key, environment, urls)
                found[market] = _replaced(found[market], name, urls)
    return found


def environment_of(url: str) -> Environment | None:
    """Return the environment whose host a URL names; None for hosts that are not Binance's (a simulator, a proxy)."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    for domain, environment in _DOMAINS:
        if host == domain or host.endswith(f".{domain}"):
            return "demo" if environment == "prod" and host.startswith("demo-") else environment
    return None


def require_environment(environment: Environment, *urls: str | None) -> None:
    """Refuse to send to another environment's hosts.

    Raises:
        ConfigError: a URL names a host of another environment.
    """
    for url in urls:
        other = None if url is None else environment_of(url)
        if other not in (None, environment):
            raise ConfigError(
                f"{urlsplit(url or '').hostname} is a host of {other}, and the environment is {environment}: "
                "set environment to what the endpoint is, or leave the endpoint out"
            )


def shown(url: str) -> str:
    """Return a URL as it may be shown: scheme, host, port and path, never user, password or query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _listed(key: str, name: str, url: str | Sequence[str]) -> Sequence[str]:
    """Return one URL, or two where a stream has two legs."""
    if isinstance(url, str):
        return (url,)
    if name != "stream" or len(url) != 2:
        raise ConfigError(f"{key} holds {len(url)} URLs; only stream may be a list, of two: one for each leg")
    return url


def _require_own(key: str, environment: Environment, urls: Sequence[str]) -> None:
    try:
        require_environment(environment, *urls)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def _replaced(hosts: Hosts, name: str, urls: Sequence[str]) -> Hosts:
    url = urls[0]
    if name == "stream":
        second = urls[1] if len(urls) > 1 else None
        return replace(hosts, stream=url, stream_fallbacks=(), second_stream=second)
    return replace(hosts, rest=url) if name == "rest" else replace(hosts, ws_api=url)


def _checked(key: str, name: str, url: str, allow_insecure: bool) -> str:
    secure, plain = _SCHEMES[name]
    wanted = f"{key} must be a base URL such as {secure}://host:port"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"{wanted}; host or port of the one given can't be read") from None
    if parts.scheme not in (secure, plain) or not parts.hostname:
        raise ConfigError(f"{wanted} (or {plain}:// to loopback); found scheme {parts.scheme!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{wanted}, without user, password or query")
    if parts.scheme == plain and not allow_insecure and not _loopback(parts.hostname):
        raise ConfigError(
            f"{key} is unencrypted and {parts.hostname} is not this machine: "
            f"use {secure}://, or set allow_insecure: true"
        )
    return url.rstrip("/")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
