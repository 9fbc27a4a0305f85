"""Carries faults out: on connections, on events, at the doors and at the request desk."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import TYPE_CHECKING

from bridge.simulator import wire
from bridge.simulator.faults import ACCOUNT_FAULTS, ALL, EVENT_FAULTS, GARBAGE, USER_EVENT_FAULTS, Fault
from bridge.simulator.user_streams import tell_expired

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from bridge.model import Market
    from bridge.simulator.account_sabotage import AccountSabotage
    from bridge.simulator.connection import Client
    from bridge.simulator.desk import Desk
    from bridge.simulator.hub import Hub
    from bridge.simulator.interference import Interference
    from bridge.simulator.requests import WsApi

OVERSIZE_BYTES = (16 << 20) + 1024


class _Refusals:
    """A fault that refuses at the doors, while it lasts."""

    __slots__ = ("ends", "fault", "left")

    def __init__(self, fault: Fault, ends: float) -> None:
        self.fault, self.ends, self.left = fault, ends, fault.count

    def take(self, market: Market, now: float) -> bool:
        if now >= self.ends or self.left <= 0 or self.fault.market not in (None, market):
            return False
        self.left -= 1
        return True


class Sabotage:
    """Carries faults out.

    Attributes:
        done: what was done, as it stands in the ground truth; the newest thousand, the last one last.
    """

    def __init__(
        self,
        hub: Hub,
        desk: Desk,
        ws_apis: Sequence[WsApi],
        interference: Interference,
        accounts: AccountSabotage,
        *,
        seed: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._hub, self._desk, self._ws_apis, self._interference = hub, desk, ws_apis, interference
        self._accounts, self._now_ms = accounts, now_ms
        self._random = Random(seed)  # noqa: S311 - choices that have to repeat, nothing secret
        self._refusals: list[_Refusals] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.done: deque[dict[str, object]] = deque(maxlen=1000)
        hub.doors.refuse = self._refuse
        hub.doors.reject = lambda market: self._refused("reject-subscriptions", market) is not None

    def inject(self, fault: Fault) -> dict[str, object]:
        """Do ``fault`` now; return its line of the ground truth."""
        line = {**fault.shown(), "at_ms": self._now_ms()}
        if fault.fault in EVENT_FAULTS:
            line |= self._arm(fault)
        elif fault.fault in USER_EVENT_FAULTS:
            self._accounts.faults.arm(fault, self._now())
        elif fault.fault in ACCOUNT_FAULTS:
            line |= self._accounts.inject(fault)
            if fault.seconds:
                self._later(self._accounts.undo_after(fault, fault.seconds))
        elif fault.fault == "ban":
            self._desk.ban(fault.market, fault.status, fault.seconds, self._now_ms())
        elif fault.fault in ("reject-subscriptions", "refuse-connections"):
            self._refusals.append(_Refusals(fault, self._now() + fault.seconds))
        else:
            line["connections"] = [client.number for client in self._hit(fault)]
            if fault.fault == "shutdown":
                self._shut_down_apis(fault)
            elif fault.fault == "expire-keys":
                self._accounts.end_listen_keys(fault)
        self.done.append(line)
        self._hub.note(line)
        return line

    async def stop(self) -> None:
        """End what was to happen later."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _arm(self, fault: Fault) -> dict[str, object]:
        if fault.fault != "mute" or fault.count == ALL:
            self._interference.arm(fault, self._now())
            return {}
        carried = {
            (client.market, stream)
            for client in self._hub.clients.values()
            for stream in client.session.streams
            if client.session.delivers(stream) and fault.concerns(client.market, stream)
        }
        chosen = self._random.sample(sorted(carried), min(fault.count, len(carried)))
        for only in chosen:
            self._interference.arm(fault, self._now(), only)
        return {"muted": [f"{market}:{stream}" for market, stream in chosen]}

    def _hit(self, fault: Fault) -> list[Client]:
        """Choose the connections by the seed, and break them."""
        found = [c for _, c in sorted(self._hub.clients.items()) if c.healthy and self._concerns(fault, c)]
        chosen = found if fault.count >= len(found) else self._random.sample(found, fault.count)
        for client in chosen:
            self._break(fault, client)
        return chosen

    def _concerns(self, fault: Fault, client: Client) -> bool:
        if fault.market not in (None, client.market):
            return False
        if fault.fault == "expire-keys":
            return any(self._accounts.owns(fault, key) for key in client.listens)
        return fault.stream == "*" or client.carries(lambda name: fault.concerns(client.market, name))

    def _break(self, fault: Fault, client: Client) -> None:
        match fault.fault:
            case "drop":
                client.abort()
            case "half-open":
                client.half_open()
                self._later(self._abort_after(client, fault.seconds))
            case "stall":
                client.stall(fault.seconds)
            case "rotate":
                client.close(1001, "")
            case "disconnect-mid-frame":
                client.cut(wire.wrap("btcusdt@trade", b'{"e":"trade","s":"BTCUSDT"}'))
            case "garbage":
                client.queue(self._garbage(fault))
            case "oversize":
                client.send_text(b'{"stream":"oversize","data":"' + b"x" * OVERSIZE_BYTES + b'"}')
            case "expire-keys":
                self._expire(fault, client)
            case "shutdown":
                self._announce(fault, client)
            case _:
                raise AssertionError(fault.fault)
        client.flush()

    def _announce(self, fault: Fault, client: Client) -> None:
        combined = client.session.combined
        client.send_text(wire.server_shutdown("combined" if combined else "raw", self._now_ms()))
        self._later(self._close_after(client, fault.seconds))

    def _expire(self, fault: Fault, client: Client) -> None:
        for key in client.listens:
            if self._accounts.owns(fault, key):
                tell_expired(client, key, self._now_ms())

    def _garbage(self, fault: Fault) -> bytes:
        match fault.kind or self._random.choice(GARBAGE):
            case "text":
                return wire.frame(wire.TEXT, b"upstream connect error or disconnect/reset before headers")
            case "truncated":
                return wire.frame(wire.TEXT, b'{"stream":"btcusdt@trade","data":{"e":"trade","E":17953056')
            case "unknown-event":
                event = b'{"e":"somethingNew","E":%d,"s":"BTCUSDT"}' % self._now_ms()
                return wire.frame(wire.TEXT, wire.wrap("btcusdt@somethingNew", event))
            case _:
                return wire.frame(wire.BINARY, bytes((0, 255, 254, 1, 128, 193)))

    def _shut_down_apis(self, fault: Fault) -> None:
        for api in self._ws_apis:
            if fault.market in (None, api.market):
                self._later(api.shut_down(self._now_ms(), fault.seconds))

    def _refuse(self, market: Market) -> int:
        fault = self._refused("refuse-connections", market)
        return fault.status if fault is not None else 0

    def _refused(self, name: str, market: Market) -> Fault | None:
        now = self._now()
        self._refusals = [r for r in self._refusals if now < r.ends and r.left > 0]
        for refusal in self._refusals:
            if refusal.fault.fault == name and refusal.take(market, now):
                return refusal.fault
        return None

    @staticmethod
    async def _abort_after(client: Client, seconds: float) -> None:
        await asyncio.sleep(seconds)
        client.abort()

    @staticmethod
    async def _close_after(client: Client, seconds: float) -> None:
        await asyncio.sleep(seconds)
        client.close(1001, "")

    def _later(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
