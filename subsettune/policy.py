"""Policies: how compute is spent. Coordinates of the search on one side, phases of training on the other.

No torch here: of a task this module sees only `TaskFacts`, plain numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subsettune import config
from subsettune.config import AT_LEAST_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, FrozenDict, setting
from subsettune.errors import ConfigError, Mistake

POLICY_SCHEMA = 1
COORDINATES = (
    *("arm", "budget", "switch", "subset_share", "q", "steps", "growth", "reselect"),
    *("selector", "order", "entry", "shrink", "noise"),
)
FULL, SUBSET = "full", "subset"
GROWTH = 2.0  # of the subset from step to step where the space does not say
ROUNDING = 1e-9  # of a quotient of passes that should be whole
MOST_CHOICES = 1000  # of a phase that is chosen anew: each is a phase, and a policy is a file that people read


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What policies, spaces and the search need to know of a task.

    Args:
        num_examples: N, training examples.
        num_outputs: M, output units.
        num_parameters: P, trainable parameters, tied ones once.
        forward_flops: FLOPs of the forward pass of one example.
        backward_flops: FLOPs of the backward pass of one example.
        reference_passes: compute of the conventional recipe, in passes (its epochs).
        num_features: numbers in one input example.
        num_classes: classes, or 0 for regression.
        smallest_class: training examples of the rarest class, or 0 for regression.
        class_counts: training examples of each class; empty for regression.
        head_features: H, inputs of the last layer; 0 where the network does not end in a linear layer.
        layers: numbers that each named layer gives for an example, maps and sequences averaged over their places.
        num_embedding: numbers in the embedding that the data hold of each example; 0 without.
    """

    num_examples: int = setting(rule=AT_LEAST_ONE)
    num_outputs: int = setting(rule=AT_LEAST_ONE)
    num_parameters: int = setting(rule=AT_LEAST_ONE)
    forward_flops: int = setting(rule=AT_LEAST_ONE)
    backward_flops: int = setting(rule=NOT_NEGATIVE)
    reference_passes: float = setting(rule=POSITIVE)
    num_features: int = setting(1, rule=AT_LEAST_ONE)
    num_classes: int = setting(0, rule=NOT_NEGATIVE)
    smallest_class: int = setting(0, rule=NOT_NEGATIVE)
    class_counts: tuple[int, ...] = ()
    head_features: int = setting(0, rule=NOT_NEGATIVE)
    layers: FrozenDict = setting(FrozenDict())
    num_embedding: int = setting(0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def example_flops(self) -> int:
        """FLOPs of one example's forward and backward pass: what an update pays per example."""
        return self.forward_flops + self.backward_flops

    @property
    def pass_flops(self) -> int:
        """FLOPs of one pass, the unit of compute: one conventional epoch."""
        return self.num_examples * self.example_flops

    @property
    def reference_flops(self) -> int:
        """FLOPs of the conventional recipe."""
        return round(self.reference_passes * self.pass_flops)

    def q(self, num_examples: int | None = None) -> float:
        """Overdetermination ratio Q = K*M/P of `num_examples` examples (default: all). Source: arXiv:2410.16523."""
        k = self.num_examples if num_examples is None else num_examples
        return k * self.num_outputs / self.num_parameters

    def share_of_q(self, q: float) -> float:
        """The subset share whose overdetermination ratio is `q`; above 1 when all examples are too few."""
        return q / self.q()  # so that the Q of all examples gives 1 and not a rounding error more


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
        order: which examples of the pool come next.
        entry: what happens to weights and optimizer when the phase starts.
        entry_options: its options, e.g. `shrink` and `noise` of `shrink_perturb`.
    """

    share: float = setting(1.0, rule=FRACTION)
    passes: float = setting(rule=NOT_NEGATIVE)
    selector: str = "random"
    selector_options: FrozenDict = setting(FrozenDict())
    draw: int = setting(0, rule=NOT_NEGATIVE)
    q: float | None = setting(None, rule=POSITIVE)
    order: str = "uniform"
    entry: str = "keep"
    entry_options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_full(self) -> bool:
        """Whether the pool is all of the training data, so that nothing is selected."""
        return self.share == 1.0

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

    phases: tuple[Phase, ...] = setting(rule=config.NOT_EMPTY)
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
        """`full` if every phase trains on all data, else `subset`."""
        return FULL if all(phase.is_full for phase in self.phases) else SUBSET

    @property
    def switch(self) -> float:
        """Share of the compute spent before it moves to all data; 0 for the arm `full`, 1 if it never does."""
        last = max((i for i, phase in enumerate(self.phases) if not phase.is_full), default=-1)
        return math.fsum(phase.passes for phase in self.phases[: last + 1]) / self.passes

    @property
    def key(self) -> str:
        """Content hash: equal policies have equal keys."""
        return config.digest(self)

    def cost(self, facts: TaskFacts) -> int:
        """FLOPs that a run of this policy may spend: a hard cap, met to within one update.

        Selection is included; evaluation is not, it is ledgered apart.
        """
        return round(self.passes * facts.pass_flops)

    def boundaries(self, facts: TaskFacts) -> tuple[int, ...]:
        """Cumulated FLOPs at which each phase ends; the last one is `cost`."""
        passes = [phase.passes for phase in self.phases]
        return tuple(round(math.fsum(passes[: i + 1]) * facts.pass_flops) for i in range(len(passes)))

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
        if raw.get("schema", POLICY_SCHEMA) != POLICY_SCHEMA:
            message = config.must(
                "schema", str(POLICY_SCHEMA), raw["schema"], "Another version of subsettune wrote it."
            )
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


def from_coordinates(coordinates: Mapping[str, Any], facts: TaskFacts) -> Policy:
    """Make the policy that the search's coordinates describe.

    Args:
        coordinates: `arm`; `budget`, a share of the reference's compute; for the arm `subset` also `switch` and
            `subset_share` or `q`, and if given `steps`, `growth`, `reselect`, `selector`, `order`, `entry`, `shrink`,
            `noise`, and options of the selector as `SELECTOR.OPTION`. Every other key is a hyperparameter of the
            recipe. Keys of the other arm, and options of other selectors, are ignored.
        facts: of the task.

    Returns:
        One phase on all data (arm `full`); or, for the arm `subset`, subset phases and then one on all data, which
        `entry` opens. There is one subset phase, unless it grows: then there are `steps`, each `growth` times as large
        as the one before and as many rounds long, as far as they are smaller than the data; and unless it is chosen
        anew every `reselect` passes, each choice being a phase.

    Raises:
        ConfigError: a coordinate is missing or out of range, or `q` needs more examples than there are.
    """
    arm = coordinates.get("arm", SUBSET if "switch" in coordinates else FULL)
    recipe = FrozenDict({key: value for key, value in coordinates.items() if key not in COORDINATES and "." not in key})
    missing = [key for key in (("budget",) if arm == FULL else ("budget", "switch")) if key not in coordinates]
    if missing:
        raise ConfigError(f"coordinates must have {' and '.join(missing)}, got {sorted(coordinates)}.")
    passes = coordinates["budget"] * facts.reference_passes
    order = coordinates.get("order", "uniform")
    if arm == FULL:
        return Policy(phases=(Phase(passes=passes, order=order),), recipe=recipe)
    switch = coordinates["switch"]
    if not 0 < switch < 1:
        raise ConfigError(config.must("switch", "in (0, 1)", switch, "A share of the budget: write 0.3."))
    subsets = _subset_phases(coordinates, switch * passes, facts)
    entry = coordinates.get("entry", "keep")
    options = {key: coordinates[key] for key in ("shrink", "noise") if key in coordinates}
    rest = Phase(
        passes=passes - switch * passes,
        order=order,
        entry=entry,
        entry_options=FrozenDict(options if entry == "shrink_perturb" else {}),
    )
    return Policy(phases=(*subsets, rest), recipe=recipe)


def _subset_phases(coordinates: Mapping[str, Any], passes: float, facts: TaskFacts) -> list[Phase]:
    """The subset stretch of a policy, `passes` long in all."""
    share, q = _share(coordinates, facts)
    factors = _factors(coordinates, share)
    selector = coordinates.get("selector", "random")
    options = {key.rpartition(".")[2]: v for key, v in coordinates.items() if key.rpartition(".")[0] == selector}
    phases: list[Phase] = []
    for factor in factors:
        length = passes * factor / math.fsum(factors)  # rounds on the pool are as many in each step
        choices = _num_choices(length, coordinates.get("reselect"))
        for _ in range(choices):
            phases.append(
                Phase(
                    share=share * factor if q is None else facts.share_of_q(q * factor),  # as a transfer derives it
                    q=None if q is None else q * factor,
                    passes=length / choices,
                    selector=selector,
                    selector_options=FrozenDict(options),
                    draw=len(phases) if "reselect" in coordinates else 0,
                    order=coordinates.get("order", "uniform"),
                )
            )
    return phases


def _factors(coordinates: Mapping[str, Any], share: float) -> list[float]:
    """Sizes of the steps as multiples of the first, as far as they are smaller than the data."""
    steps, growth = coordinates.get("steps", 1), coordinates.get("growth", GROWTH)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(config.must("steps", "a whole number, 1 or more", steps))
    if not growth > 1:
        raise ConfigError(config.must("growth", "above 1", growth))
    larger = itertools.takewhile(lambda factor: share * factor < 1, (growth**i for i in range(1, steps)))
    return [1, *larger]


def _num_choices(passes: float, reselect: object) -> int:
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
        choices = _num_choices(raw["passes"], raw["reselect"])
    except ConfigError as error:
        raise ConfigError((Mistake(("phases", str(index), "reselect"), error.mistakes[0].message),)) from error
    later = {key: value for key, value in plain.items() if key not in ("entry", "entry_options")}
    passes = raw["passes"] / choices
    return [{**(later if i else plain), "passes": passes, "draw": first + i} for i in range(choices)]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(coordinates: Mapping[str, Any], facts: TaskFacts) -> tuple[float, float | None]:
    """The subset share, and the Q it came from if it did."""
    if ("subset_share" in coordinates) == ("q" in coordinates):
        raise ConfigError("exactly one of subset_share and q must be given for the arm 'subset'.")
    if "subset_share" in coordinates:
        return float(coordinates["subset_share"]), None
    q = float(coordinates["q"])
    share = facts.share_of_q(q)
    if share > 1:
        largest = facts.q()
        advice = f"It needs {share * facts.num_examples:,.0f} examples and there are {facts.num_examples:,}."
        raise ConfigError(config.must("q", f"at most {largest:.4g}", q, advice))
    return share, q


def transfer(policy: Policy, facts: TaskFacts) -> Policy:
    """The same policy for other data: sizes follow the shares, or Q where the policy was found by Q; passes stay.

    Raises:
        ConfigError: the Q of a phase needs more examples than the new data have.
    """
    phases = []
    for phase in policy.phases:
        plain = {name: getattr(phase, name) for name in Phase.__dataclass_fields__}
        if phase.q is not None:
            plain["share"], _ = _share({"q": phase.q}, facts)
        phases.append(Phase(**plain))
    return Policy(phases=tuple(phases), recipe=policy.recipe)
