"""Figures that the report of each made-up study has."""

from __future__ import annotations

OF_TRIALS = ("compute", "search", "curves")
VERIFIED = ("gain", "verification", *OF_TRIALS, "components")
EXPECTED: dict[str, tuple[str, ...]] = {
    "empty": (),
    "reference": ("curves",),
    "no_trials": ("curves",),
    "only_failed": OF_TRIALS,
    "search": ("gain", *OF_TRIALS),
    "interrupted": ("gain", *OF_TRIALS),
    "verification": ("gain", *OF_TRIALS),
    "subset_wins": VERIFIED,
    "random_wins": VERIFIED,
    "full_wins": VERIFIED,
    "equal_wins": VERIFIED,
    "not_shown": VERIFIED,
    "before": VERIFIED,
    "none_passed": VERIFIED,
}
