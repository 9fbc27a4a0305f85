"""What the exchange means when it refuses something private, and what mends it. Pure.

Binance answers -2015 alike to a key it doesn't know, a permission the key lacks and an address it isn't allowed from.
What it adds (futures tell the address they saw) and what else is known (whether the key was accepted before, what
``apiRestrictions`` says) tells them apart as far as that is possible; where it is not, the words name all three.

Sources: facts sheets, spot sections 6.2, 6.4, 6.5, derivatives section 4.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

import msgspec

from bridge.errors import UnexpectedMessage


class Cause(Enum):
    """Why a private request or login was refused."""

    KEY = "key"
    """The key is malformed, unknown or of the wrong kind."""
    PERMISSION = "permission"
    ADDRESS = "address"
    KEY_PERMISSION_OR_ADDRESS = "key, permission or address"
    SIGNATURE = "signature"
    CLOCK = "clock"
    LIMIT = "limit"
    OTHER = "other"


class Problem(NamedTuple):
    """Why an account can't be listened to.

    Attributes:
        cause: as far as it can be told.
        code: the exchange's error code, where there is one.
        text: the culprit and the mend; never a key.
    """

    cause: Cause
    code: int | None
    text: str

    @property
    def of_key(self) -> bool:
        """Whether trying again soon is pointless: somebody has to mend something first."""
        return self.cause not in (Cause.LIMIT, Cause.OTHER)


BAD_TIME, BAD_SIGNATURE, BAD_KEY_FORMAT, REJECTED_KEY = -1021, -1022, -2014, -2015
NO_LISTEN_KEY = -1125
ALREADY_SUBSCRIBED = -2035
_WRONG_KIND = -4056
_LIMITS = frozenset({-1003, -1008, -1015, -2042})
_ADDRESS = re.compile(r"request ip: ?([0-9a-fA-F.:]{3,45})")
_TOLD_CHARACTERS = 200

_OFF_CLOCK = (
    "the clock is off: the request was outside of recvWindow by the exchange's clock, though that was measured anew; "
    "let NTP set this machine's clock, or raise private.recv_window_ms where the way to the exchange is slow"
)
_MENDS: dict[int, Problem] = {
    one.code or 0: one
    for one in (
        Problem(Cause.CLOCK, BAD_TIME, _OFF_CLOCK),
        Problem(
            Cause.SIGNATURE,
            BAD_SIGNATURE,
            "the signature is not valid: the secret or private key does not belong to the API key; set both anew",
        ),
        Problem(
            Cause.KEY,
            BAD_KEY_FORMAT,
            "the API key is malformed: it is cut off, quoted or of something else; copy it anew from API Management",
        ),
        Problem(
            Cause.KEY, _WRONG_KIND, "a key of this kind can't log on to a session: make an Ed25519 key for it"
        ),
    )
}


def problem(code: int | None, message: str) -> Problem:
    """Return what a refusal means.

    Args:
        code: the exchange's error code, None where it gave none.
        message: the exchange's words.
    """
    if code == REJECTED_KEY:
        what = (
            "the key is unknown in this environment, lacks a permission, or is not allowed from this address"
        )
        return Problem(Cause.KEY_PERMISSION_OR_ADDRESS, code, f"{what}; {_look(message)} (code {code})")
    known = _MENDS.get(code or 0)
    if known is not None:
        return known._replace(text=f"{known.text} (code {code})")
    cause = Cause.LIMIT if code in _LIMITS else Cause.OTHER
    shown = message[:_TOLD_CHARACTERS] or "no message"
    return Problem(
        cause, code, f"the exchange refused: {shown}" + ("" if code is None else f" (code {code})")
    )


def _look(message: str) -> str:
    found = _ADDRESS.search(message)
    seen = f"the exchange saw {found[1]}" if found else "what the outside sees of it"
    return (
        "look in API Management whether the key exists, may read (futures: has Enable Futures), and is allowed from "
        f"this machine's address ({seen})"
    )


class KeyPermissions(msgspec.Struct, frozen=True, rename="camel"):
    """What ``GET /sapi/v1/account/apiRestrictions`` says of a key."""

    ip_restrict: bool = False
    enable_reading: bool = False
    enable_withdrawals: bool = False
    enable_internal_transfer: bool = False
    permits_universal_transfer: bool = False
    enable_margin: bool = False
    enable_futures: bool = False
    enable_vanilla_options: bool = False
    enable_spot_and_margin_trading: bool = False
    enable_fix_api_trade: bool = False

    def excess(self) -> tuple[str, ...]:
        """Return what the key may do beyond reading, by the exchange's names.

        ``enableFutures`` is not among it: without it futures do not let a key read either.
        """
        beyond = (
            "enable_withdrawals",
            "enable_internal_transfer",
            "permits_universal_transfer",
            "enable_margin",
            "enable_vanilla_options",
            "enable_spot_and_margin_trading",
            "enable_fix_api_trade",
        )
        names = dict(zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True))
        return tuple(names[name] for name in beyond if getattr(self, name))


_decode_permissions = msgspec.json.Decoder(KeyPermissions).decode


def read_permissions(body: bytes) -> KeyPermissions:
    """Read the answer of ``apiRestrictions``.

    Raises:
        UnexpectedMessage: it is something else.
    """
    try:
        return _decode_permissions(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnexpectedMessage("apiRestrictions: not what is documented") from None


def told_apart(
    refusal: Problem, now: KeyPermissions | None, before: KeyPermissions | None, *, futures: bool
) -> Problem:
    """Return what a key lacks that was refused with -2015, as far as ``apiRestrictions`` tells.

    Args:
        refusal: what :func:`problem` made of the refusal.
        now: what ``apiRestrictions`` answers now; None where it refuses as well, or is not there (testnet).
        before: what it answered when the key was accepted; None where that never was.
        futures: whether it was a futures host that refused.
    """
    if refusal.cause is not Cause.KEY_PERMISSION_OR_ADDRESS:
        return refusal
    if now is not None:
        lacking = "Enable Futures" if futures and not now.enable_futures else None
        lacking = lacking if now.enable_reading else "Enable Reading"
        if lacking is None:
            return refusal
        text = f"the key lacks the permission {lacking}: grant it in API Management (code {refusal.code})"
        return refusal._replace(cause=Cause.PERMISSION, text=text)
    if before is not None and not before.ip_restrict:
        text = "the key was accepted before, from any address: it was deleted, or may read no longer"
        return refusal._replace(cause=Cause.KEY, text=f"{text}; make a new one (code {refusal.code})")
    if before is not None:
        text = (
            "the key was accepted before, from some addresses only: this machine's address changed or was taken off "
            f"the key's, or the key was deleted; {refusal.text}"
        )
        return refusal._replace(cause=Cause.ADDRESS, text=text)
    return refusal
