"""Features that distances are measured on: what the option `features` of a selector means. Torch comes later."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subsettune.config import must
from subsettune.errors import SelectionError, did_you_mean
from subsettune.facts import TaskFacts
from subsettune.select.base import ModelNeed, ModelSource
from subsettune.select.examples import SelectionContext
from subsettune.select.limits import BLOCK_BYTES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from subsettune.select.network import ModelView

LAYER = "layer:"
KINDS = ("raw", "projection", "embeddings", "gradients")
FORMS = f"one of {', '.join(KINDS)} or {LAYER}NAME"


def is_known(name: str) -> bool:
    """Whether a name is one of `FORMS`."""
    return name in KINDS or (name.startswith(LAYER) and len(name) > len(LAYER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Numbers of each example.

    Symbols: n examples; D numbers in an input; M outputs; w, the `width` of the features.

    Args:
        name: `raw`, the inputs as they are, normalised and flattened, w = D; `projection`, a Gaussian random projection
            of them, w = `dimensions`, which keeps squared distances to within about sqrt(8 / w) of each (Johnson and
            Lindenstrauss); `embeddings`, those that the data hold; `gradients`, those of an example's loss by the
            outputs of a network, w = M; `layer:NAME`, the outputs of a layer of a network.
        dimensions: w of a projection.
        projection_seed: of the projection, which is the same in every run with it.
        model: the network to look at: `proxy` or `current`.
        proxy_passes: allowance of the proxy.
    """

    name: str
    dimensions: int
    projection_seed: int
    model: ModelSource
    proxy_passes: float

    @property
    def model_need(self) -> ModelNeed | None:
        """One network for gradients and layers; none else."""
        if self.name != "gradients" and not self.name.startswith(LAYER):
            return None
        return ModelNeed(source=self.model, passes=self.proxy_passes if self.model == "proxy" else 0.0)

    def width(self, facts: TaskFacts) -> int:
        """w; at least 1."""
        if self.name.startswith(LAYER):
            return int(facts.layers.get(self.name.removeprefix(LAYER), 1))
        widths = {
            "raw": facts.num_features,
            "projection": self.dimensions,
            "embeddings": facts.num_embedding,
            "gradients": facts.num_outputs,
        }
        return max(1, widths[self.name])

    def flops(self, facts: TaskFacts) -> int:
        """2 D w of each example for a projection, a forward pass for what a network gives; else nothing."""
        if self.name == "projection":
            return 2 * facts.num_examples * facts.num_features * self.dimensions
        return 0 if self.model_need is None else facts.num_examples * facts.forward_flops

    def memory_bytes(self, facts: TaskFacts) -> int:
        """The matrix, its blocks before they are put together, a block of inputs, and what is drawn."""
        matrix = 4 * facts.num_examples * self.width(facts)
        if self.name == "raw":
            return matrix
        drawn = 4 * facts.num_features * self.dimensions if self.name == "projection" else 0
        return 2 * matrix + drawn + max(BLOCK_BYTES, 4 * facts.num_features)

    def why_not(self, who: str, facts: TaskFacts) -> str | None:
        """Why there are no such features of such data, in one sentence with a remedy; None if there are."""
        if facts.num_tokens and self.name in ("raw", "projection"):
            return (
                f"features: {self.name} of {who} need numbers, and the inputs are token ids. Use features: "
                f"{LAYER}NAME, gradients or embeddings."
            )
        if self.name == "embeddings" and facts.num_embedding == 0:
            return f"features: embeddings of {who} need embeddings in the data, and there are none. Use raw features."
        layer = self.name.removeprefix(LAYER)
        if self.name.startswith(LAYER) and layer not in facts.layers:
            advice = f"Name a layer as named_modules() does. {did_you_mean(layer, facts.layers)}"
            return must("layer", f"one of {', '.join(facts.layers)}", layer, advice)
        return None

    def compute(self, context: SelectionContext) -> Tensor:
        """(n, w) float32 features on the device of the context; features that the context gives are taken as they are.

        Raises:
            SelectionError: a number is NaN or infinite, or the network or the embeddings are missing.
        """
        if context.features is not None or self.name == "raw":
            return context.matrix()
        found = self._project(context) if self.name == "projection" else self._look(context)
        return dataclasses.replace(context, features=found).matrix()

    def _project(self, context: SelectionContext) -> Tensor:
        """Draw the projection, and apply it to the inputs block by block."""
        import torch

        rng = torch.Generator().manual_seed(self.projection_seed)
        drawn = torch.randn(context.facts.num_features, self.dimensions, generator=rng).to(context.device)
        drawn /= math.sqrt(self.dimensions)
        return torch.cat([block @ drawn for _, block in context.blocks()])

    def _look(self, context: SelectionContext) -> Tensor:
        if self.name == "embeddings":
            if context.embeddings is None:
                raise SelectionError("embeddings must be given to select by them, got None.")
            return context.embeddings.flatten(1)
        view = _only(context.models)
        return view.residuals() if self.name == "gradients" else view.layer(self.name.removeprefix(LAYER))


def _only(models: tuple[ModelView, ...]) -> ModelView:
    if len(models) != 1:
        raise SelectionError(f"1 network is needed to take features from, got {len(models)}.")
    return models[0]


def group(x: Tensor, members: torch.Tensor) -> Tensor:
    """The rows of some examples, without a copy where these are all."""
    return x if len(members) == len(x) else x[members.to(x.device)]
