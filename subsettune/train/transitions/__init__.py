"""Transitions: what happens to weights and optimizer when a phase starts.

Neutral settings change nothing, bit for bit. The learning-rate schedule runs on: it belongs to the policy. A user's own
transition is a subclass of `Transition` in an importable module, a frozen dataclass of its options, named
`package.module:Class`, or by the entry point that its package gives in the group `subsettune.transitions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune.policy import Phase
from subsettune.registry import TRANSITIONS
from subsettune.train.transitions.base import Transition, TransitionContext, scales
from subsettune.train.transitions.basic import Keep

__all__ = ["TRANSITIONS", "Transition", "TransitionContext", "make", "of", "scales"]


def make(name: str, options: Mapping[str, Any] | None = None) -> Transition:
    """A transition by name or `package.module:Class`, with its options.

    Raises:
        ConfigError: unknown name or option, an option out of range, or a class that is no transition.
    """
    made: Transition = TRANSITIONS.make(name, options)
    return made


def of(phase: Phase) -> Transition:
    """The transition of a phase: `keep` where its options change nothing."""
    made = make(phase.transition, phase.transition_options)
    return Keep() if made.is_neutral else made
