"""Where an account's keys come from: environment and ``.env`` text in, keys or an error out.

Only the active environment's family, ``BINANCE_<ENV>_…``, is ever looked at. A generic ``BINANCE_API_KEY``
does not say which environment it belongs to, so it is never taken; where only it is set, the error names what
is missing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values
from pydantic import SecretStr

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.model import Environment

_GENERIC = (
    "BINANCE_API_KEY",
    "BINANCE_API_SECRET",
    "BINANCE_KEY",
    "BINANCE_SECRET",
    "BINANCE_PRIVATE_KEY_FILE",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The keys of one account. Nothing in it shows when printed.

    Attributes:
        account: the account's name in the configuration.
        environment: the environment whose family of names they came from; no other may ever see them.
        api_key: the API key.
        api_secret: the HMAC secret, or None where a private key signs.
        private_key: the PEM text of an Ed25519 or RSA key, or None where a secret signs.
    """

    account: str
    environment: Environment
    api_key: SecretStr
    api_secret: SecretStr | None = None
    private_key: SecretStr | None = None


def resolve(
    environment: Environment, accounts: Iterable[str], environ: Mapping[str, str], dotenv: str = ""
) -> dict[str, Credentials]:
    """Return the keys of each account.

    Args:
        environment: the active one; the families of the others are not looked at.
        accounts: names of the configured accounts. A single one may also use ``BINANCE_<ENV>_API_KEY``.
        environ: the process's environment variables; they win over ``dotenv``.
        dotenv: the text of a ``.env`` file, which may hold several families.

    Raises:
        ConfigError: keys are missing or contradict each other; names the variables, never a value.
    """
    family = f"BINANCE_{environment.upper()}_"
    given = _merged(environ, dotenv)
    known = {name: value for name, value in given.items() if name.startswith(family)}
    generic = [name for name in _GENERIC if name in given]
    names = list(dict.fromkeys(accounts))
    found, problems = {}, []
    for account in names:
        prefix = f"{family}{account.upper().replace('-', '_')}_"
        if len(names) == 1 and not any(name.startswith(prefix) for name in known):
            prefix = family
        try:
            found[account] = _of(account, environment, prefix, known, generic)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _merged(environ: Mapping[str, str], dotenv: str) -> dict[str, str]:
    """Return both without empty values; ``X`` or ``X_FILE`` of the environment hides both of the file."""
    own = {name: value for name, value in environ.items() if value}
    hidden = {name.removesuffix("_FILE") for name in own}
    below = dotenv_values(stream=io.StringIO(dotenv), interpolate=False)
    kept = {
        name: value for name, value in below.items() if value and name.removesuffix("_FILE") not in hidden
    }
    return {**kept, **own}


def _of(
    account: str, environment: Environment, prefix: str, known: Mapping[str, str], generic: list[str]
) -> Credentials:
    key = _value(account, f"{prefix}API_KEY", known)
    secret = _value(account, f"{prefix}API_SECRET", known)
    pem = known.get(f"{prefix}PRIVATE_KEY_FILE")
    missing = []
    if key is None:
        missing.append(f"{prefix}API_KEY (or {prefix}API_KEY_FILE)")
    if secret is None and pem is None:
        missing.append(f"{prefix}API_SECRET (or {prefix}API_SECRET_FILE, or {prefix}PRIVATE_KEY_FILE)")
    if key is None or missing:
        unused = f"; {', '.join(generic)} is never used, as it names no environment" if generic else ""
        raise ConfigError(f"account {account}: missing {' and '.join(missing)}{unused}")
    if secret is not None and pem is not None:
        both = f"{prefix}API_SECRET and {prefix}PRIVATE_KEY_FILE"
        raise ConfigError(f"account {account}: {both} are both set; keep one of the two")
    private_key = None if pem is None else _read(account, f"{prefix}PRIVATE_KEY_FILE", pem)
    return Credentials(
        account=account,
        environment=environment,
        api_key=SecretStr(key),
        api_secret=None if secret is None else SecretStr(secret),
        private_key=None if private_key is None else SecretStr(private_key),
    )


def _value(account: str, name: str, known: Mapping[str, str]) -> str | None:
    """Return a variable's value, or the content of the file that ``<name>_FILE`` names."""
    file = known.get(f"{name}_FILE")
    if file is None:
        return known.get(name)
    if name in known:
        raise ConfigError(f"account {account}: {name} and {name}_FILE are both set; keep one of the two")
    return _read(account, f"{name}_FILE", file).strip()


def _read(account: str, name: str, file: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"account {account}: {name}: cannot read {file}: {reason}") from None
    if not text.strip():
        raise ConfigError(f"account {account}: {name}: {file} is empty")
    return text
