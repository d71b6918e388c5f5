"""How far a study is, in a dozen lines."""

from __future__ import annotations

import datetime

from subsettune.report.render import Block, Column, Table
from subsettune.study.results.candidate import told_name
from subsettune.study.status import BestSoFar, StudyStatus, TrialsSoFar
from subsettune.text import (
    change_words,
    cost_words,
    counted,
    describe,
    joined,
    metric_name,
    metric_words,
    seconds_words,
)

STATES = {
    "starting": "starting",
    "running": "running",
    "interrupted": "interrupted",
    "failed": "ended with an error",
    "killed": "not running: its driver has ended without a word",
    "finished": "finished",
}


def status_blocks(status: StudyStatus, now: datetime.datetime) -> list[Block]:
    """The study in a heading, a table of what is known, and what to do next.

    Args:
        status: of the study.
        now: with a time zone; times are told from it.
    """
    stage = status.stage if status.stage not in ("", "finished") else ""
    heading = f"Study {status.run_id}: {STATES[status.state]}{f', in stage {stage}' if stage else ''}."
    rows = {
        "driven by": _driver(status, now),
        "last record": _ago(status.written, now),
        "reference": _reference(status),
        "trials": "" if status.trials is None else _trials(status.trials),
        "verification": joined(
            [f"{told_name(name)} {counted(runs, 'run')}" for name, runs in status.verification.items()]
        ),
        "spent": _spent(status),
        "best so far": "" if status.best is None else _best(status, status.best),
    }
    table = Table(
        columns=(Column(title=""), Column(title="", wrap=True)),
        rows=tuple((label, words) for label, words in rows.items() if words),
    )
    return [heading, table, *_end(status)]


def _driver(status: StudyStatus, now: datetime.datetime) -> str:
    if status.driver is None:
        return ""
    silent_s = max(0.0, now.timestamp() - status.driver.alive_s)
    return f"{status.driver.words}, last sign of life {_age(silent_s)} ago"


def _ago(written: str | None, now: datetime.datetime) -> str:
    if written is None:
        return ""
    age_s = (now - datetime.datetime.fromisoformat(written)).total_seconds()
    return f"{_age(age_s)} ago ({written})"


def _age(seconds: float) -> str:
    """In whole seconds at first: clocks of two machines differ by more than less."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 120 else seconds_words(whole)


def _reference(status: StudyStatus) -> str:
    if not status.references_asked:
        return ""
    if status.references > status.references_asked:
        return f"{status.references} runs, {status.references_asked} of them for the search"
    return f"{status.references} of {counted(status.references_asked, 'run')}"


def _trials(trials: TrialsSoFar) -> str:
    causes = {"finished": trials.finished, "stopped early": trials.stopped}
    causes |= {"diverged": trials.diverged, "failed": trials.failed}
    told = ", ".join(f"{number} {cause}" for cause, number in causes.items() if number)
    running = f"; {trials.running} running" if trials.running else ""
    return f"{trials.ended} of {trials.asked}{f': {told}' if told else ''}{running}"


def _spent(status: StudyStatus) -> str:
    if status.trainings is None:
        return ""
    starts = f", in {counted(status.num_starts, 'start')}" if status.num_starts > 1 else ""
    trainings = f"{status.trainings:.1f} trainings by the recipe" if status.flops else "nothing yet"
    return f"{trainings}, {seconds_words(status.elapsed_s)} at work{starts}"


def _best(status: StudyStatus, best: BestSoFar) -> str:
    metric = metric_words(best.metric, status.tolerance)
    gap = metric_words(abs(best.gap), status.tolerance)
    against = (
        "as the reference" if best.gap == 0 else f"{gap} {'better' if best.gap > 0 else 'worse'} than the reference"
    )
    error = "" if best.error_increase is None else f", its error {change_words(best.error_increase)}"
    how = "verified" if best.is_verified else "one seed, not verified yet"
    cost = f"{cost_words(best.compute_share)} of the recipe's compute"
    return f"{cost}: {metric_name(status.metric_name)} {metric}, {against}{error} ({how}); {describe(best.policy)}"


def _end(status: StudyStatus) -> list[Block]:
    if status.state == "finished":
        return [status.headline]
    failed = [f"It ended with: {status.failure}"] if status.failure else []
    return [*failed, *([] if status.goes_on or not status.command else [f"To go on: {status.command}"])]
