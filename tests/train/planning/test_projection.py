"""The projected account of a policy against the ledger of its run."""

from __future__ import annotations

import pytest
from fakes import image_task, options

from subsettune import train
from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project

Data = dict[str, str]
CURRENT = FrozenDict({"model": "current"})
POLICIES = {
    "full": (Phase(passes=1.7),),
    "two": (Phase(share=0.3, passes=0.9), Phase(passes=0.8)),
    "grows": (Phase(share=0.1, passes=0.35), Phase(share=0.3, passes=0.35), Phase(passes=0.5)),
    "same pool": (Phase(share=0.3, passes=0.21), Phase(share=0.3, passes=0.21), Phase(passes=0.3)),
    "chosen": (Phase(share=0.2, passes=3.0, selector="kcenter"), Phase(passes=1.0)),
    "chosen anew": (*(Phase(share=0.3, passes=0.25, draw=i) for i in range(3)), Phase(passes=0.4)),
    "the same again": (
        *(Phase(share=0.1, passes=2.0, selector="herding", draw=i) for i in range(2)),
        Phase(passes=0.4),
    ),
    "of one size": (Phase(share=0.3, passes=0.25), Phase(share=0.3001, passes=0.25), Phase(passes=0.4)),
    "chosen by the network": (
        *(Phase(share=0.3, passes=1.6, selector="el2n", selector_options=CURRENT, draw=i) for i in range(3)),
        Phase(passes=0.4),
    ),
    "chosen by the network after a prune": (
        Phase(passes=0.5),
        Phase(
            passes=1.5,
            transition="prune",
            transition_options=FrozenDict({"keep": 0.3, "candidates": 2, "examples": 16}),
        ),
        Phase(share=0.3, passes=2.2, selector="el2n", selector_options=CURRENT),
    ),
    "ends with a small pool": (Phase(passes=1.0), Phase(share=0.02, passes=0.07)),
    "ends before its last phase": (Phase(passes=0.9), Phase(passes=0.05), Phase(share=0.01, passes=0.05)),
    "passed over": (Phase(share=0.3, passes=0.0), Phase(share=0.2, passes=0.01), Phase(passes=1.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("batch_size", [7, 16, 19, 500])
def test_the_projection_is_the_ledger(tiny_data: Data, name: str, batch_size: int) -> None:
    task, policy = image_task(tiny_data, batch_size=batch_size), Policy(phases=POLICIES[name])
    result = train.run(task, policy, 3, options=options())
    stretches = project(resolve(policy, task.recipe, train.facts(task)))
    spent = [getattr(result.ledger, purpose) for purpose in ("select", "forward", "backward")]
    assert spent == [sum(getattr(s.ledger, p) for s in stretches) for p in ("select", "forward", "backward")]
    assert result.updates == sum(s.updates for s in stretches)
