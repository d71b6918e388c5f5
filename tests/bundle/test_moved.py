"""A bundle's policy carried to other data: sizes, subsets, steps, and how far the evidence reaches."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_bundle import export
from torch import nn
from torch.utils.data import TensorDataset

from subsettune import Bundle, config
from subsettune.bundle.known import KnownData
from subsettune.errors import BundleError, ConfigError, DataError
from subsettune.policy import Phase, Policy

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 3000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made, _ = export(tmp_path_factory.mktemp("bundle"))
    return dataclasses.replace(made, known=KnownData(classes=tuple("0123456789")))


def _with(bundle: Bundle, **first: Any) -> Bundle:
    """A bundle whose first phase is another one, of the same size."""
    phase = dataclasses.replace(bundle.policy.phases[0], **first)
    return dataclasses.replace(
        bundle, policy=dataclasses.replace(bundle.policy, phases=(phase, bundle.policy.phases[1]))
    )


def test_labels_alone_are_enough_for_a_selector_that_needs_no_more(bundle: Bundle) -> None:
    moved = bundle.transfer(LABELS)
    share = bundle.policy.phases[0].share
    assert len(moved.subset()) == moved.policy.phases[0].pool_size(3000) == round(share * 3000)
    counts = np.bincount(LABELS[moved.subset()], minlength=10)
    assert np.abs(counts - share * np.bincount(LABELS)).max() <= 1  # stratified, as the bundle's own
    sampler = moved.batch_sampler(LABELS)
    assert moved.total_steps() == sampler.total_steps() == len(sampler)
    sampler.on_switch(lambda switch: switch.done())
    sampler.lr_factor_at(0)
    seen = np.concatenate([rows for rows, _ in sampler.batches()])
    assert seen.max() < 3000
    assert 0 <= moved.policy.cost(moved.facts) - sampler.finish().spent < 64 * moved.facts.example_flops
    assert repr(moved) == f"<subsettune.Moved: {len(moved.subset())} of 3,000 examples, {moved.total_steps()} steps>"


def test_the_subset_is_that_of_the_seed(bundle: Bundle) -> None:
    first, again, other = (bundle.transfer(LABELS, seed=seed).subset() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "data",
    [
        LABELS.tolist(),
        torch.from_numpy(LABELS),
        LABELS.astype(str),
        (RNG.normal(size=(3000, 64)), LABELS),
        TensorDataset(torch.zeros(3000, 2), torch.from_numpy(LABELS)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_data_in_any_form_give_the_same_subset(bundle: Bundle, data: Any) -> None:
    assert np.array_equal(bundle.transfer(data).subset(), bundle.transfer(LABELS).subset())


def test_a_selector_that_measures_the_inputs_gets_them(bundle: Bundle) -> None:
    kcenter = _with(bundle, selector="kcenter", passes=3.0)
    inputs = RNG.normal(size=(3000, 64))
    inputs[17] = 100.0  # the farthest of all is among the first picks
    assert 17 in kcenter.transfer((inputs, LABELS)).subset()[:2]
    with pytest.raises(
        BundleError, match=r"^phase 1 chooses by kcenter, which measures the inputs, got labels alone\."
    ):
        kcenter.transfer(LABELS)
    with pytest.raises(DataError, match=r"^inputs must be finite, got NaN or infinity\."):
        kcenter.transfer((inputs * np.nan, LABELS))


def test_a_selector_that_looks_at_a_network_is_refused(bundle: Bundle) -> None:
    message = (
        r"^phase 1 chooses by el2n, which looks at a network: only our own loop has one\. Train by `subsettune follow`"
    )
    with pytest.raises(BundleError, match=message):
        _with(bundle, selector="el2n", passes=30.0).transfer((RNG.normal(size=(3000, 64)), LABELS))


def test_a_size_found_by_q_follows_the_network(bundle: Bundle) -> None:
    share = bundle.policy.phases[0].share
    by_q = _with(bundle, q=bundle.facts.q() * share)
    k = by_q.policy.phases[0].pool_size(1257)
    assert abs(len(by_q.transfer(LABELS).subset()) - k) <= 1  # Q = K M / P, whatever N
    twice = nn.Linear(1, bundle.facts.num_parameters)  # a weight and a bias each
    moved = by_q.transfer(LABELS, twice)
    assert abs(len(moved.subset()) - 2 * k) <= 1
    assert moved.limits[1].startswith("FLOPs of an example are those of the bundle's network")


def test_a_regression_needs_no_labels(tmp_path: Path) -> None:
    made, _ = export(tmp_path, "random_wins", "mse")
    facts = dataclasses.replace(made.facts, num_outputs=1, num_classes=0, smallest_class=0, class_counts=())
    made = dataclasses.replace(made, facts=facts)
    for wrong, words in (("t.parquet", "got 't.parquet'"), (-5, "got -5"), (np.zeros((500, 4)), r"shape \(500, 4\)")):
        with pytest.raises(BundleError, match=words):
            made.transfer(wrong)
    with pytest.raises(BundleError, match=r"^labels must be finite, got NaN or infinity\."):
        made.transfer(np.full(500, np.nan))
    moved = made.transfer(500)
    assert len(moved.subset()) == moved.policy.phases[0].pool_size(500)
    assert np.array_equal(moved.subset(), made.transfer(RNG.normal(size=500)).subset())
    with pytest.raises(
        BundleError, match=r"^labels must be numbers, since the bundle is of no classification, got '<U1'"
    ):
        made.transfer(np.array(["a"] * 500))


# --- how far the evidence reaches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [
        (LABELS, {}, "That it matches the recipe was shown on the bundle's data alone."),
        (LABELS[:300], {}, "They are fewer than one in 4 of the bundle's, and its evidence says nothing"),
        (
            np.tile(LABELS, 2),
            {},
            "They are more than 4 times the bundle's 1,257 examples: with so many, plain training",
        ),
        (LABELS[:600], {}, "The subset of phase 1 has an overdetermination ratio Q of 0.146, below the 0.304 that was"),
        (LABELS % 9, {}, "There are 9 classes (the bundle's 10): another task, of which the evidence says nothing."),
        (
            np.where(LABELS, LABELS, np.random.default_rng(1).permutation(LABELS)),
            {},
            "The rarest class is 1.10% of the examples (the bundle's 9.71%)",
        ),
        (
            LABELS,
            {"batch_size": 32},
            "Batches are of 32 examples (the bundle's 64): with as many passes the policy has 2",
        ),
        ((np.zeros((3000, 5)), LABELS), {}, "An example is 5 numbers for the network (the bundle's 64), which has"),
    ],
)
def test_what_differs_from_the_evidence_is_said(bundle: Bundle, data: Any, more: Any, said: str) -> None:
    if said.startswith("There are 9"):
        bundle = dataclasses.replace(bundle, known=None)
    moved = bundle.transfer(data, **more)
    assert [sentence for sentence in moved.limits if sentence.startswith(said)], moved.limits
    assert str(moved).splitlines() == [repr(moved), *moved.limits]
    if "batch_size" in more:
        assert moved.recipe.batch_size == 32
        assert moved.total_steps() > 1.9 * bundle.transfer(data).total_steps()


def test_on_data_that_are_alike_only_the_general_is_said(bundle: Bundle) -> None:
    moved = bundle.transfer(np.arange(1257) % 10)
    assert len(moved.limits) == 3  # sizes, costs, and that it was shown elsewhere


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([0] * 3, ConfigError, "It makes none of the 3 examples."),
        (np.zeros((5, 5)), BundleError, "labels must be (n,), one class an example, got 'shape (5, 5)'."),
        ("abc", BundleError, "data must have labels, since the bundle is of a classification. Hand over labels,"),
        (500, BundleError, "data must have labels, since the bundle is of a classification."),
        ((np.zeros((5, 4)),), BundleError, "data must be labels, or a pair (x, y), got 'a tuple of 1'."),
        ((np.zeros((4, 4)), np.zeros(5, int)), DataError, "inputs must be 5, one for each label, got 4."),
        (np.full(500, np.nan), BundleError, "labels must be classes, got NaN or infinity among them. Drop such rows."),
        ([], BundleError, "data must have at least one example, got none."),
    ],
)
def test_what_cannot_be_transferred(bundle: Bundle, data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        bundle.transfer(data)


class Endless:
    """A Dataset that is not to be read for its labels."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, row: int) -> tuple[int, int]:
        return row, row


def test_a_dataset_without_labels_is_not_read(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"^data must have labels, since the bundle is of a classification\."):
        bundle.transfer(Endless())


def test_the_column_of_the_study_holds_the_labels(bundle: Bundle) -> None:
    frame = pd.DataFrame({"x": 0, "label": LABELS})
    assert np.array_equal(bundle.transfer(frame).subset(), bundle.transfer(LABELS).subset())
    with pytest.raises(BundleError, match="data must have labels"):
        bundle.transfer(frame.drop(columns="label"))


def test_what_is_taken_over_from_another_network_is_said(bundle: Bundle) -> None:
    told = bundle.transfer((np.zeros((3000, 5)), LABELS)).limits
    assert any(sentence.startswith("The number of parameters is that of the bundle's network") for sentence in told)
    letters = bundle.transfer(np.array(list("abcdefghij"))[LABELS]).limits
    assert any(sentence.startswith("The classes have other names than the bundle's") for sentence in letters)
    with pytest.raises(BundleError, match=r"^model must be a torch module, made already, got 'type'\."):
        bundle.transfer(LABELS, nn.Linear)  # type: ignore[arg-type]


def test_another_length_and_another_phase_are_refused(bundle: Bundle) -> None:
    moved = bundle.transfer(LABELS)
    with pytest.raises(BundleError, match=r"^data must be the 3,000 that were handed over, got 2999\."):
        moved.batch_sampler(LABELS[:-1])
    with pytest.raises(BundleError, match=r"^phase must be one of \[0\], the phases with a subset, got 1\."):
        moved.subset(1)


def test_a_policy_that_other_code_cannot_follow_is_refused(bundle: Bundle) -> None:
    order = {"order": "sift", "order_options": config.FrozenDict({"keep": 0.5, "exit": 1.0})}
    phases = tuple(dataclasses.replace(phase, **order) for phase in bundle.policy.phases)
    sift = dataclasses.replace(bundle, policy=Policy(phases=phases))
    with pytest.raises(BundleError, match="takes its batches in the order `sift`, which goes by what the network does"):
        sift.transfer(LABELS)


def test_a_full_policy_has_no_subset(tmp_path: Path) -> None:
    made, _ = export(tmp_path, "full_wins")
    moved = made.transfer(LABELS)
    assert moved.subsets == {}
    assert "all of 3,000 examples" in repr(moved)
    assert Phase(passes=1).is_full
