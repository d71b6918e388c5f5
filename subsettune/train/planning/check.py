"""What is known of a run before its first step: facts of the task, the checked recipe, the subset, the run's key."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from subsettune import config, models, plugins, registry, user_code
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, TaskData, load
from subsettune.data.augment import make_augment
from subsettune.data.example import guess_of
from subsettune.data.layout import OWN_IDS
from subsettune.data.text import PADDING
from subsettune.errors import CostWarning, ModelError
from subsettune.facts import TaskFacts
from subsettune.policy import BATCHING, Policy
from subsettune.registry import Registry
from subsettune.select.network import anatomy
from subsettune.task import Augment, Recipe, Task
from subsettune.train import flops, optimizers, schedule
from subsettune.train.planning import compute, goal_check, own_code, own_training
from subsettune.train.planning.phases import ResolvedPolicy, resolve
from subsettune.train.pruning.layers import blocks, chain, has_running_statistics, inner
from subsettune.train.randomness import generator, isolated, preserved

LOOKED_AT = 4096  # rows of token ids in one go
_FACTS: dict[tuple[str, str, str], TaskFacts] = {}  # a worker trains many policies of one task


def facts(task: Task, places: DataPaths | None = None, fingerprint: str | None = None) -> TaskFacts:
    """Resolve a task: load its data, build its network and optimizer, count its FLOPs.

    Args:
        task: what is trained.
        places: where this machine keeps data.
        fingerprint: of the data as the caller knows it; data with another one are refused.

    Raises:
        DataError, ModelError, ConfigError: the task cannot be trained, or its runs would not be independent.
    """
    with preserved():
        data = load(task, places or DataPaths(), fingerprint=fingerprint)
        if not task.is_own:
            check_own_code(task, task.recipe, data)
        return facts_of(task, data)


def check_own_code(task: Task, recipe: Recipe, data: TaskData) -> tuple[str, ...]:
    """As `own_code.check`; where a network does not fit, what an example was taken for is told."""
    if task.loss is not None:
        goal_check.check(task, data)  # what a loss gives is told before what updates with it do
    with _guess_told(task, data):
        return own_code.check(task, recipe, data)


def facts_of(task: Task, data: TaskData) -> TaskFacts:
    """As `facts`, for data that are loaded; counted once a process."""
    key = (task.key, data.fingerprint, config.digest(user_code_of(task)))  # a notebook may reload the user's module
    if key not in _FACTS:
        _FACTS[key] = count_facts(task, data)
    return _FACTS[key]


def recounted(facts: TaskFacts, task: Task, data: TaskData) -> TaskFacts:
    """The facts of a network, where they do not depend on values, for other examples of the same shape."""
    return dataclasses.replace(facts, **_of_examples(task, data))


def _of_examples(task: Task, data: TaskData) -> dict[str, Any]:
    """What the number of examples and the classes that they are of tell."""
    counts = [int(c) for c in data.class_counts] if data.num_classes else []
    return {
        "num_examples": len(data.train),
        "num_classes": data.num_classes,
        "smallest_class": min(counts, default=0),
        "class_counts": tuple(counts),
        "reference_passes": task.recipe.epochs,
    }


def count_facts(task: Task, data: TaskData) -> TaskFacts:
    """As `facts_of`, counted anew, and not kept."""
    if task.is_own:
        return own_training.facts(task, data)
    if data.tokens == OWN_IDS and task.model.name in models.FOR_TOKENS:
        _refuse_padding_inside(data.train.inputs, task.model.name)
    own_loss = goal_check.check(task, data)
    with isolated(0, torch.get_num_threads()):  # initialising the network draws random numbers
        probe = flops.Probe.of(data, task.recipe.batch_size)
        with _guess_told(task, data):
            network = models.make(task.model, data.input_shape, data.num_outputs, data.num_tokens)
            cost = flops.count(network, probe, data.num_outputs, task.model.name)
        visits = flops.visits(network, probe, cost)
        parts = anatomy(network, probe.examples([2])[0])
        optimizers.make(task.recipe, network)  # a recipe that cannot be carried out is told here, not in a worker
        augment = make_augment(task.recipe.augment, data.input_shape, generator(0))
        if augment is not None:  # what the user's own function, or torchvision, refuses is told here
            augment(data.train.batch(torch.arange(2) % len(data.train))[0])
    if cost.varies:
        warnings.warn(cost.varies, CostWarning, stacklevel=2)
    named = {name: visit for name, visit in visits.items() if name in parts.layers}
    return TaskFacts(
        **_of_examples(task, data),
        num_outputs=data.num_outputs,
        num_parameters=models.num_parameters(network),
        forward_flops=cost.forward,
        backward_flops=cost.backward,
        num_features=math.prod(data.input_shape),
        head_features=parts.head_features,
        layers=FrozenDict(parts.layers),
        num_embedding=data.num_embedding,
        exits=FrozenDict({name: min(visit.end, cost.forward) for name, visit in named.items()}),
        blocks=tuple(name for name in blocks(network) if name in named),
        chain=chain(network, named, cost.forward, cost.backward),
        inner=inner(network, named),
        has_batch_norm=has_running_statistics(network),
        num_tokens=data.num_tokens,
        image_channels=_image_channels(data),
        notes=(*([cost.varies] if cost.varies else []), *cost.notes, *goal_check.notes(task, data)),
        num_labels=data.num_outputs if task.kind == "multilabel" else 0,
        own_loss=own_loss,
    )


@contextlib.contextmanager
def _guess_told(task: Task, data: TaskData) -> Iterator[None]:
    """A network that does not fit examples may fit what they are: the sentence says what they were taken for."""
    try:
        yield
    except ModelError as error:
        if not guess_of(data, task.data):
            raise
        raise ModelError(f"{error} An example was {guess_of(data, task.data)}.") from error


def _refuse_padding_inside(inputs: Tensor, model: str) -> None:
    """An id 0 with ids on both sides is no padding, and a network that knows padding would not see it."""
    for start in range(0, len(inputs), LOOKED_AT):
        is_id = inputs[start : start + LOOKED_AT] != PADDING
        inside = ~is_id & (is_id.cumsum(dim=1) > 0) & (is_id.flip(1).cumsum(dim=1).flip(1) > 0)
        if bool(inside.any()):
            row = start + int(inside.any(dim=1).int().argmax())
            raise ModelError(
                f"model {model!r} takes id {PADDING} for padding, and in example {row} it stands between other ids. "
                "Add 1 to all ids, or use a network of your own."
            )


def _image_channels(data: TaskData) -> int:
    """Channels of the examples where they are stored as images of bytes, else 0."""
    return data.input_shape[0] if len(data.input_shape) == 3 and data.train.inputs.dtype == torch.uint8 else 0


def run_key(task: Task, fingerprint: str, policy: Policy, seed: int) -> str:
    """Content hash that names the checkpoint of a run: of all that its result depends on but torch and the machine.

    The tolerance is no part of it, since it does not change a run. How batches are cut is, so that a run never goes on
    from a checkpoint of other batches. The source of the user's own modules is, with what
    they import and the files that their options name, so that a network that was edited starts over instead of loading
    weights of another one.

    Raises:
        ConfigError: a module of the user's cannot be imported.
        DataError: a file that an option names cannot be read.
    """
    code = user_code_of(task, policy)
    told = {"fingerprint": fingerprint, "policy": policy.identity, "seed": seed, "code": code, "batching": BATCHING}
    return config.digest({**task.run_identity, **told})


def own_components(task: Task, policy: Policy) -> dict[str, str]:
    """`module:name` of the components of a run that are not ours, by their names."""
    named = ((kind, name) for kind, name, _ in _named(task, policy))
    return {name: target for kind, name in named if (target := kind.code_of(name)) is not None}


def _named(task: Task, policy: Policy | None) -> list[tuple[Registry, str, Any]]:
    """Model, optimizer and components of a run, each with its registry and its options."""
    recipe: Mapping[str, Any] = {} if policy is None else policy.recipe
    optimizer = recipe.get("optimizer", task.recipe.optimizer)
    own_options = recipe.get("optimizer_options", task.recipe.optimizer_options)
    named = [(registry.MODELS, task.model.name, task.model.options), (registry.OPTIMIZERS, optimizer, own_options)]
    if task.is_own:
        named = []  # of its function, see `user_code_of`
    else:
        named += _named_goal(task, recipe)
    for phase in () if policy is None else policy.phases:
        named.append((registry.SELECTORS, phase.selector, phase.selector_options))
        named.append((registry.ORDERS, phase.order, phase.order_options))
        named.append((registry.TRANSITIONS, phase.transition, phase.transition_options))
    return named


def _named_goal(task: Task, recipe: Mapping[str, Any]) -> list[tuple[Registry, str, Any]]:
    """Likewise metric, loss and augmentation."""
    named: list[tuple[Registry, str, Any]] = [(registry.OWN_METRICS, task.metric, {})]
    augment = recipe.get("augment", task.recipe.augment)
    augment = augment if isinstance(augment, Augment) else config.build(Augment, augment)
    named += [] if augment.function is None else [(registry.AUGMENTS, augment.function, augment.options)]
    named += [] if task.loss is None else [(registry.LOSSES, task.loss, {})]
    return named


def user_code_of(task: Task, policy: Policy | None = None) -> dict[str, str]:
    """Content hashes of the user's own code that a run depends on, by name as files have it; errors as of `run_key`.

    Args:
        task: whose model and optimizer.
        policy: whose components; null for none.
    """
    found: dict[str, str] = {}
    if task.train is not None and task.is_script:
        found[task.train] = user_code.digest_of_command(task.train, task.train_options)
    elif task.train is not None:
        found[task.train] = plugins.source_digest(task.train, task.train_options, "train")
    for kind, name, options in _named(task, policy):
        target = kind.code_of(name)
        if target is not None:
            digest = plugins.source_digest(target, options, kind.what)
            found[name] = digest if found.get(name, digest) == digest else config.digest([found[name], digest])
    return found


def study_code(task: Task, named: Iterable[tuple[Registry, str]]) -> dict[str, str]:
    """As `user_code_of`, of the task and of components, whose options are left out: a study has many of each.

    Args:
        task: whose model and optimizer.
        named: components, each with the registry of its kind.
    """
    found = user_code_of(task)
    for kind, name in named:
        target = kind.code_of(name)
        if target is not None and name not in found:
            found[name] = plugins.source_digest(target, what=kind.what)
    return found


def check(task: Task, policy: Policy, facts: TaskFacts) -> Recipe:
    """Check everything about a policy that can be checked before the first step; returns the recipe it trains with.

    Raises:
        ConfigError: an unknown or impossible component, a selection that costs more than its phase may spend, or too
            little compute for a single update.
    """
    return resolve_checked(task, policy, facts).recipe


def resolve_checked(task: Task, policy: Policy, facts: TaskFacts) -> ResolvedPolicy:
    """The policy resolved and checked, as `check` does."""
    recipe = task.recipe.override(policy.recipe)
    schedule.make(recipe.schedule, recipe.schedule_options)
    if task.is_own:
        own_training.check(task, policy, facts)
    goal_check.check_recipe(task, recipe)
    resolved = resolve(policy, recipe, facts)
    compute.check_selections(resolved)
    optimizers.check_batch_size(recipe, facts.num_examples)
    compute.check(resolved)
    return resolved
