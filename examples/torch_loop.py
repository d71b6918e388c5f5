"""A bundle of the digits followed by a loop of one's own: python torch_loop.py BUNDLE [workers], or under torchrun."""

import os
import sys

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from subsettune import Bundle
from subsettune.train import optimizers


def main(folder: str, num_workers: int = 0) -> None:
    bundle, digits = Bundle.load(folder), load_digits()
    dataset = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = optimizers.make(bundle.recipe, model)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        torch.distributed.init_process_group("gloo")
        model = torch.nn.parallel.DistributedDataParallel(model)  # first: all processes then begin with one network
    sampler = bundle.batch_sampler(dataset, rank=rank, world_size=processes)
    sampler.on_switch(network=model, optimizer=optimizer)  # carries out the transitions
    scheduler = sampler.scheduler(optimizer)  # the rates, and the count of updates
    for inputs, targets in DataLoader(dataset, batch_sampler=sampler, num_workers=num_workers):
        losses, weights = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none"), sampler.weights
        optimizer.zero_grad()
        (losses if weights is None else losses * torch.from_numpy(weights)).mean().backward()
        optimizer.step()
        scheduler.step()
    ledger = sampler.finish()  # refuses batches that were left out or repeated
    print(f"{len(sampler)} updates, {ledger.total / 1e6:.1f} MFLOP as promised")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
