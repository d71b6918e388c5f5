"""A folder with a folder of pictures for each class, as `photos/cat/1.jpg`; or with `train`, `val`, `test` of such.

Pictures of several sizes need `data.resize`; a damaged one is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subsettune.data.columns import ColumnFacts, SourceFacts
from subsettune.data.images import RECOLOUR, RESIZE, check_shape, decode, fitted, size_of
from subsettune.data.layout import arranged_image
from subsettune.data.mendable import MendableDataError
from subsettune.data.raw import Array, Raw
from subsettune.data.scratch import allocate
from subsettune.errors import DataError
from subsettune.task import Data

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".jp2", ".j2k", ".avif", ".jfif"),
)
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "validation"),
    "test": "test",
}
FILES = "files"  # the type of pictures that are some
MOST_NAMED = 5  # in a message
LARGE = 224  # pixels: sizes that are proposed go no further
STEP = 8  # which they are a multiple of


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of a folder.

    Args:
        root: the folder.
        files: of each part, by class in the order of their names.
        left_alone: what lies beside them and is no picture.
    """

    root: Path
    files: dict[str, dict[str, list[Path]]]
    left_alone: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes."""
        return tuple(sorted({name for part in self.files.values() for name in part}))

    def rows(self, part: str) -> list[tuple[Path, str]]:
        """The pictures of a part, each with its class."""
        return [(file, name) for name, files in self.files.get(part, {}).items() for file in files]


def is_picture_folder(path: Path) -> bool:
    """Whether a folder holds folders in which there are pictures."""
    return any(_is_picture(file) for folder in _folders(path) for file in folder.rglob("*"))


def picture_files(path: Path) -> list[Path]:
    """All pictures of a folder, which its content goes by."""
    return sorted(file for file in path.rglob("*") if _is_picture(file) and not _is_hidden(file.relative_to(path)))


def training_pictures(path: Path) -> list[tuple[Path, str]]:
    """The pictures of the training set in the order of their rows, each with its class."""
    return _found(path).rows("train")


def read_pictures(path: Path, data: Data, scratch: Path) -> Raw:
    """Read a folder of pictures.

    Args:
        path: of the folder.
        data: with the size that pictures get, if one is asked for.
        scratch: folder for large arrays.

    Raises:
        DataError: a class has no pictures; pictures are damaged, or have several sizes and get none.
    """
    found = _found(path)
    rows = [row for part in ("train", "validation", "test") for row in found.rows(part)]
    if data.size is None:
        _refuse_sizes(found, [file for file, _ in rows])
    classes = found.classes
    numbers = {name: i for i, name in enumerate(classes)}
    inputs = _read(found, [file for file, _ in rows], data, scratch)
    return Raw(
        inputs=inputs,
        labels=np.array([numbers[name] for _, name in rows], dtype=np.int64),
        num_train=len(found.rows("train")),
        num_validation=len(found.rows("validation")),
        classes=classes,
        facts=SourceFacts(
            files=_folder_names(found, "train"),
            validation_files=_folder_names(found, "validation"),
            test_files=_folder_names(found, "test"),
            left_alone=found.left_alone,
            columns=(
                ColumnFacts(name="picture", role="image", kind=FILES, width=inputs[0].size),
                ColumnFacts(name="folder", role="label", kind="text"),
            ),
        ),
    )


def _found(path: Path) -> Pictures:
    folders = {folder.name: folder for folder in _folders(path)}
    parts = {PARTS[name.lower()]: folder for name, folder in folders.items() if name.lower() in PARTS}
    is_split = "train" in parts and any(_folders(parts["train"]))
    if not is_split:
        return Pictures(root=path, files={"train": _classes(path, path)}, left_alone=_strays(path))
    twice = [name for name in folders if name.lower() in PARTS and folders[name] not in parts.values()]
    beside = [name for name in folders if name.lower() not in PARTS]
    if twice or beside:
        raise DataError(
            f"folder {path} must hold train, and perhaps val and test, got {(twice or beside)[0]!r} beside them. Move "
            "it elsewhere."
        )
    for part, folder in parts.items():
        if not any(_folders(folder)):
            raise DataError(
                f"folder {folder} must hold a folder of pictures for each class, as {parts['train']} does. Without "
                f"classes nothing can be judged on it: move it elsewhere, and a {part} part is drawn."
            )
    return Pictures(
        root=path, files={part: _classes(folder, path) for part, folder in parts.items()}, left_alone=_strays(path)
    )


def _classes(folder: Path, root: Path) -> dict[str, list[Path]]:
    loose = [file.name for file in sorted(folder.iterdir()) if _is_picture(file)]
    if loose:
        raise DataError(f"pictures must lie in the folder of their class, got {loose[0]} in {folder}. Move it.")
    _refuse_broken(folder, root)
    found = {each.name: picture_files(each) for each in _folders(folder)}
    empty = [name for name, files in found.items() if not files]
    if empty:
        where = (folder / empty[0]).relative_to(root.parent)
        raise DataError(f"folder {where} must hold pictures of its class, got none. Add some, or remove the folder.")
    return found


def _refuse_broken(folder: Path, root: Path) -> None:
    """Links that lead nowhere are pictures that somebody believes to be there."""
    names = [file.relative_to(root) for file in sorted(folder.rglob("*")) if file.is_symlink() and not file.exists()]
    broken = [str(name) for name in names if name.suffix.lower() in (*SUFFIXES, "") and not _is_hidden(name)]
    if broken:
        listed = ", ".join(broken[:MOST_NAMED])
        more = f" and {len(broken) - MOST_NAMED:,} more" if len(broken) > MOST_NAMED else ""
        raise DataError(
            f"links in {root} must lead to pictures, got some that lead nowhere: {listed}{more}. Mend or remove them."
        )


def _folders(path: Path) -> Iterator[Path]:
    return (each for each in sorted(path.iterdir()) if each.is_dir() and not each.name.startswith((".", "__")))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _is_hidden(file: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.parts)


def _strays(path: Path) -> tuple[str, ...]:
    """What is no picture and not hidden, a few of them."""
    there = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file() and not _is_picture(file))
    return tuple(str(file) for file in there if not _is_hidden(file))[:MOST_NAMED]


def _folder_names(found: Pictures, part: str) -> tuple[str, ...]:
    return tuple(f"{name}/" for name in found.files.get(part, {}))[:MOST_NAMED] if found.rows(part) else ()


def _refuse_sizes(found: Pictures, files: Sequence[Path]) -> None:
    """Pictures of several sizes make no array."""
    sizes = Counter(size for file in files if (size := size_of(file)) is not None)  # damaged ones are named later
    if len(sizes) < 2:
        return
    listed = ", ".join(f"{h} x {w} ({count:,})" for (h, w), count in sizes.most_common(MOST_NAMED))
    more = f" and {len(sizes) - MOST_NAMED:,} more" if len(sizes) > MOST_NAMED else ""
    height, width = _proposed(sizes)
    message = (
        f"pictures of {found.root} must have one size, got {len(sizes):,} (height x width): {listed}{more}. Scale them "
        f"to one: data.resize: [{height}, {width}]."
    )
    raise MendableDataError(message, {"resize": [height, width]})


def _proposed(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The median of heights and widths, made smaller where it is large."""
    every = np.array([size for size, count in sizes.items() for _ in range(count)])
    height, width = (float(side) for side in np.median(every, axis=0))
    scale = min(1.0, LARGE / max(height, width))
    return tuple(max(STEP, STEP * round(side * scale / STEP)) for side in (height, width))  # type: ignore[return-value]


def _read(found: Pictures, files: Sequence[Path], data: Data, scratch: Path) -> Array:
    """All pictures; the damaged ones are named together, since one by one they take an evening."""
    inputs: Array | None = None
    damaged: list[str] = []
    for i, file in enumerate(files):
        where = str(file.relative_to(found.root.parent))
        try:
            image = fitted(decode(file.read_bytes(), where), data)
        except DataError as error:
            damaged.append(str(error))
            continue
        except OSError as error:
            damaged.append(f"{where} cannot be read: {error.strerror}.")
            continue
        image = arranged_image(image, data.layout, where)
        if inputs is None:
            inputs = allocate((len(files), *image.shape), image.dtype, scratch)
        if len(image.shape) == 3 and len(image) != len(inputs[0]):
            message = f"pictures must be all grey or all RGB, got {len(inputs[0])} and {len(image)} channels ({where})."
            raise MendableDataError(f"{message} {RECOLOUR}", {"color": "rgb"})
        check_shape(image.shape, inputs.shape[1:], where, RESIZE)
        if image.dtype != inputs.dtype:
            raise DataError(
                f"images must have 8 bits a channel in all files, or more in all, got both ({where}). Convert them "
                "beforehand."
            )
        inputs[i] = image
    if damaged or inputs is None:
        more = f" So it is with {len(damaged) - 1:,} more: {_others(damaged)}." if len(damaged) > 1 else ""
        raise DataError(f"{damaged[0]}{more}")
    return inputs


def _others(damaged: Sequence[str]) -> str:
    names = [sentence.removeprefix("image in ").split(" cannot ")[0] for sentence in damaged[1 : MOST_NAMED + 1]]
    return ", ".join(names)
