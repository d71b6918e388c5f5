"""Fixtures for all tests, and how property tests draw. The cache of this machine's user stays out of them.

Property tests draw anew in each run, except where CI is set: there they draw the same every time. A find is printed
with the line that repeats it (`@reproduce_failure`), and is kept in `.hypothesis` for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contracts import untouched_random_state  # noqa: F401 (a fixture)
from hypothesis import settings

# The packages of hosts are in environments of their own: `make test-hosts`.
collect_ignore_glob = [] if os.environ.get("SUBSETTUNE_HOSTS") else ["hosts/*"]
settings.register_profile("default", print_blob=True)
settings.register_profile("ci", derandomize=True, print_blob=True, deadline=None, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that looks at pages is marked by the browser that it asks for; modules that take long come first.

    Processes take a module at a time: one that takes minutes, begun last, would leave the others idle.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
    marked = {mark: {item.path for item in items if item.get_closest_marker(mark)} for mark in ("ray", "slow")}
    items.sort(key=lambda item: (item.path not in marked["ray"], item.path not in marked["slow"]))


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


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    """500 rows of scikit-learn's digits, and their classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x[:500], y[:500]


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle of a made-up study, on disk."""
    from fake_bundle import export

    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export(str(folder))
    return str(folder)
