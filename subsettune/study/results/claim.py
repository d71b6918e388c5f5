"""What a study may say of a subset policy against plain training of its compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from subsettune.study.results.candidate import EQUAL, OWN, Candidate, role_of
from subsettune.study.results.contrast import Contrast


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether a policy is shown to be better than plain training of equal compute, and what decides it.

    Args:
        contrast: with the control that decides: of two that are beaten the one with the smaller bound.
        shown: None while that is open, or where a control that it takes was not run.
    """

    contrast: Contrast
    shown: bool | None


def claim_on(name: str, contrasts: Mapping[str, Contrast], candidates: Mapping[str, Candidate]) -> Claim | None:
    """The claim on a candidate; None where it was held against no plain training.

    It has to be better than plain training by the settings that the search expects most of there (`equal`), and where
    it has others itself, than plain training by its own (`own`), too: else a learning rate may be all that it gained.
    Each is a test at the level of the claim, which so errs no more often (the intersection-union principle).

    Args:
        name: of the candidate.
        contrasts: by name of the control.
        candidates: by name, controls among them.
    """
    held = {role_of(one.control): one for one in contrasts.values() if one.policy == name and one.is_claim}
    equal, own = held.get(EQUAL), held.get(OWN)
    if equal is None:
        return None
    if equal.shown is not True or candidates[equal.control].policy.recipe == candidates[name].policy.recipe:
        return Claim(contrast=equal, shown=equal.shown)
    if own is None or not own.num_seeds:
        return Claim(contrast=equal, shown=None)
    if own.shown is not True:
        return Claim(contrast=own, shown=own.shown)
    return Claim(contrast=min((equal, own), key=lambda one: one.lower_bound), shown=True)
