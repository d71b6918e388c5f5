"""Fixtures for all tests. The cache of this machine's user stays out of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts import untouched_random_state  # noqa: F401 (a fixture)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache for the session, in this process and in those it starts."""
    before = os.environ.get("SUBSETTUNE_CACHE")
    os.environ["SUBSETTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SUBSETTUNE_CACHE"]
    else:
        os.environ["SUBSETTUNE_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of small made-up data sets: `images` (4 classes of 1x8x8) and `values` (a regression on 5 columns)."""
    import fakes

    folder: Path = tmp_path_factory.mktemp("data")
    return {"images": fakes.write_images(folder / "images.npz"), "values": fakes.write_values(folder / "values.npz")}
