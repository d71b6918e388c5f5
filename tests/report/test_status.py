"""What `status` prints of a study."""

from __future__ import annotations

import datetime

import pytest

from subsettune.policy import Policy
from subsettune.report.render import Table
from subsettune.report.status import status_blocks
from subsettune.study.status import BestSoFar, StudyStatus

BEST = {
    "policy": Policy(phases=[{"passes": 1}]),
    "compute_share": 0.2951,  # of which a saving of 70 % is the rest
    "metric": 2.5,
    "reference_metric": 3.0,
    "error_increase": None,
    "is_verified": False,
}


@pytest.mark.parametrize(
    ("gap", "words"),
    [(0.5, "0.5000 better than the reference"), (-0.5, "0.5000 worse than the reference"), (0.0, "as the reference")],
)
def test_the_best_so_far_is_better_or_worse_whatever_the_direction(gap: float, words: str) -> None:
    best = BestSoFar(**BEST, gap=gap)  # type: ignore[arg-type]
    status = StudyStatus(run_id="a", folder="runs/a", state="running", best=best, metric_name="mse", tolerance=0.01)
    table = status_blocks(status, datetime.datetime.now(datetime.UTC))[1]
    assert isinstance(table, Table)
    (told,) = [row[1] for row in table.rows if row[0] == "best so far"]
    assert told.startswith(f"30 % of the recipe's compute: MSE 2.5000, {words} (")


def test_candidates_are_named_as_show_names_them() -> None:
    runs = {"reference": 5, "candidate-1@2": 5, "recipe@2": 0}
    status = StudyStatus(run_id="a", folder="runs/a", state="running", verification=runs)
    table = status_blocks(status, datetime.datetime.now(datetime.UTC))[1]
    assert isinstance(table, Table)
    assert dict(table.rows)["verification"] == "reference 5 runs, candidate-1@2 5 runs and short recipe 0 runs"
