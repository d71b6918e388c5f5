"""Study files: YAML 1.2 in, a study or all its mistakes out, each with its line; and a study as YAML.

YAML 1.2 is what people expect: `5e-4` is a number, `no` and `on` are texts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from subsettune import config, former_names
from subsettune.errors import ConfigError
from subsettune.study.spec.definition import Study, parse
from subsettune.study.spec.yaml_core import parse_yaml

Lines = Mapping[tuple[str, ...], int]


def read(path: str | Path, change: Callable[[Any], Any] | None = None) -> Study:
    """Read a study file.

    Args:
        path: of the file.
        change: gives what stands in place of what the file holds, as if it had been edited.

    Raises:
        ConfigError: the file is missing, is not YAML, or has mistakes; each is named with its line.
    """
    path = Path(path)
    raw, lines = read_yaml(path)
    if raw is None:
        raise ConfigError("the file is empty. Write the keys task, space and study.", str(path))
    former_names.say(raw, str(path))
    if change is not None:
        raw, before = change(raw), raw
        lines = {key: line for key, line in lines.items() if _at(raw, key) == _at(before, key)}
    try:
        return parse(raw)
    except ConfigError as error:
        raise located(error, str(path), lines) from error


def _at(raw: Any, path: Sequence[str]) -> Any:
    """What stands at a path of keys; None for nothing."""
    for key in path:
        if isinstance(raw, list):
            raw = raw[int(key)] if key.isdecimal() and int(key) < len(raw) else None
        else:
            raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def to_yaml(study: Study) -> str:
    """The resolved study as YAML, every default written out."""
    writer = YAML(typ="rt", pure=True)
    writer.width = 1000
    buffer = io.StringIO()
    writer.dump(config.to_plain(study), buffer)
    return buffer.getvalue()


def located(error: ConfigError, source: str | None, lines: Lines) -> ConfigError:
    """The same mistakes with the file and the lines that they stand in."""
    return ConfigError(tuple(config.with_line(m, lines) for m in error.mistakes), source)


def read_yaml(path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Read YAML 1.2 (where 5e-4 is a number) into plain data and the line of every key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, has a key twice, or what no study can have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{path} cannot be read: {reason}. Give the path of a file that is there.") from error
    try:
        return parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(error.mistakes, str(path)) from error
