from __future__ import annotations

import re

import pytest
from fake_inputs import changed

from subsettune.api import TuneOptions, tune
from subsettune.errors import ConfigError
from subsettune.study.importable import own_code, why_not_here
from subsettune.study.spec.definition import parse


def test_everything_that_is_not_ours_is_found() -> None:
    study = parse(
        changed(
            {
                "task.model": {"name": "nets:net"},
                "task.data": {"source": "mine:images"},
                "task.recipe.optimizer": "nets:Adam2",
                "task.recipe.augment": {"function": "goals:noisy"},
                "task.metric": {"name": "goals:cost", "higher_is_better": False},
                "task.loss": "goals:focal",
                "space.selector": {"choice": ["random", "mine:Best"]},
                "space.order": {"choice": ["uniform", "mine:Order"]},
                "space.transition": "mine:Jump",
            }
        )
    )
    assert own_code(study) == {
        "mine:images": "task.data.source",
        "nets:net": "task.model.name",
        "nets:Adam2": "task.recipe.optimizer",
        "goals:noisy": "task.recipe.augment.function",
        "goals:cost": "task.metric",
        "goals:focal": "task.loss",
        "mine:Best": "space.selector",
        "mine:Order": "space.order",
        "mine:Jump": "space.transition",
    }
    assert own_code(parse(changed({}))) == {}


def test_code_of_the_running_script_is_refused_where_workers_are_other_processes() -> None:
    """Each trial would fail on its own, and the study end with the news that no policy is good enough."""
    study = changed({"task.model": {"name": "__main__:net"}})
    words = (
        "task.model.name: name must be importable by workers, got '__main__:net'. Put it into a file of its own and "
        "write module:name, or run without Ray: executor='inline', --inline."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
        tune(study, run_id="main", options=TuneOptions(storage="/nowhere"))


def test_what_cannot_be_imported_is_told_with_its_key() -> None:
    assert why_not_here({"json:loads": "task.data.source"}) is None
    words = why_not_here({"nowhere:net": "task.model.name"})
    assert words is not None
    assert words.startswith("task.model.name 'nowhere:net' cannot be imported: No module named 'nowhere'. Run from")
