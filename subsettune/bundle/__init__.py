"""Bundles: a policy with its subset and its evidence, as a folder of JSON and Parquet that other code can follow.

    bundle.json       schema version, size and SHA-256 of the other files; written last
    policy.json       policy, task, facts, data fingerprint, seed of the subset, examples to visit in each phase
    subset.parquet    one row a chosen example: phase, rank, index, weight, label
    rows.parquet      one row an example to train on: index, label
    evidence.json     every run behind the claim (`subsettune.bundle.evidence`)
    README.md         the same for people

Loading needs numpy and pyarrow alone (torch to hand out tensors), so `export` is not among the names here. A local
bundle is written beside its place and then renamed to it: the place is empty for an instant, but never holds a half. On
an object store, which cannot rename, `bundle.json` says "incomplete" until all is there.
"""

from __future__ import annotations

from subsettune.bundle.bundle import Bundle, PhaseSubset, read_policy
from subsettune.bundle.evidence import Evidence, PolicyEvidence, RunEvidence

__all__ = [
    "Bundle",
    "Evidence",
    "PhaseSubset",
    "PolicyEvidence",
    "RunEvidence",
    "read_policy",
]
