"""From files as they were published to `train.parquet` and `test.parquet`, for the conversions of this folder.

No command of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Parts = Mapping[str, tuple[str, ...]]


def main(description: str, name: str, parts: Parts, table: Callable[[Path], pa.Table], what: str) -> None:
    """A command that converts the files of SOURCE_DIR to OUT_DIR/name/PART.parquet and says how much they hold.

    Args:
        description: of the command.
        name: of the folder that is made.
        parts: names under which the file of each part may lie, gzipped or not.
        table: the examples in one file; raises ValueError where it is not as it was published.
        what: its rows are called.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE_DIR", type=Path)
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    given = parser.parse_args()
    folder = given.out / name
    try:
        tables = {part: table(_find(given.source, names)) for part, names in parts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for part, made in tables.items():
            pq.write_table(made, folder / f"{part}.parquet")
            print(f"{folder / part}.parquet: {made.num_rows:,} {what}")
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def _find(source: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        for path in (source / name, source / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"{source} must hold {' or '.join(names)}, gzipped or not, got neither. Fetch it.")
