"""Options of a component, drawn from what its class says of them: types, defaults, choices and rules.

A new component is covered as it is registered: nothing here names one.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from subsettune import config
from subsettune.errors import ConfigError

NUMBERS = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 3.0)  # ends of the usual ranges, and plain numbers within


def components(cls: type[Any], names: Sequence[str] = ()) -> st.SearchStrategy[Any]:
    """Components of a class, a frozen dataclass of its options; those that it refuses are not among them.

    Args:
        cls: the class.
        names: of layers, for options that take texts.
    """
    return options(cls, names).map(lambda given: _built(cls, given)).filter(lambda made: made is not None)


def options(cls: type[Any], names: Sequence[str] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Options of a class, each by itself as its rule has it; one that is left out has its default."""
    hints = typing.get_type_hints(cls)
    values = {field.name: _values(hints[field.name], field, names) for field in dataclasses.fields(cls) if field.init}
    return st.fixed_dictionaries({}, optional=values)


def _built(cls: type[Any], given: dict[str, Any]) -> Any:
    try:
        return config.build(cls, given)
    except ConfigError:  # options that do not fit each other
        return None


def _values(hint: Any, field: dataclasses.Field[Any], names: Sequence[str]) -> st.SearchStrategy[Any]:
    rule = field.metadata.get("rule")
    found = _of_type(hint, rule, names)
    if found is None:
        return st.just(field.default)
    return found if rule is None else found.filter(lambda value: value is None or rule.holds(value))


def _of_type(hint: Any, rule: config.Rule | None, names: Sequence[str]) -> st.SearchStrategy[Any] | None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, types.UnionType):
        found = [each for part in inner if (each := _of_type(part, rule, names)) is not None]
        return st.one_of(found) if found else None
    if origin is tuple and inner[0] is str and names:
        return st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)
    if hint is str:
        return _texts(rule, names)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(0, 12),
        float: st.sampled_from(NUMBERS) | st.floats(0, 4, width=32),
    }
    return plain.get(hint)


def _texts(rule: config.Rule | None, names: Sequence[str]) -> st.SearchStrategy[str] | None:
    """Words that the sentence of the rule names, where NAME stands for any of the names; and the names."""
    words = re.findall(r"[\w:]+", rule.text) if rule is not None else []
    found = [word.replace("NAME", name) for word in words for name in names if "NAME" in word]
    fitting = [word for word in (*words, *found, *names) if rule is None or rule.holds(word)]
    return st.sampled_from(fitting) if fitting else None
