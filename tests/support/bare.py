"""An install of torch, NumPy and pyarrow alone, for processes that must do with them."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def bare_packages(folder: Path, *more: str) -> Path:
    """A folder of links to torch, numpy, pyarrow, more packages, and what they require, as if that were all."""
    waiting, seen = ["torch", "numpy", "pyarrow", *more], set[str]()
    folder.mkdir()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        seen.add(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
        required = [re.match(r"[\w.-]+", line) for line in found.requires or [] if "extra ==" not in line]
        waiting += [match[0] for match in required if match and re.sub(r"[-_.]+", "-", match[0]).lower() not in seen]
    return folder
