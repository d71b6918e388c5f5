"""What an earlier version wrote can still be opened, and what it computed is computed again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from facts import made_up_facts
from places import ROOT

from subsettune import Bundle, Policy, Task, TuneOptions, tune
from subsettune.data import DataPaths, load
from subsettune.policy import conventional
from subsettune.study.results.folder import StudyFolder
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import Outcome, Proposal, Search
from subsettune.study.spec.samplers import SamplerName
from subsettune.study.spec.space_check import read_space
from subsettune.train.loop import RunOptions, facts, run, run_key

OLD = ROOT / "tests" / "fixtures" / "v0_1"
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


def _cases() -> dict[str, Case]:
    """The runs of `seeded.json`, as version 0.1.0 wrote them: `entry` is what a transition was called."""
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
    cases: dict[str, Case] = {name: (MLP, phase, {}) for name, phase in phases.items()}
    cases["lbfgs"] = (LBFGS, SUBSET, {})
    cases["adamw"] = (MLP, SUBSET, {"optimizer": "adamw", "lr": 0.01})
    cases["cnn"] = (CNN, [{"share": 0.5, "passes": 0.1}, {"passes": 0.2}], {})
    return cases


# Their price was below what they multiply: less is left for training.
DEARER = ("selector_gradmatch", "selector_glister")


def test_seeded_runs_have_the_keys_the_compute_and_the_curves_that_they_had() -> None:
    expected, cases = json.loads((OLD / "seeded.json").read_text()), _cases()
    assert expected.keys() == cases.keys()
    for name, (raw, phases, recipe) in cases.items():
        task, was = Task(**raw), expected[name]
        known = facts(task)
        policy = conventional(known) if phases is None else Policy.from_mapping({"phases": phases, "recipe": recipe})
        result = run(task, policy, 3, options=RunOptions(num_threads=1, device="cpu"))
        key = run_key(task, load(task, DataPaths()).fingerprint, policy, 3)
        spent = {kind: getattr(result.ledger, kind) for kind in was["ledger"]}
        assert (policy.key, key, policy.cost(known)) == (was["policy"], was["run"], was["cost"]), name
        assert result.cause == "finished", name
        assert len(result.curve) == len(was["curve"]), name
        if name.startswith(DEARER):
            assert spent["select"] > was["ledger"]["select"], name
            continue
        if name not in ("order_infobatch", "lbfgs"):  # whose work depends on losses, to the last digit
            assert spent == was["ledger"], name
            assert [[p.flops, p.phase, p.select, p.forward] for p in result.curve] == [
                [flops, phase, select, forward] for flops, phase, _, _, select, forward in was["curve"]
            ], name
        for point, (_, _, _, loss, _, _) in zip(result.curve, was["curve"], strict=True):
            assert point.loss == (None if loss is None else pytest.approx(loss, rel=0.02)), name


HEADLINE = (  # in the words of today: what was exported was not tested for a win then
    "Matches the recipe (accuracy 0.9190 against 0.9400 on the test split over 3 and 3 runs, error +35 %, within 0.05) "
    "with 45 % less training compute (6.54 of 12.0 passes); it was not tested against plain training of equal compute, "
    "so that no win of its subset is claimed; its subset is itself a random one."
)


def test_a_study_of_an_earlier_version_is_shown_reported_and_asked_for_nothing_new(tmp_path: Path) -> None:
    shutil.copytree(OLD / "study", tmp_path / "old")
    view = StudyFolder(str(tmp_path), "old").open().view()
    assert view.summary.headline == HEADLINE
    bundle = Bundle.load(tmp_path / "old" / "bundle")
    assert bundle.policy.arm == "subset"
    again = tune(
        tmp_path / "old" / "study.yaml",
        run_id="old",
        options=TuneOptions(storage=str(tmp_path), places=DataPaths(), executor="inline", device="cpu"),
    )
    assert len(again.trials) == len(view.trials) == 14
    assert again.summary.headline == HEADLINE


def test_a_run_goes_on_from_a_checkpoint_of_an_earlier_version(tmp_path: Path) -> None:
    task = Task(**{**MLP, "model": {"name": "mlp", "hidden": [8]}})
    phases = [{"share": 0.5, "passes": 1}, {"passes": 1.5, "entry": "shrink_perturb"}]
    policy = Policy.from_mapping({"phases": phases})
    shutil.copytree(OLD / "checkpoints", tmp_path / "checkpoints")
    options = RunOptions(num_threads=1, device="cpu", checkpoints=str(tmp_path / "checkpoints"), evaluations=4)
    again = run(task, policy, 5, options=options)
    whole = run(task, policy, 5, options=RunOptions(num_threads=1, device="cpu", evaluations=4))
    assert again.repeated_flops == 1_022_080  # it did go on, from where the checkpoint was
    assert [point.flops for point in again.curve] == [point.flops for point in whole.curve]
    assert again.metrics["validation"] == pytest.approx(whole.metrics["validation"], abs=0.01)


def _metric(policy: Policy, seed: int) -> float:
    """A made-up accuracy: less below three passes of ten, with something of the policy's own and of the seed's."""
    own = int(policy.key[:4], 16) / 65535
    return 0.93 - 0.05 * max(0, 0.3 - policy.passes / 10) - 0.01 * own + 0.003 * ((seed * 7919) % 11 - 5) / 5


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_proposes_what_it_proposed_before_its_coordinates_were_renamed(sampler: SamplerName) -> None:
    """Optuna draws in the order of names; a study that goes on must not become another one by a better word."""
    known = made_up_facts(num_examples=10_000, num_parameters=5_000)
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
    expected = json.loads((OLD / "searches.json").read_text())
    for seed in (0, 1):
        settings = SearchSettings(trials=24, seed=seed, sampler=sampler, noise=0.01)
        search, found = Search(SearchProblem(space=space, facts=known, target=0.9), settings), []
        while isinstance(proposal := search.propose(), Proposal):
            found.append([proposal.policy.key[:16], proposal.seed])
            search.tell(proposal.number, Outcome(cause="finished", metric=_metric(proposal.policy, proposal.seed)))
        assert found == expected[f"{sampler}-{seed}"]
