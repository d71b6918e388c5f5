"""How well scores put what is looked for before the rest: ROC AUC and average precision, by ranks alone.

| symbol | shape | meaning |
|---|---|---|
| s | (n,) float64 | scores, higher for what is looked for |
| y | (n,) bool | whether it is |
| P, N | int | positives and negatives |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from subsettune.errors import ConfigError
from subsettune.train.own_goal import refused


def roc_auc(scores: Tensor, positive: Tensor) -> float:
    """Share of the P * N pairs in which the positive has the higher score; equal scores count half.

    O(n log n). Source: Mann & Whitney 1947; Hanley & McNeil 1982.

    Args:
        scores: (n,) s.
        positive: (n,) y, with one of each at least.
    """
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1).double() / 2)[inverse]  # from 1, equal scores share the mean of theirs
    p = float(positive.sum())
    return (float(ranks[positive].sum()) - p * (p + 1) / 2) / (p * (len(scores) - p))


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Mean over the positives of the precision where each is found, going down; equal scores are found at once.

    The sum over thresholds of (R_k - R_(k-1)) * precision_k, which interpolates nothing. O(n log n).

    Args:
        scores: (n,) s.
        positive: (n,) y, with one positive at least.
    """
    values, inverse, counts = (-scores).unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(values), dtype=torch.float64, device=scores.device)
    hits = hits.index_add(0, inverse, positive.double())
    precision = hits.cumsum(0) / counts.cumsum(0)
    return float((hits * precision).sum() / hits.sum())


CURVES: dict[str, Callable[[Tensor, Tensor], float]] = {"roc_auc": roc_auc, "average_precision": average_precision}


def over_classes(name: str, outputs: Tensor, targets: Tensor, positive: int = 1) -> float:
    """One of `CURVES` of classes: of two, for one of them; of more, the mean of each class against the rest.

    Classes are ranked by their probability, as the softmax of the outputs has it.

    Args:
        name: of the curve.
        outputs: (n, M) float64 logits.
        targets: (n,) int64 classes.
        positive: which of two classes is looked for.

    Raises:
        ConfigError: a class has no examples.
    """
    num_classes = outputs.shape[1]
    missing = (torch.bincount(targets, minlength=num_classes) == 0).nonzero()
    if len(missing):
        raise _absent(name, f"class {int(missing[0])}", "no example")
    if num_classes == 2:
        return CURVES[name](outputs[:, positive] - outputs[:, 1 - positive], targets == positive)
    shares = outputs.log_softmax(dim=1)
    return sum(CURVES[name](shares[:, c], targets == c) for c in range(num_classes)) / num_classes


def over_labels(name: str, outputs: Tensor, targets: Tensor) -> float:
    """The mean over labels of one of `CURVES`.

    Args:
        name: of the curve.
        outputs: (n, M) float64 logits.
        targets: (n, M) 0 and 1.

    Raises:
        ConfigError: a label is nowhere, or everywhere.
    """
    positive = targets > 0
    check_labels(name, positive)
    num_labels = targets.shape[1]
    return sum(CURVES[name](outputs[:, j], positive[:, j]) for j in range(num_labels)) / num_labels


def check_labels(name: str, positive: Tensor) -> None:
    """Refuse a split in which a label is nowhere, or everywhere: there is nothing to put before the rest.

    Raises:
        ConfigError: such a label.
    """
    for j, (is_any, is_all) in enumerate(zip(positive.any(dim=0).tolist(), positive.all(dim=0).tolist(), strict=True)):
        if not is_any or is_all:
            raise _absent(name, f"label {j}", "it in none" if not is_any else "it in all")


def places(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) int64 how many classes have a higher output than the right one; of equal ones the first comes first.

    Args:
        outputs: (n, M).
        targets: (n,) int64 classes.
    """
    own = outputs.gather(1, targets[:, None])
    earlier = torch.arange(outputs.shape[1], device=outputs.device) < targets[:, None]
    return ((outputs > own) | ((outputs == own) & earlier)).sum(dim=1)


def _absent(name: str, which: str, got: str) -> ConfigError:
    return refused(name, f"a part of the data with and without {which}", got)
