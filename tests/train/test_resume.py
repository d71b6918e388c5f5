"""An interrupted run that comes back ends with the same bits, the same ledger and the same curve."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import image_task, options, same_bits, two_phases
from interrupts import ADAM, ALWAYS, NEVER, POLICY, InterruptedRunError, assert_same, interrupt_after, noisy_task, run
from places import SUPPORT

from subsettune import config, train
from subsettune.errors import CheckpointError
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train import CurvePoint
from subsettune.train.account import Stopwatch, no_seconds
from subsettune.train.checkpoint import Checkpoints, CheckpointWriter, ProgressMarker

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "every_s", "stride"),
    [({}, NEVER, 2), (ADAM, ALWAYS, 5)],
    ids=["momentum, at the switch", "adam, each update"],
)
def test_interrupted_at_any_point(
    tiny_data: Data, tmp_path: Path, recipe: dict[str, Any], every_s: float, stride: int
) -> None:
    task = noisy_task(tiny_data, **recipe)
    whole = run(task)
    assert {point.phase for point in whole.curve} == {0, 1}
    for number in {*range(1, len(whole.curve), stride), len(whole.curve)}:
        folder = str(tmp_path / str(number))
        with pytest.raises(InterruptedRunError):
            run(task, report=interrupt_after(number), checkpoints=folder, checkpoint_every_s=every_s)
        again = run(task, checkpoints=folder, checkpoint_every_s=every_s)
        assert_same(again, whole)
        assert again.repeated_flops > 0


def test_interrupted_again_and_again(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    whole = run(task)
    attempts = 0
    while True:
        attempts += 1
        try:
            again = run(task, report=interrupt_after(3), checkpoints=str(tmp_path), checkpoint_every_s=ALWAYS)
            break
        except InterruptedRunError:
            assert attempts < 100
    assert attempts > 10  # each begins with the last point of before
    assert_same(again, whole)


SCRIPT = """
import os, signal, sys
from fakes import options, two_phases
from interrupts import ALWAYS, noisy_task, run
task = noisy_task({"images": sys.argv[1]})
def report(point):
    if point.share >= float(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False
run(task, report=report, checkpoints=sys.argv[2], checkpoint_every_s=ALWAYS)
"""


@pytest.mark.slow
def test_killed_in_both_phases(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    here = str(SUPPORT)
    for share in (0.8, 0.9):  # the switch is at 0.72
        command = [sys.executable, "-c", SCRIPT, tiny_data["images"], str(tmp_path), str(share)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    whole, again = run(task), run(task, checkpoints=str(tmp_path))
    assert_same(again, whole)


# --- finished and stopped runs ----------------------------------------------------------------------------------------


def test_a_finished_run_is_only_measured_on_what_is_missing(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    first = run(task, splits=("validation",), checkpoints=str(tmp_path))
    points: list[CurvePoint] = []
    second = run(task, splits=("validation", "test"), checkpoints=str(tmp_path), report=points.append)
    known = train.facts(task)
    assert points == []
    assert set(first.metrics) == {"validation"}
    assert second.metrics == run(task).metrics
    assert second.ledger.evaluate - first.ledger.evaluate == 60 * known.forward_flops
    assert (second.ledger.spent, second.updates, second.curve) == (first.ledger.spent, first.updates, first.curve)
    assert (second.train_s, second.select_s, second.repeated_flops) == (first.train_s, first.select_s, 0)
    third = run(task, splits=("validation",), checkpoints=str(tmp_path))
    assert third.metrics == first.metrics  # what was not asked for is not told
    assert third.ledger == second.ledger
    assert same_bits(third.model, first.model)


def test_a_stopped_run_goes_on_from_where_it_stopped(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    stopped = run(task, report=lambda point: point.share > 0.3, checkpoints=str(tmp_path), checkpoint_every_s=NEVER)
    assert stopped.cause == "stopped"
    points: list[CurvePoint] = []
    again = run(task, report=points.append, checkpoints=str(tmp_path))
    assert_same(again, run(task))
    assert again.repeated_flops == 0
    assert again.curve == (*stopped.curve[:-1], *points)  # the last is told again: an interruption may have eaten it


def test_a_resumed_run_keeps_the_number_of_threads_that_it_began_with(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    with pytest.raises(InterruptedRunError):
        run(task, report=interrupt_after(4), checkpoints=str(tmp_path), checkpoint_every_s=ALWAYS)
    threads = torch.get_num_threads()
    again = run(task, checkpoints=str(tmp_path), num_threads=2)
    assert again.num_threads == 1
    assert torch.get_num_threads() == threads
    assert_same(again, run(task))


# --- repeated work ----------------------------------------------------------------------------------------------------


def test_repeated_work_is_what_was_done_after_the_last_checkpoint(tiny_data: Data, tmp_path: Path) -> None:
    task = image_task(tiny_data, batch_size=21)  # 10 updates a pass, a point after each
    policy = Policy(phases=(Phase(passes=2),))
    known = train.facts(task)
    point = 21 * known.example_flops + 30 * known.forward_flops
    settings: dict[str, Any] = {"evaluations": 20, "checkpoints": str(tmp_path), "checkpoint_every_s": NEVER}
    for number in (7, 4):  # no checkpoint is made: all of it is lost
        with pytest.raises(InterruptedRunError):
            run(task, policy, report=interrupt_after(number), **settings)
    result = run(task, policy, **settings)
    assert result.repeated_flops == 11 * point
    assert run(task, policy, **settings).repeated_flops == 11 * point  # told again, not counted again


def test_a_stop_that_nobody_noted_is_made_again(tiny_data: Data, tmp_path: Path) -> None:
    """As where a study's driver is killed between the end of a run and its row."""
    task = noisy_task(tiny_data)
    first, second = (
        run(task, report=lambda point: point.share > 0.3, checkpoints=str(tmp_path), checkpoint_every_s=NEVER)
        for _ in range(2)
    )
    assert (first.cause, first.curve, first.ledger) == (second.cause, second.curve, second.ledger)
    assert first.cause == "stopped"


def test_work_lost_before_an_earlier_interruption_is_not_forgotten(tiny_data: Data, tmp_path: Path) -> None:
    task = image_task(tiny_data, batch_size=21)
    policy = Policy(phases=(Phase(passes=1), Phase(passes=1)))
    known = train.facts(task)
    point = 21 * known.example_flops + 30 * known.forward_flops
    settings: dict[str, Any] = {"evaluations": 20, "checkpoints": str(tmp_path), "checkpoint_every_s": NEVER}
    for number in (13, 3, 4):  # the checkpoint at the switch, after 10 points, is all there is; the tenth is told again
        with pytest.raises(InterruptedRunError):
            run(task, policy, report=interrupt_after(number), **settings)
    assert run(task, policy, **settings).repeated_flops == (3 + 2 + 3) * point


# --- when checkpoints are written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save_s", "every_s", "expected_s"),
    [(0.001, None, 2), (0.1, None, 5), (30, None, 60), (0.1, 7.0, 7)],  # seconds; a 50th of the time, within bounds
)
def test_checkpoints_take_a_50th_of_the_time(
    save_s: float, every_s: float | None, expected_s: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    kept = Checkpoints(Folder.at(tmp_path), "k")
    monkeypatch.setattr(Checkpoints, "save", lambda *_: now.__setitem__(0, now[0] + save_s))
    watch = Stopwatch(lambda: now[0], torch.device("cpu"), no_seconds())
    writer = CheckpointWriter(kept, every_s, watch)
    last_s, gaps = 0.0, []
    while len(gaps) < 3:
        now[0] += 0.25
        if writer.due() == "save":
            gaps.append(now[0] - last_s)
            writer.save({"done": False}, Ledger())
            last_s = now[0]
    first_s = 5 if every_s is None else every_s
    assert gaps == pytest.approx([first_s, expected_s, expected_s], abs=0.25)


def test_what_is_done_between_checkpoints_is_marked(tmp_path: Path) -> None:
    now = [0.0]
    watch = Stopwatch(lambda: now[0], torch.device("cpu"), no_seconds())
    writer = CheckpointWriter(Checkpoints(Folder.at(tmp_path), "k"), 8.0, watch)
    due = []
    for _ in range(7):
        now[0] += 1
        due.append(writer.due())
    assert due == [None, "mark", None, "mark", None, "mark", None]


# --- checkpoints that cannot be used ----------------------------------------------------------------------------------


def interrupted(task: Task, folder: Path) -> Path:
    """The checkpoint of an interrupted run."""
    with pytest.raises(InterruptedRunError):
        run(task, report=interrupt_after(4), checkpoints=str(folder), checkpoint_every_s=ALWAYS)
    (path,) = folder.glob("*.checkpoint")
    return path


def test_damaged_checkpoints_are_refused(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    path = interrupted(task, tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (b"", content[:middle], content[:-1], flipped, b"x" + content, content + b"x"):
        path.write_bytes(damaged)
        message = f"^checkpoint {path} is damaged. Delete it: the run then starts over.$"
        with pytest.raises(CheckpointError, match=message):
            run(task, checkpoints=str(tmp_path))
    path.unlink()
    assert_same(run(task, checkpoints=str(tmp_path)), run(task))


def test_a_foreign_checkpoint_is_refused(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    path = interrupted(task, tmp_path)
    key = train.run_key(task, train.loop.load(task).fingerprint, POLICY, 4)  # type: ignore[attr-defined]
    other = path.with_name(f"{key}.checkpoint")
    path.rename(other)
    with pytest.raises(CheckpointError, match=f"^checkpoint {other} belongs to another run. Delete it"):
        train.run(task, POLICY, 4, options=options(checkpoints=str(tmp_path)))


def checkpoints(task: Task, folder: Path) -> Checkpoints:
    from subsettune.data import load
    from subsettune.storage import Folder

    return Checkpoints(Folder.at(folder), train.run_key(task, load(task).fingerprint, POLICY, 3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("order"), "'order'"),
        (lambda state: state["learner"]["network"].pop("head.2.bias"), "Error.s. in loading state_dict for Noisy:"),
        (lambda state: state.update(device="cuda"), "it was made on cuda, and the device is cpu now."),
        (lambda state: state.update(curve=[{"share": 1}]), "key 'flops' is missing."),
        (
            lambda state: state.update(price=(1000, 40_000)),
            r"it counts an example as 1.00 kFLOP and 40.0 kFLOP forward and backward, and here it is .* and .*FLOP.",
        ),
        (  # of an earlier version, which kept no price
            lambda state: (state.pop("price"), state["account"].update(backward=state["account"]["backward"] + 64)),
            "it counts the FLOPs of an example in another way.",
        ),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tiny_data: Data, tmp_path: Path, change: Any, reason: str) -> None:
    task = noisy_task(tiny_data)
    path = interrupted(task, tmp_path)
    store = checkpoints(task, tmp_path)
    state = store.load()
    assert state is not None
    change(state)
    store.save(state)
    with pytest.raises(CheckpointError, match=f"^checkpoint {path} does not fit this run: .*{reason}.* Delete it: the"):
        run(task, checkpoints=str(tmp_path))


def test_a_damaged_mark_is_refused(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data)
    path = interrupted(task, tmp_path).with_suffix(".mark")
    path.write_bytes(b"12")
    with pytest.raises(CheckpointError, match=f"^mark {path} is damaged. Delete it: the work lost so far is then not"):
        run(task, checkpoints=str(tmp_path))


def test_marks_and_removal(tiny_data: Data, tmp_path: Path) -> None:
    store = checkpoints(noisy_task(tiny_data), tmp_path)
    assert store.marked() == ProgressMarker(flops=0, repeated=0)
    assert store.load() is None
    store.mark(ProgressMarker(flops=12, repeated=3))
    store.save({"numbers": [1, 2.5, None, "text", (True,)], "tensor": torch.arange(3)})
    assert store.marked() == ProgressMarker(flops=12, repeated=3)
    store.mark(ProgressMarker(flops=12, repeated=3, shared=5))
    assert (store.marked().shared, store.marked().own) == (5, 7)
    state = store.load()
    assert state is not None
    assert state["numbers"] == [1, 2.5, None, "text", (True,)]
    assert torch.equal(state["tensor"], torch.arange(3))
    store.remove()
    assert list(tmp_path.iterdir()) == []


# --- the key ----------------------------------------------------------------------------------------------------------


def test_what_a_key_depends_on(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    same = [
        train.run_key(task, "f", POLICY, 3),
        train.run_key(config.build(Task, config.to_plain(task)), "f", POLICY, 3),
        train.run_key(config.build(Task, {**config.to_plain(task), "tolerance": 0.5}), "f", POLICY, 3),
    ]
    other = [
        train.run_key(task, "f", POLICY, 4),
        train.run_key(task, "g", POLICY, 3),
        train.run_key(image_task(tiny_data, lr=0.2), "f", POLICY, 3),
        train.run_key(image_task(tiny_data, metric="macro_f1"), "f", POLICY, 3),
        train.run_key(task, "f", two_phases(1.0, 0.5), 3),
    ]
    assert len(set(same)) == 1
    assert len({*same, *other}) == 1 + len(other)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, where code of theirs is found; what was imported from it is forgotten afterwards."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


NET = "import edited_layers\ndef net(**options):\n    return edited_layers.mlp(hidden=(8,))\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("edited_net.py", NET + "# edited\n"),
        ("edited_layers.py", "from subsettune.models import mlp\nWIDTH = 4\n"),  # imported by the module
        ("edited_more/deep.py", "DEPTH = 3\n"),  # imported by what it imports, in a function
        ("start.bin", "1"),  # named by an option
    ],
)
def test_a_user_s_code_is_part_of_the_key(tiny_data: Data, user_folder: Path, file: str, content: str) -> None:
    """A checkpoint made before an edit must not be gone on from, whichever of the user's files was edited."""
    files = {
        "edited_net.py": NET,
        "edited_layers.py": "from subsettune.models import mlp\ndef late():\n    from edited_more import deep\n",
        "edited_more/__init__.py": "",
        "edited_more/deep.py": "DEPTH = 2\n",
        "start.bin": "0",
    }
    model = {"name": "edited_net:net", "start": "start.bin"}
    keys = []
    for edit in ({}, {}, {file: content}, {}):
        for name, text in {**files, **edit}.items():
            (user_folder / name).parent.mkdir(exist_ok=True)
            (user_folder / name).write_text(text)
        for name in [name for name in sys.modules if name.startswith("edited_")]:
            del sys.modules[name]  # as in another process
        importlib.invalidate_caches()
        keys.append(train.run_key(image_task(tiny_data, model), "f", POLICY, 3))
    assert keys[0] == keys[1] == keys[3] != keys[2]


def test_a_process_goes_by_the_code_that_it_has_loaded(tiny_data: Data, user_folder: Path) -> None:
    """An edited file means nothing until it is reloaded, as a notebook does; then its key and its facts are new."""
    file = user_folder / "edited_net.py"
    body = "from subsettune.models import mlp\ndef net(input_shape, num_outputs):\n"
    file.write_text(f"{body}    return mlp(input_shape=input_shape, num_outputs=num_outputs, hidden=(4,))\n")
    task = image_task(tiny_data, {"name": "edited_net:net"})
    keys, sizes = [train.run_key(task, "f", POLICY, 3)], [train.facts(task).num_parameters]
    file.write_text(f"{body}    return mlp(input_shape=input_shape, num_outputs=num_outputs, hidden=(16,))\n")
    os.utime(file, (2, 2))  # else Python's own cache of compiled code, which goes by seconds, would hide the edit
    for reload in (False, True):
        if reload:
            importlib.reload(sys.modules["edited_net"])
        keys.append(train.run_key(task, "f", POLICY, 3))
        sizes.append(train.facts(task).num_parameters)
    assert keys[0] == keys[1] != keys[2]
    assert sizes[0] == sizes[1] < sizes[2]


# --- code of a user's own that keeps something beside its state -------------------------------------------------------


class Slowing(torch.optim.SGD):
    """Counts its steps in an attribute, which `state_dict` leaves out."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] /= self.steps
        return super().step(closure)


class Syncing(torch.optim.SGD):
    """Averages with slow weights of its own every five steps."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        self.steps = 0

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.steps += 1
        if self.steps % 5 == 0:
            fast = [p for group in self.param_groups for p in group["params"]]
            for slow, p in zip(self.slow, fast, strict=True):
                p.data.copy_(slow.lerp_(p.detach(), 0.5))
        return result


class Forwarding(torch.optim.SGD):
    """Steps by another optimizer that shares its groups until a state is loaded, as SAM is often written."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr=lr)
        self.inner = torch.optim.SGD(self.param_groups, lr=lr, momentum=momentum)

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


@pytest.mark.parametrize("name", ["Slowing", "Syncing", "Forwarding"])
def test_an_optimizer_with_more_than_its_state_begins_again(
    tiny_data: dict[str, str], tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Going on from the checkpoint would give other weights without a word."""
    task = image_task(tiny_data, optimizer=f"tests.train.test_resume:{name}", momentum=0.9)
    whole = run(task)
    assert [message for message in caplog.messages if "begins again" in message] == [
        f"model 'mlp' or optimizer 'tests.train.test_resume:{name}' keeps something that its state_dict leaves out: a "
        "run that is interrupted begins again, for it would end with other numbers from a checkpoint. Keep it in a "
        "buffer of the network, or in the optimizer's state or param_groups."
    ]
    kept = {"checkpoints": str(tmp_path), "checkpoint_every_s": ALWAYS}
    with pytest.raises(InterruptedRunError):
        run(task, report=interrupt_after(10), **kept)
    again = run(task, **kept)
    assert_same(whole, again)
    assert again.repeated_flops >= whole.curve[9].flops  # all of it was done twice
    assert_same(whole, run(task, **kept))  # a finished one is kept


class Grouped(torch.optim.AdamW):
    """With all that it keeps in its state."""


def test_an_optimizer_of_ones_own_goes_on(tiny_data: dict[str, str], tmp_path: Path) -> None:
    task = image_task(tiny_data, optimizer="tests.train.test_resume:Grouped", momentum=None, lr=0.01)
    kept = {"checkpoints": str(tmp_path), "checkpoint_every_s": ALWAYS}
    whole = run(task)
    with pytest.raises(InterruptedRunError):
        run(task, report=interrupt_after(10), **kept)
    again = run(task, **kept)
    assert_same(whole, again)
    assert again.repeated_flops < whole.curve[9].flops
