"""Which policies verification looks at: what the search found, and dearer ones as a margin for its optimism."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from subsettune.facts import TaskFacts
from subsettune.policy import FULL, Phase, Policy
from subsettune.study.results.candidate import Candidate, CandidateRole
from subsettune.study.results.records import RunRecord
from subsettune.study.search.shortlist import Shortlist, ShortlistedPolicy

CLEARLY_DEARER = 1.2  # times the cost of the dearest candidate so far
STRETCH = 1.5  # times the compute of the dearest candidate: two such steps reach what one lucky seed hides


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What verification may choose from.

    Args:
        shortlist: of the search, after its last trial.
        records: of its trials.
        target: validation metric that counts as matched.
        higher_is_better: direction of the metric.
        most_passes: compute of the dearest policy in the space.
    """

    shortlist: Shortlist
    records: tuple[RunRecord, ...]
    target: float
    higher_is_better: bool
    most_passes: float

    def safer(self, cost_flops: int) -> RunRecord | None:
        """The policy with the most to spare among those that are clearly dearer and always reached the target.

        A cheap policy's luck is drawn on few seeds, and noise is larger on a small budget than in the reference; should
        it fail verification, a dearer one that was tested before it still stands.
        """
        by_policy: dict[str, list[RunRecord]] = {}
        for record in self.records:
            if record.cost_flops >= CLEARLY_DEARER * cost_flops:
                by_policy.setdefault(record.policy.key, []).append(record)
        sound = [rs for rs in by_policy.values() if all(r.metric is not None and not self._miss(r) for r in rs)]
        if not sound:
            return None
        return max(sound, key=lambda rs: (self._spare(rs), -rs[0].cost_flops))[0]

    def _spare(self, records: list[RunRecord]) -> float:
        """By how much the mean metric is better than the target."""
        gaps = [r.metric - self.target for r in records if r.metric is not None]
        return (1 if self.higher_is_better else -1) * sum(gaps) / len(gaps)

    def _miss(self, record: RunRecord) -> float:
        assert record.metric is not None
        gap = self.target - record.metric if self.higher_is_better else record.metric - self.target
        return max(0.0, gap)


def select_candidates(trials: Trials, count: int, facts: TaskFacts, round_number: int) -> dict[str, Candidate]:
    """The candidates of a round: the search's choice, and the best of the full arm, named `shorter`.

    The candidates make a ladder of costs. Places that the search leaves empty are a margin for its optimism: dearer
    policies with more to spare, and where there is none, the dearest candidate with more compute in every phase. Where
    the search trusts no policy, the likeliest is tested all the same: the table then says by how much it missed.

    Args:
        trials: what there is to choose from.
        count: policies besides the best of the full arm.
        facts: of the task.
        round_number: 1, or more after an extension; it marks the names.
    """
    best_full, likely = trials.shortlist.best(arm=FULL), trials.shortlist.likeliest()
    chosen: list[Candidate] = []
    if best_full is not None:
        chosen.append(_found("shorter", best_full, facts, round_number))
    for found in trials.shortlist.candidates(count):
        if len(chosen) <= count and _stands_apart(found.policy.cost(facts), chosen):
            chosen.append(_found("candidate", found, facts, round_number, _next_number(chosen)))
    if not chosen and likely is not None:
        is_full = likely.policy.arm == FULL
        role: CandidateRole = "shorter" if is_full else "candidate"
        chosen.append(_found(role, likely, facts, round_number, number=0 if is_full else 1))
    while chosen and len(chosen) < count + 1:
        dearest = max(chosen, key=lambda candidate: candidate.cost_flops)
        dearer = _dearer(dearest, trials, facts, _next_number(chosen))
        if dearer is None:
            break
        chosen.append(dearer)
    return {candidate.name: candidate for candidate in chosen}


def _next_number(chosen: Iterable[Candidate]) -> int:
    return 1 + sum(candidate.role == "candidate" for candidate in chosen)


def _dearer(dearest: Candidate, trials: Trials, facts: TaskFacts, number: int) -> Candidate | None:
    """One that passes where the dearest so far was lucky, or None if the space allows none."""
    safer = trials.safer(dearest.cost_flops)
    policy = safer.policy if safer is not None else extend_candidates(dearest.policy, trials.most_passes)
    if policy is None:
        return None
    return Candidate(
        role="candidate",
        number=number,
        round=dearest.round,
        policy=policy,
        trials=() if safer is None else (safer.number,),
        cost_flops=policy.cost(facts) if safer is None else safer.cost_flops,
    )


def _stands_apart(cost_flops: int, others: Iterable[Candidate]) -> bool:
    """Whether a cost differs enough from those of others: policies of one cost mostly pass or fail together.

    The search's optimism is more than the noise of seeds: all its policies were chosen on one validation split, which
    suits some budgets better than the test split does. Only a ladder of costs is a margin against that.
    """
    costs = [other.cost_flops for other in others]
    return all(max(cost, cost_flops) >= CLEARLY_DEARER * min(cost, cost_flops) for cost in costs)


def extend_candidates(policy: Policy, most_passes: float) -> Policy | None:
    """The policy with more compute in every phase, or None if the space allows no more that counts."""
    factor = min(STRETCH, most_passes / policy.passes)
    if factor < CLEARLY_DEARER:
        return None
    phases = []
    for phase in policy.phases:
        plain = {name: getattr(phase, name) for name in Phase.__dataclass_fields__}
        phases.append(Phase(**{**plain, "passes": phase.passes * factor}))
    return Policy(phases=tuple(phases), recipe=policy.recipe)


def likeliest(shortlist: Shortlist, facts: TaskFacts, arm: str, round_number: int) -> Candidate | None:
    """The best of an arm where the search does not trust it enough to make it a candidate: `shorter`, or `subset`."""
    best = shortlist.likeliest(arm=arm)
    return None if best is None else _found("shorter" if arm == FULL else "subset", best, facts, round_number)


def _found(
    role: CandidateRole, found: ShortlistedPolicy, facts: TaskFacts, round_number: int, number: int = 0
) -> Candidate:
    return Candidate(
        role=role,
        number=number,
        round=round_number,
        policy=found.policy,
        trials=(found.number,),
        cost_flops=found.policy.cost(facts),
    )
