"""The one sentence at the top: what a study found."""

from __future__ import annotations

from subsettune.policy import FULL
from subsettune.study.results.summary import PolicyRow, Summary
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyRecords
from subsettune.text import passes_words, saving_words, share_words


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
    less = f"{_less(best.saving)} training compute ({spent})"
    if best.policy.arm == FULL:
        return f"No subset policy wins here: a shorter schedule on all data matches the recipe with {less}."
    shorter, random = summary.shorter, _against_random(records, summary, best)
    if shorter is not None and shorter.passed and shorter.passes <= best.passes:
        much = "the same" if shorter.passes == best.passes else "less"
        too = f"a shorter schedule on all data of {much} compute does too{random}"
        return f"No subset policy is shown to win here: one matches the recipe with {less}, but {too}."
    return f"Matches the recipe with {less}{_against_shorter(records, summary, best)}{random}."


def _less(saving: float) -> str:
    return f"{saving_words(saving)} less" if saving >= 0 else f"{saving_words(-saving)} more"


def _against_shorter(records: StudyRecords, summary: Summary, best: PolicyRow) -> str:
    shorter, equal = summary.shorter, summary.equal
    if shorter is None:
        return "; no shorter schedule on all data was found to compare with"
    if shorter.passed:
        return f", {_less(1 - best.flops / shorter.flops)} than the best shorter schedule on all data"
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
        return "No policy passed: the search found none that reached the target."
    misses = [f"{v.name} {_was(v.words(records.study.task.tolerance))}" for v in records.tested]
    return f"No policy passed: {', '.join(misses)}."


def _unfinished(records: StudyRecords, summary: Summary) -> str:
    done, asked = len(records.trials), records.study.study.trials
    stopped = "Interrupted" if summary.status == "interrupted" else "Not finished"
    if records.target is None:
        return f"{stopped}: the reference has {len(records.reference)} of {records.study.study.seeds} runs."
    if candidates := [one for one in records.candidates.values() if not one.is_control]:
        return f"{stopped}: {len(records.tested)} of {len(candidates)} candidates verified."
    progress = f"{stopped}: {done} of {asked} trials done"
    if summary.best is None:
        return f"{progress}; no policy has reached the target yet."
    return f"{progress}; the best policy so far takes {share_words(1 - summary.best.saving)} of the recipe's compute."
