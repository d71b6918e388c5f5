"""Writes lists that the code has anyway: commands into docs/studies.md, benchmarks into docs/benchmarks.md.

python docs/scripts/lists.py
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator

from doc_pages import PAGES, ROOT, table, write_between

from subsettune.cli.parser import make_parser

NAMES = "list_names"  # commands that list what a study file may name share a row


def main() -> None:
    """Write both pages."""
    write_between(PAGES / "studies.md", "commands", commands())
    write_between(PAGES / "benchmarks.md", "scripts", scripts())


def commands() -> str:
    """A row for each command, by what `--help` says."""
    naming = [name for name, sub in _subparsers() if sub.get_default("command").__name__ == NAMES]
    rows = [_row(name, sub) for name, sub in _subparsers() if name not in naming]
    listed = ", ".join(f"`{name}`" for name in naming)
    rows.append((f"`subsettune` {listed}", "What a study file may name.", f"`subsettune {naming[0]}`"))
    return table(("command", "what it does", "example"), rows)


def _subparsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Commands by name, each once, those of a group as `cluster check`."""
    for name, sub in _choices(make_parser()).items():
        inner = _choices(sub)
        yield from ((f"{name} {more}", one) for more, one in inner.items()) if inner else ((name, sub),)


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Subcommands; a former name of one is left out."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found = {name: sub for group in groups for name, sub in group.choices.items()}
    return {name: sub for name, sub in found.items() if sub.prog.endswith(f" {name}")}


def _row(name: str, sub: argparse.ArgumentParser) -> tuple[str, str, str]:
    arguments = [str(action.metavar or action.dest.upper()) for action in sub._actions if not action.option_strings]
    about = " ".join((sub.description or "").split())
    example = ((sub.epilog or "").splitlines() or [""])[-1].strip().removeprefix("example: ")
    return f"`{' '.join(('subsettune', name, *arguments))}`", about, f"`{example}`"


def scripts() -> str:
    """A row for each benchmark, by the first line of its docstring."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "__main__" in text:
            about = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
            rows.append((f"[`{path.name}`](../benchmarks/{path.name})", about))
    return table(("script", "question"), rows)


if __name__ == "__main__":
    main()
