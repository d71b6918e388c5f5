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


def _driver() -> str:
    """The NVIDIA driver of this machine, in words."""
    try:
        found = VERSION.search(DRIVER.read_text())
    except OSError:
        return "no NVIDIA driver is loaded"
    return f"the NVIDIA driver is {found[1]}" if found else "the NVIDIA driver is of an unknown version"
