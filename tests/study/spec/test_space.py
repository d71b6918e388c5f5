from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from facts import made_up_facts
from hypothesis import given
from hypothesis import strategies as st

from subsettune.errors import ConfigError
from subsettune.policy import Soup
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space

FACTS = made_up_facts(num_parameters=5000, forward_flops=10, backward_flops=20, reference_passes=30.0)
MINIMAL = {"budget": {"log": [0.02, 0.6]}, "switch": {"uniform": [0.05, 0.9]}, "subset_share": {"log": [0.02, 0.5]}}
FULL_SPACE = MINIMAL | {
    "arm": {"choice": ["full", "subset"]},
    "selector": {"choice": ["random", "kcenter"]},
    "transition": {"choice": ["keep", "shrink_perturb"]},
    "shrink_perturb.shrink": {"uniform": [0.2, 1.0]},
    "shrink_perturb.noise": 0.01,
    "lr": {"log": [0.02, 0.5]},
    "batch_size": {"int": [16, 256], "log": True},
    "warmup": {"uniform": [0.0, 0.3], "when": {"schedule": "cosine"}},
    "schedule": {"choice": ["constant", "cosine"]},
}


def mistakes(raw: object, **options: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        Space.from_mapping(raw, **options)  # type: ignore[arg-type]
    return {".".join(m.path): m.message for m in caught.value.mistakes}


def test_reads_every_form_and_writes_it_back() -> None:
    space = Space.from_mapping(FULL_SPACE)
    assert space.to_mapping().keys() == FULL_SPACE.keys()
    assert Space.from_mapping(space.to_mapping()) == space
    assert space["budget"] == Coordinate(name="budget", kind="float", lo=0.02, hi=0.6, log=True)
    assert space["shrink_perturb.noise"].values == (0.01,)


def test_full_arm_is_always_part_of_the_space() -> None:
    assert Space.from_mapping(MINIMAL).arms == ("full", "subset")
    assert Space.from_mapping(MINIMAL | {"arm": "subset"}).arms == ("full", "subset")
    assert Space.from_mapping(MINIMAL | {"arm": {"choice": ["subset", "full"]}}).arms == ("full", "subset")
    assert Space.from_mapping({"budget": 0.3, "arm": "full"}).arms == ("full",)


def test_points_hold_active_coordinates_only() -> None:
    space = Space.from_mapping(FULL_SPACE)
    rng = np.random.default_rng(0)
    for _ in range(200):
        point = space.sample(rng)
        assert ("switch" in point) == (point["arm"] == "subset")
        assert ("shrink_perturb.shrink" in point) == (point.get("transition") == "shrink_perturb")
        assert ("warmup" in point) == (point["schedule"] == "cosine")
        policy = space.policy(point, FACTS)
        assert policy.arm == point["arm"]
        assert policy.passes == pytest.approx(point["budget"] * 30)


def test_order_of_the_file_does_not_matter_for_conditions() -> None:
    space = Space.from_mapping(dict(reversed(FULL_SPACE.items())))
    names = [axis.name for axis in space.coordinates]
    assert names[:2] == ["arm", "budget"]
    assert names.index("schedule") < names.index("warmup")
    assert names.index("transition") < names.index("shrink_perturb.shrink")


def test_share_of_40_is_answered_in_the_house_sentence() -> None:
    found = mistakes(MINIMAL | {"subset_share": 40})
    expected = "subset_share must be in (0, 1], got 40. It is a fraction, not a percentage: write 0.4."
    assert found == {"subset_share": expected}
    found = mistakes(MINIMAL | {"subset_share": {"log": [0.1, 40]}})
    assert found == {"subset_share.log": expected}


def test_all_mistakes_come_at_once() -> None:
    raw = {
        "subset_share": 40,
        "q": {"log": [3, 1]},
        "lr": {"log": [0, 1]},
        "wd": 3,
        "selector": "kcentre",
        "arm": "sub",
        "shrink_perturb.noise": 0.1,
        "momentum": {"choice": [0.9], "when": {"foo": 1}},
        "order": {"uniform": [0, 1]},
        "epochs": 3,
    }
    found = mistakes(raw, recipe_keys=["lr", "momentum"], known={"selector": ["kcenter", "random"]})
    assert found == {
        "subset_share": "subset_share must be in (0, 1], got 40. It is a fraction, not a percentage: write 0.4.",
        "q.log": "log of q must be [lo, hi] with lo <= hi, got [3, 1]. Swap the two ends.",
        "lr.log": "lower end of lr must be positive, got 0. "
        "A logarithmic scale has no zero; use uniform, or a small positive lower end.",
        "wd": "unknown key. Known keys: arm, budget, growth, lr, momentum, order, q, reselect, selector, "
        "soup, steps, subset_share, switch, transition.",
        "selector": "selector must be a known selector or package.module:name, got 'kcentre'. "
        "Known: kcenter, random. Did you mean 'kcenter'?",
        "arm": "arm must be a known arm, got 'sub'. Known: full, subset. Did you mean 'subset'?",
        "momentum.when.foo": "unknown key. Keys of this space: arm, lr, momentum, order, q, selector, "
        "shrink_perturb.noise, subset_share.",
        "order": "order must be a name or {choice: [names]}, got {'uniform': [0, 1]}.",
        "epochs": "epochs cannot be searched: the budget decides how long a policy trains. Remove it.",
        "": "key 'switch' is missing, and the arm 'subset' needs it. "
        "Write e.g. switch: {uniform: [0.05, 0.9]}, or arm: full to search shorter schedules only.",
    } | {"q": "q and subset_share both fix the size of the subset. Remove one of them."}


@pytest.mark.parametrize(
    ("change", "place", "part"),
    [
        ({"lr": {"log": [0.1]}}, "lr.log", "log of lr must be [lo, hi], two numbers, got [0.1]."),
        ({"lr": {"lgo": [0.1, 1]}}, "lr.lgo", "unknown key. Did you mean 'log'?"),
        ({"lr": {}}, "lr", "lr must be a value or one of {log: [lo, hi]}"),
        ({"lr": {"log": [0.1, 1], "uniform": [0, 1]}}, "lr", "lr must be a value or one of"),
        ({"lr": {"int": [0.5, 3]}}, "lr.int", "int of lr must be [lo, hi], two whole numbers, got [0.5, 3]."),
        ({"lr": {"choice": []}}, "lr.choice", "choice of lr must be a list of at least one value, got []."),
        ({"lr": {"choice": [0.1, 0.1]}}, "lr.choice", "choice of lr must be free of repetition, got [0.1, 0.1]."),
        ({"lr": None}, "lr", "lr must be a finite number, a text, true, false or a list of these, got None."),
        ({"lr": {"uniform": [0, math.nan]}}, "lr.uniform", "uniform of lr must be [lo, hi] with lo <= hi"),
        ({"switch": 1.0}, "switch", "switch must be in (0, 1), got 1.0."),
        ({"budget": "much"}, "budget", "budget must be a finite number, got 'much'."),
        ({"budgte": 0.3}, "budgte", "unknown key. Did you mean 'budget'?"),
        ({"budget": {"log": [0.02, 0.6], "when": {"arm": "full"}}}, "budget.when.arm", "budget cannot be conditional"),
        ({"lr": {"log": [0.1, 1], "when": {"lr": 1}}}, "lr.when.lr", "lr cannot depend on itself."),
        ({"lr": {"log": [0.1, 1], "when": {"budget": 1}}}, "lr.when.budget", "budget is a range; a condition needs"),
        ({"lr": {"log": [0.1, 1], "when": {"arm": "x"}}}, "lr.when.arm", "arm in when of lr must be one of full, sub"),
        ({"lr": {"log": [0.1, 1], "when": 3}}, "lr.when", "when of lr must be a mapping of other keys"),
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            "",
            "the conditions of a, b depend on each other in a circle.",
        ),
    ],
)
def test_mistakes(change: dict[str, object], place: str, part: str) -> None:
    assert part in mistakes(MINIMAL | change)[place]


def test_mistakes_without_the_subset_arm() -> None:
    assert mistakes([]) == {"": "space must be a mapping of coordinates to values or ranges, got []."}
    assert mistakes({"arm": "full"}) == {"": "key 'budget' is missing. Write e.g. budget: {log: [0.02, 0.6]}."}


def test_user_code_is_accepted_by_name() -> None:
    raw = MINIMAL | {"selector": {"choice": ["random", "mine.module:Selector"]}}
    Space.from_mapping(raw, known={"selector": ["random"]})


def test_resolve_refuses_sizes_that_do_not_fit() -> None:
    by_share = Space.from_mapping(MINIMAL | {"subset_share": {"log": [0.0001, 0.5]}})
    with pytest.raises(ConfigError, match=r"subset_share must be at least 0.001, got 0.0001.*less than one example"):
        by_share.resolve(FACTS)
    raw = {key: value for key, value in MINIMAL.items() if key != "subset_share"}
    by_q = Space.from_mapping(raw | {"q": {"log": [0.1, 30]}})
    with pytest.raises(ConfigError, match=r"q must be at most 2, got 30.0. It needs 15,000 examples and there are 1,0"):
        by_q.resolve(FACTS)
    fits = Space.from_mapping(raw | {"q": {"log": [0.1, 2.0]}})
    assert fits.resolve(FACTS) is fits
    policy = fits.policy({"arm": "subset", "budget": 0.1, "switch": 0.5, "q": 1.0}, FACTS)
    assert policy.phases[0].share == 0.5


def test_cardinality() -> None:
    assert Space.from_mapping(FULL_SPACE).cardinality == math.inf
    raw = {"arm": "full", "budget": {"choice": [0.1, 0.2]}, "batch_size": {"int": [16, 18]}}
    assert Space.from_mapping(raw).cardinality == 6


@given(st.floats(0, 1), st.sampled_from([a.name for a in Space.from_mapping(FULL_SPACE).coordinates]))
def test_units_go_there_and_back(unit: float, name: str) -> None:
    axis = Space.from_mapping(FULL_SPACE)[name]
    value = axis.from_unit(unit)
    again = axis.from_unit(axis.to_unit(value))
    assert again == (pytest.approx(value, rel=1e-9) if axis.kind == "float" else value)
    assert axis.kind in ("choice", "fixed") or axis.lo <= value <= axis.hi


def test_whole_numbers_are_drawn_evenly() -> None:
    axis = Coordinate(name="n", kind="int", lo=1, hi=4)
    counts = np.bincount([axis.from_unit(u) for u in np.linspace(0, 1, 4001)], minlength=5)[1:]
    assert counts.min() >= 999


# --- growing subsets, and options of selectors ------------------------------------------------------------------------


GROWING = {
    **MINIMAL,
    "steps": {"int": [1, 4]},
    "growth": {"uniform": [1.5, 3]},
    "reselect": {"log": [0.5, 4], "when": {"selector": "kcenter"}},
    "selector": {"choice": ["random", "kcenter", "mine.module:Mine"]},
    "kcenter.start": {"choice": ["center", "random"]},
    "mine.module:Mine.depth": {"int": [1, 3]},
}


def test_growing_subsets_and_options_make_policies() -> None:
    space, rng = Space.from_mapping(GROWING), np.random.default_rng(2)
    seen = set()
    for _ in range(300):
        point = space.sample(rng)
        selector = point.get("selector")
        assert ("kcenter.start" in point) == ("reselect" in point) == (selector == "kcenter")
        assert ("mine.module:Mine.depth" in point) == (selector == "mine.module:Mine")
        policy = space.policy(point, FACTS)
        options = policy.phases[0].selector_options
        assert set(options) == {"kcenter": {"start"}, "mine.module:Mine": {"depth"}}.get(str(selector), set())
        seen.add(sum(not phase.is_full for phase in policy.phases))
    assert {0, 1, 2} <= seen
    assert Space.from_mapping(space.to_mapping()) == space


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        ({"steps": 0}, "steps", "steps must be a whole number, 1 or more, got 0. It counts the subsets before the"),
        ({"steps": 2.0}, "steps", "steps must be a whole number, 1 or more, got 2.0. It counts the subsets before the"),
        (
            {"steps": {"uniform": [1, 4]}},
            "steps",
            "steps must be a whole number or {int: [lo, hi]}, got {'uniform': [1, 4]}.",
        ),
        ({"growth": 1}, "growth", "growth must be above 1, got 1. Each subset is so many times as large as the last."),
        ({"reselect": 0}, "reselect", "reselect must be positive, got 0."),
        (
            {"herding.features": "raw"},
            "herding.features",
            "herding.features has no use without selector: herding in the space. Selectors of this space: random, "
            "kcenter, mine.module:Mine. Add herding, or remove herding.features.",
        ),
    ],
)
def test_what_growing_subsets_refuse(change: dict[str, Any], place: str, message: str) -> None:
    found = mistakes({**GROWING, **change})
    assert found[place].startswith(message)


def test_choices_that_are_too_many_are_refused_before_the_search() -> None:
    """The longest subset stretch of the space is 0.6 * 0.9 * the reference's passes."""
    space = Space.from_mapping({**GROWING, "budget": {"log": [0.02, 0.6]}, "reselect": {"log": [1e-3, 4]}})
    longest = 0.6 * 0.9 * FACTS.reference_passes
    with pytest.raises(ConfigError) as caught:
        space.resolve(FACTS)
    assert str(caught.value) == (
        f"reselect: reselect must be at least {longest / 1000:.3g}, got 0.001. Subsets take up to {longest:.3g} "
        "passes, and 1,000 choices are the most."
    )
    assert Space.from_mapping(GROWING).resolve(FACTS).arms == ("full", "subset")


def test_choices_that_are_divided_among_steps_are_left_to_the_search() -> None:
    """The last of three steps takes 4 parts in 7 of the 10.8 passes."""
    few = {"budget": 0.6, "switch": 0.6, "subset_share": 0.1, "reselect": 0.0065}
    with pytest.raises(ConfigError, match=r"^reselect: reselect must be at least 0.0108, got 0.0065. Subsets take up"):
        Space.from_mapping({**few, "steps": {"int": [1, 3]}}).resolve(FACTS)
    space = Space.from_mapping({**few, "steps": 3}).resolve(FACTS)
    point = space.point("subset", lambda axis: axis.default)
    assert 1000 < len(space.policy(point, FACTS).phases) < 3000


def test_an_option_without_any_selector_in_the_space() -> None:
    found = mistakes({**MINIMAL, "kcenter.start": "center"})
    assert found["kcenter.start"].startswith("kcenter.start has no use without selector: kcenter in the space.")


def test_growth_of_a_subset_that_does_not_grow() -> None:
    found = mistakes({**MINIMAL, "growth": 2.0})
    assert found == {"growth": "growth has no use without steps. Add e.g. steps: {int: [1, 3]}, or remove growth."}


# --- orders, transitions and the soup ---------------------------------------------------------------------------------


KINDS = {
    "selector": ["random", "kcenter"],
    "order": ["uniform", "sift"],
    "transition": ["keep", "shrink_perturb", "prune"],
}
EVERYTHING = {
    **MINIMAL,
    "subset_share": {"choice": [0.1, 1.0, 0.3]},
    "soup.workers": {"int": [2, 8]},
    "selector": {"choice": ["random", "kcenter"]},
    "order": {"choice": ["uniform", "sift"], "when": {"transition": ["keep", "prune"]}},
    "sift.keep": {"uniform": [0.3, 0.9]},
    "transition": {"choice": ["keep", "shrink_perturb", "prune"]},
    "prune.keep": 0.5,
    "shrink_perturb.shrink": 0.5,
    "shrink_perturb.everything": {"choice": [False, True]},
    "soup": {"choice": [0, 0.3]},
    "soup.share": {"log": [0.1, 0.5]},
    "soup.density": {"choice": [0.2, 1.0], "when": {"soup.masks": "erk"}},
    "soup.masks": {"choice": ["erk", "data"]},
}


def test_options_exist_with_their_owners_alone() -> None:
    space, rng = Space.from_mapping(EVERYTHING, known=KINDS), np.random.default_rng(3)
    seen: set[tuple[object, ...]] = set()
    for _ in range(600):
        point = space.sample(rng)
        order, transition, soup = point.get("order"), point.get("transition"), point.get("soup", 0)
        assert ("order" in point) == (transition in ("keep", "prune"))
        assert ("sift.keep" in point) == (order == "sift")
        assert ("prune.keep" in point) == (transition == "prune")
        assert (
            ("shrink_perturb.everything" in point)
            == ("shrink_perturb.shrink" in point)
            == (transition == "shrink_perturb")
        )
        assert ("soup.workers" in point) == ("soup.masks" in point) == (soup > 0)
        assert ("soup.density" in point) == (point.get("soup.masks") == "erk")
        assert {"order", "transition", "soup"} & point.keys() <= (
            {"order", "transition", "soup"} if switched(point) else set()
        )
        seen.add((point["arm"], order, transition, soup))
        last = space.policy(point, FACTS).phases[-1]
        expected = {
            "prune": {"keep": 0.5},
            "shrink_perturb": {"shrink": 0.5, "everything": point.get("shrink_perturb.everything")},
        }
        assert dict(last.transition_options) == expected.get(str(transition), {})
        assert dict(last.order_options) == ({"keep": point["sift.keep"]} if order == "sift" else {})
    assert (
        len(seen) == 1 + 2 * 2 * 2 + 2
    )  # the full arm; two entries by two orders by two soups, and the third transition's
    assert Space.from_mapping(space.to_mapping(), known=KINDS) == space
    assert space.to_mapping()["soup.workers"] == EVERYTHING["soup.workers"]


def switched(point: Any) -> bool:
    return bool(point["arm"] == "subset")


def test_a_soup_makes_a_phase_of_its_own_before_the_subset() -> None:
    space = Space.from_mapping(EVERYTHING)
    point = {"arm": "subset", "budget": 0.5, "switch": 0.4, "subset_share": 0.1, "soup": 0.25, "soup.workers": 3}
    soup, subset, full = space.policy(point, FACTS).phases
    assert (soup.share, soup.passes, soup.soup) == (0.1, pytest.approx(0.25 * 6), Soup(workers=3))
    assert (subset.passes, subset.soup, full.passes) == (pytest.approx(0.75 * 6), None, pytest.approx(9))


def test_options_of_a_soup_whose_share_is_a_range_always_exist_in_its_arm() -> None:
    raw = {**MINIMAL, "soup": {"uniform": [0.1, 0.4]}, "soup.workers": {"int": [2, 8]}}
    space, rng = Space.from_mapping(raw), np.random.default_rng(0)
    for _ in range(20):
        assert "soup.workers" in space.sample(rng, "subset")
        assert "soup.workers" not in space.sample(rng, "full")


def test_a_subset_of_all_data_has_nothing_to_select() -> None:
    raw = {**EVERYTHING, "steps": {"int": [1, 3]}, "growth": {"uniform": [1.5, 3]}, "kcenter.start": "center"}
    space, rng = Space.from_mapping(raw), np.random.default_rng(4)
    whole = 0
    for _ in range(300):
        point = space.sample(rng, "subset")
        selecting = point["subset_share"] < 1
        assert all((name in point) == selecting for name in ("selector", "steps", "growth"))
        assert ("kcenter.start" in point) == (point.get("selector") == "kcenter")
        policy = space.policy(point, FACTS)
        assert all(phase.is_full or phase.soup is not None for phase in policy.phases) == (not selecting)
        plain = point.get("order", "uniform") == "uniform" and point["transition"] != "prune" and point["soup"] == 0
        assert policy.arm == ("full" if plain and not selecting else "subset")
        whole += not selecting
    assert whole > 50


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        (
            {"order": "uniform", "sift.keep": 0.5},
            "sift.keep",
            "sift.keep has no use without order: sift in the space. Orders of this space: uniform. Add sift, or remove "
            "sift.keep.",
        ),
        (
            {"prune.keep": 0.5},
            "prune.keep",
            "prune.keep has no use without transition: prune in the space. Transitions of this space: keep. Add prune, "
            "or remove prune.keep.",
        ),
        (
            {"order": "sift", "sfit.keep": 0.5},
            "sfit.keep",
            "sfit.keep must be an option of a selector, order or transition, or of soup, got 'sfit'. Did you "
            "mean 'sift'?",
        ),
        (
            {"soup": 0, "soup.workers": 3},
            "soup.workers",
            "soup.workers has no use without a soup above 0 in the space. Add e.g. soup: {choice: [0, 0.3]}, or remove "
            "soup.workers.",
        ),
        (
            {"soup.workers": 3},
            "soup.workers",
            "soup.workers has no use without a soup above 0 in the space. Add e.g. soup: {choice: [0, 0.3]}, or remove "
            "soup.workers.",
        ),
        (
            {"soup": 1.0},
            "soup",
            "soup must be in [0, 1), got 1.0. It is a share of the compute before the switch; 0 is",
        ),
        (
            {"soup": 0.3, "soup.share": 20},
            "soup.share",
            "soup.share must be in (0, 1], got 20. It is a fraction, not a percentage: write 0.2.",
        ),
        (
            {"subset_share": 1.0, "order": "sift", "selector": {"choice": ["random", "kcenter"]}},
            "selector",
            "selector has no use with a subset_share of 1, which leaves nothing out. Add a smaller choice, or remove "
            "selector.",
        ),
        (
            {"subset_share": 1.0, "transition": "shrink_perturb", "soup": 0},
            "subset_share",
            "subset_share of 1 leaves the arm 'subset' nothing but plain training, which is the arm 'full'. Add a "
            "smaller share, an order, a soup or transition: prune; or write arm: full.",
        ),
        (
            {"order": "sift", "sift.keep": {"uniform": [0, 1], "when": {"order": "uniform"}}},
            "sift.keep.when.order",
            "order in when of sift.keep must be one of sift, got 'uniform'.",
        ),
    ],
)
def test_what_orders_entries_and_soups_refuse(change: dict[str, Any], place: str, message: str) -> None:
    found = mistakes({**MINIMAL, **change}, known=KINDS)
    assert list(found) == [place]
    assert found[place].startswith(message)


def test_an_option_of_an_owner_that_is_itself_misspelt_is_left_until_that_is_mended() -> None:
    found = mistakes({**MINIMAL, "order": "sfit", "sift.keep": 0.5}, known=KINDS)
    assert list(found) == ["order"]
    found = mistakes({**MINIMAL, "soup": "much", "soup.workers": 3}, known=KINDS)
    assert found == {"soup": "soup must be a finite number, got 'much'."}
