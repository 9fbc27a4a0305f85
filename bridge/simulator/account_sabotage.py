"""Carries out faults on accounts: their keys, the exchange's clock, and the connections that listen to them."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey
    from bridge.simulator.accounts.listen_keys import ListenKeys
    from bridge.simulator.accounts.registry import Registry
    from bridge.simulator.faults import Fault
    from bridge.simulator.user_faults import UserFaults
    from bridge.simulator.user_streams import UserStreams

_NOWHERE = ("192.0.2.1",)
"""An address that nobody has (RFC 5737)."""
_FUTURES: tuple[Market, ...] = ("usdm", "coinm")


class AccountSabotage:
    """Breaks accounts.

    Args:
        registry: the accounts.
        listen_keys: the keys of futures' private streams.
        streams: who listens.
        skews: how far each market's clock is ahead, milliseconds; changed here, used by the request desk.
        now_ms: exchange time.

    Attributes:
        faults: those on single events.
    """

    def __init__(
        self,
        registry: Registry,
        listen_keys: ListenKeys,
        streams: UserStreams,
        faults: UserFaults,
        skews: dict[Market, int],
        now_ms: Callable[[], int],
    ) -> None:
        self._registry, self._listen_keys, self._streams = registry, listen_keys, streams
        self.faults, self._skews, self._now_ms = faults, skews, now_ms
        self._undo: dict[int, list[Callable[[], None]]] = {}

    def inject(self, fault: Fault) -> dict[str, object]:
        """Do a fault; return what its line of the ground truth says of it."""
        match fault.fault:
            case "clock-skew":
                for market in self._skews:
                    if fault.market in (None, market):
                        self._skews[market] = fault.milliseconds
                return {}
            case "terminate-user-streams":
                return {"subscriptions": self._terminate(fault)}
            case "drop-private":
                return {"connections": self._drop(fault)}
            case _:
                changed = list(self._keys(fault))
                for key in changed:
                    self._change(fault, key)
                for session in self._streams.sessions.values():
                    session.drop_forbidden()
                return {"keys": [f"{key.account}/{key.name}" for key in changed]}

    async def undo_after(self, fault: Fault, seconds: float) -> None:
        """Take a fault back after some seconds."""
        await asyncio.sleep(seconds)
        if fault.fault == "clock-skew":
            for market in self._skews:
                if fault.market in (None, market):
                    self._skews[market] = 0
        for undo in self._undo.pop(id(fault), []):
            undo()

    def owns(self, fault: Fault, listen_key: str) -> bool:
        """Tell whether a listen key is of an account that the fault concerns; unknown keys are everybody's."""
        found = self._listen_keys.find(listen_key)
        return fnmatchcase("" if found is None else found.account, fault.account)

    def end_listen_keys(self, fault: Fault) -> None:
        """End the listen keys of the accounts that the fault concerns."""
        for account in self._accounts(fault):
            for market in _FUTURES:
                if fault.market in (None, market):
                    self._listen_keys.close(account, market)

    def _accounts(self, fault: Fault) -> Iterator[str]:
        return (name for name in self._registry.accounts if fnmatchcase(name, fault.account))

    def _keys(self, fault: Fault) -> Iterator[ApiKey]:
        return self._registry.keys_of(
            lambda account: fnmatchcase(account, fault.account), lambda name: fnmatchcase(name, fault.key)
        )

    def _change(self, fault: Fault, key: ApiKey) -> None:
        undo = self._undo.setdefault(id(fault), []) if fault.seconds else []
        if fault.fault == "revoke-key":
            key.revoked = True
            undo.append(lambda: setattr(key, "revoked", False))
        elif fault.fault == "withdraw-permission":
            if fault.permission in key.permissions:
                key.permissions.discard(fault.permission)
                undo.append(lambda: key.permissions.add(fault.permission))
        else:
            addresses, key.addresses = key.addresses, _NOWHERE
            undo.append(lambda: setattr(key, "addresses", addresses))

    def _terminate(self, fault: Fault) -> int:
        ended = 0
        for session in self._streams.sessions.values():
            for number, subscription in list(session.subscriptions.items()):
                if fnmatchcase(subscription.account, fault.account):
                    session.terminate(number, self._now_ms())
                    ended += 1
        return ended

    def _drop(self, fault: Fault) -> int:
        aborts: list[Callable[[], None]] = []
        if fault.market in (None, "spot"):
            aborts += [
                session.abort
                for session in self._streams.sessions.values()
                if any(fnmatchcase(one.account, fault.account) for one in session.subscriptions.values())
            ]
        for account in self._accounts(fault):
            for market in _FUTURES:
                if fault.market in (None, market):
                    aborts += [client.abort for client in self._streams.private(account, market)]
        chosen = aborts[: fault.count]
        for abort in chosen:
            abort()
        return len(chosen)
