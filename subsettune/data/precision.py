"""Numbers as float32 that keep what varies in them: less a shift, and by a power of two, where float32 alone would not.

Unix times, numbers of customers and features on a large offset vary in digits that float32 does not hold; values beyond
its range become infinite or zero. Such a column is stored as `(value - shift) / 2**exponent`, which standardising
undoes: networks see what they would see of exact numbers. Others, which float32 holds well enough, are stored as they
are.

Symbols: n rows, b of them in a block, c columns (channels of images), s their standard deviations in the training file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.errors import DataError

ROUNDING = 2.0**-14  # of s, that a stored number may be off: a network does not see it
LEAST, MOST = 2.0**-100, 2.0**100  # of s, and of numbers, that float32 standardises without loss
NOISE = 2.0**-50  # s as a share of the largest number: such a column varies in the last digits of float64 only
COARSE = 2.0**-18  # range as a share of the largest number: float32 tells at most 64 values apart there
FAR = 2.0**10  # largest target by s: beyond, predictions in float32 are rounded by more than `ROUNDING`
SQUARES = 2.0**500  # of s: squared errors beyond it, or below its inverse, leave float64
EXACT = 2.0**53  # whole numbers up to it are float64
EXACT_TYPES = ("bool", "int8", "uint8", "int16", "uint16", "float16")  # float32 holds each of their values
BLOCK_BYTES = 2**21  # of float64 looked at in one go: fits the cache of a core

Array = np.ndarray[Any, Any]
Number = int | float
Blocks = Callable[[], Iterator[tuple[int, int, Array]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How columns are stored; empty where all are stored as they are.

    Args:
        shift: of each column, in its units.
        exponent: of each column, of 2.
        notes: sentences about columns that are not what they seem.
    """

    shift: tuple[Number, ...] = ()
    exponent: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def restored(self, stored: Array, first: int = 0) -> Array:
        """(b, c, ...) float64 numbers in the units of the source, as float64 holds them, of (b, c, ...) stored ones.

        Args:
            stored: some columns.
            first: the first of them.
        """
        if not self.shift:
            return stored.astype(np.float64)
        form, end = (-1, *[1] * (stored.ndim - 2)), first + stored.shape[1]
        shift = np.array([float(number) for number in self.shift[first:end]]).reshape(form)
        return np.asarray(np.ldexp(stored.astype(np.float64), np.array(self.exponent[first:end]).reshape(form)) + shift)


class Spreads:
    """Mean, spread and size of columns, and what float32 makes of them, block by block.

    Sums are taken of differences to a number of the column, exact for whole numbers of 64 bits too, and scaled, so that
    squares of very large and very small ones stay within float64.

    Args:
        num_columns: c.
    """

    def __init__(self, num_columns: int) -> None:
        zeros = np.zeros(num_columns)
        self.origin: list[Number] = []
        self.scale = zeros.astype(np.int64)  # exponents of the sums
        self.is_set = zeros.astype(bool)  # whether a column has its scale
        self.count, self.first, self.second = zeros.copy(), zeros.copy(), zeros.copy()
        self.largest, self.error = zeros.copy(), zeros.copy()
        self.is_float = False

    def add(self, values: Array) -> None:
        """Take in (b, c) numbers of one type; what is not finite is passed over."""
        step = max(1, BLOCK_BYTES // (8 * max(1, values.shape[1])))
        for start in range(0, len(values), step):
            self._add(values[start : start + step])

    def _add(self, values: Array) -> None:
        finite = np.isfinite(values)
        if not self.origin:
            first = np.where(finite[0], values[0], np.zeros((), values.dtype))
            self.origin = (first.astype(np.float64) if values.dtype.kind == "f" else first).tolist()
        self.is_float = self.is_float or values.dtype.kind == "f"
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.where(finite, less(values, self.origin), 0.0)
            wide = np.where(finite, values, np.zeros((), values.dtype)).astype(np.float64)
            rounding = np.where(finite, np.abs(wide - wide.astype(np.float32) + _beyond_float64(values, wide)), 0.0)
            most = np.abs(difference).max(axis=0)
            fresh = ~self.is_set & (most > 0)
            self.scale[fresh], self.is_set[fresh] = np.frexp(most[fresh])[1], True
            scaled = np.ldexp(difference, -self.scale)
            self.count += finite.sum(axis=0)
            self.first += scaled.sum(axis=0)
            self.second += np.square(scaled).sum(axis=0)
        self.error = np.maximum(self.error, rounding.max(axis=0))
        self.largest = np.maximum(self.largest, np.abs(wide).max(axis=0))

    @property
    def _means(self) -> Array:
        return self.first / np.maximum(1.0, self.count)

    @property
    def std(self) -> Array:
        """(c,) s; 0 where nothing varies."""
        variance = self.second / np.maximum(1.0, self.count) - np.square(self._means)
        return np.asarray(np.ldexp(np.sqrt(np.maximum(0.0, variance)), self.scale))

    @property
    def mean(self) -> list[Number]:
        """Near the means: whole numbers for columns of such."""
        offsets = np.ldexp(self._means, self.scale).tolist()
        return [
            origin + offset if self.is_float else int(origin) + round(offset)
            for origin, offset in zip(self.origin, offsets, strict=True)
        ]

    @property
    def is_noise(self) -> Array:
        """(c,) whether a column varies in the last digits of float64 only."""
        return (self.std > 0) & (self.std < NOISE * self.largest) & self.is_float

    @property
    def is_lost(self) -> Array:
        """(c,) whether float32 loses something of what varies."""
        std = self.std
        lost = (self.error > ROUNDING * std) | (std < LEAST) | (self.largest > MOST)
        return np.where(std > 0, lost, ~np.isfinite(self.error))

    @property
    def exponent(self) -> Array:
        """(c,) exponents of 2 by which columns are stored smaller: 0 where float32 has room for them."""
        std = self.std
        fits = (std == 0) | ((std >= LEAST) & (self.largest <= MOST))
        return np.where(fits, 0, np.frexp(std)[1])


def less(values: Array, origin: Sequence[Number]) -> Array:
    """(b, c) float64 differences of numbers to those of their columns; of whole ones exact before they are rounded."""
    near: Array = values.astype(np.float64) - np.array([float(number) for number in origin])
    if values.dtype.kind not in "iu":
        return near
    bits = np.array([int(number) % 2**64 for number in origin], np.uint64).view(np.int64)
    wide = np.ascontiguousarray(values.astype(np.uint64 if values.dtype.kind == "u" else np.int64))
    beyond = np.array([float(number) - int(number) for number in origin])  # of a column that is not whole in all files
    exact: Array = (wide.view(np.int64) - bits).astype(np.float64) - beyond
    return np.asarray(np.where(np.abs(near) < 2.0**62, exact, near))


def _beyond_float64(values: Array, wide: Array) -> Array | float:
    """What float64 has rounded away of whole numbers (b, c), which it gives as `wide`: 0 up to 2 ** 53."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or np.abs(wide).max() <= EXACT:
        return 0.0
    high = np.floor(wide / 2.0**32)  # in halves: 2 ** 63 and 2 ** 64, to which some are rounded, fit no type
    whole = (high.astype(np.int64).view(np.uint64) << np.uint64(32)) + (wide - high * 2.0**32).astype(np.uint64)
    return np.asarray((values.astype(np.uint64, copy=False) - whole).view(np.int64).astype(np.float64))


def kept(inputs: Array, blocks: Blocks, num_train: int, names: Sequence[str] = ()) -> Scaling:
    """Store anew the columns of which float32 loses what varies.

    Args:
        inputs: (n, c, ...) float32, overwritten where needed.
        blocks: gives exact numbers from the beginning: row and column where a block (b, columns, ...) begins. Columns
            that it does not give are stored as they are.
        num_train: rows of the training file, which decide; they come first.
        names: of the columns, for the notes.

    Returns:
        How the columns are stored now.
    """
    spreads, coarse = _surveyed(blocks, num_train)
    shift: list[Number] = [0] * inputs.shape[1]
    exponent = [0] * inputs.shape[1]
    notes = [*_coarse_notes(coarse, names)]
    for left, spread in spreads.items():
        lost, noise = spread.is_lost & ~spread.is_noise, spread.is_noise
        for j in np.flatnonzero(lost).tolist():
            shift[left + j], exponent[left + j] = spread.mean[j], int(spread.exponent[j])
        notes += [_noise_note(_called(left + j, names), spread, j) for j in np.flatnonzero(noise).tolist()]
    changed = {left: spread for left, spread in spreads.items() if (spread.is_lost | spread.is_noise).any()}
    for row, left, block in blocks() if changed else ():
        if left in changed:
            _store(inputs[row : row + len(block), left : left + block.shape[1]], block, changed[left])
    if not any(shift) and not any(exponent):
        return Scaling(notes=tuple(notes))
    return Scaling(shift=tuple(shift), exponent=tuple(exponent), notes=tuple(notes))


def refuse_lost(blocks: Blocks, num_train: int, what: str) -> None:
    """Refuse numbers of which float32 loses what varies, where what they are large by matters too.

    Raises:
        DataError: there are such.
    """
    for left, spreads in _surveyed(blocks, num_train)[0].items():
        for j in np.flatnonzero(spreads.is_lost & (spreads.std > 0)).tolist()[:1]:
            raise DataError(
                f"{what} must vary in digits that float32 holds, got a spread of {spreads.std[j]:.2g} at a size of "
                f"{spreads.largest[j]:.3g} in place {left + j}. Subtract a constant from them, or choose another unit."
            )


def _surveyed(blocks: Blocks, num_train: int) -> tuple[dict[int, Spreads], dict[int, Array]]:
    """Spreads of groups of columns by the first of each, and the ranges (2, c) of those that are float32 already.

    What is float32 already is looked at in full only where it is too small or too large to be standardised as it is:
    few columns are, and it takes time.
    """
    spreads: dict[int, Spreads] = {}
    ranges: dict[int, Array] = {}
    for block, left in _training(blocks, num_train):
        if block.dtype != np.float32:
            spreads.setdefault(left, Spreads(block.shape[1])).add(block)
            continue
        low, high = ranges.get(left, np.full((2, block.shape[1]), [[np.inf], [-np.inf]]))
        ranges[left] = np.stack([np.fmin(low, block.min(axis=0)), np.fmax(high, block.max(axis=0))]).astype(np.float64)
    odd = {left for left, (low, high) in ranges.items() if _is_odd(low, high).any()} - set(spreads)
    for block, left in _training(blocks, num_train) if odd else ():
        if left in odd:
            spreads.setdefault(left, Spreads(block.shape[1])).add(block)
    return spreads, ranges


def _training(blocks: Blocks, num_train: int) -> Iterator[tuple[Array, int]]:
    """Training rows (b, c) of the blocks that float32 may not hold; pixels of images are rows of their channel."""
    for row, left, block in blocks():
        some = block[: max(0, num_train - row)]
        if some.size and str(block.dtype) not in EXACT_TYPES:
            yield (some if some.ndim == 2 else np.moveaxis(some, 1, -1).reshape(-1, some.shape[1])), left


def _is_odd(low: Array, high: Array) -> Array:
    varies = high > low
    return varies & ((high - low < LEAST * 2.0**10) | (np.maximum(np.abs(low), np.abs(high)) > MOST))


def _store(place: Array, block: Array, spreads: Spreads) -> None:
    """Write a block (b, c, ...) anew where it needs it."""
    mean, exponent, noise = spreads.mean, spreads.exponent, spreads.is_noise
    for j in np.flatnonzero(spreads.is_lost | noise).tolist():
        exact = block[:, j].reshape(-1, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is found, and refused, with its place
            stored = np.ldexp(less(exact, [mean[j]]), -int(exponent[j]))
            if noise[j]:
                stored = np.where(np.isfinite(exact), np.float64(mean[j]), np.nan)
            place[:, j] = stored.reshape(place[:, j].shape)


def _noise_note(called: str, spreads: Spreads, j: int) -> str:
    return (
        f"{called} varies by {spreads.std[j]:.1g} at a size of {spreads.largest[j]:.3g}, in the last digits that "
        "float64 holds, and is taken as constant. Subtract a constant before it is written, or leave it out."
    )


def _coarse_notes(ranges: dict[int, Array], names: Sequence[str]) -> Iterator[str]:
    for left, (low, high) in ranges.items():
        size = np.maximum(np.abs(low), np.abs(high))
        for j in np.flatnonzero((high > low) & (high - low < COARSE * size)).tolist():
            values = round(float((high[j] - low[j]) / np.spacing(np.float32(size[j])))) + 1
            yield (
                f"{_called(left + j, names)} holds float32 numbers between {low[j]:.10g} and {high[j]:.10g}, where "
                f"float32 tells {values} values apart. If they were more exact once, write them as float64."
            )


def _called(column: int, names: Sequence[str]) -> str:
    return f"column {names[column]!r}" if names else f"input {column}"


def targets(labels: Array, num_train: int) -> Array:
    """Values of a regression as they are stored: float32, or float64 where it tells more apart of what varies.

    Metrics are taken in the units of the values, from predictions in the type that they are stored in: numbers that are
    large beside their spread are float64 even where float32 holds them, as it does not hold what is predicted of them.

    Args:
        labels: (n,) or (n, m) finite numbers.
        num_train: rows of the training file, which decide.

    Returns:
        float32 or float64, C-contiguous.

    Raises:
        DataError: they vary in digits that float64 does not hold, or their squares are no numbers of float64.
    """
    train = labels[:num_train].reshape(num_train, -1)
    spreads = Spreads(train.shape[1])
    spreads.add(train.astype(np.uint8) if train.dtype.kind == "b" else train)
    for j in range(train.shape[1]):
        _refuse_unheld(train[:, j : j + 1], spreads, j, f" of target {j}" if labels.ndim == 2 else "")
    with np.errstate(over="ignore"):
        narrow = labels.astype(np.float32)
    is_far = (spreads.std > 0) & (spreads.largest > FAR * spreads.std)
    is_wide = bool((spreads.is_lost | is_far).any()) or not bool(np.isfinite(narrow).all())
    return np.ascontiguousarray(labels.astype(np.float64) if is_wide else narrow)


def _refuse_unheld(values: Array, spreads: Spreads, j: int, which: str) -> None:
    std, origin = float(spreads.std[j]), spreads.origin[j]
    rounding = np.abs(less(values, [origin]) - (values.astype(np.float64) - float(origin))).max()
    if spreads.is_noise[j] or (std > 0 and rounding > ROUNDING * std):
        raise DataError(
            f"labels{which} must vary in digits that float64 holds, got a spread of {std:.2g} at a size of "
            f"{spreads.largest[j]:.3g}. Subtract a constant from them."
        )
    if std > 0 and not 1 / SQUARES < std < SQUARES:
        raise DataError(
            f"labels{which} must have a spread between {1 / SQUARES:.0e} and {SQUARES:.0e}, got {std:.2g}. Choose "
            "another unit."
        )
