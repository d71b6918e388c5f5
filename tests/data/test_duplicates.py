"""Examples that stand in two parts, counted as plain Python counts them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from subsettune.data import duplicates
from subsettune.data.duplicates import shared

RNG = np.random.default_rng(0)
PAIRS = [("b", "a"), ("c", "a"), ("c", "b"), ("a", "c")]


def oracle(inputs: np.ndarray, parts: dict[str, np.ndarray]) -> list[int]:
    """The slow twin: rows as tuples in sets."""
    rows = {name: [tuple(inputs[i].reshape(-1).tolist()) for i in index] for name, index in parts.items()}
    return [sum(row in set(rows[other]) for row in rows[one]) for one, other in PAIRS]


def thirds(num_rows: int) -> dict[str, np.ndarray]:
    order = np.random.default_rng(1).permutation(num_rows)
    return {"a": order[: num_rows // 2], "b": order[num_rows // 2 : num_rows // 4 * 3], "c": order[num_rows // 4 * 3 :]}


@pytest.mark.parametrize(
    "inputs",
    [
        RNG.integers(0, 3, (400, 3)).astype(np.float32),  # few values: many twins, several of each
        RNG.integers(0, 2, (300, 1, 3, 3)).astype(np.uint8),  # nine bytes: a word and a bit
        RNG.integers(0, 5, (300, 2)).astype(np.int32),
        RNG.integers(0, 2, (200, 1)).astype(np.uint8),
        np.float32([[2.0**e, sign] for e in range(-60, 60) for sign in (1, 2, 4)]),  # only high bits differ
        RNG.normal(size=(100, 4)).astype(np.float32),
        np.float32([[0.0, i // 4] if i % 2 else [-0.0, i // 4] for i in range(80)]),  # one number with two signs
    ],
)
@pytest.mark.parametrize("block", [duplicates.BLOCK_BYTES, 64])
def test_twins_are_those_that_sets_find(inputs: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK_BYTES", block)
    parts = thirds(len(inputs))
    assert shared(inputs, parts, PAIRS) == oracle(inputs, parts)


def test_rows_with_one_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_hashes", lambda _, rows: np.zeros(len(rows), dtype=np.uint64))
    inputs = np.arange(8, dtype=np.float32)[:, None]
    assert shared(inputs, {"a": np.arange(4), "b": np.arange(4, 8)}, [("b", "a")]) == [0]


def test_of_wide_rows_some_words_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_WORDS", 4)
    inputs = RNG.normal(size=(60, 100)).astype(np.float32)
    inputs[30:40] = inputs[:10]
    inputs[40] = inputs[11]
    inputs[40, 1] += 1  # in a word that is not hashed: found to differ all the same
    assert shared(inputs, {"a": np.arange(30), "b": np.arange(30, 60)}, [("b", "a")]) == [10]


def test_an_empty_part_has_no_twins() -> None:
    inputs = np.zeros((3, 2), np.float32)
    parts = {"a": np.arange(3), "b": np.arange(0)}
    assert shared(inputs, parts, [("b", "a"), ("a", "b")]) == [0, 0]


def test_memory_is_that_of_some_blocks() -> None:
    """NumPy tells tracemalloc of its arrays: 47 MB of images need less than a third of that, and 2 arrays of hashes."""
    inputs = np.zeros((60_000, 1, 28, 28), np.uint8)
    inputs[:, 0, 0, :4] = np.arange(60_000, dtype=np.uint32).view(np.uint8).reshape(-1, 4)
    parts = {"a": np.arange(50_000), "b": np.arange(50_000, 60_000)}
    tracemalloc.start()
    assert shared(inputs, parts, [("b", "a")]) == [0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * duplicates.BLOCK_BYTES < inputs.nbytes
