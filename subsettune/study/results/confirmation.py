"""A confirmation: the exported policy of a finished study, verified once more with seeds that nobody has looked at.

A study looks at many policies, and several studies may look at one test split: the best of all that was seen is seen
too well. A policy that is fixed before its fresh seeds are drawn owes nothing to that. Both it and the reference are
trained anew, and tested at an error rate of its own. A policy is confirmed once: asking again until it passes would be
another way to look too often. Confirmations of several policies of one study share that error rate as its rounds do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import must
from subsettune.errors import StudyError
from subsettune.study.results.verdict import Verdict
from subsettune.text import metric_words

SEEDS_APART = 100_000  # seeds of the reference start at so many times the study's seed; trials have their own
KEPT_FREE = 10_000  # of these, at the end: room for the last that begins
FRESH = SEEDS_APART // 2  # seeds of a study that its confirmations have; those below are of the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A confirmation, begun or finished.

    Args:
        candidate: name of the policy.
        first_seed: its runs have this seed and those after it.
        num_seeds: of them that it may come to.
        verdict: `passed` is null until it is finished.
        state: of the state machine, plain: `Verification.from_mapping` reads it.
    """

    candidate: str
    first_seed: int
    num_seeds: int
    verdict: Verdict
    state: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether its verdict is final."""
        return self.verdict.passed is not None

    @property
    def alpha_spent(self) -> float:
        """Share of the error rate that it and the confirmations before it used up."""
        return float(self.state["alpha_spent"])

    def sentence(self, tolerance: float) -> str:
        """What it showed, for whoever reads the study's result."""
        verdict = self.verdict
        if verdict.passed is None:
            return f"The confirmation of {self.candidate} with fresh seeds is not finished: start it again."
        seeds = f"{verdict.num_seeds} fresh seeds and reference runs of their own"
        difference = metric_words(verdict.mean_difference, tolerance, signed=True)
        bound = metric_words(verdict.lower_bound, tolerance, signed=True)
        measured = f"difference {difference}, bound {bound}, {tolerance:g} worse allowed"
        if verdict.passed:
            return f"Confirmed with {seeds}: {self.candidate} passed again ({measured})."
        if not verdict.is_tested or verdict.mean_difference != verdict.mean_difference:
            measured = verdict.reason
        return (
            f"Not confirmed: with {seeds}, {self.candidate} did not pass again ({measured}). Do not rely on the first "
            "verification alone."
        )

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form."""
        plain = {"candidate": self.candidate, "first_seed": self.first_seed, "num_seeds": self.num_seeds}
        return {**plain, "verdict": self.verdict.to_mapping(), "state": dict(self.state)}

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Confirmation:
        """Read what `to_mapping` wrote.

        Raises:
            KeyError, TypeError: a part is missing, or unknown.
        """
        raw["state"]["alpha_spent"]
        return cls(**{**raw, "verdict": Verdict.from_mapping(raw["verdict"])})


def fresh_seeds(first: int, study: str, used: Iterable[int], number: int) -> range:
    """Seeds that no run of a study has: in the upper half of its own, after those of earlier confirmations.

    Where they begin there is drawn for each study: studies of one seed would else be confirmed with the same runs of
    the recipe, which the second of them has seen.

    Args:
        first: seed of the study's first reference run.
        study: what tells the study from others: its run id, and when it was created.
        used: seeds of the confirmations so far.
        number: how many are needed.

    Raises:
        StudyError: there are no more.
    """
    drawn = int(config.digest(study), 16) % (FRESH - KEPT_FREE)
    start = max([first + FRESH + drawn - 1, *used]) + 1
    last = first + SEEDS_APART - 1
    if start + number - 1 > last:
        raise StudyError(
            must("fresh seeds", f"{last} at most", start + number - 1, "Start a new study with a new seed.")
        )
    return range(start, start + number)
