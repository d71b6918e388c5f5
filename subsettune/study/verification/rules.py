"""What a study file says of its verification."""

from __future__ import annotations

from subsettune.study.spec.definition import Study
from subsettune.study.verification.noninferiority import Rules


def rules_of(study: Study, *, resolution: float = 0.0, usual_spread: float = 0.0) -> Rules:
    """The rules of a study; what only its data and its reference tell is 0 where it does not matter.

    Args:
        study: the resolved input.
        resolution: smallest step of the metric on the test split.
        usual_spread: of the reference's metric over seeds on the validation split.
    """
    task, settings = study.task, study.study
    return Rules(
        margin=task.tolerance,
        alpha=settings.alpha,
        seeds=settings.seeds,
        max_seeds=settings.seed_cap,
        higher_is_better=task.higher_is_better,
        resolution=resolution,
        usual_spread=usual_spread,
    )
