"""Whole studies in this process: what is computed once, what is charged, what is claimed, and what survives a crash."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from fake_inputs import changed, write
from selections import selection_flops
from torch import Tensor

from subsettune import Bundle, DataPaths, TuneOptions, api, tune
from subsettune.bundle import export as exporting
from subsettune.config import FrozenDict
from subsettune.data import Part
from subsettune.errors import LearningError, StorageError, StudyError
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET
from subsettune.select import SelectionContext, Selector, Subset
from subsettune.study.context import StudyContext
from subsettune.study.driver import StudyDriver
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.worker import Worker
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.study.stages import verification
from subsettune.study.verification import candidates
from subsettune.study.verification.lineup import Entry
from subsettune.train import SubsetProvider, facts

PASSES = {"task.tolerance": 0.5}  # so wide that every policy passes
FAILS = {"task.tolerance": 1e-6}


class Counting:
    """Counts the runs that a worker carries out, and makes chosen ones raise."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.break_at: str | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        train = Worker.train
        told = self

        def counted(worker: Worker, request: RunRequest, report: Any) -> Any:
            if told.break_at is not None and request.name.startswith(told.break_at):
                raise KeyboardInterrupt
            told.names.append(request.name)
            return train(worker, request, report)

        monkeypatch.setattr(Worker, "train", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    found = Counting()
    found.install(monkeypatch)
    return found


@pytest.fixture
def options(tmp_path: Path) -> TuneOptions:
    places = DataPaths(cache=str(tmp_path / "cache"))
    return TuneOptions(storage=str(tmp_path / "runs"), places=places, executor="inline", device="cpu")


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    """A study in which a policy passed."""
    folder = tmp_path_factory.mktemp("passed")
    places = DataPaths(cache=str(folder / "cache"))
    where = TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu")
    return tune(changed(PASSES), run_id="a", options=where).view


def _spent(records: Sequence[RunRecord]) -> int:
    return sum(record.ledger.total + record.repeated_flops for record in records)


def test_a_summary_has_the_keys_that_show_promises(passed: StudyView) -> None:
    summary = passed.summary.to_mapping()
    promised = {"status", "reference", "best", "shorter", "equal", "random", "trials", "tuning", "verified", "bundle"}
    assert promised <= set(summary)
    assert {"metric", "passes", "flops", "seconds", "seeds"} <= set(summary["reference"])
    row = {"policy", "metric", "interval", "passes", "flops", "seconds", "saving", "passed"}
    for name in ("best", "shorter", "equal", "random"):
        assert summary[name] is None or row <= set(summary[name])
    assert set(summary["trials"]) == {"finished", "stopped", "skipped", "failed"}
    keys = {"passes", "flops", "seconds", "break_even", "break_even_seconds", "shared_flops", "stages"}
    assert set(summary["tuning"]) == keys
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_study_that_passes_says_so_and_adds_up(passed: StudyView) -> None:
    summary = passed.summary.to_mapping()
    assert (summary["status"], summary["verified"], summary["best"]["passed"]) == ("finished", True, True)
    assert summary["best"]["saving"] == pytest.approx(1 - summary["best"]["flops"] / summary["reference"]["flops"])
    assert passed.facts is not None
    everything = (*passed.reference, *passed.trials, *passed.verification)
    assert summary["tuning"]["flops"] == _spent(everything)
    assert summary["tuning"]["passes"] == pytest.approx(_spent(everything) / passed.facts.pass_flops)
    saved = summary["reference"]["flops"] - summary["best"]["flops"]
    assert 0 <= summary["tuning"]["break_even"] - summary["tuning"]["flops"] / saved < 1
    counts = summary["trials"]
    assert counts["finished"] + counts["stopped"] + counts["failed"] == len(passed.trials) == 6


def test_every_ledger_meets_the_cost_known_before(passed: StudyView) -> None:
    assert passed.facts is not None
    update = 64 * passed.facts.example_flops
    for record in (*passed.reference, *passed.trials):
        if record.cause == "finished":
            assert 0 <= record.cost_flops - record.ledger.spent < update


def test_a_bundle_carries_the_rows_of_verification(passed: StudyView) -> None:
    bundle = Bundle.load(passed.summary.bundle)
    winner = passed.manifest.winner
    rows = {r.seed: r.test_metric for r in passed.verification if r.candidate == winner}
    assert {run.seed: run.metric for run in bundle.evidence.best.runs} == rows
    assert bundle.policy == passed.candidates[winner].policy
    assert bundle.fingerprint == passed.manifest.data.fingerprint


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ByThreads(Selector):
    """Other examples for another number of threads, as with selectors whose sums run in parallel."""

    name: ClassVar[str] = "tests.study.test_driver:ByThreads"
    summary: ClassVar[str] = "other examples for another number of threads"

    def flops(self, facts: TaskFacts, k: int) -> int:
        """Nothing."""
        return 0

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """A stretch of the examples that begins at the number of threads."""
        return Subset(positions=torch.arange(k) + torch.get_num_threads())


class Chosen:
    """The rows that were chosen first, while a run trained, by policy, seed and phase."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pools: dict[tuple[str, int], dict[int, list[int]]] = {}
        choose, told = SubsetProvider.choose, self

        def noted(chooser: SubsetProvider, phase: int, network: Any = None) -> Any:
            choice = choose(chooser, phase, network)
            found = told.pools.setdefault((chooser.job.policy.key, chooser.job.seed), {})
            found.setdefault(phase, chooser.job.data.train.rows[choice.subset.positions].tolist())
            return choice

        monkeypatch.setattr(SubsetProvider, "choose", noted)


GROWING = {
    "space.steps": {"int": [1, 3]},
    "space.growth": {"uniform": [1.5, 3.0]},
    "space.reselect": {"log": [1.0, 4.0]},
    "space.budget": {"log": [0.4, 1.0]},
    "task.recipe.epochs": 12,
    "study.trials": 8,
    "study.sampler": "random",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    [
        {"selector": {"choice": ["grand", "el2n"]}, "grand.model": "current", "el2n.model": "current"},
        {"selector": {"choice": ["gradmatch"]}, "gradmatch.model": "current"},
        {"selector": "tests.study.test_driver:ByThreads"},
        {"selector": {"choice": ["kcenter"]}, "kcenter.start": {"choice": ["center", "random"]}},
    ],
)
def test_a_bundle_holds_the_subsets_that_its_run_trained_on(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch, space: dict[str, Any]
) -> None:
    """Growing subsets and new choices, by the run's own network too; the caller's number of threads is another one."""
    seen, threads = Chosen(monkeypatch), torch.get_num_threads()

    def only_subsets(outlooks: candidates.Outlooks, ground: candidates.Ground, number: int) -> candidates.LineUp:
        dear = [outlooks.outlook(one.coordinates, (ground.last_budget,))[0] for one in outlooks.leaders(SUBSET, 9)]
        leader = next(p for p in dear if ground.why_not(p.policy) is None)
        one = Candidate.named("candidate-1", policy=leader.policy, cost_flops=leader.policy.cost(ground.facts))
        entry = Entry(cost_flops=one.cost_flops, share=1.0, has_twin=True)
        return candidates.LineUp(candidates={one.name: one}, entries={one.name: entry})

    def own(rounds: Sequence[RoundState]) -> str | None:
        return rounds[-1].winner if rounds else None  # though all data match as well

    monkeypatch.setattr(candidates, "choose", only_subsets)
    monkeypatch.setattr(verification, "exported", own)
    torch.set_num_threads(threads + 1)
    try:
        raw = changed(PASSES | GROWING)
        view = tune({**raw, "space": raw["space"] | space}, run_id="a", options=options).view
    finally:
        torch.set_num_threads(threads)
    assert view.summary.verified
    bundle, first = Bundle.load(view.summary.bundle), view.verification[0].seed
    pools = seen.pools[bundle.policy.key, first]
    assert sorted(pools) == [i for i, phase in enumerate(bundle.policy.phases) if not phase.is_full]
    for phase, rows in pools.items():
        assert bundle.subset(phase).index.tolist() == rows
    assert view.facts is not None
    for record in view.trials:
        charged = sum(selection_flops(record.policy, i, view.facts) for i in range(len(record.policy.phases)))
        assert record.ledger.select == charged
        assert 0 <= record.cost_flops - record.ledger.spent < 65 * view.facts.example_flops


def test_verification_pairs_its_seeds_with_the_reference(passed: StudyView) -> None:
    seeds = {
        name: {r.seed for r in passed.verification if r.candidate == name}
        for name in {r.candidate for r in passed.verification}
    }
    assert seeds["reference"] == {0, 1, 2}
    assert all(found == set(range(len(found))) for found in seeds.values())  # a cheap candidate may have more
    assert all({r.seed for r in passed.trials}.isdisjoint(found) for found in seeds.values())


def test_the_test_split_is_touched_by_verification_alone(
    options: TuneOptions, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: set[str] = set()
    batch = Part.batch
    num_test = 539  # 30 % of 1,797; no other part is of that size

    def watched(part: Part, index: Tensor) -> tuple[Tensor, Tensor]:
        if len(part) == num_test:
            touched.add(counting.names[-1].split("-")[0])
        return batch(part, index)

    monkeypatch.setattr(Part, "batch", watched)
    tune(changed(PASSES), run_id="a", options=options)
    assert {name.split("-")[0] for name in counting.names} == {"reference", "trial", "verify"}
    assert touched == {"verify"}


@pytest.mark.slow
def test_a_second_study_takes_the_reference_from_the_cache_and_pays_it_in_full(
    options: TuneOptions, counting: Counting
) -> None:
    first = tune(changed(FAILS), run_id="a", options=options).view
    counting.names.clear()
    second = tune(changed({**FAILS, "study.trials": 7}), run_id="b", options=options).view
    assert not [name for name in counting.names if name.startswith("reference")]
    assert [r.cached for r in second.reference] == [True] * 3
    assert _spent(second.reference) == _spent(first.reference) > 0
    assert [r.metric for r in second.reference] == [r.metric for r in first.reference]


@pytest.mark.slow
def test_the_tolerance_is_no_part_of_a_reference_but_the_recipe_is(options: TuneOptions, counting: Counting) -> None:
    tune(changed(FAILS), run_id="a", options=options)
    counting.names.clear()
    tune(changed(PASSES), run_id="b", options=options)
    assert not [name for name in counting.names if name.startswith("reference")]
    tune(changed({**PASSES, "task.recipe.lr": 0.11}), run_id="c", options=options)
    assert len([name for name in counting.names if name.startswith("reference")]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reference-seed-1", "trial-0003", "verify-"])
def test_an_interrupted_study_goes_on_and_repeats_nothing(options: TuneOptions, counting: Counting, stage: str) -> None:
    counting.break_at = stage
    with pytest.raises(KeyboardInterrupt):
        tune(changed(PASSES), run_id="a", options=options)
    broken = StudyFolder(options.storage, "a").open().view()
    assert broken.summary.status == "interrupted"
    counting.break_at = None
    view = tune(changed(PASSES), run_id="a", options=options).view
    assert view.summary.status == "finished"
    assert view.summary.verified
    assert len(counting.names) == len(set(counting.names))
    assert [trial.number for trial in view.trials] == sorted({trial.number for trial in view.trials})
    assert view.summary.trials.finished + view.summary.trials.stopped == 6


def test_work_lost_to_an_interruption_of_the_reference_is_charged_once(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Worker.train

    def interrupted(worker: Worker, request: RunRequest, report: Any) -> Any:
        def cut(point: Any) -> bool:
            if request.name == "reference-seed-1" and point.share > 0.5:
                raise KeyboardInterrupt
            return bool(report(point))

        return train(worker, request, cut)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (for this call alone)
        patched.setattr(Worker, "train", interrupted)
        tune(changed(PASSES), run_id="a", options=options)
    view = tune(changed(PASSES), run_id="a", options=options).view
    (lost,) = {run.repeated_flops for run in view.reference} - {0}
    measured = [run for run in view.verification if run.candidate == "reference"]
    assert [run.seed for run in measured] == [0, 1, 2]
    assert {run.repeated_flops for run in measured} == {0}
    whole = tune(changed(PASSES), run_id="b", options=replace(options, places=DataPaths(cache=options.storage + "2")))
    assert view.summary.tuning.flops - whole.summary.tuning.flops == lost


def test_a_result_is_told_where_its_report_has_no_room(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise StorageError("runs/a/report.html cannot be written: No space left on device. Make room.")

    monkeypatch.setattr(api, "_report", full)
    found = tune(changed(PASSES), run_id="a b", options=options)
    assert found.summary.verified
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "The report is not written" in line]
    assert "No space left on device. Make room. To write it then: subsettune report 'a b' --storage " in told
    assert StudyFolder(options.storage, "a b").open().manifest.status == "finished"


def test_marks_that_stopped_trials_leave_go_with_the_search(
    options: TuneOptions, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster, where a worker notes how far it came when the driver has stopped it and dropped its files."""
    drop = StudyContext.drop_checkpoint

    def dropped(context: StudyContext, record: RunRecord) -> None:
        drop(context, record)
        name = context.checkpoint_name(record.policy, record.seed).replace(".checkpoint", ".mark")
        context.checkpoints.write(name, b"7 0")

    monkeypatch.setattr(StudyContext, "drop_checkpoint", dropped)
    counting.break_at = "verify-"
    with pytest.raises(KeyboardInterrupt):
        tune(changed(PASSES), run_id="a", options=options)
    kept = Path(options.storage) / "a/tune/checkpoints"
    assert [path.suffix for path in kept.iterdir()] == [".checkpoint"] * 3  # of the reference


def test_a_round_that_was_cut_off_ends_before_more_trials_begin(options: TuneOptions, counting: Counting) -> None:
    counting.break_at = "verify-recipe-seed-1"
    with pytest.raises(KeyboardInterrupt):
        tune(changed(FAILS), run_id="a", options=options)
    (cut,) = StudyFolder(options.storage, "a").open().manifest.rounds
    assert not cut.is_over
    counting.break_at = None
    view = tune(changed({**FAILS, "study.trials": 8}), run_id="a", options=options).view
    first, second = view.manifest.rounds
    assert (first.is_over, second.is_over) == (True, True)
    assert (first.trials_asked, second.trials_asked) == (6, 8)
    assert first.verdicts["recipe"].passed is False  # it came to its end, with the alpha that was its own
    verified = [name for name in counting.names if name.startswith(("verify-recipe", "trial-0006"))]
    assert verified.index("verify-recipe-seed-2") < verified.index("trial-0006")
    assert len(counting.names) == len(set(counting.names))


def test_a_crash_in_the_export_loses_no_run(
    options: TuneOptions, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = exporting.export_study

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(api, "export_study", broken)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        tune(changed(PASSES), run_id="a", options=options)
    monkeypatch.setattr(api, "export_study", export)
    trained = list(counting.names)
    view = tune(changed(PASSES), run_id="a", options=options).view
    assert counting.names == trained
    assert Bundle.load(view.summary.bundle).policy == view.candidates[view.manifest.winner].policy


@pytest.mark.parametrize("owner", [StudyFolder, StudyDriver], ids=["before it runs", "as it begins"])
def test_a_stop_in_the_first_moments_is_an_interruption(
    options: TuneOptions, monkeypatch: pytest.MonkeyPatch, owner: type
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    name = "started" if owner is StudyFolder else "_say_what_is_known"
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            tune(changed(FAILS), run_id="a", options=options)
    assert StudyFolder(options.storage, "a").open().view().summary.status == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_scheduler_that_ends_the_export_is_told_apart_from_a_crash(
    options: TuneOptions, counting: Counting, monkeypatch: pytest.MonkeyPatch, on_ctrl_c: Any
) -> None:
    """SIGTERM is what a caller of `tune` gets from a scheduler, in whatever stage; a script's `&` ignores Ctrl-C."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(api, "export_study", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(KeyboardInterrupt):
                tune(changed(PASSES), run_id="a", options=options)
    finally:
        signal.signal(signal.SIGINT, before)
    broken = StudyFolder(options.storage, "a").open().view()
    assert (broken.summary.status, broken.manifest.status) == ("interrupted", "export")
    assert (Path(options.storage) / "a/report.html").exists()
    trained = list(counting.names)
    assert tune(changed(PASSES), run_id="a", options=options).summary.verified
    assert counting.names == trained


def test_the_same_call_does_nothing_twice(options: TuneOptions, counting: Counting) -> None:
    first = tune(changed(FAILS), run_id="a", options=options).view
    trained = list(counting.names)
    again = tune(changed(FAILS), run_id="a", options=options).view
    fewer = tune(changed({**FAILS, "study.trials": 2}), run_id="a", options=options).view
    assert counting.names == trained
    assert again.summary == first.summary
    assert len(fewer.manifest.rounds) == 1
    assert fewer.manifest.study.study.trials == 6  # where the numbers come from is still what it was
    assert "trials: 6" in (Path(options.storage) / "a/study.yaml").read_text()
    tune(changed({**FAILS, "study.trials": 7}), run_id="a", options=options)
    assert "trials: 7" in (Path(options.storage) / "a/study.yaml").read_text()


@pytest.mark.slow
def test_more_trials_extend_a_study_and_share_its_alpha(options: TuneOptions, counting: Counting) -> None:
    first = tune(changed(FAILS), run_id="a", options=options).view
    counting.names.clear()
    second = tune(changed({**FAILS, "study.trials": 9}), run_id="a", options=options).view
    assert len(second.trials) == 9
    assert len([name for name in counting.names if name.startswith("trial")]) == 3
    assert not [name for name in counting.names if name.startswith("reference")]
    rounds = second.manifest.rounds
    assert len(rounds) == 2
    spent = [each.alpha_spent for each in rounds]
    assert 0 < spent[0] <= spent[1] <= 0.05
    assert second.verification[: len(first.verification)] == first.verification


def test_none_passes_and_each_says_by_how_much(options: TuneOptions) -> None:
    view = tune(changed(FAILS), run_id="a", options=options).view
    summary = view.summary.to_mapping()
    assert (summary["verified"], summary["bundle"], summary["best"]) == (False, None, None)
    assert summary["headline"].startswith("No policy passed: ")
    tested = [c for c in summary["candidates"] if c["passed"] is False]
    assert tested
    assert all(candidate["shortfall"] > 0 for candidate in tested)
    assert not StudyFolder(options.storage, "a").folder.exists("bundle")


def test_a_recipe_that_never_learns_is_told_before_tuning_and_its_reference_is_kept(
    options: TuneOptions, counting: Counting
) -> None:
    flat = {"task.recipe.lr": 1e-7}
    with pytest.raises(LearningError, match="the conventional recipe does not learn: its accuracy is"):
        tune(changed(flat), run_id="a", options=options)
    assert counting.names == [f"reference-seed-{seed}" for seed in range(3)]
    with pytest.raises(LearningError):
        tune(changed(flat), run_id="a", options=options)
    assert len(counting.names) == 3


def test_a_recipe_that_diverges_is_told_with_its_cause(options: TuneOptions) -> None:
    with pytest.raises(LearningError, match=r"gives nothing to match: The loss left the finite numbers after"):
        tune(changed({"task.recipe.lr": 1e8}), run_id="a", options=options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task.tolerance": 0.2},
            "run id 'a' belongs to another task: task.tolerance was 0.1, and is 0.2. Choose another --run-id, or ",
        ),
        (
            {"space.lr": {"log": [0.1, 0.2]}},
            "run id 'a' has another space: space.lr.log was null, and is [0.1, 0.2]",
        ),
        ({"study.seeds": 2}, "run id 'a' began with seeds 3. Keep that, or choose another --run-id."),
        ({"study.alpha": 0.1}, "run id 'a' began with alpha 0.05. Keep that, or choose another --run-id."),
    ],
)
def test_a_run_id_keeps_its_meaning(options: TuneOptions, changes: dict[str, Any], message: str) -> None:
    folder = StudyFolder(options.storage, "a")
    from subsettune.study.spec.definition import parse

    folder.begin(parse(changed({})))
    before = folder.folder.read("manifest.json")
    with pytest.raises(StudyError) as caught:
        tune(changed(changes), run_id="a", options=options)
    assert str(caught.value).startswith(message)
    assert folder.folder.read("manifest.json") == before


def test_a_study_that_counted_other_flops_is_not_gone_on_with(options: TuneOptions) -> None:
    """As version 0.1 did for grouped convolutions: what was spent then cannot be added to what is spent now."""
    from subsettune.study.spec.definition import parse

    study = parse(changed({}))
    known = facts(study.task, options.places)
    folder = StudyFolder(options.storage, "a")
    folder.begin(study)
    folder.note(facts=replace(known, backward_flops=40 * known.forward_flops), versions=FrozenDict({"torch": "2.1"}))
    folder.save()
    before = folder.folder.read("manifest.json")
    message = (
        r"^run id 'a' counts an example as 2.37 kFLOP forward and 94.7 kFLOP backward, and here it is 2.37 kFLOP "
        r"forward and 2.69 kFLOP backward: its costs cannot be compared with new ones. Go on with the "
        r"versions that began it \(torch 2.1\), or choose another --run-id; `show` and `report` still read it.$"
    )
    with pytest.raises(StudyError, match=message):
        tune(changed({}), run_id="a", options=options)
    assert folder.folder.read("manifest.json") == before
    exits = FrozenDict({name: at + 2 for name, at in known.exits.items()})
    folder.note(facts=replace(known, exits=exits))
    folder.save()
    with pytest.raises(StudyError, match=r"^run id 'a' counts the layers inside in another way: its costs cannot be"):
        tune(changed({}), run_id="a", options=options)


def test_a_damaged_checkpoint_costs_its_run_alone(
    options: TuneOptions, counting: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    counting.break_at = "trial-0000"
    with pytest.raises(KeyboardInterrupt):
        tune(changed(PASSES), run_id="a", options=options)
    counting.break_at = None
    (damaged, *others) = sorted(Path(options.storage).glob("a/tune/checkpoints/*.checkpoint"))
    assert len(others) == 2
    damaged.write_bytes(b"not a checkpoint")
    counting.names.clear()
    view = tune(changed(PASSES), run_id="a", options=options).view
    assert {name.split("-")[0] for name in counting.names} == {"trial", "verify"}
    assert (view.summary.status, len(view.trials)) == ("finished", 6)
    assert f": checkpoint {damaged} is damaged. It begins anew." in capsys.readouterr().err


def test_a_time_limit_ends_the_search_and_what_is_found_is_verified(options: TuneOptions) -> None:
    view = tune(changed({**PASSES, "study.trials": 500, "study.time_limit_s": 0.01}), run_id="a", options=options).view
    assert 1 <= len(view.trials) < 500
    assert view.summary.status == "finished"


def test_a_regression_is_tuned_with_lower_as_better(options: TuneOptions, tiny_data: dict[str, str]) -> None:
    changes = {
        "task.data": {"source": tiny_data["values"]},
        "task.metric": "mse",
        "task.tolerance": 15_000.0,
        "task.recipe.lr": 0.02,
        "study.seeds": 5,
        "study.max_seeds": 5,
        "space.selector": {"choice": ["random", "kcenter"]},
    }
    view = tune(changed(changes), run_id="a", options=options).view
    assert view.target == pytest.approx(view.summary.reference.metric + 15_000)
    assert view.summary.verified
    assert view.summary.best.metric < view.summary.reference.test_metric + 15_000


@pytest.mark.slow
def test_a_path_names_the_study(options: TuneOptions, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", FAILS)
    assert [tune(path, options=options).run_id for _ in range(2)] == ["mine-1", "mine-2"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before
