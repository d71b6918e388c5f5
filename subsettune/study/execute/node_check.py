"""What a node of a cluster must have before a run is sent there, looked at in a process on that node."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import subsettune
from subsettune import config
from subsettune.errors import StorageError, SubsettuneError
from subsettune.patience import hurried
from subsettune.storage import Folder, not_shared
from subsettune.study.importable import why_not_here

TRAINING = "subsettune.study.execute.worker"  # brings torch and all else that a run takes
INSTALL = "Install the driver's packages on every node."
ALIKE = "Python, torch, ray and subsettune"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuestion:
    """What a node is asked, by a driver that may be elsewhere.

    Args:
        worker: that runs will be carried out by, as JSON.
        code: of the study, not ours, that it must import, with its keys.
        storage: folder or URI that all nodes share.
        mark: name of a file that the driver has written there.
        home: the driver's working folder.
        versions: the driver's.
        settings: that stores are reached by, for the environment.
    """

    worker: str
    code: dict[str, str]
    storage: str
    mark: str
    home: str
    versions: dict[str, str]
    settings: dict[str, str]


@functools.cache
def versions_here() -> Mapping[str, str]:
    """Versions that must agree on all nodes: of Python without its patches, of torch without its build."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "subsettune": subsettune.__version__}
    for name in ("torch", "ray"):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def why_not_on_this_node(question: NodeQuestion) -> str | None:
    """What this node lacks, as one or two sentences that say what to do; None if runs may come."""
    os.environ.update(question.settings)
    with contextlib.suppress(OSError):  # on another node the driver's folder may not exist
        os.chdir(question.home)
    return (
        other_versions(question.versions, versions_here())
        or _why_no_storage(question.storage, question.mark)
        or _why_no_training()
        or why_not_here(question.code)
        or _why_no_data(question.worker)
    )


def other_versions(driver: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Which versions are not the driver's, and what to do; None if all are."""
    others = [
        f"{name} {here[name]} where the driver has {driver[name]}" for name in driver if here[name] != driver[name]
    ]
    if not others:
        return None
    return f"it has {' and '.join(others)}. Install the same versions of {ALIKE} on every node."


def why_no_gpu_on_this_node(gpus: float) -> str | None:
    """Why a run would train without the GPU that it is given here; None if torch finds one."""
    from subsettune.study.execute.gpus import why_without_gpu

    return why_without_gpu(gpus)


def _why_no_storage(storage: str, mark: str) -> str | None:
    """Why a run here could not keep its checkpoints; a file is written, read back and listed."""
    own = f"{mark}-{secrets.token_hex(4)}"
    content = own.encode()
    try:
        with hurried():
            folder = Folder.at(storage)
            if not folder.exists(mark):
                return not_shared(storage, "it")
            folder.write(own, content)
            try:
                is_kept = folder.read(own) == content and {mark, own} <= set(folder.names())
            finally:
                folder.remove(own)
    except StorageError as error:
        return str(error)
    advice = "Give another --storage, or mend that one."
    return None if is_kept else f"what it writes into {folder} is not what it reads or lists there. {advice}"


def _why_no_training() -> str | None:
    try:
        importlib.import_module(TRAINING)
    except Exception as error:  # whatever stands in the way of a package
        return f"it cannot load {TRAINING}: {type(error).__name__}: {error}. {INSTALL}"
    return None


def _why_no_data(worker: str) -> str | None:
    """Why the examples are not here, and cannot be made here."""
    from subsettune.data import check_at_hand
    from subsettune.study.execute.worker import Worker

    hands = config.build(Worker, json.loads(worker))
    try:
        check_at_hand(hands.task, hands.options.places, hands.options.fingerprint)
    except SubsettuneError as error:
        return f"{error} It was looked for on that node, in {Path.cwd()}."
    return None
