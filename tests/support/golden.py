"""Seeded runs whose keys, ledgers and curves are on record in `tests/fixtures/seeded.json`.

Where runs change on purpose, write them anew, and say in `test_compatibility.py` which changed and why:

    PYTHONPATH=. python tests/support/golden.py            # all of them
    PYTHONPATH=. python tests/support/golden.py soup lbfgs # some
"""

from __future__ import annotations

import json
import sys
from typing import Any

from places import ROOT

from subsettune import Policy, Task
from subsettune.data import DataPaths, load
from subsettune.policy import conventional
from subsettune.train.loop import RunOptions, facts, run, run_key
from subsettune.train.result import RunResult

SEEDED = ROOT / "tests" / "fixtures" / "seeded.json"
SEED = 3
RECIPE: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "batch_size": 64, "epochs": 6}
MLP: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"name": "mlp", "hidden": [16, 12]},
    "recipe": RECIPE,
    "tolerance": 0.02,
}
CNN = {**MLP, "model": {"name": "cnn"}, "recipe": {**RECIPE, "epochs": 1}}
LBFGS = {**MLP, "recipe": {"optimizer": "lbfgs", "lr": 1.0, "batch_size": 2000, "epochs": 20}}
SUBSET: list[dict[str, Any]] = [{"share": 0.5, "passes": 1.0}, {"passes": 1.0}]
SELECTORS = (
    *("random", "stratified", "kcenter", "herding", "facility_location"),
    *("el2n", "grand", "gradmatch", "glister", "forgetting"),
)
ORDERS = ("uniform", "rs2", "infobatch", "selective_backprop", "sift")
TRANSITIONS = ("keep", "reset_optimizer", "shrink_perturb", "prune")
CURRENT = {"selector_options": {"model": "current"}}
Case = tuple[dict[str, Any], list[dict[str, Any]] | None, dict[str, Any]]


def cases() -> dict[str, Case]:
    """Task, phases and recipe of each run, as version 0.1.0 wrote them: `entry` is what a transition was called."""
    phases: dict[str, list[dict[str, Any]] | None] = {
        "conventional": None,
        "plain": [{"passes": 2}],
        "subset": SUBSET,
        "selector_gradmatch_current": [
            {"passes": 0.5},
            {"share": 0.2, "passes": 6, "selector": "gradmatch", **CURRENT},
            {"passes": 1},
        ],
        "soup": [{"passes": 1.0, "soup": {"workers": 3, "density": 0.5}}, {"passes": 1}],
        "soup_data": [
            {"share": 0.6, "passes": 1.0, "soup": {"workers": 2, "density": 0.4, "masks": "data"}},
            {"share": 0.3, "passes": 4, "selector": "el2n", **CURRENT},
            {"passes": 1},
        ],
        "growing": [
            {"share": 0.1, "passes": 4, "selector": "kcenter"},
            {"share": 0.2, "passes": 6, "selector": "kcenter"},
            {"passes": 1},
        ],
        "reselect": [{"share": 0.2, "passes": 2, "reselect": 0.5}, {"passes": 1, "entry": "reset_optimizer"}],
    }
    for name in SELECTORS:
        phases[f"selector_{name}"] = [{"share": 0.3, "passes": 12, "selector": name}, {"passes": 1}]
    for name in ORDERS:
        phases[f"order_{name}"] = [{"share": 0.6, "passes": 1.5, "order": name}, {"passes": 1.5, "order": name}]
    for name in TRANSITIONS:
        phases[f"entry_{name}"] = [{"share": 0.5, "passes": 1.5}, {"passes": 8, "entry": name}]
    found: dict[str, Case] = {name: (MLP, phase, {}) for name, phase in phases.items()}
    found["lbfgs"] = (LBFGS, SUBSET, {})
    found["adamw"] = (MLP, SUBSET, {"optimizer": "adamw", "lr": 0.01})
    found["cnn"] = (CNN, [{"share": 0.5, "passes": 0.1}, {"passes": 0.2}], {})
    return found


def carried_out(case: Case) -> tuple[RunResult, dict[str, Any]]:
    """A run, and what is on record of it before its first step: keys of policy and run, and cost."""
    raw, phases, recipe = case
    task = Task(**raw)
    known = facts(task)
    policy = conventional(known) if phases is None else Policy.from_mapping({"phases": phases, "recipe": recipe})
    result = run(task, policy, SEED, options=RunOptions(num_threads=1, device="cpu"))
    key = run_key(task, load(task, DataPaths()).fingerprint, policy, SEED)
    return result, {"policy": policy.key, "run": key, "cost": policy.cost(known)}


def told(case: Case) -> dict[str, Any]:
    """A run as it is written down."""
    result, before = carried_out(case)
    return {
        **before,
        "cause": result.cause,
        "curve": [[p.flops, p.phase, p.metric, p.loss, p.select, p.forward] for p in result.curve],
        "ledger": {kind: getattr(result.ledger, kind) for kind in ("backward", "evaluate", "forward", "select")},
        "metrics": dict(result.metrics),
    }


if __name__ == "__main__":
    on_record, known_cases = json.loads(SEEDED.read_text()), cases()
    for chosen in sys.argv[1:] or known_cases:
        on_record[chosen] = told(known_cases[chosen])
    SEEDED.write_text(json.dumps(on_record, indent=1, sort_keys=True) + "\n")
