"""What is known beforehand of a training function of the user's own, and which policies it can follow.

It has its own data, network and loop, so only what follows from the policy, the seed and the step can be handed to it:
batches, weights, rates and the moment of the switch. Whatever looks at its network is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from subsettune.data import TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.select.accounting import PhaseSelection
from subsettune.task import Task
from subsettune.train.orders.base import is_blind
from subsettune.train.planning.phases import ResolvedPhase, ResolvedPolicy, in_phase

IN_EXAMPLES = (
    "What an example costs the network of task.train is not known: compute is counted in examples. With "
    "task.flops_per_example it is counted in FLOPs."
)


def facts(task: Task, data: TaskData) -> TaskFacts:
    """What a study needs to know of such a task.

    Args:
        task: with a training function.
        data: its numbered examples, with what stands beside them.
    """
    cost, has_data = task.flops_per_example, task.has_data
    counts = [int(count) for count in data.class_counts] if data.num_classes else []
    return TaskFacts(
        num_examples=len(data.train),
        num_outputs=task.outputs or (data.num_outputs if has_data else 0),
        num_parameters=task.parameters or 0,
        forward_flops=1 if cost is None else cost.forward,
        backward_flops=0 if cost is None else cost.backward,
        reference_passes=task.recipe.epochs,
        num_features=math.prod(data.input_shape),
        num_classes=data.num_classes,
        smallest_class=min(counts, default=0),
        class_counts=tuple(counts),
        num_embedding=data.num_embedding,
        notes=(IN_EXAMPLES,) if cost is None else (),
        unit="example" if cost is None else "FLOP",
    )


def check(task: Task, resolved: ResolvedPolicy) -> None:
    """Refuse what only a run of our own loop can do.

    Raises:
        ConfigError: with the phase, and what would do.
    """
    for phase in resolved.phases:
        for problem in _problems(task, phase):
            raise ConfigError(in_phase(resolved.policy, phase.index, problem))


def _problems(task: Task, phase: ResolvedPhase) -> Iterator[str]:
    """Why a training function cannot carry out a phase, each with what would do."""
    named = phase.phase
    if phase.is_soup:
        yield "soup must be 0 with task.train: it averages networks that our own loop trains. Leave it out."
    if phase.facts != phase.facts_before or phase.transition_flops:
        yield (
            f"transition must be keep, reset_optimizer or shrink_perturb with task.train, got {named.transition!r}, "
            "which looks at the network. Take one of these."
        )
    if not is_blind(phase.order) and not phase.order.observes:
        yield (
            f"order must be uniform, rs2 or infobatch with task.train, got {named.order!r}, which looks at the network "
            "before it trains. Take infobatch: it gets losses by run.observe."
        )
    if phase.selection is not None:
        yield from _of_selection(task, phase.selection, named.selector)


def _of_selection(task: Task, selection: PhaseSelection, name: str) -> Iterator[str]:
    selector, facts = selection.selector, selection.facts
    is_free = selector.flops(facts, selection.size) == 0
    if selector.model_need is not None:
        yield (
            f"selector {name!r} looks at a network, and that of task.train is its own. Take random or stratified, or "
            "kcenter, herding or facility_location with features: embeddings."
        )
    elif not is_free and not task.has_data:
        yield (
            f"selector {name!r} looks at the examples, and task.train keeps them to itself. Give task.data beside it, "
            "or take random."
        )
    elif not is_free and task.flops_per_example is None:
        yield (
            f"selector {name!r} costs FLOPs, and what an example costs is not known: the two cannot be added. Give "
            "task.flops_per_example, or take random or stratified."
        )
