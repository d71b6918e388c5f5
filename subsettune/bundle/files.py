"""The files of a bundle: how each is written, read and checked, and how a folder of them is put in its place whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from subsettune.config import must
from subsettune.errors import BundleError, StorageError
from subsettune.storage import Folder, parsed

KIND, SCHEMA = "subsettune bundle", 1
MANIFEST, POLICY, SUBSET, EVIDENCE, README = (
    "bundle.json",
    "policy.json",
    "subset.parquet",
    "evidence.json",
    "README.md",
)
LABELS = (pa.int64(), pa.float64(), pa.list_(pa.float64()))  # a class number, a value, several values
ROWS = "rows.parquet"  # which bundles of before lack
FILES = (POLICY, SUBSET, EVIDENCE, README)
AGAIN = "Copy the bundle anew, or export it again."


def columns(label: pa.DataType) -> pa.Schema:
    """Columns of the subset table; the label is one of `LABELS`."""
    whole = [(name, pa.int64()) for name in ("phase", "rank", "index")]
    return pa.schema([*whole, ("weight", pa.float32()), ("label", label)])


def write(folder: Folder, files: Mapping[str, bytes]) -> None:
    """Put a bundle in its place, whole or not at all.

    Raises:
        BundleError: the folder holds something else than a bundle.
        StorageError: it cannot be written.
    """
    _refuse_foreign(folder)
    if folder.is_local:
        replace_folder(Path(folder.path), {**files, MANIFEST: _manifest(files)})
        return
    folder.write(MANIFEST, _manifest({}, complete=False))
    for name, content in files.items():
        folder.write(name, content)
    folder.write(MANIFEST, _manifest(files))


def read(folder: Folder) -> dict[str, bytes]:
    """The content of all files, held against their hashes.

    Raises:
        BundleError: the folder is no bundle, or a file is missing or changed.
        StorageError: it cannot be read.
    """
    if not folder.exists(MANIFEST):
        raise BundleError(f"{folder} is no bundle: {MANIFEST} is missing. Give the folder that an export wrote.")
    manifest = from_json(folder, MANIFEST, folder.read(MANIFEST))
    if manifest.get("kind") != KIND:
        raise BundleError(f"{folder} is no bundle: its {MANIFEST} is of another kind. Give the folder of an export.")
    if manifest.get("complete") is not True:
        raise BundleError(f"{folder} is incomplete: its export was interrupted. Export it again.")
    listed = manifest.get("files")
    has_rows = (isinstance(listed, Mapping) and ROWS in listed) or folder.exists(ROWS)
    names = (*FILES, ROWS) if has_rows else FILES
    return {name: _verified(folder, name, listed) for name in names}


def to_json(value: Mapping[str, Any]) -> bytes:
    """A versioned JSON file; NaN and infinity are refused."""
    plain = {"schema": SCHEMA, **value}
    return (json.dumps(plain, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def from_json(folder: Folder, name: str, raw: bytes) -> dict[str, Any]:
    """Read what `to_json` wrote, without the schema number.

    Raises:
        BundleError: it is no JSON object, or of an unknown version.
    """
    try:
        plain = dict(json.loads(raw))
        schema = plain.pop("schema")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, name, error) from error
    _check_schema(folder, name, schema)
    return plain


def to_parquet(table: pa.Table, fingerprint: str, seed: int) -> bytes:
    """The subset table with schema number, data fingerprint and seed in its metadata."""
    return _parquet(table, {"fingerprint": fingerprint, "seed": seed})


def rows_to_parquet(index: pa.Array, label: pa.Array | None, num_source: int) -> bytes:
    """Rows of the training part, with their labels where they are known."""
    named = {"index": index} if label is None else {"index": index, "label": label}
    return _parquet(pa.table(named), {"num_source": num_source})


def _parquet(table: pa.Table, about: Mapping[str, Any]) -> bytes:
    about = {"schema": SCHEMA, **about}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"subsettune": json.dumps(about).encode()}), buffer)
    return buffer.getvalue()


def from_parquet(folder: Folder, raw: bytes) -> tuple[pa.Table, Mapping[str, Any]]:
    """The subset table, and its fingerprint and seed.

    Raises:
        BundleError: it is no Parquet file, of an unknown version, or has other columns.
    """
    table, about = _table(folder, SUBSET, raw)
    if table.schema not in [columns(label) for label in LABELS]:
        raise _damaged(folder, SUBSET, f"its columns are not those of a subset, {table.schema.names}")
    return table, about


def rows_from_parquet(folder: Folder, raw: bytes) -> tuple[pa.Table, int]:
    """What `rows_to_parquet` wrote: columns `index` and, where they are known, `label`; and the rows of the source.

    Raises:
        BundleError: as of `from_parquet`.
    """
    table, about = _table(folder, ROWS, raw)
    fields = {field.name: field.type for field in table.schema}
    num_source = about.get("num_source")
    if fields.pop("index", None) != pa.int64() or fields.pop("label", LABELS[0]) not in LABELS or fields:
        raise _damaged(folder, ROWS, f"its columns are not those of rows, {table.schema.names}")
    if not isinstance(num_source, int) or isinstance(num_source, bool):
        raise _damaged(folder, ROWS, "it does not say how many rows the source has")
    return table, num_source


def _table(folder: Folder, name: str, raw: bytes) -> tuple[pa.Table, Mapping[str, Any]]:
    """A table, and what its metadata tell."""
    try:
        table = parsed(raw)
        about = dict(json.loads((table.schema.metadata or {})[b"subsettune"]))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(folder, name, error) from error
    _check_schema(folder, name, about.get("schema"))
    return table.replace_schema_metadata(None).combine_chunks(), about


def _manifest(files: Mapping[str, bytes], *, complete: bool = True) -> bytes:
    listed = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()}
    return to_json({"kind": KIND, "complete": complete, "files": listed})


def _verified(folder: Folder, name: str, listed: Any) -> bytes:
    try:
        expected = listed[name]["sha256"]
    except (KeyError, TypeError) as error:
        raise _damaged(folder, MANIFEST, f"it does not list {name}") from error
    if not folder.exists(name):
        raise BundleError(f"{folder}: {name} is missing. {AGAIN}")
    raw = folder.read(name)
    if hashlib.sha256(raw).hexdigest() != expected:
        raise _damaged(folder, name, f"its content is not what {MANIFEST} says")
    return raw


def _damaged(folder: Folder, name: str, why: object) -> BundleError:
    return BundleError(f"{folder}: {name} is damaged: {why}. {AGAIN}")


def _check_schema(folder: Folder, name: str, schema: object) -> None:
    if schema != SCHEMA or isinstance(schema, bool):
        advice = "Another version of subsettune wrote it: use that one, or export the bundle again with this one."
        raise BundleError(f"{folder}: {must(f'schema of {name}', str(SCHEMA), schema, advice)}")


def _refuse_foreign(folder: Folder) -> None:
    """Never replace what is not a bundle, or more than one."""
    if folder.is_local and Path(folder.path).is_file():
        raise BundleError(f"{folder} is a file. Choose a folder for the bundle.")
    names = folder.names()
    foreign = [name for name in names if name not in (*FILES, ROWS, MANIFEST)]
    if names and (MANIFEST not in names or foreign):
        found = ", ".join((foreign or names)[:3])
        raise BundleError(f"{folder} holds what is no part of a bundle: {found}. Choose another folder, or empty it.")


def replace_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with these files in the place of `target`, which may exist, and remove what was there.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_back(target)
        for leftover in target.parent.glob(f".{target.name}.partial-*"):  # of an export that was killed
            shutil.rmtree(leftover)
        partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        aside = partial.with_name(f"{partial.name}-old")  # the name of a leftover, so that it is swept
        try:
            _write_folder(partial, files)
            if target.exists():
                target.rename(aside)
            partial.rename(target)
            _flush(target.parent)
        finally:  # an interrupt, too: the old one goes only once the new one is in its place
            _take_back(target)
            for leftover in (partial, aside):
                shutil.rmtree(leftover, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error}. Choose a folder that can be.") from error


def _take_back(target: Path) -> None:
    """Put the bundle back that an export moved aside, where it ended before the new one was in its place."""
    for aside in target.parent.glob(f".{target.name}.partial-*-old"):
        if not target.exists():
            aside.rename(target)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        with (folder / name).open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    _flush(folder)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
