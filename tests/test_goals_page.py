"""docs/goals.md names every metric, and its example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from places import ROOT

from subsettune import config, train
from subsettune.policy import Phase, Policy
from subsettune.registry import METRICS
from subsettune.task import Task

PAGE = (ROOT / "docs" / "goals.md").read_text(encoding="utf-8")


def test_every_metric_is_on_the_page_and_the_readme_leads_there() -> None:
    assert [name for name in METRICS if f"`{name}`" not in PAGE] == []
    assert "](docs/goals.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written,), (code,) = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("yaml", "python"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    table = {f"c{j}": x[:, j] for j in range(3)} | {"label": (x[:, 0] > 1).astype(np.int64)}
    pq.write_table(pa.table(table), tmp_path / "payments.parquet")
    (tmp_path / "goals.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = config.build(Task, yaml.safe_load(written)["task"])
    result = train.run(task, Policy(phases=(Phase(passes=5),)), 0, options=train.RunOptions(num_threads=1))
    assert (result.cause, task.higher_is_better) == ("finished", False)
    assert 0 <= result.metrics["validation"] < 20 * 0.16  # what naming nothing a fraud costs
