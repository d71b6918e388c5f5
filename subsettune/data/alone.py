"""How well a single column tells the label: what tells nearly all was made from it, or is known only after it.

A column is judged by its nearest neighbour in it: rows of one half of a sample get the most frequent class, or the mean
value, of the nearest value in the other half. No column of noise does well at that, and no monotone one fails.

Symbols: n sampled rows, c columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subsettune.data.raw import Array

SAMPLE_NUMBERS = 2**22  # rows times columns that are looked at: 0.6 s on a core
SAMPLE_ROWS = (512, 8192)  # at least, at most
ENOUGH_ERRORS = 20  # of the guess: with fewer, being right is luck
SUSPICIOUS = 0.98  # share of the guess's error that a column alone takes away; iris' best column takes 0.93
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What a column alone tells of the label, on rows that it was not fitted to.

    Args:
        score: accuracy; of a regression R^2, the share of the variance that is explained.
        guess: the same of a guess without the column; 0 of a regression.
    """

    score: float
    guess: float

    @property
    def is_suspicious(self) -> bool:
        """Whether it tells nearly all that there is to tell."""
        return 1 - self.score <= (1 - SUSPICIOUS) * (1 - self.guess)


def alone(inputs: Array, targets: Array, num_train: int) -> dict[int, Alone]:
    """The columns that tell the label almost perfectly, each alone.

    Args:
        inputs: (n_all, c) float32 numbers or codes, finite.
        targets: (n_all,) int64 classes or float32 values.
        num_train: rows of the training file, which come first; others are not looked at.

    Returns:
        By column; empty where there are too few rows to tell.
    """
    if inputs.ndim != 2 or targets.ndim != 1:
        return {}
    rng = np.random.default_rng(0)
    most = int(np.clip(SAMPLE_NUMBERS // inputs.shape[1], *SAMPLE_ROWS))
    rows = rng.permutation(num_train)[:most]
    sample, labels = inputs[np.sort(rows)], targets[np.sort(rows)]
    is_fitted = rng.permutation(len(rows)) % 2 == 0
    judge = _accuracy if targets.dtype.kind == "i" else _explained
    found = {j: judge(sample[:, j], labels, is_fitted) for j in range(sample.shape[1])}
    return {j: told for j, told in found.items() if told is not None and told.is_suspicious}


def _accuracy(column: Array, labels: Array, is_fitted: Array) -> Alone | None:
    """Accuracy on the other half; None where the guess is right too often to tell."""
    values, group = np.unique(column[is_fitted], return_inverse=True)
    num_classes = int(labels.max()) + 1
    pairs, counts = np.unique(group * num_classes + labels[is_fitted], return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent class of each value is written last
    by_value = np.empty(len(values), dtype=np.int64)
    by_value[pairs[order] // num_classes] = pairs[order] % num_classes
    rest = labels[~is_fitted]
    is_wrong_guess = rest != np.bincount(labels[is_fitted]).argmax()
    if is_wrong_guess.sum() < ENOUGH_ERRORS:
        return None
    told = by_value[_nearest(values, column[~is_fitted])]
    return Alone(score=float((told == rest).mean()), guess=float(1 - is_wrong_guess.mean()))


def _explained(column: Array, targets: Array, is_fitted: Array) -> Alone | None:
    """R^2 on the other half; None with few rows, or where nothing varies."""
    targets = targets.astype(np.float64)
    values, group = np.unique(column[is_fitted], return_inverse=True)
    rest = targets[~is_fitted]
    spread = float(((rest - targets[is_fitted].mean()) ** 2).sum())
    if len(rest) < ENOUGH_ERRORS or spread < TINY:
        return None
    means = np.bincount(group, weights=targets[is_fitted]) / np.bincount(group)
    errors = rest - means[_nearest(values, column[~is_fitted])]
    return Alone(score=1 - float((errors**2).sum()) / spread, guess=0.0)


def _nearest(values: Array, column: Array) -> Array:
    """Place of the nearest of some sorted values, for each number of a column."""
    right = np.searchsorted(values, column).clip(1, max(1, len(values) - 1))
    if len(values) == 1:
        return np.zeros(len(column), dtype=np.int64)
    left = values[right - 1].astype(np.float64)
    is_left = column - left <= values[right] - column
    return np.where(is_left, right - 1, right)
