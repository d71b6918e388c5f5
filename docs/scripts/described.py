"""What the code says of its own settings: fields of frozen dataclasses with type, rule, default and meaning.

Everything comes from where the program itself takes it: annotations and rules from the fields, meanings from the
section `Args` of the docstrings.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict

_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")
_ELSEWHERE = ("see `", "likewise.")  # a base class has the meaning
_TYPES = {int: "whole number", float: "number", str: "text", bool: "true, false", bytes: "bytes"}
REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key of a file.

    Args:
        name: the key.
        values: what it may be, in words.
        default: as it is written in a file; `required` where there is none.
        meaning: in a sentence or several.
        part: the class of its own keys, where it is a mapping of known ones.
    """

    name: str
    values: str
    default: str
    meaning: str
    part: type | None = None


def settings_of(cls: type) -> Iterator[Setting]:
    """All fields of a dataclass, in the order of the class.

    Raises:
        AssertionError: a field that no docstring of the class and its bases explains.
    """
    hints, meanings = typing.get_type_hints(cls), meanings_of(cls)
    for field in dataclasses.fields(cls):
        assert meanings.get(field.name), f"{cls.__name__}.{field.name} has no line under Args of its docstring"
        rule = field.metadata.get("rule")
        yield Setting(
            name=field.name,
            values=_values(hints[field.name], "" if rule is None else rule.text),
            default=default_of(field),
            meaning=meanings[field.name],
            part=part_of(hints[field.name]),
        )


def options_of(function: Any) -> Iterator[Setting]:
    """The keyword-only arguments of a function, such as the builder of a network."""
    hints, meanings = typing.get_type_hints(function), meanings_of(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            name = parameter.name
            yield Setting(
                name=name,
                values=_values(hints[name], ""),
                default=written(parameter.default),
                meaning=meanings[name],
            )


def meanings_of(owner: Any) -> Mapping[str, str]:
    """Name and meaning of each argument that the docstring explains, those of base classes too."""
    found: dict[str, str] = {}
    for one in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        own = one.__dict__.get("__doc__") if inspect.isclass(one) else one.__doc__
        for name, meaning in _entries(inspect.cleandoc(own or "")):
            if found.get(name, _ELSEWHERE[0]).startswith(_ELSEWHERE):
                found[name] = meaning
    return found


def first_sentence(owner: Any) -> str:
    """How its docstring begins."""
    return (inspect.getdoc(owner) or "").partition("\n\n")[0].replace("\n", " ")


def written(value: Any) -> str:
    """A value as it is written in a study file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value or '""'
    plain = config.to_plain(value)
    if isinstance(plain, Mapping):
        return "{" + ", ".join(f"{key}: {written(inner)}" for key, inner in plain.items()) + "}"
    if isinstance(plain, list):
        return "[" + ", ".join(map(written, plain)) + "]"
    return f"{plain:g}" if isinstance(plain, float) else str(plain)


def _entries(doc: str) -> Iterator[tuple[str, str]]:
    """Names and texts under `Args:`, whose lines stand four spaces in, and deeper where a text goes on."""
    inside, name = False, ""
    lines: list[str] = []
    for line in [*doc.splitlines(), "end"]:
        entry = _ENTRY.match(line) if inside else None
        is_over = inside and bool(line.strip()) and not line.startswith(" ")
        if name and (entry or is_over):
            yield name, " ".join(" ".join(lines).split())
            name, lines = "", []
        if entry:
            name, lines = entry[1], [entry[2]]
        elif name:
            lines.append(line.strip())
        inside = (inside and not is_over) or line.startswith("Args:")


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default of a field as it is written in a file; `required` where there is none."""
    if field.default is not dataclasses.MISSING:
        return written(field.default)
    return written(field.default_factory()) if field.default_factory is not dataclasses.MISSING else REQUIRED


def _values(hint: Any, rule: str) -> str:
    """A type and a rule in words: `number, positive`."""
    words = _type(hint)
    if rule and words in ("text", "text or null"):
        return rule + words.removeprefix("text").replace(" or", ", or")
    return f"{words}, {rule}" if rule else words


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _type(one) for one in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple or (origin is not None and "Sequence" in str(origin)):
        return f"list of {_plural(_type(arguments[0]))}"
    if hint is FrozenDict or dataclasses.is_dataclass(hint):
        return "mapping"
    return _TYPES[hint]


def _plural(words: str) -> str:
    return f"{words}s"


def part_of(hint: Any) -> type | None:
    """The dataclass that a hint holds, if it does."""
    options = typing.get_args(hint) or (hint,)
    return next((one for one in options if isinstance(one, type) and dataclasses.is_dataclass(one)), None)
