"""Training functions of the user's own: the batches, rates, costs and bits of our own loop, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import own_functions
import pytest
import torch
from own_functions import NUM_EXAMPLES
from places import SUPPORT
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from subsettune import config
from subsettune.data import TaskData, load
from subsettune.data.encode import Normalizer
from subsettune.errors import ConfigError, DataError, TrainingFunctionError
from subsettune.policy import Phase, Policy, Soup
from subsettune.task import Task
from subsettune.train import loop
from subsettune.train.follow.session import session
from subsettune.train.loop import RunOptions, check, facts, run
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project
from subsettune.train.result import RunResult

RECIPE = {"lr": 0.1, "momentum": 0.9, "batch_size": 16, "epochs": 4}
PLAIN = Policy(phases=(Phase(passes=2),))
INFOBATCH = {"order": "infobatch", "order_options": {"prune": 0.5}}


def _task(train: str = "own_functions:plain", **changes: Any) -> Task:
    raw = {"train": train, "examples": NUM_EXAMPLES, "recipe": RECIPE, "tolerance": 0.05}
    return config.build(Task, {**raw, **changes})


def _two(transition: str = "keep", **both: Any) -> Policy:
    return Policy(
        phases=(Phase(share=0.4, passes=0.9, **both), Phase(passes=1.2, transition=transition, **both)),
        recipe={"lr": 0.2},
    )


def _options(folder: Path | None = None, **more: Any) -> RunOptions:
    kept = None if folder is None else str(folder / "checkpoints")
    return RunOptions(device="cpu", num_threads=1, checkpoints=kept, **more)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The examples that the functions train on, as a file."""
    path = tmp_path_factory.mktemp("beside") / "train.npz"
    np.savez(path, x=own_functions.INPUTS[:NUM_EXAMPLES].numpy(), label=own_functions.TARGETS[:NUM_EXAMPLES].numpy())
    return str(path)


# --- as our own loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [PLAIN, _two(), _two("reset_optimizer"), _two("shrink_perturb"), _two(order="rs2"), _two(**INFOBATCH)],
    ids=["plain", "subset", "reset_optimizer", "shrink_perturb", "rs2", "infobatch"],
)
def test_the_ledger_is_the_projection(policy: Policy) -> None:
    task = _task(flops_per_example={"forward": 100, "backward": 200})
    known = facts(task)
    projected = project(resolve(policy, task.recipe.override(policy.recipe), known))
    result = run(task, policy, 3, options=_options(splits=("test",)))
    assert result.cause == "finished"
    assert result.ledger.forward == sum(phase.ledger.forward for phase in projected)
    assert result.ledger.backward == sum(phase.ledger.backward for phase in projected) == 2 * result.ledger.forward
    assert result.updates == sum(phase.updates for phase in projected)
    assert 0 <= policy.cost(known) - result.ledger.spent < 16 * 300
    assert set(result.metrics) == {"validation", "test"}
    assert result.num_test == 0
    assert len(result.phases) == len(policy.phases)
    assert result.switch_shares == tuple(
        pytest.approx(projected[0].ledger.spent / policy.cost(known)) for _ in policy.phases[1:]
    )


@pytest.mark.parametrize("transition", ["keep", "reset_optimizer", "shrink_perturb"])
@pytest.mark.parametrize("both", [{}, {"order": "rs2"}, INFOBATCH], ids=["uniform", "rs2", "infobatch"])
def test_bit_for_bit_as_our_own_loop(
    transition: str, both: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = _two(transition, **both)
    own = run(_task(), policy, 5, options=_options(keep_model=True))
    path = tmp_path / "all.npz"
    np.savez(path, x=own_functions.INPUTS.numpy(), label=own_functions.TARGETS.numpy())
    ours = config.build(
        Task,
        {
            "data": {"source": str(path), "layout": "flat"},
            "split": {"validation": 0.2, "test": 0.2},
            "model": {"name": "mlp", "hidden": [8]},
            "recipe": RECIPE,
            "tolerance": 0.05,
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr(loop, "load", _as_the_functions_have_them)
        result = run(ours, policy, 5, options=_options(keep_model=True))
    assert result.updates == own.updates
    assert torch.equal(parameters_to_vector(result.model.parameters()), parameters_to_vector(own.model.parameters()))


_load = load


def _as_the_functions_have_them(task: Task, *given: Any, **more: Any) -> TaskData:
    """The first rows of the file in their order, not standardised."""
    data = _load(task, *given, **more)
    as_they_are = Normalizer(mean=torch.zeros(1, 6), scale=torch.ones(1, 6))
    train = dataclasses.replace(data.train, rows=torch.arange(NUM_EXAMPLES), encoder=as_they_are)
    return dataclasses.replace(data, train=train, fingerprint=f"{data.fingerprint}, the first rows")


def test_by_hand_is_by_loader(tmp_path: Path) -> None:
    policy = _two("shrink_perturb", **INFOBATCH)
    by_loader = run(_task(), policy, 2, options=_options(keep_model=True))
    options = {"folder": str(tmp_path)}
    by_hand = run(_task("own_functions:by_hand", train_options=options), policy, 2, options=_options(keep_model=True))
    assert torch.equal(_weights(by_hand), _weights(by_loader))
    assert by_hand.metrics == by_loader.metrics
    assert by_hand.ledger == by_loader.ledger
    assert [point.metric for point in by_hand.curve]
    assert by_hand.evaluate_s > 0


def _weights(result: RunResult) -> Tensor:
    return parameters_to_vector(result.model.parameters())


def test_batches_of_a_subset_stay_in_it(tmp_path: Path, beside: str) -> None:
    """With data beside it, a selector that looks at examples chooses them."""
    own_functions.seen.clear()
    phases = (Phase(share=0.2, passes=0.8, selector="kcenter"), Phase(passes=0.5))
    task = _task(
        "own_functions:by_hand",
        train_options={"folder": str(tmp_path)},
        data={"source": beside},
        flops_per_example={"forward": 10_000, "backward": 20_000},
    )
    result = run(task, Policy(phases=phases), 0, options=_options())
    assert result.ledger.select > 0
    first = own_functions.seen[: len(own_functions.seen) // 2]
    assert len({one for index in first for one in index}) == round(0.2 * NUM_EXAMPLES)
    assert result.ledger.select == facts_of_selection(task, phases)


def facts_of_selection(task: Task, phases: tuple[Phase, ...]) -> int:
    known = facts(task)
    assert known.num_classes == 2
    assert known.num_features == 6
    return resolve(Policy(phases=phases), task.recipe, known).phases[0].flops


# --- interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [{}, INFOBATCH], ids=["uniform", "infobatch"])
def test_goes_on_from_its_checkpoint(both: Mapping[str, Any], tmp_path: Path) -> None:
    policy, places = _two("shrink_perturb", **both), [tmp_path / name for name in ("whole", "cut")]
    for place in places:
        place.mkdir()
    task = _task("own_functions:by_hand", train_options={"folder": str(places[0])})
    whole = run(task, policy, 1, options=_options(keep_model=True))
    cut = _task("own_functions:by_hand", train_options={"folder": str(places[1]), "dies_at": 7})
    with pytest.raises(KeyboardInterrupt):
        run(cut, policy, 1, options=_options(places[1], keep_model=True))
    own_functions.seen.clear()
    result = run(cut, policy, 1, options=_options(places[1], keep_model=True))
    assert len(own_functions.seen) == whole.updates - 5  # it had kept what it was after five
    assert torch.equal(_weights(result), _weights(whole))
    assert result.ledger == whole.ledger
    assert result.metrics == whole.metrics
    assert result.updates == whole.updates
    assert result.repeated_flops == 3 * 16  # what was done after its checkpoint and is lost


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    task = _task("own_functions:by_hand", train_options={"folder": str(tmp_path)})
    first = run(task, PLAIN, 1, options=_options(tmp_path))
    own_functions.seen.clear()
    again = run(task, PLAIN, 1, options=_options(tmp_path, splits=("validation", "test")))
    assert own_functions.seen == []
    assert dict(again.metrics) == {**first.metrics, "test": again.metrics["test"]}
    assert again.ledger == first.ledger
    assert first.metrics.keys() == {"validation"}  # what nobody asked for is not told


def test_is_stopped_by_the_search(tmp_path: Path) -> None:
    task = _task("own_functions:by_hand", train_options={"folder": str(tmp_path)})
    result = run(task, Policy(phases=(Phase(passes=4),)), 1, options=_options(), report=lambda point: True)
    assert (result.cause, result.message, result.updates) == ("stopped", "Stopped by the caller.", 10)
    assert result.metrics == {}
    assert [point.share for point in result.curve] == [pytest.approx(10 * 16 / 480)]


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        (
            "never_finishes",
            PLAIN,
            "the training function ended without run.finish. Call run.finish(validation=..., test=...)",
        ),
        ("finishes_twice", PLAIN, "run.finish was called twice. Call it once, when everything is measured."),
        ("trains_on_less", PLAIN, "run.finish was called after 3 of 15 batches. Train on all of them: the policy is"),
        ("trains_on_more", PLAIN, "the batches of a run can be gone through once, and 15 have been handed out."),
        ("updates_less", PLAIN, "7 updates were counted by run.scheduler or run.steps, and the policy has 15."),
        ("changes_the_policy", PLAIN, "run.policy must stay as it is: the study knows the run by it."),
        ("gives_a_vector", PLAIN, "validation must be one number, got an array of shape (3,). Take the mean"),
        (
            "reports_another_metric",
            PLAIN,
            "run.report must get accuracy=..., and may get loss=..., got acuracy. Did you mean 'accuracy'? Take it",
        ),
        ("reports_nothing", PLAIN, "run.report must get accuracy=..., and may get loss=..., got loss. Take it"),
        (
            "ignores_the_switch",
            _two("reset_optimizer"),
            "the policy opens phase 2 with 'reset_optimizer', and nobody carries it out.",
        ),
        (
            "fetches_ahead",
            PLAIN,
            "run.lr_factor was read when 3 batches had been handed out, and in 0 steps before: the loader",
        ),
        (
            "fetches_ahead_over_a_switch",
            _two(),
            "the policy switches before step 8, and nobody tells which step is trained. Iterate `run.steps(loader)`",
        ),
        (
            "observes_nothing",
            _two(**INFOBATCH),
            "the order 'infobatch' goes by the losses of each batch before the next. Call run.observe(index, losses)",
        ),
        (
            "observes_others",
            _two(**INFOBATCH),
            "run.observe must get the numbers of the batch that was handed out last, in its order, and one loss for",
        ),
        (
            "ignores_weights",
            _two(**INFOBATCH),
            "the policy weighs its examples, and nobody read run.weights. Multiply the losses by them",
        ),
        (
            "trains_on_a_list",
            PLAIN,
            "the batches were handed out, and nobody told that each was trained on: run.lr_fact",
        ),
        ("reads_the_rate_once", PLAIN, "the batches were handed out, and nobody told that each was trained on"),
        ("steps_twice", PLAIN, "a scheduler of run.scheduler was stepped 2 times for 1 batches. Step it once for each"),
        ("in_percent", PLAIN, "validation must be in [0, 1], got 91.0. accuracy is a share: write 0.91 for 91 %."),
        ("exits", PLAIN, "the training function called sys.exit, which ends the study's process. Return, or raise"),
        ("seeds", PLAIN, "torch must be seeded by the run, and the training function has seeded it by another number"),
        (
            "swallows_the_switch",
            _two("reset_optimizer"),
            "the transition 'reset_optimizer' of the policy was not carried",
        ),
        (
            "hears_and_does_nothing",
            _two("reset_optimizer"),
            "the function was told of the transition 'reset_optimizer', and did not carry it out. Call switch.apply",
        ),
        ("weights_of_the_next", PLAIN, "run.weights are those of a batch, and that of step 2 was not handed out yet."),
        ("checkpoint", PLAIN, "run.checkpoint must get a file or folder that is there, got '/nowhere/at/all.pt'."),
        ("on_switch", PLAIN, "run.on_switch must get a function, or network=... and optimizer=... both."),
    ],
)
def test_what_no_run_can_be_made_of(name: str, policy: Policy, message: str) -> None:
    with pytest.raises(TrainingFunctionError, match=re.escape(message)):
        run(_task(f"own_functions:wrong_{name}"), policy, 0, options=_options())


def test_the_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        run(_task("own_functions:wrong_changes_the_recipe"), PLAIN, 0, options=_options())


def test_a_network_of_an_earlier_run_is_refused() -> None:
    task = _task("own_functions:wrong_network_of_the_module")
    run(task, PLAIN, 0, options=_options())
    with pytest.raises(
        TrainingFunctionError, match="the network must be new in each run, and an earlier run has trained"
    ):
        run(task, PLAIN, 1, options=_options())


def test_a_curve_stands_where_was_trained() -> None:
    """Not where the loader is, which fetches ahead."""
    result = run(_task("own_functions:ahead_with_workers"), PLAIN, 0, options=_options())
    assert [point.flops for point in result.curve] == [5 * 16, 10 * 16, 15 * 16]
    assert [point.metric for point in result.curve] == [0.5] * 3


@pytest.mark.parametrize("keeps_first", [True, False])
@pytest.mark.parametrize("dies_after", [3, 6, 7, 8])
def test_goes_on_from_any_step(keeps_first: bool, dies_after: int, tmp_path: Path) -> None:
    """Kept before or after the scheduler's step, right before or behind the switch, which comes after 7 updates."""
    policy, folders = _two("shrink_perturb"), (tmp_path / "whole", tmp_path / "cut")
    whole, cut = (
        _task(
            "own_functions:resumes_anywhere",
            train_options={"folder": str(folder), "keeps_first": keeps_first, "dies_after": after},
        )
        for folder, after in zip(folders, (-1, dies_after), strict=True)
    )
    for folder in folders:
        folder.mkdir()
    expected = run(whole, policy, 4, options=_options(keep_model=True))
    with pytest.raises(KeyboardInterrupt):
        run(cut, policy, 4, options=_options(folders[1]))
    result = run(cut, policy, 4, options=_options(folders[1], keep_model=True))
    assert torch.equal(_weights(result), _weights(expected))
    assert result.ledger == expected.ledger
    assert result.repeated_flops == 0


@pytest.mark.parametrize("name", ["nan", "nan_swallowed", "reports_nan"])
def test_what_is_no_number_is_a_diverged_run(name: str) -> None:
    result = run(_task(f"own_functions:{name}"), PLAIN, 0, options=_options())
    assert result.cause == "diverged"
    assert result.message == "A metric that the training function told is no finite number."
    assert result.metrics == {}


def test_errors_of_the_function_come_through() -> None:
    with pytest.raises(ZeroDivisionError, match="of the user's own"):
        run(_task("own_functions:fails"), PLAIN, 0, options=_options())


def test_what_is_no_function() -> None:
    with pytest.raises(ConfigError, match=r"train must be a function, got 'own_functions:no_function'\."):
        run(_task("own_functions:no_function"), PLAIN, 0, options=_options())


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((Phase(passes=1, order="sift"),), "order must be uniform, rs2 or infobatch with task.train, got 'sift'"),
        (
            (Phase(share=0.5, passes=1, soup=Soup(workers=2, density=1)), Phase(passes=1)),
            "soup must be 0 with task.train: it averages networks that our own loop trains. Leave it out.",
        ),
        ((Phase(share=0.5, passes=1, selector="el2n"),), "selector 'el2n' looks at a network, and that of task.train"),
        (
            (Phase(share=0.5, passes=1, selector="kcenter"),),
            "selector 'kcenter' looks at the examples, and task.train keeps them to itself. Give task.data beside it",
        ),
        ((Phase(share=0.5, passes=1, selector="stratified"),), "stratified needs classes"),
    ],
)
def test_policies_that_only_our_own_loop_follows(phases: tuple[Phase, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(_task(), Policy(phases=phases), facts(_task()))


def test_pruning_needs_our_own_loop() -> None:
    with pytest.raises(
        ConfigError, match=r"transition must be keep, reset_optimizer or shrink_perturb with task\.train"
    ):
        check(_task(), _two("prune"), facts(_task()))


def test_costs_that_cannot_be_added(beside: str) -> None:
    task = _task(data={"source": beside})
    message = "selector 'kcenter' costs FLOPs, and what an example costs is not known: the two cannot be added."
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(task, Policy(phases=(Phase(share=0.5, passes=1, selector="kcenter"),)), facts(task))


def test_data_beside_must_be_the_training_examples(beside: str) -> None:
    message = "data beside train must be one row for each of the 100 training examples of task.examples, got 120."
    with pytest.raises(DataError, match=re.escape(message)):
        facts(_task(data={"source": beside}, examples=100))


def test_facts_without_flops() -> None:
    known = facts(_task())
    assert (known.unit, known.example_flops, known.pass_flops) == ("example", 1, NUM_EXAMPLES)
    assert not known.has_q
    with pytest.raises(ConfigError, match=r"q is K\*M/P, and M or P of this task is not known"):
        known.q()
    assert facts(_task(outputs=2, parameters=60)).q() == pytest.approx(4)
    assert config.to_plain(known)["unit"] == "example"
    with_flops = facts(_task(flops_per_example={"forward": 1, "backward": 2}))
    assert "unit" not in config.to_plain(with_flops)


# --- programs -------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {support!r})
import own_functions
import subsettune
run = subsettune.session()
print("begins")
own_functions.{name}(run)
"""


def _program(folder: Path, name: str) -> str:
    file = folder / "program.py"
    file.write_text(PROGRAM.format(support=str(SUPPORT), name=name))
    return f"python {file}"


def test_a_program_is_a_function(tmp_path: Path) -> None:
    """The same bits, stopped by the same report, and not trained again."""
    policy, options = _two("shrink_perturb"), {"folder": str(tmp_path)}
    whole = _task(_program(tmp_path, "by_hand"), train_options=options)
    told: list[float] = []
    result = run(
        whole, policy, 2, options=_options(tmp_path), report=lambda point: told.append(point.share) is not None
    )
    own = run(_task("own_functions:by_hand", train_options=options), policy, 2, options=_options())
    assert result.metrics == own.metrics
    assert result.ledger == own.ledger
    assert told == [point.share for point in own.curve]
    (tmp_path / "program.py").chmod(0)  # nobody can start it any more
    assert (
        run(whole, policy, 2, options=_options(tmp_path, fingerprint=facts_fingerprint(whole))).metrics == own.metrics
    )


def facts_fingerprint(task: Task) -> str:
    return load(task).fingerprint


def test_a_program_that_fails(tmp_path: Path) -> None:
    task = _task(_program(tmp_path, "fails"))
    with pytest.raises(
        TrainingFunctionError, match=r"ended with exit code 1 and without run\.finish: ZeroDivision"
    ) as found:
        run(task, PLAIN, 0, options=_options(fingerprint=facts_fingerprint(task)))  # as a study does
    assert any("begins" in note for note in found.value.__notes__)


def test_a_program_that_fails_at_its_end(tmp_path: Path) -> None:
    """What it had told does not count, then or later."""
    file = tmp_path / "program.py"
    begin = "import subsettune\nrun = subsettune.session()\nfor _ in run.batches(): pass\n"
    file.write_text(f"{begin}run.finish(validation=0.5, test=0.5)\nraise OSError('disk full')\n")
    task = _task(f"python {file}")
    options = _options(tmp_path, fingerprint=facts_fingerprint(task))
    with pytest.raises(TrainingFunctionError, match=r"ended with exit code 1 after run\.finish: OSError: disk full"):
        run(task, PLAIN, 0, options=options)
    assert not list((tmp_path / "checkpoints").glob("*.checkpoint"))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="train must be a command that can be started, got 'no-such-program x'"):
        run(_task("no-such-program x"), PLAIN, 0, options=_options())


def test_session_outside_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBSETTUNE_SESSION", raising=False)
    with pytest.raises(TrainingFunctionError, match=re.escape("subsettune.session() must be called by a program that")):
        session()
