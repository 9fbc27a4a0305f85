"""Asks a running bridge over its HTTP endpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from bridge.cli.options import settings_from
from bridge.config import Http
from bridge.errors import BridgeError, UsageError
from bridge.http import base_url

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_SECONDS = 5.0


def endpoint_url(url: str | None, config: Path | None, environment: str | None) -> str:
    """Return the endpoint's base URL: as given, else by the configuration, else by its defaults.

    Raises:
        UsageError: the URL is none.
        ConfigError: as :func:`bridge.config.load`.
    """
    if url is not None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--url: found {url}; expected such as http://127.0.0.1:9464")
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    http = Http() if config is None else settings_from(config, environment).http
    return base_url(http.host, http.port)


def ask(base: str, path: str) -> object:
    """Return the decoded JSON answer of ``GET <base>/<path>``.

    Raises:
        BridgeError: nothing answers there, or not a bridge.
    """
    url = f"{base}/{path}"
    try:
        # The bridge is asked directly, whatever proxy the environment names.
        with build_opener(ProxyHandler({})).open(url, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        error.close()
        raise BridgeError(f"{url} answers {error.code}; is it a bridge's HTTP endpoint?") from None
    except (URLError, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise BridgeError(
            f"no bridge answers at {url}: {reason}; is it running, is http.port or --url right?"
        ) from None
    except ValueError:
        raise BridgeError(f"{url} does not answer JSON; is it a bridge's HTTP endpoint?") from None
