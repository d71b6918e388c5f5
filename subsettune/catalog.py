"""What a study file may name: selectors, orders, transitions, metrics, models and data, each in a line."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

from subsettune.registry import DATASETS, METRICS, MODELS, ORDERS, OWN_METRICS, SELECTORS, TRANSITIONS, Registry

DATA = {
    **DATASETS,
    "PATH.parquet, FOLDER": "Parquet: `image`, `text` or numeric columns, `label`; train, validation, test in a folder",
    "PATH.csv, PATH.csv.gz, FOLDER": "the same as .csv, whatever its separator and decimal mark",
    "FOLDER": "a folder of pictures for each class, as photos/cat/1.jpg; or train, val and test of such",
    "PATH.tsv, PATH.tsv.gz, FOLDER": "tab-separated `text: COLUMN` and `label`; train, test, or shards in a folder",
    "PATH.npz": "arrays x and y (or x_train and y_train), and x_test and y_test if there are any",
    "package.module:function": "returns a map-style torch Dataset, or a pair of them: training, test",
}


COMPONENTS = {registry.what: registry for registry in (SELECTORS, ORDERS, TRANSITIONS)}


def rows(what: str) -> list[dict[str, Any]]:
    """Rows of name, about and options.

    Args:
        what: `selector`, `order`, `transition`, `metric`, `model` or `data`.
    """
    if what in COMPONENTS:
        return _components(COMPONENTS[what])
    if what == "model":
        return _models()
    if what == "metric":
        return _metrics()
    assert what == "data", what
    return [{"name": name, "about": about} for name, about in DATA.items()]


def _components(known: Registry) -> list[dict[str, Any]]:
    """All of a kind, those of installed packages too, and how to write one's own."""
    found = []
    for name, about in known.summaries().items():
        cls = known[name]
        more = getattr(cls, "in_space", "")
        found.append({"name": name, "about": f"{about}. {more}" if more else about, "options": _fields(cls)})
    written = f"Options are written {known.what.upper()}.OPTION in a space, and {known.what}_options in a policy"
    about = f"your own: a subclass of {known.base.replace(':', '.')}. {written}."
    return [*found, {"name": known.user_code, "about": about}]


def _metrics() -> list[dict[str, Any]]:
    """With the kinds of tasks that they suit, their direction, and whether they speak of other test examples."""
    found = []
    for name, metric in METRICS.items():
        better = "higher" if metric.higher_is_better else "lower"
        bound = "" if metric.mean_of else "; no mean over examples, so that no bound for other test examples is given"
        found.append({"name": name, "about": f"{metric.words}, {better} is better: {', '.join(metric.tasks)}{bound}"})
    own = "your own: function(targets, outputs) of NumPy arrays, one number; {name: ..., higher_is_better: true}"
    return [*found, {"name": OWN_METRICS.user_code, "about": own}]


def _models() -> list[dict[str, Any]]:
    found = []
    for name, builder in MODELS.items():
        options = [p for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
        about = (inspect.getdoc(builder) or "").splitlines()[0]
        found.append(
            {"name": name, "about": about, "options": ", ".join(f"{p.name}: {_words(p.default)}" for p in options)}
        )
    own = "your own: called with its options, and with input_shape, num_outputs and num_tokens (texts) if it takes them"
    return [*found, {"name": MODELS.user_code, "about": own}]


def _fields(cls: type) -> str:
    """Options with their defaults; where there are a few values, the others follow."""
    if not dataclasses.is_dataclass(cls):
        return ""
    hints = typing.get_type_hints(cls)
    return ", ".join(f"{field.name}: {_values(hints[field.name], field.default)}" for field in dataclasses.fields(cls))


def _values(hint: Any, default: Any) -> str:
    others = [value for value in typing.get_args(hint) if value != default] if _is_literal(hint) else []
    return " | ".join(map(_words, (default, *others)))


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _words(default: Any) -> str:
    """A default as it is written in a study file."""
    return str(list(default) if isinstance(default, tuple) else default)
