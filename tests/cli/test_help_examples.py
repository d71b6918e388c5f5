"""Every example of `--help` runs as it stands, one line after the other, from an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_inputs import write

from subsettune.cli import main
from subsettune.cli.parser import FORMER_COMMANDS, make_parser

ELSEWHERE = {"cluster": "files of a cluster are those of its owner", "submit": "needs a cluster"}
STUDY = {"task.tolerance": 0.5}  # of a second, in which a policy passes


def examples(parser_help: str) -> list[str]:
    """The lines of the example in a help text."""
    _, found, text = parser_help.partition("\nexample:\n")
    assert found, parser_help
    return [line.strip() for line in text.strip().splitlines()]


def helps() -> dict[str, str]:
    """Help of each command, and of none."""
    parser = make_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    former = {name for names in FORMER_COMMANDS.values() for name in names}
    return {"": parser.format_help()} | {name: commands[name].format_help() for name in commands if name not in former}


Step = Callable[[str], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Lines that were run."""
    return set()


@pytest.fixture
def step(folder: Path, seen: set[str], monkeypatch: pytest.MonkeyPatch) -> Step:
    """Runs a line in the folder; what other examples have run there already is not run again."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("builtins.input", lambda _: "n")  # `clean` asks

    def run(line: str) -> None:
        if line in seen:
            return
        if not line.startswith("subsettune "):
            words = [sys.executable if word == "python" else word for word in shlex.split(line)]
            subprocess.run(words, check=True, capture_output=True)
        else:
            words = shlex.split(line)[1:]
            assert main([*words, *(["--inline", "--quiet"] if words[0] == "tune" else [])]) == 0, line
        if line == "subsettune init --example digits":
            write(Path("digits.yaml"), STUDY)  # a study of a second in place of one of a minute
        seen.add(line)

    return run


@pytest.mark.parametrize("command", [name for name in helps() if name not in ELSEWHERE])
def test_an_example_runs_from_an_empty_folder(step: Step, command: str) -> None:
    lines = examples(helps()[command])
    assert any(re.match(rf"subsettune {command or 'tune'}\b", line) for line in lines)
    for line in lines:
        step(line)


def test_what_has_no_such_example_has_one_all_the_same() -> None:
    for command in ELSEWHERE:
        assert re.search(rf"^example:\s+subsettune {command} ", helps()[command], re.MULTILINE)
