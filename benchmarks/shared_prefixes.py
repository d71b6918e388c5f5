"""What `study.share_prefixes` saves a search, and how good a policy it finds: on landscapes with a known optimum.

    python benchmarks/shared_prefixes.py --quick           one landscape, 4 seeds
    python benchmarks/shared_prefixes.py --seeds 20        the table: minutes on 2 cores

The landscapes are those of `benchmarks/search.py`; the schedule keeps its peak for 80 % of the compute of each policy.
Trials whose first phase and recipe are the same then begin from one another's stems. Two such trials of one seed are
not independent: `--echo` is the correlation of their noise (0.7 is about what `--measure` finds on digits).

Reported over seeds: cost of the policy found over that of the optimum, both free of noise (median and quartiles of the
searches that found one); the share that found none; the share that misses the target by more than half the tolerance;
references spent (median; and the mean of the ratio to the same seed without sharing, with its standard error); trials.
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from search import LANDSCAPES, REFERENCE_PASSES, TARGET, Case, Landscape, settings_of

from subsettune.policy import Policy
from subsettune.study.search.simulate import simulate

STABLE = 0.8


@dataclass(frozen=True, kw_only=True)
class Echoing:
    """A landscape whose noise is in part that of the seed, and in part that of seed and policy."""

    landscape: Landscape
    echo: float

    def __call__(self, policy: Policy, seed: int) -> float:
        land = self.landscape
        common, own = np.random.default_rng(seed), np.random.default_rng([seed, int(policy.key[:12], 16)])
        chance, lost = land.loss(policy)
        sd = land.noise * math.pow(policy.passes / REFERENCE_PASSES / 0.4, -land.noise_growth)
        parts = math.sqrt(self.echo) * common.standard_normal() + math.sqrt(1 - self.echo) * own.standard_normal()
        return land.ideal(policy) + sd * float(parts) - lost * float(common.random() < chance)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one search came to: as in `benchmarks/search.py`."""

    ratio: float
    short: float
    compute: float
    trials: int


def search(case: Case, stable: float, echo: float, only: tuple[str, ...]) -> Found:
    """Run one search, over some of the coordinates; the others are at their best."""
    landscape = LANDSCAPES[case.landscape]
    best = {"lr": landscape.best_lr, "transition": "keep", "selector": "random", "subset_share": 0.1, "switch": 0.5}
    space = {name: axis if name in (*only, "budget", "arm") else best[name] for name, axis in landscape.space.items()}
    settings = replace(settings_of(case), stable_share=stable)
    result = simulate(space, Echoing(landscape=landscape, echo=echo), settings)
    optimum, best_found = min(landscape.optima().values()), result.best
    return Found(
        ratio=math.nan if best_found is None else best_found.cost / optimum,
        short=math.nan if best_found is None else TARGET - landscape.true(best_found.policy),
        compute=result.compute,
        trials=len(result.trials),
    )


def row(name: str, tolerance: float, found: list[Found], plain: list[Found]) -> str:
    """One line of the table."""
    ratios = np.array([f.ratio for f in found if not math.isnan(f.ratio)])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]) if len(ratios) else (math.nan,) * 3
    spent = np.array([f.compute / p.compute for f, p in zip(found, plain, strict=True)])
    cells = [
        name,
        f"{middle:.2f} [{low:.2f}, {high:.2f}]",
        f"{np.mean([math.isnan(f.ratio) for f in found]):.2f}",
        f"{np.mean([f.short > tolerance / 2 for f in found]):.2f}",
        f"{np.median([f.compute for f in found]):.1f}",
        f"{spent.mean():.2f} +- {spent.std(ddof=1) / math.sqrt(len(spent)):.2f}",
        f"{np.median([f.trials for f in found]):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Shared prefixes on landscapes with a known optimum.")
    parser.add_argument("--quick", action="store_true", help="the first landscape, 4 seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--echo", type=float, default=0.7)
    parser.add_argument("--only", nargs="*", help="coordinates that are searched beside the budget; default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + (4 if args.quick else args.seeds))
    print("| landscape | cost / optimum | none | short by half the tolerance | references | of plain | trials |")
    print("|---" * 7 + "|")
    with ProcessPoolExecutor(args.processes) as pool:
        for name in args.landscapes[: 1 if args.quick else None]:
            landscape = LANDSCAPES[name]
            only = tuple(landscape.space) if args.only is None else tuple(args.only)
            case = Case(landscape=name, sampler="frontier", trials=args.trials, workers=1, seed=0)
            cases = [replace(case, seed=seed) for seed in seeds]
            plain: list[Found] = []
            for label, stable in (("", 0.0), (", shared", STABLE)):
                run = partial(search, stable=stable, echo=args.echo, only=only)
                found = list(pool.map(run, cases))
                plain = plain or found
                print(row(name + label, landscape.tolerance, found, plain), flush=True)


if __name__ == "__main__":
    main()
