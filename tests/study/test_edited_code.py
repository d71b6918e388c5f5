"""A user's code that is edited between studies, between starts of one, and while one runs: no number is taken over."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed

from subsettune import DataPaths, TuneOptions, tune
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.policy import Phase, Policy
from subsettune.study.execute.node_check import versions_here
from subsettune.study.execute.requests import Failure, RunRequest
from subsettune.study.execute.worker import Worker
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.records import RunRecord
from subsettune.study.spec.definition import parse
from subsettune.study.stages import reference
from subsettune.train import RunOptions

NET = "from edited_width import WIDTH\nfrom subsettune.models import mlp\ndef net(input_shape, num_outputs):\n"
BODY = "    return mlp(input_shape=input_shape, num_outputs=num_outputs, hidden=(WIDTH,))\n"
EDITED = {"task.model": {"name": "edited_net:net"}, "task.tolerance": 0.5, "study.seeds": 2, "study.trials": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python's own cache goes by size and seconds
    (tmp_path / "edited_net.py").write_text(NET + BODY)
    yield tmp_path
    for name in ("edited_net", "edited_width"):
        sys.modules.pop(name, None)


@pytest.fixture
def options(folder: Path) -> TuneOptions:
    places = DataPaths(cache=str(folder / "cache"))
    return TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu")


def edit(folder: Path, width: int, *, in_import: bool = True) -> None:
    """Another width, in a file that the model's module imports or in its own; what was imported is forgotten, as in a
    new process.
    """
    (folder / "edited_width.py").write_text(f"WIDTH = {width if in_import else 1}\n")
    own = "" if in_import else f"WIDTH = {width}\n"
    (folder / "edited_net.py").write_text(NET.replace("WIDTH\n", f"WIDTH\n{own}", 1) + BODY)
    for name in ("edited_net", "edited_width"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


class StoppedError(Exception):
    """Ends a study after its reference."""


def reference_of(run_id: str, options: TuneOptions, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Metric and cost of each run of the reference, and whether it was cached."""

    def stop(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(reference.ReferenceStage, "finish", stop)
        with pytest.raises(StoppedError):
            tune(changed(EDITED), run_id=run_id, options=options)
    records = StudyFolder(options.storage, run_id).open().records("reference")
    return [[record.metric, record.ledger.spent, record.cached] for record in records]


@pytest.mark.parametrize("in_import", [True, False])
def test_a_reference_of_other_code_is_not_taken_for_that_of_this(
    folder: Path, options: TuneOptions, monkeypatch: pytest.MonkeyPatch, in_import: bool
) -> None:
    """Nor after an edit was taken back: the cache then holds both."""
    found = []
    for number, width in enumerate((2, 24, 2, 24)):
        edit(folder, width, in_import=in_import)
        found.append(reference_of(f"study-{number}", options, monkeypatch))
    narrow, wide, narrow_again, wide_again = found
    assert [cached for _, _, cached in (*narrow, *wide)] == [False] * 4
    assert [cached for _, _, cached in (*narrow_again, *wide_again)] == [True] * 4
    assert [run[:2] for run in narrow_again] == [run[:2] for run in narrow]
    assert [run[:2] for run in wide_again] == [run[:2] for run in wide]
    assert {run[1] for run in wide} == {12 * run[1] for run in narrow}  # FLOPs are in proportion to the width


def test_a_study_does_not_go_on_with_other_code(
    folder: Path, options: TuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, 4)
    reference_of("a", options, monkeypatch)
    edit(folder, 5)
    with pytest.raises(StudyError) as caught:
        tune(changed(EDITED), run_id="a", options=options)
    assert str(caught.value) == (
        "the code of 'edited_net:net', a file that it imports or one that its options name, has changed since run id "
        "'a' began: its runs would not be comparable. Put the old one back, or choose another --run-id."
    )
    edit(folder, 4)
    assert len(reference_of("a", options, monkeypatch)) == 2


@pytest.mark.parametrize("failed", [False, True], ids=["none", "failed"])
def test_a_mistake_may_be_mended_as_long_as_no_run_has_trained(
    failed: bool, folder: Path, options: TuneOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, 4)
    study = StudyFolder(options.storage, "a")
    study.begin(parse(changed(EDITED)))
    if failed:
        policy = Policy(phases=(Phase(passes=1),))
        named = {"name": "reference-seed-0", "role": "reference", "cost_flops": 1, "cause": "failed"}
        study.add(RunRecord(policy=policy, seed=0, **named))  # type: ignore[arg-type]
    study.note(code=FrozenDict({"edited_net:net": "0" * 64}))
    study.save()
    assert len(reference_of("a", options, monkeypatch)) == 2
    (code,) = StudyFolder(options.storage, "a").open().manifest.code.values()
    assert code != "0" * 64


@pytest.mark.parametrize(
    ("has", "told"),
    [
        (
            {"versions": FrozenDict({"torch": "1.0.0"})},
            " has torch {torch} where the driver has 1.0.0. Install the same",
        ),
        (
            {"task.model": {"name": "nowhere_at_all:net"}},
            " lacks code of the study: model 'nowhere_at_all:net' cannot be ",
        ),
    ],
)
def test_a_node_that_came_later_and_lacks_something_ends_the_study_and_nothing_is_on_record(
    has: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    edit(folder, 4)
    task = parse(changed({**EDITED, **{key: value for key, value in has.items() if "." in key}})).task
    options = RunOptions(device="cpu", places=DataPaths(cache=str(folder / "cache")))
    given = {key: value for key, value in has.items() if "." not in key}
    worker = Worker(task=task, options=options, logs=str(tmp_path), **given)
    request = RunRequest(name="trial-0001", role="trial", policy=Policy(phases=(Phase(passes=1),)), seed=0)
    outcome = worker.train(request, lambda _: False)
    assert isinstance(outcome, Failure)
    assert outcome.ends_study == "StudyError"
    torch = versions_here()["torch"]
    assert outcome.message.startswith(f"trial-0001 cannot go on: node {platform.node()}{told.format(torch=torch)}")


def test_a_process_with_other_code_does_not_train(folder: Path, tmp_path: Path) -> None:
    """As one that Ray starts after an edit in the midst of a study."""
    edit(folder, 4)
    task = parse(changed(EDITED)).task
    options = RunOptions(device="cpu", places=DataPaths(cache=str(folder / "cache")))
    worker = Worker(task=task, options=options, logs=str(tmp_path), code=FrozenDict({"edited_net:net": "0" * 64}))
    request = RunRequest(name="trial-0001", role="trial", policy=Policy(phases=(Phase(passes=1),)), seed=0)
    outcome = worker.train(request, lambda _: False)
    assert isinstance(outcome, Failure)
    assert outcome.ends_study == "StudyError"
    assert outcome.message == (
        "trial-0001 cannot go on: the code of 'edited_net:net' here is not that of the study: a file of it was changed "
        "meanwhile, or the machines have different ones. Put the old one back and start the same command again, or "
        "choose another --run-id."
    )
