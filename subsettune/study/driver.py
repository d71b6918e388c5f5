"""The driver of a study: reference, search, verification, ablation.

`StudyDriver.stages` reads as the study goes; each stage is a source of runs that an executor carries out, in this
process or on a Ray cluster. What is finished is on disk before it is acted on, so the same call with the same run id
goes on where a killed driver stopped, does nothing twice, and extends a finished study when more trials are asked for.
What becomes of the winner and of the finished study is the caller's affair: `subsettune.api` exports and reports.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from subsettune.config import FrozenDict
from subsettune.data import TaskData
from subsettune.data.audit import audit
from subsettune.data.example import guess_of
from subsettune.errors import StorageError, StudyError
from subsettune.facts import TaskFacts
from subsettune.patience import hurried
from subsettune.policy import BATCHING
from subsettune.study.another import refuse_another
from subsettune.study.context import StudyContext
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.looks import Looks
from subsettune.study.execute.node_check import versions_here
from subsettune.study.execute.ray_import import importing_ray
from subsettune.study.execute.sequence import ObservedSource, RunSource, StageSequence, stopwatch
from subsettune.study.execute.signals import stops_as_sigint
from subsettune.study.execute.worker import Worker
from subsettune.study.importable import check_importable, own_code
from subsettune.study.observer import Observer
from subsettune.study.options import TuneOptions, check_storage, device_of
from subsettune.study.preflight import check_here, resolve_study, user_code
from subsettune.study.results.confirmation import SEEDS_APART
from subsettune.study.results.folder import JOURNAL, TABLES, StudyFolder
from subsettune.study.results.known_before import store, stored
from subsettune.study.results.lock import DriverLock
from subsettune.study.results.manifest import DataOrigin, Manifest
from subsettune.study.results.view import StudyView
from subsettune.study.search.journal_storage import journal_at
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space import Space
from subsettune.study.stages.ablation import AblationStage, contenders
from subsettune.study.stages.confirmation import ConfirmationStage, refuse_unfinished
from subsettune.study.stages.reference import ReferenceStage
from subsettune.study.stages.search import SearchStage
from subsettune.study.stages.verification import VerificationStage
from subsettune.study.verification.noninferiority import MOST_OWN
from subsettune.study.warm_start import take
from subsettune.text import flops_words
from subsettune.train.loop import RunOptions


class Executor(Protocol):
    """Carries out a sequence of stages."""

    def execute(self, sequence: StageSequence) -> None:
        """Run everything that the sequence asks for; raise its first error."""


class Stage(Protocol):
    """A stretch of a study, between two states of its manifest."""

    @property
    def name(self) -> str:
        """The status of a study that is in it."""

    def source(self) -> RunSource | None:
        """The runs that it asks for; None for none."""

    def finish(self) -> None:
        """Note what they showed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is done with a study that has come to its end.

    Args:
        export: writes the policy of the winner, a name of a candidate, to a place.
        report: writes about the study as it stands; called when it is interrupted, too.
        confirm: writes into the bundle at a place what a confirmation of its policy showed.
    """

    export: Callable[[StudyContext, str, str], None]
    report: Callable[[StudyContext, StudyView], None]
    confirm: Callable[[StudyContext, str], None]


class StudyDriver:
    """A study that is being driven.

    Args:
        study: the resolved input.
        folder: where it lies, new or begun.
        observer: told how it goes.
        options: where and how it runs.

    Raises:
        ConfigError, DataError, ModelError, StudyError: it cannot be run, or not under this run id.
    """

    def __init__(self, study: Study, folder: StudyFolder, observer: Observer, options: TuneOptions) -> None:
        if options.fresh_seeds:
            refuse_unfinished(folder.open(), study)
        if options.executor == "ray":
            check_importable(study)
        self.address, self.address_origin = _address(options)
        check_storage(options)
        if self.address is None:
            check_here(study, options.device, is_inline=options.executor == "inline")
        device = device_of(study, options)
        resolved = resolve_study(study, options.places, lambda name: observer.stage(name, None))
        first = study.study.seed * SEEDS_APART
        self.lock = DriverLock(folder.folder, folder.run_id)
        folder.guard(self.lock.check)
        try:
            _open(study, folder, options, _origin(study, resolved.data), resolved.space)
            known_before = stored(folder.folder) if study.study.warm_start else ()
            _refuse_another_count(folder, resolved.facts)
            folder.note(facts=resolved.facts, known_before=tuple(one.known for one in known_before))
            gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
            folder.started(options.command, gpus, torch.cuda.get_device_name() if gpus else "")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                _note_early_stop(folder)
            self.lock.release()
            raise
        self.context = StudyContext(
            study=study,
            folder=folder,
            observer=observer,
            options=options,
            device=device,
            data=resolved.data,
            facts=resolved.facts,
            space=resolved.space,
            seeds=tuple(range(first, first + MOST_OWN * study.study.seed_cap)),
            known_before=known_before,
            clock=stopwatch(folder.manifest.elapsed_s),
        )

    def run(self, delivery: Delivery) -> StudyView:
        """Drive the study to its end, and deliver it.

        Raises:
            KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP; what is finished is on disk, and reported.
        """
        context, folder = self.context, self.context.folder
        try:
            with stops_as_sigint():
                self._say_what_is_known()
                if context.options.fresh_seeds:
                    self._confirm(delivery)
                elif not _is_complete(context.study, folder.manifest):
                    self._executor().execute(StageSequence(self.sources()))
                    self._export(delivery)
                context.set_status("finished")
                context.observer.stage("report", None)
        except KeyboardInterrupt:
            self._note_interruption(delivery)
            raise
        except Exception as error:
            with hurried(), contextlib.suppress(StudyError):  # the first error is the one to tell
                folder.settle()
                context.note(failure=" ".join(str(error).split()) or type(error).__name__)
            raise
        view = folder.view()
        self._report(delivery, view)
        context.observer.finished(view)
        return view

    def _say_what_is_known(self) -> None:
        """Where the study lies, how it goes on, and what is to be known of its data."""
        context, folder = self.context, self.context.folder
        if context.options.command:
            where = f"Study {folder.run_id} in {context.options.storage}"
            context.observer.note(f"{where}. Stop it with {context.options.stop}; to go on: {context.options.command}")
        guess = "" if context.task.is_own else guess_of(context.data, context.task.data)
        if guess:
            context.observer.note(f"An example was {guess}.")
        for known in folder.manifest.known_before:
            context.observer.note(known.sentence)
        for warning in folder.manifest.data_warnings:
            context.observer.note(f"Look at the data: {warning}")
        for note in context.facts.notes:
            context.observer.note(note)

    def _note_interruption(self, delivery: Delivery) -> None:
        """Write down that the study was interrupted, and about it; whoever asked does not wait for a storage."""
        context = self.context
        with hurried():
            try:
                context.folder.settle()
                context.note(interrupted=True)
            except StorageError as error:  # every run that has ended is on record all the same
                context.observer.note(str(error))
            else:
                self._report(delivery, context.folder.view())

    def _report(self, delivery: Delivery, view: StudyView) -> None:
        """Write about a study whose result is on record: that is told even where its report has no room."""
        try:
            delivery.report(self.context, view)
        except StorageError as error:
            again = (
                f"subsettune report {shlex.quote(view.run_id)} --storage {shlex.quote(self.context.options.storage)}"
            )
            self.context.observer.note(f"The report is not written: {error} To write it then: {again}")

    def stages(self) -> Iterator[Stage]:
        """What a study does, in order; each stage is made when the one before it has ended."""
        yield ReferenceStage(self.context)
        searching = SearchStage(self.context)
        rounds = self.context.folder.manifest.rounds
        if rounds and not rounds[-1].is_over and rounds[-1].trials_asked < self.context.settings.trials:
            yield VerificationStage(self.context, searching.search)  # what was cut off ends before more trials begin
        yield searching
        yield VerificationStage(self.context, searching.search)
        if contenders(self.context):
            yield AblationStage(self.context, searching.search)

    def sources(self) -> Iterator[RunSource]:
        """The runs of each stage, watched; what they showed is noted before the next stage begins."""
        for stage in self.stages():
            self.context.set_status(stage.name)
            source = stage.source()
            if source is not None:
                yield ObservedSource(source, self.context.observer)
            stage.finish()

    def _confirm(self, delivery: Delivery) -> None:
        """Verify the exported policy once more; the study stays as it is, and finished."""
        context = self.context
        source = ConfirmationStage(context).source()
        if source is not None:
            self._executor().execute(StageSequence(iter([ObservedSource(source, context.observer)])))
        context.checkpoints.remove()
        delivery.confirm(context, context.uri("bundle"))

    def _export(self, delivery: Delivery) -> None:
        context = self.context
        context.set_status("export")
        manifest = context.folder.manifest
        context.note(trials_asked=max(context.settings.trials, manifest.trials_asked))
        if manifest.winner is not None:
            context.observer.stage("export", None)
            target = context.uri("bundle")
            context.folder.note(bundle=target)
            delivery.export(context, manifest.winner, target)
        context.checkpoints.remove()  # every run is on record, and what a run alone could tell is in the bundle
        context.folder.save()

    def _executor(self) -> Executor:
        context, options = self.context, self.context.run_options()
        num_validation, settings = len(context.data.validation), context.settings
        worker = Worker(
            task=context.task,
            options=options,
            logs=context.uri("tune/logs"),
            alone=self._alone(options),
            code=context.folder.manifest.code,
            versions=FrozenDict(versions_here()),
            shared=context.uri("study.yaml") if context.options.executor == "ray" else None,
            looks=Looks(
                facts=context.facts,
                num_validation=num_validation,
                share_prefixes=settings.share_prefixes,
                reference_looks=settings.reference_looks,
            ),
            gpus=settings.gpus_per_trial,
        )
        if context.options.executor == "inline":
            note = context.observer.note
            return InlineExecutor(worker, context.facts, num_validation, context.clock, note=note)
        context.observer.stage("starting Ray" if self.address is None else "connecting to Ray", None)
        with importing_ray():
            from subsettune.study.execute.ray import RayExecutor
            from subsettune.study.execute.ray_cluster import Resources  # Ray takes seconds to load

        settings = context.settings
        resources = Resources(
            parallel=settings.parallel,
            cpus=settings.cpus_per_trial,
            gpus=settings.gpus_per_trial,
            soup_processes=settings.soup_processes,
            address=self.address,
            origin=self.address_origin,
        )
        return RayExecutor(
            worker,
            context.facts,
            num_validation,
            context.clock,
            resources=resources,
            storage=context.uri("tune"),
            note=context.observer.note,
            code=own_code(context.study),
            silence_limit_s=settings.silence_limit_s,
        )

    def _alone(self, options: RunOptions) -> tuple[str, ...]:
        """Words of the command that trains this task by itself, as a run of the study does."""
        words = ["subsettune", "train", self.context.uri("study.yaml"), "--threads", str(options.num_threads)]
        words += ["--device", options.device, "--cache", options.places.cache_folder]
        words += ["--data-root", options.places.data_root] if options.places.data_root is not None else []
        return tuple(words)


def _note_early_stop(folder: StudyFolder) -> None:
    """Write down that a study was interrupted which had hardly begun, or was going to go on."""
    if folder.is_open and folder.manifest.status != "finished":
        with hurried(), contextlib.suppress(StorageError):
            folder.note(interrupted=True)
            folder.save()


def _origin(study: Study, data: TaskData) -> DataOrigin:
    """Which data these are, and what to know of them."""
    if study.task.is_own:
        return DataOrigin(fingerprint=data.fingerprint, source=study.task.words)
    return DataOrigin(
        fingerprint=data.fingerprint,
        source=study.task.data.source,
        test_from="file" if data.from_files["test"] else "split",
        validation_from="file" if data.from_files["validation"] else "",
        warnings=audit(data, study.task.split).warnings,
    )


def _address(options: TuneOptions) -> tuple[str | None, str]:
    """The address of the cluster, null where runs stay on this machine, and where it was given."""
    if options.executor == "inline":
        return None, ""
    if options.address:
        return options.address, "--address"
    return os.environ.get("RAY_ADDRESS") or None, "RAY_ADDRESS"  # Ray sets it in the jobs of a cluster


def _is_complete(study: Study, manifest: Manifest) -> bool:
    """Whether a finished study is asked for nothing more than it has."""
    if manifest.status != "finished" or manifest.trials_asked < study.study.trials:
        return False
    compared = 0 if manifest.ablation is None else len(manifest.ablation.seeds)
    return not study.contenders or compared >= study.study.ablation_seeds


def _open(study: Study, folder: StudyFolder, options: TuneOptions, data: DataOrigin, space: Space) -> None:
    """Begin the study, or open the one that has begun under its run id."""
    code = user_code(study)
    if not folder.exists:
        if study.study.warm_start:
            store(folder.folder, take(study, space, options.storage))
        folder.begin(study)
    else:
        folder.open()
        refuse_another(study, folder, data)
        _refuse_other_code(folder, code)
        refuse_other_batches(study, folder)
        journal_at(folder.folder, JOURNAL)  # a damaged one is told before anything runs
        goes_on = study.study.trials >= len(folder.records("trial")) and not options.fresh_seeds
        if goes_on:  # else it is as it was: nothing is undone
            folder.takes(study)
            folder.note(command=options.command)
    folder.note(data=data, code=FrozenDict(code))


def _refuse_other_code(folder: StudyFolder, code: Mapping[str, str]) -> None:
    """Runs of one study must run one code; as long as none has trained, a mistake in it may be mended."""
    before = folder.manifest.code
    changed = [name for name in sorted(code) if before.get(name, code[name]) != code[name]]
    if changed and any(record.cause != "failed" for role in TABLES for record in folder.records(role)):
        raise StudyError(
            f"the code of {changed[0]!r}, a file that it imports or one that its options name, has changed since run "
            f"id {folder.run_id!r} began: its runs would not be comparable. Put the old one back, or choose another "
            "--run-id."
        )


def refuse_other_batches(study: Study, folder: StudyFolder) -> None:
    """Runs of one study must cut their phases into batches in one way; one that asks for no more runs may be opened."""
    if folder.manifest.batching == BATCHING or _is_complete(study, folder.manifest):
        return
    if not any(folder.records(role) for role in TABLES):
        folder.note(batching=BATCHING)
        return
    raise StudyError(
        f"run id {folder.run_id!r} was begun by a version that ended each round with a short batch: its runs cannot be "
        f"compared with new ones. Go on with the versions that began it ({_versions(folder)}), or choose another "
        "--run-id; `show` and `report` still read it."
    )


def _refuse_another_count(folder: StudyFolder, facts: TaskFacts) -> None:
    """What a study has spent must mean the same as what it goes on to spend.

    Another version of subsettune or torch may count other FLOPs for the same network, and so may a changed one.
    """
    known = folder.manifest.facts
    if known is None:
        return
    before, now = ((f.forward_flops, f.backward_flops) for f in (known, facts))
    if before == now and all(facts.exits.get(name, at) == at for name, at in known.exits.items()):
        return
    was, now_is = (f"{flops_words(f)} forward and {flops_words(b)} backward" for f, b in (before, now))
    counted = f"an example as {was}, and here it is {now_is}" if before != now else "the layers inside in another way"
    raise StudyError(
        f"run id {folder.run_id!r} counts {counted}: its costs cannot be compared with new ones. Go on with the "
        f"versions that began it ({_versions(folder)}), or choose another --run-id; `show` and `report` still read it."
    )


def _versions(folder: StudyFolder) -> str:
    known = folder.manifest.versions
    return ", ".join(f"{name} {known[name]}" for name in ("subsettune", "torch") if name in known) or "not noted"
