"""How commands print: JSON for machines, tables for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

_PIPED_WIDTH = 200
"""Characters of a line where no terminal says how wide it is."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_json(value: object) -> None:
    """Print one JSON document, indented; non-ASCII symbols stay as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table. Numbers stand to the right and get thousands separators."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [tuple(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for position, name in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[position], (int, float)) for row in cells)
        # The first column names the row and is what people copy: it is broken last.
        least = max((len(number(row[0])) for row in cells), default=0) if position == 0 else None
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", min_width=least)
    for row in cells:
        table.add_row(*(number(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(table)


def padded(text: str, columns: int) -> str:
    """Return the text with spaces behind it to so many columns of a terminal, where Chinese signs take two each."""
    from rich.cells import cell_len

    return text + " " * (columns - cell_len(text))


def cut(text: str, columns: int) -> str:
    """Return as much of the text as so many columns of a terminal hold."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= columns else set_cell_size(text, columns).rstrip()


def number(value: object) -> str:
    """Return a cell's text: ``12,345``, ``0.3``, or the text itself."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return "" if value is None else str(value)
