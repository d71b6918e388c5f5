"""How good is the search? Against a two-stage cost model whose optimum is known in closed form.

    python benchmarks/search.py --quick        under 2 minutes on 2 cores: 40 trials, without Optuna's GP
    python benchmarks/search.py --seeds 20     everything; Optuna's GP alone takes hours (1 s and more an ask, at 80)

The model. Let x = ln(a / (top - metric)) be how far training has come, 0 at the start; the target is x = D. Time is
compute in references. On all data x grows at the rate r. On a subset of share s it grows at the faster rate r*g(s), but
only up to the depth L(s), for a subset teaches only so much:

    L(s) = l * s^c                     deeper for larger subsets
    1/g(s) = 1 - k * (1 - s^c)         faster for smaller ones

A learning rate other than the best multiplies both rates by exp(-(ln(lr/lr0)/w)^2 / 2), and the transition
`shrink_perturb` loses a tenth of x at the switch; both at their best do nothing.

The optimum. The full arm needs D/r. A subset phase of length u <= L(s)/(r g(s)) is always worth prolonging up to that
limit, since g > 1. Then the rest, D - L(s), takes (D - L(s))/r, and the cost is

    b(s) = L(s)/(r g(s)) + (D - L(s))/r = [D - L(s) * (1 - 1/g(s))]/r = [D - l k y (1 - y)]/r,   y = s^c,

least at y = 1/2: s* = 2^(-1/c), b* = (D - l k/4)/r, switch* = L(s*)/(r g(s*) b*) = (l/2)(1 - k/2)/(r b*). This holds
while L(s*) = l/2 <= D. `tests/study/test_simulate.py` compares it with a grid.

Reported per sampler, trials and noise, over seeds: cost of the policy found over b*, both noise-free; the share of
searches whose find misses the target noise-free, and of those that found nothing; compute spent. Medians, with 95 %
intervals by bootstrap over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from subsettune.policy import Policy
from subsettune.study.search.simulate import SimulationSettings, simulate
from subsettune.study.spec.samplers import SAMPLERS, Sampler

REFERENCE_PASSES = 30.0
TOP, TARGET = 0.98, 0.97
D = 4.0  # how far training has to come
AMPLITUDE = (TOP - TARGET) * math.exp(D)
RATE = 10.0  # r, a reference
DEPTH, EXPONENT, SPEED = 6.0, 0.3, 0.8  # l, c, k
BEST_LR, WIDTH = 0.1, 0.7  # lr0, w
LOST_AT_SWITCH = 0.1
SPACE: dict[str, Any] = {
    "budget": {"log": [0.02, 0.9]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.05, 0.9]},
    "subset_share": {"log": [0.02, 0.5]},
    "selector": {"choice": ["random", "stratified", "kcenter"]},
    "transition": {"choice": ["keep", "reset_optimizer", "shrink_perturb"]},
    "lr": {"log": [0.02, 0.5]},
}

BEST_SHARE = 2 ** (-1 / EXPONENT)
BEST_COST = (D - DEPTH * SPEED / 4) / RATE
BEST_SWITCH = DEPTH / 2 * (1 - SPEED / 2) / (RATE * BEST_COST)
BEST_FULL_COST = D / RATE


@dataclass(frozen=True)
class TwoStage:
    """The runner: the model above plus Gaussian noise of the metric."""

    noise: float = 0.0

    def progress(self, policy: Policy) -> float:
        """x at the end of a policy."""
        lr = policy.recipe.get("lr", BEST_LR)
        rate = RATE / REFERENCE_PASSES * math.exp(-((math.log(lr / BEST_LR) / WIDTH) ** 2) / 2)
        x = 0.0
        for phase in policy.phases:
            if phase.transition == "shrink_perturb":
                x *= 1 - LOST_AT_SWITCH
            y = phase.share**EXPONENT
            if phase.is_full:
                x += rate * phase.passes
            else:
                x = min(DEPTH * y, x + rate / (1 - SPEED * (1 - y)) * phase.passes)
        return x

    def true(self, policy: Policy) -> float:
        """The metric without noise."""
        return TOP - AMPLITUDE * math.exp(-self.progress(policy))

    def __call__(self, policy: Policy, seed: int) -> float:
        return self.true(policy) + self.noise * float(np.random.default_rng(seed).standard_normal())


@dataclass(frozen=True)
class Found:
    """What one search came to: cost over the optimum (NaN if none), whether it misses, compute, seconds an ask."""

    ratio: float
    is_infeasible: bool
    compute: float
    ask_s: float


Case = tuple[Sampler, int, float, int, int]


def search(case: Case) -> Found:
    """Run one search: sampler, trials, noise, workers, seed."""
    sampler, trials, noise, workers, seed = case
    runner = TwoStage(noise)
    start = time.perf_counter()
    settings = SimulationSettings(
        trials=trials,
        workers=workers,
        seed=seed,
        reference_passes=REFERENCE_PASSES,
        target=TARGET,
        sampler=sampler,
    )
    result = simulate(SPACE, runner, settings)
    ask_s = (time.perf_counter() - start) / trials
    if result.best is None:
        return Found(math.nan, False, result.compute, ask_s)
    return Found(result.best.cost / BEST_COST, runner.true(result.best.policy) < TARGET, result.compute, ask_s)


def interval(values: list[float]) -> str:
    """Median with a 95 % bootstrap interval."""
    kept = np.array([value for value in values if not math.isnan(value)])
    if not len(kept):
        return "-"
    draws = np.random.default_rng(0).choice(kept, size=(2000, len(kept)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return f"{np.median(kept):.2f} [{low:.2f}, {high:.2f}]"


def row(case: tuple[Sampler, int, float], found: list[Found]) -> str:
    """One line of the table."""
    sampler, trials, noise = case
    none = np.mean([math.isnan(f.ratio) for f in found])
    missed = np.mean([f.is_infeasible for f in found])
    return (
        f"| {sampler} | {trials} | {noise:g} | {interval([f.ratio for f in found])} | {missed:.2f} | {none:.2f} "
        f"| {interval([f.compute for f in found])} | {1000 * np.median([f.ask_s for f in found]):.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Quality of the search on a model with a known optimum.")
    parser.add_argument("--quick", action="store_true", help="40 trials, without Optuna's GP, 6 seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--trials", nargs="+", type=int, default=[20, 40, 80])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.003])
    parser.add_argument("--workers", type=int, default=1, help="virtual workers of each search")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.trials, args.samplers = (
            min(args.seeds, 6),
            [40],
            [name for name in args.samplers if name != "gp"],
        )
    print(f"Optimum: cost {BEST_COST:.3f} at share {BEST_SHARE:.3f}, switch {BEST_SWITCH:.3f}; ", end="")
    print(f"full arm {BEST_FULL_COST:.3f}. {args.seeds} seeds, {args.workers} workers.\n")
    print("| sampler | trials | noise | cost / optimum | infeasible | none | compute, references | ms a trial |")
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(args.processes) as pool:
        for case in itertools.product(args.samplers, args.trials, args.noise):
            cases = [(*case, args.workers, seed) for seed in range(args.seeds)]
            print(row(case, list(pool.map(search, cases))), flush=True)


if __name__ == "__main__":
    main()
