"""Checks that every selector, order, transition and soup runs on the device and pays what it pays on the processor.

The registries say which there are: what is added to them is checked here without a change.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gpu_parts.kit import Case, Difference, Finding, Kit, Part, affordable, options, task_of
from subsettune import select, train
from subsettune.policy import Phase, Policy, Soup
from subsettune.task import Task
from subsettune.train import orders, transitions
from subsettune.train.soup.executors import ExecutionMode

SEED = 1
SHARE = 0.25  # of the examples in a subset phase


def task_for(kit: Kit) -> Task:
    """Small images and the smallest network with all that the components ask for: classes, layers, a linear head."""
    return task_of(kit, "cnn", kit.size(800, 320), {"channels": [8, 8], "hidden": 16})


def compared(kit: Kit, policy_of: Callable[[float], Policy], **changes: Any) -> Finding:
    """A run on the device beside one on the processor: what a policy pays is known beforehand, so both pay the same.

    Which examples an order leaves out may hang on the last digit of a loss, and with it how long a round is: then both
    fall short of the same total, each by less than one update.
    """
    task = task_for(kit)
    policy = affordable(task, policy_of)
    mine = train.run(task, policy, SEED, options=options(kit.device, **changes))
    theirs = train.run(task, policy, SEED, options=options("cpu"))
    found = Difference.of(mine, theirs)
    facts = train.facts(task)
    cost, update = policy.cost(facts), 2 * task.recipe.batch_size * facts.example_flops
    both = [run.ledger.spent for run in (mine, theirs)]
    near = mine.ledger.select == theirs.ledger.select and all(cost - update < spent <= cost for spent in both)
    finished = mine.cause == theirs.cause == "finished"
    words = found.words if finished else f"{mine.cause} on the device, {theirs.cause} on the processor"
    numbers = {**found.numbers, "select_flops": mine.ledger.select, "spent_flops": both[0], "spent_flops_cpu": both[1]}
    return Finding(passed=finished and (found.same_ledger or near), words=words, numbers=numbers)


def selectors(kit: Kit) -> Mapping[str, Case]:
    """Each selector chooses a quarter of the examples."""

    def policy(name: str, passes: float) -> Policy:
        return Policy(phases=(Phase(share=SHARE, passes=passes, selector=name), Phase(passes=0.5)))

    return {name: partial(compared, kit, partial(policy, name)) for name in select.SELECTORS}


def in_order(kit: Kit) -> Mapping[str, Case]:
    """Each order trains on all examples for a few rounds."""

    def policy(name: str, passes: float) -> Policy:
        return Policy(phases=(Phase(passes=3 * passes, order=name),))

    return {name: partial(compared, kit, partial(policy, name)) for name in orders.ORDERS}


def at_the_switch(kit: Kit) -> Mapping[str, Case]:
    """Each transition opens the phase on all data."""

    def policy(name: str, passes: float) -> Policy:
        return Policy(phases=(Phase(share=SHARE, passes=1), Phase(passes=passes, transition=name)))

    return {name: partial(compared, kit, partial(policy, name)) for name in transitions.TRANSITIONS}


def soups(kit: Kit) -> Mapping[str, Case]:
    """Soups of three workers: each kind of mask, carried out in each way, and each way of filling what nobody kept."""
    hints = typing.get_type_hints(Soup)
    made = {f"masks {m}": {"masks": m} for m in typing.get_args(hints["masks"])}
    made |= {f"uncovered {u}": {"uncovered": u} for u in typing.get_args(hints["uncovered"])}
    modes = typing.get_args(ExecutionMode)

    def policy(settings: Mapping[str, Any], passes: float) -> Policy:
        soup = Soup(workers=3, density=0.3, **settings)
        return Policy(phases=(Phase(share=0.5, passes=passes, soup=soup), Phase(passes=0.5)))

    return {
        f"{name}, {mode}": partial(compared, kit, partial(policy, settings), soup_workers=mode)
        for name, settings in made.items()
        for mode in modes
    }


def words(what: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """The line of a part."""

    def line(rows: Sequence[Mapping[str, Any]]) -> str:
        equal = sum(bool(row.get("same_ledger")) for row in rows)
        near = f", {len(rows) - equal} within an update" if equal < len(rows) else ""
        return f"{len(rows)} {what}: ledger equal to the processor's for {equal}{near}"

    return line


TURNS = (
    Part(
        name="selectors",
        about="every selector chooses on the device",
        budget_s=50,
        cases=selectors,
        words=words("selectors"),
    ),
    Part(
        name="orders",
        about="every order trains on the device",
        budget_s=30,
        cases=in_order,
        words=words("orders"),
    ),
    Part(
        name="transitions",
        about="every transition opens a phase on the device",
        budget_s=25,
        cases=at_the_switch,
        words=words("transitions"),
    ),
    Part(
        name="soups",
        about="soups, workers one after the other and all at once",
        budget_s=30,
        cases=soups,
        words=words("soups"),
    ),
)
