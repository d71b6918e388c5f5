"""Would other test examples have said the same? A difference to the reference, seeds and examples drawn anew.

Verification draws seeds and keeps the test examples: what it shows, it shows of these examples. On a few hundred of
them the choice of the examples moves a difference as much as ten seeds do (Bouthillier et al. 2021, arXiv:2103.03098).
Every run is measured on every example, so seeds and examples are crossed random factors,

    x[s, i] = mean + u[s] + e[i] + w[s, i],        Var(mean of x) = Var(u) / S + Var(e) / n + Var(w) / (S n),

and the classical analysis of variance of such a table (Cornfield & Tukey 1956) estimates the three without bias. The
spread of the runs and that of the examples each hold the interaction w once, so it is taken off their sum once: here it
is most of what two seeds differ by. Owen's pigeonhole bootstrap (2007, arXiv:0712.1111) resamples rows and columns of
the same table; it leaves the interaction in more than once, errs on the safe side by it, and costs a thousand times as
much, so it is not what is used.

The bound is that of a t test. Seeds are few and examples many, so their quantiles differ: their mean is taken, each
weighted by its part of the variance (Cochran & Cox 1950), which errs on the safe side, where one number of degrees of
freedom for both (Satterthwaite 1946) errs on the other. Two more things keep the level where tables are small, and both
only ever widen the bound. The variance is never less than that of seeds alone or of examples alone. And of right and
wrong answers one more disagreement than was seen is counted, as in Agresti & Min 2005 (Stat. Med. 24:729): else a
hundred examples of which none differs would show that none ever does. The tests hold the level against tables of known
mean.

What it cannot do. Examples must be drawn independently: not so where a test set holds several of one patient, or
drifts. Of a regression, a few examples with large errors may be missing from a small test set; no bound sees them.

| symbol | shape | meaning |
|---|---|---|
| S, n | int | runs of an arm; test examples |
| x | (S, n) | what each example adds to the metric of each run: 1 where right and 0 where wrong, or an error |
| d | (n,) | mean over the candidate's runs minus mean over the reference's, of each example, oriented |
| A | float | variance of the mean as the spread of the runs says it: Var(u)/S + Var(w)/(Sn), of both arms |
| B | float | likewise as the spread of d over examples says it: Var(e)/n + Var(w)/(Sn) |
| C | float | Var(w)/(Sn), of both arms |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.study.results.records import RunRecord
from subsettune.study.results.sampled import SampledDifference, is_no_mean, rounded_up
from subsettune.text import share_words

Array = NDArray[np.float64]
BALANCED = "balanced_accuracy"
ENOUGH_POWER = 0.8  # what "would do" means when a number of examples is named, as for a number of seeds
ASSUMED_DISAGREEMENT = 2.0  # of a policy and the reference, times the tolerance; two runs of digits' recipe: 1 %
ONE_MORE = 1.0  # disagreement that is counted beside those seen, in units of the largest weight of an example


def sampled_difference(
    candidate: ArrayLike,
    reference: ArrayLike,
    *,
    alpha: float,
    is_paired: bool = False,
    higher_is_better: bool = True,
    weights: ArrayLike | None = None,
) -> SampledDifference:
    """The difference of two arms when both seeds and test examples are drawn anew.

    Cost: O((S_c + S_r) n) operations and memory.

    Args:
        candidate: (S_c, n) what each example adds to the metric of each run; bool for right and wrong.
        reference: (S_r, n) likewise, of the same examples in the same order.
        alpha: error rate, in (0, 0.5].
        is_paired: whether run s of both has the same seed; S_c is S_r then. Where policies have little in common but
            the seed, both ways give about the same.
        higher_is_better: whether a higher metric is better.
        weights: (n,) of the examples, 1 on average, such as `class_weights`; None for equal ones.

    Returns:
        The difference with its bounds.

    Raises:
        ConfigError: shapes do not fit, a value is not finite, or there are fewer than two runs or examples.
    """
    ours, theirs = _checked(candidate, reference, is_paired=is_paired)
    if not 0 < alpha <= 0.5:
        raise ConfigError(must("alpha", "in (0, 0.5]", alpha))
    is_binary = all(np.asarray(arm).dtype == np.bool_ for arm in (candidate, reference))
    sign = 1.0 if higher_is_better else -1.0
    scale = np.ones(ours.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    ours, theirs = sign * scale * ours, sign * scale * theirs
    arms = (ours - theirs,) if is_paired else (ours, theirs)
    d = ours.mean(axis=0) - theirs.mean(axis=0)
    more = ONE_MORE * float(scale.max()) ** 2 if is_binary else 0.0
    return _bounded(d, arms, more, alpha, (len(ours), len(theirs)))


def _checked(candidate: ArrayLike, reference: ArrayLike, *, is_paired: bool) -> tuple[Array, Array]:
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    for name, arm in (("candidate", ours), ("reference", theirs)):
        if arm.ndim != 2 or min(arm.shape) < 2:
            raise ConfigError(must(name, "runs by examples, two of each at least", arm.shape))
        if not np.isfinite(arm).all():
            raise ConfigError(must(name, "finite numbers", "NaN or infinity", "Leave out runs that diverged."))
    if ours.shape[1] != theirs.shape[1]:
        rule = f"measured on {theirs.shape[1]} examples, as the reference is"
        raise ConfigError(must("candidate", rule, ours.shape[1]))
    if is_paired and len(ours) != len(theirs):
        raise ConfigError(must("candidate", f"of {len(theirs)} runs, as its pairs are", len(ours)))
    return ours, theirs


def _bounded(
    d: Array, arms: Sequence[Array], more: float, alpha: float, num_seeds: tuple[int, int]
) -> SampledDifference:
    """The bounds by A, B and C of the module's table; `more` is added to the sum of squares over examples."""
    n, mean = len(d), float(d.mean())
    runs = [float(x.mean(axis=1).var(ddof=1)) / len(x) for x in arms]
    crossed = [_interaction(x) / x.size for x in arms]
    examples = (float(np.square(d - mean).sum()) + more) / ((n - 1) * n)
    seeds, both = math.fsum(runs), math.fsum(crossed)
    variance = max(seeds + examples - both, seeds, examples)
    doubt = math.fsum(part**2 / (len(x) - 1) for part, x in zip(runs, arms, strict=True))
    degrees = seeds**2 / doubt if doubt > 0 else math.inf  # of the runs of both arms (Welch 1947)
    share = seeds / variance if variance > 0 else 0.0

    def critical(level: float) -> float:
        return share * float(stats.t.isf(level, degrees)) + (1 - share) * float(stats.t.isf(level, n - 1))

    error = math.sqrt(variance)
    wide = critical(alpha / 2) * error
    return SampledDifference(
        mean=mean,
        lower=mean - critical(alpha) * error,
        interval=(mean - wide, mean + wide),
        alpha=alpha,
        standard_error=error,
        seeds_error=math.sqrt(seeds),
        num_examples=n,
        num_seeds=num_seeds,
        per_example=examples * n,
        per_seeds=max(0.0, seeds - both),
    )


def _interaction(x: Array) -> float:
    """Unbiased variance of w of an arm (S, n): what neither the run nor the example explains."""
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0, keepdims=True) + x.mean()
    num_runs, num_examples = x.shape
    return float(np.square(rest).sum() / ((num_runs - 1) * (num_examples - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSplitSize:
    """What can be said of the size of a test split before anything has run.

    Args:
        num_examples: of the test split.
        disagreement: share of them on which a policy and the reference are assumed to differ.
        standard_error: of the difference of two equal policies, by the choice of the examples alone.
        enough: examples with which a policy that equals the reference passes with probability 0.8 over other examples,
            too, if seeds cost nothing.
    """

    num_examples: int
    disagreement: float
    standard_error: float
    enough: int

    @property
    def is_enough(self) -> bool:
        """Whether the test split is as large as that."""
        return self.num_examples >= self.enough


def size_of_test(num_examples: int, margin: float, alpha: float) -> TestSplitSize:
    """Whether a test split is large enough for a tolerance, when nothing but the two is known.

    Two policies of equal accuracy that differ on a share d of n examples, as often in favour of one as of the other,
    have a difference of variance d / n (McNemar 1947). The more they differ, the more examples are needed; d cannot be
    less than the margin where they are just as far apart as that, and is assumed to be twice the margin.

    Args:
        num_examples: n.
        margin: the tolerance, in accuracy.
        alpha: error rate of verification.
    """
    disagreement = min(1.0, ASSUMED_DISAGREEMENT * margin)
    sure = float(stats.norm.isf(alpha) + stats.norm.ppf(ENOUGH_POWER))
    return TestSplitSize(
        num_examples=num_examples,
        disagreement=disagreement,
        standard_error=math.sqrt(disagreement / num_examples),
        enough=math.ceil(sure**2 * disagreement / margin**2),
    )


def too_few_examples(size: TestSplitSize, margin: float) -> str:
    """What to know before a study whose test split is smaller than `enough`, and what to do."""
    return (
        f"{size.num_examples:,} test examples are few for a tolerance of {margin:g}: where a policy as good as the "
        f"reference differs from it on {share_words(size.disagreement)} of them (assumed: twice the tolerance), the "
        f"choice of the examples moves the difference by {size.standard_error:.2g} (standard error), however many "
        "seeds are run. What is verified then holds for these examples. "
        f"{rounded_up(size.enough):,} would do for others, too: give a larger test file or split.test, or a larger "
        "tolerance."
    )


def why_not(metric: str, records: Sequence[RunRecord], *, has_targets: bool = True) -> str | None:
    """Why nothing can be said of other test examples, in a few words; None if it can.

    Args:
        metric: of the task.
        records: runs of both arms.
        has_targets: whether the classes of the test examples are at hand.
    """
    if is_no_mean(metric):
        return f"{metric} is no mean over examples"
    if metric == BALANCED and not has_targets:
        return f"{metric} needs the classes of the test examples"
    if any(_of(record) is None for record in records):
        return "of some runs it was not kept which examples they got right"
    if len({record.num_test for record in records}) > 1:
        return "the runs were not measured on the same examples"
    return None


# More than six parameters: the runs of two arms, and what their metric and test are.
def difference_of(
    candidate: Sequence[RunRecord],
    reference: Sequence[RunRecord],
    *,
    metric: str,
    alpha: float,
    is_paired: bool = False,
    higher_is_better: bool = True,
    targets: ArrayLike | None = None,
) -> SampledDifference | None:
    """`sampled_difference` of the runs of two arms, as they are on record.

    Args:
        candidate: its finished runs.
        reference: likewise.
        metric: of the task.
        alpha: error rate, in (0, 0.5].
        is_paired: whether run s of both has the same seed.
        higher_is_better: whether a higher metric is better.
        targets: (n,) classes of the test examples, which `balanced_accuracy` needs; in the order of the split.

    Returns:
        None where `why_not` says why, or an arm has fewer than two runs.
    """
    few = min(len(candidate), len(reference)) < 2
    if few or why_not(metric, [*candidate, *reference], has_targets=targets is not None) is not None:
        return None
    return sampled_difference(
        table_of(candidate),
        table_of(reference),
        alpha=alpha,
        is_paired=is_paired,
        higher_is_better=higher_is_better,
        weights=class_weights(targets) if metric == BALANCED and targets is not None else None,
    )


def table_of(records: Sequence[RunRecord]) -> NDArray[Any]:
    """(S, n) what each test example adds to the metric of each run, bool or float32; `why_not` comes first."""
    rows = [_of(record) for record in records]
    assert all(row is not None for row in rows), "why_not is asked first"
    return np.stack([row for row in rows if row is not None])


def _of(record: RunRecord) -> NDArray[Any] | None:
    if record.test_correct is not None:
        bits = np.frombuffer(record.test_correct, dtype=np.uint8)
        return np.unpackbits(bits, count=record.num_test).astype(np.bool_)
    if record.test_errors is not None:
        return np.frombuffer(record.test_errors, dtype="<f4").astype(np.float32)
    return None


def class_weights(targets: ArrayLike) -> Array:
    """(n,) weights with which a mean over examples is the balanced accuracy: every class present counts the same.

    A bound with them is on the safe side: how often each class is drawn counts as chance, too.

    Args:
        targets: (n,) classes of the test examples.
    """
    classes, index, counts = np.unique(np.asarray(targets), return_inverse=True, return_counts=True)
    return np.asarray(len(index) / (len(classes) * counts[index]), dtype=np.float64)
