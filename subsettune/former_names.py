"""Names that files may still have from version 0.1, read for one release more: `entry` is `transition` now.

Policies, studies and journals that version 0.1 wrote are read as if they had the new names. Keys of policies and runs
are content hashes over the old ones, so that no checkpoint is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError, Mistake

PHASE_KEYS = {"entry": "transition", "entry_options": "transition_options"}
COORDINATES = {"entry": "transition", "shrink": "shrink_perturb.shrink", "noise": "shrink_perturb.noise"}
KINDS = {"entry": "transition"}
SETTINGS = {"comparison_seeds": "ablation_seeds"}
RESULT_KEYS = {
    name: name.replace("twin", "baseline") for name in ("twin", "twin_cost_flops", "twin_metric", "twin_seconds")
}
ABLATION = "comparison"  # what the ablation was called, in the manifest and as the name of its table
ROLES = {ABLATION: "ablation"}
COMPUTE = ("flops", "passes")  # what `objective` could say of a study, in two units
_LOG = logging.getLogger("subsettune")


def current_phase(raw: Mapping[Any, Any]) -> dict[Any, Any]:
    """A phase with today's keys.

    Raises:
        ConfigError: it has a key under both of its names.
    """
    return _renamed(raw, PHASE_KEYS)


def current_point(point: Mapping[Any, Any]) -> dict[Any, Any]:
    """A point of a space with today's coordinates; errors as of `current_phase`."""
    return _renamed(point, COORDINATES)


def current_space(raw: Mapping[Any, Any]) -> dict[Any, Any]:
    """What stands under `space:`, with today's coordinates, in conditions too; errors as of `current_phase`."""
    return {key: _current_axis(axis) for key, axis in current_point(raw).items()}


def current_settings(raw: Mapping[Any, Any]) -> dict[Any, Any]:
    """What stands under `study:`, with today's keys; errors as of `current_phase`, and an `objective` but compute."""
    if raw.get("objective", COMPUTE[0]) not in COMPUTE:
        advice = (
            "Studies minimise training compute, whose cost is known before a run; seconds are not, and are told beside "
            "it, by `plan` before the study and by its report after. Remove the key."
        )
        message = must("objective", f"one of {', '.join(COMPUTE)}", raw["objective"], advice)
        raise ConfigError((Mistake(("objective",), message),))
    return _renamed({key: value for key, value in raw.items() if key != "objective"}, SETTINGS)


def without_objective(study: Any) -> Any:
    """A study of version 0.1 on record, whatever objective it named: its search minimised compute all the same."""
    settings = study.get("study") if isinstance(study, Mapping) else None
    if not isinstance(settings, Mapping):
        return study
    return {**study, "study": {key: value for key, value in settings.items() if key != "objective"}}


def current_result(raw: Mapping[str, Any]) -> dict[Any, Any]:
    """A result of the ablation, with today's keys."""
    return _renamed(raw, RESULT_KEYS)


def former_phase(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A phase with the keys of version 0.1, which its content hash is made of."""
    former = {new: old for old, new in PHASE_KEYS.items()}
    return {former.get(key, key): value for key, value in plain.items()}


def former_coordinate(name: str) -> str:
    """What version 0.1 called a coordinate: random choices are seeded by it, so that a study goes on as it began."""
    return next((old for old, new in COORDINATES.items() if new == name), name)


def say(raw: object, source: str) -> None:
    """Tell a person, on the log, which names in a file of theirs will not be read for long; not of what we wrote."""
    if isinstance(raw, Mapping) and "schema" in raw:
        return
    if isinstance(raw, Mapping) and isinstance(raw.get("study"), Mapping) and "objective" in raw["study"]:
        _LOG.warning("%s: objective means nothing any more: compute is what is minimised. Remove it.", source)
    for old, new in sorted(_found(raw)):
        _LOG.warning("%s: %s is called %s now. The old name is read for one more release: rename it.", source, old, new)


def _found(raw: object) -> set[tuple[str, str]]:
    if not isinstance(raw, Mapping):
        return set()
    found: set[tuple[str, str]] = set()
    phases = raw.get("phases")
    for phase in phases if isinstance(phases, list | tuple) else ():
        found |= {(old, PHASE_KEYS[old]) for old in PHASE_KEYS if isinstance(phase, Mapping) and old in phase}
    settings = raw.get("study")
    if isinstance(settings, Mapping):
        found |= {(old, new) for old, new in SETTINGS.items() if old in settings}
    space = raw.get("space")
    if isinstance(space, Mapping):
        conditions = [
            a["when"] for a in space.values() if isinstance(a, Mapping) and isinstance(a.get("when"), Mapping)
        ]
        found |= {(old, new) for old, new in COORDINATES.items() if any(old in keys for keys in (space, *conditions))}
    return found


def _current_axis(axis: Any) -> Any:
    if not isinstance(axis, Mapping) or not isinstance(axis.get("when"), Mapping):
        return axis
    return {**axis, "when": _renamed(axis["when"], COORDINATES)}


def _renamed(raw: Mapping[Any, Any], names: Mapping[str, str]) -> dict[Any, Any]:
    twice = [
        Mistake((old,), f"{old} is called {new} now, which is there too. Remove {old}.")
        for old, new in names.items()
        if old in raw and new in raw
    ]
    if twice:
        raise ConfigError(tuple(twice))
    return {names.get(key, key): value for key, value in raw.items()}
