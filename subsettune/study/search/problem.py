"""What a search is about, and how it searches: the two values that a `Search` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, UNIT, FrozenDict, setting
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.study.search.earlier import EarlierStudy
from subsettune.study.search.observations import SearchEvidence
from subsettune.study.search.shared_stems import SharedStems
from subsettune.study.spec.samplers import Sampler, SamplerName, sampler_of
from subsettune.study.spec.space import Space
from subsettune.train.planning.stem_places import Prefix


def _nothing(_: Policy) -> str | None:
    """No policy is refused."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a task before the first trial.

    Args:
        recipe: values of the conventional recipe, by name of the coordinate; empty if unknown.
        reference: score of the conventional training; None if unknown.
        num_references: runs behind it.
        earlier: studies of nearly the same task; of use only where the reference is known.
    """

    recipe: Mapping[str, Any] = FrozenDict()
    reference: float | None = None
    num_references: int = 1
    earlier: tuple[EarlierStudy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProblem:
    """What is searched, and what counts as found.

    Args:
        space: of policies.
        facts: of the task.
        target: metric that a policy must reach, tolerance already taken off.
        higher_is_better: direction of the metric.
        why_not: says why a policy cannot run (its selection costs more than its subset stretch), or None if it can.
        prefix: says which beginning a policy shares with others; None where trials share nothing.
        recipe: values that the conventional recipe has for the hyperparameters of the space; as far as it is known.
        reference: mean metric of the conventional training; None if unknown.
        num_references: runs behind it.
        earlier: studies of nearly the same task, whose trials are known before the first of this one.

    Raises:
        ConfigError: the space does not fit the task.
    """

    space: Space
    facts: TaskFacts
    target: float
    higher_is_better: bool = True
    why_not: Callable[[Policy], str | None] = _nothing
    prefix: Callable[[Policy], Prefix | None] | None = None
    recipe: Mapping[str, Any] = FrozenDict()
    reference: float | None = None
    num_references: int = 1
    earlier: tuple[EarlierStudy, ...] = ()

    def __post_init__(self) -> None:
        self.space.resolve(self.facts)

    @property
    def _sign(self) -> float:
        return 1.0 if self.higher_is_better else -1.0

    @property
    def target_score(self) -> float:
        """The target as a score: with the sign that makes higher better."""
        return self._sign * self.target

    def score(self, metric: float) -> float:
        """A metric as a score."""
        return self._sign * metric

    @property
    def known(self) -> Known:
        """What the model knows before the first trial."""
        reference = None if self.reference is None else self.score(self.reference)
        return Known(recipe=self.recipe, reference=reference, num_references=self.num_references, earlier=self.earlier)

    def metric(self, score: float) -> float:
        """A score as a metric."""
        return self._sign * score

    def policy(self, point: Mapping[str, Any]) -> Policy:
        """The policy at a point of the space."""
        return self.space.policy(point, self.facts)

    def evidence(self, noise: float | None, seed: int) -> SearchEvidence:
        """Of a search that has seen nothing: the spread over seeds, if the reference measured it, and its seed."""
        return SearchEvidence(self.target_score, noise, self.stems(seed))

    def stems(self, seed: int) -> SharedStems | None:
        """Of a search with a seed whose trials have not begun; None where they share nothing."""
        prefix, own = self.prefix, self.seed_of_runs(seed)
        return None if prefix is None else SharedStems(lambda point: prefix(self.policy(point)), self.facts, own)

    def seed_of_runs(self, seed: int) -> int:
        """By which a search with a seed draws the seeds of its runs: not those of the earlier studies it was told of.

        A run of theirs that was lucky would be lucky again, bit for bit, and count as another one.
        """
        return int(config.digest([seed, self.earlier])[:8], 16) if self.earlier else seed

    @property
    def identity(self) -> dict[str, Any]:
        """What a journal must agree in to be of the same search."""
        return {
            "space": self.space.to_mapping(),
            "target": self.target,
            "higher_is_better": self.higher_is_better,
        } | ({"warm_start": config.digest(self.earlier)} if self.earlier else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How to search.

    Args:
        trials: how many to run; failed ones count, skipped proposals do not.
        parallel: how many may run at once.
        seed: of the search; the seeds of runs derive from it.
        sampler: where new points come from; see `spec.samplers`.
        noise: standard deviation of the metric over seeds, from the reference; None: estimated from repeats.
        check_stops: share of the trials to be stopped that are run out, to measure false stops.
    """

    trials: int = setting(rule=AT_LEAST_ONE)
    parallel: int = setting(1, rule=AT_LEAST_ONE)
    seed: int = 0
    sampler: SamplerName = "auto"
    noise: float | None = setting(None, rule=NOT_NEGATIVE)
    check_stops: float = setting(0.1, rule=UNIT)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def source(self) -> Sampler:
        """The sampler that `auto` stands for."""
        return sampler_of(self.sampler, self.trials)
