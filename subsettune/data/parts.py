"""The data of a task as training sees them: three parts of one mapped file, normalised on the way out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from subsettune.data.arrays import Arrays

STATISTICS_ROWS = 8192
GPU_SHARE = 0.4  # of free memory that data may take; the rest is the network's


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalizer:
    """Subtracts a mean and divides by a standard deviation, both of the training part.

    Args:
        mean: broadcastable over a batch: (1, c, 1, 1) for images, (1, d) else; in units of the stored inputs.
        std: likewise; 1 where the training part is constant.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, inputs: Tensor, rows: Tensor) -> Normalizer:
        """Mean and standard deviation by channel of images, else by feature, in float64 over `rows` of `inputs`."""
        axes = (0, 2, 3) if inputs.dim() == 4 else (0,)
        first = torch.zeros((), dtype=torch.float64)
        second = torch.zeros((), dtype=torch.float64)
        count = 0
        for block in rows.split(STATISTICS_ROWS):
            values = inputs[block].double()
            first = first + values.sum(dim=axes, keepdim=True)
            second = second + values.square().sum(dim=axes, keepdim=True)
            count += values.numel() // values.sum(dim=axes).numel()
        mean = first / count
        std = (second / count - mean.square()).clamp_min(0).sqrt()
        constant = std <= 1e-7 * mean.abs().clamp_min(1.0)  # rounding leaves a trace where nothing varies
        return cls(mean=mean.float(), std=torch.where(constant, 1.0, std).float())


@dataclass(frozen=True, slots=True)
class Part:
    """Training, validation or test examples.

    Args:
        inputs: (n_all, ...) of the whole file, stored form.
        all_targets: (n_all,) of the whole file.
        rows: (n,) int64 rows of this part.
        normalizer: of the training part.
        device: where batches come out.
    """

    inputs: Tensor
    all_targets: Tensor
    rows: Tensor
    normalizer: Normalizer
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Tensor:
        """(n,) int64 classes, or float32 values."""
        return self.all_targets[self.rows]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised inputs (b, ...) float32 and targets (b,) at positions `index` (b,) int64 of this part."""
        rows = self.rows[index.to(self.rows.device)]
        targets = self.all_targets.index_select(0, rows).to(self.device, non_blocking=True)
        inputs = self.inputs.index_select(0, rows).to(self.device, non_blocking=True).float()
        return inputs.sub_(self.normalizer.mean).div_(self.normalizer.std), targets

    def to(self, device: torch.device) -> Part:
        """The part with batches on `device`; the stored inputs move there too if they fit."""
        if device == self.device:
            return self
        normalizer = Normalizer(mean=self.normalizer.mean.to(device), std=self.normalizer.std.to(device))
        moved = Part(self.inputs, self.all_targets, self.rows, normalizer, device)
        size = self.inputs[0].numel() * self.inputs.element_size() * len(self)
        if device.type != "cuda" or size > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return moved
        own = torch.arange(len(self), device=device)
        return Part(self.inputs[self.rows].to(device), self.targets.to(device), own, normalizer, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """The data of a task.

    Args:
        train: what every run trains on.
        validation: what the search is judged on.
        test: what verification is judged on, and nothing else touches.
        fingerprint: SHA-256 of the content and of how it is split.
        kind: `classification` or `regression`.
        num_outputs: classes, or target columns.
        num_classes: 0 for a regression.
        input_shape: of one example.
        class_names: of a classification.
        num_source_examples: rows of the training file.
        target_mean: of the training part's targets; 0 for a classification.
        target_std: likewise; 1 for a classification.
    """

    train: Part
    validation: Part
    test: Part
    fingerprint: str
    kind: str
    num_outputs: int
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    num_source_examples: int
    target_mean: float | Tensor = 0.0
    target_std: float | Tensor = 1.0

    @property
    def num_features(self) -> int:
        """Numbers in one example."""
        return int(torch.Size(self.input_shape).numel())

    @property
    def class_counts(self) -> Tensor:
        """(classes,) training examples of each class; empty for a regression."""
        if not self.num_classes:
            return torch.zeros(0, dtype=torch.int64)
        return torch.bincount(self.train.targets, minlength=self.num_classes)


def assemble(arrays: Arrays, rows: dict[str, Tensor], fingerprint: str) -> TaskData:
    """Cut a data set into the parts of a task.

    Args:
        arrays: the whole data set.
        rows: of each part.
        fingerprint: of content and split.
    """
    normalizer = Normalizer.fit(arrays.inputs, rows["train"])
    parts = {name: Part(arrays.inputs, arrays.targets, part, normalizer) for name, part in rows.items()}
    num_classes = len(arrays.meta.classes)
    data = TaskData(
        **parts,
        fingerprint=fingerprint,
        kind=arrays.meta.kind,
        num_outputs=num_classes or int(arrays.targets[0].numel()),
        num_classes=num_classes,
        input_shape=arrays.meta.shape,
        class_names=arrays.meta.classes,
        num_source_examples=arrays.meta.num_train,
    )
    return data if num_classes else _with_target_scale(data)


def _with_target_scale(data: TaskData) -> TaskData:
    """Mean and spread of a regression's targets: the loop trains on standardised ones, the metric is in their units."""
    targets = data.train.targets.double()
    mean, std = targets.mean(dim=0), targets.std(dim=0, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    if targets.dim() == 1:
        return replace(data, target_mean=float(mean), target_std=float(std))
    return replace(data, target_mean=mean.float(), target_std=std.float())
