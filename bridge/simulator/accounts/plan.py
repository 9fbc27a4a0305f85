"""The accounts plan: which accounts there are, with which keys and money, and what happens on them.

A YAML or JSON mapping::

    accounts:
      - name: main
        keys:
          - {key: …, secret_file: main.secret, permissions: [reading]}
          - {name: ed, key: …, public_key_file: ed.pem, permissions: [reading, spot, futures], addresses: [127.0.0.1]}
        spot: {USDT: "10000", BTC: "0.5"}
        usdm: {USDT: "5000"}
        fills: script
    script:
      - {at: 2, do: place, symbol: BTCUSDT, side: BUY, type: LIMIT, timeInForce: GTC, quantity: "0.1", price: "80000",
         newClientOrderId: first}
      - {at: 3, do: fill, order: first, quantity: "0.04"}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bridge.errors import ConfigError
from bridge.model import MARKETS
from bridge.simulator.accounts.checked import Entry
from bridge.simulator.accounts.keys import PERMISSIONS, ApiKey, read_public_key
from bridge.simulator.accounts.script import STEPS, Step

if TYPE_CHECKING:
    from decimal import Decimal

    from bridge.simulator.accounts.keys import Permission
    from bridge.simulator.accounts.registry import Account, Registry

_KEY_FIELDS = frozenset(
    {"name", "key", "secret", "secret_file", "public_key", "public_key_file", "permissions", "addresses"}
)
_FILLS = ("market", "script")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAccount:
    """An account as a plan describes it.

    Attributes:
        name: what the simulator calls it.
        keys: the entries of its keys, checked when it is opened.
        money: assets and amounts by market.
        scripted: orders fill only when a script says so.
        fees: maker and taker rate by market.
    """

    name: str
    keys: tuple[Entry, ...] = field(default=(), repr=False)
    money: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    scripted: bool = False
    fees: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsPlan:
    """Accounts and what happens on them."""

    accounts: tuple[PlannedAccount, ...] = ()
    script: tuple[Step, ...] = ()
    folder: Path = Path()


def read_accounts(path: Path) -> AccountsPlan:
    """Read an accounts plan; files it names are looked for beside it.

    Raises:
        ConfigError: it cannot be read or an entry is wrong; no secret is repeated.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"accounts plan {path}: {error}") from error
    except yaml.YAMLError as error:
        # the parser's message quotes the line it failed at, which may hold a secret
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"accounts plan {path}{line}: is not YAML") from None
    return parse_accounts(found or {}, str(path), path.parent)


def parse_accounts(found: object, where: str = "plan", folder: Path = Path()) -> AccountsPlan:
    """Check a plan that was read from YAML or JSON.

    Raises:
        ConfigError: as :func:`read_accounts`.
    """
    entry = Entry(where, found)
    entry.only(("accounts", "script"))
    accounts = tuple(
        parse_account(one, f"{where}.accounts[{at}]") for at, one in enumerate(entry.items("accounts"))
    )
    return AccountsPlan(accounts=accounts, script=parse_script(entry.items("script"), where), folder=folder)


def parse_account(found: object, where: str = "account") -> PlannedAccount:
    """Check one account of a plan.

    Raises:
        ConfigError: as :func:`read_accounts`.
    """
    entry = Entry(where, found)
    entry.only({"name", "keys", "fills", "fees", *MARKETS})
    money: dict[str, dict[str, Decimal]] = {}
    for market in MARKETS:
        wallet = entry.inner(market)
        money[market] = {asset: wallet.amount(asset) for asset in wallet.found}
    fees = entry.inner("fees")
    fees.only(MARKETS)
    return PlannedAccount(
        name=entry.text("name"),
        keys=tuple(Entry(f"{where}.keys[{at}]", one) for at, one in enumerate(entry.items("keys"))),
        money=money,
        scripted=entry.one_of("fills", _FILLS, "market") == "script",
        fees={m: (fees.inner(m).amount("maker"), fees.inner(m).amount("taker")) for m in fees.found},
    )


def parse_script(found: object, where: str = "plan") -> tuple[Step, ...]:
    """Check the steps of a script.

    Raises:
        ConfigError: a step is no mapping, or does nothing that is known.
    """
    steps = found if isinstance(found, list) else [found]
    made = []
    for at, one in enumerate(steps):
        entry = Entry(f"{where}.script[{at}]", one)
        entry.one_of("do", tuple(STEPS))
        fields = {key: value for key, value in entry.found.items() if key != "at"}
        made.append(Step(entry.seconds("at"), fields))
    return tuple(made)


class Made:
    """A key that was given out, with its secret where the simulator made that up; nothing shows when printed."""

    __slots__ = ("key", "secret")

    def __init__(self, key: ApiKey, secret: str | None) -> None:
        self.key, self.secret = key, secret


def open_account(
    registry: Registry, planned: PlannedAccount, now_ms: int, folder: Path = Path()
) -> tuple[Account, list[Made]]:
    """Open an account with its keys and money; deposits are events like any other.

    Raises:
        ConfigError: a key is wrong, or there is an account of that name.
    """
    keys = [
        _read_key(registry, entry, planned.name, f"key-{at}", now_ms, folder)
        for at, entry in enumerate(planned.keys)
    ]
    account = registry.open(planned.name, scripted=planned.scripted, fees=planned.fees)
    for made in keys:
        registry.give(made.key)
    for asset, amount in planned.money.get("spot", {}).items():
        account.spot.deposit(asset, amount, now_ms)
    for side in (account.usdm, account.coinm):
        for asset, amount in planned.money.get(side.market, {}).items():
            side.credit(asset, amount, "DEPOSIT", now_ms)
    return account, keys


def add_key(registry: Registry, account: str, found: object, now_ms: int) -> Made:
    """Give an account another key, or one in place of the one of the same name.

    Raises:
        ConfigError: the key is wrong, or there is no such account.
    """
    name = f"key-{len(registry.named(account).keys)}"
    made = _read_key(registry, Entry("key", found), account, name, now_ms, Path())
    registry.give(made.key)
    return made


def _read_key(
    registry: Registry, entry: Entry, account: str, usual_name: str, now_ms: int, folder: Path
) -> Made:
    """Read a key; text and secret are made up where they are not given."""
    entry.only(_KEY_FIELDS)
    permissions = _permissions(entry)
    key = ApiKey(
        account=account,
        name=entry.text("name", usual_name),
        key=entry.text("key", registry.make_text()),
        permissions=permissions,
        addresses=tuple(str(address) for address in entry.items("addresses")),
        created_ms=now_ms,
    )
    pem = _text_or_file(entry, "public_key", folder)
    if pem is not None:
        key.kind, key.public_key = read_public_key(pem, f"{entry.where}.public_key")
        return Made(key, None)
    secret = _text_or_file(entry, "secret", folder)
    made = registry.make_text() if secret is None else None
    key.secret = (secret or made or "").encode()
    return Made(key, made)


def _permissions(entry: Entry) -> set[Permission]:
    if "permissions" not in entry.found:
        return {"reading"}
    inner = [Entry(entry.where, {"permissions": name}) for name in entry.items("permissions")]
    return {one.one_of("permissions", PERMISSIONS) for one in inner}


def _text_or_file(entry: Entry, name: str, folder: Path) -> str | None:
    if name in entry.found:
        return entry.text(name)
    if f"{name}_file" not in entry.found:
        return None
    path = folder / entry.text(f"{name}_file")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{entry.where}.{name}_file: {path} cannot be read: {error}") from error
