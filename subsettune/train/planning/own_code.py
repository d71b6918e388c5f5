"""Networks, optimizers, losses and augmentations of a user's own, tried before anything is trained.

Runs must be independent of each other.

A study compares runs that differ in their seed alone, and its evidence is their spread. So the same seed must give the
same run whatever ran before in the process, and another seed another one. Code that keeps something between its calls
breaks the first (a network that is made once and goes on from trained weights, a counter), and code that seeds torch
breaks the second. What is built with two seeds, twice with one of them, and updated twice, shows either.

A run that was interrupted must end as if it had not been. Code that keeps something which no `state_dict` holds, such
as a counter of steps in an attribute, breaks that, and shows in some updates after a checkpoint. Its runs begin again.

Weights that are loaded from a file are the same for every seed too. That is allowed, and told: then the spread is that
of what is left to chance, such as the order of the examples.
"""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subsettune import config, models, plugins
from subsettune.data import TaskData
from subsettune.errors import ModelError, SubsettuneError
from subsettune.registry import AUGMENTS, LOSSES, MODELS, OPTIMIZERS, Registry
from subsettune.task import Recipe, Task
from subsettune.train.learner import Learner
from subsettune.train.randomness import capture, isolated, preserved, restore

_LOG = logging.getLogger("subsettune.own_code")
NUM_EXAMPLES = 2  # of an update on trial: the fewest that batch norm takes
NUM_UPDATES = 2  # the second sees what the first one left behind
NUM_MORE = 6  # updates after a checkpoint; as many as optimizers that look back every five or six steps need
UNLOADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)  # of a state's own
PROBABILITY_ERROR = 1e-3  # of the sum over the classes, also in bfloat16
REMEDY = "Each call must build everything anew, from torch's random state as it is."
_NOT_OWN = (Path(torch.__file__).parent, Path(models.__file__).parents[1])
_Key = tuple[str, str, str]
_NOTICES: dict[_Key, tuple[str, ...]] = {}  # a worker trains many policies of one task
_GOES_ON: dict[_Key, bool] = {}
_TOLD: set[_Key] = set()  # task, data, and sentence


def check(task: Task, recipe: Recipe, data: TaskData) -> tuple[str, ...]:
    """Try a user's own network, optimizer, loss and augmentation; nothing is done where all are ours, or were tried.

    Args:
        task: whose network.
        recipe: whose optimizer: the task's, or with a policy's overrides.
        data: of the task.

    Returns:
        Sentences on what is allowed and may not be meant. They are told on the log too, once a process.

    Raises:
        ModelError: runs with it would not be independent of each other; it cannot be trained, or in evaluation it
            gives something else than in training.
        ConfigError: the optimizer does not fit.
    """
    if _is_built_in(task, recipe):
        return ()
    key = _key(task, recipe, data)
    if key not in _NOTICES:
        with preserved():
            is_ours = MODELS.code_of(task.model.name) is None and OPTIMIZERS.code_of(recipe.optimizer) is None
            notices = () if is_ours else _try_model(task, data)
            _try_training(task, recipe, data)
        if not goes_on(task, recipe, data):
            notices += (
                f"{_what(task, recipe)} keeps something that its state_dict "
                "leaves out: a run that is interrupted begins again, for it would end with other numbers from a "
                "checkpoint. Keep it in a buffer of the network, or in the optimizer's state or param_groups.",
            )
        for notice in notices:
            if (*key[:2], notice) not in _TOLD:  # a network is tried again with each optimizer
                _TOLD.add((*key[:2], notice))
                _LOG.warning(notice)
        _NOTICES[key] = notices
    return _NOTICES[key]


def goes_on(task: Task, recipe: Recipe, data: TaskData) -> bool:
    """Whether a run goes on from a checkpoint with the same bits; tried once a process where code is a user's own.

    Args:
        task: as of `check`, which it has passed.
        recipe: likewise.
        data: likewise.
    """
    if _is_built_in(task, recipe):
        return True
    key = _key(task, recipe, data)
    if key not in _GOES_ON:
        with preserved():
            _GOES_ON[key] = _try_going_on(task, recipe, data)
    return _GOES_ON[key]


def _is_built_in(task: Task, recipe: Recipe) -> bool:
    return all(kind.code_of(name) is None for kind, name, _ in _parts(task, recipe))


def _parts(task: Task, recipe: Recipe) -> list[tuple[Registry, str, Mapping[str, Any]]]:
    """What an update is made of, with its registry and its options."""
    model, augment = task.model, recipe.augment
    found: list[tuple[Registry, str, Mapping[str, Any]]] = [
        (MODELS, model.name, model.options),
        (OPTIMIZERS, recipe.optimizer, recipe.optimizer_options),
    ]
    found += [] if task.loss is None else [(LOSSES, task.loss, {})]
    return found if augment.function is None else [*found, (AUGMENTS, augment.function, augment.options)]


def _what(task: Task, recipe: Recipe) -> str:
    """All of it in words; who of them is to blame nobody knows."""
    return " or ".join(f"{kind.what} {name!r}" for kind, name, _ in _parts(task, recipe))


def _key(task: Task, recipe: Recipe, data: TaskData) -> _Key:
    """Of what is tried, the code as its files have it now: a notebook may reload the user's module."""
    optimizer = recipe.optimizer
    found = [(kind.code_of(name), options, kind.what) for kind, name, options in _parts(task, recipe)]
    code = [plugins.source_digest(target, options, what) for target, options, what in found if target is not None]
    named = {"name": optimizer, "options": recipe.optimizer_options, "code": code}
    return task.key, data.fingerprint, config.digest(named)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Built:
    """A network and the global random state that its function left behind."""

    network: nn.Module
    random: dict[str, Any]


def _try_model(task: Task, data: TaskData) -> tuple[str, ...]:
    """Build the network with seeds 0, 0 and 1, compare, and look at its outputs."""
    name = task.model.name
    _build(task, data, 0)  # a first call may import what draws random numbers
    first, again, other = (_build(task, data, seed) for seed in (0, 0, 1))
    shared = _check_shared(first.network, (again.network, other.network), name)
    _check_repeats(first.network, again.network, name)
    _check_seeding(first.random, other.random, f"function of model {name!r}")
    notices = [*_alike(first.network, other.network, name), *_check_outputs(first.network, task, data)]
    _check_unchanged(shared, name)
    return tuple(notices)


def _build(task: Task, data: TaskData, seed: int) -> _Built:
    with isolated(seed, torch.get_num_threads()):
        network = models.make(task.model, data.input_shape, data.num_outputs, data.num_tokens)
        return _Built(network=network, random=capture())


def _check_shared(network: nn.Module, others: tuple[nn.Module, ...], name: str) -> dict[str, tuple[Tensor, int]]:
    """Refuse trainable tensors that another call gave too; the versions of the others that are shared, by name."""
    elsewhere = {_place(values) for one in others for values in models.tensors(one).values() if values.numel()}
    shared = {path: v for path, v in models.tensors(network).items() if v.numel() and _place(v) in elsewhere}
    for path, values in shared.items():
        if values.requires_grad:
            raise ModelError(
                f"model {name!r} must be a new network in each call, got {path} of an earlier one: a run would go on "
                "from what another one trained. Build it inside the function, or return copy.deepcopy of it."
            )
    return {path: (values, values._version) for path, values in shared.items()}


def _place(values: Tensor) -> int:
    return values.untyped_storage().data_ptr()


def _check_unchanged(shared: Mapping[str, tuple[Tensor, int]], name: str) -> None:
    """Refuse buffers that all networks share, if a network writes to them."""
    for path, (values, version) in shared.items():
        if values._version != version:
            raise ModelError(
                f"{path} of model {name!r} must belong to one network, got a tensor that all of them write to. "
                "Clone it inside the function."
            )


def _check_repeats(first: nn.Module, again: nn.Module, name: str) -> None:
    """Refuse a function that gives two networks for one seed."""
    one, two = models.tensors(first), models.tensors(again)
    shapes = [{path: tuple(values.shape) for path, values in found.items()} for found in (one, two)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"model {name!r} must be the same network in each call, got another build. {REMEDY}")
    for path, values in one.items():
        if not torch.equal(values, two[path]):
            raise ModelError(
                f"model {name!r} must begin with the same weights for the same seed, got others in {path}. {REMEDY}"
            )


def _check_seeding(first: Mapping[str, Any], other: Mapping[str, Any], what: str) -> None:
    """Refuse code that leaves the same random state behind for two seeds."""
    if torch.equal(first["torch"], other["torch"]):
        found = "torch"
    elif first["python"] == other["python"]:
        found = "random"
    elif torch.equal(first["numpy"][1], other["numpy"][1]):
        found = "numpy.random"
    else:
        return
    raise ModelError(
        f"{what} must leave the random state to the run, got one that seeds {found}: all seeds would be alike, and "
        "their spread too small. Remove the call, e.g. torch.manual_seed."
    )


def _alike(first: nn.Module, other: nn.Module, name: str) -> list[str]:
    """A sentence on weights that are the same for both seeds, and not all equal, as those of a fresh layer may be."""
    others = dict(other.named_parameters())
    trained = {path: p.detach() for path, p in first.named_parameters() if p.requires_grad}
    alike = [p for path, p in trained.items() if torch.equal(p, others[path]) and bool((p != p.flatten()[:1]).any())]
    count, total = sum(p.numel() for p in alike), sum(p.numel() for p in trained.values())
    if not count:
        return []
    return [
        f"model {name!r} begins with the same numbers for every seed in {count:,} of its {total:,} trainable "
        "parameters, as weights do that are loaded: the spread over seeds leaves out how these are initialised."
    ]


@torch.no_grad()
def _check_outputs(network: nn.Module, task: Task, data: TaskData) -> list[str]:
    """Look at outputs in both modes on some training examples; sentences if they look odd."""
    inputs, _ = data.train.batch(torch.arange(NUM_EXAMPLES) % len(data.train))
    modules, names = set(network.modules()), models.tensors(network).keys()
    looks = False
    for mode in ("", "evaluation"):
        output = _output(network, inputs, mode, task.model.name)
        models.check_output(output, len(inputs), data.num_outputs, task.model.name, mode=mode)
        if models.tensors(network).keys() != names or set(network.modules()) != modules:
            raise ModelError(
                f"model {task.model.name!r} must have all its layers when it is built, got new ones in its first "
                "forward pass: no optimizer would train them. Make them in __init__."
            )
        looks |= task.kind == "classification" and _are_probabilities(output)
    again = _output(network, inputs, "evaluation", task.model.name, seed=1)
    is_random = not torch.allclose(again, output, rtol=0.0, atol=0.0, equal_nan=True)
    advice = "The loss takes logits, and learns badly from them. Leave out the softmax at its end."
    return [
        *[f"outputs of model {task.model.name!r} look like probabilities: each row sums to 1. {advice}"] * looks,
        *[
            f"model {task.model.name!r} draws random numbers in evaluation, too, and is measured with them, as with "
            "functional.dropout without training=self.training."
        ]
        * is_random,
    ]


def _output(network: nn.Module, inputs: Tensor, mode: str, name: str, *, seed: int = 0) -> Any:
    """What a network gives in training ("") or in `evaluation`; refuses one that changes its input."""
    network.train(not mode)
    given, where = inputs.clone(), f" in {mode}" if mode else ""
    with isolated(seed, torch.get_num_threads()):
        what = f"fails{where} on inputs of shape {tuple(inputs.shape)}"
        output = _told(lambda: network(given), network, what, name)
    if not torch.equal(given, inputs):
        raise ModelError(
            f"model {name!r} must leave its input as it is, got one that changes it in place. "
            "Begin with x = x.clone(), or take inplace=True out of its first layer."
        )
    return output


def _are_probabilities(output: Tensor) -> bool:
    values = output.float()
    is_share = bool(((values >= 0) & (values <= 1)).all())
    return values.dim() == 2 and is_share and bool(((values.sum(dim=1) - 1).abs() < PROBABILITY_ERROR).all())


def _try_training(task: Task, recipe: Recipe, data: TaskData) -> None:
    """Update twice with seeds 0, 0 and 1, and compare."""
    what = _what(task, recipe)
    OPTIMIZERS.load(recipe.optimizer)  # imports may draw random numbers
    (first, _), (again, left), (_, left_by_other) = (_updated(task, recipe, data, seed) for seed in (0, 0, 1))
    if _differing(first, again):  # the first may have imported something too
        first, again = again, _updated(task, recipe, data, 0)[0]
    path = _differing(first, again)
    if path:
        raise ModelError(
            f"{what} must train alike with the same seed, got other values in {path} when two updates were made "
            "again. Keep nothing in classes or modules, and draw from torch's random state alone."
        )
    _check_seeding(left, left_by_other, what)


def _try_going_on(task: Task, recipe: Recipe, data: TaskData) -> bool:
    """Update, save, and update on; then again from what was saved, and compare."""
    batch = torch.arange(min(NUM_EXAMPLES, len(data.train)))

    def update_on(learner: Learner) -> None:
        for i in range(NUM_MORE):
            lr = recipe.lr / (i + 1)  # as a schedule does, which must reach the optimizer
            _told(partial(learner.update, batch, lr, None), learner.network, "fails in training", task.model.name)

    with isolated(0, 1):
        whole = Learner(task, recipe, data, torch.device("cpu"), 0)
        whole.update(batch, recipe.lr, None)
        saved, random = copy.deepcopy(whole.state()), capture()
        update_on(whole)
    with isolated(0, 1):
        again = Learner(task, recipe, data, torch.device("cpu"), 0)
        try:
            again.load(saved)
        except UNLOADABLE:
            return False
        restore(random)
        update_on(again)
    return not _differing(whole.network, again.network)


def _differing(first: nn.Module, again: nn.Module) -> str:
    """Name of a parameter or buffer that differs; "" if none does."""
    one, two = models.tensors(first), models.tensors(again)
    same = {path: torch.allclose(v, two[path], rtol=0.0, atol=0.0, equal_nan=True) for path, v in one.items()}
    return next((path for path, is_same in same.items() if not is_same), "")


def _updated(task: Task, recipe: Recipe, data: TaskData, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """A network after some updates, and the random state then."""
    batch = torch.arange(min(NUM_EXAMPLES, len(data.train)))
    with isolated(seed, 1):
        learner = Learner(task, recipe, data, torch.device("cpu"), seed)
        for _ in range(NUM_UPDATES):
            _told(lambda: learner.update(batch, recipe.lr, None), learner.network, "fails in training", task.model.name)
        return learner.network, capture()


def _place_of(error: Exception) -> str:
    """The last line of the user's own that an error comes from, or of torch if there is none."""
    places = traceback.extract_tb(error.__traceback__)
    own = [p for p in places if not any(Path(p.filename).is_relative_to(folder) for folder in _NOT_OWN)] or places
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


def _told(act: Any, network: nn.Module, what: str, name: str) -> Any:
    """Do something with a user's network; whatever it raises becomes a sentence."""
    try:
        return act()
    except SubsettuneError:
        raise
    except Exception as error:  # whatever the user's network or optimizer raises
        reason = next(iter(str(error).strip().splitlines()), "").rstrip(".")
        where = f"{type(error).__name__}: {reason} ({_place_of(error)})"
        types = {str(p.dtype).removeprefix("torch.") for p in network.parameters()} - {"float32"}
        hint = f" Its parameters are {', '.join(sorted(types))}, and its inputs float32: convert one of them."
        raise ModelError(f"model {name!r} {what}: {where}.{hint if types else ''}") from error
