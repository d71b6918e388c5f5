"""Rows in memory as a task's data: standardised as the columns of tables are, and all of them trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from subsettune.data.encode import Normalizer
from subsettune.data.matrix import Standardizer, part_of, task_data
from subsettune.errors import DataError


def test_columns_are_standardised_as_those_of_tables() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([3.0, -100.0, 0.0], [2.0, 30.0, 1e-3], (50_000, 3))  # more than a block
    narrow = torch.from_numpy(x.astype(np.float32))
    as_tables = Normalizer.fit(narrow, torch.arange(len(x)))(narrow.clone())
    assert torch.allclose(Standardizer.fit(x)(x), as_tables, atol=1e-4)


def test_what_varies_on_an_offset_is_kept_and_noise_is_constant() -> None:
    x = np.stack([1e12 + np.arange(8.0), np.full(8, 7.0), np.tile([0.3, 0.1 + 0.2], 4)], axis=1)
    found = Standardizer.fit(x)(x)
    assert found.dtype == torch.float32
    assert found[:, 0].tolist() == pytest.approx(((np.arange(8) - 3.5) / np.arange(8).std()).tolist())
    assert found[:, 1].tolist() == [0.0] * 8
    assert found[:, 2].abs().max() < 1e-12  # 0.3 is all that float64 tells of it


def test_columns_of_0_and_1_stay_as_they_are() -> None:
    x = np.zeros((1000, 3))
    x[3, 0], x[5, 1], x[:, 2] = 1.0, 2.0, np.arange(1000) % 2
    standardizer = Standardizer.fit(x)
    assert np.array_equal(standardizer(x)[:, [0, 2]].numpy(), x[:, [0, 2]])
    assert standardizer(x)[5, 1] == pytest.approx(31.6, abs=0.1)  # a number, however rare
    assert standardizer(np.full((1, 3), 4.0))[0, 0] == 4.0


def test_numbers_whose_squares_are_none_are_refused() -> None:
    with pytest.raises(DataError, match=r"^column 1 must have a spread below 1e150, got a larger one. Choose another"):
        Standardizer.fit(np.array([[0.0, -1e200], [1.0, 1e200]]))


def test_all_rows_are_trained_on_and_targets_keep_what_varies_in_them() -> None:
    inputs = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    classes = task_data(inputs, np.array([0, 1, 2, 0, 1, 2]), ("a", "b", "c"))
    assert (classes.kind, classes.num_outputs, len(classes.train)) == ("classification", 3, 6)
    assert classes.class_counts.tolist() == [2, 2, 2]
    assert torch.equal(classes.train.batch(torch.tensor([4, 1]))[0], inputs[[4, 1]])
    values = task_data(inputs, 1e9 + np.arange(6.0), ())
    assert values.train.targets.dtype == torch.float64
    assert (values.target_mean, values.target_std) == (1e9 + 2.5, pytest.approx(np.arange(6).std()))
    several = task_data(inputs, np.ones((6, 3)), ())
    assert (several.kind, several.num_outputs, several.num_classes) == ("regression", 3, 0)
    assert len(part_of(inputs, torch.zeros(6))) == 6
