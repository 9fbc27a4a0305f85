"""Options that several commands share, and what they give."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from bridge.config import Settings, load

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="BRIDGE_CONFIG", metavar="FILE", help="Configuration file (YAML)."),
]
EnvironmentOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--environment", "-e", metavar="ENV", help="prod, demo or testnet."),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The bridge's HTTP endpoint; default: from the configuration."),
]


def settings_from(
    config: Path | None, environment: str | None, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Return the settings that the options, the file and the process's environment give together.

    Raises:
        ConfigError: as :func:`bridge.config.load`.
    """
    return load(config, os.environ, environment, overrides)
