"""Names of the components that files and policies may use, one registry a kind, and how each name becomes a class.

A name is one of ours, one that an installed package gives by an entry point (in its pyproject.toml, under
`[project.entry-points."subsettune.orders"]`), or `package.module:Class`. Classes stand here as texts and are imported
when they are asked for, so that tasks, spaces and `--help` know every name without torch.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from subsettune import config
from subsettune.config import Rule, must
from subsettune.errors import ConfigError, Mistake, did_you_mean
from subsettune.plugins import load_object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Registry(Mapping[str, Any]):
    """All components of a kind: a mapping of names to classes, which are imported when they are looked up.

    Args:
        what: the kind in a sentence, which is also the key that names one in a file: `selector`.
        builtin: our own, as `module:Class`, the usual one first.
        base: `module:Class` that a user's class must extend; "" where anything that can be called will do.
        group: of the entry points by which an installed package adds its own; "" for none.
        user_code: how a user's own is written; "" where there are ours alone.
    """

    what: str
    builtin: Mapping[str, str]
    base: str = ""
    group: str = ""
    user_code: str = ""

    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[str]:
        return iter((*self.builtin, *self.installed))

    def __len__(self) -> int:
        return len(self.builtin) + len(self.installed)

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self.installed

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return self.load(name)

    @property
    def installed(self) -> Mapping[str, str]:
        """Those of other packages, by name.

        Raises:
            ConfigError: two packages use one name, or one uses a name of ours.
        """
        if not self.group:
            return {}
        found = _entry_points(self.group, tuple(sys.path))
        names = [*self.builtin, *(name for name, _ in found)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            where = " and ".join(target for name, target in found if name == twice)
            raise ConfigError(
                f"{self.what} {twice!r} of {where} has the name of another. Uninstall or rename one of them."
            )
        return dict(found)

    def names(self) -> tuple[str, ...]:
        """Ours, then those of installed packages; loads none of them."""
        return tuple(self)

    def summaries(self) -> dict[str, str]:
        """Each name with the one line that its class says of itself."""
        return {name: getattr(cls, "summary", "") or _first_line(cls) for name, cls in self.items()}

    @property
    def rule(self) -> Rule:
        """What a field of a file must be that names one."""
        if self.user_code:
            return config.one_of(self.names, self.what)
        return Rule(f"one of {', '.join(self.builtin)}", lambda name: name in self.builtin, known=lambda: self.builtin)

    def code_of(self, name: str) -> str | None:
        """`module:Class` of one that is not ours, so that its source is part of what a run depends on; else None."""
        return name if ":" in name else self.installed.get(name)

    def load(self, name: str) -> Any:
        """The class or function behind a name.

        Raises:
            ConfigError: unknown, cannot be imported, or not what the kind asks for.
        """
        if name in self.builtin:
            return _own_object(self.builtin[name], self.what)
        target = self.code_of(name) if self.user_code else None
        if target is None:
            own = f" or {self.user_code}" if self.user_code else ""
            raise ConfigError(must(self.what, f"one of {', '.join(self)}{own}", name, did_you_mean(name, self)))
        found = load_object(target, self.what, is_installed=target != name)
        if self.base:
            self._check_class(found, name)
        return found

    def make(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """One with its options.

        Raises:
            ConfigError: as `load`, or an option that is unknown or out of range.
        """
        cls = self.load(name)
        try:
            return config.build(cls, dict(options or {}))
        except ConfigError as error:
            found = (
                Mistake((f"{self.what}_options", *m.path), m.message + _beside(cls, m.path)) for m in error.mistakes
            )
            raise ConfigError(tuple(found)) from error

    def _check_class(self, found: Any, name: str) -> None:
        base = _own_object(self.base, self.what)
        if not (inspect.isclass(found) and issubclass(found, base)) or inspect.isabstract(found):
            methods = " and ".join(sorted(base.__abstractmethods__))
            advice = f"Subclass {self.base.replace(':', '.')}, with {methods}."
            raise ConfigError(must(self.what, f"a concrete subclass of {base.__name__}", name, advice))
        if not hasattr(found, "__dataclass_fields__"):
            advice = "Decorate it with @dataclass(frozen=True, slots=True, kw_only=True)."
            raise ConfigError(must(self.what, "a dataclass of its options", name, advice))


def _beside(cls: Any, path: tuple[str, ...]) -> str:
    """What a space has beside the options of a component, where one is unknown."""
    more = getattr(cls, "in_space", "")
    return f" {more}." if more and path[:1] and path[0] not in cls.__dataclass_fields__ else ""


def _first_line(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


@functools.cache  # policies are made of a few components over and over
def _own_object(target: str, what: str) -> Any:
    return load_object(target, what, is_installed=True)


@functools.lru_cache(maxsize=16)  # reading what is installed takes milliseconds, and names are asked for all the time
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names and targets that installed packages give, a package that is found twice on the path once."""
    found = {(point.name, f"{point.module}:{point.attr}") for point in metadata.entry_points(group=group)}
    return tuple(sorted(found))


SELECTORS = Registry(
    what="selector",
    builtin={
        "random": "subsettune.select.selectors.random:Random",
        "stratified": "subsettune.select.selectors.stratified:Stratified",
        "kcenter": "subsettune.select.selectors.kcenter:KCenter",
        "herding": "subsettune.select.selectors.herding:Herding",
        "facility_location": "subsettune.select.selectors.facility_location:FacilityLocation",
        "el2n": "subsettune.select.selectors.el2n:EL2N",
        "grand": "subsettune.select.selectors.grand:GraNd",
        "forgetting": "subsettune.select.selectors.forgetting:Forgetting",
        "gradmatch": "subsettune.select.selectors.gradmatch:GradMatch",
        "glister": "subsettune.select.selectors.glister:Glister",
    },
    base="subsettune.select:Selector",
    group="subsettune.selectors",
    user_code="package.module:Class",
)
ORDERS = Registry(
    what="order",
    builtin={
        "uniform": "subsettune.train.orders.uniform:Uniform",
        "rs2": "subsettune.train.orders.rs2:Rs2",
        "infobatch": "subsettune.train.orders.infobatch:InfoBatch",
        "sift": "subsettune.train.orders.sift:Sift",
        "selective_backprop": "subsettune.train.orders.selective_backprop:SelectiveBackprop",
    },
    base="subsettune.train.orders:Order",
    group="subsettune.orders",
    user_code="package.module:Class",
)
TRANSITIONS = Registry(
    what="transition",
    builtin={
        "keep": "subsettune.train.transitions.basic:Keep",
        "reset_optimizer": "subsettune.train.transitions.basic:ResetOptimizer",
        "shrink_perturb": "subsettune.train.transitions.basic:ShrinkPerturb",
        "prune": "subsettune.train.transitions.prune:Prune",
    },
    base="subsettune.train.transitions:Transition",
    group="subsettune.transitions",
    user_code="package.module:Class",
)
MODELS = Registry(
    what="model",
    builtin={
        "mlp": "subsettune.models.networks:mlp",
        "cnn": "subsettune.models.networks:cnn",
        "resnet18": "subsettune.models.networks:resnet18",
        "transformer": "subsettune.models.transformer:transformer",
    },
    user_code="package.module:function",
)
OPTIMIZERS = Registry(
    what="optimizer",
    builtin={
        "sgd": "torch.optim:SGD",
        "adam": "torch.optim:Adam",
        "adamw": "torch.optim:AdamW",
        "adadelta": "torch.optim:Adadelta",
        "lbfgs": "torch.optim:LBFGS",
    },
    user_code="package.module:Class",
)
SCHEDULES = Registry(
    what="schedule",
    builtin={
        "constant": "subsettune.train.schedule:Constant",
        "step": "subsettune.train.schedule:Step",
        "cosine": "subsettune.train.schedule:Cosine",
        "one_cycle": "subsettune.train.schedule:OneCycle",
        "warmup_stable_decay": "subsettune.train.schedule:WarmupStableDecay",
    },
)


LOSSES = Registry(what="loss", builtin={}, user_code="package.module:function")
OWN_METRICS = Registry(what="metric", builtin={}, user_code="package.module:function")  # ours are in METRICS
AUGMENTS = Registry(what="augment", builtin={}, user_code="package.module:function")

KINDS = ("classification", "regression", "multilabel")  # of tasks: one class an example, numbers, or several labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a task is judged; `subsettune.train.metrics` computes it.

    Args:
        tasks: kinds of the tasks that it suits; of a task that does not say its kind, the first.
        higher_is_better: its direction.
        words: it in a sentence.
        is_share: whether 1 is the best that it can be, so that what it is short of 1 is an error.
        mean_of: what it is a mean of, so that other examples can be spoken of: `examples`, or `classes` of their means;
            empty where it is none.
        has_steps: whether it moves in steps of about one example's worth.
    """

    tasks: tuple[str, ...]
    higher_is_better: bool
    words: str
    is_share: bool = True
    mean_of: Literal["examples", "classes", ""] = ""
    has_steps: bool = False


_CLASSES, _LABELS = ("classification",), ("classification", "multilabel")
_ERROR: dict[str, Any] = {"tasks": ("regression",), "higher_is_better": False, "is_share": False}

METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(tasks=_LABELS, higher_is_better=True, words="accuracy", mean_of="examples", has_steps=True),
    "balanced_accuracy": Metric(
        tasks=_CLASSES, higher_is_better=True, words="balanced accuracy", mean_of="classes", has_steps=True
    ),
    "macro_f1": Metric(tasks=_LABELS, higher_is_better=True, words="macro F1", has_steps=True),
    "top5": Metric(tasks=_CLASSES, higher_is_better=True, words="top-5 accuracy", mean_of="examples", has_steps=True),
    "roc_auc": Metric(tasks=_LABELS, higher_is_better=True, words="ROC AUC"),
    "average_precision": Metric(tasks=_LABELS, higher_is_better=True, words="average precision"),
    "log_loss": Metric(tasks=_LABELS, higher_is_better=False, words="log loss", is_share=False, mean_of="examples"),
    "subset_accuracy": Metric(
        tasks=("multilabel",), higher_is_better=True, words="subset accuracy", mean_of="examples", has_steps=True
    ),
    "mse": Metric(**_ERROR, words="MSE", mean_of="examples"),
    "mae": Metric(**_ERROR, words="MAE", mean_of="examples"),
    "rmse": Metric(**_ERROR, words="RMSE"),
    "r2": Metric(tasks=("regression",), higher_is_better=True, words="R^2"),
}


def metrics_of(kind: str) -> tuple[str, ...]:
    """Names of our metrics that suit a kind of task."""
    return tuple(name for name, metric in METRICS.items() if kind in metric.tasks)


DATASETS: Mapping[str, str] = {  # by name, with a line on each; other data are named by their path or by a function
    "digits": "scikit-learn's digits, 1,797 images of 8x8, 10 classes; embedded",
    "mnist": "60,000 + 10,000 images of 28x28, 10 classes; torchvision",
    "fashion_mnist": "60,000 + 10,000 images of 28x28, 10 classes; torchvision",
    "cifar10": "50,000 + 10,000 images of 32x32x3, 10 classes; torchvision",
    "cifar100": "50,000 + 10,000 images of 32x32x3, 100 classes; torchvision",
}
