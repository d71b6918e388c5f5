"""What mkdocs does beside: pages that lie at the top of the repository, and files that pages link to.

Markdown is written for a reader of the repository: `](../examples/torch_loop.py)` of a page, `](docs/data.md)` of
README.md. On the site the same links lead to copies below `source/`, and to the other pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the top, and what any page links to outside docs/."""
    for name, page in TOP.items():
        files.append(File.generated(config, page, content=at_the_top((ROOT / name).read_text(encoding="utf-8"))))
    for path in sorted(
        {target for file in list(files.documentation_pages()) for target in outside(file.content_string)}
    ):
        files.append(File.generated(config, f"source/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links that leave docs/ lead to the copies."""
    return LINK.sub(lambda match: leads_to(match[1]), markdown)


def at_the_top(text: str) -> str:
    """A page of the top of the repository with its links as they are within docs/."""
    return LINK.sub(
        lambda match: match[1].removeprefix("docs/") if match[1].startswith("docs/") else f"../{match[1]}", text
    )


def leads_to(target: str) -> str:
    """Where a link of a page in docs/ leads on the site."""
    if not target.startswith("../"):
        return target
    path = target.removeprefix("../")
    return TOP.get(path, f"source/{path}")


def outside(text: str) -> set[str]:
    """Files of the repository that a page links to and that are no pages."""
    found = {match[1].removeprefix("../") for match in LINK.finditer(text) if match[1].startswith("../")}
    return {path for path in found - set(TOP) if (ROOT / path).is_file()}
