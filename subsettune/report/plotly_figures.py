"""The report's figures as plotly figures, for notebooks: in the colours of the light page."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from subsettune.report.figures import figures
from subsettune.study.results.view import StudyView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def plotly_figures(view: StudyView) -> dict[str, Figure]:
    """By name, in the order of the page; those that the study has something to show in."""
    from plotly.graph_objects import Figure  # of a second's import

    found = {}
    for figure in figures(view):
        layout = _coloured(figure.layout) | {"title": {"text": figure.title}, "template": "none"}
        layout["margin"] = {**layout.get("margin", {}), "t": 60}  # room for the title, which the page has outside
        found[figure.name] = Figure(data=_coloured(list(figure.data)), layout=layout)
    return found


def _coloured(value: Any) -> Any:
    """The same with colours in place of the names that the page's style gives them."""
    if isinstance(value, str):
        return _colours().get(value, value)
    if isinstance(value, list | tuple):
        return [_coloured(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _coloured(inner) for key, inner in value.items()}
    return value


@cache
def _colours() -> dict[str, str]:
    style = (resources.files("subsettune.report") / "assets" / "style.css").read_text(encoding="utf-8")
    light = style[: style.index("@media")]
    return dict(re.findall(r"(--c-\w+): (#[0-9a-f]{6})", light))
