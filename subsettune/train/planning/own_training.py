"""What is known beforehand of a training function of the user's own, and which policies it can follow.

It has its own data, network and loop, so only what follows from the policy, the seed and the step can be handed to it:
batches, weights, rates and the moment of the switch. Whatever looks at its network is refused.
"""

from __future__ import annotations

import math
from typing import Any

from subsettune import select
from subsettune.data import TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.select import Selector
from subsettune.task import Task
from subsettune.train import orders, transitions
from subsettune.train.orders.base import is_blind
from subsettune.train.planning.phases import in_phase

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


def check(task: Task, policy: Policy, facts: TaskFacts) -> None:
    """Refuse what only a run of our own loop can do.

    Raises:
        ConfigError: with the phase, and what would do; or an unknown or impossible component.
    """
    for index, phase in enumerate(policy.phases):
        used: dict[str, tuple[str, Any]] = {
            "order": (phase.order, orders.of(phase)),
            "transition": (phase.transition, transitions.of(phase)),
        }
        if phase.active_soup is not None:
            used["soup"] = ("soup", phase.active_soup)
        if not phase.is_full:
            used["selector"] = (phase.selector, select.make(phase.selector, phase.selector_options))
        for kind, (name, made) in used.items():
            problem = obstacle(task, facts, kind, name, made)
            if problem is not None:
                raise ConfigError(in_phase(policy, index, problem))


def obstacle(task: Task, facts: TaskFacts, kind: str, name: str, made: Any) -> str | None:
    """Why a training function cannot follow a component, in one sentence with what would do; None if it can.

    Args:
        task: with a training function.
        facts: of it.
        kind: selector, order, transition or soup.
        name: of the component.
        made: the component with its options.
    """
    if kind == "soup":
        return "soup must be 0 with task.train: it averages networks that our own loop trains. Leave it out."
    if kind == "order" and not is_blind(made) and not made.observes:
        return (
            f"order must be uniform, rs2 or infobatch with task.train, got {name!r}, which looks at the network "
            "before it trains. Take infobatch: it gets losses by run.observe."
        )
    if kind == "transition" and (made.reshapes or made.flops(facts, 1)):
        return (
            f"transition must be keep, reset_optimizer or shrink_perturb with task.train, got {name!r}, which looks "
            "at the network. Take one of these."
        )
    return _of_selector(task, facts, name, made) if kind == "selector" else None


def _of_selector(task: Task, facts: TaskFacts, name: str, selector: Selector) -> str | None:
    if selector.model_need is not None:
        return (
            f"selector {name!r} looks at a network, and that of task.train is its own. Take random or stratified, or "
            "kcenter, herding or facility_location with features: embeddings."
        )
    if selector.flops(facts, max(1, facts.num_examples // 2)) == 0:
        return None
    if not task.has_data:
        return (
            f"selector {name!r} looks at the examples, and task.train keeps them to itself. Give task.data beside it, "
            "or take random."
        )
    if task.flops_per_example is None:
        return (
            f"selector {name!r} costs FLOPs, and what an example costs is not known: the two cannot be added. Give "
            "task.flops_per_example, or take random or stratified."
        )
    return None
