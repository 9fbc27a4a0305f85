"""Parameters of a request, read the way the exchange reads them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from bridge.simulator.accounts.refusal import Refused, malformed, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = re.compile(r"[0-9]{1,20}")
_DECIMAL = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")
_CLIENT_ID = re.compile(r"[a-zA-Z0-9.:/_-]{1,36}")
_DAY_MS = 86_400_000


class Params:
    """The decoded parameters of a request.

    Attributes:
        given: the parameters as text.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given

    def text(self, name: str, usual: str = "") -> str:
        """Return a text, ``usual`` where it is not given; empty ones are refused."""
        found = self.given.get(name)
        if found is None:
            return usual
        if not found:
            raise Refused(-1105, f"Parameter '{name}' was empty.")
        return found

    def required(self, name: str) -> str:
        """Return a text that must be given."""
        found = self.given.get(name)
        if not found:
            raise missing(name)
        return found

    def number(self, name: str) -> int | None:
        """Return a whole number, None where it is not given."""
        found = self.text(name)
        if not found:
            return None
        if not _NUMBER.fullmatch(found):
            raise malformed(name, "^[0-9]{1,20}$")
        return int(found)

    def decimal(self, name: str) -> Decimal | None:
        """Return an unsigned decimal, None where it is not given."""
        found = self.text(name)
        if not found:
            return None
        if not _DECIMAL.fullmatch(found):
            raise malformed(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$")
        return Decimal(found)

    def positive(self, name: str) -> Decimal:
        """Return a decimal that must be given and above 0."""
        found = self.decimal(name)
        if found is None:
            raise missing(name)
        if not found:
            raise Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return found

    def flag(self, name: str) -> bool:
        """Return a boolean, false where it is not given."""
        found = self.text(name, "false").lower()
        if found not in ("true", "false"):
            raise malformed(name, "^(true|false)$")
        return found == "true"

    def client_id(self, name: str) -> str:
        """Return a client order id, empty where it is not given."""
        found = self.text(name)
        if found and not _CLIENT_ID.fullmatch(found):
            raise malformed(name, "^[a-zA-Z0-9-_]{1,36}$")
        return found

    def limit(self, usual: int, most: int) -> int:
        """Return how many rows are wanted."""
        found = self.number("limit")
        return usual if found is None else max(1, min(found, most))

    def window(self, most_ms: int = _DAY_MS) -> tuple[int | None, int | None]:
        """Return ``startTime`` and ``endTime``, not further apart than ``most_ms``."""
        start, end = self.number("startTime"), self.number("endTime")
        if start is not None and end is not None:
            if end < start:
                raise Refused(-1023, "Start time is greater than end time.")
            if end - start > most_ms:
                hours = most_ms // 3_600_000
                raise Refused(-1127, f"More than {hours} hours between startTime and endTime.")
        return start, end
