"""What all trackers are told of a study, in their common terms: parameters, metrics and learning curves.

Names: `compute_share` is the cost of a whole policy over the recipe's, `compute_used_share` what the run really took,
evaluation included; `metric` is on the validation split and `test_metric` on the test split. A step is a thousandth of
the recipe's compute, so that the curves of different policies lie over one axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.found import Found
from subsettune.study.another import MAY_CHANGE
from subsettune.study.results.records import RunRecord
from subsettune.study.results.summary import PolicyRow
from subsettune.text import describe, is_number
from subsettune.train.result import CurvePoint

STEPS = 1000  # of the recipe's compute
Plain = str | int | float | bool


def study_params(study: Found) -> dict[str, Plain]:
    """What a study is about and cannot change as it goes on: `task.recipe.lr`, `space.budget`, `study.seeds`."""
    plain = config.to_plain(study.study)
    kept = {name: value for name, value in plain["study"].items() if name not in MAY_CHANGE}
    space = {f"space.{name}": config.canonical_json(value) for name, value in plain["space"].items()}
    return {**dict(_flat("task", plain["task"])), **space, **dict(_flat("study", kept))}


def study_settings(study: Found) -> dict[str, Plain]:
    """The settings that the next call may give another value: `study.trials` and others."""
    return dict(_flat("study", {name: getattr(study.study.study, name) for name in MAY_CHANGE}))


def _flat(prefix: str, value: object) -> Iterator[tuple[str, Plain]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, str | int | float):
        yield prefix, value
    elif value is not None:
        yield prefix, config.canonical_json(value)


def run_params(run: RunRecord, facts: TaskFacts) -> dict[str, Plain]:
    """What a run was trained with: the point of the space, the policy in words, the seed."""
    return {**dict(_flat("", run.coordinates)), "policy": describe(run.policy, facts), "seed": run.seed}


def run_metrics(run: RunRecord, facts: TaskFacts) -> dict[str, float]:
    """What a run came to; what it has not, or is not finite, is left out: its cause tells why."""
    return _numbers(
        {
            "metric": run.metric,
            "test_metric": run.test_metric,
            "compute_share": run.cost_flops / facts.reference_flops,
            "compute_used_share": run.study_flops / facts.reference_flops,
            "train_s": run.train_s,
            "select_s": run.select_s,
            "evaluate_s": run.evaluate_s,
        }
    )


def curve(run: RunRecord, facts: TaskFacts) -> dict[int, CurvePoint]:
    """The learning curve of a run by step; of points on one step the last."""
    return {round(STEPS * point.flops / facts.reference_flops): point for point in run.curve}


def values(point: CurvePoint) -> dict[str, float]:
    """What a point of a curve has of metric and loss."""
    return _numbers({"metric": point.metric, "loss": point.loss})


def study_metrics(study: Found) -> dict[str, float]:
    """What a study came to: the best policy beside the reference, and what tuning cost."""
    summary = study.summary
    best, reference, tuning = summary.best, summary.reference, summary.tuning
    found: dict[str, float | None] = {"verified": float(summary.verified), "trials": float(len(study.view.trials))}
    if reference is not None:
        found |= {"reference_metric": reference.metric, "tuning_trainings": tuning.flops / reference.flops}
        found["reference_test_metric"] = reference.test_metric
    if best is not None and reference is not None:
        found |= {"saving": best.saving, "best_compute_share": best.flops / reference.flops}
        found |= _of_best(best)
    if tuning.break_even is not None:
        found["break_even_trainings"] = float(tuning.break_even)
    return _numbers(found)


def _of_best(best: PolicyRow) -> dict[str, float | None]:
    """Of a candidate on the test split, of a trial on the validation split."""
    if best.name is None:
        return {"best_metric": best.metric}
    return {
        "best_test_metric": best.metric,
        "best_lower_bound": best.interval,
        "reference_test_metric": best.reference_metric,
    }


def _numbers(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if value is not None and is_number(value)}


def facts_of(study: Found) -> TaskFacts:
    """The facts of a study that stands."""
    assert study.facts is not None, "callbacks are told from the moment on when the facts are known"
    return study.facts


def local_folder(study: Found) -> str | None:
    """Where its files can be copied from; None on an object store."""
    return None if "://" in study.folder else study.folder
