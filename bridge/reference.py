"""The tables of the reference pages, made from ``avro/`` and ``topics/``: ``python -m bridge.reference``.

A page in ``docs/reference/`` is written by hand but for what stands between ``<!-- table: NAME -->`` and
``<!-- end -->``: that is made here. A test fails where a page is not current.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.catalogue import catalogue
from bridge.core.schema import ENVELOPE
from bridge.errors import ContractError
from bridge.model import MARKETS
from bridge.schema import schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.core.account_compile import CompiledSource
    from bridge.core.compile import CompiledChannel
    from bridge.core.schema import SchemaField
    from bridge.model import Market

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAGES = ("records.md", "topics.md")

_BLOCK = re.compile(r"<!-- table: (?P<name>[^>]+?) -->\n.*?<!-- end -->", re.DOTALL)
_DAY_MS = 86_400_000
_NAMES = {
    "raw": "raw.<market>.<channel>",
    "raw.api": "raw.<market>.api",
    "raw.user": "raw.<market>.user",
    "unified": "unified.<structure>",
    "state": "state.<structure>",
}
_KINDS = {"decimal": "decimal(38, 18)", "timestamp": "timestamp-micros"}


def current(page: str) -> str:
    """Return the text of a page with its tables as they have to be now.

    Raises:
        ContractError: the page asks for a table that there is none of.
    """

    def block(match: re.Match[str]) -> str:
        kind, _, subject = match["name"].partition(" ")
        make = _TABLES.get(kind)
        if make is None:
            raise ContractError(f"no table {match['name']!r}; there are {', '.join(_TABLES)}")
        return f"<!-- table: {match['name']} -->\n{make(subject)}\n<!-- end -->"

    return _BLOCK.sub(block, page)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _topics(_: str) -> str:
    """Return the families of topics."""
    rows = []
    for name, family in catalogue().topics.families.items():
        config = dict(family.config)
        policy = config.pop("cleanup.policy")
        retention = config.pop("retention.ms", None)
        if retention is not None:
            policy += f", {int(retention) // _DAY_MS} d"
        largest = config.pop("max.message.bytes", None)
        config.pop("segment.bytes", None)  # how Kafka cuts its files is no reader's concern
        size = f"{int(largest) >> 20} MiB" if largest is not None else ""
        assert not config, f"topics/topics.yaml: {name}: {config} is not in the table"
        partitions = str(family.partitions or "")
        topic = f"binance.<env>.{_NAMES.get(name, name)}"
        rows.append((_code(topic), family.key, partitions, policy, size))
    return _table(("topic", "key", "partitions", "policy", "largest record"), rows)


def _channels(market: str) -> str:
    """Return the channels of a market."""
    rows = []
    for (on_market, name), compiled in sorted(catalogue().channels.items()):
        if on_market != market:
            continue
        on = compiled.declaration.markets[on_market]
        text = name + (f"_<{on.option.name}>" if on.option else "")
        streams = [on.stream, on.all]
        rule = compiled.declaration.sequence
        rows.append(
            (
                _code(text),
                compiled.declaration.summary,
                "<br>".join(_code(s) for s in streams if s is not None),
                ", ".join(on.option.values) if on.option else "",
                ", ".join(on.speeds),
                on.path,
                rule.rule if rule is not None else "",
                ", ".join(_code(s) for s in dict.fromkeys(compiled.structures)) or "raw only",
            )
        )
    return _table(("channel", "what", "stream names", "options", "speeds", "path", "order", "unified"), rows)


def _fields(structure: str) -> str:
    """Return the fields of a structure, without the envelope."""
    schema = schemas()[structure]
    fields = [f for f in schema.fields if not (schema.unified and f.name in ENVELOPE)]
    return _table(("field", "type", "meaning"), [(_code(f.name), _type(f), f.doc) for f in fields])


def _envelope(_: str) -> str:
    """Return the fields every unified record begins with."""
    fields = [f for f in schemas()["trade"].fields if f.name in ENVELOPE]
    return _table(("field", "type", "meaning"), [(_code(f.name), _type(f), f.doc) for f in fields])


def _type(field: SchemaField) -> str:
    kind = _KINDS.get(field.kind, field.kind)
    if field.symbols:
        kind = " \\| ".join(field.symbols)
    return kind + (", or null" if field.nullable else "")


def _sources(structure: str) -> str:
    """Return which field of which channel a structure's fields come from."""
    if "account" in {f.name for f in schemas()[structure].fields}:
        return _account_sources(structure)
    channels: dict[str, dict[Market, dict[str, str]]] = {}
    for (market, name), compiled in sorted(catalogue().channels.items()):
        found = _map(compiled, structure)
        if found is not None:
            channels.setdefault(name, {})[market] = found
    fields = [f.name for f in schemas()[structure].fields]
    used = [f for f in fields if any(f in m for by in channels.values() for m in by.values())]
    head = (
        "field",
        *(f"{_code(name)} ({', '.join(m for m in MARKETS if m in by)})" for name, by in channels.items()),
    )
    rows = [(_code(field), *(_source(field, by) for by in channels.values())) for field in used]
    return _table(head, rows)


def _account_sources(structure: str) -> str:
    """Return which key of which event or answer a private structure's fields come from."""
    columns: dict[str, dict[Market, dict[str, str]]] = {}
    for compiled in _each_account_source():
        for record in compiled.declaration.records:
            if record.structure == structure:
                sources = {**record.fields, **getattr(record, compiled.market)}
                head = _account_label(compiled) + (f", each {_code(record.each)}" if record.each else "")
                head += f", where {_code(record.unless_zero)}" if record.unless_zero else ""
                found = {field: source for field, source in sources.items() if source is not None}
                columns.setdefault(head, {})[compiled.market] = found
    fields = [f.name for f in schemas()[structure].fields]
    used = [f for f in fields if any(f in m for by in columns.values() for m in by.values())]
    rows = [(_code(field), *(_source(field, by) for by in columns.values())) for field in used]
    return _table(("field", *columns), rows)


def _each_account_source() -> list[CompiledSource]:
    """Return every source of every market once, events before answers."""
    known = catalogue().accounts
    found = {
        (c.declaration.event is None, c.name, MARKETS.index(c.market)): c
        for c in (*known.events.values(), *known.answers.values())
    }
    return [found[key] for key in sorted(found)]


def _account_label(compiled: CompiledSource) -> str:
    """Return an event's name, or the last parts of the endpoints, with the markets."""
    declaration = compiled.declaration
    markets = ", ".join(declaration.markets)
    if declaration.event is not None:
        return f"{_code(declaration.event)} ({markets})"
    names = dict.fromkeys(path.rsplit("/", 1)[-1] for path in declaration.endpoints)
    return f"REST {', '.join(map(_code, names))} ({markets})"


def _accounts(_: str) -> str:
    """Return the private events and the endpoints of REST that are read."""
    rows: dict[str, tuple[str, ...]] = {}
    for compiled in _each_account_source():
        declaration = compiled.declaration
        made = dict.fromkeys(record.structure for record in declaration.records)
        names = [declaration.event] if declaration.event is not None else list(declaration.endpoints)
        rows[compiled.name] = (
            "<br>".join(_code(name) for name in names),
            declaration.summary,
            ", ".join(declaration.markets),
            ", ".join(map(_code, made)) or "raw only",
        )
    return _table(("event or endpoint", "what", "markets", "unified"), rows.values())


def _map(compiled: CompiledChannel, structure: str) -> dict[str, str] | None:
    for record in compiled.declaration.records:
        if record.structure == structure:
            fields: dict[str, str | None] = {**record.fields, **getattr(record, compiled.market)}
            return {field: source for field, source in fields.items() if source is not None}
    return None


def _source(field: str, by_market: dict[Market, dict[str, str]]) -> str:
    """Return the expression of a field, with the markets where they differ."""
    markets: dict[str, list[Market]] = {}
    for market in MARKETS:
        if market in by_market:
            markets.setdefault(by_market[market].get(field, ""), []).append(market)
    if len(markets) == 1:
        return _code(next(iter(markets)))
    return "; ".join(f"{', '.join(on)}: {_code(source)}" for source, on in markets.items() if source)


_TABLES: dict[str, Callable[[str], str]] = {
    "topics": _topics,
    "channels": _channels,
    "fields": _fields,
    "envelope": _envelope,
    "sources": _sources,
    "accounts": _accounts,
}


def main() -> int:
    """Bring the pages up to date; return the exit status."""
    if not FOLDER.is_dir():
        sys.stderr.write(f"no {FOLDER}; run it from a checkout\n")
        return 1
    for name in PAGES:
        page = FOLDER / name
        before = page.read_text(encoding="utf-8")
        after = current(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page} is new\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
