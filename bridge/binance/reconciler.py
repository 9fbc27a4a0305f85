"""Asks REST about an account after its stream was opened, and hands every answer on as it came."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bridge.core.account_progress import AccountProgress
from bridge.core.backoff import Backoff, LoginBackoff
from bridge.core.reconciliation import reconciliation
from bridge.core.refusals import problem
from bridge.errors import RateLimited, RequestRefused, SourceError, UnexpectedMessage
from bridge.model import PrivateAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bridge.binance.admission import Admission
    from bridge.binance.clock import Clock
    from bridge.binance.signed_rest import SignedReply, SignedRest
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.private_settings import PrivateSettings
    from bridge.core.reconciliation import Question
    from bridge.model import Market, PrivateInbox, UserMessage

log = logging.getLogger("bridge")

_SERVER_ERROR = 500


class Reconciler:
    """Keeps up what is known of one account, and makes it whole again after each opening of its stream.

    Args:
        market: of the worker.
        admission: the account and its key.
        inbox: takes the answers.
        rest: whom to ask.
        settings, own: times and sizes.
        progress: what is known of the account from before.
        pairs: base and quote asset of spot symbols, as known at the moment of asking.
        clock: the clocks.
        random: draws between 0 and 1, for back-off.

    Attributes:
        progress: what is known of the account; kept up by events and answers.
    """

    def __init__(
        self,
        market: Market,
        admission: Admission,
        *,
        inbox: PrivateInbox,
        rest: SignedRest,
        settings: ConnectionSettings,
        own: PrivateSettings,
        progress: AccountProgress | None,
        pairs: Callable[[], Mapping[str, tuple[str, str]]],
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.progress = progress or AccountProgress()
        self._market, self._admission, self._inbox, self._rest = market, admission, inbox, rest
        self._settings, self._own, self._pairs = settings, own, pairs
        self._clock, self._random = clock, random
        #: What was known before the stream was opened, until REST has told everything since.
        self._before: AccountProgress | None = None
        self._task: asyncio.Task[None] | None = None

    def received(self, message: UserMessage) -> None:
        """Learn from an event of a stream that is open. Those before say nothing of what REST still has to tell."""
        self.progress.event(message.payload)

    def begin(self, connection_id: int) -> asyncio.Task[None]:
        """Begin to ask, as the stream is open: for all that is not known now, and all that was left unanswered."""
        self.stop()
        if self._before is None:
            self._before = self.progress.copy()
        name = f"reconcile {self._admission.name} of {self._market}"
        self._task = asyncio.get_running_loop().create_task(
            self._until_complete(self._before, connection_id), name=name
        )
        return self._task

    def stop(self) -> None:
        """Stop asking; what was not answered is asked for the next time."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _until_complete(self, before: AccountProgress, connection_id: int) -> None:
        ordinary = Backoff(self._settings, self._random)
        patient = LoginBackoff(self._own, self._random)
        account, market = self._admission.name, self._market
        await asyncio.sleep(self._own.reconcile_after_seconds)
        while True:
            complete, wait = False, 0.0
            self._inbox.reconciling(account, market, connection_id, self._clock.micros())
            try:
                await self._ask_everything(before, connection_id)
                complete = True
            except SourceError as error:
                wait = _wait(error, ordinary, patient)
                log.warning(
                    "account %s (%s): REST did not tell everything; asking again in %.1f s: %s",
                    account, market, wait, error,
                )  # fmt: skip
            finally:
                at = self._clock.micros()
                self._inbox.reconciled(account, market, connection_id, at, complete=complete)
            if complete:
                self._before = None
                return
            await asyncio.sleep(wait)

    async def _ask_everything(self, before: AccountProgress, connection_id: int) -> None:
        clock = self._rest.clocks[self._market]
        await clock.ready()
        steps = reconciliation(
            self._market,
            before,
            self.progress,
            self._own,
            now_ms=clock.now_micros() // 1000,
            pairs=self._pairs(),
        )
        answer: bytes | None = None
        while True:
            try:
                question = steps.send(answer)
            except StopIteration:
                return
            answer = None
            reply = await self._asked(question)
            if reply is not None:
                answer = reply.body
                self._inbox.answered(self._told(question, reply, connection_id))

    async def _asked(self, question: Question) -> SignedReply | None:
        """Ask; None where a refusal is an answer too."""
        key = self._admission.key
        try:
            return await self._rest.get(key, self._market, question.path, question.params)
        except RequestRefused as error:
            if not question.optional or error.status >= _SERVER_ERROR or problem(error.code, "").of_key:
                raise
            log.debug("account %s: %s", self._admission.name, error)
            return None

    def _told(self, question: Question, reply: SignedReply, connection_id: int) -> PrivateAnswer:
        return PrivateAnswer(
            account=self._admission.name,
            market=self._market,
            connection_id=connection_id,
            endpoint=question.path,
            params=question.params,
            asked_at=reply.asked_at,
            received_at=self._clock.micros(),
            payload=reply.body,
        )


def _wait(error: SourceError, ordinary: Backoff, patient: LoginBackoff) -> float:
    """Return how long to wait after an error: long and growing where asking again soon is pointless."""
    pointless = isinstance(error, UnexpectedMessage) or (
        isinstance(error, RequestRefused) and error.status < _SERVER_ERROR
    )
    wait = (patient if pointless else ordinary).failed()
    return max(wait, error.retry_after) if isinstance(error, RateLimited) else wait
