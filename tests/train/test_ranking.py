"""scikit-learn is the oracle."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from subsettune.errors import ConfigError
from subsettune.train import ranking

# Scores of few values, so that many are equal.
scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({positive for _, positive in pairs}) == 2
)
SKLEARN = {"roc_auc": sklearn_metrics.roc_auc_score, "average_precision": sklearn_metrics.average_precision_score}


@pytest.mark.parametrize("name", ranking.CURVES)
@settings(deadline=None, max_examples=80)
@given(pairs=scored)
def test_curves_are_scikit_learn_s_with_equal_scores_too(name: str, pairs: list[tuple[int, bool]]) -> None:
    scores, positive = torch.tensor([p[0] for p in pairs]).double(), torch.tensor([p[1] for p in pairs])
    expected = SKLEARN[name](positive.numpy(), scores.numpy())
    assert ranking.CURVES[name](scores, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ranking.CURVES)
def test_two_classes_go_by_the_second_and_more_are_a_mean_of_each_against_the_rest(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    for num_classes in (2, 4):
        targets = torch.arange(60) % num_classes
        outputs = torch.randn(60, num_classes, generator=rng).double()
        shares = outputs.softmax(dim=1).numpy()
        truth = torch.nn.functional.one_hot(targets, num_classes).numpy()
        expected = SKLEARN[name](targets.numpy(), shares[:, 1]) if num_classes == 2 else SKLEARN[name](truth, shares)
        assert ranking.over_classes(name, outputs, targets) == pytest.approx(expected, abs=1e-12)


def test_confident_outputs_are_told_apart_where_their_probabilities_are_not() -> None:
    outputs = torch.tensor([[0.0, 200.0], [0.0, 100.0], [0.0, 90.0]]).double()  # a float32 softmax gives 1 for all
    assert ranking.over_classes("roc_auc", outputs, torch.tensor([1, 0, 0])) == 1.0


@pytest.mark.parametrize("name", ranking.CURVES)
def test_labels_are_a_mean_over_them(name: str) -> None:
    rng = torch.Generator().manual_seed(1)
    outputs = torch.randn(50, 3, generator=rng).double()
    targets = (torch.rand(50, 3, generator=rng) < 0.3).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = SKLEARN[name](targets.numpy(), outputs.numpy())
    assert ranking.over_labels(name, outputs, targets) == pytest.approx(expected, abs=1e-12)


def test_a_class_or_label_that_is_absent_is_refused() -> None:
    outputs = torch.zeros(4, 3).double()
    expected = (
        "roc_auc must be measured on a part of the data with and without class 2, got no example. Choose another "
        "metric, or another split."
    )
    with pytest.raises(ConfigError) as caught:
        ranking.over_classes("roc_auc", outputs, torch.tensor([0, 1, 1, 0]))
    assert str(caught.value) == expected
    for column, got in ((torch.zeros(4), "it in none"), (torch.ones(4), "it in all")):
        targets = torch.stack([torch.tensor([0.0, 1, 0, 1]), column], dim=1)
        with pytest.raises(ConfigError, match=f"with and without label 1, got {got}. Choose another metric"):
            ranking.over_labels("average_precision", outputs[:, :2], targets)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=8), right=st.integers(0, 3)
)
def test_places_count_the_classes_ahead_as_argmax_would_take_them_away(rows: list[list[int]], right: int) -> None:
    outputs, targets = torch.tensor(rows).float(), torch.full((len(rows),), right)
    for row, place in zip(rows, ranking.places(outputs, targets).tolist(), strict=True):
        order = sorted(range(4), key=lambda c: (-row[c], c))
        assert order.index(right) == place
