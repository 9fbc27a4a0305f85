"""From a stream's name to what makes its events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bridge.simulator.market import rows
from bridge.simulator.market.feeds import ArrayFeed, DepthFeed, EachFeed, Feed, KlineFeed, RowFeed, SecondFeed
from bridge.simulator.market.payloads import FuturesPayloads, index_kline, index_price
from bridge.simulator.market.streams import wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.model import Market
    from bridge.simulator.market.bars import History
    from bridge.simulator.market.feeds import Row, WriteKline
    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.occasions import Occasions
    from bridge.simulator.market.pricing import IndexPrice
    from bridge.simulator.market.streams import Wanted
    from bridge.simulator.market.world import World

# the order in which paces take their turn when several are due
_PACES = (100, 250, 500, 1000, 2000, 3000, 5000)
_SHARED = frozenset(
    {"kline", "continuousKline", "markPriceKline", "indexPriceKline", "markPrice", "indexPrice", "assetIndex"}
)
"""Streams that name a pair or an asset, or that either futures host serves for both of its products."""
_ALWAYS: dict[str, Callable[[Listing, int], bytes | None]] = {
    "avgPrice": rows.average_price,
    "referencePrice": rows.reference_price,
    "forceOrder": partial(rows.force_order, every_symbol=False),
}


class Subscriptions:
    """The tracked streams, by their pace."""

    def __init__(self, world: World, occasions: Occasions) -> None:
        self._world, self._occasions = world, occasions
        self._feeds: dict[int, list[Feed]] = {pace: [] for pace in _PACES}
        self._tracked: set[tuple[Market, str]] = set()

    def publish(self, now: int) -> None:
        """Let every stream speak that is due at ``now``."""
        out = self._world.out
        for pace, feeds in self._feeds.items():
            if feeds and not now % pace:
                for feed in feeds:
                    feed.publish(now, out)

    def start(self, market: Market, stream: str) -> None:
        """Make the events of ``stream`` from now on; a name that means nothing stays silent."""
        if (market, stream) in self._tracked:
            return
        self._tracked.add((market, stream))
        want = wanted(market, stream)
        if want is None:
            return
        if not want.subject:
            self._start_for_all(market, stream, want)
        elif market != "spot" and want.kind in _SHARED:
            self._start_shared(market, stream, want)
        else:
            listing = self._world.streamed(market, want.subject)
            if listing is not None:
                self._start_one(listing, stream, want)

    def _start_one(self, listing: Listing, stream: str, want: Wanted) -> None:
        kind = want.kind
        if kind == "trade":
            listing.trade_stream = stream
        elif kind == "aggTrade":
            listing.aggregate_stream = stream
        elif kind == "bookTicker":
            listing.track_book_ticker(stream)
        elif kind == "blockTrade":
            listing.block_stream = stream
        elif kind == "depth":
            self._add(want, DepthFeed(listing, stream, int(want.argument or 0)))
        elif kind == "kline":
            self._start_kline(listing.instrument.market, stream, want, listing)
        else:
            row, version = self._row(listing, want)
            self._add(want, RowFeed(listing.instrument.market, stream, row, version))

    def _row(
        self, listing: Listing, want: Wanted
    ) -> tuple[Callable[[int], bytes | None], Callable[[], int] | None]:
        """Return what makes one symbol's payload, and what tells whether it changed (None: says so itself)."""
        kind = want.kind
        if kind == "miniTicker":
            return partial(rows.mini_ticker, listing), listing.trade_version
        if kind == "ticker":
            # spot's ticker holds the best prices too
            spot = listing.instrument.market == "spot"
            return partial(rows.ticker, listing), listing.book_version if spot else listing.trade_version
        if kind == "ticker_":
            return partial(rows.rolling_ticker, listing, want.argument), listing.trade_version
        if kind == "compositeIndex":
            return partial(rows.composite_index, listing, self._world.indexes), None
        return partial(_ALWAYS[kind], listing), None

    def _start_shared(self, market: Market, stream: str, want: Wanted) -> None:
        contract, index = self._world.contract(want.subject), self._index(want.subject)
        match want.kind:
            case "kline":
                self._start_kline(market, stream, want, contract)
            case "continuousKline":
                pair, _, contract_type = want.subject.partition("_")
                self._start_kline(market, stream, want, self._world.contract_of(pair, contract_type))
            case "markPriceKline":
                inverse = contract is not None and contract.instrument.market == "coinm"
                self._start_kline(market, stream, want, contract if inverse else None)
            case "indexPriceKline":
                if index is not None:
                    write = partial(index_kline, index.pair)
                    self._add_kline(
                        market, stream, want, index.history, write, last=partial(getattr, index, "value")
                    )
            case "assetIndex":
                asset, pairs = want.subject.upper(), rows.assets(self._world.indexes)
                if asset in pairs:
                    row = partial(rows.asset_index, asset, pairs[asset], self._world.indexes)
                    self._add(want, RowFeed(market, stream, row, None))
            case "indexPrice":
                if index is not None:
                    self._add(
                        want,
                        RowFeed(market, stream, partial(index_price, index), None),
                    )
            case _:
                self._start_mark_price(market, stream, want, contract, index)

    def _start_mark_price(
        self, market: Market, stream: str, want: Wanted, contract: Listing | None, index: IndexPrice | None
    ) -> None:
        prices = self._world.prices
        if contract is not None:
            row = partial(rows.mark_price, prices[contract.instrument.symbol])
            self._add(want, RowFeed(market, stream, row, None))
        elif index is not None:
            of_pair = [
                (partial(rows.mark_price, price), None) for price in prices.values() if price.index is index
            ]
            self._add(want, ArrayFeed(market, stream, [of_pair]))

    def _index(self, pair: str) -> IndexPrice | None:
        """Return the index of a coinm pair: only coinm has streams of them."""
        return self._world.indexes.get(pair.upper()) if pair.endswith("usd") else None

    def _start_kline(self, market: Market, stream: str, want: Wanted, listing: Listing | None) -> None:
        if listing is None:
            return
        if want.argument == "1s":
            self._add(want, SecondFeed(listing, stream, self._world.now))
            return
        payloads = listing.payloads
        if isinstance(payloads, FuturesPayloads) and want.kind == "markPriceKline":
            price = self._world.prices[listing.instrument.symbol]
            write: WriteKline = payloads.mark_kline
            self._add_kline(market, stream, want, price.history, write, last=lambda: price.now.mark)
            return
        write = payloads.kline
        if isinstance(payloads, FuturesPayloads) and want.kind == "continuousKline":
            write = payloads.continuous_kline
        last = partial(getattr, listing, "last_price")
        self._add_kline(market, stream, want, listing.history, write, last=last)

    def _add_kline(
        self, market: Market, stream: str, want: Wanted, history: History, write: WriteKline, *,
        last: Callable[[], int],
    ) -> None:  # fmt: skip
        feed = KlineFeed(
            market, stream, history, write, interval=want.argument, offset_ms=want.offset_ms,
            now=self._world.now, last_price=last, empty_too=market == "spot",
        )  # fmt: skip
        self._add(want, feed)

    def _start_for_all(self, market: Market, stream: str, want: Wanted) -> None:
        if want.kind == "!contractInfo":
            self._occasions.contract_info.append((market, stream))
            return
        world = self._world
        listings = list(world.listings["spot"].values()) if market == "spot" else world.futures
        self._add(want, self._feed_for_all(market, stream, want, listings))

    def _feed_for_all(self, market: Market, stream: str, want: Wanted, listings: list[Listing]) -> Feed:
        kind = want.kind
        each: list[tuple[Callable[[int], bytes | None], Callable[[], int] | None]]
        if kind == "!bookTicker":
            each = [(partial(rows.book_ticker, listing), listing.book_version) for listing in listings]
        elif kind == "!forceOrder@arr":
            each = [(partial(rows.force_order, listing, every_symbol=True), None) for listing in listings]
        elif kind == "tradingSession":
            each = [(partial(rows.session, name), None) for name in rows.SESSIONS]
        else:
            return ArrayFeed(market, stream, self._frames(want, listings))
        return EachFeed([RowFeed(market, stream, row, version) for row, version in each])

    def _frames(self, want: Wanted, listings: list[Listing]) -> list[list[Row]]:
        """Return the rows of an array stream, by frame."""
        if want.kind == "!assetIndex@arr":
            indexes = self._world.indexes
            pairs = rows.assets(indexes).items()
            return [[(partial(rows.asset_index, asset, pair, indexes), None) for asset, pair in pairs]]
        if want.kind == "!markPrice@arr":
            # TradFi contracts come in a frame of their own
            frames: list[list[Row]] = [[], []]
            for price in self._world.prices.values():
                tradfi = price.listing.instrument.underlying == "COMMODITY"
                frames[tradfi].append((partial(rows.mark_price, price), None))
            return frames
        if want.kind == "!ticker_@arr":
            window = want.argument
            return [
                [
                    (partial(rows.rolling_ticker, listing, window), listing.trade_version)
                    for listing in listings
                ]
            ]
        row = rows.mini_ticker if want.kind == "!miniTicker@arr" else rows.ticker
        return [[(partial(row, listing), listing.trade_version) for listing in listings]]

    def _add(self, want: Wanted, feed: Feed) -> None:
        self._feeds[want.period_ms].append(feed)
