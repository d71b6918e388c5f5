"""Plans: numbers that can be recomputed by hand, and everything refused that could not run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_inputs import REMOVED, changed

from subsettune.data import Places
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.study.admission import admit, check_here
from subsettune.study.definition import Study, parse
from subsettune.study.plan import plan

HIDDEN, M, FEATURES = 16, 10, 64
P = FEATURES * HIDDEN + HIDDEN + HIDDEN * M + M


def _study(changes: dict[str, Any]) -> Study:
    return parse(changed(changes))


def test_counts_are_those_of_digits_by_hand() -> None:
    made = plan(_study({}))
    n, test, validation = 899, 539, 359  # 30 % and 20 % of 1,797, by largest remainder
    assert (made["num_examples"], made["num_test"], made["num_validation"]) == (n, test, validation)
    assert (made["num_outputs"], made["num_parameters"]) == (M, P)
    assert made["q"] == pytest.approx(n * M / P)
    forward = 2 * (FEATURES * HIDDEN + HIDDEN * M)
    assert made["forward_flops"] == n * forward
    assert made["backward_flops"] == n * (2 * FEATURES * HIDDEN + 2 * 2 * HIDDEN * M)  # inputs need no gradient
    assert made["pass_flops"] == made["forward_flops"] + made["backward_flops"]
    assert made["reference_flops"] == 6 * made["pass_flops"]


def test_runs_are_upper_bounds_and_add_up() -> None:
    made = plan(_study({"study.max_seeds": 5}))
    assert {kind: row["runs"] for kind, row in made["runs"].items()} == {
        "reference": 3,
        "search": 6,
        "verification": (1 + 2) * 5,  # one candidate, the best of the full arm, the random control
        "more seeds of the reference": 2,
    }
    dearest = 0.8 * 6
    assert made["passes"] == pytest.approx(3 * 6 + 6 * dearest + 15 * dearest + 2 * 6)
    assert made["flops"] == pytest.approx(made["passes"] * made["pass_flops"], rel=1e-9)


def test_a_fixed_budget_is_planned_as_it_is() -> None:
    assert plan(_study({"space.budget": 0.25}))["runs"]["search"]["passes"] == pytest.approx(6 * 0.25 * 6)


def test_time_is_projected_from_updates_timed_on_the_clock() -> None:
    ticks = iter(range(10_000))
    made = plan(_study({"study.parallel": 2}), clock=lambda: float(next(ticks)))
    # One tick to start, one to see that half a second has passed, one at the end: 2 s for one update of 64 examples.
    assert made["seconds"] == pytest.approx(made["passes"] * 2 * 899 / 64 / 2)
    assert made["expectations"] == [
        "A pass takes 28.1 s on 1 CPU thread of this machine, by a few updates that were timed alone."
    ]


def test_planning_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plan(_study({}))
    assert torch.equal(torch.rand(2), expected)


MISFITS: list[tuple[dict[str, Any], str]] = [
    (
        {"space.subset_share": REMOVED, "space.q": {"log": [0.5, 1000]}},
        "space.q: q must be at most 7.43, got 1000.0. It needs 121,000 examples and there are 899. Lower the upper "
        "end, use a smaller network, or search subset_share instead.",
    ),
    (
        {"task.metric": "mse"},
        "space.selector: stratified needs classes, and the task is a regression. Use random or kcenter. "
        "Leave 'stratified' out of the space.",
    ),
    (
        {"space.selector": "nowhere:Selector"},
        "space.selector: selector 'nowhere:Selector' cannot be imported: No module named 'nowhere'. "
        "Run from the folder that holds the module, or install it.",
    ),
    (
        {"space.optimizer": {"choice": ["sgd", "nowhere:Lion"]}},
        "space.optimizer: optimizer 'nowhere:Lion' cannot be imported: No module named 'nowhere'. "
        "Run from the folder that holds the module, or install it.",
    ),
    (
        {"task.recipe.schedule_options": {"foo": 1}},
        "task.recipe.schedule_options.foo: unknown key. Known keys: final, warmup.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISFITS)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        admit(_study(changes), Places())
    assert str(caught.value) == message


def test_all_misfits_of_a_space_come_at_once() -> None:
    changes = {
        "space.selector": {"choice": ["a_module:A", "b_module:B"]},
        "space.subset_share": REMOVED,
        "space.q": {"log": [1, 99]},
    }
    with pytest.raises(ConfigError) as caught:
        admit(_study(changes), Places())
    assert [mistake.path for mistake in caught.value.mistakes] == [
        ("space", "q"),
        ("space", "selector"),
        ("space", "selector"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"task.model": {"name": "mlp", "hiden": [3]}},
        {"task.model": {"name": "cnn", "channels": [2, 2, 2, 2]}},
        {"task.model": {"name": "nowhere:net"}},
        {"task.recipe.optimizer_options": {"betas": [0.9, 0.99]}},
        {"task.recipe.augment": {"crop_padding": 9}},
        {"task.data.source": "nowhere.parquet"},
    ],
)
def test_a_task_that_cannot_be_trained_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SubsettuneError):
        plan(_study(changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_here_is_told_before_anything_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"^study\.gpus_per_trial: gpus_per_trial must be at most 0 here, got 0\.5\. "
    ):
        check_here(_study({"study.gpus_per_trial": 0.5}), "auto")
    with pytest.raises(ConfigError, match=r"^device must be auto or cpu here, got 'cuda'\. "):
        check_here(_study({}), "cuda")
    check_here(_study({}), "auto")
    made = plan(_study({"study.gpus_per_trial": 1}))
    assert made["seconds"] is None
    assert made["expectations"][0].startswith("A run asks for 1 GPU, and there is none here")
