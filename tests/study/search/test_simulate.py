from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from subsettune.errors import ConfigError
from subsettune.policy import Policy
from subsettune.study.search.simulate import Simulation, SimulationSettings, simulate

SPACE: dict[str, Any] = {
    "budget": {"log": [0.02, 0.6]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.05, 0.9]},
    "subset_share": {"log": [0.02, 0.5]},
    "lr": {"log": [0.02, 0.5]},
}
REFERENCE_PASSES = 30.0
TARGET = 0.9
Runner = Callable[[Policy, int], float]


class Smooth:
    """Score grows with the log of the passes; the subset arm is worth `bonus` at its best share and switch."""

    def __init__(self, bonus: float, noise: float = 0.0) -> None:
        self.bonus = bonus
        self.noise = noise
        self.seeds: list[int] = []

    def true(self, policy: Policy) -> float:
        lr = math.log(policy.recipe["lr"] / 0.1)
        value = TARGET + 0.05 * math.log(policy.passes / REFERENCE_PASSES / 0.2) - 0.01 * lr**2
        if policy.arm == "full":
            return value
        first = policy.phases[0]
        off = (first.passes / policy.passes - 0.5) ** 2 + 0.2 * math.log(first.share / 0.1) ** 2
        return value + self.bonus - 0.1 * off

    def optimum(self) -> float:
        """Cost at which the better arm, at its best everything else, just reaches the target."""
        return 0.2 * math.exp(-max(self.bonus, 0.0) / 0.05)

    def __call__(self, policy: Policy, seed: int) -> float:
        self.seeds.append(seed)
        return self.true(policy) + self.noise * float(np.random.default_rng(seed).standard_normal())


def run(runner: Runner, *, trials: int = 30, workers: int = 1, seed: int = 0, **options: Any) -> Simulation:
    kept = {"reference_passes": REFERENCE_PASSES, "target": TARGET, "sampler": "auto"} | options
    space = kept.pop("space", SPACE)
    return simulate(space, runner, SimulationSettings(trials=trials, workers=workers, seed=seed, **kept))


@pytest.mark.slow
@pytest.mark.parametrize("bonus", [0.05, -0.05])
@pytest.mark.parametrize("workers", [1, 4])
def test_finds_the_optimum_in_either_arm(bonus: float, workers: int) -> None:
    runner = Smooth(bonus)
    result = run(runner, trials=40, workers=workers)
    assert result.best is not None
    assert runner.true(result.best.policy) >= TARGET
    assert 1 <= result.best.cost / runner.optimum() < 1.3
    assert result.best.policy.arm == ("subset" if bonus > 0 else "full")
    assert result.best.cost == pytest.approx(result.best.policy.passes / REFERENCE_PASSES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_noise_costs_something_but_finds_are_feasible_to_a_fraction_of_it(seed: int) -> None:
    runner = Smooth(0.05, noise=0.003)
    result = run(runner, trials=40, seed=seed)
    assert result.best is not None
    assert runner.true(result.best.policy) >= TARGET - 0.003
    assert result.best.cost / runner.optimum() < 2
    assert result.best.num_seeds >= 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
@pytest.mark.parametrize(("below", "num_seeds"), [(0.0005, 4), (0.003, 4), (0.1, 1)])  # 0.1: no luck is that good
def test_nothing_feasible_is_answered_by_none_however_lucky_a_seed_was(
    sampler: str, below: float, num_seeds: int
) -> None:
    def flat(policy: Policy, seed: int) -> float:
        return TARGET - below + 0.002 * float(np.random.default_rng(seed).standard_normal())

    found = [run(flat, trials=60, seed=seed, sampler=sampler).best for seed in range(num_seeds)]
    assert sum(best is not None for best in found) <= (2 if below == 0.0005 else 0)


def test_everything_feasible_ends_at_the_least_budget() -> None:
    result = run(lambda policy, seed: 1.0)
    assert result.best is not None
    assert result.best.cost == pytest.approx(0.02)
    assert result.counts.finished <= 30


def test_a_constant_exactly_at_the_target_is_feasible() -> None:
    result = run(lambda policy, seed: TARGET)
    assert result.best is not None


def test_a_step_at_the_switch() -> None:
    def step(policy: Policy, seed: int) -> float:
        return 1.0 if policy.phases[0].passes >= 4 and len(policy.phases) == 2 else 0.5

    result = run(step, trials=60)
    assert result.best is not None
    assert result.best.policy.phases[0].passes >= 4
    assert result.best.cost < 0.25  # the optimum is 4 passes / 0.9 / 30 = 0.148


def test_raising_and_nan_are_recorded_and_never_win() -> None:
    def strange(policy: Policy, seed: int) -> float:
        if policy.passes < 1:
            raise RuntimeError("out of memory")
        return [math.nan, math.inf, 0.95][seed % 3]

    result = run(strange, trials=30)
    counts = result.counts
    assert counts.failed + counts.finished == len(result.trials) <= 30
    assert min(counts.diverged, counts.finished) > 0
    assert result.best is None or result.best.policy.passes >= 1
    failed = [t.outcome.message for t in result.trials if t.outcome is not None and t.outcome.cause == "failed"]
    assert len(failed) == counts.failed - counts.diverged > 0
    assert set(failed) == {"RuntimeError: out of memory"}


def test_a_runner_that_always_raises() -> None:
    def broken(policy: Policy, seed: int) -> float:
        raise ValueError("no")

    result = run(broken, trials=12)
    assert (result.best, result.counts.failed, result.compute > 0) == (None, 12, True)


def test_a_fresh_seed_for_every_run() -> None:
    runner = Smooth(0.05, noise=0.003)
    run(runner, workers=3)
    assert len(set(runner.seeds)) == len(runner.seeds) == 30


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_the_same_seed_gives_the_same_bits(workers: int, sampler: str) -> None:
    first, second = (run(Smooth(0.05, 0.003), trials=20, workers=workers, sampler=sampler) for _ in range(2))
    assert first == second
    assert run(Smooth(0.05, 0.003), trials=20, workers=workers, seed=1, sampler=sampler) != first


def test_compute_and_the_clock_are_honest() -> None:
    serial = run(Smooth(0.05), sampler="random")
    assert serial.compute == pytest.approx(math.fsum(t.cost for t in serial.trials))
    assert serial.duration == pytest.approx(serial.compute)
    parallel = run(Smooth(0.05), sampler="random", workers=4)
    assert parallel.duration < parallel.compute
    assert parallel.duration >= parallel.compute / 4


class Curved(Smooth):
    """Approaches its end in a straight line from far below, so that hopeless runs show early."""

    def curve(self, policy: Policy, seed: int, share_used: float) -> float:
        return self.true(policy) - 0.02 * (1 - share_used)


def test_a_curve_lets_hopeless_runs_be_stopped_and_pays_up_to_the_stop() -> None:
    plain = run(Smooth(0.05, 0.001), trials=60, sampler="random")
    curved = run(Curved(0.05, 0.001), trials=60, sampler="random")
    assert curved.counts.stopped > 10
    assert curved.counts.checked > 0
    assert curved.counts.false_stops == 0
    spent = math.fsum(t.cost * t.outcome.share_used for t in curved.trials if t.outcome is not None)
    assert curved.compute == pytest.approx(spent)
    assert curved.compute < plain.compute


def test_a_curve_that_raises_or_is_nan() -> None:
    class Broken(Smooth):
        def curve(self, policy: Policy, seed: int, share_used: float) -> float:
            if share_used > 0.5:
                raise RuntimeError("gone")
            return math.nan

    assert run(Broken(0.05), trials=6).counts.diverged == 6


@pytest.mark.slow
def test_thousands_of_trials_take_seconds() -> None:
    start = time.process_time()
    result = run(Smooth(0.05, 0.003), trials=3000, workers=8, sampler="random")
    assert time.process_time() - start < 60  # of the processor: others may use the machine
    assert result.counts.finished == 3000


def test_the_space_by_q_needs_the_sizes() -> None:
    space = {key: value for key, value in SPACE.items() if key != "subset_share"} | {"q": {"log": [1, 5]}}
    with pytest.raises(ConfigError, match="q needs num_examples, num_parameters and num_outputs"):
        run(Smooth(0.05), space=space)
    sizes = {"num_examples": 1000, "num_parameters": 1000, "num_outputs": 10}
    result = run(Smooth(0.05), space=space, trials=12, **sizes)
    shares = [t.point["q"] / 10 for t in result.trials if t.arm == "subset"]
    assert shares
    assert all(0.1 <= share <= 0.5 for share in shares)


def test_bad_input_is_answered_before_anything_runs() -> None:
    runner = Smooth(0.05)
    with pytest.raises(ConfigError, match=r"unknown key. Did you mean 'budget'"):
        run(runner, space=SPACE | {"budgte": 0.2})
    with pytest.raises(ConfigError, match="trials must be at least 1, got 0"):
        run(runner, trials=0)
    with pytest.raises(ConfigError, match="sampler must be one of"):
        run(runner, sampler="cma")
    assert runner.seeds == []


@pytest.mark.parametrize("sampler", ["frontier", "tpe"])
def test_a_search_ends_the_same_whatever_finishes_first(sampler: str) -> None:
    ends = [
        run(Curved(0.05, 0.003), trials=18, workers=4, sampler=sampler, jitter=1.0, shuffle=shuffle, noise=0.003)
        for shuffle in range(3)
    ]
    assert len({end.duration for end in ends}) == 3  # the durations do differ
    for end in ends[1:]:
        assert [(t.point, t.seed, t.outcome) for t in end.trials] == [
            (t.point, t.seed, t.outcome) for t in ends[0].trials
        ]
        assert (end.best, end.intervals, end.counts) == (ends[0].best, ends[0].intervals, ends[0].counts)
