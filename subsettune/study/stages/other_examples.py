"""What the runs of a verification say of other test examples, beside its tests on these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from subsettune.policy import Policy
from subsettune.study.context import StudyContext
from subsettune.study.results.records import RunRecord
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.unneeded import unneeded
from subsettune.study.verification.sampling import difference_of
from subsettune.study.verification.verification import REFERENCE


def sampled_differences(context: StudyContext) -> dict[str, SampledDifference]:
    """By name of the candidate or control: its difference to the reference, seeds and test examples drawn anew.

    Arms are compared by all runs that each has, under whatever name, but for those that were made ahead and not needed;
    arms that are not comparable, or were not run twice, are left out. The policy that is exported is chosen on the very
    examples that stand for all others, so that those that were tested share the error rate (Bonferroni).
    """
    records = context.folder.records("verification")
    spare = {run.name for run in unneeded(context.folder.manifest.rounds, records)}
    finished = [run for run in records if run.cause == "finished" and run.name not in spare]
    candidates = context.folder.manifest.candidates
    arms = {name: _runs_of(name, candidates[name].policy, finished) for name in candidates}
    reference = _runs_of(REFERENCE, None, finished)
    tested = {candidates[name].policy for name, runs in arms.items() if candidates[name].may_match and len(runs) > 1}
    shared = max(1, len(tested))
    task, targets = context.task, context.data.test.targets
    found = {
        name: difference_of(
            runs,
            reference,
            metric=task.metric,
            alpha=context.settings.alpha / shared,
            higher_is_better=task.higher_is_better,
            targets=targets.numpy() if task.kind == "classification" and len(targets) else None,
        )
        for name, runs in arms.items()
    }
    return {name: replace(one, num_policies=shared) for name, one in found.items() if one is not None}


def _runs_of(name: str, policy: Policy | None, finished: Iterable[RunRecord]) -> list[RunRecord]:
    """Those of a policy, which may have a name in each of several rounds; one a seed."""
    own = {run.seed: run for run in finished if run.candidate == name or (policy is not None and run.policy == policy)}
    return list(own.values())
