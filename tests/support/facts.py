"""Facts of tasks that are made up: numbers that are easy to reckon with, and those that a test is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from subsettune.config import FrozenDict
from subsettune.facts import ChainLayer, TaskFacts

# 1,000 examples, 300 FLOPs an example: a pass is 300,000 FLOPs and the conventional recipe 3,000,000.
PLAIN = TaskFacts(
    num_examples=1000,
    num_outputs=10,
    num_parameters=500,
    forward_flops=100,
    backward_flops=200,
    reference_passes=10,
)
# Likewise, with all that a component may ask of a task: a chain of three layers to prune and to leave early, classes,
# embeddings.
FULL = replace(
    PLAIN,
    num_features=64,
    num_classes=10,
    smallest_class=90,
    class_counts=(90, 110, *(100,) * 8),
    head_features=4,
    num_embedding=4,
    layers=FrozenDict({"0": 6, "2": 4, "4": 10}),
    exits=FrozenDict({"0": 40, "2": 80, "4": 100}),
    blocks=("0", "2", "4"),
    chain=(
        ChainLayer(name="0", width=6, forward_flops=40, backward_flops=40),
        ChainLayer(name="2", width=4, forward_flops=40, backward_flops=80),
        ChainLayer(name="4", width=10, forward_flops=20, backward_flops=80),
    ),
)


def made_up_facts(base: TaskFacts = PLAIN, **changes: Any) -> TaskFacts:
    """The plain facts with other numbers."""
    return replace(base, **changes)
