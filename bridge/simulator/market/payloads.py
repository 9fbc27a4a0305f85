"""Binance's payloads, field by field in Binance's order, as of November 2026.

Built with f-strings: a busy market makes tens of thousands of them a second. Nothing here decides anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.market.instruments import decimal_text, power_of_ten
from bridge.simulator.market.tape import BUYER_IS_MAKER, NOT_EXECUTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.simulator.market.bars import Bar
    from bridge.simulator.market.book import Book, Changes
    from bridge.simulator.market.instruments import Instrument
    from bridge.simulator.market.pricing import IndexPrice
    from bridge.simulator.market.tape import AggregateTrade

Best = tuple[int, int, int, int]
"""Best bid, its quantity, best ask, its quantity."""

PRICE_UNIT = 8
"""Decimals of mark, index and reference prices."""


class Pricing(NamedTuple):
    """Mark price and what goes with it; prices in units of 1e-8, the rate too.

    Attributes:
        mark: mark price.
        average: moving average of the mark price.
        settle: estimated settlement price.
        index_price: index price.
        rate: funding rate of the period, None for contracts with a delivery.
        next_funding_ms: when it is paid, 0 for contracts with a delivery.
    """

    mark: int
    average: int
    settle: int
    index_price: int
    rate: int | None
    next_funding_ms: int


class Liquidation(NamedTuple):
    """A liquidation order; prices in ticks, quantities in lots, ``average`` in 1/1000 of a tick."""

    side: str
    lots: int
    price: int
    average: int
    last_lots: int
    time_ms: int


class Payloads:
    """The payloads of one symbol on spot."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.price = instrument.price_text()
        self.quantity = instrument.quantity_text()
        self._symbol = instrument.symbol

    # trades

    def trade(self, now: int, trade_id: int, price: int, lots: int, flags: int) -> bytes:
        """``<symbol>@trade``."""
        maker = "true" if flags & BUYER_IS_MAKER else "false"
        return (
            f'{{"e":"trade","E":{now},"s":"{self._symbol}","t":{trade_id},"p":"{self.price[price]}",'
            f'"q":"{self.quantity[lots]}","T":{now},"m":{maker},"M":true}}'
        ).encode()

    def aggregate(self, now: int, row: AggregateTrade) -> bytes:
        """``<symbol>@aggTrade``."""
        maker = "true" if row.flags & BUYER_IS_MAKER else "false"
        return (
            f'{{"e":"aggTrade","E":{now},"s":"{self._symbol}","a":{row.aggregate_id},"p":"{self.price[row.price]}",'
            f'"q":"{self.quantity[row.lots]}","f":{row.first},"l":{row.last},"T":{row.time_ms},"m":{maker},"M":true}}'
        ).encode()

    def block_trade(
        self, now: int, trade_id: int, price: int, lots: int, time_ms: int, *, maker: bool
    ) -> bytes:
        """``<symbol>@blockTrade``."""
        return (
            f'{{"e":"blockTrade","E":{now},"s":"{self._symbol}","t":{trade_id},"p":"{self.price[price]}",'
            f'"q":"{self.quantity[lots]}","T":{time_ms},"m":{_bool(maker)}}}'
        ).encode()

    # books

    def book_ticker(self, now: int, update_id: int, best: Best) -> bytes:  # noqa: ARG002 - futures carry the time
        """``<symbol>@bookTicker``."""
        price, quantity = self.price, self.quantity
        bid, bid_lots, ask, ask_lots = best
        return (
            f'{{"u":{update_id},"s":"{self._symbol}","b":"{price[bid]}","B":"{quantity[bid_lots]}",'
            f'"a":"{price[ask]}","A":"{quantity[ask_lots]}"}}'
        ).encode()

    def diff(self, now: int, book: Book, changes: Changes) -> bytes:
        """``<symbol>@depth``."""
        return (
            f'{{"e":"depthUpdate","E":{now},"s":"{self._symbol}","U":{changes.first},"u":{book.update_id},'
            f'"b":[{self.levels(changes.bids.items())}],"a":[{self.levels(changes.asks.items())}]}}'
        ).encode()

    def partial(self, now: int, book: Book, levels: int, changes: Changes) -> bytes:  # noqa: ARG002 - as above
        """``<symbol>@depth<levels>``."""
        bids, asks = book.top(levels)
        return (
            f'{{"lastUpdateId":{book.update_id},"bids":[{self.levels(bids)}],"asks":[{self.levels(asks)}]}}'
        ).encode()

    def levels(self, levels: Iterable[tuple[int, int]]) -> str:
        """Return ``["price","quantity"],…``."""
        price, quantity = self.price, self.quantity
        return ",".join([f'["{price[level]}","{quantity[lots]}"]' for level, lots in levels])

    # bars

    def bar_fields(self, interval: str, bar: Bar, close_ms: int, *, closed: bool, symbol: str) -> str:
        """Return the inner object of a kline."""
        price, quantity, quote = self.price, self.quantity, self.instrument.quote_text
        return (
            f'{{"t":{bar.open_ms},"T":{close_ms},{symbol}"i":"{interval}","f":{bar.first},"L":{bar.last},'
            f'"o":"{price[bar.open]}","c":"{price[bar.close]}","h":"{price[bar.high]}","l":"{price[bar.low]}",'
            f'"v":"{quantity[bar.lots]}","n":{bar.trades},"x":{_bool(closed)},"q":"{quote(bar.quote)}",'
            f'"V":"{quantity[bar.buy_lots]}","Q":"{quote(bar.buy_quote)}","B":"0"}}'
        )

    def kline(self, now: int, interval: str, bar: Bar, close_ms: int, *, closed: bool) -> bytes:
        """``<symbol>@kline_<interval>``."""
        fields = self.bar_fields(interval, bar, close_ms, closed=closed, symbol=f'"s":"{self._symbol}",')
        return f'{{"e":"kline","E":{now},"s":"{self._symbol}","k":{fields}}}'.encode()

    # tickers

    def mini_ticker(self, now: int, bar: Bar) -> bytes:
        """``<symbol>@miniTicker``, a row of ``!miniTicker@arr``."""
        price = self.price
        return (
            f'{{"e":"24hrMiniTicker","E":{now},"s":"{self._symbol}","c":"{price[bar.close]}","o":"{price[bar.open]}",'
            f'"h":"{price[bar.high]}","l":"{price[bar.low]}","v":"{self.quantity[bar.lots]}",'
            f'"q":"{self.ticker_quote(bar.quote)}"}}'
        ).encode()

    def ticker(self, now: int, bar: Bar, prior: int, last_lots: int, best: Best) -> bytes:
        """``<symbol>@ticker``."""
        price, quantity = self.price, self.quantity
        bid, bid_lots, ask, ask_lots = best
        return (
            f'{{"e":"24hrTicker","E":{now},"s":"{self._symbol}",{self._change(bar)},"x":"{price[prior]}",'
            f'"c":"{price[bar.close]}","Q":"{quantity[last_lots]}","b":"{price[bid]}","B":"{quantity[bid_lots]}",'
            f'"a":"{price[ask]}","A":"{quantity[ask_lots]}",{self._range(bar)},"O":{now - 86_400_000},"C":{now},'
            f'"F":{bar.first},"L":{bar.last},"n":{bar.trades}}}'
        ).encode()

    def rolling_ticker(self, now: int, window: str, bar: Bar) -> bytes:
        """``<symbol>@ticker_<window>``, a row of ``!ticker_<window>@arr``."""
        change = self.change_text(bar)
        return (
            f'{{"e":"{window}Ticker","E":{now},"s":"{self._symbol}","p":"{change}","P":"{percent(bar)}",'
            f'"o":"{self.price[bar.open]}","h":"{self.price[bar.high]}","l":"{self.price[bar.low]}",'
            f'"c":"{self.price[bar.close]}","w":"{self.average_text(bar)}","v":"{self.quantity[bar.lots]}",'
            f'"q":"{self.ticker_quote(bar.quote)}","O":{bar.open_ms},"C":{now},"F":{bar.first},"L":{bar.last},'
            f'"n":{bar.trades}}}'
        ).encode()

    def average_price(self, now: int, average: str, time_ms: int) -> bytes:
        """``<symbol>@avgPrice``."""
        return (
            f'{{"e":"avgPrice","E":{now},"s":"{self._symbol}","i":"5m","w":"{average}","T":{time_ms}}}'
        ).encode()

    def reference_price(self, price: str | None, time_ms: int) -> bytes:
        """``<symbol>@referencePrice``."""
        shown = "null" if price is None else f'"{price}"'
        return f'{{"e":"referencePrice","s":"{self._symbol}","r":{shown},"t":{time_ms}}}'.encode()

    def ticker_quote(self, units: int) -> str:
        """Return a ticker's quote volume."""
        return self.instrument.quote_text(units)

    def change_text(self, bar: Bar) -> str:
        """Return close minus open."""
        change = self.price[abs(bar.close - bar.open)]
        return f"-{change}" if bar.close < bar.open else change

    def average_text(self, bar: Bar) -> str:
        """Return the volume-weighted average price; as many digits as a price, "0" at no volume."""
        digits = PRICE_UNIT if self.instrument.market == "spot" else self.instrument.price_digits
        return decimal_text(average_units(self.instrument, bar, digits), digits)

    def _change(self, bar: Bar) -> str:
        return f'"p":"{self.change_text(bar)}","P":"{percent(bar)}","w":"{self.average_text(bar)}"'

    def _range(self, bar: Bar) -> str:
        price = self.price
        return (
            f'"o":"{price[bar.open]}","h":"{price[bar.high]}","l":"{price[bar.low]}",'
            f'"v":"{self.quantity[bar.lots]}","q":"{self.ticker_quote(bar.quote)}"'
        )


class FuturesPayloads(Payloads):
    """The payloads of one contract; usdm and coinm differ in a few fields."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__(instrument)
        self._linear = instrument.market == "usdm"
        self._st = 1 if self._linear else 2
        self._names = f'"s":"{instrument.symbol}","ps":"{instrument.pair}"'

    def trade(self, now: int, trade_id: int, price: int, lots: int, flags: int) -> bytes:
        """``<symbol>@trade``; a row that traded nothing has ``X`` "NA"."""
        maker = "true" if flags & BUYER_IS_MAKER else "false"
        if flags & NOT_EXECUTED:
            what = '"p":"0","q":"0","X":"NA"'
        else:
            what = f'"p":"{self.price[price]}","q":"{self.quantity[lots]}","X":"MARKET"'
        return (
            f'{{"e":"trade","E":{now},"T":{now},"s":"{self._symbol}","t":{trade_id},{what},"m":{maker},"st":{self._st}}}'
        ).encode()

    def aggregate(self, now: int, row: AggregateTrade) -> bytes:
        """``<symbol>@aggTrade``; ``nq`` on usdm only."""
        maker = "true" if row.flags & BUYER_IS_MAKER else "false"
        normal = f'"nq":"{self.quantity[row.normal_lots]}",' if self._linear else ""
        return (
            f'{{"e":"aggTrade","E":{now},"a":{row.aggregate_id},"s":"{self._symbol}","p":"{self.price[row.price]}",'
            f'"q":"{self.quantity[row.lots]}",{normal}"f":{row.first},"l":{row.last},"T":{row.time_ms},"m":{maker},'
            f'"st":{self._st}}}'
        ).encode()

    def book_ticker(self, now: int, update_id: int, best: Best) -> bytes:
        """``<symbol>@bookTicker``, ``!bookTicker``."""
        price, quantity = self.price, self.quantity
        bid, bid_lots, ask, ask_lots = best
        return (
            f'{{"e":"bookTicker","u":{update_id},{self._names},"b":"{price[bid]}","B":"{quantity[bid_lots]}",'
            f'"a":"{price[ask]}","A":"{quantity[ask_lots]}","T":{now},"E":{now},"st":{self._st}}}'
        ).encode()

    def diff(self, now: int, book: Book, changes: Changes) -> bytes:
        """``<symbol>@depth``."""
        return self._depth(now, book, changes, changes.bids.items(), changes.asks.items())

    def partial(self, now: int, book: Book, levels: int, changes: Changes) -> bytes:
        """``<symbol>@depth<levels>``; only the stream's name tells it from a diff."""
        bids, asks = book.top(levels)
        return self._depth(now, book, changes, bids, asks)

    def _depth(
        self,
        now: int,
        book: Book,
        changes: Changes,
        bids: Iterable[tuple[int, int]],
        asks: Iterable[tuple[int, int]],
    ) -> bytes:
        return (
            f'{{"e":"depthUpdate","E":{now},"T":{book.time_ms},{self._names},"U":{changes.first},"u":{book.update_id},'
            f'"pu":{changes.previous},"b":[{self.levels(bids)}],"a":[{self.levels(asks)}],"st":{self._st}}}'
        ).encode()

    def continuous_kline(self, now: int, interval: str, bar: Bar, close_ms: int, *, closed: bool) -> bytes:
        """``<pair>_<contract type>@continuousKline_<interval>``: its ids are the book's update ids."""
        by_update = bar._replace(first=bar.first_update, last=bar.last_update)
        fields = self.bar_fields(interval, by_update, close_ms, closed=closed, symbol="")
        return (
            f'{{"e":"continuous_kline","E":{now},"ps":"{self.instrument.pair}",'
            f'"ct":"{self.instrument.contract_type}","k":{fields}}}'
        ).encode()

    def mini_ticker(self, now: int, bar: Bar) -> bytes:
        """``<symbol>@miniTicker``, a row of ``!miniTicker@arr``."""
        price = self.price
        return (
            f'{{"e":"24hrMiniTicker","E":{now},{self._names},"c":"{price[bar.close]}","o":"{price[bar.open]}",'
            f'"h":"{price[bar.high]}","l":"{price[bar.low]}","v":"{self.quantity[bar.lots]}",'
            f'"q":"{self.ticker_quote(bar.quote)}","st":{self._st}}}'
        ).encode()

    def ticker(self, now: int, bar: Bar, prior: int, last_lots: int, best: Best) -> bytes:  # noqa: ARG002 - spot's
        """``<symbol>@ticker``, a row of ``!ticker@arr``; no best bid and ask, unlike spot."""
        return (
            f'{{"e":"24hrTicker","E":{now},{self._names},{self._change(bar)},"c":"{self.price[bar.close]}",'
            f'"Q":"{self.quantity[last_lots]}",{self._range(bar)},"O":{now - 86_400_000},"C":{now},'
            f'"F":{bar.first},"L":{bar.last},"n":{bar.trades},"st":{self._st}}}'
        ).encode()

    def ticker_quote(self, units: int) -> str:
        """Return a ticker's quote volume: as many digits as a price on usdm, 8 on coinm (base volume)."""
        instrument = self.instrument
        if self._linear:
            return decimal_text(units // power_of_ten(instrument.quantity_digits), instrument.price_digits)
        return instrument.quote_text(units)

    def mark_price(self, now: int, at: Pricing) -> bytes:
        """``<symbol>@markPrice``, a row of ``!markPrice@arr`` and of ``<pair>@markPrice``."""
        average = f'"ap":"{price8(at.average)}",' if self._linear else ""
        rate = "" if at.rate is None else price8(at.rate)
        return (
            f'{{"e":"markPriceUpdate","E":{now},"s":"{self._symbol}","p":"{price8(at.mark)}",{average}'
            f'"P":"{price8(at.settle)}","i":"{price8(at.index_price)}","r":"{rate}","T":{at.next_funding_ms},'
            f'"st":{self._st}}}'
        ).encode()

    def mark_kline(self, now: int, interval: str, bar: Bar, close_ms: int, *, closed: bool) -> bytes:
        """``<symbol>@markPriceKline_<interval>``."""
        pair, symbol = self.instrument.pair, self._symbol
        fields = sampled_bar_fields(interval, bar, close_ms, closed=closed, symbol=symbol)
        return f'{{"e":"markPrice_kline","E":{now},"ps":"{pair}","k":{fields}}}'.encode()

    def force_order(self, now: int, order: Liquidation, *, every_symbol: bool) -> bytes:
        """``<symbol>@forceOrder``, and ``!forceOrder@arr`` (an object too, with ``ps`` and ``st``)."""
        price, quantity = self.price, self.quantity
        instrument = self.instrument
        average = decimal_text(order.average * instrument.tick_units // 1000, instrument.price_digits)
        names = f'"s":"{self._symbol}"' if self._linear else self._names
        tail = f',"ps":"{instrument.pair}","st":{self._st}' if every_symbol else ""
        return (
            f'{{"e":"forceOrder","E":{now},"o":{{{names},"S":"{order.side}","o":"LIMIT","f":"IOC",'
            f'"q":"{quantity[order.lots]}","p":"{price[order.price]}","ap":"{average}","X":"FILLED",'
            f'"l":"{quantity[order.last_lots]}","z":"{quantity[order.lots]}","T":{order.time_ms}}}{tail}}}'
        ).encode()

    def contract_info(self, now: int, status: str, onboard_ms: int, brackets: str) -> bytes:
        """``!contractInfo``; ``brackets`` is empty or the JSON of the bracket list."""
        instrument = self.instrument
        shown = f'"bks":{brackets},' if brackets else ""
        return (
            f'{{"e":"contractInfo","E":{now},{self._names},"ct":"{instrument.contract_type}",'
            f'"dt":{instrument.delivery_ms},"ot":{onboard_ms},"cs":"{status}",{shown}"st":{self._st}}}'
        ).encode()


def index_price(index: IndexPrice, now: int) -> bytes:
    """``<pair>@indexPrice`` (coinm): here ``i`` is the pair."""
    return f'{{"e":"indexPriceUpdate","E":{now},"i":"{index.pair}","p":"{price8(index.value)}"}}'.encode()


def index_kline(pair: str, now: int, interval: str, bar: Bar, close_ms: int, *, closed: bool) -> bytes:
    """``<pair>@indexPriceKline_<interval>`` (coinm)."""
    fields = sampled_bar_fields(interval, bar, close_ms, closed=closed, symbol="0")
    return f'{{"e":"indexPrice_kline","E":{now},"ps":"{pair}","k":{fields}}}'.encode()


def sampled_bar_fields(interval: str, bar: Bar, close_ms: int, *, closed: bool, symbol: str) -> str:
    """Return the inner object of an index or mark price kline: no volumes, times for ids."""
    return (
        f'{{"t":{bar.open_ms},"T":{close_ms},"s":"{symbol}","i":"{interval}","f":{bar.first},"L":{bar.last},'
        f'"o":"{price8(bar.open)}","c":"{price8(bar.close)}","h":"{price8(bar.high)}","l":"{price8(bar.low)}",'
        f'"v":"0","n":{bar.trades},"x":{_bool(closed)},"q":"0","V":"0","Q":"0","B":"0"}}'
    )


def price8(units: int) -> str:
    """Return the text of a price (or rate) in units of 1e-8."""
    return decimal_text(units, PRICE_UNIT)


def percent(bar: Bar) -> str:
    """Return the change from open to close in percent, three decimals, rounded half away from zero."""
    change = bar.close - bar.open
    if not bar.open:
        return "0.000"
    size = (abs(change) * 200_000 + bar.open) // (2 * bar.open)
    return decimal_text(-size if change < 0 else size, 3)


def average_units(instrument: Instrument, bar: Bar, digits: int) -> int:
    """Return the volume-weighted average price of a bar in units of ``10 ** -digits``, rounded down."""
    if not bar.lots or not bar.quote:
        return 0
    if instrument.market == "coinm":
        return bar.lots * instrument.contract_size * power_of_ten(8 + digits) // bar.quote
    return bar.quote * power_of_ten(digits - instrument.price_digits) // bar.lots


def _bool(value: bool) -> str:
    return "true" if value else "false"
