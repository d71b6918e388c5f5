"""Verification: which runs prove that a policy matches, and what they show. Bookkeeping around `noninferiority`.

A pure state machine: it says which runs it needs, is told their metrics, and gives verdicts. It reads and writes
nothing and draws no random numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from subsettune.config import must
from subsettune.errors import ConfigError, StudyError
from subsettune.study.results.verdict import Verdict
from subsettune.study.verification.noninferiority import (
    FUTILE_BELOW,
    MOST_SEEDS,
    Look,
    Rules,
    allot,
    judge,
    plan,
    required_seeds,
    spread_floor,
)

Array = NDArray[np.float64]

REFERENCE = "reference"
FORMAT_VERSION = 1


def statement(verdict: Verdict, rules: Rules) -> str:
    """What the evidence says and what it does not, in plain words, for the bundle and the report."""
    if not math.isfinite(verdict.lower_bound):
        return f"There is no evidence for {verdict.name}: {verdict.reason}"
    worse, better = ("below", "above") if rules.higher_is_better else ("above", "below")
    bound = verdict.lower_bound
    at_worst = f"at least {bound:.4g} {better}" if bound > 0 else f"no more than {abs(bound):.4g} {worse}"
    return (
        f"{verdict.num_seeds} runs of {verdict.name}, each paired with a conventional run of the same seed: its mean "
        f"test metric is {_side(verdict.mean_difference, rules)} the reference's, and at one-sided level "
        f"{verdict.nominal:.3g} {at_worst} it; {rules.margin:g} {worse} it is tolerated. This covers the noise of "
        "training (initial weights, order of examples, augmentation), not the sampling of the test set: all runs are "
        "judged on the same test examples, and other examples may rank policy and reference otherwise. It takes the "
        "paired differences to be roughly symmetric: a policy that fails badly in a few runs of a hundred is not ruled "
        "out by so few seeds."
    )


def _side(difference: float, rules: Rules) -> str:
    if difference == 0:
        return "equal to"
    return f"{abs(difference):.4g} {'above' if (difference > 0) == rules.higher_is_better else 'below'}"


def _at_worst(bound: float) -> str:
    """What an oriented lower bound says of a policy, before `the reference`."""
    if bound == 0:
        return "not worse than"
    return f"at least {bound:.4g} better than" if bound > 0 else f"at most {-bound:.4g} worse than"


class Verification:
    """Candidates tested dearest first until the first failure; the cheapest that passed is the winner.

    Only one candidate at a time asks for runs, all seeds of its look at once: a cheaper one is tested only if it
    passes, so running ahead would waste what a failure makes needless. The state is the set of recorded metrics;
    verdicts are a function of it, so the order of recording does not matter.

    Controls are for information. Each is tested once, on as many seeds as the winner took (as the first look has,
    without a winner), against that look's boundary; so it asks for no run of the reference that the winner did not
    need, and its own error rate is at most the level too.

    Args:
        candidates: name -> cost in FLOPs, in any order.
        rules: margin, error rate, and seeds.
        seeds: `rules.max_seeds` of them, in the order in which they are used.
        controls: names.
        spent: alpha given to earlier verifications of the study: their `alpha_spent`.

    Raises:
        ConfigError: seeds are too few or repeated, a name is taken or reserved, or no alpha is left.
    """

    def __init__(
        self,
        candidates: Mapping[str, int],
        rules: Rules,
        seeds: Sequence[int],
        controls: Sequence[str] = (),
        spent: float = 0.0,
    ) -> None:
        if len(seeds) != rules.max_seeds or len(set(seeds)) != len(seeds):
            raise ConfigError(must("seeds", f"{rules.max_seeds} different numbers (max_seeds)", list(seeds)))
        if REFERENCE in candidates:
            raise ConfigError(must("name of a candidate", "another", REFERENCE, "It stands for the conventional runs."))
        self.rules = rules
        self.seeds = tuple(int(seed) for seed in seeds)
        self.spent = spent
        self.order = tuple(sorted(candidates, key=lambda name: (-candidates[name], name)))
        self._costs = {name: int(cost) for name, cost in candidates.items()}
        self._level = allot(rules.alpha, spent)
        self._looks = plan(self._level, rules.seeds, rules.max_seeds)
        self._controls: list[str] = []
        self._metrics: dict[str, dict[int, float]] = {name: {} for name in (REFERENCE, *self.order)}
        for name in controls:
            self.add_control(name)

    @property
    def alpha_spent(self) -> float:
        """Alpha given to this verification and those before it: `spent` of the next one. All of it, used or not."""
        return self.spent + self._level

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls, in the order in which they were added."""
        return tuple(self._controls)

    def add_control(self, name: str) -> None:
        """Test one more policy, for information; never the winner. Adding it again changes nothing.

        Raises:
            ConfigError: the name is a candidate's, or reserved.
        """
        if name == REFERENCE or name in self._costs:
            raise ConfigError(must("name of a control", "no candidate's and not 'reference'", name))
        if name not in self._controls:
            self._controls.append(name)
            self._metrics[name] = {}

    def record(self, name: str, seed: int, metric: float) -> None:
        """Take in the test metric of a run, asked for or not. The same again changes nothing.

        Args:
            name: of a candidate or control, or "reference".
            seed: one of `seeds`.
            metric: as measured, not oriented. NaN or infinite: the run diverged, and the candidate fails for good.

        Raises:
            ConfigError: name or seed is unknown.
            StudyError: another metric was recorded for this run.
        """
        if name not in self._metrics:
            raise ConfigError(must("name", f"one of {', '.join(self._metrics)}", name))
        if seed not in self.seeds:
            raise ConfigError(must("seed", f"one of {', '.join(map(str, self.seeds))}", seed))
        value = float(metric) if math.isfinite(metric) else math.nan
        known = self._metrics[name].setdefault(int(seed), value)
        if known != value and not (math.isnan(known) and math.isnan(value)):
            raise StudyError(
                f"metric of {name} with seed {seed} must be {known!r}, as recorded before, got {value!r}. "
                "The two runs did not train the same policy on the same data: start a new study."
            )

    def needed(self) -> tuple[tuple[str, int], ...]:
        """Runs (name, seed) to do now, in parallel if there is room; empty when finished."""
        verdicts = self.verdicts
        wanted: dict[tuple[str, int], None] = {}
        current = next((name for name in self.order if verdicts[name].passed is not True), None)
        for name in (current, *self._controls):
            if name is None or verdicts[name].passed is not None:
                continue
            look = self._next_look(name, verdicts)
            runs = ((who, seed) for seed in self.seeds[: look.num_seeds] for who in (REFERENCE, name))
            wanted.update(dict.fromkeys(run for run in runs if run[1] not in self._metrics[run[0]]))
        return tuple(wanted)

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """Of all candidates, dearest first, then of the controls."""
        found: dict[str, Verdict] = {}
        before: Verdict | None = None
        for name in self.order:
            if before is not None and not before.passed:
                found[name] = _blocked(name, before)
            else:
                found[name] = before = self._candidate(name)
        for name in self._controls:
            found[name] = self._control(name, found)
        return MappingProxyType(found)

    @property
    def winner(self) -> str | None:
        """The cheapest candidate that passed so far; final once `finished`."""
        verdicts = self.verdicts
        return next((name for name in reversed(self.order) if verdicts[name].passed), None)

    @property
    def finished(self) -> bool:
        """Whether every verdict is final and no run is needed."""
        verdicts = self.verdicts
        return _sequence_is_over(self.order, verdicts) and all(verdicts[n].passed is not None for n in self._controls)

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values for JSON. A diverged run's metric is null."""
        runs = [
            {"name": name, "seed": seed, "metric": None if math.isnan(value) else value}
            for name, metrics in self._metrics.items()
            for seed, value in metrics.items()
        ]
        return {
            "version": FORMAT_VERSION,
            "candidates": dict(self._costs),
            "rules": dataclasses.asdict(self.rules),
            "seeds": list(self.seeds),
            "controls": list(self._controls),
            "spent": self.spent,
            "runs": runs,
            "alpha_spent": self.alpha_spent,
            "winner": self.winner,
            "verdicts": {name: verdict.to_mapping() for name, verdict in self.verdicts.items()},
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Verification:
        """Restore what `to_mapping` gave. Verdicts are derived anew from the recorded runs.

        Raises:
            StudyError: the version is unknown, a part is missing or wrong, or the runs give another winner.
        """
        if mapping.get("version") != FORMAT_VERSION:
            raise StudyError(must("version of the verification", str(FORMAT_VERSION), mapping.get("version")))
        try:
            rules = Rules(**mapping["rules"])
            made = cls(mapping["candidates"], rules, mapping["seeds"], mapping["controls"], mapping["spent"])
            for run in mapping["runs"]:
                made.record(run["name"], run["seed"], math.nan if run["metric"] is None else run["metric"])
            winner = mapping["winner"]
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise StudyError(f"The recorded verification is damaged: {error}. Restore it from a copy.") from error
        if made.winner != winner:
            raise StudyError(must("recorded winner", f"{made.winner!r}, as its runs say", winner, "Restore a copy."))
        return made

    def _candidate(self, name: str) -> Verdict:
        """Go through the looks until one decides or lacks runs."""
        verdict = _waiting(name, self._looks[0])
        for look in self._looks:
            if (diverged := self._diverged(name, look)) is not None:
                return diverged
            if (differences := self._differences(name, look)) is None:
                return verdict
            verdict = self._judged(name, differences, look, self._looks[-1])
            if verdict.passed is not None:
                return verdict
        raise AssertionError("the last look decides")

    def _control(self, name: str, verdicts: Mapping[str, Verdict]) -> Verdict:
        """Test at one look, the winner's, known only when the candidates are through."""
        look = self._control_look(verdicts)
        if (diverged := self._diverged(name, look)) is not None:
            return diverged
        differences = self._differences(name, look)
        if differences is None or not _sequence_is_over(self.order, verdicts):
            return _waiting(name, look)
        return self._judged(name, differences, look, look)

    def _control_look(self, verdicts: Mapping[str, Verdict]) -> Look:
        passed = [verdicts[name] for name in self.order if verdicts[name].passed]
        if not passed or not _sequence_is_over(self.order, verdicts):
            return self._looks[0]
        return next(look for look in self._looks if look.num_seeds == passed[-1].num_seeds)

    def _next_look(self, name: str, verdicts: Mapping[str, Verdict]) -> Look:
        if name in self._controls:
            return self._control_look(verdicts)
        return next(look for look in self._looks if look.num_seeds > verdicts[name].num_seeds)

    def _differences(self, name: str, look: Look) -> tuple[Array, float] | None:
        """Oriented paired differences of a look, and the largest metric among them; None while runs are missing."""
        used = self.seeds[: look.num_seeds]
        ours, theirs = self._metrics[name], self._metrics[REFERENCE]
        if any(seed not in ours or seed not in theirs for seed in used):
            return None
        pairs = np.array([(ours[seed], theirs[seed]) for seed in used], dtype=np.float64)
        sign = 1.0 if self.rules.higher_is_better else -1.0
        return sign * (pairs[:, 0] - pairs[:, 1]), max(float(np.abs(pairs).max()), self.rules.margin)

    def _judged(self, name: str, data: tuple[Array, float], look: Look, last: Look) -> Verdict:
        """The verdict at a look whose runs are all there; None passed if more seeds have a chance."""
        differences, scale = data
        floor = spread_floor(self.rules.resolution, scale)
        result = judge(differences, look, last, margin=self.rules.margin, floor=floor)
        mean, spread, chance = float(result.mean), float(result.spread), float(result.chance)
        bound = mean - look.critical * spread / math.sqrt(look.num_seeds)
        passed = True if result.passed else (None if chance >= FUTILE_BELOW else False)
        shortfall = 0.0 if passed else max(0.0, -self.rules.margin - bound)
        seeds_needed = None if passed else self._seeds_needed(float(differences.std(ddof=1)), passed)
        return Verdict(
            name=name,
            passed=passed,
            num_seeds=look.num_seeds,
            mean_difference=mean,
            lower_bound=bound,
            shortfall=shortfall,
            p_value=float(stats.t.sf(result.statistic, look.num_seeds - 1)),
            alpha_spent=look.alpha_spent,
            seeds_needed=seeds_needed,
            reason=self._reason(passed, look, last, bound, chance, seeds_needed),
            spread=spread,
            nominal=look.nominal,
        )

    def _seeds_needed(self, sigma: float, passed: bool | None) -> int | None:
        """While open, at this verification's level; once failed, at that of an extension, the only way to go on."""
        return required_seeds(self.rules, sigma, spent=self.spent if passed is None else self.alpha_spent)

    def _reason(
        self, passed: bool | None, look: Look, last: Look, bound: float, chance: float, seeds_needed: int | None
    ) -> str:
        n, margin = look.num_seeds, self.rules.margin
        if passed:
            return f"passed with {n} seeds: {_at_worst(bound)} the reference, {margin:g} worse allowed"
        missed = f"missed by {-margin - bound:.4g} with {n} seeds"
        if passed is None:
            return f"open: {missed}; up to {last.num_seeds} seeds may be used"
        futile = f", and up to {last.num_seeds} had a chance of {chance:.2g}" if last.num_seeds > n else ""
        if seeds_needed is not None and seeds_needed <= n:
            return f"{missed}{futile}; a policy that equals the reference would have passed, with this spread"
        enough = f"more than {MOST_SEEDS}" if seeds_needed is None else str(seeds_needed)
        return f"{missed}{futile}; with this spread a policy that equals the reference would need {enough} seeds"

    def _diverged(self, name: str, look: Look) -> Verdict | None:
        """A failure for good: a run of the policy gave no number, or one of the reference within this look."""
        ours = [seed for seed in self.seeds if math.isnan(self._metrics[name].get(seed, 0.0))]
        used = self.seeds[: look.num_seeds]
        theirs = [seed for seed in used if math.isnan(self._metrics[REFERENCE].get(seed, 0.0))]
        if not ours and not theirs:
            return None
        reason = f"diverged with seed {ours[0]}" if ours else f"the reference diverged with seed {theirs[0]}"
        num_seeds = sum(seed in self._metrics[name] for seed in used)
        return _unmeasured(name, passed=False, num_seeds=num_seeds, reason=f"{reason}, which counts as a failure")


def _waiting(name: str, look: Look) -> Verdict:
    return _unmeasured(name, passed=None, num_seeds=0, reason=f"waits for its first look, at {look.num_seeds} seeds")


def _blocked(name: str, before: Verdict) -> Verdict:
    state = "failed" if before.passed is False else "is still open"
    return _unmeasured(name, passed=None, num_seeds=0, reason=f"not tested: {before.name}, dearer, {state}")


def _sequence_is_over(order: Iterable[str], verdicts: Mapping[str, Verdict]) -> bool:
    """Whether a candidate failed or all passed."""
    first_not_passed = next((verdicts[name] for name in order if verdicts[name].passed is not True), None)
    return first_not_passed is None or first_not_passed.passed is False


def _unmeasured(name: str, *, passed: bool | None, num_seeds: int, reason: str) -> Verdict:
    """A verdict that rests on no difference."""
    return Verdict(
        name=name,
        passed=passed,
        num_seeds=num_seeds,
        mean_difference=math.nan,
        lower_bound=-math.inf,
        shortfall=math.inf,
        p_value=1.0,
        alpha_spent=0.0,
        seeds_needed=None,
        reason=reason,
        spread=math.nan,
        nominal=0.0,
    )
