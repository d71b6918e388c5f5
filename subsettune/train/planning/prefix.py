"""The stretch in which a run is the same whatever its budget: what runs of the same beginning need not do twice.

It lies in the first phase, up to where the learning rate first leaves its peak; so a schedule that changes the rate
from the first update on, as a cosine or any warm-up does, leaves nothing. Nor does what looks at the share of the
budget that is spent: most orders, a line search, a soup.
"""

from __future__ import annotations

import math

from subsettune import config
from subsettune.train import schedule
from subsettune.train.planning.phases import ResolvedPhase, ResolvedPolicy
from subsettune.train.planning.stem_places import Prefix


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
