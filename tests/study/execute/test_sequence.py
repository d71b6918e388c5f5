"""Lists of runs in this process: the chain of stages, the rows, and what happens when a run fails."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch

from subsettune.data import load
from subsettune.errors import StorageError, StudyError
from subsettune.ledger import Ledger
from subsettune.policy import Policy, conventional
from subsettune.study.execute import worker
from subsettune.study.execute.inline import InlineExecutor
from subsettune.study.execute.outcomes import PartialRun, Times, in_order, record
from subsettune.study.execute.requests import Failure, Pause, RunRequest
from subsettune.study.execute.sequence import FixedRuns, RunSource, StageSequence, stopwatch
from subsettune.study.execute.worker import Worker
from subsettune.study.results.records import RunRecord
from subsettune.train import run
from subsettune.train.checkpoint import HEADER, ProgressMarker
from subsettune.train.loop import facts as facts_of
from subsettune.train.result import CurvePoint

NOW = Times(started_s=1.0, finished_s=3.0)


def request(policy: Policy, name: str = "run", seed: int = 0) -> RunRequest:
    return RunRequest(name=name, role="reference", policy=policy, seed=seed)


class Inline:
    """An inline executor on the made-up images."""

    def __init__(self, folder: Path, data: dict[str, str], model: Any = None) -> None:
        self.folder, self.task = folder, fakes.image_task(data, model)
        self.facts, self.records, self.notes = facts_of(self.task), list[RunRecord](), list[str]()
        self.fingerprint = load(self.task).fingerprint
        self.options = fakes.options(checkpoints=str(folder / "checkpoints"), fingerprint=self.fingerprint)
        self.worker = Worker(task=self.task, options=self.options, logs=str(folder / "logs"))

    def execute(self, *requests: RunRequest, progress: Callable[[Any, CurvePoint], bool] | None = None) -> None:
        source = FixedRuns(list(requests), self.records.append)
        if progress is not None:
            source.progress = progress  # type: ignore[method-assign]
        num_validation = len(load(self.task).validation)
        executor = InlineExecutor(self.worker, self.facts, num_validation, stopwatch(), note=self.notes.append)
        executor.execute(StageSequence(iter([source])))


@pytest.fixture
def inline(tmp_path: Path, tiny_data: dict[str, str]) -> Inline:
    return Inline(tmp_path, tiny_data)


# --- the chain -------------------------------------------------------------------------------------------------------


class Stage:
    """A source of `count` runs."""

    def __init__(self, name: str, count: int, log: list[str], waits: bool = False) -> None:
        self.name, self.left, self.log, self.waits = name, count, log, waits

    def next(self) -> RunRequest | Pause:
        if not self.left:
            return Pause.WAIT if self.waits else Pause.DONE
        self.left -= 1
        return request(POLICY, f"{self.name}-{self.left}")

    def progress(self, asked: RunRequest, point: CurvePoint) -> bool:
        return False

    def finished(self, asked: RunRequest, row: RunRecord) -> None:
        self.log.append(row.name)
        self.waits = False


POLICY = fakes.two_phases(1.0, 1.0)


@pytest.fixture
def row(inline: Inline) -> Callable[[RunRequest], RunRecord]:
    return lambda asked: record(asked, inline.facts, None, 21, NOW)


def test_a_stage_begins_when_all_runs_of_the_one_before_have_ended(row: Callable[[RunRequest], RunRecord]) -> None:
    log: list[str] = []

    def stages() -> Iterator[RunSource]:
        log.append("first")
        yield Stage("a", 2, log)
        log.append("second")
        yield Stage("b", 1, log)

    chain = StageSequence(stages())
    one, two = chain.next(), chain.next()
    assert isinstance(one, RunRequest)
    assert isinstance(two, RunRequest)
    assert chain.next() is Pause.WAIT
    chain.finished(two, row(two))
    assert chain.next() is Pause.WAIT
    chain.finished(one, row(one))
    three = chain.next()
    assert isinstance(three, RunRequest)
    assert log == ["first", "a-0", "a-1", "second"]
    chain.finished(three, row(three))
    assert not chain.is_over
    assert chain.next() is Pause.DONE
    assert chain.is_over


def test_an_empty_stage_is_passed_over() -> None:
    chain = StageSequence(iter([Stage("a", 0, []), Stage("b", 1, [])]))
    asked = chain.next()
    assert isinstance(asked, RunRequest)
    assert asked.name == "b-0"


@pytest.mark.parametrize("where", ["next", "progress", "finished", "stages"])
def test_the_first_error_of_a_stage_ends_the_chain_and_is_raised(where: str, inline: Inline) -> None:
    class Broken(Stage):
        pass

    def fail(*_: object) -> Any:
        raise StudyError("broken")

    def stages() -> Iterator[RunSource]:
        if where == "stages":
            fail()
        yield broken
        raise AssertionError("a stage after the error")

    broken = Broken("a", 2, [])
    if where != "stages":
        setattr(broken, where, fail)
    chain = StageSequence(stages())
    with pytest.raises(StudyError, match="broken"):
        InlineExecutor(inline.worker, inline.facts, 21, stopwatch()).execute(chain)
    assert chain.next() is Pause.DONE
    assert not chain.is_over


# --- failures of the surroundings ------------------------------------------------------------------------------------


class Limited(Stage):
    """A source with one run under way at most."""

    def __init__(self, count: int, log: list[str]) -> None:
        super().__init__("run", count, log)
        self.under_way = 0

    def next(self) -> RunRequest | Pause:
        if self.under_way and self.left:
            return Pause.WAIT
        self.under_way += 1
        return super().next()

    def set_aside(self, asked: RunRequest) -> None:
        self.under_way -= 1
        self.log.append(f"{asked.name} aside")


@dataclasses.dataclass
class Fate:
    """What becomes of runs, one after the other: a reason to fail, or none."""

    reasons: list[str]
    facts: Any

    def train(self, asked: RunRequest, report: Callable[[CurvePoint], bool]) -> Any:
        reason = self.reasons[0]
        if reason:
            return Failure(message=f"{asked.name} failed: {reason}.", reason=reason)
        return run(self.facts.task, asked.policy, asked.seed, options=fakes.options())

    def seen(self, asked: RunRequest, points: Any) -> PartialRun:
        self.reasons.pop(0)  # told once a run that has failed
        return PartialRun()


def fate(inline: Inline, stage: RunSource, *reasons: str) -> None:
    """Carry a stage out."""
    InlineExecutor(Fate([*reasons, ""], inline), inline.facts, 21, stopwatch()).execute(StageSequence(iter([stage])))


def test_what_fails_three_runs_alike_ends_the_study_before_it_is_on_record(inline: Inline) -> None:
    log: list[str] = []
    words = (
        r"^a-2 failed: no module 'm3' at 0x7f\. So did a-4, a-3, and no run has trained since this start: what fails "
        r"every run is no matter of policies, so none of it is on record. Mend it; the same command then goes on.$"
    )
    with pytest.raises(StudyError, match=words):
        fate(inline, Stage("a", 5, log), *(f"no module 'm{i}' at 0x{i + 4}f" for i in (1, 2, 3)))
    assert log == []


def test_failures_count_once_a_run_has_trained(inline: Inline) -> None:
    log: list[str] = []
    fate(inline, Stage("a", 3, log), "no luck", "no luck")
    assert log == ["a-2", "a-1", "a-0"]


def test_after_a_run_that_trained_failures_alike_are_those_of_policies(inline: Inline) -> None:
    log: list[str] = []

    class Later(Stage):
        def finished(self, asked: RunRequest, row: RunRecord) -> None:
            super().finished(asked, row)
            reasons[:] = ["no luck"] * 9

    reasons = [""]
    worker = Fate(reasons, inline)
    InlineExecutor(worker, inline.facts, 21, stopwatch()).execute(StageSequence(iter([Later("a", 5, log)])))
    assert len(log) == 5


def test_failures_of_many_kinds_are_those_of_policies(inline: Inline) -> None:
    log: list[str] = []
    fate(inline, Stage("a", 8, log), *("abcdefgh"))
    assert len(log) == 8


def test_failures_count_where_nothing_else_can_be_run(inline: Inline) -> None:
    log: list[str] = []
    fate(inline, Stage("a", 2, log), "no luck", "no luck")
    assert log == ["a-1", "a-0"]


def test_a_source_of_one_run_at_a_time_is_told_that_a_failed_one_waits(inline: Inline) -> None:
    log: list[str] = []
    with pytest.raises(StudyError, match="So did run-3, run-2, and no run has trained"):
        fate(inline, Limited(4, log), *["no luck"] * 3)
    assert log == ["run-3 aside", "run-2 aside"]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_the_row_of_a_finished_run_is_its_result(inline: Inline) -> None:
    inline.execute(request(POLICY))
    (row,) = inline.records
    result = run(inline.task, POLICY, 0, options=fakes.options())
    assert (row.cause, row.metric, row.ledger) == ("finished", result.metrics["validation"], result.ledger)
    assert row.share_used == 1.0
    assert row.cost_flops == POLICY.cost(inline.facts)
    assert row.finished_s >= row.started_s + row.train_s
    assert row.overhead_s >= 0


@pytest.mark.parametrize("stop_at", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        fakes.two_phases(1.0, 2.0, share=0.02, selector="kcenter"),
        fakes.two_phases(0.5, 3.0, selector="stratified", transition="shrink_perturb"),
    ],
    ids=["random", "kcenter", "stratified"],
)
def test_points_alone_give_the_ledger_of_the_same_run(policy: Policy, stop_at: float, inline: Inline) -> None:
    points: list[CurvePoint] = []

    def stop(point: CurvePoint) -> bool:
        points.append(point)
        return point.share >= stop_at

    result = run(inline.task, policy, 0, report=stop, options=fakes.options())
    num_validation = len(load(inline.task).validation)
    row = record(request(policy), inline.facts, None, num_validation, NOW, PartialRun(points=tuple(points)))
    assert (row.cause, row.ledger) == ("stopped", result.ledger)
    assert row.share_used == result.ledger.spent / policy.cost(inline.facts)
    assert (row.curve, row.train_s, row.repeated_flops) == (result.curve, points[-1].seconds, 0)


def test_a_run_that_told_nothing_is_charged_what_it_marked(inline: Inline) -> None:
    seen = PartialRun(mark=ProgressMarker(flops=700, repeated=50))
    row = record(request(POLICY), inline.facts, Failure(message="no", log="there"), 21, NOW, seen)
    assert (row.cause, row.message, row.log, row.ledger) == ("failed", "no", "there", Ledger())
    assert row.repeated_flops == 750
    assert row.share_used == 0.0


def test_what_another_run_had_spent_is_no_work_that_was_lost(inline: Inline) -> None:
    """A run that began from a stem of 600 FLOPs and was then lost, before a point of its curve, and after one."""
    seen = PartialRun(mark=ProgressMarker(flops=700, repeated=50, shared=600))
    row = record(request(POLICY), inline.facts, Failure(message="no", log="there"), 21, NOW, seen)
    assert (row.ledger, row.repeated_flops, row.shared_flops, row.study_flops) == (Ledger(), 150, 0, 150)
    point = CurvePoint(share=0.5, flops=650, phase=0, metric=0.5, loss=None, seconds=1, forward=650)
    row = record(request(POLICY), inline.facts, None, 0, NOW, dataclasses.replace(seen, points=(point,)))
    assert (row.ledger.total, row.repeated_flops, row.shared_flops, row.study_flops) == (650, 100, 600, 150)


def test_a_resumed_run_that_is_stopped_has_its_whole_curve_and_all_that_it_cost(inline: Inline) -> None:
    """As after the death of a driver: the points before it were told to nobody who is still there."""

    def interrupt(point: CurvePoint) -> bool:
        if point.share >= 0.7:
            raise KeyboardInterrupt
        return False

    policy = fakes.two_phases(2.0, 2.0)
    with pytest.raises(KeyboardInterrupt):
        run(inline.task, policy, 0, report=interrupt, options=inline.options)
    told: list[CurvePoint] = []

    class Cut(BaseException):
        """Stands for a stop from outside: nothing comes back."""

    def cut(point: CurvePoint) -> bool:
        told.append(point)
        if point.share >= 0.8:
            raise Cut
        return False

    with pytest.raises(Cut):
        run(inline.task, policy, 0, report=cut, options=inline.options)
    asked = request(policy)
    row = record(asked, inline.facts, None, 21, NOW, inline.worker.seen(asked, told))
    whole = run(inline.task, policy, 0, report=lambda p: p.share >= 0.8, options=fakes.options())
    assert told[0].share == 0.5  # of the checkpoint: told again
    assert [p.metric for p in row.curve] == [p.metric for p in whole.curve]
    assert row.ledger.spent == whole.ledger.spent
    assert row.repeated_flops > 0


def test_the_later_word_on_a_share_counts() -> None:
    points = [CurvePoint(share=s, flops=1, phase=0, metric=m, loss=None, seconds=0) for s, m in PAIRS]
    assert [(p.share, p.metric) for p in in_order(points)] == [(0.1, 0.0), (0.2, 4.0), (0.3, 5.0)]


PAIRS = [(0.1, 0.0), (0.2, 1.0), (0.3, 2.0), (0.4, 3.0), (0.2, 4.0), (0.3, 5.0)]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(tmp_path: Path, tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Inline:
    monkeypatch.delitem(sys.modules, "unruly", raising=False)
    made = Inline(tmp_path, tiny_data, {"name": "unruly:Unruly", "folder": str(tmp_path)})
    (tmp_path / "order").write_text("raise")  # not before: what always raises is told before a study
    return made


def test_a_run_that_raises_is_tried_twice_then_recorded_with_log_and_command(failing: Inline) -> None:
    policy = conventional(failing.facts)
    failing.execute(request(policy, "bad", 7), request(policy, "bad-too", 8))
    first, second = failing.records
    logs = failing.folder / "logs"
    command = f"subsettune train STUDY.yaml --policy {logs}/bad.policy.json --seed 7"
    assert first.message == f"bad failed: out of luck. Log: {logs}/bad.txt. Run it alone: {command}"
    assert (first.cause, second.cause, first.log) == ("failed", "failed", f"{logs}/bad.txt")
    assert 'raise RuntimeError("out of luck")' in (logs / "bad.txt").read_text()
    assert (failing.folder / "log").read_text().count("\n") == 2 * worker.ATTEMPTS


def test_the_second_try_may_succeed(failing: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Worker.failure

    def mend(worker: Worker, *arguments: str) -> Failure:
        (failing.folder / "order").unlink()
        return plain(worker, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "failure", mend)
    failing.execute(request(conventional(failing.facts)))
    (row,) = failing.records
    assert row.cause == "finished"


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_a_gpu(content: bytes) -> bytes:
    payload = content.partition(b"\n")[2]
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(payload), weights_only=True) | {"device": "cuda"}, buffer)
    payload = buffer.getvalue()
    return HEADER + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (damaged, "checkpoint {place} is damaged."),
        (of_a_gpu, "checkpoint {place} does not fit this run: it was made on cuda, and the device is cpu now."),
    ],
)
def test_a_checkpoint_that_is_of_no_use_costs_its_run_alone(
    inline: Inline, change: Callable[[bytes], bytes], why: str
) -> None:
    def interrupt(point: CurvePoint) -> bool:
        if point.share >= 0.7:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(inline.task, POLICY, 0, report=interrupt, options=inline.options)
    (place,) = (inline.folder / "checkpoints").glob("*.checkpoint")
    spent = int(place.with_suffix(".mark").read_text().split()[0])
    place.write_bytes(change(place.read_bytes()))
    inline.execute(request(POLICY))
    assert inline.notes == [f"run: {why.format(place=place)} It begins anew."]
    (row,) = inline.records
    whole = run(inline.task, POLICY, 0, options=fakes.options())
    assert (row.cause, row.metric, row.ledger) == ("finished", whole.metrics["validation"], whole.ledger)
    assert row.repeated_flops == spent > 0


def test_a_damaged_mark_costs_what_it_told_and_no_more(inline: Inline) -> None:
    def interrupt(point: CurvePoint) -> bool:
        if point.share >= 0.7:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(inline.task, POLICY, 0, report=interrupt, options=inline.options)
    (place,) = (inline.folder / "checkpoints").glob("*.mark")
    place.write_text("12")
    told: list[CurvePoint] = []
    inline.execute(request(POLICY), progress=lambda _, point: bool(told.append(point)))
    assert inline.notes == [f"run: mark {place} is damaged. What interruptions cost it so far is not counted."]
    assert [row.cause for row in inline.records] == ["finished"]
    assert told[0].share >= 0.5, "it goes on from its checkpoint"


def test_logs_that_cannot_be_written_end_the_study(failing: Inline) -> None:
    (failing.folder / "logs").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"run failed: out of luck .* cannot be written"):
        failing.execute(request(conventional(failing.facts)))
    assert failing.records == []


def test_ctrl_c_in_a_run_is_no_failure(inline: Inline) -> None:
    def interrupt(asked: RunRequest, point: CurvePoint) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inline.execute(request(POLICY), progress=interrupt)
    assert inline.records == []


def test_the_stopwatch_goes_on_from_earlier_starts() -> None:
    clock = fakes.FakeClock()
    watch = stopwatch(100.0, clock)
    assert [watch(), watch()] == [101.0, 102.0]
