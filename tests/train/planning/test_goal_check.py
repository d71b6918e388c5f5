"""A goal that means nothing on its data is told before the first step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import RECIPE, image_task, options, two_phases, value_task
from sklearn.metrics import average_precision_score

from subsettune import config, train
from subsettune.data import load
from subsettune.errors import ConfigError, DataError
from subsettune.goal import OwnMetric
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.planning.check import run_key, user_code_of


def labels_task(path: Path, labels: Any, **changes: Any) -> Task:
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(len(labels), 3)).astype(np.float32), y=labels)
    raw = {
        "data": {"source": str(path), "label": "y"},
        "split": {"validation": 0.2, "test": 0.2},
        "model": {"name": "mlp", "hidden": []},
        "recipe": RECIPE,
        "metric": "roc_auc",
        "tolerance": 0.02,
        "kind": "multilabel",
    }
    return config.build(Task, {**raw, **changes})


def own(task: Task, name: str, *, up: bool = True) -> Task:
    return dataclasses.replace(task, metric=f"own_goals:{name}", own_metric=OwnMetric(higher_is_better=up))


def refusal(task: Task) -> str:
    with pytest.raises(ConfigError) as caught:
        train.facts(task)
    return str(caught.value)


def test_top5_of_five_classes_or_fewer(tiny_data: Any) -> None:
    assert refusal(image_task(tiny_data, metric="top5")) == (
        "metric must be another for 4 classes, of which the right one is always among five, got 'top5'. Choose "
        "accuracy."
    )
    digits = config.build(
        Task, {**config.to_plain(image_task(tiny_data, metric="top5")), "data": {"source": "digits"}, "tolerance": 0.01}
    )
    assert train.facts(digits).num_classes == 10


def test_metrics_of_the_user_s_own_are_tried_on_every_split(tiny_data: Any) -> None:
    task = image_task(tiny_data)
    vector = refusal(own(task, "a_vector"))
    assert vector.startswith("metric 'own_goals:a_vector' must be one finite number, got 'ndarray of shape (4,)'.")
    assert vector.endswith("That is of the validation part.")
    assert "must be one finite number, got nan. Say what it is worth" in refusal(own(task, "nothing"))
    assert "ZeroDivisionError: no positives" in refusal(own(task, "breaks"))
    (note,) = train.facts(own(task, "share_right")).notes
    assert note == (
        "own_goals:share_right is a metric of your own: nobody knows what a constant answer is worth by it, so that "
        "the recipe is not held against one, and errors are not compared."
    )
    assert train.facts(dataclasses.replace(own(value_task(tiny_data), "worst_error", up=False), kind="regression"))


def test_losses_of_the_user_s_own_are_tried_forward_and_backward(tiny_data: Any) -> None:
    task = image_task(tiny_data)
    told = {
        "undefined": "loss 'own_goals:undefined' must be a finite number, got nan. It was tried on outputs at random",
        "detached": "must be differentiable by the outputs, got 'one without a gradient'. Compute it with torch",
        "by_class": "must be a tensor of 8 losses, one an example, or of their mean, got 'Tensor of shape (8, 4)'.",
    }
    for name, expected in told.items():
        assert expected in refusal(dataclasses.replace(task, loss=f"own_goals:{name}"))
    forms = {"cross_entropies": "each", "mean_cross_entropy": "mean"}
    for name, form in forms.items():
        facts = train.facts(dataclasses.replace(task, loss=f"own_goals:{name}"))
        assert facts.own_loss == form
        assert config.build(type(facts), config.to_plain(facts)) == facts
    assert "own_loss" not in config.to_plain(train.facts(task))


def test_a_policy_cannot_set_what_the_loss_has_not(tiny_data: Any) -> None:
    task = dataclasses.replace(image_task(tiny_data), loss="own_goals:cross_entropies")
    policy = Policy(phases=(Phase(passes=2),), recipe={"label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="label_smoothing means nothing to a loss of your own"):
        train.check(task, policy, train.facts(task))


def test_averaged_weights_are_said_to_be_free(tiny_data: Any) -> None:
    (note,) = train.facts(image_task(tiny_data, ema=0.9)).notes
    assert note == "Averaging the weights (ema) is charged no FLOPs: it is a few operations a weight and update."


def test_a_label_that_a_split_lacks_is_refused_where_it_is_ranked(tmp_path: Path) -> None:
    labels = np.zeros((50, 2), dtype=np.int64)
    labels[::2, 0] = 1
    labels[:2, 1] = 1
    told = refusal(labels_task(tmp_path / "rare.npz", labels))
    assert "roc_auc must be measured on a part of the data with and without label 1, got it in none." in told
    assert " That is of the " in told
    assert train.facts(labels_task(tmp_path / "rare.npz", labels, metric="accuracy")).num_labels == 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            [0, 1] * 20,
            "labels of a multilabel task must be (n, m) of 0 and 1, got int64 of shape (40,). Write a row of",
        ),
        ([[0, 1], [1, 0], [2, 0], [0, 1]] * 10, "labels of a multilabel task must be 0 or 1, got [2, 0] in row 2."),
        ([[0, 1], [1, 1]] * 20, "labels must vary, got label 1 in every example. Leave it out."),
        ([[0, 1], [0, 0]] * 20, "labels must vary, got label 0 in no example. Leave it out."),
    ],
)
def test_labels_that_are_no_marks(tmp_path: Path, labels: list[Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        train.facts(labels_task(tmp_path / "labels.npz", np.array(labels)))
    assert str(caught.value).startswith(expected)


def test_selectors_of_classes_and_gradients_are_refused_for_several_labels(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (80, 3))
    task = labels_task(tmp_path / "labels.npz", labels)
    facts = train.facts(task)
    told = {
        "stratified": "stratified needs classes, and the task has several labels an example. Use random or kcenter.",
        "forgetting": "forgetting needs classes, and the task has several labels an example. Use random.",
        "el2n": "el2n goes by the cross-entropy of classes or the squared error, and the task has several labels an ex",
    }
    for name, expected in told.items():
        with pytest.raises(ConfigError) as caught:
            train.check(task, two_phases(9, 9, selector=name), facts)
        assert str(caught.value).startswith(expected)
    result = train.run(task, two_phases(9, 3, selector="kcenter"), 0)
    assert 0 <= result.metrics["validation"] <= 1


def test_code_of_goals_is_part_of_what_a_run_depends_on(tiny_data: Any) -> None:
    augment = {"function": "own_goals:noisy", "options": {"scale": 0.5}}
    task = dataclasses.replace(own(image_task(tiny_data, augment=augment), "share_right"), loss="own_goals:pinball")
    names = {"own_goals:share_right", "own_goals:pinball", "own_goals:noisy"}
    assert set(user_code_of(task)) == names
    policy = Policy(phases=(Phase(passes=1),), recipe={"augment": {"function": "fakes:flip"}})
    assert set(user_code_of(task, policy)) == {*names - {"own_goals:noisy"}, "fakes:flip"}
    other = dataclasses.replace(task, loss="own_goals:cross_entropies")
    plain = Policy(phases=(Phase(passes=1),))
    assert run_key(task, "f", plain, 0) != run_key(other, "f", plain, 0)
    assert run_key(task, "f", plain, 0) == run_key(dataclasses.replace(task, tolerance=0.1), "f", plain, 0)


def named_task(path: Path, **changes: Any) -> Task:
    rng = np.random.default_rng(1)
    marks = np.where(np.arange(200) % 5 == 0, "fraud", "no")
    x = rng.normal(size=(200, 3)).astype(np.float32) + (marks == "fraud")[:, None]
    np.savez(path, x=x, y=marks)
    raw = {
        "data": {"source": str(path), "label": "y"},
        "split": {"validation": 0.2, "test": 0.2},
        "model": {"name": "mlp", "hidden": []},
        "recipe": RECIPE,
        "metric": "average_precision",
        "tolerance": 0.02,
    }
    return config.build(Task, {**raw, **changes})


def test_which_of_two_classes_is_looked_for_is_said_and_can_be_chosen(tmp_path: Path) -> None:
    common, rare = named_task(tmp_path / "n.npz"), named_task(tmp_path / "n.npz", positive="fraud")
    (note,) = train.facts(common).notes
    assert note == (
        "average_precision looks for class 'no', which 80 % of the training examples are. For 'fraud' write positive: "
        "fraud."
    )
    assert train.facts(rare).notes == ()
    policy = Policy(phases=(Phase(passes=2),))
    found = {}
    for name, task in (("common", common), ("rare", rare)):
        result = train.run(task, policy, 0, options=options(keep_model=True))
        outputs, targets = train.predict(result.model, load(task).validation)
        scores = (outputs[:, 1] - outputs[:, 0]).numpy() * (1 if name == "common" else -1)
        positive = targets.numpy() == (1 if name == "common" else 0)
        found[name] = result.metrics["validation"]
        assert found[name] == pytest.approx(average_precision_score(positive, scores))
    assert found["rare"] < found["common"]
    assert run_key(common, "f", policy, 0) != run_key(rare, "f", policy, 0)
    assert "positive" not in config.to_plain(common)


def test_a_class_that_is_none_of_two_is_refused(tmp_path: Path, tiny_data: Any) -> None:
    assert refusal(named_task(tmp_path / "n.npz", positive="Fraud")) == (
        "positive must be one of two classes, and there are fraud, no, got 'Fraud'. Name one of two, or leave it out."
    )
    task = image_task(tiny_data, metric="roc_auc")
    assert "one of two classes, and there are 0, 1, 2, 3, got 1." in refusal(dataclasses.replace(task, positive=1))
    with pytest.raises(
        ConfigError, match=r"positive means nothing to accuracy of a classification\. It is for roc_auc and"
    ):
        dataclasses.replace(image_task(tiny_data), positive=1)
