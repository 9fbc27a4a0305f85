"""What the configured accounts sign with, from the process's environment and a ``.env`` file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bridge.binance.signing import account_key
from bridge.credentials import resolve
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.binance.signing import AccountKey
    from bridge.config import Settings

DOTENV = Path(".env")
"""In the folder the process was started in. It may hold the names of several environments; one family is read."""


def account_keys(settings: Settings, environ: Mapping[str, str]) -> dict[str, AccountKey]:
    """Return what each account signs with, read anew at each call.

    Raises:
        ConfigError: keys are missing, contradict each other or are none; names the variables, never a value.
    """
    accounts = [account.name for account in settings.accounts]
    if not accounts:
        return {}
    found = resolve(settings.environment, accounts, environ, _dotenv())
    return {name: account_key(one) for name, one in found.items()}


def _dotenv() -> str:
    try:
        return DOTENV.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{DOTENV}: cannot be read: {reason}") from None
