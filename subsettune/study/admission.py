"""Everything about a study that can be checked before its first run, all of it at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from subsettune import config, models, select
from subsettune.data import Places, TaskData, load
from subsettune.errors import ConfigError, Mistake
from subsettune.policy import SUBSET, TaskFacts, conventional
from subsettune.study.definition import Study, read_space
from subsettune.study.space import Coordinate, Space
from subsettune.train import entry, optimizers, orders, schedule
from subsettune.train.loop import check, facts
from subsettune.train.randomness import isolated

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


def admit(study: Study, places: Places) -> Admitted:
    """Load the data, build the network and the optimizers, count FLOPs, and hold the space against them.

    Args:
        study: to be run or planned.
        places: where this machine keeps data.

    Raises:
        DataError, ModelError, ConfigError: it cannot be run; a `ConfigError` has the place of each mistake.
    """
    data = load(study.task, places)
    try:
        known = facts(study.task, places)
        check(study.task, conventional(known), known)
    except ConfigError as error:
        raise ConfigError(
            tuple(replace(m, path=m.path and ("task", "recipe", *m.path)) for m in error.mistakes)
        ) from error
    space = read_space(study.space)
    mistakes = [*_misfits(space, known), *_broken(space, study, data, known)]
    if mistakes:
        raise ConfigError(tuple(Mistake(("space", *m.path), m.message) for m in mistakes))
    return Admitted(data=data, facts=known, space=space)


def check_here(study: Study, device: str) -> None:
    """Check that this machine has the device that a study asks for.

    Raises:
        ConfigError: it has none, or the study asks for no GPU and for one at once.
    """
    gpus, num_gpus = study.study.gpus_per_trial, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and num_gpus == 0:
        raise ConfigError(config.must("device", "auto or cpu here", device, "torch finds no GPU on this machine."))
    if gpus > num_gpus:
        have = f"torch finds {num_gpus or 'no'} GPU{'s' * (num_gpus > 1)} on this machine"
        advice = f"{have[0].upper()}{have[1:]}. Set it to {num_gpus}, or give --address of a cluster that has them."
        message = config.must("gpus_per_trial", f"at most {num_gpus} here", gpus, advice)
        raise ConfigError((Mistake(("study", "gpus_per_trial"), message),))


def _misfits(space: Space, known: TaskFacts) -> Iterator[Mistake]:
    try:
        space.resolve(known)
    except ConfigError as error:
        yield from error.mistakes


def _broken(space: Space, study: Study, data: TaskData, known: TaskFacts) -> Iterator[Mistake]:
    """Components of the space that cannot be made, or do not suit the data."""
    with isolated(0, torch.get_num_threads()):  # initialising the network draws random numbers
        network = models.make(study.task.model, data.input_shape, data.num_outputs)
    makers: dict[str, Callable[[Any], object]] = {
        "selector": lambda name: _first_made(name, _options(name, space)),
        "entry": lambda name: entry.make(name, {}),
        "schedule": lambda name: schedule.make(name, study.task.recipe.schedule_options),
        "order": lambda name: orders.make(name, {}),
        "optimizer": lambda name: optimizers.make(study.task.recipe.override({"optimizer": name}), network),
    }
    for name, make in makers.items():
        for value in space[name].values if name in space else ():
            try:
                make(value)
            except ConfigError as error:
                yield from (Mistake((name,), m.message) for m in error.mistakes)
            else:
                yield from _blocked(value, space, known) if name == "selector" else ()


def _blocked(selector: str, space: Space, known: TaskFacts) -> Iterator[Mistake]:
    """Choices of a selector's options with which it can never choose from such data; or the selector itself.

    Settings that are impossible in part, as subsets too large for equal classes, are left to the search, which skips
    them.
    """
    axes, sizes = _options(selector, space), _pool_sizes(space, known)

    def obstacle(changes: Mapping[str, Sequence[Any]]) -> str | None:
        """None if the selector can choose with some values of its options; else what stands in the way."""
        return _obstacle(selector, {**axes, **changes}, sizes, known) if sizes else None

    problem, is_told = obstacle({}), False
    for option, values in axes.items():
        choices = space[f"{selector}.{option}"].values
        for part in ((value,) for value in choices) if choices else (values,):
            reason = obstacle({option: part})
            if reason is not None and (problem is None or obstacle({option: (DEFAULT,)}) is None):
                is_told = True
                yield Mistake((f"{selector}.{option}",), reason)
    if problem is not None and not is_told:
        yield Mistake(("selector",), f"{problem} Leave {selector!r} out of the space.")


def _options(selector: str, space: Space) -> dict[str, tuple[Any, ...]]:
    """Choices, or both ends, of each option of a selector in a space; `DEFAULT` too where it may be absent."""
    options: dict[str, tuple[Any, ...]] = {}
    for axis in space.coordinates:
        owner, _, option = axis.name.rpartition(".")
        if owner == selector:
            values = axis.values or tuple(int(end) if axis.kind == "int" else end for end in (axis.lo, axis.hi))
            options[option] = (*values, DEFAULT) if axis.when.keys() - {"arm", "selector"} else values
    return options


def _settings(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*options.values()):
        yield {option: v for option, v in zip(options, values, strict=True) if v is not DEFAULT}


def _first_made(selector: str, options: Mapping[str, Sequence[Any]]) -> select.Selector:
    """The selector with the first setting of its options that it takes; raises what is wrong if it takes none."""
    first = None
    for setting in _settings(options):
        try:
            return select.make(selector, setting)
        except ConfigError as error:
            first = first or error
    assert first is not None
    raise first


def _obstacle(
    selector: str, options: Mapping[str, Sequence[Any]], sizes: Sequence[int], known: TaskFacts
) -> str | None:
    """Why a selector can choose with no setting of its options, neither the smallest nor the largest subset."""
    first = None
    for setting in _settings(options):
        try:
            made = select.make(selector, setting)
        except ConfigError as error:  # these values do not go together
            first = first or str(error)
            continue
        obstacles = [made.obstacle(known, size) for size in sizes]
        if not all(obstacles):
            return None
        first = first or obstacles[0]
    return first


def _pool_sizes(space: Space, known: TaskFacts) -> tuple[int, ...]:
    """The smallest and the largest subset of the space; none where it searches shorter schedules alone."""
    axis = next((space[name] for name in ("subset_share", "q") if name in space), None)
    if axis is None or SUBSET not in space.arms:
        return ()
    n = known.num_examples
    shares = [known.share_of_q(v) if axis.name == "q" else v for v in _ends(axis)]
    return tuple(min(n, max(1, round(share * n))) for share in shares)


def _ends(axis: Coordinate) -> tuple[float, float]:
    values = axis.values or (axis.lo, axis.hi)
    return float(min(values)), float(max(values))


def dearest_budget(space: Space) -> float:
    """The largest budget of a space, as a share of the reference's compute."""
    return _ends(space["budget"])[1]
