"""A study: what is trained, where to search, and how much to spend on it. One frozen object, checked as a whole.

How it is read from a file and written to one is in `yaml_file`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config, former_names
from subsettune.config import AT_LEAST_ONE, NOT_EMPTY, NOT_NEGATIVE, POSITIVE, FrozenDict, Rule, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.keys import ADVICE, has_keys, masked
from subsettune.study.spec import components
from subsettune.study.spec.components import Component
from subsettune.study.spec.samplers import SamplerName, sampler_of
from subsettune.study.spec.space_check import mistakes_in_space, read_space
from subsettune.task import Task

REFERENCE_POINTS = 5  # of the curve of a run of the reference, its end included
_GPUS = Rule(
    "0, a share below 1, or a whole number",
    lambda v: 0 <= v < 1 or (v > 0 and float(v).is_integer()),
    "No run has one GPU and a half.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """How much is spent on a study, and how strictly its result is judged.

    Args:
        trials: runs of the search, confirmations with another seed included.
        parallel: runs at a time.
        cpus_per_trial: CPU cores of a run, and its torch threads.
        gpus_per_trial: GPUs of a run; 0.5 puts two on one.
        seeds: runs of the reference, and of each candidate in verification, at first.
        max_seeds: cap on the runs of the reference, which verification adds to where it must; a candidate may have up
            to 4 times as many, by what it costs. The default is 3 times `seeds`.
        alpha: error rate of verification: chance that a policy at the margin passes.
        candidates: policies of the search that verification may test, besides a last resort at the largest budget.
        ablation_seeds: runs of the best policy of a selector, order, transition or soup, and of the same without it,
            for the three nearest to the target; 5 to 8 are what tells something. 0, the default, compares none.
        share_prefixes: whether trials that begin alike train their beginning once: a trial goes on from where another
            of the same settings and seed was, as far as the rate of both is at its peak and neither has switched.
            Trials are then not looked at on their way, and so not stopped early.
        sampler: where trials come from; `auto` is `frontier` for up to 100 trials and `tpe` above.
        seed: of the search and of all runs.
        reference_looks: points of the learning curve of each reference run, its end included, at equal shares of its
            compute: what it would have saved by stopping early is told by them. Each costs a forward pass over the
            validation part; the recipe's number of epochs is what people do by hand.
        checkpoint_every_s: seconds between the checkpoints of a run, which are what an interruption costs at most. The
            default, null, is 2 to 60, so that checkpoints take a 50th of the time. A study may go on with another.
        silence_limit_s: a run that shows no progress for so many seconds is taken to hang: its worker is ended, and it
            is tried once more, then given up as failed. The default, null, waits, and says so after some minutes. A
            study may go on with another.
        soup_processes: processes besides its own, each with as many CPUs and GPUs, that a trial whose policy has a soup
            is given for the soup's workers, on any nodes. They change no bits. The default, 0, has workers take turns
            in the trial's own. A study may go on with another.
        time_limit_s: no new trial starts after so many seconds of search; what is found by then is verified.
        warm_start: earlier studies of the same space on nearly the same task, by run id or folder. The search knows
            what their trials showed and begins with less of its own; they are neither seeds of its policies nor
            evidence of their verification. For the sampler `frontier` alone.
    """

    trials: int = setting(30, rule=AT_LEAST_ONE)
    parallel: int = setting(1, rule=AT_LEAST_ONE)
    cpus_per_trial: int = setting(1, rule=AT_LEAST_ONE)
    gpus_per_trial: float = setting(0.0, rule=_GPUS)
    seeds: int = setting(5, rule=Rule("at least 2", lambda v: v >= 2, "One run tells nothing of the spread."))
    max_seeds: int | None = setting(None, rule=Rule("at least 2", lambda v: v >= 2))
    alpha: float = setting(0.05, rule=Rule("in (0, 0.5]", lambda v: 0 < v <= 0.5))
    candidates: int = setting(4, rule=AT_LEAST_ONE)
    ablation_seeds: int = setting(0, rule=Rule("0 or at least 2", lambda v: v == 0 or v >= 2, "0 compares nothing."))
    share_prefixes: bool = False
    sampler: SamplerName = "auto"
    seed: int = setting(0, rule=NOT_NEGATIVE)
    time_limit_s: float | None = setting(None, rule=POSITIVE)
    warm_start: tuple[str, ...] = ()
    reference_looks: int = setting(REFERENCE_POINTS, rule=Rule("at least 2", lambda v: v >= 2))
    checkpoint_every_s: float | None = setting(None, rule=POSITIVE)
    silence_limit_s: float | None = setting(None, rule=POSITIVE)
    soup_processes: int = setting(0, rule=NOT_NEGATIVE)

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read the names of version 0.1 as today's."""
        return former_names.current_settings(raw)

    def __post_init__(self) -> None:
        config.check(self)
        if self.max_seeds is None:
            object.__setattr__(self, "max_seeds", 3 * self.seeds)
        if self.seed_cap < self.seeds:
            message = config.must("max_seeds", f"at least seeds ({self.seeds})", self.max_seeds)
            raise ConfigError((Mistake(("max_seeds",), message),))
        self._check_warm_start()

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        unset = dict.fromkeys(("checkpoint_every_s", "silence_limit_s"))
        usual: dict[str, Any] = {"reference_looks": REFERENCE_POINTS, "soup_processes": 0, **unset}
        names = [n for n in StudySettings.__dataclass_fields__ if n not in usual or getattr(self, n) != usual[n]]
        return {name: config.to_plain(getattr(self, name)) for name in names}

    def _check_warm_start(self) -> None:
        sampler, names = sampler_of(self.sampler, self.trials), list(self.warm_start)
        message = None
        if names and sampler != "frontier":
            advice = f"The sampler {sampler} learns nothing from other studies: set sampler to frontier, or remove it."
            message = config.must("warm_start", "empty", [masked(name) for name in names], advice)
        elif len(set(names)) < len(names) or "" in names:
            message = config.must("warm_start", "a list of different studies", [masked(name) for name in names])
        elif any(map(has_keys, names)):  # it is printed, and kept
            message = config.must("warm_start", "without keys", [masked(name) for name in names], f"{ADVICE}.")
        if message is not None:
            raise ConfigError((Mistake(("warm_start",), message),))

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
        mistakes = mistakes_in_space(self.space, self.task)
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


def parse(raw: object) -> Study:
    """Make a study from plain data, checking task, space and settings together.

    Raises:
        ConfigError: with all mistakes of all three parts.
    """
    try:
        return config.build(Study, raw)
    except ConfigError as error:
        mistakes = dict.fromkeys(error.mistakes)  # in order, each once
    is_read = not any(mistake.path[:1] == ("space",) for mistake in mistakes)  # else its mistakes are told
    if is_read and isinstance(raw, Mapping) and isinstance(raw.get("space"), Mapping):
        mistakes |= dict.fromkeys(mistakes_in_space(raw["space"], None))  # unseen where the task has mistakes
    raise ConfigError(tuple(mistakes))
