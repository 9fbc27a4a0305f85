"""Reading REST parameters, and the exchange's words for those that are wrong."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.market.bars import INTERVALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.model import Market
    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.world import World


class Refusal(Exception):  # noqa: N818 - the exchange refuses; nothing is wrong with the program
    """A request the exchange does not serve; becomes ``{"code":…,"msg":…}``."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code}: {message}")


class Request(NamedTuple):
    """One REST request to one market.

    Attributes:
        world: the state to answer from.
        market: whose host was asked.
        params: query parameters.
        now_ms: the server's time.
    """

    world: World
    market: Market
    params: Mapping[str, str]
    now_ms: int

    @property
    def spot(self) -> bool:
        """Whether it asks the spot host."""
        return self.market == "spot"

    def symbol(self) -> Listing:
        """Return the symbol asked about; it must be given."""
        listing = self.optional_symbol()
        if listing is None:
            raise missing("symbol")
        return listing

    def optional_symbol(self) -> Listing | None:
        """Return the symbol asked about, None where none is given."""
        name = self.params.get("symbol", "")
        return self.named(name) if name else None

    def named(self, name: str) -> Listing:
        """Return the symbol ``name``."""
        listing = self.world.listings[self.market].get(name)
        if listing is None:
            if not re.fullmatch(r"[^\s\"'<>&=]{1,40}", name):
                raise illegal("symbol", "^[\\\\w\\\\-._&&[^a-z]]{1,50}$")
            raise Refusal(-1121, "Invalid symbol.")
        return listing

    def symbols(self) -> list[Listing] | None:
        """Return the symbols of a JSON array (spot), None where it is not given."""
        text = self.params.get("symbols")
        if text is None:
            return None
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise illegal("symbols", '^\\\\[(\\"[^\\"]{1,50}\\"(,\\"[^\\"]{1,50}\\"){0,}){0,1}\\\\]$')
        if self.params.get("symbol"):
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if len(set(names)) != len(names):
            raise Refusal(-1151, "Symbol is present multiple times in the list.")
        return [self.named(name) for name in names]

    def number(self, name: str) -> int | None:
        """Return a parameter that must be a number, None where it is not given."""
        text = self.params.get(name)
        if text is None:
            return None
        if not text:
            raise Refusal(-1105, f"Parameter '{name}' was empty.")
        if not re.fullmatch(r"[0-9]{1,20}", text):
            raise illegal(name, "^[0-9]{1,20}$")
        return int(text)

    def limit(self, usual: int, most: int) -> int:
        """Return how many rows are wanted: spot cuts what is too much, futures refuse it."""
        limit = self.number("limit")
        if limit is None:
            return usual
        if limit == 0 or (limit > most and not self.spot):
            raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit, most)

    def interval(self) -> str:
        """Return the kline interval; it must be given."""
        interval = self.params.get("interval")
        if not interval:
            raise missing("interval")
        if interval not in INTERVALS or (interval == "1s" and not self.spot):
            raise Refusal(-1120, "Invalid interval.")
        return interval

    def offset_ms(self) -> int:
        """Return the time zone of klines (spot), as milliseconds ahead of UTC."""
        text = self.params.get("timeZone", "0")
        found = re.fullmatch(r"([+-]?)(\d{1,2})(?::([0-5]\d))?", text)
        if found is None:
            raise illegal("timeZone", "^(([-](([0-9]|0[0-9]|1[0-1])(:[0-5][0-9])?|12(:00)?)|[+]?…))$")
        minutes = int(found[2]) * 60 + int(found[3] or 0)
        minutes = -minutes if found[1] == "-" else minutes
        if not -12 * 60 <= minutes <= 14 * 60:
            raise Refusal(-1130, "Data sent for parameter 'timeZone' is not valid.")
        return minutes * 60_000


def missing(name: str) -> Refusal:
    """Return the refusal of a request that lacks a parameter."""
    return Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> Refusal:
    """Return the refusal of a parameter with characters it must not have."""
    return Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
