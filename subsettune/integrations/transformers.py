"""A bundle's policy in transformers: a Trainer that follows it.

arguments = TrainingArguments(folder, num_train_epochs=1, per_device_train_batch_size=bundle.recipe.batch_size, ...)
PolicyTrainer(model, arguments, bundle=bundle, train_dataset=dataset).train()

Its one epoch is the whole policy. Processes and accumulated batches are those of the arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from subsettune.bundle import Bundle
from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.extras import needed_for
from subsettune.text import joined
from subsettune.train import optimizers
from subsettune.train.follow.loader import policy_loader
from subsettune.train.follow.sampler import PolicySampler
from subsettune.train.follow.switches import bare
from subsettune.train.follow.weighted import KEY

with needed_for("subsettune.integrations.transformers"):
    from transformers import Trainer

__all__ = ["PolicyTrainer"]

Losses = Callable[[Any, Tensor], Tensor]


class PolicyTrainer(Trainer):
    """A Trainer whose training batches, rates and transitions are those of a policy.

    Args:
        args: as of `Trainer`.
        bundle: to be followed.
        policy_seed: of the order of examples, and of what a transition draws; default: the one that chose the subset.
        labels: see `Bundle.batch_sampler`, as `fingerprint` and `rows`; the data are `train_dataset`.
        example_losses: (b,) losses of a model's outputs and the labels, for policies that weigh their examples;
            default: the cross-entropy of logits (b, C).
        settings: as of `Trainer`. Without `optimizers` the optimizer is that of the bundle's recipe.

    Attributes:
        sampler: of the training that runs or ran last; its `ledger()` tells what was spent.

    Raises:
        BundleError, ConfigError, TrainingFunctionError: by `train`, before the first batch: the data or the arguments
            are not those of the policy; after the last, not each batch was trained on once.
    """

    sampler: PolicySampler
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *args: Any,
        bundle: Bundle,
        policy_seed: int | None = None,
        labels: Any = None,
        fingerprint: str | None = None,
        rows: Sequence[int] | None = None,
        example_losses: Losses | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.bundle = bundle
        self._given = {"seed": policy_seed, "labels": labels, "fingerprint": fingerprint, "rows": rows}
        self._example_losses = example_losses
        self._makes_optimizer = self.optimizer is None
        if self.lr_scheduler is not None:
            found = type(self.lr_scheduler).__name__
            raise ConfigError(must("optimizers", "an optimizer and None", found, "The policy has the schedule."))

    def train(self, *args: Any, **settings: Any) -> Any:
        """As of `Trainer`; the policy is all done when it returns."""
        done = super().train(*args, **settings)
        self.sampler.finish()
        return done

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The policy's batches, with columns and collator as the Trainer has them."""
        arguments = self.args
        self.sampler = self.bundle.batch_sampler(
            self.train_dataset,
            rank=arguments.process_index,
            world_size=arguments.world_size,
            accumulate=arguments.gradient_accumulation_steps,
            **self._given,
        )
        self._refuse_arguments()
        plain = super().get_train_dataloader()
        collate = plain.collate_fn
        weighs = self.sampler.needs_weights
        if weighs:
            self._refuse_other_losses()
            self.model_accepts_loss_kwargs = False  # weights make the mean over slices right, and no count of items
        return policy_loader(
            self.sampler,
            plain.dataset,
            weights=weighs,
            collate_fn=_Collated(collate) if weighs else collate,
            num_workers=plain.num_workers,
            pin_memory=plain.pin_memory,
            persistent_workers=plain.persistent_workers,
            prefetch_factor=plain.prefetch_factor,
            worker_init_fn=plain.worker_init_fn,
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """The recipe's, where none was handed over."""
        if self.optimizer is None:
            self.optimizer = optimizers.make(self.bundle.recipe, self.model if model is None else model)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The policy's rates and transitions."""
        found = bare(self.optimizer if optimizer is None else optimizer)
        self.sampler.on_switch(network=self.model, optimizer=found)
        self.lr_scheduler = self.sampler.scheduler(found)
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As of `Trainer`; of a batch that weighs its examples, the mean of their losses times their weights."""
        if KEY not in inputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        weights = inputs.pop(KEY)
        outputs = model(**inputs)
        losses = (self._example_losses or self._cross_entropies)(outputs, inputs["labels"])
        if losses.shape != weights.shape:
            advice = "Give PolicyTrainer(example_losses=...) a function of outputs and labels."
            raise ConfigError(must("example_losses", "one loss for each example", tuple(losses.shape), advice))
        loss = (losses * weights).mean()
        return (loss, outputs) if return_outputs else loss

    def _cross_entropies(self, outputs: Any, labels: Tensor) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[1]
        if labels.dim() != 1 or labels.is_floating_point() or logits.dim() != 2:
            advice = "Give example_losses=..., a function of outputs and labels, for anything else than classes."
            raise ConfigError(must("labels", "(b,) classes, and logits (b, C)", tuple(labels.shape), advice))
        smoothing = self.args.label_smoothing_factor
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)

    def _refuse_other_losses(self) -> None:
        if self.compute_loss_func is not None:
            advice = "This policy weighs its examples: give example_losses=..., whose mean is taken with the weights."
            raise ConfigError(must("compute_loss_func", "None", self.compute_loss_func, advice))

    def _refuse_arguments(self) -> None:
        """Refuse arguments that contradict the policy, all in one sentence."""
        arguments, recipe, total = self.args, self.bundle.recipe, self.sampler.total_steps()
        wanted = {
            "num_train_epochs": 1,
            "per_device_train_batch_size": math.ceil(recipe.batch_size / self.sampler.slices.number),
            "max_grad_norm": recipe.grad_clip or 0,
            "ignore_data_skip": False,
            "auto_find_batch_size": False,
        }
        if self._makes_optimizer:
            wanted["learning_rate"] = recipe.lr
        if arguments.max_steps == total:
            del wanted["num_train_epochs"]  # which does not count then
        elif arguments.max_steps > 0:
            wanted["max_steps"] = -1
        wrong = {name: value for name, value in wanted.items() if (getattr(arguments, name) or 0) != value}
        if wrong:
            told = joined([f"{name}={value!r}" for name, value in wrong.items()])
            found = joined([repr(getattr(arguments, name)) for name in wrong])
            raise ConfigError(f"TrainingArguments must have {told} to follow this bundle, got {found}. Give them so.")


class _Collated:
    """Collates examples as the Trainer does, and their weights apart, where they are not all 1."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Any:
        batch = self._collate([{name: value for name, value in item.items() if name != KEY} for item in items])
        weights = torch.tensor([float(item[KEY]) for item in items])
        return batch if bool((weights == 1).all()) else {**batch, KEY: weights}
