"""What all tests of pruning are run under."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _forked_random_state(untouched_random_state: None) -> Iterator[None]:
    """Networks that are made here draw random numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for networks as small as these
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
