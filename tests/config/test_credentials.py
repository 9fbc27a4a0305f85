"""Where keys come from: only the active environment's family, never a generic name."""

from pathlib import Path

import pytest

from bridge.credentials import Credentials, resolve
from bridge.errors import ConfigError

KEY, SECRET = "the-key", "the-secret"


def plain(found: Credentials) -> tuple[str, str | None, str | None]:
    """Return key, secret and private key as text."""
    return (
        found.api_key.get_secret_value(),
        found.api_secret and found.api_secret.get_secret_value(),
        found.private_key and found.private_key.get_secret_value(),
    )


@pytest.mark.parametrize("environment", ["prod", "demo", "testnet"])
def test_one_account_uses_the_familys_own_names(environment: str) -> None:
    """``BINANCE_<ENV>_API_KEY`` and ``_API_SECRET`` serve a single account of that environment."""
    family = f"BINANCE_{environment.upper()}_"
    found = resolve(environment, ["main"], {f"{family}API_KEY": KEY, f"{family}API_SECRET": SECRET})
    assert plain(found["main"]) == (KEY, SECRET, None)


def test_several_accounts_have_their_own_names() -> None:
    """Each of several accounts takes the variables with its name in them."""
    environ = {
        "BINANCE_PROD_MAIN_API_KEY": "k1",
        "BINANCE_PROD_MAIN_API_SECRET": "s1",
        "BINANCE_PROD_MARKET_MAKING_API_KEY": "k2",
        "BINANCE_PROD_MARKET_MAKING_API_SECRET": "s2",
    }
    found = resolve("prod", ["main", "market-making"], environ)
    assert {name: plain(one)[:2] for name, one in found.items()} == {
        "main": ("k1", "s1"),
        "market-making": ("k2", "s2"),
    }


def test_the_familys_own_names_do_not_serve_several_accounts() -> None:
    """With two accounts it would be a guess whose key the unnamed one is."""
    environ = {"BINANCE_PROD_API_KEY": KEY, "BINANCE_PROD_API_SECRET": SECRET}
    with pytest.raises(ConfigError, match="account two: missing BINANCE_PROD_TWO_API_KEY"):
        resolve("prod", ["one", "two"], environ)


def test_only_the_active_family_of_a_file_is_read() -> None:
    """A ``.env`` file may hold several families; the others might as well not be there."""
    dotenv = (
        "BINANCE_PROD_API_KEY=prod-key\nBINANCE_PROD_API_SECRET=prod-secret\n"
        "BINANCE_DEMO_API_KEY=demo-key\nexport BINANCE_DEMO_API_SECRET='demo$secret'  # mine\n"
    )
    assert plain(resolve("demo", ["main"], {}, dotenv)["main"]) == ("demo-key", "demo$secret", None)
    with pytest.raises(ConfigError, match="missing BINANCE_TESTNET_API_KEY"):
        resolve("testnet", ["main"], {}, dotenv)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable of the process hides the file's, in either form."""
    secret = tmp_path / "secret"
    secret.write_text("mounted\n")
    dotenv = "BINANCE_PROD_API_KEY=old\nBINANCE_PROD_API_SECRET=old\n"
    environ = {"BINANCE_PROD_API_KEY": "new", "BINANCE_PROD_API_SECRET_FILE": str(secret)}
    assert plain(resolve("prod", ["main"], environ, dotenv)["main"]) == ("new", "mounted", None)


def test_a_private_key_signs_instead_of_a_secret(tmp_path: Path) -> None:
    """``_PRIVATE_KEY_FILE`` takes the place of the secret, kept as it is in the file."""
    pem = tmp_path / "key.pem"
    pem.write_text("-----BEGIN PRIVATE KEY-----\nMAo=\n-----END PRIVATE KEY-----\n")
    environ = {"BINANCE_PROD_API_KEY": KEY, "BINANCE_PROD_PRIVATE_KEY_FILE": str(pem)}
    assert plain(resolve("prod", ["main"], environ)["main"]) == (KEY, None, pem.read_text())


@pytest.mark.parametrize("where", ["environment", "file"])
def test_generic_names_are_never_a_fallback(where: str) -> None:
    """Where only generic names are set, the error says which exact names are missing."""
    generic = {"BINANCE_API_KEY": KEY, "BINANCE_API_SECRET": SECRET}
    dotenv = "".join(f"{name}={value}\n" for name, value in generic.items())
    environ, text = (generic, "") if where == "environment" else ({}, dotenv)
    with pytest.raises(ConfigError) as caught:
        resolve("prod", ["main"], environ, text)
    message = str(caught.value)
    assert (
        "missing BINANCE_PROD_API_KEY (or BINANCE_PROD_API_KEY_FILE) and BINANCE_PROD_API_SECRET" in message
    )
    assert "BINANCE_API_KEY, BINANCE_API_SECRET is never used" in message
    assert KEY not in message
    assert SECRET not in message


def test_half_a_pair_of_an_accounts_own_names_is_not_filled_up() -> None:
    """A key of the account's own name is never paired with the family's secret."""
    environ = {
        "BINANCE_PROD_MAIN_API_KEY": KEY,
        "BINANCE_PROD_API_KEY": "other",
        "BINANCE_PROD_API_SECRET": SECRET,
    }
    with pytest.raises(ConfigError, match="missing BINANCE_PROD_MAIN_API_SECRET"):
        resolve("prod", ["main"], environ)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"BINANCE_PROD_API_KEY_FILE": __file__},
            "BINANCE_PROD_API_KEY and BINANCE_PROD_API_KEY_FILE are both set",
        ),
        (
            {"BINANCE_PROD_PRIVATE_KEY_FILE": __file__},
            "BINANCE_PROD_API_SECRET and BINANCE_PROD_PRIVATE_KEY_FILE are both set",
        ),
    ],
)
def test_two_answers_to_one_question_are_refused(more: dict[str, str], says: str) -> None:
    """A value and a file, or a secret and a private key, contradict each other."""
    environ = {"BINANCE_PROD_API_KEY": KEY, "BINANCE_PROD_API_SECRET": SECRET}
    with pytest.raises(ConfigError) as caught:
        resolve("prod", ["main"], environ | more)
    assert says in str(caught.value)


def test_a_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    """A mounted file that is not there, or has nothing in it, is named with its variable."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    environ = {"BINANCE_PROD_API_KEY": KEY, "BINANCE_PROD_API_SECRET_FILE": str(empty)}
    with pytest.raises(ConfigError, match=r"BINANCE_PROD_API_SECRET_FILE: .*empty is empty"):
        resolve("prod", ["main"], environ)
    with pytest.raises(ConfigError, match=r"cannot read .*gone: No such file"):
        resolve("prod", ["main"], environ | {"BINANCE_PROD_API_SECRET_FILE": str(tmp_path / "gone")})


def test_every_accounts_problem_is_told() -> None:
    """All accounts that lack keys are named at once."""
    with pytest.raises(ConfigError) as caught:
        resolve("prod", ["one", "two"], {})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "account one",
        "account two",
    ]


def test_credentials_do_not_show() -> None:
    """Printing credentials shows the account and nothing else."""
    environ = {"BINANCE_PROD_API_KEY": KEY, "BINANCE_PROD_API_SECRET": SECRET}
    shown = repr(resolve("prod", ["main"], environ))
    assert "main" in shown
    assert KEY not in shown
    assert SECRET not in shown
