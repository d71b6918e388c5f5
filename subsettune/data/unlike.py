"""A test file that is unlike the training file: in another unit, with other words, or of another time.

Of files drawn alike hardly an example lies beyond all numbers of the other file, whatever their distribution. Where
most do, standardising by the training part makes of them what no network was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from subsettune.data.raw import Array, Raw

SHARE = 0.5  # of test examples that lie beyond the training file, from which on it is said
FEW_ROWS = 20  # of either file: with fewer, it may be chance in one of many columns
BLOCK_BYTES = 2**24  # looked at in one go


def unlike(raw: Raw, inputs: Array, targets: Array) -> tuple[dict[int, str], str]:
    """What most examples of the test file have and none of the training file has.

    Args:
        raw: as it was read.
        inputs: (n, ...) as they are stored.
        targets: (n,) classes, or (n,) or (n, m) values.

    Returns:
        Sentences, to be read after a column's name, by stored column, of images and series by 0; and one about the
        targets of a regression, empty for nothing.
    """
    num_train, first = raw.num_train, raw.num_train + raw.num_validation
    num_test = len(inputs) - first
    if min(num_train, num_test) < FEW_ROWS or raw.tokens:
        return {}, ""
    said = _labels(targets, num_train, first) if targets.ndim == 1 and targets.dtype.kind == "f" else ""
    columns = inputs.reshape(len(inputs), inputs.shape[1], -1)
    low, high = _range(columns[:num_train])
    beyond = _beyond(columns[first:], low, high)
    for j, names in enumerate(raw.categories):
        if names:
            codes = inputs[:, j].astype(np.int64)
            beyond[j] = (np.bincount(codes[:num_train], minlength=len(names)) == 0)[codes[first:]].sum()
    found = {}
    for j in np.flatnonzero(beyond > SHARE * num_test).tolist():
        if raw.categories and raw.categories[j]:
            found[j] = f"has in {beyond[j]:,} of {num_test:,} test examples a category that the training file lacks."
            continue
        ends = raw.scaling.restored(np.array([[low[j]], [high[j]]]), j)[:, 0]
        found[j] = _numbers(int(beyond[j]), num_test, float(ends[0]), float(ends[1]))
    if inputs.ndim > 2 and found:  # channels have no names of their own
        found = {0: next(iter(found.values()))}
    return found, said


def _labels(targets: Array, num_train: int, first: int) -> str:
    low, high = float(targets[:num_train].min()), float(targets[:num_train].max())
    rest = targets[first:]
    count = int(((rest < low) | (rest > high)).sum())
    return _numbers(count, len(rest), low, high) if count > SHARE * len(rest) else ""


def _numbers(count: int, num_test: int, low: float, high: float) -> str:
    digits = next((d for d in (4, 10) if f"{low:.{d}g}" != f"{high:.{d}g}"), 17)
    ends = f"{low:.{digits}g} to {high:.{digits}g}" if high > low else f"all {low:.4g}"
    return f"has in {count:,} of {num_test:,} test examples numbers beyond those of the training file, {ends}."


def _range(columns: Array) -> tuple[Array, Array]:
    """Least and largest number (c,) of each column or channel (n, c, places)."""
    ends = [(block.min(axis=(0, 2)), block.max(axis=(0, 2))) for block in _blocks(columns)]
    return np.min([each[0] for each in ends], axis=0), np.max([each[1] for each in ends], axis=0)


def _beyond(columns: Array, low: Array, high: Array) -> Array:
    """How many rows have a number beyond the ends of each column or channel."""
    count = np.zeros(len(low), dtype=np.int64)
    for block in _blocks(columns):
        least, most = (block[:, :, 0],) * 2 if block.shape[2] == 1 else (block.min(axis=2), block.max(axis=2))
        count += ((least < low) | (most > high)).sum(axis=0)
    return count


def _blocks(columns: Array) -> Iterator[Array]:
    step = max(1, BLOCK_BYTES // columns[0].nbytes)
    return (columns[start : start + step] for start in range(0, len(columns), step))
