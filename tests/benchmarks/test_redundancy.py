"""The benchmark of redundant and noisy data: its variants, its intervals, its words, and that it goes on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from places import BENCHMARKS
from scipy import stats

from subsettune import select, train
from subsettune.policy import Phase, Policy


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("redundancy")


def test_every_selector_is_tried_and_both_ends_of_a_difficulty(bench: ModuleType) -> None:
    found = {variant.name: variant for variant in bench.variants()}
    assert set(select.SELECTORS) <= set(found)
    assert {"el2n, easiest", "el2n, skip 0.3", "forgetting, easiest"} <= set(found)
    assert found["el2n"].options == {"proxy_passes": 0.3, "runs": 1}
    assert found["forgetting"].options["proxy_passes"] == 2.0
    assert found["herding"].options == {"features": "projection", "dimensions": 32}
    for variant in found.values():
        select.make(variant.selector, variant.options)


def test_all_ways_of_choosing_cost_the_same(bench: ModuleType) -> None:
    given = type("given", (), {"budget": 0.5, "switch": 0.8, "share": 0.25})
    task = bench.make_task("digits", "clean")
    facts = train.facts(task)
    policies, refused = bench.policies(given, task, facts)
    costs = {name: policy.cost(facts) for name, policy in policies.items() if name != bench.CONVENTIONAL}
    assert max(costs.values()) - min(costs.values()) <= 1
    assert costs[bench.SHORTER] == pytest.approx(0.5 * facts.reference_flops, rel=1e-6)
    assert all("costs" in why for why in refused.values())


@pytest.mark.parametrize(("condition", "examples"), [("clean", 1078), ("copies", 1078 + 54 * 20), ("noise", 1078)])
def test_the_conditions(bench: ModuleType, condition: str, examples: int) -> None:
    """60 % of 1,797 digits; 5 % of them stand there 21 times."""
    task = bench.make_task("digits", condition)
    assert train.facts(task).num_examples == examples


def outcome(bench: ModuleType, name: str, seed: int, metric: float | None) -> object:
    cause = "finished" if metric is not None else "diverged"
    plain = {"key": f"{name}{seed}", "name": name, "seed": seed, "cause": cause, "metric": metric}
    return bench.Outcome(**plain, spent_flops=100, select_flops=25, train_s=1.0, select_s=0.5)


def test_the_words_follow_the_intervals(bench: ModuleType) -> None:
    """Three selectors besides the control: each interval is of a level of 1 - 0.05 / 3."""
    gains = {"better": 0.1, "worse": -0.1, "alike": 0.0, "random": 0.0, bench.SHORTER: 0.05, bench.CONVENTIONAL: 0.2}
    noise = [0.001, -0.002, 0.0015, 0.0005]
    signs = {"alike": -1.0, "better": 0.5}
    metrics = {name: [0.8 + gain + signs.get(name, 1.0) * e for e in noise] for name, gain in gains.items()}
    metrics["worse"][1] = None
    outcomes = {name: {s: outcome(bench, name, s, m) for s, m in enumerate(values)} for name, values in metrics.items()}
    policies = dict.fromkeys(gains, Policy(phases=(Phase(passes=1),)))
    found = {f.name: f for f in bench.findings(policies, outcomes)}
    assert [f.name for f in bench.findings(policies, outcomes)] == ["better", "random", "alike", "worse"]
    assert found["better"].verdict == "pays; beats the shorter schedule"
    assert found["worse"].verdict == "harms; is worse than the shorter schedule"
    assert found["alike"].verdict == "no difference shown; is worse than the shorter schedule"
    assert found["random"].verdict == "the control"
    assert (found["worse"].against_random.n, found["better"].select_share) == (3, 0.25)
    differences = [0.1 - 0.5 * e for e in noise]
    low, high = stats.t.interval(1 - 0.05 / 3, 3, loc=sum(differences) / 4, scale=stats.sem(differences))
    assert (found["better"].against_random.low, found["better"].against_random.high) == pytest.approx((low, high))
    text = bench.verdict("clean", list(found.values()))
    assert text == (
        "clean: choosing pays against a random subset with better; of these, better also beat the shorter schedule on "
        "all data."
    )
    nobody = [f for name, f in found.items() if name != "better"]
    assert bench.verdict("clean", nobody) == (
        "clean: no selector is shown to pay against a random subset; none beats the shorter schedule on all data as "
        "well."
    )


@pytest.mark.slow
def test_it_runs_and_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [v for v in bench.variants() if v.name in ("random", "stratified", "el2n, skip 0.3")]
    monkeypatch.setattr(bench, "variants", lambda: iter(few))
    command = ["it", "--source", "digits", "--conditions", "noise", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1"])
    bench.main()
    first = capsys.readouterr()
    assert first.err.count("finished") == 5
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-20])  # as a kill in the middle of a line leaves it
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "2"])
    bench.main()
    second = capsys.readouterr()
    assert second.err.count("finished") == 6  # the one that was cut off, and five of the new seed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 10
    assert (tmp_path / "report.txt").read_text() == second.out
    assert "n = 2 seeds, 95% intervals" in second.out
    assert "Plotly.newPlot(" in (tmp_path / "report.html").read_text()
