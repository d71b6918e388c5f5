"""Labels of a classification: which texts and numbers are one class, what each class is called, and what looks wrong.

A class keeps its name wherever it stands: files that list their classes in another order are read by the names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from subsettune.errors import DataError

Array = np.ndarray[Any, Any]

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # byte order mark and spaces of no width: nobody sees two classes there
WHOLE = re.compile(r"[+-]?[0-9]+")
PADDED = re.compile(r"[+-]?0[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MISSING = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "nat", "?"})  # what programs write for nothing
EXACT = 2**53  # whole numbers below are told apart in float64


def plain_name(text: str) -> str:
    """A text without surrounding space, its accents written one way (NFC): what nobody sees makes no class."""
    return unicodedata.normalize("NFC", text).strip().strip(INVISIBLE).strip()


def decoded(labels: Array) -> Array:
    """Texts that were written as bytes; all other labels as they are.

    Raises:
        DataError: they are no UTF-8.
    """
    if labels.dtype.kind != "S":
        return labels
    try:
        return np.char.decode(labels, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"labels must be texts in UTF-8, got {error.object!r}. Write them as texts.") from error


def named(texts: Sequence[str], column: str = "") -> tuple[Array, tuple[str, ...]]:
    """Class numbers of texts, in the order of the names.

    Args:
        texts: as they were read.
        column: that they are the distinct texts of, for the message; empty where they stand row by row.

    Returns:
        (n,) int64, and the names.

    Raises:
        DataError: a text is empty.
    """
    names = {text: plain_name(text) for text in set(texts)}
    if "" in names.values():
        row = next(i for i, text in enumerate(texts) if not names[text])
        where = f"column {column!r}" if column else f"row {row}"
        raise DataError(f"labels must not be empty, got {texts[row]!r} in {where}. Fill it, or drop such rows.")
    ordered = sorted(set(names.values()))
    places = {name: place for place, name in enumerate(ordered)}
    numbers = {text: places[name] for text, name in names.items()}
    return np.fromiter((numbers[text] for text in texts), np.int64, len(texts)), tuple(ordered)


def typed(labels: pa.ChunkedArray, kind: str) -> Array:
    """Labels of a file that holds texts only, as what they stand for.

    They are numbers if all of them are decimal ones. Of a classification, numbers with leading zeros are names (01, 02,
    ..., 10), and so are whole numbers that no type holds exactly, and hexadecimal ones.

    Args:
        labels: texts.
        kind: `classification` or `regression`.

    Returns:
        (n,) int64 or float64, or texts.

    Raises:
        DataError: one number is written with and without zeros; a label is missing; or those of a regression are no
            numbers.
    """
    plain = pc.utf8_trim_whitespace(labels)
    found = pc.unique(plain).to_pylist()
    odd = [text for text in found if not NUMBER.fullmatch(text)]
    if kind == "regression":
        odd = [text for text in odd if text.lower() not in ("nan", "inf", "-inf")]  # refused later, with their row
        if odd:
            raise DataError(f"labels of a regression must be numbers, got {odd[0]!r}. Choose a classification metric.")
    elif odd or _are_names(found):
        _refuse_missing(odd, found)
        return np.asarray(plain.to_pylist(), dtype=object)
    whole = all(WHOLE.fullmatch(text) and abs(int(text)) < 2**63 for text in found)
    return np.asarray(_unsigned(plain).cast(pa.int64() if whole else pa.float64()).to_numpy())


def _unsigned(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers without a leading plus, which Arrow does not read."""
    return pc.replace_substring_regex(texts, r"^\+", "")


def _are_names(numbers: Sequence[str]) -> bool:
    """Whether decimal numbers are names: some have leading zeros, or are too large to be told apart as numbers."""
    if any(abs(float(text)) >= EXACT for text in numbers):
        return True
    if not any(PADDED.fullmatch(text) for text in numbers):
        return False
    seen: dict[float, str] = {}
    for text in numbers:
        twin = seen.setdefault(float(text), text)
        if twin != text:
            raise DataError(
                f"labels must be written in one way, got {twin!r} and {text!r}, which are one number. Write them "
                "alike, or give the classes names if they are two."
            )
    return True


def _refuse_missing(odd: Sequence[str], found: Sequence[str]) -> None:
    """Numbers but for what stands for nothing are numbers with labels missing."""
    if len(odd) < len(found) and all(text.lower() in (*MISSING, "inf", "-inf") for text in odd) and odd:
        raise DataError(f"labels must not be missing, got {odd[0]!r} among numbers. Fill it, or drop such rows.")


# --- classes that files list ---------------------------------------------------------------------------------------


def joined(listed: Sequence[tuple[str, ...]], paths: Sequence[object]) -> tuple[str, ...]:
    """The classes of files that list theirs, in the order of the first; more of later files follow.

    Args:
        listed: of each file; empty where it lists none.
        paths: of the files, for messages.

    Raises:
        DataError: a file lists a name twice, or lists none where others differ.
    """
    known = [names for names in listed if names]
    for names, path in zip(listed, paths, strict=True):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"names of classes must differ, got {twice!r} twice in {path}. Mend its metadata.")
        if not names and any(other != known[0] for other in known):
            raise DataError(
                f"{path} must list its classes, as other files list theirs in several orders, got none. Write the "
                "names into its metadata, or write labels as texts."
            )
    return tuple(dict.fromkeys(name for names in known for name in names))


def renumbered(numbers: Array, names: tuple[str, ...], classes: tuple[str, ...], path: object) -> Array:
    """Class numbers of a file in its own order of classes as those of all files.

    Args:
        numbers: (n,) whole numbers, places in `names`; below 0 they stay as they are, to be refused with their row.
        names: of the file's classes; empty if it lists none: its numbers are then those of all files.
        classes: of all files.
        path: of the file, for messages.

    Raises:
        DataError: a number has no name.
    """
    if not names or (names == classes[: len(names)] and len(names) == len(classes)):
        return numbers
    if len(numbers) and int(numbers.max()) >= len(names):
        raise DataError(
            f"labels must be below {len(names)}, the number of class names, got {int(numbers.max())} in {path}. "
            "Mend the labels or the names."
        )
    places = np.array([classes.index(name) for name in names], dtype=np.int64)
    whole = numbers.astype(np.int64)
    return np.where(whole < 0, whole, places[np.maximum(whole, 0)])


# --- what looks wrong -----------------------------------------------------------------------------------------------


MOST_SAID = 3  # of a kind: there are columns with a thousand categories


def suspicions(classes: Sequence[str]) -> tuple[str, ...]:
    """Sentences about names of classes that look like one class written twice, or like missing labels."""
    missing = [name for name in classes if name.lower() in MISSING]
    told = [
        f"class {name!r} looks like a missing label, and is taken as a class. Drop its rows if it is none."
        for name in missing
    ]
    return (*(_told_twice(twins, "classes", "") for twins in _lookalikes(classes)[:MOST_SAID]), *told)


def category_suspicions(columns: Sequence[str], categories: Sequence[Sequence[str | None]]) -> tuple[str, ...]:
    """Sentences about categories of a column that look like one written twice."""
    return tuple(
        _told_twice(twins, "categories", f" of column {column!r}")
        for column, names in zip(columns, categories, strict=True)
        for twins in _lookalikes([name for name in names if name is not None])[:MOST_SAID]
    )


def _told_twice(twins: Sequence[str], what: str, where: str) -> str:
    listed = " and ".join(map(repr, twins[:2]))
    return f"{what} {listed}{where} look like one written twice, and are told apart. Write them alike if they are one."


def _lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case, spaces, width or form of signs, or leading zeros only."""
    groups: dict[str, list[str]] = {}
    for name in names:
        bare = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(f"{float(bare):.17g}" if NUMBER.fullmatch(bare) and len(bare) < 16 else bare, []).append(name)
    return [twins for twins in groups.values() if len(twins) > 1]
