"""What is wrong with a configuration, in words: the key, what was found, what would be right."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key: the key's path, ``kafka.sasl_password``.
        text: what was found and what would be right; follows the key in the message.
    """

    key: str
    text: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.key}: {self.text}"


class Problems(ValueError):  # noqa: N818 - never leaves the models; pydantic wants a ValueError
    """Several problems found by one validator; each names its own key."""

    def __init__(self, found: Sequence[Problem]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(map(str, found)))

    @classmethod
    def raise_if(cls, problems: Iterable[Problem]) -> None:
        """Raise when there is a problem at all."""
        found = list(problems)
        if found:
            raise cls(found)


def refuse(found: object, expected: str) -> NoReturn:
    """Refuse one value.

    Raises:
        ValueError: what a pydantic validator has to raise; the key is added by :func:`told`.
    """
    raise ValueError(f"found {shown(found)}; expected {expected}")


def shown(value: object) -> str:
    """Return a value as it may stand in a message: short, and without the inside of a structure."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean x?)``, or nothing where no known word is near."""
    by_case = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.6)
    return f" (did you mean {by_case[found[0]]}?)" if found else ""


def told(error: ValidationError, model: type[BaseModel], variables: Mapping[str, str]) -> list[Problem]:
    """Translate pydantic's errors.

    Args:
        error: what validation raised.
        model: the model that was validated.
        variables: environment variable by the key it sets, for keys that came from one.
    """
    problems = []
    for detail in error.errors(include_url=False):
        for problem in _translated(detail, model):
            origin = next((v for k, v in variables.items() if problem.key.startswith(k)), None)
            problems.append(
                problem if origin is None else Problem(problem.key, f"{problem.text} (set by {origin})")
            )
    return problems


def _translated(detail: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    location = _clean(detail["loc"], model)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        prefix = path(location)
        for problem in cause.found:
            yield Problem(f"{prefix}.{problem.key}" if prefix else problem.key, problem.text)
    elif detail["type"] == "extra_forbidden":
        yield Problem(path(location), _unknown(location, model))
    else:
        yield Problem(path(location), _sentence(detail, cause, secret=_is_secret(location, model)))


def _unknown(location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """Say which key was meant. The value stays out: a mistyped password key still holds a password."""
    word = str(location[-1])
    here = _model_at(location[:-1], model)
    known = list(here.model_fields) if here is not None else []
    hint = nearest(word, known)
    if not hint:
        elsewhere = [key for key in keys(model) if key.rpartition(".")[2] == word]
        hint = f" (did you mean {elsewhere[0]}?)" if elsewhere else ""
    return f"is not a known key{hint}" if hint else f"is not a known key; expected one of {', '.join(known)}"


def _sentence(detail: ErrorDetails, cause: object, *, secret: bool) -> str:
    if isinstance(cause, ValueError):
        return str(cause)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "is missing; add it"
    found = "a value" if secret else shown(detail["input"])
    if kind == "literal_error":
        return (
            f"found {found}; expected one of {_choices(context['expected'], detail['input'], secret=secret)}"
        )
    if kind.startswith("model_") or kind == "dict_type":
        # Text in the place of a section may well be a secret that slipped one level up.
        found = "text" if isinstance(detail["input"], str) else found
    expected = {
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than_equal": f"at most {context.get('le')}",
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "int_parsing_size": "a smaller number",
        "float_parsing": "a number",
        "float_type": "a number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text, in quotes where it looks like something else",
        "path_type": "a path",
        "tuple_type": "a list",
        "model_type": "a mapping of keys and values",
        "model_attributes_type": "a mapping of keys and values",
    }.get(kind)
    return f"found {found}; expected {expected or detail['msg'].lower()}"


def _choices(expected: str, found: object, *, secret: bool) -> str:
    words = expected.replace("'", "").replace(" or ", ", ").split(", ")
    hint = nearest(found, words) if isinstance(found, str) and not secret else ""
    return ", ".join(words) + hint


def path(location: Sequence[str | int]) -> str:
    """Return ``subscriptions[0].channels[2]``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every key a variable can set: ``kafka.client``; a list is one key."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from keys(section, f"{prefix}{name}.")


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every section, those within sections too: ``endpoints``, ``endpoints.spot``."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield prefix + name
            yield from sections(section, f"{prefix}{name}.")


def section_of(annotation: object) -> type[BaseModel] | None:
    """Return the model of a section, or None for a plain key or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _model_at(location: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) if here is not None else None
        here = next(_models_in(field.annotation), None) if field is not None else None
    return here


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    section = section_of(annotation)
    if section is not None:
        yield section
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _is_secret(location: Sequence[str | int], model: type[BaseModel]) -> bool:
    here = _model_at(location[:-1], model)
    field = here.model_fields.get(str(location[-1])) if here is not None and location else None
    if field is None:
        return False
    inside = typing.get_args(field.annotation) or (field.annotation,)
    return SecretStr in inside


def _clean(location: Sequence[str | int], model: type[BaseModel]) -> tuple[str | int, ...]:
    """Leave out what pydantic adds for the members of a union: only keys and positions stay."""
    kept: list[str | int] = []
    for number, part in enumerate(location, start=1):
        here = _model_at(kept, model)
        if isinstance(part, int) or number == len(location) or here is None or part in here.model_fields:
            kept.append(part)
    return tuple(kept)
