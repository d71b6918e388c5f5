"""The files of a saved model: how they are written, whole or not at all, and how they are read and checked.

model.json             schema version; task, policy, seed, metrics, versions; size and SHA-256 of the other files
encoders.json          how rows become inputs, and outputs the user's words
weights.safetensors    the trained weights
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subsettune.bundle.files import replace_folder
from subsettune.config import must
from subsettune.errors import ModelError
from subsettune.storage import Folder

KIND, SCHEMA = "subsettune model", 1
MODEL, ENCODERS, WEIGHTS = "model.json", "encoders.json", "weights.safetensors"
FILES = (ENCODERS, WEIGHTS)
AGAIN = "Copy the model anew, or save it again."
WRITTEN_BY = "`subsettune train --save DIR`"


def write(folder: Folder, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Put a model in its place; one that lies there is replaced.

    Args:
        folder: local, or of an object store, where `model.json` comes last.
        about: what `model.json` tells of it.
        files: the others.

    Raises:
        ModelError: the folder holds something else.
        StorageError: it cannot be written.
    """
    refuse_foreign(folder)
    listed = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()}
    made = to_json({"kind": KIND, **about, "files": listed})
    if folder.is_local:
        replace_folder(Path(folder.path), {**files, MODEL: made})
        return
    folder.remove(MODEL)
    for name, content in {**files, MODEL: made}.items():
        folder.write(name, content)


def refuse_foreign(folder: Folder) -> None:
    """Never replace what is no saved model, or more than one.

    Raises:
        ModelError: the folder is a file, or holds something else.
    """
    if folder.is_local and Path(folder.path).is_file():
        raise ModelError(f"{folder} is a file. Choose a folder for the model.")
    names = folder.names()
    foreign = [name for name in names if name not in (*FILES, MODEL)]
    if names and (MODEL not in names or foreign):
        found = ", ".join((foreign or names)[:3])
        raise ModelError(
            f"{folder} holds what is no part of a saved model: {found}. Choose another folder, or empty it."
        )


def read(folder: Folder) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """What `model.json` and `encoders.json` tell, and the file of weights; all held against their hashes.

    Raises:
        ModelError: it is no saved model, or of another version, or a file is missing or changed.
        StorageError: it cannot be read.
    """
    if not folder.exists(MODEL):
        raise ModelError(f"{folder} is no saved model: {MODEL} is missing. Give a folder that {WRITTEN_BY} wrote.")
    about = _from_json(folder, MODEL, folder.read(MODEL))
    if about.pop("kind", None) != KIND:
        raise ModelError(f"{folder} is no saved model: its {MODEL} is of another kind. Give one of {WRITTEN_BY}.")
    _check_schema(folder, MODEL, about.pop("schema", None))
    listed = about.pop("files", None)
    encoders, weights = (_verified(folder, name, listed) for name in FILES)
    plain = _from_json(folder, ENCODERS, encoders)
    _check_schema(folder, ENCODERS, plain.pop("schema", None))
    return about, plain, weights


def to_json(value: Mapping[str, Any]) -> bytes:
    """A versioned JSON file; NaN and infinity are refused."""
    plain = {"schema": SCHEMA, **value}
    return (json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def damaged(folder: Folder, name: str, why: object) -> ModelError:
    """What is told of a file that is not what was written."""
    return ModelError(f"{folder}: {name} is damaged: {why}. {AGAIN}")


def _from_json(folder: Folder, name: str, raw: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(raw))
    except (ValueError, TypeError) as error:
        raise damaged(folder, name, error) from error


def _check_schema(folder: Folder, name: str, schema: object) -> None:
    if schema != SCHEMA or isinstance(schema, bool):
        advice = "Another version of subsettune wrote it: use that one, or save the model again with this one."
        raise ModelError(f"{folder}: {must(f'schema of {name}', str(SCHEMA), schema, advice)}")


def _verified(folder: Folder, name: str, listed: Any) -> bytes:
    try:
        expected = listed[name]["sha256"]
    except (KeyError, TypeError) as error:
        raise damaged(folder, MODEL, f"it does not list {name}") from error
    if not folder.exists(name):
        raise ModelError(f"{folder}: {name} is missing. {AGAIN}")
    raw = folder.read(name)
    if hashlib.sha256(raw).hexdigest() != expected:
        raise damaged(folder, name, f"its content is not what {MODEL} says")
    return raw
