"""A bundle of a policy on a small table, as a study would leave it, without the study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import fake_bundle
import in_hand
import torch

from subsettune import Bundle, Phase, Policy, train
from subsettune.bundle.evidence import RunEvidence
from subsettune.bundle.export import chosen, export_policy
from subsettune.bundle.known import KnownData
from subsettune.bundle.paths import placed
from subsettune.data import load
from subsettune.select import Subset

POLICY = Policy(phases=(Phase(share=0.5, passes=2), Phase(passes=3)))
SEEDS = (0, 1, 2, 3)


def make_bundle(folder: Path, source: str, policy: Policy = POLICY, *, is_named: bool = True, **task: Any) -> Bundle:
    """Export a bundle of a policy whose runs were really trained on a table.

    Args:
        folder: for the bundle.
        source: of the table.
        policy: to be followed.
        is_named: whether the bundle knows columns and classes by name; those of before do not.
        task: other settings of the task.
    """
    made = placed(in_hand.task_of(source, **task), in_hand.PLACES)
    data, facts = load(made, in_hand.PLACES), train.facts(made, in_hand.PLACES)
    runs = [in_hand.trained(made, policy, seed)[1] for seed in SEEDS]
    evidence = fake_bundle.export(folder.with_name("fake"))[0].evidence
    told = [RunEvidence(seed=r.seed, metric=r.metrics["test"], validation=r.metrics["validation"]) for r in runs]
    best = dataclasses.replace(evidence.best, policy=policy, runs=tuple(told))
    others = [best if one.name == best.name else one for one in evidence.candidates]
    subsets = [
        chosen(i, Subset(positions=torch.arange(phase.pool_size(len(data.train)))), data.train)
        for i, phase in enumerate(policy.phases)
        if not phase.is_full
    ]
    return export_policy(
        folder,
        policy,
        dataclasses.replace(evidence, metric=made.metric, margin=0.3, candidates=tuple(others), sampled=None),
        task=made,
        facts=facts,
        fingerprint=data.fingerprint,
        seed=SEEDS[0],
        subsets=subsets,
        known=KnownData.of(data) if is_named else None,
    )
