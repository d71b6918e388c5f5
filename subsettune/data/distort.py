"""Faults put into the training part on purpose: flipped labels and repeated examples, drawn from the task's seed.

Symbols: n training examples before, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from subsettune import config
from subsettune.errors import DataError
from subsettune.task import Corruption

VERSION = 1  # of the drawing: goes into the fingerprint of distorted data


def distorted(
    targets: Tensor, rows: Tensor, distortion: Corruption, class_names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Targets and rows of a training part after a distortion; neither is changed in place.

    Args:
        targets: (n_all,) int64 classes of all examples of the source, or values of a regression.
        rows: (n,) int64 of the training part, sorted.
        distortion: what is done.
        class_names: of the C classes; empty for a regression.

    Returns:
        targets with the flipped labels in `rows`, and rows with the repeated ones, sorted.

    Raises:
        DataError: the flips leave a class without training examples.
    """
    flips = _share_of(len(rows), distortion.flip_labels)
    if flips:
        targets = _flipped(targets, rows, flips, distortion.seed, class_names)
    repeated = _share_of(len(rows), distortion.repeat_share)
    if repeated and distortion.repeat_times > 1:
        chosen = torch.randperm(len(rows), generator=_generator(distortion.seed, "repeat"))[:repeated]
        rows = torch.cat([rows, rows[chosen].repeat(distortion.repeat_times - 1)]).sort().values
    return targets, rows


def _flipped(targets: Tensor, rows: Tensor, flips: int, seed: int, class_names: Sequence[str]) -> Tensor:
    """All draws are made for all examples, so that more flips are the same ones and some more."""
    rng = _generator(seed, "flip")
    order = torch.randperm(len(rows), generator=rng)
    steps = torch.randint(1, len(class_names), (len(rows),), generator=rng)  # to any class but its own
    mine, steps = rows[order[:flips]], steps[:flips]
    flipped = targets.clone()
    flipped[mine] = (targets[mine] + steps) % len(class_names)
    missing = torch.bincount(flipped[rows], minlength=len(class_names)) == 0
    if bool(missing.any()):
        name = class_names[int(missing.int().argmax())]
        raise DataError(
            f"class {name!r} must keep training examples, got none after distortion.flip_labels. Flip fewer, or change "
            "distortion.seed."
        )
    return flipped


def _share_of(num_examples: int, share: float) -> int:
    """The share read as the decimal that it is written as, so that 0.29 of 100 is 29."""
    return round(Fraction(str(share)) * num_examples)


def _generator(seed: int, purpose: str) -> torch.Generator:
    """A stream for one purpose, unlike that of the split with the same seed."""
    return torch.Generator().manual_seed(int(config.digest(["distortion", purpose, seed])[:15], 16))
