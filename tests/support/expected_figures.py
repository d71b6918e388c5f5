"""Figures that the report of each made-up study has."""

from __future__ import annotations

EXPECTED = {
    "empty": (),
    "reference": ("curves",),
    "no_trials": ("curves",),
    "only_failed": ("compute", "curves", "search"),
    "search": ("compute", "curves", "search"),
    "interrupted": ("compute", "curves", "search"),
    "verification": ("compute", "curves", "search"),
    "subset_wins": ("compute", "verification", "components", "curves", "search"),
    "random_wins": ("compute", "verification", "components", "curves", "search"),
    "full_wins": ("compute", "verification", "components", "curves", "search"),
    "equal_wins": ("compute", "verification", "components", "curves", "search"),
    "not_shown": ("compute", "verification", "components", "curves", "search"),
    "before": ("compute", "verification", "components", "curves", "search"),
    "none_passed": ("compute", "verification", "components", "curves", "search"),
}
