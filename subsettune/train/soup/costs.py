"""What a soup costs and why it cannot be made: arithmetic that is done before a run. `workers` says what a soup is."""

from __future__ import annotations

from subsettune.config import must
from subsettune.data.rand_augment import MAGNITUDES
from subsettune.facts import TaskFacts
from subsettune.policy import Soup
from subsettune.task import Recipe
from subsettune.train.orders.base import batch_length
from subsettune.train.soup.executors import closure_refused

LEAST_SHARD = 2  # examples: batch norm cannot train on one
# Examples that running statistics are made anew on. 2,048 tell a channel's mean to 2 % of its spread even where an
# image counts as a single number, and are 4 % of the forward passes of an epoch of CIFAR-10.
STATISTICS_EXAMPLES = 2048
MASK_EXAMPLES = 128  # of its shard, from which a worker draws a data-driven mask; SNIP takes 100 of MNIST


def shard_size(soup: Soup, pool_size: int) -> int:
    """Examples of each worker: shards are equal, and what is left over is used by nobody."""
    return pool_size // soup.workers


def step_length(soup: Soup, pool_size: int, batch_size: int) -> int:
    """Examples, over all workers, that every step takes."""
    return soup.workers * batch_length(shard_size(soup, pool_size), batch_size)


def why_not(soup: Soup, pool_size: int, recipe: Recipe, facts: TaskFacts) -> str | None:
    """Why such a soup cannot be made, in one sentence with a remedy; None if it can."""
    if shard_size(soup, pool_size) < LEAST_SHARD:
        if pool_size < LEAST_SHARD:
            return must(
                "share of a soup", f"such that it has {LEAST_SHARD} examples", pool_size, "Give it a larger one."
            )
        rule = f"at most {pool_size // LEAST_SHARD} for {pool_size} examples"
        return must("soup.workers", rule, soup.workers, f"Each needs a shard of {LEAST_SHARD} or more.")
    if recipe.optimizer == "lbfgs":
        return closure_refused(recipe.optimizer)
    if not soup.rand_augment:
        return None
    if facts.image_channels not in (1, 3):
        advice = "It changes images of bytes with 1 or 3 channels, and these inputs are none."
        return must("soup.rand_augment", "0 here", soup.rand_augment, advice)
    if soup.rand_augment >= MAGNITUDES:
        return must("soup.rand_augment", f"below {MAGNITUDES}", soup.rand_augment, "The paper on LiPT has 5.")
    return None


def flops(soup: Soup, pool_size: int, facts: TaskFacts) -> int:
    """FLOPs charged, as selection, beside the updates: data-driven masks, and running statistics made anew."""
    return soup.workers * mask_flops(soup, pool_size, facts) + statistics_flops(pool_size, facts)


def mask_flops(soup: Soup, pool_size: int, facts: TaskFacts) -> int:
    """Of the data-driven mask of one worker."""
    if soup.density == 1 or soup.masks == "erk":
        return 0
    return min(shard_size(soup, pool_size), MASK_EXAMPLES) * facts.example_flops


def statistics_flops(pool_size: int, facts: TaskFacts) -> int:
    """Of running statistics made anew."""
    return min(pool_size, STATISTICS_EXAMPLES) * facts.forward_flops if facts.has_batch_norm else 0
