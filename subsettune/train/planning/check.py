"""What is known of a run before its first step: facts of the task, the checked recipe, the subset, the run's key."""

from __future__ import annotations

import math

import torch

from subsettune import config, models, plugins, registry
from subsettune.config import FrozenDict
from subsettune.data import DataPaths, TaskData, load
from subsettune.data.augment import make_augment
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.select.network import anatomy
from subsettune.task import Recipe, Task
from subsettune.train import flops, optimizers, schedule
from subsettune.train.planning import compute, own_code
from subsettune.train.planning.phases import ResolvedPolicy, resolve
from subsettune.train.pruning.layers import blocks, chain, has_running_statistics, inner
from subsettune.train.randomness import generator, isolated, preserved

_FACTS: dict[tuple[str, str], TaskFacts] = {}  # a worker trains many policies of one task


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
        own_code.check(task, task.recipe, data)
        return facts_of(task, data)


def facts_of(task: Task, data: TaskData) -> TaskFacts:
    """As `facts`, for data that are loaded; counted once a process."""
    key = (task.key, data.fingerprint)
    if key not in _FACTS:
        _FACTS[key] = _count_facts(task, data)
    return _FACTS[key]


def _count_facts(task: Task, data: TaskData) -> TaskFacts:
    with isolated(0, torch.get_num_threads()):  # initialising the network draws random numbers
        network = models.make(task.model, data.input_shape, data.num_outputs, data.num_tokens)
        dtype = models.input_dtype(data.num_tokens)
        forward, backward = flops.count(network, data.input_shape, data.num_outputs, task.model.name, dtype)
        visits = flops.visits(network, data.input_shape, dtype)
        parts = anatomy(network, models.fresh_input(data.input_shape, 2, dtype=dtype))
        optimizers.make(task.recipe, network)  # a recipe that cannot be carried out is told here, not in a worker
        make_augment(task.recipe.augment, data.input_shape, generator(0))
    named = {name: visit for name, visit in visits.items() if name in parts.layers}
    counts = [int(c) for c in data.class_counts] if data.num_classes else []
    return TaskFacts(
        num_examples=len(data.train),
        num_outputs=data.num_outputs,
        num_parameters=models.num_parameters(network),
        forward_flops=forward,
        backward_flops=backward,
        reference_passes=task.recipe.epochs,
        num_features=math.prod(data.input_shape),
        num_classes=data.num_classes,
        smallest_class=min(counts, default=0),
        class_counts=tuple(counts),
        head_features=parts.head_features,
        layers=FrozenDict(parts.layers),
        num_embedding=data.num_embedding,
        exits=FrozenDict({name: min(visit.end, forward) for name, visit in named.items()}),
        blocks=tuple(name for name in blocks(network) if name in named),
        chain=chain(network, named, forward, backward),
        inner=inner(network, named),
        has_batch_norm=has_running_statistics(network),
        num_tokens=data.num_tokens,
        image_channels=_image_channels(data),
    )


def _image_channels(data: TaskData) -> int:
    """Channels of the examples where they are stored as images of bytes, else 0."""
    return data.input_shape[0] if len(data.input_shape) == 3 and data.train.inputs.dtype == torch.uint8 else 0


def run_key(task: Task, fingerprint: str, policy: Policy, seed: int) -> str:
    """Content hash that names the checkpoint of a run: of all that its result depends on but torch and the machine.

    The tolerance is no part of it, since it does not change a run. The source of the user's own modules is, so that a
    network that was edited starts over instead of loading weights of another one.

    Raises:
        ConfigError: a module of the user's cannot be imported.
    """
    own = own_components(task, policy)
    told = {name: getattr(task, name) for name in ("data", "split", "model", "recipe", "metric")}
    code = {name: plugins.source_digest(target) for name, target in own.items()}
    return config.digest({**told, "fingerprint": fingerprint, "policy": policy.identity, "seed": seed, "code": code})


def own_components(task: Task, policy: Policy) -> dict[str, str]:
    """`module:name` of the components of a run that are not ours, by their names."""
    optimizer = policy.recipe.get("optimizer", task.recipe.optimizer)
    named = {(registry.MODELS, task.model.name), (registry.OPTIMIZERS, optimizer)}
    for phase in policy.phases:
        named |= {(registry.SELECTORS, phase.selector), (registry.ORDERS, phase.order)}
        named.add((registry.TRANSITIONS, phase.transition))
    return {name: target for kind, name in named if (target := kind.code_of(name)) is not None}


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
    resolved = resolve(policy, recipe, facts)
    compute.check_selections(resolved)
    optimizers.check_batch_size(recipe, facts.num_examples)
    compute.check(resolved)
    return resolved
