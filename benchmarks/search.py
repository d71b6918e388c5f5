"""How good is the search? Against made-up tasks whose optimum is known.

    python benchmarks/search.py --quick                    one landscape, 6 seeds: seconds
    python benchmarks/search.py --seeds 20                 the table: minutes on 2 cores
    python benchmarks/search.py --against PATH             the same beside the code of another checkout
    python benchmarks/search.py --warm                     the same beside searches that know an earlier one's trials

The landscapes. Let x = ln(a / (top - metric)) be how far training has come, 0 at the start; the target is x = D. Time
is compute in references. On all data x grows at the rate r. On a subset of share s it grows at the faster rate r*g(s),
but only up to the depth L(s), for a subset teaches only so much:

    L(s) = l * s^c                     deeper for larger subsets
    1/g(s) = 1 - k * (1 - s^c)         faster for smaller ones (slower, where k < 0)

A learning rate other than the best multiplies both rates by exp(-(ln(lr/lr0)/w)^2 / 2), and the transition
`shrink_perturb` loses a tenth of x at the switch; both at their best do nothing.

The optimum. The full arm needs D/r. A subset phase of length u <= L(s)/(r g(s)) is always worth prolonging up to that
limit, since g > 1. Then the rest, D - L(s), takes (D - L(s))/r, and the cost is

    b(s) = L(s)/(r g(s)) + (D - L(s))/r = [D - L(s) * (1 - 1/g(s))]/r = [D - l k y (1 - y)]/r,   y = s^c,

least at y = 1/2: s* = 2^(-1/c), b* = (D - l k/4)/r, switch* = L(s*)/(r g(s*) b*) = (l/2)(1 - k/2)/(r b*). This holds
while L(s*) = l/2 <= D. `tests/study/search/test_landscapes.py` compares every optimum with a grid.

    halves       k = 0.98, l = 7.4: the subset saves 45 % of the best shorter schedule
    rate         k = 0: subsets are as good as all data until they are exhausted; only the rate matters
    selector     ten selectors, one of which has k = 0.8, l = 6 and the others k = 0 (a subset saves 30 %)
    never        k = -0.4: every subset is slower
    diverging    the best rate is where one run in ten and more is lost, so the mean is best at a lower one; noise
                 grows as 1/sqrt(budget)
    flat         no D: the metric follows a power law so flat that one run's noise is worth 0.8 in log budget
    drift        the best rate falls with the budget to the power 0.4, by a factor 2.2 from 0.04 to 0.3

Constants of the search were chosen on `halves`, `rate`, `never` and `diverging` alone; `selector`, `flat` and `drift`
were held out. Noise is 0.003 but in `flat` (0.006). The recipe's rate is 0.06 where the best is 0.1.

With `--warm` each search is made again, told the trials of an earlier search with another seed and reference: of a
*sibling*, the same landscape with the best rate e^0.3 times as high and all training 10 % slower, or of *another*
landscape (`OTHERS`), where what is true here mostly is not. The compute of the earlier search is not counted.

Reported over seeds: cost of the policy found over that of the optimum, both free of noise (median and quartiles of the
searches that found one); the share that found none; the share that misses the target by more than half the tolerance;
compute in references and trials spent (medians); the share that hands on no subset policy first, where one wins; how
often the interval stated for the least cost of the winning arm holds it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from subsettune.policy import Policy
from subsettune.study.search.earlier import point_within
from subsettune.study.search.simulate import SimulationSettings, simulate
from subsettune.study.spec.samplers import SAMPLERS, Sampler
from subsettune.study.spec.space import Space

REFERENCE_PASSES = 30.0
TOP, TARGET = 0.98, 0.97
D = 4.0  # how far training has come at the target
AMPLITUDE = (TOP - TARGET) * math.exp(D)
RATE = 10.0  # r, a reference
BEST_LR, RECIPE_LR = 0.1, 0.06
NUM_REFERENCES = 5  # runs from which the search is told the reference's metric and spread
SPACE: dict[str, Any] = {
    "budget": {"log": [0.02, 0.9]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.05, 0.95]},
    "subset_share": {"log": [0.02, 0.5]},
    "selector": {"choice": ["random", "stratified", "kcenter"]},
    "transition": {"choice": ["keep", "reset_optimizer", "shrink_perturb"]},
    "lr": {"log": [0.02, 0.5]},
}
TEN = ["random", "stratified", "kcenter", "herding", "facility_location", "el2n", "grand", "gradmatch", "glister"]
TEN += ["forgetting"]


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A made-up task: the two-stage model above plus noise. A runner of `simulate`.

    Args:
        name: as in the table.
        is_held_out: whether no constant of the search was chosen on it.
        depth: l.
        speed: k, of the good selectors.
        exponent: c.
        good: the selectors that have this speed; the others have 0. Empty: all of them.
        width: w.
        best_lr: lr0, at a budget of 0.3.
        drift: the best rate goes with the budget to the power of minus this.
        noise: standard deviation of a run's metric at a budget of 0.4.
        noise_growth: it goes with the budget to the power of minus this.
        is_diverging: whether runs are lost at high rates.
        slowness: by which every budget needed is multiplied.
    """

    name: str
    is_held_out: bool = False
    depth: float = 6.0
    speed: float = 0.8
    exponent: float = 0.3
    good: tuple[str, ...] = ()
    width: float = 0.7
    best_lr: float = BEST_LR
    drift: float = 0.0
    noise: float = 0.003
    noise_growth: float = 0.0
    is_diverging: bool = False
    slowness: float = 1.0

    @property
    def space(self) -> dict[str, Any]:
        """What is searched."""
        return SPACE | ({"selector": {"choice": TEN}} if self.good else {})

    def rate(self, policy: Policy) -> float:
        """Of x on all data, per pass."""
        lr = policy.recipe.get("lr", RECIPE_LR)
        best: float = self.best_lr * (policy.passes / REFERENCE_PASSES / 0.3) ** -self.drift
        rate = RATE / self.slowness / REFERENCE_PASSES
        return rate * math.exp(-(math.log(lr / best) ** 2) / (2 * self.width**2))

    def progress(self, policy: Policy) -> float:
        """x at the end of a policy."""
        rate, x = self.rate(policy), 0.0
        for phase in policy.phases:
            if phase.transition == "shrink_perturb":
                x *= 0.9
            y = phase.share**self.exponent
            speed = self.speed if not self.good or phase.selector in self.good else 0.0
            if phase.is_full:
                x += rate * phase.passes
            else:
                x = max(x, min(self.depth * y, x + rate / (1 - speed * (1 - y)) * phase.passes))
        return x

    def loss(self, policy: Policy) -> tuple[float, float]:
        """How likely a run is to go wrong at a policy's rate, and what it then loses."""
        if not self.is_diverging:
            return 0.0, 0.0
        lr = policy.recipe.get("lr", RECIPE_LR)
        return 0.4 * min(1.0, max(0.0, math.log(lr / 0.12) / math.log(0.5 / 0.12))), 0.2

    def ideal(self, policy: Policy) -> float:
        """The metric of a run that does not go wrong, without noise."""
        return TOP - AMPLITUDE * math.exp(-self.progress(policy))

    def true(self, policy: Policy) -> float:
        """The mean metric over seeds."""
        chance, lost = self.loss(policy)
        return self.ideal(policy) - chance * lost

    def __call__(self, policy: Policy, seed: int) -> float:
        rng = np.random.default_rng(seed)
        chance, lost = self.loss(policy)
        sd = self.noise * math.pow(policy.passes / REFERENCE_PASSES / 0.4, -self.noise_growth)
        return self.ideal(policy) + sd * float(rng.standard_normal()) - lost * float(rng.random() < chance)

    @property
    def tolerance(self) -> float:
        """The reference's mean metric over the target."""
        return TOP - AMPLITUDE * math.exp(-RATE / self.slowness) - TARGET

    def optima(self) -> dict[str, float]:
        """The least cost at which a policy of each arm reaches the target on average; at a slowness of 1."""
        saved = self.depth * self.speed / 4 if self.speed > 0 else 0.0
        if not self.is_diverging:
            return {"full": D / RATE, "subset": (D - saved) / RATE}
        costs = []
        for lr in np.geomspace(0.02, 0.5, 4001):
            chance = 0.4 * min(1.0, max(0.0, math.log(lr / 0.12) / math.log(0.5 / 0.12)))
            left = TOP - TARGET - 0.2 * chance
            if left > 0:
                slower = math.exp(-((math.log(lr / self.best_lr) / self.width) ** 2) / 2)
                costs.append((math.log(AMPLITUDE / left) / (RATE * slower), saved / (RATE * slower)))
        return {"full": min(full for full, _ in costs), "subset": min(full - less for full, less in costs)}


@dataclass(frozen=True, kw_only=True)
class Flat(Landscape):
    """The metric is target + h (1 - (b/b0)^-p): its slope in log budget at the target, p*h, is about one run's noise.

    A rate other than the best divides b as above; a subset multiplies it by up to e^0.3, at a share of 0.1 and a switch
    of 0.6.
    """

    headroom: float = 0.015
    power: float = 0.5
    needed: float = 0.3

    def ideal(self, policy: Policy) -> float:
        """The metric of a run without noise."""
        worth = math.log(policy.passes / REFERENCE_PASSES / (self.needed * self.slowness))
        lr = policy.recipe.get("lr", RECIPE_LR)
        worth -= (math.log(lr / self.best_lr) / self.width) ** 2 / 2
        first = policy.phases[0]
        if not first.is_full:
            off = (math.log(first.share / 0.1) / 1.0) ** 2 + ((first.passes / policy.passes - 0.6) / 0.25) ** 2
            worth += 0.3 - 0.2 * off - 0.1 * (policy.phases[-1].transition == "shrink_perturb")
        return TARGET + self.headroom * (1 - math.exp(-self.power * worth))

    @property
    def tolerance(self) -> float:
        """The reference's mean metric over the target, at the best rate."""
        return float(self.headroom * (1 - (self.needed * self.slowness) ** self.power))

    def optima(self) -> dict[str, float]:
        """See `Landscape.optima`."""
        return {"full": self.needed, "subset": self.needed * math.exp(-0.3)}


LANDSCAPES = {
    landscape.name: landscape
    for landscape in (
        Landscape(name="halves", depth=7.4, speed=0.98),
        Landscape(name="rate", speed=0.0),
        Landscape(name="never", speed=-0.4),
        Landscape(name="diverging", best_lr=0.3, width=1.2, noise_growth=0.5, is_diverging=True),
        Landscape(name="selector", is_held_out=True, good=("grand",)),
        Flat(name="flat", is_held_out=True, noise=0.006),
        Landscape(name="drift", is_held_out=True, drift=0.4),
    )
}
OTHERS = {
    "halves": "never",
    "rate": "diverging",
    "never": "halves",
    "diverging": "drift",
    "selector": "halves",
    "flat": "never",
    "drift": "diverging",
}
COLD, SIBLING, OTHER = "", "sibling", "another"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One search: of which landscape, how, with which seed, and which earlier search it is told of."""

    landscape: str
    sampler: Sampler
    trials: int
    workers: int
    seed: int
    told: str = COLD


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one search came to.

    Args:
        ratio: cost over the optimum's; NaN if none was found.
        short: by how much it misses the target, free of noise.
        is_missed: whether no subset policy comes first although one wins.
        is_held: whether the interval for the winning arm holds its least cost; None if none was stated.
        compute: in references.
        trials: that were run.
        duration: virtual time, in references.
        ask_s: seconds of processor a trial.
    """

    ratio: float
    short: float
    is_missed: bool
    is_held: bool | None
    compute: float
    trials: int
    duration: float
    ask_s: float


def settings_of(case: Case, landscape: Landscape | None = None) -> SimulationSettings:
    """How a case is searched. What the search is told of the reference is drawn as a study would measure it."""
    landscape = landscape or LANDSCAPES[case.landscape]
    rng = np.random.default_rng([7, case.seed])
    draws = landscape.noise * rng.standard_normal(NUM_REFERENCES)
    told: dict[str, Any] = {
        "noise": float(draws.std(ddof=1)),
        "recipe": {"lr": RECIPE_LR},
        "reference": TARGET + landscape.tolerance + float(draws.mean()),
    }
    known = {key: value for key, value in told.items() if key in SimulationSettings.__dataclass_fields__}
    return SimulationSettings(
        trials=case.trials,
        workers=case.workers,
        seed=case.seed,
        reference_passes=REFERENCE_PASSES,
        target=TARGET,
        sampler=case.sampler,
        **known,
    )


def earlier(case: Case) -> list[Any]:
    """What a case is told of an earlier search: none, where it is told of none."""
    if case.told == COLD:
        return []
    own = LANDSCAPES[case.landscape]
    moved = replace(own, best_lr=own.best_lr * math.exp(0.3), slowness=1.1)
    landscape = moved if case.told == SIBLING else LANDSCAPES[OTHERS[case.landscape]]
    before = replace(case, seed=1000 + case.seed, told=COLD)
    settings = settings_of(before, landscape)
    told = simulate(landscape.space, landscape, settings).told(settings)
    space = Space.from_mapping(own.space)
    return [replace(told, trials=tuple(t for t in told.trials if point_within(space, t.point) is not None))]


def search(case: Case) -> Found:
    """Run one search."""
    landscape, known = LANDSCAPES[case.landscape], earlier(case)
    start = time.process_time()
    result = simulate(landscape.space, landscape, settings_of(case), *([known] if known else []))
    ask_s = (time.process_time() - start) / len(result.trials)
    optima, best = landscape.optima(), result.best
    winner = min(optima, key=lambda arm: optima[arm])
    stated = getattr(result, "intervals", {}).get(winner)
    return Found(
        ratio=best.cost / optima[winner] if best is not None else math.nan,
        short=TARGET - landscape.true(best.policy) if best is not None else math.nan,
        is_missed=winner == "subset" and (best is None or best.policy.arm != "subset"),
        is_held=None if stated is None else stated[0] <= optima[winner] <= stated[1],
        compute=result.compute,
        trials=len(result.trials),
        duration=result.duration,
        ask_s=ask_s,
    )


def row(name: str, landscape: Landscape, found: list[Found]) -> str:
    """One line of the table."""
    ratios = np.array([f.ratio for f in found if not math.isnan(f.ratio)])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]) if len(ratios) else (math.nan,) * 3
    optima = landscape.optima()
    wins = optima["subset"] < optima["full"]
    held = [f.is_held for f in found if f.is_held is not None]
    cells = [
        name,
        landscape.name + (" (held out)" if landscape.is_held_out else ""),
        f"{middle:.2f} [{low:.2f}, {high:.2f}]",
        f"{np.mean([math.isnan(f.ratio) for f in found]):.2f}",
        f"{np.mean([f.short > landscape.tolerance / 2 for f in found]):.2f}",
        f"{np.mean([f.is_missed for f in found]):.2f}" if wins else "-",
        f"{np.median([f.compute for f in found]):.1f}",
        f"{np.median([f.trials for f in found]):.0f}",
        f"{np.median([f.duration for f in found]):.1f}",
        f"{np.mean(held):.2f}" if held else "-",
        f"{1000 * np.median([f.ask_s for f in found]):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| search | landscape | cost / optimum | none | short by half the tolerance | win missed | references | trials "
    "| duration | interval holds | ms a trial |"
)


def run_here(cases: list[Case], processes: int) -> list[Found]:
    """Searches with the code of this checkout."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(search, cases))


def run_there(path: Path, cases: list[Case], processes: int) -> list[Found]:
    """Searches with the code of another checkout, on the landscapes of this file."""
    said = subprocess.run(
        [sys.executable, __file__, "--cases", "--processes", str(processes)],
        input=json.dumps([asdict(case) for case in cases]),
        env={**os.environ, "PYTHONPATH": str(path.resolve())},
        capture_output=True,
        text=True,
        check=True,
    )
    return [Found(**found) for found in json.loads(said.stdout)]


def answer_cases(processes: int) -> None:
    """Run the cases on standard input: what `run_there` asks of another checkout."""
    cases = [Case(**raw) for raw in json.load(sys.stdin)]
    json.dump([asdict(found) for found in run_here(cases, processes)], sys.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Quality of the search on landscapes with a known optimum.")
    parser.add_argument("--quick", action="store_true", help="the first landscape, 6 seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=["frontier"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1, help="virtual workers of each search")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--warm", action="store_true", help="beside them, searches that are told of an earlier one")
    parser.add_argument("--cases", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cases:
        answer_cases(args.processes)
        return
    if args.quick:
        args.seeds, args.landscapes = min(args.seeds, 6), args.landscapes[:1]
    runs: dict[str, Callable[[list[Case]], list[Found]]] = {}
    if args.against is not None:
        runs["there, "] = lambda cases: run_there(args.against, cases, args.processes)
    runs["here, " if runs else ""] = lambda cases: run_here(cases, args.processes)
    print(f"{args.seeds} seeds, at most {args.trials} trials, {args.workers} workers.\n\n{HEADER}")
    print("|---" * HEADER.count(" | ") + "|---|")
    for name in args.landscapes:
        for sampler in args.samplers:
            cases = [
                Case(landscape=name, sampler=sampler, trials=args.trials, workers=args.workers, seed=seed)
                for seed in range(args.first_seed, args.first_seed + args.seeds)
            ]
            for prefix, run in runs.items():
                print(row(prefix + sampler, LANDSCAPES[name], run(cases)), flush=True)
            for told in (SIBLING, OTHER) if args.warm else ():
                warm = run_here([replace(case, told=told) for case in cases], args.processes)
                source = told if told == SIBLING else OTHERS[name]
                print(row(f"{sampler}, told of {source}", LANDSCAPES[name], warm), flush=True)


if __name__ == "__main__":
    main()
