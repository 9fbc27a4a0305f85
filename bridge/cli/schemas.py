"""``binance-bridge schemas``: print and check the contract with consumers."""

from typing import Annotated

import typer

from bridge import schema
from bridge.cli.options import JsonOption
from bridge.cli.output import print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Print and check the contract with consumers.")

Structure = Annotated[str, typer.Argument(help="A structure, such as trade.")]


@app.command("list")
def list_(*, json: JsonOption = False) -> None:
    """List the structures.

    Example: binance-bridge schemas list
    """
    rows = [
        (name, "unified" if s.unified else "other", len(s.fields), s.fingerprint.hex(), s.text.get("doc", ""))
        for name, s in schema.schemas().items()
    ]
    columns = ("structure", "layer", "fields", "fingerprint", "doc")
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns[:4], [row[:4] for row in rows])


@app.command()
def show(structure: Structure) -> None:
    """Print the Avro schema of a structure.

    Example: binance-bridge schemas show trade
    """
    print_json(schema.structure(structure).text)


@app.command()
def fields(structure: Structure, *, json: JsonOption = False) -> None:
    """List the fields of a structure.

    Example: binance-bridge schemas fields ticker
    """
    rows = [(f.name, f.kind, "yes" if f.nullable else "no", f.doc) for f in schema.fields(structure)]
    columns = ("field", "type", "nullable", "doc")
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows, title=structure)


@app.command()
def manifest() -> None:
    """Print the whole contract as JSON.

    Example: binance-bridge schemas manifest > manifest.json
    """
    print_json(schema.manifest())


@app.command()
def check(*, json: JsonOption = False) -> None:
    """Check that the schemas keep the contract's rules, and that every declared stream fits them.

    Exit status 1 where one does not.

    Example: binance-bridge schemas check
    """
    from bridge.catalogue import catalogue
    from bridge.core.schema_lint import lint

    problems = [problem for s in schema.schemas().values() for problem in lint(s)]
    streams = len(catalogue().channels)
    if json:
        print_json({"schemas": len(schema.schemas()), "channels": streams, "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{len(schema.schemas())} schemas, {streams} channels, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)
