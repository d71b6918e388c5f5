"""The main job in one call: drive a study, export the policy of its winner, write its report."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Never

from subsettune.bundle.bundle import Bundle
from subsettune.bundle.export import chosen, confirm_bundle, export_study
from subsettune.bundle.known import KnownData
from subsettune.bundle.readme import how_to_use
from subsettune.bundle.rows import TrainingRows
from subsettune.callbacks import ToldObserver, check_callbacks
from subsettune.config import must
from subsettune.errors import ArgumentError, BundleError, ConfigError, did_you_mean
from subsettune.found import Found
from subsettune.patience import telling
from subsettune.plugins import refuse_within_import
from subsettune.report import html
from subsettune.report.notebook import default_progress
from subsettune.report.progress import SilentProgress
from subsettune.storage import Folder
from subsettune.study import DEFAULT_STORAGE
from subsettune.study.context import StudyContext
from subsettune.study.driver import Delivery, StudyDriver
from subsettune.study.importable import check_goal_code
from subsettune.study.observer import Observer
from subsettune.study.options import TuneOptions, fresh_run_id
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.view import StudyView
from subsettune.study.spec.definition import Study, StudySettings, parse
from subsettune.study.spec.yaml_file import read
from subsettune.study.stages.export import winner_subsets

__all__ = ["TuneOptions", "load_study", "tune"]
_CALLED = tuple(name for name in vars(Observer) if not name.startswith("_"))
KEYWORDS = ("run_id", "observer", "options", "callbacks", "quiet")


def tune(
    study: Study | Mapping[str, Any] | str | Path,
    *,
    run_id: str | None = None,
    observer: Observer | None = None,
    options: TuneOptions | None = None,
    callbacks: Iterable[Any] = (),
    quiet: bool = False,
    **unknown: Never,
) -> Found:
    """Find, verify and export the cheapest policy for a task.

    How it goes is shown in the output of a notebook's cell, redrawn on a terminal, or told by a line a minute on
    standard error.

    Args:
        study: a study file, its content as a mapping, or a `Study`.
        run_id: name of the study; the same name goes on with it, or extends it. Default: file name and a number.
        observer: told how it goes, instead of what is shown by default.
        options: where and how it runs.
        callbacks: told of stages, runs and the end: objects with some of the methods of `subsettune.Callback`.
        quiet: show nothing.

    Returns:
        The finished study; `summary.verified` says whether a policy passed, `bundle` is that policy.

    Raises:
        ConfigError, DataError, ModelError, LearningError, StudyError: see `subsettune.errors`.
        ArgumentError: a keyword that is none; it is a TypeError, too.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_within_import()
    _refuse_unknown(unknown)
    _refuse_other_kinds(observer, options, quiet)
    told = check_callbacks(callbacks)
    options = options or TuneOptions()
    if options.fresh_seeds and run_id is None:
        raise ConfigError(must("run_id", "the name of a finished study with fresh_seeds", run_id))
    name = Path(study).stem if isinstance(study, str | Path) else "study"
    resolved = study if isinstance(study, Study) else read(study) if isinstance(study, str | Path) else parse(study)
    check_goal_code(resolved)
    with contextlib.ExitStack() as stack:
        if run_id is None:
            run_id = stack.enter_context(fresh_run_id(options.storage, name))
        folder = StudyFolder(options.storage, run_id)
        if observer is None:
            observer = stack.enter_context(SilentProgress() if quiet else default_progress(sys.stderr))
            observer.note(f"Study {run_id!r} in {options.storage}; tune with run_id={run_id!r} goes on with it.")
        stack.enter_context(telling(observer.note))
        return _driven(StudyDriver(resolved, folder, told_to := ToldObserver(observer, told), options), told_to)


def _driven(driver: StudyDriver, observer: ToldObserver) -> Found:
    try:
        observer.start(driver.context.folder.view())
        return Found(driver.run(Delivery(export=_export, report=_report, confirm=_confirm)))
    except BaseException as error:
        observer.fail(error)
        raise
    finally:
        driver.lock.release()


def load_study(run_id: str, *, storage: str | Path = DEFAULT_STORAGE) -> Found:
    """A study that lies on disk, finished or not; one that runs may be looked at, too.

    Args:
        run_id: its name.
        storage: folder or URI that holds studies.

    Raises:
        StudyError: it is not there, or a file of it is damaged.
    """
    return Found(StudyFolder(str(storage), run_id).open().view())


def _refuse_other_kinds(observer: object, options: object, quiet: object) -> None:
    if not isinstance(options, TuneOptions | None):
        raise ConfigError(must("options", "a TuneOptions", options, "Write options=TuneOptions(...)."))
    if not isinstance(quiet, bool):
        raise ConfigError(must("quiet", "True or False", quiet))
    lacking = [name for name in _CALLED if not callable(getattr(observer, name, None))] if observer is not None else []
    if lacking:
        advice = f"It lacks {', '.join(lacking)}. For some of the calls alone, give callbacks."
        raise ConfigError(must("observer", "an object with the methods of an Observer", observer, advice))


def _refuse_unknown(unknown: Mapping[str, object]) -> None:
    """Say where a keyword belongs that is none of `tune`."""
    for name, value in unknown.items():
        places = {"options=TuneOptions({}={!r})": TuneOptions, 'the study: {{"study": {{"{}": {!r}}}}}': StudySettings}
        known = (where for where, kind in places.items() if name in {f.name for f in dataclasses.fields(kind)})
        advice = next((f"It belongs into {where.format(name, value)}." for where in known), None)
        advice = advice or did_you_mean(name, KEYWORDS)
        raise ArgumentError(f"tune has no keyword {name!r}. {advice} Known: {', '.join(KEYWORDS)}.".replace("  ", " "))


def _export(context: StudyContext, winner: str, target: str) -> None:
    subsets = [chosen(index, one, context.data.train) for index, one in winner_subsets(context, winner).items()]
    view = context.folder.view()
    export_study(
        view,
        winner,
        subsets,
        seed=context.seeds[0],
        target=target,
        places=context.options.places,
        known=KnownData.of(context.data),
        rows=TrainingRows.of(context.data) if view.study.task.distortion.is_off else None,
    )


def _confirm(context: StudyContext, target: str) -> None:
    view = context.folder.view()
    if Folder.at(target).exists():
        confirm_bundle(view, target)
    elif view.manifest.winner is not None:  # somebody has moved it away
        _export(context, view.manifest.winner, target)


def report_page(view: StudyView) -> str:
    """The report of a study, with how its bundle is used where it has one."""
    return html.page(view, usage=_usage(view.summary.bundle))


def _usage(place: str | None) -> str:
    if place is None:
        return ""
    try:
        return how_to_use(Bundle.load(place), place)
    except BundleError as error:  # the study can be read all the same
        return f"The bundle cannot be used: {error}"


def _report(context: StudyContext, view: StudyView) -> None:
    context.folder.folder.write("report.html", report_page(view).encode())
