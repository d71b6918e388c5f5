"""The conversion of the TREC questions: lines as published, and the whole of the real files where they are."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from places import BENCHMARKS, ROOT

from subsettune.data import DataPaths, load
from subsettune.study.spec.yaml_file import read

SCRIPT = BENCHMARKS / "convert" / "trec.py"
LINES = "HUM:ind Who killed Gandhi ?\nNUM:date When was Ren\u00e9 born ?\nENTY:cremat What is `` Nine Inch Nails '' ?\n"


def convert(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(source), str(out)], capture_output=True, text=True)


def write_source(folder: Path, names: tuple[str, str], test: str = LINES) -> None:
    folder.mkdir()
    for name, content in zip(names, (LINES, test), strict=True):
        raw = content.encode("latin-1")
        (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


@pytest.mark.parametrize("names", [("TREC.train", "TREC.test"), ("train_5500.label.gz", "TREC_10.label.gz")])
def test_lines_become_rows(tmp_path: Path, names: tuple[str, str]) -> None:
    write_source(tmp_path / "in", names, LINES.splitlines(keepends=True)[1])
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "trec"
    assert done.stdout == f"{folder / 'train.parquet'}: 3 questions\n{folder / 'test.parquet'}: 1 questions\n"
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    assert rows == [
        {"text": "Who killed Gandhi ?", "label": "HUM", "fine": "HUM:ind"},
        {"text": "When was Ren\u00e9 born ?", "label": "NUM", "fine": "NUM:date"},
        {"text": "What is `` Nine Inch Nails '' ?", "label": "ENTY", "fine": "ENTY:cremat"},
    ]
    assert pq.read_table(folder / "test.parquet").to_pylist() == rows[1:2]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["HUM Who ?", "HUM:ind", "", ":ind Who ?"])
def test_what_is_wrong_is_one_sentence(tmp_path: Path, line: str) -> None:
    done = convert(tmp_path, tmp_path / "out")
    message = f"error: {tmp_path} must hold TREC.train or train_5500.label, gzipped or not, got neither. Fetch it.\n"
    assert (done.returncode, done.stderr) == (1, message)
    write_source(tmp_path / "in", ("TREC.train", "TREC.test"), f"HUM:ind Who ?\n{line}\n")
    done = convert(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "in" / "TREC.test"
    message = f"error: {path} must hold CLASS:class and a question a line, got {line + chr(10)!r} in line 2.\n"
    assert (done.returncode, done.stderr) == (1, message)
    assert not (tmp_path / "out").exists()


def real(name: str) -> Path:
    kept = os.environ.get("SUBSETTUNE_DATA")
    if not kept or not (Path(kept) / name).is_file():
        pytest.skip(f"needs the real texts: set SUBSETTUNE_DATA to a folder that holds {name}")
    return Path(kept)


def test_the_real_questions_suit_their_study(tmp_path: Path) -> None:
    """Counts of each class as published."""
    root = real("trec/TREC.train.gz")
    done = convert(root / "trec", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    task = read(ROOT / "search_spaces/trec.yaml").task
    data = load(task, DataPaths(data_root=str(tmp_path / "out"), cache=str(tmp_path / "cache"), download=False))
    assert data.class_names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    targets = data.train.all_targets.tolist()
    counts = Counter(data.class_names[i] for i in targets[: data.num_source_examples])
    assert counts == {"ABBR": 86, "DESC": 1162, "ENTY": 1250, "HUM": 1223, "LOC": 835, "NUM": 896}
    tests = Counter(data.class_names[i] for i in targets[data.num_source_examples :])
    assert tests == {"ABBR": 9, "DESC": 138, "ENTY": 94, "HUM": 65, "LOC": 81, "NUM": 113}
    assert data.num_tokens > 5_000


@pytest.mark.slow
def test_the_real_phrases_suit_their_study(tmp_path: Path) -> None:
    root = real("sst2/train.tsv.gz")
    task = read(ROOT / "search_spaces/sst2.yaml").task
    data = load(task, DataPaths(data_root=str(root), cache=str(tmp_path / "cache"), download=False))
    assert (data.num_source_examples, len(data.test), data.num_classes) == (67_349, 1_821, 2)
    assert data.input_shape == (task.data.max_tokens,)
