"""The main job in one call: drive a study, export the policy of its winner, write its report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subsettune.bundle.export import chosen, confirm_bundle, export_study
from subsettune.bundle.known import KnownData
from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.plugins import refuse_within_import
from subsettune.report import html, progress
from subsettune.storage import Folder
from subsettune.study.context import StudyContext
from subsettune.study.driver import Delivery, StudyDriver
from subsettune.study.observer import Observer
from subsettune.study.options import TuneOptions, fresh_run_id
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.view import StudyView
from subsettune.study.spec.definition import Study, parse
from subsettune.study.spec.yaml_file import read
from subsettune.study.stages.export import winner_subsets

__all__ = ["TuneOptions", "tune"]


def tune(
    study: Study | Mapping[str, Any] | str | Path,
    *,
    run_id: str | None = None,
    observer: Observer | None = None,
    options: TuneOptions | None = None,
) -> StudyView:
    """Find, verify and export the cheapest policy for a task.

    Args:
        study: a study file, its content as a mapping, or a `Study`.
        run_id: name of the study; the same name goes on with it, or extends it. Default: file name and a number.
        observer: told how it goes; default: silence.
        options: where and how it runs.

    Returns:
        The finished study; `summary.verified` says whether a policy passed, `summary.bundle` where it lies.

    Raises:
        ConfigError, DataError, ModelError, LearningError, StudyError: see `subsettune.errors`.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_within_import()
    options = options or TuneOptions()
    if options.fresh_seeds and run_id is None:
        raise ConfigError(must("run_id", "the name of a finished study with fresh_seeds", run_id))
    name = Path(study).stem if isinstance(study, str | Path) else "study"
    resolved = study if isinstance(study, Study) else read(study) if isinstance(study, str | Path) else parse(study)
    with contextlib.ExitStack() as stack:
        if run_id is None:
            run_id = stack.enter_context(fresh_run_id(options.storage, name))
        folder = StudyFolder(options.storage, run_id)
        silent = stack.enter_context(progress.make_progress(sys.stderr, quiet=True))
        driver = StudyDriver(resolved, folder, observer or silent, options)
        try:
            return driver.run(Delivery(export=_export, report=_report, confirm=_confirm))
        finally:
            driver.lock.release()


def _export(context: StudyContext, winner: str, target: str) -> None:
    subsets = [chosen(index, one, context.data.train) for index, one in winner_subsets(context, winner).items()]
    export_study(
        context.folder.view(),
        winner,
        subsets,
        seed=context.seeds[0],
        target=target,
        places=context.options.places,
        known=KnownData.of(context.data),
    )


def _confirm(context: StudyContext, target: str) -> None:
    view = context.folder.view()
    if Folder.at(target).exists():
        confirm_bundle(view, target)
    elif view.manifest.winner is not None:  # somebody has moved it away
        _export(context, view.manifest.winner, target)


def _report(context: StudyContext, view: StudyView) -> None:
    context.folder.folder.write("report.html", html.page(view).encode())
