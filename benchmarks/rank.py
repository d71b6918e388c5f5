"""For how little compute can recipes be ranked, and do subsets rank better for their cost than shorter schedules?

Recipes are drawn at random: rate, momentum, weight decay, batch size, label smoothing, width and dropout. Each is
trained in full, and for shares of that compute in several cheap ways; each way ranks them by validation accuracy, as a
search does that trains each recipe once. A ranking is held against the *target*: test accuracy of full trainings, mean
over seeds.

    python benchmarks/rank.py                                  digits, 100 recipes; nothing to download
    python benchmarks/rank.py --source mnist --data-root DIR   MNIST, 24 recipes, 6,000 training examples
    python benchmarks/rank.py --calibrate 400                  how often a way is called where all are alike

The same command goes on where it was interrupted, and adds what more seeds or recipes ask for.

What is compared. `shorter schedule` trains on all data. At a cost of c, the others train on a subset of the share
sqrt(c) for all of it, or for 80 % of it with all data after that; `all epochs` is a subset of the share c. What
selection costs is in the policy's cost, and each recipe pays it, though with one seed all have the same subset;
`stratified` pays nothing. `full training, looked at early` is its learning curve at that cost, as successive halving
sees it: the rate is still high. Two placebos do nothing: the shorter schedule and the random subset once more, with
other seeds. What is spent is the ledger's, over the conventional cost of the same recipes, evaluation apart: policies
end before they would exceed their cost, a look comes with the first update that reaches it, which is somewhat more.

Ranks. Kendall's tau-b of each ranking with the target, mean over seeds; 0 where all are tied. A run that diverged has
the accuracy of a guess. The `ceiling` is the tau of one more full training. It is below 1 by noise: of one run, of the
validation examples, of the target. The cheap ways have the same, so that they are held against the ceiling and not
against 1. It is what full training gives, and no bound: a cheap way may spread recipes farther apart than their noise.

- the target is one for all, and its seeds are none of the rankings'; the ceiling and all ways but placebos have the
  same seeds. Were the ceiling's runs in the target, or those of a way, tau would be too high by what they share;
- rankings see validation examples and the target test examples: the luck of common ones would raise all taus;
- noise of the target makes taus smaller (attenuation), all by nearly the same factor, and differences with them. It
  hides differences, and makes none: a way cannot follow noise that it has never seen;
- tau of a mean over several runs would be higher. It would cost several runs.

Intervals are 95 %, of bootstrap samples of recipes and of seeds: how much another draw from the same space would move
the number (`rank_parts/statistics.py`). They hold for these data and this split. A mean over rankings has little of the
noise of one run left; a user gets one.

Many comparisons. Each way is held against the shorter schedule, and what is chosen against the random subset, at each
cost: paired differences of tau, whose intervals hold all together (max-t bootstrap). A way ranks better for its cost
where its interval lies above 0; the placebos are in the family. So where no way differs, one or more is called better
or worse in 5 % of such experiments: in made-up ones (`--calibrate`) in 11 of 200 with 100 recipes and 8 rankings, and
in none of 400 with 24 recipes and 2 rankings. There the bootstrap overstates the noise of so few seeds, and differences
have to be large to be shown. All else in the tables stands alone.

The regret is the target's best less the target of the recipe that a way ranks first, or of the best of its first five
(who trains these in full finds it). The best of a noisy target is too good by some luck, for all ways alike. The regret
of a sample hangs on the few best recipes: its interval is where another draw of recipes would put it, and no way is
called better by it. `better half` is tau among the half of the recipes with the better target; halves are not drawn
again in bootstrap samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Job, Outcome, carry_out_all, figure, page
from rank_parts import statistics
from rank_parts.recipes import (
    BENCHES,
    COMPARISONS,
    FULL,
    LOOK,
    MNIST_FILE,
    PLACEBOS,
    SHORTER,
    WAYS,
    Bench,
    draw_recipe,
    write_mnist,
)
from rank_parts.statistics import Estimate, Floats, Resamples
from studies_parts.words import share

from subsettune import train
from subsettune.data import DataPaths
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import conventional
from subsettune.report.render import Column, Table, render
from subsettune.task import Task

Arm = tuple[str, float]  # a way, and the share of the conventional compute that it has
RANKING_SEED, PLACEBO_SEED = 1000, 2000  # first of each; the target's begin at 0
FIRST = 5


# --- what is run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for: see `main`."""

    bench: Bench
    recipes: int
    target_seeds: int
    seeds: int
    samples: int
    jobs: int
    out: Path
    places: DataPaths


def validation(_job: Job, result: train.RunResult) -> dict[str, float]:
    """What a ranking sees; of a run that diverged nothing."""
    return {"validation": result.metrics["validation"]} if result.metrics else {}


def validation_early(job: Job, result: train.RunResult) -> dict[str, float]:
    """The same, and the learning curve by share of the compute, with the FLOPs spent until then."""
    curve = {look(p.share): p.metric for p in result.curve if p.metric is not None}
    spent = {f"spent {look(p.share)}": float(p.flops) for p in result.curve}
    return {**validation(job, result), **curve, **spent}


def look(cost: float) -> str:
    """Name of a point of a learning curve."""
    return f"at {cost:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Trainings of all recipes.

    Args:
        facts: of each recipe's task.
        target: by recipe and seed.
        arms: of each way at each cost, likewise; `(FULL, 1)` is the ceiling.
        refused: why a way cannot be tried at a cost.
    """

    facts: list[TaskFacts]
    target: list[list[Job]]
    arms: dict[Arm, list[list[Job]]]
    refused: dict[Arm, str]


def make_plan(options: Options) -> Plan:
    tasks = [draw_recipe(options.bench, number) for number in range(options.recipes)]
    facts = [train.facts(task, options.places) for task in tasks]
    tested = run_options(options, 1, ("test",))
    seen = run_options(options, options.bench.evaluations)
    seeds = [RANKING_SEED + i for i in range(options.seeds)]

    def in_full(where: train.RunOptions, seeds: Sequence[int], measure: Any) -> list[list[Job]]:
        return [
            [_job(FULL, task, conventional(fact), seed, where, measure) for seed in seeds]
            for task, fact in zip(tasks, facts, strict=True)
        ]

    arms = {(FULL, 1.0): in_full(seen, seeds, validation_early)}
    refused = {}
    for arm in ((name, cost) for cost in options.bench.costs for name in WAYS):
        try:
            arms[arm] = arm_jobs(arm, tasks, facts, options)
        except ConfigError as error:
            refused[arm] = str(error)
    target = in_full(tested, range(options.target_seeds), None)
    return Plan(facts=facts, target=target, arms=arms, refused=refused)


def run_options(options: Options, evaluations: int, splits: tuple[str, ...] = ("validation",)) -> train.RunOptions:
    return train.RunOptions(splits=splits, evaluations=evaluations, device="cpu", num_threads=1, places=options.places)


def arm_jobs(arm: Arm, tasks: Sequence[Task], facts: Sequence[TaskFacts], options: Options) -> list[list[Job]]:
    """By recipe and seed.

    Raises:
        ConfigError: some recipe cannot be trained in this way at this cost.
    """
    name, cost = arm
    first = PLACEBO_SEED if name in PLACEBOS else RANKING_SEED
    where = run_options(options, 1)
    rows = []
    for task, fact in zip(tasks, facts, strict=True):
        policy = WAYS[name].policy(cost, fact)
        train.check(task, policy, fact)
        seeds = range(first, first + options.seeds)
        rows.append([_job(f"{name}, {cost:.3f}", task, policy, seed, where, validation) for seed in seeds])
    return rows


# More than six parameters: a run is named by all of them.
def _job(name: str, task: Task, policy: Any, seed: int, where: train.RunOptions, measure: Any) -> Job:
    return Job(name=name, task=task, policy=policy, seed=seed, options=where, measure=measure)


# --- what it says -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Accuracies.

    Args:
        target: (R,) test accuracy in full, mean over seeds.
        rankings: (S, R) validation accuracy, of each way at each cost.
        spent: of each, FLOPs over those of the conventional trainings; and of choosing over those spent.
    """

    target: Floats
    rankings: dict[Arm, Floats]
    spent: dict[Arm, tuple[float, float]]


def measured(plan: Plan, outcomes: Mapping[str, Outcome], costs: Sequence[float]) -> Measured:
    """Put the outcomes in their places; a run that diverged has the accuracy of a guess."""
    chance = 1 / plan.facts[0].num_classes
    found = {arm: [[outcomes[job.key] for job in row] for row in rows] for arm, rows in plan.arms.items()}
    full = found[FULL, 1.0]
    conventional_flops = sum(fact.reference_flops for fact in plan.facts) * len(full[0])
    rankings = {arm: _values(rows, "validation", chance) for arm, rows in found.items()}
    spent = {}
    for arm, rows in found.items():
        runs = [outcome for row in rows for outcome in row]
        flops = sum(run.spent_flops for run in runs)
        spent[arm] = flops / conventional_flops, sum(run.select_flops for run in runs) / flops
    for cost in costs:
        rankings[LOOK, cost] = _values(full, look(cost), chance)
        early = sum(run.measured.get(f"spent {look(cost)}", 0.0) for row in full for run in row)
        spent[LOOK, cost] = early / conventional_flops, 0.0
    tested = [[outcomes[job.key].metric for job in row] for row in plan.target]
    target = np.array([[chance if metric is None else metric for metric in row] for row in tested]).mean(1)
    return Measured(target=target, rankings=rankings, spent=spent)


def _values(rows: Sequence[Sequence[Outcome]], name: str, chance: float) -> Floats:
    """(S, R) of what was measured by recipe and seed."""
    return np.array([[run.measured.get(name, chance) for run in row] for row in rows]).T


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A way at a cost: see the docstring of the module."""

    tau: Estimate
    of_ceiling: Estimate
    better_half: Estimate
    regret: Estimate
    regret_of_five: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of each way at each cost, and paired differences of tau: (way, cost, held against)."""

    ways: dict[Arm, Finding]
    differences: dict[tuple[str, float, str], Estimate]


def findings(given: Measured, costs: Sequence[float], num_samples: int) -> Findings:
    num_seeds, num_recipes = given.rankings[FULL, 1.0].shape
    drawn = Resamples.draw(num_recipes, num_seeds, num_samples)
    seen = Resamples.observed(num_recipes, num_seeds)
    half = (given.target >= np.median(given.target)).astype(float)

    def estimate(measure: Any, rows: Floats, *more: Any) -> Estimate:
        observed = float(measure(rows, given.target, seen, *more).mean())
        return Estimate.of(observed, measure(rows, given.target, drawn, *more))

    taus = {
        arm: tuple(statistics.mean_tau(rows, given.target, where) for where in (seen, drawn))
        for arm, rows in given.rankings.items()
    }
    ways = {
        arm: Finding(
            tau=Estimate.of(float(taus[arm][0][0]), taus[arm][1]),
            of_ceiling=Estimate.ratio(taus[arm], taus[FULL, 1.0]),
            better_half=estimate(statistics.mean_tau, rows, half),
            regret=estimate(statistics.mean_regret, rows),
            regret_of_five=estimate(statistics.mean_regret, rows, FIRST),
        )
        for arm, rows in given.rankings.items()
    }
    return Findings(ways=ways, differences=differences(taus, costs))


def differences(
    taus: Mapping[Arm, tuple[Floats, ...]], costs: Sequence[float]
) -> dict[tuple[str, float, str], Estimate]:
    """All that is compared, with intervals that hold together; `taus` are those observed and those of the samples."""
    pairs = [(a, c, b) for c in costs for a, b in COMPARISONS if {(a, c), (b, c)} <= taus.keys()]
    observed, drawn = ([taus[a, c][i] - taus[b, c][i] for a, c, b in pairs] for i in (0, 1))
    found = statistics.together(np.array([values[0] for values in observed]), np.stack(drawn, axis=1))
    return dict(zip(pairs, found, strict=True))


def way_table(found: Findings, given: Measured) -> Table:
    titles = ("ranked by", "spent", "choosing", "tau-b", "of the ceiling", "better half", "regret", "of the best of 5")
    rows = [
        (
            arm[0],
            f"{100 * given.spent[arm][0]:.2f} %",
            f"{100 * given.spent[arm][1]:.1f} %",
            finding.tau.words(),
            finding.of_ceiling.words(),
            finding.better_half.words(),
            finding.regret.words(4),
            finding.regret_of_five.words(4),
        )
        for arm, finding in sorted(found.ways.items(), key=lambda item: (item[0][1], -item[1].tau.value))
    ]
    columns = tuple(Column(title=t, align="left" if t == "ranked by" else "right") for t in titles)
    return Table(columns=columns, rows=tuple(rows), title="Rankings, against the target; best first for each cost")


CALLED = {1: "ranks better", 0: "no difference shown", -1: "ranks worse"}


def difference_table(found: Findings) -> Table:
    titles = ("cost", "way", "held against", "difference of tau-b", "verdict")
    rows = [
        (f"{cost:.3f}", name + (" (placebo)" if PLACEBOS.get(name) == other else ""), other, d.words(3), CALLED[d.sign])
        for (name, cost, other), d in found.differences.items()
    ]
    columns = tuple(Column(title=t, align="right" if "tau" in t or t == "cost" else "left") for t in titles)
    title = f"Paired differences; the {len(rows)} intervals hold together with 95 %"
    return Table(columns=columns, rows=tuple(rows), title=title)


def verdict(found: Findings, costs: Sequence[float]) -> str:
    """What the intervals show, in words."""
    real = {key: d for key, d in found.differences.items() if PLACEBOS.get(key[0]) != key[2]}
    called = [key for key, d in found.differences.items() if key not in real and d.sign]
    lines = []
    for cost in costs:
        finding = found.ways[SHORTER, cost]
        lines.append(
            f"A cost of {cost:.3f}: shorter schedules rank with tau {finding.tau.words()}, "
            f"{finding.of_ceiling.words()} of the ceiling. "
            f"{_listed('Better for its cost', real, cost, 1)} {_listed('Worse', real, cost, -1)}"
        )
    placebo = f"called: {', '.join(map(str, called))}" if called else "none is called better or worse"
    return "\n".join([*lines, f"Placebos: {placebo}."])


def _listed(what: str, differences: Mapping[tuple[str, float, str], Estimate], cost: float, sign: int) -> str:
    names = [f"{a} than {b}" for (a, c, b), d in differences.items() if c == cost and d.sign == sign]
    return f"{what}: {'; '.join(names) if names else 'none is shown to be'}."


def picture(found: Findings) -> dict[str, Any]:
    data = []
    for name in (*WAYS, LOOK, FULL):
        costs = sorted(cost for way, cost in found.ways if way == name)
        taus = [found.ways[name, cost].tau for cost in costs]
        high, low = ([abs(getattr(tau, end) - tau.value) for tau in taus] for end in ("high", "low"))
        error = {"type": "data", "array": high, "arrayminus": low, "thickness": 1}
        trace = {"type": "scatter", "mode": "lines+markers", "name": name, "error_y": error}
        data.append({**trace, "x": costs, "y": [tau.value for tau in taus]})
    x = {"title": "cost of a recipe, as a share of its full training", "type": "log"}
    return figure("Rankings of recipes, against full trainings", x, {"title": "Kendall's tau-b"}, data)


def heading(options: Options, given: Measured, facts: TaskFacts) -> str:
    target = np.sort(given.target)[::-1]
    return (
        f"{options.recipes} recipes, {facts.num_examples:,} training examples, {facts.reference_passes:g} passes in "
        f"full. Target: test accuracy, mean of {options.target_seeds} full trainings: best {target[0]:.4f}, fifth "
        f"{target[min(4, len(target) - 1)]:.4f}, median {np.median(target):.4f}, worst {target[-1]:.4f}; a recipe "
        f"drawn blindly has a regret of {target[0] - target.mean():.4f}."
    )


def report(options: Options) -> str:
    plan, costs = make_plan(options), options.bench.costs
    jobs = [job for rows in (plan.target, *plan.arms.values()) for row in rows for job in row]
    outcomes = carry_out_all(jobs, options.out / "runs.jsonl", options.jobs)
    given = measured(plan, outcomes, costs)
    found = findings(given, costs, options.samples)
    refused = [f"{name} was not tried at a cost of {cost:.3f}: {why}" for (name, cost), why in plan.refused.items()]
    diverged = sum(outcomes[job.key].cause != "finished" for job in jobs)
    note = (
        f"n = {options.recipes} recipes, {options.seeds} rankings of each way; {len(jobs):,} runs, {diverged:,} of "
        f"them diverged; {options.samples:,} bootstrap samples; one thread on cpu, torch {torch.__version__}"
    )
    tables = way_table(found, given), difference_table(found)
    text = render([heading(options, given, plan.facts[0]), *tables, *refused, verdict(found, costs), note], width=190)
    (options.out / "report.txt").write_text(text)
    (options.out / "report.html").write_text(page("Ranking recipes", [picture(found)], text))
    return text


def calibrate(repeats: int, bench: Bench) -> str:
    """How often some way is called where all are alike."""
    rng = np.random.default_rng(0)
    called = sum(statistics.is_called(bench.recipes, bench.seeds, rng) for _ in range(repeats))
    told = f"{bench.recipes} recipes, {bench.seeds} rankings, 9 ways alike"
    return f"{told}: one or more is called in {share(called, repeats)}"


def read_options(given: argparse.Namespace) -> Options:
    bench = BENCHES[given.source]
    places = DataPaths()
    if given.source == "mnist":
        write_mnist(Path(given.data_root) / "MNIST" / "raw", given.out / "data" / MNIST_FILE)
        places = DataPaths(data_root=str(given.out / "data"))
    numbers = {name: getattr(given, name) or getattr(bench, name) for name in ("recipes", "target_seeds", "seeds")}
    return Options(bench=bench, samples=given.samples, jobs=given.jobs, out=given.out, places=places, **numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=tuple(BENCHES), default="digits")
    parser.add_argument("--data-root", help="torchvision's root of MNIST")
    parser.add_argument("--recipes", type=int, help="default: 100 on digits, 24 on MNIST")
    parser.add_argument("--target-seeds", type=int, help="full trainings of the target; default: 10, 2")
    parser.add_argument("--seeds", type=int, help="rankings of each way; default: 8, 2")
    parser.add_argument("--samples", type=int, default=4000, help="of the bootstrap")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--calibrate", type=int, metavar="N", help="made-up experiments in which all ways are alike")
    parser.add_argument("--out", type=Path, default=Path("rank"), help="folder of results and figures")
    given = parser.parse_args()
    if given.calibrate:
        print(calibrate(given.calibrate, BENCHES[given.source]))
        return
    if given.source == "mnist" and given.data_root is None:
        parser.error("--data-root is needed for MNIST.")
    print(report(read_options(given)), end="")


if __name__ == "__main__":
    main()
