"""What REST shows of a futures account: account, balances, positions, in the shape of each product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.accounts.amounts import ZERO, nearest, plain, text
from bridge.simulator.accounts.futures_orders import value_of

if TYPE_CHECKING:
    from decimal import Decimal

    from bridge.simulator.accounts.futures import FuturesAccount
    from bridge.simulator.accounts.futures_orders import Json, Position

_MAINTENANCE = 200
"""Maintenance margin is the notional divided by this."""


def balances(account: FuturesAccount) -> list[Json]:
    """Return the answer of ``GET …/balance``."""
    rows: list[Json] = []
    for asset, wallet in sorted(account.wallets.items()):
        free = max(ZERO, account.available(asset))
        row: Json = {"accountAlias": account.alias, "asset": asset, "balance": text(wallet.balance)}
        if account.market == "coinm":
            row["withdrawAvailable"] = text(free)
        row["crossWalletBalance"] = text(account.cross_wallet(asset))
        row["crossUnPnl"] = text(_unrealised(account, asset, isolated=False))
        row["availableBalance"] = text(free)
        if account.market == "usdm":
            row |= {"maxWithdrawAmount": text(free), "marginAvailable": True}
        row["updateTime"] = wallet.updated_ms
        rows.append(row)
    return rows


def account(account: FuturesAccount) -> Json:
    """Return the answer of ``GET …/account``: of usdm in the shape of version 3."""
    assets = [_asset(account, asset) for asset in sorted(account.wallets)]
    if account.market == "coinm":
        return {
            "assets": [_shown_asset(asset) for asset in assets],
            "positions": [_coinm_position(account, p) for p in account.positions.values()],
            "canDeposit": True,
            "canTrade": True,
            "canWithdraw": True,
            "feeTier": 0,
            "updateTime": 0,
        }
    totals = {
        "totalInitialMargin": "initialMargin",
        "totalMaintMargin": "maintMargin",
        "totalWalletBalance": "walletBalance",
        "totalUnrealizedProfit": "unrealizedProfit",
        "totalMarginBalance": "marginBalance",
        "totalPositionInitialMargin": "positionInitialMargin",
        "totalOpenOrderInitialMargin": "openOrderInitialMargin",
        "totalCrossWalletBalance": "crossWalletBalance",
        "totalCrossUnPnl": "crossUnPnl",
        "availableBalance": "availableBalance",
        "maxWithdrawAmount": "maxWithdrawAmount",
    }
    # single-asset mode: totals are those of the quote assets, each worth one dollar
    summed = {total: text(sum((row[name] for _, row, _ in assets), ZERO)) for total, name in totals.items()}
    held = [p for p in account.positions.values() if p.amount or account.open_orders(p.terms.symbol)]
    return {
        **summed,
        "assets": [_shown_asset(asset) for asset in assets],
        "positions": [_usdm_position(account, position) for position in held],
    }


def position_risk(account: FuturesAccount, symbol: str = "", *, full: bool = False) -> list[Json]:
    """Return the answer of ``GET …/positionRisk``.

    Args:
        account: whose.
        symbol: of one contract (coinm: or pair) alone.
        full: with flat positions, leverage and margin type, as coinm and version 2 of usdm have it.
    """
    found = [p for p in account.positions.values() if symbol in ("", p.terms.symbol, p.terms.pair)]
    if account.market == "coinm" or full:
        return [_full_risk(account, position) for position in found]
    return [_risk(account, p) for p in found if p.amount or account.open_orders(p.terms.symbol)]


def _risk(account: FuturesAccount, position: Position) -> Json:
    terms, mark = position.terms, account.mark(position.terms.symbol)
    margin, orders = account.initial_margin(position), _order_margin(account, terms.symbol)
    return {
        "symbol": terms.symbol,
        "positionSide": position.side,
        "positionAmt": terms.quantity(position.amount),
        "entryPrice": plain(position.entry, 11),
        "breakEvenPrice": plain(position.break_even, 11),
        "markPrice": text(mark),
        "unRealizedProfit": text(position.unrealised(mark)),
        "liquidationPrice": "0",
        "isolatedMargin": _isolated_margin(position, mark),
        "notional": text(_notional(position, mark)),
        "marginAsset": terms.margin,
        "isolatedWallet": plain(position.wallet),
        "initialMargin": text(margin + orders),
        "maintMargin": text(_maintenance(position, mark)),
        "positionInitialMargin": text(margin),
        "openOrderInitialMargin": text(orders),
        "adl": 1 if position.amount else 0,
        "bidNotional": "0",
        "askNotional": "0",
        "updateTime": position.updated_ms,
    }


def _full_risk(account: FuturesAccount, position: Position) -> Json:
    terms, mark = position.terms, account.mark(position.terms.symbol)
    coinm = account.market == "coinm"
    return {
        "symbol": terms.symbol,
        "positionAmt": terms.quantity(position.amount),
        "entryPrice": plain(position.entry, 11),
        "breakEvenPrice": plain(position.break_even, 11),
        "markPrice": text(mark),
        "unRealizedProfit": text(position.unrealised(mark)),
        "liquidationPrice": "0",
        "leverage": str(account.leverage(terms.symbol)),
        **({"maxQty": "1000000"} if coinm else {"maxNotionalValue": "1000000"}),
        "marginType": "isolated" if position.isolated else "cross",
        "isolatedMargin": _isolated_margin(position, mark),
        "isAutoAddMargin": "false",
        "positionSide": position.side,
        "notionalValue" if coinm else "notional": text(_notional(position, mark)),
        "isolatedWallet": plain(position.wallet),
        "updateTime": position.updated_ms,
    }


def _usdm_position(account: FuturesAccount, position: Position) -> Json:
    terms, mark = position.terms, account.mark(position.terms.symbol)
    return {
        "symbol": terms.symbol,
        "positionSide": position.side,
        "positionAmt": terms.quantity(position.amount),
        "unrealizedProfit": text(position.unrealised(mark)),
        "isolatedMargin": _isolated_margin(position, mark),
        "notional": text(_notional(position, mark)),
        "isolatedWallet": plain(position.wallet),
        "initialMargin": text(account.initial_margin(position) + _order_margin(account, terms.symbol)),
        "maintMargin": text(_maintenance(position, mark)),
        "updateTime": position.updated_ms,
    }


def _coinm_position(account: FuturesAccount, position: Position) -> Json:
    terms, mark = position.terms, account.mark(position.terms.symbol)
    margin, orders = account.initial_margin(position), _order_margin(account, terms.symbol)
    return {
        "symbol": terms.symbol,
        "positionAmt": terms.quantity(position.amount),
        "initialMargin": text(margin + orders),
        "maintMargin": text(_maintenance(position, mark)),
        "unrealizedProfit": text(position.unrealised(mark)),
        "positionInitialMargin": text(margin),
        "openOrderInitialMargin": text(orders),
        "leverage": str(account.leverage(terms.symbol)),
        "isolated": position.isolated,
        "positionSide": position.side,
        "entryPrice": plain(position.entry, 11),
        "breakEvenPrice": plain(position.break_even, 11),
        "maxQty": "1000000",
        "updateTime": position.updated_ms,
        "notionalValue": text(_notional(position, mark)),
        "isolatedWallet": plain(position.wallet),
    }


def _asset(account: FuturesAccount, asset: str) -> tuple[str, dict[str, Decimal], int]:
    wallet = account.wallets[asset]
    positions = [p for p in account.positions.values() if p.terms.margin == asset]
    gains = _unrealised(account, asset)
    margins = sum((account.initial_margin(p) for p in positions), ZERO)
    orders = sum((account.order_margin(o) for o in account.open_orders() if o.terms.margin == asset), ZERO)
    free = max(ZERO, account.available(asset))
    row = {
        "walletBalance": wallet.balance,
        "unrealizedProfit": gains,
        "marginBalance": wallet.balance + gains,
        "maintMargin": sum((_maintenance(p, account.mark(p.terms.symbol)) for p in positions), ZERO),
        "initialMargin": margins + orders,
        "positionInitialMargin": margins,
        "openOrderInitialMargin": orders,
        "crossWalletBalance": account.cross_wallet(asset),
        "crossUnPnl": _unrealised(account, asset, isolated=False),
        "availableBalance": free,
        "maxWithdrawAmount": free,
    }
    return asset, row, wallet.updated_ms


def _shown_asset(asset: tuple[str, dict[str, Decimal], int]) -> Json:
    name, row, updated_ms = asset
    return {"asset": name, **{key: text(amount) for key, amount in row.items()}, "updateTime": updated_ms}


def _unrealised(account: FuturesAccount, asset: str, *, isolated: bool = True) -> Decimal:
    return sum(
        (
            p.unrealised(account.mark(p.terms.symbol))
            for p in account.positions.values()
            if p.terms.margin == asset and (isolated or not p.isolated)
        ),
        ZERO,
    )


def _order_margin(account: FuturesAccount, symbol: str) -> Decimal:
    return sum((account.order_margin(order) for order in account.open_orders(symbol)), ZERO)


def _notional(position: Position, mark: Decimal) -> Decimal:
    value = value_of(position.terms, abs(position.amount), mark)
    return value if position.amount > 0 else -value


def _maintenance(position: Position, mark: Decimal) -> Decimal:
    return nearest(value_of(position.terms, abs(position.amount), mark) / _MAINTENANCE)


def _isolated_margin(position: Position, mark: Decimal) -> str:
    return text(position.wallet + position.unrealised(mark) if position.isolated else ZERO)
