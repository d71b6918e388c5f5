"""Training functions for Ray Train's workers, which note what they trained on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import small_bundles
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

from subsettune import Bundle
from subsettune.integrations import ray_train


def train(config: dict[str, Any]) -> None:
    """Follow a bundle; `kill_at` is the step at which the last worker dies, once."""
    torch.set_num_threads(1)
    bundle, folder = Bundle.load(config["bundle"]), Path(config["folder"])
    inputs, targets = torch.load(folder / "data.pt")
    dataset = TensorDataset(inputs, targets, torch.arange(len(inputs)))
    network = ray.train.torch.prepare_model(small_bundles.network(bundle.task))
    recipe = bundle.recipe
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum or 0, weight_decay=recipe.weight_decay
    )
    sampler = ray_train.batch_sampler(bundle, (inputs, targets), labels=False)  # those of rows held out are not there
    sampler.on_switch(network=network, optimizer=optimizer)
    scheduler = sampler.scheduler(optimizer)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=config.get("num_workers", 0))
    loader = ray_train.prepare_loader(loader)
    is_resumed = ray_train.resume(sampler, network=network, optimizer=optimizer)
    rank, size = sampler.slices.rank, sampler.slices.world_size
    notes: dict[str, Any] = {"begin": sampler.step, "is_resumed": is_resumed, "rows": [], "weights": []}
    for x, y, rows in loader:
        step, weights = sampler.step, sampler.weights
        if step == config.get("kill_at") and rank == size - 1 and not is_resumed:
            os.kill(os.getpid(), signal.SIGKILL)
        if weights is None:
            loss = cross_entropy(network(x), y)
        else:
            loss = (cross_entropy(network(x), y, reduction="none") * torch.from_numpy(weights)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        notes["rows"].append(rows.tolist())
        notes["weights"].append(None if weights is None else weights.tolist())
        if config.get("kill_at") is not None and (step + 1) % 8 == 0:
            ray_train.report({"loss": float(loss)}, sampler, network=network, optimizer=optimizer)
    ledger = sampler.finish()
    notes |= {"trained": ledger.forward + ledger.backward, "select": ledger.select}
    (folder / f"notes-{rank}-of-{size}.json").write_text(json.dumps(notes))
    if rank == 0:
        torch.save(parameters_to_vector(network.parameters()).detach(), folder / "weights.pt")


def train_on_what_ray_gives(config: dict[str, Any]) -> None:
    """Let Ray put its own sampler in the place of the policy's batches, without a word of it."""
    bundle = Bundle.load(config["bundle"])
    _, targets = torch.load(Path(config["folder"], "data.pt"))
    sampler = ray_train.batch_sampler(bundle, len(targets))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    sampler.on_switch(lambda switch: switch.done())
    scheduler = sampler.scheduler(optimizer)
    for _ in ray.train.torch.prepare_data_loader(DataLoader(TensorDataset(targets, targets), batch_sampler=sampler)):
        optimizer.step()
        scheduler.step()
