"""From a point of a space, which is what a search proposes, to the policy that a run follows.

No torch here, unless a transition has options: it may spread itself over several phases, which only its class knows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import ConfigError, Mistake
from subsettune.facts import TaskFacts
from subsettune.policy import FULL, OWN, SOUP, SUBSET, Phase, Policy, Soup, num_choices, share_of_q
from subsettune.registry import TRANSITIONS
from subsettune.study.spec.kinds import KINDS

COORDINATES = ("arm", "budget", "switch", "subset_share", "q", "steps", "growth", "reselect", *KINDS)
GROWTH = 2.0  # of the subset from step to step where the space does not say


def from_coordinates(coordinates: Mapping[str, Any], facts: TaskFacts) -> Policy:
    """Make the policy that the search's coordinates describe.

    Args:
        coordinates: `arm`; `budget`, a share of the reference's compute; for the arm `subset` also `switch` and
            `subset_share` or `q`, and if given `steps`, `growth`, `reselect`, `selector`, `order`, `transition`,
            `soup`, and options of a selector, order or transition as `OWNER.OPTION`. Every other key is a
            hyperparameter of the recipe, `own.NAME` one of its `own`. Keys of the other arm, and options of other
            owners, are ignored.
        facts: of the task.

    Returns:
        One phase on all data in the uniform order (arm `full`); or, for the arm `subset`, subset phases and then one on
        all data, which `transition` opens. There is one subset phase, unless it grows: then there are `steps`, each
        `growth` times as large as the one before and as many rounds long, as far as they are smaller than the data; and
        unless it is chosen anew every `reselect` passes, each choice being a phase. Where `soup` is above 0, that share
        of the subset stretch goes to a soup before it, on `soup.share` of the data, by default as many as the subset.
        With the transition `prune` and `prune.between` above 0, each layer is pruned in a phase of its own, and all but
        the last of these phases share that part of the compute on all data equally.

    Raises:
        ConfigError: a coordinate is missing or out of range, or `q` needs more examples than there are.
    """
    arm = coordinates.get("arm", SUBSET if "switch" in coordinates else FULL)
    own = _options(coordinates, OWN)
    plain = {key: value for key, value in coordinates.items() if key not in COORDINATES and "." not in key}
    recipe = FrozenDict({**plain, OWN: FrozenDict(own)} if own else plain)
    missing = [key for key in (("budget",) if arm == FULL else ("budget", "switch")) if key not in coordinates]
    if missing:
        raise ConfigError(f"coordinates must have {' and '.join(missing)}, got {sorted(coordinates)}.")
    passes = coordinates["budget"] * facts.reference_passes
    if arm == FULL:
        return Policy(phases=(Phase(passes=passes),), recipe=recipe)
    switch = coordinates["switch"]
    if not 0 < switch < 1:
        raise ConfigError(config.must("switch", "in (0, 1)", switch, "A share of the budget: write 0.3."))
    stretch, share = switch * passes, coordinates.get("soup", 0.0)
    if not 0 <= share < 1:
        raise ConfigError(config.must("soup", "in [0, 1)", share, "A share of the compute before the switch."))
    before = [_soup_phase(coordinates, share * stretch, facts)] if share else []
    subsets = _subset_phases(coordinates, stretch - share * stretch, facts)
    return Policy(phases=(*before, *subsets, *_full_phases(coordinates, passes - stretch, facts)), recipe=recipe)


def _options(coordinates: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """What coordinates say of the options of a selector, order or transition, as `OWNER.OPTION`."""
    split = ((key.rpartition("."), value) for key, value in coordinates.items())
    return {option: value for (name, dot, option), value in split if dot and name == owner}


def _ordered(coordinates: Mapping[str, Any]) -> dict[str, Any]:
    """The order of every phase of a policy, with its options."""
    order = coordinates.get("order", "uniform")
    return {"order": order, "order_options": FrozenDict(_options(coordinates, order))}


def _soup_phase(coordinates: Mapping[str, Any], passes: float, facts: TaskFacts) -> Phase:
    """The soup before the subset."""
    options = _options(coordinates, SOUP)
    share = options.pop("share", None) or _share(coordinates, facts)[0]
    try:
        soup = config.build(Soup, options)
    except ConfigError as error:
        raise ConfigError(tuple(Mistake((SOUP, *m.path), m.message) for m in error.mistakes)) from error
    return Phase(share=share, passes=passes, **_ordered(coordinates), soup=soup)


def _subset_phases(coordinates: Mapping[str, Any], passes: float, facts: TaskFacts) -> list[Phase]:
    """The subset stretch of a policy, `passes` long in all."""
    share, q = _share(coordinates, facts)
    factors = _factors(coordinates, share)
    selector = coordinates.get("selector", "random")
    phases: list[Phase] = []
    for factor in factors:
        length = passes * factor / math.fsum(factors)  # rounds on the pool are as many in each step
        choices = num_choices(length, coordinates.get("reselect"))
        for _ in range(choices):
            size = share * factor if q is None else facts.share_of_q(q * factor)  # as a transfer derives it
            phases.append(
                Phase(
                    share=size,
                    q=None if q is None else q * factor,
                    passes=length / choices,
                    selector=selector,
                    selector_options=FrozenDict({} if size == 1 else _options(coordinates, selector)),
                    draw=len(phases) if "reselect" in coordinates else 0,
                    **_ordered(coordinates),
                )
            )
    return phases


def _full_phases(coordinates: Mapping[str, Any], passes: float, facts: TaskFacts) -> list[Phase]:
    """The stretch on all data, `passes` long, in as many phases as its transition is spread over."""
    name = coordinates.get("transition", "keep")
    options = _options(coordinates, name)
    whole = ((passes, options),)
    parts = TRANSITIONS.load(name).spread(options, passes, facts) if options else whole
    return [
        Phase(passes=length, **_ordered(coordinates), transition=name, transition_options=FrozenDict(own))
        for length, own in parts
    ]


def _factors(coordinates: Mapping[str, Any], share: float) -> list[float]:
    """Sizes of the steps as multiples of the first, as far as they are smaller than the data."""
    steps, growth = coordinates.get("steps", 1), coordinates.get("growth", GROWTH)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(config.must("steps", "a whole number, 1 or more", steps))
    if not growth > 1:
        raise ConfigError(config.must("growth", "above 1", growth))
    larger = itertools.takewhile(lambda factor: share * factor < 1, (growth**i for i in range(1, steps)))
    return [1, *larger]


def _share(coordinates: Mapping[str, Any], facts: TaskFacts) -> tuple[float, float | None]:
    """The subset share, and the Q it came from if it did."""
    if ("subset_share" in coordinates) == ("q" in coordinates):
        raise ConfigError("exactly one of subset_share and q must be given for the arm 'subset'.")
    if "subset_share" in coordinates:
        return float(coordinates["subset_share"]), None
    q = float(coordinates["q"])
    return share_of_q(q, facts), q
