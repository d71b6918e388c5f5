"""One of several processes that train a network together by a host: `host_ranks.py HOST FOLDER`, under torchrun.

FOLDER has a bundle and `given.pt`; each rank leaves what it trained on, and what became of the network, beside them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from subsettune import Bundle, models

Seen = list[list[tuple[int, float]]]  # rows and weights of each batch


def loss_of(network: nn.Module, batch: Any, seen: Seen) -> torch.Tensor:
    """Of a batch of (rows, inputs, targets, weights)."""
    rows, inputs, targets, weights = batch
    seen.append(list(zip(rows.tolist(), weights.tolist(), strict=True)))
    losses: torch.Tensor = nn.functional.cross_entropy(network(inputs), targets, reduction="none") * weights
    return losses.mean()


def by_torch(bundle: Bundle, dataset: TensorDataset, network: nn.Module, optimizer: Any) -> tuple[Seen, Any]:
    torch.distributed.init_process_group("gloo")
    seen: Seen = []
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    sampler = bundle.batch_sampler(dataset, rank=rank, world_size=world, labels=False)
    parallel, scheduler = DistributedDataParallel(network), sampler.scheduler(optimizer)
    sampler.on_switch(network=parallel, optimizer=optimizer)
    for batch in DataLoader(sampler.weighted(dataset), batch_sampler=sampler, num_workers=1):
        optimizer.zero_grad()
        loss_of(parallel, batch, seen).backward()
        optimizer.step()
        scheduler.step()
    return seen, sampler.finish()


def by_accelerate(bundle: Bundle, dataset: TensorDataset, network: nn.Module, optimizer: Any) -> tuple[Seen, Any]:
    from accelerate import Accelerator

    from subsettune.integrations.accelerate import AcceleratedPolicy

    seen: Seen = []
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    policy = AcceleratedPolicy(accelerator, bundle, dataset, prepared, optimizer, weights=True, labels=False)
    for batch in accelerator.prepare(policy.loader):  # which it must leave as it is
        with accelerator.accumulate(prepared):
            accelerator.backward(loss_of(prepared, batch, seen))
            optimizer.step()
            policy.step()
            optimizer.zero_grad()
    return seen, policy.finish()


def by_lightning(bundle: Bundle, dataset: TensorDataset, network: nn.Module, optimizer: Any) -> tuple[Seen, Any]:
    import lightning

    from subsettune.integrations.lightning import FollowPolicy, PolicyDataModule

    seen: Seen = []

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return loss_of(self.network, batch, seen)

        def configure_optimizers(self) -> Any:
            return optimizer

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    data = PolicyDataModule(bundle, dataset, weights=True, labels=False, num_workers=1)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        use_distributed_sampler="WITH_SAMPLER" in os.environ,
        callbacks=[FollowPolicy()],
        **quiet,
    )
    trainer.fit(Module(), datamodule=data)
    return seen, data.sampler.ledger()


def by_transformers(bundle: Bundle, dataset: TensorDataset, network: nn.Module, optimizer: Any) -> tuple[Seen, Any]:
    from transformers import TrainingArguments

    from subsettune.integrations.transformers import PolicyTrainer

    seen: Seen = []

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, rows: Any, inputs: Any, labels: Any) -> Any:
            if self.training:
                seen.append([(row, 1.0) for row in rows.tolist()])
            logits = self.network(inputs)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Named(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, row: int) -> Any:
            return dict(zip(("rows", "inputs", "labels"), dataset[row], strict=True))

    arguments = TrainingArguments(
        str(Path(sys.argv[2], "out")),
        num_train_epochs=1,
        per_device_train_batch_size=-(-bundle.recipe.batch_size // 2),
        max_grad_norm=0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = PolicyTrainer(
        Model(), arguments, bundle=bundle, train_dataset=Named(), labels=False, optimizers=(optimizer, None)
    )
    trainer.train()
    return seen, trainer.sampler.ledger()


def main(host: str, folder: Path) -> None:
    """Train, and leave what came of it."""
    bundle, given = Bundle.load(folder / "bundle"), torch.load(folder / "given.pt")
    rows, inputs, targets = given["tensors"]
    network = models.make(bundle.task.model, tuple(inputs.shape[1:]), int(targets.max()) + 1)
    if os.environ["RANK"] == "0":  # the others get it from there
        network.load_state_dict(given["network"])
    recipe = bundle.recipe
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum or 0, weight_decay=recipe.weight_decay
    )
    seen, ledger = globals()[f"by_{host}"](bundle, TensorDataset(rows, inputs, targets), network, optimizer)
    vector = nn.utils.parameters_to_vector(network.parameters()).detach()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.save({"seen": seen, "weights": vector, "flops": ledger.total}, folder / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
