"""How alpha is shared among the policies that a verification may test, and where it goes from one that has passed.

Written down before any of them is tested. Each policy holds a share of the level; of a share only one policy at a time
has the use: the first in the share's list that has not passed. So a policy that fails keeps what it had and takes
nothing from others, and one that passes leaves its share to the cheaper policies, dearest first, and to the plain twin
of the one that wins. What a twin leaves goes nowhere, so that a winner stays the winner once its twin is tested. The
chance that any policy at the margin or worse passes is at most the level, whatever they have in common: in every set of
true hypotheses the shares add up to no more than 1, and a set that is smaller gives each of its members no less, which
makes it a closed test (Marcus, Peritz & Gabriel 1976; graphs of Bretz et al. 2009, Stat. Med. 28:586). It holds over
looks, too, since each test rejects at most as often as its level says (Maurer & Bretz 2013).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from subsettune.study.verification.noninferiority import Rules, Size, sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A policy in a line-up.

    Args:
        cost_flops: of one training.
        share: of the level that is its own, in [0, 1]; those of a line-up add up to 1 at most.
        is_last_resort: whether the reference may be run as often as `max_seeds` for it.
        is_extra: whether it is tested only to go on from one that has passed: no run of the reference is made for it.
        has_twin: whether plain training of equal compute is to be tested once it has passed and nothing cheaper has:
            half of what it leaves is kept for that.
    """

    cost_flops: int
    share: float
    is_last_resort: bool = False
    is_extra: bool = False
    has_twin: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a share may be used for: a policy of the line-up, or its plain twin."""

    name: str
    is_twin: bool = False


def sizes_of(entry: Entry, rules: Rules, reference_flops: int, *, is_twin: bool = False) -> tuple[Size, ...]:
    """The looks at a policy of a line-up, or at its plain twin, as numbers of runs.

    Args:
        entry: the policy.
        rules: of the verification.
        reference_flops: of one conventional training.
        is_twin: whether they are at the twin, for which the reference is run as for any candidate.
    """
    planned = sizes(rules, entry.cost_flops / reference_flops, is_last_resort=entry.is_last_resort and not is_twin)
    if entry.is_extra and not is_twin:
        return tuple(size for size in planned if size[1] == rules.seeds)
    return planned


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
        for weight, preferences in _lists(name, entries):
            user = next((one for one in preferences if one not in passed), None)
            if user is not None:
                found[user] = found.get(user, 0.0) + level * entry.share * weight
    return found


def _lists(name: str, entries: Mapping[str, Entry]) -> tuple[tuple[float, list[Hypothesis]], ...]:
    """What a share is for, by parts of it: its owner, then the cheaper ones; half of what reaches one is for its twin.

    Nothing is left to dearer ones: they are not tested where a cheaper one has passed.
    """
    cost = entries[name].cost_flops
    cheaper = [other for other, entry in entries.items() if other != name and entry.cost_flops <= cost]
    order = [name, *sorted(cheaper, key=lambda other: -entries[other].cost_flops)]
    twins = [one for one in order if entries[one].has_twin]
    halves = [
        (0.5**i, [*map(Hypothesis, order[: order.index(one) + 1]), Hypothesis(one, is_twin=True)])
        for i, one in enumerate(twins, start=1)
    ]
    cheapest_first = (Hypothesis(one, is_twin=True) for one in reversed(twins))
    return (*halves, (0.5 ** len(twins), [*map(Hypothesis, order), *cheapest_first]))
