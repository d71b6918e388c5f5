from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import selections
import torch
from contracts import ArrayPart, context_of, facts_of, made_up_part
from places import SUPPORT

from subsettune import select
from subsettune.errors import ConfigError, SelectionError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.select.base import share_of

FACTS = TaskFacts(
    num_examples=48_000,
    num_outputs=10,
    num_parameters=100_000,
    forward_flops=200_000,
    backward_flops=400_000,
    reference_passes=20,
    num_features=784,
    num_classes=10,
    smallest_class=4_000,
)


def policy(selector: str, *, share: float = 0.1, passes: float = 2.0, **options: object) -> Policy:
    first = Phase(share=share, passes=passes, selector=selector, selector_options=options)  # type: ignore[arg-type]
    return Policy(phases=(first, Phase(passes=1)))


def test_names_come_with_one_line_each() -> None:
    assert all(select.SELECTORS.summaries().values())
    assert select.SELECTORS.summaries()["random"] == "uniform without replacement; free; the control"


def test_unknown_selector_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"^selector must be one of random, stratified, kcenter, .*, glister or package.module:Class"
    ):
        select.make("kmeans")


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^selector_options.strat: unknown key. Did you mean 'start'\? Known keys:"):
        select.make("kcenter", {"strat": "center"})


def test_option_out_of_range() -> None:
    with pytest.raises(
        ConfigError, match=r"^selector_options.start: start must be one of random, center, got 'middle'"
    ):
        select.make("kcenter", {"start": "middle"})


def test_a_users_own_class_by_name() -> None:
    assert select.make("tests.select.selectors.test_contract:Brightest").name == "brightest"


@pytest.mark.parametrize(
    "name", ["subsettune.policy:Phase", "subsettune.policy:transfer", "subsettune.select:Selector"]
)
def test_what_is_no_selector_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="selector must be a concrete subclass of Selector, got"):
        select.make(name)


class Undecorated(Selector):
    """A selector whose options are no fields."""

    name, summary = "undecorated", "the first ones"

    def flops(self, facts: TaskFacts, k: int) -> int:
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        return Subset(positions=torch.arange(k))


def test_a_selector_that_is_no_dataclass_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        select.make("tests.select.test_registry:Undecorated")
    assert str(caught.value) == (
        "selector must be a dataclass of its options, got 'tests.select.test_registry:Undecorated'. "
        "Decorate it with @dataclass(frozen=True, slots=True, kw_only=True)."
    )


def test_a_class_that_cannot_be_found() -> None:
    with pytest.raises(ConfigError, match=r"selector 'nowhere.at_all:Thing' cannot be imported"):
        select.make("nowhere.at_all:Thing")


def test_costs_are_known_without_torch() -> None:
    code = (
        f"import sys; sys.path.append({str(SUPPORT)!r}); import selections; from subsettune import select;"
        "from subsettune.policy import Phase, Policy, TaskFacts;"
        "f = TaskFacts(num_examples=9, num_outputs=1, num_parameters=1, forward_flops=1, backward_flops=1,"
        " reference_passes=1, num_classes=2, smallest_class=4, class_counts=(5, 4), head_features=1);"
        "ps = [Policy(phases=(Phase(share=.5, passes=1, selector=name),)) for name in select.SELECTORS];"
        "assert all(selections.check(p, f) or selections.selection_flops(p, 0, f) == 0 for p in ps[:2]);"
        "assert all(selections.check(p, f) and selections.selection_flops(p, 0, f) > 0 for p in ps[2:]);"
        "assert not {'torch', 'ray', 'optuna', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_selection_flops_of_a_policy() -> None:
    k, n, d = 4_800, 48_000, 784
    assert selections.selection_flops(policy("kcenter"), 0, FACTS) == n * (k - 1) * (2 * d + 3) + 3 * n * d
    assert selections.selection_flops(policy("random"), 0, FACTS) == 0
    assert selections.selection_flops(policy("kcenter", share=1.0), 0, FACTS) == 0


def test_check_finds_nothing_wrong() -> None:
    assert selections.check(policy("kcenter", passes=13), FACTS) is None
    assert selections.check(policy("random", passes=0), FACTS) is None
    assert selections.check(policy("unknown", share=1.0), FACTS) is None


def test_check_a_selection_that_costs_more_than_its_phase() -> None:
    assert selections.check(policy("kcenter"), FACTS) == (
        "Choosing 4,800 of 48,000 examples with kcenter costs 12.6 passes, more than the 2 passes of its phase. "
        "Give the phase more compute, choose fewer examples, or use a cheaper selector."
    )


def test_a_selection_that_costs_just_its_allowance_is_valid() -> None:
    flops = selections.selection_flops(policy("kcenter"), 0, FACTS)
    assert selections.check(policy("kcenter", passes=flops / FACTS.pass_flops), FACTS) is None
    assert selections.check(policy("kcenter", passes=(flops - 1) / FACTS.pass_flops), FACTS) is not None


def test_check_too_few_for_stratified() -> None:
    assert selections.check(policy("stratified", share=9 / 48_000), FACTS) == (
        "k must be at least the 10 classes for stratified, got 9. "
        "Choose a subset_share of 0.00021 or more, or another selector."
    )


def test_check_a_share_that_makes_no_example() -> None:
    assert selections.check(policy("random", share=1e-5), FACTS) == (
        "share must be at least 2.1e-05, got 1e-05. It makes none of the 48,000 examples."
    )
    assert selections.check(policy("random", share=2.1e-5), FACTS) is None


@pytest.mark.parametrize("n", [3, 899, 1_797, 45_000, 48_842, 50_000, 1_281_167])
def test_a_share_in_advice_makes_the_examples_that_it_is_for(n: int) -> None:
    """Two digits would make 99 of CIFAR-100's 45,000 examples where stratified needs 100."""
    for k in {1, 2, n // 7, n // 3, n // 2, n - 1, min(n, 100)}:
        if k:
            share = share_of(k, n)
            assert Phase(share=float(share), passes=1).pool_size(n) == k
    assert share_of(100, 45_000) == "0.00222"
    assert share_of(10, 48_000) == "0.00021"


def test_check_stratified_without_classes() -> None:
    facts = dataclasses.replace(FACTS, num_classes=0, smallest_class=0)
    expected = "stratified needs classes, and the task is a regression. Use random or kcenter."
    assert selections.check(policy("stratified"), facts) == expected


def test_check_memory() -> None:
    facts = dataclasses.replace(FACTS, num_examples=1_200_000, num_features=3 * 224 * 224)
    assert selections.check(policy("kcenter", passes=1e9), facts) == (
        "kcenter needs 674 GiB of memory for 1,200,000 examples of 150,528 numbers, more than the 4 GiB it may use. "
        "Raise its memory_limit_gib, or use another selector."
    )
    assert selections.check(policy("kcenter", passes=1e9, memory_limit_gib=700.0), facts) is None


def test_check_names_what_is_misspelt() -> None:
    assert (selections.check(policy("kcentre"), FACTS) or "").startswith("selector must be one of random")
    assert "unknown key" in (selections.check(policy("random", seed=1), FACTS) or "")


def test_check_names_the_phase_of_a_ladder() -> None:
    phases = tuple(Phase(share=share, passes=1, selector="stratified") for share in (0.5, 9 / 48_000))
    assert (selections.check(Policy(phases=(*phases, Phase(passes=1))), FACTS) or "").startswith("Phase 2: k must be")


def test_context_must_fit_its_facts() -> None:
    part = made_up_part()
    with pytest.raises(SelectionError, match="facts must describe the 150 training examples, got 48,000"):
        SelectionContext(part=part, facts=FACTS)


@pytest.mark.parametrize("shape", [(149, 4), (150,), (150, 0)])
def test_features_must_have_a_row_for_each_example(shape: tuple[int, ...]) -> None:
    with pytest.raises(SelectionError, match=r"features must have the shape \(150, d\), got"):
        context_of(made_up_part(), torch.zeros(shape))


def test_features_set_the_cost() -> None:
    part = made_up_part()
    assert context_of(part).facts == facts_of(part)
    assert context_of(part, torch.zeros(150, 4)).facts.num_features == 4


def test_blocks_are_flat_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made_up_part()
    monkeypatch.setattr("subsettune.select.examples.BLOCK_BYTES", 4 * 6 * 64)
    blocks = list(context_of(part).blocks())
    assert [start for start, _ in blocks] == [0, 64, 128]
    assert torch.equal(torch.cat([block for _, block in blocks]), part.inputs.flatten(1))
    assert torch.equal(context_of(part).matrix(), part.inputs.flatten(1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    part = made_up_part()
    part.inputs[77, 0, 1, 1] = bad
    expected = "features must be finite, got NaN or infinity in training example 77. Mend or drop such examples."
    with pytest.raises(SelectionError, match=expected):
        context_of(part).matrix()
    with pytest.raises(SelectionError, match=expected):
        context_of(ArrayPart(torch.zeros(150, 2), part.targets), part.inputs.flatten(1)).matrix()
