"""All that turns rows in the user's own columns into a network's input, and its output into the user's words.

Taken from the data of a task, and then tried: what it makes of the first rows of the task's own file must be what
training sees, number for number. So no way of reading that it does not know comes out as something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from subsettune import config
from subsettune.bundle.paths import is_path
from subsettune.config import FrozenDict, setting
from subsettune.data import DataPaths, Part, TaskData
from subsettune.data.arrays import Meta
from subsettune.data.columns import ColumnFacts
from subsettune.data.csv_dialect import SUFFIXES as CSV
from subsettune.data.csv_files import Written, written_as
from subsettune.data.dates import cycles_of
from subsettune.data.encode import Encoder, Normalizer, TokenIds
from subsettune.data.formats import format_of
from subsettune.data.layout import OWN_IDS
from subsettune.data.parquet_files import table_files
from subsettune.data.pictures import FILES, training_pictures
from subsettune.data.text import SPECIAL_WORDS
from subsettune.errors import DataError
from subsettune.in_memory import TABLE, given, is_given, kind_of
from subsettune.task import Csv, Task
from subsettune.trained.examples import Examples, Text
from subsettune.trained.files import READERS, read_rows
from subsettune.trained.outputs import Outputs
from subsettune.trained.picture_rows import rows_of_pictures
from subsettune.trained.rows import Rows, Wanted, rows_of
from subsettune.trained.table import Column, Table, found_in, time_kind

TRIED_ROWS, TRIED_PICTURES = 256, 32
WEIGHTS_ALONE = "Save the weights alone: give --save the name of a file, as weights.pt."


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Inputs and outputs of a network in the user's terms.

    Args:
        inputs: how rows become what the network gets.
        outputs: what its outputs stand for.
        csv: how .csv files are written, where that is not to be found out.
    """

    inputs: Table | Text | Examples
    outputs: Outputs
    csv: Csv = setting(Csv())

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
        places = places or DataPaths()
        written = _written(task, places)
        made = cls(
            inputs=_inputs(task, data, data.meta, written), outputs=_outputs(task, data, written), csv=task.data.csv
        )
        if made.inputs.shape != data.input_shape:
            raise _unknown(task, f"an example is {data.input_shape}, and would be {made.inputs.shape}")
        made._try(task, data, places)
        return made

    @property
    def wanted(self) -> Wanted:
        """What the model looks for in rows."""
        label = self.outputs.label
        wanted = self.inputs.wanted(label)
        forms = FrozenDict({**wanted.forms, label: self.outputs.form})
        return replace(wanted, forms=forms, csv=self.csv, classes=self.outputs.classes)

    def part(self, rows: Rows) -> tuple[Part, tuple[str, ...]]:
        """Rows as a part of a task's data, without targets, and sentences about what training had not seen.

        Raises:
            DataError: they are none, or do not suit the model.
        """
        if not len(rows):
            for name in () if rows.table is None else self.wanted.columns:
                found_in(rows, name)  # of a file without any known column, this is what to tell
            raise DataError(f"{rows.where} must hold rows, got none. Give one at least.")
        stored, warnings = self.inputs.stored(rows)
        nothing = torch.zeros(len(stored), dtype=torch.int64)
        return Part(stored, nothing, torch.arange(len(stored)), self.inputs.encoder()), warnings

    def read(self, path: str, limit: int | None = None) -> Rows:
        """Rows of a file, as `files.read_rows`."""
        return read_rows(path, self.wanted, limit)

    def _try(self, task: Task, data: TaskData, places: DataPaths) -> None:
        """Hold what is made of the source's first rows against what training sees of them."""
        rows = self._first_rows(task, data, places)
        if rows is None:
            return
        part, _ = self.part(rows)
        index = torch.arange(min(len(part), data.num_source_examples))
        ours = part.encoder(part.inputs[index])
        theirs = data.train.encoder(data.train.inputs.index_select(0, index))
        if not _are_equal(ours, theirs):
            raise _unknown(task, f"the first rows of {rows.where} come out otherwise than in training")

    def _first_rows(self, task: Task, data: TaskData, places: DataPaths) -> Rows | None:
        """Of the source, as they are asked about; None of what is no file and no table."""
        source = task.data.source
        held = given(source) if is_given(source) and kind_of(source) == TABLE else None
        if held is not None:
            return rows_of(held[0].slice(0, TRIED_ROWS), self.wanted)
        if not is_path(source) or data.facts is None:
            return None
        path = places.own(source)
        if path.is_dir() and format_of(path) == "pictures":
            files = [file for file, _ in training_pictures(path)[:TRIED_PICTURES]]
            return rows_of_pictures(files, None, self.wanted, path, where=str(path))
        first = path / data.facts.files[0] if path.is_dir() and data.facts.files else path
        if not first.name.endswith(tuple(READERS)):
            raise _unknown(task, f"rows of files like {first.name} cannot be read for them")
        return self.read(str(first), TRIED_ROWS)


def _are_equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def _unknown(task: Task, why: str) -> DataError:
    return DataError(f"inputs of {task.data.source!r} cannot be kept for predictions: {why}. {WEIGHTS_ALONE}")


# --- inputs -----------------------------------------------------------------------------------------------------------


def _written(task: Task, places: DataPaths) -> dict[str, Written]:
    """How the columns of .csv files are written; of other sources the formats of dates, where the task tells them."""
    source = task.data.source
    path = places.own(source) if is_path(source) else None
    if path is not None and path.exists() and format_of(path) == "csv":
        found = table_files(path, CSV)
        return written_as((*found.train, *found.validation, *found.test), task.data, task.kind, task.split.reads)
    return {name: Written(kind="date", formats=(form,)) for name, form in task.data.date_formats.items()}


def _inputs(task: Task, data: TaskData, meta: Meta, written: Mapping[str, Written]) -> Table | Text | Examples:
    read = _read_columns(task, data)
    if meta.tokens in ("words", "bytes"):
        return _text(read, data, meta)
    is_table = all(column.kind and _is_flat(column.kind) for column in read) and read[0].role != "image"
    if meta.tokens or not is_table or task.data.layout not in (None, "flat"):
        return _examples(task, read, data, meta)
    columns = tuple(_columns(task, read, data, meta))
    return Table(columns=tuple(_as_written(column, written.get(column.name)) for column in columns))


def _as_written(column: Column, form: Written | None) -> Column:
    return column if form is None else replace(column, written=form.kind, formats=form.formats)


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
        resize=task.data.size or (),
        color=task.data.color,
    )


def _columns(task: Task, read: list[ColumnFacts], data: TaskData, meta: Meta) -> Iterator[Column]:
    """Each column of a table with what training made of it."""
    encoder = data.train.encoder
    if isinstance(encoder, TokenIds):
        raise _unknown(task, "they are token ids")
    normalizer = encoder if isinstance(encoder, Normalizer) else encoder.normalizer
    mean, scale = _floats(normalizer.mean), _floats(normalizer.scale)
    filled = dict(meta.imputed)
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
        made = Column(
            name=column.name,
            type=column.kind,
            width=column.width if "list" in column.kind else None,
            fill=_fill(data.train.inputs, stored) if stored in filled else None,
            cycles=cycles_of(column.kind) if task.data.dates == "cyclic" and time_kind(column.kind) else (),
        )
        count, own = made.num_stored, made.num_own
        yield replace(
            made,
            mean=mean[number : number + count],
            scale=scale[number : number + count],
            shift=meta.shift[stored : stored + own],
            exponent=meta.exponent[stored : stored + own],
        )
        stored, number = stored + count, number + count
    if stored != data.train.inputs.shape[1]:
        raise _unknown(task, f"they are {data.train.inputs.shape[1]} numbers, of which {stored} are in known columns")


def _fill(inputs: Tensor, place: int) -> float:
    """What stands for a number that is missing, in a stored column beside which another says so."""
    row = int((inputs[:, place + 1] > 0).int().argmax())
    return float(inputs[row, place])


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())


# --- outputs ----------------------------------------------------------------------------------------------------------


def _outputs(task: Task, data: TaskData, written: Mapping[str, Written]) -> Outputs:
    label = _label_facts(data)
    if task.kind == "multilabel":
        return Outputs(label=label.name, kind="multilabel", num_labels=data.num_outputs, is_single=False)
    if task.kind == "classification":
        is_named = "string" in label.kind or (label.name in written and written[label.name].kind == "text")
        are_numbers = all(map(_is_canonical, data.class_names)) and not is_named and not _are_folders(data)
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
        written=written[label.name].kind if label.name in written else None,
    )


def _are_folders(data: TaskData) -> bool:
    """Whether classes are names of folders of pictures."""
    return data.facts is not None and any(c.role == "image" and c.kind == FILES for c in data.facts.columns)


def _label_facts(data: TaskData) -> ColumnFacts:
    assert data.facts is not None
    return next((c for c in data.facts.columns if c.role == "label"), ColumnFacts(name="label", role="label"))


def _is_canonical(name: str) -> bool:
    """Whether a class is called by a whole number as Python writes it."""
    return name.removeprefix("-").isdecimal() and str(int(name)) == name and name.isascii()
