"""How far the evidence of a bundle reaches: what is otherwise about other data or another network, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from subsettune import config
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.task import Task
from subsettune.text import flops_words, passes_words

if TYPE_CHECKING:
    from subsettune.bundle.bundle import Bundle

FAR = 4  # times fewer or more examples than a policy was shown for are another task
RARER = 2  # times: of the share of the rarest class
ALWAYS = (
    "That it matches the recipe was shown on the bundle's data alone. On others one training can show that something "
    "is badly wrong; that it matches takes runs of both, as `subsettune tune` makes and compares them."
)


def limits(bundle: Bundle, policy: Policy, facts: TaskFacts, *, batch_size: int | None = None) -> tuple[str, ...]:
    """What the evidence does not speak of, where a bundle's policy is followed elsewhere.

    Args:
        bundle: with the evidence.
        policy: of the bundle, derived for the other task.
        facts: of the other task.
        batch_size: of the recipe there; None for the bundle's.

    Returns:
        Sentences, what is general last; never empty.
    """
    return (*differences(bundle, policy, facts, batch_size=batch_size), ALWAYS)


def differences(bundle: Bundle, policy: Policy, facts: TaskFacts, *, batch_size: int | None = None) -> tuple[str, ...]:
    """What one training costs there, and what is otherwise than in the bundle; arguments as of `limits`."""
    asked = bundle.recipe.batch_size if batch_size is None else batch_size
    return (
        _cost(bundle, policy, facts),
        *_sizes(bundle.facts, facts),
        *_classes(bundle.facts, facts),
        *_qs(bundle, policy, facts),
        *_batches(bundle.recipe.batch_size, asked),
    )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on settings that are otherwise than they were for the evidence.

    Args:
        before: of the bundle, by name.
        now: those of a training; a name that only one of both has is null in the other.
    """
    names = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    return tuple(
        f"{name} is {now.get(name)!r}, and was {before.get(name)!r} for the bundle's evidence." for name in names
    )


def changed_task(bundle: Bundle, task: Task) -> tuple[str, ...]:
    """Sentences on what a task trains otherwise than the bundle's did; what its policy sets of the recipe is alike.

    Raises:
        ConfigError: what the policy sets does not fit the recipe of the task.
    """
    before, now = (_settings(one, bundle.policy) for one in (bundle.task, task))
    return changed_settings(before, now)


def _settings(task: Task, policy: Policy) -> dict[str, Any]:
    """By the keys of a study file, with dots."""
    plain = {**config.to_plain(task), "recipe": config.to_plain(task.recipe.override(policy.recipe)), "kind": task.kind}
    parts = {part: plain.get(part, {}) for part in ("recipe", "model", "train_options")}
    inner = {f"task.{part}.{name}": value for part, found in parts.items() for name, value in found.items()}
    return inner | {f"task.{name}": plain.get(name) for name in ("train", "kind", "metric", "loss")}


def _cost(bundle: Bundle, policy: Policy, facts: TaskFacts) -> str:
    old, new = bundle.policy.cost(bundle.facts), policy.cost(facts)
    return (
        f"One training costs {flops_words(new)} (the bundle's {flops_words(old)}), {passes_words(policy.passes)} "
        "passes over the examples to train on."
    )


def _sizes(before: TaskFacts, facts: TaskFacts) -> list[str]:
    """What is otherwise about the number of examples and the network."""
    told = []
    if facts.num_examples * FAR < before.num_examples:
        told.append(
            f"They are fewer than one in {FAR} of the bundle's, and its evidence says nothing of how the policy does "
            "on so few."
        )
    if (facts.num_features, facts.num_parameters) != (before.num_features, before.num_parameters):
        told.append(
            f"An example is {facts.num_features:,} numbers for the network (the bundle's {before.num_features:,}), "
            f"which has {facts.num_parameters:,} parameters ({before.num_parameters:,}): categories, words or shapes "
            "differ."
        )
    if facts.num_examples > FAR * before.num_examples:
        told.append(
            f"They are more than {FAR} times the bundle's {before.num_examples:,} examples: with so many, plain "
            "training may need fewer passes than the policy makes, and the evidence says nothing of it."
        )
    return told


def _classes(before: TaskFacts, now: TaskFacts) -> list[str]:
    if now.num_classes != before.num_classes or now.num_outputs != before.num_outputs:
        old, new = (facts.num_classes or facts.num_outputs for facts in (before, now))
        what = "classes" if before.num_classes else "values to predict"
        return [f"There are {new} {what} (the bundle's {old}): another task, of which the evidence says nothing."]
    shares = [facts.smallest_class / facts.num_examples for facts in (before, now)]
    if now.num_classes and RARER * shares[1] < shares[0]:
        return [
            f"The rarest class is {shares[1]:.2%} of the examples (the bundle's {shares[0]:.2%}): a subset has few "
            "of it."
        ]
    return []


def _qs(bundle: Bundle, policy: Policy, now: TaskFacts) -> list[str]:
    """Phases whose subset is smaller for its network than any that was shown to match."""
    if not (now.has_q and bundle.facts.has_q):
        return []
    told = []
    for index, (phase, before) in enumerate(zip(policy.phases, bundle.policy.phases, strict=True)):
        if phase.is_full:
            continue
        q = now.q(phase.pool_size(now.num_examples))
        tested = bundle.facts.q(before.pool_size(bundle.facts.num_examples))
        sizes = phase.pool_size(now.num_examples), before.pool_size(bundle.facts.num_examples)
        if q < tested * (1 - sum(1 / size for size in sizes)):  # by more than an example of rounding in each
            told.append(
                f"The subset of phase {index + 1} has an overdetermination ratio Q of {q:.3g}, below the {tested:.3g} "
                "that was tested: it may be too small for the network."
            )
    return told


def _batches(before: int, now: int) -> list[str]:
    if now == before:
        return []
    return [
        f"Batches are of {now:,} examples (the bundle's {before:,}): with as many passes the policy has "
        f"{before / now:.3g} times the updates, and its learning rate was chosen for the bundle's."
    ]
