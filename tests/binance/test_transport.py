"""Both transports pass the same tests, over real sockets."""

import asyncio
import logging
import socket
import ssl
import threading
from contextlib import suppress

import pytest
import trustme
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.utils import accept_key

from bridge.binance.transport import OpenFailed, opener
from bridge.binance.turns import BEHIND
from bridge.errors import ConnectionLost
from tests.binance.scripted import Exchange, quick, raw_server, until


class Inbox:
    """Keeps what a transport tells."""

    def __init__(self):
        self.batches = []
        self.pings = self.pongs = 0
        self.ends = []

    def frames(self, payloads):
        self.batches.append(payloads)

    def pinged(self):
        self.pings += 1

    def ponged(self):
        self.pongs += 1

    def ended(self, code, reason):
        self.ends.append((code, reason))

    @property
    def payloads(self):
        return [payload for batch in self.batches for payload in batch]


@pytest.fixture(params=["websockets", "picows"])
def open_(request):
    """Open a transport of either kind."""
    return opener(request.param)


@pytest.fixture
async def exchange():
    """A server that says nothing by itself."""
    async with Exchange() as server:
        server.rate = None
        yield server


async def opened(open_, exchange, **changes):
    """Return an open transport, its inbox, and the server's socket."""
    inbox = Inbox()
    transport = await open_(exchange.url + "/stream", inbox, quick(**changes), None)
    await until(lambda: exchange.sockets)
    return transport, inbox, exchange.sockets[-1]


async def test_messages_arrive_as_the_bytes_that_were_sent(open_, exchange):
    """Text that is not UTF-8, empty and large messages come through exactly, in order."""
    transport, inbox, _ = await opened(open_, exchange)
    sent = [b"\xff\xfe not utf-8", b"", "币安".encode(), b"x" * 300_000, b"last"]
    for payload in sent:
        await exchange.send(payload)
    await until(lambda: len(inbox.payloads) == len(sent))
    assert inbox.payloads == sent
    assert all(type(payload) is bytes for payload in inbox.payloads)
    await transport.close(1000, "")


async def test_connections_that_are_behind_read_in_turns(open_):
    """Of three that are flooded no two go on in one round of the loop, and every message comes, in order."""
    sent = [b"%06d" % number + b"x" * 200 for number in range(20_000)]
    flood = b"".join(b"\x81\x7e" + len(payload).to_bytes(2) + payload for payload in sent)
    rounds, given = 0, []

    async def count_rounds():
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    def pour(connection):
        """Answer the handshake, then send as fast as the other end reads."""
        with connection, suppress(OSError):
            lines = connection.recv(65536).splitlines()
            [key] = [line.split()[1] for line in lines if line.lower().startswith(b"sec-websocket-key")]
            answer = "HTTP/1.1 101 .\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            connection.sendall((answer + accept_key(key.decode()) + "\r\n\r\n").encode() + flood)
            connection.recv(1)

    def listen(server):
        with suppress(OSError):
            while True:
                threading.Thread(target=pour, args=(server.accept()[0],), daemon=True).start()

    class Flooded(Inbox):
        def frames(self, payloads):
            super().frames(payloads)
            given.append((rounds, self, len(payloads)))

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=listen, args=(server,), daemon=True).start()
        counting = asyncio.create_task(count_rounds())
        inboxes = [Flooded() for _ in range(3)]
        transports = [await open_(f"ws://127.0.0.1:{port}/stream", inbox, quick(), None) for inbox in inboxes]
        await until(lambda: all(sum(map(len, inbox.batches)) == len(sent) for inbox in inboxes))
        for transport in transports:
            transport.abort()
        counting.cancel()
    assert all(inbox.payloads == sent for inbox in inboxes)
    behind = [(at, inbox) for at, inbox, size in given if size >= BEHIND]
    first = {inbox: at for at, inbox in reversed(behind)}
    turns = [at for at, inbox in behind if at > first[inbox]]
    assert len(turns) > 3
    assert len(turns) == len(set(turns))


async def test_a_server_that_says_much_and_is_gone_before_it_is_open(open_):
    """What came with the handshake's answer is delivered, then the end is told, once."""
    sent = [b"%04d" % number + b"x" * 200 for number in range(2 * BEHIND)]
    frames = b"".join(b"\x81\x7e" + len(payload).to_bytes(2) + payload for payload in sent)

    def serve_one(server):
        with server.accept()[0] as connection:
            lines = connection.recv(65536).splitlines()
            [key] = [line.split()[1] for line in lines if line.lower().startswith(b"sec-websocket-key")]
            answer = "HTTP/1.1 101 .\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            connection.sendall((answer + accept_key(key.decode()) + "\r\n\r\n").encode() + frames)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve_one, args=(server,), daemon=True).start()
        inbox = Inbox()
        await open_(f"ws://127.0.0.1:{server.getsockname()[1]}/stream", inbox, quick(), None)
        await until(lambda: inbox.ends)
    assert inbox.payloads == sent
    assert [code for code, _ in inbox.ends] == [1006]


async def test_all_messages_of_one_wake_up_come_together(open_, exchange):
    """A thousand messages sent in one go come in far fewer calls."""
    transport, inbox, _ = await opened(open_, exchange)
    for number in range(1000):
        await exchange.send(b"%d" % number)
    await until(lambda: len(inbox.payloads) == 1000)
    assert inbox.payloads == [b"%d" % number for number in range(1000)]
    assert len(inbox.batches) < 500
    await transport.close(1000, "")


async def test_fragments_are_put_together_with_pings_between_them(open_, exchange):
    """A fragmented message is one message, and a ping in its middle is answered."""
    transport, inbox, socket = await opened(open_, exchange)
    socket.transport.write(b"\x01\x03abc" + b"\x89\x02hi" + b"\x00\x03def" + b"\x80\x01g" + b"\x81\x04next")
    await until(lambda: len(inbox.payloads) == 2)
    assert inbox.payloads == [b"abcdefg", b"next"]
    assert inbox.pings == 1
    await transport.close(1000, "")


@pytest.mark.parametrize("frames", [b"\x80\x01g", b"\x01\x01a\x81\x01b"])
async def test_fragments_out_of_place_end_the_connection(open_, exchange, frames):
    """A continuation of nothing, and a message inside another, are protocol errors."""
    _, inbox, socket = await opened(open_, exchange)
    socket.transport.write(frames)
    await until(lambda: inbox.ends)
    assert inbox.ends[0][0] == 1002
    assert b"b" not in inbox.payloads


async def test_pings_are_answered_and_told(open_, exchange):
    """The server's ping gets its pong with the same payload."""
    transport, inbox, socket = await opened(open_, exchange)
    await asyncio.wait_for(await socket.ping(b"1770123456789"), 60)
    assert inbox.pings == 1
    await transport.close(1000, "")


async def test_our_pings_are_answered_and_told(open_, exchange):
    """A pong of the server reaches the inbox."""
    transport, inbox, _ = await opened(open_, exchange)
    await transport.ping()
    await transport.ping()
    await until(lambda: inbox.pongs == 2)
    await transport.close(1000, "")


async def test_text_goes_out_as_text(open_, exchange):
    """Control frames arrive as text frames, non-ASCII intact."""
    transport, _, _ = await opened(open_, exchange)
    await transport.send('{"method":"SUBSCRIBE","params":["币安人生usdt@trade"],"id":1}'.encode())
    await until(lambda: exchange.requests)
    assert exchange.requests[0][1]["params"] == ["币安人生usdt@trade"]
    await transport.close(1000, "")


async def test_closing_shakes_hands_and_tells_once(open_, exchange):
    """After close nothing is left open, the end is told once, and sending says it is closed."""
    transport, inbox, socket = await opened(open_, exchange)
    await transport.close(1000, "done")
    assert [code for code, _ in inbox.ends] == [1000]
    await until(lambda: socket.close_code is not None)
    assert (socket.close_code, socket.close_reason) == (1000, "done")
    with pytest.raises(ConnectionLost):
        await transport.send(b"late")
    with pytest.raises(ConnectionLost):
        await transport.ping()
    await transport.close(1000, "again")
    assert len(inbox.ends) == 1


@pytest.mark.parametrize(("code", "reason"), [(1008, "Too many requests"), (1001, ""), (4001, "ours")])
async def test_the_servers_close_is_told_with_code_and_reason(open_, exchange, code, reason):
    """Messages before the close are delivered first."""
    _, inbox, socket = await opened(open_, exchange)
    await exchange.send(b"before")
    await socket.close(code, reason)
    await until(lambda: inbox.ends)
    assert inbox.payloads == [b"before"]
    assert inbox.ends == [(code, reason)]


async def test_a_socket_that_dies_in_mid_frame_delivers_what_was_whole(open_, exchange):
    """Half a message is dropped; the end is abnormal."""
    _, inbox, socket = await opened(open_, exchange)
    await exchange.send(b"whole")
    socket.transport.write(b"\x81\x7e\x01\x00half")
    await until(lambda: inbox.payloads)
    socket.transport.abort()
    await until(lambda: inbox.ends)
    assert inbox.payloads == [b"whole"]
    assert inbox.ends[0][0] == 1006


async def test_a_message_over_the_limit_ends_the_connection_with_1009(open_, exchange):
    """The limit holds for one frame and for the sum of fragments."""
    _, inbox, socket = await opened(open_, exchange, max_message_bytes=1000)
    await socket.send([b"x" * 600, b"y" * 600], text=True)
    await until(lambda: inbox.ends)
    assert inbox.payloads == []
    assert inbox.ends[0][0] == 1009


async def test_a_message_of_endless_fragments_ends_the_connection_with_1009(open_, exchange):
    """However small they are: here they are empty."""
    transport, inbox, socket = await opened(open_, exchange)
    socket.transport.write(b"\x01\x00" + b"\x00\x00" * 10_000)
    await until(lambda: inbox.ends)
    assert inbox.payloads == []
    assert inbox.ends[0][0] == 1009
    await transport.close(1000, "")


async def test_a_single_frame_over_the_limit_ends_the_connection_with_1009(open_, exchange):
    """Nothing of it is delivered."""
    _, inbox, _ = await opened(open_, exchange, max_message_bytes=1000)
    await exchange.send(b"x" * 2000)
    await until(lambda: inbox.ends)
    assert (inbox.payloads, inbox.ends[0][0]) == ([], 1009)


async def test_closing_a_peer_that_does_not_answer_is_bounded(open_):
    """A peer that never answers the close is cut off after the time given."""

    async def deaf(reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in request.split("\r\n") if "-websocket-key" in line.lower())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )
        while await reader.read(1000):
            pass

    inbox = Inbox()
    async with raw_server(deaf) as port:
        transport = await open_(f"ws://127.0.0.1:{port}/stream", inbox, quick(close_seconds=0.1), None)
        async with asyncio.timeout(9):  # the library by itself would wait for 10 s
            await transport.close(1000, "bye")
    assert [code for code, _ in inbox.ends] == [1006], "nobody confirmed that it ended well"


async def test_aborting_ends_at_once(open_, exchange):
    """Cutting off needs no peer."""
    transport, inbox, _ = await opened(open_, exchange)
    transport.abort()
    await until(lambda: inbox.ends)
    assert inbox.ends[0][0] == 1006


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, [("Retry-After", "17")], (429, 17.0)),
        (418, [("Retry-After", "120")], (418, 120.0)),
        (403, [], (403, None)),
        (503, [("Retry-After", "soon")], (503, None)),
    ],
)
async def test_a_refused_handshake_tells_status_and_retry_after(open_, exchange, status, headers, expected):
    """What the host said reaches back-off."""
    exchange.statuses = [Response(status, "no", Headers([*headers, ("Content-Length", "0")]), b"")]
    with pytest.raises(OpenFailed) as raised:
        await open_(exchange.url + "/stream", Inbox(), quick(), None)
    assert (raised.value.failure.status, raised.value.failure.retry_after) == expected
    assert str(status) in str(raised.value)


async def test_redirects_are_not_followed(open_, exchange):
    """A redirect is a refusal like any other; nobody calls at its target."""
    headers = Headers([("Location", exchange.url + "/elsewhere"), ("Content-Length", "0")])
    exchange.statuses = [Response(302, "Found", headers, b"")]
    with pytest.raises(OpenFailed):
        await open_(exchange.url + "/stream", Inbox(), quick(), None)
    assert exchange.paths == ["/stream"]


async def test_no_proxy_is_taken_from_the_environment(open_, exchange, monkeypatch):
    """A proxy variable set by accident changes nothing."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    transport, _, _ = await opened(open_, exchange)
    await transport.close(1000, "")


async def test_compression_is_not_offered_and_the_bridge_names_itself(open_, exchange):
    """The handshake asks for no extension."""
    transport, _, socket = await opened(open_, exchange)
    assert "Sec-WebSocket-Extensions" not in socket.request.headers
    assert socket.request.headers["User-Agent"].startswith("binance-kafka-bridge/")
    await transport.close(1000, "")


async def test_nobody_listening_and_no_handshake_in_time_fail_to_open(open_):
    """A closed port and a server that says nothing are both told as failures."""

    async def say_nothing(reader, _writer):
        await reader.read(-1)

    async with raw_server(say_nothing) as port:
        with pytest.raises(OpenFailed):
            await open_(f"ws://127.0.0.1:{port}/stream", Inbox(), quick(open_seconds=0.2), None)
    with pytest.raises(OpenFailed):
        await open_(f"ws://127.0.0.1:{port}/stream", Inbox(), quick(), None)


async def test_a_certificate_nobody_trusts_is_told_as_tls(open_):
    """An unknown authority is not an ordinary failure; a known one opens."""
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    client_tls = ssl.create_default_context()

    async def hold(socket):
        await socket.wait_closed()

    async with serve(hold, "127.0.0.1", 0, ssl=server_tls) as server:
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}/stream"
        with pytest.raises(OpenFailed) as raised:
            await open_(url, Inbox(), quick(), client_tls)
        assert raised.value.failure.tls
        authority.configure_trust(client_tls)
        transport = await open_(url, Inbox(), quick(), client_tls)
        await transport.close(1000, "")


async def test_a_cancelled_opening_leaves_no_connection(open_):
    """Stopping in the middle of a handshake leaves no socket and no task behind."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def slow(reader, _writer):
        came.set()
        while await reader.read(1000):
            pass
        gone.set()

    async with raw_server(slow) as port:
        url = f"ws://127.0.0.1:{port}/stream"
        opening = asyncio.ensure_future(open_(url, Inbox(), quick(open_seconds=3), None))
        await came.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.wait_for(gone.wait(), 60)


async def test_libraries_never_log_below_warning(open_, exchange, caplog):
    """Even with everything at DEBUG, URLs and messages of the libraries stay out of the log."""
    caplog.set_level(logging.DEBUG)
    for name in ("websockets", "websockets.client", "picows", "picows.client"):
        caplog.set_level(logging.DEBUG, name)
    inbox = Inbox()
    transport = await open_(exchange.url + "/stream?listenKey=secret", inbox, quick(), None)
    await exchange_says(exchange, inbox)
    await transport.close(1000, "")
    client = [one for one in caplog.records if not one.name.startswith("websockets.server")]
    assert [one for one in client if "secret" in one.getMessage() or "hidden" in one.getMessage()] == []


async def exchange_says(exchange, inbox):
    """Let the server send something that must not be logged."""
    await until(lambda: exchange.sockets)
    await exchange.send(b"hidden")
    await until(lambda: inbox.payloads)
