"""Runs are evaluated where somebody acts on it and it pays: by hand, and in a study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fakes
import pytest

from subsettune import config
from subsettune.data import load
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, conventional
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.looks import LOOKS, SAVED_BY_STOPPING, Looks
from subsettune.study.execute.requests import RunRequest
from subsettune.study.execute.sequence import FixedRuns, StageSequence, stopwatch
from subsettune.study.execute.worker import Worker
from subsettune.study.results.records import Role, RunRecord
from subsettune.study.spec.definition import REFERENCE_POINTS
from subsettune.train import facts as facts_of
from subsettune.train.result import CurvePoint

# A pass is 100 examples of 30 FLOPs; a look is 20 of 10: three looks are 600, and 3 % of 6 2/3 passes as many.
FACTS = TaskFacts(
    num_examples=100, num_outputs=2, num_parameters=9, forward_flops=10, backward_flops=20, reference_passes=10
)
LOOKS_OF = Looks(facts=FACTS, num_validation=20)
BREAK_EVEN_PASSES = 3 * 20 * 10 / (0.03 * 100 * 30)


def asked(role: Role, passes: float) -> RunRequest:
    return RunRequest(name="a", role=role, policy=Policy(phases=(Phase(passes=passes),)), seed=0)


def test_a_trial_is_looked_at_where_that_costs_less_than_stopping_may_save() -> None:
    assert (LOOKS, SAVED_BY_STOPPING) == (3, 0.03)
    assert LOOKS_OF.num_points(asked("trial", BREAK_EVEN_PASSES + 0.01)) == 4
    assert LOOKS_OF.num_points(asked("trial", BREAK_EVEN_PASSES - 0.01)) == 1


def test_trials_that_share_beginnings_are_not_looked_at() -> None:
    shared = Looks(facts=FACTS, num_validation=20, share_prefixes=True)
    assert shared.num_points(asked("trial", 100.0)) == 1
    assert shared.num_points(asked("reference", 100.0)) == REFERENCE_POINTS


@pytest.mark.parametrize(("role", "points"), [("verification", 1), ("ablation", 1), ("reference", REFERENCE_POINTS)])
@pytest.mark.parametrize("passes", [0.1, 100.0])
def test_runs_that_nobody_stops_are_evaluated_at_their_end(role: Role, points: int, passes: float) -> None:
    assert LOOKS_OF.num_points(asked(role, passes)) == points


class Inline:
    """Runs of the made-up images, one after the other, with looks."""

    def __init__(self, folder: Path, data: dict[str, str]) -> None:
        self.task = fakes.image_task(data)
        loaded, self.facts = load(self.task), facts_of(self.task)
        self.num_validation = len(loaded.validation)
        self.worker = Worker(
            task=self.task,
            options=fakes.options(checkpoints=str(folder / "checkpoints"), fingerprint=loaded.fingerprint),
            logs=str(folder / "logs"),
            looks=Looks(facts=self.facts, num_validation=self.num_validation),
        )
        self.told: list[tuple[str, float]] = []

    def execute(self, *requests: RunRequest, stop_at: float = 2.0) -> list[RunRecord]:
        records: list[RunRecord] = []
        source = FixedRuns(list(requests), records.append)

        def progress(request: RunRequest, point: CurvePoint) -> bool:
            self.told.append((request.name, point.share))
            return point.share >= stop_at

        source.progress = progress  # type: ignore[method-assign]
        executor = InlineExecutor(self.worker, self.facts, self.num_validation, stopwatch())
        executor.execute(StageSequence(iter([source])))
        return records


@pytest.fixture
def inline(tmp_path: Path, tiny_data: dict[str, str]) -> Inline:
    return Inline(tmp_path, tiny_data)


def test_what_is_evaluated_is_charged_and_nothing_else(inline: Inline) -> None:
    """Each run of a role with the points that it is allowed, and the evaluations in its ledger are so many."""
    policy = conventional(inline.facts)
    roles: tuple[Role, ...] = ("reference", "trial", "verification", "ablation")
    asked = [RunRequest(name=role, role=role, policy=policy, seed=i) for i, role in enumerate(roles)]
    allowed = [inline.worker.looks.num_points(one) for one in asked] if inline.worker.looks else []
    assert allowed[:1] + allowed[2:] == [REFERENCE_POINTS, 1, 1]
    for row, points in zip(inline.execute(*asked), allowed, strict=True):
        assert row.cause == "finished"
        assert [point.share for point in row.curve] == [(k + 1) / points for k in range(points)]
        assert row.ledger.evaluate == points * inline.num_validation * inline.facts.forward_flops


def test_looks_do_not_change_what_is_trained(inline: Inline) -> None:
    policy = conventional(inline.facts)
    (often,) = inline.execute(RunRequest(name="a", role="reference", policy=policy, seed=3))
    assert inline.worker.options.checkpoints is not None
    shutil.rmtree(inline.worker.options.checkpoints)  # or the second run would find the first one's end there
    (once,) = inline.execute(RunRequest(name="b", role="verification", policy=policy, seed=3))
    assert (len(often.curve), len(once.curve)) == (REFERENCE_POINTS, 1)
    assert once.metric == often.metric
    assert once.ledger.spent == often.ledger.spent


def test_a_run_is_stopped_at_a_look_alone(inline: Inline) -> None:
    asked = RunRequest(name="a", role="reference", policy=conventional(inline.facts), seed=0)
    (row,) = inline.execute(asked, stop_at=0.3)
    assert inline.told == [("a", 1 / REFERENCE_POINTS), ("a", 2 / REFERENCE_POINTS)]
    assert row.cause == "stopped"


def test_looks_go_to_the_workers_with_the_rest(inline: Inline) -> None:
    told = config.build(Worker, json.loads(config.canonical_json(inline.worker)))
    assert told == inline.worker
    assert told.looks == Looks(facts=inline.facts, num_validation=inline.num_validation)
