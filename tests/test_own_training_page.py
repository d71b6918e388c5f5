"""docs/own_training.md: its function and its study file are what it says they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

from subsettune.data import DataPaths
from subsettune.policy import Phase, Policy
from subsettune.study.plan import plan
from subsettune.study.spec.yaml_file import read
from subsettune.train.follow.run import Run
from subsettune.train.loop import RunOptions, run

PAGE = (ROOT / "docs" / "own_training.md").read_text()
AROUND = """
from own_functions import _network as make_network, accuracy, VALIDATION as held_out, TEST as test, INPUTS, TARGETS
from torch.utils.data import TensorDataset
dataset = TensorDataset(INPUTS[:120], TARGETS[:120])
"""


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, file = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1] for kind in ("python", "yaml"))  # type: ignore[index]
    (tmp_path / "mine.py").write_text(AROUND + code)
    (tmp_path / "mine.yaml").write_text(file.replace("50000", "120").replace("batch_size: 128", "batch_size: 16"))
    monkeypatch.chdir(tmp_path)
    study = read("mine.yaml")
    assert plan(study, DataPaths(cache=str(tmp_path)))["num_test"] == 10_000
    policy = Policy(phases=(Phase(share=0.5, passes=2), Phase(passes=2, transition="shrink_perturb")))
    result = run(study.task, policy, 0, options=RunOptions(device="cpu", keep_model=True))
    assert result.metrics["validation"] > 0.8
    assert result.model is not None


def test_the_table_names_what_there_is() -> None:
    names = set(re.findall(r"`run\.(\w+)", PAGE.partition("## What a run offers")[2].partition("**Loaders")[0]))
    public = {name for name in dir(Run) if not name.startswith("_")} | set(Run.__annotations__)
    public = {name for name in public if not name.startswith("_")}
    assert names <= public
    assert public - names <= {"outcome", "num_examples", "metric", "counter"}
