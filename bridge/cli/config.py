"""``binance-bridge config``: check and show the configuration."""

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.options import ConfigOption, EnvironmentOption, JsonOption, settings_from
from bridge.cli.output import print_json
from bridge.config import Settings, require_runnable

app = typer.Typer(no_args_is_help=True)


@app.command(epilog="Example: binance-bridge config check bridge.yaml")
def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The configuration file (YAML).")
    ] = None,
    config: ConfigOption = None,
    environment: EnvironmentOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Check a configuration without connecting to anything: would `run` take it?"""
    settings = settings_from(file or config, environment)
    require_runnable(settings)
    if json:
        print_json({"ok": True, "environment": settings.environment, "instance": settings.instance})
    else:
        count, accounts = len(settings.subscriptions), len(settings.accounts)
        listened = f", {accounts} account{'' if accounts == 1 else 's'}" if accounts else ""
        print(f"ok: {settings.environment}, {count} subscription{'' if count == 1 else 's'}{listened}")


@app.command(epilog="Example: binance-bridge config show --config bridge.yaml")
def show(
    config: ConfigOption = None, environment: EnvironmentOption = None, *, json: JsonOption = False
) -> None:
    """Print the settings in force, defaults included and secrets masked."""
    content = settings_from(config, environment).model_dump(mode="json")
    if json:
        print_json(content)
    else:
        import yaml

        print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


@app.command(epilog="Example: binance-bridge config schema > bridge.schema.json")
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors and charts."""
    print_json(Settings.model_json_schema())


@app.command(epilog="Example: binance-bridge config reference > configuration.md")
def reference() -> None:
    """Print the reference page of the configuration."""
    from bridge.config_reference import reference_page

    print(reference_page(), end="")
