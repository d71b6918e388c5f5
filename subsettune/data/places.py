"""Where this machine keeps data and caches: no part of a task's identity."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from subsettune import config
from subsettune.errors import StorageError
from subsettune.storage import absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPaths:
    """Folders of this machine.

    Args:
        data_root: torchvision's root of named data sets, and the base of relative paths of own data; default: for named
            data sets a folder in the cache, for own data the current folder.
        cache: of Arrow files and references; default `$SUBSETTUNE_CACHE`, else the user's cache folder.
        download: whether named data sets may be fetched.
    """

    data_root: str | None = None
    cache: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def cache_folder(self) -> str:
        """The cache folder, resolved; it need not be there yet."""
        if self.cache is not None:
            return str(absolute(self.cache))
        given = os.environ.get("SUBSETTUNE_CACHE")
        if given:
            return str(absolute(given))
        try:
            return _user_cache()
        except RuntimeError as error:  # in a container, of a user without an entry in /etc/passwd
            raise StorageError(
                "cache must be given here, got none: this user has no home folder. Give --cache, or set HOME."
            ) from error

    def torchvision_root(self) -> Path:
        """Where torchvision keeps, or puts, its data sets."""
        if self.data_root is not None:
            return absolute(self.data_root)
        return Path(self.cache_folder) / "torchvision"

    def own(self, path: str) -> Path:
        """A path of the user's own data."""
        if self.data_root is None or Path(path).is_absolute() or path.startswith("~"):
            return absolute(path)
        return absolute(self.data_root) / path


def _user_cache() -> str:
    try:
        from platformdirs import user_cache_dir
    except ImportError:  # following a bundle needs torch, numpy and pyarrow alone
        return str(Path.home() / ".cache" / "subsettune")
    return user_cache_dir("subsettune")
