"""Ray Train: a bundle followed by the training function of a `TorchTrainer`, on one worker or many.

def train(config):
    sampler = ray_train.batch_sampler(bundle, dataset)
    loader = ray_train.prepare_loader(DataLoader(dataset, batch_sampler=sampler))
    ray_train.resume(sampler, network=network, optimizer=optimizer)
    for inputs, targets in loader:
        ...
        scheduler.step()
        ray_train.report({"loss": loss}, sampler, network=network, optimizer=optimizer)
    sampler.finish()

Each worker takes its slice of every batch, and its losses have weights such that the mean that DistributedDataParallel
takes of the workers' gradients is the gradient of the batch. Ray's own sampler must stay out of it:
`prepare_data_loader` would put it in the place of the policy's batches, and says nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from subsettune.bundle import Bundle
from subsettune.errors import BundleError, TrainingFunctionError
from subsettune.extras import needed_for
from subsettune.train.follow.sampler import PolicySampler
from subsettune.train.randomness import capture, restore

with needed_for("subsettune.integrations.ray_train", extra="ray-train"):
    import ray.train
    import ray.train.torch

__all__ = ["batch_sampler", "prepare_loader", "report", "resume"]
_STATE = "subsettune.pt"


def batch_sampler(bundle: Bundle, data: Any, **options: Any) -> PolicySampler:
    """This worker's slices of the batches of a policy; to be called in the training function.

    Args:
        bundle: to be followed.
        data: all rows of the training file, as `Bundle.batch_sampler` takes them.
        options: as that takes them; rank and world size are those of the context.

    Raises:
        BundleError, ConfigError: as of `Bundle.batch_sampler`.
    """
    context = ray.train.get_context()
    place = {"rank": context.get_world_rank(), "world_size": context.get_world_size()}
    return bundle.batch_sampler(data, **place, **options)


def prepare_loader(loader: DataLoader[Any], **options: Any) -> DataLoader[Any]:
    """`ray.train.torch.prepare_data_loader` that leaves the policy's batches alone; it moves them to the device.

    Args:
        loader: with a sampler of `batch_sampler`.
        options: of `prepare_data_loader`.

    Raises:
        TrainingFunctionError: the loader has other batches.
    """
    if not isinstance(loader.batch_sampler, PolicySampler):
        found = type(loader.batch_sampler).__name__
        raise TrainingFunctionError(
            f"batch_sampler of the loader must be that of the policy, got {found}. Make it so: DataLoader(dataset, "
            "batch_sampler=ray_train.batch_sampler(bundle, dataset))."
        )
    prepared: DataLoader[Any] = ray.train.torch.prepare_data_loader(loader, **{**options, "add_dist_sampler": False})
    return prepared


def report(
    metrics: Mapping[str, Any], sampler: PolicySampler, *, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Report with a checkpoint that `resume` goes on from; to be called by every worker, after an update.

    Args:
        metrics: as `ray.train.report` takes them.
        sampler: whose batches are trained on.
        network: that is trained; a wrapper of DistributedDataParallel is left out of the checkpoint.
        optimizer: of the network.
    """
    rank = ray.train.get_context().get_world_rank()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(capture(), Path(folder, _random(rank)))
        if rank == 0:
            parts: dict[str, Any] = {"network": _bare(network), "optimizer": optimizer, "sampler": sampler}
            torch.save({name: part.state_dict() for name, part in parts.items()}, Path(folder, _STATE))
        ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))


def resume(sampler: PolicySampler, *, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Go on behind the last update that was reported, if any was; before the first batch, also on fewer workers.

    Args:
        sampler: of `batch_sampler`; its scheduler and its switches go on with it.
        network: as `prepare_model` gave it.
        optimizer: of the network.

    Returns:
        Whether there was anything to go on from.

    Raises:
        BundleError: the checkpoint is of another policy, seed or data, or was not written by `report`.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return False
    with checkpoint.as_directory() as folder:
        if not Path(folder, _STATE).exists():
            raise BundleError(
                f"the checkpoint must hold {_STATE}, got {checkpoint.path}. Write it by ray_train.report."
            )
        state = torch.load(Path(folder, _STATE), map_location="cpu")  # network and optimizer take it to their device
        random = Path(folder, _random(ray.train.get_context().get_world_rank()))
        drawn = torch.load(random) if random.exists() else None  # a worker that was not there has a state of its own
    _bare(network).load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    sampler.load_state_dict(state["sampler"])
    if drawn is not None:
        restore(drawn)
    return True


def _random(rank: int) -> str:
    return f"random-{rank}.pt"


def _bare(network: nn.Module) -> nn.Module:
    return network.module if isinstance(network, DistributedDataParallel) else network
