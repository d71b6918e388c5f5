"""A run that begins from the stem of another is the same run, bit for bit, and what is shared is paid for once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import two_phases
from interrupts import ADAM, InterruptedRunError, assert_same, count_updates, noisy_task
from interrupts import run as run_of_seed_3

from subsettune import train
from subsettune.policy import Phase, Policy, Soup
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train import RunResult
from subsettune.train.checkpoint import Checkpoints
from subsettune.train.learner import Learner
from subsettune.train.planning.stem_places import REACH, SPACING, stems_of

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
WSD = {"schedule": "warmup_stable_decay", "schedule_options": {"warmup": 0.0, "decay": 0.2}}
CONSTANT = {"schedule": "constant"}
STEP = {"schedule": "step", "schedule_options": {"milestones": [0.6, 0.9]}}


def full(passes: float, **recipe: Any) -> Policy:
    return Policy(phases=(Phase(passes=passes),), recipe=recipe)


def run(task: Task, policy: Policy, folder: Path | None = None, **changes: Any) -> RunResult:
    """A run that is measured at its end alone."""
    shared = {} if folder is None else {"checkpoints": str(folder / "own"), "stems": str(folder / "stems")}
    return run_of_seed_3(task, policy, **{"evaluations": 1, **shared, **changes})


def shared_share(result: RunResult) -> float:
    return result.shared_flops / result.ledger.spent


@pytest.mark.parametrize("recipe", [{}, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("schedule", [WSD, CONSTANT, STEP], ids=["wsd", "constant", "step"])
@pytest.mark.parametrize("passes", [4.0, 2.3], ids=["longer", "shorter"])
def test_of_a_longer_and_a_shorter_run(
    tiny_data: Data, tmp_path: Path, recipe: dict[str, Any], schedule: dict[str, Any], passes: float
) -> None:
    task = noisy_task(tiny_data, **{**schedule, **recipe})  # dropout, batch norm, augmentation
    first = run(task, full(3.0), tmp_path)
    second = run(task, full(passes), tmp_path)
    assert_same(first, run(task, full(3.0)))
    assert_same(second, run(task, full(passes)))
    assert first.shared_flops == 0
    assert 0.4 < shared_share(second) < 0.95


def growing(passes: float, selector: str = "random") -> Policy:
    """A subset, one twice as large, and all data."""
    subsets = [Phase(share=share, passes=3 * share, selector=selector) for share in (0.3, 0.6)]
    return Policy(phases=(*subsets, Phase(passes=passes)))


SUBSET: dict[str, Any] = {"share": 0.3, "selector": "kcenter"}
SUBSETS = {
    "another switch": (two_phases(1.5, 2.0, **SUBSET), two_phases(2.0, 1.0, **SUBSET)),
    "another transition": (two_phases(1.5, 2.0, **SUBSET), two_phases(1.5, 1.0, **SUBSET, transition="shrink_perturb")),
    "growing": (growing(2.0), growing(1.0)),
}


@pytest.mark.parametrize("name", SUBSETS)
def test_of_a_subset_stretch(tiny_data: Data, tmp_path: Path, name: str) -> None:
    task = noisy_task(tiny_data, **WSD)
    first, second = SUBSETS[name]
    run(task, first, tmp_path)
    again = run(task, second, tmp_path)
    assert_same(again, run(task, second))
    assert shared_share(again) > 0.2


def test_a_round_of_rs2_goes_on(tiny_data: Data, tmp_path: Path) -> None:
    task, own = noisy_task(tiny_data, **WSD), {"order": "rs2", "order_options": {"share": 0.3}}
    policies = [Policy(phases=(Phase(passes=passes, **own),)) for passes in (2.0, 3.0)]
    run(task, policies[0], tmp_path)
    again = run(task, policies[1], tmp_path)
    assert_same(again, run(task, policies[1]))
    assert again.shared_flops > 0


def test_of_a_run_that_began_from_a_stem(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data, **WSD)
    results = [run(task, full(passes), tmp_path) for passes in (2.0, 3.0, 4.0)]
    assert_same(results[2], run(task, full(4.0)))
    assert results[2].shared_flops > results[1].shared_flops > results[0].shared_flops == 0
    assert results[2].shared_flops <= 0.8 * results[1].ledger.spent


NOT_ALIKE: dict[str, tuple[dict[str, Any], Policy, Policy]] = {
    "another rate": (WSD, full(3.0), full(3.0, lr=0.05)),
    "a cosine": ({"schedule": "cosine"}, full(3.0), full(4.0)),
    "a warm-up": ({"schedule": "warmup_stable_decay"}, full(3.0), full(4.0)),
    "another subset": (WSD, two_phases(1.5, 1.0, share=0.3), two_phases(1.5, 1.0, share=0.4)),
    "another selector": (WSD, two_phases(1.5, 1.0, share=0.3), two_phases(1.5, 1.0, share=0.3, selector="kcenter")),
    "an order by the share spent": (
        WSD,
        Policy(phases=(Phase(passes=3, order="infobatch"),)),
        Policy(phases=(Phase(passes=4, order="infobatch"),)),
    ),
    "a ranking that is used again": (WSD, growing(2.0, "kcenter"), growing(3.0, "kcenter")),
    "a soup": (
        WSD,
        two_phases(1.5, 1.0, share=0.8, soup=Soup(workers=2, density=0.5)),
        two_phases(2.0, 1.0, share=0.8, soup=Soup(workers=2, density=0.5)),
    ),
}


@pytest.mark.parametrize("name", NOT_ALIKE)
def test_what_is_not_alike_shares_nothing(tiny_data: Data, tmp_path: Path, name: str) -> None:
    recipe, first, second = NOT_ALIKE[name]
    task = noisy_task(tiny_data, **recipe)
    run(task, first, tmp_path)
    again = run(task, second, tmp_path)
    assert again.shared_flops == 0
    assert_same(again, run(task, second))


def test_another_seed_shares_nothing(tiny_data: Data, tmp_path: Path) -> None:
    task, options = noisy_task(tiny_data, **WSD), run_options(tmp_path)
    results = [train.run(task, full(3.0), seed, options=options) for seed in (3, 4)]
    assert [result.shared_flops for result in results] == [0, 0]


def run_options(folder: Path, **changes: Any) -> train.RunOptions:
    plain = {"num_threads": 1, "device": "cpu", "evaluations": 1, "keep_model": True, **changes}
    return train.RunOptions(checkpoints=str(folder / "own"), stems=str(folder / "stems"), **plain)


def test_a_line_search_shares_nothing(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data, **CONSTANT, optimizer="lbfgs", momentum=None, lr=1.0, batch_size=210)
    for passes in (20.0, 30.0):
        assert run(task, full(passes), tmp_path).shared_flops == 0
    assert Folder.at(tmp_path / "stems").names() == []


def test_no_stem_lies_behind_a_point_of_the_curve(tiny_data: Data, tmp_path: Path) -> None:
    """A run from a stem has the whole curve, or it does not begin there."""
    task = noisy_task(tiny_data, **WSD)
    run(task, full(3.0), tmp_path)
    looked_at = run(task, full(4.0), tmp_path, evaluations=4)
    assert_same(looked_at, run(task, full(4.0), evaluations=4))
    assert len(looked_at.curve) == 4
    assert 0 < shared_share(looked_at) < 0.25


def test_stems_without_checkpoints_are_not_left(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data, **WSD)
    run_of_seed_3(task, full(3.0), evaluations=1, stems=str(tmp_path))
    assert Folder.at(tmp_path).names() == []


def test_a_damaged_stem_is_passed_over(tiny_data: Data, tmp_path: Path) -> None:
    task = noisy_task(tiny_data, **WSD)
    run(task, full(3.0), tmp_path)
    stems = Folder.at(tmp_path / "stems")
    longest = stems.names()[-1]
    stems.write(longest, stems.read(longest)[:-1])
    again = run(task, full(4.0), tmp_path)
    assert_same(again, run(task, full(4.0)))
    assert 0 < again.shared_flops < int(longest.removesuffix(".checkpoint")[-20:])


@pytest.mark.parametrize("size", [1, 10**6, 10**12, 10**18])
def test_a_grid_of_stems_ends(size: int) -> None:
    places = stems_of(997 * size, 31 * size)
    assert list(places) == sorted(set(places))
    assert places[-1] == 997 * size
    assert 5 < len(places) < 12


def test_a_grid_of_stems() -> None:
    places = stems_of(1_000_000, 7000)
    assert places[-1] == 1_000_000
    assert places[0] >= 1_000_000 / REACH
    assert all(1 < b / a <= SPACING + 1e-6 for a, b in itertools.pairwise(places))
    others = stems_of(1_100_000, 7000)
    assert set(places[2:-1]) <= set(others)


# --- nothing is lost or counted twice ---------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Examples of each update that any run really makes."""
    run(noisy_task(tiny_data, **WSD), full(0.1))  # code of one's own is tried before the first run
    return count_updates(monkeypatch)


def spent(*results: RunResult) -> int:
    return sum(result.ledger.total + result.repeated_flops - result.shared_flops for result in results)


def measured(task: Task, made: list[int], num_runs: int) -> int:
    known = train.facts(task)
    return sum(made) * known.example_flops + num_runs * (30 + 60) * known.forward_flops  # validation and test


def test_what_is_shared_is_spent_once(tiny_data: Data, tmp_path: Path, trained: list[int]) -> None:
    task = noisy_task(tiny_data, **WSD)
    results = [run(task, full(passes), tmp_path) for passes in (3.0, 2.3, 4.0, 3.0)]
    assert spent(*results[:3]) == measured(task, trained, 3)
    assert results[3].ledger == results[0].ledger  # the same run, told again


@contextlib.contextmanager
def cut_off_after(num_updates: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The run inside is interrupted in the update after so many."""
    left, fit = [num_updates], Learner.fit

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedRunError
        return fit(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "fit", failing)
        with pytest.raises(InterruptedRunError):
            yield


@pytest.mark.parametrize("passes", [3.0, 4.0], ids=["itself", "another"])
@pytest.mark.parametrize("every_s", [1e-9, 1e9], ids=["checkpoints", "none"])
def test_a_run_that_was_cut_off_after_it_left_stems(
    tiny_data: Data, tmp_path: Path, trained: list[int], passes: float, every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own stems are what it goes on from, unless its checkpoint is later; what they took is charged to it."""
    task = noisy_task(tiny_data, **WSD)
    with cut_off_after(30, monkeypatch):
        run(task, full(3.0), tmp_path, checkpoint_every_s=every_s)
    results = [run(task, full(one), tmp_path, checkpoint_every_s=every_s) for one in {3.0: 0, passes: 0}]
    assert sum(trained) > 0
    assert spent(*results) == measured(task, trained, len(results))
    for one, result in zip({3.0: 0, passes: 0}, results, strict=True):
        assert_same(result, run_of_seed_3(task, full(one), evaluations=1))


def test_a_cut_off_run_that_finds_a_longer_stem_when_it_comes_back(
    tiny_data: Data, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did itself since its first stem is lost, and told; what the other one did is not its own."""
    task = noisy_task(tiny_data, **WSD)
    results = [run(task, full(1.5), tmp_path)]
    with cut_off_after(8, monkeypatch):
        run(task, full(4.0), tmp_path, checkpoint_every_s=1e9)
    results += [run(task, full(passes), tmp_path) for passes in (3.0, 4.0)]
    assert results[2].repeated_flops > 0
    assert spent(*results) == measured(task, trained, 3)


def test_two_runs_at_once_pay_each_for_itself(tiny_data: Data, tmp_path: Path, trained: list[int]) -> None:
    """The second began before the first left a stem: both train the beginning, and both leave the same bytes."""
    task = noisy_task(tiny_data, **WSD)
    stems: list[dict[str, bytes]] = []
    results = []
    for name, passes in (("one", 3.0), ("two", 4.0)):
        results.append(run(task, full(passes), tmp_path / name))
        folder = Folder.at(tmp_path / name / "stems")
        kept = {file: folder.read(file) for file in folder.names()}
        loaded = [Checkpoints(folder, file.removesuffix(".checkpoint")).load() for file in kept]
        assert all(state is not None for state in loaded)
        stems.append(kept)
    assert [result.shared_flops for result in results] == [0, 0]
    assert stems[0].keys() & stems[1].keys()
    assert spent(*results) == measured(task, trained, 2)
