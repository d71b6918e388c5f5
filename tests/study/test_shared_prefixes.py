"""Studies whose trials begin from one another's stems: each is the run that it would be alone, and is paid for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_inputs import REMOVED, changed
from interrupts import count_updates
from ray_marks import starts_ray

from subsettune import DataPaths, TuneOptions, train, tune
from subsettune.errors import ConfigError
from subsettune.report.tables import tuning_text
from subsettune.storage import Folder
from subsettune.study.execute.worker import Worker
from subsettune.study.plan import plan
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.study.spec.definition import parse
from subsettune.task import Task
from subsettune.train import RunOptions

WSD = {"schedule": "warmup_stable_decay", "schedule_options": {"warmup": 0.0, "decay": 0.25}}
SHARED: dict[str, Any] = {
    **{f"task.recipe.{key}": value for key, value in WSD.items()},
    **{f"space.{key}": REMOVED for key in ("switch", "subset_share", "selector")},
    "space.arm": "full",
    "task.tolerance": 0.5,  # so wide that every policy passes
    "study.share_prefixes": True,
    "study.trials": 8,
}
SUBSETS: dict[str, Any] = {
    **{key: value for key, value in SHARED.items() if not key.startswith("space.")},
    "space.arm": {"choice": ["full", "subset"]},
    "space.subset_share": 0.3,
    "space.selector": REMOVED,
    "study.trials": 10,
}


@pytest.fixture
def options(tmp_path: Path) -> TuneOptions:
    places = DataPaths(cache=str(tmp_path / "cache"))
    return TuneOptions(storage=str(tmp_path / "runs"), places=places, executor="inline", device="cpu")


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Examples of each update that is made in this process."""
    return count_updates(monkeypatch)


def alone(task: Task, record: RunRecord) -> None:
    """Compare a trial with the same run by itself."""
    settings = RunOptions(num_threads=1, device="cpu", evaluations=1)
    result = train.run(task, record.policy, record.seed, options=settings)
    assert (record.metric, record.ledger) == (result.metrics["validation"], result.ledger)
    assert [(p.share, p.metric, p.loss) for p in record.curve] == [(p.share, p.metric, p.loss) for p in result.curve]
    assert [one.flops for one in record.phases] == [one.flops for one in result.phases]


def all_runs(view: StudyView) -> tuple[RunRecord, ...]:
    return (*view.reference, *view.trials, *view.verification)


@pytest.mark.parametrize("changes", [SHARED, SUBSETS], ids=["schedules", "subsets"])
def test_a_study_pays_once_for_what_trials_share(
    options: TuneOptions, updates: list[int], changes: dict[str, Any]
) -> None:
    view = tune(changed(changes), run_id="a", options=options).view
    assert view.facts is not None
    trained = sum(updates) * view.facts.example_flops
    evaluated = sum(record.ledger.evaluate for record in all_runs(view))
    assert view.summary.tuning.flops == trained + evaluated
    shared = sum(record.shared_flops for record in view.trials)
    assert view.summary.tuning.shared_flops == shared > 0
    assert sum(record.shared_flops for record in (*view.reference, *view.verification)) == 0
    assert "more, had trials that begin alike not begun from one another" in tuning_text(view)
    for record in view.trials:
        alone(view.study.task, record)
    assert view.summary.verified
    assert not Folder.at(options.storage).exists("a/tune/stems")


def test_no_policy_is_seen_twice_with_one_seed(options: TuneOptions) -> None:
    view = tune(changed(SHARED), run_id="a", options=options).view
    seen = [(record.policy.key, record.seed) for record in view.trials]
    assert len(set(seen)) == len(seen)
    assert len({record.seed for record in view.trials}) < len(view.trials)


@pytest.mark.slow
@pytest.mark.parametrize("broken_at", ["trial-0003", "trial-0005"])
def test_an_interrupted_study_loses_and_repeats_nothing(
    options: TuneOptions, updates: list[int], broken_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(changed(SHARED), run_id="whole", options=options).view
    del updates[:]
    train_it = Worker.train

    def interrupted(worker: Worker, request: Any, report: Any) -> Any:
        """Trains a trial, and is gone before anybody hears of it: its stems lie there."""
        outcome = train_it(worker, request, report)
        if request.name == broken_at:
            raise KeyboardInterrupt
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(changed(SHARED), run_id="a", options=options)
    again = tune(changed(SHARED), run_id="a", options=options).view
    key = [(one.policy, one.seed, one.metric, one.ledger) for one in whole.trials]
    assert [(one.policy, one.seed, one.metric, one.ledger) for one in again.trials] == key
    assert again.facts is not None
    own = [record for record in all_runs(again) if not record.cached]
    assert sum(updates) * again.facts.example_flops == sum(r.study_flops - r.ledger.evaluate for r in own)


def test_stems_take_no_more_than_their_share_of_the_disk(
    options: TuneOptions, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none may stay, every trial trains all of itself."""
    monkeypatch.setattr("subsettune.study.stages.search.STEMS_BYTES", 0)
    view = tune(changed(SHARED), run_id="a", options=options).view
    assert view.summary.tuning.shared_flops == 0
    for record in view.trials[:3]:
        alone(view.study.task, record)


def test_a_schedule_that_leaves_nothing_to_share_is_refused(options: TuneOptions) -> None:
    with pytest.raises(ConfigError) as error:
        tune(changed({"study.share_prefixes": True}), run_id="a", options=options)
    assert "share_prefixes must be false with schedule cosine, got True." in str(error.value)
    assert "take constant, step, or warmup_stable_decay with schedule_options {warmup: 0}." in str(error.value)
    warm = {**SHARED, "task.recipe.schedule_options": {"warmup": 0.1}}
    with pytest.raises(ConfigError, match="must be false with schedule warmup_stable_decay"):
        tune(changed(warm), run_id="a", options=options)


def test_the_plan_says_what_may_be_shared() -> None:
    told = plan(parse(changed(SHARED)), is_inline=True)["expectations"]
    assert any(said.startswith("Trials that begin alike share up to 75% of a trial") for said in told)
    assert not any("share nothing" in said for said in told)
    mixed = {**SHARED, "task.recipe.schedule_options": {}, "space.schedule": {"choice": ["constant", "cosine"]}}
    told = plan(parse(changed(mixed)), is_inline=True)["expectations"]
    assert any("With cosine they share nothing." in said for said in told)
    assert not any("begin alike" in said for said in plan(parse(changed({})), is_inline=True)["expectations"])


@starts_ray
@pytest.mark.slow
def test_two_trials_at_a_time_on_a_cluster(tmp_path: Path) -> None:
    """Ray: processes that leave and read stems at once."""
    places = DataPaths(cache=str(tmp_path / "cache"))
    options = TuneOptions(storage=str(tmp_path / "runs"), places=places, device="cpu")
    view = tune(changed({**SHARED, "study.parallel": 2}), run_id="a", options=options).view
    assert view.summary.tuning.shared_flops > 0
    assert len(view.trials) > 3
    for record in view.trials:
        alone(view.study.task, record)
