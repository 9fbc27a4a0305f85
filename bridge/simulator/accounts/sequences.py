"""Ids that the exchange gives out, the same for every account of it."""

from __future__ import annotations

from random import Random


class Sequences:
    """Counts ids by kind and symbol, from a start that the seed decides.

    Private trades have a series of their own: orders of accounts don't move the public market.

    Args:
        seed: the simulator's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._last: dict[tuple[str, ...], int] = {}
        self._letters = Random(f"client ids {seed}")  # noqa: S311 - ids, not secrets

    def next(self, *kind: str) -> int:
        """Return the next id of a kind such as ``("order", "spot", "BTCUSDT")``."""
        last = self._last.get(kind)
        if last is None:
            last = Random(f"{self._seed} {kind}").randrange(1_000_000, 9_000_000)  # noqa: S311 - as above
        self._last[kind] = last + 1
        return last + 1

    def client_id(self) -> str:
        """Return a client order id as the exchange makes them: 22 letters and digits."""
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        return "".join(self._letters.choices(letters, k=22))
