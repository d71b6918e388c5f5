"""Verification: which runs prove that a policy matches, and what they show. Bookkeeping around `noninferiority`.

A pure state machine: it says which runs it needs, is told their metrics, and gives verdicts. It reads and writes
nothing and draws no random numbers.

Policies are tested one at a time, in the order of the line-up, until one passes; then the cheaper ones, dearest first.
So what a likely policy saves is found with few runs, a failure costs only its own, and none ends a study in which
others have alpha left. `lineup` says what level each is tested at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from subsettune.config import must
from subsettune.errors import ConfigError, StudyError
from subsettune.study.results.candidate import OWN, role_of
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.verdict import Verdict
from subsettune.study.verification.lineup import Entry, Hypothesis, levels, sizes_of
from subsettune.study.verification.noninferiority import (
    BY_CHOICE,
    FUTILE_BELOW,
    MOST_OWN,
    UNSTEADY,
    Array,
    Judgement,
    Look,
    Rules,
    allot,
    judge,
    plan,
    spread_floor,
)
from subsettune.study.verification.power import required_seeds
from subsettune.study.verification.superiority import compare, pair_floor
from subsettune.text import metric_words

REFERENCE = "reference"
FORMAT_VERSION = 2
ALONE = 0.05  # level of a bound that nothing is claimed of


def most_runs(rules: Rules) -> int:
    """Runs of a policy with different seeds that a verification may come to."""
    return MOST_OWN * rules.max_seeds


def statement(verdict: Verdict, rules: Rules) -> str:
    """What the evidence says and what it does not, in plain words, for the bundle and the report."""
    if not math.isfinite(verdict.lower_bound):
        return f"There is no evidence for {verdict.name}: {verdict.reason}"
    worse, better = ("below", "above") if rules.higher_is_better else ("above", "below")
    bound = verdict.lower_bound
    far = metric_words(abs(bound), rules.margin)
    at_worst = f"at least {far} {better}" if bound > 0 else f"no more than {far} {worse}"
    compared = f"{verdict.num_seeds} runs of {verdict.name} beside {verdict.num_references} conventional runs"
    if verdict.is_paired:
        pairs = min(verdict.num_seeds, verdict.num_references)
        compared = f"{pairs} pairs of runs with one seed, of {verdict.name} and of the reference"
    return (
        f"{compared}: its mean "
        f"test metric is {_side(verdict.mean_difference, rules)} the reference's, and at one-sided level "
        f"{verdict.nominal:.3g}{_of_looks(verdict)} {at_worst} it; {rules.margin:g} {worse} it is "
        "tolerated. This covers the noise of training (initial weights, order of examples, augmentation), not the "
        "sampling of the test set: all runs are "
        "judged on the same test examples, and other examples may rank policy and reference otherwise. It takes the "
        "metric of a policy to be roughly symmetric over seeds: one that fails badly in a few runs of a hundred is not "
        "ruled out by so few."
    )


def _of_looks(verdict: Verdict) -> str:
    """That a bound is at less than the level in the tables, which all looks of the policy share."""
    if verdict.is_paired or f"{verdict.level:.3g}" == f"{verdict.nominal:.3g}":
        return ""
    return f" (this look's of the {verdict.level:.3g} of all its looks)"


def _side(difference: float, rules: Rules) -> str:
    if difference == 0:
        return "equal to"
    far = metric_words(abs(difference), rules.margin)
    return f"{far} {'above' if (difference > 0) == rules.higher_is_better else 'below'}"


def _at_worst(bound: float, margin: float) -> str:
    """What an oriented lower bound says of a policy, before `the reference`."""
    if bound == 0:
        return "not worse than"
    far = metric_words(abs(bound), margin)
    return f"at least {far} better than" if bound > 0 else f"at most {far} worse than"


class Verification:
    """The tests of a line-up. The state is the set of recorded metrics; verdicts are a function of it.

    Args:
        line_up: policies by name, in the order in which they are to be tested while none has passed.
        rules: margin, error rate, and seeds.
        reference_flops: of one conventional training.
        first_seed: runs have this seed and those after it, one by one.
        spent: alpha given to earlier verifications of the study: their `alpha_spent`.

    Raises:
        ConfigError: a name is reserved, shares add up to more than 1, or no alpha is left.
    """

    def __init__(
        self, line_up: Mapping[str, Entry], rules: Rules, *, reference_flops: int, first_seed: int, spent: float = 0.0
    ) -> None:
        if REFERENCE in line_up:
            raise ConfigError(must("name of a candidate", "another", REFERENCE, "It stands for the conventional runs."))
        total = math.fsum(entry.share for entry in line_up.values())
        if total > 1 + 1e-9:
            raise ConfigError(must("shares of alpha", "1 at most, all together", total))
        self.line_up = MappingProxyType(dict(line_up))
        self.rules, self.reference_flops, self.first_seed, self.spent = rules, reference_flops, first_seed, spent
        self._level = allot(rules.alpha, spent)
        self._twin: tuple[str, str] | None = None  # name of the control, and of the candidate that it is the twin of
        self._controls: dict[str, str] = {}  # name -> candidate that it is held against
        self._metrics: dict[str, dict[int, float]] = {name: {} for name in (REFERENCE, *self.line_up)}

    # What there is.

    @property
    def order(self) -> tuple[str, ...]:
        """The names of the line-up."""
        return tuple(self.line_up)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the twin and the controls, in the order in which they were added."""
        return (*((self._twin[0],) if self._twin else ()), *self._controls)

    @property
    def alpha_spent(self) -> float:
        """Alpha given to this verification and those before it: `spent` of the next one. All of it, used or not."""
        return self.spent + self._level

    def add_twin(self, name: str, of: str) -> None:
        """Test plain training of a candidate's compute: whether it matches, too, and whether the candidate is better.

        Raises:
            ConfigError: the name is taken, the candidate has no twin in the line-up, or another has one already.
        """
        if self._twin == (name, of):
            return
        self._refuse_taken(name)
        if not self.line_up[of].has_twin or self._twin is not None:
            raise ConfigError(must("twin", "one, of a candidate that has a twin in the line-up", of))
        self._twin = (name, of)
        self._metrics[name] = {}

    def add_control(self, name: str, of: str) -> None:
        """Hold one more policy against a candidate, for information. Adding it again changes nothing.

        Raises:
            ConfigError: the name is taken.
        """
        if self._controls.get(name) == of:
            return
        self._refuse_taken(name)
        self._controls[name] = of
        self._metrics[name] = {}

    def _refuse_taken(self, name: str) -> None:
        if name in self._metrics:
            raise ConfigError(must("name of a control", "no other policy's", name))

    def record(self, name: str, seed: int, metric: float) -> None:
        """Take in the test metric of a run, asked for or not. The same again changes nothing.

        Args:
            name: of a policy, or "reference".
            seed: of the run.
            metric: as measured, not oriented. NaN or infinite: the run diverged, and the candidate fails for good.

        Raises:
            ConfigError: name or seed is unknown.
            StudyError: another metric was recorded for this run.
        """
        if name not in self._metrics:
            raise ConfigError(must("name", f"one of {', '.join(self._metrics)}", name))
        last = self.first_seed + most_runs(self.rules) - 1
        if not self.first_seed <= seed <= last:
            raise ConfigError(must("seed", f"from {self.first_seed} to {last}", seed))
        value = float(metric) if math.isfinite(metric) else math.nan
        known = self._metrics[name].setdefault(int(seed), value)
        if known != value and not (math.isnan(known) and math.isnan(value)):
            raise StudyError(
                f"metric of {name} with seed {seed} must be {known!r}, as recorded before, got {value!r}. "
                "The two runs did not train the same policy on the same data: start a new study."
            )

    # What is wanted.

    def needed(self) -> tuple[tuple[str, int], ...]:
        """Runs (name, seed) to do now, in parallel if there is room; empty when finished."""
        verdicts = self.verdicts
        current = self._current(verdicts)
        if current is not None:
            look = next(look for look in self._looks(current, 1.0) if look.num_seeds > verdicts[current].num_seeds)
            return self._missing({REFERENCE: look.num_references, current: look.num_seeds})
        contrasts = self.contrasts
        return self._missing({name: self._pairs_wanted(name, verdicts, contrasts) for name in self.controls})

    def ahead(self) -> tuple[tuple[str, int], ...]:
        """Runs (name, seed) that `needed` will probably name next, for slots that would stand empty.

        More of the policy under test, where the look that is waited for may only end its test, and the runs so far do
        not look like an end: the next one has as many runs of the reference.

        They must not be recorded before they are needed: a verdict is that of the latest look whose runs are there.
        """
        verdicts = self.verdicts
        current = self._current(verdicts)
        if current is None:
            return ()
        looks = self._looks(current, 1.0)
        place = next(i for i, look in enumerate(looks) if look.num_seeds > verdicts[current].num_seeds)
        goes_on = looks[place].nominal == 0 and self._lies_well_within(current)
        return self._missing({current: looks[place + 1].num_seeds}) if goes_on else ()

    def _lies_well_within(self, name: str) -> bool:
        """Whether the runs so far lie, on average, in the better half of the margin."""
        own, theirs = ([*self._metrics[one].values()] for one in (name, REFERENCE))
        if not own or not theirs:
            return False
        sign = 1.0 if self.rules.higher_is_better else -1.0
        return sign * float(np.mean(own) - np.mean(theirs)) > -self.rules.margin / 2

    def _missing(self, wanted: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        runs = ((who, seed) for who, number in wanted.items() for seed in self._seeds(number))
        return tuple(run for run in runs if run[1] not in self._metrics[run[0]])

    def _seeds(self, number: int) -> range:
        return range(self.first_seed, self.first_seed + number)

    def _current(self, verdicts: Mapping[str, Verdict]) -> str | None:
        """The policy under test: the first undecided one, or once some have passed the dearest of the cheaper ones."""
        open_ = [name for name in self.order if verdicts[name].passed is None and verdicts[name].level > 0]
        best = self._cheapest_passed(verdicts)
        if best is None:
            return next(iter(open_), None)
        cheaper = [name for name in open_ if self._cost(name) < self._cost(best)]
        return max(cheaper, key=self._cost, default=None)

    def _cost(self, name: str) -> int:
        return self.line_up[name].cost_flops

    def _cheapest_passed(self, verdicts: Mapping[str, Verdict]) -> str | None:
        passed = [name for name in self.order if verdicts[name].passed]
        return min(passed, key=lambda name: (self._cost(name), name), default=None)

    # What it shows.

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """Of the line-up, in its order, then of the twin; each at the level that those which passed have left it."""
        names = {Hypothesis(name): name for name in self.line_up}
        if self._twin is not None:
            names[Hypothesis(self._twin[1], is_twin=True)] = self._twin[0]
        kept: dict[Hypothesis, Verdict] = {}
        while True:
            having = levels(self.line_up, self._level, kept)
            left = {one: self._verdict(name, having.get(one, 0.0)) for one, name in names.items() if one not in kept}
            fresh = {one: verdict for one, verdict in left.items() if verdict.passed}
            kept |= fresh
            if not fresh:
                return MappingProxyType({name: (kept | left)[one] for one, name in names.items()})

    @property
    def contrasts(self) -> Mapping[str, Contrast]:
        """Of the twin and the controls, by name: how the policy that they were made from differs from each."""
        twin = {} if self._twin is None else {self._twin[0]: self._contrast(*self._twin, is_claim=True)}
        own = {c: self._contrast(c, of, is_claim=_is_own(c)) for c, of in self._controls.items()}
        return MappingProxyType(twin | own)

    @property
    def winner(self) -> str | None:
        """The cheapest of the line-up that passed so far; final once `finished`."""
        return self._cheapest_passed(self.verdicts)

    @property
    def finished(self) -> bool:
        """Whether every verdict is final and no run is needed."""
        return not self.needed() and self._current(self.verdicts) is None

    def _verdict(self, name: str, level: float) -> Verdict:
        """That of the latest look whose runs are there.

        An earlier one does not count any more, though a level that has risen since would let it pass.
        """
        if level <= 0:
            return _unmeasured(name, 0.0, "not tested: no alpha is left for it")
        looks = self._looks(name, level)
        verdict = _unmeasured(name, level, f"waits for its first look, at {looks[0].num_seeds} seeds")
        for look in looks:
            if (diverged := self._diverged(name, look, level)) is not None:
                return diverged
            own, theirs = self._oriented(name, look.num_seeds), self._oriented(REFERENCE, look.num_references)
            if own is None or theirs is None:
                return verdict
            verdict = self._judged(name, own, theirs, look, level)
        return verdict

    def _looks(self, name: str, level: float) -> tuple[Look, ...]:
        is_twin = self._twin is not None and name == self._twin[0]
        entry = self.line_up[self._twin[1] if is_twin and self._twin else name]
        return plan(level, sizes_of(entry, self.rules, self.reference_flops, is_twin=is_twin))

    def _oriented(self, name: str, number: int) -> Array | None:
        """The first metrics of a policy, higher is better; None while one is missing."""
        known = self._metrics[name]
        if any(seed not in known for seed in self._seeds(number)):
            return None
        sign = 1.0 if self.rules.higher_is_better else -1.0
        return sign * np.array([known[seed] for seed in self._seeds(number)], dtype=np.float64)

    def _judged(self, name: str, own: Array, theirs: Array, look: Look, level: float) -> Verdict:
        """The verdict at a look whose runs are all there; None passed if more seeds have a chance."""
        last = self._looks(name, level)[-1]
        scale = max(float(np.abs(own).max()), float(np.abs(theirs).max()), self.rules.margin)
        result = judge(own, theirs, look, last, self.rules, floor=spread_floor(self.rules.resolution, scale))
        mean, chance = float(result.mean), float(result.chance)
        level_of_bound = look.nominal or last.nominal  # a look that may only end the test has no bound of its own
        share = BY_CHOICE if result.is_paired else 1.0
        bound = mean - float(stats.t.isf(level_of_bound / share, result.freedom) * result.error)
        passed = True if result.passed else (None if chance >= FUTILE_BELOW else False)
        spreads = float(own.std(ddof=1)), float(theirs.std(ddof=1))
        return Verdict(
            name=name,
            passed=passed,
            num_seeds=look.num_seeds,
            num_references=look.num_references,
            mean_difference=mean,
            lower_bound=bound,
            shortfall=max(0.0, -self.rules.margin - bound),
            p_value=float(result.p_value),
            level=level,
            alpha_spent=look.alpha_spent,
            seeds_needed=None if passed else self._seeds_needed(spreads, passed, level),
            reason=self._reason(passed, look, last, bound, result),
            spread=float(result.spread),
            reference_spread=float(result.reference_spread),
            nominal=level_of_bound,
            is_paired=bool(result.is_paired),
        )

    def _seeds_needed(self, spreads: tuple[float, float], passed: bool | None, level: float) -> int | None:
        """While open, at its level; once failed, at that of an extension, the only way to go on."""
        if passed is None:
            return required_seeds(self.rules, spreads, level)
        share = max(entry.share for entry in self.line_up.values())
        return required_seeds(self.rules, spreads, share * allot(self.rules.alpha, self.alpha_spent))

    def _reason(self, passed: bool | None, look: Look, last: Look, bound: float, result: Judgement) -> str:
        runs, margin = f"{look.num_seeds} seeds", self.rules.margin
        runs += f" ({min(look.size)} pairs)" if result.is_paired else ""
        if passed:
            return f"passed with {runs}: {_at_worst(bound, margin)} the reference, {margin:g} worse allowed"
        if look.nominal == 0 and passed is None:
            cap = f"up to {last.num_seeds} seeds may be used"
            return f"open: a look at so few seeds, {look.num_seeds}, may only end the test; {cap}"
        if result.is_unsteady and bound > -margin:
            ratio = float(result.spread) / max(float(result.reference_spread), self.rules.usual_spread)
            missed = f"scatters {ratio:.2g} times as much as the reference with {runs}, and {UNSTEADY:g} are allowed"
        else:
            missed = f"missed by {metric_words(-margin - bound, margin)} with {runs}"
        if passed is None:
            return f"open: {missed}; up to {last.num_seeds} seeds may be used"
        more = look.size != last.size
        return f"{missed}{f', and up to {last.num_seeds} had a chance of {float(result.chance):.2g}' if more else ''}"

    def _diverged(self, name: str, look: Look, level: float) -> Verdict | None:
        """A failure for good: a run of the policy gave no number, or one of the reference within this look."""
        ours = sorted(seed for seed, metric in self._metrics[name].items() if math.isnan(metric))
        used = self._seeds(look.num_references)
        theirs = [seed for seed in used if math.isnan(self._metrics[REFERENCE].get(seed, 0.0))]
        if not ours and not theirs:
            return None
        reason = f"diverged with seed {ours[0]}" if ours else f"the reference diverged with seed {theirs[0]}"
        num_seeds = sum(seed in self._metrics[name] for seed in self._seeds(look.num_seeds))
        return _unmeasured(name, level, f"{reason}, which counts as a failure", passed=False, num_seeds=num_seeds)

    # Twin and controls.

    def _contrast(self, control: str, of: str, *, is_claim: bool) -> Contrast:
        looks = self._pair_sizes(of) if is_claim else (self.rules.seeds,)
        level = self._level / sum(entry.has_twin for entry in self.line_up.values()) if is_claim else ALONE
        number = next((n for n in reversed(looks) if self._has_pairs(control, of, n)), 0)
        ours, theirs = self._oriented(of, number), self._oriented(control, number)
        if ours is None or theirs is None or not number or not np.isfinite(ours - theirs).all():
            shown = False if number and is_claim else None  # a run diverged
            return Contrast(
                policy=of,
                control=control,
                num_seeds=number,
                mean_difference=math.nan,
                lower_bound=-math.inf,
                level=level,
                is_claim=is_claim,
                shown=shown,
            )
        scale = max(float(np.abs(ours).max()), float(np.abs(theirs).max()))
        found = compare(ours - theirs, looks, level, pair_floor(self.rules.resolution, scale))
        return Contrast(
            policy=of,
            control=control,
            num_seeds=found.num_pairs,
            mean_difference=found.mean,
            lower_bound=found.lower_bound,
            level=found.level,
            is_claim=is_claim,
            shown=found.shown if is_claim else None,
        )

    def _has_pairs(self, control: str, of: str, number: int) -> bool:
        return self._oriented(control, number) is not None and self._oriented(of, number) is not None

    def _pair_sizes(self, of: str) -> tuple[int, ...]:
        """Looks at the pairs of a candidate and its twin: as many as there are runs of the candidate, at most."""
        own = sum(seed in self._metrics[of] for seed in self._seeds(most_runs(self.rules)))
        return (self.rules.seeds, own) if own > self.rules.seeds else (self.rules.seeds,)

    def _pairs_wanted(self, name: str, verdicts: Mapping[str, Verdict], contrasts: Mapping[str, Contrast]) -> int:
        """Runs that a twin or a control needs now, those that it has included."""
        contrast = contrasts[name]
        if contrast.num_seeds == 0 or (name in self._controls and not _is_own(name)):
            return self.rules.seeds
        verdict = verdicts.get(name)  # without alpha none decides
        is_open = contrast.shown is None or (verdict is not None and verdict.passed is None and verdict.level > 0)
        return self._pair_sizes(contrast.policy)[-1] if is_open else contrast.num_seeds

    # On disk.

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values for JSON. A diverged run's metric is null."""
        runs = [
            {"name": name, "seed": seed, "metric": None if math.isnan(value) else value}
            for name, metrics in self._metrics.items()
            for seed, value in metrics.items()
        ]
        return {
            "version": FORMAT_VERSION,
            "line_up": [{"name": name, **dataclasses.asdict(entry)} for name, entry in self.line_up.items()],
            "rules": dataclasses.asdict(self.rules),
            "reference_flops": self.reference_flops,
            "first_seed": self.first_seed,
            "twin": None if self._twin is None else list(self._twin),
            "controls": dict(self._controls),
            "spent": self.spent,
            "runs": runs,
            "alpha_spent": self.alpha_spent,
            "winner": self.winner,
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Verification:
        """Restore what `to_mapping` gave. Verdicts are derived anew from the recorded runs.

        Raises:
            StudyError: another version began it, a part is missing or wrong, or the runs give another winner.
        """
        if mapping.get("version") != FORMAT_VERSION:
            raise StudyError(
                f"{must('version of the verification', str(FORMAT_VERSION), mapping.get('version'))} Go on with the "
                "version of subsettune that began it, or choose another --run-id; `show` and `report` still read it."
            )
        try:
            line_up = {
                entry["name"]: Entry(**{k: v for k, v in entry.items() if k != "name"}) for entry in mapping["line_up"]
            }
            made = cls(
                line_up,
                Rules(**mapping["rules"]),
                reference_flops=mapping["reference_flops"],
                first_seed=mapping["first_seed"],
                spent=mapping["spent"],
            )
            if mapping["twin"] is not None:
                made.add_twin(*mapping["twin"])
            for name, of in mapping["controls"].items():
                made.add_control(name, of)
            for run in mapping["runs"]:
                made.record(run["name"], run["seed"], math.nan if run["metric"] is None else run["metric"])
            winner = mapping["winner"]
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise StudyError(f"The recorded verification is damaged: {error}. Restore it from a copy.") from error
        if made.winner != winner:
            raise StudyError(must("recorded winner", f"{made.winner!r}, as its runs say", winner, "Restore a copy."))
        return made


def _is_own(control: str) -> bool:
    """Whether a control is plain training by the settings of the policy that it is held against."""
    return role_of(control) == OWN


def _unmeasured(name: str, level: float, reason: str, *, passed: bool | None = None, num_seeds: int = 0) -> Verdict:
    """A verdict that rests on no difference."""
    return Verdict(
        name=name,
        passed=passed,
        num_seeds=num_seeds,
        num_references=0,
        mean_difference=math.nan,
        lower_bound=-math.inf,
        shortfall=math.inf,
        p_value=1.0,
        level=level,
        alpha_spent=0.0,
        seeds_needed=None,
        reason=reason,
        spread=math.nan,
        reference_spread=None,
        nominal=0.0,
    )
