from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from facts import made_up_facts
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from subsettune.errors import StudyError
from subsettune.policy import Policy
from subsettune.study.search import belief
from subsettune.study.search.early_stopping import NUM_FINISHED, GainRule, is_stop_audit
from subsettune.study.search.fitting import fit
from subsettune.study.search.journal_storage import FileJournal
from subsettune.study.search.observations import SearchEvidence, TrialRecord
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import DONE, WAIT, Outcome, Pause, Proposal, Search
from subsettune.study.search.sources import SOURCES
from subsettune.study.spec.samplers import SAMPLERS
from subsettune.study.spec.space import Space

FACTS = made_up_facts(forward_flops=1000, backward_flops=2000, reference_passes=30.0)
RAW = {
    "budget": {"log": [0.02, 0.6]},
    "switch": {"uniform": [0.05, 0.9]},
    "subset_share": {"log": [0.02, 0.5]},
    "transition": {"choice": ["keep", "shrink_perturb"]},
    "shrink_perturb.shrink": {"uniform": [0.2, 1.0]},
    "lr": {"log": [0.02, 0.5]},
}
SPACE = Space.from_mapping(RAW)
TARGET = 0.9
QUICK = [name for name in SAMPLERS if name != "gp"]  # which takes half a second an ask
Metric = Callable[[Proposal], float]


def score(proposal: Proposal) -> float:
    """Feasible from a budget of 0.1 on at lr 0.1, where the subset arm is a little better."""
    lr = math.log(proposal.coordinates["lr"] / 0.1)
    bonus = 0.02 if proposal.policy.arm == "subset" else 0.0
    return TARGET + 0.05 * math.log(proposal.cost / 0.1) + bonus - 0.02 * lr**2


def noisy(proposal: Proposal) -> float:
    return score(proposal) + 0.003 * float(np.random.default_rng(proposal.seed).standard_normal())


def make(trials: int = 20, *, storage: Any = None, **options: Any) -> Search:
    kept = {key: options.pop(key) for key in ("space", "why_not", "higher_is_better", "target") if key in options}
    problem = SearchProblem(**{"space": SPACE, "facts": FACTS, "target": TARGET} | kept)
    return Search(problem, SearchSettings(**{"trials": trials, "sampler": "random"} | options), storage=storage)


def ask(search: Search) -> Proposal:
    proposal = search.propose()
    assert not isinstance(proposal, Pause)
    return proposal


def drive(search: Search, metric: Metric = score, count: int | None = None) -> list[Proposal]:
    """Run trials one after another; return the proposals."""
    proposals = []
    for _ in itertools.count() if count is None else range(count):
        proposal = search.propose()
        if isinstance(proposal, Pause):
            break
        search.tell(proposal.number, Outcome(cause="finished", metric=metric(proposal)))
        proposals.append(proposal)
    return proposals


def essence(proposals: list[Proposal]) -> list[tuple[Any, ...]]:
    return [(p.coordinates, p.seed, p.confirms) for p in proposals]


# Arms.


@pytest.mark.parametrize("sampler", QUICK)
@pytest.mark.parametrize("trials", [1, 2, 7, 30])
def test_full_arm_is_first_and_gets_a_third(sampler: str, trials: int) -> None:
    arms = [p.coordinates["arm"] for p in drive(make(trials, sampler=sampler), noisy)]
    assert len(arms) == trials or (sampler == "frontier" and len(arms) < trials)  # which ends when nothing pays
    assert arms[0] == "full"
    for n in range(1, trials + 1):
        assert 3 * arms[:n].count("full") >= n
    assert trials < 7 or "subset" in arms
    assert trials < 7 or sampler == "frontier" or 3 * arms.count("subset") >= trials - 2


def test_a_space_without_the_subset_arm() -> None:
    space = Space.from_mapping({"arm": "full", "budget": {"log": [0.02, 0.6]}})
    search = make(8, space=space, sampler="auto", target=0.5)
    proposals = drive(search, lambda p: p.cost + 0.01 * (p.seed % 7))
    assert 2 < len(proposals) <= 8
    assert {p.coordinates["arm"] for p in proposals} == {"full"}


# Bounds and skips.


def record(number: int, cost: float, metric: float, arm: str = "full") -> TrialRecord:
    point = SPACE.sample(np.random.default_rng(int(cost * 1e6)), arm) | {"budget": cost}
    outcome = Outcome(cause="finished", metric=metric)
    return TrialRecord(
        number=number,
        point=type(SPACE.sample(np.random.default_rng(0)))(point),
        seed=number,
        cost=cost,
        outcome=outcome,
    )


def evidence_of(*trials: tuple[float, float], noise: float | None = None) -> SearchEvidence:
    evidence = SearchEvidence(0.9, noise)
    for number, (cost, metric) in enumerate(trials):
        one = record(number, cost, metric)
        evidence.start(one)
        evidence.end(one, metric)
    return evidence


def test_one_seed_never_sets_a_bound_and_two_do() -> None:
    assert evidence_of((0.3, 0.99)).bound("full") == math.inf
    assert evidence_of((0.3, 0.99), (0.2, 0.99)).bound("full") == math.inf
    two = evidence_of((0.3, 0.95), (0.3, 0.951))
    assert two.bound("full") == 0.3
    assert two.bound("subset") == math.inf


def test_luck_of_two_seeds_within_noise_sets_no_bound() -> None:
    assert evidence_of((0.3, 0.901), (0.3, 0.9), noise=0.01).bound("full") == math.inf
    assert evidence_of((0.3, 0.92), (0.3, 0.89)).bound("full") == math.inf


def test_a_bound_is_lifted_by_a_seed_that_fails() -> None:
    assert evidence_of((0.3, 0.91), (0.3, 0.912), (0.3, 0.8)).bound("full") == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_lie_below_the_bound_of_their_arm(sampler: str) -> None:
    search = make(16, sampler=sampler)
    bounds = {"full": math.inf, "subset": math.inf}
    seen: dict[Any, int] = {}
    for proposal in drive(search, score):
        arm, point = proposal.coordinates["arm"], proposal.coordinates
        if proposal.confirms is None:
            assert proposal.cost < bounds[arm]
        seen[point] = seen.get(point, 0) + (score(proposal) >= TARGET)
        if seen[point] >= 2:
            bounds[arm] = min(bounds[arm], proposal.cost)
    assert min(bounds.values()) < math.inf


def test_a_proposal_above_the_bound_is_moved_and_counted_as_skipped() -> None:
    search = make(60)
    proposals = drive(search, lambda p: 0.95)  # everything passes
    assert search.counts.skipped > 0
    assert search.counts.finished == len(proposals) <= 60


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_cannot_improve_does_not_stall(sampler: str) -> None:
    raw = RAW | {"budget": {"choice": [0.1, 0.2]}, "lr": {"choice": [0.1, 0.2]}, "switch": 0.5, "subset_share": 0.1}
    dropped = ("transition", "shrink_perturb.shrink")
    space = Space.from_mapping({key: value for key, value in raw.items() if key not in dropped})
    search = make(50, space=space, sampler=sampler, target=0.5)
    proposals = drive(search, lambda p: 0.9)
    assert len(proposals) <= 50
    assert search.propose() is DONE
    assert search.shortlist.best() is not None
    assert search.shortlist.best().cost == 0.1


def test_invalid_policies_are_skipped_and_never_proposed() -> None:
    def invalid(policy: Policy) -> str | None:
        return "selection costs too much" if policy.phases[0].share < 0.1 else None

    search = make(30, why_not=invalid)
    assert all(invalid(p.policy) is None for p in drive(search, noisy))
    assert search.counts.skipped > 0
    assert search.counts.finished == 30


@pytest.mark.parametrize("sampler", QUICK)
def test_plain_training_on_all_data_is_tried_in_the_full_arm_alone(sampler: str) -> None:
    raw = {**RAW, "subset_share": {"choice": [0.1, 1.0]}, "order": {"choice": ["uniform", "rs2"]}}
    search = make(24, space=Space.from_mapping(raw), sampler=sampler)
    proposals = drive(search, noisy)
    assert len(proposals) == 24
    assert all(proposal.policy.arm == proposal.coordinates["arm"] for proposal in proposals)
    whole = [p for p in proposals if p.coordinates.get("subset_share") == 1]
    assert whole
    assert {phase.order for proposal in whole for phase in proposal.policy.phases} == {"rs2"}
    assert search.counts.skipped > 0


def test_a_space_of_invalid_policies_ends() -> None:
    search = make(30, why_not=lambda policy: "no")
    assert search.propose() is DONE
    assert search.counts.finished == 0


# Constraints, and what Optuna is told.


def run_all_causes(storage: Any) -> Search:
    search = make(12, storage=storage, parallel=12)
    for i in range(12):
        proposal = ask(search)
        metric = score(proposal)
        outcome = [
            Outcome(cause="finished", metric=metric),
            Outcome(cause="stopped", metric=metric, share_used=0.3),
            Outcome(cause="finished", metric=math.nan),
            Outcome(cause="diverged", metric=math.inf, share_used=0.1),
            Outcome(cause="failed", message="out of memory", share_used=0.0),
        ][i % 5]
        search.tell(proposal.number, outcome)
    return search


def test_every_trial_has_the_constraint_and_only_finished_ones_can_be_feasible() -> None:
    storage = optuna.storages.InMemoryStorage()
    search = run_all_causes(storage)
    study = optuna.load_study(study_name="search", storage=storage)
    for trial, kept in zip(study.trials, search.records, strict=True):
        assert trial.constraints.keys() == {"accuracy", "0"}  # its name, and the list that dashboards read
        assert trial.state.is_finished()
        assert kept.outcome is not None
        if kept.outcome.cause == "finished":
            assert kept.outcome.metric is not None
            assert trial.constraints["accuracy"] == pytest.approx(TARGET - kept.outcome.metric)
            assert trial.value == kept.cost
        else:
            assert trial.constraints["accuracy"] > 0
            assert trial.value in (None, kept.cost)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    counts = search.counts
    assert (counts.finished, counts.stopped, counts.failed, counts.diverged) == (3, 3, 6, 4)


def test_a_trial_that_did_not_finish_is_never_the_best() -> None:
    for outcome in (
        Outcome(cause="stopped", metric=0.99, share_used=0.1),
        Outcome(cause="diverged"),
        Outcome(cause="failed"),
        Outcome(cause="finished", metric=math.nan),
    ):
        search = make(12)
        while not isinstance(proposal := search.propose(), Pause):
            search.tell(proposal.number, outcome)
        assert search.shortlist.best() is None
        assert search.shortlist.best(arm="full") is None
        assert search.shortlist.candidates(3) == ()


def test_tell_is_for_running_trials_and_once() -> None:
    search = make(3)
    proposal = ask(search)
    search.tell(proposal.number, Outcome(cause="finished", metric=0.5))
    with pytest.raises(ValueError, match=r"trial must be one that runs, got 0. Running: none."):
        search.tell(proposal.number, Outcome(cause="finished", metric=0.5))
    second = ask(search)
    with pytest.raises(ValueError, match=r"metric must be given for the finished trial 1, got None."):
        search.tell(second.number, Outcome(cause="finished"))


def test_lower_is_better() -> None:
    search = make(30, sampler="frontier", higher_is_better=False, target=-TARGET)
    drive(search, lambda p: -score(p))
    best = search.shortlist.best()
    assert best is not None
    assert best.metric <= -TARGET
    mirror = make(30, sampler="frontier")
    drive(mirror)
    assert mirror.shortlist.best() is not None
    assert mirror.shortlist.best().coordinates == best.coordinates


# Parallel work, leftovers, restart.


def test_waits_while_all_places_are_taken() -> None:
    search = make(4, parallel=2)
    first, second = ask(search), ask(search)
    assert search.propose() is WAIT
    search.tell(second.number, Outcome(cause="finished", metric=0.5))
    assert search.propose() is WAIT  # the third is chosen by what the first showed, whichever ends first
    search.tell(first.number, Outcome(cause="finished", metric=0.5))
    ask(search)
    ask(search)
    assert search.propose() is DONE
    assert len({p.seed for p in search.records}) == 4


def test_parallel_proposals_differ() -> None:
    search = make(20, parallel=5, sampler="frontier")
    drive(search, count=10)
    asked = [ask(search) for _ in range(5)]
    new = [p.coordinates for p in asked if p.confirms is None]
    assert len(set(new)) == len(new)
    assert len({p.seed for p in asked}) == 5


@pytest.mark.parametrize("sampler", QUICK)
def test_a_search_continued_from_its_journal_is_the_same_search(tmp_path: Path, sampler: str) -> None:
    whole = make(14, sampler=sampler)
    expected = essence(drive(whole, noisy))

    def reopened() -> Search:
        return make(14, sampler=sampler, storage=JournalFileBackend(str(tmp_path / "journal")))

    found = []
    for _ in range(7):
        found += drive(reopened(), noisy, count=2)
    assert essence(found) == expected
    last = reopened()
    assert last.propose() is DONE
    assert last.counts == whole.counts
    assert last.shortlist.best() == whole.shortlist.best()
    assert last.records == whole.records


def test_more_trials_extend_a_finished_search(tmp_path: Path) -> None:
    backend = JournalFileBackend(str(tmp_path / "journal"))
    assert len(drive(make(6, storage=backend), noisy)) == 6
    more = make(10, storage=backend)
    assert len(drive(more, noisy)) == 4
    assert more.counts.finished == 10


def test_leftovers_get_their_recorded_outcome_or_run_again_as_they_were(tmp_path: Path) -> None:
    def reopened() -> Search:
        return make(6, parallel=3, storage=JournalFileBackend(str(tmp_path / "journal")))

    before = [ask(search) for search in [reopened()] for _ in range(3)]
    search = reopened()
    assert list(search.leftovers) == [0, 1, 2]
    search.tell(1, Outcome(cause="finished", metric=0.95))
    assert list(search.leftovers) == [0, 2]
    assert search.recover() == (before[0], before[2])
    assert search.propose() is WAIT  # the fourth is chosen by what the first shows
    for proposal in before[::2]:
        search.tell(proposal.number, Outcome(cause="finished", metric=0.5))
    drive(search)
    counts = reopened().counts
    assert (counts.finished, counts.failed, counts.running) == (6, 0, 0)


def test_leftovers_run_again_without_being_asked_for(tmp_path: Path) -> None:
    backend = JournalFileBackend(str(tmp_path / "journal"))
    lost = ask(make(3, storage=backend))
    assert ask(make(3, storage=backend)) == lost


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("sampler", QUICK)
def test_a_search_that_is_cut_off_at_any_moment_ends_as_if_it_had_not_been(
    tmp_path: Path, sampler: str, parallel: int
) -> None:
    """Its driver dies at random between any two calls, its runs go on from before points that they had told."""
    whole = make(24, sampler=sampler, parallel=parallel, noise=0.002)
    _drive_with_curves(whole, random.Random(0), lambda: 0.0)
    assert whole.counts.stopped or sampler == "frontier"
    rng = random.Random(1)
    for _ in range(1000):
        storage = FileJournal(tmp_path / "journal")
        search = make(24, sampler=sampler, parallel=parallel, noise=0.002, storage=storage)
        if _drive_with_curves(search, rng, rng.random):
            break
    assert search.records == whole.records
    assert search.counts == whole.counts
    assert search.shortlist.best() == whole.shortlist.best()


def _drive_with_curves(search: Search, rng: random.Random, chance: Callable[[], float]) -> bool:
    """Run trials with learning curves, in random order; False if the driver died, which it does above a chance."""
    running = list(search.recover())
    while True:
        while not isinstance(proposal := search.propose(), Pause):
            running.append(proposal)
            if chance() > 0.9:
                return False
        if not running:
            return True
        proposal = running.pop(rng.randrange(len(running)))
        points = [(share, noisy(proposal) - 0.05 * (1 - share)) for share in (0.25, 0.5, 0.75)]
        outcome = Outcome(cause="finished", metric=noisy(proposal))
        for i, point in enumerate(points):
            if search.observe(proposal.number, *point):
                outcome, points = Outcome(cause="stopped", share_used=point[0]), points[: i + 1]
                break
            if chance() > 0.97:
                return False
        search.observe_all(proposal.number, points)
        if chance() > 0.95:
            return False
        search.tell(proposal.number, outcome)


def test_the_point_before_an_interruption_is_told_again(tmp_path: Path) -> None:
    search = make(3)
    number = ask(search).number
    for share, metric in ((0.25, 0.1), (0.5, 0.2), (0.25, 0.1), (0.5, 0.3)):
        search.observe(number, share, metric)
    assert search.records[0].curve == ((0.25, 0.1), (0.5, 0.3))
    search.observe_all(number, [(0.25, 0.1), (0.5, 0.2), (0.75, 0.4)])
    assert search.records[0].curve == ((0.25, 0.1), (0.5, 0.2), (0.75, 0.4))


def test_a_driver_killed_within_a_write_loses_doubles_and_shifts_nothing(tmp_path: Path) -> None:
    """Cut the journal after every line in turn, and go on from there."""
    path = tmp_path / "journal"
    whole = make(4, storage=JournalFileBackend(str(path)))
    drive(whole, noisy)
    lines = path.read_bytes().splitlines(keepends=True)
    for cut in range(3, len(lines)):
        part = tmp_path / f"cut{cut}"
        part.write_bytes(b"".join(lines[:cut]))
        search = make(4, storage=JournalFileBackend(str(part)))
        drive(search, noisy)
        assert search.counts.finished == 4
        assert search.counts.running == 0
        assert search.records == whole.records
        study = optuna.load_study(
            study_name="search", storage=optuna.storages.JournalStorage(JournalFileBackend(str(part)))
        )
        assert all(trial.state.is_finished() for trial in study.trials)


def test_a_journal_of_another_study_is_refused(tmp_path: Path) -> None:
    backend = JournalFileBackend(str(tmp_path / "journal"))
    make(3, storage=backend)
    with pytest.raises(StudyError, match=r"made with other settings of: seed, target. Use another --run-id"):
        make(3, storage=backend, target=0.5, seed=9)


@pytest.mark.parametrize(("sampler", "goes_on"), [("frontier", True), ("random", False)])
def test_a_journal_without_a_version_goes_on_only_where_proposals_are_as_they_were(
    tmp_path: Path, sampler: str, goes_on: bool
) -> None:
    """As those of before versions were noted."""
    path = tmp_path / "journal"
    drive(make(6, sampler=sampler, storage=JournalFileBackend(str(path))), noisy, count=5)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"proposals"' not in line))
    assert len(make(5, sampler=sampler, storage=JournalFileBackend(str(path))).records) == 5
    if goes_on:
        assert drive(make(20, sampler=sampler, storage=JournalFileBackend(str(path))), noisy)
        return
    with pytest.raises(StudyError) as caught:
        make(9, sampler=sampler, storage=JournalFileBackend(str(path)))
    assert str(caught.value) == (
        "the search of 'search' was begun by a version that proposes other trials after the same ones: it would be no "
        "search of either. Go on with the version that began it, or choose another --run-id; `show` and `report` still "
        "read it."
    )


def test_a_damaged_journal_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    drive(make(3, storage=JournalFileBackend(str(path))))
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(StudyError, match=r"the journal of the study is damaged .* Restore it from a copy"):
        make(3, storage=JournalFileBackend(str(path)))


# Early stopping.


def test_the_rule_waits_and_then_uses_the_largest_gain() -> None:
    rule = GainRule(target=0.9)
    for i in range(NUM_FINISHED):
        assert rule.projection(0.5, 0.1, 0.0) is None
        rule.add([(0.25, 0.2), (0.5, 0.4)], 0.5 + 0.01 * i)
    assert rule.projection(0.5, 0.1, 0.0) == pytest.approx(0.1 + 0.57 - 0.4)
    assert rule.projection(0.3, 0.1, 0.01) == pytest.approx(0.1 + 0.57 - 0.2 + 0.02)
    assert rule.projection(0.1, 0.1, 0.0) is None
    assert rule.is_hopeless(0.5, 0.72, 0.0)
    assert not rule.is_hopeless(0.5, 0.74, 0.0)


def test_checks_are_a_share_of_the_trials() -> None:
    drawn = [is_stop_audit(3, number, 0.1) for number in range(4000)]
    assert 0.08 < np.mean(drawn) < 0.12
    assert not any(is_stop_audit(3, number, 0.0) for number in range(100))
    assert all(is_stop_audit(3, number, 1.0) for number in range(100))


def watch(search: Search, gain: Callable[[Proposal], float]) -> list[tuple[Proposal, bool]]:
    """Each trial shows its final score less `gain` halfway; whether it was stopped there."""
    done = []
    while not isinstance(proposal := search.propose(), Pause):
        stop = search.observe(proposal.number, 0.5, score(proposal) - gain(proposal))
        if stop:
            search.tell(proposal.number, Outcome(cause="stopped", metric=None, share_used=0.5))
        else:
            search.tell(proposal.number, Outcome(cause="finished", metric=score(proposal)))
        done.append((proposal, stop))
    return done


def test_hopeless_trials_are_stopped_but_not_before_enough_have_finished() -> None:
    search = make(60, noise=0.001, check_stops=0.0)
    done = watch(search, lambda p: 0.01)
    assert not any(stop for _, stop in done[:NUM_FINISHED])
    stopped = [p for p, stop in done if stop]
    assert search.counts.stopped == len(stopped) > 5
    assert all(score(p) < TARGET for p in stopped)
    assert search.shortlist.best() is not None


def test_nothing_is_stopped_while_the_noise_is_unknown() -> None:
    search = make(20)
    assert not any(stop for _, stop in watch(search, lambda p: 0.01)[: NUM_FINISHED + 1])


def test_false_stops_are_measured() -> None:
    search = make(80, noise=0.001, check_stops=1.0)
    # Cheap trials gain much more in their second half, and only they: the rule learns that when it checks.
    done = watch(search, lambda p: 0.01 if p.number < NUM_FINISHED + 2 else 0.3)
    counts = search.counts
    assert not any(stop for _, stop in done)
    assert counts.stopped == 0
    assert counts.checked >= 1
    checks = [r for r in search.records if r.is_stop_audit]
    false = [r for r in checks if r.outcome is not None and (r.outcome.metric or 0.0) >= TARGET]
    assert (counts.checked, counts.false_stops) == (len(checks), len(false))


def test_observing_nan_is_left_to_tell() -> None:
    search = make(3, noise=0.1)
    assert search.observe(ask(search).number, 0.5, math.nan) is False


# Manners.


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_proposes_the_same_and_another_does_not(sampler: str) -> None:
    runs = [essence(drive(make(10, sampler=sampler, seed=seed), noisy)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_global_random_states_and_the_terminal_are_left_alone(sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
    verbosity = optuna.logging.get_verbosity()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drive(make(9, sampler=sampler), noisy)
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_candidates_are_cheapest_first_and_distinct() -> None:
    search = make(40, sampler="frontier", noise=0.003)
    drive(search, noisy)
    found = search.shortlist.candidates(3)
    assert [c.cost for c in found] == sorted({c.cost for c in found})
    assert found[0].num_seeds >= 2
    assert search.shortlist.best() in found
    full = search.shortlist.best(arm="full")
    assert full is not None
    assert full.coordinates["arm"] == "full"


def test_proposals_are_those_of_version_0_1_whose_coordinates_had_other_names() -> None:
    proposals = drive(make(40), score, 12)  # where version 0.1 came, at the same seed
    assert (proposals[9].cost, proposals[11].cost) == pytest.approx((0.11595860118137791, 0.11721482050605715))
    assert [p.coordinates["transition"] for p in proposals[5:8]] == ["keep", "shrink_perturb", "keep"]
    shrinks = [p.coordinates.get("shrink_perturb.shrink") for p in (proposals[6], proposals[9])]
    assert shrinks == pytest.approx([0.9613418796749285, 0.712373592827664])


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_model_is_fitted_once_for_each_trial_that_ends(parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    monkeypatch.setattr(belief, "fit", lambda data, earlier: fits.append(len(data.score)) or fit(data, earlier))
    search = make(12, sampler="frontier", parallel=parallel, noise=0.003)
    waiting: list[Proposal] = []
    while True:
        while not isinstance(proposal := search.propose(), Pause):
            waiting.append(proposal)
            search.shortlist.leaders("full", 3)
        if not waiting:
            break
        ended = waiting.pop()
        search.shortlist.best()
        search.tell(ended.number, Outcome(cause="finished", metric=noisy(ended)))
    assert len(search.records) > 8
    assert len(fits) <= len(search.records) * (1 if parallel == 1 else 2)


def test_every_sampler_that_a_study_may_name_is_there() -> None:
    assert tuple(SOURCES) == SAMPLERS


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        SearchSettings(trials=0)
    with pytest.raises(ValueError, match="sampler must be one of auto, frontier, gp, tpe, random, got 'cma'"):
        SearchSettings(trials=1, sampler="cma")  # type: ignore[arg-type]
    assert SearchSettings(trials=100).source == "frontier"
    assert SearchSettings(trials=101).source == "tpe"
