"""Who imports whom in a tree of modules: arrows between rooms that do not go down, cycles, and late imports.

Nothing is imported: the files are parsed, so that a made-up tree in a folder is read like the package itself.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A module that another one names.

    Args:
        source: dotted name of the module that imports.
        target: of what it imports: a module where there is one of that name, else the module that holds the name.
        line: of the statement.
        is_late: whether it stands in a function, and so runs when that is called.
    """

    source: str
    target: str
    line: int
    is_late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Rooms at one height.

    Args:
        rooms: names below the package; "" is the package's own `__init__`.
        is_together: whether these rooms may import each other.
    """

    rooms: tuple[str, ...]
    is_together: bool = False


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file of the package in the folder `root`; an `__init__` has the name of its folder."""
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(root: Path) -> list[Import]:
    """All imports of all modules of the package in the folder `root`, except for type checkers alone.

    Raises:
        AssertionError: an import is relative.
    """
    files = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return [found for name, path in files.items() for found in _imports(name, path, files.keys())]


def _imports(name: str, path: Path, modules: Collection[str]) -> Iterator[Import]:
    for node, is_late in _statements(ast.parse(path.read_text()), False):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = dict.fromkeys(each if each in modules else str(node.module) for each in inner)
        else:
            targets = dict.fromkeys(alias.name for alias in node.names)
        yield from (Import(source=name, target=each, line=node.lineno, is_late=is_late) for each in targets)


def _statements(node: ast.AST, is_late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, is_late
        return
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    inner: Sequence[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        inner = node.orelse
    for child in inner:
        yield from _statements(child, is_late or is_function)


def own(imports: Sequence[Import]) -> list[Import]:
    """Those within the package."""
    return [i for i in imports if i.target.split(".")[0] == i.source.split(".")[0]]


def room(module: str) -> str:
    """The part of a package that a module lies in; "" is the package's own `__init__`."""
    return module.split(".")[1] if "." in module else ""


def arrows_up(imports: Sequence[Import], layers: Sequence[Layer]) -> set[tuple[str, str]]:
    """Pairs (module, what it imports) that do not go down from layer to layer, late imports among them.

    The package's own `__init__` may import anything: it is the face of all of it.

    Raises:
        AssertionError: a room is in no layer.
    """
    height = {name: i for i, layer in enumerate(layers) for name in layer.rooms}
    found = set()
    for each in own(imports):
        mine, theirs = room(each.source), room(each.target)
        assert {mine, theirs} <= height.keys(), f"{each.source} -> {each.target}: a room that is in no layer"
        is_level = height[mine] == height[theirs] and layers[height[mine]].is_together
        if mine not in ("", theirs) and not is_level and height[theirs] >= height[mine]:
            found.add((each.source, each.target))
    return found


def late_imports(imports: Sequence[Import], allowed: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Pairs (module, what it imports of its own package within a function) that no pattern of `allowed` covers."""
    late = {(i.source, i.target) for i in own(imports) if i.is_late}
    return {pair for pair in late if not any(all(map(fnmatchcase, pair, patterns)) for patterns in allowed)}


def unused(imports: Sequence[Import], allowed: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Patterns of `allowed` that cover no late import."""
    late = {(i.source, i.target) for i in own(imports) if i.is_late}
    return {patterns for patterns in allowed if not any(all(map(fnmatchcase, pair, patterns)) for pair in late)}


def cycles(imports: Sequence[Import]) -> list[tuple[str, ...]]:
    """Groups of modules each of which needs the others to have begun, each group sorted.

    Importing `a.b.c` runs the `__init__` of `a` and of `a.b` first, except where the importing module lies in them:
    there they run already. A module that imports from the `__init__` around it therefore counts, and one that imports
    a neighbour does not.
    """
    names = {i.source for i in imports}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for each in own(imports):
        if not each.is_late:
            parts = each.target.split(".")
            around = {".".join(parts[:n]) for n in range(1, len(parts))}
            needed = {p for p in around if not f"{each.source}.".startswith(f"{p}.")} | {each.target}
            edges[each.source] |= (needed & names) - {each.source}
    return sorted(tuple(sorted(group)) for group in _components(edges) if len(group) > 1)


def _components(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Strongly connected components: the modules that a module reaches and that reach it."""
    forward = {name: _reached(name, edges.__getitem__) for name in edges}
    groups = {frozenset(other for other in forward[name] if name in forward[other]) for name in edges}
    return [set(group) for group in groups]


def _reached(start: str, following: Callable[[str], Collection[str]]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        fresh = [name for name in following(waiting.pop()) if name not in found]
        found.update(fresh)
        waiting += fresh
    return found
