"""Signatures by the rules of each API, checked against the documentation's own vectors."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bridge.errors import ConfigError
from bridge.simulator.accounts.guard import check_time
from bridge.simulator.accounts.keys import ApiKey, read_public_key, rest_payload, ws_payload
from bridge.simulator.accounts.refusal import Refused

KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
SECRET = b"NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
HMAC = ApiKey(account="main", name="hmac", key=KEY, secret=SECRET)
ED25519_PUBLIC = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n"
    "-----END PUBLIC KEY-----\n"
)
REST = [
    (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559",
        "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
    ),
    (
        (
            "symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96&side=BUY&type=LIMIT&timeInForce=GTC"
            "&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
        ),
        "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3",
    ),
]
WS = [
    (
        {
            "symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01000000",
            "price": "52000.00", "recvWindow": "100", "timestamp": "1645423376532",
        },
        "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24",
    ),
    (
        {
            "symbol": "１２３４５６", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1.00000000",
            "price": "0.10000000", "recvWindow": "5000", "timestamp": "1645423376532",
        },
        "b33892ae8e687c939f4468c6268ddd4c40ac1af18ad19a064864c47bae0752cd",
    ),
    ({"timestamp": "1649729878532"}, "1cf54395b336b0a9727ef27d5d98987962bc47aca6e13fe978612d0adee066ed"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "signature"), REST)
def test_rest_signs_what_was_sent(query: str, signature: str) -> None:
    """The percent-encoded text is signed, wherever it stands and whatever the case of the signature."""
    parts = query.partition("&quantity")
    ways = [
        (f"{query}&signature={signature}", ""),
        ("", f"{query}&signature={signature.upper()}"),
        (parts[0], f"{(parts[1] + parts[2])}&signature={signature}"),
    ]
    for sent in ways:
        assert HMAC.signed(*rest_payload(*sent)), sent
    assert not HMAC.signed(*rest_payload(f"{query}&recvWindow=1&signature={signature}", ""))


@pytest.mark.parametrize(("params", "signature"), WS)
def test_the_ws_api_signs_sorted_and_unencoded(params: dict[str, str], signature: str) -> None:
    """All parameters but the signature are signed, by name, in their own characters."""
    assert HMAC.signed(ws_payload({**params, "apiKey": KEY, "signature": signature}), signature)
    assert not HMAC.signed(ws_payload({**params, "apiKey": KEY, "timestamp": "1"}), signature)


def test_ed25519_signatures_are_base64() -> None:
    """The sheet's Ed25519 vector holds; hex, another payload or cut text do not."""
    kind, public_key = read_public_key(ED25519_PUBLIC, "key")
    key = ApiKey(account="main", name="ed", key=KEY, kind=kind, public_key=public_key)
    payload = f"apiKey={KEY}&timestamp=1649729878532".encode()
    signature = "OIe2IwMR3NP+oRgf/Hbo4Wf1DQyOmGvT5NrO+vm69t5WJn7jxvFQvS6nRtYpyFgebeGilE89v0rBSxL5N7EhCA=="
    assert kind == "ED25519"
    assert key.signed(payload, signature)
    assert not key.signed(payload + b"0", signature)
    assert not key.signed(payload, signature[:-4])
    assert not key.signed(payload, base64.b64decode(signature).hex())


def test_rsa_signatures_come_percent_encoded_on_rest() -> None:
    """An RSA signature (PKCS #1 v1.5, SHA-256) is taken from the URL percent-decoded."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    kind, public_key = read_public_key(pem, "key")
    key = ApiKey(account="main", name="rsa", key=KEY, kind=kind, public_key=public_key)
    made = base64.b64encode(private.sign(b"timestamp=1", padding.PKCS1v15(), hashes.SHA256())).decode()
    quoted = made.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert kind == "RSA"
    assert key.signed(*rest_payload(f"timestamp=1&signature={quoted}", ""))
    assert not key.signed(*rest_payload(f"timestamp=2&signature={quoted}", ""))


def test_nothing_secret_shows() -> None:
    """Neither printing a key nor the error of a bad one tells anything of it."""
    assert KEY not in repr(HMAC)
    assert SECRET.decode() not in repr(HMAC)
    with pytest.raises(ConfigError) as caught:
        read_public_key("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n", "accounts[0].keys[0].public_key")
    assert "c2VjcmV0" not in str(caught.value)


NOW = 1_700_000_000_000
TIMES: list[tuple[dict[str, str], int | None]] = [
    ({"timestamp": str(NOW)}, None),
    ({"timestamp": str(NOW * 1000)}, None),
    ({"timestamp": str(NOW + 999)}, None),
    ({"timestamp": str(NOW + 1000)}, -1021),
    ({"timestamp": str(NOW - 5000)}, None),
    ({"timestamp": str(NOW - 5001)}, -1021),
    ({"timestamp": str(NOW - 5001), "recvWindow": "6000.346"}, None),
    ({"timestamp": str(NOW), "recvWindow": "60001"}, -1131),
    ({"timestamp": str(NOW), "recvWindow": "soon"}, -1100),
    ({"timestamp": "now"}, -1100),
    ({}, -1102),
]


@pytest.mark.parametrize(("params", "code"), TIMES)
def test_times_of_requests(params: dict[str, str], code: int | None) -> None:
    """A request may be as old as its window and less than a second ahead, in either unit."""
    codes = []
    try:
        check_time(params, NOW)
    except Refused as refused:
        codes.append(refused.code)
    assert codes == ([] if code is None else [code])
