"""Entries: what happens to weights and optimizer when a phase starts.

Neutral settings change nothing, bit for bit. The learning-rate schedule runs on: it belongs to the policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from subsettune import config
from subsettune.config import AT_LEAST_ONE, FRACTION, NOT_EMPTY, NOT_NEGATIVE, UNIT, Rule, must, setting
from subsettune.data import Part
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.plugins import load_class
from subsettune.policy import Phase
from subsettune.task import Recipe
from subsettune.train.pruning import effect, surgery


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionContext:
    """What an entry changes, and what it may look at.

    Args:
        network: the run's network; its parameters stay the same objects.
        optimizer: the run's optimizer.
        scales: standard deviation of each parameter at initialisation, by name.
        rng: draws what is random, on the CPU.
        part: the training examples, with batches on the network's device; None where there are none to look at.
        pool: (k,) int64 positions of the phase that begins, on the CPU; None for all.
        losses: (b,) losses of outputs (b, M) and targets, as the run trains on them.
        facts: of the network before.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scales: Mapping[str, float]
    rng: torch.Generator
    part: Part | None = None
    pool: Tensor | None = None
    losses: Callable[[Tensor, Tensor], Tensor] | None = None
    facts: TaskFacts | None = None


class Entry(ABC):
    """A frozen dataclass of its options."""

    summary: ClassVar[str]

    @property
    def is_neutral(self) -> bool:
        """Whether it changes nothing and is skipped."""
        return False

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """Why it cannot be applied to such a network, in one sentence with a remedy; None if it can."""
        return None

    def flops(self, facts: TaskFacts, pool_size: int) -> int:
        """FLOPs charged for it, as selection, beside the updates.

        Args:
            facts: of the network before it.
            pool_size: examples of the phase that it opens.
        """
        return 0

    def facts_after(self, facts: TaskFacts) -> TaskFacts:
        """Facts of the network after it; only the prices of passes may differ."""
        return facts

    @abstractmethod
    def apply(self, entered: TransitionContext) -> None:
        """Change weights and optimizer in place."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Keep(Entry):
    """Go on with weights and optimizer as they are."""

    summary: ClassVar[str] = "go on with weights and optimizer as they are"

    @property
    def is_neutral(self) -> bool:
        """Always."""
        return True

    def apply(self, entered: TransitionContext) -> None:
        """Change nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResetOptimizer(Entry):
    """Clear the optimizer's state (momentum, moments); the weights stay."""

    summary: ClassVar[str] = "clear the optimizer's state; the weights stay"

    def apply(self, entered: TransitionContext) -> None:
        """Clear the state; the schedule goes on."""
        entered.optimizer.state = defaultdict(dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkPerturb(Entry):
    """Shrink the weights and add noise: theta <- shrink * theta + noise * scale * N(0, 1).

    `scale` is the parameter's own standard deviation at initialisation. Norms and biases (fewer than two dimensions)
    stay unless `everything`; the optimizer keeps its state. Source: Ash & Adams 2020, arXiv:1910.08475, section 5.

    Args:
        shrink: lambda, in [0, 1]; 1 with no noise changes nothing.
        noise: in units of the initialisation's scale.
        everything: whether norms and biases change too.
    """

    summary: ClassVar[str] = "shrink the weights and add noise (shrink 0.6, noise 0.01)"
    shrink: float = setting(0.6, rule=UNIT)
    noise: float = setting(0.01, rule=NOT_NEGATIVE)
    everything: bool = False

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether weights stay as they are."""
        return self.shrink == 1 and self.noise == 0

    def apply(self, entered: TransitionContext) -> None:
        """Change the trainable weights in place."""
        with torch.no_grad():
            for name, weight in entered.network.named_parameters():
                if weight.requires_grad and (weight.dim() >= 2 or self.everything):
                    self._change(weight, entered.scales[name], entered.rng)

    def _change(self, weight: Tensor, scale: float, rng: torch.Generator) -> None:
        if self.shrink != 1:
            weight.mul_(self.shrink)
        if self.noise:
            draw = torch.randn(weight.shape, generator=rng)  # on the CPU, so that every device sees the same noise
            weight.add_(draw.to(weight), alpha=self.noise * scale)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Entry):
    """Make the network narrower: greedy forward selection of the units of each layer, one layer after the other.

    Of a layer's m units (of a convolution: channels) exactly round(keep * m) stay, one at least, and the weights of the
    next layer make up for the others: see `subsettune.train.pruning.surgery`. From there on passes cost less, which
    the policy's allowance spends on more of them. The optimizer's state is cleared, for it does not fit any more.
    The paper picks until the training accuracy is within 0.02 of what it was; here the number of picks is given, so
    that width and cost are known before the run.

    Source: Ye et al. 2020, arXiv:2003.01794; Wolfe et al., arXiv:2108.00259.

    Args:
        keep: share of the units that stay in each layer; 1 changes nothing.
        layers: names of the layers that get narrower; null for all but the last, of each chain inside a network that is
            no chain.
        candidates: units, drawn at random, that a pick looks at; `all` for every one, which is exact greedy selection.
        examples: of the phase's pool that losses are measured on, drawn at random; at most all of it.
        repeats: picks for each unit that stays, at least 1; those above 1 make units count several times.
    """

    summary: ClassVar[str] = "make the network narrower by greedy forward selection (keep 0.5)"
    keep: float = setting(0.5, rule=FRACTION)
    layers: tuple[str, ...] | None = setting(None, rule=NOT_EMPTY)
    candidates: int | Literal["all"] = setting(50, rule=Rule("at least 1, or all", lambda v: v == "all" or v >= 1))
    examples: int = setting(512, rule=AT_LEAST_ONE)
    repeats: float = setting(1.5, rule=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_neutral(self) -> bool:
        """Whether every unit stays."""
        return self.keep == 1

    def why_not(self, recipe: Recipe, facts: TaskFacts) -> str | None:
        """Why a network cannot be pruned: it is no chain of layers and has none inside, or has no layer of a name."""
        if not facts.prunable:
            return (
                "entry prune needs a model that is or contains an nn.Sequential of linear or convolution layers, two "
                "at least, and this one has none. Use e.g. mlp, cnn or transformer, or another entry."
            )
        unknown = [name for name in self.layers or () if name not in facts.prunable]
        if unknown:
            return must("layers", f"some of {', '.join(facts.prunable)} for the entry prune", list(self.layers or ()))
        return None

    def flops(self, facts: TaskFacts, pool_size: int) -> int:
        """FLOPs of choosing the units, the most that they can be."""
        return effect.flops(facts, self._kept(facts), self._effort, min(self.examples, pool_size))

    def facts_after(self, facts: TaskFacts) -> TaskFacts:
        """Facts of the narrower network."""
        kept = self._kept(facts)
        return effect.pruned_facts(facts, kept) if kept else facts

    def apply(self, entered: TransitionContext) -> None:
        """Choose the units that stay, cut the weights, and clear the optimizer's state."""
        assert entered.part is not None, "a run gives it"
        assert entered.losses is not None, "a run gives them"
        assert entered.facts is not None, "a run gives them"
        kept = self._kept(entered.facts)
        if not kept:
            return
        pool = torch.arange(len(entered.part)) if entered.pool is None else entered.pool
        chosen = pool[torch.randperm(len(pool), generator=entered.rng)[: self.examples]]
        inputs, targets = entered.part.batch(chosen)
        examples = surgery.Examples(inputs=inputs, targets=targets, losses=entered.losses)
        surgery.prune(entered.network, kept, self._effort, examples, entered.rng)
        surgery.forget(entered.optimizer)

    @property
    def _effort(self) -> effect.PickBudget:
        return effect.PickBudget(candidates=self.candidates, repeats=self.repeats)

    def _kept(self, facts: TaskFacts) -> dict[str, int]:
        widths = ({layer.name: layer.width for layer in chain} for chain in facts.chains)
        return {name: k for own in widths for name, k in effect.kept_of(own, self.keep, self.layers).items()}


BETWEEN = (
    "In a space, prune.between prunes each layer in a phase of its own: it is the share of the compute after the "
    "switch that all but the last of them take"
)
ENTRIES: dict[str, type[Entry]] = {
    "keep": Keep,
    "reset_optimizer": ResetOptimizer,
    "shrink_perturb": ShrinkPerturb,
    "prune": Prune,
}


def make(name: str, options: Mapping[str, Any]) -> Entry:
    """An entry by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no entry.
    """
    if name not in ENTRIES and ":" not in name:
        raise ConfigError(must("entry", f"one of {', '.join(ENTRIES)} or package.module:Class", name))
    cls = ENTRIES[name] if name in ENTRIES else load_class(name, "entry", Entry)  # type: ignore[type-abstract]
    try:
        return config.build(cls, dict(options))
    except ConfigError as error:
        found = (Mistake(("entry_options", *m.path), m.message + _beside(cls, m.path)) for m in error.mistakes)
        raise ConfigError(tuple(found)) from error


def _beside(cls: type[Entry], path: tuple[str, ...]) -> str:
    """What a space has beside the options of an entry, where one is unknown."""
    return f" {BETWEEN}." if cls is Prune and path[0] not in Prune.__dataclass_fields__ else ""


def of(phase: Phase) -> Entry:
    """The entry of a phase: `keep` where its options change nothing."""
    made = make(phase.entry, phase.entry_options)
    return Keep() if made.is_neutral else made


def scales(network: nn.Module) -> dict[str, float]:
    """Standard deviation of each parameter now, by name; 0 for a single number."""
    return {n: float(p.detach().std(correction=0)) if p.numel() > 1 else 0.0 for n, p in network.named_parameters()}


def names() -> Mapping[str, str]:
    """Known entries with one line on each."""
    return {name: cls.summary for name, cls in ENTRIES.items()}
