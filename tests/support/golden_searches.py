"""Made-up searches whose proposals are on record in `tests/fixtures/searches.json`.

Where a sampler proposes others on purpose, raise its `proposals` (`subsettune/study/search/sources.py`) and write them
anew:

    PYTHONPATH=. python tests/support/golden_searches.py
"""

from __future__ import annotations

import json

from facts import made_up_facts
from places import ROOT

from subsettune.policy import Policy
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import Outcome, Proposal, Search
from subsettune.study.spec.samplers import SamplerName
from subsettune.study.spec.space_check import read_space

SEARCHES = ROOT / "tests" / "fixtures" / "searches.json"
SAMPLED: tuple[SamplerName, ...] = ("tpe", "random")
SEEDS = (0, 1)


def proposed(sampler: SamplerName, seed: int) -> list[list[object]]:
    """Key of the policy and seed of the run of each proposal."""
    space = read_space(
        {
            "budget": {"log": [0.05, 0.9]},
            "switch": {"uniform": [0.1, 0.9]},
            "subset_share": {"log": [0.05, 0.5]},
            "selector": {"choice": ["random", "stratified"]},
            "transition": {"choice": ["keep", "reset_optimizer", "shrink_perturb"]},
            "shrink_perturb.shrink": {"uniform": [0.2, 0.9]},
            "order": {"choice": ["uniform", "rs2"]},
            "lr": {"log": [0.01, 1.0]},
        }
    )
    facts = made_up_facts(num_examples=10_000, num_parameters=5_000)
    settings = SearchSettings(trials=24, seed=seed, sampler=sampler, noise=0.01)
    search, found = Search(SearchProblem(space=space, facts=facts, target=0.9), settings), []
    while isinstance(proposal := search.propose(), Proposal):
        found.append([proposal.policy.key[:16], proposal.seed])
        search.tell(proposal.number, Outcome(cause="finished", metric=_metric(proposal.policy, proposal.seed)))
    return found


def _metric(policy: Policy, seed: int) -> float:
    """A made-up accuracy: less below three passes of ten, with something of the policy's own and of the seed's."""
    own = int(policy.key[:4], 16) / 65535
    return 0.93 - 0.05 * max(0, 0.3 - policy.passes / 10) - 0.01 * own + 0.003 * ((seed * 7919) % 11 - 5) / 5


if __name__ == "__main__":
    on_record = {f"{sampler}-{seed}": proposed(sampler, seed) for sampler in SAMPLED for seed in SEEDS}
    SEARCHES.write_text(json.dumps(on_record, indent=0, sort_keys=True) + "\n")
