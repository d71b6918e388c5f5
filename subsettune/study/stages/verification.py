"""The stages of a study that decide while they run: search and verification, as sources of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from subsettune.facts import TaskFacts
from subsettune.policy import FULL, Phase, Policy, conventional
from subsettune.study.execute.sequence import Pause, RunRequest
from subsettune.study.results.candidate import Candidate, CandidateRole
from subsettune.study.results.records import RunRecord
from subsettune.study.results.verdict import Verdict
from subsettune.study.search import search as searching
from subsettune.study.search.search import Outcome, Proposal, Search
from subsettune.study.spec.components import randomised, selects
from subsettune.study.verification.verification import Verification
from subsettune.train.result import CurvePoint


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
        return Pause.WAIT if proposal is searching.WAIT else Pause.DONE

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
        self._round = round_number
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
        one. Where a policy without a subset won by its order, entry or soup, there is nothing to draw at random. And
        all data for as much compute as a winner of the subset arm, without which nobody knows what its subset is for.
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


def to_round(stage: VerificationStage) -> dict[str, Any]:
    """A round of verification as the manifest holds it."""
    order = [*stage.verification.order, *stage.verification.controls]
    found = stage.verification.verdicts
    verdicts = {name: _claimed(stage.candidates[name], verdict).to_mapping() for name, verdict in found.items()}
    candidates = {name: stage.candidates[name].to_mapping() for name in order}
    return {"candidates": candidates, "state": stage.verification.to_mapping(), "verdicts": verdicts}


def _claimed(candidate: Candidate, verdict: Verdict) -> Verdict:
    """The verdict as it may be told: what was tested after a failure in the sequence cannot claim to have passed."""
    if not candidate.is_repeat or not verdict.passed:
        return verdict
    reason = "its bound is above the margin, but a dearer candidate failed before it, so nothing is claimed"
    return replace(verdict, passed=None, reason=reason)
