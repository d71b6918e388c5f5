"""The report's figures, in the order of the page."""

from __future__ import annotations

from subsettune.report.compute_figure import compute_figure
from subsettune.report.curves import curves_figure
from subsettune.report.drawing import Figure
from subsettune.report.gain_figure import gain_figure
from subsettune.report.intervals import components_figure, verification_figure
from subsettune.report.search_figure import search_figure
from subsettune.study.results.view import StudyView


def figures(view: StudyView) -> tuple[Figure, ...]:
    """The figures that this study has something to show in, in the order of the page."""
    drawers = (
        gain_figure,
        verification_figure,
        compute_figure,
        search_figure,
        curves_figure,
        components_figure,
    )
    made = (draw(view) for draw in drawers)
    return tuple(figure for figure in made if figure is not None)
