"""Which examples are held out: drawn once from the split's seed, class by class for a classification.

Symbols: n examples, C groups (classes; a regression is one group), n_c examples of group c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from subsettune.errors import DataError
from subsettune.task import Split

DEFAULT_TEST = 0.2
DEFAULT_VALIDATION = Split().validation
VERSION = 1  # of the drawing: goes into the fingerprint of a task's data, since other rows are other data
NUMBER = re.compile(r"[$€£¥+-]? ?[0-9]{1,3}([.,' ]?[0-9]{3})*([.,][0-9]*)?([eE][+-]?[0-9]+)? ?[%$€£¥]?")


def divide(
    targets: Tensor,
    split: Split,
    num_classes: int,
    has_test_file: bool,
    class_names: Sequence[str] = (),
    has_validation_file: bool = False,
) -> dict[str, Tensor]:
    """Divide the rows of the training file.

    The held-out parts follow one permutation of all rows, the test part first, so that another `split.validation` keeps
    the same test part. On every platform one seed gives one division.

    Args:
        targets: (n,) int64 classes, or (n,) or (n, m) values of a regression.
        split: shares and seed.
        num_classes: C; 0 for a regression.
        has_test_file: whether the test split has a file of its own.
        class_names: for the messages.
        has_validation_file: whether the validation split has a file of its own.

    Returns:
        `train`, and `validation` and `test` unless they have a file: sorted int64 rows that cover all rows once.

    Raises:
        DataError: the split does not suit the source, or a class has too few examples for it.
    """
    shares = shares_of(split, has_test_file=has_test_file, has_validation_file=has_validation_file)
    names = class_names or tuple(map(str, range(num_classes)))
    return draw(targets, shares, split.seed, names)


def draw(targets: Tensor, shares: Mapping[str, float], seed: int, class_names: Sequence[str]) -> dict[str, Tensor]:
    """Draw parts of some rows by their shares, class by class; arguments, returns and errors as of `divide`."""
    num_classes = len(class_names)
    groups = targets if num_classes else torch.zeros(len(targets), dtype=torch.int64)
    sizes = torch.bincount(groups, minlength=max(1, num_classes))
    _check(sizes.tolist(), ["training", *shares], class_names if num_classes else None)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    order = order[groups[order].argsort(stable=True)]  # group by group, each in the order of the permutation
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(order)) - first[groups[order]]  # of a row within its group
    parts, taken = {}, torch.zeros_like(sizes)
    for i, (name, share) in enumerate(shares.items()):
        room = sizes - taken - (len(shares) - i)  # one for each part that is yet to come, training included
        upto = taken + torch.tensor(quota(sizes.tolist(), share, room.tolist()))
        mine = (place >= taken[groups[order]]) & (place < upto[groups[order]])
        parts[name], taken = order[mine].sort().values, upto
    return {"train": order[place >= taken[groups[order]]].sort().values, **parts}


def quota(sizes: Sequence[int], share: float, most: Sequence[int]) -> list[int]:
    """How many of each group make up a share of all: proportional, by largest remainder, ties to the first group.

    Args:
        sizes: (C,) n_c.
        share: in (0, 1); read as the decimal that it is written as, so that 0.29 of 100 is 29.
        most: (C,) at least 1: what a group can give. Each gives at least 1, even where that makes the sum too large.
    """
    exact = Fraction(str(share))
    counts = [int(exact * size) for size in sizes]
    missing = round(exact * sum(sizes)) - sum(counts)
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact * sizes[i], i))
    for i in by_remainder[:missing]:
        counts[i] += 1
    return [min(max(1, count), top) for count, top in zip(counts, most, strict=True)]


def check_test_file(targets: Tensor, class_names: Sequence[str], part: str = "test") -> None:
    """Every class must be in the official test file too, else the metrics of the parts differ in meaning.

    Args:
        targets: (n,) int64 classes of the test file.
        class_names: of all classes.
        part: `test` or `validation`, of which the file is.

    Raises:
        DataError: a class has no test examples.
    """
    advice = f"Add some, or leave the {part} file out: a {part} part is then drawn from the training file."
    check_part(targets, class_names, f"the {part} file", advice)


def check_part(targets: Tensor, class_names: Sequence[str], where: str, advice: str) -> None:
    """Refuse a part without examples of a class."""
    counts = torch.bincount(targets, minlength=len(class_names))
    if bool((counts == 0).any()):
        name = class_names[int((counts == 0).int().argmax())]
        raise DataError(f"class {name!r} must have examples in {where}, got none. {advice}")


def shares_of(split: Split, *, has_test_file: bool, has_validation_file: bool = False) -> dict[str, float]:
    """The share of each part that has no file of its own, test part first.

    Raises:
        DataError: a share is given of a part that has a file, or they leave no rows to train on.
    """
    if has_validation_file and split.validation != DEFAULT_VALIDATION:
        raise DataError(
            f"split.validation must be left out for data that have a validation file, got {split.validation!r}. Remove "
            "the key."
        )
    if has_test_file:
        if split.test is not None:
            raise DataError(
                f"split.test must be null for data that have an official test file, got {split.test!r}. Remove the key."
            )
        return {} if has_validation_file else {"validation": split.validation}
    test = DEFAULT_TEST if split.test is None else split.test
    if has_validation_file:
        return {"test": test}
    if split.validation + test >= 1:
        raise DataError(
            f"split.validation must be below {1 - test:g} beside a test part of {test:g}, got {split.validation!r}. "
            "Leave some examples to train on."
        )
    return {"test": test, "validation": split.validation}


def _check(sizes: Sequence[int], parts: Sequence[str], class_names: Sequence[str] | None) -> None:
    """Every class must be in every part."""
    for i, size in enumerate(sizes):
        if size < len(parts):
            name = class_names[i] if class_names else str(i)
            if size == 0 and class_names is not None:
                raise DataError(
                    f"class {name!r} must have examples in the training file, got some in the test file only. Write "
                    "the labels of both alike, or drop the class."
                )
            if class_names is not None:
                _refuse_among_numbers(sizes, class_names, name)
            who = "the data must have" if class_names is None else f"class {name!r} must have"
            raise DataError(
                f"{who} at least {len(parts)} examples, one for each part ({', '.join(parts)}), got {size}. "
                "Add examples, or drop the class."
            )


def _refuse_among_numbers(sizes: Sequence[int], class_names: Sequence[str], name: str) -> None:
    """Refuse a rare class as a slip, where the labels of most examples are numbers and some are none."""
    is_number = [NUMBER.fullmatch(each) is not None for each in class_names]
    num_others = sum(size for size, known in zip(sizes, is_number, strict=True) if not known)
    if num_others and 2 * num_others < sum(sizes):
        odd = name if NUMBER.fullmatch(name) is None else class_names[is_number.index(False)]
        raise DataError(
            f"labels must be numbers in all rows, or classes of enough examples each, got {odd!r} among numbers. Mend "
            "that label, or drop its row."
        )
