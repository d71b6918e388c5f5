"""Everything about a study that can be checked before its first run, all of it at once."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from subsettune import config, models
from subsettune.data import DataPaths, TaskData, load
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.policy import SUBSET, Phase, Policy, conventional
from subsettune.registry import OPTIMIZERS, ORDERS, SELECTORS, TRANSITIONS
from subsettune.study import machine
from subsettune.study.spec import components
from subsettune.study.spec.components import Component
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.definition import Study
from subsettune.study.spec.kinds import Conditions
from subsettune.study.spec.space import Space
from subsettune.study.spec.space_check import read_space
from subsettune.task import RECIPE_KEYS, Recipe, Task
from subsettune.text import counted
from subsettune.train import optimizers, schedule
from subsettune.train.loop import check, facts, study_code
from subsettune.train.orders.base import batch_length
from subsettune.train.planning import own_training
from subsettune.train.planning.check import check_own_code
from subsettune.train.randomness import isolated

Stage = Callable[[str], None]  # told the name of what begins
DEFAULT = object()  # of an option that is not given


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A study that can be run.

    Args:
        data: of its task, loaded.
        facts: of its task.
        space: that it searches.
    """

    data: TaskData
    facts: TaskFacts
    space: Space


def unwatched(stage: str) -> None:
    """Nobody is told."""


def resolve_study(study: Study, places: DataPaths, stage: Stage = unwatched) -> Admitted:
    """Load the data, build the network and the optimizers, count FLOPs, and hold the space against them.

    Args:
        study: to be run or planned.
        places: where this machine keeps data.
        stage: told what it is busy with.

    Raises:
        DataError, ModelError, ConfigError: it cannot be run; a `ConfigError` has the place of each mistake.
    """
    stage("reading data")
    data = load(study.task, places)
    stage("counting FLOPs" if study.task.has_flops else "counting examples")
    try:
        known = facts(study.task, places)
        check(study.task, conventional(known), known)
    except ConfigError as error:
        raise ConfigError(
            tuple(dataclasses.replace(m, path=m.path and ("task", "recipe", *m.path)) for m in error.mistakes)
        ) from error
    stage("checking the space")
    space = read_space(study.space)
    mistakes = [*_misfits(space, known), *_unpaid(space, study.task.recipe, known), *_broken(space, study, data, known)]
    if mistakes:
        raise ConfigError(tuple(Mistake(("space", *m.path), m.message) for m in mistakes))
    _refuse_idle_sharing(study, space)
    return Admitted(data=data, facts=known, space=space)


def user_code(study: Study) -> dict[str, str]:
    """Content hashes of the user's own code that runs of a study depend on, by name as the study file has it.

    Raises:
        ConfigError: a module of the user's cannot be imported.
    """
    space = read_space(study.space)
    kinds = {registry.what: registry for registry in (SELECTORS, ORDERS, TRANSITIONS)}
    named = [(OPTIMIZERS, name) for name in (space["optimizer"].values if "optimizer" in space else ())]
    named += [(kinds[one.kind], one.name) for one in components.of_space(space) if one.kind in kinds]
    return study_code(study.task, named)


def check_here(study: Study, device: str, *, is_inline: bool = False) -> None:
    """Check that this machine has what a run of a study asks for.

    Args:
        study: to be run or planned.
        device: as the user gave it.
        is_inline: whether runs take turns in this process, with as many threads as they ask for, cores or not.

    Raises:
        ConfigError: it has not the device, the GPUs or the CPU cores.
    """
    gpus, num_gpus = study.study.gpus_per_trial, machine.num_gpus()
    cpus, num_cores = study.study.cpus_per_trial, machine.num_cores()
    if cpus > num_cores and not is_inline:
        advice = (
            f"This process may use {counted(num_cores, 'CPU core')}. Set it to {num_cores}, give --address of a "
            "cluster that has them, or tune with --inline, where runs share what there is."
        )
        message = config.must("cpus_per_trial", f"at most {num_cores} here", cpus, advice)
        raise ConfigError((Mistake(("study", "cpus_per_trial"), message),))
    if device.startswith("cuda") and num_gpus == 0:
        raise ConfigError(config.must("device", "auto or cpu here", device, "torch finds no GPU on this machine."))
    if gpus > num_gpus:
        have = f"torch finds {num_gpus or 'no'} GPU{'s' * (num_gpus > 1)} on this machine"
        advice = f"{have[0].upper()}{have[1:]}. Set it to {num_gpus}, or give --address of a cluster that has them."
        message = config.must("gpus_per_trial", f"at most {num_gpus} here", gpus, advice)
        raise ConfigError((Mistake(("study", "gpus_per_trial"), message),))


def stable_shares(space: Space, recipe: Recipe) -> dict[str, float]:
    """Up to which share of its training compute each schedule that trials may have keeps the peak rate."""
    names = space["schedule"].values if "schedule" in space else (recipe.schedule,)
    return {name: schedule.make(name, recipe.schedule_options).stable_share for name in names}


def _refuse_idle_sharing(study: Study, space: Space) -> None:
    """Refuse `share_prefixes` where no two trials could share anything: it would only keep them from being stopped."""
    if study.study.share_prefixes and study.task.is_own:
        advice = "Its runs keep what they like, and nobody else can begin from that."
        message = config.must("share_prefixes", "false with task.train", True, advice)
        raise ConfigError((Mistake(("study", "share_prefixes"), message),))
    found = stable_shares(space, study.task.recipe)
    if study.study.share_prefixes and not any(found.values()):
        advice = (
            "The rate must stay at its peak from the first update on: take constant, step, or warmup_stable_decay with "
            "schedule_options {warmup: 0}."
        )
        message = config.must("share_prefixes", f"false with schedule {' and '.join(found)}", True, advice)
        raise ConfigError((Mistake(("study", "share_prefixes"), message),))


def _misfits(space: Space, known: TaskFacts) -> Iterator[Mistake]:
    try:
        space.resolve(known)
    except ConfigError as error:
        yield from error.mistakes


def _unpaid(space: Space, recipe: Recipe, known: TaskFacts) -> Iterator[Mistake]:
    """A largest budget that pays for no update on all data, so that the control, the arm `full`, never trains."""
    needed = min(_first_update_flops(tried, known) for tried in _recipes(space, recipe))
    budget = budget_ends(space)[1]
    if Policy(phases=(Phase(passes=budget * known.reference_passes),)).cost(known) < needed:
        digits = 3 - math.ceil(math.log10(needed / known.reference_flops))
        least = math.ceil(needed / known.reference_flops * 10**digits) / 10**digits
        advice = "A policy on all data cannot make a single update with less."
        yield Mistake(("budget",), config.must("budget", f"{least:.3g} or more at its largest", budget, advice))


def _first_update_flops(recipe: Recipe, known: TaskFacts) -> int:
    size = batch_length(known.num_examples, recipe.batch_size)
    return optimizers.least_evaluations(recipe) * size * known.example_flops


def _broken(space: Space, study: Study, data: TaskData, known: TaskFacts) -> Iterator[Mistake]:
    """Components of the space that cannot be made, or do not suit the data."""
    makers: dict[str, Callable[[Any], object]] = {
        "schedule": lambda name: schedule.make(name, study.task.recipe.schedule_options),
        "optimizer": lambda name: _try_optimizer(study.task, name, data),
    }
    for name, make in makers.items():
        for value in space[name].values if name in space else ():
            try:
                make(value)
            except ConfigError as error:
                yield from (Mistake((name,), m.message) for m in error.mistakes)
    checker = ComponentChecker(space, study.task.recipe, known)
    for component in components.of_space(space):
        if component.kind in space and (component.name in space[component.kind].values or not component.is_neutral):
            yield from list(_not_own(component, space, study.task, known)) or checker.mistakes(component)
            yield from _idle(component, space, known)


def _not_own(component: Component, space: Space, task: Task, known: TaskFacts) -> Iterator[Mistake]:
    """Why a training function of the user's can never follow a component."""
    if task.is_own:
        try:
            made = _first_made(component, _options(component, space))
        except ConfigError:  # which the checker tells
            return
        problem = own_training.obstacle(task, known, component.kind, component.name, made)
        if problem is not None:
            yield Mistake((component.kind,), problem)


def _try_optimizer(task: Task, name: str, data: TaskData) -> None:
    recipe = task.recipe.override({"optimizer": name})
    if task.is_own:
        dataclasses.replace(task, recipe=recipe)  # which refuses what its function cannot have
        return
    with isolated(0, torch.get_num_threads()):  # initialising the network draws random numbers
        network = models.make(task.model, data.input_shape, data.num_outputs, data.num_tokens)
    optimizers.make(recipe, network)
    check_own_code(task, recipe, data)


class ComponentChecker:
    """Says which components of a space cannot be made, or can never be used on such data and network.

    Settings that are impossible in part, as subsets too large for equal classes, are left to the search, which skips
    them.

    Args:
        space: that holds them.
        recipe: of the task; its keys that are searched take each of their values in turn.
        known: facts of the task.
    """

    def __init__(self, space: Space, recipe: Recipe, known: TaskFacts) -> None:
        self._space, self._known = space, known
        recipes, sizes = _recipes(space, recipe), _pool_sizes(space, known)
        self._conditions = Conditions(facts=known, sizes=sizes, recipes=recipes)

    def mistakes(self, component: Component) -> Iterator[Mistake]:
        """Choices of a component's options that can never be used; or the component itself."""
        options = _options(component, self._space)
        try:
            _first_made(component, options)
        except ConfigError as error:
            yield from (Mistake((component.kind,), m.message) for m in error.mistakes)
            return
        problem, is_told = self._obstacle(component, options), False
        for option, values in options.items():
            choices = self._space[f"{component.name}.{option}"].values
            for part in ((value,) for value in choices) if choices else (values,):
                reason = self._obstacle(component, {**options, option: part})
                others = {**options, option: (DEFAULT,)}
                if reason is not None and (problem is None or self._obstacle(component, others) is None):
                    is_told = True
                    yield Mistake((f"{component.name}.{option}",), reason)
        if problem is not None and not is_told:
            yield Mistake((component.kind,), f"{problem} Leave {component.name!r} out of the space.")

    def _obstacle(self, component: Component, options: Mapping[str, Sequence[Any]]) -> str | None:
        """Why a component can be used with no setting of its options; None if it can with some."""
        first = None
        for setting in _settings(options):
            try:
                made = components.make(component.kind, component.name, setting)
                obstacles = component.of.obstacles(made, setting, self._conditions)
            except ConfigError as error:  # these values do not go together
                obstacles = [str(error)]
            if not all(obstacles):
                return None
            first = first or obstacles[0]
        return first


def _recipes(space: Space, recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipe with what the space fixes, and with each value, or both ends, of each key that it searches."""
    axes = [axis for axis in space.coordinates if axis.name in RECIPE_KEYS]
    fixed = {axis.name: axis.values[0] for axis in axes if axis.is_single and axis.values}
    changes = [fixed, *({**fixed, axis.name: value} for axis in axes for value in axis.ends)]
    found: list[Recipe] = []
    for change in changes:
        try:
            found.append(recipe.override(change))
        except ConfigError:  # values that only make sense beside others
            continue
    return tuple(found) or (recipe,)


def _options(component: Component, space: Space) -> dict[str, tuple[Any, ...]]:
    """Choices, or both ends, of each option of a component in a space; `DEFAULT` too where it may be absent."""
    options: dict[str, tuple[Any, ...]] = {}
    for axis in space.coordinates:
        owner, dot, option = axis.name.rpartition(".")
        if dot and owner == component.name:
            may_be_absent = axis.when.keys() - {"arm", component.kind}
            options[option] = (*axis.ends, DEFAULT) if may_be_absent else axis.ends
    return options


def _idle(component: Component, space: Space, known: TaskFacts) -> Iterator[Mistake]:
    """Options of a component that make no difference, so that all of their values are one policy."""
    options = _options(component, space)
    choices = {name: [None if v is DEFAULT else v for v in values] for name, values in options.items()}
    for option, reason in component.of.idle_options(component.name, choices, known).items():
        yield Mistake((f"{component.name}.{option}",), reason)


def _settings(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*options.values()):
        yield {option: v for option, v in zip(options, values, strict=True) if v is not DEFAULT}


def _first_made(component: Component, options: Mapping[str, Sequence[Any]]) -> Any:
    """The component with the first setting of its options that it takes; raises what is wrong if it takes none."""
    first = None
    for setting in _settings(options):
        try:
            return components.make(component.kind, component.name, setting)
        except ConfigError as error:
            first = first or error
    assert first is not None
    raise first


def _size(share: float, known: TaskFacts) -> int:
    """Examples in a share of the data."""
    return min(known.num_examples, max(1, round(share * known.num_examples)))


def _pool_sizes(space: Space, known: TaskFacts) -> tuple[int, ...]:
    """The smallest and the largest subset of the space; none where it searches shorter schedules alone."""
    axis = next((space[name] for name in ("subset_share", "q") if name in space), None)
    if axis is None or SUBSET not in space.arms:
        return ()
    shares = [known.share_of_q(v) if axis.name == "q" else v for v in _ends(axis)]
    return tuple(_size(share, known) for share in shares)


def _ends(axis: Coordinate) -> tuple[float, float]:
    values = axis.values or (axis.lo, axis.hi)
    return float(min(values)), float(max(values))


def budget_ends(space: Space) -> tuple[float, float]:
    """The least and the largest budget of a space, as shares of the reference's compute."""
    return _ends(space["budget"])
