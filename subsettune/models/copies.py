"""Copies of a network, also of one that `copy.deepcopy` refuses: then it is built again and given the same numbers.

Refused are e.g. the old `torch.nn.utils.weight_norm`, whose weights are no leaves, and attributes such as locks, files
and generators. What such a network keeps besides parameters and buffers begins anew in its copy.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from subsettune.errors import ModelError

_BUILDERS: WeakKeyDictionary[nn.Module, Callable[[], nn.Module]] = WeakKeyDictionary()


def remember(network: nn.Module, build: Callable[[], nn.Module]) -> nn.Module:
    """Note how a network was built, for `copy_of`; returns it."""
    _BUILDERS[network] = build
    return network


def copy_of(network: nn.Module) -> nn.Module:
    """A network of its own with the same parameters, buffers and mode; random states stay as they are.

    Raises:
        ModelError: it cannot be copied, and nobody noted how it is built, or it is built differently now.
    """
    try:
        twin = copy.deepcopy(network)
    except Exception as error:  # whatever an attribute of the user's network raises
        twin = _rebuilt(network, error)
    if network in _BUILDERS:
        remember(twin, _BUILDERS[network])
    return twin


def in_training(network: nn.Module) -> nn.Module:
    """The network itself in training mode, whatever its `train` returns."""
    network.train()
    return network


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a network, those themselves, each once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _rebuilt(network: nn.Module, why: Exception) -> nn.Module:
    reason = next(iter(str(why).strip().splitlines()), type(why).__name__).rstrip(".")
    if network not in _BUILDERS:
        raise ModelError(f"the network cannot be copied: {reason}. Remove that attribute, or build it where needed.")
    with _untouched_random_states():
        twin = _BUILDERS[network]()
    own, its_own = tensors(twin), tensors(network)
    if own.keys() != its_own.keys():
        raise ModelError(f"the network cannot be copied: {reason}; and its function builds another one now.")
    for name, values in its_own.items():
        own[name].data = values.detach().clone()
        own[name].requires_grad_(values.requires_grad and isinstance(values, nn.Parameter))
    twin.train(network.training)
    return twin


@contextlib.contextmanager
def _untouched_random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (builders may draw from it)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
