"""What a run minimises: class weights as torch has them, and losses of a user's own in place of ours."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from fakes import image_task, options, same_bits, two_phases, value_task
from torch.nn import functional

from subsettune import train
from subsettune.data import TaskData, load
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.objective import Objective, class_weights

CPU = torch.device("cpu")
POLICY = Policy(phases=(Phase(passes=1.5),))


def with_loss(task: Task, name: str, **changes: Any) -> Task:
    return dataclasses.replace(task, loss=f"own_goals:{name}", **changes)


def uneven(data: TaskData) -> TaskData:
    """The data with three in four examples of class 0 gone from the training part."""
    targets = data.train.targets
    kept = (targets != 0) | (torch.arange(len(targets)) % 4 == 0)
    return dataclasses.replace(data, train=dataclasses.replace(data.train, rows=data.train.rows[kept]))


def test_balanced_classes_count_the_same_and_weights_have_mean_one(tiny_data: Any) -> None:
    task = image_task(tiny_data, class_weights="balanced")
    data = uneven(load(task))
    weights = class_weights(task.recipe, data)
    assert weights is not None
    counts = data.class_counts
    assert len(set(counts.tolist())) > 1
    torch.testing.assert_close(weights * counts, torch.full((4,), float(counts.sum()) / 4))  # scikit-learn's rule
    listed = class_weights(image_task(tiny_data, class_weights=[2, 4, 4, 6]).recipe, data)
    assert listed is not None
    torch.testing.assert_close(listed / listed[0], torch.tensor([1.0, 2, 2, 3]))
    assert float((listed * counts).sum() / counts.sum()) == pytest.approx(1)


def test_the_weighed_loss_is_torch_s_but_for_its_divisor(tiny_data: Any) -> None:
    task = image_task(tiny_data, class_weights=[1, 2, 3, 4], label_smoothing=0.0)
    objective = Objective(task, task.recipe, load(task), CPU)
    assert objective.class_weights is not None
    outputs, targets = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 3, 0])
    total = functional.cross_entropy(outputs, targets, weight=objective.class_weights, reduction="sum")
    torch.testing.assert_close(objective.mean(outputs, targets, None), total / 6)
    torch.testing.assert_close(objective.each(outputs, targets).mean(), total / 6)
    torch.testing.assert_close(objective.each_of_many(outputs, targets).mean(), total / 6)
    factors = torch.tensor([0.0, 1, 1, 1, 2, 1])
    torch.testing.assert_close(
        objective.mean(outputs, targets, factors), (objective.each(outputs, targets) * factors).mean()
    )


def test_a_list_of_another_length_is_refused(tiny_data: Any) -> None:
    expected = (
        "class_weights: class_weights must be a list of 4 numbers, one a class, got [1.0, 2.0, 3.0]. The "
        "classes are 0, 1, 2, 3."
    )
    with pytest.raises(ConfigError) as caught:
        train.facts(image_task(tiny_data, class_weights=[1, 2, 3]))
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["cross_entropies", "mean_cross_entropy"])
def test_our_own_loss_as_a_user_s_trains_the_same_network(tiny_data: Any, name: str) -> None:
    task = image_task(tiny_data)
    ours, theirs = (train.run(t, POLICY, 0, options=options(keep_model=True)) for t in (task, with_loss(task, name)))
    for one, two in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_a_regression_gets_outputs_in_the_shape_of_its_targets(tiny_data: Any) -> None:
    task = value_task(tiny_data)
    ours = train.run(task, POLICY, 0, options=options(keep_model=True))
    theirs = train.run(with_loss(task, "squared_errors"), POLICY, 0, options=options(keep_model=True))
    for one, two in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    high = train.run(with_loss(task, "pinball", metric="mae"), Policy(phases=(Phase(passes=4),)), 0, options=options())
    assert high.cause == "finished"


MEAN_ONLY = {
    "infobatch needs the losses of examples, and the loss of your own gives their mean alone. Return the losses, (b,), "
    "or leave out infobatch.": two_phases(1, 1, order="infobatch"),
    "sift needs the losses of examples": two_phases(1, 1, order="sift"),
    "selective_backprop needs the losses of examples": two_phases(1, 1, order="selective_backprop"),
    "prune needs the losses of examples": two_phases(1, 1, transition="prune"),
    "soup needs the losses of examples": Policy(phases=(Phase(passes=1, soup={"workers": 2}), Phase(passes=1))),
    "facility_location weighs the losses of examples, and the loss of your own gives their mean alone.": two_phases(
        9, 9, selector="facility_location"
    ),
}


@pytest.mark.parametrize("expected", MEAN_ONLY)
def test_what_needs_losses_of_examples_refuses_a_mean(tiny_data: Any, expected: str) -> None:
    policy = MEAN_ONLY[expected]
    policy = dataclasses.replace(
        policy, phases=tuple(dataclasses.replace(p, order=policy.phases[0].order) for p in policy.phases)
    )
    task = with_loss(image_task(tiny_data), "mean_cross_entropy")
    with pytest.raises(ConfigError) as caught:
        train.check(task, policy, train.facts(task))
    assert expected in str(caught.value)
    each = with_loss(image_task(tiny_data), "cross_entropies")
    train.check(each, policy, train.facts(each))


def test_weights_that_nobody_knew_of_are_refused_when_they_come(tiny_data: Any) -> None:
    task = with_loss(image_task(tiny_data), "mean_cross_entropy")
    with pytest.raises(ConfigError, match=r"must give a loss for each example, \(b,\), to be weighed or compared"):
        train.run(task, two_phases(1, 1, selector="fakes:Weighted"), 0, options=options())


def test_selectors_that_know_our_losses_alone_are_refused(tiny_data: Any) -> None:
    task = with_loss(image_task(tiny_data), "cross_entropies")
    facts = train.facts(task)
    for name, given in (("el2n", {}), ("grand", {}), ("kcenter", {"features": "gradients"})):
        policy = two_phases(9, 9, selector=name, selector_options=given)
        with pytest.raises(ConfigError, match=f"{name} goes by the cross-entropy of classes or the squared error"):
            train.check(task, policy, facts)
    for name in ("random", "stratified", "kcenter", "herding"):
        train.check(task, two_phases(9, 9, selector=name), facts)


def test_soups_and_orders_train_by_it(tiny_data: Any) -> None:
    task, own = image_task(tiny_data), with_loss(image_task(tiny_data), "cross_entropies")
    soup = Policy(phases=(Phase(passes=1, soup={"workers": 2}), Phase(passes=1)))
    for policy in (soup, Policy(phases=(Phase(passes=2, order="selective_backprop"),))):
        one, two = (train.run(t, policy, 0, options=options(keep_model=True)) for t in (task, own))
        for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True):
            torch.testing.assert_close(p, q)


def test_class_weights_change_what_is_trained(tiny_data: Any) -> None:
    plain, weighed = image_task(tiny_data), image_task(tiny_data, class_weights=[1, 1, 1, 9])
    one, two = (train.run(t, POLICY, 0, options=options(keep_model=True)).model for t in (plain, weighed))
    assert not same_bits(one, two)
