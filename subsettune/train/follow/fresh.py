"""Whether the weights of a run are its own: a network that is made once for all runs goes on where the last ended."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from subsettune.errors import TrainingFunctionError
from subsettune.train.randomness import derive

_numbers = itertools.count()
_owners: dict[int, tuple[weakref.ref[Tensor], int]] = {}  # by identity of a parameter: it, and the number of its run


class Fresh:
    """Watches over the independence of one run.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._number = seed, next(_numbers)

    def check_weights(self, parameters: Iterable[Tensor]) -> None:
        """Take note that parameters are those of this run.

        Raises:
            TrainingFunctionError: another run of this process has trained them.
        """
        for one in parameters:
            found = _owners.get(id(one))
            if found is not None and found[0]() is one and found[1] != self._number:
                raise TrainingFunctionError(
                    "the network must be new in each run, and an earlier run has trained this one. Make it within the "
                    "training function, not once for the module."
                )
            key = id(one)
            _owners[key] = (weakref.ref(one, lambda gone, key=key: _owners.pop(key, None)), self._number)  # type: ignore[misc]

    def check_seed(self) -> None:
        """Check that torch is seeded by the run.

        Raises:
            TrainingFunctionError: the function has seeded it by a number of its own, so that seeds differ in less.
        """
        if torch.initial_seed() not in (derive(self._seed, "torch"), self._seed):
            raise TrainingFunctionError(
                "torch must be seeded by the run, and the training function has seeded it by another number: its runs "
                "would not be independent. It is seeded already; else take torch.manual_seed(run.seed)."
            )
