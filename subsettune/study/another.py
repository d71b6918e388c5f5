"""What a run id means: a study that is not the one that began under it is refused, with what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from subsettune import config
from subsettune.errors import StudyError
from subsettune.study.results.folder import StudyFolder
from subsettune.study.results.manifest import DataOrigin
from subsettune.study.spec.definition import Study

MOST = 5  # keys that are named
# Settings that a study may go on with another value of; the others are part of what its evidence says.
MAY_CHANGE = (
    "trials",
    "parallel",
    "gpus_per_trial",
    "candidates",
    "ablation_seeds",
    "time_limit_s",
    "checkpoint_every_s",
    "silence_limit_s",
    "soup_processes",
)


def refuse_another(study: Study, folder: StudyFolder, data: DataOrigin) -> None:
    """The same run id must mean the same task, data, space and seed; only how much is spent may change.

    Raises:
        StudyError: it does not; with the keys that differ, and the command that goes on with what there is.
    """
    before, known = folder.manifest.study, folder.manifest.data
    or_else = f"choose another --run-id, or remove {folder.folder}."
    if before.task != study.task:
        told = f"run id {folder.run_id!r} belongs to another task{_differing('task', before.task, study.task)}."
        raise StudyError(f"{told} {_go_on(folder, or_else)}")
    if before.space != study.space:
        told = f"run id {folder.run_id!r} has another space{_differing('space', before.space, study.space)}."
        raise StudyError(f"{told} {_go_on(folder, or_else)}")
    fixed = [name for name in config.to_plain(before.study) if name not in MAY_CHANGE]
    changed = {n: getattr(before.study, n) for n in fixed if getattr(before.study, n) != getattr(study.study, n)}
    if changed:
        words = ", ".join(f"{name} {_in_words(value)}" for name, value in changed.items())
        told = f"run id {folder.run_id!r} began with {words}"
        raise StudyError(f"{told}. Keep that, or choose another --run-id. {_go_on(folder, '')}".rstrip())
    if known is not None and known.fingerprint != data.fingerprint:
        told = f"the data of run id {folder.run_id!r} have changed since it began."
        raise StudyError(f"{told} {or_else[0].upper()}{or_else[1:]}")


def _go_on(folder: StudyFolder, or_else: str) -> str:
    """The command that goes on with a study, where it was started by one, and what else can be done."""
    command = folder.manifest.command
    if not command:
        return or_else[:1].upper() + or_else[1:]
    return f"To go on with it: {command}" + (f" ; or {or_else}" if or_else else "")


def _differing(part: str, before: object, now: object) -> str:
    """The keys that differ, with the value that the study began with and that of the file."""
    old, new = (dict(_flat(part, config.to_plain(one))) for one in (before, now))
    names = [name for name in {**new, **old} if new.get(name) != old.get(name)]
    told = [f"{name} was {json.dumps(old.get(name))}, and is {json.dumps(new.get(name))}" for name in names[:MOST]]
    told += [f"{len(names) - MOST} more keys differ"] if len(names) > MOST else []
    return f": {'; '.join(told)}" if told else ""


def _flat(name: str, plain: Any) -> Iterator[tuple[str, Any]]:
    """Keys with dots, as `--set` takes them."""
    if not (isinstance(plain, Mapping) and plain):
        yield name, plain
        return
    for key, inner in plain.items():
        yield from _flat(f"{name}.{key}", inner)


def _in_words(value: object) -> str:
    """A setting as a study file has it."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
