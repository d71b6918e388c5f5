"""The text of a report's page, without what its markup adds."""

from __future__ import annotations

import re


def without_scripts(page: str) -> str:
    """The page's markup."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def unlinked(page: str) -> str:
    """The page without links to what a word means, and with plain spaces: sentences in one piece."""
    return re.sub(r'<a class="term"[^>]*>(.*?)</a>', r"\1", page).replace("&nbsp;", " ")


def section(page: str, name: str) -> str:
    """A section, from behind its heading to the next."""
    return unlinked(page).partition(f'<h2 id="{name}">')[2].partition("<h2 ")[0]
