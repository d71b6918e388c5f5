"""What trials that ended show: one alone, its score and how far it is from the target, and all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterable

from subsettune.study.search.observations import SearchEvidence, TrialRecord
from subsettune.study.search.planner import Planner
from subsettune.study.search.problem import SearchProblem
from subsettune.study.search.shortlist import Shortlist


def score_of(record: TrialRecord, problem: SearchProblem) -> float | None:
    """The final score of a trial that finished, what one could have reached that was stopped; None if neither."""
    assert record.outcome is not None
    if record.outcome.cause == "finished" and record.outcome.metric is not None:
        return problem.score(record.outcome.metric)
    return record.projection


def put(record: TrialRecord, problem: SearchProblem, evidence: SearchEvidence) -> None:
    """End a trial in the evidence."""
    if is_blank(record):
        evidence.drop(record)
    else:
        evidence.end(record, score_of(record, problem))


def is_blank(record: TrialRecord) -> bool:
    """Whether a trial was stopped by the caller, and not by the rule: it shows nothing."""
    assert record.outcome is not None
    return record.outcome.cause == "stopped" and record.projection is None


def is_telling(record: TrialRecord) -> bool:
    """Whether a trial says how far its policy is from the target."""
    assert record.outcome is not None
    return record.outcome.cause != "failed" and not is_blank(record)


def violation(record: TrialRecord, problem: SearchProblem, evidence: SearchEvidence) -> float:
    """Target minus score, in the metric's units; positive for whatever did not finish."""
    assert record.outcome is not None
    if record.outcome.cause == "finished" and record.outcome.metric is not None:
        return problem.target_score - problem.score(record.outcome.metric)
    if record.projection is not None:
        return max(problem.target_score - record.projection, math.ulp(1.0))
    return least_violation(evidence)


def least_violation(evidence: SearchEvidence) -> float:
    """What a run that shows nothing is charged with: as bad as the worst seen."""
    worst = min(evidence.scores, default=evidence.target - 1.0)
    return max(evidence.target - worst, math.ulp(1.0))


class AllEnded:
    """What all trials that ended show, those included that no proposal depends on yet. For the short list alone.

    Args:
        problem: what is searched.
        evidence: that has seen nothing.
        planner: of the search, whose model it is beside.
        records: all trials, by number.
    """

    def __init__(
        self, problem: SearchProblem, evidence: SearchEvidence, planner: Planner, records: Iterable[TrialRecord]
    ) -> None:
        self._problem = problem
        self._evidence = evidence
        self._model = planner.model_of(evidence)
        for record in records:
            self._evidence.start(record)
            if record.outcome is not None:
                put(record, problem, self._evidence)

    def start(self, record: TrialRecord) -> None:
        """A further trial began."""
        self._evidence.start(record)
        self._model.start()

    def shortlist(self) -> Shortlist:
        """What the search would hand on as it stands."""
        return Shortlist(self._problem, self._evidence, self._model.needs())
