"""`--set KEY=VALUE`: keys of a study file, with dots between those within each other, given on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError

PARTS = ("task", "space", "study")


def value_of(text: str) -> Any:
    """What a value stands for: as it would in a study file; nothing at all is an empty text.

    Raises:
        ConfigError: a list, a mapping or a text in quotes that is no YAML.
    """
    from subsettune.study.spec.yaml_core import parse_yaml, scalar

    return parse_yaml(text)[0] if text.startswith(("[", "{", '"', "'")) else scalar(text)


def with_keys(raw: Any, given: Sequence[str]) -> Any:
    """What a study file holds, with some keys in place of its own, one after the other.

    Args:
        raw: plain data of the file.
        given: KEY=VALUE each.

    Raises:
        ConfigError: one is no KEY=VALUE, begins with no part of a study, or lies within what is no mapping.
    """
    for each in given:
        key, is_given, value = each.partition("=")
        if not is_given or key.partition(".")[0] not in PARTS:
            advice = "Write it as --set study.trials=8."
            raise ConfigError(must("--set", f"KEY=VALUE with a key below {', '.join(PARTS)}", each, advice))
        if isinstance(raw, Mapping):  # else the file is refused, whatever is set
            raw = _placed(raw, key, value_of(value), each)
    return raw


def _placed(place: Any, key: str, value: Any, each: str) -> Any:
    """A copy of a mapping with a key set, of which the first part may be a name with dots that is there.

    A key with nothing after it, as `study:`, is an empty mapping.
    """
    place = {} if place is None else place
    if not isinstance(place, Mapping):
        inner = each.partition("=")[0].removesuffix(f".{key}")
        advice = f"It holds no keys in the file: give it whole, as --set '{inner}={{name: VALUE}}'."
        raise ConfigError(must("--set", f"a key within a mapping, which {inner} is not", each, advice))
    words = key.split(".")
    names = [".".join(words[:length]) for length in range(len(words), 0, -1)]
    name = next((one for one in names if one in place), words[0])
    rest = key.removeprefix(name).removeprefix(".")
    inner = value if not rest else _placed(place.get(name), rest, value, each)
    return {**place, name: inner}
