"""Class counts of subsets: in proportion, equal, or left to the selector.

Symbols: n examples, C classes, n_c examples of class c, k picks. The data of a regression are one class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from subsettune.facts import TaskFacts
from subsettune.select.base import share_of
from subsettune.select.families.proportions import proportional_ranking

if TYPE_CHECKING:
    from torch import Tensor

Balance = Literal["proportional", "equal", "none"]


def why_not(name: str, balance: Balance, facts: TaskFacts, k: int) -> str | None:
    """Why `k` examples cannot be chosen with such class counts, in one sentence; None if they can."""
    if balance != "equal":
        return None
    if facts.num_classes == 0:
        what = "several labels an example" if facts.num_labels else "a regression"
        return f"classes must be none or proportional for {name} on {what}, got 'equal'. Leave it out."
    quota = -(-k // facts.num_classes)
    if quota <= facts.smallest_class:
        return None
    most = facts.smallest_class * facts.num_classes
    return (
        f"equal classes give each class up to {quota:,} of {k:,} examples, and the rarest class has "
        f"{facts.smallest_class:,}. Choose a subset_share of {share_of(most, facts.num_examples)} or less, or classes: "
        "proportional."
    )


def groups(facts: TaskFacts, balance: Balance) -> tuple[int, ...]:
    """Sizes of the groups that are ranked apart: n_c of each class, or n alone."""
    apart = balance != "none" and facts.num_classes > 0
    return facts.class_counts if apart else (facts.num_examples,)


def quotas(facts: TaskFacts, balance: Balance, k: int) -> tuple[int, ...]:
    """How many of the `k` picks each of the `groups` gives."""
    return _quotas(groups(facts, balance), balance, k)


@lru_cache(maxsize=1024)  # the price and the memory of one policy ask for the same, and a search for those of many
def _quotas(sizes: tuple[int, ...], balance: Balance, k: int) -> tuple[int, ...]:
    classes, _ = sequence(sizes, k, balance)
    counts = Counter(classes)
    return tuple(counts[c] for c in range(len(sizes)))


def sequence(sizes: Sequence[int], k: int, balance: Balance) -> tuple[list[int], list[int]]:
    """The group of each pick, such that every prefix keeps the balance.

    Args:
        sizes: of the groups.
        k: picks, at most the sum of the sizes; with `equal`, at most the smallest size times the number of groups.
        balance: of the groups.

    Returns:
        Group of each pick, and how many picks of that group came before.
    """
    if balance == "equal":
        return [t % len(sizes) for t in range(k)], [t // len(sizes) for t in range(k)]
    return proportional_ranking(sizes, k)


def rank(
    targets: Tensor, facts: TaskFacts, balance: Balance, k: int, within: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Rank the examples group by group, and weave the rankings into one that keeps the balance at every length.

    Args:
        targets: (n,) int64 classes; not looked at where there is one group.
        facts: of the task.
        balance: of the classes.
        k: picks.
        within: ranks a group: takes its positions (n_c,) int64 in ascending order on the CPU and a number of picks
            q >= 1, and gives (q,) int64 places within the group, best first.

    Returns:
        (k,) int64 positions on the CPU.
    """
    import torch

    if len(groups(facts, balance)) == 1:
        return within(torch.arange(facts.num_examples), k)
    labels = targets.cpu()
    classes, nth = (torch.tensor(v) for v in sequence(facts.class_counts, k, balance))
    positions = torch.empty(k, dtype=torch.int64)
    for c, quota in enumerate(torch.bincount(classes, minlength=facts.num_classes).tolist()):
        if quota:
            members = (labels == c).nonzero().flatten()
            ranking = members[within(members, quota)]
            mine = classes == c
            positions[mine] = ranking[nth[mine]]
    return positions
