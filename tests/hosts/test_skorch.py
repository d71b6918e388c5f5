"""A bundle followed in skorch: rows, weights, switches and ledger of the promise, and the bits of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs skorch, and runs by `make test-hosts`", allow_module_level=True)

import small_bundles
import torch
from places import ROOT
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from small_bundles import Followed, digits_bundle, promised, run_example
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

from subsettune.errors import TrainingFunctionError
from subsettune.integrations.skorch import PolicyCallback
from subsettune.train.follow.sampler import PolicySampler

pytestmark = pytest.mark.filterwarnings("default")  # skorch's own are not ours to mend


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return digits_bundle(tmp_path_factory.mktemp("switching"))


class Numbered(Dataset):  # type: ignore[misc]
    """skorch's data, with the row of each example beside its target."""

    def __getitem__(self, row: int) -> Any:
        x, y = super().__getitem__(row)
        return x, (y, row)


class Net(NeuralNetClassifier):  # type: ignore[misc]
    """A net that notes the rows that it is trained on, and weighs them."""

    sampler: PolicySampler
    rows: list[list[int]]
    weights: list[Any]

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Any:  # noqa: N803
        targets, rows = y_true
        weights = self.sampler.weights
        self.rows.append(rows.tolist())
        self.weights.append(weights)
        if weights is None:
            return cross_entropy(y_pred, targets)
        return (cross_entropy(y_pred, targets, reduction="none") * torch.from_numpy(weights)).mean()


def _net(made: Followed, sampler: PolicySampler, **settings: Any) -> Net:
    recipe = made.bundle.recipe
    given = {
        "criterion": torch.nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": recipe.lr,
        "optimizer__momentum": recipe.momentum,
        "optimizer__weight_decay": recipe.weight_decay,
        "iterator_train__batch_sampler": sampler,
        "iterator_train__batch_size": 1,
        "max_epochs": 1,
        "train_split": None,
        "callbacks": [PolicyCallback(sampler)],
        "dataset": Numbered,
        "classes": list(range(10)),
        "verbose": 0,
    }
    net = Net(small_bundles.network(made.bundle.task), **{**given, **settings})
    net.sampler, net.rows, net.weights = sampler, [], []
    return net


def _sampler(made: Followed, **options: Any) -> PolicySampler:
    return made.bundle.batch_sampler(len(made.inputs), **options)


def _fit(made: Followed, net: Net) -> None:
    net.fit(made.inputs, made.targets)


@pytest.mark.parametrize(("num_workers", "epochs"), [(0, 1), (2, 1), (0, 3)])
def test_fit_trains_on_the_promise_with_the_bits_of_a_run(followed: Followed, num_workers: int, epochs: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sampler = _sampler(followed, epochs=epochs)
        net = _net(followed, sampler, iterator_train__num_workers=num_workers, max_epochs=epochs)
        _fit(followed, net)
    finally:
        torch.set_num_threads(threads)
    batches = promised(followed.bundle)
    assert net.rows == [rows.tolist() for rows, _ in batches]
    for (_, weights), found in zip(batches, net.weights, strict=True):
        assert (weights is None) == (found is None)
        assert weights is None or weights.tolist() == found.tolist()
    ledger = sampler.finish()
    assert ledger == sampler.promise
    assert (ledger.forward, ledger.backward) == (followed.ledger.forward, followed.ledger.backward)
    assert torch.equal(parameters_to_vector(net.module_.parameters()), followed.weights)


def test_settings_that_give_other_rows_or_batches_are_refused(followed: Followed) -> None:
    from skorch.dataset import ValidSplit

    net = _net(followed, _sampler(followed), train_split=ValidSplit(5))  # what skorch does by itself
    with pytest.raises(TrainingFunctionError, match=r"^train_split must be None, got one that holds out examples"):
        _fit(followed, net)
    net = _net(followed, _sampler(followed), iterator_train__batch_sampler=None, iterator_train__batch_size=8)
    with pytest.raises(TrainingFunctionError, match=r"^iterator_train__batch_sampler must be the sampler of the call"):
        _fit(followed, net)


def test_batches_that_are_left_out_or_repeated_are_told(followed: Followed) -> None:
    sampler = _sampler(followed, epochs=3)
    _fit(followed, _net(followed, sampler, max_epochs=2))
    with pytest.raises(TrainingFunctionError, match=r"sampler\.finish was called after 21 of 31 batches"):
        sampler.finish()
    with pytest.raises(TrainingFunctionError, match="the batches of a policy can be gone through once, and 31 of 31"):
        _fit(followed, _net(followed, _sampler(followed), max_epochs=2))

    class Plain(NeuralNetClassifier):  # type: ignore[misc]
        def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Any:  # noqa: N803
            return cross_entropy(y_pred, y_true[0])

    sampler = _sampler(followed)
    Plain(**_net(followed, sampler).get_params(deep=False)).fit(followed.inputs, followed.targets)
    with pytest.raises(TrainingFunctionError, match=r"weighs its examples, and nobody read sampler\.weights"):
        sampler.finish()


def test_a_net_goes_on_where_it_was_interrupted(followed: Followed) -> None:
    sampler = _sampler(followed, epochs=3)
    first = _net(followed, sampler, max_epochs=2)
    _fit(followed, first)
    kept = [part.state_dict() for part in (first.module_, first.optimizer_, sampler)]
    sampler = _sampler(followed, epochs=3)
    second = _net(followed, sampler).initialize()
    for part, state in zip((second.module_, second.optimizer_, sampler), kept, strict=True):
        part.load_state_dict(state)
    second.partial_fit(followed.inputs, followed.targets)
    assert sampler.finish() == sampler.promise
    assert first.rows + second.rows == [rows.tolist() for rows, _ in promised(followed.bundle)]
    whole = _net(followed, _sampler(followed))
    _fit(followed, whole)
    for old, new in zip(whole.module_.parameters(), second.module_.parameters(), strict=True):
        assert torch.equal(old, new)


def test_neither_ray_nor_optuna_is_loaded() -> None:
    code = "import sys, subsettune.integrations.skorch; print(sorted({'ray', 'optuna'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_spends_the_promise(followed: Followed, tmp_path: Path) -> None:
    promise = _sampler(followed).promise
    assert run_example("skorch_net", followed.folder, tmp_path).splitlines()[-1] == str(promise)
