"""What it costs to look at trials on their way, and what stopping them early saves: in FLOPs, by the number of looks.

Searches of a study file are carried out in this process, in their own order, with every trial that would be stopped run
to its end (each is an audit). Each is measured at twenty shares of its compute. The rule of early stopping then goes
over the same trials as if it had seen them at the tenths (nine looks, as it once was), or at the quarters (three): what
it would have saved, what it would have stopped wrongly, and what the looks cost. A trial that would have been stopped
counts as trained up to there. `study.execute.looks` states its saving by this.

    python benchmarks/looks.py search_spaces/digits.yaml --studies 8
    python benchmarks/looks.py search_spaces/adult.yaml --studies 2 --data-root DIR
    python benchmarks/looks.py search_spaces/mnist.yaml --studies 1 --trials 20 --data-root DIR
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from subsettune import train
from subsettune.data import DataPaths
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy, conventional
from subsettune.study.execute.looks import LOOKS, Looks
from subsettune.study.preflight import resolve_study
from subsettune.study.search.early_stopping import GainRule, is_stop_audit
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import Outcome, Proposal, Search
from subsettune.study.spec.definition import REFERENCE_POINTS, Study
from subsettune.study.spec.yaml_file import read

POINTS, AUDITED = 20, 0.1
TENTHS = tuple(round(k / 10, 2) for k in range(1, 10))
QUARTERS = tuple(k / (LOOKS + 1) for k in range(1, LOOKS + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial that was run to its end: scores by share of its compute, and FLOPs."""

    number: int
    flops: int
    curve: tuple[tuple[float, float], ...]
    final: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search in which nothing was stopped.

    Args:
        seed: of the search.
        target: score that counts as matched.
        noise: standard deviation of the reference's score.
        trials: in order.
    """

    seed: int
    target: float
    noise: float
    trials: tuple[Trial, ...]


def search(study: Study, places: DataPaths, seed: int) -> Searched:
    """Carry out the reference and a search, one run after the other."""
    admitted = resolve_study(study, places)
    facts, sign = admitted.facts, 1 if study.task.higher_is_better else -1
    options = train.RunOptions(evaluations=POINTS, device="cpu", num_threads=1, places=places)

    def score(policy: Policy, run_seed: int) -> train.RunResult:
        return train.run(study.task, policy, run_seed, options=options)

    first = 1000 * (seed + 1)
    references = [score(conventional(facts), first + i).metrics["validation"] for i in range(3)]
    target = study.task.target(statistics.fmean(references))
    problem = SearchProblem(
        space=admitted.space,
        facts=facts,
        target=target,
        higher_is_better=study.task.higher_is_better,
        why_not=lambda policy: _why_not(study, policy, facts),
    )
    noise = max(statistics.stdev(references), 0.5 / len(admitted.data.validation))
    settings = SearchSettings(trials=study.study.trials, seed=seed, noise=noise, check_stops=1.0)
    searching, trials = Search(problem, settings), []
    while isinstance(proposal := searching.propose(), Proposal):
        result = score(proposal.policy, proposal.seed)
        curve = [(point.share, point.metric) for point in result.curve if point.metric is not None and point.share < 1]
        for share, metric in curve:
            searching.observe(proposal.number, share, metric)
        final = result.metrics.get("validation")
        searching.tell(proposal.number, Outcome(cause=result.cause, metric=final))
        scores = tuple((share, sign * metric) for share, metric in curve)
        flops = proposal.policy.cost(facts)
        trials.append(
            Trial(number=proposal.number, flops=flops, curve=scores, final=None if final is None else sign * final)
        )
    return Searched(seed=seed, target=sign * target, noise=noise, trials=tuple(trials))


def _why_not(study: Study, policy: Policy, facts: TaskFacts) -> str | None:
    try:
        train.check(study.task, policy, facts)
    except ConfigError as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What the rule makes of a search: FLOPs that stopping saves, FLOPs of looks, stops, and wrong ones among them."""

    saved: float
    looked: int
    stops: int
    false_stops: int


def replay(searched: Searched, shares_of: dict[int, tuple[float, ...]], measure_flops: int) -> Replayed:
    """The rule over the trials of a search, each looked at at its own shares, by number."""
    rule, saved, looked, stops, false_stops = GainRule(searched.target), 0.0, 0, 0, 0
    for trial in searched.trials:
        seen: list[tuple[float, float]] = []
        audited = is_stop_audit(searched.seed, trial.number, AUDITED)
        stopped = False
        for share in shares_of[trial.number]:
            at = [score for used, score in trial.curve if abs(used - share) < 1e-9]
            if not at:
                continue
            looked += measure_flops
            seen.append((share, at[0]))
            if not audited and rule.is_hopeless(share, at[0], searched.noise):
                saved, stops, stopped = saved + (1 - share) * trial.flops, stops + 1, True
                false_stops += trial.final is not None and trial.final >= searched.target
                break
        if not stopped and trial.final is not None:
            rule.add(seen, trial.final)
    return Replayed(saved=saved, looked=looked, stops=stops, false_stops=false_stops)


def report(study: Study, facts: TaskFacts, num_validation: int, found: Sequence[Searched]) -> None:
    """Print a table: shares of the searches' compute if nothing were stopped."""
    measure, looks = num_validation * facts.forward_flops, Looks(facts=facts, num_validation=num_validation)
    total = sum(trial.flops for one in found for trial in one.trials)
    ends = sum(len(one.trials) for one in found) * measure
    print(f"{len(found)} searches of {study.study.trials} trials, N {facts.num_examples}, {num_validation} validation")
    print("| looks | looks cost | stopping saves | stops | wrong | search, end of each trial included |")
    print("|---|---|---|---|---|---|")

    def row(name: str, shares_of: Sequence[dict[int, tuple[float, ...]]]) -> None:
        made = [replay(one, shares, measure) for one, shares in zip(found, shares_of, strict=True)]
        looked, saved = sum(m.looked for m in made), sum(m.saved for m in made)
        stops, wrong = sum(m.stops for m in made), sum(m.false_stops for m in made)
        spent = (total - saved + looked + ends) / 1e9
        print(f"| {name} | {looked / total:.1%} | {saved / total:.1%} | {stops} | {wrong} | {spent:.4g} GFLOP |")

    def paying(trial: Trial) -> tuple[float, ...]:
        return QUARTERS if looks.points_of("trial", trial.flops) > 1 else ()

    row("none", [{t.number: () for t in one.trials} for one in found])
    row("9, always", [{t.number: TENTHS for t in one.trials} for one in found])
    row("3, always", [{t.number: QUARTERS for t in one.trials} for one in found])
    row("3, where it pays", [{t.number: paying(t) for t in one.trials} for one in found])
    for name, points in (("ten points", 10), (f"{REFERENCE_POINTS} points", REFERENCE_POINTS), ("the end", 1)):
        share = points * measure / facts.reference_flops
        print(f"A run of the reference, evaluated at {name}: {share:.2%} of its compute; {points * measure:.3g} FLOP.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a study file")
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--trials", type=int, help="default: the file's")
    parser.add_argument("--data-root")
    given = parser.parse_args()
    study, places = read(given.study), DataPaths(data_root=given.data_root)
    if given.trials is not None:
        study = replace(study, study=replace(study.study, trials=given.trials))
    admitted = resolve_study(study, places)
    found = []
    for seed in range(given.studies):
        found.append(search(study, places, seed))
        print(f"search {seed}: {len(found[-1].trials)} trials", flush=True)
    report(study, admitted.facts, len(admitted.data.validation), found)


if __name__ == "__main__":
    main()
