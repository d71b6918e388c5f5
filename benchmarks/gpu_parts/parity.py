"""Checks that a device trains as the processor does: networks, precisions, resuming.

Without a card both runs are made on the processor, and must have the same bits.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from gpu_parts.kit import (
    LOSS_TOLERANCE,
    METRIC_TOLERANCE,
    Case,
    Difference,
    Finding,
    Kit,
    Part,
    largest,
    options,
    plain_policy,
    task_of,
)
from subsettune import train
from subsettune.models import FOR_TOKENS
from subsettune.registry import MODELS
from subsettune.task import Recipe, Task
from subsettune.train import CurvePoint, RunResult

SEED = 1
LOW_PRECISION_TOLERANCE = 0.1  # relative, of a loss: bfloat16 has 8 bits, and each update rounds again
INTERRUPTED_AT = 3  # point of the curve
EVERY_UPDATE_S = 1e-9  # between checkpoints


# --- networks ---------------------------------------------------------------------------------------------------------


def networks(kit: Kit) -> Mapping[str, Case]:
    """Each built-in network."""
    return {name: partial(one_network, kit, name) for name in MODELS}


def one_network(kit: Kit, name: str) -> Finding:
    """A run on the device beside one on the processor."""
    task = task_of(kit, name, kit.size(640, 100))
    policy, facts = plain_policy(1.0), train.facts(task)
    mine = train.run(task, policy, SEED, options=options(kit.device))
    theirs = train.run(task, policy, SEED, options=options("cpu"))
    found = Difference.of(mine, theirs)
    passed = found.is_small(facts) if kit.is_gpu else found.same_bits and found.same_ledger
    return Finding(
        passed=passed, words=found.words, numbers={**found.numbers, "network": name, "updates": mine.updates}
    )


def network_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    told = (f"{row['network']} {largest([row], 'loss_difference')}" for row in rows)
    return f"losses off by at most: {', '.join(told)}"


# --- resume -----------------------------------------------------------------------------------------------------------


class InterruptedRunError(Exception):
    """Raised from the report of a run."""


def interrupt(point: CurvePoint, seen: list[CurvePoint]) -> bool:
    """Raise at a point of the curve."""
    seen.append(point)
    if len(seen) == INTERRUPTED_AT:
        raise InterruptedRunError
    return False


def resumes(kit: Kit) -> Mapping[str, Case]:
    """Networks with all kinds of state: dropout, batch norm, augmentation, momentum."""
    names = [name for name in MODELS if not kit.small or name in (*FOR_TOKENS, "cnn")]
    return {name: partial(one_resume, kit, name) for name in names}


def one_resume(kit: Kit, name: str) -> Finding:
    """A run that is interrupted and goes on, beside two that are not: the second tells what the device repeats."""
    dropout = {"dropout": 0.1} if name in (*FOR_TOKENS, "cnn") else {}
    recipe = {} if name in FOR_TOKENS else {"augment": {"flip": True, "crop_padding": 1}}
    task, policy = task_of(kit, name, kit.size(640, 160), dropout, **recipe), plain_policy(1.0)
    whole, twice = (train.run(task, policy, SEED, options=options(kit.device)) for _ in range(2))
    folder = str(kit.folder / f"resume_{name}")
    kept = options(kit.device, checkpoints=folder, checkpoint_every_s=EVERY_UPDATE_S)
    try:
        train.run(task, policy, SEED, report=partial(interrupt, seen=[]), options=kept)
    except InterruptedRunError:
        again = train.run(task, policy, SEED, options=kept)
    else:
        return Finding(passed=False, words="the run was not interrupted")
    found, repeats = Difference.of(again, whole), Difference.of(twice, whole)
    told = "bits equal" if repeats.same_bits else "not repeated bit for bit either"
    updates_alike = again.updates == whole.updates
    return Finding(
        passed=updates_alike
        and (found.is_small(train.facts(task)) if kit.is_gpu else found.same_bits and found.same_ledger),
        words=f"{found.words}; uninterrupted twice: {told}",
        numbers={**found.numbers, "repeats_bits": repeats.same_bits, "updates": again.updates},
    )


def resume_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    equal = sum(bool(row.get("same_bits")) for row in rows)
    repeated = sum(bool(row.get("repeats_bits")) for row in rows)
    return (
        f"{len(rows)} networks: bits equal after an interruption for {equal}, of uninterrupted runs for {repeated}; "
        f"losses off by {largest(rows, 'loss_difference')} at most"
    )


# --- precision and layout ---------------------------------------------------------------------------------------------


def precisions(kit: Kit) -> Mapping[str, Case]:
    """Each precision of a recipe, and the layout of images."""
    names = typing.get_args(typing.get_type_hints(Recipe)["precision"])
    networks = ("cnn", "transformer") if kit.small else ("cnn", "transformer", "resnet18")
    cases: dict[str, Case] = {f"{p}, {n}": partial(one_precision, kit, p, n) for n in networks for p in names}
    return cases | {f"layout, {n}": partial(one_layout, kit, n) for n in networks if n not in FOR_TOKENS}


def _run(kit: Kit, task: Task, precision: str) -> RunResult:
    changed = replace(task, recipe=task.recipe.override({"precision": precision}))
    return train.run(changed, plain_policy(1.0), SEED, options=options(kit.device))


def one_precision(kit: Kit, precision: str, name: str) -> Finding:
    """A run in a precision beside one in float32, both on the device."""
    task = task_of(kit, name, kit.size(640, 160))
    found = Difference.of(_run(kit, task, precision), _run(kit, task, "float32"))
    tolerance = LOSS_TOLERANCE if precision == "float32" else LOW_PRECISION_TOLERANCE
    passed = found.same_ledger and found.loss <= tolerance and found.metric <= 2 * METRIC_TOLERANCE
    return Finding(passed=passed, words=found.words, numbers={**found.numbers, "precision": precision})


def one_layout(kit: Kit, name: str) -> Finding:
    """Images lie with channels last on a card and first elsewhere, and the outputs do not depend on it."""
    task = task_of(kit, name, kit.size(640, 160))
    network = train.run(task, plain_policy(0.5), SEED, options=options(kit.device)).model
    kernels = [p for p in network.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    lie_last = all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    side = kit.size(32, 8)
    inputs = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(0)).to(kit.device)
    last = copy.deepcopy(network).to(kit.device).eval().to(memory_format=torch.channels_last)
    first = copy.deepcopy(network).to(kit.device).eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        outputs = first(inputs.contiguous())
        off = float((last(inputs.contiguous(memory_format=torch.channels_last)) - outputs).abs().max())
    off /= float(outputs.abs().max())
    where = "last" if lie_last else "first"
    return Finding(
        passed=bool(kernels) and lie_last == kit.is_gpu and off <= 1e-3,
        words=f"trained with channels {where}; outputs in both layouts off by {off:.1e}",
        numbers={"channels_last": lie_last, "layout_difference": off},
    )


def precision_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """The line of the part."""
    low = [row for row in rows if row.get("precision") not in (None, "float32")]
    last = any(row.get("channels_last") for row in rows)
    return (
        f"bfloat16 and auto: losses off by {largest(low, 'loss_difference')} at most (allowed "
        f"{LOW_PRECISION_TOLERANCE}); channels {'last' if last else 'first'}, "
        f"outputs in both layouts off by {largest(rows, 'layout_difference')}"
    )


PARITY = (
    Part(
        name="networks",
        about="each built-in network trains on the device as on the processor",
        budget_s=50,
        cases=networks,
        words=network_words,
    ),
    Part(
        name="resume",
        about="an interrupted run goes on as if it had not been",
        budget_s=40,
        cases=resumes,
        words=resume_words,
    ),
    Part(
        name="precision",
        about="bfloat16 by autocast, and images with channels last",
        budget_s=40,
        cases=precisions,
        words=precision_words,
    ),
)
