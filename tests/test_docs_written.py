"""What pages have from the code and from results is what these say now: docs/scripts writes it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import typing
from typing import Any

import architecture
import demo
import described
import lists
import pytest
import study_file
from doc_pages import PAGES, between
from places import ROOT

from subsettune import Policy, config, train
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space import Space
from subsettune.study.spec.yaml_file import read
from subsettune.study.verification.noninferiority import FUTILE_BELOW, PAIRED_ABOVE, UNSTEADY

AGAIN = "Run: python docs/scripts/write.py"
KEPT = json.loads(demo.NUMBERS.read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)


# --- from the code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "name", "text"),
    [
        ("study_file.md", "reference", study_file.reference),
        ("study_file.md", "files", study_file.files),
        ("studies.md", "commands", lists.commands),
        ("benchmarks.md", "scripts", lists.scripts),
    ],
)
def test_a_list_is_that_of_the_code(page: str, name: str, text: Any) -> None:
    assert between(PAGES / page, name) == text(), AGAIN


def test_the_picture_of_the_rooms_is_that_of_the_imports() -> None:
    assert architecture.PICTURE.read_text(encoding="utf-8") == "\n".join(architecture.lines()) + "\n", AGAIN


@pytest.mark.parametrize("key", [key for key in study_file.EXAMPLES if not key.startswith("space.")])
def test_an_example_is_of_its_type_and_keeps_its_rule(key: str) -> None:
    *path, name = key.split(".")
    cls: Any = Study
    for part in path:
        cls = described.part_of(typing.get_type_hints(cls)[part])
    field, mistakes = cls.__dataclass_fields__[name], []
    value = config.convert(typing.get_type_hints(cls)[name], study_file.EXAMPLES[key], (name,), mistakes)
    if field.metadata.get("rule") is not None:
        field.metadata["rule"].find(name, value, (name,), mistakes)
    assert mistakes == []
    assert described.written(value) != described.default_of(field), "an example shows another value than the default"


def test_the_examples_of_the_space_are_accepted() -> None:
    space = {key.partition(".")[2]: value for key, value in study_file.EXAMPLES.items() if key.startswith("space.")}
    space = {"budget": 0.5, "switch": 0.5, "steps": 2, "selector": {"choice": ["random", "kcenter"]}, **space}
    assert {"q", "growth", "reselect"} <= {axis.name for axis in Space.from_mapping(space).coordinates}


# --- from the demo ---------------------------------------------------------------------------------------------------


def test_the_picture_of_the_demo_is_that_of_its_numbers() -> None:
    assert demo.PICTURE.read_text(encoding="utf-8") == demo.picture(KEPT), "Run: python docs/scripts/demo.py RUN"
    assert demo.REPORT.stat().st_size <= demo.MOST_BYTES


def test_the_readme_says_what_the_demo_gave() -> None:
    best, reference = demo.winner(KEPT), KEPT["reference"]
    block = " ".join(between(demo.README, "demo").split())
    assert KEPT["headline"] in block
    assert re.search(rf"best +{best['metric']:.4f} .* passed", block), "the table"
    runs = f"{len(best['runs'])} of the policy, {len(reference['runs'])} of the recipe."
    text = " ".join(README.split())
    assert runs in text
    spent = KEPT["tuning_flops"] / reference["flops"]
    assert f"cost {spent:.1f} conventional trainings and is repaid after {KEPT['break_even']}" in text
    cut = KEPT["truncated"]
    early, saved, truncated = (
        round(100 * one) for one in (KEPT["saving_early_stop"], KEPT["saving_recipe"], cut["saving"])
    )
    assert f"In the demo the policy saves {saved} %" in text
    assert f"from {reference['passes'] * cut['flops'] / reference['flops']:.2f} passes on ({truncated} % saved)" in text
    assert f"would have saved {early} % (" in text
    assert f"an error rate of {100 * KEPT['alpha']:.0f} %" in text
    versions = KEPT["versions"]
    assert "with torch {torch}, ray {ray} and optuna {optuna}.".format(**versions) in text


def test_what_the_demo_gave_is_what_its_policies_give() -> None:
    """Trained again, one run each: another processor rounds otherwise, which moves a few of 539 answers."""
    task = read(ROOT / "search_spaces" / "digits.yaml").task
    for row in (KEPT["reference"], demo.winner(KEPT)):
        run = row["runs"][0]
        options = train.RunOptions(num_threads=1, device="cpu", splits=("test",))
        found = train.run(task, Policy.from_mapping(row["policy"]), run["seed"], options=options)
        assert found.metrics["test"] == pytest.approx(run["metric"], abs=8 / KEPT["num_test"])


# --- statistics ------------------------------------------------------------------------------------------------------


def test_the_worked_example_is_the_verdict_of_the_demo() -> None:
    assert between(PAGES / "statistics.md", "worked") == demo.worked(KEPT)


def test_the_code_on_the_page_prints_what_stands_below_it() -> None:
    examples = BLOCK.findall((PAGES / "statistics.md").read_text(encoding="utf-8"))
    assert len(examples) == 2
    for code, said in examples:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, {})
        assert out.getvalue() == said


def test_the_numbers_of_the_rules_are_those_of_the_code() -> None:
    text = (PAGES / "statistics.md").read_text(encoding="utf-8")
    for words in (f"more than {PAIRED_ABOVE} over six", f"below {FUTILE_BELOW} of passing", f"than {UNSTEADY} times"):
        assert words in " ".join(text.split()), words
