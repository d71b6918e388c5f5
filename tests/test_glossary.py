"""The glossary stays short, and the README leads to it."""

from __future__ import annotations

import re

from places import ROOT

ROW = re.compile(r"^\| ([A-Za-z ]+) \| (.+) \|$", re.MULTILINE)


def test_at_most_25_words_each_in_a_line_or_two() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = {word: meaning for word, meaning in ROW.findall(text) if word != "word"}
    assert 10 <= len(words) <= 25
    assert len(words) == len(ROW.findall(text)) - 1  # none twice
    assert all(meaning.endswith(".") and len(meaning) <= 240 for meaning in words.values())


def test_the_readme_leads_to_it() -> None:
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
