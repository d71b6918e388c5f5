"""A made-up study: views of every state that a report may meet, with numbers of a plausible size."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from statistics import fmean, stdev
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.facts import ChainLayer, TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import Phase, Policy, Soup, conventional
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.manifest import PAIRED_VERSION, DataOrigin, Manifest, RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.summarise import summarised
from subsettune.study.results.verdict import Verdict
from subsettune.study.results.view import StudyRecords, StudyView
from subsettune.study.spec.components import Component, neutralised
from subsettune.study.spec.definition import Study
from subsettune.study.spec.point_to_policy import from_coordinates
from subsettune.study.verification.verification import FORMAT_VERSION
from subsettune.study.verification.winner import exported
from subsettune.train.result import CurvePoint, PhaseSpent

STATES = (
    "empty",
    "reference",
    "no_trials",
    "only_failed",
    "search",
    "interrupted",
    "verification",
    "subset_wins",
    "random_wins",
    "full_wins",
    "equal_wins",
    "not_shown",
    "none_passed",
    "before",
)
FACTS = TaskFacts(
    num_examples=1257,
    num_outputs=10,
    num_parameters=4810,
    forward_flops=9472,
    backward_flops=10752,
    reference_passes=30,
    num_features=64,
    num_classes=10,
    smallest_class=122,
    exits=FrozenDict({"1": 8192, "3": 9472}),
    chain=(
        ChainLayer(name="1", width=64, forward_flops=8192, backward_flops=8192),
        ChainLayer(name="3", width=10, forward_flops=1280, backward_flops=2560),
    ),
)
FLOPS_PER_S = 4e9
KCENTER = Component(kind="selector", name="kcenter")
SUBSET_SLOWNESS = 1.5  # seconds per FLOP on a subset, over those on all data
VERIFIED = ("subset_wins", "random_wins", "full_wins", "equal_wins", "not_shown", "none_passed", "before")
DIFFERENCES = {  # of the true means on the test split to the reference's, by state and candidate
    "subset_wins": {"candidate-1": 0.001, "equal": -0.011, "random": -0.012},
    "random_wins": {"candidate-1": 0.001, "equal": -0.011},
    "full_wins": {"candidate-1": -0.02, "candidate-2": 0.001},
    "equal_wins": {"candidate-1": -0.0055, "equal": -0.0055},
    "not_shown": {"candidate-1": -0.004, "equal": -0.0075},
    "none_passed": {"candidate-1": -0.0135, "candidate-2": -0.014, "recipe": -0.02},
    "before": {"shorter": -0.002, "candidate-1": 0.001, "random": -0.02},
}
NOISE = 0.003  # of a test metric over seeds
LEVELS = {"candidate-1": 0.016, "candidate-2": 0.012, "recipe": 0.012, "equal": 0.008}
SAMPLED = SampledDifference(
    mean=0.0025,
    lower=-0.0061,
    interval=(-0.0079, 0.0129),
    alpha=0.05,
    standard_error=0.0052,
    seeds_error=0.0019,
    num_examples=360,
    num_seeds=(5, 5),
    per_example=0.0087,
    per_seeds=3e-6,
)
CRITICAL = 2.5  # standard errors from a mean to its bound
SPACE = {
    "budget": {"log": [0.02, 0.6]},
    "arm": {"choice": ["full", "subset"]},
    "switch": {"uniform": [0.05, 0.9]},
    "subset_share": {"log": [0.02, 0.5]},
    "selector": {"choice": ["random", "stratified", "kcenter", "my_selectors.own:Distances"]},
    "order": {"choice": ["uniform", "sift"]},
    "transition": {"choice": ["keep", "reset_optimizer", "shrink_perturb"]},
    "soup": {"choice": [0, 0.3]},
    "lr": {"log": [0.02, 0.5]},
}


def make_view(state: str = "subset_wins", *, metric: str = "accuracy", seed: int = 0, trials: int = 30) -> StudyView:
    """A study in one of `STATES`; `metric` `mse` makes it a regression, where lower is better."""
    return _Maker(state, metric, random.Random(seed), trials).view()


def with_own(view: StudyView, difference: float = -0.004, *, shown: bool = False) -> StudyView:
    """`subset_wins` in which plain training was beaten by other settings, and then tried by the winner's own.

    Args:
        view: of that state.
        difference: of its means to the reference's, higher is better.
        shown: whether the winner is better than that, too.
    """
    sign, winner = 1 if view.study.task.higher_is_better else -1, view.candidates["candidate-1"].policy
    plain, metrics = Policy(phases=(Phase(passes=winner.passes),), recipe=winner.recipe), view.test_metrics("reference")
    other = Policy(phases=plain.phases, recipe=FrozenDict({**plain.recipe, "lr": 0.3}))
    first = view.manifest.rounds[0]
    contrast = dataclasses.replace(
        first.contrasts["equal"], control="own", mean_difference=0.001 - difference, lower_bound=-0.002, shown=shown
    )
    own = Candidate.named("own", policy=plain, cost_flops=plain.cost(FACTS))
    equal = dataclasses.replace(first.candidates["equal"], policy=other)
    runs = [dataclasses.replace(r, policy=other) if r.candidate == "equal" else r for r in view.verification]
    runs += [
        dataclasses.replace(run, policy=plain, candidate="own", test_metric=metrics[run.seed] + sign * difference)
        for run in runs
        if run.candidate == "equal"
    ]
    candidates = {**first.candidates, "equal": equal, "own": own}
    one = dataclasses.replace(first, candidates=candidates, contrasts={**first.contrasts, "own": contrast})
    manifest = dataclasses.replace(view.manifest, rounds=(one, *view.manifest.rounds[1:]))
    return summarised(
        dataclasses.replace(view, manifest=manifest, candidates=manifest.candidates, verification=tuple(runs))
    )


def make_study(metric: str = "accuracy", trials: int = 30) -> Study:
    """The input of the made-up study."""
    recipe = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 30}
    task = {
        "data": {"source": "digits"},
        "split": {"validation": 0.1, "test": 0.2, "seed": 0},
        "model": {"name": "mlp", "hidden": [64]},
        "recipe": recipe,
        "metric": metric,
        "tolerance": 0.01,
    }
    return config.build(Study, {"task": task, "space": SPACE, "study": {"trials": trials, "parallel": 2}})


class _Maker:
    def __init__(self, state: str, metric: str, rng: random.Random, trials: int) -> None:
        assert state in STATES, state
        self.state, self.rng, self.study = state, rng, make_study(metric, trials)
        self.reference = [self._run(f"reference-seed-{s}", "reference", conventional(FACTS), s) for s in range(5)]
        self.trials_so_far: list[RunRecord] = []
        self.trials = [self._trial(number) for number in range(trials)]
        self.candidates: dict[str, Candidate] = {}
        self.verification: list[RunRecord] = []
        self.verdicts: dict[str, Verdict] = {}
        self.contrasts: dict[str, Contrast] = {}
        self.winner: str | None = None
        self.ablation_runs: list[RunRecord] = []
        self.ablation: dict[Component, AblationResult] = {}

    # -- runs

    def _error(self, policy: Policy) -> float:
        """Validation error that a policy ends with: falls with compute, faster with a good subset phase."""
        budget = policy.passes / FACTS.reference_passes
        lr = policy.recipe.get("lr", 0.1)
        good = policy.arm == "subset" and self.state != "full_wins"
        slack = {"none_passed": 0.03, "subset_wins": 0.004}.get(self.state, 0.0)
        share = policy.phases[0].share
        subset = 0.0002 * abs(math.log(share / 0.12)) / budget**0.5 if policy.arm == "subset" else 0.0
        return (
            0.027
            + slack * (1 - budget) ** 4
            + (0.0003 if good else 0.0015) / budget
            + subset
            + 0.01 * (math.log10(lr / 0.12)) ** 2
        )

    def _value(self, error: float) -> float:
        return 1 - error if self.study.task.higher_is_better else error

    def _curve(self, policy: Policy, error: float, upto: float = 1.0) -> tuple[CurvePoint, ...]:
        points, cost = [], policy.cost(FACTS)
        switch = policy.phases[0].passes / policy.passes if len(policy.phases) > 1 else 0.0
        for i in range(1, 21):
            share = i / 20
            if share > upto + 1e-9:
                break
            excess = 0.9 * math.exp(-share * policy.passes / 0.3) * (1 - share) + 0.06 * (1 - share) ** 2
            excess += 0.03 * (share <= switch)
            value = min(0.95, error + excess + abs(self.rng.gauss(0, 0.003)) * (1 - share))
            flops = round(share * cost)
            point = CurvePoint(
                share=share,
                flops=flops,
                phase=int(share > switch and len(policy.phases) > 1),
                metric=self._value(value),
                loss=3 * value,
                seconds=_seconds(policy, share),
            )
            points.append(point)
        return tuple(points)

    def _run(self, name: str, role: str, policy: Policy, seed: int, **more: Any) -> RunRecord:
        error = max(0.001, self._error(policy) + self.rng.gauss(0, 0.003))
        cost, share = policy.cost(FACTS), more.get("share_used", 1.0)
        forward = round(share * cost * FACTS.forward_flops / FACTS.example_flops)
        backward = round(share * cost * FACTS.backward_flops / FACTS.example_flops)
        finished = more.get("cause", "finished") == "finished"
        plain: dict[str, Any] = {
            "name": name,
            "role": role,
            "policy": policy,
            "seed": seed,
            "cause": "finished",
            "metric": self._value(error) if finished else None,
            "cost_flops": cost,
            "ledger": Ledger(forward=forward, backward=backward, evaluate=cost // 50),
            "train_s": _seconds(policy, share),
            "phases": _phases(policy, share),
            "curve": self._curve(policy, error, share),
        }
        return RunRecord(**{**plain, **more})

    def _trial(self, number: int) -> RunRecord:
        rng = self.rng
        arm = "full" if number < 3 or rng.random() < 0.35 else "subset"
        low, high = (0.05, 0.55) if number < 10 else (0.03, 0.2)
        coordinates: dict[str, Any] = {"arm": arm, "budget": low * (high / low) ** rng.random()}
        coordinates["lr"] = 0.03 * 12 ** rng.random()
        if arm == "subset":
            coordinates["switch"] = rng.uniform(0.1, 0.85)
            coordinates["subset_share"] = 0.03 * 12 ** rng.random()
            coordinates["selector"] = rng.choice(["random", "stratified", "kcenter"])
            coordinates["transition"] = rng.choice(["keep", "shrink_perturb"])
            if coordinates["transition"] == "shrink_perturb":
                coordinates["shrink_perturb.shrink"] = 0.6
            coordinates["order"] = "sift" if number % 5 == 4 else "uniform"
            coordinates["soup"] = 0
        more: dict[str, Any] = {"number": number, "coordinates": FrozenDict(coordinates)}
        policy = from_coordinates(coordinates, FACTS)
        if number in (12, 20) and self.state not in ("only_failed",):  # the same policy again, another seed
            best = self._best_of(self.trials_so_far)
            policy = best.policy
            more |= {"coordinates": best.coordinates, "confirms": best.number}
        elif self.state == "only_failed" or number == 17:
            message = 'Trial failed in phase "full" at pass 3.2 on node <gpu-3>: CUDA out of memory.'
            more |= {"cause": "failed", "message": message, "share_used": 0.4, "log": "/tmp/x/stderr.txt"}
        elif number == 8:
            more |= {
                "cause": "diverged",
                "message": "The loss left the finite numbers at update 12.",
                "share_used": 0.1,
            }
        elif self._error(policy) > 0.052:
            more |= {"cause": "stopped", "message": "It could not reach the target any more.", "share_used": 0.45}
        record = self._run(f"trial-{number:04d}", "trial", policy, 1000 + number, **more)
        self.trials_so_far = [*self.trials_so_far, record]
        return record

    def _target(self) -> float:
        values = [r.metric for r in self.reference]
        return self.study.task.target(sum(v for v in values if v is not None) / len(values))

    def _feasible(self, record: RunRecord) -> bool:
        if record.metric is None or record.cause != "finished":
            return False
        target = self._target()
        return record.metric >= target if self.study.task.higher_is_better else record.metric <= target

    def _best_of(self, records: list[RunRecord], arm: str | None = None) -> RunRecord:
        of_arm = [r for r in records if arm in (None, r.policy.arm)]
        feasible = [r for r in of_arm if self._feasible(r)] or of_arm
        return min(feasible, key=lambda r: r.cost_flops)

    # -- verification

    def _verify(self) -> None:
        """Made up, with the numbers that a verification would have: reports do not hang on how it chooses its looks."""
        full, subset = self._best_of(self.trials, "full"), self._best_of(self.trials, "subset")
        selector = "random" if self.state == "random_wins" else "kcenter"
        subset = dataclasses.replace(subset, policy=_with_selector(subset.policy, selector))
        recipe = Policy(phases=(Phase(passes=0.9 * FACTS.reference_passes),))
        plain = Policy(phases=(Phase(passes=subset.policy.passes),), recipe=subset.policy.recipe)
        control = _with_selector(subset.policy, "random")
        found = {"candidate-1": subset, "candidate-2": full}
        made = {"recipe": recipe, "equal": plain, "random": control}
        self.candidates = {
            **{
                name: Candidate.named(name, policy=one.policy, trials=(one.number,), cost_flops=one.cost_flops)
                for name, one in found.items()
            },
            **{
                name: Candidate.named(name, policy=policy, cost_flops=policy.cost(FACTS))
                for name, policy in made.items()
                if name == "recipe" or name in DIFFERENCES.get(self.state, {})
            },
        }
        for name in ("reference", *DIFFERENCES.get(self.state, {"candidate-1": 0.0})):
            for seed in range(self._num_seeds(name)):
                self._verify_one(name, seed)
        self.verdicts = {name: self._verdict(name) for name in self.candidates if name != "random"}
        self.contrasts = {name: self._contrast(name) for name in ("equal", "random") if name in self.candidates}
        passed = [name for name in ("candidate-1", "candidate-2") if self.verdicts[name].passed]
        self.winner = min(passed, key=lambda name: self.candidates[name].cost_flops, default=None)

    def _num_seeds(self, name: str) -> int:
        return 20 if (self.state, name) == ("equal_wins", "candidate-1") else 5

    def _verify_one(self, name: str, seed: int) -> None:
        sign = 1 if self.study.task.higher_is_better else -1
        difference = DIFFERENCES.get(self.state, {}).get(name, 0.0)
        test = self._value(0.035) + sign * (difference + self.rng.gauss(0, NOISE))
        policy = conventional(FACTS) if name == "reference" else self.candidates[name].policy
        known = next((run for run in self.reference if name == "reference" and run.seed == seed), None)
        run = known or self._run("", "verification", policy, seed)
        again: dict[str, Any] = {"name": f"verify-{name}-seed-{seed}", "role": "verification", "candidate": name}
        self.verification.append(dataclasses.replace(run, **again, test_metric=test))

    def _tested(self, name: str) -> list[float]:
        """Test metrics by seed, oriented."""
        sign = 1 if self.study.task.higher_is_better else -1
        return [sign * (run.test_metric or 0.0) for run in self.verification if run.candidate == name]

    def _verdict(self, name: str) -> Verdict:
        own, theirs, tolerance = self._tested(name), self._tested("reference"), self.study.task.tolerance
        if not own:
            return dataclasses.replace(not_tested(name), level=LEVELS[name], reason="waits for its first look")
        mean = fmean(own) - fmean(theirs)
        error = math.hypot(stdev(own) / math.sqrt(len(own)), stdev(theirs) / math.sqrt(len(theirs)))
        bound = mean - CRITICAL * error
        passed = bound > -tolerance
        seeds = f"{len(own)} seeds"
        return Verdict(
            name=name,
            passed=passed,
            num_seeds=len(own),
            num_references=len(theirs),
            mean_difference=mean,
            lower_bound=bound,
            shortfall=max(0.0, -tolerance - bound),
            p_value=0.003 if passed else 0.4,
            level=LEVELS[name],
            alpha_spent=0.5 * LEVELS[name],
            seeds_needed=None if passed else 24,
            reason=f"passed with {seeds}" if passed else f"missed by {-tolerance - bound:.4g} with {seeds}",
            spread=stdev(own),
            reference_spread=stdev(theirs),
            nominal=0.5 * LEVELS[name],
        )

    def _contrast(self, control: str) -> Contrast:
        differences = [a - b for a, b in zip(self._tested("candidate-1"), self._tested(control), strict=False)]
        mean, is_claim = fmean(differences), control == "equal"
        bound = mean - CRITICAL * stdev(differences) / math.sqrt(len(differences))
        return Contrast(
            policy="candidate-1",
            control=control,
            num_seeds=len(differences),
            mean_difference=mean,
            lower_bound=bound,
            level=0.04,
            is_claim=is_claim,
            shown=bound > 0 if is_claim else None,
        )

    def _verify_before(self) -> None:
        """As version 0.1 did: pairs with one seed, dearest first, a random control at the end."""
        shorter, subset = self._best_of(self.trials, "full"), self._best_of(self.trials, "subset")
        subset = dataclasses.replace(subset, policy=_with_selector(subset.policy, "kcenter"))
        control = _with_selector(subset.policy, "random")
        named = {"shorter": shorter, "candidate-1": subset}
        self.candidates = {
            name: Candidate.named(name, policy=r.policy, trials=(r.number,), cost_flops=r.cost_flops)
            for name, r in sorted(named.items(), key=lambda item: -item[1].cost_flops)
        }
        self.candidates["random"] = Candidate(role="random", policy=control, cost_flops=control.cost(FACTS))
        for name in ("reference", *self.candidates):
            for reference in self.reference:
                self._verify_one(name, reference.seed)
        self.verdicts = {name: self._paired_verdict(name) for name in self.candidates}

    def _paired_verdict(self, name: str) -> Verdict:
        """As a manifest of version 0.1 has it."""
        sign = 1 if self.study.task.higher_is_better else -1
        own, theirs = (
            [run.test_metric or 0.0 for run in self.verification if run.candidate == who] for who in (name, "reference")
        )
        differences = [sign * (a - b) for a, b in zip(own, theirs, strict=True)]
        n, tolerance = len(differences), self.study.task.tolerance
        mean = sum(differences) / n
        spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
        bound = mean - 2.13 * spread / math.sqrt(n)
        return Verdict.from_mapping(
            {
                "name": name,
                "passed": bound > -tolerance,
                "num_seeds": n,
                "mean_difference": mean,
                "lower_bound": bound,
                "shortfall": max(0.0, -tolerance - bound),
                "p_value": 0.003 if bound > -tolerance else 0.4,
                "alpha_spent": 0.02,
                "seeds_needed": None if bound > -tolerance else 24,
                "reason": "" if bound > -tolerance else "The bound lies below the margin.",
                "spread": spread,
                "nominal": 0.02,
            }
        )

    # -- comparison

    def _compare(self) -> None:
        """K-center and the soup pay in one state and not in another; some show nothing, some have no result."""
        gain = {"subset_wins": 0.02, "full_wins": -0.02}.get(self.state, 0.0)
        trials = [t for t in self.trials if t.policy.arm == "subset"]
        base = self._best_of(trials).policy
        first, last = base.phases[0], base.phases[-1]
        sift = [dataclasses.replace(phase, order="sift") for phase in base.phases]
        soup = [dataclasses.replace(first, passes=first.passes / 4, selector="random", soup=Soup()), *base.phases]
        self._keep(self._compare_one("selector", "stratified", _with_selector(base, "stratified"), 0.0))
        self._keep(self._compare_one("selector", "kcenter", _with_selector(base, "kcenter"), gain))
        mine = _with_selector(base, "my_selectors.own:Distances")
        lost = self._row("selector", "my_selectors.own:Distances", mine, verdict="no_result")
        self._keep(dataclasses.replace(lost, reason="its random baseline diverged with seed 0"))
        self._keep(self._compare_one("order", "sift", dataclasses.replace(base, phases=tuple(sift)), 0.0))
        why = "the search finished no subset policy"
        self._keep(AblationResult(kind="transition", name="reset_optimizer", verdict="not_tried", reason=why))
        entered = dataclasses.replace(last, transition="shrink_perturb", transition_options=FrozenDict({"shrink": 0.6}))
        perturbed = dataclasses.replace(base, phases=(*base.phases[:-1], entered))
        self._keep(self._compare_one("transition", "shrink_perturb", perturbed, 0.0))
        self._keep(self._compare_one("soup", "soup", dataclasses.replace(base, phases=tuple(soup)), gain))

    def _keep(self, row: AblationResult) -> None:
        self.ablation[row.component] = row

    def _row(self, kind: str, name: str, policy: Policy, **more: Any) -> AblationResult:
        baseline = neutralised(policy, kind)
        return AblationResult(
            kind=kind,
            name=name,
            policy=policy,
            baseline=baseline,
            trials=(7,) if name == "kcenter" else (),
            cost_flops=policy.cost(FACTS),
            baseline_cost_flops=baseline.cost(FACTS),
            selection_flops=0 if kind == "order" else policy.cost(FACTS) // 8,
            **more,
        )

    def _compare_one(self, kind: str, name: str, policy: Policy, gain: float) -> AblationResult:
        sign = 1 if self.study.task.higher_is_better else -1
        noise = (-0.004, 0.001, 0.003)
        against = Component(kind=kind, name=name).against
        mine: list[RunRecord] = []
        theirs: list[RunRecord] = []
        for seed in range(3):
            for which, runs, label in ((policy, mine, name), (neutralised(policy, kind), theirs, against)):
                runs.append(self._run(f"compare-{name}-{label}-seed-{seed}", "ablation", which, seed, candidate=label))
            metric = (theirs[-1].metric or 0.0) + sign * (gain + noise[seed])
            mine[-1] = dataclasses.replace(mine[-1], metric=metric, select_s=0.01)
        self.ablation_runs += [*mine, *theirs]
        differences = tuple(gain + each for each in noise)
        half = 2.92 * math.sqrt(sum(each**2 for each in noise) / 2 / 3)
        return self._row(
            kind,
            name,
            policy,
            verdict="paid" if gain > half else "not_paid" if gain < -half else "no_difference",
            differences=differences,
            metric=sum(run.metric or 0.0 for run in mine) / 3,
            baseline_metric=sum(run.metric or 0.0 for run in theirs) / 3,
            difference=gain,
            lower=gain - half,
            upper=gain + half,
            select_s=0.01,
            seconds=1.0,
            baseline_seconds=1.0,
        )

    # -- the view

    def view(self) -> StudyView:
        if self.state == "before":
            self._verify_before()
        elif self.state in (*VERIFIED, "verification"):
            self._verify()
        if self.state in VERIFIED:
            self._compare()
        self._cut()
        records = StudyRecords(
            run_id="digits-2026-01-31-a1b2c3",
            folder="runs/digits-2026-01-31-a1b2c3",
            study=self.study,
            manifest=self._manifest(),
            facts=None if self.state == "empty" else FACTS,
            target=self._target() if len(self.reference) == 5 else None,
            reference=tuple(self.reference),
            trials=tuple(self.trials),
            verification=tuple(self.verification),
            candidates=self.candidates,
            verdicts=self.verdicts,
            ablation_runs=tuple(self.ablation_runs),
            ablation=self.ablation,
        )
        return summarised(records)

    def _cut(self) -> None:
        """Take away what a study of this state does not have yet."""
        kept = {"empty": 0, "reference": 2}.get(self.state, 5)
        self.reference = self.reference[:kept]
        if self.state in ("empty", "reference", "no_trials"):
            self.trials = []
        elif self.state in ("search", "interrupted"):
            self.trials = self.trials[: len(self.trials) // 2]
        if self.state == "verification":
            self.verification = self.verification[:8]
            self.verdicts, self.contrasts, self.winner = {}, {}, None

    def _round(self) -> RoundState:
        """Of verification; its state holds no more than is read of it."""
        runs = [{"name": run.candidate, "seed": run.seed} for run in self.verification]
        if self.state == "before":
            passed = [n for n, one in self.candidates.items() if not one.is_control and self.verdicts[n].passed]
            winner = min(passed, key=lambda name: self.candidates[name].cost_flops)
            old = {
                "version": PAIRED_VERSION,
                "winner": winner,
                "alpha_spent": 0.04,
                "controls": ["random"],
                "runs": runs,
            }
            return RoundState(candidates=self.candidates, verdicts=self.verdicts, state=old)
        state = {"version": FORMAT_VERSION, "winner": self.winner, "alpha_spent": 0.04, "runs": runs}
        return RoundState(candidates=self.candidates, verdicts=self.verdicts, state=state, contrasts=self.contrasts)

    def _manifest(self) -> Manifest:
        tested = self._round()
        rounds = (tested,) if self.candidates else ()
        winner = tested.winner if self.state == "before" else exported(rounds)
        status = {"empty": "reference", "no_trials": "search", "only_failed": "search"}.get(self.state, self.state)
        versions = {"subsettune": "0.1.0", "python": "3.12.4", "torch": "2.9.1", "ray": "2.60.0", "optuna": "5.0.1"}
        hardware = {"cpu": "Intel(R) Xeon(R) <8175M> @ 2.50GHz", "num_cpus": 2, "gpus": [], "memory_bytes": 8e9}
        return Manifest(
            run_id="digits-2026-01-31-a1b2c3",
            task=self.study.task.key,
            study=self.study,
            status="finished" if self.state in VERIFIED else status,
            winner=winner,
            rounds=rounds,
            bundle="runs/digits-2026-01-31-a1b2c3/bundle" if winner else None,
            needs=FrozenDict({"full": (0.18, 0.31), "subset": (0.03, 0.05)} if self.state == "subset_wins" else {}),
            sampled=FrozenDict({"candidate-1": SAMPLED} if self.state == "subset_wins" else {}),
            search=FrozenDict({"skipped": 3 if self.trials else 0}),
            command="subsettune tune search_spaces/digits.yaml --run-id digits-2026-01-31-a1b2c3",
            versions=FrozenDict(versions),
            hardware=FrozenDict(hardware),
            data=DataOrigin(source="digits", fingerprint="9f2c" * 16),
            created="2026-01-31T10:02:26Z",
        )


def _seconds(policy: Policy, share: float) -> float:
    """Seconds of a share of a policy's compute: a subset first goes slower."""
    switch = policy.phases[0].passes / policy.passes if len(policy.phases) > 1 else 0.0
    slow, usual = min(share, switch), max(0.0, share - switch)
    return policy.cost(FACTS) / FLOPS_PER_S * (SUBSET_SLOWNESS * slow + usual)


def _phases(policy: Policy, upto: float) -> tuple[PhaseSpent, ...]:
    """What each phase took, up to a share of the policy's compute."""
    ends = [min(upto, end) for end in itertools.accumulate(phase.passes / policy.passes for phase in policy.phases)]
    return tuple(
        PhaseSpent(
            flops=round((end - start) * policy.cost(FACTS)), seconds=_seconds(policy, end) - _seconds(policy, start)
        )
        for start, end in itertools.pairwise([0.0, *ends])
    )


def _with_selector(policy: Policy, selector: str) -> Policy:
    phases = tuple(p if p.is_full else dataclasses.replace(p, selector=selector) for p in policy.phases)
    return Policy(phases=phases, recipe=policy.recipe)


def not_tested(name: str) -> Verdict:
    return Verdict(
        name=name,
        passed=None,
        num_seeds=0,
        num_references=0,
        mean_difference=math.nan,
        lower_bound=-math.inf,
        shortfall=0.0,
        p_value=1.0,
        level=0.0,
        alpha_spent=0.0,
        seeds_needed=None,
        reason="not tested: no alpha is left for it",
        spread=math.nan,
        reference_spread=None,
        nominal=0.0,
    )
