"""A bundle of the digits followed by Lightning: python lightning_module.py BUNDLE [devices]."""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from subsettune import Bundle
from subsettune.integrations.lightning import FollowPolicy, PolicyDataModule


class Classifier(lightning.LightningModule):
    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.recipe = bundle.recipe
        self.network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        inputs, targets, weights = batch
        return (torch.nn.functional.cross_entropy(self.network(inputs), targets, reduction="none") * weights).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decay = self.recipe.weight_decay
        return torch.optim.SGD(self.parameters(), self.recipe.lr, self.recipe.momentum or 0, weight_decay=decay)


def main(folder: str, devices: int = 1) -> None:
    bundle, digits = Bundle.load(folder), load_digits()
    dataset = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))
    data = PolicyDataModule(bundle, dataset, weights=True)
    trainer = lightning.Trainer(max_epochs=1, devices=devices, callbacks=FollowPolicy(), use_distributed_sampler=False)
    trainer.fit(Classifier(bundle), datamodule=data)
    print(f"{len(data.sampler)} updates, {data.sampler.ledger().total / 1e6:.1f} MFLOP as promised")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
