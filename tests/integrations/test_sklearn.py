"""The estimators of scikit-learn: its own checks, where they go, and that they train by the one loop."""

from __future__ import annotations

import pickle
import runpy
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bare import bare_packages
from fakes import options, two_phases, value_task
from places import ROOT
from sklearn.base import clone
from sklearn.datasets import load_iris, make_friedman1
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (makes the next import work)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor, nn

from subsettune import train
from subsettune.bundle import Bundle
from subsettune.data import DataPaths, load
from subsettune.errors import BundleError, ConfigError, ModelDivergedError, ModelError, SubsettuneError
from subsettune.integrations import training
from subsettune.integrations.sklearn import SubsetClassifier, SubsetRegressor
from subsettune.policy import Phase, Policy, Soup


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks wait for a second one longer than they compute, where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


HALF = Policy(phases=(Phase(share=0.4, passes=2), Phase(passes=3)))


def classifier(policy: Any = None, **changes: Any) -> SubsetClassifier:
    """Quick, and of the same bits each time."""
    epochs = None if isinstance(policy, str | Bundle) else 6
    return SubsetClassifier(policy, **{"epochs": epochs, "random_state": 0, "device": "cpu", **changes})


def weights(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


# --- what scikit-learn asks of its own --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@parametrize_with_checks([SubsetClassifier(), SubsetRegressor()])  # type: ignore[untyped-decorator]
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_they_go_where_its_own_go(digits: tuple[Any, Any], tmp_path: Path) -> None:
    x, y = digits
    pipeline = make_pipeline(StandardScaler(), classifier(HALF))
    alone, together = (cross_val_score(pipeline, x, y, cv=2, n_jobs=n) for n in (1, 2))
    assert alone.min() > 0.7
    assert together == pytest.approx(alone, abs=0.03)  # another number of threads gives other bits
    search = GridSearchCV(pipeline, {"subsetclassifier__lr": [1e-6, 0.005]}, cv=2).fit(x, y)
    assert search.best_params_ == {"subsetclassifier__lr": 0.005}
    halving = HalvingGridSearchCV(
        classifier(), {"lr": [1e-6, 0.005]}, resource="epochs", max_resources=6, min_resources=2, factor=2, cv=2
    )
    assert halving.fit(x, y).best_estimator_.epochs == 4
    kept = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(kept.predict_proba(x), search.best_estimator_.predict_proba(x))


@pytest.mark.parametrize("kind", ["folder", "bundle", "policy", "mapping", "json", "module", "function"])
def test_clones_train_the_same(kind: str, digits: tuple[Any, Any], bundle_folder: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"phases": [{"share": 0.4, "passes": 2}, {"passes": 3}]}')
    given: dict[str, Any] = {
        "folder": {"policy": bundle_folder},
        "bundle": {"policy": Bundle.load(bundle_folder)},
        "policy": {"policy": HALF},
        "mapping": {"policy": HALF.to_mapping()},
        "json": {"policy": str(tmp_path / "policy.json")},
        "module": {"module": nn.Linear(64, 10)},
        "function": {"module": nn.Linear},
    }[kind]
    estimator = classifier(**given)
    again = clone(clone(estimator)).fit(*digits)
    assert torch.equal(weights(estimator.fit(*digits).module_), weights(again.module_))
    if kind in ("policy", "mapping", "json"):
        assert estimator.policy_ == HALF


def test_it_needs_scikit_learn_and_nothing_of_a_study(tmp_path: Path, bundle_folder: str) -> None:
    code = (
        "import sys\nsys.path[:0] = sys.argv[1:3]\nimport numpy as np\n"
        "from subsettune.integrations.sklearn import SubsetClassifier\n"
        "x = np.random.default_rng(0).normal(size=(400, 64))\n"
        "SubsetClassifier(sys.argv[3], device='cpu').fit(x, np.arange(400) % 10).predict(x)\n"
        "print(sorted({'ray', 'optuna', 'pandas', 'plotly', 'jinja2', 'filelock'} & set(sys.modules)))"
    )
    bare = bare_packages(tmp_path / "bare", "scikit-learn")
    command = [sys.executable, "-S", "-c", code, str(bare), str(ROOT), bundle_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


# --- one loop ---------------------------------------------------------------------------------------------------------


def test_it_trains_as_a_run_of_the_same_rows_does(tiny_data: dict[str, str]) -> None:
    """A table's rows are standardised in float32, and those of estimators in float64: to within that."""
    task, policy = value_task(tiny_data), two_phases(1.0, 2.0, transition="shrink_perturb")
    data = load(task, DataPaths())
    raw = np.load(tiny_data["values"])
    rows = data.train.rows.numpy()
    result = train.run(task, policy, 3, options=options(keep_model=True))
    options_of = {"module_options": {"hidden": []}, "recipe": task.recipe.to_mapping()}
    made = SubsetRegressor(policy, **options_of, random_state=3, device="cpu").fit(raw["x"][rows], raw["y"][rows])
    assert torch.allclose(weights(made.module_), weights(result.model), atol=1e-4)
    assert (made.ledger_.select, made.ledger_.train) == (result.ledger.select, result.ledger.train)
    assert made.n_iter_ == result.updates


@pytest.mark.usefixtures("untouched_random_state")
def test_all_rows_are_trained_on_and_nothing_is_measured(digits: tuple[Any, Any]) -> None:
    made = classifier(epochs=3).fit(*digits)
    assert made.facts_.num_examples == 500
    assert made.ledger_.evaluate == 0
    assert made.plain_flops_ == made.policy_.cost(made.facts_) == 3 * made.facts_.pass_flops
    assert made.plain_flops_ - made.ledger_.spent < 32 * made.facts_.example_flops  # less than an update
    assert made.complete_
    assert made.limits_ == ()


SUBSET = {"share": 0.5, "passes": 6}
POLICIES: dict[str, dict[str, Any]] = {
    **{name: {"selector": name, **SUBSET} for name in ("stratified", "kcenter", "herding", "facility_location")},
    **{name: {"selector": name, **SUBSET} for name in ("gradmatch", "el2n", "grand", "forgetting", "glister")},
    **{name: {"order": name, **SUBSET} for name in ("rs2", "infobatch", "sift", "selective_backprop")},
    "soup": {"soup": Soup(workers=3), **SUBSET},
    "prune": SUBSET,
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_method_works_and_keeps_no_ranking(
    name: str, digits: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBSETTUNE_CACHE", str(tmp_path / "cache"))
    first = Phase(**POLICIES[name])
    order = {"order": first.order}
    then = {"transition": "prune", "transition_options": {"keep": 0.75}} if name == "prune" else {}
    policy = Policy(phases=(first, Phase(passes=6, **then, **order)))
    made = classifier(policy, epochs=20).fit(*digits)
    assert made.complete_
    assert made.score(*digits) > 0.8
    assert 0 < made.ledger_.spent <= policy.cost(made.facts_)
    assert not (tmp_path / "cache").exists()


def test_flops_that_are_remembered_are_those_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_COUNTED", OrderedDict())
    x, y = load_iris(return_X_y=True)
    classifier(epochs=2).fit(x[:120], y[:120])
    remembered = classifier(epochs=5).fit(x[::2], y[::2]).facts_
    assert len(training._COUNTED) == 1
    training._COUNTED.clear()
    assert classifier(epochs=5).fit(x[::2], y[::2]).facts_ == remembered
    assert remembered.class_counts == (25, 25, 25)


# --- bundles ----------------------------------------------------------------------------------------------------------


def test_a_bundle_is_derived_for_the_rows_at_hand(digits: tuple[Any, Any], bundle_folder: str) -> None:
    found = Bundle.load(bundle_folder)
    made = classifier(bundle_folder).fit(*digits)
    assert made.policy_ == found.derive(made.facts_)[0]
    assert made.policy_.phases[0].pool_size(500) == 58
    assert made.recipe_ == found.recipe
    assert made.limits_[0].startswith("Sizes were derived anew: phase 1 takes 58 of 500 examples, by its share")
    assert any(line.startswith("The subset of phase 1 has an overdetermination ratio Q of") for line in made.limits_)
    assert made.limits_[-1].startswith("That it matches the recipe was shown on the bundle's data alone.")
    assert made.ledger_.spent / made.plain_flops_ == pytest.approx(found.policy.passes / 30, rel=0.05)


def test_settings_of_the_user_stand_before_those_of_the_bundle(digits: tuple[Any, Any], bundle_folder: str) -> None:
    made = classifier(bundle_folder, lr=0.02, module_options={"hidden": [16]}).fit(*digits)
    assert made.recipe_.lr == 0.02
    assert made.policy_.recipe == {}
    assert any(line.startswith("lr is 0.02, and was 0.1033") for line in made.limits_)
    assert any("which has 1,210 parameters (4,810)" in line for line in made.limits_)
    other = classifier(bundle_folder, optimizer="adamw", lr=0.005).fit(*digits)
    assert (other.recipe_.optimizer, other.recipe_.momentum) == ("adamw", None)


def test_a_policy_alone_says_that_nothing_speaks_for_it(digits: tuple[Any, Any]) -> None:
    assert classifier(HALF).fit(*digits).limits_ == (training.NO_EVIDENCE,)


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_budget_of_seconds_ends_the_training_and_says_so(
    digits: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classifier(time_budget_s=1000).fit(*digits).complete_
    ticks = iter(range(10_000))
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    with pytest.warns(ConvergenceWarning, match=r"^time_budget_s of 20 ended the training after \d+% of its compute. "):
        made = classifier(time_budget_s=20, epochs=40).fit(*digits)
    assert not made.complete_
    assert 0 < made.n_iter_ <= 20
    assert made.policy_.passes == 40  # as it was asked for
    assert made.predict(digits[0]).shape == (500,)


def test_it_tells_how_far_it_is(digits: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    classifier(verbose=1, time_budget_s=1000).fit(*digits)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[4].startswith("[SubsetClassifier] phase 1, 50% of the compute, ")
    classifier().fit(*digits)
    assert capsys.readouterr().out == ""


# --- networks ---------------------------------------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self, num_outputs: int, num_features: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.ReLU(), nn.Linear(width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


class HalfNamed(Own):
    def __init__(self, num_inputs: int, num_outputs: int, width: int = 8) -> None:
        super().__init__(num_outputs, num_inputs, width)


def test_any_network_can_be_trained(digits: tuple[Any, Any]) -> None:
    linear = nn.Linear(64, 10)
    before = weights(linear).clone()
    for module in (linear, nn.Linear, lambda features, outputs: nn.Linear(features, outputs), "torch.nn:Linear"):
        made = classifier(module=module, lr=0.02).fit(*digits)
        assert isinstance(made.module_, nn.Linear)
        assert made.score(*digits) > 0.8
    assert torch.equal(weights(linear), before)  # a copy was trained
    own = classifier(module=Own, module_options={"width": 12}, lr=0.02).fit(*digits)
    assert own.facts_.num_parameters == 64 * 12 + 12 + 12 * 10 + 10
    with pytest.raises(ConfigError, match="module"):  # the first number is not of features
        classifier(module=lambda num_outputs, width: nn.Linear(width, num_outputs)).fit(*digits)
    with pytest.raises(ConfigError, match="width"):  # an option was forgotten
        classifier(module=lambda width, num_outputs, depth=2: nn.Linear(width, num_outputs)).fit(*digits)
    half_named = classifier(module=HalfNamed, module_options={"width": 12}, lr=0.02).fit(*digits)
    assert half_named.facts_.num_parameters == own.facts_.num_parameters
    named = classifier(module="mlp", module_options={"hidden": [4, 4]}).fit(*digits)
    assert len(list(named.module_.parameters())) == 6
    values = SubsetRegressor(module=nn.Linear, epochs=3, random_state=0, device="cpu").fit(*digits)
    assert values.predict(digits[0]).dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"module": 3}, ConfigError, "^module must be a network or what builds one, got 'int'. "),
        ({"module": nn.Linear(64, 9)}, ModelError, r"must be \(\d+, 10\) .*, got \(\d+, 9\). Fit its last layer"),
        (
            {"module": nn.Linear(64, 10), "module_options": {"bias": False}},
            ConfigError,
            "^module_options must be left out beside a module that is built, got {'bias': False}. ",
        ),
        ({"module": "mpl"}, ConfigError, "Did you mean 'mlp'?"),
        ({"policy": 0.3}, ConfigError, "^policy must be a bundle or a policy, got 'float'. Give the folder"),
        ({"policy": "no/such/place"}, BundleError, "no/such/place"),
        ({"lr": -1.0}, ConfigError, "lr must be positive, got -1.0"),
        ({"recipe": {"epoch": 3}}, ConfigError, "epoch"),
        ({"time_budget_s": 0}, ConfigError, "^time_budget_s must be positive, or None, got 0. It is in seconds.$"),
        ({"lr": 1e30, "optimizer": "sgd"}, ModelDivergedError, "Lower lr, or set grad_clip.$"),
        ({"policy": Policy(phases=(Phase(q=9.0, share=0.5, passes=1),))}, ConfigError, "^q must be at most "),
    ],
)
def test_what_does_not_fit_is_told(
    changes: dict[str, Any], error: type[SubsettuneError], message: str, digits: tuple[Any, Any]
) -> None:
    with pytest.raises(error, match=message) as caught:
        classifier(**changes).fit(*digits)
    assert isinstance(caught.value, ValueError)


def test_a_bundle_of_something_else_is_refused(digits: tuple[Any, Any], bundle_folder: str) -> None:
    with pytest.raises(BundleError, match=r"^the bundle must be one of a regression, got one of a classification. "):
        SubsetRegressor(bundle_folder).fit(*digits)
    with pytest.raises(ConfigError, match=r"^epochs must be 30 with this bundle, or None, got 3. The length of a "):
        classifier(bundle_folder, epochs=3).fit(*digits)


# --- rows and values --------------------------------------------------------------------------------------------------


def test_values_keep_their_units_and_what_varies_in_them() -> None:
    x, y = make_friedman1(200, random_state=0)
    made = [
        SubsetRegressor(HALF, random_state=0, device="cpu").fit(x + shift, y + offset)
        for shift, offset in ((0.0, 0.0), (1e9, 1e8))
    ]
    assert made[0].score(x, y) > 0.3
    assert made[1].predict(x + 1e9) - 1e8 == pytest.approx(made[0].predict(x), abs=1e-3)
    both = SubsetRegressor(HALF, random_state=0, device="cpu").fit(x, np.stack([y, -y], axis=1))
    assert both.predict(x).shape == (200, 2)
    assert both.score(x, np.stack([y, -y], axis=1)) > 0.3


def test_classes_are_those_of_the_rows_and_one_is_too_few(digits: tuple[Any, Any]) -> None:
    x, y = digits
    names = np.array(["zero", "one"])[(y > 4).astype(int)]
    made = classifier(recipe={"class_weights": "balanced"}).fit(x, names)
    assert made.classes_.tolist() == ["one", "zero"]
    assert made.predict_proba(x).dtype == np.float32
    assert made.score(x, names) > 0.8
    with pytest.raises(ValueError, match=r"^y must have 2 classes at least, got 1 class, 3. Give rows of others.$"):
        made.fit(x[y == 3], y[y == 3])
    with pytest.raises(NotFittedError):
        classifier().predict(x)


def test_weights_of_rows_are_not_taken_in_silence(digits: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="sample_weight"):
        classifier().fit(*digits, sample_weight=np.ones(500))  # type: ignore[call-arg]


def test_a_seed_is_what_scikit_learn_takes_for_one(digits: tuple[Any, Any]) -> None:
    same = [classifier(random_state=np.random.RandomState(5)).fit(*digits).module_ for _ in range(2)]
    assert torch.equal(weights(same[0]), weights(same[1]))
    with pytest.raises(ValueError, match="Seed must be between 0"):
        classifier(random_state=-1).fit(*digits)


# --- the example ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_bundle", [False, True])
def test_the_example_runs(
    with_bundle: bool, bundle_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sklearn_pipeline.py", *([bundle_folder] if with_bundle else [])])
    path = ROOT / "examples" / "sklearn_pipeline.py"
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert (
        ("bundle: accuracy 0." in said)
        == ("Sizes were derived anew: phase 1 takes 139 of 1,198" in said)
        == with_bundle
    )
    assert ("recipe: accuracy 0.9" in said) == ("policy: accuracy 0.9" in said) == (not with_bundle)
    assert f", {4 if with_bundle else 40}% of the recipe's compute" in said
    assert len(path.read_text().splitlines()) < 40
