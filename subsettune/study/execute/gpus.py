"""Whether torch has the GPU that a run was given: without one it would train on the CPU, and be kept as a GPU's run."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import torch

DRIVER = Path("/proc/driver/nvidia/version")  # there where the kernel has the driver loaded; containers see it, too
VERSION = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d[\d.]*)")


def why_no_gpu() -> str | None:
    """Why torch finds no GPU in this process, with node, driver and build; None if it finds one."""
    if torch.cuda.is_available():
        return None
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    facts = [f"torch {torch.__version__} is {built}", _driver()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    facts += [f"CUDA_VISIBLE_DEVICES is {visible!r}"] if visible is not None else []
    return f"torch finds no GPU on node {socket.gethostname()}: {', '.join(facts)}."


def why_without_gpu(gpus: float) -> str | None:
    """Why a run that is given so many GPUs would train without one here, and what to do; None if it would not."""
    why = why_no_gpu()
    if why is None:
        return None
    return (
        f"a run was given {gpus:g} GPUs, and {why} Install a driver and a torch that fit each other on that node, or "
        "take it out of the cluster. To train on CPUs, set gpus_per_trial to 0."
    )


def _driver() -> str:
    """The NVIDIA driver of this machine, in words."""
    try:
        found = VERSION.search(DRIVER.read_text())
    except OSError:
        return "no NVIDIA driver is loaded"
    return f"the NVIDIA driver is {found[1]}" if found else "the NVIDIA driver is of an unknown version"
