from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from facts import made_up_facts
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, check_written, conventional, transfer
from subsettune.study.spec.point_to_policy import from_coordinates

FACTS = made_up_facts(forward_flops=300, backward_flops=500, reference_passes=20)
SUBSET = {"arm": "subset", "budget": 0.25, "switch": 0.4, "subset_share": 0.1, "selector": "kcenter"}


def test_facts() -> None:
    assert FACTS.example_flops == 800
    assert FACTS.pass_flops == 800_000
    assert FACTS.reference_flops == 16_000_000
    assert FACTS.q() == 20
    assert FACTS.q(50) == 1
    assert FACTS.share_of_q(1) == 0.05


def test_cost_and_boundaries() -> None:
    policy = Policy(phases=(Phase(share=0.1, passes=1.5), Phase(passes=0.25), Phase(passes=3)))
    assert policy.passes == 4.75
    assert policy.cost(FACTS) == 3_800_000
    assert policy.boundaries(FACTS) == (1_200_000, 1_400_000, 3_800_000)
    assert conventional(FACTS).cost(FACTS) == FACTS.reference_flops
    assert (policy.arm, conventional(FACTS).arm) == ("subset", "full")


@given(passes=st.lists(st.floats(0, 100), min_size=1, max_size=5).filter(sum))
def test_the_last_boundary_is_the_cost(passes: list[float]) -> None:
    policy = Policy(phases=tuple(Phase(passes=p) for p in passes))
    ends = policy.boundaries(FACTS)
    assert ends[-1] == policy.cost(FACTS)
    assert list(ends) == sorted(ends)


@pytest.mark.parametrize(("share", "size"), [(1.0, 7), (0.5, 4), (0.01, 1), (0.99, 7), (1 / 7, 1)])
def test_pool_size(share: float, size: int) -> None:
    assert Phase(share=share, passes=1).pool_size(7) == size


# --- coordinates ------------------------------------------------------------------------------------------------------


def test_the_full_arm() -> None:
    policy = from_coordinates({**SUBSET, "arm": "full", "lr": 0.2}, FACTS)
    assert policy == Policy(phases=(Phase(passes=5.0),), recipe={"lr": 0.2})


def test_the_subset_arm() -> None:
    policy = from_coordinates(
        {**SUBSET, "transition": "shrink_perturb", "shrink_perturb.shrink": 0.5, "lr": 0.2}, FACTS
    )
    first = Phase(share=0.1, passes=2.0, selector="kcenter")
    second = Phase(passes=3.0, transition="shrink_perturb", transition_options={"shrink": 0.5})
    assert policy == Policy(phases=(first, second), recipe={"lr": 0.2})
    assert policy.arm == "subset"
    assert (
        from_coordinates({**SUBSET, "shrink_perturb.shrink": 0.5}, FACTS).phases[1].transition_options == {}
    )  # inactive with keep


def test_q_gives_the_share() -> None:
    coordinates = {**SUBSET, "q": 2}
    del coordinates["subset_share"]
    phase = from_coordinates(coordinates, FACTS).phases[0]
    assert (phase.share, phase.q, phase.pool_size(1000)) == (0.1, 2.0, 100)


@settings(deadline=None)
@given(budget=st.floats(0.001, 2), switch=st.floats(0.001, 0.999))
def test_both_arms_cost_the_budget(budget: float, switch: float) -> None:
    subset = from_coordinates({**SUBSET, "budget": budget, "switch": switch}, FACTS)
    full = from_coordinates({"arm": "full", "budget": budget}, FACTS)
    assert abs(subset.cost(FACTS) - full.cost(FACTS)) <= 1
    assert math.isclose(subset.phases[0].passes / subset.passes, switch, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset_share": 40}, r"share: share must be in \(0, 1\], got 40.0. It is a fraction, not a percentage"),
        ({"switch": 1}, r"^switch must be in \(0, 1\), got 1. A share of the budget: write 0.3.$"),
        ({"q": 3}, "^exactly one of subset_share and q must be given for the arm 'subset'.$"),
        (
            {"subset_share": None, "q": 30},
            "^q must be at most 20, got 30.0. It needs 1,500 examples and there are 1,000.$",
        ),
        ({"budget": None}, r"^coordinates must have budget, got \['arm', "),
    ],
)
def test_coordinates_that_make_no_policy(change: dict[str, Any], message: str) -> None:
    coordinates = {key: value for key, value in {**SUBSET, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        from_coordinates(coordinates, FACTS)


# --- growing subsets and new choices ----------------------------------------------------------------------------------


def test_a_growing_subset() -> None:
    """Shares double; the compute of each step is in proportion, so that rounds on the pool are as many in each."""
    policy = from_coordinates({**SUBSET, "steps": 3, "growth": 2.0}, FACTS)
    assert [phase.share for phase in policy.phases] == [0.1, 0.2, 0.4, 1.0]
    assert [phase.passes for phase in policy.phases] == pytest.approx([2 / 7, 4 / 7, 8 / 7, 3.0])
    assert [phase.draw for phase in policy.phases] == [0, 0, 0, 0]
    assert {phase.selector for phase in policy.phases[:3]} == {"kcenter"}


def test_steps_that_would_reach_the_full_data_are_left_out() -> None:
    policy = from_coordinates({**SUBSET, "steps": 5, "growth": 3.0}, FACTS)
    assert [phase.share for phase in policy.phases] == pytest.approx([0.1, 0.3, 0.9, 1.0])
    assert policy.passes == pytest.approx(5.0)


def test_a_growing_q() -> None:
    coordinates = {key: value for key, value in SUBSET.items() if key != "subset_share"}
    policy = from_coordinates({**coordinates, "q": 2, "steps": 2, "growth": 4.0}, FACTS)
    assert [phase.q for phase in policy.phases] == [2.0, 8.0, None]
    assert [phase.share for phase in policy.phases] == [0.1, 0.4, 1.0]


def test_steps_beyond_the_full_data_are_not_even_computed() -> None:
    """2.0**5000 is no float."""
    many, few = (from_coordinates({**SUBSET, "steps": steps}, FACTS) for steps in (5000, 4))
    assert many == few
    assert [phase.share for phase in few.phases] == [0.1, 0.2, 0.4, 0.8, 1.0]


def test_the_most_choices_there_may_be() -> None:
    assert len(from_coordinates({**SUBSET, "reselect": 0.002}, FACTS).phases) == 1001


def test_a_subset_chosen_anew() -> None:
    """2 passes with a new choice after 0.75 at most: three equal stretches, each drawn apart."""
    policy = from_coordinates({**SUBSET, "reselect": 0.75}, FACTS)
    assert [phase.passes for phase in policy.phases] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 3])
    assert [phase.draw for phase in policy.phases] == [0, 1, 2, 0]
    assert len(from_coordinates({**SUBSET, "reselect": 0.5}, FACTS).phases) == 5  # 2 / 0.5 is whole


def test_options_reach_their_selector_only() -> None:
    coordinates = {**SUBSET, "kcenter.start": "center", "el2n.runs": 3, "a.b:C.depth": 2}
    assert from_coordinates(coordinates, FACTS).phases[0].selector_options == {"start": "center"}
    phase = from_coordinates({**coordinates, "selector": "a.b:C"}, FACTS).phases[0]
    assert phase.selector_options == {"depth": 2}
    assert from_coordinates(coordinates, FACTS).recipe == {}


@settings(deadline=None)
@given(
    share=st.floats(0.001, 0.99),
    steps=st.integers(1, 6),
    growth=st.floats(1.01, 10),
    reselect=st.none() | st.floats(0.2, 5),
)
def test_growing_subsets_cost_the_budget(share: float, steps: int, growth: float, reselect: float | None) -> None:
    changes = {"subset_share": share, "steps": steps, "growth": growth}
    changes |= {} if reselect is None else {"reselect": reselect}
    policy = from_coordinates({**SUBSET, **changes}, FACTS)
    assert abs(policy.cost(FACTS) - from_coordinates({"arm": "full", "budget": 0.25}, FACTS).cost(FACTS)) <= 1
    shares = [phase.share for phase in policy.phases]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0 > shares[-2]
    assert math.isclose(math.fsum(p.passes for p in policy.phases[:-1]) / policy.passes, 0.4, rel_tol=1e-9)
    assert all(reselect is None or phase.passes <= reselect + 1e-6 for phase in policy.phases[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "^steps must be a whole number, 1 or more, got 0.$"),
        ({"steps": 2.0}, "^steps must be a whole number, 1 or more, got 2.0.$"),
        ({"growth": 1.0}, "^growth must be above 1, got 1.0.$"),
        ({"reselect": -1}, "^reselect must be a positive number of passes, got -1.$"),
        (
            {"reselect": 1e-9},
            "^reselect must be at least 0.002 for 2 passes, got 1e-09. More than 1,000 choices are refused.$",
        ),
    ],
)
def test_growth_that_makes_no_policy(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_coordinates({**SUBSET, **change}, FACTS)


def test_reselect_in_a_policy_file() -> None:
    raw = {
        "phases": [
            {"share": 0.5, "passes": 1},
            {"share": 0.1, "passes": 3, "selector": "grand", "reselect": 1, "transition": "reset_optimizer"},
            {"passes": 2},
        ]
    }
    policy = Policy.from_mapping(raw)
    assert [(p.share, p.passes, p.draw, p.transition) for p in policy.phases] == [
        (0.5, 1.0, 0, "keep"),
        (0.1, 1.0, 0, "reset_optimizer"),
        (0.1, 1.0, 1, "keep"),
        (0.1, 1.0, 2, "keep"),
        (1.0, 2.0, 0, "keep"),
    ]
    assert Policy.from_mapping(policy.to_mapping()) == policy
    with pytest.raises(ConfigError, match=r"^phases.0.reselect: reselect must be a positive number of passes, got 'x'"):
        Policy.from_mapping({"phases": [{"passes": 1, "reselect": "x"}]})


def test_reselect_goes_on_from_the_draw_of_its_phase() -> None:
    raw = [{"share": 0.1, "passes": 2, "reselect": 1, "draw": 5}, {"passes": 1, "reselect": None}]
    assert [(p.passes, p.draw) for p in Policy.from_mapping({"phases": raw}).phases] == [(1, 5), (1, 6), (1, 0)]


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (math.nan, "^phases.0.passes: passes must be a finite number, got nan.$"),
        (math.inf, "^phases.0.passes: passes must be a finite number, got inf.$"),
        ("3", "^phases.0.passes: passes must be a finite number, got '3'. Write it without quotes.$"),
        (-1, "^phases.0.passes: passes must be 0 or more, got -1.0.$"),
        (
            1e6,
            "^phases.0.reselect: reselect must be at least 1e[+]03 for 1e[+]06 passes, got 1. "
            "More than 1,000 choices are refused.$",
        ),
    ],
)
def test_reselect_beside_passes_that_cannot_be_cut(passes: Any, message: str) -> None:
    """A mistake in `passes` is told as that, and no file makes millions of phases."""
    with pytest.raises(ConfigError, match=message):
        Policy.from_mapping({"phases": [{"passes": passes, "reselect": 1}]})


# --- JSON -------------------------------------------------------------------------------------------------------------


phases = st.builds(
    Phase,
    share=st.floats(0.001, 1),
    passes=st.floats(0.01, 50),
    q=st.none() | st.floats(0.1, 10),
    transition=st.sampled_from(["keep", "shrink_perturb"]),
    transition_options=st.just({}) | st.just({"shrink": 0.5}),
)


@settings(deadline=None)
@given(policy=st.builds(Policy, phases=st.lists(phases, min_size=1, max_size=3), recipe=st.just({"lr": 0.1})))
def test_json_form(policy: Policy) -> None:
    text = json.dumps(policy.to_mapping())
    again = Policy.from_mapping(json.loads(text))
    assert again == policy
    assert again.key == policy.key
    assert hash(again) == hash(policy)


def test_keys_tell_policies_apart() -> None:
    base = Policy(phases=(Phase(passes=1),))
    others = [
        Policy(phases=(Phase(passes=2),)),
        Policy(phases=(Phase(passes=1, share=0.5),)),
        Policy(phases=(Phase(passes=1),), recipe={"lr": 0.1}),
    ]
    assert len({policy.key for policy in (base, *others)}) == 4
    assert Policy(phases=[{"passes": 1}]).key == base.key  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"schema": 3, "phases": [{"passes": 1}]},
            "^p.json: schema: schema must be 1 or 2, got 3. Another version of subset",
        ),
        ({"phases": []}, r"^p.json: phases: phases must be a list of at least one phase, got \(\).$"),
        (
            {"phases": [{"passes": 0}]},
            "^p.json: passes must be positive in at least one phase. Give the policy some comp",
        ),
        ({"phases": [{"passes": 1, "shares": 0.1}]}, "^p.json: phases.0.shares: unknown key. Did you mean 'share'"),
        ({"phases": [{"share": 0.5}]}, "^p.json: phases.0: key 'passes' is missing."),
        (
            {"phases": [{"passes": -1}, {"passes": "2"}]},
            "(?s)phases.0.passes: passes must be 0 or more.*phases.1.passes",
        ),
        ({"phase": []}, "p.json: phase: unknown key. Did you mean 'phases'[?] Known keys: phases, recipe.$"),
        ([], "p.json: the input must be a mapping of keys to values"),
    ],
)
def test_policies_that_cannot_be_read(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy.from_mapping(raw, source="p.json")


def test_a_q_that_is_not_that_of_its_share_is_told() -> None:
    """Q of all is 20, so that a share of 0.025 has the Q 0.5, and no share has 30."""
    raw: list[dict[str, Any]] = [
        {"passes": 1, "q": 0.5},
        {"passes": 1, "share": 0.1, "q": 2},
        {"passes": 1, "share": 0.5, "q": 30},
        {"passes": 1, "selector_options": {"start": "center"}},
    ]
    with pytest.raises(ConfigError) as caught:
        check_written(Policy.from_mapping({"phases": raw}), FACTS, "p.yaml")
    assert str(caught.value).splitlines() == [
        "p.yaml: phases.0.q: q must be 20, that of a share of 1, got 0.5. Write share: 0.025 beside it, or leave q "
        "out.",
        "p.yaml: phases.2.q: q must be 10, that of a share of 0.5, got 30.0. The most is 20.",
        "p.yaml: phases.3.selector_options: selector_options have no use on all data. Remove them, or give a share "
        "below 1.",
    ]


@settings(deadline=None)
@given(n=st.integers(100, 10**7), q=st.floats(0.01, 0.5), growth=st.floats(1.01, 4))
def test_what_is_told_of_a_q_can_be_followed(n: int, q: float, growth: float) -> None:
    """Shares that the search derived pass, and so does the share that the sentence advises."""
    known = dataclasses.replace(FACTS, num_examples=n)
    coordinates = {"arm": "subset", "budget": 0.5, "switch": 0.5, "q": q, "steps": 3, "growth": growth}
    check_written(from_coordinates(coordinates, known), known)
    with pytest.raises(ConfigError) as caught:
        check_written(Policy(phases=(Phase(passes=1, q=q),)), known)
    share = float(str(caught.value).split("share: ")[1].split()[0])
    check_written(Policy(phases=(Phase(passes=1, q=q, share=share),)), known)


def test_a_subset_of_all_data_has_no_options_of_a_selector() -> None:
    """Where the search, or a transfer, comes to a share of 1."""
    coordinates = {**SUBSET, "kcenter.start": "center"}
    assert [p.selector_options for p in from_coordinates({**coordinates, "subset_share": 1}, FACTS).phases] == [{}, {}]
    phase = Phase(share=0.1, q=2.0, passes=1, selector="kcenter", selector_options={"start": "center"})
    fewer = dataclasses.replace(FACTS, num_examples=100)
    assert transfer(Policy(phases=(phase,)), fewer).phases == (Phase(q=2.0, passes=1, selector="kcenter"),)
    more = dataclasses.replace(FACTS, num_examples=200)
    assert transfer(Policy(phases=(phase,)), more).phases[0].selector_options == {"start": "center"}


def test_policies_are_frozen() -> None:
    policy = Policy(phases=(Phase(passes=1),), recipe={"lr": 0.1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.phases = ()  # type: ignore[misc]
    with pytest.raises(TypeError, match="a FrozenDict cannot be changed; make a new one"):
        policy.recipe["lr"] = 1


# --- transfer ---------------------------------------------------------------------------------------------------------


def test_transfer_keeps_shares_and_derives_them_from_q_anew() -> None:
    larger = dataclasses.replace(FACTS, num_examples=4000)
    policy = Policy(phases=(Phase(share=0.1, q=2.0, passes=1), Phase(share=0.5, passes=1), Phase(passes=1)))
    assert [phase.share for phase in transfer(policy, larger).phases] == [0.025, 0.5, 1]
    assert transfer(policy, larger).passes == policy.passes
    with pytest.raises(ConfigError, match=r"^q must be at most 1, got 2.0. It needs 100 examples and there are 50.$"):
        transfer(policy, dataclasses.replace(FACTS, num_examples=50))


sizes = st.integers(1, 10**6)


@settings(deadline=None)
@given(n=sizes, outputs=st.integers(1, 1000), parameters=sizes)
def test_all_examples_are_a_share_of_1(n: int, outputs: int, parameters: int) -> None:
    """The largest Q there is, is not one rounding error too large."""
    known = dataclasses.replace(FACTS, num_examples=n, num_outputs=outputs, num_parameters=parameters)
    assert known.share_of_q(known.q()) == 1
    coordinates = {"arm": "subset", "budget": 0.5, "switch": 0.5, "q": known.q()}
    assert [phase.share for phase in from_coordinates(coordinates, known).phases] == [1, 1]


@settings(deadline=None)
@given(n=st.integers(100, 10**6), q=st.floats(0.01, 0.5), growth=st.floats(1.01, 4), factor=st.integers(1, 9))
def test_a_ladder_by_q_follows_q_to_other_data(n: int, q: float, growth: float, factor: int) -> None:
    """On the same data it stays bit for bit what it was; on `factor` times as many, shares are so much smaller."""
    known = dataclasses.replace(FACTS, num_examples=n)
    coordinates = {"budget": 0.5, "switch": 0.5, "q": q * known.q(), "steps": 4, "growth": growth, "reselect": 1.3}
    policy = from_coordinates(coordinates, known)
    assert transfer(policy, known) == policy
    larger = transfer(policy, dataclasses.replace(known, num_examples=factor * n))
    assert [p.q for p in larger.phases] == [p.q for p in policy.phases]
    expected = [p.share if p.q is None else p.share / factor for p in policy.phases]
    assert [p.share for p in larger.phases] == pytest.approx(expected)


def test_policies_need_no_torch() -> None:
    code = "import sys, subsettune.policy, subsettune.task, subsettune.ledger; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_plain_data_build_the_same_facts() -> None:
    assert config.build(TaskFacts, config.to_plain(FACTS)) == FACTS
