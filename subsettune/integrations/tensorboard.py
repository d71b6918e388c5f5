"""A study for TensorBoard: a folder of events a trial, with hyperparameters, results and learning curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    values,
)
from subsettune.study.results.records import RunRecord


class TensorBoardCallback(Callback):
    """Writes a study for `tensorboard --logdir FOLDER`: the tab HPARAMS compares trials, SCALARS has their curves.

    A study that goes on adds the trials whose folder is not there yet.

    Args:
        folder: where to write; default: `tensorboard` in the folder of the study.

    Raises:
        ConfigError: the folder is not on this machine.
        MissingPackageError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is not None and "://" in str(folder):
            raise ConfigError(must("folder", "on this machine", str(folder), "Copy it there when the study has ended."))
        with needed_for("TensorBoardCallback"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter
        self._given = folder
        self._folder = Path()
        self._facts: Any = None

    def on_start(self, study: Found) -> None:
        """Find the folder, and write the trials that it lacks."""
        own = local_folder(study)
        if self._given is None and own is None:
            advice = "TensorBoard's events cannot be appended to on an object store: name a local folder."
            raise ConfigError(must("folder", "given for a study that is not on this machine", None, advice))
        self._folder = Path(own or "", "tensorboard") if self._given is None else Path(self._given, study.run_id)
        self._facts = facts_of(study)
        for run in study.view.trials:
            self.on_trial(run)

    def on_trial(self, run: RunRecord) -> None:
        """A folder of its own, with the curve over thousandths of the recipe's compute."""
        folder = self._folder / run.name
        if folder.exists():
            return
        with self._writer(str(folder)) as writer:
            for step, point in curve(run, self._facts).items():
                for name, value in values(point).items():
                    writer.add_scalar(f"curve/{name}", value, step)
            params = {**run_params(run, self._facts), "cause": run.cause}
            results = {f"result/{name}": value for name, value in run_metrics(run, self._facts).items()}
            writer.add_hparams(params, results, run_name=".")

    def on_finish(self, study: Found) -> None:
        """What was found, in the folder `study`."""
        with self._writer(str(self._folder / "study")) as writer:
            writer.add_text("headline", study.summary.headline, len(study.view.trials))
            for name, value in study_metrics(study).items():
                writer.add_scalar(f"study/{name}", value, len(study.view.trials))
