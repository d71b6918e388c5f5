"""A training function of the user's own, called for a run like those of our own loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from subsettune import plugins
from subsettune.config import must
from subsettune.errors import ConfigError, StorageError, TrainingFunctionError
from subsettune.policy import Policy
from subsettune.task import Task
from subsettune.train.evaluation import Report
from subsettune.train.follow.own_run import begun, finished_before, keep_result, result_of
from subsettune.train.follow.run import Diverged, Run, StopRun
from subsettune.train.follow.session import carry_out_program
from subsettune.train.options import RunOptions
from subsettune.train.result import RunResult


def carry_out(
    task: Task,
    policy: Policy,
    seed: int,
    *,
    report: Report | None,
    clock: Callable[[], float],
    options: RunOptions,
) -> RunResult:
    """Have the task's training function or program follow a policy; arguments and errors as of `train.run`.

    Raises:
        TrainingFunctionError: it did what no run can be made of. Errors of a function come through as they are.
    """
    if task.is_script:
        return carry_out_program(task, policy, seed, report=report, options=options)
    assert task.train is not None
    function = plugins.load_object(task.train, "train")
    if not callable(function):
        raise ConfigError(must("train", "a function", task.train, "Check the name after the colon."))
    before = finished_before(task, policy, seed, options)
    if before is not None:
        return before
    with begun(task, policy, seed, report=report, clock=clock, options=options) as tracker:
        run = Run(tracker)
        try:
            function(run)
            result = result_of(tracker, run, run._cause, options)
        except (StopRun, Diverged) as end:
            result = result_of(tracker, run, "stopped" if isinstance(end, StopRun) else "diverged", options)
        except SystemExit as error:
            tracker.writer.mark(tracker.account.ledger())
            raise TrainingFunctionError(
                "the training function called sys.exit, which ends the study's process. Return, or raise an error."
            ) from error
        except BaseException:
            with contextlib.suppress(StorageError):  # the first error is the one to tell
                tracker.writer.mark(tracker.account.ledger())
            raise
        keep_result(tracker, result, run)
        return result
