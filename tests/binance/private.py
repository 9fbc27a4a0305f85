"""A simulated exchange with accounts, and workers that listen to them over real sockets."""

from __future__ import annotations

import contextlib
import json
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from bridge.binance.hosts import Hosts
from bridge.binance.pool import attempt_budget
from bridge.binance.rest import RestClient
from bridge.binance.signed_rest import SignedRest
from bridge.binance.signing import account_key
from bridge.binance.user_worker import UserWorker
from bridge.core.private_settings import PrivateSettings
from bridge.credentials import Credentials
from bridge.simulator import Answer, Limits, Simulator, SimulatorSettings
from bridge.simulator.accounts.plan import parse_accounts
from tests.binance.scripted import Story, quick, until
from tests.simulator.accounts.stage import Stage
from tests.simulator.conftest import ScriptedExchange

#: Nothing that is planted here may ever show.
HMAC_KEY, HMAC_SECRET = "PlantedHmacKey" + "H" * 50, "PlantedHmacSecret" + "S" * 47
ED_KEY, RSA_KEY = "PlantedEd25519Key" + "E" * 47, "PlantedRsaKey" + "R" * 51
OTHER_KEY, OTHER_SECRET = "PlantedOtherKey" + "O" * 49, "PlantedOtherSecret" + "Q" * 46
ED_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RSA_PRIVATE = generate_private_key(65537, 2048)


def pem(private):
    """Return a private key as a file has it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(private):
    """Return the public key that is given to the exchange."""
    form = PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(Encoding.PEM, form).decode()


MONEY = {"spot": {"USDT": "100000", "BTC": "2"}, "usdm": {"USDT": "10000"}, "coinm": {"BTC": "1"}}
PLAN = {
    "accounts": [
        {
            "name": "main",
            "keys": [
                {"name": "hmac", "key": HMAC_KEY, "secret": HMAC_SECRET},
                {"name": "ed", "key": ED_KEY, "public_key": public(ED_PRIVATE)},
                {"name": "rsa", "key": RSA_KEY, "public_key": public(RSA_PRIVATE)},
            ],
            "fills": "script",
            **MONEY,
        },
        {
            "name": "other",
            "keys": [{"name": "only", "key": OTHER_KEY, "secret": OTHER_SECRET}],
            "fills": "script",
            **MONEY,
        },
    ]
}


def credentials(kind="hmac", environment="prod", account="main"):
    """Return the credentials of a planted key."""
    key = {"hmac": HMAC_KEY, "ed": ED_KEY, "rsa": RSA_KEY, "other": OTHER_KEY}[kind]
    secret = {"hmac": HMAC_SECRET, "other": OTHER_SECRET}.get(kind)
    private = {"ed": ED_PRIVATE, "rsa": RSA_PRIVATE}.get(kind)
    return Credentials(
        account="other" if kind == "other" else account,
        environment=environment,
        api_key=SecretStr(key),
        api_secret=SecretStr(secret) if secret else None,
        private_key=SecretStr(pem(private)) if private else None,
    )


def key(kind="hmac", environment="prod", account="main"):
    """Return what a planted key signs with."""
    return account_key(credentials(kind, environment, account))


def hasty(**changes):
    """Return settings of private streams for tests: what has to pass does so in fractions of a second."""
    usual = {
        "retry_minimum_seconds": 0.02,
        "retry_maximum_seconds": 0.1,
        "reconcile_after_seconds": 0.0,
        "clock_samples": 1,
        "settled_seconds": 3600.0,
        "probe_seconds": 3600.0,
    }
    return PrivateSettings(**{**usual, **changes})


class Timed(ScriptedExchange):
    """A market without events that tells the time."""

    def rest(self, market, method, path, params, now_ms):
        if path.endswith("/time"):
            return Answer(200, json.dumps({"serverTime": now_ms}).encode(), 1)
        return super().rest(market, method, path, params, now_ms)


class Inbox:
    """A ``PrivateInbox`` that keeps everything, in order."""

    def __init__(self):
        self.calls = []

    def received(self, message):
        self.calls.append(message)

    def reconciling(self, account, market, connection_id, at):
        self.calls.append(("reconciling", account, connection_id))

    def answered(self, answer):
        self.calls.append(answer)

    def reconciled(self, account, market, connection_id, at, *, complete):
        self.calls.append(("reconciled", account, connection_id, complete))

    def messages(self):
        """Return the messages of streams so far."""
        return [one for one in self.calls if hasattr(one, "sequence")]

    def events(self, account="main"):
        """Return the account's events so far, without their wrapper."""
        payloads = [json.loads(one.payload) for one in self.messages() if one.account == account]
        return [payload.get("event", payload) for payload in payloads]

    def kinds(self, account="main"):
        """Return the types of the account's events so far."""
        return [event["e"] for event in self.events(account)]

    def answers(self, ending="", account="main"):
        """Return the answers so far whose endpoint ends so."""
        return [
            one
            for one in self.calls
            if hasattr(one, "endpoint") and one.endpoint.endswith(ending) and one.account == account
        ]

    def completed(self, account="main"):
        """Return how often REST told everything."""
        return sum(one[0] == "reconciled" and one[1] == account and one[3] for one in self.calls)


class Rig:
    """A simulator, and what a bridge has to listen to its accounts."""

    def __init__(self, simulator, story, rest, own, settings):
        self.simulator, self.story, self.rest = simulator, story, rest
        self.own, self.settings = own, settings
        self.inbox = Inbox()
        self.signed = SignedRest(rest, own, story.telemetry)
        self.workers = []

    def worker(self, *keys, market="spot", inbox=None, **options):
        """Return a worker, not started; it is stopped with the rig."""
        found = UserWorker(
            market,
            keys or (key(),),
            inbox=inbox or self.inbox,
            rest=self.signed,
            hosts=self.rest.hosts[market],
            settings=self.settings,
            own=self.own,
            telemetry=self.story.telemetry,
            budget=attempt_budget(self.settings),
            random=lambda: 0.0,
            **options,
        )
        self.workers.append(found)
        return found

    async def started(self, *keys, market="spot", **options):
        """Return a worker whose accounts are in, and whose REST has told everything."""
        found = self.worker(*keys, market=market, **options)
        await found.start()
        accounts = [one.account for one in (keys or (key(),))]
        await until(lambda: all(self.inbox.completed(account) for account in accounts))
        return found

    def play(self, do, **step):
        """Take a step of a script at once."""
        (taken,) = self.simulator.play({"do": do, **step})["taken"]
        assert "refused" not in taken, taken
        return taken

    def place(self, client_id, *, account="main", market="spot", quantity="0.1", **more):
        """Place a limit order that rests."""
        symbol = "BTCUSD_PERP" if market == "coinm" else "BTCUSDT"
        return self.play(
            "place",
            account=account,
            market=market,
            symbol=more.pop("symbol", symbol),
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            quantity="1" if market == "coinm" else quantity,
            price=more.pop("price", "70000"),
            newClientOrderId=client_id,
            **more,
        )

    def fault(self, fault, **more):
        """Do a fault at once."""
        return self.simulator.inject({"fault": fault, **more})

    def cut(self):
        """Reset every connection there is, whoever is on it."""
        for session in list(self.simulator._streams.sessions.values()):
            session.abort()
        for client in list(self.simulator._hub.clients.values()):
            client.abort()

    def open_connections(self):
        """Return how many connections the simulator has open."""
        state = self.simulator.state()
        return len(state["sessions"]) + len(state["connections"])

    def told(self, outcome):
        """Return the events of authentication with that outcome."""
        return self.story.told(f"authentication.{outcome}")


@contextlib.asynccontextmanager
async def rig(own=None, limits=None, settings=None, **changes):
    """Run a simulator with two accounts and a bridge's parts; end with nothing left open."""
    simulated = SimulatorSettings(
        accounts=parse_accounts(PLAN), tick_seconds=0.001, limits=limits or Limits(spot_messages=1000)
    )
    story = Story()
    settings = settings or quick(**changes)
    async with Simulator(simulated, Timed(), Stage()) as simulator:
        hosts = {
            market: Hosts(stream=one["stream"], rest=one["rest"], ws_api=one["ws_api"])
            for market, one in simulator.endpoints.items()
            if market != "http"
        }
        async with RestClient(hosts, story.telemetry, settings, random=lambda: 0.0) as rest:
            found = Rig(simulator, story, rest, own or hasty(), settings)
            try:
                yield found
            finally:
                for worker in found.workers:
                    await worker.stop()


SECRETS = (HMAC_KEY, HMAC_SECRET, ED_KEY, RSA_KEY, OTHER_KEY, OTHER_SECRET)
SIGNATURE = re.compile(r"signature=(?!\*)|[0-9a-f]{64}|\b[A-Za-z0-9+/]{86}==")
