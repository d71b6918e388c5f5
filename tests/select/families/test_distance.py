from __future__ import annotations

import dataclasses
import math

import oracles
import pytest
import torch
from contracts import (
    ArrayPart,
    choose,
    context_of,
    facts_of,
    made_up_part,
    untouched_random_state,  # noqa: F401 (a fixture)
)

from subsettune import select
from subsettune.errors import ConfigError, SelectionError
from subsettune.select import ModelNeed, Selector
from subsettune.select.families.distance import DistanceSelector

NAMES = ("kcenter", "herding", "facility_location")
FEATURES = ("raw", "projection", "embeddings", "gradients", "layer:1")


def make(name: str, **options: object) -> DistanceSelector:
    selector = select.make(name, options)
    assert isinstance(selector, DistanceSelector)
    return selector


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_what_they_say() -> None:
    part = made_up_part()
    context = context_of(part)
    view = context.models[0]
    inputs = part.inputs.flatten(1)
    found = {name: make("kcenter", features=name).source.compute(context) for name in FEATURES}
    assert torch.equal(found["raw"], inputs)
    assert context.embeddings is not None
    assert torch.equal(found["embeddings"], context.embeddings)
    assert torch.equal(found["gradients"], view.residuals())
    assert torch.equal(found["layer:1"], view.layer("1"))
    drawn = torch.randn(6, 64, generator=rng(0)) / 8
    torch.testing.assert_close(found["projection"], inputs @ drawn)


@pytest.mark.parametrize("name", FEATURES)
def test_the_width_is_known_before(name: str) -> None:
    part = made_up_part()
    source = make("kcenter", features=name, dimensions=11).source
    assert source.width(facts_of(part)) == source.compute(context_of(part)).shape[1]


def test_a_projection_keeps_distances_and_depends_on_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    part = ArrayPart(torch.randn(40, 500, generator=rng()), torch.arange(40) % 5)
    first = make("herding", features="projection", dimensions=400).source.compute(context_of(part))
    monkeypatch.setattr("subsettune.select.examples.BLOCK_BYTES", 4 * 500 * 7)  # 7 rows at a time
    again = make("herding", features="projection", dimensions=400).source.compute(context_of(part))
    torch.testing.assert_close(again, first)
    other = make("herding", features="projection", dimensions=400, projection_seed=1).source.compute(context_of(part))
    assert not torch.allclose(other, first, atol=0.1)
    pairs = torch.triu_indices(40, 40, offset=1)
    ratio = (oracles.distances(first) / oracles.distances(part.inputs))[pairs[0], pairs[1]].square()
    # chi-squared of 400 over 400: standard deviation sqrt(2 / 400) = 0.07; 780 pairs stay within 5 of them
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / 400)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_the_context_gives_win(name: str) -> None:
    part = made_up_part()
    given = torch.randn(150, 3, generator=rng(9), dtype=torch.float64)
    selector = make(name, features="gradients")
    plain = ArrayPart(given.float()[:, :, None], part.targets)
    expected = make(name).select(context_of(plain), 40, rng=rng()).positions
    assert torch.equal(selector.select(context_of(part, given), 40, rng=rng()).positions, expected)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_refused_with_the_row(name: str) -> None:
    context = context_of(made_up_part())
    assert context.embeddings is not None
    context.embeddings[7, 1] = torch.inf
    with pytest.raises(SelectionError, match="features must be finite, got NaN or infinity in training example 7"):
        make(name, features="embeddings").select(context, 20, rng=rng())


def test_networks_are_asked_for_where_they_are_looked_at() -> None:
    assert make("herding").model_need is None
    assert make("herding", features="projection").model_need is None
    assert make("herding", features="gradients", proxy_passes=0.5).model_need == ModelNeed(source="proxy", passes=0.5)
    assert make("herding", features="layer:1", model="current").model_need == ModelNeed(source="current")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["pixels", "layer:", "", "Raw"])
def test_unknown_features_are_refused(features: str) -> None:
    known = "features must be one of raw, projection, embeddings, gradients or layer:NAME, got"
    with pytest.raises(ConfigError, match=known):
        make("kcenter", features=features)


def test_obstacles_name_what_would_fit() -> None:
    facts = facts_of(made_up_part())
    layers = ", ".join(facts.layers)
    assert make("kcenter", features="layer:9").why_not(facts, 10) == (
        f"layer must be one of {layers}, got '9'. Name a layer as named_modules() does."
    )
    bare = dataclasses.replace(facts, num_embedding=0)
    assert make("herding", features="embeddings").why_not(bare, 10) == (
        "features: embeddings of herding need embeddings in the data, and there are none. Use raw features."
    )
    regression = dataclasses.replace(facts, num_classes=0, class_counts=(), smallest_class=0)
    assert make("facility_location").why_not(regression, 10) is None
    assert make("facility_location", classes="equal").why_not(regression, 10) == (
        "classes must be none or proportional for facility_location on a regression, got 'equal'. Leave it out."
    )


def test_missing_networks_and_embeddings_are_named() -> None:
    context = dataclasses.replace(context_of(made_up_part()), models=(), embeddings=None)
    with pytest.raises(SelectionError, match=r"^1 network is needed to take features from, got 0."):
        make("herding", features="gradients").select(context, 10, rng=rng())
    with pytest.raises(SelectionError, match=r"^embeddings must be given to select by them, got None."):
        make("herding", features="embeddings").select(context, 10, rng=rng())


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_refused_before_anything_starts(name: str) -> None:
    selector = make(name, memory_limit_gib=1e-6)
    with pytest.raises(
        SelectionError, match=rf"^{name} needs [\d.]+ .iB of memory for 150 examples of 6 numbers, more"
    ):
        choose(selector, made_up_part(), 10)


@pytest.mark.parametrize("classes", ["none", "proportional"])
@pytest.mark.parametrize("name", NAMES)
def test_the_benchmark_fits_into_2_gib_beside_the_input(name: str, classes: str) -> None:
    facts = dataclasses.replace(
        facts_of(made_up_part()), num_examples=50_000, num_features=512, class_counts=(10_000,) * 5
    )
    selector = make(name, classes=classes)
    assert selector.memory_bytes(facts, 5_000) - 4 * 50_000 * 512 <= 2.1 * 2**30


# --- classes and costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_class_counts(name: str) -> None:
    part = made_up_part()
    counts = torch.bincount(part.targets).tolist()
    proportional = choose(make(name, classes="proportional"), part, 150).positions
    assert oracles.largest_deviation(part.targets[proportional].tolist(), counts) < 1
    equal = choose(make(name, classes="equal"), part, 5 * min(counts)).positions
    assert torch.bincount(part.targets[equal]).tolist() == [min(counts)] * 5


@pytest.mark.parametrize("name", ["herding", "facility_location"])
def test_each_class_is_ranked_as_if_it_were_alone(name: str) -> None:
    part = made_up_part()
    ranking = choose(make(name, classes="proportional"), part, 150).positions
    for c in range(5):
        members = (part.targets == c).nonzero().flatten()
        alone = ArrayPart(part.inputs[members], torch.zeros(len(members), dtype=torch.int64))
        expected = choose(make(name, classes="none"), alone, len(members)).positions
        assert torch.equal(ranking[part.targets[ranking] == c], members[expected])


def test_selectors_are_their_oracles() -> None:
    part = made_up_part()
    x = part.inputs.flatten(1)
    found = choose(make("facility_location", classes="none"), part, 40).positions.tolist()
    assert found == oracles.facility_location(x, 40)
    whole = ArrayPart((x * 100).round(), part.targets)
    assert choose(make("herding", classes="none"), whole, 40).positions.tolist() == oracles.herding(whole.inputs, 40)


def test_costs_are_their_formulas() -> None:
    facts = dataclasses.replace(facts_of(made_up_part()), class_counts=(30, 30, 30, 30, 30))
    g, q, d = 30, 8, 6
    assert make("herding").flops(facts, 40) == 5 * (g * q * (2 * d + 1) + 4 * g * d)
    weights = g * q * (2 * d + 3) + 3 * g * d
    greedy = g * g * (2 * d + 3) + 3 * g * g * q
    assert make("facility_location").flops(facts, 40) == 5 * (greedy + weights)
    sampled = g * q * 4 * (2 * d + 6)
    assert make("facility_location", method="stochastic", sample=4).flops(facts, 40) == 5 * (sampled + weights)
    assert make("kcenter").flops(facts, 40) == 150 * 39 * (2 * d + 3) + 3 * 150 * d
    looked = make("herding", features="layer:1").flops(facts, 40)
    assert looked == 5 * (g * q * (2 * 7 + 1) + 4 * g * 7) + 150 * facts.forward_flops
    projected = make("herding", features="projection", dimensions=3).flops(facts, 40)
    assert projected == 5 * (g * q * (2 * 3 + 1) + 4 * g * 3) + 2 * 150 * 6 * 3


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["greedy", "stochastic"])
@pytest.mark.parametrize("classes", ["none", "proportional"])
def test_weights_count_the_examples_nearest_to_each_pick(classes: str, method: str) -> None:
    part = made_up_part()
    selector: Selector = make("facility_location", classes=classes, method=method)
    context = context_of(part)
    subset = selector.select(context, 60, rng=rng())
    x = part.inputs.flatten(1)
    for k in (60, 17):
        expected = [0] * k
        for i, row in enumerate(x):
            able = [
                j
                for j, p in enumerate(subset.positions[:k].tolist())
                if classes == "none" or part.targets[p] == part.targets[i]
            ] or list(range(k))  # a class without a pick
            expected[able[oracles.nearest_pick(row[None], x[subset.positions[able]])[0]]] += 1
        weights = selector.weigh(context, subset.positions[:k])
        assert weights is not None
        assert weights.tolist() == expected
        assert sum(expected) == 150
    assert subset.weights is not None
    assert torch.equal(subset.weights, selector.weigh(context, subset.positions))  # type: ignore[arg-type]


def test_a_class_without_a_pick_counts_for_the_nearest_of_all() -> None:
    part = ArrayPart(torch.tensor([[0.0], [0.1], [5.0], [5.1], [4.0]]), torch.tensor([0, 0, 1, 1, 2]))
    weights = make("facility_location").weigh(context_of(part), torch.tensor([0, 3]))
    assert weights is not None
    assert weights.tolist() == [2.0, 3.0]
