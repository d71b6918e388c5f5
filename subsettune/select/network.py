"""What selectors see of a network: its outputs, the gradients of its last layer, and the layers inside.

| symbol | shape | meaning |
|---|---|---|
| n, M, H | int | examples, outputs, inputs of the last layer |
| residuals | (n, M) float32 | gradients of the losses by the outputs: softmax - onehot, or 2 (output - target) / M |
| hidden | (n, H) float32 | inputs of the last layer, which is linear |

The gradient of an example's loss by the last layer's weights and biases is the outer product of its residual and
(hidden, 1): it is never formed, because products of two such gradients are products of inner products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from subsettune.data import TaskData
from subsettune.data.parts import EVALUATION_BATCH
from subsettune.data.text import PADDING
from subsettune.errors import ModelDivergedError, ModelError
from subsettune.models import layer_by_layer
from subsettune.select.examples import Examples
from subsettune.select.kernels import scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The layers of a network that selectors can name.

    Args:
        layers: numbers that each named layer gives for an example, by name.
        head: name of the linear layer whose output is that of the network; empty if there is none.
        head_features: its inputs, H; 0 without.
        maps: names of the layers whose outputs of three dimensions are (b, w, t), as convolutions over time give them.
    """

    layers: dict[str, int]
    head: str
    head_features: int
    maps: frozenset[str] = frozenset()


def anatomy(network: nn.Module, inputs: Tensor) -> Anatomy:
    """Find the layers of a network by running it once, in evaluation mode and on the device of the inputs.

    Args:
        network: its mode comes back as it was.
        inputs: (b, ...) a batch; its values do not matter.
    """
    layers: dict[str, int] = {}
    heads: dict[int, str] = {}
    maps: set[str] = set()
    is_map = {id(inputs): True} if inputs.dim() == 3 and inputs.is_floating_point() else {}  # a series is (b, c, t)

    def look(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[object, ...], output: object) -> None:
            if isinstance(output, tuple) and output and isinstance(output[0], Tensor):  # recurrent: (b, t, w)
                is_map[id(output[0])] = False
                kept.append(output[0])
            if isinstance(output, Tensor) and output.dim() == 3:
                is_map[id(output)] = _is_map(module, given, output, is_map)
                maps.update([name] if is_map[id(output)] else [])
                kept.append(output)
            if isinstance(output, Tensor) and output.dim() >= 2 and output.is_floating_point():
                layers[name] = pooled(output, inputs, is_map=name in maps).shape[1]
            if isinstance(module, nn.Linear) and isinstance(output, Tensor) and output.dim() == 2:
                heads[id(output)] = name
                kept.append(output)

        return hook

    kept: list[Tensor] = []  # so that no two outputs have one id
    handles = [module.register_forward_hook(look(name, module)) for name, module in network.named_modules() if name]
    was_training = network.training
    try:
        with torch.no_grad(), layer_by_layer():
            network.eval()
            output = network(inputs)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    head = heads.get(id(output), "")
    features = network.get_submodule(head).in_features if head else 0
    return Anatomy(
        layers=layers,
        head=head,
        head_features=int(features),  # type: ignore[arg-type]
        maps=frozenset(maps),
    )


# Over time channels come first, (b, w, t), in these layers, and last, (b, t, w), in those; others keep what they get.
OVER_TIME = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm, nn.MaxPool1d, nn.AvgPool1d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d, nn.Upsample, nn.ConstantPad1d, nn.ReflectionPad1d),
)
CHANNELS_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def _is_map(module: nn.Module, given: tuple[object, ...], output: Tensor, known: dict[int, bool]) -> bool:
    """Whether an output of three dimensions is (b, w, t), by its layer, by what the layer was given, or by its insides.

    Args:
        module: the layer.
        given: what it was called with.
        output: of it.
        known: of the tensors so far, by id, in the order of their making.
    """
    if isinstance(module, (*OVER_TIME, *CHANNELS_LAST)):
        return isinstance(module, OVER_TIME)
    source = given[0] if given else None
    same = [source] if isinstance(source, Tensor) and source.shape == output.shape else []
    found = next((known[id(tensor)] for tensor in (output, *same) if id(tensor) in known), None)
    return next(reversed(known.values()), False) if found is None else found


def pooled(output: Tensor, inputs: Tensor, *, is_map: bool = False) -> Tensor:
    """(b, w) numbers of a layer's output: maps (b, w, ...) and sequences (b, t, w) are averaged over their places.

    Args:
        output: of the layer.
        inputs: (b, ...) that the network got; where they are token ids (b, t), padding is left out of the average.
        is_map: whether an output of three dimensions is (b, w, t).
    """
    if output.dim() == 2:
        return output
    if output.dim() > 3 or is_map:
        return output.flatten(2).mean(dim=2)
    if inputs.is_floating_point() or inputs.shape != output.shape[:2]:
        return output.mean(dim=1)
    there = (inputs != PADDING).unsqueeze(2)
    return output.masked_fill(~there, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)


class ModelView:
    """A network as selectors see it: in evaluation mode, without gradients, in float32.

    Args:
        network: on `device`; its mode and its gradients stay as they are.
        part: the training examples.
        device: where the network is.
        target_mean: of a regression's targets, which the network predicts standardised; None for a classification.
        target_std: likewise.
        forgotten: (n,) int64 how often each example was forgotten while the network was trained, and -1 for those it
            never got right; None where nobody counted.
    """

    def __init__(
        self,
        network: nn.Module,
        part: Examples,
        *,
        device: torch.device | str = "cpu",
        target_mean: float | Tensor | None = None,
        target_std: float | Tensor = 1.0,
        forgotten: Tensor | None = None,
    ) -> None:
        self.network, self.part, self.device = network, part, torch.device(device)
        self.forgotten = forgotten
        self._mean, self._std = target_mean, target_std
        inputs, _ = self.part.batch(torch.arange(min(2, len(self.part))))
        self._anatomy = anatomy(network, inputs.to(self.device))

    @classmethod
    def of(
        cls, network: nn.Module, data: TaskData, device: torch.device | str, forgotten: Tensor | None = None
    ) -> ModelView:
        """The view of a task's network over its training part."""
        mean = None if data.num_classes else data.target_mean
        return cls(
            network, data.train, device=device, target_mean=mean, target_std=data.target_std, forgotten=forgotten
        )

    def __len__(self) -> int:
        return len(self.part)

    @property
    def head_features(self) -> int:
        """H; 0 where the network does not end in a linear layer."""
        return self._anatomy.head_features

    def residuals(self) -> Tensor:
        """(n, M) float32 gradients of the losses by the outputs, on `device`."""
        return torch.cat([self._residual(output, targets) for output, targets in self._outputs(None)])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """(n, M) residuals and (n, H) inputs of the last layer, float32 on `device`, in one sweep.

        Raises:
            ModelError: the network does not end in a linear layer.
        """
        if not self._anatomy.head:
            raise ModelError("the last layer of the model must be linear for its gradients. Use another selector.")
        seen: list[Tensor] = []
        residuals = [self._residual(output, targets) for output, targets in self._outputs(seen)]
        return torch.cat(residuals), torch.cat(seen)

    @property
    def head(self) -> nn.Linear | None:
        """The last layer; None where it is not linear."""
        found = self.network.get_submodule(self._anatomy.head) if self._anatomy.head else None
        return found if isinstance(found, nn.Linear) else None

    @property
    def has_head_bias(self) -> bool:
        """Whether the last layer is linear with a bias, whose gradient is the residual."""
        return self.head is not None and self.head.bias is not None

    def gradient_norms(self) -> Tensor:
        """(n,) float64 norms of the gradients of the losses by all trainable parameters, on `device`.

        Raises:
            ModelError: the network cannot be differentiated for each example of a batch apart.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            rows = scores.rows_at_a_time(self.network, EVALUATION_BATCH[self.device.type])
            blocks = []
            for index in torch.arange(len(self.part)).split(rows):
                inputs, targets = (t.to(self.device) for t in self.part.batch(index))
                blocks.append(scores.gradient_norms(self.network, self.losses, inputs, targets))
                self._refuse_diverged(blocks[-1])
        finally:
            self.network.train(was_training)
        return torch.cat(blocks)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) losses of outputs (b, M), without label smoothing; `residuals` are their gradients."""
        if self._mean is None:
            return functional.cross_entropy(outputs, targets, reduction="none")
        return (outputs - self._standardised(targets, outputs)).square().mean(dim=1)

    def layer(self, name: str) -> Tensor:
        """(n, w) float32 output of a named layer, averaged over places, on `device`.

        Raises:
            ModelError: there is no such layer.
        """
        if name not in self._anatomy.layers:
            known = ", ".join(self._anatomy.layers)
            raise ModelError(f"layer must be one of {known}, got {name!r}. Name a layer as named_modules() does.")
        fed: list[Tensor] = []
        taken: list[Tensor] = []
        module, is_map = self.network.get_submodule(name), name in self._anatomy.maps

        def keep(_: nn.Module, __: tuple[object, ...], output: Tensor) -> None:
            taken.append(pooled(output.detach(), fed[-1], is_map=is_map).float())

        handles = [
            self.network.register_forward_pre_hook(lambda _, given: fed.append(given[0])),
            module.register_forward_hook(keep),
        ]
        try:
            blocks = []
            with layer_by_layer():
                for _ in self._outputs(None):
                    blocks.append(taken[-1])
                    taken.clear()
                    fed.clear()
        finally:
            for handle in handles:
                handle.remove()
        features = torch.cat(blocks)
        self._refuse_diverged(features)
        return features

    def _outputs(self, seen: list[Tensor] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs (b, M) and targets (b, ...) block by block; inputs of the last layer go to `seen`."""
        handles = []
        if seen is not None:
            head = self.network.get_submodule(self._anatomy.head)
            handles.append(head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().float())))
        was_training = self.network.training
        self.network.eval()
        try:
            for index in torch.arange(len(self.part)).split(EVALUATION_BATCH[self.device.type]):
                inputs, targets = self.part.batch(index)
                with torch.no_grad():
                    outputs = self.network(inputs.to(self.device)).float()
                self._refuse_diverged(outputs)
                yield outputs.reshape(len(index), -1), targets.to(self.device)
        finally:
            self.network.train(was_training)
            for handle in handles:
                handle.remove()

    def _residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._mean is None:
            return outputs.softmax(dim=1) - functional.one_hot(targets, outputs.shape[1]).to(outputs)
        return 2 * (outputs - self._standardised(targets, outputs)) / outputs.shape[1]

    def _standardised(self, targets: Tensor, outputs: Tensor) -> Tensor:
        assert self._mean is not None, "only the targets of a regression are standardised"
        mean, std = (v.to(self.device) if isinstance(v, Tensor) else v for v in (self._mean, self._std))
        return ((targets - mean) / std).to(outputs.dtype).reshape(outputs.shape)

    def _refuse_diverged(self, values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            raise ModelDivergedError("the network that the selector looks at left the finite numbers.")
