"""Whether an account is let in: its key, why it was refused, and when it may be tried again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bridge.core.backoff import LoginBackoff
from bridge.core.refusals import Cause, told_apart
from bridge.errors import ConfigError, SourceError
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.binance.clock import Clock
    from bridge.binance.signed_rest import SignedRest
    from bridge.binance.signing import AccountKey
    from bridge.core.private_settings import PrivateSettings
    from bridge.core.refusals import KeyPermissions, Problem
    from bridge.model import Market
    from bridge.telemetry import LifecycleEvent, Telemetry

log = logging.getLogger("bridge")

_LEAST_SECONDS_LIMITED = 60.0


class Admission:
    """One account's way in.

    Args:
        market: of the worker.
        key: what the account signs with.
        rest: asked what the key may do.
        own: times.
        telemetry: told of every outcome.
        reload: reads the key anew, once it was refused; None where it can't change.
        clock: the clocks.
        random: draws between 0 and 1, for back-off.

    Attributes:
        name: of the account.
        key: what it signs with now.
        due: set while it may be tried.
    """

    def __init__(
        self,
        market: Market,
        key: AccountKey,
        *,
        rest: SignedRest,
        own: PrivateSettings,
        telemetry: Telemetry,
        reload: Callable[[str], AccountKey] | None,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.name, self.key = key.account, key
        self.due = asyncio.Event()
        self.due.set()
        self._market, self._rest, self._own, self._telemetry = market, rest, own, telemetry
        self._reload, self._clock = reload, clock
        self._backoff = LoginBackoff(own, random)
        self._entered_at: float | None = None
        self._permissions: KeyPermissions | None = None

    @property
    def is_in(self) -> bool:
        """Whether its events come."""
        return self._entered_at is not None

    def entered(self, connection_id: int, how: str) -> None:
        """Note that its events come from now on."""
        self._entered_at = self._clock.monotonic()
        self._tell("authentication.succeeded", connection_id, how)

    def left(self) -> None:
        """Note that its events come no longer."""
        self.settled()
        self._entered_at = None

    def settled(self) -> bool:
        """Whether its events have come for so long that the next wait starts from the minimum."""
        since = self._entered_at
        settled = since is not None and self._clock.monotonic() - since >= self._own.settled_seconds
        if settled:
            self._backoff.reset()
        return settled

    def expired(self, connection_id: int, reason: str) -> float:
        """Note that it was in and is no longer; return how long to wait before it is tried again."""
        wait = 0.0 if self.settled() else self._backoff.failed()
        self._tell("authentication.expired", connection_id, reason, wait)
        return wait

    async def refused(self, refusal: Problem, connection_id: int | None) -> None:
        """Say why it was refused, and wait; it may be tried when this returns."""
        self.due.clear()
        told = await self._understood(refusal)
        wait = self._backoff.failed()
        if told.cause is Cause.LIMIT:
            wait = max(wait, _LEAST_SECONDS_LIMITED)
        self._tell("authentication.failed", connection_id, told.text, wait)
        await self.wait(wait)

    async def wait(self, seconds: float) -> None:
        """Wait; it may be tried when this returns. A key that somebody mended meanwhile is read anew."""
        self.due.clear()
        await asyncio.sleep(seconds)
        self._read_again()
        self.due.set()

    async def check_permissions(self) -> None:
        """Say loudly what the key may do beyond reading. Only the exchange itself tells, not its test networks."""
        if self.key.environment != "prod" or self._permissions is not None:
            return
        try:
            self._permissions = await self._rest.permissions(self.key)
        except SourceError as error:
            log.debug("account %s: its key's permissions are not known: %s", self.name, error)
            return
        excess = self._permissions.excess()
        if excess:
            log.warning(
                "account %s: its key may do more than reading (%s), which the bridge never needs: take it off in API "
                "Management",
                self.name,
                ", ".join(excess),
            )

    async def _understood(self, refusal: Problem) -> Problem:
        """Return what a refusal means, as far as the exchange tells when it is asked about the key."""
        if refusal.cause is not Cause.KEY_PERMISSION_OR_ADDRESS:
            return refusal
        now: KeyPermissions | None = None
        if self.key.environment == "prod":
            try:
                now = await self._rest.permissions(self.key)
            except SourceError as error:
                log.debug("account %s: apiRestrictions does not answer either: %s", self.name, error)
        return told_apart(refusal, now, self._permissions, futures=self._market != "spot")

    def _read_again(self) -> None:
        """Read the key anew. One of another account or environment is never taken."""
        if self._reload is None:
            return
        try:
            fresh = self._reload(self.name)
        except ConfigError as error:
            log.warning("%s", error)
            return
        if fresh != self.key and (fresh.account, fresh.environment) == (self.name, self.key.environment):
            self.key, self._permissions = fresh, None

    def _tell(
        self, event: LifecycleEvent, connection_id: int | None, reason: str, retry_in: float | None = None
    ) -> None:
        self._telemetry.emit(
            Lifecycle(
                event=event,
                connection_id=connection_id,
                market=self._market,
                attempt=self._backoff.attempt or None,
                reason=reason,
                retry_in=retry_in,
                account=self.name,
            )
        )
