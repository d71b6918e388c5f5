"""Labels and inputs that are in memory already, as the data of a task: all of them are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsettune.config import must
from subsettune.data.encode import Normalizer
from subsettune.data.own_rows import NO_CONTENT
from subsettune.data.parts import Part, TaskData
from subsettune.errors import DataError


def in_hand(inputs: NDArray[Any] | None, targets: Tensor, *, kind: str, class_names: Sequence[str]) -> TaskData:
    """Data of which no part is held out, for choosing among them; nothing of it is kept.

    Args:
        inputs: (n, ...) numbers; None where nobody has any.
        targets: (n,) int64 places in `class_names`, or (n,) or (n, m) values.
        kind: `classification`, `regression` or `multilabel`.
        class_names: empty where there are none.

    Raises:
        DataError: inputs are not finite numbers, or not as many as targets.
    """
    rows = torch.arange(len(targets))
    if inputs is None:
        stored, encoder = NO_CONTENT.expand(len(targets), 1), Normalizer(mean=NO_CONTENT, scale=NO_CONTENT + 1)
    else:
        stored = _numbers(inputs, len(targets))
        encoder = Normalizer.fit(stored, rows)
    return whole(Part(stored, targets, rows, encoder), targets, kind=kind, class_names=class_names)


def whole(part: Part, targets: Tensor, *, kind: str, class_names: Sequence[str]) -> TaskData:
    """A part as the data of a task of which nothing is held out, for whoever measures nothing.

    Args:
        part: all examples.
        targets: of them.
        kind: `classification`, `regression` or `multilabel`.
        class_names: empty where there are none.
    """
    return TaskData(
        train=part,
        validation=part,
        test=part,
        fingerprint="",
        kind=kind,
        num_outputs=len(class_names) or (1 if targets.ndim == 1 else targets.shape[1]),
        num_classes=len(class_names),
        input_shape=tuple(part.inputs.shape[1:]),
        class_names=tuple(class_names),
        num_source_examples=len(targets),
    )


def _numbers(inputs: NDArray[Any], expected: int) -> Tensor:
    if len(inputs) != expected:
        raise DataError(must("inputs", f"{expected:,}, one for each label", len(inputs)))
    if inputs.ndim < 2 or inputs.dtype.kind not in "iufb":
        advice = "Give an array of numbers, one row for each example."
        raise DataError(must("inputs", "(n, ...) numbers", f"{inputs.dtype} of shape {inputs.shape}", advice))
    found = torch.from_numpy(np.ascontiguousarray(inputs))
    found = found if found.dtype == torch.uint8 else found.float()
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise DataError("inputs must be finite, got NaN or infinity. Fill or drop such rows.")
    return found
