"""A bundle's policy in a loop with accelerate.

network, optimizer = accelerator.prepare(network, optimizer)
policy = AcceleratedPolicy(accelerator, bundle, dataset, network, optimizer)
for inputs, targets in policy.loader:
    with accelerator.accumulate(network):
        accelerator.backward(losses(network(inputs), targets).mean())
        optimizer.step()
        policy.step()
        optimizer.zero_grad()
policy.finish()

Processes and accumulated batches are those of the accelerator. `accelerator.save_state` and `load_state` keep where the
policy is; the loader then begins at the next batch, and nothing is to be skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from subsettune.bundle import Bundle
from subsettune.extras import needed_for
from subsettune.ledger import Ledger
from subsettune.train.follow.loader import policy_loader

with needed_for("subsettune.integrations.accelerate"):
    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader

__all__ = ["AcceleratedPolicy"]


class AcceleratedPolicy:
    """The batches of a policy on the accelerator's device, with its rates and transitions.

    Args:
        accelerator: whose processes take slices of each batch, and whose accumulated batches are slices of it, too.
        bundle: to be followed.
        dataset: map-style, all rows of the study's training file.
        network: as it is initialised; prepared first, so that all processes begin with the same one.
        optimizer: of the network, prepared or not.
        seed: see `Bundle.batch_sampler`, as `labels`, `fingerprint` and `rows`.
        weights: whether each example brings the factor of its loss along: the last of a tuple, `weight` of a mapping.
        options: of the loader: `num_workers`, `collate_fn`, `pin_memory` and so on.

    Attributes:
        loader: of one epoch, the whole policy. It was split already: `accelerator.prepare` leaves it as it is.
        sampler: whose `ledger()` tells what was spent.

    Raises:
        BundleError, ConfigError, TrainingFunctionError: see `Bundle.batch_sampler`; or the policy weighs its examples,
            and nobody asked for the weights.
    """

    # More than six parameters: those of the sampler, the host's, and what is trained.
    def __init__(
        self,
        accelerator: Accelerator,
        bundle: Bundle,
        dataset: Any,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int | None = None,
        weights: bool = False,
        labels: Any = None,
        fingerprint: str | None = None,
        rows: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        self._accelerator = accelerator
        self.sampler = bundle.batch_sampler(
            dataset,
            seed=seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            accumulate=accelerator.gradient_accumulation_steps,
            labels=labels,
            fingerprint=fingerprint,
            rows=rows,
        )
        self.loader = self._prepared(policy_loader(self.sampler, dataset, weights=weights, **options))
        self.sampler.on_switch(network=accelerator.unwrap_model(network), optimizer=optimizer)
        self._scheduler = self.sampler.scheduler(optimizer)
        accelerator.register_for_checkpointing(self)

    def _prepared(self, loader: DataLoader[Any]) -> Any:
        """The loader on the accelerator's device, as of one process: its batches are this one's slices already."""
        place = self._accelerator
        prepared = prepare_data_loader(
            loader, place.device, num_processes=1, process_index=0, put_on_device=place.device_placement
        )
        prepared._is_accelerate_prepared = True
        return prepared

    def step(self) -> None:
        """After `optimizer.step()`: counts the update, where this was the last of its backward passes."""
        if self._accelerator.sync_gradients:
            self._scheduler.step()

    def finish(self) -> Ledger:
        """Call it last: see `PolicySampler.finish`."""
        return self.sampler.finish()

    def state_dict(self) -> dict[str, Any]:
        """What `accelerator.save_state` keeps."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `accelerator.load_state` goes on from."""
        self.sampler.load_state_dict(state)
