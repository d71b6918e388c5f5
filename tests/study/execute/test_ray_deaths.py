"""Deaths of workers that Tune takes for errors of its own, without a cluster; a real one is in `test_ray`."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError, OutOfMemoryError, RayError

from subsettune.study.execute import ray_deaths
from subsettune.study.execute.ray_deaths import WorkerLostError, every_death_is_told, ran_out_of_memory


def told_of(error: Exception) -> list[Exception]:
    """What Tune tells of a task of an actor that came back with an error."""
    heard: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda _, error: heard.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager: Any = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    RayActorManager._actor_task_failed(manager, task, error)  # type: ignore[arg-type]
    return heard


def test_without_us_a_worker_that_ran_out_of_memory_ends_everything() -> None:
    """Should this fail, Tune has learned it, and the module that is tested here can go."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception: no memory"):
        told_of(OutOfMemoryError("no memory"))


@pytest.mark.parametrize("error", [OutOfMemoryError("gone"), NodeDiedError("gone"), ObjectLostError("1f", None, "")])
def test_it_is_the_death_of_its_worker(error: RayError) -> None:
    before = RayActorManager._actor_task_failed
    with every_death_is_told():
        (heard,) = told_of(error)
    assert RayActorManager._actor_task_failed is before
    assert isinstance(heard, WorkerLostError)
    again = pickle.loads(pickle.dumps(heard))  # Tune writes it to a file
    assert (type(again.cause), str(again)) == (type(error), str(error))
    assert ran_out_of_memory(again) == isinstance(error, OutOfMemoryError)
    assert ray_deaths.names_node(again) == isinstance(error, NodeDiedError)
    assert ray_deaths.may_be_of_node(again) != isinstance(error, OutOfMemoryError)


def test_deaths_that_tune_knows_and_errors_of_others_stay_as_they_are() -> None:
    died = ActorDiedError()
    with every_death_is_told():
        assert told_of(died) == [died]
        with pytest.raises(RuntimeError, match="Caught unexpected exception: else"):
            told_of(ValueError("else"))


@pytest.mark.parametrize("name", ["MANAGER", "TOLD_BY"])
def test_where_tune_has_changed_nothing_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_deaths, name, "no.such.module" if name == "MANAGER" else ("no_such_method",))
    before = RayActorManager._actor_task_failed
    with every_death_is_told():
        assert RayActorManager._actor_task_failed is before
