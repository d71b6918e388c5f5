from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest

from subsettune.study.execute.ray_import import WIDGETS, importing_ray


def test_nothing_is_said_of_widgets_while_ray_is_imported(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger(WIDGETS)
    before = log.level
    with caplog.at_level(logging.INFO), importing_ray():
        log.info("Missing packages: ['ipywidgets'].")
        log.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
    assert log.level == before


def test_a_user_without_a_home_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "/here")
    with importing_ray():
        assert os.environ["HOME"] == "/here"
    monkeypatch.setattr(Path, "home", nowhere)
    with importing_ray():
        assert os.environ["HOME"] == tempfile.gettempdir()


def test_tune_shows_nothing_of_its_own_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    with importing_ray():
        from subsettune.study.execute import ray
    assert ray._reporter() is None  # with one given it warns outside of notebooks
    monkeypatch.setattr(ray, "in_notebook", lambda: True)
    reporter = ray._reporter()
    assert reporter is not None
    assert reporter.should_report([]) is reporter.should_report([], done=True) is False
