"""What a refusal means, and what mends it."""

import json

import pytest

from bridge.core.refusals import Cause, KeyPermissions, problem, read_permissions, told_apart
from bridge.errors import UnexpectedMessage

REJECTED = "Invalid API-key, IP, or permissions for action"


@pytest.mark.parametrize(
    ("code", "message", "cause", "words"),
    [
        (-2014, "API-key format invalid.", Cause.KEY, "copy it anew"),
        (-4056, "HMAC API key is not supported.", Cause.KEY, "make an Ed25519 key"),
        (
            -1022,
            "Signature for this request is not valid.",
            Cause.SIGNATURE,
            "does not belong to the API key",
        ),
        (-1021, "Timestamp for this request is outside of the recvWindow.", Cause.CLOCK, "NTP"),
        (-2015, f"{REJECTED}.", Cause.KEY_PERMISSION_OR_ADDRESS, "look in API Management"),
        (-1003, "Too much request weight used.", Cause.LIMIT, "Too much request weight"),
        (-1000, "An unknown error occurred.", Cause.OTHER, "unknown error"),
        (None, "", Cause.OTHER, "no message"),
    ],
)
def test_codes_name_culprit_and_mend(code, message, cause, words):
    """Each code of the exchange has its cause, and words that say what to do."""
    found = problem(code, message)
    assert (found.cause, found.code) == (cause, code)
    assert words in found.text
    assert code is None or f"code {code}" in found.text


def test_only_what_somebody_has_to_mend_is_the_keys():
    """A full minute or an outage passes by itself; a key doesn't."""
    assert [problem(code, "").of_key for code in (-2014, -2015, -1022, -1021, -1003, -1000, None)] == [
        *[True] * 4,
        *[False] * 3,
    ]


def test_the_address_that_futures_saw_is_told():
    """Futures tell the address a request came from: it is what must stand among the allowed ones."""
    found = problem(-2015, f"usdm POST /x(): HTTP 401, code -2015: {REJECTED}, request ip: 203.0.113.7")
    assert "(the exchange saw 203.0.113.7)" in found.text


@pytest.mark.parametrize(
    ("now", "before", "futures", "cause", "words"),
    [
        (KeyPermissions(enable_reading=False), None, False, Cause.PERMISSION, "permission Enable Reading"),
        (KeyPermissions(enable_reading=True), None, True, Cause.PERMISSION, "permission Enable Futures"),
        (
            KeyPermissions(enable_reading=True),
            None,
            False,
            Cause.KEY_PERMISSION_OR_ADDRESS,
            "unknown in this",
        ),
        (None, None, False, Cause.KEY_PERMISSION_OR_ADDRESS, "unknown in this"),
        (None, KeyPermissions(ip_restrict=False), False, Cause.KEY, "it was deleted"),
        (None, KeyPermissions(ip_restrict=True), False, Cause.ADDRESS, "this machine's address changed"),
    ],
)
def test_a_refused_key_is_told_apart_as_far_as_possible(now, before, futures, cause, words):
    """What apiRestrictions says now, or said while the key was accepted, narrows -2015 down."""
    found = told_apart(problem(-2015, f"{REJECTED}."), now, before, futures=futures)
    assert (found.cause, found.code) == (cause, -2015)
    assert words in found.text


def test_other_refusals_stay_what_they_are():
    """Only -2015 needs telling apart."""
    refusal = problem(-1022, "")
    assert told_apart(refusal, KeyPermissions(), KeyPermissions(), futures=True) == refusal


def test_permissions_beyond_reading_are_named_as_the_exchange_names_them():
    """The example of the documentation: what it may do beyond reading, without what futures need to read."""
    body = json.dumps(
        {
            "ipRestrict": False,
            "createTime": 1623840271000,
            "enableReading": True,
            "enableWithdrawals": False,
            "enableInternalTransfer": True,
            "enableMargin": False,
            "enableFutures": True,
            "permitsUniversalTransfer": True,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": True,
            "enableSpotAndMarginTrading": True,
            "enablePortfolioMarginTrading": True,
        }
    ).encode()
    found = read_permissions(body)
    assert (found.enable_reading, found.enable_futures, found.ip_restrict) == (True, True, False)
    assert found.excess() == (
        "enableInternalTransfer",
        "permitsUniversalTransfer",
        "enableSpotAndMarginTrading",
    )


@pytest.mark.parametrize("body", [b"", b"[]", b'{"enableReading":"yes"}', b"\xff"])
def test_an_answer_that_is_none_is_said(body):
    """What is no answer of apiRestrictions is an error, not a key without permissions."""
    with pytest.raises(UnexpectedMessage, match="apiRestrictions"):
        read_permissions(body)
