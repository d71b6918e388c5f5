"""README.md of a bundle: what it is, the policy in words, the numbers, how to follow it, what the evidence covers."""

from __future__ import annotations

from subsettune import config, text
from subsettune.bundle.bundle import Bundle
from subsettune.bundle.evidence import REFERENCE, Evidence, PolicyEvidence
from subsettune.bundle.usage import how
from subsettune.config import FrozenDict
from subsettune.policy import FULL, Phase, Soup
from subsettune.study.results.headline import verdict_words

_PAGE = """# A training policy for {source}

**{headline}**

Found by subsettune: a policy, the subset it trains on, and the evidence that it matches the conventional recipe, as
JSON and Parquet without code. It was made for the data with the fingerprint

    {fingerprint}

Other data are refused unless a transfer is asked for, which derives the sizes anew and chooses again.

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

{how}

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


def page(bundle: Bundle, place: str) -> str:
    """README.md of a bundle.

    Args:
        bundle: what it describes; its own `readme` is not read.
        place: where it will lie, for the command line.
    """
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
        metric=text.metric_name(evidence.metric),
        margin=evidence.margin,
        alpha=evidence.alpha,
        saving_recipe=text.saving_words(evidence.saving_recipe),
        saving_shorter=_shorter_words(bundle),
        break_even=_break_even(evidence),
        place=place,
        how=how(bundle, _held_out(bundle)),
        statement=evidence.statement,
        chosen=_chosen(bundle),
        run_id=evidence.run_id,
        command=evidence.command or "subsettune tune",
        hardware=_hardware(evidence),
        versions=", ".join(f"{name} {version}" for name, version in evidence.versions.items()),
        rows=bundle.table.num_rows,
    )


def _phase_line(bundle: Bundle, number: int) -> str:
    phase, n, visits = bundle.policy.phases[number], bundle.facts.num_examples, bundle.visits[number]
    opening = (
        "" if phase.transition == "keep" else f"Open with `{phase.transition}`{_options(phase.transition_options)}. "
    )
    passes = f"{phase.passes:.4g} passes"
    if phase.active_soup is not None:
        who = _soup(phase.active_soup)
        return f"{number + 1}. {opening}{who} {_pool(phase, n)} for {passes}: {visits:,} examples in all."
    length, order = f"{visits:,} examples go through the network", ""
    if phase.order != "uniform":
        length = f"batches of {visits:,} examples in all"
        order = f" Order: `{phase.order}`{_options(phase.order_options)}."
    return f"{number + 1}. {opening}Train on {_pool(phase, n)} for {passes}: {length}.{order}"


def _soup(soup: Soup) -> str:
    """The beginning of a sentence that a pool ends."""
    options = {name: getattr(soup, name) for name in ("density", "masks", "uncovered", "rand_augment")}
    return (
        f"Make a soup{_options(FrozenDict(options))}: average {soup.workers} workers that train apart on disjoint "
        "shards of"
    )


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
    return ", ".join(f"{key} {_value(value)}" for key, value in given.items() if _value(value))


def _value(value: object) -> str:
    """A setting in words; what is switched off is left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items() if inner)
    if value is True:
        return "on"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _held_out(bundle: Bundle) -> str:
    split = bundle.task.split
    test = "an official test file" if split.test is None else f"{split.test:.3g} for the test"
    return f"{split.validation:.3g} for validation, {test}, drawn by class with seed {split.seed}"


def _hardware(evidence: Evidence) -> str:
    parts = [
        text.bytes_words(value) if key.endswith("_bytes") else f"{key} {_value(value)}"
        for key, value in evidence.hardware.items()
        if value
    ]
    return ", ".join(parts) or "unknown hardware"


def _table(evidence: Evidence) -> str:
    head = ["policy", "n", evidence.metric, "difference", "bound", "passes", "FLOPs", "seconds", "saving", "verdict"]
    rows = [_row(entry, evidence) for entry in (evidence.reference, *evidence.candidates)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _row(entry: PolicyEvidence, evidence: Evidence) -> list[str]:
    verdict, margin = entry.judgement, evidence.margin
    bounds = (None, None) if verdict is None else (verdict.mean_difference, verdict.lower_bound)
    is_reference = entry.name == REFERENCE
    return [
        f"**{entry.name}**" if entry.name == evidence.winner else entry.name,
        str(len(entry.runs)),
        text.metric_words(entry.metric, margin),
        *(text.metric_words(bound, margin, signed=True) for bound in bounds),
        text.passes_words(entry.passes),
        text.flops_words(entry.flops),
        text.seconds_words(entry.seconds),
        text.NOTHING if is_reference else text.saving_words(entry.saving),
        text.NOTHING if is_reference else verdict_words(verdict, margin),
    ]


def _shorter_words(bundle: Bundle) -> str:
    if bundle.policy.arm == FULL:
        return "this policy is one; no subset policy wins here"
    saving = bundle.evidence.saving_shorter
    if saving is None:
        return "none passed, so there is nothing to compare with"
    if saving >= 0:
        return f"{text.saving_words(saving)} of its compute saved"
    return f"it costs {text.saving_words(-saving)} more"


def _break_even(evidence: Evidence) -> str:
    spent = f"The study itself spent {text.flops_words(evidence.tuning_flops)}"
    if evidence.break_even is None:
        return f"{spent}; no number of trainings repays it."
    return f"{spent}, which {evidence.break_even:,} future trainings with this policy repay."


def _chosen(bundle: Bundle) -> str:
    if all(phase.is_full for phase in bundle.policy.phases):
        return "No subset is chosen, so the table of rows is empty."
    told = (
        f"The rows in `subset.parquet` are those that a run with seed {bundle.seed} chooses; the runs behind the "
        "numbers chose with their own seeds, so they speak for the way of choosing, not for these rows alone."
    )
    if bundle.task.distortion.is_off:
        return told
    return (
        f"{told} The training data were distorted on purpose, as `task.distortion` says: labels in the table are the "
        "distorted ones, and phases on all data need the same distortion."
    )
