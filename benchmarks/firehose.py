"""An exchange that sends as fast as it is read: the load of the benchmarks, never their bottleneck.

A program of its own, told what to do by lines on standard input and answering each with a line of JSON:

=====================  ===========================================================================================
``status``             how many connections and streams there are, and how many messages were sent
``start RATE COUNT``   send the first COUNT messages (0: all) of the streams subscribed to; RATE messages a second, or
                       with 0 as fast as they are taken
``stop``               send nothing more; what was begun is finished
``log PATH``           write when the messages were sent (paced sending only): lines ``microseconds,number``
=====================  ===========================================================================================

It speaks combined streams (``/stream``, SUBSCRIBE) and the few REST requests with which clients begin. Frames are made
beforehand; unpaced, a connection is handed 256 KiB of them at a time and backpressure is the socket's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.corpus import exchange_info  # noqa: E402 - the checkout comes first
from benchmarks.frames import Frames, framed, loaded, unwrapped  # noqa: E402

CHUNK_BYTES = 256 * 1024
_TICK_SECONDS = 0.001
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SNAPSHOT = b'{"lastUpdateId":1000000000,"bids":[["1.0","1.0"]],"asks":[["9.0","1.0"]]}'
"""What stands before the corpus' first change of a book."""
_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG_FRAME, _CLOSE_FRAME = 0x8A, 0x88


class Chunk(NamedTuple):
    """Whole frames, and how many messages they are."""

    data: bytes
    messages: int


@dataclass(slots=True, eq=False)
class Connection:
    """A client's connection, in either of the two protocols."""

    socket: socket.socket
    is_websocket: bool = False
    bare: bool = False
    """Whether messages come without the combined streams' wrapper: on ``/ws``."""
    received: bytearray = field(default_factory=bytearray)
    streams: set[str] = field(default_factory=set)
    waiting: deque[Chunk] = field(default_factory=deque)
    """Chunks of the corpus."""
    urgent: deque[bytes] = field(default_factory=deque)
    """Answers, which go between two chunks."""
    current: memoryview = field(default_factory=lambda: memoryview(b""))
    current_messages: int = 0
    writing: bool = False


class Firehose:
    """The server.

    Args:
        frames: what to send.
        symbols: how many symbols the exchange has.
    """

    def __init__(self, frames: Frames, symbols: int) -> None:
        self._frames = frames
        self._info = exchange_info(symbols)
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self.port = self._listener.getsockname()[1]
        self._sent = 0
        self._planned = 0
        self._lost = 0
        self._paced: Paced | None = None
        self._requests: dict[str, int] = {}

    def serve(self) -> None:
        """Serve until standard input ends."""
        os.set_blocking(sys.stdin.fileno(), False)
        lines = bytearray()
        stdin = sys.stdin.fileno()
        self._selector.register(stdin, selectors.EVENT_READ, None)
        while True:
            timeout = None if self._paced is None else self._paced.wait()
            for key, events in self._selector.select(timeout):
                if key.data is None:
                    read = os.read(stdin, 65536)
                    if not read:
                        return
                    lines += read
                    while b"\n" in lines:
                        line, _, rest = bytes(lines).partition(b"\n")
                        lines[:] = rest
                        print(json.dumps(self._obey(line.decode().split())), flush=True)
                elif isinstance(key.data, Connection):
                    self._ready(key.data, events)
                else:
                    key.data()
            if self._paced is not None:
                self._pace(self._paced)

    # Commands.

    def _obey(self, words: list[str]) -> dict[str, object]:
        match words:
            case ["start", rate, count]:
                self._start(float(rate), min(int(count) or len(self._frames), len(self._frames)))
            case ["stop"]:
                self._stop()
            case ["log", path]:
                if self._paced is not None:
                    Path(path).write_text("".join(f"{us},{number}\n" for us, number in self._paced.log))
            case _:
                pass
        carrying = [c for c in self._connections.values() if c.streams]
        return {
            "connections": len(carrying),
            "streams": len(set().union(*(c.streams for c in carrying))),
            "sent": self._sent,
            "planned": self._planned,
            "lost_connections": self._lost,
            "backlog": sum(chunk.messages for c in carrying for chunk in c.waiting),
            "requests": self._requests,
        }

    def _start(self, rate: float, count: int) -> None:
        """Deal the messages to the connections that subscribed to their streams."""
        by_name = {name: c for c in self._connections.values() for name in c.streams}
        takers = [by_name.get(name) for name in self._frames.names]
        if rate:
            self._paced = Paced(self._frames, takers, rate, count)
            self._planned = count
            return
        parts: dict[Connection, list[bytes]] = {c: [] for c in by_name.values()}
        sizes = dict.fromkeys(parts, 0)
        for number, (stream, frame) in enumerate(self._frames.each()):
            if number >= count:
                break
            taker = takers[stream]
            if taker is None:
                continue
            part = parts[taker]
            if taker.bare:
                frame = unwrapped(frame)  # noqa: PLW2901
            part.append(frame)
            sizes[taker] += len(frame)
            if sizes[taker] >= CHUNK_BYTES:
                taker.waiting.append(Chunk(b"".join(part), len(part)))
                part.clear()
                sizes[taker] = 0
        for taker, part in parts.items():
            if part:
                taker.waiting.append(Chunk(b"".join(part), len(part)))
        self._planned = sum(chunk.messages for taker in parts for chunk in taker.waiting)
        for taker in parts:
            self._write(taker)

    def _stop(self) -> None:
        for connection in self._connections.values():
            connection.waiting.clear()
        if self._paced is not None:
            self._paced.end()

    def _pace(self, paced: Paced) -> None:
        for taker, chunk in paced.due():
            taker.waiting.append(chunk)
            if not taker.writing:
                self._write(taker)

    # Sockets.

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(accepted)
            self._connections[accepted.fileno()] = connection
            self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _ready(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read(connection)
            if connection.socket.fileno() >= 0 and events & selectors.EVENT_WRITE:
                self._write(connection)
        except ConnectionError:
            self._drop(connection)

    def _read(self, connection: Connection) -> None:
        while True:
            try:
                read = connection.socket.recv(65536)
            except BlockingIOError:
                break
            if not read:
                self._drop(connection)
                return
            connection.received += read
        if not connection.is_websocket:
            self._http(connection)
        if connection.is_websocket:
            self._frames_of(connection)

    def _drop(self, connection: Connection) -> None:
        if connection.socket.fileno() < 0:
            return
        if connection.waiting or connection.current:
            self._lost += 1
        self._connections.pop(connection.socket.fileno(), None)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _write(self, connection: Connection) -> None:
        """Send until the socket takes no more or nothing is left."""
        sock = connection.socket
        while sock.fileno() >= 0:
            if not connection.current:
                if connection.urgent:
                    connection.current = memoryview(connection.urgent.popleft())
                elif connection.waiting:
                    chunk = connection.waiting.popleft()
                    connection.current, connection.current_messages = memoryview(chunk.data), chunk.messages
                else:
                    self._watch(connection, writing=False)
                    return
            try:
                taken = sock.send(connection.current)
            except BlockingIOError:
                self._watch(connection, writing=True)
                return
            except ConnectionError:
                self._drop(connection)
                return
            connection.current = connection.current[taken:]
            if not connection.current:
                self._sent += connection.current_messages
                connection.current_messages = 0
                if connection.waiting:  # the others' turn
                    self._watch(connection, writing=True)
                    return

    def _watch(self, connection: Connection, *, writing: bool) -> None:
        if connection.writing != writing:
            connection.writing = writing
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
            self._selector.modify(connection.socket, events, connection)

    def _answer(self, connection: Connection, data: bytes) -> None:
        connection.urgent.append(data)
        if not connection.writing:
            self._write(connection)

    # HTTP.

    def _http(self, connection: Connection) -> None:
        while (end := connection.received.find(b"\r\n\r\n")) >= 0 and not connection.is_websocket:
            head = bytes(connection.received[:end]).decode("latin-1")
            del connection.received[: end + 4]
            first, *lines = head.split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
            }
            target = urlsplit(first.split(" ")[1])
            if "sec-websocket-key" in headers:
                digest = hashlib.sha1(headers["sec-websocket-key"].encode() + _GUID).digest()
                connection.is_websocket = True
                connection.bare = target.path.startswith("/ws")
                for name in "/".join(parse_qs(target.query).get("streams", [])).split("/"):
                    if name:
                        connection.streams.add(name)
                answer = (
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
                )
                self._answer(connection, answer.encode())
            else:
                self._requests[target.path] = self._requests.get(target.path, 0) + 1
                self._answer(connection, self._rest(target.path))

    def _rest(self, path: str) -> bytes:
        status, body = "200 OK", b"{}"
        if path.endswith("/exchangeInfo"):
            body = self._info
        elif path.endswith("/time"):
            body = b'{"serverTime":%d}' % int(time.time() * 1000)
        elif path.endswith("/depth"):
            body = _SNAPSHOT
        elif not path.endswith("/ping"):
            status, body = "404 Not Found", b'{"code":-1,"msg":"not here"}'
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "x-mbx-used-weight-1m: 1\r\n\r\n"
        )
        return head.encode() + body

    # WebSocket.

    def _frames_of(self, connection: Connection) -> None:
        """Take a client's frames: requests, pings and its goodbye. None is fragmented."""
        data = connection.received
        while len(data) >= 6:
            opcode, size, at = data[0] & 0x0F, data[1] & 0x7F, 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
            if len(data) < at + 4 + size:
                return
            mask, at = data[at : at + 4], at + 4
            masked = int.from_bytes(data[at : at + size], "big")
            key = int.from_bytes((bytes(mask) * (size // 4 + 1))[:size], "big")
            payload = (masked ^ key).to_bytes(size, "big")
            del data[: at + size]
            if opcode == _PING:
                self._answer(connection, framed(payload, _PONG_FRAME))
            elif opcode == _CLOSE:
                connection.waiting.clear()
                self._answer(connection, framed(payload, _CLOSE_FRAME))
            elif opcode == _TEXT:
                self._request(connection, payload)

    def _request(self, connection: Connection, payload: bytes) -> None:
        request = json.loads(payload)
        names = request.get("params", [])
        if request["method"] == "SUBSCRIBE":
            connection.streams.update(names)
        elif request["method"] == "UNSUBSCRIBE":
            connection.streams.difference_update(names)
        answer = json.dumps({"result": None, "id": request["id"]}, separators=(",", ":"))
        self._answer(connection, framed(answer.encode()))


class Paced:
    """Messages at a steady rate, in the corpus' order.

    Attributes:
        log: when (microseconds of the wall clock) how many of the corpus had been handed over.
    """

    def __init__(self, frames: Frames, takers: list[Connection | None], rate: float, count: int) -> None:
        self._frames, self._takers, self._rate, self._count = frames, takers, rate, count
        self._began = time.monotonic()
        self._next = 0
        self._at = 0
        self.log: list[tuple[int, int]] = []

    def wait(self) -> float | None:
        """Return seconds until the next messages are due; None when all are sent."""
        return None if self._next >= self._count else _TICK_SECONDS

    def end(self) -> None:
        """Send nothing more."""
        self._count = self._next

    def due(self) -> list[tuple[Connection, Chunk]]:
        """Return what is to be sent now."""
        upto = min(self._count, int((time.monotonic() - self._began) * self._rate))
        if upto <= self._next:
            return []
        parts: dict[Connection, list[bytes]] = {}
        blob, ends, streams = self._frames.blob, self._frames.ends, self._frames.streams
        for number in range(self._next, upto):
            began, self._at = self._at, ends[number]
            taker = self._takers[streams[number]]
            if taker is not None:
                frame = blob[began : self._at]
                parts.setdefault(taker, []).append(unwrapped(frame) if taker.bare else frame)
        self._next = upto
        self.log.append((time.time_ns() // 1000, upto))
        return [(taker, Chunk(b"".join(part), len(part))) for taker, part in parts.items()]


def main() -> None:
    """Serve a file of frames; the first line printed names the port."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames", type=Path, help="a file of benchmarks.frames")
    parser.add_argument("--symbols", type=int, required=True)
    parser.add_argument("--now-ms", type=int, help="event time of the first message; without it, the present")
    asked = parser.parse_args()
    firehose = Firehose(loaded(asked.frames, asked.now_ms), asked.symbols)
    print(json.dumps({"port": firehose.port}), flush=True)
    firehose.serve()


if __name__ == "__main__":
    main()
