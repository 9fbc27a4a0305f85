"""The stream protocol without sockets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import wire
from bridge.simulator.wire import Refusal, Session, Target, TimeUnit, parse_target

UNKNOWN = "Invalid request: unknown variant"
METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
VARIANTS = f"expected one of {METHODS} at line 1"
ID = "Invalid request: request ID must be an unsigned integer"
NAME = "Invalid request: property name must be a string"


def _aim(
    path: wire.Path,
    combined: bool,
    streams: tuple[str, ...],
    unit: TimeUnit = "MILLISECOND",
    *,
    listen_key: str | None = None,
) -> Target:
    return Target(path, combined, streams, unit, listen_key)


ANSWERS = [
    ('{"method":"SUBSCRIBE","params":["a@trade"],"id":1}', '{"result":null,"id":1}'),
    ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}', '{"result":null,"id":1}'),
    ('{"method":"SUBSCRIBE","params":["BTCUSDT@trade"],"id":-7}', '{"result":null,"id":-7}'),
    ('{"method":"SUBSCRIBE","params":[],"id":"x1"}', '{"result":null,"id":"x1"}'),
    ('{"method":"SUBSCRIBE","params":["!miniTicker@arr"],"id":null}', '{"result":null,"id":null}'),
    ('{"method":"UNSUBSCRIBE","params":["never@trade"],"id":312}', '{"result":null,"id":312}'),
    ('{"method":"LIST_SUBSCRIPTIONS","id":3}', '{"result":["btcusdt@trade"],"id":3}'),
    ('{"method":"GET_PROPERTY","params":["combined"],"id":2}', '{"result":false,"id":2}'),
    ('{"method":"SET_PROPERTY","params":["combined",true],"id":5}', '{"result":null,"id":5}'),
    (
        '{"method":"SET_PROPERTY","params":["size",true],"id":5}',
        '{"error":{"code":0,"msg":"Unknown property"},"id":5}',
    ),
    (
        '{"method":"SET_PROPERTY","params":["combined",1],"id":5}',
        '{"error":{"code":1,"msg":"Invalid value type: expected Boolean"},"id":5}',
    ),
    (
        '{"method":"SET_PROPERTY","params":["combined"],"id":5}',
        '{"error":{"code":1,"msg":"Invalid value type: expected Boolean"},"id":5}',
    ),
    (
        '{"method":"GET_PROPERTY","params":[7],"id":5}',
        f'{{"error":{{"code":2,"msg":"{NAME}"}},"id":5}}',
    ),
    ('{"method":"GET_PROPERTY","id":5}', f'{{"error":{{"code":2,"msg":"{NAME}"}},"id":5}}'),
    (
        '{"method":"GET_PROPERTY","params":["combined",1],"id":5}',
        '{"error":{"code":2,"msg":"Invalid request: too many parameters"},"id":5}',
    ),
    (
        '{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":5}',
        '{"error":{"code":2,"msg":"Invalid request: too many parameters"},"id":5}',
    ),
    (
        '{"method":"SUBSCRIBE","params":["btcusdt"],"id":9}',
        '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":9}',
    ),
    (
        '{"method":"SUBSCRIBE","params":"btcusdt@trade","id":9}',
        '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":9}',
    ),
    ('{"method":"SUBSCRIBE","params":["a@trade"]}', f'{{"error":{{"code":2,"msg":"{ID}"}},"id":null}}'),
    ('{"method":"SUBSCRIBE","params":[],"id":1.5}', f'{{"error":{{"code":2,"msg":"{ID}"}},"id":null}}'),
    ('{"method":"SUBSCRIBE","params":[],"id":true}', f'{{"error":{{"code":2,"msg":"{ID}"}},"id":null}}'),
    ('{"method":"SUBSCRIBE","params":[],"id":"a-b"}', f'{{"error":{{"code":2,"msg":"{ID}"}},"id":null}}'),
    (
        '{"method":"SUBSCRIBE","params":[],"id":9223372036854775808}',
        f'{{"error":{{"code":2,"msg":"{ID}"}},"id":null}}',
    ),
    (
        '{"method":"SUBSCRIBE_PLEASE","params":[],"id":1}',
        f'{{"error":{{"code":2,"msg":"{UNKNOWN} SUBSCRIBE_PLEASE, {VARIANTS} column 28"}},"id":null}}',
    ),
    (
        '{"params":[],"id":1}',
        '{"error":{"code":2,"msg":"Invalid request: missing field `method` at line 1 column 20"},"id":null}',
    ),
    (
        "[1]",
        '{"error":{"code":2,"msg":"Invalid request: missing field `method` at line 1 column 3"},"id":null}',
    ),
    (
        "hello",
        '{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"},"id":null}',
    ),
    (
        '{"method":}',
        '{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 11"},"id":null}',
    ),
]


@pytest.mark.parametrize(("asked", "answer"), ANSWERS)
def test_each_control_message_has_its_exact_answer(asked: str, answer: str) -> None:
    """Each control message gets Binance's own text, errors nested."""
    session = Session(market="spot", streams={"btcusdt@trade": None})
    assert session.handle(asked).reply == answer.encode()


def test_flat_errors_are_those_of_the_documentation() -> None:
    """The flat form is as the documentation prints it, with an id for unknown properties alone."""
    session = Session(market="spot", error_form="flat")
    unknown = session.handle('{"method":"GET_PROPERTY","params":["x"],"id":4}').reply
    assert unknown == b'{"code":0,"msg":"Unknown property","id":4}'
    assert session.handle("").reply == b'{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}'


def test_subscriptions_are_told_once() -> None:
    """A name that is subscribed already is acknowledged again and changes nothing."""
    session = Session(market="spot")
    first = session.handle('{"method":"SUBSCRIBE","params":["a@trade","a@trade"],"id":1}')
    again = session.handle('{"method":"SUBSCRIBE","params":["a@trade","b@trade"],"id":2}')
    gone = session.handle('{"method":"UNSUBSCRIBE","params":["a@trade","c@trade"],"id":3}')
    assert (first.subscribed, again.subscribed, gone.unsubscribed) == (
        ("a@trade",),
        ("b@trade",),
        ("a@trade",),
    )
    assert list(session.streams) == ["b@trade"]


def test_one_malformed_name_refuses_them_all() -> None:
    """Where one name of a SUBSCRIBE is malformed, none is added."""
    session = Session(market="spot")
    assert session.handle('{"method":"SUBSCRIBE","params":["a@trade","b"],"id":1}').subscribed == ()
    assert not session.streams


@pytest.mark.parametrize(("market", "closes"), [("spot", None), ("usdm", (1008, "Too many subscriptions"))])
def test_too_many_streams_is_code_4(market: str, closes: object) -> None:
    """Beyond the cap the answer is code 4; futures close the connection as well."""
    session = Session(market=market, most_streams=2, streams={"a@trade": None})
    outcome = session.handle('{"method":"SUBSCRIBE","params":["b@trade","c@trade"],"id":1}')
    assert outcome.reply == b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":1}'
    assert outcome.close == closes
    assert list(session.streams) == ["a@trade"]


def test_a_long_control_message_vanishes_on_spot() -> None:
    """4088 bytes are answered, one more is ignored without a word; futures take longer ones."""
    fits = json.dumps({"method": "SUBSCRIBE", "params": ["a@trade"], "id": 1})
    fits += " " * (4088 - len(fits))
    assert Session(market="spot").handle(fits).reply is not None
    assert Session(market="spot").handle(fits + " ") == wire.Outcome()
    assert Session(market="usdm").handle(fits + " ").reply is not None


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    """Whatever a client sends, the session answers and does not fail."""
    json.loads(Session(market="spot").handle(text).reply or b"null")


@pytest.mark.parametrize(
    ("stream", "path"),
    [
        ("btcusdt@depth", "public"),
        ("btcusdt@depth5@100ms", "public"),
        ("btcusdt@rpiDepth@500ms", "public"),
        ("btcusdt@bookTicker", "public"),
        ("!bookTicker", "public"),
        ("btcusdt@trade", "public"),
        ("btcusdt@aggTrade", "market"),
        ("btcusdt@markPrice@1s", "market"),
        ("!forceOrder@arr", "market"),
        ("tradingSession", "market"),
        ("币安人生usdt@kline_1m", "market"),
    ],
)
def test_each_futures_stream_has_its_path(stream: str, path: str) -> None:
    """Books and trades are on /public, the rest on /market; an unrouted connection carries /public alone."""
    assert wire.path_of(stream) == path
    assert Session(market="usdm", path="public").delivers(stream) == (path == "public")
    assert Session(market="usdm", path="market").delivers(stream) == (path == "market")
    assert Session(market="usdm", path="private").delivers(stream) is False
    assert Session(market="usdm").delivers(stream) == (path == "public")
    assert Session(market="coinm").delivers(stream)


@pytest.mark.parametrize(
    ("market", "resource", "target"),
    [
        ("spot", "/ws", _aim("", False, ())),
        ("spot", "/ws/a@trade", _aim("", False, ("a@trade",))),
        ("spot", "/stream", _aim("", True, ())),
        ("spot", "/stream?streams=a@trade/b@depth", _aim("", True, ("a@trade", "b@depth"))),
        ("spot", "/ws?timeUnit=MICROSECOND", _aim("", False, (), "MICROSECOND")),
        ("spot", "/stream?streams=a@trade&timeUnit=microsecond", _aim("", True, ("a@trade",), "MICROSECOND")),
        ("spot", "/ws/%E5%B8%81usdt%40trade", _aim("", False, ("币usdt@trade",))),
        ("usdm", "/public/stream", _aim("public", True, ())),
        ("usdm", "/market/ws/a@aggTrade/b@trade", _aim("market", False, ("a@aggTrade", "b@trade"))),
        ("usdm", "/stream?timeUnit=MICROSECOND", _aim("", True, ())),
        ("usdm", f"/private/ws/{'k' * 64}", _aim("private", False, (), listen_key="k" * 64)),
        ("usdm", "/private/stream?listenKey=abc&events=X", _aim("private", True, (), listen_key="abc")),
        ("coinm", f"/ws/{'k' * 64}", _aim("", False, (), listen_key="k" * 64)),
        ("spot", "/public/ws", Refusal(404, "Not Found")),
        ("coinm", "/market/stream", Refusal(404, "Not Found")),
        ("spot", "/", Refusal(404, "Not Found")),
        ("usdm", "/public", Refusal(404, "Not Found")),
        ("spot", "/stream/a@trade", Refusal(404, "Not Found")),
    ],
)  # fmt: skip
def test_urls_say_what_is_wanted(market: str, resource: str, target: object) -> None:
    """Every URL form of the three markets is read, and what does not exist is a 404."""
    assert parse_target(market, resource) == target


def test_a_wrong_time_unit_is_refused() -> None:
    """A time unit that does not exist is Binance's error -1194."""
    refusal = parse_target("spot", "/ws?timeUnit=SECOND")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, json.loads(refusal.body)["code"]) == (400, -1194)


@pytest.mark.parametrize(
    ("milliseconds", "microseconds"),
    [
        ('{"e":"trade","E":5,"t":7,"p":"1.50","T":6}', '{"e":"trade","E":5000,"t":7,"p":"1.50","T":6000}'),
        (
            '{"e":"kline","E":5,"k":{"t":1,"T":2,"f":3,"L":4}}',
            '{"e":"kline","E":5000,"k":{"t":1000,"T":2000,"f":3,"L":4}}',
        ),
        ('{"e":"24hrTicker","O":2,"C":3,"F":4}', '{"e":"24hrTicker","O":2000,"C":3000,"F":4}'),
        ('[{"e":"24hrMiniTicker","E":1,"o":"2"}]', '[{"e":"24hrMiniTicker","E":1000,"o":"2"}]'),
        ('{"e":"referencePrice","s":"币USD","t":1}', '{"e":"referencePrice","s":"币USD","t":1000}'),
        ('{"u":4,"s":"X","b":"1"}', '{"u":4,"s":"X","b":"1"}'),
        ('{"lastUpdateId":160,"bids":[],"asks":[]}', '{"lastUpdateId":160,"bids":[],"asks":[]}'),
    ],
)  # fmt: skip
def test_microseconds_scale_times_and_nothing_else(milliseconds: str, microseconds: str) -> None:
    """Time fields grow a thousandfold; ids of the same letter, prices and text stay."""
    assert wire.in_microseconds(milliseconds.encode()).decode() == microseconds


@pytest.mark.parametrize(
    ("length", "header"), [(125, "817d"), (126, "817e007e"), (65536, "817f0000000000010000")]
)
def test_frames_have_the_shortest_header(length: int, header: str) -> None:
    """A frame's length is written in 7, 16 or 64 bits as RFC 6455 has it."""
    assert wire.frame(wire.TEXT, b"x" * length)[:-length].hex() == header


def test_server_shutdown_has_three_shapes() -> None:
    """The event is bare on raw, wrapped on combined, and has no subscription on the WebSocket API."""
    event = b'{"e":"serverShutdown","E":5}'
    assert wire.server_shutdown("raw", 5) == event
    assert wire.server_shutdown("combined", 5) == b'{"stream":"!serverShutdown","data":' + event + b"}"
    assert wire.server_shutdown("ws_api", 5) == b'{"event":' + event + b"}"
