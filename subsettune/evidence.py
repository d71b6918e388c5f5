"""What a bundle claims and by which runs: the numbers of verification as frozen values, and the page that tells them.

Plain numbers with a JSON form; needs neither torch nor ray. `of_study` reads a finished study, `page` writes README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subsettune import config
from subsettune.config import NOT_NEGATIVE, POSITIVE, FrozenDict, setting
from subsettune.policy import FULL, Phase, Policy

if TYPE_CHECKING:
    from subsettune.bundle import Bundle
    from subsettune.study.records import RunRecord
    from subsettune.study.results import Candidate, StudyView

REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """One training.

    Args:
        seed: of the run; runs of different policies with one seed are paired.
        metric: of the final weights on the test split; null if the run gave none.
        validation: of the final weights on the validation split; null likewise.
    """

    seed: int
    metric: float | None
    validation: float | None

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEvidence:
    """A policy that was verified, or the reference, or a control.

    Args:
        name: `reference`, `candidate-1`, `shorter` (the best of the full arm), `random` (the random control), ...
        policy: what was trained.
        passes: compute of one training, in passes.
        flops: the same in FLOPs.
        seconds: mean of the runs, selection included; null without runs.
        saving: 1 - flops / FLOPs of the reference.
        metric: mean over the runs on the test split; null without runs.
        passed: whether it matches the reference; null if it was not tested.
        verdict: of the test, as `subsettune.study.verify.Verdict` has it; empty for the reference.
        runs: in order of their seeds.
    """

    name: str
    policy: Policy
    passes: float = setting(rule=POSITIVE)
    flops: int = setting(rule=NOT_NEGATIVE)
    seconds: float | None = None
    saving: float
    metric: float | None = None
    passed: bool | None = None
    verdict: FrozenDict = setting(FrozenDict())
    runs: tuple[RunEvidence, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All numbers behind a bundle.

    Args:
        run_id: of the study.
        headline: what the study found, in one sentence.
        metric: its name.
        higher_is_better: its direction.
        margin: how far short of the reference still counts as matched, in the metric's units.
        alpha: error rate of the verification.
        target: the worst validation metric that the search counted as matched.
        winner: name of the candidate that the bundle holds.
        statement: what the test says and what it does not.
        reference: the conventional recipe.
        candidates: in the order in which they were tested, controls last.
        saving_recipe: compute saved against the recipe, a share of it.
        saving_shorter: compute saved against the best shorter schedule that passed, a share of it; null without one.
        tuning_flops: everything that the study spent.
        break_even: future trainings that repay the tuning; null if none do.
        versions: of the packages.
        hardware: that the study ran on.
        command: that ran it.
    """

    run_id: str
    headline: str
    metric: str
    higher_is_better: bool
    margin: float = setting(rule=POSITIVE)
    alpha: float = setting(rule=POSITIVE)
    target: float
    winner: str
    statement: str
    reference: PolicyEvidence
    candidates: tuple[PolicyEvidence, ...] = setting(rule=config.NOT_EMPTY)
    saving_recipe: float
    saving_shorter: float | None
    tuning_flops: int
    break_even: int | None
    versions: FrozenDict
    hardware: FrozenDict
    command: str

    def __post_init__(self) -> None:
        config.check(self)
        if self.winner not in [candidate.name for candidate in self.candidates]:
            names = ", ".join(candidate.name for candidate in self.candidates)
            raise config.ConfigError(config.must("winner", f"one of {names}", self.winner))

    @property
    def best(self) -> PolicyEvidence:
        """The candidate that the bundle holds."""
        return next(candidate for candidate in self.candidates if candidate.name == self.winner)


def of_study(view: StudyView, winner: str) -> Evidence:
    """Gather the evidence of a study whose verification is over."""
    assert view.facts is not None and view.target is not None, "a verified study knows its facts"
    task, tuning = view.study.task, view.summary["tuning"]
    best, shorter = view.candidates[winner], _cheapest_shorter(view)
    return Evidence(
        run_id=view.run_id,
        headline=view.summary["headline"],
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        margin=task.tolerance,
        alpha=view.study.study.alpha,
        target=view.target,
        winner=winner,
        statement=_statement(view, winner),
        reference=_reference(view),
        candidates=tuple(_candidate(view, candidate) for candidate in view.candidates.values()),
        saving_recipe=1 - best.cost_flops / view.facts.reference_flops,
        saving_shorter=None if shorter is None else 1 - best.cost_flops / shorter.cost_flops,
        tuning_flops=tuning["flops"],
        break_even=tuning["break_even"],
        versions=FrozenDict(view.manifest["versions"]),
        hardware=FrozenDict(view.manifest["hardware"]),
        command=view.manifest.get("command", ""),
    )


def _statement(view: StudyView, winner: str) -> str:
    from subsettune.study.verify import Rules, Verdict, statement  # scipy, which following a bundle does without

    study = view.study.study
    rules = Rules(
        margin=view.study.task.tolerance,
        alpha=study.alpha,
        seeds=study.seeds,
        max_seeds=study.seed_cap,
        higher_is_better=view.study.task.higher_is_better,
    )
    return statement(Verdict(**view.verdicts[winner]), rules)


def _cheapest_shorter(view: StudyView) -> Candidate | None:
    passed = [
        candidate
        for name, candidate in view.candidates.items()
        if candidate.policy.arm == FULL and view.verdicts.get(name, {}).get("passed")
    ]
    return min(passed, key=lambda candidate: candidate.cost_flops, default=None)


def _reference(view: StudyView) -> PolicyEvidence:
    assert view.facts is not None
    tested = [record for record in view.verification if record.candidate == REFERENCE]
    return PolicyEvidence(
        name=REFERENCE,
        policy=view.reference[0].policy,
        passes=view.facts.reference_passes,
        flops=view.facts.reference_flops,
        seconds=_mean(record.seconds for record in view.reference),
        saving=0.0,
        metric=_mean(record.test_metric for record in tested),
        runs=_runs(tested),
    )


def _candidate(view: StudyView, candidate: Candidate) -> PolicyEvidence:
    assert view.facts is not None
    records = [record for record in view.verification if record.candidate == candidate.name]
    verdict = view.verdicts.get(candidate.name, {})
    return PolicyEvidence(
        name=candidate.name,
        policy=candidate.policy,
        passes=candidate.policy.passes,
        flops=candidate.cost_flops,
        seconds=_mean(record.seconds for record in records if record.cause == "finished"),
        saving=1 - candidate.cost_flops / view.facts.reference_flops,
        metric=_mean(record.test_metric for record in records),
        passed=verdict.get("passed"),
        verdict=FrozenDict({key: _finite(value) for key, value in verdict.items()}),
        runs=_runs(records),
    )


def _runs(records: Iterable[RunRecord]) -> tuple[RunEvidence, ...]:
    rows = sorted(records, key=lambda record: record.seed)
    return tuple(RunEvidence(seed=r.seed, metric=r.test_metric, validation=r.metric) for r in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the page ---------------------------------------------------------------------------------------------------------

_PAGE = """# {headline}

A training policy found by [subsettune](https://pypi.org/project/subsettune/), with the subset it trains on and the
evidence that it matches the conventional recipe. JSON and Parquet, no code. Made for `{source}` with the data
fingerprint `{fingerprint}`: other data are refused unless a transfer is asked for, which derives the sizes anew.

## The policy

{phases}
- Settings: {recipe}. {overridden}
- The learning rate follows the `{schedule}` schedule over the share of training compute used, across all phases.

A pass is the compute of one conventional epoch: forward and backward of all {num_examples:,} training examples.

## The numbers

{table}

Test split, mean over n seeds. *Difference* is {metric} minus the reference's, with the sign that makes more better;
*bound* is its one-sided lower bound, which has to lie above -{margin:g}; the verification as a whole errs with
probability {alpha:g} at most.

- Against the conventional recipe: {saving_recipe} of the compute saved.
- Against the best shorter schedule on all data: {saving_shorter}.
- {break_even}

## How to follow it

With the study file, on the same data:

```sh
subsettune train STUDY.yaml --policy {place} --seed 0
```

In training code of your own, with torch, NumPy and pyarrow alone:

```python
{code}
```

## What the evidence covers, and what it does not

{statement}

It was gathered for the task in `policy.json` (data, split, model, recipe) and for nothing else. {chosen}

Study `{run_id}`, `{command}`
on {hardware}; {versions}.

## Files

| file | content |
|---|---|
| `policy.json` | phases, settings, task, facts and data fingerprint |
| `subset.parquet` | {rows:,} rows: phase, rank, index (row of the training file), weight, label |
| `evidence.json` | every run with its seed and metrics, every verdict |
| `bundle.json` | schema version and SHA-256 of each file, checked on loading |
"""

_CODE = """from subsettune.bundle import Bundle
from subsettune.train import schedule

bundle = Bundle.load(PATH)
recipe, seen, total = bundle.recipe, 0, sum(bundle.visits)
factor = schedule.make(recipe.schedule, recipe.schedule_options)
for number, phase in enumerate(bundle.policy.phases):
    rows = ALL_ROWS if phase.is_full else bundle.subset(number).index  # .weight multiplies the losses
    end = seen + bundle.visits[number]  # examples that go through the network; first apply phase.entry
    while seen < end:
        seen += train_on_next_batch(rows, lr=recipe.lr * factor(seen / total))  # yours; gives the batch's size"""


def page(bundle: Bundle, place: str) -> str:
    """README.md of a bundle.

    Args:
        bundle: what it describes; its own `readme` is not read.
        place: where it will lie, for the command line.
    """
    from subsettune.report import words

    evidence, facts = bundle.evidence, bundle.facts
    changed = ", ".join(f"`{key}`" for key in bundle.policy.recipe)
    return _PAGE.format(
        headline=evidence.headline,
        source=bundle.task.data.source,
        fingerprint=bundle.fingerprint,
        phases="\n".join(_phase_line(bundle, number) for number in range(len(bundle.policy.phases))),
        recipe=_recipe(bundle),
        overridden=f"The policy's own: {changed}." if changed else "All are those of the conventional recipe.",
        schedule=bundle.recipe.schedule,
        num_examples=facts.num_examples,
        table=_table(evidence),
        metric=words.metric_name(evidence.metric),
        margin=evidence.margin,
        alpha=evidence.alpha,
        saving_recipe=words.saving_words(evidence.saving_recipe),
        saving_shorter=_shorter_words(bundle),
        break_even=_break_even(evidence),
        place=place,
        code=_CODE,
        statement=evidence.statement,
        chosen=_chosen(bundle),
        run_id=evidence.run_id,
        command=evidence.command or "subsettune tune",
        hardware=", ".join(f"{key} {value}" for key, value in evidence.hardware.items() if value) or "unknown hardware",
        versions=", ".join(f"{name} {version}" for name, version in evidence.versions.items()),
        rows=bundle.table.num_rows,
    )


def _phase_line(bundle: Bundle, number: int) -> str:
    phase, facts, visits = bundle.policy.phases[number], bundle.facts, bundle.visits[number]
    length = f"{phase.passes:.4g} passes: {visits:,} examples go through the network"
    opening = "" if phase.entry == "keep" else f"Open with `{phase.entry}`{_options(phase.entry_options)}. "
    order = "" if phase.order == "uniform" else f" Order: `{phase.order}`."
    return f"{number + 1}. {opening}Train on {_pool(phase, facts.num_examples)} for {length}.{order}"


def _pool(phase: Phase, num_examples: int) -> str:
    if phase.is_full:
        return f"all {num_examples:,} training examples"
    size = f"{phase.pool_size(num_examples):,} of {num_examples:,} examples (share {phase.share:.4g}"
    q = "" if phase.q is None else f", Q {phase.q:.4g}"
    return f"{size}{q}), chosen by `{phase.selector}`{_options(phase.selector_options)},"


def _options(options: FrozenDict) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else ""


def _recipe(bundle: Bundle) -> str:
    recipe = config.to_plain(bundle.recipe)
    given = {key: value for key, value in recipe.items() if key not in ("epochs", "schedule") and value}
    return ", ".join(f"{key} {value}" for key, value in given.items())


def _table(evidence: Evidence) -> str:
    from subsettune.report import words

    head = ["policy", "n", evidence.metric, "difference", "bound", "passes", "FLOPs", "seconds", "saving", "verdict"]
    rows = [head, ["---"] * len(head)]
    for entry in (evidence.reference, *evidence.candidates):
        reference, verdict = entry.name == REFERENCE, entry.verdict
        rows.append(
            [
                f"**{entry.name}**" if entry.name == evidence.winner else entry.name,
                str(len(entry.runs)),
                words.metric_words(entry.metric, evidence.margin),
                words.metric_words(verdict.get("mean_difference"), evidence.margin, signed=True),
                words.metric_words(verdict.get("lower_bound"), evidence.margin, signed=True),
                words.passes_words(entry.passes),
                words.flops_words(entry.flops),
                words.seconds_words(entry.seconds),
                words.NOTHING if reference else words.saving_words(entry.saving),
                words.NOTHING if reference else words.verdict_words(verdict, evidence.margin),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shorter_words(bundle: Bundle) -> str:
    from subsettune.report import words

    if bundle.policy.arm == FULL:
        return "this policy is one; no subset policy wins here"
    saving = bundle.evidence.saving_shorter
    if saving is None:
        return "none passed, so there is nothing to compare with"
    if saving >= 0:
        return f"{words.saving_words(saving)} of its compute saved"
    return f"it costs {words.saving_words(-saving)} more"


def _break_even(evidence: Evidence) -> str:
    from subsettune.report import words

    spent = f"The study itself spent {words.flops_words(evidence.tuning_flops)}"
    if evidence.break_even is None:
        return f"{spent}; no number of trainings repays it."
    return f"{spent}, which {evidence.break_even:,} future trainings with this policy repay."


def _chosen(bundle: Bundle) -> str:
    if bundle.policy.arm == FULL:
        return "No subset is chosen, so the table of rows is empty."
    return (
        f"The rows in `subset.parquet` are those that a run with seed {bundle.seed} chooses; the runs behind the numbers "
        "chose with their own seeds, so they speak for the way of choosing, not for these rows alone."
    )
