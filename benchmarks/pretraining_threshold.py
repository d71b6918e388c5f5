"""How much pre-training a network needs before it can be pruned, by the size of the data: the shape of a result.

Wolfe et al., arXiv:2108.00259: a two-layer network that is pruned by greedy forward selection reaches a good training
error only after a threshold of pre-training iterations, which grows logarithmically with the size of the data set.
Here, for m examples of MNIST and several seeds: a network of one hidden layer is trained for t iterations of plain SGD
by subsettune's own loop, for t = 4, 8, 16, ..., and pruned: out of `--candidates` random units always the one with the
least loss on a mini-batch is added, until the training accuracy is within 0.02 of the dense network's, or the pruned
one is `--bound` units wide. The threshold t*(m) is the first t at which the training error of the pruned network is
within `--margin` of the dense one's at the end of all pre-training, interpolated on a logarithmic scale of t.

    python benchmarks/pretraining_threshold.py --data-root DIR           MNIST, 512 to 32,768 examples
    python benchmarks/pretraining_threshold.py --quick                   scikit-learn's digits, nothing to download

The same command goes on where it was interrupted. Two laws are fitted to the thresholds of all seeds, t* = a + b log m
and t* = a m^b, each with errors that are absolute (of t*) and relative (of log t*). A law is supported where its AICc
is lower by 4 or more with both kinds of errors, and a test of lack of fit against the spread between seeds does not
reject it with relative ones at 1 %. That is done for several margins: a rule would be the same law at each.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from harness import completed, figure, kept, page
from scipy import optimize, stats
from torch import Tensor, nn
from torch.nn import functional

from subsettune import config, train
from subsettune.data import DataPaths, load
from subsettune.policy import Phase, Policy
from subsettune.report.render import Column, Table, render
from subsettune.task import Task
from subsettune.train.pruning import surgery
from subsettune.train.pruning.forward_selection import Greedy, LayerInterface, draw
from subsettune.train.randomness import generator
from subsettune.train.transitions import Transition, TransitionContext

WITHIN = 0.02  # of the dense network's training accuracy, where picking stops
MOST_PICKS = 4  # for each unit of the bound: units picked again do not make the network wider
DECISIVE = 4.0  # difference of AICc: "considerably less support" (Burnham & Anderson 2002, section 2.6)
REJECTED = 0.01
FIRST_ITERATIONS = 4
FITTED = 3  # of a law: two parameters and the variance
FEWEST_SIZES = 3
FEWEST_THRESHOLDS = FITTED + 2  # AICc divides by n - k - 1
COLOURS = ("#1d5fa8", "#b4530a", "#2f7d32", "#7b3f98", "#a0202c", "#4f6d7a", "#8a6d00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured, at what sizes."""

    source: str
    sizes: tuple[int, ...]
    hidden: int
    bound: int
    batch_size: int
    lr: float
    longest: int
    seeds: int
    candidates: int
    examples: int
    margins: tuple[float, ...]

    @property
    def iterations(self) -> tuple[int, ...]:
        """Lengths of the pre-training: doubled from the first to the longest."""
        doublings = int(math.log2(self.longest / FIRST_ITERATIONS))
        return tuple(FIRST_ITERATIONS * 2**i for i in range(doublings + 1))

    def task(self) -> Task:
        recipe = {"lr": self.lr, "schedule": "constant", "batch_size": self.batch_size, "epochs": 1}
        raw = {
            "data": {"source": self.source},
            "split": {"validation": 0.02, "test": 0.02, "seed": 0} if self.source == "digits" else {"validation": 0.02},
            "model": {"name": "mlp", "hidden": [self.hidden]},
            "recipe": recipe,
            "tolerance": 0.01,
        }
        return config.build(Task, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A network after so many iterations, and what pruning makes of it; errors are shares of the training examples."""

    key: str
    size: int
    seed: int
    iterations: int
    dense_error: float
    pruned_error: float
    width: int
    picks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One training, pruned at all lengths of the setting."""

    setting: Setting
    size: int
    seed: int
    places: DataPaths

    def key(self, iterations: int) -> str:
        """Of the row after so many iterations."""
        s = self.setting
        how = [s.bound, s.candidates, s.examples, WITHIN, MOST_PICKS]
        return config.digest([s.task(), self.size, self.seed, iterations, how])


# --- measuring --------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Transition):
    """Between two phases on the same examples: write the weights to a file, and leave them alone."""

    summary: ClassVar[str] = "write the weights to a file"
    path: str

    def apply(self, entered: TransitionContext) -> None:
        torch.save(entered.network.state_dict(), self.path)


def measure(series: Series) -> list[Row]:
    """Train on a random part of the data, and prune what stands after each number of iterations."""
    torch.set_num_threads(1)  # two compute no faster at these sizes, and their bits differ
    task = series.setting.task()
    data = load(task, series.places)
    chooser = train.SubsetProvider(train.RunJob.of(task, policy(series, len(data.train)), series.seed, data))
    inputs, targets = data.train.batch(chooser.choose(0).subset.positions)
    return [
        _row(series, iterations, network, inputs, targets)
        for iterations, network in snapshots(series, task, len(data.train))
    ]


def policy(series: Series, num_examples: int, folder: str = "") -> Policy:
    """Random examples, of which those of a smaller size are a part; a phase for each length, written down at its end.

    Phases on the same examples are one, bit for bit.
    """
    share, total, phases = series.size / num_examples, 0, []
    for iterations in series.setting.iterations:
        passes = (iterations - total) * series.setting.batch_size / num_examples
        phase = Phase(share=share, passes=passes)
        if total:
            options = config.FrozenDict({"path": f"{folder}/{total}.pt"})
            phase = replace(phase, transition=f"{Path(__file__).stem}:Snapshot", transition_options=options)
        phases.append(phase)
        total = iterations
    return Policy(phases=tuple(phases))


def snapshots(series: Series, task: Task, num_examples: int) -> Iterator[tuple[int, nn.Sequential]]:
    """The network after each number of iterations, in evaluation mode."""
    options = train.RunOptions(keep_model=True, evaluations=1, num_threads=1, device="cpu", places=series.places)
    *earlier, longest = series.setting.iterations
    with tempfile.TemporaryDirectory() as folder:
        result = train.run(task, policy(series, num_examples, folder), series.seed, options=options)
        assert result.cause == "finished", result.message
        assert result.updates == longest, "sizes are multiples of the batch size"
        network = result.model
        assert isinstance(network, nn.Sequential)
        final = copy.deepcopy(network.eval())
        for iterations in earlier:
            network.load_state_dict(torch.load(f"{folder}/{iterations}.pt", weights_only=True))
            yield iterations, network
        yield longest, final


@torch.no_grad()
def _row(series: Series, iterations: int, network: nn.Sequential, inputs: Tensor, targets: Tensor) -> Row:
    dense = _error(network(inputs), targets)
    rng = generator(series.seed, "threshold", series.size, iterations)
    greedy, error = _pruned(_junction(network, inputs, targets), series.setting, 1 - dense - WITHIN, rng)
    return Row(
        key=series.key(iterations),
        size=series.size,
        seed=series.seed,
        iterations=iterations,
        dense_error=dense,
        pruned_error=error,
        width=int((greedy.counts > 0).sum()),
        picks=int(greedy.counts.sum()),
    )


def _junction(network: nn.Sequential, inputs: Tensor, targets: Tensor) -> LayerInterface:
    """Behind the hidden layer, for all training examples."""
    (_, stretch, following) = next(surgery.stretches(network))
    values = inputs
    for module in stretch:
        values = module(values)
    head = following[0]
    assert isinstance(head, nn.Linear)
    return LayerInterface(
        activations=surgery.by_unit(stretch, values, head), layer=head, after=(), losses=_losses, targets=targets
    )


def _pruned(whole: LayerInterface, setting: Setting, aim: float, rng: torch.Generator) -> tuple[Greedy, float]:
    """Pick units by a mini-batch until the accuracy on all examples is `aim`, or the bound is reached."""
    n = len(whole.targets)
    batch = torch.randperm(n, generator=rng)[: setting.examples]
    greedy = Greedy(
        LayerInterface(
            activations=whole.activations[batch],
            layer=whole.layer,
            after=(),
            losses=_losses,
            targets=whole.targets[batch],
        )
    )
    units, total, error = torch.arange(whole.width), torch.zeros(()), 1.0
    for count in range(1, MOST_PICKS * setting.bound + 1):
        picked = greedy.pick(draw(units, setting.candidates, rng))
        total = total + whole.contributions(torch.tensor([picked]))[0]
        error = _error(whole.outputs(total, count), whole.targets)
        if 1 - error >= aim or int((greedy.counts > 0).sum()) == setting.bound:
            break
    return greedy, error


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def _error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(dim=1) != targets).double().mean())


# --- carrying out -----------------------------------------------------------------------------------------------------


def measure_all(asked: Sequence[Series], path: Path, processes: int) -> list[Row]:
    """Rows of the series; what is on disk is not measured again, and each is written before the next is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {row.key: row for row in (Row(**raw) for raw in kept(path))}
    missing = [series for series in asked if any(series.key(t) not in done for t in series.setting.iterations)]
    start_s = time.monotonic()
    with path.open("a") as file:
        for number, (series, rows) in enumerate(completed(measure, missing, processes), start=1):
            done |= {row.key: row for row in rows}
            file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))
            file.flush()
            left_s = (time.monotonic() - start_s) * (len(missing) / number - 1)
            told = f"{series.size:,} examples, seed {series.seed}: {rows[-1].pruned_error:.4f} in the end"
            print(f"[{number}/{len(missing)}] {told}; {left_s / 60:.1f} min left", file=sys.stderr, flush=True)
    return [done[series.key(t)] for series in asked for t in series.setting.iterations]


# --- thresholds and laws ----------------------------------------------------------------------------------------------


def threshold(rows: Sequence[Row], margin: float) -> float | None:
    """t* of one size and seed; None where the first network measured is that good already, or none is."""
    rows = sorted(rows, key=lambda row: row.iterations)
    aim = rows[-1].dense_error + margin
    if rows[0].pruned_error <= aim:
        return None
    for before, after in itertools.pairwise(rows):
        if before.pruned_error > aim >= after.pruned_error:
            part = (before.pruned_error - aim) / (before.pruned_error - after.pruned_error)
            return float(before.iterations * (after.iterations / before.iterations) ** part)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """t* as a function of m with two parameters; `start` is near the best fit with relative errors."""

    name: str
    value: Callable[[Any, float, float], Any]
    start: Callable[[Any, Any], tuple[float, float]]


def _logarithm_start(m: Any, t: Any) -> tuple[float, float]:
    """The line with the least errors of (told - t*) / t*: it stays above 0 where t* is small."""
    slope, intercept = np.polyfit(np.log(m), t, 1, w=1 / t)
    return float(intercept), float(slope)


def _power_start(m: Any, t: Any) -> tuple[float, float]:
    slope, intercept = np.polyfit(np.log(m), np.log(t), 1)
    return math.exp(intercept), float(slope)


LOGARITHM = Law(name="a + b log m", value=lambda m, a, b: a + b * np.log(m), start=_logarithm_start)
POWER = Law(name="a m^b", value=lambda m, a, b: a * np.power(m, b), start=_power_start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A law fitted to thresholds; residuals are of t*, or of log t* where errors are relative."""

    law: Law
    relative: bool
    a: float
    b: float
    aicc: float
    residual: float
    lack_of_fit: float


def fit(law: Law, m: Any, t: Any, *, relative: bool) -> Fit:
    """Least squares.

    Args:
        law: of the two.
        m: (n,) sizes, each several times; n >= `FEWEST_THRESHOLDS`.
        t: (n,) thresholds.
        relative: whether errors are of log t*.
    """
    n, k = len(m), FITTED
    assert n >= FEWEST_THRESHOLDS, "fewer are not fitted"
    least = np.min(t) * 1e-3  # the line of a logarithm may pass below 0 on the way

    def residuals(parameters: Any) -> Any:
        told = law.value(m, *parameters)
        return np.log(np.maximum(told, least)) - np.log(t) if relative else told - t

    start = law.start(m, t)
    found = optimize.least_squares(residuals, start, x_scale=np.maximum(np.abs(start), 1e-6), xtol=1e-12, ftol=1e-12)
    squares = float(np.square(found.fun).sum())
    return Fit(
        law=law,
        relative=relative,
        a=float(found.x[0]),
        b=float(found.x[1]),
        aicc=n * math.log(squares / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1),
        residual=math.sqrt(squares / (n - 2)),
        lack_of_fit=_lack_of_fit(m, np.log(t) if relative else t, squares),
    )


def _lack_of_fit(m: Any, y: Any, squares: float) -> float:
    """p-value of the F test of a fit with two parameters against the spread between seeds of equal size."""
    groups = [y[m == size] for size in np.unique(m)]
    pure = float(sum(np.square(group - group.mean()).sum() for group in groups))
    lack, inside = len(groups) - 2, len(y) - len(groups)
    if lack < 1 or inside < 1 or pure == 0:
        return math.nan
    return float(stats.f.sf(max(0.0, squares - pure) / lack / (pure / inside), lack, inside))


def supported(fits: Sequence[Fit]) -> Law | None:
    """The law that wins with both kinds of errors and is not rejected; None where neither is."""
    winners = []
    for relative in (False, True):
        first, second = sorted((f for f in fits if f.relative == relative), key=lambda f: f.aicc)
        winners.append(first.law if second.aicc - first.aicc >= DECISIVE else None)
    (told,) = (f.lack_of_fit for f in fits if f.relative and f.law is winners[1]) if winners[1] else (0.0,)
    return winners[1] if winners[0] is winners[1] and told >= REJECTED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Thresholds at one margin, and what is fitted to them."""

    margin: float
    thresholds: Mapping[int, list[float]]  # by size, of the seeds that have one
    missing: int
    fits: tuple[Fit, ...]


def studied(rows: Sequence[Row], margin: float) -> Study:
    """A size of which a seed has no threshold is left out of the fits, where it would bias them."""
    by: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        by.setdefault((row.size, row.seed), []).append(row)
    found = {key: threshold(some, margin) for key, some in by.items()}
    sizes = sorted({size for size, _ in found})
    whole = {size: [t for (s, _), t in found.items() if s == size] for size in sizes}
    complete = {size: [t for t in ts if t is not None] for size, ts in whole.items() if None not in ts}
    m = np.array([size for size, ts in complete.items() for _ in ts], dtype=float)
    t = np.array([t for ts in complete.values() for t in ts])
    is_enough = len(complete) >= FEWEST_SIZES and len(t) >= FEWEST_THRESHOLDS
    laws = [(law, relative) for relative in (False, True) for law in (LOGARITHM, POWER)] if is_enough else []
    fits = [fit(law, m, t, relative=relative) for law, relative in laws]
    missing = sum(value is None for value in found.values())
    return Study(margin=margin, thresholds=complete, missing=missing, fits=tuple(fits))


# --- words and pictures -----------------------------------------------------------------------------------------------


def table_of_sizes(rows: Sequence[Row], study: Study) -> Table:
    titles = ("examples", "t*, geometric mean", "lowest", "highest", "dense error", "pruned error", "units", "picks")
    longest = max(row.iterations for row in rows)
    lines = []
    for size in sorted({row.size for row in rows}):
        last = [row for row in rows if row.size == size and row.iterations == longest]
        found = study.thresholds.get(size)
        told = ("-", "-", "-")
        if found:
            told = (f"{statistics.geometric_mean(found):,.0f}", f"{min(found):,.0f}", f"{max(found):,.0f}")
        errors = [f"{statistics.fmean(getattr(r, name) for r in last):.4f}" for name in ("dense_error", "pruned_error")]
        counts = [f"{statistics.fmean(getattr(r, name) for r in last):.1f}" for name in ("width", "picks")]
        lines.append((f"{size:,}", *told, *errors, *counts))
    note = f"Errors, units and picks after {longest:,} iterations, means over seeds."
    return Table(
        columns=tuple(Column(title=t, align="right") for t in titles),
        rows=tuple(lines),
        title=f"thresholds, margin {study.margin:g}",
        note=note,
    )


def table_of_fits(study: Study) -> Table:
    titles = ("errors", "law", "a", "b", "residual", "AICc", "lack of fit, p")
    lines = [
        (
            "relative" if f.relative else "absolute",
            f.law.name,
            f"{f.a:.4g}",
            f"{f.b:.4g}",
            f"{f.residual:.3g}",
            f"{f.aicc:.1f}",
            f"{f.lack_of_fit:.2g}",
        )
        for f in study.fits
    ]
    columns = tuple(Column(title=t, align="left" if t in ("errors", "law") else "right") for t in titles)
    return Table(columns=columns, rows=tuple(lines), title=f"laws, margin {study.margin:g}", note="")


def verdict(study: Study) -> str:
    """What the fits show, in words."""
    told = f"Margin {study.margin:g}: "
    if len(study.thresholds) < FEWEST_SIZES:
        return f"{told}too few sizes have a threshold with every seed ({study.missing} are missing) to fit a law."
    if not study.fits:
        count = sum(len(ts) for ts in study.thresholds.values())
        have = f"{count} thresholds ({study.missing} are missing)"
        return f"{told}{have} are too few to fit a law, which takes {FEWEST_THRESHOLDS}. Give more seeds or sizes."
    left_out = f" Thresholds that are missing: {study.missing}; their sizes are left out." if study.missing else ""
    law = supported(study.fits)
    if law is not None:
        return f"{told}the law t* = {law.name} is supported.{left_out}"
    reasons = []
    for relative in (False, True):
        first, second = sorted((f for f in study.fits if f.relative == relative), key=lambda f: f.aicc)
        kind, better = "relative" if relative else "absolute", second.aicc - first.aicc
        rejected = " and is rejected by the test of lack of fit" if first.lack_of_fit < REJECTED else ""
        reasons.append(f"with {kind} errors {first.law.name} is lower by {better:.1f}{rejected}")
    return f"{told}neither law is supported: in AICc, {'; '.join(reasons)}.{left_out}"


def conclusion(studies: Sequence[Study]) -> str:
    """Whether one law holds whatever the margin, as a rule for other tasks would have to."""
    laws = {law.name if law is not None else None for law in (supported(study.fits) for study in studies if study.fits)}
    if len(laws) == 1 and None not in laws and all(study.fits for study in studies):
        return f"At every margin the law t* = {laws.pop()} is supported."
    return "No one law is supported at every margin: the thresholds give no rule for how long to pre-train."


def picture_of_errors(rows: Sequence[Row]) -> dict[str, Any]:
    data = []
    for number, size in enumerate(sorted({row.size for row in rows})):
        lengths = sorted({row.iterations for row in rows if row.size == size})
        for name, dash in (("pruned", "solid"), ("dense", "dot")):
            means = [
                statistics.fmean(
                    getattr(row, f"{name}_error") for row in rows if (row.size, row.iterations) == (size, length)
                )
                for length in lengths
            ]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{size:,}, {name}",
                    "x": lengths,
                    "y": means,
                    "line": {"color": COLOURS[number % len(COLOURS)], "dash": dash},
                }
            )
    x = {"title": "pre-training iterations", "type": "log"}
    y = {"title": "training error, mean over seeds"}
    return figure("After pruning, and of the dense network, by size of the data", x, y, data)


def picture_of_thresholds(study: Study) -> dict[str, Any]:
    points = [(size, t) for size, ts in study.thresholds.items() for t in ts]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "seeds",
            "x": [size for size, _ in points],
            "y": [t for _, t in points],
            "marker": {"color": COLOURS[0]},
        }
    ]
    sizes = np.geomspace(min(study.thresholds), max(study.thresholds), 60) if study.fits else np.array([])
    for number, f in enumerate(study.fits):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{f.law.name}, {'relative' if f.relative else 'absolute'} errors",
                "x": sizes.tolist(),
                "y": f.law.value(sizes, f.a, f.b).tolist(),
                "line": {"color": COLOURS[1 + number], "dash": "solid" if f.relative else "dot"},
            }
        )
    x, y = {"title": "training examples", "type": "log"}, {"title": "t*, iterations", "type": "log"}
    return figure(f"Threshold of pre-training, margin {study.margin:g}", x, y, data)


FULL = Setting(
    source="mnist",
    sizes=(512, 1024, 2048, 4096, 8192, 16_384, 32_768),
    hidden=256,
    bound=128,
    batch_size=64,
    lr=0.1,
    longest=8192,
    seeds=5,
    candidates=50,
    examples=512,
    margins=(0.03, 0.05, 0.1),
)
QUICK = Setting(
    source="digits",
    sizes=(256, 512, 1024),
    hidden=64,
    bound=48,
    batch_size=64,
    lr=0.1,
    longest=512,
    seeds=2,
    candidates=20,
    examples=256,
    margins=(0.1,),
)


def read_setting() -> tuple[Setting, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small data, seconds")
    parser.add_argument("--data-root", help="torchvision's root of MNIST")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of examples, multiples of 64")
    parser.add_argument("--hidden", type=int, help="width of the dense network")
    parser.add_argument("--bound", type=int, help="width of the pruned network at most")
    parser.add_argument("--longest", type=int, help="iterations of the longest pre-training, a power of 2")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--candidates", type=int, help="random units that a pick looks at")
    parser.add_argument("--margins", type=float, nargs="+", help="of the threshold's training error")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("pretraining_threshold"), help="folder of results and figures")
    given = parser.parse_args()
    chosen = QUICK if given.quick else FULL
    asked = {name: value for name, value in vars(given).items() if hasattr(chosen, name) and value is not None}
    changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in asked.items()}
    setting = replace(chosen, **changes)
    if any(size % setting.batch_size for size in setting.sizes):
        parser.error(f"--sizes must be multiples of {setting.batch_size}, got {list(setting.sizes)}.")
    return setting, given


def main() -> None:
    setting, given = read_setting()
    places = DataPaths(data_root=given.data_root)
    asked = [
        Series(setting=setting, size=size, seed=seed, places=places)
        for seed in range(setting.seeds)
        for size in setting.sizes
    ]
    rows = measure_all(asked, given.out / "rows.jsonl", given.jobs)
    studies = [studied(rows, margin) for margin in setting.margins]
    heading = (
        f"{setting.source}, {setting.hidden} hidden units, SGD with learning rate {setting.lr:g} and batches of "
        f"{setting.batch_size}; pruned to {setting.bound} units at most, {setting.candidates} candidates a pick on "
        f"{setting.examples} examples."
    )
    blocks: list[str | Table] = [heading]
    for study in studies:
        blocks += [table_of_sizes(rows, study), *([table_of_fits(study)] if study.fits else []), verdict(study)]
    blocks += [conclusion(studies)]
    text = render(blocks, width=150) + f"\nn = {setting.seeds} seeds, one thread on cpu, torch {torch.__version__}\n"
    print(text, end="")
    (given.out / "report.txt").write_text(text)
    figures = [picture_of_errors(rows), *(picture_of_thresholds(study) for study in studies)]
    (given.out / "report.html").write_text(page("How much pre-training before pruning", figures, text))


if __name__ == "__main__":
    main()
