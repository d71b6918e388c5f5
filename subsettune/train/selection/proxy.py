"""Proxies: networks that are trained for a selector to look at, at their own expense.

A proxy starts from its own initialisation and trains on all training examples in the uniform order, by the policy's
recipe, whose schedule runs over the proxy's own allowance. It stops before the update that would exceed it, so it never
costs more than is charged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from subsettune.errors import ModelDivergedError
from subsettune.facts import TaskFacts
from subsettune.select import ModelNeed
from subsettune.select.network import ModelView
from subsettune.train import schedule
from subsettune.train.job import RunJob
from subsettune.train.learner import Learner
from subsettune.train.orders.base import last_of_each
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.randomness import derive, isolated

CHECK_EVERY = 25  # updates between looks at the running loss, which would force a device to synchronise


class Forgetting:
    """Counts how often examples are forgotten while a network is trained.

    An example is forgotten when it was predicted right the last time it was trained on, and is predicted wrong now. One
    that is in a batch twice, where that spans two rounds, was trained on once, and its last place in it counts.
    Source: Toneva et al. 2019, arXiv:1812.05159, algorithm 1.

    Args:
        num_examples: n, training examples.
        device: of the outputs.
    """

    def __init__(self, num_examples: int, device: torch.device) -> None:
        self._events = torch.zeros(num_examples, dtype=torch.int64, device=device)
        self._was_right = torch.zeros(num_examples, dtype=torch.bool, device=device)
        self._was_ever_right = self._was_right.clone()

    def watch(self, batch: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """See a batch: (b,) positions, outputs (b, M), and classes (b,)."""
        last = last_of_each(batch)
        index, last = batch[last].to(outputs.device), last.to(outputs.device)
        is_right = (outputs.argmax(dim=1) == targets)[last]
        self._events[index] += self._was_right[index] & ~is_right
        self._was_right[index] = is_right
        self._was_ever_right[index] |= is_right

    @property
    def counts(self) -> Tensor:
        """(n,) int64 events, and -1 for examples that were never right."""
        return torch.where(self._was_ever_right, self._events, -1)


def train_proxies(job: RunJob, need: ModelNeed) -> tuple[ModelView, ...]:
    """Train the networks that a selector asks for.

    The same seed gives the same bits on the CPU. The global random state and the number of threads come back as they
    were.

    Args:
        job: the run that they are trained for, by its recipe; each proxy has a seed of its own, which follows from
            that of the run and does not depend on how many there are.
        need: how many, how long, and whether they count what they forget (classification only).

    Raises:
        ModelDivergedError: a loss or weight left the finite numbers.
        ModelError: the network does not train on the batches of the recipe.
    """
    assert not need.events or job.facts.num_classes, "a regression is never just right"
    allowance = round(need.passes * job.facts.pass_flops)
    views = []
    for run in range(need.runs):
        own = derive(job.seed, "proxy", run)
        with isolated(own, torch.get_num_threads()):
            learner = Learner(job.task, job.recipe, job.data, job.device, own)
            forgetting = Forgetting(len(job.data.train), job.device) if need.events else None
            _train(learner, job.facts, allowance, own, forgetting)
            counts = None if forgetting is None else forgetting.counts
            views.append(ModelView.of(learner.network, job.data, job.device, counts))
    return tuple(views)


def _train(learner: Learner, facts: TaskFacts, allowance: int, seed: int, forgetting: Forgetting | None) -> None:
    """Update until the allowance in FLOPs is used up."""
    recipe, spent, updates = learner.recipe, 0, 0
    rates = schedule.make(recipe.schedule, recipe.schedule_options)
    batches = Shuffled(facts.num_examples, recipe.batch_size, seed)
    if min(recipe.batch_size, facts.num_examples) == 1:
        learner.check_batch(1)
    watch = None if forgetting is None else forgetting.watch
    while True:
        batch = batches.next(spent / allowance if allowance else 0.0).positions
        cost = len(batch) * facts.example_flops
        if spent + cost > allowance:
            break
        most = (allowance - spent) // cost
        spent += cost * learner.update(batch, recipe.lr * rates(spent / allowance), None, most=most, watch=watch)
        updates += 1
        if updates % CHECK_EVERY == 0 and not learner.is_finite():
            break
    if not (learner.is_finite() and learner.has_finite_weights()):
        raise ModelDivergedError(
            f"A proxy left the finite numbers after {updates} updates, at learning rate {recipe.lr:g}. "
            "Lower lr, or use a selector that needs no proxy."
        )
