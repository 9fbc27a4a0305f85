"""One request of a client that was let in, and what answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey
    from bridge.simulator.accounts.listen_keys import ListenKeys
    from bridge.simulator.accounts.params import Params
    from bridge.simulator.accounts.registry import Account

Security = Literal["USER_DATA", "TRADE", "KEY"]
"""``KEY`` needs the key alone, unsigned (listen keys)."""


class Call(NamedTuple):
    """A request that may be answered."""

    market: Market
    account: Account
    key: ApiKey
    params: Params
    now_ms: int
    listen_keys: ListenKeys


class Endpoint(NamedTuple):
    """What answers a path, what it takes to be let in, and what it costs.

    Attributes:
        answer: returns the JSON to answer with; raises ``Refused``.
        security: what it takes.
        weight: request weight.
        orders: it places orders, which are counted; a success costs no weight.
    """

    answer: Callable[[Call], object]
    security: Security
    weight: int | Callable[[Params], int]
    orders: bool = False

    def cost(self, params: Params) -> int:
        """Return the request weight."""
        return self.weight if isinstance(self.weight, int) else self.weight(params)
