"""The public REST endpoints of the made-up exchange, with their weights, limits and errors."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.simulator.exchange import Answer
from bridge.simulator.market import information, rows
from bridge.simulator.market.bars import DAY, HOUR, INTERVALS, MINUTE, Bar, Rolling, flat, next_open, open_of
from bridge.simulator.market.payloads import percent, price8
from bridge.simulator.market.pricing import next_funding, unit_of
from bridge.simulator.market.requests import Refusal, Request, missing
from bridge.simulator.market.tape import BUYER_IS_MAKER, NOT_EXECUTED, RETAIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridge.model import Market
    from bridge.simulator.market.bars import History
    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.pricing import ContractPrice, IndexPrice
    from bridge.simulator.market.tape import AggregateTrade, Trade
    from bridge.simulator.market.world import World

Json = Any


class Endpoint(NamedTuple):
    """What answers one path, and what it costs."""

    answer: Callable[[Request], Json]
    weight: int | Callable[[Request], int]


class Rest:
    """Answers REST requests from the world's state."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(
        self, market: Market, method: str, path: str, params: Mapping[str, str], now_ms: int
    ) -> Answer:
        """Answer one request; a wrong one gets the exchange's own error body."""
        endpoint = ENDPOINTS.get((market, path))
        if endpoint is None or method != "GET":
            return _refused(Refusal(-5000, f"Path {path}, Method {method} is invalid", 404), 1)
        request = Request(self._world, market, params, now_ms)
        weight = 1
        try:
            weight = endpoint.weight if isinstance(endpoint.weight, int) else endpoint.weight(request)
            body = endpoint.answer(request)
        except Refusal as refusal:
            return _refused(refusal, weight)
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return Answer(200, text.encode(), weight)


def _refused(refusal: Refusal, weight: int) -> Answer:
    body = json.dumps(
        {"code": refusal.code, "msg": refusal.message}, ensure_ascii=False, separators=(",", ":")
    )
    return Answer(refusal.status, body.encode(), weight)


# general


def _ping(_: Request) -> Json:
    return {}


def _time(request: Request) -> Json:
    return {"serverTime": request.now_ms}


def _exchange_info(request: Request) -> Json:
    everything = request.world.listings[request.market].values()
    if not request.spot:
        make = information.usdm if request.market == "usdm" else information.coinm
        return make(everything, request.now_ms)
    asked = request.symbols()
    one = request.optional_symbol()
    if one is not None:
        asked = [one]
    status = request.params.get("symbolStatus")
    if status is not None and asked is not None:
        raise Refusal(-1128, "Combination of optional parameters invalid.")
    if status is not None and status not in {"TRADING", "HALT", "BREAK"}:
        raise Refusal(-1122, "Invalid symbolStatus.")
    listings = [one for one in (everything if asked is None else asked) if status in {None, one.status}]
    return information.spot(listings, request.now_ms)


# books

_FUTURES_DEPTHS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}


def _depth(request: Request) -> Json:
    listing = request.symbol()
    book, payloads, instrument = listing.book, listing.payloads, listing.instrument
    if request.spot:
        bids, asks = book.top(request.limit(100, 5000))
        head = f'"lastUpdateId":{book.update_id}'
    else:
        limit = request.number("limit") or 500
        if limit not in _FUTURES_DEPTHS:
            raise Refusal(-4021, f"Invalid depth limit. {limit}")
        bids, asks = book.top(limit)
        names = (
            f',"symbol":"{instrument.symbol}","pair":"{instrument.pair}"' if request.market == "coinm" else ""
        )
        head = f'"lastUpdateId":{book.update_id},"E":{request.world.now},"T":{book.time_ms}{names}'
    return f'{{{head},"bids":[{payloads.levels(bids)}],"asks":[{payloads.levels(asks)}]}}'


def _spot_depth_weight(request: Request) -> int:
    limit = request.limit(100, 5000)
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _futures_depth_weight(request: Request) -> int:
    limit = request.number("limit")
    # without a limit 500 levels come at the price of one (measured 2026-10-07)
    return 1 if limit is None else _FUTURES_DEPTHS.get(limit, 2)


# trades


def _trades(request: Request) -> Json:
    listing = request.symbol()
    limit = request.limit(500, 1000)
    return _newest_trades(listing, limit)


def _historical_trades(request: Request) -> Json:
    listing = request.symbol()
    limit = request.limit(500, 1000) if request.spot else request.limit(100, 500)
    first = request.number("fromId")
    if first is None:
        return _newest_trades(listing, limit)
    rows_made: list[str] = []
    for trade in listing.tape.read_trades(first, listing.tape.trades.next_id):
        if len(rows_made) == limit:
            break
        if not trade.flags & NOT_EXECUTED:
            rows_made.append(_trade_row(listing, trade))
    return f"[{','.join(rows_made)}]"


def _newest_trades(listing: Listing, limit: int) -> str:
    end = listing.tape.trades.next_id
    # rows that traded nothing are left out, so a few more are read
    found = [t for t in listing.tape.read_trades(end - limit - 50, end) if not t.flags & NOT_EXECUTED]
    return f"[{','.join(_trade_row(listing, trade) for trade in found[-limit:])}]"


def _trade_row(listing: Listing, trade: Trade) -> str:
    payloads, instrument = listing.payloads, listing.instrument
    maker = "true" if trade.flags & BUYER_IS_MAKER else "false"
    quote = instrument.quote_text(instrument.quote_of(trade.price, trade.lots))
    volume = "baseQty" if instrument.market == "coinm" else "quoteQty"
    tail = ',"isBestMatch":true' if instrument.market == "spot" else ""
    if instrument.market == "usdm":
        tail = f',"isRPITrade":{"true" if trade.flags & RETAIL else "false"}'
    return (
        f'{{"id":{trade.trade_id},"price":"{payloads.price[trade.price]}","qty":"{payloads.quantity[trade.lots]}",'
        f'"{volume}":"{quote}","time":{trade.time_ms},"isBuyerMaker":{maker}{tail}}}'
    )


def _aggregate_trades(request: Request) -> Json:
    listing = request.symbol()
    limit = request.limit(500, 1000)
    first, start, end = (request.number(name) for name in ("fromId", "startTime", "endTime"))
    aggregates = listing.tape.aggregates
    if first is not None:
        if start is not None or end is not None:
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        found = listing.tape.read_aggregates(first, first + limit + max(0, aggregates.first_id - first))
        return _aggregate_rows(listing, found, limit)
    if start is not None and request.market == "usdm" and start < request.world.now - 2 * DAY:
        raise Refusal(-4166, "Search window is restricted to recent 48 hours.")
    if start is not None and end is not None and start > end:
        raise Refusal(-1128, "Combination of optional parameters invalid.")
    begin_id = aggregates.first_id if start is None else aggregates.first_at(start)
    end_id = aggregates.next_id if end is None else aggregates.first_at(end + 1)
    if start is None:
        begin_id = max(begin_id, end_id - limit)
    return _aggregate_rows(listing, listing.tape.read_aggregates(begin_id, end_id), limit)


def _aggregate_rows(listing: Listing, found: Iterable[AggregateTrade], limit: int) -> str:
    price, quantity, market = listing.payloads.price, listing.payloads.quantity, listing.instrument.market
    made: list[str] = []
    for row in found:
        if len(made) == limit:
            break
        normal = f'"nq":"{quantity[row.normal_lots]}",' if market == "usdm" else ""
        maker = "true" if row.flags & BUYER_IS_MAKER else "false"
        best = ',"M":true' if market == "spot" else ""
        made.append(
            f'{{"a":{row.aggregate_id},"p":"{price[row.price]}","q":"{quantity[row.lots]}",{normal}"f":{row.first},'
            f'"l":{row.last},"T":{row.time_ms},"m":{maker}{best}}}'
        )
    return f"[{','.join(made)}]"


def _block_trades(request: Request) -> Json:
    listing = request.symbol()
    first = request.number("fromId")
    if first is None:
        raise missing("fromId")
    instrument, price, quantity = listing.instrument, listing.payloads.price, listing.payloads.quantity
    found = [block for block in listing.blocks if block.trade_id >= first]
    return [
        {
            "id": block.trade_id, "price": price[block.price], "qty": quantity[block.lots],
            "quoteQty": instrument.quote_text(instrument.quote_of(block.price, block.lots)),
            "time": block.time_ms, "isBuyerMaker": block.buyer_is_maker,
        }
        for block in found[: request.limit(500, 1000)]
    ]  # fmt: skip


# klines


def _klines(request: Request) -> Json:
    if not request.spot:
        name = request.params.get("symbol", "")
        # either futures host knows the klines of both products
        contract = request.world.contract(name.lower()) if name else None
        listing = contract if contract is not None else request.symbol()
    else:
        listing = request.symbol()
    interval = request.interval()
    if interval == "1s":
        return _rows_of(listing, _second_bars(request, listing), interval)
    return _rows_of(listing, _bars(request, listing.history), interval)


def _continuous_klines(request: Request) -> Json:
    pair, contract_type = request.params.get("pair", ""), request.params.get("contractType", "")
    if not pair:
        raise missing("pair")
    if not contract_type:
        raise missing("contractType")
    listing = request.world.contract_of(pair, contract_type)
    if listing is None:
        raise Refusal(-1121, "Invalid symbol.")
    return _rows_of(listing, _bars(request, listing.history), request.interval())


def _index_klines(request: Request) -> Json:
    pair = request.params.get("pair", "")
    if not pair:
        raise missing("pair")
    index = request.world.indexes.get(pair)
    if index is None:
        raise Refusal(-1121, "Invalid symbol.")
    return _sampled_rows(_bars(request, index.history), request.interval())


def _mark_klines(request: Request) -> Json:
    price = _priced(request)
    return _sampled_rows(_bars(request, price.history), request.interval())


def _premium_klines(request: Request) -> Json:
    price = _priced(request)
    marks = _bars(request, price.history)
    indexes = {bar.open_ms: bar for bar in _bars(request, price.index.history)}

    def premium(mark: int, index: int) -> int:
        return (mark - index) * 10**8 // index

    made = []
    for mark in marks:
        index = indexes.get(mark.open_ms)
        if index is not None and mark.trades:
            ends = premium(mark.open, index.open), premium(mark.close, index.close)
            inner = (*ends, premium(mark.high, index.high), premium(mark.low, index.low))
            made.append(mark._replace(open=ends[0], high=max(inner), low=min(inner), close=ends[1]))
    return _sampled_rows(made, request.interval())


def _priced(request: Request) -> ContractPrice:
    name = request.params.get("symbol", "")
    if not name:
        raise missing("symbol")
    price = request.world.prices.get(name)
    if price is None:
        raise Refusal(-1121, "Invalid symbol.")
    return price


def _bars(request: Request, history: History) -> list[Bar]:
    """Return the bars asked for: the newest, or the oldest from ``startTime``; the last of all is open."""
    interval, offset, now = request.interval(), request.offset_ms(), request.world.now
    limit = request.limit(500, 1000 if request.spot else 1500)
    start, end = request.number("startTime"), request.number("endTime")
    if start is not None and end is not None and start > end:
        if not request.spot:
            raise Refusal(-1023, "Start time is greater than end time.")
        return []
    end = now if end is None else end
    if start is not None:
        return list(islice(history.bars(interval, start, end, now, offset), limit))
    span = (INTERVALS[interval] or 31 * DAY) * (limit + 1)
    return list(history.bars(interval, max(0, min(end, now) - span), end, now, offset))[-limit:]


def _second_bars(request: Request, listing: Listing) -> list[Bar]:
    """Return bars of a second, made from the trades that are kept."""
    limit, now = request.limit(500, 1000), request.world.now
    start, end = request.number("startTime"), request.number("endTime")
    last = min(now, now if end is None else end) // 1000 * 1000
    trades = listing.tape.trades
    oldest = next((t.time_ms for t in listing.tape.read_trades(trades.first_id, trades.first_id + 1)), now)
    first = last - (limit - 1) * 1000 if start is None else -(-start // 1000) * 1000
    first = max(first, oldest // 1000 * 1000 + 1000)
    bars: list[Bar] = []
    at = trades.first_at(first)
    close = next((t.price for t in listing.tape.read_trades(at - 1, at)), listing.last_price)
    for opened in range(first, min(last, first + (limit - 1) * 1000) + 1, 1000):
        until = trades.first_at(opened + 1000)
        bar = _bar_of(listing, opened, list(listing.tape.read_trades(at, until)), close)
        bars.append(bar)
        at, close = until, bar.close
    return bars


def _bar_of(listing: Listing, opened: int, trades: list[Trade], close: int) -> Bar:
    if not trades:
        return flat(opened, close)
    prices = [trade.price for trade in trades]
    quotes = [listing.instrument.quote_of(trade.price, trade.lots) for trade in trades]
    buys = [not trade.flags & BUYER_IS_MAKER for trade in trades]
    return Bar(
        opened, prices[0], max(prices), min(prices), prices[-1], sum(trade.lots for trade in trades), sum(quotes),
        len(trades), sum(trade.lots for trade, buy in zip(trades, buys, strict=True) if buy),
        sum(quote for quote, buy in zip(quotes, buys, strict=True) if buy),
        trades[0].trade_id, trades[-1].trade_id, -1, -1,
    )  # fmt: skip


def _rows_of(listing: Listing, bars: list[Bar], interval: str) -> str:
    price, quantity, quote = listing.payloads.price, listing.payloads.quantity, listing.instrument.quote_text
    return _joined(
        f'[{bar.open_ms},"{price[bar.open]}","{price[bar.high]}","{price[bar.low]}","{price[bar.close]}",'
        f'"{quantity[bar.lots]}",{_close_ms(interval, bar)},"{quote(bar.quote)}",{bar.trades},'
        f'"{quantity[bar.buy_lots]}","{quote(bar.buy_quote)}","0"]'
        for bar in bars
    )


def _sampled_rows(bars: list[Bar], interval: str) -> str:
    return _joined(
        f'[{bar.open_ms},"{price8(bar.open)}","{price8(bar.high)}","{price8(bar.low)}","{price8(bar.close)}","0",'
        f'{_close_ms(interval, bar)},"0",{bar.trades},"0","0","0"]'
        for bar in bars
    )


def _close_ms(interval: str, bar: Bar) -> int:
    if INTERVALS[interval]:
        return bar.open_ms + INTERVALS[interval] - 1
    return next_open(interval, bar.open_ms) - 1


def _joined(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _klines_weight(request: Request) -> int:
    limit = request.limit(500, 1500)
    if request.number("limit") is None:
        return 5
    return 1 if limit <= 100 else 2 if limit <= 500 else 5 if limit <= 1000 else 10


# tickers


def _asked(request: Request) -> tuple[list[Listing], bool]:
    """Return the symbols asked about and whether the answer is an array."""
    several = request.symbols() if request.spot else None
    one = request.optional_symbol()
    if one is not None:
        return [one], False
    if several is not None:
        return several, True
    everything = request.world.listings[request.market].values()
    pair = request.params.get("pair") if request.market == "coinm" else None
    if pair:
        everything_of_pair = [listing for listing in everything if listing.instrument.pair == pair]
        if not everything_of_pair:
            raise Refusal(-1121, "Invalid symbol.")
        return everything_of_pair, True
    return [listing for listing in everything if listing.status == "TRADING"], True


def _one_or_all(request: Request, row: Callable[[Listing], Json]) -> Json:
    listings, array = _asked(request)
    made = [row(listing) for listing in listings]
    # coinm answers with an array even for one symbol
    return made if array or request.market == "coinm" else made[0]


def _day_tickers(request: Request) -> Json:
    kind = request.params.get("type", "FULL")
    if kind not in {"FULL", "MINI"}:
        raise Refusal(-1130, "Data sent for parameter 'type' is not valid.")
    full = kind == "FULL" or not request.spot
    now = request.world.now
    return _one_or_all(
        request, lambda listing: _statistics(listing, DAY, now, full=full, best=request.spot and full)
    )


def _rolling_tickers(request: Request) -> Json:
    if not request.params.get("symbol") and not request.params.get("symbols"):
        raise Refusal(-1128, "Either 'symbol' or 'symbols' must be provided.")
    size = request.params.get("windowSize", "1d")
    number, unit = size[:-1], size[-1:]
    most = {"m": (59, MINUTE), "h": (23, HOUR), "d": (7, DAY)}.get(unit)
    if most is None or not number.isdecimal() or not 1 <= int(number) <= most[0]:
        raise Refusal(-1130, "Data sent for parameter 'windowSize' is not valid.")
    window, full, now = int(number) * most[1], request.params.get("type", "FULL") == "FULL", request.world.now
    return _one_or_all(request, lambda listing: _statistics(listing, window, now, full=full, best=False))


def _trading_day(request: Request) -> Json:
    if not request.params.get("symbol") and not request.params.get("symbols"):
        raise Refusal(-1128, "Either 'symbol' or 'symbols' must be provided.")
    now, full = request.world.now, request.params.get("type", "FULL") == "FULL"
    opened = open_of("1d", now, request.offset_ms())
    return _one_or_all(
        request, lambda listing: _statistics(listing, now - now % MINUTE - opened, now, full=full, best=False)
    )


def _statistics(listing: Listing, window_ms: int, now: int, *, full: bool, best: bool) -> Json:
    payloads, price, quantity = listing.payloads, listing.payloads.price, listing.payloads.quantity
    rolling = listing.rolling(window_ms) if window_ms in _KEPT else Rolling(listing.history, window_ms)
    bar, prior = rolling.at(now)
    instrument = listing.instrument
    futures = instrument.market != "spot"
    made: dict[str, Json] = {"symbol": instrument.symbol}
    if instrument.market == "coinm":
        made["pair"] = instrument.pair
    if full:
        made |= {
            "priceChange": payloads.change_text(bar), "priceChangePercent": percent(bar),
            "weightedAvgPrice": payloads.average_text(bar),
        }  # fmt: skip
    if best:
        bid, bid_lots, ask, ask_lots = listing.book.best()
        made |= {
            "prevClosePrice": price[prior], "lastPrice": price[bar.close], "lastQty": quantity[listing.last_lots],
            "bidPrice": price[bid], "bidQty": quantity[bid_lots], "askPrice": price[ask], "askQty": quantity[ask_lots],
        }  # fmt: skip
    elif futures:
        made |= {"lastPrice": price[bar.close], "lastQty": quantity[listing.last_lots]}
    made |= {"openPrice": price[bar.open], "highPrice": price[bar.high], "lowPrice": price[bar.low]}
    if not best and not futures:
        made["lastPrice"] = price[bar.close]
    volume = "baseVolume" if instrument.market == "coinm" else "quoteVolume"
    made |= {
        "volume": quantity[bar.lots], volume: payloads.ticker_quote(bar.quote),
        "openTime": now - DAY if window_ms == DAY and (best or futures) else bar.open_ms, "closeTime": now,
        "firstId": bar.first, "lastId": bar.last, "count": bar.trades,
    }  # fmt: skip
    return made


_KEPT = frozenset({DAY, *rows.WINDOWS.values()})
"""Windows whose statistics the streams keep anyway."""


def _price_tickers(request: Request) -> Json:
    now = request.world.now

    def row(listing: Listing) -> Json:
        instrument = listing.instrument
        made: dict[str, Json] = {"symbol": instrument.symbol}
        if instrument.market == "coinm":
            made["ps"] = instrument.pair
        made["price"] = listing.payloads.price[listing.last_price]
        if instrument.market != "spot":
            made["time"] = now
        return made

    return _one_or_all(request, row)


def _book_tickers(request: Request) -> Json:
    def row(listing: Listing) -> Json:
        instrument, price, quantity = listing.instrument, listing.payloads.price, listing.payloads.quantity
        bid, bid_lots, ask, ask_lots = listing.book.best()
        made: dict[str, Json] = {"symbol": instrument.symbol}
        if instrument.market == "coinm":
            made["pair"] = instrument.pair
        made |= {
            "bidPrice": price[bid], "bidQty": quantity[bid_lots], "askPrice": price[ask], "askQty": quantity[ask_lots],
        }  # fmt: skip
        if instrument.market != "spot":
            made |= {"lastUpdateId": listing.book.update_id, "time": listing.book.time_ms}
        return made

    return _one_or_all(request, row)


def _average_price(request: Request) -> Json:
    listing = request.symbol()
    return {
        "mins": 5, "price": rows.average_text(listing, request.world.now), "closeTime": listing.last_trade_ms,
    }  # fmt: skip


def _reference_price(request: Request) -> Json:
    listing = request.symbol()
    if not rows.has_reference(listing):
        raise Refusal(-2043, "This symbol doesn't have a reference price.")
    now = request.world.now
    return {
        "symbol": listing.instrument.symbol, "referencePrice": rows.reference_text(listing, now), "timestamp": now,
    }  # fmt: skip


def _by_symbols(one: int, few: int, most: int, everything: int) -> Callable[[Request], int]:
    """Return the weight that grows with the number of symbols: up to 20, up to 100, more or all."""

    def weight(request: Request) -> int:
        if request.params.get("symbol"):
            return one
        several = request.symbols() if request.spot else None
        if several is None or len(several) > 100:
            return everything
        return few if len(several) <= 20 else most

    return weight


def _four_each(request: Request) -> int:
    several = request.symbols()
    return min(200, 4 * len(several)) if several else 4


# futures only


def _premium_index(request: Request) -> Json:
    now = request.world.now

    def row(listing: Listing) -> Json:
        at, instrument = request.world.prices[listing.instrument.symbol].now, listing.instrument
        made: dict[str, Json] = {"symbol": instrument.symbol}
        if request.market == "coinm":
            made["pair"] = instrument.pair
        return made | {
            "markPrice": price8(at.mark), "indexPrice": price8(at.index_price),
            "estimatedSettlePrice": price8(at.settle),
            "lastFundingRate": "" if at.rate is None else price8(at.rate),
            "interestRate": "" if at.rate is None else "0.00010000",
            "nextFundingTime": at.next_funding_ms, "time": now,
        }  # fmt: skip

    return _one_or_all(request, row)


def _funding_rates(request: Request) -> Json:
    listing = request.optional_symbol()
    if listing is None and request.market == "coinm":
        raise missing("symbol")
    start, end = request.number("startTime"), request.number("endTime")
    limit = request.limit(100 if start is not None or end is not None else 200, 1000)
    now = request.world.now
    last = next_funding(min(now, now if end is None else end)) - 8 * HOUR
    first = last - 8 * HOUR * (limit - 1) if start is None else next_funding(max(start, now - 30 * DAY) - 1)
    times = list(range(first, last + 1, 8 * HOUR))[:limit]
    listings = request.world.listings[request.market].values() if listing is None else [listing]
    made = [_funding_rate(request, one, time_ms) for time_ms in times for one in listings]
    return [row for row in made if row is not None][-limit:]


def _funding_rate(request: Request, listing: Listing, time_ms: int) -> Json:
    price = request.world.prices[listing.instrument.symbol]
    if price.now.rate is None:
        return None
    # a made-up rate that depends on nothing but symbol and time, so that asking twice gives the same
    swing = (time_ms // (8 * HOUR) * 2654435761 + listing.rank * 40503) % 20_001 - 6_000
    mark = listing.history.before(time_ms + 1, request.world.now)
    text = price8(mark.close * unit_of(listing)) if mark is not None else ""
    return {
        "symbol": listing.instrument.symbol, "fundingRate": price8(swing), "fundingTime": time_ms, "markPrice": text,
        "rateType": "Regular",
    }  # fmt: skip


def _funding_info(request: Request) -> Json:
    adjusted = [
        listing
        for listing in request.world.futures
        if listing.rank % 4 == 3 and request.world.prices[listing.instrument.symbol].now.rate is not None
    ]
    return [
        {
            "symbol": listing.instrument.symbol, "adjustedFundingRateCap": "0.02000000",
            "adjustedFundingRateFloor": "-0.02000000", "fundingIntervalHours": 8, "disclaimer": False,
        }
        for listing in adjusted
    ]  # fmt: skip


def _open_interest(request: Request) -> Json:
    listing = request.symbol()
    instrument = listing.instrument
    lots = listing.tape.trades.next_id % 1_000_000 * 20 + 1_000_000
    made: dict[str, Json] = {"symbol": instrument.symbol}
    if request.market == "coinm":
        made |= {"pair": instrument.pair, "contractType": instrument.contract_type}
    return {"openInterest": listing.payloads.quantity[lots], **made, "time": request.world.now}


def _asset_indexes(request: Request) -> Json:
    indexes = request.world.indexes
    pairs = rows.assets(indexes)
    asked = request.params.get("symbol")
    if asked and asked not in pairs:
        raise Refusal(-1121, "Invalid symbol.")
    made = [
        _asset_index(name, pairs[name], indexes, request.world.now) for name in ([asked] if asked else pairs)
    ]
    return made[0] if asked else made


def _asset_index(name: str, pair: str, indexes: Mapping[str, IndexPrice], now: int) -> Json:
    short = json.loads(rows.asset_index(name, pair, indexes, now))
    names = (
        ("index", "i"), ("bidBuffer", "b"), ("askBuffer", "a"), ("bidRate", "B"), ("askRate", "A"),
        ("autoExchangeBidBuffer", "q"), ("autoExchangeAskBuffer", "g"), ("autoExchangeBidRate", "Q"),
        ("autoExchangeAskRate", "G"),
    )  # fmt: skip
    return {"symbol": name, "time": now, **{long: short[key] for long, key in names}}


ENDPOINTS: dict[tuple[Market, str], Endpoint] = {
    ("spot", "/api/v3/ping"): Endpoint(_ping, 1),
    ("spot", "/api/v3/time"): Endpoint(_time, 1),
    ("spot", "/api/v3/exchangeInfo"): Endpoint(_exchange_info, 20),
    ("spot", "/api/v3/depth"): Endpoint(_depth, _spot_depth_weight),
    ("spot", "/api/v3/trades"): Endpoint(_trades, 25),
    ("spot", "/api/v3/historicalTrades"): Endpoint(_historical_trades, 25),
    ("spot", "/api/v3/historicalBlockTrades"): Endpoint(_block_trades, 25),
    ("spot", "/api/v3/aggTrades"): Endpoint(_aggregate_trades, 4),
    ("spot", "/api/v3/klines"): Endpoint(_klines, 2),
    ("spot", "/api/v3/uiKlines"): Endpoint(_klines, 2),
    ("spot", "/api/v3/avgPrice"): Endpoint(_average_price, 2),
    ("spot", "/api/v3/ticker/24hr"): Endpoint(_day_tickers, _by_symbols(2, 2, 40, 80)),
    ("spot", "/api/v3/ticker/tradingDay"): Endpoint(_trading_day, _four_each),
    ("spot", "/api/v3/ticker"): Endpoint(_rolling_tickers, _four_each),
    ("spot", "/api/v3/ticker/price"): Endpoint(_price_tickers, _by_symbols(2, 4, 4, 4)),
    ("spot", "/api/v3/ticker/bookTicker"): Endpoint(_book_tickers, _by_symbols(2, 4, 4, 4)),
    ("spot", "/api/v3/referencePrice"): Endpoint(_reference_price, 2),
}
"""Every public path this exchange answers, by market."""


def _futures(market: Market, prefix: str) -> None:
    paths: dict[str, Endpoint] = {
        "ping": Endpoint(_ping, 1),
        "time": Endpoint(_time, 1),
        "exchangeInfo": Endpoint(_exchange_info, 1),
        "depth": Endpoint(_depth, _futures_depth_weight),
        "trades": Endpoint(_trades, 5),
        "historicalTrades": Endpoint(_historical_trades, 200),
        "aggTrades": Endpoint(_aggregate_trades, 20),
        "klines": Endpoint(_klines, _klines_weight),
        "continuousKlines": Endpoint(_continuous_klines, _klines_weight),
        "indexPriceKlines": Endpoint(_index_klines, _klines_weight),
        "markPriceKlines": Endpoint(_mark_klines, _klines_weight),
        "premiumIndexKlines": Endpoint(_premium_klines, _klines_weight),
        "premiumIndex": Endpoint(_premium_index, _by_symbols(1, 10, 10, 10) if market == "usdm" else 10),
        "fundingRate": Endpoint(_funding_rates, 1),
        "fundingInfo": Endpoint(_funding_info, 0),
        "openInterest": Endpoint(_open_interest, 1),
        "ticker/24hr": Endpoint(_day_tickers, _by_symbols(1, 40, 40, 40)),
        "ticker/price": Endpoint(_price_tickers, _by_symbols(1, 2, 2, 2)),
        "ticker/bookTicker": Endpoint(_book_tickers, _by_symbols(2, 5, 5, 5)),
    }
    ENDPOINTS.update({(market, f"{prefix}/v1/{name}"): endpoint for name, endpoint in paths.items()})


_futures("usdm", "/fapi")
_futures("coinm", "/dapi")
ENDPOINTS["usdm", "/fapi/v2/ticker/price"] = ENDPOINTS["usdm", "/fapi/v1/ticker/price"]
ENDPOINTS["usdm", "/fapi/v1/rpiDepth"] = Endpoint(_depth, 20)
ENDPOINTS["usdm", "/fapi/v1/assetIndex"] = Endpoint(_asset_indexes, _by_symbols(1, 10, 10, 10))
