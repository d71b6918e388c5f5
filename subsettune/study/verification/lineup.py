"""How alpha is shared among the policies that a verification may test, and where it goes from one that has passed.

Written down before any of them is tested. Each policy holds a share of the level; of a share only one policy at a time
has the use: the first in the share's list that has not passed. So a policy that fails keeps what it had and takes
nothing from others, and one that passes leaves its share to what comes next: the cheaper policies first, then the
dearer ones. The chance that any policy at the margin or worse passes is at most the level, whatever they have in
common: in every set of true hypotheses the shares add up to no more than 1, and a set that is smaller gives each of its
members no less, which makes it a closed test (Marcus, Peritz & Gabriel 1976; graphs of Bretz et al. 2009, Stat. Med.
28:586). It holds over looks, too, since each test rejects at most as often as its level says (Maurer & Bretz 2013).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A policy in a line-up.

    Args:
        cost_flops: of one training.
        share: of the level that is its own, in [0, 1]; those of a line-up add up to 1 at most.
        is_last_resort: whether the reference may be run as often as `max_seeds` for it.
        has_twin: whether plain training of equal compute is to be tested once it has passed: half of what it leaves
            goes to that first.
    """

    cost_flops: int
    share: float
    is_last_resort: bool = False
    has_twin: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a share may be used for: a policy of the line-up, or its plain twin."""

    name: str
    is_twin: bool = False


def levels(entries: Mapping[str, Entry], level: float, passed: Collection[Hypothesis]) -> dict[Hypothesis, float]:
    """The error rate that each policy has the use of.

    Args:
        entries: of the line-up, by name.
        level: error rate of the whole verification.
        passed: those that have passed.

    Returns:
        For those that have not; one that is missing has none.
    """
    found: dict[Hypothesis, float] = {}
    for name, entry in entries.items():
        lists = _lists(name, entries)
        for preferences in lists:
            user = next((one for one in preferences if one not in passed), None)
            if user is not None:
                found[user] = found.get(user, 0.0) + level * entry.share / len(lists)
    return found


def _lists(name: str, entries: Mapping[str, Entry]) -> tuple[list[Hypothesis], ...]:
    """What a share is for: its owner, the cheaper policies, then the dearer ones; twins sooner in one half of it."""
    others = sorted((other for other in entries if other != name), key=lambda other: -entries[other].cost_flops)
    cost = entries[name].cost_flops
    cheaper = [other for other in others if entries[other].cost_flops <= cost]
    order = [name, *cheaper, *(other for other in reversed(others) if other not in cheaper)]
    policies = [Hypothesis(one) for one in order]
    twins = [Hypothesis(one, is_twin=True) for one in order if entries[one].has_twin]
    if not twins:
        return (policies,)
    in_turn = [one for two in order for one in (Hypothesis(two), Hypothesis(two, is_twin=True))]
    return ([*policies, *twins], [one for one in in_turn if not one.is_twin or entries[one.name].has_twin])
