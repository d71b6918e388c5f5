"""A study file: task, space and settings. YAML 1.2 in, one frozen object out, all mistakes at once with their lines."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subsettune import config, former_names
from subsettune.config import AT_LEAST_ONE, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, FrozenDict, Rule, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.policy import SOUP
from subsettune.study.spec import components
from subsettune.study.spec.components import Component
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.kinds import OWNING
from subsettune.study.spec.space import Space
from subsettune.task import OPTIMIZER_KEYS, RECIPE_KEYS, Recipe, Task

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError

_ANY_RECIPE = Recipe(lr=0.1, batch_size=1, epochs=1)  # to check a space against while the task's own is not readable


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """How much is spent on a study, and how strictly its result is judged.

    Args:
        trials: runs of the search, confirmations with another seed included.
        parallel: runs at a time.
        cpus_per_trial: CPU cores of a run, and its torch threads.
        gpus_per_trial: GPUs of a run; 0.5 puts two on one.
        seeds: runs of the reference, and of each candidate in verification.
        max_seeds: cap on the seeds that verification may add.
        alpha: error rate of verification: chance that a policy at the margin passes.
        candidates: policies that verification tests, besides the best of the full arm.
        comparison_seeds: runs of the best policy of each selector, order and transition and of the soup, and of the
            same without it; 0 compares none.
        sampler: where trials come from; `auto` is `frontier` for up to 100 trials and `tpe` above.
        objective: what is minimised; `seconds` are projected from the reference's measured rate.
        seed: of the search and of all runs.
        time_limit_s: no new trial starts after so many seconds of search; what is found by then is verified.
    """

    trials: int = setting(30, rule=AT_LEAST_ONE)
    parallel: int = setting(1, rule=AT_LEAST_ONE)
    cpus_per_trial: int = setting(1, rule=AT_LEAST_ONE)
    gpus_per_trial: float = setting(0.0, rule=NOT_NEGATIVE)
    seeds: int = setting(5, rule=Rule("at least 2", lambda v: v >= 2, "One run tells nothing of the spread."))
    max_seeds: int | None = setting(None, rule=Rule("at least 2", lambda v: v >= 2))
    alpha: float = setting(0.05, rule=Rule("in (0, 0.5]", lambda v: 0 < v <= 0.5))
    candidates: int = setting(3, rule=AT_LEAST_ONE)
    comparison_seeds: int = setting(3, rule=Rule("0 or at least 2", lambda v: v == 0 or v >= 2, "0 compares nothing."))
    sampler: Literal["auto", "frontier", "gp", "tpe", "random"] = "auto"
    objective: Literal["flops", "passes", "seconds"] = "flops"
    seed: int = setting(0, rule=NOT_NEGATIVE)
    time_limit_s: float | None = setting(None, rule=POSITIVE)

    def __post_init__(self) -> None:
        config.check(self)
        if self.max_seeds is None:
            object.__setattr__(self, "max_seeds", 2 * self.seeds)
        if self.seed_cap < self.seeds:
            message = config.must("max_seeds", f"at least seeds ({self.seeds})", self.max_seeds)
            raise ConfigError((Mistake(("max_seeds",), message),))

    @property
    def seed_cap(self) -> int:
        """`max_seeds`, resolved."""
        assert self.max_seeds is not None
        return self.max_seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study: what is trained, where to search, and how much to spend on it."""

    task: Task
    space: FrozenDict = setting(rule=NOT_EMPTY)
    study: StudySettings = setting(StudySettings())

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read the names of version 0.1 as today's."""
        if not isinstance(raw.get("space"), Mapping):
            return raw
        try:
            return {**raw, "space": former_names.current_space(raw["space"])}
        except ConfigError as error:
            raise ConfigError(tuple(Mistake(("space", *m.path), m.message) for m in error.mistakes)) from error

    def __post_init__(self) -> None:
        config.check(self)
        mistakes = _mistakes_in_space(self.space, self.task)
        if mistakes:
            raise ConfigError(tuple(mistakes))

    @property
    def components(self) -> tuple[Component, ...]:
        """Selectors, orders, transitions and the soup of the space; none where it searches shorter schedules alone."""
        return components.of_space(read_space(self.space))

    @property
    def contenders(self) -> tuple[Component, ...]:
        """Those that have to pay for themselves: all but the neutral ones."""
        return tuple(component for component in self.components if not component.is_neutral)

    def with_settings(self, changes: Mapping[str, Any]) -> Study:
        """The study with some settings replaced, e.g. `{"trials": 60}`; None leaves a setting as it is."""
        given = {key: value for key, value in changes.items() if value is not None}
        plain = {**config.to_plain(self.study), **given}
        if "seeds" in given and "max_seeds" not in given:
            plain["max_seeds"] = max(plain["max_seeds"], given["seeds"])
        return dataclasses.replace(self, study=config.build(StudySettings, plain))


def read(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has mistakes; each is named with its line.
    """
    path = Path(path)
    raw, lines = read_yaml(path)
    if raw is None:
        raise ConfigError("the file is empty. Write the keys task, space and study.", str(path))
    former_names.say(raw, str(path))
    return parse(raw, source=str(path), lines=lines)


def parse(raw: object, *, source: str | None = None, lines: Mapping[tuple[str, ...], int] | None = None) -> Study:
    """Make a study from plain data, checking task, space and settings together.

    Raises:
        ConfigError: with all mistakes of all three parts.
    """
    try:
        return config.build(Study, raw)
    except ConfigError as error:
        mistakes = dict.fromkeys(error.mistakes)  # in order, each once
    if isinstance(raw, Mapping) and isinstance(raw.get("space"), Mapping):
        mistakes |= dict.fromkeys(_mistakes_in_space(raw["space"], None))  # unseen where the task has mistakes
    raise located(ConfigError(tuple(mistakes)), source, lines or {})


def located(error: ConfigError, source: str | None, lines: Mapping[tuple[str, ...], int]) -> ConfigError:
    """The same mistakes with the file and the lines that they stand in."""
    return ConfigError(tuple(config.with_line(m, lines) for m in error.mistakes), source)


def read_space(raw: Mapping[str, Any]) -> Space:
    """Read what stands under `space:`, knowing this package's components and the keys of a recipe.

    Raises:
        ConfigError: with every mistake; paths are relative to `space`.
    """
    known = {name: kind.owners for name, kind in OWNING.items()}
    return Space.from_mapping(raw, recipe_keys=RECIPE_KEYS, known=known)


def _mistakes_in_space(raw: Mapping[str, Any], task: Task | None) -> list[Mistake]:
    """What is wrong under `space:`, in itself or for the recipe of the task, if the task is one."""
    try:
        space = read_space(raw)
    except ConfigError as error:
        return [Mistake(("space", *m.path), m.message) for m in error.mistakes]
    found: dict[Mistake, None] = {}  # in order, each once
    for axis in space.coordinates:
        if axis.name in RECIPE_KEYS:
            found |= dict.fromkeys(_mistakes_on_axis(axis, space, task))
        elif "." in axis.name:
            found |= dict.fromkeys(_mistakes_on_option(axis, space))
    return list(found)


def _mistakes_on_option(axis: Coordinate, space: Space) -> Iterator[Mistake]:
    """Try the choices, or both ends, of an option of a component, beside the first values of its other options."""
    owner = axis.name.rpartition(".")[0]
    in_space = (name for name in OWNING if name in space and owner in space[name].values)
    kind = next(in_space, SOUP)  # the soup is its own owner
    own = [other for other in space.coordinates if other.name.rpartition(".")[0] == owner and "." in other.name]
    names = {other.name: other.name.rpartition(".")[2] for other in own}
    for value in axis.ends:
        try:
            components.make(kind, owner, {names[name]: v for name, v in _setting(axis, value, own).items()})
        except ConfigError as error:
            others = set(names.values()) - {names[axis.name]}  # their own mistakes are told when it is their turn
            mine = [m for m in error.mistakes if not others & set(m.path)]
            yield from (Mistake(("space", axis.name), m.message) for m in mine)


def _setting(axis: Coordinate, value: Any, own: Sequence[Coordinate]) -> dict[str, Any]:
    """A value of one of a component's options, and the first values of the others that can stand beside it."""
    names, point = {other.name for other in own}, {axis.name: value}
    for other in own:  # after those that it depends on
        if other is not axis and all(point.get(k) in ok for k, ok in other.when.items() if k in names):
            point[other.name] = axis.when.get(other.name, other.ends)[0]
    return point


def _mistakes_on_axis(axis: Coordinate, space: Space, task: Task | None) -> Iterator[Mistake]:
    """Try the choices, or both ends, of a recipe key with every setting of the keys that it depends on."""
    for value, others in itertools.product(axis.ends, _contexts(axis, space)):
        changes = {**others, axis.name: value}
        try:
            recipe = (task.recipe if task is not None else _ANY_RECIPE).override(changes)
            if task is not None:
                dataclasses.replace(task, recipe=recipe)
        except ConfigError as error:
            advice = " Write {int: [lo, hi]}." if axis.kind == "float" and "whole number" in str(error) else ""
            advice = advice or "".join(f" Or add when: {{{key}: ...}}." for key in others if key not in axis.when)
            for mistake in error.mistakes:
                if axis.name in mistake.path:
                    yield Mistake(("space", axis.name), mistake.message + advice)


def _contexts(axis: Coordinate, space: Space) -> Iterator[dict[str, Any]]:
    """Settings of the recipe keys that decide whether a value makes sense: its conditions, and the optimizer."""
    keys = {key: allowed for key, allowed in axis.when.items() if key in RECIPE_KEYS}
    if axis.name in OPTIMIZER_KEYS and "optimizer" in space:
        keys.setdefault("optimizer", space["optimizer"].values)
    for values in itertools.product(*keys.values()):
        yield dict(zip(keys, values, strict=True))


def read_yaml(path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Read YAML 1.2 (where 5e-4 is a number) into plain data and the line of every key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has a key twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{path} cannot be read: {reason}. Give the path of a study file.") from error
    try:
        loaded = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError((Mistake((), f"not valid YAML: {_problem(error)}", line),), str(path)) from error
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {reason}. Save it as plain text.", str(path)) from error
    lines: dict[tuple[str, ...], int] = {}
    return _plain(loaded, (), lines), lines


def _problem(error: MarkedYAMLError) -> str:
    """What is wrong in one line, with the remedy for the two commonest slips."""
    problem = (error.problem or "it does not parse").strip().splitlines()[0]
    if "'\\t'" in problem:
        return "a tab stands where spaces must. Indent with spaces."
    if problem.startswith("found duplicate key"):
        return f"key {problem.split()[3]} is there twice. Remove one of them."
    return f"{problem}. Check brackets, quotes and indentation there."


def _plain(node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    """Strip ruamel's types, which remember comments and formats, and note where each key stands."""
    if isinstance(node, Mapping):
        for key in node:
            lines[(*path, str(key))] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, (*path, str(i)), lines) for i, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def to_yaml(study: Study) -> str:
    """The resolved study as YAML, every default written out."""
    import io

    from ruamel.yaml import YAML

    writer = YAML(typ="rt", pure=True)
    writer.width = 1000
    buffer = io.StringIO()
    writer.dump(config.to_plain(study), buffer)
    return buffer.getvalue()
