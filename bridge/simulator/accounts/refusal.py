"""What the exchange says no with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.model import Market


class Refused(Exception):  # noqa: N818 - the exchange refuses; nothing is wrong with the program
    """A request that is answered with an error body.

    Attributes:
        code: Binance's code, negative.
        message: Binance's text.
        status: HTTP status.
    """

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status

    @property
    def body(self) -> dict[str, object]:
        """The error as JSON."""
        return {"code": self.code, "msg": self.message}


def missing(name: str) -> Refused:
    """Refuse a request that lacks a parameter."""
    return Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def malformed(name: str, legal: str) -> Refused:
    """Refuse a parameter with characters it must not have."""
    return Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def combination() -> Refused:
    """Refuse parameters that do not go together."""
    return Refused(-1128, "Combination of optional parameters invalid.")


def bad_symbol() -> Refused:
    """Refuse a symbol that is not listed."""
    return Refused(-1121, "Invalid symbol.")


def bad_key(market: Market, address: str) -> Refused:
    """Refuse a key that does not exist, may not do this, or may not do it from here: Binance tells no more."""
    tail = "." if market == "spot" else f", request ip: {address}"
    return Refused(-2015, f"Invalid API-key, IP, or permissions for action{tail}", 401)


def no_order() -> Refused:
    """Refuse a question about an order that does not exist."""
    return Refused(-2013, "Order does not exist.")


def unknown_order() -> Refused:
    """Refuse to cancel what is not open."""
    return Refused(-2011, "Unknown order sent.")
