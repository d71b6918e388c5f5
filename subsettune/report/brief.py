"""What a study prints unasked: what it found, what must not stay untold, what it cost, and what to do next.

Everything else is a page (`report.html`), `show RUN --all`, or one part of that (`subsettune.report.parts`).
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from subsettune.report.costs import seconds_beside, slow_sentence
from subsettune.report.render import Block, Column, Snippet, Table
from subsettune.report.tables import (
    ResultRow,
    beside_text,
    ended_by_itself,
    known_before_sentences,
    result_rows,
    rounds_words,
    short_metric,
    split_of,
)
from subsettune.study import DEFAULT_STORAGE
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyView
from subsettune.study.spec.space_check import read_space
from subsettune.text import (
    NOTHING,
    counted,
    describe,
    flops_words,
    joined,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    sentence,
    share_words,
    short_seconds_words,
)

WIDTH = 60  # that the table takes at most
MOST_WARNINGS = 3  # of the data; the others are counted
SMALL_BUDGET = 0.8  # of the recipe's compute: a space that ends below it may end too early
MORE_TRIALS = 2  # times as many
MOST_TOLERANCE = 3  # times the study's: a larger one is none that anybody would take for matched


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a study lies, as its reader names it.

    Args:
        storage: folder or URI that holds studies.
        report: the study's page; null where there is none.
    """

    storage: str = DEFAULT_STORAGE
    report: str | None = None

    def command(self, words: str) -> str:
        """A command about studies, with the storage where that is not the usual one."""
        usual = self.storage == DEFAULT_STORAGE
        return f"subsettune {words}" + ("" if usual else f" --storage {shlex.quote(self.storage)}")


def brief_blocks(view: StudyView, where: Where) -> list[Block]:
    """Headline, one table, what is to be known, the price, and commands that can be pasted."""
    blocks: list[Block] = [view.summary.headline]
    if rows := brief_rows(view):
        blocks += [brief_table(view, rows), _below(view, rows)]
    if known := to_be_known(view):
        blocks.append(_listed("To be known:", known))
    if price := price_text(view):
        blocks.append(price)
    if tips := to_try(view):
        blocks.append(_listed("To try:", tips))
    return [*blocks, *_next(view, where)]


def _listed(title: str, sentences: Sequence[str]) -> str:
    """Sentences, one a line; a single one stands for itself."""
    return sentences[0] if len(sentences) == 1 else "\n".join([title, *(f"- {one}" for one in sentences)])


# ---- the table


def brief_rows(view: StudyView) -> tuple[ResultRow, ...]:
    """Reference, best policy and controls; where no policy passed, what came nearest in place of a best one."""
    rows, near = result_rows(view), nearest(view)
    if near is None:
        return rows
    policy = view.candidates[near.name].policy
    known = {"shorter": view.summary.shorter, "equal": view.summary.equal}
    if any(row is not None and row.policy.key == policy.key for row in known.values()):
        return rows
    return (*rows[:1], _nearest_row(view, near), *rows[1:])


def nearest(view: StudyView) -> Verdict | None:
    """Of all rounds, what missed by least; None where one passed, or none was tested."""
    if view.summary.verified or view.summary.status != "finished":
        return None
    return view.nearest


def _nearest_row(view: StudyView, near: Verdict) -> ResultRow:
    candidate, rate = view.candidates[near.name], _flops_per_s(view)
    return ResultRow(
        role="nearest",
        title="the policy that came nearest",
        policy=describe(candidate.policy, view.facts),
        verdict="missed",
        metric=view.compared(near.name).metric,
        passes=candidate.policy.passes,
        round=view.manifest.round_of(near.name),
        seconds=None if rate is None else candidate.cost_flops / rate,
    )


def _flops_per_s(view: StudyView) -> float | None:
    """The pace of the recipe."""
    reference = view.summary.reference
    return reference.flops / reference.seconds if reference is not None and reference.seconds else None


def brief_table(view: StudyView, rows: tuple[ResultRow, ...]) -> Table:
    """The result in at most six lines and 60 columns."""
    tolerance = view.study.task.tolerance
    titles = ("", short_metric(view), "passes", "time", "saved", "verdict")
    return Table(
        columns=tuple(Column(title=t, align="left" if t in ("", "verdict") else "right") for t in titles),
        rows=tuple(
            (
                row.role,
                metric_words(row.metric, tolerance),
                passes_words(row.passes),
                short_seconds_words(row.seconds),
                saving_words(row.saving),
                _short_verdict(row.verdict),
            )
            for row in rows
        ),
    )


def _short_verdict(verdict: str) -> str:
    """`passed`, `missed`, `undecided`, `not tested`; of a random control `within` or `outside` the tolerance."""
    if verdict == "not verified yet":
        return "not yet"
    return verdict.partition(" by ")[0].removesuffix(" the margin") or NOTHING


def _below(view: StudyView, rows: tuple[ResultRow, ...]) -> str:
    """The policy of the table in words, and what its numbers are of."""
    told = next((row for row in rows if row.role in ("best", "nearest", "shorter")), None)
    means = f"Means on the {split_of(view)} split; saved: compute{seconds_beside(view)}."
    known = {row.role for row in rows}
    by_search = joined([role for role in ("shorter", "equal") if role in known])
    if "own" in known:
        means += f" All data: {by_search} by the search's settings, own by a subset policy's, not tested for a match."
    means += rounds_words(rows)
    return means if told is None else f"{means} {sentence(told.role)}: {told.policy}."


# ---- what must not stay untold


def to_be_known(view: StudyView) -> list[str]:
    """What a reader who reads nothing else has to know, a sentence or two each."""
    found = [*view.manifest.data_warnings[:MOST_WARNINGS]]
    more = len(view.manifest.data_warnings) - len(found)
    found = [f"Look at the data: {one}" for one in found]
    if more > 0:
        found.append(f"Of the data there is more to look at: {counted(more, 'sentence')} in show --all.")
    found += beside_text(view, only_limits=True)
    found += [text for text in (_failed(view), slow_sentence(view), _early_stop(view)) if text]
    return found + known_before_sentences(view)


def _failed(view: StudyView) -> str:
    trials = view.summary.trials
    of = counted(trials.finished + trials.stopped + trials.failed, "trial")
    return f"{trials.failed} of {of} failed or diverged." if trials.failed else ""


def _early_stop(view: StudyView) -> str:
    """That the recipe with an early stop would have saved as much or more: what a reader would try first."""
    if view.summary.status != "finished":
        return ""
    stops = [one for one in view.summary.early_stops if one.is_within and one.saving is not None]
    most = max(stops, key=lambda one: one.saving or 0, default=None)
    best = view.summary.best.saving if view.summary.best is not None and view.summary.verified else None
    if most is None or most.saving is None or most.saving < max(best or 0, 0.01):
        return ""
    how = f"truncated at look {most.look} of {most.looks}, its schedule unchanged"
    if most.patience is not None:
        how = f"stopped after {counted(most.patience, 'look')} without a better one"
    return (
        f"The recipe, {how}, would have saved {saving_words(most.saving)}: chosen in hindsight on the validation "
        "split, which flatters; it was not tested."
    )


# ---- the price


def price_text(view: StudyView) -> str:
    """What tuning cost, and after how many trainings that is repaid."""
    tuning, reference = view.summary.tuning, view.summary.reference
    if not tuning.flops or reference is None:
        return ""
    cost = f"Tuning cost {tuning.flops / reference.flops:.1f} conventional trainings"
    text = f"{cost} ({flops_words(tuning.flops, view.unit)}, {seconds_words(tuning.seconds)} of training)"
    if tuning.break_even is None:
        return f"{text}; without a verified saving it is not repaid."
    seconds = tuning.break_even_seconds
    time = "in time never" if seconds is None else f"{seconds:,} in time"
    return f"{text}; repaid after {counted(tuning.break_even, 'training')} by the policy in compute, {time}."


# ---- what to try where nothing passed


def to_try(view: StudyView) -> list[str]:
    """What may help where a finished study found no policy that passed, the likeliest first."""
    known = [run for run in view.trials if run.cause != "failed"]
    if view.summary.verified or view.summary.status != "finished" or not known:
        return []
    return [*_of_nearest(view), *_of_space(view), *_of_recipe(view)]


def _of_nearest(view: StudyView) -> Iterator[str]:
    near, tolerance = nearest(view), view.study.task.tolerance
    if near is None:
        return
    shown = metric_words(near.shortfall, tolerance)
    if near.mean_difference > -tolerance:
        yield (
            f"More runs: the mean of {view.named(near.name)} is within {tolerance:g}, and its bound misses by {shown}: "
            f"{near.num_seeds} runs show too little.{_seeds(near)}"
        )
    else:
        below = metric_words(-tolerance - near.mean_difference, tolerance)
        which = f"{view.named(near.name)}, which came nearest,"
        yield f"More compute: the mean of {which} is {below} beyond the {tolerance:g} allowed."
    if tolerance + near.shortfall <= MOST_TOLERANCE * tolerance:
        yield (
            f"A tolerance of more than {metric_words(tolerance + near.shortfall, tolerance)}, if that is good enough "
            "for you: in a study of a new name."
        )
    elif -MOST_TOLERANCE * tolerance < near.mean_difference <= -tolerance:
        lowest = metric_words(-near.lower_bound, tolerance)
        yield f"More runs: {near.num_seeds} scatter so much that it may be worse by {lowest}.{_seeds(near)}"


def _seeds(near: Verdict) -> str:
    if near.seeds_needed is None or near.seeds_needed <= near.num_seeds:
        return " Set study.seeds, in a study of a new name."
    return f" With study.seeds {near.seeds_needed} one that equals the recipe passes in four cases of five."


def _of_space(view: StudyView) -> Iterator[str]:
    axis = next((one for one in read_space(view.study.space).coordinates if one.name == "budget"), None)
    most = None if axis is None else axis.hi if axis.kind in ("float", "int") else None
    if most is not None and most < SMALL_BUDGET:
        yield f"A wider space: its budget ends at {share_words(most)} of the recipe's compute."


def _of_recipe(view: StudyView) -> Iterator[str]:
    if not any(view.reaches(run.metric) for run in view.trials):
        tried = counted(len(view.trials), "trial")
        yield f"A larger tolerance or a longer recipe: none of {tried} reached the target, so none may be to spare."


# ---- what next


def _next(view: StudyView, where: Where) -> list[Block]:
    rows = [*_follow_up(view, where), *_looking(view, where)]
    found: list[Block] = [f"Report: {where.report}"] if where.report else []
    return [*found, Snippet(rows=tuple(rows))]


def _follow_up(view: StudyView, where: Where) -> Iterator[tuple[str, str]]:
    run, command = shlex.quote(view.run_id), view.manifest.command or ""
    bundle = view.summary.bundle
    if bundle is not None:
        place = shlex.quote(_as_seen(bundle))
        yield _training(view, place), "train by it"
        yield where.command(f"export {run} policies/{run}"), "take it along"
    elif view.summary.status != "finished" and command:
        yield command, "go on"
    elif command and not ended_by_itself(view):
        more = MORE_TRIALS * max(view.study.study.trials, view.manifest.trials_asked)
        yield f"{re.sub(r' --trials[ =][0-9]+', '', command)} --trials {more}", "search on"


def _training(view: StudyView, bundle: str) -> str:
    """What trains by a bundle: on the data that it names, or by the user's own code."""
    if view.study.task.is_own:
        return f"subsettune train {shlex.quote(_as_seen(f'{view.folder}/study.yaml'))} --policy {bundle}"
    root = _option(view.manifest.command or "", "--data-root")
    at = f" --data-root {shlex.quote(root)}" if root else ""
    return f"subsettune follow {bundle} --save models/{shlex.quote(view.run_id)}{at}"


def _option(command: str, name: str) -> str | None:
    """The value of a flag in the command that a study was started by."""
    words = shlex.split(command)
    pairs = itertools.pairwise(words)
    joint = (word.partition("=")[2] for word in words if word.startswith(f"{name}="))
    return next((value for word, value in pairs if word == name), next(joint, None))


def _looking(view: StudyView, where: Where) -> Iterator[tuple[str, str]]:
    run = shlex.quote(view.run_id)
    if not where.report and view.summary.status == "finished":
        yield where.command(f"report {run}"), "write the page"
    yield where.command(f"show {run} --all"), "more tables"
    if view.trials:
        why = "why some failed; " if view.summary.trials.failed else ""
        yield where.command(f"show {run} trials"), f"{why}or verification, ablation, costs, curves"


def _as_seen(path: str) -> str:
    """A path as short as it can be told here."""
    local = Path(path)
    return path if "://" in path or not local.is_relative_to(Path.cwd()) else str(local.relative_to(Path.cwd()))
