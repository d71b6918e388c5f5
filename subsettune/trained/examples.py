"""Inputs that are one thing each: a text, a picture, a series, a row of token ids, an array of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from subsettune import config
from subsettune.config import AT_LEAST_ONE, setting
from subsettune.data import precision
from subsettune.data.categories import is_text
from subsettune.data.encode import PLACES, Normalizer, TokenIds
from subsettune.data.images import check_shape, decode
from subsettune.data.layout import arranged, arranged_image, check_ids
from subsettune.data.lists import as_array, depth, numbers_of, padded
from subsettune.data.parquet_files import is_image, is_number
from subsettune.data.raw import Array
from subsettune.data.text import PADDING, SPECIAL_WORDS, UNKNOWN, ids_of
from subsettune.errors import DataError
from subsettune.trained.rows import Rows, Wanted
from subsettune.trained.table import found_in

Stored = tuple[Tensor, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Inputs that are texts.

    Args:
        column: that holds them.
        tokens: what they are cut into.
        vocabulary: the words that are told apart, in the order of their ids; empty for bytes.
        length: tokens of an example as the network gets it; longer texts are cut.
    """

    form: Literal["text"] = "text"
    column: str
    tokens: Literal["words", "bytes"]
    vocabulary: tuple[str, ...] = ()
    length: int = setting(rule=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example as the network gets it."""
        return (self.length,)

    @property
    def num_tokens(self) -> int:
        """Ids that there are, padding and unknown included."""
        return 1 + 256 if self.tokens == "bytes" else SPECIAL_WORDS + len(self.vocabulary)

    def wanted(self, label: str) -> Wanted:
        """What it looks for in rows."""
        return Wanted(columns=(self.column,), label=label, is_text=True)

    def stored(self, rows: Rows) -> Stored:
        """(n, length) int32 token ids, and a sentence where texts have no word that training knew.

        Raises:
            DataError: the column is missing, holds no texts, or an empty one.
        """
        column, field = found_in(rows, self.column)
        if not is_text(field.type):
            raise DataError(
                f"column {self.column!r} must hold texts, as in training, got {field.type} in {rows.where}. Convert it."
            )
        places = {word: i for i, word in enumerate(self.vocabulary, start=SPECIAL_WORDS)}
        ids = np.full((len(column), self.length), PADDING, dtype=np.int32)
        for row, text in enumerate(column.to_pylist()):
            found = [] if text is None else ids_of(text, self.tokens, places, self.length)
            if not found:
                got = "nothing" if text is None else repr(text)
                raise DataError(
                    f"texts must not be empty, got {got} in column {self.column!r}, {rows.place(row)}. Drop such rows."
                )
            ids[row, : len(found)] = found
        strange = int((ids <= UNKNOWN).all(axis=1).sum()) if self.tokens == "words" else 0
        said = f"{strange:,} of {len(ids):,} texts have no word that the training part had: nothing is known of them."
        return torch.from_numpy(ids), (said,) if strange else ()

    def encoder(self) -> TokenIds:
        """What makes the network's input of stored rows: the ids are those that it knows."""
        return TokenIds(torch.arange(self.num_tokens), self.length, self.num_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Inputs that are arrays: pictures, series, flat numbers, token ids.

    Args:
        name: of the column or array that holds them.
        is_image: whether they are pictures, which a file holds encoded.
        layout: what the task says that an example is; null for what its shape says.
        type: that they are stored in: `uint8` (bytes of pictures, mostly), `float32`, or `ids`.
        shape: of one example as the network gets it.
        mean: of each channel, or of each number, as stored; empty of ids.
        scale: 1 / standard deviation, likewise.
        shift: what is taken away of each channel or number before it is stored; empty where nothing is.
        exponent: of 2, by which it is then divided.
        num_ids: one more than the largest id that the network knows; 0 where there are none.
        resize: height and width that pictures get; empty where they keep their own.
        color: what pictures become; null for what they are.
    """

    form: Literal["examples"] = "examples"
    name: str
    is_image: bool = False
    layout: Literal["image", "series", "tokens", "flat"] | None = None
    type: Literal["uint8", "float32", "ids"]
    shape: tuple[int, ...] = setting(rule=config.NOT_EMPTY)
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    shift: tuple[int | float, ...] = ()
    exponent: tuple[int, ...] = ()
    num_ids: int = setting(0, rule=config.NOT_NEGATIVE)
    resize: tuple[int, ...] = ()
    color: Literal["rgb", "grey"] | None = None

    def __post_init__(self) -> None:
        config.check(self)

    def wanted(self, label: str) -> Wanted:
        """What it looks for in rows."""
        return Wanted(
            columns=(self.name,),
            label=label,
            is_array=True,
            is_picture=self.is_image,
            size=(self.resize[0], self.resize[1]) if self.resize else None,
            color=self.color,
        )

    def stored(self, rows: Rows) -> Stored:
        """(n, *shape) rows as training stores them; nothing is ever unseen.

        Raises:
            DataError: they are missing, or of another type or shape, or hold what cannot be read.
        """
        x = self._array(rows)
        if x.shape[1:] != self.shape:
            self._refuse(f"of shape {self.shape}, as in training", x.shape[1:], rows)
        if self.type == "ids":
            check_ids(x, rows.where)
            if x.size and int(x.max()) >= self.num_ids:
                self._refuse(f"token ids below {self.num_ids:,}, those that training had", int(x.max()), rows)
            return torch.from_numpy(x.astype(np.int32)), ()
        if (x.dtype == np.uint8) != (self.type == "uint8"):
            kind = "uint8" if self.type == "uint8" else "numbers of another type than uint8"
            self._refuse(f"{kind}, as in training", x.dtype, rows)
        stored = np.ascontiguousarray(x) if self.type == "uint8" else self._numbers(x)
        if not np.isfinite(stored).all():
            row = int(np.argmin(np.isfinite(stored.reshape(len(stored), -1)).all(axis=1)))
            raise DataError(f"{rows.where} must hold finite numbers, got NaN or infinity in row {row}. Drop such rows.")
        return torch.from_numpy(stored), ()

    def _numbers(self, x: Array) -> Array:
        """As float32; what it would spoil is shifted and scaled first."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            if not self.shift:
                return np.ascontiguousarray(x, dtype=np.float32)
            flat = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
            stored = np.ldexp(precision.less(flat, self.shift), -np.array(self.exponent)).astype(np.float32)
        back = np.moveaxis(stored.reshape(len(x), *x.shape[2:], x.shape[1]), -1, 1)
        return np.ascontiguousarray(back)

    def _array(self, rows: Rows) -> Array:
        """(n, ...) in the shape that networks get."""
        if rows.array is not None:
            return arranged(rows.array, self.layout, rows.where, axis=1)
        column, field = found_in(rows, self.name)
        if is_image(field.type):
            return self._pictures(column, rows)
        if not depth(field.type) or not is_number(numbers_of(field.type)):
            self._refuse("lists of numbers, or encoded pictures", field.type, rows)
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        parts = [self._listed(chunk, rows) for chunk in chunks]
        if len({part.shape[1:] for part in parts}) > 1:
            self._refuse(f"of shape {self.shape}", " and ".join(str(part.shape[1:]) for part in parts[:2]), rows)
        return arranged(np.concatenate(parts), self.layout, rows.where, axis=1)

    def _listed(self, chunk: pa.Array, rows: Rows) -> Array:
        """Lists as an array; of ids shorter ones are filled up, as in training."""
        if self.type != "ids" or depth(chunk.type) != 1 or isinstance(chunk.type, pa.FixedShapeTensorType):
            return as_array(chunk, self.name, 0)
        lengths = pc.list_value_length(chunk)
        longest = pc.max(lengths).as_py()
        if longest is not None and longest > self.shape[0]:
            self._refuse(f"at most {self.shape[0]} ids long, as in training", longest, rows)
        is_whole = pc.all(pc.equal(lengths, self.shape[0])).as_py()
        return as_array(chunk, self.name, 0) if is_whole else padded(chunk, self.shape[0], self.name, 0)

    def _pictures(self, column: pa.ChunkedArray, rows: Rows) -> Array:
        """(n, c, h, w) of encoded pictures."""
        images: list[Array] = []
        for row, item in enumerate(column.to_pylist()):
            content = item.get("bytes") if isinstance(item, dict) else item
            where = rows.place(row)
            if content is None:
                raise DataError(f"column {self.name!r} must hold encoded bytes, got nothing in {where}.")
            images.append(arranged_image(self.wanted("").fitted(decode(content, where)), self.layout, where))
            check_shape(images[-1].shape, self.shape, f"{where}; the first shape is that of training")
        return np.stack(images)

    def _refuse(self, rule: str, got: Any, rows: Rows) -> None:
        raise DataError(f"examples must be {rule}, got {got} in {rows.where}. Convert them as those of training were.")

    def encoder(self) -> Normalizer | TokenIds:
        """What makes the network's input of stored rows, bit for bit as in training."""
        if self.type == "ids":
            return TokenIds(torch.arange(self.num_ids), self.shape[0], self.num_ids)
        form = (1, self.shape[0], *[1] * (len(self.shape) - 1)) if 1 + len(self.shape) in PLACES else (1, *self.shape)
        return Normalizer(mean=torch.tensor(self.mean).reshape(form), scale=torch.tensor(self.scale).reshape(form))
