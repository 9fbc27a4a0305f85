"""Listen keys of futures: one per account and market, alive for an hour from the last time it was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.simulator.accounts.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Market


@dataclass(slots=True)
class ListenKey:
    """A key to a private stream; its text does not show when printed."""

    account: str
    market: Market
    text: str = field(repr=False)
    expires_ms: int


class ListenKeys:
    """The listen keys that are alive.

    Args:
        make_text: makes a new key's text.
        alive_ms: how long one lives without being kept alive.
    """

    def __init__(self, make_text: Callable[[], str], alive_ms: int) -> None:
        self._make_text, self._alive_ms = make_text, alive_ms
        self._alive: dict[tuple[str, Market], ListenKey] = {}
        self._by_text: dict[str, ListenKey] = {}

    def create(self, account: str, market: Market, now_ms: int) -> str:
        """Return the account's key, a new one where it has none alive; either lives for the whole time again."""
        found = self._alive.get((account, market))
        if found is None:
            found = ListenKey(account, market, self._make_text(), 0)
            self._alive[account, market] = self._by_text[found.text] = found
        found.expires_ms = now_ms + self._alive_ms
        return found.text

    def keep_alive(self, account: str, market: Market, now_ms: int) -> str:
        """Let the account's key live for the whole time again.

        Raises:
            Refused: -1125, it has none.
        """
        if (account, market) not in self._alive:
            raise Refused(-1125, "This listenKey does not exist.")
        return self.create(account, market, now_ms)

    def close(self, account: str, market: Market) -> None:
        """End the account's key."""
        found = self._alive.pop((account, market), None)
        if found is not None:
            del self._by_text[found.text]

    def find(self, text: str) -> ListenKey | None:
        """Return a key that is alive by its text."""
        return self._by_text.get(text)

    def of(self, account: str, market: Market) -> ListenKey | None:
        """Return an account's key that is alive."""
        return self._alive.get((account, market))

    def overdue(self, now_ms: int) -> list[ListenKey]:
        """End and return the keys whose time is over."""
        late = [key for key in self._alive.values() if key.expires_ms <= now_ms]
        for key in late:
            self.close(key.account, key.market)
        return late
