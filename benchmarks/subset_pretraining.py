"""Subset pretraining as published (arXiv:2410.16523): what the loss minimum of a subset is worth, and what it saves.

For each subset size: epochs on the subset, then a tenth as many on all data; beside it the conventional run, and the
shorter schedule: all data, at the cost of the subset run. Runs with one seed are paired: same initial weights, same
order of examples. The published 1,000 and 100 epochs are divided by `--scale`. The shorter schedule is the conventional
run cut short, at the same fixed rate; with a rate of its own it could only be better.

    python benchmarks/subset_pretraining.py --data-root DIR                     search_spaces/paper_mnist.yaml
    python benchmarks/subset_pretraining.py --data-root DIR --scale 200         a quarter of its epochs
    python benchmarks/subset_pretraining.py --data-root DIR --optimizer lbfgs   the paper's motive: a full-batch method

The same command goes on where it was interrupted, and adds what more seeds or shares ask for. Numbers are means over
seeds; intervals are Student-t over seeds, 95 %; those of paired differences, and of steps from one size to the next,
for all sizes of a column together (Bonferroni).
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from harness import LEVEL, Interval, Job, Outcome, carry_out_all, figure, marks, page

from subsettune import config, train
from subsettune.data import DataPaths
from subsettune.facts import TaskFacts
from subsettune.policy import Policy, conventional
from subsettune.report.render import Column, Table, render
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.spec.yaml_file import read
from subsettune.task import Task

ROOT = Path(__file__).parents[1]
PUBLISHED_EPOCHS, FULL_EPOCHS = 1000, 0.1  # on the subset, and of these on all data
SHARES = tuple(Fraction(1, 2**i) for i in range(1, 7))
LBFGS_SCALE = 10.0
LBFGS: dict[str, Any] = {  # small enough that the subsets lie on both sides of Q = 1, and that full batches are cheap
    "model": {"name": "mlp", "hidden": [16]},
    "recipe": {"optimizer": "lbfgs", "lr": 1.0, "batch_size": 10**9, "schedule": "constant"},
}
Kind = Literal["conventional", "subset", "shorter"]


# --- what is run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. The conventional one has the share 1."""

    kind: Kind
    share: Fraction
    seed: int

    def policy(self, task: Task, facts: TaskFacts) -> Policy:
        """Epochs on a subset of the share s cost s passes each: s of the conventional compute, and 0.1 of it follow.

        Adam keeps its moments, as published; lbfgs begins anew, for its curvature is that of the subset's loss.
        """
        if self.kind == "conventional":
            return conventional(facts)
        share = float(self.share)
        budget = share + FULL_EPOCHS
        if self.kind == "shorter":
            return from_coordinates({"arm": "full", "budget": budget}, facts)
        transition = "reset_optimizer" if task.recipe.optimizer == "lbfgs" else "keep"
        subset = {"budget": budget, "switch": share / budget, "subset_share": share, "transition": transition}
        return from_coordinates(subset, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a run gave. Losses are means in evaluation mode; `switch_...` is null where nothing was switched."""

    kind: Kind
    share: Fraction
    seed: int
    cause: str
    passes: float
    metric: float | None
    train_loss: float | None
    pool_size: int
    switch_pool_loss: float | None
    switch_train_loss: float | None
    switch_metric: float | None
    train_s: float


def row_of(plan: Plan, outcome: Outcome, policy: Policy, facts: TaskFacts) -> Row:
    """What this experiment asks of a run."""
    end = outcome.switches[-1] if outcome.cause == "finished" else None
    switch = outcome.switches[0] if len(outcome.switches) > 1 else None
    return Row(
        kind=plan.kind,
        share=plan.share,
        seed=plan.seed,
        cause=outcome.cause,
        passes=outcome.spent_flops / facts.pass_flops,
        metric=outcome.metric,
        train_loss=end["train_loss"] if end else None,
        pool_size=policy.phases[0].pool_size(facts.num_examples),
        switch_pool_loss=switch["pool_loss"] if switch else None,
        switch_train_loss=switch["train_loss"] if switch else None,
        switch_metric=switch["metrics"]["test"] if switch else None,
        train_s=outcome.train_s,
    )


def plans(shares: Sequence[Fraction], num_seeds: int) -> Iterator[Plan]:
    """Seed by seed, so that what is there when it is interrupted is paired."""
    for seed in range(num_seeds):
        yield Plan(kind="conventional", share=Fraction(1), seed=seed)
        for share in shares:
            yield Plan(kind="subset", share=share, seed=seed)
            yield Plan(kind="shorter", share=share, seed=seed)


# --- what it says -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """All seeds of one subset size. Differences are positive where the subset run is better."""

    share: Fraction
    num_examples: int
    q: float
    passes: float
    saving: float
    pool_loss: Interval
    train_loss: Interval
    gap: Interval
    switch_metric: Interval
    metric: Interval
    shorter_metric: Interval
    against_shorter: Interval
    against_conventional: Interval
    gaps: tuple[tuple[int, float], ...]


class Results:
    """The rows of an experiment; runs that diverged are left out of means, with the seeds that they belong to."""

    def __init__(self, rows: Iterable[Row], task: Task, facts: TaskFacts) -> None:
        self.task, self.facts = task, facts
        self.rows = {(row.kind, row.share, row.seed): row for row in rows}
        self.diverged = sum(row.cause != "finished" for row in self.rows.values())

    def of(self, kind: Kind, share: Fraction) -> dict[int, Row]:
        """Finished runs by seed."""
        rows = {s: row for (k, sh, s), row in self.rows.items() if (k, sh) == (kind, share)}
        return {seed: row for seed, row in rows.items() if row.cause == "finished"}

    def conventional(self) -> Interval:
        """The metric of the conventional runs."""
        return Interval.of([_known(row.metric) for row in self.of("conventional", Fraction(1)).values()])

    def finding(self, share: Fraction) -> Finding:
        """What the runs of one subset size say."""
        own, shorter = self.of("subset", share), self.of("shorter", share)
        whole, size = self.of("conventional", Fraction(1)), next(iter(own.values())).pool_size
        gaps = tuple((s, _known(r.switch_train_loss) - _known(r.switch_pool_loss)) for s, r in own.items())
        passes = statistics.fmean(row.passes for row in own.values())
        return Finding(
            share=share,
            num_examples=size,
            q=self.facts.q(size),
            passes=passes,
            saving=1 - passes / self.facts.reference_passes,
            pool_loss=Interval.of([_known(row.switch_pool_loss) for row in own.values()]),
            train_loss=Interval.of([_known(row.switch_train_loss) for row in own.values()]),
            gap=Interval.of([gap for _, gap in gaps]),
            switch_metric=Interval.of([_known(row.switch_metric) for row in own.values()]),
            metric=Interval.of([_known(row.metric) for row in own.values()]),
            shorter_metric=Interval.of([_known(row.metric) for row in shorter.values()]),
            against_shorter=self._difference(own, shorter),
            against_conventional=self._difference(own, whole),
            gaps=gaps,
        )

    def _difference(self, a: dict[int, Row], b: dict[int, Row]) -> Interval:
        sign = 1 if self.task.higher_is_better else -1
        ours, theirs = ({seed: sign * _known(row.metric) for seed, row in rows.items()} for rows in (a, b))
        return Interval.between(ours, theirs, len(self.shares))

    @property
    def shares(self) -> list[Fraction]:
        """Sizes of which a run finished, largest first."""
        tried = sorted({share for kind, share, _ in self.rows if kind == "subset"}, reverse=True)
        return [share for share in tried if self.of("subset", share)]

    def findings(self) -> list[Finding]:
        """Largest subset first."""
        return [self.finding(share) for share in self.shares]


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def slope(findings: Sequence[Finding]) -> Interval:
    """Change of the gap at the switch per doubling of Q: a line fitted to each seed, then the interval over seeds."""
    seeds = set.intersection(*({seed for seed, _ in finding.gaps} for finding in findings))
    x = np.log2([finding.q for finding in findings])
    fits = [np.polyfit(x, [dict(finding.gaps)[seed] for finding in findings], 1)[0] for seed in sorted(seeds)]
    return Interval.of([float(fit) for fit in fits])


def steps(findings: Sequence[Finding]) -> list[int]:
    """From each subset size to the next larger one, paired by seed: -1 where the gap shrinks, 1 where it grows."""
    signs = []
    for larger, smaller in itertools.pairwise(findings):
        after, before = dict(larger.gaps), dict(smaller.gaps)
        changes = [after[seed] - before[seed] for seed in after if seed in before]
        signs.append(Interval.of(changes, len(findings) - 1).sign)
    return signs


def table(results: Results, findings: Sequence[Finding]) -> Table:
    """One line for each subset size."""
    names = (
        "subset",
        "K",
        "Q",
        "loss on it",
        "on all data",
        "gap",
        "at switch",
        "at end",
        "shorter",
        "passes",
        "saving",
    )
    titles = (*names, "against shorter", "against conventional")
    rows = [
        (
            str(f.share),
            f"{f.num_examples:,}",
            f"{f.q:.2f}",
            f"{f.pool_loss.mean:.4f}",
            f"{f.train_loss.mean:.4f}",
            f.gap.words(4),
            *(f"{value.mean:.4f}" for value in (f.switch_metric, f.metric, f.shorter_metric)),
            f"{f.passes:.3g}",
            f"{100 * f.saving:.1f} %",
            f.against_shorter.words(4),
            f.against_conventional.words(4),
        )
        for f in findings
    ]
    metric, facts = results.task.metric, results.facts
    note = (
        f"Losses and gap: at the switch. Then test {metric} at the switch, at the end, and of the shorter schedule of "
        f"equal cost. Passes are those charged, of {facts.reference_passes:g} conventional ones: by the protocol, the "
        f"share of the subset plus {FULL_EPOCHS:g} of them. Differences are paired, positive where the subset run is "
        f"better. Conventional: {metric} {results.conventional().words(4)}, n = {results.conventional().n} seeds, Q = "
        f"{facts.q():.3g}. Runs that diverged: {results.diverged}."
    )
    return Table(columns=tuple(Column(title=t, align="right") for t in titles), rows=tuple(rows), note=note)


def verdict(results: Results, findings: Sequence[Finding]) -> str:
    """What the intervals show, in words."""
    sentences = []
    if len(findings) > 1:
        per_doubling, signs = slope(findings), steps(findings)
        words = {-1: "shrinks as Q grows", 1: "grows with Q", 0: "shows no trend in Q"}[per_doubling.sign]
        sentences.append(
            f"The gap at the switch between the loss on all data and on the subset {words}: per doubling of Q it "
            f"changes by {per_doubling.words(4)}. From size to larger size it shrinks {signs.count(-1)} times of "
            f"{len(signs)}, and grows {signs.count(1)} times."
        )
    for name, found in (
        ("the shorter schedule of equal cost", [(f.share, f.against_shorter) for f in findings]),
        ("the conventional run", [(f.share, f.against_conventional) for f in findings]),
    ):
        parts = []
        for sign, words in ((1, "better"), (-1, "worse"), (0, "not shown to differ")):
            shares = [str(share) for share, difference in found if difference.sign == sign]
            parts += [f"{words} at {', '.join(shares)}"] if shares else []
        sentences.append(f"Against {name}, the subset run is {'; '.join(parts)}.")
    n = min(f.against_shorter.n for f in findings)
    level = f"{100 * LEVEL:.0f} % intervals, those of differences for all sizes together"
    sentences.append(f"Test {results.task.metric}, n = {n} seeds or more, {level}.")
    return " ".join(sentences)


# --- pictures ---------------------------------------------------------------------------------------------------------


def figures(results: Results, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Losses at the switch, cost against the metric, and the difference to the shorter schedule."""
    q = [f.q for f in findings]
    metric = f"test {results.task.metric}"
    cost = [100 * (1 - f.saving) for f in findings]
    ratio = {"title": "overdetermination ratio Q of the subset", "type": "log"}
    losses = [
        _line("on all training data", q, [f.train_loss for f in findings], "#b4530a"),
        _line("on the subset", q, [f.pool_loss for f in findings], "#1d5fa8"),
    ]
    costs = [
        _line("subset, then all data", cost, [f.metric for f in findings], "#1d5fa8"),
        _line("all data, a shorter schedule", cost, [f.shorter_metric for f in findings], "#b4530a"),
        _line("conventional", [100.0], [results.conventional()], "#3a3a3a"),
    ]
    difference = [_line("difference", q, [f.against_shorter for f in findings], "#1d5fa8")]
    percent, paired = "compute, in % of the conventional run", f"paired difference in {metric}, positive: better"
    return [
        figure("Loss at the switch", ratio, {"title": "mean loss"}, losses),
        figure(f"Cost against {metric}", {"title": percent}, {"title": metric}, costs),
        figure("Subset run against the shorter schedule of equal cost", ratio, {"title": paired}, difference),
    ]


def _line(name: str, x: Sequence[float], values: Sequence[Interval], colour: str) -> dict[str, Any]:
    return marks(name, x, values, colour, "lines+markers")


# --- the command ------------------------------------------------------------------------------------------------------


def make_task(given: argparse.Namespace) -> Task:
    """The task of the study file, with the epochs of the scale; for lbfgs with a small network and its own recipe."""
    plain = config.to_plain(read(given.space).task)
    scale = given.scale or (LBFGS_SCALE if given.optimizer == "lbfgs" else None)
    if given.optimizer == "lbfgs":
        plain = {**plain, **LBFGS}
    if scale is not None:
        plain["recipe"] = {**plain["recipe"], "epochs": PUBLISHED_EPOCHS / scale}
    return config.build(Task, plain)


def carry_out(given: argparse.Namespace) -> Results:
    """Train what is not on disk yet."""
    task, places = make_task(given), DataPaths(data_root=given.data_root)
    facts = train.facts(task, places)
    options = train.RunOptions(
        splits=("test",), evaluations=1, measure_switches=True, device=given.device, num_threads=1, places=places
    )
    jobs = {}
    for plan in plans(given.shares, given.seeds):
        name, policy = f"{plan.kind} {plan.share}", plan.policy(task, facts)
        jobs[plan] = Job(name=name, task=task, policy=policy, seed=plan.seed, options=options)
    outcomes = carry_out_all(list(jobs.values()), given.out / "runs.jsonl", given.jobs)
    rows = [row_of(plan, outcomes[job.key], job.policy, facts) for plan, job in jobs.items()]
    return Results(rows, task, facts)


def _share(text: str) -> Fraction:
    share = Fraction(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--space", default=str(ROOT / "search_spaces" / "paper_mnist.yaml"), help="whose task is trained"
    )
    parser.add_argument("--data-root", help="torchvision's root of the data set")
    parser.add_argument("--optimizer", choices=("recipe", "lbfgs"), default="recipe", help="lbfgs brings a small mlp")
    parser.add_argument("--scale", type=float, help="published epochs over ours (default: the file's; 10 for lbfgs)")
    parser.add_argument("--shares", type=_share, nargs="+", default=list(SHARES), help="such as 1/2 1/4")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("subset_pretraining"), help="folder of results and figures")
    given = parser.parse_args()
    results = carry_out(given)
    task, facts, findings = results.task, results.facts, results.findings()
    epochs = facts.reference_passes
    heading = (
        f"{task.data.source}, {task.model.name}, {task.recipe.optimizer}: {epochs:g} conventional epochs, "
        f"{epochs:g} on the subset and {FULL_EPOCHS * epochs:g} on all data"
    )
    text = render([heading + ".", table(results, findings), verdict(results, findings)], width=150)
    seconds = sum(row.train_s for row in results.rows.values())
    text += f"\n{seconds:.0f} s of training, one thread each on {given.device}, torch {torch.__version__}\n"
    print(text, end="")
    (given.out / "report.txt").write_text(text)
    (given.out / "report.html").write_text(page(heading, figures(results, findings), text))


if __name__ == "__main__":
    main()
