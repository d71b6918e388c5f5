"""What verification measured and decided: candidates against the reference, and the winner against its controls."""

from __future__ import annotations

from dataclasses import dataclass

from subsettune.report.render import Column, Table
from subsettune.study.results.candidate import Candidate, told_name
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.headline import outcome_words
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyView
from subsettune.text import NOTHING, is_number, metric_name, metric_words, passes_words, sure_words

CAVEAT = (
    "The evidence covers the noise of training (initial weights, order of examples), not the sampling of the test set: "
    "all runs are judged on the same test examples."
)
OTHER_EXAMPLES = "Other examples: where the difference lies when test examples are drawn anew, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """A candidate or control against the reference. Differences are oriented: higher is better.

    Args:
        name: of it.
        passes: compute of one training; None before the facts are known.
        num_seeds: runs of it.
        num_references: runs of the reference that they are held against.
        difference: of the two means.
        bound: one-sided lower bound of it; None of a control.
        level: error rate that its tests share; None of a control, of which nothing is claimed.
        p_value: None likewise, and of what was not tested.
        verdict: in words.
        reason: in a sentence; may be empty.
        sampled: the difference where other test examples are drawn, too; None where it is not known which examples the
            runs got right.
    """

    name: str
    passes: float | None
    num_seeds: int
    num_references: int
    difference: float | None
    bound: float | None
    level: float | None
    p_value: float | None
    verdict: str
    reason: str
    sampled: SampledDifference | None = None


def evidence_rows(view: StudyView) -> tuple[EvidenceRow, ...]:
    """One for each candidate, in the order of the line-up, controls last."""
    return tuple(_evidence_row(view, name) for name in view.candidates)


def _evidence_row(view: StudyView, name: str) -> EvidenceRow:
    candidate, verdict, compared = view.candidates[name], view.verdicts.get(name), view.compared(name)
    claim = verdict if has_level(candidate, verdict) else None
    return EvidenceRow(
        name=name,
        passes=candidate.cost_flops / view.facts.pass_flops if view.facts else None,
        num_seeds=len(compared.own),
        num_references=len(compared.reference),
        difference=_difference(view, name),
        bound=None if claim is None else claim.lower_bound,
        level=None if claim is None else claim.level,
        p_value=claim.p_value if claim is not None and claim.is_tested else None,
        verdict=outcome_words(view, name),
        reason="" if verdict is None else view.reason_of(verdict),
        sampled=view.manifest.sampled.get(name),
    )


def has_level(candidate: Candidate, verdict: Verdict | None) -> bool:
    """Whether the error rate of the study covers what is said of a policy: of a random control nothing is claimed."""
    return candidate.may_match and verdict is not None and verdict.level > 0


def _difference(view: StudyView, name: str) -> float | None:
    """Mean minus the reference's, higher is better; of what has a verdict that on which it rests."""
    if (verdict := view.verdicts.get(name)) is not None:
        return verdict.mean_difference if is_number(verdict.mean_difference) else None
    compared = view.compared(name)
    if compared.metric is None or compared.reference_metric is None:
        return None
    difference = compared.metric - compared.reference_metric
    return difference if view.study.task.higher_is_better else -difference


def runs_words(own: int | None, references: int | None) -> str:
    """Runs of a policy and of the reference that it is held against: `9|5`; `5` where it is held against nothing."""
    if not own:
        return NOTHING
    return f"{own}|{references}" if references else str(own)


def rate_words(rate: float | None) -> str:
    """An error rate, or a p-value: `0.031`."""
    return NOTHING if rate is None or not is_number(rate) else f"{rate:.3g}"


def candidates_table(view: StudyView) -> Table:
    """One line a candidate, in the order of the line-up: what verification measured and decided."""
    tolerance, rows, several = view.study.task.tolerance, evidence_rows(view), len(view.manifest.rounds) > 1
    cells = tuple(
        (
            told_name(row.name),
            *([str(view.manifest.round_of(row.name) or NOTHING)] if several else []),
            passes_words(row.passes),
            runs_words(row.num_seeds, row.num_references),
            metric_words(row.difference, tolerance, signed=True),
            metric_words(row.bound, tolerance, signed=True),
            rate_words(row.level),
            row.verdict,
        )
        for row in rows
    )
    titles = (*(["round"] if several else []), "passes", "n", "difference", "bound", "level", "verdict")
    others = (Column(title=t, align="left" if t == "verdict" else "right") for t in titles)
    columns = (Column(title="candidate", wrap=True), *others)
    told = (f"{view.named(row.name)}: {'; '.join(words)}" for row in rows if (words := _row_notes(row, tolerance)))
    title = f"Verification, at a margin of {-tolerance:g}"
    return Table(title=title, columns=columns, rows=cells, note="\n".join([*_turned(view), *told]))


def _turned(view: StudyView) -> list[str]:
    """What a sign means where a lower metric is better."""
    if view.study.task.higher_is_better:
        return []
    name = metric_name(view.study.task.metric)
    return [f"difference, bound: the sign is turned so that more is better; where it is above 0, {name} is lower."]


def _row_notes(row: EvidenceRow, tolerance: float) -> list[str]:
    interval = interval_words(row.sampled, tolerance)
    others = f"with other test examples {interval} (two-sided, {_sure(row.sampled)})" if row.sampled else ""
    return [words for words in (row.reason, others) if words]


def interval_words(sampled: SampledDifference | None, tolerance: float) -> str:
    """`-0.0123 to +0.0045`: the difference where other test examples are drawn, too."""
    if sampled is None:
        return NOTHING
    low, high = (metric_words(end, tolerance, signed=True) for end in sampled.interval)
    return f"{low} to {high}"


def _sure(sampled: SampledDifference | None) -> str:
    return NOTHING if sampled is None else sure_words(1 - sampled.alpha)


def contrast_words(contrast: Contrast) -> str:
    """`better`, `not shown to differ`, `open`, or that nothing is claimed."""
    if not contrast.is_claim:
        return "no claim"
    if contrast.shown is None:
        return "open" if contrast.num_seeds else "not compared"
    return "better" if contrast.shown else "not shown to differ"


def contrasts_table(view: StudyView) -> Table | None:
    """The winner against plain training of equal compute, by others' settings and its own, and a random subset."""
    found = view.manifest.contrasts
    if not found:
        return None
    tolerance = view.study.task.tolerance
    cells = tuple(
        (
            one.policy,
            one.control,
            str(one.num_seeds or NOTHING),
            metric_words(one.mean_difference, tolerance, signed=True),
            metric_words(one.claimed_bound, tolerance, signed=True),
            rate_words(one.claimed_level),
            contrast_words(one),
        )
        for one in found.values()
    )
    titles = ("policy", "against", "n", "difference", "bound", "level", "verdict")
    columns = tuple(Column(title=t, align="left" if t in ("policy", "against", "verdict") else "right") for t in titles)
    note = (
        "n: pairs of runs with one seed. A subset wins where its bounds against plain training are above 0, by the "
        "settings that the search expects most of on all data (equal) and by its own (own). No other settings are "
        "tried: where all of these are far from the best ones, plain training may do better."
    )
    note = " ".join([*_turned(view), note])
    return Table(title="Against controls of equal compute", columns=columns, rows=cells, note=note)


def how_tested(view: StudyView) -> str:
    """How verification came to its verdicts, in a few sentences."""
    margin, caveat = f"-{view.study.task.tolerance:g}", CAVEAT
    if sampled := next(iter(view.manifest.sampled.values()), None):
        caveat = f"{CAVEAT} {OTHER_EXAMPLES} ({_sure(sampled)}, two-sided)."
    if any(one.is_paired for one in view.manifest.rounds):  # of version 0.1
        return (
            "Candidates were tested dearest first until the first failure, by differences of runs with one seed. A "
            f"policy passes when its lower bound lies above the margin of {margin}. {caveat}"
        )
    return (
        "Candidates are tested one at a time, the one of the greatest expected saving first, until one passes; then "
        "the cheaper ones, dearest first. Each has the level in its row, and one that passes leaves its level to what "
        f"comes next; all these tests together err with probability {view.study.study.alpha:g} at most. A test holds "
        "the runs of a policy against those of the reference, n of each (Welch's t test; where runs with one seed "
        "correlate in six pairs or more, a t test of these, its p-value tripled). A policy passes when its lower bound "
        f"lies above the margin of {margin}, and its runs do not scatter much more than the reference's. A subset wins "
        "where its difference to plain training of equal compute, over pairs of runs with one seed, has a lower bound "
        "above 0, by the settings that the search expects most of on all data and, where the policy has others, by its "
        f"own, too: tests beside the others, with an error rate of their own. {caveat}"
    )
