"""prune: the network gets narrower when a phase starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch

from subsettune import config
from subsettune.config import AT_LEAST_ONE, FRACTION, NOT_EMPTY, Rule, must, setting
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.task import Recipe
from subsettune.train.pruning import effect, surgery
from subsettune.train.transitions.base import Transition, TransitionContext

BETWEEN = (
    "In a space, prune.between prunes each layer in a phase of its own: it is the share of the compute after the "
    "switch that all but the last of them take"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Transition):
    """Make the network narrower: greedy forward selection of the units of each layer, one layer after the other.

    Of a layer's m units (of a convolution: channels) exactly round(keep * m) stay, one at least, and the weights of the
    next layer make up for the others: see `subsettune.train.pruning.surgery`. From there on passes cost less, which
    the policy's allowance spends on more of them. The optimizer's state is cleared, for it does not fit any more.
    The paper picks until the training accuracy is within 0.02 of what it was; here the number of picks is given, so
    that width and cost are known before the run.

    Source: Ye et al. 2020, arXiv:2003.01794; Wolfe et al., arXiv:2108.00259.
    When: the network is wider than the task asks for, so that narrower and cheaper passes do after the switch.
    Cost: forward passes for each pick, on `examples` of the pool: see `candidates`.

    Args:
        keep: share of the units that stay in each layer; 1 changes nothing.
        layers: names of the layers that get narrower; null for all but the last, of each chain inside a network that is
            no chain.
        candidates: units, drawn at random, that a pick looks at; `all` for every one, which is exact greedy selection.
        examples: of the phase's pool that losses are measured on, drawn at random; at most all of it.
        repeats: picks for each unit that stays, at least 1; those above 1 make units count several times.
    """

    summary: ClassVar[str] = "make the network narrower by greedy forward selection (keep 0.5)"
    needs_losses: ClassVar[bool] = True
    spread_options: ClassVar[tuple[str, ...]] = ("between",)
    in_space: ClassVar[str] = BETWEEN
    reshapes: ClassVar[bool] = True
    keep: float = setting(0.5, rule=FRACTION)
    layers: tuple[str, ...] | None = setting(None, rule=NOT_EMPTY)
    candidates: int | Literal["all"] = setting(50, rule=Rule("at least 1, or all", lambda v: v == "all" or v >= 1))
    examples: int = setting(512, rule=AT_LEAST_ONE)
    repeats: float = setting(1.5, rule=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        config.check(self)

    @classmethod
    def spread(
        cls, options: Mapping[str, Any], passes: float, facts: TaskFacts
    ) -> Sequence[tuple[float, Mapping[str, Any]]]:
        """With `between` above 0, each layer in a phase of its own; all but the last share that part of the stretch."""
        plain = {name: value for name, value in options.items() if name != "between"}
        between = options.get("between", 0.0)
        if isinstance(between, bool) or not isinstance(between, int | float) or not 0 <= between < 1:
            advice = "A share of the compute after the switch."
            raise ConfigError(must("prune.between", "in [0, 1)", between, advice))
        asked = plain.get("layers")
        layers = [name for name in facts.prunable if asked is None or name in asked]
        if not between or len(layers) < max(2, len(asked or ())):  # names that are unknown are told by `why_not`
            return ((passes, plain),)
        lengths = [between * passes / (len(layers) - 1)] * (len(layers) - 1)
        ends = [*lengths, passes - math.fsum(lengths)]
        return [(length, {**plain, "layers": (layer,)}) for layer, length in zip(layers, ends, strict=True)]

    @classmethod
    def idle_options(cls, choices: Mapping[str, Sequence[Any]], facts: TaskFacts) -> Mapping[str, str]:
        """Compute between prunings where only one layer is pruned: all of its values are one policy."""
        prunable = set(facts.prunable)
        pruned = [prunable if names is None else set(names) for names in choices.get("layers", (None,))]
        counts = {len(names) for names in pruned if names <= prunable}  # a name that no layer has is told by itself
        if counts != {1} or max((share or 0 for share in choices.get("between", ())), default=0) == 0:
            return {}
        one = f"this model has one layer that can be pruned, {facts.prunable[0]!r}"
        have = "prune.layers leaves one" if len(prunable) > 1 else one
        advice = "Remove prune.between, or set it to 0."
        return {"between": f"prune.between has no use with fewer than two layers to prune, and {have}. {advice}"}

    @property
    def is_neutral(self) -> bool:
        """Whether every unit stays."""
        return self.keep == 1

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """Why a network cannot be pruned: it is no chain of layers and has none inside, or has no layer of a name."""
        if not facts.prunable:
            return (
                "transition prune needs a model that is or contains an nn.Sequential of linear or convolution layers, "
                "two at least, and this one has none. Use e.g. mlp, cnn or transformer, or another transition."
            )
        unknown = [name for name in self.layers or () if name not in facts.prunable]
        if unknown:
            return must(
                "layers", f"some of {', '.join(facts.prunable)} for the transition prune", list(self.layers or ())
            )
        return None

    def flops(self, facts: TaskFacts, pool_size: int) -> int:
        """FLOPs of choosing the units, the most that they can be."""
        return effect.flops(facts, self._kept(facts), self._effort, min(self.examples, pool_size))

    def facts_after(self, facts: TaskFacts) -> TaskFacts:
        """Facts of the narrower network."""
        kept = self._kept(facts)
        return effect.pruned_facts(facts, kept) if kept else facts

    def apply(self, context: TransitionContext) -> None:
        """Choose the units that stay, cut the weights, and clear the optimizer's state."""
        assert context.part is not None, "a run gives it"
        assert context.losses is not None, "a run gives them"
        assert context.facts is not None, "a run gives them"
        kept = self._kept(context.facts)
        if not kept:
            return
        pool = torch.arange(len(context.part)) if context.pool is None else context.pool
        chosen = pool[torch.randperm(len(pool), generator=context.rng)[: self.examples]]
        inputs, targets = context.part.batch(chosen)
        examples = surgery.Examples(inputs=inputs, targets=targets, losses=context.losses)
        surgery.prune(context.network, kept, self._effort, examples, context.rng)
        surgery.forget(context.optimizer)

    @property
    def _effort(self) -> effect.PickBudget:
        return effect.PickBudget(candidates=self.candidates, repeats=self.repeats)

    def _kept(self, facts: TaskFacts) -> dict[str, int]:
        widths = ({layer.name: layer.width for layer in chain} for chain in facts.chains)
        return {name: k for own in widths for name, k in effect.kept_of(own, self.keep, self.layers).items()}
