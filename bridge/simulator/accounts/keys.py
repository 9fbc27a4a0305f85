"""API keys: what they may do, and whether a signature was made with them.

Signed is what Binance documents: on REST the query string and the body as they were sent (percent-encoded),
without the signature; on the WebSocket API all parameters but the signature, sorted by name, unencoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import unquote

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

KeyKind = Literal["HMAC", "RSA", "ED25519"]
Permission = Literal[
    "reading", "spot", "futures", "margin", "withdrawals", "internal-transfer", "universal-transfer"
]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
_SHOWN: dict[str, Permission] = {
    "enableReading": "reading",
    "enableWithdrawals": "withdrawals",
    "enableInternalTransfer": "internal-transfer",
    "enableMargin": "margin",
    "enableFutures": "futures",
    "permitsUniversalTransfer": "universal-transfer",
    "enableSpotAndMarginTrading": "spot",
}


@dataclass(slots=True, kw_only=True)
class ApiKey:
    """One API key. Neither the key nor the secret shows when printed.

    Attributes:
        account: the account it belongs to.
        name: what plans and faults call it.
        key: what requests carry.
        kind: how it signs.
        secret: the HMAC secret, empty for the others.
        public_key: the RSA or Ed25519 public key, None for HMAC.
        permissions: what it may do.
        addresses: the only IP addresses it may be used from; any where empty.
        created_ms: epoch milliseconds.
        revoked: it was deleted.
    """

    account: str
    name: str
    key: str = field(repr=False)
    kind: KeyKind = "HMAC"
    secret: bytes = field(default=b"", repr=False)
    public_key: RSAPublicKey | Ed25519PublicKey | None = field(default=None, repr=False)
    permissions: set[Permission] = field(default_factory=lambda: {"reading"})
    addresses: tuple[str, ...] = ()
    created_ms: int = 0
    revoked: bool = False

    def allows(self, permission: Permission, address: str) -> bool:
        """Tell whether the key may do something from an address."""
        at_home = not self.addresses or address in self.addresses
        return not self.revoked and at_home and permission in self.permissions

    def signed(self, payload: bytes, signature: str) -> bool:
        """Tell whether ``signature`` is this key's of ``payload``: hex for HMAC, base64 for the others."""
        if self.kind == "HMAC":
            made = hmac.new(self.secret, payload, hashlib.sha256).hexdigest()
            return hmac.compare_digest(made.encode(), signature.lower().encode())
        try:
            return self._verified(payload, base64.b64decode(signature, validate=True))
        except binascii.Error:
            return False

    def restrictions(self) -> dict[str, object]:
        """Return the answer of ``GET /sapi/v1/account/apiRestrictions``."""
        granted = {name: permission in self.permissions for name, permission in _SHOWN.items()}
        trading = granted.pop("enableSpotAndMarginTrading")
        return {
            "ipRestrict": bool(self.addresses),
            "createTime": self.created_ms,
            **granted,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": True,
            "enableSpotAndMarginTrading": trading,
            "enablePortfolioMarginTrading": False,
        }

    def _verified(self, payload: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        assert self.public_key is not None
        try:
            if isinstance(self.public_key, Ed25519PublicKey):
                self.public_key.verify(signature, payload)
            else:
                self.public_key.verify(signature, payload, PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


def read_public_key(pem: str, where: str) -> tuple[KeyKind, RSAPublicKey | Ed25519PublicKey]:
    """Read an RSA or Ed25519 public key.

    Raises:
        ConfigError: it is neither; the text is not repeated.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise ConfigError(f"{where}: RSA and Ed25519 keys need the package 'cryptography'") from None
    try:
        found = load_pem_public_key(pem.encode())
    except (ValueError, TypeError):
        found = None
    if isinstance(found, Ed25519PublicKey):
        return "ED25519", found
    if isinstance(found, RSAPublicKey):
        return "RSA", found
    raise ConfigError(f"{where}: must be the PEM text of an RSA or Ed25519 public key") from None


def rest_payload(query: str, body: str) -> tuple[bytes, str | None]:
    """Return what a REST request signs and its signature, percent-decoded; None where there is none.

    Args:
        query: the URL's query as it was sent, without ``?``.
        body: the form body as it was sent.
    """
    signature: str | None = None
    kept: list[str] = []
    for part in (query, body):
        pieces = part.split("&") if part else []
        found = [piece for piece in pieces if piece.startswith("signature=")]
        if found and signature is None:
            signature = unquote(found[0].removeprefix("signature="))
        kept.append("&".join(piece for piece in pieces if piece not in found))
    return "".join(kept).encode(), signature


def ws_payload(params: Mapping[str, str]) -> bytes:
    """Return what a WebSocket API request signs."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature").encode()
