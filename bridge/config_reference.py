"""The reference page of the configuration, made from the models."""

from __future__ import annotations

import inspect
import json
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bridge.config import Account, Settings, Subscription
from bridge.config_problems import section_of
from bridge.config_sources import ENVIRONMENT_VARIABLE, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

_NAMES: dict[type, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    SecretStr: "secret text",
    Path: "path",
}

_INTRODUCTION = f"""\
# Configuration

One YAML file, given with `--config` or `BRIDGE_CONFIG`. Every key can also be set by an environment variable:
`{PREFIX}<KEY>`, or `{PREFIX}<SECTION>__<KEY>` inside a section, with lists and whole sections as YAML or
JSON; a variable wins over the file, an empty one counts as not set, and `null` is nothing. Unknown keys and
variables are errors. `environment` may come from the file, `{PREFIX}ENVIRONMENT`, `--environment` or
`{ENVIRONMENT_VARIABLE}`; where several say it, they must agree.

`binance-bridge config check` checks a file without connecting, `config show` prints the settings in force
with secrets masked, `config schema` prints a JSON schema. An example is `examples/bridge.yaml`.

This page is made from the models: `binance-bridge config reference`.
"""


def reference_page() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION, _section("Top level", "", Settings)]
    parts += [_section(f"`{name}`", name, model) for name, model in _sections("", Settings)]
    parts.append(_section("`subscriptions[]`", None, Subscription))
    parts.append(_section("`accounts[]`", None, Account))
    return "\n".join(part for part in parts if part)


def _sections(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            yield prefix + name, inner
            yield from _sections(f"{prefix}{name}.", inner)


def _section(title: str, prefix: str | None, model: type[BaseModel]) -> str:
    """Return one heading with its table.

    Args:
        title: the heading.
        prefix: path of the section's keys, "" at the top, None where no variable sets a single key (lists).
        model: what to describe.
    """
    fields = {
        name: field for name, field in model.model_fields.items() if section_of(field.annotation) is None
    }
    lines = [f"## {title}", ""]
    if model is not Settings:
        lines += [inspect.cleandoc(model.__doc__ or ""), ""]
    if fields:
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        lines.append(f"| `{name}` | {_kind(field)} | {_default(field)} | {field.description} |")
    if fields and prefix is not None:
        key = ".".join(filter(None, [prefix, next(iter(fields))]))
        lines += ["", f"For example `{PREFIX}{key.replace('.', '__').upper()}` sets `{key}`."]
    return "\n".join(lines).rstrip() + "\n"


def _kind(field: FieldInfo) -> str:
    return ", ".join([_type(field.annotation), *_limits(field.metadata)])


def _type(annotation: object) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin is tuple:
        return "list"
    if origin is typing.Annotated:
        return ", ".join([_type(inside[0]), *_limits(inside[1:])])
    if inside:
        return " or ".join(_type(member) for member in inside if member is not type(None))
    return _NAMES[annotation] if isinstance(annotation, type) else "text"


def _limits(metadata: Sequence[object]) -> list[str]:
    found = []
    for item in metadata:
        if isinstance(item, Ge):
            found.append(f"at least {item.ge:,}")
        elif isinstance(item, Le):
            found.append(f"at most {item.le:,}")
        elif isinstance(item, FieldInfo):
            found += _limits(item.metadata)
    return found


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the host name"
    if field.default is PydanticUndefined:
        return "**required**"
    value = field.default
    return "none" if value in (None, ()) else f"`{value if isinstance(value, str) else json.dumps(value)}`"
