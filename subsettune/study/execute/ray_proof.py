"""Proof, before the first run, that every node of a cluster starts a worker for this driver and answers it.

Where the driver and a node do not understand each other, Ray lets each actor die before it runs: all runs would fail,
and the study would end with the wrong news that no policy is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from subsettune.errors import StudyError

ANSWER_S = 60.0  # a node may have to fetch its environment first
MENDED = (
    "Its Ray must take the token of this driver, and the two must reach each other's ports. Start that node again with "
    "the RAY_AUTH_MODE and the token of the head node, and see the logs in /tmp/ray/session_latest/logs there."
)


def prove_nodes(note: Callable[[str], None], answer_s: float = ANSWER_S) -> None:
    """Start an actor on every node that is alive, and have it answer.

    Args:
        note: told of nodes that are too slow to tell.
        answer_s: seconds that all of them get.

    Raises:
        StudyError: an actor died, and its node has not, or none of them answered.
    """
    places = _alive()
    witnesses = {node: _on(node) for node in places}
    asked = {witness.answer.remote(): node for node, witness in witnesses.items()}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=answer_s) if asked else ([], [])
    for answer in answered:
        try:
            ray.get(answer)
        except RayError as error:
            if asked[answer] in _alive():
                where, why = places[asked[answer]], _cause(error)
                raise StudyError(f"node {where} starts no worker for this driver: {why} {MENDED}") from error
    for witness in witnesses.values():
        ray.kill(witness)
    if silent and not answered:
        raise StudyError(f"no node of the cluster started a worker for this driver in {answer_s:g} s. {MENDED}")
    for answer in silent:
        note(f"Node {places[asked[answer]]} started no worker in {answer_s:g} s; runs there may have to wait.")


def _alive() -> dict[str, str]:
    """Addresses of the nodes, by id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}


def _on(node: str) -> Any:
    class Witness:  # in here, it is sent whole: a node may have another version of this package, which is told later
        def answer(self) -> None:
            """Nothing but that it is there."""

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_restarts=0)(Witness).options(scheduling_strategy=there).remote()


def _cause(error: RayError) -> str:
    """Ray's last line, which has the cause; those before it have ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1].rstrip('.')}." if lines else f"{type(error).__name__}."
