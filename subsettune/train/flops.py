"""FLOPs of a network, forward and backward apart, per example.

`torch.utils.flop_counter` counts matrix products, convolutions and attention, and silently 0 for what it does not know.
Here an operation with a weight matrix that stays uncounted is an error, and counting runs on the meta device (nothing
is computed) with the math attention backend and the fast path of the transformer encoder off, which hide FLOPs
otherwise.
A multiplication and an addition are two FLOPs; element-wise work is not counted, as is customary.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from subsettune import models
from subsettune.errors import ModelError

BATCHES = (2, 4)  # counted at both, so that a cost per update, not per example, shows; batch norm needs at least 2
FREE = (nn.Embedding, nn.EmbeddingBag)  # table look-ups: weights with a matrix shape and no arithmetic


def count(network: nn.Module, input_shape: tuple[int, ...], num_outputs: int, name: str = "model") -> tuple[int, int]:
    """Count the FLOPs of one example's forward and backward pass in training.

    Args:
        network: left as it is; a copy is counted.
        input_shape: of one example.
        num_outputs: output units, to check the output against.
        name: of the model, for messages.

    Returns:
        (forward, backward) FLOPs per example, rounded up where they are not proportional to the batch.

    Raises:
        ModelError: the network fails, its output does not fit, or a module with a weight matrix counts no FLOPs.
    """
    small, large = (_count_batch(network, input_shape, num_outputs, batch, name) for batch in BATCHES)
    forward, backward = (-(-(b - a) // (BATCHES[1] - BATCHES[0])) for a, b in zip(small, large, strict=True))
    if (forward * BATCHES[0], backward * BATCHES[0]) != small:  # a share that does not grow with the batch
        forward, backward = (-(-a // BATCHES[0]) for a in small)
    return forward, backward


def _count_batch(
    network: nn.Module, input_shape: tuple[int, ...], num_outputs: int, batch: int, name: str
) -> tuple[int, int]:
    try:
        return _count_on("meta", network, input_shape, num_outputs, batch, name)
    except NotImplementedError:  # an operation without a meta kernel, or one that looks at the values
        return _count_on("cpu", network, input_shape, num_outputs, batch, name)


def _count_on(
    device: str, network: nn.Module, input_shape: tuple[int, ...], num_outputs: int, batch: int, name: str
) -> tuple[int, int]:
    twin = copy.deepcopy(network).to(device).train()
    inputs = models.fresh_input(input_shape, batch, device)
    called: set[nn.Module] = set()
    handles = [m.register_forward_hook(lambda module, *_: called.add(module)) for m in twin.modules()]
    with _countable(), FlopCounterMode(display=False) as forward:
        output = _forward(twin, inputs, name)
    for handle in handles:
        handle.remove()
    models.check_output(output, batch, num_outputs, name)
    _refuse_uncounted(twin, called, forward, name)
    with _countable(), FlopCounterMode(display=False) as backward:
        output.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def _forward(network: nn.Module, inputs: Tensor, name: str) -> Tensor:
    try:
        output: Tensor = network(inputs)
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model {name!r} fails on inputs of shape {tuple(inputs.shape)}: {reason}") from error
    return output


@contextlib.contextmanager
def _countable() -> Iterator[None]:
    """Switch off the paths on which the counter sees nothing."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _refuse_uncounted(network: nn.Module, called: set[nn.Module], counter: FlopCounterMode, name: str) -> None:
    """Raise for a module that owns a weight matrix, was called, and shows no FLOPs."""
    counts = counter.get_flop_counts()
    root = type(network).__name__
    for path, module in network.named_modules():
        owns_matrix = any(p.dim() >= 2 for p in module.parameters(recurse=False))
        if not owns_matrix or module not in called or isinstance(module, FREE):
            continue
        key = f"{root}.{path}" if path else root
        if sum(counts.get(key, {}).values()) == 0:
            where = f"{path or 'the model itself'} ({type(module).__name__})"
            advice = "Build it from linear, convolution, matrix-product or attention operations."
            raise ModelError(f"FLOPs of model {name!r} cannot be counted: {where} shows none. {advice}")
