"""Seeds by which trials that begin alike find each other, and what their search takes them to cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.policy import Policy
from subsettune.study.search.observations import ECHO, Outcome, SearchEvidence, TrialRecord
from subsettune.study.search.offers import PAYS, charged
from subsettune.study.search.shared_stems import SharedStems
from subsettune.study.search.simulate import Simulation, SimulationSettings, simulate
from subsettune.train.planning.stem_places import SPACING, Prefix

TARGET = 0.9
FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)


def prefix_at(point: FrozenDict) -> Prefix | None:
    """80 % of a policy, or its subset stretch; none of a soup."""
    if "soup" in point:
        return None
    end = min(0.8, point.get("switch", 1.0)) * point["budget"] * FACTS.reference_flops
    return Prefix(key=f"{point['arm']} {point['lr']} {point.get('subset_share')}", end_flops=round(end))


def full(budget: float, lr: float = 0.1) -> FrozenDict:
    return FrozenDict({"arm": "full", "budget": budget, "lr": lr})


def subset(budget: float, switch: float, **changes: Any) -> FrozenDict:
    plain = {"arm": "subset", "budget": budget, "switch": switch, "lr": 0.1, "subset_share": 0.2, **changes}
    return FrozenDict(plain)


@pytest.fixture
def stems() -> SharedStems:
    return SharedStems(prefix_at, FACTS, 0)


def test_policies_that_begin_alike_have_the_same_seeds_one_after_the_other(stems: SharedStems) -> None:
    first = stems.seed(full(0.3), 0)
    assert first is not None
    assert [stems.seed(full(0.2), number) for number in range(3)] == [first, first + 1, first + 2]
    assert stems.seed(full(0.3, lr=0.2), 0) not in (None, first)
    assert SharedStems(prefix_at, FACTS, 1).seed(full(0.3), 0) != first
    assert stems.seed(subset(0.3, 0.5, soup=0.2), 0) is None


def test_a_longer_policy_is_done_as_far_as_the_stem_at_the_decay(stems: SharedStems) -> None:
    seed = stems.seed(full(0.3), 0)
    assert seed is not None
    assert stems.done(full(0.4), 0) == 0
    stems.leave(full(0.3), seed)
    assert stems.done(full(0.4), 0) == pytest.approx(0.8 * 0.3)
    assert stems.done(full(0.4), 1) == 0
    assert stems.done(full(0.4, lr=0.2), 0) == 0


def test_a_shorter_policy_is_done_as_far_as_a_stem_of_the_grid(stems: SharedStems) -> None:
    seed = stems.seed(full(0.3), 0)
    assert seed is not None
    stems.leave(full(0.3), seed)
    assert 0.8 * 0.25 / SPACING < stems.done(full(0.25), 0) <= 0.8 * 0.25
    assert stems.done(full(0.3 / 3.5), 0) == 0  # stems lie in the last part of a prefix


def test_a_subset_stretch_is_shared_by_switches_and_transitions(stems: SharedStems) -> None:
    seed = stems.seed(subset(0.3, 0.5), 0)
    assert seed is not None
    stems.leave(subset(0.3, 0.5), seed)
    other = subset(0.4, 0.6, transition="shrink_perturb", **{"shrink_perturb.noise": 0.1})
    assert stems.done(other, 0) == pytest.approx(0.15)
    assert stems.done(subset(0.4, 0.6, subset_share=0.3), 0) == 0
    assert stems.done(full(0.4), 0) == 0


def ended(evidence: SearchEvidence, number: int, point: FrozenDict, seed: int) -> None:
    record = TrialRecord(number=number, point=point, seed=seed, cost=point["budget"], outcome=Outcome(cause="finished"))
    evidence.start(record)
    evidence.end(record, TARGET)


def test_the_next_runs_of_a_policy_are_done_by_those_of_the_same_number(stems: SharedStems) -> None:
    evidence, first = SearchEvidence(TARGET, 0.01, stems), stems.seed(full(0.3), 0)
    assert first is not None
    for number in range(2):
        ended(evidence, number, full(0.3), first + number)
    assert evidence.done(full(0.4), 3) == pytest.approx(2 * 0.24)
    ended(evidence, 2, full(0.4), first)
    assert evidence.done(full(0.4), 1) == pytest.approx(0.24)
    assert evidence.done(full(0.4), 2) == pytest.approx(0.24)
    assert SearchEvidence(TARGET, 0.01).done(full(0.4), 3) == 0


def test_runs_that_began_alike_tell_less_than_others(stems: SharedStems) -> None:
    evidence = SearchEvidence(TARGET, 0.01, stems)
    for number, (budget, seed) in enumerate([(0.3, 7), (0.3, 8), (0.4, 7), (0.5, 9)]):
        ended(evidence, number, full(budget), seed)
    worth = [evidence.worth(tried) for tried in evidence]
    assert worth == pytest.approx([1 + 1 / (1 + ECHO), 1 / (1 + ECHO), 1.0])


class Told:
    """Score grows with the log of the budget; remembers which was run with which seed."""

    def __init__(self) -> None:
        self.runs: list[tuple[float, int]] = []

    def __call__(self, policy: Policy, seed: int) -> float:
        budget = policy.passes / FACTS.reference_passes
        self.runs.append((budget, seed))
        noise = 0.002 * float(np.random.default_rng(seed).standard_normal())
        return TARGET + 0.05 * math.log(budget / 0.2) + noise


def search(runner: Told, stable_share: float) -> Simulation:
    space = {"budget": {"log": [0.02, 0.9]}, "arm": "full", "lr": 0.1}
    settings = SimulationSettings(
        trials=15, reference_passes=FACTS.reference_passes, target=TARGET, stable_share=stable_share
    )
    return simulate(space, runner, settings)


def test_a_simulated_search_pays_what_no_earlier_trial_has_trained() -> None:
    runner = Told()
    found = search(runner, 0.8)
    seen: dict[int, float] = {}  # the longest beginning that was trained with a seed
    least = 0.0
    for budget, seed in runner.runs:
        least += budget - min(0.8 * budget, seen.get(seed, 0.0))
        seen[seed] = max(seen.get(seed, 0.0), 0.8 * budget)
    whole = math.fsum(budget for budget, _ in runner.runs)
    assert least - 1e-9 <= found.compute < 0.85 * whole  # a little more, for stems lie on a grid
    assert len(seen) < len(runner.runs) == len(set(runner.runs))
    assert np.isclose(found.duration, found.compute)


def test_a_simulation_that_shares_nothing_gives_every_run_a_seed_of_its_own() -> None:
    runner = Told()
    found = search(runner, 0.0)
    assert len({seed for _, seed in runner.runs}) == len(runner.runs)
    assert found.compute == pytest.approx(math.fsum(budget for budget, _ in runner.runs))


def test_what_others_have_trained_counts_only_where_a_run_would_pay_anyhow() -> None:
    gain, cost, done = np.array([0.1, 0.1]), np.array([1.0, 3.0]), np.array([0.8, 2.9])
    assert PAYS == 0.05
    assert charged(gain, cost, done) == pytest.approx([0.2, 3.0])
