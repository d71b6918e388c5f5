"""YAML 1.2, value by value: what https://yaml.org/spec/1.2.2/#103-core-schema says, and one sentence for the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed

from subsettune.errors import ConfigError
from subsettune.study.spec.definition import parse
from subsettune.study.spec.yaml_core import parse_yaml
from subsettune.study.spec.yaml_file import read, read_yaml, to_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
        ("5e-4", 0.0005),
        ("1e3", 1000.0),
        ("12e03", 12000.0),
        ("+5", 5),
        ("-0", 0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2E+05", -200000.0),
        ("0.1e", "0.1e"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("~", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("TRUE", True),
        ("tRue", "tRue"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("! 5", "5"),
        ("=", "="),
        ("<<", "<<"),
        ("NaN", "NaN"),
        ("99999999999999999999", 99999999999999999999),
        ("[1, 2.0, a]", [1, 2.0, "a"]),
        ("{}", {}),
    ],
)
def test_scalars_of_the_core_schema(written: str, value: Any) -> None:
    found = parse_yaml(f"a: {written}\n")[0]["a"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml("a: .nan")[0]["a"])


MERGED = """\
first: &first {lr: 0.1, batch_size: 8}
second: &second
  lr: 0.2
  epochs: 3
one:
  <<: *first
  batch_size: 16
many: {<<: [*first, *second]}
nested: {<<: {<<: *second, lr: 0.5}}
list: &list [1, *first]
again: *list
"""


def test_merge_keys_and_aliases() -> None:
    found, lines = parse_yaml(MERGED)
    assert found["one"] == {"lr": 0.1, "batch_size": 16}  # the mapping's own key wins
    assert found["many"] == {"lr": 0.1, "batch_size": 8, "epochs": 3}  # the earlier of two sources wins
    assert found["nested"] == {"lr": 0.5, "epochs": 3}
    assert found["again"] == [1, {"lr": 0.1, "batch_size": 8}]
    assert (lines[("one", "lr")], lines[("one", "batch_size")], lines[("many", "epochs")]) == (1, 7, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", 'line 2: not valid YAML: key "a" is there twice. Remove one of them.'),
        ("1: 1\n'1': 2\n", 'line 2: not valid YAML: key "1" is there twice. Remove one of them.'),
        ("a:\n\tb: 1\n", "line 2: not valid YAML: a tab stands where spaces must. Indent with spaces."),
        ("a: 1\n---\nb: 1\n", "line 2: a second document begins here. Write one study a file, without --- between."),
        ("%YAML 1.1\n---\na: 1\n", "line 2: files are read as YAML 1.2, and this says 1.1. Remove the %YAML line."),
        ("a: *b\n", "line 1: not valid YAML: *b is used, and no &b is above it. Write it first."),
        ("a: &b {c: *b}\n", "line 1: *b stands inside of what it names. Write the values out."),
        ("a: {<<: 3}\n", "line 1: << must be a mapping, or a list of mappings, e.g. <<: *base."),
        ("[a]: 1\n", "line 1: a key must be a text, and here is a list, a mapping or *name."),
        ("a: 1e400\n", "line 1: 1e400 is larger than any number that a computer holds. Write a smaller one."),
        ("a: !!int x\n", "line 1: 'x' is no int, as !!int says. Remove the tag."),
        (f"a: {'1' * 5000}\n", "line 1: a number of 5,000 digits is too long. Write it in quotes."),
        *(
            (
                f"a: {tag} x\n",
                f"line 1: tag {tag} means nothing here. Write texts, numbers, true, false, null, lists and mappings, "
                "without it.",
            )
            for tag in ("!own", "!!binary", "!!timestamp", "!!python/name:os.system")
        ),
    ],
)
def test_what_a_study_cannot_have(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"---\n", b"%YAML 1.2\n---\n", b"# a comment\r\n"])
def test_how_a_file_may_begin(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(begin + b"a: 1\r\nb: [2]\r\n")
    assert read_yaml(tmp_path / "a.yaml")[0] == {"a": 1, "b": [2]}


TEXTS = (
    "yes",
    "1_000",
    "0b1",
    "0o7",
    "0x1",
    "010",
    "1:30",
    "2024-05-01",
    "2024-05-01T10:00:00Z",
    "~",
    "",
    "null",
    "Null",
)
MORE = (
    ".5",
    "5.",
    "1e3",
    "12e03",
    "+1",
    ".inf",
    "-.INF",
    ".NaN",
    "TRUE",
    "<<",
    "=",
    "a: b",
    "- a",
    "&a",
    "*a",
    "!a",
    "%a",
)


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Texts that look like other things come back as texts, and numbers as numbers."""
    options = {"texts": [*TEXTS, *MORE, "a\nb", " a ", "é"], "numbers": [1, 1.0, 1e300, -0.5, 10**20], "null": None}
    study = parse(changed({"task.model": {"name": "m:f", **options}}))
    (tmp_path / "a.yaml").write_text(to_yaml(study))
    again = read(tmp_path / "a.yaml")
    assert again == study
    assert again.task.key == study.task.key  # which tells 1 from 1.0
