"""The product's own study, driver and all, with the training of each run looked up in a table or carried out.

Seeds of a study are drawn among the columns of its table: those of reference and verification by one permutation that
the study's seed gives, the same column for all policies, so that they are paired as they are in a real study; those of
trials, which no two policies share, by a permutation for each policy, among columns that verification seldom uses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from studies_parts.tables import Table
from subsettune.config import must
from subsettune.data import DataPaths
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.study.driver import Delivery, Executor, StudyDriver
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.outcomes import PartialRun
from subsettune.study.execute.requests import RunRequest
from subsettune.study.options import TuneOptions
from subsettune.study.results.confirmation import SEEDS_APART
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.headline import outcome_words
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import REFERENCE, StudyView
from subsettune.study.spec.definition import Study
from subsettune.train.result import CurvePoint, RunResult

FOR_TRIALS = 3  # one column of so many is for trials alone


class Silent:
    """An observer that tells nobody."""

    def stage(self, name: str, num_runs: int | None) -> None: ...

    def run_started(self, name: str) -> None: ...

    def run_progress(self, name: str, share: float, metric: float | None) -> None: ...

    def run_finished(self, record: RunRecord) -> None: ...

    def best(self, policy: Policy, cost_share: float, gap: float) -> None: ...

    def note(self, message: str) -> None: ...

    def finished(self, view: StudyView) -> None: ...


class MemoryFolder(StudyFolder):
    """A study whose rows and manifest stay in memory: what goes on with it goes on with this object."""

    @property
    def exists(self) -> bool:
        return self._manifest is not None

    def open(self) -> MemoryFolder:
        return self

    def add(self, record: RunRecord) -> None:
        self._tables[record.role].put(record)

    def save(self) -> None: ...


DELIVERY = Delivery(
    export=lambda context, winner, target: None,
    report=lambda context, view: None,
    confirm=lambda context, target: None,
)


def carry_out(
    study: Study, places: DataPaths, driver: type[StudyDriver] = StudyDriver, *, confirms: bool = False
) -> StudyView:
    """Drive a study in this process, from its reference to its verification; nothing is exported or kept on disk.

    Args:
        study: the resolved input.
        places: where this machine keeps data.
        driver: the product's, or one whose runs are looked up.
        confirms: whether a policy that it found is verified once more, with fresh seeds.
    """
    with tempfile.TemporaryDirectory(prefix="subsettune-") as storage:
        options = TuneOptions(storage=storage, executor="inline", device="cpu", places=places)
        folder = MemoryFolder(storage, "study")
        view = _driven(driver(study, folder, Silent(), options))
        if confirms and view.summary.verified:
            view = _driven(driver(study, folder, Silent(), dataclasses.replace(options, fresh_seeds=True)))
        return view


def _driven(driver: StudyDriver) -> StudyView:
    try:
        return driver.run(DELIVERY)
    finally:
        driver.lock.release()


# --- on a table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How the seeds of a study become columns of its table.

    Args:
        study: seed of the study.
        num_columns: of the table.
        num_paired: columns that are not for trials.
        repeats: whether each seed draws its column anew, so that two may be the same, as from an endless table; else no
            two seeds have the same as long as there are enough.
    """

    study: int
    num_columns: int
    num_paired: int
    repeats: bool = False

    def paired(self, index: int) -> int:
        """The column of the seed number `index` of reference and verification."""
        if self.repeats:
            return int(self._rng("pairs", str(index)).integers(self.num_columns))
        if index >= self.num_columns:
            advice = "Ask for fewer seeds, or draw columns anew for each."
            raise ValueError(
                must("seeds of a study", f"at most {self.num_columns}, as its table has", index + 1, advice)
            )
        return int(self._pairs()[index])

    def single(self, policy: Policy, index: int) -> int:
        """The column of the trial number `index` of a policy."""
        left = self._pairs()[self.num_paired :] if not self.repeats else np.arange(self.num_columns)
        columns = left if len(left) else np.arange(self.num_columns)
        order = self._rng("trials", policy.key).permutation(columns)
        return int(order[index % len(order)])

    def _pairs(self) -> np.ndarray:
        return self._rng("pairs").permutation(self.num_columns)

    def _rng(self, *words: str) -> np.random.Generator:
        told = ":".join((str(self.study), *words))
        return np.random.default_rng(list(hashlib.sha256(told.encode()).digest()))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableWorker:
    """Stands for the worker of a study: looks runs up instead of training them.

    Args:
        table: that holds them.
        draw: of its columns.
        evaluations: points of a learning curve, each paid for; a divisor of the table's, which has 10.
        shift: added to the test metric of a policy, e.g. what puts it exactly at the margin; None adds nothing.
    """

    table: Table
    draw: Draw
    evaluations: int
    shift: Callable[[Policy], float] | None = None
    _trials: dict[str, dict[int, int]] = field(default_factory=dict)

    def train(self, request: RunRequest, report: Callable[[CurvePoint], bool]) -> RunResult:
        """What training would have come to, the points of its curve told on the way."""
        whole = self.table.result(request.policy, self.column(request))
        told = tuple(point for point in whole.curve if _is_whole(point.share * self.evaluations))
        for number, point in enumerate(told, start=1):
            if report(point) and point is not told[-1]:
                return self._stopped(whole, told[:number], request)
        metrics = {name: value for name, value in whole.metrics.items() if name in ("validation", *request.splits)}
        if "test" in metrics and self.shift is not None:
            metrics["test"] += self.shift(request.policy)
        measured = len(told) * self._price("validation") + sum(self._price(n) for n in metrics if n != "validation")
        ledger = dataclasses.replace(whole.ledger, evaluate=measured)
        return dataclasses.replace(
            whole, seed=request.seed, metrics=type(whole.metrics)(metrics), curve=told, ledger=ledger
        )

    def seen(self, request: RunRequest, points: Sequence[CurvePoint]) -> PartialRun:
        """See `Worker.seen`; runs of a table never fail."""
        return PartialRun(points=tuple(points))

    def column(self, request: RunRequest) -> int:
        """Which column a run is looked up in."""
        index = request.seed - self.draw.study * SEEDS_APART
        if 0 <= index < SEEDS_APART and request.role != "trial":
            return self.draw.paired(index)
        seeds = self._trials.setdefault(request.policy.key, {})
        return self.draw.single(request.policy, seeds.setdefault(request.seed, len(seeds)))

    def _price(self, split: str) -> int:
        return int(self.table.num_examples[split]) * self.table.facts.forward_flops

    def _stopped(self, whole: RunResult, told: tuple[CurvePoint, ...], request: RunRequest) -> RunResult:
        last = told[-1]
        ledger = Ledger(
            select=last.select,
            forward=last.forward,
            backward=last.flops - last.select - last.forward,
            evaluate=len(told) * self._price("validation"),
        )
        return dataclasses.replace(
            whole,
            seed=request.seed,
            cause="stopped",
            message="The caller's report stopped it.",
            metrics=type(whole.metrics)({}),
            curve=told,
            ledger=ledger,
            train_s=whole.train_s * last.share,
        )


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-9


def on_table(
    study: Study,
    table: Table,
    *,
    repeats: bool = False,
    shift: Callable[[Policy], float] | None = None,
    confirms: bool = False,
) -> StudyView:
    """A study whose runs are looked up.

    Args:
        study: of the table's task.
        table: of its space.
        repeats: see `Draw`.
        shift: see `TableWorker`.
        confirms: see `carry_out`; fresh seeds have columns of their own where `repeats`.
    """

    class TableDriver(StudyDriver):
        def _executor(self) -> Executor:
            context = self.context
            draw = draw_of(table, context.settings.seed, repeats=repeats)
            worker = TableWorker(table=table, draw=draw, evaluations=context.run_options().evaluations, shift=shift)
            return InlineExecutor(worker, context.facts, len(context.data.validation), context.clock)

    return carry_out(study, table.places, TableDriver, confirms=confirms)


def draw_of(table: Table, seed: int, *, repeats: bool = False) -> Draw:
    """The draw of a study's columns: a third of them are kept for trials."""
    paired = table.num_columns - table.num_columns // FOR_TRIALS
    return Draw(study=seed, num_columns=table.num_columns, num_paired=paired, repeats=repeats)


# --- what it came to --------------------------------------------------------------------------------------------------


def spent(view: StudyView) -> float:
    """What a study cost, in conventional trainings, by its own ledger."""
    assert view.facts is not None
    assert view.summary.tuning.passes is not None
    return view.summary.tuning.passes / view.facts.reference_passes


def stages(view: StudyView) -> dict[str, float]:
    """What each stage of a study cost, in conventional trainings; they add up to `spent`."""
    parts = {
        "reference": view.reference,
        "search": view.trials,
        "verification: reference": [run for run in view.verification if run.candidate == REFERENCE],
        "verification: candidates": [run for run in view.verification if _is_candidate(view, run.candidate)],
        "verification: controls": [run for run in view.verification if _is_control(view, run.candidate)],
        "ablation": view.ablation_runs,
        "confirmation": view.confirmation_runs,
    }
    assert view.facts is not None
    whole = view.facts.reference_flops
    return {name: sum(run.study_flops for run in runs) / whole for name, runs in parts.items()}


def _is_candidate(view: StudyView, name: str) -> bool:
    return name != REFERENCE and not _is_control(view, name)


def _is_control(view: StudyView, name: str) -> bool:
    return name in view.candidates and view.candidates[name].is_control


def claims_win(view: StudyView) -> bool:
    """Whether a policy of the subset arm is said to be better than plain training of its compute."""
    win = view.summary.win
    return win is not None and win.shown is True


def outcomes(view: StudyView) -> dict[str, str]:
    """What verification said of each policy of the line-up, and of controls, beside its cost."""
    assert view.facts is not None
    whole = view.facts.reference_flops
    return {
        f"{name} ({one.policy.arm}, {one.cost_flops / whole:.3f})": outcome_words(view, name)
        for name, one in view.candidates.items()
    }
