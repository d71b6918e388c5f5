"""Pictures that a model is asked about: one, or those of a folder, and classes by the names of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from subsettune.data.pictures import picture_files
from subsettune.errors import DataError
from subsettune.trained.rows import Rows, Wanted


def read_pictures(path: Path, wanted: Wanted) -> Rows:
    """Rows of a picture, or of all pictures of a folder, by name.

    A folder that holds nothing but folders called as the classes gives labels too.

    Args:
        path: of the picture or folder.
        wanted: what the model looks for.

    Raises:
        DataError: there are no pictures, or some folders alone are called as classes.
    """
    if not path.is_dir():
        return rows_of_pictures([path], None, wanted, path.parent, where=str(path))
    files = picture_files(path)
    if not files:
        raise DataError(f"folder {path} must hold pictures, got none. Give a picture, or a folder that has some.")
    inside = [file.relative_to(path).parts for file in files]
    folders = dict.fromkeys(parts[0] if len(parts) > 1 else "" for parts in inside)
    known = [name for name in folders if name in wanted.classes]
    others = [name for name in folders if name not in wanted.classes]
    if known and others:
        what = f"folder {others[0]!r}" if others[0] else f"{inside[-1][-1]!r} in no folder"
        raise DataError(
            f"folders of pictures in {path} must be called as the classes that the model knows "
            f"({', '.join(wanted.classes[:20])}), all or none, got {known[0]!r} and {what}. Rename or move it."
        )
    labels = [parts[0] for parts in inside] if known else None
    return rows_of_pictures(files, labels, wanted, path, where=str(path))


def rows_of_pictures(
    files: Sequence[Path], labels: Sequence[str] | None, wanted: Wanted, root: Path, *, where: str
) -> Rows:
    """Rows of some picture files.

    Args:
        files: in the order of the rows.
        labels: of each; None where they have none.
        wanted: what the model looks for.
        root: that they are named from.
        where: what they are called in messages.

    Raises:
        DataError: one cannot be read.
    """
    columns = {wanted.columns[0]: pa.array([_content(file) for file in files], pa.large_binary())}
    if labels is not None:
        columns[wanted.label] = pa.array(labels, pa.large_string())
    names = tuple(file.relative_to(root).as_posix() for file in files)
    return Rows(table=pa.table(columns), where=where, names_of_rows=names)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. Let it be read, or move it away.") from error
