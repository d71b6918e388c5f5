"""Where choosing a subset pays: clean data, data with copies, data with wrong labels.

For each condition and each selector a policy spends `--budget` of the conventional compute: `--switch` of it on a
subset (the choosing included), the rest on all data. Beside it, at equal total compute: a random subset of the same
size, and the shorter schedule, all data. Runs with one seed are paired: same initial weights, same order of examples.

    python benchmarks/redundancy.py --data-root DIR              MNIST, 12,000 training examples
    python benchmarks/redundancy.py --source digits              scikit-learn's digits, nothing to download

The same command goes on where it was interrupted. Test accuracy, means over seeds; intervals of paired differences are
Student-t, 95 % for all selectors of a condition together (Bonferroni). A selector pays where its interval against the
random subset lies above 0, and wins where that against the shorter schedule does, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import DIGITS, LEVEL, Interval, Job, Outcome, carry_out_all, figure, marks, page

from subsettune import config, select, train
from subsettune.data import DataPaths
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, conventional
from subsettune.report.render import Column, Table, render
from subsettune.task import Task

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "clean": {},
    "copies": {"repeat_share": 0.05, "repeat_times": 21},  # every other example is a copy of one in twenty
    "noise": {"flip_labels": 0.3},
}
SPARING = {  # what a selector may cost where it has to fit a fifth of the compute
    "proxy_passes": 0.3,
    "runs": 1,
    "features": "projection",
    "dimensions": 32,
    "method": "stochastic",
    "sample": 16,
}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "mnist": {
        "data": {"source": "mnist"},
        "split": {"validation": 0.8, "seed": 0},
        "model": {"name": "cnn", "channels": [8, 16], "hidden": 32},
        "recipe": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 10},
        "tolerance": 0.005,
    },
    "digits": DIGITS,
}
CONVENTIONAL, SHORTER, RANDOM = "conventional", "shorter schedule", "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way of choosing: a selector with options."""

    name: str
    selector: str
    options: dict[str, Any]


def variants() -> Iterator[Variant]:
    """Every selector; those that rank by difficulty also from the other end, and without the hardest."""
    for name in select.SELECTORS:
        known = config.to_plain(select.make(name))
        options = _affordable(name, known)
        yield Variant(name=name, selector=name, options=options)
        if {"keep", "skip"} <= known.keys():
            yield Variant(name=f"{name}, easiest", selector=name, options={**options, "keep": "easiest"})
            yield Variant(name=f"{name}, skip 0.3", selector=name, options={**options, "skip": 0.3})


def _affordable(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a small budget can pay for; where a selector needs more, its own least is left."""
    options = {key: value for key, value in SPARING.items() if key in known}
    if "features" in options:
        options.pop("proxy_passes", None)  # a projection needs no proxy
    try:
        select.make(name, options)
    except ConfigError:  # forgetting needs two passes to see anything forgotten
        options["proxy_passes"] = 2.0
    return options


def make_task(source: str, condition: str) -> Task:
    return config.build(Task, {**TASKS[source], "distortion": dict(CONDITIONS[condition])})


def subset_policy(variant: Variant, given: argparse.Namespace, facts: TaskFacts) -> Policy:
    total = given.budget * facts.reference_passes
    first = Phase(
        share=given.share,
        passes=given.switch * total,
        selector=variant.selector,
        selector_options=config.FrozenDict(variant.options),
    )
    return Policy(phases=(first, Phase(passes=total - first.passes)))


def policies(given: argparse.Namespace, task: Task, facts: TaskFacts) -> tuple[dict[str, Policy], dict[str, str]]:
    """Policies by name, and why a selector cannot be tried, by name."""
    found = {
        CONVENTIONAL: conventional(facts),
        SHORTER: Policy(phases=(Phase(passes=given.budget * facts.reference_passes),)),
    }
    refused = {}
    for variant in variants():
        policy = subset_policy(variant, given, facts)
        try:
            train.check(task, policy, facts)
            found[variant.name] = policy
        except ConfigError as error:
            refused[variant.name] = str(error)
    return found, refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One way of choosing under one condition."""

    name: str
    metric: Interval
    against_random: Interval
    against_shorter: Interval
    select_share: float
    select_s: float

    @property
    def verdict(self) -> str:
        if self.name == RANDOM:
            return "the control"
        against_shorter = {1: "beats", 0: "is not shown to differ from", -1: "is worse than"}[self.against_shorter.sign]
        return f"{PAYS[self.against_random.sign]}; {against_shorter} the shorter schedule"


PAYS = {1: "pays", 0: "no difference shown", -1: "harms"}


def findings(names: Mapping[str, Policy], outcomes: Mapping[str, Mapping[int, Outcome]]) -> list[Finding]:
    """Best first."""
    metrics = {name: {s: o.metric for s, o in outcomes[name].items() if o.metric is not None} for name in names}
    tried = [name for name in names if name not in (CONVENTIONAL, SHORTER)]
    found = []
    for name in tried:
        runs = list(outcomes[name].values())
        spent = sum(run.spent_flops for run in runs)
        found.append(
            Finding(
                name=name,
                metric=Interval.of(list(metrics[name].values())),
                against_random=Interval.between(metrics[name], metrics[RANDOM], len(tried) - 1),
                against_shorter=Interval.between(metrics[name], metrics[SHORTER], len(tried)),
                select_share=sum(run.select_flops for run in runs) / spent,
                select_s=sum(run.select_s for run in runs) / len(runs),
            )
        )
    return sorted(found, key=lambda f: -f.metric.mean)


def table(found: list[Finding], condition: str, refused: Mapping[str, str]) -> Table:
    titles = ("chosen by", "accuracy", "against random", "against shorter", "choosing", "seconds", "verdict")
    rows = [
        (
            f.name,
            f"{f.metric.mean:.4f}",
            "" if f.name == RANDOM else f.against_random.words(4),
            f.against_shorter.words(4),
            f"{100 * f.select_share:.1f} %",
            f"{f.select_s:.2f}",
            f.verdict,
        )
        for f in found
    ]
    note = "".join(f"\n{name} was not tried: {why}" for name, why in refused.items())
    columns = tuple(Column(title=t, align="left" if t in ("chosen by", "verdict") else "right") for t in titles)
    return Table(columns=columns, rows=tuple(rows), title=condition, note=note.strip())


def verdict(condition: str, found: list[Finding]) -> str:
    """What the intervals show, in words."""
    pays = [f.name for f in found if f.name != RANDOM and f.against_random.sign > 0]
    wins = [f.name for f in found if f.name != RANDOM and f.against_random.sign > 0 and f.against_shorter.sign > 0]
    told = f"{condition}: choosing pays against a random subset with {', '.join(pays)}" if pays else ""
    told = told or f"{condition}: no selector is shown to pay against a random subset"
    if wins:
        return f"{told}; of these, {', '.join(wins)} also beat the shorter schedule on all data."
    return f"{told}; none beats the shorter schedule on all data as well."


def picture(condition: str, found: list[Finding]) -> dict[str, Any]:
    names = [f.name for f in found]
    data = [
        marks("against a random subset", names, [f.against_random for f in found], "#1d5fa8", "markers"),
        marks("against the shorter schedule", names, [f.against_shorter for f in found], "#b4530a", "markers"),
    ]
    y = {"title": "paired difference in test accuracy", "zeroline": True}
    return figure(f"{condition}: above 0 is better", {"title": "", "tickangle": -35}, y, data)


def study(condition: str, given: argparse.Namespace) -> tuple[list[str | Table], dict[str, Any]]:
    """Run one condition, and say what it shows."""
    task, places = make_task(given.source, condition), DataPaths(data_root=given.data_root)
    facts = train.facts(task, places)
    options = train.RunOptions(splits=("test",), evaluations=1, device=given.device, num_threads=1, places=places)
    named, refused = policies(given, task, facts)
    jobs = {
        (name, seed): Job(name=f"{condition}, {name}", task=task, policy=policy, seed=seed, options=options)
        for seed in range(given.seeds)
        for name, policy in named.items()
    }
    outcomes = carry_out_all(list(jobs.values()), given.out / "runs.jsonl", given.jobs)
    by_name = {name: {seed: outcomes[jobs[name, seed].key] for seed in range(given.seeds)} for name in named}
    found = findings(named, by_name)
    metrics = {name: [o.metric for o in by_name[name].values() if o.metric is not None] for name in named}
    heading = (
        f"{condition}: {facts.num_examples:,} training examples. Conventional: {facts.reference_passes:g} passes, "
        f"accuracy {Interval.of(metrics[CONVENTIONAL]).words(4)}. Shorter schedule, {100 * given.budget:g} % of that: "
        f"{Interval.of(metrics[SHORTER]).words(4)}. Subsets: {100 * given.share:g} % of the examples."
    )
    return [heading, table(found, condition, refused), verdict(condition, found)], picture(condition, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=tuple(TASKS), default="mnist")
    parser.add_argument("--data-root", help="torchvision's root of MNIST")
    parser.add_argument("--conditions", nargs="+", choices=tuple(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--budget", type=float, default=0.2, help="share of the conventional compute")
    parser.add_argument("--switch", type=float, default=0.8, help="share of the budget spent on the subset")
    parser.add_argument("--share", type=float, default=0.25, help="size of the subset")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("redundancy"), help="folder of results and figures")
    given = parser.parse_args()
    blocks: list[str | Table] = []
    figures = []
    for condition in given.conditions:
        told, drawn = study(condition, given)
        blocks += told
        figures.append(drawn)
    text = render(blocks, width=150)
    text += (
        f"\nn = {given.seeds} seeds, {LEVEL:.0%} intervals, one thread on {given.device}, torch {torch.__version__}\n"
    )
    print(text, end="")
    (given.out / "report.txt").write_text(text)
    (given.out / "report.html").write_text(page("Where choosing a subset pays", figures, text))


if __name__ == "__main__":
    main()
