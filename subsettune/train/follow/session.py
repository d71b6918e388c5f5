"""A run of a program of the user's own: the process that asks for it, and `session`, which the program calls.

The two speak through a folder: `job.json` says what to run, `points.jsonl` gets the learning curve, a file `stop` says
that the search gives the run up, and `result.json` holds what became of it. So the program may be started in any way
that hands on the environment, and all that it needs is Python with this package.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from subsettune import config
from subsettune.config import must
from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.policy import Policy
from subsettune.task import Task
from subsettune.train.evaluation import Report
from subsettune.train.follow.own_run import begun, finished_before, forget, keep_result, result_of
from subsettune.train.follow.run import Diverged, Run, StopRun
from subsettune.train.follow.tracker import Tracker
from subsettune.train.options import RunOptions
from subsettune.train.result import Cause, CurvePoint, RunResult

PLACE = "SUBSETTUNE_SESSION"
LOOK_EVERY_S = 0.1
TOLD_LINES = 30  # of what a program printed before it failed
_open = contextlib.ExitStack()  # of the one session of this process
_is_given: list[bool] = []  # whether there is one


class Session(Run):
    """The run of a program: its result is written where the process that asked for it looks."""

    def __init__(self, tracker: Tracker, options: RunOptions, place: Path) -> None:
        super().__init__(tracker)
        self._set(_options=options, _place=place, _parent=os.getppid())

    def _hand_out(self) -> list[int] | None:
        if os.getppid() != self.__dict__["_parent"]:
            raise TrainingFunctionError("whoever asked for this run has ended: nobody would learn what becomes of it.")
        return super()._hand_out()

    def report(self, **values: float) -> None:
        """See `Run.report`."""
        try:
            super().report(**values)
        except StopRun:
            self._write("stopped")
            raise
        except Diverged:
            self._write("diverged")
            raise

    def finish(self, **told: Any) -> None:
        """See `Run.finish`."""
        try:
            super().finish(**told)
        except Diverged:
            self._write("diverged")
            raise
        self._write(self._cause)

    def _write(self, cause: Cause) -> None:
        place: Path = self.__dict__["_place"]
        result = result_of(self._tracker, self, cause, self.__dict__["_options"])
        keep_result(self._tracker, result, self)
        model = result.model if isinstance(result.model, str | Path) else None
        told = {**result.to_mapping(), "model_file": None if model is None else str(Path(model).resolve())}
        scratch = place / "result.part"
        scratch.write_text(json.dumps(told))
        scratch.replace(place / "result.json")


def session() -> Run:
    """The run that this program is started for: batches, rates and switches, as a training function gets them.

    Random numbers are seeded from here on. Call it once, at the beginning.

    Raises:
        TrainingFunctionError: nobody has started the program for a run, or it was called before.
    """
    if _is_given:
        raise TrainingFunctionError("subsettune.session() was called before in this program. Keep what it gave.")
    if PLACE not in os.environ:
        raise TrainingFunctionError(
            "subsettune.session() must be called by a program that a run was started for. Start it by "
            "`subsettune run STUDY.yaml -- python train.py`, or name it as task.train of a study."
        )
    place = Path(os.environ.pop(PLACE))  # so that programs which this one starts do not take it for theirs
    job = json.loads((place / "job.json").read_text())
    options = config.build(RunOptions, job["options"])
    tracker = _open.enter_context(
        begun(
            config.build(Task, job["task"]),
            Policy.from_mapping(job["policy"]),
            job["seed"],
            report=_Points(place),
            clock=time.perf_counter,
            options=options,
        )
    )
    atexit.register(_open.close)
    _is_given.append(True)
    return Session(tracker, options, place)


class _Points:
    """Hands points of the learning curve to the process that asked for the run, and hears whether to stop."""

    def __init__(self, place: Path) -> None:
        self._place, self._parent = place, os.getppid()

    def __call__(self, point: CurvePoint) -> bool:
        with (self._place / "points.jsonl").open("a") as stream:
            stream.write(config.canonical_json(point) + "\n")
        answered = self._place / "answers"
        expected = len((self._place / "points.jsonl").read_text().splitlines())
        while not answered.exists() or answered.read_text().strip() != str(expected):
            if os.getppid() != self._parent:  # nobody is left to answer
                return True
            time.sleep(LOOK_EVERY_S / 4)
        return (self._place / "stop").exists()


def carry_out_program(
    task: Task, policy: Policy, seed: int, *, report: Report | None, options: RunOptions
) -> RunResult:
    """Start the task's program for a run, and wait for its result; errors as of `carry_out`.

    Raises:
        ConfigError: there is no such program here.
        TrainingFunctionError: it ended without a result; what it printed last is in the notes of the error.
    """
    before = finished_before(task, policy, seed, options)
    if before is not None:
        return before
    assert task.train is not None
    with tempfile.TemporaryDirectory(prefix="subsettune-") as folder:
        place = Path(folder)
        job = {"task": task, "policy": policy, "seed": seed, "options": options}
        (place / "job.json").write_text(config.canonical_json(job))
        is_in_study = options.fingerprint is not None  # where nobody looks on: what is printed is told if it fails
        with (place / "output.txt").open("wb") as output:
            process = _start(task.train, place, output if is_in_study else None, options.num_threads)
            try:
                _attend(process, place, report)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        result = _result(place, process.returncode, task.train)
        if process.returncode and result.cause == "finished":
            forget(task, policy, seed, options)
            raise _failed(place, f"{task.train} ended with exit code {process.returncode} after run.finish")
        return result


def _start(command: str, place: Path, output: Any, num_threads: int | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, PLACE: str(place)}
    if num_threads is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
    words = shlex.split(command)
    if words[0] in ("python", "python3"):  # the one that has this package, whatever the shell finds
        words[0] = sys.executable
    try:
        both = {} if output is None else {"stdout": output, "stderr": subprocess.STDOUT}
        return subprocess.Popen(words, env=environment, **both)
    except OSError as error:
        advice = f"{error.strerror}: name a program that is on this machine."
        raise ConfigError(must("train", "a command that can be started", command, advice)) from error


def _attend(process: subprocess.Popen[bytes], place: Path, report: Report | None) -> None:
    """Until the program ends: hand on its learning curve, and tell it where to stop."""
    told = 0
    while True:
        is_over = process.poll() is not None
        file = place / "points.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        for line in lines[told:]:
            told += 1
            if report is not None and report(config.build(CurvePoint, json.loads(line))):
                (place / "stop").touch()
            scratch = place / "answers.part"
            scratch.write_text(str(told))
            scratch.replace(place / "answers")
        if is_over:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)


def _result(place: Path, code: int, command: str) -> RunResult:
    file = place / "result.json"
    if not file.exists():
        raise _failed(
            place, f"{command} ended with exit code {code} and without run.finish" if code else _SILENT.format(command)
        )
    told = json.loads(file.read_text())
    model = told.pop("model_file")
    result = config.build(RunResult, told)
    object.__setattr__(result, "model", model)
    return result


_SILENT = "{} ended without run.finish. Call it on what subsettune.session() gives, at the end."


def _failed(place: Path, said: str) -> TrainingFunctionError:
    """The error of a program, with what it printed last."""
    printed = (place / "output.txt").read_text(errors="replace").strip().splitlines()
    error = TrainingFunctionError(f"{said}: {printed[-1].strip()}" if printed and not said.endswith(".") else said)
    for line in printed[-TOLD_LINES:]:
        error.add_note(line)
    return error
