from __future__ import annotations

import json

import pytest
from fake_study import STATES, make_view

from subsettune.report.figures import figures
from subsettune.report.plotly_figures import plotly_figures


@pytest.mark.parametrize("state", STATES)
def test_they_are_those_of_the_report_with_colours(state: str) -> None:
    view = make_view(state)
    found, drawn = plotly_figures(view), figures(view)
    assert list(found) == [figure.name for figure in drawn]
    for figure in drawn:
        made = found[figure.name]
        assert made.layout.title.text == figure.title
        assert len(made.data) == len(figure.data)
        assert "--c-" not in json.dumps(made.to_plotly_json(), default=str)


def test_a_colour_is_that_of_the_light_page() -> None:
    (compute, *_) = plotly_figures(make_view("subset_wins")).values()
    assert "#0067a8" in json.dumps(compute.to_plotly_json(), default=str)
