"""A record in one line for people: what matters of each structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from bridge.sdk import Record


def summary(record: Record) -> str:
    """Return the fields of ``record`` that tell what happened; the key and the time stand elsewhere."""
    return " ".join(part for part in _PARTS[record.structure](record) if part)


def _number(value: Decimal | None) -> str:
    return "-" if value is None else f"{value:f}"


def _trade(r: Any) -> tuple[str, ...]:
    return (f"{r.side or '':4}", f"{_number(r.amount)} @ {_number(r.price)}", f"id={r.id}", r.channel)


def _ticker(r: Any) -> tuple[str, ...]:
    last, change = f"last={_number(r.last)}", f"change={_number(r.percentage)}%"
    return (r.window, last, change, f"high={_number(r.high)}", f"low={_number(r.low)}", r.channel)


def _ohlcv(r: Any) -> tuple[str, ...]:
    prices = " ".join(f"{name[0]}={_number(getattr(r, name))}" for name in ("open", "high", "low", "close"))
    kind = "" if r.priceType == "trade" else r.priceType
    return (f"{r.timeframe:3}", prices, f"v={_number(r.volume)}", "closed" if r.closed else "open", kind)


def _order_book(r: Any) -> tuple[str, ...]:
    best = " ".join(f"{_number(s[0].amount)} @ {_number(s[0].price)}" if s else "-" for s in (r.bids, r.asks))
    return (
        f"{r.type:8}",
        f"{len(r.bids)} bids, {len(r.asks)} asks",
        f"first: {best}",
        f"sequence={r.sequence}",
    )


def _bid_ask(r: Any) -> tuple[str, ...]:
    bid, ask = f"{_number(r.bidVolume)} @ {_number(r.bid)}", f"{_number(r.askVolume)} @ {_number(r.ask)}"
    return (f"bid {bid}", f"ask {ask}")


def _mark_price(r: Any) -> tuple[str, ...]:
    return (f"mark={_number(r.markPrice)}", f"index={_number(r.indexPrice)}")


def _funding_rate(r: Any) -> tuple[str, ...]:
    return (f"rate={_number(r.fundingRate)}", f"mark={_number(r.markPrice)}")


def _liquidation(r: Any) -> tuple[str, ...]:
    return (f"{r.side:4}", f"{_number(r.contracts)} @ {_number(r.price)}", r.status)


def _order(r: Any) -> tuple[str, ...]:
    asked = f"{r.side} {_number(r.amount)} @ {_number(r.price)}"
    return (
        r.account,
        r.type or "",
        asked,
        f"{r.status} ({r.exchangeStatus})",
        f"filled={_number(r.filled)}",
        r.id,
    )


def _my_trade(r: Any) -> tuple[str, ...]:
    return (
        r.account,
        f"{r.side:4}",
        f"{_number(r.amount)} @ {_number(r.price)}",
        r.takerOrMaker,
        f"order={r.order}",
    )


def _balance(r: Any) -> tuple[str, ...]:
    amounts = (f"{name}={_number(getattr(r, name))}" for name in ("free", "used", "total"))
    return (r.account, r.market, *amounts)


def _position(r: Any) -> tuple[str, ...]:
    size = f"{_number(r.contracts)} @ {_number(r.entryPrice)}"
    return (r.account, r.side or "flat", size, f"unrealized={_number(r.unrealizedPnl)}")


def _ledger(r: Any) -> tuple[str, ...]:
    return (r.account, r.market, r.direction, _number(r.amount), r.exchangeType or r.type, r.instrument or "")


def _account_event(r: Any) -> tuple[str, ...]:
    return (r.account, r.market, r.event, r.status or "", r.reason or "")


def _market(r: Any) -> tuple[str, ...]:
    steps = f"tick={_number(r.precision.price)} step={_number(r.precision.amount)}"
    return (r.exchangeSymbol, r.type, "active" if r.active else "inactive", steps)


def _raw(r: Any) -> tuple[str, ...]:
    return (
        r.stream,
        f"{r.connectionId:016x}#{r.connectionSequence}",
        r.payload.decode(errors="backslashreplace"),
    )


def _gap(r: Any) -> tuple[str, ...]:
    where = f"{r.firstSequence}..{r.lastSequence}"
    if r.firstSequence is None:
        where = f"{r.startTime}..{r.endTime} µs"
    recovered = f"recovered={r.recovered}" if r.recovered else ""
    return (r.market, r.stream, where, r.status, r.cause, recovered)


def _coverage(r: Any) -> tuple[str, ...]:
    missing = f"open={r.open} unrecoverable={r.unrecoverable}" if r.open or r.unrecoverable else ""
    return (r.market, r.stream, f"{r.first}..{r.last}", f"published={r.published}", missing)


def _checkpoint(r: Any) -> tuple[str, ...]:
    tail = "" if r.lastSequence is None else f"last={r.lastSequence}"
    return (r.market, r.stream, tail, f"shard={r.shard}", f"epoch={r.writerEpoch}")


def _shard_claim(r: Any) -> tuple[str, ...]:
    return (f"shard={r.shard}", r.instance, r.version)


def _lifecycle(r: Any) -> tuple[str, ...]:
    streams = ",".join(r.streams[:3]) + (f",… ({len(r.streams)})" if len(r.streams) > 3 else "")
    rest = {"market": r.market, "streams": streams, "attempt": r.attempt, "code": r.code, "reason": r.reason}
    return (r.event, *(f"{name}={value}" for name, value in rest.items() if value))


def _dead_letter(r: Any) -> tuple[str, ...]:
    return (f"{r.reason}: {r.error}", f"for {r.topic}:", r.payload.decode(errors="backslashreplace"))


_PARTS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "trade": _trade,
    "ticker": _ticker,
    "ohlcv": _ohlcv,
    "order-book": _order_book,
    "bid-ask": _bid_ask,
    "mark-price": _mark_price,
    "funding-rate": _funding_rate,
    "liquidation": _liquidation,
    "order": _order,
    "my-trade": _my_trade,
    "balance": _balance,
    "position": _position,
    "ledger": _ledger,
    "account-event": _account_event,
    "market": _market,
    "raw": _raw,
    "gap": _gap,
    "coverage": _coverage,
    "checkpoint": _checkpoint,
    "shard-claim": _shard_claim,
    "lifecycle": _lifecycle,
    "dead-letter": _dead_letter,
}
