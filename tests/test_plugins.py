from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from subsettune import plugins
from subsettune.errors import ConfigError


def function(a: int, b: int = 2) -> tuple[int, int]:
    return a, b


def keywords(**given: Any) -> dict[str, Any]:
    return given


class Outer:
    class Inner:
        pass


def test_dots_after_the_colon() -> None:
    assert (
        plugins.load_object("tests.test_plugins:Outer.Inner", "thing") is sys.modules["tests.test_plugins"].Outer.Inner
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere:x",
            "thing 'nowhere:x' cannot be imported: No module named 'nowhere'. Run from the folder that holds",
        ),
        (
            "tests.test_plugins:x",
            "thing 'tests.test_plugins:x' cannot be found: module 'tests.test_plugins' has no attribute 'x'. Check",
        ),
        (":x", "thing must be package.module:name, got ':x'. Name both the module and what is in it."),
        ("json:", "thing must be package.module:name, got 'json:'. Name both the module and what is in it."),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        plugins.load_object(name, "thing")


@pytest.mark.parametrize(("body", "reason"), [("x = 1 / 0", "ZeroDivisionError: division"), ("x = (", "SyntaxError: ")])
def test_a_module_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str) -> None:
    (tmp_path / "failing_module.py").write_text(body)
    monkeypatch.chdir(tmp_path)  # the current folder is looked in
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=f"^thing 'failing_module:x' cannot be imported: .* fails with {reason}"):
        plugins.load_object("failing_module:x", "thing")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that Python does not look into by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def test_files_named_like_pythons_own_take_no_ones_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module finds what lies beside it; what others import afterwards is what it was."""
    (here / "beside.py").write_text("value = 1")
    (here / "with_neighbour.py").write_text("from beside import value")
    (here / "tabnanny.py").write_text("raise RuntimeError")
    for name in ("beside", "with_neighbour", "tabnanny"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert plugins.load_object("with_neighbour:value", "thing") == 1
    assert sys.path[-1] == str(here)
    import tabnanny

    assert callable(tabnanny.check)


def test_a_file_that_python_does_not_take_is_named(here: Path) -> None:
    (here / "json.py").write_text("def net(): ...")
    words = "module 'json' has no attribute 'net'. It is Python's or another package's, not json.py: give that file"
    with pytest.raises(ConfigError, match=re.escape(words)):
        plugins.load_object("json:net", "model")


def test_a_script_that_starts_a_study_wherever_it_is_imported(here: Path) -> None:
    (here / "unguarded.py").write_text("import subsettune\nsubsettune.tune({})\ndef net(): ...")
    words = "^module unguarded starts a study while it is imported for one. Put the call under `if __name__ =="
    with pytest.raises(ConfigError, match=words):
        plugins.load_object("unguarded:net", "model")


def test_source_digest() -> None:
    expected = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert plugins.source_digest("tests.test_plugins:function") == expected
    assert plugins.source_digest("builtins:dict") == ""
    with pytest.raises(ConfigError, match=r"^code 'nowhere:x' cannot be imported"):
        plugins.source_digest("nowhere:x")


def test_call_offers_what_is_taken() -> None:
    assert plugins.call(function, "f", {"a": 1}, {"b": 5, "c": 6}) == (1, 5)
    assert plugins.call(function, "f", {"a": 1, "b": 3}, {"b": 5}) == (1, 3)
    assert plugins.call(keywords, "f", {"a": 1}, {"b": 5}) == {"a": 1, "b": 5}


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (function, {}, "f does not fit its options: missing a required argument: 'a'. It takes: a, b."),
        (
            function,
            {"a": 1, "d": 2},
            "f does not fit its options: got an unexpected keyword argument 'd'. It takes: a, b.",
        ),
        (list[int], {"d": 2}, "f does not fit its options: "),
        (3, {}, "f must be a function or a class, got int. Check the name."),
    ],
)
def test_call_messages(target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        plugins.call(target, "f", options)
