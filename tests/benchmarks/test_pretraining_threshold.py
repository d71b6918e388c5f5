"""The benchmark of pre-training before pruning: thresholds, laws, words, where picking stops, and that it goes on."""

from __future__ import annotations

import copy
import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fakes import options, same_bits
from places import BENCHMARKS
from scipy import stats
from torch import nn

from subsettune import train
from subsettune.data import DataPaths, load
from subsettune.policy import Phase, Policy

SIZES = (512, 1024, 2048, 4096, 8192)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("pretraining_threshold")


def row(bench: ModuleType, size: int, seed: int, iterations: int, pruned: float, dense: float = 0.0) -> Any:
    told = {"key": f"{size} {seed} {iterations}", "size": size, "seed": seed, "iterations": iterations}
    return bench.Row(**told, dense_error=dense, pruned_error=pruned, width=8, picks=12)


def curve(bench: ModuleType, errors: dict[int, float], dense: float = 0.0) -> list[Any]:
    return [row(bench, 512, 0, t, error, dense) for t, error in errors.items()]


def test_thresholds_are_interpolated_on_a_logarithmic_scale(bench: ModuleType) -> None:
    errors = {4: 0.5, 8: 0.3, 16: 0.1, 32: 0.05, 64: 0.2}
    assert bench.threshold(curve(bench, errors), 0.2) == pytest.approx(8 * math.sqrt(2))
    assert bench.threshold(curve(bench, errors), 0.3) == 8  # reached exactly there
    assert bench.threshold(curve(bench, errors, dense=0.1), 0.1) == pytest.approx(8 * math.sqrt(2))
    assert bench.threshold(curve(bench, errors)[::-1], 0.2) == pytest.approx(8 * math.sqrt(2))


def test_thresholds_outside_of_what_was_measured_are_none(bench: ModuleType) -> None:
    assert bench.threshold(curve(bench, {4: 0.5, 8: 0.3}), 0.2) is None
    assert bench.threshold(curve(bench, {4: 0.1, 8: 0.05}), 0.2) is None
    assert bench.threshold(curve(bench, {4: 0.05, 8: 0.2, 16: 0.05}), 0.07) is None  # good at first, and again
    assert bench.threshold(curve(bench, {4: 0.07, 8: 0.2, 16: 0.05}), 0.07) is None


def data_of(bench: ModuleType, name: str, noise: float, *, seeds: int = 5) -> tuple[Any, Any]:
    """Thresholds by one of the laws, with relative errors."""
    rng = np.random.default_rng(3)
    m = np.repeat(np.array(SIZES, dtype=float), seeds)
    exact = {"log": -900 + 200 * np.log(m), "power": 3 * m**0.6, "square": m**0.2 + (m / 3000) ** 2}[name]
    return m, exact * np.exp(noise * rng.normal(size=len(m)))


@pytest.mark.parametrize("relative", [False, True])
def test_laws_are_found_again(bench: ModuleType, relative: bool) -> None:
    m, t = data_of(bench, "log", 0)
    found = bench.fit(bench.LOGARITHM, m, t * (1 + 1e-9 * np.arange(len(t))), relative=relative)
    assert (found.a, found.b) == pytest.approx((-900, 200), rel=1e-4)
    m, t = data_of(bench, "power", 0)
    found = bench.fit(bench.POWER, m, t * (1 + 1e-9 * np.arange(len(t))), relative=relative)
    assert (found.a, found.b) == pytest.approx((3, 0.6), rel=1e-4)


@pytest.mark.parametrize(("law", "name"), [("LOGARITHM", "power"), ("POWER", "log")])
@pytest.mark.parametrize("relative", [False, True])
def test_fits_of_the_wrong_law_are_the_best_there_are(bench: ModuleType, law: str, name: str, relative: bool) -> None:
    """None of many random parameters around them is better."""
    m, t = data_of(bench, name, 0.05)
    found, rng = bench.fit(getattr(bench, law), m, t, relative=relative), np.random.default_rng(0)

    def squares(a: float, b: float) -> float:
        told = found.law.value(m, a, b)
        if relative and told.min() <= 0:
            return math.inf
        return float(np.square(np.log(told / t) if relative else told - t).sum())

    best = squares(found.a, found.b)
    assert found.residual == pytest.approx(math.sqrt(best / (len(m) - 2)))
    for spread in (0.5, 0.05, 0.005):
        tried = (1 + spread * rng.normal(size=(3000, 2))) * (found.a, found.b)
        assert min(squares(a, b) for a, b in tried) >= best * (1 - 1e-6)


def test_fits_that_are_straight_lines_are_those_of_scipy(bench: ModuleType) -> None:
    m, t = data_of(bench, "power", 0.1)
    line = stats.linregress(np.log(m), np.log(t))
    found = bench.fit(bench.POWER, m, t, relative=True)
    squares = np.square(np.log(t) - line.intercept - line.slope * np.log(m)).sum()
    assert (found.a, found.b) == pytest.approx((math.exp(line.intercept), line.slope), rel=1e-6)
    n = len(m)
    assert found.aicc == pytest.approx(n * math.log(squares / n) + 6 + 24 / (n - 4))
    assert found.residual == pytest.approx(math.sqrt(squares / (n - 2)))
    line = stats.linregress(np.log(m), t)
    found = bench.fit(bench.LOGARITHM, m, t, relative=False)
    assert (found.a, found.b) == pytest.approx((line.intercept, line.slope), rel=1e-6)


def test_lack_of_fit_is_the_f_test(bench: ModuleType) -> None:
    """Of a model with two parameters inside the one with a mean for each size, by sums of squares written out."""
    m, t = data_of(bench, "power", 0.1)
    found = bench.fit(bench.POWER, m, t, relative=True)
    y, full = np.log(t), 0.0
    for size in SIZES:
        full += float(np.square(y[m == size] - y[m == size].mean()).sum())
    reduced = float(np.square(y - math.log(found.a) - found.b * np.log(m)).sum())
    f = ((reduced - full) / (5 - 2)) / (full / (25 - 5))
    assert found.lack_of_fit == pytest.approx(stats.f.sf(f, 3, 20))


def study_of(bench: ModuleType, name: str, noise: float) -> Any:
    m, t = data_of(bench, name, noise)
    fits = [bench.fit(law, m, t, relative=r) for r in (False, True) for law in (bench.LOGARITHM, bench.POWER)]
    thresholds = {size: t[m == size].tolist() for size in SIZES}
    return bench.Study(margin=0.05, thresholds=thresholds, missing=0, fits=tuple(fits))


def test_a_law_is_supported_by_all_or_none(bench: ModuleType) -> None:
    log, power = study_of(bench, "log", 0.03), study_of(bench, "power", 0.03)
    assert bench.supported(log.fits) is bench.LOGARITHM
    assert bench.verdict(log) == "Margin 0.05: the law t* = a + b log m is supported."
    assert bench.supported(power.fits) is bench.POWER
    neither = study_of(bench, "square", 0.02)
    assert bench.supported(neither.fits) is None
    assert bench.verdict(neither).startswith("Margin 0.05: neither law is supported: in AICc, with absolute errors ")
    assert "is rejected by the test of lack of fit" in bench.verdict(neither)
    assert bench.supported(study_of(bench, "log", 1.0).fits) is None  # too noisy to tell
    torn = [f for f in log.fits if not f.relative] + [f for f in power.fits if f.relative]
    assert bench.supported(torn) is None


def test_a_rule_is_one_law_at_every_margin(bench: ModuleType) -> None:
    log, power, neither = (study_of(bench, *case) for case in (("log", 0.03), ("power", 0.03), ("square", 0.02)))
    unfitted = replace(log, fits=())
    assert bench.conclusion([log, log]) == "At every margin the law t* = a + b log m is supported."
    for studies in ([log, power], [log, neither], [neither], [log, unfitted], [unfitted]):
        assert bench.conclusion(studies) == (
            "No one law is supported at every margin: the thresholds give no rule for how long to pre-train."
        )


def test_sizes_without_all_thresholds_are_left_out(bench: ModuleType) -> None:
    rows = [
        row(bench, size, seed, t, 0.5 if t < size / 100 * (1 + seed / 10) else 0.0)
        for size in (512, 1024, 2048, 4096)
        for seed in range(2)
        for t in (4, 8, 16, 32, 64)
    ]
    rows = [r if (r.size, r.seed) != (4096, 1) else replace(r, pruned_error=0.5) for r in rows]
    found = bench.studied(rows, 0.1)
    assert list(found.thresholds) == [512, 1024, 2048]
    assert found.missing == 1
    assert len(found.fits) == 4
    assert bench.verdict(found).endswith(" Thresholds that are missing: 1; their sizes are left out.")
    few = bench.studied([r for r in rows if r.size > 1024], 0.1)
    assert few.fits == ()
    assert bench.verdict(few) == (
        "Margin 0.1: too few sizes have a threshold with every seed (1 are missing) to fit a law."
    )
    assert len(bench.picture_of_thresholds(found)["data"]) == 5
    assert len(bench.picture_of_thresholds(few)["data"]) == 1


@pytest.mark.parametrize(("num_sizes", "is_fitted"), [(3, False), (4, False), (5, True)])
def test_thresholds_that_are_too_few_are_told_and_not_fitted(
    bench: ModuleType, num_sizes: int, is_fitted: bool
) -> None:
    """One seed: AICc with three parameters divides by n - 4."""
    sizes = (512, 1024, 2048, 4096, 8192)[:num_sizes]
    errors = {size: i for i, size in enumerate(sizes)}
    rows = [
        row(bench, size, 0, t, 0.5 if t < 6 * 1.7**i + i % 2 else 0.0)
        for size, i in errors.items()
        for t in (4, 8, 16, 32, 64, 128)
    ]
    found = bench.studied(rows, 0.1)
    assert len(found.thresholds) == num_sizes
    assert len(found.fits) == 4 * is_fitted
    words = bench.verdict(found)
    if is_fitted:
        n, residual = num_sizes, found.fits[0].residual
        squares = residual**2 * (n - 2)
        assert found.fits[0].aicc == pytest.approx(n * math.log(squares / n) + 6 + 24 / (n - 4))
        assert "too few" not in words
    else:
        assert words == (
            f"Margin 0.1: {num_sizes} thresholds (0 are missing) are too few to fit a law, which takes 5. Give more "
            "seeds or sizes."
        )
    assert len(bench.picture_of_thresholds(found)["data"]) == 1 + 4 * is_fitted


@torch.no_grad()
def test_picking_stops_at_the_accuracy_or_at_the_bound(bench: ModuleType) -> None:
    rng = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.utils.skip_init(nn.Linear, 6, 20), nn.ReLU(), nn.utils.skip_init(nn.Linear, 20, 3))
    for parameter in network.parameters():
        parameter.normal_(generator=rng)
    inputs = torch.randn(200, 6, generator=rng)
    targets = network(inputs).argmax(1)
    junction = bench._junction(network, inputs, targets)
    setting = replace(bench.QUICK, hidden=20, bound=10, candidates=20, examples=100)
    found = {aim: bench._pruned(junction, setting, aim, torch.Generator().manual_seed(1)) for aim in (0.5, 0.98, 2.0)}
    assert 1 - found[0.5][1] >= 0.5
    assert found[0.5][0].counts.sum() < found[2.0][0].counts.sum()
    assert int((found[2.0][0].counts > 0).sum()) == 10  # an accuracy that nothing has: the bound
    for greedy, error in found.values():
        factors = greedy.counts * (20 / int(greedy.counts.sum()))
        outputs = network[2](network[1](network[0](inputs)) * factors)
        assert error == pytest.approx(float((outputs.argmax(1) != targets).double().mean()))


def test_all_lengths_come_from_one_training(bench: ModuleType) -> None:
    """And each is, bit for bit, the network of a training of that length on the same examples."""
    setting = replace(bench.QUICK, longest=32)
    task, places = setting.task(), DataPaths()
    num_examples = len(load(task, places).train)
    found = {}
    series = bench.Series(setting=setting, size=128, seed=1, places=places)
    for iterations, network in bench.snapshots(series, task, num_examples):
        found[iterations] = copy.deepcopy(network)
    assert list(found) == [4, 8, 16, 32]
    for iterations, network in found.items():
        phase = Phase(share=128 / num_examples, passes=iterations * 64 / num_examples)
        alone = train.run(task, Policy(phases=(phase,)), 1, options=options(keep_model=True, places=places))
        assert alone.updates == iterations
        assert alone.model is not None
        assert same_bits(network, alone.model)


def test_it_runs_and_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["it", "--quick", "--sizes", "128", "256", "--longest", "32", "--out", str(tmp_path)]
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "1"])
    bench.main()
    first = capsys.readouterr()
    assert first.err.count("min left") == 2
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text()[:-20])  # as a kill in the middle of a line leaves it
    monkeypatch.setattr("sys.argv", [*command, "--seeds", "2"])
    bench.main()
    torch.set_num_threads(threads)
    second = capsys.readouterr()
    assert second.err.count("min left") == 3  # the one that was cut off, and two of the new seed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["key"] for row in rows}) == 16
    assert all(0 <= row["dense_error"] < 1 and row["width"] <= 48 for row in rows)
    assert rows[3]["dense_error"] < rows[0]["dense_error"]
    assert (tmp_path / "report.txt").read_text() == second.out
    assert "n = 2 seeds, one thread on cpu" in second.out
    assert "too few sizes" in second.out
    assert "No one law is supported at every margin" in second.out
    assert "Plotly.newPlot(" in (tmp_path / "report.html").read_text()


def test_sizes_must_be_whole_batches(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["it", "--sizes", "100"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--sizes must be multiples of 64, got [100]." in capsys.readouterr().err
