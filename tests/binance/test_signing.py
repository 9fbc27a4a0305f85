"""Signing by the rules of each API, checked against the vectors of Binance's documentation (facts sheet, spot 6.3)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bridge.binance.signing import account_key, ws_payload
from bridge.credentials import Credentials
from bridge.errors import ConfigError
from tests.binance.private import ED_PRIVATE, RSA_PRIVATE, credentials, key, pem

API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ED25519_PEM = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    "-----END PRIVATE KEY-----\n"
)
ORDER = {
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "1",
    "price": "0.1",
    "recvWindow": 5000,
    "timestamp": 1499827319559,
}


def documented(**changes):
    """Return the account of the documentation's examples."""
    given = {"api_secret": SecretStr(SECRET), **changes}
    return account_key(Credentials(account="main", environment="prod", api_key=SecretStr(API_KEY), **given))


@pytest.mark.parametrize(
    ("symbol", "sent", "signature"),
    [
        ("LTCBTC", "LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
        (
            "１２３４５６",
            "%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96",
            "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
        ),
    ],
)
def test_rest_signs_the_query_as_it_is_sent(symbol, sent, signature):
    """The vectors of REST: percent-encoded first, then signed."""
    query = documented().signed_query({"symbol": symbol, **ORDER})
    assert query.startswith(f"symbol={sent}&side=BUY&")
    assert query.endswith(f"&timestamp=1499827319559&signature={signature}")


@pytest.mark.parametrize(
    ("params", "signature"),
    [
        (
            {
                "symbol": "BTCUSDT",
                "side": "SELL",
                "type": "LIMIT",
                "timeInForce": "GTC",
                "quantity": "0.01000000",
                "price": "52000.00",
                "recvWindow": 100,
                "timestamp": 1645423376532,
            },
            "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
        ),
        (
            {
                "symbol": "１２３４５６",
                "side": "BUY",
                "type": "LIMIT",
                "timeInForce": "GTC",
                "quantity": "1.00000000",
                "price": "0.10000000",
                "recvWindow": 5000,
                "timestamp": 1645423376532,
            },
            "b33892ae8e687c939f4468c6268ddd4c40ac1af18ad19a064864c47bae0752cd",
        ),
        (
            {"timestamp": 1649729878532},
            "1cf54395b336b0a9727ef27d5d98987962bc47aca6e13fe978612d0adee066ed",
        ),
    ],
)
def test_the_websocket_api_signs_sorted_and_unencoded(params, signature):
    """The vectors of the WebSocket API, the non-ASCII one among them; the parameters stay what they were."""
    signed = documented().signed_params(params)
    assert signed == {**params, "apiKey": API_KEY, "signature": signature}


def test_ed25519_signs_as_the_vector_says():
    """The facts sheet's Ed25519 vector, in base64; in a URL it is percent-encoded."""
    key = documented(api_secret=None, private_key=SecretStr(ED25519_PEM))
    assert key.kind == "ED25519"
    signature = "OIe2IwMR3NP+oRgf/Hbo4Wf1DQyOmGvT5NrO+vm69t5WJn7jxvFQvS6nRtYpyFgebeGilE89v0rBSxL5N7EhCA=="
    assert key.signed_params({"timestamp": 1649729878532})["signature"] == signature
    query = key.signed_query({"symbol": "币安人生USDT"})
    payload, _, sent = query.rpartition("&signature=")
    assert "+" not in sent
    assert "/" not in sent
    ED_PRIVATE.public_key().verify(base64.b64decode(unquote(sent)), payload.encode())


def test_rsa_signs_with_pkcs1_and_sha256():
    """An RSA signature is RSASSA-PKCS1-v1_5 over SHA-256, in base64."""
    signed = key("rsa").signed_params({"timestamp": 1})
    assert key("rsa").kind == "RSA"
    payload = ws_payload(signed)
    RSA_PRIVATE.public_key().verify(base64.b64decode(signed["signature"]), payload, PKCS1v15(), SHA256())


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8),
        st.one_of(st.text(st.characters(codec="utf-8"), max_size=12), st.integers(0, 10**15)),
        max_size=6,
    )
)
def test_whatever_is_signed_is_what_is_sent(params):
    """For any parameters the receiver finds them in the query, and the signature is of its bytes without it."""
    query = documented().signed_query(params)
    payload, _, signature = query.rpartition("&signature=")
    assert hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest() == signature
    assert dict(parse_qsl(payload, keep_blank_values=True)) == {k: str(v) for k, v in params.items()}
    assert payload.isascii()


def small_rsa():
    """Return an RSA key that Binance would not take."""
    return pem(generate_private_key(65537, 1024))


def encrypted():
    """Return a key with a pass phrase."""
    form = BestAvailableEncryption(b"pass phrase")
    return ED_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form).decode()


@pytest.mark.parametrize(
    "text", [lambda: "no PEM at all, and secret", small_rsa, encrypted, lambda: pem(elliptic(SECP256R1()))]
)
def test_a_private_key_that_cannot_sign_is_refused_unseen(text):
    """What is no Ed25519 or RSA key of use is refused with the mend, and its text is not repeated."""
    with pytest.raises(ConfigError, match="account main: the private key is no unencrypted PKCS#8") as caught:
        documented(api_secret=None, private_key=SecretStr(text()))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["with space", "line\nbreak", "schlüssel", ""])
def test_an_api_key_that_cannot_be_one_is_refused_unseen(text):
    """Characters that would break a header never reach one, nor the error."""
    given = Credentials(
        account="main", environment="prod", api_key=SecretStr(text), api_secret=SecretStr("s")
    )
    with pytest.raises(ConfigError, match="account main: the API key holds characters") as caught:
        account_key(given)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("kind", ["hmac", "ed", "rsa"])
def test_keys_do_not_show(kind):
    """Neither the printed key nor the printed credentials hold what is secret of them."""
    given = credentials(kind)
    shown = f"{account_key(given)!r} {account_key(given)} {given!r}"
    assert "main" in shown
    for secret in (given.api_key, given.api_secret, given.private_key):
        assert secret is None or secret.get_secret_value()[:20] not in shown


def test_words_of_the_exchange_are_scrubbed():
    """A host that repeats a key or a signed URL in its message does not get it shown."""
    text = documented().scrub(f'no {API_KEY} at /x?a=1&signature=abc&b=2 {{"listenKey":"pqia"}} apiKey: zzz')
    assert text == 'no *** at /x?a=1&signature=***&b=2 {"listenKey":"***"} apiKey: ***'
