"""What `tune` gives back: a study as Python and notebooks look at it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from subsettune.bundle import Bundle
from subsettune.errors import StudyError, did_you_mean
from subsettune.extras import needed_for
from subsettune.facts import TaskFacts
from subsettune.report.notebook import summary_html
from subsettune.report.plotly_figures import plotly_figures
from subsettune.storage import Folder
from subsettune.study.results.folder import JOURNAL
from subsettune.study.results.records import RunRecord, to_table
from subsettune.study.results.summary import Summary
from subsettune.study.results.view import StudyView
from subsettune.study.search.journal import look_at
from subsettune.study.search.journal_storage import ReadOnlyJournal
from subsettune.study.spec.definition import Study
from subsettune.text import counted, describe, saving_words

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from plotly.graph_objects import Figure


class Found:
    """A study as it stands on disk: finished, or as far as it has come.

    Beside what is below, it has all that `view` has: `manifest`, `target`, `candidates`, `verdicts` and so on. Only
    `trials` is a table here, and a tuple of records there.

    Args:
        view: the records, and what they come to.
    """

    def __init__(self, view: StudyView) -> None:
        self._view = view

    @property
    def view(self) -> StudyView:
        """The records as values: what tables and the report are made from."""
        return self._view

    @property
    def run_id(self) -> str:
        """Name of the study."""
        return self._view.run_id

    @property
    def folder(self) -> str:
        """Where it lies; the report is `report.html` in it."""
        return self._view.folder

    @property
    def study(self) -> Study:
        """The resolved input."""
        return self._view.study

    @property
    def facts(self) -> TaskFacts | None:
        """Of the task, once they are known."""
        return self._view.facts

    @property
    def summary(self) -> Summary:
        """What it found: `headline`, `verified`, `best`, `bundle`, and what `show --json` prints."""
        return self._view.summary

    @cached_property
    def bundle(self) -> Bundle | None:
        """The exported policy with its evidence; None where no policy has passed.

        Raises:
            BundleError: it has been moved or damaged.
        """
        return None if self.summary.bundle is None else Bundle.load(self.summary.bundle)

    @property
    def trials(self) -> pd.DataFrame:
        """The runs of the search, a row each by number: metric, compute, and the coordinates of the space.

        `metric` is on the validation split, `matched` whether it reaches the target, `compute_share` the cost of the
        whole policy over the recipe's. A coordinate that a trial does not have is NaN or None.

        Raises:
            MissingPackageError: pandas is not installed; `runs_table` needs none.
        """
        axes = dict.fromkeys(name for run in self._view.trials for name in run.coordinates)
        rows = [self._trial(run, axes) for run in self._view.trials]
        columns = ("number", *_TRIAL, *(_axis(name) for name in axes), "policy")
        return _frame("found.trials", rows, columns).set_index("number")

    @property
    def runs(self) -> pd.DataFrame:
        """All runs of the study, a row each by name: reference, search, verification, ablation, confirmation.

        `seconds` is NaN where nothing was trained: of runs of the reference that verification only measured again.

        Raises:
            MissingPackageError: pandas is not installed; `runs_table` needs none.
        """
        rows = [self._run(run) for run in self._records]
        return _frame("found.runs", rows, _RUN).set_index("name")

    @property
    def runs_table(self) -> pa.Table:
        """All runs with everything that is kept of them, learning curves too, as in the study's Parquet files."""
        return to_table(self._records)

    @property
    def optuna_study(self) -> optuna.Study:
        """The search as Optuna sees it: value `compute_share`, a constraint that is at most 0 where a trial matched.

        It is read when it is asked for, and cannot be added to.

        Raises:
            StudyError: no search has begun, or its journal is damaged.
        """
        return look_at(ReadOnlyJournal(Folder.at(self.folder), JOURNAL), self.run_id)

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The figures of the report by name, as plotly has them; those that there is something to show in."""
        return plotly_figures(self._view)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by pickle, before there is a view, and by IPython
            raise AttributeError(f"'Found' object has no attribute {name!r}", name=name, obj=self)
        if not hasattr(self._view, name):
            guess = did_you_mean(name, dir(self))
            raise AttributeError(f"'Found' object has no attribute {name!r}. {guess}".rstrip(), name=name, obj=self)
        return getattr(self._view, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._view) if not name.startswith("_"))})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Found) and self._view == other._view

    def __hash__(self) -> int:
        return hash((type(self), self.run_id, self.folder))

    def __repr__(self) -> str:
        bundle = self.summary.bundle or "none"
        return f"Study {self.run_id!r}: {self.summary.headline}\n{self._saving()}\nBundle: {bundle}"

    def _repr_html_(self) -> str:
        return summary_html(self._view)

    def _saving(self) -> str:
        best, tuning, reference = self.summary.best, self.summary.tuning, self.summary.reference
        spent = "" if reference is None else f" Tuning cost {tuning.flops / reference.flops:.1f} trainings"
        if not self.summary.verified or best is None or best.saving is None:
            return f"Saving: none is shown.{spent}{'.' if spent else ''}"
        repaid = f", repaid after {counted(tuning.break_even, 'training')}" if tuning.break_even is not None else ""
        return f"Saving: {saving_words(best.saving)} of the compute of each training.{spent}{repaid}."

    @property
    def _records(self) -> tuple[RunRecord, ...]:
        view = self._view
        return (*view.reference, *view.trials, *view.verification, *view.ablation_runs, *view.confirmation_runs)

    def _trial(self, run: RunRecord, axes: Mapping[str, None]) -> dict[str, Any]:
        own = {
            "number": run.number,
            "name": run.name,
            "cause": run.cause,
            "metric": run.metric,
            "matched": run.cause == "finished" and self._view.reaches(run.metric),
            "confirms": run.confirms,
        }
        return own | self._cost(run) | {_axis(name): run.coordinates.get(name) for name in axes}

    def _run(self, run: RunRecord) -> dict[str, Any]:
        own = {name: getattr(run, name) for name in _RUN_FIELDS}
        return own | self._cost(run)

    def _cost(self, run: RunRecord) -> dict[str, Any]:
        """What both tables say of a run's cost, and its seed and policy in words."""
        if self.facts is None:
            raise StudyError(f"study {self.run_id!r} has runs and no facts: it is damaged. Restore it from a copy.")
        return {
            "compute_share": run.cost_flops / self.facts.reference_flops,
            "passes": run.cost_flops / self.facts.pass_flops,
            "seconds": run.seconds if run.ledger.spent or run.cause != "finished" else math.nan,
            "seed": run.seed,
            "policy": describe(run.policy, self.facts),
        }


_COST = ("compute_share", "passes", "seconds", "seed")
_TRIAL = ("name", "cause", "metric", "matched", "confirms", *_COST)
_RUN_FIELDS = ("name", "role", "candidate", "cause", "metric", "test_metric", "message")
_RUN = ("name", "role", "candidate", "cause", "metric", "test_metric", *_COST, "policy", "message")


def _axis(name: str) -> str:
    """The column of a coordinate; one that has the name of another column is told apart."""
    return f"space.{name}" if name in (*_TRIAL, "number", "policy") else name


def _frame(what: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    with needed_for(what):
        import pandas as pd  # of a second's import
    return pd.DataFrame.from_records(rows, columns=list(columns))
