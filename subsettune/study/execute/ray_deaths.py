"""Deaths of worker processes that Ray Tune does not take for deaths: of memory, above all.

Tune's `RayActorManager` (ray/air/execution/_internal/actor_manager.py, read in Ray 2.60) knows two kinds of
error of a worker: `RayActorError`, its death, and `RayTaskError`, what its code raised. Ray has more of them:
`OutOfMemoryError`, where its memory monitor has ended the process, `NodeDiedError`, `ObjectLostError` and others. Those
leave `tune.run` as a RuntimeError, and the study would end with them. Here they are made what they are, the death of
one worker. Where Tune has no such methods any more, nothing is changed, and its own error leaves as before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError

MANAGER = "ray.air.execution._internal.actor_manager"
TOLD_BY = ("_actor_task_failed", "_actor_start_failed")  # of the manager: (what was tracked, the error)


class WorkerLostError(RayActorError):
    """The death of a worker by an error that Ray has no death of an actor for; `cause` is that error."""

    def __init__(self, cause: RayError) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause

    def __reduce__(self) -> tuple[type[WorkerLostError], tuple[RayError]]:
        return type(self), (self.cause,)  # Tune pickles it


def ran_out_of_memory(error: Exception | None) -> bool:
    """Whether Ray ended the worker because its node had no memory left."""
    return isinstance(error, WorkerLostError) and isinstance(error.cause, OutOfMemoryError)


def names_node(error: RayActorError) -> bool:
    """Whether an error says by itself that the worker is gone because its node is."""
    lost = isinstance(error, WorkerLostError) and isinstance(error.cause, NodeDiedError)
    return lost or error.preempted or "node has died" in str(error)


def may_be_of_node(error: RayActorError) -> bool:
    """Whether an error may come of a node that Ray does not know to be dead yet."""
    unclear = isinstance(error, WorkerLostError) and not ran_out_of_memory(error)
    return unclear or isinstance(error, ActorUnavailableError)


@contextlib.contextmanager
def every_death_is_told() -> Iterator[None]:
    """Let Tune take every error of a worker's that its own code did not raise for the death of that worker."""
    with contextlib.ExitStack() as stack:
        for name in TOLD_BY:
            with contextlib.suppress(ImportError, AttributeError):  # another Ray, see above
                plain = getattr(_manager(), name)
                stack.enter_context(mock.patch.object(_manager(), name, _telling(plain)))
        yield


def _manager() -> Any:
    from importlib import import_module

    return import_module(MANAGER).RayActorManager


def _telling(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def told(*arguments: Any, **named: Any) -> Any:
        return plain(*map(_as_death, arguments), **{name: _as_death(value) for name, value in named.items()})

    return told


def _as_death(value: Any) -> Any:
    is_known = not isinstance(value, RayError) or isinstance(value, (RayActorError, RayTaskError))
    return value if is_known else WorkerLostError(value)
