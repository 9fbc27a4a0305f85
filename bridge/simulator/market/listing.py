"""One symbol as it trades: simple agents place, withdraw and take; trades make the tape and the bars."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.exchange import Emission
from bridge.simulator.market.bars import History, OpenBar, Past, Rolling
from bridge.simulator.market.book import Book, UpdateIds
from bridge.simulator.market.instruments import power_of_ten
from bridge.simulator.market.past import made_up
from bridge.simulator.market.payloads import FuturesPayloads, Liquidation, Payloads
from bridge.simulator.market.tape import BUYER_IS_MAKER, NOT_EXECUTED, RETAIL, AggregateTrade, Tape

if TYPE_CHECKING:
    from random import Random

    from bridge.simulator.market.instruments import Instrument

_HEAD = 10
"""So many symbols of a market have a long past, minute by minute."""
_LEAST_LEVELS = 25
"""A taker or a cancellation never leaves fewer levels on a side."""


class BlockTrade(NamedTuple):
    """A block trade: its own series of ids, and no part of bars and tickers."""

    trade_id: int
    price: int
    lots: int
    time_ms: int
    buyer_is_maker: bool


class Listing:
    """The live state of one symbol. Events of tracked streams go to ``out`` as they happen.

    Attributes:
        instrument: its terms.
        payloads: its payloads.
        book: its order book.
        tape: its trades.
        history: its bars.
        status: as exchangeInfo says it.
        onboard_ms: when it was listed.
        second: the bar of the second, kept only while a ``1s`` stream needs it (spot).
        last_price: price of the last trade, in ticks.
        last_lots: its quantity.
        last_trade_ms: its time.
        trade_stream: name to emit trades under, empty while not tracked; the same for the other three.
        blocks: the newest block trades (spot).
        next_block: id of the next one.
        past: makes up the bars from before the market began.
        liquidation: the largest liquidation of the second that runs (futures).
        told_liquidation: that of the second before.
        rank: place among its market's symbols, 0 for the most active.
        out: where events go.
    """

    __slots__ = (
        "_anchor", "_anchor_fine", "_levels", "_pending", "_rollings", "_shown", "_spacing", "_usual_lots",
        "aggregate_stream", "block_stream", "blocks", "book", "book_ticker_stream", "history", "instrument",
        "last_lots", "last_price", "last_trade_ms", "liquidation", "next_block", "onboard_ms", "out", "past",
        "payloads", "rank", "second", "status", "tape", "told_liquidation", "trade_stream",
    )  # fmt: skip

    def __init__(
        self,
        instrument: Instrument,
        random: Random,
        ids: UpdateIds,
        out: list[Emission],
        *,
        rank: int,
        start_ms: int,
        retention: int,
    ) -> None:
        self.instrument, self.rank, self.out = instrument, rank, out
        self.payloads = Payloads(instrument) if instrument.market == "spot" else FuturesPayloads(instrument)
        self.status = "TRADING"
        self.onboard_ms = 1_569_398_400_000 + rank * 604_800_000
        self.trade_stream = self.aggregate_stream = self.book_ticker_stream = self.block_stream = ""
        self.second: OpenBar | None = None
        self.liquidation: Liquidation | None = None
        self.told_liquidation: Liquidation | None = None
        self._pending: AggregateTrade | None = None
        self._rollings: dict[int, Rolling] = {}
        price = instrument.price_ticks
        self._anchor, self._anchor_fine = price, price << 16
        self._spacing = max(1, min(10, price // 400_000))
        self._levels = max(60, min(1_200 if rank < 4 else 300, price // (3 * self._spacing)))
        self._usual_lots = _usual_lots(instrument)
        self.book = Book(ids)
        self._fill(random)
        self._shown = self.book.best()
        self.last_price, self.last_lots, self.last_trade_ms = price, self._usual_lots, start_ms
        next_trade = 1_000_000_000 + random.getrandbits(32)
        self.tape = Tape(next_trade, next_trade // 3, retention)
        past_seed = f"past {random.getrandbits(64)}"
        usual = self._usual_lots
        self.past: Past = lambda: made_up(
            past_seed,
            instrument,
            end_ms=start_ms,
            price=price,
            first_trade=next_trade,
            usual_lots=usual,
            head=rank < _HEAD,
        )
        self.history = History(self.past)
        self.next_block = 500 + random.getrandbits(10)
        self.blocks: deque[BlockTrade] = deque(maxlen=1_000)

    def _fill(self, random: Random) -> None:
        bits, price, spacing, usual = random.getrandbits, self._anchor, self._spacing, self._usual_lots

        def side(first: int, step: int) -> list[tuple[int, int]]:
            levels, at = [], first
            for _ in range(self._levels):
                levels.append((at, 1 + (usual * (bits(10) + 32) >> 8)))
                at += step * (1 + (spacing * bits(8) >> 7))
                if at < 1:
                    break
            return levels

        self.book.fill(side(price - 1, -1), side(price, 1))

    # what happens

    def happen(self, bits: int, now: int) -> None:
        """Let one agent act at ``now``; ``bits`` are 64 random ones."""
        kind, bits = bits & 0xFF, bits >> 8
        self.book.time_ms = now
        if kind < 36:
            self._take(bits, now)
        elif kind < 150:
            self._place(bits)
        else:
            self._withdraw(bits)
        if self.book_ticker_stream:
            book = self.book
            best = book.best()
            if best != self._shown:
                self._shown = best
                update_id = book.update_id
                data = self.payloads.book_ticker(now, update_id, best)
                self._emit(self.book_ticker_stream, data, update_id, update_id, now)

    def track_book_ticker(self, stream: str) -> None:
        """Emit best bids and asks from the next change on."""
        self._shown = self.book.best()
        self.book_ticker_stream = stream

    def drift(self, random: Random) -> None:
        """Move the price that takers lean towards; once a second."""
        # in 1/65536 of a tick, so that coarse ticks drift too; pulled back so that no price runs away
        fine, home = self._anchor_fine, self.instrument.price_ticks << 16
        self._anchor_fine = fine + (fine * (2 * random.getrandbits(8) - 255) >> 21) + (home - fine >> 9)
        self._anchor = self._anchor_fine >> 16

    def _place(self, bits: int) -> None:
        book, spacing = self.book, self._spacing
        bid, ask = book.bid_keys[-1], -book.ask_keys[-1]
        where, size, is_bid = bits & 0x3FF, bits >> 10 & 0x3FF, bits >> 20 & 1
        room = ask - bid - 1
        if room and bits >> 21 & 3:
            inside = 1 + (where * min(room, 4 * spacing) >> 10)
            price = bid + inside if is_bid else ask - inside
        else:
            away = where * where * where * self._levels * spacing >> 30
            price = max(1, bid - away) if is_bid else ask + away
        lots = 1 + (self._usual_lots * size >> 9)
        levels = book.bids if is_bid else book.asks
        have = levels.get(price, 0)
        if have < 40 * self._usual_lots:
            lots += have
        if is_bid:
            book.set_bid(price, lots)
        else:
            book.set_ask(price, lots)

    def _withdraw(self, bits: int) -> None:
        book = self.book
        is_bid, where, share = bits & 1, bits >> 1 & 0x3FF, bits >> 11 & 0x3FF
        keys = book.bid_keys if is_bid else book.ask_keys
        depth = len(keys)
        at = where * where * where * depth >> 30
        key = keys[0] if depth > self._levels * 3 // 2 else keys[-1 - at]
        price = key if is_bid else -key
        have = (book.bids if is_bid else book.asks)[price]
        left = 1 + ((have - 1) * share >> 10)
        wholly = depth > self._levels or (at < 8 and depth > _LEAST_LEVELS)
        if left == have or (wholly and bits >> 21 & 1):
            if depth <= _LEAST_LEVELS:
                self._place(bits)
                return
            left = 0
        if is_bid:
            book.set_bid(price, left)
        else:
            book.set_ask(price, left)

    def _take(self, bits: int, now: int) -> None:
        book = self.book
        lean = (self._anchor - book.bid_keys[-1]) * 8_000 // self._anchor
        buys = (bits & 0xFF) < 128 + max(-100, min(100, lean))
        style, share, bits = bits >> 8 & 15, bits >> 12 & 0x3FF, bits >> 22
        keys, levels = (book.ask_keys, book.asks) if buys else (book.bid_keys, book.bids)
        if self.instrument.market != "spot" and (bits >> 20 & 0x3FF) < 6:
            self._skip_id(now)
        whole = 0 if style < 9 else 1 if style < 13 else style - 12
        whole = min(whole, len(keys) - _LEAST_LEVELS)
        filled = paid = lots = reached = 0
        for at in range(whole + 1):
            price = -keys[-1] if buys else keys[-1]
            have = levels[price]
            if at < whole:
                lots = have
            elif style < 9 or style > 12:
                lots = 1 + ((have - 1) * share >> 10)
                if lots == have and len(keys) <= _LEAST_LEVELS:
                    break
            else:
                break
            if buys:
                book.set_ask(price, have - lots)
            else:
                book.set_bid(price, have - lots)
            self._fill_order(price, lots, bits, now, buys=buys)
            filled, paid, reached = filled + lots, paid + price * lots, price
            bits >>= 3
        if filled and self.instrument.market != "spot" and not share & 0x7F:
            self._liquidated(filled, paid, reached, lots, now, buys=buys)

    # trades

    def _fill_order(self, price: int, lots: int, bits: int, now: int, *, buys: bool) -> None:
        """Trade ``lots`` of one taker at one price against one to three resting orders."""
        first = self.tape.trades.next_id
        flags = 0 if buys else BUYER_IS_MAKER
        left, parts = lots, bits & 3
        while parts > 1 and left > 2:
            part = left // parts
            self._trade(price, part, flags, now)
            left -= part
            parts -= 1
        self._trade(price, left, flags, now)
        market = self.instrument.market
        retail = 0
        if market == "usdm" and not bits >> 4 & 0x3F:
            retail = 1 + (lots >> 3)
            self._trade(price, retail, flags | RETAIL, now)
        last = self.tape.trades.next_id - 1
        if market == "spot":
            row = AggregateTrade(self.tape.aggregates.next_id, price, lots, lots, first, last, now, flags)
            self._commit(row, now)
            return
        pending = self._pending
        if pending is not None:
            if pending.price == price and pending.flags == flags:
                all_lots, normal_lots = pending.lots + lots + retail, pending.normal_lots + lots
                self._pending = pending._replace(lots=all_lots, normal_lots=normal_lots, last=last)
                return
            self.flush(now)
        self._pending = AggregateTrade(
            self.tape.aggregates.next_id, price, lots + retail, lots, first, last, now, flags
        )

    def flush(self, now: int) -> None:
        """Tell the aggregate trade that is still open; every 100 ms on futures."""
        pending = self._pending
        if pending is not None:
            self._pending = None
            self._commit(pending, now)

    def _commit(self, row: AggregateTrade, now: int) -> None:
        self.tape.aggregates.append(row[1:])
        if self.aggregate_stream:
            data = self.payloads.aggregate(now, row)
            self._emit(self.aggregate_stream, data, row.aggregate_id, row.aggregate_id, now)

    def _trade(self, price: int, lots: int, flags: int, now: int) -> None:
        trades = self.tape.trades
        trade_id = trades.next_id
        trades.append((price, lots, now, flags))
        quote = self.instrument.quote_of(price, lots)
        buys = not flags & BUYER_IS_MAKER
        update_id = self.book.update_id
        self.history.add(now, price, lots, quote, item=trade_id, update_id=update_id, taker_buys=buys)
        if self.second is not None:
            self._trade_in_second(now, price, lots, quote, trade_id, buys=buys)
        self.last_price, self.last_lots, self.last_trade_ms = price, lots, now
        if self.trade_stream:
            self._emit(
                self.trade_stream,
                self.payloads.trade(now, trade_id, price, lots, flags),
                trade_id,
                trade_id,
                now,
            )

    def _trade_in_second(
        self, now: int, price: int, lots: int, quote: int, trade_id: int, *, buys: bool
    ) -> None:
        second = self.second
        if second is None or now - second.open_ms >= 1000:
            second = self.second = OpenBar(now - now % 1000, price, trade_id, -1)
        second.add(price, lots, quote, trade_id, -1, taker_buys=buys)

    def _skip_id(self, now: int) -> None:
        """Use up a trade id without a trade, as futures do now and then (``X: "NA"``)."""
        self.flush(now)
        trades = self.tape.trades
        trade_id = trades.next_id
        trades.append((0, 0, now, NOT_EXECUTED))
        if self.trade_stream:
            data = self.payloads.trade(now, trade_id, 0, 0, NOT_EXECUTED)
            self._emit(self.trade_stream, data, trade_id, trade_id, now)

    def _liquidated(self, lots: int, paid: int, price: int, last_lots: int, now: int, *, buys: bool) -> None:
        if self.liquidation is None or lots > self.liquidation.lots:
            limit = price + price // 200 if buys else price - price // 200
            side = "BUY" if buys else "SELL"
            self.liquidation = Liquidation(side, lots, limit, paid * 1000 // lots, last_lots, now)

    def trade_block(self, bits: int, now: int) -> None:
        """Let two parties trade a block outside the book."""
        price = self.last_price + self.last_price * ((bits & 0xFF) - 128) // 100_000
        lots = self._usual_lots * (50 + (bits >> 8 & 0xFF))
        block = BlockTrade(self.next_block, price, lots, now, bool(bits >> 16 & 1))
        self.next_block += 1
        self.blocks.append(block)
        if self.block_stream:
            data = self.payloads.block_trade(now, *block[:4], maker=block.buyer_is_maker)
            self._emit(self.block_stream, data, block.trade_id, block.trade_id, now)

    # what others ask

    def trade_version(self) -> int:
        """Return a number that changes with every trade."""
        return self.tape.trades.next_id

    def book_version(self) -> int:
        """Return a number that changes with every change of the book (so with every trade, too)."""
        return self.book.update_id

    def watch_seconds(self, now: int) -> None:
        """Keep a bar of the second from now on, beginning with the second that is running."""
        if self.second is not None:
            return
        start = now - now % 1000
        self.second = OpenBar(start - 1000, self.last_price, -1, -1)
        trades = self.tape.trades
        for trade in self.tape.read_trades(trades.first_at(start), trades.next_id):
            quote = self.instrument.quote_of(trade.price, trade.lots)
            buys = not trade.flags & BUYER_IS_MAKER
            self._trade_in_second(trade.time_ms, trade.price, trade.lots, quote, trade.trade_id, buys=buys)

    def rolling(self, window_ms: int) -> Rolling:
        """Return the statistics of a rolling window."""
        found = self._rollings.get(window_ms)
        if found is None:
            found = self._rollings[window_ms] = Rolling(self.history, window_ms)
        return found

    def _emit(self, stream: str, data: bytes, first: int | None, last: int | None, now: int) -> None:
        self.out.append(Emission(self.instrument.market, stream, data, first, last, now))


def _usual_lots(instrument: Instrument) -> int:
    """Return about 2,000 dollars' worth in lots."""
    if instrument.market == "coinm":
        return 2_000 // instrument.contract_size
    thousandths = 25 if instrument.quote == "BTC" else 2_000_000
    price = instrument.price_ticks * instrument.tick_units
    return max(8, thousandths * power_of_ten(instrument.quote_digits) // (1_000 * price))
