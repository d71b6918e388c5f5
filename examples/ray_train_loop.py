"""Follow a bundle of scikit-learn's digits in Ray Train on two workers: python examples/ray_train_loop.py BUNDLE."""

import sys
from pathlib import Path

import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from sklearn.datasets import load_digits

from subsettune import Bundle
from subsettune.integrations import ray_train
from subsettune.train import optimizers


def train(config):
    bundle = Bundle.load(config["bundle"])
    data = torch.utils.data.TensorDataset(*map(torch.tensor, load_digits(return_X_y=True)))
    torch.manual_seed(bundle.seed)
    network = prepare_model(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)))
    optimizer = optimizers.make(bundle.recipe, network)
    sampler = ray_train.batch_sampler(bundle, data)  # this worker's slices of the batches
    sampler.on_switch(network=network, optimizer=optimizer)
    scheduler = sampler.scheduler(optimizer)
    loader = torch.utils.data.DataLoader(sampler.weighted(data), batch_sampler=sampler)
    ray_train.resume(sampler, network=network, optimizer=optimizer)
    for inputs, targets, weights in ray_train.prepare_loader(loader):
        losses = torch.nn.functional.cross_entropy(network(inputs.float() / 16), targets, reduction="none")
        optimizer.zero_grad()
        (losses * weights).mean().backward()
        optimizer.step()
        scheduler.step()
        if sampler.step % 20 == 0:
            ray_train.report({"step": sampler.step}, sampler, network=network, optimizer=optimizer)
    print(sampler.finish())


place = {"bundle": str(Path(sys.argv[1]).resolve())}
TorchTrainer(train, train_loop_config=place, scaling_config=ScalingConfig(num_workers=2)).fit()
