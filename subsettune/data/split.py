"""Which examples are held out: drawn once from the split's seed, class by class for a classification."""

from __future__ import annotations

import torch
from torch import Tensor

from subsettune.errors import DataError
from subsettune.task import Split

DEFAULT_TEST = 0.2


def divide(targets: Tensor, split: Split, num_classes: int, has_test_file: bool) -> dict[str, Tensor]:
    """Divide the rows of the training file.

    Args:
        targets: (n,) int64 classes, or float values of a regression.
        split: shares and seed.
        num_classes: 0 for a regression.
        has_test_file: whether the test split has a file of its own.

    Returns:
        `train`, `validation`, and `test` unless it has a file: sorted int64 rows that cover all rows once.

    Raises:
        DataError: the split does not suit the source, or a class has too few examples for it.
    """
    if has_test_file and split.test is not None:
        raise DataError(
            f"split.test must be null for data that have an official test file, got {split.test!r}. Remove the key."
        )
    shares = {"validation": split.validation}
    if not has_test_file:
        shares["test"] = split.test if split.test is not None else DEFAULT_TEST
    rng = torch.Generator().manual_seed(split.seed)
    order = torch.randperm(len(targets), generator=rng)
    groups = [order] if num_classes == 0 else [order[targets[order] == c] for c in range(num_classes)]
    sizes = [len(group) for group in groups]
    quotas = {name: quota(sizes, share) for name, share in shares.items()}
    _check(sizes, quotas, num_classes)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*shares, "train")}
    for i, group in enumerate(groups):
        start = 0
        for name in shares:
            parts[name].append(group[start : start + quotas[name][i]])
            start += quotas[name][i]
        parts["train"].append(group[start:])
    return {name: torch.cat(rows).sort().values for name, rows in parts.items()}


def quota(sizes: list[int], share: float) -> list[int]:
    """How many of each group make up a share of all: proportional, rounded by largest remainder, ties to the first."""
    total = round(share * sum(sizes))
    exact = [share * size for size in sizes]
    counts = [int(e) for e in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: max(0, total - sum(counts))]:
        counts[i] += 1
    return counts


def _check(sizes: list[int], quotas: dict[str, list[int]], num_classes: int) -> None:
    """Every class must be in every part."""
    for i, size in enumerate(sizes):
        counts = [counts[i] for counts in quotas.values()]
        if min(counts) >= 1 and size - sum(counts) >= 1:
            continue
        who = f"class {i}" if num_classes else "the data"
        parts = ", ".join(f"{name} {counts[i]}" for name, counts in quotas.items())
        raise DataError(
            f"{who} has {size} examples, too few for the split: {parts}, training {size - sum(counts)}. "
            "Every part needs at least one: add examples of it, drop it, or change the shares of the split."
        )
