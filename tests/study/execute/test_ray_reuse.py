"""A worker that is free is given to a trial that has none on its way, and kept for a while if there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

from subsettune.study.execute import ray_reuse
from subsettune.study.execute.ray_reuse import REUSE, workers_are_kept


def controller(*, starting: str = "", waiting: str = "", resetting: str = "") -> Any:
    """Tune's, with a trial of each letter."""
    actors = {trial: f"actor of {trial}" for trial in (*starting, *waiting, *resetting)}
    manager = SimpleNamespace(is_actor_started=lambda actor: actor in {actors[t] for t in (*starting, *resetting)})
    return SimpleNamespace(_trial_to_actor=actors, _resetting_trials=set(resetting), _actor_manager=manager)


def test_only_a_trial_whose_worker_is_starting_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(TuneController, REUSE, lambda _, trial: asked.append(trial) or True)
    plain = getattr(TuneController, REUSE)
    tune = controller(starting="a", waiting="b", resetting="c")
    with workers_are_kept():
        given = [getattr(TuneController, REUSE)(tune, trial) for trial in ("a", "b", "c", "new")]
    assert given == [False, True, True, True]
    assert asked == ["b", "c", "new"]
    assert getattr(TuneController, REUSE) is plain


def test_free_workers_are_kept_for_a_while_though_no_trial_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(ray_reuse, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with workers_are_kept():
        cache: Any = _ObjectCache()
        assert all(cache.cache_object("one CPU", worker) for worker in ("a", "b"))
        now[0] += 6
        assert cache.cache_object("one CPU", "c")
        assert list(cache.flush_cached_objects()) == []
        now[0] += 6
        assert list(cache.flush_cached_objects()) == ["a", "b"]
        assert cache.pop_cached_object("one CPU") == "c"
        assert cache.num_cached_objects == 0
        cache.cache_object("one CPU", "d")
        assert list(cache.flush_cached_objects(force_all=True)) == ["d"]
    plain: Any = _ObjectCache()
    assert [plain.cache_object("one CPU", worker) for worker in ("a", "b")] == [True, False]
