"""How often verification is wrong, and how often it is right: error rates at the margin, and the power curve.

    python benchmarks/verification.py [--repeats 20000] [--alpha 0.05] [--seed 0]

Every policy of the error tables has a true mean exactly at the margin, so each pass is a mistake. Intervals are
Clopper-Pearson, 99 %. A row is `over` when the whole interval lies above alpha, and is expected to be so only where
the last column says that no test of a mean can hold. Differences are in units of the margin unless a row says else.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from scipy import stats

from subsettune.study.verification.noninferiority import (
    Array,
    Draw,
    Frequency,
    Rules,
    allot,
    decide,
    error_rate,
    plan,
    power,
    required_seeds,
)

MARGIN = 0.01
SCHEDULES = ((5, 10), (3, 10), (5, 5))
NUM_TEST = 360
STEP = 1 / NUM_TEST


def normal(sigma: float) -> Draw:
    """Independent normal differences."""
    return lambda rng, shape: -MARGIN + sigma * rng.standard_normal(shape)


def constant(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """No noise at all: every run exactly at the margin, rounded as subtraction rounds it."""
    metric = rng.choice(np.array([0.97, 0.3, 0.8875]), size=(shape[0], 1, 1))
    return np.asarray(np.broadcast_to((metric - MARGIN) - metric, shape), dtype=np.float64)


def correlated(share: float) -> Draw:
    """Policy and reference share part of their noise with the seed; candidates share the reference's runs."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
        by_seed, reference = rng.standard_normal((2, shape[0], 1, shape[2]))
        own = rng.standard_normal(shape)
        mixed, rest = math.sqrt(share), math.sqrt(1 - share)
        policy = mixed * by_seed + rest * own
        return np.asarray(-MARGIN + MARGIN * (policy - mixed * by_seed - rest * reference), dtype=np.float64)

    return draw


def flips(num_flips: float) -> Draw:
    """Accuracy on `NUM_TEST` examples: Poisson(num_flips) of them flip each way; the mean is put at the margin.

    The margin is 3.6 steps, so a lattice of whole flips has its mean there only if some are added: 3 or 4 of them.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
        base = np.where(rng.random(shape) < MARGIN * NUM_TEST - 3, -4, -3)
        steps = base + rng.poisson(num_flips, shape) - rng.poisson(num_flips, shape)
        return np.asarray(steps * STEP, dtype=np.float64)

    return draw


def neighbours(odds: float) -> Draw:
    """Accuracy whose difference is one of two neighbouring steps, the margin `odds` of the way between them."""
    return lambda rng, shape: -MARGIN + STEP * ((rng.random(shape) < odds).astype(np.float64) - odds)


def rounded(sigma_steps: float) -> Draw:
    """Normal noise seen through the metric's steps, the margin on a step."""
    return lambda rng, shape: -MARGIN + STEP * np.rint(sigma_steps * rng.standard_normal(shape))


def student(df: int) -> Draw:
    """Heavy tails, symmetric."""
    return lambda rng, shape: -MARGIN + MARGIN * rng.standard_t(df, shape)


def both_skewed(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Policy and reference with the same skew: exponential, long tail downwards; the difference is symmetric."""
    return -MARGIN * (1 + rng.exponential(size=shape) - rng.exponential(size=(shape[0], 1, shape[2])))


def skewed(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Only the policy is noisy, with a long tail downwards: exponential."""
    return -MARGIN * rng.exponential(size=shape)


def rarely_fails(probability: float) -> Draw:
    """As good as the reference but for a rare failure, whose size puts the mean at the margin."""
    return lambda rng, shape: np.where(rng.random(shape) < probability, -MARGIN / probability, 0.0)


CASES: tuple[tuple[str, Draw, float, str], ...] = (
    ("normal, sigma 0.3", normal(0.3 * MARGIN), 0.0, ""),
    ("normal, sigma 1", normal(MARGIN), 0.0, ""),
    ("normal, sigma 10", normal(10 * MARGIN), 0.0, ""),
    ("zero variance", constant, 0.0, ""),
    ("zero variance, accuracy", constant, STEP, ""),
    ("two neighbours, n_test 360", flips(0.0), STEP, ""),
    ("two neighbours, odds 0.45", neighbours(0.45), STEP, ""),
    ("two neighbours, odds 0.6", neighbours(0.6), STEP, ""),
    ("normal, sigma 0.4 steps, rounded", rounded(0.4), STEP, ""),
    ("0.1 flips each way", flips(0.1), STEP, ""),
    ("1 flip each way", flips(1.0), STEP, ""),
    ("5 flips each way", flips(5.0), STEP, ""),
    ("0.1 flips, resolution not told", flips(0.1), 0.0, "wrong use"),
    ("pairs correlated 0.9", correlated(0.9), 0.0, ""),
    ("Student t, 3 df", student(3), 0.0, ""),
    ("Cauchy (no mean; median at margin)", student(1), 0.0, ""),
    ("both skewed: exponential", both_skewed, 0.0, ""),
    ("policy alone skewed: exponential", skewed, 0.0, "cannot hold"),
    ("policy fails in 1 run of 7", rarely_fails(1 / 7), 0.0, "cannot hold"),
    ("policy fails in 1 run of 20", rarely_fails(1 / 20), 0.0, "cannot hold"),
)


def rules_for(schedule: tuple[int, int], alpha: float, resolution: float = 0.0) -> Rules:
    """The rules of a row."""
    seeds, cap = schedule
    return Rules(margin=MARGIN, alpha=alpha, seeds=seeds, max_seeds=cap, higher_is_better=True, resolution=resolution)


def row(name: str, found: Frequency, alpha: float, note: str) -> str:
    """One line of an error table."""
    low, high = found.interval(0.99)
    mark = "over" if low > alpha else "ok"
    return f"  {name:<46} {found.rate:7.4f}  [{low:.4f}, {high:.4f}]  {found.mean_runs:6.2f}  {mark:<5} {note}"


def error_tables(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """One candidate at the margin, for each distribution and schedule."""
    for schedule in SCHEDULES:
        looks = plan(allot(alpha), *schedule)
        print(
            f"\nError rate, one candidate, seeds {schedule[0]}, max_seeds {schedule[1]}, alpha {alpha}, n = {repeats}"
        )
        print(
            "  looks: " + "; ".join(f"{k.num_seeds} seeds: T > {k.critical:.3f} (p < {k.nominal:.4f})" for k in looks)
        )
        print(f"  {'differences':<46} {'rate':>7}  {'99 % interval':<16}  {'runs':>6}")
        for name, draw, resolution, note in CASES:
            rules = rules_for(schedule, alpha, resolution)
            print(row(name, error_rate(rules, draw, rng=rng, num_repeats=repeats), alpha, note))


def family_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """Several candidates and extensions: any mistake in the whole study counts.

    Candidates stand in the order of testing, dearest first; an extension has as many new ones. The normal ones are all
    compared with the same runs of the reference.
    """
    families = (
        ("3 at the margin", 0, 3, 0),
        ("1 equal, 2 at the margin", 1, 2, 0),
        ("2 equal, 1 at the margin", 2, 1, 0),
        ("3 at the margin, 3 extensions", 0, 3, 3),
        ("1 equal, 2 at margin, 3 extensions", 1, 2, 3),
    )
    draws = (("normal", correlated(0.0)), ("0.1 flips", flips(0.1)))
    for schedule in SCHEDULES:
        print(f"\nError rate of a study, seeds {schedule[0]}, max_seeds {schedule[1]}, alpha {alpha}, n = {repeats}")
        print(f"  {'candidates':<46} {'rate':>7}  {'99 % interval':<16}  {'runs':>6}")
        for name, num_equal, num_at_margin, num_extensions in families:
            for kind, draw in draws:
                rules = rules_for(schedule, alpha, STEP if kind.endswith("flips") else 0.0)
                found = error_rate(
                    rules,
                    draw,
                    rng=rng,
                    num_repeats=repeats,
                    num_equal=num_equal,
                    num_at_margin=num_at_margin,
                    num_extensions=num_extensions,
                )
                print(row(f"{name}, {kind}", found, alpha, ""))
        print(row("1 at the margin, 3 extensions by more seeds", same_policy(schedule, alpha, repeats, rng), alpha, ""))


def same_policy(schedule: tuple[int, int], alpha: float, repeats: int, rng: np.random.Generator) -> Frequency:
    """One policy at the margin, tried again with doubled seeds, the old runs kept, until it passes or 3 extensions."""
    longest = 8 * schedule[1]
    differences = -MARGIN + MARGIN * rng.standard_normal((repeats, longest))
    wrong, runs, spent = np.zeros(repeats, dtype=np.bool_), np.zeros(repeats), 0.0
    for factor in (1, 2, 4, 8):
        rules = rules_for((factor * schedule[0], factor * schedule[1]), alpha)
        passed, num_seeds = decide(differences[:, : rules.max_seeds], rules, spent)
        runs = np.where(wrong, runs, num_seeds)
        wrong |= passed
        spent += allot(alpha, spent)
    return Frequency(count=int(wrong.sum()), num_repeats=repeats, mean_runs=float(runs.mean()))


def power_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """Chance to pass against the true difference, for several sizes of the noise."""
    shifts = np.array([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5]) * MARGIN
    for schedule in SCHEDULES:
        rules = rules_for(schedule, alpha)
        print(f"\nPower, seeds {schedule[0]}, max_seeds {schedule[1]}, alpha {alpha}, n = {repeats} a cell")
        print(
            "  sigma/margin  true difference / margin:"
            + "".join(f"{s / MARGIN:8.2f}" for s in shifts)
            + "   seeds needed"
        )
        for ratio in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0):
            rates = power(rules, ratio * MARGIN, shifts, rng=rng, num_repeats=repeats)
            wanted = required_seeds(rules, ratio * MARGIN)
            print(f"  {ratio:12.2f}  {'':25}" + "".join(f"{rate:8.3f}" for rate in rates) + f"   {wanted}")
    print("  seeds needed: looked at once, for a policy that equals the reference to pass with probability 0.8.")


def resolution_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """What the floor under the spread costs: power of an equal policy, told the metric's step or not."""
    print(f"\nPower of an equal policy, accuracy on {NUM_TEST} examples (margin 3.6 steps), seeds 5, max_seeds 10")
    print(f"  {'flips each way':<16} {'spread, steps':>13} {'with floor':>11} {'without':>9}   (error rate not held)")
    for num_flips in (0.0, 0.1, 1.0, 5.0, 20.0):
        shape = (repeats, 10)
        differences = (rng.poisson(num_flips, shape) - rng.poisson(num_flips, shape)) * np.float64(STEP)
        held, free = (decide(differences, rules_for((5, 10), alpha, step))[0].mean() for step in (STEP, 0.0))
        print(f"  {num_flips:<16} {np.sqrt(2 * num_flips):13.2f} {held:11.3f} {free:9.3f}")


def choices_table(alpha: float, repeats: int, rng: np.random.Generator) -> None:
    """Why alpha is spent in proportion to the seeds, and why a hopeless candidate stops early."""
    print(f"\nChoices, seeds 5, max_seeds 10: rate of passing / mean seeds of a candidate, n = {repeats} a cell")
    noise = MARGIN * rng.standard_normal((repeats, 10))
    cases = (
        ("at margin", -1.0, 1.0),
        ("equal, sigma 1", 0.0, 1.0),
        ("equal, sigma 2/3", 0.0, 2 / 3),
        ("sigma 1/2", 0.0, 0.5),
    )
    print(f"  {'':<28}" + "".join(f"{name:>20}" for name, _, _ in cases))
    for rho, futile_below in ((1.0, 0.1), (1.0, 0.0), (2.0, 0.1), (3.0, 0.1), (1.0, 0.2)):
        cells = []
        for _, shift, sigma in cases:
            differences = shift * MARGIN + sigma * noise
            passed, num_seeds = decide(differences, rules_for((5, 10), alpha), rho=rho, futile_below=futile_below)
            cells.append(f"{passed.mean():12.3f} /{num_seeds.mean():6.2f}")
        chosen = "  (used)" if (rho, futile_below) == (1.0, 0.1) else ""
        print(f"  rho {rho:g}, futile below {futile_below:g}{chosen:<8}" + "".join(cells))


def exactness_table(repeats: int, rng: np.random.Generator) -> None:
    """The boundaries without futility, against simulation: for two looks the level is used up exactly."""
    print(f"\nBoundaries without futility: error rate over level, n = {10 * repeats}")
    for schedule in ((5, 10), (3, 10), (3, 4), (5, 40)):
        rules = rules_for(schedule, 0.05)
        differences = normal(MARGIN)(rng, (10 * repeats, 1, schedule[1]))
        count = int(decide(differences, rules, futile_below=0.0)[0].sum())
        found = stats.binomtest(count, 10 * repeats).proportion_ci(0.99)
        sizes = [look.num_seeds for look in plan(allot(0.05), *schedule)]
        print(f"  looks {sizes!s:<22} level {allot(0.05):.4f}  99 % interval [{found.low:.4f}, {found.high:.4f}]")


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20_000, help="simulated studies a row (default 20000)")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, start_s = np.random.default_rng(given.seed), time.perf_counter()
    error_tables(given.alpha, given.repeats, rng)
    family_table(given.alpha, given.repeats, rng)
    power_table(given.alpha, given.repeats, rng)
    resolution_table(given.alpha, given.repeats, rng)
    choices_table(given.alpha, given.repeats, rng)
    exactness_table(given.repeats, rng)
    print(f"\nseed {given.seed}, numpy {np.__version__}, {time.perf_counter() - start_s:.0f} s")


if __name__ == "__main__":
    main()
