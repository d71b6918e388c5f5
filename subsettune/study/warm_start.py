"""Earlier studies that a study is begun with: which can be, and what is taken of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from subsettune.config import must
from subsettune.errors import ConfigError, Mistake, StudyError
from subsettune.policy import BATCHING
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.known_before import KnownBefore, TakenStudy, TakenTrial
from subsettune.study.results.records import RunRecord
from subsettune.study.search.earlier import point_within
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space import Space
from subsettune.study.spec.space_check import read_space

_PATH = ("study", "warm_start")


def take(study: Study, space: Space, storage: str) -> tuple[TakenStudy, ...]:
    """What the earlier studies showed that a study names.

    Args:
        study: that is to begin.
        space: that it searches.
        storage: folder or URI in which run ids are looked up.

    Raises:
        ConfigError: one of them cannot be used, each with its reason.
    """
    found, mistakes = [], []
    for name in study.study.warm_start:
        try:
            earlier = _open(name, storage)
            mistakes += [Mistake(_PATH, message) for message in _misfits(earlier, study, space)]
            found.append(earlier)
        except (ConfigError, StudyError) as error:
            advice = f"{str(error).rstrip('.')}."
            mistakes.append(Mistake(_PATH, must("warm_start", "earlier studies that can be read", name, advice)))
    if mistakes:
        raise ConfigError(tuple(mistakes))
    taken = tuple(_taken(earlier, space) for earlier in found)
    empty = [Mistake(_PATH, _nothing_left(one.known)) for one in taken if not one.trials]
    if empty:
        raise ConfigError(tuple(empty))
    return taken


def _open(name: str, storage: str) -> StudyFolder:
    """The study of a run id, or of a folder."""
    is_folder = "/" in name or (not StudyFolder(storage, name).exists and Path(name).is_dir())
    where, _, run_id = name.rstrip("/").rpartition("/") if is_folder else (storage, "", name)
    return StudyFolder(where or ".", run_id).open()


def _misfits(earlier: StudyFolder, study: Study, space: Space) -> Iterator[str]:
    """Why an earlier study tells nothing of this one."""
    manifest, name = earlier.manifest, earlier.run_id
    metric, own = manifest.study.task.metric, study.task.metric
    if metric != own:
        yield must("warm_start", f"studies of the metric {own}", name, f"That one is of {metric}.")
    there = {axis.name for axis in read_space(manifest.study.space).coordinates}
    here = {axis.name for axis in space.coordinates}
    if there != here:
        lacks, more = ", ".join(sorted(here - there)), ", ".join(sorted(there - here))
        advice = " ".join([f"It lacks {lacks}."] * bool(lacks) + [f"This space lacks {more}."] * bool(more))
        yield must("warm_start", "studies with the coordinates of this space", name, advice)
    if manifest.batching != BATCHING:
        advice = "The version that ran it cut phases into other batches: its runs cannot be compared with new ones."
        yield must("warm_start", "studies with batches as they are today", name, advice)
    if manifest.noise is None or manifest.facts is None:
        yield must("warm_start", "studies whose reference has run", name, "That one has not got there.")


def _taken(earlier: StudyFolder, space: Space) -> TakenStudy:
    manifest, trials = earlier.manifest, earlier.records("trial")
    assert manifest.facts is not None, "see _misfits"
    assert manifest.noise is not None, "see _misfits"
    references = [r.metric for r in earlier.records("reference") if r.metric is not None][: manifest.study.study.seeds]
    finished = [trial for trial in trials if trial.cause == "finished" and trial.metric is not None]
    kept = [taken for trial in finished if (taken := _within(trial, space)) is not None]
    spent = sum(trial.study_flops for trial in trials)
    before = sum(one.trainings for one in manifest.known_before)
    known = KnownBefore(
        run_id=earlier.run_id,
        folder=str(earlier.folder),
        trials=len(kept),
        outside=len(finished) - len(kept),
        unfinished=len(trials) - len(finished),
        trainings=spent / manifest.facts.reference_flops + before,
    )
    return TakenStudy(
        known=known,
        reference=sum(references) / len(references),
        num_references=len(references),
        noise=manifest.noise,
        trials=tuple(kept),
    )


def _within(trial: RunRecord, space: Space) -> TakenTrial | None:
    assert trial.metric is not None
    point = point_within(space, trial.coordinates)
    return None if point is None else TakenTrial(coordinates=point, metric=trial.metric, seed=trial.seed)


def _nothing_left(known: KnownBefore) -> str:
    advice = f"{known.outside} of its trials lie outside of this space, {known.unfinished} did not finish."
    return must("warm_start", "studies with finished trials in this space", known.run_id, advice)
