"""A bundle's policy on other data: sizes derived anew, subsets chosen anew, and said how far the evidence reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subsettune.bundle.follow import pools, refuse_unfollowable, unfollowable
from subsettune.bundle.limits import limits
from subsettune.bundle.rows import array_of_labels, labels_in, length_of
from subsettune.config import FrozenDict, must
from subsettune.data import TaskData
from subsettune.data.in_hand import in_hand
from subsettune.errors import BundleError
from subsettune.facts import TaskFacts
from subsettune.models import num_parameters
from subsettune.policy import Policy
from subsettune.select import Subset
from subsettune.task import Recipe
from subsettune.train.follow.sampler import PolicySampler, Slices
from subsettune.train.job import RunJob
from subsettune.train.planning.phases import ResolvedPolicy, resolve
from subsettune.train.planning.projection import project
from subsettune.train.randomness import isolated
from subsettune.train.selection.chooser import SubsetProvider

if TYPE_CHECKING:
    from subsettune.bundle.bundle import Bundle

COSTS = "FLOPs of an example are those of the bundle's network: with another one read them as shares of a pass."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moved:
    """A bundle's policy, ready for other data.

    Attributes:
        policy: sizes derived anew, by share, or by Q where it was found by Q.
        facts: of the other task.
        recipe: as the policy has it.
        seed: that chose the subsets, and the default of samplers.
        subsets: positions and weights of each phase that has a subset, by its index.
        limits: sentences: what the evidence does not speak of. Read them.
    """

    policy: Policy
    facts: TaskFacts
    recipe: Recipe
    seed: int
    subsets: Mapping[int, Subset]
    limits: tuple[str, ...]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(subset):,}" for subset in self.subsets.values()) or "all"
        return f"<subsettune.Moved: {sizes} of {self.facts.num_examples:,} examples, {self.total_steps():,} steps>"

    def __str__(self) -> str:
        return "\n".join((repr(self), *self.limits))

    def subset(self, phase: int | None = None) -> NDArray[np.int64]:
        """(k,) int64 rows of the subset of a phase, in order of picking.

        Args:
            phase: its index; may be left out where only one has a subset.
        """
        if phase is None and len(self.subsets) == 1:
            phase = next(iter(self.subsets))
        if phase is None or phase not in self.subsets:
            raise BundleError(must("phase", f"one of {sorted(self.subsets)}, the phases with a subset", phase))
        return self.subsets[phase].positions.numpy()

    def total_steps(self) -> int:
        """Updates of the whole policy."""
        return sum(phase.updates for phase in project(self._resolved))

    def batch_sampler(
        self,
        data: Any = None,
        seed: int | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        epochs: int = 1,
    ) -> PolicySampler:
        """The batches of the whole policy, as `Bundle.batch_sampler` gives them: lists of rows from 0 to N - 1.

        Args:
            data: the data that were handed over, or their number, as a check; may be left out.
            seed: of the order of examples; the subsets stay.
            rank, world_size, accumulate, epochs: as of `Bundle.batch_sampler`.
        """
        if data is not None and length_of(data) != self.facts.num_examples:
            raise BundleError(must("data", f"the {self.facts.num_examples:,} that were handed over", length_of(data)))
        rows = torch.arange(self.facts.num_examples)
        pool_of = pools(rows, lambda phase: (self.subsets[phase].positions, self.subsets[phase].loss_weights))
        return PolicySampler(
            self._resolved,
            rows,
            pool_of,
            seed=self.seed if seed is None else seed,
            slices=Slices(rank=rank, world_size=world_size, accumulate=accumulate),
            epochs=epochs,
        )

    @property
    def _resolved(self) -> ResolvedPolicy:
        return resolve(self.policy, self.recipe, self.facts)


def move(bundle: Bundle, data: Any, model: nn.Module | None, *, seed: int | None, batch_size: int | None) -> Moved:
    """See `Bundle.transfer`."""
    found = _examples(bundle, data)
    facts = _facts(bundle, found, model)
    policy, told = bundle.derive(facts)
    recipe = bundle.recipe if batch_size is None else replace(bundle.recipe, batch_size=batch_size)
    task = replace(bundle.task, recipe=replace(bundle.task.recipe, batch_size=recipe.batch_size))
    if "batch_size" in policy.recipe:
        policy = replace(policy, recipe=FrozenDict({**policy.recipe, "batch_size": recipe.batch_size}))
    refuse_unfollowable(unfollowable(policy, recipe, facts, task))
    chosen = bundle.seed if seed is None else seed
    job = RunJob(
        task=task, resolved=resolve(policy, recipe, facts), seed=chosen, data=found, device=torch.device("cpu")
    )
    return Moved(
        policy=policy,
        facts=facts,
        recipe=recipe,
        seed=chosen,
        subsets=_subsets(job, has_inputs=_has_inputs(found)),
        limits=(
            told,
            *([COSTS] if model is not None else []),
            *limits(bundle, policy, facts, batch_size=recipe.batch_size),
        ),
    )


def _subsets(job: RunJob, *, has_inputs: bool) -> dict[int, Subset]:
    """Chosen anew, as a run with the seed would."""
    subsets, provider = {}, SubsetProvider(job)
    for phase in job.resolved.phases:
        if phase.selection is None:
            continue
        selector = phase.selection.selector
        name = f"phase {phase.index + 1} chooses by {selector.name}"
        if selector.model_need is not None:
            raise BundleError(
                f"{name}, which looks at a network: only our own loop has one. Train by `subsettune follow`, by "
                "subsettune.train.run, or by subsettune.integrations.sklearn."
            )
        if not has_inputs and selector.flops(job.facts, phase.selection.size):
            raise BundleError(f"{name}, which measures the inputs, got labels alone. Hand over a pair (x, y).")
        with isolated(job.seed, torch.get_num_threads()):
            subsets[phase.index] = provider.choose(phase.index).subset
    return subsets


def _facts(bundle: Bundle, data: TaskData, model: nn.Module | None) -> TaskFacts:
    """Those of the bundle, with what is otherwise. What an example costs stays: it drops out of every share."""
    counts = [int(count) for count in data.class_counts] if data.num_classes else []
    has_inputs = _has_inputs(data)
    return replace(
        bundle.facts,
        num_examples=len(data.train),
        num_outputs=data.num_outputs if data.kind != "regression" or data.num_outputs > 1 else bundle.facts.num_outputs,
        num_parameters=bundle.facts.num_parameters if model is None else num_parameters(model),
        num_features=data.num_features if has_inputs else bundle.facts.num_features,
        num_classes=data.num_classes,
        smallest_class=min(counts, default=0),
        class_counts=tuple(counts),
        num_embedding=0,
    )


def _has_inputs(data: TaskData) -> bool:
    return data.train.inputs.stride(0) != 0


# --- what is handed over ----------------------------------------------------------------------------------------------


def _examples(bundle: Bundle, data: Any) -> TaskData:
    """Labels, and inputs where there are any, as the data of a task."""
    inputs, labels = _parted(data)
    kind = bundle.task.kind
    if labels is None:
        if kind == "classification":
            advice = "Hand over labels, a pair (x, y), or a Dataset with `targets`."
            raise BundleError(f"data must have labels, since the bundle is of a classification. {advice}")
        labels = np.zeros(length_of(data))
    found = array_of_labels(labels)
    if not len(found):
        raise BundleError("data must have at least one example, got none.")
    if kind != "classification":
        if found.dtype.kind not in "iufb":
            raise BundleError(must("labels", "numbers, since the bundle is of no classification", str(found.dtype)))
        return in_hand(inputs, torch.from_numpy(found.astype(np.float64)), kind=kind, class_names=())
    names, classes = _numbered(found, () if bundle.known is None else bundle.known.classes)
    return in_hand(inputs, classes, kind=kind, class_names=names)


def _numbered(labels: NDArray[Any], known: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Names of the classes and (n,) int64 numbers: those of the bundle where all labels are its classes."""
    if labels.ndim != 1:
        raise BundleError(must("labels", "(n,), one class an example", f"shape {labels.shape}"))
    values, places = np.unique(labels.astype(str), return_inverse=True)
    names = tuple(known) if set(values) <= set(known) else tuple(str(value) for value in values)
    number = {name: position for position, name in enumerate(names)}
    numbers = np.array([number[value] for value in values], np.int64)[places]
    return names, torch.from_numpy(numbers)


def _parted(data: Any) -> tuple[NDArray[Any] | None, Any]:
    """Inputs and labels of what was handed over, each None where there is none."""
    if isinstance(data, tuple):
        if len(data) != 2:
            raise BundleError(must("data", "labels, or a pair (x, y)", f"a tuple of {len(data)}"))
        return array_of_labels(data[0], "x"), data[1]
    labels = labels_in(data, None)
    if labels is not None:
        return None, labels
    shape = np.shape(data) if hasattr(data, "__len__") and not hasattr(data, "__getitems__") else ()
    return None, data if len(shape) in (1, 2) and not isinstance(data, str) else None
