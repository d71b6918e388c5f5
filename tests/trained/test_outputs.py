"""Outputs in the user's words, and the user's labels as targets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from subsettune.errors import DataError
from subsettune.trained.outputs import Outputs
from subsettune.trained.rows import Rows

NAMES = Outputs(label="label", kind="classification", classes=("cat", "dog", "eel"))
NUMBERS = Outputs(label="label", kind="classification", classes=("0", "1", "2"), are_numbers=True)
SIGNED = Outputs(label="label", kind="classification", classes=("-1", "1"), are_numbers=True)
BOOLEANS = Outputs(label="label", kind="classification", classes=("0", "1"), are_numbers=True, are_booleans=True)
VALUE = Outputs(label="label", kind="regression", mean=(100.0,), std=(10.0,))
VALUES = Outputs(label="label", kind="regression", mean=(1.0, 2.0), std=(1.0, 10.0), is_single=False, are_wide=True)
LOGITS = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]])


def rows(labels: Any, metadata: dict[str, str] | None = None) -> Rows:
    table = pa.table({"label": labels})
    return Rows(table=table if metadata is None else table.replace_schema_metadata(metadata), where="f.parquet")


def targets(outputs: Outputs, labels: Any, metadata: dict[str, str] | None = None) -> Any:
    given = rows(labels, metadata)
    return outputs.targets(outputs.labels_in(given), given).tolist()


def test_predictions_are_in_the_words_of_the_data() -> None:
    assert NAMES.words(LOGITS).tolist() == ["dog", "cat"]
    assert NUMBERS.words(LOGITS).tolist() == [1, 0]
    assert SIGNED.words(LOGITS[:, :2]).tolist() == [1, -1]
    assert BOOLEANS.words(LOGITS[:, :2]).tolist() == [True, False]
    assert VALUE.words(VALUE.in_units(torch.tensor([[0.5], [-1.0]]))).tolist() == [105.0, 90.0]
    assert VALUES.words(VALUES.in_units(torch.tensor([[0.5, -1.0]]))).tolist() == [[1.5, -8.0]]
    assert [outputs.num_outputs for outputs in (NAMES, SIGNED, VALUE, VALUES)] == [3, 2, 1, 2]


def test_probabilities_add_up_to_one() -> None:
    found = NAMES.probabilities(LOGITS)
    assert found.dtype == np.float64
    assert np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)
    with pytest.raises(DataError, match="probabilities are those of classes, and this model predicts values"):
        VALUE.probabilities(torch.zeros(1, 1))


def test_labels_go_by_their_names() -> None:
    hub = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["eel", "cat", "dog"]}}}})}
    assert targets(NAMES, ["eel", " cat "]) == [2, 0]
    assert targets(NAMES, [0, 2]) == [0, 2]
    assert targets(NAMES, [0, 2], hub) == [2, 1]
    assert targets(NAMES, pa.array(["dog"]).dictionary_encode().cast(pa.string())) == [1]
    assert targets(NUMBERS, [2, 0]) == [2, 0]
    assert targets(NUMBERS, [2.0, 0.0]) == [2, 0]
    assert targets(NUMBERS, ["2", "1.0"]) == [2, 1]
    assert targets(SIGNED, [1, -1]) == [1, 0]
    assert targets(BOOLEANS, [True, False]) == [1, 0]
    assert targets(VALUE, [1, 2]) == [1.0, 2.0]
    assert targets(VALUES, [[1.0, 2.0]]) == [[1.0, 2.0]]


def test_a_column_of_gaps_is_no_label() -> None:
    assert NAMES.labels_in(rows(pa.nulls(2, pa.string()))) is None
    assert NAMES.labels_in(Rows(table=pa.table({"other": [1]}))) is None
    assert NAMES.labels_in(Rows(array=np.eye(2))) is None


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (
            NAMES,
            ["cat", "cow"],
            "labels in 'label' must be classes that the model knows (cat, dog, eel), got 'cow' in f",
        ),
        (NAMES, ["Dog"], "got 'Dog' in f.parquet. Did you mean 'dog'? Drop the column, or such rows."),
        (NAMES, [3], "must be classes that the model knows (cat, dog, eel), got 3 in f.parquet."),
        (NUMBERS, [-1], "must be classes that the model knows (0, 1, 2), got -1 in f.parquet."),
        (NUMBERS, [0.5], "must be classes that the model knows (0, 1, 2), got 0.5 in f.parquet."),
        (SIGNED, [0], "must be classes that the model knows (-1, 1), got 0 in f.parquet."),
        (NAMES, ["01"], "got '01' in f.parquet."),
        (
            NAMES,
            ["cat", None],
            "labels must be there in every row or in none, got nothing for 'label' in row 1 of f.par",
        ),
        (VALUE, ["a"], "labels in 'label' of f.parquet must be numbers: "),
        (
            VALUE,
            [1.0, None],
            "labels in 'label' of f.parquet must be finite numbers of shape (2,), got others. Drop the",
        ),
        (
            VALUES,
            [1.0, 2.0],
            "labels in 'label' of f.parquet must be finite numbers of shape (2, 2), got shape (2,). Dr",
        ),
    ],
)
def test_labels_that_are_none_of_the_model(outputs: Outputs, labels: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        targets(outputs, labels)
    assert message in str(caught.value)


def test_labels_must_be_as_many_as_rows() -> None:
    with pytest.raises(DataError, match=r"labels must be as many as the rows, got 1 and 2. Mend them."):
        NAMES.targets(["cat"], Rows(array=np.eye(2)))
