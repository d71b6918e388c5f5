"""The benchmark of the published experiment: its protocol, its intervals, its words, and that it goes on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fakes import image_task
from places import BENCHMARKS
from scipy import stats

from subsettune import config, train
from subsettune.facts import TaskFacts
from subsettune.task import Task

Data = dict[str, str]
SHARES = (Fraction(1, 2), Fraction(1, 4), Fraction(1, 8))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("subset_pretraining")


@pytest.fixture
def task(tiny_data: Data) -> Task:
    return image_task(tiny_data)


def facts_of(num_examples: int = 54_000) -> TaskFacts:
    return TaskFacts(
        num_examples=num_examples,
        num_outputs=10,
        num_parameters=10_000,
        forward_flops=1,
        backward_flops=2,
        reference_passes=20,
    )


@pytest.mark.parametrize(
    ("share", "budget", "switch"),
    [(Fraction(1, 2), 0.6, 0.8333), (Fraction(1, 10), 0.2, 0.5), (Fraction(1, 64), 0.1156, 0.1351)],
)
def test_the_published_proportions(
    bench: ModuleType, task: Task, share: Fraction, budget: float, switch: float
) -> None:
    """20 epochs on the subset, 2 on all data, of 20: as 1,000 and 100 are of 1,000."""
    facts = facts_of()
    policy = bench.Plan(kind="subset", share=share, seed=0).policy(task, facts)
    shorter = bench.Plan(kind="shorter", share=share, seed=0).policy(task, facts)
    subset, rest = policy.phases
    assert policy.passes / facts.reference_passes == pytest.approx(budget, abs=1e-4)
    assert subset.passes / policy.passes == pytest.approx(switch, abs=1e-4)
    assert subset.passes / subset.share == pytest.approx(20)
    assert rest.passes == pytest.approx(2)
    assert (subset.selector, rest.transition, shorter.arm) == ("random", "keep", "full")
    assert abs(policy.cost(facts) - shorter.cost(facts)) <= 1


def test_lbfgs_begins_anew_on_all_data(bench: ModuleType, tiny_data: Data) -> None:
    plain = config.to_plain(image_task(tiny_data, momentum=None))
    task = config.build(Task, {**plain, **bench.LBFGS, "recipe": {**bench.LBFGS["recipe"], "epochs": 100}})
    policy = bench.Plan(kind="subset", share=Fraction(1, 2), seed=0).policy(task, facts_of())
    assert policy.phases[1].transition == "reset_optimizer"


def test_intervals_are_student_s(bench: ModuleType) -> None:
    values = [0.3, 0.1, 0.4, 0.15]
    found = bench.Interval.of(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(values), low, high, 4))
    assert [bench.Interval.of(v).sign for v in ([1.0, 1.1], [-1.0, -1.1], [1.0, -1.0], [1.0])] == [1, -1, 0, 0]


def rows(bench: ModuleType, gaps: Sequence[Sequence[float]], better: Sequence[Sequence[float]]) -> list[Any]:
    """Made-up rows: for each share and seed the gap at the switch, and what the subset run has over the others."""
    made = []

    def add(kind: str, share: Fraction, seed: int, metric: float, passes: float, gap: float | None = None) -> None:
        subset = gap is not None
        made.append(
            bench.Row(
                kind=kind,
                share=share,
                seed=seed,
                cause="finished",
                passes=passes,
                metric=metric,
                train_loss=0.1,
                pool_size=int(54_000 * share),
                switch_pool_loss=0.5 if subset else None,
                switch_train_loss=0.5 + gap if gap is not None else None,
                switch_metric=0.7 if subset else None,
                train_s=1.0,
            )
        )

    for seed in range(len(gaps[0])):
        add("conventional", Fraction(1), seed, 0.95, 20.0)
        for share, gap, over in zip(SHARES, gaps, better, strict=True):
            passes = 20 * (float(share) + 0.1)
            add("subset", share, seed, 0.9 + over[seed], passes, gap[seed])
            add("shorter", share, seed, 0.9, passes)
    return made


GROWING = [[0.1, 0.11, 0.1], [0.2, 0.21, 0.22], [0.3, 0.31, 0.29]]  # as the subset, and with it Q, gets smaller


def test_the_words_follow_the_intervals(bench: ModuleType, task: Task) -> None:
    over = [[0.01, 0.011, 0.012], [0.01, -0.01, 0.0], [-0.02, -0.021, -0.022]]
    results = bench.Results(rows(bench, GROWING, over), task, facts_of())
    findings = results.findings()
    half = findings[0]
    assert [f.share for f in findings] == list(SHARES)
    assert half.against_shorter.mean == pytest.approx(0.011)
    assert half.against_conventional.mean == pytest.approx(0.011 - 0.05)
    assert half.gap.mean == pytest.approx(0.31 / 3)
    assert (half.saving, half.q) == pytest.approx((0.4, 27_000 * 10 / 10_000))
    assert bench.slope(findings).mean == pytest.approx(-np.mean([0.2, 0.2, 0.19]) / 2)
    text = bench.verdict(results, findings)
    assert "subset shrinks as Q grows: per doubling of Q it changes by -0.098" in text
    assert (
        "Against the shorter schedule of equal cost, the subset run is better at 1/2; worse at 1/8; not shown to "
        "differ at 1/4." in text
    )
    assert "From size to larger size it shrinks 2 times of 2, and grows 0 times." in text
    assert "Against the conventional run, the subset run is worse at 1/2, 1/4, 1/8." in text
    other = bench.Results(rows(bench, GROWING[::-1], over), task, facts_of())
    assert "grows with Q" in bench.verdict(other, other.findings())
    assert bench.steps(other.findings()) == [1, 1]


def test_a_lower_metric_may_be_the_better_one(bench: ModuleType, tiny_data: Data) -> None:
    from fakes import value_task

    over = [[0.01, 0.011, 0.012]] * 3
    results = bench.Results(rows(bench, GROWING, over), value_task(tiny_data), facts_of())
    assert results.finding(SHARES[0]).against_shorter.mean == pytest.approx(-0.011)


def test_a_run_that_diverged_takes_its_seed_out_of_the_pairs(bench: ModuleType, task: Task) -> None:
    made = rows(bench, GROWING, [[0.0, 0.1, 0.2]] * 3)
    plain = {
        **{name: getattr(made[1], name) for name in bench.Row.__dataclass_fields__},
        "cause": "diverged",
        "metric": None,
    }
    made[1] = bench.Row(**plain)
    results = bench.Results(made, task, facts_of())
    found = results.finding(SHARES[0])
    assert (found.against_shorter.n, found.against_shorter.mean, results.diverged) == (2, pytest.approx(0.15), 1)
    assert bench.slope(results.findings()).n == 2


def test_it_runs_and_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = str(BENCHMARKS.parent / "search_spaces" / "digits.yaml")
    command = ["it", "--space", digits, "--scale", "500", "--shares", "1/4", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1"])
    bench.main()
    first = capsys.readouterr()
    assert first.err.count("finished") == 3
    path = tmp_path / "runs.jsonl"
    one = path.read_text()
    path.write_text(one[:-20])  # as a kill in the middle of a line leaves it
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "2"])
    bench.main()
    second = capsys.readouterr()
    assert second.err.count("finished") == 4  # the one that was cut off, and three of the new seed
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in kept}) == len(kept) == 6
    assert sorted(row["metric"] for row in kept if row["seed"] == 0) == sorted(
        json.loads(x)["metric"] for x in one.splitlines()
    )
    assert "digits, mlp, sgd: 2 conventional epochs, 2 on the subset and 0.2 on all data." in second.out
    assert "n = 2 seeds" in second.out
    assert (tmp_path / "report.txt").read_text() == second.out
    html = (tmp_path / "report.html").read_text()
    assert html.count("Plotly.newPlot(") >= 3
    assert "1/4" in html
    (subset,) = [row for row in kept if row["name"] == "subset 1/4" and row["seed"] == 0]
    task = bench.make_task(type("given", (), {"space": digits, "scale": 500.0, "optimizer": "recipe"}))
    facts = train.facts(task)
    policy = bench.Plan(kind="subset", share=Fraction(1, 4), seed=0).policy(task, facts)
    assert 0 <= policy.cost(facts) - subset["spent_flops"] < 65 * facts.example_flops
