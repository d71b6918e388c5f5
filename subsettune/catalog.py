"""What a study file may name: selectors, orders, entries, models and data sets, each with one line and its options."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

DATA = {
    "digits": "scikit-learn's digits, 1,797 images of 8x8, 10 classes; embedded",
    "mnist": "60,000 + 10,000 images of 28x28, 10 classes; torchvision",
    "fashion_mnist": "60,000 + 10,000 images of 28x28, 10 classes; torchvision",
    "cifar10": "50,000 + 10,000 images of 32x32x3, 10 classes; torchvision",
    "cifar100": "50,000 + 10,000 images of 32x32x3, 100 classes; torchvision",
    "PATH.parquet, FOLDER": "Parquet: `image`, `text` or numeric columns, and `label`; train*, test* in a folder",
    "PATH.tsv, PATH.tsv.gz, FOLDER": "tab-separated texts (`text: COLUMN`) and `label`; train*, test* in a folder",
    "PATH.npz": "arrays x and y, and x_test and y_test if there are any",
    "package.module:function": "returns a map-style torch Dataset, or a pair of them: training, test",
}


def rows(what: str) -> list[dict[str, Any]]:
    """Rows of name, about and options.

    Args:
        what: `selector`, `order`, `entry`, `model` or `data`.
    """
    if what == "selector":
        return _selectors()
    if what == "order":
        return _orders()
    if what == "entry":
        return _entries()
    if what == "model":
        return _models()
    assert what == "data", what
    return [{"name": name, "about": about} for name, about in DATA.items()]


def _selectors() -> list[dict[str, Any]]:
    from subsettune import select

    return [*_known(select.names(), select.SELECTORS), _own("selector", "subsettune.select.Selector")]


def _orders() -> list[dict[str, Any]]:
    from subsettune.train import orders

    return [*_known(orders.names(), orders.ORDERS), _own("order", "subsettune.train.orders.Order")]


def _entries() -> list[dict[str, Any]]:
    from subsettune.policy import PRUNE
    from subsettune.train.transitions import base as entry

    rows = _known(entry.names(), entry.ENTRIES)
    for row in rows:
        if row["name"] == "shrink_perturb":  # which had options before other entries
            row["about"] = f"{row['about']}. In a space, shrink and noise are written without its name"
        if row["name"] == PRUNE:
            row["about"] = f"{row['about']}. {entry.BETWEEN}"
    return [*rows, _own("entry", "subsettune.train.transitions.base.Entry")]


def _known(abouts: Mapping[str, str], classes: Mapping[str, type]) -> list[dict[str, Any]]:
    return [{"name": name, "about": about, "options": _fields(classes[name])} for name, about in abouts.items()]


def _own(what: str, base: str) -> dict[str, Any]:
    written = f"Options are written {what.upper()}.OPTION in a space, and {what}_options in a policy"
    return {"name": "package.module:Class", "about": f"your own: a subclass of {base}. {written}."}


def _models() -> list[dict[str, Any]]:
    from subsettune.models import BUILDERS

    found = []
    for name, builder in BUILDERS.items():
        options = [p for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
        about = (inspect.getdoc(builder) or "").splitlines()[0]
        found.append(
            {"name": name, "about": about, "options": ", ".join(f"{p.name}: {_words(p.default)}" for p in options)}
        )
    own = "your own: called with its options, and with input_shape, num_outputs and num_tokens (texts) if it takes them"
    return [*found, {"name": "package.module:function", "about": own}]


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
