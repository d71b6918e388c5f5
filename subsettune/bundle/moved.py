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
from subsettune.config import FrozenDict, digest, must
from subsettune.data import TaskData
from subsettune.data.in_hand import in_hand
from subsettune.errors import BundleError
from subsettune.facts import TaskFacts
from subsettune.models import num_parameters
from subsettune.policy import Policy
from subsettune.select import Subset
from subsettune.task import Recipe
from subsettune.train.follow.sampler import Origin, PolicySampler, Slices, whole
from subsettune.train.job import RunJob
from subsettune.train.planning.check import recounted
from subsettune.train.planning.phases import ResolvedPolicy, resolve
from subsettune.train.planning.projection import project
from subsettune.train.randomness import isolated
from subsettune.train.selection.chooser import SubsetProvider

if TYPE_CHECKING:
    from subsettune.bundle.bundle import Bundle

COSTS = "FLOPs of an example are those of the bundle's network: with another one read them as shares of a pass."
PARAMETERS = (
    "The number of parameters is that of the bundle's network, though inputs or outputs differ, and with it every Q: "
    "give model=... for the one that is trained."
)
CLASSES = "The classes have other names than the bundle's: another task, of which its evidence says nothing."


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
        if data is not None:
            self._compare(data, None)
        rows = torch.arange(self.facts.num_examples)
        pool_of = pools(rows, lambda phase: (self.subsets[phase].positions, self.subsets[phase].loss_weights))
        return PolicySampler(
            self._resolved,
            rows,
            pool_of,
            seed=self.seed if seed is None else seed,
            slices=Slices(rank=rank, world_size=world_size, accumulate=accumulate),
            epochs=epochs,
            origin=Origin(
                identity=self._identity, check=self._compare, compared=("length",) if data is not None else ()
            ),
        )

    @property
    def _identity(self) -> str:
        chosen = {str(phase): subset.positions.tolist() for phase, subset in self.subsets.items()}
        return digest([self.facts, chosen])[:16]

    def _compare(self, data: Any, labels: Any) -> tuple[str, ...]:
        if length_of(data) != self.facts.num_examples:
            raise BundleError(must("data", f"the {self.facts.num_examples:,} that were handed over", length_of(data)))
        return ("length",)

    @property
    def _resolved(self) -> ResolvedPolicy:
        return resolve(self.policy, self.recipe, self.facts)


def move(bundle: Bundle, data: Any, model: nn.Module | None, *, seed: int | None, batch_size: int | None) -> Moved:
    """See `Bundle.transfer`."""
    if model is not None and not isinstance(model, nn.Module):
        raise BundleError(must("model", "a torch module, made already", type(model).__name__))
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
            *_taken_over(bundle, found, facts, model),
            *limits(bundle, policy, facts, batch_size=recipe.batch_size),
        ),
    )


def _taken_over(bundle: Bundle, data: TaskData, facts: TaskFacts, model: nn.Module | None) -> list[str]:
    """What is not known of the other task, and is taken from the bundle's."""
    before = bundle.facts
    is_other = (facts.num_features, facts.num_outputs) != (before.num_features, before.num_outputs)
    known = () if bundle.known is None else bundle.known.classes
    return [
        *([COSTS] if model is not None or is_other else []),
        *([PARAMETERS] if model is None and is_other else []),
        *([CLASSES] if known and data.class_names and tuple(data.class_names) != tuple(known) else []),
    ]


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
    has_inputs = _has_inputs(data)
    return replace(
        recounted(bundle.facts, bundle.task, data),
        num_outputs=data.num_outputs if data.kind != "regression" or data.num_outputs > 1 else bundle.facts.num_outputs,
        num_parameters=bundle.facts.num_parameters if model is None else num_parameters(model),
        num_features=data.num_features if has_inputs else bundle.facts.num_features,
        num_embedding=0,
    )


def _has_inputs(data: TaskData) -> bool:
    return data.train.inputs.stride(0) != 0


# --- what is handed over ----------------------------------------------------------------------------------------------


def _examples(bundle: Bundle, data: Any) -> TaskData:
    """Labels, and inputs where there are any, as the data of a task."""
    inputs, labels = _parted(data, bundle.task.data.label)
    kind = bundle.task.kind
    if labels is None:
        advice = "Hand over labels, a pair (x, y), a table with the column of the study, or a Dataset with `targets`."
        if kind == "classification":
            raise BundleError(f"data must have labels, since the bundle is of a classification. {advice}")
        number = whole(data)
        if number is None or number < 1:
            raise BundleError(must("data", "labels, a pair (x, y), or the number of examples", _called(data), advice))
        labels = np.zeros(number)
    found = array_of_labels(labels)
    if not len(found):
        raise BundleError("data must have at least one example, got none.")
    if kind != "classification":
        if found.dtype.kind not in "iufb":
            raise BundleError(must("labels", "numbers, since the bundle is of no classification", str(found.dtype)))
        if found.reshape(len(found), -1).shape[1] != bundle.facts.num_outputs:
            rule = f"{bundle.facts.num_outputs} for each example, as the bundle has targets"
            raise BundleError(must("labels", rule, f"shape {found.shape}", "Hand over inputs as a pair (x, y)."))
        if not np.isfinite(found.astype(np.float64)).all():
            raise BundleError("labels must be finite, got NaN or infinity. Drop such rows.")
        return in_hand(inputs, torch.from_numpy(found.astype(np.float64)), kind=kind, class_names=())
    names, classes = _numbered(found, () if bundle.known is None else bundle.known.classes)
    return in_hand(inputs, classes, kind=kind, class_names=names)


def _numbered(labels: NDArray[Any], known: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Names of the classes and (n,) int64 numbers: those of the bundle where all labels are its classes."""
    if labels.ndim != 1:
        raise BundleError(must("labels", "(n,), one class an example", f"shape {labels.shape}"))
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise BundleError("labels must be classes, got NaN or infinity among them. Drop such rows.")
    values, places = np.unique(labels.astype(str), return_inverse=True)
    names = tuple(known) if set(values) <= set(known) else tuple(str(value) for value in values)
    number = {name: position for position, name in enumerate(names)}
    numbers = np.array([number[value] for value in values], np.int64)[places]
    return names, torch.from_numpy(numbers)


def _called(data: Any) -> Any:
    return data if isinstance(data, int | float | str) else type(data).__name__


def _parted(data: Any, column: str | None) -> tuple[NDArray[Any] | None, Any]:
    """Inputs and labels of what was handed over, each None where there is none."""
    if isinstance(data, tuple):
        if len(data) != 2:
            raise BundleError(must("data", "labels, or a pair (x, y)", f"a tuple of {len(data)}"))
        return array_of_labels(data[0], "x"), data[1]
    labels = labels_in(data, column)
    if labels is not None:
        return None, labels
    is_table = isinstance(data, Mapping) or hasattr(data, "columns") or hasattr(data, "column_names")
    is_array = isinstance(data, list) or hasattr(data, "dtype")  # a Dataset is not read for its labels
    return None, data if is_array and not is_table and np.ndim(data) in (1, 2) else None
