"""What CONTRIBUTING.md says: its examples run as they stand there, and its table of public names is the truth."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import fakes
import pytest
import torch
from places import ROOT
from torch.nn.utils import parameters_to_vector

import subsettune
from subsettune import Bundle, DataPaths, Policy, errors, train
from subsettune.train.planning.phases import resolve
from subsettune.train.planning.projection import project

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))
ROWS = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", TEXT, re.MULTILINE)
PUBLIC = {module: re.findall(r"`(\w+)`", names) for module, names in ROWS}


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as modules that can be imported."""
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_each_kind_has_an_example() -> None:
    assert list(EXAMPLES) == ["my_selector", "my_order", "my_transition", "my_host"]


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    "phases",
    [
        [{"share": 0.5, "passes": 1, "selector": "my_selector:Brightest"}, {"passes": 1}],
        [{"passes": 1, "order": "my_order:AsStored"}, {"passes": 1, "order": "my_order:AsStored"}],
        [{"passes": 1}, {"passes": 1, "transition": "my_transition:Scale", "transition_options": {"factor": 0.9}}],
    ],
    ids=["selector", "order", "transition"],
)
def test_the_example_of_a_component_trains(
    phases: list[dict[str, object]], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    task = fakes.image_task(tiny_data)
    where = DataPaths(cache=str(tmp_path))
    options = train.RunOptions(num_threads=1, device="cpu", keep_model=True, places=where)
    policies = (Policy.from_mapping({"phases": given}) for given in (phases, [{"passes": 2}]))
    own, plain = (train.run(task, policy, 0, options=options) for policy in policies)
    assert own.metrics["validation"] > 0.5
    weights, others = (parameters_to_vector(result.model.parameters()) for result in (own, plain) if result.model)
    assert not torch.equal(weights, others)


@pytest.mark.usefixtures("examples")
def test_the_example_of_a_host_hands_out_the_batches_of_the_policy() -> None:
    bundle = Bundle.load(ROOT / "tests" / "fixtures" / "v0_1" / "study" / "bundle")
    host = importlib.import_module("my_host")
    chosen = bundle.subset(0).index.tolist()
    rows = [*chosen, *(row for row in range(10_000, 10_000 + bundle.facts.num_examples - len(chosen)))]
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    batches = list(host.PolicyBatches(bundle, rows, network, optimizer))
    assert optimizer.param_groups[0]["lr"] < 0.1 * bundle.recipe.lr
    lengths = [len(batch) for batch in batches]
    expected = project(resolve(bundle.policy, bundle.recipe, bundle.facts))
    first = expected[0].updates
    assert set(lengths) == {bundle.recipe.batch_size}
    assert len(lengths) == sum(phase.updates for phase in expected)
    assert {rows[position] for batch in batches[:first] for position in batch} == set(chosen)
    assert {position for batch in batches[first:] for position in batch} == set(range(len(rows)))
    assert abs(sum(lengths) - sum(bundle.visits)) < bundle.recipe.batch_size  # which an earlier version counted


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_called_public_is_there(module: str) -> None:
    try:
        found = importlib.import_module(module)
    except errors.MissingPackageError:
        pytest.skip("needs its host: `make test-hosts` uses these names")
    assert PUBLIC[module] == sorted(PUBLIC[module])
    for name in PUBLIC[module]:
        assert getattr(found, name) is not None
        assert name in (*getattr(found, "__all__", [name]), "__version__")


def test_packages_name_what_is_public_of_them() -> None:
    assert subsettune.__all__ == dir(subsettune)
    assert sorted([*subsettune.__all__, "__version__"]) == PUBLIC["subsettune"]
    assert sorted(train.__all__) == PUBLIC["subsettune.train"]
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    classes = {name: value for name, value in classes.items() if value.__module__ == errors.__name__}
    assert sorted(classes) == PUBLIC["subsettune.errors"]


def test_a_name_that_is_not_there_is_told_like_any_other() -> None:
    with pytest.raises(AttributeError, match="module 'subsettune' has no attribute 'tuna'"):
        _ = subsettune.tuna
