"""What a study found: the view that tables, the report and `show --json` are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.policy import Policy, TaskFacts
from subsettune.study.definition import Study
from subsettune.study.records import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy that verification looks at.

    Args:
        name: `candidate-1`, ..., `shorter` (the best of the full arm), `random` (the random control).
        policy: what is trained.
        trials: numbers of the trials it was found by; empty for the random control.
        cost_flops: known cost of one training.
    """

    name: str
    policy: Policy
    trials: tuple[int, ...] = ()
    cost_flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """A study as it stands on disk, finished or not.

    Args:
        run_id: name of the study.
        folder: where it lies.
        study: the resolved input.
        manifest: versions, hardware, data fingerprint, seeds, status, command, counts of the search.
        facts: of the task, once they are known.
        target: the worst validation metric that still counts as matched, once the reference is known.
        reference: runs of the conventional recipe.
        trials: runs of the search, in order of their numbers.
        verification: runs of candidates and controls.
        candidates: by name, in the order in which they are tested, the random control last.
        verdicts: by name, as `subsettune.study.verify.Verdict` has them, as plain mappings.
        summary: the object that `show --json` prints.
    """

    run_id: str
    folder: str
    study: Study
    manifest: Mapping[str, Any]
    facts: TaskFacts | None
    target: float | None
    reference: tuple[RunRecord, ...]
    trials: tuple[RunRecord, ...]
    verification: tuple[RunRecord, ...]
    candidates: Mapping[str, Candidate]
    verdicts: Mapping[str, Mapping[str, Any]]
    summary: Mapping[str, Any]


def saving(policy_flops: int, reference_flops: int) -> float:
    """Share of the reference's compute that the policy does not need; negative if it needs more."""
    return 1 - policy_flops / reference_flops


def break_even(tuning_flops: int, reference_flops: int, policy_flops: int) -> int | None:
    """How many future trainings repay the tuning; None if the policy saves nothing."""
    saved_flops = reference_flops - policy_flops
    return -(-tuning_flops // saved_flops) if saved_flops > 0 else None
