"""Scores of examples from the gradients of a network: pure functions of tensors.

| symbol | shape | meaning |
|---|---|---|
| b, M, H, P | int | examples, outputs, inputs of the last layer, trainable parameters |
| residuals | (b, M) float32 | gradients of the losses by the outputs |
| hidden | (b, H) float32 | inputs of the last layer, which is linear |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from subsettune.errors import ModelError
from subsettune.select.limits import GRADIENT_BYTES


def error_norms(residuals: Tensor) -> Tensor:
    """(b,) float64 Euclidean norms of residuals. Source: Paul et al. 2021, arXiv:2107.07075, definition 2.2 (EL2N)."""
    norms: Tensor = torch.linalg.vector_norm(residuals, dim=1, dtype=torch.float64)
    return norms


def last_layer_norms(residuals: Tensor, hidden: Tensor, *, has_bias: bool) -> Tensor:
    """Norms of the gradients by the last layer's weights and, where there are any, biases.

    The gradient is the outer product of the residual and (hidden, 1), so its norm is the product of their norms:
    |residual| sqrt(|hidden|^2 + 1), or |residual| |hidden| without a bias.

    Args:
        residuals: (b, M).
        hidden: (b, H).
        has_bias: of the layer.

    Returns:
        (b,) float64.
    """
    squared: Tensor = torch.linalg.vector_norm(hidden, dim=1, dtype=torch.float64).square()
    return error_norms(residuals) * (squared + has_bias).sqrt()


def forgetting_scores(forgotten: Tensor, errors: Tensor) -> Tensor:
    """How hard examples are by how often they were forgotten, and among equal ones by their errors.

    Args:
        forgotten: (b,) int64 forgetting events, and -1 where there was nothing to forget: these count as one event
            more than the most.
        errors: (b,) float64 in [0, sqrt(2)], norms of softmax - onehot.

    Returns:
        (b,) float64: the number of events is the whole part.

    Source: Toneva et al. 2019, arXiv:1812.05159, section 2; the second key is ours.
    """
    events = torch.where(forgotten < 0, forgotten.max() + 1, forgotten)
    return events + errors / 2


def rows_at_a_time(network: nn.Module, most: int) -> int:
    """Examples whose gradients by all parameters take `GRADIENT_BYTES`: at least 1, and no more than `most`."""
    num_bytes = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return max(1, min(most, GRADIENT_BYTES // num_bytes))


def gradient_norms(
    network: nn.Module, losses: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor
) -> Tensor:
    """Norms of the gradients of the losses by all trainable parameters, for each example apart.

    Cost: a forward and a backward pass of each example, and 2P for its norm. Memory: b P numbers and the activations.

    Args:
        network: in the mode in which it is to be looked at; its own gradients stay as they are.
        losses: of outputs (b, M) and targets (b, ...): (b,).
        inputs: (b, ...), on the device of the network.
        targets: (b, ...).

    Returns:
        (b,) float64.

    Raises:
        ModelError: `torch.func.vmap` cannot follow the network, e.g. because it branches on values.

    Source: Paul et al. 2021, arXiv:2107.07075, definition 2.1 (GraNd).
    """
    trainable = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    fixed |= dict(network.named_buffers())

    def loss(parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> Tensor:
        output = functional_call(network, {**parameters, **fixed}, (example.unsqueeze(0),))
        return losses(output.reshape(1, -1).float(), target.unsqueeze(0))[0]

    try:
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(trainable, inputs, targets)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        advice = "Use gradient: last, or another selector."
        raise ModelError(f"the model cannot be differentiated example by example: {reason}. {advice}") from error
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64) for g in gradients.values()]
    whole: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return whole
