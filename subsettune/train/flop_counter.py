"""Counts FLOPs of what torch carries out, operation by operation, and notes what it cannot count.

A multiplication and an addition are two FLOPs, and element-wise work is not counted, as is customary. The formulas are
those of `torch.utils.flop_counter`, except where it is wrong (the weight gradient of a grouped convolution, which it
makes `groups` times too dear, and complex products, which take four real ones) or silent (products with vectors, tables
of distances, bilinear layers, Fourier transforms). An operation that is heavy and has no formula is noted, and so is
every one that brings a parameter together with data and is not known to work element by element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import log2, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Formula = Callable[[tuple[Any, ...], Mapping[str, Any], Any], int]

COUNTABLE_NAMESPACES = ("aten", "prim", "prims", "profiler")  # what a custom kernel costs, nobody here knows
# Words of the names of operations, between underscores.
_HEAVY = """
linalg mm bmm mv dot vdot addmm addbmm baddbmm addmv matmul einsum trilinear cdist pdist euclidean cholesky inverse
triangular lu svd eig qr ormqr geqrf orgqr conv conv1d conv2d conv3d convolution attention transformer lstm gru rnn
sparse quantized fbgemm mkldnn fft
"""
# Operations that are not what a word of theirs says: norms, and element-wise parts of cells.
_LIGHT = """
linalg_vector_norm linalg_cross linalg_diagonal _thnn_fused_lstm_cell _thnn_fused_gru_cell
_thnn_fused_lstm_cell_backward _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell_backward
"""
# What meets a parameter number by number, looks it up or moves it, beside what torch itself calls pointwise.
_ELEMENTWISE = """
norm embedding index gather scatter cat stack copy where slice select lerp masked put take prelu fill complex polar grid
dropout addr ger outer repeat interleave expand view reshape strided set roll diff cross cell bucketize searchsorted
isin noise foreach lift sum mean amax amin prod
"""
HEAVY, LIGHT, ELEMENTWISE = (frozenset(words.split()) for words in (_HEAVY, _LIGHT, _ELEMENTWISE))
PRODUCTS = ("mul", "mul_", "addcmul", "addcmul_")


class FlopCounter(TorchDispatchMode):
    """Counts FLOPs while it is entered; it may be entered again, and counts on.

    Args:
        parameters: of the network that is watched.
    """

    supports_higher_order_operators = True

    def __init__(self, parameters: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.operations = 0
        self.later = 0  # FLOPs of backward passes that only the forward pass shows to be products
        self.uncounted: set[str] = set()
        self.used: set[int] = set()  # ids of the parameters that an operation was given
        self._weights: dict[int, Tensor] = {id(p): p for p in parameters}  # and what is made of parameters alone
        self._parameters = set(self._weights)

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind.is_composite:  # without autograd they come as they are
            with self:
                return func.decompose(*args, **kwargs)
        output = func(*args, **kwargs)
        self.operations += 1
        if kind.formula is not None:
            factor = _complex_factor(output) if kind.is_product else 1
            self.flops += factor * kind.formula(args, kwargs, output)
        self._look(kind, [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)], output)
        return output

    def _look(self, kind: _Kind, tensors: list[Tensor], output: Any) -> None:
        """Note which parameters an operation was given, what it made of them, and whether it goes uncounted."""
        weights = [t for t in tensors if id(t) in self._weights]
        others = [t for t in tensors if id(t) not in self._weights and t.dim() > 0]
        if weights:
            self.used |= {id(t) for t in weights} & self._parameters
            if not others:
                self._weights.update({id(t): t for t in tree_leaves(output) if isinstance(t, Tensor)})
            elif kind.operation in PRODUCTS:
                self._count_outer(tensors, output)
        is_unknown = bool(weights) and not kind.is_elementwise and any(map(_is_number, others))
        if kind.formula is None and (kind.is_heavy or is_unknown):
            self.uncounted.add(kind.name)

    def _count_outer(self, factors: list[Tensor], output: Tensor) -> None:
        """A product by broadcasting in which no factor is as large as the result: a matrix product in disguise.

        In its backward pass each factor that needs a gradient is the sum of as many products.
        """
        if prod(output.shape) > max(map(_num_own, factors)):
            flops = 2 * prod(output.shape) * _complex_factor(output)
            self.flops += flops
            if torch.is_grad_enabled():
                self.later += flops * sum(t.requires_grad for t in factors)


def _num_own(tensor: Tensor) -> int:
    """Numbers in a tensor, those that it repeats by a stride of 0 once."""
    if tensor.layout != torch.strided:
        return tensor.numel()
    return prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What is known of an operation by its name.

    Args:
        name: with its namespace.
        operation: without.
        formula: of its FLOPs, if it has one.
        is_product: whether the formula counts products of real numbers.
        is_composite: whether it is made of other operations.
        is_heavy: whether it costs more than its numbers are read and written for, or what nobody here knows.
        is_elementwise: whether it meets a parameter number by number, looks it up or moves it.
    """

    name: str
    operation: str
    formula: Formula | None
    is_product: bool
    is_composite: bool
    is_heavy: bool
    is_elementwise: bool


@functools.cache
def _kind(func: Any) -> _Kind:
    packet = getattr(func, "_overloadpacket", func)
    name = str(getattr(packet, "_qualified_op_name", packet))
    namespace, _, operation = name.partition("::")
    words = set(operation.split("_"))
    formula = FORMULAS.get(packet)
    if not isinstance(func, torch._ops.OpOverload):  # of a higher order, or a kernel in another language
        return _Kind(
            name=name,
            operation=operation,
            formula=formula,
            is_product=True,
            is_composite=False,
            is_heavy=True,
            is_elementwise=False,
        )
    is_composite = func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    is_tagged = torch.Tag.pointwise in func.tags or getattr(torch.Tag, "reduction", None) in func.tags  # not in 2.6
    return _Kind(
        name=name,
        operation=operation,
        formula=formula,
        is_product=packet not in FOURIER,
        is_composite=formula is None and is_composite,
        is_heavy=namespace not in COUNTABLE_NAMESPACES or bool(words & HEAVY and operation not in LIGHT),
        is_elementwise=is_tagged or bool(func.is_view) or bool(words & ELEMENTWISE),
    )


def _complex_factor(output: Any) -> int:
    """A product of complex numbers takes four of real ones; Fourier transforms have formulas of their own."""
    first = next((t for t in tree_leaves(output) if isinstance(t, Tensor)), None)
    return 4 if first is not None and first.is_complex() else 1


# --- formulas: arguments, keyword arguments and output of an operation -> FLOPs ---------------------------------------


def _of_torch(formula: Any) -> Formula:
    return lambda args, kwargs, output: int(formula(*args, **kwargs, out_val=output))


def _convolution(args: tuple[Any, ...], _: Mapping[str, Any], output: Tensor) -> int:
    """2 for each weight at each place: of the output, or of the input of a transposed one, as it is computed densely.

    A weight is (outputs, inputs / groups, ...), or (inputs, outputs / groups, ...) of a transposed one.
    """
    inputs, weight, transposed = args[0], args[1], args[6]
    places = (inputs if transposed else output).shape[2:]
    return int(2 * len(inputs) * prod(places) * prod(weight.shape))


def _convolution_backward(args: tuple[Any, ...], _: Mapping[str, Any], __: Any) -> int:
    """As many products again for the gradient of the input, and for that of the weight, whatever the groups."""
    gradient, inputs, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    places = (inputs if transposed else gradient).shape[2:]
    return (int(wanted[0]) + int(wanted[1])) * int(2 * len(inputs) * prod(places) * prod(weight.shape))


def _vector(place: int) -> Formula:
    """A product with a vector: 2 for each number of the argument at `place`."""
    return lambda args, _, __: 2 * args[place].numel()


def _batched_sum(args: tuple[Any, ...], _: Mapping[str, Any], __: Any) -> int:
    """Of addbmm, a sum of products (b, m, k) x (b, k, n)."""
    return int(2 * args[1].numel() * args[2].shape[-1])


def _distances(args: tuple[Any, ...], _: Mapping[str, Any], output: Tensor) -> int:
    """A subtraction, a power and an addition for each number of each pair."""
    return int(3 * output.numel() * args[0].shape[-1])


def _distances_backward(args: tuple[Any, ...], _: Mapping[str, Any], __: Any) -> int:
    """Of the gradient of one side: gradient, one side, the other."""
    return int(3 * args[0].numel() * args[1].shape[-1])


def _euclidean(args: tuple[Any, ...], _: Mapping[str, Any], output: Tensor) -> int:
    """By a matrix product, to which two columns are added."""
    return int(2 * output.numel() * (args[0].shape[-1] + 2))


def _trilinear(args: tuple[Any, ...], _: Mapping[str, Any], __: Any) -> int:
    """The first two factors are multiplied and summed where the third has no dimension, then the third comes in."""
    factors, expanded, summed = args[:3], args[3:6], args[6]
    shape: list[int] = []
    dims = len(factors[0].shape) + len(expanded[0])
    sizes = []
    for factor, places in zip(factors, expanded, strict=True):
        own = iter(factor.shape)
        sizes.append([1 if dim in places else next(own) for dim in range(dims)])
    shape = [max(size) for size in zip(*sizes, strict=True)]
    left = prod(size for dim, size in enumerate(shape) if not (dim in summed and dim in expanded[2]))
    return 2 * prod(shape) + 2 * left


def _fourier(args: tuple[Any, ...], _: Mapping[str, Any], output: Tensor) -> int:
    """5 n log2(n) for a transform of n complex numbers, half of it where one side is real.

    Source: the convention of Frigo and Johnson 2005 (FFTW), 10.1109/JPROC.2004.840301, section III.
    """
    inputs, dims = args[0], args[1]
    whole = output if inputs.is_complex() and not output.is_complex() else inputs
    n = prod(whole.shape[dim] for dim in dims)
    is_half = not (inputs.is_complex() and output.is_complex())
    flops = 5 * whole.numel() * log2(n) if n > 1 else 0
    return round(flops / 2 if is_half else flops)


_ATEN = torch.ops.aten
_OWN: dict[Any, Formula] = {
    **dict.fromkeys((_ATEN.convolution, _ATEN._convolution, _ATEN.convolution_overrideable), _convolution),
    _ATEN.convolution_backward: _convolution_backward,
    **dict.fromkeys((_ATEN.dot, _ATEN.vdot, _ATEN.mv), _vector(0)),
    _ATEN.addmv: _vector(1),
    _ATEN.addbmm: _batched_sum,
    _ATEN._cdist_forward: _distances,
    _ATEN._cdist_backward: _distances_backward,
    _ATEN._euclidean_dist: _euclidean,
    _ATEN._trilinear: _trilinear,
}
FOURIER = (_ATEN._fft_r2c, _ATEN._fft_c2c, _ATEN._fft_c2r)
FORMULAS: dict[Any, Formula] = {
    **{operation: _of_torch(formula) for operation, formula in flop_registry.items()},
    **_OWN,
    **dict.fromkeys(FOURIER, _fourier),
}
