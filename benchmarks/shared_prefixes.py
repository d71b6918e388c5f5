"""What `study.share_prefixes` saves a search, and how good a policy it finds: on landscapes with a known optimum.

    python benchmarks/shared_prefixes.py --quick           one landscape, 4 seeds
    python benchmarks/shared_prefixes.py --seeds 20        the table: an hour on 2 cores
    python benchmarks/shared_prefixes.py --studies 8       real studies of digits, with 8 seeds: half an hour
    python benchmarks/shared_prefixes.py --echo-of 40      the correlation of noise, on digits: minutes

The landscapes are those of `benchmarks/search.py`; the schedule keeps its peak for 80 % of the compute of each policy.
Trials whose first phase and recipe are the same then begin from one another's stems. Two such trials of one seed are
not independent: `--echo` is the correlation of their noise, of which `--echo-of` gives an example.

Reported over seeds: cost of the policy found over that of the optimum, both free of noise (median and quartiles of the
searches that found one); the share that found none; the share that misses the target by more than half the tolerance;
references spent (median; and the mean of the ratio to the same seed without sharing, with its standard error); trials.

The studies are of `search_spaces/digits.yaml` with another schedule, over its space (`ranges`), over a few values of
each coordinate (`choices`), and over budgets alone (`budgets`). Reported are references spent on trials by the ledger,
how many more they would have been alone, the cost of the policy that was verified, and its accuracy less the
reference's.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from search import LANDSCAPES, REFERENCE_PASSES, TARGET, Case, Landscape, settings_of

from subsettune import TuneOptions, tune
from subsettune.policy import Phase, Policy
from subsettune.study.search.simulate import simulate
from subsettune.study.spec.definition import parse
from subsettune.train.loop import RunOptions, run

ROOT = Path(__file__).parents[1]
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


SPACES: dict[str, dict[str, Any]] = {
    "ranges": {},
    "choices": {
        "switch": {"choice": [0.2, 0.4, 0.6, 0.8]},
        "subset_share": {"choice": [0.1, 0.2, 0.4]},
        "selector": "random",
        "lr": {"choice": [0.05, 0.1, 0.2]},
    },
    "budgets": {"arm": "full", "switch": None, "subset_share": None, "selector": None, "transition": None, "lr": None},
}


def digits(space: str, seed: int, shared: bool) -> dict[str, Any]:
    """A study of digits at a peak rate, as plain data."""
    study = YAML(typ="safe").load((ROOT / "search_spaces" / "digits.yaml").read_text())
    options = {"warmup": 0.0, "decay": 1 - STABLE}
    study["task"]["recipe"] |= {"schedule": "warmup_stable_decay", "schedule_options": options}
    merged = {**study["space"], **SPACES[space]}
    study["space"] = {name: axis for name, axis in merged.items() if axis is not None}
    study["study"] |= {"seed": seed, "parallel": 1, "share_prefixes": shared}
    return dict(study)


@dataclass(frozen=True, kw_only=True)
class Studied:
    """What a real study came to, compute in references; NaN where no policy was verified."""

    trials: int
    spent: float
    shared: float
    cost: float
    difference: float


def study(space: str, seed: int, shared: bool) -> Studied:
    """Carry out one study in this process."""
    with tempfile.TemporaryDirectory() as folder:
        options = TuneOptions(storage=folder, executor="inline", device="cpu")
        view = tune(digits(space, seed, shared), run_id="study", options=options).view
    assert view.facts is not None
    whole, best = view.facts.reference_flops, view.summary.best
    is_found = view.summary.verified and best is not None and best.metric is not None
    assert best is not None or not is_found
    return Studied(
        trials=len(view.trials),
        spent=sum(trial.study_flops for trial in view.trials) / whole,
        shared=view.summary.tuning.shared_flops / whole,
        cost=best.flops / whole if is_found and best else math.nan,
        difference=best.metric - best.reference_metric if is_found and best else math.nan,  # type: ignore[operator]
    )


def print_studies(num_seeds: int, spaces: list[str]) -> None:
    """Pairs of studies of one seed each, without and with sharing."""
    print("| space | sharing | trials | references | of plain | saved | cost of the winner | none | difference |")
    print("|---" * 9 + "|")
    for space in spaces:
        pairs = [(study(space, seed, False), study(space, seed, True)) for seed in range(num_seeds)]
        ratios = np.array([after.spent / before.spent for before, after in pairs])
        error = ratios.std(ddof=1) / math.sqrt(len(ratios))
        for name, found in zip(("no", "yes"), zip(*pairs, strict=True), strict=True):
            cells = [
                space,
                name,
                f"{np.mean([one.trials for one in found]):.1f}",
                f"{np.mean([one.spent for one in found]):.2f}",
                "1" if name == "no" else f"{ratios.mean():.2f} +- {error:.2f}",
                f"{np.mean([one.shared for one in found]):.2f}",
                f"{np.nanmean([one.cost for one in found]):.3f} (sd {np.nanstd([one.cost for one in found]):.3f})",
                f"{np.mean([math.isnan(one.cost) for one in found]):.2f}",
                f"{np.nanmean([one.difference for one in found]):+.4f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def print_echo(num_seeds: int) -> None:
    """Correlation over seeds of the accuracy of two runs that began alike, by how much longer the second is."""
    task = parse(digits("budgets", 0, True)).task
    budgets = (0.10, 0.105, 0.12, 0.15, 0.2)
    scores = [
        [
            run(task, Policy(phases=(Phase(passes=30 * budget),)), seed, options=RunOptions(num_threads=1)).metrics
            for budget in budgets
        ]
        for seed in range(num_seeds)
    ]
    values = np.array([[one["validation"] for one in row] for row in scores])
    for i, budget in enumerate(budgets[1:], start=1):
        found = np.corrcoef(values[:, 0], values[:, i])[0, 1]
        print(f"budgets {budgets[0]} and {budget}: correlation {found:.2f} over {num_seeds} seeds")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Shared prefixes on landscapes with a known optimum.")
    parser.add_argument("--quick", action="store_true", help="the first landscape, 4 seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--echo", type=float, default=0.4)
    parser.add_argument("--only", nargs="*", help="coordinates that are searched beside the budget; default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--studies", type=int, default=0, help="seeds of real studies, instead of landscapes")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES), help="of the real studies")
    parser.add_argument("--echo-of", type=int, default=0, help="seeds of real runs, instead of landscapes")
    args = parser.parse_args()
    if args.studies or args.echo_of:
        if args.echo_of:
            print_echo(args.echo_of)
        else:
            print_studies(args.studies, args.spaces)
        return
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
