"""The stage of verification: the runs that its tests need, those of the controls, and the winner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import FULL, SUBSET, Phase, Policy, conventional
from subsettune.study.context import StudyContext
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.sequence import RunSource
from subsettune.study.preflight import dearest_budget
from subsettune.study.results.candidate import Candidate, CandidateRole
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.search.search import Search
from subsettune.study.spec.components import randomised, selects
from subsettune.study.stages.other_examples import sampled_differences
from subsettune.study.verification import candidates as choosing
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification
from subsettune.study.verification.winner import claimed, exported
from subsettune.train.result import CurvePoint


class VerificationStage:
    """Tests the candidates of a search against the reference, and names the winner."""

    name = "verification"

    def __init__(self, context: StudyContext, search: Search) -> None:
        self.context, self.search = context, search

    def source(self) -> RunSource | None:
        """The open round, or a new one for the candidates of a search that has gone on; None if it has found none."""
        rounds = self.context.folder.manifest.rounds
        is_open = bool(rounds) and rounds[-1].trials_asked >= self.context.settings.trials
        opened = self._go_on(rounds[-1]) if is_open else self._begin(rounds)
        if opened is None:
            return None
        self.context.note_verified()
        verification, candidates = opened
        number = len(rounds) + (not is_open)
        shortlist, facts = self.search.shortlist, self.context.facts
        shorter, subset = (choosing.likeliest(shortlist, facts, arm, number) for arm in (FULL, SUBSET))
        material = ControlMaterial(facts=facts, round_number=number, shorter=shorter, subset=subset)
        known = self._tested({**candidates, **({shorter.name: shorter} if shorter is not None else {})})
        keeper = _RoundKeeper(self.context, number)
        source = VerificationSource(verification, candidates, material, known, keeper)
        keeper.source = source
        is_another = shorter is not None and shorter.name not in candidates
        policies = len(candidates) + is_another + 2  # the controls of the winner
        num_runs = policies * self.context.settings.seeds
        self.context.observer.stage(self.name, num_runs)  # the display follows if it takes more
        keeper(None)
        return source

    def finish(self) -> None:
        """Note which policy is exported, of all rounds, and what their runs say of other test examples."""
        winner = exported(self.context.folder.manifest.rounds)
        self.context.note(winner=winner, sampled=FrozenDict(sampled_differences(self.context)))

    def _go_on(self, opened: RoundState) -> tuple[Verification, dict[str, Candidate]]:
        return Verification.from_mapping(opened.state), dict(opened.candidates)

    def _begin(self, rounds: tuple[RoundState, ...]) -> tuple[Verification, dict[str, Candidate]] | None:
        settings, facts = self.context.settings, self.context.facts
        candidates = choosing.select_candidates(self._trials(), settings.candidates, facts, len(rounds) + 1)
        if not candidates:
            return None
        spent = rounds[-1].alpha_spent if rounds else 0.0
        costs = {name: candidate.cost_flops for name, candidate in candidates.items()}
        return Verification(costs, self._rules(), self.context.seeds, spent=spent), candidates

    def _trials(self) -> choosing.Trials:
        context = self.context
        return choosing.Trials(
            shortlist=self.search.shortlist,
            records=context.folder.records("trial"),
            target=context.target(),
            higher_is_better=context.task.higher_is_better,
            most_passes=dearest_budget(context.space) * context.facts.reference_passes,
        )

    def _rules(self) -> Rules:
        task, settings = self.context.task, self.context.settings
        return Rules(
            margin=task.tolerance,
            alpha=settings.alpha,
            seeds=settings.seeds,
            max_seeds=settings.seed_cap,
            higher_is_better=task.higher_is_better,
            resolution=self.context.resolution(len(self.context.data.test)),
        )

    def _tested(self, candidates: Mapping[str, Candidate]) -> dict[tuple[str, int], float]:
        """Test metrics on record, for the policies of this round, whatever round measured them."""
        found: dict[tuple[str, int], float] = {}
        for record in self.context.folder.records("verification"):
            value = record.test_metric if record.test_metric is not None else math.nan
            names = [n for n, c in candidates.items() if c.policy.key == record.policy.key]
            names += ["reference"] if record.candidate == "reference" else []
            found |= {(name, record.seed): value for name in names}
        return found


class _RoundKeeper:
    """Writes a round of verification after every change, and its runs as they come."""

    def __init__(self, context: StudyContext, number: int) -> None:
        self._context, self._number = context, number
        self.source: VerificationSource | None = None

    def __call__(self, record: RunRecord | None) -> None:
        if record is not None:
            self._context.keep(self._without_old_work(record))
            return
        assert self.source is not None
        rounds = self._context.folder.manifest.rounds
        before = rounds[self._number - 1].trials_asked if len(rounds) >= self._number else 0
        now = to_round(self.source, max(self._context.settings.trials, before))
        self._context.folder.note(rounds=(*rounds[: self._number - 1], now))
        self._context.folder.save()

    def _without_old_work(self, record: RunRecord) -> RunRecord:
        """A reference whose finished weights were only measured on the test split has cost its evaluation alone."""
        seeds = {r.seed for r in self._context.folder.records("reference")}
        if record.candidate != "reference" or record.seed not in seeds or record.cause != "finished":
            return record
        evaluate = len(self._context.data.test) * self._context.facts.forward_flops
        return replace(record, ledger=Ledger(evaluate=evaluate), train_s=0.0, select_s=0.0, evaluate_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMaterial:
    """What the controls of a round are made of, beside its candidates.

    Args:
        facts: of the task.
        round_number: marks the names of controls.
        shorter: the best of the full arm, should it be no candidate.
        subset: the best of the subset arm, should none of it be a candidate; its random control is tested.
    """

    facts: TaskFacts
    round_number: int = 1
    shorter: Candidate | None = None
    subset: Candidate | None = None


class VerificationSource:
    """Runs of one round of verification, and of its controls once the candidates are through.

    Args:
        verification: says what is needed.
        candidates: by name; controls are added to it.
        material: what controls are made of.
        known: test metrics of runs that are on record, by (name, seed).
        save: called after every change.
    """

    def __init__(
        self,
        verification: Verification,
        candidates: dict[str, Candidate],
        material: ControlMaterial,
        known: Mapping[tuple[str, int], float],
        save: Callable[[RunRecord | None], None],
    ) -> None:
        self.verification, self.candidates, self._facts = verification, candidates, material.facts
        self._round = material.round_number
        self._fallback, self._likeliest_subset = material.shorter, material.subset
        self._known, self._save = known, save
        self._under_way: set[tuple[str, int]] = set()

    def next(self) -> RunRequest | Pause:
        """The next run that the test needs."""
        while True:
            for name, seed in self._needed():
                if (name, seed) in self._known:
                    self.verification.record(name, seed, self._known[name, seed])
                    break
                self._under_way.add((name, seed))
                return self._request(name, seed)
            else:
                if self._under_way:
                    return Pause.WAIT
                if not self._add_controls():
                    self._save(None)
                    return Pause.DONE

    def _needed(self) -> list[tuple[str, int]]:
        return [run for run in self.verification.needed() if run not in self._under_way]

    def _request(self, name: str, seed: int) -> RunRequest:
        policy = conventional(self._facts) if name == "reference" else self.candidates[name].policy
        splits = ("validation", "test")
        title = f"verify-{name}-seed-{seed}"
        return RunRequest(name=title, role="verification", candidate=name, policy=policy, seed=seed, splits=splits)

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing in verification is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Record a metric; a run that diverged or failed counts against its policy."""
        self._under_way.discard((request.candidate, request.seed))
        self._save(record)
        value = record.test_metric if record.test_metric is not None else math.nan
        self.verification.record(request.candidate, request.seed, value)
        self._save(None)

    def _add_controls(self) -> bool:
        """Add the controls that the outcome calls for; whether any was added.

        The best of the full arm, if a failure before it left it untested; and the winner's random control, or where
        nothing of the subset arm won, that of the first candidate with a subset or else of the likeliest policy with
        one. Where a policy without a subset won by its order, transition or soup, there is nothing to draw at random.
        And all data for as much compute as a winner of the subset arm, without which nobody knows what its subset is
        for.
        """
        found = (self._shorter_control(), self._equal_control(), self._random_control())
        fresh = [c for c in found if c is not None]
        fresh = [c for c in fresh if c.name not in self.candidates]
        for control in fresh:
            self.candidates[control.name] = control
            self.verification.add_control(control.name)
        if fresh:
            self._save(None)
        return bool(fresh)

    def _shorter_control(self) -> Candidate | None:
        shorter = next((c for c in self._in_order() if c.role == "shorter"), None)
        if shorter is None:
            return self._fallback
        if self.verification.verdicts[shorter.name].is_tested:
            return None
        return self._control("shorter", shorter.policy, is_repeat=True)

    def _in_order(self) -> list[Candidate]:
        return [self.candidates[name] for name in self.verification.order]

    def _equal_control(self) -> Candidate | None:
        winner = self.candidates.get(self.verification.winner or "")
        if winner is None or winner.policy.arm == FULL:
            return None
        policy = Policy(phases=(Phase(passes=winner.policy.passes),), recipe=winner.policy.recipe)
        is_tested = any(c.policy.key == policy.key and c.role != "equal" for c in self.candidates.values())
        return None if is_tested else self._control("equal", policy)

    def _random_control(self) -> Candidate | None:
        winner = self.candidates.get(self.verification.winner or "")
        in_order = self._in_order()
        if winner is not None and winner.policy.arm != FULL:
            in_order = [winner]
        elif self._likeliest_subset is not None:
            in_order.append(self._likeliest_subset)
        base = next((candidate for candidate in in_order if selects(candidate.policy)), None)
        if base is None:
            return None
        policy = randomised(base.policy)
        own = policy.key == base.policy.key and base.name in self.verification.order
        if own and self.verification.verdicts[base.name].is_tested:
            return None  # the selector is `random` already: the policy is its own control
        return self._control("random", policy)

    def _control(self, role: CandidateRole, policy: Policy, *, is_repeat: bool = False) -> Candidate:
        cost_flops = policy.cost(self._facts)
        return Candidate(role=role, round=self._round, is_repeat=is_repeat, policy=policy, cost_flops=cost_flops)


def to_round(source: VerificationSource, trials_asked: int) -> RoundState:
    """A round of verification as the manifest holds it."""
    verification = source.verification
    names = (*verification.order, *verification.controls)
    has_winner, controls = verification.winner is not None, verification.controls
    verdicts = {
        name: claimed(verdict, is_control=name in controls, has_winner=has_winner)
        for name, verdict in verification.verdicts.items()
    }
    return RoundState(
        candidates={name: source.candidates[name] for name in names},
        verdicts=verdicts,
        state=verification.to_mapping(),
        trials_asked=trials_asked,
    )
