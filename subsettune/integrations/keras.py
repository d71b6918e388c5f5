"""Keras 3 on torch: `model.fit` trains by a bundle.

sampler = bundle.batch_sampler((x, y))
policy = PolicyCallback(sampler, model)  # compiled, with the rate of bundle.recipe
model.fit(policy.data(x, y), epochs=1, callbacks=[policy])
sampler.finish()

`policy.loader(dataset)` is a DataLoader instead. Keras reads the first batch of a fit twice, asks for the batches anew
after each epoch, and shuffles the numbers of batches of a PyDataset. So what is handed to it goes by the updates that
were made, not by what it asks for: a batch stays the next one until it is trained. To look at validation data along the
way, cut the one pass over the policy into pieces: `fit(..., epochs=4, steps_per_epoch=math.ceil(len(sampler) / 4))`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from subsettune.config import must
from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.extras import needed_for
from subsettune.train.follow.sampler import PolicySampler
from subsettune.train.follow.weighted import WeightedRow

__all__ = ["PolicyCallback"]
_SET_BACKEND = 'Set it before Keras is imported for the first time: os.environ["KERAS_BACKEND"] = "torch".'


def _refuse_backend(found: str | None) -> ConfigError:
    return ConfigError(must("KERAS_BACKEND", "torch", found, _SET_BACKEND))


with needed_for("subsettune.integrations.keras"):
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "jax"):
            raise
        raise _refuse_backend(error.name) from error
if keras.backend.backend() != "torch":
    raise _refuse_backend(keras.backend.backend())


class PolicyCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives a model the batches, rates and transitions of a policy, and counts the updates.

    With `accumulate` of the sampler the optimizer must have as many `gradient_accumulation_steps`. Keras has one rate
    for all weights. `sampler.state_dict()` beside a saved model is what another process goes on from; it gives `lr`, as
    the saved optimizer has the rate of where it was.

    Args:
        sampler: of one process.
        model: built and compiled, as it is initialised.
        lr: rate that the schedule multiplies; default: that of the model's optimizer.

    Raises:
        ConfigError: the model is not built or not compiled, or the sampler is one of several processes.
        TrainingFunctionError: the sampler goes on from a checkpoint, and nobody says `lr`.
    """

    def __init__(self, sampler: PolicySampler, model: Any, lr: float | None = None) -> None:
        super().__init__()
        if not model.built:
            raise ConfigError(must("model", "built", model.name, "Begin it with keras.Input(...), or call it once."))
        if not getattr(model, "compiled", False):
            raise ConfigError(must("model", "compiled", model.name, "Call model.compile(optimizer, loss) first."))
        if sampler.slices.world_size > 1:
            raise ConfigError(must("world_size", "1 with Keras", sampler.slices.world_size))
        _refuse_other_accumulation(model.optimizer, sampler.slices.accumulate)
        self._sampler, self._trained_model = sampler, model
        self._batches = _UntilTrained(sampler)
        self._given_lr, self._lr = lr, 0.0
        self._count = sampler.counter()
        sampler.on_switch(network=model, optimizer=_Resettable(model))  # type: ignore[arg-type]

    def data(self, x: Any, y: Any) -> Any:
        """What `model.fit` takes instead of `x` and `y`: batches `(x, y, weights)` of the policy.

        Args:
            x: an array or tensor with all rows of the training file, or a dict, list or tuple of such.
            y: likewise.
        """
        self._sampler.check((_first(x), y))
        self._sampler.weighted(())  # says that weights are taken care of: they go with each batch
        return _PolicyData(self._batches, x, y)

    def loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        """What `model.fit` takes instead of a DataLoader of one's own: batches `(x, y, weights)` of the policy.

        Args:
            dataset: map-style, with all rows of the training file, whose examples are pairs (x, y).
            options: of the DataLoader: `num_workers`, `collate_fn`, `pin_memory`.
        """
        return DataLoader(self._sampler.weighted(dataset), batch_sampler=self._batches, **options)

    def on_train_begin(self, logs: Any = None) -> None:
        """Hold what is trained against what was given, and note the rate."""
        if self.model is not self._trained_model:
            raise TrainingFunctionError("the policy was made for another model than is fitted. Make it for this one.")
        _refuse_other_accumulation(self.model.optimizer, self._sampler.slices.accumulate)
        if self._lr:
            return
        if self._given_lr is None and self._sampler.step > 0:
            raise TrainingFunctionError(
                "lr must be given where a run goes on, got None: the optimizer has the rate of where it was. Write "
                "PolicyCallback(sampler, model, lr=bundle.recipe.lr)."
            )
        found = self.model.optimizer.learning_rate if self._given_lr is None else np.float32(self._given_lr)
        self._lr = float(found)  # as the optimizer holds it, so that a run that goes on has the same bits

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Refuse another epoch than those of the policy."""
        if not len(self._batches):
            raise TrainingFunctionError(
                f"the batches of a policy can be gone through once, and epoch {epoch + 1} begins behind the last of "
                f"{self._sampler.total_steps():,} steps. Call model.fit(..., epochs=1), or with several epochs of "
                "steps_per_epoch each."
            )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate of the step."""
        self.model.optimizer.learning_rate = self._lr * self._sampler.lr_factor

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batch, and carry out the transition that comes before the next."""
        self._count(self._batches.count())


class _UntilTrained:
    """The batches of a policy, of which the next stays the next until it is trained, however often it is read.

    Attributes:
        sampler: whose batches they are.
    """

    def __init__(self, sampler: PolicySampler) -> None:
        self.sampler = sampler
        self._source = self._all()
        self._waiting: dict[int, list[int]] = {}  # handed out by the sampler and not trained, by number
        self._trained = 0
        self._start: int | None = None  # step of the first batch that was read

    def __len__(self) -> int:
        """Batches that are left to train."""
        sampler = self.sampler
        if self._start is None:
            left = 0 if sampler.is_complete else sampler.total_steps() - sampler.step
        else:
            left = sampler.total_steps() - self._start
        return left * sampler.slices.accumulate - self._trained

    def __iter__(self) -> Iterator[list[int]]:
        number = self._trained
        while True:
            batch = self.batch(number)
            if batch is None:
                return
            yield batch
            number += 1

    def next(self) -> list[int]:
        """The one that is trained next.

        Raises:
            TrainingFunctionError: there is none.
        """
        batch = self.batch(self._trained)
        if batch is None:
            raise TrainingFunctionError("all batches of the policy are trained, and another one was read.")
        return batch

    def batch(self, number: int) -> list[int] | None:
        """A batch that is not trained yet, counted from the first of this process; None behind the last."""
        while number not in self._waiting:
            found = next(self._source, None)
            if found is None:
                return None
            self._waiting[self._trained + len(self._waiting)] = found
        return self._waiting[number]

    def count(self) -> int:
        """One more batch is trained; gives the updates since the policy's first."""
        self._waiting.pop(self._trained, None)
        self._trained += 1
        assert self._start is not None, "a batch was read before it was trained"
        return self._start + self._trained // self.sampler.slices.accumulate

    def _all(self) -> Iterator[list[int]]:
        self._start = self.sampler.step
        while not self.sampler.is_complete:
            yield from self.sampler


class _PolicyData(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches out of arrays, whatever numbers they are asked for by: Keras shuffles those."""

    def __init__(self, batches: _UntilTrained, x: Any, y: Any) -> None:
        super().__init__()
        self._batches = batches
        self._x, self._y = (keras.tree.map_structure(_array, values) for values in (x, y))

    @property
    def num_batches(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        listed = self._batches.next()
        rows = np.asarray(listed, np.int64)
        weights = np.array([row.weight if isinstance(row, WeightedRow) else 1.0 for row in listed], np.float32)
        x, y = (keras.tree.map_structure(lambda values: values[rows], each) for each in (self._x, self._y))
        return x, y, weights


class _Resettable:
    """The optimizer of a Keras model as transitions see it: setting its state gives that of a fresh one."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def state(self) -> dict[str, Any]:
        """By name."""
        return {variable.path: variable for variable in self._model.optimizer.variables}

    @state.setter
    def state(self, value: defaultdict[Any, Any]) -> None:
        own = self._model.optimizer
        if value:
            raise TrainingFunctionError("the state of a Keras optimizer can only be cleared by a transition.")
        if not own.built:
            return
        fresh = type(own).from_config(own.get_config())
        fresh.build(self._model.trainable_variables)
        for variable, initial in zip(own.variables, fresh.variables, strict=True):
            if variable is not own._learning_rate:
                variable.assign(initial)


def _array(values: Any) -> Any:
    return values if isinstance(values, torch.Tensor) else np.asarray(values)


def _refuse_other_accumulation(optimizer: Any, accumulate: int) -> None:
    found = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    if found != accumulate:
        advice = "Ask the bundle for as many: bundle.batch_sampler(data, accumulate=...)."
        raise ConfigError(
            must("gradient_accumulation_steps", f"{accumulate} as the sampler's accumulate", found, advice)
        )


def _first(x: Any) -> Any:
    """One of the inputs, which has as many rows as the others."""
    while isinstance(x, dict | list | tuple) and x:
        x = next(iter(x.values())) if isinstance(x, dict) else x[0]
    return x
