"""Every registry: names that load, one line each, the one sentence for what is unknown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from subsettune import registry
from subsettune.errors import ConfigError
from subsettune.registry import KINDS, METRICS, MODELS, OPTIMIZERS, ORDERS, SCHEDULES, SELECTORS, TRANSITIONS, Registry

ALL = (SELECTORS, ORDERS, TRANSITIONS, MODELS, OPTIMIZERS, SCHEDULES)


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.what)
def test_every_name_loads_and_says_what_it_is(known: Registry) -> None:
    assert len(known) == len(known.names()) == len(set(known))
    for name, about in known.summaries().items():
        assert name in known
        assert callable(known[name])
        assert about
        assert "\n" not in about
        assert known.code_of(name) is None


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.what)
def test_what_is_unknown_is_told_with_the_known_ones(known: Registry) -> None:
    assert "nothing" not in known
    with pytest.raises(KeyError):
        _ = known["nothing"]
    with pytest.raises(ConfigError) as caught:
        known.load("nothing")
    own = f" or {known.user_code}" if known.user_code else ""
    assert str(caught.value) == f"{known.what} must be one of {', '.join(known)}{own}, got 'nothing'."


def test_selectors_have_the_names_that_they_are_registered_by() -> None:
    assert [cls.name for cls in SELECTORS.values()] == [*SELECTORS]


@pytest.mark.parametrize("known", [SELECTORS, ORDERS, TRANSITIONS], ids=lambda known: known.what)
def test_two_packages_may_not_give_one_name(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(known))
    monkeypatch.setattr(registry, "_entry_points", lambda *_: (("new", "a:B"), ("new", "c:D")))
    with pytest.raises(
        ConfigError, match=rf"^{known.what} 'new' of a:B and c:D has the name of another. Uninstall or "
    ):
        known.names()
    monkeypatch.setattr(registry, "_entry_points", lambda *_: ((first, "a:B"),))
    with pytest.raises(ConfigError, match=rf"^{known.what} '{first}' of a:B has the name of another"):
        known.names()


def test_metrics_have_words() -> None:
    assert {kind for metric in METRICS.values() for kind in metric.tasks} == set(KINDS)
    assert all(metric.words for metric in METRICS.values())


def test_what_a_package_brings_is_not_looked_for_in_the_working_folder(tmp_path: Path) -> None:
    """A folder that somebody works in may hold a `random.py`, and only names of their own code ask for it."""
    code = (
        "import sys; from subsettune.train import orders, transitions\n"
        "orders.make('rs2'), transitions.make('prune')\n"
        "try: orders.make('nowhere:Thing')\n"
        "except Exception: print(sys.argv[1] in sys.path)\n"
    )
    early = code.partition("try:")[0] + "print(sys.argv[1] in sys.path)"
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
    for script, expected in ((early, "False"), (code, "True")):
        command = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
