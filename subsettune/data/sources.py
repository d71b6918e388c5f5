"""Where examples come from: named data sets, Parquet, .npz, and the user's own datasets, all read into plain arrays."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subsettune import config
from subsettune.data.own import read_npz, read_parquet
from subsettune.data.places import Places
from subsettune.data.raw import Raw
from subsettune.data.user import read_function
from subsettune.errors import DataError, DataNotFoundError
from subsettune.plugins import load_object
from subsettune.task import DATASETS, Data

TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that has been found, but not read.

    Args:
        name: for people.
        key: changes when the source changes: paths, sizes and times of its files, or the user's code and options.
        read: reads all of it.
    """

    name: str
    key: str
    read: Callable[[], Raw]


def find(data: Data, kind: str, places: Places) -> Source:
    """Find the source of a task's data.

    Args:
        data: of the task.
        kind: `classification` or `regression`.
        places: where this machine keeps things.

    Raises:
        DataNotFoundError: it is not there.
        ConfigError: the user's function cannot be imported.
    """
    if data.options and ":" not in data.source:
        raise DataError(f"data.options mean nothing to {data.source!r}: they are arguments of a function. Remove them.")
    if data.source in DATASETS:
        if data.features is not None:
            raise DataError(f"data.features mean nothing to {data.source!r}: its input is the image. Remove the key.")
        return _named(data.source, places)
    if ":" in data.source:
        return _function(data, kind)
    return _files(data, kind, places)


def _named(name: str, places: Places) -> Source:
    if name == "digits":
        return Source(name=name, key=config.digest(["digits", 1]), read=_read_digits)
    root = places.torchvision_root()
    files = _stat(root / TORCHVISION[name][1])
    return Source(name=name, key=config.digest([name, files, str(root)]), read=lambda: _read_torchvision(name, places))


def _read_digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.ascontiguousarray(bunch.images.astype(np.uint8)[:, None])
    names = tuple(str(name) for name in bunch.target_names)
    return Raw(inputs=images, labels=bunch.target.astype(np.int64), num_train=len(images), classes=names)


def _read_torchvision(name: str, places: Places) -> Raw:
    import torchvision

    root, (cls_name, folder) = places.torchvision_root(), TORCHVISION[name]
    cls = getattr(torchvision.datasets, cls_name)
    try:
        if places.download:
            root.mkdir(parents=True, exist_ok=True)
        parts = [cls(root=str(root), train=train, download=places.download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        advice = "Put torchvision's files there, or give --data-root the folder that holds them."
        raise DataNotFoundError(f"{name} is not in {root / folder} ({reason}). {advice}") from error
    images = np.concatenate([_channels_first(np.asarray(part.data)) for part in parts])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return Raw(inputs=images, labels=labels, num_train=len(parts[0].data), classes=tuple(map(str, parts[0].classes)))


def _channels_first(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, dtype=np.uint8)


def _files(data: Data, kind: str, places: Places) -> Source:
    path = places.own(data.source)
    if not path.exists():
        raise DataNotFoundError(
            f"data {str(path)!r} are not there. Give a .parquet or .npz file, or a folder of Parquet."
        )
    key = config.digest([str(path), _stat(path), data, kind])
    if path.suffix == ".npz":
        return Source(name=str(path), key=key, read=lambda: read_npz(path, data))
    return Source(name=str(path), key=key, read=lambda: read_parquet(path, data, kind))


def _function(data: Data, kind: str) -> Source:
    function = load_object(data.source, "data")
    try:
        code = Path(inspect.getfile(function)).read_bytes()
    except (OSError, TypeError):  # built in or made at run time: its module's name must do
        code = str(sys.modules.get(getattr(function, "__module__", ""), "")).encode()
    key = config.digest([data.source, data, kind, hashlib.sha256(code).hexdigest()])
    return Source(name=data.source, key=key, read=lambda: read_function(function, data))


def _stat(path: Path) -> list[list[Any]]:
    """Names, sizes and times of a file, or of the files in a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file()) if path.is_dir() else []
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
