"""Selectors that rank the examples by a number that a network gives each of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Rule, must, setting
from subsettune.errors import ConfigError, Mistake, SelectionError
from subsettune.facts import TaskFacts
from subsettune.select.base import ModelNeed, ModelSource, Selector
from subsettune.select.examples import SelectionContext, Subset
from subsettune.select.families import classes
from subsettune.select.families.classes import Balance

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.network import ModelView

SHARE = Rule("in [0, 1)", lambda v: 0 <= v < 1, "It is a fraction, not a percentage: write 0.1 for 10 %.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSelector(Selector):
    """Ranks the examples, of each class apart, by a score that is higher for harder ones.

    The score is the mean over the networks, in float64; ties go to the lowest position. Nested: yes. Order of the
    examples: a permutation of the examples permutes the answer (ties aside).

    Args:
        classes: class counts of the subset: `proportional`, `equal`, or `none` to rank all examples together.
        model: the network that scores: `proxy`, trained for it, or `current`, the run's own when the phase begins.
        proxy_passes: allowance of each proxy; 0 leaves it as it was initialised. Means nothing to `model: current`.
        runs: proxies that are averaged over; 1 with `model: current`.
        keep: which end of the ranking comes first, the `hardest` examples or the `easiest`.
        skip: share of the hardest examples of each class that is passed over, where labels may be wrong: they come
            after all others, the hardest of them last.
        memory_limit_gib: refuse to start where more memory would be needed.
    """

    is_ranking: ClassVar[bool] = True
    classes: Balance = "proportional"
    model: ModelSource = "proxy"
    proxy_passes: float = setting(1.0, rule=NOT_NEGATIVE)
    runs: int = setting(1, rule=AT_LEAST_ONE)
    keep: Literal["hardest", "easiest"] = "hardest"
    skip: float = setting(0.0, rule=SHARE)
    memory_limit_gib: float = setting(4.0, rule=POSITIVE)

    def __post_init__(self) -> None:
        config.check(self)
        if self.model == "current" and self.runs > 1:
            message = must("runs", "1 with model: current", self.runs, "A run has one network of its own.")
            raise ConfigError((Mistake(("runs",), message),))
        if self.keep == "easiest" and self.skip:
            message = must("skip", "0 with keep: easiest", self.skip, "The hardest examples come last as it is.")
            raise ConfigError((Mistake(("skip",), message),))

    @abstractmethod
    def score(self, model: ModelView) -> Tensor:
        """(n,) float64 scores by one network, on its device; higher is harder."""

    @abstractmethod
    def look_flops(self, facts: TaskFacts) -> int:
        """FLOPs charged for the score of one example by one network."""

    @property
    def model_need(self) -> ModelNeed:
        """As the options say."""
        if self.model == "current":
            return ModelNeed(source="current")
        return ModelNeed(source="proxy", passes=self.proxy_passes, runs=self.runs)

    @property
    def is_deterministic(self) -> bool:
        """Given the networks, nothing is drawn."""
        return True

    @property
    def memory_limit_bytes(self) -> int:
        """As the option says."""
        return int(self.memory_limit_gib * 2**30)

    def flops(self, facts: TaskFacts, k: int) -> int:
        """A look at every example by each network, whatever `k` is; sorting is free."""
        return self.runs * facts.num_examples * self.look_flops(facts)

    def memory_bytes(self, facts: TaskFacts, k: int) -> int:
        """The residuals in blocks and as one matrix, scores and ranking."""
        return facts.num_examples * (8 * facts.num_outputs + 64)

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """Room for the classes."""
        return Selector.why_not(self, facts, k) or classes.why_not(self.name, self.classes, facts, k)

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """Score, and rank each class."""
        scores = self.scores(context)

        def within(members: Tensor, quota: int) -> Tensor:
            return self._rank(scores[members])[:quota]

        return Subset(positions=classes.rank(context.targets, context.facts, self.classes, k, within))

    def scores(self, context: SelectionContext) -> Tensor:
        """(n,) float64 mean scores over the networks, on the CPU.

        Raises:
            SelectionError: there are not as many networks as asked for.
            ModelDivergedError: an output of a network is not a finite number.
        """
        import torch

        if len(context.models) != self.runs:
            wanted = f"{self.runs} network{'s' if self.runs > 1 else ''}"
            raise SelectionError(f"{self.name} needs {wanted} to score by, got {len(context.models)}.")
        return torch.stack([self.score(model) for model in context.models]).mean(dim=0).cpu()

    def _rank(self, scores: Tensor) -> Tensor:
        import torch

        order = scores.argsort(descending=self.keep == "hardest", stable=True)
        skipped = round(self.skip * len(scores))
        return torch.cat((order[skipped:], order[:skipped].flip(0)))
