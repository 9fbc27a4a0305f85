"""Private REST: requests signed with an account's key, by the exchange's clock, within the weight that all share.

No key, signature, listen key or signed URL is shown by anything here: errors name the path and the names of parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
from pydantic import SecretStr

from bridge.binance.exchange_clock import ExchangeClock
from bridge.binance.hosts import require_environment
from bridge.binance.rest import Outgoing
from bridge.binance.signing import KEY_HEADER
from bridge.core.refusals import BAD_TIME, KeyPermissions, read_permissions
from bridge.core.weight import weight_of
from bridge.errors import RequestRefused, UnexpectedMessage
from bridge.model import MARKETS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from bridge.binance.clock import Clock
    from bridge.binance.rest import Reply, RestClient
    from bridge.binance.signing import AccountKey
    from bridge.core.private_settings import PrivateSettings
    from bridge.model import Market
    from bridge.telemetry import Telemetry

LISTEN_KEY_PATHS: Mapping[Market, str] = {"usdm": "/fapi/v1/listenKey", "coinm": "/dapi/v1/listenKey"}
_PERMISSIONS = "/sapi/v1/account/apiRestrictions"
_ASKED = TypeVar("_ASKED")


class SignedReply(NamedTuple):
    """An answer with status 200.

    Attributes:
        asked_at: when the request left, by the exchange's clock; microseconds since the epoch. Rather too early than
            too late: what the exchange tells later than this moment is newer than the answer.
        body: the bytes of the answer, exactly.
    """

    asked_at: int
    body: bytes


class _ListenKey(msgspec.Struct):
    listenKey: str  # noqa: N815 - the exchange's own name


_decode_listen_key = msgspec.json.Decoder(_ListenKey).decode


class SignedRest:
    """Private requests of all accounts of an environment.

    Args:
        rest: sends them.
        own: ``recvWindow``, and how often the clock is measured.
        telemetry: shows the clock's offset.
        clock: our clocks.

    Attributes:
        clocks: the exchange's clock, by market.
    """

    def __init__(
        self, rest: RestClient, own: PrivateSettings, telemetry: Telemetry, clock: Clock | None = None
    ) -> None:
        self._rest, self._own = rest, own
        self.clocks = {market: ExchangeClock(rest, market, own, telemetry, clock) for market in MARKETS}

    async def get(
        self,
        key: AccountKey,
        market: Market,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        background: bool = False,
    ) -> SignedReply:
        """GET something private.

        A request whose time the exchange does not accept is signed once more, after its clock was measured anew.

        Args:
            key: of the account.
            market: whose host to ask.
            path: the whole path.
            params: the query, without time and signature.
            background: whether live work goes first.

        Raises:
            RateLimited: the IP is refused for longer than ``rest_wait_seconds``, or banned.
            RequestRefused: the exchange answered with an error.
            ConnectionLost: no answer, after all attempts.
            ConfigError: the host is another environment's than the key.
        """
        query = dict(params or {})
        endpoint = f"{market} GET {path}({', '.join(query)})"
        weight = weight_of(market, path, query)
        asked_at = 0

        def prepare() -> Outgoing:
            nonlocal asked_at
            asked_at = self.clocks[market].least_micros()
            signed = key.signed_query({**query, **self.timing(market)})
            return _outgoing(key, f"{path}?{signed}")

        reply = await self.on_time(
            market,
            lambda: self._send(key, market, endpoint, weight, prepare, background=background),
        )
        return SignedReply(asked_at, reply.body)

    async def permissions(self, key: AccountKey) -> KeyPermissions:
        """Ask what a key may do. Only the exchange itself answers that, neither testnet nor (as far as known) demo.

        Raises:
            SourceError: as :meth:`get`; ``UnexpectedMessage`` for an answer that is something else.
        """
        return read_permissions((await self.get(key, "spot", _PERMISSIONS)).body)

    async def create_listen_key(self, key: AccountKey, market: Market) -> SecretStr:
        """Return the account's listen key of a futures market, a new one where it has none; it lives for an hour."""
        return await self._listen_key(key, market, "POST")

    async def keep_listen_key(self, key: AccountKey, market: Market) -> SecretStr:
        """Let the account's listen key live for an hour from now, and return it.

        Raises:
            RequestRefused: -1125, there is none any more; and as :meth:`get`.
        """
        return await self._listen_key(key, market, "PUT")

    async def close_listen_key(self, key: AccountKey, market: Market) -> None:
        """End the account's listen key, for every connection on it."""
        await self._keyed(key, market, "DELETE")

    def timing(self, market: Market) -> dict[str, str | int]:
        """Return ``timestamp`` and ``recvWindow`` of a request that is signed now."""
        return {
            "recvWindow": self._own.recv_window_ms,
            "timestamp": self.clocks[market].now_micros() // 1000,
        }

    async def on_time(self, market: Market, ask: Callable[[], Awaitable[_ASKED]]) -> _ASKED:
        """Ask; where the exchange finds the time wrong, measure its clock anew and ask once more."""
        await self.clocks[market].ready()
        try:
            return await ask()
        except RequestRefused as error:
            if error.code != BAD_TIME:
                raise
        await self.clocks[market].measure()
        return await ask()

    async def _listen_key(self, key: AccountKey, market: Market, method: str) -> SecretStr:
        reply = await self._keyed(key, market, method)
        try:
            return SecretStr(_decode_listen_key(reply.body).listenKey)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # the error would repeat what it can't read
        raise UnexpectedMessage(f"{market} {method} {LISTEN_KEY_PATHS[market]}: the answer has no listen key")

    async def _keyed(self, key: AccountKey, market: Market, method: str) -> Reply:
        """Send what takes a key and no signature."""
        path = LISTEN_KEY_PATHS[market]
        endpoint = f"{market} {method} {path}()"
        return await self._send(key, market, endpoint, 1, lambda: _outgoing(key, path, method))

    async def _send(
        self,
        key: AccountKey,
        market: Market,
        endpoint: str,
        weight: int,
        prepare: Callable[[], Outgoing],
        *,
        background: bool = False,
    ) -> Reply:
        require_environment(key.environment, self._rest.hosts[market].rest)
        return await self._rest.send(market, endpoint, weight, prepare, background=background)


def _outgoing(key: AccountKey, target: str, method: str = "GET") -> Outgoing:
    return Outgoing(target, method, {KEY_HEADER: key.api_key.get_secret_value()}, key.scrub)
