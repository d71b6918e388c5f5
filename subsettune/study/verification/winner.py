"""Which verified policy a study exports, and what may be claimed of a control."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from subsettune.policy import FULL
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.verdict import Verdict


def exported(rounds: Iterable[RoundState]) -> str | None:
    """Name of the policy to export: the cheapest that passed, but a plain schedule where one costs as much or less.

    A plain schedule is the simpler policy: nothing speaks for a subset where all data for the same compute match, too.
    It may be a control of the winner, which passed the same test; `is_outside_sequence` says so of it.

    Args:
        rounds: of verification.
    """
    rounds = tuple(rounds)
    won = [r.candidates[r.winner] for r in rounds if r.winner is not None]
    if not won:
        return None
    winner = min(won, key=_price)
    plain = [one for one in _passed(rounds) if one.policy.arm == FULL and one.cost_flops <= winner.cost_flops]
    return min(plain, key=_price).name if plain else winner.name


def _passed(rounds: Iterable[RoundState]) -> Iterator[Candidate]:
    for each in rounds:
        yield from (one for name, one in each.candidates.items() if each.verdicts[name].passed)


def _price(candidate: Candidate) -> tuple[int, bool, str]:
    """Cheapest first, then plain schedules, then by name."""
    return candidate.cost_flops, candidate.policy.arm != FULL, candidate.name


def is_outside_sequence(name: str, each: RoundState) -> bool:
    """Whether a policy was tested as a control after a failure, so that the error rate of the sequence is not its own.

    Where all candidates have passed, a control is the next test of the sequence, and keeps its level.
    """
    if name not in each.state.get("controls", ()):
        return False
    return any(not each.verdicts[other].passed for other in each.candidates if other not in each.state["controls"])


def claimed(verdict: Verdict, *, is_control: bool, has_winner: bool) -> Verdict:
    """The verdict as it may be told: a control of a round in which no candidate passed cannot claim that it did.

    Args:
        verdict: of the test alone.
        is_control: whether it was tested beside the sequence.
        has_winner: whether a candidate of the sequence passed.
    """
    if not is_control or has_winner or not verdict.passed:
        return verdict
    reason = "its bound is above the margin, but a candidate failed before it, so nothing is claimed"
    return replace(verdict, passed=None, reason=reason)
