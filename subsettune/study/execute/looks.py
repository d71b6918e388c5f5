"""How often a run is evaluated: where somebody acts on what is seen, and where that pays.

A trial is looked at on its way so that the search can stop it early. What the looks cost and what stopping may save
are both known before it runs, so it is looked at only if they cost less. Runs of verification and of the ablation are
never stopped: they are evaluated at their end alone. Those of the reference, of which there are few, keep a curve of
some points for the report, which draws the looks at trials, and the ends of verified runs as dots, beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.study.execute.requests import RunRequest
from subsettune.study.results.records import Role
from subsettune.study.spec.definition import REFERENCE_POINTS

LOOKS = 3  # at a trial, at a quarter, a half and three quarters of its compute
# Of the compute of a search, by stopping at three looks: `benchmarks/looks.py` finds 2.9 % on digits, 1.3 % on Adult.
SAVED_BY_STOPPING = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What an evaluation costs in a study, beside its runs.

    Args:
        facts: of the task.
        num_validation: examples of the validation split.
        share_prefixes: whether trials share beginnings, and so have no points there.
        reference_looks: points of the curve of a run of the reference.
    """

    facts: TaskFacts
    num_validation: int
    share_prefixes: bool = False
    reference_looks: int = REFERENCE_POINTS

    def __post_init__(self) -> None:
        config.check(self)

    def num_points(self, request: RunRequest) -> int:
        """Points of the learning curve of a run, at equal shares of its compute; the last is that of its end."""
        return self.points_of(request.role, request.policy.cost(self.facts))

    def points_of(self, role: Role, cost_flops: int) -> int:
        """Points of the curve of a run with a role and an allowance in FLOPs."""
        if role == "reference":
            return self.reference_looks
        if self.share_prefixes:
            return 1
        looks_flops = LOOKS * self.num_validation * self.facts.forward_flops
        return 1 + LOOKS if role == "trial" and looks_flops < SAVED_BY_STOPPING * cost_flops else 1
