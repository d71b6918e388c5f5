"""What a metric and a loss of a user's own must give."""

from __future__ import annotations

import pytest
import torch

from subsettune.errors import ConfigError
from subsettune.train import own_goal

OUTPUTS, TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1, 1])
ERRORS = {
    "a_vector": "metric 'own_goals:a_vector' must be one finite number, got 'ndarray of shape (2,)'. Take a mean, or",
    "nothing": "metric 'own_goals:nothing' must be one finite number, got nan. Say what it is worth where it means no",
    "breaks": "metric 'own_goals:breaks' fails on arrays of shape (4,) and (4, 2): ZeroDivisionError: no positives.",
    "absent": "metric 'own_goals:absent' cannot be found: module 'own_goals' has no attribute 'absent'.",
}


def test_a_metric_gets_arrays_of_its_own_and_gives_a_number() -> None:
    assert own_goal.metric("own_goals:share_right", OUTPUTS, TARGETS) == 0.75
    before = OUTPUTS.clone(), TARGETS.clone()
    assert own_goal.metric("own_goals:scribbles", OUTPUTS, TARGETS) == 1.0
    assert torch.equal(OUTPUTS, before[0])
    assert torch.equal(TARGETS, before[1])
    values = torch.tensor([1.0, 5.0])
    assert own_goal.metric("own_goals:worst_error", values, torch.zeros(2)) == 5.0


@pytest.mark.parametrize("name", ERRORS)
def test_other_metrics_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own_goal.metric(f"own_goals:{name}", OUTPUTS, TARGETS)
    assert str(caught.value).startswith(ERRORS[name])


def test_a_loss_gives_one_an_example_or_their_mean() -> None:
    each = own_goal.losses("own_goals:cross_entropies", OUTPUTS, TARGETS)
    assert each.shape == (4,)
    torch.testing.assert_close(own_goal.losses("own_goals:mean_cross_entropy", OUTPUTS, TARGETS), each.mean())
    expected = "must be a tensor of 4 losses, one an example, or of their mean, got 'Tensor of shape (4, 2)'."
    with pytest.raises(ConfigError) as caught:
        own_goal.losses("own_goals:by_class", OUTPUTS, TARGETS)
    assert expected in str(caught.value)
