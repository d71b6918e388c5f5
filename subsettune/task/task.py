"""The task as a whole: data, split, network, recipe and metric, or a training function of the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from subsettune import config, in_memory
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, FrozenDict, Rule, must, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.goal import (
    KIND_RULE,
    LOSS_RULE,
    METRIC_RULE,
    OwnMetric,
    judged,
    loss_mistakes,
    metric_mistakes,
    metric_parts,
    positive_mistakes,
    usual_kind,
)
from subsettune.registry import MODELS, Metric
from subsettune.task.data import NO_DATA, Data, named
from subsettune.task.recipe import Recipe
from subsettune.task.split import Corruption, Split

TOLD = "told:"  # before the name of a metric that a training function tells and nobody here knows
OWN_KEYS = (
    *("train", "train_options", "examples", "validation_examples", "test_examples"),
    *("flops_per_example", "outputs", "parameters", "version"),
)
_FUNCTION = re.compile(r"[\w.]+:[\w.]+")  # else it is a command line
_TRAIN = Rule(
    "package.module:function, or a command line such as python train.py",
    lambda name: _FUNCTION.fullmatch(name) is not None or len(name.split()) > 1,
)


_CODE = ("loss", "train")  # keys that take a function


def _named_code(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Functions that were handed over in Python, by the names that they can be imported by."""
    if callable(raw.get("metric")):
        rule = "a name, or {name: FUNCTION, higher_is_better: True or False} of one of your own"
        raise ConfigError((Mistake(("metric",), must("metric", rule, raw["metric"])),))
    found = {key: raw[key] for key in _CODE if callable(raw.get(key))}
    return {key: named(key, partial(in_memory.code_name, what=key), code) for key, code in found.items()}


def _code_name(code: Any) -> Any:
    return named("name", lambda value: in_memory.code_name(value, "model"), code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network by name, with its options: `{name: mlp, hidden: [64]}`.

    Args:
        name: one of ours, or `package.module:function` that builds one of the user's own.
        options: its keyword arguments; in a file they stand beside the name.
    """

    name: str = setting(rule=MODELS.rule)
    options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _code_name(self.name))
        config.check(self)

    @classmethod
    def from_object(cls, raw: Any) -> Any:
        """A function or class of Python's as a mapping; what is no code stays as it is, to be refused."""
        return {"name": raw} if callable(raw) else raw

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gather every key but the name into `options`; a function or class gets its name."""
        options = {key: value for key, value in raw.items() if key not in ("name", "options")}
        folded: dict[str, Any] = {"options": {**raw.get("options", {}), **options}}
        return {**folded, "name": _code_name(raw["name"])} if "name" in raw else folded

    def to_mapping(self) -> dict[str, Any]:
        """Flat form, as in YAML."""
        return {"name": self.name, **config.to_plain(self.options)}


NO_MODEL = Model(name="none:none")  # of a task whose function builds its own


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFlops:
    """What one example costs a network, as somebody knows who trains it with code of their own.

    Args:
        forward: FLOPs of its forward pass; a multiplication and an addition are 2.
        backward: FLOPs of its backward pass; about twice as many.
    """

    forward: int = setting(rule=AT_LEAST_ONE)
    backward: int = setting(rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, and what counts as matched.

    Args:
        data: where the examples come from. Beside `train` it may be left out, and is for selectors alone: one row for
            each training example, in the order of their numbers.
        split: which examples are held out.
        model: the network.
        recipe: the conventional training.
        metric: of a classification accuracy, balanced_accuracy, macro_f1, top5, roc_auc, average_precision or log_loss;
            of a regression mse, mae, rmse or r2; of several labels an example accuracy (of all labels),
            subset_accuracy, macro_f1, roc_auc, average_precision or log_loss; or one of the user's own, as
            `{name: package.module:function, higher_is_better: true}`. See `docs/goals.md`.
        tolerance: how far short of the reference still counts as matched, in the metric's units, positive.
        distortion: faults put into the training part, for experiments.
        train: a training function of the user's own as `package.module:function`, in place of data, model and loop. It
            is called with a `subsettune.Run`, which hands out batches and rates: see docs/own_training.md. Or a command
            line, as `python train.py`: the program gets the same by `subsettune.session()`.
        train_options: what that function finds as `run.options`.
        examples: N, the training examples that the function has, numbered from 0.
        validation_examples: that its validation metric is the mean over, where the metric is a mean over examples. With
            it and the next, the search and the plan know how much of a difference is the choice of the examples.
        test_examples: likewise of its test metric.
        flops_per_example: of its network; default: not known, and compute is counted in examples.
        outputs: M, output units, where `q` is searched.
        parameters: P, trainable parameters, likewise.
        version: any text that is changed when what the function reads from elsewhere changes, its data above all.
            With one, finished runs of the recipe are kept for later studies.
        kind: classification, regression or multilabel (targets (n, M) of 0 and 1); default: what the metric suits
            first, and classification for one of the user's own.
        loss: `package.module:function` of outputs and targets, in place of the cross-entropy (of each label of several)
            or the squared error.
        positive: of roc_auc and average_precision of two classes, the name of the one that is looked for; default: the
            second in the order of the names.
        own_metric: what `metric` says of one of the user's own beside its name.
    """

    data: Data
    split: Split = setting(Split())
    model: Model
    recipe: Recipe
    metric: str = setting("accuracy", rule=METRIC_RULE)
    tolerance: float = setting(rule=POSITIVE)
    distortion: Corruption = setting(Corruption())
    kind: str = setting("", rule=KIND_RULE)
    loss: str | None = setting(None, rule=LOSS_RULE)
    positive: str | int | None = None
    own_metric: OwnMetric | None = None
    train: str | None = setting(None, rule=_TRAIN)
    train_options: FrozenDict = setting(FrozenDict())
    examples: int | None = setting(None, rule=AT_LEAST_ONE)
    validation_examples: int | None = setting(None, rule=AT_LEAST_ONE)
    test_examples: int | None = setting(None, rule=AT_LEAST_ONE)
    flops_per_example: ExampleFlops | None = None
    outputs: int | None = setting(None, rule=AT_LEAST_ONE)
    parameters: int | None = setting(None, rule=AT_LEAST_ONE)
    version: str | None = None

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a metric of the user's own apart, and leave out what a training function of theirs has itself."""
        raw = {**raw, **_named_code(raw)}
        if isinstance(raw.get("metric"), Mapping):
            raw = {**raw, **metric_parts(raw["metric"])}
        if raw.get("train") is None:
            return raw
        name = raw.get("metric")
        if isinstance(name, str) and raw.get("own_metric") is not None and name.isidentifier():
            raw = {**raw, "metric": f"{TOLD}{name}"}  # which it tells, under whatever name
        mistakes = [
            Mistake((key,), f"{key} must be left out beside train: the function has its own. Remove the key.")
            for key in ("model", "split", "distortion", "loss", "positive")
            if key in raw
        ]
        if mistakes:
            raise ConfigError(tuple(mistakes))
        return {"data": NO_DATA, "model": NO_MODEL, **raw}

    @classmethod
    def from_mapping(cls, raw: object, source: str | None = None) -> Task:
        """Read what stands under `task:` of a study file, or what `to_mapping` wrote.

        Raises:
            ConfigError: with every mistake.
        """
        return config.build(cls, raw, source=source)

    def __post_init__(self) -> None:
        for name, value in _named_code({key: getattr(self, key) for key in ("metric", *_CODE)}).items():
            object.__setattr__(self, name, value)
        given: object = self.metric
        if isinstance(given, Mapping):
            for name, value in metric_parts(given).items():
                object.__setattr__(self, name, value)
        config.check(self)
        if not self.kind:
            object.__setattr__(self, "kind", usual_kind(self.metric))
        recipe = self.recipe
        of_loss = {"label_smoothing": recipe.label_smoothing > 0, "class_weights": recipe.class_weights is not None}
        mistakes = [
            *metric_mistakes(self.metric, self.own_metric, self.kind, self.tolerance),
            *loss_mistakes(self.loss, self.kind, of_loss),
            *self._own_mistakes(),
            *positive_mistakes(self.metric, self.kind, self.positive),
        ]
        if self.kind != "classification" and self.distortion.flip_labels:
            message = f"flip_labels means nothing to {self.kind}, which has no classes. Remove the key."
            mistakes.append(Mistake(("distortion", "flip_labels"), message))
        if mistakes:
            raise ConfigError(tuple(mistakes))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        is_left_out = {
            "distortion": self.distortion.is_off,
            "kind": self.kind == usual_kind(self.metric),
            "loss": self.loss is None,
            "positive": self.positive is None,
            "own_metric": True,
            **{key: getattr(self, key) in (None, FrozenDict()) for key in OWN_KEYS},
            **({"data": not self.has_data, "model": True, "split": True} if self.is_own else {}),
        }
        names = [name for name in self.__dataclass_fields__ if not is_left_out.get(name)]
        plain = {name: config.to_plain(getattr(self, name)) for name in names}
        if self.own_metric is not None:
            plain["metric"] = {"name": self.metric.removeprefix(TOLD), **config.to_plain(self.own_metric)}
        return plain

    def _own_mistakes(self) -> list[Mistake]:
        """Keys of a training function without one, and one that does not say how many examples it has."""
        given = [key for key in OWN_KEYS[1:] if getattr(self, key) not in (None, FrozenDict())]
        if self.train is None and self.recipe.own:
            message = "own means nothing without task.train, whose function reads it. Remove the key."
            return [Mistake(("recipe", "own"), message)]
        if self.train is None:
            return [Mistake((key,), f"{key} means nothing without train. Remove the key.") for key in given]
        if self.examples is None:
            return [Mistake((), "key 'examples' is missing: how many training examples the function has.")]
        if self.recipe.optimizer == "lbfgs":
            message = "optimizer must be another one beside train: what lbfgs spends on an update is known afterwards."
            return [Mistake(("recipe", "optimizer"), message)]
        return []

    @property
    def is_own(self) -> bool:
        """Whether a function of the user's trains it."""
        return self.train is not None

    @property
    def has_flops(self) -> bool:
        """Whether what an example costs is known, so that compute is counted in FLOPs and not in examples."""
        return self.train is None or self.flops_per_example is not None

    @property
    def is_script(self) -> bool:
        """Whether what trains it is a program of its own."""
        return self.train is not None and _FUNCTION.fullmatch(self.train) is None

    @property
    def has_data(self) -> bool:
        """Whether there is anything to read."""
        return self.data != NO_DATA

    @property
    def words(self) -> str:
        """What is trained on what, for people."""
        return f"{self.model.name} on {self.data.source}" if self.train is None else self.train

    def test_identity(self, fingerprint: str) -> str:
        """Names the test split of a task with such data: a function of the user's has one of its own.

        Args:
            fingerprint: of the data.
        """
        return config.digest([fingerprint, self.train]) if self.is_own else fingerprint

    @property
    def judged(self) -> Metric:
        """What is known of the metric."""
        return judged(self.metric, self.own_metric, self.kind)

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.judged.higher_is_better

    @property
    def has_error(self) -> bool:
        """Whether the metric is an error, or what it is short of 1 is one, so that errors can be compared."""
        return self.own_metric is None

    @property
    def counts_examples(self) -> bool:
        """Whether the metric is a share of examples whose answer is right, or nearly."""
        is_of_labels = self.kind == "multilabel" and self.metric != "subset_accuracy"
        return self.own_metric is None and self.judged.has_steps and not is_of_labels

    @property
    def run_identity(self) -> dict[str, Any]:
        """What a run depends on: neither the tolerance nor what the fingerprint of the data tells."""
        told = {name: getattr(self, name) for name in ("data", "split", "model", "recipe", "metric")}
        told |= {name: value for name in ("loss", "positive") if (value := getattr(self, name)) is not None}
        return {**told, "own": {key: getattr(self, key) for key in OWN_KEYS}} if self.is_own else told

    @property
    def key(self) -> str:
        """Content hash of the task's definition; the data's own fingerprint is apart."""
        return config.digest(self)

    def target(self, reference_metric: float) -> float:
        """The worst metric that still counts as matched in the search."""
        return reference_metric - self.tolerance if self.higher_is_better else reference_metric + self.tolerance
