"""Policies: how compute is spent, as phases of training. What a search proposes becomes one in `study.spec`.

No torch here: of a task this module sees only `TaskFacts`, plain numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from subsettune import config, former_names
from subsettune.config import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, FrozenDict, Rule, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts

POLICY_SCHEMA = 2
READABLE_SCHEMAS = (1, 2)  # in the first, a transition was called an entry
BATCHING = 2  # how a phase is cut into batches, part of what a run is; in the first, each round ended with a short one
STARTING = ("transition", "transition_options", *former_names.PHASE_KEYS)  # keys that mean the start of a phase
OWN = "own"  # owner of the hyperparameters that only a training function of the user's knows, as `own.dropout`
SOUP = "soup"  # owner of the options of the soup, as `soup.workers`
PRUNE = "prune"  # the transition that may be spread over several phases
FULL, SUBSET = "full", "subset"
ROUNDING = 1e-9  # of a quotient of passes that should be whole
MOST_CHOICES = 1000  # of a phase that is chosen anew: each is a phase, and a policy is a file that people read


@dataclass(frozen=True, slots=True, kw_only=True)
class Soup:
    """LiPT's pre-training: a phase in which workers train apart on disjoint shards, then are averaged.

    The phase's allowance is the sum over the workers. See `subsettune.train.soup.workers` for what each setting does.

    Args:
        workers: networks that train apart, each on a shard of the phase's pool.
        density: share of each weight matrix's entries that a worker keeps, over the whole network; 1 keeps all.
        masks: how a worker's mask is drawn: `erk` at random, or `data`, by the gradients of its shard.
        uncovered: what weights become that no worker kept: `init`, what they were before the phase, or `zero`.
        rand_augment: magnitude of RandAugment with one operation, up to 30, on each worker's images; 0 is off.
    """

    workers: int = setting(10, rule=AT_LEAST_ONE)
    density: float = setting(0.05, rule=FRACTION)
    masks: Literal["erk", "data"] = "erk"
    uncovered: Literal["init", "zero"] = "init"
    rand_augment: int = setting(0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether it is plain training: one worker that keeps every weight."""
        return self.workers == 1 and self.density == 1 and self.rand_augment == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of training on one pool of examples.

    Args:
        share: pool size as a fraction of the training examples.
        passes: compute allowance of the phase, selection included.
        selector: who chooses the pool, a name of `subsettune selectors` or `package.module:Class`; unused at share 1.
        selector_options: its options.
        draw: number of the stream of random numbers that the selector draws from: with the same number, a larger pool
            holds the smaller ones where the selector ranks; with another, the choice is made afresh.
        q: the overdetermination ratio that `share` was derived from; a transfer to other data derives it anew.
        order: which examples of the pool come next; the same in all phases of a policy.
        order_options: its options, likewise.
        transition: what happens to weights and optimizer when the phase starts.
        transition_options: its options, e.g. `shrink` and `noise` of `shrink_perturb`.
        soup: how workers train apart in this phase, on shards of its pool; null for ordinary training.
    """

    share: float = setting(1.0, rule=FRACTION)
    passes: float = setting(rule=NOT_NEGATIVE)
    selector: str = "random"
    selector_options: FrozenDict = setting(FrozenDict())
    draw: int = setting(0, rule=NOT_NEGATIVE)
    q: float | None = setting(None, rule=POSITIVE)
    order: str = "uniform"
    order_options: FrozenDict = setting(FrozenDict())
    transition: str = "keep"
    transition_options: FrozenDict = setting(FrozenDict())
    soup: Soup | None = None

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read the names of version 0.1 as today's."""
        return former_names.current_phase(raw)

    @property
    def is_full(self) -> bool:
        """Whether the pool is all of the training data, so that nothing is selected."""
        return self.share == 1.0

    @property
    def is_plain(self) -> bool:
        """Whether it is ordinary training on all of the data: in the uniform order, by the whole network."""
        return self.is_full and self.order == "uniform" and self.transition != PRUNE and self.active_soup is None

    @property
    def active_soup(self) -> Soup | None:
        """The soup of the phase; None where it is ordinary training, a soup at its neutral setting included."""
        return None if self.soup is None or self.soup.is_neutral else self.soup

    def pool_size(self, num_examples: int) -> int:
        """K, the number of examples in the pool: round(share * N), or 1 where that is none, which checks refuse."""
        return num_examples if self.is_full else min(num_examples, max(1, round(self.share * num_examples)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A sequence of phases and the recipe hyperparameters that it overrides.

    Args:
        phases: at least one; the compute of the policy is the sum of their allowances.
        recipe: recipe keys and the values that replace the conventional ones, e.g. `{"lr": 0.1}`.
    """

    phases: tuple[Phase, ...] = setting(rule=Rule("a list of at least one phase", lambda v: len(v) > 0))
    recipe: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)
        if self.passes <= 0:
            raise ConfigError("passes must be positive in at least one phase. Give the policy some compute.")

    @property
    def passes(self) -> float:
        """Compute of the policy, in passes."""
        return math.fsum(phase.passes for phase in self.phases)

    @property
    def arm(self) -> str:
        """`full` if every phase is ordinary training on all data, else `subset`."""
        return FULL if all(phase.is_plain for phase in self.phases) else SUBSET

    @property
    def switch(self) -> float:
        """Share of the compute spent before it moves to all data; 0 for the arm `full`, 1 if it never does."""
        last = max((i for i, phase in enumerate(self.phases) if not phase.is_full), default=-1)
        return math.fsum(phase.passes for phase in self.phases[: last + 1]) / self.passes

    @property
    def key(self) -> str:
        """Content hash: equal policies have equal keys."""
        return config.digest(self.identity)

    @property
    def identity(self) -> dict[str, Any]:
        """What content hashes are made of: the first schema's words, so that no key has changed since."""
        plain = self.to_mapping()
        return {**plain, "schema": 1, "phases": [former_names.former_phase(phase) for phase in plain["phases"]]}

    def cost(self, facts: TaskFacts) -> int:
        """FLOPs that a run of this policy may spend: a hard cap, met to within one update.

        Selection is included; evaluation is not, it is ledgered apart.
        """
        return round(self.passes * facts.pass_flops)

    def boundaries(self, facts: TaskFacts) -> tuple[int, ...]:
        """Cumulated FLOPs at which each phase ends; the last one is `cost`."""
        exact = itertools.accumulate(Fraction(phase.passes) for phase in self.phases)  # rounded once, as `fsum` does
        return tuple(round(float(passes) * facts.pass_flops) for passes in exact)

    def to_mapping(self) -> dict[str, Any]:
        """Versioned JSON form; `from_mapping` reads it."""
        return {
            "schema": POLICY_SCHEMA,
            "phases": [{k: config.to_plain(getattr(p, k)) for k in Phase.__dataclass_fields__} for p in self.phases],
            "recipe": config.to_plain(self.recipe),
        }

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check and drop the schema number, and write out phases that choose anew, before the fields are read."""
        if raw.get("schema", POLICY_SCHEMA) not in READABLE_SCHEMAS:
            known = " or ".join(map(str, READABLE_SCHEMAS))
            message = config.must("schema", known, raw["schema"], "Another version of subsettune wrote it.")
            raise ConfigError((Mistake(("schema",), message),))
        folded = {key: value for key, value in raw.items() if key != "schema"}
        if isinstance(folded.get("phases"), list | tuple):
            folded["phases"] = [part for i, phase in enumerate(folded["phases"]) for part in _written_out(phase, i)]
        return folded

    @classmethod
    def from_mapping(cls, raw: object, source: str | None = None) -> Policy:
        """Read what `to_mapping` wrote, or a person did.

        A phase may have the key `reselect`: after so many passes its examples are chosen anew. It is read as equal
        phases of at most that length, each with a `draw` of its own, from that of the phase on.

        Raises:
            ConfigError: naming every mistake, or a schema number that this version does not know.
        """
        return config.build(cls, raw, source=source)


def conventional(facts: TaskFacts) -> Policy:
    """The recipe as it stands, as a policy: one phase on all data."""
    return Policy(phases=(Phase(passes=facts.reference_passes),))


def num_choices(passes: float, reselect: object) -> int:
    """How often a phase of so many passes chooses its examples, with a new choice after `reselect` passes at most."""
    if reselect is None:
        return 1
    if isinstance(reselect, bool) or not isinstance(reselect, int | float) or not reselect > 0:
        raise ConfigError(config.must("reselect", "a positive number of passes", reselect))
    if passes > MOST_CHOICES * reselect * (1 + ROUNDING):
        rule = f"at least {passes / MOST_CHOICES:.3g} for {passes:.3g} passes"
        raise ConfigError(config.must("reselect", rule, reselect, f"More than {MOST_CHOICES:,} choices are refused."))
    return max(1, math.ceil(passes / reselect - ROUNDING))


def _written_out(raw: Any, index: int) -> list[Any]:
    """A phase as a person writes it, with `reselect` replaced by one phase for each choice."""
    if not isinstance(raw, Mapping) or "reselect" not in raw:
        return [raw]
    plain = {key: value for key, value in raw.items() if key != "reselect"}
    first = raw.get("draw", 0)
    if raw["reselect"] is None or not _is_finite(raw.get("passes")) or not isinstance(first, int):
        return [plain]  # a mistake in the other keys is told when they are read
    try:
        choices = num_choices(raw["passes"], raw["reselect"])
    except ConfigError as error:
        raise ConfigError((Mistake(("phases", str(index), "reselect"), error.mistakes[0].message),)) from error
    later = {key: value for key, value in plain.items() if key not in STARTING}
    passes = raw["passes"] / choices
    return [{**(later if i else plain), "passes": passes, "draw": first + i} for i in range(choices)]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share_of_q(q: float, facts: TaskFacts) -> float:
    """The share of the data that an overdetermination ratio stands for.

    Raises:
        ConfigError: there are fewer examples than it needs.
    """
    share = facts.share_of_q(q)
    if share > 1:
        largest = facts.q()
        advice = f"It needs {share * facts.num_examples:,.0f} examples and there are {facts.num_examples:,}."
        raise ConfigError(config.must("q", f"at most {largest:.4g}", q, advice))
    return share


def check_written(policy: Policy, facts: TaskFacts, source: str | None = None) -> None:
    """Check what means nothing to a run, and that a person who writes it takes for something else.

    The `q` of a phase is a record of where its share came from, which decides nothing but a transfer; on all data
    nothing is selected.

    Args:
        policy: as a person may have written it.
        facts: of the task that it is for.
        source: name of its file, for the messages.

    Raises:
        ConfigError: a `q` is that of a share which differs from the one beside it by half an example or more; there are
            options of a selector on all data.
    """
    mistakes = []
    for index, phase in enumerate(policy.phases):
        if phase.is_full and phase.selector_options:
            message = "selector_options have no use on all data. Remove them, or give a share below 1."
            mistakes.append(Mistake(("phases", str(index), "selector_options"), message))
        share = phase.share if phase.q is None else facts.share_of_q(phase.q)
        if abs(share - phase.share) * facts.num_examples >= 0.5:
            beside = f"Write share: {share:.9g} beside it, or leave q out."
            advice = beside if share <= 1 else f"The most is {facts.q():.4g}."
            rule = f"{phase.share * facts.q():.4g}, that of a share of {phase.share:g}"
            message = config.must("q", rule, phase.q, advice)
            mistakes.append(Mistake(("phases", str(index), "q"), message))
    if mistakes:
        raise ConfigError(tuple(mistakes), source)


def transfer(policy: Policy, facts: TaskFacts) -> Policy:
    """The same policy for other data: sizes follow the shares, or Q where the policy was found by Q; passes stay.

    Raises:
        ConfigError: the Q of a phase needs more examples than the new data have.
    """
    phases = []
    for phase in policy.phases:
        plain = {name: getattr(phase, name) for name in Phase.__dataclass_fields__}
        if phase.q is not None:
            plain["share"] = share_of_q(phase.q, facts)
            plain["selector_options"] = phase.selector_options if plain["share"] != 1 else FrozenDict()
        phases.append(Phase(**plain))
    return Policy(phases=tuple(phases), recipe=policy.recipe)
