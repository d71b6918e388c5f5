"""README.md of a bundle: what it is, the policy in words, the numbers, how to follow it, what the evidence covers."""

from __future__ import annotations

import re
from functools import cache

import jinja2
from markupsafe import Markup

from subsettune import config, text
from subsettune.bundle.bundle import Bundle
from subsettune.bundle.evidence import REFERENCE, Evidence, PolicyEvidence
from subsettune.bundle.usage import called, usage
from subsettune.config import FrozenDict
from subsettune.data.split import DEFAULT_TEST
from subsettune.policy import FULL, Phase, Soup
from subsettune.study.results import verified_before
from subsettune.study.results.candidate import OWN, role_of
from subsettune.study.results.costs import ROUGH, seconds_saved
from subsettune.study.results.headline import verdict_words
from subsettune.study.results.sampled import these_alone
from subsettune.train.orders.base import is_blind
from subsettune.train.planning.phases import resolve

_PATH = re.compile(r"(?<![\w./:<])~?/(?:[^\s/'\"`]+/)+([^\s/'\"`]+)/?")  # absolute, of two parts or more, of no URI


def page(bundle: Bundle, place: str) -> str:
    """README.md of a bundle.

    Args:
        bundle: what it describes; its own `readme` is not read.
        place: where it will lie.
    """
    return _without_folders(_page(bundle, called(place)))


def how_to_use(bundle: Bundle, place: str) -> str:
    """How it is used, of its page: paragraphs and code.

    Args:
        bundle: as of `page`.
        place: where it lies.
    """
    return _without_folders(usage(bundle, called(place), _held_out(bundle)))


def _without_folders(text: str) -> str:
    """Of paths of the machine that a bundle was made on, the last part: the page goes to others."""
    return _PATH.sub(r"\1", text)


def _page(bundle: Bundle, place: str) -> str:
    evidence, facts = bundle.evidence, bundle.facts
    changed = ", ".join(f"`{key}`" for key in bundle.policy.recipe)
    return _template().render(
        headline=evidence.headline,
        source=bundle.task.data.source if bundle.task.has_data else bundle.task.words,
        made_for=_made_for(bundle),
        unit="FLOPs" if facts.unit == "FLOP" else "examples",
        phases="\n".join(_phase_line(bundle, number) for number in range(len(bundle.policy.phases))),
        recipe=_recipe(bundle),
        overridden=f"The policy's own: {changed}." if changed else "All are those of the conventional recipe.",
        schedule=f"`{bundle.recipe.schedule}` schedule{_options(bundle.recipe.schedule_options)}",
        content="a policy " if bundle.table.num_rows == 0 else "a policy, the subset it trains on, ",
        num_examples=f"{facts.num_examples:,}",
        table=_table(evidence, facts.unit),
        metric=text.metric_name(evidence.metric),
        margin=f"{evidence.margin:g}",
        alpha=f"{evidence.alpha:.3g}",
        saving_recipe=_saved(evidence.saving_recipe, "the compute") + _seconds_saved(evidence),
        saving_shorter=_shorter_words(bundle),
        error=text.change_words(evidence.best.error_increase),
        contrasts=_contrasts(evidence),
        needs=_needs(evidence),
        others=_others(evidence),
        break_even=" ".join([_break_even(evidence, facts.unit), *evidence.known_before]),
        usage=usage(bundle, place, _held_out(bundle)),
        statement="\n\n".join([evidence.statement, *_beside(evidence)]),
        chosen=_chosen(bundle),
        run_id=evidence.run_id,
        command=evidence.command or "subsettune tune",
        hardware=_hardware(evidence),
        versions=", ".join(f"{name} {version}" for name, version in evidence.versions.items()),
        rows=f"{bundle.table.num_rows:,}",
    )


def _beside(evidence: Evidence) -> list[str]:
    """What is to be known beside the statement: other test examples, earlier studies of the split, a confirmation."""
    sampled = evidence.sampled
    of_others = these_alone(evidence.metric) if sampled is None else sampled.sentence(evidence.margin)
    confirmed = None if evidence.confirmation is None else evidence.confirmation.said
    place, is_confirmed = evidence.place or 1, confirmed is not None
    earlier = verified_before.sentence(place, evidence.alpha, is_confirmed=is_confirmed)
    return [one for one in (of_others, earlier, confirmed) if one is not None]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("subsettune.bundle", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = _prose
    return environment.get_template("readme.md.j2")


def _prose(words: str) -> Markup:
    """Text that no reader of Markdown takes for HTML; quotes stay as they are, for those who read the file itself."""
    return Markup(words.replace("&", "&amp;").replace("<", "&lt;"))


def _phase_line(bundle: Bundle, number: int) -> str:
    phase, n, visits = bundle.policy.phases[number], bundle.facts.num_examples, bundle.visits[number]
    opening = (
        "" if phase.transition == "keep" else f"Open with `{phase.transition}`{_options(phase.transition_options)}. "
    )
    resolved = resolve(bundle.policy, bundle.recipe, bundle.facts).phases[number]
    passes = f"{text.passes_words(phase.passes)} passes"
    if resolved.flops:
        passes += f", {text.passes_words(resolved.flops / bundle.facts.pass_flops)} of them before its first update"
    about = "" if _is_exact(bundle) else "about "
    if phase.active_soup is not None:
        who = _soup(phase.active_soup)
        return f"{number + 1}. {opening}{who} {_pool(phase, n)} for {passes}: {visits:,} examples in all."
    length, order = f"{about}{visits:,} examples go through the network, repeats counted", ""
    if phase.order != "uniform":
        length = f"batches of {about}{visits:,} examples in all"
        order = f" Order: `{phase.order}`{_options(phase.order_options)}."
    return f"{number + 1}. {opening}Train on {_pool(phase, n)} for {passes}: {length}.{order}"


def _is_exact(bundle: Bundle) -> bool:
    """Whether the visits of the phases are those of every run: a line search or what a network does changes them."""
    order = resolve(bundle.policy, bundle.recipe, bundle.facts).order
    return is_blind(order) and bundle.recipe.optimizer != "lbfgs"


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
    size = f"{phase.pool_size(num_examples):,} of {num_examples:,} examples ({text.share_words(phase.share)}"
    q = "" if phase.q is None else f", Q {phase.q:.3g}"
    return f"{size}{q}), chosen by `{phase.selector}`{_options(phase.selector_options)},"


def _options(options: FrozenDict) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else ""


def _recipe(bundle: Bundle) -> str:
    recipe = config.to_plain(bundle.recipe)
    elsewhere = ("epochs", "schedule", "schedule_options")
    given = {key: value for key, value in recipe.items() if key not in elsewhere and value}
    augment = given.pop("augment", {})
    given |= {key: value for key, value in augment.items() if value}  # what is switched off is left out
    return ", ".join(f"{key} {_value(value)}" for key, value in given.items())


def _value(value: object) -> str:
    """A setting in words."""
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_value(inner)}' for key, inner in value.items())})"
    if isinstance(value, bool):
        return "on" if value else "off"
    return text.value_words(value)


def _made_for(bundle: Bundle) -> str:
    """Which data it is for."""
    if bundle.task.is_own:
        version = "" if bundle.task.version is None else f", version {bundle.task.version}"
        return (
            f"It was made for `{bundle.task.train}`, a training function with {bundle.task.examples:,} examples of its "
            f"own{version}. What that function reads is its own affair: nothing here knows whether it has changed."
        )
    return (
        f"It was made for the data with the fingerprint\n\n    {bundle.fingerprint}\n\nOther data are refused unless a "
        "transfer is asked for, which derives the sizes anew and chooses again."
    )


def _held_out(bundle: Bundle) -> str:
    if bundle.task.is_own:
        return f"what {bundle.task.train} holds out"
    split, test_from = bundle.task.split, bundle.evidence.test_from
    share = DEFAULT_TEST if split.test is None else split.test
    drawn = "by class" if bundle.task.kind == "classification" else "at random"
    how_drawn = f"drawn {drawn} with seed {split.seed}"
    if split.by is not None:
        how_drawn = f"whole groups of the column {split.by!r} with seed {split.seed}"
    elif split.time is not None:
        how_drawn = f"the latest by the column {split.time!r}"
    elif split.column is not None:
        how_drawn = f"as the column {split.column!r} says, and where it names no part, {how_drawn}"
    if bundle.evidence.validation_from == "file":
        test = "has an official file" if test_from == "file" else f"is {share:.3g}, {how_drawn}"
        return f"validation has an official file; the test {test}"
    if test_from == "split" or split.test is not None:
        return f"{split.validation:.3g} for validation and {share:.3g} for the test, {how_drawn}"
    validation = f"{split.validation:.3g} for validation, {how_drawn}"
    if test_from == "file":
        return f"{validation}; the test has an official file"
    return f"{validation}, and for the test, where it has no official file, {share:.3g}"


def _hardware(evidence: Evidence) -> str:
    parts = [
        text.bytes_words(value) if key.endswith("_bytes") else f"{key} {_value(value)}"
        for key, value in evidence.hardware.items()
        if value
    ]
    return ", ".join(parts) or "unknown hardware"


COLUMNS = (
    *("policy", "n", "references", "METRIC", "difference", "bound", "level"),
    *("passes", "FLOPs", "seconds", "saving", "verdict"),
)


def _table(evidence: Evidence, unit: str) -> str:
    titles = {"METRIC": evidence.metric, "FLOPs": "FLOPs" if unit == "FLOP" else "examples"}
    head = [titles.get(title, title) for title in COLUMNS]
    rows = [_row(entry, evidence, unit) for entry in (evidence.reference, *evidence.candidates)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _row(entry: PolicyEvidence, evidence: Evidence, unit: str) -> list[str]:
    margin, is_reference = evidence.margin, entry.name == REFERENCE
    verdict = entry.judgement if entry.may_claim else None
    return [
        f"**{entry.name}**" if entry.name == evidence.winner else entry.name,
        *_num_runs(entry, evidence),
        text.metric_words(entry.metric, margin),
        text.metric_words(_difference(entry, evidence), margin, signed=True),
        text.metric_words(None if verdict is None else verdict.lower_bound, margin, signed=True),
        text.NOTHING if verdict is None or not verdict.level else f"{verdict.level:.3g}",
        text.passes_words(entry.passes),
        text.flops_words(entry.flops, unit),
        text.seconds_words(entry.seconds),
        text.saving_words(entry.saving) if entry.passed and not is_reference and entry.may_claim else text.NOTHING,
        _outcome(entry, evidence),
    ]


def _num_runs(entry: PolicyEvidence, evidence: Evidence) -> tuple[str, str]:
    """Runs of a policy, and of the reference that they are held against: those that its numbers rest on."""
    verdict = evidence.best.judgement if entry.name == REFERENCE else entry.judgement
    if verdict is None:
        return str(sum(run.metric is not None for run in entry.runs)), text.NOTHING
    if entry.name == REFERENCE:
        return str(verdict.num_references), text.NOTHING
    return (str(verdict.num_seeds), str(verdict.num_references)) if verdict.is_tested else (text.NOTHING, text.NOTHING)


def _difference(entry: PolicyEvidence, evidence: Evidence) -> float | None:
    """Of the means, higher is better."""
    if entry.metric is None or entry.reference_metric is None:
        return None
    difference = entry.metric - entry.reference_metric
    return difference if evidence.higher_is_better else -difference


def _outcome(entry: PolicyEvidence, evidence: Evidence) -> str:
    """The verdict; of a random control, of which nothing is claimed, where its mean lies."""
    if entry.name == REFERENCE:
        return text.NOTHING
    if entry.may_claim:
        return verdict_words(entry.judgement, evidence.margin)
    difference = _difference(entry, evidence)
    if difference is None:
        return "not tested"
    return f"{'within' if difference > -evidence.margin else 'outside'} the margin"


def _contrasts(evidence: Evidence) -> str:
    """A line each of the winner against its controls; empty without any."""
    lines = [
        f"- {one.policy} against {_CONTROLS.get(one.control.partition('@')[0], one.control)}: "
        f"{one.words(evidence.margin)}, {text.counted(one.num_seeds, 'pair')} of runs with one seed."
        for one in evidence.against_controls
        if one.num_seeds
    ]
    return "\n".join(lines)


_CONTROLS = {
    "equal": "plain training of its compute by the settings that the search found (`equal`)",
    "own": "such training by its own settings (`own`)",
    "random": "the same with a random subset (`random`)",
}


def _shorter_words(bundle: Bundle) -> str:
    if bundle.policy.arm == FULL:
        return "this policy is one"
    saving = bundle.evidence.saving_shorter
    if saving is None:
        return f"none is shown to match{_near_own(bundle.evidence)}"
    if saving == 0:
        return "one of the same compute passed too"
    return _saved(saving, "the compute of the cheapest that passed")


def _near_own(evidence: Evidence) -> str:
    """That plain training by a policy's own settings looked as good: it is not tested for a match."""
    near = [
        f"`{one.name}` ({text.passes_words(one.passes)} passes)"
        for one in evidence.candidates
        if role_of(one.name) == OWN and _outcome(one, evidence).startswith("within")
    ]
    return f"; {text.joined(near)} looked as good, without a test for a match" if near else ""


def _saved(saving: float, compute: str) -> str:
    """`12.0 % of its compute saved`, or that it costs more, or the same."""
    if saving == 0:
        return "it costs the same"
    return f"{text.saving_words(saving)} of {compute} saved" if saving > 0 else f"it costs {text.more_words(saving)}"


def _seconds_saved(evidence: Evidence) -> str:
    """Beside the compute: what is saved of the seconds, which another machine spends in another proportion."""
    saved = seconds_saved(evidence.best.seconds, evidence.reference.seconds)
    return "" if saved is None else f", and of the seconds that were measured {text.share_saved_words(saved)}"


def _break_even(evidence: Evidence, unit: str) -> str:
    spent = f"The study itself spent {text.flops_words(evidence.tuning_flops, unit)}"
    if evidence.break_even is None:
        return f"{spent}; no number of trainings repays it."
    repay = "repays" if evidence.break_even == 1 else "repay"
    told = f"{spent}, which {text.counted(evidence.break_even, 'future training')} with this policy {repay}"
    if evidence.tuning_seconds is None:
        return f"{told}."
    took = f"its runs took {text.seconds_words(evidence.tuning_seconds)}"
    if evidence.break_even_seconds is None:
        return f"{told}; {took}, which none repays, for no time is saved."
    return f"{told}; {took}, which {evidence.break_even_seconds:,} repay{'s' * (evidence.break_even_seconds == 1)}."


def _others(evidence: Evidence) -> str:
    """The interval of the difference where test examples are drawn anew, too."""
    sampled = evidence.sampled
    if sampled is None:
        return ""
    low, high = (text.metric_words(end, evidence.margin, signed=True) for end in sampled.interval)
    sure = text.sure_words(1 - sampled.alpha)
    return f"- With other test examples in place of these, too, its difference is {low} to {high} ({sure}, two-sided)."


def _needs(evidence: Evidence) -> str:
    """What plain training needs to match, as the search saw it: how sure the saving is."""
    if FULL not in evidence.needs:
        return ""
    low, high = (text.fraction_words(end) for end in evidence.needs[FULL])
    return (
        f"- Plain training needs {low} to {high} of the recipe's compute to match on the validation split, as the "
        f"search saw it. {ROUGH} Other examples may ask for more or less."
    )


def _chosen(bundle: Bundle) -> str:
    if all(phase.is_full for phase in bundle.policy.phases):
        return "No subset is chosen, so the table of rows is empty."
    told = (
        f"The rows in `subset.parquet` are those that a run with seed {bundle.seed} chooses; each run behind the "
        "numbers chose with its own seed, so they speak for the way of choosing, not for these rows alone."
    )
    if bundle.task.distortion.is_off:
        return told
    return (
        f"{told} The training data were distorted on purpose, as `task.distortion` says: labels in the table are the "
        "distorted ones, and phases on all data need the same distortion."
    )
