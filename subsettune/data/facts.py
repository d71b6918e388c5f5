"""What is known of a source, put together once its arrays have been read: the same for every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from subsettune.data.alone import Alone, alone
from subsettune.data.columns import ColumnFacts, Role, SourceFacts, leave_out
from subsettune.data.impute import filled_copy
from subsettune.data.precision import Scaling
from subsettune.data.raw import Array, Raw
from subsettune.data.scan import TIMES_S, Labels, about_numbers, look_at_numbers
from subsettune.data.unlike import unlike
from subsettune.task import Data

MOST_GAPS = 20  # between the least and the largest label: more are no sign of a class that is missing
MOST_TOLD = 5  # columns that a warning names
BLOCK_BYTES = 2**24  # looked at in one go
UNLIKE = "If both files are meant to be alike, write them in one unit and with the same words."
SAMPLE_ROWS = 1024  # that tell whether a column without a name deserves a look


def completed(raw: Raw, inputs: Array, targets: Array, data: Data) -> SourceFacts:
    """What the reader of a format knows, with the range of inputs and labels, and the columns that give the label away.

    Args:
        raw: as it was read.
        inputs: (n, ...) as they are stored.
        targets: (n,) classes, or (n,) or (n, m) values.
        data: of the task.
    """
    inputs = filled_copy(inputs, raw.imputed, raw.num_train)
    told = raw.facts or SourceFacts(columns=(_only_input(raw, inputs), ColumnFacts(name="label", role="label")))
    is_sure = raw.taken == "numbers" and _least(inputs, raw.scaling) < 0  # no ids are below 0
    told = replace(told, taken="" if is_sure else raw.taken)
    columns = [_with_range(_with_width(column, raw, targets), inputs, targets, raw.scaling) for column in told.columns]
    warnings = [*told.warnings, *_about_numbers_of_classes(columns, raw, targets)]
    warnings += _about_unlike(columns, raw, inputs, targets)
    if not raw.columns and inputs.ndim == 2 and inputs.dtype == np.float32:
        warnings += _about_unnamed(_input_of(columns), inputs, raw, data)
    found = {} if raw.tokens else alone(inputs, targets, raw.num_train)
    if len(found) > MOST_TOLD:
        warnings.append(
            f"{len(found):,} of {inputs.shape[1]:,} columns tell the label almost perfectly, each alone: the task is "
            "easy, or its inputs were made from the label."
        )
        return replace(told, columns=tuple(columns), warnings=tuple(warnings))
    for j, what in found.items():
        name = raw.columns[j] if raw.columns else ""
        is_column = any(column.name == name for column in columns)
        sentence = _gives_away(name or _unnamed(columns, j), what, data, is_column=is_column)
        warnings += _attached(columns, name, sentence)
    return replace(told, columns=tuple(columns), warnings=tuple(warnings))


def _attached(columns: list[ColumnFacts], name: str, sentence: str) -> list[str]:
    """Put a sentence to its column; what belongs to none comes back."""
    place = next((i for i, column in enumerate(columns) if column.name == name), None)
    if place is None:
        return [sentence]
    columns[place] = replace(columns[place], warnings=(*columns[place].warnings, sentence))
    return []


def _about_numbers_of_classes(columns: list[ColumnFacts], raw: Raw, targets: Array) -> list[str]:
    """A sentence about classes that go by numbers which are not 0, 1, ..., but for -1 and 1; as of `_attached`."""
    is_open = targets.dtype.kind == "i" and raw.labels.dtype.kind in "fiu" and not raw.classes
    if not is_open or np.array_equal(targets, raw.labels):
        return []
    found = np.unique(raw.labels.astype(np.int64)).tolist()
    if found == [-1, 1]:
        return []
    listed = f"{', '.join(map(str, found[:-1]))} and {found[-1]}"
    gaps = sorted(set(range(found[0], found[-1])) - set(found)) if found[-1] - found[0] <= MOST_GAPS else []
    missing = f" No example has the label {' or '.join(map(str, gaps))}: add some, if there is such a class." * bool(
        gaps
    )
    return _attached(
        columns,
        next(column.name for column in columns if column.role == "label"),
        f"labels are taken for classes that are called {listed}.{missing} If they are a quantity, choose metric mse.",
    )


def _about_unlike(columns: list[ColumnFacts], raw: Raw, inputs: Array, targets: Array) -> list[str]:
    """Sentences about a test file that is unlike the training file, but for those that are put to their columns."""
    found, of_labels = unlike(raw, inputs, targets)
    suspicious = {column.name for column in columns if column.warnings}  # numbers of rows, and times, go on
    called = {j: raw.columns[j] if raw.columns else _unnamed(columns, j, inputs.ndim) for j in found}
    told = [(name, found[j]) for j, name in called.items() if name not in suspicious]
    told += [(column.name, of_labels) for column in columns if column.role == "label" and of_labels]
    if len(told) > MOST_TOLD:
        return [f"column {told[0][0]!r} {told[0][1]} So it is with {len(told) - 1:,} more columns. {UNLIKE}"]
    return [left for name, what in told for left in _attached(columns, name, f"column {name!r} {what} {UNLIKE}")]


def _only_input(raw: Raw, inputs: Array) -> ColumnFacts:
    role: Role = "text" if raw.tokens else "image" if inputs.ndim == 4 else "feature"
    return ColumnFacts(name=role if role != "feature" else "input", role=role, width=int(inputs[0].size))


def _about_unnamed(name: str, inputs: Array, raw: Raw, data: Data) -> list[str]:
    """Sentences about row numbers, ids and times among columns that have no names of their own."""
    num_train, scaling = raw.num_train, raw.scaling
    sample = scaling.restored(inputs[:SAMPLE_ROWS])
    is_whole = (sample == np.floor(sample)).all(axis=0)
    differs = (np.diff(np.sort(sample, axis=0), axis=0) > 0).all(axis=0)
    is_time = sample.min(axis=0) >= TIMES_S[0]
    found = []
    for j in np.flatnonzero(is_whole & (differs | is_time)).tolist():
        column = scaling.restored(inputs[:, j : j + 1], j)[:, 0]
        files = [column[:num_train], column[num_train:]]
        said = about_numbers(look_at_numbers(f"{name}[{j}]", files, Labels(None)), data)
        found += [f"column '{name}[{j}]' {said} If it is no feature, take it out of the array."] if said else []
    return found[:MOST_TOLD]


def _unnamed(columns: list[ColumnFacts], j: int, ndim: int = 2) -> str:
    name = _input_of(columns)
    return f"{name}[{j}]" if ndim == 2 else name


def _input_of(columns: list[ColumnFacts]) -> str:
    """Name of the only column that is read as an input; the label may stand before it."""
    return next(column.name for column in columns if column.role in ("feature", "image", "text"))


def _with_width(column: ColumnFacts, raw: Raw, targets: Array) -> ColumnFacts:
    """How many numbers a label and an embedding have."""
    if column.role == "label" and targets.ndim == 2:
        return replace(column, width=targets.shape[1])
    if column.role == "embeddings" and raw.embeddings is not None:
        return replace(column, width=raw.embeddings.shape[1])
    return column


def _with_range(column: ColumnFacts, inputs: Array, targets: Array, scaling: Scaling) -> ColumnFacts:
    """The label's range, and that of an input that is all of the inputs."""
    if column.role == "label" and column.distinct is None and targets.ndim == 1:
        is_class = targets.dtype.kind == "i"
        least, most = (None, None) if is_class else (float(targets.min()), float(targets.max()))
        return replace(column, distinct=len(np.unique(targets)), least=least, most=most)
    is_all = column.role in ("image", "feature") and column.width == inputs[0].size and inputs.dtype != np.int32
    if is_all and column.least is None:
        ends = [(block.min(), block.max()) for block in _in_units(inputs, scaling)]
        return replace(column, least=float(min(e[0] for e in ends)), most=float(max(e[1] for e in ends)))
    return column


def _least(inputs: Array, scaling: Scaling) -> float:
    return float(min(block.min() for block in _in_units(inputs, scaling)))


def _in_units(inputs: Array, scaling: Scaling) -> Iterator[Array]:
    """The inputs block by block, in the units of the source."""
    step = max(1, BLOCK_BYTES // inputs[0].nbytes)
    stored = (inputs[i : i + step] for i in range(0, len(inputs), step))
    return map(scaling.restored, stored) if scaling.shift else stored  # float64 is eight times as large as bytes


def _gives_away(name: str, what: Alone, data: Data, *, is_column: bool) -> str:
    if what.guess:
        score = f"it is right in {_percent(what.score)} of the rows held back, a guess in {_percent(what.guess)}"
    else:
        score = f"it explains {_percent(what.score)} of the variance in the rows held back"
    remedy = leave_out([name], data) if is_column else "take it out of the inputs"
    return (
        f"column {name!r} alone tells the label almost perfectly: {score}. If it is made from the label, or known only "
        f"after it, {remedy}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
