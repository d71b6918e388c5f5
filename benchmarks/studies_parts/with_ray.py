"""One search with Ray Tune and OptunaSearch, as it is written by hand, beside the same with Optuna alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import optuna

from studies_parts.baselines import Pick, Purse, objective, optuna_search, suggested
from studies_parts.splits import Trained, places_of
from studies_parts.tables import Known
from studies_parts.tasks import digits_study
from subsettune.policy import conventional
from subsettune.study.execute import ray_start
from subsettune.study.spec.space import Space

BENCHMARKS = Path(__file__).parents[1]
SPLIT = 0


def both(out: Path, trials: int) -> str:
    """What each comes to on one split, with one seed of the sampler.

    Args:
        out: folder of what is kept.
        trials: of each.
    """
    alone = optuna_search(_field(out), _space(), trials, seed=0)
    with_ray = ray_search(out.absolute(), trials)
    same = alone.policy is not None and with_ray.policy is not None and alone.policy.key == with_ray.policy.key
    told = "the same policy" if same else "other policies"
    beside = f"{_words(with_ray, out)}; {_words(alone, out)}"
    return f"Ray Tune with OptunaSearch and Optuna alone, {trials} trials, split {SPLIT}: {told} ({beside})."


def _words(pick: Pick, out: Path) -> str:
    if pick.policy is None:
        return f"none for {pick.spent:.1f} conventional trainings"
    field = _field(out)
    cost = pick.policy.cost(field.facts) / field.facts.reference_flops
    return f"cost {cost:.3f} for {pick.spent:.1f} conventional trainings"


def _field(out: Path) -> Trained:
    task = digits_study(SPLIT).task
    return Trained(Known.of(task, places_of(out)), places_of(out), out / f"runs-{SPLIT}.jsonl")


def _space() -> Space:
    return Space.from_mapping(digits_study(SPLIT).space)


def asks(trial: optuna.Trial) -> dict[str, Any]:
    """The space as OptunaSearch takes it: a function that asks for each coordinate."""
    return {"point": suggested(trial, _space())}


def ray_search(out: Path, trials: int) -> Pick:
    """Ray Tune's own loop: trials one at a time, told to OptunaSearch, and the best of them is believed."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    field, space = _field(out), _space()
    purse = Purse(field)
    target = field.task.target(purse.validation(conventional(field.facts), 0))

    def trainable(config: dict[str, Any]) -> dict[str, float]:
        own = _field(out)
        paid, policy = Purse(own), _space().policy(config["point"], own.facts)
        value = paid.validation(policy, 0)
        cost = policy.cost(own.facts) / own.facts.reference_flops
        return {"score": objective(value, cost, target, own.task), "spent": paid.spent}

    os.environ["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    ray_start.start(lambda message: None)
    try:
        found = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(asks, metric="score", mode="min", sampler=optuna.samplers.TPESampler(seed=0)),
                num_samples=trials,
                max_concurrent_trials=1,
                metric="score",
                mode="min",
            ),
            run_config=tune.RunConfig(storage_path=str(out / "ray"), verbose=0),
        ).fit()
        best = found.get_best_result()
        told = [found[i].metrics or {} for i in range(len(found))]
        spent = purse.spent + sum(one.get("spent", 0.0) for one in told)
        assert best.metrics is not None
        assert best.config is not None
        is_found = best.metrics["score"] < 1
        return Pick(policy=space.policy(best.config["point"], field.facts) if is_found else None, spent=spent)
    finally:
        ray.shutdown()
