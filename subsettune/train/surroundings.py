"""What torch and NumPy are told around a run: put to what a fresh process has, and given back afterwards.

A run must not depend on where it is called. Inside `torch.autocast` the casts of weights are kept until the outermost
one ends, so that a network which trains is looked at as it was; under `torch.no_grad` nothing is learned; another
default type, device or matrix precision gives other numbers than a worker of a study, which has none of them. Left
alone is what changes no number: hooks, profilers and counters of the caller, and `use_deterministic_algorithms`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from subsettune.errors import ConfigError

_AUTOCAST_DEVICES = ("cpu", "cuda")
_NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}  # as NumPy has them


class _Turns:
    """A lock that a thread may take again, and that a forked child finds free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the other threads, and hold them off inside."""
        with self._lock:
            yield


_TURNS = _Turns()


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """Settings as in a fresh process, for one thread at a time: most belong to the process, like its random state.

    Threads that train at once take turns. What other code does with these settings meanwhile is not held off.

    Raises:
        ConfigError: tensors are fake ones here, which hold no numbers.
    """
    if any(isinstance(mode, FakeTensorMode) for mode in _get_current_dispatch_mode_stack()):
        raise ConfigError("tensors must be real ones in a run, got FakeTensorMode. Call it outside of that mode.")
    with _TURNS.taken(), contextlib.ExitStack() as stack:
        stack.enter_context(_without_default_device())
        stack.enter_context(_without_autocast())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(**_NUMPY_ERRORS))  # type: ignore[arg-type]
        for read, write, plain in _SETTINGS:
            stack.enter_context(_set(read, write, plain))
        yield


@contextlib.contextmanager
def _set(read: Callable[[], Any], write: Callable[[Any], Any], plain: Any) -> Iterator[None]:
    before = read()
    if before != plain:
        write(plain)
    try:
        yield
    finally:
        if read() != before:  # user code may have set it inside
            write(before)


def _flushes_denormals() -> bool:
    """Whether the CPU makes tiny numbers 0; torch has no getter."""
    tiny = torch.tensor([1e-310], dtype=torch.float64, device="cpu")
    return bool((tiny * 1.0 == 0).item())


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any], Any], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False),  # a loss that is no number ends a run anyway
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, True),
    (_flushes_denormals, torch.set_flush_denormal, False),
)


@contextlib.contextmanager
def _without_default_device() -> Iterator[None]:
    """Leave `torch.set_default_device` and `with torch.device(...)`; other modes for torch's functions stay."""
    modes = _get_current_function_mode_stack()
    if not any(isinstance(mode, DeviceContext) for mode in modes):
        yield
        return
    _replace_modes(modes, [mode for mode in modes if not isinstance(mode, DeviceContext)])
    try:
        yield
    finally:
        _replace_modes(_get_current_function_mode_stack(), modes)


def _replace_modes(old: list[Any], new: list[Any]) -> None:
    for _ in old:
        _pop_mode()
    for mode in new:
        _push_mode(mode)


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """Leave `torch.autocast`, however deep: only the end of the outermost one forgets the casts of weights."""
    depth = torch.autocast_increment_nesting() - 1
    for _ in range(depth + 1):
        torch.autocast_decrement_nesting()
    torch.clear_autocast_cache()
    were_on = {device: torch.is_autocast_enabled(device) for device in _AUTOCAST_DEVICES}
    keeps = torch.is_autocast_cache_enabled()
    _set_autocast(dict.fromkeys(_AUTOCAST_DEVICES, False), keeps=True)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        _set_autocast(were_on, keeps=keeps)
        for _ in range(depth):
            torch.autocast_increment_nesting()


def _set_autocast(is_on: dict[str, bool], *, keeps: bool) -> None:
    for device, on in is_on.items():
        torch.set_autocast_enabled(device, on)
    torch.set_autocast_cache_enabled(keeps)
