"""What a study is trained and judged on, for people: columns, classes, parts, and what to look at before believing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from subsettune import config
from subsettune.data.columns import SourceFacts
from subsettune.data.duplicates import shared
from subsettune.data.parts import Part, TaskData
from subsettune.data.split import DEFAULT_TEST
from subsettune.task import Split

PAIRS = [("validation", "train"), ("test", "train"), ("test", "validation")]
FEW = 0.005  # of a part: as few stand in every table, and move no metric that a study could tell
MANY, FEW_EACH = 20, 10  # classes, and examples of each: more classes of fewer are hardly names that somebody numbered
CALLED = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What is told of a task's data.

    Args:
        source: what was found when the source was read.
        sizes: examples of each part.
        split: where validation and test part come from, in a sentence.
        classes: by name, its examples in each part; those of each label of several; empty for a regression.
        shared: by `part, other part`: examples of the first whose input stands in the other too.
        warnings: sentences that somebody should read before a number of the study is believed.
    """

    source: SourceFacts
    sizes: dict[str, int]
    split: str
    classes: dict[str, dict[str, int]]
    shared: dict[str, int]
    warnings: tuple[str, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Plain form."""
        return {name: config.to_plain(getattr(self, name)) for name in self.__dataclass_fields__}


def audit(data: TaskData, split: Split) -> Audit:
    """Look at a task's data as a whole; takes about as long as reading them from the cache once.

    Args:
        data: loaded from their source.
        split: of the task.
    """
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    sizes = {name: len(part) for name, part in parts.items()}
    facts = data.facts or SourceFacts()
    twins = _shared(parts)
    return Audit(
        source=facts,
        sizes=sizes,
        split=_split_words(facts, data, split),
        classes=_classes(data, parts),
        shared={f"{a}, {b}": count for (a, b), count in twins.items()},
        warnings=(*map(_sentence, (*facts.sentences, *data.notes)), *_about_classes(data), *_about_twins(twins, sizes)),
    )


def _classes(data: TaskData, parts: dict[str, Part]) -> dict[str, dict[str, int]]:
    """Examples of each class in each part; of several labels an example, those that have each."""
    if data.kind == "multilabel":
        marks = {name: part.targets.sum(dim=0).long().tolist() for name, part in parts.items()}
        return {f"label {j}": {name: each[j] for name, each in marks.items()} for j in range(data.num_outputs)}
    counts = {
        name: torch.bincount(part.targets, minlength=data.num_classes).tolist()
        for name, part in (parts.items() if data.num_classes else ())
    }
    return {label: {name: each[i] for name, each in counts.items()} for i, label in enumerate(data.class_names)}


def _split_words(facts: SourceFacts, data: TaskData, split: Split) -> str:
    test = DEFAULT_TEST if split.test is None else split.test
    files = {"test": facts.test_files, "validation": facts.validation_files}
    shares = {"test": test, "validation": split.validation}
    shares = {part: share for part, share in shares.items() if not data.from_files[part]}
    official = [
        f"{CALLED[part].capitalize()} part: {_official(part, files[part])}." for part in files if part not in shares
    ]
    if not shares:
        return " ".join(official)
    drawn = ", and ".join(f"{CALLED[part]} part: {share:g}" for part, share in shares.items())
    drawn = drawn[:1].upper() + drawn[1:]
    none = "" if data.from_files["test"] else "No official test set. "
    how = f"of {data.num_source_examples:,} examples, {_how(split, data)}"
    larger = _of_small_classes(data, shares) if split.reads is None else ""
    return f"{none}{' '.join(official)}{' ' if official else ''}{drawn} {how}.{larger}"


def _official(part: str, names: tuple[str, ...]) -> str:
    where = f" ({', '.join(names)})" if 0 < len(names) <= 3 else ""
    return f"the official {part} set{where}"


def _how(split: Split, data: TaskData) -> str:
    """How rows of the training file come into their parts."""
    if split.by is not None:
        return f"whole groups of column {split.by!r}, seed {split.seed}"
    if split.time is not None:
        return f"the latest by column {split.time!r}"
    drawn = f"drawn by class, seed {split.seed}" if data.num_classes else f"drawn, seed {split.seed}"
    return f"as column {split.column!r} says; what it does not name, {drawn}" if split.column is not None else drawn


def _of_small_classes(data: TaskData, shares: dict[str, float]) -> str:
    """A sentence where parts are larger than asked for, because each class gives one example at least."""
    sizes = {"validation": len(data.validation), "test": len(data.test)}
    wanted = {name: round(share * data.num_source_examples) for name, share in shares.items()}
    larger = {name: f"{sizes[name]:,} instead of {wanted[name]:,}" for name in shares if sizes[name] > wanted[name] + 1}
    if not larger:
        return ""
    listed = " and ".join(f"the {CALLED[name]} part has {count}" for name, count in larger.items())
    return f" Each class gives one example at least, so that {listed}."


def _about_classes(data: TaskData) -> list[str]:
    """A sentence where numbers that are taken for classes may be a quantity."""
    is_numbered = data.class_names == tuple(map(str, range(data.num_classes)))
    if not is_numbered or data.num_classes < MANY or data.num_source_examples >= FEW_EACH * data.num_classes:
        return []
    return [
        f"Labels are taken for {data.num_classes:,} classes, of {data.num_source_examples / data.num_classes:.2g} "
        "examples each on average. If they are a quantity, choose metric mse or mae."
    ]


def _shared(parts: dict[str, Part]) -> dict[tuple[str, str], int]:
    inputs = parts["train"].inputs.cpu().numpy()
    rows = {name: part.rows.unique().numpy() for name, part in parts.items()}
    return dict(zip(PAIRS, shared(inputs, rows, PAIRS), strict=True))


def _about_twins(twins: dict[tuple[str, str], int], sizes: dict[str, int]) -> list[str]:
    """A sentence about the parts that share inputs with another; none where no part shares more than a few."""
    found = [
        f"{count:,} of {sizes[part]:,} {CALLED[part]} examples ({100 * count / sizes[part]:.3g} %) in the "
        f"{CALLED[other]} part"
        for (part, other), count in twins.items()
        if count > FEW * sizes[part]
    ]
    if not found:
        return []
    return [
        f"Some inputs stand in two parts: {', '.join(found)}. What is learnt by heart counts as right there. Drop the "
        "copies, or know that they are chance, as in a table of few values."
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
