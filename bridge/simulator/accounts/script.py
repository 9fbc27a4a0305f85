"""Scripted histories: steps that clients or the exchange take on an account, one after the other.

A step is a mapping with ``do``, ``account`` (the first one where it is left out) and what the step takes; see
:data:`STEPS`. ``place`` and its kin take Binance's own parameter names; an order is named by its client order id.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from bridge.errors import ConfigError
from bridge.model import MARKETS
from bridge.simulator.accounts.checked import Entry
from bridge.simulator.accounts.futures import REASONS
from bridge.simulator.accounts.improvise import improvise
from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.spot_requests import oco_legs, oto_legs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from bridge.model import Market
    from bridge.simulator.accounts.futures import FuturesAccount
    from bridge.simulator.accounts.futures_orders import PositionSide
    from bridge.simulator.accounts.registry import Account, Registry

_SIDES: tuple[PositionSide, ...] = ("BOTH", "LONG", "SHORT")
_OWN = frozenset({"do", "account", "market", "at"})
_ORDER = frozenset({"order", "market"})


class Step(NamedTuple):
    """A step and when it is taken, seconds from the start of the script; at once where None."""

    at: float | None
    fields: Mapping[str, object]


class Script:
    """Takes steps.

    Args:
        registry: the accounts.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def take(self, fields: Mapping[str, object], now_ms: int, where: str = "step") -> None:
        """Take one step at ``now_ms``.

        Raises:
            ConfigError: the step is wrong.
            Refused: the exchange refuses it, as it would a client.
        """
        entry = Entry(where, dict(fields))
        name = entry.one_of("do", tuple(STEPS))
        account = self._account(entry)
        market = entry.one_of("market", MARKETS, "spot")
        account.match(now_ms)
        # a step is due at its own time, so that scripts repeat; never before what was told already
        STEPS[name](_Taken(entry, account, market, max(now_ms, account.told_ms)))

    def _account(self, entry: Entry) -> Account:
        first = next(iter(self._registry.accounts), "")
        return self._registry.named(entry.text("account", first or "none"))


class _Taken(NamedTuple):
    """A step while it is taken."""

    entry: Entry
    account: Account
    market: Market
    now_ms: int

    @property
    def futures(self) -> FuturesAccount:
        if self.market == "spot":
            raise ConfigError(f"{self.entry.where}.market: must be usdm or coinm for this step")
        return self.account.futures(self.market)

    def params(self) -> Params:
        """The step's other fields as request parameters."""
        return Params({k: _as_text(v) for k, v in self.entry.found.items() if k not in _OWN})

    def order_name(self) -> str:
        return self.entry.text("order")


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# what clients do


def _place(step: _Taken) -> None:
    if step.market == "spot":
        step.account.spot.place(step.params(), step.now_ms)
    else:
        step.futures.place(step.params(), step.now_ms)


def _place_algo(step: _Taken) -> None:
    step.futures.place_algo(step.params(), step.now_ms)


def _place_oco(step: _Taken) -> None:
    params = step.params()
    step.account.spot.place_list(params, "OCO", oco_legs(params), step.now_ms)


def _place_oto(step: _Taken) -> None:
    params = step.params()
    step.account.spot.place_list(params, "OTO", oto_legs(params), step.now_ms)


def _cancel(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER)
    if step.market == "spot":
        step.account.spot.cancel(step.account.spot.by_client_id(step.order_name()), step.now_ms)
    else:
        step.futures.cancel(step.futures.by_client_id(step.order_name()), step.now_ms)


def _cancel_algo(step: _Taken) -> None:
    step.futures.cancel_algo(step.futures.find_algo(None, step.order_name()), step.now_ms)


def _amend(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER | {"quantity", "price"})
    quantity = step.entry.amount("quantity")
    if step.market == "spot":
        order = step.account.spot.by_client_id(step.order_name())
        step.account.spot.amend(order, quantity, step.now_ms, order.client_id)
        return
    placed = step.futures.by_client_id(step.order_name())
    step.futures.amend(placed, quantity, step.entry.amount("price", str(placed.price)), step.now_ms)


def _leverage(step: _Taken) -> None:
    step.entry.only(_OWN | {"symbol", "leverage"})
    step.futures.set_leverage(step.entry.text("symbol"), int(step.entry.amount("leverage")), step.now_ms)


def _margin_type(step: _Taken) -> None:
    step.entry.only(_OWN | {"symbol", "isolated"})
    step.futures.set_margin_type(step.entry.text("symbol"), step.entry.flag("isolated"), step.now_ms)


def _move_margin(step: _Taken) -> None:
    step.entry.only(_OWN | {"symbol", "positionSide", "amount"})
    side = step.entry.one_of("positionSide", _SIDES, "BOTH")
    step.futures.move_margin(step.entry.text("symbol"), side, step.entry.amount("amount"), step.now_ms)


def _multi_assets(step: _Taken) -> None:
    step.futures.set_multi_assets(step.entry.flag("on"), step.now_ms)


def _hedge(step: _Taken) -> None:
    step.futures.set_hedged(step.entry.flag("on"))


# what the exchange does


def _fill(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER | {"quantity", "price", "maker", "commission", "commissionAsset"})
    entry, name = step.entry, step.order_name()
    maker = entry.flag("maker") if "maker" in entry.found else True
    fee = None
    if "commission" in entry.found:
        fee = (entry.text("commissionAsset"), entry.amount("commission"))
    if step.market == "spot":
        order = step.account.spot.by_client_id(name)
        quantity = entry.amount("quantity", str(order.remaining))
        price = entry.amount("price", str(order.price) if order.price else None)
        step.account.spot.fill(order, quantity, price, step.now_ms, maker=maker, commission=fee)
        return
    placed = step.futures.by_client_id(name)
    quantity = entry.amount("quantity", str(placed.remaining))
    price = entry.amount("price", str(placed.price) if placed.price else None)
    step.futures.fill(placed, quantity, price, step.now_ms, maker=maker, commission=fee)


def _expire(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER | {"reason"})
    if step.market == "spot":
        order = step.account.spot.by_client_id(step.order_name())
        step.account.spot.expire(order, step.now_ms, step.entry.text("reason", "EXCHANGE_CANCELED"))
    else:
        placed = step.futures.by_client_id(step.order_name())
        step.futures.expire(placed, step.now_ms, step.entry.text("reason", "0"))


def _trigger(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER)
    if step.market == "spot":
        step.account.spot.trigger(step.account.spot.by_client_id(step.order_name()), step.now_ms)
        return
    side, name = step.futures, step.order_name()
    algo = next((one for one in side.open_algos() if one.client_id == name), None)
    if algo is not None:
        side.trigger_algo(algo, step.now_ms)
    else:
        side.trigger(side.by_client_id(name), step.now_ms)


def _reject(step: _Taken) -> None:
    if step.market == "spot":
        fields = {k: v for k, v in step.entry.found.items() if k != "reason"}
        params = step._replace(entry=Entry(step.entry.where, fields)).params()
        reason = step.entry.text("reason", "INSUFFICIENT_BALANCES")
        step.account.spot.reject(params, step.now_ms, reason)
        return
    algo = step.futures.find_algo(None, step.order_name())
    step.futures.reject_algo(algo, step.entry.text("reason", "Margin is insufficient."), step.now_ms)


def _prevent(step: _Taken) -> None:
    step.entry.only(_OWN | _ORDER | {"quantity", "price", "counterOrder"})
    spot = step.account.spot
    order = spot.by_client_id(step.order_name())
    quantity = step.entry.amount("quantity", str(order.remaining))
    price = step.entry.amount("price", str(order.price) if order.price else None)
    spot.prevent(order, quantity, price, step.now_ms, int(step.entry.amount("counterOrder", "1")))


def _deposit(step: _Taken) -> None:
    step.entry.only(_OWN | {"asset", "amount"})
    _credit(step, step.market, step.entry.amount("amount"))


def _withdraw(step: _Taken) -> None:
    step.entry.only(_OWN | {"asset", "amount"})
    _credit(step, step.market, -step.entry.amount("amount"))


def _transfer(step: _Taken) -> None:
    step.entry.only(_OWN | {"asset", "amount", "from", "to"})
    source, target = step.entry.one_of("from", MARKETS), step.entry.one_of("to", MARKETS)
    amount = step.entry.amount("amount")
    _credit(step, source, -amount)
    _credit(step, target, amount)


def _credit(step: _Taken, market: Market, amount: Decimal) -> None:
    asset = step.entry.text("asset")
    if market == "spot":
        step.account.spot.deposit(asset, amount, step.now_ms)
    else:
        reason = "DEPOSIT" if amount > 0 else "WITHDRAW"
        step.account.futures(market).credit(asset, amount, reason, step.now_ms)


def _adjust(step: _Taken) -> None:
    step.entry.only(_OWN | {"asset", "amount", "reason"})
    reason = step.entry.one_of("reason", tuple(sorted(REASONS)), "ADJUSTMENT")
    step.futures.credit(step.entry.text("asset"), step.entry.amount("amount"), reason, step.now_ms)


def _lock(step: _Taken) -> None:
    step.entry.only(_OWN | {"asset", "amount"})
    step.account.spot.lock(step.entry.text("asset"), step.entry.amount("amount"), step.now_ms)


def _fund(step: _Taken) -> None:
    step.entry.only(_OWN | {"symbol", "rate"})
    step.futures.fund(step.entry.text("symbol"), step.entry.amount("rate"), step.now_ms)


def _call_margin(step: _Taken) -> None:
    step.entry.only(_OWN)
    step.futures.call_margin(step.now_ms)


def _liquidate(step: _Taken) -> None:
    step.entry.only(_OWN | {"symbol", "price", "prefix"})
    symbol = step.entry.text("symbol")
    price = step.entry.amount("price", str(step.futures.last_price(symbol)))
    step.futures.liquidate(symbol, price, step.now_ms, prefix=step.entry.text("prefix", "autoclose-"))


def _strategy(step: _Taken) -> None:
    step.futures.tell_bot("STRATEGY_UPDATE", "su", _said(step), step.now_ms)


def _grid(step: _Taken) -> None:
    step.futures.tell_bot("GRID_UPDATE", "gu", _said(step), step.now_ms)


def _reject_trigger(step: _Taken) -> None:
    step.futures.tell_bot("CONDITIONAL_ORDER_TRIGGER_REJECT", "or", _said(step), step.now_ms)


def _said(step: _Taken) -> dict[str, object]:
    return {key: value for key, value in step.entry.found.items() if key not in _OWN}


def _improvise(step: _Taken) -> None:
    step.entry.only(_OWN | {"seed", "steps", "symbol"})
    random = Random(f"improvised {step.entry.text('seed', '1')}")  # noqa: S311 - repeats, nothing secret
    symbol = step.entry.text("symbol", "") if "symbol" in step.entry.found else ""
    for _ in range(int(step.entry.amount("steps", "1"))):
        improvise(random, step.account, step.market, symbol, step.now_ms)


STEPS: dict[str, Callable[[_Taken], None]] = {
    "place": _place,
    "place-algo": _place_algo,
    "place-oco": _place_oco,
    "place-oto": _place_oto,
    "cancel": _cancel,
    "cancel-algo": _cancel_algo,
    "amend": _amend,
    "leverage": _leverage,
    "margin-type": _margin_type,
    "move-margin": _move_margin,
    "multi-assets": _multi_assets,
    "hedge": _hedge,
    "fill": _fill,
    "expire": _expire,
    "trigger": _trigger,
    "reject": _reject,
    "prevent": _prevent,
    "deposit": _deposit,
    "withdraw": _withdraw,
    "transfer": _transfer,
    "adjust": _adjust,
    "lock": _lock,
    "fund": _fund,
    "call-margin": _call_margin,
    "liquidate": _liquidate,
    "strategy": _strategy,
    "grid": _grid,
    "reject-trigger": _reject_trigger,
    "improvise": _improvise,
}
