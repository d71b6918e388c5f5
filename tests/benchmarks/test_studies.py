"""The benchmark of studies: its tables stand for training, its studies are the product's own, its words count right."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from places import BENCHMARKS

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.data import DataPaths
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy, conventional
from subsettune.study.execute.requests import RunRequest
from subsettune.study.results.confirmation import FRESH, SEEDS_APART
from subsettune.study.spec.space import Space
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import MOST_OWN, Rules, allot, plan, sizes
from subsettune.study.verification.verification import Verification
from subsettune.task import Task
from subsettune.train.result import CurvePoint

PARTS = ("baselines", "measures", "simulated", "splits", "tables", "tasks", "words")
RATES, BUDGETS = (0.1, 0.4), (0.1, 0.2, 0.4)
SPACE: dict[str, Any] = {
    "budget": {"choice": list(BUDGETS)},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"choice": [0.5]},
    "subset_share": {"choice": [0.3]},
    "selector": "random",
    "transition": "keep",
    "lr": {"choice": list(RATES)},
}


def load_bench() -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        parts = {name: importlib.import_module(f"studies_parts.{name}") for name in PARTS}
        return SimpleNamespace(main=importlib.import_module("studies"), **parts)


@pytest.fixture(scope="module")
def bench() -> SimpleNamespace:
    return load_bench()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> DataPaths:
    return DataPaths(cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def known(bench: SimpleNamespace, places: DataPaths) -> Any:
    return bench.tables.Known.of(bench.tasks.digits_study(0).task, places)


def plain(passes: float, **recipe: Any) -> Policy:
    return Policy(phases=(Phase(passes=passes),), recipe=FrozenDict(recipe))


def made_up(
    bench: SimpleNamespace, known: Any, places: DataPaths, metric: Callable[[Policy, int], float], columns: int = 12
) -> Any:
    """A table of `SPACE` whose metrics are made up; a run costs what its policy does."""
    policies = bench.tables.policies_of(Space.from_mapping(SPACE), known.task, known.facts)
    return bench.tables.Table(known, [row(bench, known, p, metric, columns) for p in policies], places)


def row(bench: SimpleNamespace, known: Any, policy: Policy, metric: Callable[[Policy, int], float], num: int) -> Any:
    values = np.array([metric(policy, column) for column in range(num)])
    cost = policy.cost(known.facts)
    ledger = Ledger(forward=cost // 3, backward=cost - cost // 3)
    ends = [
        CurvePoint(
            share=i / 10, flops=cost * i // 10, phase=0, metric=None, loss=None, seconds=0, forward=cost * i // 30
        )
        for i in range(1, 11)
    ]
    curves = np.repeat(values[:, None], 10, axis=1)
    return bench.tables.Row(policy, values, values, curves, (ledger,) * num, tuple(ends), 7, np.full(num, 0.5))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_gives_what_training_gives(bench: SimpleNamespace, known: Any, places: DataPaths) -> None:
    """Metrics, ledger with evaluation, and learning curve, for each column; also where the caller stops the run."""
    subset = Phase(passes=1.0, share=0.1, selector="kcenter")
    policy = Policy(phases=(subset, Phase(passes=0.5)), recipe=FrozenDict({"lr": 0.2}))
    rows = [bench.tables.trained(bench.tables.Asked(known.task, p, 2, places)) for p in (plain(0.7), policy)]
    table = bench.tables.Table(known, rows, places)
    draw = bench.simulated.Draw(study=0, num_columns=2, num_paired=2)
    worker = bench.simulated.TableWorker(table=table, draw=draw, evaluations=10)
    options = train.RunOptions(splits=("validation", "test"), num_threads=1, device="cpu", places=places)
    for seed, last in ((0, 10), (0, 3), (1, 10), (1, 3)):
        request = RunRequest(name="r", role="verification", policy=policy, seed=seed, splits=("validation", "test"))
        told: list[CurvePoint] = []
        found = worker.train(request, watched(told, last))
        truth = train.run(known.task, policy, worker.column(request), report=watched([], last), options=options)
        assert (found.cause, found.metrics, found.ledger) == (truth.cause, truth.metrics, truth.ledger)
        assert list(map(seen, told)) == list(map(seen, truth.curve))
        assert found.cause == ("finished" if last == 10 else "stopped")


def watched(points: list[CurvePoint], last: int) -> Callable[[CurvePoint], bool]:
    """Notes the points of a curve, and stops the run at one of ten."""

    def report(point: CurvePoint) -> bool:
        points.append(point)
        return round(point.share * 10) >= last

    return report


def seen(point: CurvePoint) -> tuple[object, ...]:
    return (point.share, point.flops, point.phase, point.select, point.forward, point.metric)


def test_a_table_is_read_as_it_was_written(
    bench: SimpleNamespace, known: Any, places: DataPaths, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    table = made_up(bench, known, places, lambda policy, column: float(rng.random()), columns=3)
    table.tabled[1].validation[2] = table.tabled[1].test[2] = math.nan  # a run that diverged
    bench.tables.write(tmp_path / "t.parquet", known, table.tabled)
    again = bench.tables.read(tmp_path / "t.parquet", places)
    assert (again.task, again.facts, again.num_examples) == (known.task, known.facts, known.num_examples)
    assert list(again.rows) == list(table.rows)
    for ours, theirs in zip(again.tabled, table.tabled, strict=True):
        for name in ("validation", "test", "curves", "seconds"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.policy, ours.ledgers, ours.points, ours.updates) == (
            theirs.policy,
            theirs.ledgers,
            theirs.points,
            theirs.updates,
        )
    assert again.result(again.tabled[1].policy, 2).cause == "diverged"
    assert again.mean_difference(again.tabled[1].policy) == -math.inf


def test_a_tabled_space_has_every_policy_once(bench: SimpleNamespace, known: Any) -> None:
    found = bench.tables.policies_of(Space.from_mapping(SPACE), known.task, known.facts)
    assert len(found) == 1 + len(BUDGETS) * len(RATES) * 2
    assert found[0] == conventional(known.facts)
    costly = {**SPACE, "selector": {"choice": ["random", "kcenter"]}, "budget": {"choice": [0.05, 0.4]}}
    kept = bench.tables.policies_of(Space.from_mapping(costly), known.task, known.facts)
    assert {p.phases[0].selector for p in kept if p.arm == "subset" and p.passes < 2} == {"random"}
    with pytest.raises(ValueError, match=r"got a range of 'budget'. Write \{choice: \[...\]\}"):
        bench.tables.policies_of(Space.from_mapping({**SPACE, "budget": {"log": [0.1, 0.4]}}), known.task, known.facts)


def test_a_table_is_made_once(
    bench: SimpleNamespace, known: Any, places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained before an interruption is not trained again, and rows come in the order of the policies."""
    policies, calls = [plain(0.3), plain(0.2)], list[Policy]()

    def noted(task: Task, policy: Policy, seed: int, **more: Any) -> Any:
        calls.append(policy)
        return real(task, policy, seed, **more)

    real = train.run
    monkeypatch.setattr(train, "run", noted)
    bench.tables.make(known, policies[1:], 2, places, processes=1, kept=tmp_path)
    rows = bench.tables.make(known, policies, 2, places, processes=1, kept=tmp_path)
    assert calls == [policies[1]] * 2 + [policies[0]] * 2
    assert [row.policy for row in rows] == policies
    truth = real(known.task, policies[0], 1, options=train.RunOptions(num_threads=1, places=places))
    assert rows[0].validation[1] == truth.metrics["validation"]


def test_policies_that_train_alike_share_a_row(bench: SimpleNamespace, known: Any, places: DataPaths) -> None:
    def key(policy: Policy) -> str:
        return str(bench.tables.key_of(policy, known.task))

    assert key(plain(3.0)) == key(plain(3.0, lr=0.1)) == key(plain(3.0 + 1e-12))  # 0.1 is the recipe's own rate
    assert len({key(plain(3.0)), key(plain(3.0, lr=0.2)), key(plain(3.1))}) == 3
    table = made_up(bench, known, places, lambda policy, column: 0.9)
    assert table.row(plain(3.0)) is table.row(plain(3.0, lr=0.1))
    assert table.num_trained == 0
    assert len(table.row(plain(0.2)).test) == 12  # not in the table: trained with all seeds
    assert (table.num_trained, len(table.tabled)) == (1, 13)


# --- studies on tables ------------------------------------------------------------------------------------------------


def test_columns_are_paired_and_drawn_without_repetition(bench: SimpleNamespace) -> None:
    draw = bench.simulated.Draw(study=3, num_columns=12, num_paired=10)
    paired = [draw.paired(index) for index in range(10)]
    assert len(set(paired)) == 10
    for rate in RATES:
        trials = [draw.single(plain(3.0, lr=rate), index) for index in range(2)]
        assert len(set(trials) | set(paired)) == 12
    others = [bench.simulated.Draw(study=s, num_columns=12, num_paired=10).paired(0) for s in range(200)]
    assert set(others) == set(range(12))
    again = bench.simulated.Draw(study=3, num_columns=12, num_paired=10, repeats=True)
    assert len({again.paired(index) for index in range(12)}) < 12  # 12 of 12 differ with probability 5e-5


def by_budget(policy: Policy, column: int) -> float:
    """More compute is better, the higher rate is worse; a seed moves all policies alike, and each a little."""
    rng = np.random.default_rng([column, round(1000 * policy.passes)])
    gain = 0.003 * math.log(policy.passes / 30) - 0.1 * (policy.recipe.get("lr") == 0.4)
    return 0.95 + gain + 0.002 * math.sin(column) + 0.001 * float(rng.standard_normal())


def test_a_study_on_a_table_is_the_products_own(bench: SimpleNamespace, known: Any, places: DataPaths) -> None:
    """Its runs are the table's, paired by seed, its account adds up, and it is the same when it is done again."""
    table = made_up(bench, known, places, by_budget, columns=MOST_OWN * 6)
    study = bench.tasks.digits_study(0, seed=4, space=SPACE).with_settings({"trials": 12, "max_seeds": 6})
    view = bench.simulated.on_table(study, table)
    assert len(view.trials) <= 12
    assert len(view.reference) == 5
    columns: dict[int, set[int]] = {}
    for record in view.verification:  # a policy that is not in the table was trained, and its seeds may tie
        same = set(np.flatnonzero(table.row(record.policy).test == record.test_metric).tolist())
        columns[record.seed] = columns.get(record.seed, same) & same
    assert len(columns) >= 5
    assert all(len(found) == 1 for found in columns.values())
    assert len(set.union(*columns.values())) == len(columns)
    runs = [*view.reference, *view.trials, *view.verification, *view.ablation_runs]
    total = sum(record.ledger.total for record in runs)
    assert bench.simulated.spent(view) == pytest.approx(total / known.facts.reference_flops)
    stages = bench.simulated.stages(view)
    assert sum(stages.values()) == pytest.approx(bench.simulated.spent(view))
    assert stages["reference"] == pytest.approx(5 + 5 * looked(known, table, "validation"))
    assert len(bench.simulated.outcomes(view)) == len(view.candidates)
    assert view.summary.verified
    assert bench.simulated.on_table(study, table).summary.headline == view.summary.headline


def looked(known: Any, table: Any, split: str) -> float:
    """An evaluation at each of the ten points of a curve, in conventional trainings."""
    return float(10 * known.num_examples[split] * known.facts.forward_flops / known.facts.reference_flops)


def test_a_confirmation_has_seeds_of_its_own(bench: SimpleNamespace, known: Any, places: DataPaths) -> None:
    table = made_up(bench, known, places, by_budget, columns=MOST_OWN * 6)
    study = bench.tasks.digits_study(0, seed=4, space=SPACE).with_settings({"trials": 12, "max_seeds": 6})
    view = bench.simulated.on_table(study, table, repeats=True, confirms=True)
    assert view.manifest.confirmation.verdict.passed
    assert {run.candidate for run in view.confirmation_runs} == {"reference", view.manifest.winner}
    assert all(FRESH <= run.seed - 4 * SEEDS_APART < SEEDS_APART for run in view.confirmation_runs)
    assert bench.simulated.stages(view)["confirmation"] > 5


def test_a_shift_moves_the_test_split_alone(bench: SimpleNamespace, known: Any, places: DataPaths) -> None:
    table = made_up(bench, known, places, by_budget, columns=MOST_OWN * 6)
    study = bench.tasks.digits_study(0, seed=4, space=SPACE).with_settings({"trials": 12, "max_seeds": 6})
    view = bench.simulated.on_table(study, table, shift=lambda p: 0.0 if p.passes == 30 else -0.5)
    assert not view.summary.verified
    assert all(r.test_metric < 0.5 for r in view.verification if r.candidate != "reference")
    assert all(r.metric > 0.7 for r in view.verification)


@pytest.mark.parametrize("shown", [True, False, None])
def test_a_win_is_claimed_where_it_is_shown(bench: SimpleNamespace, shown: bool | None) -> None:
    view = SimpleNamespace(summary=SimpleNamespace(win=SimpleNamespace(shown=shown)))
    assert bench.simulated.claims_win(view) is (shown is True)
    assert not bench.simulated.claims_win(SimpleNamespace(summary=SimpleNamespace(win=None)))


def test_no_bundle_of_what_lies_at_the_margin_is_true(
    bench: SimpleNamespace, known: Any, places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are shifted none passes, as their noise is small; where none is, the bundles count as false."""
    table = made_up(bench, known, places, lambda policy, column: 0.95 + 0.001 * math.sin(column))
    for r in table.tabled:
        assert table.differences(r.policy).mean() + bench.measures.to_margin(table, r.policy) == pytest.approx(-0.01)
    bench.tables.write(tmp_path / "digits-0.parquet", known, table.tabled)
    study = bench.tasks.digits_study(0, space=SPACE).with_settings({"trials": 6, "candidates": 1})
    made = bench.tasks.Bench(name="digits-0", study=study, num_columns=12)
    monkeypatch.setattr(bench.measures, "tabled", lambda name: made)
    monkeypatch.setattr(bench.measures, "STUDIES_A_TASK", 2)
    asked = {"name": "digits-0", "seed": 0, "places": places, "folder": tmp_path}
    at_margin = bench.measures.Asked(kind="all at margin", **asked)
    assert bench.measures.false_bundles(at_margin) == [(False, False)] * 2
    monkeypatch.setattr(bench.measures, "to_margin", lambda table, policy: 0.0)
    assert bench.measures.false_bundles(at_margin) == [(True, True)] * 2
    spared = bench.measures._unchanged(made, table)
    assert spared == {bench.tables.key_of(plain(12.0), known.task)}  # 0.4 of 30 passes, at the recipe's rate


# --- the product's test -----------------------------------------------------------------------------------------------


def rules(**changes: Any) -> Rules:
    given = {
        "margin": 0.01,
        "alpha": 0.05,
        "seeds": 5,
        "max_seeds": 10,
        "higher_is_better": True,
        "resolution": 1 / 539,
    }
    return Rules(**{**given, **changes})


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_a_policy_passes_as_in_a_verification_of_it_alone(bench: SimpleNamespace, share: float) -> None:
    """Of a quarter of the reference's cost, so that it has runs of its own beyond those of the reference."""
    rng, outcomes = np.random.default_rng(0), set()
    looks = plan(share * allot(0.05), sizes(rules(), 0.25, is_last_resort=share == 1))
    assert looks[-1].size == ((20, 10) if share == 1 else (16, 8))
    for shift in np.linspace(-0.02, 0.01, 25):
        reference, candidate = 0.95 + 0.008 * rng.standard_normal((2, 40))
        candidate += shift
        if shift > 0.009:
            candidate[3] = np.nan
        entry = Entry(cost_flops=250, share=share, is_last_resort=share == 1)
        book = Verification({"one": entry}, rules(), reference_flops=1000, first_seed=0)
        while needed := book.needed():
            for name, seed in needed:
                book.record(name, seed, float((reference if name == "reference" else candidate)[seed]))
        passed = book.verdicts["one"].passed
        assert bool(bench.baselines.passes(candidate, reference, rules(), looks)) is bool(passed)
        outcomes.add(passed)
    assert outcomes == {True, False}


def test_no_verification_asks_for_more_seeds_than_a_table_has(bench: SimpleNamespace) -> None:
    for name in bench.tasks.BENCHES:
        made = bench.tasks.tabled(name)
        assert MOST_OWN * made.study.study.seed_cap <= made.num_columns


@pytest.mark.slow
def test_the_level_is_that_of_the_test_for_normal_shapes_and_exceeded_for_skewed_ones(
    bench: SimpleNamespace, known: Any, places: DataPaths
) -> None:
    """A first verification has 4/5 of alpha. One failure in twelve runs is not seen by a few (Bahadur and Savage)."""
    rng = np.random.default_rng(0)
    columns = 400
    noise = {name: 0.01 * rng.standard_normal(columns) for name in ("reference", "normal")}

    def metric(policy: Policy, column: int) -> float:
        if policy.passes == 30:
            return 0.9 + float(noise["reference"][column])
        if policy.recipe["lr"] == 0.1:
            return 0.9 + float(noise["normal"][column])
        return 0.9 + float(noise["reference"][column]) - 0.3 * (column % 12 == 0)

    table = made_up(bench, known, places, metric, columns=columns)
    for found in bench.measures.levels(table, rules(), 1.0, 4_000, seed=0):
        rate = found.count / found.repeats
        if found.policy.recipe["lr"] == 0.1:
            assert 0.02 < rate < 0.052  # at most 0.04: levels of looks are for policies that scatter more; 4 errors
            assert found.spread == pytest.approx(1, abs=0.15)
        else:
            assert rate > 0.15
            assert found.skew < -2


# --- by hand ----------------------------------------------------------------------------------------------------------


class Exact:
    """A field without noise: each pass adds, at the recipe's rate; a run of the other rate diverges."""

    def __init__(self, bench: SimpleNamespace, known: Any) -> None:
        self.task: Task = known.task
        self.facts, self.num_examples, self._bench = known.facts, known.num_examples, bench

    def run(self, policy: Policy, seed: int) -> Any:
        value = math.nan if policy.recipe.get("lr") == 0.4 else 0.9 + 0.01 * math.log10(policy.passes / 30)
        return self._bench.baselines.Measured(value, value, policy.cost(self.facts) / self.facts.reference_flops)


def test_searches_by_hand_find_the_cheapest_at_the_target_and_pay_for_every_run(
    bench: SimpleNamespace, known: Any
) -> None:
    """A tenth of the compute is 0.01 worse, the tolerance; so the least budget reaches the target, and 0.09 misses."""
    field, hand = Exact(bench, known), bench.baselines
    facts = known.facts
    grid = hand.grid_policies((0.09, 0.11, 0.4), RATES, facts)
    look = known.num_examples["validation"] * facts.forward_flops / facts.reference_flops
    found = hand.grid_once(field, grid)
    assert found.policy == plain(0.11 * 30, lr=0.1)
    assert found.spent == pytest.approx(1 + 2 * 0.6 + 7 * look, rel=1e-4)
    tested = hand.grid_tested(field, grid, rules(resolution=1e-6))
    test_look = known.num_examples["test"] * facts.forward_flops / facts.reference_flops
    assert tested.policy == plain(0.11 * 30, lr=0.1)
    assert tested.spent == pytest.approx(10 * (1 + 2 * 0.6 + 7 * test_look), rel=1e-4)
    space = Space.from_mapping({**SPACE, "arm": "full", "budget": {"log": [0.05, 0.6]}})
    for search in (hand.random_search, hand.optuna_search):
        pick = search(field, space, 25, 1)
        assert pick.policy.recipe["lr"] == 0.1
        assert 0.1 <= pick.policy.passes / 30 < 0.2
        assert pick == search(field, space, 25, 1)
    hopeless = Space.from_mapping({**SPACE, "lr": 0.4})
    assert hand.optuna_search(field, hopeless, 5, 0).policy is None
    assert hand.random_search(field, hopeless, 5, 0).policy is None
    assert hand.grid_once(field, hand.grid_policies((0.01,), (0.1,), facts)).policy is None


def test_what_misses_the_target_is_worse_than_whatever_reaches_it(bench: SimpleNamespace, known: Any) -> None:
    value = bench.baselines.objective
    reached, missed = value(0.96, 0.9, 0.95, known.task), value(0.949, 0.01, 0.95, known.task)
    assert reached == 0.9
    assert missed == pytest.approx(1.001)
    assert value(math.nan, 0.01, 0.95, known.task) == 2


# --- on the splits ----------------------------------------------------------------------------------------------------


def test_a_run_is_carried_out_once(
    bench: SimpleNamespace, known: Any, places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by another process; a policy that cannot be run costs nothing, and no result of it is made up."""
    policy, path = plain(0.5), tmp_path / "runs.jsonl"
    first = bench.splits.Trained(known, places, path).run(policy, 3)
    truth = train.run(known.task, policy, 3, options=train.RunOptions(splits=("validation", "test"), num_threads=1))
    assert (first.validation, first.test) == (truth.metrics["validation"], truth.metrics["test"])
    assert first.spent == truth.ledger.spent / known.facts.reference_flops
    costly = Policy(phases=(Phase(passes=0.01, share=0.5, selector="kcenter"), Phase(passes=1.0)))
    refused = bench.splits.Trained(known, places, path).run(costly, 0)
    assert (math.isnan(refused.validation), math.isnan(refused.test), refused.spent) == (True, True, 0)
    monkeypatch.setattr(train, "run", None)
    again = bench.splits.Trained(known, places, path)
    assert again.run(policy, 3) == first
    assert math.isnan(again.run(costly, 0).test)
    with pytest.raises(TypeError):
        again.run(policy, 4)


def test_a_split_gives_one_study_and_each_search_by_hand(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small: the recipe has one pass, and there are few seeds; what is done is read, not done again."""
    small = bench.tasks.digits_study

    def short(split: int, seed: int = 0, space: Any = None) -> Any:
        study = small(split, seed, {**SPACE, "budget": {"choice": [0.5, 1.0]}})
        recipe = dataclasses.replace(study.task.recipe, epochs=1)
        task = dataclasses.replace(study.task, recipe=recipe, tolerance=0.5)
        return dataclasses.replace(study, task=task).with_settings({"seeds": 2, "max_seeds": 3, "ablation_seeds": 0})

    monkeypatch.setattr(bench.splits, "digits_study", short)
    monkeypatch.setattr(bench.splits, "NUM_FRESH", 2)
    monkeypatch.setattr(bench.splits, "GRID_SEEDS", 3)
    monkeypatch.setattr(bench.splits, "GRID_BUDGETS", (0.5, 1.0))
    options = {"split": 0, "seed": 0, "out": tmp_path, "trials": 4}
    rows = bench.splits.work(bench.splits.Work(kind="by hand", **options))
    assert [r["name"] for r in rows] == ["grid, tested", "grid, one seed", "random search", "Optuna by hand"]
    (study,) = bench.splits.work(bench.splits.Work(kind="study", **options))
    for found in (*rows, study):
        assert (found["cost"] is None) == (found["truth"] is None)
        assert found["spent"] > 1
    assert round(study["cost"], 2) in (0.5, 1)  # both are within a tolerance of a half
    kept = bench.splits.Work(kind="study", **options)
    kept.path.write_text(json.dumps([{"marked": True}]))
    assert bench.splits.work(kept) == [{"marked": True}]


def test_a_placebo_has_nothing_to_choose_but_how_long_and_how_fast(bench: SimpleNamespace) -> None:
    batches = {"share 0.995": 64, "share 0.995, batches of 32": 32, "an order that does nothing": 64}
    assert batches.keys() == bench.tasks.PLACEBOS.keys()
    for kind, batch_size in batches.items():
        study = bench.tasks.placebo_study(3, seed=7, kind=kind)
        assert (study.task.split.seed, study.study.seed, study.task.recipe.batch_size) == (3, 7, batch_size)
        searched = [axis.name for axis in Space.from_mapping(study.space).coordinates if not axis.is_single]
        assert sorted(searched) == ["arm", "budget", "lr", "switch"]
    assert study.space["subset_share"] == 1


def test_the_order_that_does_nothing_trains_as_the_uniform_one(
    bench: SimpleNamespace, known: Any, places: DataPaths
) -> None:
    same = bench.tasks.SAME_ORDER["order"]
    options = train.RunOptions(num_threads=1, device="cpu", places=places)
    runs = [
        train.run(known.task, Policy(phases=(Phase(passes=1.0, order=order),)), 0, options=options)
        for order in ("uniform", same)
    ]
    assert (runs[0].metrics, runs[0].ledger) == (runs[1].metrics, runs[1].ledger)
    assert [policy.arm for policy in (runs[0].policy, runs[1].policy)] == ["full", "subset"]


# --- what is printed --------------------------------------------------------------------------------------------------


def test_shares_and_medians_carry_their_intervals(bench: SimpleNamespace) -> None:
    """Clopper and Pearson: none of 80 is at most 1 - 0.025^(1/80); half of 2 lies between 1.3 and 98.7 %."""
    assert bench.words.share(0, 80) == "0 of 80 (0 %) [0, 4.5]"
    assert round(100 * (1 - 0.025 ** (1 / 80)), 1) == 4.5
    assert bench.words.share(1, 2) == "1 of 2 (50 %) [1.3, 99]"
    assert bench.words.share(24, 24) == "24 of 24 (100 %) [86, 100]"
    assert bench.words.share(0, 0) == "0 of 0"
    assert bench.words.lower(80, 80) == pytest.approx(0.025 ** (1 / 80))
    assert bench.words.median([2.0, math.nan, 2.0]) == "2 [2, 2]"
    assert bench.words.median([math.nan]) == "-"
    assert bench.words.table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_line_counts_what_was_found_and_what_of_it_is_right(bench: SimpleNamespace) -> None:
    rows = [
        {"split": 0, "cost": 0.2, "truth": -0.005, "spent": 10.0},
        {"split": 1, "cost": 0.3, "truth": -0.02, "spent": 12.0},
        {"split": 2, "cost": None, "truth": None, "spent": 14.0},
    ]
    line = bench.main._summed("study", rows, {0: 0.4, 1: None, 2: 0.4})
    assert line == ("study", bench.words.share(2, 3), bench.words.share(1, 2), "0.5 [0.5, 0.5]", "0.5", "12 [10, 14]")


def test_what_was_found_is_judged_by_seeds_that_no_study_uses(bench: SimpleNamespace) -> None:
    """A study's seeds start at so many times its own; those of its trials are anywhere below 2^30, and differ."""
    fresh = range(bench.splits.FRESH, bench.splits.FRESH + bench.splits.NUM_FRESH)
    cap = bench.tasks.digits_study(0).study.seed_cap
    assert all(seed % SEEDS_APART >= 100 * cap for seed in fresh)
    assert min(fresh) >= bench.splits.GRID_SEEDS
