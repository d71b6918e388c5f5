"""The plan of a study: everything checked, nothing trained."""

from __future__ import annotations

from typing import Any

from subsettune.data import Places, load
from subsettune.policy import conventional
from subsettune.study.definition import Study, read_space
from subsettune.train.loop import check, facts


def plan(study: Study, places: Places | None = None) -> dict[str, Any]:
    """Check a study and project what it costs at most.

    Args:
        study: to plan.
        places: where this machine keeps data.

    Returns:
        A mapping with N, M, P, Q, FLOPs and the number of runs by kind; `subsettune.report.tables` prints it. Costs are
        upper bounds: the search and verification end early when nothing more can be learned. Evaluation is left out.

    Raises:
        ConfigError, DataError, ModelError: the study cannot be run.
    """
    places = places or Places()
    task, settings = study.task, study.study
    data = load(task, places)
    known = facts(task, places)
    space = read_space(study.space).resolve(known)
    check(task, conventional(known), known)
    budget = space["budget"]
    dearest = max(float(budget.hi), *(float(v) for v in budget.values)) if budget.values else float(budget.hi)
    policies = settings.candidates + 2  # the best of the full arm and the random control
    extra = settings.seed_cap - settings.seeds
    runs = {
        "reference": _cost(settings.seeds, known.reference_passes, known.pass_flops),
        "search": _cost(settings.trials, dearest * known.reference_passes, known.pass_flops),
        "verification": _cost(policies * settings.seed_cap, dearest * known.reference_passes, known.pass_flops),
        "more seeds of the reference": _cost(extra, known.reference_passes, known.pass_flops),
    }
    passes = sum(kind["passes"] for kind in runs.values())
    return {
        "task": f"{task.model.name} on {task.data.source}, {task.metric} within {task.tolerance:g}",
        "num_examples": known.num_examples,
        "num_validation": len(data.validation),
        "num_test": len(data.test),
        "num_outputs": known.num_outputs,
        "num_parameters": known.num_parameters,
        "q": known.q(),
        "forward_flops": known.num_examples * known.forward_flops,
        "backward_flops": known.num_examples * known.backward_flops,
        "pass_flops": known.pass_flops,
        "reference_passes": known.reference_passes,
        "reference_flops": known.reference_flops,
        "runs": runs,
        "passes": passes,
        "flops": round(passes * known.pass_flops),
        "seconds": None,
        "parallel": settings.parallel,
    }


def _cost(runs: int, passes: float, pass_flops: int) -> dict[str, Any]:
    return {"runs": runs, "passes": runs * passes, "flops": round(runs * passes * pass_flops)}
