"""What a study found, in words: verdicts, comparisons, and the one sentence at its top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from subsettune.policy import FULL
from subsettune.text import (
    as_policy,
    is_number,
    metric_words,
    passes_words,
    saving_words,
    share_words,
)

if TYPE_CHECKING:
    from subsettune.study.results.view import AblationResult, StudyView

COMPARISON_CAVEAT = (
    "This is validation evidence on policies that were chosen after the search, by the same split, which favours the "
    "component; every component is a test of its own; and nothing of it is part of the verified claim."
)


COMPARISON_WORDS = {
    "paid": "paid for itself",
    "not_paid": "did not",
    "no_difference": "no difference shown",
    "no_result": "no result",
    "not_tried": "could not be tried",
    "open": "not compared yet",
}


def candidate_of(view: StudyView, row: Mapping[str, Any]) -> str | None:
    """The name of the candidate whose policy a row of the summary holds; before verification there is none."""
    if row.get("name"):
        return str(row["name"])
    key = as_policy(row["policy"]).key
    return next((name for name, candidate in view.candidates.items() if candidate.policy.key == key), None)


def is_control(name: str) -> bool:
    """Whether a candidate is a control of the winner, of whichever round of verification (`equal`, `random@2`)."""
    from subsettune.study.results.view import role_of  # whoever has a view has loaded it

    return role_of(name) in ("equal", "random")


def verdict_words(verdict: Mapping[str, Any] | None, tolerance: float) -> str:
    """`passed`, `missed by 0.0021`, `missed` (a run diverged), `undecided`, or `not tested`."""
    if verdict is None or (verdict.get("passed") is None and not verdict.get("num_seeds")):
        return "not tested"
    if verdict.get("passed") is None:
        return "undecided"
    if verdict["passed"]:
        return "passed"
    shortfall = verdict.get("shortfall")
    return f"missed by {metric_words(shortfall, tolerance)}" if is_number(shortfall) else "missed"


def compared_of(view: StudyView, row: Mapping[str, Any]) -> AblationResult | None:
    """The comparison of the component in a row of the summary; None where there is none."""
    found = (c for c in view.compared.values() if (c.kind, c.name) == (row["kind"], row["name"]))
    return next(found, None)


def comparison_words(row: AblationResult) -> str:
    """`paid for itself`, `did not`, `no difference shown`, or that there is no result, and why."""
    words = COMPARISON_WORDS[row.verdict]
    return f"{words}: {row.reason}" if row.reason else words


def headline(view: StudyView) -> str:
    """What the study found, in one sentence: the saving against both comparisons, or that there is none."""
    summary = view.summary
    tested = [v for name, v in view.verdicts.items() if v.get("num_seeds") and not is_control(name)]
    best = summary.get("best")
    if best and best.get("passed"):
        return _won(view, best)
    if summary.get("status") == "finished" and (view.verdicts or not best):
        return _lost(view, tested)
    return _unfinished(view, best)


def _won(view: StudyView, best: Mapping[str, Any]) -> str:
    policy = as_policy(best["policy"])
    reference = view.summary["reference"]
    spent = f"{passes_words(best['passes'])} of {passes_words(reference['passes'])} passes"
    less = f"{_less(best['saving'])} training compute ({spent})"
    if policy.arm == FULL:
        return f"No subset policy wins here: a shorter schedule on all data matches the recipe with {less}."
    shorter = view.summary.get("shorter")
    if shorter and shorter.get("passed") and shorter["passes"] <= best["passes"]:
        much = "the same" if shorter["passes"] == best["passes"] else "less"
        too = f"a shorter schedule on all data of {much} compute does too{_against_random(view)}"
        return f"No subset policy is shown to win here: one matches the recipe with {less}, but {too}."
    return f"Matches the recipe with {less}{_against_shorter(view, best)}{_against_random(view)}."


def _less(saving: float) -> str:
    return f"{saving_words(saving)} less" if saving >= 0 else f"{saving_words(-saving)} more"


def _against_shorter(view: StudyView, best: Mapping[str, Any]) -> str:
    shorter = view.summary.get("shorter")
    if not shorter:
        return "; no shorter schedule on all data was found to compare with"
    if shorter.get("passed"):
        return f", {_less(1 - best['flops'] / shorter['flops'])} than the best shorter schedule on all data"
    told = f"; the best shorter schedule on all data ({passes_words(shorter['passes'])} passes) {_told(view, shorter)}"
    equal = view.summary.get("equal")
    is_other = equal and equal["name"] != shorter.get("name")
    return f"{told}, one of the policy's own compute {_told(view, equal)}" if equal and is_other else told


def _told(view: StudyView, row: Mapping[str, Any]) -> str:
    name = candidate_of(view, row)
    return _was(verdict_words(view.verdicts.get(name) if name else None, view.study.task.tolerance))


def _was(verdict: str) -> str:
    return verdict if verdict.startswith(("passed", "missed")) else f"was {verdict}"


def _against_random(view: StudyView) -> str:
    best, random = view.summary.get("best"), view.summary.get("random")
    if best:
        subsets = [p for p in as_policy(best["policy"]).phases if not p.is_full and p.active_soup is None]
        if not subsets:
            return "; it chooses no subset, so that a random one is no control of it"
        if any(phase.selector == "random" for phase in subsets):
            return "; its subset is itself a random one"
    if not random:
        return ""
    if random.get("passed"):
        return "; a random subset of the same size passed too"
    return f"; a random subset of the same size {_told(view, random)}"


def _lost(view: StudyView, tested: list[Mapping[str, Any]]) -> str:
    if not tested:
        return "No policy passed: the search found none that reached the target."
    misses = [f"{v['name']} {_was(verdict_words(v, view.study.task.tolerance))}" for v in tested]
    return f"No policy passed: {', '.join(misses)}."


def _unfinished(view: StudyView, best: Mapping[str, Any] | None) -> str:
    done, asked = len(view.trials), view.study.study.trials
    interrupted = view.summary.get("status") == "interrupted" or view.manifest.interrupted
    stopped = "Interrupted" if interrupted else "Not finished"
    if view.target is None:
        return f"{stopped}: the reference has {len(view.reference)} of {view.study.study.seeds} runs."
    if candidates := [name for name in view.candidates if not is_control(name)]:
        tested = sum(bool(view.verdicts.get(name, {}).get("num_seeds")) for name in candidates)
        return f"{stopped}: {tested} of {len(candidates)} candidates verified."
    progress = f"{stopped}: {done} of {asked} trials done"
    if not best:
        return f"{progress}; no policy has reached the target yet."
    return f"{progress}; the best policy so far takes {share_words(1 - best['saving'])} of the recipe's compute."
