"""The plan of a study: everything checked, nothing kept of the few updates that are timed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from subsettune import config
from subsettune.config import must
from subsettune.data import DataPaths, TaskData
from subsettune.data.audit import audit
from subsettune.data.example import describe_example
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.study import machine, timing, wall_clock
from subsettune.study.ablation.choose import Ground, unaffordable
from subsettune.study.importable import check_goal_code
from subsettune.study.preflight import Admitted, Stage, check_here, resolve_study, stable_shares, unwatched
from subsettune.study.results.verified_before import VerifiedStudies, plan_sentence
from subsettune.study.spec.definition import Study
from subsettune.study.timing import Timing
from subsettune.study.verification.sampling import size_of_test, too_few_examples
from subsettune.study.wall_clock import Runs, Seconds
from subsettune.study.warm_start import take
from subsettune.text import counted
from subsettune.train.loop import check
from subsettune.train.planning.check import check_own_code


# More than six parameters: the last three serve those who watch it or test it.
def plan(
    study: Study,
    places: DataPaths | None = None,
    *,
    address: str | None = None,
    is_inline: bool = False,
    storage: str = "runs",
    clock: Callable[[], float] = time.perf_counter,
    beside: timing.Beside = timing.side_by_side,
    stage: Stage = unwatched,
) -> dict[str, Any]:
    """Check a study and project what it costs, as expected and at most.

    Args:
        study: to plan.
        places: where this machine keeps data.
        address: of a Ray cluster that will carry it out; default: this machine does, and is held against the study.
        is_inline: whether runs will take turns in one process, without Ray.
        storage: folder or URI that holds the studies which it may be begun with.
        clock: seconds.
        beside: times runs that go side by side.
        stage: told what it is busy with.

    Returns:
        A mapping with N, M, P, Q, FLOPs, the number of runs by kind and the projected time of each stage; its keys are
        those of `subsettune.report.plan_tables.plan_blocks`. `runs`, `passes`, `flops` and `seconds` are upper bounds:
        search and verification end early when nothing more can be learned. What is expected is in `stages` and
        `expected_seconds`.

    Raises:
        ConfigError, DataError, ModelError: the study cannot be run, or not here.
    """
    task, settings = study.task, study.study
    address = None if is_inline else address or os.environ.get("RAY_ADDRESS") or None
    if address is None:
        check_here(study, "auto", is_inline=is_inline)
    check_goal_code(study)
    places = places or DataPaths()
    admitted = resolve_study(study, places, stage)
    known, data = admitted.facts, admitted.data
    known_before = [one.known for one in take(study, admitted.space, storage)]
    runs = wall_clock.count_runs(study, admitted.space, known)
    at_most = _at_most(runs, known)
    passes = sum(kind["passes"] for kind in at_most.values())
    slots = 1 if is_inline else settings.parallel if address is not None else machine.slots(settings)
    stage("timing updates")
    timed = _timed(study, data, places, slots, clock, beside)
    stages = {} if timed is None else _stages(study, known, runs, timed, _parts(data), slots)
    if is_inline:
        stages.pop("start-up", None)  # there is no cluster to start, and no worker
    stage("looking at the data")
    num_test = len(data.test) or task.test_examples or 0
    found: dict[str, Any] = {"warnings": ()} if task.is_own else audit(data, task.split).to_mapping()
    before = VerifiedStudies.of(places.cache_folder, task.test_identity(data.fingerprint)).count()
    return {
        "task": f"{task.words}, {task.metric} within {task.tolerance:g}",
        "example": None if task.is_own else describe_example(data, task.data),
        "num_examples": known.num_examples,
        "num_validation": len(data.validation) or task.validation_examples,
        "num_test": num_test or None,
        "num_outputs": known.num_outputs or None,
        "num_parameters": known.num_parameters or None,
        "q": known.q() if known.has_q else None,
        "unit": known.unit,
        "forward_flops": known.num_examples * known.forward_flops,
        "backward_flops": known.num_examples * known.backward_flops,
        "pass_flops": known.pass_flops,
        "reference_passes": known.reference_passes,
        "reference_flops": known.reference_flops,
        "runs": at_most,
        "passes": passes,
        "flops": round(passes * known.pass_flops),
        "stages": wall_clock.to_plain(stages),
        "expected_seconds": _total(stages, "expected"),
        "seconds": _total(stages, "most"),
        "parallel": slots,
        "expectations": [
            *_of_own_code(study, admitted),
            *_expectations(study, known, timed, slots, address),
            *_of_shared_prefixes(study, admitted),
            *known.notes,
            *(one.sentence for one in known_before),
            *_too_dear(study, admitted),
        ],
        "known_before": [config.to_plain(one) for one in known_before],
        "verified_before": before,
        "test_size": _size_of_test(study, num_test),
        "test_notes": _of_the_test_split(study, num_test, before),
        "warnings": found.pop("warnings"),
        "data": found,
    }


def _stages(
    study: Study, known: TaskFacts, runs: dict[str, Runs], timed: Timing, parts: dict[str, int], slots: int
) -> dict[str, Seconds]:
    """Seconds of each stage; no trial starts after the study's limit."""
    settings = study.study
    shares = settings.share_prefixes
    looks = settings.reference_looks
    stages = wall_clock.project(runs, timed, known, parts, slots, share_prefixes=shares, reference_looks=looks)
    if settings.time_limit_s is not None:
        stages["search"] = wall_clock.limited(stages["search"], settings.time_limit_s, settings.trials, slots)
    return stages


def _of_shared_prefixes(study: Study, admitted: Admitted) -> list[str]:
    """A sentence on how much of a trial others may begin from, where the study asks for that."""
    if not study.study.share_prefixes:
        return []
    found = stable_shares(admitted.space, study.task.recipe)
    idle = [name for name, share in found.items() if not share]
    most = f"up to {max(found.values()):.0%} of a trial, and of one with a subset no more than that stretch"
    but = f" With {' and '.join(idle)} they share nothing." if idle else ""
    return [f"Trials that begin alike share {most}; none is looked at on its way. Savings are not in this plan.{but}"]


def _size_of_test(study: Study, num_test: int) -> dict[str, Any] | None:
    """Whether the test split is large enough for the tolerance; None where no answers are counted, as
    of a regression, whose spread nobody knows yet."""
    task = study.task
    if not (task.counts_examples and num_test):
        return None
    size = size_of_test(num_test, task.tolerance, study.study.alpha)
    return {**config.to_plain(size), "is_enough": size.is_enough}


def _of_the_test_split(study: Study, num_test: int, num_before: int) -> list[str]:
    """Sentences about what its size and earlier studies do to what verification says."""
    task, alpha = study.task, study.study.alpha
    said = [plan_sentence(num_before, alpha)]
    is_known = task.counts_examples and num_test > 0
    size = size_of_test(num_test, task.tolerance, alpha) if is_known else None
    if size is not None and not size.is_enough:
        said.append(too_few_examples(size, task.tolerance))
    return [one for one in said if one is not None]


def _of_own_code(study: Study, admitted: Admitted) -> list[str]:
    """Sentences about networks and optimizers of the user's own, of which all were tried before."""
    if study.task.is_own:
        return []
    recipe, space = study.task.recipe, admitted.space
    searched = space["optimizer"].values if "optimizer" in space else ()
    recipes = [recipe, *(recipe.override({"optimizer": name}) for name in searched)]
    return list(dict.fromkeys(said for one in recipes for said in check_own_code(study.task, one, admitted.data)))


def _parts(data: TaskData) -> dict[str, int]:
    return {"validation": len(data.validation), "test": len(data.test)}


def check_price(per_hour: float) -> None:
    """Refuse what is no price, before anything is read or timed for it.

    Raises:
        ConfigError: it is not above 0, or not finite.
    """
    if not 0 < per_hour < math.inf:
        advice = "Give what the machines of the study cost together for an hour."
        raise ConfigError(must("--price-per-hour", "above 0", per_hour, advice))


def price(planned: Mapping[str, Any], per_hour: float) -> dict[str, Any]:
    """What a study costs in money: `expected` and `at_most`, null where nothing was timed, and the `per_hour` given.

    Args:
        planned: as `plan` gives it.
        per_hour: of all machines that carry the study out, in whatever currency; see `check_price`.
    """
    seconds = {"expected": planned["expected_seconds"], "at_most": planned["seconds"]}
    return {"per_hour": per_hour, **{key: None if s is None else s / 3600 * per_hour for key, s in seconds.items()}}


def _total(stages: dict[str, Seconds], which: str) -> float | None:
    """Seconds of all stages; None where nothing was timed."""
    return sum(getattr(one, which) for one in stages.values()) if stages else None


def _at_most(runs: dict[str, Runs], known: TaskFacts) -> dict[str, dict[str, Any]]:
    """How many runs of each kind there are at most, and what they cost."""
    return {
        kind: {
            "runs": one.most,
            "passes": one.most * one.most_passes,
            "flops": round(one.most * one.most_passes * known.pass_flops),
        }
        for kind, one in runs.items()
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


def _timed(
    study: Study, data: TaskData, places: DataPaths, slots: int, clock: Callable[[], float], beside: timing.Beside
) -> Timing | None:
    """What updates and measurements take here, side by side where runs are; None without the GPU that is asked for."""
    if study.task.is_own:
        return None
    wants_gpu = study.study.gpus_per_trial > 0
    if wants_gpu and machine.num_gpus() == 0:
        return None
    device = torch.device("cuda" if wants_gpu else "cpu")
    if slots > 1 and not wants_gpu:
        together = beside(study, places, data.fingerprint, slots)
        if together is not None:
            return together
    return timing.time_here(study.task, data, study.study.cpus_per_trial, device, clock)


def _expectations(study: Study, known: TaskFacts, timed: Timing | None, slots: int, address: str | None) -> list[str]:
    settings = study.study
    if study.task.is_own:
        return [f"How long a run of {study.task.train} takes shows when it has run: nothing of it was timed."]
    if timed is None:
        advice = "plan on the machine that trains to see the time."
        return [f"A run asks for {settings.gpus_per_trial:g} GPU, and there is none here: {advice}"]
    pass_s = known.num_examples * timed.example_s
    runs_on = "a GPU" if settings.gpus_per_trial > 0 else counted(settings.cpus_per_trial, "CPU thread")
    how = "alone" if timed.at_once == 1 else f"in {timed.at_once} processes at once"
    told = [f"A pass takes {pass_s:.3g} s on {runs_on} of this machine, by a few updates that were timed {how}."]
    if slots < settings.parallel:
        cores = counted(machine.num_cores(), "CPU core")
        told.append(f"{slots} of {settings.parallel} runs at a time fit here, with {cores} for this process.")
    if address is not None:
        told.append(f"The cluster at {address} was not asked: its machines may be faster or slower than this one.")
    told.append(
        "Expected: trials over the whole range of budgets, candidates and ablation in its middle, half of the seeds "
        "that verification may add. Choosing subsets is counted at the speed of training."
    )
    return told
