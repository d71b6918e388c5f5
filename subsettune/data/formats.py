"""Which format a path of the user's own data has: by the name of a file, and by what a folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from subsettune.data.csv_dialect import SUFFIXES as CSV
from subsettune.data.mendable import OtherDataError
from subsettune.data.pictures import is_picture_folder
from subsettune.data.tsv import SUFFIXES as TSV
from subsettune.errors import DataError
from subsettune.task import Data

Format = Literal["npz", "tsv", "csv", "parquet", "pictures"]
MAGIC = b"PAR1"
FOREIGN = (
    *(".xlsx", ".xls", ".ods", ".json", ".jsonl", ".feather", ".arrow", ".h5", ".hdf5", ".pkl", ".pickle", ".zip"),
    *(".tar", ".txt", ".npy", ".pt", ".mat", ".db", ".sqlite", ".xml", ".html"),
)
KINDS: dict[Format, tuple[str, ...]] = {"parquet": (".parquet",), "csv": CSV, "tsv": TSV}

PLAIN = Data(source="digits")  # with the default of each key
WORDS: Mapping[Format, str] = {
    "npz": ".npz files",
    "tsv": ".tsv files",
    "csv": ".csv files",
    "parquet": "Parquet files",
    "pictures": "folders of pictures",
}


def format_of(path: Path) -> Format:
    """The format of a file or folder that is there.

    Raises:
        DataError: a folder has training files of two formats, or a file is of none that is read.
    """
    if not path.is_dir():
        return _of_file(path)
    found = {kind: _training(path, suffixes) for kind, suffixes in KINDS.items()}
    there = [kind for kind, files in found.items() if files]
    if len(there) > 1:
        names = " and ".join(found[kind][0].name for kind in reversed(there))
        raise DataError(f"folder {path} must hold training files of one kind, got {names}. Remove one.")
    if not there and is_picture_folder(path):
        return "pictures"
    return there[0] if there else "parquet"


def _of_file(path: Path) -> Format:
    if path.suffix == ".npz":
        return "npz"
    for kind, suffixes in KINDS.items():
        if path.name.lower().endswith(suffixes):
            return kind
    if path.suffix.lower() in FOREIGN and not _begins_as_parquet(path):
        raise DataError(
            f"{path} must be Parquet, .csv, .tsv or .npz, got {path.suffix.lower()}. Save it as .csv, or as Parquet."
        )
    return "parquet"  # whatever it is called: what is no Parquet is refused when it is opened


def _begins_as_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _training(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for suffix in suffixes for file in path.glob(f"train*{suffix}"))


def refuse_strange(form: Format, data: Data, reads: str | None, words: str) -> None:
    """Keys that mean nothing to a format, which is called so."""
    if form == "npz":
        if data.categorical:
            raise DataError("data.categorical means nothing to .npz files. Write Parquet, or one-hot arrays.")
        if data.exclude:
            raise DataError("data.exclude means nothing to .npz files, of which one array is the input. Remove it.")
        if data.text_keys:
            raise DataError(f"data.{data.text_keys[0]} means nothing to .npz files. Write texts as Parquet or .tsv.")
    keys = {
        "pictures": ("features", "categorical", "embeddings", "exclude", *data.text_keys),
        "csv": ("resize", "color", "embeddings"),
        "parquet": ("csv",),
    }
    of_pictures = {"resize", "color"} if form == "pictures" else set()
    strange = [key for key in keys.get(form, ()) if getattr(data, key) != getattr(PLAIN, key)]
    strange += [key for key in data.given if form in ("npz", "pictures") and key not in of_pictures]
    strange += ["label"] if form == "pictures" and data.label != PLAIN.label else []
    if strange:
        said = f"data.{strange[0]} means nothing to {words}."
        raise OtherDataError(f"{said} Remove the key.", said)
    if reads is not None and form in ("npz", "pictures", "tsv"):
        said = f"split by {reads!r} means nothing to {words}, which have no such column."
        raise OtherDataError(f"{said} Remove the key.", said)
