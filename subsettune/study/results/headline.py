"""The one sentence at the top: what a study found, by its tests alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from subsettune.policy import FULL, SUBSET
from subsettune.study.results.candidate import EQUAL as EQUAL_ROLE
from subsettune.study.results.candidate import OWN, Candidate, role_of
from subsettune.study.results.summary import PolicyRow, Summary, Win
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyRecords
from subsettune.study.spec.components import name_in
from subsettune.text import (
    change_words,
    cost_words,
    counted,
    is_number,
    joined,
    metric_name,
    metric_words,
    more_words,
    passes_words,
    saving_words,
    sentence,
    side_words,
)

MOST_NAMED = 4  # selectors whose trials are counted one by one in a sentence
EQUAL = "plain training of equal compute"


def headline(records: StudyRecords, summary: Summary) -> str:
    """What the study found: what matches for how much less, and whether a subset is shown to be what does it.

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


def outcome_words(records: StudyRecords, name: str) -> str:
    """The verdict on a candidate; of a random control, of which nothing is claimed, where its mean lies."""
    candidate, verdict = records.candidates[name], records.verdicts.get(name)
    if candidate.may_match:
        return verdict_words(verdict, records.study.task.tolerance)
    compared = records.compared(name)
    if compared.metric is None or compared.reference_metric is None:
        diverged = verdict is not None and verdict.passed is False
        return "diverged" if diverged else "not tested"
    sign = 1 if records.study.task.higher_is_better else -1
    is_within = sign * (compared.metric - compared.reference_metric) > -records.study.task.tolerance
    return f"{'within' if is_within else 'outside'} the margin"


def _won(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    assert summary.reference is not None, "a verified study has a reference"
    spent = f"{passes_words(best.passes)} of {passes_words(summary.reference.passes)} passes"
    matches = f"matches the recipe{_beside(records, best)} with "
    matches += f"{_less(best.flops, summary.reference.flops, 'training compute')} ({spent})"
    if best.policy.arm == FULL:
        plain = "a shorter schedule" if best.flops < summary.reference.flops else "a schedule"
        found = f"{plain} on all data {matches}{_of_subsets(records, summary, best)}"
    else:
        found = f"{matches}{_against_equal(records, summary.win, best)}{_against_random(records, summary, best)}"
    return f"{sentence(found)}{_near_chance(records, summary)}."


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
    """` (test accuracy 0.9712 against 0.9750 over 15 and 8 runs, error +15 %, within 0.01)`."""
    task = records.study.task
    within = f"within {task.tolerance:g}"
    if best.reference_metric is None:
        return f" ({within})"
    ours, theirs = (metric_words(value, task.tolerance) for value in (best.metric, best.reference_metric))
    runs = f"{best.seeds} and {best.references} runs"
    error = "" if best.error_increase is None else f"error {change_words(best.error_increase)}, "
    return f" (test {metric_name(task.metric)} {ours} against {theirs} over {runs}, {error}{within})"


def _less(flops: int, other_flops: int, what: str = "") -> str:
    """`12 % less training compute`, `12 % more`, or `the same`."""
    saving, what = 1 - flops / other_flops, f" {what}" if what else ""
    if saving == 0:
        return f"the same{what}"
    return f"{saving_words(saving)} less{what}" if saving > 0 else f"{more_words(saving)}{what}"


def _against_equal(records: StudyRecords, win: Win | None, best: PolicyRow) -> str:
    """Whether a subset policy that is exported is shown to be better than all data for its compute."""
    if win is None or win.policy != best.name:
        return f"; it was not tested against {EQUAL}, so that no win of its subset is claimed"
    if win.shown:
        return f", and is shown to be better, {_by(records, win)}, than {EQUAL}, {_settings(records, win)}"
    if win.shown is None:
        own = ", by its own settings," if win.lower_bound is not None and win.lower_bound > 0 else ""
        return f"; whether it is better than {EQUAL}{own} is not decided yet"
    told, tested = f"it is not shown to differ from {_plain(win)}{_apart(records, win)}", _twin_outcome(records, win)
    if not win.is_of_own:
        return f"; {told}, and is exported because that is not shown to match the recipe ({tested})"
    looked = "looked as good but " if outcome_words(records, win.against) == "within the margin" else ""
    return (
        f"; {told}, which {looked}was not tested for a match; it is exported because such training with other settings "
        f"is not shown to match ({tested})"
    )


def _twin_outcome(records: StudyRecords, win: Win) -> str:
    """`missed by 0.0043, tested at level 0.008, the policy at 0.016`: how hard it was for the twin to pass."""
    name = _twin(records, win)
    twin, own = records.verdicts.get(name), records.verdicts.get(win.policy)
    outcome = outcome_words(records, name)
    if twin is None or own is None or not twin.is_tested:
        return outcome
    level, had = (f"{one.level:.3g}" for one in (twin, own))
    return f"{outcome}, tested at level {level}, {'like the policy' if level == had else f'the policy at {had}'}"


def _twin(records: StudyRecords, win: Win) -> str:
    """Plain training of a policy's compute that was tested against the reference, too."""
    held = (one.control for one in records.manifest.contrasts.values() if one.policy == win.policy)
    return next(name for name in held if role_of(name) == EQUAL_ROLE)


def _plain(win: Win) -> str:
    """Plain training, with whose settings where these are not what the search expects most of."""
    return f"{EQUAL} by its own settings" if win.is_of_own else EQUAL


def _settings(records: StudyRecords, win: Win) -> str:
    """With which settings plain training was beaten: no others were tried, and some may do better."""
    tried = sum(run.policy.arm == FULL and run.cause != "failed" for run in records.trials)
    held = (one for one in records.manifest.contrasts.values() if one.policy == win.policy and one.num_seeds)
    own = " and by its own" if any(role_of(one.control) == OWN for one in held) else ", which are its own"
    return f"by the settings that {counted(tried, 'trial')} found{own}"


def _by(records: StudyRecords, win: Win) -> str:
    """`by 0.0042 (at least 0.0011, 8 seeds)`."""
    by, least = (metric_words(value, records.study.task.tolerance) for value in (win.difference, win.lower_bound))
    return f"by {by} (at least {least}, {counted(win.seeds, 'seed')})"


def _apart(records: StudyRecords, win: Win) -> str:
    """` (better by 0.0012, 8 seeds)`."""
    if win.difference is None:
        return ""
    return f" ({side_words(win.difference, records.study.task.tolerance)}, {counted(win.seeds, 'seed')})"


def _of_subsets(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    """What the subset arm gave, where a plain schedule is what is exported."""
    subsets = [one for one in records.candidates.values() if one.policy.arm == SUBSET and not one.is_control]
    trials = [run for run in records.trials if run.policy.arm == SUBSET]
    passed = [one for one in subsets if records.passed(one)]
    if passed:
        return _passed_too(records, summary.win, best, min(passed, key=lambda one: one.cost_flops))
    if not trials and not subsets:
        return "; no subset was tried"
    counts = f" ({per_selector(records)})" if trials else ""
    of = f"{counted(len(trials), 'trial')} of the subset arm{counts}"
    told = ", ".join(f"{records.named(one.name)} {_was(outcome_words(records, one.name))}" for one in subsets)
    return f"; a cheaper policy with a subset was sought, and none was found in {of}{f': {told}' if told else ''}"


def _passed_too(records: StudyRecords, win: Win | None, best: PolicyRow, subset: Candidate) -> str:
    """Of the cheapest policy of the subset arm that passed beside a plain one that is exported."""
    told = f"; {subset.name}, of the subset arm, passed too, for {passes_words(subset.policy.passes)} passes"
    if subset.cost_flops > best.flops:
        return told
    because = "so that the plain schedule is what is exported"
    if win is None or win.policy != subset.name:
        return f"{told}, but was not tested against {EQUAL}, {because}"
    return f"{told}, but is not shown to differ from {_plain(win)}{_apart(records, win)}, {because}"


def per_selector(records: StudyRecords) -> str:
    """Trials of the subset arm by selector: `12 per selector`, `random 9, kcenter 8`, `2 to 5 per selector`."""
    trials = [run for run in records.trials if run.policy.arm == SUBSET]
    found = Counter(name_in(run.policy, "selector") or "no single one" for run in trials)
    counts: Mapping[str, int] = {one.name: 0 for one in records.study.components if one.kind == "selector"} | found
    least, most = min(counts.values()), max(counts.values())
    if least == most and len(counts) > 1:
        return f"{most} per selector"
    if len(counts) > MOST_NAMED:
        return f"{least} to {most} per selector"
    return ", ".join(f"{name.rpartition(':')[2]} {count}" for name, count in counts.items())


def _was(verdict: str) -> str:
    return verdict if verdict.startswith(("passed", "missed")) else f"was {verdict}"


def _against_random(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    """What a control with a random subset says of the selector; it is run where a subset is shown to win."""
    subsets = [phase for phase in best.policy.phases if not phase.is_full and phase.active_soup is None]
    if not subsets:
        return "; it chooses no subset, so that a random one is no control of it"
    if any(phase.selector == "random" for phase in subsets):
        return "; its subset is itself a random one"
    if summary.random is None or summary.random.name is None or not summary.random.seeds:
        return ""
    words = outcome_words(records, summary.random.name)
    contrast = records.manifest.contrasts.get(summary.random.name)
    apart = "" if contrast is None else _random_apart(records, contrast.mean_difference)
    return f"; with a random subset of the same size it is {words}{apart}"


def _random_apart(records: StudyRecords, difference: float) -> str:
    if not is_number(difference):
        return ""
    side = "worse" if difference >= 0 else "better"
    return f", {metric_words(abs(difference), records.study.task.tolerance)} {side} than the policy"


def _lost(records: StudyRecords) -> str:
    if records.trials and all(trial.cause == "failed" for trial in records.trials):
        return f"Nothing is known of any policy: all {len(records.trials)} trials failed. See their logs."
    if not records.tested:
        return f"No policy passed: {_none_found(records)}."
    earlier = {name for each in records.manifest.rounds[:-1] for name in each.candidates}
    latest = [verdict for verdict in records.tested if verdict.name not in earlier]
    missed = [verdict for verdict in latest if verdict.passed is False]
    told = [_told(records, verdict) for verdict in missed]
    left = [verdict.name for verdict in latest if verdict.passed is not False]  # tested beside the sequence
    after = (
        f"{joined(left)} {'was' if len(left) == 1 else 'were'} within the tolerance, but tested after a failure, so "
        "that nothing is claimed"
    )
    parts = [*([", ".join(told)] if told else []), *([after] if left else []), *_earlier(records, missed)]
    return f"No policy passed: {'; '.join(parts)}."


def _told(records: StudyRecords, verdict: Verdict) -> str:
    return f"{records.named(verdict.name)} {_was(verdict.words(records.study.task.tolerance))}"


def _earlier(records: StudyRecords, latest: Sequence[Verdict]) -> list[str]:
    """What an earlier round of verification came nearer with than the latest one."""
    near = records.nearest
    if near is None or near.name in _of_latest_round(records):
        return []
    return [f"{'before that, ' if latest else ''}{_told(records, near)}, which came nearest"]


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
    if candidates := _of_latest_round(records):
        tested = [one for one in records.tested if one.name in candidates]
        return f"{stopped}: {len(tested)} of {len(candidates)} candidates verified."
    progress = f"{stopped}: {done} of {counted(asked, 'trial')} done"
    if summary.best is None or summary.reference is None:
        return f"{progress}; no policy has reached the target yet."
    taken = cost_words(summary.best.flops / summary.reference.flops)
    return f"{progress}; the best policy so far, not verified, takes {taken} of the recipe's compute."


def _of_latest_round(records: StudyRecords) -> list[str]:
    """Names of the candidates that the latest round of verification tests."""
    latest = records.manifest.rounds[-1].candidates if records.manifest.rounds else records.candidates
    return [one.name for one in latest.values() if not one.is_control]
