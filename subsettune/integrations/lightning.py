"""A bundle's policy in Lightning: a DataModule hands out its batches, and a callback follows it.

data = PolicyDataModule(bundle, dataset)
trainer = lightning.Trainer(max_epochs=1, callbacks=[FollowPolicy()], use_distributed_sampler=False)
trainer.fit(model, datamodule=data)

The LightningModule is as it was, but gives an optimizer and no scheduler. Rank, processes and accumulated batches are
those of the trainer. A checkpoint of it holds where the policy is, right after an update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from subsettune.bundle import Bundle
from subsettune.config import must
from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.extras import needed_for
from subsettune.train.follow.loader import policy_loader, refuse_decided
from subsettune.train.follow.sampler import PolicySampler
from subsettune.train.randomness import capture, restore

with needed_for("subsettune.integrations.lightning"):
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.utilities.types import LRSchedulerConfig

__all__ = ["FollowPolicy", "PolicyDataModule"]


class _WholeEpochs:
    """The batches of a sampler with the length of whole epochs: Lightning counts those before a checkpoint itself."""

    def __init__(self, sampler: PolicySampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return self._sampler.epoch_length

    def __iter__(self) -> Iterator[list[int]]:
        is_over = self._sampler.start == self._sampler.total_steps()  # fit goes on from a last checkpoint
        return iter(()) if is_over else iter(self._sampler)


class PolicyDataModule(LightningDataModule):
    """Training batches of a policy, around a dataset; needs the callback `FollowPolicy` beside it.

    Args:
        bundle: to be followed.
        dataset: map-style, all rows of the study's training file.
        seed: see `Bundle.batch_sampler`, as `labels`, `fingerprint` and `rows`.
        epochs: that the whole policy is handed out in: `max_epochs` of the trainer.
        weights: whether each example brings the factor of its loss along: the last of a tuple, `weight` of a mapping.
        validation: loaders to validate on.
        loader: options of the training loader: `num_workers`, `collate_fn`, `pin_memory` and so on.

    Attributes:
        sampler: of the fit that runs or ran last; its `ledger()` tells what was spent.

    Raises:
        BundleError, ConfigError, TrainingFunctionError: by `trainer.fit`, before the first batch: the data or the
            trainer's settings are not those of the policy; after the last, not each batch was trained on once.
    """

    sampler: PolicySampler

    # More than six parameters: those of the sampler, and those of a loader.
    def __init__(
        self,
        bundle: Bundle,
        dataset: Any,
        *,
        seed: int | None = None,
        epochs: int = 1,
        weights: bool = False,
        validation: Any = None,
        labels: Any = None,
        fingerprint: str | None = None,
        rows: Sequence[int] | None = None,
        **loader: Any,
    ) -> None:
        super().__init__()
        refuse_decided(loader)
        self.bundle, self.dataset, self.epochs, self.weights = bundle, dataset, epochs, weights
        self._given = {"seed": seed, "labels": labels, "fingerprint": fingerprint, "rows": rows}
        self._loader = loader
        if validation is not None:
            self.val_dataloader = lambda: validation

    def setup(self, stage: str) -> None:
        """Make the batches of a fit, by the trainer's processes and accumulated batches."""
        if stage != "fit":
            return
        trainer = self.trainer
        _refuse_settings(trainer, self.epochs)
        self.sampler = self.bundle.batch_sampler(
            self.dataset,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            epochs=self.epochs,
            **self._given,
        )
        total = self.sampler.total_steps()
        if trainer.max_steps not in (-1, total):
            raise ConfigError(must("max_steps", f"-1, or {total:,} as the policy has", trainer.max_steps))
        self._batches = _WholeEpochs(self.sampler)

    def train_dataloader(self) -> Any:
        """The policy's batches."""
        loader: Any = policy_loader(
            self.sampler, self.dataset, weights=self.weights, batches=self._batches, **self._loader
        )
        # Its state is that of this module. Lightning would warn of a loader without one, when fit goes on.
        loader.state_dict, loader.load_state_dict = dict, lambda state: None
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Where the policy is, by trained updates; goes into checkpoints."""
        return {"sampler": self.sampler.state_dict()} if hasattr(self, "sampler") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the checkpoint's last update, in a fit."""
        if self.trainer.state.fn == "fit" and "sampler" in state_dict:
            self.sampler.load_state_dict(state_dict["sampler"])


class FollowPolicy(Callback):
    """Follows the policy of a `PolicyDataModule`: rates, transitions, counted steps, and whether it was all done.

    The scheduler of the rates is one of the trainer's, so that `LearningRateMonitor` sees it. In one process a
    checkpoint also holds the random state of the next update.
    """

    def __init__(self) -> None:
        self._random: dict[str, Any] | None = None
        self._keeps_random = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a fit on other data than those of a policy."""
        if stage == "fit":
            _data(trainer)
            self._random, self._keeps_random = None, trainer.world_size == 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the rates, and look at the network as it is initialised."""
        _refuse_optimization(trainer, pl_module)
        sampler, optimizer = _data(trainer).sampler, trainer.optimizers[0]
        sampler.on_switch(network=pl_module, optimizer=optimizer)
        scheduler = sampler.scheduler(optimizer)
        trainer.lr_scheduler_configs.append(LRSchedulerConfig(scheduler, interval="step"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that batches come as they are meant to, and go on with the random state of a checkpoint."""
        data = _data(trainer)
        if getattr(trainer.train_dataloader, "batch_sampler", None) is not data._batches:
            raise TrainingFunctionError(
                "the training batches are not those of the policy: something has replaced its loader or batch sampler. "
                "Give fit(datamodule=...) alone, and Trainer(use_distributed_sampler=False)."
            )
        trained, expected = trainer.fit_loop.total_batch_idx + 1, data.sampler.start * data.sampler.slices.accumulate
        if trained != expected:
            raise TrainingFunctionError(
                f"the checkpoint must be written right after an update of this policy, got one after {trained:,} "
                f"batches where the policy is at {expected:,}. Take another one."
            )
        if self._random is not None:
            restore(self._random)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell Lightning how long the epoch is: it keeps the length of the first, and would not validate in others."""
        sampler = _data(trainer).sampler
        if trainer.accumulate_grad_batches != sampler.slices.accumulate:
            rule = f"{sampler.slices.accumulate} in all epochs"
            raise ConfigError(must("accumulate_grad_batches", rule, trainer.accumulate_grad_batches))
        length = sampler.epoch_length
        if trainer.fit_loop.max_batches == length:
            return
        trainer.fit_loop.max_batches = length
        if isinstance(trainer.val_check_interval, float):
            trainer.val_check_batch = max(1, int(length * trainer.val_check_interval))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say whether each batch of the policy was trained on once."""
        _data(trainer).sampler.finish()

    def state_dict(self) -> dict[str, Any]:
        """The random state, for checkpoints."""
        return {"random": capture()} if self._keeps_random else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from a checkpoint."""
        self._random = state_dict.get("random") if self._keeps_random else None


def _data(trainer: Trainer) -> PolicyDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, PolicyDataModule):
        raise ConfigError(
            must("datamodule", "a PolicyDataModule", data, "Call trainer.fit(model, datamodule=PolicyDataModule(...)).")
        )
    return data


def _refuse_settings(trainer: Trainer, epochs: int) -> None:
    """Refuse a trainer that would leave out, repeat or exchange batches."""
    if not any(isinstance(callback, FollowPolicy) for callback in trainer.callbacks):
        raise ConfigError("callbacks must have FollowPolicy() beside a PolicyDataModule. Add it: it sets the rates.")
    whole = "The policy is judged by what all of its batches give."
    rules = (
        (
            "max_epochs",
            epochs,
            f"{epochs}, as PolicyDataModule(epochs={epochs})",
            "All epochs together are the policy.",
        ),
        ("overfit_batches", 0.0, "0.0", whole),
        ("limit_train_batches", 1.0, "1.0", whole),
        ("reload_dataloaders_every_n_epochs", 0, "0", "The batches of all epochs are those of one sampler."),
    )
    for name, wanted, rule, advice in rules:
        found = getattr(trainer, name)
        if found != wanted or (
            isinstance(wanted, float) and not isinstance(found, float)
        ):  # 1 is one batch, 1.0 is all
            raise ConfigError(must(name, rule, found, advice))
    replaces = getattr(trainer._accelerator_connector, "use_distributed_sampler", False)
    if trainer.world_size > 1 and replaces:
        advice = "Each process takes its slice of a batch; another sampler would take them apart once more."
        raise ConfigError(must("use_distributed_sampler", "False with several processes", True, advice))


def _refuse_optimization(trainer: Trainer, module: LightningModule) -> None:
    """Refuse what somebody else counts or sets the rates of."""
    if not module.automatic_optimization:
        advice = "Lightning then steps no scheduler: write the loop yourself, around Bundle.batch_sampler."
        raise ConfigError(must("automatic_optimization", "True", False, advice))
    if len(trainer.optimizers) != 1:
        raise ConfigError(must("configure_optimizers", "one optimizer", f"{len(trainer.optimizers)} of them"))
    if trainer.lr_scheduler_configs:
        found = type(trainer.lr_scheduler_configs[0].scheduler).__name__
        advice = "The policy has the schedule of the rates."
        raise ConfigError(must("configure_optimizers", "an optimizer without a scheduler", found, advice))
