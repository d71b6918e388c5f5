"""Its studies are studies, and its noise has the correlation that it is said to have."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from places import BENCHMARKS

from subsettune.policy import Phase, Policy
from subsettune.study.spec.definition import parse


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("shared_prefixes")


@pytest.mark.parametrize("space", ["ranges", "choices", "budgets"])
def test_its_studies_differ_in_sharing_alone(bench: ModuleType, space: str) -> None:
    plain, shared = (parse(bench.digits(space, 3, is_shared)) for is_shared in (False, True))
    assert (plain.task, plain.space) == (shared.task, shared.space)
    assert (plain.study.share_prefixes, shared.study.share_prefixes) == (False, True)
    assert shared.with_settings({"trials": 7}).study.share_prefixes


def test_runs_of_one_seed_echo_each_other(bench: ModuleType) -> None:
    landscape = bench.Echoing(landscape=bench.LANDSCAPES["rate"], echo=0.4)
    policies = [Policy(phases=(Phase(passes=passes),)) for passes in (9.0, 12.0)]
    scores = np.array([[landscape(policy, seed) for policy in policies] for seed in range(2000)])
    assert np.corrcoef(scores.T)[0, 1] == pytest.approx(0.4, abs=0.06)
    assert scores.std(axis=0) == pytest.approx(0.003, rel=0.1)
