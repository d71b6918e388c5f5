"""The driver of a study: reference, search, verification, comparison of components, export, report.

One generator, `_Driver.stages`, reads as the study goes; each stage is a source of runs that an executor carries out,
in this process or on a Ray cluster. What is finished is on disk before it is acted on, so the same call with the same
run id goes on where a killed driver stopped, does nothing twice, and extends a finished study when more trials are
asked for.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from subsettune import bundle, config
from subsettune.data import DataPaths
from subsettune.errors import ConfigError, StudyError
from subsettune.ledger import Ledger
from subsettune.policy import FULL, SUBSET, Policy, conventional
from subsettune.report import progress
from subsettune.select import Subset
from subsettune.storage import inside
from subsettune.study.ablation import judge
from subsettune.study.execute.sequence import FixedRuns, InlineExecutor, RunSource, StageSequence, Worker, stopwatch
from subsettune.study.execute.watch import ObservedSource
from subsettune.study.options import TuneOptions, device_of, fresh_run_id
from subsettune.study.preflight import check_here, dearest_budget, resolve_study
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.lock import DriverLock
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import AblationResult, Candidate, StudyView
from subsettune.study.search.journal_storage import journal_at
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import Search
from subsettune.study.spec.components import Component
from subsettune.study.spec.definition import Study, parse
from subsettune.study.spec.yaml_file import read
from subsettune.study.stages import reference
from subsettune.study.stages import verification as stages
from subsettune.study.stages.verification import Trials
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification
from subsettune.train import metrics
from subsettune.train.loop import RunOptions, SubsetProvider, check, run, run_key
from subsettune.train.randomness import isolated

# Settings that a study may go on with another value of; the others are part of what its evidence says.
MAY_CHANGE = ("trials", "parallel", "gpus_per_trial", "candidates", "comparison_seeds", "time_limit_s")
JOURNAL = "optuna.journal"
SEEDS_APART = 100_000  # seeds of the reference start at so many times the study's seed; trials have their own


class Executor(Protocol):
    """Carries out a chain of runs."""

    def execute(self, chain: StageSequence) -> None:
        """Run everything that the chain asks for; raise its first error."""


def tune(
    study: Study | Mapping[str, Any] | str | Path,
    *,
    run_id: str | None = None,
    observer: progress.Observer | None = None,
    options: TuneOptions | None = None,
) -> StudyView:
    """Find, verify and export the cheapest policy for a task.

    Args:
        study: a study file, its content as a mapping, or a `Study`.
        run_id: name of the study; the same name goes on with it, or extends it. Default: file name and a number.
        observer: told how it goes; default: silence.
        options: where and how it runs.

    Returns:
        The finished study; `summary["verified"]` says whether a policy passed, `summary["bundle"]` where it lies.

    Raises:
        ConfigError, DataError, ModelError, LearningError, StudyError: see `subsettune.errors`.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    options = options or TuneOptions()
    name = Path(study).stem if isinstance(study, str | Path) else "study"
    resolved = study if isinstance(study, Study) else read(study) if isinstance(study, str | Path) else parse(study)
    folder = StudyFolder(options.storage, fresh_run_id(options.storage, name) if run_id is None else run_id)
    with progress.make_progress(sys.stderr, quiet=True) as silent:
        driver = _Driver(resolved, folder, observer or silent, options)
        try:
            return driver.run()
        finally:
            driver.lock.release()


class _Driver:
    """State of a study that is being driven; everything that matters is also in its folder."""

    def __init__(self, study: Study, folder: StudyFolder, observer: progress.Observer, options: TuneOptions) -> None:
        self.study, self.folder, self.observer, self.options = study, folder, observer, options
        self.task, self.settings = study.task, study.study
        self.address = options.address or os.environ.get("RAY_ADDRESS")  # Ray sets it in the jobs of a cluster
        if self.address is None:
            check_here(study, options.device)
        self.device = device_of(study, options)
        admitted = resolve_study(study, options.places)
        self.data, self.facts, self.space = admitted.data, admitted.facts, admitted.space
        base = self.settings.seed * SEEDS_APART
        self.seeds = tuple(range(base, base + self.settings.seed_cap))
        self.lock = DriverLock(folder.folder, folder.run_id)
        try:
            self._open()
        except BaseException:
            self.lock.release()
            raise
        self.clock = stopwatch(self.folder.manifest["elapsed_s"])
        self.checkpoints = self.folder.folder / "tune" / "checkpoints"
        self.search: Search | None = None
        self.search_started_s = 0.0
        self.told = ""  # key of the policy last told as the best so far

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self.folder.exists:
            self.folder.begin(self.study)
        else:
            self.folder.open()
            self._refuse_another()
            journal_at(self.folder.folder, JOURNAL)  # a damaged one is told before anything runs
            if self.settings.trials >= len(self.folder.records("trial")):  # else it is as it was: nothing is undone
                self.folder.takes(self.study)
                self.folder.manifest["command"] = self.options.command
        manifest = self.folder.manifest
        manifest["facts"] = config.to_plain(self.facts)
        manifest["data"] = {"fingerprint": self.data.fingerprint, "source": self.task.data.source}
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.folder.started(self.options.command, gpus, torch.cuda.get_device_name() if gpus else "")

    def _refuse_another(self) -> None:
        """The same run id must mean the same task, data, space and seed; only how much is spent may change."""
        manifest = self.folder.manifest
        before = config.build(Study, manifest["study"])
        advice = f"Choose another --run-id, or remove {self.folder.folder}."
        if before.task != self.task:
            raise StudyError(f"run id {self.folder.run_id!r} belongs to another task. {advice}")
        if before.space != self.study.space:
            raise StudyError(f"run id {self.folder.run_id!r} has another space. {advice}")
        fixed = [name for name in config.to_plain(before.study) if name not in MAY_CHANGE]
        changed = {n: getattr(before.study, n) for n in fixed if getattr(before.study, n) != getattr(self.settings, n)}
        if changed:
            words = ", ".join(f"{name} {value}" for name, value in changed.items())
            raise StudyError(
                f"run id {self.folder.run_id!r} began with {words}. Keep that, or choose another --run-id."
            )
        if "data" in manifest and manifest["data"]["fingerprint"] != self.data.fingerprint:
            raise StudyError(f"the data of run id {self.folder.run_id!r} have changed since it began. {advice}")

    # --- the whole -----------------------------------------------------------------------------------------------

    def run(self) -> StudyView:
        if self.options.command:
            where = f"Study {self.folder.run_id} in {self.options.storage}"
            self.observer.note(f"{where}. Stop it with Ctrl-C; to go on: {self.options.command}")
        try:
            if not self._is_complete():
                self._executor().execute(StageSequence(self.stages()))
            self._set_status("finished")
        except KeyboardInterrupt:
            self._note_elapsed()
            self.folder.manifest["interrupted"] = True
            self.folder.save()
            self._write_report(self.folder.view())
            raise
        view = self.folder.view()
        self._write_report(view)
        self.observer.finished(view)
        return view

    def stages(self) -> Iterator[RunSource]:
        """What a study does, in order; each stage ends before the next begins."""
        self._set_status("reference")
        yield self._reference_stage()
        self._set_target()
        self._set_status("search")
        self.search = self._make_search()
        yield self._search_stage(self.search)
        self._note_search(self.search)
        self._set_status("verification")
        stage = self._verification_stage(self.search)
        if stage is not None:
            yield stage
        self._note_winner()
        if self._to_compare():
            self._set_status("comparison")
            yield self._comparison_stage(self.search)
        self._set_status("export")
        self._export()

    def _is_complete(self) -> bool:
        """Whether a finished study is asked for nothing more than it has."""
        manifest = self.folder.manifest
        if manifest["status"] != "finished" or int(manifest.get("trials_asked", 0)) < self.settings.trials:
            return False
        compared_seeds = len(manifest.get("comparison", {}).get("seeds", ()))
        return not self._to_compare() or compared_seeds >= self.settings.comparison_seeds

    def _run_options(self) -> RunOptions:
        return RunOptions(
            device=self.device,
            num_threads=self.settings.cpus_per_trial,
            checkpoints=self._uri("tune/checkpoints"),
            places=self._absolute_places(),
            fingerprint=self.data.fingerprint,
        )

    def _executor(self) -> Executor:
        options = self._run_options()
        worker = Worker(task=self.task, options=options, logs=self._uri("tune/logs"), alone=self._alone(options))
        num_validation = len(self.data.validation)
        if self.options.executor == "inline":
            return InlineExecutor(worker, self.facts, num_validation, self.clock)
        from subsettune.study.execute.ray import RayExecutor, Resources

        s = self.settings
        return RayExecutor(
            worker,
            self.facts,
            num_validation,
            self.clock,
            resources=Resources(
                parallel=s.parallel, cpus=s.cpus_per_trial, gpus=s.gpus_per_trial, address=self.address
            ),
            storage=self._uri("tune"),
            note=self.observer.note,
        )

    def _alone(self, options: RunOptions) -> tuple[str, ...]:
        """Words of the command that trains this task by itself, as a run of the study does."""
        words = ["subsettune", "train", self._uri("study.yaml"), "--threads", str(options.num_threads)]
        words += ["--device", options.device, "--cache", options.places.cache_folder]
        words += ["--data-root", options.places.data_root] if options.places.data_root is not None else []
        return tuple(words)

    def _uri(self, name: str) -> str:
        return inside(self.options.storage, f"{self.folder.run_id}/{name}")

    def _absolute_places(self) -> DataPaths:
        """Data paths as a worker in another folder finds them."""
        places = self.options.places
        root = places.data_root
        absolute = str(Path(root).expanduser().absolute()) if root is not None else None
        return DataPaths(data_root=absolute, cache=places.cache_folder, download=places.download)

    def _set_status(self, status: str) -> None:
        self.folder.manifest["status"] = status
        self.folder.manifest.pop("interrupted", None)
        self._note_elapsed()
        self.folder.save()

    def _note_elapsed(self) -> None:
        self.folder.manifest["elapsed_s"] = self.clock()

    def _keep(self, record: RunRecord) -> None:
        """Put a run on record."""
        self.folder.add(record)
        self._note_elapsed()
        self.folder.save()
        self.observer.run_finished(record)

    def _checkpoint_name(self, policy: Policy, seed: int) -> str:
        return f"{run_key(self.task, self.data.fingerprint, policy, seed)}.checkpoint"

    # --- reference -----------------------------------------------------------------------------------------------

    def _reference_stage(self) -> RunSource:
        wanted = self.seeds[: self.settings.seeds]
        have = {record.seed for record in self.folder.records("reference") if record.cause == "finished"}
        cache = self._reference_cache()
        requests = []
        for seed in wanted:
            if seed in have:
                continue
            name = self._checkpoint_name(conventional(self.facts), seed)
            if (cached := cache.get(seed, name, self.checkpoints)) is not None:
                self._keep(cached)
            else:
                requests.append(reference.request(seed, self.facts))
        if requests:
            self.observer.stage("reference", len(requests))
        return ObservedSource(FixedRuns(requests, self._keep_reference), self.observer)

    def _reference_cache(self) -> reference.ReferenceCache:
        environment = {
            "torch": torch.__version__,
            "threads": self.settings.cpus_per_trial,
            "device": self._device_kind(),
        }
        places = self.options.places
        return reference.ReferenceCache.of(places.cache_folder, self.task, self.data.fingerprint, environment)

    def _device_kind(self) -> str:
        """What runs train on, as far as can be told here: workers may have the GPU that this machine lacks."""
        has_gpu = torch.cuda.is_available() or self.settings.gpus_per_trial > 0
        return "cuda" if has_gpu and self.device != "cpu" else "cpu"

    def _keep_reference(self, record: RunRecord) -> None:
        self._keep(record)
        if record.cause == "finished":
            name = self._checkpoint_name(conventional(self.facts), record.seed)
            self._reference_cache().put(record, name, self.checkpoints)

    def _set_target(self) -> None:
        records = self._references()
        targets = self.data.validation.targets
        chance = metrics.chance(self.task.metric, targets, self.data.num_outputs)
        reference.check_learning(records, self.task, chance)
        self.folder.manifest["target"] = self.task.target(reference.mean(records))
        self.folder.manifest["noise"] = reference.spread(records)
        self.folder.save()

    def _references(self) -> tuple[RunRecord, ...]:
        first = set(self.seeds[: self.settings.seeds])
        return tuple(record for record in self.folder.records("reference") if record.seed in first)

    # --- search --------------------------------------------------------------------------------------------------

    def _make_search(self) -> Search:
        problem = SearchProblem(
            space=self.space,
            facts=self.facts,
            target=self.folder.manifest["target"],
            higher_is_better=self.task.higher_is_better,
            why_not=self._invalid,
        )
        settings = SearchSettings(
            trials=self.settings.trials,
            parallel=self.settings.parallel,
            seed=self.settings.seed,
            sampler=self.settings.sampler,
            noise=self._noise(),
        )
        return Search(problem, settings, storage=journal_at(self.folder.folder, JOURNAL), name=self.folder.run_id)

    def _noise(self) -> float:
        """Spread of the metric over seeds, and at least that of one example's worth: ties happen by chance."""
        floor = 0.5 / len(self.data.validation) if self.task.kind == "classification" else 0.0
        return max(float(self.folder.manifest["noise"]), floor)

    def _invalid(self, policy: Policy) -> str | None:
        try:
            check(self.task, policy, self.facts)
        except ConfigError as error:
            return str(error)
        return None

    def _search_stage(self, search: Search) -> RunSource:
        known = {record.number: stages.outcome(record) for record in self.folder.records("trial")}
        again = search.recover(known)
        self.search_started_s = self.clock()
        done = len(known)
        if self.settings.trials > done:
            self.observer.stage("search", self.settings.trials - done)
        return ObservedSource(stages.SearchStage(search, again, self._keep_trial, self._out_of_time), self.observer)

    def _out_of_time(self) -> bool:
        limit = self.settings.time_limit_s
        return limit is not None and self.clock() - self.search_started_s > limit

    def _keep_trial(self, record: RunRecord) -> None:
        assert self.search is not None
        self._keep(replace(record, is_stop_audit=self._is_check(record.number)))
        self._drop_checkpoint(record)
        self._tell_best()

    def _is_check(self, number: int) -> bool:
        """Whether the search would have stopped this trial and let it run on."""
        assert self.search is not None
        return any(trial.number == number and trial.is_stop_audit for trial in self.search.records)

    def _drop_checkpoint(self, record: RunRecord) -> None:
        name = self._checkpoint_name(record.policy, record.seed)
        self.checkpoints.remove(name)
        self.checkpoints.remove(name.replace(".checkpoint", ".mark"))

    def _tell_best(self) -> None:
        assert self.search is not None
        best = self.search.shortlist.best()
        if best is None:
            return
        sign = 1 if self.task.higher_is_better else -1
        if best.policy.key != self.told:
            gap = sign * (best.metric - reference.mean(self._references()))
            self.observer.best(best.policy, best.cost, gap)
            self.told = best.policy.key

    def _note_search(self, search: Search) -> None:
        self.folder.manifest["search"] = config.to_plain(search.counts)
        self.folder.manifest["sampler"] = search.settings.source
        self.folder.save()

    # --- verification --------------------------------------------------------------------------------------------

    def _verification_stage(self, search: Search) -> RunSource | None:
        """The open round of verification, or a new one for the candidates of a search that has gone on."""
        rounds = self.folder.manifest["rounds"]
        trials = self._trials(search)
        if rounds and rounds[-1]["trials_asked"] >= self.settings.trials:
            number, plain = len(rounds), rounds[-1]
            verification = Verification.from_mapping(plain["state"])
            candidates = {
                name: Candidate(name=name, **{**c, "policy": Policy.from_mapping(c["policy"])})
                for name, c in plain["candidates"].items()
            }
        else:
            number = len(rounds) + 1
            candidates = stages.select_candidates(trials, self.settings.candidates, self.facts, number)
            if not candidates:
                return None
            spent = rounds[-1]["state"]["alpha_spent"] if rounds else 0.0
            costs = {name: candidate.cost_flops for name, candidate in candidates.items()}
            verification = Verification(costs, self._rules(), self.seeds, spent=spent)
            rounds.append({})
        keep = _RoundKeeper(self, number)
        shorter, subset = (stages.likeliest(search, self.facts, arm, number) for arm in (FULL, SUBSET))
        known = self._tested({**candidates, **({shorter.name: shorter} if shorter is not None else {})})
        stage = stages.VerificationStage(verification, candidates, self.facts, number, shorter, subset, known, keep)
        keep.stage = stage
        is_another = shorter is not None and shorter.name not in candidates
        policies = len(candidates) + is_another + 2  # the controls of the winner
        self.observer.stage("verification", policies * self.settings.seeds)  # the display follows if it takes more
        keep(None)
        return ObservedSource(stage, self.observer)

    def _trials(self, search: Search) -> Trials:
        return Trials(
            search=search,
            records=self.folder.records("trial"),
            target=self.folder.manifest["target"],
            higher_is_better=self.task.higher_is_better,
            most_passes=dearest_budget(self.space) * self.facts.reference_passes,
        )

    def _rules(self) -> Rules:
        return Rules(
            margin=self.task.tolerance,
            alpha=self.settings.alpha,
            seeds=self.settings.seeds,
            max_seeds=self.settings.seed_cap,
            higher_is_better=self.task.higher_is_better,
            resolution=self._resolution(len(self.data.test)),
        )

    def _resolution(self, num_examples: int) -> float:
        """Smallest step of the metric; a mean over classes moves in steps as small as those of accuracy."""
        return 1 / num_examples if self.task.kind == "classification" else 0.0

    def _tested(self, candidates: Mapping[str, Candidate]) -> dict[tuple[str, int], float]:
        """Test metrics on record, for the policies of this round, whatever round measured them."""
        found: dict[tuple[str, int], float] = {}
        for record in self.folder.records("verification"):
            value = record.test_metric if record.test_metric is not None else math.nan
            names = [n for n, c in candidates.items() if c.policy.key == record.policy.key]
            names += ["reference"] if record.candidate == "reference" else []
            found |= {(name, record.seed): value for name in names}
        return found

    def _note_winner(self) -> None:
        manifest = self.folder.manifest
        passed = [
            (plain["candidates"][name]["cost_flops"], name)
            for plain in manifest["rounds"]
            if (name := plain["state"]["winner"]) is not None
        ]
        manifest["winner"] = min(passed)[1] if passed else None
        self.folder.save()

    # --- comparison ----------------------------------------------------------------------------------------------

    def _to_compare(self) -> tuple[Component, ...]:
        """The components that are to be compared with their neutral kin."""
        return self.study.contenders if self.settings.comparison_seeds else ()

    def _comparison_stage(self, search: Search) -> RunSource:
        """The comparison that was begun, or a new one for the trials of a search that has gone on."""
        plain = self.folder.manifest.get("comparison")
        if plain is not None and plain["trials_asked"] >= self.settings.trials:
            asked, rows = plain["trials_asked"], tuple(config.build(AblationResult, row) for row in plain["rows"])
        else:
            asked, rows = self.settings.trials, ()
        rows += self._compared(search, known={row.component for row in rows})
        records = (*self.folder.records("comparison"), *self.folder.records("verification"))
        rules = judge.Rules(
            facts=self.facts,
            seeds=self._comparison_seeds(),
            higher_is_better=self.task.higher_is_better,
            resolution=self._resolution(len(self.data.validation)),
        )

        def save(record: RunRecord | None) -> None:
            if record is not None:
                self._keep(record)
                self._drop_checkpoint(record)
            else:
                self.folder.manifest["comparison"] = {"trials_asked": asked, **stage.to_mapping()}
                self.folder.save()

        stage = judge.ComparisonStage(rows, rules, records, save)
        save(None)
        if stage.num_waiting:
            self.observer.stage("comparison", stage.num_waiting)
        return ObservedSource(stage, self.observer)

    def _comparison_seeds(self) -> tuple[int, ...]:
        """The first seeds of verification, whose runs then serve again, and more if it has fewer."""
        first = self.seeds[0]
        return tuple(range(first, first + self.settings.comparison_seeds))

    def _compared(self, search: Search, known: Container[Component]) -> tuple[AblationResult, ...]:
        """The rows that are missing, also of a study from before their kind was compared."""
        found = judge.Found(
            trials=self.folder.records("trial"),
            trusted=tuple(candidate.policy for candidate in search.shortlist.accepted(arm=SUBSET)),
            target=self.folder.manifest["target"],
            higher_is_better=self.task.higher_is_better,
        )
        ground = judge.Ground(space=self.space, facts=self.facts, recipe=self.task.recipe, invalid=self._invalid)
        return judge.choose((c for c in self._to_compare() if c not in known), found, ground)

    # --- export and report ---------------------------------------------------------------------------------------

    def _export(self) -> None:
        manifest = self.folder.manifest
        manifest["trials_asked"] = max(self.settings.trials, manifest.get("trials_asked", 0))
        self._note_elapsed()
        if manifest["winner"] is not None:
            self.observer.stage("export", None)
            manifest["bundle"] = target = self._uri("bundle")
            subsets = self._chosen(manifest["winner"])
            bundle.export_study(self.folder.view(), manifest["winner"], subsets, seed=self.seeds[0], target=target)
        self.checkpoints.remove()  # every run is on record, and what a run alone could tell is in the bundle
        self.folder.save()

    def _chosen(self, winner: str) -> tuple[bundle.PhaseSubset, ...]:
        """What the phases of the winner choose with the first seed of verification.

        A choice that only the run can tell is in the checkpoint of the finished run; the others are made anew, with as
        many threads as a run has, because their number changes bits.
        """
        policy, seed = self.folder.view().candidates[winner].policy, self.seeds[0]
        chooser = partial(SubsetProvider, self.task, policy, seed, self.data, self.facts, places=self.options.places)
        subsets: dict[int, Subset] = {}
        if chooser(device=self._device_kind()).needs_run:
            device = "auto" if self.device.startswith("cuda") else self.device  # a driver may have no GPU
            subsets = dict(run(self.task, policy, seed, options=replace(self._run_options(), device=device)).subsets)
        left = [i for i, phase in enumerate(policy.phases) if not phase.is_full and i not in subsets]
        here = chooser()
        with isolated(seed, self.settings.cpus_per_trial):
            subsets |= {index: here.choose(index).subset for index in left}
        return tuple(bundle.chosen(index, subset, self.data.train) for index, subset in sorted(subsets.items()))

    def _write_report(self, view: StudyView) -> None:
        from subsettune.report import html

        self.folder.folder.write("report.html", html.page(view, self.folder.manifest["command"] or None).encode())


class _RoundKeeper:
    """Writes a round of verification after every change, and its runs as they come."""

    def __init__(self, driver: _Driver, number: int) -> None:
        self._driver, self._number = driver, number
        self.stage: stages.VerificationStage | None = None

    def __call__(self, record: RunRecord | None) -> None:
        if record is not None:
            self._driver._keep(self._without_old_work(record))
            return
        assert self.stage is not None
        rounds = self._driver.folder.manifest["rounds"]
        asked = max(self._driver.settings.trials, rounds[self._number - 1].get("trials_asked", 0))
        rounds[self._number - 1] = {**stages.to_round(self.stage), "trials_asked": asked}
        self._driver.folder.save()

    def _without_old_work(self, record: RunRecord) -> RunRecord:
        """A reference whose finished weights were only measured on the test split has cost its evaluation alone."""
        seeds = {r.seed for r in self._driver.folder.records("reference")}
        if record.candidate != "reference" or record.seed not in seeds or record.cause != "finished":
            return record
        evaluate = len(self._driver.data.test) * self._driver.facts.forward_flops
        return replace(record, ledger=Ledger(evaluate=evaluate), train_s=0.0, select_s=0.0, evaluate_s=0.0)
