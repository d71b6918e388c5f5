"""A file with a policy, as a person writes one: read, and every mistake told with its file, line and phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from subsettune import bundle, former_names
from subsettune.errors import ConfigError, Mistake, StudyError, SubsettuneError
from subsettune.policy import Phase, Policy, num_choices
from subsettune.registry import ORDERS, SELECTORS, TRANSITIONS
from subsettune.study.spec.yaml_file import Lines, located, read_yaml
from subsettune.task import Task
from subsettune.train import schedule


def read_policy(path: str, task: Task | None = None) -> Policy:
    """The policy in a JSON or YAML file, alone or as a bundle's policy.json has it.

    Args:
        path: of the file; one of JSON may lie in an object store.
        task: that it is for; null leaves its components and its recipe unchecked.

    Raises:
        ConfigError: the file cannot be read, or holds no policy, or none for the task; with every mistake of a kind.
    """
    plain, lines = (None, {}) if path.endswith(".json") else _read_yaml(path)
    if plain is None:
        policy = bundle.read_policy(path)
    else:
        try:
            policy = Policy.from_mapping(plain)
        except ConfigError as error:
            raise located(error, path, lines) from error
    mistakes = [] if task is None else [*_mistakes(policy, _origins(policy, plain), task)]
    if mistakes:
        raise located(ConfigError(tuple(dict.fromkeys(mistakes))), path, lines)
    return policy


def refuse_without_bundle(path: str) -> None:
    """Say of the place where a study writes its bundle that the study has none, and why.

    Args:
        path: of a bundle, as it was given; what else is wrong with it is told by whoever reads it.

    Raises:
        StudyError: it is `bundle` in the folder of a study that has none.
    """
    from subsettune.study.results.folder import StudyFolder

    folder, _, name = path.rstrip("/").rpartition("/")
    storage, _, run_id = folder.rpartition("/")
    if name != "bundle" or not run_id:
        return
    try:
        study = StudyFolder(storage or ("/" if folder.startswith("/") else "."), run_id)
        summary = None if study.folder.exists("bundle") or not study.exists else study.open().view().summary
    except SubsettuneError:
        return
    if summary is not None and summary.bundle is None:
        raise StudyError(f"study {run_id!r} has no bundle: {summary.headline}")


def _read_yaml(path: str) -> tuple[Any, Lines]:
    plain, lines = read_yaml(Path(path))
    if isinstance(plain, dict) and "policy" in plain:
        plain = plain["policy"]
        lines = {place[1:]: line for place, line in lines.items() if place[:1] == ("policy",)}
    if plain is None:
        raise ConfigError("the file is empty. Write phases, each with its passes.", path)
    former_names.say(plain, path)
    return plain, lines


def _mistakes(policy: Policy, origins: list[int], task: Task) -> Iterator[Mistake]:
    """What is wrong with components and recipe; whether they go together, and pay, is told when all is resolved."""
    try:
        recipe = task.recipe.override(policy.recipe)
        schedule.make(recipe.schedule, recipe.schedule_options)
    except ConfigError as error:
        yield from (Mistake(("recipe", *m.path), m.message) for m in error.mistakes)
    for phase, origin in zip(policy.phases, origins, strict=True):
        yield from (Mistake(("phases", str(origin), *m.path), m.message) for m in _broken(phase))


def _broken(phase: Phase) -> Iterator[Mistake]:
    for registry in (SELECTORS, ORDERS, TRANSITIONS):
        name, options = getattr(phase, registry.what), getattr(phase, f"{registry.what}_options")
        if registry is SELECTORS and phase.is_full:  # nothing is selected
            continue
        try:
            registry.make(name, options)
        except ConfigError as error:
            yield from (Mistake(m.path or (registry.what,), m.message) for m in error.mistakes)


def _origins(policy: Policy, plain: Any) -> list[int]:
    """For each phase of a policy the number of the one in its file, where `reselect` stands for several."""
    written = plain.get("phases") if isinstance(plain, Mapping) else None
    if written is None:
        return list(range(len(policy.phases)))
    times = [num_choices(raw["passes"], raw.get("reselect")) for raw in written]
    return [number for number, count in enumerate(times) for _ in range(count)]
