"""A bundle's policy on other data of the same columns, as a nightly job trains by it: what changes, what is refused.

Sizes are derived anew and subsets chosen again, as `Bundle.transfer` says. The classes and the columns must be those of
the bundle: with others it is another task, of which the evidence says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from subsettune.bundle import Bundle
from subsettune.bundle.known import INPUTS, KnownColumn, KnownData, categories_of
from subsettune.bundle.limits import differences
from subsettune.data import DataPaths, TaskData, load
from subsettune.data.columns import ColumnFacts
from subsettune.data.mendable import OtherDataError
from subsettune.errors import BundleError, ConfigError, DataError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.registry import DATASETS
from subsettune.task import Task
from subsettune.train.evaluation import Report
from subsettune.train.loop import check, facts, run
from subsettune.train.options import RunOptions
from subsettune.train.randomness import preserved
from subsettune.train.result import RunResult
from subsettune.trained.promise import BY_EXAMPLE, Outcome, Promise
from subsettune.trained.resampled import metric_variance
from subsettune.trained.table import is_array_kind, time_kind

MOST_TOLD = 5  # names in a sentence
MOST_VALUES = 3  # of a column, which may be as long as texts are
NOT_NAMED = "The bundle does not name its columns and classes: that they are the same is not checked."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Followed:
    """A bundle's policy, ready for other data.

    Args:
        task: with the other data.
        policy: its sizes derived anew.
        facts: of the task.
        promise: of the bundle.
        num_test: examples that are held out for the test.
        is_same: whether the data are those that the bundle was made for.
        sentences: what is derived anew, and what is otherwise than in the bundle.
        options: where and how it runs.
        warnings: what is otherwise than in the bundle and may be a mistake of the data.
    """

    task: Task
    policy: Policy
    facts: TaskFacts
    promise: Promise
    num_test: int
    is_same: bool
    sentences: tuple[str, ...]
    options: RunOptions
    warnings: tuple[str, ...] = ()

    def train(self, seed: int, report: Report | None = None) -> tuple[RunResult, Outcome]:
        """Train once, and hold the result against the promise; the result carries the model.

        Args:
            seed: of everything random.
            report: as of `train.run`.
        """
        result = run(self.task, self.policy, seed, final=True, report=report, options=self.options)
        variance = None
        if result.cause == "finished" and not self.is_same and self.task.metric not in BY_EXAMPLE:
            variance = metric_variance(self.task, load(self.task, self.options.places), result.model)
        outcome = Outcome.of(self.promise, result, self.num_test, is_same_test=self.is_same, variance=variance)
        return result, outcome


def follow_on(bundle: Bundle, source: str | None = None, options: RunOptions | None = None) -> Followed:
    """Derive a bundle's policy for other data; nothing is trained.

    Args:
        bundle: to be followed.
        source: of the data, as `data.source` of a study file; None for the source that the bundle names, as it is now.
        options: where and how it will run; number of threads as in the study where it says nothing.

    Raises:
        DataError: the data cannot be used, or have other columns or classes than the bundle's.
        ConfigError: the policy does not fit so many examples, or the task names code that is not here.
        BundleError: the bundle has too little evidence.
    """
    options = options or RunOptions()
    if options.num_threads is None:
        options = replace(options, num_threads=bundle.evidence.num_threads)
    if bundle.task.train is not None:
        raise BundleError(
            f"the bundle was made for {bundle.task.train}, which reads its own data. Train by it with: "
            "subsettune train STUDY.yaml --policy BUNDLE"
        )
    promise = Promise.of(bundle)
    places = options.places
    if source is not None and "/" not in source and source not in DATASETS and places.own(source).is_dir():
        source = f"./{source}"  # as study files name a folder
    task = bundle.task if source is None else replace(bundle.task, data=replace(bundle.task.data, source=source))
    with preserved():
        task, data, said = _loaded(bundle, task, places)
    known = facts(task, places)
    policy, sizes = _policy(bundle, task, known, data.fingerprint)
    before = bundle.facts.num_examples
    had = "as many as the bundle had" if known.num_examples == before else f"the bundle had {before:,}"
    counts = (
        f"{known.num_examples:,} examples to train on ({had}), "
        f"{len(data.validation):,} for validation, {len(data.test):,} held out for the test."
    )
    return Followed(
        task=task,
        policy=policy,
        facts=known,
        promise=promise,
        num_test=len(data.test),
        is_same=data.fingerprint == bundle.fingerprint,
        sentences=(*said, counts, *sizes, *differences(bundle, policy, known)),
        options=options,
        warnings=() if bundle.known is None else other_categories(bundle.known, data),
    )


def _policy(bundle: Bundle, task: Task, known: TaskFacts, fingerprint: str) -> tuple[Policy, tuple[str, ...]]:
    """The policy for the data, and how it came to be."""
    if fingerprint == bundle.fingerprint:
        return bundle.policy, ("These are the data that the bundle was made for.",)
    try:
        policy, message = bundle.derive(known)
        check(task, policy, known)
    except ConfigError as error:
        few = f"{known.num_examples:,} examples to train on, where the bundle had {bundle.facts.num_examples:,}"
        raise ConfigError(
            f"the bundle's policy cannot be followed on these data, {few}: {_joined(error)} Give more rows, or tune "
            "anew."
        ) from error
    return policy, (message,)


def _joined(error: ConfigError) -> str:
    return " ".join(str(mistake) for mistake in error.mistakes)


# --- the data, held against those of the bundle -----------------------------------------------------------------------


def _loaded(bundle: Bundle, task: Task, places: DataPaths) -> tuple[Task, TaskData, tuple[str, ...]]:
    """The task and its data, without columns that the bundle does not know, and what was left out in words."""
    try:
        data = load(task, places)
    except OtherDataError as error:  # whose keys are the bundle's
        rule = f"like the data that the bundle was made for{_made_for(bundle)}"
        raise DataError(
            f"{task.data.source} must be {rule}: {error.brief} Mend the data, or tune anew on them."
        ) from error
    if data.fingerprint == bundle.fingerprint:
        return task, data, ()
    known = bundle.known
    if known is None:
        _refuse_other_sizes(bundle, data)
        return task, data, (NOT_NAMED,)
    found = [] if data.facts is None else [c for c in data.facts.columns if c.role in INPUTS]
    extra = _compared(known, found, task)
    said: tuple[str, ...] = ()
    if extra:
        task = replace(task, data=replace(task.data, features=tuple(c.name for c in known.columns), exclude=()))
        data = load(task, places)
        said = (f"Not read, as the bundle does not know {_them(extra)}: {_named(extra)}.",)
    _refuse_other_classes(known, data)
    _refuse_other_sizes(bundle, data)
    only = known.columns[0] if len(known.columns) == 1 else None
    is_array = only is not None and (only.role == "image" or (only.role == "feature" and is_array_kind(only.type)))
    if is_array and data.num_features != bundle.facts.num_features:
        raise DataError(
            f"examples must have the {bundle.facts.num_features:,} numbers that the bundle was made for, got "
            f"{data.num_features:,} each in {task.data.source}. Mend the data, or tune anew on them."
        )
    return task, data, said


def _made_for(bundle: Bundle) -> str:
    """What data a bundle was made for, in words behind those that say so; empty where it does not name them."""
    columns = () if bundle.known is None else bundle.known.columns
    if any(column.role == "image" for column in columns):
        return ", a folder of pictures" if columns[0].type == "files" else ", pictures"
    if not any(column.type for column in columns):
        return ""
    return f", a table with the label {bundle.task.data.label!r} and the columns {_named([c.name for c in columns])}"


def _compared(known: KnownData, found: Sequence[ColumnFacts], task: Task) -> list[str]:
    """Names of columns that only the new data have; refuses missing and other ones."""
    names = {column.name: column for column in found}
    if not any(column.type for column in known.columns):  # arrays have none, and their shape is compared
        return []
    missing = [column.name for column in known.columns if column.name not in names]
    if missing:
        raise DataError(
            f"{task.data.source} must have the columns that the bundle was made for, got no {_named(missing)} among "
            f"its inputs {_named(list(names))}. Mend the data, or tune anew on them."
        )
    for column in known.columns:
        other = names[column.name]
        if other.role != column.role:
            raise DataError(
                f"column {column.name!r} of {task.data.source} must be read as {_role(column)}, as in the bundle "
                f"({column.type}), got {_role(other)} ({other.kind}). Convert it."
            )
        then, now = time_kind(column.type), time_kind(other.kind)
        then, now = ("booleans" if one == "bool" else kind for one, kind in ((column.type, then), (other.kind, now)))
        if column.role == "feature" and column.type and then != now:
            raise DataError(
                f"column {column.name!r} of {task.data.source} must be read as {then or 'numbers'}, as in the bundle "
                f"({column.type}), got {now or 'numbers'} ({other.kind}). Convert it."
            )
    return [name for name in names if name not in {column.name for column in known.columns}]


def other_categories(known: KnownData, data: TaskData) -> tuple[str, ...]:
    """Sentences about columns whose categories are others than the bundle's; none of a bundle that names none."""
    now, told = categories_of(data), list[str]()
    for column in known.columns:
        if column.categories is None or column.name not in now:
            continue
        there = now[column.name]
        before, after = set(column.categories), set(there)
        new = [name for name in there if name not in before]
        gone = [name for name in column.categories if name not in after]
        changes = [_changed(new, "new"), _changed(gone, "gone")]
        if new or gone:
            told.append(f"column {column.name!r}: {', '.join(filter(None, changes))}.")
    if len(told) <= MOST_TOLD:
        return tuple(told)
    return (*told[:MOST_TOLD], f"So it is with {len(told) - MOST_TOLD:,} more columns of categories.")


def _changed(names: Sequence[str | None], how: str) -> str:
    """`3 values are new ('Ulm', 'Hof', ...)`; empty for none."""
    if not names:
        return ""
    shown = ["nothing" if name is None else repr(name) for name in names[:MOST_VALUES]]
    more = ["..."] if len(names) > MOST_VALUES else []
    verb = "is" if len(names) == 1 else "are"
    which = f"({', '.join(shown + more)})"
    return f"{len(names):,} {'value ' if len(names) == 1 else 'values '}{verb} {how} {which}"


def _role(column: KnownColumn | ColumnFacts) -> str:
    return {"feature": "numbers", "categories": "categories", "text": "texts", "image": "pictures"}[column.role]


def _refuse_other_classes(known: KnownData, data: TaskData) -> None:
    new = [name for name in data.class_names if name not in known.classes]
    gone = [name for name in known.classes if name not in data.class_names]
    if new or gone:
        told = [*([f"new are {_named(new)}"] if new else []), *([f"gone are {_named(gone)}"] if gone else [])]
        raise DataError(
            f"classes must be those that the bundle was made for: {'; '.join(told)}. With others it is another task, "
            "of which its evidence says nothing. Mend the labels, drop such rows, or tune anew on these data."
        )


def _refuse_other_sizes(bundle: Bundle, data: TaskData) -> None:
    if data.num_outputs != bundle.facts.num_outputs:
        others = "labels" if data.kind == "multilabel" else "values to predict"
        what = "classes" if data.num_classes else others
        raise DataError(
            f"data must have the {bundle.facts.num_outputs} {what} that the bundle was made for, got "
            f"{data.num_outputs}. Mend the labels, or tune anew on these data."
        )


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_TOLD:,} more" if len(names) > MOST_TOLD else ""
    return ", ".join(map(repr, names[:MOST_TOLD])) + more if names else "none"
