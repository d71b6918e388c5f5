"""The command `init`: a study file for somebody's data, or one of the examples, in the working folder."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subsettune.cli.set_keys import value_of
from subsettune.config import must
from subsettune.errors import ConfigError, DataError, StorageError, did_you_mean

if TYPE_CHECKING:
    from subsettune.cli import drafts
    from subsettune.data import DataPaths


def init_study(options: argparse.Namespace) -> int:
    """Write a study file that runs as it is, and say what to do next.

    Raises:
        ConfigError: neither data nor an example is named, or both are; the metric is none of ours; or the file is
            there already.
        DataError: the data cannot be read, or it is not clear which column is the label.
        StorageError: the file cannot be written.
    """
    from subsettune.cli import drafts
    from subsettune.data import DataPaths
    from subsettune.registry import METRICS
    from subsettune.report.patience import Patience
    from subsettune.study.preflight import resolve_study
    from subsettune.study.spec.definition import parse
    from subsettune.study.spec.yaml_core import parse_yaml

    if (options.source is None) == (options.example is None):
        raise ConfigError("init needs a file or folder of data, or --example digits. Give one of them.")
    if options.metric not in (None, *METRICS):
        guess = did_you_mean(options.metric, METRICS)
        raise ConfigError(must("--metric", f"one of {', '.join(METRICS)}", options.metric, guess))
    if options.example is not None:
        return _write_example(options)
    target = _target(options.output or f"{_stem(options.source)}.yaml")
    places = DataPaths(data_root=options.data_root, cache=options.cache, download=not options.no_download)
    with Patience(sys.stderr, "reading data"):
        asked = drafts.Asked(label=options.label, metric=options.metric, data=_keys(options.set))
        made = _drafted(options.source, asked, places)
        content = drafts.text(made, str(target))
        resolve_study(parse(parse_yaml(content)[0]), places)
    _write(target, content)
    for key, reason in made.why.items():
        print(f"{key}: {made.data.get(key, made.metric)} ({reason})")
    return _done(target, options.data_root)


FOLDER = Path(__file__).parent / "examples"  # of studies that are shipped: search_spaces/ of a checkout
HERE = "search_spaces/"  # as commands in their comments name them


def examples() -> tuple[str, ...]:
    """Names of the studies that are shipped, those of the digits first: nothing has to be fetched for them."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: not name.startswith("digits")))


def _write_example(options: argparse.Namespace) -> int:
    from subsettune.bundle.paths import is_path
    from subsettune.study.spec.definition import parse
    from subsettune.study.spec.yaml_core import parse_yaml

    target = _target(options.output or f"{options.example}.yaml")
    content = (FOLDER / f"{options.example}.yaml").read_text(encoding="utf-8")
    task = parse(parse_yaml(content)[0]).task
    program = _target(f"{options.example}.py") if task.is_own else None
    _write(target, content.replace(f"{HERE}{options.example}.yaml", shlex.quote(str(target))).replace(HERE, ""))
    if program is not None:
        _write(program, (FOLDER / program.name).read_text(encoding="utf-8"))
    needs_files = not task.is_own and is_path(task.data.source) and options.data_root is None
    if needs_files:
        print("Its first lines say where the data come from; DIR is the folder that you keep them in.")
    return _done(target, "DIR" if needs_files else options.data_root)


LISTS = ("features", "categorical", "exclude")  # keys that hold names of columns
LEFT = ("categorical", "exclude")  # those of them that a refusal offers for the column that it is about
COLUMN = re.compile(r"""column ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
KEY = re.compile(r"""(?<![\w/'"])(?<!of )data\.(\w+)(?:: (\{[^}]*\}|\[[^\]]*\]))?""")  # and no file of such a name


def _drafted(source: str, asked: drafts.Asked, places: DataPaths) -> drafts.Draft:
    """A draft; a refusal that names a key of a study says how it is given here, where there is no study yet."""
    from subsettune.cli import drafts
    from subsettune.data.columns import listed
    from subsettune.task import Data

    try:
        return drafts.draft(source, asked, places)
    except DataError as error:
        found = {key: value for key, value in KEY.findall(str(error)) if key in Data.__dataclass_fields__}
        found.pop("source", None)
        if (name := _column_in(str(error))) is not None:
            named = {key: listed([*asked.data.get(key, ()), name]) for key in LEFT}  # a later --set is for an earlier
            found = {key: value or named.get(key, "") for key, value in found.items()}
        ways = ["--label NAME" if key == "label" else _option(key, value) for key, value in list(found.items())[:2]]
        raise (DataError(f"{error} Here: {' or '.join(ways)}.") if ways else error) from None


def _column_in(message: str) -> str | None:
    """The column that a refusal is about; None where it names none, or several."""
    names = {ast.literal_eval(quoted) for quoted in COLUMN.findall(message)}
    return names.pop() if len(names) == 1 else None


def _option(key: str, value: str) -> str:
    """How a key is given: in quotation marks that a shell keeps together."""
    text = f"data.{key}={value or ('[NAME]' if key in LISTS else '...')}"
    return f'--set "{text}"' if "'" in text and '"' not in text else f"--set {shlex.quote(text)}"


def _keys(given: Sequence[str]) -> dict[str, Any]:
    """Keys of `data`, of KEY=VALUE with dots between those within each other.

    Raises:
        ConfigError: one is no key of `data`, or has no value.
    """
    from subsettune.task import Data

    found: dict[str, Any] = {}
    for each in given:
        key, is_given, value = each.partition("=")
        first, *path = key.split(".")
        place: Any = found
        for name in path[:-1]:
            place = place.setdefault(name, {}) if isinstance(place, dict) else None
        is_known = first == "data" and bool(path) and path[0] in Data.__dataclass_fields__ and path[0] != "source"
        if not is_known or not is_given or not isinstance(place, dict):
            advice = "Write it as --set data.csv.encoding=latin-1."
            raise ConfigError(must("--set", "KEY=VALUE with a key of data", each, advice))
        plain = value_of(value)
        is_name = path[0] in LISTS and not isinstance(plain, list)
        place[path[-1]] = [plain if isinstance(plain, str) else value] if is_name else plain
    return found


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
