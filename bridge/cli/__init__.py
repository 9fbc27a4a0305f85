"""The command line ``binance-bridge``.

Exit status: 0 on success, 1 on a failed check or run, 2 on bad usage or configuration. An error that the
project raises on purpose is one message on standard error, without a traceback.

A command is one line of :data:`COMMANDS` and one module. Only the module of the command that was asked for is
imported, so that ``--help`` is quick and a command pays for nothing but its own needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import typer

from bridge import __version__
from bridge.errors import BridgeError, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "binance-bridge"


class Command(NamedTuple):
    """One command, or group of commands.

    Attributes:
        module: the module to import when it is asked for.
        attribute: a function with typer annotations, or a ``typer.Typer`` for a group.
        summary: its line in ``--help``.
    """

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Command] = {
    "run": Command("bridge.cli.run", "run", "Run the bridge until SIGTERM or SIGINT."),
    "demo": Command("bridge.cli.demo", "demo", "Show the whole system at work for a while."),
    "simulate": Command("bridge.cli.simulate", "simulate", "Run the exchange simulator alone."),
    "broker": Command("bridge.cli.broker", "broker", "Run a local Apache Kafka for demo and tests."),
    "tail": Command("bridge.cli.tail", "tail", "Print or follow decoded records."),
    "coverage": Command("bridge.cli.coverage", "coverage", "What is published, and what is missing."),
    "replay": Command("bridge.cli.replay", "replay", "Derive unified records again from raw."),
    "topics": Command("bridge.cli.topics", "app", "Compare the topics with the catalogue, and make them so."),
    "schemas": Command("bridge.cli.schemas", "app", "Print and check the contract with consumers."),
    "status": Command("bridge.cli.status", "status", "One page of the state of a running bridge."),
    "connections": Command("bridge.cli.connections", "connections", "Open connections of a running bridge."),
    "config": Command("bridge.cli.config", "app", "Check and show the configuration."),
}


def _print_version(asked: bool) -> None:
    if asked:
        print(f"{NAME} {__version__}")
        raise typer.Exit


def application(asked: str | None) -> typer.Typer:
    """Return the application with every command listed and the one that is asked for imported.

    Args:
        asked: name of the command to import; None imports all (shell completion needs their options).
    """
    app = typer.Typer(
        name=NAME,
        help="Binance streams as exact, accounted-for records in Kafka.",
        epilog="Example: binance-bridge run --config bridge.yaml",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        pass

    for name, command in COMMANDS.items():
        if not is_present(command):
            continue
        if asked is None or asked == name:
            _add(app, name, command)
        else:
            app.command(name, help=command.summary)(_not_imported)
    return app


def is_present(command: Command) -> bool:
    """Tell whether this version has the command's module."""
    return importlib.util.find_spec(command.module) is not None


def _not_imported() -> None:
    """Stand in for a command that was not asked for."""


def _add(app: typer.Typer, name: str, command: Command) -> None:
    target: typer.Typer | Callable[..., object] = getattr(
        importlib.import_module(command.module), command.attribute
    )
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=name, help=command.summary)
    else:
        app.command(name)(target)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: what follows the program's name; None takes it from the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    completing = "_BINANCE_BRIDGE_COMPLETE" in os.environ
    asked = None if completing else next((word for word in given if not word.startswith("-")), "")
    try:
        application(asked)(given, prog_name=NAME)
    except BridgeError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, (ConfigError, UsageError)) else 1) from None
    raise SystemExit(0)
