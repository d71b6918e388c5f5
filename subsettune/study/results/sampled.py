"""What a difference to the reference comes to where other test examples are drawn, too: the numbers and their words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from subsettune import config
from subsettune.registry import METRICS
from subsettune.text import metric_name, metric_words

MOST_EXAMPLES = 10_000_000  # beyond it a number of examples is no advice


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledDifference:
    """A difference to the reference, and how far other seeds and other test examples may move it.

    Args:
        mean: of the metric, candidate minus reference, oriented: higher is better.
        lower: one-sided lower bound of the true mean, at the error rate `alpha`.
        interval: two-sided, at the same error rate.
        alpha: the error rate.
        standard_error: of `mean`, seeds and examples drawn anew.
        seeds_error: of `mean`, with seeds alone drawn anew.
        num_examples: of the test split.
        num_seeds: runs of the candidate, and of the reference.
        per_example: variance that one test example brings; over n of them it is divided by n.
        per_seeds: variance that these seeds bring however many examples there are.
        num_policies: that were tested on these examples, and that share an error rate of which `alpha` is the part of
            one; 1 in studies of before, where each had all of it.
    """

    mean: float
    lower: float
    interval: tuple[float, float]
    alpha: float
    standard_error: float
    seeds_error: float
    num_examples: int
    num_seeds: tuple[int, int]
    per_example: float
    per_seeds: float
    num_policies: int = 1

    def __post_init__(self) -> None:
        config.check(self)

    def examples_needed(self, margin: float) -> int | None:
        """Test examples with which the bound would reach `-margin`, if the mean and all spreads are as measured.

        Args:
            margin: the difference that is allowed, positive.

        Returns:
            None if no number would do, because the mean is lower, or these seeds vary too much.
        """
        room, squared = self.mean + margin, statistics.NormalDist().inv_cdf(self.alpha) ** 2
        left = room**2 - squared * self.per_seeds
        return max(2, math.ceil(squared * self.per_example / left)) if room > 0 and left > 0 else None

    def holds(self, margin: float) -> bool:
        """Whether the bound is within a margin, in the metric's units."""
        return -self.lower < margin

    def sentence(self, margin: float) -> str:
        """What it says of other test examples, beside what was verified on these.

        Args:
            margin: the tolerance, in the metric's units.
        """
        worse, needed = -self.lower, self.examples_needed(margin)
        bound = f"at most {metric_words(worse, margin)} worse" if worse > 0 else "not worse"
        shared = f" shared by the {self.num_policies} policies tested on them" if self.num_policies > 1 else ""
        said = (
            f"With other test examples in place of these {self.num_examples:,}, too, the policy is {bound} than the "
            f"reference (one-sided bound at {self.alpha * self.num_policies:.4g}{shared})"
        )
        if self.holds(margin):
            return f"{said}, within the {margin:g} allowed."
        beyond = f"{said}: more than the {margin:g} allowed, so that what was verified holds for these examples alone."
        if needed is None or needed > MOST_EXAMPLES:
            return beyond
        return f"{beyond} About {rounded_up(needed):,} would show it of others, the difference being as measured."


def is_no_mean(metric: str) -> bool:
    """Whether no mean over examples gives a metric: an F1 divides by what is predicted, a ROC AUC goes by ranks."""
    return metric not in METRICS or not METRICS[metric].mean_of


def these_alone(metric: str) -> str | None:
    """A sentence where nothing can be said of other test examples, whatever is on record; None elsewhere."""
    if not is_no_mean(metric):
        return None
    return (
        f"What was verified holds for these test examples: {metric_name(metric)} is no mean over examples, so that no "
        "bound for others is given."
    )


def rounded_up(number: int) -> int:
    """To two digits: a number of examples that would do is no more exact than that."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step
