"""What is to be run: one value that the loop, the choice of examples and proxies take."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from subsettune.data import TaskData
from subsettune.errors import ConfigError
from subsettune.facts import TaskFacts
from subsettune.policy import Policy
from subsettune.task import Recipe, Task
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
