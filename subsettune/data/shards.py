"""Which files of a folder are its training set, and which its official test set: one file each, or numbered shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from subsettune.errors import DataError

# train, train-00000-of-00002, train-00000-of-00002-0123456789abcdef (as the hub wrote them), train_3, train.part07
SHARD = re.compile(
    r"(train|validation|valid|val|dev|test)(?:[-_.]?(?:part|shard)?[-_.]?(\d+)(?:-of-(\d+))?(?:-[0-9a-f]{16})?)?"
)
NAMED = re.compile(r"(train|validation|valid|val|dev|test)(?:[-_.].*)?")
MOST_NAMED = 5  # in a message
VALIDATION = ("val", "dev")  # how names of validation sets begin
HELD_OUT = ("eval", "holdout", "heldout")  # how names begin of what some call a test set, and others validation
KINDS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")  # of files that a folder may hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The files of a folder.

    Args:
        train: of the training set, in the order of their names.
        test: of the official test set, likewise; empty where there is none.
        validation: of the official validation set, likewise.
        left_alone: files that are neither, and whose names begin as theirs do, or as those of validation sets.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    left_alone: tuple[Path, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each part of which something is left alone."""
        advice = {
            "train": "if another one is the training set, give its path as data.source",
            "test": "if another one is the test set, move this one elsewhere",
        }
        found = []
        for part, read in (("train", self.train), ("test", self.test)):
            left = [path for path in self.left_alone if path.name.startswith(part)]
            if left:
                several = f"files {_names(left)} are" if len(left) > 1 else f"file {left[0].name} is"
                found.append(
                    f"{several} not read beside {_names(read) or 'the training set'}. If they are parts of one set, "
                    f"number all as shards ({part}-0, {part}-1); {advice[part]}."
                )
        held = [path for path in self.left_alone if path.name.startswith(HELD_OUT)]
        if held:
            found.append(
                f"file {held[0].name} is not read: it is not known whether it is a validation or a test set. Rename it "
                "to validation or test, or move it elsewhere."
            )
        return tuple(found)


def parts(folder: Path, suffixes: Sequence[str], *, has_validation: bool = False) -> Parts:
    """Tell training and test files of a folder from what lies beside them.

    `train.parquet` is the training set, and so are all numbered shards of one: `train-00000-of-00002.parquet`,
    `train_1.parquet`. A file with another name, such as `train_small.parquet`, is no part of it: it is left alone
    beside them, and is the training set where it is the only file whose name begins so. For the test set likewise.

    Args:
        folder: to look in, not below.
        suffixes: of the files.
        has_validation: whether `validation`, `valid`, `val` and `dev` are a validation set, or left alone.

    Raises:
        DataError: shards are missing, or stand beside a whole file; or none of several files is meant.
    """
    found: dict[str, tuple[Path, ...]] = {}
    others: list[Path] = []
    for part in ("train", "test", *(("validation",) if has_validation else ())):
        begins = VALIDATION if part == "validation" else (part,)
        found_there = (path for begin in begins for suffix in suffixes for path in folder.glob(f"{begin}*{suffix}"))
        files = {path: _stem(path, suffixes) for path in found_there}
        meant = sorted(path for path, stem in files.items() if SHARD.fullmatch(stem))
        named = sorted(path for path, stem in files.items() if NAMED.fullmatch(stem) and path not in meant)
        if not meant and len(named) > 1:
            raise _ambiguous(folder, part, named)
        found[part] = tuple(meant or named)
        _check_shards(folder, part, {path: files[path] for path in meant})
        others += sorted(files.keys() - set(found[part]))
    _refuse_other_kind(folder, found, suffixes)
    others += sorted(path for suffix in suffixes for begin in HELD_OUT for path in folder.glob(f"{begin}*{suffix}"))
    if not has_validation:
        others += sorted(path for suffix in suffixes for part in VALIDATION for path in folder.glob(f"{part}*{suffix}"))
    validation = found.get("validation", ())
    return Parts(train=found["train"], test=found["test"], validation=validation, left_alone=tuple(others))


def _refuse_other_kind(folder: Path, found: dict[str, tuple[Path, ...]], suffixes: Sequence[str]) -> None:
    """A test set that nobody reads would be a wrong belief about what verification is judged on."""
    for part, begins in (("test", ("test",)), ("validation", VALIDATION)):
        kinds = [kind for kind in KINDS if kind not in suffixes]
        foreign = [path for kind in kinds for begin in begins for path in sorted(folder.glob(f"{begin}*{kind}"))]
        foreign = [path for path in foreign if part == "test" or NAMED.fullmatch(_stem(path, KINDS))]
        if found["train"] and part in found and not found[part] and foreign:
            raise DataError(
                f"folder {folder} must hold training and {part} files of one kind, got {found['train'][0].name} and "
                f"{foreign[0].name}. Write them alike, or move one elsewhere."
            )


def _stem(path: Path, suffixes: Sequence[str]) -> str:
    """The name without its suffix, the longest that fits."""
    return path.name[: -max(len(suffix) for suffix in suffixes if path.name.endswith(suffix))]


def _ambiguous(folder: Path, part: str, named: Sequence[Path]) -> DataError:
    suffix = "".join(named[0].suffixes[-2:]) if named[0].suffix == ".gz" else named[0].suffix
    return DataError(
        f"folder {folder} must hold one {part} file, {part}{suffix}, or numbered shards of it, got {_names(named)}. "
        f"Rename the one that is meant to {part}{suffix}."
    )


def _check_shards(folder: Path, part: str, meant: dict[Path, str]) -> None:
    """A whole set must not lie beside its shards, and of shards that count themselves none may be missing."""
    matches = {path: SHARD.fullmatch(stem) for path, stem in meant.items()}
    whole = [path for path, match in matches.items() if match is not None and match[2] is None]
    if len(meant) > 1 and whole:
        raise DataError(
            f"folder {folder} must hold {whole[0].name} or numbered shards, got {_names(list(meant))}. Remove one of "
            "them, or move it elsewhere: a row must not be read twice."
        )
    totals = {match[3] for match in matches.values() if match is not None}
    if totals <= {None}:
        return
    numbers = sorted(int(match[2]) for match in matches.values() if match is not None)
    if len(totals) > 1:
        raise DataError(
            f"folder {folder} must hold one set of {part} shards, got {_names(list(meant))}. Remove those of the other "
            "set."
        )
    total = int(next(iter(totals)) or 0)
    if numbers != list(range(total)):
        missing = [i for i in range(total) if i not in numbers]
        what = f"got no number {missing[0]}" if missing else f"got {len(numbers)}"
        raise DataError(
            f"folder {folder} must hold all {total} {part} shards, {what}: {_names(list(meant))}. Fetch all of them."
        )


def _names(files: Sequence[Path]) -> str:
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    return ", ".join(path.name for path in files[:MOST_NAMED]) + more
