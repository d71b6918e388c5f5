"""FLOPs of a network, forward and backward apart, per example.

`torch.utils.flop_counter` counts matrix products, convolutions and attention, and silently 0 for what it does not know.
Here an operation with a weight matrix that stays uncounted is an error, and so is an operation that is known to be
heavy and not to be counted. Counting runs on the meta device (nothing is computed, and recurrent layers fall apart into
countable products) with the math attention backend and the fast path of the transformer encoder off, which hide FLOPs
otherwise. A network that looks at values, which the meta device does not have, is counted on the CPU.
A multiplication and an addition are two FLOPs; element-wise work is not counted, as is customary, nor are FFTs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from subsettune import models
from subsettune.errors import ModelError

BATCHES = (2, 4)  # counted at both, so that a cost per update, not per example, shows; batch norm needs at least 2
FREE = (nn.Embedding, nn.EmbeddingBag)  # table look-ups: weights with a matrix shape and no arithmetic
HEAVY = ("_cdist_", "_euclidean_dist", "_trilinear", "linalg_", "_linalg_s", "mkldnn_rnn", "_cudnn_rnn", "quantized_")
COUNTABLE_NAMESPACES = ("aten", "prim", "prims", "profiler")  # what a custom kernel costs, nobody here knows
ADVICE = "Build it from linear, convolution, matrix-product or attention operations."


def count(
    network: nn.Module,
    input_shape: tuple[int, ...],
    num_outputs: int,
    name: str = "model",
    dtype: torch.dtype = torch.float32,
) -> tuple[int, int]:
    """Count the FLOPs of one example's forward and backward pass in training.

    Args:
        network: left as it is; a copy is counted.
        input_shape: of one example.
        num_outputs: output units, to check the output against.
        name: of the model, for messages.
        dtype: of the inputs; int64 of token ids.

    Returns:
        (forward, backward) FLOPs per example, rounded up where they are not proportional to the batch.

    Raises:
        ModelError: the network fails, its output does not fit, or FLOPs of it cannot be counted.
    """
    inputs = [models.fresh_input(input_shape, batch, "meta", dtype) for batch in BATCHES]
    small, large = (_count_batch(network, some, num_outputs, name) for some in inputs)
    forward, backward = (-(-(b - a) // (BATCHES[1] - BATCHES[0])) for a, b in zip(small, large, strict=True))
    if (forward * BATCHES[0], backward * BATCHES[0]) != small:  # a share that does not grow with the batch
        forward, backward = (-(-a // BATCHES[0]) for a in small)
    return forward, backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a forward pass of one example does in a module; of one that is called several times, the first time.

    Args:
        start: FLOPs of the pass before it.
        end: FLOPs of the pass up to its output.
        calls: how often it is called.
        needs_gradient: whether what it is given needs a gradient in the backward pass.
        dims: dimensions of its output, that of the examples included; 0 where it is no tensor.
    """

    start: int
    end: int
    calls: int
    needs_gradient: bool
    dims: int


def visits(network: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> dict[str, Visit]:
    """The modules of a network that a forward pass goes through, by name, in the order of their outputs.

    FLOPs are rounded up where they are not proportional to the batch.

    Args:
        network: that `count` could count; left as it is.
        input_shape: of one example.
        dtype: of the inputs.
    """
    inputs = models.fresh_input(input_shape, BATCHES[-1], "meta", dtype)
    try:
        return _visits(network, inputs)
    except ModelError:  # as for `count`
        return _visits(network, torch.zeros_like(inputs, device="cpu"))


def _visits(network: nn.Module, inputs: Tensor) -> dict[str, Visit]:
    twin = models.in_training(models.copy_of(network).to(inputs.device))
    begun: dict[str, tuple[int, bool]] = {}
    found: dict[str, Visit] = {}
    counter = FlopCounterMode(display=False)

    def up_to_here() -> int:
        return -(-counter.get_total_flops() // len(inputs))

    def before(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[object, ...]) -> None:
            needs_gradient = any(isinstance(one, Tensor) and one.requires_grad for one in given)
            begun.setdefault(name, (up_to_here(), needs_gradient))

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if name in found:
                found[name] = replace(found[name], calls=found[name].calls + 1)
                return
            start, needs_gradient = begun[name]
            dims = output.dim() if isinstance(output, Tensor) else 0
            found[name] = Visit(start=start, end=up_to_here(), calls=1, needs_gradient=needs_gradient, dims=dims)

        return hook

    for name, module in twin.named_modules():
        if name:
            module.register_forward_pre_hook(before(name))
            module.register_forward_hook(after(name))
    with _countable(), counter, torch.random.fork_rng(devices=[]):
        _forward(twin, inputs, "model")
    return found


def check_batch(
    network: nn.Module,
    input_shape: tuple[int, ...],
    num_examples: int,
    name: str = "model",
    dtype: torch.dtype = torch.float32,
    *,
    advice: str | None = None,
) -> None:
    """Check that a network trains on batches of `num_examples`; batch norm, for one, refuses a single example.

    Raises:
        ModelError: it does not; ends with `advice`, which by default is to take larger batches.
    """
    advice = advice or f"Choose subsets and a batch_size of more than {num_examples}."
    for device in ("meta", "cpu"):
        twin = models.in_training(models.copy_of(network).to(device))
        try:
            with torch.random.fork_rng(devices=[]):
                _forward(twin, models.fresh_input(input_shape, num_examples, device, dtype), name)
            return
        except ModelError as error:
            if device == "cpu":
                raise ModelError(f"{error} {advice}") from error


def _count_batch(network: nn.Module, inputs: Tensor, num_outputs: int, name: str) -> tuple[int, int]:
    try:
        return _count_on(network, inputs, num_outputs, name)
    except ModelError:  # perhaps only for want of values: the CPU decides
        return _count_on(network, torch.zeros_like(inputs, device="cpu"), num_outputs, name)


def _count_on(network: nn.Module, inputs: Tensor, num_outputs: int, name: str) -> tuple[int, int]:
    twin = models.in_training(models.copy_of(network).to(inputs.device))
    called: set[nn.Module] = set()
    for module in twin.modules():
        module.register_forward_hook(lambda module, *_: called.add(module))
    with _countable(), FlopCounterMode(display=False) as forward, _Watch() as watch:
        output = _forward(twin, inputs, name)
    models.check_output(output, len(inputs), num_outputs, name)
    if not output.requires_grad:
        raise ModelError(f"output of model {name!r} must depend on its trainable parameters. Check what it detaches.")
    _refuse_uncounted(twin, called, forward, name)
    with _countable(), FlopCounterMode(display=False) as backward, watch:
        output.sum().backward()
    if watch.uncounted:
        operations = ", ".join(sorted(watch.uncounted))
        raise ModelError(f"FLOPs of model {name!r} cannot be counted: it uses {operations}. {ADVICE}")
    return forward.get_total_flops(), backward.get_total_flops()


def _forward(network: nn.Module, inputs: Tensor, name: str) -> Tensor:
    try:
        output: Tensor = network(inputs)
    except Exception as error:  # whatever the user's network raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        shape = tuple(inputs.shape)
        raise ModelError(f"model {name!r} fails on inputs of shape {shape}: {reason.rstrip('.')}.") from error
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


class _Watch(TorchDispatchMode):
    """Notes heavy operations that the counter does not know."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func._overloadpacket
        namespace, _, operation = packet._qualified_op_name.partition("::")
        known = namespace in COUNTABLE_NAMESPACES and not operation.startswith(HEAVY)
        if not known and packet not in flop_registry:
            self.uncounted.add(packet._qualified_op_name)
        return func(*args, **(kwargs or {}))


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
            raise ModelError(f"FLOPs of model {name!r} cannot be counted: {where} shows none. {ADVICE}")
