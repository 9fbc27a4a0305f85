"""The private side over real sockets: REST, the WebSocket API's sessions, listen keys, faults and the ground truth."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.client import connect
from yarl import URL

from bridge.simulator import Limits, Simulator, SimulatorSettings
from bridge.simulator.accounts.plan import parse_accounts
from tests.simulator.accounts.stage import EXAMPLES, Stage, shape
from tests.simulator.conftest import DEADLINE, ScriptedExchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import TracebackType

READER, TRADER, OTHER, ED = ("R" * 32, "T" * 32, "O" * 32, "E" * 32)
SECRETS = {READER: "reader-secret", TRADER: "trader-secret", OTHER: "other-secret"}
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PLAN = {
    "accounts": [
        {
            "name": "main",
            "keys": [
                {"name": "reader", "key": READER, "secret": SECRETS[READER]},
                {
                    "name": "trader",
                    "key": TRADER,
                    "secret": SECRETS[TRADER],
                    "permissions": ["reading", "spot", "futures"],
                },
                {"name": "ed", "key": ED, "public_key": PUBLIC, "permissions": ["reading", "spot"]},
            ],
            "spot": {"USDT": "100000", "BTC": "2"},
            "usdm": {"USDT": "10000"},
            "coinm": {"BTC": "1"},
        },
        {"name": "other", "keys": [{"name": "only", "key": OTHER, "secret": SECRETS[OTHER]}]},
    ]
}


def signed(key: str, payload: str) -> str:
    """Sign with whatever the key signs with."""
    if key == ED:
        return base64.b64encode(PRIVATE.sign(payload.encode())).decode()
    return hmac.new(SECRETS[key].encode(), payload.encode(), hashlib.sha256).hexdigest()


class Client:
    """Asks a simulator as a client would."""

    def __init__(self, simulator: Simulator, stage: Stage) -> None:
        self.simulator, self.stage = simulator, stage
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def rest(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | None = None,
        key: str = TRADER,
        *,
        sign: bool = True,
    ) -> tuple[int, Any, Any]:
        """Ask; return status, JSON and headers."""
        query = "&".join(f"{k}={quote(str(v), safe='')}" for k, v in (params or {}).items())
        if sign:
            query += f"{'&' if query else ''}timestamp={self.simulator.clock.now_ms()}"
            query += f"&signature={quote(signed(key, query), safe='')}"
        market = {"/a": "spot", "/s": "spot", "/f": "usdm", "/d": "coinm"}[path[:2]]
        url = f"{self.simulator.endpoints[market]['rest']}{path}"
        target = URL(f"{url}?{query}" if query else url, encoded=True)
        async with self.http.request(method, target, headers={"X-MBX-APIKEY": key}) as response:
            return response.status, await response.json(), response.headers

    async def control(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the control endpoint."""
        url = self.simulator.endpoints["http"] + path
        async with self.http.request(method, url, json=body) as response:
            return response.status, await response.json()

    async def ws_api(self, market: str = "spot") -> Line:
        """Open a WebSocket API connection."""
        url = self.simulator.endpoints[market]["ws_api"] + "/ws-api/v3?returnRateLimits=false"
        return Line(await self._stack.enter_async_context(self.http.ws_connect(url)), self.simulator)


class Line:
    """A WebSocket API connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, simulator: Simulator) -> None:
        self.socket, self.simulator = socket, simulator
        self.events: list[Any] = []
        self._asked = 0

    async def ask(self, method: str, key: str | None = None, **params: Any) -> Any:
        """Ask, signed where a key is given; return the answer, events on the way are kept."""
        self._asked += 1
        if key is not None:
            params |= {"apiKey": key, "timestamp": self.simulator.clock.now_ms()}
            payload = "&".join(f"{k}={params[k]}" for k in sorted(params))
            params["signature"] = signed(key, payload)
        await self.socket.send_json({"id": self._asked, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json(timeout=DEADLINE)
            if message.get("id") == self._asked:
                return message
            self.events.append(message)

    async def event(self) -> Any:
        """Return the next event."""
        return self.events.pop(0) if self.events else await self.socket.receive_json(timeout=DEADLINE)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A simulator with two accounts on a market that the test moves, and a client of it."""
    stage = Stage()
    settings = SimulatorSettings(
        accounts=parse_accounts(PLAN),
        tick_seconds=0.001,
        ground_truth=tmp_path / "truth.jsonl",
        limits=Limits(),
    )
    async with Simulator(settings, ScriptedExchange(), stage) as simulator, Client(simulator, stage) as found:
        yield found


ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.5"}


async def test_an_order_by_rest_is_seen_and_gone(client: Client) -> None:
    """A limit order far away is placed, listed and cancelled; success costs no weight, orders are counted."""
    status, placed, headers = await client.rest("POST", "/api/v3/order", {**ORDER, "price": "70000"})
    assert (status, placed["status"]) == (200, "NEW")
    assert (headers["X-MBX-USED-WEIGHT-1M"], headers["X-MBX-ORDER-COUNT-10S"]) == ("0", "1")
    which = {"symbol": "BTCUSDT", "orderId": placed["orderId"]}
    _, found, headers = await client.rest("GET", "/api/v3/openOrders", key=READER)
    assert ([o["orderId"] for o in found], headers["X-MBX-USED-WEIGHT-1M"]) == ([placed["orderId"]], "80")
    assert (await client.rest("DELETE", "/api/v3/order", which))[1]["status"] == "CANCELED"
    assert (await client.rest("GET", "/api/v3/openOrders"))[1] == []
    assert (await client.rest("DELETE", "/api/v3/order", which))[1]["code"] == -2011
    assert (await client.rest("GET", "/api/v3/order", which))[1]["status"] == "CANCELED"


async def test_ed25519_signs_rest(client: Client) -> None:
    """An Ed25519 signature comes percent-encoded in the URL, and non-ASCII parameters are signed encoded."""
    assert (await client.rest("GET", "/api/v3/account", key=ED))[0] == 200
    status, body, _ = await client.rest("GET", "/api/v3/myTrades", {"symbol": "币安人生USDT"}, key=ED)
    assert (status, body) == (200, [])


GUARDED = [
    ("no-key", "/api/v3/account", 401, -2014),
    ("X" * 32, "/api/v3/account", 401, -2015),
    (READER, "/api/v3/order", 401, -2015),
    (READER, "/fapi/v1/order", 401, -2015),
]


@pytest.mark.parametrize(("key", "path", "status", "code"), GUARDED)
async def test_keys_are_guarded(client: Client, key: str, path: str, status: int, code: int) -> None:
    """A malformed key, an unknown one and one without the permission are told apart as the exchange does."""
    method = "POST" if path.endswith("order") else "GET"
    found, body, _ = await client.rest(
        method, path, {**ORDER, "timestamp": 1, "signature": "x"}, key, sign=False
    )
    assert (found, body["code"]) == (status, code)
    assert key not in json.dumps(body)


async def test_times_and_signatures_are_guarded(client: Client) -> None:
    """Missing or wrong times and signatures have their own codes."""
    now = client.simulator.clock.now_ms()
    for params, code in (
        ({}, -1102),
        ({"timestamp": now}, -1102),
        ({"timestamp": now - 60_000, "signature": "0" * 64}, -1021),
        ({"timestamp": now, "signature": "0" * 64}, -1022),
    ):
        status, body, _ = await client.rest("GET", "/api/v3/account", params, sign=False)
        assert (status, body["code"]) == (400, code)


async def test_a_skewed_clock_is_told_and_enforced(client: Client) -> None:
    """While its clock is ahead, the exchange refuses our time, and tells its own to whoever asks."""
    client.simulator.inject({"fault": "clock-skew", "market": "usdm", "milliseconds": 30_000})
    status, body, _ = await client.rest("GET", "/fapi/v3/balance")
    assert (status, body["code"]) == (400, -1021)
    assert (await client.rest("GET", "/api/v3/account"))[0] == 200
    client.simulator.inject({"fault": "clock-skew", "milliseconds": 0})
    assert (await client.rest("GET", "/fapi/v3/balance"))[0] == 200


async def test_a_session_logs_on_listens_and_logs_out(client: Client) -> None:
    """Logged on with Ed25519, a connection listens, asks unsigned, and on log-out hears that its stream ended."""
    line = await client.ws_api()
    assert (await line.ask("session.logon", TRADER))["error"]["code"] == -4056
    logged_on = await line.ask("session.logon", ED)
    assert shape(logged_on["result"]) == shape(EXAMPLES["session.logon"]["result"])
    assert (await line.ask("userDataStream.subscribe"))["result"] == {"subscriptionId": 0}
    assert (await line.ask("userDataStream.subscribe"))["error"]["code"] == -2035
    now = client.simulator.clock.now_ms()
    assert (await line.ask("account.status", timestamp=now))["result"]["accountType"] == "SPOT"
    assert (await line.ask("account.status"))["error"]["code"] == -1102
    placed = await line.ask("order.place", **ORDER, price="70000", timestamp=client.simulator.clock.now_ms())
    assert [m["event"]["e"] for m in line.events] == ["executionReport", "outboundAccountPosition"]
    assert line.events[0]["subscriptionId"] == 0
    assert line.events[0]["event"]["i"] == placed["result"]["orderId"]
    line.events.clear()
    assert (await line.ask("session.logout"))["result"]["apiKey"] is None
    ended = await line.event()
    assert shape(ended) == shape(EXAMPLES["eventStreamTerminated"])
    assert (await line.ask("userDataStream.subscribe"))["error"]["code"] == -1102


async def test_one_connection_listens_to_several_accounts(client: Client) -> None:
    """Each account has its own subscription id; unsubscribing ends one and says so."""
    line = await client.ws_api()
    ids = [(await line.ask("userDataStream.subscribe.signature", key))["result"] for key in (READER, OTHER)]
    assert ids == [{"subscriptionId": 0}, {"subscriptionId": 1}]
    assert (await line.ask("session.subscriptions"))["result"] == ids
    client.simulator.play({"do": "deposit", "account": "other", "asset": "BTC", "amount": "1"})
    first, second = await line.event(), await line.event()
    assert [(m["subscriptionId"], m["event"]["e"]) for m in (first, second)] == [
        (1, "balanceUpdate"),
        (1, "outboundAccountPosition"),
    ]
    assert (await line.ask("userDataStream.unsubscribe", subscriptionId=1))["result"] == {}
    assert (await line.event())["event"]["e"] == "eventStreamTerminated"
    assert (await line.ask("userDataStream.unsubscribe", subscriptionId=1))["error"]["code"] == -2036


async def test_a_revoked_key_ends_the_session_at_the_next_request(client: Client) -> None:
    """After its key was deleted, a session hears nothing more; its next request is preceded by the 401 message."""
    line = await client.ws_api()
    await line.ask("session.logon", ED)
    await line.ask("userDataStream.subscribe")
    done = client.simulator.inject({"fault": "revoke-key", "account": "main", "key": "ed"})
    assert done["keys"] == ["main/ed"]
    client.simulator.play({"do": "deposit", "asset": "BTC", "amount": "1"})
    assert (await line.ask("session.status"))["result"]["apiKey"] is None
    assert line.events == [
        {
            "id": None,
            "status": 401,
            "error": {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
        }
    ]
    assert (await line.ask("session.logon", ED))["error"]["code"] == -2015


@pytest.mark.parametrize("fault", ["withdraw-permission", "deny-address", "revoke-key"])
async def test_key_faults_end(client: Client, fault: str) -> None:
    """A key that may not, or not from here, gets -2015; after the fault's seconds it works again."""
    client.simulator.inject({"fault": fault, "key": "reader", "seconds": 0.2})
    status, body, _ = await client.rest("GET", "/api/v3/account", key=READER)
    assert (status, body["code"]) == (401, -2015)
    async with asyncio.timeout(DEADLINE):
        while (await client.rest("GET", "/api/v3/account", key=READER))[0] != 200:  # noqa: ASYNC110 - asks again
            await asyncio.sleep(0.05)


async def listening(client: Client, market: str, path: str = "", key: str = READER) -> tuple[str, Any]:
    """Make a listen key and connect with it."""
    api = {"usdm": "/fapi", "coinm": "/dapi"}[market]
    _, body, _ = await client.rest("POST", f"{api}/v1/listenKey", key=key, sign=False)
    listen_key = body["listenKey"]
    path = path or ("/private/ws/{key}" if market == "usdm" else "/ws/{key}")
    url = client.simulator.endpoints[market]["stream"] + path.format(key=listen_key)
    return listen_key, connect(url, proxy=None, compression=None)


@pytest.mark.parametrize("market", ["usdm", "coinm"])
async def test_listen_keys_carry_user_data(client: Client, market: str) -> None:
    """A listen key is the same until it ends; its stream has the account's events, until it expires."""
    listen_key, connecting = await listening(client, market)
    api = {"usdm": "/fapi", "coinm": "/dapi"}[market]
    again = await client.rest("POST", f"{api}/v1/listenKey", key=TRADER, sign=False)
    kept = await client.rest("PUT", f"{api}/v1/listenKey", key=READER, sign=False)
    assert again[1] == kept[1] == {"listenKey": listen_key}
    async with connecting as stream, asyncio.timeout(DEADLINE):
        asset = "USDT" if market == "usdm" else "BTC"
        client.simulator.play({"do": "deposit", "market": market, "asset": asset, "amount": "1"})
        event = json.loads(await stream.recv())
        assert (event["e"], event["a"]["m"], event["a"]["B"][0]["bc"]) == (
            "ACCOUNT_UPDATE",
            "DEPOSIT",
            "1.00000000",
        )
        assert listen_key not in json.dumps(client.simulator.state())
        client.simulator.inject({"fault": "expire-keys", "account": "main"})
        expired = json.loads(await stream.recv())
        assert (expired["e"], expired["listenKey"]) == ("listenKeyExpired", listen_key)
    gone = await client.rest("PUT", f"{api}/v1/listenKey", key=READER, sign=False)
    assert (gone[0], gone[1]["code"]) == (400, -1125)


async def test_private_urls_choose_events(client: Client) -> None:
    """The newer private URL names key and events; an unrouted one connects and stays silent."""
    _, chosen = await listening(
        client, "usdm", "/private/stream?listenKey={key}&events=ACCOUNT_CONFIG_UPDATE"
    )
    listen_key, unrouted = await listening(client, "usdm", "/ws/{key}")
    async with chosen as stream, unrouted as silent, asyncio.timeout(DEADLINE):
        client.simulator.play(
            [
                {"do": "deposit", "market": "usdm", "asset": "USDT", "amount": "1"},
                {"do": "leverage", "market": "usdm", "symbol": "BTCUSDT", "leverage": 5},
            ]
        )
        event = json.loads(await stream.recv())
        assert (event["stream"], event["data"]["e"]) == (listen_key, "ACCOUNT_CONFIG_UPDATE")
        await silent.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1}))
        assert json.loads(await silent.recv()) == {"result": [], "id": 1}


async def test_a_listen_key_lives_for_its_time() -> None:
    """Without being kept alive, a key ends by itself after its time, and its stream is told."""
    settings = SimulatorSettings(
        accounts=parse_accounts(PLAN), tick_seconds=0.001, limits=Limits(listen_key_seconds=0.5)
    )
    stage = Stage()
    async with (
        Simulator(settings, ScriptedExchange(), stage) as simulator,
        Client(simulator, stage) as client,
    ):
        _, connecting = await listening(client, "coinm")
        async with connecting as stream, asyncio.timeout(DEADLINE):
            assert json.loads(await stream.recv())["e"] == "listenKeyExpired"
        assert (await client.rest("PUT", "/dapi/v1/listenKey", sign=False))[1]["code"] == -1125


async def test_futures_are_reconciled_by_rest(client: Client) -> None:
    """After a fill the account, balances, positions, orders, trades and income tell one story."""
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1"}
    status, placed, _ = await client.rest("POST", "/fapi/v1/order", order)
    assert (status, placed["status"], "avgPrice" in placed) == (200, "FILLED", False)
    answers = {
        path: (await client.rest("GET", path, {"symbol": "BTCUSDT"} if "rades" in path else {}))[1]
        for path in (
            "/fapi/v3/account", "/fapi/v3/balance", "/fapi/v3/positionRisk", "/fapi/v1/allOrders",
            "/fapi/v1/userTrades", "/fapi/v1/income", "/fapi/v1/openOrders",
        )
    }  # fmt: skip
    (trade,) = answers["/fapi/v1/userTrades"]
    (position,) = answers["/fapi/v3/positionRisk"]
    assert (trade["price"], trade["commission"], trade["orderId"]) == (
        "80001.00",
        "4.00005000",
        placed["orderId"],
    )
    assert (position["positionAmt"], position["entryPrice"]) == ("0.100", "80001")
    assert answers["/fapi/v3/balance"][0]["balance"] == "9995.99995000"
    assert answers["/fapi/v3/account"]["totalWalletBalance"] == "9995.99995000"
    assert [entry["incomeType"] for entry in answers["/fapi/v1/income"]] == ["TRANSFER", "COMMISSION"]
    assert (answers["/fapi/v1/allOrders"][0]["avgPrice"], answers["/fapi/v1/openOrders"]) == (
        "80001.00000",
        [],
    )


async def test_lost_doubled_and_late_user_events(client: Client) -> None:
    """A lost event is in the truth and in REST alone; a doubled one comes twice; held ones come late, in order."""
    line = await client.ws_api()
    await line.ask("userDataStream.subscribe.signature", READER)
    deposit = {"do": "deposit", "asset": "BTC", "amount": "1"}
    client.simulator.inject({"fault": "lose-user-events", "event": "balanceUpdate"})
    client.simulator.play(deposit)
    assert (await line.event())["event"]["e"] == "outboundAccountPosition"
    client.simulator.inject({"fault": "duplicate-user-events"})
    client.simulator.play(deposit)
    heard = [(await line.event())["event"]["e"] for _ in range(3)]
    assert heard == ["balanceUpdate", "balanceUpdate", "outboundAccountPosition"]
    client.simulator.inject({"fault": "stall-user-events", "seconds": 0.3})
    client.simulator.play([deposit, {**deposit, "asset": "ETH"}])
    late = [(await line.event())["event"] for _ in range(4)]
    assert [e["a"] for e in late if e["e"] == "balanceUpdate"] == ["BTC", "ETH"]
    _, account, _ = await client.rest("GET", "/api/v3/account", {"omitZeroBalances": "true"}, key=READER)
    assert {b["asset"]: b["free"] for b in account["balances"]}["BTC"] == "5.00000000"


async def test_private_connections_are_dropped_and_terminated(client: Client) -> None:
    """Subscriptions end with a word on demand; dropping resets every connection that listens, and no other."""
    line, bystander = await client.ws_api(), await client.ws_api()
    await line.ask("userDataStream.subscribe.signature", READER)
    assert client.simulator.inject({"fault": "terminate-user-streams"})["subscriptions"] == 1
    assert (await line.event())["event"]["e"] == "eventStreamTerminated"
    await line.ask("userDataStream.subscribe.signature", READER)
    _, connecting = await listening(client, "coinm")
    async with connecting as stream:
        assert client.simulator.inject({"fault": "drop-private"})["connections"] == 2
        assert (await line.socket.receive(timeout=DEADLINE)).type is not aiohttp.WSMsgType.TEXT
        async with asyncio.timeout(DEADLINE):
            await stream.wait_closed()
    assert (await bystander.ask("time"))["status"] == 200


async def test_weight_refuses_before_anything_happens(client: Client) -> None:
    """An order beyond the request weight is a 429 and is not placed."""
    client.simulator.inject({"fault": "ban", "status": 429, "seconds": 60})
    assert (await client.rest("POST", "/api/v3/order", {**ORDER, "price": "70000"}))[0] == 429
    assert client.simulator.accounts.named("main").spot.orders == {}


async def test_accounts_come_by_http(client: Client) -> None:
    """The control endpoint opens accounts, hands out keys once, plays scripts and shows states without keys."""
    status, made = await client.control("POST", "/accounts", {"name": "new", "keys": [{}], "fills": "script"})
    key, secret = made["keys"][0]["key"], made["keys"][0]["secret"]
    SECRETS[key] = secret
    assert (status, (await client.rest("GET", "/api/v3/account", key=key))[0]) == (200, 200)
    script = [
        {"do": "deposit", "account": "new", "asset": "USDT", "amount": "1000"},
        {
            "do": "place",
            "account": "new",
            **ORDER,
            "quantity": "0.01",
            "price": "70000",
            "newClientOrderId": "a",
        },
        {"do": "fill", "account": "new", "order": "a", "quantity": "0.004"},
        {"do": "fill", "account": "new", "order": "a", "quantity": "0.007"},
    ]
    _, played = await client.control("POST", "/script", script)
    assert [step.get("refused") for step in played["taken"]] == [None, None, None, -2010]
    _, state = await client.control("GET", "/accounts/new")
    assert [order["status"] for order in state["spot"]["orders"]] == ["PARTIALLY_FILLED"]
    assert secret not in json.dumps(state)
    for path, body, culprit in (
        ("/accounts", {"name": "new"}, "account 'new'"),
        ("/accounts", {"name": "x", "kes": []}, "did you mean 'keys'?"),
        ("/accounts/main/keys", {"key": "q" * 32, "permissions": ["read"]}, "did you mean 'reading'?"),
        ("/script", {"do": "plac"}, "did you mean 'place'?"),
    ):
        status, answer = await client.control("POST", path, body)
        assert status == 400
        assert culprit in answer["error"]


async def test_the_ground_truth_has_every_user_event_and_no_secret(client: Client, tmp_path: Path) -> None:
    """Events that nobody heard, steps, faults and final states are written down; keys and signatures are not."""
    listen_key, _ = await listening(client, "usdm")
    client.simulator.play([{"do": "improvise", "market": m, "steps": 20} for m in ("spot", "usdm", "coinm")])
    client.simulator.inject({"fault": "revoke-key", "key": "ed"})
    client.simulator.inject({"fault": "expire-keys"})
    _, flushed = await client.control("GET", "/flush")
    text = (tmp_path / "truth.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    users = [line for line in lines if "user" in line and "number" in line]
    assert [line["number"] for line in users] == list(range(client.simulator.accounts.events))
    assert all(json.loads(line["data"])["e"] == line["kind"] for line in users)
    states = {line["account"]: line["state"] for line in lines if "state" in line}
    assert states == {name: a.state() for name, a in client.simulator.accounts.accounts.items()}
    assert flushed["events"] == 0
    for secret in (listen_key, *SECRETS, *SECRETS.values(), ED, PUBLIC.splitlines()[1]):
        assert secret not in text


async def test_the_ws_api_of_futures_trades_and_makes_listen_keys(client: Client) -> None:
    """Orders and balances by the futures' WebSocket API, and listen keys by the key alone; streams stay elsewhere."""
    line = await client.ws_api("usdm")
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.1"}
    placed = await line.ask("order.place", TRADER, **order, price="70000.00")
    assert placed["result"]["status"] == "NEW"
    which = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
    assert (await line.ask("order.cancel", TRADER, **which))["result"]["status"] == "CANCELED"
    assert (await line.ask("v2/account.balance", READER))["result"][0]["balance"] == "10000.00000000"
    key = (await line.ask("userDataStream.start", apiKey=READER))["result"]["listenKey"]
    assert (await line.ask("userDataStream.ping", apiKey=READER))["result"] == {"listenKey": key}
    assert (await line.ask("userDataStream.subscribe"))["error"]["code"] == -1020
    assert line.events == []


async def test_numbers_are_signed_as_they_were_written(client: Client) -> None:
    """A JSON number is signed by its text: 5000.50 stays so, though it equals 5000.5."""
    line = await client.ws_api()
    now = client.simulator.clock.now_ms()
    payload = f"apiKey={READER}&recvWindow=5000.50&timestamp={now}"
    await line.socket.send_str(
        f'{{"id":"x","method":"account.status","params":{{"timestamp":{now},"recvWindow":5000.50,'
        f'"apiKey":"{READER}","signature":"{signed(READER, payload)}"}}}}'
    )
    assert (await line.socket.receive_json(timeout=DEADLINE))["status"] == 200


async def test_spot_has_no_listen_keys(client: Client) -> None:
    """The endpoints of spot's former listen keys are gone."""
    assert (await client.rest("POST", "/api/v3/userDataStream", key=READER, sign=False))[0] == 410


async def test_key_restrictions_are_told(client: Client) -> None:
    """What a key may do is told in the documented shape."""
    status, found, _ = await client.rest("GET", "/sapi/v1/account/apiRestrictions", key=READER)
    assert (status, shape(found)) == (200, shape(EXAMPLES["apiRestrictions"]))
    assert (found["enableReading"], found["enableSpotAndMarginTrading"], found["ipRestrict"]) == (
        True,
        False,
        False,
    )
