"""Where settings come from: the YAML file, the environment, the command line; later ones win."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import yaml
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.types import EnvNoneType

from bridge.config_problems import Problem, keys, nearest, section_of, sections, shown
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

PREFIX = "BRIDGE_"
ENVIRONMENT_VARIABLE = "BINANCE_PRO_ENV"


class _Loader(yaml.SafeLoader):
    """YAML as it is, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Return the mapping of a node."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                mark = key_node.start_mark
                raise ConfigError(f"line {mark.line + 1}: {key}: is given twice; keep one of the two")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_file(path: Path) -> dict[str, object]:
    """Return the content of a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is no mapping. The file is not quoted:
            it may hold secrets.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise ConfigError(
            f"{path}: cannot be read, {reason}; give the path of a YAML file with --config"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text, at byte {error.start}; expected a YAML file") from None
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_yaml_problem(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            f"{path}: found {shown(content)} at the top; expected keys such as environment: prod"
        )
    return content


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Say where YAML is wrong without quoting what may be a secret."""
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    problem = getattr(error, "problem", None) or ""
    if "'\\t'" in problem:
        return f"{place}found a tab; indent with spaces"
    context = getattr(error, "context", None) or ""
    if "single document" in context:
        return f"{place}found a second document; keep one, without a line of --- between"
    if "alias" in context or "anchor" in context:
        return f"{place}found * or & that names nothing; put a value that begins with * or & in quotes"
    if isinstance(error, yaml.composer.ComposerError):
        return f"{place}found * or & that names nothing; put a value that begins with * or & in quotes"
    if isinstance(error, yaml.constructor.ConstructorError):
        return (
            f"{place}found a tag or key that YAML cannot use here; put a value that begins with ! in quotes"
        )
    return f"{place}is not YAML; expected lines such as key: value, indented with spaces"


class _Variables(EnvSettingsSource):
    """pydantic-settings' reading of ``BRIDGE_…`` variables, from a given mapping, and YAML for lists."""

    def __init__(self, model: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(model, env_parse_none_str="null")
        self.env_vars = {
            name.lower(): EnvNoneType(value) if value == "null" else value
            for name, value in environ.items()
            if value and name.startswith(PREFIX)
        }

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: object) -> object:  # noqa: ARG002
        """Decode a list or a section given in one variable."""
        try:
            return yaml.load(str(value), _Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ConfigError):
            name = f"{PREFIX}{field_name.upper()}"
            raise ConfigError(f"{field_name}: is not YAML or JSON; expected such text in {name}") from None


def variables(model: type[BaseSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that sets each key, for those that are set."""
    names = {key: _variable(key) for key in (*sections(model), *keys(model))}
    return {key: name for key, name in names.items() if environ.get(name)}


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


def _unknown_variables(model: type[BaseSettings], environ: Mapping[str, str]) -> list[Problem]:
    """Find variables that look like a setting and are none.

    Kubernetes puts its own into each pod for a service called ``bridge`` (``BRIDGE_SERVICE_HOST``,
    ``BRIDGE_PORT=tcp://…``), so a name without ``__`` is only refused where it is nearly a key.
    """
    known = {_variable(key) for key in keys(model)}
    whole = {_variable(section) for section in sections(model)}
    single = {name.replace("__", "_"): name for name in known if "__" in name}
    problems = []
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in known | whole or value.startswith("tcp://"):
            continue
        if "__" in name:
            problems.append(Problem(name, f"is not a known variable{nearest(name, known)}"))
        elif name in single:
            problems.append(Problem(name, f"is not a known variable (did you mean {single[name]}?)"))
    return problems


def gather(
    model: type[BaseSettings],
    path: Path | None,
    environ: Mapping[str, str],
    environment: str | None,
    overrides: Mapping[str, object],
) -> tuple[dict[str, object], list[Problem]]:
    """Return what the sources say together, and what is wrong with the sources themselves.

    Raises:
        ConfigError: the file cannot be read, or a variable cannot be decoded.
    """
    data = read_file(path) if path is not None else {}
    for name, field in model.model_fields.items():
        if data.get(name, ...) is None and section_of(field.annotation) is not None:
            del data[name]  # a section whose keys are all commented out
    sources = [
        (str(path), data.get("environment")),
        (f"{PREFIX}ENVIRONMENT", environ.get(f"{PREFIX}ENVIRONMENT")),
        ("--environment", environment),
        (ENVIRONMENT_VARIABLE, environ.get(ENVIRONMENT_VARIABLE)),
    ]
    said = [(source, value) for source, value in sources if value is not None and value != ""]
    problems = _unknown_variables(model, environ)
    if len({str(value) for _, value in said}) > 1:
        voices = " and ".join(f"{source} says {value}" for source, value in said)
        problems.append(Problem("environment", f"{voices}; make them agree"))
    elif not said:
        problems.append(
            Problem(
                "environment",
                "is missing; expected prod, demo or testnet in the file, by --environment or by "
                f"{ENVIRONMENT_VARIABLE}",
            )
        )
    data = merged(merged(data, _Variables(model, environ)()), overrides)
    # Without one, validation goes on with any, so that the other problems are found as well.
    data["environment"] = said[0][1] if said else "prod"
    return data, problems


def merged(low: Mapping[str, object], high: Mapping[str, object]) -> dict[str, object]:
    """Return both mappings as one; where both have a key, ``high`` has its way, section by section."""
    result = dict(low)
    for key, value in high.items():
        below = result.get(key)
        result[key] = (
            merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return result


def message(path: Path | None, problems: list[Problem]) -> str:
    """Return the one message that names every problem."""
    place = str(path) if path is not None else "configuration"
    lines = list(dict.fromkeys(map(str, problems)))
    if len(lines) == 1:
        return f"{place}: {lines[0]}"
    return "\n".join([f"{place}: {len(lines)} problems", *(f"  {line}" for line in lines)])
