"""The one sentence at the top: what a study found."""

from __future__ import annotations

import math

from subsettune.policy import FULL
from subsettune.study.results.summary import PolicyRow, Summary
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyRecords
from subsettune.text import (
    counted,
    joined,
    metric_name,
    metric_words,
    more_words,
    passes_words,
    saving_words,
    sentence,
    share_words,
)

REFERENCE = "reference"  # the name under which verification repeats the recipe


def headline(records: StudyRecords, summary: Summary) -> str:
    """What the study found: the saving against both comparisons, or that there is none.

    Args:
        records: of the study.
        summary: of them; its own headline is not read.
    """
    best = summary.best
    if best is not None and best.passed:
        return _won(records, summary, best)
    if summary.status == "finished" and (records.verdicts or best is None):
        return _lost(records)
    return _unfinished(records, summary)


def verdict_words(verdict: Verdict | None, tolerance: float) -> str:
    """`passed`, `missed by 0.0021`, `missed` (a run diverged), `undecided`, or `not tested`."""
    return "not tested" if verdict is None else verdict.words(tolerance)


def _won(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    assert summary.reference is not None, "a verified study has a reference"
    spent = f"{passes_words(best.passes)} of {passes_words(summary.reference.passes)} passes"
    matches = f"matches the recipe{_beside(records, best)} with "
    matches += f"{_less(best.flops, summary.reference.flops, 'training compute')} ({spent})"
    if best.policy.arm == FULL:
        plain = "a shorter schedule" if best.flops < summary.reference.flops else "a schedule"
        found = f"{plain} on all data {matches}{_passed_too(records)}{_cheaper_control(summary, best)}"
        return f"{_no_subset(records, summary, best)}{found}{_near_chance(records, summary)}."
    shorter, random = summary.shorter, _against_random(records, summary, best)
    if shorter is not None and shorter.passed and shorter.flops <= best.flops:  # of a study of before: none is exported
        much = "the same" if shorter.flops == best.flops else "less"
        too = f"a shorter schedule on all data of {much} compute does too{random}"
        return f"No subset policy is shown to win here: one {matches}, but {too}{_near_chance(records, summary)}."
    beside = f"{_against_shorter(records, summary, best)}{random}{_near_chance(records, summary)}"
    return f"{sentence(matches)}{beside}."


def _near_chance(records: StudyRecords, summary: Summary) -> str:
    """That a constant answer would match, too: the recipe was held against one on the validation split alone."""
    task, chance = records.study.task, records.manifest.test_chance
    reference = None if summary.reference is None else summary.reference.test_metric
    if chance is None or reference is None:
        return ""
    gain = reference - chance if task.higher_is_better else chance - reference
    if gain > task.tolerance:
        return ""
    told = f"a constant answer has {metric_words(chance, task.tolerance)} there"
    return f"; but {told}, no further from the recipe than the tolerance, so that matching it shows little"


def _beside(records: StudyRecords, best: PolicyRow) -> str:
    """` (accuracy 0.9712 against 0.9705 on the test split over 5 seeds, within 0.01)`: means; the seeds are shared."""
    task = records.study.task
    within = f"within {task.tolerance:g}"
    own, reference = (records.test_metrics(name) for name in (best.name, REFERENCE))
    seeds = own.keys() & reference.keys()
    if not seeds:
        return f" ({within})"
    ours, theirs = (math.fsum(found[seed] for seed in seeds) / len(seeds) for found in (own, reference))
    pair = f"{metric_words(ours, task.tolerance)} against {metric_words(theirs, task.tolerance)}"
    return f" ({metric_name(task.metric)} {pair} on the test split over {len(seeds)} seeds, {within})"


def _less(flops: int, other_flops: int, what: str = "") -> str:
    """`12.0 % less training compute`, `12.0 % more`, or `the same`."""
    saving, what = 1 - flops / other_flops, f" {what}" if what else ""
    if saving == 0:
        return f"the same{what}"
    return f"{saving_words(saving)} less{what}" if saving > 0 else f"{more_words(saving)}{what}"


def _no_subset(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    """How the sentence on a plain winner begins: a study that tried no subset has nothing to say of one."""
    tried = [*(run.policy for run in records.trials), *(one.policy for one in records.candidates.values())]
    if all(policy.arm == FULL for policy in tried):
        return "No subset was tried here: "
    return f"No subset policy {'is shown to win' if _cheaper_control(summary, best) else 'wins'} here: "


def _cheaper_control(summary: Summary, best: PolicyRow) -> str:
    """The random control, where it passed for less than the plain schedule that is exported."""
    random = summary.random
    if random is None or not random.passed or random.flops >= best.flops or random.policy.arm == FULL:
        return ""
    cost = f"for {passes_words(random.passes)} passes"
    return f"; the random control, a subset policy, passed too, {cost}, but was tested only to compare"


def _passed_too(records: StudyRecords) -> str:
    """The cheapest policy of the subset arm that passed beside a plain one that costs as much or less."""
    candidates = [one for one in records.candidates.values() if one.policy.arm != FULL and not one.is_control]
    passed = [one for one in candidates if records.passed(one)]
    if not passed:
        return ""
    cheapest = min(passed, key=lambda one: one.cost_flops)
    return f"; {cheapest.name}, of the subset arm, passed too, for {passes_words(cheapest.policy.passes)} passes"


def _against_shorter(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    shorter, equal = summary.shorter, summary.equal
    if shorter is None:
        return "; no shorter schedule on all data was found to compare with"
    if shorter.passed:
        return f", {_less(best.flops, shorter.flops)} than the best shorter schedule on all data"
    told = f"; the best shorter schedule on all data ({passes_words(shorter.passes)} passes) {_told(records, shorter)}"
    if equal is None or equal.name == shorter.name:
        return told
    return f"{told}, one of the policy's own compute {_told(records, equal)}"


def _told(records: StudyRecords, row: PolicyRow) -> str:
    return _was(verdict_words(records.verdict_of(row), records.study.task.tolerance))


def _was(verdict: str) -> str:
    return verdict if verdict.startswith(("passed", "missed")) else f"was {verdict}"


def _against_random(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    subsets = [phase for phase in best.policy.phases if not phase.is_full and phase.active_soup is None]
    if not subsets:
        return "; it chooses no subset, so that a random one is no control of it"
    if any(phase.selector == "random" for phase in subsets):
        return "; its subset is itself a random one"
    if summary.random is None:
        return ""
    if summary.random.passed:
        return "; a random subset of the same size passed too"
    return f"; a random subset of the same size {_told(records, summary.random)}"


def _lost(records: StudyRecords) -> str:
    if records.trials and all(trial.cause == "failed" for trial in records.trials):
        return f"Nothing is known of any policy: all {len(records.trials)} trials failed. See their logs."
    if not records.tested:
        return f"No policy passed: {_none_found(records)}."
    missed = [verdict for verdict in records.tested if verdict.passed is False]
    told = [f"{verdict.name} {_was(verdict.words(records.study.task.tolerance))}" for verdict in missed]
    left = [verdict.name for verdict in records.tested if verdict.passed is not False]  # tested beside the sequence
    after = (
        f"{joined(left)} {'was' if len(left) == 1 else 'were'} within the tolerance, but tested after a failure, so "
        "that nothing is claimed"
    )
    return f"No policy passed: {'; '.join([*([', '.join(told)] if told else []), *([after] if left else [])])}."


def _none_found(records: StudyRecords) -> str:
    """Why there was nothing to test."""
    finished = sum(trial.cause in ("finished", "stopped") for trial in records.trials)
    if records.trials and not finished:
        return f"{counted(len(records.trials), 'trial')} failed or diverged, and no other was made"
    return "the search found none that reached the target"


def _unfinished(records: StudyRecords, summary: Summary) -> str:
    done, asked = len(records.trials), records.study.study.trials
    stopped = "Interrupted" if summary.status == "interrupted" else "Not finished"
    broken = [run for run in records.reference if run.metric is None]
    if records.target is None and broken:
        of = f"{len(broken)} of {counted(len(records.reference), 'run')} of the reference"
        return f"{stopped}: {of} diverged or failed, so that there is nothing to match."
    if records.target is None:
        return f"{stopped}: the reference has {len(records.reference)} of {records.study.study.seeds} runs."
    if candidates := [one for one in records.candidates.values() if not one.is_control]:
        return f"{stopped}: {len(records.tested)} of {len(candidates)} candidates verified."
    progress = f"{stopped}: {done} of {counted(asked, 'trial')} done"
    if summary.best is None or summary.reference is None:
        return f"{progress}; no policy has reached the target yet."
    taken = share_words(summary.best.flops / summary.reference.flops)
    return f"{progress}; the best policy so far, not verified, takes {taken} of the recipe's compute."
