"""Rounds of verification of made-up metrics: real tests, no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from facts import made_up_facts

from subsettune.config import FrozenDict
from subsettune.policy import FULL, Phase, Policy
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.stages.verification import ControlMaterial, VerificationSource, to_round
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification

FACTS = made_up_facts()
RULES = Rules(margin=0.01, alpha=0.05, seeds=3, max_seeds=3, higher_is_better=True, resolution=0.0)


def plain(policy: Policy) -> Policy:
    """All data for the compute of a policy, with its hyperparameters."""
    return Policy(phases=(Phase(passes=policy.passes),), recipe=policy.recipe)


def carried_out(
    named: Mapping[str, Policy],
    gains: Mapping[str, float],
    rules: Rules = RULES,
    round_number: int = 1,
    twin_recipe: FrozenDict | None = None,
) -> VerificationSource:
    """A round, done: policies of some names differ from the reference by so much, and the others are far worse.

    Alpha is shared evenly; each policy of the subset arm has a twin, `equal`, by its own hyperparameters
    unless others are given.
    """
    candidates = {name: Candidate.named(name, policy=p, cost_flops=p.cost(FACTS)) for name, p in named.items()}
    entries = {
        name: Entry(cost_flops=one.cost_flops, share=1 / len(named), has_twin=one.policy.arm != FULL)
        for name, one in candidates.items()
    }
    name = "equal" if round_number == 1 else f"equal@{round_number}"
    twins = {
        one.name: Candidate.named(name, policy=twin, cost_flops=twin.cost(FACTS))
        for one in candidates.values()
        for twin in [plain(one.policy if twin_recipe is None else replace(one.policy, recipe=twin_recipe))]
    }
    made = Verification(entries, rules, reference_flops=FACTS.reference_flops, first_seed=0)
    material = ControlMaterial(facts=FACTS, twins=twins, round_number=round_number)
    stage = VerificationSource(made, candidates, material, lambda policy: {}, lambda record: None)
    while isinstance(request := stage.next(), RunRequest):
        gain = {"reference": 0.0, **gains}.get(request.candidate, -0.1)
        stage.finished(request, _record(request, 0.9 + 0.0001 * (request.seed % 3) + gain))
    assert request is Pause.DONE
    return stage


def round_of(
    named: Mapping[str, Policy],
    gains: Mapping[str, float],
    round_number: int = 1,
    twin_recipe: FrozenDict | None = None,
) -> RoundState:
    """Likewise, as the manifest holds it."""
    return to_round(carried_out(named, gains, round_number=round_number, twin_recipe=twin_recipe), 10)


def _record(request: RunRequest, value: float) -> RunRecord:
    return RunRecord(
        name=request.name,
        role="verification",
        candidate=request.candidate,
        policy=request.policy,
        seed=request.seed,
        cause="finished",
        metric=value,
        test_metric=value,
        cost_flops=request.policy.cost(FACTS),
    )
