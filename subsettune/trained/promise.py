"""What a bundle's evidence promises of one more training, and what one training can say about it.

The bundle's runs have a mean and a spread over seeds. One more run with another seed lies between the ends of Student's
prediction interval; where it is judged on other test examples, these vary, too, and so did those of the bundle.

Symbols: k runs of the bundle, s their standard deviation, n test examples of the new run, m of the bundle's, V the
variance of the metric over draws of n examples; a = s^2 (1 + 1/k) of seeds, b = V + V n/m of examples. The interval is
mean +- t * sqrt(a + b), t the quantile of Student's law with (k - 1) (a + b)^2 / a^2 degrees of freedom, whole ones
(Satterthwaite 1946): b is known well, and counts as it is. Of a metric that is a mean over examples V is the variance
of what one adds, over n; of others it is that of bootstrap samples of the new run's test examples (Efron 1979).

What other training examples bring is not in it.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subsettune.bundle import Bundle
from subsettune.config import must
from subsettune.errors import BundleError
from subsettune.registry import METRICS
from subsettune.text import metric_words, sure_words
from subsettune.train.result import RunResult

LEVEL = 0.99  # of the interval: nights without a fault fall below it once in 100 to 200, if the runs were not picked
BY_EXAMPLE = tuple(name for name, known in METRICS.items() if known.mean_of == "examples")
LEAST = {name: 0.0 for name in METRICS if name != "r2"}
MOST = {name: 1.0 for name, known in METRICS.items() if known.higher_is_better}
MOST_DEGREES = 500  # of freedom: beyond it Student's law is the normal one, to 0.5 %
CANNOT = (
    "One run can show that something is badly wrong. It cannot show that the policy matches the recipe on these data: "
    "that takes runs of both, as `subsettune tune` makes and compares them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the evidence of a bundle lets expect of a run.

    Args:
        metric: its name.
        higher_is_better: its direction.
        margin: the tolerance, for the digits of words.
        values: test metrics of the bundle's runs, those of a confirmation included.
        num_test: test examples that they were measured on; 0 where that was not noted.
    """

    metric: str
    higher_is_better: bool
    margin: float
    values: tuple[float, ...]
    num_test: int = 0

    @classmethod
    def of(cls, bundle: Bundle) -> Promise:
        """That of a bundle.

        Raises:
            BundleError: its evidence has fewer than two runs of the policy.
        """
        evidence = bundle.evidence
        later = () if evidence.confirmation is None else evidence.confirmation.runs
        values = tuple(run.metric for run in (*evidence.best.runs, *later) if run.metric is not None)
        if len(values) < 2:
            advice = "Export a bundle of a study whose verification is over."
            raise BundleError(must("runs of the bundle's policy", "two at least", len(values), advice))
        known = 0 if bundle.known is None else bundle.known.num_test
        sampled = 0 if evidence.sampled is None else evidence.sampled.num_examples
        return cls(
            metric=evidence.metric,
            higher_is_better=evidence.higher_is_better,
            margin=evidence.margin,
            values=values,
            num_test=known or sampled,
        )

    @property
    def mean(self) -> float:
        """Of the runs."""
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds."""
        return statistics.stdev(self.values)

    def interval(self, sampling: float = 0.0, resolution: float = 0.0) -> tuple[float, float]:
        """Between what values one more run lies, at `LEVEL`.

        Args:
            sampling: variance of the metric that other test examples bring.
            resolution: smallest step of the metric; runs that happen to be equal spread by that all the same.
        """
        k = len(self.values)
        spread = max(self.spread, resolution / math.sqrt(12))
        seeds = spread**2 * (1 + 1 / k)
        degrees = (k - 1) * ((seeds + sampling) / seeds) ** 2 if seeds else MOST_DEGREES
        half = student_quantile((1 + LEVEL) / 2, int(min(degrees, MOST_DEGREES))) * math.sqrt(seeds + sampling)
        least, most = LEAST.get(self.metric, -math.inf), MOST.get(self.metric, math.inf)
        return max(least, self.mean - half), min(most, self.mean + half)

    def says_nothing(self, interval: tuple[float, float]) -> bool:
        """Whether no value of the metric is worse than an interval."""
        low, high = interval
        return low <= LEAST.get(self.metric, -math.inf) if self.higher_is_better else math.isinf(high)

    def words(self, value: float | None) -> str:
        """A value of the metric, with as many digits as the tolerance asks for."""
        return metric_words(value, self.margin)

    @property
    def sentence(self) -> str:
        """What the seeds alone let expect, before anything is trained."""
        low, high = (self.words(end) for end in self.interval())
        return (
            f"The bundle's {len(self.values)} runs had a test {self.metric} of {self.words(self.mean)} on average; one "
            f"more with another seed is to be expected between {low} and {high} ({sure_words(LEVEL)}), and wider "
            "where other examples are tested on."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run held against a promise.

    Args:
        promise: that it is held against.
        value: its test metric; None where it did not finish.
        num_test: examples that it was measured on.
        interval: that was to be expected.
        has_sampling: whether the interval holds for the examples that it was measured on: it allows for other ones than
            the bundle's, or they are the same.
        is_same_test: whether they are the same, so that the interval is of seeds alone.
    """

    promise: Promise
    value: float | None
    num_test: int
    interval: tuple[float, float]
    has_sampling: bool
    is_same_test: bool = False

    @classmethod
    def of(
        cls,
        promise: Promise,
        result: RunResult,
        num_test: int,
        *,
        is_same_test: bool = False,
        variance: float | None = None,
    ) -> Outcome:
        """That of a run whose test metric was measured.

        Args:
            promise: of the bundle.
            result: of the run.
            num_test: examples of the test part.
            is_same_test: whether they are those of the bundle.
            variance: of the metric over draws of test examples, where the result does not tell it by itself.
        """
        each = _variance(promise.metric, result)
        drawn = 0.0 if is_same_test else variance if each is None else each / num_test
        before = promise.num_test or num_test
        sampling = 0.0 if drawn is None else drawn * (1 + num_test / before)
        known = METRICS.get(promise.metric)
        resolution = 1 / num_test if known is not None and known.has_steps else 0.0
        value = result.metrics.get("test") if result.cause == "finished" else None
        interval = promise.interval(sampling, resolution)
        return cls(
            promise=promise,
            value=value,
            num_test=num_test,
            interval=interval,
            has_sampling=drawn is not None,
            is_same_test=is_same_test,
        )

    @property
    def is_below(self) -> bool:
        """Whether the run is clearly worse than was to be expected; never where nothing is known of test examples."""
        if self.value is None:
            return True
        if not self.has_sampling:
            return False
        low, high = self.interval
        return self.value < low if self.promise.higher_is_better else self.value > high

    @property
    def is_above(self) -> bool:
        """Whether it is clearly better."""
        low, high = self.interval
        return (
            self.has_sampling
            and self.value is not None
            and (self.value > high if self.promise.higher_is_better else self.value < low)
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the run says, and what it cannot."""
        words, promise = self.promise.words, self.promise
        if self.value is None:
            return (
                f"The run did not finish, where the bundle's had a test {promise.metric} of {words(promise.mean)}.",
            )
        low, high = map(words, self.interval)
        verdict = "clearly worse than that" if self.is_below else "better than that" if self.is_above else "within that"
        verdict = verdict if self.has_sampling else "how far other test examples move it is not known"
        verdict = "so wide that nothing could be worse" if promise.says_nothing(self.interval) else verdict
        said = (
            f"Test {promise.metric} {words(self.value)} on {self.num_test:,} examples that were held out. The bundle's "
            f"{len(promise.values)} runs had {words(promise.mean)} on average, and one more is to be expected between "
            f"{low} and {high} ({sure_words(LEVEL)}, by the spread of {self._over}): {verdict}."
        )
        return said, CANNOT

    @property
    def _over(self) -> str:
        """What the interval is over."""
        if self.is_same_test:
            return "other seeds, on the same test examples"
        return "other seeds and other test examples" if self.has_sampling else "other seeds, not of other test examples"

    def to_mapping(self) -> dict[str, object]:
        """Plain form."""
        return {
            "metric": self.promise.metric,
            "value": self.value,
            "num_test": self.num_test,
            "expected": list(self.interval),
            "level": LEVEL,
            "mean": self.promise.mean,
            "num_runs": len(self.promise.values),
            "is_below": self.is_below,
            "sentences": list(self.sentences),
        }


def _variance(metric: str, result: RunResult) -> float | None:
    """Variance of what one test example adds to the metric; None where that is no mean over examples, or not kept."""
    if metric not in BY_EXAMPLE:
        return None
    if result.test_correct is not None:
        bits = np.unpackbits(np.frombuffer(result.test_correct, np.uint8), count=result.num_test)
        return float(bits.astype(np.float64).var())
    if result.test_errors is not None:
        return float(np.frombuffer(result.test_errors, "<f4").astype(np.float64).var())
    return None


# --- Student's law, which a base install has no package for ---------------------------------------------------------


@functools.cache
def student_quantile(share: float, degrees: int) -> float:
    """The number below which a share of Student's law lies, to 1e-9; scipy is the oracle of its test.

    Args:
        share: in (0.5, 1).
        degrees: of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _student_share(high, degrees) < share:
        high *= 2
    for _ in range(60):  # to the last bits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def _student_share(value: float, degrees: int) -> float:
    """The share of Student's law below a positive number: finite sums of powers of cosine and sine.

    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(value / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees == 1:
        inside = 2 * angle / math.pi
    elif degrees % 2:
        inside = 2 / math.pi * (angle + sine * _sum(_terms(cosine, 1, (degrees - 1) // 2, 2, 3)))
    else:
        inside = sine * _sum(_terms(cosine, 0, degrees // 2, 1, 2))
    return (1 + inside) / 2


def _terms(cosine: float, power: int, count: int, top: int, bottom: int) -> list[float]:
    """cos^p, then each the one before times cos^2 and (top / bottom), both of which grow by 2."""
    found = [cosine**power]
    for i in range(count - 1):
        found.append(found[-1] * cosine**2 * (top + 2 * i) / (bottom + 2 * i))
    return found


def _sum(terms: Sequence[float]) -> float:
    return math.fsum(terms)
