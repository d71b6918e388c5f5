"""Runs of verification that were made ahead and that nothing rests on."""

from __future__ import annotations

from collections.abc import Iterable

from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord


def unneeded(done: RoundState, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs of a round that no verdict and no contrast of it rests on.

    Args:
        done: the round.
        records: of verification.
    """
    used = {
        (done.candidates[run["name"]].policy, run["seed"])
        for run in done.state["runs"]
        if run["name"] in done.candidates
    }
    return [run for run in records if run.candidate in done.candidates and (run.policy, run.seed) not in used]
