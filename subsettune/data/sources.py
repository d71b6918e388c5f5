"""Where examples come from: named data sets, Parquet, .tsv, .npz, and the user's own datasets, as plain arrays."""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
import tarfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from subsettune import config, in_memory
from subsettune.data.formats import WORDS, Format, format_of, refuse_strange
from subsettune.data.handed_over import name_of, read_given
from subsettune.data.npz import read_npz
from subsettune.data.observed import data_files, observed
from subsettune.data.parquet import read_csv, read_parquet
from subsettune.data.pictures import picture_files, read_pictures
from subsettune.data.places import DataPaths
from subsettune.data.raw import Raw
from subsettune.data.shards import HELD_OUT, VALIDATION
from subsettune.data.tsv import read_tsv
from subsettune.data.user import UserData
from subsettune.digests import FileDigests
from subsettune.errors import DataError, DataNotFoundError
from subsettune.extras import needed_for
from subsettune.plugins import load_object, source_digest
from subsettune.registry import DATASETS
from subsettune.task import Data
from subsettune.user_code import digest_of_files


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

PACKED_ERRORS = (zlib.error, tarfile.TarError, pickle.UnpicklingError)
ABSENT = (
    "Error downloading",
    "Dataset not found",
    "Dataset metadata",
    "File not found",
)  # RuntimeErrors of torchvision
SILENCE_S = 30.0
CLOCKS_DIFFER_NS = 2 * 10**9  # between this machine and a file server, and the coarsest times of files
READING = 7  # raise it when the same files come to give other arrays: caches made before are then passed over
GIVEN_FORMS: Mapping[str, Format] = {in_memory.TABLE: "parquet", in_memory.ARRAYS: "npz"}
_AT_IMPORT: dict[str, set[str]] = {}  # files that were opened while a module of the user's was imported


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source that has been found, but not read.

    Args:
        name: for people.
        key: changes when the source changes: paths and contents of its files, or the user's code and options.
        read: reads all of it; takes a folder, not there yet, that it may use and that is removed afterwards.
        key_now: the key after reading, which may fetch files or take long enough for somebody to change them.
        may_fetch: whether reading it may fetch files; another key afterwards is otherwise a mistake.
        witness: what else a cached copy must agree with; null for nothing.
    """

    name: str
    key: str
    read: Callable[[Path], Raw]
    key_now: Callable[[], str] | None = None
    may_fetch: bool = False
    witness: Witness | None = None


class Witness(Protocol):
    """Tells whether what was once read from a source is what would be read now."""

    def evidence(self) -> dict[str, Any]:
        """What to keep beside a copy that was just read, for JSON."""

    def files_now(self, kept: Mapping[str, Any]) -> list[Any]:
        """The files of evidence as they are now, for comparison with `kept["files"]`; a look, and no more."""

    def holds(self, kept: Mapping[str, Any]) -> bool:
        """Whether evidence still holds."""


def find(data: Data, kind: str, places: DataPaths, reads: str | None = None) -> Source:
    """Find the source of a task's data.

    Args:
        data: what the task says of its source, columns and options.
        kind: `classification` or `regression`.
        places: where this machine keeps things.
        reads: the column that the task's split goes by, if any.

    Raises:
        DataNotFoundError: it is not there.
        ConfigError: the user's function cannot be imported.
    """
    _refuse_ignored(data, reads)
    if data.source in DATASETS:
        return _named(data.source, kind, places)
    if in_memory.is_given(data.source):
        return _given(data, kind, reads)
    if "://" in data.source:
        raise DataError(f"data.source must be a local path, got {data.source!r}. Copy it to a folder of every machine.")
    if is_function(data.source):
        return _function(data, kind, places)
    return _files(data, kind, places, reads)


def _given(data: Data, kind: str, reads: str | None) -> Source:
    """Data that were handed over in Python: their name holds a hash of their content."""
    form = GIVEN_FORMS.get(in_memory.kind_of(data.source))
    if form is not None:
        refuse_strange(form, data, reads, "arrays" if form == "npz" else WORDS[form])
    elif reads is not None:
        raise DataError(f"split by {reads!r} means nothing to a Dataset, which has no columns. Remove the key.")
    key = config.digest([data, kind, READING, *([] if reads is None else [reads])])
    return Source(name=name_of(data.source), key=key, read=lambda scratch: read_given(data, kind, scratch, reads))


def is_function(source: str) -> bool:
    """Whether a source is `package.module:function`, and no path with a colon in it."""
    return ":" in source and "/" not in source


def _refuse_ignored(data: Data, reads: str | None) -> None:
    """A key that nobody reads would be a wrong belief about the data."""
    function, named = is_function(data.source) or _is_given_dataset(data.source), data.source in DATASETS
    if data.options and _is_given_dataset(data.source):
        raise DataError("data.options mean nothing to a Dataset: they are arguments of a function. Remove them.")
    if data.options and not function:
        raise DataError(f"data.options mean nothing to {data.source!r}: they are arguments of a function. Remove them.")
    is_set = {
        "features": data.features is not None,
        "label": data.label != "label",
        "categorical": bool(data.categorical),
        "embeddings": data.embeddings is not None,
        "exclude": bool(data.exclude),
        **dict.fromkeys(data.text_keys, True),
        "layout": data.layout is not None and not function,
        **dict.fromkeys(data.given, True),
    }
    given = [key for key in is_set if is_set[key]]
    if given and (named or function):
        raise DataError(
            f"data.{given[0]} means nothing to {data.source!r}: its input and label are known. Remove the key."
        )
    if reads is not None and (named or function):
        raise DataError(f"split by {reads!r} means nothing to {data.source!r}, which has no columns. Remove the key.")


def _is_given_dataset(source: str) -> bool:
    return in_memory.is_given(source) and in_memory.kind_of(source) == in_memory.DATASET


def _named(name: str, kind: str, places: DataPaths) -> Source:
    if name == "digits":
        return Source(name=name, key=config.digest(["digits", kind, READING]), read=lambda _: _read_digits())
    root, published = places.torchvision_root(), TORCHVISION[name]

    def key() -> str:
        files = [root / archive for archive in published.archives]
        if not all(file.is_file() for file in files):  # else they alone are read
            files = sorted(file for file in (root / published.folder).glob("*") if file.is_file())
        return config.digest([name, kind, READING, _digests(places, f"{root}/{name}", files), str(root)])

    def read(scratch: Path) -> Raw:
        return _read_torchvision(name, places, scratch)

    return Source(name=name, key=key(), read=read, key_now=key, may_fetch=True)


def _read_digits() -> Raw:
    with needed_for("data set 'digits'"):
        from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.ascontiguousarray(bunch.images.astype(np.uint8)[:, None])
    names = tuple(str(name) for name in bunch.target_names)
    return Raw(inputs=images, labels=bunch.target.astype(np.int64), num_train=len(images), classes=names)


def _read_torchvision(name: str, places: DataPaths, scratch: Path) -> Raw:
    """Read archives if they are there (verified, and unpacked elsewhere: the root may be read-only), else the root."""
    root, published = places.torchvision_root(), TORCHVISION[name]
    archives = [root / archive for archive in published.archives]
    if all(archive.is_file() for archive in archives):
        _link(name, archives, root, scratch)
        root = scratch
    elif not places.download and not (root / published.folder).is_dir():
        raise _absent(name, places, "they are not there, and downloads are switched off")
    parts = _open_torchvision(name, root, places)
    images = np.concatenate([_channels_first(np.asarray(part.data)) for part in parts])
    labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in parts])
    return Raw(inputs=images, labels=labels, num_train=len(parts[0].data), classes=tuple(map(str, parts[0].classes)))


def _open_torchvision(name: str, root: Path, places: DataPaths) -> list[Any]:
    """The training and test set as torchvision reads them; it verifies archives, and downloads only what is missing."""
    with needed_for(f"data set {name!r}"):
        import torchvision

    cls = getattr(torchvision.datasets, TORCHVISION[name].cls)
    own = root == places.torchvision_root()
    try:
        if own and places.download:
            root.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), _patience():
            warnings.simplefilter("ignore")  # of NumPy, about the age of CIFAR's files
            return [cls(root=str(root), train=train, download=places.download or not own) for train in (True, False)]
    except (OSError, HTTPException) as error:
        raise _absent(name, places, _reason(error)) from error
    except RuntimeError as error:
        if str(error).startswith(ABSENT):
            raise _absent(name, places, _reason(error)) from error
        raise _damaged(name, root, error) from error
    except (ValueError, EOFError, AssertionError, LookupError, TypeError, *PACKED_ERRORS) as error:
        raise _damaged(name, root, error) from error


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Downloads give up on a silent network: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _link(name: str, archives: list[Path], root: Path, scratch: Path) -> None:
    """Put verified archives where torchvision unpacks them. An unverified one it would download, over the user's."""
    with needed_for(f"data set {name!r}"):
        import torchvision

    cls = getattr(torchvision.datasets, TORCHVISION[name].cls)
    known = dict(cls.resources) if hasattr(cls, "resources") else {cls.filename: cls.tgz_md5}
    for archive in archives:
        if not torchvision.datasets.utils.check_integrity(str(archive), known[archive.name]):
            raise DataError(f"{archive} is damaged: it is not the published file. Remove it and fetch it again.")
        link = scratch / archive.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(archive)


def _reason(error: Exception) -> str:
    """Of torchvision's many lines, the last says why."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".:")


def _absent(name: str, places: DataPaths, why: str) -> DataNotFoundError:
    root, archives = places.torchvision_root(), TORCHVISION[name].archives
    files = ", ".join(Path(archive).name for archive in archives)
    first = "Connect to the network" if places.download else "Allow the download"
    return DataNotFoundError(
        f"files of {name} cannot be had in {root / TORCHVISION[name].folder}: {why}. {first}, put {files} (as "
        f"published) into {(root / archives[0]).parent}, or give --data-root the folder that holds them."
    )


def _damaged(name: str, root: Path, error: Exception) -> DataError:
    folder = root / TORCHVISION[name].folder
    return DataError(f"files of {name} in {folder} are damaged: {_reason(error)}. Remove them and fetch them again.")


def _channels_first(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, dtype=np.uint8)


def _files(data: Data, kind: str, places: DataPaths, reads: str | None) -> Source:
    path = places.own(data.source)
    if not path.exists():
        advice = (
            "Give a .parquet, .csv, .tsv or .npz file, or a folder of such or of pictures; --data-root, in Python "
            "DataPaths(data_root=...), is the base of relative paths."
        )
        raise DataNotFoundError(f"data {str(path)!r} are not there. {advice}")

    form = format_of(path)

    def key() -> str:
        split = [] if reads is None else [reads]
        return config.digest(
            [str(path), _digests(places, str(path), _own_files(path, form)), data, kind, READING, *split]
        )

    def source(read: Callable[[Path], Raw]) -> Source:
        return Source(name=str(path), key=key(), read=read, key_now=key)

    refuse_strange(form, data, reads, WORDS[form])
    if form == "npz":
        return source(lambda scratch: read_npz(path, data, scratch))
    if form == "pictures":
        return source(lambda scratch: read_pictures(path, data, scratch))
    if form == "tsv":
        return source(lambda scratch: read_tsv(path, data, kind, scratch))
    if form == "csv":
        return source(lambda scratch: read_csv(path, data, kind, scratch, reads))
    return source(lambda scratch: read_parquet(path, data, kind, scratch, reads))


def _own_files(path: Path, form: Format) -> list[Path]:
    """A file, or the files in a folder that may be read: those of all parts, or all pictures."""
    if path.is_file():
        return [path]
    if form == "pictures":
        return picture_files(path)
    begins = ("train", "test", *VALIDATION, *HELD_OUT)
    return sorted(file for begin in begins for file in path.glob(f"{begin}*") if file.is_file())


def _digests(places: DataPaths, name: str, files: Iterable[Path]) -> list[list[str]]:
    """Path and content hash of the files of a source, which the cache remembers under its name."""
    memory = Path(places.cache_folder) / "digests" / f"{config.digest(name)[:32]}.json"
    return FileDigests(memory).of(files)


def _function(data: Data, kind: str, places: DataPaths) -> Source:
    module, files = data.source.partition(":")[0], set[str]()
    is_new = module not in sys.modules
    with observed(files):
        function = load_object(data.source, "data")
    if is_new:  # later looks at the source import nothing
        _AT_IMPORT[module] = files
    key = config.digest([data.source, data, kind, READING, source_digest(data.source, what="data")])
    user = _ObservedFunction(UserData(function, data), places, set(_AT_IMPORT.get(module, ())))
    return Source(name=data.source, key=key, read=user.read, witness=user)


class _ObservedFunction:
    """A user's function, and the files that it reads.

    Args:
        user: what it returns, not asked for yet.
        places: whose cache remembers their hashes.
        files: opened so far.
    """

    def __init__(self, user: UserData, places: DataPaths, files: set[str]) -> None:
        self._user, self._places, self._files = user, places, files
        self._start_ns = time.time_ns()

    def read(self, scratch: Path) -> Raw:
        self._start_ns = time.time_ns()
        with observed(self._files):
            return self._user.read(scratch)

    def evidence(self) -> dict[str, Any]:
        """Hash of a sample of the examples, and of each file; none of one that changed while it was read."""
        named = {str(Path(name).expanduser().absolute()) for name, _ in digest_of_files(self._user.options)}
        files = data_files(self._files | named, Path(self._places.cache_folder))
        since_ns = self._start_ns - CLOCKS_DIFFER_NS
        settled = [max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) < since_ns for file in files]
        found = zip(self._now(files), settled, strict=True)
        return {
            "sample": self._user.digest(),
            "files": [[path, digest if is_settled else None] for (path, digest), is_settled in found],
        }

    def files_now(self, kept: Mapping[str, Any]) -> list[Any]:
        return self._now([Path(path) for path, _ in kept.get("files", ())])

    def holds(self, kept: Mapping[str, Any]) -> bool:
        if "sample" not in kept or self.files_now(kept) != kept["files"]:
            return False
        with observed(self._files):
            return bool(self._user.digest() == kept["sample"])

    def _now(self, files: Iterable[Path]) -> list[list[str]]:
        return _digests(self._places, self._user.source, files)
