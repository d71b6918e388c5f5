"""Where an early stop would have cut a run off, by curves whose answer is plain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from fake_study import make_view

from subsettune.ledger import Ledger
from subsettune.study.results.early_stop import early_stops, first_within, stop
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView
from subsettune.train.result import CurvePoint

RUN = make_view("reference").reference[0]
LOOK = 7  # FLOPs


def run(metrics: Sequence[float | None], seed: int = 0) -> RunRecord:
    """A run of the reference with so many points, 100 FLOPs from one to the next."""
    curve = tuple(
        CurvePoint(share=(i + 1) / len(metrics), flops=100 * (i + 1), phase=0, metric=metric, loss=1.0, seconds=0.0)
        for i, metric in enumerate(metrics)
    )
    ledger = Ledger(forward=100 * len(metrics), evaluate=LOOK * len(metrics))
    return dataclasses.replace(RUN, seed=seed, curve=curve, metric=metrics[-1], ledger=ledger)


@pytest.mark.parametrize(
    ("metrics", "patience", "expected"),
    [
        ([0.1, 0.3, 0.2, 0.5, 0.6], 1, (0.3, 3, True)),
        ([0.1, 0.3, 0.2, 0.5, 0.6], 2, (0.6, 5, False)),
        ([0.1, 0.3, 0.3, 0.3, 0.9], 2, (0.3, 4, True)),  # equal is no improvement
        ([0.5, 0.4, 0.3, 0.2, 0.1], 4, (0.5, 5, False)),  # at its end nothing is cut off, and the best is kept
        ([0.5, None, None, 0.9, 0.1], 2, (0.5, 3, True)),
        ([None, 0.2, 0.3, 0.4, 0.5], 1, (0.5, 5, False)),
    ],
)
def test_a_run_stops_after_so_many_looks_without_an_improvement(
    metrics: list[float | None], patience: int, expected: tuple[float, int, bool]
) -> None:
    best, looks, is_early = expected
    assert stop(run(metrics), patience, higher_is_better=True) == (best, looks * (100 + LOOK), is_early)
    turned = [None if value is None else -value for value in metrics]
    found = stop(run(turned), patience, higher_is_better=False)
    assert found == (-best, looks * (100 + LOOK), is_early)


def view_of(*curves: list[float | None], tolerance: float = 0.01) -> StudyView:
    view = make_view("reference")
    assert view.facts is not None
    facts = dataclasses.replace(
        view.facts, num_examples=1, forward_flops=60, backward_flops=40, reference_passes=len(curves[0])
    )
    study = dataclasses.replace(view.study, task=dataclasses.replace(view.study.task, tolerance=tolerance))
    runs = tuple(run(curve, seed) for seed, curve in enumerate(curves))
    return dataclasses.replace(view, facts=facts, study=study, reference=runs)


def test_what_is_saved_is_a_mean_over_seeds_with_the_looks_charged() -> None:
    view = view_of([0.5, 0.6, 0.55, 0.6, 0.61], [0.5, 0.4, 0.6, 0.6, 0.6])
    one, three, cut = early_stops(view)
    assert (one.patience, one.looks, one.seeds, one.stopped) == (1, 5, 2, 2)
    assert (one.metric, one.reference_metric) == (pytest.approx(0.55), pytest.approx(0.605))
    assert one.flops == (3 + 2) / 2 * 107
    assert (one.is_within, one.saving) == (False, None)  # what does not match saves nothing
    assert (three.patience, three.stopped, three.flops) == (3, 0, 535)
    assert three.is_within
    assert three.saving == pytest.approx(1 - 535 / 500)
    assert (cut.patience, cut.look, cut.looks, cut.stopped) == (None, 4, 5, 2)
    assert (cut.metric, cut.flops, cut.is_within) == (pytest.approx(0.6), 4 * 107, True)
    assert cut.saving == pytest.approx(1 - 428 / 500)
    wide, _, earliest = early_stops(view_of([0.5, 0.6, 0.55, 0.6, 0.61], [0.5, 0.4, 0.6, 0.6, 0.6], tolerance=0.1))
    assert wide.saving == pytest.approx(1 - 267.5 / 500)
    assert earliest.look == 3  # the second is at 0.5, further from 0.605 than 0.1
    assert earliest.metric == pytest.approx(0.575)


@pytest.mark.parametrize(
    ("curves", "look"),
    [
        ([[0.5, 0.6, 0.6, 0.6]], 2),
        ([[0.6, 0.5, 0.6, 0.6]], 3),  # within before, and then not
        ([[0.7, 0.9, 0.8, 0.6]], 1),  # better is within
        ([[0.1, 0.2, 0.3, 0.6]], 4),
        ([[0.5, 0.6, 0.6], [0.7, 0.6, 0.6]], 1),  # the mean counts
        ([[0.6, None, 0.6]], 3),
        ([[0.6, 0.6, 0.6], [0.6, None, 0.6]], 3),
    ],
)
def test_the_first_look_from_which_on_the_mean_is_within(curves: list[list[float | None]], look: int) -> None:
    runs = [run(curve) for curve in curves]
    assert first_within(runs, 0.05, higher_is_better=True) == look
    turned = [run([None if value is None else -value for value in curve]) for curve in curves]
    assert first_within(turned, 0.05, higher_is_better=False) == look


def test_nothing_is_told_before_the_reference_has_run_or_of_runs_without_a_curve() -> None:
    assert early_stops(make_view("empty")) == ()
    assert early_stops(view_of([0.5])) == ()
    assert early_stops(view_of([0.5, 0.6])) == ()  # nothing is left to save
    assert [one.look for one in early_stops(view_of([0.6, 0.6]))] == [1]
    assert [one.patience for one in early_stops(view_of([0.1] * 12))] == [1, 3, 5, 10, None]
