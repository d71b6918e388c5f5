"""A study in Weights & Biases: a group with a run a trial, and one for what was found."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from subsettune.callbacks import Callback
from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.extras import needed_for
from subsettune.found import Found
from subsettune.integrations.tracking import (
    curve,
    facts_of,
    local_folder,
    run_metrics,
    run_params,
    study_metrics,
    study_params,
    study_settings,
    values,
)
from subsettune.study.results.records import RunRecord


class WandbCallback(Callback):
    """Tells W&B of a study: its trials are runs of one group, and a run `study` has the result, bundle and report.

    A study that goes on tells of its new trials. The active run of the program is left alone.

    Args:
        project: of W&B.
        entity: the user or team; default: as W&B is set up.
        mode: `offline` writes to disk what `wandb sync` sends later; default: as W&B is set up.
        folder: where W&B writes; default: `wandb` in the working folder.

    Raises:
        ConfigError: the mode is none.
        MissingPackageError: wandb is not installed.
    """

    def __init__(
        self,
        project: str = "subsettune",
        *,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if mode not in (None, "online", "offline"):
            raise ConfigError(must("mode", "online or offline", mode))
        with needed_for("WandbCallback"):
            import wandb
        self._wandb: Any = wandb
        self._place = {
            "project": project,
            "entity": entity,
            "mode": mode,
            "dir": None if folder is None else str(folder),
        }
        self._study = ""
        self._group = ""
        self._facts: Any = None

    def on_start(self, study: Found) -> None:
        """Note which study it is."""
        self._study, self._group, self._facts = study.folder, study.run_id, facts_of(study)

    def on_trial(self, run: RunRecord) -> None:
        """A run of the group, with its curve over thousandths of the recipe's compute."""
        told = self._begin(run.name, "trial", run_params(run, self._facts))
        try:
            for step, point in curve(run, self._facts).items():
                if values(point):
                    told.log({f"curve/{name}": value for name, value in values(point).items()}, step=step)
            told.summary.update({**run_metrics(run, self._facts), "cause": run.cause})
        finally:
            told.finish(exit_code=0 if run.cause in ("finished", "stopped") else 1)

    def on_finish(self, study: Found) -> None:
        """What was found, a table of all trials, the bundle and the report."""
        told = self._begin("study", "study", {**study_params(study), **study_settings(study)})
        try:
            told.summary.update({**study_metrics(study), "headline": study.summary.headline})
            frame = study.trials.reset_index()
            told.log({"trials": self._wandb.Table(columns=list(frame.columns), data=_cells(frame))})
            if local_folder(study) is not None:
                self._keep(told, study)
        finally:
            told.finish()

    def _keep(self, told: Any, study: Found) -> None:
        kept = self._wandb.Artifact(f"{study.run_id}-result", type="study")
        kept.add_file(str(Path(study.folder, "report.html")))
        if study.summary.bundle is not None:
            kept.add_dir(study.summary.bundle, name="bundle")
        told.log_artifact(kept)

    def _begin(self, name: str, kind: str, config: dict[str, Any]) -> Any:
        """A run of its own; the same study, wherever it goes on, has the same runs."""
        key = hashlib.sha256(f"{self._study}:{name}".encode()).hexdigest()[:16]
        quiet = self._wandb.Settings(silent=True, console="off")
        return self._wandb.init(
            **{option: value for option, value in self._place.items() if value is not None},
            id=key,
            name=name,
            group=self._group,
            job_type=kind,
            config=config,
            resume="allow",
            reinit="create_new",
            settings=quiet,
        )


def _cells(frame: Any) -> list[list[Any]]:
    """The rows of a frame with None for what is not there: a column of W&B has one type."""
    return [[None if value != value else value for value in row] for row in frame.astype(object).to_numpy().tolist()]
