"""The one place that touches global random state: a run forks it, seeds it inside, and gives the caller's back."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from subsettune.train.surroundings import neutral


def derive(seed: int, *purpose: str | int) -> int:
    """A seed of 63 bits for one purpose of a run; different purposes get unrelated streams."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose of a run."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Give the global random state back as it was, whatever happens inside: imports draw from it, and so may users.

    Inside, torch's other global settings are those of a fresh process, and other threads that come here wait.
    """
    with neutral():
        before = capture()
        try:
            yield
        finally:
            restore(before)


@contextlib.contextmanager
def isolated(seed: int, num_threads: int) -> Iterator[None]:
    """Seed torch (CPU and CUDA), NumPy and Python for a run, and set torch's threads; restore all of it afterwards.

    Dropout and initialisers take no generator, so a run needs the global state; nobody else's may change by it. GPUs
    are seeded if CUDA is initialised: `torch.manual_seed` would leave a seed behind for a later initialisation.
    """
    with preserved():
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(num_threads)
            torch.default_generator.manual_seed(derive(seed, "torch"))
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(derive(seed, "torch"))
            np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002 (user code may draw from the global state)
            random.seed(derive(seed, "python"))
            yield
        finally:
            torch.set_num_threads(threads)


def capture() -> dict[str, Any]:
    """The global random state as tensors, numbers and tuples, which a checkpoint can hold without pickled code."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
        "cuda": [],
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any]) -> None:
    """Put back what `capture` took."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
