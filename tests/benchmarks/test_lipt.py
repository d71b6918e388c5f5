"""The benchmark of soups: equal costs, the mismatch of gradients, its words, and that it runs and goes on."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from places import BENCHMARKS

from subsettune import config, train
from subsettune.policy import Policy
from subsettune.select.kernels.gradients import Gradients
from subsettune.task import Task

SETTINGS = {"budget": 0.5, "warm_up": 0.2, "switch": 0.7, "share": 0.1, "pool": 0.4, "density": 0.5}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("lipt")


def plan_of(bench: ModuleType) -> Any:
    return bench.Plan(**SETTINGS, masks="erk", rand_augment=0)


def digits(bench: ModuleType) -> Task:
    return config.build(Task, bench.TASKS["digits"])


def test_all_policies_cost_the_same_and_can_be_carried_out(bench: ModuleType) -> None:
    task = digits(bench)
    facts = train.facts(task)
    found: dict[str, Policy] = bench.policies(plan_of(bench), facts)
    assert len(found) == 11
    for policy in found.values():
        assert policy.passes == pytest.approx(10)
        train.check(task, policy, facts)
    soups = {name: policy.phases[0] for name, policy in found.items() if policy.phases[0].soup is not None}
    assert {name: phase.soup.workers for name, phase in soups.items() if phase.soup} == {
        "soup of 2": 2,
        "soup of 4": 4,
        "soup of 10": 10,
        "soup of 10, as published": 10,
    }
    assert {phase.passes for phase in (*soups.values(), found[bench.SAME_COMPUTE].phases[0])} == {2.0}
    for workers in (2, 4, 10):  # the wall clock of a worker
        assert found[bench.same_clock(workers)].phases[0].passes == pytest.approx(2.0 / workers)


def gradients(seed: int) -> tuple[Gradients, torch.Tensor]:
    """Of 20 examples, and written out (20, 3 * 5)."""
    rng = torch.Generator().manual_seed(seed)
    residuals, inputs = (torch.randn(20, d, generator=rng, dtype=torch.float64) for d in (3, 5))
    return Gradients(residuals=residuals, inputs=inputs), torch.einsum("nm,na->nma", residuals, inputs).flatten(1)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mismatch_is_that_of_gradients_written_out(bench: ModuleType, weighted: bool) -> None:
    compact, written = gradients(1)
    picks = torch.tensor([3, 17, 4, 9])
    weights = torch.tensor([1.0, 0.0, 5.0, 2.0]) if weighted else None
    mean, of_subset = written.mean(0), written[picks].mean(0)
    if weights is not None:
        of_subset = (1 * written[3] + 0 * written[17] + 5 * written[4] + 2 * written[9]) / 8
    error, cosine = bench.mismatch(compact, picks, weights)
    assert error == pytest.approx(float((of_subset - mean).norm() / mean.norm()), rel=1e-12)
    angle = math.acos(cosine)
    assert float((of_subset / of_subset.norm() - mean / mean.norm()).norm()) == pytest.approx(2 * math.sin(angle / 2))


def test_all_examples_match_themselves(bench: ModuleType) -> None:
    compact, _ = gradients(2)
    error, cosine = bench.mismatch(compact, torch.randperm(20, generator=torch.Generator().manual_seed(0)), None)
    assert error == pytest.approx(0, abs=1e-12)
    assert cosine == pytest.approx(1)


def outcome(bench: ModuleType, name: str, seed: int, metric: float, measured: dict[str, float]) -> Any:
    plain = {"key": f"{name}{seed}", "name": name, "seed": seed, "cause": "finished", "metric": metric}
    spent = {"spent_flops": 100, "select_flops": 25, "train_s": 1.0, "select_s": 0.5}
    return bench.Outcome(**plain, **spent, measured=measured)


def made_up(bench: ModuleType) -> tuple[dict[str, Policy], dict[str, dict[int, Any]]]:
    """Soups of 2 are better than (a) in both, soups of 10 worse; the others differ by noise only."""
    named = bench.policies(plan_of(bench), train.facts(digits(bench)))
    better = {"soup of 2": 0.05, "soup of 10": -0.05}
    outcomes: dict[str, dict[int, Any]] = {}
    for number, name in enumerate(named):
        outcomes[name] = {}
        for seed in range(6):
            noise = 0.004 * math.sin(12.9 * number + 78.2 * seed + 3 * number * seed)
            measured = {"error": 1.0, "cosine": 0.8 + better.get(name, 0) + noise}
            measured |= {"coverage": 0.7} if "soup" in name else {}
            measured = {} if name == bench.SHORTER else measured
            outcomes[name][seed] = outcome(bench, name, seed, 0.9 + better.get(name, 0) + noise, measured)
    return named, outcomes


def test_the_words_follow_the_intervals(bench: ModuleType) -> None:
    facts = train.facts(digits(bench))
    named, outcomes = made_up(bench)
    compared = bench.compare(outcomes, plan_of(bench).soups(facts))
    assert len(compared) == 4 * 5
    told = bench.verdict(compared).splitlines()
    sides = "soup of 2 better; soup of 10 worse."
    assert told == [
        f"In accuracy, against ordinary training of the same compute: {sides}",
        f"In the subset's gradient, against ordinary training of the same compute: {sides}",
        f"In accuracy, against that of the same wall clock: {sides}",
        f"In the subset's gradient, against that of the same wall clock: {sides}",
        f"In accuracy, against all data all the time: {sides}",
    ]
    rows = {(row[0], row[1]): row for row in bench.differences(compared).rows}
    first = rows["soup of 2", bench.SAME_COMPUTE]
    assert (first[3], first[5]) == ("nearer", "more accurate")
    assert first[2].startswith("0.0")
    assert first[4].startswith("0.0")
    assert rows["soup of 10", bench.SHORTER][2:4] == ("", "")
    assert rows["soup of 10", bench.SHORTER][5] == "less accurate"
    for soup, workers in (("soup of 4", 4), ("soup of 10, as published", 10)):
        assert rows[soup, bench.same_clock(workers)][3::2] == ("no difference shown", "no difference shown")
    found = bench.findings(named, outcomes)
    assert [f.longest for f in found[:4]] == [1.0, 0.5, 0.2, 0.2]
    assert [f.coverage for f in found[:5]] == [*[pytest.approx(0.7)] * 4, None]
    assert found[-1].cosine is None


def test_no_difference_is_said_plainly(bench: ModuleType) -> None:
    _, outcomes = made_up(bench)
    same = dict.fromkeys(outcomes, outcomes["none"])
    compared = bench.compare(same, plan_of(bench).soups(train.facts(digits(bench))))
    assert {line.split(": ")[1] for line in bench.verdict(compared).splitlines()} == {"no soup is shown to differ."}


def test_the_speed_up_of_the_longest_worker(bench: ModuleType) -> None:
    from subsettune.data import DataPaths

    found = bench.speed_up(digits(bench), plan_of(bench), 4, 2, DataPaths())
    assert found.flops == pytest.approx(4)  # by construction: drawn masks cost nothing, and there is no batch norm
    assert len(found.seconds) == len(found.all_s) == len(found.ordinary_s) == 2
    assert found.words().startswith("4 workers: 4.00 times faster in FLOPs, ")


@pytest.mark.slow
def test_a_run_from_end_to_end_goes_on(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "lipt.py",
        "--source",
        "digits",
        "--seeds",
        "1",
        "--jobs",
        "1",
        "--budget",
        "0.3",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    bench.main()
    first = capsys.readouterr()
    assert "[11/11]" in first.err
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert all(set(row["measured"]) >= {"error", "cosine"} for row in rows if row["name"] != bench.SHORTER)
    bench.main()
    again = capsys.readouterr()
    assert again.err == ""  # nothing is run twice
    assert again.out.split("Speed-up")[0] == first.out.split("Speed-up")[0]
    assert "Plotly.newPlot" in (tmp_path / "report.html").read_text()
