"""What a task is judged by and trained on: rules of its metric, its kind and its loss, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config, in_memory
from subsettune.config import Rule, must
from subsettune.errors import ConfigError, Mistake
from subsettune.registry import KINDS, METRICS, Metric, metrics_of

METRIC_RULE = Rule(
    f"one of {', '.join(METRICS)} or package.module:function",
    lambda name: name in METRICS or ":" in name,
    known=lambda: METRICS,
)
KIND_RULE = Rule(f"one of {', '.join(KINDS)}", lambda kind: kind in ("", *KINDS), known=lambda: KINDS)
LOSS_RULE = Rule("package.module:function", lambda name: ":" in name, "Leave it out for the usual one.")
WEIGHTS_RULE = Rule(
    "balanced, or a list of positive numbers, one a class",
    lambda v: v == "balanced" if isinstance(v, str) else len(v) > 1 and all(weight > 0 for weight in v),
)
LOOKS_FOR = ("roc_auc", "average_precision")  # metrics that look for one of two classes
PARTS = ("name", "higher_is_better")  # of a metric of the user's own


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMetric:
    """What is to be known of a metric of the user's own, `package.module:function`.

    Args:
        higher_is_better: its direction.
    """

    higher_is_better: bool

    def __post_init__(self) -> None:
        config.check(self)


def metric_parts(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a metric of the user's own, and what is said of it, as the fields of a task.

    Raises:
        ConfigError: a key is missing, unknown or wrong.
    """
    mistakes = [Mistake(("metric", str(key)), config.unknown_key(key, PARTS)) for key in raw if key not in PARTS]
    mistakes += [Mistake(("metric",), f"key {key!r} is missing.") for key in PARTS if key not in raw]
    try:
        own = config.build(OwnMetric, {"higher_is_better": raw.get("higher_is_better", True)})
    except ConfigError as error:
        mistakes += [Mistake(("metric", *m.path), m.message) for m in error.mistakes]
    name = raw.get("name")
    if callable(name):
        name = in_memory.code_name(name, "metric")
    if name is not None and not isinstance(name, str):
        mistakes.append(Mistake(("metric", "name"), must("name", "a text", name)))
    if mistakes:
        raise ConfigError(tuple(mistakes))
    return {"metric": name, "own_metric": own}


def usual_kind(metric: str) -> str:
    """The kind of task that a metric suits first; classification for one of the user's own."""
    return METRICS[metric].tasks[0] if metric in METRICS else KINDS[0]


def judged(metric: str, own: OwnMetric | None, kind: str) -> Metric:
    """What is known of a metric; of the user's own its direction alone.

    One of the user's own is taken to have steps, which errs on the safe side, but for a regression.
    """
    if own is None:
        return METRICS[metric]
    is_stepped = kind != "regression"
    return Metric(
        tasks=(kind,), higher_is_better=own.higher_is_better, words=metric, is_share=False, has_steps=is_stepped
    )


def metric_mistakes(metric: str, own: OwnMetric | None, kind: str, tolerance: float) -> Iterator[Mistake]:
    """What is wrong with a metric for a kind of task, and with the tolerance in its units."""
    known = METRICS.get(metric)
    if known is None and own is None:
        advice = f"Write {{name: {metric!r}, higher_is_better: true}}, or false."
        yield Mistake(("metric",), f"metric must say its direction, got {metric!r} alone. {advice}")
    elif known is not None and own is not None:
        message = f"higher_is_better must be left out for {metric}, whose direction is known. Write its name alone."
        yield Mistake(("metric",), message)
    elif known is not None and kind not in known.tasks:
        rule = f"one of {', '.join(metrics_of(kind))} for {_a(kind)}"
        others = " or ".join(map(_a, known.tasks))
        yield Mistake(("metric",), must("metric", rule, metric, f"It is for {others}: mend it, or kind."))
    elif known is not None and known.is_share and tolerance >= 1:
        yield Mistake(("tolerance",), must("tolerance", "below 1", tolerance, "Write 0.01 for 1 %."))


def positive_mistakes(metric: str, kind: str, positive: str | int | None) -> Iterator[Mistake]:
    """A class that is looked for, where the metric looks for none."""
    if positive is not None and (metric not in LOOKS_FOR or kind != "classification"):
        message = (
            f"positive means nothing to {metric} of {_a(kind)}. It is for {' and '.join(LOOKS_FOR)} of two classes."
        )
        yield Mistake(("positive",), message)


def loss_mistakes(loss: str | None, kind: str, given: Mapping[str, bool]) -> Iterator[Mistake]:
    """Settings of the cross-entropy where the loss is another.

    Args:
        loss: of the user's own, if there is one.
        kind: of the task.
        given: names of such settings of the recipe, and whether they are set.
    """
    if kind == "classification" and loss is None:
        return
    others = {
        "regression": "regression.",
        "multilabel": "several labels an example, each of which is there or not. Put it into a loss of your own.",
    }
    to = "a loss of your own. Put it into the function." if loss is not None else others[kind]
    for name, is_given in given.items():
        if is_given:
            yield Mistake(("recipe", name), f"{name} means nothing to {to}")


def _a(kind: str) -> str:
    """A kind of task in a sentence."""
    return "several labels an example" if kind == "multilabel" else f"a {kind}"
