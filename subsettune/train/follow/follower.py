"""What training code that is not ours follows a policy by: its batches, rates, phases and switches.

`Run`, which a training function gets for one run of a study, and `PolicySampler`, which a bundle gives, are made of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from subsettune.errors import TrainingFunctionError
from subsettune.train.follow.batches import Batches
from subsettune.train.follow.position import Position
from subsettune.train.follow.switches import Callback, Switches, bare

T = TypeVar("T")


class Follower(ABC):
    """Hands out the batches of a policy and knows which of them is trained, whatever fetches them ahead.

    Steps are updates of the optimizer: one for each batch of the policy. A batch is a list of numbers of examples.
    """

    _said: ClassVar[str]  # what people call it in their code
    _batches: Batches
    _position: Position
    _switches: Switches
    _schedulers: list[Scheduler]
    _weights_read: bool
    _rates_read = False

    def _set(self, **values: Any) -> None:
        self.__dict__.update(values)

    # --- batches -------------------------------------------------------------------------------------------------

    def total_steps(self) -> int:
        """Steps of the whole policy, those before an interruption included."""
        return len(self._batches)

    def batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32] | None]]:
        """The batches for a loop of one's own: numbers of examples (b,), and factors (b,) of their losses or None."""
        self._set(_weights_read=True)
        for index in self.steps(self._sampled()):
            yield np.asarray(index, np.int64), self._weights_of(self._position.now(f"{self._said}.batches"))

    def steps(self, loader: Iterable[T]) -> Iterator[T]:
        """Iterate a loader over the batches, and know which step is trained whatever the loader fetches ahead."""
        position, each = self._position, self._batches_per_step
        for number, batch in enumerate(loader, start=position.begin_loop() * each):
            self._reach(number // each)
            position.is_in_body = (number + 1) % each == 0  # its update is made at the last
            yield batch
            position.is_in_body = False
            position.count_loop((number + 1) // each)

    @property
    def _batches_per_step(self) -> int:
        """Batches of a loader for one update."""
        return 1

    @abstractmethod
    def _sampled(self) -> Iterable[list[int]]:
        """The batches, for a loop over them."""

    @abstractmethod
    def _next(self) -> list[int] | None:
        """The next batch of the policy, paid for; None at the end."""

    def _begin(self) -> None:
        """Right before the first batch is handed out."""
        for scheduler in self._schedulers:
            scheduler.settle()

    def _hand_out(self) -> list[int] | None:
        """The next batch, charged before anybody sees it; None at the end."""
        step, position = self._position.handed, self._position
        if step == position.start:
            self._begin()
            self._reach(step)  # an interrupted run may go on right at a switch
        elif position.counted is None and self._switches.is_due(step):
            if not position.is_known_before(step):
                raise TrainingFunctionError(
                    f"the policy switches before step {step + 1}, and nobody tells which step is trained. "
                    f"{position.how}"
                )
            self._reach(step)
        batch = self._next()
        if batch is None:
            return None
        position.handed += 1
        return batch

    def _reach(self, step: int) -> None:
        """All updates before a step are made."""
        self._switches.reach(step)

    # --- rates, phases, switches -----------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The step that is trained, from 0; see `steps` for loaders that fetch ahead."""
        return self._position.now(f"{self._said}.step")

    @property
    def phase(self) -> int:
        """Index of the policy's phase that the step belongs to."""
        return self._batches.plan.phases[self._position.now(f"{self._said}.phase")]

    @property
    def lr_factor(self) -> float:
        """Factor of the learning rate at this step, by the recipe's schedule over the whole policy."""
        self._set(_rates_read=True)
        return self._batches.plan.factors[self._position.now(f"{self._said}.lr_factor")]

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """(b,) factors of the losses of this step's batch before their mean is taken; None where all are 1."""
        self._set(_weights_read=True)
        return self._weights_of(self._position.now(f"{self._said}.weights"))

    def _weights_of(self, step: int) -> NDArray[np.float32] | None:
        if step >= self._position.handed:
            raise TrainingFunctionError(
                f"{self._said}.weights are those of a batch, and that of step {step + 1} was not handed out yet. Read "
                "them in the loop, before the scheduler's step."
            )
        return self._batches.weights[step]

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """A scheduler that gives the optimizer's rates the factor of each step; call its `step()` after each update.

        Args:
            optimizer: each of its groups keeps the ratio of its rate to the others.
        """
        self._watch_weights(one for group in optimizer.param_groups for one in group["params"])
        self._set(_rates_read=True)
        self._schedulers.append(Scheduler(optimizer, self))
        return self._schedulers[-1]

    def counter(self) -> Callable[[int], None]:
        """For a host whose optimizer is not torch's, and has no scheduler: what tells that updates were made.

        Returns:
            To be called after each update, with the number of updates since the policy's first.
        """
        number = self._position.add_scheduler(hears_updates=False)
        return lambda updates: self._count(number, updates)

    def on_switch(
        self,
        callback: Callback | None = None,
        *,
        network: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Say what to do right before the first update of each later phase.

        Args:
            callback: called with a `Switch`, whose `apply(network, optimizer)` does what the policy says.
            network: instead, or beside: the network as it is initialised, on which every transition is carried out.
            optimizer: of the network.
        """
        if (network is None) != (optimizer is None) or (callback is None and network is None):
            raise TrainingFunctionError(
                f"{self._said}.on_switch must get a function, or network=... and optimizer=... both."
            )
        position = self._position
        made = position.start if position.counted is None else position.counted  # others may have been fetched ahead
        if network is not None and made > position.start:
            raise TrainingFunctionError(
                f"{self._said}.on_switch must come before the first update, and {made - position.start:,} were made: a "
                "transition may go by the weights at initialisation."
            )
        if network is not None:
            self._watch_weights(network.parameters())
            self._switches.watch(network, optimizer)
        if callback is not None:
            self._switches.add(callback)

    def observe(self, index: Any, losses: Any) -> None:
        """Tell the losses of a batch, for an order that goes by them (`infobatch`); does nothing with others.

        Args:
            index: (b,) numbers of the examples, as they were handed out.
            losses: (b,) losses before any weights, of the update that was just made.
        """
        self._batches.observe(index, losses)

    def _count(self, scheduler: int, updates: int) -> None:
        """A scheduler counts: so many updates are made by its optimizer."""
        self._position.count_scheduler(scheduler, updates)
        counted = self._position.counted
        if counted is not None and counted < self.total_steps() and not self._position.is_in_body:
            self._reach(counted)

    def _watch_weights(self, weights: Iterable[torch.Tensor]) -> None:
        """Weights are handed over that will be trained."""
        return

    def _hold_rates(self, scheduler: Scheduler) -> None:
        """An update was made with the rates that an optimizer has now."""
        return

    def _scheduler_state(self) -> dict[str, Any]:
        """What a scheduler keeps beside its step."""
        return {}

    def _load_scheduler(self, number: int, state: dict[str, Any]) -> int | None:
        """A host loads the state of a scheduler; gives the step that it is at from now on, None where it is known."""
        return None

    def _refuse_neglect(self) -> None:
        """Refuse a run that left out something of its policy."""
        left = self._switches.left(self.total_steps())
        if left:
            raise TrainingFunctionError(
                f"the transition {left[0]!r} of the policy was not carried out. Call {self._said}.on_switch before the "
                "first update."
            )
        if self._batches.has_weights and not self._weights_read:
            raise TrainingFunctionError(
                f"the policy weighs its examples, and nobody read {self._said}.weights. Multiply the losses by them "
                "before their mean is taken."
            )


class Scheduler(torch.optim.lr_scheduler.LambdaLR):
    """Rates by the plan of a policy, and the count of its steps; `last_epoch` is the step, from the policy's first."""

    def __init__(self, optimizer: torch.optim.Optimizer, follower: Follower) -> None:
        self._follower, self._is_made = follower, False
        self.settled: list[float] = []  # rates that were set last, of each group
        factors = follower._batches.plan.factors
        last = len(factors) - 1
        super().__init__(optimizer, lambda made: factors[min(made, last)])
        self._number = follower._position.add_scheduler()
        self._is_made = True
        self.go_to(follower._position.start)
        bare(optimizer).register_step_post_hook(lambda *_: follower._position.note_update(self._number))

    def go_to(self, step: int) -> None:
        """Be at a step, with its rates."""
        self.last_epoch = step
        self.settle()

    def settle(self) -> None:
        """Set the rates of the step, whatever state of an earlier start was loaded into the optimizer."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=False):  # `step` refuses others
            rate = lr * self.lr_lambdas[0](self.last_epoch)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._note()

    def _note(self) -> None:
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.settled = [float(lr) for lr in self._last_lr]

    def step(self, epoch: int | None = None) -> None:
        """One more update is made."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise TrainingFunctionError(
                f"the optimizer must have the {len(self.base_lrs)} groups of parameters that the scheduler was made "
                f"for, got {len(groups)}. Add all groups before {self._follower._said}.scheduler."
            )
        if self._is_made:
            self._follower._hold_rates(self)
        super().step(epoch)
        self._note()
        if self._is_made:  # not the call that torch makes when it begins
            self._follower._count(self._number, self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Its step, and what else a sampler needs to go on, so that a host which keeps schedulers keeps it."""
        return {"step": self.last_epoch, **self._follower._scheduler_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; a run of a study knows where it is."""
        step = self._follower._load_scheduler(self._number, state_dict)
        if step is not None:
            self.go_to(step)
