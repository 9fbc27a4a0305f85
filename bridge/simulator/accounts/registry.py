"""All accounts of the exchange, and the one place where their events come out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from bridge.errors import ConfigError
from bridge.simulator.accounts import futures_views
from bridge.simulator.accounts.futures import FuturesAccount
from bridge.simulator.accounts.sequences import Sequences
from bridge.simulator.accounts.spot import Fees, SpotAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey
    from bridge.simulator.accounts.order_counts import OrderCounts
    from bridge.simulator.accounts.venue import Venue

Json = dict[str, object]

_USUAL_FEES = {
    "spot": (Decimal("0.001"), Decimal("0.001")),
    "usdm": (Decimal("0.0002"), Decimal("0.0005")),
    "coinm": (Decimal("0.0001"), Decimal("0.0005")),
}


class UserEvent(NamedTuple):
    """One event of an account.

    Attributes:
        account: whose.
        market: of which side of it.
        kind: the event type ``e``.
        number: counts the events of all accounts from 0.
        data: the payload's JSON as UTF-8, without any wrapper.
        event_time_ms: when it happened, in exchange time.
    """

    account: str
    market: Market
    kind: str
    number: int
    data: bytes
    event_time_ms: int


@dataclass(slots=True, kw_only=True)
class Account:
    """One account: three sides, the keys to it, and how many orders it placed lately."""

    name: str
    uid: int
    spot: SpotAccount
    usdm: FuturesAccount
    coinm: FuturesAccount
    keys: dict[str, ApiKey] = field(default_factory=dict)
    counts: dict[str, OrderCounts] = field(default_factory=dict)

    def futures(self, market: str) -> FuturesAccount:
        """Return the side of a futures market."""
        return self.usdm if market == "usdm" else self.coinm

    @property
    def told_ms(self) -> int:
        """Time of the newest event of any side."""
        return max(self.spot.told_ms, self.usdm.told_ms, self.coinm.told_ms)

    def match(self, now_ms: int) -> None:
        """Let the market's trades do their work on what is open."""
        self.spot.match(now_ms)
        self.usdm.match(now_ms)
        self.coinm.match(now_ms)

    def state(self) -> Json:
        """Return all that REST would show; no keys."""
        state: Json = {"name": self.name, "spot": self._spot_state()}
        for side in (self.usdm, self.coinm):
            state[side.market] = {
                "balances": futures_views.balances(side),
                "positions": futures_views.position_risk(side, full=True),
                "orders": [order.row() for order in side.orders.values()],
                "algoOrders": [algo.row() for algo in side.algos.values()],
                "trades": [trade.row() for trade in side.trades],
                "income": [entry.row() for entry in side.income],
            }
        return state

    def _spot_state(self) -> Json:
        return {
            "balances": self.spot.row(self.uid)["balances"],
            "orders": [order.row() for order in self.spot.orders.values()],
            "orderLists": [listed.row() for listed in self.spot.lists.values()],
            "trades": [trade.row() for trade in self.spot.trades],
        }


class Registry:
    """All accounts.

    Args:
        venue: the market they trade on; None where there is none to trade on, and there can be no accounts.
        seed: makes ids and keys repeat.
        told: called with every event, in order.

    Attributes:
        accounts: by name.
        events: how many events there were.
    """

    def __init__(self, venue: Venue | None, seed: int, told: Callable[[UserEvent], None]) -> None:
        self.accounts: dict[str, Account] = {}
        self.events = 0
        self._venue, self._told = venue, told
        self._sequences = Sequences(seed)
        self._random = Random(f"keys {seed}")  # noqa: S311 - keys of made-up accounts
        self._keys: dict[str, ApiKey] = {}

    def open(
        self, name: str, *, scripted: bool = False, fees: Mapping[str, tuple[Decimal, Decimal]] | None = None
    ) -> Account:
        """Open an account without money or keys.

        Args:
            name: what the simulator calls it.
            scripted: orders fill only when a script says so.
            fees: maker and taker rate by market, in place of the usual ones.

        Raises:
            ConfigError: there is one of that name, or no market to trade on.
        """
        if self._venue is None:
            raise ConfigError("accounts need a made-up market; leave out --accounts when replaying a capture")
        if name in self.accounts:
            raise ConfigError(f"account {name!r}: there is one already")
        rates = {**_USUAL_FEES, **(fees or {})}
        spot, usdm, coinm = (Fees(maker=maker, taker=taker) for maker, taker in rates.values())
        venue, sequences = self._venue, self._sequences
        alias = sequences.client_id()[:8]
        account = Account(
            name=name,
            uid=sequences.next("uid"),
            spot=SpotAccount(venue, sequences, self._teller(name, "spot"), spot, scripted=scripted),
            usdm=FuturesAccount(
                "usdm", venue, sequences, self._teller(name, "usdm"), usdm, alias=alias, scripted=scripted
            ),
            coinm=FuturesAccount(
                "coinm", venue, sequences, self._teller(name, "coinm"), coinm, alias=alias, scripted=scripted
            ),
        )
        self.accounts[name] = account
        return account

    def named(self, name: str) -> Account:
        """Return an account by its name.

        Raises:
            ConfigError: there is none.
        """
        found = self.accounts.get(name)
        if found is None:
            known = ", ".join(self.accounts) or "none"
            raise ConfigError(f"account {name!r} does not exist; there are: {known}")
        return found

    def give(self, key: ApiKey) -> ApiKey:
        """Give an account a key; an old one of the same name goes.

        Raises:
            ConfigError: another key has the same text.
        """
        if key.key in self._keys and self._keys[key.key].name != key.name:
            raise ConfigError(f"account {key.account!r}: key {key.name!r} has the text of another key")
        account = self.named(key.account)
        old = account.keys.get(key.name)
        if old is not None:
            self._keys.pop(old.key, None)
        account.keys[key.name] = self._keys[key.key] = key
        return key

    def make_text(self) -> str:
        """Return a text such as API keys and HMAC secrets have: 64 letters and digits."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        return "".join(self._random.choices(letters, k=64))

    def key(self, text: str) -> ApiKey | None:
        """Return the key that a request carries; None where it does not exist or was deleted."""
        found = self._keys.get(text)
        return None if found is None or found.revoked else found

    def keys_of(self, account: Callable[[str], bool], name: Callable[[str], bool]) -> Iterator[ApiKey]:
        """Yield the keys whose account and name match."""
        for one in self.accounts.values():
            for key in one.keys.values():
                if account(one.name) and name(key.name):
                    yield key

    def match(self, now_ms: int) -> None:
        """Let the market's trades do their work on every account."""
        for account in self.accounts.values():
            account.match(now_ms)

    def _teller(self, account: str, market: Market) -> Callable[[Json, int], None]:
        def tell(event: Json, time_ms: int) -> None:
            data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
            number = self.events
            self.events += 1
            self._told(UserEvent(account, market, str(event["e"]), number, data, time_ms))

        return tell
