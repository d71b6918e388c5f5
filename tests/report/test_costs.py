from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fake_study import FACTS, FLOPS_PER_S, SUBSET_SLOWNESS, make_view

from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy
from subsettune.report import brief
from subsettune.report import costs as told
from subsettune.study.results.summarise import summarise
from subsettune.study.results.summary import AtMargin
from subsettune.study.results.view import StudyRecords, StudyView


def _with(view: StudyView, **changes: Any) -> StudyView:
    """The view with another summary."""
    return dataclasses.replace(view, summary=dataclasses.replace(view.summary, **changes))


def test_what_it_takes_to_match_is_told_as_an_interval_of_compute_and_of_saving() -> None:
    view = make_view("subset_wins")
    needs, *_ = told.cost_sentences(view)
    assert needs == (
        "What it takes to match on the validation split, as the search sees it: plain training needs 0.18 to 0.31 of "
        "the recipe's compute (69 to 82 % saved) and a subset first needs 0.030 to 0.050 of the recipe's compute (95 "
        "to 97 % saved). A rough guess of its model, which no test stands behind. Other "
        "examples may ask for more or less."
    )
    needs, *_ = told.cost_sentences(_with(view, needs=FrozenDict({"full": (0.4, 1.1)})))
    assert needs == (
        "What it takes to match on the validation split, as the search sees it: plain training needs 0.40 to 1.1 of "
        "the recipe's compute (-10 to 60 % saved). "
        "A rough guess of its model, which no test stands behind. "
        "Other examples may ask for more or less. What lies beyond what was "
        "tried is an extrapolation: plain training was tried up to 0.34."
    )
    assert not any("as the search sees it" in text for text in told.cost_sentences(make_view("full_wins")))


def test_how_long_compute_takes_says_which_runs_are_counted() -> None:
    view = make_view("subset_wins")
    known = tuple(dataclasses.replace(run, cached=run.seed < 2) for run in view.reference)
    told_of = told.times_note(dataclasses.replace(view, reference=known))
    assert told_of.startswith(
        "runs: those that this study made and that have such a phase; 2 runs of the reference, known from an earlier "
        "study, left out. time: as they shared the machine;"
    )
    assert "left out" not in told.times_note(view)


def test_what_no_trial_reached_is_not_told_as_needed() -> None:
    view = make_view("subset_wins")
    own = {name: getattr(view, name) for name in StudyRecords.__dataclass_fields__}
    low = tuple(dataclasses.replace(run, metric=0.5) if run.policy.arm == "full" else run for run in view.trials)
    assert set(summarise(StudyRecords(**own)).needs) == {"full", "subset"}
    assert set(summarise(StudyRecords(**{**own, "trials": low})).needs) == {"subset"}


def test_what_holds_a_smaller_tolerance_is_read_off_the_bounds() -> None:
    view = make_view("subset_wins")
    text = "By the bounds of the tests, which were made for the whole tolerance, "
    half = AtMargin(margin=0.005, name="candidate-1", flops=round(1.07 * FACTS.pass_flops), saving=0.964)
    none = AtMargin(margin=0.0, name=None, flops=None, saving=None)
    assert view.summary.at_margins[0].name == "candidate-1"
    shown = "candidate-1 (1.07 passes, 96 % saved) has a bound that holds half of it (0.005)"
    unshown = "no policy's bound holds the recipe's own accuracy, for which nothing was tested"
    assert told.cost_sentences(_with(view, needs=FrozenDict(), at_margins=(half, none))) == [
        f"{text}{shown} and {unshown}."
    ]
    dearer = dataclasses.replace(half, margin=0.0, name="candidate-2", saving=-0.2)
    assert told.cost_sentences(_with(view, needs=FrozenDict(), at_margins=(half, dearer))) == [
        f"{text}{shown} and candidate-2 (1.07 passes) has a bound that holds the recipe's own accuracy."
    ]
    same = dataclasses.replace(half, margin=0.0)
    assert told.cost_sentences(_with(view, needs=FrozenDict(), at_margins=(half, same))) == [
        f"{text}{shown} and the recipe's own accuracy."
    ]
    lost = dataclasses.replace(none, margin=0.005)
    assert told.cost_sentences(_with(view, needs=FrozenDict(), at_margins=(lost, none))) == [
        f"{text}no policy's bound holds half of it (0.005) or the recipe's own accuracy, for which nothing was tested."
    ]
    assert told.cost_sentences(make_view("none_passed")) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, None),  # of 1: 70 % of the time, of 75 % of the compute
        (0.41, "In time the policy saves 59 %, in compute 75 %: its compute takes 1.6 times as long as the recipe's, "
         "as measured here."),
        (1.5, "In time the policy saves nothing, in compute 75 %: its compute takes 6.0 times as long as the recipe's, "
         "as measured here."),
        (None, None),
    ],
)  # fmt: skip
def test_a_policy_that_saves_much_less_time_than_compute_is_told(seconds: float | None, text: str | None) -> None:
    view = _with(make_view("subset_wins"), needs=FrozenDict())
    best, reference = view.summary.best, view.summary.reference
    assert best is not None
    assert reference is not None
    best = dataclasses.replace(best, flops=reference.flops // 4, seconds=seconds)
    slow = _with(view, best=best, reference=dataclasses.replace(reference, seconds=1.0), at_margins=())
    assert told.cost_sentences(slow) == ([] if text is None else [text])
    plain = Policy(phases=(Phase(passes=1),))  # whose FLOPs are the recipe's own
    for changes in ({"passed": None}, {"policy": plain}):
        assert told.cost_sentences(_with(slow, best=dataclasses.replace(best, **changes))) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.39, "of the seconds measured here best saves 61 %"), (1.5, "best saves none"), (None, "")]
)
def test_beside_a_saving_of_compute_stands_that_of_the_seconds(seconds: float | None, text: str) -> None:
    view = make_view("subset_wins")
    best, reference = view.summary.best, view.summary.reference
    assert best is not None
    assert reference is not None
    timed = dataclasses.replace(best, seconds=seconds)
    view = _with(view, best=timed, reference=dataclasses.replace(reference, seconds=1.0))
    shown = told.seconds_beside(view)
    assert text in shown if text else shown == ""
    assert f"saved: compute{shown}." in " ".join(str(block) for block in brief.brief_blocks(view, brief.Where()))
    assert told.seconds_beside(_with(view, best=dataclasses.replace(timed, passed=None))) == ""


def test_seconds_per_flop_by_kind_of_phase() -> None:
    table = told.phase_costs_table(make_view("subset_wins"))
    assert table is not None
    assert [column.title for column in table.columns] == ["phase", "runs", "compute", "time", "s/TFLOP", "to full"]
    cells = {row[0]: row[4:] for row in table.rows}
    usual = 1e12 / FLOPS_PER_S
    assert list(cells) == ["full", "sift", "soup", "subset"]
    assert cells["full"] == (f"{usual:.3g}", "1.00")
    assert cells["soup"] == (f"{SUBSET_SLOWNESS * usual:.3g}", f"{SUBSET_SLOWNESS:.2f}")
    dear = dataclasses.replace(make_view("subset_wins").summary.phase_costs[0], flops=10**9, seconds=6.1534)
    table = told.phase_costs_table(
        _with(make_view("subset_wins"), phase_costs=(dear, dataclasses.replace(dear, kind="s")))
    )
    assert table is not None
    assert table.rows[0][4] == "6,150"
    assert told.phase_costs_table(make_view("reference")) is None
    assert told.phase_costs_table(make_view("empty")) is None


def test_what_each_stage_cost() -> None:
    view = make_view("subset_wins")
    table, reference = told.stage_costs_table(view), view.summary.reference
    assert table is not None
    assert reference is not None
    assert [column.title for column in table.columns] == ["stage", "runs", "compute", "trainings", "time"]
    first = view.summary.tuning.stages[0]
    assert table.rows[0][:2] == ("reference", str(len(view.reference)))
    assert table.rows[0][3] == f"{first.flops / reference.flops:.1f}"
    assert table.note == "trainings: compute over that of the recipe, evaluation and repeated work included."
    spare = dataclasses.replace(first, stage="not needed")
    more = _with(view, tuning=dataclasses.replace(view.summary.tuning, stages=(first, spare)))
    known = dataclasses.replace(more, reference=tuple(dataclasses.replace(r, cached=True) for r in more.reference))
    assert told.stages_note(known) == (
        f"{table.note} reference: {len(view.reference)} of its runs are known from an earlier study, and charged as if "
        "made here. not needed: runs of verification made while others were under way, on which nothing rests."
    )
    assert told.stage_costs_table(make_view("empty")) is None


def test_a_policy_at_an_end_of_the_space_is_told() -> None:
    view = make_view("subset_wins")
    best, space = view.summary.best, dict(view.study.space)
    assert best is not None
    assert not any("end of the space" in text for text in told.cost_sentences(view))
    space["budget"] = {"log": [best.flops / FACTS.reference_flops, 0.9]}
    narrow = dataclasses.replace(view, study=dataclasses.replace(view.study, space=FrozenDict(space)))
    (text,) = (text for text in told.cost_sentences(narrow) if "end of the space" in text)
    assert text.startswith(
        f"The best policy lies at an end of the space: budget {space['budget']['log'][0]:.4g}, the least"
    )


def test_the_largest_budget_is_no_end_beyond_which_anything_is_cheaper() -> None:
    view = make_view("subset_wins")
    best, space = view.summary.best, dict(view.study.space)
    assert best is not None
    space["budget"] = {"log": [1e-6, best.flops / FACTS.reference_flops]}
    wide = dataclasses.replace(view, study=dataclasses.replace(view.study, space=FrozenDict(space)))
    assert not any("end of the space" in text for text in told.cost_sentences(wide))


def test_what_verification_denies_or_nobody_could_try_is_not_told_as_needed() -> None:
    view = make_view("subset_wins")
    records = {field.name: getattr(view, field.name) for field in dataclasses.fields(StudyRecords)}

    def needs(ends: list[float], **changes: Any) -> FrozenDict:
        manifest = dataclasses.replace(view.manifest, needs=FrozenDict({"full": ends}))
        return summarise(StudyRecords(**{**records, "manifest": manifest, **changes})).needs

    assert needs([0.3, 0.9]) == {"full": [0.3, 0.9]}
    assert needs([0.0001, 0.0002]) == {}
    failed = {
        name: dataclasses.replace(verdict, passed=False)
        for name, verdict in view.verdicts.items()
        if view.candidates[name].policy.arm == "full" and verdict.is_tested
    }
    assert failed
    dearest = max(view.candidates[name].cost_flops for name in failed) / FACTS.reference_flops
    denied = {**view.verdicts, **failed}
    assert needs([0.02, 0.9 * dearest], verdicts=denied) == {}
    assert needs([0.02, 1.1 * dearest], verdicts=denied) != {}
