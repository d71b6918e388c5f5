"""How far a study is, from its storage alone: whoever can read that can ask, on any machine, without Ray or torch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from subsettune.errors import StorageError, StudyError
from subsettune.policy import Policy
from subsettune.storage import Folder
from subsettune.study.results import costs
from subsettune.study.results.folder import JOURNAL, StudyFolder, last_written
from subsettune.study.results.lease import Holder
from subsettune.study.results.lock import driver_of
from subsettune.study.results.records import count
from subsettune.study.results.summarise import cheapest_trial
from subsettune.study.results.summary import PolicyRow
from subsettune.study.results.view import StudyView
from subsettune.study.search.journal import look_at
from subsettune.study.search.journal_storage import ReadOnlyJournal

State = Literal["starting", "running", "interrupted", "failed", "killed", "finished"]
GOES_ON = ("starting", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsSoFar:
    """Trials of the search by what became of them; `running` is None where it cannot be told.

    Args:
        asked: how many the study is to have.
        running: that have begun and not ended, of a driver that is there; others wait to be gone on with.
    """

    asked: int
    finished: int
    stopped: int
    diverged: int
    failed: int
    running: int | None

    @property
    def ended(self) -> int:
        """How many are on record."""
        return self.finished + self.stopped + self.diverged + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSoFar:
    """The cheapest policy that matches, as far as is known.

    Args:
        policy: it.
        compute_share: of the reference's compute.
        metric: on the test split where it is verified, else on the validation split, of one seed.
        reference_metric: mean of the reference on the same split; over the same runs where it is verified.
        gap: metric minus reference, oriented: below 0 is worse.
        error_increase: error of the policy over that of the reference, minus 1; None where the metric has no error.
        is_verified: whether verification has passed it.
    """

    policy: Policy
    compute_share: float
    metric: float
    reference_metric: float
    gap: float
    error_increase: float | None
    is_verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatus:
    """How far a study is.

    Args:
        run_id: its name.
        folder: where it lies.
        state: `starting`, `running`, `interrupted` (asked to stop), `failed` (by an error), `killed` (no driver is
            there, and none has said why), `finished`.
        stage: `reference`, `search`, `verification`, `ablation`, `export`, `finished`; empty before it has begun.
        driver: who holds it; None where nobody does.
        written: when something was last put on record, in UTC, as ISO 8601; None where the storage does not tell.
        failure: the error that ended its latest start.
        references: runs of the reference on record, those that verification added included.
        references_asked: that the search needs.
        trials: of the search.
        verification: runs of the latest round, by name of the candidate, `reference` first.
        flops: spent in all, as the summary has it; examples where nobody knows what one costs.
        trainings: likewise, in trainings by the recipe; None before that is known.
        elapsed_s: seconds that its driver has run, over all starts.
        num_starts: of its driver.
        best: so far.
        verified: whether a policy has passed.
        headline: what a finished study found; else empty.
        metric_name: of the task.
        tolerance: likewise.
        command: that goes on with it; empty where it was started from Python.
    """

    run_id: str
    folder: str
    state: State
    stage: str = ""
    driver: Holder | None = None
    written: str | None = None
    failure: str = ""
    references: int = 0
    references_asked: int = 0
    trials: TrialsSoFar | None = None
    verification: dict[str, int] = dataclasses.field(default_factory=dict)
    flops: int = 0
    trainings: float | None = None
    elapsed_s: float = 0.0
    num_starts: int = 0
    best: BestSoFar | None = None
    verified: bool = False
    headline: str = ""
    metric_name: str = ""
    tolerance: float = 0.0
    command: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether a driver is at work."""
        return self.state in GOES_ON

    def to_mapping(self) -> dict[str, Any]:
        """The object that `status --json` prints."""
        plain = {name: getattr(self, name) for name in StudyStatus.__dataclass_fields__}
        for name in ("driver", "trials"):
            plain[name] = None if plain[name] is None else dataclasses.asdict(plain[name])
        if self.best is not None:
            fields = {name: getattr(self.best, name) for name in BestSoFar.__dataclass_fields__}
            plain["best"] = {**fields, "policy": self.best.policy.to_mapping()}
        return plain


def read_status(storage: str, run_id: str) -> StudyStatus:
    """How far a study is, from what lies in its storage.

    Args:
        storage: folder or URI that holds studies.
        run_id: its name.

    Raises:
        StudyError: it is not there, or a file of it is damaged.
        StorageError: the storage cannot be read.
    """
    study = StudyFolder(storage, run_id)
    driver = driver_of(study.folder)
    if driver is not None and not study.exists:
        return StudyStatus(run_id=run_id, folder=str(study.folder), state="starting", driver=driver)
    view = study.open().view()
    manifest, summary = view.manifest, view.summary
    state = _state(view, driver)
    return StudyStatus(
        run_id=run_id,
        folder=view.folder,
        state=state,
        stage=manifest.status,
        driver=driver,
        written=last_written(study.folder),
        failure=manifest.failure if state == "failed" else "",
        references=len(view.reference),
        references_asked=view.study.study.seeds,
        trials=_trials(view, study.folder, state),
        verification=_verification(view),
        flops=summary.tuning.flops,
        trainings=None if view.facts is None else summary.tuning.flops / view.facts.reference_flops,
        elapsed_s=manifest.elapsed_s,
        num_starts=len(manifest.starts),
        best=_best(view),
        verified=summary.verified,
        headline=summary.headline if state == "finished" else "",
        metric_name=summary.metric_name,
        tolerance=view.study.task.tolerance,
        command=manifest.command or "",
    )


def has_begun(storage: str, run_id: str) -> bool:
    """Whether there is anything to read of a study.

    Raises:
        StorageError: the storage cannot be read.
    """
    study = StudyFolder(storage, run_id)
    return study.exists or driver_of(study.folder) is not None


def _state(view: StudyView, driver: Holder | None) -> State:
    manifest = view.manifest
    if driver is not None:
        return "running"
    if manifest.failure:
        return "failed"
    if manifest.interrupted:
        return "interrupted"
    return "finished" if manifest.status == "finished" else "killed"


def _trials(view: StudyView, folder: Folder, state: State) -> TrialsSoFar:
    causes = count(view.trials)
    return TrialsSoFar(
        asked=max(view.study.study.trials, len(view.trials)),
        finished=causes["finished"],
        stopped=causes["stopped"],
        diverged=causes["diverged"],
        failed=causes["failed"],
        running=_running(view, folder) if state == "running" and view.manifest.status == "search" else 0,
    )


def _running(view: StudyView, folder: Folder) -> int | None:
    """Trials that the journal has begun and not ended; None while it is being written for the first time."""
    try:
        trials = look_at(ReadOnlyJournal(folder, JOURNAL), view.run_id).get_trials(deepcopy=False)
    except StorageError:
        raise
    except StudyError:
        return None
    return sum(not trial.state.is_finished() for trial in trials)


def _verification(view: StudyView) -> dict[str, int]:
    """Runs of the candidates of the latest round, and of the reference beside them."""
    if not view.manifest.rounds:
        return {}
    ran = Counter(run.candidate for run in view.verification if run.cause == "finished")
    return {name: ran[name] for name in ("reference", *view.manifest.rounds[-1].candidates)}


def _best(view: StudyView) -> BestSoFar | None:
    """The policy that passed; until one has, the cheapest trial at the target, unless verification has judged."""
    summary, rounds = view.summary, view.manifest.rounds
    is_open = not rounds or not rounds[-1].is_over
    row = summary.best or (cheapest_trial(view, view.trials) if is_open else None)
    if row is None or row.metric is None or summary.reference is None:
        return None
    reference = row.reference_metric if row.passed is not None else summary.reference.metric
    return None if reference is None else _best_of(view, row, row.metric, reference)


def _best_of(view: StudyView, row: PolicyRow, metric: float, reference: float) -> BestSoFar:
    task = view.study.task
    higher = task.higher_is_better
    assert view.facts is not None, "there is a reference"
    return BestSoFar(
        policy=row.policy,
        compute_share=row.flops / view.facts.reference_flops,
        metric=metric,
        reference_metric=reference,
        gap=metric - reference if higher else reference - metric,
        error_increase=costs.error_increase(metric, reference, higher_is_better=higher) if task.has_error else None,
        is_verified=bool(row.passed),
    )
