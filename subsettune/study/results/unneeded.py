"""Runs of verification that were made ahead and that nothing rests on."""

from __future__ import annotations

from collections.abc import Iterable

from subsettune.policy import Policy
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord


def unneeded(rounds: Iterable[RoundState], records: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs that no verdict and no contrast of these rounds rests on.

    Args:
        rounds: that are over; a policy that two of them test is trained once.
        records: of verification; runs of what none of the rounds tests are left out.
    """
    used, tested = set[tuple[Policy, int]](), set[str]()
    for done in rounds:
        tested |= set(done.candidates)
        named = (run for run in done.state["runs"] if run["name"] in done.candidates)
        used |= {(done.candidates[run["name"]].policy, run["seed"]) for run in named}
    return [run for run in records if run.candidate in tested and (run.policy, run.seed) not in used]
