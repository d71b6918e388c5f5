"""What is said of a GPU that is asked for and not there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from subsettune.study.execute import gpus

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-3")
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("told", "cuda", "words"),
    [
        (OPEN, "13.0", "torch 2.14.1+cu130 is built for CUDA 13.0, the NVIDIA driver is 570.86.15."),
        (CLOSED, None, "torch 2.14.1+cu130 is built without CUDA, the NVIDIA driver is 535.104.05."),
        (None, "13.0", "torch 2.14.1+cu130 is built for CUDA 13.0, no NVIDIA driver is loaded."),
        ("?", "13.0", "torch 2.14.1+cu130 is built for CUDA 13.0, the NVIDIA driver is of an unknown version."),
    ],
)
def test_node_driver_and_build_are_named(
    told: str | None, cuda: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    if told is not None:
        (tmp_path / "version").write_text(told)
    assert gpus.why_no_gpu() == f"torch finds no GPU on node gpu-3: {words}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.why_no_gpu() == f"torch finds no GPU on node gpu-3: {words[:-1]}, CUDA_VISIBLE_DEVICES is ''."


def test_a_gpu_that_is_there_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpus.why_no_gpu() is None
