"""Room for arrays that are being read: memory for small ones, a file without a name for large ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from subsettune.errors import StorageError

MEMORY_BYTES = 2**28  # larger arrays go to disk: their pages can leave memory, and a node need not hold data twice


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any] | type, folder: Path) -> np.ndarray[Any, Any]:
    """An array to be filled.

    Args:
        shape: of it.
        dtype: of it.
        folder: where its file lies, if it needs one; the file is gone from the folder at once, and from the disk with
            the array or the process, however that ends.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if num_bytes <= MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    path = folder / f"array-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as file:
            path.unlink()
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # a full disk is an error now, not a signal later
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        needed = f"{num_bytes / 2**20:,.0f} MiB"
        raise StorageError(
            f"cache {folder.parent} cannot take {needed}: {error}. Give --cache a folder with room."
        ) from error
