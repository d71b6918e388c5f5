"""What is to be run: one value that the loop, the choice of examples and proxies take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from subsettune.data import TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import PRUNE, Policy
from subsettune.task import Recipe, Task
from subsettune.text import flops_words
from subsettune.train.planning.check import facts_of
from subsettune.train.planning.phases import ResolvedPolicy, resolve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunJob:
    """One training.

    Args:
        task: what is trained.
        resolved: the policy.
        seed: of everything random.
        data: of the task.
        device: where it is trained, and where heavy selectors compute.
    """

    task: Task
    resolved: ResolvedPolicy
    seed: int
    data: TaskData
    device: torch.device

    @classmethod
    def of(cls, task: Task, policy: Policy, seed: int, data: TaskData, *, device: torch.device | str = "cpu") -> RunJob:
        """The job for a policy that is resolved here; whether its compute suffices, `check` tells.

        Raises:
            ConfigError: an unknown or impossible component.
        """
        resolved = resolve(policy, task.recipe.override(policy.recipe), facts_of(task, data))
        return cls(task=task, resolved=resolved, seed=seed, data=data, device=torch.device(device))

    @property
    def policy(self) -> Policy:
        """How compute is spent."""
        return self.resolved.policy

    @property
    def recipe(self) -> Recipe:
        """With the policy's overrides."""
        return self.resolved.recipe

    @property
    def facts(self) -> TaskFacts:
        """Of the task."""
        return self.resolved.facts

    @property
    def price(self) -> tuple[int, int]:
        """FLOPs of an example, forward and backward, by which the run is charged."""
        return self.facts.forward_flops, self.facts.backward_flops

    def refuse_another_price(self, saved: Mapping[str, Any]) -> None:
        """What was spent must mean the same as what is left; other versions may count other FLOPs.

        Earlier versions did not keep the price, which shows in their account where each update paid that alone.

        Args:
            saved: a checkpoint.

        Raises:
            ValueError: it counts otherwise.
        """
        now, account = self.price, saved["account"]
        before = saved.get("price")
        if before is not None and tuple(before) != now:
            told = (" and ".join(map(flops_words, each)) for each in (before, now))
            raise ValueError("it counts an example as {} forward and backward, and here it is {}.".format(*told))
        phases = self.policy.phases
        is_plain = all(p.order == "uniform" and p.transition != PRUNE and p.active_soup is None for p in phases)
        if before is None and is_plain and account["forward"] * now[1] != account["backward"] * now[0]:
            raise ValueError("it counts the FLOPs of an example in another way.")


def find_device(name: str) -> torch.device:
    """The device of a name as `RunOptions` has it, ready to be used.

    Raises:
        ConfigError: it is a GPU, and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(f"device must be cpu here, got {name!r}: torch finds no GPU. Use device auto.")
        torch.cuda.init()  # so that the caller's random state on the GPU can be captured
    return torch.device(name)
