"""Which verified policy a study exports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from subsettune.policy import FULL
from subsettune.study.results.candidate import EQUAL, Candidate
from subsettune.study.results.claim import claim_on
from subsettune.study.results.manifest import RoundState


def exported(rounds: Iterable[RoundState]) -> str | None:
    """Name of the policy to export: the cheapest that passed, but a plain schedule unless a subset is shown to win.

    A plain schedule is the simpler policy: nothing speaks for a subset where all data for as much compute or less
    match, too, and the subset is not shown to be better than that.

    Args:
        rounds: of verification.
    """
    rounds = tuple(rounds)
    passed = [one for one in _passed(rounds) if one.may_match]
    own = [one for one in passed if one.role != EQUAL]
    if not own:
        return None
    winner = min(own, key=_price)
    if winner.policy.arm == FULL or _is_shown_better(winner, rounds):
        return winner.name
    plain = [one for one in passed if one.policy.arm == FULL and one.cost_flops <= winner.cost_flops]
    return min(plain, key=_price).name if plain else winner.name


def _is_shown_better(winner: Candidate, rounds: Iterable[RoundState]) -> bool:
    """Whether a subset policy is shown to be better than plain training of equal compute."""
    known = [each for each in rounds if winner.name in each.candidates]
    claims = [claim_on(winner.name, each.contrasts, each.candidates) for each in known]
    return any(claim.shown for claim in claims if claim is not None)


def _passed(rounds: Iterable[RoundState]) -> Iterator[Candidate]:
    for each in rounds:
        yield from (
            one for name, one in each.candidates.items() if name in each.verdicts and each.verdicts[name].passed
        )


def _price(candidate: Candidate) -> tuple[int, bool]:
    """Cheapest first, then plain schedules; of equal ones that of the earliest round stays the winner."""
    return candidate.cost_flops, candidate.policy.arm != FULL
