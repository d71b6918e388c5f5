"""What each selector costs: seconds and memory for n x d numbers in 10 classes, and facility location beside others.

Each case runs in a process of its own, with so many threads, on made-up data: ten Gaussian clusters that overlap, and
a linear layer on the features as the network, for the selectors that look at one. Seconds are the clock's and the
processor's: on a machine that others use as well, only the second are a fair measure. Memory is what the process
needed at its peak beyond what it held before choosing: the data and the libraries.

    python benchmarks/selection.py                                     every selector, 50,000 x 512, k = 5,000
    python benchmarks/selection.py --only kcenter --n 10000 --k 1000
    python benchmarks/selection.py --compare --n 10000 --k 1000        beside public implementations, where installed

`--compare` sets facility location beside apricot-select (`pip install apricot-select`, which takes an n x n matrix of
float64: choose --n to fit), on all examples together and on each class. Both objectives, sum_i max_{j in S}
(d_max - d_ij) with Euclidean distances, are computed by the same code here. apricot's own objective has squared
distances, so each is also given with those. kcenter is set beside plain greedy k-center, which computes one column of
distances with scikit-learn for each pick. `--python` names another interpreter that holds apricot-select.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

CLASSES, SEED = 10, 0
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def made_up(n: int, d: int) -> tuple[Floats, Ints]:
    """(n, d) features and (n,) classes: unit Gaussians around ten centers that are drawn from the same."""
    rng = np.random.default_rng(SEED)
    classes = rng.permutation(np.arange(n) % CLASSES)
    x = rng.standard_normal((n, d), dtype=np.float32)
    centers = rng.standard_normal((CLASSES, d), dtype=np.float32)
    for rows in np.array_split(np.arange(n), -(-n // 1000)):  # the peak of memory is to be that of choosing
        x[rows[0] : rows[-1] + 1] += centers[classes[rows]]
    return x, classes


# --- one case, in a process of its own --------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds and bytes of some work, and what it gave."""
    held, clock, processor = peak_bytes(), time.perf_counter(), time.process_time()
    found = work()
    seconds = time.perf_counter() - clock, time.process_time() - processor
    return {"clock_s": seconds[0], "processor_s": seconds[1], "bytes": peak_bytes() - held}, found


def selector_case(name: str, options: dict[str, Any], x: Floats, classes: Ints, k: int) -> tuple[dict[str, float], Any]:
    """A selector of the registry, a look at the network included."""
    import torch

    from subsettune import select

    selector = select.make(name, options)
    context = made_up_context(x, classes, selector)

    def choose() -> Any:
        return selector.select(context, k, rng=torch.Generator().manual_seed(SEED)).positions.numpy()

    costs, picks = measured(choose)
    return {**costs, "charged": selector.flops(context.facts, k)}, picks


def made_up_context(x: Floats, classes: Ints, selector: Any) -> Any:
    """All that a selector may look at: the data, and linear layers with made-up weights as networks."""
    import torch

    from subsettune.config import FrozenDict
    from subsettune.facts import TaskFacts
    from subsettune.select import SelectionContext
    from subsettune.select.network import ModelView

    (n, d), inputs, targets = x.shape, torch.from_numpy(x), torch.from_numpy(classes)
    counts = tuple(torch.bincount(targets).tolist())
    part = _Arrays(inputs, targets)
    facts = TaskFacts(
        num_examples=n,
        num_outputs=CLASSES,
        num_parameters=(d + 1) * CLASSES,
        forward_flops=2 * d * CLASSES,
        backward_flops=4 * d * CLASSES,
        reference_passes=10,
        num_features=d,
        num_classes=CLASSES,
        smallest_class=min(counts),
        class_counts=counts,
        head_features=d,
        layers=FrozenDict({"1": CLASSES}),
    )
    need, rng = selector.model_need, torch.Generator().manual_seed(SEED)
    views = []
    for _ in range(0 if need is None else need.runs):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, d, CLASSES)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(std=d**-0.5, generator=rng)
        forgotten = torch.randint(-1, 5, (n,), generator=rng) if need.events else None
        views.append(ModelView(torch.nn.Sequential(torch.nn.Flatten(), layer), part, forgotten=forgotten))
    return SelectionContext(part=part, facts=facts, models=tuple(views))


@dataclass(frozen=True)
class _Arrays:
    """A training part made of two tensors."""

    inputs: Any
    targets: Any

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Any) -> tuple[Any, Any]:
        return self.inputs[index], self.targets[index]


def apricot_case(by_class: bool, x: Floats, classes: Ints, k: int) -> tuple[dict[str, float], Any]:
    """apricot-select's facility location with lazy greedy, its faster optimizer; compiled before it is timed."""
    from apricot import FacilityLocationSelection  # type: ignore[import-not-found]

    def fit(rows: Floats, k: int) -> Ints:
        ranking: Ints = FacilityLocationSelection(k, metric="euclidean", optimizer="lazy").fit(rows).ranking
        return ranking

    def choose() -> Ints:
        if not by_class:
            return fit(x, k)
        groups = [np.flatnonzero(classes == c) for c in range(CLASSES)]
        return np.concatenate([group[fit(x[group], k // CLASSES)] for group in groups])

    fit(x[:50], 5)
    return measured(choose)


def plain_kcenter_case(x: Floats, k: int) -> tuple[dict[str, float], Any]:
    """Gonzalez' greedy as it is usually written, with scikit-learn's distances."""
    from sklearn.metrics import pairwise_distances

    def choose() -> Ints:
        picks, nearest = [0], np.full(len(x), np.inf, dtype=np.float32)
        while len(picks) < k:
            nearest = np.minimum(nearest, pairwise_distances(x, x[picks[-1:]])[:, 0])
            picks.append(int(nearest.argmax()))
        return np.array(picks)

    return measured(choose)


def run_case(case: dict[str, Any]) -> None:
    """Child process: run a case and print its numbers; the picks go to a file."""
    if case["kind"] != "apricot":
        import torch

        torch.set_num_threads(case["threads"])
    x, classes = made_up(case["n"], case["d"])
    kinds: dict[str, Callable[[], tuple[dict[str, float], Any]]] = {
        "selector": lambda: selector_case(case["name"], case["options"], x, classes, case["k"]),
        "apricot": lambda: apricot_case(case["by_class"], x, classes, case["k"]),
        "kcenter": lambda: plain_kcenter_case(x, case["k"]),
    }
    costs, picks = kinds[case["kind"]]()
    np.save(case["picks"], picks)
    print(json.dumps(costs))


# --- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Numbers of a case, and what it picked."""

    costs: dict[str, float]
    picks: Ints

    @property
    def cells(self) -> list[str]:
        charged = f"{self.costs['charged'] / 1e12:.3g}" if "charged" in self.costs else "-"
        seconds = [f"{self.costs[kind]:.2f}" for kind in ("clock_s", "processor_s")]
        return [*seconds, f"{self.costs['bytes'] / 2**20:,.0f}", charged]


def run(case: dict[str, Any], given: argparse.Namespace, python: str = sys.executable) -> Result | str:
    """Run a case in a fresh process; the last line of what it complained of if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"n": given.n, "d": given.d, "k": given.k, "threads": given.threads}
        full = {**sizes, **case, "picks": str(Path(folder) / "picks.npy")}
        environment = {**os.environ, **dict.fromkeys(THREADS, str(given.threads))}
        command = [python, __file__, "--case", json.dumps(full)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["it died"])[-1]
        return Result(json.loads(done.stdout.splitlines()[-1]), np.load(full["picks"]))


def objectives(x: Floats, picks: Ints) -> tuple[float, float]:
    """sum_i max_{j in S} (d_max - d_ij) of distances and of squared ones; d_max is twice the largest length.

    In float64, by one subtraction for each number, with nothing of what is measured.
    """
    rows = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    largest = 2 * float(np.sqrt((rows**2).sum(1).max()))
    nearest = np.concatenate([cdist(block, rows[picks]).min(1) for block in np.array_split(rows, -(-len(x) // 512))])
    return float((largest - nearest).sum()), float((largest**2 - nearest**2).sum())


def table(given: argparse.Namespace) -> None:
    """Every selector of the registry. Networks are there already: what training them is charged is not in the table."""
    from subsettune import select

    print("| selector | clock, s | processor, s | memory, MiB | charged, TFLOP |\n|---|---|---|---|---|")
    for name in select.SELECTORS:
        if given.only and name not in given.only:
            continue
        result = run({"kind": "selector", "name": name, "options": given.options}, given)
        cells = [result] if isinstance(result, str) else result.cells
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def compare(given: argparse.Namespace) -> None:
    """Facility location and k-center beside others."""
    x, _ = made_up(given.n, given.d)
    print("| facility location | clock, s | processor, s | memory, MiB | objective | of squares |")
    print("|---|---|---|---|---|---|")
    found: dict[str, tuple[Result, float]] = {}
    for title, (case, python) in comparison(given.python).items():
        result = run(case, given, python)
        if isinstance(result, str):
            print(f"| {title} | {result} |")
            continue
        plain, squared = objectives(x, result.picks)
        found[title] = result, plain
        print(f"| {title} | {' | '.join([*result.cells[:3], f'{plain:.6g}', f'{squared:.6g}'])} |", flush=True)
    for title, other in PAIRS:
        if title in found and other in found:
            print(f"{title} beside {other}: {beside(found[title], found[other])}")
    compare_kcenter(given)


PAIRS = (
    ("each class", "apricot, together"),
    ("together, 64 dimensions", "apricot, together"),
    ("together", "apricot, together"),
    ("each class", "apricot, each class"),
)


def comparison(python: str) -> dict[str, tuple[dict[str, Any], str]]:
    """Cases by title, each with its interpreter."""

    def ours(**options: object) -> tuple[dict[str, Any], str]:
        return {"kind": "selector", "name": "facility_location", "options": options}, sys.executable

    return {
        "each class": ours(),
        "together": ours(classes="none"),
        "together, 64 dimensions": ours(classes="none", features="projection", dimensions=64),
        "together, samples of 8": ours(classes="none", method="stochastic", sample=8),
        "apricot, together": ({"kind": "apricot", "by_class": False}, python),
        "apricot, each class": ({"kind": "apricot", "by_class": True}, python),
    }


def beside(ours: tuple[Result, float], other: tuple[Result, float]) -> str:
    """Ratios of seconds and of the objective."""
    seconds = [other[0].costs[kind] / ours[0].costs[kind] for kind in ("clock_s", "processor_s")]
    share = ours[1] / other[1]
    return f"{seconds[0]:.1f} times faster by the clock, {seconds[1]:.1f} by the processor, objective {share:.4f} of it"


def compare_kcenter(given: argparse.Namespace) -> None:
    """Ours beside plain greedy, whose first pick is another."""
    ours = run({"kind": "selector", "name": "kcenter", "options": {}}, given)
    plain = run({"kind": "kcenter"}, given)
    if isinstance(ours, str) or isinstance(plain, str):
        print(f"kcenter: {ours if isinstance(ours, str) else plain}")
        return
    seconds = [plain.costs[kind] / ours.costs[kind] for kind in ("clock_s", "processor_s")]
    print(f"kcenter beside plain greedy: {seconds[0]:.1f} times faster by the clock, {seconds[1]:.1f} by the processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="names of selectors")
    parser.add_argument("--options", type=json.loads, default={}, help="options of the selectors, as JSON")
    parser.add_argument("--compare", action="store_true", help="beside public implementations")
    parser.add_argument("--python", default=sys.executable, help="interpreter that holds apricot-select")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        run_case(json.loads(given.case))
    elif given.compare:
        compare(given)
    else:
        table(given)


if __name__ == "__main__":
    main()
