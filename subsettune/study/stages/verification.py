"""The stage of verification: the runs that its tests need, those of the controls, and the winner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.policy import FULL, Phase, Policy, conventional
from subsettune.study.context import StudyContext
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.sequence import RunSource
from subsettune.study.preflight import budget_ends
from subsettune.study.results.candidate import EQUAL, OWN, RANDOM, Candidate
from subsettune.study.results.manifest import RoundState
from subsettune.study.results.records import RunRecord
from subsettune.study.results.unneeded import unneeded
from subsettune.study.search.search import Search
from subsettune.study.spec.components import randomised, selects
from subsettune.study.stages import reference
from subsettune.study.stages.other_examples import sampled_differences
from subsettune.study.verification import candidates as choosing
from subsettune.study.verification import rules
from subsettune.study.verification.noninferiority import Rules
from subsettune.study.verification.verification import Verification
from subsettune.study.verification.winner import exported
from subsettune.train.result import CurvePoint


def rules_of(context: StudyContext) -> Rules:
    """The rules of a verification on the test split."""
    return rules.rules_of(
        context.study,
        resolution=context.resolution("test"),
        usual_spread=reference.spread(context.references()),
    )


class VerificationStage:
    """Tests the candidates of a search against the reference, and names the winner."""

    name = "verification"

    def __init__(self, context: StudyContext, search: Search) -> None:
        self.context, self.search = context, search

    def source(self) -> RunSource:
        """The open round, or a new one for the candidates of a search that has gone on."""
        rounds = self.context.folder.manifest.rounds
        is_open = bool(rounds) and (rounds[-1].trials_asked >= self.context.settings.trials or not rounds[-1].is_over)
        self.context.note_verified()
        number = len(rounds) + (not is_open)
        verification, candidates = self._go_on(rounds[-1]) if is_open else self._begin(rounds)
        ground = self._ground(verification.spent)
        material = ControlMaterial(
            round_number=number,
            twins={
                name: choosing.plain_twin(one, self.search.shortlist, _named(EQUAL, number), ground)
                for name, one in candidates.items()
                if name in verification.line_up and verification.line_up[name].has_twin
            },
            facts=self.context.facts,
        )
        keeper = _RoundKeeper(self.context, number)
        source = VerificationSource(verification, candidates, material, self._tested, keeper)
        keeper.source = source
        self.context.observer.stage(self.name, 2 * self.context.settings.seeds)  # the display follows if it takes more
        keeper(None)
        return source

    def finish(self) -> None:
        """Note which policy is exported, of all rounds, and what their runs say of other test examples."""
        rounds = self.context.folder.manifest.rounds
        winner, spare = exported(rounds), unneeded(rounds[-1:], self.context.folder.records("verification"))
        if spare:
            cost = sum(run.study_flops for run in spare) / self.context.facts.reference_flops
            told = f"{len(spare)} runs of verification, made while others were under way, were not needed after all"
            self.context.observer.note(f"{told}: {cost:.2g} conventional trainings, charged to tuning.")
        self.context.note(winner=winner, sampled=FrozenDict(sampled_differences(self.context)))

    def _go_on(self, opened: RoundState) -> tuple[Verification, dict[str, Candidate]]:
        return Verification.from_mapping(opened.state), dict(opened.candidates)

    def _begin(self, rounds: tuple[RoundState, ...]) -> tuple[Verification, dict[str, Candidate]]:
        spent = rounds[-1].alpha_spent if rounds else 0.0
        line_up = choosing.choose(self.search.shortlist, self._ground(spent), len(rounds) + 1)
        verification = Verification(
            line_up.entries,
            rules_of(self.context),
            reference_flops=self.context.facts.reference_flops,
            first_seed=self.context.seeds[0],
            spent=spent,
        )
        return verification, dict(line_up.candidates)

    def _ground(self, spent: float) -> choosing.Ground:
        context, references = self.context, self.context.references()
        return choosing.Ground(
            facts=context.facts,
            rules=rules_of(self.context),
            spent=spent,
            reference_metric=reference.mean(references),
            reference_spread=reference.spread(references),
            examples=(context.num_validation, context.num_test),
            is_share=context.task.counts_examples and min(context.num_validation, context.num_test) > 0,
            budgets=budget_ends(context.space),
            why_not=context.why_not,
            count=context.settings.candidates,
            verified=self._verified(),
        )

    def _verified(self) -> float | None:
        """Cost of the cheapest policy that an earlier round verified, as a share of the reference's."""
        rounds = self.context.folder.manifest.rounds
        winner = exported(rounds)
        costs = [r.candidates[winner].cost_flops for r in rounds if winner is not None and winner in r.candidates]
        return costs[0] / self.context.facts.reference_flops if costs else None

    def _tested(self, policy: Policy) -> dict[int, float]:
        """Test metrics of a policy on record, by seed, whatever round measured them."""
        runs = (run for run in self.context.folder.records("verification") if run.policy.key == policy.key)
        return {run.seed: math.nan if run.test_metric is None else run.test_metric for run in runs}


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
        now = to_round(self.source, before or self._context.settings.trials)
        self._context.folder.note(rounds=(*rounds[: self._number - 1], now))
        self._context.folder.save()

    def _without_old_work(self, record: RunRecord) -> RunRecord:
        """A reference whose finished weights were only measured on the test split has cost its evaluation alone."""
        known = {r.seed: r for r in self._context.folder.records("reference")}
        if record.candidate != "reference" or record.seed not in known or record.cause != "finished":
            return record
        repeated = 0 if known[record.seed].cached else known[record.seed].repeated_flops  # in its own row, too
        evaluate = len(self._context.data.test) * self._context.facts.forward_flops
        return replace(
            record,
            ledger=Ledger(evaluate=evaluate),
            repeated_flops=max(0, record.repeated_flops - repeated),
            phases=(),
            train_s=0.0,
            select_s=0.0,
            evaluate_s=0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMaterial:
    """What the controls of a round are made of, beside its candidates.

    Args:
        facts: of the task.
        twins: plain training of the compute of each candidate of the subset arm, by its name.
        round_number: marks the names of controls.
    """

    facts: TaskFacts
    twins: Mapping[str, Candidate]
    round_number: int = 1


class VerificationSource:
    """Runs of one round of verification, and of the controls that its outcome calls for.

    Args:
        verification: says what is needed.
        candidates: by name; controls are added to it.
        material: what controls are made of.
        known: test metrics of a policy that are on record, by seed.
        save: called after every change.
    """

    def __init__(
        self,
        verification: Verification,
        candidates: dict[str, Candidate],
        material: ControlMaterial,
        known: Callable[[Policy], Mapping[int, float]],
        save: Callable[[RunRecord | None], None],
    ) -> None:
        self.verification, self.candidates, self._material = verification, candidates, material
        self._find_known, self._save = known, save
        self._known: dict[str, Mapping[int, float]] = {}
        self.is_over = False
        self._under_way: set[tuple[str, int]] = set()

    def next(self) -> RunRequest | Pause:
        """The next run that the test needs; where it waits for others, one that it will probably need."""
        while True:
            self._take_in()
            run = next((run for run in self.verification.needed() if self._is_missing(run)), None)
            if run is None and self._under_way:
                run = next((run for run in self.verification.ahead() if self._is_missing(run)), None)
                if run is None:
                    return Pause.WAIT
            if run is not None:
                self._under_way.add(run)
                return self._request(*run)
            if not self._add_controls():
                self.is_over = True
                self._save(None)
                return Pause.DONE

    def _take_in(self) -> None:
        """Record what is needed and there, in the order in which one run at a time would bring it.

        So it does not matter which of several runs ends first, nor what was run ahead: verdicts are those of one slot.
        """
        while needed := self.verification.needed():
            name, seed = needed[0]
            if seed not in self._on_record(name):
                return
            self.verification.record(name, seed, self._on_record(name)[seed])

    def _is_missing(self, run: tuple[str, int]) -> bool:
        return run not in self._under_way and run[1] not in self._on_record(run[0])

    def _on_record(self, name: str) -> Mapping[int, float]:
        """Runs of a policy that are there, by seed: those of before are looked up once."""
        if name not in self._known:
            self._known[name] = self._find_known(self._policy(name))
        return self._known[name]

    def _policy(self, name: str) -> Policy:
        return conventional(self._material.facts) if name == "reference" else self.candidates[name].policy

    def _request(self, name: str, seed: int) -> RunRequest:
        policy = self._policy(name)
        splits = ("validation", "test")
        title = f"verify-{name}-seed-{seed}"
        return RunRequest(name=title, role="verification", candidate=name, policy=policy, seed=seed, splits=splits)

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing in verification is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Keep a metric for when it is needed; a run that diverged or failed counts against its policy."""
        self._under_way.discard((request.candidate, request.seed))
        self._save(record)
        value = record.test_metric if record.test_metric is not None else math.nan
        self._known[request.candidate] = {**self._on_record(request.candidate), request.seed: value}
        self._take_in()
        self._save(None)

    def _add_controls(self) -> bool:
        """Add the controls that the outcome calls for, as far as they decide something; whether any was added.

        Plain training of as much compute as a winner of the subset arm, by the settings that the search expects most of
        there: without it nobody knows what its subset is for. Where the winner is shown to be better than that, plain
        training by its own settings, which may be all that it gains. And where it is better than that, too, the same
        with a random subset: without it nobody knows what its selector is for.
        """
        winner = self.candidates.get(self.verification.winner or "")
        if winner is None or winner.policy.arm == FULL:
            return False
        twin = self._material.twins[winner.name]
        if twin.name not in self.candidates:
            self.candidates[twin.name] = twin
            self.verification.add_twin(twin.name, winner.name)
        else:
            control = self._next_control(winner, twin)
            if control is None:
                return False
            self.candidates[control.name] = control
            self.verification.add_control(control.name, winner.name)
        self._save(None)
        return True

    def _next_control(self, winner: Candidate, twin: Candidate) -> Candidate | None:
        """What a winner that is better than plain training, as far as that was tried, is held against next."""
        held, twin = self.verification.contrasts, self.candidates[twin.name]  # as it was trained
        own, random = self._own_control(winner), self._random_control(winner)
        needs_own = own.policy.key != twin.policy.key
        if twin.name not in held or held[twin.name].shown is not True:
            return None
        if needs_own and own.name not in held:
            return own
        if needs_own and held[own.name].shown is not True:
            return None
        is_other = selects(winner.policy) and random.policy.key != winner.policy.key
        return random if is_other and random.name not in held else None

    def _own_control(self, winner: Candidate) -> Candidate:
        policy = Policy(phases=(Phase(passes=winner.policy.passes),), recipe=winner.policy.recipe)
        name = _named(OWN, self._material.round_number)
        return Candidate.named(name, policy=policy, cost_flops=policy.cost(self._material.facts))

    def _random_control(self, winner: Candidate) -> Candidate:
        policy = randomised(winner.policy)
        name = _named(RANDOM, self._material.round_number)
        return Candidate.named(name, policy=policy, cost_flops=policy.cost(self._material.facts))


def _named(role: str, round_number: int) -> str:
    return role if round_number == 1 else f"{role}@{round_number}"


def to_round(source: VerificationSource, trials_asked: int) -> RoundState:
    """A round of verification as the manifest holds it."""
    verification = source.verification
    names = (*verification.order, *verification.controls)
    return RoundState(
        candidates={name: source.candidates[name] for name in names},
        verdicts=dict(verification.verdicts),
        state=verification.to_mapping(),
        contrasts=dict(verification.contrasts),
        trials_asked=trials_asked,
        is_over=source.is_over,
    )
