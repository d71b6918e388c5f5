"""The confirmation of a finished study's policy: fresh seeds, reference runs of their own, one test."""

from __future__ import annotations

import math

from subsettune.errors import StudyError
from subsettune.policy import conventional
from subsettune.study.context import StudyContext
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.confirmation import Confirmation, fresh_seeds
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord
from subsettune.study.spec.definition import Study
from subsettune.study.stages.verification import rules_of
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.verification import REFERENCE, Verification, most_runs
from subsettune.train.result import CurvePoint

WITHOUT = "Run it without --fresh-seeds first."


def refuse_unfinished(folder: StudyFolder, study: Study) -> None:
    """Raise unless a study is finished and exported a policy that can be confirmed.

    Args:
        folder: of the study, open.
        study: as it is asked for now.

    Raises:
        StudyError: it is not.
    """
    manifest, trials = folder.manifest, study.study.trials
    if manifest.status != "finished":
        raise StudyError(f"study {folder.run_id!r} is not finished, it is in its {manifest.status}. {WITHOUT}")
    if trials > manifest.trials_asked:
        asked = f"has {manifest.trials_asked} trials, and {trials} are asked for"
        raise StudyError(f"study {folder.run_id!r} {asked}. {WITHOUT}")
    if manifest.winner is None:
        raise StudyError(f"study {folder.run_id!r} exported no policy: there is nothing to confirm.")


class ConfirmationStage:
    """Verifies the exported policy of a finished study once more."""

    name = "confirmation"

    def __init__(self, context: StudyContext) -> None:
        winner = context.folder.manifest.winner
        assert winner is not None, "refuse_unfinished comes first"
        self.context, self.candidate = context, context.folder.manifest.candidates[winner]

    def source(self) -> ConfirmationSource | None:
        """The runs that are left of it; None where it is finished."""
        before = self.context.folder.manifest.confirmation
        if before is not None and before.is_finished:
            return None
        seeds, verification = self._begin() if before is None else self._go_on(before)
        source = ConfirmationSource(self.context, self.candidate, verification, seeds)
        self.context.observer.stage(self.name, 2 * verification.rules.seeds)  # the display follows if it takes more
        source.save()
        return source

    def _begin(self) -> tuple[range, Verification]:
        before = self.context.folder.manifest.confirmations
        used = (seed for one in before for seed in range(one.first_seed, one.first_seed + one.num_seeds))
        rules = rules_of(self.context)
        manifest = self.context.folder.manifest
        seeds = fresh_seeds(self.context.seeds[0], f"{manifest.run_id} {manifest.created}", used, most_runs(rules))
        verification = Verification(
            {self.candidate.name: Entry(cost_flops=self.candidate.cost_flops, share=1.0, is_last_resort=True)},
            rules,
            reference_flops=self.context.facts.reference_flops,
            first_seed=seeds[0],
            spent=before[-1].alpha_spent if before else 0.0,
        )
        return seeds, verification

    def _go_on(self, before: Confirmation) -> tuple[range, Verification]:
        seeds = range(before.first_seed, before.first_seed + before.num_seeds)
        return seeds, Verification.from_mapping(before.state)


class ConfirmationSource:
    """Runs of a confirmation: those of the policy and of the reference, all with fresh seeds.

    Args:
        context: of the study.
        candidate: the policy.
        verification: says what is needed.
        seeds: of all runs.
    """

    def __init__(self, context: StudyContext, candidate: Candidate, verification: Verification, seeds: range) -> None:
        self.context, self.candidate, self.verification, self.seeds = context, candidate, verification, seeds
        self._under_way: set[tuple[str, int]] = set()
        for record in context.folder.records("confirmation"):  # a crash may have come before the manifest was written
            if record.seed in seeds:
                self._take(record)

    def next(self) -> RunRequest | Pause:
        """The next run that the test needs."""
        left = [run for run in self.verification.needed() if run not in self._under_way]
        if not left:
            return Pause.WAIT if self._under_way else Pause.DONE
        name, seed = left[0]
        self._under_way.add((name, seed))
        policy = conventional(self.context.facts) if name == REFERENCE else self.candidate.policy
        splits, title = ("validation", "test"), f"confirm-{name}-seed-{seed}"
        return RunRequest(name=title, role="confirmation", candidate=name, policy=policy, seed=seed, splits=splits)

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing in a confirmation is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Record a metric; a run that diverged or failed counts against its policy."""
        self._under_way.discard((request.candidate, request.seed))
        self.context.keep(record)
        self._take(record)
        self.save()

    def _take(self, record: RunRecord) -> None:
        value = record.test_metric if record.test_metric is not None else math.nan
        self.verification.record(record.candidate, record.seed, value)

    def save(self) -> None:
        """Write down how the confirmation stands."""
        name, folder = self.candidate.name, self.context.folder
        now = Confirmation(
            candidate=name,
            first_seed=self.seeds[0],
            num_seeds=len(self.seeds),
            verdict=self.verification.verdicts[name],
            state=self.verification.to_mapping(),
        )
        others = [one for one in folder.manifest.confirmations if one.candidate != name]
        self.context.note(confirmations=(*others, now))
