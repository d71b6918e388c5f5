"""Turn the TREC question classification data into Parquet, for search_spaces/trec.yaml.

    python benchmarks/convert/trec.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds the label files of Li and Roth (2002) as TREC.train and TREC.test, or under the names of their page,
https://cogcomp.seas.upenn.edu/Data/QA/QC/ (train_5500.label, TREC_10.label), gzipped or not. OUT_DIR/trec/train.parquet
(5,452 questions) and test.parquet (500) are written; OUT_DIR is what `--data-root` then names. A line holds a class, as
HUM:ind, and a question, in Latin-1; the columns are `text`, `label` (the 6 coarse classes, as HUM) and `fine` (the 50
fine ones, as HUM:ind).
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
from published import main

PARTS = {"train": ("TREC.train", "train_5500.label"), "test": ("TREC.test", "TREC_10.label")}
SCHEMA = pa.schema([(name, pa.string()) for name in ("text", "label", "fine")])


def table(path: Path) -> pa.Table:
    """The questions in one file.

    Raises:
        ValueError: a line is not as it was published.
    """
    rows = []
    with gzip.open(path, "rt", encoding="latin-1") if path.suffix == ".gz" else path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, start=1):
            fine, _, text = line.strip().partition(" ")
            coarse, colon, _ = fine.partition(":")
            if not (coarse and colon and text):
                raise ValueError(f"{path} must hold CLASS:class and a question a line, got {line!r} in line {number}.")
            rows.append({"text": text, "label": coarse, "fine": fine})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


if __name__ == "__main__":
    main(__doc__, "trec", PARTS, table, "questions")
