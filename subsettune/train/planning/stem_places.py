"""Where runs leave stems, and how long a beginning is that they may share: arithmetic without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def next_stem_flops(spent_flops: int, end_flops: int, pass_flops: int) -> int:
    """Where the next stem of a run is due, in FLOPs spent: the first place of the common grid that is worth one.

    Args:
        spent_flops: so far.
        end_flops: of its prefix, where the last one is due.
        pass_flops: of a pass; the places are powers of `SPACING` passes, for all runs the same.
    """
    after = max(spent_flops + 1, end_flops / REACH)
    power = math.floor(math.log(after / pass_flops, SPACING))
    while (place := math.ceil(SPACING**power * pass_flops)) < after:  # a logarithm of large numbers is off by more
        power += 1
    return min(place, end_flops)


def stems_of(end_flops: int, pass_flops: int) -> tuple[int, ...]:
    """FLOPs about which a run with such a prefix leaves stems, in order."""
    places = [next_stem_flops(0, end_flops, pass_flops)]
    while places[-1] < end_flops:
        places.append(next_stem_flops(places[-1], end_flops, pass_flops))
    return tuple(places)
