"""Texts as rows of token ids: 0 is padding, 1 an unknown word, and then come the words of the training file.

Words are what is left of a text in lower case between whitespace and punctuation; each punctuation mark is a word of
its own, and so are signs that combine with letters: of languages that need these (Hindi, Thai), take the bytes. Bytes
are those of UTF-8, 1 more than their values, and none is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from subsettune.data.raw import Array
from subsettune.data.scratch import allocate
from subsettune.errors import DataError
from subsettune.task import Data

PADDING, UNKNOWN = 0, 1
SPECIAL_WORDS = 2  # padding and unknown
WORD = re.compile(r"\w+|[^\w\s]")

Blocks = Callable[[], Iterator[tuple[int, pa.Array]]]


def num_tokens(tokens: str, vocabulary: Sequence[str]) -> int:
    """Token ids that there are, padding included."""
    return 1 + 256 if tokens == "bytes" else SPECIAL_WORDS + len(vocabulary)


def words(text: str) -> Iterator[str]:
    """The words of a text, in order: runs of letters, digits and underscores, and single other signs, in lower case."""
    return (found[0] for found in WORD.finditer(text.lower()))


def read_texts(blocks: Blocks, num_rows: int, num_train: int, data: Data, scratch: Path) -> tuple[Array, list[str]]:
    """Token ids of a column of texts, which is read twice.

    Args:
        blocks: gives the column from the beginning, block by block, each with the number of its first row.
        num_rows: of all files.
        num_train: of the training file, whose rows come first; they make the vocabulary, and the longest of them, or
            `max_tokens`, the length. Which of these words a task tells apart, its training part says: `TokenIds`.
        data: column, tokens and max_tokens.
        scratch: folder for large arrays.

    Returns:
        ids (n, t) int32, and the words that have the ids 2, 3, ...; none for bytes.

    Raises:
        DataError: a text is missing, or has no token.
    """
    counts, length = _survey(blocks, num_train, data)
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    places = {word: place for place, word in enumerate(vocabulary, start=SPECIAL_WORDS)}
    inputs = allocate((num_rows, length), np.int32, scratch)
    for row, text in _texts(blocks, data):
        ids = ids_of(text, data.tokens, places, length)
        if not ids:
            raise DataError(
                f"texts must not be empty, got {text!r} in column {data.text!r}, row {row}. Drop such rows."
            )
        inputs[row, : len(ids)] = ids
        inputs[row, len(ids) :] = PADDING
    return inputs, vocabulary


def _survey(blocks: Blocks, num_train: int, data: Data) -> tuple[Counter[str], int]:
    """How often each word stands in the training file, and the tokens of its longest text, `max_tokens` at most."""
    counts: Counter[str] = Counter()
    longest = 1
    for row, text in _texts(blocks, data):
        if row >= num_train:
            break
        if data.tokens == "bytes":
            longest = max(longest, len(text.encode()))
            continue
        found = list(words(text))
        counts.update(found)
        longest = max(longest, len(found))
    return counts, min(longest, data.max_tokens)


def ids_of(text: str, tokens: str, places: Mapping[str, int], length: int) -> list[int]:
    """The first token ids of a text, `length` of them at most.

    Args:
        text: to be cut up.
        tokens: into `words` or `bytes`.
        places: the ids of words; all others are unknown.
        length: the most ids.
    """
    if tokens == "bytes":
        return [1 + byte for byte in text.encode()[:length]]
    return [places.get(word, UNKNOWN) for word in islice(words(text), length)]


def _texts(blocks: Blocks, data: Data) -> Iterator[tuple[int, str]]:
    for first, column in blocks():
        for row, text in enumerate(column.to_pylist(), start=first):
            if text is None:
                raise DataError(
                    f"texts must be there, got nothing in column {data.text!r}, row {row}. Fill it, or drop such rows."
                )
            yield row, text
