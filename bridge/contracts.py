"""Finds ``avro/`` and ``topics/``, in a checkout or inside an installed wheel."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable


@cache
def root() -> Traversable:
    """Return the folder that holds ``avro/`` and ``topics/``.

    A wheel carries both under ``bridge/_contracts``. A checkout keeps them beside ``bridge/``; its
    ``pyproject.toml`` tells it from a site-packages that lost them.

    Raises:
        ContractError: neither place has them.
    """
    packaged = files("bridge").joinpath("_contracts")
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[1]
    if checkout.joinpath("pyproject.toml").is_file():
        return checkout
    raise ContractError(f"no avro/ and topics/ in {packaged} or {checkout}; reinstall binance-kafka-bridge")


def texts(folder: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Yield ``(name without suffix, text)`` of each file of ``folder`` that ends in ``suffix``, by name."""
    place = root()
    for part in folder.split("/"):
        place = place.joinpath(part)
    found = sorted((f for f in place.iterdir() if f.name.endswith(suffix)), key=lambda f: f.name)
    for file in found:
        yield file.name.removesuffix(suffix), file.read_text(encoding="utf-8")


def text(path: str) -> str:
    """Return the text of one file, such as ``avro/trade.avsc``."""
    file = root().joinpath(*path.split("/"))
    if not file.is_file():
        raise ContractError(f"{path} is missing; reinstall binance-kafka-bridge")
    return file.read_text(encoding="utf-8")
