"""Texts, pictures, series, ids and arrays as a network's input: as in training, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from subsettune.errors import DataError
from subsettune.trained.examples import Examples, Text
from subsettune.trained.rows import Rows, rows_of

WORDS = Text(column="text", tokens="words", vocabulary=("the", "film", "!"), length=4)
BYTES = Text(column="text", tokens="bytes", length=3)
PICTURES = Examples(name="image", is_image=True, type="uint8", shape=(3, 4, 4), mean=(1.0,) * 3, scale=(2.0,) * 3)
FLAT = Examples(name="x", type="float32", shape=(2,), mean=(1.0, 2.0), scale=(1.0, 0.5))
SERIES = Examples(
    name="x", layout="series", type="float32", shape=(2, 3), mean=(0.0, 0.0), scale=(1.0, 1.0), shift=(10, 20),
    exponent=(1, 0),
)  # fmt: skip
IDS = Examples(name="x", layout="tokens", type="ids", shape=(4,), num_ids=9)


def png(image: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(inputs: Text | Examples, given: Any) -> Any:
    stored, _ = inputs.stored(rows_of(given, inputs.wanted("label")))
    return inputs.encoder()(stored)


def test_texts_are_cut_into_the_words_that_training_knew() -> None:
    found = encoded(WORDS, ["The film!", "a FILM the the the the"])
    assert found.tolist() == [[2, 3, 4, 0], [1, 3, 2, 2]]
    assert (WORDS.num_tokens, WORDS.shape) == (5, (4,))


def test_texts_of_no_known_word_are_counted() -> None:
    _, warnings = WORDS.stored(rows_of(["the film", "un flim"], WORDS.wanted("label")))
    assert warnings == ("1 of 2 texts have no word that the training part had: nothing is known of them.",)


def test_bytes_of_texts() -> None:
    assert encoded(BYTES, ["ab", "ä!x"]).tolist() == [[98, 99, 0], [0xC3 + 1, 0xA4 + 1, 34]]
    assert BYTES.num_tokens == 257


def test_pictures_encoded_or_as_arrays() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    expected = (torch.from_numpy(image.transpose(2, 0, 1)).float()[None] - 1) * 2
    assert torch.equal(encoded(PICTURES, {"image": pa.array([{"bytes": png(image), "path": "a"}])}), expected)
    assert torch.equal(encoded(PICTURES, pa.table({"image": [png(image)]})), expected)
    assert torch.equal(encoded(PICTURES, image[None]), expected)
    assert torch.equal(encoded(PICTURES, [Image.fromarray(image)]), expected)


def test_arrays_and_lists() -> None:
    assert encoded(FLAT, np.array([[1, 2], [3, 6]])).tolist() == [[0, 0], [2, 2]]
    assert encoded(FLAT, pa.table({"x": [[1.0, 2.0], [3.0, 6.0]]})).tolist() == [[0, 0], [2, 2]]


def test_series_that_were_shifted_in_training() -> None:
    given = np.array([[[10.0, 12, 14], [20, 21, 22]]])
    assert encoded(SERIES, given).tolist() == [[[0, 1, 2], [0, 1, 2]]]
    assert encoded(SERIES, pa.table({"x": given.tolist()})).tolist() == [[[0, 1, 2], [0, 1, 2]]]


def test_ids_are_filled_up_as_in_training() -> None:
    assert encoded(IDS, np.array([[1, 2, 3, 8]])).tolist() == [[1, 2, 3, 8]]
    assert encoded(IDS, pa.table({"x": [[1, 2], [3, 4, 5, 6]]})).tolist() == [[1, 2, 0, 0], [3, 4, 5, 6]]
    assert encoded(IDS, pa.table({"x": [[1, 2]]})).dtype == torch.int64


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (
            WORDS,
            pa.table({"text": ["a", None]}),
            "texts must not be empty, got nothing in column 'text', row 1 of the r",
        ),
        (
            WORDS,
            pa.table({"text": [" "]}),
            "texts must not be empty, got ' ' in column 'text', row 0 of the rows. Drop",
        ),
        (WORDS, pa.table({"text": [1]}), "column 'text' must hold texts, as in training, got int64 in the rows."),
        (
            WORDS,
            pa.table({"txt": ["a"]}),
            "the rows must have the column 'text', which the model was trained on. Did you",
        ),
        (
            WORDS,
            Rows(array=np.eye(2)),
            "the rows must have the column 'text', which the model was trained on, got an ar",
        ),
        (FLAT, np.zeros((1, 3)), "examples must be of shape (2,), as in training, got (3,) in the rows."),
        (
            FLAT,
            np.zeros((1, 2), np.uint8),
            "examples must be numbers of another type than uint8, as in training, got ui",
        ),
        (FLAT, np.array([[1, np.nan]]), "the rows must hold finite numbers, got NaN or infinity in row 0."),
        (
            FLAT,
            pa.table({"x": ["a"]}),
            "examples must be lists of numbers, or encoded pictures, got string in the rows.",
        ),
        (
            FLAT,
            pa.table({"x": [[1.0], [2.0]]}),
            "examples must be of shape (2,), as in training, got (1,) in the rows.",
        ),
        (PICTURES, np.zeros((1, 3, 4, 4)), "examples must be uint8, as in training, got float64 in the rows."),
        (PICTURES, pa.table({"image": [b"no"]}), "image in row 0 of the rows cannot be decoded: "),
        (
            PICTURES,
            pa.table({"image": [None, b""]}),
            "column 'image' must hold encoded bytes, got nothing in row 0 of th",
        ),
        (
            PICTURES,
            pa.table({"image": [png(np.zeros((5, 4, 3), np.uint8))]}),
            "inputs must have one shape, got (3, 4, 4) and (3, 5, 4) (row 0 of the rows; the first shape is that of tr",
        ),
        (
            IDS,
            np.array([[1, 2, 3, 9]]),
            "examples must be token ids below 9, those that training had, got 9 in the rows.",
        ),
        (IDS, np.array([[1, 2, 3, -1]]), "token ids must be in [0, 16,777,216), got -1 (the rows)."),
        (IDS, np.array([[1.5, 2, 3, 4]]), "token ids must be whole numbers, got float64 (the rows)."),
        (
            IDS,
            pa.table({"x": [[1, 2, 3, 4, 5]]}),
            "examples must be at most 4 ids long, as in training, got 5 in the ro",
        ),
    ],
)
def test_what_is_otherwise_than_in_training_is_refused(inputs: Text | Examples, given: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        inputs.stored(rows_of(given, inputs.wanted("label")))
    assert str(caught.value).startswith(message)
