"""The table of the recipe stopped early, in the terminal, on the page and as JSON."""

from __future__ import annotations

import dataclasses

from fake_study import make_view
from pages import unlinked

from subsettune.report import early_stop, html, tables
from subsettune.study.results.summary import EarlyStop

STOP = EarlyStop(
    patience=3,
    looks=20,
    seeds=5,
    stopped=4,
    metric=0.97,
    reference_metric=0.972,
    flops=5e8,
    saving=0.345,
    is_within=True,
)
CUT = dataclasses.replace(STOP, patience=None, look=7, stopped=5)
LOST = dataclasses.replace(STOP, patience=1, metric=0.9, saving=None, is_within=False)


def test_a_line_for_each_patience_and_one_truncated_and_what_misses_saves_nothing() -> None:
    view = make_view("subset_wins")
    view = dataclasses.replace(view, summary=dataclasses.replace(view.summary, early_stops=(LOST, STOP, CUT)))
    table = early_stop.early_stop_table(view)
    assert table is not None
    assert [column.title for column in table.columns][-2:] == ["saved", "within"]
    assert table.rows[0][:4] == ("patience 1", "4 of 5", "0.9000", "0.9720")
    assert [row[-2:] for row in table.rows] == [("-", "no"), ("34 %", "yes"), ("34 %", "yes")]
    assert table.rows[2][:2] == ("truncated at 7", "5 of 5")
    text, page = " ".join(tables.result_text(view).split()), html.page(view)
    for told in (text, " ".join(unlinked(page).split())):
        assert "The recipe stopped early, on the validation split" in told
        told = told.replace("<code>", "`").replace("</code>", "`")
        assert "has not improved for `patience` of 20 looks, the best weights kept; or all" in told
        assert (
            "the earliest from which on the mean over runs is within the tolerance, chosen in hindsight. Looks" in told
        )
        assert "Each is the best of 20 looks at the validation split," in told
        assert "which flatters, and was not tested on the test split; what is not within saves nothing. More" in told
    assert view.summary.to_mapping()["early_stops"][1]["saving"] == 0.345
    only = dataclasses.replace(view, summary=dataclasses.replace(view.summary, early_stops=(STOP,)))
    assert "the schedule unchanged: none before the end, from which on" in early_stop.note(only)


def test_without_a_reference_there_is_none() -> None:
    view = make_view("empty")
    assert early_stop.early_stop_table(view) is None
    assert early_stop.TITLE not in html.page(view)
