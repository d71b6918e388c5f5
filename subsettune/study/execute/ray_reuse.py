"""Workers are used again wherever a run may soon need one: a new one takes seconds to start.

Of what Tune does with the workers of runs that have ended (ray/tune/execution/tune_controller.py and
ray/tune/utils/object_cache.py, read in Ray 2.60) two things waste them where runs are short. It gives a free worker to
any trial that waits, and ends the worker that was starting for that trial: where runs are shorter than a start, no
second one ever comes up, and all runs go through the first, however many nodes there are. And it ends a free worker at
once if no trial waits for one, though the next is proposed a moment later. Where Tune has no such methods any more,
nothing is changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

KEPT_S = 10.0  # a free worker, for which no trial waits; then its node may go
REUSE = "_maybe_reuse_cached_actor"


@contextlib.contextmanager
def workers_are_kept() -> Iterator[None]:
    """Within this, workers that start are left to start, and free ones are kept for a while."""
    with contextlib.ExitStack() as stack:
        for owner, method, made in ((TuneController, REUSE, _reuse), (_ObjectCache, "cache_object", _keep)):
            if hasattr(owner, method):
                stack.enter_context(mock.patch.object(owner, method, made(getattr(owner, method))))
        if hasattr(_ObjectCache, "flush_cached_objects"):
            plain = _ObjectCache.flush_cached_objects
            stack.enter_context(mock.patch.object(_ObjectCache, "flush_cached_objects", _let_go(plain)))
        yield


def _reuse(plain: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A trial whose own worker has its resources waits for it, and one that is free goes to another."""

    def reuse(controller: Any, trial: Any) -> bool:
        own = controller._trial_to_actor.get(trial)
        is_starting = own is not None and trial not in controller._resetting_trials
        if is_starting and controller._actor_manager.is_actor_started(own):  # else it waits for room, maybe in vain
            return False
        return plain(controller, trial)

    return reuse


def _keep(plain: Callable[[Any, Any, Any], bool]) -> Callable[[Any, Any, Any], bool]:
    """Keep every worker that has become free, and note since when."""

    def keep(cache: Any, key: Any, worker: Any) -> bool:
        _since_s(cache)[worker] = time.monotonic()
        if not plain(cache, key, worker):
            cache._cached_objects[key].append(worker)
            cache._num_cached_objects += 1
        return True

    return keep


def _let_go(plain: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Of the free workers that Tune would end, end those that were free for a while."""

    def let_go(cache: Any, force_all: bool = False) -> Iterator[Any]:
        since_s, long_ago_s = _since_s(cache), time.monotonic() - KEPT_S
        young = {}
        for key, workers in cache._cached_objects.items() if not force_all else ():
            young[key] = [worker for worker in workers if since_s.get(worker, long_ago_s) > long_ago_s]
            workers[:] = [worker for worker in workers if worker not in young[key]]
        yield from plain(cache, force_all)
        for key, workers in young.items():
            cache._cached_objects[key] += workers

    return let_go


def _since_s(cache: Any) -> dict[Any, float]:
    return vars(cache).setdefault("_since_s", {})  # type: ignore[no-any-return]
