from __future__ import annotations

import contextlib
import io
import random

import numpy as np
import pytest
import torch
from contracts import random_state

from subsettune.train.randomness import capture, derive, generator, isolated, preserved, restore

pytestmark = pytest.mark.usefixtures("untouched_random_state")


def draws() -> tuple[float, ...]:
    numpy = (np.random.rand(), np.random.randn())  # noqa: NPY002 (an odd number of normals leaves one cached)
    return (float(torch.rand(())), float(torch.randn(())), *numpy, random.random(), random.gauss(0, 1))


def test_inside_the_same_seed_draws_the_same() -> None:
    found = []
    for seed in (1, 1, 2):
        with isolated(seed, 1):
            found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


def test_state_and_threads_come_back() -> None:
    before, threads = random_state(), torch.get_num_threads()
    with contextlib.suppress(KeyboardInterrupt), isolated(5, threads + 1):
        assert torch.get_num_threads() == threads + 1
        draws()
        raise KeyboardInterrupt
    assert random_state() == before
    assert torch.get_num_threads() == threads


def test_preserved_seeds_nothing() -> None:
    before = random_state()
    with preserved():
        assert random_state() == before
        draws()
        assert random_state() != before
    assert random_state() == before


def test_captured_state_is_gone_on_from() -> None:
    with isolated(0, 1):
        draws()
        state = capture()
        first = draws()
        restore(state)
        assert draws() == first


def test_captured_state_is_safe_to_load() -> None:
    buffer = io.BytesIO()
    torch.save(capture(), buffer)
    buffer.seek(0)
    before = random_state()
    restore(torch.load(buffer, weights_only=True))
    assert random_state() == before


def test_no_seed_is_left_behind_for_a_gpu() -> None:
    """`torch.manual_seed` would queue one where CUDA is not initialised, and a caller's later draws would follow it."""
    if torch.cuda.is_initialized():
        pytest.skip("CUDA is initialised already")
    queued = len(torch.cuda._queued_calls)
    with isolated(0, 1):
        pass
    assert len(torch.cuda._queued_calls) == queued


def test_purposes_have_streams_of_their_own() -> None:
    assert derive(1, "order", 2) == derive(1, "order", 2)
    seeds = {derive(seed, *purpose) for seed in range(20) for purpose in [(), ("a",), ("a", 1), ("a", 2), ("b",)]}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(torch.rand(3, generator=generator(1, "x")), torch.rand(3, generator=generator(1, "x")))
