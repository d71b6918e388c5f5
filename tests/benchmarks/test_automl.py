"""What benchmarks/automl.py makes of fits: pairs by seed, and arms of a bundle."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_bundle import export
from places import BENCHMARKS


@pytest.fixture
def automl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("automl")


def test_arms_have_the_recipe_of_the_bundle(automl: ModuleType, tmp_path: Path) -> None:
    bundle, _ = export(str(tmp_path / "bundle"))
    arms = automl.arms(str(tmp_path / "bundle"))
    assert list(arms) == ["recipe", "policy", "shorter"]
    assert arms["recipe"]["recipe"] == bundle.task.recipe.to_mapping()
    assert arms["policy"] == {"policy": str(tmp_path / "bundle")}
    assert arms["shorter"]["policy"] == {"phases": [{"passes": bundle.policy.passes}], "recipe": bundle.policy.recipe}
    export(str(tmp_path / "full"), "full_wins")
    assert list(automl.arms(str(tmp_path / "full"))) == ["recipe", "policy"]


def test_the_table_pairs_seeds(automl: ModuleType) -> None:
    fits = [
        automl.Fit(
            host="flaml", arm=arm, seed=seed, accuracy=accuracy, flops=flops, trainings=7, clock_s=seconds, cpu_s=1.0
        )
        for arm, seed, accuracy, flops, seconds in (
            ("recipe", 0, 0.85, 1000, 8.0),
            ("recipe", 1, 0.86, 4000, 2.0),
            ("policy", 0, 0.84, 250, 2.0),
            ("policy", 1, 0.86, 1000, 2.0),
            ("policy", 2, 0.99, 1, 1.0),  # without its pair
        )
    ]
    _, _, recipe, policy = automl.table(fits).splitlines()
    same = "1.000 [1.000, 1.000]"
    assert recipe == f"| flaml | recipe | 2 | 85.50 % | 0.00 [0.00, 0.00] | {same} | {same} | {same} |"
    cells = policy.split(" | ")
    assert cells[1:3] == ["policy", "3"]
    assert cells[4].startswith("-0.50 [-6.85, 5.85]")  # t of one degree of freedom: 12.7 times 0.5
    assert cells[5] == "0.250 [0.250, 0.250]"
    assert cells[6].startswith("0.500 [")


def test_what_is_on_disk_is_not_made_again(automl: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(str(tmp_path / "bundle"))
    asked: list[tuple[int, str]] = []

    def made_up(one: Any) -> tuple[float, int, int]:
        asked.append((one.seed, "policy" if "module" not in one.settings else "other"))
        return 0.9, 10, 1

    monkeypatch.setitem(automl.HOSTS, "flaml", made_up)
    given = (str(tmp_path / "bundle"), (None, None))
    first = automl.carry_out(*given, 1, ["flaml"], tmp_path / "out" / "fits.jsonl")
    again = automl.carry_out(*given, 2, ["flaml"], tmp_path / "out" / "fits.jsonl")
    assert len(first) == 3
    assert again[:3] == first
    assert asked == [(0, "other"), (0, "policy"), (0, "other"), (1, "other"), (1, "policy"), (1, "other")]
