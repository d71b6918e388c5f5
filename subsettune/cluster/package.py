"""What of the working folder goes to a cluster with a job, by Ray's own rules, and what a study needs that does not.

Ray packs a folder without what `.gitignore` and `.rayignore` name, and tells that it is too large once it has tried.
Here it is weighed beforehand, and what the study names is looked for in it: a file that stays behind would be missed by
a job that has waited for its turn.
"""

from __future__ import annotations

import importlib.machinery
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private.runtime_env import packaging

from subsettune import config
from subsettune.config import must
from subsettune.errors import ConfigError, Mistake, StorageError, did_you_mean
from subsettune.registry import DATASETS
from subsettune.study.importable import own_code
from subsettune.study.spec.definition import Study
from subsettune.text import bytes_words
from subsettune.user_code import INSTALLED, OURS, files_beside

LIMIT_BYTES = min(ray_constants.DASHBOARD_CLIENT_MAX_SIZE, packaging.GCS_STORAGE_MAX_SIZE)  # of a job server's uploads
MOST_FILES = 20_000  # that are looked at: who is in the wrong folder is told soon
NUM_LARGEST = 5
ENTRY_BYTES, END_BYTES = 76, 22  # of a ZIP file beside names and contents: two headers a file, and the end record
KEEP_GITIGNORED = "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"  # Ray's: 1 packs what .gitignore names, too
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What goes along.

    Args:
        folder: absolute; the job's working folder is a copy of it.
        sizes: bytes of each file, by its absolute path.
    """

    folder: Path
    sizes: Mapping[Path, int]

    @property
    def num_bytes(self) -> int:
        """Size of the ZIP file, in which Ray stores files as they are."""
        names = sum(2 * len(os.fsencode(path.relative_to(self.folder))) for path in self.sizes)
        return sum(self.sizes.values()) + names + ENTRY_BYTES * len(self.sizes) + END_BYTES


def weigh(folder: Path) -> Package:
    """What Ray would pack of a folder.

    Args:
        folder: to be packed.

    Raises:
        ConfigError: it is larger than what a job server takes; the largest files are named.
        StorageError: something in it cannot be read.
    """
    sizes: dict[Path, int] = {}

    def take(path: Path) -> None:
        if path.is_file():
            sizes[path] = path.stat().st_size
            if len(sizes) > MOST_FILES:
                raise _TooManyError

    silent = logging.Logger("packing")  # Ray logs what it leaves out, and what stops it
    silent.addHandler(logging.NullHandler())
    excludes = [packaging._get_excludes(folder, ray_constants.get_runtime_env_default_excludes())]
    is_read = os.environ.get(KEEP_GITIGNORED, "0") != "1"
    try:
        packaging._dir_travel(folder, excludes, take, include_gitignore=is_read, logger=silent)
    except _TooManyError:
        raise ConfigError(_too_large(Package(folder=folder, sizes=sizes), f"more than {MOST_FILES:,} files")) from None
    except OSError as error:
        advice = "Make it readable, or name it in .rayignore."
        raise StorageError(f"{error.filename or folder} cannot be packed: {error.strerror}. {advice}") from error
    made = Package(folder=folder, sizes=sizes)
    if made.num_bytes >= LIMIT_BYTES:
        raise ConfigError(_too_large(made, f"{bytes_words(made.num_bytes)} in {len(sizes):,} files"))
    return made


class _TooManyError(Exception):
    """There are more files than anybody means to send."""


def _too_large(package: Package, got: str) -> str:
    largest = sorted(package.sizes, key=lambda path: package.sizes[path], reverse=True)[:NUM_LARGEST]
    shown = ", ".join(f"{path.relative_to(package.folder)} ({bytes_words(package.sizes[path])})" for path in largest)
    rule = f"smaller than {bytes_words(LIMIT_BYTES)}, what a job server takes"
    return (
        f"the folder {package.folder} must be {rule}, got {got}. The largest: {shown}. Name what the study does not "
        "need in .rayignore, give large data by --data-root, a folder that all nodes have, or begin in another folder."
    )


def check_package(package: Package, file: str, study: Study, data_root: str | None) -> list[str]:
    """Refuse a study that names what would stay behind.

    Args:
        package: what goes along.
        file: of the study.
        study: in it.
        data_root: on the nodes: what lies below it is not looked for here.

    Returns:
        what cannot be told here, in sentences: modules of elsewhere, which the nodes must have.

    Raises:
        ConfigError: everything that stays behind, or is not there at all.
    """
    mistakes = list(_stays(package, (), "the study file", Path(file)))
    for key, name, path in _named(study, data_root):
        mistakes += _stays(package, key, name, path)
    notes = []
    for target, dotted in own_code(study).items():
        key, module = tuple(dotted.split(".")), target.partition(":")[0]
        where = _file_of(module, package.folder)
        if where is None:
            mistakes.append(Mistake(key, _not_there(module, package)))
        elif _is_below(where, package.folder):
            root = package.folder
            for needed in (where, *files_beside(where, root, _package_of(module, where))):
                mistakes += _stays(package, key, f"module {needed.relative_to(root)}", needed)
        elif not set(INSTALLED) & set(where.parts):
            notes.append(
                f"module {module} lies in {where.parent}, outside of {package.folder}: the nodes must have it."
            )
    if mistakes:
        raise ConfigError(tuple(dict.fromkeys(mistakes)))
    return notes


def _named(study: Study, data_root: str | None) -> Iterator[tuple[Key, str, Path]]:
    """Files and folders that a study names, with their keys."""
    task = study.task
    source = task.data.source if task.has_data else ""
    if source and source not in DATASETS and not (":" in source and "/" not in source):
        root = Path(data_root or "").expanduser()
        path = root / Path(source).expanduser()
        if not root.is_absolute() or not _is_below(path, root):
            yield ("task", "data", "source"), f"data {source!r}", path
    for key, text in _texts(config.to_plain(study.task), ("task",)):
        words = shlex.split(text) if key == ("task", "train") and task.is_script else [text]
        for word in words:
            if word != source and _is_file(word):
                yield key, f"{key[-1]} {word!r}", Path(word).expanduser()
    for key, text in _texts(config.to_plain(study.space), ("space",)):
        if _is_file(text):
            yield key, f"{key[-1]} {text!r}", Path(text).expanduser()


def _texts(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, key)


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user: no name of a file
        return False


def _stays(package: Package, key: Key, name: str, path: Path) -> Iterator[Mistake]:
    """What is wrong with a file or folder that must go along."""
    path = Path(os.path.normpath(package.folder / path))
    if not path.exists():
        advice = "Give the path of what is there; of data that only the nodes have, the folder as --data-root."
        yield Mistake(
            key, must(name, f"in {package.folder}, which goes along", str(path), f"It is not there. {advice}")
        )
    elif not _is_below(path, package.folder):
        advice = "Put it there, or change to a folder that holds all; of data that all nodes have, give --data-root."
        yield Mistake(key, must(name, f"in {package.folder}, which goes along", str(path), advice))
    else:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        left = [file for file in files if file not in package.sizes]
        if left:
            shown = left[0].relative_to(package.folder)
            more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
            yield Mistake(
                key,
                f"{name} would stay behind: {shown}{more} is in .gitignore, .rayignore or among what Ray leaves out "
                f"({', '.join(ray_constants.get_runtime_env_default_excludes())}). Take it out of there; "
                f"{KEEP_GITIGNORED}=1 packs what .gitignore names.",
            )


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _file_of(module: str, folder: Path) -> Path | None:
    """Where a module would be imported from, without importing anything; None where it is not found."""
    parts = module.split(".")
    if parts[0] == OURS or parts[0] in sys.stdlib_module_names:
        return Path(INSTALLED[0])
    places, spec = [str(folder), *sys.path], None
    for at in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:at]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    assert spec is not None, "a module has a name"
    return Path(spec.origin) if spec.origin is not None else Path(places[0])


def _package_of(module: str, file: Path) -> str:
    """The package that its relative imports count from."""
    return module if file.name == "__init__.py" else module.rpartition(".")[0]


def _not_there(module: str, package: Package) -> str:
    known = [path.stem for path in package.sizes if path.parent == package.folder and path.suffix == ".py"]
    advice = (
        f"{did_you_mean(module, known)} Put its file there; one that only the nodes have, install here too.".strip()
    )
    return f"module {module} is neither in {package.folder}, which goes along, nor installed. {advice}"
