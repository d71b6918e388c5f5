"""Processes that use one data set share its pages: a smaller version of benchmarks/memory.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
from memory import measure

DATA_BYTES = 50_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PSS, which tells shared pages from own ones, is Linux's")
def test_two_processes_need_the_data_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (DATA_BYTES // 4096, 4096), dtype=np.uint8)
    np.savez(tmp_path / "big.npz", x=x, y=np.arange(len(x)) % 2)
    memory = measure(2, str(tmp_path / "big.npz"), {"cache": str(tmp_path / "cache")})
    assert 0.6 * DATA_BYTES < memory.data_pss_bytes < 1.05 * DATA_BYTES  # the training part was read, and is there once
    assert memory.data_private_bytes == 0
