"""Choosing within a run: shared rankings, growing subsets, new choices, and the run's own network."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import selections
import torch
from fakes import FakeClock, image_task, options, same_bits
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from subsettune import config, select, train
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, SelectionError
from subsettune.facts import TaskFacts
from subsettune.policy import Phase, Policy
from subsettune.select import ModelNeed, SelectionContext, Selector, Subset
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.task import Task
from subsettune.train import RunJob, RunResult, SubsetProvider
from subsettune.train.learner import Learner
from subsettune.train.loop import run_key
from subsettune.train.planning.phases import resolve_phases
from subsettune.train.selection import ranking_cache

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]
CENTER = FrozenDict({"start": "center"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wrongest(Selector):
    """The examples that the run's own network is most wrong about."""

    name: ClassVar[str] = "tests.train.selection.test_chooser:Wrongest"
    summary: ClassVar[str] = "the examples that the run's own network is most wrong about"
    is_ranking: ClassVar[bool] = True

    @property
    def model_need(self) -> ModelNeed:
        """The network as it is."""
        return ModelNeed(source="current")

    def flops(self, facts: TaskFacts, k: int) -> int:
        """A look at each example."""
        return facts.num_examples * facts.forward_flops

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """By the length of the residual."""
        wrong = context.models[0].residuals().norm(dim=1)
        return Subset(positions=wrong.argsort(descending=True, stable=True)[:k].cpu())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(Selector):
    """A ranking that is not free; counts how often it is made."""

    name: ClassVar[str] = "tests.train.selection.test_chooser:Counted"
    summary: ClassVar[str] = "a ranking that is not free"
    is_ranking: ClassVar[bool] = True
    made: ClassVar[list[int]] = []
    draws: bool = True
    pause: int = 0

    @property
    def is_deterministic(self) -> bool:
        """As the option says."""
        return not self.draws

    def flops(self, facts: TaskFacts, k: int) -> int:
        """In proportion to k."""
        return 1_000 * k

    def pick(self, context: SelectionContext, k: int, rng: torch.Generator) -> Subset:
        """A permutation."""
        self.made.append(k)
        n = context.num_examples
        order = torch.randperm(n, generator=rng) if self.draws else torch.arange(n - 1, -1, -1)
        return Subset(positions=order[:k].clone())


COUNTED = "tests.train.selection.test_chooser:Counted"


def once(selector: str, share: float = 0.1, **changes: Any) -> Policy:
    return Policy(phases=(Phase(share=share, passes=1, selector=selector, **changes), Phase(passes=1)))


def chooser(
    task: Task, policy: Policy, seed: int, places: DataPaths | None, device: str = "cpu", **changes: Any
) -> SubsetProvider:
    return SubsetProvider(RunJob.of(task, policy, seed, load(task), device=device), places=places, **changes)


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(cache=str(tmp_path / "cache"))


# --- rankings ---------------------------------------------------------------------------------------------------------


def test_a_ranking_is_made_once_for_all_sizes_and_seeds(tiny_data: Data, places: DataPaths) -> None:
    """210 examples: 21 are cut from 26, 210 / 8; 50 need more; 100 of 105 and 21 again need nothing new."""
    task, plain = image_task(tiny_data), FrozenDict({"draws": False})
    Counted.made.clear()
    for seed, share in ((0, 0.1), (1, 0.1), (2, 0.22), (3, 0.24), (0, 0.1)):
        policy = once(COUNTED, share, selector_options=plain)
        found = chooser(task, policy, seed, places).choose(0).subset.positions
        assert found.tolist() == list(range(209, 209 - len(found), -1))
    assert Counted.made == [26, 52]


def test_what_is_drawn_is_shared_by_trials_with_one_seed_only(tiny_data: Data, places: DataPaths) -> None:
    task, policy = image_task(tiny_data), once(COUNTED)
    Counted.made.clear()
    found = [chooser(task, policy, seed, places).choose(0).subset.positions for seed in (0, 0, 1)]
    alone = [chooser(task, policy, seed, None).choose(0).subset.positions for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    assert not torch.equal(found[0], found[2])
    assert Counted.made == [26, 26, 21, 21, 21]
    other = once(COUNTED, draw=1)
    assert not torch.equal(chooser(task, other, 0, places).choose(0).subset.positions, found[0])


def test_other_data_have_other_rankings(tiny_data: Data, places: DataPaths) -> None:
    Counted.made.clear()
    for seed in (0, 1):
        task = image_task(tiny_data)
        task = config.build(Task, {**config.to_plain(task), "split": {"validation": 0.1, "test": 0.2, "seed": seed}})
        chooser(task, once(COUNTED, selector_options=FrozenDict({"draws": False})), 0, places).choose(0)
    assert Counted.made == [26, 26]


def test_other_numbers_of_threads_have_other_rankings(tiny_data: Data, places: DataPaths) -> None:
    """They change bits, so what a run chooses must not depend on who ran before it."""
    task, policy = image_task(tiny_data), once(COUNTED, selector_options=FrozenDict({"draws": False}))
    Counted.made.clear()
    for num_threads in (1, 2, 1):
        train.run(task, policy, 0, options=options(places=places, num_threads=num_threads))
    assert Counted.made == [26, 26]


def test_a_damaged_ranking_is_made_anew(tiny_data: Data, places: DataPaths) -> None:
    task, policy = image_task(tiny_data), once("kcenter", selector_options=CENTER)
    whole = chooser(task, policy, 0, places).choose(0).subset.positions
    [path] = (Path(places.cache_folder) / "rankings").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(chooser(task, policy, 0, places).choose(0).subset.positions, whole)
    assert len(path.read_bytes()) > 100


def test_processes_that_ask_at_once_wait_for_one(tiny_data: Data, places: DataPaths) -> None:
    task, policy = image_task(tiny_data), once(COUNTED, selector_options=FrozenDict({"draws": False}))
    data = load(task)
    Counted.made.clear()
    choosers = [SubsetProvider(RunJob.of(task, policy, seed, data), places=places) for seed in range(6)]
    threads = [threading.Thread(target=c.choose, args=(0,)) for c in choosers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counted.made == [26]


def test_a_cache_that_cannot_be_written_stops_nobody(tiny_data: Data, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "rankings").write_text("a file in the way")
    task, policy = image_task(tiny_data), once("kcenter", selector_options=CENTER)
    found = chooser(task, policy, 0, DataPaths(cache=str(tmp_path / "cache"))).choose(0)
    assert torch.equal(found.subset.positions, chooser(task, policy, 0, None).choose(0).subset.positions)


def test_a_shared_ranking_is_charged_to_everybody(tiny_data: Data, places: DataPaths) -> None:
    """Seconds in proportion to the FLOPs of what was asked for: the clock goes on by 1 s at each look, made once."""
    task, policy = image_task(tiny_data), once(COUNTED, selector_options=FrozenDict({"draws": False}))
    first, second = (chooser(task, policy, seed, places, clock=FakeClock()).choose(0).seconds for seed in (0, 1))
    assert first == second == pytest.approx(21 / 26 + 2)
    results = [train.run(task, policy, seed, options=options(places=places)) for seed in (0, 1)]
    assert [r.ledger.select for r in results] == [21_000, 21_000]
    assert all(r.select_s > 0 for r in results)


@pytest.mark.parametrize("name", ["random", "stratified"])
def test_free_rankings_are_not_kept(tiny_data: Data, places: DataPaths, name: str) -> None:
    chooser(image_task(tiny_data), once(name), 0, places).choose(0)
    assert not (Path(places.cache_folder) / "rankings").exists()
    assert not ranking_cache.can_share(select.make(name), train.facts(image_task(tiny_data)), 21)


# --- growing subsets and new choices ----------------------------------------------------------------------------------


def pools(task: Task, policy: Policy, seed: int = 3) -> list[set[int]]:
    made = chooser(task, policy, seed, None)
    return [set(made.choose(i).subset.positions.tolist()) for i, p in enumerate(policy.phases) if not p.is_full]


def test_a_growing_subset_keeps_what_it_has(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    known = train.facts(task)
    coordinates = {"arm": "subset", "budget": 0.9, "switch": 0.5, "subset_share": 0.1, "steps": 3}
    for selector in ("random", "stratified", "kcenter"):
        small, middle, large = pools(task, from_coordinates({**coordinates, "selector": selector}, known))
        assert small < middle < large
        assert [len(small), len(middle), len(large)] == [21, 42, 84]


def test_a_subset_chosen_anew_is_another_one(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    coordinates = {"arm": "subset", "budget": 0.9, "switch": 0.5, "subset_share": 0.1, "reselect": 0.6}
    first, second, third = pools(task, from_coordinates(coordinates, train.facts(task)))
    assert len(first) == len(second) == len(third) == 21
    assert first != second != third != first


@pytest.mark.parametrize("selector", ["random", "kcenter", "tests.train.selection.test_chooser:Wrongest"])
@pytest.mark.parametrize("changes", [{"steps": 3, "growth": 2.5}, {"reselect": 3.4}, {"steps": 2, "reselect": 4.0}])
def test_what_was_projected_is_what_is_spent(tiny_data: Data, selector: str, changes: dict[str, Any]) -> None:
    task = image_task(tiny_data)
    known = train.facts(task)
    coordinates = {"arm": "subset", "budget": 8.0, "switch": 0.5, "subset_share": 0.1, "selector": selector, **changes}
    policy = from_coordinates(coordinates, known)
    result = train.run(task, policy, 1, options=options())
    assert result.cause == "finished"
    assert result.ledger.select == sum(selections.selection_flops(policy, i, known) for i in range(len(policy.phases)))
    update = task.recipe.batch_size * known.example_flops
    assert 0 <= policy.cost(known) - result.ledger.spent < update
    assert len(result.switch_shares) == len(policy.phases) - 1
    ends = [end / policy.cost(known) for end in policy.boundaries(known)[:-1]]
    costs = [selections.selection_flops(policy, i + 1, known) / policy.cost(known) for i in range(len(ends))]
    late = (task.recipe.batch_size + 1) * known.example_flops / policy.cost(known)
    for share, end, cost in zip(result.switch_shares, ends, costs, strict=True):
        assert end + cost <= share < end + cost + late


def test_a_ladder_of_one_step_is_the_plain_subset_phase(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    plain = {"arm": "subset", "budget": 0.5, "switch": 0.5, "subset_share": 0.2}
    known = train.facts(task)
    one = from_coordinates({**plain, "steps": 1, "growth": 3.0, "reselect": 100.0}, known)
    assert one == from_coordinates(plain, known)


# --- the run's own network --------------------------------------------------------------------------------------------

WRONGEST = Policy.from_mapping(
    {
        "phases": [
            {"share": 0.3, "passes": 1},
            {"share": 0.1, "passes": 2, "selector": "tests.train.selection.test_chooser:Wrongest", "reselect": 1},
            {"passes": 1},
        ]
    }
)


def run(task: Task, policy: Policy = WRONGEST, **changes: Any) -> RunResult:
    return train.run(task, policy, 3, options=options(keep_model=True, **changes))


def test_the_run_s_own_network_chooses(tiny_data: Data) -> None:
    """What the second phase chooses is what the network after the first one is most wrong about."""
    task = image_task(tiny_data)
    result = run(task)
    up_to_the_switch = (Phase(share=0.3, passes=224 / 210),)  # 14 batches of 16 reach 210
    before = run(task, Policy(phases=up_to_the_switch, recipe={"schedule": "constant"}))
    policy = Policy(phases=WRONGEST.phases, recipe={"schedule": "constant"})
    assert set(result.subsets) == {1, 2}
    subset = run(task, policy).subsets[1]
    inputs, targets = load(task).train.batch(torch.arange(210))
    with torch.no_grad():
        wrong = before.model(inputs).softmax(1) - torch.eye(4)[targets]
    assert set(subset.positions.tolist()) == set(wrong.norm(dim=1).topk(21).indices.tolist())


def test_choices_of_the_run_s_own_network_survive_an_interruption(tiny_data: Data, tmp_path: Path) -> None:
    """Stopped in each third of the run, and asked again when it is done."""
    task, whole = image_task(tiny_data), run(image_task(tiny_data))
    for points in (3, 5, 7):
        folder = str(tmp_path / str(points))
        seen: list[int] = []

        def stop(_: object, seen: list[int] = seen, points: int = points) -> bool:
            seen.append(1)
            return len(seen) == points

        kept = options(keep_model=True, checkpoints=folder, checkpoint_every_s=1e-9)
        assert train.run(task, WRONGEST, 3, report=stop, options=kept).cause == "stopped"
        for _ in range(2):  # goes on, and then is asked again
            again = train.run(task, WRONGEST, 3, options=kept)
            assert same_bits(again.model, whole.model)
            assert again.ledger == whole.ledger
            for phase in (1, 2):
                assert torch.equal(again.subsets[phase].positions, whole.subsets[phase].positions)
        key = run_key(task, load(task).fingerprint, WRONGEST, 3)
        assert (Path(folder) / f"{key}.checkpoint").exists()


def test_nobody_but_the_run_can_tell(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    made = chooser(task, WRONGEST, 3, None)
    assert made.needs_run
    assert not chooser(task, once("kcenter"), 3, None).needs_run
    on_gpu = {
        name: chooser(task, once(name), 3, None, device="cuda").needs_run for name in ("kcenter", "el2n", "random")
    }
    assert on_gpu == {"kcenter": True, "el2n": True, "random": False}  # its bits are not those of this machine
    message = "looks at the run's own network, which only the run has. Train the policy.$"
    with pytest.raises(SelectionError, match=message):
        made.choose(1)


def test_a_network_that_left_the_finite_numbers_ends_the_run_as_diverged(tiny_data: Data) -> None:
    """The updates between two looks at the loss are too few to notice: the selector does."""
    task = image_task(tiny_data, {"name": "fakes:Exploding", "after": 5})
    result = run(task, evaluations=1)
    assert result.cause == "diverged"
    assert result.message == "the network that the selector looks at left the finite numbers."
    assert result.metrics == {}


# --- what is paid once ------------------------------------------------------------------------------------------------

PROXY = {"proxy_passes": 1.0, "runs": 2}


def ladder(name: str, plain: dict[str, Any], **last: Any) -> Policy:
    """Three steps with one selector; `last` changes the third."""
    chosen: dict[str, Any] = {"selector": name, "selector_options": FrozenDict(plain)}
    steps = [Phase(share=share, passes=6, **chosen) for share in (0.1, 0.2)]
    return Policy(phases=(*steps, Phase(share=0.4, passes=6, **{**chosen, **last}), Phase(passes=1)))


def test_a_ranking_by_proxies_is_paid_for_once(tiny_data: Data) -> None:
    """The proxies and the look that scores by them; a ranking by other options is paid for again."""
    task = image_task(tiny_data)
    known = train.facts(task)
    look = select.make("el2n", PROXY).flops(known, 21)
    proxies = 2 * known.pass_flops
    cases = [
        (ladder("el2n", PROXY), [proxies + look, 0, 0, 0]),
        (ladder("el2n", PROXY, selector_options=FrozenDict({**PROXY, "skip": 0.1})), [proxies + look, 0, look, 0]),
        (ladder("el2n", PROXY, draw=1), [proxies + look, 0, 0, 0]),  # it draws nothing: the same ranking
        (ladder("el2n", PROXY, selector="random", selector_options=FrozenDict()), [proxies + look, 0, 0, 0]),
    ]
    for policy, charged in cases:
        assert [selections.selection_flops(policy, i, known) for i in range(4)] == charged
        result = train.run(task, policy, 2, options=options())
        assert result.ledger.select == sum(charged)
        assert 0 <= policy.cost(known) - result.ledger.spent < task.recipe.batch_size * known.example_flops


def test_a_longer_ranking_is_paid_for_by_what_it_adds(tiny_data: Data) -> None:
    known = train.facts(image_task(tiny_data))
    policy = ladder("kcenter", {"start": "center"})
    charged = [selections.selection_flops(policy, i, known) for i in range(3)]
    alone = [select.make("kcenter", CENTER).flops(known, k) for k in (21, 42, 84)]
    assert charged == [alone[0], alone[1] - alone[0], alone[2] - alone[1]]


def test_steps_of_a_ranking_are_those_of_separate_choices(tiny_data: Data, places: DataPaths) -> None:
    """One ranking made for the longest step gives each step what it would have chosen by itself, weights included."""
    task = image_task(tiny_data)
    data = load(task)
    for selector, plain in (("kcenter", {"start": "center"}), ("facility_location", {"features": "gradients"})):
        policy = ladder(selector, plain)
        together = SubsetProvider(RunJob.of(task, policy, 5, data), places=places)
        for index in range(3):
            alone = SubsetProvider(RunJob.of(task, Policy(phases=(policy.phases[index], policy.phases[3])), 5, data))
            expected, found = alone.choose(0).subset, together.choose(index).subset
            assert torch.equal(found.positions, expected.positions)
            assert torch.equal(found.loss_weights, expected.loss_weights)


def test_a_price_is_reckoned_in_a_time_that_many_phases_bear(tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector is made once, however many phases have it."""
    task, calls, make = image_task(tiny_data), list[str](), select.make
    known = train.facts(task)

    def counted(name: str, chosen: Any = None) -> Selector:
        calls.append(name)
        return make(name, chosen)

    monkeypatch.setattr(select, "make", counted)
    phase = {"share": 0.1, "passes": 300, "selector": "el2n", "reselect": 1.5}
    policy = Policy.from_mapping({"phases": [phase, {"passes": 1}]})
    total = sum(phase.flops for phase in resolve_phases(policy, task.recipe, known))
    assert total == known.pass_flops + make("el2n").flops(known, 21)  # it draws nothing: one ranking for all
    assert calls == ["el2n"]


# --- any policy -------------------------------------------------------------------------------------------------------


@st.composite
def chosen_by(draw: st.DrawFn, layer: str) -> tuple[str, FrozenDict]:
    """A selector with options that suit the made-up images."""
    name, plain = draw(st.sampled_from([*select.SELECTORS])), {}
    fields = select.SELECTORS[name].__dataclass_fields__
    if "classes" in fields:
        plain["classes"] = draw(st.sampled_from(["none", "proportional", "equal"]))
    if "model" in fields and name != "forgetting":
        plain["model"] = draw(st.sampled_from(["proxy", "current"]))
    if "proxy_passes" in fields:
        plain["proxy_passes"] = 2.0 if name == "forgetting" else draw(st.sampled_from([0.0, 0.5]))
    if "features" in fields:
        plain["features"] = draw(st.sampled_from(["raw", "projection", "gradients", f"layer:{layer}"]))
    if "runs" in fields and plain.get("model") == "proxy":
        plain["runs"] = draw(st.sampled_from([1, 2]))
    return name, FrozenDict(plain)


@st.composite
def policies(draw: st.DrawFn, layer: str) -> Policy:
    """Up to five phases by one or two selectors, of all sizes, with new draws, entries and batch sizes."""
    choices = draw(st.lists(chosen_by(layer), min_size=1, max_size=2))
    made = []
    for index in range(draw(st.integers(1, 5))):
        name, plain = draw(st.sampled_from(choices))
        phase = Phase(
            share=draw(st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.97, 1.0])),
            passes=draw(st.sampled_from([0.0, 0.07, 0.9, 2.1, 5.3, 8.0])),
            selector=name,
            selector_options=plain,
            draw=draw(st.integers(0, 2)),
            transition=draw(st.sampled_from(["keep", "reset_optimizer"])) if index else "keep",
        )
        made.append(phase)
    last = Phase(passes=draw(st.floats(0.2, 2)))
    return Policy(phases=(*made, last), recipe={"batch_size": draw(st.sampled_from([7, 16, 210]))})


def owed(policy: Policy, known: TaskFacts) -> int:
    """What choosing costs in all: every proxy once, every ranking as far as it is used, every other choice.

    Weights depend on where a ranking is cut: each size after the first pays for its own.
    """
    proxies, ranked, others = {}, {}, 0
    sizes: dict[object, list[int]] = {}
    for phase in (phase for phase in policy.phases if not phase.is_full):
        selector = select.make(phase.selector, phase.selector_options)
        need, cost = selector.model_need, selector.flops(known, phase.pool_size(known.num_examples))
        if need is not None and need.source == "current":
            others += cost
            continue
        if need is not None:
            proxies[need] = need.runs * round(need.passes * known.pass_flops)
        if selector.is_ranking:
            key = (phase.selector, phase.selector_options, None if selector.is_deterministic else phase.draw)
            ranked[key] = max(cost, ranked.get(key, 0))
            size, before = phase.pool_size(known.num_examples), sizes.setdefault(key, [])
            others += selector.weigh_flops(known, size) if before and size not in before else 0
            before.append(size)
        else:
            others += cost
    return sum(proxies.values()) + sum(ranked.values()) + others


class GoneError(Exception):
    """The machine went away."""


@contextlib.contextmanager
def interrupted_after(updates: int) -> Iterator[None]:
    """Let a run make so many updates, and then fail."""
    left, update = [updates], Learner.update

    def counted(learner: Learner, *given: Any, **named: Any) -> int:
        if not left[0]:
            raise GoneError
        left[0] -= 1
        return update(learner, *given, **named)

    Learner.update = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Learner.update = update  # type: ignore[method-assign]


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(drawn=st.data(), seed=st.integers(0, 3))
def test_any_policy_costs_what_was_projected_and_survives_any_interruption(
    tiny_data: Data, drawn: st.DataObject, seed: int
) -> None:
    """Each choice is paid once and in full; bits, ledger and choices do not depend on where a run was interrupted."""
    task = image_task(tiny_data)
    known, data = train.facts(task), load(task)
    policy = drawn.draw(policies(next(iter(known.layers))))
    try:
        train.check(task, policy, known)
    except ConfigError:
        assume(False)
    whole = train.run(task, policy, seed, options=options(keep_model=True))
    assert whole.cause == "finished"
    update = min(policy.recipe["batch_size"] + 1, 210) * known.example_flops
    assert whole.ledger.select == owed(policy, known)
    assert 0 <= policy.cost(known) - whole.ledger.spent < update
    with tempfile.TemporaryDirectory() as folder:
        places = DataPaths(cache=f"{folder}/cache")
        kept = options(
            keep_model=True,
            checkpoints=folder,
            checkpoint_every_s=drawn.draw(st.sampled_from([1e-9, 1e9])),
            places=places,
        )
        for updates in drawn.draw(st.lists(st.integers(0, whole.updates - 1), min_size=1, max_size=2)):
            with interrupted_after(updates), contextlib.suppress(GoneError):
                train.run(task, policy, seed, options=kept)
        again = train.run(task, policy, seed, options=kept)
        assert same_bits(again.model, whole.model)
        assert (again.ledger, again.metrics) == (whole.ledger, whole.metrics)
        assert {i: s.positions.tolist() for i, s in again.subsets.items()} == {
            i: s.positions.tolist() for i, s in whole.subsets.items()
        }
        made = [SubsetProvider(RunJob.of(task, policy, seed, data), places=where) for where in (None, places)]
        for index in (i for i, phase in enumerate(policy.phases) if not phase.is_full and not made[0].needs_run):
            alone, shared = (chooser.choose(index).subset for chooser in made)
            assert torch.equal(alone.positions, shared.positions)
            assert torch.equal(alone.loss_weights, shared.loss_weights)


@pytest.mark.parametrize("model", ["proxy", "current"])
def test_weights_survive_an_interruption(tiny_data: Data, tmp_path: Path, model: str) -> None:
    """In the middle of the phase whose losses they weight."""
    task, chosen = image_task(tiny_data), FrozenDict({"model": model, "proxy_passes": 0.5})
    weighted = Phase(share=0.2, passes=2, selector="gradmatch", selector_options=chosen)
    policy = Policy(phases=(Phase(share=0.5, passes=0.5), weighted, Phase(passes=1)))
    whole = train.run(task, policy, 3, options=options(keep_model=True))
    plain = Policy(phases=(policy.phases[0], Phase(share=0.2, passes=2), policy.phases[2]))
    assert not same_bits(whole.model, train.run(task, plain, 3, options=options(keep_model=True)).model)
    kept = options(keep_model=True, checkpoints=str(tmp_path), checkpoint_every_s=1e-9)
    with interrupted_after(18), pytest.raises(GoneError):
        train.run(task, policy, 3, options=kept)
    again = train.run(task, policy, 3, options=kept)
    assert same_bits(again.model, whole.model)
    assert again.ledger == whole.ledger


# --- a share of 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*select.SELECTORS, "tests.train.selection.test_chooser:Wrongest"])
def test_all_data_are_not_chosen_by_anybody(tiny_data: Data, name: str) -> None:
    """A share of 1 is skipped and charged nothing: bit for bit the run without a subset phase."""
    task = image_task(tiny_data)
    plain = run(task, Policy(phases=(Phase(passes=2),)))
    neutral = run(task, Policy(phases=(Phase(share=1, passes=1.3, selector=name), Phase(passes=0.7))))
    assert same_bits(neutral.model, plain.model)
    assert neutral.ledger == plain.ledger
    assert neutral.ledger.select == 0


@pytest.mark.parametrize("name", [*select.SELECTORS, "tests.train.selection.test_chooser:Wrongest"])
def test_a_subset_of_everything_is_the_full_arm(tiny_data: Data, name: str) -> None:
    """As coordinates of a search, too: with steps and new choices, bit for bit the arm without a subset."""
    task = image_task(tiny_data)
    full = {"arm": "full", "budget": 0.5}
    subset = {"arm": "subset", "budget": 0.5, "switch": 0.6, "subset_share": 1.0, "selector": name}
    plain, neutral = (
        run(task, from_coordinates(point, train.facts(task)))
        for point in (full, {**subset, "steps": 3, "growth": 1.5, "reselect": 0.3})
    )
    assert len(neutral.policy.phases) == 5
    assert same_bits(neutral.model, plain.model)
    assert neutral.ledger == plain.ledger
    assert neutral.metrics == plain.metrics
