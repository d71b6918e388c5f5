"""Closed forms at a few shares; torch's own schedulers where they exist."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subsettune.errors import ConfigError
from subsettune.train import schedule


def values(name: str, options: dict[str, Any], shares: list[float]) -> list[float]:
    factor = schedule.make(name, options)
    return [factor(share) for share in shares]


def test_constant() -> None:
    assert values("constant", {}, [0, 0.5, 0.999]) == [1, 1, 1]


def test_step() -> None:
    assert values("step", {"milestones": [0.3, 0.6], "gamma": 0.5}, [0, 0.299, 0.3, 0.59, 0.6, 0.99]) == [
        *(1, 1, 0.5, 0.5, 0.25, 0.25)
    ]


def test_warm_ups_of_constant_and_step_rise_to_the_peak_and_share_no_beginning() -> None:
    assert values("constant", {"warmup": 0.2}, [0, 0.1, 0.2, 0.9]) == [0, 0.5, 1, 1]
    step = {"warmup": 0.4, "milestones": [0.2, 0.6], "gamma": 0.5}
    assert values("step", step, [0, 0.1, 0.2, 0.4, 0.6]) == pytest.approx([0, 0.25, 0.25, 0.5, 0.25])
    stable = [schedule.make(name, {"warmup": w}).stable_share for name in ("constant", "step") for w in (0.0, 0.1)]
    assert stable == [1.0, 0.0, 0.5, 0.0]


def test_cosine() -> None:
    found = values("cosine", {}, [0, 0.25, 0.5, 0.75])
    assert found == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    found = values("cosine", {"warmup": 0.2, "final": 0.1}, [0, 0.1, 0.2, 0.6])
    assert found == pytest.approx([0, 0.5, 1, 0.55])


def test_cosine_is_torch_s() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    factor = schedule.make("cosine", {})
    for step in range(20):
        assert factor(step / 20) == pytest.approx(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()


def test_one_cycle_is_torch_s() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = 41  # torch reaches its peak at 0.3 * 41 - 1 and its end at the last step
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, pct_start=0.3)
    ours = schedule.make("one_cycle", {"peak": (0.3 * steps - 1) / (steps - 1)})
    for step in range(steps - 1):
        assert ours(step / (steps - 1)) == pytest.approx(torchs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        torchs.step()
    assert values("one_cycle", {}, [0, 0.3]) == pytest.approx([0.04, 1])
    assert values("one_cycle", {"peak": 0}, [0]) == [1]


def test_warmup_stable_decay() -> None:
    found = values("warmup_stable_decay", {"warmup": 0.1, "decay": 0.4, "final": 0.2}, [0, 0.05, 0.1, 0.6, 0.8, 1.0])
    assert found == pytest.approx([0, 0.5, 1, 1, 0.6, 0.2])


@settings(deadline=None)
@given(name=st.sampled_from(list(schedule.SCHEDULES)), share=st.floats(0, 1, exclude_max=True))  # type: ignore[attr-defined]
def test_factors_lie_between_0_and_1(name: str, share: float) -> None:
    assert 0 <= schedule.make(name, {})(share) <= 1


STABLE: dict[str, tuple[str, dict[str, Any], float]] = {
    "constant": ("constant", {}, 1.0),
    "step": ("step", {"milestones": [0.8, 0.3]}, 0.3),
    "no steps": ("step", {"milestones": []}, 1.0),
    "decay": ("warmup_stable_decay", {"warmup": 0.0, "decay": 0.2}, 0.8),
    "warm-up": ("warmup_stable_decay", {"warmup": 0.05}, 0.0),
    "cosine": ("cosine", {}, 0.0),
    "one_cycle": ("one_cycle", {}, 0.0),
}


@pytest.mark.parametrize("name", STABLE)
def test_the_peak_is_kept_from_the_beginning_up_to_the_stable_share(name: str) -> None:
    schedule_name, options, stable = STABLE[name]
    factor = schedule.make(schedule_name, options)
    assert factor.stable_share == pytest.approx(stable)
    assert all(factor(stable * share) == 1 for share in (0, 0.3, 0.999) if stable)
    assert stable == 1 or factor(stable + 0.001) < 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear", {}, "^schedule must be one of constant, step, .*, got 'linear'"),
        (
            "cosine",
            {"warm": 0.1},
            "^schedule_options.warm: unknown key. Did you mean 'warmup'. Known keys: final, warmup",
        ),
        (
            "cosine",
            {"warmup": 5},
            r"^schedule_options.warmup: warmup must be in \[0, 1\), got 5.0. It is a share of the",
        ),
        ("step", {"milestones": 0.5}, "^schedule_options.milestones: milestones must be a list, got 0.5"),
        (
            "step",
            {"milestones": [30, 60]},
            r"milestones must be shares in \[0, 1\), got \(30.0, 60.0\). They are shares",
        ),
        ("step", {"gamma": "0.1"}, "^schedule_options.gamma: gamma must be a finite number, got '0.1'"),
        ("one_cycle", {"final": -1}, r"^schedule_options.final: final must be in \[0, 1\], got -1"),
        ("warmup_stable_decay", {"warmup": 0.6, "decay": 0.5}, "warmup . decay must be at most 1. They are shares of"),
        ("constant", {"x": 1}, "^schedule_options.x: unknown key. Known keys: "),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule.make(name, options)
