"""The page about estimators: its example for scikit-learn runs, and what it names is there."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from places import ROOT

from subsettune.integrations.sklearn import SubsetClassifier

WHOLE = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
PAGE = WHOLE.partition("### scikit-learn\n")[2].partition("### FLAML\n")[0]


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})
    torch.set_num_threads(threads)
    score, share, limits = capsys.readouterr().out.splitlines()
    assert float(score) > 0.9
    assert float(share) == pytest.approx(0.4, abs=0.01)
    assert limits.startswith("('The policy is no bundle: ")


def test_settings_that_it_names_are_there() -> None:
    known = {*inspect.signature(SubsetClassifier).parameters}
    named = set(re.findall(r"`(\w+)=", PAGE)) | {"lr", "epochs", "time_budget_s", "random_state", "num_threads"}
    assert {"module", "module_options", "recipe"} <= named <= known
