"""A bundle followed by other training code: which examples an update takes, at what rate, and what opens a phase.

The arithmetic is that of `subsettune.train.loop`, without the training: compute decides when a phase ends and where the
learning-rate schedule stands. So the rows, weights, rates and transitions are those of `train.run` with the same seed,
one for one. Needs torch, NumPy and pyarrow alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subsettune.bundle.rows import labels_in, length_of
from subsettune.config import must
from subsettune.errors import BundleError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.task import Recipe, Task
from subsettune.train.follow.batches import Pool, pool
from subsettune.train.follow.sampler import Origin, PolicySampler, Slices
from subsettune.train.orders.base import is_blind
from subsettune.train.planning.phases import resolve

if TYPE_CHECKING:
    from subsettune.bundle.bundle import Bundle

__all__ = ["Step", "follow", "why_not"]
ROWS_OF_TASK = "Give the rows that the task trains on: load(bundle.task).train.rows."


def why_not(bundle: Bundle) -> dict[int, str]:
    """Phases that other code cannot carry out by itself, by their index, each with the reason; empty if it can all."""
    return unfollowable(bundle.policy, bundle.recipe, bundle.facts, bundle.task)


def unfollowable(policy: Policy, recipe: Recipe, facts: TaskFacts, task: Task) -> dict[int, str]:
    """As `why_not`, of a policy for a task."""
    found: dict[int, str] = {}
    for index, phase in enumerate(resolve(policy, recipe, facts).phases):
        if phase.is_soup:
            found[index] = "trains workers apart and averages them"
        elif not is_blind(phase.order) and not phase.order.observes:
            name = phase.phase.order
            found[index] = f"takes its batches in the order `{name}`, which goes by what the network does"
        elif phase.facts != facts:
            found[index] = "trains a network that was made narrower, unit by unit, by its own activations"
        elif phase.transition_flops:
            found[index] = f"opens with `{phase.phase.transition}`, which looks at the data"
        elif recipe.optimizer == "lbfgs":
            found[index] = "takes steps of lbfgs, whose line search decides how much compute an update costs"
        elif not task.distortion.is_off:
            found[index] = "trains on data that were distorted on purpose, as `task.distortion` says"
    return found


def refuse_unfollowable(reasons: Mapping[int, str]) -> None:
    """Refuse a policy that only our own loop follows."""
    if reasons:
        index, reason = next(iter(reasons.items()))
        raise BundleError(f"phase {index + 1} {reason}. Follow the policy by subsettune.train.run.")


# More than six parameters: the data in three ways, and what a host says about itself.
def batch_sampler(
    bundle: Bundle,
    data: Any,
    *,
    batch_size: int | None,
    labels: Any,
    fingerprint: str | None,
    rows: Sequence[int] | Tensor | None,
    seed: int | None,
    slices: Slices,
    epochs: int,
) -> PolicySampler:
    """See `Bundle.batch_sampler`."""
    refuse_unfollowable(why_not(bundle))
    if batch_size is not None and batch_size != bundle.recipe.batch_size:
        advice = (
            "The policy was shown to match with that one, and its steps and rates are made for it. Leave it out; for "
            "less memory ask for accumulate=..., for another size bundle.transfer(..., batch_size=...)."
        )
        raise BundleError(must("batch_size", f"{bundle.recipe.batch_size}, as in the study", batch_size, advice))
    if fingerprint is not None:
        bundle.check(fingerprint)
    index = _rows(bundle, length_of(data), rows)
    compared = (*compare(bundle, data, labels), *([] if fingerprint is None else ["fingerprint"]))
    resolved = resolve(bundle.policy, bundle.recipe, bundle.facts)
    origin = Origin(
        identity=_identity(bundle, index),
        lr=bundle.recipe.lr,
        check=partial(compare, bundle),
        compared=compared,
    )
    sampler = PolicySampler(
        resolved,
        index,
        pools(index, lambda phase: bundle.subset(phase).tensors()),
        seed=bundle.seed if seed is None else seed,
        slices=slices,
        epochs=epochs,
        origin=origin,
    )
    _refuse_other_visits(bundle, sampler)
    return sampler


def _identity(bundle: Bundle, rows: Tensor) -> str:
    """Of the data and the subsets, by which a state is known."""
    found = hashlib.sha256(bundle.fingerprint.encode())
    for array in (rows.numpy(), *(bundle.table[name].to_numpy() for name in ("phase", "index", "weight"))):
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def _refuse_other_visits(bundle: Bundle, sampler: PolicySampler) -> None:
    """What a bundle says of its phases must be what its policy comes to, to within a batch."""
    plan = sampler._batches.plan
    seen = Counter[int]()
    for phase, length in zip(plan.phases, plan.lengths, strict=True):
        seen[phase] += length
    for phase, visits in enumerate(bundle.visits):
        if abs(seen[phase] - visits) > bundle.recipe.batch_size:
            raise BundleError(
                f"visits of phase {phase + 1} must be {seen[phase]:,}, which its policy comes to, got {visits:,}: the "
                "bundle was changed by hand. Export it again."
            )


def compare(bundle: Bundle, data: Any, labels: Any = None) -> tuple[str, ...]:
    """Hold data against a bundle; gives what was compared, `length` and `labels`.

    Args:
        bundle: whose data they should be.
        data, labels: as of `Bundle.batch_sampler`.

    Raises:
        BundleError: they are others.
    """
    known = bundle.rows
    if known is None:
        return ()
    known.refuse_other_length(length_of(data))
    found = None if labels is False else labels_in(data, bundle.task.data.label) if labels is None else labels
    if found is None:
        return ("length",)
    known.refuse_other_labels(found, () if bundle.known is None else bundle.known.classes)
    return ("length",) if known.label is None else ("length", "labels")


def _rows(bundle: Bundle, length: int, rows: Sequence[int] | Tensor | None) -> Tensor:
    """(N,) rows to train on."""
    known = bundle.rows
    if rows is not None:
        index = torch.as_tensor(rows)
        if index.is_floating_point() or index.dtype == torch.bool:
            raise BundleError(must("rows", "whole numbers", str(index.dtype), ROWS_OF_TASK))
        index = index.to(torch.int64)
        _refuse_other_rows(bundle, index, length)
        return index
    if known is None:
        raise BundleError(
            "the bundle does not know the rows that it trains on: an earlier version wrote it. "
            f"{ROWS_OF_TASK.replace('Give', 'Give rows=...,')}"
        )
    return torch.tensor(known.index)  # a copy: arrays out of a file cannot be written to, of which torch warns


def _refuse_other_rows(bundle: Bundle, rows: Tensor, length: int) -> None:
    if len(rows) != bundle.facts.num_examples:
        raise BundleError(must("rows", f"{bundle.facts.num_examples:,} as in the study", len(rows), ROWS_OF_TASK))
    if len(rows.unique()) != len(rows):
        raise BundleError(f"rows must be there once each, got one twice. {ROWS_OF_TASK}")
    if bundle.rows is not None and not torch.equal(rows, torch.tensor(bundle.rows.index)):
        raise BundleError(must("rows", "those of the study, in its order", "others", "Leave them out: it knows them."))
    if int(rows.min()) < 0 or int(rows.max()) >= length:
        raise BundleError(must("rows", f"between 0 and {length - 1:,}, the last row of the data", int(rows.max())))


def pools(rows: Tensor, subset_of: Callable[[int], tuple[Tensor, Tensor]]) -> Callable[[int], Pool]:
    """Gives the examples of each phase as positions among rows.

    Args:
        rows: (N,) int64 row of each example to train on.
        subset_of: (k,) int64 rows of a phase's subset, and (k,) float32 factors of their losses.
    """
    order = rows.argsort()
    ordered = rows[order]

    def pool_of(phase: int) -> Pool:
        index, weight = subset_of(phase)
        place = torch.searchsorted(ordered, index).clamp(max=len(order) - 1)
        positions = order[place]
        missing = index[rows[positions] != index]
        if len(missing):
            rule = f"those of the study, row {int(missing[0])} included"
            raise BundleError(must("rows", rule, "others", ROWS_OF_TASK))
        return pool(positions, None if bool((weight == 1).all()) else weight, len(rows))

    return pool_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One update.

    Args:
        rows: (b,) int64 rows of the training file, in the order of the batch.
        weights: (b,) float32 factors of the losses before their mean is taken; None where all are 1.
        lr: learning rate.
        phase: index of the phase in the policy.
    """

    rows: Tensor
    weights: Tensor | None
    lr: float
    phase: int


def follow(
    bundle: Bundle,
    rows: Sequence[int] | Tensor,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    seed: int | None = None,
) -> Iterator[Step]:
    """The updates of a policy, one after the other; each is to be made before the next is asked for.

    As the pages of earlier bundles call it; `Bundle.batch_sampler` does the same, and knows the rows. Where a phase
    opens with a transition, network and optimizer are changed right before its first update is handed out.

    Args:
        bundle: to be followed.
        rows: (N,) the rows of the training file that are trained on, in the order of `load(bundle.task).train.rows`.
        network: that is trained, as it is initialised.
        optimizer: its optimizer.
        seed: of the order of examples and of what a transition draws; default: the one that chose the bundle's subset.

    Raises:
        BundleError: other code cannot follow this policy by itself (`why_not`), or the rows are not those of the task.
    """
    index = torch.as_tensor(rows, dtype=torch.int64)
    longest = int(index.max()) + 1 if len(index) else 0
    length = longest if bundle.rows is None else bundle.rows.num_source
    sampler = bundle.batch_sampler(length, rows=index, seed=seed)
    for phase in (i for i, one in enumerate(bundle.policy.phases) if not one.is_full):
        sampler._pool_of(phase)  # refuses other rows before anything is trained
    sampler.on_switch(network=network, optimizer=optimizer)
    return _steps(sampler, bundle.recipe.lr)


def _steps(sampler: PolicySampler, lr: float) -> Iterator[Step]:
    for index, weights in sampler.batches():
        factors = None if weights is None else torch.from_numpy(weights)
        yield Step(rows=torch.from_numpy(index), weights=factors, lr=lr * sampler.lr_factor, phase=sampler.phase)
