"""Torch alone, in several processes, and the example. Run by `make test-hosts`."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_bundles import HostCase, assert_ranks_train_as_one, digits_bundle, launch, make_case, run_script
from places import ROOT

EXAMPLE = ROOT / "examples" / "torch_loop.py"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostCase]:
    return {name: make_case(name, tmp_path_factory.mktemp(name)) for name in ("weighted", "uneven")}


@pytest.mark.parametrize("name", ["weighted", "uneven"])
def test_two_processes_train_as_one(cases: dict[str, HostCase], name: str, tmp_path: Path) -> None:
    assert_ranks_train_as_one("torch", cases[name], tmp_path)


def test_the_example_runs_alone_with_workers_and_in_two_processes(tmp_path: Path) -> None:
    folder = str(digits_bundle(tmp_path))
    alone = run_script(EXAMPLE, folder)
    assert alone.endswith("FLOP as promised\n")
    assert run_script(EXAMPLE, folder, "2") == alone
    assert launch(EXAMPLE, folder).count(alone.strip()) == 2  # each process says so
    assert len(EXAMPLE.read_text().splitlines()) < 40
