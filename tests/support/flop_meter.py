"""A meter of what is really multiplied while code runs: every product of matrices and vectors on a real device.

Slow and independent of the product's own accounting: it looks at the operations as torch carries them out. Unlike
torch's `FlopCounterMode` it knows products with vectors, outer products and factorisations, which selectors use, and it
passes over the meta device, on which networks are counted and nothing is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


def _mv(matrix: Tensor, *_: object) -> int:
    return 2 * matrix.numel()


def _addmv(_: Tensor, matrix: Tensor, *__: object) -> int:
    return 2 * matrix.numel()


def _dot(one: Tensor, *_: object) -> int:
    return 2 * one.numel()


def _addr(matrix: Tensor, *_: object) -> int:
    return 2 * matrix.numel()


def _cholesky(matrix: Tensor, *_: object) -> int:
    return int(matrix.shape[-1]) ** 3 // 3


def _cholesky_inverse(matrix: Tensor, *_: object) -> int:
    return 2 * int(matrix.shape[-1]) ** 3 // 3


MORE: dict[Any, Callable[..., int]] = {
    aten.mv: _mv,
    aten.addmv: _addmv,
    aten.addmv_: _addmv,
    aten.dot: _dot,
    aten.vdot: _dot,
    aten.addr: _addr,
    aten.addr_: _addr,
    aten.linalg_cholesky_ex: _cholesky,
    aten.cholesky_inverse: _cholesky_inverse,
}
UNKNOWN = (
    "cdist",
    "linalg_s",
    "linalg_q",
    "linalg_e",
    "linalg_inv",
    "linalg_lu",
    "euclidean_dist",
    "trilinear",
    "fft",
)  # heavy, and without a formula here


class FlopMeter(TorchDispatchMode):
    """Adds up the FLOPs of products while it is entered, 2 for a multiplication and an addition.

    Attributes:
        flops: so far.
        by_operation: the same, by the name of the operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_operation: Counter[str] = Counter()

    @property
    def flops(self) -> int:
        return sum(self.by_operation.values())

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        tensors = [one for one in tree_leaves((args, kwargs, output)) if isinstance(one, Tensor)]
        if any(one.device.type == "meta" for one in tensors):
            return output
        name = packet._qualified_op_name.partition("::")[2]
        if packet in MORE:
            self.by_operation[name] += MORE[packet](*args)
        elif packet in flop_registry:
            self.by_operation[name] += flop_registry[packet](*args, **(kwargs or {}), out_val=output)
        else:
            assert not any(word in name for word in UNKNOWN), f"{name} has no formula: write one"
        return output
