"""The limit: what one hand-written file reaches that does this one job for these six streams and checks nothing.

picows and uvloop; the stream's name is sniffed, each kind decoded into a msgspec struct and written by a function of
its own, decimals exact as Avro ``bytes`` of eight bytes (scale 8) converted in bulk; aiokafka batches built per
partition, idempotent. No sequence checks, no transactions, no coverage, no metrics; a lost connection is the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from picows import WSListener, WSMsgType, ws_connect

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = ("@bookTicker", "@aggTrade", "@trade", "@depth@100ms", "@kline_1m", "@ticker")
CHANNELS = ("book-ticker", "agg-trade", "trade", "depth", "kline", "ticker")
STRUCTURES = ("bid-ask", "trade", "trade", "order-book", "ohlcv", "ticker")
BATCH_BYTES = 256 * 1024
LINGER_SECONDS = 0.005
MOST_UNSENT = 32 * 1024 * 1024
STREAMS_PER_CONNECTION = 1000
_HEAD = len(b'{"stream":"')
_LENGTH = 16  # eight, as Avro writes it before the bytes of a decimal


class BookTicker(msgspec.Struct):
    """``bookTicker``."""

    u: int
    b: str
    B: str
    a: str
    A: str


class AggTrade(msgspec.Struct):
    """``aggTrade``."""

    E: int
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - the exchange's name
    T: int
    m: bool


class Trade(msgspec.Struct):
    """``trade``."""

    E: int
    t: int
    p: str
    q: str
    T: int
    m: bool


class Depth(msgspec.Struct):
    """``depthUpdate``; levels stay text."""

    E: int
    U: int
    u: int
    b: msgspec.Raw
    a: msgspec.Raw


class Candle(msgspec.Struct):
    """The candle of ``kline``."""

    t: int
    T: int
    f: int
    L: int
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str


class Kline(msgspec.Struct):
    """``kline``."""

    E: int
    k: Candle


class Ticker(msgspec.Struct):
    """``24hrTicker``."""

    E: int
    p: str
    P: str
    w: str
    x: str
    c: str
    Q: str
    b: str
    B: str
    a: str
    A: str
    o: str
    h: str
    l: str  # noqa: E741
    v: str
    q: str
    O: int  # noqa: E741
    C: int
    F: int
    L: int
    n: int


def decoder(kind: type) -> Callable[[bytes], Any]:
    """Return what decodes a combined-stream message of a kind."""
    envelope = msgspec.defstruct("Envelope", [("data", kind)])
    return msgspec.json.Decoder(envelope).decode


_ONE = [bytes((n,)) for n in range(256)]
_TWO = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(1 << 14)]


def varint(number: int) -> bytes:
    """Return Avro's ``long`` of a number that is not negative; ids of today go the quick way."""
    n = number << 1
    if 1 << 28 <= n < 1 << 35:
        return _TWO[n & 16383] + _TWO[n >> 14 & 16383] + _ONE[n >> 28]
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


at_time = lru_cache(1 << 14)(varint)
"""The same of times and other numbers that come again."""

_two, _four = Struct(">BqBq").pack, Struct(">BqBqBqBq").pack
_pack = [Struct(">" + "Bq" * count).pack for count in range(101)]


def decimals(text: str) -> bytes:
    """Return the decimals of a text in which spaces part them; each has eight digits behind its point."""
    numbers = text.replace(".", "").split(" ")
    arguments = [_LENGTH] * (2 * len(numbers))
    arguments[1::2] = map(int, numbers)
    return _pack[len(numbers)](*arguments)


def two_decimals(price: str, amount: str) -> bytes:
    """Return two decimals."""
    return _two(_LENGTH, int(price.replace(".", "")), _LENGTH, int(amount.replace(".", "")))


def levels(raw: msgspec.Raw) -> bytes:
    """Return an Avro array of levels from their JSON."""
    text = bytes(raw).translate(None, b'[]".').decode()
    if not text:
        return b"\0"
    numbers = text.split(",")
    arguments = [_LENGTH] * (2 * len(numbers))
    arguments[1::2] = map(int, numbers)
    return b"%b%b\0" % (at_time(len(numbers) // 2), _pack[len(numbers)](*arguments))


def encode_book_ticker(head: bytes, m: BookTicker) -> bytes:
    """BidAsk: sequence, bid, bidVolume, ask, askVolume."""
    return b"%b%b%b" % (head, varint(m.u), _four(
        _LENGTH, int(m.b.replace(".", "")), _LENGTH, int(m.B.replace(".", "")),
        _LENGTH, int(m.a.replace(".", "")), _LENGTH, int(m.A.replace(".", "")),
    ))  # fmt: skip


def encode_agg_trade(head: bytes, m: AggTrade) -> bytes:
    """Trade: sequence, timestamp, side, price, amount, eventTime, firstTradeId, lastTradeId."""
    return b"%b%b%b%b%b%b%b%b" % (
        head, varint(m.a), at_time(m.T), b"\2" if m.m else b"\0", two_decimals(m.p, m.q), at_time(m.E), varint(m.f),
        varint(m.l),
    )  # fmt: skip


def encode_trade(head: bytes, m: Trade) -> bytes:
    """Trade, without the trades that were aggregated."""
    return b"%b%b%b%b%b%b\0\0" % (
        head, varint(m.t), at_time(m.T), b"\2" if m.m else b"\0", two_decimals(m.p, m.q), at_time(m.E),
    )  # fmt: skip


def encode_depth(head: bytes, m: Depth) -> bytes:
    """OrderBook: sequence, timestamp, firstSequence, bids, asks."""
    return b"%b%b%b%b%b%b" % (head, varint(m.u), at_time(m.E), varint(m.U), levels(m.b), levels(m.a))


def encode_kline(head: bytes, m: Kline) -> bytes:
    """Ohlcv: timestamp, closeTime, eventTime, firstTradeId, lastTradeId, trades, closed, then eight decimals."""
    k = m.k
    return b"%b%b%b%b%b%b%b%b%b" % (
        head, at_time(k.t), at_time(k.T), at_time(m.E), varint(k.f), varint(k.L), at_time(k.n), b"\1" if k.x else b"\0",
        decimals(f"{k.o} {k.h} {k.l} {k.c} {k.v} {k.q} {k.V} {k.Q}"),
    )  # fmt: skip


def encode_ticker(head: bytes, m: Ticker) -> bytes:
    """Ticker: timestamps, ids, percentage as text, then its decimals."""
    return b"%b%b%b%b%b%b%b%b%b%b" % (
        head, at_time(m.E), at_time(m.O), at_time(m.C), varint(m.F), varint(m.L), at_time(m.n), at_time(len(m.P)),
        m.P.encode(),
        decimals(f"{m.p} {m.w} {m.x} {m.c} {m.Q} {m.b} {m.B} {m.a} {m.A} {m.o} {m.h} {m.l} {m.v} {m.q}"),
    )  # fmt: skip


KINDS: dict[str, tuple[Callable[[bytes], Any], Callable[[bytes, Any], bytes]]] = {
    "@bookTicker": (decoder(BookTicker), encode_book_ticker),
    "@aggTrade": (decoder(AggTrade), encode_agg_trade),
    "@trade": (decoder(Trade), encode_trade),
    "@depth@100ms": (decoder(Depth), encode_depth),
    "@kline_1m": (decoder(Kline), encode_kline),
    "@ticker": (decoder(Ticker), encode_ticker),
}


class Lane:
    """The open batch of a partition."""

    def __init__(self, sink: Sink, topic: str, partition: int) -> None:
        self._sink, self.topic, self.partition = sink, topic, partition
        self.batch = sink.producer.create_batch()
        self.under_way = 0

    def append(self, key: bytes, value: bytes, timestamp: int) -> None:
        """Add a record."""
        if self.batch.append(key=key, value=value, timestamp=timestamp) is None:
            self.seal()
            self.batch.append(key=key, value=value, timestamp=timestamp)

    def seal(self) -> None:
        """Hand the batch over."""
        if self.batch.record_count():
            full, self.batch = self.batch, self._sink.producer.create_batch()
            self._sink.send(self, full)


class Sink:
    """Lanes, and how much waits."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.lanes: list[Lane] = []
        self.transports: list[Any] = []
        self._queues: dict[Lane, asyncio.Queue[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unsent = 0
        self._paused = False

    def lane(self, topic: str, partition: int) -> Lane:
        """Return a new lane."""
        lane = Lane(self, topic, partition)
        self.lanes.append(lane)
        self._queues[lane] = asyncio.Queue()
        self._tasks.append(asyncio.create_task(self._sender(lane)))
        return lane

    def send(self, lane: Lane, batch: Any) -> None:
        """Send a batch after those of its lane."""
        self._unsent += batch.size()
        lane.under_way += 1
        self._queues[lane].put_nowait(batch)
        if self._unsent > MOST_UNSENT and not self._paused:
            self._paused = True
            for transport in self.transports:
                transport.underlying_transport.pause_reading()

    async def _sender(self, lane: Lane) -> None:
        while True:
            batch = await self._queues[lane].get()
            size = batch.size()
            future = await self.producer.send_batch(batch, lane.topic, partition=lane.partition)
            future.add_done_callback(lambda done, size=size: self._sent(lane, done, size))

    def _sent(self, lane: Lane, done: asyncio.Future[Any], size: int) -> None:
        done.result()
        lane.under_way -= 1
        self._unsent -= size
        if self._paused and self._unsent < MOST_UNSENT // 2:
            self._paused = False
            for transport in self.transports:
                transport.underlying_transport.resume_reading()

    async def linger(self) -> None:
        """Seal what is open, again and again; a lane that waits for an answer goes on filling."""
        while True:
            await asyncio.sleep(LINGER_SECONDS)
            for lane in self.lanes:
                if not lane.under_way:
                    lane.seal()


Handler = tuple[Any, Any, bytes, bytes, Any, Any]


class Listener(WSListener):
    """Takes frames; those of one wake-up share a time stamp."""

    def __init__(self, handlers: dict[bytes, Handler]) -> None:
        super().__init__()
        self._handlers = handlers
        self._later = asyncio.get_running_loop().call_soon
        self._now_ms = 0
        self._stamp = b""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Make two records of a message."""
        if frame.payload_size < 64 and frame.msg_type != WSMsgType.TEXT:
            if frame.msg_type == WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            return
        payload = frame.get_payload_as_bytes()
        handler = self._handlers.get(payload[_HEAD : payload.find(b'"', _HEAD)])
        if handler is None:
            return
        now = self._now_ms
        if not now:
            micros = time.time_ns() // 1000
            now, self._stamp = micros // 1000, varint(micros)
            self._now_ms = now
            self._later(self._wake_up_ends)
        decode, encode, key, head, raw, unified = handler
        raw.append(key, payload, now)
        unified.append(key, encode(head + self._stamp, decode(payload).data), now)

    def _wake_up_ends(self) -> None:
        self._now_ms = 0


def handlers(sink: Sink, symbols: list[str], partitions: int, *, per_channel: bool) -> dict[bytes, Handler]:
    """Return what to do with each stream."""
    choose, lanes, found = DefaultPartitioner(), {}, {}
    numbers = list(range(partitions))

    def lane(topic: str, key: bytes) -> Lane:
        place = (topic, choose(key, numbers, numbers))
        if place not in lanes:
            lanes[place] = sink.lane(*place)
        return lanes[place]

    for symbol in symbols:
        key, name = symbol.encode(), f"{symbol[:-4]}/USDT".encode()
        head = varint(len(name)) + name
        for suffix, channel, structure in zip(SUFFIXES, CHANNELS, STRUCTURES, strict=True):
            raw, unified = (
                (f"raw.{channel}", f"unified.{structure}") if per_channel else ("raw.all", "unified.all")
            )
            stream = (symbol.lower() + suffix).encode()
            found[stream] = (*KINDS[suffix], key, head, lane(raw, key), lane(unified, key))
    return found


async def main() -> None:
    """Bridge until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--per-channel", action="store_true")
    parser.add_argument("--compression")
    asked = parser.parse_args()
    producer = AIOKafkaProducer(
        bootstrap_servers=asked.bootstrap_servers, enable_idempotence=True, acks="all", linger_ms=0,
        max_batch_size=BATCH_BYTES, max_request_size=4 * BATCH_BYTES, compression_type=asked.compression,
    )  # fmt: skip
    await producer.start()
    sink = Sink(producer)
    symbols = [f"S{number:03}USDT" for number in range(asked.symbols)]
    table = handlers(sink, symbols, asked.partitions, per_channel=asked.per_channel)
    names = [name.decode() for name in table]
    for begin in range(0, len(names), STREAMS_PER_CONNECTION):
        transport, _ = await ws_connect(lambda: Listener(table), f"{asked.url}/stream")
        sink.transports.append(transport)
        mine = names[begin : begin + STREAMS_PER_CONNECTION]
        for at in range(0, len(mine), 200):
            request = {"method": "SUBSCRIBE", "params": mine[at : at + 200], "id": at + 1}
            transport.send(WSMsgType.TEXT, json.dumps(request).encode())
    await sink.linger()


if __name__ == "__main__":
    uvloop.run(main())
