"""What pruning makes of the facts of a task, and what it costs: known before anything is pruned.

How units are picked is in `forward_selection`, how the network gets smaller in `surgery`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from subsettune.config import FrozenDict
from subsettune.facts import ChainLayer, TaskFacts

Candidates = int | Literal["all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PickBudget:
    """How thoroughly units are picked.

    Args:
        candidates: units that a pick looks at, drawn at random; `all` for every one that it may take.
        repeats: picks of a layer for each unit that stays, at least 1.
    """

    candidates: Candidates
    repeats: float

    def picks(self, kept: int) -> int:
        """Picks of a layer of which so many units stay."""
        return math.ceil(self.repeats * kept)

    def looked_at(self, available: int) -> int:
        """Candidates of a pick out of so many units."""
        return available if self.candidates == "all" else min(self.candidates, available)

    def evaluations(self, width: int, kept: int) -> int:
        """Candidates that all picks of a layer look at, where each has as many to choose from as the first."""
        return self.picks(kept) * self.looked_at(width)


def kept_of(widths: Mapping[str, int], keep: float, layers: Sequence[str] | None) -> dict[str, int]:
    """Units that stay, of each layer that gets narrower: round(keep * m), but one at least.

    Args:
        widths: m by name, of all weighted layers of a chain in order.
        keep: share of the units that stay.
        layers: names of layers; None for all but the last.
    """
    asked = [name for name in list(widths)[:-1] if layers is None or name in layers]
    kept = {name: max(1, round(keep * widths[name])) for name in asked}
    return {name: k for name, k in kept.items() if k < widths[name]}


def pruned_facts(facts: TaskFacts, kept: Mapping[str, int]) -> TaskFacts:
    """Facts of the network with so many units in the layers named, exactly as they are counted on it.

    What sizes and shares are derived from stays: the number of parameters, and the pass as the unit of compute is that
    of the facts before.
    """
    pairs = [list(zip(chain, _narrower(chain, kept), strict=True)) for chain in facts.chains]
    changes = {facts.exits[old.name]: (old, new) for chain in pairs for old, new in chain}
    saved = {at: old.forward_flops - new.forward_flops for at, (old, new) in changes.items()}
    shares = {at: Fraction(new.width, old.width) for at, (old, new) in changes.items()}  # of what follows each layer
    exits = {name: at - sum(less for place, less in saved.items() if place <= at) for name, at in facts.exits.items()}
    ends = (chain[-2:] for chain in pairs if facts.exits[chain[-1][0].name] == facts.forward_flops)
    head = next((Fraction(end[0][1].width, end[0][0].width) for end in ends if len(end) > 1), Fraction(1))
    chains = tuple(tuple(new for _, new in chain) for chain in pairs)
    return replace(
        facts,
        forward_flops=facts.forward_flops - sum(saved.values()),
        backward_flops=facts.backward_flops - sum(a.backward_flops - b.backward_flops for a, b in changes.values()),
        exits=FrozenDict(exits),
        layers=FrozenDict({name: int(n * shares.get(facts.exits[name], 1)) for name, n in facts.layers.items()}),
        head_features=int(facts.head_features * head),
        chain=chains[0] if facts.chain else (),
        inner=() if facts.chain else chains,
    )


def _narrower(chain: Sequence[ChainLayer], kept: Mapping[str, int]) -> list[ChainLayer]:
    """The layers of a chain with so many units in those named."""
    found: list[ChainLayer] = []
    before = Fraction(1)
    for layer in chain:
        width = kept.get(layer.name, layer.width)
        own = Fraction(width, layer.width)
        forward, backward = (int(flops * before * own) for flops in (layer.forward_flops, layer.backward_flops))
        found.append(ChainLayer(name=layer.name, width=width, forward_flops=forward, backward_flops=backward))
        before = own
    return found


def flops(facts: TaskFacts, kept: Mapping[str, int], effort: PickBudget, num_examples: int) -> int:
    """FLOPs of choosing the units that stay: passes of the examples up to each layer, and the candidates.

    In a network that is a chain, one pass of the examples up to the last layer pruned, and of each candidate through
    the layers behind its own. Else a whole pass for each layer pruned, and for each candidate.

    The most that it can be: where the last picks have fewer units left than `effort.candidates`, they cost less, and
    how many such picks there are is not known beforehand.

    Args:
        facts: of the network before.
        kept: units that stay, of each layer that gets narrower.
        effort: candidates and picks.
        num_examples: that losses are measured on.
    """
    now, total = facts, 0
    for number, chain in enumerate(facts.chains):
        last = max((i for i, layer in enumerate(chain) if layer.name in kept), default=-1)
        for place in range(last + 1):
            layer, following = now.chains[number][place : place + 2]
            total += layer.forward_flops if facts.chain else 0
            if layer.name in kept:
                before = now.exits[following.name] if facts.chain else 0
                total += 0 if facts.chain else now.forward_flops
                candidate = following.forward_flops // layer.width + now.forward_flops - before
                total += effort.evaluations(layer.width, kept[layer.name]) * candidate
                now = pruned_facts(now, {layer.name: kept[layer.name]})
    return total * num_examples
