"""Verification with free slots: what it runs ahead, and that this changes nothing but when it ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from facts import made_up_facts

from subsettune.policy import Phase, Policy
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.records import RunRecord
from subsettune.study.results.unneeded import unneeded
from subsettune.study.stages.verification import ControlMaterial, VerificationSource, to_round
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import REFERENCE, Verification

FACTS = made_up_facts()
RULES = Rules(margin=0.01, alpha=0.05, seeds=5, max_seeds=10, higher_is_better=True, resolution=0.0)
POLICIES = {
    "candidate-1": Policy(phases=(Phase(share=0.3, passes=1.0), Phase(passes=2.0))),
    "candidate-2": Policy(phases=(Phase(passes=5.0),)),
    "recipe": Policy(phases=(Phase(passes=9.0),)),
    "candidate-3": Policy(phases=(Phase(share=0.2, passes=0.5), Phase(passes=1.0))),
}
SHARES = {"candidate-1": 0.5, "candidate-2": 0.3, "recipe": 0.2, "candidate-3": 0.0}


@dataclass
class Round:
    """A round of verification with so many slots, of runs whose metrics are a fixed function of name and seed."""

    gains: dict[str, float]
    sigma: float = 0.003
    diverges: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        named = {name: Candidate.named(name, policy=p, cost_flops=p.cost(FACTS)) for name, p in POLICIES.items()}
        entries = {
            name: Entry(
                cost_flops=one.cost_flops,
                share=SHARES[name],
                has_twin=one.policy.arm != "full",
                is_last_resort=name == "recipe",
                is_extra=name == "candidate-3",
            )
            for name, one in named.items()
        }
        twins = {
            name: Candidate.named(
                "equal", policy=(p := Policy(phases=(Phase(passes=one.policy.passes),))), cost_flops=p.cost(FACTS)
            )
            for name, one in named.items()
        }
        self.rows: list[RunRecord] = []
        made = Verification(entries, RULES, reference_flops=FACTS.reference_flops, first_seed=0)
        material = ControlMaterial(facts=FACTS, twins=twins)
        self.source = VerificationSource(made, named, material, self._known, self._save)

    def _known(self, policy: Policy) -> dict[int, float]:
        return {r.seed: r.test_metric for r in self.rows if r.policy.key == policy.key and r.test_metric is not None}

    def _save(self, record: RunRecord | None) -> None:
        if record is not None:
            self.rows.append(record)

    def carry_out(self, slots: int, order: int = 0) -> tuple[float, list[str]]:
        """Until it is over; how long it took, in references, and the names of the runs in the order of their start."""
        draw, now, running, started = random.Random(order), 0.0, list[tuple[float, RunRequest]](), list[str]()
        while True:
            while len(running) < slots and isinstance(request := self.source.next(), RunRequest):
                length = 0.01 if request.candidate == REFERENCE else request.policy.cost(FACTS) / FACTS.reference_flops
                running.append((now + length * draw.uniform(0.8, 1.2), request))
                started.append(request.name)
            if not running:
                assert self.source.next() is Pause.DONE
                return now, started
            now, request = min(running, key=lambda one: one[0])
            running.remove((now, request))
            self.source.finished(request, self._row(request))

    def _row(self, request: RunRequest) -> RunRecord:
        noise = np.random.default_rng([request.seed, *request.candidate.encode()]).normal(0, self.sigma)
        value = 0.9 + self.gains.get(request.candidate, 0.0) + float(noise)
        value = None if (request.candidate, request.seed) == self.diverges else value
        return RunRecord(
            name=request.name,
            role="verification",
            candidate=request.candidate,
            policy=request.policy,
            seed=request.seed,
            cause="diverged" if value is None else "finished",
            metric=value,
            test_metric=value,
            cost_flops=request.policy.cost(FACTS),
        )


CASES = {
    "the first passes": Round({}, sigma=0.002),
    "the first is hopeless": Round({"candidate-1": -0.05}),
    "one more look decides": Round({"candidate-1": -0.003}, sigma=0.006),
    "nothing passes": Round(dict.fromkeys(POLICIES, -0.05)),
    "a run diverges": Round({}, diverges=("candidate-1", 3)),
    "a run that was made ahead diverges": Round({}, sigma=0.002, diverges=("candidate-1", 7)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("slots", [3, 16])
def test_what_comes_of_it_is_what_comes_of_one_run_at_a_time(case: str, slots: int) -> None:
    alone, wide = replace(CASES[case]), replace(CASES[case])
    alone.carry_out(1)
    wide.carry_out(slots, order=slots)
    expected, found = (to_round(one.source, 10) for one in (alone, wide))
    assert found.verdicts == expected.verdicts
    assert found.contrasts == expected.contrasts
    assert list(found.candidates) == list(expected.candidates)
    assert found.state["winner"] == expected.state["winner"]
    assert runs(found.state) == runs(expected.state)


def runs(state: dict[str, list[dict[str, object]]]) -> list[tuple[object, ...]]:
    return sorted((run["name"], run["seed"], run["metric"]) for run in state["runs"])  # type: ignore[misc]


def test_empty_slots_are_used_and_verification_ends_sooner() -> None:
    """A cheap policy has 5 runs at its first look and 9 at its second: on 3 slots three rounds of them, not four."""
    one, without, ahead = (Round({}, sigma=0.002) for _ in range(3))
    without.source.verification.ahead = lambda: ()  # type: ignore[method-assign]
    alone_s, without_s, (ahead_s, started) = one.carry_out(1)[0], without.carry_out(3)[0], ahead.carry_out(3)
    assert ahead_s < 0.95 * without_s < alone_s
    assert len(set(started)) == len(started)


def test_what_was_run_ahead_and_is_not_needed_is_on_record_and_told() -> None:
    """The last run of the first look diverges, when others of the second are under way."""
    surprise = Round({}, sigma=0.002, diverges=("candidate-1", RULES.seeds - 1))
    wide, alone = replace(surprise), replace(surprise)
    wide.carry_out(4)
    spare = unneeded([to_round(wide.source, 10)], wide.rows)
    assert {run.candidate for run in spare} == {"candidate-1"}
    assert all(run.seed >= RULES.seeds for run in spare)
    done = to_round(wide.source, 10)  # another round that rests on one of them, by another name
    runs = [{"name": "candidate-1@2", "seed": spare[0].seed}]
    later = replace(done, candidates={"candidate-1@2": done.candidates["candidate-1"]}, state={"runs": runs})
    assert unneeded([done, later], wide.rows) == spare[1:]
    alone.carry_out(1)
    assert unneeded([to_round(alone.source, 10)], alone.rows) == []


def test_nothing_is_run_ahead_of_a_policy_that_looks_hopeless() -> None:
    hopeless = Round({"candidate-1": -0.05})
    hopeless.carry_out(4)
    assert unneeded([to_round(hopeless.source, 10)], hopeless.rows) == []


def test_a_driver_that_comes_back_takes_what_was_run_ahead() -> None:
    wide = Round({}, sigma=0.002)
    names = {request.name for request in first_requests(wide, 8)}
    again = Round({}, sigma=0.002)
    again.rows = [wide._row(request) for request in first_requests(Round({}, sigma=0.002), 8)]
    _, started = again.carry_out(4)
    assert names.isdisjoint(started)
    whole = Round({}, sigma=0.002)
    whole.carry_out(1)
    assert to_round(again.source, 10).verdicts == to_round(whole.source, 10).verdicts


def first_requests(one: Round, count: int) -> Iterator[RunRequest]:
    """What it asks for before any run has ended, reference left out."""
    asked = (one.source.next() for _ in range(count + RULES.seeds))
    return (request for request in asked if isinstance(request, RunRequest) and request.candidate != REFERENCE)
