"""Who asks, and whether they may: keys, permissions, addresses, times and signatures."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from bridge.simulator.accounts.refusal import Refused, bad_key, malformed, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Market
    from bridge.simulator.accounts.keys import ApiKey, Permission
    from bridge.simulator.accounts.registry import Registry

_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
_TIME = re.compile(r"[0-9]{1,20}")
_MICROSECONDS_FROM = 10**14
_USUAL_WINDOW = Decimal(5000)
_LONGEST_WINDOW = Decimal(60_000)
_AHEAD_MS = 1000


def identify(
    registry: Registry, market: Market, text: str | None, address: str, permission: Permission
) -> ApiKey:
    """Return the key of a request.

    Raises:
        Refused: -2014 it does not look like one; -2015 it does not exist, may not do this, or not from here.
    """
    if not text or not _KEY.fullmatch(text):
        raise Refused(-2014, "API-key format invalid.", 401)
    key = registry.key(text)
    if key is None or not key.allows(permission, address):
        raise bad_key(market, address)
    return key


def check_time(params: Mapping[str, str], now_ms: int) -> None:
    """Check ``timestamp`` (milliseconds or microseconds) and ``recvWindow``.

    Raises:
        Refused: -1021 the request is too old or from the future; others where a parameter is wrong.
    """
    text = params.get("timestamp")
    if not text:
        raise missing("timestamp")
    if not _TIME.fullmatch(text):
        raise malformed("timestamp", "^[0-9]{1,20}$")
    sent = Decimal(text)
    if sent >= _MICROSECONDS_FROM:
        sent /= 1000
    window = _window(params.get("recvWindow"))
    if sent >= now_ms + _AHEAD_MS:
        raise Refused(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - sent > window:
        raise Refused(-1021, "Timestamp for this request is outside of the recvWindow.")


def check_signature(key: ApiKey, payload: bytes, signature: str | None) -> None:
    """Check a signature.

    Raises:
        Refused: -1102 there is none; -1022 it is not this key's of ``payload``.
    """
    if not signature:
        raise missing("signature")
    if not key.signed(payload, signature):
        raise Refused(-1022, "Signature for this request is not valid.")


def _window(text: str | None) -> Decimal:
    if text is None:
        return _USUAL_WINDOW
    try:
        window = Decimal(text)
    except InvalidOperation:
        window = Decimal("NaN")
    if not window.is_finite() or window < 0:
        raise malformed("recvWindow", "^[0-9]{1,5}(\\.[0-9]{1,3})?$")
    if window > _LONGEST_WINDOW:
        raise Refused(-1131, "recvWindow must be less than 60000.")
    return window
