"""A bundle of the digits followed with accelerate: accelerate launch accelerate_loop.py BUNDLE."""

import sys

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from subsettune import Bundle
from subsettune.integrations.accelerate import AcceleratedPolicy
from subsettune.train import optimizers


def main(folder: str) -> None:
    bundle, digits = Bundle.load(folder), load_digits()
    dataset = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
    torch.manual_seed(bundle.seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = optimizers.make(bundle.recipe, model)

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(model, optimizer)
    policy = AcceleratedPolicy(accelerator, bundle, dataset, model, optimizer, weights=True)
    for inputs, targets, weights in policy.loader:
        with accelerator.accumulate(model):
            losses = cross_entropy(model(inputs), targets, reduction="none")
            accelerator.backward((losses * weights).mean())
            optimizer.step()
            policy.step()  # the rates, the transitions and the count of updates
            optimizer.zero_grad()
    ledger = policy.finish()  # refuses batches that were left out or repeated
    accelerator.print(f"{policy.sampler.total_steps()} updates, {ledger.total / 1e6:.1f} MFLOP as promised")


if __name__ == "__main__":
    main(sys.argv[1])
