"""The batches of a whole policy for training code of others: what a bundle gives a DataLoader, or a loop of one's own.

sampler = bundle.batch_sampler(dataset, seed=0)
sampler.on_switch(network=network, optimizer=optimizer)
scheduler = sampler.scheduler(optimizer)
for inputs, targets in DataLoader(dataset, batch_sampler=sampler):  # one epoch: the whole policy
    ...
    optimizer.step()
    scheduler.step()
sampler.finish()

Several processes, and gradients that are accumulated, take slices of one batch each. A slice's mean loss counts by its
length: of a batch of n over s slices, one of m examples has the factor s m / n, so that the mean over slices is the
mean of the batch. A slice without examples takes the batch's first one with weight 0, since every process must make the
same steps. What it computes is no part of the ledger, which counts the policy.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subsettune import config
from subsettune.config import must
from subsettune.errors import BundleError, ConfigError, TrainingFunctionError
from subsettune.ledger import Ledger
from subsettune.train.account import LedgerBuilder
from subsettune.train.follow.batches import AHEAD, Batches, Pool, array_of
from subsettune.train.follow.follower import Follower, Scheduler
from subsettune.train.follow.position import Position
from subsettune.train.follow.switches import Switches
from subsettune.train.follow.weighted import Weighted, WeightedRow
from subsettune.train.planning.phases import ResolvedPolicy

STATE_SCHEMA = 1
LR_CLOSE = 1e-6  # relative: rates may be kept as float32
MOST_MISSED = 0.05  # of the updates: a loss scaler leaves out a few at its start


def whole(value: Any) -> int | None:
    """A whole number of whatever kind; None where it is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a sampler's batches belong to, and how host code is held against it.

    Args:
        identity: of data and subsets: a state of another one is refused.
        lr: peak of the learning rate, as the policy has it; None where a host may choose another.
        check: holds data, and labels beside them, against those that the rows are of; gives what was compared.
        compared: what was, when the sampler was made: `length`, `labels`, `fingerprint`.
    """

    identity: str = ""
    lr: float | None = None
    check: Callable[[Any, Any], tuple[str, ...]] | None = None
    compared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Which part of each batch a process takes.

    Args:
        rank: of the process.
        world_size: processes that train one network together and average their gradients.
        accumulate: backward passes of each process for one update.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("world_size", "accumulate"):
            value = whole(getattr(self, name))
            if value is None or value < 1:
                raise ConfigError(must(name, "1 or more", getattr(self, name)))
            object.__setattr__(self, name, value)
        rank = whole(self.rank)
        if rank is None or not 0 <= rank < self.world_size:
            raise ConfigError(must("rank", f"between 0 and {self.world_size - 1}, below world_size", self.rank))
        object.__setattr__(self, "rank", rank)

    @property
    def number(self) -> int:
        """Of slices of a batch, over all processes."""
        return self.world_size * self.accumulate

    def of(
        self, rows: NDArray[np.int64], weights: NDArray[np.float32] | None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32] | None]]:
        """The slices of this process, one for each backward pass.

        Args:
            rows: (n,) of the batch.
            weights: (n,) factors of their losses; None where all are 1.
        """
        if self.number == 1:
            return [(rows, weights)]
        first = self.rank * self.accumulate
        places = np.array_split(np.arange(len(rows)), self.number)[first : first + self.accumulate]
        return [self._slice(place, rows, weights) for place in places]

    def _slice(
        self, place: NDArray[np.int64], rows: NDArray[np.int64], weights: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        if not len(place):
            return rows[:1], np.zeros(1, np.float32)
        factor = self.number * len(place) / len(rows)
        if weights is None:
            return rows[place], None if factor == 1 else np.full(len(place), factor, np.float32)
        return rows[place], (weights[place] * np.float32(factor)).astype(np.float32)


class PolicySampler(Follower):
    """The batches of a policy, an iterable of lists of rows: `DataLoader(dataset, batch_sampler=sampler)`.

    Each batch is charged before anybody sees it. Made by `Bundle.batch_sampler`, which holds the data against the
    bundle.

    Args:
        resolved: the policy, checked.
        rows: (N,) int64 row in the data of each example to train on.
        pool_of: gives the examples of a phase, by its index.
        seed: of the order of examples, and of what a transition draws.
        slices: which part of each batch this process takes.
        epochs: that the policy is handed out in, as equal as can be, earlier ones longer: for hosts that look at their
            data between epochs. Rates and phases are not touched by it.
        origin: what the rows are of.

    Attributes:
        seed, slices, epochs: as given.
        compared: what of the data was held against the bundle: `length`, `labels`, `fingerprint`.
    """

    _said = "sampler"

    # More than six parameters: the policy and its examples, and what a host says about itself.
    def __init__(
        self,
        resolved: ResolvedPolicy,
        rows: Tensor,
        pool_of: Callable[[int], Pool],
        *,
        seed: int,
        slices: Slices | None = None,
        epochs: int = 1,
        origin: Origin | None = None,
    ) -> None:
        number = whole(seed)
        if number is None or number < 0:
            raise ConfigError(must("seed", "a whole number, 0 or more", seed))
        self.seed, self.slices, self._origin = number, slices or Slices(), origin or Origin()
        self.compared = self._origin.compared
        self._resolved, self._rows, self._pool_of = resolved, rows.numpy().astype(np.int64), pool_of
        batches = self._new_batches()
        total = len(batches)
        wanted = whole(epochs)
        if wanted is None or not 1 <= wanted <= total:
            raise ConfigError(must("epochs", f"between 1 and the {total:,} steps of the policy", epochs))
        if not batches.is_blind and self.slices.number > 1:
            name = resolved.policy.phases[0].order
            raise ConfigError(
                f"world_size and accumulate must be 1 with the order {name!r}, got {self.slices.world_size} and "
                f"{self.slices.accumulate}. It goes by the losses of whole batches: train in one process."
            )
        self.epochs = wanted
        begun = {step: phase for phase, step in batches.plan.begins}
        opens = {step: phase for step, phase in begun.items() if step}
        self._charged = {phase.index: phase.flops for phase in resolved.phases}
        shorter, longer = divmod(total, wanted)
        self._ends = [int(end) for end in np.cumsum([shorter + (epoch < longer) for epoch in range(wanted)])]
        self._set(
            _batches=batches,
            _position=Position(0, total, self._said),
            _switches=Switches(resolved.phases, opens, number, said=self._said),
            _schedulers=[],
            _weights_read=False,
            _weighed={},
            _epoch=None,
            _iterations=0,
            _is_by_hand=False,
        )

    _weighed: dict[int, NDArray[np.float32] | None]  # weights of this process's slice, by step
    _epoch: tuple[int, int] | None  # steps of the epoch that is gone through
    _iterations: int  # that were begun
    _is_by_hand: bool  # whether transitions are asked for, step by step

    def __repr__(self) -> str:
        part = "" if self.slices.number == 1 else f", rank {self.slices.rank} of {self.slices.world_size}"
        return (
            f"<subsettune.PolicySampler seed {self.seed}, step {self._position.handed} of {self.total_steps()}{part}>"
        )

    # --- batches -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of the epoch that is gone through or comes next, backward passes counted one by one."""
        begin, end = self._epoch if self._epoch is not None and self._is_in_epoch else self._coming()
        return (end - begin) * self.slices.accumulate

    @property
    def epoch_length(self) -> int:
        """As `len`, with the batches of that epoch that came before an interruption: for hosts that count them."""
        end = self._epoch[1] if self._epoch is not None and self._is_in_epoch else self._coming()[1]
        number = self._ends.index(end)
        return (end - (self._ends[number - 1] if number else 0)) * self.slices.accumulate

    @property
    def _batches_per_step(self) -> int:
        return self.slices.accumulate

    @property
    def _is_in_epoch(self) -> bool:
        return self._epoch is not None and self._position.handed < self._epoch[1]

    def _coming(self) -> tuple[int, int]:
        """Steps of the next epoch; those of the last one where all are over, since hosts still ask."""
        handed = self._position.handed
        if self._epoch is not None and handed == self._ends[-1]:
            return self._epoch
        return handed, next((end for end in self._ends if end > handed), handed)

    def __iter__(self) -> Iterator[list[int]]:
        position = self._position
        is_under_way = self._epoch is not None and self._epoch[0] < position.handed < self._epoch[1]
        is_over = position.start < position.total <= position.handed  # and was not when this process began
        if is_under_way or is_over:  # loaders with workers begin twice, and take nothing the first time
            raise TrainingFunctionError(
                f"the batches of a policy can be gone through once, and {position.handed:,} of {position.total:,} have "
                "been handed out. Let the host train one epoch, or ask for as many as it trains: epochs=...; to train "
                "anew, make a new sampler."
            )
        epoch = self._coming()
        self._set(_epoch=epoch, _iterations=self._iterations + 1)  # loaders with workers begin twice at once
        return self._epoch_batches(epoch[1], self._iterations)

    def _epoch_batches(self, end: int, iteration: int) -> Iterator[list[int]]:
        while self._position.handed < end:
            if iteration != self._iterations:
                raise TrainingFunctionError("the batches of a policy can be gone through once, not side by side.")
            step = self._position.handed
            index = self._hand_out()
            assert index is not None, "as many as planned"
            rows = self._rows[np.asarray(index, np.int64)]
            parts = self.slices.of(rows, self._batches.weights[step])
            self._weighed[step] = parts[0][1]
            self._weighed.pop(step - AHEAD, None)
            self._batches.has_weights |= any(weights is not None for _, weights in parts)
            for own, weights in parts:
                yield _listed(own, weights)

    def _sampled(self) -> Iterable[list[int]]:
        return self

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32] | None]]:
        """The batches for a loop of one's own: rows of the data (b,), and factors (b,) of their losses or None.

        With `accumulate` one for each backward pass.
        """
        self._set(_weights_read=True)
        for rows in self.steps(self):
            weights = np.array([row.weight for row in rows if isinstance(row, WeightedRow)], np.float32)
            yield np.asarray(rows, np.int64), weights if len(weights) else None

    def _next(self) -> list[int] | None:
        batch = self._batches.next()
        return None if batch is None else batch.positions.tolist()

    def _weights_of(self, step: int) -> NDArray[np.float32] | None:
        if self.slices.accumulate > 1:
            raise TrainingFunctionError(
                "sampler.weights are those of one batch, and each step has several with accumulate. Take them with the "
                "examples: sampler.weighted(dataset)."
            )
        super()._weights_of(step)  # refuses what was not handed out
        return self._weighed[step]

    def observe(self, index: Any, losses: Any) -> None:
        """Tell the losses of a batch, for an order that goes by them (`infobatch`); does nothing with others.

        Args:
            index: (b,) rows, as they were handed out.
            losses: (b,) losses before any weights, of the update that was just made.
        """
        if self._batches.unseen is None:
            return super().observe(index, losses)
        rows, expected = array_of(index).reshape(-1), self._rows[self._batches.unseen.numpy()]
        positions = self._batches.unseen if np.array_equal(rows, expected) else rows
        return super().observe(positions, losses)

    def weighted(self, dataset: Any) -> Weighted:
        """A dataset whose examples bring the factor of their loss along, whatever fetches them ahead.

        Args:
            dataset: map-style; its tuples get one more element, its mappings a key `weight`.
        """
        self._set(_weights_read=True)
        return Weighted(dataset)

    @property
    def needs_weights(self) -> bool:
        """Whether it is known beforehand that a batch weighs its examples: by a subset, an order, or uneven slices."""
        plan, phases = self._batches.plan, self._resolved.phases
        begun = [phases[index] for index, _ in plan.begins]
        return (
            any(phase.order.observes for phase in begun)
            or any(length % self.slices.number for length in plan.lengths)
            or any(self._pool_of(p.index).weights is not None for p in begun if p.selection is not None)
        )

    # --- where it is ---------------------------------------------------------------------------------------------

    def phase_at(self, step: int) -> int:
        """Index of the policy's phase that a step belongs to, from 0."""
        return self._batches.plan.phases[self._step(step)]

    def lr_factor_at(self, step: int) -> float:
        """Factor of the learning rate at a step, by the recipe's schedule over the whole policy."""
        self._set(_rates_read=True)
        return self._batches.plan.factors[self._step(step)]

    def _step(self, step: int) -> int:
        found = whole(step)
        if found is None or not 0 <= found < self.total_steps():
            raise ConfigError(must("step", f"between 0 and {self.total_steps() - 1:,}", step))
        return found

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """A scheduler that gives the optimizer's rates the factor of each step; call its `step()` after each update.

        Args:
            optimizer: with the peak of the policy's rate, `bundle.recipe.lr`, in one of its groups at least.

        Raises:
            ConfigError: it has another rate.
        """
        found = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        lr = self._origin.lr
        if lr is not None and not any(math.isclose(each, lr, rel_tol=LR_CLOSE) for each in found):
            advice = (
                "Make the optimizer with lr=bundle.recipe.lr; the scheduler multiplies it by the factor of each step."
            )
            raise ConfigError(must("lr", f"{lr:g}, the peak of the policy's rate", found[0], advice))
        return super().scheduler(optimizer)

    def _hold_rates(self, scheduler: Scheduler) -> None:
        now = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
        if not all(math.isclose(*pair, rel_tol=LR_CLOSE) for pair in zip(now, scheduler.settled, strict=True)):
            raise TrainingFunctionError(
                f"rates must be those of sampler.scheduler, {scheduler.settled[0]:g} in step "
                f"{scheduler.last_epoch + 1}, got {now[0]:g}: something else sets them, too. Leave other "
                "schedulers out."
            )

    def check(self, data: Any, labels: Any = None) -> tuple[str, ...]:
        """Hold the data that a host trains on against those that the rows are of.

        Args:
            data: as of `Bundle.batch_sampler`.
            labels: beside them.

        Returns:
            What was compared: `length`, `labels`.

        Raises:
            BundleError: they are others.
        """
        return () if self._origin.check is None else self._origin.check(data, labels)

    def apply_transition(self, network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Carry out what the policy does right before an update: for loops that count their steps themselves.

        Call it before each update, the first one included: a transition may go by the weights at initialisation.
        `on_switch` does the same by itself.

        Args:
            network: that is trained.
            optimizer: of the network.
            step: of the update, from 0; what was to be done at earlier ones is done now.

        Returns:
            Whether anything was done.
        """
        self._set(_is_by_hand=True)
        return self._switches.carry_out(self._step(step), network, optimizer)

    def _hand_out(self) -> list[int] | None:
        if not self._is_by_hand:
            return super()._hand_out()
        if self._position.handed == self._position.start:
            self._begin()
        batch = self._next()
        self._position.handed += batch is not None
        return batch

    def _reach(self, step: int) -> None:
        if not self._is_by_hand:
            super()._reach(step)

    @property
    def start(self) -> int:
        """Updates made before, by training that was interrupted: see `load_state_dict`."""
        return self._position.start

    @property
    def is_complete(self) -> bool:
        """Whether all batches were handed out."""
        return self._position.handed == self.total_steps()

    def ledger(self) -> Ledger:
        """FLOPs of the batches that were handed out, over all processes, and of choosing the subsets, done before."""
        return self._ledger_of(self._position.handed)

    @property
    def promise(self) -> Ledger:
        """FLOPs of the whole policy: what `ledger` comes to in the end."""
        return self._ledger_of(self.total_steps())

    def _ledger_of(self, steps: int) -> Ledger:
        plan = self._batches.plan
        account = LedgerBuilder(selected=sum(self._charged[phase] for phase, at in plan.begins if at < steps))
        for price in plan.prices[:steps]:
            account.pay(price)
        return account.ledger()

    def finish(self) -> Ledger:
        """Say that training is over; call it last.

        Returns:
            What was spent: the promise, FLOP by FLOP.

        Raises:
            TrainingFunctionError: the host left batches out, repeated some, or neglected weights or a transition.
        """
        self._position.refuse_unfinished()
        self._refuse_neglect()
        is_trained = self._position.start < self.total_steps()
        if is_trained and not self._rates_read and len(set(self._batches.plan.factors)) > 1:
            raise TrainingFunctionError(
                "the policy changes the learning rate, and nobody read sampler.lr_factor. Step "
                "sampler.scheduler(optimizer) after each update, or multiply the rate by sampler.lr_factor in each "
                "step."
            )
        self._refuse_missed()
        return self.ledger()

    def _refuse_missed(self) -> None:
        """Tell of updates that were counted and not made, as a loss scaler leaves them out."""
        missed, steps = max(self._position.missed, default=0), self.total_steps() - self._position.start
        if missed > MOST_MISSED * steps:
            raise TrainingFunctionError(
                f"the optimizer must make each of the {steps:,} updates, and {missed:,} were counted without it. Step "
                "it before the scheduler, once for each batch."
            )
        if missed:
            told = f"{missed:,} of {steps:,} updates were not made, as a loss scaler leaves them out."
            warnings.warn(f"{told} The policy has them all: bfloat16 needs no scaler.", stacklevel=3)

    # --- interruptions -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that another sampler of the same policy and seed needs to go on behind the last update, as plain values.

        Raises:
            TrainingFunctionError: nobody knows which update that is, or batches were fetched ahead that go by losses.
        """
        step = self._position.done("state_dict")
        state = {**self._identity(), "step": step, "switches": self._switches.state(), "order": None}
        if not self._batches.is_blind:
            self._batches.refuse_unobserved()
            state["order"] = self._batches.state()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; before the first batch, whatever the number of processes was.

        Raises:
            BundleError: it is of another policy, seed or data.
            TrainingFunctionError: batches were handed out already.
        """
        own = self._identity()
        other = [name for name in own if state.get(name) != own[name]]
        if other:
            found = ", ".join(f"{name} {state.get(name)!r} instead of {own[name]!r}" for name in other)
            raise BundleError(f"the state of a sampler must be of this policy, seed and data, got {found}.")
        position, step = self._position, self._step_of(state)
        if position.handed > position.start:
            raise TrainingFunctionError(
                f"sampler.load_state_dict must come before the first batch, and {position.handed:,} were handed out. "
                "Make a new sampler."
            )
        self._set(_batches=self._new_batches(), _epoch=None)
        if state["order"] is None:
            self._batches.skip(step)
        else:
            self._batches.load(state["order"])
        self._switches.load(state["switches"], step)
        position.go_to(step)
        for scheduler in self._schedulers:
            scheduler.go_to(step)

    def _step_of(self, state: Mapping[str, Any]) -> int:
        """The step of a state that can be one of this sampler."""
        step, switches = whole(state.get("step")), state.get("switches")
        is_whole = isinstance(switches, Mapping) and {"told", "scales"} <= set(switches)
        if step is None or not 0 <= step <= self.total_steps() or not is_whole:
            raise BundleError(
                f"the state of a sampler is damaged: it must have switches, and a step between 0 and "
                f"{self.total_steps():,}, got {state.get('step')!r}. Load another checkpoint."
            )
        return step

    def _new_batches(self) -> Batches:
        return Batches(self._resolved, len(self._rows), self.seed, self._pool_of, said=self._said)

    def _identity(self) -> dict[str, Any]:
        return {
            "schema": STATE_SCHEMA,
            "policy": config.digest([self._resolved.policy, self._resolved.recipe])[:16],
            "seed": self.seed,
            "examples": len(self._rows),
            "data": self._origin.identity,
        }

    def _scheduler_state(self) -> dict[str, Any]:
        return {"switches": self._switches.state()}

    def _load_scheduler(self, number: int, state: dict[str, Any]) -> int | None:
        """A host goes on by its scheduler: either the sampler does, too, or the host leaves the first batches out."""
        step, start = self._step_of(state), self._position.start
        if start not in (0, step):
            raise BundleError(
                f"the state of a scheduler must be at step {start:,} as the sampler is, got {step:,}. Load both of one "
                "checkpoint."
            )
        self._switches.load(state["switches"], step)
        if step == self.total_steps():  # nothing is left, and hosts then ask for no batch at all
            self._position.go_to(step)
        self._position.go_on_by(number, step)
        return step


def _listed(rows: NDArray[np.int64], weights: NDArray[np.float32] | None) -> list[int]:
    """Rows as loaders take them, each with its weight where they have any."""
    if weights is None:
        return [int(row) for row in rows]
    return [WeightedRow(row, weight) for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)]
