"""The stages of a study that decide while they run: search and verification, as sources of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.facts import TaskFacts
from subsettune.policy import FULL, Phase, Policy, conventional
from subsettune.study.execute.sequence import Pause, RunRequest
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import Candidate, role_of
from subsettune.study.search.search import WAIT, Outcome, Proposal, Search
from subsettune.study.search.shortlist import ShortlistedPolicy
from subsettune.study.spec.components import randomised, selects
from subsettune.study.verification.verification import Verification
from subsettune.train.result import CurvePoint

CLEARLY_DEARER = 1.2  # times the cost of the dearest candidate so far
STRETCH = 1.5  # times the compute of the dearest candidate: two such steps reach what one lucky seed hides


class SearchStage:
    """Trials, as the search proposes them.

    Args:
        search: asked and told.
        again: runs that an interruption cut off; they come first, and go on from their checkpoints.
        done: told each record, before the search is.
        out_of_time: whether no new trial may start.
    """

    def __init__(
        self,
        search: Search,
        again: Iterable[Proposal],
        done: Callable[[RunRecord], None],
        out_of_time: Callable[[], bool],
    ) -> None:
        self._search, self._again, self._done, self._out_of_time = search, list(again), done, out_of_time

    def next(self) -> RunRequest | Pause:
        """The next trial."""
        if self._again:
            return _trial(self._again.pop(0))
        if self._out_of_time():
            return Pause.DONE
        proposal = self._search.propose()
        if isinstance(proposal, Proposal):
            return _trial(proposal)
        return Pause.WAIT if proposal is WAIT else Pause.DONE

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Whether the search gives this trial up."""
        if point.metric is None or point.share >= 1:
            return False
        return self._search.observe(request.number, point.share, point.metric)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Put the trial on record, then tell the search: a driver killed in between finds the record."""
        self._done(record)
        self._search.tell(request.number, outcome(record))


def outcome(record: RunRecord) -> Outcome:
    """What the search is told of a trial."""
    return Outcome(
        cause=record.cause,
        metric=record.metric if record.cause == "finished" else None,
        share_used=min(1.0, max(0.0, record.share_used)),
        message=record.message,
    )


def _trial(proposal: Proposal) -> RunRequest:
    return RunRequest(
        name=f"trial-{proposal.number:04d}",
        role="trial",
        number=proposal.number,
        policy=proposal.policy,
        coordinates=proposal.coordinates,
        seed=proposal.seed,
        confirms=proposal.confirms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What verification may choose from.

    Args:
        search: after its last trial.
        records: of its trials.
        target: validation metric that counts as matched.
        higher_is_better: direction of the metric.
        most_passes: compute of the dearest policy in the space.
    """

    search: Search
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
    mark = "" if round_number == 1 else f"@{round_number}"
    best_full = trials.search.shortlist.best(arm=FULL)
    named: dict[str, Candidate] = {}
    if best_full is not None:
        named[f"shorter{mark}"] = _candidate(f"shorter{mark}", best_full, facts)
    for found in trials.search.shortlist.candidates(count):
        if len(named) <= count and _stands_apart(found.policy.cost(facts), named.values()):
            name = f"candidate-{len(named) + (best_full is None)}{mark}"
            named[name] = _candidate(name, found, facts)
    likeliest = trials.search.shortlist.likeliest()
    if not named and likeliest is not None:
        name = f"shorter{mark}" if likeliest.policy.arm == FULL else f"candidate-1{mark}"
        named[name] = _candidate(name, likeliest, facts)
    while named and len(named) < count + 1:
        dearest = max(named.values(), key=lambda candidate: candidate.cost_flops)
        name = f"candidate-{len(named) + (f'shorter{mark}' not in named)}{mark}"
        safer = trials.safer(dearest.cost_flops)
        longer = extend_candidates(dearest.policy, trials.most_passes)
        if safer is not None:
            named[name] = _from_record(name, safer)
        elif longer is not None:
            named[name] = Candidate(name=name, policy=longer, cost_flops=longer.cost(facts))
        else:
            break
    return named


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


def likeliest(search: Search, facts: TaskFacts, arm: str, round_number: int) -> Candidate | None:
    """The best of an arm where the search does not trust it enough to make it a candidate: `shorter`, or `subset`."""
    best = search.shortlist.likeliest(arm=arm)
    name = "shorter" if arm == FULL else "subset"
    return None if best is None else _candidate(name if round_number == 1 else f"{name}@{round_number}", best, facts)


def _from_record(name: str, record: RunRecord) -> Candidate:
    return Candidate(name=name, policy=record.policy, trials=(record.number,), cost_flops=record.cost_flops)


def _candidate(name: str, found: ShortlistedPolicy, facts: TaskFacts) -> Candidate:
    return Candidate(name=name, policy=found.policy, trials=(found.number,), cost_flops=found.policy.cost(facts))


class VerificationStage:
    """Runs of one round of verification, and of its controls once the candidates are through.

    Args:
        verification: says what is needed.
        candidates: by name; controls are added to it.
        facts: of the task.
        round_number: marks the names of controls.
        shorter: the best of the full arm, should it be no candidate.
        subset: the best of the subset arm, should none of it be a candidate; its random control is tested.
        known: test metrics of runs that are on record, by (name, seed).
        save: called after every change.
    """

    def __init__(
        self,
        verification: Verification,
        candidates: dict[str, Candidate],
        facts: TaskFacts,
        round_number: int,
        shorter: Candidate | None,
        subset: Candidate | None,
        known: Mapping[tuple[str, int], float],
        save: Callable[[RunRecord | None], None],
    ) -> None:
        self.verification, self.candidates, self._facts = verification, candidates, facts
        self._mark = "" if round_number == 1 else f"@{round_number}"
        self._fallback, self._likeliest_subset, self._known, self._save = shorter, subset, known, save
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
        name = f"shorter{self._mark}"
        if name not in self.verification.order:
            return self._fallback
        if self.verification.verdicts[name].num_seeds > 0:
            return None
        return self._control(f"shorter@control{self._mark}", self.candidates[name].policy)

    def _equal_control(self) -> Candidate | None:
        winner = self.candidates.get(self.verification.winner or "")
        if winner is None or winner.policy.arm == FULL:
            return None
        policy = Policy(phases=(Phase(passes=winner.policy.passes),), recipe=winner.policy.recipe)
        is_tested = any(c.policy.key == policy.key and role_of(name) != "equal" for name, c in self.candidates.items())
        return None if is_tested else self._control(f"equal{self._mark}", policy)

    def _random_control(self) -> Candidate | None:
        winner = self.verification.winner
        in_order = [self.candidates[name] for name in self.verification.order]
        if winner is not None and self.candidates[winner].policy.arm != FULL:
            in_order = [self.candidates[winner]]
        elif self._likeliest_subset is not None:
            in_order.append(self._likeliest_subset)
        base = next((candidate for candidate in in_order if selects(candidate.policy)), None)
        if base is None:
            return None
        policy = randomised(base.policy)
        own = policy.key == base.policy.key and base.name in self.verification.order
        if own and self.verification.verdicts[base.name].num_seeds > 0:
            return None  # the selector is `random` already: the policy is its own control
        return self._control(f"random{self._mark}", policy)

    def _control(self, name: str, policy: Policy) -> Candidate:
        return Candidate(name=name, policy=policy, cost_flops=policy.cost(self._facts))


def to_round(stage: VerificationStage) -> dict[str, Any]:
    """A round of verification as the manifest holds it."""
    order = [*stage.verification.order, *stage.verification.controls]
    plain = {
        name: {"policy": c.policy.to_mapping(), "trials": list(c.trials), "cost_flops": c.cost_flops}
        for name, c in ((name, stage.candidates[name]) for name in order)
    }
    verdicts = {name: _unclaimed(name, verdict.to_mapping()) for name, verdict in stage.verification.verdicts.items()}
    return {"candidates": plain, "state": stage.verification.to_mapping(), "verdicts": verdicts}


def _unclaimed(name: str, verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict as it may be told: what was tested after a failure in the sequence cannot claim to have passed."""
    if not name.startswith("shorter@control") or not verdict["passed"]:
        return verdict
    reason = "its bound is above the margin, but a dearer candidate failed before it, so nothing is claimed"
    return {**verdict, "passed": None, "reason": reason}
