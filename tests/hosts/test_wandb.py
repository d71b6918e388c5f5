from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tracked import tracked
from wandb.proto import wandb_internal_pb2

from subsettune.integrations.wandb import WandbCallback

pytestmark = pytest.mark.filterwarnings("default")  # those of wandb are not ours


BLOCK, HEADER = 32768, 7  # bytes: offline runs are logs in the format of LevelDB, after a header of their own


def read(path: Path) -> list[Any]:
    """Records of an offline run."""
    content, at, held, found = path.read_bytes(), HEADER, b"", []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the end of a block is filled up
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + HEADER])
        held += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(held))
            held = b""
    return found


def written(path: Path) -> list[Any]:
    """The records of a run that has ended; wandb's service writes them soon after."""
    for _ in range(100):
        records = read(path)
        if of_kind(records, "exit"):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def of_kind(records: list[Any], kind: str) -> list[Any]:
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def items(history: Any) -> dict[str, float]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}


def test_trials_are_runs_of_a_group_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = tracked(tmp_path, [WandbCallback("nightly", mode="offline", folder=tmp_path)], 2)
    assert [record for record in caplog.records if record.name == "subsettune.callbacks"] == []
    runs = {}
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        records = written(path)
        run, *_ = of_kind(records, "run")  # as it began; it may be written again as more is known
        runs[run.display_name] = (run, records)
    assert sorted(runs) == ["study", "trial-0000", "trial-0001"]
    for name, (run, _) in runs.items():
        assert (run.run_group, run.project) == ("one", "nightly")
        assert run.job_type == ("study" if name == "study" else "trial")
    for trial in found.view.trials:
        run, records = runs[trial.name]
        updates = [told.config for told in of_kind(records, "run")] + of_kind(records, "config")
        config = {item.key: item.value_json for update in updates for item in update.update}
        assert float(config["budget"]) == trial.coordinates["budget"]
        seen = [items(history) for history in of_kind(records, "history")]
        assert [point["curve/metric"] for point in seen] == [point.metric for point in trial.curve]
        steps = [round(1000 * point.flops / found.facts.reference_flops) for point in trial.curve]
        assert [point["_step"] for point in seen] == steps
    kept = [artifact for artifact in of_kind(runs["study"][1], "artifact") if artifact.type == "study"]
    names = {entry.path for artifact in kept for entry in artifact.manifest.contents}
    assert {"report.html", "bundle/policy.json"} <= names
