"""Checks a file for Ray's cluster launcher or a RayJob for KubeRay, offline: every mistake, with its place and remedy.

Ray's own schema and checks come first. They let much pass that fails an hour later, on machines that are paid for:
that is checked here. Nothing is connected to, and nothing is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from subsettune import config
from subsettune.cluster import launcher, rayjob
from subsettune.errors import ConfigError, Mistake
from subsettune.study.spec.yaml_file import located, read_yaml

FILE = "cluster.yaml"  # that is looked at where none is named
PLACEHOLDER = "CHANGE"  # in values of the shipped files that only their user knows
Rules = Callable[[Mapping[str, Any], Path], Iterator[Mistake]]
KINDS: Mapping[str, Rules] = {"launcher file": launcher.mistakes, "RayJob": rayjob.mistakes}


def check(path: str | Path) -> str:
    """Check a file.

    Args:
        path: of a launcher file or a RayJob, which are told apart by the key `kind`.

    Returns:
        what it is: `launcher file` or `RayJob`.

    Raises:
        ConfigError: it cannot be read, or has mistakes; each is named with its line.
    """
    path = Path(path)
    raw, lines = read_yaml(path)
    if not isinstance(raw, Mapping):
        message = "the file must be a launcher file or a RayJob. See docs/cluster.md for one of each."
        raise ConfigError(message, str(path))
    kind = "RayJob" if "kind" in raw else "launcher file"
    found = list(dict.fromkeys([*KINDS[kind](raw, path.parent), *_open_places(raw)]))
    if found:
        raise located(ConfigError(tuple(sorted(found, key=lambda m: lines.get(m.path, 0)))), str(path), lines)
    return kind


def _open_places(value: Any, path: tuple[str, ...] = ()) -> Iterator[Mistake]:
    """Values that are still to be filled in."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _open_places(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _open_places(inner, (*path, str(number)))
    elif isinstance(value, str) and PLACEHOLDER in value:
        shown = next(word for word in value.split() if PLACEHOLDER in word)
        advice = "The comment beside it says what belongs there."
        name = next(part for part in reversed(path) if not part.isdigit())
        yield Mistake(path, config.must(name, "filled in", shown, advice))
