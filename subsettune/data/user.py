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

from subsettune.data import precision
from subsettune.data.images import check_shape, pixels
from subsettune.data.labels import joined, renumbered
from subsettune.data.layout import OWN_IDS, arranged, arranged_image, check_ids, stored_type, taken_for
from subsettune.data.raw import Array, Raw
from subsettune.data.scratch import allocate
from subsettune.errors import ConfigError, DataError
from subsettune.plugins import call
from subsettune.task import Data

COPY_ROWS = 4096
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
        self.source, self.layout, self.options = data.source, data.layout, data.options
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
            result.update(_taken(self._item(0)[0]).encode())
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
            taken = _taken(self._item(0)[0])
            x, label = self._example(0)
            inputs = allocate((sum(self.sizes), *x.shape), x.dtype, scratch)
            labels = []
            for i in range(len(inputs)):
                x, label = self._example(i)
                check_shape(x.shape, inputs.shape[1:], f"example {i} of {self.source!r}")
                if x.dtype != inputs.dtype:
                    inputs = self._widened(inputs, x, i, scratch)
                inputs[i] = x
                labels.append(label)
            self._refuse_random(inputs, labels)
        stored, scaling = self._stored(inputs, scratch)
        array, classes = self._by_name(self._label_array(labels))
        return Raw(
            inputs=stored,
            labels=array,
            num_train=self.sizes[0],
            classes=classes,
            tokens=OWN_IDS if self.layout == "tokens" else "",
            scaling=scaling,
            taken=taken,
        )

    def _by_name(self, labels: Array) -> tuple[Array, tuple[str, ...]]:
        """Class numbers by the names in `classes` of the two datasets, where these differ, as of folders of images."""
        listed = [_listed(dataset) for dataset in self.datasets]
        if labels.dtype.kind not in "iu" or not all(listed) or len(set(listed)) == 1:
            return labels, ()
        which = [f"the {name} set of {self.source!r}" for name in ("training", "test")]
        classes = joined(listed, which)
        parts = zip(np.split(labels, [self.sizes[0]]), listed, which, strict=True)
        return np.concatenate([renumbered(part, names, classes, path) for part, names, path in parts]), classes

    def _widened(self, inputs: Array, x: Array, i: int, scratch: Path) -> Array:
        """The same array in a type that holds example i, too."""
        if np.uint8 in (inputs.dtype, x.dtype):
            got = f"{inputs.dtype} and {x.dtype} (example {i})"
            raise DataError(f"inputs of {self.source!r} must have one type, got {got}. Convert them alike.")
        if inputs.dtype == np.float64:
            return inputs
        wide = allocate(inputs.shape, np.float64, scratch)
        wide[:i] = inputs[:i]
        return wide

    def _stored(self, inputs: Array, scratch: Path) -> tuple[Array, precision.Scaling]:
        """Inputs that were read, as they are stored."""
        if inputs.dtype == stored_type(inputs.dtype, self.layout) != np.float32:
            return inputs, precision.Scaling()

        def blocks() -> Iterator[tuple[int, int, Array]]:
            return ((row, 0, inputs[row : row + COPY_ROWS]) for row in range(0, len(inputs), COPY_ROWS))

        stored = inputs if inputs.dtype == np.float32 else allocate(inputs.shape, np.float32, scratch)
        for row, _, block in blocks() if stored is not inputs else ():
            with np.errstate(over="ignore"):  # infinity is found, and refused, with its place
                stored[row : row + len(block)] = block
        return stored, precision.kept(stored, blocks, self.sizes[0])

    def _refuse_random(self, inputs: Array, labels: list[Any]) -> None:
        """Differing bytes mean a random transform, which reading once would freeze."""
        for i in self.sample:
            x, label = self._example(i)
            if _bytes(x.astype(inputs.dtype), label) != _bytes(inputs[i], labels[i]):
                raise DataError(
                    f"data {self.source!r} give example {i} differently each time: there is a random transform inside. "
                    "Return the plain examples, and set recipe.augment for random flips and crops."
                )

    def _example(self, i: int) -> tuple[Array, Any]:
        """Input (as it is stored, in the shape that networks get) and label of example i, training set first."""
        x, label = self._item(i)
        return _input(x, self.layout, self._where(i)), label.tolist() if hasattr(label, "tolist") else label

    def _where(self, i: int) -> str:
        return f"example {i} of {self.source!r}"

    def _item(self, i: int) -> tuple[Any, Any]:
        """Input and label of example i, as the Dataset gives them."""
        first, where = i < self.sizes[0], self._where(i)
        dataset = self.datasets[0 if first else 1]
        try:
            item = dataset[i if first else i - self.sizes[0]]
        except Exception as error:
            raise DataError(f"{where} cannot be read: {type(error).__name__}: {error}. Mend the Dataset.") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            got = f"{type(item).__name__}{f' of {len(item)}' if isinstance(item, tuple | list) else ''}"
            raise DataError(f"examples must be pairs (input, label), got {got} ({where}). Return pairs.")
        return item[0], item[1]

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


def _listed(dataset: Any) -> tuple[str, ...]:
    """Names of the classes 0, 1, ... of a dataset that has them as torchvision's have; else none."""
    found = getattr(dataset, "classes", None)
    is_list = isinstance(found, list | tuple) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list and found is not None else ()


def _input(x: Any, layout: str | None, where: str) -> Array:
    if _is_pillow(x):
        return arranged_image(pixels(x, where), layout, where)
    array = _array(x)
    if array.dtype.kind not in "fiub":
        raise DataError(f"inputs must be tensors, arrays or images, got {_kind(x)} ({where}). Convert them.")
    array = arranged(array, layout, where)
    if layout == "tokens":
        check_ids(array, where)
    return array.astype(_read_type(array.dtype, layout), copy=False)


def _read_type(given: np.dtype[Any], layout: str | None) -> np.dtype[Any]:
    """The type in which an example is read: wider than it is stored, where float32 may not hold its numbers."""
    stored = stored_type(given, layout)
    if stored != np.float32 or given == np.float32 or str(given) in precision.EXACT_TYPES:
        return stored
    return np.dtype(np.float64 if given.kind == "f" else np.uint64 if given == np.uint64 else np.int64)


def _is_pillow(x: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # no one has an image of a package that is not loaded
    return pillow is not None and isinstance(x, pillow.Image)


def _array(x: Any) -> Array:
    """As NumPy has it; an object of what no array of numbers can be."""
    try:
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu()
            x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # NumPy knows no bfloat16
        array = np.asarray(x)
    except (ValueError, OverflowError, TypeError, RuntimeError):  # lists of several lengths, sparse tensors
        return np.empty((), dtype=object)
    return np.empty((), dtype=object) if np.ma.is_masked(x) else array  # what is masked has no number


def _kind(x: Any) -> str:
    if np.ma.is_masked(x):
        return "an array with masked numbers"
    if isinstance(x, np.ndarray | torch.Tensor):
        return f"{'a sparse ' if getattr(x, 'is_sparse', False) else 'an '}array of {x.dtype}"
    return type(x).__name__


def _taken(x: Any) -> str:
    """What an input without a layout is taken for; images, and what is refused later, are sure."""
    if _is_pillow(x):
        return ""
    array = _array(x)
    return taken_for(array.shape, array.dtype)


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
