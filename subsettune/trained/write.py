"""Predictions as a table and as a file: in the user's words, a row for each row that was asked about."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from subsettune.config import must
from subsettune.errors import ConfigError, StorageError
from subsettune.trained.model import Predictions, TrainedModel

PICTURE, PREDICTION, PROBABILITY = "picture", "prediction", "probability of {}"
FORMATS = (".parquet", ".csv")


def table_of(found: Predictions, model: TrainedModel, *, with_probabilities: bool = False) -> pa.Table:
    """Predictions as columns: `prediction`, or one for each target or label, and one for each class where asked for.

    Of pictures that are files, their names come first, as `picture`.

    Args:
        found: of rows.
        model: that made them.
        with_probabilities: whether there is a column `probability of NAME` for each class or label.

    Raises:
        ConfigError: probabilities are asked for of a regression.
    """
    values = found.values
    columns = {PICTURE: pa.array(found.names)} if found.names else {}
    if values.ndim == 1:
        columns[PREDICTION] = pa.array(values)
    else:
        columns |= {f"{PREDICTION}[{j}]": pa.array(values[:, j]) for j in range(values.shape[1])}
    if with_probabilities:
        if found.probabilities is None:
            raise ConfigError("--probabilities are those of classes, and this model predicts values. Leave it out.")
        for j, name in enumerate(model.classes or [f"label[{j}]" for j in range(found.probabilities.shape[1])]):
            columns[PROBABILITY.format(name)] = pa.array(found.probabilities[:, j])
    return pa.table(columns)


def check_output(output: str, source: str) -> None:
    """Refuse before anything is predicted what could not be written after it.

    Args:
        output: path of the file to write.
        source: path of the file that is read.

    Raises:
        ConfigError: it is of no format that is known, or the very file that is read.
        StorageError: its folder is not there.
    """
    path = Path(output).expanduser()
    if path.suffix not in FORMATS:
        raise ConfigError(must("--output", f"a {' or '.join(FORMATS)} file", output, "Give it such a name."))
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise ConfigError(must("--output", "another file than the one that is read", output, "Give it another name."))
    if not path.parent.is_dir() or path.is_dir():
        advice = "Make the folder, or choose another."
        raise StorageError(must("--output", "a file in a folder that is there", output, advice))


def write_table(table: pa.Table, output: str) -> None:
    """Write predictions as Parquet or as CSV, whole or not at all.

    Raises:
        StorageError: they cannot be written.
    """
    path, buffer = Path(output).expanduser(), io.BytesIO()
    if path.suffix == ".parquet":
        pq.write_table(table, buffer)
    else:
        csv.write_csv(table, buffer)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(buffer.getbuffer())
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error
    finally:
        partial.unlink(missing_ok=True)


def csv_text(table: pa.Table) -> str:
    """Predictions as the lines of a CSV file."""
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue().decode()
