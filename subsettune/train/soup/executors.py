"""The networks of a soup's workers while they train, in two ways that agree: all at once on one device, or in turn."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from subsettune import models
from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.train import optimizers
from subsettune.train.learner import Learner
from subsettune.train.randomness import preserved

ExecutionMode = Literal["together", "in_turn"]
Examples = tuple[Tensor, Tensor, Tensor | None]  # inputs (b, ...), targets (b, ...), factors (b,) of the losses
Read = Callable[[int], Examples]
# Their steps treat each weight by itself, so that those of all workers, stacked, are stepped like those of one.
ELEMENT_WISE = ("sgd", "adam", "adamw", "adadelta")


class WorkerExecutor(ABC):
    """The networks of W workers, each with optimizer and mask.

    Args:
        learner: of the run: its recipe and its losses; its own network is left alone.
        networks: W of the same build, in training mode, on the learner's device.
        masks: (W, ...) bool by name of a parameter, what each worker keeps; nothing else of it is ever but 0.
    """

    def __init__(self, learner: Learner, networks: list[nn.Module], masks: Mapping[str, Tensor]) -> None:
        self.learner, self.masks = learner, masks
        self._dropped = {name: ~mask for name, mask in masks.items()}

    @abstractmethod
    def step(self, read: Read, lr: float, seconds: list[float] | None) -> Tensor:
        """One update of every worker.

        Args:
            read: gives the next examples of a worker; called once for each, in order.
            lr: learning rate.
            seconds: (W,) to which each worker's time is added where each has one of its own.

        Returns:
            (W,) mean losses of the workers, detached.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of all workers, (W, ...) by name."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits, apart from the masks."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""

    def close(self) -> None:  # noqa: B027 - most hold nothing elsewhere
        """Let go of what is held in other processes."""

    def _loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        losses = self.learner.example_losses(outputs, targets)
        return losses.mean() if weights is None else (losses * weights).mean()


@final
class Sequential(WorkerExecutor):
    """One network after another, each as it would be on a machine of its own; any optimizer but one with a closure."""

    def __init__(
        self,
        learner: Learner,
        networks: list[nn.Module],
        masks: Mapping[str, Tensor],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(learner, networks, masks)
        self.clock, self.networks = clock, networks
        self.optimizers = [optimizers.make(learner.recipe, network) for network in networks]
        self._rates = [optimizers.Rates(optimizer, learner.recipe.lr) for optimizer in self.optimizers]
        self._zero()

    def step(self, read: Read, lr: float, seconds: list[float] | None) -> Tensor:
        """See `WorkerExecutor.step`."""
        losses, start = [], self._now(seconds)
        for worker in range(len(self.networks)):
            losses.append(self._step(worker, read(worker), lr))
            if seconds is not None:
                end = self._now(seconds)
                seconds[worker] += end - start
                start = end
        return torch.stack(losses)

    def _step(self, worker: int, examples: Examples, lr: float) -> Tensor:
        inputs, targets, weights = examples
        network, optimizer = self.networks[worker], self.optimizers[worker]
        self._rates[worker].set(lr)
        loss = self._loss(self.learner.outputs(inputs, network), targets, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for name, dropped in self._dropped.items():
            gradient = network.get_parameter(name).grad
            if gradient is not None:
                gradient.masked_fill_(dropped[worker], 0)
        if self.learner.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.learner.recipe.grad_clip)
        optimizer.step()
        self._zero(worker)
        return loss.detach()

    @torch.no_grad()
    def _zero(self, *workers: int) -> None:
        """Make what masks leave out 0, of all workers where none is named."""
        for worker in workers or range(len(self.networks)):
            for name, dropped in self._dropped.items():
                self.networks[worker].get_parameter(name).masked_fill_(dropped[worker], 0)

    def _now(self, seconds: list[float] | None) -> float:
        if seconds is not None and self.learner.device.type == "cuda":
            torch.cuda.synchronize(self.learner.device)
        return self.clock()

    def tensors(self) -> dict[str, Tensor]:
        """See `WorkerExecutor.tensors`."""
        named = [{**dict(n.named_parameters()), **dict(n.named_buffers())} for n in self.networks]
        return {name: torch.stack([of_one[name].detach() for of_one in named]) for name in named[0]}

    def state(self) -> dict[str, Any]:
        """See `WorkerExecutor.state`."""
        return {
            "networks": [network.state_dict() for network in self.networks],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """See `WorkerExecutor.load`."""
        for network, its_own in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(its_own)
        for optimizer, its_own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_own)


@final
class Vectorized(WorkerExecutor):
    """All networks at once, as one whose weights have a further dimension; see `execution_mode` for what can go so."""

    def __init__(self, learner: Learner, networks: list[nn.Module], masks: Mapping[str, Tensor]) -> None:
        super().__init__(learner, networks, masks)
        self._build = networks[0]
        stacked, buffers = stack_module_state(networks)
        self.parameters = {
            name: nn.Parameter(values.detach(), requires_grad=values.requires_grad) for name, values in stacked.items()
        }
        self.buffers = dict(buffers)
        self.optimizer = optimizers.make(learner.recipe, nn.ParameterList(self.parameters.values()))
        self._rates = optimizers.Rates(self.optimizer, learner.recipe.lr)
        self._zero()

    def losses(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """(W,) mean losses on inputs (W, b, ...), targets (W, b, ...) and factors (W, b); running statistics move."""

        def loss(parameters: Any, buffers: Any, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
            def network(inputs: Tensor) -> Tensor:
                outputs: Tensor = functional_call(self._build, (parameters, buffers), (inputs,))
                return outputs

            return self._loss(self.learner.outputs(inputs, network), targets, weights)

        places = (0, 0, 0, 0, None if weights is None else 0)
        each = vmap(loss, in_dims=places, randomness="different")
        losses: Tensor = each(self.parameters, self.buffers, inputs, targets, weights)
        return losses

    def step(self, read: Read, lr: float, seconds: list[float] | None) -> Tensor:
        """See `WorkerExecutor.step`; the workers have no times of their own."""
        self._rates.set(lr)
        inputs, targets, weights = zip(*map(read, range(self._num_workers)), strict=True)
        factors = None if weights[0] is None else torch.stack(weights)
        losses = self.losses(torch.stack(inputs), torch.stack(targets), factors)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # no worker's loss depends on another's weights
        for name, dropped in self._dropped.items():
            gradient = self.parameters[name].grad
            if gradient is not None:
                gradient.masked_fill_(dropped, 0)
        self._clip()
        self.optimizer.step()
        self._zero()
        return losses.detach()

    @property
    def _num_workers(self) -> int:
        return len(next(iter(self.parameters.values())))

    @torch.no_grad()
    def _clip(self) -> None:
        """Clip the gradient of each worker by its own norm, as `torch.nn.utils.clip_grad_norm_` does for one."""
        most = self.learner.recipe.grad_clip
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if most is None or not gradients:
            return
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = (most / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.reshape(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def _zero(self) -> None:
        for name, dropped in self._dropped.items():
            self.parameters[name].masked_fill_(dropped, 0)

    def tensors(self) -> dict[str, Tensor]:
        """See `WorkerExecutor.tensors`."""
        return {**{name: p.detach() for name, p in self.parameters.items()}, **self.buffers}

    def state(self) -> dict[str, Any]:
        """See `WorkerExecutor.state`."""
        return {"tensors": self.tensors(), "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """See `WorkerExecutor.load`."""
        for name, values in self.tensors().items():
            values.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])


def execution_mode(asked: str, learner: Learner) -> ExecutionMode:
    """How the workers of a run are carried out.

    At once is possible where the optimizer treats each weight by itself and `torch.vmap` runs the network without
    falling back to a loop over it; that is tried on two copies and two examples. By itself it is chosen on a GPU, which
    one small network leaves idle. On a CPU workers take turns: 10 MNIST cnns [16, 32] with batches of 128 take 0.29 s a
    step in turn on one core and 0.54 s at once, and each then has a time of its own.

    Args:
        asked: `auto`, `together` or `in_turn`.
        learner: of the run; its network, its streams of random numbers and the global one are left as they are.

    Raises:
        ConfigError: the optimizer evaluates the loss itself, or `together` does not work here.
    """
    if learner.searches:
        raise ConfigError(closure_refused(learner.recipe.optimizer))
    if asked == "in_turn" or (asked == "auto" and learner.device.type == "cpu"):
        return "in_turn"
    problem = _problem_together(learner)
    if problem is None:
        return "together"
    if asked == "together":
        raise ConfigError(must("soup_workers", "auto or in_turn here", asked, problem))
    return "in_turn"


def closure_refused(optimizer: str) -> str:
    """The sentence on an optimizer with a line search."""
    rule = "one that takes a gradient, with a soup"
    return must("optimizer", rule, optimizer, "The workers have no line search: take e.g. sgd, or leave out the soup.")


def _problem_together(learner: Learner) -> str | None:
    """Why workers cannot train at once, in one sentence; None if they can."""
    if learner.task.loss is not None:
        return "A loss of your own is computed for one worker after the other."
    if learner.recipe.optimizer not in ELEMENT_WISE:
        return f"Workers train at once with {', '.join(ELEMENT_WISE)} only."
    index = torch.arange(2) % len(learner.part)
    with preserved(), warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap warns where it loops
        try:
            inputs, targets = learner.part.batch(index.to(learner.device))
            executor = Vectorized(learner, [models.copy_of(learner.network) for _ in range(2)], {})
            executor.losses(torch.stack([inputs] * 2), torch.stack([targets] * 2), None).sum().backward()
        except Exception as error:  # whatever the user's network raises
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return f"torch.vmap does not run the network: {reason}"
    return None
