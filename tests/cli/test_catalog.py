"""`subsettune selectors kcenter` and its kin: what is told of one thing that a study file may name."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from facts import made_up_facts
from fake_inputs import changed

from subsettune import catalog
from subsettune.catalog import COMPONENTS, explain
from subsettune.cli import main
from subsettune.config import POSITIVE, setting
from subsettune.errors import ConfigError
from subsettune.registry import DATASETS, METRICS, MODELS
from subsettune.study.spec.definition import parse
from subsettune.study.spec.space_check import read_space
from subsettune.study.spec.yaml_core import parse_yaml
from subsettune.train.orders.uniform import Uniform

NAMED = [(what, name) for what, registry in COMPONENTS.items() for name in registry.builtin]
NETWORKS = [("model", name) for name in MODELS.builtin]


@pytest.mark.parametrize(("what", "name"), NAMED)
def test_every_component_says_when_to_use_it_and_what_it_costs(what: str, name: str) -> None:
    told = explain(what, name)
    assert told.about
    for words in (*told.about, told.when, told.cost):
        assert words.endswith((".", ":"))
        assert "subsettune." not in words
    assert bool(told.source) == (name not in ("random", "stratified", "uniform", "keep", "reset_optimizer"))


@pytest.mark.parametrize(("what", "name"), [*NAMED, *NETWORKS])
def test_every_option_is_told_with_its_default_and_what_it_may_be(what: str, name: str) -> None:
    found = COMPONENTS.get(what, MODELS)[name]
    told = {option.name: option for option in explain(what, name).options}
    if inspect.isclass(found):
        assert list(told) == [field.name for field in dataclasses.fields(found)]
    for option in told.values():
        assert option.about, option.name
        assert not option.about.startswith("see ")
        assert option.kind
        assert option.default


@pytest.mark.parametrize(("what", "name"), NAMED)
def test_the_lines_of_a_component_are_those_of_a_study_file(what: str, name: str) -> None:
    plain, _ = parse_yaml("\n".join(explain(what, name).lines))
    study = parse(changed({"space": {**changed({})["space"], **plain["space"]}}))
    space, facts, rng = read_space(study.space), made_up_facts(), np.random.default_rng(0)
    phases = [phase for _ in range(60) for phase in space.policy(space.sample(rng), facts).phases]
    assert name in {getattr(phase, what) for phase in phases}


@pytest.mark.parametrize(
    ("what", "name"), [*NETWORKS, *(("metric", name) for name in METRICS), *(("data", name) for name in DATASETS)]
)
def test_the_lines_of_a_task_are_those_of_a_study_file(what: str, name: str) -> None:
    plain, _ = parse_yaml("\n".join(explain(what, name).lines))
    study = parse(changed({f"task.{key}": value for key, value in plain["task"].items()}))
    found = {"model": study.task.model.name, "metric": study.task.metric, "data": study.task.data.source}
    assert found[what] == name


def test_kcenter_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selectors", "kcenter"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("selector kcenter\n\nGreedy 2-approximation of k-center: each pick is the example farthest")
    for words in (
        "\nWhen: redundant data, ",
        "\nCost: charged as plain greedy: ",
        "\nSource: Gonzalez 1985, ",
        "\nstart             random   random | center: the first pick of a group: ",
        "\nclasses           none     proportional | equal | none: as for all, but ",  # its own words, not its family's
        "\nmemory_limit_gib  4.0      number, positive: refuse to start where more memory\n",
        "\nspace:\n  selector: {choice: [random, kcenter]}\n  kcenter.features: raw\n",
    ):
        assert words in text
    assert "kernels." not in text
    assert "Nested" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_option_is_told_by_the_nearest_class_that_says_what_it_is() -> None:
    keep = next(option for option in explain("order", "sift").options if option.name == "keep")
    assert keep.about.startswith("k; of a batch of b examples, ")
    assert keep.rule == "in (0, 1]"


def test_metrics_tell_their_direction_and_whether_they_speak_of_other_examples() -> None:
    assert explain("metric", "mse").about == (
        "MSE; lower is better.",
        "Beside the verdict a bound for other test examples is given, as it is a mean over examples.",
    )
    assert "no bound for other test examples" in " ".join(explain("metric", "roc_auc").about)
    assert explain("metric", "accuracy").when == "tasks of the kind classification or multilabel."


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("selectors kcentre", "selector must be one of random, stratified, kcenter, herding, "),
        ("orders info_batch", "Did you mean 'infobatch'?"),
        ("transitions prone", "Did you mean 'prune'?"),
        ("metrics acuracy", "got 'acuracy'. Did you mean 'accuracy'?"),
        ("models resnet", "Did you mean 'resnet18'?"),
        ("data cifar", "Did you mean 'cifar10"),
        ("selectors nowhere:Mine", "selector 'nowhere:Mine' cannot be imported: "),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(
    capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backwards(Uniform):
    """The pool from its end.

    Nested: no section that is told.

    Args:
        factor: of something, over
            two lines.
    """

    factor: float = setting(2.0, rule=POSITIVE)
    unsaid: int | None = None


def test_an_order_of_ones_own_is_explained_as_far_as_it_says() -> None:
    told = explain("order", f"{__name__}:Backwards")
    assert told.about == ("The pool from its end.",)
    assert (told.when, told.cost, told.source) == ("", "", "")
    assert [dataclasses.astuple(option) for option in told.options] == [
        ("factor", "number", "2.0", "positive", "of something, over two lines."),
        ("unsaid", "whole number | null", "null", "", ""),
    ]
    assert told.lines == ("space:", f'  order: {{choice: [uniform, "{__name__}:Backwards"]}}')


def test_a_source_at_the_end_of_a_paragraph_is_one() -> None:
    found: dict[str, Any] = catalog._sections("First.\n\nSecond one. Source: Somebody 1999.\n\nCost: nothing.")
    assert found == {"about": ("First.", "Second one."), "source": ("Somebody 1999.",), "cost": ("nothing.",)}


def test_what_is_not_known_of_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="data must be one of digits, mnist, "):
        explain("data", "digit")
