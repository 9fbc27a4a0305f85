"""Keeps the listen key of a futures stream alive, and finds out when it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.binance.waiting import first_of
from bridge.core.refusals import NO_LISTEN_KEY, problem
from bridge.errors import RequestRefused, SourceError

if TYPE_CHECKING:
    import asyncio

    from pydantic import SecretStr

    from bridge.binance.admission import Admission
    from bridge.binance.signed_rest import SignedRest
    from bridge.core.private_settings import PrivateSettings
    from bridge.model import Market

_RETRIES = 10


async def keep_alive(
    rest: SignedRest,
    admission: Admission,
    market: Market,
    key: SecretStr,
    closed: asyncio.Event,
    own: PrivateSettings,
) -> str | None:
    """Extend a listen key in time, until its connection is closed; return why it is good no longer, None when closed.

    A host that doesn't answer is asked again ten times as often: the key lives for as long again as between two
    extensions. The key is never ended from here: other programs of the account may be on it, too.
    """
    wait = own.keep_alive_seconds
    while True:
        await first_of(closed, timeout=wait)
        if closed.is_set():
            return None
        wait = own.keep_alive_seconds / _RETRIES
        try:
            kept = await rest.keep_listen_key(admission.key, market)
        except RequestRefused as error:
            if error.code == NO_LISTEN_KEY:
                return "the listen key does not exist any more"
            refusal = problem(error.code, str(error))
            if refusal.of_key:
                return refusal.text
        except SourceError:
            pass  # told as request.rejected
        else:
            if kept != key:
                return "the account has another listen key now"
            wait = own.keep_alive_seconds
