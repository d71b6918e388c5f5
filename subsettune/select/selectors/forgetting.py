"""Forgetting: how often a network that is trained gets an example wrong again that it had right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from subsettune.config import Rule, must, setting
from subsettune.errors import ConfigError, Mistake, SelectionError
from subsettune.facts import TaskFacts
from subsettune.select.base import ModelNeed
from subsettune.select.families.scored import ScoredSelector

if TYPE_CHECKING:
    from torch import Tensor

    from subsettune.select.network import ModelView

TWICE = Rule("at least 2 for forgetting", lambda v: v >= 2, "What was seen once cannot be forgotten: write 3.")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting(ScoredSelector):
    """Ranks by forgetting events: an example was right when the proxy last trained on it, and is wrong now.

    Predictions are those of the training's own forward passes, augmentation included, so counting is free. Examples
    that were never right rank hardest, one event above the most forgotten one. Few passes give few different counts:
    among equal ones, the larger error of the trained proxy (EL2N) is harder, and counts for less than one event.

    When: many easy examples or copies, and a long training: its proxy takes two passes at least.
    Nested: yes. Order of the examples: given the proxies, a permutation of the examples permutes the answer (ties
    aside).
    Cost: the proxies' training, and n forward passes and 2 M n FLOPs for each. Memory: O(n M).
    Departures from the paper: it counts over 200 passes, which would cost more than what is to be saved; it leaves
    ties to chance; and it removes the least forgotten of all examples together, which is `classes: none` here.
    Source: Toneva et al. 2019, arXiv:1812.05159, definition 2.1, algorithm 1 and section 5.

    Args: as `ScoredSelector`; `model` must be `proxy`, and `proxy_passes` at least 2.
    """

    name: ClassVar[str] = "forgetting"
    summary: ClassVar[str] = "most often forgotten by a short proxy first; charged the proxy and a forward pass"
    proxy_passes: float = setting(3.0, rule=TWICE)

    def __post_init__(self) -> None:
        ScoredSelector.__post_init__(self)
        if self.model != "proxy":
            advice = "Only a network that is watched while it is trained tells what it forgot."
            raise ConfigError((Mistake(("model",), must("model", "proxy for forgetting", self.model, advice)),))

    @property
    def model_need(self) -> ModelNeed:
        """Proxies that count."""
        return ModelNeed(source="proxy", passes=self.proxy_passes, runs=self.runs, events=True)

    def look_flops(self, facts: TaskFacts) -> int:
        """A forward pass and the norm of the residual, for ties."""
        return facts.forward_flops + 2 * facts.num_outputs

    def why_not(self, facts: TaskFacts, k: int) -> str | None:
        """Classes are needed: a number is never just right."""
        if facts.num_classes == 0:
            others = "random" if facts.num_labels else "el2n or random"
            return f"forgetting needs classes, and the task {facts.classless}. Use {others}."
        return ScoredSelector.why_not(self, facts, k)

    def score(self, model: ModelView) -> Tensor:
        """Counts, with less than one event added for ties."""
        from subsettune.select.kernels.scores import error_norms, forgetting_scores

        if model.forgotten is None:
            raise SelectionError("forgetting needs a network that was watched while it was trained, got another one.")
        errors = error_norms(model.residuals())
        return forgetting_scores(model.forgotten.to(errors.device), errors)
