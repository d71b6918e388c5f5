from __future__ import annotations

import dataclasses

import pytest
from fake_study import STATES, make_view

from subsettune.cli import parser
from subsettune.report import parts, render, tables
from subsettune.report.render import Table


@pytest.mark.parametrize("state", STATES)
def test_every_part_of_every_state_fits_80_columns_of_ascii(state: str) -> None:
    view = make_view(state)
    for part in parts.PARTS:
        text = render.render(parts.part_blocks(view, part))
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 80
        assert text.strip()


def test_the_command_line_knows_the_parts() -> None:
    assert tuple(parts.PARTS) == parser.PARTS


def test_a_part_that_there_is_not_yet_says_so() -> None:
    view = make_view("empty")
    for part in ("trials", "verification", "ablation", "curves"):
        assert parts.part_blocks(view, part) == [f"No {part} yet: {view.summary.headline}"]


def test_trials_that_met_the_target_come_first_the_cheapest_of_them_on_top() -> None:
    view = make_view("subset_wins")
    table, text = parts.part_blocks(view, "trials")
    assert isinstance(table, Table)
    ends = [row[1] for row in table.rows]
    assert ends == sorted(ends, key=parts.ENDS.index)
    met = sorted(
        (run.policy.passes, run.number) for run in view.trials if run.cause == "finished" and view.reaches(run.metric)
    )
    assert [int(row[0]) for row in table.rows[: len(met)]] == [number for _, number in met]
    assert sorted(int(row[0]) for row in table.rows) == [run.number for run in view.trials]
    by_number = {run.number: run for run in view.trials}
    for row in table.rows:
        metric = by_number[int(row[0])].metric
        assert row[2] == ("-" if metric is None else f"{metric:.4f}")
    assert isinstance(text, str)
    assert text.startswith(f"met: {view.target:.4f} or more on the validation split")


def test_why_trials_failed_stands_below_them() -> None:
    view = make_view("subset_wins")
    failed = [run for cause in ("diverged", "failed") for run in view.trials if run.cause == cause]
    (table, _) = parts.part_blocks(view, "trials")
    assert isinstance(table, Table)
    assert failed
    assert table.note.splitlines() == [f"trial {run.number}: {' '.join(run.message.split())}" for run in failed]


def test_an_error_meets_the_target_from_below() -> None:
    (_, text) = parts.part_blocks(make_view("subset_wins", metric="mse"), "trials")
    assert " or less on the validation split" in str(text)


def test_verification_has_what_was_tested_and_how() -> None:
    blocks = parts.part_blocks(make_view("subset_wins"), "verification")
    titles = [block.title for block in blocks if isinstance(block, Table)]
    assert titles == ["", "Verification, at a margin of -0.01", "Against controls of equal compute"]
    assert str(blocks[-1]).startswith("Candidates are tested one at a time")
    before = parts.part_blocks(make_view("before"), "verification")
    assert len([block for block in before if isinstance(block, Table)]) == 2


def test_costs_have_the_table_the_legend_and_the_price() -> None:
    view = make_view("subset_wins")
    blocks = parts.part_blocks(view, "costs")
    assert blocks[:2] == [tables.result_table(view), tables.legend(view)]
    assert str(blocks[-1]).startswith(tables.tuning_text(view))


def test_the_ablation_is_the_table_of_components() -> None:
    (table,) = parts.part_blocks(make_view("subset_wins"), "ablation")
    assert isinstance(table, Table)
    assert table.title == "Components"


def test_curves_are_means_of_looks_at_the_same_share() -> None:
    view = make_view("subset_wins")
    (table,) = parts.part_blocks(view, "curves")
    assert isinstance(table, Table)
    rows = [row for row in table.rows if row[0] == "reference"]
    shares = sorted({round(point.share, 3) for run in view.reference for point in run.curve})
    assert len(rows) == len(shares)
    last = [run.curve[-1].metric for run in view.reference]
    known = [metric for metric in last if metric is not None]
    assert rows[-1][1] == "100 %"
    assert rows[-1][3:] == (
        "5",
        f"{sum(known) / len(known):.4f}",
        f"{min(known):.4f}",
        f"{max(known):.4f}",
    )
    bare = tuple(dataclasses.replace(run, curve=()) for run in view.reference)
    trials = tuple(dataclasses.replace(run, curve=()) for run in view.trials)
    (text,) = parts.part_blocks(dataclasses.replace(view, reference=bare, trials=trials), "curves")
    assert str(text).startswith("No curves yet: ")
