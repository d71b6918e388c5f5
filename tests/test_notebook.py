"""A notebook, executed by a real kernel: what `tune` shows and gives back there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed

STUDY = changed({"task.tolerance": 0.2, "study.trials": 4, "study.seeds": 2, "study.max_seeds": 2})
CELLS = (
    f"from subsettune import TuneOptions, load_study, tune\nstudy = {STUDY!r}",
    "found = tune(study, run_id='one', options=TuneOptions(executor='inline', device='cpu'))",
    "found",
    "found.trials",
    "found.figures['search']",
    "tune(study, run_id='one', options=TuneOptions(executor='inline'), quiet=True).run_id",
    "repr(load_study('one')).count('\\n')",
    "tune({**study, 'space': {'budgett': 0.3}}, options=TuneOptions(executor='inline'))",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Outputs of each cell, and the messages that the kernel sent for the second."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[-1].metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert Path(folder, "runs", "one", "manifest.json").exists()
    return [[dict(output) for output in cell.outputs] for cell in notebook.cells]


def test_progress_is_one_output_that_ends_with_what_happened(outputs: list[list[dict[str, Any]]]) -> None:
    (output,) = outputs[1]
    assert output["output_type"] == "display_data"
    told = output["data"]["text/plain"].splitlines()
    assert told[0] == "Study 'one' in runs; tune with run_id='one' goes on with it."
    assert [line.partition(":")[0] for line in told if line.startswith(("reference", "search", "verification"))] == [
        "reference",
        "search",
        "verification",
    ]
    assert len(told) <= 14
    assert output["data"]["text/html"].startswith("<pre style=")


def test_the_study_shows_its_table_and_its_trials_are_a_frame(outputs: list[list[dict[str, Any]]]) -> None:
    (result,) = outputs[2]
    assert "matches the recipe" in result["data"]["text/html"]
    assert '<a href="runs/one/report.html"' in result["data"]["text/html"]
    assert result["data"]["text/plain"].startswith("Study 'one': ")
    assert len(result["data"]["text/plain"].splitlines()) == 3
    (frame,) = outputs[3]
    assert 'class="dataframe"' in frame["data"]["text/html"]
    for column in ("metric", "matched", "compute_share", "budget", "selector"):
        assert f"<th>{column}</th>" in frame["data"]["text/html"]
    (figure,) = outputs[4]
    assert "application/vnd.plotly.v1+json" in figure["data"]


def test_quiet_shows_nothing_and_a_study_is_loaded_again(outputs: list[list[dict[str, Any]]]) -> None:
    (quiet,), (lines,) = outputs[5], outputs[6]
    assert quiet["data"]["text/plain"] == "'one'"
    assert lines["data"]["text/plain"] == "2"


def test_a_mistake_is_told_as_the_command_line_tells_it(outputs: list[list[dict[str, Any]]]) -> None:
    error = next(output for output in outputs[7] if output["output_type"] == "error")
    assert error["ename"] == "ConfigError"
    assert "space.budgett" in error["evalue"]
    assert "Did you mean 'budget'?" in error["evalue"]
