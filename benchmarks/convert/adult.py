"""Turn the Adult (Census Income) data into Parquet, for search_spaces/adult.yaml and search_spaces/adult_hours.yaml.

    python benchmarks/convert/adult.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds adult.data and adult.test as UCI publishes them (https://archive.ics.uci.edu/dataset/2/adult, CC BY
4.0), gzipped or not. OUT_DIR/adult/train.parquet (32,561 rows) and test.parquet (16,281 rows) are written; OUT_DIR is
what `--data-root` then names. Columns keep their order and get snake_case names; numbers are int64, "?" becomes null,
the lines that hold no example are dropped, and so is the full stop after the labels of adult.test.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
from published import main

NUMBERS = ("age", "final_weight", "education_years", "capital_gain", "capital_loss", "hours_per_week")
COLUMNS = (
    *("age", "workclass", "final_weight", "education", "education_years", "marital_status", "occupation"),
    *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
)
PARTS = {"train": ("adult.data",), "test": ("adult.test",)}
MISSING = "?"


def table(path: Path) -> pa.Table:
    """The examples in one file.

    Raises:
        ValueError: a line is not as UCI publishes it.
    """
    columns: dict[str, list[str | int | None]] = {name: [] for name in COLUMNS}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for number, fields in enumerate(csv.reader(file, skipinitialspace=True), start=1):
            if not fields or fields[0].startswith("|"):
                continue
            if len(fields) != len(COLUMNS):
                raise ValueError(f"{path} must have {len(COLUMNS)} fields a line, got {len(fields)} in line {number}.")
            for name, field in zip(COLUMNS, fields, strict=True):
                columns[name].append(value(name, field))
    kinds = [(name, pa.int64() if name in NUMBERS else pa.string()) for name in COLUMNS]
    return pa.table(columns, schema=pa.schema(kinds))


def value(name: str, field: str) -> str | int | None:
    """A field as a number, a text, or nothing."""
    if field == MISSING:
        return None
    if name in NUMBERS:
        return int(field)
    return field.removesuffix(".") if name == "income" else field


if __name__ == "__main__":
    main(__doc__, "adult", PARTS, table, "examples")
