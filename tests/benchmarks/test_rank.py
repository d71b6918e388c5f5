"""The benchmark of rankings: its statistics against known cases, its placebos, its words, and that it goes on."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from places import BENCHMARKS
from scipy import stats

from subsettune import train

COSTS = (0.1,)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("rank")


@pytest.fixture
def recipes(bench: ModuleType) -> ModuleType:
    return importlib.import_module("rank_parts.recipes")


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_scipy_with_ties_and_repeated_recipes(bench: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(6, size=20).astype(float), rng.integers(9, size=20).astype(float)
    weights = np.stack([np.ones(20), rng.integers(3, size=20)]).astype(float)
    ours = bench.statistics.tau_b(x, y, weights)
    for tau, times in zip(ours, weights.astype(int), strict=True):
        assert tau == pytest.approx(stats.kendalltau(x.repeat(times), y.repeat(times)).statistic, abs=1e-12)


def test_who_tells_nothing_apart_has_a_tau_of_0(bench: ModuleType) -> None:
    assert bench.statistics.tau_b(np.ones(5), np.arange(5.0), np.ones((1, 5))).tolist() == [0]


def test_intervals_of_tau_hold_the_true_one(bench: ModuleType) -> None:
    """Of normal pairs tau is 2 / pi * asin(rho): in 200 experiments, 95 % of them but for 3 standard errors."""
    rng, rho, held = np.random.default_rng(0), 0.8, 0
    for repeat in range(200):
        target, noise = rng.standard_normal((2, 60))
        scores = (rho * target + math.sqrt(1 - rho**2) * noise)[None]
        samples = bench.Resamples.draw(60, 1, 400, repeat)
        found = bench.Estimate.of(math.nan, bench.statistics.mean_tau(scores, target, samples))
        held += found.low <= 2 / math.pi * math.asin(rho) <= found.high
    assert abs(held / 200 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 200)


def test_without_seeds_that_differ_the_bootstrap_is_that_of_recipes(bench: ModuleType) -> None:
    """Two orders without relation: the variance of tau is 2 (2n + 5) / (9n (n - 1)), Kendall 1938."""
    rng, n = np.random.default_rng(1), 50
    variances = []
    for repeat in range(40):
        scores, target = rng.standard_normal((2, n))
        samples = bench.Resamples.draw(n, 3, 400, repeat)
        variances.append(bench.statistics.mean_tau(np.stack([scores] * 3), target, samples).var())
    assert np.mean(variances) == pytest.approx(2 * (2 * n + 5) / (9 * n * (n - 1)), rel=0.15)


def test_seeds_that_differ_widen_the_interval(bench: ModuleType) -> None:
    target = np.arange(30.0)
    samples = bench.Resamples.draw(30, 2, 500)
    spread = bench.statistics.mean_tau(np.stack([target, -target]), target, samples)
    assert sorted(set(spread.round(9))) == [-1, 0, 1]


def test_intervals_hold_together(bench: ModuleType) -> None:
    """Of K independent normal differences: the two-sided quantile of the largest, 1 - 0.95 ** (1 / K)."""
    samples = np.random.default_rng(0).normal(0.3, 2.0, size=(20_000, 8))
    found = bench.statistics.together(np.full(8, 0.3), samples)
    quantile = stats.norm.ppf(1 - (1 - 0.95 ** (1 / 8)) / 2)
    for estimate in found:
        assert estimate.high - 0.3 == pytest.approx(2 * quantile, rel=0.03)
        assert estimate.low + estimate.high == pytest.approx(0.6)


def test_where_all_ways_are_alike_hardly_any_is_called(bench: ModuleType) -> None:
    """Asked for are 5 %; of 60 experiments more than 8 would be too many at p < 0.005."""
    rng = np.random.default_rng(0)
    assert sum(bench.statistics.is_called(30, 3, rng, num_ways=5, num_samples=300) for _ in range(60)) <= 8


def test_regret_is_what_the_first_lose_to_the_best(bench: ModuleType) -> None:
    target = np.array([0.9, 0.7, 0.8, 0.5])
    rankings = np.array([[1.0, 2, 3, 0], [3.0, 3, 0, 0]])  # the first of one is 0.8; of the other 0.9 or 0.7
    seen = bench.Resamples.observed(4, 2, 4000)
    assert bench.statistics.mean_regret(rankings, target, seen).mean() == pytest.approx((0.1 + 0.1) / 2, abs=0.005)
    assert bench.statistics.mean_regret(rankings[:1], target, bench.Resamples.observed(4, 1), 2).max() == pytest.approx(
        0.1
    )
    assert bench.statistics.mean_regret(rankings, target, seen, 3).max() == 0


def test_a_sample_knows_the_best_of_what_it_drew(bench: ModuleType) -> None:
    samples = bench.Resamples(np.array([[1, 1, 3, 2]]), np.array([[0]]), np.zeros((1, 4)))
    lost = bench.statistics.mean_regret(np.array([[9.0, 1, 2, 3]]), np.array([0.9, 0.7, 0.8, 0.5]), samples)
    assert lost == pytest.approx(0.8 - 0.5)


# --- what is run ------------------------------------------------------------------------------------------------------


def options(bench: ModuleType, out: Path, **changes: int) -> Any:
    numbers = {"recipes": 3, "target_seeds": 2, "seeds": 2, "samples": 100, "jobs": 1, **changes}
    return bench.Options(bench=bench.BENCHES["digits"], out=out, places=bench.DataPaths(), **numbers)


def test_all_ways_cost_the_same_and_choosing_is_paid(bench: ModuleType, recipes: ModuleType) -> None:
    digits = recipes.BENCHES["digits"]
    task = next(t for t in (recipes.draw_recipe(digits, i) for i in itertools.count()) if _width(t) == 32)
    facts = train.facts(task)
    for cost in digits.costs:
        policies = {name: way.policy(cost, facts) for name, way in recipes.WAYS.items()}
        for policy in policies.values():
            train.check(task, policy, facts)
            assert policy.cost(facts) == pytest.approx(cost * facts.reference_flops, abs=1)
        first = policies["kcenter, then all data"].phases[0]
        assert (first.share, first.passes) == pytest.approx((math.sqrt(cost), 0.8 * cost * facts.reference_passes))
        assert all(
            cost * digits.evaluations == pytest.approx(round(cost * digits.evaluations)) for cost in digits.costs
        )


def _width(task: Any) -> Any:
    return task.model.options["hidden"][0]


def test_recipes_are_the_same_however_many_are_drawn(recipes: ModuleType) -> None:
    digits = recipes.BENCHES["digits"]
    drawn = [recipes.draw_recipe(digits, number) for number in range(6)]
    assert drawn[4] == recipes.draw_recipe(digits, 4)
    assert len({task.recipe.lr for task in drawn}) == 6
    assert {_width(recipes.draw_recipe(digits, number)) for number in range(40)} == set(digits.widths)


def test_seeds_are_shared_by_ways_and_not_by_target_or_placebos(
    bench: ModuleType, recipes: ModuleType, tmp_path: Path
) -> None:
    plan = bench.make_plan(options(bench, tmp_path))
    assert not plan.refused

    def seeds(rows: list[list[Any]]) -> set[int]:
        return {job.seed for row in rows for job in row}

    target = seeds(plan.target)
    for arm, rows in plan.arms.items():
        expected = {2000, 2001} if arm[0] in recipes.PLACEBOS else {1000, 1001}
        assert seeds(rows) == expected
        assert not seeds(rows) & target
    for placebo, name in recipes.PLACEBOS.items():
        for row, other in zip(plan.arms[placebo, 0.1], plan.arms[name, 0.1], strict=True):
            assert [job.policy for job in row] == [job.policy for job in other]
    jobs = [job for rows in (plan.target, *plan.arms.values()) for row in rows for job in row]
    assert len({job.key for job in jobs}) == len(jobs)


# --- what it says -----------------------------------------------------------------------------------------------------


def made_up(bench: ModuleType, recipes: ModuleType, gain: float) -> Any:
    """Kcenter sees the target with less noise, or with more; all else is alike."""
    rng = np.random.default_rng(3)
    target = rng.standard_normal(60)
    noise = dict.fromkeys([*((name, 0.1) for name in (*recipes.WAYS, recipes.LOOK)), (recipes.FULL, 1.0)], 0.5)
    noise["kcenter", 0.1] = 0.5 * gain
    rankings = {arm: target + sd * rng.standard_normal((4, 60)) for arm, sd in noise.items()}
    return bench.Measured(target=target, rankings=rankings, spent=dict.fromkeys(noise, (0.1, 0.0)))


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.1, "ranks better"), (1.0, "no difference shown"), (4.0, "ranks worse")]
)
def test_only_what_differs_is_called(bench: ModuleType, recipes: ModuleType, gain: float, verdict: str) -> None:
    found = bench.findings(made_up(bench, recipes, gain), COSTS, 300)
    called = {key[0] for key, difference in found.differences.items() if difference.sign}
    assert called == (set() if gain == 1.0 else {"kcenter"})
    rows = {row[1:3]: row for row in bench.difference_table(found).rows}
    assert rows["kcenter", recipes.SHORTER][4] == verdict
    assert rows[f"{recipes.AGAIN} (placebo)", recipes.SHORTER][4] == "no difference shown"
    text = bench.verdict(found, COSTS)
    assert "Placebos: none is called better or worse." in text
    assert ("Better for its cost: kcenter than shorter schedule; kcenter than random subset." in text) == (gain == 0.1)
    assert ("Better for its cost: none is shown to be." in text) == (gain != 0.1)


def test_a_placebo_that_is_called_is_told(bench: ModuleType, recipes: ModuleType) -> None:
    given = made_up(bench, recipes, 1.0)
    given.rankings[recipes.AGAIN, 0.1] = np.stack([given.target] * 4)
    found = bench.findings(given, COSTS, 300)
    assert f"Placebos: called: ('{recipes.AGAIN}', 0.1, '{recipes.SHORTER}')." in bench.verdict(found, COSTS)


def test_it_runs_and_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two passes in full, kcenter costs more than a quarter of that; eight ways are left."""
    digits = bench.BENCHES["digits"]
    small = replace(digits, task={**digits.task, "recipe": {"epochs": 2}}, costs=(0.25,), evaluations=4, recipes=4)
    monkeypatch.setattr(bench, "BENCHES", {"digits": small})
    command = ["it", "--seeds", "1", "--samples", "200", "--out", str(tmp_path), "--target-seeds"]
    monkeypatch.setattr("sys.argv", [*command, "1"])
    bench.main()
    first = capsys.readouterr()
    assert first.err.count("finished") == 4 * (1 + 1 + 8)
    assert "kcenter was not tried at a cost of 0.250: " in first.out
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-20])  # as a kill in the middle of a line leaves it
    monkeypatch.setattr("sys.argv", [*command, "2"])
    bench.main()
    second = capsys.readouterr()
    assert second.err.count("finished") == 5  # the one that was cut off, and four of the new seed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 4 * (2 + 1 + 8)
    assert (tmp_path / "report.txt").read_text() == second.out
    assert "n = 4 recipes, 1 rankings of each way; 44 runs" in second.out
    assert "Plotly.newPlot(" in (tmp_path / "report.html").read_text()
