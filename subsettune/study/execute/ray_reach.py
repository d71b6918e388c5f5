"""Asks every node that may train, before the first run: for the storage, versions, the user's code, data and GPUs.

A run that cannot import its network would fail, as would all others, and the study would end with the wrong news that
no policy is good enough. What a node lacks ends the study, with its name and what to do. A node that could not be
asked, because it is busy, its worker was ended for want of memory or it is just being lost, is told and no more: its
runs are tried, and what they meet counts.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from subsettune import config
from subsettune.errors import StudyError
from subsettune.keys import settings_of_stores
from subsettune.storage import Folder
from subsettune.study.execute.node_check import (
    INSTALL,
    NodeQuestion,
    versions_here,
    why_no_gpu_on_this_node,
    why_not_on_this_node,
)
from subsettune.study.execute.ray_cluster import is_client
from subsettune.study.execute.worker import Worker

MARK = ".seen-"  # begins the name of a file that nodes look for
ANSWER_S = 30.0  # a worker starts, and the user's code may import much; a node that takes longer is not waited for
RETRIES = 3  # a process that is ended while a node is asked says nothing of the node
A_GPU = 0.01  # of one, to be shown it: as little as Ray counts reliably


@dataclass(slots=True, kw_only=True)
class _Answers:
    """What nodes lack, and which could not be asked, each with the nodes' addresses."""

    problems: dict[str, list[str]] = field(default_factory=dict)
    unasked: dict[str, list[str]] = field(default_factory=dict)


def check_nodes(
    worker: Worker,
    code: Mapping[str, str],
    storage: str,
    note: Callable[[str], None],
    num_fitting: Callable[[Mapping[str, float]], int],
) -> None:
    """Ask each node that is alive and takes runs for what it lacks.

    Args:
        worker: that runs will be carried out by.
        code: of the study, not ours, with its keys.
        storage: folder or URI that all nodes share.
        note: told of nodes that could not be asked.
        num_fitting: how many runs a node with these resources takes; one that takes none is not asked.

    Raises:
        StudyError: a node lacks something.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and num_fitting(node["Resources"])]  # type: ignore[no-untyped-call]
    odd = _odd_files()
    if not code and not odd and all(map(_is_ours, nodes)):
        return  # this machine has all that this process has
    folder, mark = Folder.at(storage), f"{MARK}{secrets.token_hex(8)}"
    folder.write(mark, b"")
    question = NodeQuestion(
        worker=config.canonical_json(worker),
        code=dict(code),
        storage=storage,
        mark=mark,
        home=str(Path.cwd()),
        versions=dict(versions_here()),
        settings=settings_of_stores(),
    )
    try:
        answers = _gathered(_asked(nodes, question, worker), time.monotonic() + ANSWER_S)
    finally:
        folder.remove(mark)
    for why, where in answers.unasked.items():
        note(
            f"{_named(where).capitalize()} could not be asked what runs need: {why}. Runs are tried there nonetheless."
        )
    if answers.problems:
        raise StudyError(" ".join(_lacking(where, why, odd) for why, where in answers.problems.items()))


def _is_ours(node: Mapping[str, Any]) -> bool:
    """Whether this process is on a node; by ray:// it is on none."""
    return not is_client() and node["NodeID"] == ray.get_runtime_context().get_node_id()


def _odd_files() -> list[str]:
    """Files of the working folder named like modules that are loaded here, from elsewhere.

    Ray puts that folder first where its workers look for modules, so a `torch.py` there is what they get for torch.
    """
    here = [path for path in Path.cwd().glob("*.py") if path.stem in sys.modules]
    loaded = {path: getattr(sys.modules[path.stem], "__file__", None) for path in here}
    return sorted(path.name for path, file in loaded.items() if file is None or Path(file).resolve() != path.resolve())


def _asked(nodes: Iterable[Mapping[str, Any]], question: NodeQuestion, worker: Worker) -> dict[Any, str]:
    """Addresses of the nodes by what will hold their answers."""
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        address, common = str(node["NodeManagerAddress"]), {"scheduling_strategy": there, "max_retries": RETRIES}
        asked[ray.remote(num_cpus=0)(why_not_on_this_node).options(**common).remote(question)] = address
        if worker.needs_gpu and node["Resources"].get("GPU", 0) > 0:
            with_gpu = ray.remote(num_cpus=0, num_gpus=A_GPU)(why_no_gpu_on_this_node).options(**common)
            asked[with_gpu.remote(worker.gpus)] = address
    return asked


def _gathered(asked: Mapping[Any, str], until_s: float) -> _Answers:
    """Wait for answers until a time of the monotonic clock; what has not come by then is given up."""
    answers, waiting = _Answers(), list(asked)
    while waiting:
        answered, waiting = ray.wait(waiting, timeout=max(0.0, until_s - time.monotonic()))
        if not answered:
            break
        problem, why_unasked = _answer(answered[0])
        for found, words in ((answers.problems, problem), (answers.unasked, why_unasked)):
            if words is not None and asked[answered[0]] not in found.setdefault(words, []):
                found[words].append(asked[answered[0]])
    for late in waiting:
        ray.cancel(late, force=True)
        answers.unasked.setdefault(f"no answer in {ANSWER_S:g} s", []).append(asked[late])
    return answers


def _answer(answer: Any) -> tuple[str | None, str | None]:
    """What a node lacks, and why it could not be asked; None where that is not so."""
    try:
        return ray.get(answer), None
    except (RayTaskError, RuntimeEnvSetupError) as error:
        return f"{_last_line(error)}. {INSTALL}", None
    except RayError as error:
        return None, f"{type(error).__name__}, {_first_line(error)}"


def _last_line(error: Exception) -> str:
    """Of a trace, where the error is."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")


def _first_line(error: Exception) -> str:
    """Of Ray's own words, behind which come ids and advice."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")


def _named(addresses: list[str]) -> str:
    places = sorted(set(addresses))
    return f"{'node' if len(places) == 1 else 'nodes'} {', '.join(places)}"


def _lacking(addresses: list[str], why: str, odd: list[str]) -> str:
    workers = "the worker" if len(addresses) == 1 else "the workers"
    told = f"{workers} on {_named(addresses)} cannot train: {why}"
    if not odd:
        return told
    advice = "If it is meant to be Python's or a package's own, rename the file, or run from another folder."
    return (
        f"{told.removesuffix(INSTALL).rstrip()} The working folder holds {', '.join(odd)}, which workers take. {advice}"
    )
