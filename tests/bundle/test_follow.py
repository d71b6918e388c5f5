"""A bundle followed by other code: the code on its page, run by itself, gives the bits of `train.run`."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bare import bare_packages
from fake_bundle import export
from places import ROOT
from torch.nn.utils import parameters_to_vector

from subsettune import Bundle, config
from subsettune.bundle.export import chosen, export_policy
from subsettune.bundle.follow import follow, why_not
from subsettune.bundle.rows import TrainingRows
from subsettune.data import DataPaths, load
from subsettune.errors import BundleError
from subsettune.policy import Phase, Policy, Soup
from subsettune.task import Task
from subsettune.train import loop
from subsettune.train.job import RunJob
from subsettune.train.randomness import isolated
from subsettune.train.selection.chooser import SubsetProvider

pytestmark = pytest.mark.slow  # trains 25 policies twice
SEED = 3
# One process for all bundles: it follows each by the code of its page, with a network and an update of the study's.
FOLLOWER = r"""
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import os
import re
from pathlib import Path
import torch
from torch.nn.utils import parameters_to_vector
from subsettune import Bundle, DataPaths, train
from subsettune.data import load
from subsettune.train.learner import Learner
from subsettune.train.randomness import isolated

places, found = f"DataPaths(cache={sys.argv[3]!r})", {}
os.chdir(sys.argv[4])  # the page is for the folder that the bundle lies in
for folder in sorted(Path().iterdir()):
    own_loop, *own_code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(own_loop.replace("DataPaths()", places, 1).replace("RunOptions(", "RunOptions(device='cpu', "), names)
    found[folder.name] = now = {"loop": parameters_to_vector(names["network"].parameters())}
    assert names["model"].origin.metrics["test"] == names["result"].metrics["test"]
    if not own_code:
        continue
    bundle, rates, seen = Bundle.load(folder), [], []
    data = load(bundle.task, eval(places))
    with isolated(bundle.seed, 1):
        learner = Learner(bundle.task, bundle.recipe, data, torch.device("cpu"), bundle.seed)
        place = {int(row): position for position, row in enumerate(data.train.rows)}
        def train_on_batch(rows, weights):
            rates.append(learner.optimizer.param_groups[0]["lr"])
            seen.append(len(rows))
            losses, positions = [], torch.tensor([place[int(row)] for row in rows])
            watch = lambda batch, outputs, targets: losses.append(learner.example_losses(outputs, targets))
            factors = None if weights is None else torch.from_numpy(weights)
            learner.update(positions, rates[-1], factors, watch=watch)
            return losses[0]
        given = {"DATA": data.num_source_examples, "network": learner.network, "optimizer": learner.optimizer}
        exec(own_code[0], {**given, "train_on_batch": train_on_batch})
    now |= {"own": parameters_to_vector(learner.network.parameters()), "rates": rates, "visits": sum(seen)}
torch.save(found, sys.argv[5])
"""


def _two(transition: str = "keep", **first: Any) -> Policy:
    """A subset phase and one on all data, in one order."""
    order = {name: value for name, value in first.items() if name.startswith("order")}
    return Policy(phases=(Phase(share=0.3, passes=0.5, **first), Phase(passes=1.53, transition=transition, **order)))


def _subset_of(selector: str, passes: float, **options: Any) -> Policy:
    first = Phase(share=0.2, passes=passes, selector=selector, selector_options=config.FrozenDict(options))
    return Policy(phases=(first, Phase(passes=1.5)))


LADDER = Policy(phases=(*(Phase(share=share, passes=0.7) for share in (0.1, 0.5)), Phase(passes=1.2)))
CURRENT = Phase(share=0.2, passes=4, selector="glister", selector_options=config.FrozenDict({"model": "current"}))
LBFGS = {"optimizer": "lbfgs", "lr": 1.0, "momentum": None, "batch_size": 300, "schedule": "constant"}
CLIPPED = {"grad_clip": 0.5, "label_smoothing": 0.1, "schedule_options": {"warmup": 0.2}}
AUGMENTED = {"augment": {"flip": True, "crop_padding": 1}, "schedule": "one_cycle"}

# name: settings of the recipe, policy, and why other code cannot follow it ("" if it can)
CASES: dict[str, tuple[Mapping[str, Any], Policy, str]] = {
    "full": ({}, Policy(phases=(Phase(passes=2.1),)), ""),
    "subset": ({}, _two(), ""),
    "one_cycle": ({"schedule": "one_cycle"}, _two(), ""),
    "warmup": (CLIPPED, _two(), ""),
    "augmented": (AUGMENTED, _two(), ""),
    "overridden": ({}, Policy(phases=_two().phases, recipe=config.FrozenDict({"lr": 0.2, "batch_size": 25})), ""),
    "adamw": ({"optimizer": "adamw", "lr": 0.01, "momentum": None}, _two(), ""),
    "rs2": ({}, _two(order="rs2", order_options=config.FrozenDict({"share": 0.5})), ""),
    "reset": ({}, _two("reset_optimizer"), ""),
    "shrunk": ({}, _two("shrink_perturb"), ""),
    "ladder": ({}, LADDER, ""),
    "no_first": ({}, Policy(phases=(Phase(share=0.5, passes=0.0), *_two("shrink_perturb").phases[1:])), ""),
    "kcenter": ({}, _subset_of("kcenter", 8), ""),
    "craig": ({}, _subset_of("facility_location", 8), ""),
    "gradmatch": ({}, _subset_of("gradmatch", 8), ""),
    "current": ({}, Policy(phases=(Phase(passes=1), CURRENT, Phase(passes=1.03))), ""),
    "infobatch": ({}, _two(order="infobatch"), ""),
    "sift": ({}, _two(order="sift", order_options=config.FrozenDict({"keep": 0.5, "exit": 1.0})), "the order `sift`"),
    "prune": ({}, _two("prune"), "trains a network that was made narrower"),
    "soup": ({}, _two(soup=Soup(workers=2)), "trains workers apart and averages them"),
    "lbfgs": (LBFGS, _two(), "takes steps of lbfgs, whose line search decides"),
    "distorted": ({}, _two(), "trains on data that were distorted on purpose"),
    "regression": ({}, _two(), ""),
    "categories": ({}, _two(), ""),
    "texts": ({}, _two(), ""),
}


def _task(name: str, folder: Path) -> Task:
    recipe = CASES[name][0]
    data = {"images": str(folder / "images.npz"), "values": str(folder / "values.npz")}
    if name == "regression":
        return fakes.value_task(data, **recipe)
    task = fakes.image_task(data, **recipe)
    if name == "distorted":
        return dataclasses.replace(task, distortion=config.build(type(task.distortion), {"flip_labels": 0.1}))
    plain = config.to_plain(task)
    if name == "categories":
        plain["data"] = {"source": str(folder / "table.parquet"), "label": "label"}
    if name == "texts":
        plain["data"] = {"source": str(folder / "texts.parquet"), "text": "text", "label": "label", "max_tokens": 6}
        plain["model"] = {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "feedforward": 8, "dropout": 0.1}
    return config.build(Task, plain)


def _write_data(folder: Path) -> None:
    fakes.write_images(folder / "images.npz")
    fakes.write_values(folder / "values.npz")
    label = [("no", "yes")[i % 3 == 0] for i in range(300)]
    colours = [("red", "blue", None, "green")[i % 4] for i in range(300)]
    pq.write_table(pa.table({"colour": colours, "height": np.arange(300.0), "label": label}), folder / "table.parquet")
    words = [f"{('good', 'bad')[i % 2]} word{i % 7} {('day', 'night')[i % 3 == 0]}" for i in range(300)]
    pq.write_table(pa.table({"text": words, "label": label}), folder / "texts.parquet")


@dataclass(frozen=True)
class Followed:
    """What `train.run` did, and what the page's code did."""

    bundle: Bundle
    weights: torch.Tensor
    rates: list[float]
    page: dict[str, Any]


def _run(task: Task, policy: Policy, places: DataPaths) -> tuple[Any, list[float]]:
    """A run with its rates."""
    rates: list[float] = []
    real = loop._Run._lr

    def noted(self: Any) -> float:
        rates.append(real(self))
        return rates[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_lr", noted)
        result = loop.run(task, policy, SEED, options=fakes.options(keep_model=True, places=places))
    return result, rates


def _export(task: Task, policy: Policy, found: Any, places: DataPaths, target: Path) -> Bundle:
    data = load(task, places)
    subsets, here = dict(found.subsets), SubsetProvider(RunJob.of(task, policy, SEED, data), places=places)
    with isolated(SEED, 1):
        left = [i for i, phase in enumerate(policy.phases) if not phase.is_full and i not in subsets]
        subsets |= {index: here.choose(index).subset for index in left}
    evidence = export(target.parent.parent / "evidence")[0].evidence
    known = {"facts": loop.facts(task, places), "fingerprint": data.fingerprint, "seed": SEED}
    known["rows"] = TrainingRows.of(data) if task.distortion.is_off else None
    rows = [chosen(index, subset, data.train) for index, subset in sorted(subsets.items())]
    return export_policy(target, policy, evidence, task=task, subsets=rows, **known)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Followed]:
    """A real bundle of every kind, and what the code on its page gives in a process without all the rest."""
    folder = tmp_path_factory.mktemp("follow")
    _write_data(folder)
    places, bundles = DataPaths(cache=str(folder / "cache")), folder / "bundles"
    bundles.mkdir()
    runs: dict[str, tuple[Bundle, Any, list[float]]] = {}
    for name, (_, policy, _) in CASES.items():
        task = _task(name, folder)
        result, rates = _run(task, policy, places)
        runs[name] = (_export(task, policy, result, places, bundles / name), result.model, rates)
    arguments = [str(bare_packages(folder / "bare")), str(ROOT), places.cache_folder, str(bundles), str(folder / "out")]
    done = subprocess.run([sys.executable, "-S", "-c", FOLLOWER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = torch.load(folder / "out")
    weights = {name: parameters_to_vector(model.parameters()) for name, (_, model, _) in runs.items()}
    return {name: Followed(made, weights[name], rates, page[name]) for name, (made, _, rates) in runs.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_loop_on_the_page_gives_the_bits_of_a_run(name: str, followed: dict[str, Followed]) -> None:
    found = followed[name]
    assert torch.equal(found.page["loop"], found.weights)
    assert len(found.rates) > 1


@pytest.mark.parametrize("name", [name for name, (_, _, why) in CASES.items() if not why])
def test_own_code_on_the_page_gives_the_rates_and_the_weights_of_a_run(
    name: str, followed: dict[str, Followed]
) -> None:
    found = followed[name]
    assert found.page["rates"] == found.rates  # exact: the schedule is one of the compute of training
    assert torch.equal(found.page["own"], found.weights)
    assert found.page["visits"] == sum(found.bundle.visits)  # as the page says


@pytest.mark.parametrize("name", [name for name, (_, _, why) in CASES.items() if why])
def test_the_page_says_what_other_code_cannot_reproduce(name: str, followed: dict[str, Followed]) -> None:
    found, why = followed[name], CASES[name][2]
    assert "own" not in found.page
    (text,) = re.findall(r"^Not by training code of your own alone: .*$", found.bundle.readme, re.MULTILINE)
    assert why in text
    with pytest.raises(BundleError, match=re.escape(why)):
        follow(found.bundle, range(found.bundle.facts.num_examples), torch.nn.Linear(1, 1), None)  # type: ignore[arg-type]
    assert set(why_not(found.bundle)) <= set(range(len(found.bundle.policy.phases)))


@pytest.mark.parametrize("name", ["infobatch", "lbfgs"])
def test_visits_that_a_run_may_miss_are_told_as_about(name: str, followed: dict[str, Followed]) -> None:
    assert len(re.findall(r"about [\d,]+ examples", followed[name].bundle.readme)) == 2
    assert not re.findall(r"about [\d,]+ examples", followed["rs2"].bundle.readme)


def test_the_page_says_what_an_update_has_to_do(followed: dict[str, Followed]) -> None:
    pages = {name: found.bundle.readme for name, found in followed.items()}
    assert "the cross-entropy times `weights` (None: all are 1), with labels smoothed by 0.1" in pages["warmup"]
    assert "the settings of `bundle.recipe`, with the norm of the gradient clipped to 0.5." in pages["warmup"]
    assert "with images augmented as `task.recipe.augment` says." in pages["augmented"]
    assert "squared error times `weights` (None: all are 1), with the targets minus" in pages["regression"]
    assert "It changes `network` and `optimizer` itself: `shrink_perturb` where phase 2 opens." in pages["shrunk"]
    assert "`cosine` schedule (warmup 0.2) over the share of training compute" in pages["warmup"]
    assert "a policy and the evidence" not in pages["subset"]
    assert "the subset it trains on" not in pages["full"]
    assert "Found by subsettune: a policy and the evidence" in pages["full"]
    assert "drawn at random with seed 0" in pages["regression"]


def test_rows_of_other_data_are_refused(followed: dict[str, Followed]) -> None:
    made, network = followed["subset"].bundle, torch.nn.Linear(1, 1)
    optimizer, advice = torch.optim.SGD(network.parameters(), lr=1), "Give the rows that the task trains on"
    with pytest.raises(BundleError, match=f"^rows must be 210 as in the study, got 209. {advice}"):
        follow(made, range(209), network, optimizer)
    with pytest.raises(BundleError, match=r"^rows must be those of the study, in its order, got 'others'\."):
        follow(made, range(1000, 1210), network, optimizer)
