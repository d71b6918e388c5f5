"""What the user's own code is made of: its modules, those of theirs that they import, and the files its options name.

Content hashes of it are part of the keys of runs, references and rankings, so that code which was edited starts over. A
module that is not there until it is named at run time, and a file that code opens without an option that names it, are
not seen: pass such a file as an option.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subsettune import config
from subsettune.digests import FileDigests

OURS = __package__.partition(".")[0]
INSTALLED = ("site-packages", "dist-packages")  # folders of packages, whose versions a study has on record
_FILES = FileDigests()  # of options, for this process


@dataclass(frozen=True, slots=True)
class _Module:
    """A module as it was when it was first asked for: a process runs what it has loaded, whatever becomes of the file.

    Args:
        spec: of the loaded module; reloading gives it another.
        digest: SHA-256 of its file.
        imports: names that it imports, or that may be attributes of what it imports, and the packages around them.
        is_own: whether it is the user's.
    """

    spec: object
    digest: str
    imports: tuple[str, ...]
    is_own: bool


_SEEN: dict[str, _Module] = {}
_EMPTY = hashlib.sha256(b"").hexdigest()  # of the __init__.py of most packages


def digest_of(name: str) -> str:
    """Content hash of a loaded module and of everything of the user's that it imports; "" where it has no file.

    A module that imports nothing of the user's has the SHA-256 of its file, and so has one of an installed package.
    Left out are the standard library, installed packages and this one, which have versions.
    """
    root = _module(name)
    if root is None:
        return ""
    found, waiting = {name: root.digest}, [*_parents(name), *root.imports] if root.is_own else []
    done = {name, *waiting}
    while waiting:
        one = waiting.pop()
        module = _module(one)
        if module is None or not module.is_own:
            continue
        if module.digest != _EMPTY:
            found[one] = module.digest
        waiting += sorted(set(module.imports) - done)
        done |= set(module.imports)
    return config.digest(found) if len(found) > 1 else root.digest


def digest_of_files(options: Mapping[str, Any]) -> list[list[str]]:
    """Name and content hash of each file that a text among options names; folders are not looked into.

    Raises:
        DataError: a file cannot be read.
    """
    names = sorted(set(_texts(options)))
    named = [name for name in names if _is_file(name)]
    return [[name, digest] for name, (_, digest) in zip(named, _FILES.of(map(_path, named)), strict=True)]


def digest_of_command(command: str, options: Mapping[str, Any]) -> str:
    """Content hash of a program of the user's: the files that its words and options name, and what scripts import.

    Raises:
        DataError: a file cannot be read.
    """
    words = shlex.split(command)
    scripts = [(_path(word), _path(word).parent, "") for word in words if word.endswith(".py") and _is_file(word)]
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""  # as Python has it, from the working folder
    here = Path.cwd()
    for file in _files_of(module, here) if module else ():
        package = module if file.name in ("__init__.py", "__main__.py") else module.rpartition(".")[0]
        scripts.append((file, here, package))
    beside = sorted({str(file) for script in scripts for file in files_beside(*script)})
    named = [str(file) for file, _, _ in scripts]
    return config.digest([words, digest_of_files({"words": [*words, *named], "options": options, "beside": beside})])


def files_beside(script: Path, root: Path, package: str) -> Iterator[Path]:
    """Files of the modules that a script or module imports from below a folder, and those that they import.

    Args:
        script: file to begin with.
        root: folder in which its imports are looked for.
        package: that the script is in, which relative imports count from.
    """
    waiting, done = [(script, package)], {script}
    while waiting:
        file, inside = waiting.pop()
        for name in _imports(file.read_bytes(), inside):
            for part in (*_parents(name), name):
                for found in _files_of(part, root):
                    if found not in done:
                        done.add(found)
                        is_package = found.name in ("__init__.py", "__main__.py")
                        waiting.append((found, part if is_package else part.rpartition(".")[0]))
                        yield found


def _files_of(name: str, root: Path) -> list[Path]:
    """Files of a module below a folder: of a package those that are run when it is imported, or started."""
    place = root.joinpath(*name.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py", place / "__main__.py")
    return [file for file in files if file.is_file()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _is_file(name: str) -> bool:
    try:
        return _path(name).is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user: no name of a file
        return False


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _module(name: str) -> _Module | None:
    """A module that has a file, loaded or not; None for a name that has none."""
    loaded = sys.modules.get(name)
    known = _SEEN.get(name)
    if known is not None and loaded is not None and known.spec is getattr(loaded, "__spec__", None):
        return known
    spec = getattr(loaded, "__spec__", None) if loaded is not None else _find(name)
    file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
    if file is None or not Path(file).is_file():
        return None
    content = Path(file).read_bytes()
    package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
    is_own = _is_own(name, Path(file))
    named = set(_imports(content, package)) if is_own and file.endswith(".py") else set()
    imports = tuple(sorted(part for each in named for part in (*_parents(each), each)))
    module = _Module(spec, hashlib.sha256(content).hexdigest(), imports, is_own)
    if loaded is not None:
        _SEEN[name] = module
    return module


def _is_own(name: str, file: Path) -> bool:
    top = _top(name)
    return top != OURS and top not in sys.stdlib_module_names and not set(INSTALLED) & set(file.parts)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _find(name: str) -> Any:
    """Where a module lies that is not loaded, without loading it or what is around it."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        around = getattr(sys.modules.get(parent), "__spec__", None) or _find(parent)
        places = getattr(around, "submodule_search_locations", None)
        return None if places is None else importlib.machinery.PathFinder.find_spec(name, list(places))
    except (ImportError, ValueError, AttributeError):
        return None


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Names in all import statements, wherever they stand, and in calls of `import_module`."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # found, and told, when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield from (name for name in (base, *(f"{base}.{alias.name}" for alias in node.names)) if base)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that a `from` names, counted from the package that it stands in."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
