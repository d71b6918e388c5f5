"""Where examples come from: named data sets, Parquet, .npz, and the user's own datasets, all read into plain arrays."""

from __future__ import annotations

import hashlib
import inspect
import sys
import warnings
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data set that torchvision knows.

    Args:
        cls: its class in `torchvision.datasets`.
        folder: of the unpacked files, below the root.
        archives: where the packed files lie, below the root.
    """

    cls: str
    folder: str
    archives: tuple[str, ...]


IDX = tuple(
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
)
TORCHVISION = {
    "mnist": Published(cls="MNIST", folder="MNIST/raw", archives=tuple(f"MNIST/raw/{name}" for name in IDX)),
    "fashion_mnist": Published(
        cls="FashionMNIST", folder="FashionMNIST/raw", archives=tuple(f"FashionMNIST/raw/{name}" for name in IDX)
    ),
    "cifar10": Published(cls="CIFAR10", folder="cifar-10-batches-py", archives=("cifar-10-python.tar.gz",)),
    "cifar100": Published(cls="CIFAR100", folder="cifar-100-python", archives=("cifar-100-python.tar.gz",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that has been found, but not read.

    Args:
        name: for people.
        key: changes when the source changes: paths, sizes and times of its files, or the user's code and options.
        read: reads all of it; takes a folder, not there yet, that it may use and that is removed afterwards.
    """

    name: str
    key: str
    read: Callable[[Path], Raw]


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
        return Source(name=name, key=config.digest(["digits", 1]), read=lambda _: _read_digits())
    root, published = places.torchvision_root(), TORCHVISION[name]
    files = [_stat(root / published.folder), *(_stat(root / archive) for archive in published.archives)]
    key = config.digest([name, files, str(root)])
    return Source(name=name, key=key, read=lambda scratch: _read_torchvision(name, places, scratch))


def _read_digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.ascontiguousarray(bunch.images.astype(np.uint8)[:, None])
    names = tuple(str(name) for name in bunch.target_names)
    return Raw(inputs=images, labels=bunch.target.astype(np.int64), num_train=len(images), classes=names)


def _read_torchvision(name: str, places: Places, scratch: Path) -> Raw:
    """Read archives if they are there (verified, and unpacked elsewhere: the root may be read-only), else the root."""
    root, published = places.torchvision_root(), TORCHVISION[name]
    archives = [root / archive for archive in published.archives]
    if all(archive.is_file() for archive in archives):
        _link(name, archives, root, scratch)
        root = scratch
    elif not places.download and not (root / published.folder).is_dir():
        raise _absent(name, places, "the files are not there, and downloads are switched off")
    parts = _open_torchvision(name, root, places)
    images = np.concatenate([_channels_first(np.asarray(part.data)) for part in parts])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return Raw(inputs=images, labels=labels, num_train=len(parts[0].data), classes=tuple(map(str, parts[0].classes)))


def _open_torchvision(name: str, root: Path, places: Places) -> list[Any]:
    """The training and test set as torchvision reads them; it verifies archives, and downloads only what is missing."""
    import torchvision

    cls = getattr(torchvision.datasets, TORCHVISION[name].cls)
    own = root == places.torchvision_root()
    try:
        if own and places.download:
            root.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, about the age of CIFAR's files
            return [cls(root=str(root), train=train, download=places.download or not own) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise _absent(name, places, str(error).strip().splitlines()[0]) from error
    except (ValueError, EOFError, AssertionError, KeyError, TypeError) as error:
        folder = root / TORCHVISION[name].folder
        raise DataError(
            f"files of {name} in {folder} are damaged: {error!r}. Remove them and fetch them again."
        ) from error


def _link(name: str, archives: list[Path], root: Path, scratch: Path) -> None:
    """Put verified archives where torchvision unpacks them. An unverified one it would download, over the user's."""
    import torchvision

    cls = getattr(torchvision.datasets, TORCHVISION[name].cls)
    known = dict(cls.resources) if hasattr(cls, "resources") else {cls.filename: cls.tgz_md5}
    for archive in archives:
        if not torchvision.datasets.utils.check_integrity(str(archive), known[archive.name]):
            raise DataError(f"{archive} is damaged: it is not the published file. Remove it and fetch it again.")
        link = scratch / archive.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(archive)


def _absent(name: str, places: Places, why: str) -> DataNotFoundError:
    root, published = places.torchvision_root(), TORCHVISION[name]
    files = ", ".join(published.archives)
    return DataNotFoundError(
        f"{name} cannot be read from {root / published.folder}: {why}. Allow the download, put {files} (as published) "
        f"into {root}, or give --data-root the folder that holds them."
    )


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
        return Source(name=str(path), key=key, read=lambda _: read_npz(path, data))
    return Source(name=str(path), key=key, read=lambda _: read_parquet(path, data, kind))


def _function(data: Data, kind: str) -> Source:
    function = load_object(data.source, "data")
    try:
        code = Path(inspect.getfile(function)).read_bytes()
    except (OSError, TypeError):  # built in or made at run time: its module's name must do
        code = str(sys.modules.get(getattr(function, "__module__", ""), "")).encode()
    key = config.digest([data.source, data, kind, hashlib.sha256(code).hexdigest()])
    return Source(name=data.source, key=key, read=lambda _: read_function(function, data))


def _stat(path: Path) -> list[list[Any]]:
    """Names, sizes and times of a file, or of the files in a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file()) if path.is_dir() else []
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
