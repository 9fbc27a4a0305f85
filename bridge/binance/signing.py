"""Signing, exactly by the rules of each API. They differ.

==================  =============================================  ==================================================
what                REST                                           WebSocket API
==================  =============================================  ==================================================
is signed           the query as it is sent, percent-encoded       all parameters sorted by name, never encoded
the key travels in  the header ``X-MBX-APIKEY``                    ``apiKey``, which is signed with the rest
the signature is    hex (HMAC), else base64 and percent-encoded    hex (HMAC), else base64
==================  =============================================  ==================================================

Source: facts sheet of spot, section 6, whose test vectors the tests check.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr

    from bridge.credentials import Credentials
    from bridge.model import Environment

KeyKind = Literal["HMAC", "RSA", "ED25519"]

KEY_HEADER = "X-MBX-APIKEY"
_LEAST_RSA_BITS = 2048
_SHOWN_SECRET = re.compile(r"((?:signature|listenKey|apiKey)[\"']?\s*[=:]\s*[\"']?)[^&\s\"']+")
_API_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey:
    """What an account signs with. Neither key nor secret shows when printed.

    Attributes:
        account: the account's name in the configuration.
        environment: the only environment that may see it.
        kind: how it signs; ``ED25519`` alone may log on to a session.
        api_key: what requests carry.
    """

    account: str
    environment: Environment
    kind: KeyKind
    api_key: SecretStr
    _sign: Callable[[bytes], str] = field(repr=False, compare=False)

    def signed_query(self, params: Mapping[str, str | int]) -> str:
        """Return the query of a signed REST request: ``params`` percent-encoded, then their signature."""
        query = encoded(params)
        return f"{query}&signature={quote(self._sign(query.encode()), safe='')}"

    def signed_params(self, params: Mapping[str, str | int]) -> dict[str, str | int]:
        """Return the parameters of a signed WebSocket API request, with ``apiKey`` and ``signature``."""
        whole = {**params, "apiKey": self.api_key.get_secret_value()}
        return {**whole, "signature": self._sign(ws_payload(whole))}

    def scrub(self, text: str) -> str:
        """Take the key, and any signature or listen key, out of words that are to be shown."""
        return _SHOWN_SECRET.sub(r"\1***", text.replace(self.api_key.get_secret_value(), "***"))


def account_key(credentials: Credentials) -> AccountKey:
    """Return what an account signs with.

    Raises:
        ConfigError: the API key or the private key can't be one; neither text is repeated.
    """
    if not _API_KEY.fullmatch(credentials.api_key.get_secret_value()):
        raise ConfigError(f"account {credentials.account}: the API key holds characters that no API key has")
    kind, sign = _signer(credentials)
    return AccountKey(
        account=credentials.account,
        environment=credentials.environment,
        kind=kind,
        api_key=credentials.api_key,
        _sign=sign,
    )


def encoded(params: Mapping[str, str | int]) -> str:
    """Return a REST query, percent-encoded as it is signed and sent: UTF-8, a space as ``%20``."""
    return urlencode(params, quote_via=quote, safe="")


def ws_payload(params: Mapping[str, str | int]) -> bytes:
    """Return what a WebSocket API request signs: ``name=value`` sorted by name, raw UTF-8."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature").encode()


def _signer(credentials: Credentials) -> tuple[KeyKind, Callable[[bytes], str]]:
    if credentials.api_secret is not None:
        secret = credentials.api_secret
        return "HMAC", lambda payload: _hmac(secret, payload)
    private = None if credentials.private_key is None else _private_key(credentials.private_key)
    if isinstance(private, Ed25519PrivateKey):
        ed25519 = private
        return "ED25519", lambda payload: base64.b64encode(ed25519.sign(payload)).decode()
    if isinstance(private, RSAPrivateKey) and private.key_size >= _LEAST_RSA_BITS:
        rsa = private
        return "RSA", lambda payload: base64.b64encode(rsa.sign(payload, PKCS1v15(), SHA256())).decode()
    raise ConfigError(
        f"account {credentials.account}: the private key is no unencrypted PKCS#8 PEM of an Ed25519 key, or of an "
        f"RSA key of at least {_LEAST_RSA_BITS} bits; make one with 'openssl genpkey -algorithm ed25519'"
    )


def _hmac(secret: SecretStr, payload: bytes) -> str:
    return hmac.new(secret.get_secret_value().encode(), payload, hashlib.sha256).hexdigest()


def _private_key(pem: SecretStr) -> object:
    """Return a private key; None where it can't be read. What the library says is not repeated."""
    try:
        return load_pem_private_key(pem.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
