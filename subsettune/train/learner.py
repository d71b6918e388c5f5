"""The network of a run with its optimizer: one update, one measurement, and their state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from subsettune import models
from subsettune.data import Part, TaskData
from subsettune.data.augment import make_augment
from subsettune.data.parts import EVALUATION_BATCH
from subsettune.task import Recipe, Task
from subsettune.train import flops, optimizers, transitions
from subsettune.train.average import WeightAverage
from subsettune.train.objective import Objective
from subsettune.train.pruning import surgery
from subsettune.train.randomness import generator, isolated

# Examples of a full batch that go through the network at a time, so that their activations fit.
PIECE = {"cpu": 1024, "cuda": 8192}

Watch = Callable[[Tensor, Tensor, Tensor], None]


class Learner:
    """Network, optimizer, augmentation and running loss of one run.

    Args:
        task: what is trained.
        recipe: with the policy's overrides.
        data: of the task.
        device: where it is trained.
        seed: of the run.

    Raises:
        ConfigError: an option of model, optimizer or augmentation does not fit.
        ModelError: the network does not fit the task.
    """

    def __init__(self, task: Task, recipe: Recipe, data: TaskData, device: torch.device, seed: int) -> None:
        self.task, self.recipe, self.data, self.device = task, recipe, data, device
        network = models.make(task.model, data.input_shape, data.num_outputs, data.num_tokens)
        self.scales = transitions.scales(network)
        images_on_gpu = device.type == "cuda" and len(data.input_shape) == 3
        self.layout = torch.channels_last if images_on_gpu else torch.contiguous_format
        self.network: nn.Module = models.in_training(network.to(device).to(memory_format=self.layout))
        self.optimizer = optimizers.make(recipe, self.network)
        self._rates = optimizers.Rates(self.optimizer, recipe.lr)
        self.searches = optimizers.needs_closure(self.optimizer)  # evaluates the loss several times an update
        self.low_precision = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")
        self.part = data.train.to(device)
        self.objective = Objective(task, recipe, data, device)
        self.average = None if recipe.ema is None else WeightAverage(recipe.ema)
        self._augment_rng = generator(seed, "augment", device=device)
        self._augment = make_augment(recipe.augment, data.input_shape, self._augment_rng)
        self._mean, self._std = _on(device, data.target_mean), _on(device, data.target_std)
        self._reset_loss()

    def check_batch(self, num_examples: int, advice: str | None = None) -> None:
        """Check that the network trains on batches of a size, e.g. on 1, which batch norm refuses.

        Args:
            num_examples: the size.
            advice: what to do if it does not; None for larger batches.

        Raises:
            ModelError: it does not.
        """
        probe = flops.Probe.of(self.data, num_examples)
        flops.check_batch(self.network, probe, num_examples, self.task.model.name, advice=advice)

    def update(
        self, batch: Tensor, lr: float, weights: Tensor | None, *, most: int | None = None, watch: Watch | None = None
    ) -> int:
        """One step of the optimizer. Inputs are read and augmented once, however often the loss is evaluated.

        Args:
            batch: (b,) int64 positions in the training part.
            lr: learning rate.
            weights: (b,) factors of the losses, 1 on average over the pool; None for equal ones.
            most: evaluations that an optimizer with a line search may make, at least 1; None for as many as it likes.
            watch: called with `batch`, the first outputs (b, M) float32, detached, and the targets, on the device.

        Returns:
            The number of evaluations, each a forward and a backward pass of the batch: 1 but for optimizers that take
            a closure.
        """
        inputs, targets = self.examples(batch)
        evaluations, outputs = self.fit(inputs, targets, weights, lr, most=most)
        if watch is not None:
            watch(batch, outputs, targets)
        return evaluations

    def examples(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, ...), augmented, and targets of positions (b,) in the training part, on the device."""
        inputs, targets = self.part.batch(batch.to(self.device, non_blocking=True))
        return (inputs if self._augment is None else self._augment(inputs)), targets

    def fit(
        self, inputs: Tensor, targets: Tensor, weights: Tensor | None, lr: float, *, most: int | None = None
    ) -> tuple[int, Tensor]:
        """One step of the optimizer on examples that were read; arguments and evaluations as of `update`.

        Returns:
            The number of evaluations, and the first outputs (b, M) float32, detached.
        """
        self._rates.set(lr)
        chosen = None if weights is None else weights.to(self.device)
        if self.searches:
            loss, evaluations, outputs = self._search(inputs, targets, chosen, most)
        else:
            outputs, loss = self._forward(inputs, targets, chosen)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._clip()
            self.optimizer.step()
            evaluations = 1
        if self.average is not None:
            self.average.update(self.network)
        self.note(loss.detach())
        return evaluations, outputs.detach()

    def note(self, loss: Tensor) -> None:
        """Count a mean loss of an update into the running loss."""
        self._loss_sum += loss
        self._loss_count += 1

    def example_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(b,) losses of outputs (b, M) float32 as the network is trained on them, label smoothing included."""
        return self.objective.each(outputs, self._trained_on(targets))

    def losses_of_many(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `example_losses`, to within rounding, of so many outputs that time counts."""
        return self.objective.each_of_many(outputs, self._trained_on(targets))

    def outputs(self, inputs: Tensor, network: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """(b, M) float32 outputs of the network in the mode that it is in, or of another one, in the same precision."""
        with _precision(self.device, self.low_precision):
            if network is None:
                network, inputs = self.network, _laid_out(inputs, self.layout)
            outputs = network(inputs)
        return outputs.float()

    def _forward(self, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (b, M) float32, and their loss."""
        outputs = self.outputs(inputs)
        return outputs, self._loss(outputs, targets, weights)

    def _search(
        self, inputs: Tensor, targets: Tensor, weights: Tensor | None, most: int | None
    ) -> tuple[Tensor, int, Tensor]:
        """A step of an optimizer that takes a closure: loss before it, evaluations, outputs before it.

        The batch goes through the network in pieces, whose gradients add up; batch norm sees the pieces.
        """
        count = math.ceil(len(targets) / PIECE[self.device.type])  # of equal size: none is a single left-over example
        split_weights = [None] * count if weights is None else weights.tensor_split(count)
        pieces = list(zip(inputs.tensor_split(count), targets.tensor_split(count), split_weights, strict=True))
        first: list[Tensor] = []

        def evaluate() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            total = torch.zeros((), device=self.device)
            outputs = []
            for some_inputs, some_targets, some_weights in pieces:
                some, loss = self._forward(some_inputs, some_targets, some_weights)
                loss = loss * (len(some_targets) / len(targets))
                loss.backward()
                total += loss.detach()
                outputs.append(some.detach())
            self._clip()
            if not first:
                first.append(torch.cat(outputs))
            return total

        loss, evaluations = optimizers.search_step(self.optimizer, evaluate, most)
        return loss, evaluations, first[0]

    def _clip(self) -> None:
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)

    def _loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        return self.objective.mean(outputs, self._trained_on(targets), weights)

    def _trained_on(self, targets: Tensor) -> Tensor:
        """Targets as the loss takes them: standardised for a regression, so that recipes fit every unit."""
        return ((targets - self._mean) / self._std).float() if self.task.kind == "regression" else targets

    def is_finite(self) -> bool:
        """Whether every loss since the last `take_loss` was a finite number."""
        return bool(torch.isfinite(self._loss_sum))  # a sum stays infinite or NaN once a loss was

    def has_finite_weights(self) -> bool:
        """Whether the network holds finite numbers only."""
        return all(bool(torch.isfinite(p).all()) for p in self.network.parameters())

    def take_loss(self) -> float | None:
        """Mean training loss since the last call, None if there was no update or it is not finite; starts it anew."""
        mean = float(self._loss_sum) / self._loss_count if self._loss_count else math.nan
        self._reset_loss()
        return mean if math.isfinite(mean) else None

    def _reset_loss(self) -> None:
        self._loss_sum, self._loss_count = torch.zeros((), device=self.device), 0

    def predictions(self, part: Part) -> tuple[Tensor, Tensor]:
        """Outputs (n, M) and targets (n,) of a part of the data, in its order and in the units of the data."""
        outputs, targets = self._predict(part.to(self.device))
        if self.task.kind == "regression":
            outputs = outputs.reshape(targets.shape).to(targets.dtype) * self._std + self._mean
        return outputs, targets

    def _predict(self, part: Part) -> tuple[Tensor, Tensor]:
        """Outputs of the network, with the average of its weights where one is taken, and targets."""
        with contextlib.nullcontext() if self.average is None else self.average.swapped_in(self.network):
            return predict(self.network, part, self.layout, self.low_precision)

    def restart_average(self) -> None:
        """Begin the average of the weights anew, where one is taken: something else than an update changes them."""
        if self.average is not None:
            self.average.restart()

    def keep_average(self) -> None:
        """Give the network the average of its weights for good, where one is taken: no further updates."""
        if self.average is not None:
            self.average.take(self.network)

    def losses(self, pool: Tensor | None) -> tuple[float, float]:
        """Mean loss over a pool of training examples, and over all of them, as the network predicts.

        In evaluation mode, with equal weights, without augmentation and label smoothing. Of a regression it is that of
        the standardised targets, on which the network is trained.

        Args:
            pool: (k,) int64 positions; None for all.
        """
        outputs, targets = self._predict(self.part)
        if self.task.kind == "regression":
            outputs, targets = outputs.reshape(targets.shape), (targets - self._mean) / self._std
        outputs = outputs.double()  # a float32 mean over a data set loses digits
        targets = targets.double() if targets.is_floating_point() else targets
        overall = self.objective.plain_mean(outputs, targets)
        if pool is None:
            return overall, overall
        index = pool.to(self.device)
        return self.objective.plain_mean(outputs[index], targets[index]), overall

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on with the same bits."""
        average = {} if self.average is None else {"average": self.average.state()}
        return {
            **average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scales": self.scales,
            "loss": (self._loss_sum, self._loss_count),
            "augment": self._augment_rng.get_state(),
        }

    def load(self, state: dict[str, Any], *, weights_only: bool = False) -> None:
        """Go on from `state`.

        Args:
            state: what `state` gave.
            weights_only: for measurements only, on any device; no further updates.
        """
        surgery.fit_shapes(self.network, state["network"])  # a transition may have made it narrower
        self.network.load_state_dict(state["network"])
        if weights_only:
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.scales = state["scales"]
        loss_sum, self._loss_count = state["loss"]
        self._loss_sum = loss_sum.to(self.device)
        self._augment_rng.set_state(state["augment"])
        if self.average is not None:
            self.average.load(state["average"], self.device)


def predict(
    network: nn.Module, part: Part, layout: torch.memory_format = torch.contiguous_format, low_precision: bool = False
) -> tuple[Tensor, Tensor]:
    """Outputs of a network over a part of the data, in evaluation mode; the mode comes back as it was.

    A network that draws random numbers in evaluation draws the same ones each time, and the global random state comes
    back as it was: how often a run is measured must not change what it trains.

    Args:
        network: on the device of the part.
        part: whose examples.
        layout: of images in memory.
        low_precision: whether to compute in bfloat16 where autocast does.

    Returns:
        outputs (n, M) float32 and targets (n,), in the part's order, on the part's device.
    """
    was_training = network.training
    network.eval()
    outputs, targets = [], []
    try:
        with isolated(0, torch.get_num_threads()), torch.no_grad():
            for index in torch.arange(len(part), device=part.device).split(EVALUATION_BATCH[part.device.type]):
                inputs, target = part.batch(index)
                with _precision(part.device, low_precision):
                    outputs.append(network(_laid_out(inputs, layout)).float())
                targets.append(target)
    finally:
        network.train(was_training)
    return torch.cat(outputs), torch.cat(targets)


def _precision(device: torch.device, low: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()


def _laid_out(inputs: Tensor, layout: torch.memory_format) -> Tensor:
    return inputs.contiguous(memory_format=layout) if inputs.dim() == 4 else inputs


def _on(device: torch.device, value: float | Tensor) -> float | Tensor:
    return value.to(device) if isinstance(value, Tensor) else value
