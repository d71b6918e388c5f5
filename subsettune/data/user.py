"""The user's own torch Dataset, made by `package.module:function`: read once into arrays that all runs share.

A random transform inside would be frozen by that, so some examples are read twice, and data that differ are refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subsettune.data.images import channels_first, check_shape, pixels
from subsettune.data.raw import Array, Raw
from subsettune.data.scratch import allocate
from subsettune.errors import ConfigError, DataError
from subsettune.plugins import call
from subsettune.task import Data

READ_TWICE = 32  # examples; a transform that changes one in ten inputs slips through one time in thirty


class UserData:
    """What the user's function returns: a training set, and perhaps a test set. It is called when they are needed.

    Args:
        function: returns a map-style Dataset, or a pair of them.
        data: its name and options.

    All methods raise:
        DataError: it fails, or returns something else.
        ConfigError: its options do not fit it.
    """

    def __init__(self, function: Callable[..., Any], data: Data) -> None:
        self.source, self.options = data.source, data.options
        self._function, self._data = function, data

    @functools.cached_property
    def datasets(self) -> tuple[Any, ...]:
        """What the function returned, made when it is first asked for."""
        return _datasets(self._function, self._data)

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Examples of each of the datasets."""
        sizes = [len(dataset) for dataset in self.datasets]
        for size, which in zip(sizes, ("training", "test"), strict=False):
            if size == 0:
                raise DataError(f"{which} set of {self.source!r} is empty. Return a Dataset with examples.")
        return sizes

    @functools.cached_property
    def sample(self) -> list[int]:
        """Indices of the examples that are read twice, the same whenever the sizes are."""
        rng, total = np.random.default_rng(0), sum(self.sizes)
        return sorted(rng.choice(total, size=min(READ_TWICE, total), replace=False).tolist())

    def digest(self) -> str:
        """Hash of a sample of the examples: a cache that goes by the user's code alone would miss changed files."""
        result = hashlib.sha256(repr(self.sizes).encode())
        with _same_random_state():
            for i in self.sample:
                result.update(_bytes(*self._example(i)))
        return result.hexdigest()

    def read(self, scratch: Path) -> Raw:
        """Read every example once, and a sample of them twice.

        Args:
            scratch: folder for large arrays.

        Raises:
            DataError: an example cannot be read or is unlike the others, or two readings differ.
        """
        with _same_random_state():
            x, label = self._example(0)
            inputs = allocate((sum(self.sizes), *x.shape), x.dtype, scratch)
            labels = []
            for i in range(len(inputs)):
                x, label = self._example(i)
                check_shape(x.shape, inputs.shape[1:], f"example {i} of {self.source!r}")
                if x.dtype != inputs.dtype:
                    got = f"{inputs.dtype} and {x.dtype} (example {i})"
                    raise DataError(f"inputs of {self.source!r} must have one type, got {got}. Convert them alike.")
                inputs[i] = x
                labels.append(label)
            self._refuse_random(inputs, labels)
        return Raw(inputs=inputs, labels=self._label_array(labels), num_train=self.sizes[0])

    def _refuse_random(self, inputs: Array, labels: list[Any]) -> None:
        """Differing bytes mean a random transform, which reading once would freeze."""
        for i in self.sample:
            if _bytes(*self._example(i)) != _bytes(inputs[i], labels[i]):
                raise DataError(
                    f"data {self.source!r} give example {i} differently each time: there is a random transform inside. "
                    "Return the plain examples, and set recipe.augment for random flips and crops."
                )

    def _example(self, i: int) -> tuple[Array, Any]:
        """Input (float32 or uint8, channels first) and label of example i, training set first."""
        first = i < self.sizes[0]
        dataset, where = self.datasets[0 if first else 1], f"example {i} of {self.source!r}"
        try:
            item = dataset[i if first else i - self.sizes[0]]
        except Exception as error:
            raise DataError(f"{where} cannot be read: {type(error).__name__}: {error}. Mend the Dataset.") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"examples must be pairs (input, label), got {type(item).__name__} ({where}). Return pairs."
            )
        label = item[1]
        return _input(item[0], where), label.tolist() if hasattr(label, "tolist") else label

    def _label_array(self, labels: list[Any]) -> Array:
        try:
            array = np.asarray(labels)
        except ValueError as error:
            raise DataError(f"labels of {self.source!r} must have one shape: {error}. Mend the Dataset.") from error
        if array.dtype.kind == "U" and not all(isinstance(label, str) for label in labels):
            raise DataError(f"labels of {self.source!r} must be all numbers or all texts. Mend the Dataset.")
        return array


def _datasets(function: Callable[..., Any], data: Data) -> tuple[Any, ...]:
    try:
        with _same_random_state():
            made = call(function, f"data {data.source!r}", data.options)
    except ConfigError:
        raise
    except Exception as error:
        raise DataError(f"data {data.source!r} failed: {type(error).__name__}: {error}. Mend the function.") from error
    datasets = made if isinstance(made, tuple) else (made,)
    expected = f"data {data.source!r} must return a map-style Dataset, or (training, test), got"
    if not 1 <= len(datasets) <= 2:
        raise DataError(f"{expected} {len(datasets)} of them. Return one, or a pair.")
    for dataset in datasets:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(f"{expected} {type(dataset).__name__}. It needs __getitem__ and __len__.")
    return datasets


def _input(x: Any, where: str) -> Array:
    pillow = sys.modules.get("PIL.Image")  # no one has an image of a package that is not loaded
    if pillow is not None and isinstance(x, pillow.Image):
        return pixels(x, where)
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() else x).numpy()  # NumPy knows no bfloat16
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DataError(f"inputs must be tensors, arrays or images, got {type(x).__name__} ({where}). Convert them.")
    array = channels_first(array) if array.ndim else array[None]
    with np.errstate(over="ignore"):  # infinity is found, and refused, with its place
        return array if array.dtype == np.uint8 else array.astype(np.float32)


def _bytes(x: Array, label: Any) -> bytes:
    return x.tobytes() + repr((x.dtype.str, label)).encode()


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """Give the caller's random state back after user code that may draw from it."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
