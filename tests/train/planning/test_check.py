from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import random_state
from fakes import image_task, options, two_phases, value_task
from odd_networks import Packed
from places import BENCHMARKS
from torch import nn
from torch.utils.data import TensorDataset

from subsettune import config, train
from subsettune.data import DataPaths, load
from subsettune.errors import ConfigError, CostWarning, DataError, ModelError
from subsettune.policy import Phase, Policy, conventional
from subsettune.task import Task

pytestmark = pytest.mark.usefixtures("untouched_random_state")
Data = dict[str, str]


def drawing(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, num_outputs))


def ten_outputs() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def wrong_input() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 4))


def test_facts_of_a_classification(tiny_data: Data) -> None:
    known = train.facts(image_task(tiny_data))
    forward = 2 * 64 * 8 + 2 * 8 * 4
    assert dataclasses.asdict(known) == {
        "num_examples": 210,
        "num_outputs": 4,
        "num_parameters": 65 * 8 + 9 * 4,
        "forward_flops": forward,
        "backward_flops": forward + 2 * 8 * 4,
        "reference_passes": 4.0,
        "num_features": 64,
        "num_classes": 4,
        "smallest_class": 52,
        "class_counts": tuple(torch.bincount(load(image_task(tiny_data)).train.targets).tolist()),
        "head_features": 8,
        "layers": {"0": 64, "1": 8, "2": 8, "3": 4},
        "num_embedding": 0,
        "exits": {"0": 0, "1": 2 * 64 * 8, "2": 2 * 64 * 8, "3": forward},
        "blocks": ("0", "1", "2", "3"),
        "chain": (
            {"name": "1", "width": 8, "forward_flops": 2 * 64 * 8, "backward_flops": 2 * 64 * 8},
            {"name": "3", "width": 4, "forward_flops": 2 * 8 * 4, "backward_flops": 2 * 2 * 8 * 4},
        ),
        "inner": (),
        "has_batch_norm": False,
        "num_tokens": 0,
        "image_channels": 1,
        "notes": (),
        "unit": "FLOP",
        "num_labels": 0,
        "own_loss": "",
    }


def test_facts_of_a_regression(tiny_data: Data) -> None:
    known = train.facts(value_task(tiny_data))
    assert (known.num_outputs, known.num_classes, known.smallest_class, known.num_features) == (1, 0, 0, 5)
    assert (known.num_parameters, known.forward_flops, known.backward_flops) == (6, 10, 10)


@pytest.mark.parametrize(
    ("model", "recipe", "error", "message"),
    [
        (
            "ten_outputs",
            {},
            ModelError,
            r"^output of model 'tests.train.planning.test_check:ten_outputs' must be \(2, 4\) for 2 examples and 4 "
            r"classes or targets, got \(2, 10\). Fit its last layer.$",
        ),
        (
            "wrong_input",
            {},
            ModelError,
            r"^model 'tests.train.planning.test_check:wrong_input' fails on inputs of shape \(2, 1, 8, 8\)",
        ),
        ("drawing", {"optimizer_options": {"beta": 1}}, ConfigError, "^optimizer 'sgd' does not fit its options: "),
        (
            "drawing",
            {"augment": {"crop_padding": 9}},
            ConfigError,
            "^crop_padding must be below the image's side, got 9",
        ),
    ],
)
def test_a_task_that_cannot_be_trained_is_told_before_a_study(
    tiny_data: Data, model: str, recipe: dict[str, Any], error: type[Exception], message: str
) -> None:
    task = image_task(tiny_data, {"name": f"tests.train.planning.test_check:{model}"}, **recipe)
    with pytest.raises(error, match=message):
        train.facts(task)


def test_other_data_than_expected_are_refused(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    assert train.facts(task, fingerprint=load(task).fingerprint) == train.facts(task)
    with pytest.raises(DataError, match=r"and 0123456789abcdef were expected\. Give every machine the same data\.$"):
        train.facts(task, fingerprint="0123456789abcdef")


def test_what_a_run_selects_can_be_asked_for(tiny_data: Data) -> None:
    """`SubsetProvider` gives the subset that the run trains on: examples outside it do not matter."""
    task = image_task(tiny_data)
    policy = two_phases(0.5, 0.5, share=0.1, selector="stratified")
    data = load(task)
    first, again, other = (
        train.SubsetProvider(train.RunJob.of(task, policy, seed, data)).choose(0).subset.positions for seed in (3, 3, 4)
    )
    assert len(first) == 21
    assert torch.equal(again, first)
    assert not torch.equal(other, first)


def test_check_gives_the_recipe_of_the_policy(tiny_data: Data) -> None:
    task = image_task(tiny_data)
    known = train.facts(task)
    assert train.check(task, conventional(known), known) == task.recipe
    changed = Policy(phases=(Phase(passes=1),), recipe={"lr": 0.5, "optimizer": "adam"})
    recipe = train.check(task, changed, known)
    assert (recipe.lr, recipe.optimizer, recipe.momentum) == (0.5, "adam", None)


def test_predictions_leave_the_network_s_mode(tiny_data: Data) -> None:
    task = image_task(tiny_data, {"name": "tests.train.planning.test_check:drawing"})
    policy = Policy(phases=(Phase(passes=1),))
    network = train.run(task, policy, 0, options=options(keep_model=True)).model
    part = load(task).validation
    for training in (True, False):
        network.train(training)
        outputs, targets = train.predict(network, part)
        assert network.training is training
        again, _ = train.predict(network, part)  # dropout is off
        assert torch.equal(outputs, again)
    inputs, expected = part.batch(torch.arange(len(part)))
    with torch.no_grad():
        torch.testing.assert_close(outputs, network.eval()(inputs))
    assert torch.equal(targets, expected)


@pytest.mark.slow
def test_a_short_run_on_mnist() -> None:
    root = os.environ.get("SUBSETTUNE_DATA")
    if root is None or not (Path(root) / "MNIST").exists():
        pytest.skip("set SUBSETTUNE_DATA to a folder that holds torchvision's MNIST")
    plain = {
        "data": {"source": "mnist"},
        "model": {"name": "cnn", "channels": [4, 8], "hidden": 16},
        "recipe": {"lr": 0.05, "momentum": 0.9, "batch_size": 128, "epochs": 1},
        "tolerance": 0.01,
    }
    task, places = config.build(Task, plain), DataPaths(data_root=root, download=False)
    result = train.run(task, two_phases(0.1, 0.1, share=0.05), 0, options=options(places=places, evaluations=2))
    assert result.metrics["validation"] > 0.7
    cost = result.policy.cost(train.facts(task, places))
    assert 0 <= cost - result.ledger.spent < 128 * train.facts(task, places).example_flops


def drawn_examples() -> TensorDataset:
    """A user's own, made from the global random states."""
    x = torch.randn(60, 4) + np.random.rand() + random.random()  # noqa: NPY002
    return TensorDataset(x, torch.arange(60) % 2)


def test_reading_data_leaves_the_random_state_alone() -> None:
    """So do the imports of a first read: scikit-learn's draw from Python's state."""
    task = config.build(
        Task,
        {
            "data": {"source": "tests.train.planning.test_check:drawn_examples"},
            "model": {"name": "mlp"},
            "recipe": {"lr": 0.1, "batch_size": 8, "epochs": 1},
            "tolerance": 0.01,
        },
    )
    before = random_state()
    result = train.run(task, two_phases(0.5, 0.5), 0, options=options())
    assert random_state() == before
    assert result.cause == "finished"


def test_the_benchmark_s_bare_loop_still_does_the_same_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asserts that both loops end with the same bits."""
    path = BENCHMARKS / "step_overhead.py"
    spec = importlib.util.spec_from_file_location("step_overhead", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "step_overhead", module)
    spec.loader.exec_module(module)
    task = module.make_task("digits")
    train.facts(task)  # reads the data, which the module itself does not shield
    monkeypatch.setattr(sys, "argv", [str(path), "--source", "digits", "--pairs", "2", "--passes", "0.2"])
    module.main()
    printed = capsys.readouterr().out
    assert printed.count("pair ") == 2
    assert "clock: median ratio " in printed
    assert "processor: median ratio " in printed
    assert "2 pairs on digits, cnn [16, 32] + 64, batch 128, 0.2 passes, 10 evaluations; one thread of " in printed


def _texts_task(folder: Path) -> Task:
    """Sixty texts of 1 to 12 words for a network that leaves padding out."""
    words = [" ".join(["good", "bad"][i % 2] for _ in range(1 + i % 12)) for i in range(60)]
    rows = "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(words))
    (folder / "texts.tsv").write_text(f"text\tlabel\n{rows}")
    return Task(
        data={
            "source": str(folder / "texts.tsv"),
            "text": "text",
            "label": "label",
            "tokens": "words",
            "max_tokens": 12,
        },
        model={"name": "odd_networks:packed"},
        recipe={"lr": 0.1, "batch_size": 8, "epochs": 2},
        tolerance=0.1,
    )


def test_a_network_whose_cost_depends_on_values_is_told_and_pays_what_its_policy_says(tmp_path: Path) -> None:
    places = DataPaths(cache=str(tmp_path / "cache"), download=False)
    task = _texts_task(tmp_path)
    sentence = (
        r"^The FLOPs of model 'odd_networks:packed' depend on the values of its inputs or on random draws: in 5 "
        r"batches of 8 they were [\d.]+ kFLOP to [\d.]+ kFLOP an example. Every example is charged the mean of these "
    )
    with pytest.warns(CostWarning, match=sentence):
        known = train.facts(task, places)
    lengths = (load(task, places).train.inputs != 0).sum(1)
    shortest, longest = (Packed.flops(int(length)) for length in (lengths.min(), lengths.max()))
    assert shortest < known.forward_flops < longest
    assert [re.match(sentence, note) is not None for note in known.notes] == [True]
    assert known.exits["head"] == known.forward_flops
    plain = json.loads(config.canonical_json(known))
    assert config.build(type(known), plain) == known
    assert "notes" not in config.to_plain(dataclasses.replace(known, notes=()))  # earlier versions know no such key
    for order in ("uniform", "sift"):
        phases = [{"share": 0.5, "passes": 0.5, "order": order}, {"passes": 1.0, "order": order}]
        policy = Policy.from_mapping({"phases": phases})
        result = train.run(task, policy, 0, options=options(places=places))
        assert result.cause == "finished"
        assert 0 <= policy.cost(known) - result.ledger.spent < 8 * 2 * known.example_flops
