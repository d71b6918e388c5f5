"""From files to the printed metric: a linear model is near perfect if and only if labels and numbers came through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_inputs import REMOVED, write

from subsettune.cli import main

N = 600
Z = np.random.default_rng(0).normal(size=(N, 3))
WEIGHTS = np.array([1.0, -2.0, 0.5])
LINEAR = {
    "task.model": {"name": "mlp", "hidden": []},
    "task.recipe": {"optimizer": "adam", "lr": 0.05, "batch_size": 32, "epochs": 20},
}
Train = Callable[..., dict[str, float]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    """Trains the recipe on a source and gives the metrics that the command prints."""
    monkeypatch.chdir(tmp_path)

    def command(source: str, metric: str = "accuracy", tolerance: float = 0.1, **changes: Any) -> dict[str, float]:
        given = {"task.data.source": source, "task.metric": metric, "task.tolerance": tolerance, **LINEAR, **changes}
        capfd.readouterr()
        assert main(["train", write(Path("s.yaml"), given), "--json", "--device", "cpu", "--cache", "cache"]) == 0
        metrics: dict[str, float] = json.loads(capfd.readouterr().out)["metrics"]
        return metrics

    return command


def _table(numbers: np.ndarray, rows: slice, names: tuple[str, ...] = (), **columns: Any) -> pa.Table:
    made = pa.table({**{f"f{i}": Z[rows, i] for i in range(3)}, **columns, "label": numbers[rows]})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    return (
        made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}) if names else made
    )


CLASSES = ("low", "high", "mid")
OTHER = ("mid", "low", "high")
IS = np.digitize(Z[:, 0] * 3, [-1, 1])  # 0 low, 1 mid, 2 high
NAMES = np.array(["low", "mid", "high"])[IS]


@pytest.mark.parametrize("second", ["train-1", "test"])
def test_files_that_list_their_classes_in_another_order(train: Train, tmp_path: Path, second: str) -> None:
    """Read by the numbers alone, a third or less of the second file would be right, and shards would contradict."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file, rows, order in (("train-0", slice(0, 400), CLASSES), (second, slice(400, N), OTHER)):
        numbers = np.array([order.index(name) for name in NAMES])
        pq.write_table(_table(numbers, rows, order), folder / f"{file}.parquet")
    split = {"task.split": {"validation": 0.2}} if second == "test" else {}
    assert train(str(folder), **split)["test"] > 0.8


@pytest.mark.parametrize("offset", [1.7e9, 1e12])
def test_features_on_an_offset(train: Train, offset: float) -> None:
    label = (Z @ WEIGHTS > 0).astype(np.int64)
    np.savez("data.npz", x=offset + Z, y=label)
    assert train("data.npz")["test"] > 0.95


def test_whole_numbers_beyond_float64(train: Train) -> None:
    label = (Z @ WEIGHTS > 0).astype(np.int64)
    columns = {f"f{i}": np.round(Z[:, i] * 1000).astype(np.int64) + 1_700_000_000_000_000_000 for i in range(3)}
    pq.write_table(pa.table({**columns, "label": label}), "data.parquet")
    assert train("data.parquet")["test"] > 0.95


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_features_beyond_float32(train: Train, size: float) -> None:
    np.savez("data.npz", x=Z * size, y=(Z @ WEIGHTS > 0).astype(np.int64))
    assert train("data.npz")["test"] > 0.95


@pytest.mark.parametrize(("offset", "size"), [(1e6, 1.0), (1e9, 1.0), (0.0, 1e-20), (0.0, 1e30), (0.0, 1e40)])
def test_targets_are_judged_in_their_own_units(train: Train, offset: float, size: float) -> None:
    """The same learning whatever the unit: the errors are those of plain targets, times the unit."""
    target = Z @ WEIGHTS
    np.savez("plain.npz", x=Z, y=target)
    np.savez("data.npz", x=Z, y=offset + size * target)
    for metric, power in (("mae", 1), ("mse", 2)):
        plain, got = train("plain.npz", metric), train("data.npz", metric, 0.1 * size**power)
        assert plain["test"] < 0.01
        assert got["test"] / size**power == pytest.approx(plain["test"], rel=0.01)


POLICIES = {
    "soup": {"phases": [{"passes": 2, "soup": {"workers": 2, "density": 0.5}}, {"passes": 2}]},
    "el2n": {"phases": [{"share": 0.5, "passes": 2, "selector": "el2n"}, {"passes": 2}]},
    "grand": {"phases": [{"share": 0.5, "passes": 2, "selector": "grand"}, {"passes": 2}]},
    "infobatch": {"phases": [{"passes": 4, "order": "infobatch"}]},
    "prune": {
        "phases": [
            {"share": 0.5, "passes": 2},
            {"passes": 8, "transition": "prune", "transition_options": {"keep": 0.5}},
        ]
    },
    "lbfgs": {"phases": [{"passes": 4}], "recipe": {"optimizer": "lbfgs", "lr": 1.0, "batch_size": N}},
}


@pytest.mark.parametrize("name", list(POLICIES))
def test_every_user_of_losses_sees_the_same_on_an_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Losses of selectors, orders, soups, pruning and line searches are those of standardised labels."""
    monkeypatch.chdir(tmp_path)
    Path("policy.json").write_text(json.dumps(POLICIES[name]))
    found = []
    for offset in (0.0, 1e9):
        np.savez("data.npz", x=Z, y=offset + Z @ WEIGHTS)
        given = {"task.data.source": "data.npz", "task.metric": "mae", **LINEAR, "task.model": {"name": "mlp"}}
        command = ["train", write(Path("s.yaml"), given), "--json", "--device", "cpu", "--cache", f"cache-{offset:g}"]
        capfd.readouterr()
        assert main([*command, "--policy", "policy.json"]) == 0
        found.append(json.loads(capfd.readouterr().out)["metrics"]["test"])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_predictions_are_not_rounded_to_the_targets(train: Train) -> None:
    """Steps of 64, of which a linear model misses a quarter on average; in float32 predictions fall onto them."""
    np.savez("data.npz", x=Z, y=(1e9 + 64 * np.round(Z @ WEIGHTS * 10)).astype(np.float32))
    assert train("data.npz", "mae", 1.0)["test"] == pytest.approx(16, rel=0.1)


def test_what_looks_wrong_is_said_by_plan_and_train(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    label = np.where(Z[:, 0] > 0, "Yes", np.where(Z[:, 1] > 0, "yes", "no"))
    pq.write_table(pa.table({"f0": Z[:, 0], "f1": Z[:, 1], "label": label}), "data.parquet")
    study = write(Path("s.yaml"), {"task.data.source": "data.parquet"})
    note = "Classes 'Yes' and 'yes' look like one written twice, and are told apart."
    assert main(["plan", study, "--cache", "cache"]) == 0
    assert note in " ".join(capfd.readouterr().out.split())
    assert main(["train", study, "--device", "cpu", "--cache", "other"]) == 0
    assert " ".join(capfd.readouterr().err.split()).count(note) == 1
    assert not caplog.records


def test_a_study_does_not_depend_on_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Target, search and verification of the same labels in other units: the same trials, metrics times the unit."""
    monkeypatch.chdir(tmp_path)
    target = Z @ WEIGHTS + np.random.default_rng(1).normal(size=N) * 0.3
    metrics = {}
    for name, offset, unit in (("plain", 0.0, 1.0), ("offset", 1e9, 1.0), ("tiny", 0.0, 1e-20), ("huge", 0.0, 1e30)):
        np.savez(f"{name}.npz", x=Z, y=offset + unit * target)
        changes = {"task.data.source": f"{name}.npz", "task.metric": "mae", "task.tolerance": 0.1 * unit, **LINEAR}
        study = write(Path(f"{name}.yaml"), changes | {"space.selector": REMOVED})
        quiet = ["--inline", "--quiet", "--device", "cpu", "--storage", "runs", "--cache", "cache", "--run-id", name]
        assert main(["tune", study, *quiet]) == 0
        trials = pq.read_table(f"runs/{name}/trials.parquet").to_pydict()
        metrics[name] = (trials["cost_flops"], np.array(trials["metric"]) / unit)
    for costs, values in metrics.values():
        assert costs == metrics["plain"][0]
        np.testing.assert_allclose(values, metrics["plain"][1], rtol=1e-4)
