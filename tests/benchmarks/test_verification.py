"""The benchmark of verification: that what it simulates is the state machine, study by study, and what it prints."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from places import BENCHMARKS
from scipy import stats

from subsettune.study.verification.lineup import Entry, Hypothesis
from subsettune.study.verification.noninferiority import Rules, allot
from subsettune.study.verification.verification import REFERENCE, Verification

WHOLE = 1000
NUM_STUDIES = 8


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("verification")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("many_verifications")


def set_up(seed: int) -> tuple[dict[str, Entry], Rules]:
    """A line-up and rules, at random; a large alpha, so that much passes."""
    rng = np.random.default_rng(seed)
    seeds = int(rng.choice([2, 3, 5]))
    rules = Rules(
        margin=0.01,
        alpha=0.3,
        seeds=seeds,
        max_seeds=int(rng.choice([seeds, 2 * seeds, 10])),
        higher_is_better=True,
        resolution=float(rng.choice([0, 1 / 360])),
        usual_spread=0.003,
    )
    first, between, cheap = (int(rng.integers(*around)) for around in ((200, 600), (300, 900), (100, 300)))
    entries = {
        "first": Entry(cost_flops=first, share=0.4, has_twin=bool(rng.random() < 0.7)),
        "between": Entry(cost_flops=between, share=0.3, has_twin=bool(rng.random() < 0.5)),
        "recipe": Entry(cost_flops=900, share=0.3, is_last_resort=True),
        "lower": Entry(cost_flops=(first + between) // 2, share=0.0, has_twin=bool(rng.random() < 0.5)),
        "cheap": Entry(
            cost_flops=cheap, share=0.0, is_extra=bool(rng.random() < 0.7), has_twin=bool(rng.random() < 0.7)
        ),
    }
    return entries, rules


def one_by_one(entries: dict[str, Entry], rules: Rules, reference: np.ndarray, own: np.ndarray) -> Verification:
    """One verification, driven as a study drives it: (N,) runs of the reference, (H, N) of each hypothesis."""
    made = Verification(entries, rules, reference_flops=WHOLE, first_seed=0)
    every = [*map(Hypothesis, entries), *(Hypothesis(name, is_twin=True) for name in entries if entries[name].has_twin)]
    twin_of = ""
    while True:
        for name, seed in made.needed():
            which = Hypothesis(twin_of, is_twin=True) if name == "equal" else Hypothesis(name)
            made.record(name, seed, float(reference[seed] if name == REFERENCE else own[every.index(which), seed]))
        if made.needed():
            continue
        winner = made.winner
        if winner is None or twin_of or not entries[winner].has_twin:
            return made
        twin_of = winner
        made.add_twin("equal", winner)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_simulated_is_the_state_machine(many: ModuleType, seed: int) -> None:
    entries, rules = set_up(seed)
    rng = np.random.default_rng([seed, 1])
    number, every = many.most_drawn(entries, rules, WHOLE), many.hypotheses(entries)
    sigma = 0.01 * float(rng.choice([0.3, 0.7, 1.5]))
    reference = 0.9 + sigma * rng.standard_normal((NUM_STUDIES, number))
    shifts = 0.01 * rng.uniform(-1.2, 0.8, (NUM_STUDIES, len(every), 1))
    own = 0.9 + shifts + sigma * rng.standard_normal((NUM_STUDIES, len(every), number))
    if rules.resolution:
        reference, own = (np.rint(x / rules.resolution) * rules.resolution for x in (reference, own))
    ended = many.carry_out(entries, rules, many.Drawn(reference=reference, own=own), reference_flops=WHOLE)
    names = tuple(entries)
    for i in range(NUM_STUDIES):
        made = one_by_one(entries, rules, reference[i], own[i])
        runs = [run["name"] for run in made.to_mapping()["runs"]]
        assert [made.verdicts[name].passed is True for name in names] == ended.passed[i, :5].tolist()
        assert (made.winner or "-") == ("-" if ended.winner[i] < 0 else names[ended.winner[i]])
        assert runs.count(REFERENCE) == ended.reference_runs[i]
        assert [runs.count(name) for name in names] == ended.own_runs[i, :5].tolist()
        assert runs.count("equal") == ended.own_runs[i, 5:].sum()
        twin = made.verdicts.get("equal")
        assert (twin is not None and twin.passed is True) == ended.passed[i, 5:].any()
        assert ("equal" in made.contrasts and made.contrasts["equal"].shown is True) == ended.shown[i]


def test_noise_has_mean_zero_and_the_spread_that_is_told(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for noise in bench.NOISES:
        own, reference = noise.draw(rng, (4000, 2, 10))
        assert (own.shape, reference.shape) == ((4000, 2, 10), (4000, 10))
        for x in (own, reference):
            assert abs(x.mean()) < 5 * max(x.std(), 1e-9) / np.sqrt(x.size), noise.name
        assert reference.std() == pytest.approx(noise.spread, rel=0.1, abs=0.01), noise.name


def test_designs_share_out_no_more_than_the_level(bench: ModuleType) -> None:
    for design in bench.designs():
        assert sum(entry.share for entry in design.entries.values()) == pytest.approx(1.0)
        assert design.at_margin <= set(design.entries)
        assert (bench.differences(design) < 0).any()


def test_a_mistake_is_a_pass_at_the_margin(bench: ModuleType) -> None:
    """Normal noise: near the level for one policy, none where the tested policy equals the reference."""
    one = next(design for design in bench.designs() if design.name == "one at the margin, cost 1")
    noise = next(noise for noise in bench.NOISES if noise.name == "normal, spread 0.5")
    passes, wins = bench.wrong(one, noise, 0.05, 2000, np.random.default_rng(0))
    assert stats.binom.isf(1 - 1e-6, 2000, 0.5 * allot(0.05)) < passes.sum() < stats.binom.isf(1e-6, 2000, allot(0.05))
    assert not wins.any()
    equal = bench.Design(name="", entries=one.entries, at_margin=frozenset())
    passes, _ = bench.wrong(equal, noise, 0.05, 200, np.random.default_rng(0))
    assert not passes.any()


def test_a_row_is_over_where_its_whole_interval_is(bench: ModuleType) -> None:
    def row(count: int) -> str:
        return str(bench.row("x", np.arange(1000) < count, 0.05, "note"))

    found = stats.binomtest(50, 1000).proportion_ci(0.99)
    assert f" 0.0500  [{found.low:.4f}, {found.high:.4f}]  ok    note" in row(50)
    assert "  above note" in row(65)
    assert "  over  note" in row(80)


def test_the_quick_tables_print(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("power", "study", "futility"):
        bench.TABLES[name](0.05, 40, np.random.default_rng(0))
    text = capsys.readouterr().out
    assert "Power of a policy with 0.5 of the level, spread 0.4 margins" in text
    assert text.count("the recipe alone is good") == 3
