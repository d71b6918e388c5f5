"""A study of a second for trackers: it runs, is looked at, and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_inputs import changed

from subsettune import DataPaths, Found, TuneOptions, tune


def tracked(folder: Path, callbacks: list[Any], trials: int) -> Found:
    """The study in a folder with so many trials; it goes on if it has fewer."""
    where = TuneOptions(
        storage=str(folder / "runs"), places=DataPaths(cache=str(folder)), executor="inline", device="cpu"
    )
    raw = changed({"task.tolerance": 0.3, "study.trials": trials, "study.seeds": 2, "study.max_seeds": 2})
    return tune(raw, run_id="one", options=where, callbacks=callbacks, quiet=True)
