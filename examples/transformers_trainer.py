"""A bundle of the digits followed by a transformers Trainer: python transformers_trainer.py BUNDLE FOLDER."""

import sys

import torch
from sklearn.datasets import load_digits
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

from subsettune import Bundle
from subsettune.integrations.transformers import PolicyTrainer


class Digits(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.images, self.labels = load_digits().images.astype("float32") / 16, load_digits().target

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, object]:
        return {"pixel_values": torch.tensor(self.images[row])[None], "labels": int(self.labels[row])}


def main(folder: str, output: str) -> None:
    bundle = Bundle.load(folder)
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 48}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **shape))
    recipe = {"per_device_train_batch_size": bundle.recipe.batch_size, "learning_rate": bundle.recipe.lr}
    clip = bundle.recipe.grad_clip or 0
    arguments = TrainingArguments(output, num_train_epochs=1, max_grad_norm=clip, **recipe)  # one epoch: the policy
    trainer = PolicyTrainer(model, arguments, bundle=bundle, train_dataset=Digits())
    trainer.train()
    print(f"{len(trainer.sampler)} updates, {trainer.sampler.ledger().total / 1e6:.1f} MFLOP as promised")


if __name__ == "__main__":
    main(*sys.argv[1:])
