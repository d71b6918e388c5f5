"""LiPT's soup: workers that train apart on disjoint shards, with masks of their own, and are averaged.

Gradient-based selection wants a network whose gradients have settled, and warming one up on all data is dear. Here W
workers start from the same weights theta0, those at the beginning of the phase, and each trains on a shard of the
phase's pool, without a word to the others. A mask leaves a worker a share of each weight matrix, zero elsewhere, so
that the workers differ. Then each weight becomes its average over the workers that kept it.

The policy pays for all workers: its allowance is their sum. Were each on a machine of its own, the phase would take as
long as one of them; `SoupPoint` tells both. Workers follow the recipe: its optimizer, each with a state of its own, the
run's learning rate, batches of `batch_size` examples of the worker's shard in shuffled rounds that follow one another
without a gap, augmentation from a stream of the worker's own. They follow no order, whatever that of the policy: an
order is made for one network.

Masks. `erk` draws entries evenly, as many in each layer as `masks.erk_counts` says, anew for each worker. `data` takes
the same numbers, and in each layer the entries with the largest |weight * gradient| on the first examples of the
worker's shard, at theta0, in training mode and without augmentation. The sources say "data-driven sparsity" and no
more; ours is SNIP's criterion (Lee, Ajanthan & Torr 2019, arXiv:1810.02340) layer by layer, so that both masks differ
in nothing but which entries they keep. The forward and backward pass that it needs is charged to each worker.

Averaging. Entries that nobody kept become what they were at theta0 (`uncovered: init`), or 0. Ten masks of density 0.05
leave 60 % so, all at random; they leave fewer where layers are small and kept whole. Whole-number buffers stay those of
theta0, other buffers are averaged. The running statistics of batch norm, which averaged weights do not have, are made
anew at the end, on examples of the pool, by a cumulative average, and charged; points of the learning curve within the
phase are measured with the averaged ones. The state of the run's optimizer is cleared, for it belongs to theta0.

Source: Ro, Wang, Chidambaram & Akella 2023 (LiPT, ICML); averaging as in Wortsman et al. 2022, arXiv:2203.05482.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subsettune import models
from subsettune.data.augment import make_augment
from subsettune.data.rand_augment import rand_augment
from subsettune.facts import TaskFacts
from subsettune.policy import Soup
from subsettune.train.learner import Learner
from subsettune.train.orders.base import batch_length
from subsettune.train.randomness import generator
from subsettune.train.result import SoupPoint
from subsettune.train.soup import costs, executors, statistics
from subsettune.train.soup import masks as masking
from subsettune.train.soup.executors import Examples, ExecutionMode, WorkerExecutor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoupPhase:
    """A soup in its place in a run.

    Args:
        soup: its settings.
        seed: of the run.
        phase: index of the phase.
        facts: of the network in the phase.
        pool: (k,) int64 positions of the phase; None for all.
        weights: (N,) factors of the losses by the subset, on the learner's device; None for equal ones.
        mode: how the workers are carried out; a run that goes on keeps the one that it began with.
        clock: seconds.
        apart: carries the workers out in other processes, given the masks; None for this one.
    """

    soup: Soup
    seed: int
    phase: int
    facts: TaskFacts
    pool: Tensor | None
    weights: Tensor | None
    mode: ExecutionMode
    clock: Callable[[], float]
    apart: Callable[[SoupPhase, Learner, dict[str, Tensor]], WorkerExecutor] | None = None

    @property
    def positions(self) -> Tensor:
        """(k,) int64 positions of the phase."""
        return torch.arange(self.facts.num_examples) if self.pool is None else self.pool

    def rng(self, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator for one purpose of the phase."""
        return generator(self.seed, "soup", self.phase, *purpose, device=device)


class Workers:
    """The workers of a soup phase.

    Args:
        place: the soup, its pool, and where in the run it is.
        learner: of the run; its network is what the workers start from and are averaged into.
        own: numbers of the workers that this process carries out; None for all.
    """

    def __init__(self, place: SoupPhase, learner: Learner, own: Sequence[int] | None = None) -> None:
        self.place, self.soup, self.learner, self.mode = place, place.soup, learner, place.mode
        count, pool = self.soup.workers, place.positions
        size = costs.shard_size(self.soup, len(pool))
        shuffled = pool[torch.randperm(len(pool), generator=place.rng("shards"))]
        self.shards = shuffled[: count * size].reshape(count, size)
        self._own = tuple(range(count)) if own is None else tuple(own)
        self._length = batch_length(size, learner.recipe.batch_size)
        device, shape = learner.device, learner.data.input_shape
        self._augment_rngs = [place.rng("augment", w, device=device) for w in self._own]
        self._augments = [make_augment(learner.recipe.augment, shape, rng) for rng in self._augment_rngs]
        self._rand_rngs = [place.rng("rand_augment", w) for w in self._own]
        self._shuffled: Tensor | None = None  # the shards in the order of the round that is on
        self._batches = self.shards[:0]  # (own, b) positions of the step that is on
        self._round, self._position, self._examples = 0, 0, 0
        self._seconds, self._total_s = [0.0] * len(self._own), 0.0
        self._executor: WorkerExecutor | None = None
        self._start: dict[str, Tensor] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the workers have networks."""
        return self._executor is not None

    @property
    def executor(self) -> WorkerExecutor:
        """That of the workers' networks, once they have begun."""
        assert self._executor is not None, "begin comes first"
        return self._executor

    def begin(self, masks: dict[str, Tensor] | None = None) -> None:
        """Copy the learner's network to the workers and draw their masks, if they are not given."""
        start = self.place.clock()
        self._start = {name: values.detach().clone() for name, values in _tensors(self.learner.network).items()}
        if masks is None:
            masks = {} if self.soup.density == 1 else self._masks()
        self._executor = self._gather(masks)
        self._total_s += self.place.clock() - start

    def close(self) -> None:
        """Let go of what the workers hold elsewhere."""
        if self._executor is not None:
            self._executor.close()

    def _gather(self, masks: dict[str, Tensor]) -> WorkerExecutor:
        if self.place.apart is not None:
            return self.place.apart(self.place, self.learner, masks)
        networks = [models.in_training(models.copy_of(self.learner.network)) for _ in self._own]
        if self.mode == "together":
            return executors.Vectorized(self.learner, networks, masks)
        return executors.Sequential(self.learner, networks, masks, self.place.clock)

    def next_length(self) -> int:
        """Examples, over all workers, that the next step takes."""
        return self.soup.workers * self._length

    def update(self, lr: float) -> None:
        """One update of every worker, each on the next batch of its shard; counts the mean loss into the learner's."""
        start = self.place.clock()
        self.learner.note(self.step(lr).mean())
        self._total_s += self.place.clock() - start

    def step(self, lr: float) -> Tensor:
        """One update of the workers of this process; their mean losses (own,), detached."""
        self._batches = self._next_batches()
        seconds = self._seconds if self.mode == "in_turn" else None
        losses = self.executor.step(self._read, lr, seconds)
        self._examples += self._length
        return losses

    def take_seconds(self) -> list[float]:
        """(own,) seconds that each worker took since the last call."""
        taken, self._seconds = self._seconds, [0.0] * len(self._own)
        return taken

    def _next_batches(self) -> Tensor:
        """(own, b) positions of the next batches; what a round leaves over begins one that the next completes."""
        parts, missing = [], self._length
        while missing:
            if self._shuffled is None:
                self._shuffled = torch.stack([self._in_order(worker) for worker in self._own])
            parts.append(self._shuffled[:, self._position : self._position + missing])
            taken = parts[-1].shape[1]
            self._position, missing = self._position + taken, missing - taken
            if self._position == self._shuffled.shape[1]:
                self._round, self._position, self._shuffled = self._round + 1, 0, None
        return torch.cat(parts, dim=1)

    def _in_order(self, worker: int) -> Tensor:
        """The shard of a worker in the order of the round that is on."""
        shard = self.shards[worker]
        rng = self.place.rng("order", worker, self._round)
        return shard[torch.randperm(len(shard), generator=rng)]

    def _read(self, worker: int) -> Examples:
        """The next examples of a worker, by its place among those of this process, augmented."""
        index, part = self._batches[worker].to(self.learner.device), self.learner.part
        inputs, targets = part.stored(index)
        if self.soup.rand_augment:
            inputs = rand_augment(inputs, self.soup.rand_augment, self._rand_rngs[worker])
        inputs, augment = part.encoder(inputs), self._augments[worker]
        return (inputs if augment is None else augment(inputs)), targets, self._factors(index)

    def _factors(self, index: Tensor) -> Tensor | None:
        return None if self.place.weights is None else self.place.weights[index]

    def _masks(self) -> dict[str, Tensor]:
        """(W, ...) bool by name of a weight: what each worker keeps."""
        weights = masking.maskable(self.learner.network)
        counts = masking.erk_counts({name: tuple(p.shape) for name, p in weights.items()}, self.soup.density)
        drawn: dict[str, list[Tensor]] = {name: [] for name in weights}
        for worker in range(self.soup.workers):
            rng = self.place.rng("mask", worker)
            scores = self._scores(worker) if self.soup.masks == "data" else {}
            for name, weight in weights.items():
                mask = (
                    masking.largest_mask(scores[name], counts[name], rng)
                    if scores
                    else masking.random_mask(tuple(weight.shape), counts[name], rng)
                )
                drawn[name].append(mask)
        return {name: torch.stack(masks).to(self.learner.device) for name, masks in drawn.items()}

    def _scores(self, worker: int) -> dict[str, Tensor]:
        """|weight * gradient| of every maskable weight on the first examples of a worker's shard."""
        index = self.shards[worker, : costs.MASK_EXAMPLES].to(self.learner.device)
        inputs, targets = self.learner.part.batch(index)
        network = models.in_training(models.copy_of(self.learner.network))  # running statistics of the run's own stay
        losses = self.learner.example_losses(self.learner.outputs(inputs, network), targets)
        factors = self._factors(index)
        loss = losses.mean() if factors is None else (losses * factors).mean()
        weights = masking.maskable(network)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        pairs = zip(weights.items(), gradients, strict=True)
        return {name: torch.zeros_like(w) if g is None else (w * g).detach().abs() for (name, w), g in pairs}

    @torch.no_grad()
    def write_average(self) -> None:
        """Write the average of the workers, as they are now, into the learner's network."""
        assert self._executor is not None, "begin comes first"
        network = self.learner.network
        merged, values = _tensors(network), self._executor.tensors()
        for name, start in self._start.items():
            if not (start.is_floating_point() or start.is_complex()):
                continue
            masks = self._executor.masks.get(name)
            uncovered = start if self.soup.uncovered == "init" else torch.zeros_like(start)
            merged[name].copy_(masking.average(values[name], masks, uncovered))

    def merge(self) -> SoupPoint:
        """End the phase: write the average, make running statistics anew, clear the optimizer's state."""
        assert self._executor is not None, "check lets no soup through that cannot make a step"
        place, start = self.place, self.place.clock()
        self.write_average()
        if place.facts.has_batch_norm:
            rngs = place.rng("statistics"), place.rng("statistics", "augment", device=self.learner.device)
            statistics.make_anew(self.learner, place.positions, *rngs)
        self.learner.optimizer.state = defaultdict(dict)
        self._total_s += place.clock() - start
        return self._point(self._executor)

    def _point(self, executor: WorkerExecutor) -> SoupPoint:
        k, facts = len(self.place.positions), self.place.facts
        trained = self._examples * facts.example_flops
        beside = costs.flops(self.soup, k, facts)
        alone = costs.mask_flops(self.soup, k, facts) + costs.statistics_flops(k, facts)
        return SoupPoint(
            phase=self.place.phase,
            workers=self.soup.workers,
            coverage=masking.coverage(executor.masks),
            flops=self.soup.workers * trained + beside,
            longest_flops=trained + alone,
            seconds=self._total_s,
            longest_s=max(self._seconds) if self.mode == "in_turn" else None,
        )

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits."""
        crew = None if self._executor is None else self._executor.state()
        elsewhere = None if crew is None else crew.pop("streams", None)  # which then have gone on, and not those here
        return {
            "way": self.mode,
            "place": (self._round, self._position, self._examples),
            "seconds": (self._seconds, self._total_s),
            "augment": self.streams() if elsewhere is None else elsewhere,
            "start": self._start,
            "masks": {} if self._executor is None else dict(self._executor.masks),
            "crew": crew,
        }

    def streams(self) -> list[Tensor]:
        """States of the random streams of the workers of this process: of augmentation, then of RandAugment."""
        return [rng.get_state() for rng in (*self._augment_rngs, *self._rand_rngs)]

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.mode = state["way"]
        self._seconds, self._total_s = state["seconds"]
        device = self.learner.device
        self._start = {name: values.to(device) for name, values in state["start"].items()}
        if state["crew"] is not None:
            self._executor = self._gather({name: mask.to(device) for name, mask in state["masks"].items()})
        self.go_on(state["crew"], state["augment"], state["place"])

    def go_on(self, crew: Mapping[str, Any] | None, streams: Sequence[Tensor], place: tuple[int, int, int]) -> None:
        """Go on from the state of the networks, if there are any, of the random streams, and of the batches."""
        self._round, self._position, self._examples = place
        for rng, its_own in zip((*self._augment_rngs, *self._rand_rngs), streams, strict=True):
            rng.set_state(its_own)
        if crew is not None:
            self.executor.load({**crew, "streams": streams, "place": place})


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a network, those themselves, each once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
