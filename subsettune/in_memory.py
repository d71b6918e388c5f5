"""What is handed over in Python instead of a name: tables, arrays, Datasets, and functions and classes.

Tasks hold names alone, so that they can be written down, compared and sent to workers. Data get one of their content,
`python://KIND/DIGEST`; they stay in this process until they are read into the cache of data, where every process of
this machine finds them by that name. Code gets the name by which it can be imported, `module:name`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from subsettune.errors import ConfigError

PREFIX = "python://"
TABLE, ARRAYS, DATASET = "table", "arrays", "dataset"
LABEL = "label"  # the column that a table gets for labels that stand beside it
_GIVEN: dict[str, Any] = {}
ADVICE = (
    "Hand over a table (pandas, polars, Arrow), a pair (X, y) of arrays, or a map-style Dataset, or a pair of tables "
    "or Datasets (training, test), or name a file."
)


def is_given(source: str) -> bool:
    """Whether a source was handed over in Python."""
    return source.startswith(PREFIX)


def kind_of(source: str) -> str:
    """`table`, `arrays` or `dataset`."""
    return source.removeprefix(PREFIX).partition("/")[0]


def given(source: str) -> Any:
    """What was handed over under a name; None in a process that it was not handed to."""
    return _GIVEN.get(source)


def is_unchanged(source: str) -> bool:
    """Whether what was handed over still has the content that it is named after; a Dataset is not read once more."""
    kind = kind_of(source)
    return kind == DATASET or source == _name(kind, _GIVEN[source])


def _name(kind: str, held: Any) -> str:
    return f"{PREFIX}{kind}/{DIGESTS[kind](held)[:32]}"


def source_name(source: Any) -> str:
    """The name of data, which are kept under it: of a path the path, of a function where to import it.

    Raises:
        ConfigError: they are of no kind that can be read, or a function that cannot be imported by its name.
    """
    if isinstance(source, str):
        return source
    if isinstance(source, Path):
        return str(source) if source.is_absolute() else f"./{source}"
    kind, held = _held(source)
    if not kind:
        return code_name(source, "source")
    name = _name(kind, held)
    _GIVEN[name] = held
    return name


def code_name(code: Any, what: str) -> str:
    """`module:name` of a function or class.

    Args:
        code: text stays as it is.
        what: it is for, for the message.

    Raises:
        ConfigError: it has no such name, or is an object that was made already.
    """
    if isinstance(code, str):
        return code
    if not callable(code) or (hasattr(code, "state_dict") and not isinstance(code, type)):
        extra = "every run needs fresh weights" if hasattr(code, "state_dict") else "a name is what files can hold"
        raise ConfigError(
            f"{what} must be a function or class that makes a new one, got a {type(code).__name__} that is made "
            f"already: {extra}. Hand over its class or a function, with its options beside it."
        )
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not code:
        called = name or type(code).__name__
        raise ConfigError(
            f"{what} must be importable by its name, got {called!r}, which other processes cannot find. Define it at "
            "the top of a module, not within a function, and give options instead of a partial."
        )
    return f"{module}:{name}"


def _held(source: Any) -> tuple[str, Any]:
    """The kind of data, and their form for the reader; "" where it is code."""
    if _is_table(source):
        return TABLE, (_table(source),)
    if isinstance(source, tuple) and len(source) in (2, 3) and all(map(_is_table, source)):
        return TABLE, tuple(map(_table, source))
    if isinstance(source, tuple) and len(source) == 2:
        if _is_table(source[0]) and not _is_table(source[1]):
            return TABLE, (_with_label(*source),)
        arrays = _arrays(source)
        if arrays is not None:
            return ARRAYS, arrays
        if all(map(_is_dataset, source)):
            return DATASET, source
        _refuse_types(*source)
    if _is_dataset(source):
        return DATASET, (source,)
    if callable(source):
        return "", None
    raise ConfigError(f"source must be data or their name, got {_called(source)}. {ADVICE}")


def _called(source: Any) -> str:
    if isinstance(source, tuple):
        return f"a tuple of {', '.join(type(each).__name__ for each in source) or 'nothing'}"
    return f"a {type(source).__name__}"


# --- tables -----------------------------------------------------------------------------------------------------------


def _is_table(source: Any) -> bool:
    """Whether something is a table: it has Arrow's protocol, as pandas and polars have, or is a lazy frame."""
    if isinstance(source, type) or _is_series(source):
        return False
    return hasattr(source, "__arrow_c_stream__") or _package(source) == "pandas" or hasattr(source, "collect_schema")


def _is_series(source: Any) -> bool:
    return type(source).__name__ in ("Series", "Index", "ChunkedArray")


def _package(source: Any) -> str:
    return type(source).__module__.partition(".")[0]


def _table(source: Any) -> Any:
    import pyarrow as pa

    try:
        if _package(source) == "pandas":
            made = pa.Table.from_pandas(source)
        else:
            is_lazy = hasattr(source, "collect_schema") and hasattr(source, "collect")
            made = pa.table(source.collect() if is_lazy else source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"source must be a table of plain columns, got one that Arrow refuses: {reason}.") from error
    _refuse_nested(made)
    return made


def _refuse_nested(table: Any) -> None:
    """Categories that are no plain values, as intervals of pandas.cut, which no file holds."""
    import pyarrow as pa

    for field in table.schema:
        values = field.type.value_type if pa.types.is_dictionary(field.type) else pa.null()
        if pa.types.is_nested(values) or isinstance(values, pa.BaseExtensionType):
            raise ConfigError(
                f"column {field.name!r} must hold numbers, texts or dates, got categories of {values}, as pandas.cut "
                f"makes them. Convert it: frame[{field.name!r}].astype(str), or cut it into numbers (labels=False)."
            )


def _with_label(table: Any, label: Any) -> Any:
    """A table and its labels beside it, as scikit-learn takes them."""
    import pyarrow as pa

    made = _table(table)
    values = label.to_numpy() if hasattr(label, "to_numpy") else label
    if len(values) != made.num_rows:
        raise ConfigError(f"X and y must be as many, got {made.num_rows:,} rows and {len(values):,} labels. Mend them.")
    if LABEL in made.column_names:
        raise ConfigError(f"X must have no column {LABEL!r} where y holds the labels. Rename it, or leave y out.")
    return made.append_column(LABEL, pa.array(values))


def _digest_of_tables(tables: tuple[Any, ...]) -> str:
    """Of the rows and the schemas, however the rows lie in chunks."""
    import pyarrow as pa

    sink = _Hash()
    for table in tables:
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as writer:
            writer.write_table(table.combine_chunks())
    return sink.result.hexdigest()


class _Hash:
    """A file that keeps nothing of what is written but its hash."""

    closed = False

    def __init__(self) -> None:
        self.result = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.result.update(content)
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


# --- arrays and Datasets ----------------------------------------------------------------------------------------------


def _arrays(source: tuple[Any, Any]) -> dict[str, Any] | None:
    """Arrays by the names that .npz files give them; None where they are none."""
    if all(isinstance(pair, tuple) and len(pair) == 2 for pair in source):
        parts = [_pair(*pair) for pair in source]
        if None not in parts:
            (x, y), (x_test, y_test) = parts  # type: ignore[misc]
            return {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        return None
    pair = _pair(*source)
    return None if pair is None else {"x": pair[0], "y": pair[1]}


def _pair(x: Any, y: Any) -> tuple[Any, Any] | None:
    found = [_array(each) for each in (x, y)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _refuse_types(x: Any, y: Any) -> None:
    """Arrays of what is neither a number nor a text: times, complex numbers, objects."""
    for name, each in (("X", x), ("y", y)):
        if hasattr(each, "dtype") and _array(each) is None:
            raise ConfigError(
                f"{name} must hold numbers{' or texts' * (name == 'y')}, got {each.dtype}. Convert it: times to "
                "numbers, categories to a table (pandas) with a column each."
            )


def _array(x: Any) -> Any:
    """(n, ...) numbers or texts; None of what is no array.

    Raises:
        ConfigError: a mask of NumPy hides some.
    """
    import numpy as np

    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        hidden = int(np.ma.getmaskarray(x).sum())
        raise ConfigError(
            f"source must have a value in each place, got an array with {hidden:,} masked ones. Drop such rows, or "
            "hand over a table, where missing numbers are told (data.impute)."
        )
    if isinstance(x, type) or (_is_dataset(x) and not hasattr(x, "dtype") and not isinstance(x, list)):
        return None
    if hasattr(x, "detach"):  # a tensor
        x = x.detach().cpu()
        x = (x.float() if "bfloat16" in str(x.dtype) else x).numpy()
    try:
        found = np.ascontiguousarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    except (ValueError, TypeError):
        return None
    if found.dtype.kind == "O" and all(isinstance(each, str) for each in found.reshape(-1)):
        found = found.astype(str)
    return found if found.ndim and found.dtype.kind in "fiubUS" else None


def _is_dataset(source: Any) -> bool:
    if isinstance(source, str | bytes | Mapping | type | list | tuple | set) or hasattr(source, "dtype"):
        return False
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _digest_of_arrays(arrays: Mapping[str, Any]) -> str:
    result = hashlib.sha256()
    for name, array in arrays.items():
        result.update(repr((name, array.dtype.str, array.shape)).encode())
        result.update(array.tobytes() if array.dtype.kind == "U" else memoryview(array.reshape(-1)).cast("B"))
    return result.hexdigest()


def _digest_of_datasets(datasets: tuple[Any, ...]) -> str:
    """Of all examples: a Dataset has no other content."""
    result = hashlib.sha256()
    with _same_random_state():
        for dataset in datasets:
            result.update(f"{len(dataset)} examples".encode())
            for i in range(len(dataset)):
                try:
                    item = dataset[i]
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    raise ConfigError(f"example {i} of the Dataset cannot be read: {reason}. Mend it.") from error
                for part in item if isinstance(item, tuple | list) else (item,):
                    result.update(_bytes(part))
    return result.hexdigest()


def _bytes(part: Any) -> bytes:
    """What tells one part of an example from another."""
    if hasattr(part, "detach"):
        part = part.detach().cpu()
        part = (part.float() if "bfloat16" in str(part.dtype) else part).numpy()
    if hasattr(part, "tobytes"):  # arrays, and images of Pillow
        shape = getattr(part, "shape", getattr(part, "size", None))
        return repr((str(getattr(part, "dtype", getattr(part, "mode", ""))), shape)).encode() + bytes(part.tobytes())
    return repr(part).encode()


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """Give the caller's random state back after a Dataset that may draw from it."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    before = random.getstate()
    before_numpy = numpy.random.get_state() if numpy is not None else None
    before_torch = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(before)
        if numpy is not None:
            numpy.random.set_state(before_numpy)
        if torch is not None:
            torch.set_rng_state(before_torch)


DIGESTS: Mapping[str, Callable[[Any], str]] = {
    TABLE: _digest_of_tables,
    ARRAYS: _digest_of_arrays,
    DATASET: _digest_of_datasets,
}
