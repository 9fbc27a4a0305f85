"""Histories of simulated accounts: every event, and what REST would have answered at any moment between them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.catalogue import catalogue
from bridge.core.derive import Writer
from bridge.core.instruments import Instruments, parse_exchange_info
from bridge.core.user_events import AccountDeriver, Taken
from bridge.core.wire import Decoder
from bridge.schema import schemas
from bridge.simulator.accounts import futures_views
from bridge.simulator.accounts.improvise import improvise
from tests.derived import read
from tests.simulator.accounts.stage import NOW, Cast

if TYPE_CHECKING:
    from bridge.core.account_compile import AccountSources
    from bridge.model import Market, Origin

CASES = Path(__file__).parents[1] / "cases"
RECEIVED_AT = 1_795_305_700_000_000
_DECODER = Decoder(schemas().values())
SYMBOL: dict[Market, str] = {"spot": "BTCUSDT", "usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}


@cache
def instruments(market: Market) -> Instruments:
    """Return the instruments the cases use."""
    body = (CASES / "exchange-info" / f"{market}.json").read_bytes()
    return parse_exchange_info(market, body)[1]


def deriver(market: Market, origin: Origin = "live", sources: AccountSources | None = None) -> AccountDeriver:
    """Return a deriver that knows nothing yet."""
    return AccountDeriver(
        sources or catalogue().accounts,
        schemas(),
        "prod",
        "main",
        market,
        Writer(origin, 0),
        instruments(market),
    )


class Answer(NamedTuple):
    """What REST answers.

    Attributes:
        endpoint: path.
        body: the answer.
        asked_at: microseconds.
    """

    endpoint: str
    body: bytes
    asked_at: int


@dataclass
class History:
    """What happened.

    Attributes:
        market: where.
        steps: the events of each step.
        answers: REST's answers after each step.
    """

    market: Market
    steps: list[list[bytes]] = field(default_factory=list)
    answers: list[list[Answer]] = field(default_factory=list)

    @property
    def events(self) -> list[bytes]:
        """All events in order."""
        return [event for step in self.steps for event in step]


def improvised(market: Market, seed: int, steps: int, *, crowded: bool = False) -> History:
    """Return a made-up history.

    Its steps are some milliseconds apart, and REST is asked in between; or ``crowded``: several steps are in one
    millisecond, and REST is asked within it. What one step does is always in one.
    """
    cast, random, history = Cast(offered="3"), Random(seed), History(market)
    now = NOW
    for step in range(steps):
        if step == 0:
            _fund(cast, market, now)
        else:
            now += random.randrange(4) + (0 if crowded else 2)
            cast.stage.print(str(80_000 + random.randrange(-3000, 3000)), "3", now)
            improvise(random, cast.account, market, SYMBOL[market], now)
        side = cast.account.spot if market == "spot" else cast.account.futures(market)
        side.match(now)  # as the exchange does before it answers
        history.steps.append([bytes(event.data) for event in cast.told])
        cast.told.clear()
        history.answers.append(_answers(cast, market, now * 1000 + (0 if crowded else 1000)))
    return history


def _fund(cast: Cast, market: Market, now: int) -> None:
    if market == "spot":
        cast.account.spot.deposit("USDT", Decimal(100_000), now)
        cast.account.spot.deposit("BTC", Decimal(2), now)
    else:
        asset, amount = ("USDT", "10000") if market == "usdm" else ("BTC", "2")
        cast.account.futures(market).credit(asset, Decimal(amount), "DEPOSIT", now)


def _answers(cast: Cast, market: Market, asked_at: int) -> list[Answer]:
    if market == "spot":
        spot = cast.account.spot
        bodies: dict[str, object] = {
            "/api/v3/openOrders": [order.row() for order in spot.open_orders()],
            "/api/v3/allOrders": [order.row() for order in spot.orders.values()],
            "/api/v3/myTrades": [trade.row() for trade in spot.trades],
            "/api/v3/account": spot.row(1),
        }
    else:
        side = cast.account.futures(market)
        root, newest = ("/fapi", "v3") if market == "usdm" else ("/dapi", "v1")
        bodies = {
            f"{root}/v1/openOrders": [order.row() for order in side.open_orders()],
            f"{root}/v1/allOrders": [order.row() for order in side.orders.values()],
            f"{root}/v1/openAlgoOrders": [algo.row() for algo in side.open_algos()],
            f"{root}/v1/allAlgoOrders": [algo.row() for algo in side.algos.values()],
            f"{root}/v1/userTrades": [trade.row() for trade in side.trades],
            f"{root}/v1/income": [entry.row() for entry in side.income],
            f"{root}/{newest}/balance": futures_views.balances(side),
            f"{root}/{newest}/account": futures_views.account(side),
            f"{root}/{newest}/positionRisk": futures_views.position_risk(side),
        }
    return [Answer(path, json.dumps(body).encode(), asked_at) for path, body in bodies.items()]


class Published(NamedTuple):
    """A record as it was published.

    Attributes:
        structure: its structure.
        record: its value, read by fastavro.
        state: its key in the state topic.
        value: its value.
    """

    structure: str
    record: dict[str, Any]
    state: bytes | None
    value: bytes


class Reader:
    """Feeds a deriver and keeps what it publishes."""

    def __init__(self, market: Market, account: AccountDeriver | None = None) -> None:
        self.account = account or deriver(market)
        self.published: list[Published] = []
        self._number = 0

    def event(self, payload: bytes, connection: int = 1) -> None:
        """Feed an event."""
        self._keep(
            self.account.take(payload, connection_id=connection, number=self._number, received_at=RECEIVED_AT)
        )

    def answer(self, answer: Answer) -> None:
        """Feed an answer."""
        self._keep(
            self.account.answer(
                answer.endpoint,
                answer.body,
                number=self._number,
                asked_at=answer.asked_at,
                received_at=RECEIVED_AT,
            )
        )

    def restart(self) -> None:
        """Go on with another deriver, which knows of the first what stands in Kafka."""
        self.account = deriver(self.account.market)
        newest = {one.state: one for one in self.published if one.state is not None}
        told = [one for one in self.published if one.structure in {"my-trade", "ledger"}]
        for one in (*newest.values(), *told):
            self.account.resume(one.structure, _DECODER.decode(one.value))

    def of(self, structure: str) -> list[Published]:
        """Return what was published of a structure."""
        return [one for one in self.published if one.structure == structure]

    def _keep(self, taken: Taken) -> None:
        self._number += 1
        assert taken.letters == ()
        for made in taken.records:
            structure, record = read(made.value)
            assert structure == made.structure
            self.published.append(Published(structure, record, made.state, made.value))
