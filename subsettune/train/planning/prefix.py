"""The stretch in which a run is the same whatever its budget: what runs of the same beginning need not do twice.

It lies in the first phase, up to where the learning rate first leaves its peak; so a schedule that changes the rate
from the first update on, as a cosine or any warm-up does, leaves nothing. Nor does what looks at the share of the
budget that is spent: most orders, a line search, a soup.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from subsettune import config
from subsettune.train import schedule
from subsettune.train.planning.phases import ResolvedPhase, ResolvedPolicy

SPACING = 1.15  # between the places of stems, so that a shorter run finds one not far before its own end
REACH = 3.0  # stems lie in the last part of a prefix: from earlier ones little would be saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The shareable beginning of a policy.

    Args:
        key: content hash of all that the policy says of it but its length; runs with other seeds or data differ, too.
        end_flops: spent by its end, selection included.
    """

    key: str
    end_flops: int


def prefix_of(resolved: ResolvedPolicy) -> Prefix | None:
    """The beginning that a policy may share with others; None if there is none."""
    first, recipe = resolved.phases[0], resolved.recipe
    stable = schedule.make(recipe.schedule, recipe.schedule_options).stable_share
    is_alike = not (first.is_soup or first.order.heeds_share or recipe.optimizer == "lbfgs")
    if not stable or not is_alike or _chooses_again(resolved):
        return None
    selected = sum(phase.flops for phase in resolved.phases)
    end = min(resolved.ends[0], first.flops + math.floor(stable * (resolved.total - selected)))
    return Prefix(key=_key(first, resolved), end_flops=end) if end > first.flops else None


def _chooses_again(resolved: ResolvedPolicy) -> bool:
    """Whether a later phase needs what choosing for the first one left in memory, which was charged with that."""
    first, *later = (phase.selection for phase in resolved.phases)
    is_free = first is None or resolved.phases[0].flops == 0
    return not is_free and any(selection is not None for selection in later)


def _key(first: ResolvedPhase, resolved: ResolvedPolicy) -> str:
    ranking = None if first.selection is None else first.selection.ranking
    chosen = [phase.selection for phase in resolved.phases if phase.selection is not None]
    phase = config.to_plain(first.phase)
    told = {
        "phase": {name: value for name, value in phase.items() if name not in ("passes", "q")},
        "recipe": config.to_plain(resolved.recipe),
        "flops": first.flops,
        "sizes": [one.size for one in chosen if one.ranking == ranking],
    }
    return config.digest(told)


def next_stem_flops(spent_flops: int, end_flops: int, pass_flops: int) -> int:
    """Where the next stem of a run is due, in FLOPs spent: the first place of the common grid that is worth one.

    Args:
        spent_flops: so far.
        end_flops: of its prefix, where the last one is due.
        pass_flops: of a pass; the places are powers of `SPACING` passes, for all runs the same.
    """
    after = max(spent_flops + 1, end_flops / REACH)
    power = math.ceil(math.log(after / pass_flops, SPACING))
    return min(math.ceil(SPACING**power * pass_flops), end_flops)


def stems_of(end_flops: int, pass_flops: int) -> tuple[int, ...]:
    """FLOPs about which a run with such a prefix leaves stems, in order."""
    places = [next_stem_flops(0, end_flops, pass_flops)]
    while places[-1] < end_flops:
        places.append(next_stem_flops(places[-1], end_flops, pass_flops))
    return tuple(places)
