"""A key of one environment never reaches another's endpoint, whatever is set: all combinations are tried.

What a bridge would send is caught just before it leaves: every URL with the key that goes there, from REST and from
WebSocket connections. What is refused (a missing key, an endpoint of another environment) sends nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from bridge.binance.hosts import HOSTS, environment_of, hosts_of, require_environment
from bridge.binance.pool import attempt_budget
from bridge.binance.rest import Reply, RestClient
from bridge.binance.signed_rest import SignedRest
from bridge.binance.signing import account_key
from bridge.binance.user_worker import UserWorker
from bridge.credentials import resolve
from bridge.errors import ConfigError
from bridge.model import ENVIRONMENTS, MARKETS
from tests.binance.private import Inbox, hasty
from tests.binance.scripted import Story, quick, until

NAMES = {
    "generic": ("BINANCE_API_KEY", "BINANCE_API_SECRET"),
    **{one: (f"BINANCE_{one.upper()}_API_KEY", f"BINANCE_{one.upper()}_API_SECRET") for one in ENVIRONMENTS},
    **{
        f"{one} main": (f"BINANCE_{one.upper()}_MAIN_API_KEY", f"BINANCE_{one.upper()}_MAIN_API_SECRET")
        for one in ENVIRONMENTS
    },
}
_UNNAMED = ("generic", *ENVIRONMENTS)
#: Every set of the generic names and the families; then those of an account's own name, alone and with all others.
SETS = [
    *[chosen for size in range(5) for chosen in itertools.combinations(_UNNAMED, size)],
    *[(f"{one} main",) for one in ENVIRONMENTS],
    tuple(NAMES),
]
#: What configuration may put in place of an endpoint: nothing, a simulator, a proxy, or any environment's own.
OVERRIDES = [
    None,
    "simulator",
    "proxy",
    *[(environment, name) for environment in ENVIRONMENTS for name in ("stream", "rest", "ws_api")],
]


class Wiretap:
    """Catches every URL and the key that is sent there."""

    def __init__(self):
        self.caught = []

    def rest(self, hosts, story):
        """Return a client that answers by itself."""
        tap = self

        class Tapped(RestClient):
            async def _once(self, market, request, endpoint):
                sent = request.headers.get("X-MBX-APIKEY")
                tap.caught.append((self.hosts[market].rest, sent))
                body = {"serverTime": 1_795_305_600_000, "listenKey": "L" * 64, "balances": []}
                lists = ("openOrders", "openAlgoOrders", "income", "positionRisk", "allOrders")
                path = request.target.partition("?")[0]
                return Reply(200, json.dumps([] if path.endswith(lists) else body).encode(), {})

        return Tapped(hosts, story.telemetry, quick())

    async def open(self, url, inbox, settings, tls):
        """Open a connection that answers every login with a subscription."""
        self.caught.append((url, None))
        return _Line(self, url, inbox)


class _Line:
    def __init__(self, tap, url, inbox):
        self.tap, self.url, self.inbox = tap, url, inbox

    async def send(self, payload):
        request = json.loads(payload)
        self.tap.caught.append((self.url, request.get("params", {}).get("apiKey")))
        answer = {"id": request["id"], "status": 200, "result": {"subscriptionId": 0}}
        asyncio.get_running_loop().call_soon(self.inbox.frames, [json.dumps(answer).encode()])

    async def ping(self):
        pass

    async def close(self, code, reason):
        self.inbox.ended(code, reason)

    def abort(self):
        self.inbox.ended(1006, "")


def overridden(market, override):
    """Return the endpoints of a configuration."""
    if override is None:
        return {}
    if override == "simulator":
        url = {"stream": "ws://127.0.0.1:1", "rest": "http://127.0.0.1:1", "ws_api": "ws://127.0.0.1:1"}
    elif override == "proxy":
        url = {
            "stream": "wss://proxy.example",
            "rest": "https://proxy.example",
            "ws_api": "wss://proxy.example",
        }
    else:
        environment, name = override
        url = {name: getattr(HOSTS[environment][market], name)}
    return {market: url}


def variables(chosen):
    """Return variables whose values say whose they are."""
    return {name: f"{whose.replace(' ', '-')}-value" for whose in chosen for name in NAMES[whose]}


async def sent(environment, market, override, environ, dotenv):
    """Return what a bridge sends that is so configured; nothing where it is refused."""
    tap, story = Wiretap(), Story()
    try:
        key = account_key(resolve(environment, ["main"], environ, dotenv)["main"])
        hosts = hosts_of(environment, overridden(market, override))
        rest = tap.rest(hosts, story)
        signed = SignedRest(rest, hasty(), story.telemetry)
        inbox = Inbox()
        worker = UserWorker(
            market,
            [key],
            inbox=inbox,
            rest=signed,
            hosts=hosts[market],
            settings=quick(),
            own=hasty(),
            telemetry=story.telemetry,
            budget=attempt_budget(),
        )
    except ConfigError:
        return tap.caught, None
    worker._open_transport = tap.open
    await worker.start()
    try:
        await until(inbox.completed)
    finally:
        await worker.stop()
    return tap.caught, key.api_key.get_secret_value()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("market", MARKETS)
async def test_no_key_reaches_another_environment(environment, market):
    """Families, generic names, files and endpoints in every combination: a key goes to its own or nowhere."""
    runs = reached = 0
    for chosen, override, in_file in itertools.product(SETS, OVERRIDES, (False, True)):
        given = variables(chosen)
        lines = "".join(f"{name}={value}\n" for name, value in given.items())
        # beside a file, the environment has the generic names
        environ = variables(["generic"]) if in_file else given
        caught, key = await sent(environment, market, override, environ, lines if in_file else "")
        runs += 1
        assert key is None or key.split("-")[0] == environment
        assert (key is not None) == bool(caught)
        for url, carried in caught:
            assert environment_of(url) in (None, environment), (chosen, override)
            assert carried in (None, key)
        reached += key is not None
    assert 0 < reached < runs


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        *[
            (url, environment)
            for environment, markets in HOSTS.items()
            for hosts in markets.values()
            for url in (hosts.stream, hosts.rest, hosts.ws_api, hosts.second_stream, *hosts.stream_fallbacks)
            if url is not None
        ],
        ("https://api-gcp.binance.com", "prod"),
        ("https://API4.Binance.COM.", "prod"),
        ("https://data-api.binance.vision", "prod"),
        ("https://papi.binance.com", "prod"),
        ("https://api1.testnet.binance.vision/api", "testnet"),
        ("wss://stream.binancefuture.com", "testnet"),
        ("wss://demo-stream-sbe.binance.com", "demo"),
        ("http://127.0.0.1:9080", None),
        ("https://binance.com.example", None),
        ("https://notbinance.com", None),
        ("wss://[::1]:9", None),
    ],
)
def test_hosts_are_known_for_what_they_are(url, environment):
    """Every host of the table, others of Binance's, and names that only look like one."""
    assert environment_of(url) == environment


@pytest.mark.parametrize(
    ("key", "url"),
    [
        (environment, HOSTS[other][market].rest)
        for environment, other in itertools.permutations(ENVIRONMENTS, 2)
        for market in MARKETS
    ],
)
def test_hosts_of_another_environment_are_refused(key, url):
    """Each environment refuses the hosts of both others, with the mend."""
    with pytest.raises(ConfigError, match=f"and the environment is {key}: set environment to what"):
        require_environment(key, None, url)


async def test_a_key_is_not_sent_where_hosts_changed_underneath():
    """The last look is taken before each request: hosts that were swapped after the start get nothing."""
    tap, story = Wiretap(), Story()
    hosts = hosts_of("testnet")
    signed = SignedRest(tap.rest(hosts, story), hasty(), story.telemetry)
    environ = {"BINANCE_TESTNET_API_KEY": "testnet-value", "BINANCE_TESTNET_API_SECRET": "secret"}
    key = account_key(resolve("testnet", ["main"], environ)["main"])
    await signed.get(key, "spot", "/api/v3/account")
    hosts["spot"] = HOSTS["prod"]["spot"]
    caught = len(tap.caught)
    for asking in (
        lambda: signed.get(key, "spot", "/api/v3/account"),
        lambda: signed.permissions(key),
    ):
        with pytest.raises(ConfigError, match=r"api\.binance\.com is a host of prod"):
            await asking()
    assert [one for one in tap.caught[caught:] if one[1] is not None] == []
