"""The plan of a study: everything checked, nothing kept of the few updates that are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from subsettune.data import DataPaths, TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET, Policy
from subsettune.study.ablation.choose import Ground, unaffordable
from subsettune.study.preflight import Admitted, Stage, dearest_budget, resolve_study, unwatched
from subsettune.study.spec.definition import Study
from subsettune.train.learner import Learner
from subsettune.train.loop import check
from subsettune.train.randomness import isolated

WARM_UP_UPDATES = 2  # the first ones allocate
TIMED_UPDATES = 50  # at most; a network that needs a second for an update shows it in fewer
TIMED_S = 0.5


def plan(
    study: Study,
    places: DataPaths | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    stage: Stage = unwatched,
) -> dict[str, Any]:
    """Check a study and project what it costs at most.

    Args:
        study: to plan.
        places: where this machine keeps data.
        clock: seconds.
        stage: told what it is busy with.

    Returns:
        A mapping with N, M, P, Q, FLOPs, the number of runs by kind and the projected time; its keys are those of
        `subsettune.report.plan_tables.plan_blocks`. Costs are upper bounds: the search and verification end early when
        nothing more can be learned. Evaluation, and the search's own time, are left out.

    Raises:
        ConfigError, DataError, ModelError: the study cannot be run.
    """
    task, settings = study.task, study.study
    admitted = resolve_study(study, places or DataPaths(), stage)
    known, data = admitted.facts, admitted.data
    runs = _runs(study, admitted)
    passes = sum(kind["passes"] for kind in runs.values())
    stage("timing updates")
    pass_s = _seconds_per_pass(study, data, known, clock)
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
        "seconds": None if pass_s is None else passes * pass_s / settings.parallel,
        "parallel": settings.parallel,
        "expectations": [*_expectations(study, pass_s), *_too_dear(study, admitted)],
    }


def _runs(study: Study, admitted: Admitted) -> dict[str, dict[str, Any]]:
    """How many runs of each kind there are at most, and what they cost."""
    settings, known = study.study, admitted.facts
    dearest = dearest_budget(admitted.space) * known.reference_passes
    controls = 2 if SUBSET in admitted.space.arms else 0  # of a winner with a subset
    policies = settings.candidates + 1 + controls  # the one is the best of the full arm
    counts = {
        "reference": (settings.seeds, known.reference_passes),
        "search": (settings.trials, dearest),
        "verification": (policies * settings.seed_cap, dearest),
        "more seeds of the reference": (settings.seed_cap - settings.seeds, known.reference_passes),
    }
    contenders = len(study.contenders)
    if contenders and settings.ablation_seeds:
        counts["ablation"] = (2 * contenders * settings.ablation_seeds, dearest)  # each with its baseline
    return {
        kind: {"runs": runs, "passes": runs * passes, "flops": round(runs * passes * known.pass_flops)}
        for kind, (runs, passes) in counts.items()
    }


def _too_dear(study: Study, admitted: Admitted) -> list[str]:
    """A sentence for each component that the search will skip, because no budget of the space pays for it."""

    def invalid(policy: Policy) -> str | None:
        try:
            check(study.task, policy, admitted.facts)
        except ConfigError as error:
            return str(error)
        return None

    ground = Ground(space=admitted.space, facts=admitted.facts, recipe=study.task.recipe, invalid=invalid)
    reasons = {one: unaffordable(one, ground) for one in study.contenders}
    return [f"No policy will {one.doing}: {reason}" for one, reason in reasons.items() if reason is not None]


def _seconds_per_pass(study: Study, data: TaskData, known: TaskFacts, clock: Callable[[], float]) -> float | None:
    """Time some updates of the recipe on a network that is then thrown away; None without the GPU that is asked for."""
    wants_gpu = study.study.gpus_per_trial > 0
    if wants_gpu and not torch.cuda.is_available():
        return None
    device = torch.device("cuda" if wants_gpu else "cpu")
    batch = torch.arange(min(study.task.recipe.batch_size, known.num_examples))
    with isolated(0, study.study.cpus_per_trial):
        learner = Learner(study.task, study.task.recipe, data, device, 0)
        for _ in range(WARM_UP_UPDATES):
            learner.update(batch, study.task.recipe.lr, None)
        start, updates = _now(device, clock), 0
        while updates == 0 or (updates < TIMED_UPDATES and _now(device, clock) - start < TIMED_S):
            learner.update(batch, study.task.recipe.lr, None)
            updates += 1
        update_s = (_now(device, clock) - start) / updates
    return update_s * known.num_examples / len(batch)


def _now(device: torch.device, clock: Callable[[], float]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def _expectations(study: Study, pass_s: float | None) -> list[str]:
    if pass_s is None:
        gpus = study.study.gpus_per_trial
        return [
            f"A run asks for {gpus:g} GPU, and there is none here: plan on the machine that trains to see the time."
        ]
    threads = study.study.cpus_per_trial
    runs_on = "a GPU" if study.study.gpus_per_trial > 0 else f"{threads} CPU thread{'s' * (threads > 1)}"
    return [f"A pass takes {pass_s:.3g} s on {runs_on} of this machine, by a few updates that were timed alone."]
