"""The user's own Dataset: read once into arrays, and checked for random transforms inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from subsettune.data.own import shaped
from subsettune.data.raw import Array, Raw
from subsettune.errors import DataError
from subsettune.plugins import call
from subsettune.task import Data

READ_TWICE = 32  # examples; a transform that changes one in ten inputs slips through one time in thirty


def read_function(function: Callable[..., Any], data: Data) -> Raw:
    """Call the user's function and read the dataset, or the pair of datasets, that it returns.

    Raises:
        DataError: it returns something else, an example cannot be read or differs in shape, or two readings differ.
    """
    made = call(function, f"data {data.source!r}", data.options)
    datasets = made if isinstance(made, tuple) else (made,)
    if len(datasets) > 2 or not all(hasattr(d, "__getitem__") and hasattr(d, "__len__") for d in datasets):
        raise DataError(
            f"data {data.source!r} must return a map-style Dataset, or (training, test), got {type(made).__name__}."
        )
    parts = [_read(dataset, data.source) for dataset in datasets]
    inputs = np.concatenate([x for x, _ in parts])
    labels = np.concatenate([y for _, y in parts])
    return Raw(inputs=shaped(inputs), labels=labels, num_train=len(parts[0][0]))


def _read(dataset: Any, source: str) -> tuple[Array, Array]:
    num_examples = len(dataset)
    if num_examples == 0:
        raise DataError(f"data {source!r} are empty. Return a Dataset with examples.")
    inputs: Array | None = None
    labels = []
    for i in range(num_examples):
        x, y = _example(dataset, i, source)
        if inputs is None:
            inputs = np.empty((num_examples, *x.shape), dtype=x.dtype)
        if x.shape != inputs.shape[1:]:
            raise DataError(
                f"inputs of {source!r} must have one shape, got {inputs.shape[1:]} and {x.shape} (example {i})."
            )
        inputs[i] = x
        labels.append(y)
    assert inputs is not None
    _refuse_random(dataset, inputs, source)
    return inputs, np.asarray(labels)


def _example(dataset: Any, i: int, source: str) -> tuple[Array, Any]:
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"examples of {source!r} must be pairs (input, label), got {type(item).__name__} (example {i})."
        )
    x, y = item
    array = x.numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"inputs of {source!r} must be tensors, arrays or images, got {type(x).__name__} (example {i})."
        )
    label = y.tolist() if isinstance(y, torch.Tensor | np.ndarray | np.generic) else y
    return (array if array.dtype == np.uint8 else array.astype(np.float32)), label


def _refuse_random(dataset: Any, inputs: Array, source: str) -> None:
    """Read a sample again: differing bytes mean a random transform, which caching would freeze."""
    chosen = np.random.default_rng(0).choice(len(inputs), size=min(READ_TWICE, len(inputs)), replace=False)
    for i in chosen.tolist():
        if _example(dataset, i, source)[0].tobytes() != inputs[i].tobytes():
            raise DataError(
                f"data {source!r} give example {i} differently each time: there is a random transform inside. "
                "Return the plain examples, and set recipe.augment for random flips and crops."
            )
