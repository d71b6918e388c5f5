"""The benchmark of scale: its made-up study is the product's own, and what it prints is counted."""

from __future__ import annotations

import importlib
import re
from types import SimpleNamespace

import pytest
from places import BENCHMARKS


@pytest.fixture(scope="module")
def scale() -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return SimpleNamespace(**vars(importlib.import_module("scale")))


def test_a_made_up_study_is_measured(
    scale: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    scale.measure_driver(trials=8, sampler="tpe", parallel=2, every=4)
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", lines[1].strip()) == [
        *("trials", "propose", "sampler", "tell", "record", "best", "all", "MB of memory", "MB of files"),
    ]
    assert [line.split()[0] for line in lines[2:4]] == ["4", "8"]
    sizes = dict(re.findall(r"^ +(\S+): ([\d,]+) bytes", "\n".join(lines), re.MULTILINE))
    assert {"optuna.journal", "trials.parquet"} <= set(sizes)
    assert re.search(r"gone on with, one trial more: [\d.]+ s", lines[-1])


def test_a_longer_training_is_worth_more_up_to_noise(scale: SimpleNamespace) -> None:
    values = [sum(scale.worth(updates, seed) for seed in range(20)) / 20 for updates in (50, 100, 200, 400)]
    assert values == sorted(values)
