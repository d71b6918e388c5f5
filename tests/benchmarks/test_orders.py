"""The benchmark of the orders: what it runs, how it interpolates, its words, and that it goes on."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import BENCHMARKS
from scipy import stats

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.train import orders


def load_bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("orders")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_bench()


def test_every_order_is_tried_at_equal_compute(bench: ModuleType) -> None:
    task = bench.make_task("digits")
    facts = train.facts(task)
    found = bench.variants(facts)
    assert {variant.order for variant in found} == set(orders.ORDERS)
    assert found[0].name == bench.UNIFORM
    names = [v.name for v in found if v.order == "sift"]
    assert names == ["sift, exit 2", "sift, exit 2, from 60%", "sift, exit 2, keep 80%"]  # both depths are one layer
    for variant in found:
        policy = variant.policy(0.2, task, facts)
        recipe = train.check(task, policy, facts)
        assert policy.cost(facts) == round(0.2 * facts.reference_flops)
        keep = variant.options.get("keep", 1.0)
        assert recipe.batch_size * keep == task.recipe.batch_size


def test_a_network_with_two_depths_is_left_at_both(bench: ModuleType) -> None:
    facts = TaskFacts(
        num_examples=9, num_outputs=2, num_parameters=9, forward_flops=100, backward_flops=200, reference_passes=3
    )
    names, layers = ("a", "b", "c"), {"a": 3, "b": 3, "c": 2}
    deep = replace(facts, exits=FrozenDict({"a": 40, "b": 90, "c": 100}), blocks=names, layers=FrozenDict(layers))
    assert [v.name for v in bench.variants(deep) if v.order == "sift"] == [
        "sift, exit a",
        "sift, exit b",
        "sift, exit b, from 60%",
        "sift, exit b, keep 80%",
    ]
    flat = replace(facts, exits=FrozenDict({"c": 100}), blocks=("c",), layers=FrozenDict({"c": 2}))
    assert [v.name for v in bench.variants(flat) if v.order == "sift"] == []  # the loss would be exact


# --- compute to equal accuracy ----------------------------------------------------------------------------------------


def curve(budgets: list[float], rows: dict[int, list[float]]) -> dict[float, dict[int, float]]:
    return {b: {seed: row[i] for seed, row in rows.items()} for i, b in enumerate(budgets)}


def test_half_the_compute_is_found_on_a_line_over_its_logarithm(bench: ModuleType) -> None:
    """An order whose curve is that of uniform, moved by a factor of 2."""
    budgets = [0.1, 0.2, 0.4]
    uniform = {seed: 0.8 + 0.01 * seed + 0.05 * math.log2(0.2) for seed in range(4)}
    ours = curve(budgets, {s: [0.8 + 0.01 * s + 0.05 * math.log2(2 * b) for b in budgets] for s in range(4)})
    found = bench.relative_compute(ours, uniform, 0.2)
    step = (0.4 / 0.1) ** (1 / (bench.GRID - 1))
    assert found.estimate == pytest.approx(0.5, rel=step - 1)
    moved = curve(budgets, {s: [0.8 + 0.01 * s + 0.05 * math.log2(b / 1.5) for b in budgets] for s in range(4)})
    found = bench.relative_compute(moved, uniform, 0.2)
    assert found.estimate == pytest.approx(1.5, rel=step - 1)
    assert found.low == pytest.approx(1.5, rel=2 * (step - 1))  # no noise: the interval is a step of the grid at most
    assert found.high == pytest.approx(1.5, rel=2 * (step - 1))


def test_the_interval_is_where_the_paired_t_interval_holds_0(bench: ModuleType) -> None:
    rng, budgets = np.random.default_rng(0), [0.1, 0.2, 0.4]
    rows = {s: (0.9 + 0.03 * np.log2(budgets) + rng.normal(0, 0.004, 3)).tolist() for s in range(6)}
    uniform = {s: float(0.9 + 0.03 * math.log2(0.2) + rng.normal(0, 0.004)) for s in range(6)}
    found = bench.relative_compute(curve(budgets, rows), uniform, 0.2, comparisons=4)

    def t(ratio: float) -> float:
        x = math.log(0.2 * ratio)
        differences = [float(np.interp(x, np.log(budgets), rows[s])) - uniform[s] for s in range(6)]
        return float(np.mean(differences) / stats.sem(differences))

    quantile = stats.t.ppf(1 - 0.05 / 8, 5)
    assert t(found.estimate) == pytest.approx(0, abs=0.05)
    assert t(found.low) == pytest.approx(-quantile, abs=0.1)
    assert t(found.high) == pytest.approx(quantile, abs=0.1)
    assert 0.5 < found.low < found.estimate < found.high < 2


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(gap=st.floats(-0.2, 0.2), seeds=st.integers(2, 5))
def test_a_shifted_curve_has_a_closed_form(gap: float, seeds: int) -> None:
    """The difference at the ratio r is gap + 0.1 log2 r, and budgets from 0.5 to 2 times that of uniform are tried."""
    bench, budgets = load_bench(), [0.1, 0.2, 0.4]
    rows = {s: [0.5 + 0.01 * s + gap + step for step in (-0.1, 0.0, 0.1)] for s in range(seeds)}
    found = bench.relative_compute(curve(budgets, rows), {s: 0.5 + 0.01 * s for s in range(seeds)}, 0.2)
    ratio, close = 2 ** (-gap / 0.1), 2 * math.log(4) / bench.GRID
    if abs(gap) < 0.099:
        assert [found.estimate, found.low, found.high] == pytest.approx([ratio] * 3, rel=close)
    elif gap > 0.101:
        assert (found.estimate, found.low, found.high) == (pytest.approx(0.5), 0, pytest.approx(0.5))
    elif gap < -0.101:
        assert (found.estimate, found.low, found.high) == (math.inf, pytest.approx(2), math.inf)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_ends_are_open_where_nothing_was_shown(bench: ModuleType, seeds: int) -> None:
    rng, budgets = np.random.default_rng(1), [0.1, 0.2, 0.4]
    rows = {s: (0.5 + rng.normal(0, 0.05, 3)).tolist() for s in range(seeds)}
    found = bench.relative_compute(curve(budgets, rows), {s: 0.5 + rng.normal(0, 0.05) for s in range(seeds)}, 0.2)
    assert (found.low, found.high) == (0, math.inf)


def test_never_is_said_in_words(bench: ModuleType) -> None:
    assert bench.Relative(math.inf, 1.9, math.inf).words() == "never [1.90, never]"
    assert bench.Relative(0.812, 0.0, 0.95).words() == "0.81 [0.00, 0.95]"


# --- words ------------------------------------------------------------------------------------------------------------


def outcome(bench: ModuleType, name: str, seed: int, metric: float | None) -> object:
    cause = "finished" if metric is not None else "diverged"
    plain = {"key": f"{name}{seed}", "name": name, "seed": seed, "cause": cause, "metric": metric}
    switches = ({"train_loss": 0.25},) if metric is not None else ()
    return bench.Outcome(**plain, spent_flops=100, select_flops=0, train_s=2.0, select_s=0.0, switches=switches)


def runs_of(bench: ModuleType, gains: dict[str, float]) -> dict[str, dict[float, dict[int, object]]]:
    noise, budgets = [0.001, -0.002, 0.0015, 0.0005], {0.1: 0.80, 0.2: 0.85, 0.4: 0.90}
    return {
        name: {
            b: {s: outcome(bench, name, s, base + gain + e) for s, e in enumerate(noise)} for b, base in budgets.items()
        }
        for name, gain in gains.items()
    }


def test_the_words_follow_the_intervals(bench: ModuleType) -> None:
    runs = runs_of(bench, {"uniform": 0.0, "better": 0.02, "worse": -0.02, "alike": 0.0})
    runs["alike"] = {
        b: {s: outcome(bench, "alike", s, o.metric + 0.01 * (-1) ** s) for s, o in by.items()}  # type: ignore[attr-defined]
        for b, by in runs["uniform"].items()
    }  # type: ignore[attr-defined]
    found = {name: bench.finding(name, runs, 0.2, 1) for name in runs}
    assert bench.sentence(found["better"], 0.2) == (
        "better beats uniform: it needs 0.76 [0.76, 0.76] times the compute for what uniform has at 20% of the "
        "conventional. At equal compute it is better at 10% (+0.0200), 20% (+0.0200), 40% (+0.0200)."
    )
    assert bench.sentence(found["worse"], 0.2).startswith(
        "worse is worse than uniform: it needs 1.32 [1.32, 1.32] times"
    )
    assert bench.sentence(found["alike"], 0.2).startswith("alike is not shown to differ: it needs 1.00 [")
    assert found["better"].train_loss[0.2].mean == 0.25
    assert found["better"].seconds == pytest.approx(0.02)
    assert found["uniform"].relative.estimate == pytest.approx(1.0, rel=0.01)


def test_an_order_that_diverges_beats_nothing(bench: ModuleType) -> None:
    runs = runs_of(bench, {"uniform": 0.0, "better": 0.02})
    runs["better"][0.4][1] = outcome(bench, "better", 1, None)
    found = bench.finding("better", runs, 0.2, 1)
    assert found.diverged == 1
    assert bench.sentence(found, 0.2).startswith("better is not shown to differ: it needs 0.76")
    assert bench.sentence(found, 0.2).endswith(" 1 of its runs diverged.")


def test_an_order_that_never_gets_there_is_told(bench: ModuleType) -> None:
    runs = runs_of(bench, {"uniform": 0.0, "worse": -0.2})
    text = bench.sentence(bench.finding("worse", runs, 0.2, 1), 0.2)
    assert text.startswith(
        "worse is worse than uniform: it does not reach, with any budget tried, what uniform has at 20%"
    )


def steady_runs(bench: ModuleType, gap: float, budgets: list[float]) -> dict[str, dict[float, dict[int, object]]]:
    """Uniform, and an order that is better by the same everywhere, by more than the curves rise where it is 0.05."""
    noise = [0.0005, -0.0005, 0.0]
    base = {b: 0.9 + 0.01 * math.log2(b) for b in budgets}
    return {
        name: {b: {s: outcome(bench, name, s, base[b] + gain(e)) for s, e in enumerate(noise)} for b in budgets}
        for name, gain in (("uniform", lambda e: 0.0), ("shifted", lambda e: gap + e))
    }


@pytest.mark.parametrize("budgets", [[0.1, 0.2, 0.4], [0.1, 0.3, 0.7], [0.4]])
def test_an_order_that_is_worse_everywhere_is_worse_at_the_largest_budget(
    bench: ModuleType, budgets: list[float]
) -> None:
    """The interval begins where the budgets end, at the ratio 1, which is not in it."""
    found = bench.finding("shifted", steady_runs(bench, -0.05, budgets), budgets[-1], 1)
    relative = found.relative
    assert (relative.estimate, relative.low, relative.high) == (math.inf, 1.0, math.inf)
    assert relative.words() == "never [1.00, never]"
    assert bench.sentence(found, budgets[-1]).startswith(
        "shifted is worse than uniform: it does not reach, with any budget tried, what uniform has at "
    )


@pytest.mark.parametrize("budgets", [[0.1, 0.2, 0.4], [0.3, 0.5, 0.7], [0.4]])
def test_an_order_that_is_better_everywhere_is_better_at_the_smallest_budget(
    bench: ModuleType, budgets: list[float]
) -> None:
    found = bench.finding("shifted", steady_runs(bench, 0.05, budgets), budgets[0], 1)
    relative = found.relative
    assert (relative.estimate, relative.low, relative.high) == (1.0, 0, 1.0)
    assert bench.sentence(found, budgets[0]).startswith(
        f"shifted beats uniform: it needs less than 1.00 [0.00, 1.00] times the compute for what uniform has at "
        f"{budgets[0]:.0%} of the conventional. "
    )


@pytest.mark.parametrize(("at", "side"), [(0.4, 1), (0.1, -1)])
def test_an_interval_that_holds_1_at_its_end_shows_nothing(bench: ModuleType, at: float, side: int) -> None:
    """The order is as good as uniform at `at`, and differs by far at all other budgets."""
    noise, budgets = [0.0005, -0.0005, 0.0], [0.1, 0.2, 0.4]
    rows = {s: [0.9 + 0.2 * math.log2(b / at) + e for b in budgets] for s, e in enumerate(noise)}
    found = bench.relative_compute(curve(budgets, rows), dict.fromkeys(rows, 0.9), at)
    assert found.sign == 0
    assert (found.low < 1 and found.high == math.inf) if side > 0 else (found.low == 0 and found.high > 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_noise_at_another_budget_does_not_turn_the_verdict(bench: ModuleType, sign: int) -> None:
    """Where little is known of small budgets, an order that is worse at all of them does not need fewer, or reverse."""
    noise, budgets = [0.3, -0.3, 0.0], [0.1, 0.2, 0.4]
    spread = {0.1: 1.0, 0.2: 0.002, 0.4: 0.002} if sign < 0 else {0.1: 0.002, 0.2: 0.002, 0.4: 1.0}
    rows = {s: [0.5 + sign * 0.05 + e * spread[b] for b in budgets] for s, e in enumerate(noise)}
    found = bench.relative_compute(curve(budgets, rows), dict.fromkeys(rows, 0.5), 0.2)
    assert (found.low, found.high) == (0, math.inf)
    assert found.estimate == (math.inf if sign < 0 else pytest.approx(0.5))
    assert found.sign == 0


def test_lower_can_be_better(bench: ModuleType) -> None:
    runs = runs_of(bench, {"uniform": 0.0, "higher": 0.02})
    falling = {
        name: {b: {s: outcome(bench, name, s, 2 - o.metric) for s, o in by.items()} for b, by in own.items()}  # type: ignore[attr-defined]
        for name, own in runs.items()
    }  # type: ignore[attr-defined]
    found = bench.finding("higher", falling, 0.2, -1)
    assert found.metric[0.2].mean == pytest.approx(2 - 0.87, abs=1e-3)
    assert bench.sentence(found, 0.2).startswith("higher beats uniform")


def test_it_runs_and_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = bench.variants
    monkeypatch.setattr(bench, "variants", lambda facts: [v for v in variants(facts) if v.order in ("uniform", "sift")])
    command = ["it", "--quick", "--budgets", "0.05", "--at", "0.1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1"])
    bench.main()
    assert capsys.readouterr().err.count("finished") == 8
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-20])  # as a kill in the middle of a line leaves it
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "2"])
    bench.main()
    told = capsys.readouterr()
    assert told.err.count("finished") == 9  # the one that was cut off, and eight of the new seed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 16
    assert (tmp_path / "report.txt").read_text() == told.out
    assert "n = 2 seeds, 95% intervals" in told.out
    assert "sift, exit 2 " in told.out
    assert "Plotly.newPlot(" in (tmp_path / "report.html").read_text()
