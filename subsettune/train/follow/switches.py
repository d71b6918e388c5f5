"""The switches of a policy in training code that is not ours: what happens to weights and optimizer between phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from subsettune.config import FrozenDict
from subsettune.errors import TrainingFunctionError
from subsettune.train import transitions
from subsettune.train.planning.phases import ResolvedPhase
from subsettune.train.randomness import generator

Callback = Callable[["Switch"], object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Switch:
    """A phase begins: what its transition does is to be done now, before its first update.

    Args:
        phase: index of the phase that begins.
        step: its first update.
        transition: by name: `keep`, `reset_optimizer`, `shrink_perturb`, or one of your own.
        options: of the transition.
    """

    phase: int
    step: int
    transition: str
    options: FrozenDict
    _resolved: ResolvedPhase
    _seed: int
    _watched: Sequence[tuple[nn.Module, Mapping[str, float]]]
    _done: list[bool]

    def apply(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Change weights and optimizer as our own loop does.

        Args:
            network: that is trained; its parameters stay the same objects.
            optimizer: its optimizer, in the wrapper of a framework or not.

        Raises:
            TrainingFunctionError: the transition goes by the weights at initialisation, which nobody has seen.
        """
        scales = next((scales for watched, scales in self._watched if watched is network), None)
        if scales is None and self.transition == "shrink_perturb":
            raise TrainingFunctionError(
                "shrink_perturb goes by the spread of the weights at initialisation, which was not seen. Give the "
                "network before the first update: on_switch(network=..., optimizer=...)."
            )
        context = transitions.TransitionContext(
            network=network,
            optimizer=bare(optimizer),
            scales=transitions.scales(network) if scales is None else scales,
            rng=generator(self._seed, "entry", self.phase),  # the word seeds the stream of our own loop, too
            facts=self._resolved.facts_before,
        )
        self._resolved.transition.apply(context)
        self.done()

    def done(self) -> None:
        """Say that the transition was carried out in another way than by `apply`."""
        self._done.append(True)


def bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers of frameworks, whose state is their own affair."""
    inner = getattr(optimizer, "optimizer", None)
    while isinstance(inner, torch.optim.Optimizer) and inner is not optimizer:
        optimizer, inner = inner, getattr(inner, "optimizer", None)
    return optimizer


def _told(opens: Mapping[int, int], start: int, saved: Mapping[str, Any] | None) -> set[int]:
    """Steps whose switches were made before `start`, or are known to have been made."""
    told = set() if saved is None else set(saved["told"])
    return {at for at in opens if at < start or at in told}


class Switches:
    """The switches of a run, each told once, at its step.

    Args:
        phases: of the policy.
        opens: index of the phase that each such step opens.
        seed: of the run.
        start: step that an interrupted run goes on with.
        saved: what `state` gave before; None for a run that begins.
        said: what people call it that tells of switches, for messages.
    """

    def __init__(
        self,
        phases: tuple[ResolvedPhase, ...],
        opens: Mapping[int, int],
        seed: int,
        start: int = 0,
        saved: Mapping[str, Any] | None = None,
        said: str = "run",
    ) -> None:
        self._said = said
        self._phases, self._opens, self._seed = phases, opens, seed
        self._callbacks: list[Callback] = []
        self._watched: list[tuple[nn.Module, dict[str, float]]] = []
        self._scales: list[dict[str, float]] = [] if saved is None else list(saved["scales"])  # as at initialisation
        self._told = _told(opens, start, saved)

    def load(self, saved: Mapping[str, Any], start: int) -> None:
        """Go on at a step from what `state` gave, whoever has been told to listen since."""
        self._scales, self._told = list(saved["scales"]), _told(self._opens, start, saved)
        kept = [*self._scales, *(scales for _, scales in self._watched[len(self._scales) :])]
        self._watched = [(network, scales) for (network, _), scales in zip(self._watched, kept, strict=False)]

    def add(self, callback: Callback) -> None:
        """Tell a function of each switch."""
        self._callbacks.append(callback)

    def watch(self, network: nn.Module, optimizer: Any) -> None:
        """Carry out every transition on a network, as it is now at initialisation, and its optimizer.

        Raises:
            TrainingFunctionError: the network is watched with another optimizer, and would be changed twice.
        """
        if any(network is watched for watched, _ in self._watched):
            raise TrainingFunctionError(
                f"{self._said}.on_switch was given this network before. With several optimizers give it a function "
                "instead, which changes the network once."
            )
        self._see(network)
        self.add(lambda switch: switch.apply(network, optimizer))

    def carry_out(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Do what is to be done up to right before an update, for whoever asks at each; gives whether it was anything.

        Raises:
            TrainingFunctionError: a transition goes by the weights at initialisation, which nobody has seen.
        """
        if step == 0 or self._scales:
            self._see(network)
        due = sorted(at for at in self._opens if at <= step and at not in self._told)
        for at in due:
            self._switch(at).apply(network, optimizer)
            self._told.add(at)
        return any(not self._phases[self._opens[at]].transition.is_neutral for at in due)

    def _see(self, network: nn.Module) -> None:
        """Take note of a network as it is at initialisation."""
        if any(network is watched for watched, _ in self._watched):
            return
        number = len(self._watched)
        if number == len(self._scales):  # else an interrupted run has seen it at initialisation
            self._scales.append(transitions.scales(network))
        self._watched.append((network, self._scales[number]))

    def is_due(self, step: int) -> bool:
        """Whether a switch that somebody wants to hear of, or must carry out, comes right before an update."""
        if step not in self._opens or step in self._told:
            return False
        return bool(self._callbacks) or not self._phases[self._opens[step]].transition.is_neutral

    def state(self) -> dict[str, Any]:
        """What a later start needs: the switches that were made, and the spread of weights at initialisation."""
        return {"told": sorted(self._told), "scales": self._scales}

    def reach(self, step: int) -> None:
        """Tell of the switches up to right before an update, each once.

        Raises:
            TrainingFunctionError: nobody carries out a transition of the policy.
        """
        for at in sorted(at for at in self._opens if at <= step and at not in self._told):
            self._tell(at)
            self._told.add(at)  # now that nothing was raised

    def left(self, total: int) -> list[str]:
        """Transitions that were not carried out though their update was."""
        late = [self._opens[at] for at in sorted(self._opens) if at < total and at not in self._told]
        return [self._phases[phase].phase.transition for phase in late if not self._phases[phase].transition.is_neutral]

    def _tell(self, at: int) -> None:
        phase, switch = self._phases[self._opens[at]], self._switch(at)
        if not self._callbacks and not phase.transition.is_neutral:
            raise TrainingFunctionError(
                f"the policy opens phase {phase.index + 1} with {switch.transition!r}, and nobody carries it out. Call "
                f"{self._said}.on_switch(network=..., optimizer=...) before the first update."
            )
        for callback in self._callbacks:
            callback(switch)
        if not switch._done and not phase.transition.is_neutral:
            raise TrainingFunctionError(
                f"the function was told of the transition {switch.transition!r}, and did not carry it out. Call "
                "switch.apply(network, optimizer), or switch.done() where your code has done it."
            )

    def _switch(self, at: int) -> Switch:
        phase = self._phases[self._opens[at]]
        return Switch(
            phase=phase.index,
            step=at,
            transition=phase.phase.transition,
            options=phase.phase.transition_options,
            _resolved=phase,
            _seed=self._seed,
            _watched=self._watched,
            _done=[],
        )
