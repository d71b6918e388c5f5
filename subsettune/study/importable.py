"""The user's code, and that of other packages, in a study: what every process that trains must be able to import."""

from __future__ import annotations

from collections.abc import Mapping

from subsettune import config, registry
from subsettune.errors import ConfigError, Mistake
from subsettune.plugins import MAIN, load_object
from subsettune.study.spec.definition import Study
from subsettune.study.spec.space_check import read_space

SEARCHED = (registry.SELECTORS, registry.ORDERS, registry.TRANSITIONS, registry.OPTIMIZERS)


def own_code(study: Study) -> dict[str, str]:
    """What a study names that is not ours, as `module:name`, each with its key in the study file."""
    task, space = study.task, read_space(study.space)
    found = {}
    if task.train is not None and not task.is_script:
        found[task.train] = "task.train"
    if task.has_data and ":" in task.data.source and "/" not in task.data.source:
        found[task.data.source] = "task.data.source"
    named = [] if task.is_own else [(registry.MODELS, task.model.name, "task.model.name")]
    named.append((registry.OPTIMIZERS, task.recipe.optimizer, "task.recipe.optimizer"))
    named.append((registry.OWN_METRICS, task.metric, "task.metric"))
    goals = {"task.loss": (registry.LOSSES, task.loss)}
    goals["task.recipe.augment.function"] = (registry.AUGMENTS, task.recipe.augment.function)
    named += [(kind, name, key) for key, (kind, name) in goals.items() if name is not None]
    for kind in SEARCHED:
        values = space[kind.what].values if kind.what in space else ()
        named += [(kind, str(value), f"space.{kind.what}") for value in values]
    for kind, name, key in named:
        target = kind.code_of(name)
        if target is not None:
            found[target] = key
    return found


def check_importable(study: Study) -> None:
    """Refuse code of the running script or notebook: a worker is another process, with a `__main__` of its own.

    Raises:
        ConfigError: a name begins with `__main__:`.
    """
    advice = "Put it into a file of its own and write module:name, or run without Ray: executor='inline', --inline."
    mistakes = [
        Mistake(tuple(key.split(".")), config.must(key.rpartition(".")[2], "importable by workers", name, advice))
        for name, key in own_code(study).items()
        if name.startswith(f"{MAIN}:")
    ]
    if mistakes:
        raise ConfigError(tuple(mistakes))


def check_goal_code(study: Study) -> None:
    """Refuse a metric or a loss of the user's own that this process cannot import, before anything is read.

    Raises:
        ConfigError: the module or the function is not there.
    """
    task = study.task
    for kind, name in (registry.OWN_METRICS, task.metric), (registry.LOSSES, task.loss):
        if name is None or task.is_own or kind.code_of(name) is None:
            continue
        try:
            kind.load(name)
        except ConfigError as error:
            raise ConfigError(tuple(Mistake(("task", kind.what), one.message) for one in error.mistakes)) from error


def why_not_here(code: Mapping[str, str]) -> str | None:
    """Why this process cannot import what `own_code` found; None if it can.

    Args:
        code: names with their keys.
    """
    for name, key in code.items():
        try:
            load_object(name, key)
        except ConfigError as error:
            return str(error)
    return None
