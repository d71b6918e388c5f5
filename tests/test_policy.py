from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy, TaskFacts, conventional, from_coordinates, transfer

FACTS = TaskFacts(
    num_examples=1000,
    num_outputs=10,
    num_parameters=500,
    forward_flops=300,
    backward_flops=500,
    reference_passes=20,
)
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
    policy = from_coordinates({**SUBSET, "entry": "shrink_perturb", "shrink": 0.5, "lr": 0.2}, FACTS)
    first = Phase(share=0.1, passes=2.0, selector="kcenter")
    second = Phase(passes=3.0, entry="shrink_perturb", entry_options={"shrink": 0.5})
    assert policy == Policy(phases=(first, second), recipe={"lr": 0.2})
    assert policy.arm == "subset"
    assert from_coordinates({**SUBSET, "shrink": 0.5}, FACTS).phases[1].entry_options == {}  # inactive with keep


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


# --- JSON -------------------------------------------------------------------------------------------------------------


phases = st.builds(
    Phase,
    share=st.floats(0.001, 1),
    passes=st.floats(0.01, 50),
    q=st.none() | st.floats(0.1, 10),
    entry=st.sampled_from(["keep", "shrink_perturb"]),
    entry_options=st.just({}) | st.just({"shrink": 0.5}),
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
            {"schema": 2, "phases": [{"passes": 1}]},
            "^p.json: schema: schema must be 1, got 2. Another version of subset",
        ),
        ({"phases": []}, "^p.json: phases: phases must be not empty, got "),
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
        ({"phase": []}, "(?s)p.json: phase: unknown key. Did you mean 'phases'.*key 'phases' is missing"),
        ([], "p.json: the input must be a mapping of keys to values"),
    ],
)
def test_policies_that_cannot_be_read(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy.from_mapping(raw, source="p.json")


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


def test_policies_need_no_torch() -> None:
    code = "import sys, subsettune.policy, subsettune.task, subsettune.ledger; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_plain_data_build_the_same_facts() -> None:
    assert config.build(TaskFacts, config.to_plain(FACTS)) == FACTS
