"""The samplers that a study may name: where the search takes new points from.

`frontier` is this package's model of the frontier between feasible and infeasible policies; `gp` and `tpe` are
Optuna's; `random` draws evenly. Names alone: whoever reads a study file needs none of the packages behind them.
"""

from __future__ import annotations

from typing import Literal, get_args

Sampler = Literal["frontier", "gp", "tpe", "random"]
SamplerName = Literal["auto", Sampler]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

_FRONTIER_TRIALS = 100  # above this many trials `auto` takes TPE, whose time an ask does not grow with their cube


def sampler_of(name: SamplerName, num_trials: int) -> Sampler:
    """The sampler that a name stands for: `auto` is `frontier` up to 100 trials, `tpe` above."""
    if name != "auto":
        return name
    return "frontier" if num_trials <= _FRONTIER_TRIALS else "tpe"
