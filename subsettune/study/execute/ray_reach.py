"""What every node of a cluster must reach, asked of each before the first run: the user's code and the study's folder.

A run that cannot import its network would fail, as would all others, and the study would end with the wrong news that
no policy is good enough.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from subsettune.errors import StudyError
from subsettune.storage import Folder, not_shared
from subsettune.study.importable import why_not_here

TRAINING = "subsettune.study.execute.worker"  # brings torch and all else that a run takes
ANSWER_S = 60.0  # a worker starts, and the user's code may import much; a node that takes longer is not waited for


def check_nodes(code: Mapping[str, str], storage: str) -> None:
    """Ask each node that is alive for what it cannot reach.

    Args:
        code: of the study, not ours, with its keys.
        storage: folder or URI that all nodes share.

    Raises:
        StudyError: a node cannot import the code, or does not see the folder.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    odd = _odd_files()
    if not code and not odd and len(nodes) == 1:  # this machine's own, with nothing to import
        return
    folder, mark = Folder.at(storage), f".seen-{secrets.token_hex(8)}"
    folder.write(mark, b"")
    try:
        asked = {_ask(node["NodeID"], dict(code), storage, mark): str(node["NodeManagerAddress"]) for node in nodes}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for answer in answered:
            problem = _answer(answer, odd)
            if problem is not None:
                raise StudyError(f"the worker on node {asked[answer]} cannot train: {problem}")
    finally:
        folder.remove(mark)


def _odd_files() -> list[str]:
    """Files of the working folder named like modules that are loaded here, from elsewhere.

    Ray puts that folder first where its workers look for modules, so a `torch.py` there is what they get for torch.
    """
    here = [path for path in Path.cwd().glob("*.py") if path.stem in sys.modules]
    loaded = {path: getattr(sys.modules[path.stem], "__file__", None) for path in here}
    return sorted(path.name for path, file in loaded.items() if file is None or Path(file).resolve() != path.resolve())


def _answer(answer: Any, odd: list[str]) -> str | None:
    try:
        problem = ray.get(answer)
    except RayTaskError as error:
        problem = f"{str(error).strip().splitlines()[-1].rstrip('.')}."
    except RayError:  # the node was lost meanwhile: its runs go elsewhere
        return None
    if problem is None or not odd:
        return None if problem is None else str(problem)
    advice = "If it is meant to be Python's or a package's own, rename the file, or run from another folder."
    return f"{problem} The working folder holds {', '.join(odd)}, which workers take. {advice}"


def _ask(node: str, code: dict[str, str], storage: str, mark: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    question = ray.remote(num_cpus=0, max_retries=0)(_why_not_there).options(scheduling_strategy=there)
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return question.remote(code, storage, mark, str(Path.cwd()), keys)


def _why_not_there(code: dict[str, str], storage: str, mark: str, home: str, keys: dict[str, str]) -> str | None:
    """What a worker lacks; runs on its node. Runs get the keys from Tune, and other settings from the URI."""
    os.environ.update(keys)
    with contextlib.suppress(OSError):  # on another node the driver's folder may not exist
        os.chdir(home)
    if not Folder.at(storage).exists(mark):
        return not_shared(storage, "it")
    try:
        importlib.import_module(TRAINING)
    except Exception as error:  # whatever stands in the way of a package
        return f"it cannot load {TRAINING}: {type(error).__name__}: {error}."
    return why_not_here(code)
