"""All that turns rows in the user's own columns into a network's input, and its output into the user's words.

Taken from the data of a task, and then tried: what it makes of the first rows of the task's own file must be what
training sees, number for number. So no way of reading that it does not know comes out as something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from subsettune import config
from subsettune.bundle.paths import is_path
from subsettune.data import DataPaths, Part, TaskData
from subsettune.data.arrays import Meta
from subsettune.data.columns import ColumnFacts
from subsettune.data.encode import Encoder, Normalizer, TokenIds
from subsettune.data.layout import OWN_IDS
from subsettune.data.text import SPECIAL_WORDS
from subsettune.errors import DataError
from subsettune.task import Task
from subsettune.trained.examples import Examples, Text
from subsettune.trained.outputs import Outputs
from subsettune.trained.rows import READERS, Rows, read_rows
from subsettune.trained.table import Column, Table, found_in

TRIED_ROWS = 256
WEIGHTS_ALONE = "Save the weights alone: give --save the name of a file, as weights.pt."


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Inputs and outputs of a network in the user's terms.

    Args:
        inputs: how rows become what the network gets.
        outputs: what its outputs stand for.
    """

    inputs: Table | Text | Examples
    outputs: Outputs

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def of(cls, task: Task, data: TaskData, places: DataPaths | None = None) -> Encoding:
        """The encoding of a task's data, tried on their first rows where they lie in a file.

        Args:
            task: that is trained.
            data: of it, loaded from their source.
            places: where this machine keeps data.

        Raises:
            DataError: the data are read in a way that cannot be told again.
        """
        assert data.meta is not None, "data that were loaded know what their arrays are"
        made = cls(inputs=_inputs(task, data, data.meta), outputs=_outputs(task, data))
        if made.inputs.shape != data.input_shape:
            raise _unknown(task, f"an example is {data.input_shape}, and would be {made.inputs.shape}")
        made._try(task, data, places or DataPaths())
        return made

    def part(self, rows: Rows) -> tuple[Part, tuple[str, ...]]:
        """Rows as a part of a task's data, without targets, and sentences about what training had not seen.

        Raises:
            DataError: they are none, or do not suit the model.
        """
        if not len(rows):
            for name in () if rows.table is None else self.inputs.wanted(self.outputs.label).columns:
                found_in(rows, name)  # of a file without any known column, this is what to tell
            raise DataError(f"{rows.where} must hold rows, got none. Give one at least.")
        stored, warnings = self.inputs.stored(rows)
        nothing = torch.zeros(len(stored), dtype=torch.int64)
        return Part(stored, nothing, torch.arange(len(stored)), self.inputs.encoder()), warnings

    def read(self, path: str, limit: int | None = None) -> Rows:
        """Rows of a file, as `rows.read_rows`."""
        return read_rows(path, self.inputs.wanted(self.outputs.label), limit)

    def _try(self, task: Task, data: TaskData, places: DataPaths) -> None:
        """Hold what is made of the source's first rows against what training sees of them."""
        if not is_path(task.data.source) or data.facts is None:
            return
        path = places.own(task.data.source)
        first = path / data.facts.files[0] if path.is_dir() and data.facts.files else path
        if not first.name.endswith(tuple(READERS)):
            raise _unknown(task, f"rows of files like {first.name} cannot be read for them")
        part, _ = self.part(self.read(str(first), TRIED_ROWS))
        index = torch.arange(min(len(part), data.num_source_examples))
        ours = part.encoder(part.inputs[index])
        theirs = data.train.encoder(data.train.inputs.index_select(0, index))
        if not _are_equal(ours, theirs):
            raise _unknown(task, f"the first rows of {first} come out otherwise than in training")


def _are_equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def _unknown(task: Task, why: str) -> DataError:
    return DataError(f"inputs of {task.data.source!r} cannot be kept for predictions: {why}. {WEIGHTS_ALONE}")


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(task: Task, data: TaskData, meta: Meta) -> Table | Text | Examples:
    read = _read_columns(task, data)
    if meta.tokens in ("words", "bytes"):
        return _text(read, data, meta)
    is_table = all(column.kind and _is_flat(column.kind) for column in read) and read[0].role != "image"
    if meta.tokens or not is_table or task.data.layout not in (None, "flat"):
        return _examples(task, read, data, meta)
    return Table(columns=tuple(_columns(task, read, data, meta)))


def _is_flat(kind: str) -> bool:
    """Whether a type is one of plain numbers, texts, or lists of plain numbers."""
    return kind.count("list<") + kind.count("list_view<") <= 1 and "extension" not in kind and "tensor" not in kind


def _read_columns(task: Task, data: TaskData) -> list[ColumnFacts]:
    """The columns that are read as inputs, in their order."""
    assert data.facts is not None, "data that were loaded from their source know what was found there"
    roles = ("feature", "categories", "text", "image")
    found = {column.name: column for column in data.facts.columns if column.role in roles}
    named = [name for name in task.data.features or () if name in found]
    read = [found[name] for name in named] or list(found.values())
    if not read:
        raise _unknown(task, "nothing tells which columns they are")
    return read


def _text(read: list[ColumnFacts], data: TaskData, meta: Meta) -> Text:
    ids, words = cast(TokenIds, data.train.encoder), [""] * 0
    if meta.tokens == "words":
        words = [""] * (ids.size - SPECIAL_WORDS)
        for stored, number in enumerate(ids.numbers.tolist()):
            if number >= SPECIAL_WORDS:
                words[number - SPECIAL_WORDS] = meta.vocabulary[stored - SPECIAL_WORDS]
    tokens = cast(Any, meta.tokens)
    return Text(column=read[0].name, tokens=tokens, vocabulary=tuple(words), length=ids.length)


def _examples(task: Task, read: list[ColumnFacts], data: TaskData, meta: Meta) -> Examples:
    is_ids = meta.tokens == OWN_IDS
    encoder = data.train.encoder
    if len(read) != 1 or not isinstance(encoder, TokenIds if is_ids else Normalizer):
        raise _unknown(task, "they are several columns, and no table")
    normalizer = encoder if isinstance(encoder, Normalizer) else None
    kind = "ids" if is_ids else str(data.train.inputs.dtype).removeprefix("torch.")
    return Examples(
        name=read[0].name,
        is_image=read[0].role == "image",
        layout=task.data.layout,
        type=cast(Any, kind),
        shape=tuple(meta.shape),
        mean=() if normalizer is None else _floats(normalizer.mean),
        scale=() if normalizer is None else _floats(normalizer.scale),
        shift=meta.shift,
        exponent=meta.exponent,
        num_ids=data.num_tokens if is_ids else 0,
    )


def _columns(task: Task, read: list[ColumnFacts], data: TaskData, meta: Meta) -> Iterator[Column]:
    """Each column of a table with what training made of it."""
    encoder = data.train.encoder
    if isinstance(encoder, TokenIds):
        raise _unknown(task, "they are token ids")
    normalizer = encoder if isinstance(encoder, Normalizer) else encoder.normalizer
    mean, scale = _floats(normalizer.mean), _floats(normalizer.scale)
    stored, number, code = 0, 0, 0
    for column in read:
        if column.role == "categories":
            if not isinstance(encoder, Encoder):
                raise _unknown(task, f"column {column.name!r} has categories, and no encoder knows them")
            names = meta.categories[stored]
            start = int(encoder.starts[code])
            present = encoder.present[start : start + len(names)].bool().tolist()
            kept = tuple(name for name, is_there in zip(names, present, strict=True) if is_there)
            yield Column(name=column.name, type=column.kind, categories=kept)
            stored, code = stored + 1, code + 1
            continue
        width = column.width if "list" in column.kind else None
        count = width or 1
        yield Column(
            name=column.name,
            type=column.kind,
            width=width,
            mean=mean[number : number + count],
            scale=scale[number : number + count],
            shift=meta.shift[stored : stored + count],
            exponent=meta.exponent[stored : stored + count],
        )
        stored, number = stored + count, number + count
    if stored != data.train.inputs.shape[1]:
        raise _unknown(task, f"they are {data.train.inputs.shape[1]} numbers, of which {stored} are in known columns")


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())


# --- outputs ----------------------------------------------------------------------------------------------------------


def _outputs(task: Task, data: TaskData) -> Outputs:
    if task.kind not in ("classification", "regression"):
        raise _unknown(task, f"nothing is known of outputs of a {task.kind}")
    label = _label_facts(data)
    if task.kind == "classification":
        are_numbers = all(_is_canonical(name) for name in data.class_names) and "string" not in label.kind
        return Outputs(
            label=label.name,
            kind="classification",
            classes=data.class_names,
            are_numbers=are_numbers,
            are_booleans=label.kind == "bool" and data.class_names == ("0", "1"),
        )
    targets = data.train.all_targets
    mean, std = (
        _floats(value) if isinstance(value, Tensor) else (float(value),)
        for value in (data.target_mean, data.target_std)
    )
    return Outputs(
        label=label.name,
        kind="regression",
        mean=mean,
        std=std,
        are_wide=targets.dtype == torch.float64,
        is_single=targets.ndim == 1,
    )


def _label_facts(data: TaskData) -> ColumnFacts:
    assert data.facts is not None
    return next((c for c in data.facts.columns if c.role == "label"), ColumnFacts(name="label", role="label"))


def _is_canonical(name: str) -> bool:
    """Whether a class is called by a whole number as Python writes it."""
    return name.removeprefix("-").isdecimal() and str(int(name)) == name and name.isascii()
