"""What REST is asked after an account's stream was opened, so that nothing between two streams is missed. Pure.

A reconciliation is a generator: it yields questions, takes the answers, and learns from them what to ask next. It
starts from what was known *before* the stream was opened: events that came on it since do not say what happened before.

Spot tells orders and trades by symbol only. Asked are the symbols that are known, those of open orders, and those whose
base and quote asset both changed while nobody listened: a trade changes both. What that can't find is an order on a
symbol never seen before that came and went without a trade. Futures tell of traded symbols in their income.

Source: facts sheets, spot sections 5.12 and 7.4, derivatives sections 4 and 7.
"""

from __future__ import annotations

from collections.abc import Generator
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from bridge.core.account_progress import (
    AccountRow,
    AlgoRow,
    Balance,
    IncomeRow,
    OrderId,
    OrderRow,
    PositionRow,
    SymbolProgress,
    TradeRow,
)
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.core.account_progress import AccountProgress
    from bridge.core.private_settings import PrivateSettings
    from bridge.model import Market

_DAY_MS = 86_400_000
Rows = TypeVar("Rows")


class Question(NamedTuple):
    """One GET.

    Attributes:
        path: the whole path.
        params: the query, without time and signature.
        optional: a refusal is an answer too (an order that is archived, a symbol that was delisted); None is sent then.
    """

    path: str
    params: Mapping[str, str | int] = {}
    optional: bool = False


Steps = Generator[Question, bytes | None, None]


def reconciliation(
    market: Market,
    before: AccountProgress,
    progress: AccountProgress,
    own: PrivateSettings,
    *,
    now_ms: int,
    pairs: Mapping[str, tuple[str, str]],
) -> Steps:
    """Yield what to ask; each answer is sent in.

    Args:
        market: of the account.
        before: what was known before the stream was opened.
        progress: learns from the answers.
        own: sizes of pages.
        now_ms: the exchange's time.
        pairs: base and quote asset of spot symbols; may be empty.

    Raises:
        UnexpectedMessage: an answer is not what is documented.
    """
    inquiry = _Inquiry(before, progress, own.page)
    if market == "spot":
        return inquiry.spot(pairs)
    since = before.income_ms or now_ms - own.unknown_days * _DAY_MS
    return inquiry.futures("/fapi" if market == "usdm" else "/dapi", since)


class _Inquiry:
    def __init__(self, before: AccountProgress, progress: AccountProgress, page: int) -> None:
        self._before, self._progress, self._page = before, progress, page

    def spot(self, pairs: Mapping[str, tuple[str, str]]) -> Steps:
        body = yield Question("/api/v3/account")
        account = _read(body, AccountRow, "/api/v3/account")
        changed = self._changed(account)
        self._progress.balances.update((row.asset, Balance(row.free, row.locked)) for row in account.balances)
        yield from self._open_orders("/api/v3")
        traded = [symbol for symbol, assets in pairs.items() if changed.issuperset(assets)]
        yield from self._by_symbol("/api/v3/allOrders", "/api/v3/myTrades", traded)

    def futures(self, prefix: str, since: int) -> Steps:
        version = "v3" if prefix == "/fapi" else "v1"
        yield Question(f"{prefix}/{version}/account")
        yield Question(f"{prefix}/{version}/balance")
        path = f"{prefix}/{version}/positionRisk"
        body = yield Question(path)
        positions = _read(body, list[PositionRow], path)
        self._progress.know(row.symbol for row in positions if _amount(row.positionAmt))
        yield from self._open_orders(f"{prefix}/v1")
        yield from self._open_algos(f"{prefix}/v1")
        yield from self._income(f"{prefix}/v1/income", since)
        if prefix == "/fapi":  # coinm asks for a symbol
            body = yield Question(f"{prefix}/v1/allOrders", {"limit": self._page}, optional=True)
            rows = [] if body is None else _read(body, list[OrderRow], f"{prefix}/v1/allOrders")
            self._progress.know(row.symbol for row in rows)
        yield from self._by_symbol(f"{prefix}/v1/allOrders", f"{prefix}/v1/userTrades", ())
        if prefix == "/fapi":
            yield from self._algos(f"{prefix}/v1/allAlgoOrders")

    def _changed(self, account: AccountRow) -> set[str]:
        """Return the assets whose whole balance is not what was known; none where nothing was."""
        known = self._before.balances
        if not known:
            return set()
        none = Balance("0", "0")
        return {
            row.asset
            for row in account.balances
            if _amount(row.free) + _amount(row.locked) != _total(known.get(row.asset, none))
        }

    def _open_orders(self, prefix: str) -> Steps:
        """Ask for the open orders, then for those that were open and are no longer."""
        path = f"{prefix}/openOrders"
        body = yield Question(path)
        rows = _read(body, list[OrderRow], path)
        for row in rows:
            self._progress.order_row(row)
        now = {OrderId(row.symbol, row.orderId) for row in rows}
        for gone in sorted(self._before.open_orders - now):
            newest = self._before.symbols.get(gone.symbol, SymbolProgress()).order_id
            if newest is not None and gone.order_id >= newest:
                continue  # the symbol's orders are asked for from this one on
            params: dict[str, str | int] = {"symbol": gone.symbol, "orderId": gone.order_id}
            body = yield Question(f"{prefix}/order", params, optional=True)
            if body is None:
                self._progress.open_orders.discard(gone)
            else:
                self._progress.order_row(_read(body, OrderRow, f"{prefix}/order"))

    def _open_algos(self, prefix: str) -> Steps:
        path = f"{prefix}/openAlgoOrders"
        body = yield Question(path)
        rows = _read(body, list[AlgoRow], path)
        now = {OrderId(row.symbol, row.algoId) for row in rows}
        for row in rows:
            self._progress.algo(row.symbol, row.algoId, row.algoStatus)
        for gone in sorted(self._before.open_algos - now):
            body = yield Question(f"{prefix}/algoOrder", {"algoId": gone.order_id}, optional=True)
            if body is None:
                self._progress.open_algos.discard(gone)
            else:
                row = _read(body, AlgoRow, f"{prefix}/algoOrder")
                self._progress.algo(row.symbol, row.algoId, row.algoStatus)

    def _income(self, path: str, since: int) -> Steps:
        number = 1
        while True:
            params = {"startTime": since, "limit": self._page, "page": number}
            body = yield Question(path, params)
            rows = _read(body, list[IncomeRow], path)
            self._progress.know(row.symbol for row in rows if row.symbol)
            self._progress.income_ms = max([self._progress.income_ms, *(row.time for row in rows)])
            if len(rows) < self._page:
                return
            number += 1

    def _by_symbol(self, orders: str, trades: str, traded: Iterable[str]) -> Steps:
        for symbol in sorted({*self._progress.symbols, *traded}):
            known = self._before.symbols.get(symbol, SymbolProgress())
            yield from self._orders(orders, symbol, known.order_id)
            yield from self._trades(trades, symbol, known.trade_id)

    def _algos(self, path: str) -> Steps:
        """Ask for the newest conditional orders of each symbol, also those that came and went meanwhile."""
        for symbol in sorted(self._progress.symbols):
            body = yield Question(path, {"symbol": symbol, "limit": self._page}, optional=True)
            for row in [] if body is None else _read(body, list[AlgoRow], path):
                self._progress.algo(row.symbol, row.algoId, row.algoStatus)

    def _orders(self, path: str, symbol: str, newest: int | None) -> Steps:
        """Ask from the newest known order on (it may have changed), or for the newest where none is known."""
        first = newest
        while True:
            params: dict[str, str | int] = {"symbol": symbol, "limit": self._page}
            if first is not None:
                params["orderId"] = first
            body = yield Question(path, params, optional=True)
            rows = [] if body is None else _read(body, list[OrderRow], path)
            for row in rows:
                self._progress.order_row(row)
            if first is None or len(rows) < self._page:
                return
            first = max(row.orderId for row in rows) + 1

    def _trades(self, path: str, symbol: str, newest: int | None) -> Steps:
        """Ask for the trades after the newest known one, or for the newest where none is known."""
        first = None if newest is None else newest + 1
        while True:
            params: dict[str, str | int] = {"symbol": symbol, "limit": self._page}
            if first is not None:
                params["fromId"] = first
            body = yield Question(path, params, optional=True)
            rows = [] if body is None else _read(body, list[TradeRow], path)
            for row in rows:
                self._progress.trade(row.symbol, row.id)
            if first is None or len(rows) < self._page:
                return
            first = max(row.id for row in rows) + 1


def _read(body: bytes | None, kind: type[Rows], path: str) -> Rows:
    try:
        return msgspec.json.decode(body or b"", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnexpectedMessage(f"{path}: the answer is not what is documented") from None


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)


def _total(balance: Balance) -> Decimal:
    return _amount(balance.free) + _amount(balance.locked)
