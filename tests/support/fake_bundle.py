"""A bundle exported from a made-up study."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from fake_study import _with_selector, make_view

from subsettune.bundle import Bundle, PhaseSubset
from subsettune.bundle.export import chosen, export_study
from subsettune.bundle.rows import TrainingRows
from subsettune.policy import Policy
from subsettune.select import Subset
from subsettune.study.results.view import StudyView

FINGERPRINT = "9f2c" * 16


class Part:
    """A training part: 1,257 examples from every other row of a file."""

    rows = torch.arange(0, 2 * 1257, 2)
    targets = torch.arange(1257) % 10


def phase_subset(policy: Policy, phase: int = 0, weighted: bool = False) -> PhaseSubset:
    k = policy.phases[phase].pool_size(1257)
    positions = torch.randperm(1257, generator=torch.Generator().manual_seed(phase))[:k]
    weights = torch.rand(k, generator=torch.Generator().manual_seed(1)) if weighted else None
    return chosen(phase, Subset(positions=positions, weights=weights), Part())  # type: ignore[arg-type]


def view_of(state: str, metric: str) -> StudyView:
    """A made-up study; k-center would cost more than the phase has on such small data, so its winner is stratified."""
    view = make_view(state, metric=metric)
    candidates = {
        name: dataclasses.replace(candidate, policy=_with_selector(candidate.policy, "stratified"))
        if name == "candidate-1" and state == "subset_wins"
        else candidate
        for name, candidate in view.candidates.items()
    }
    return dataclasses.replace(view, candidates=candidates)


def export(target: Any, state: str = "subset_wins", metric: str = "accuracy") -> tuple[Bundle, StudyView]:
    view = view_of(state, metric)
    winner = view.manifest.winner
    assert winner is not None
    policy = view.candidates[winner].policy
    subsets = [phase_subset(policy, i) for i, phase in enumerate(policy.phases) if not phase.is_full]
    return export_study(view, winner, subsets, seed=7, target=target, rows=training_rows()), view


def training_rows() -> TrainingRows:
    """The made-up training part."""
    label = Part.targets.numpy().astype(np.float64 if Part.targets.is_floating_point() else np.int64)
    return TrainingRows(index=Part.rows.numpy(), label=label, num_source=2 * 1257)
