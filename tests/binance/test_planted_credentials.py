"""Every error of private streams is made to happen at debug level; nothing secret that was planted shows anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import traceback
from dataclasses import replace

import pytest
from aiohttp import web
from prometheus_client import generate_latest
from pydantic import SecretStr

from bridge.binance.hosts import Hosts
from bridge.binance.signing import account_key
from bridge.binance.transport import OpenFailed, opener
from bridge.core.refusals import problem
from bridge.errors import BridgeError, ConfigError, SourceError
from tests.binance.private import (
    ED_PRIVATE,
    RSA_PRIVATE,
    SECRETS,
    credentials,
    hasty,
    key,
    pem,
    rig,
)
from tests.binance.scripted import quick, rest_server, until

MARKETS = ["spot", "usdm", "coinm"]


class Shown:
    """Everything that anybody could see, as text; and everything that must not be in it."""

    def __init__(self):
        self.parts = []
        self.planted = [*SECRETS, *pem(ED_PRIVATE).splitlines()[1:-1], *pem(RSA_PRIVATE).splitlines()[1:-1]]
        self._log = io.StringIO()
        self.handler = logging.StreamHandler(self._log)
        self.handler.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def key(self, *args, **options):
        """Return a planted key whose every signature is remembered."""
        made = key(*args, **options)
        sign = made._sign

        def remembered(payload):
            signature = sign(payload)
            self.planted.append(signature)
            return signature

        self.parts.append(repr(made))
        return replace(made, _sign=remembered)

    def error(self, error):
        """Note an exception with all that hangs on it, suppressed or not."""
        seen = error
        while seen is not None:
            self.parts += [str(seen), repr(seen), repr(seen.args)]
            seen = seen.__cause__ or seen.__context__
        self.parts.append("".join(traceback.format_exception(error)))

    def rig(self, found):
        """Note what a rig shows, and plant its listen keys."""
        listen_keys = found.simulator._listen_keys
        self.planted += [one.text for one in listen_keys._alive.values()]
        self.parts += [f"{event!s} {event!r}" for event in found.story.events]
        self.parts.append(generate_latest(found.story.telemetry.registry).decode())
        for worker in found.workers:
            self.parts += [repr(worker), repr(worker.connections()), *map(repr, vars(worker).values())]
            for connection in worker._connections:
                self.parts += [repr(connection), *map(repr, vars(connection).values())]
        self.parts += [repr(one) for one in found.inbox.calls]

    def check(self):
        """Fail where anything planted shows; say which, not what."""
        whole = "\n".join([*self.parts, self._log.getvalue()])
        assert len(whole) > 1000, "nothing was shown at all"
        leaked = [index for index, one in enumerate(self.planted) if one and one in whole]
        assert leaked == [], f"{len(leaked)} of {len(self.planted)} planted values show"
        assert "signature=" not in whole.replace("signature=***", "")


@pytest.fixture
def shown():
    """Log everything there is at debug level while the test runs."""
    found = Shown()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(found.handler)
    try:
        yield found
    finally:
        root.removeHandler(found.handler)
        root.setLevel(level)


FAULTS = [
    {"fault": "revoke-key"},
    {"fault": "deny-address"},
    {"fault": "withdraw-permission"},
    {"fault": "ban", "status": 418, "seconds": 30},
    {"fault": "ban", "status": 429, "seconds": 30},
    {"fault": "refuse-connections", "status": 403, "seconds": 30},
    {"fault": "refuse-connections", "status": 503, "seconds": 30},
]


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
async def test_no_refusal_shows_a_secret(shown, market, fault):
    """Refused at the start and in mid-stream: events, logs, metrics and objects hold nothing planted."""
    asyncio.get_running_loop().set_debug(True)
    async with rig(hasty(probe_seconds=0.05, keep_alive_seconds=0.05)) as found:
        worker = found.worker(shown.key(), market=market)
        await worker.start()
        await until(found.inbox.completed)
        shown.rig(found)
        before = len(found.story.events)
        mine = {"account": "main"} if "key" in fault["fault"] or "fault" not in fault else {}
        found.fault(**fault, **mine)
        found.cut()
        bad = {"authentication.failed", "connection.retrying", "request.rejected"}
        await until(lambda: bad & {one.event for one in found.story.events[before:]})
        shown.rig(found)
    shown.check()


@pytest.mark.parametrize("kind", ["hmac", "ed", "rsa"])
async def test_no_life_on_spot_shows_a_secret(shown, kind):
    """Log-ons, events, an end by the exchange, a clock that jumps, a rotation and a failing inbox."""
    async with rig() as found:
        worker = found.worker(shown.key(kind))
        await worker.start()
        await until(found.inbox.completed)
        found.place("first")
        found.fault("clock-skew", milliseconds=30_000)
        found.fault("terminate-user-streams", account="main")
        await until(lambda: found.inbox.completed() == 2)
        worker.rotate()
        await until(lambda: len(found.told("succeeded")) == 3)
        found.inbox.received = lambda _: 1 / 0
        found.place("second")
        await until(lambda: "ZeroDivisionError" in shown._log.getvalue())
        shown.rig(found)
    shown.check()


@pytest.mark.parametrize("market", ["usdm", "coinm"])
async def test_no_life_on_futures_shows_a_secret(shown, market):
    """A listen key that expires is told masked; one whose host is gone is in no error."""
    async with rig() as found:
        worker = found.worker(shown.key(), market=market)
        await worker.start()
        await until(found.inbox.completed)
        shown.rig(found)
        found.fault("expire-keys", account="main", market=market)
        await until(lambda: found.inbox.completed() == 2)
        hosts = found.rest.hosts[market]
        found.rest.hosts[market] = worker._hosts = replace(hosts, stream="ws://127.0.0.1:9")
        found.cut()
        await until(lambda: "connecting failed" in str(found.story.told("connection.retrying")))
        shown.rig(found)
    shown.check()


async def test_a_worker_that_crashes_shows_no_secret(shown):
    """An error nobody foresaw is logged with its traceback, without what it was about."""
    async with rig() as found:
        worker = found.worker(shown.key(), market="usdm")
        make, crashes = worker._make, [1, 2]

        def crash(way, accounts):
            if crashes:
                crashes.pop()
                raise RuntimeError("unforeseen")
            return make(way, accounts)

        worker._make = crash
        await worker.start()
        await until(found.inbox.completed)
        assert "RuntimeError: unforeseen" in shown._log.getvalue()
        shown.rig(found)
    shown.check()


async def echo(request):
    """Answer as a careless host would: with everything it was asked."""
    told = f"no: {request.path_qs} {request.headers.get('X-MBX-APIKEY')}"
    return web.json_response({"code": -1000, "msg": told}, status=int(request.query.get("status", 400)))


async def redirect(request):
    """Send the request on to somebody who must never see it."""
    raise web.HTTPFound(f"http://127.0.0.1:9/stolen?{request.query_string}")


async def no_listen_key(request):
    """Answer with something secret in the wrong shape."""
    return web.json_response({"listenKey": [request.headers["X-MBX-APIKEY"]]})


async def cut(request):
    """End the connection without an answer."""
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("host", [echo, redirect, no_listen_key, cut])
async def test_no_careless_host_gets_a_secret_shown(shown, host):
    """Whatever a host answers to a signed request or a listen key: the error names path and parameters, no values."""
    async with rig(rest_attempts=2) as found, rest_server(host) as base:
        await found.signed.clocks["spot"].ready()
        await found.signed.clocks["usdm"].ready()
        for market in ("spot", "usdm"):
            found.rest.hosts[market] = replace(found.rest.hosts[market], rest=base)
        made = shown.key()
        for asking in (
            lambda: found.signed.get(made, "spot", "/api/v3/myTrades", {"symbol": "BTCUSDT"}),
            lambda: found.signed.create_listen_key(made, "usdm"),
            lambda: found.signed.keep_listen_key(made, "usdm"),
            lambda: found.signed.permissions(made),
        ):
            try:
                answer = await asking()
            except SourceError as error:
                shown.error(error)
                shown.parts.append(repr(problem(getattr(error, "code", None), str(error))))
            else:
                assert host is no_listen_key, answer
        shown.rig(found)
        shown.parts.append("." * 1000)
    shown.check()


@pytest.mark.parametrize("name", ["websockets", "picows"])
@pytest.mark.parametrize(
    "base", ["ws://127.0.0.1:9", "ws://no.such.host.invalid", "nonsense://x", "ws://", "http://127.0.0.1:9"]
)
async def test_no_url_that_cannot_be_opened_is_shown(shown, name, base):
    """A URL with a listen key is in no error of a transport, however it fails."""
    secret = "PlantedListenKey" + "L" * 48
    shown.planted.append(secret)
    try:
        await opener(name)(f"{base}/ws/{secret}", None, quick(open_seconds=5.0), None)
    except OpenFailed as error:
        shown.error(error)
    shown.parts.append("." * 1000)
    shown.check()


def test_no_key_that_cannot_be_read_is_shown(shown):
    """Broken keys of every kind are refused without their text."""
    broken = [
        replace(credentials("ed"), private_key=SecretStr(pem(ED_PRIVATE)[:60])),
        replace(credentials("rsa"), private_key=SecretStr(pem(RSA_PRIVATE).replace("A", "B"))),
        replace(credentials("hmac"), api_key=SecretStr(SECRETS[0] + "\n")),
    ]
    for one in broken:
        with pytest.raises(ConfigError) as caught:
            account_key(one)
        shown.error(caught.value)
        shown.parts.append(repr(one))
    shown.parts.append("." * 1000)
    shown.check()


async def test_hosts_of_another_environment_show_no_secret(shown):
    """The refusal to send a key names hosts and environments only."""
    async with rig() as found:
        found.rest.hosts["spot"] = Hosts("wss://stream.binance.com", "https://api.binance.com", None)
        await found.signed.clocks["usdm"].ready()
        found.signed.clocks["spot"] = found.signed.clocks["usdm"]
        with pytest.raises(BridgeError) as caught:
            await found.signed.get(shown.key(environment="testnet"), "spot", "/api/v3/account")
        shown.error(caught.value)
        with contextlib.suppress(ConfigError):
            found.worker(shown.key(environment="testnet"))
        shown.rig(found)
    shown.check()
