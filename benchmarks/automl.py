"""What a policy saves within AutoML: FLAML and AutoGluon on Adult, with a network that follows a bundle or does not.

Paired by seed: the bundle's recipe as it stands, the bundle, and (where the bundle chooses a subset) its recipe on all
rows in as many passes. FLAML searches the learning rate of each in as many trials on a holdout and trains the best on
all rows; AutoGluon bags five folds. Compute is that of all trainings of a fit, trials and folds included; seconds are
those of the whole fit, of the clock and of the processor: where others use the machine, only the second are fair. The
accuracy is that of the test file, which the bundle was confirmed on, with other seeds.

    python benchmarks/convert/adult.py SOURCE_DIR DIR
    subsettune tune search_spaces/adult.yaml --data-root DIR
    python benchmarks/automl.py runs/adult-1/bundle --data-root DIR --out automl.jsonl

Needs `pip install "subsettune[tune,flaml,autogluon]"`. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import Interval, kept

from subsettune.bundle import Bundle
from subsettune.text import share_words

LABEL, TRIALS, FOLDS = "income", 6, 5
RECIPE, POLICY, SHORTER = "recipe", "policy", "shorter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What one fit of a host took: compute of all its trainings, and its seconds."""

    host: str
    arm: str
    seed: int
    accuracy: float
    flops: int
    trainings: int
    clock_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Rows, and settings of the estimator."""

    train: Any
    test: Any
    settings: Mapping[str, Any]
    seed: int


def arms(folder: str) -> dict[str, dict[str, Any]]:
    """Settings of each arm."""
    bundle = Bundle.load(folder)
    model = {"module": bundle.task.model.name, "module_options": dict(bundle.task.model.options)}
    plain = {**model, "recipe": bundle.task.recipe.to_mapping()}
    found: dict[str, dict[str, Any]] = {RECIPE: plain, POLICY: {"policy": folder}}
    if any(not phase.is_full for phase in bundle.policy.phases):
        passes = {"phases": [{"passes": bundle.policy.passes}], "recipe": dict(bundle.policy.recipe)}
        found[SHORTER] = {**plain, "policy": passes}
    return found


# --- hosts ------------------------------------------------------------------------------------------------------------


def with_flaml(asked: Asked) -> tuple[float, int, int]:
    """Accuracy, FLOPs of all trainings, and how many they were."""
    from flaml import AutoML

    from subsettune.integrations.flaml import SubsetLearner

    spent: list[int] = []

    class Learner(SubsetLearner):
        settings: Mapping[str, Any] = {**asked.settings, "device": "cpu", "random_state": asked.seed}  # type: ignore[misc]

        def fit(self, *given: Any, **named: Any) -> float:
            seconds = super().fit(*given, **named)
            spent.append(self._model[-1].ledger_.spent)
            return seconds

    automl = AutoML()
    automl.add_learner("subset", Learner)
    automl.fit(
        asked.train.drop(columns=LABEL),
        asked.train[LABEL],
        task="classification",
        metric="accuracy",
        estimator_list=["subset"],
        eval_method="holdout",
        time_budget=-1,
        max_iter=TRIALS,
        n_jobs=1,
        seed=asked.seed,
        verbose=0,
    )
    right = automl.predict(asked.test.drop(columns=LABEL)) == asked.test[LABEL].to_numpy()
    return float(right.mean()), sum(spent), len(spent)


def with_autogluon(asked: Asked) -> tuple[float, int, int]:
    """Likewise."""
    from autogluon.tabular import TabularPredictor

    from subsettune.integrations.autogluon import SubsetModel

    settings = {**asked.settings, "device": "cpu", "random_state": asked.seed, "ag_args_fit": {"num_cpus": 1}}
    settings["ag.ens.fold_fitting_strategy"] = "sequential_local"
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(label=LABEL, path=folder, verbosity=0, eval_metric="accuracy").fit(
            asked.train,
            hyperparameters={SubsetModel: settings},
            num_bag_folds=FOLDS,
            num_bag_sets=1,
            num_stack_levels=0,
            fit_weighted_ensemble=False,
            raise_on_model_failure=True,
        )
        bag = predictor._trainer.load_model(predictor.model_names()[0])
        spent = [bag.load_child(child).model[-1].ledger_.spent for child in bag.models]
        right = predictor.predict(asked.test) == asked.test[LABEL]
    return float(right.mean()), sum(spent), len(spent)


HOSTS = {"flaml": with_flaml, "autogluon": with_autogluon}


def fit(host: str, arm: str, asked: Asked) -> Fit:
    """One fit, measured."""
    clock, cpu = time.perf_counter(), time.process_time()
    accuracy, flops, trainings = HOSTS[host](asked)
    return Fit(
        host=host,
        arm=arm,
        seed=asked.seed,
        accuracy=accuracy,
        flops=flops,
        trainings=trainings,
        clock_s=time.perf_counter() - clock,
        cpu_s=time.process_time() - cpu,
    )


# --- what it comes to -------------------------------------------------------------------------------------------------


def ratio(fits: Sequence[Fit], arm: str, name: str) -> str:
    """Geometric mean of an arm's share of the recipe's, over paired seeds."""
    own, plain = ({one.seed: math.log(getattr(one, name)) for one in fits if one.arm == each} for each in (arm, RECIPE))
    found = Interval.between(own, plain)
    return f"{math.exp(found.mean):.3f} [{math.exp(found.low):.3f}, {math.exp(found.high):.3f}]"


def table(fits: Sequence[Fit]) -> str:
    """Each host and arm beside the recipe of the same seeds, with intervals of 95 %."""
    lines = [
        "| host | network | n | accuracy | minus the recipe's, points | compute | clock | processor |",
        "|---" * 8 + "|",
    ]
    for host in HOSTS:
        here = [one for one in fits if one.host == host]
        for arm in dict.fromkeys(one.arm for one in here):
            accuracy = {one.seed: 100 * one.accuracy for one in here if one.arm == arm}
            plain = {one.seed: 100 * one.accuracy for one in here if one.arm == RECIPE}
            cells = [host, arm, str(len(accuracy)), f"{sum(accuracy.values()) / len(accuracy):.2f} %"]
            cells += [Interval.between(accuracy, plain).words(2)]
            cells += [ratio(here, arm, name) for name in ("flops", "clock_s", "cpu_s")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def carry_out(bundle: str, tables: tuple[Any, Any], seeds: int, hosts: Sequence[str], out: Path) -> list[Fit]:
    """All fits; what is on disk is not made again. Every other seed takes the arms the other way round."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fits = [Fit(**row) for row in kept(out)]
    done = {(one.host, one.arm, one.seed) for one in fits}
    for seed in range(seeds):
        settings = list(arms(bundle).items())
        for host in hosts:
            for arm, given in settings if seed % 2 else reversed(settings):
                if (host, arm, seed) in done:
                    continue
                fits.append(fit(host, arm, Asked(train=tables[0], test=tables[1], settings=given, seed=seed)))
                with out.open("a") as file:
                    file.write(json.dumps(asdict(fits[-1])) + "\n")
                print(fits[-1], flush=True)
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--host", choices=tuple(HOSTS), action="append")
    parser.add_argument("--out", type=Path, default=Path("automl.jsonl"))
    given = parser.parse_args()
    import pandas as pd
    import torch

    torch.set_num_threads(1)
    folder = Path(given.data_root, "adult")
    tables = (pd.read_parquet(folder / "train.parquet"), pd.read_parquet(folder / "test.parquet"))
    fits = carry_out(given.bundle, tables, given.seeds, given.host or tuple(HOSTS), given.out)
    bundle = Bundle.load(given.bundle)
    packages = ("flaml", "autogluon.tabular", "torch", "scikit-learn", "numpy")
    print(f"The bundle: {share_words(bundle.policy.cost(bundle.facts) / bundle.facts.reference_flops)} of its recipe.")
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages))
    print(table(sorted(fits, key=lambda one: (one.host, one.arm != RECIPE, one.arm, one.seed))))


if __name__ == "__main__":
    main()
