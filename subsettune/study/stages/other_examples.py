"""What the runs of a verification say of other test examples, beside its tests on these."""

from __future__ import annotations

from subsettune.study.context import StudyContext
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.unneeded import unneeded
from subsettune.study.verification.sampling import difference_of
from subsettune.study.verification.verification import REFERENCE


def sampled_differences(context: StudyContext) -> dict[str, SampledDifference]:
    """By name of the candidate or control: its difference to the reference, seeds and test examples drawn anew.

    Arms are compared by all runs that each has, but for those that were made ahead and not needed; arms that are not
    comparable, or were not run twice, are left out.
    """
    records = context.folder.records("verification")
    spare = {run.name for run in unneeded(context.folder.manifest.rounds, records)}
    finished = [run for run in records if run.cause == "finished" and run.name not in spare]
    task, targets = context.task, context.data.test.targets
    found = {
        name: difference_of(
            [run for run in finished if run.candidate == name],
            [run for run in finished if run.candidate == REFERENCE],
            metric=task.metric,
            alpha=context.settings.alpha,
            higher_is_better=task.higher_is_better,
            targets=targets.numpy() if task.kind == "classification" and len(targets) else None,
        )
        for name in context.folder.manifest.candidates
    }
    return {name: one for name, one in found.items() if one is not None}
