"""How often verification is wrong, and how often it is right: whole verifications, each driven to its end.

    python benchmarks/verification.py [--quick] [--repeats 20000] [--alpha 0.05] [--seed 0] [--only TABLE]

A policy of the tables of errors has its true mean exactly at the margin, or equals the reference; each pass of one at
the margin is a mistake. The whole procedure is at work: looks, futility, alpha that moves on, the twin and the test of
a win over it, without the second control of a policy that has settings of its own, which can only take wins away
(`many_verifications.py`; a test holds it against the state machine). Intervals are Clopper-Pearson, 99 %. A row
is `above` where the whole interval lies above the level of one verification, 0.8 alpha, and `over` where it lies above
alpha; rows that no test of a mean of a few runs holds say so in the last column. The margin
is 0.01 of accuracy on 360 test examples; a spread is in units of the margin.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import many_verifications as many
import numpy as np
from many_verifications import Drawn, Ended, Flags
from scipy import stats

from subsettune.study.verification.candidates import SHARES
from subsettune.study.verification.lineup import Entry
from subsettune.study.verification.noninferiority import (
    FUTILE_BELOW,
    Array,
    Rules,
    allot,
    decide,
    judge,
    plan,
    sizes,
)

MARGIN = 0.01
STEP = 1 / 360
WHOLE = 1000  # FLOPs of a conventional training
CONFIDENCE = 0.99
CANNOT = "cannot hold"
QUICK = 2000


# --- noise ------------------------------------------------------------------------------------------------------------

# (rng, (R, H, N)) -> noise of mean 0, of the hypotheses (R, H, N) and of the reference (R, N), in units of the margin.
Draw = Callable[[np.random.Generator, tuple[int, int, int]], tuple[Array, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How metrics scatter over seeds.

    Args:
        name: for the table.
        draw: see `Draw`.
        spread: of the reference, in margins: what the validation split shows of it.
        resolution: of the metric.
        note: why a row may be over.
    """

    name: str
    draw: Draw
    spread: float
    resolution: float = 0.0
    note: str = ""


def normal(spread: float, ratio: float = 1.0, correlation: float = 0.0) -> Draw:
    """Normal noise; that of a policy is `ratio` times as large, and correlated with the reference's by seed."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Array, Array]:
        reference = rng.standard_normal((shape[0], shape[2]))
        own = correlation * reference[:, None] + math.sqrt(1 - correlation**2) * rng.standard_normal(shape)
        return spread * ratio * own, spread * reference

    return draw


def each(own: Callable[..., Array], reference: Callable[..., Array]) -> Draw:
    """Independent noise of two laws."""
    return lambda rng, shape: (own(rng, shape), reference(rng, (shape[0], shape[2])))


def rounded(spread: float) -> Callable[..., Array]:
    """Normal noise seen through the steps of accuracy, the mean on a step."""
    return lambda rng, shape: np.rint(spread * MARGIN / STEP * rng.standard_normal(shape)) * STEP / MARGIN


def neighbours(odds: float) -> Callable[..., Array]:
    """One of two neighbouring steps; the better one with these odds."""
    return lambda rng, shape: ((rng.random(shape) < odds) - odds) * STEP / MARGIN


def skewed(spread: float) -> Callable[..., Array]:
    """Gamma of shape 2 with its long tail downwards: skewness -1.41."""
    return lambda rng, shape: spread * (2 - rng.gamma(2.0, size=shape)) / math.sqrt(2)


def student(spread: float) -> Callable[..., Array]:
    """Student's t with 3 degrees of freedom, of that standard deviation."""
    return lambda rng, shape: spread * rng.standard_t(3, shape) / math.sqrt(3)


def fails(probability: float, spread: float, by: float) -> Callable[..., Array]:
    """Normal, but one run in some fails by so many margins."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        failed = rng.random(shape) < probability
        return np.asarray(spread * rng.standard_normal(shape) - by * (failed - probability), dtype=np.float64)

    return draw


def plain(spread: float) -> Callable[..., Array]:
    """Normal."""
    return lambda rng, shape: spread * rng.standard_normal(shape)


NOISES: tuple[Noise, ...] = (
    Noise(name="normal, spread 0.25", draw=normal(0.25), spread=0.25),
    Noise(name="normal, spread 0.5", draw=normal(0.5), spread=0.5),
    Noise(name="normal, spread 1.5", draw=normal(1.5), spread=1.5),
    Noise(name="steps of 1/360, spread 0.15", draw=each(rounded(0.15), rounded(0.15)), spread=0.17, resolution=STEP),
    Noise(name="steps of 1/360, spread 0.5", draw=each(rounded(0.5), rounded(0.5)), spread=0.5, resolution=STEP),
    Noise(name="two values, even", draw=each(neighbours(0.5), neighbours(0.5)), spread=0.14, resolution=STEP),
    Noise(name="two values, 0.9", draw=each(neighbours(0.9), neighbours(0.5)), spread=0.14, resolution=STEP),
    Noise(
        name="two values, reference steady", draw=each(neighbours(0.6), neighbours(0.0)), spread=0.0, resolution=STEP
    ),
    Noise(name="candidate 0.5 times the spread", draw=normal(0.6, 0.5), spread=0.6),
    Noise(name="candidate 1.5 times the spread", draw=normal(0.5, 1.5), spread=0.5),
    Noise(name="candidate 2.5 times the spread", draw=normal(0.4, 2.5), spread=0.4),
    Noise(name="gamma(2) downwards, both", draw=each(skewed(0.5), skewed(0.5)), spread=0.5),
    Noise(name="gamma(2) downwards, reference", draw=each(plain(0.5), skewed(0.5)), spread=0.5),
    Noise(name="gamma(2) downwards, candidate", draw=each(skewed(0.5), plain(0.5)), spread=0.5, note=CANNOT),
    Noise(name="gamma(2), candidate 1.5 times", draw=each(skewed(0.75), plain(0.5)), spread=0.5, note=CANNOT),
    Noise(name="Student t, 3 df", draw=each(student(0.5), student(0.5)), spread=0.5),
    Noise(
        name="1 run in 7 fails by 4, candidate", draw=each(fails(1 / 7, 0.3, 4), plain(0.3)), spread=0.3, note=CANNOT
    ),
    Noise(
        name="1 run in 20 fails by 10, candidate", draw=each(fails(0.05, 0.3, 10), plain(0.3)), spread=0.3, note=CANNOT
    ),
    Noise(name="1 run in 20 fails by 10, both", draw=each(fails(0.05, 0.3, 10), fails(0.05, 0.3, 10)), spread=2.2),
    Noise(name="correlated by seed, 0.6", draw=normal(0.5, 1.0, 0.6), spread=0.5),
    Noise(name="correlated by seed, -0.3", draw=normal(0.5, 1.0, -0.3), spread=0.5, note="no seed does that"),
)


# --- line-ups ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A line-up and what is true of it.

    Args:
        name: for the table.
        entries: of the line-up.
        at_margin: names of the policies whose true mean is at the margin; the others equal the reference.
        twins_at_margin: whether plain training of equal compute is, too.
        rounds: verifications of the study, each with new policies.
        seeds: of the rules.
        max_seeds: of the rules.
    """

    name: str
    entries: Mapping[str, Entry]
    at_margin: frozenset[str]
    twins_at_margin: bool = True
    rounds: int = 1
    seeds: int = 5
    max_seeds: int = 10


def line_up(costs: tuple[float, float, float, float] = (0.4, 0.6, 0.49, 0.25)) -> dict[str, Entry]:
    """As a study draws it up (`verification/candidates`), of subset policies, the dearest kind: each has a twin."""
    first, between, lower, cheap = (round(cost * WHOLE) for cost in costs)
    return {
        "first": Entry(cost_flops=first, share=SHARES[0], has_twin=True),
        "between": Entry(cost_flops=between, share=SHARES[1], has_twin=True),
        "recipe": Entry(cost_flops=round(0.9 * WHOLE), share=SHARES[2], is_last_resort=True),
        "lower": Entry(cost_flops=lower, share=0.0, has_twin=True),
        "cheap": Entry(cost_flops=cheap, share=0.0, is_extra=True, has_twin=True),
    }


def alone(cost: float) -> dict[str, Entry]:
    """One policy with all of the level, which may be looked at as often as a last resort."""
    return {"one": Entry(cost_flops=round(cost * WHOLE), share=1.0, is_last_resort=True)}


ALL = frozenset(line_up())
FEW_MOST = 3  # times as many at most
CHEAP = (0.04, 0.19, 0.087, 0.025)  # where few runs of the reference stand beside many of the candidate


def designs() -> Iterator[Design]:
    """Those of the tables of errors."""
    for seeds, most in ((5, 10), (3, 10), (8, 16)):
        yield Design(name="all five at the margin", entries=line_up(), at_margin=ALL, seeds=seeds, max_seeds=most)
        yield Design(name="all five, cheap", entries=line_up(CHEAP), at_margin=ALL, seeds=seeds, max_seeds=most)
        yield Design(
            name="first and its twin equal, others at margin",
            entries=line_up(),
            at_margin=ALL - {"first"},
            twins_at_margin=False,
            seeds=seeds,
            max_seeds=most,
        )
    last = ALL - {"recipe"}
    yield Design(name="recipe equal, others at margin", entries=line_up(), at_margin=last, twins_at_margin=False)
    yield Design(
        name="first, between equal, others at margin", entries=line_up(), at_margin=last - {"first", "between"}
    )
    for cost in (0.1, 0.25, 0.6, 1.0):
        yield Design(name=f"one at the margin, cost {cost:g}", entries=alone(cost), at_margin=frozenset({"one"}))
    yield Design(name="all five at margin, 3 extensions", entries=line_up(), at_margin=ALL, rounds=4)
    yield Design(name="recipe equal, 3 extensions", entries=line_up(), at_margin=last, rounds=4)


def rules_for(design: Design, noise: Noise, alpha: float) -> Rules:
    """The rules of a row; the usual spread is the true one, which lets most policies pass as steady."""
    return Rules(
        margin=MARGIN,
        alpha=alpha,
        seeds=design.seeds,
        max_seeds=design.max_seeds,
        higher_is_better=True,
        resolution=noise.resolution,
        usual_spread=noise.spread * MARGIN,
    )


def differences(design: Design) -> Array:
    """(H,) true mean of each hypothesis minus the reference's, in margins."""
    found = [
        -1.0 if (design.twins_at_margin if one.is_twin else one.name in design.at_margin) else 0.0
        for one in many.hypotheses(design.entries)
    ]
    return np.array(found)


def wrong(design: Design, noise: Noise, alpha: float, repeats: int, rng: np.random.Generator) -> tuple[Flags, Flags]:
    """(R,) whether a study passed a policy at the margin, and whether it claimed a win that is none.

    Twins that are at the margin leave a candidate that equals the reference a true win: that is no mistake.
    """
    rules, shifts = rules_for(design, noise, alpha), differences(design)
    number, spent = many.most_drawn(design.entries, rules, WHOLE), 0.0
    passes, wins = np.zeros(repeats, dtype=np.bool_), np.zeros(repeats, dtype=np.bool_)
    reference: Array | None = None
    for _ in range(design.rounds):
        own, fresh = noise.draw(rng, (repeats, len(shifts), number))
        reference = fresh if reference is None else reference  # an extension has the reference's runs already
        drawn = Drawn(reference=MARGIN * reference, own=MARGIN * (own + shifts[:, None]))
        ended = many.carry_out(design.entries, rules, drawn, reference_flops=WHOLE, spent=spent)
        passes |= (ended.passed & (shifts < 0)).any(axis=1)
        wins |= ended.shown & ~_is_better(design, shifts, ended)
        spent += allot(alpha, spent)
    return passes, wins


def _is_better(design: Design, shifts: Array, ended: Ended) -> Flags:
    """(R,) whether the candidate that has a twin is truly better than that."""
    names = tuple(design.entries)
    found = np.zeros(len(ended.twin_of), dtype=np.bool_)
    for h, one in enumerate(many.hypotheses(design.entries)):
        if one.is_twin:
            k = names.index(one.name)
            found |= (ended.twin_of == k) & bool(shifts[k] > shifts[h])
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def interval(count: int, repeats: int) -> tuple[float, float]:
    """Clopper-Pearson."""
    found = stats.binomtest(count, repeats).proportion_ci(CONFIDENCE)
    return float(found.low), float(found.high)


def row(name: str, flags: Flags, alpha: float, note: str = "") -> str:
    """One line of a table of errors."""
    low, high = interval(int(flags.sum()), len(flags))
    mark = "over" if low > alpha else "above" if low > allot(alpha) else "ok"
    return f"  {name:<40} {flags.mean():7.4f}  [{low:.4f}, {high:.4f}]  {mark:<5} {note}".rstrip()


def level_tables(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """P(any policy at the margin passes), for each design and noise; below each, any false claim, of a win included."""
    for design in designs():
        print(f"\n{design.name}; seeds {design.seeds}, max_seeds {design.max_seeds}, alpha {alpha}, n = {repeats}")
        either = np.zeros(0, dtype=np.bool_)
        for noise in NOISES:
            passes, wins = wrong(design, noise, alpha, repeats, rng)
            print(row(noise.name, passes, alpha, noise.note))
            if noise.name == "normal, spread 0.5":
                either = passes | wins
        print(row("  normal, spread 0.5: or a false win", either, alpha))


@dataclass(frozen=True, slots=True, kw_only=True)
class Win:
    """A placebo: its true mean is that of its twin.

    Args:
        name: for the table.
        draw: noise of policy and twin (R, 2, N), and of the reference.
        spread: of the reference.
        resolution: of the metric.
        note: why the row may be over.
    """

    name: str
    draw: Draw
    spread: float
    resolution: float = 0.0
    note: str = ""


def pairs(correlation: float, spread: float) -> Draw:
    """Normal; policy and twin have part of their noise in common, as one seed gives."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Array, Array]:
        common = rng.standard_normal((shape[0], 1, shape[2]))
        own = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * rng.standard_normal(shape)
        return spread * own, spread * rng.standard_normal((shape[0], shape[2]))

    return draw


def twin_skewed(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Only the twin has a long tail upwards: its few runs look worse than it is."""
    own = 0.5 * rng.standard_normal(shape)
    own[:, 1] = -skewed(0.5)(rng, (shape[0], shape[2]))
    return own, 0.5 * rng.standard_normal((shape[0], shape[2]))


WINS: tuple[Win, ...] = (
    Win(name="normal, spread 0.5", draw=normal(0.5), spread=0.5),
    Win(name="normal, spread 1", draw=normal(1.0), spread=1.0),
    Win(name="pairs correlated by 0.6", draw=pairs(0.6, 0.5), spread=0.5),
    Win(name="steps of 1/360, spread 0.15", draw=each(rounded(0.15), rounded(0.15)), spread=0.17, resolution=STEP),
    Win(name="steps of 1/360, spread 0.5", draw=each(rounded(0.5), rounded(0.5)), spread=0.5, resolution=STEP),
    Win(name="two values, even", draw=each(neighbours(0.5), neighbours(0.5)), spread=0.14, resolution=STEP),
    Win(name="gamma(2) downwards, both", draw=each(skewed(0.5), skewed(0.5)), spread=0.5),
    Win(name="Student t, 3 df", draw=each(student(0.5), student(0.5)), spread=0.5),
    Win(name="gamma(2) upwards, twin alone", draw=twin_skewed, spread=0.5, note=CANNOT),
)


def win_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """How often a placebo is claimed to be better than plain training of equal compute."""
    entries = {
        "one": Entry(cost_flops=400, share=SHARES[0], has_twin=True),
        "recipe": Entry(cost_flops=900, share=1 - SHARES[0], is_last_resort=True),
    }
    print(f"\nA win is claimed of a policy that is as good as its twin; seeds 5, max_seeds 10, n = {repeats}")
    print(f"  {'':<40} {'rate':>7}  {'99 % interval':<16}        of those that passed")
    for difference in (0.5, 0.0, -0.5, -1.0):
        for win in WINS:
            rules = rules_for(Design(name="", entries=entries, at_margin=frozenset()), _noise(win), alpha)
            shifts = np.array([difference, 0.0, difference])
            number = many.most_drawn(entries, rules, WHOLE)
            own, reference = win.draw(rng, (repeats, 2, number))
            all_own = np.stack([own[:, 0], reference, own[:, 1]], axis=1)
            drawn = Drawn(reference=MARGIN * reference, own=MARGIN * (all_own + shifts[:, None]))
            ended = many.carry_out(entries, rules, drawn, reference_flops=WHOLE)
            share = ended.shown.sum() / max(1, ended.passed[:, 0].sum())
            print(f"{row(f'{difference:+g} margin; {win.name}', ended.shown, alpha)}   {share:.3f} {win.note}".rstrip())


def _noise(win: Win) -> Noise:
    return Noise(name=win.name, draw=win.draw, spread=win.spread, resolution=win.resolution)


def power_tables(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """P(pass) of the first of a line-up against its true difference, and what its test costs."""
    shifts = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25)
    for spread in (0.4, 0.6, 1.0):
        level = f"{SHARES[0]:g} of the level, spread {spread:g} margins"
        print(f"\nPower of a policy with {level}; seeds 5 to 10, n = {repeats}")
        print("  cost  true difference / margin:" + "".join(f"{s:>15g}" for s in shifts))
        for cost in (0.1, 0.25, 0.6, 1.0):
            cells = [_power(spread, shift, cost, alpha, repeats, rng) for shift in shifts]
            print(f"  {cost:<28g}" + "".join(f"{passed:8.3f} /{spent:5.1f}" for passed, spent in cells))
    print("  after the stroke: conventional trainings that its runs and those of the reference cost, on average.")


def _power(
    spread: float, shift: float, cost: float, alpha: float, repeats: int, rng: np.random.Generator
) -> tuple[float, float]:
    """A cell of the table: chance to pass, and conventional trainings spent."""
    entries = {"one": Entry(cost_flops=round(cost * WHOLE), share=SHARES[0])}
    noise = Noise(name="", draw=normal(spread), spread=spread)
    rules = rules_for(Design(name="", entries=entries, at_margin=frozenset()), noise, alpha)
    own, reference = noise.draw(rng, (repeats, 1, many.most_drawn(entries, rules, WHOLE)))
    drawn = Drawn(reference=MARGIN * reference, own=MARGIN * (own + shift))
    ended = many.carry_out(entries, rules, drawn, reference_flops=WHOLE)
    return float(ended.passed[:, 0].mean()), float(np.mean(ended.reference_runs + cost * ended.own_runs[:, 0]))


def study_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """What becomes of a whole line-up, for some truths."""
    truths: tuple[tuple[str, dict[str, float]], ...] = (
        ("all equal the reference", {}),
        ("the cheap one at half the margin", {"cheap": -0.5}),
        ("as a curve of accuracy over compute is", {"first": -0.5, "lower": -0.38, "between": -0.25, "cheap": -0.8}),
        ("the recipe alone is good", dict.fromkeys(ALL - {"recipe"}, -1.0)),
    )
    entries = line_up()
    costs = ", ".join(f"{name} {entry.cost_flops / WHOLE:g}" for name, entry in entries.items())
    print(f"\nA line-up of costs {costs}; seeds 5, max_seeds 10, n = {repeats}")
    print("  passed: any, the first, the cheap one, the twin of what won; conventional trainings spent, and references")
    for spread in (0.25, 0.5, 1.0):
        for name, shifts in truths:
            noise = Noise(name="", draw=normal(spread), spread=spread)
            rules = rules_for(Design(name="", entries=entries, at_margin=frozenset()), noise, alpha)
            every = many.hypotheses(entries)
            own, reference = noise.draw(rng, (repeats, len(every), many.most_drawn(entries, rules, WHOLE)))
            moved = own + np.array([shifts.get(one.name, 0.0) for one in every])[:, None]
            drawn = Drawn(reference=MARGIN * reference, own=MARGIN * moved)
            ended = many.carry_out(entries, rules, drawn, reference_flops=WHOLE)
            print(f"  spread {spread:<5g}{name:<40}" + _outcome(entries, ended))


def _outcome(entries: Mapping[str, Entry], ended: Ended) -> str:
    costs = np.array([entries[one.name].cost_flops / WHOLE for one in many.hypotheses(entries)])
    spent = float(np.mean(ended.reference_runs + ended.own_runs @ costs))
    names, passed = tuple(entries), ended.passed.mean(axis=0)
    first, cheap, twins = passed[names.index("first")], passed[names.index("cheap")], passed[len(names) :].sum()
    rates = (float((ended.winner >= 0).mean()), first, cheap, twins)
    return "".join(f"{rate:7.3f}" for rate in rates) + f"{spent:8.1f}{ended.reference_runs.mean():6.1f}"


def shares_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """How often one look passes a policy at the margin, over what its share of alpha allows: small shares, few runs."""
    numbers = ((5, 5), (6, 6), (7, 7), (8, 8), (10, 5), (20, 5), (16, 8), (20, 10))
    shares = (allot(alpha), *(share * allot(alpha) for share in SHARES), SHARES[0] * allot(alpha, allot(alpha)))
    print("\nOne look, independent normal noise: passes over the level, of runs of the policy and of the reference")
    print("  level of the look:" + "".join(f"{share:>10.3g}" for share in shares))
    rules = rules_for(Design(name="", entries={}, at_margin=frozenset()), NOISES[2], alpha)
    for size in numbers:
        own, reference = (MARGIN * 1.5 * rng.standard_normal((50 * repeats, n)) for n in size)
        found = [_passes(own - MARGIN, reference, size, share, rules) / share for share in shares]
        print(f"  {size[0]:>2} beside {size[1]:<9}" + "".join(f"{ratio:10.2f}" for ratio in found))


def few_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """P(a policy at the margin passes) with few seeds, where it scatters less than the reference; small alpha, too."""
    print(f"\nOne cheap policy at the margin, few seeds, normal noise of 0.6 margins; n = {repeats}")
    for level in (alpha, alpha / 5):
        print(f"  alpha {level:g}")
        for seeds, cost, ratio in itertools.product((2, 3, 5), (0.05, 0.2), (0.3, 0.5, 1.0)):
            entries = alone(cost)
            design = Design(
                name="", entries=entries, at_margin=frozenset(entries), seeds=seeds, max_seeds=FEW_MOST * seeds
            )
            noise = Noise(name="", draw=normal(0.6, ratio), spread=0.6)
            passes, _ = wrong(design, noise, level, repeats, rng)
            print(row(f"seeds {seeds}, cost {cost:g}, spread x{ratio:g}", passes, level))


def _passes(own: Array, reference: Array, size: tuple[int, int], level: float, rules: Rules) -> float:
    (look,) = plan(level, (size,))
    return float(judge(own, reference, look, look, rules, floor=1e-12).passed.mean())


def futility_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """Why a hopeless candidate stops early: chance to pass, and runs of its own and of the reference."""
    print(f"\nFutility, a policy of cost 0.25 with all of the level, spread 0.6 margins; n = {repeats}")
    rules = rules_for(Design(name="", entries={}, at_margin=frozenset()), NOISES[1], alpha)
    looks = plan(allot(alpha), sizes(rules, 0.25, is_last_resort=True))
    runs = np.array([look.size for look in looks])
    for futile_below in (0.0, 0.05, FUTILE_BELOW, 0.3):
        cells = []
        for shift in (-1.0, -0.5, 0.0):
            own, reference = normal(0.6)(rng, (repeats, 1, int(runs.max())))
            c, r = MARGIN * (own[:, 0] + shift), MARGIN * reference
            passed, settled_at = decide(c, r, rules, looks, futile_below=futile_below)
            cells.append(
                f"{shift:+.1f}: {passed.mean():.3f} / {' + '.join(f'{n:.1f}' for n in runs[settled_at].mean(axis=0))}"
            )
        print(f"  below {futile_below:<6g}" + "    ".join(cells))


TABLES: Mapping[str, Callable[[float, int, np.random.Generator], None]] = {
    "level": level_tables,
    "win": win_table,
    "power": power_tables,
    "study": study_table,
    "futility": futility_table,
    "shares": shares_table,
    "few": few_table,
}


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20_000, help="simulated studies a row (default 20000)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} studies a row")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, start_s = np.random.default_rng(given.seed), time.perf_counter()
    for name, table in TABLES.items():
        if given.only in (None, name):
            table(given.alpha, QUICK if given.quick else given.repeats, rng)
    print(f"\nseed {given.seed}, numpy {np.__version__}, {time.perf_counter() - start_s:.0f} s")


if __name__ == "__main__":
    main()
