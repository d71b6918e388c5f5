"""The command `init`: a study file for somebody's data, or one of the examples, in the working folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from subsettune.config import must
from subsettune.errors import ConfigError, StorageError


def init_study(options: argparse.Namespace) -> int:
    """Write a study file that runs as it is, and say what to do next.

    Raises:
        ConfigError: neither data nor an example is named, or both are; or the file is there already.
        DataError: the data cannot be read, or it is not clear which column is the label.
        StorageError: the file cannot be written.
    """
    from subsettune.cli import drafts
    from subsettune.data import DataPaths
    from subsettune.report.patience import Patience
    from subsettune.study.preflight import resolve_study
    from subsettune.study.spec.definition import parse
    from subsettune.study.spec.yaml_core import parse_yaml

    if (options.source is None) == (options.example is None):
        raise ConfigError("init needs a file or folder of data, or --example digits. Give one of them.")
    if options.example is not None:
        target = _target(options.output or f"{options.example}.yaml")
        _write(target, drafts.EXAMPLES[options.example])
        return _done(target)
    target = _target(options.output or f"{_stem(options.source)}.yaml")
    places = DataPaths(data_root=options.data_root, cache=options.cache, download=not options.no_download)
    with Patience(sys.stderr, "reading data"):
        made = drafts.draft(options.source, options.label, places)
        content = drafts.text(made, str(target))
        resolve_study(parse(parse_yaml(content)[0]), places)
    _write(target, content)
    for key, reason in made.why.items():
        print(f"{key}: {made.data.get(key, made.metric)} ({reason})")
    return _done(target, options.data_root)


def _stem(source: str) -> str:
    name = Path(source).resolve().name
    for suffix in (".gz", ".csv", ".tsv", ".parquet", ".npz"):
        name = name.removesuffix(suffix)
    return name or "study"


def _target(output: str) -> Path:
    target = Path(output)
    if target.exists():
        advice = "Give --output another name, or remove the file."
        raise ConfigError(must("--output", "a file that is not there yet", str(target), advice))
    return target


def _write(target: Path, content: str) -> None:
    try:
        with target.open("x") as file:
            file.write(content)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}. Give --output another place.") from error


def _done(target: Path, root: str | None = None) -> int:
    file = shlex.quote(str(target)) + ("" if root is None else f" --data-root {shlex.quote(root)}")
    print(f"Wrote {target}. See what it would do: subsettune plan {file}; run it: subsettune tune {file}")
    return 0
