"""Is LiPT's soup a better warm-up for a gradient-based choice of examples than ordinary training?

Every policy costs the same: a warm-up; then `--share` of the examples, chosen by GradMatch on the warmed network and
trained on; then, for the last `1 - --switch` of the compute, all data. Warm-ups are soups of 2, 4 and 10 workers, and
one of 10 with the density and the RandAugment of the paper's code; each spends `--warm-up` of the compute, on `--pool`
of the examples. Beside them, ordinary training on all data

    (a) of the same compute,
    (b) of the same wall clock, if every worker had a machine of its own: a half, a fourth, a tenth of it.

What a shorter warm-up saves is spent on the chosen examples. Controls: no warm-up (the choice is made at random
weights), a random subset, and the shorter schedule, all data all the time.

    python benchmarks/lipt.py --data-root DIR              MNIST, 12,000 training examples, a small cnn
    python benchmarks/lipt.py --source digits --quick      scikit-learn's digits, nothing to download, 2 seeds

Judged by the final test accuracy, and by the chosen subset itself: how far its weighted mean gradient by the last layer
is from that of all examples, at weights that no policy has seen, those of a conventional run from another seed after
two passes: |g_S - g| / |g| and the cosine between them, with as many random examples for scale. The words go by the
cosine: GradMatch here scales its weights to a sum, which keeps the direction of the gradient and not its length, so the
error is mostly one of length.

Runs with one seed are paired: same initial weights. Intervals of paired differences are Student-t, 95 % for all soups
together (Bonferroni). The learning rate is constant, so that a warm-up of some length is the same
whatever follows it. The same command goes on where it was interrupted.

Speed-ups are counted as the paper counts them: the time of the ordinary warm-up (a) over that of the longest worker. In
FLOPs it is the number of workers, by construction; in seconds it is measured on one core, workers in turn. That is what
W machines could save of the wall clock of the warm-up, and nothing of its compute.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from harness import LEVEL, Interval, Job, Outcome, carry_out_all, figure, marks, page
from torch import Tensor, nn

from subsettune import config, train
from subsettune.data import DataPaths, load
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy, Soup
from subsettune.report.render import Column, Table, render
from subsettune.select.kernels.gradients import Gradients
from subsettune.select.network import ModelView
from subsettune.task import Task

WORKERS = (2, 4, 10)
ELSEWHERE = 2.0  # passes
OTHER_SEED = 1000  # added to that of a run: the weights at which gradients are compared are of no policy
TASKS: Mapping[str, dict[str, Any]] = {
    "mnist": {
        "data": {"source": "mnist"},
        "split": {"validation": 0.8, "seed": 0},
        "model": {"name": "cnn", "channels": [8, 16], "hidden": 32},
        "recipe": {"lr": 0.02, "momentum": 0.9, "batch_size": 32, "epochs": 10, "schedule": "constant"},
        "tolerance": 0.005,
    },
    "digits": {
        "data": {"source": "digits"},
        "split": {"validation": 0.1, "test": 0.3, "seed": 0},
        "model": {"name": "mlp", "hidden": [64]},
        "recipe": {"lr": 0.05, "momentum": 0.9, "batch_size": 16, "epochs": 20, "schedule": "constant"},
        "tolerance": 0.01,
    },
}
RANDOM_SELECTOR = "random"
NONE, RANDOM, SHORTER, SAME_COMPUTE = "none", "random subset", "shorter schedule", "ordinary, same compute"


PUBLISHED = "soup of 10, as published"


def soup_of(workers: int) -> str:
    return f"soup of {workers}"


def same_clock(workers: int) -> str:
    return f"ordinary, 1/{workers} of it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all policies share. Shares are of the compute of a policy, but `share` and `pool`, which are of examples."""

    budget: float
    warm_up: float
    switch: float
    share: float
    pool: float
    density: float
    masks: Any
    rand_augment: int

    def soup(self, workers: int) -> Soup:
        return Soup(workers=workers, density=self.density, masks=self.masks, rand_augment=self.rand_augment)

    def soups(self, facts: TaskFacts) -> dict[str, Soup]:
        """By name; RandAugment is left out where the examples are no images of bytes."""
        published = Soup(workers=10, density=0.05, rand_augment=5 if facts.image_channels else 0)
        return {**{soup_of(w): self.soup(w) for w in WORKERS}, PUBLISHED: published}


def policies(plan: Plan, facts: TaskFacts) -> dict[str, Policy]:
    """By name; all of the same compute."""
    total = plan.budget * facts.reference_passes
    length = plan.warm_up * total
    warm_ups = {
        name: Phase(share=plan.pool, passes=length, draw=1, soup=soup) for name, soup in plan.soups(facts).items()
    }
    warm_ups[SAME_COMPUTE] = Phase(passes=length)
    warm_ups |= {same_clock(w): Phase(passes=length / w) for w in WORKERS}
    found = {name: _policy(plan, total, warm_up, "gradmatch") for name, warm_up in warm_ups.items()}
    found[NONE] = _policy(plan, total, None, "gradmatch")
    found[RANDOM] = _policy(plan, total, None, RANDOM_SELECTOR)
    found[SHORTER] = Policy(phases=(Phase(passes=total),))
    return found


def _policy(plan: Plan, total: float, warm_up: Phase | None, selector: str) -> Policy:
    spent = 0.0 if warm_up is None else warm_up.passes
    options = {"model": "current"} if selector == "gradmatch" else {}
    chosen = Phase(
        share=plan.share,
        passes=plan.switch * total - spent,
        selector=selector,
        selector_options=config.FrozenDict(options),
    )
    before = [] if warm_up is None else [warm_up]
    return Policy(phases=(*before, chosen, Phase(passes=(1 - plan.switch) * total)))


# --- how well a subset stands for all ---------------------------------------------------------------------------------


def mismatch(gradients: Gradients, positions: Tensor, weights: Tensor | None) -> tuple[float, float]:
    """Relative distance |g_S - g| / |g| of weighted means, and their cosine.

    Args:
        gradients: of all examples.
        positions: (k,) int64 of the subset.
        weights: (k,) of its examples; None for equal ones.
    """
    mean = gradients.total() / len(gradients)
    own = torch.ones(len(positions), dtype=torch.float64) if weights is None else weights.double()
    scaled = gradients.residuals[positions] * (own / own.sum())[:, None]
    of_subset = scaled.T @ gradients.inputs[positions]
    cosine = float((of_subset * mean).sum() / (of_subset.norm() * mean.norm()))
    return float((of_subset - mean).norm() / mean.norm()), cosine


@cache
def gradients_elsewhere(task: Task, seed: int, places: DataPaths) -> Gradients:
    """Of all training examples by the last layer, at the weights of a conventional run from another seed."""
    options = train.RunOptions(evaluations=1, device="cpu", num_threads=1, keep_model=True, places=places)
    result = train.run(task, Policy(phases=(Phase(passes=ELSEWHERE),)), seed + OTHER_SEED, options=options)
    network: nn.Module = result.model.eval()
    residuals, hidden = ModelView.of(network, load(task, places), "cpu").gradients()
    return Gradients.of(residuals, hidden, torch.arange(len(residuals)), bias=True)


def measure(job: Job, result: train.RunResult) -> dict[str, float]:
    """How well the subset that a run chose stands for all; of a random one, how well as many random examples do."""
    if result.cause != "finished":
        return {}
    places, chosen = job.options.places, job.policy.phases[-2]
    gradients = gradients_elsewhere(job.task, job.seed, places)
    if chosen.selector != RANDOM_SELECTOR:
        (subset,) = result.subsets.values()
        positions, weights = subset.positions, subset.weights
    else:
        k = chosen.pool_size(len(gradients))
        positions = torch.randperm(len(gradients), generator=torch.Generator().manual_seed(job.seed))[:k]
        weights = None
    error, cosine = mismatch(gradients, positions, weights)
    found = {"error": error, "cosine": cosine}
    return {**found, "coverage": result.soups[0].coverage} if result.soups else found


# --- how long a warm-up takes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedUp:
    """Time of ordinary pre-training over that of a soup's longest worker, at the same compute, as the paper counts.

    Args:
        workers: of the soup.
        flops: the quotient in FLOPs.
        seconds: quotients in seconds, one for each seed.
        all_s: seconds of the whole soup on one core, one for each seed.
        ordinary_s: those of ordinary pre-training of as many FLOPs as the soup took, likewise.
    """

    workers: int
    flops: float
    seconds: tuple[float, ...]
    all_s: tuple[float, ...]
    ordinary_s: tuple[float, ...]

    def words(self) -> str:
        all_s, ordinary_s = statistics.median(self.all_s), statistics.median(self.ordinary_s)
        return (
            f"{self.workers} workers: {self.flops:.2f} times faster in FLOPs, {statistics.median(self.seconds):.2f} in "
            f"seconds (median; {min(self.seconds):.2f} to {max(self.seconds):.2f}, n = {len(self.seconds)}). One after "
            f"the other on one core they take {all_s:.2f} s, and ordinary pre-training {ordinary_s:.2f} s."
        )


COUNTED = (
    "Speed-up of pre-training, as the paper counts it: ordinary training over the longest worker, at the same compute."
)


def speed_up(task: Task, plan: Plan, workers: int, seeds: int, places: DataPaths) -> SpeedUp:
    """Time both warm-ups, by turns, one at a time and with nothing else in them."""
    length = plan.warm_up * plan.budget * task.recipe.epochs
    soup = Policy(phases=(Phase(share=plan.pool, passes=length, draw=1, soup=plan.soup(workers)),))
    ordinary = Policy(phases=(Phase(passes=length),))
    options = train.RunOptions(evaluations=1, device="cpu", num_threads=1, soup_workers="in_turn", places=places)
    longest, everybody, alone, flops = [], [], [], []
    for seed in range(seeds):
        active_soup = train.run(task, soup, seed, options=options)
        plain = train.run(task, ordinary, seed, options=options)
        (point,) = active_soup.soups
        assert point.longest_s is not None
        longest.append(point.longest_s)
        everybody.append(point.seconds)
        alone.append(plain.train_s * point.flops / plain.ledger.spent)  # they differ by an update at most
        flops.append(point.flops / point.longest_flops)
    return SpeedUp(
        workers=workers,
        flops=statistics.median(flops),
        seconds=tuple(a / b for a, b in zip(alone, longest, strict=True)),
        all_s=tuple(everybody),
        ordinary_s=tuple(alone),
    )


# --- what the runs show -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One policy over all seeds; None where it chooses no examples, or has no coverage."""

    name: str
    warm_up: float
    longest: float
    coverage: float | None
    error: Interval | None
    cosine: Interval | None
    metric: Interval


def findings(named: Mapping[str, Policy], outcomes: Mapping[str, Mapping[int, Outcome]]) -> list[Finding]:
    """In the order of the policies."""
    found = []
    for name, policy in named.items():
        runs = list(outcomes[name].values())
        first = policy.phases[0]
        has_warm_up = name not in (NONE, RANDOM, SHORTER)
        spent = first.passes if has_warm_up else 0.0
        found.append(
            Finding(
                name=name,
                warm_up=spent,
                longest=spent if first.soup is None else spent / first.soup.workers,
                coverage=_mean(runs, "coverage"),
                error=_interval(runs, "error"),
                cosine=_interval(runs, "cosine"),
                metric=Interval.of([run.metric for run in runs if run.metric is not None]),
            )
        )
    return found


def _mean(runs: Sequence[Outcome], key: str) -> float | None:
    values = [run.measured[key] for run in runs if key in run.measured]
    return statistics.fmean(values) if values else None


def _interval(runs: Sequence[Outcome], key: str) -> Interval | None:
    values = [run.measured[key] for run in runs if key in run.measured]
    return Interval.of(values) if values else None


def table(found: Sequence[Finding], plan: Plan) -> Table:
    titles = ("warm-up", "passes", "longest", "coverage", "error of the gradient", "cosine", "accuracy")
    rows = tuple(
        (
            f.name,
            f"{f.warm_up:.3g}",
            f"{f.longest:.3g}",
            "" if f.coverage is None else f"{f.coverage:.2f}",
            "" if f.error is None else f.error.words(3),
            "" if f.cosine is None else f.cosine.words(3),
            f.metric.words(4),
        )
        for f in found
    )
    columns = tuple(Column(title=title, align="left" if title == "warm-up" else "right") for title in titles)
    note = (
        f"Soups of 2, 4 and 10: density {plan.density:g}, masks {plan.masks}, RandAugment {plan.rand_augment}. As "
        f"published: density 0.05, masks erk, RandAugment 5 of images. All on {100 * plan.pool:g} % of the examples."
    )
    return Table(columns=columns, rows=rows, title="policies of equal compute", note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A soup minus something else, by seed; what is above 0 speaks for the soup."""

    soup: str
    other: str
    cosine: Interval | None
    metric: Interval


COSINES = {1: "nearer", 0: "no difference shown", -1: "farther"}
ACCURACIES = {1: "more accurate", 0: "no difference shown", -1: "less accurate"}


def differences(compared: Sequence[Comparison]) -> Table:
    """Every comparison with its intervals and what they show."""
    titles = ("soup", "against", "cosine", "its subset is", "accuracy", "it is")
    rows = tuple(
        (
            c.soup,
            c.other,
            "" if c.cosine is None else c.cosine.words(3),
            "" if c.cosine is None else COSINES[c.cosine.sign],
            c.metric.words(4),
            ACCURACIES[c.metric.sign],
        )
        for c in compared
    )
    columns = tuple(Column(title=t, align="right" if t in ("cosine", "accuracy") else "left") for t in titles)
    return Table(columns=columns, rows=rows, title="paired differences: the soup minus the other")


def compare(outcomes: Mapping[str, Mapping[int, Outcome]], soups: Mapping[str, Soup]) -> list[Comparison]:
    """Each soup against the warm-ups (a) and (b), and the controls."""
    compared = []
    for mine, soup in soups.items():
        for other in (SAME_COMPUTE, same_clock(soup.workers), NONE, RANDOM, SHORTER):
            own, others = (_by_seed(outcomes[name], "cosine") for name in (mine, other))
            compared.append(
                Comparison(
                    soup=mine,
                    other=other,
                    cosine=Interval.between(own, others, len(soups)) if others else None,
                    metric=Interval.between(_metrics(outcomes[mine]), _metrics(outcomes[other]), len(soups)),
                )
            )
    return compared


def _metrics(runs: Mapping[int, Outcome]) -> dict[int, float]:
    return {seed: run.metric for seed, run in runs.items() if run.metric is not None}


def _by_seed(runs: Mapping[int, Outcome], key: str) -> dict[int, float]:
    return {seed: run.measured[key] for seed, run in runs.items() if key in run.measured}


def verdict(compared: Sequence[Comparison]) -> str:
    """What the intervals show, in words."""
    against = {other: [c for c in compared if kind(c.other) == other] for other in ("(a)", "(b)", SHORTER)}
    told = []
    for other, words in (("(a)", "ordinary training of the same compute"), ("(b)", "that of the same wall clock")):
        better = [c.soup for c in against[other] if c.metric.sign > 0]
        worse = [c.soup for c in against[other] if c.metric.sign < 0]
        told.append(f"In accuracy, against {words}: {_sides(better, worse)}.")
        nearer = [c.soup for c in against[other] if c.cosine is not None and c.cosine.sign > 0]
        farther = [c.soup for c in against[other] if c.cosine is not None and c.cosine.sign < 0]
        told.append(f"In the subset's gradient, against {words}: {_sides(nearer, farther)}.")
    wins = [c.soup for c in against[SHORTER] if c.metric.sign > 0]
    loses = [c.soup for c in against[SHORTER] if c.metric.sign < 0]
    told.append(f"In accuracy, against all data all the time: {_sides(wins, loses)}.")
    return "\n".join(told)


def _sides(better: Sequence[str], worse: Sequence[str]) -> str:
    parts = [f"{', '.join(better)} better"] if better else []
    parts += [f"{', '.join(worse)} worse"] if worse else []
    return "; ".join(parts) if parts else "no soup is shown to differ"


def kind(other: str) -> str:
    """(a) and (b) of the docstring; controls have their own names."""
    if other == SAME_COMPUTE:
        return "(a)"
    return "(b)" if other in {same_clock(w) for w in WORKERS} else other


def pictures(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Cosine and accuracy over the wall clock of the warm-up."""
    soups = [f for f in found if f.coverage is not None and f.name != PUBLISHED]
    published = [f for f in found if f.name == PUBLISHED]
    plain = [f for f in found if f.coverage is None and f.name != SHORTER and f.name != RANDOM]
    x = {"title": "passes of the warm-up's longest worker: its wall clock with a machine for each"}
    drawn = []
    groups = (("soups", soups, "#b4530a"), (PUBLISHED, published, "#2b8a3e"), ("ordinary training", plain, "#1d5fa8"))
    for title, name in (("cosine of the gradients of subset and all", "cosine"), ("test accuracy", "metric")):
        data = []
        for label, group, colour in groups:
            ordered = sorted(group, key=lambda f: f.longest)
            values = [getattr(f, name) for f in ordered]
            data.append(marks(label, [f.longest for f in ordered], values, colour, "lines+markers"))
        drawn.append(figure(f"{title}, all policies of equal compute", x, {"title": title}, data))
    return drawn


# --- the command ------------------------------------------------------------------------------------------------------


Pictures = list[dict[str, Any]]


def study(task: Task, plan: Plan, given: argparse.Namespace) -> tuple[list[str | Table], Pictures]:
    """Run everything, and say what it shows."""
    places = DataPaths(data_root=given.data_root)
    facts = train.facts(task, places)
    options = train.RunOptions(splits=("test",), evaluations=1, device="cpu", num_threads=1, places=places)
    named = policies(plan, facts)
    jobs = {
        (name, seed): Job(
            name=name,
            task=task,
            policy=policy,
            seed=seed,
            options=options,
            measure=None if name == SHORTER else measure,
        )
        for seed in range(given.seeds)
        for name, policy in named.items()
    }
    done = carry_out_all(list(jobs.values()), given.out / "runs.jsonl", given.jobs)
    outcomes = {name: {seed: done[jobs[name, seed].key] for seed in range(given.seeds)} for name in named}
    found = findings(named, outcomes)
    compared = compare(outcomes, plan.soups(facts))
    timed = [speed_up(task, plan, workers, given.seeds, places) for workers in WORKERS]
    k, total = round(plan.share * facts.num_examples), plan.budget * facts.reference_passes
    heading = (
        f"{facts.num_examples:,} training examples, {total:g} passes for each policy, {plan.warm_up * total:g} of them "
        f"for the warm-up; {k:,} examples chosen; gradients compared after {ELSEWHERE:g} passes of a conventional run."
    )
    blocks: list[str | Table] = [heading, table(found, plan), differences(compared), verdict(compared)]
    return [*blocks, "\n".join((COUNTED, *(s.words() for s in timed)))], pictures(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=tuple(TASKS), default="mnist")
    parser.add_argument("--data-root", help="torchvision's root of MNIST")
    parser.add_argument("--budget", type=float, default=0.5, help="share of the conventional compute, for each policy")
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the budget for the warm-up")
    parser.add_argument("--switch", type=float, default=0.7, help="share of the budget spent before all data come")
    parser.add_argument("--share", type=float, default=0.1, help="size of the chosen subset")
    parser.add_argument("--pool", type=float, default=0.2, help="share of the examples that the soups' shards are of")
    parser.add_argument("--density", type=float, default=0.5, help="of the workers' masks")
    parser.add_argument("--masks", choices=("erk", "data"), default="erk")
    parser.add_argument("--rand-augment", type=int, default=0, help="magnitude; 0 is off")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="2 seeds, to see it run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each; warm-ups are timed alone")
    parser.add_argument("--out", type=Path, default=Path("lipt"), help="folder of results and figures")
    given = parser.parse_args()
    given.seeds = 2 if given.quick else given.seeds
    plan = Plan(**{name: getattr(given, name) for name in Plan.__dataclass_fields__})
    blocks, figures = study(config.build(Task, TASKS[given.source]), plan, given)
    text = render(blocks, width=150)
    text += f"\nn = {given.seeds} seeds, {LEVEL:.0%} intervals, one thread on the CPU, torch {torch.__version__}\n"
    print(text, end="")
    (given.out / "report.txt").write_text(text)
    (given.out / "report.html").write_text(page("LiPT's soup against ordinary warm-up", figures, text))


if __name__ == "__main__":
    main()
