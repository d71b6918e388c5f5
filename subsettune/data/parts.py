"""The data of a task as training sees them: three parts of one mapped file, encoded on the way out.

A part knows which rows are its own and copies none of them; `batch` reads rows, moves them to the device and encodes
them. On a GPU the stored bytes move there once, where they fit.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from subsettune.data.arrays import Arrays, Meta
from subsettune.data.columns import SourceFacts
from subsettune.data.distort import distorted
from subsettune.data.encode import Encoder, Normalizer, TokenIds, float32
from subsettune.data.labels import category_suspicions, suspicions
from subsettune.data.layout import OWN_IDS
from subsettune.task import Corruption

# Examples that go through a network at a time where nothing is trained. MNIST cnn [16, 32] on one core: 128 take
# 0.13 ms an example, 1,024 take 0.23, out of its cache.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2048}
GPU_SHARE = 0.4  # of free memory that data may take; the rest is the network's


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Part:
    """Training, validation or test examples.

    Args:
        inputs: (n_all, ...) stored form, of the whole file or of this part only.
        all_targets: (n_all,) or (n_all, m), of the whole file or of this part only, as the inputs are.
        rows: (n,) int64 rows of this part in the file, on the CPU; copies of a repeated example share a row.
        encoder: what the training part makes of stored inputs.
        device: where batches come out.
        lookup: (n,) int64 where each example lies in `inputs`, on their device; default: `rows`.
        all_embeddings: (n_all, e) float32 of the whole file, on the CPU, if the data hold any.
    """

    inputs: Tensor
    all_targets: Tensor
    rows: Tensor
    encoder: Normalizer | Encoder | TokenIds
    device: torch.device = torch.device("cpu")
    lookup: Tensor | None = None
    all_embeddings: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Tensor:
        """(n,) int64 classes, or (n,) or (n, m) float32 or float64 values."""
        return self.all_targets.index_select(0, self.rows if self.lookup is None else self.lookup)

    @property
    def embeddings(self) -> Tensor | None:
        """(n, e) float32 embeddings in the order of this part, on the CPU; None where the data hold none."""
        return None if self.all_embeddings is None else self.all_embeddings.index_select(0, self.rows)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, ...) and targets (b,) or (b, m) at positions `index` (b,) int64 of this part.

        Inputs are float32, encoded; token ids of texts are (b, t) int64. The hot path: `index_select` takes a fifth of
        the time of `[]` here.
        """
        inputs, targets = self.stored(index)
        return self.encoder(inputs), targets

    def stored(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of inputs (b, ...) as they are stored, not yet encoded, and targets (b,) or (b, m), on the device."""
        lookup = self.rows if self.lookup is None else self.lookup
        rows = lookup.index_select(0, index.to(lookup.device))
        inputs, targets = self.inputs.index_select(0, rows), self.all_targets.index_select(0, rows)
        if inputs.device != self.device:
            inputs, targets = inputs.to(self.device), targets.to(self.device)
        return inputs, targets

    def to(self, device: torch.device) -> Part:
        """The part with batches on `device`; the stored inputs move there too if they fit, once in a process."""
        if device == self.device:
            return self
        copies = _MOVED.setdefault(self, {})
        if device not in copies:
            copies[device] = self._moved(device)
        return copies[device]

    def _moved(self, device: torch.device) -> Part:
        encoder = self.encoder.to(device)
        size = self.inputs[0].numel() * self.inputs.element_size() * len(self)
        if device.type == "cuda" and size > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return replace(self, encoder=encoder, device=device)
        lookup = self.rows if self.lookup is None else self.lookup
        return Part(
            inputs=self.inputs.index_select(0, lookup).to(device),
            all_targets=self.targets.to(device),
            rows=self.rows,
            encoder=encoder,
            device=device,
            lookup=torch.arange(len(self), device=device),
            all_embeddings=self.all_embeddings,
        )


_MOVED: weakref.WeakKeyDictionary[Part, dict[torch.device, Part]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """The data of a task.

    Args:
        train: what every run trains on.
        validation: what the search is judged on.
        test: what verification is judged on, and nothing else touches.
        fingerprint: SHA-256 of the content, of how it is split, and of how it is distorted.
        kind: `classification`, `regression` or `multilabel`.
        num_outputs: classes, labels, or target columns.
        num_classes: 0 for a regression.
        input_shape: of one example as networks see it, categories one-hot.
        class_names: of a classification.
        num_source_examples: rows of the training file.
        target_mean: of the training part's targets; 0 for a classification.
        target_std: standard deviation of the training part's targets; 1 for a classification.
        num_embedding: numbers in the embedding of an example; 0 without embeddings.
        num_tokens: size of the vocabulary, padding and unknown included, where the inputs are token ids; else 0.
        notes: sentences about names of classes and about inputs that are not what they seem.
        tokens: what they are ids of: `words` or `bytes` of texts, or `ids` of the user's own; else empty.
        taken: what an example was taken for, where its shape leaves that open: see `layout.taken_for`.
        facts: what was found in the source; None where the data were loaded by their fingerprint.
        meta: what the arrays are that the parts are cut from; None of data that were made up.
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
    num_embedding: int = 0
    num_tokens: int = 0
    notes: tuple[str, ...] = ()
    tokens: str = ""
    taken: str = ""
    facts: SourceFacts | None = None
    meta: Meta | None = None

    @property
    def from_files(self) -> dict[str, bool]:
        """Whether the validation and the test part are official files; other parts are rows of the training file."""
        parts = {"validation": self.validation, "test": self.test}
        return {name: int(part.rows.min()) >= self.num_source_examples for name, part in parts.items()}

    @property
    def num_features(self) -> int:
        """Numbers in one example; of a text its tokens."""
        return int(torch.Size(self.input_shape).numel())

    @property
    def class_counts(self) -> Tensor:
        """(classes,) training examples of each class; empty for a regression."""
        if not self.num_classes:
            return torch.zeros(0, dtype=torch.int64)
        return torch.bincount(self.train.targets, minlength=self.num_classes)


def assemble(
    arrays: Arrays,
    rows: dict[str, Tensor],
    fingerprint: str,
    distortion: Corruption | None = None,
    vocabulary: int | None = None,
) -> TaskData:
    """Cut a data set into the parts of a task; all statistics are those of the training part as it is trained on.

    Args:
        arrays: the whole data set.
        rows: of each part.
        fingerprint: of content, split and distortion.
        distortion: of the training part.
        vocabulary: words of texts that are told apart; None for all.

    Raises:
        DataError: the distortion leaves a class without training examples.
    """
    targets, train_rows = arrays.targets, rows["train"]
    if distortion is not None:
        targets, train_rows = distorted(targets, train_rows, distortion, arrays.meta.classes)
    encoder = _encoder(arrays, train_rows, vocabulary)
    train = Part(arrays.inputs, targets, train_rows, encoder, all_embeddings=arrays.embeddings)
    num_classes = len(arrays.meta.classes)
    data = TaskData(
        train=train,
        validation=replace(train, rows=rows["validation"]),
        test=replace(train, rows=rows["test"]),
        fingerprint=fingerprint,
        kind=arrays.meta.kind,
        num_outputs=num_classes or int(arrays.targets[0].numel()),
        num_classes=num_classes,
        input_shape=_shape(arrays, encoder),
        class_names=arrays.meta.classes,
        num_source_examples=arrays.meta.num_train,
        num_embedding=arrays.meta.num_embedding,
        num_tokens=encoder.size if isinstance(encoder, TokenIds) else 0,
        notes=_notes(arrays.meta),
        tokens=arrays.meta.tokens,
        taken="" if arrays.facts is None else arrays.facts.taken,
        facts=arrays.facts,
        meta=arrays.meta,
    )
    return with_target_scale(data) if arrays.meta.kind == "regression" else data


def _notes(meta: Meta) -> tuple[str, ...]:
    return (*suspicions(meta.classes), *category_suspicions(meta.columns, meta.categories), *meta.notes)


def _shape(arrays: Arrays, encoder: Normalizer | Encoder | TokenIds) -> tuple[int, ...]:
    if isinstance(encoder, TokenIds):
        return (encoder.length,)
    return (encoder.width,) if isinstance(encoder, Encoder) else arrays.meta.shape


def _encoder(arrays: Arrays, rows: Tensor, vocabulary: int | None) -> Normalizer | Encoder | TokenIds:
    meta = arrays.meta
    if meta.tokens == OWN_IDS:  # of a network that may have been made for just these
        return TokenIds(torch.arange(meta.num_tokens), meta.shape[0], meta.num_tokens)
    if meta.tokens:
        return TokenIds.fit(arrays.inputs, rows, meta.num_tokens, vocabulary if meta.tokens == "words" else None)
    if not arrays.meta.categories:
        return Normalizer.fit(arrays.inputs, rows)
    return Encoder.fit(arrays.inputs, rows, [len(names) for names in arrays.meta.categories])


def with_target_scale(data: TaskData) -> TaskData:
    """Mean and spread of a regression's targets: the loop trains on standardised ones, the metric is in their units."""
    targets = data.train.targets.numpy().astype(np.float64)
    varies = targets.min(axis=0) < targets.max(axis=0)  # exact, where a spread of equal values need not be 0
    mean, std = targets.mean(axis=0), np.where(varies, targets.std(axis=0), 1.0)
    if targets.ndim == 1:
        return replace(data, target_mean=float(mean), target_std=float(std))
    if data.train.all_targets.dtype == torch.float64:
        return replace(data, target_mean=torch.from_numpy(mean), target_std=torch.from_numpy(std))
    return replace(data, target_mean=float32(mean), target_std=float32(std))
