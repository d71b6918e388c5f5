"""docs/hosts.md: its script runs on a real bundle, and its table names what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from places import ROOT, SUPPORT
from small_bundles import digits_bundle

from subsettune.train.follow.sampler import PolicySampler

PAGE = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")


def test_the_script_follows_a_bundle(tmp_path: Path) -> None:
    code = re.search(r"```python\n(# follow_digits\.py\n.*?)```", PAGE, re.DOTALL)
    assert code is not None
    (tmp_path / "follow_digits.py").write_text(code[1])
    made = digits_bundle(tmp_path).bundle
    command = [sys.executable, "-W", "error", str(tmp_path / "follow_digits.py"), str(tmp_path / "bundle")]
    paths = os.pathsep.join((str(ROOT), str(SUPPORT)))  # its subset was chosen by a selector of tests
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(made.batch_sampler(1797).promise)


def test_the_table_names_what_a_sampler_has() -> None:
    table = PAGE.partition("| | |")[2].partition("\n\n")[0]
    first = "\n".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))
    names = set(re.findall(r"`(?:sampler\.)?(\w+)(?:\(|`)", first))
    known = {name for name in dir(PolicySampler) if not name.startswith("_")}
    assert names - {"len", "compared"} <= known
    assert known - names == {"counter", "epoch_length", "is_complete", "start"}  # for hosts
