"""The kinds of values a configuration holds, each with the sentence that says what would be right."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator

from bridge.config_problems import refuse, shown
from bridge.model import Market

if TYPE_CHECKING:
    from bridge.catalogue import Choice


def _not_boolean(value: object) -> object:
    """YAML's ``yes`` is not the number 1."""
    return refuse(value, "a whole number") if isinstance(value, bool) else value


def _digits(value: object) -> object:
    """Variables and quotes make text of a number."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def pattern(expression: str, expected: str) -> AfterValidator:
    """Text that matches ``expression`` as a whole."""

    def check(value: str) -> str:
        return value if re.fullmatch(expression, value) else refuse(value, expected)

    return AfterValidator(check)


def _readable(value: Path) -> Path:
    """Refuse a file that cannot be read, now rather than at the first connection."""
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise ValueError(
            f"cannot read {shown(str(value))}, {reason}; expected the path of a readable file"
        ) from None


def _replicas(value: int) -> int:
    expected = "1 to 100, or -1 for the cluster's own default"
    return value if value == -1 or 1 <= value <= 100 else refuse(value, expected)


def _bootstrap_servers(value: object) -> object:
    """Accept a list as well as text; check each ``host:port``; give the comma-separated text."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        refuse(value, "host:port, several separated by commas")
    servers = [part.strip() if isinstance(part, str) else part for part in parts]
    for server in servers:
        if not isinstance(server, str) or not is_host_port(server):
            refuse(server, "host:port, such as kafka-0.example.com:9092")
    return ",".join(servers)


def is_host_port(text: str) -> bool:
    """Tell whether the text is ``host:port`` or ``[address]:port``, with a port one can connect to."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare and bare == host:
        return False
    return (
        bool(re.fullmatch(r"[A-Za-z0-9._:-]+", bare))
        and port.isascii()
        and port.isdigit()
        and 0 < int(port) < 65_536
    )


def split_url(text: str) -> SplitResult | None:
    """Return the parts of a URL, or None where it is none."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme and re.fullmatch(r"[^\s]+", text) else None


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_check(*schemes: str) -> Callable[[str], str]:
    example = f"{schemes[-1]}://host:port"

    def check(value: str) -> str:
        url = split_url(value)
        if "@" in (url.netloc if url is not None else value):
            raise ValueError(f"found a URL with a user name or password in it; expected {example} without")
        if url is not None and (url.query or url.fragment):
            raise ValueError(f"found a URL with a query or fragment; expected {example} without")
        if url is None or not url.hostname or url.scheme not in schemes:
            refuse(value, f"a URL such as {example}" + (f" or {schemes[0]}://…" if len(schemes) > 1 else ""))
        return value.rstrip("/")

    return check


def _stream_urls(value: object) -> object:
    """One URL, or the two of the first and the second leg."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError(f"found a list of {len(value)}; expected one URL, or two: one for each leg")
        return tuple(_stream_urls(one) for one in value)
    if not isinstance(value, str):
        refuse(value, "a URL such as wss://host:port, or a list of two")
    return _stream_url(value)


def _symbols(value: object) -> object:
    if value in ("*", ["*"]):
        return "*"
    if not isinstance(value, (list, tuple)):
        refuse(value, 'a list such as ["BTC/USDT", "ETHUSDT"], or "*" for all')
    if "*" in value:
        raise ValueError('found "*" beside other symbols; expected "*" alone or a list without it')
    return distinct(value, "symbol")


def distinct(values: Sequence[object], noun: str) -> tuple[object, ...]:
    """Return the texts of a list that has some, none of them twice."""
    if not values:
        refuse(values, f"at least one {noun}")
    seen: set[str] = set()
    for value in values:
        if not isinstance(value, str) or not value or value != value.strip():
            refuse(value, f"a {noun} as text, in quotes where it looks like something else")
        if value in seen:
            raise ValueError(f"found {shown(value)} twice; name each {noun} once")
        seen.add(value)
    return tuple(values)


def distinct_list(noun: str) -> BeforeValidator:
    """A list of texts, none of them twice."""

    def check(value: object) -> object:
        if isinstance(value, str):
            refuse(value, f"a list, such as [{value}]")
        return distinct(value, noun) if isinstance(value, (list, tuple)) else value

    return BeforeValidator(check)


def channel_choice(market: Market, text: str) -> "Choice":
    """Return what a channel asks for, by the catalogue.

    Raises:
        ConfigError: the market has no such channel, option or speed.
    """
    from bridge.catalogue import catalogue  # late: compiling the catalogue is for commands that read it

    return catalogue().parse_channel(market, text)


def plain_symbol(symbol: str) -> str:
    """Return ``BTCUSDT`` for ``BTC/USDT``, ``BTC/USDT:USDT`` and ``BTCUSDT``; delivery dates stay."""
    pair, _, settled = symbol.partition(":")
    _, dash, delivery = settled.partition("-")
    return pair.replace("/", "").upper() + dash + delivery


_stream_url = _url_check("ws", "wss")

Whole: TypeAlias = Annotated[int, BeforeValidator(_not_boolean)]
"""A whole number; ``true`` is none."""
DIGITS = BeforeValidator(_digits)
"""For a choice of whole numbers."""
UPPER_CASE = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
Replicas: TypeAlias = Annotated[Whole, AfterValidator(_replicas)]
ReadableFile: TypeAlias = Annotated[Path, AfterValidator(_readable)]
StreamUrl: TypeAlias = Annotated[str, AfterValidator(_stream_url)]
StreamUrls: TypeAlias = Annotated[str | tuple[str, str], BeforeValidator(_stream_urls)]
HttpUrl: TypeAlias = Annotated[str, AfterValidator(_url_check("http", "https"))]
BootstrapServers: TypeAlias = Annotated[str, BeforeValidator(_bootstrap_servers)]
SYMBOLS = BeforeValidator(_symbols)
