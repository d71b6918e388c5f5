"""Study files: YAML 1.2 in, a study or all its mistakes out, each with its line; and a study as YAML.

YAML 1.2 is what people expect: `5e-4` is a number, `no` and `on` are texts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from subsettune import config, former_names
from subsettune.errors import ConfigError, Mistake
from subsettune.study.spec.definition import Study, parse

Lines = Mapping[tuple[str, ...], int]


def read(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has mistakes; each is named with its line.
    """
    path = Path(path)
    raw, lines = read_yaml(path)
    if raw is None:
        raise ConfigError("the file is empty. Write the keys task, space and study.", str(path))
    former_names.say(raw, str(path))
    try:
        return parse(raw)
    except ConfigError as error:
        raise located(error, str(path), lines) from error


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
        ConfigError: the file cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{path} cannot be read: {reason}. Give the path of a file that is there.") from error
    try:
        loaded = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError((Mistake((), f"not valid YAML: {_problem(error)}", line),), str(path)) from error
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {reason}. Save it as plain text.", str(path)) from error
    lines: dict[tuple[str, ...], int] = {}
    return _plain(loaded, (), lines), lines


def _problem(error: MarkedYAMLError) -> str:
    """What is wrong in one line, with the remedy for the two commonest slips."""
    problem = (error.problem or "it does not parse").strip().splitlines()[0]
    if "'\\t'" in problem:
        return "a tab stands where spaces must. Indent with spaces."
    if problem.startswith("found duplicate key"):
        return f"key {problem.split()[3]} is there twice. Remove one of them."
    return f"{problem}. Check brackets, quotes and indentation there."


def _plain(node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    """Strip ruamel's types, which remember comments and formats, and note where each key stands."""
    if isinstance(node, Mapping):
        for key in node:
            lines[(*path, str(key))] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, (*path, str(i)), lines) for i, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)
