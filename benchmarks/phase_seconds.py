"""Seconds that a charged FLOP takes, by the kind of phase: how much of what a policy saves in FLOPs it saves in time.

Each kind trains a task for the same allowance of passes, alternately with all data in the uniform order ("full"), one
thread each. Seconds are the processor's, of training and selection, evaluation apart; what is told is the ratio of
seconds per charged FLOP to that of full beside it: 1 where a saving in FLOPs is one in time, 2 where half of it is
lost. Medians of paired ratios with 95 % bootstrap intervals.

    python benchmarks/phase_seconds.py --data-root DIR
    python benchmarks/phase_seconds.py --tasks digits --kinds sift prune --pairs 20
    python benchmarks/phase_seconds.py --before OTHER_CHECKOUT --data-root DIR

One thread of a Xeon that others used as well, n = 10 pairs, and n = 6 where marked *; "was" is the code before pooling
without gradients, modes and blocks of pruned candidates were made faster, at the same bits:

| | MNIST was | MNIST | digits was | digits |
|---|---|---|---|---|
| sift | 1.59 [1.49, 1.76] | 1.21 [1.09, 1.42] | 2.15 [1.95, 2.32]* | 2.01 [1.96, 2.07] |
| selective_backprop | 1.12 [1.06, 1.19] | 0.79 [0.74, 0.84] | 1.62 [1.51, 1.75]* | 1.64 [1.57, 1.74] |
| prune | 3.57 [3.37, 3.91]* | 2.20 [2.14, 2.31] | 6.37 [5.10, 6.59]* | 2.90 [2.81, 3.09] |
| infobatch | 1.00 [0.90, 1.09]* | | 1.89 [1.60, 2.12]* | |
| soup | 1.00 [0.93, 1.12]* | | 1.51 [1.42, 1.63]* | |
| small subset | 0.97 [0.89, 1.07]* | | 1.26 [1.17, 1.38]* | |

What is left is work that no FLOPs are charged for: on digits, an update of 64 examples takes as long as one of 32; on
MNIST, a network of half the width moves as many bytes for each number that it computes.

With `--before`, each run is also made by the code of another checkout, in a second process that lives as long, in
alternating order; then the ratio told is that of our seconds to theirs, and final weights must agree bit for bit, or
the row says that they do not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

DIGITS: Mapping[str, Any] = {
    "data": {"source": "digits"},
    "split": {"validation": 0.1, "test": 0.3, "seed": 0},
    "model": {"name": "mlp", "hidden": [64]},
    "recipe": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 30},
    "tolerance": 0.01,
}
MNIST: Mapping[str, Any] = {
    "data": {"source": "mnist"},
    "split": {"validation": 0.1, "seed": 0},
    "model": {"name": "cnn", "channels": [8, 16], "hidden": 32},
    "recipe": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 128, "epochs": 10},
    "tolerance": 0.002,
}
TREC: Mapping[str, Any] = {
    "data": {"source": "trec/", "text": "text", "label": "label", "tokens": "words", "max_tokens": 24},
    "split": {"validation": 0.1, "seed": 0},
    "model": {"name": "transformer", "width": 32, "depth": 2, "heads": 4, "feedforward": 64, "dropout": 0.1},
    "recipe": {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 1e-2, "batch_size": 32, "epochs": 10},
    "tolerance": 0.01,
}
TASKS: Mapping[str, tuple[Mapping[str, Any], float]] = {  # with the passes of a run
    "digits": (DIGITS, 6.0),
    "mnist": (MNIST, 0.1),
    "trec": (TREC, 0.3),
}
KINDS: Mapping[str, list[dict[str, Any]]] = {  # phases; passes are shares of those of the run
    "full": [{"passes": 1.0}],
    "small subset": [{"share": 0.1, "passes": 1.0}],
    "rs2": [{"passes": 1.0, "order": "rs2", "order_options": {"share": 0.1}}],
    "infobatch": [{"passes": 1.0, "order": "infobatch"}],
    "selective_backprop": [{"passes": 1.0, "order": "selective_backprop"}],
    "sift": [{"passes": 1.0, "order": "sift"}],
    "prune": [{"passes": 0.1}, {"passes": 0.9, "transition": "prune", "transition_options": {"keep": 0.5}}],
    "soup": [{"passes": 0.9, "soup": {"workers": 4, "density": 0.5}}, {"passes": 0.1}],
    "soup together": [{"passes": 0.9, "soup": {"workers": 4, "density": 0.5}}, {"passes": 0.1}],
}
SEED = 0


# --- the process that trains ------------------------------------------------------------------------------------------


def serve(data_root: str | None, cache: str | None) -> None:
    """Carry out what is asked for, a line of JSON each, until the input ends."""
    import torch

    from subsettune import config, train
    from subsettune.data import DataPaths
    from subsettune.errors import SubsettuneError
    from subsettune.policy import Policy
    from subsettune.task import Task

    torch.set_num_threads(1)
    places = DataPaths(data_root=data_root) if cache is None else DataPaths(data_root=data_root, cache=cache)
    for line in sys.stdin:
        asked = json.loads(line)
        task, policy = config.build(Task, asked["task"]), config.build(Policy, {"phases": asked["phases"]})
        workers: Literal["auto", "together"] = "together" if asked["kind"] == "soup together" else "auto"
        options = train.RunOptions(
            evaluations=1, device="cpu", num_threads=1, places=places, keep_model=True, soup_workers=workers
        )
        try:
            result = train.run(task, policy, SEED, clock=time.process_time, options=options)
        except SubsettuneError as error:  # not every network can be pruned for such a price, for one
            print(json.dumps({"refused": str(error)}), flush=True)
            continue
        weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in result.model.parameters()))
        told = {"seconds": result.train_s + result.select_s, "select_s": result.select_s, "flops": result.ledger.spent}
        print(json.dumps({**told, "updates": result.updates, "weights": weights.hexdigest()}), flush=True)


class Trainer:
    """A process that trains with the code of one checkout."""

    def __init__(self, checkout: Path, data_root: str | None, cache: str | None) -> None:
        words = [sys.executable, str(Path(__file__).resolve()), "--serve"]
        words += ["--data-root", data_root] if data_root is not None else []
        words += ["--cache", cache] if cache is not None else []
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
        )

    def run(self, name: str, kind: str) -> dict[str, Any]:
        """Train a task by a kind of phase."""
        task, passes = TASKS[name]
        phases = [{**phase, "passes": phase["passes"] * passes} for phase in KINDS[kind]]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"task": task, "phases": phases, "kind": kind}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{kind} on {name} failed; see above.")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# --- pairs ------------------------------------------------------------------------------------------------------------


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def paired(first: tuple[Trainer, str], second: tuple[Trainer, str], name: str, pairs: int) -> list[Any]:
    """What two ways to train told, in alternating order; a first pair warms up and is left out.

    Empty where a run is refused.
    """
    found = []
    for number in range(pairs + 1):
        order = (first, second) if number % 2 else (second, first)
        told = [trainer.run(name, kind) for trainer, kind in order]
        found.append(told if number % 2 else told[::-1])
        if any("refused" in one for one in told):
            return []
    return found[1:]


def words(ratios: Sequence[float]) -> str:
    """A median with its interval."""
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def by_kind(trainer: Trainer, name: str, kinds: Sequence[str], pairs: int) -> None:
    """Print seconds per FLOP of each kind over those of all data."""
    print(f"| {name} | seconds per FLOP over full's | us an update | n |\n|---|---|---|---|", flush=True)
    for kind in kinds:
        found = paired((trainer, kind), (trainer, "full"), name, pairs)
        if not found:
            print(f"| {kind} | refused | | |", flush=True)
            continue
        ratios = [(a["seconds"] / a["flops"]) / (b["seconds"] / b["flops"]) for a, b in found]
        update_us = statistics.median(1e6 * a["seconds"] / a["updates"] for a, _ in found)
        print(f"| {kind} | {words(ratios)} | {update_us:.0f} | {pairs} |", flush=True)


def beside(now: Trainer, before: Trainer, name: str, kinds: Sequence[str], pairs: int) -> None:
    """Print our seconds over theirs."""
    print(f"| {name} | seconds now over before | same bits | n |\n|---|---|---|---|", flush=True)
    for kind in kinds:
        found = paired((now, kind), (before, kind), name, pairs)
        if not found:
            print(f"| {kind} | refused | | |", flush=True)
            continue
        ratios = [a["seconds"] / b["seconds"] for a, b in found]
        same = all(a["weights"] == b["weights"] and a["flops"] == b["flops"] for a, b in found)
        print(f"| {kind} | {words(ratios)} | {'yes' if same else 'no'} | {pairs} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--data-root")
    parser.add_argument("--cache", help="default: the user's")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.data_root, given.cache)
        return
    now = Trainer(Path(__file__).resolve().parents[1], given.data_root, given.cache)
    before = None if given.before is None else Trainer(given.before.resolve(), given.data_root, given.cache)
    for name in given.tasks:
        if before is None:
            by_kind(now, name, given.kinds, given.pairs)
        else:
            beside(now, before, name, given.kinds, given.pairs)
    for trainer in (now, before):
        if trainer is not None:
            trainer.close()


if __name__ == "__main__":
    main()
