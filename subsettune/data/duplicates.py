"""Examples that stand in two parts: what was trained on is no test of what was learnt.

Rows are hashed a block at a time, and those with one hash are compared number by number, so that none is counted that
is not there twice. Of very wide rows some words are hashed, evenly spaced.

Symbols: n rows, w words of 8 bytes that are hashed of each.
"""

from __future__ import annotations

import numpy as np

from subsettune.data.raw import Array

BLOCK_BYTES = 2**23
MOST_WORDS = 1024  # of a row; 60,000 MNIST images have 98 and take 0.1 s


def shared(inputs: Array, parts: dict[str, Array], pairs: list[tuple[str, str]]) -> list[int]:
    """How many rows of one part have a twin in another, equal in every number; every row is hashed once.

    Args:
        inputs: (n_all, ...) as they are stored, C-contiguous.
        parts: (n,) int64 rows of each part.
        pairs: whose rows are counted, and with which part they are compared.

    Returns:
        A number for each pair.
    """
    hashes = {name: _hashes(inputs, rows) for name, rows in parts.items()}
    return [_count(inputs, (parts[a], hashes[a]), (parts[b], hashes[b])) for a, b in pairs]


def _count(inputs: Array, mine: tuple[Array, Array], theirs: tuple[Array, Array]) -> int:
    rows, keys = mine
    others, known = theirs
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], keys).clip(0, max(0, len(known) - 1))
    if not len(known):
        return 0
    twin = order[place]
    candidates = np.flatnonzero(known[twin] == keys)
    count, step = 0, max(1, BLOCK_BYTES // inputs[0].nbytes)
    for start in range(0, len(candidates), step):
        some = candidates[start : start + step]
        same = inputs[rows[some]] == inputs[others[twin[some]]]
        count += int(same.reshape(len(some), -1).all(axis=1).sum())
    return count


def _hashes(inputs: Array, rows: Array) -> Array:
    """(n,) uint64: sums of the words of each row, each mixed and times an odd number of its place."""
    num_bytes = inputs[0].nbytes
    num_words = -(-num_bytes // 8)
    chosen = np.linspace(0, num_words - 1, min(num_words, MOST_WORDS)).astype(np.int64)
    factors = np.random.default_rng(0).integers(0, 2**63, len(chosen), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(rows), dtype=np.uint64)
    step = max(1, BLOCK_BYTES // num_bytes)
    for start in range(0, len(rows), step):
        block = np.ascontiguousarray(inputs[rows[start : start + step]]).reshape(-1)
        block = block + np.float32(0) if block.dtype == np.float32 else block  # -0 equals 0, and has other bits
        flat = block.view(np.uint8).reshape(-1, num_bytes)
        if num_bytes % 8:
            flat = np.pad(flat, ((0, 0), (0, 8 * num_words - num_bytes)))
        words = flat.view(np.uint64)
        if len(chosen) < num_words:
            words = words[:, chosen]
        mixed = words ^ (words >> np.uint64(32))  # high bits, which alone differ in round numbers, reach the low ones
        hashes[start : start + step] = (mixed * factors).sum(axis=1, dtype=np.uint64)
    return hashes
