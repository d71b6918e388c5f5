"""A candidate of verification: what it is tested as, in which round, and the name that files and tables have for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from subsettune.policy import Policy

CandidateRole = Literal["candidate", "recipe", "shorter", "subset", "equal", "own", "random"]
EQUAL: Literal["equal"] = "equal"  # roles of controls
OWN: Literal["own"] = "own"
RANDOM: Literal["random"] = "random"
_NAME = re.compile(rf"({'|'.join(get_args(CandidateRole))})(?:-(\d+))?(@control)?(?:@(\d+))?")


def role_of(name: str) -> str:
    """The role of a candidate without a number, from its name: `equal` of `equal@2`."""
    return name.partition("@")[0]


def told_name(name: str) -> str:
    """A candidate's name as it is told where its round is known: `short recipe` of `recipe@2`."""
    return "short recipe" if role_of(name) == "recipe" else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy that verification looks at.

    Args:
        role: `candidate`, a choice of the search; `recipe`, the recipe as it is at the largest budget, the last resort;
            `equal`, all data for the winner's compute, with the settings that the search expects most of there; `own`,
            the same with the winner's own settings; `random`, the random control. Studies of version 0.1 have
            `shorter`, the best of the full arm, and `subset`, the likeliest of the subset arm, too.
        number: which of the choices of the search, from 1; 0 for the other roles.
        round: of verification: 1, or more after an extension of the study.
        is_repeat: of version 0.1: a candidate tested beside the sequence, of which nothing is claimed.
        policy: what is trained.
        trials: numbers of the trials it was found by; empty for controls of the winner.
        cost_flops: known cost of one training.
    """

    role: CandidateRole
    number: int = 0
    round: int = 1
    is_repeat: bool = False
    policy: Policy
    trials: tuple[int, ...] = ()
    cost_flops: int

    @property
    def name(self) -> str:
        """Its name in files and tables: `candidate-1`, `shorter`, `random@2`, `shorter@control@2`."""
        number = f"-{self.number}" if self.number else ""
        repeat = "@control" if self.is_repeat else ""
        return f"{self.role}{number}{repeat}{'' if self.round == 1 else f'@{self.round}'}"

    @property
    def is_control(self) -> bool:
        """Whether it was made from another policy, to hold that against."""
        return self.role in (EQUAL, OWN, RANDOM)

    @property
    def may_match(self) -> bool:
        """Whether it is tested against the reference: of other controls nothing like that is claimed."""
        return self.role not in (OWN, RANDOM)

    def to_mapping(self) -> dict[str, Any]:
        """As the manifest holds it under its name."""
        return {"policy": self.policy.to_mapping(), "trials": list(self.trials), "cost_flops": self.cost_flops}

    @classmethod
    def from_mapping(cls, name: str, plain: Mapping[str, Any]) -> Candidate:
        """Read what `to_mapping` gave.

        Raises:
            KeyError, ValueError: the name or the rest is none of a candidate.
        """
        return cls.named(
            name,
            policy=Policy.from_mapping(plain["policy"]),
            trials=tuple(plain["trials"]),
            cost_flops=plain["cost_flops"],
        )

    @classmethod
    def named(cls, name: str, *, policy: Policy, cost_flops: int, trials: tuple[int, ...] = ()) -> Candidate:
        """The candidate of that name.

        Raises:
            ValueError: no candidate has such a name.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is no name of a candidate")
        role, number, repeat, round_number = found.groups()
        return cls(
            role=cast(CandidateRole, role),
            number=int(number or 0),
            round=int(round_number or 1),
            is_repeat=repeat is not None,
            policy=policy,
            trials=trials,
            cost_flops=cost_flops,
        )
