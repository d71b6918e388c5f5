"""Orders against the uniform one: accuracy at equal compute, and compute to equal accuracy.

Every order trains on all data, for several shares of the conventional compute, each a run of its own with its own
learning-rate schedule; what an order spends on choosing is in its compute. Runs with one seed are paired: same initial
weights, same stream of batches. Orders that keep a part of each batch draw larger batches, so that as many examples are
trained on in an update as under the uniform order, and twice as many before they begin to choose; the recipe is
otherwise the same for all.

    python benchmarks/orders.py --data-root DIR                    MNIST, 24,000 examples, cnn; SST-2, transformer
    python benchmarks/orders.py --tasks mnist --data-root DIR      one of them
    python benchmarks/orders.py --quick                            scikit-learn's digits, nothing to download

The same command goes on where it was interrupted, and adds what more seeds or budgets ask for. Numbers are means over
seeds. Intervals of differences at equal compute are Student-t of paired differences, 95 % for all orders and budgets of
a task together (Bonferroni). The compute to equal accuracy is that at which the mean curve of an order, linear in the
logarithm of compute between budgets, first reaches what the uniform order has at the budget `--at`; its interval holds
every compute at which the paired difference is not shown to be other than 0, 95 % for all orders of a task together. An
order beats uniform where that interval lies below 1 and none of its runs diverged.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import DIGITS, LEVEL, Interval, Job, Outcome, carry_out_all, figure, marks, page

from subsettune import config, train
from subsettune.data import DataPaths
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.report.render import Column, Table, render
from subsettune.study.spec.yaml_file import read
from subsettune.task import Task
from subsettune.train import orders
from subsettune.train.orders.sift import Sift

ROOT = Path(__file__).parents[1]
UNIFORM = "uniform"
LATE = 0.6  # share of a run's compute, where SIFT begins late
GENTLE = 0.8  # share of a batch, where SIFT keeps more than half
GRID = 801  # amounts of compute between the smallest and the largest budget
TASKS: Mapping[str, Mapping[str, Any]] = {
    "mnist": {
        "data": {"source": "mnist"},
        "split": {"validation": 0.6, "seed": 0},
        "model": {"name": "cnn", "channels": [8, 16], "hidden": 32},
        "recipe": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 10},
        "tolerance": 0.005,
    },
    "digits": DIGITS,
}
SPACES: Mapping[str, str] = {"sst2": "search_spaces/sst2.yaml"}


# --- what is run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An order with options."""

    name: str
    order: str
    options: dict[str, Any]

    def policy(self, budget: float, task: Task, facts: TaskFacts) -> Policy:
        """All data in this order, for a share of the conventional compute."""
        phase = Phase(
            passes=budget * facts.reference_passes, order=self.order, order_options=config.FrozenDict(self.options)
        )
        keep = getattr(orders.make(self.order, self.options), "keep", 1.0)
        drawn = {"batch_size": round(task.recipe.batch_size / keep)} if keep < 1 else {}
        return Policy(phases=(phase,), recipe=config.FrozenDict(drawn))


def variants(facts: TaskFacts) -> list[Variant]:
    """The uniform order first; exits of SIFT that are the same layer of a network only once, the exact loss not at all.

    For that there is selective backprop. The last exit comes twice more, with plain updates at first, and keeping more.
    """
    found = [
        Variant(name=UNIFORM, order="uniform", options={}),
        Variant(name="rs2", order="rs2", options={"share": 0.1}),
        Variant(name="infobatch", order="infobatch", options={"prune": 0.5}),
        Variant(name="selective backprop", order="selective_backprop", options={"keep": 0.5}),
    ]
    seen = {""}
    for depth in (0.5, 0.95):
        layer = Sift(exit=depth).leaves(facts).layer
        if layer not in seen:
            found.append(Variant(name=f"sift, exit {layer}", order="sift", options={"keep": 0.5, "exit": depth}))
        seen.add(layer)
    last = found[-1]
    if last.order == "sift":  # the hardest half of what nothing is known of yet can be ruinous
        gentler = {f"from {LATE:.0%}": {"start": LATE}, f"keep {GENTLE:.0%}": {"keep": GENTLE}}
        for words, options in gentler.items():
            found.append(Variant(name=f"{last.name}, {words}", order="sift", options={**last.options, **options}))
    return found


def make_task(name: str) -> Task:
    """The task of that name, of this file or of a study file."""
    if name in TASKS:
        return config.build(Task, TASKS[name])
    return read(ROOT / SPACES[name]).task


# --- what it says -----------------------------------------------------------------------------------------------------

Curve = Mapping[float, Mapping[int, float]]  # by budget, then by seed


@dataclass(frozen=True, slots=True)
class Relative:
    """Compute of an order over that of the uniform one, for an equal metric.

    Args:
        estimate: infinite where the order's mean does not get there with any budget tried.
        low: end of the interval; 0 where smaller budgets than those tried might do.
        high: likewise; infinite where larger ones might be needed.
        is_open: whether the ends are no part of the interval: no compute tried gives a difference of 0.
    """

    estimate: float
    low: float
    high: float
    is_open: bool = False

    @property
    def sign(self) -> int:
        """1 where the whole interval lies below 1, so that the order needs less; -1 where it lies above."""
        if self.is_open:
            return int(self.high <= 1) - int(self.low >= 1)
        return int(self.high < 1) - int(self.low > 1)

    @property
    def is_below_all(self) -> bool:
        """Whether less compute than any tried is enough."""
        return self.is_open and self.low == 0

    def words(self) -> str:
        estimate = "never" if math.isinf(self.estimate) else f"{self.estimate:.2f}"
        return f"{estimate} [{self.low:.2f}, {'never' if math.isinf(self.high) else f'{self.high:.2f}'}]"


def relative_compute(curve: Curve, uniform: Mapping[int, float], at: float, comparisons: int = 1) -> Relative:
    """How much compute an order needs for what the uniform one has at a budget.

    Each seed's curve is a line over the logarithm of compute between two budgets. The estimate is the least compute at
    which the mean over seeds is no less than the uniform order's; the interval holds every compute at which the paired
    t-interval of the difference holds 0.

    Args:
        curve: of the order, larger being better.
        uniform: values of the uniform order at the budget `at`, by seed.
        at: the budget.
        comparisons: intervals that hold together (Bonferroni).
    """
    budgets = sorted(curve)
    seeds = sorted(set.intersection(*(set(curve[b]) for b in budgets), set(uniform)))
    logs = np.log(budgets)
    grid = np.linspace(logs[0], logs[-1], GRID)
    lines = {seed: np.interp(grid, logs, [curve[b][seed] for b in budgets]) - uniform[seed] for seed in seeds}
    differences = [Interval.of([float(line[i]) for line in lines.values()], comparisons) for i in range(GRID)]
    exact = np.exp(grid) / at
    ratios = np.where(np.isclose(exact, 1, rtol=1e-12, atol=0), 1.0, exact).tolist()  # the budget itself is 1
    first = next((i for i, d in enumerate(differences) if d.mean >= 0), None)
    may = [i for i, d in enumerate(differences) if d.low <= 0 <= d.high]
    low = ratios[may[0]] if may else ratios[-1] if first is None else ratios[max(0, first - 1)]
    high = ratios[may[-1]] if may else math.inf if first is None else ratios[first]
    ends = (0.0 if first == 0 or 0 in may else low, math.inf if first is None or GRID - 1 in may else high)
    return Relative(math.inf if first is None else ratios[first], *ends, is_open=not may)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An order on a task. Differences are positive where it is better than the uniform one."""

    name: str
    metric: dict[float, Interval]
    train_loss: dict[float, Interval]
    seconds: float
    against_uniform: dict[float, Interval]
    relative: Relative
    diverged: int


def finding(name: str, runs: Mapping[str, Mapping[float, Mapping[int, Outcome]]], at: float, sign: int) -> Finding:
    """What the runs of one order say.

    Args:
        name: of the order.
        runs: of all orders, by name, budget and seed.
        at: budget at which the uniform order sets what is to be reached.
        sign: 1 where a larger metric is better, else -1.
    """
    own = runs[name]
    curves = {who: {b: _metrics(runs[who][b], sign) for b in own} for who in (name, UNIFORM)}
    comparisons = (len(runs) - 1) * len(own)
    losses = {b: [o.switches[-1]["train_loss"] for o in own[b].values() if o.metric is not None] for b in own}
    everything = [outcome for by_seed in own.values() for outcome in by_seed.values()]
    return Finding(
        name=name,
        metric={b: Interval.of([sign * value for value in curves[name][b].values()]) for b in own},
        train_loss={b: Interval.of(losses[b]) for b in own},
        seconds=sum(o.train_s for o in everything) / sum(o.spent_flops for o in everything),
        against_uniform={b: Interval.between(curves[name][b], curves[UNIFORM][b], comparisons) for b in own},
        relative=relative_compute(curves[name], curves[UNIFORM][at], at, len(runs) - 1),
        diverged=sum(o.cause != "finished" for o in everything),
    )


def _metrics(outcomes: Mapping[int, Outcome], sign: int) -> dict[int, float]:
    """By seed, larger being better; a run that diverged has none."""
    return {seed: sign * o.metric for seed, o in outcomes.items() if o.metric is not None}


def sentence(found: Finding, at: float) -> str:
    """Whether an order beats the uniform one, and by how much."""
    relative = found.relative
    beats = relative.sign > 0 and not found.diverged
    verdict = "beats uniform" if beats else "is worse than uniform" if relative.sign < 0 else "is not shown to differ"
    if math.isinf(relative.estimate):
        reached = f"does not reach, with any budget tried, what uniform has at {at:.0%} of the conventional compute"
    else:
        of_what = f"what uniform has at {at:.0%} of the conventional"
        reached = f"needs {'less than ' * relative.is_below_all}{relative.words()} times the compute for {of_what}"
    parts = []
    for sign, words in ((1, "better"), (-1, "worse"), (0, "not shown to differ")):
        budgets = [(b, d) for b, d in found.against_uniform.items() if d.sign == sign]
        told = ", ".join(f"{b:.0%} ({d.mean:+.4f})" for b, d in budgets)
        parts += [f"{words} at {told}"] if told else []
    diverged = f" {found.diverged} of its runs diverged." if found.diverged else ""
    return f"{found.name} {verdict}: it {reached}. At equal compute it is {'; '.join(parts)}.{diverged}"


def tables(findings: Sequence[Finding], metric: str) -> list[Table]:
    """The metric and loss at each budget, and the differences to the uniform order."""
    budgets = sorted(findings[0].metric)
    pace = next(f.seconds for f in findings if f.name == UNIFORM)
    heads = [f"{b:.0%}" for b in budgets]
    rows = [
        (
            f.name,
            *(f"{f.metric[b].mean:.4f}" for b in budgets),
            *(f"{f.train_loss[b].mean:.4f}" for b in budgets),
            f"{f.seconds / pace:.2f}",
        )
        for f in findings
    ]
    values = Table(
        columns=_columns("order", *heads, *(f"loss {head}" for head in heads), "seconds"),
        rows=tuple(rows),
        title=f"Test {metric}, and loss on all training data, by share of the conventional compute",
        note=f"Seconds per FLOP, those of uniform being 1. Runs that diverged: {sum(f.diverged for f in findings)}.",
    )
    rows = [
        (f.name, *(f.against_uniform[b].words(4) for b in budgets), f.relative.words())
        for f in findings
        if f.name != UNIFORM
    ]
    differences = Table(
        columns=_columns("order", *heads, "relative compute"),
        rows=tuple(rows),
        title=f"Test {metric} minus that of uniform at equal compute, positive where better; and compute to equal it",
    )
    return [values, differences]


def _columns(first: str, *others: str) -> tuple[Column, ...]:
    return (Column(title=first, align="left"), *(Column(title=title, align="right") for title in others))


COLOURS = ("#3a3a3a", "#1d5fa8", "#b4530a", "#2f7d32", "#8e2a8b", "#a8861d", "#1d9aa8", "#c2406b")


def pictures(name: str, findings: Sequence[Finding], metric: str) -> list[dict[str, Any]]:
    """Loss against compute, the metric against compute, and the difference to the uniform order."""
    budgets = sorted(findings[0].metric)
    percent = [100 * b for b in budgets]
    compute = {"title": "compute, in % of the conventional run", "type": "log"}
    drawn = []
    panels: tuple[tuple[str, str, Callable[[Finding], dict[float, Interval]]], ...] = (
        ("loss on all training data", "mean loss", lambda f: f.train_loss),
        (f"test {metric}", f"test {metric}", lambda f: f.metric),
        (
            "difference to uniform, above 0 is better",
            f"paired difference in test {metric}",
            lambda f: f.against_uniform,
        ),
    )
    for title, y, pick in panels:
        lines = [
            marks(f.name, percent, [pick(f)[b] for b in budgets], colour, "lines+markers")
            for f, colour in zip(findings, itertools.cycle(COLOURS), strict=False)
        ]
        drawn.append(figure(f"{name}: {title}", compute, {"title": y}, lines))
    return drawn


# --- the command ------------------------------------------------------------------------------------------------------


def study(name: str, given: argparse.Namespace) -> tuple[list[str | Table], list[dict[str, Any]]]:
    """Train on one task what is not on disk yet, and say what it shows."""
    task, places = make_task(name), DataPaths(data_root=given.data_root)
    facts = train.facts(task, places)
    options = train.RunOptions(
        splits=("test",), evaluations=1, device=given.device, num_threads=1, places=places, measure_switches=True
    )
    jobs = {
        (variant.name, budget, seed): Job(
            name=f"{name}, {variant.name}, {budget:.0%}",
            task=task,
            policy=variant.policy(budget, task, facts),
            seed=seed,
            options=options,
        )
        for seed in range(given.seeds)
        for budget in given.budgets
        for variant in variants(facts)
    }
    outcomes = carry_out_all(list(jobs.values()), given.out / "runs.jsonl", given.jobs)
    runs: dict[str, dict[float, dict[int, Outcome]]] = {}
    for (order, budget, seed), job in jobs.items():
        runs.setdefault(order, {}).setdefault(budget, {})[seed] = outcomes[job.key]
    sign = 1 if task.higher_is_better else -1
    findings = [finding(order, runs, given.at, sign) for order in runs]
    heading = f"{name}: {facts.num_examples:,} training examples, conventional: {facts.reference_passes:g} passes."
    told = [sentence(found, given.at) for found in findings if found.name != UNIFORM]
    return [heading, *tables(findings, task.metric), *told], pictures(name, findings, task.metric)


def parse() -> argparse.Namespace:
    """The command line; the budgets hold the one that is to be equalled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=(*TASKS, *SPACES), default=["mnist", "sst2"])
    parser.add_argument("--quick", action="store_true", help="digits instead")
    parser.add_argument("--data-root", help="folder that holds MNIST/raw and sst2")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.1, 0.2, 0.4])
    parser.add_argument("--at", type=float, default=0.2, help="budget at which uniform is to be equalled")
    parser.add_argument("--seeds", type=int, help="5 unless given, 3 with --quick")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("orders"), help="folder of results and figures")
    given = parser.parse_args()
    given.budgets = sorted({*given.budgets, given.at})
    given.seeds = given.seeds or (3 if given.quick else 5)
    given.tasks = ["digits"] if given.quick else given.tasks
    return given


def main() -> None:
    given = parse()
    blocks: list[str | Table] = []
    figures: list[dict[str, Any]] = []
    for name in given.tasks:
        told, drawn = study(name, given)
        blocks += told
        figures += drawn
    text = render(blocks, width=150)
    text += (
        f"\nn = {given.seeds} seeds, {LEVEL:.0%} intervals, one thread on {given.device}, torch {torch.__version__}\n"
    )
    print(text, end="")
    (given.out / "report.txt").write_text(text)
    (given.out / "report.html").write_text(page("Orders against the uniform one", figures, text))


if __name__ == "__main__":
    main()
