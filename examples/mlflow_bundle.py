"""Keep a bundle in MLflow, and train by what is read back: python examples/mlflow_bundle.py BUNDLE [TRACKING_URI]."""

import sys

import mlflow
import torch
from sklearn.datasets import load_digits

from subsettune.integrations.mlflow_bundle import load_bundle, log_bundle
from subsettune.train import optimizers

mlflow.set_tracking_uri(sys.argv[2] if len(sys.argv) > 2 else "sqlite:///mlflow.db")
uri = log_bundle(sys.argv[1])  # once, when a study has found it: a run of its own

bundle = load_bundle(uri)  # wherever it is followed
x, y = load_digits(return_X_y=True)
inputs, targets = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
torch.manual_seed(bundle.seed)
network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = optimizers.make(bundle.recipe, network)
sampler = bundle.batch_sampler((x, y))
sampler.on_switch(network=network, optimizer=optimizer)
scheduler = sampler.scheduler(optimizer)
with mlflow.start_run(tags={"follows": uri}):
    for rows, weights in sampler.batches():
        losses = torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows], reduction="none")
        loss = (losses if weights is None else losses * torch.from_numpy(weights)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    mlflow.log_metrics({"loss": loss.item(), "flops": sampler.finish().spent})
print(uri)
